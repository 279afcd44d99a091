/* Sums of rows in double: T2K_LANES lanes and the tree of tmpl/reduce.h, each step in double. The
 * lanes of a sweep fill 8 of AVX2's 16 registers, 8 of AVX-512's 32 and 16 of NEON's 32. */
#include "tmpl/reduce.h"

/* sum = the lanes from x on, n elements being left of the row. */
ROW_INLINE void sweep_sum(size_t n, const float *x, vd sum[LANE_SWEEP])
{
    UNROLL_LANES
    for (size_t v = 0; v < LANE_SWEEP; v++) {
        sum[v] = vd_zero();
    }
    for (; n >= T2K_LANES; n -= T2K_LANES, x += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_SWEEP; v++) {
            sum[v] = vd_add_load(sum[v], x + v * VF_W);
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_SWEEP; v++) {
        if (n >= VF_W) {
            sum[v] = vd_add_load(sum[v], x + v * VF_W);
            n -= VF_W;
        } else if (n > 0) {
            sum[v] = vd_add_f(sum[v], v_load_n(x + v * VF_W, n));
            n = 0;
        }
    }
}

void T2K_FN(row_sums)(size_t rows, size_t cols, const float *X, size_t ldx, double *sums)
{
    for (size_t i = 0; i < rows; i++) {
        const float *x = X + i * ldx;
        vd lanes[LANE_VECTORS];
        UNROLL_LANES
        for (size_t first = 0; first < LANE_VECTORS; first += LANE_SWEEP) {
            const size_t at = first * VF_W;
            sweep_sum(cols > at ? cols - at : 0, cols > at ? x + at : x, lanes + first);
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
