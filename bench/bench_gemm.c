/* Matrix products: B as given in either orientation, B packed once, batched, and the rebuild of a
 * weight matrix from its singular value decomposition. Reference: plain sums in double. */
#include "bench.h"

#include <math.h>

enum { A, B, S }; /* inputs; of a rebuild: U, V, s */

/* Rounding of sum and magnitude by rule 1 of docs/numerics.md, in units of 2^-24 (see t2k.h). */
static double roundings(int64_t k)
{
    return (double)(k < T2K_CHUNK_K ? k : T2K_CHUNK_K) + (double)k / T2K_CHUNK_K + 3.0;
}

/* ---- C = A B, B (k, n) or, transposed, (n, k) ------------------------------------------------ */

static int64_t ldb_of(const struct problem *p)
{
    return p->kind->trans_b == T2K_TRANS ? p->k : p->n;
}

static t2k_status prepare(struct problem *p)
{
    t2k_status status = bench_floats(p, A, p->m * p->k, 1.0f);
    return status != T2K_OK ? status : bench_floats(p, B, p->k * p->n, 1.0f);
}

static t2k_status run(struct problem *p)
{
    return t2k_sgemm(T2K_NO_TRANS, p->kind->trans_b, p->m, p->n, p->k, 1.0f, p->in[A], p->k,
                     p->in[B], ldb_of(p), 0.0f, p->out, p->n, NULL);
}

static t2k_status run_packed(struct problem *p)
{
    return t2k_sgemm_packed(T2K_NO_TRANS, p->m, p->n, p->k, 1.0f, p->in[A], p->k, p->packed, 0.0f,
                            p->out, p->n, NULL);
}

static t2k_status run_row(struct problem *p, int64_t row, float *out)
{
    return t2k_sgemm(T2K_NO_TRANS, p->kind->trans_b, 1, p->n, p->k, 1.0f, p->in[A] + row * p->k,
                     p->k, p->in[B], ldb_of(p), 0.0f, out, p->n, NULL);
}

static void reference(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    int64_t b_k = p->kind->trans_b == T2K_TRANS ? 1 : p->n;
    int64_t b_n = p->kind->trans_b == T2K_TRANS ? p->k : 1;
    const float *a = p->in[A] + row * p->k;
    for (int64_t j = 0; j < p->n; j++) {
        double sum = 0.0, magnitude = 0.0;
        for (int64_t i = 0; i < p->k; i++) {
            double product = (double)a[i] * (double)p->in[B][i * b_k + j * b_n];
            sum += product;
            magnitude += fabs(product);
        }
        ref[j] = sum;
        allowed[j] = roundings(p->k) * 0x1p-24 * magnitude;
    }
}

static const struct bench_kind sgemm = {.op = "sgemm",
                                        .slot = BENCH_SLOT(gemm_strict),
                                        .prepare = prepare,
                                        .run = run,
                                        .run_row = run_row,
                                        .reference = reference,
                                        .trans_b = T2K_NO_TRANS};
static const struct bench_kind sgemm_nt = {.op = "sgemm_nt",
                                           .slot = BENCH_SLOT(gemm_strict),
                                           .prepare = prepare,
                                           .run = run,
                                           .run_row = run_row,
                                           .reference = reference,
                                           .trans_b = T2K_TRANS};
static const struct bench_kind sgemm_packed = {.op = "sgemm_packed",
                                               .slot = BENCH_SLOT(gemm_strict),
                                               .prepare = prepare,
                                               .run = run_packed,
                                               .run_row = run_row,
                                               .reference = reference,
                                               .trans_b = T2K_TRANS,
                                               .packed = 1};

static void add_product(struct bench_suite *suite, const struct bench_kind *kind, int64_t m,
                        int64_t n, int64_t k)
{
    struct problem *p =
        bench_add(suite, kind, "%lldx%lldx%lld", (long long)m, (long long)n, (long long)k);
    if (p == NULL) {
        return;
    }
    p->m = p->rows = m;
    p->n = p->cols = n;
    p->k = k;
    p->work = (double)m * (double)n * (double)k;
    p->flops = 2.0 * p->work;
    p->bytes = 4.0 * ((double)(m * k) + (double)(k * n) + (double)(m * n));
}

/* ---- batched: the scores of attention, C[b] = Q[b] K[b]^T in the layout (L, N, E) ------------ */
/* Named batch x M x N x K. */

static t2k_status prepare_batched(struct problem *p)
{
    int64_t width = p->items * p->k;
    t2k_status status = bench_floats(p, A, p->m * width, 1.0f);
    return status != T2K_OK ? status : bench_floats(p, B, p->n * width, 1.0f);
}

static t2k_status run_batched(struct problem *p)
{
    int64_t width = p->items * p->k;
    return t2k_sgemm_batched(T2K_NO_TRANS, T2K_TRANS, p->m, p->n, p->k, 1.0f, p->in[A], width, p->k,
                             p->in[B], width, p->k, 0.0f, p->out, p->n, p->m * p->n, p->items,
                             NULL);
}

static t2k_status run_batched_row(struct problem *p, int64_t row, float *out)
{
    int64_t width = p->items * p->k, item = row / p->m, i = row % p->m;
    return t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, 1, p->n, p->k, 1.0f,
                     p->in[A] + i * width + item * p->k, width, p->in[B] + item * p->k, width, 0.0f,
                     out, p->n, NULL);
}

static void reference_batched(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    int64_t width = p->items * p->k, item = row / p->m, i = row % p->m;
    for (int64_t j = 0; j < p->n; j++) {
        double sum = 0.0, magnitude = 0.0;
        for (int64_t d = item * p->k; d < (item + 1) * p->k; d++) {
            double product = (double)p->in[A][i * width + d] * (double)p->in[B][j * width + d];
            sum += product;
            magnitude += fabs(product);
        }
        ref[j] = sum;
        allowed[j] = roundings(p->k) * 0x1p-24 * magnitude;
    }
}

static const struct bench_kind batched = {.op = "sgemm_batched",
                                          .slot = BENCH_SLOT(gemm_strict),
                                          .prepare = prepare_batched,
                                          .run = run_batched,
                                          .run_row = run_batched_row,
                                          .reference = reference_batched,
                                          .trans_b = T2K_TRANS};

static void add_batched(struct bench_suite *suite, int64_t items, int64_t m, int64_t n, int64_t k)
{
    struct problem *p = bench_add(suite, &batched, "%lldx%lldx%lldx%lld", (long long)items,
                                  (long long)m, (long long)n, (long long)k);
    if (p == NULL) {
        return;
    }
    p->m = m;
    p->n = p->cols = n;
    p->k = k;
    p->items = items;
    p->rows = items * m;
    p->work = (double)items * (double)m * (double)n * (double)k;
    p->flops = 2.0 * p->work;
    p->bytes = 4.0 * (double)items * (double)(m * k + k * n + m * n);
}

/* ---- W = c U diag(s) V^T --------------------------------------------------------------------- */

static const float rebuild_c = 0.75f;

static t2k_status prepare_rebuild(struct problem *p)
{
    t2k_status status = bench_floats(p, A, p->m * p->k, 1.0f);
    if (status == T2K_OK) {
        status = bench_floats(p, B, p->n * p->k, 1.0f);
    }
    return status != T2K_OK ? status : bench_floats(p, S, p->k, 2.0f);
}

static t2k_status run_rebuild(struct problem *p)
{
    return t2k_svd_rebuild(T2K_NO_TRANS, p->m, p->n, p->k, rebuild_c, p->in[A], p->k, p->in[S],
                           p->in[B], p->k, p->out, p->n);
}

static t2k_status run_rebuild_row(struct problem *p, int64_t row, float *out)
{
    return t2k_svd_rebuild(T2K_NO_TRANS, 1, p->n, p->k, rebuild_c, p->in[A] + row * p->k, p->k,
                           p->in[S], p->in[B], p->k, out, p->n);
}

static void reference_rebuild(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    const float *u = p->in[A] + row * p->k;
    for (int64_t j = 0; j < p->n; j++) {
        const float *v = p->in[B] + j * p->k;
        double sum = 0.0, magnitude = 0.0;
        for (int64_t i = 0; i < p->k; i++) {
            double product = (double)u[i] * (double)p->in[S][i] * (double)v[i];
            sum += product;
            magnitude += fabs(product);
        }
        ref[j] = (double)rebuild_c * sum;
        allowed[j] = (roundings(p->k) + 1.0) * 0x1p-24 * (double)rebuild_c * magnitude;
    }
}

static const struct bench_kind svd_rebuild = {.op = "svd_rebuild",
                                              .slot = BENCH_SLOT(gemm_strict),
                                              .prepare = prepare_rebuild,
                                              .run = run_rebuild,
                                              .run_row = run_rebuild_row,
                                              .reference = reference_rebuild};

/* ---- shapes ---------------------------------------------------------------------------------- */

/* Products are named MxNxK. 320 rows are the notebook's example: length 10, batch 32. */
void bench_add_gemm(struct bench_suite *suite)
{
    static const int64_t seed[][3] = {
        {320, 768, 256}, {320, 1024, 256}, {320, 256, 1024}, {320, 1000, 256}};
    add_product(suite, &sgemm, 512, 512, 512);
    add_product(suite, &sgemm, 320, 768, 256);
    add_product(suite, &sgemm, 63, 65, 67);
    add_product(suite, &sgemm, 10, 10, 32);
    for (size_t i = 0; i < sizeof seed / sizeof seed[0]; i++) {
        add_product(suite, &sgemm_nt, seed[i][0], seed[i][1], seed[i][2]);
    }
    for (size_t i = 0; i < sizeof seed / sizeof seed[0]; i++) {
        add_product(suite, &sgemm_packed, seed[i][0], seed[i][1], seed[i][2]);
    }
    add_product(suite, &sgemm_packed, 1, 4096, 1024);
    add_product(suite, &sgemm_packed, 8, 4096, 1024);
    add_batched(suite, 256, 10, 10, 32);
    static const int64_t square[] = {256, 1024};
    for (size_t i = 0; i < sizeof square / sizeof square[0]; i++) {
        add_product(suite, &svd_rebuild, square[i], square[i], square[i]);
    }
}
