/* t2k_dropout and the random numbers behind it. */
#include "ops/args.h"
#include "ops/team.h"
#include "tmpl/dropout_philox.h"

#include <math.h>
#include <string.h>

#define ELEMENT_NS 4.0
#define GRAIN 1024

struct job {
    t2k_dropout_fn *kernel;
    size_t n;
    const float *X;
    float p;
    t2k_dropout_key key;
    uint64_t first;
    float *Y;
};

static t2k_status prepare(struct job *job, int64_t n, const float *X, float p, t2k_dropout_key key,
                          uint64_t first, float *Y)
{
    if (t2k_bad_vector(n, X, sizeof *X) || t2k_bad_vector(n, Y, sizeof *Y) ||
        !(p >= 0.0f && p <= 1.0f)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    *job = (struct job){table->dropout, (size_t)n, X, p, key, first, Y};
    return T2K_OK;
}

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->n, GRAIN, &first, &last);
    if (first == last) {
        return;
    }
    if (job->p == 1.0f) {
        memset(job->Y + first, 0, (last - first) * sizeof *job->Y);
        return;
    }
    /* word >= p * 2^32, an exact product, means word >= its ceiling, at most 2^32 - 256 here. */
    const uint32_t threshold = (uint32_t)ceil((double)job->p * 0x1p32);
    const float multiplier = (float)(1.0 / (1.0 - (double)job->p));
    job->kernel(last - first, job->X + first, threshold, multiplier, job->key, job->first + first,
                job->Y + first);
}

t2k_status t2k_dropout(int64_t n, const float *X, float p, t2k_dropout_key key, uint64_t first,
                       float *Y)
{
    struct job job;
    t2k_status status = prepare(&job, n, X, p, key, first, Y);
    if (status != T2K_OK || n == 0) {
        return status;
    }
    return t2k_parallel_team(t2k_threads_for_work(ELEMENT_NS * (double)n), 0, body, &job);
}

t2k_status t2k_dropout_team(t2k_team *team, int64_t n, const float *X, float p, t2k_dropout_key key,
                            uint64_t first, float *Y)
{
    struct job job;
    t2k_status status = prepare(&job, n, X, p, key, first, Y);
    if (status == T2K_OK) {
        body(team, &job);
        t2k_team_barrier(team);
    }
    return status;
}

void t2k_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    philox4x32_10(counter, key, out);
}
