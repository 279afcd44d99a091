/* The kernels of the neon bundle, one line each. */
#include "core/table.h"

extern t2k_probe_fma_fn t2k_probe_fma_neon;

const t2k_table t2k_table_neon = {
    .probe_fma = t2k_probe_fma_neon,
};
