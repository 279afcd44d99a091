/* t2k_softmax: rows shared among threads. */
#include "ops/args.h"
#include "ops/team.h"

#define ELEMENT_NS 0.3
#define ROW_NS 20.0

struct job {
    t2k_softmax_fn *kernel;
    size_t rows, cols, ldx, ldy;
    const float *X;
    float *Y;
};

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->rows, 1, &first, &last);
    if (first < last) {
        job->kernel(last - first, job->cols, job->X + first * job->ldx, job->ldx,
                    job->Y + first * job->ldy, job->ldy);
    }
}

t2k_status t2k_softmax(int64_t rows, int64_t cols, const float *X, int64_t ldx, float *Y,
                       int64_t ldy)
{
    if (t2k_bad_matrix(rows, cols, X, ldx, sizeof *X) ||
        t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) || t2k_bad_in_place(rows, X, ldx, Y, ldy)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    if (rows == 0 || cols == 0) {
        return T2K_OK;
    }
    struct job job = {table->softmax, (size_t)rows, (size_t)cols, (size_t)ldx, (size_t)ldy, X, Y};
    double work = (double)rows * (ROW_NS + ELEMENT_NS * (double)cols);
    return t2k_parallel_team(t2k_threads_for_work(work), 0, body, &job);
}
