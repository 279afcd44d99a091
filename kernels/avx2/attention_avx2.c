/* Tiles of 6 x 2 vectors: 12 sums, 2 operands and a broadcast in 16 registers. Twelve chains cover
 * the 4-5 cycles of latency of a fused multiply-add on two ports. */
#include "simd/simd_avx2.h"

#define ATT_VECS 2

/* 8 x 8: pairs, then quads within 128 bits, then the halves. */
static inline __attribute__((always_inline)) void att_transpose(vf *r)
{
    vf a[8], b[8];
    T2K_UNROLL
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    T2K_UNROLL
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    T2K_UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

#include "tmpl/attention.h"
