/* Gradients of attention in double precision. */
#ifndef T2_REF_ATTENTION_BACKWARD_H
#define T2_REF_ATTENTION_BACKWARD_H

#include "t2k.h"

/* dq (queries, items, heads, head_dim), dk and dv (keys, items, kv_heads, head_dim), contiguous:
 * [0] the result by the formula, [1] the error that t2k_attention_backward() may have for finite
 * operands. With u = 2^-24, P the weights, e_j their errors before normalization and
 * E_j = e_j + sum P e + 3u:
 *   dp     d = (head_dim + 1) u sum |dout v|
 *   delta  D = sum P (E |dp| + d) + (min(keys, 64) + 2 blocks + 3) u sum P |dp|
 *   ds     P E |dp - delta| + P (d + D) + 3 u P (|dp| + |delta|)
 * and each sum of n products in b blocks adds (min(n, 64) + b + 4) u of the sum of magnitudes.
 * Weights below 2^-125 may be 0. */
void ref_attention_backward(const t2k_attention_backward_args *args, double *dq[2], double *dk[2],
                            double *dv[2]);

#endif
