/* The kernels of tmpl/gemm_ukr.h for every height and width, and what the driver calls: block,
 * strip, scale and the group itself. Included last by gemm_<isa>.c, which also defines
 * GEMM_MC, GEMM_NC, GEMM_FEW (see t2k_gemm_group). */
#ifndef T2K_TMPL_GEMM_GROUP_H
#define T2K_TMPL_GEMM_GROUP_H

#define GEMM_H1(X, v) X(1, v)
#define GEMM_H2(X, v) GEMM_H1(X, v) X(2, v)
#define GEMM_H3(X, v) GEMM_H2(X, v) X(3, v)
#define GEMM_H4(X, v) GEMM_H3(X, v) X(4, v)
#define GEMM_H5(X, v) GEMM_H4(X, v) X(5, v)
#define GEMM_H6(X, v) GEMM_H5(X, v) X(6, v)
#define GEMM_H7(X, v) GEMM_H6(X, v) X(7, v)
#define GEMM_H8(X, v) GEMM_H7(X, v) X(8, v)
#define GEMM_H9(X, v) GEMM_H8(X, v) X(9, v)
#define GEMM_H10(X, v) GEMM_H9(X, v) X(10, v)
#define GEMM_H11(X, v) GEMM_H10(X, v) X(11, v)
#define GEMM_H12(X, v) GEMM_H11(X, v) X(12, v)
#define GEMM_PASTE(a, b) a##b
#define GEMM_HEIGHTS_OF(mr) GEMM_PASTE(GEMM_H, mr)
#define GEMM_HEIGHTS(X, v) GEMM_HEIGHTS_OF(GEMM_MR)(X, v)

typedef void gemm_tile_fn(size_t kc, const float *A, const float *B, size_t nr, float *C,
                          size_t ldc, const t2k_gemm_out *out);
#define GEMM_TILE(r, v)                                                                   \
    static void gemm_tile_##r##_##v(size_t kc, const float *A, const float *B, size_t nr, \
                                    float *C, size_t ldc, const t2k_gemm_out *out)        \
    {                                                                                     \
        gemm_tile(r, v, kc, A, B, nr, C, ldc, out);                                       \
    }
#define GEMM_TILE_NAME(r, v) gemm_tile_##r##_##v,

typedef void gemm_place_fn(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,
                           size_t b_k, size_t nr, float *C, size_t ldc, const t2k_gemm_out *out);
#define GEMM_PLACE_AS(name, r, v, masked)                                                  \
    static void name(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,    \
                     size_t b_k, size_t nr, float *C, size_t ldc, const t2k_gemm_out *out) \
    {                                                                                      \
        gemm_place(r, v, masked, kc, A, a_m, a_k, B, b_k, nr, C, ldc, out);                \
    }
/* Narrow widths take masks where the ISA has them, so that B in place may have any width. */
#define GEMM_PLACE(r, v) GEMM_PLACE_AS(gemm_place_##r##_##v, r, v, GEMM_MASKED)
#define GEMM_PLACE_NAME(r, v) gemm_place_##r##_##v,
#define GEMM_WHOLE(r, v) GEMM_PLACE_AS(gemm_whole_##r, r, GEMM_NV, 0)
#define GEMM_WHOLE_NAME(r, v) gemm_whole_##r,

#ifdef GEMM_HALF
#define GEMM_HALF_AS(r, v)                                                                       \
    static void gemm_half_##r(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B, \
                              size_t b_k, size_t nr, float *C, size_t ldc,                       \
                              const t2k_gemm_out *out)                                           \
    {                                                                                            \
        gemm_half(r, kc, A, a_m, a_k, B, b_k, nr, C, ldc, out);                                  \
    }
#define GEMM_HALF_NAME(r, v) gemm_half_##r,
GEMM_HEIGHTS(GEMM_HALF_AS, 0)
static gemm_place_fn *const gemm_halves[GEMM_MR] = {GEMM_HEIGHTS(GEMM_HALF_NAME, 0)};
#endif

typedef void gemm_wide_fn(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,
                          size_t b_k, size_t b_panel, float *C, size_t ldc,
                          const t2k_gemm_out *out);
#define GEMM_WIDE_AS(r, panels)                                                                  \
    static void gemm_wide_##r(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B, \
                              size_t b_k, size_t b_panel, float *C, size_t ldc,                  \
                              const t2k_gemm_out *out)                                           \
    {                                                                                            \
        gemm_wide(r, panels, kc, A, a_m, a_k, B, b_k, b_panel, C, ldc, out);                     \
    }
#define GEMM_WIDE_NAME(r, panels) {gemm_wide_##r, panels},
#define GEMM_WIDE_PANELS(r, panels) [r] = panels,

GEMM_HEIGHTS(GEMM_TILE, 1)
GEMM_HEIGHTS(GEMM_PLACE, 1)
GEMM_HEIGHTS(GEMM_TILE, 2)
GEMM_HEIGHTS(GEMM_PLACE, 2)
#if GEMM_NV == 4
GEMM_HEIGHTS(GEMM_TILE, 3)
GEMM_HEIGHTS(GEMM_PLACE, 3)
GEMM_HEIGHTS(GEMM_TILE, 4)
GEMM_HEIGHTS(GEMM_PLACE, 4)
#elif GEMM_NV != 2
#error "GEMM_NV is 2 or 4"
#endif
GEMM_HEIGHTS(GEMM_WHOLE, 0)
GEMM_WIDE(GEMM_WIDE_AS)

static gemm_tile_fn *const gemm_tiles[GEMM_NV][GEMM_MR] = {
    {GEMM_HEIGHTS(GEMM_TILE_NAME, 1)},
    {GEMM_HEIGHTS(GEMM_TILE_NAME, 2)},
#if GEMM_NV == 4
    {GEMM_HEIGHTS(GEMM_TILE_NAME, 3)},
    {GEMM_HEIGHTS(GEMM_TILE_NAME, 4)},
#endif
};
static gemm_place_fn *const gemm_places[GEMM_NV][GEMM_MR] = {
    {GEMM_HEIGHTS(GEMM_PLACE_NAME, 1)},
    {GEMM_HEIGHTS(GEMM_PLACE_NAME, 2)},
#if GEMM_NV == 4
    {GEMM_HEIGHTS(GEMM_PLACE_NAME, 3)},
    {GEMM_HEIGHTS(GEMM_PLACE_NAME, 4)},
#endif
};
static gemm_place_fn *const gemm_wholes[GEMM_MR] = {GEMM_HEIGHTS(GEMM_WHOLE_NAME, 0)};
/* By number of rows, from one on. */
static const struct {
    gemm_wide_fn *fn;
    size_t panels;
} gemm_wides[] = {GEMM_WIDE(GEMM_WIDE_NAME)};
enum { GEMM_WIDE_ROWS = sizeof gemm_wides / sizeof gemm_wides[0] };

void T2K_FN(gemm_block)(size_t m, size_t n, size_t kc, const float *A, const float *B,
                        size_t b_panel, float *C, size_t ldc, const t2k_gemm_out *out)
{
    for (size_t j = 0; j < n; j += GEMM_NR, B += b_panel) {
        const size_t nr = n - j < GEMM_NR ? n - j : GEMM_NR;
        gemm_tile_fn *const *tiles = gemm_tiles[(nr - 1) / VF_W];
        const float *panel = A;
        size_t rows;
        for (size_t i = 0; i < m; i += rows, panel += GEMM_MR * kc) {
            rows = gemm_height(m - i);
            float *c = C + i * ldc + j;
            if (out->mode != T2K_GEMM_GENERAL) {
                tiles[rows - 1](kc, panel, B, nr, c, ldc, out);
            } else {
                const t2k_gemm_out part = t2k_gemm_out_at(out, i, j);
                tiles[rows - 1](kc, panel, B, nr, c, ldc, &part);
            }
        }
    }
}

/* The kernels for the next columns when `left` are left; *cols: how many they take. */
static gemm_place_fn *const *gemm_strip_kernels(size_t left, size_t *cols)
{
    *cols = left < GEMM_NR ? left : GEMM_NR;
#ifdef GEMM_HALF
    if (left <= VF_W / 2) {
        return gemm_halves;
    }
    if (left < GEMM_NR && left % VF_W > 0 && left % VF_W <= VF_W / 2) {
        *cols = left / VF_W * VF_W; /* the rest follows in half vectors */
    }
#endif
    return *cols == GEMM_NR ? gemm_wholes : gemm_places[(*cols - 1) / VF_W];
}

void T2K_FN(gemm_strip)(size_t m, size_t n, size_t kc, const float *A, size_t a_m, size_t a_k,
                        const float *B, size_t b_k, size_t b_panel, int padded, float *C,
                        size_t ldc, const t2k_gemm_out *out)
{
    size_t cols;
    for (size_t j = 0; j < n; j += cols) {
        const size_t left = n - j;
        const float *b = padded ? B + j / GEMM_NR * b_panel + j % GEMM_NR : B + j;
        const size_t panels = m <= GEMM_WIDE_ROWS ? gemm_wides[m - 1].panels : 1;
        if (panels > 1 && left >= panels * GEMM_NR) {
            cols = panels * GEMM_NR;
            const t2k_gemm_out part = t2k_gemm_out_at(out, 0, j);
            gemm_wides[m - 1].fn(kc, A, a_m, a_k, b, b_k, b_panel, C + j, ldc, &part);
            continue;
        }
        gemm_place_fn *const *kernels = gemm_strip_kernels(left, &cols);
        size_t rows;
        for (size_t i = 0; i < m; i += rows) {
            rows = gemm_height(m - i);
            const float *a = A + i * a_m;
            float *c = C + i * ldc + j;
            if (out->mode != T2K_GEMM_GENERAL) {
                kernels[rows - 1](kc, a, a_m, a_k, b, b_k, cols, c, ldc, out);
            } else {
                const t2k_gemm_out part = t2k_gemm_out_at(out, i, j);
                kernels[rows - 1](kc, a, a_m, a_k, b, b_k, cols, c, ldc, &part);
            }
        }
    }
}

void T2K_FN(gemm_scale)(size_t m, size_t n, float *C, size_t ldc, const t2k_gemm_out *out)
{
    gemm_finish(NULL, 0, m, n, C, ldc, out);
}

t2k_gemm_group T2K_FN(gemm) = {
    .mr = GEMM_MR,
    .nr = GEMM_NR,
    .mc = GEMM_MC,
    .nc = GEMM_NC,
    .few = GEMM_FEW,
    .strip_panels = {GEMM_WIDE(GEMM_WIDE_PANELS)},
    .direct_step = GEMM_MASKED ? 1 : VF_W,
    .pack_a = T2K_FN(gemm_pack_a),
    .pack_b = T2K_FN(gemm_pack_b),
    .block = T2K_FN(gemm_block),
    .strip = T2K_FN(gemm_strip),
    .scale = T2K_FN(gemm_scale),
};

#endif
