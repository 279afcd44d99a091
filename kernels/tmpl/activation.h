/* GELU and SiLU, inline, the same bits on every ISA. Included after a simd_<isa>.h.
 *
 * GELU is x Phi(x) = relu(x) - t Q(t), t = |x|, with Q(t) = Phi(-t) or, by tanh,
 * 1 / (1 + exp(y(t))): no 1 + erf(x) or 1 + tanh(x), whose sum cancels for x < 0. Q is a polynomial
 * of degree 7 in h = t - n per interval n - 1/2 <= t <= n + 1/2, a permutation per coefficient:
 * minimax for t |error| (7.8e-9 by erf, 6.3e-9 by tanh), rounded one by one from the lowest term
 * up, each time fitting the rest again. From 6.5 on Q is 0. Of a vector's operations, 18 share
 * Zen 4's three ports of multiplication and permutation: at least 6 cycles for 8 lanes, 12 for 16.
 * 2^P(t) would need 20 multiplications on two of those ports.
 *
 * SiLU is x / (1 + exp(-x)): nothing cancels there.
 *
 * Special cases of all three: NaN and +Inf stay, -Inf gives -0 as every x does whose result has
 * vanished, +-0 and denormals are halved. The errors are in docs/numerics.md. */
#ifndef T2K_TMPL_ACTIVATION_H
#define T2K_TMPL_ACTIVATION_H

#include "tmpl/exp.h"

#define ACT_INLINE static inline __attribute__((always_inline))
#define ACT_GROUP 4 /* vectors in lockstep: a step's latency is that of the others */
#define ACT_TERMS 8
#define ACT_EACH(i, count) \
    T2K_UNROLL             \
    for (size_t i = 0; i < (count); i++)

/* One row per coefficient, highest power of h first; one column per n = 0 .. 7. */
typedef const float act_table[ACT_TERMS][8];

/* Phi(-t). */
static _Alignas(32) act_table act_gelu = {
    {0x1.d826f2p-11f, -0x1.7fc19p-11f, 0x1.9fb7bcp-14f, 0x1.6a34f6p-14f, -0x1.a1c678p-16f,
     -0x1.39c7d8p-19f, -0x1.626eaap-25f, 0.0f},
    {0x1.569e8ep-12f, 0x1.00b7cap-9f, -0x1.52d41ap-10f, 0x1.7707f6p-14f, 0x1.61da68p-14f,
     0x1.2e12ap-18f, 0x1.fe612p-25f, 0.0f},
    {-0x1.4c402p-7f, 0x1.080b24p-8f, 0x1.274aecp-9f, -0x1.2272dap-10f, -0x1.7d90c8p-13f,
     -0x1.8b6802p-18f, -0x1.cbd778p-25f, 0.0f},
    {0x1.78584cp-15f, -0x1.4a3ae4p-6f, 0x1.26458ep-8f, 0x1.b41a7p-9f, 0x1.2fc21p-12f,
     0x1.c4454p-18f, 0x1.9f15a8p-25f, 0.0f},
    {0x1.105164p-4f, 0x1.3e93f2p-28f, -0x1.ba4c3p-6f, -0x1.83434cp-8f, -0x1.5ecfeap-12f,
     -0x1.8f386ep-18f, -0x1.314848p-25f, 0.0f},
    {0x1.ec0f3ap-22f, 0x1.ef8dfp-4f, 0x1.ba4c3ep-5f, 0x1.b3a858p-8f, 0x1.18ad3ap-12f,
     0x1.f35d2ep-19f, 0x1.3ab7cp-26f, 0.0f},
    {-0x1.988454p-2f, -0x1.ef8e58p-3f, -0x1.ba4b42p-5f, -0x1.22720ep-8f, -0x1.18a9c4p-13f,
     -0x1.8f1448p-20f, -0x1.a1652p-28f, 0.0f},
    {0x1.0p-1f, 0x1.44ed0cp-3f, 0x1.74bcf4p-6f, 0x1.61de36p-10f, 0x1.09ad4p-15f, 0x1.33c21cp-22f,
     0x1.0efe4ep-30f, 0.0f},
};

/* 1 / (1 + exp(2 sqrt(2/pi) (t + 0.044715 t^3))). */
static _Alignas(32) act_table act_gelu_tanh = {
    {0x1.f046cp-11f, -0x1.a85438p-11f, 0x1.06c656p-13f, 0x1.6c6a5ep-14f, -0x1.b30ed2p-16f,
     -0x1.3c3d66p-19f, -0x1.8f5944p-27f, 0.0f},
    {0x1.62945p-12f, 0x1.f54b36p-10f, -0x1.3b5174p-10f, 0x1.89d654p-15f, 0x1.89202ep-14f,
     0x1.f65ab8p-19f, 0x1.95aee4p-27f, 0.0f},
    {-0x1.53e85cp-7f, 0x1.18d6cap-8f, 0x1.138e8ep-9f, -0x1.1492aap-10f, -0x1.9cd0ccp-13f,
     -0x1.eaa28cp-19f, -0x1.62327cp-28f, 0.0f},
    {0x1.845032p-15f, -0x1.47bb62p-6f, 0x1.195c82p-8f, 0x1.bddb1ep-9f, 0x1.2decf2p-12f,
     0x1.b0e22cp-19f, 0x1.9490d6p-29f, 0.0f},
    {0x1.11aa4ap-4f, -0x1.af2dd6p-12f, -0x1.b3ed74p-6f, -0x1.906e8ap-8f, -0x1.3686cp-12f,
     -0x1.2ae5c4p-19f, -0x1.e873b6p-30f, 0.0f},
    {0x1.f5152p-22f, 0x1.ee60cep-4f, 0x1.bbc12p-5f, 0x1.b8295ep-8f, 0x1.b0a85ep-13f,
     0x1.1cf678p-20f, 0x1.57e6d6p-31f, 0.0f},
    {-0x1.988454p-2f, -0x1.ef2634p-3f, -0x1.bda57ep-5f, -0x1.178beap-8f, -0x1.71d19ap-14f,
     -0x1.55ddaep-22f, -0x1.1d0996p-33f, 0.0f},
    {0x1.0p-1f, 0x1.453d22p-3f, 0x1.73ef86p-6f, 0x1.3dd726p-10f, 0x1.26a1cap-16f, 0x1.896d56p-25f,
     0x1.e51caap-37f, 0.0f},
};

/* t[i] = min(|x[i]|, 7), 7 for a NaN, and q[i] = Q(t[i]) for `count` <= ACT_GROUP vectors (a
 * constant). */
ACT_INLINE void act_tail(const vf x[], vf t[], vf q[], const size_t count, act_table table)
{
    const vf magic = v_set1(EXP_ROUND);
    vf h[ACT_GROUP];
    vi index[ACT_GROUP];
    ACT_EACH(i, count)
    {
        t[i] = v_min(v_abs(x[i]), v_set1(7.0f));
    }
    ACT_EACH(i, count)
    {
        h[i] = v_add(t[i], magic);
    }
    ACT_EACH(i, count)
    {
        index[i] = vt_index(vi_of_bits(h[i]));
        h[i] = v_sub(h[i], magic);
    }
    ACT_EACH(i, count)
    {
        h[i] = v_sub(t[i], h[i]);
    }
    ACT_EACH(i, count)
    {
        q[i] = v_pick(vt_load(table[0]), index[i]);
    }
    T2K_UNROLL
    for (size_t term = 1; term < ACT_TERMS; term++) {
        ACT_EACH(i, count)
        {
            q[i] = v_fma(q[i], h[i], v_pick(vt_load(table[term]), index[i]));
        }
    }
}

/* x[i] = relu(x[i]) - t Q(t) for `count` <= ACT_GROUP vectors (a constant). */
ACT_INLINE void act_gate(vf x[], const size_t count, act_table table)
{
    vf t[ACT_GROUP], q[ACT_GROUP];
    act_tail(x, t, q, count, table);
    /* relu of a negative number is -0 here, so that a vanishing result keeps its sign; a NaN, which
     * t has lost, comes in again. */
    ACT_EACH(i, count)
    {
        x[i] = v_fnma(t[i], q[i], v_max(v_set1(-0.0f), x[i]));
    }
}

ACT_INLINE void v_gelu_group(vf x[], const size_t count)
{
    act_gate(x, count, act_gelu);
}

ACT_INLINE vf v_gelu(vf x)
{
    act_gate(&x, 1, act_gelu);
    return x;
}

ACT_INLINE void v_gelu_tanh_group(vf x[], const size_t count)
{
    act_gate(x, count, act_gelu_tanh);
}

ACT_INLINE vf v_gelu_tanh(vf x)
{
    act_gate(&x, 1, act_gelu_tanh);
    return x;
}

/* exp(-x) is infinite below -88.73: the bound only keeps -Inf from being divided by it. */
ACT_INLINE vf v_silu(vf x)
{
    vf e = v_exp(v_sub(v_zero(), x));
    return v_div(v_max(v_set1(-89.0f), x), v_add(v_set1(1.0f), e));
}

#endif
