/* Tiles of 6 x 4 vectors: 24 sums and 4 operands in 32 registers, the broadcast being a memory
 * operand of the fused multiply-add. A full tile of 64 queries is one row of four vectors. */
#include "simd/simd_avx512.h"

#define ATT_VECS 4

/* 16 x 16: pairs, quads within 128 bits, then the 128-bit quarters in two steps. */
static inline __attribute__((always_inline)) void att_transpose(vf *r)
{
    vf a[16], b[16];
    T2K_UNROLL
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    T2K_UNROLL
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    T2K_UNROLL
    for (int i = 0; i < 4; i++) {
        vf even0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
        vf odd0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        vf even1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        vf odd1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(even0, even1, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
    }
}

#include "tmpl/attention.h"
