/* Matrix product, AVX-512. Registers: tile 12 x 32 = 24 accumulators + 2 of B + 1 broadcast of A
 * <= 32. Two ports (one on Zen 4, which splits), latency 4: 8 chains fill them, so heights from 4
 * on run at full speed. Tails: own heights, masked loads and stores, halves for up to 8 columns. A
 * step of k of the tile by llvm-mca: 13.0 cycles on Skylake-X, 13.1 on Ice Lake and Sapphire Rapids
 * (llvm-mca 14; that of 19 gives these one port), 12 being the limit; of 12 x 16: 7.5 of 6. */
#include "simd/simd_avx512.h"
#include "simd/transpose_avx.h"

#include <string.h>

#include "core/table.h"

#define GEMM_MR 12
#define GEMM_NV 2
#define GEMM_TALL 12
#define GEMM_MC 480 /* 480 KB of A: half of the 1 MB or more of L2 that these CPUs have */
#define GEMM_FEW 12
#define GEMM_AHEAD 16 /* 2 KB: 200 cycles and more, the latency of L3 */
#define GEMM_MASKED 1

typedef __mmask16 g_mask;

static inline g_mask g_mask_n(size_t n)
{
    return vm_first(n);
}

static inline vf g_load_mask(const float *p, g_mask mask)
{
    return _mm512_maskz_loadu_ps(mask, p);
}

/* By hand: gcc 12 folds the loads of intrinsics into memory operands and then spills. */
static inline __attribute__((always_inline)) vf g_fma(vf acc, vf a, vf b)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

/* A broadcast of its own for each product costs 1.4 instead of 1.0 cycles on Zen 4. */
static inline __attribute__((always_inline)) vf g_fma_at(vf acc, const float *a, vf b)
{
    __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(b), "m"(*a));
    return acc;
}

/* Where 512 bits are split in two, and for loads everywhere, a half vector costs half. */
#define GEMM_HALF
typedef __m256 g_half;
typedef __mmask8 g_half_mask;

static inline g_half_mask g_half_mask_n(size_t n)
{
    return (g_half_mask)((1u << n) - 1u);
}

static inline g_half g_half_zero(void)
{
    return _mm256_setzero_ps();
}

static inline g_half g_half_load_mask(const float *p, g_half_mask mask)
{
    return _mm256_maskz_loadu_ps(mask, p);
}

static inline __attribute__((always_inline)) g_half g_half_fma_at(g_half acc, const float *a,
                                                                  g_half b)
{
    __asm__("vfmadd231ps %2%{1to8%}, %1, %0" : "+v"(acc) : "v"(b), "m"(*a));
    return acc;
}

static inline vf g_half_widen(g_half a)
{
    return _mm512_castps256_ps512(a); /* the upper half is never stored */
}

static inline __attribute__((always_inline)) void g_transpose4(vf r[4])
{
    const vf t0 = _mm512_unpacklo_ps(r[0], r[1]), t1 = _mm512_unpackhi_ps(r[0], r[1]);
    const vf t2 = _mm512_unpacklo_ps(r[2], r[3]), t3 = _mm512_unpackhi_ps(r[2], r[3]);
    r[0] = _mm512_shuffle_ps(t0, t2, 0x44);
    r[1] = _mm512_shuffle_ps(t0, t2, 0xee);
    r[2] = _mm512_shuffle_ps(t1, t3, 0x44);
    r[3] = _mm512_shuffle_ps(t1, t3, 0xee);
}

#define GEMM_TRANSPOSE
static inline __attribute__((always_inline)) void g_transpose(vf r[16])
{
    vf t[16];
    T2K_UNROLL
    for (int i = 0; i < 4; i++) {
        g_transpose4(r + 4 * i);
    }
    /* r[4 l + q] holds step 4 part + q of lines 4 l .. 4 l + 3 in its 128 bits `part`. */
    T2K_UNROLL
    for (int q = 0; q < 4; q++) {
        const vf a = _mm512_shuffle_f32x4(r[q], r[4 + q], 0x44);
        const vf b = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0x44);
        const vf c = _mm512_shuffle_f32x4(r[q], r[4 + q], 0xee);
        const vf d = _mm512_shuffle_f32x4(r[8 + q], r[12 + q], 0xee);
        t[q] = _mm512_shuffle_f32x4(a, b, 0x88);
        t[4 + q] = _mm512_shuffle_f32x4(a, b, 0xdd);
        t[8 + q] = _mm512_shuffle_f32x4(c, d, 0x88);
        t[12 + q] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
    T2K_UNROLL
    for (int i = 0; i < 16; i++) {
        r[i] = t[i];
    }
}

static inline __attribute__((always_inline)) __m128 g_part(vf v, size_t part)
{
    return part == 0   ? _mm512_castps512_ps128(v)
           : part == 1 ? _mm512_extractf32x4_ps(v, 1)
           : part == 2 ? _mm512_extractf32x4_ps(v, 2)
                       : _mm512_extractf32x4_ps(v, 3);
}

static inline __attribute__((always_inline)) void g_store4(float *p, vf v, size_t part)
{
    _mm_storeu_ps(p, g_part(v, part));
}

/* Halves, since 512-bit shuffles take twice the time where 512 bits are split. */
typedef __m256 g_lines;
#define G_LINES ((size_t)8)

static inline g_lines g_lines_zero(void)
{
    return _mm256_setzero_ps();
}

static inline g_lines g_lines_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void g_lines_store(float *p, g_lines v)
{
    _mm256_storeu_ps(p, v);
}

static inline __attribute__((always_inline)) g_lines g_lines_set1(const float *p)
{
    return _mm256_broadcast_ss(p);
}

static inline __attribute__((always_inline)) g_lines g_lines_fma(g_lines acc, g_lines a, g_lines b)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}

#define GEMM_TOGETHER 4
#define g_lines_four v_load_columns4

#define GEMM_WIDE(X) X(1, 4) X(2, 4) X(3, 4) X(4, 2) X(5, 2) X(6, 2)

#include "tmpl/gemm_ukr.h"
#include "tmpl/gemm_lines.h"
#include "tmpl/gemm_pack.h"
#include "tmpl/gemm_group.h"
#include "tmpl/gemm_class.h"
