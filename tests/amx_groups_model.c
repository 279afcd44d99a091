/* kernels/amx/gemm_amx.c over tiles and vectors in software: runs on every CPU. */
#include "amx_model.h"

#define t2k_gemm_fast_amx amx_fast_on_model
#define t2k_gemm_bf16_amx amx_bf16_on_model
#define t2k_tiles_open_amx amx_open_on_model
#define t2k_tiles_close_amx amx_close_on_model
#include "amx/gemm_amx.c"

#include "amx_counts.h"

const struct amx_groups amx_model_groups = {
    "model", "", &amx_fast_on_model, &amx_bf16_on_model, take_counts,
};
