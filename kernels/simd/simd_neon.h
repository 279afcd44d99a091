/* NEON (Advanced SIMD of aarch64): four lanes. simd_avx2.h documents the names. */
#ifndef T2K_SIMD_H
#define T2K_SIMD_H

#if !defined(__aarch64__) || !defined(__ARM_NEON)
#error "simd_neon.h is for aarch64"
#endif

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "simd/unroll.h"

/* One line per name, to be compared across the ISAs. */
/* clang-format off */
#define T2K_FN(name) t2k_##name##_neon
#define VF_W 4

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;
typedef struct vd {
    float64x2_t lo, hi;
} vd;

static inline vf v_zero(void) { return vdupq_n_f32(0.0f); }
static inline vf v_set1(float x) { return vdupq_n_f32(x); }
static inline vf v_const(float x) { return v_set1(x); }
/* FMLA overwrites its addend. Volatile, or a compiler loads it once and copies it by moves, which
 * take ports from the products. */
typedef vf v_repeat;
#define V_REPEAT(x) {x, x, x, x}
#define v_repeated(r) (r)
#define v_addend(c, r) (*(const volatile vf *)&(r))
static inline vf v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf a) { vst1q_f32(p, a); }
/* ACLE has no non-temporal store; cores notice long runs of stores by themselves. */
static inline void v_stream(float *p, vf a) { vst1q_f32(p, a); }
static inline void v_stream_end(void) { }
static inline vf v_load_n(const float *p, size_t n)
{
    vf r = v_zero();
    if (n >= 4) {
        return vld1q_f32(p);
    }
    if (n >= 1) {
        r = vld1q_lane_f32(p, r, 0);
    }
    if (n >= 2) {
        r = vld1q_lane_f32(p + 1, r, 1);
    }
    if (n >= 3) {
        r = vld1q_lane_f32(p + 2, r, 2);
    }
    return r;
}
static inline void v_store_n(float *p, vf a, size_t n)
{
    if (n >= 4) {
        vst1q_f32(p, a);
        return;
    }
    if (n >= 1) {
        vst1q_lane_f32(p, a, 0);
    }
    if (n >= 2) {
        vst1q_lane_f32(p + 1, a, 1);
    }
    if (n >= 3) {
        vst1q_lane_f32(p + 2, a, 2);
    }
}

static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_sqrt(vf a) { return vsqrtq_f32(a); }
static inline vf v_abs(vf a) { return vabsq_f32(a); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }

static inline vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
static inline vm v_eq(vf a, vf b) { return vceqq_f32(a, b); }
static inline vm v_nan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
static inline vm v_not_le(vf a, vf b) { return vmvnq_u32(vcleq_f32(a, b)); }
static inline vm vm_or(vm a, vm b) { return vorrq_u32(a, b); }
static inline vm vm_and(vm a, vm b) { return vandq_u32(a, b); }
static inline vm vm_first(size_t n)
{
    static const uint32_t lane[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(lane), vdupq_n_u32((uint32_t)n));
}
static inline int vm_any(vm a) { return vmaxvq_u32(a) != 0; }
static inline vf v_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
/* Not FMIN/FMAX: those give +0 for (-0, +0) and NaN for NaN. */
static inline vf v_min(vf a, vf b) { return v_select(v_lt(a, b), a, b); }
static inline vf v_max(vf a, vf b) { return v_select(v_lt(b, a), a, b); }

static inline float v_sum_lanes(vf a)
{
    float32x2_t s = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
}
static inline float v_max_lanes(vf a)
{
    float32x2_t s = vget_low_f32(a), t = vget_high_f32(a);
    s = vbsl_f32(vcgt_f32(s, t), s, t);
    return vget_lane_f32(s, 0) > vget_lane_f32(s, 1) ? vget_lane_f32(s, 0) : vget_lane_f32(s, 1);
}
/* Halves of two rows side by side, then single lanes of four. */
#define V_ROWS(name, op)                                                                         \
    static inline vf name(const vf a[VF_W])                                                      \
    {                                                                                            \
        vf half[2];                                                                              \
        T2K_UNROLL                                                                               \
        for (int i = 0; i < 2; i++) {                                                            \
            half[i] = op(vcombine_f32(vget_low_f32(a[2 * i]), vget_low_f32(a[2 * i + 1])),       \
                         vcombine_f32(vget_high_f32(a[2 * i]), vget_high_f32(a[2 * i + 1])));    \
        }                                                                                        \
        return op(vuzp1q_f32(half[0], half[1]), vuzp2q_f32(half[0], half[1]));                   \
    }
V_ROWS(v_sum_rows, v_add)
V_ROWS(v_max_rows, v_max)

static inline void v_sum8(const vf a[8], vf *sums)
{
    sums[0] = v_sum_rows(a);
    sums[1] = v_sum_rows(a + 4);
}

static inline void v_load_rows4(const float *p, size_t ld, vf r[4])
{
    T2K_UNROLL
    for (size_t k = 0; k < 4; k++) {
        r[k] = vld1q_f32(p + k * ld);
    }
}
static inline void v_store_rows4(float *p, size_t ld, const vf r[4])
{
    T2K_UNROLL
    for (size_t k = 0; k < 4; k++) {
        vst1q_f32(p + k * ld, r[k]);
    }
}
static inline void v_transpose4(vf r[4])
{
    const vf a = vzip1q_f32(r[0], r[2]), b = vzip2q_f32(r[0], r[2]);
    const vf c = vzip1q_f32(r[1], r[3]), d = vzip2q_f32(r[1], r[3]);
    r[0] = vzip1q_f32(a, c);
    r[1] = vzip2q_f32(a, c);
    r[2] = vzip1q_f32(b, d);
    r[3] = vzip2q_f32(b, d);
}
static inline vf v_set_columns4(const float *p) { return vld1q_f32(p); }

static inline vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
static inline vi vi_of_bits(vf a) { return vreinterpretq_s32_f32(a); }
static inline vf v_of_bits(vi a) { return vreinterpretq_f32_s32(a); }
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
static inline vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
static inline vi vi_max_u(vi a, vi b)
{
    return vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)));
}
#define vi_shl(a, bits) vshlq_n_s32(a, bits)
#define vi_sra(a, bits) vshrq_n_s32(a, bits)

typedef uint8x16x2_t vt;
static inline vt vt_load(const float *p) { return vld1q_u8_x2((const uint8_t *)p); }
/* The four bytes of float number i. */
static inline vi vt_index(vi i)
{
    vi first = vmulq_n_s32(vandq_s32(i, vdupq_n_s32(7)), 0x04040404);
    return vaddq_s32(first, vdupq_n_s32(0x03020100));
}
static inline vf v_pick(vt t, vi index)
{
    return vreinterpretq_f32_u8(vqtbl2q_u8(t, vreinterpretq_u8_s32(index)));
}

static inline vd vd_zero(void)
{
    return (vd){vdupq_n_f64(0.0), vdupq_n_f64(0.0)};
}
static inline vd vd_add_f(vd a, vf x)
{
    return (vd){vaddq_f64(a.lo, vcvt_f64_f32(vget_low_f32(x))),
                vaddq_f64(a.hi, vcvt_high_f64_f32(x))};
}
static inline vd vd_add_load(vd a, const float *p) { return vd_add_f(a, vld1q_f32(p)); }
static inline vd vd_add_square(vd a, vf x)
{
    const float64x2_t lo = vcvt_f64_f32(vget_low_f32(x)), hi = vcvt_high_f64_f32(x);
    return (vd){vfmaq_f64(a.lo, lo, lo), vfmaq_f64(a.hi, hi, hi)};
}
static inline vd vd_add(vd a, vd b)
{
    return (vd){vaddq_f64(a.lo, b.lo), vaddq_f64(a.hi, b.hi)};
}
static inline double vd_sum_lanes(vd a)
{
    float64x2_t s = vaddq_f64(a.lo, a.hi);
    return vgetq_lane_f64(s, 0) + vgetq_lane_f64(s, 1);
}

/* clang-format on */
#endif
