/* Elementwise kernels. A "row" of the result is a segment of the array, so that a part of a large
 * result can be checked: an element's bits do not depend on the length of the call. */
#include "bench.h"

#include <math.h>

enum { X, Z };
enum { SEGMENT = 256 }; /* every length below is a multiple */

static int64_t length(const struct problem *p)
{
    return p->rows * p->cols;
}

/* ---- one operand ----------------------------------------------------------------------------- */

static t2k_status prepare_exp(struct problem *p)
{
    return bench_floats(p, X, length(p), 80.0f);
}

static t2k_status run_exp(struct problem *p)
{
    return t2k_exp(length(p), p->in[X], p->out);
}

static t2k_status run_exp_row(struct problem *p, int64_t row, float *out)
{
    return t2k_exp(p->cols, p->in[X] + row * p->cols, out);
}

static void reference_exp(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = exp((double)p->in[X][row * p->cols + j]);
        allowed[j] = 0x1p-23 * ref[j]; /* 1 ULP; the arguments give no denormals */
    }
}

static t2k_status prepare_relu(struct problem *p)
{
    return bench_floats(p, X, length(p), 1.0f);
}

static t2k_status run_relu(struct problem *p)
{
    return t2k_relu(length(p), p->in[X], p->out);
}

static t2k_status run_relu_row(struct problem *p, int64_t row, float *out)
{
    return t2k_relu(p->cols, p->in[X] + row * p->cols, out);
}

static void reference_relu(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    for (int64_t j = 0; j < p->cols; j++) {
        float x = p->in[X][row * p->cols + j];
        ref[j] = x < 0.0f ? 0.0 : (double)x;
        allowed[j] = 0.0;
    }
}

/* ---- sum of two ------------------------------------------------------------------------------ */

static t2k_status prepare_add(struct problem *p)
{
    t2k_status status = bench_floats(p, X, length(p), 1.0f);
    return status != T2K_OK ? status : bench_floats(p, Z, length(p), 3.0f);
}

static t2k_status run_add(struct problem *p)
{
    return t2k_add(length(p), p->in[X], p->in[Z], p->out);
}

static t2k_status run_add_row(struct problem *p, int64_t row, float *out)
{
    return t2k_add(p->cols, p->in[X] + row * p->cols, p->in[Z] + row * p->cols, out);
}

static void reference_add(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    for (int64_t j = 0; j < p->cols; j++) {
        ref[j] = (double)p->in[X][row * p->cols + j] + (double)p->in[Z][row * p->cols + j];
        allowed[j] = 0x1p-24 * fabs(ref[j]);
    }
}

/* ---- dropout ----------------------------------------------------------------------------------
 */

static const float drop = 0.25f;
static const t2k_dropout_key key = {42, 1, 2};

static t2k_status run_dropout(struct problem *p)
{
    return t2k_dropout(length(p), p->in[X], drop, key, 0, p->out);
}

static t2k_status run_dropout_row(struct problem *p, int64_t row, float *out)
{
    return t2k_dropout(p->cols, p->in[X] + row * p->cols, drop, key,
                       (uint64_t)row * (uint64_t)p->cols, out);
}

/* Element e is kept when word e mod 4 of block e / 4 reaches p * 2^32: rule 20. */
static void reference_dropout(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    const uint32_t seed[2] = {(uint32_t)key.seed, (uint32_t)(key.seed >> 32)};
    for (int64_t j = 0; j < p->cols; j++) {
        uint64_t element = (uint64_t)(row * p->cols + j);
        uint64_t block = element / 4;
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), key.layer, key.site};
        uint32_t word[4];
        t2k_philox4x32(counter, seed, word);
        int kept = (double)word[element % 4] >= (double)drop * 0x1p32;
        ref[j] = kept ? (double)p->in[X][element] / (1.0 - (double)drop) : 0.0;
        allowed[j] = 2.0 * 0x1p-24 * fabs(ref[j]); /* the multiplier's rounding, the product's */
    }
}

/* ---- kinds and shapes -------------------------------------------------------------------------
 */

static const struct bench_kind kinds[] = {
    {.op = "exp",
     .slot = BENCH_SLOT(exp),
     .prepare = prepare_exp,
     .run = run_exp,
     .run_row = run_exp_row,
     .reference = reference_exp},
    {.op = "relu",
     .slot = BENCH_SLOT(relu),
     .prepare = prepare_relu,
     .run = run_relu,
     .run_row = run_relu_row,
     .reference = reference_relu},
    {.op = "add",
     .slot = BENCH_SLOT(add),
     .prepare = prepare_add,
     .run = run_add,
     .run_row = run_add_row,
     .reference = reference_add},
    {.op = "dropout",
     .slot = BENCH_SLOT(dropout),
     .prepare = prepare_relu,
     .run = run_dropout,
     .run_row = run_dropout_row,
     .reference = reference_dropout},
};

void bench_add_elementwise(struct bench_suite *suite)
{
    /* The notebook's activations (320, 256) in cache; more than an L2 cache holds. */
    static const int64_t lengths[] = {81920, 1 << 20};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        for (size_t s = 0; s < sizeof lengths / sizeof lengths[0]; s++) {
            struct problem *p = bench_add(suite, &kinds[i], "%lld", (long long)lengths[s]);
            if (p == NULL) {
                return;
            }
            p->rows = lengths[s] / SEGMENT;
            p->cols = SEGMENT;
            p->work = 4.0 * (double)lengths[s];
            p->bytes = 4.0 * (kinds[i].run == run_add ? 3.0 : 2.0) * (double)lengths[s];
        }
    }
}
