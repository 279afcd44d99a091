/* Steps of optimisers, scaling, and the sum of squares for clipping. */
#include "ops/args.h"
#include "ops/team.h"

#include <math.h>

#define GRAIN 1024
#define STEP_NS 0.6
#define MEMORY_NS 0.15
#define SERIAL_ROWS 64 /* sums kept on the stack at a time */

/* ---- steps ---------------------------------------------------------------------------------- */

struct job {
    const t2k_table *table;
    const t2k_adam *adam; /* one of the two; NULL both: scaling */
    const t2k_sgd *sgd;
    size_t n;
    const float *G;
    float *M, *V, *P;
    float factor;
};

/* In here, not before: a body has the default rounding mode, the caller may not. */
static t2k_adam_factors adam_factors(const t2k_adam *a)
{
    return (t2k_adam_factors){.rest1 = (float)(1.0 - a->beta1),
                              .beta2 = (float)a->beta2,
                              .rest2 = (float)(1.0 - a->beta2),
                              .root2 = (float)sqrt(a->correction2),
                              .eps = (float)a->eps,
                              .step = (float)(a->lr / a->correction1),
                              .decay = a->decoupled ? 0.0f : (float)a->weight_decay,
                              .shrink =
                                  a->decoupled ? (float)(1.0 - a->lr * a->weight_decay) : 1.0f};
}

static t2k_sgd_factors sgd_factors(const t2k_sgd *s)
{
    return (t2k_sgd_factors){.lr = (float)s->lr,
                             .momentum = (float)s->momentum,
                             .rest = (float)(1.0 - s->dampening),
                             .decay = (float)s->weight_decay,
                             .nesterov = s->nesterov,
                             .first = s->first};
}

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->n, GRAIN, &first, &last);
    if (first == last) {
        return;
    }
    const size_t n = last - first;
    if (job->adam != NULL) {
        const t2k_adam_factors f = adam_factors(job->adam);
        job->table->adam(n, &f, job->G + first, job->M + first, job->V + first, job->P + first);
    } else if (job->sgd != NULL) {
        const t2k_sgd_factors f = sgd_factors(job->sgd);
        job->table->sgd(n, &f, job->G + first, job->M != NULL ? job->M + first : NULL,
                        job->P + first);
    } else {
        job->table->scale(n, job->G + first, job->factor, job->P + first);
    }
}

static t2k_status run(t2k_team *team, struct job *job, double ns)
{
    job->table = t2k_table_get();
    if (job->table == NULL) {
        return T2K_ERR_ISA;
    }
    if (team != NULL) {
        body(team, job);
        t2k_team_barrier(team);
        return T2K_OK;
    }
    return t2k_parallel_team(t2k_threads_for_work(ns * (double)job->n), 0, body, job);
}

static int bad_vectors(int64_t n, const float *a, const float *b)
{
    return t2k_bad_vector(n, a, sizeof *a) || t2k_bad_vector(n, b, sizeof *b);
}

t2k_status t2k_adam_step_team(t2k_team *team, const t2k_adam *adam, int64_t n, const float *G,
                              float *M, float *V, float *P)
{
    if (adam == NULL || bad_vectors(n, G, M) || bad_vectors(n, V, P) ||
        !(adam->correction1 > 0.0 && adam->correction2 > 0.0)) {
        return T2K_ERR_ARG;
    }
    struct job job = {.adam = adam, .n = (size_t)n, .G = G, .M = M, .V = V, .P = P};
    return run(team, &job, STEP_NS);
}

t2k_status t2k_adam_step(const t2k_adam *adam, int64_t n, const float *G, float *M, float *V,
                         float *P)
{
    return t2k_adam_step_team(NULL, adam, n, G, M, V, P);
}

t2k_status t2k_sgd_step_team(t2k_team *team, const t2k_sgd *sgd, int64_t n, const float *G,
                             float *M, float *P)
{
    if (sgd == NULL || bad_vectors(n, G, P) ||
        (sgd->momentum != 0.0 && t2k_bad_vector(n, M, sizeof *M))) {
        return T2K_ERR_ARG;
    }
    struct job job = {
        .sgd = sgd, .n = (size_t)n, .G = G, .M = sgd->momentum != 0.0 ? M : NULL, .P = P};
    return run(team, &job, STEP_NS);
}

t2k_status t2k_sgd_step(const t2k_sgd *sgd, int64_t n, const float *G, float *M, float *P)
{
    return t2k_sgd_step_team(NULL, sgd, n, G, M, P);
}

t2k_status t2k_scale_team(t2k_team *team, int64_t n, const float *X, float factor, float *Y)
{
    if (bad_vectors(n, X, Y)) {
        return T2K_ERR_ARG;
    }
    struct job job = {.n = (size_t)n, .G = X, .P = Y, .factor = factor};
    return run(team, &job, MEMORY_NS);
}

t2k_status t2k_scale(int64_t n, const float *X, float factor, float *Y)
{
    return t2k_scale_team(NULL, n, X, factor, Y);
}

/* ---- sum of squares ------------------------------------------------------------------------- */

struct squares_job {
    t2k_row_sums_fn *kernel;
    size_t n;
    const float *X;
    double sum;
};

/* Blocks first .. last - 1 of T2K_SQUARES elements, the last one of the tensor perhaps shorter. */
static void block_squares(const struct squares_job *job, size_t first, size_t last, double *sums)
{
    const size_t whole = job->n / T2K_SQUARES, full = last < whole ? last : whole;
    if (first < full) {
        job->kernel(full - first, T2K_SQUARES, job->X + first * T2K_SQUARES, T2K_SQUARES, sums);
    }
    if (last > whole) {
        job->kernel(1, job->n - whole * T2K_SQUARES, job->X + whole * T2K_SQUARES, 0,
                    sums + (whole - first));
    }
}

/* The sum, the same on every thread. */
static double squares(t2k_team *team, const struct squares_job *job)
{
    const size_t blocks = (job->n + T2K_SQUARES - 1) / T2K_SQUARES;
    double own[SERIAL_ROWS], total = 0.0;
    double *sums = t2k_team_size(team) > 1 ? t2k_team_workspace_of(team, 0) : own;
    const size_t most = sums == own ? SERIAL_ROWS : T2K_WORKSPACE_BYTES / sizeof *sums;
    for (size_t i = 0; i < blocks; i += most) {
        const size_t now = blocks - i < most ? blocks - i : most;
        size_t first, last;
        t2k_team_share(team, now, 1, &first, &last);
        if (first < last) {
            block_squares(job, i + first, i + last, sums + first);
        }
        t2k_team_barrier(team);
        for (size_t k = 0; k < now; k++) {
            total += sums[k];
        }
        t2k_team_barrier(team);
    }
    return total;
}

static void squares_body(t2k_team *team, void *arg)
{
    struct squares_job *job = arg;
    const double sum = squares(team, job);
    if (t2k_team_rank(team) == 0) {
        job->sum = sum;
    }
}

t2k_status t2k_sum_squares_team(t2k_team *team, int64_t n, const float *X, double *sum)
{
    if (t2k_bad_vector(n, X, sizeof *X) || sum == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    struct squares_job job = {table->row_squares, (size_t)n, X, 0.0};
    if (team != NULL) {
        /* sum may be each thread's own or one for all: equal values, but no plain race. */
        double result = squares(team, &job);
        __atomic_store(sum, &result, __ATOMIC_RELAXED);
        t2k_team_barrier(team);
        return T2K_OK;
    }
    const int threads = t2k_threads_for_work(MEMORY_NS * (double)n);
    const t2k_status status = t2k_parallel_team(threads, threads > 1, squares_body, &job);
    if (status == T2K_OK) {
        *sum = job.sum;
    }
    return status;
}

t2k_status t2k_sum_squares(int64_t n, const float *X, double *sum)
{
    return t2k_sum_squares_team(NULL, n, X, sum);
}
