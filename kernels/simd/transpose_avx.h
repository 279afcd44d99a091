/* 8 x 8 floats in eight AVX registers, for the ISA files of AVX2 and AVX-512. */
#ifndef T2K_TRANSPOSE_AVX_H
#define T2K_TRANSPOSE_AVX_H

#include <immintrin.h>
#include <stddef.h>

#include "simd/unroll.h"

/* r[i] lane j becomes r[j] lane i: 4 x 4 within each 128 bits, then the halves. */
static inline __attribute__((always_inline)) void v_transpose8x8(__m256 r[8])
{
    __m256 t[8];
    T2K_UNROLL
    for (size_t i = 0; i < 8; i += 4) {
        __m256 b0 = _mm256_unpacklo_ps(r[i], r[i + 1]), b1 = _mm256_unpackhi_ps(r[i], r[i + 1]);
        __m256 b2 = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        __m256 b3 = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(b0, b2, 0x44);
        t[i + 1] = _mm256_shuffle_ps(b0, b2, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b1, b3, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b1, b3, 0xee);
    }
    T2K_UNROLL
    for (size_t i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

#endif
