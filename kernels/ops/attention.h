/* Arguments of attention, for the forward pass and the gradients. */
#ifndef T2K_OPS_ATTENTION_H
#define T2K_OPS_ATTENTION_H

#include "core/core.h"

/* args as the kernels take them: of full size, kv_heads not 0. 0 where they are NULL or of another
 * size. */
int t2k_attention_complete(const t2k_attention_args *args, t2k_attention_args *a);

/* Nonzero where a size, a stride of q, k or v or empty_row is out of range. */
int t2k_attention_bad_sizes(const t2k_attention_args *a);

/* Nonzero where q, k, v or the mask are missing or out of reach; sizes are good, none of items,
 * heads and head_dim is 0. */
int t2k_attention_bad_inputs(const t2k_attention_args *a);

/* The same of an output (rows, items, width), and where its rows overlap. */
int t2k_attention_bad_output(const float *x, int64_t rows, int64_t row, int64_t items, int64_t item,
                             int64_t width);

#endif
