/* Gradient of softmax along rows: dx = (y * (dy - s)) * scale, s = sum of y dy by fused steps in
 * the order of tmpl/reduce.h. dX may be Y or dY. Tails are masked. */
#include "tmpl/reduce.h"

void T2K_FN(softmax_backward)(size_t rows, size_t cols, const float *Y, size_t ldy, const float *dY,
                              size_t lddy, float scale, float *dX, size_t lddx)
{
    for (size_t i = 0; i < rows; i++, Y += ldy, dY += lddy, dX += lddx) {
        vf lanes[LANE_VECTORS];
        lanes_start(lanes);
        lanes_dot(lanes, cols, Y, dY);
        const vf sum = v_set1(lanes_tree(lanes, LANE_VECTORS)), factor = v_set1(scale);
        size_t j = 0;
        for (; j + VF_W <= cols; j += VF_W) {
            const vf d = v_sub(v_load(dY + j), sum);
            v_store(dX + j, v_mul(v_mul(v_load(Y + j), d), factor));
        }
        if (j < cols) {
            const vf d = v_sub(v_load_n(dY + j, cols - j), sum);
            v_store_n(dX + j, v_mul(v_mul(v_load_n(Y + j, cols - j), d), factor), cols - j);
        }
    }
}
