/* The kernels of the scalar bundle, one line each. */
#include "core/table.h"

extern t2k_probe_fma_fn t2k_probe_fma_scalar;

const t2k_table t2k_table_scalar = {
    .probe_fma = t2k_probe_fma_scalar,
};
