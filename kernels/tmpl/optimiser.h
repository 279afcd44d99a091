/* Steps of optimisers, element by element, and what clipping needs; docs/numerics.md says which
 * products are fused. Tails are masked. */
#include "tmpl/reduce.h"

/* One vector of Adam: m += (1 - beta1) (g - m), v = beta2 v + (1 - beta2) g^2,
 * p -= step m / (sqrt(v) / root2 + eps). */
ROW_INLINE void adam_step(const t2k_adam_factors *f, size_t n, const float *G, float *M, float *V,
                          float *P)
{
    vf p = v_load_n(P, n), g = v_load_n(G, n), m = v_load_n(M, n);
    if (f->decay != 0.0f) {
        g = v_fma(v_set1(f->decay), p, g);
    }
    p = v_mul(p, v_set1(f->shrink));
    const vf d = v_sub(g, m), rest1 = v_set1(f->rest1);
    /* As PyTorch's lerp, which starts from the nearer end. */
    m = f->rest1 < 0.5f ? v_fma(rest1, d, m) : v_fnma(d, v_sub(v_set1(1.0f), rest1), g);
    const vf v = v_fma(v_mul(v_set1(f->rest2), g), g, v_mul(v_load_n(V, n), v_set1(f->beta2)));
    const vf root = v_add(v_div(v_sqrt(v), v_set1(f->root2)), v_set1(f->eps));
    v_store_n(M, m, n);
    v_store_n(V, v, n);
    v_store_n(P, v_sub(p, v_div(v_mul(v_set1(f->step), m), root)), n);
}

void T2K_FN(adam)(size_t n, const t2k_adam_factors *factors, const float *G, float *M, float *V,
                  float *P)
{
    size_t i = 0;
    for (; i + VF_W <= n; i += VF_W) {
        adam_step(factors, VF_W, G + i, M + i, V + i, P + i);
    }
    if (i < n) {
        adam_step(factors, n - i, G + i, M + i, V + i, P + i);
    }
}

/* b = momentum b + (1 - dampening) g, p -= lr b; nesterov: p -= lr (g + momentum b). */
void T2K_FN(sgd)(size_t n, const t2k_sgd_factors *f, const float *G, float *B, float *P)
{
    for (size_t i = 0; i < n; i += VF_W) {
        const size_t now = n - i < VF_W ? n - i : VF_W;
        const vf p = v_load_n(P + i, now), momentum = v_set1(f->momentum);
        vf g = v_load_n(G + i, now);
        if (f->decay != 0.0f) {
            g = v_fma(v_set1(f->decay), p, g);
        }
        if (B != NULL) {
            vf b = g;
            if (!f->first) {
                b = v_fma(v_set1(f->rest), g, v_mul(v_load_n(B + i, now), momentum));
            }
            v_store_n(B + i, b, now);
            g = f->nesterov ? v_fma(momentum, b, g) : b;
        }
        v_store_n(P + i, v_fnma(v_set1(f->lr), g, p), now);
    }
}

void T2K_FN(scale)(size_t n, const float *X, float factor, float *Y)
{
    for (size_t i = 0; i < n; i += VF_W) {
        const size_t now = n - i < VF_W ? n - i : VF_W;
        v_store_n(Y + i, v_mul(v_load_n(X + i, now), v_set1(factor)), now);
    }
}

/* sums[i] = sum of the squares of row i in double, T2K_LANES lanes and the fixed tree. */
void T2K_FN(row_squares)(size_t rows, size_t cols, const float *X, size_t ldx, double *sums)
{
    for (size_t i = 0; i < rows; i++, X += ldx) {
        vd lanes[LANE_VECTORS];
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v++) {
            lanes[v] = vd_zero();
        }
        size_t j = 0;
        for (; j + T2K_LANES <= cols; j += T2K_LANES) {
            UNROLL_LANES
            for (size_t v = 0; v < LANE_VECTORS; v++) {
                lanes[v] = vd_add_square(lanes[v], v_load(X + j + v * VF_W));
            }
        }
        for (size_t v = 0; j < cols; v++, j += VF_W) {
            const size_t n = cols - j < VF_W ? cols - j : VF_W;
            lanes[v] = vd_add_square(lanes[v], v_load_n(X + j, n));
        }
        UNROLL_LANES
        for (size_t width = LANE_VECTORS / 2; width > 0; width /= 2) {
            UNROLL_LANES
            for (size_t v = 0; v < width; v++) {
                lanes[v] = vd_add(lanes[v], lanes[v + width]);
            }
        }
        sums[i] = vd_sum_lanes(lanes[0]);
    }
}
