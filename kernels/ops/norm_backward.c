/* Gradients of layer norm and RMS norm: the numbers of the rows and dX by rows, the gradients of
 * weight and bias by columns, whose chains have one order. */
#include "ops/args.h"
#include "ops/team.h"

#define COLUMN_GRAIN 64
#define ELEMENT_NS 0.8
#define ROW_NS 30.0
/* Rows whose numbers fit the workspace: whole chunks, so that sums of columns go on in place. */
#define BLOCK_ROWS (T2K_WORKSPACE_BYTES / (3 * sizeof(float)) / T2K_CHUNK_ROWS * T2K_CHUNK_ROWS)

struct job {
    const t2k_table *table;
    t2k_norm_stats_fn *stats;
    int centered;
    t2k_norm_params params;
    size_t rows, cols, ldx, lddy, lddx;
    const float *X, *dY;
    float *dX;
    int accumulate;
    float *dweight, *dbias;
};

static t2k_norm_params params_at(const struct job *job, size_t row, size_t column)
{
    t2k_norm_params p = job->params;
    p.scale = p.scale != NULL ? p.scale + column : NULL;
    p.residual = p.residual != NULL ? p.residual + row * p.ldr + column : NULL;
    return p;
}

/* The gradients of weight and bias from rows start .. start + rows - 1. */
static void columns(t2k_team *team, const struct job *job, size_t start, size_t rows,
                    const float *stats)
{
    size_t first, last;
    const int accumulate = job->accumulate || start > 0;
    t2k_team_share(team, job->cols, COLUMN_GRAIN, &first, &last);
    if (first == last) {
        return;
    }
    const t2k_norm_params p = params_at(job, start, first);
    const float *dY = rows > 0 ? job->dY + start * job->lddy + first : NULL;
    if (job->dweight != NULL) {
        job->table->norm_columns(rows, last - first,
                                 rows > 0 ? job->X + start * job->ldx + first : NULL, job->ldx, &p,
                                 stats, dY, job->lddy, accumulate, job->dweight + first);
    }
    if (job->dbias != NULL) {
        job->table->column_dots(rows, last - first, dY, job->lddy, NULL, 0, accumulate,
                                job->dbias + first);
    }
}

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    float *stats = t2k_team_workspace_of(team, 0);
    size_t start = 0;
    do {
        const size_t left = job->rows - start, now = left < BLOCK_ROWS ? left : BLOCK_ROWS;
        size_t first, last;
        t2k_team_share(team, now, 1, &first, &last);
        if (first < last) {
            const t2k_norm_params p = params_at(job, start + first, 0);
            job->stats(last - first, job->cols, job->X + (start + first) * job->ldx, job->ldx, &p,
                       stats + 3 * first);
        }
        if (job->dweight != NULL || job->dbias != NULL) {
            t2k_team_barrier(team);
            columns(team, job, start, now, stats);
            t2k_team_barrier(team); /* dX may be dY or X */
        }
        if (first < last && job->dX != NULL) {
            const t2k_norm_params p = params_at(job, start + first, 0);
            const size_t at = start + first;
            job->table->norm_backward(last - first, job->cols, job->X + at * job->ldx, job->ldx, &p,
                                      stats + 3 * first, job->centered, job->dY + at * job->lddy,
                                      job->lddy, job->dX + at * job->lddx, job->lddx);
        }
        t2k_team_barrier(team); /* the numbers are done with */
        start += now;
    } while (start < job->rows);
}

static int bad_arguments(const struct job *job, int64_t rows, int64_t cols, int64_t ldx,
                         int64_t ldr, int64_t lddy, int64_t lddx)
{
    const float *r = job->params.residual, *dX = job->dX;
    if (t2k_bad_matrix(rows, cols, job->X, ldx, sizeof *r) ||
        t2k_bad_matrix(rows, cols, job->dY, lddy, sizeof *r) ||
        (r != NULL && t2k_bad_matrix(rows, cols, r, ldr, sizeof *r))) {
        return 1;
    }
    if (dX != NULL && (t2k_bad_matrix(rows, cols, dX, lddx, sizeof *dX) ||
                       t2k_bad_in_place(rows, job->X, ldx, dX, lddx) ||
                       t2k_bad_in_place(rows, job->dY, lddy, dX, lddx) ||
                       (r != NULL && t2k_bad_in_place(rows, r, ldr, dX, lddx)))) {
        return 1;
    }
    return (job->accumulate != 0 && job->accumulate != 1) || !(job->params.eps >= 0.0f);
}

static t2k_status run(t2k_team *team, struct job *job, int64_t rows, int64_t cols, int64_t ldx,
                      int64_t ldr, int64_t lddy, int64_t lddx)
{
    if (bad_arguments(job, rows, cols, ldx, ldr, lddy, lddx)) {
        return T2K_ERR_ARG;
    }
    job->table = t2k_table_get();
    if (job->table == NULL) {
        return T2K_ERR_ISA;
    }
    job->stats = job->centered ? job->table->layer_norm_stats : job->table->rms_norm_stats;
    job->rows = cols > 0 ? (size_t)rows : 0;
    job->cols = (size_t)cols;
    job->ldx = (size_t)ldx;
    job->params.ldr = job->params.residual != NULL ? (size_t)ldr : 0;
    job->lddy = (size_t)lddy;
    job->lddx = (size_t)lddx;
    if (team != NULL) {
        body(team, job);
        return T2K_OK;
    }
    const double work = (double)rows * (ROW_NS + ELEMENT_NS * (double)cols);
    return t2k_parallel_team(t2k_threads_for_work(work), 1, body, job);
}

t2k_status t2k_layer_norm_backward_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                        int64_t ldx, const float *scale, const float *residual,
                                        int64_t ldr, const float *weight, float eps,
                                        const float *dY, int64_t lddy, float *dX, int64_t lddx,
                                        int accumulate, float *dweight, float *dbias)
{
    struct job job = {
        .centered = 1,
        .params = {.scale = scale, .residual = residual, .weight = weight, .eps = eps},
        .X = X,
        .dY = dY,
        .dX = dX,
        .accumulate = accumulate,
        .dweight = dweight,
        .dbias = dbias};
    return run(team, &job, rows, cols, ldx, ldr, lddy, lddx);
}

t2k_status t2k_layer_norm_backward(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                   const float *scale, const float *residual, int64_t ldr,
                                   const float *weight, float eps, const float *dY, int64_t lddy,
                                   float *dX, int64_t lddx, int accumulate, float *dweight,
                                   float *dbias)
{
    return t2k_layer_norm_backward_team(NULL, rows, cols, X, ldx, scale, residual, ldr, weight, eps,
                                        dY, lddy, dX, lddx, accumulate, dweight, dbias);
}

t2k_status t2k_rms_norm_backward_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                      int64_t ldx, const float *residual, int64_t ldr,
                                      const float *weight, float eps, const float *dY, int64_t lddy,
                                      float *dX, int64_t lddx, int accumulate, float *dweight)
{
    struct job job = {.params = {.residual = residual, .weight = weight, .eps = eps},
                      .X = X,
                      .dY = dY,
                      .dX = dX,
                      .accumulate = accumulate,
                      .dweight = dweight};
    return run(team, &job, rows, cols, ldx, ldr, lddy, lddx);
}

t2k_status t2k_rms_norm_backward(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                 const float *residual, int64_t ldr, const float *weight, float eps,
                                 const float *dY, int64_t lddy, float *dX, int64_t lddx,
                                 int accumulate, float *dweight)
{
    return t2k_rms_norm_backward_team(NULL, rows, cols, X, ldx, residual, ldr, weight, eps, dY,
                                      lddy, dX, lddx, accumulate, dweight);
}
