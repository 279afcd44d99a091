/* Matrix products: B as given in either orientation or packed once, batched with attention's
 * strides, and the rebuild of a weight matrix from its singular value decomposition. */
#include "ops.h"
#include "product.h"

#include <stdlib.h>
#include <string.h>

/* ---- C = op(A) op(B) ------------------------------------------------------------------------- */

static int describe(struct problem *p)
{
    int64_t m = p->dim[0], n = p->dim[1], k = p->dim[2];
    p->macs = (double)m * (double)n * (double)k;
    p->flops = 2.0 * p->macs;
    return bench_add_floats(p, BENCH_ACTIVATION, bench_elements(m, k, 1), 1.0f) ||
           bench_add_floats(p, BENCH_WEIGHT, bench_elements(n, k, 1), 1.0f) ||
           bench_set_result(p, m, n);
}

static struct bench_product product(const struct problem *p, const void *const in[])
{
    int64_t m = p->dim[0], n = p->dim[1], k = p->dim[2];
    int ta = p->op->trans_a == T2K_TRANS, tb = p->op->trans_b == T2K_TRANS;
    return (struct bench_product){.items = 1,
                                  .m = m,
                                  .n = n,
                                  .k = k,
                                  .a = in[0],
                                  .b = in[1],
                                  .a_m = ta ? 1 : k,
                                  .a_k = ta ? m : 1,
                                  .b_k = tb ? 1 : n,
                                  .b_n = tb ? k : 1,
                                  .c = 1.0};
}

static t2k_status reference(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    struct bench_product x = product(p, in);
    return bench_product_reference(&x, strict, count, rows, ref, allowed);
}

static int64_t check_all(const struct problem *p, const void *const in[], const float *out)
{
    struct bench_product x = product(p, in);
    return bench_product_check(&x, out);
}

static t2k_status run(void *state)
{
    const struct bench_bound *b = state;
    const struct bench_op *op = b->p->op;
    int64_t m = b->p->dim[0], n = b->p->dim[1], k = b->p->dim[2];
    return t2k_sgemm(op->trans_a, op->trans_b, m, n, k, 1.0f, b->in[0],
                     op->trans_a == T2K_TRANS ? m : k, b->in[1], op->trans_b == T2K_TRANS ? k : n,
                     0.0f, b->out, n, NULL);
}

static t2k_status open_packed(const struct problem *p, const void *const in[], float *out,
                              void **state)
{
    int64_t n = p->dim[1], k = p->dim[2];
    t2k_status status = bench_bound_open(p, in, out, state);
    if (status != T2K_OK) {
        return status;
    }
    struct bench_bound *bound = *state;
    size_t bytes = t2k_packed_b_bytes(k, n);
    bound->packed = bytes > 0 ? bench_alloc(bytes, 1) : NULL;
    status = bound->packed == NULL ? T2K_ERR_NOMEM
                                   : t2k_pack_b(p->op->trans_b, k, n, in[1], k, bound->packed);
    if (status != T2K_OK) {
        bench_bound_close(bound);
    }
    return status;
}

static t2k_status run_packed(void *state)
{
    const struct bench_bound *b = state;
    int64_t m = b->p->dim[0], n = b->p->dim[1], k = b->p->dim[2];
    return t2k_sgemm_packed(T2K_NO_TRANS, m, n, k, 1.0f, b->in[0], k, b->packed, 0.0f, b->out, n,
                            NULL);
}

#define PRODUCT(a, b)                                                                 \
    .dims = "m n k", .slot = BENCH_SLOT(gemm_strict), .trans_a = (a), .trans_b = (b), \
    .describe = describe, .reference = reference, .check_all = check_all,             \
    .t2k_close = bench_bound_close
#define IN_PLACE .t2k_open = bench_bound_open, .t2k_run = run

const struct bench_op bench_op_sgemm = {
    .name = "sgemm", PRODUCT(T2K_NO_TRANS, T2K_NO_TRANS), IN_PLACE};
const struct bench_op bench_op_sgemm_nt = {
    .name = "sgemm_nt", PRODUCT(T2K_NO_TRANS, T2K_TRANS), IN_PLACE};
const struct bench_op bench_op_sgemm_tn = {
    .name = "sgemm_tn", PRODUCT(T2K_TRANS, T2K_NO_TRANS), IN_PLACE};
const struct bench_op bench_op_sgemm_tt = {
    .name = "sgemm_tt", PRODUCT(T2K_TRANS, T2K_TRANS), IN_PLACE};
const struct bench_op bench_op_sgemm_packed = {.name = "sgemm_packed",
                                               PRODUCT(T2K_NO_TRANS, T2K_TRANS),
                                               .packed = 1,
                                               .t2k_open = open_packed,
                                               .t2k_run = run_packed};

/* ---- other classes of numerics: C = A B^T -------------------------------------------------------
 */

static t2k_status run_class(void *state)
{
    const struct bench_bound *b = state;
    int64_t m = b->p->dim[0], n = b->p->dim[1], k = b->p->dim[2];
    return t2k_sgemm_class(b->p->op == &bench_op_sgemm_bf16 ? T2K_BF16 : T2K_FAST, T2K_NO_TRANS,
                           T2K_TRANS, m, n, k, 1.0f, b->in[0], k, b->in[1], k, 0.0f, b->out, n,
                           NULL);
}

/* Any sensible order, whoever it is. */
static t2k_status reference_fast(const struct problem *p, const void *const in[], int strict,
                                 int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    (void)strict;
    return reference(p, in, 0, count, rows, ref, allowed);
}

/* A copy rounded to the upper half of a float, to nearest even; NULL: out of memory. */
static float *rounded(const float *x, int64_t count)
{
    float *copy = bench_alloc((size_t)count, sizeof *copy);
    for (int64_t i = 0; i < count && copy != NULL; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&copy[i], &bits, sizeof bits);
    }
    return copy;
}

/* Of the rounded operands; of all rows, so that no check of the whole is needed. */
static t2k_status reference_bf16(const struct problem *p, const void *const in[], int strict,
                                 int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    (void)strict;
    float *a = rounded(in[0], p->input[0].count), *b = rounded(in[1], p->input[1].count);
    const void *operands[] = {a, b};
    t2k_status status = a != NULL && b != NULL
                            ? reference(p, operands, 0, count, rows, ref, allowed)
                            : T2K_ERR_NOMEM;
    free(a);
    free(b);
    return status;
}

#define CLASS(dots, tiles)                                                                         \
    .dims = "m n k", .slot = BENCH_SLOT(dots), .also = BENCH_SLOT(tiles), .trans_a = T2K_NO_TRANS, \
    .trans_b = T2K_TRANS, .other_bits = 1, .describe = describe, .t2k_open = bench_bound_open,     \
    .t2k_run = run_class, .t2k_close = bench_bound_close

const struct bench_op bench_op_sgemm_fast = {.name = "sgemm_fast",
                                             CLASS(gemm_dots, gemm_fast),
                                             .reference = reference_fast,
                                             .check_all = check_all};
const struct bench_op bench_op_sgemm_bf16 = {
    .name = "sgemm_bf16", CLASS(gemm_rounded, gemm_bf16), .reference = reference_bf16};

/* ---- batched: the scores of attention, C[b] = A[:, b] B[:, b]^T in the layout (L, N, E) -------
 */

static int describe_batched(struct problem *p)
{
    int64_t b = p->dim[0], m = p->dim[1], n = p->dim[2], k = p->dim[3];
    p->macs = (double)b * (double)m * (double)n * (double)k;
    p->flops = 2.0 * p->macs;
    return bench_add_floats(p, BENCH_ACTIVATION, bench_elements(b, m, k), 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, bench_elements(b, n, k), 1.0f) ||
           bench_set_result(p, bench_elements(b, m, 1), n);
}

static struct bench_product product_batched(const struct problem *p, const void *const in[])
{
    int64_t b = p->dim[0], k = p->dim[3];
    return (struct bench_product){.items = b,
                                  .m = p->dim[1],
                                  .n = p->dim[2],
                                  .k = k,
                                  .a = in[0],
                                  .b = in[1],
                                  .a_m = b * k,
                                  .a_k = 1,
                                  .a_item = k,
                                  .b_k = 1,
                                  .b_n = b * k,
                                  .b_item = k,
                                  .c = 1.0};
}

static t2k_status reference_batched(const struct problem *p, const void *const in[], int strict,
                                    int64_t count, const int64_t *rows, double *ref,
                                    double *allowed)
{
    struct bench_product x = product_batched(p, in);
    return bench_product_reference(&x, strict, count, rows, ref, allowed);
}

static int64_t check_batched(const struct problem *p, const void *const in[], const float *out)
{
    struct bench_product x = product_batched(p, in);
    return bench_product_check(&x, out);
}

static t2k_status run_batched(void *state)
{
    const struct bench_bound *bound = state;
    const struct problem *p = bound->p;
    int64_t b = p->dim[0], m = p->dim[1], n = p->dim[2], k = p->dim[3];
    return t2k_sgemm_batched(T2K_NO_TRANS, T2K_TRANS, m, n, k, 1.0f, bound->in[0], b * k, k,
                             bound->in[1], b * k, k, 0.0f, bound->out, n, m * n, b, NULL);
}

const struct bench_op bench_op_sgemm_batched = {.name = "sgemm_batched",
                                                .dims = "b m n k",
                                                .slot = BENCH_SLOT(gemm_strict),
                                                .trans_a = T2K_NO_TRANS,
                                                .trans_b = T2K_TRANS,
                                                .describe = describe_batched,
                                                .reference = reference_batched,
                                                .check_all = check_batched,
                                                .t2k_open = bench_bound_open,
                                                .t2k_run = run_batched,
                                                .t2k_close = bench_bound_close};

/* ---- W = c U diag(s) V^T --------------------------------------------------------------------- */

static const float rebuild_c = 0.75f;

static int describe_rebuild(struct problem *p)
{
    int64_t m = p->dim[0], n = p->dim[1], r = p->dim[2];
    p->macs = (double)m * (double)n * (double)r;
    p->flops = 2.0 * p->macs;
    return bench_add_floats(p, BENCH_ACTIVATION, bench_elements(m, r, 1), 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, bench_elements(n, r, 1), 1.0f) ||
           bench_add_floats(p, BENCH_ACTIVATION, r, 2.0f) || bench_set_result(p, m, n);
}

static struct bench_product product_rebuild(const struct problem *p, const void *const in[])
{
    int64_t r = p->dim[2];
    return (struct bench_product){.items = 1,
                                  .m = p->dim[0],
                                  .n = p->dim[1],
                                  .k = r,
                                  .a = in[0],
                                  .b = in[1],
                                  .a_m = r,
                                  .a_k = 1,
                                  .b_k = 1,
                                  .b_n = r,
                                  .s = in[2],
                                  .c = (double)rebuild_c};
}

static t2k_status reference_rebuild(const struct problem *p, const void *const in[], int strict,
                                    int64_t count, const int64_t *rows, double *ref,
                                    double *allowed)
{
    struct bench_product x = product_rebuild(p, in);
    return bench_product_reference(&x, strict, count, rows, ref, allowed);
}

static int64_t check_rebuild(const struct problem *p, const void *const in[], const float *out)
{
    struct bench_product x = product_rebuild(p, in);
    return bench_product_check(&x, out);
}

static t2k_status run_rebuild(void *state)
{
    const struct bench_bound *b = state;
    int64_t m = b->p->dim[0], n = b->p->dim[1], r = b->p->dim[2];
    return t2k_svd_rebuild(T2K_NO_TRANS, m, n, r, rebuild_c, b->in[0], r, b->in[2], b->in[1], r,
                           b->out, n);
}

/* Straight into the form of weights packed once: what a change of experts computes. */
static t2k_status open_rebuild_packed(const struct problem *p, const void *const in[], float *out,
                                      void **state)
{
    t2k_status status = bench_bound_open(p, in, out, state);
    if (status != T2K_OK) {
        return status;
    }
    struct bench_bound *bound = *state;
    size_t bytes = t2k_packed_b_bytes(p->dim[1], p->dim[0]);
    bound->packed = bytes > 0 ? bench_alloc(bytes, 1) : NULL;
    if (bound->packed == NULL) {
        bench_bound_close(bound);
        return T2K_ERR_NOMEM;
    }
    return T2K_OK;
}

static t2k_status run_rebuild_packed(void *state)
{
    const struct bench_bound *b = state;
    int64_t m = b->p->dim[0], n = b->p->dim[1], r = b->p->dim[2];
    return t2k_svd_rebuild_packed(m, n, r, rebuild_c, b->in[0], r, b->in[2], b->in[1], r,
                                  b->packed);
}

/* W from its packed form: column p is the product with row p of the identity, which rounds nothing.
 */
static t2k_status unpack_rebuild(void *state)
{
    enum { STEP = 64 };
    const struct bench_bound *b = state;
    int64_t m = b->p->dim[0], n = b->p->dim[1];
    float *unit = calloc((size_t)(STEP * n), sizeof *unit);
    float *columns = bench_alloc((size_t)(STEP * m), sizeof *columns);
    t2k_status status = unit != NULL && columns != NULL ? T2K_OK : T2K_ERR_NOMEM;
    for (int64_t p = 0; p < n && status == T2K_OK; p += STEP) {
        int64_t count = n - p < STEP ? n - p : STEP;
        for (int64_t i = 0; i < count; i++) {
            unit[i * n + p + i] = 1.0f;
        }
        status = t2k_sgemm_packed(T2K_NO_TRANS, count, m, n, 1.0f, unit, n, b->packed, 0.0f,
                                  columns, m, NULL);
        for (int64_t i = 0; i < count; i++) {
            unit[i * n + p + i] = 0.0f;
            for (int64_t j = 0; j < m && status == T2K_OK; j++) {
                b->out[j * n + p + i] = columns[i * m + j];
            }
        }
    }
    free(unit);
    free(columns);
    return status;
}

#define REBUILD_OF                                                                  \
    .dims = "m n r", .slot = BENCH_SLOT(gemm_strict), .describe = describe_rebuild, \
    .reference = reference_rebuild, .check_all = check_rebuild, .t2k_close = bench_bound_close
#define REBUILD REBUILD_OF, .t2k_open = bench_bound_open, .t2k_run = run_rebuild

const struct bench_op bench_op_svd_rebuild = {.name = "svd_rebuild", REBUILD};
/* The same for us; the others multiply by diag(s) as a dense matrix, as the published code of
 * Transformer^2 does. */
const struct bench_op bench_op_svd_rebuild_dense = {.name = "svd_rebuild_dense", REBUILD};
const struct bench_op bench_op_expert_rebuild = {.name = "expert_rebuild",
                                                 REBUILD_OF,
                                                 .t2k_open = open_rebuild_packed,
                                                 .t2k_run = run_rebuild_packed,
                                                 .t2k_store = unpack_rebuild};
