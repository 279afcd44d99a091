/* Suite gemm_api: batches, teams, packed blobs and refused arguments of the matrix product. */
#include "matrix_gemm_case.h"

#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- batches -------------------------------------------------------------------------------- */

struct batch {
    int64_t m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c, stride_r, count;
    int threads;
};

static size_t reach(int64_t count, int64_t stride, int64_t rows, int64_t ld, int64_t cols)
{
    return (size_t)((count - 1) * stride + (rows - 1) * ld + cols);
}

static void one_batch(struct matrix *m, const struct batch *b)
{
    struct guarded ga, gb, gc, gr;
    const size_t c_count = reach(b->count, b->stride_c, b->m, b->ldc, b->n);
    const size_t a_count = reach(b->count, b->stride_a, b->m, b->lda, b->k);
    const size_t b_count = reach(b->count, b->stride_b, b->n, b->ldb, b->k);
    const size_t r_count = reach(b->count, b->stride_r, b->m, b->n, b->n);
    float *A = guarded_floats(&ga, a_count), *B = guarded_floats(&gb, b_count);
    float *C = guarded_floats(&gc, c_count), *R = guarded_floats(&gr, r_count);
    float *want = malloc(c_count * sizeof *want);
    rng_fill(&m->rng, A, a_count);
    rng_fill(&m->rng, B, b_count);
    rng_fill(&m->rng, R, r_count);
    rng_fill(&m->rng, C, c_count);
    memcpy(want, C, c_count * sizeof *want);
    guarded_seal(&ga);
    guarded_seal(&gb);
    guarded_seal(&gr);
    t2k_epilogue e = {.size = sizeof e, .residual = R, .ldr = b->n, .stride_residual = b->stride_r};
    for (int64_t i = 0; i < b->count; i++) {
        t2k_epilogue own = e;
        own.residual = R + i * b->stride_r;
        ref_sgemm_strict(T2K_NO_TRANS, T2K_TRANS, (size_t)b->m, (size_t)b->n, (size_t)b->k, 0.5f,
                         A + i * b->stride_a, (size_t)b->lda, B + i * b->stride_b, (size_t)b->ldb,
                         0.75f, want + i * b->stride_c, (size_t)b->ldc, &own);
    }
    t2k_set_num_threads(b->threads);
    const t2k_status status =
        t2k_sgemm_batched(T2K_NO_TRANS, T2K_TRANS, b->m, b->n, b->k, 0.5f, A, b->lda, b->stride_a,
                          B, b->ldb, b->stride_b, 0.75f, C, b->ldc, b->stride_c, b->count, &e);
    t2k_set_num_threads(0);
    matrix_check(m, status == T2K_OK && guarded_intact(&gc), "batch: %s", t2k_status_str(status));
    matrix_same(m, C, want, c_count, "batch of %d, %dx%dx%d, threads %d", (int)b->count, (int)b->m,
                (int)b->n, (int)b->k, b->threads);
    matrix_result(m, 0, C, c_count);
    free(want);
    guarded_free(&ga);
    guarded_free(&gb);
    guarded_free(&gc);
    guarded_free(&gr);
}

static void batches(struct matrix *m)
{
    static const struct batch all[] = {
        {10, 10, 32, 32, 32, 10, 320, 320, 100, 100, 7, 1},
        {10, 10, 32, 32, 32, 10, 320, 320, 100, 100, 7, 3},
        {5, 33, 70, 71, 70, 33, 400, 0, 170, 0, 2, 4}, /* one B and one residual for all */
        {5, 33, 270, 271, 270, 33, 0, 9000, 170, 200, 3, 2},
        {4, 9, 8, 40, 40, 45, 8, 8, 9, 40, 5, 2}, /* interleaved, as attention heads are */
        {40, 50, 20, 20, 20, 50, 800, 1000, 2000, 2000, 1, 4},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        one_batch(m, &all[i]);
    }
}

/* ---- teams ---------------------------------------------------------------------------------- */

struct chain {
    const float *A, *B;
    const void *packed;
    float *X, *Y;
    t2k_status status[4];
};
enum { ROWS = 33, WIDTH = 70 };

/* Y = (A B) B: the second product reads what other threads wrote in the first. */
static void chain_body(t2k_team *team, void *arg)
{
    struct chain *c = arg;
    t2k_status s = t2k_sgemm_team(team, T2K_NO_TRANS, T2K_NO_TRANS, ROWS, WIDTH, WIDTH, 1.0f, c->A,
                                  WIDTH, c->B, WIDTH, 0.0f, c->X, WIDTH, NULL);
    if (s == T2K_OK) {
        s = t2k_sgemm_packed_team(team, T2K_NO_TRANS, ROWS, WIDTH, WIDTH, 1.0f, c->X, WIDTH,
                                  c->packed, 0.0f, c->Y, WIDTH, NULL);
    }
    c->status[t2k_team_rank(team)] = s;
}

static void refused_body(t2k_team *team, void *arg)
{
    struct chain *c = arg;
    c->status[t2k_team_rank(team)] = t2k_sgemm_team(team, T2K_NO_TRANS, T2K_NO_TRANS, -1, 1, 1,
                                                    1.0f, c->A, 1, c->B, 1, 0.0f, c->X, 1, NULL);
}

static void teams(struct matrix *m)
{
    float A[ROWS * WIDTH], B[WIDTH * WIDTH], X[ROWS * WIDTH], Y[ROWS * WIDTH], want[ROWS * WIDTH];
    rng_fill(&m->rng, A, ROWS * WIDTH);
    rng_fill(&m->rng, B, WIDTH * WIDTH);
    ref_sgemm_strict(T2K_NO_TRANS, T2K_NO_TRANS, ROWS, WIDTH, WIDTH, 1.0f, A, WIDTH, B, WIDTH, 0.0f,
                     X, WIDTH, NULL);
    ref_sgemm_strict(T2K_NO_TRANS, T2K_NO_TRANS, ROWS, WIDTH, WIDTH, 1.0f, X, WIDTH, B, WIDTH, 0.0f,
                     want, WIDTH, NULL);
    void *packed = t2k_alloc(t2k_packed_b_bytes(WIDTH, WIDTH));
    t2k_pack_b(T2K_NO_TRANS, WIDTH, WIDTH, B, WIDTH, packed);
    for (int n = 1; n <= 4; n++) {
        struct chain c = {A, B, packed, X, Y, {T2K_OK, T2K_OK, T2K_OK, T2K_OK}};
        memset(X, 0, sizeof X);
        memset(Y, 0, sizeof Y);
        t2k_status status = t2k_parallel(n, chain_body, &c);
        for (int r = 0; r < n; r++) {
            status = c.status[r] != T2K_OK ? c.status[r] : status;
        }
        matrix_check(m, status == T2K_OK, "team of %d: %s", n, t2k_status_str(status));
        matrix_same(m, Y, want, ROWS * WIDTH, "two products by a team of %d", n);
        t2k_parallel(n, refused_body, &c);
        for (int r = 0; r < n; r++) {
            matrix_check(m, c.status[r] == T2K_ERR_ARG, "a refusal reaches rank %d of %d", r, n);
        }
    }
    matrix_result(m, 0, Y, ROWS * WIDTH);
    t2k_release(packed);
}

/* ---- refusals ------------------------------------------------------------------------------- */

#define NN T2K_NO_TRANS, T2K_NO_TRANS

static void refused(struct matrix *m, t2k_status got, t2k_status want, const char *what)
{
    matrix_check(m, got == want, "%s: %s, expected %s", what, t2k_status_str(got),
                 t2k_status_str(want));
}

static void refused_products(struct matrix *m)
{
    float A[12] = {0}, B[12] = {0}, C[12];
    const t2k_status bad = T2K_ERR_ARG;
    const int64_t big = INT64_MAX / 2;
    for (int i = 0; i < 12; i++) {
        C[i] = 7.0f;
    }
    refused(m, t2k_sgemm(NN, -1, 3, 4, 1, A, 4, B, 3, 0, C, 3, NULL), bad, "m < 0");
    refused(m, t2k_sgemm(NN, 3, -1, 4, 1, A, 4, B, 3, 0, C, 3, NULL), bad, "n < 0");
    refused(m, t2k_sgemm(NN, 3, 3, -1, 1, A, 4, B, 3, 0, C, 3, NULL), bad, "k < 0");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 3, B, 3, 0, C, 3, NULL), bad, "lda");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 2, 0, C, 3, NULL), bad, "ldb");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 2, NULL), bad, "ldc");
    refused(m, t2k_sgemm(NN, 0, 0, 0, 1, A, 0, B, 1, 0, C, 1, NULL), bad, "lda = 0");
    refused(m, t2k_sgemm(T2K_TRANS, T2K_NO_TRANS, 3, 3, 4, 1, A, 2, B, 3, 0, C, 3, NULL), bad,
            "lda, transposed");
    refused(m, t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, NULL), bad,
            "ldb, transposed");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, NULL, 4, B, 3, 0, C, 3, NULL), bad, "A = NULL");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, NULL, 3, 0, C, 3, NULL), bad, "B = NULL");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, NULL, 3, NULL), bad, "C = NULL");
    refused(m, t2k_sgemm(NN, big, 3, 4, 1, A, 4, B, 3, 0, C, 3, NULL), bad, "m too large");
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, big, B, 3, 0, C, 3, NULL), bad, "lda too large");
    refused(m, t2k_sgemm((t2k_transpose)0, T2K_TRANS, 3, 3, 4, 1, A, 4, B, 4, 0, C, 3, NULL), bad,
            "trans_a");
    refused(m, t2k_sgemm(T2K_TRANS, (t2k_transpose)113, 3, 3, 4, 1, A, 4, B, 4, 0, C, 3, NULL), bad,
            "trans_b");
    refused(m, t2k_sgemm_team(NULL, NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, NULL), bad, "no team");
    t2k_epilogue e = {.size = sizeof e - 1};
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "epilogue size");
    const int64_t ids[4] = {0, 1, 1, 0}, outside[4] = {0, 1, 2, 0}, negative[4] = {0, -1, 0, 0};
    e = (t2k_epilogue){.size = sizeof e, .scale = B, .lds = 3, .scale_count = 2};
    e.scale_rows = outside;
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "scale id too large");
    e.scale_rows = negative;
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "scale id < 0");
    e.scale_rows = ids;
    e.lds = 2;
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "lds");
    e = (t2k_epilogue){.size = sizeof e, .scale_rows = ids, .lds = 3, .scale_count = 2};
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "no scale matrix");
    e = (t2k_epilogue){
        .size = sizeof e, .scale = B, .scale_rows = ids, .lds = 3, .scale_count = -1};
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "scale_count < 0");
    e = (t2k_epilogue){.size = sizeof e, .activation = (t2k_activation)9};
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "activation");
    e = (t2k_epilogue){.size = sizeof e, .residual = B, .ldr = 2};
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "ldr");
    e = (t2k_epilogue){.size = sizeof e, .residual = C, .ldr = 4};
    refused(m, t2k_sgemm(NN, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, &e), bad, "residual = C, ldr != ldc");
    e.ldr = 3;
    refused(m, t2k_sgemm(NN, 1, 1, 257, 1, A, 257, B, 3, 0, C, 3, &e), bad,
            "residual = C, k > 256");
    refused(m, t2k_sgemm_batched(NN, 1, 1, 1, 1, A, 1, 1, B, 1, 1, 0, C, 1, 1, -1, NULL), bad,
            "batch < 0");
    refused(m, t2k_sgemm_batched(NN, 1, 1, 1, 1, A, 1, -1, B, 1, 1, 0, C, 1, 1, 2, NULL), bad,
            "stride_a < 0");
    refused(m, t2k_sgemm_batched(NN, 1, 1, 1, 1, A, 1, 1, B, 1, 1, 0, C, 1, 0, 2, NULL), bad,
            "stride_c = 0");
    refused(m, t2k_sgemm_batched(NN, 2, 2, 1, 1, A, 1, 1, B, 2, 1, 0, C, 2, 1, 2, NULL), bad,
            "overlapping outputs");
    float one = 7.0f;
    matrix_check(m, t2k_sgemm(NN, 1, 1, 4, 1, A, big, B, 1, 0, &one, 1, NULL) == T2K_OK,
                 "one row may have any stride");
    refused(m, t2k_sgemm_batched(NN, 1, 1, 1, 1, A, 1, big, B, 1, 1, 0, C, 1, 1, 9, NULL), bad,
            "stride_a too large");
    for (int i = 0; i < 12; i++) {
        matrix_check(m, C[i] == 7.0f, "a refused product wrote C[%d]", i);
    }
    refused(m, t2k_sgemm(NN, 0, 3, 0, 1, NULL, 1, NULL, 3, 0, NULL, 3, NULL), T2K_OK, "empty");
    refused(m, t2k_sgemm_batched(NN, 1, 1, 1, 1, A, 1, 1, B, 1, 1, 0, C, 1, 1, 0, NULL), T2K_OK,
            "empty batch");
}

/* The epilogue as it was before scale_rows: its size is accepted, and what lies behind not read. */
static void older_epilogue(struct matrix *m)
{
    const float A[2] = {1.0f, 2.0f}, B[1] = {3.0f}, bias[1] = {0.5f};
    const int64_t ids[2] = {7, 7};
    float C[2];
    const t2k_epilogue e = {
        .size = offsetof(t2k_epilogue, scale_rows), .bias = bias, .scale_rows = ids};
    const t2k_status status = t2k_sgemm(NN, 2, 1, 1, 1, A, 1, B, 1, 0, C, 1, &e);
    matrix_check(m, status == T2K_OK && C[0] == 3.5f && C[1] == 6.5f, "older epilogue: %s",
                 t2k_status_str(status));
}

static void refused_blobs(struct matrix *m)
{
    float A[12] = {0}, B[12] = {0}, C[12] = {0};
    const t2k_status bad = T2K_ERR_ARG;
    const size_t bytes = t2k_packed_b_bytes(4, 3);
    unsigned char *blob = t2k_alloc(bytes + T2K_ALIGN);
    matrix_check(m, bytes >= 4 * 3 * sizeof(float) && bytes % T2K_ALIGN == 0, "%zu bytes", bytes);
    matrix_check(m,
                 t2k_packed_b_bytes(-1, 3) == 0 && t2k_packed_b_bytes(4, -3) == 0 &&
                     t2k_packed_b_bytes(INT64_MAX / 8, 9) == 0 &&
                     t2k_packed_b_bytes(4, INT64_MAX) == 0,
                 "sizes out of range");
    refused(m, t2k_pack_b(T2K_NO_TRANS, 4, 3, B, 3, NULL), bad, "packed = NULL");
    refused(m, t2k_pack_b(T2K_NO_TRANS, 4, 3, B, 2, blob), bad, "ldb");
    refused(m, t2k_pack_b(T2K_NO_TRANS, -4, 3, B, 3, blob), bad, "k < 0");
    refused(m, t2k_pack_b((t2k_transpose)1, 4, 3, B, 4, blob), bad, "trans_b");
    refused(m, t2k_pack_b(T2K_NO_TRANS, 4, 3, NULL, 3, blob), bad, "B = NULL");
    refused(m, t2k_pack_b(T2K_NO_TRANS, 4, 3, B, 3, blob + 4), T2K_ERR_ALIGN, "misaligned");
    refused(m, t2k_pack_b(T2K_NO_TRANS, 4, 3, B, 3, blob), T2K_OK, "pack_b");
    refused(m, t2k_sgemm_packed(T2K_NO_TRANS, 3, 3, 4, 1, A, 4, blob, 0, C, 3, NULL), T2K_OK,
            "fits");
    refused(m, t2k_sgemm_packed(T2K_NO_TRANS, 3, 2, 4, 1, A, 4, blob, 0, C, 3, NULL), bad,
            "other n");
    refused(m, t2k_sgemm_packed(T2K_NO_TRANS, 3, 3, 3, 1, A, 4, blob, 0, C, 3, NULL), bad,
            "other k");
    refused(m, t2k_sgemm_packed(T2K_NO_TRANS, 3, 3, 4, 1, A, 4, NULL, 0, C, 3, NULL), bad, "NULL");
    refused(m, t2k_sgemm_packed(T2K_NO_TRANS, 3, 3, 4, 1, A, 4, blob + 4, 0, C, 3, NULL),
            T2K_ERR_ALIGN, "misaligned blob");
    refused(m, t2k_sgemm_packed_team(NULL, T2K_NO_TRANS, 3, 3, 4, 1, A, 4, blob, 0, C, 3, NULL),
            bad, "no team");
    /* A blob is good for every ISA with the same width of panels, and refused by the others. */
    matrix_use_scalar(m);
    const size_t width = t2k_table_get()->gemm_strict->nr;
    const t2k_status other = t2k_sgemm_packed(T2K_NO_TRANS, 3, 3, 4, 1, A, 4, blob, 0, C, 3, NULL);
    matrix_use_tested(m);
    refused(m, other, width == t2k_table_get()->gemm_strict->nr ? T2K_OK : T2K_ERR_ISA,
            "blob of another ISA");
    blob[0] ^= 1;
    refused(m, t2k_sgemm_packed(T2K_NO_TRANS, 3, 3, 4, 1, A, 4, blob, 0, C, 3, NULL), bad, "magic");
    t2k_release(blob);
}

void matrix_gemm_api(struct matrix *m)
{
    batches(m);
    teams(m);
    refused_products(m);
    older_epilogue(m);
    refused_blobs(m);
}
