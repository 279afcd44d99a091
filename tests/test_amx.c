/* The kernels of the amx bundle over tiles in software: their shapes, loads and products are
 * checked where no CPU has the unit. */
#include "amx_model.h"

#define t2k_probe_bf16_amx probe_on_model
#include "amx/probe_amx.c"

#include <criterion/criterion.h>

Test(amx, the_probe_is_legal_and_counts_its_products)
{
    tile_faults = 0;
    tile_products = 0;
    const double flops = probe_on_model(5);
    cr_expect_eq(tile_faults, 0);
    cr_expect_eq(tile_products, 20);
    cr_expect_eq(flops, 20.0 * 2.0 * 16 * 16 * 32);
    cr_expect_not(tile_state.configured, "the tiles were not released");
    cr_expect_eq(probe_on_model(0), 0.0);
}

/* The model itself: sums of 32 products, and the faults that it is there for. */
Test(amx, the_model_multiplies_and_faults)
{
    _Alignas(64) tile_config config = {.palette = 1};
    uint32_t a[16], b[16];
    float c[16];
    for (int t = 0; t < 3; t++) {
        config.rows[t] = t == 2 ? 16 : 1; /* c (1, 16), a (1, 32), b (16, 16 pairs) */
        config.row_bytes[t] = 64;
    }
    for (int i = 0; i < 16; i++) {
        a[i] = 0x40003f80u; /* 1, 2 */
        b[i] = 0x40403f80u; /* 1, 3 */
    }
    tile_faults = 0;
    tile_configure(&config);
    tile_load(1, a, 64);
    tile_load(2, b, 0);
    tile_zero(0);
    tile_dp_bf16(0, 1, 2);
    tile_dp_bf16(0, 1, 2);
    tile_store(0, c, 64);
    cr_expect_eq(tile_faults, 0);
    for (int i = 0; i < 16; i++) {
        cr_expect_eq(c[i], 2.0f * 16.0f * (1.0f + 6.0f));
    }
    tile_dp_bf16(0, 2, 1);
    cr_expect_eq(tile_faults, 1, "shapes that do not fit");
    tile_zero(3);
    cr_expect_eq(tile_faults, 2, "a tile without a shape");
    config.row_bytes[1] = 66;
    tile_configure(&config);
    cr_expect_eq(tile_faults, 3, "a row that is too long");
    tile_zero(0);
    cr_expect_eq(tile_faults, 4, "after a bad configuration");
}
