/* Elementwise kernels: each element on its own, in place allowed, tails masked. What computes goes
 * in groups of vectors in lockstep, which hides the latency of its chain. */
#include "tmpl/activation.h"
#include "tmpl/log.h"

#define GROUP 4
#define STEP_INLINE static inline __attribute__((always_inline))

/* Y = v_##name(X) of `count` vectors (a constant). */
#define STEP(name)                                                             \
    STEP_INLINE void name##_step(const float *X, float *Y, const size_t count) \
    {                                                                          \
        vf v[GROUP];                                                           \
        ACT_EACH(i, count)                                                     \
        {                                                                      \
            v[i] = v_load(X + i * VF_W);                                       \
        }                                                                      \
        v_##name##_group(v, count);                                            \
        ACT_EACH(i, count)                                                     \
        {                                                                      \
            v_store(Y + i * VF_W, v[i]);                                       \
        }                                                                      \
    }

/* v[i] = log v[i]: its chains run side by side, since nothing in them branches. */
ACT_INLINE void v_log_group(vf v[], const size_t count)
{
    ACT_EACH(i, count)
    {
        v[i] = v_log(v[i]);
    }
}

STEP(exp)
STEP(log)
STEP(gelu)
STEP(gelu_tanh)

/* v_silu's bits. X is read again for the division: kept, it would be spilled. */
STEP_INLINE void silu_step(const float *X, float *Y, const size_t count)
{
    vf e[GROUP];
    vi bits[GROUP];
    ACT_EACH(i, count)
    {
        e[i] = v_load(X + i * VF_W);
        bits[i] = vi_and(vi_of_bits(e[i]), vi_set1(0x7fffffff));
    }
    if (__builtin_expect(exp_far(bits, count), 0)) {
        ACT_EACH(i, count)
        {
            v_store(Y + i * VF_W, v_silu(v_load(X + i * VF_W)));
        }
        return;
    }
    exp_near(e, count);
    ACT_EACH(i, count)
    {
        v_store(Y + i * VF_W, v_div(v_load(X + i * VF_W), v_add(v_set1(1.0f), e[i])));
    }
}

#define UNARY(name)                                                                          \
    void T2K_FN(name)(size_t n, const float *X, float *Y)                                    \
    {                                                                                        \
        for (; n >= GROUP * VF_W; n -= GROUP * VF_W, X += GROUP * VF_W, Y += GROUP * VF_W) { \
            name##_step(X, Y, GROUP);                                                        \
        }                                                                                    \
        for (; n >= VF_W; n -= VF_W, X += VF_W, Y += VF_W) {                                 \
            name##_step(X, Y, 1);                                                            \
        }                                                                                    \
        if (n > 0) {                                                                         \
            v_store_n(Y, v_##name(v_load_n(X, n)), n);                                       \
        }                                                                                    \
    }

UNARY(exp)
UNARY(log)
UNARY(gelu)
UNARY(gelu_tanh)
UNARY(silu)

/* 0 > x ? 0 : x, which keeps -0 and NaN. */
void T2K_FN(relu)(size_t n, const float *X, float *Y)
{
    for (; n >= VF_W; n -= VF_W, X += VF_W, Y += VF_W) {
        v_store(Y, v_max(v_zero(), v_load(X)));
    }
    if (n > 0) {
        v_store_n(Y, v_max(v_zero(), v_load_n(X, n)), n);
    }
}

#define BINARY(name)                                                      \
    void T2K_FN(name)(size_t n, const float *X, const float *Z, float *Y) \
    {                                                                     \
        for (; n >= VF_W; n -= VF_W, X += VF_W, Z += VF_W, Y += VF_W) {   \
            v_store(Y, v_##name(v_load(X), v_load(Z)));                   \
        }                                                                 \
        if (n > 0) {                                                      \
            v_store_n(Y, v_##name(v_load_n(X, n), v_load_n(Z, n)), n);    \
        }                                                                 \
    }

BINARY(add)
BINARY(mul)

void T2K_FN(scale_columns)(size_t rows, size_t cols, const float *X, size_t ldx, const float *scale,
                           float *Y, size_t ldy)
{
    for (size_t i = 0; i < rows; i++, X += ldx, Y += ldy) {
        size_t j = 0;
        for (; j + VF_W <= cols; j += VF_W) {
            v_store(Y + j, v_mul(v_load(X + j), v_load(scale + j)));
        }
        if (j < cols) {
            const size_t n = cols - j;
            v_store_n(Y + j, v_mul(v_load_n(X + j, n), v_load_n(scale + j, n)), n);
        }
    }
}
