/* Matrix product, scalar: the reference bits. fmaf is a library call without FMA hardware, so the
 * tile is small and nothing here is about speed. */
#include "simd/simd_scalar.h"

#include <string.h>

#include "core/table.h"

#define GEMM_MR 4
#define GEMM_NV 4
#define GEMM_TALL 4
#define GEMM_MC 128
#define GEMM_FEW 4
#define GEMM_AHEAD 1
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

static inline __attribute__((always_inline)) vf g_fma(vf acc, vf a, vf b)
{
    return v_fma(a, b, acc);
}

static inline __attribute__((always_inline)) vf g_fma_at(vf acc, const float *a, vf b)
{
    return g_fma(acc, v_set1(*a), b);
}

#define GEMM_TOGETHER 1

#define GEMM_WIDE(X) X(1, 2)

#include "tmpl/gemm_ukr.h"
#include "tmpl/gemm_lines.h"
#include "tmpl/gemm_pack.h"
#include "tmpl/gemm_group.h"
#include "tmpl/gemm_class.h"

/* No matrix unit: vectors serve these classes. */
t2k_gemm_tiles t2k_gemm_fast_scalar = {.note = "as strict; dot products for few rows"};
t2k_gemm_tiles t2k_gemm_bf16_scalar = {.note = "as strict, of rounded operands"};
