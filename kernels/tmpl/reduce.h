/* Sums along a row (docs/numerics.md, rule 7): T2K_LANES lanes starting at +0, element i in lane
 * i mod T2K_LANES in rising order, lanes past the end add +0; then lane j + lane j + T2K_LANES/2,
 * and so on down to + 1. Included after a simd_<isa>.h.
 *
 * The lanes are LANE_VECTORS vectors. A loop that needs two such sets, or doubles, takes them
 * LANE_SWEEP at a time in several sweeps over the row, so that they stay in registers: 4 of AVX2's
 * 16, 4 of AVX-512's 32 (all of the lanes), 8 of NEON's 32. A lane is never -0 (it starts at +0),
 * hence vectors that are +0 throughout may be left out. */
#ifndef T2K_TMPL_REDUCE_H
#define T2K_TMPL_REDUCE_H

#include "core/constants.h"

#define LANE_VECTORS (T2K_LANES / VF_W)
#if VF_W == 1
#define LANE_SWEEP LANE_VECTORS
#elif VF_W == 4
#define LANE_SWEEP 8
#else
#define LANE_SWEEP 4
#endif

/* gcc 12 keeps an array of vectors in registers only where every loop over it is unrolled. */
#define UNROLL_LANES _Pragma("GCC unroll 16")
#define ROW_INLINE static inline __attribute__((always_inline))

/* The tree over the first `count` lane vectors, the others being +0 (count is a constant), down to
 * VF_W lanes. */
ROW_INLINE vf lanes_fold(vf lanes[], size_t count)
{
    UNROLL_LANES
    for (size_t width = LANE_VECTORS / 2; width > 0; width /= 2) {
        UNROLL_LANES
        for (size_t v = 0; v < width; v++) {
            if (v + width < count) {
                lanes[v] = v_add(lanes[v], lanes[v + width]);
            }
        }
    }
    return lanes[0];
}

/* And down to one. */
ROW_INLINE float lanes_tree(vf lanes[], size_t count)
{
    return v_sum_lanes(lanes_fold(lanes, count));
}

/* lanes += x[0 .. n), x being where lane 0 stands. */
ROW_INLINE void lanes_add(vf lanes[LANE_VECTORS], size_t n, const float *x)
{
    for (; n >= T2K_LANES; n -= T2K_LANES, x += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v++) {
            lanes[v] = v_add(lanes[v], v_load(x + v * VF_W));
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        if (n < VF_W) {
            if (n > 0) {
                lanes[v] = v_add(lanes[v], v_load_n(x + v * VF_W, n));
            }
            break;
        }
        lanes[v] = v_add(lanes[v], v_load(x + v * VF_W));
        n -= VF_W;
    }
}

/* All lanes at +0, where sums start. */
ROW_INLINE void lanes_start(vf lanes[LANE_VECTORS])
{
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        lanes[v] = v_zero();
    }
}

/* lanes += a b by fused steps over n elements. */
ROW_INLINE void lanes_dot(vf lanes[LANE_VECTORS], size_t n, const float *a, const float *b)
{
    for (; n >= T2K_LANES; n -= T2K_LANES, a += T2K_LANES, b += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v++) {
            lanes[v] = v_fma(v_load(a + v * VF_W), v_load(b + v * VF_W), lanes[v]);
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v++) {
        const size_t now = n < VF_W ? n : VF_W;
        if (now > 0) {
            lanes[v] = v_fma(v_load_n(a + v * VF_W, now), v_load_n(b + v * VF_W, now), lanes[v]);
        }
        n -= now;
    }
}

#endif
