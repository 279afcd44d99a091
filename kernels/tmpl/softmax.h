/* Softmax of rows: e = exp(x - max), y = e * (1 / sum e). X, Y (rows, cols), may be the same.
 *
 * max ignores NaN and is made +0 where it is a zero; sum in the order of tmpl/reduce.h. A NaN, a
 * maximum of +Inf and one of -Inf all end in a sum that is NaN, which is the only test: such a row
 * becomes the canonical NaN. Otherwise 1 <= sum.
 *
 * The sum is a pass of its own: eight accumulators and the constants of exp together do not fit
 * into sixteen registers. Rows up to SMALL_VECTORS vectors stay in registers; longer ones go in
 * blocks of rows, phase by phase, so that the latencies of their reductions and divisions overlap.
 * Tails are masked. */
#include "tmpl/exp.h"
#include "tmpl/reduce.h"

#include <math.h>

#define SMALL_VECTORS 4
#define BLOCK_ROWS 16
#define BLOCK_FLOATS 2048 /* of a block of rows: with its results 16 KB of the first cache */
#define CHUNK 1024        /* of a longer row between exp and sum; a multiple of T2K_LANES */

static float row_max(size_t n, const float *x)
{
    const vf lowest = v_set1(-INFINITY);
    vf m0 = lowest, m1 = lowest, m2 = lowest, m3 = lowest;
    for (; n >= 4 * VF_W; n -= 4 * VF_W, x += 4 * VF_W) {
        m0 = v_max(v_load(x), m0);
        m1 = v_max(v_load(x + VF_W), m1);
        m2 = v_max(v_load(x + 2 * VF_W), m2);
        m3 = v_max(v_load(x + 3 * VF_W), m3);
    }
    for (; n >= VF_W; n -= VF_W, x += VF_W) {
        m0 = v_max(v_load(x), m0);
    }
    if (n > 0) {
        m1 = v_max(v_select(vm_first(n), v_load_n(x, n), lowest), m1);
    }
    return v_max_lanes(v_max(v_max(m0, m1), v_max(m2, m3))) + 0.0f;
}

static void row_exp(size_t n, const float *x, float max, float *y)
{
    const vf m = v_set1(max);
    for (; n >= 2 * VF_W; n -= 2 * VF_W, x += 2 * VF_W, y += 2 * VF_W) {
        vf a = v_exp(v_sub(v_load(x), m));
        vf b = v_exp(v_sub(v_load(x + VF_W), m));
        v_store(y, a);
        v_store(y + VF_W, b);
    }
    for (; n > 0; x += VF_W, y += VF_W) {
        size_t now = n < VF_W ? n : VF_W;
        v_store_n(y, v_exp(v_sub(v_load_n(x, now), m)), now);
        n -= now;
    }
}

static void row_nan(size_t n, float *y)
{
    for (size_t j = 0; j < n; j++) {
        y[j] = NAN;
    }
}

static void row_scale(size_t n, float *y, float sum)
{
    if (sum != sum) {
        row_nan(n, y);
        return;
    }
    const vf inverse = v_set1(1.0f / sum);
    for (; n >= 2 * VF_W; n -= 2 * VF_W, y += 2 * VF_W) {
        vf a = v_mul(v_load(y), inverse), b = v_mul(v_load(y + VF_W), inverse);
        v_store(y, a);
        v_store(y + VF_W, b);
    }
    for (; n > 0; y += VF_W) {
        size_t now = n < VF_W ? n : VF_W;
        v_store_n(y, v_mul(v_load_n(y, now), inverse), now);
        n -= now;
    }
}

static float row_sum(size_t n, const float *x)
{
    vf lanes[LANE_VECTORS];
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        lanes[v] = v_zero();
    }
    lanes_add(lanes, n, x);
    return lanes_tree(lanes, LANE_VECTORS);
}

static void long_row(size_t n, const float *x, float *y)
{
    float max = row_max(n, x);
    vf lanes[LANE_VECTORS];
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        lanes[v] = v_zero();
    }
    for (size_t j = 0; j < n; j += CHUNK) {
        size_t now = n - j < CHUNK ? n - j : CHUNK;
        row_exp(now, x + j, max, y + j);
        lanes_add(lanes, now, y + j);
    }
    row_scale(n, y, lanes_tree(lanes, LANE_VECTORS));
}

/* Rows of (vectors - 1) * VF_W < cols <= vectors * VF_W elements; vectors is a constant. */
ROW_INLINE void small_rows(size_t vectors, size_t rows, size_t cols, const float *X, size_t ldx,
                           float *Y, size_t ldy)
{
    const size_t tail = cols - (vectors - 1) * VF_W;
    const vm in = vm_first(tail);
    for (size_t i = 0; i < rows; i++, X += ldx, Y += ldy) {
        vf e[SMALL_VECTORS];
        UNROLL_LANES
        for (size_t v = 0; v + 1 < vectors; v++) {
            e[v] = v_load(X + v * VF_W);
        }
        e[vectors - 1] = v_select(in, v_load_n(X + (vectors - 1) * VF_W, tail), v_set1(-INFINITY));
        vf max = v_max(e[0], v_set1(-INFINITY));
        UNROLL_LANES
        for (size_t v = 1; v < vectors; v++) {
            max = v_max(e[v], max);
        }
        const vf m = v_set1(v_max_lanes(max) + 0.0f);
        /* Lanes past the end must not underflow: that costs tens of cycles. */
        e[vectors - 1] = v_select(in, e[vectors - 1], m);
        UNROLL_LANES
        for (size_t v = 0; v < vectors; v++) {
            e[v] = v_exp(v_sub(e[v], m));
        }
        e[vectors - 1] = v_select(in, e[vectors - 1], v_zero());
        vf lanes[SMALL_VECTORS];
        UNROLL_LANES
        for (size_t v = 0; v < vectors; v++) {
            lanes[v] = e[v];
        }
        const float sum = lanes_tree(lanes, vectors);
        if (sum != sum) {
            row_nan(cols, Y);
            continue;
        }
        const vf inverse = v_set1(1.0f / sum);
        UNROLL_LANES
        for (size_t v = 0; v + 1 < vectors; v++) {
            v_store(Y + v * VF_W, v_mul(e[v], inverse));
        }
        v_store_n(Y + (vectors - 1) * VF_W, v_mul(e[vectors - 1], inverse), tail);
    }
}

static void block_rows(size_t rows, size_t cols, const float *X, size_t ldx, float *Y, size_t ldy)
{
    float stat[BLOCK_ROWS];
    for (size_t i = 0; i < rows; i++) {
        stat[i] = row_max(cols, X + i * ldx);
    }
    for (size_t i = 0; i < rows; i++) {
        row_exp(cols, X + i * ldx, stat[i], Y + i * ldy);
    }
    for (size_t i = 0; i < rows; i++) {
        stat[i] = row_sum(cols, Y + i * ldy);
    }
    for (size_t i = 0; i < rows; i++) {
        row_scale(cols, Y + i * ldy, stat[i]);
    }
}

void T2K_FN(softmax)(size_t rows, size_t cols, const float *X, size_t ldx, float *Y, size_t ldy)
{
    if (cols == 0) {
        return;
    }
    if (cols <= SMALL_VECTORS * VF_W) {
        switch ((cols + VF_W - 1) / VF_W) {
        case 1:
            small_rows(1, rows, cols, X, ldx, Y, ldy);
            return;
        case 2:
            small_rows(2, rows, cols, X, ldx, Y, ldy);
            return;
        case 3:
            small_rows(3, rows, cols, X, ldx, Y, ldy);
            return;
        default:
            small_rows(4, rows, cols, X, ldx, Y, ldy);
            return;
        }
    }
    if (cols > BLOCK_FLOATS) {
        for (size_t i = 0; i < rows; i++) {
            long_row(cols, X + i * ldx, Y + i * ldy);
        }
        return;
    }
    size_t fit = BLOCK_FLOATS / cols;
    size_t block = fit < BLOCK_ROWS ? fit : BLOCK_ROWS;
    for (size_t i = 0; i < rows; i += block) {
        size_t now = rows - i < block ? rows - i : block;
        block_rows(now, cols, X + i * ldx, ldx, Y + i * ldy, ldy);
    }
}
