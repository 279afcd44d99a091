/* Natural logarithm, inline, the same bits on every ISA. Included after a simd_<isa>.h.
 *   x = m 2^n with 2/3 <= m < 4/3, r = m - 1 (exact), and
 *   log x = n ln 2 + (r + r^2 (-1/2 + r P(r))), each sum with a product one fused step.
 * P is of degree 7, minimax for the relative error of log(1 + r) on |r| <= 1/3 (4.7e-9 = 0.079 *
 * 2^-24), rounded one by one from the lowest term up, each time fitting the rest again. ln 2 in one
 * float is off by 2.7e-9 of itself, and m is centred at 1, so that nothing cancels beside n = -1.
 * At most 0.934 ULP, at 0x1.4574e2p-1: below 0.7 the result itself is 0.4 to 0.7 and all steps
 * count. Special cases: log(+-0) = -Inf, negative numbers give NaN, +Inf and NaN stay, log(1) = +0.
 */
#ifndef T2K_TMPL_LOG_H
#define T2K_TMPL_LOG_H

#include "tmpl/exp.h"

#include <math.h>

#define LOG_LN2 0x1.62e430p-1f
#define LOG_TWO_THIRDS 0x3f2aaaab /* its bits */

static inline vf v_log(vf x)
{
    static const float c[8] = {-0x1.07e5f4p-3f, 0x1.1e73a0p-3f, -0x1.f32078p-4f, 0x1.1ed424p-3f,
                               -0x1.559d36p-3f, 0x1.99d05ep-3f, -0x1.fffef4p-3f, 0x1.555506p-2f};
    const vm denormal = v_lt(x, v_set1(0x1p-126f));
    const vi bits = vi_of_bits(v_select(denormal, v_mul(x, v_set1(0x1p23f)), x));
    const vi k = vi_sra(vi_sub(bits, vi_set1(LOG_TWO_THIRDS)), 23);
    const vf r = v_sub(v_of_bits(vi_sub(bits, vi_shl(k, 23))), v_set1(1.0f));
    vf n = v_sub(v_of_bits(vi_add(vi_of_bits(v_set1(EXP_ROUND)), k)), v_set1(EXP_ROUND));
    n = v_select(denormal, v_sub(n, v_set1(23.0f)), n);
    vf p = v_set1(c[0]);
    T2K_UNROLL
    for (int i = 1; i < 8; i++) {
        p = v_fma(p, r, v_set1(c[i]));
    }
    p = v_fma(p, r, v_set1(-0.5f));
    vf y = v_fma(n, v_set1(LOG_LN2), v_fma(p, v_mul(r, r), r));
    y = v_select(v_lt(x, v_set1(INFINITY)), y, x);
    y = v_select(v_lt(x, v_zero()), v_set1(NAN), y);
    return v_select(v_eq(x, v_zero()), v_set1(-INFINITY), y);
}

#endif
