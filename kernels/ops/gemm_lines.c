/* Products with few columns or few rows whose other operand lies along k: the lanes are rows of
 * that operand (tmpl/gemm_lines.h). Up to T2K_GEMM_LINES_K of k at a time: each of its rows is read
 * once, from its start to its end, and C's elements stay in cache from chunk to chunk. */
#include "ops/gemm_parts.h"

/* Few columns of C from rows of A. */
static int has_columns(const t2k_gemm_job *job)
{
    return job->n <= T2K_GEMM_LINES && job->a_k == 1 && job->m >= job->group->line_rows;
}

int t2k_gemm_has_lines(const t2k_gemm_job *job)
{
    const size_t rows = job->group->line_rows;
    if (rows == 0 || job->s_a != NULL || job->s_b != NULL) {
        return 0;
    }
    return has_columns(job) ||
           (job->m <= T2K_GEMM_LINES && job->b_k == 1 && job->panels == NULL && job->n >= rows);
}

void t2k_gemm_lines(const t2k_gemm_job *job)
{
    t2k_gemm_group *g = job->group;
    const int column = has_columns(job);
    const size_t cols = column ? job->n : job->m;
    const size_t depth = T2K_GEMM_LINES_K / cols / T2K_CHUNK_K * T2K_CHUNK_K;
    for (size_t p = 0, k; p < job->k; p += k) {
        t2k_gemm_out outs[T2K_GEMM_LINES_K / T2K_CHUNK_K];
        k = t2k_least(job->k - p, depth);
        for (size_t q = 0; q < k; q += T2K_CHUNK_K) {
            outs[q / T2K_CHUNK_K] =
                t2k_gemm_leave(job, p + q, t2k_least(k - q, (size_t)T2K_CHUNK_K));
        }
        const float *A = job->A + p * job->a_k;
        if (!column) {
            g->lines(job->n, cols, k, job->B + p, job->b_n, A, job->a_k, job->a_m, job->C, job->ldc,
                     0, outs);
        } else if (job->panels != NULL) {
            g->lines(job->m, cols, k, A, job->a_m, job->panels + p * g->nr, g->nr, 1, job->C,
                     job->ldc, 1, outs);
        } else {
            g->lines(job->m, cols, k, A, job->a_m, job->B + p * job->b_k, job->b_k, job->b_n,
                     job->C, job->ldc, 1, outs);
        }
    }
}
