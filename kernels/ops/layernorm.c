/* t2k_layer_norm: rows shared among threads. */
#include "ops/args.h"
#include "ops/team.h"

#define ELEMENT_NS 0.25
#define ROW_NS 15.0

struct job {
    t2k_layer_norm_fn *kernel;
    t2k_norm_params params;
    size_t rows, cols, ldx, ldy;
    const float *X;
    float *Y;
};

/* Fills *job; T2K_OK with an empty job (rows 0) where there is nothing to do. */
static t2k_status prepare(struct job *job, int64_t rows, int64_t cols, const float *X, int64_t ldx,
                          const float *scale, const float *residual, int64_t ldr,
                          const float *weight, const float *bias, float eps, float *Y, int64_t ldy)
{
    if (t2k_bad_matrix(rows, cols, X, ldx, sizeof *X) ||
        t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) || t2k_bad_in_place(rows, X, ldx, Y, ldy) ||
        (residual != NULL && (t2k_bad_matrix(rows, cols, residual, ldr, sizeof *residual) ||
                              t2k_bad_in_place(rows, residual, ldr, Y, ldy))) ||
        !(eps >= 0.0f)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    *job = (struct job){
        .kernel = table->layer_norm,
        .params = {scale, residual, residual != NULL ? (size_t)ldr : 0, weight, bias, eps},
        .rows = cols > 0 ? (size_t)rows : 0,
        .cols = (size_t)cols,
        .ldx = (size_t)ldx,
        .ldy = (size_t)ldy,
        .X = X,
        .Y = Y,
    };
    return T2K_OK;
}

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->rows, 1, &first, &last);
    if (first < last) {
        t2k_norm_params params = job->params;
        if (params.residual != NULL) {
            params.residual += first * params.ldr;
        }
        job->kernel(last - first, job->cols, job->X + first * job->ldx, job->ldx, &params,
                    job->Y + first * job->ldy, job->ldy);
    }
}

t2k_status t2k_layer_norm(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                          const float *scale, const float *residual, int64_t ldr,
                          const float *weight, const float *bias, float eps, float *Y, int64_t ldy)
{
    struct job job;
    t2k_status status =
        prepare(&job, rows, cols, X, ldx, scale, residual, ldr, weight, bias, eps, Y, ldy);
    if (status != T2K_OK || job.rows == 0) {
        return status;
    }
    double work = (double)rows * (ROW_NS + ELEMENT_NS * (double)cols);
    return t2k_parallel_team(t2k_threads_for_work(work), 0, body, &job);
}

t2k_status t2k_layer_norm_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                               int64_t ldx, const float *scale, const float *residual, int64_t ldr,
                               const float *weight, const float *bias, float eps, float *Y,
                               int64_t ldy)
{
    struct job job;
    t2k_status status =
        prepare(&job, rows, cols, X, ldx, scale, residual, ldr, weight, bias, eps, Y, ldy);
    if (status == T2K_OK) {
        body(team, &job);
        t2k_team_barrier(team);
    }
    return status;
}
