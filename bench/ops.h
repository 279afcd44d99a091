/* ops.h - what the files of operations (op_*.c) share. */
#ifndef T2_BENCH_OPS_H
#define T2_BENCH_OPS_H

#include "problem.h"

#include <math.h>

/* Unit roundoff of float: one rounding to nearest errs by at most this share of its result. */
#define BENCH_U 0x1p-24

/* How far a sum of n terms in float may lie from the exact one, whatever the order of summation and
 * with or without fused multiply-adds, where the terms are products of our random operands
 * (independent, their mean 0): `magnitude` is the sum of their absolute values, `squares` that of
 * their squares.
 *
 * The smaller of two bounds. The first always holds: n - 1 additions, the products' rounding and
 * two more for a scale or a division each err by at most u times the magnitude. The second is
 * statistical: partial sum p is about sqrt(p) s, s^2 being the mean square of a term, and its
 * rounding is an independent error of root mean square at most 0.58 u times that; over a chain of
 * n terms, the worst order, these add up to 0.41 u sqrt(n) sqrt(squares). 12 is 29 deviations of
 * it, which leaves room for walks that stray: sqrt(squares) times 0.41 sqrt(n) is a mean over
 * walks. */
static inline double bench_sum_error(double n, double magnitude, double squares)
{
    double always = (n + 2.0) * BENCH_U * magnitude;
    double random = 12.0 * (sqrt(n) + 3.0) * BENCH_U * sqrt(squares);
    return fmin(always, random);
}

/* count * size bytes aligned to T2K_ALIGN for free(); NULL on failure or overflow. */
void *bench_alloc(size_t count, size_t size);

/* Memory for what a call computes on its way: one for all copies of a problem's operands, as a user
 * has it, and zeros at first, so that no timed call meets a new page. Each take with the same
 * number of bytes, and as many gives; NULL: out of memory. */
float *bench_scratch_take(const struct problem *p, size_t bytes);
void bench_scratch_give(const struct problem *p);

/* a * b * c elements; -1 where one is below 1 or the product is more than any memory holds, which
 * the functions below refuse. */
int64_t bench_elements(int64_t a, int64_t b, int64_t c);
/* Each appends an input to p and returns 0, or -1 where there is no place or the count is bad. */
int bench_add_floats(struct problem *p, enum bench_role role, int64_t count, float range);
int bench_add_ids(struct problem *p, enum bench_role role, int64_t count, int64_t below);
/* Sets rows and cols, and read_bytes and write_bytes to every operand's size; 0, or -1 where the
 * result is too large. To be called behind the inputs. */
int bench_set_result(struct problem *p, int64_t rows, int64_t cols);

/* The usual state of op->t2k_run: the operands. `packed` is freed with it. */
struct bench_bound {
    const struct problem *p;
    const void *in[BENCH_INPUTS];
    float *out;
    void *packed;
};
/* t2k_open and t2k_close of operations that prepare nothing. */
t2k_status bench_bound_open(const struct problem *p, const void *const in[], float *out,
                            void **state);
void bench_bound_close(void *state);

/* One row of the result in double and by how much it may differ, as op->reference; ref and allowed
 * (cols). */
typedef void bench_row_fn(const struct problem *p, const void *const in[], int strict, int64_t row,
                          double *ref, double *allowed);
/* op->reference by such a function, on all CPUs. */
t2k_status bench_reference_by_rows(bench_row_fn *fn, const struct problem *p,
                                   const void *const in[], int strict, int64_t count,
                                   const int64_t *rows, double *ref, double *allowed);

extern const struct bench_op bench_op_sgemm, bench_op_sgemm_nt, bench_op_sgemm_tn,
    bench_op_sgemm_tt;
extern const struct bench_op bench_op_sgemm_packed, bench_op_sgemm_fast, bench_op_sgemm_bf16,
    bench_op_sgemm_batched;
extern const struct bench_op bench_op_svd_rebuild, bench_op_svd_rebuild_dense;
extern const struct bench_op bench_op_expert, bench_op_expert_rows, bench_op_expert_turns;
extern const struct bench_op bench_op_expert_rebuild;
extern const struct bench_op bench_op_attention, bench_op_attention_causal,
    bench_op_attention_decode;
extern const struct bench_op bench_op_softmax, bench_op_layer_norm, bench_op_layer_norm_residual;
extern const struct bench_op bench_op_rms_norm, bench_op_rms_norm_residual;
extern const struct bench_op bench_op_mean, bench_op_embedding, bench_op_scale_columns;
extern const struct bench_op bench_op_exp, bench_op_relu, bench_op_add, bench_op_dropout;
extern const struct bench_op bench_op_gelu, bench_op_gelu_tanh, bench_op_silu;
extern const struct bench_op bench_op_model; /* op_model.c */

#endif
