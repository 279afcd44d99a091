/* exp(x), inline, the same bits on every ISA. Included after a simd_<isa>.h.
 *   n = round(x * log2 e), r = x - n ln 2 (two fused steps), exp(x) = 2^n * P(r), P of degree 6;
 *   2^n in two factors, so that denormal results round once and nothing overflows on the way.
 * Special cases: x > 88.73 gives +Inf, x < -103.98 gives +0, NaN stays NaN, exp(0) = 1. */
#ifndef T2K_TMPL_EXP_H
#define T2K_TMPL_EXP_H

static inline vf v_exp(vf x)
{
    /* Beyond these the result is 0 or Inf already; the clamp keeps n within two factors.
     * The constant comes first: a NaN passes through v_min and v_max as their second operand. */
    x = v_min(v_set1(89.0f), x);
    x = v_max(v_set1(-104.0f), x);
    const vf magic = v_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    vf t = v_fma(x, v_set1(1.44269504f), magic);
    vf n = v_sub(t, magic);
    vf r = v_fnma(n, v_set1(0.693145752f), x); /* ln 2, upper part: 12 trailing zero bits */
    r = v_fnma(n, v_set1(1.42860677e-6f), r);  /* and the rest */
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_fma(v_mul(r, r), p, r);
    p = v_add(p, v_set1(1.0f));
    vi k = vi_sub(vi_of_bits(t), vi_of_bits(magic));
    vi k1 = vi_sra(k, 1);
    vi k2 = vi_sub(k, k1);
    p = v_mul(p, v_of_bits(vi_shl(vi_add(k1, vi_set1(127)), 23)));
    return v_mul(p, v_of_bits(vi_shl(vi_add(k2, vi_set1(127)), 23)));
}

#endif
