/* Layer norm of rows, each step rounded once:
 *   z = x * scale + residual (two roundings; either may be absent)
 *   m0 = sum z / n;  d = z - m0;  c = sum d / n
 *   var = sum d^2 / n - c^2 (sum d^2 by fused steps, - c^2 fused), no less than 0
 *   t = ((z - m0) - c) * (1 / sqrt(var + eps));  y = t * weight + bias (fused where both exist)
 * n is cols rounded to float (exact up to 2^24). Sums in the order of tmpl/reduce.h. The
 * correction c keeps the error near one unit even where the mean is 1e4 deviations (plain
 * two-pass variance: 1e-3). Y may be X or residual: z is kept in Y between the passes.
 *
 * Rows go in blocks that fit into the first cache, phase by phase, so that the latencies of their
 * reductions overlap and their divisions and square roots are done VF_W rows at a time. Rows of
 * up to SMALL_VECTORS vectors have loops of their own without those vectors that would be +0.
 * Tails are masked. */
#include "tmpl/reduce.h"

#define SMALL_VECTORS 4
#define BLOCK_ROWS 16     /* a multiple of VF_W */
#define BLOCK_FLOATS 4096 /* of a block of rows: 16 KB of the first cache */

/* The numbers of the rows of a block, one row a lane. */
typedef struct block_stats {
    float sum[BLOCK_ROWS];     /* of z, then of d */
    float squares[BLOCK_ROWS]; /* sum of d^2 */
    float mean[BLOCK_ROWS];    /* m0 */
    float shift[BLOCK_ROWS];   /* c */
    float inverse[BLOCK_ROWS]; /* 1 / sqrt(var + eps) */
} block_stats;

/* z of `n` (1 .. VF_W) elements from j on. */
ROW_INLINE vf load_z(size_t j, size_t n, const float *x, const float *scale, const float *residual)
{
    vf z = n == VF_W ? v_load(x + j) : v_load_n(x + j, n);
    if (scale != NULL) {
        z = v_mul(z, n == VF_W ? v_load(scale + j) : v_load_n(scale + j, n));
    }
    if (residual != NULL) {
        z = v_add(z, n == VF_W ? v_load(residual + j) : v_load_n(residual + j, n));
    }
    return z;
}

/* Writes z to y and returns its sum; scale and residual are NULL or not as constants. */
ROW_INLINE float mixed_sum(size_t n, const float *x, const float *scale, const float *residual,
                           float *y)
{
    vf lanes[LANE_VECTORS];
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        lanes[v] = v_zero();
    }
    size_t j = 0;
    for (; j + T2K_LANES <= n; j += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v++) {
            vf z = load_z(j + v * VF_W, VF_W, x, scale, residual);
            v_store(y + j + v * VF_W, z);
            lanes[v] = v_add(lanes[v], z);
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        if (j + VF_W > n) {
            if (j < n) {
                vf z = load_z(j, n - j, x, scale, residual); /* lanes past the end: +0 */
                v_store_n(y + j, z, n - j);
                lanes[v] = v_add(lanes[v], z);
            }
            break;
        }
        vf z = load_z(j, VF_W, x, scale, residual);
        v_store(y + j, z);
        lanes[v] = v_add(lanes[v], z);
        j += VF_W;
    }
    return lanes_tree(lanes, LANE_VECTORS);
}

static float row_sum(size_t n, const float *x, const float *scale, const float *residual, float *y)
{
    if (scale != NULL && residual != NULL) {
        return mixed_sum(n, x, scale, residual, y);
    }
    if (scale != NULL) {
        return mixed_sum(n, x, scale, NULL, y);
    }
    if (residual != NULL) {
        return mixed_sum(n, x, NULL, residual, y);
    }
    vf lanes[LANE_VECTORS];
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        lanes[v] = v_zero();
    }
    lanes_add(lanes, n, x);
    return lanes_tree(lanes, LANE_VECTORS);
}

/* Sums of d and of d^2 into the lanes of one sweep; x and n count from its first lane. */
ROW_INLINE void sweep_deviations(size_t n, const float *x, vf mean, vf sum[LANE_SWEEP],
                                 vf squares[LANE_SWEEP])
{
    for (; n >= T2K_LANES; n -= T2K_LANES, x += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_SWEEP; v++) {
            vf d = v_sub(v_load(x + v * VF_W), mean);
            sum[v] = v_add(sum[v], d);
            squares[v] = v_fma(d, d, squares[v]);
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_SWEEP; v++) {
        if (n == 0) {
            break;
        }
        size_t now = n < VF_W ? n : VF_W;
        vf d = v_sub(v_load_n(x + v * VF_W, now), mean);
        d = v_select(vm_first(now), d, v_zero());
        sum[v] = v_add(sum[v], d);
        squares[v] = v_fma(d, d, squares[v]);
        n -= now;
    }
}

static void row_deviations(size_t n, const float *x, float mean, float *sum, float *squares)
{
    vf s[LANE_VECTORS], q[LANE_VECTORS];
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        s[v] = q[v] = v_zero();
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v += LANE_SWEEP) {
        if (v * VF_W < n) {
            sweep_deviations(n - v * VF_W, x + v * VF_W, v_set1(mean), s + v, q + v);
        }
    }
    *sum = lanes_tree(s, LANE_VECTORS);
    *squares = lanes_tree(q, LANE_VECTORS);
}

/* The numbers of one row, each in every lane. */
typedef struct row_stats {
    vf mean, shift, inverse;
} row_stats;

/* y of `n` (1 .. VF_W) elements from j on. */
ROW_INLINE vf load_normal(size_t j, size_t n, const float *x, row_stats r, const float *weight,
                          const float *bias)
{
    vf t = n == VF_W ? v_load(x + j) : v_load_n(x + j, n);
    t = v_mul(v_sub(v_sub(t, r.mean), r.shift), r.inverse);
    vf w = v_zero(), b = v_zero();
    if (weight != NULL) {
        w = n == VF_W ? v_load(weight + j) : v_load_n(weight + j, n);
    }
    if (bias != NULL) {
        b = n == VF_W ? v_load(bias + j) : v_load_n(bias + j, n);
    }
    if (weight != NULL && bias != NULL) {
        return v_fma(t, w, b);
    }
    return weight != NULL ? v_mul(t, w) : bias != NULL ? v_add(t, b) : t;
}

/* Output of one row; weight and bias are NULL or not as constants. */
ROW_INLINE void normalize(size_t n, const float *x, const block_stats *b, size_t row,
                          const float *weight, const float *bias, float *y)
{
    const row_stats r = {v_set1(b->mean[row]), v_set1(b->shift[row]), v_set1(b->inverse[row])};
    size_t j = 0;
    for (; j + 2 * VF_W <= n; j += 2 * VF_W) {
        vf first = load_normal(j, VF_W, x, r, weight, bias);
        vf second = load_normal(j + VF_W, VF_W, x, r, weight, bias);
        v_store(y + j, first);
        v_store(y + j + VF_W, second);
    }
    for (; j < n; j += VF_W) {
        const size_t now = n - j < VF_W ? n - j : VF_W;
        v_store_n(y + j, load_normal(j, now, x, r, weight, bias), now);
    }
}

static void row_normalize(size_t n, const float *x, const block_stats *b, size_t row,
                          const float *weight, const float *bias, float *y)
{
    if (weight != NULL && bias != NULL) {
        normalize(n, x, b, row, weight, bias, y);
    } else if (weight != NULL) {
        normalize(n, x, b, row, weight, NULL, y);
    } else if (bias != NULL) {
        normalize(n, x, b, row, NULL, bias, y);
    } else {
        normalize(n, x, b, row, NULL, NULL, y);
    }
}

/* b->mean from b->sum, VF_W rows at a time. */
static void finish_mean(size_t rows, size_t cols, block_stats *b)
{
    const vf n = v_set1((float)cols);
    for (size_t i = 0; i < rows; i += VF_W) {
        v_store(b->mean + i, v_div(v_load(b->sum + i), n));
    }
}

/* b->shift and b->inverse from the sums of d and of its squares. */
static void finish_deviation(size_t rows, size_t cols, float eps, block_stats *b)
{
    const vf n = v_set1((float)cols);
    for (size_t i = 0; i < rows; i += VF_W) {
        vf c = v_div(v_load(b->sum + i), n);
        vf var = v_fnma(c, c, v_div(v_load(b->squares + i), n));
        var = v_max(v_zero(), var); /* NaN stays */
        v_store(b->shift + i, c);
        v_store(b->inverse + i, v_div(v_set1(1.0f), v_sqrt(v_add(var, v_set1(eps)))));
    }
}

static void block_rows(size_t rows, size_t cols, const float *X, size_t ldx,
                       const t2k_norm_params *p, const float *residual, float *Y, size_t ldy)
{
    block_stats b = {{0}, {0}, {0}, {0}, {0}};
    for (size_t i = 0; i < rows; i++) {
        const float *r = residual != NULL ? residual + i * p->ldr : NULL;
        b.sum[i] = row_sum(cols, X + i * ldx, p->scale, r, Y + i * ldy);
    }
    finish_mean(rows, cols, &b);
    const int mixed = p->scale != NULL || residual != NULL;
    const float *Z = mixed ? Y : X;
    const size_t ldz = mixed ? ldy : ldx;
    for (size_t i = 0; i < rows; i++) {
        row_deviations(cols, Z + i * ldz, b.mean[i], &b.sum[i], &b.squares[i]);
    }
    finish_deviation(rows, cols, p->eps, &b);
    for (size_t i = 0; i < rows; i++) {
        row_normalize(cols, Z + i * ldz, &b, i, p->weight, p->bias, Y + i * ldy);
    }
}

/* The same for (vectors - 1) * VF_W < cols <= vectors * VF_W; vectors is a constant. */
ROW_INLINE void small_rows(size_t vectors, size_t rows, size_t cols, const float *X, size_t ldx,
                           const t2k_norm_params *p, const float *residual, float *Y, size_t ldy)
{
    const size_t last = (vectors - 1) * VF_W, tail = cols - last;
    const vm in = vm_first(tail);
    const int mixed = p->scale != NULL || residual != NULL;
    block_stats b = {{0}, {0}, {0}, {0}, {0}};
    vf s[SMALL_VECTORS], q[SMALL_VECTORS];
    for (size_t i = 0; i < rows; i++) {
        const float *x = X + i * ldx, *r = residual != NULL ? residual + i * p->ldr : NULL;
        UNROLL_LANES
        for (size_t v = 0; v < vectors; v++) {
            const size_t n = v * VF_W < last ? VF_W : tail;
            vf z = load_z(v * VF_W, n, x, p->scale, r);
            if (mixed) {
                v_store_n(Y + i * ldy + v * VF_W, z, n);
            }
            s[v] = v_add(v_zero(), z); /* never -0 */
        }
        b.sum[i] = lanes_tree(s, vectors);
    }
    finish_mean(rows, cols, &b);
    const float *Z = mixed ? Y : X;
    const size_t ldz = mixed ? ldy : ldx;
    for (size_t i = 0; i < rows; i++) {
        UNROLL_LANES
        for (size_t v = 0; v < vectors; v++) {
            const size_t n = v * VF_W < last ? VF_W : tail;
            vf d = v_sub(v_load_n(Z + i * ldz + v * VF_W, n), v_set1(b.mean[i]));
            d = v * VF_W < last ? d : v_select(in, d, v_zero());
            s[v] = v_add(v_zero(), d);
            q[v] = v_mul(d, d);
        }
        b.sum[i] = lanes_tree(s, vectors);
        b.squares[i] = lanes_tree(q, vectors);
    }
    finish_deviation(rows, cols, p->eps, &b);
    for (size_t i = 0; i < rows; i++) {
        row_normalize(cols, Z + i * ldz, &b, i, p->weight, p->bias, Y + i * ldy);
    }
}

void T2K_FN(layer_norm)(size_t rows, size_t cols, const float *X, size_t ldx,
                        const t2k_norm_params *params, float *Y, size_t ldy)
{
    if (cols == 0) {
        return;
    }
    size_t fit = BLOCK_FLOATS / cols;
    size_t block = fit < 1 ? 1 : fit < BLOCK_ROWS ? fit : BLOCK_ROWS;
    for (size_t i = 0; i < rows; i += block) {
        const size_t now = rows - i < block ? rows - i : block;
        const float *r = params->residual != NULL ? params->residual + i * params->ldr : NULL;
        const float *x = X + i * ldx;
        float *y = Y + i * ldy;
        if (cols > SMALL_VECTORS * VF_W) {
            block_rows(now, cols, x, ldx, params, r, y, ldy);
        } else if (cols > 3 * VF_W) {
            small_rows(4, now, cols, x, ldx, params, r, y, ldy);
        } else if (cols > 2 * VF_W) {
            small_rows(3, now, cols, x, ldx, params, r, y, ldy);
        } else if (cols > VF_W) {
            small_rows(2, now, cols, x, ldx, params, r, y, ldy);
        } else {
            small_rows(1, now, cols, x, ldx, params, r, y, ldy);
        }
    }
}
