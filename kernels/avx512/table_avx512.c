/* The kernels of the avx512 bundle, one line each. */
#include "core/table.h"

extern t2k_probe_fma_fn t2k_probe_fma_avx512;

const t2k_table t2k_table_avx512 = {
    .probe_fma = t2k_probe_fma_avx512,
};
