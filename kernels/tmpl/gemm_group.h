/* The kernels of tmpl/gemm_ukr.h for every height and width, and what the driver calls: block,
 * strip, scale and the group itself. Included last by gemm_<isa>.c, which also defines
 * GEMM_MC, GEMM_FEW (see t2k_gemm_group). */
#ifndef T2K_TMPL_GEMM_GROUP_H
#define T2K_TMPL_GEMM_GROUP_H

/* Bands of rows: 32 KB of A and C, where a chunk of A does not stay in L2 (256 KB) and one of B
 * does. Beyond 4 MB they come from afar. */
#define GEMM_BAND_FLOATS 8192
#define GEMM_BAND_L2 ((size_t)65536)
#define GEMM_FAR_FLOATS ((size_t)1 << 20)

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
#define GEMM_TALL_HEIGHTS(X, v) GEMM_HEIGHTS_OF(GEMM_TALL)(X, v)

typedef void gemm_tile_fn(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B,
                          gemm_next next, float *C, size_t ldc, const t2k_gemm_out *out);
#define GEMM_TILE(r, v)                                                                          \
    static void gemm_tile_##r(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B, \
                              gemm_next next, float *C, size_t ldc, const t2k_gemm_out *out)     \
    {                                                                                            \
        gemm_tile(r, kc, A, a_m, a_k, B, next, C, ldc, out);                                     \
    }
#define GEMM_TILE_NAME(r, v) gemm_tile_##r,

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
#define GEMM_WHOLE(r, v)                                                                          \
    static void gemm_whole_##r(size_t kc, const float *A, size_t a_m, size_t a_k, const float *B, \
                               size_t b_k, size_t nr, float *C, size_t ldc,                       \
                               const t2k_gemm_out *out)                                           \
    {                                                                                             \
        (void)nr; /* all of them */                                                               \
        gemm_place(r, GEMM_NV, 0, kc, A, a_m, a_k, B, b_k, GEMM_NR, C, ldc, out);                 \
    }
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

GEMM_HEIGHTS(GEMM_TILE, 0)
GEMM_TALL_HEIGHTS(GEMM_PLACE, 1)
GEMM_HEIGHTS(GEMM_PLACE, 2)
#if GEMM_NV > 2
GEMM_HEIGHTS(GEMM_PLACE, 3)
#endif
#if GEMM_NV > 3
GEMM_HEIGHTS(GEMM_PLACE, 4)
#endif
GEMM_HEIGHTS(GEMM_WHOLE, 0)
GEMM_WIDE(GEMM_WIDE_AS)

static gemm_tile_fn *const gemm_tiles[GEMM_MR] = {GEMM_HEIGHTS(GEMM_TILE_NAME, 0)};
static gemm_place_fn *const gemm_places[GEMM_NV][GEMM_TALL] = {
    {GEMM_TALL_HEIGHTS(GEMM_PLACE_NAME, 1)},
    {GEMM_HEIGHTS(GEMM_PLACE_NAME, 2)},
#if GEMM_NV > 2
    {GEMM_HEIGHTS(GEMM_PLACE_NAME, 3)},
#endif
#if GEMM_NV > 3
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

/* The kernels for the next columns when `left` are left: how many columns, up to which height. */
typedef struct gemm_choice {
    gemm_place_fn *const *kernels;
    size_t cols, mr;
} gemm_choice;

static gemm_choice gemm_choose(size_t left)
{
    gemm_choice c = {gemm_wholes, GEMM_NR, GEMM_MR};
    if (left >= GEMM_NR) {
        return c;
    }
    c.cols = left;
#ifdef GEMM_HALF
    if (left <= VF_W / 2) {
        c.kernels = gemm_halves;
        return c;
    }
    if (left % VF_W > 0 && left % VF_W <= VF_W / 2) {
        c.cols = left / VF_W * VF_W; /* the rest follows in half vectors */
    }
#endif
    c.kernels = gemm_places[(c.cols - 1) / VF_W];
    c.mr = c.cols <= VF_W ? GEMM_TALL : GEMM_MR;
    return c;
}

/* One kernel's work: `rows` rows of the choice at row i, column j of the block that out is for. */
GEMM_INLINE void gemm_one(const gemm_choice *choice, size_t rows, size_t i, size_t j, size_t kc,
                          const float *A, size_t a_m, size_t a_k, const float *B, size_t b_k,
                          float *C, size_t ldc, const t2k_gemm_out *out)
{
    float *c = C + i * ldc + j;
    if (out->mode == T2K_GEMM_STORE || out->mode == T2K_GEMM_ADD) {
        choice->kernels[rows - 1](kc, A, a_m, a_k, B, b_k, choice->cols, c, ldc, out);
    } else {
        const t2k_gemm_out part = t2k_gemm_out_at(out, i, j);
        choice->kernels[rows - 1](kc, A, a_m, a_k, B, b_k, choice->cols, c, ldc, &part);
    }
}

/* Floats from a packed panel of A, which a_m = 0 stands for, to the next, and its strides; 0 where
 * A is in place. */
GEMM_INLINE size_t gemm_panel_of_a(size_t kc, size_t *a_m, size_t *a_k)
{
    if (*a_m != 0) {
        return 0;
    }
    *a_m = 1;
    *a_k = GEMM_MR;
    return GEMM_MR * kc;
}

/* From a tile of `rows` rows to the next: by rows, or packed in panels of `panel` floats. */
GEMM_INLINE size_t gemm_pass(size_t panel, size_t rows, size_t a_m)
{
    return panel > 0 ? panel : rows * a_m;
}

/* All rows by one whole panel of B, which the panel `next` follows. A: see gemm_pass(). */
static void gemm_panel(size_t m, size_t kc, const float *A, size_t a_m, size_t a_k, size_t a_panel,
                       const float *B, const float *next, float *C, size_t ldc,
                       const t2k_gemm_out *out)
{
    const int plain = out->mode == T2K_GEMM_STORE || out->mode == T2K_GEMM_ADD;
    const size_t tiles = (m + GEMM_MR - 1) / GEMM_MR;
    size_t rows, tile = 0;
    for (size_t i = 0; i < m; i += rows, tile++) {
        const gemm_next ask = gemm_next_share(B, next, kc, tile, tiles);
        float *c = C + i * ldc;
        rows = gemm_height(m - i, GEMM_MR);
        if (plain) {
            gemm_tiles[rows - 1](kc, A, a_m, a_k, B, ask, c, ldc, out);
        } else {
            const t2k_gemm_out part = t2k_gemm_out_at(out, i, 0);
            gemm_tiles[rows - 1](kc, A, a_m, a_k, B, ask, c, ldc, &part);
        }
        A += gemm_pass(a_panel, rows, a_m);
    }
}

/* The last columns of a block, fewer than a panel has. */
static void gemm_block_tail(size_t m, size_t j, size_t n, size_t kc, const float *A, size_t a_m,
                            size_t a_k, size_t a_panel, const float *B, float *C, size_t ldc,
                            const t2k_gemm_out *out)
{
    gemm_choice choice;
    for (; j < n; j += choice.cols, B += choice.cols) {
        choice = gemm_choose(n - j);
        const size_t mr = a_panel > 0 ? GEMM_MR : choice.mr;
        const float *a = A;
        size_t rows;
        for (size_t i = 0; i < m; i += rows, a += gemm_pass(a_panel, rows, a_m)) {
            rows = gemm_height(m - i, mr);
            gemm_one(&choice, rows, i, j, kc, a, a_m, a_k, B, GEMM_NR, C, ldc, out);
        }
    }
}

void T2K_FN(gemm_block)(size_t m, size_t n, size_t kc, const float *A, size_t a_m, size_t a_k,
                        const float *B, size_t b_panel, float *C, size_t ldc,
                        const t2k_gemm_out *out)
{
    float space[GEMM_ACC * VF_W];
    t2k_gemm_out own;
    out = gemm_with_space(out, &own, space);
    const size_t a_panel = gemm_panel_of_a(kc, &a_m, &a_k);
    size_t j = 0;
    for (; j + GEMM_NR <= n; j += GEMM_NR, B += b_panel) {
        const t2k_gemm_out part = t2k_gemm_out_at(out, 0, j);
        gemm_panel(m, kc, A, a_m, a_k, a_panel, B, B + b_panel, C + j, ldc, &part);
    }
    gemm_block_tail(m, j, n, kc, A, a_m, a_k, a_panel, B, C, ldc, out);
}

/* Asks for rows of A and of C (n columns) that the next band will meet: part `first`..`end` of n.
 */
static void gemm_strip_ahead(size_t rows, size_t first, size_t end, size_t n, size_t kc,
                             const float *A, size_t a_m, const float *C, size_t ldc)
{
    for (size_t i = rows * first / n; i < rows * end / n; i++) {
        for (size_t p = 0; p < kc; p += 16) {
            __builtin_prefetch(A + i * a_m + p, 0, 2);
        }
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = first; j < end; j += 16) {
            __builtin_prefetch(C + i * ldc + j, 1, 2);
        }
    }
}

/* As gemm_strip() for the rows [i0, i1); `ahead` > 0: as many rows follow, contiguous along k. */
static void gemm_strip_rows(size_t i0, size_t i1, size_t ahead, size_t n, size_t kc, const float *A,
                            size_t a_m, size_t a_k, const float *B, size_t b_k, size_t b_panel,
                            int padded, float *C, size_t ldc, const t2k_gemm_out *out)
{
    const size_t m = i1 - i0;
    const size_t panels = m <= GEMM_WIDE_ROWS ? gemm_wides[m - 1].panels : 1;
    size_t cols;
    for (size_t j = 0; j < n; j += cols) {
        const size_t left = n - j;
        const float *b = padded ? B + j / GEMM_NR * b_panel + j % GEMM_NR : B + j;
        if (panels > 1 && left >= panels * GEMM_NR) {
            cols = panels * GEMM_NR;
            const t2k_gemm_out part = t2k_gemm_out_at(out, i0, j);
            gemm_wides[m - 1].fn(kc, A + i0 * a_m, a_m, a_k, b, b_k, b_panel, C + i0 * ldc + j, ldc,
                                 &part);
            continue;
        }
        if (padded && ahead == 0 && left >= GEMM_NR) {
            const t2k_gemm_out part = t2k_gemm_out_at(out, i0, j);
            cols = GEMM_NR;
            gemm_panel(m, kc, A + i0 * a_m, a_m, a_k, 0, b, b + kc * GEMM_NR, C + i0 * ldc + j, ldc,
                       &part);
            continue;
        }
        const gemm_choice choice = gemm_choose(left);
        size_t rows;
        for (size_t i = i0; i < i1; i += rows) {
            rows = gemm_height(i1 - i, choice.mr);
            gemm_one(&choice, rows, i, j, kc, A + i * a_m, a_m, a_k, b, b_k, C, ldc, out);
            const size_t next = i + m; /* m rows are this band */
            if (next < i1 + ahead) {
                const size_t here = next + rows < i1 + ahead ? rows : i1 + ahead - next;
                gemm_strip_ahead(here, j, j + choice.cols, n, kc, A + next * a_m, a_m,
                                 C + next * ldc, ldc);
            }
        }
        cols = choice.cols;
    }
}

/* All columns by one choice: small products, which feel every instruction. */
GEMM_INLINE void gemm_one_column(const gemm_choice *only, size_t m, size_t kc, const float *A,
                                 size_t a_m, size_t a_k, const float *B, size_t b_k, float *C,
                                 size_t ldc, const t2k_gemm_out *out)
{
    size_t rows;
    for (; m > 0; m -= rows, A += rows * a_m, C += rows * ldc) {
        rows = gemm_height(m, only->mr);
        only->kernels[rows - 1](kc, A, a_m, a_k, B, b_k, only->cols, C, ldc, out);
    }
}

#include "tmpl/gemm_outer.h"

void T2K_FN(gemm_strip)(size_t m, size_t n, size_t kc, const float *A, size_t a_m, size_t a_k,
                        const float *B, size_t b_k, size_t b_panel, int padded, float *C,
                        size_t ldc, const t2k_gemm_out *out)
{
    if (n == 0) {
        return;
    }
    const gemm_choice only = gemm_choose(n);
    if (!padded && only.cols == n && m * kc <= GEMM_BAND_FLOATS && m > GEMM_WIDE_ROWS &&
        (out->mode == T2K_GEMM_STORE || out->mode == T2K_GEMM_ADD)) {
        gemm_one_column(&only, m, kc, A, a_m, a_k, B, b_k, C, ldc, out);
        return;
    }
    float space[GEMM_ACC * VF_W];
    t2k_gemm_out own;
    out = gemm_with_space(out, &own, space);
    if (kc == 1 && n >= GEMM_NR && (!padded || b_panel == GEMM_NR)) {
        gemm_outer(m, n, A, a_m, B, C, ldc, out);
        return;
    }
    if (m * kc <= GEMM_BAND_L2 || n <= GEMM_NR || n * kc > GEMM_BAND_L2) {
        gemm_strip_rows(0, m, 0, n, kc, A, a_m, a_k, B, b_k, b_panel, padded, C, ldc, out);
        return;
    }
    /* A band of rows stays in L1 while it meets all columns. */
    size_t band = GEMM_BAND_FLOATS / (kc + n) / GEMM_TALL * GEMM_TALL;
    band = band < 2 * GEMM_TALL ? 2 * GEMM_TALL : band;
    const int far = a_k == 1 && m * (kc + n) > GEMM_FAR_FLOATS;
    size_t end;
    for (size_t i = 0; i < m; i = end) {
        end = m - i < 2 * band ? m : i + band;
        const size_t ahead = !far ? 0 : m - end < band ? m - end : band;
        gemm_strip_rows(i, end, ahead, n, kc, A, a_m, a_k, B, b_k, b_panel, padded, C, ldc, out);
    }
}

void T2K_FN(gemm_scale)(size_t m, size_t n, float *C, size_t ldc, const t2k_gemm_out *out)
{
    gemm_finish(NULL, 0, m, n, C, ldc, out);
}

#include "tmpl/gemm_fuse.h"

t2k_gemm_group T2K_FN(gemm) = {
    .mr = GEMM_MR,
    .nr = GEMM_NR,
    .mc = GEMM_MC,
    .few = GEMM_FEW,
    .strip_panels = {GEMM_WIDE(GEMM_WIDE_PANELS)},
    .direct_step = GEMM_MASKED ? 1 : VF_W,
    .pack_a = T2K_FN(gemm_pack_a),
    .pack_b = T2K_FN(gemm_pack_b),
    .block = T2K_FN(gemm_block),
    .fuse = T2K_FN(gemm_fuse),
    .strip = T2K_FN(gemm_strip),
    .scale = T2K_FN(gemm_scale),
    .lines = T2K_FN(gemm_lines),
    .line_rows = G_LINES,
};

#endif
