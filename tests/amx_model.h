/* amx_model.h - AMX tiles in software, with the names of simd/simd_amx.h, which it stands in for:
 * include it first, then a kernel of kernels/amx.
 *
 * Semantics of the Intel SDM, vol. 2, LDTILECFG, TILELOADD, TDPBF16PS: what raises a fault there
 * counts in tile_faults here. Tiles belong to a thread, as there; the counters are everybody's.
 * The vectors that go with it are in plain C, or those of simd/simd_bf16.h if that is included
 * before. */
#ifndef T2K_SIMD_AMX_H
#define T2K_SIMD_AMX_H

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#ifndef T2K_SIMD_BF16_H
#include "amx_model_vectors.h"
#endif

typedef struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static _Thread_local struct {
    int configured;
    tile_config config;
    unsigned char data[8][16][64];
} tile_state;
static atomic_int tile_faults;
static atomic_long tile_loads, tile_products;
static atomic_int tile_configurations, tile_releases;

static void tile_configure(const tile_config *c)
{
    int bad = c->palette != 1 || c->start_row != 0 || (uintptr_t)c % 64 != 0;
    for (int i = 0; i < 14; i++) {
        bad |= c->reserved[i] != 0;
    }
    for (int t = 0; t < 16; t++) {
        bad |= t < 8 ? c->rows[t] > 16 || c->row_bytes[t] > 64 || c->row_bytes[t] % 4 != 0 ||
                           (c->rows[t] == 0) != (c->row_bytes[t] == 0)
                     : c->rows[t] != 0 || c->row_bytes[t] != 0;
    }
    tile_faults += bad;
    tile_configurations++;
    memset(&tile_state, 0, sizeof tile_state);
    tile_state.config = *c;
    tile_state.configured = !bad;
}

/* A tile that may be used. */
static int tile_usable(int t)
{
    int usable = tile_state.configured && t >= 0 && t < 8 && tile_state.config.rows[t] > 0;
    tile_faults += !usable;
    return usable;
}

static void tile_zero(int t)
{
    if (tile_usable(t)) {
        memset(tile_state.data[t], 0, sizeof tile_state.data[t]);
    }
}

static void tile_load(int t, const void *p, size_t stride)
{
    tile_loads++;
    tile_zero(t);
    for (size_t r = 0; tile_usable(t) && r < tile_state.config.rows[t]; r++) {
        memcpy(tile_state.data[t][r], (const unsigned char *)p + r * stride,
               tile_state.config.row_bytes[t]);
    }
}

static void tile_store(int t, void *p, size_t stride)
{
    for (size_t r = 0; tile_usable(t) && r < tile_state.config.rows[t]; r++) {
        memcpy((unsigned char *)p + r * stride, tile_state.data[t][r],
               tile_state.config.row_bytes[t]);
    }
}

/* Denormals count as zero, in and out. */
static float tile_flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

static float tile_bf16(const unsigned char *p)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return tile_flush(x);
}

/* Two chains from zero, of the even and of the odd elements, each step fused; then their sum. */
static void tile_dp_bf16(int c, int a, int b)
{
    const tile_config *f = &tile_state.config;
    tile_products++;
    if (!tile_usable(c) || !tile_usable(a) || !tile_usable(b) || f->rows[c] != f->rows[a] ||
        f->row_bytes[a] / 4 != f->rows[b] || f->row_bytes[b] != f->row_bytes[c] || c == a ||
        c == b || a == b) {
        tile_faults++;
        return;
    }
    for (int m = 0; m < f->rows[c]; m++) {
        for (int n = 0; n < f->row_bytes[c] / 4; n++) {
            float even = 0.0f, odd = 0.0f, sum;
            for (int k = 0; k < f->rows[b]; k++) {
                const unsigned char *x = tile_state.data[a][m] + 4 * k;
                const unsigned char *y = tile_state.data[b][k] + 4 * n;
                even = tile_flush(fmaf(tile_bf16(x), tile_bf16(y), even));
                odd = tile_flush(fmaf(tile_bf16(x + 2), tile_bf16(y + 2), odd));
            }
            memcpy(&sum, tile_state.data[c][m] + 4 * n, sizeof sum);
            sum = tile_flush(tile_flush(sum) + tile_flush(even + odd));
            memcpy(tile_state.data[c][m] + 4 * n, &sum, sizeof sum);
        }
    }
}

static void tile_release(void)
{
    tile_releases++;
    memset(&tile_state, 0, sizeof tile_state);
}

#endif
