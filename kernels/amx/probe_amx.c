/* The peak of the matrix unit: TDPBF16PS on tiles that stay where they are.
 *
 * Tiles: 4 accumulators + 2 of A + 2 of B = all 8. A product takes 16 cycles and its result comes
 * after 52, so that four independent ones keep the unit busy (Intel optimization manual, AMX). */
#include "simd/simd_amx.h"

#include "core/table.h"

#define ROWS 16
#define ROW_BYTES 64
#define PAIRS (ROWS * ROW_BYTES / 4) /* of bf16 in a tile, or floats */

extern t2k_probe_fma_fn t2k_probe_bf16_amx;

static void configure(void)
{
    _Alignas(64) tile_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = ROWS;
        config.row_bytes[t] = ROW_BYTES;
    }
    tile_configure(&config);
}

double t2k_probe_bf16_amx(int64_t iterations)
{
    _Alignas(64) uint32_t A[PAIRS], B[PAIRS]; // (16, 32) bf16 each, B in pairs of rows
    _Alignas(64) float C[PAIRS];              // (16, 16)
    for (int i = 0; i < PAIRS; i++) {
        A[i] = 0x3f803f80u; /* 1, 1 */
        B[i] = 0x34003400u; /* 2^-23, 2^-23 */
    }
    configure();
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    tile_load(4, A, ROW_BYTES);
    tile_load(5, A, ROW_BYTES);
    tile_load(6, B, ROW_BYTES);
    tile_load(7, B, ROW_BYTES);
    for (int64_t n = 0; n < iterations; n++) {
        tile_dp_bf16(0, 4, 6);
        tile_dp_bf16(1, 4, 7);
        tile_dp_bf16(2, 5, 6);
        tile_dp_bf16(3, 5, 7);
    }
    double sum = 0.0;
    tile_store(0, C, ROW_BYTES);
    sum += (double)C[0];
    tile_store(1, C, ROW_BYTES);
    sum += (double)C[0];
    tile_store(2, C, ROW_BYTES);
    sum += (double)C[0];
    tile_store(3, C, ROW_BYTES);
    sum += (double)C[0];
    tile_release();
    /* Every iteration adds 32 * 2^-23 to each element, until that is lost to rounding. */
    return sum > 0.0 && sum < 1e30 ? 4.0 * 2.0 * ROWS * 16 * 32 * (double)iterations : 0.0;
}
