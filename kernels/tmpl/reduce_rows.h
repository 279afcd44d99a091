/* Sums of rows in double: T2K_LANES lanes and the tree of tmpl/reduce.h, each step in double. The
 * lanes of a sweep fill 8 of AVX2's 16 registers, 8 of AVX-512's 32 and 16 of NEON's 32. */
#include "tmpl/reduce.h"

ROW_INLINE void sweep_sum(size_t n, const float *x, double lanes[LANE_SWEEP * VF_W])
{
    vd sum[LANE_SWEEP];
    UNROLL_LANES
    for (size_t v = 0; v < LANE_SWEEP; v++) {
        sum[v] = vd_zero();
    }
    for (; n >= T2K_LANES; n -= T2K_LANES, x += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_SWEEP; v++) {
            sum[v] = vd_add_f(sum[v], v_load(x + v * VF_W));
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_SWEEP; v++) {
        if (n > 0) {
            size_t now = n < VF_W ? n : VF_W;
            sum[v] = vd_add_f(sum[v], v_load_n(x + v * VF_W, now));
            n -= now;
        }
        vd_store(lanes + v * VF_W, sum[v]);
    }
}

void T2K_FN(row_sums)(size_t rows, size_t cols, const float *X, size_t ldx, double *sums)
{
    for (size_t i = 0; i < rows; i++) {
        double lanes[T2K_LANES];
        lanes[0] = 0.0;
        for (size_t first = 0; first < T2K_LANES && first < cols; first += LANE_SWEEP * VF_W) {
            sweep_sum(cols - first, X + i * ldx + first, lanes + first);
        }
        for (size_t width = T2K_LANES / 2; width > 0; width /= 2) {
            /* Lanes from cols on are +0: they are not even stored. */
            const size_t used = cols > width ? cols - width : 0;
            for (size_t j = 0; j < width && j < used; j++) {
                lanes[j] += lanes[j + width];
            }
        }
        sums[i] = lanes[0];
    }
}
