/* Elementwise operations. The result is seen as rows of 64 elements where 64 divides their number,
 * else as one row. */
#include "ops.h"

enum { SEGMENT = 64 };

/* n elements, and what follows from the inputs that were added. */
static int describe(struct problem *p, double macs)
{
    int64_t n = p->dim[0];
    p->macs = macs * (double)n;
    return n % SEGMENT == 0 ? bench_set_result(p, n / SEGMENT, SEGMENT) : bench_set_result(p, 1, n);
}

static int64_t length(const struct bench_bound *bound)
{
    return bound->p->dim[0];
}

/* ---- exp ------------------------------------------------------------------------------------- */

static int describe_exp(struct problem *p)
{
    return bench_add_floats(p, BENCH_ACTIVATION, p->dim[0], 80.0f) || describe(p, 16.0);
}

static t2k_status run_exp(void *state)
{
    const struct bench_bound *b = state;
    return t2k_exp(length(b), b->in[0], b->out);
}

static void exp_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                    double *ref, double *allowed)
{
    const float *x = (const float *)in[0] + row * p->cols;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = exp((double)x[j]);
        /* Ours: 1 ULP; the arguments give no denormals. Others may multiply by log2(e) first, which
         * makes an error of two roundings of the exponent. */
        double roundings = strict ? 2.0 : 16.0 + 2.0 * fabs((double)x[j]);
        allowed[j] = roundings * BENCH_U * ref[j];
    }
}

static t2k_status exp_reference(const struct problem *p, const void *const in[], int strict,
                                int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(exp_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_exp = {.name = "exp",
                                      .dims = "n",
                                      .slot = BENCH_SLOT(exp),
                                      .describe = describe_exp,
                                      .reference = exp_reference,
                                      .t2k_open = bench_bound_open,
                                      .t2k_run = run_exp,
                                      .t2k_close = bench_bound_close};

/* ---- relu ------------------------------------------------------------------------------------ */

static int describe_relu(struct problem *p)
{
    return bench_add_floats(p, BENCH_ACTIVATION, p->dim[0], 1.0f) || describe(p, 2.0);
}

static t2k_status run_relu(void *state)
{
    const struct bench_bound *b = state;
    return t2k_relu(length(b), b->in[0], b->out);
}

static void relu_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                     double *ref, double *allowed)
{
    (void)strict; /* exact, whoever does it */
    const float *x = (const float *)in[0] + row * p->cols;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = x[j] < 0.0f ? 0.0 : (double)x[j];
        allowed[j] = 0.0;
    }
}

static t2k_status relu(const struct problem *p, const void *const in[], int strict, int64_t count,
                       const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(relu_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_relu = {.name = "relu",
                                       .dims = "n",
                                       .slot = BENCH_SLOT(relu),
                                       .describe = describe_relu,
                                       .reference = relu,
                                       .t2k_open = bench_bound_open,
                                       .t2k_run = run_relu,
                                       .t2k_close = bench_bound_close};

/* ---- sum of two ------------------------------------------------------------------------------ */

static int describe_add(struct problem *p)
{
    return bench_add_floats(p, BENCH_ACTIVATION, p->dim[0], 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, p->dim[0], 3.0f) || describe(p, 2.0);
}

static t2k_status run_add(void *state)
{
    const struct bench_bound *b = state;
    return t2k_add(length(b), b->in[0], b->in[1], b->out);
}

static void add_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                    double *ref, double *allowed)
{
    (void)strict; /* one rounding, whoever does it */
    const float *x = (const float *)in[0] + row * p->cols;
    const float *z = (const float *)in[1] + row * p->cols;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = (double)x[j] + (double)z[j];
        allowed[j] = BENCH_U * fabs(ref[j]);
    }
}

static t2k_status add(const struct problem *p, const void *const in[], int strict, int64_t count,
                      const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(add_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_add = {.name = "add",
                                      .dims = "n",
                                      .slot = BENCH_SLOT(add),
                                      .describe = describe_add,
                                      .reference = add,
                                      .t2k_open = bench_bound_open,
                                      .t2k_run = run_add,
                                      .t2k_close = bench_bound_close};

/* ---- dropout --------------------------------------------------------------------------------- */

static const float drop = 0.25f;
static const t2k_dropout_key key = {42, 1, 2};

static int describe_dropout(struct problem *p)
{
    return bench_add_floats(p, BENCH_ACTIVATION, p->dim[0], 1.0f) || describe(p, 16.0);
}

static t2k_status run_dropout(void *state)
{
    const struct bench_bound *b = state;
    return t2k_dropout(length(b), b->in[0], drop, key, 0, b->out);
}

/* Element e is kept when word e mod 4 of block e / 4 reaches p * 2^32: rule 20. */
static void dropout_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                        double *ref, double *allowed)
{
    (void)strict; /* nobody else has these random numbers */
    const uint32_t seed[2] = {(uint32_t)key.seed, (uint32_t)(key.seed >> 32)};
    const float *x = in[0];
    for (int64_t j = 0; j < p->cols; j++) {
        uint64_t element = (uint64_t)(row * p->cols + j), block = element / 4;
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), key.layer, key.site};
        uint32_t word[4];
        t2k_philox4x32(counter, seed, word);
        int kept = (double)word[element % 4] >= (double)drop * 0x1p32;
        ref[j] = kept ? (double)x[element] / (1.0 - (double)drop) : 0.0;
        allowed[j] = 2.0 * BENCH_U * fabs(ref[j]); /* the multiplier's rounding, the product's */
    }
}

static t2k_status dropout(const struct problem *p, const void *const in[], int strict,
                          int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(dropout_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_dropout = {.name = "dropout",
                                          .dims = "n",
                                          .slot = BENCH_SLOT(dropout),
                                          .describe = describe_dropout,
                                          .reference = dropout,
                                          .t2k_open = bench_bound_open,
                                          .t2k_run = run_dropout,
                                          .t2k_close = bench_bound_close};
