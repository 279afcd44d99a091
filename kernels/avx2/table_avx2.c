/* The kernels of the avx2 bundle, one line each. */
#include "core/table.h"

extern t2k_probe_fma_fn t2k_probe_fma_avx2;

const t2k_table t2k_table_avx2 = {
    .probe_fma = t2k_probe_fma_avx2,
};
