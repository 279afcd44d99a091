/* t2k_mean: sums of rows in double by any thread, added in rising order by one; and the probe. */
#include "ops/args.h"
#include "ops/team.h"

#include <math.h>

#define ELEMENT_NS 0.08
#define ROW_NS 15.0
#define SERIAL_ROWS 64 /* row sums kept on the stack at a time */

struct job {
    t2k_row_sums_fn *kernel;
    size_t rows, cols, ldx;
    const float *X;
    double *sums; /* (rows); NULL: serial */
    float mean;
};

static double add_rising(double total, size_t rows, const double *sums)
{
    for (size_t i = 0; i < rows; i++) {
        total += sums[i];
    }
    return total;
}

static float mean_of(const struct job *job, double total)
{
    return (float)(total / ((double)job->rows * (double)job->cols));
}

static t2k_status prepare(struct job *job, int64_t rows, int64_t cols, const float *X, int64_t ldx,
                          double *sums, const float *mean)
{
    if (t2k_bad_matrix(rows, cols, X, ldx, sizeof *X) || mean == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    *job = (struct job){table->row_sums, (size_t)rows, (size_t)cols, (size_t)ldx, X, sums, NAN};
    return T2K_OK;
}

/* Each thread its share of row_sums; then all of them are there. */
static void sum_rows(t2k_team *team, const struct job *job)
{
    size_t first, last;
    t2k_team_share(team, job->rows, 1, &first, &last);
    if (first < last) {
        job->kernel(last - first, job->cols, job->X + first * job->ldx, job->ldx,
                    job->sums + first);
    }
    t2k_team_barrier(team);
}

/* The last steps are in here too: a body has the default rounding mode, the caller may not. */
static void body(t2k_team *team, void *arg)
{
    struct job *job = arg;
    if (job->sums != NULL) {
        sum_rows(team, job);
        if (t2k_team_rank(team) == 0) {
            job->mean = mean_of(job, add_rising(0.0, job->rows, job->sums));
        }
        return;
    }
    double total = 0.0, sums[SERIAL_ROWS];
    for (size_t i = 0; i < job->rows; i += SERIAL_ROWS) {
        size_t now = job->rows - i < SERIAL_ROWS ? job->rows - i : SERIAL_ROWS;
        job->kernel(now, job->cols, job->X + i * job->ldx, job->ldx, sums);
        total = add_rising(total, now, sums);
    }
    job->mean = mean_of(job, total);
}

t2k_status t2k_mean(int64_t rows, int64_t cols, const float *X, int64_t ldx, float *mean)
{
    struct job job;
    t2k_status status = prepare(&job, rows, cols, X, ldx, NULL, mean);
    if (status == T2K_OK && rows > 0 && cols > 0) {
        int threads = t2k_threads_for_work((double)rows * (ROW_NS + ELEMENT_NS * (double)cols));
        if (threads > 1) {
            job.sums = t2k_alloc((size_t)rows * sizeof *job.sums);
        }
        /* Without that memory one thread does it all. */
        status = t2k_parallel_team(job.sums != NULL ? threads : 1, 0, body, &job);
        t2k_release(job.sums);
    }
    if (status == T2K_OK) {
        *mean = job.mean;
    }
    return status;
}

t2k_status t2k_mean_team(t2k_team *team, int64_t rows, int64_t cols, const float *X, int64_t ldx,
                         double *row_sums, float *mean)
{
    struct job job;
    t2k_status status = prepare(&job, rows, cols, X, ldx, row_sums, mean);
    if (status == T2K_OK && t2k_bad_vector(rows, row_sums, sizeof *row_sums)) {
        status = T2K_ERR_ARG;
    }
    if (status != T2K_OK) {
        return status;
    }
    float result = NAN;
    if (rows > 0 && cols > 0) {
        sum_rows(team, &job);
        result = mean_of(&job, add_rising(0.0, job.rows, row_sums));
    }
    /* mean may be each thread's own or one for all: equal values, but no plain race. */
    __atomic_store(mean, &result, __ATOMIC_RELAXED);
    t2k_team_barrier(team);
    return T2K_OK;
}

double t2k_probe_fma(int64_t iterations)
{
    const t2k_table *table = t2k_table_get();
    return table == NULL || iterations <= 0 ? 0.0 : table->probe_fma(iterations);
}
