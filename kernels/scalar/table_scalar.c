/* The kernels of the scalar bundle, one line each. */
#include "core/table.h"

extern t2k_gemm_group t2k_gemm_scalar;
extern t2k_gemm_group t2k_gemm_rounded_scalar;
extern t2k_gemm_finish_fn t2k_gemm_finish_scalar;
extern t2k_gemm_dots_fn t2k_gemm_dots_scalar;
extern t2k_gemm_tiles t2k_gemm_fast_scalar;
extern t2k_gemm_tiles t2k_gemm_bf16_scalar;
extern t2k_attention_fn t2k_attention_scalar;
extern t2k_attention_backward_fn t2k_attention_backward_scalar;
extern t2k_softmax_fn t2k_softmax_scalar;
extern t2k_layer_norm_fn t2k_layer_norm_scalar;
extern t2k_rms_norm_fn t2k_rms_norm_scalar;
extern t2k_row_sums_fn t2k_row_sums_scalar;
extern t2k_gather_rows_fn t2k_gather_rows_scalar;
extern t2k_scale_columns_fn t2k_scale_columns_scalar;
extern t2k_unary_fn t2k_exp_scalar;
extern t2k_unary_fn t2k_relu_scalar;
extern t2k_unary_fn t2k_gelu_scalar;
extern t2k_unary_fn t2k_gelu_tanh_scalar;
extern t2k_unary_fn t2k_silu_scalar;
extern t2k_binary_fn t2k_add_scalar;
extern t2k_dropout_fn t2k_dropout_scalar;
extern t2k_probe_fma_fn t2k_probe_fma_scalar;
extern t2k_probe_fma_fn t2k_probe_bf16_scalar;
extern t2k_probe_read_fn t2k_probe_read_scalar;
extern t2k_unary_fn t2k_probe_copy_scalar;
extern t2k_unary_fn t2k_probe_stream_scalar;

const t2k_table t2k_table_scalar = {
    .gemm_strict = &t2k_gemm_scalar,
    .gemm_rounded = &t2k_gemm_rounded_scalar,
    .gemm_finish = t2k_gemm_finish_scalar,
    .gemm_dots = t2k_gemm_dots_scalar,
    .gemm_fast = &t2k_gemm_fast_scalar,
    .gemm_bf16 = &t2k_gemm_bf16_scalar,
    .attention = t2k_attention_scalar,
    .attention_backward = t2k_attention_backward_scalar,
    .softmax = t2k_softmax_scalar,
    .layer_norm = t2k_layer_norm_scalar,
    .rms_norm = t2k_rms_norm_scalar,
    .row_sums = t2k_row_sums_scalar,
    .gather_rows = t2k_gather_rows_scalar,
    .scale_columns = t2k_scale_columns_scalar,
    .exp = t2k_exp_scalar,
    .relu = t2k_relu_scalar,
    .gelu = t2k_gelu_scalar,
    .gelu_tanh = t2k_gelu_tanh_scalar,
    .silu = t2k_silu_scalar,
    .add = t2k_add_scalar,
    .dropout = t2k_dropout_scalar,
    .probe_fma = t2k_probe_fma_scalar,
    .probe_bf16 = t2k_probe_bf16_scalar,
    .probe_read = t2k_probe_read_scalar,
    .probe_copy = t2k_probe_copy_scalar,
    .probe_stream = t2k_probe_stream_scalar,
};
