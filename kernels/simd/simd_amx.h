/* AMX: eight tiles of up to 16 rows of 64 bytes (Intel SDM vol. 1, chapter 18). The vectors of the
 * amx bundle are those of simd_avx512.h and simd_bf16.h. Tile numbers are literals 0 .. 7; strides
 * count bytes.
 *   tile_configure(c)        shapes of the tiles, all zeroed; before anything else
 *   tile_load(t, p, stride)  tile_store(t, p, stride)  tile_zero(t)
 *   tile_dp_bf16(c, a, b)    c (m, n) float += a (m, 2k) b (k, n pairs) bf16
 *   tile_release()           back to the initial state, or every task switch saves 8 KiB more */
#ifndef T2K_SIMD_AMX_H
#define T2K_SIMD_AMX_H

#if !(defined(__AMX_TILE__) || defined(__AMXTILE__)) || \
    !(defined(__AMX_BF16__) || defined(__AMXBF16__)) || !defined(__AVX512BF16__)
#error "simd_amx.h needs the flags of simd_avx512.h and -mavx512bf16 -mamx-tile -mamx-bf16"
#endif

#include <immintrin.h>
#include <stdint.h>

#include "simd/simd_bf16.h"

/* What LDTILECFG reads: 64 bytes, those not named here zero. */
typedef struct tile_config {
    uint8_t palette; /* 1 */
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16]; /* of tiles 0 .. 7, the rest zero */
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "the layout of LDTILECFG");

/* gcc 12 does not say that these intrinsics read memory, all 64 bytes or any: what was stored there
 * has to be made to stand. */
static inline void tile_configure(const tile_config *config)
{
    __asm__ volatile("" ::"r"(config) : "memory");
    _tile_loadconfig(config);
}
#define tile_load(t, p, stride)                                   \
    do {                                                          \
        __asm__ volatile("" ::"r"((const void *)(p)) : "memory"); \
        _tile_loadd(t, p, stride);                                \
    } while (0)
#define tile_store(t, p, stride) _tile_stored(t, p, stride)
#define tile_zero(t) _tile_zero(t)
#define tile_dp_bf16(c, a, b) _tile_dpbf16ps(c, a, b)
static inline void tile_release(void)
{
    _tile_release();
}

#endif
