/* The product in a chosen class of numerics. Which way serves a class:
 *   fast   tiles where there is a matrix unit and more than a few rows and columns (or B is packed
 *          for it); else dot products where both operands lie along k and the rows are few, since
 *          class strict, whose vectors lie along n, would have to transpose B for them; else as
 *          strict
 *   bf16   tiles; else the strict kernels on operands rounded while they are packed */
#include "ops/gemm_class.h"

/* Measured on Zen 4 (docs/numerics.md): from six rows on, transposing B pays. */
#define DOTS_ROWS 5
#define DOTS_COLS 128 /* columns whose sums wait for their way out */
#define SLACK 16      /* floats that t2k_gemm_finish_fn may read behind them */

int t2k_gemm_bad_class(t2k_numerics numerics)
{
    return numerics != T2K_STRICT && numerics != T2K_FAST && numerics != T2K_BF16;
}

t2k_gemm_tiles *t2k_gemm_tiles_of(const t2k_table *table, t2k_numerics numerics)
{
    t2k_gemm_tiles *tiles = numerics == T2K_FAST   ? table->gemm_fast
                            : numerics == T2K_BF16 ? table->gemm_bf16
                                                   : NULL;
    return tiles != NULL && tiles->parts > 0 ? tiles : NULL;
}

const char *t2k_numerics_note(t2k_numerics numerics)
{
    const t2k_table *table = t2k_table_get();
    if (table == NULL || t2k_gemm_bad_class(numerics)) {
        return NULL;
    }
    return numerics == T2K_FAST   ? table->gemm_fast->note
           : numerics == T2K_BF16 ? table->gemm_bf16->note
                                  : "strict";
}

/* Both operands lie along k, and one of them has few lines. */
static int suits_dots(const t2k_gemm_job *job)
{
    return job->b_k == 1 && job->a_k == 1 && (job->m <= DOTS_ROWS || job->n == 1);
}

void t2k_gemm_set_class(t2k_numerics numerics, t2k_gemm_job *job)
{
    const t2k_table *table = t2k_table_get();
    t2k_gemm_tiles *tiles = t2k_gemm_tiles_of(table, numerics);
    if (tiles != NULL && job->m > tiles->few_rows && job->n > tiles->few_rows) {
        job->tiles = tiles;
    } else if (numerics == T2K_BF16) {
        job->group = table->gemm_rounded;
    } else if (numerics == T2K_FAST && suits_dots(job)) {
        job->dots = table->gemm_dots;
    }
}

/* ---- dot products --------------------------------------------------------------------------- */

static void dots_team(t2k_team *team, const t2k_gemm_job *job)
{
    t2k_gemm_finish_fn *finish = t2k_table_get()->gemm_finish;
    const t2k_gemm_out whole = t2k_gemm_leave(job, 0, job->k);
    const int column = job->n == 1 && job->m > DOTS_ROWS;
    float t[DOTS_ROWS * DOTS_COLS + SLACK];
    size_t first, last;
    t2k_team_share(team, column ? job->m : job->n, 8, &first, &last);
    for (size_t j = first; j < last; j += DOTS_COLS) {
        const size_t cols = last - j < DOTS_COLS ? last - j : DOTS_COLS;
        if (column) {
            const t2k_gemm_out out = t2k_gemm_out_at(&whole, j, 0);
            job->dots(1, cols, job->k, job->B, 0, job->A + j * job->a_m, job->a_m, t, 0);
            finish(t, 1, cols, 1, job->C + j * job->ldc, job->ldc, &out);
        } else {
            const t2k_gemm_out out = t2k_gemm_out_at(&whole, 0, j);
            job->dots(job->m, cols, job->k, job->A, job->a_m, job->B + j * job->b_n, job->b_n, t,
                      DOTS_COLS);
            finish(t, DOTS_COLS, job->m, cols, job->C + j, job->ldc, &out);
        }
    }
    t2k_team_barrier(team);
}

int t2k_gemm_class_team(t2k_team *team, const t2k_gemm_job *job)
{
    if (job->alpha == 0.0f || job->k == 0 || job->m == 0 || job->n == 0) {
        return 0;
    }
    if (job->tiles != NULL) {
        t2k_gemm_tiles_team(team, job);
    } else if (job->dots != NULL) {
        dots_team(team, job);
    } else {
        return 0;
    }
    return 1;
}

/* ---- the public functions ------------------------------------------------------------------- */

static t2k_status check(t2k_numerics numerics, t2k_transpose trans_a, t2k_transpose trans_b,
                        int64_t m, int64_t n, int64_t k, float alpha, const float *A, int64_t lda,
                        const float *B, int64_t ldb, float beta, float *C, int64_t ldc,
                        const t2k_epilogue *epilogue, t2k_gemm_job *job)
{
    if (t2k_gemm_bad_class(numerics)) {
        return T2K_ERR_ARG;
    }
    t2k_status status = t2k_gemm_check(m, n, k, alpha, beta, C, ldc, epilogue, job);
    if (status == T2K_OK) {
        status = t2k_gemm_check_a(trans_a, A, lda, job);
    }
    if (status == T2K_OK) {
        status = t2k_gemm_check_b(trans_b, B, ldb, job);
    }
    if (status == T2K_OK) {
        t2k_gemm_set_class(numerics, job);
    }
    return status;
}

t2k_status t2k_sgemm_class(t2k_numerics numerics, t2k_transpose trans_a, t2k_transpose trans_b,
                           int64_t m, int64_t n, int64_t k, float alpha, const float *A,
                           int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                           int64_t ldc, const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    const t2k_status status = check(numerics, trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb,
                                    beta, C, ldc, epilogue, &job);
    return status == T2K_OK ? t2k_gemm_run(&job) : status;
}

t2k_status t2k_sgemm_class_team(t2k_team *team, t2k_numerics numerics, t2k_transpose trans_a,
                                t2k_transpose trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                                const float *A, int64_t lda, const float *B, int64_t ldb,
                                float beta, float *C, int64_t ldc, const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    if (team == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_status status = check(numerics, trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb,
                                    beta, C, ldc, epilogue, &job);
    if (status == T2K_OK) {
        t2k_gemm_team(team, &job);
    }
    return status;
}
