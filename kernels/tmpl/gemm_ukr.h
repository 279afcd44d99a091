/* The micro-kernels of the product, written once over simd/: C (rows, vecs * VF_W) from one chunk
 * of k, each element one chain of fused multiply-adds from +0 in rising k. Which chunk sums go
 * where is t2k_gemm_out (core/table.h). The including gemm_<isa>.c defines
 *   GEMM_MR, GEMM_NV        tile: GEMM_MR rows by GEMM_NV vectors; GEMM_NR = GEMM_NV * VF_W
 *   g_fma(acc, a, b)        acc + a * b, one rounding, a's lanes equal; held in registers by hand
 *   g_fma_at(acc, p, b)     acc + *p * b, where *p is used once
 *   GEMM_MASKED, g_mask, g_mask_n(n), g_load_mask(p, mask)   loads of the first n lanes in a loop
 *   GEMM_TALL               rows of a kernel in place for one vector of columns
 *   GEMM_WIDE(X)            X(rows, panels), rows from 1 on: kernels for some panels at once
 *   GEMM_AHEAD              steps of k by which B is prefetched
 *   GEMM_HALF               where a half vector costs half: g_half and its own g_half_...
 * Tails: rows have kernels of their own height, columns fewer vectors, the last one masked. */
#ifndef T2K_TMPL_GEMM_UKR_H
#define T2K_TMPL_GEMM_UKR_H

#define GEMM_NR ((size_t)GEMM_NV * VF_W)
/* Steps of k before the end of a tile at which its part of C is asked for: about 1000 cycles. */
#define GEMM_LATE ((size_t)2000 / (GEMM_MR * GEMM_NV))

#include "tmpl/gemm_out.h"

#define GEMM_LINE_FLOATS 16
#define GEMM_FAR ((size_t)8192) /* some 300 ns at the 27 GB/s that a core reads from memory */

/* What a kernel asks for while it computes: `line`, and `step` bytes further every step of k. */
typedef struct gemm_next {
    uintptr_t line; /* no pointer: it may lie behind the panels */
    size_t step;
} gemm_next;

/* Rows of the next tile when `left` are left of which `mr` make a whole one: the last two share,
 * since 4 + 4 beats 6 + 2. */
static inline size_t gemm_height(size_t left, size_t mr)
{
    return left >= 2 * mr ? mr : left > mr ? (left + 1) / 2 : left;
}

/* Asks for the lines of `floats` columns. From far they go to L2: L1 can wait for few lines only,
 * and then memory gives half of what it can. far is a constant. */
GEMM_INLINE void gemm_ahead(const int far, uintptr_t line, const size_t floats)
{
    T2K_UNROLL
    for (size_t i = 0; i < floats; i += GEMM_LINE_FLOATS) {
        if (far) {
            __builtin_prefetch((const void *)(line + i * sizeof(float)), 0, 2);
        } else {
            __builtin_prefetch((const void *)(line + i * sizeof(float)));
        }
    }
}

/* As many steps of k ahead that the latency of L3 is hidden: beyond the end of a panel's chunk that
 * is its next chunk or the next panel, and behind the last one it is harmless. */
GEMM_INLINE gemm_next gemm_next_steps(const float *B, size_t b_k)
{
    const uintptr_t line = (uintptr_t)B + GEMM_AHEAD * b_k * sizeof(float);
    return (gemm_next){line, b_k * sizeof(float)};
}

/* What tile `tile` of `tiles` asks for, all of which read the panel B: its share of the panel
 * `next`, so that memory has all the time to send it; a single tile what lies GEMM_FAR bytes ahead.
 */
GEMM_INLINE gemm_next gemm_next_share(const float *B, const float *next, size_t kc, size_t tile,
                                      size_t tiles)
{
    if (tiles == 1) {
        return (gemm_next){(uintptr_t)B + GEMM_FAR, GEMM_NR * sizeof(float)};
    }
    const size_t step = GEMM_NR * sizeof(float) / tiles;
    return (gemm_next){(uintptr_t)next + tile * kc * step, step};
}

GEMM_INLINE void gemm_clear(const int count, vf *acc)
{
    T2K_UNROLL
    for (int i = 0; i < count; i++) {
        acc[i] = v_zero();
    }
}

/* Asks for a whole tile of C. The asm keeps the compiler from holding these addresses in registers
 * and in memory until the sums leave. */
GEMM_INLINE void gemm_ask_c(const int rows, float *C, size_t ldc)
{
    T2K_UNROLL
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(C, 1);
        __builtin_prefetch(C + GEMM_NR - 1, 1);
        C += ldc;
        __asm__("" : "+r"(C));
    }
}

/* Three rows per pointer: base, base + stride and base + 2 * stride are one address each. */
#define GEMM_POINTERS(rows) (((rows) + 2) / 3)

GEMM_INLINE void gemm_point(const int rows, const float **a, const float *A, size_t a_m)
{
    T2K_UNROLL
    for (int i = 0; i < GEMM_POINTERS(rows); i++) {
        a[i] = A + (size_t)(3 * i) * a_m;
    }
}

GEMM_INLINE void gemm_advance(const int rows, const float **a, size_t a_k)
{
    T2K_UNROLL
    for (int i = 0; i < GEMM_POINTERS(rows); i++) {
        a[i] += a_k;
    }
}

GEMM_INLINE const float *gemm_element(const float *const *a, int i, size_t a_m)
{
    return a[i / 3] + (size_t)(i % 3) * a_m;
}

/* One step of k: acc += the rows' elements times b. */
GEMM_INLINE void gemm_step(const int rows, const int vecs, vf *acc, const float *const *a,
                           size_t a_m, const vf *b)
{
    T2K_UNROLL
    for (int i = 0; i < rows; i++) {
        const float *from = gemm_element(a, i, a_m);
        if (vecs == 1) {
            acc[i] = g_fma_at(acc[i], from, b[0]);
            continue;
        }
        const vf x = v_set1(*from);
        T2K_UNROLL
        for (int v = 0; v < vecs; v++) {
            acc[i * vecs + v] = g_fma(acc[i * vecs + v], x, b[v]);
        }
    }
}

/* `steps` steps of k by a panel of B. */
GEMM_INLINE const float *gemm_steps(const int rows, size_t steps, vf *acc, const float **a,
                                    size_t a_m, size_t a_k, const float *B, gemm_next *next)
{
    for (size_t p = 0; p < steps; p++) {
        vf b[GEMM_NV];
        T2K_UNROLL
        for (int v = 0; v < GEMM_NV; v++) {
            b[v] = v_load(B + v * VF_W);
        }
        gemm_ahead(1, next->line, GEMM_NR);
        next->line += next->step;
        gemm_step(rows, GEMM_NV, acc, a, a_m, b);
        gemm_advance(rows, a, a_k);
        B += GEMM_NR;
    }
    return B;
}

/* A panel of B: one tile of whole vectors. rows is a constant. */
GEMM_INLINE void gemm_tile(const int rows, size_t kc, const float *A, size_t a_m, size_t a_k,
                           const float *B, gemm_next next, float *C, size_t ldc,
                           const t2k_gemm_out *out)
{
    vf acc[GEMM_ACC];
    const float *a[GEMM_POINTERS(GEMM_MR)];
    gemm_clear(rows * GEMM_NV, acc);
    gemm_point(rows, a, A, a_m);
    /* Where there are many tiles, C is asked for late enough to be in L1 still when the sums are
     * there. */
    const size_t few = GEMM_NR * sizeof(float) / 2; /* the step of two tiles */
    const size_t late = next.step >= few ? 0 : kc < GEMM_LATE ? kc : GEMM_LATE;
    B = gemm_steps(rows, kc - late, acc, a, a_m, a_k, B, &next);
    if (late > 0) {
        gemm_ask_c(rows, C, ldc);
        gemm_steps(rows, late, acc, a, a_m, a_k, B, &next);
    }
    gemm_leave(rows, GEMM_NV, acc, GEMM_NR, C, ldc, out);
}

/* B in place or packed (row stride b_k). rows, vecs, masked are constants; masked: only nr columns
 * may be read. */
GEMM_INLINE void gemm_place(const int rows, const int vecs, const int masked, size_t kc,
                            const float *A, size_t a_m, size_t a_k, const float *B, size_t b_k,
                            size_t nr, float *C, size_t ldc, const t2k_gemm_out *out)
{
    const g_mask mask = g_mask_n(nr - (size_t)(vecs - 1) * VF_W);
    (void)mask; /* without masked loads */
    vf acc[GEMM_ACC];
    const float *a[GEMM_POINTERS(GEMM_TALL)];
    gemm_clear(rows * vecs, acc);
    gemm_point(rows, a, A, a_m);
    gemm_next next = gemm_next_steps(B, b_k);
    for (size_t p = 0; p < kc; p++) {
        vf b[GEMM_NV];
        T2K_UNROLL
        for (int v = 0; v < vecs; v++) {
            const float *from = B + v * VF_W;
            b[v] = masked && v == vecs - 1 ? g_load_mask(from, mask) : v_load(from);
        }
        gemm_ahead(0, next.line, (size_t)vecs * VF_W);
        next.line += next.step;
        gemm_step(rows, vecs, acc, a, a_m, b);
        gemm_advance(rows, a, a_k);
        B += b_k;
    }
    gemm_leave(rows, vecs, acc, nr, C, ldc, out);
}

#ifdef GEMM_HALF
/* As gemm_place() for at most VF_W / 2 columns, in half vectors. rows is a constant. */
GEMM_INLINE void gemm_half(const int rows, size_t kc, const float *A, size_t a_m, size_t a_k,
                           const float *B, size_t b_k, size_t nr, float *C, size_t ldc,
                           const t2k_gemm_out *out)
{
    const g_half_mask mask = g_half_mask_n(nr);
    g_half sum[GEMM_MR];
    vf acc[GEMM_MR];
    const float *a[GEMM_POINTERS(GEMM_MR)];
    T2K_UNROLL
    for (int i = 0; i < rows; i++) {
        sum[i] = g_half_zero();
    }
    gemm_point(rows, a, A, a_m);
    for (size_t p = 0; p < kc; p++) {
        const g_half b = g_half_load_mask(B, mask);
        T2K_UNROLL
        for (int i = 0; i < rows; i++) {
            sum[i] = g_half_fma_at(sum[i], gemm_element(a, i, a_m), b);
        }
        gemm_advance(rows, a, a_k);
        B += b_k;
    }
    T2K_UNROLL
    for (int i = 0; i < rows; i++) {
        acc[i] = g_half_widen(sum[i]);
    }
    gemm_leave(rows, 1, acc, nr, C, ldc, out);
}
#endif

/* A few rows in place times several whole panels of B at once: parallel streams of memory and
 * enough chains to hide the latency. rows and panels are constants. */
GEMM_INLINE void gemm_wide(const int rows, const int panels, size_t kc, const float *A, size_t a_m,
                           size_t a_k, const float *B, size_t b_k, size_t b_panel, float *C,
                           size_t ldc, const t2k_gemm_out *out)
{
    const int vecs = panels * GEMM_NV;
    vf acc[GEMM_ACC];
    gemm_clear(rows * vecs, acc);
    for (size_t p = 0; p < kc; p++) {
        vf x[GEMM_MR];
        T2K_UNROLL
        for (int i = 0; i < rows; i++) {
            x[i] = v_set1(A[(size_t)i * a_m]);
        }
        T2K_UNROLL
        for (int v = 0; v < vecs; v++) {
            const vf b = v_load(B + (size_t)(v / GEMM_NV) * b_panel + v % GEMM_NV * VF_W);
            if (rows == 1) { /* a load folded into its product: more of them are under way */
                acc[v] = v_fma(x[0], b, acc[v]);
                continue;
            }
            T2K_UNROLL
            for (int i = 0; i < rows; i++) {
                acc[i * vecs + v] = g_fma(acc[i * vecs + v], x[i], b);
            }
        }
        A += a_k;
        B += b_k;
    }
    gemm_leave(rows, vecs, acc, (size_t)vecs * VF_W, C, ldc, out);
}

#endif
