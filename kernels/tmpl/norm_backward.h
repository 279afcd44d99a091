/* Gradients of layer norm and RMS norm from the numbers of their rows (docs/numerics.md):
 *   z as the norm takes it, t = (z - mean) inverse + shift (fused), g = dy * weight
 *   a = sum g / n (layer norm only), b = sum g t / n, the latter by fused steps, in the order of
 *   tmpl/reduce.h;  dz = inverse * (g - a - t b), the last product fused
 *   dw_j = sum over rows of dy t by fused steps, in chunks of T2K_CHUNK_ROWS (rule 8)
 * Tails are masked. */
#include "tmpl/reduce.h"

/* One row, its numbers in every lane. */
typedef struct slope_row {
    const float *x, *scale, *residual, *weight, *dy;
    vf mean, shift, inverse;
} slope_row;

ROW_INLINE slope_row slope_row_at(size_t i, const float *X, size_t ldx, const t2k_norm_params *p,
                                  const float *stats, const float *dY, size_t lddy)
{
    return (slope_row){.x = X + i * ldx,
                       .scale = p->scale,
                       .residual = p->residual != NULL ? p->residual + i * p->ldr : NULL,
                       .weight = p->weight,
                       .dy = dY + i * lddy,
                       .mean = v_set1(stats[3 * i]),
                       .shift = v_set1(stats[3 * i + 1]),
                       .inverse = v_set1(stats[3 * i + 2])};
}

/* t of `n` (1 .. VF_W) elements from j on. */
ROW_INLINE vf slope_t(const slope_row *r, size_t j, size_t n)
{
    vf z = v_load_n(r->x + j, n);
    if (r->scale != NULL) {
        z = v_mul(z, v_load_n(r->scale + j, n));
    }
    if (r->residual != NULL) {
        z = v_add(z, v_load_n(r->residual + j, n));
    }
    return v_fma(v_sub(z, r->mean), r->inverse, r->shift);
}

ROW_INLINE vf slope_g(const slope_row *r, size_t j, size_t n)
{
    const vf g = v_load_n(r->dy + j, n);
    return r->weight != NULL ? v_mul(g, v_load_n(r->weight + j, n)) : g;
}

/* One vector of elements into its lanes; those past the end have g = 0. */
ROW_INLINE void slope_add(const slope_row *r, size_t j, size_t n, vf *sum, vf *dot)
{
    const vf g = slope_g(r, j, n);
    *sum = v_add(*sum, g);
    *dot = v_fma(g, slope_t(r, j, n), *dot);
}

static __attribute__((noinline)) void slope_sums(const slope_row *r, size_t cols, float *sum,
                                                 float *dot)
{
    vf sums[LANE_VECTORS], dots[LANE_VECTORS];
    size_t j = 0;
    lanes_start(sums);
    lanes_start(dots);
    for (; j + T2K_LANES <= cols; j += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v++) {
            slope_add(r, j + v * VF_W, VF_W, &sums[v], &dots[v]);
        }
    }
    for (size_t v = 0; j < cols; v++, j += VF_W) {
        slope_add(r, j, cols - j < VF_W ? cols - j : VF_W, &sums[v], &dots[v]);
    }
    *sum = lanes_tree(sums, LANE_VECTORS);
    *dot = lanes_tree(dots, LANE_VECTORS);
}

void T2K_FN(norm_backward)(size_t rows, size_t cols, const float *X, size_t ldx,
                           const t2k_norm_params *params, const float *stats, int centered,
                           const float *dY, size_t lddy, float *dX, size_t lddx)
{
    const float count = (float)cols;
    for (size_t i = 0; i < rows; i++, dX += lddx) {
        const slope_row r = slope_row_at(i, X, ldx, params, stats, dY, lddy);
        float sum, dot;
        slope_sums(&r, cols, &sum, &dot);
        const vf a = v_set1(centered ? sum / count : 0.0f), b = v_set1(dot / count);
        for (size_t j = 0; j < cols; j += VF_W) {
            const size_t n = cols - j < VF_W ? cols - j : VF_W;
            const vf d = v_fnma(slope_t(&r, j, n), b, v_sub(slope_g(&r, j, n), a));
            v_store_n(dX + j, v_mul(r.inverse, d), n);
        }
    }
}

#define SLOPE_COLUMNS 4 /* vectors side by side */

/* dw of `count` vectors of columns from j on, the last of `n` lanes; count is a constant. */
ROW_INLINE void slope_columns(const size_t count, size_t j, size_t n, size_t rows, const float *X,
                              size_t ldx, const t2k_norm_params *p, const float *stats,
                              const float *dY, size_t lddy, int accumulate, float *dweight)
{
    for (size_t i = 0; i < rows; i += T2K_CHUNK_ROWS) {
        const size_t end = rows - i < T2K_CHUNK_ROWS ? rows : i + T2K_CHUNK_ROWS;
        vf sum[SLOPE_COLUMNS];
        UNROLL_LANES
        for (size_t v = 0; v < count; v++) {
            sum[v] = v_zero();
        }
        for (size_t k = i; k < end; k++) {
            const slope_row r = slope_row_at(k, X, ldx, p, stats, dY, lddy);
            UNROLL_LANES
            for (size_t v = 0; v < count; v++) {
                const size_t at = j + v * VF_W;
                sum[v] = v_fma(v_load_n(r.dy + at, n), slope_t(&r, at, n), sum[v]);
            }
        }
        UNROLL_LANES
        for (size_t v = 0; v < count; v++) {
            float *to = dweight + j + v * VF_W;
            if (accumulate || i > 0) {
                sum[v] = v_add(v_load_n(to, n), sum[v]);
            }
            v_store_n(to, sum[v], n);
        }
    }
}

void T2K_FN(norm_columns)(size_t rows, size_t cols, const float *X, size_t ldx,
                          const t2k_norm_params *params, const float *stats, const float *dY,
                          size_t lddy, int accumulate, float *dweight)
{
    size_t j = 0;
    if (rows == 0 && !accumulate) {
        for (; j < cols; j++) {
            dweight[j] = 0.0f;
        }
        return;
    }
    for (; j + SLOPE_COLUMNS * VF_W <= cols; j += SLOPE_COLUMNS * VF_W) {
        slope_columns(SLOPE_COLUMNS, j, VF_W, rows, X, ldx, params, stats, dY, lddy, accumulate,
                      dweight);
    }
    for (; j < cols; j += VF_W) {
        slope_columns(1, j, cols - j < VF_W ? cols - j : VF_W, rows, X, ldx, params, stats, dY,
                      lddy, accumulate, dweight);
    }
}
