/* Tiles of 6 x 2 vectors: 12 sums, 2 operands and a broadcast in 16 registers. Twelve chains cover
 * the 4-5 cycles of latency of a fused multiply-add on two ports. */
#include "simd/simd_avx2.h"
#include "simd/transpose_avx.h"

#define ATT_VECS 2
#define ATT_FEW 3
#define ATT_COPY 1
#define ATT_HAS_SHORT

/* Rows j and j + 4 side by side, the second inserted from memory; then 4 x 4 within each 128 bits:
 * two thirds of the shuffles of a transpose that starts from whole rows. */
static inline __attribute__((always_inline)) void att_load_quad(const float *x, size_t ldx,
                                                                size_t rows, vf *r)
{
    __m256 a[4];
    T2K_UNROLL
    for (size_t j = 0; j < 4; j++) {
        a[j] = j < rows ? _mm256_zextps128_ps256(_mm_loadu_ps(x + j * ldx)) : _mm256_setzero_ps();
        if (j + 4 < rows) {
            a[j] = _mm256_insertf128_ps(a[j], _mm_loadu_ps(x + (j + 4) * ldx), 1);
        }
    }
    __m256 b0 = _mm256_unpacklo_ps(a[0], a[1]), b1 = _mm256_unpackhi_ps(a[0], a[1]);
    __m256 b2 = _mm256_unpacklo_ps(a[2], a[3]), b3 = _mm256_unpackhi_ps(a[2], a[3]);
    r[0] = _mm256_shuffle_ps(b0, b2, 0x44);
    r[1] = _mm256_shuffle_ps(b0, b2, 0xee);
    r[2] = _mm256_shuffle_ps(b1, b3, 0x44);
    r[3] = _mm256_shuffle_ps(b1, b3, 0xee);
}

/* One query takes eight keys at a time. */
typedef vf att_lines;
#define ATT_LINES
#define att_lines_zero v_zero
#define att_lines_store v_store
#define att_lines_load _mm256_loadu_ps
#define att_lines_transpose v_transpose8x8

/* The broadcast is volatile, or gcc keeps those of one group for the next one, in memory. */
static inline __attribute__((always_inline)) att_lines att_lines_fma_at(att_lines acc, att_lines a,
                                                                        const float *p)
{
    vf b;
    __asm__ volatile("vbroadcastss %1, %0" : "=x"(b) : "m"(*p));
    return v_fma(b, a, acc);
}

/* Bit i is set where byte i of 64 is not 0. */
static inline uint64_t att_bits_64(const uint8_t *x)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)x);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(x + 32));
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a, zero));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b, zero));
    return ~((uint64_t)high << 32 | low);
}
#define ATT_BITS_64 att_bits_64

#include "tmpl/attention.h"
