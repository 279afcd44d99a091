/* One case: verify its result, then time it. No wrong result is ever timed.
 *
 * Verification: (a) rows of the scalar ISA's result, computed one at a time, against the reference
 * in double; (b) the same rows of the case's result against them, bit for bit; (c) the fingerprint
 * of the whole result against that of the first case of the same problem; (d) the fingerprint
 * again after the timing.
 *
 * Timing: rounds of as many calls as take half a millisecond or more; the time reported is that of
 * the fastest round, since other programs only ever add to it. All operands stay in place ("hot").
 */
#include "bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SAMPLE_WORK 1.6e7 /* steps that the sampled rows of one problem may cost */
#define SAMPLE_ROWS 8     /* but at least this many rows */
#define ROUND_SECONDS 0.5e-3
#define LONG_ROUND 0.1 /* seconds from which on one round is enough */

double bench_seconds = 0.1;

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the scalar ISA's rows, and their check -------------------------------------------------- */

static t2k_status choose_rows(struct problem *p)
{
    double fit = floor(SAMPLE_WORK / p->work * (double)p->rows);
    double samples = fmin(fmax(fit, SAMPLE_ROWS), (double)p->rows);
    p->samples = (int64_t)samples;
    p->sample = bench_alloc((size_t)p->samples, sizeof *p->sample);
    p->expected = bench_alloc((size_t)(p->samples * p->cols), sizeof *p->expected);
    p->out = bench_alloc((size_t)(p->rows * p->cols), sizeof *p->out);
    if (p->sample == NULL || p->expected == NULL || p->out == NULL) {
        return T2K_ERR_NOMEM;
    }
    uint64_t state = (uint64_t)p->rows;
    for (int64_t i = 0; i < p->samples; i++) {
        if (p->samples == p->rows || i == 0) {
            p->sample[i] = i;
        } else if (i == p->samples - 1) {
            p->sample[i] = p->rows - 1;
        } else {
            p->sample[i] = (int64_t)(bench_random(&state) % (uint64_t)p->rows);
        }
    }
    return T2K_OK;
}

static t2k_status scalar_rows(struct problem *p)
{
    t2k_status status = t2k_use_isa(0);
    if (status == T2K_OK) {
        status = t2k_set_num_threads(1);
    }
    for (int64_t i = 0; i < p->samples && status == T2K_OK; i++) {
        status = p->kind->run_row(p, p->sample[i], p->expected + i * p->cols);
    }
    return status;
}

static void check_reference(struct problem *p)
{
    double *ref = bench_alloc((size_t)p->cols, sizeof *ref);
    double *allowed = bench_alloc((size_t)p->cols, sizeof *allowed);
    if (ref == NULL || allowed == NULL) {
        snprintf(p->error, sizeof p->error, "%s", t2k_status_str(T2K_ERR_NOMEM));
    }
    for (int64_t i = 0; i < p->samples && p->error[0] == '\0'; i++) {
        p->kind->reference(p, p->sample[i], ref, allowed);
        const float *got = p->expected + i * p->cols;
        for (int64_t j = 0; j < p->cols; j++) {
            /* Written so that a NaN on either side fails: no problem here has one. */
            if (!(fabs((double)got[j] - ref[j]) <= allowed[j])) {
                snprintf(p->error, sizeof p->error,
                         "scalar: row %" PRId64 " column %" PRId64
                         " is %.9g, reference %.9g, allowed error %.3g",
                         p->sample[i], j, (double)got[j], ref[j], allowed[j]);
                break;
            }
        }
    }
    free(ref);
    free(allowed);
}

static void prepare_problem(struct problem *p)
{
    p->prepared = 1;
    t2k_status status = p->kind->prepare(p);
    if (status == T2K_OK) {
        status = choose_rows(p);
    }
    if (status == T2K_OK) {
        status = scalar_rows(p);
    }
    if (status != T2K_OK) {
        snprintf(p->error, sizeof p->error, "scalar: %s", t2k_status_str(status));
        return;
    }
    check_reference(p);
}

/* ---- the case's own result ------------------------------------------------------------------- */

static t2k_status pack(struct problem *p, int isa)
{
    if (!p->kind->packed || p->packed_isa == isa) {
        return T2K_OK;
    }
    free(p->packed);
    p->packed_isa = -1;
    size_t bytes = t2k_packed_b_bytes(p->k, p->n);
    p->packed = bytes > 0 ? bench_alloc(bytes, 1) : NULL;
    if (p->packed == NULL) {
        return T2K_ERR_NOMEM;
    }
    t2k_status status = t2k_pack_b(p->kind->trans_b, p->k, p->n, p->in[1],
                                   p->kind->trans_b == T2K_TRANS ? p->k : p->n, p->packed);
    if (status == T2K_OK) {
        p->packed_isa = isa;
    }
    return status;
}

static t2k_status enter(struct bench_case *c)
{
    t2k_status status = t2k_use_isa(c->isa);
    if (status == T2K_OK) {
        status = t2k_set_num_threads(c->threads);
    }
    return status == T2K_OK ? pack(c->problem, c->isa) : status;
}

static uint64_t fingerprint(const struct problem *p)
{
    const int64_t shape[2] = {p->rows, p->cols};
    return t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, p->out);
}

static int fail(struct bench_case *c, const char *text)
{
    snprintf(c->error, sizeof c->error, "%s", text);
    return 0;
}

static int compare_rows(struct bench_case *c)
{
    const struct problem *p = c->problem;
    for (int64_t i = 0; i < p->samples; i++) {
        const float *got = p->out + p->sample[i] * p->cols, *want = p->expected + i * p->cols;
        for (int64_t j = 0; j < p->cols; j++) {
            uint32_t a, b;
            memcpy(&a, &got[j], sizeof a);
            memcpy(&b, &want[j], sizeof b);
            if (a != b) {
                snprintf(c->error, sizeof c->error,
                         "row %" PRId64 " column %" PRId64 " is %a (%08" PRIx32
                         "), the scalar ISA has %a (%08" PRIx32 ")",
                         p->sample[i], j, (double)got[j], a, (double)want[j], b);
                return 0;
            }
        }
    }
    return 1;
}

static int compare_fingerprint(struct bench_case *c)
{
    struct problem *p = c->problem;
    uint64_t hash = fingerprint(p);
    if (p->fingerprint_of == NULL) {
        p->fingerprint = hash;
        p->fingerprint_of = c->name;
    }
    if (hash != p->fingerprint) {
        snprintf(c->error, sizeof c->error,
                 "fingerprint %016" PRIx64 " differs from %016" PRIx64 " of %s", hash,
                 p->fingerprint, p->fingerprint_of);
        return 0;
    }
    return 1;
}

static int verify(struct bench_case *c)
{
    struct problem *p = c->problem;
    if (!p->prepared) {
        prepare_problem(p);
    }
    if (p->error[0] != '\0') {
        return fail(c, p->error);
    }
    t2k_status status = enter(c);
    if (status != T2K_OK) {
        return fail(c, t2k_status_str(status));
    }
    if (c->verified) {
        return 1;
    }
    memset(p->out, 0xff, (size_t)(p->rows * p->cols) * sizeof *p->out); /* NaN everywhere */
    double start = bench_now();
    status = p->kind->run(p);
    c->first = bench_now() - start;
    if (status != T2K_OK) {
        return fail(c, t2k_status_str(status));
    }
    c->verified = compare_rows(c) && compare_fingerprint(c);
    return c->verified;
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* Seconds of `calls` calls; *status keeps the first error. */
static double round_of(struct problem *p, int64_t calls, t2k_status *status)
{
    double start = bench_now();
    for (int64_t i = 0; i < calls; i++) {
        t2k_status s = p->kind->run(p);
        *status = *status != T2K_OK ? *status : s;
    }
    return bench_now() - start;
}

/* How many calls make a round and how many rounds a repetition: settled once, since the library
 * wants all repetitions of a case alike. */
static void plan(struct bench_case *c, t2k_status *status)
{
    double round = c->first;
    c->calls = 1;
    if (round < LONG_ROUND) {
        round = round_of(c->problem, c->calls, status); /* the first call found cold caches */
        while (round < ROUND_SECONDS && *status == T2K_OK) {
            c->calls *= 2;
            round = round_of(c->problem, c->calls, status);
        }
    }
    /* A round that was held up must not leave too few others. */
    double least = round >= LONG_ROUND ? 1.0 : round >= 0.25 * LONG_ROUND ? 3.0 : 8.0;
    double rounds = fmax(least, least > 1.0 ? ceil(bench_seconds / round) : 1.0);
    c->rounds = (int64_t)fmin(rounds, BENCH_ROUNDS);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Runs the rounds of one repetition: seconds per call of the fastest and of the median one. */
static void time_rounds(struct bench_case *c, double *best, double *median, t2k_status *status)
{
    double seconds[BENCH_ROUNDS];
    size_t rounds = (size_t)c->rounds;
    for (size_t i = 0; i < rounds; i++) {
        seconds[i] = round_of(c->problem, c->calls, status) / (double)c->calls;
    }
    qsort(seconds, rounds, sizeof seconds[0], ascending);
    *best = seconds[0];
    *median = seconds[rounds / 2];
}

static void add_counters(gbench_state *state, const struct bench_case *c, double best,
                         double median)
{
    const struct problem *p = c->problem;
    if (p->flops > 0.0) {
        gbench_set_counter(state, "GFLOP/s", 1e-9 * p->flops, GBENCH_RATE | GBENCH_PER_ITERATION);
        if (c->peak > 0.0) {
            gbench_set_counter(state, "fma_peak_share", 1e-9 * p->flops / best / c->peak, 0);
        }
    }
    gbench_set_counter(state, "GB/s", 1e-9 * p->bytes, GBENCH_RATE | GBENCH_PER_ITERATION);
    gbench_set_counter(state, "kernel_threads", c->threads, 0);
    gbench_set_counter(state, "median_over_best", median / best, 0);
    char label[32];
    snprintf(label, sizeof label, "fp=%016" PRIx64, p->fingerprint);
    gbench_set_label(state, label);
}

void bench_run_case(gbench_state *state, void *arg)
{
    struct bench_case *c = arg;
    if (c->error[0] != '\0' || !verify(c)) {
        gbench_skip_with_error(state, c->error);
        return;
    }
    t2k_status status = T2K_OK;
    if (c->calls == 0) {
        plan(c, &status);
    }
    double best = 0.0, median = 0.0;
    int64_t calls = c->calls * c->rounds;
    /* All rounds are one batch of the library's loop, which thus counts calls, and takes their
     * CPU time; the time that it reports is the fastest round's. */
    while (gbench_keep_running_batch(state, calls)) {
        time_rounds(c, &best, &median, &status);
        gbench_set_iteration_time(state, best * (double)calls);
    }
    if (status != T2K_OK) {
        fail(c, t2k_status_str(status));
    } else if (fingerprint(c->problem) != c->problem->fingerprint) {
        fail(c, "the result changed while it was timed");
    }
    if (c->error[0] != '\0') {
        gbench_skip_with_error(state, c->error);
        return;
    }
    if (c->best == 0.0 || best < c->best) {
        c->best = best;
        c->median = median;
    }
    add_counters(state, c, best, median);
}
