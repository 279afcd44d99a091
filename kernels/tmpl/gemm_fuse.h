/* Packing of B by the kernel that multiplies it first, written once over simd/. Where B's rows are
 * contiguous, a panel needs no pass of its own: the first tile of rows reads B in place and stores
 * what it has loaded into the panel, one store for GEMM_MR multiply-adds; the other tiles read the
 * panel. Some of them ask for the columns of B that come next, so that the first tile, which has
 * GEMM_NR columns of B to fetch for little arithmetic, finds them in L2. */
#ifndef T2K_TMPL_GEMM_FUSE_H
#define T2K_TMPL_GEMM_FUSE_H

/* B in place: one tile of GEMM_NV vectors and the panel [kc][GEMM_NR]. rows is constant. */
GEMM_INLINE void gemm_fuse_tile(const int rows, size_t kc, const float *A, size_t a_m, size_t a_k,
                                const float *B, size_t b_k, float *panel, float *C, size_t ldc,
                                const t2k_gemm_out *out)
{
    vf acc[GEMM_ACC];
    const float *a[GEMM_POINTERS(GEMM_MR)];
    gemm_clear(rows * GEMM_NV, acc);
    gemm_point(rows, a, A, a_m);
    gemm_ask_c(rows, C, ldc);
    gemm_next next = gemm_next_steps(B, b_k);
    for (size_t p = 0; p < kc; p++) {
        vf b[GEMM_NV];
        T2K_UNROLL
        for (int v = 0; v < GEMM_NV; v++) {
            b[v] = v_load(B + v * VF_W);
            v_store(panel + v * VF_W, b[v]);
        }
        gemm_ahead(0, next.line, GEMM_NR);
        next.line += next.step;
        gemm_step(rows, GEMM_NV, acc, a, a_m, b);
        gemm_advance(rows, a, a_k);
        B += b_k;
        panel += GEMM_NR;
    }
    gemm_leave(rows, GEMM_NV, acc, GEMM_NR, C, ldc, out);
}

typedef void gemm_fuse_fn(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,
                          size_t b_k, float *panel, float *C, size_t ldc, const t2k_gemm_out *out);
#define GEMM_FUSE(r, v)                                                                          \
    static void gemm_fuse_##r(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B, \
                              size_t b_k, float *panel, float *C, size_t ldc,                    \
                              const t2k_gemm_out *out)                                           \
    {                                                                                            \
        gemm_fuse_tile(r, kc, A, a_m, a_k, B, b_k, panel, C, ldc, out);                          \
    }
#define GEMM_FUSE_NAME(r, v) gemm_fuse_##r,
GEMM_HEIGHTS(GEMM_FUSE, 0)
static gemm_fuse_fn *const gemm_fuses[GEMM_MR] = {GEMM_HEIGHTS(GEMM_FUSE_NAME, 0)};

/* One tile, B packed. Asks for GEMM_NR columns of `next`, kc >> shift rows of it, b_k apart, each
 * some times: the requests are spread over the whole tile. rows is a constant. */
GEMM_INLINE void gemm_lead_tile(const int rows, size_t kc, const float *A, size_t a_m, size_t a_k,
                                const float *B, const float *next, size_t b_k, int shift, float *C,
                                size_t ldc, const t2k_gemm_out *out)
{
    vf acc[GEMM_ACC];
    const float *a[GEMM_POINTERS(GEMM_MR)];
    gemm_clear(rows * GEMM_NV, acc);
    gemm_point(rows, a, A, a_m);
    gemm_ask_c(rows, C, ldc);
    for (size_t p = 0; p < kc; p++) {
        vf b[GEMM_NV];
        T2K_UNROLL
        for (int v = 0; v < GEMM_NV; v++) {
            b[v] = v_load(B + v * VF_W);
        }
        gemm_ahead(1, (uintptr_t)(next + (p >> shift) * b_k), GEMM_NR);
        gemm_step(rows, GEMM_NV, acc, a, a_m, b);
        gemm_advance(rows, a, a_k);
        B += GEMM_NR;
    }
    gemm_leave(rows, GEMM_NV, acc, GEMM_NR, C, ldc, out);
}

typedef void gemm_lead_fn(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,
                          const float *next, size_t b_k, int shift, float *C, size_t ldc,
                          const t2k_gemm_out *out);
#define GEMM_LEAD(r, v)                                                                          \
    static void gemm_lead_##r(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B, \
                              const float *next, size_t b_k, int shift, float *C, size_t ldc,    \
                              const t2k_gemm_out *out)                                           \
    {                                                                                            \
        gemm_lead_tile(r, kc, A, a_m, a_k, B, next, b_k, shift, C, ldc, out);                    \
    }
#define GEMM_LEAD_NAME(r, v) gemm_lead_##r,
GEMM_HEIGHTS(GEMM_LEAD, 0)
static gemm_lead_fn *const gemm_leads[GEMM_MR] = {GEMM_HEIGHTS(GEMM_LEAD_NAME, 0)};

void T2K_FN(gemm_fuse)(size_t m, size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,
                       size_t b_k, const float *next, float *panel, float *C, size_t ldc,
                       const t2k_gemm_out *out)
{
    float space[GEMM_ACC * VF_W];
    t2k_gemm_out own;
    out = gemm_with_space(out, &own, space);
    const size_t a_panel = gemm_panel_of_a(kc, &a_m, &a_k);
    size_t i = gemm_height(m, GEMM_MR);
    gemm_fuses[i - 1](kc, A, a_m, a_k, B, b_k, panel, C, ldc, out);
    A += gemm_pass(a_panel, i, a_m);
    /* The next columns are asked for during the next 1, 2, 4 or 8 tiles. */
    const size_t tiles = (m - i + GEMM_MR - 1) / GEMM_MR;
    const int shift = tiles >= 8 ? 3 : tiles >= 4 ? 2 : tiles >= 2;
    for (size_t t = 0, rows; next != NULL && i < m && t < (size_t)1 << shift; t++, i += rows) {
        const t2k_gemm_out part = t2k_gemm_out_at(out, i, 0);
        rows = gemm_height(m - i, GEMM_MR);
        gemm_leads[rows - 1](kc, A, a_m, a_k, panel, next + (t * kc >> shift) * b_k, b_k, shift,
                             C + i * ldc, ldc, &part);
        A += gemm_pass(a_panel, rows, a_m);
    }
    if (i < m) {
        const t2k_gemm_out part = t2k_gemm_out_at(out, i, 0);
        gemm_panel(m - i, kc, A, a_m, a_k, a_panel, panel, panel, C + i * ldc, ldc, &part);
    }
}

#endif
