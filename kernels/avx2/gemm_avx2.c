/* Matrix product, AVX2 + FMA. Registers: tile 6 x 16 = 12 accumulators + 2 of B + 1 broadcast of A
 * <= 16. Two ports, latency 4: 8 chains are the least that fill them, so 4 x 16 is the lowest
 * height at full speed. Tails: own heights, masked loads in place, padded panels when packed; one
 * vector of columns takes 12 rows. A step of k of the tile by llvm-mca 19: 6.0 cycles on Skylake
 * and Zen 3, the limit; 6.8 on Zen 2 by llvm-mca 14. */
#include "simd/simd_avx2.h"

#include <string.h>

#include "core/table.h"

#define GEMM_MR 6
#define GEMM_NV 2
#define GEMM_TALL 12 /* height of one vector */
/* 336 KB of A: the largest block that leaves room in an L2 of 512 KB, and the notebook's 320 rows.
 */
#define GEMM_MC 336
#define GEMM_FEW 10
#define GEMM_AHEAD 32 /* 2 KB: some 200 cycles at 6 per step, the latency of L3 */
#define GEMM_MASKED 1

typedef __m256i g_mask;

static inline g_mask g_mask_n(size_t n)
{
    return v_mask_n(n);
}

static inline vf g_load_mask(const float *p, g_mask mask)
{
    return _mm256_maskload_ps(p, mask);
}

/* By hand: gcc 12 folds the loads of intrinsics into memory operands and then spills. */
static inline __attribute__((always_inline)) vf g_fma(vf acc, vf a, vf b)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b));
    return acc;
}

static inline __attribute__((always_inline)) vf g_fma_at(vf acc, const float *a, vf b)
{
    return g_fma(acc, v_set1(*a), b);
}

static inline __attribute__((always_inline)) void g_transpose4(vf r[4])
{
    const vf t0 = _mm256_unpacklo_ps(r[0], r[1]), t1 = _mm256_unpackhi_ps(r[0], r[1]);
    const vf t2 = _mm256_unpacklo_ps(r[2], r[3]), t3 = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(t0, t2, 0x44);
    r[1] = _mm256_shuffle_ps(t0, t2, 0xee);
    r[2] = _mm256_shuffle_ps(t1, t3, 0x44);
    r[3] = _mm256_shuffle_ps(t1, t3, 0xee);
}

#define GEMM_TRANSPOSE
static inline __attribute__((always_inline)) void g_transpose(vf r[8])
{
    vf t[8];
    g_transpose4(r);
    g_transpose4(r + 4);
    T2K_UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
    T2K_UNROLL
    for (int i = 0; i < 8; i++) {
        r[i] = t[i];
    }
}

static inline __attribute__((always_inline)) __m128 g_part(vf v, size_t part)
{
    return part == 0 ? _mm256_castps256_ps128(v) : _mm256_extractf128_ps(v, 1);
}

static inline __attribute__((always_inline)) void g_store4(float *p, vf v, size_t part)
{
    _mm_storeu_ps(p, g_part(v, part));
}

#define GEMM_TOGETHER 2 /* 8 vectors, 4 sums and what a transposition takes besides */

/* The halves of a vector are loaded apart: that is the first of three steps of a transpose. */
static inline __attribute__((always_inline)) void g_lines_four(const float *a, size_t stride,
                                                               vf r[4])
{
    T2K_UNROLL
    for (size_t i = 0; i < 4; i++) {
        const __m128 low = _mm_loadu_ps(a + i * stride);
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(low), _mm_loadu_ps(a + (i + 4) * stride),
                                    1);
    }
    g_transpose4(r);
}

#define GEMM_WIDE(X) X(1, 4) X(2, 2) X(3, 2)

#include "tmpl/gemm_ukr.h"
#include "tmpl/gemm_lines.h"
#include "tmpl/gemm_pack.h"
#include "tmpl/gemm_group.h"
#include "tmpl/gemm_class.h"
