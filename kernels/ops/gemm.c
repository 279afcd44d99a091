/* The public matrix product: checks its arguments once, then hands a job to the driver. */
#include "ops/gemm.h"

#include "core/fpenv.h"
#include "ops/args.h"

#define SMALL_SIZE 64 /* up to this each: no way is better than in place */
#define PANEL_COLS 32 /* a panel's, on the stack */

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

/* What not every product sets. One by one: a compound literal of this size becomes a string
 * instruction, whose start costs a tenth of a small product. */
static void clear(t2k_gemm_job *job)
{
    job->panels = NULL;
    job->b_panel = job->c_panel = 0;
    job->s_a = job->s_b = NULL;
    job->bias = job->scale = job->residual = NULL;
    job->scale_rows = NULL;
    job->lds = job->ldr = 0;
    job->activation = T2K_ACT_NONE;
    job->stride_a = job->stride_b = job->stride_c = job->stride_residual = 0;
    job->route = T2K_ROUTE_CHOOSE;
    job->mc = job->nc = 0;
    job->tiles = NULL;
    job->tile_panels = NULL;
    job->dots = NULL;
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
    clear(job);
    job->group = table->gemm_strict;
    job->m = (size_t)m;
    job->n = (size_t)n;
    job->k = (size_t)k;
    job->alpha = alpha;
    job->beta = beta;
    job->C = C;
    job->ldc = (size_t)ldc;
    job->batch = 1;
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

/* B by way of one panel, in a function of its own for the sake of the stack. */
static __attribute__((noinline)) void strip_packed(t2k_gemm_group *g, size_t m, size_t n, size_t k,
                                                   const float *A, size_t a_m, size_t a_k,
                                                   const float *B, size_t ldb, float *C, size_t ldc,
                                                   const t2k_gemm_out *out)
{
    float panel[SMALL_SIZE * PANEL_COLS] __attribute__((aligned(T2K_ALIGN)));
    g->pack_b(n, k, B, 1, ldb, NULL, panel, 0);
    g->strip(m, n, k, A, a_m, a_k, panel, g->nr, g->nr, 1, C, ldc, out);
}

/* Small products without the job: that, its checks and its way cost 30 ns, a quarter of
 * 10 x 10 x 32. B in place, or transposed into one panel. Nonzero when C is written; arguments that
 * are wrong are left to the others. */
static int run_small(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m, int64_t n, int64_t k,
                     const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                     int64_t ldc)
{
    static const t2k_gemm_out store = {.mode = T2K_GEMM_STORE, .alpha = 1.0f, .first = 1};
    static const t2k_gemm_out add = {.mode = T2K_GEMM_ADD, .alpha = 1.0f, .beta = 1.0f, .first = 1};
    const int packs = trans_b == T2K_TRANS;
    const int64_t a_cols = trans_a == T2K_TRANS ? m : k, b_cols = packs ? k : n;
    const uint64_t far = (uint64_t)lda | (uint64_t)ldb | (uint64_t)ldc;
    const uint64_t size = (uint64_t)(m - 2) | (uint64_t)(n - 2) | (uint64_t)(k - 1);
    if (size >= SMALL_SIZE || far >= (uint64_t)1 << 40 || lda < a_cols || ldb < b_cols || ldc < n ||
        bad_transpose(trans_a) || bad_transpose(trans_b) || A == NULL || B == NULL || C == NULL) {
        return 0;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return 0;
    }
    t2k_gemm_group *g = table->gemm_strict;
    if (packs ? (size_t)n > g->nr || g->nr > PANEL_COLS : (size_t)n % g->direct_step != 0) {
        return 0;
    }
    const t2k_gemm_out *out = beta == 0.0f ? &store : &add;
    const size_t a_m = trans_a == T2K_TRANS ? 1 : (size_t)lda;
    const size_t a_k = trans_a == T2K_TRANS ? (size_t)lda : 1;
    const t2k_fpenv fpenv = t2k_fpenv_enter();
    if (packs) {
        strip_packed(g, (size_t)m, (size_t)n, (size_t)k, A, a_m, a_k, B, (size_t)ldb, C,
                     (size_t)ldc, out);
    } else {
        g->strip((size_t)m, (size_t)n, (size_t)k, A, a_m, a_k, B, (size_t)ldb, g->nr, 0, C,
                 (size_t)ldc, out);
    }
    t2k_fpenv_leave(fpenv);
    return 1;
}

t2k_status t2k_sgemm(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *A, int64_t lda, const float *B, int64_t ldb,
                     float beta, float *C, int64_t ldc, const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    if (epilogue == NULL && alpha == 1.0f && (beta == 0.0f || beta == 1.0f) &&
        run_small(trans_a, trans_b, m, n, k, A, lda, B, ldb, beta, C, ldc)) {
        return T2K_OK;
    }
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
