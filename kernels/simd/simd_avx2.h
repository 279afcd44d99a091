/* AVX2 + FMA: eight lanes. The same names in every simd_<isa>.h:
 *   vf, vi, vm, vd     VF_W floats, int32s, lane masks, and VF_W doubles
 *   v_load_n(p, n)     the first n (0..VF_W) lanes from memory, the others +0; reads only those
 *   v_store_n(p, a, n) writes the first n lanes only
 *   v_stream(p, a)     v_store around the caches where the ISA can; p aligned to the vector.
 *                      v_stream_end() puts those before it in order with other stores
 *   v_fma(a, b, c)     a*b + c, one rounding;  v_fnma: c - a*b, one rounding
 *   v_min, v_max       a < b ? a : b and a > b ? a : b: a NaN in either gives b
 *   v_select(m, a, b)  m ? a : b
 *   v_sum_lanes(a)     lane j + lane j + VF_W/2, then + VF_W/4, .. + 1; v_max_lanes: likewise
 *   vi_of_bits, v_of_bits   reinterpret; vi_add, vi_sub wrap
 *   vi_shl, vi_sra     shifts by a constant
 *   vd_add_f(a, x)     a + (double)x
 * Other loads and stores need no alignment. */
#ifndef T2K_SIMD_H
#define T2K_SIMD_H

#if !defined(__AVX2__) || !defined(__FMA__)
#error "simd_avx2.h needs -mavx2 -mfma"
#endif

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "simd/unroll.h"

/* One line per name, to be compared across the ISAs. */
/* clang-format off */
#define T2K_FN(name) t2k_##name##_avx2
#define VF_W 8

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;
typedef struct vd {
    __m256d lo, hi;
} vd;

/* -1 for lanes 0 .. n-1 when read from index 8 - n. */
static const int32_t v_first_lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

static inline __m256i v_mask_n(size_t n)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(v_first_lanes + 8 - n));
}

static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_set1(float x) { return _mm256_set1_ps(x); }
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
static inline void v_stream(float *p, vf a) { _mm256_stream_ps(p, a); }
static inline void v_stream_end(void) { _mm_sfence(); }
static inline vf v_load_n(const float *p, size_t n) { return _mm256_maskload_ps(p, v_mask_n(n)); }
/* In pieces: vmaskmovps to memory takes tens of cycles on AMD. */
static inline void v_store_n(float *p, vf a, size_t n)
{
    if (n >= 8) {
        _mm256_storeu_ps(p, a);
        return;
    }
    __m128 piece = _mm256_castps256_ps128(a);
    if (n & 4) {
        _mm_storeu_ps(p, piece);
        piece = _mm256_extractf128_ps(a, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)(void *)p, piece);
        piece = _mm_movehl_ps(piece, piece);
        p += 2;
    }
    if (n & 1) {
        _mm_store_ss(p, piece);
    }
}

static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }

static inline vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vm v_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline vm vm_or(vm a, vm b) { return _mm256_or_ps(a, b); }
static inline vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
static inline vm vm_first(size_t n) { return _mm256_castsi256_ps(v_mask_n(n)); }
static inline int vm_any(vm a) { return _mm256_movemask_ps(a) != 0; }
static inline vf v_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }

static inline float v_sum_lanes(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float v_max_lanes(vf a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_of_bits(vf a) { return _mm256_castps_si256(a); }
static inline vf v_of_bits(vi a) { return _mm256_castsi256_ps(a); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
#define vi_shl(a, bits) _mm256_slli_epi32(a, bits)
#define vi_sra(a, bits) _mm256_srai_epi32(a, bits)

static inline vd vd_zero(void)
{
    return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()};
}
static inline vd vd_add_f(vd a, vf x)
{
    return (vd){_mm256_add_pd(a.lo, _mm256_cvtps_pd(_mm256_castps256_ps128(x))),
                _mm256_add_pd(a.hi, _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)))};
}
static inline void vd_store(double *p, vd a)
{
    _mm256_storeu_pd(p, a.lo);
    _mm256_storeu_pd(p + 4, a.hi);
}

/* clang-format on */
#endif
