/* t2k_layer_norm, and what t2k_rms_norm shares with it (ops/norm.h): rows shared among threads. */
#include "ops/args.h"
#include "ops/norm.h"
#include "ops/team.h"

#define ELEMENT_NS 0.15
#define ROW_NS 10.0
/* Operands of more than this leave nothing in the caches that a next operation could use, so Y goes
 * around them. A constant: asking for the size of the last cache costs microseconds in a virtual
 * machine. */
#define STREAM_BYTES ((double)(32 << 20))

struct job {
    t2k_layer_norm_fn *kernel; /* t2k_rms_norm_fn is the same type */
    t2k_norm_params params;
    size_t rows, cols, ldx, ldy;
    const float *X;
    float *Y;
};

static int bad_arguments(int64_t rows, int64_t cols, const float *X, int64_t ldx, int64_t ldr,
                         int64_t lds, const t2k_norm_params *p, const float *Y, int64_t ldy)
{
    const float *r = p->residual, *sum = p->sum;
    if (t2k_bad_matrix(rows, cols, X, ldx, sizeof *X) ||
        t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) || t2k_bad_in_place(rows, X, ldx, Y, ldy)) {
        return 1;
    }
    if (r != NULL &&
        (t2k_bad_matrix(rows, cols, r, ldr, sizeof *r) || t2k_bad_in_place(rows, r, ldr, Y, ldy))) {
        return 1;
    }
    if (sum != NULL &&
        (t2k_bad_matrix(rows, cols, sum, lds, sizeof *sum) || (sum == Y && rows > 0 && cols > 0) ||
         t2k_bad_in_place(rows, X, ldx, sum, lds) ||
         (r != NULL && t2k_bad_in_place(rows, r, ldr, sum, lds)))) {
        return 1;
    }
    return !(p->eps >= 0.0f);
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
        if (params.sum != NULL) {
            params.sum += first * params.lds;
        }
        job->kernel(last - first, job->cols, job->X + first * job->ldx, job->ldx, &params,
                    job->Y + first * job->ldy, job->ldy);
    }
}

t2k_status t2k_norm(t2k_team *team, int rms, int64_t rows, int64_t cols, const float *X,
                    int64_t ldx, int64_t ldr, int64_t lds, const t2k_norm_params *params, float *Y,
                    int64_t ldy)
{
    if (bad_arguments(rows, cols, X, ldx, ldr, lds, params, Y, ldy)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    struct job job = {
        .kernel = rms ? table->rms_norm : table->layer_norm,
        .params = *params,
        .rows = cols > 0 ? (size_t)rows : 0,
        .cols = (size_t)cols,
        .ldx = (size_t)ldx,
        .ldy = (size_t)ldy,
        .X = X,
        .Y = Y,
    };
    const int matrices = 2 + (params->residual != NULL) + (params->sum != NULL);
    const double elements = (double)rows * (double)cols;
    job.params.ldr = params->residual != NULL ? (size_t)ldr : 0;
    job.params.lds = params->sum != NULL ? (size_t)lds : 0;
    job.params.stream = elements * sizeof *X * (double)matrices > STREAM_BYTES;
    if (team != NULL) {
        body(team, &job);
        t2k_team_barrier(team);
        return T2K_OK;
    }
    if (job.rows == 0) {
        return T2K_OK;
    }
    const double work = (double)rows * ROW_NS + elements * ELEMENT_NS;
    return t2k_parallel_team(t2k_threads_for_work(work), 0, body, &job);
}

t2k_status t2k_layer_norm(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                          const float *scale, const float *residual, int64_t ldr,
                          const float *weight, const float *bias, float eps, float *Y, int64_t ldy)
{
    const t2k_norm_params params = {
        .scale = scale, .residual = residual, .weight = weight, .bias = bias, .eps = eps};
    return t2k_norm(NULL, 0, rows, cols, X, ldx, ldr, 0, &params, Y, ldy);
}

t2k_status t2k_layer_norm_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                               int64_t ldx, const float *scale, const float *residual, int64_t ldr,
                               const float *weight, const float *bias, float eps, float *Y,
                               int64_t ldy)
{
    const t2k_norm_params params = {
        .scale = scale, .residual = residual, .weight = weight, .bias = bias, .eps = eps};
    return t2k_norm(team, 0, rows, cols, X, ldx, ldr, 0, &params, Y, ldy);
}
