/* Products on the matrix unit: bf16 operands, and f32 operands as three bf16 parts each.
 *
 * f32: x = hi + mid + lo exactly, each the rest rounded to bf16 (8 + 8 + 8 bits of significand),
 * and a b is taken as the six products hi hi, hi mid, mid hi, mid mid, hi lo, lo hi; what is left
 * out is at most 2^-24 |a b| (docs/numerics.md, "Classes fast and bf16").
 *
 * Tiles: 0 .. 3 sums of 2 x 2 blocks of 16 x 16, 4 and 5 of A, 6 and 7 of B. A product takes 16
 * cycles and its result 52, so that four independent sums keep the unit busy; a load takes 8. Per
 * 32 steps of k: bf16 4 loads, 4 products (32 of 64 cycles); f32 14 loads, 24 products (112 of 384
 * cycles), as neighbours in the order of products share an operand.
 *
 * A panel (core/table.h): a head, then per 32 steps of k, per part, two tiles of 16 lines. A's
 * tiles are [line][pair of k], B's [pair of k][line]. k beyond kc is zero in both operands. */
#include "simd/simd_amx.h"

#include <string.h>

#include "core/table.h"

#define ROWS ((size_t)16) /* of a tile */
#define ROW_BYTES 64
#define TILE (ROWS * ROW_BYTES)
#define INLINE static inline __attribute__((always_inline))

enum { BF16_PARTS = 1, F32_PARTS = 3, FEW_ROWS = 16 };

/* At the beginning of a panel; T2K_ALIGN bytes are set aside for it. */
typedef struct panel_head {
    uint32_t least; /* bits of the smallest nonzero |x|, less 1; UINT32_MAX: all are zero */
    uint32_t most;  /* bits of the largest |x| */
    uint32_t plain; /* there are no tiles but floats [kc][T2K_TILE_LINES]: not to be split */
} panel_head;

/* Where a split is exact: hi does not round to infinity, and a part (a multiple of x's last bit)
 * is no denormal, which the unit takes for zero. */
#define MOST_BITS 0x7f7f8000u          /* 2^128 - 2^119 */
#define LEAST_BITS ((127 - 103) << 23) /* 2^-103 */
/* For two panels: sums of 256 products stay below 2^127, and products above 2^-96, so that what is
 * lost below 2^-126 in six products is less than 2^-27 of them. Biased exponents. */
#define MOST_EXPONENTS (2 * 127 + 116)
#define LEAST_EXPONENTS (2 * 127 - 96)

void t2k_tiles_open_amx(void)
{
    _Alignas(64) tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = (uint8_t)ROWS;
        config.row_bytes[t] = ROW_BYTES;
    }
    tile_configure(&config);
}

void t2k_tiles_close_amx(void)
{
    tile_release();
}

/* ---- packing -------------------------------------------------------------------------------- */

/* 32 numbers a, b to the same row of each part's tile, TILE * 2 bytes apart; zip: pairs of one of a
 * and one of b. */
INLINE vr put(const int parts, const int zip, vf a, vf b, unsigned char *row, vr range)
{
    if (parts > 1) {
        range = vr_add(vr_add(range, a), b);
    }
    T2K_UNROLL
    for (int part = 0; part < parts; part++) {
        const vp v = vp_round(a, b);
        vp_store(row + (size_t)part * 2 * TILE, zip ? vp_zip(v) : v);
        if (part + 1 < parts) {
            a = v_sub(a, vp_low(v));
            b = v_sub(b, vp_high(v));
        }
    }
    return range;
}

/* The first n of 16 numbers at p; none: p is not looked at. */
INLINE vf some(const float *p, size_t n)
{
    return n >= 16 ? v_load(p) : n > 0 ? v_load_n(p, n) : v_zero();
}

static void transpose_tile(unsigned char *tile)
{
    vp r[16];
    T2K_UNROLL
    for (int i = 0; i < 16; i++) {
        r[i] = vp_load(tile + i * ROW_BYTES);
    }
    vp_transpose(r);
    T2K_UNROLL
    for (int i = 0; i < 16; i++) {
        vp_store(tile + i * ROW_BYTES, r[i]);
    }
}

/* 16 lines, 32 steps of k, of which `lines` and n exist: one tile of each part. */
INLINE vr pack_tiles(const int parts, const int by_line, size_t lines, size_t n, const float *X,
                     size_t line, size_t step, unsigned char *tile, vr range)
{
    const int along = step == 1;
    for (size_t i = 0; i < ROWS; i++, tile += ROW_BYTES) {
        if (along) {
            const size_t here = i < lines ? n : 0;
            const float *x = X + (here > 0 ? i * line : 0);
            const vf a = some(x, here), b = some(x + 16, here > 16 ? here - 16 : 0);
            range = put(parts, 0, a, b, tile, range);
        } else {
            const float *x = X + (2 * i < n ? 2 * i * step : 0);
            const vf a = some(x, 2 * i < n ? lines : 0);
            const vf b = some(x + step, 2 * i + 1 < n ? lines : 0);
            range = put(parts, 1, a, b, tile, range);
        }
    }
    for (int part = 0; part < parts && along != by_line; part++) {
        transpose_tile(tile - TILE + (size_t)part * 2 * TILE);
    }
    return range;
}

static void pack_plain(size_t lines, size_t kc, const float *X, size_t line, size_t step, float *to)
{
    for (size_t p = 0; p < kc; p++, to += T2K_TILE_LINES) {
        for (size_t l = 0; l < T2K_TILE_LINES; l++) {
            to[l] = l < lines ? X[l * line + p * step] : 0.0f;
        }
    }
}

INLINE void pack(const int parts, const int by_line, size_t lines, size_t kc, const float *X,
                 size_t line, size_t step, unsigned char *panel)
{
    unsigned char *tile = panel + T2K_ALIGN;
    vr range = vr_none();
    for (size_t p = 0; p < kc; p += T2K_TILE_STEP) {
        const size_t n = kc - p < T2K_TILE_STEP ? kc - p : T2K_TILE_STEP;
        const float *x = X + p * step;
        const size_t first = lines < ROWS ? lines : ROWS, rest = lines - first;
        range = pack_tiles(parts, by_line, first, n, x, line, step, tile, range);
        x += rest > 0 ? ROWS * line : 0;
        range = pack_tiles(parts, by_line, rest, n, x, line, step, tile + TILE, range);
        tile += (size_t)parts * 2 * TILE;
    }
    if (parts > 1) {
        const panel_head head = {vr_least(range), vr_most(range),
                                 vr_least(range) < LEAST_BITS - 1 || vr_most(range) >= MOST_BITS};
        memcpy(panel, &head, sizeof head);
        if (head.plain) {
            pack_plain(lines, kc, X, line, step, (float *)(void *)(panel + T2K_ALIGN));
        }
    }
}

#define PACK(name, parts, by_line)                                                      \
    static void name(size_t lines, size_t kc, const float *X, size_t line, size_t step, \
                     unsigned char *panel)                                              \
    {                                                                                   \
        pack(parts, by_line, lines, kc, X, line, step, panel);                          \
    }
PACK(pack_a_bf16, BF16_PARTS, 1)
PACK(pack_b_bf16, BF16_PARTS, 0)
PACK(pack_a_f32, F32_PARTS, 1)
PACK(pack_b_f32, F32_PARTS, 0)

/* ---- products on tiles ---------------------------------------------------------------------- */

#define LOAD_A(part)                                                     \
    do {                                                                 \
        tile_load(4, A + (size_t)(part)*2 * TILE, ROW_BYTES);            \
        if (down > 1) {                                                  \
            tile_load(5, A + (size_t)(part)*2 * TILE + TILE, ROW_BYTES); \
        }                                                                \
    } while (0)
#define LOAD_B(part)                                                     \
    do {                                                                 \
        tile_load(6, B + (size_t)(part)*2 * TILE, ROW_BYTES);            \
        if (across > 1) {                                                \
            tile_load(7, B + (size_t)(part)*2 * TILE + TILE, ROW_BYTES); \
        }                                                                \
    } while (0)
#define MULTIPLY()                    \
    do {                              \
        tile_dp_bf16(0, 4, 6);        \
        if (across > 1) {             \
            tile_dp_bf16(1, 4, 7);    \
        }                             \
        if (down > 1) {               \
            tile_dp_bf16(2, 5, 6);    \
        }                             \
        if (down > 1 && across > 1) { \
            tile_dp_bf16(3, 5, 7);    \
        }                             \
    } while (0)

/* parts, down and across (tiles) are constants. */
INLINE void multiply(const int parts, const int down, const int across, size_t kc,
                     const unsigned char *A, const unsigned char *B, float *t, size_t ldt)
{
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    A += T2K_ALIGN;
    B += T2K_ALIGN;
    for (size_t p = 0; p < kc; p += T2K_TILE_STEP) {
        if (parts == BF16_PARTS) {
            LOAD_A(0);
            LOAD_B(0);
            MULTIPLY();
        } else { /* lo hi, mid hi, mid mid, hi mid, hi hi, hi lo */
            LOAD_A(2);
            LOAD_B(0);
            MULTIPLY();
            LOAD_A(1);
            MULTIPLY();
            LOAD_B(1);
            MULTIPLY();
            LOAD_A(0);
            MULTIPLY();
            LOAD_B(0);
            MULTIPLY();
            LOAD_B(2);
            MULTIPLY();
        }
        A += (size_t)parts * 2 * TILE;
        B += (size_t)parts * 2 * TILE;
    }
    tile_store(0, t, ldt * sizeof *t);
    if (across > 1) {
        tile_store(1, t + ROWS, ldt * sizeof *t);
    }
    if (down > 1) {
        tile_store(2, t + ROWS * ldt, ldt * sizeof *t);
    }
    if (down > 1 && across > 1) {
        tile_store(3, t + ROWS * ldt + ROWS, ldt * sizeof *t);
    }
}

INLINE void multiply_any(const int parts, size_t m, size_t n, size_t kc, const unsigned char *A,
                         const unsigned char *B, float *t, size_t ldt)
{
    if (m > ROWS && n > ROWS) {
        multiply(parts, 2, 2, kc, A, B, t, ldt);
    } else if (m > ROWS) {
        multiply(parts, 2, 1, kc, A, B, t, ldt);
    } else if (n > ROWS) {
        multiply(parts, 1, 2, kc, A, B, t, ldt);
    } else {
        multiply(parts, 1, 1, kc, A, B, t, ldt);
    }
}

static void product_bf16(size_t m, size_t n, size_t kc, const unsigned char *A,
                         const unsigned char *B, float *t, size_t ldt, float *space)
{
    (void)space;
    multiply_any(BF16_PARTS, m, n, kc, A, B, t, ldt);
}

/* ---- products of numbers that do not split --------------------------------------------------- */

/* The floats of a panel, [kc][T2K_TILE_LINES]: where they lie, or summed up again, exactly. */
static const float *floats_of(const int by_line, size_t kc, const unsigned char *panel,
                              float *space)
{
    panel_head head;
    memcpy(&head, panel, sizeof head);
    panel += T2K_ALIGN;
    if (head.plain) {
        return (const float *)(const void *)panel;
    }
    for (size_t p = 0; p < kc; p += T2K_TILE_STEP, panel += F32_PARTS * 2 * TILE) {
        for (size_t half = 0; half < 2; half++) {
            _Alignas(64) unsigned char parts[F32_PARTS][TILE];
            for (size_t part = 0; part < F32_PARTS; part++) {
                memcpy(parts[part], panel + (part * 2 + half) * TILE, TILE);
                if (by_line) {
                    transpose_tile(parts[part]);
                }
            }
            for (size_t q = 0; q < ROWS && p + 2 * q < kc; q++) {
                const vp hi = vp_load(parts[0] + q * ROW_BYTES);
                const vp mid = vp_load(parts[1] + q * ROW_BYTES);
                const vp lo = vp_load(parts[2] + q * ROW_BYTES);
                float *to = space + (p + 2 * q) * T2K_TILE_LINES + half * ROWS;
                v_store(to, v_add(v_add(vp_first(lo), vp_first(mid)), vp_first(hi)));
                if (p + 2 * q + 1 < kc) {
                    v_store(to + T2K_TILE_LINES,
                            v_add(v_add(vp_second(lo), vp_second(mid)), vp_second(hi)));
                }
            }
        }
    }
    return space;
}

/* Chains of fused multiply-adds in rising k, as rule 1 of docs/numerics.md has them: with chunks of
 * T2K_CHUNK_K the bits of class strict. */
static void multiply_floats(size_t m, size_t n, size_t kc, const float *A, const float *B, float *t,
                            size_t ldt)
{
    enum { HEIGHT = 8 };
    for (size_t i = 0; i < m; i += HEIGHT) {
        for (size_t j = 0; j < n; j += ROWS) {
            vf sum[HEIGHT];
            T2K_UNROLL
            for (int r = 0; r < HEIGHT; r++) {
                sum[r] = v_zero();
            }
            for (size_t p = 0; p < kc; p++) {
                const vf b = v_load(B + p * T2K_TILE_LINES + j);
                T2K_UNROLL
                for (int r = 0; r < HEIGHT; r++) {
                    const vf a = v_set1(A[p * T2K_TILE_LINES + i + (size_t)r]);
                    sum[r] = v_fma(a, b, sum[r]);
                }
            }
            T2K_UNROLL
            for (int r = 0; r < HEIGHT; r++) {
                v_store(t + (i + (size_t)r) * ldt + j, sum[r]);
            }
        }
    }
}

static uint32_t least_exponent(const panel_head *head)
{
    return head->least == UINT32_MAX ? 254 : (head->least + 1) >> 23;
}

static int may_split(const unsigned char *A, const unsigned char *B)
{
    panel_head a, b;
    memcpy(&a, A, sizeof a);
    memcpy(&b, B, sizeof b);
    return !a.plain && !b.plain && (a.most >> 23) + (b.most >> 23) <= MOST_EXPONENTS &&
           least_exponent(&a) + least_exponent(&b) >= LEAST_EXPONENTS;
}

static void product_f32(size_t m, size_t n, size_t kc, const unsigned char *A,
                        const unsigned char *B, float *t, size_t ldt, float *space)
{
    if (may_split(A, B)) {
        multiply_any(F32_PARTS, m, n, kc, A, B, t, ldt);
        return;
    }
    const float *a = floats_of(1, kc, A, space);
    const float *b = floats_of(0, kc, B, space + T2K_TILE_LINES * kc);
    multiply_floats(m, n, kc, a, b, t, ldt);
}

/* ---- the groups ----------------------------------------------------------------------------- */

t2k_gemm_tiles t2k_gemm_fast_amx = {
    .note = "amx, three bf16 parts",
    .parts = F32_PARTS,
    .chunk_k = T2K_CHUNK_K,
    .few_rows = FEW_ROWS,
    .open = t2k_tiles_open_amx,
    .close = t2k_tiles_close_amx,
    .pack_a = pack_a_f32,
    .pack_b = pack_b_f32,
    .product = product_f32,
};

t2k_gemm_tiles t2k_gemm_bf16_amx = {
    .note = "amx",
    .parts = BF16_PARTS,
    .chunk_k = 4 * T2K_CHUNK_K,
    .open = t2k_tiles_open_amx,
    .close = t2k_tiles_close_amx,
    .pack_a = pack_a_bf16,
    .pack_b = pack_b_bf16,
    .product = product_bf16,
};
