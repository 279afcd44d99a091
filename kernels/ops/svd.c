/* W = c * U * diag(s) * V^T, or its transpose: a product whose packing multiplies U's element
 * (i, p) by s[p], whichever operand U is, so that both orientations have the same bits. */
#include "core/core.h"
#include "ops/gemm.h"

t2k_status t2k_svd_rebuild(t2k_transpose trans_w, int64_t m, int64_t n, int64_t r, float c,
                           const float *U, int64_t ldu, const float *s, const float *V, int64_t ldv,
                           float *W, int64_t ldw)
{
    t2k_gemm_job job;
    if ((trans_w != T2K_NO_TRANS && trans_w != T2K_TRANS) || (s == NULL && r > 0)) {
        return T2K_ERR_ARG;
    }
    const int flip = trans_w == T2K_TRANS;
    t2k_status status = t2k_gemm_check(flip ? n : m, flip ? m : n, r, c, 0.0f, W, ldw, NULL, &job);
    if (status == T2K_OK) {
        status = t2k_gemm_check_a(T2K_NO_TRANS, flip ? V : U, flip ? ldv : ldu, &job);
    }
    if (status == T2K_OK) {
        status = t2k_gemm_check_b(T2K_TRANS, flip ? U : V, flip ? ldu : ldv, &job);
    }
    if (status != T2K_OK) {
        return status;
    }
    job.s_a = flip ? NULL : s;
    job.s_b = flip ? s : NULL;
    return t2k_gemm_run(&job);
}

/* Rows of W at a time: enough that packing V for each strip is a small part of the work. */
#define STRIP_ROWS 512

/* Rows [i, i + rows) of W into `strip`, from there into the blob's panels. */
static t2k_status rebuild_strip(int64_t i, int64_t rows, int64_t n, int64_t r, float c,
                                const float *U, int64_t ldu, const float *s, const float *V,
                                int64_t ldv, float *strip, float *panels)
{
    t2k_status status = t2k_svd_rebuild(T2K_NO_TRANS, rows, n, r, c, U + i * ldu, ldu, s, V, ldv,
                                        strip, n);
    t2k_gemm_job job = {.group = t2k_table_get()->gemm_strict, .n = (size_t)rows, .k = (size_t)n};
    if (status == T2K_OK) {
        status = t2k_gemm_check_b(T2K_TRANS, strip, n, &job);
    }
    return status == T2K_OK ? t2k_pack_panels(&job, panels + i * n) : status;
}

t2k_status t2k_svd_rebuild_packed(int64_t m, int64_t n, int64_t r, float c, const float *U,
                                  int64_t ldu, const float *s, const float *V, int64_t ldv,
                                  void *packed)
{
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    if (m < 0 || n < 0 || r < 0 || packed == NULL || (s == NULL && r > 0) ||
        t2k_packed_b_bytes(n, m) == 0 || t2k_gemm_bad_matrix(U, m, r, ldu) ||
        t2k_gemm_bad_matrix(V, n, r, ldv)) {
        return T2K_ERR_ARG;
    }
    if ((uintptr_t)packed % T2K_ALIGN != 0) {
        return T2K_ERR_ALIGN;
    }
    float *panels = t2k_pack_header(table, T2K_STRICT, n, m, packed);
    const int64_t nr = (int64_t)table->gemm_strict->nr, step = STRIP_ROWS / nr * nr;
    const int64_t height = m < step ? m : step;
    size_t bytes; /* a part of the blob's, which fit */
    if (m == 0 || n == 0 || t2k_mul_overflow((size_t)height * sizeof(float), (size_t)n, &bytes)) {
        return m == 0 || n == 0 ? T2K_OK : T2K_ERR_ARG;
    }
    float *strip = t2k_alloc(bytes);
    if (strip == NULL) {
        return T2K_ERR_NOMEM;
    }
    t2k_status status = T2K_OK;
    if (m <= step) { /* one strip; a single row has a form of its own */
        status = t2k_svd_rebuild(T2K_NO_TRANS, m, n, r, c, U, ldu, s, V, ldv, strip, n);
        status = status == T2K_OK ? t2k_pack_b(T2K_TRANS, n, m, strip, n, packed) : status;
        t2k_release(strip);
        return status;
    }
    for (int64_t i = 0; i < m && status == T2K_OK; i += step) {
        status = rebuild_strip(i, m - i < step ? m - i : step, n, r, c, U, ldu, s, V, ldv, strip,
                               panels);
    }
    t2k_release(strip);
    return status;
}
