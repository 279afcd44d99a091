/* The kernels of the avx512 bundle, one line each. */
#include "core/table.h"

extern t2k_gemm_group t2k_gemm_avx512;
extern t2k_gemm_group t2k_gemm_rounded_avx512;
extern t2k_gemm_finish_fn t2k_gemm_finish_avx512;
extern t2k_gemm_dots_fn t2k_gemm_dots_avx512;
extern t2k_attention_fn t2k_attention_avx512;
extern t2k_attention_backward_fn t2k_attention_backward_avx512;
extern t2k_softmax_fn t2k_softmax_avx512;
extern t2k_layer_norm_fn t2k_layer_norm_avx512;
extern t2k_rms_norm_fn t2k_rms_norm_avx512;
extern t2k_row_sums_fn t2k_row_sums_avx512;
extern t2k_scale_columns_fn t2k_scale_columns_avx512;
extern t2k_unary_fn t2k_exp_avx512;
extern t2k_unary_fn t2k_relu_avx512;
extern t2k_unary_fn t2k_gelu_avx512;
extern t2k_unary_fn t2k_gelu_tanh_avx512;
extern t2k_unary_fn t2k_silu_avx512;
extern t2k_binary_fn t2k_add_avx512;
extern t2k_probe_fma_fn t2k_probe_fma_avx512;
extern t2k_probe_read_fn t2k_probe_read_avx512;
extern t2k_unary_fn t2k_probe_copy_avx512;
extern t2k_unary_fn t2k_probe_stream_avx512;

const t2k_table t2k_table_avx512 = {
    .gemm_strict = &t2k_gemm_avx512,
    .gemm_rounded = &t2k_gemm_rounded_avx512,
    .gemm_finish = t2k_gemm_finish_avx512,
    .gemm_dots = t2k_gemm_dots_avx512,
    .attention = t2k_attention_avx512,
    .attention_backward = t2k_attention_backward_avx512,
    .softmax = t2k_softmax_avx512,
    .layer_norm = t2k_layer_norm_avx512,
    .rms_norm = t2k_rms_norm_avx512,
    .row_sums = t2k_row_sums_avx512,
    .scale_columns = t2k_scale_columns_avx512,
    .exp = t2k_exp_avx512,
    .relu = t2k_relu_avx512,
    .gelu = t2k_gelu_avx512,
    .gelu_tanh = t2k_gelu_tanh_avx512,
    .silu = t2k_silu_avx512,
    .add = t2k_add_avx512,
    .probe_fma = t2k_probe_fma_avx512,
    .probe_read = t2k_probe_read_avx512,
    .probe_copy = t2k_probe_copy_avx512,
    .probe_stream = t2k_probe_stream_avx512,
};
