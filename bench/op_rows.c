/* Operations along rows: softmax, layer norm and RMS norm (plain and with a residual), mean,
 * embedding, scaling of columns. References in double with libm.
 *
 * Weights of norms are no BENCH_WEIGHT: they are so small beside the rows that "cold" would say
 * nothing. */
#include "ops.h"

/* Worst error of a sum along a row by rule 7 of docs/numerics.md, in units of u of its magnitude:
 * the additions of one of its lanes. Small terms on a large sum all round the same way, so it is no
 * random walk: 15 of these units were seen in a softmax of 32000 columns. Any other order: all
 * columns in one chain. */
static double sum_roundings(int64_t n, int strict)
{
    return strict ? (double)n / T2K_LANES : (double)n;
}

/* ---- softmax --------------------------------------------------------------------------------- */

static int describe_softmax(struct problem *p)
{
    int64_t rows = p->dim[0], cols = p->dim[1], count = bench_elements(rows, cols, 1);
    p->macs = 16.0 * (double)count; /* an exp in double */
    return bench_add_floats(p, BENCH_ACTIVATION, count, 8.0f) || bench_set_result(p, rows, cols);
}

static t2k_status run_softmax(void *state)
{
    const struct bench_bound *b = state;
    int64_t cols = b->p->cols;
    return t2k_softmax(b->p->rows, cols, b->in[0], cols, b->out, cols);
}

/* The operands are multiples of 2^-20 below 8, so that max - x is exact. Others may fold log2(e)
 * into it and use an exp of several units in the last place: 64 u. */
static void softmax_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                        double *ref, double *allowed)
{
    const float *x = (const float *)in[0] + row * p->cols;
    double max = (double)x[0], sum = 0.0;
    for (int64_t j = 1; j < p->cols; j++) {
        max = fmax(max, (double)x[j]);
    }
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = exp((double)x[j] - max);
        sum += ref[j];
    }
    double share = ((strict ? 8.0 : 64.0) + sum_roundings(p->cols, strict)) * BENCH_U;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] /= sum;
        allowed[j] = share * ref[j] + 4.0 * 0x1p-149;
    }
}

static t2k_status softmax(const struct problem *p, const void *const in[], int strict,
                          int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(softmax_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_softmax = {.name = "softmax",
                                          .dims = "rows cols",
                                          .slot = BENCH_SLOT(softmax),
                                          .describe = describe_softmax,
                                          .reference = softmax,
                                          .t2k_open = bench_bound_open,
                                          .t2k_run = run_softmax,
                                          .t2k_close = bench_bound_close};

/* ---- layer norm ------------------------------------------------------------------------------ */

static const float epsilon = 1e-5f;

static int describe_norm(struct problem *p)
{
    int64_t rows = p->dim[0], cols = p->dim[1], count = bench_elements(rows, cols, 1);
    int residual = p->op == &bench_op_layer_norm_residual;
    p->macs = 4.0 * (double)count;
    return bench_add_floats(p, BENCH_ACTIVATION, count, 2.0f) ||
           (residual && bench_add_floats(p, BENCH_ACTIVATION, count, 2.0f)) ||
           bench_add_floats(p, BENCH_ACTIVATION, cols, 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, cols, 1.0f) || bench_set_result(p, rows, cols);
}

static t2k_status run_norm(void *state)
{
    const struct bench_bound *b = state;
    const void *const *in = b->in;
    int64_t cols = b->p->cols;
    const float *residual = b->p->inputs == 4 ? *++in : NULL;
    return t2k_layer_norm(b->p->rows, cols, b->in[0], cols, NULL, residual, cols, in[1], in[2],
                          epsilon, b->out, cols);
}

static void norm_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                     double *ref, double *allowed)
{
    const float *x = (const float *)in[0] + row * p->cols;
    const float *residual = p->inputs == 4 ? (const float *)in[1] + row * p->cols : NULL;
    const float *weight = in[p->inputs - 2], *bias = in[p->inputs - 1];
    double n = (double)p->cols, mean = 0.0, variance = 0.0;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = (double)x[j] + (residual != NULL ? (double)residual[j] : 0.0);
        mean += ref[j] / n;
    }
    for (int64_t j = 0; j < p->cols; j++) {
        double d = ref[j] - mean;
        variance += d * d / n;
    }
    double deviation = sqrt(variance + (double)epsilon);
    double sums = sum_roundings(p->cols, strict);
    double roundings = strict ? 8.0 + sums : 32.0 + 2.0 * sums;
    /* Others take the variance as mean square - mean^2: each of these errs by `sums` roundings, and
     * half of the variance's relative error is the quotient's. */
    double cancelled =
        strict ? 0.0 : (sums + 8.0) * (variance + 2.0 * mean * mean) / (deviation * deviation);
    for (int64_t j = 0; j < p->cols; j++) {
        double z = ref[j], w = (double)weight[j], b = (double)bias[j];
        double scaled = (z - mean) / deviation * w;
        ref[j] = scaled + b;
        /* z and the mean are rounded before their difference is taken. */
        double before = 4.0 * (fabs(z) + fabs(mean)) / deviation * fabs(w);
        allowed[j] = BENCH_U * (roundings * (fabs(scaled) + fabs(b) + fabs(w)) + before +
                                cancelled * fabs(scaled));
    }
}

static t2k_status norm(const struct problem *p, const void *const in[], int strict, int64_t count,
                       const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(norm_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_layer_norm = {.name = "layer_norm",
                                             .dims = "rows cols",
                                             .slot = BENCH_SLOT(layer_norm),
                                             .describe = describe_norm,
                                             .reference = norm,
                                             .t2k_open = bench_bound_open,
                                             .t2k_run = run_norm,
                                             .t2k_close = bench_bound_close};
const struct bench_op bench_op_layer_norm_residual = {.name = "layer_norm_residual",
                                                      .dims = "rows cols",
                                                      .slot = BENCH_SLOT(layer_norm),
                                                      .describe = describe_norm,
                                                      .reference = norm,
                                                      .t2k_open = bench_bound_open,
                                                      .t2k_run = run_norm,
                                                      .t2k_close = bench_bound_close};

/* ---- RMS norm -------------------------------------------------------------------------------- */

static int describe_rms(struct problem *p)
{
    int64_t rows = p->dim[0], cols = p->dim[1], count = bench_elements(rows, cols, 1);
    int residual = p->op == &bench_op_rms_norm_residual;
    p->macs = 3.0 * (double)count;
    return bench_add_floats(p, BENCH_ACTIVATION, count, 2.0f) ||
           (residual && bench_add_floats(p, BENCH_ACTIVATION, count, 2.0f)) ||
           bench_add_floats(p, BENCH_ACTIVATION, cols, 1.0f) || bench_set_result(p, rows, cols);
}

/* The sum with the residual is not asked for: it is no result that could be compared. */
static t2k_status run_rms(void *state)
{
    const struct bench_bound *b = state;
    int64_t cols = b->p->cols;
    const float *residual = b->p->inputs == 3 ? b->in[1] : NULL;
    return t2k_rms_norm(b->p->rows, cols, b->in[0], cols, residual, cols, b->in[b->p->inputs - 1],
                        epsilon, NULL, 0, b->out, cols);
}

/* All terms of the sum are positive, so that every error is relative. */
static void rms_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                    double *ref, double *allowed)
{
    const float *x = (const float *)in[0] + row * p->cols;
    const float *residual = p->inputs == 3 ? (const float *)in[1] + row * p->cols : NULL;
    const float *weight = in[p->inputs - 1];
    double squares = 0.0;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = (double)x[j] + (residual != NULL ? (double)residual[j] : 0.0);
        squares += ref[j] * ref[j];
    }
    double rms = sqrt(squares / (double)p->cols + (double)epsilon);
    double sums = sum_roundings(p->cols, strict);
    double roundings = strict ? 10.0 + sums : 32.0 + sums;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = ref[j] / rms * (double)weight[j];
        allowed[j] = BENCH_U * roundings * fabs(ref[j]) + 4.0 * 0x1p-149;
    }
}

static t2k_status rms(const struct problem *p, const void *const in[], int strict, int64_t count,
                      const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(rms_row, p, in, strict, count, rows, ref, allowed);
}

#define RMS_NORM                                                                                   \
    .dims = "rows cols", .slot = BENCH_SLOT(rms_norm), .describe = describe_rms, .reference = rms, \
    .t2k_open = bench_bound_open, .t2k_run = run_rms, .t2k_close = bench_bound_close

const struct bench_op bench_op_rms_norm = {.name = "rms_norm", RMS_NORM};
const struct bench_op bench_op_rms_norm_residual = {.name = "rms_norm_residual", RMS_NORM};

/* ---- mean of everything: one row of one element ---------------------------------------------- */

static int describe_mean(struct problem *p)
{
    int64_t count = bench_elements(p->dim[0], p->dim[1], 1);
    p->macs = (double)count;
    return bench_add_floats(p, BENCH_ACTIVATION, count, 1.0f) || bench_set_result(p, 1, 1);
}

static t2k_status run_mean(void *state)
{
    const struct bench_bound *b = state;
    return t2k_mean(b->p->dim[0], b->p->dim[1], b->in[0], b->p->dim[1], b->out);
}

static t2k_status mean(const struct problem *p, const void *const in[], int strict, int64_t count,
                       const int64_t *rows, double *ref, double *allowed)
{
    const float *x = in[0];
    int64_t n = p->dim[0] * p->dim[1];
    double sum = 0.0, magnitude = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double v = (double)x[i];
        sum += v;
        magnitude += fabs(v);
        squares += v * v;
    }
    for (int64_t i = 0; i < count; i++) {
        (void)rows; /* there is but one */
        ref[i] = sum / (double)n;
        /* Ours: one rounding to float; both sums in double have at most n roundings each. */
        allowed[i] = BENCH_U * fabs(ref[i]) + 2.0 * 0x1p-53 * magnitude;
        if (!strict) {
            allowed[i] += bench_sum_error((double)n, magnitude, squares) / (double)n;
        }
    }
    return T2K_OK;
}

const struct bench_op bench_op_mean = {.name = "mean",
                                       .dims = "rows cols",
                                       .slot = BENCH_SLOT(row_sums),
                                       .describe = describe_mean,
                                       .reference = mean,
                                       .t2k_open = bench_bound_open,
                                       .t2k_run = run_mean,
                                       .t2k_close = bench_bound_close};

/* ---- embedding: a table of the notebook's vocabulary ----------------------------------------- */

enum { VOCABULARY = 1000 };

static int describe_embedding(struct problem *p)
{
    int64_t rows = p->dim[0], cols = p->dim[1];
    p->macs = (double)rows * (double)cols;
    if (bench_add_floats(p, BENCH_WEIGHT, bench_elements(VOCABULARY, cols, 1), 1.0f) ||
        bench_add_ids(p, BENCH_ACTIVATION, rows, VOCABULARY) || bench_set_result(p, rows, cols)) {
        return -1;
    }
    /* Of the table, the rows that were asked for. */
    p->read_bytes = 8.0 * (double)rows + 4.0 * (double)rows * (double)cols;
    return 0;
}

static t2k_status run_embedding(void *state)
{
    const struct bench_bound *b = state;
    int64_t cols = b->p->cols;
    return t2k_embedding(b->p->rows, cols, VOCABULARY, b->in[0], cols, b->in[1], b->out, cols);
}

static void embedding_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                          double *ref, double *allowed)
{
    (void)strict; /* a copy has no error */
    const float *entry = (const float *)in[0] + ((const int64_t *)in[1])[row] * p->cols;
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = (double)entry[j];
        allowed[j] = 0.0;
    }
}

static t2k_status embedding(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(embedding_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_embedding = {.name = "embedding",
                                            .dims = "rows cols",
                                            .slot = BENCH_SLOT(gather_rows),
                                            .describe = describe_embedding,
                                            .reference = embedding,
                                            .t2k_open = bench_bound_open,
                                            .t2k_run = run_embedding,
                                            .t2k_close = bench_bound_close};

/* ---- columns scaled -------------------------------------------------------------------------- */

static int describe_scale(struct problem *p)
{
    int64_t rows = p->dim[0], cols = p->dim[1], count = bench_elements(rows, cols, 1);
    p->macs = (double)count;
    return bench_add_floats(p, BENCH_ACTIVATION, count, 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, cols, 2.0f) || bench_set_result(p, rows, cols);
}

static t2k_status run_scale(void *state)
{
    const struct bench_bound *b = state;
    int64_t cols = b->p->cols;
    return t2k_scale_columns(b->p->rows, cols, b->in[0], cols, b->in[1], b->out, cols);
}

static void scale_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                      double *ref, double *allowed)
{
    (void)strict; /* one rounding, whoever does it */
    const float *x = (const float *)in[0] + row * p->cols, *scale = in[1];
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = (double)x[j] * (double)scale[j];
        allowed[j] = BENCH_U * fabs(ref[j]);
    }
}

static t2k_status scale(const struct problem *p, const void *const in[], int strict, int64_t count,
                        const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(scale_row, p, in, strict, count, rows, ref, allowed);
}

const struct bench_op bench_op_scale_columns = {.name = "scale_columns",
                                                .dims = "rows cols",
                                                .slot = BENCH_SLOT(scale_columns),
                                                .describe = describe_scale,
                                                .reference = scale,
                                                .t2k_open = bench_bound_open,
                                                .t2k_run = run_scale,
                                                .t2k_close = bench_bound_close};
