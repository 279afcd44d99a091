/* Elementwise kernels: each element on its own, tails masked, in place allowed. Two vectors a step
 * keep two chains of exp in flight. */
#include "tmpl/exp.h"

void T2K_FN(exp)(size_t n, const float *X, float *Y)
{
    for (; n >= 2 * VF_W; n -= 2 * VF_W, X += 2 * VF_W, Y += 2 * VF_W) {
        vf a = v_exp(v_load(X)), b = v_exp(v_load(X + VF_W));
        v_store(Y, a);
        v_store(Y + VF_W, b);
    }
    for (; n > 0; X += VF_W, Y += VF_W) {
        size_t now = n < VF_W ? n : VF_W;
        v_store_n(Y, v_exp(v_load_n(X, now)), now);
        n -= now;
    }
}

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

void T2K_FN(add)(size_t n, const float *X, const float *Z, float *Y)
{
    for (; n >= VF_W; n -= VF_W, X += VF_W, Z += VF_W, Y += VF_W) {
        v_store(Y, v_add(v_load(X), v_load(Z)));
    }
    if (n > 0) {
        v_store_n(Y, v_add(v_load_n(X, n), v_load_n(Z, n)), n);
    }
}

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
