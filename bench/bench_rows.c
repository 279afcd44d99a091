/* Kernels that go along rows: softmax, layer norm (plain and with a residual), mean, embedding,
 * scaling of columns. References in double with libm. */
#include "bench.h"

#include <math.h>

enum { X, RESIDUAL, WEIGHT, BIAS, SCALE };

/* Adds rows x cols with `per_element` operands of that size read or written. */
static struct problem *add_rows(struct bench_suite *suite, const struct bench_kind *kind,
                                int64_t rows, int64_t cols, double per_element)
{
    struct problem *p = bench_add(suite, kind, "%lldx%lld", (long long)rows, (long long)cols);
    if (p != NULL) {
        p->m = p->rows = rows;
        p->n = p->cols = cols;
        p->work = 4.0 * (double)rows * (double)cols;
        p->bytes = 4.0 * per_element * (double)rows * (double)cols;
    }
    return p;
}

/* Worst error of a sum along a row in units of 2^-24 of its magnitude: the additions of one of its
 * lanes. Small terms on a large sum all round the same way, so it is no random walk: 15 of these
 * units were seen in a softmax of 32000 columns. */
static double sum_roundings(int64_t n)
{
    return (double)n / T2K_LANES;
}

/* ---- softmax --------------------------------------------------------------------------------- */

static t2k_status prepare_softmax(struct problem *p)
{
    return bench_floats(p, X, p->m * p->n, 8.0f);
}

static t2k_status run_softmax(struct problem *p)
{
    return t2k_softmax(p->m, p->n, p->in[X], p->n, p->out, p->n);
}

static t2k_status run_softmax_row(struct problem *p, int64_t row, float *out)
{
    return t2k_softmax(1, p->n, p->in[X] + row * p->n, p->n, out, p->n);
}

static void reference_softmax(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    const float *x = p->in[X] + row * p->n;
    double max = (double)x[0], sum = 0.0;
    for (int64_t j = 1; j < p->n; j++) {
        max = fmax(max, (double)x[j]);
    }
    for (int64_t j = 0; j < p->n; j++) {
        ref[j] = exp((double)x[j] - max);
        sum += ref[j];
    }
    for (int64_t j = 0; j < p->n; j++) {
        ref[j] /= sum;
        allowed[j] = (4.0 * 0x1p-23 + sum_roundings(p->n) * 0x1p-24) * ref[j] + 4.0 * 0x1p-149;
    }
}

static const struct bench_kind softmax = {.op = "softmax",
                                          .slot = BENCH_SLOT(softmax),
                                          .prepare = prepare_softmax,
                                          .run = run_softmax,
                                          .run_row = run_softmax_row,
                                          .reference = reference_softmax};

/* ---- layer norm ------------------------------------------------------------------------------ */

static const float epsilon = 1e-5f;

static t2k_status prepare_norm(struct problem *p)
{
    t2k_status status = bench_floats(p, X, p->m * p->n, 2.0f);
    if (status == T2K_OK) {
        status = bench_floats(p, WEIGHT, p->n, 1.0f);
    }
    return status != T2K_OK ? status : bench_floats(p, BIAS, p->n, 1.0f);
}

static t2k_status prepare_norm_residual(struct problem *p)
{
    t2k_status status = prepare_norm(p);
    return status != T2K_OK ? status : bench_floats(p, RESIDUAL, p->m * p->n, 2.0f);
}

static t2k_status norm(struct problem *p, int64_t first, int64_t rows, float *out)
{
    const float *residual = p->in[RESIDUAL] != NULL ? p->in[RESIDUAL] + first * p->n : NULL;
    return t2k_layer_norm(rows, p->n, p->in[X] + first * p->n, p->n, NULL, residual, p->n,
                          p->in[WEIGHT], p->in[BIAS], epsilon, out, p->n);
}

static t2k_status run_norm(struct problem *p)
{
    return norm(p, 0, p->m, p->out);
}

static t2k_status run_norm_row(struct problem *p, int64_t row, float *out)
{
    return norm(p, row, 1, out);
}

static double norm_input(const struct problem *p, int64_t row, int64_t j)
{
    double x = (double)p->in[X][row * p->n + j];
    return p->in[RESIDUAL] != NULL ? x + (double)p->in[RESIDUAL][row * p->n + j] : x;
}

static void reference_norm(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    double mean = 0.0, variance = 0.0;
    for (int64_t j = 0; j < p->n; j++) {
        mean += norm_input(p, row, j) / (double)p->n;
    }
    for (int64_t j = 0; j < p->n; j++) {
        double d = norm_input(p, row, j) - mean;
        variance += d * d / (double)p->n;
    }
    double deviation = sqrt(variance + (double)epsilon);
    for (int64_t j = 0; j < p->n; j++) {
        double z = norm_input(p, row, j), weight = (double)p->in[WEIGHT][j];
        double scaled = (z - mean) / deviation * weight;
        ref[j] = scaled + (double)p->in[BIAS][j];
        double weighted = (8.0 + sum_roundings(p->n)) *
                          (fabs(scaled) + fabs((double)p->in[BIAS][j]) + fabs(weight));
        /* z and the mean are rounded before their difference is taken. */
        double before = 4.0 * (fabs(z) + fabs(mean)) / deviation * fabs(weight);
        allowed[j] = 0x1p-24 * (weighted + before);
    }
}

static const struct bench_kind layer_norm = {.op = "layer_norm",
                                             .slot = BENCH_SLOT(layer_norm),
                                             .prepare = prepare_norm,
                                             .run = run_norm,
                                             .run_row = run_norm_row,
                                             .reference = reference_norm};
static const struct bench_kind layer_norm_residual = {.op = "layer_norm_residual",
                                                      .slot = BENCH_SLOT(layer_norm),
                                                      .prepare = prepare_norm_residual,
                                                      .run = run_norm,
                                                      .run_row = run_norm_row,
                                                      .reference = reference_norm};

/* ---- mean of everything: one row of one element -----------------------------------------------
 */

static t2k_status prepare_x(struct problem *p)
{
    return bench_floats(p, X, p->m * p->n, 1.0f);
}

static t2k_status run_mean(struct problem *p)
{
    return t2k_mean(p->m, p->n, p->in[X], p->n, p->out);
}

static t2k_status run_mean_row(struct problem *p, int64_t row, float *out)
{
    (void)row;
    return t2k_mean(p->m, p->n, p->in[X], p->n, out);
}

static void reference_mean(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    (void)row;
    double sum = 0.0, magnitude = 0.0, count = (double)p->m * (double)p->n;
    for (int64_t i = 0; i < p->m * p->n; i++) {
        sum += (double)p->in[X][i];
        magnitude += fabs((double)p->in[X][i]);
    }
    ref[0] = sum / count;
    /* One rounding to float; both sums in double have at most `count` roundings each. */
    allowed[0] = 0x1p-24 * fabs(ref[0]) + 2.0 * 0x1p-53 * magnitude;
}

static const struct bench_kind mean = {.op = "mean",
                                       .slot = BENCH_SLOT(row_sums),
                                       .prepare = prepare_x,
                                       .run = run_mean,
                                       .run_row = run_mean_row,
                                       .reference = reference_mean};

/* ---- embedding: ids (rows) into a table (1000, cols), the notebook's vocabulary
 * --------------------
 */

enum { VOCABULARY = 1000 };

static t2k_status prepare_embedding(struct problem *p)
{
    t2k_status status = bench_floats(p, X, VOCABULARY * p->n, 1.0f);
    return status != T2K_OK ? status : bench_ids(p, p->m, VOCABULARY);
}

static t2k_status run_embedding(struct problem *p)
{
    return t2k_embedding(p->m, p->n, VOCABULARY, p->in[X], p->n, p->ids, p->out, p->n);
}

static t2k_status run_embedding_row(struct problem *p, int64_t row, float *out)
{
    return t2k_embedding(1, p->n, VOCABULARY, p->in[X], p->n, p->ids + row, out, p->n);
}

static void reference_embedding(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    for (int64_t j = 0; j < p->n; j++) {
        ref[j] = (double)p->in[X][p->ids[row] * p->n + j];
        allowed[j] = 0.0;
    }
}

static const struct bench_kind embedding = {.op = "embedding",
                                            .slot = BENCH_SLOT(gather_rows),
                                            .prepare = prepare_embedding,
                                            .run = run_embedding,
                                            .run_row = run_embedding_row,
                                            .reference = reference_embedding};

/* ---- columns scaled ---------------------------------------------------------------------------
 */

static t2k_status prepare_scale(struct problem *p)
{
    t2k_status status = prepare_x(p);
    return status != T2K_OK ? status : bench_floats(p, SCALE, p->n, 2.0f);
}

static t2k_status run_scale(struct problem *p)
{
    return t2k_scale_columns(p->m, p->n, p->in[X], p->n, p->in[SCALE], p->out, p->n);
}

static t2k_status run_scale_row(struct problem *p, int64_t row, float *out)
{
    return t2k_scale_columns(1, p->n, p->in[X] + row * p->n, p->n, p->in[SCALE], out, p->n);
}

static void reference_scale(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    for (int64_t j = 0; j < p->n; j++) {
        ref[j] = (double)p->in[X][row * p->n + j] * (double)p->in[SCALE][j];
        allowed[j] = 0x1p-24 * fabs(ref[j]);
    }
}

static const struct bench_kind scale_columns = {.op = "scale_columns",
                                                .slot = BENCH_SLOT(scale_columns),
                                                .prepare = prepare_scale,
                                                .run = run_scale,
                                                .run_row = run_scale_row,
                                                .reference = reference_scale};

/* ---- shapes ---------------------------------------------------------------------------------- */

void bench_add_rows(struct bench_suite *suite)
{
    /* The notebook's rows; its attention rows; square; few long rows (a vocabulary). */
    static const int64_t shape[][2] = {{320, 256}, {2560, 10}, {1024, 1024}, {32, 32000}};
    enum { SHAPES = sizeof shape / sizeof shape[0] };
    for (size_t i = 0; i < SHAPES; i++) {
        add_rows(suite, &softmax, shape[i][0], shape[i][1], 2.0);
    }
    for (size_t i = 0; i < SHAPES; i++) {
        add_rows(suite, &layer_norm, shape[i][0], shape[i][1], 2.0);
    }
    for (size_t i = 0; i < SHAPES; i++) {
        add_rows(suite, &layer_norm_residual, shape[i][0], shape[i][1], 3.0);
    }
    struct problem *p = add_rows(suite, &mean, 320, 256, 1.0);
    if (p != NULL) {
        p->rows = p->cols = 1;
    }
    add_rows(suite, &embedding, 320, 256, 2.0);
    add_rows(suite, &scale_columns, 320, 256, 2.0);
}
