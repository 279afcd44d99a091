/* The kernels of the neon bundle, one line each. */
#include "core/table.h"

extern t2k_gemm_group t2k_gemm_neon;
extern t2k_gemm_group t2k_gemm_rounded_neon;
extern t2k_gemm_finish_fn t2k_gemm_finish_neon;
extern t2k_gemm_dots_fn t2k_gemm_dots_neon;
extern t2k_attention_fn t2k_attention_neon;
extern t2k_attention_backward_fn t2k_attention_backward_neon;
extern t2k_softmax_fn t2k_softmax_neon;
extern t2k_layer_norm_fn t2k_layer_norm_neon;
extern t2k_rms_norm_fn t2k_rms_norm_neon;
extern t2k_row_sums_fn t2k_row_sums_neon;
extern t2k_scale_columns_fn t2k_scale_columns_neon;
extern t2k_unary_fn t2k_exp_neon;
extern t2k_unary_fn t2k_relu_neon;
extern t2k_unary_fn t2k_gelu_neon;
extern t2k_unary_fn t2k_gelu_tanh_neon;
extern t2k_unary_fn t2k_silu_neon;
extern t2k_binary_fn t2k_add_neon;
extern t2k_probe_fma_fn t2k_probe_fma_neon;
extern t2k_probe_read_fn t2k_probe_read_neon;
extern t2k_unary_fn t2k_probe_copy_neon;
extern t2k_unary_fn t2k_probe_stream_neon;

const t2k_table t2k_table_neon = {
    .gemm_strict = &t2k_gemm_neon,
    .gemm_rounded = &t2k_gemm_rounded_neon,
    .gemm_finish = t2k_gemm_finish_neon,
    .gemm_dots = t2k_gemm_dots_neon,
    .attention = t2k_attention_neon,
    .attention_backward = t2k_attention_backward_neon,
    .softmax = t2k_softmax_neon,
    .layer_norm = t2k_layer_norm_neon,
    .rms_norm = t2k_rms_norm_neon,
    .row_sums = t2k_row_sums_neon,
    .scale_columns = t2k_scale_columns_neon,
    .exp = t2k_exp_neon,
    .relu = t2k_relu_neon,
    .gelu = t2k_gelu_neon,
    .gelu_tanh = t2k_gelu_tanh_neon,
    .silu = t2k_silu_neon,
    .add = t2k_add_neon,
    .probe_fma = t2k_probe_fma_neon,
    .probe_read = t2k_probe_read_neon,
    .probe_copy = t2k_probe_copy_neon,
    .probe_stream = t2k_probe_stream_neon,
};
