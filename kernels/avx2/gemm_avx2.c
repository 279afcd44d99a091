/* Matrix product, AVX2 + FMA. Registers: tile 6 x 16 = 12 accumulators + 2 of B + 1 broadcast of A
 * <= 16. Two ports, latency 4: 8 chains are the least that fill them, so 4 x 16 is the lowest
 * height at full speed. Tails: own heights, masked loads in place, padded panels when packed; one
 * vector of columns takes 12 rows. A step of k of the tile by llvm-mca 19: 6.0 cycles on Skylake
 * and Zen 3, the limit; 6.8 on Zen 2 by llvm-mca 14. */
#include "simd/simd_avx2.h"
#include "simd/transpose_avx.h"

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

#define g_transpose4 v_transpose4x4
#define GEMM_TRANSPOSE
#define g_transpose v_transpose8x8

static inline __attribute__((always_inline)) __m128 g_part(vf v, size_t part)
{
    return part == 0 ? _mm256_castps256_ps128(v) : _mm256_extractf128_ps(v, 1);
}

static inline __attribute__((always_inline)) void g_store4(float *p, vf v, size_t part)
{
    _mm_storeu_ps(p, g_part(v, part));
}

#define GEMM_TOGETHER 2 /* 8 vectors, 4 sums and what a transposition takes besides */
#define g_lines_four v_load_columns4

#define GEMM_WIDE(X) X(1, 4) X(2, 2) X(3, 2)

#include "tmpl/gemm_ukr.h"
#include "tmpl/gemm_lines.h"
#include "tmpl/gemm_pack.h"
#include "tmpl/gemm_group.h"
#include "tmpl/gemm_class.h"
