/* W = c * U * diag(s) * V^T, or its transpose: a product whose packing multiplies U's element
 * (i, p) by s[p], whichever operand U is, so that both orientations have the same bits. */
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
