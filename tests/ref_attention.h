/* Attention in double precision. */
#ifndef T2_REF_ATTENTION_H
#define T2_REF_ATTENTION_H

#include "t2k.h"

/* out and bound (queries, items, heads, head_dim), both contiguous: the result by the formula and
 * the error that t2k_attention() may have, for finite operands. With u = 2^-24, blocks of 64 keys
 * and p_j the weights, the relative error of weight j before normalization is at most
 *   e_j = u * ((head_dim + 3) sum |q k scale| + 2 |s_j| + 2 |s_j - max| + min(keys, 64) +
 *              6 blocks + 8)
 * and the bound of a channel is  sum p_j |v_j| e_j + (sum p_j |v_j|) (sum p_j e_j) + 2^-140,
 * and 2^-126 |v_j| more for each weight below 2^-125, which counts as 0. */
void ref_attention(const t2k_attention_args *args, double *out, double *bound);

/* 1 where the key is blocked; else *add is what the mask adds. */
int ref_attention_masked(const t2k_attention_args *a, int64_t item, int64_t head, int64_t l,
                         int64_t s, double *add);

/* The weights p_j of a query over all keys and their e_j; 0 where every key is blocked. */
int ref_attention_weights(const t2k_attention_args *a, int64_t item, int64_t head, int64_t l,
                          double *weight, double *error);

#endif
