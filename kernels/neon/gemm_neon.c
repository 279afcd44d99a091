/* Matrix product, NEON. Registers: tile 8 x 12 = 24 accumulators + 3 of B + 1 of A <= 32. Latency
 * 4: 8 chains fill two ports, 16 four. Four lanes have no masked loads: B in place needs widths of
 * whole vectors, other widths are packed into padded panels. Tails of rows: own heights.
 * A step of k of the tile by llvm-mca 19: 12.0 cycles on Neoverse N1, 6.0 on V1 and V2, which is
 * the limit; of 6 x 16 as gcc 12 compiles intrinsics, with two sums in memory: 13.5, 6.5. */
#include "simd/simd_neon.h"

#include <string.h>

#include "core/table.h"

#define GEMM_MR 8
#define GEMM_NV 3
#define GEMM_TALL 12
#define GEMM_MC 240 /* 240 KB of A: half of a 512 KB L2 */
#define GEMM_FEW 10
#define GEMM_AHEAD 32 /* 1.5 KB: 190 cycles at 6 per step */
#define GEMM_MASKED 0

typedef size_t g_mask;

static inline g_mask g_mask_n(size_t n)
{
    return n;
}

static inline vf g_load_mask(const float *p, g_mask mask)
{
    return v_load_n(p, mask);
}

/* By hand, the first lane of a standing for all: a number of A is one load then, no broadcast,
 * which would take a port from the products. Volatile, or gcc 12 loads all rows of A before the
 * first product and spills. */
static inline __attribute__((always_inline)) vf g_fma(vf acc, vf a, vf b)
{
    __asm__ volatile("fmla %0.4s, %2.4s, %1.s[0]" : "+w"(acc) : "w"(vgetq_lane_f32(a, 0)), "w"(b));
    return acc;
}

static inline __attribute__((always_inline)) vf g_fma_at(vf acc, const float *a, vf b)
{
    return g_fma(acc, v_set1(*a), b);
}

static inline __attribute__((always_inline)) void g_transpose4(vf r[4])
{
    const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

static inline __attribute__((always_inline)) void g_store4(float *p, vf v, size_t part)
{
    (void)part; /* one part of 128 bits */
    vst1q_f32(p, v);
}

#define GEMM_TOGETHER 4

#define GEMM_WIDE(X) X(1, 4) X(2, 2) X(3, 2)

#include "tmpl/gemm_ukr.h"
#include "tmpl/gemm_lines.h"
#include "tmpl/gemm_pack.h"
#include "tmpl/gemm_group.h"
#include "tmpl/gemm_class.h"
