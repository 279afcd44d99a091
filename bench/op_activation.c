/* Activations: GELU by erf and by tanh, SiLU. As in op_elementwise.c, the result is seen as rows of
 * 64 elements where 64 divides their number, else as one row. */
#include "ops.h"

enum { SEGMENT = 64 };

/* Far into both tails, where 1 + erf(x) cancels. */
static const float range = 8.0f;

static int describe(struct problem *p)
{
    int64_t n = p->dim[0];
    p->macs = 24.0 * (double)n;
    if (bench_add_floats(p, BENCH_ACTIVATION, n, range) != 0) {
        return -1;
    }
    return n % SEGMENT == 0 ? bench_set_result(p, n / SEGMENT, SEGMENT) : bench_set_result(p, 1, n);
}

static t2k_status run_gelu(void *state)
{
    const struct bench_bound *b = state;
    return t2k_gelu(b->p->dim[0], b->in[0], b->out);
}

static t2k_status run_gelu_tanh(void *state)
{
    const struct bench_bound *b = state;
    return t2k_gelu_tanh(b->p->dim[0], b->in[0], b->out);
}

static t2k_status run_silu(void *state)
{
    const struct bench_bound *b = state;
    return t2k_silu(b->p->dim[0], b->in[0], b->out);
}

static double activation(const struct bench_op *op, double x)
{
    if (op == &bench_op_gelu) {
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    }
    double y = op == &bench_op_silu ? x : 1.5957691216057308 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(-y));
}

/* Ours: GELU errs by units of what is left of relu(x), at most 0.17, beside the rounding of the
 * result; SiLU by units of the result alone, and by an exp of x rounded once. Others may take
 * 1 + erf or 1 + tanh, whose error is one of 1, and an erf that is right to 2^-22. */
static void row(const struct problem *p, const void *const in[], int strict, int64_t i, double *ref,
                double *allowed)
{
    const float *x = (const float *)in[0] + i * p->cols;
    for (int64_t j = 0; j < p->cols; j++) {
        double v = (double)x[j];
        ref[j] = activation(p->op, v);
        double left = p->op == &bench_op_silu ? (8.0 + 2.0 * fabs(v)) * fabs(ref[j]) : 1.0;
        allowed[j] = BENCH_U * (2.0 * fabs(ref[j]) + left + (strict ? 0.0 : 8.0 * fabs(v)));
    }
}

static t2k_status reference(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(row, p, in, strict, count, rows, ref, allowed);
}

#define ACTIVATION(kernel, function)                                                \
    .name = #kernel, .dims = "n", .slot = BENCH_SLOT(kernel), .describe = describe, \
    .reference = reference, .t2k_open = bench_bound_open, .t2k_run = (function),    \
    .t2k_close = bench_bound_close

const struct bench_op bench_op_gelu = {ACTIVATION(gelu, run_gelu)};
const struct bench_op bench_op_gelu_tanh = {ACTIVATION(gelu_tanh, run_gelu_tanh)};
const struct bench_op bench_op_silu = {ACTIVATION(silu, run_silu)};
