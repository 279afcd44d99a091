/* Linear layers under singular value experts, y = x W'^T with W' = U diag(s') V^T and
 * r = min(m, n): one expert for all rows or another one for every row by two products that all rows
 * share, and what takes their place without those, a rebuilt W' for each row in turn. */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS, OUT, IN };
enum { X, U, V, S }; /* inputs */

static int64_t rank_of(const struct problem *p)
{
    return p->dim[OUT] < p->dim[IN] ? p->dim[OUT] : p->dim[IN];
}

static int64_t experts_of(const struct problem *p)
{
    return p->op == &bench_op_expert ? 1 : p->dim[ROWS];
}

/* Which expert a row has. Not its own number: the scales are gathered. */
static int64_t expert_of(const struct problem *p, int64_t row)
{
    return p->op == &bench_op_expert ? 0 : p->dim[ROWS] - 1 - row;
}

static int describe(struct problem *p)
{
    const int64_t rows = p->dim[ROWS], m = p->dim[OUT], n = p->dim[IN], r = rank_of(p);
    const double all = (double)rows * (double)r;
    p->macs = p->op == &bench_op_expert_turns
                  ? (double)rows * (double)m * (double)n * ((double)r + 1.0)
                  : all * ((double)m + (double)n);
    p->flops = 2.0 * p->macs;
    return bench_add_floats(p, BENCH_ACTIVATION, bench_elements(rows, n, 1), 1.0f) ||
           bench_add_floats(p, BENCH_WEIGHT, bench_elements(m, r, 1), 1.0f) ||
           bench_add_floats(p, BENCH_WEIGHT, bench_elements(n, r, 1), 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, bench_elements(experts_of(p), r, 1), 2.0f) ||
           bench_set_result(p, rows, m);
}

/* ---- reference ------------------------------------------------------------------------------- */

/* Sums of terms, of their absolute values and of their squares. */
struct sums {
    double value, magnitude, squares;
};

static void add_term(struct sums *to, const struct sums *x, double factor)
{
    to->value += x->value * factor;
    to->magnitude += x->magnitude * fabs(factor);
    to->squares += x->squares * factor * factor;
}

/* The terms are x_p v_pk s_k u_jk, summed over p and k in either order. Each order makes a chain of
 * n and one of r terms, whose errors add up as ops.h says of one: the magnitudes of both are those
 * of the terms, and so are, for independent operands, their mean squares. */
static double allowed_error(const struct problem *p, const struct sums *sums)
{
    const double n = (double)p->dim[IN], r = (double)rank_of(p);
    const double always = (n + r + 6.0) * BENCH_U * sums->magnitude;
    const double random = 12.0 * (sqrt(n) + sqrt(r) + 6.0) * BENCH_U * sqrt(sums->squares);
    return fmin(always, random);
}

static void reference_row(const struct problem *p, const void *const in[], int strict, int64_t row,
                          double *ref, double *allowed)
{
    (void)strict;
    const int64_t m = p->dim[OUT], n = p->dim[IN], r = rank_of(p);
    const float *x = (const float *)in[X] + row * n, *u = in[U], *v = in[V];
    const float *s = (const float *)in[S] + expert_of(p, row) * r;
    struct sums *middle = calloc((size_t)r, sizeof *middle);
    for (int64_t j = 0; middle == NULL && j < m; j++) { /* which fails the verification */
        ref[j] = allowed[j] = NAN;
    }
    if (middle == NULL) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const double xi = (double)x[i];
        const struct sums one = {xi, fabs(xi), xi * xi};
        for (int64_t k = 0; k < r; k++) {
            add_term(&middle[k], &one, (double)v[i * r + k]);
        }
    }
    for (int64_t j = 0; j < m; j++) {
        struct sums sums = {0.0, 0.0, 0.0};
        for (int64_t k = 0; k < r; k++) {
            add_term(&sums, &middle[k], (double)s[k] * (double)u[j * r + k]);
        }
        ref[j] = sums.value;
        allowed[j] = allowed_error(p, &sums);
    }
    free(middle);
}

static t2k_status reference(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    return bench_reference_by_rows(reference_row, p, in, strict, count, rows, ref, allowed);
}

/* ---- our own --------------------------------------------------------------------------------- */

struct layer {
    const struct problem *p;
    const void *in[BENCH_INPUTS];
    float *out;
    void *packed_v, *packed_u; /* (n, r), (r, m) */
    void *rebuilt;             /* (n, m): W'^T of one row's expert */
    int64_t *expert;           /* (rows) */
    float *middle;             /* (rows, r) */
};

static void close_layer(void *state)
{
    struct layer *layer = state;
    if (layer != NULL) {
        free(layer->packed_v);
        free(layer->packed_u);
        free(layer->rebuilt);
        free(layer->expert);
        if (layer->middle != NULL) {
            bench_scratch_give(layer->p);
        }
        free(layer);
    }
}

/* Room for op(B) (k, n), packed where B is given. */
static t2k_status pack(t2k_transpose trans, int64_t k, int64_t n, const float *B, int64_t ldb,
                       void **packed)
{
    const size_t bytes = t2k_packed_b_bytes(k, n);
    *packed = bytes > 0 ? bench_alloc(bytes, 1) : NULL;
    return *packed == NULL ? T2K_ERR_NOMEM
           : B != NULL     ? t2k_pack_b(trans, k, n, B, ldb, *packed)
                           : T2K_OK;
}

static t2k_status open_layer(const struct problem *p, const void *const in[], float *out,
                             void **state)
{
    const int64_t rows = p->dim[ROWS], m = p->dim[OUT], n = p->dim[IN], r = rank_of(p);
    struct layer *layer = calloc(1, sizeof *layer);
    if (layer == NULL) {
        return T2K_ERR_NOMEM;
    }
    layer->p = p;
    layer->out = out;
    memcpy(layer->in, in, (size_t)p->inputs * sizeof *in);
    t2k_status status = T2K_OK;
    if (p->op == &bench_op_expert_turns) {
        status = pack(T2K_TRANS, n, m, NULL, 0, &layer->rebuilt);
    } else {
        layer->expert = bench_alloc((size_t)rows, sizeof layer->expert[0]);
        layer->middle = bench_scratch_take(p, (size_t)(rows * r) * sizeof(float));
        status = layer->expert == NULL || layer->middle == NULL
                     ? T2K_ERR_NOMEM
                     : pack(T2K_NO_TRANS, n, r, in[V], r, &layer->packed_v);
        if (status == T2K_OK) {
            status = pack(T2K_TRANS, r, m, in[U], r, &layer->packed_u);
        }
    }
    for (int64_t i = 0; layer->expert != NULL && i < rows; i++) {
        layer->expert[i] = expert_of(p, i);
    }
    if (status != T2K_OK) {
        close_layer(layer);
        return status;
    }
    *state = layer;
    return T2K_OK;
}

/* y = ((x V) * s') U^T, the scale in the epilogue of the first product. */
static t2k_status run_factored(void *state)
{
    const struct layer *l = state;
    const int64_t rows = l->p->dim[ROWS], m = l->p->dim[OUT], n = l->p->dim[IN], r = rank_of(l->p);
    t2k_epilogue e = {.size = sizeof e, .scale = l->in[S]};
    if (l->p->op != &bench_op_expert) {
        e.scale_rows = l->expert;
        e.scale_count = rows;
        e.lds = r;
    }
    const t2k_status status = t2k_sgemm_packed(T2K_NO_TRANS, rows, r, n, 1.0f, l->in[X], n,
                                               l->packed_v, 0.0f, l->middle, r, &e);
    return status != T2K_OK ? status
                            : t2k_sgemm_packed(T2K_NO_TRANS, rows, m, r, 1.0f, l->middle, r,
                                               l->packed_u, 0.0f, l->out, m, NULL);
}

static t2k_status run_turns(void *state)
{
    const struct layer *l = state;
    const int64_t rows = l->p->dim[ROWS], m = l->p->dim[OUT], n = l->p->dim[IN], r = rank_of(l->p);
    const float *x = l->in[X], *s = l->in[S];
    t2k_status status = T2K_OK;
    for (int64_t i = 0; i < rows && status == T2K_OK; i++) {
        status = t2k_svd_rebuild_packed(m, n, r, 1.0f, l->in[U], r, s + expert_of(l->p, i) * r,
                                        l->in[V], r, l->rebuilt);
        if (status == T2K_OK) {
            status = t2k_sgemm_packed(T2K_NO_TRANS, 1, m, n, 1.0f, x + i * n, n, l->rebuilt, 0.0f,
                                      l->out + i * m, m, NULL);
        }
    }
    return status;
}

#define LAYER                                                                  \
    .dims = "rows m n", .slot = BENCH_SLOT(gemm_strict), .describe = describe, \
    .reference = reference, .one_bound = 1, .t2k_open = open_layer, .t2k_close = close_layer

const struct bench_op bench_op_expert = {.name = "expert", LAYER, .t2k_run = run_factored};
const struct bench_op bench_op_expert_rows = {
    .name = "expert_rows", LAYER, .t2k_run = run_factored};
/* Its reference costs as much as that of the others. */
const struct bench_op bench_op_expert_turns = {
    .name = "expert_turns", LAYER, .t2k_run = run_turns, .full_macs = 0x1p44};
