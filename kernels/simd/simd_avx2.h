/* AVX2 + FMA: eight lanes. The same names in every simd_<isa>.h:
 *   vf, vi, vm, vd     VF_W floats, int32s, lane masks, and VF_W doubles
 *   v_load_n(p, n)     the first n (0..VF_W) lanes from memory, the others +0; reads only those
 *   v_store_n(p, a, n) writes the first n lanes only
 *   v_stream(p, a)     v_store around the caches where the ISA can; p aligned to the vector.
 *                      v_stream_end() puts those before it in order with other stores
 *   v_fma(a, b, c)     a*b + c, one rounding;  v_fnma: c - a*b, one rounding
 *   v_abs(a)           a without its sign bit
 *   v_min, v_max       a < b ? a : b and a > b ? a : b: a NaN in either gives b
 *   v_select(m, a, b)  m ? a : b
 *   v_sum_lanes(a)     lane j + lane j + VF_W/2, then + VF_W/4, .. + 1; v_max_lanes: likewise
 *   v_sum8(a, sums)    lane k of sums[0], sums[1], ..: v_sum_lanes(a[k]) for k < 8, then +0
 *   v_load_rows4(p, ld, r)   r[k]: four floats each of rows k, k + 4, .. k + VF_W - 4;
 *   v_store_rows4(p, ld, r)  and back. v_transpose4(r) makes r[k] column k of VF_W rows, and back.
 *                      v_set_columns4(p): p[0 .. 3] as such a row, for every row
 *   v_sum_rows(a)      lane i: v_sum_lanes(a[i]), for VF_W vectors at once; v_max_rows: likewise
 *   v_const(x)         v_set1(x), but in a register from here on
 *   v_repeat r         a static constant V_REPEAT(x); v_repeated(r): v_const(x);
 *                      v_addend(c, r): c, which is that, from r where an fma overwrites its addend
 *   v_not_le(a, b)     !(a <= b): true where either is a NaN
 *   vi_of_bits, v_of_bits   reinterpret; vi_add, vi_sub wrap; vi_max_u compares as unsigned
 *   vi_shl, vi_sra     shifts by a constant
 *   vd_add(a, b)       a + b;  vd_add_f(a, x): a + (double)x;  vd_add_load: of VF_W floats at p
 *   vd_add_square(a, x)     a + (double)x * (double)x, whose product is exact
 *   vd_sum_lanes(a)    as v_sum_lanes
 *   vt                 eight floats of which v_pick(t, vt_index(i)) takes number i mod 8 per lane;
 *                      vt_index once for all tables that i serves
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
/* gcc folds the load of a constant into each instruction that takes it; where four in a row do,
 * the two loads a cycle become the limit. The empty asm makes it one load, here. */
static inline vf v_const(float x)
{
    vf a = _mm256_set1_ps(x);
    __asm__ volatile("" : "+x"(a));
    return a;
}
typedef float v_repeat;
#define V_REPEAT(x) x
#define v_repeated(r) v_const(r)
#define v_addend(c, r) (c)
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
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }

static inline vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vm v_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline vm v_not_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NLE_UQ); }
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
/* Halves of two rows side by side, then quarters of four, then single lanes of eight: each level
 * is one step of the tree for all of them. */
#define V_ROWS(name, op)                                                                         \
    static inline vf name(const vf a[VF_W])                                                      \
    {                                                                                            \
        vf half[4], quarter[2];                                                                  \
        T2K_UNROLL                                                                               \
        for (int i = 0; i < 4; i++) {                                                            \
            half[i] = op(_mm256_permute2f128_ps(a[i], a[i + 4], 0x20),                           \
                         _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));                          \
        }                                                                                        \
        T2K_UNROLL                                                                               \
        for (int i = 0; i < 2; i++) {                                                            \
            quarter[i] = op(_mm256_shuffle_ps(half[2 * i], half[2 * i + 1], 0x44),               \
                            _mm256_shuffle_ps(half[2 * i], half[2 * i + 1], 0xee));              \
        }                                                                                        \
        return op(_mm256_shuffle_ps(quarter[0], quarter[1], 0x88),                               \
                  _mm256_shuffle_ps(quarter[0], quarter[1], 0xdd));                              \
    }
V_ROWS(v_sum_rows, v_add)
V_ROWS(v_max_rows, v_max)

static inline void v_sum8(const vf a[8], vf *sums) { *sums = v_sum_rows(a); }

static inline void v_load_rows4(const float *p, size_t ld, vf r[4])
{
    T2K_UNROLL
    for (size_t k = 0; k < 4; k++) {
        r[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + k * ld)),
                                    _mm_loadu_ps(p + (k + 4) * ld), 1);
    }
}
static inline void v_store_rows4(float *p, size_t ld, const vf r[4])
{
    T2K_UNROLL
    for (size_t k = 0; k < 4; k++) {
        _mm_storeu_ps(p + k * ld, _mm256_castps256_ps128(r[k]));
        _mm_storeu_ps(p + (k + 4) * ld, _mm256_extractf128_ps(r[k], 1));
    }
}
static inline void v_transpose4(vf r[4])
{
    const vf a = _mm256_unpacklo_ps(r[0], r[2]), b = _mm256_unpackhi_ps(r[0], r[2]);
    const vf c = _mm256_unpacklo_ps(r[1], r[3]), d = _mm256_unpackhi_ps(r[1], r[3]);
    r[0] = _mm256_unpacklo_ps(a, c);
    r[1] = _mm256_unpackhi_ps(a, c);
    r[2] = _mm256_unpacklo_ps(b, d);
    r[3] = _mm256_unpackhi_ps(b, d);
}
static inline vf v_set_columns4(const float *p)
{
    return _mm256_broadcast_ps((const __m128 *)(const void *)p);
}

static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_of_bits(vf a) { return _mm256_castps_si256(a); }
static inline vf v_of_bits(vi a) { return _mm256_castsi256_ps(a); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_max_u(vi a, vi b) { return _mm256_max_epu32(a, b); }
#define vi_shl(a, bits) _mm256_slli_epi32(a, bits)
#define vi_sra(a, bits) _mm256_srai_epi32(a, bits)

typedef __m256 vt;
static inline vt vt_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vi vt_index(vi i) { return i; }
static inline vf v_pick(vt t, vi index) { return _mm256_permutevar8x32_ps(t, index); }

static inline vd vd_zero(void)
{
    return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()};
}
static inline vd vd_add_f(vd a, vf x)
{
    return (vd){_mm256_add_pd(a.lo, _mm256_cvtps_pd(_mm256_castps256_ps128(x))),
                _mm256_add_pd(a.hi, _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)))};
}
/* From memory, conversion needs no shuffle before it. */
static inline vd vd_add_load(vd a, const float *p)
{
    return (vd){_mm256_add_pd(a.lo, _mm256_cvtps_pd(_mm_loadu_ps(p))),
                _mm256_add_pd(a.hi, _mm256_cvtps_pd(_mm_loadu_ps(p + 4)))};
}
static inline vd vd_add_square(vd a, vf x)
{
    const __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    const __m256d hi = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
    return (vd){_mm256_fmadd_pd(lo, lo, a.lo), _mm256_fmadd_pd(hi, hi, a.hi)};
}
static inline vd vd_add(vd a, vd b)
{
    return (vd){_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)};
}
static inline double vd_sum_lanes(vd a)
{
    __m256d h = _mm256_add_pd(a.lo, a.hi);
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* clang-format on */
#endif
