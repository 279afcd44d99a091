/* W = c * U * diag(s) * V^T, or its transpose: a product whose packing multiplies U's element
 * (i, p) by s[p], whichever operand U is, so that both orientations have the same bits. */
#include "core/core.h"
#include "ops/gemm.h"

#include <string.h>

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

/* W^T (n, m) = V * (U diag(s))^T, whose panels are those of the blob: the product writes them. */
static t2k_status rebuild_panels(const t2k_table *table, int64_t m, int64_t n, int64_t r, float c,
                                 const float *U, int64_t ldu, const float *s, const float *V,
                                 int64_t ldv, float *panels)
{
    const size_t nr = table->gemm_strict->nr, rows = (size_t)n, cols = (size_t)m;
    t2k_gemm_job job;
    t2k_status status = t2k_gemm_check(n, m, r, c, 0.0f, panels, m, NULL, &job);
    if (status == T2K_OK) {
        status = t2k_gemm_check_a(T2K_NO_TRANS, V, ldv, &job);
    }
    if (status == T2K_OK) {
        status = t2k_gemm_check_b(T2K_TRANS, U, ldu, &job);
    }
    if (status != T2K_OK) {
        return status;
    }
    if (job.alpha == 0.0f || job.k == 0) {
        memset(panels, 0, (cols + nr - 1) / nr * nr * rows * sizeof *panels);
        return T2K_OK;
    }
    if (cols % nr != 0) { /* what no product reads has a value all the same */
        memset(panels + cols / nr * nr * rows, 0, nr * rows * sizeof *panels);
    }
    job.s_b = s;
    job.ldc = nr;
    job.c_panel = nr * rows;
    return t2k_gemm_run(&job);
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
    if (m == 0 || n == 0) {
        return T2K_OK;
    }
    return m == 1 ? t2k_svd_rebuild(T2K_NO_TRANS, m, n, r, c, U, ldu, s, V, ldv, panels, n)
                  : rebuild_panels(table, m, n, r, c, U, ldu, s, V, ldv, panels);
}
