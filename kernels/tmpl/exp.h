/* exp(x), inline, the same bits on every ISA. Included after a simd_<isa>.h.
 *   n = round(x * log2 e), r = x - n ln 2 (two fused steps, the first one exact), and
 *   exp(x) = 2^n * P(r) with P = 1 + r + c2 r^2 + .. + c6 r^6, all steps fused; 2^n goes in as two
 *   factors, so that a denormal result is rounded once and nothing overflows on the way.
 * P is the minimax polynomial on |r| <= 0.34664 for the relative error (3.1e-9 = 0.05 * 2^-24 with
 * the rounded coefficients). Over all 2^32 arguments the error is at most 0.892 ULP for normal and
 * 0.858 ULP for denormal results.
 * Special cases: x > 88.7228 gives +Inf, x < -103.97 gives +0, NaN stays NaN, exp(+-0) = 1. */
#ifndef T2K_TMPL_EXP_H
#define T2K_TMPL_EXP_H

static inline vf v_exp(vf x)
{
    /* Beyond these the result is 0 or Inf already; the clamp keeps n within two factors. From -176
     * down the factors are 0: no underflow, which costs tens of cycles, for a blocked key's -Inf.
     * The constant comes first: a NaN passes through v_min and v_max as their second operand. */
    x = v_min(v_set1(89.0f), x);
    x = v_max(v_set1(-176.0f), x);
    const vf magic = v_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf t = v_fma(x, v_set1(0x1.715476p+0f), magic);
    vf n = v_sub(t, magic);
    /* ln 2 in two floats. n times the upper one is a multiple of 2^-24 and so is x where it has
     * one to lose, hence the difference, below 0.35, is exact. */
    vf r = v_fnma(n, v_set1(0x1.62e430p-1f), x);
    r = v_fnma(n, v_set1(-0x1.05c610p-29f), r);
    vf p = v_set1(0x1.6a5150p-10f);
    p = v_fma(p, r, v_set1(0x1.12397ep-7f));
    p = v_fma(p, r, v_set1(0x1.5558acp-5f));
    p = v_fma(p, r, v_set1(0x1.555492p-3f));
    p = v_fma(p, r, v_set1(0x1.fffffcp-2f));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    /* The low bits of t hold n, those of magic are 0: n = k1 + k2, both in exponent position. The
     * factors are multiplied, not added to the exponent of p, which would destroy a NaN. */
    vi k = vi_of_bits(t);
    vi k1 = vi_shl(vi_sra(k, 1), 23);
    vi k2 = vi_sub(vi_shl(k, 23), k1);
    const vi one = vi_of_bits(v_set1(1.0f));
    p = v_mul(p, v_of_bits(vi_add(one, k1)));
    return v_mul(p, v_of_bits(vi_add(one, k2)));
}

#endif
