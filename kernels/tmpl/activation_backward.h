/* Gradients of the activations, dx = dy f'(x), the same bits on every ISA (docs/numerics.md):
 *   relu       f' = 1 where not x <= 0, else 0, as a selection
 *   gelu       f' = Phi(x) + x phi(x), Phi(-t) = Q(t) as in tmpl/activation.h
 *   gelu_tanh  f' = S + x S (1 - S) y'(x), S = 1 / (1 + exp(-y)), S(-t) = Q(t),
 *              y' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2)
 *   silu       f' = s (1 + x (1 - s)), s = 1 / (1 + exp(-x)), 1 - s = exp(-x) s
 * NaN stays; at -Inf f' has its limit 0, at +Inf 1. dX may be X or dY. */
#include "tmpl/activation.h"

#define SLOPE_PHI_0 0x1.988454p-2f  /* 1 / sqrt(2 pi) */
#define SLOPE_TANH_1 0x1.988454p+0f /* 2 sqrt(2/pi) */
#define SLOPE_TANH_3 0x1.b6676cp-3f /* 6 sqrt(2/pi) * 0.044715 */
#define SLOPE_FAR 13.0f /* phi(13) = 8e-38; 13^2 / 2 is within the short way of exp_near() */

/* x[i] into [-far, far], a NaN staying one. */
ACT_INLINE vf slope_clamp(vf x, float far)
{
    return v_max(v_set1(-far), v_min(v_set1(far), x));
}

/* Phi(x) or S(x) from Q(|x|). */
ACT_INLINE vf slope_level(vf x, vf q)
{
    return v_select(v_lt(x, v_zero()), q, v_sub(v_set1(1.0f), q));
}

/* Each of the following: x[i] = f'(x[i]) for `count` <= ACT_GROUP vectors (a constant). */
ACT_INLINE void gelu_slope(vf x[], const size_t count)
{
    vf t[ACT_GROUP], q[ACT_GROUP];
    act_tail(x, t, q, count, act_gelu);
    ACT_EACH(i, count)
    {
        x[i] = slope_clamp(x[i], SLOPE_FAR);
        t[i] = v_mul(v_mul(x[i], x[i]), v_set1(0.5f));
    }
    v_exp_minus(t, count);
    ACT_EACH(i, count)
    {
        x[i] = v_fma(x[i], v_mul(v_set1(SLOPE_PHI_0), t[i]), slope_level(x[i], q[i]));
    }
}

ACT_INLINE void gelu_tanh_slope(vf x[], const size_t count)
{
    vf t[ACT_GROUP], q[ACT_GROUP];
    act_tail(x, t, q, count, act_gelu_tanh);
    ACT_EACH(i, count)
    {
        x[i] = slope_clamp(x[i], 7.0f);
        t[i] = v_fma(v_mul(x[i], x[i]), v_set1(SLOPE_TANH_3), v_set1(SLOPE_TANH_1));
        x[i] = v_fma(v_mul(x[i], t[i]), v_fnma(q[i], q[i], q[i]), slope_level(x[i], q[i]));
    }
}

ACT_INLINE void silu_slope(vf x[], const size_t count)
{
    const vf one = v_set1(1.0f);
    vf e[ACT_GROUP];
    ACT_EACH(i, count)
    {
        e[i] = v_sub(v_zero(), slope_clamp(x[i], 88.0f));
    }
    v_exp_group(e, count);
    ACT_EACH(i, count)
    {
        const vf s = v_div(one, v_add(one, e[i])), z = slope_clamp(x[i], 88.0f);
        const vf f = v_mul(s, v_fma(z, v_mul(e[i], s), one));
        x[i] = v_select(v_lt(x[i], v_set1(-88.0f)), v_zero(), f);
    }
}

#define SLOPE_STEP(name)                                                 \
    ACT_INLINE void name##_backward(vf x[], vf dy[], const size_t count) \
    {                                                                    \
        name##_slope(x, count);                                          \
        ACT_EACH(i, count)                                               \
        {                                                                \
            dy[i] = v_mul(dy[i], x[i]);                                  \
        }                                                                \
    }
SLOPE_STEP(gelu)
SLOPE_STEP(gelu_tanh)
SLOPE_STEP(silu)

ACT_INLINE void relu_backward(vf x[], vf dy[], const size_t count)
{
    ACT_EACH(i, count)
    {
        dy[i] = v_select(v_not_le(x[i], v_zero()), dy[i], v_zero());
    }
}

ACT_INLINE void none_backward(vf x[], vf dy[], const size_t count)
{
    (void)x;
    (void)dy;
    (void)count;
}

/* `count` vectors. */
#define BACKWARD_STEP(name, count)         \
    do {                                   \
        vf x[ACT_GROUP], dy[ACT_GROUP];    \
        ACT_EACH(i, count)                 \
        {                                  \
            x[i] = v_load(X + i * VF_W);   \
            dy[i] = v_load(dY + i * VF_W); \
        }                                  \
        name##_backward(x, dy, count);     \
        ACT_EACH(i, count)                 \
        {                                  \
            v_store(dX + i * VF_W, dy[i]); \
        }                                  \
        n -= (count)*VF_W;                 \
        X += (count)*VF_W;                 \
        dY += (count)*VF_W;                \
        dX += (count)*VF_W;                \
    } while (0)

/* Functions of their own, so that their frames are not added up. */
#define BACKWARD(name)                                                                    \
    static __attribute__((noinline)) void name##_backward_all(size_t n, const float *X,   \
                                                              const float *dY, float *dX) \
    {                                                                                     \
        while (n >= ACT_GROUP * VF_W) {                                                   \
            BACKWARD_STEP(name, ACT_GROUP);                                               \
        }                                                                                 \
        while (n >= VF_W) {                                                               \
            BACKWARD_STEP(name, 1);                                                       \
        }                                                                                 \
        if (n > 0) {                                                                      \
            vf x = v_load_n(X, n), dy = v_load_n(dY, n);                                  \
            name##_backward(&x, &dy, 1);                                                  \
            v_store_n(dX, dy, n);                                                         \
        }                                                                                 \
    }
BACKWARD(none)
BACKWARD(relu)
BACKWARD(gelu)
BACKWARD(gelu_tanh)
BACKWARD(silu)

void T2K_FN(activation_backward)(t2k_activation activation, size_t n, const float *X,
                                 const float *dY, float *dX)
{
    switch (activation) {
    case T2K_ACT_RELU:
        relu_backward_all(n, X, dY, dX);
        break;
    case T2K_ACT_GELU:
        gelu_backward_all(n, X, dY, dX);
        break;
    case T2K_ACT_GELU_TANH:
        gelu_tanh_backward_all(n, X, dY, dX);
        break;
    case T2K_ACT_SILU:
        silu_backward_all(n, X, dY, dX);
        break;
    default:
        none_backward_all(n, X, dY, dX);
    }
}
