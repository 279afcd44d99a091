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
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }

static inline vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
static inline vm v_eq(vf a, vf b) { return vceqq_f32(a, b); }
static inline vm v_nan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
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

static inline vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
static inline vi vi_of_bits(vf a) { return vreinterpretq_s32_f32(a); }
static inline vf v_of_bits(vi a) { return vreinterpretq_f32_s32(a); }
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
#define vi_shl(a, bits) vshlq_n_s32(a, bits)
#define vi_sra(a, bits) vshrq_n_s32(a, bits)

static inline vd vd_zero(void)
{
    return (vd){vdupq_n_f64(0.0), vdupq_n_f64(0.0)};
}
static inline vd vd_add_f(vd a, vf x)
{
    return (vd){vaddq_f64(a.lo, vcvt_f64_f32(vget_low_f32(x))),
                vaddq_f64(a.hi, vcvt_high_f64_f32(x))};
}
static inline void vd_store(double *p, vd a)
{
    vst1q_f64(p, a.lo);
    vst1q_f64(p + 2, a.hi);
}

/* clang-format on */
#endif
