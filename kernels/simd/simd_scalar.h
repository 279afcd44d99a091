/* One lane: the reference arithmetic of every template in tmpl/. simd_avx2.h documents the names;
 * each of them means exactly this C expression, lane by lane. */
#ifndef T2K_SIMD_H
#define T2K_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd/unroll.h"

/* One line per name, to be compared across the ISAs. */
/* clang-format off */
#define T2K_FN(name) t2k_##name##_scalar
#define VF_W 1

typedef float vf;
typedef int32_t vi;
typedef uint32_t vm;
typedef double vd;

static inline vf v_zero(void) { return 0.0f; }
static inline vf v_set1(float x) { return x; }
static inline vf v_const(float x) { return v_set1(x); }
typedef float v_repeat;
#define V_REPEAT(x) x
#define v_repeated(r) v_const(r)
#define v_addend(c, r) (c)
static inline vf v_load(const float *p) { return *p; }
static inline void v_store(float *p, vf a) { *p = a; }
static inline void v_stream(float *p, vf a) { *p = a; }
static inline void v_stream_end(void) { }
static inline vf v_load_n(const float *p, size_t n) { return n > 0 ? *p : 0.0f; }
static inline void v_store_n(float *p, vf a, size_t n)
{
    if (n > 0) {
        *p = a;
    }
}

static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
static inline vf v_sqrt(vf a) { return sqrtf(a); }
static inline vf v_abs(vf a) { return fabsf(a); }
static inline vf v_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return fmaf(-a, b, c); }
static inline vf v_min(vf a, vf b) { return a < b ? a : b; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }

static inline vm v_lt(vf a, vf b) { return a < b ? UINT32_MAX : 0; }
static inline vm v_eq(vf a, vf b) { return a == b ? UINT32_MAX : 0; }
static inline vm v_nan(vf a) { return a != a ? UINT32_MAX : 0; }
static inline vm v_not_le(vf a, vf b) { return !(a <= b) ? UINT32_MAX : 0; }
static inline vm vm_or(vm a, vm b) { return a | b; }
static inline vm vm_and(vm a, vm b) { return a & b; }
static inline vm vm_first(size_t n) { return n > 0 ? UINT32_MAX : 0; }
static inline int vm_any(vm a) { return a != 0; }
static inline vf v_select(vm m, vf a, vf b) { return m ? a : b; }

static inline float v_sum_lanes(vf a) { return a; }
static inline float v_max_lanes(vf a) { return a; }
static inline vf v_sum_rows(const vf a[VF_W]) { return a[0]; }
static inline vf v_max_rows(const vf a[VF_W]) { return a[0]; }

static inline void v_sum8(const vf a[8], vf *sums) { memcpy(sums, a, 8 * sizeof *a); }

static inline vi vi_set1(int32_t x) { return x; }
static inline vi vi_of_bits(vf a)
{
    vi r;
    memcpy(&r, &a, sizeof r);
    return r;
}
static inline vf v_of_bits(vi a)
{
    vf r;
    memcpy(&r, &a, sizeof r);
    return r;
}
static inline vi vi_add(vi a, vi b) { return (vi)((uint32_t)a + (uint32_t)b); }
static inline vi vi_sub(vi a, vi b) { return (vi)((uint32_t)a - (uint32_t)b); }
static inline vi vi_and(vi a, vi b) { return a & b; }
static inline vi vi_max_u(vi a, vi b) { return (uint32_t)a > (uint32_t)b ? a : b; }
#define vi_shl(a, bits) ((vi)((uint32_t)(a) << (bits)))
#define vi_sra(a, bits) ((vi)((a) >> (bits)))

typedef const float *vt;
static inline vt vt_load(const float *p) { return p; }
static inline vi vt_index(vi i) { return i & 7; }
static inline vf v_pick(vt t, vi index) { return t[index]; }

static inline vd vd_zero(void) { return 0.0; }
static inline vd vd_add_f(vd a, vf x) { return a + (double)x; }
static inline vd vd_add_load(vd a, const float *p) { return a + (double)*p; }
static inline vd vd_add_square(vd a, vf x) { return a + (double)x * (double)x; }
static inline vd vd_add(vd a, vd b) { return a + b; }
static inline double vd_sum_lanes(vd a) { return a; }

/* clang-format on */
#endif
