/* The product's classes fast and bf16 without a matrix unit. Included last by gemm_<isa>.c.
 *
 * bf16: the strict kernels on panels whose numbers are rounded to bf16 after they were packed, so
 * that the result is class strict's for rounded operands, on every ISA.
 * fast, few rows times B in place along k: dot products with vectors along k. Each element is one
 * chain per lane over at most DOTS_CHUNK of k, the lanes are added, then the chunks; which rows and
 * columns are computed together does not change it. */
#ifndef T2K_TMPL_GEMM_CLASS_H
#define T2K_TMPL_GEMM_CLASS_H

#define DOTS_CHUNK (T2K_CHUNK_K * VF_W) /* chains are no longer than class strict's */
#define DOTS_ACC 12                     /* upper bound of rows * cols */

/* To the upper 16 bits, to nearest even; NaN stays NaN. */
GEMM_INLINE vf gemm_to_bf16(vf x)
{
    const vi bits = vi_of_bits(x);
    const vi minus_odd = vi_sra(vi_shl(bits, 15), 31); /* -1 where the last bit kept is set */
    const vi up = vi_sub(vi_add(bits, vi_set1(0x7fff)), minus_odd);
    return v_select(v_nan(x), x, v_of_bits(vi_shl(vi_sra(up, 16), 16)));
}

static void gemm_round_all(float *x, size_t n)
{
    size_t i = 0;
    for (; i + VF_W <= n; i += VF_W) {
        v_store(x + i, gemm_to_bf16(v_load(x + i)));
    }
    if (i < n) {
        v_store_n(x + i, gemm_to_bf16(v_load_n(x + i, n - i)), n - i);
    }
}

static void gemm_pack_a_rounded(size_t m, size_t kc, const float *A, size_t a_m, size_t a_k,
                                const float *s, float *panels)
{
    T2K_FN(gemm_pack_a)(m, kc, A, a_m, a_k, s, panels);
    for (size_t i = 0; i < m && a_k == 1; i++) {
        gemm_round_all(panels + i * T2K_ROW_STRIDE(kc), kc);
    }
    if (a_k != 1) {
        gemm_round_all(panels, (m + GEMM_MR - 1) / GEMM_MR * GEMM_MR * kc);
    }
}

static void gemm_pack_b_rounded(size_t n, size_t kc, const float *B, size_t b_k, size_t b_n,
                                const float *s, float *panels, size_t b_panel)
{
    T2K_FN(gemm_pack_b)(n, kc, B, b_k, b_n, s, panels, b_panel);
    for (size_t j = 0; j < n; j += GEMM_NR, panels += b_panel) {
        gemm_round_all(panels, GEMM_NR * kc);
    }
}

t2k_gemm_group T2K_FN(gemm_rounded) = {
    .mr = GEMM_MR,
    .nr = GEMM_NR,
    .mc = GEMM_MC,
    .few = GEMM_FEW,
    .direct_step = GEMM_MASKED ? 1 : VF_W,
    .pack_a = gemm_pack_a_rounded,
    .pack_b = gemm_pack_b_rounded,
    .block = T2K_FN(gemm_block),
    .strip = T2K_FN(gemm_strip),
    .scale = T2K_FN(gemm_scale),
    .packs = 1,
};

void T2K_FN(gemm_finish)(const float *t, size_t ldt, size_t m, size_t n, float *C, size_t ldc,
                         const t2k_gemm_out *out)
{
    gemm_finish(t, ldt, m, n, C, ldc, out);
}

/* rows and cols are constants. */
GEMM_INLINE void gemm_dots_of(const size_t rows, const size_t cols, size_t k, const float *A,
                              size_t a_m, const float *B, size_t b_n, float *t, size_t ldt)
{
    for (size_t first = 0; first == 0 || first < k; first += DOTS_CHUNK) {
        const size_t end = k - first < DOTS_CHUNK ? k : first + DOTS_CHUNK;
        vf acc[DOTS_ACC];
        T2K_UNROLL
        for (size_t i = 0; i < rows * cols; i++) {
            acc[i] = v_zero();
        }
        size_t p = first;
        for (; p + VF_W <= end; p += VF_W) {
            vf a[DOTS_ACC];
            T2K_UNROLL
            for (size_t r = 0; r < rows; r++) {
                a[r] = v_load(A + r * a_m + p);
            }
            T2K_UNROLL
            for (size_t c = 0; c < cols; c++) {
                const vf b = v_load(B + c * b_n + p);
                T2K_UNROLL
                for (size_t r = 0; r < rows; r++) {
                    acc[r * cols + c] = v_fma(a[r], b, acc[r * cols + c]);
                }
            }
        }
        if (p < end) {
            T2K_UNROLL
            for (size_t c = 0; c < cols; c++) {
                const vf b = v_load_n(B + c * b_n + p, end - p);
                T2K_UNROLL
                for (size_t r = 0; r < rows; r++) {
                    const vf a = v_load_n(A + r * a_m + p, end - p);
                    acc[r * cols + c] = v_fma(a, b, acc[r * cols + c]);
                }
            }
        }
        T2K_UNROLL
        for (size_t i = 0; i < rows * cols; i++) {
            float *to = t + i / cols * ldt + i % cols;
            const float sum = v_sum_lanes(acc[i]);
            *to = first == 0 ? sum : *to + sum;
        }
    }
}

/* Columns by eight where the rows leave room for so many sums: as many streams of B. */
void T2K_FN(gemm_dots)(size_t m, size_t n, size_t k, const float *A, size_t a_m, const float *B,
                       size_t b_n, float *t, size_t ldt)
{
    for (size_t j = 0; j < n;) {
        const size_t cols = n - j >= 8 && m == 1 ? 8 : n - j >= 4 ? 4 : 1;
        const float *b = B + j * b_n;
        for (size_t i = 0, rows; i < m; i += rows) {
            const float *a = A + i * a_m;
            float *to = t + i * ldt + j;
            rows = m - i >= 3 ? 3 : m - i;
            if (cols == 8) {
                gemm_dots_of(1, 8, k, a, a_m, b, b_n, to, ldt);
            } else if (cols == 4 && rows == 3) {
                gemm_dots_of(3, 4, k, a, a_m, b, b_n, to, ldt);
            } else if (cols == 4 && rows == 2) {
                gemm_dots_of(2, 4, k, a, a_m, b, b_n, to, ldt);
            } else if (cols == 4) {
                gemm_dots_of(1, 4, k, a, a_m, b, b_n, to, ldt);
            } else {
                rows = 1;
                gemm_dots_of(1, 1, k, a, a_m, b, b_n, to, ldt);
            }
        }
        j += cols;
    }
}

#endif
