/* The product of one column and one row (k = 1), written once over simd/: bound by the stores of C,
 * hence row by row, in the order of memory, in place of tiles. */
#ifndef T2K_TMPL_GEMM_OUTER_H
#define T2K_TMPL_GEMM_OUTER_H

/* `vecs` vectors of a row (a constant), nr columns of them. */
GEMM_INLINE void gemm_outer_part(const int vecs, const int masked, const float *a, const float *b,
                                 size_t nr, float *c, const t2k_gemm_out *out)
{
    const g_mask mask = g_mask_n(nr - (size_t)(vecs - 1) * VF_W);
    (void)mask; /* without masked loads */
    vf acc[GEMM_NV];
    T2K_UNROLL
    for (int v = 0; v < vecs; v++) {
        const float *from = b + v * VF_W;
        const vf x = masked && v == vecs - 1 ? g_load_mask(from, mask) : v_load(from);
        acc[v] = v_fma(v_set1(*a), x, v_zero()); /* as any chain: from +0 */
    }
    gemm_leave(1, vecs, acc, nr, c, 0, out);
}

/* One row where C = c: nothing but a multiply-add and a store for each vector. */
GEMM_INLINE void gemm_outer_store(size_t n, const float *a, const float *b, float *c)
{
    enum { VECS = 4 };
    const vf x = v_set1(*a), zero = v_zero();
    size_t j = 0;
    for (; j + VECS * VF_W <= n; j += VECS * VF_W) {
        T2K_UNROLL
        for (size_t v = 0; v < VECS; v++) {
            v_store(c + j + v * VF_W, v_fma(x, v_load(b + j + v * VF_W), zero));
        }
    }
    for (; j + VF_W <= n; j += VF_W) {
        v_store(c + j, v_fma(x, v_load(b + j), zero));
    }
    if (j < n) {
        v_store_n(c + j, v_fma(x, v_load_n(b + j, n - j), zero), n - j);
    }
}

/* As gemm_strip() for kc = 1, where B's panels are the parts of one row. */
static void gemm_outer(size_t m, size_t n, const float *A, size_t a_m, const float *B, float *C,
                       size_t ldc, const t2k_gemm_out *out)
{
    for (size_t i = 0; i < m; i++, A += a_m, C += ldc) {
        size_t j = 0;
        if (out->mode == T2K_GEMM_STORE) {
            gemm_outer_store(n, A, B, C);
            continue;
        }
        for (; j + GEMM_NR <= n; j += GEMM_NR) {
            const t2k_gemm_out part = t2k_gemm_out_at(out, i, j);
            gemm_outer_part(GEMM_NV, 0, A, B + j, GEMM_NR, C + j, &part);
        }
        for (; j < n; j += VF_W) {
            const t2k_gemm_out part = t2k_gemm_out_at(out, i, j);
            gemm_outer_part(1, GEMM_MASKED, A, B + j, n - j < VF_W ? n - j : VF_W, C + j, &part);
        }
    }
}

#endif
