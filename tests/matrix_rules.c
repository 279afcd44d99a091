/* Rules 1 to 6 and 17 to 20 of docs/numerics.md, and the suite. */
#include "matrix_rules.h"

#include "core/fpenv.h"
#include "ref.h"
#include "ref_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- products ------------------------------------------------------------------------------- */

/* Shapes and layouts that reach every way through the driver, on every ISA. */
static const struct route {
    const char *name;
    t2k_transpose trans_a, trans_b;
    size_t m, n, stride; /* stride 0: rows as wide as needed, and a little more */
    int packed;
} routes[] = {
    {"both in place", T2K_NO_TRANS, T2K_NO_TRANS, 3, 48, 0, 0},
    {"one column", T2K_NO_TRANS, T2K_NO_TRANS, 9, 1, 0, 0},
    {"B transposed", T2K_NO_TRANS, T2K_TRANS, 5, 37, 0, 0},
    {"A transposed", T2K_TRANS, T2K_NO_TRANS, 17, 21, 0, 0},
    {"packed, one row", T2K_NO_TRANS, T2K_NO_TRANS, 1, 130, 0, 1},
    {"packed, some rows", T2K_TRANS, T2K_TRANS, 14, 70, 0, 1},
    {"blocks", T2K_NO_TRANS, T2K_NO_TRANS, 40, 70, 1024, 0},
    {"blocks, packed", T2K_NO_TRANS, T2K_TRANS, 40, 70, 1024, 1},
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

/* The operands of one product. Everything around A, B and C in their buffers is `around`. */
struct product {
    const struct route *route;
    size_t k, lda, ldb, ldc;
    float alpha, beta;
    float *A, *B, *C, *want;
    const t2k_epilogue *epilogue;
};

/* (lines, width) random numbers within lines of ld, and a line more than that. */
static float *operand(struct rng *rng, size_t lines, size_t width, size_t ld, float around)
{
    const size_t count = (lines + 1) * ld;
    float *p = malloc(count * sizeof *p);
    if (p == NULL) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        p[i] = i / ld < lines && i % ld < width ? rng_uniform(rng) : around;
    }
    return p;
}

static void product_open(struct matrix *m, struct product *x, const struct route *r, size_t k,
                         float around)
{
    const size_t a_lines = r->trans_a == T2K_TRANS ? k : r->m, a_width = r->m + k - a_lines;
    const size_t b_lines = r->trans_b == T2K_TRANS ? r->n : k, b_width = r->n + k - b_lines;
    *x = (struct product){.route = r, .k = k, .alpha = 1.0f};
    x->lda = r->stride > 0 ? r->stride : a_width + 5;
    x->ldb = r->stride > 0 ? r->stride : b_width + 3;
    x->ldc = r->n + 7;
    x->A = operand(&m->rng, a_lines, a_width, x->lda, around);
    x->B = operand(&m->rng, b_lines, b_width, x->ldb, around);
    x->C = operand(&m->rng, r->m, r->n, x->ldc, around);
    x->want = operand(&m->rng, r->m, r->n, x->ldc, around);
}

static void product_close(struct product *x)
{
    free(x->A);
    free(x->B);
    free(x->C);
    free(x->want);
}

/* Rows [first, first + rows) of the product, in place of those of C. */
static t2k_status multiply(const struct product *x, size_t first, size_t rows)
{
    const struct route *r = x->route;
    const float *A = x->A + (r->trans_a == T2K_TRANS ? first : first * x->lda);
    const int64_t m = (int64_t)rows, n = (int64_t)r->n, k = (int64_t)x->k;
    const int64_t lda = (int64_t)x->lda, ldb = (int64_t)x->ldb, ldc = (int64_t)x->ldc;
    float *C = x->C + first * x->ldc;
    if (!r->packed) {
        return t2k_sgemm(r->trans_a, r->trans_b, m, n, k, x->alpha, A, lda, x->B, ldb, x->beta, C,
                         ldc, x->epilogue);
    }
    void *blob = t2k_alloc(t2k_packed_b_bytes(k, n));
    t2k_status status = t2k_pack_b(r->trans_b, k, n, x->B, ldb, blob);
    if (status == T2K_OK) {
        status = t2k_sgemm_packed(r->trans_a, m, n, k, x->alpha, A, lda, blob, x->beta, C, ldc,
                                  x->epilogue);
    }
    t2k_release(blob);
    return status;
}

/* The whole product as rule 1 has it; nothing else of C may change. */
static void product_check(struct matrix *m, struct product *x, const char *text)
{
    const struct route *r = x->route;
    const size_t count = (r->m + 1) * x->ldc;
    memcpy(x->want, x->C, count * sizeof *x->C);
    ref_sgemm_strict(r->trans_a, r->trans_b, r->m, r->n, x->k, x->alpha, x->A, x->lda, x->B, x->ldb,
                     x->beta, x->want, x->ldc, x->epilogue);
    const t2k_status status = multiply(x, 0, r->m);
    matrix_check(m, status == T2K_OK, "%s: %s: %s", text, r->name, t2k_status_str(status));
    matrix_same(m, x->C, x->want, count, "%s: %s, k %zu, alpha %g, beta %g", text, r->name, x->k,
                (double)x->alpha, (double)x->beta);
    matrix_result(m, 0, x->C, count);
}

/* Steps [first, last) of element (0, j), one chain from +0. */
static float chain_of(const struct product *x, size_t j, size_t first, size_t last)
{
    float sum = 0.0f;
    for (size_t p = first; p < last; p++) {
        sum = fmaf(x->A[p], x->B[p * x->ldb + j], sum);
    }
    return sum;
}

/* 600 steps are chunks of 256, 256 and 88; other chunks give other bits. */
static void check_chunks(struct matrix *m, const struct product *x)
{
    size_t one_chain = 0, chunks_of_512 = 0;
    for (size_t j = 0; j < x->route->n; j++) {
        const float last = chain_of(x, j, 512, 600);
        const float v = (chain_of(x, j, 0, 256) + chain_of(x, j, 256, 512)) + last;
        matrix_same(m, x->C + j, &v, 1, "rule 1: chunks of 256");
        one_chain += v != chain_of(x, j, 0, 600);
        chunks_of_512 += v != chain_of(x, j, 0, 512) + last;
    }
    matrix_check(m, one_chain > 0 && chunks_of_512 > 0, "rule 1: no order shows in this data");
}

/* Chunks of 256, one chain each; alpha, beta; bias, scale, relu, residual, each rounded. */
static void rule_1(struct matrix *m)
{
    static const size_t depths[] = {0, 1, 255, 256, 257, 600};
    static const float factors[][2] = {{1, 0}, {1, 1}, {-0.7f, 0.3f}, {0.6f, 0}, {0, 0.9f}};
    float bias[130], scale[130], residual[40 * 130];
    rng_fill(&m->rng, bias, 130);
    rng_fill(&m->rng, scale, 130);
    rng_fill(&m->rng, residual, 40 * 130);
    for (size_t i = 0; i < ROUTES * 6; i++) {
        struct product x;
        product_open(m, &x, &routes[i / 6], depths[i % 6], 3.0f);
        t2k_epilogue e = {.size = sizeof e, .bias = bias, .scale = scale, .residual = residual};
        e.activation = T2K_ACT_RELU;
        e.ldr = (int64_t)x.route->n;
        product_check(m, &x, "rule 1");
        if (i == 5) {
            check_chunks(m, &x);
        }
        x.alpha = factors[i % 5][0];
        x.beta = factors[i % 5][1];
        x.epilogue = i % 2 == 0 ? &e : NULL;
        product_check(m, &x, "rule 1");
        product_close(&x);
    }
}

/* The scale of the experts follows the bias and precedes the residual, and it may as well wait for
 * the norm. */
static void rule_2(struct matrix *m)
{
    enum { ROWS = 6, COLS = 48 };
    static const struct route route = {"expert", T2K_NO_TRANS, T2K_NO_TRANS, ROWS, COLS, 0, 0};
    float bias[COLS], scale[COLS], residual[ROWS * COLS], z[ROWS * COLS], y[2][ROWS * COLS];
    struct product x;
    product_open(m, &x, &route, 20, 0.0f);
    rng_fill(&m->rng, bias, COLS);
    rng_fill(&m->rng, scale, COLS);
    rng_fill(&m->rng, residual, ROWS * COLS);
    multiply(&x, 0, ROWS);
    size_t other = 0;
    for (size_t i = 0; i < ROWS * COLS; i++) {
        const float xw = x.C[i / COLS * x.ldc + i % COLS], b = bias[i % COLS], e = scale[i % COLS];
        const float with_bias = xw + b, scaled = with_bias * e;
        z[i] = scaled + residual[i];
        other += z[i] != (xw * e + b * e) + residual[i];
    }
    matrix_check(m, other > 0, "rule 2: no order shows in this data");
    t2k_epilogue whole = {.size = sizeof whole, .bias = bias, .scale = scale, .residual = residual};
    whole.ldr = COLS;
    x.epilogue = &whole;
    multiply(&x, 0, ROWS);
    for (size_t i = 0; i < ROWS; i++) {
        matrix_same(m, x.C + i * x.ldc, z + i * COLS, COLS, "rule 2: epilogue, row %zu", i);
    }
    const t2k_epilogue only_bias = {.size = sizeof only_bias, .bias = bias};
    x.epilogue = &only_bias;
    multiply(&x, 0, ROWS);
    t2k_layer_norm(ROWS, COLS, x.C, (int64_t)x.ldc, scale, residual, COLS, NULL, NULL, 1e-5f, y[0],
                   COLS);
    t2k_layer_norm(ROWS, COLS, z, COLS, NULL, NULL, 0, NULL, NULL, 1e-5f, y[1], COLS);
    matrix_same(m, y[0], y[1], ROWS * COLS, "rule 2: scale in the norm pass");
    product_close(&x);
}

/* What lies beside the operands, NaN, must not be touched by any k; Inf, NaN and -0 at the end of k
 * show where the formula puts them, and a product of nothing keeps -0. */
static void rule_3(struct matrix *m)
{
    static const size_t depths[] = {1, 2, 3, 5, 7, 9, 15, 17, 31, 33, 257};
    for (size_t i = 0; i < ROUTES * 11; i++) {
        const struct route *r = &routes[i / 11];
        const size_t k = depths[i % 11], row = r->m / 2, col = r->n / 3;
        struct product x;
        product_open(m, &x, r, k, NAN);
        x.alpha = i % 2 == 0 ? 1.0f : -1.0f;
        product_check(m, &x, "rule 3");
        float *a = &x.A[r->trans_a == T2K_TRANS ? (k - 1) * x.lda + row : row * x.lda + k - 1];
        float *b = &x.B[r->trans_b == T2K_TRANS ? col * x.ldb + k - 1 : (k - 1) * x.ldb + col];
        *a = INFINITY;
        *b = i % 3 == 0 ? 0.0f : -0.0f;
        product_check(m, &x, "rule 3: 0 times Inf");
        matrix_check(m, isnan(x.C[row * x.ldc + col]), "rule 3: 0 times Inf is NaN");
        matrix_check(m, r->m == 1 || !isnan(x.C[(row + 1) % r->m * x.ldc + (col + 1) % r->n]),
                     "rule 3: a NaN has spread");
        product_close(&x);
        product_open(m, &x, r, 0, -0.0f);
        for (size_t c = 0; c < r->n; c++) {
            x.C[c] = -0.0f;
        }
        x.beta = 1.0f;
        product_check(m, &x, "rule 3: nothing");
        matrix_check(m, bits_of(x.C[0]) == 0x80000000u, "rule 3: -0 is kept where k = 0");
        product_close(&x);
    }
}

/* (u s) v, never u (s v), and the same in the transposed matrix. */
static void rule_4(struct matrix *m)
{
    static const size_t shapes[][3] = {{1, 1, 1}, {9, 7, 5}, {7, 40, 33}, {33, 21, 260}};
    for (size_t k = 0; k < 4; k++) {
        const size_t rows = shapes[k][0], cols = shapes[k][1], r = shapes[k][2], n = rows * cols;
        float *U = operand(&m->rng, rows, r, r, 0), *V = operand(&m->rng, cols, r, r, 0);
        float *s = operand(&m->rng, 1, r, r, 0), *W = operand(&m->rng, rows, cols, cols, 0);
        float *want = operand(&m->rng, rows, cols, cols, 0), *T = W;
        const float c = k == 3 ? 0.7f : 1.0f;
        size_t other = 0;
        for (size_t at = 0; at < n; at++) {
            const float *u = U + at / cols * r, *v = V + at % cols * r;
            for (size_t first = 0; first < r; first += 256) {
                float chain = 0.0f, wrong = 0.0f;
                for (size_t p = first; p < r && p < first + 256; p++) {
                    const float us = u[p] * s[p], sv = s[p] * v[p];
                    chain = fmaf(us, v[p], chain);
                    wrong = fmaf(u[p], sv, wrong);
                }
                want[at] = first == 0 ? c * chain : fmaf(c, chain, want[at]);
                other += chain != wrong;
            }
        }
        matrix_check(m, n == 1 || other > 0, "rule 4: no order shows in this data");
        const int64_t h = (int64_t)rows, w = (int64_t)cols, rank = (int64_t)r;
        t2k_svd_rebuild(T2K_NO_TRANS, h, w, rank, c, U, rank, s, V, rank, W, w);
        matrix_same(m, W, want, n, "rule 4: %zu x %zu of rank %zu", rows, cols, r);
        matrix_result(m, 0, W, n);
        t2k_svd_rebuild(T2K_TRANS, h, w, rank, c, U, rank, s, V, rank, T, h);
        size_t wrong = 0;
        for (size_t at = 0; at < n; at++) {
            wrong += bits_of(T[at % cols * rows + at / cols]) != bits_of(want[at]);
        }
        matrix_check(m, wrong == 0, "rule 4: transposed %zu x %zu: %zu wrong", cols, rows, wrong);
        free(U);
        free(V);
        free(s);
        free(W);
        free(want);
    }
}

/* A row's bits do not depend on how many travel with it. */
static void rule_5(struct matrix *m)
{
    static const size_t counts[] = {1, 2, 3, 5, 8, 13};
    static const struct route together[] = {
        {"in place", T2K_NO_TRANS, T2K_NO_TRANS, 29, 45, 0, 0},
        {"B transposed", T2K_NO_TRANS, T2K_TRANS, 29, 45, 1024, 0},
        {"packed", T2K_NO_TRANS, T2K_NO_TRANS, 29, 45, 0, 1},
    };
    for (size_t i = 0; i < 3; i++) {
        struct product x;
        product_open(m, &x, &together[i], 260, 0.0f);
        const size_t count = 30 * x.ldc;
        matrix_check(m, multiply(&x, 0, 29) == T2K_OK, "rule 5");
        memcpy(x.want, x.C, count * sizeof *x.C);
        for (size_t k = 0; k < 6; k++) {
            for (size_t row = 0; row < 29; row += counts[k]) {
                multiply(&x, row, 29 - row < counts[k] ? 29 - row : counts[k]);
            }
            matrix_same(m, x.C, x.want, count, "rule 5: %s, %zu rows", together[i].name, counts[k]);
        }
        product_close(&x);
    }
}

/* A group of products belongs to one ISA and one class of arithmetic; the table in use has that of
 * the highest ISA that has one. */
static void rule_6(struct matrix *m)
{
    const t2k_gemm_group *expected = NULL;
    for (int i = 0; i < t2k_isa_count(); i++) {
        const t2k_table *own = t2k_table_own(i);
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        if (own == NULL) {
            continue;
        }
        matrix_check(m, strncmp(info.name, "amx", 3) != 0 || own->gemm_strict == NULL,
                     "rule 6: %s fills gemm_strict", info.name);
        expected =
            i <= m->isa && info.usable && own->gemm_strict != NULL ? own->gemm_strict : expected;
        for (int j = 0; j < i; j++) {
            const t2k_table *below = t2k_table_own(j);
            if (below != NULL && below->gemm_strict != NULL && own->gemm_strict != NULL) {
                const t2k_gemm_group *a = own->gemm_strict, *b = below->gemm_strict;
                matrix_check(m,
                             a != b && a->block != b->block && a->strip != b->strip &&
                                 a->pack_a != b->pack_a && a->pack_b != b->pack_b &&
                                 a->scale != b->scale,
                             "rule 6: %s borrows from isa %d", info.name, j);
            }
        }
    }
    matrix_check(m, t2k_table_get()->gemm_strict == expected, "rule 6: the group in use");
}

/* ---- arithmetic ----------------------------------------------------------------------------- */

/* a b + c rounded once, without any fma: the product is exact in double; their sum is rounded to
 * odd there (its error goes into the last bit), which the rounding to float cannot undo. */
static float exact_fma(float a, float b, float c)
{
    const double p = (double)a * (double)b, z = (double)c, s = p + z, back = s - p;
    const double error = (p - (s - back)) + (z - back);
    uint64_t bits;
    memcpy(&bits, &s, sizeof bits);
    if (error != 0.0 && (bits & 1) == 0) {
        bits = (error > 0.0) == (s > 0.0) ? bits + 1 : bits - 1;
    }
    double odd;
    memcpy(&odd, &bits, sizeof odd);
    return (float)odd;
}

/* fmaf and every kernel's fma are exact, also where double arithmetic would round twice. */
static void rule_17(struct matrix *m)
{
    enum { N = 1500 };
    static float A[N][2], B[N][2], got[N], want[N], own[N];
    size_t twice = 0;
    for (size_t i = 0; i < N; i++) {
        float a = rng_uniform(&m->rng), b = rng_uniform(&m->rng), c;
        switch (i % 4) {
        case 0: /* halfway between two floats, but for c */
            a = 1.0f + 0x1p-12f;
            b = 1.0f + 0x1p-12f * (float)(1 + 2 * rng_below(&m->rng, 500));
            c = rng_uniform(&m->rng) * 0x1p-80f;
            break;
        case 1: /* cancels but for the product's low half */
            c = -(a * b);
            break;
        case 2: /* a denormal result */
            a *= 0x1p-70f;
            b *= 0x1p-72f;
            c = rng_uniform(&m->rng) * 0x1p-140f;
            break;
        default:
            c = rng_uniform(&m->rng);
        }
        A[i][0] = c;
        B[i][0] = 1.0f;
        A[i][1] = a;
        B[i][1] = b;
        own[i] = fmaf(a, b, c);
        want[i] = exact_fma(a, b, c);
        twice += (float)((double)a * (double)b + (double)c) != want[i];
    }
    matrix_check(m, twice > 100, "rule 17: only %zu of the samples tell", twice);
    matrix_same(m, own, want, N, "rule 17: fmaf");
    t2k_sgemm_batched(T2K_NO_TRANS, T2K_NO_TRANS, 1, 1, 2, 1.0f, A[0], 2, 2, B[0], 1, 2, 0.0f, got,
                      1, 1, N, NULL);
    matrix_same(m, got, want, N, "rule 17: the kernel's fma");
    matrix_result(m, 0, got, N);
}

static uint64_t literal_fingerprint(uint64_t state, uint64_t length, const float *x)
{
    const uint64_t head[2] = {1, length};
    unsigned char bytes[20] = {'F', '3', '2'};
    memset(bytes + 3, 0, 16);
    bytes[3] = (unsigned char)head[0];
    bytes[11] = (unsigned char)head[1];
    for (int i = 0; i < 19; i++) {
        state = (state ^ bytes[i]) * UINT64_C(1099511628211);
    }
    for (size_t i = 0; i < length; i++) {
        const uint32_t bits = isnan(x[i]) ? 0x7fc00000u : bits_of(x[i]);
        for (int shift = 0; shift < 32; shift += 8) {
            state = (state ^ (bits >> shift & 0xff)) * UINT64_C(1099511628211);
        }
    }
    return state;
}

/* However a NaN came about, it hashes as 0x7fc00000. */
static void rule_18(struct matrix *m)
{
    enum { N = 40 };
    const float one[2] = {1.0f, 1.0f}, minus_nan = float_of(0xffc00001u);
    float x[2 * N], C[2 * N] = {0}, nans = 0;
    for (size_t i = 0; i < 2 * N; i++) {
        x[i] = i % 5 == 0 ? INFINITY : i % 5 == 1 ? minus_nan : rng_uniform(&m->rng);
    }
    for (size_t i = N; i < 2 * N; i += 5) {
        x[i] = -INFINITY;
    }
    t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, 1, N, 2, 1.0f, one, 2, x, N, 0.0f, C, N, NULL);
    for (size_t i = 0; i < N; i++) {
        nans += isnan(C[i]) ? 1.0f : 0.0f;
    }
    matrix_check(m, nans == 16.0f, "rule 18: %g NaNs", (double)nans);
    const int64_t shape = N;
    matrix_check(m,
                 t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 1, &shape, C) ==
                     literal_fingerprint(UINT64_C(14695981039346656037), N, C),
                 "rule 18: fingerprint with NaNs");
    matrix_result(m, 0, C, N);
}

/* ---- environment ---------------------------------------------------------------------------- */

enum { SIDE = 21, CALLS = 7 };

static void call(int kind, const float *x, float *y)
{
    const t2k_dropout_key key = {1, 2, 3};
    switch (kind) {
    case 0:
        t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, SIDE, SIDE, SIDE, 0.3f, x, SIDE, x, SIDE, 0.0f, y, SIDE,
                  NULL);
        break;
    case 1:
        t2k_softmax(SIDE, SIDE, x, SIDE, y, SIDE);
        break;
    case 2:
        t2k_layer_norm(SIDE, SIDE, x, SIDE, x, x, SIDE, x, x, 1e-5f, y, SIDE);
        break;
    case 3:
        t2k_exp((int64_t)SIDE * SIDE, x, y);
        break;
    case 4:
        t2k_scale_columns(SIDE, SIDE, x, SIDE, x, y, SIDE);
        break;
    case 5:
        t2k_dropout((int64_t)SIDE * SIDE, x, 0.3f, key, 0, y);
        break;
    default:
        t2k_svd_rebuild(T2K_NO_TRANS, SIDE, SIDE, SIDE, 0.3f, x, SIDE, x, x, SIDE, y, SIDE);
    }
}

/* A caller with other rounding and flushing of denormals gets the same bits and its environment
 * back. */
static void rule_19(struct matrix *m)
{
    static float x[SIDE * SIDE], want[SIDE * SIDE], got[SIDE * SIDE];
    for (size_t i = 0; i < SIDE * SIDE; i++) {
        x[i] = rng_uniform(&m->rng) * (i % 4 == 0 ? 0x1p-127f : 1.0f);
    }
    for (int threads = 1; threads <= 2; threads++) {
        t2k_set_num_threads(threads);
        for (int kind = 0; kind < CALLS; kind++) {
            memset(want, 0, sizeof want);
            memset(got, 0, sizeof got);
            call(kind, x, want);
            const uint64_t usual = hostile_fpenv(), hostile = t2k_fpenv_get();
            call(kind, x, got);
            const uint64_t after = t2k_fpenv_get();
            restore_fpenv(usual);
            matrix_same(m, got, want, SIDE * SIDE, "rule 19: call %d, %d threads", kind, threads);
            matrix_check(m, ((after ^ hostile) & ~(uint64_t)T2K_FPENV_FLAGS) == 0,
                         "rule 19: call %d has changed the environment", kind);
        }
    }
    t2k_set_num_threads(0);
}

static void literal_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t c[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    memcpy(c, counter, 4 * sizeof *c);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = UINT64_C(0xd2511f53) * c[0], p1 = UINT64_C(0xcd9e8d57) * c[2];
        const uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c[3] = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

/* Dropout by place: element e of (seed, layer, site) takes word e mod 4 of block e / 4. */
static void rule_20(struct matrix *m)
{
    enum { N = 203 };
    static const float rates[] = {0.0f, 0.1f, 0.3f, 0.5f, 0.9f, 1.0f};
    float x[N], y[N], part[N], want[N];
    for (size_t i = 0; i < 12; i++) {
        const uint64_t first = i % 2 == 0 ? i : (UINT64_C(1) << 34) - 7 * i;
        const t2k_dropout_key key = {rng_next(&m->rng), (uint32_t)i, (uint32_t)(3 * i + 1)};
        const float p = rates[i % 6];
        const uint32_t seed[2] = {(uint32_t)key.seed, (uint32_t)(key.seed >> 32)};
        rng_fill(&m->rng, x, N);
        x[5] = NAN;
        for (uint64_t j = 0; j < N; j++) {
            const uint64_t e = first + j, block = e / 4;
            const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), key.layer,
                                         key.site};
            uint32_t word[4], check[4];
            literal_philox(counter, seed, word);
            t2k_philox4x32(counter, seed, check);
            if (memcmp(word, check, sizeof word) != 0) {
                matrix_check(m, 0, "rule 20: Philox of element %llu", (unsigned long long)e);
            }
            const int keep = (double)word[e % 4] >= ceil((double)p * 4294967296.0);
            want[j] = keep ? x[j] * (float)(1.0 / (1.0 - (double)p)) : 0.0f;
        }
        t2k_dropout(N, x, p, key, first, y);
        matrix_same(m, y, want, N, "rule 20: dropout of p %g", (double)p);
        t2k_dropout(77, x, p, key, first, part);
        t2k_dropout(N - 77, x + 77, p, key, first + 77, part + 77);
        matrix_same(m, part, want, N, "rule 20: dropout of p %g in two parts", (double)p);
        matrix_result(m, 0, y, N);
    }
}

void matrix_rules(struct matrix *m)
{
    rule_1(m);
    rule_2(m);
    rule_3(m);
    rule_4(m);
    rule_5(m);
    rule_6(m);
    rule_7(m);
    rule_9(m);
    rule_11(m);
    rule_12(m);
    rule_13(m);
    rule_14(m);
    rule_15(m);
    rule_17(m);
    rule_18(m);
    rule_19(m);
    rule_20(m);
}
