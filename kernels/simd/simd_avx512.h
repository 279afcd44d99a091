/* AVX-512 (F, CD, BW, DQ, VL): sixteen lanes. simd_avx2.h documents the names. */
#ifndef T2K_SIMD_H
#define T2K_SIMD_H

#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__)
#error "simd_avx512.h needs -mavx512f -mavx512cd -mavx512bw -mavx512dq -mavx512vl"
#endif

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "simd/unroll.h"

/* One line per name, to be compared across the ISAs. */
/* clang-format off */
#define T2K_FN(name) t2k_##name##_avx512
#define VF_W 16

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
typedef struct vd {
    __m512d lo, hi;
} vd;

static inline vm vm_first(size_t n) { return (vm)((1u << n) - 1u); }

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_set1(float x) { return _mm512_set1_ps(x); }
static inline vf v_const(float x) { return v_set1(x); }
typedef float v_repeat;
#define V_REPEAT(x) x
#define v_repeated(r) v_const(r)
#define v_addend(c, r) (c)
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline void v_stream(float *p, vf a) { _mm512_stream_ps(p, a); }
static inline void v_stream_end(void) { _mm_sfence(); }
static inline vf v_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(vm_first(n), p);
}
static inline void v_store_n(float *p, vf a, size_t n)
{
    _mm512_mask_storeu_ps(p, vm_first(n), a);
}

static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }

static inline vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm v_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vm v_not_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ); }
static inline vm vm_or(vm a, vm b) { return (vm)(a | b); }
static inline vm vm_and(vm a, vm b) { return (vm)(a & b); }
static inline int vm_any(vm a) { return a != 0; }
static inline vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

static inline float v_sum_lanes(vf a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float v_max_lanes(vf a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
/* Halves of two rows side by side, then quarters of four, eighths of eight and single lanes. */
#define V_ROWS(name, op)                                                                         \
    static inline vf name(const vf a[VF_W])                                                      \
    {                                                                                            \
        vf half[8], quarter[4], eighth[2];                                                       \
        T2K_UNROLL                                                                               \
        for (int i = 0; i < 8; i++) {                                                            \
            const vf x = a[i + i / 4 * 4], y = a[i + i / 4 * 4 + 4];                             \
            half[i] = op(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));    \
        }                                                                                        \
        T2K_UNROLL                                                                               \
        for (int i = 0; i < 4; i++) {                                                            \
            quarter[i] = op(_mm512_shuffle_f32x4(half[i], half[i + 4], 0x88),                    \
                            _mm512_shuffle_f32x4(half[i], half[i + 4], 0xdd));                   \
        }                                                                                        \
        T2K_UNROLL                                                                               \
        for (int i = 0; i < 2; i++) {                                                            \
            eighth[i] = op(_mm512_shuffle_ps(quarter[2 * i], quarter[2 * i + 1], 0x44),          \
                           _mm512_shuffle_ps(quarter[2 * i], quarter[2 * i + 1], 0xee));         \
        }                                                                                        \
        return op(_mm512_shuffle_ps(eighth[0], eighth[1], 0x88),                                 \
                  _mm512_shuffle_ps(eighth[0], eighth[1], 0xdd));                                \
    }
V_ROWS(v_sum_rows, v_add)
V_ROWS(v_max_rows, v_max)

static inline void v_sum8(const vf a[8], vf *sums)
{
    vf h[4];
    T2K_UNROLL
    for (int k = 0; k < 4; k++) { /* eight lanes of row k, eight of row k + 4 */
        h[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a[k], a[k + 4], 0x44),
                             _mm512_shuffle_f32x4(a[k], a[k + 4], 0xee));
    }
    T2K_UNROLL
    for (int k = 0; k < 2; k++) { /* four lanes each of rows k, k + 4, k + 2, k + 6 */
        h[k] = _mm512_add_ps(_mm512_shuffle_f32x4(h[k], h[k + 2], 0x88),
                             _mm512_shuffle_f32x4(h[k], h[k + 2], 0xdd));
    }
    const vf s = _mm512_add_ps(_mm512_shuffle_ps(h[0], h[1], 0x44),
                               _mm512_shuffle_ps(h[0], h[1], 0xee));
    const vf t = _mm512_add_ps(s, _mm512_movehdup_ps(s)); /* lanes 0, 2, ..: rows 0 1 4 5 2 3 6 7 */
    const vi order = _mm512_castsi256_si512(_mm256_setr_epi32(0, 2, 8, 10, 4, 6, 12, 14));
    *sums = _mm512_maskz_permutexvar_ps(0xff, order, t);
}

static inline void v_load_rows4(const float *p, size_t ld, vf r[4])
{
    T2K_UNROLL
    for (size_t k = 0; k < 4; k++) {
        vf a = _mm512_castps128_ps512(_mm_loadu_ps(p + k * ld));
        a = _mm512_insertf32x4(a, _mm_loadu_ps(p + (k + 4) * ld), 1);
        a = _mm512_insertf32x4(a, _mm_loadu_ps(p + (k + 8) * ld), 2);
        r[k] = _mm512_insertf32x4(a, _mm_loadu_ps(p + (k + 12) * ld), 3);
    }
}
static inline void v_store_rows4(float *p, size_t ld, const vf r[4])
{
    T2K_UNROLL
    for (size_t k = 0; k < 4; k++) {
        _mm_storeu_ps(p + k * ld, _mm512_castps512_ps128(r[k]));
        _mm_storeu_ps(p + (k + 4) * ld, _mm512_extractf32x4_ps(r[k], 1));
        _mm_storeu_ps(p + (k + 8) * ld, _mm512_extractf32x4_ps(r[k], 2));
        _mm_storeu_ps(p + (k + 12) * ld, _mm512_extractf32x4_ps(r[k], 3));
    }
}
static inline void v_transpose4(vf r[4])
{
    const vf a = _mm512_unpacklo_ps(r[0], r[2]), b = _mm512_unpackhi_ps(r[0], r[2]);
    const vf c = _mm512_unpacklo_ps(r[1], r[3]), d = _mm512_unpackhi_ps(r[1], r[3]);
    r[0] = _mm512_unpacklo_ps(a, c);
    r[1] = _mm512_unpackhi_ps(a, c);
    r[2] = _mm512_unpacklo_ps(b, d);
    r[3] = _mm512_unpackhi_ps(b, d);
}
static inline vf v_set_columns4(const float *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }

static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_of_bits(vf a) { return _mm512_castps_si512(a); }
static inline vf v_of_bits(vi a) { return _mm512_castsi512_ps(a); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_max_u(vi a, vi b) { return _mm512_max_epu32(a, b); }
#define vi_shl(a, bits) _mm512_slli_epi32(a, bits)
#define vi_sra(a, bits) _mm512_srai_epi32(a, bits)

typedef __m512 vt; /* both halves alike */
static inline vt vt_load(const float *p) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(p)); }
static inline vi vt_index(vi i) { return i; }
static inline vf v_pick(vt t, vi index) { return _mm512_permutexvar_ps(index, t); }

static inline vd vd_zero(void)
{
    return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
static inline vd vd_add_f(vd a, vf x)
{
    return (vd){_mm512_add_pd(a.lo, _mm512_cvtps_pd(_mm512_castps512_ps256(x))),
                _mm512_add_pd(a.hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)))};
}
static inline vd vd_add_load(vd a, const float *p)
{
    return (vd){_mm512_add_pd(a.lo, _mm512_cvtps_pd(_mm256_loadu_ps(p))),
                _mm512_add_pd(a.hi, _mm512_cvtps_pd(_mm256_loadu_ps(p + 8)))};
}
static inline vd vd_add_square(vd a, vf x)
{
    const __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    const __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
    return (vd){_mm512_fmadd_pd(lo, lo, a.lo), _mm512_fmadd_pd(hi, hi, a.hi)};
}
static inline vd vd_add(vd a, vd b)
{
    return (vd){_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)};
}
static inline double vd_sum_lanes(vd a)
{
    __m512d o = _mm512_add_pd(a.lo, a.hi);
    __m256d h = _mm256_add_pd(_mm512_castpd512_pd256(o), _mm512_extractf64x4_pd(o, 1));
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* clang-format on */
#endif
