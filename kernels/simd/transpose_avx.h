/* Transposes in AVX registers of eight floats, for the ISA files of AVX2 and AVX-512. */
#ifndef T2K_TRANSPOSE_AVX_H
#define T2K_TRANSPOSE_AVX_H

#include <immintrin.h>
#include <stddef.h>

#include "simd/unroll.h"

/* The 4 x 4 blocks within each 128 bits of r[0..3], transposed. */
static inline __attribute__((always_inline)) void v_transpose4x4(__m256 r[4])
{
    const __m256 b0 = _mm256_unpacklo_ps(r[0], r[1]), b1 = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 b2 = _mm256_unpacklo_ps(r[2], r[3]), b3 = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(b0, b2, 0x44);
    r[1] = _mm256_shuffle_ps(b0, b2, 0xee);
    r[2] = _mm256_shuffle_ps(b1, b3, 0x44);
    r[3] = _mm256_shuffle_ps(b1, b3, 0xee);
}

/* r[i] lane j becomes r[j] lane i: 4 x 4 within each 128 bits, then the halves. */
static inline __attribute__((always_inline)) void v_transpose8x8(__m256 r[8])
{
    v_transpose4x4(r);
    v_transpose4x4(r + 4);
    T2K_UNROLL
    for (size_t i = 0; i < 4; i++) {
        const __m256 low = r[i], high = r[i + 4];
        r[i] = _mm256_permute2f128_ps(low, high, 0x20);
        r[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
}

/* r[q] = element q of eight rows at a, four elements of each. The halves of a vector are loaded
 * apart: that is the first of three steps of a transpose. */
static inline __attribute__((always_inline)) void v_load_columns4(const float *a, size_t stride,
                                                                  __m256 r[4])
{
    T2K_UNROLL
    for (size_t i = 0; i < 4; i++) {
        const __m128 low = _mm_loadu_ps(a + i * stride);
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(low), _mm_loadu_ps(a + (i + 4) * stride),
                                    1);
    }
    v_transpose4x4(r);
}

#endif
