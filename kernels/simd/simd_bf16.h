/* Pairs of bf16 in the 512-bit registers of simd_avx512.h, with AVX512_BF16:
 *   vp                16 pairs, 32 numbers; pair i is the 32-bit lane i, its first number low
 *   vp_round(a, b)    a, then b, rounded to nearest even; NaN stays NaN, denormals become zero
 *   vp_low(v), vp_high(v)     the numbers 0 .. 15 and 16 .. 31 of v
 *   vp_first(v), vp_second(v) of each pair
 *   vp_zip(v)         numbers i and 16 + i become pair i
 *   vp_transpose(r)   of 16 x 16 pairs
 *   vr                smallest and largest |x| of what vr_add() saw; zeros count as no number for
 *                     the smallest. vr_least() is its bits less 1 (zeros only: UINT32_MAX),
 *                     vr_most() the largest one's bits (above 0x7f800000: a NaN) */
#ifndef T2K_SIMD_BF16_H
#define T2K_SIMD_BF16_H

#if !defined(__AVX512BF16__)
#error "simd_bf16.h needs the flags of simd_avx512.h and -mavx512bf16"
#endif

#include "simd/simd_avx512.h"

/* clang-format off */
typedef __m512i vp;
typedef struct vr {
    __m512i least, most;
} vr;

static inline vp vp_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vp_store(void *p, vp v) { _mm512_storeu_si512(p, v); }
static inline vp vp_round(vf a, vf b) { return (vp)_mm512_cvtne2ps_pbh(b, a); }
static inline vf vp_low(vp v)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(v));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
static inline vf vp_high(vp v)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
static inline vf vp_first(vp v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
static inline vf vp_second(vp v)
{
    return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline vp vp_zip(vp v)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9,
                                           24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
                                           16, 0);
    return _mm512_permutexvar_epi16(order, v);
}

static inline __attribute__((always_inline)) void vp_transpose(vp r[16])
{
    vp t[16];
    T2K_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    T2K_UNROLL
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    T2K_UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    T2K_UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

static inline vr vr_none(void) { return (vr){_mm512_set1_epi32(-1), _mm512_setzero_si512()}; }
static inline vr vr_add(vr r, vf x)
{
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    return (vr){_mm512_min_epu32(r.least, _mm512_sub_epi32(bits, _mm512_set1_epi32(1))),
                _mm512_max_epu32(r.most, bits)};
}
static inline uint32_t vr_least(vr r) { return _mm512_reduce_min_epu32(r.least); }
static inline uint32_t vr_most(vr r) { return _mm512_reduce_max_epu32(r.most); }

/* clang-format on */
#endif
