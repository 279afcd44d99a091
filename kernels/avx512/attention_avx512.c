/* Tiles of 6 x 4 vectors: 24 sums and 4 operands in 32 registers, the broadcast being a memory
 * operand of the fused multiply-add. A full tile of 64 queries is one row of four vectors. */
#include "simd/simd_avx512.h"
#include "simd/transpose_avx.h"

#define ATT_VECS 4
#define ATT_FEW 4
#define ATT_COPY 0
#define ATT_HAS_SHORT

/* Row j, j + 4, j + 8 and j + 12 side by side, inserted from memory; then 4 x 4 within each 128
 * bits: half the shuffles of a transpose that starts from whole rows. */
static inline __attribute__((always_inline)) void att_load_quad(const float *x, size_t ldx,
                                                                size_t rows, vf *r)
{
    __m512 a[4];
    T2K_UNROLL
    for (size_t j = 0; j < 4; j++) {
        a[j] = j < rows ? _mm512_zextps128_ps512(_mm_loadu_ps(x + j * ldx)) : _mm512_setzero_ps();
    }
#define ATT_INSERT(g)                                                                      \
    if (rows > 4 * (g)) {                                                                  \
        T2K_UNROLL                                                                         \
        for (size_t j = 0; j < 4; j++) {                                                   \
            if (4 * (g) + j < rows) {                                                      \
                a[j] = _mm512_insertf32x4(a[j], _mm_loadu_ps(x + (4 * (g) + j) * ldx), g); \
            }                                                                              \
        }                                                                                  \
    }
    ATT_INSERT(1)
    ATT_INSERT(2)
    ATT_INSERT(3)
#undef ATT_INSERT
    __m512 b0 = _mm512_unpacklo_ps(a[0], a[1]), b1 = _mm512_unpackhi_ps(a[0], a[1]);
    __m512 b2 = _mm512_unpacklo_ps(a[2], a[3]), b3 = _mm512_unpackhi_ps(a[2], a[3]);
    r[0] = _mm512_shuffle_ps(b0, b2, 0x44);
    r[1] = _mm512_shuffle_ps(b0, b2, 0xee);
    r[2] = _mm512_shuffle_ps(b1, b3, 0x44);
    r[3] = _mm512_shuffle_ps(b1, b3, 0xee);
}

/* One query takes eight keys at a time, half a vector: shuffles of whole ones run at half the
 * rate. */
typedef __m256 att_lines;
#define ATT_LINES
#define att_lines_zero _mm256_setzero_ps
#define att_lines_store _mm256_storeu_ps
#define att_lines_load _mm256_loadu_ps
#define att_lines_transpose v_transpose8x8

/* acc + a * *p with the broadcast in the instruction. */
static inline __attribute__((always_inline)) att_lines att_lines_fma_at(att_lines acc, att_lines a,
                                                                        const float *p)
{
    __asm__("vfmadd231ps %2%{1to8%}, %1, %0" : "+v"(acc) : "v"(a), "m"(*p));
    return acc;
}

/* Bit i is set where byte i of 64 is not 0. */
#define ATT_BITS_64(x) \
    _cvtmask64_u64(_mm512_test_epi8_mask(_mm512_loadu_si512(x), _mm512_loadu_si512(x)))

#include "tmpl/attention.h"
