/* The kernels of the amx bundle, one line each; the others are those of avx512. */
#include "core/table.h"

extern t2k_gemm_tiles t2k_gemm_fast_amx;
extern t2k_gemm_tiles t2k_gemm_bf16_amx;
extern t2k_probe_fma_fn t2k_probe_bf16_amx;

const t2k_table t2k_table_amx = {
    .gemm_fast = &t2k_gemm_fast_amx,
    .gemm_bf16 = &t2k_gemm_bf16_amx,
    .probe_bf16 = t2k_probe_bf16_amx,
};
