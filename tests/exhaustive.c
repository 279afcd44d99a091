/* exhaustive [NAME...] - every float through the one-argument kernels, or those that are named
 *
 * All 2^32 arguments go through the kernel of each instruction set of this CPU. Those of the
 * highest one are compared with double arithmetic, the others with them, bit for bit. Prints per
 * kernel the largest error and its argument; the last line is "N passed, N failed, N skipped", the
 * exit status 1 where a check failed. Uses all threads; minutes. Where `fma` is no instruction the
 * scalar kernels would take an hour: they see every n-th block then, which is said. */
#include "check.h"
#include "core/table.h"
#include "ref_unary.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 1 << 16, BLOCKS = 1 << 16, MOST_ISAS = 8, MOST_THREADS = 256 };
#define PATIENCE 200.0 /* seconds that all blocks of one kernel of one instruction set may take */

/* ---- one function --------------------------------------------------------------------------- */

struct worst {
    double ulp, absolute;
    float ulp_at, absolute_at;
};

struct run {
    const struct ref_unary *f;
    int isas; /* the highest one last */
    t2k_unary_fn *kernel[MOST_ISAS];
    size_t step[MOST_ISAS]; /* it sees every step-th block */
    atomic_size_t next, done;
    atomic_long different[MOST_ISAS];
    _Atomic float where[MOST_ISAS];
    struct worst worst[MOST_THREADS];
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void arguments(size_t block, float *x)
{
    for (size_t i = 0; i < BLOCK; i++) {
        x[i] = float_of((uint32_t)(block * BLOCK + i));
    }
}

static void compare(const struct ref_unary *f, const float *x, const float *y, struct worst *worst)
{
    for (size_t i = 0; i < BLOCK; i++) {
        const double ref = f->exact((double)x[i]), error = fabs((double)y[i] - ref);
        const int in_ulp = !((double)x[i] < f->from);
        if (y[i] == 0.0f && (signbit(y[i]) != 0) != (signbit(ref) != 0)) {
            worst->ulp = HUGE_VAL;
            worst->ulp_at = x[i];
        }
        /* A unit is at least 2^-24 |ref|: ulp_error() is for those that can exceed the worst. */
        if (in_ulp && !(error <= worst->ulp * 0x1p-24 * fabs(ref)) &&
            ulp_error(y[i], ref) > worst->ulp) {
            worst->ulp = ulp_error(y[i], ref);
            worst->ulp_at = x[i];
        } else if (!in_ulp && !(error <= worst->absolute)) {
            worst->absolute = isnan(error) ? HUGE_VAL : error;
            worst->absolute_at = x[i];
        }
    }
}

static void body(t2k_team *team, void *arg)
{
    struct run *run = arg;
    const int rank = t2k_team_rank(team);
    static _Thread_local float x[BLOCK], best[BLOCK], y[BLOCK];
    const int show = rank == 0 && isatty(STDERR_FILENO);
    for (size_t block; (block = atomic_fetch_add(&run->next, 1)) < BLOCKS;) {
        arguments(block, x);
        run->kernel[run->isas - 1](BLOCK, x, best);
        compare(run->f, x, best, &run->worst[rank]);
        for (int i = 0; i < run->isas - 1; i++) {
            if (block % run->step[i] != 0) {
                continue;
            }
            run->kernel[i](BLOCK, x, y);
            const size_t at = first_difference(y, best, BLOCK);
            if (at < BLOCK && atomic_fetch_add(&run->different[i], 1) == 0) {
                run->where[i] = x[at];
            }
        }
        const size_t done = atomic_fetch_add(&run->done, 1) + 1;
        if (show && done % 64 == 0) {
            fprintf(stderr, "\r%s: %zu %%", run->f->name, 100 * done / BLOCKS);
        }
    }
    if (show) {
        fprintf(stderr, "\r%*s\r", 20, "");
    }
}

/* Blocks that are passed over between two, so that all are through in PATIENCE seconds. */
static size_t step_of(t2k_unary_fn *kernel, int threads)
{
    static float x[BLOCK], y[BLOCK];
    arguments(0x3f80, x); /* around 1 */
    const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    kernel(BLOCK, x, y);
    return 1 + (size_t)((seconds(CLOCK_THREAD_CPUTIME_ID) - start) * BLOCKS / threads / PATIENCE);
}

static struct {
    long passed, failed, skipped;
} count;

static void check(int ok)
{
    count.passed += ok;
    count.failed += !ok;
}

static void report(struct run *run, const char *const names[], int threads, double took)
{
    const struct ref_unary *f = run->f;
    struct worst all = run->worst[0];
    for (int i = 1; i < threads; i++) {
        const struct worst *w = &run->worst[i];
        if (w->ulp > all.ulp) {
            all.ulp = w->ulp;
            all.ulp_at = w->ulp_at;
        }
        if (w->absolute > all.absolute) {
            all.absolute = w->absolute;
            all.absolute_at = w->absolute_at;
        }
    }
    printf("%-9s %s: %.4f ULP at %a (bound %g)", f->name, names[run->isas - 1], all.ulp,
           (double)all.ulp_at, f->ulp);
    check(all.ulp <= f->ulp);
    if (f->absolute > 0.0) {
        printf(" from %g up, below that %.3g at %a (bound %g)", f->from, all.absolute,
               (double)all.absolute_at, f->absolute);
        check(all.absolute <= f->absolute);
    }
    printf("; %.0f s\n", took);
    for (int i = 0; i < run->isas - 1; i++) {
        const long blocks = run->different[i];
        printf("%-9s %s: ", "", names[i]);
        if (blocks == 0) {
            printf("the same bits");
        } else {
            printf("%ld blocks differ, such as at %a", blocks, (double)run->where[i]);
        }
        if (run->step[i] > 1) {
            printf(", one block in %zu", run->step[i]);
        }
        printf("\n");
        check(blocks == 0);
    }
    fflush(stdout);
}

static void all_floats(const struct ref_unary *f, int threads)
{
    static struct run run;
    const char *names[MOST_ISAS];
    memset(&run, 0, sizeof run);
    run.f = f;
    for (int i = 0; i < t2k_isa_count() && run.isas < MOST_ISAS; i++) {
        const t2k_table *table = t2k_table_own(i);
        t2k_isa_info info;
        t2k_unary_fn *kernel = NULL;
        if (table == NULL || t2k_isa_get(i, &info) != T2K_OK) {
            continue;
        }
        memcpy(&kernel, (const char *)table + f->slot, sizeof kernel);
        if (kernel != NULL && !info.usable) {
            printf("%-9s %s: skipped, %s\n", f->name, info.name, info.reason);
            count.skipped++;
        } else if (kernel != NULL) {
            names[run.isas] = info.name;
            run.step[run.isas] = step_of(kernel, threads);
            run.kernel[run.isas++] = kernel;
        }
    }
    const double start = seconds(CLOCK_MONOTONIC);
    t2k_parallel(threads, body, &run);
    report(&run, names, threads, seconds(CLOCK_MONOTONIC) - start);
}

int main(int argc, char **argv)
{
    const int all = t2k_get_num_threads(), threads = all < MOST_THREADS ? all : MOST_THREADS;
    for (int i = 1; i < argc; i++) {
        int known = 0;
        for (size_t f = 0; f < REF_UNARIES; f++) {
            known |= strcmp(argv[i], ref_unaries[f].name) == 0;
        }
        if (!known) {
            fprintf(stderr, "exhaustive: no function %s\n", argv[i]);
            return 2;
        }
    }
    for (size_t f = 0; f < REF_UNARIES; f++) {
        int wanted = argc == 1;
        for (int i = 1; i < argc; i++) {
            wanted |= strcmp(argv[i], ref_unaries[f].name) == 0;
        }
        if (wanted) {
            all_floats(&ref_unaries[f], threads);
        }
    }
    printf("%ld passed, %ld failed, %ld skipped\n", count.passed, count.failed, count.skipped);
    return count.failed > 0;
}
