/* The public matrix product: checks its arguments once, then hands a job to the driver. */
#include "ops/gemm.h"

#include "ops/args.h"

int t2k_gemm_bad_matrix(const float *X, int64_t rows, int64_t cols, int64_t ld)
{
    return ld < 1 || t2k_bad_matrix(rows, cols, X, ld, sizeof(float));
}

static int bad_transpose(t2k_transpose trans)
{
    return trans != T2K_NO_TRANS && trans != T2K_TRANS;
}

/* Nonzero when some row of C has no row of the scale matrix. */
static int bad_scale_rows(const t2k_epilogue *e, int64_t m, int64_t n)
{
    if (e->scale_count < 0 || e->scale == NULL ||
        t2k_gemm_bad_matrix(e->scale, e->scale_count, n, e->lds)) {
        return 1;
    }
    for (int64_t i = 0; i < m; i++) {
        if (e->scale_rows[i] < 0 || e->scale_rows[i] >= e->scale_count) {
            return 1;
        }
    }
    return 0;
}

static t2k_status check_epilogue(const t2k_epilogue *e, const float *C, int64_t m, int64_t n,
                                 int64_t k, t2k_gemm_job *job)
{
    if (e == NULL) {
        return T2K_OK;
    }
    const int whole = e->size == sizeof *e;
    if ((!whole && e->size != offsetof(t2k_epilogue, scale_rows)) ||
        (unsigned)e->activation > T2K_ACT_SILU) {
        return T2K_ERR_ARG;
    }
    if (whole && e->scale_rows != NULL) {
        if (bad_scale_rows(e, m, n)) {
            return T2K_ERR_ARG;
        }
        job->scale_rows = e->scale_rows;
        job->lds = (size_t)e->lds;
    }
    if (e->residual != NULL &&
        (t2k_gemm_bad_matrix(e->residual, m, n, e->ldr) || e->stride_residual < 0 ||
         (e->residual == C && (k > T2K_CHUNK_K || e->ldr != (int64_t)job->ldc)))) {
        return T2K_ERR_ARG;
    }
    job->bias = e->bias;
    job->scale = e->scale;
    job->activation = e->activation;
    job->residual = e->residual;
    job->ldr = e->residual != NULL ? (size_t)e->ldr : 0;
    job->stride_residual = (size_t)e->stride_residual;
    return T2K_OK;
}

t2k_status t2k_gemm_check(int64_t m, int64_t n, int64_t k, float alpha, float beta, float *C,
                          int64_t ldc, const t2k_epilogue *epilogue, t2k_gemm_job *job)
{
    if (m < 0 || n < 0 || k < 0 || t2k_gemm_bad_matrix(C, m, n, ldc)) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    *job = (t2k_gemm_job){.group = table->gemm_strict,
                          .m = (size_t)m,
                          .n = (size_t)n,
                          .k = (size_t)k,
                          .alpha = alpha,
                          .beta = beta,
                          .C = C,
                          .ldc = (size_t)ldc,
                          .batch = 1};
    return check_epilogue(epilogue, C, m, n, k, job);
}

t2k_status t2k_gemm_check_a(t2k_transpose trans, const float *A, int64_t lda, t2k_gemm_job *job)
{
    const int64_t m = (int64_t)job->m, k = (int64_t)job->k;
    if (bad_transpose(trans) ||
        t2k_gemm_bad_matrix(A, trans == T2K_TRANS ? k : m, trans == T2K_TRANS ? m : k, lda)) {
        return T2K_ERR_ARG;
    }
    job->A = A;
    job->a_m = trans == T2K_TRANS ? 1 : (size_t)lda;
    job->a_k = trans == T2K_TRANS ? (size_t)lda : 1;
    return T2K_OK;
}

t2k_status t2k_gemm_check_b(t2k_transpose trans, const float *B, int64_t ldb, t2k_gemm_job *job)
{
    const int64_t n = (int64_t)job->n, k = (int64_t)job->k;
    if (bad_transpose(trans) ||
        t2k_gemm_bad_matrix(B, trans == T2K_TRANS ? n : k, trans == T2K_TRANS ? k : n, ldb)) {
        return T2K_ERR_ARG;
    }
    job->B = B;
    job->b_k = trans == T2K_TRANS ? 1 : (size_t)ldb;
    job->b_n = trans == T2K_TRANS ? (size_t)ldb : 1;
    return T2K_OK;
}

static t2k_status check_product(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m, int64_t n,
                                int64_t k, float alpha, const float *A, int64_t lda, const float *B,
                                int64_t ldb, float beta, float *C, int64_t ldc,
                                const t2k_epilogue *epilogue, t2k_gemm_job *job)
{
    t2k_status status = t2k_gemm_check(m, n, k, alpha, beta, C, ldc, epilogue, job);
    if (status == T2K_OK) {
        status = t2k_gemm_check_a(trans_a, A, lda, job);
    }
    return status == T2K_OK ? t2k_gemm_check_b(trans_b, B, ldb, job) : status;
}

t2k_status t2k_sgemm(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *A, int64_t lda, const float *B, int64_t ldb,
                     float beta, float *C, int64_t ldc, const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    const t2k_status status = check_product(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta,
                                            C, ldc, epilogue, &job);
    return status == T2K_OK ? t2k_gemm_run(&job) : status;
}

t2k_status t2k_sgemm_team(t2k_team *team, t2k_transpose trans_a, t2k_transpose trans_b, int64_t m,
                          int64_t n, int64_t k, float alpha, const float *A, int64_t lda,
                          const float *B, int64_t ldb, float beta, float *C, int64_t ldc,
                          const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    if (team == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_status status = check_product(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta,
                                            C, ldc, epilogue, &job);
    if (status == T2K_OK) {
        t2k_gemm_team(team, &job);
    }
    return status;
}

/* Nonzero when `batch` matrices of rows x cols that lie `stride` apart reach too far. */
static int bad_batch(int64_t batch, int64_t stride, size_t rows, size_t cols, size_t ld)
{
    return stride < 0 || t2k_too_far((int64_t)rows, (int64_t)ld, batch, stride, (int64_t)cols,
                                     (int64_t)sizeof(float));
}

t2k_status t2k_sgemm_batched(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m, int64_t n,
                             int64_t k, float alpha, const float *A, int64_t lda, int64_t stride_a,
                             const float *B, int64_t ldb, int64_t stride_b, float beta, float *C,
                             int64_t ldc, int64_t stride_c, int64_t batch,
                             const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    if (batch < 0) {
        return T2K_ERR_ARG;
    }
    const t2k_status status = check_product(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta,
                                            C, ldc, epilogue, &job);
    if (status != T2K_OK) {
        return status;
    }
    const int ta = trans_a == T2K_TRANS, tb = trans_b == T2K_TRANS;
    if (bad_batch(batch, stride_a, ta ? job.k : job.m, ta ? job.m : job.k, (size_t)lda) ||
        bad_batch(batch, stride_b, tb ? job.n : job.k, tb ? job.k : job.n, (size_t)ldb) ||
        bad_batch(batch, stride_c, job.m, job.n, job.ldc) ||
        (m > 0 && n > 0 && t2k_rows_overlap(m, ldc, batch, stride_c, n)) ||
        (job.residual != NULL &&
         bad_batch(batch, (int64_t)job.stride_residual, job.m, job.n, job.ldr)) ||
        (job.residual == C && C != NULL && batch > 1 && (int64_t)job.stride_residual != stride_c)) {
        return T2K_ERR_ARG;
    }
    job.batch = (size_t)batch;
    job.stride_a = (size_t)stride_a;
    job.stride_b = (size_t)stride_b;
    job.stride_c = (size_t)stride_c;
    return t2k_gemm_run(&job);
}
