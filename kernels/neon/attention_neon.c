/* Tiles of 6 x 4 vectors: 24 sums, 4 operands and a broadcast in 32 registers. */
#include "simd/simd_neon.h"

#define ATT_VECS 4
#define ATT_FEW 2
#define ATT_COPY 1

static inline __attribute__((always_inline)) void att_load_quad(const float *x, size_t ldx,
                                                                size_t rows, vf *r)
{
    for (size_t j = 0; j < 4; j++) {
        r[j] = j < rows ? vld1q_f32(x + j * ldx) : vdupq_n_f32(0.0f);
    }
    float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#include "tmpl/attention.h"
