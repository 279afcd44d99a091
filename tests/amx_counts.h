/* The counters of amx_model.h as struct amx_counts, for the files that include it. */
#ifndef T2_AMX_COUNTS_H
#define T2_AMX_COUNTS_H

#include "amx_groups.h"

static struct amx_counts take_counts(void)
{
    const struct amx_counts counts = {tile_loads, tile_products, tile_faults, tile_configurations,
                                      tile_releases};
    tile_loads = tile_products = 0;
    tile_faults = tile_configurations = tile_releases = 0;
    return counts;
}

#endif
