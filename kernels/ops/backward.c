/* Gradients of rows and elements: activations, softmax, sums of columns. Rows or elements are
 * shared among threads, of sums columns: a column's chain has one order. */
#include "ops/args.h"
#include "ops/team.h"

#define GRAIN 1024       /* elements: whole cache lines of any operand */
#define COLUMN_GRAIN 128 /* columns: the widest group of the kernels */
#define MEMORY_NS 0.15
#define ACTIVATION_NS 0.6
#define SOFTMAX_NS 0.25
#define ROW_NS 20.0

/* Inside `team`, or in a region of its own where that is NULL. */
static t2k_status run(t2k_team *team, double work, t2k_body body, void *job)
{
    if (team == NULL) {
        return t2k_parallel_team(t2k_threads_for_work(work), 0, body, job);
    }
    body(team, job);
    t2k_team_barrier(team);
    return T2K_OK;
}

/* ---- activations ---------------------------------------------------------------------------- */

struct activation_job {
    t2k_activation_backward_fn *kernel;
    t2k_activation activation;
    size_t n;
    const float *X, *dY;
    float *dX;
};

static void activation_body(t2k_team *team, void *arg)
{
    const struct activation_job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->n, GRAIN, &first, &last);
    if (first < last) {
        job->kernel(job->activation, last - first, job->X + first, job->dY + first,
                    job->dX + first);
    }
}

t2k_status t2k_activation_backward_team(t2k_team *team, t2k_activation activation, int64_t n,
                                        const float *X, const float *dY, float *dX)
{
    if ((unsigned)activation > T2K_ACT_SILU || t2k_bad_vector(n, X, sizeof *X) ||
        t2k_bad_vector(n, dY, sizeof *dY) || t2k_bad_vector(n, dX, sizeof *dX)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    struct activation_job job = {table->activation_backward, activation, (size_t)n, X, dY, dX};
    const double ns = activation <= T2K_ACT_RELU ? MEMORY_NS : ACTIVATION_NS;
    return run(team, ns * (double)n, activation_body, &job);
}

t2k_status t2k_activation_backward(t2k_activation activation, int64_t n, const float *X,
                                   const float *dY, float *dX)
{
    return t2k_activation_backward_team(NULL, activation, n, X, dY, dX);
}

/* ---- softmax -------------------------------------------------------------------------------- */

struct softmax_job {
    t2k_softmax_backward_fn *kernel;
    size_t rows, cols, ldy, lddy, lddx;
    const float *Y, *dY;
    float scale;
    float *dX;
};

static void softmax_body(t2k_team *team, void *arg)
{
    const struct softmax_job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->rows, 1, &first, &last);
    if (first < last) {
        job->kernel(last - first, job->cols, job->Y + first * job->ldy, job->ldy,
                    job->dY + first * job->lddy, job->lddy, job->scale, job->dX + first * job->lddx,
                    job->lddx);
    }
}

t2k_status t2k_softmax_backward_team(t2k_team *team, int64_t rows, int64_t cols, const float *Y,
                                     int64_t ldy, const float *dY, int64_t lddy, float scale,
                                     float *dX, int64_t lddx)
{
    if (t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) ||
        t2k_bad_matrix(rows, cols, dY, lddy, sizeof *dY) ||
        t2k_bad_matrix(rows, cols, dX, lddx, sizeof *dX) ||
        t2k_bad_in_place(rows, Y, ldy, dX, lddx) || t2k_bad_in_place(rows, dY, lddy, dX, lddx)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    struct softmax_job job = {table->softmax_backward,
                              cols > 0 ? (size_t)rows : 0,
                              (size_t)cols,
                              (size_t)ldy,
                              (size_t)lddy,
                              (size_t)lddx,
                              Y,
                              dY,
                              scale,
                              dX};
    return run(team, (double)rows * (ROW_NS + SOFTMAX_NS * (double)cols), softmax_body, &job);
}

t2k_status t2k_softmax_backward(int64_t rows, int64_t cols, const float *Y, int64_t ldy,
                                const float *dY, int64_t lddy, float scale, float *dX, int64_t lddx)
{
    return t2k_softmax_backward_team(NULL, rows, cols, Y, ldy, dY, lddy, scale, dX, lddx);
}

/* ---- sums of columns ------------------------------------------------------------------------ */

struct columns_job {
    t2k_column_dots_fn *kernel;
    size_t rows, cols, lda, ldb;
    const float *A, *B; /* B: NULL for plain sums */
    int accumulate;
    float *sums;
};

static void columns_body(t2k_team *team, void *arg)
{
    const struct columns_job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->cols, COLUMN_GRAIN, &first, &last);
    if (first < last) {
        job->kernel(job->rows, last - first, job->A != NULL ? job->A + first : NULL, job->lda,
                    job->B != NULL ? job->B + first : NULL, job->ldb, job->accumulate,
                    job->sums + first);
    }
}

static t2k_status columns(t2k_team *team, int64_t rows, int64_t cols, const float *A, int64_t lda,
                          const float *B, int64_t ldb, int accumulate, float *sums)
{
    if (t2k_bad_matrix(rows, cols, A, lda, sizeof *A) || (accumulate != 0 && accumulate != 1) ||
        t2k_bad_vector(cols, sums, sizeof *sums)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    struct columns_job job = {
        table->column_dots, (size_t)rows, (size_t)cols, (size_t)lda, (size_t)ldb, A, B,
        accumulate,         sums};
    return run(team, MEMORY_NS * (double)rows * (double)cols, columns_body, &job);
}

t2k_status t2k_column_sums_team(t2k_team *team, int64_t rows, int64_t cols, const float *A,
                                int64_t lda, int accumulate, float *sums)
{
    return columns(team, rows, cols, A, lda, NULL, 0, accumulate, sums);
}

t2k_status t2k_column_sums(int64_t rows, int64_t cols, const float *A, int64_t lda, int accumulate,
                           float *sums)
{
    return columns(NULL, rows, cols, A, lda, NULL, 0, accumulate, sums);
}

t2k_status t2k_column_dots_team(t2k_team *team, int64_t rows, int64_t cols, const float *A,
                                int64_t lda, const float *B, int64_t ldb, int accumulate,
                                float *sums)
{
    if (t2k_bad_matrix(rows, cols, B, ldb, sizeof *B)) {
        return T2K_ERR_ARG;
    }
    return columns(team, rows, cols, A, lda, B, ldb, accumulate, sums);
}

t2k_status t2k_column_dots(int64_t rows, int64_t cols, const float *A, int64_t lda, const float *B,
                           int64_t ldb, int accumulate, float *sums)
{
    return t2k_column_dots_team(NULL, rows, cols, A, lda, B, ldb, accumulate, sums);
}
