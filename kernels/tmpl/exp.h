/* exp(x), inline, the same bits on every ISA. Included after a simd_<isa>.h.
 *   n = round(x * log2 e), r = x - n ln 2 (two fused steps, the first one exact), and
 *   exp(x) = 2^n * P(r) with P = 1 + r + c2 r^2 + .. + c6 r^6, all steps fused; 2^n goes in as two
 *   factors, so that a denormal result is rounded once and nothing overflows on the way.
 * P is the minimax polynomial on |r| <= 0.34664 for the relative error (3.1e-9 = 0.05 * 2^-24 with
 * the rounded coefficients). Over all 2^32 arguments the error is at most 0.892 ULP for normal and
 * 0.858 ULP for denormal results.
 * exp_near takes 9 fused steps, a difference and two integer operations a vector. Nine steps
 * are 4.5 cycles on AVX2 and 9 on AVX-512 of Zen 4; t2k_exp takes 6.1 and 10.2. Special cases: x
 * > 88.7228 gives +Inf, x < -103.97 gives +0, NaN stays NaN, exp(+-0) = 1. */
#ifndef T2K_TMPL_EXP_H
#define T2K_TMPL_EXP_H

#define EXP_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer */
#define EXP_LOG2_E 0x1.715476p+0f
/* ln 2 in two floats. n times the upper one is a multiple of 2^-24 and so is x where it has one to
 * lose, hence the difference, below 0.35, is exact. */
#define EXP_LN2_HIGH 0x1.62e430p-1f
#define EXP_LN2_LOW (-0x1.05c610p-29f)
#define EXP_C6 0x1.6a5150p-10f
#define EXP_C5 0x1.12397ep-7f
#define EXP_C4 0x1.5558acp-5f
#define EXP_C3 0x1.555492p-3f
#define EXP_C2 0x1.fffffcp-2f

static inline vf v_exp(vf x)
{
    /* Beyond these the result is 0 or Inf already; the clamp keeps n within two factors. From -176
     * down the factors are 0: no underflow, which costs tens of cycles, for a blocked key's -Inf.
     * The constant comes first: a NaN passes through v_min and v_max as their second operand. */
    x = v_min(v_set1(89.0f), x);
    x = v_max(v_set1(-176.0f), x);
    vf t = v_fma(x, v_set1(EXP_LOG2_E), v_set1(EXP_ROUND));
    vf n = v_sub(t, v_set1(EXP_ROUND));
    vf r = v_fnma(n, v_set1(EXP_LN2_HIGH), x);
    r = v_fnma(n, v_set1(EXP_LN2_LOW), r);
    vf p = v_set1(EXP_C6);
    p = v_fma(p, r, v_set1(EXP_C5));
    p = v_fma(p, r, v_set1(EXP_C4));
    p = v_fma(p, r, v_set1(EXP_C3));
    p = v_fma(p, r, v_set1(EXP_C2));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    /* The low bits of t hold n, those of EXP_ROUND are 0: n = k1 + k2, both in exponent position.
     * The factors are multiplied, not added to the exponent of p, which would destroy a NaN. */
    vi k = vi_of_bits(t);
    vi k1 = vi_shl(vi_sra(k, 1), 23);
    vi k2 = vi_sub(vi_shl(k, 23), k1);
    const vi one = vi_of_bits(v_set1(1.0f));
    p = v_mul(p, v_of_bits(vi_add(one, k1)));
    return v_mul(p, v_of_bits(vi_add(one, k2)));
}

#define EXP_INLINE static inline __attribute__((always_inline))
#define EXP_GROUP 4 /* vectors in lockstep: AVX2's sixteen registers hold no more */

/* d[i] = exp(-d[i]) for `count` vectors (a constant) of |d| <= 86. There 2^n * P is a normal
 * number, so that n is added to the exponent of P; and the argument's sign is that of the odd
 * coefficients. Each of the steps above gives the same bits, with two clamps, a multiplication and
 * four integer operations fewer. */
EXP_INLINE void exp_near(vf d[], const size_t count)
{
    static const v_repeat magic = V_REPEAT(EXP_ROUND);
    static const v_repeat odd_even[7] = {V_REPEAT(EXP_C6),  V_REPEAT(-EXP_C5), V_REPEAT(EXP_C4),
                                         V_REPEAT(-EXP_C3), V_REPEAT(EXP_C2),  V_REPEAT(-1.0f),
                                         V_REPEAT(1.0f)};
    vf t[EXP_GROUP], p[EXP_GROUP];
    vf c = v_repeated(magic), factor = v_const(EXP_LOG2_E);
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        t[i] = v_fnma(d[i], factor, v_addend(c, magic));
        p[i] = v_sub(t[i], c);
    }
    c = v_const(EXP_LN2_HIGH);
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        d[i] = v_fma(p[i], c, d[i]);
    }
    c = v_const(EXP_LN2_LOW);
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        d[i] = v_fma(p[i], c, d[i]);
    }
    c = v_repeated(odd_even[0]);
    factor = v_repeated(odd_even[1]);
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        p[i] = v_fma(c, d[i], v_addend(factor, odd_even[1]));
    }
    T2K_UNROLL
    for (size_t term = 2; term < 7; term++) {
        c = v_repeated(odd_even[term]);
        T2K_UNROLL
        for (size_t i = 0; i < count; i++) {
            p[i] = v_fma(p[i], d[i], v_addend(c, odd_even[term]));
        }
    }
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        d[i] = v_of_bits(vi_add(vi_of_bits(p[i]), vi_shl(vi_of_bits(t[i]), 23)));
    }
}

/* Whether a lane of any d[i] is above 86 or a NaN; the bits of each have been made positive or are
 * those of a number that is not below 0. Unsigned integers put NaNs of either sign on top. */
EXP_INLINE int exp_far(const vi d[], const size_t count)
{
    vi largest = d[0];
    T2K_UNROLL
    for (size_t i = 1; i < count; i++) {
        largest = vi_max_u(largest, d[i]);
    }
    return vm_any(v_not_le(v_of_bits(largest), v_set1(86.0f)));
}

/* d[i] = exp(-d[i]) for `count` <= EXP_GROUP vectors (a constant) of d >= +0 or NaN: v_exp's bits.
 */
EXP_INLINE void v_exp_minus(vf d[], const size_t count)
{
    vi bits[EXP_GROUP];
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        bits[i] = vi_of_bits(d[i]);
    }
    if (__builtin_expect(exp_far(bits, count), 0)) {
        T2K_UNROLL
        for (size_t i = 0; i < count; i++) {
            d[i] = v_exp(v_sub(v_zero(), d[i]));
        }
        return;
    }
    exp_near(d, count);
}

/* x[i] = v_exp(x[i]) for `count` <= EXP_GROUP vectors (a constant). */
EXP_INLINE void v_exp_group(vf x[], const size_t count)
{
    vi bits[EXP_GROUP];
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        bits[i] = vi_and(vi_of_bits(x[i]), vi_set1(0x7fffffff));
    }
    if (__builtin_expect(exp_far(bits, count), 0)) {
        T2K_UNROLL
        for (size_t i = 0; i < count; i++) {
            x[i] = v_exp(x[i]);
        }
        return;
    }
    T2K_UNROLL
    for (size_t i = 0; i < count; i++) {
        x[i] = v_sub(v_zero(), x[i]);
    }
    exp_near(x, count);
}

#endif
