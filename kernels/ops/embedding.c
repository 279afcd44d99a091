/* t2k_embedding: rows of a table by number. */
#include "ops/args.h"
#include "ops/team.h"

#define ELEMENT_NS 0.15
#define ROW_NS 20.0

struct job {
    t2k_gather_rows_fn *kernel;
    size_t rows, cols, ldt, ldy;
    const float *table;
    const int64_t *ids;
    float *Y;
};

/* In a team every thread scans all ids: it costs less than agreeing would, and whichever thread
 * finds a bad one, all of them return before anything is written. */
static t2k_status prepare(struct job *job, int64_t rows, int64_t cols, int64_t vocab,
                          const float *table, int64_t ldt, const int64_t *ids, float *Y,
                          int64_t ldy)
{
    if (t2k_bad_matrix(vocab, cols, table, ldt, sizeof *table) ||
        t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) || t2k_bad_vector(rows, ids, sizeof *ids)) {
        return T2K_ERR_ARG;
    }
    for (int64_t i = 0; i < rows; i++) {
        if (ids[i] < 0 || ids[i] >= vocab) {
            return T2K_ERR_ARG;
        }
    }
    const t2k_table *kernels = t2k_table_get();
    if (kernels == NULL) {
        return T2K_ERR_ISA;
    }
    *job = (struct job){
        .kernel = kernels->gather_rows,
        .rows = cols > 0 ? (size_t)rows : 0,
        .cols = (size_t)cols,
        .ldt = (size_t)ldt,
        .ldy = (size_t)ldy,
        .table = table,
        .ids = ids,
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
        job->kernel(last - first, job->cols, job->table, job->ldt, job->ids + first,
                    job->Y + first * job->ldy, job->ldy);
    }
}

t2k_status t2k_embedding(int64_t rows, int64_t cols, int64_t vocab, const float *table, int64_t ldt,
                         const int64_t *ids, float *Y, int64_t ldy)
{
    struct job job;
    t2k_status status = prepare(&job, rows, cols, vocab, table, ldt, ids, Y, ldy);
    if (status != T2K_OK || job.rows == 0) {
        return status;
    }
    double work = (double)rows * (ROW_NS + ELEMENT_NS * (double)cols);
    return t2k_parallel_team(t2k_threads_for_work(work), 0, body, &job);
}

t2k_status t2k_embedding_team(t2k_team *team, int64_t rows, int64_t cols, int64_t vocab,
                              const float *table, int64_t ldt, const int64_t *ids, float *Y,
                              int64_t ldy)
{
    struct job job;
    t2k_status status = prepare(&job, rows, cols, vocab, table, ldt, ids, Y, ldy);
    if (status == T2K_OK) {
        body(team, &job);
        t2k_team_barrier(team);
    }
    return status;
}
