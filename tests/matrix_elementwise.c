/* exp, activations, add, columns scaled, mean, embedding, dropout. */
#include "matrix.h"
#include "ref_rows.h"
#include "ref_unary.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one in, one out ------------------------------------------------------------------------ */

static t2k_status twice(int64_t n, const float *X, float *Y)
{
    return t2k_add(n, X, X, Y);
}

static double exact_twice(double x)
{
    return (double)(float)(x + x);
}

static t2k_status square(int64_t n, const float *X, float *Y)
{
    return t2k_mul(n, X, X, Y);
}

static double exact_square(double x)
{
    return (double)(float)(x * x);
}

static const struct ref_unary add = {"add", 0, twice, exact_twice, -HUGE_VAL, 0.0, 0.0};
static const struct ref_unary mul = {"mul", 0, square, exact_square, -HUGE_VAL, 0.0, 0.0};
enum { UNARIES = REF_UNARIES + 2 };

static const struct ref_unary *unary(size_t which)
{
    return which < REF_UNARIES ? &ref_unaries[which] : which == REF_UNARIES ? &add : &mul;
}

static const float specials[] = {
    0.0f,       -0.0f,      NAN,         -NAN,       INFINITY,    -INFINITY,   FLT_MAX,
    -FLT_MAX,   FLT_MIN,    -FLT_MIN,    0x1p-149f,  -0x1p-149f,  0x1p-24f,    -0x1p-25f,
    1.0f,       -1.0f,      88.72283f,   88.722839f, 88.72284f,   89.0f,       90.0f,
    -87.33654f, -87.33655f, -103.27892f, -103.9720f, -103.97207f, -103.97208f, -104.0f,
    -104.1f,    -150.0f,    -175.9f,     -176.0f,    -177.0f,     1e10f,       -1e10f,
    86.0f,      -86.0f,     86.00001f,   -86.00001f, -88.72283f,  -88.722839f, -88.72284f,
    0.5f,       -0.5f,      1.5f,        -1.5f,      2.5f,        -2.5f,       -4.5f,
    6.5f,       -6.5f,      6.500001f,   -6.500001f, 7.0f,        -7.0f,       -7.5f,
};
enum { SPECIALS = sizeof specials / sizeof specials[0] };

static void unary_case(struct matrix *m, size_t which, size_t n, const float *values, int full_only)
{
    const struct ref_unary *f = unary(which);
    struct guarded gx, gy;
    float *x = guarded_floats(&gx, n), *y = guarded_floats(&gy, n);
    float *want = malloc(2 * n * sizeof *want + 1), *got = want + n;
    memcpy(x, values, n * sizeof *x);
    guarded_seal(&gx);
    t2k_status status = f->fn((int64_t)n, x, y);
    matrix_check(m, status == T2K_OK && guarded_intact(&gy), "%s of %zu: %s", f->name, n,
                 t2k_status_str(status));
    matrix_use_scalar(m);
    f->fn((int64_t)n, x, want);
    matrix_use_tested(m);
    matrix_same(m, y, want, n, "%s of %zu", f->name, n);
    memcpy(got, values, n * sizeof *got);
    f->fn((int64_t)n, got, got);
    matrix_same(m, got, want, n, "%s of %zu in place", f->name, n);
    for (size_t i = 0; m->isa == 0 && i < n; i++) {
        matrix_check(m, ref_unary_holds(f, x[i], want[i]), "%s(%a) = %a, exactly %a", f->name,
                     (double)x[i], (double)want[i], f->exact((double)x[i]));
    }
    matrix_result(m, full_only, want, n);
    free(want);
    guarded_free(&gx);
    guarded_free(&gy);
}

static void unary_sample(struct matrix *m, size_t n, int full_only)
{
    float *x = malloc(n * sizeof *x);
    for (size_t which = 0; which < UNARIES; which++) {
        for (size_t i = 0; i < n; i++) {
            switch (i % 5) {
            case 0: /* results of all sizes, denormal ones included */
                x[i] = 96.0f * rng_uniform(&m->rng) - 8.0f;
                break;
            case 1: /* no reduction */
                x[i] = 0.35f * rng_uniform(&m->rng);
                break;
            case 2: /* any bits */
                x[i] = float_of((uint32_t)rng_next(&m->rng));
                break;
            case 3: /* where activations bend */
                x[i] = 8.0f * rng_uniform(&m->rng);
                break;
            default: /* denormal results */
                x[i] = -96.0f + 9.0f * rng_uniform(&m->rng);
            }
        }
        unary_case(m, which, n, x, full_only);
    }
    free(x);
}

static void unary_threads(struct matrix *m)
{
    enum { N = 5003 };
    static float x[N], want[N], got[N];
    rng_fill(&m->rng, x, N);
    for (size_t which = 0; which < UNARIES; which++) {
        const struct ref_unary *f = unary(which);
        f->fn(N, x, want);
        for (int t = 2; t <= 4; t++) {
            t2k_set_num_threads(t);
            memset(got, 0, sizeof got);
            f->fn(N, x, got);
            matrix_same(m, got, want, N, "%s on %d threads", f->name, t);
        }
        t2k_set_num_threads(0);
    }
}

/* ---- matrices ------------------------------------------------------------------------------- */

static void scale_case(struct matrix *m, size_t rows, size_t cols, int full_only)
{
    const size_t ldx = cols + 1, ldy = cols + 4, count = rows * cols;
    struct guarded gx, gs, gy;
    float *x = guarded_rows(&gx, rows, cols, ldx), *s = guarded_floats(&gs, cols);
    float *y = guarded_rows(&gy, rows, cols, ldy);
    float *want = malloc(2 * count * sizeof *want + 1), *got = want + count;
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, x + i * ldx);
    }
    rng_fill(&m->rng, s, cols);
    guarded_seal(&gx);
    guarded_seal(&gs);
    for (size_t i = 0; i < count; i++) {
        want[i] = x[i / cols * ldx + i % cols] * s[i % cols];
    }
    for (int t = 1; t <= 3; t++) {
        t2k_set_num_threads(t);
        t2k_status status =
            t2k_scale_columns((int64_t)rows, (int64_t)cols, x, (int64_t)ldx, s, y, (int64_t)ldy);
        matrix_check(m, status == T2K_OK && guarded_rows_intact(&gy, rows, cols, ldy),
                     "scale_columns %zux%zu: %s", rows, cols, t2k_status_str(status));
        pack_rows(got, y, rows, cols, ldy);
        matrix_same(m, got, want, count, "scale_columns %zux%zu on %d threads", rows, cols, t);
    }
    t2k_set_num_threads(0);
    pack_rows(got, x, rows, cols, ldx);
    t2k_scale_columns((int64_t)rows, (int64_t)cols, got, (int64_t)cols, s, got, (int64_t)cols);
    matrix_same(m, got, want, count, "scale_columns %zux%zu in place", rows, cols);
    matrix_result(m, full_only, want, count);
    free(want);
    guarded_free(&gx);
    guarded_free(&gs);
    guarded_free(&gy);
}

struct mean_call {
    size_t rows, cols, ldx;
    const float *x;
    double *sums;
    float each[8];
};

static void mean_body(t2k_team *team, void *arg)
{
    struct mean_call *c = arg;
    float *mine = &c->each[t2k_team_rank(team)];
    t2k_mean_team(team, (int64_t)c->rows, (int64_t)c->cols, c->x, (int64_t)c->ldx, c->sums, mine);
}

static void mean_case(struct matrix *m, size_t rows, size_t cols, enum row_kind kind, int full_only)
{
    const size_t ldx = cols + 2;
    struct guarded g;
    float *x = guarded_rows(&g, rows, cols, ldx), got = -1, want = -1;
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, kind, cols, x + i * ldx);
    }
    guarded_seal(&g);
    struct mean_call call = {rows, cols, ldx, x, malloc(rows * sizeof(double) + 1), {0}};
    matrix_use_scalar(m);
    t2k_mean((int64_t)rows, (int64_t)cols, x, (int64_t)ldx, &want);
    matrix_use_tested(m);
    for (int t = 1; t <= 4; t++) {
        t2k_set_num_threads(t);
        t2k_status status = t2k_mean((int64_t)rows, (int64_t)cols, x, (int64_t)ldx, &got);
        matrix_check(m, status == T2K_OK, "mean: %s", t2k_status_str(status));
        matrix_same(m, &got, &want, 1, "mean of %zux%zu on %d threads", rows, cols, t);
        t2k_parallel(t, mean_body, &call);
        for (int i = 0; i < t; i++) {
            matrix_same(m, &call.each[i], &want, 1, "mean of %zux%zu in a team of %d", rows, cols,
                        t);
        }
    }
    t2k_set_num_threads(0);
    /* Half a unit of the result, and what doubles lose on the way. */
    double mean_abs, ref = ref_mean(rows, cols, x, ldx, &mean_abs);
    double allowed = 0x1p-24 * fabs(ref) + 0x1p-45 * mean_abs + 0x1p-150;
    int ok = isfinite(ref) ? fabs((double)want - ref) <= allowed
             : isnan(ref)  ? isnan(want)
                           : (double)want == ref;
    matrix_check(m, ok, "mean of %zux%zu kind %d: %.9g, want %.17g", rows, cols, (int)kind,
                 (double)want, ref);
    matrix_result(m, full_only, &want, 1);
    free(call.sums);
    guarded_free(&g);
}

/* ---- embedding ------------------------------------------------------------------------------ */

struct embedding_call {
    const float *table;
    const int64_t *ids;
    float *y;
    t2k_status status[8];
};
enum { IDS = 37, WIDTH = 21, VOCAB = 11 };

static void embedding_body(t2k_team *team, void *arg)
{
    struct embedding_call *c = arg;
    c->status[t2k_team_rank(team)] =
        t2k_embedding_team(team, IDS, WIDTH, VOCAB, c->table, WIDTH + 1, c->ids, c->y, WIDTH);
}

static void embedding(struct matrix *m)
{
    float table[VOCAB * (WIDTH + 1)], want[IDS * WIDTH], y[IDS * WIDTH];
    int64_t ids[IDS];
    struct embedding_call call = {table, ids, y, {T2K_OK}};
    rng_fill(&m->rng, table, sizeof table / sizeof table[0]);
    table[3] = NAN;
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = i == 0 ? 0 : i == 1 ? VOCAB - 1 : (int64_t)rng_below(&m->rng, VOCAB);
        memcpy(want + i * WIDTH, table + (size_t)ids[i] * (WIDTH + 1), WIDTH * sizeof *want);
    }
    for (int t = 1; t <= 4; t++) {
        t2k_set_num_threads(t);
        memset(y, 0, sizeof y);
        t2k_status s = t2k_embedding(IDS, WIDTH, VOCAB, table, WIDTH + 1, ids, y, WIDTH);
        matrix_check(m, s == T2K_OK, "embedding: %s", t2k_status_str(s));
        matrix_same(m, y, want, IDS * WIDTH, "embedding on %d threads", t);
        memset(y, 0, sizeof y);
        t2k_parallel(t, embedding_body, &call);
        matrix_same(m, y, want, IDS * WIDTH, "embedding in a team of %d", t);
    }
    t2k_set_num_threads(0);
    const int64_t bad[] = {-1, VOCAB, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        ids[IDS - 1] = bad[i];
        memset(y, 0, sizeof y);
        memset(want, 0, sizeof want);
        t2k_status s = t2k_embedding(IDS, WIDTH, VOCAB, table, WIDTH + 1, ids, y, WIDTH);
        matrix_check(m, s == T2K_ERR_ARG, "id %lld: %s", (long long)bad[i], t2k_status_str(s));
        t2k_parallel(3, embedding_body, &call);
        matrix_check(m, call.status[0] == T2K_ERR_ARG && call.status[2] == T2K_ERR_ARG,
                     "id %lld in a team", (long long)bad[i]);
        matrix_same(m, y, want, IDS * WIDTH, "a bad id, but something was written");
    }
    matrix_check(m, t2k_embedding(0, 4, 0, NULL, 4, NULL, NULL, 4) == T2K_OK, "no ids");
    matrix_check(m, t2k_embedding(1, 4, 0, NULL, 4, ids, y, 4) == T2K_ERR_ARG, "no table");
}

/* ---- dropout -------------------------------------------------------------------------------- */

static void philox_vectors(struct matrix *m)
{
    /* The known answers published with Random123. */
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        t2k_philox4x32(known[i], known[i] + 4, out);
        matrix_check(m, memcmp(out, known[i] + 6, sizeof out) == 0, "philox vector %d", i);
    }
}

struct dropout_call {
    size_t n;
    const float *x;
    float p;
    t2k_dropout_key key;
    uint64_t first;
    float *y;
};

static void dropout_body(t2k_team *team, void *arg)
{
    struct dropout_call *c = arg;
    t2k_dropout_team(team, (int64_t)c->n, c->x, c->p, c->key, c->first, c->y);
}

static void dropout_case(struct matrix *m, size_t n, float p, uint64_t first)
{
    const t2k_dropout_key key = {UINT64_C(0x0123456789abcdef), 3, 0xfffffff1u};
    struct guarded gx, gy;
    float *x = guarded_floats(&gx, n), *y = guarded_floats(&gy, n);
    float *want = malloc(2 * n * sizeof *want + 1), *got = want + n;
    rng_fill(&m->rng, x, n);
    if (n > 2) {
        x[n / 2] = NAN;
        x[n / 3] = -0.0f;
    }
    guarded_seal(&gx);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t e = first + i;
        const uint32_t k[2] = {0x89abcdef, 0x01234567};
        const uint32_t c[4] = {(uint32_t)(e / 4), (uint32_t)(e / 4 >> 32), 3, 0xfffffff1u};
        uint32_t word[4];
        t2k_philox4x32(c, k, word);
        int keep = (double)word[e % 4] >= (double)p * 4294967296.0;
        want[i] = keep ? x[i] * (float)(1.0 / (1.0 - (double)p)) : 0.0f;
        kept += (size_t)keep;
    }
    double deviation = fabs((double)kept - (double)n * (1.0 - (double)p));
    matrix_check(m, deviation <= 5 * sqrt((double)n * (double)p * (1.0 - (double)p)) + 1e-9,
                 "dropout of %zu keeps %zu with p %g", n, kept, (double)p);
    struct dropout_call call = {n, x, p, key, first, y};
    for (int t = 1; t <= 4; t++) {
        t2k_set_num_threads(t);
        memset(y, 0x7f, n * sizeof *y);
        t2k_status status = t2k_dropout((int64_t)n, x, p, key, first, y);
        matrix_check(m, status == T2K_OK && guarded_intact(&gy), "dropout: %s",
                     t2k_status_str(status));
        matrix_same(m, y, want, n, "dropout of %zu, p %g, on %d threads", n, (double)p, t);
        memset(y, 0x7f, n * sizeof *y);
        t2k_parallel(t, dropout_body, &call);
        matrix_same(m, y, want, n, "dropout of %zu, p %g, in a team of %d", n, (double)p, t);
    }
    t2k_set_num_threads(0);
    memcpy(got, x, n * sizeof *got);
    t2k_dropout((int64_t)n, got, p, key, first, got);
    matrix_same(m, got, want, n, "dropout of %zu in place", n);
    matrix_result(m, 0, want, n);
    free(want);
    guarded_free(&gx);
    guarded_free(&gy);
}

/* A word equal to p * 2^32 is kept, one half a step below it is not. */
static void dropout_threshold(struct matrix *m)
{
    const t2k_dropout_key key = {9, 1, 2};
    const uint32_t seed[2] = {9, 0};
    uint32_t word[4] = {UINT32_MAX, 0, 0, 0}, block = 0;
    while (word[0] >= 1u << 23) {
        const uint32_t counter[4] = {++block, 0, 1, 2};
        t2k_philox4x32(counter, seed, word);
    }
    const float x = 1.0f;
    float at, above;
    t2k_dropout(1, &x, (float)word[0] * 0x1p-32f, key, (uint64_t)block * 4, &at);
    t2k_dropout(1, &x, ((float)word[0] + 0.5f) * 0x1p-32f, key, (uint64_t)block * 4, &above);
    matrix_check(m, at >= 1.0f && above == 0.0f, "word %u: %g, %g", word[0], (double)at,
                 (double)above);
}

static void refusals(struct matrix *m)
{
    float x[4] = {1, 2, 3, 4}, y[4] = {7, 7, 7, 7}, mean = 7;
    const t2k_dropout_key key = {1, 0, 0};
    const t2k_status got[] = {
        t2k_exp(-1, x, y),
        t2k_exp(4, NULL, y),
        t2k_exp(4, x, NULL),
        t2k_relu(-1, x, y),
        t2k_relu(INT64_MAX, x, y),
        t2k_gelu(-1, x, y),
        t2k_gelu(4, NULL, y),
        t2k_gelu_tanh(4, x, NULL),
        t2k_silu(INT64_MAX, x, y),
        t2k_add(4, x, NULL, y),
        t2k_add(4, x, x, NULL),
        t2k_scale_columns(2, 2, x, 1, x, y, 2),
        t2k_scale_columns(2, 2, x, 2, NULL, y, 2),
        t2k_scale_columns(2, 1, y, 1, x, y, 2),
        t2k_mean(2, 2, x, 1, &mean),
        t2k_mean(-2, 2, x, 2, &mean),
        t2k_mean(2, 2, NULL, 2, &mean),
        t2k_mean(2, 2, x, 2, NULL),
        t2k_dropout(4, x, -0.1f, key, 0, y),
        t2k_dropout(4, x, 1.1f, key, 0, y),
        t2k_dropout(4, x, NAN, key, 0, y),
        t2k_dropout(4, NULL, 0.5f, key, 0, y),
    };
    for (size_t i = 0; i < sizeof got / sizeof got[0]; i++) {
        matrix_check(m, got[i] == T2K_ERR_ARG && y[0] == 7 && mean == 7, "bad arguments %zu: %s", i,
                     t2k_status_str(got[i]));
    }
    const int none = t2k_exp(0, NULL, NULL) == T2K_OK && t2k_relu(0, NULL, NULL) == T2K_OK &&
                     t2k_gelu(0, NULL, NULL) == T2K_OK && t2k_silu(0, NULL, NULL) == T2K_OK &&
                     t2k_add(0, NULL, NULL, NULL) == T2K_OK &&
                     t2k_dropout(0, NULL, 0.5f, key, 0, NULL) == T2K_OK &&
                     t2k_scale_columns(0, 3, NULL, 3, NULL, NULL, 3) == T2K_OK;
    matrix_check(m, none, "nothing to do");
    matrix_check(m, t2k_mean(0, 5, NULL, 5, &mean) == T2K_OK && isnan(mean), "mean of nothing");
    matrix_check(m, t2k_probe_fma(0) == 0.0 && t2k_probe_fma(1000) >= 24000.0, "probe");
}

/* The benchmark's bandwidth probes touch all n elements and no others. Small integers: their sums
 * are exact in any order. */
static void probes(struct matrix *m)
{
    enum { MOST = 300 };
    const t2k_table *table = t2k_table_get();
    static _Alignas(T2K_ALIGN) float streamed[MOST + 1];
    matrix_check(m, table->probe_bf16(1000) >= 16000.0, "probe_bf16");
    for (size_t n = 0; n <= MOST; n++) {
        struct guarded from, to;
        float *x = guarded_floats(&from, n), *y = guarded_floats(&to, n), sum = 0.0f;
        for (size_t i = 0; i < n; i++) {
            x[i] = (float)(i % 7) + 1.0f;
            sum += x[i];
            y[i] = streamed[i] = -1.0f;
        }
        streamed[n] = -1.0f;
        guarded_seal(&from);
        matrix_check(m, table->probe_read(n, x) == sum, "probe_read of %zu", n);
        table->probe_copy(n, x, y);
        table->probe_stream(n, x, streamed);
        matrix_same(m, y, x, n, "probe_copy of %zu", n);
        matrix_same(m, streamed, x, n, "probe_stream of %zu", n);
        matrix_check(m, guarded_intact(&to) && streamed[n] == -1.0f, "probes behind %zu", n);
        guarded_free(&from);
        guarded_free(&to);
    }
}

void matrix_elementwise(struct matrix *m)
{
    refusals(m);
    probes(m);
    philox_vectors(m);
    embedding(m);
    unary_threads(m);
    for (size_t which = 0; which < UNARIES; which++) {
        unary_case(m, which, SPECIALS, specials, 0);
    }
    for (size_t i = 0; i < LENGTHS_SMALL; i++) {
        const size_t n = row_lengths[i];
        if (n <= 129) {
            unary_sample(m, n, 0);
        }
        scale_case(m, n < 100 ? 3 : ROW_KINDS, n, 0);
        mean_case(m, 3, n, ROW_UNIFORM, 0);
    }
    unary_sample(m, 20000, 0);
    for (int kind = 0; kind < ROW_KINDS; kind++) {
        mean_case(m, 70, 65, (enum row_kind)kind, 0);
    }
    mean_case(m, 0, 5, ROW_UNIFORM, 0);
    const float p[] = {0.0f, 0.1f, 0.5f, 0x1.fffffep-1f, 1.0f, 0x1.8p-30f};
    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++) {
        dropout_case(m, 1031, p[i], i * 5);
    }
    dropout_threshold(m);
    dropout_case(m, 3, 0.5f, UINT64_MAX - 1); /* the number wraps */
    dropout_case(m, 9000, 0.3f, (UINT64_C(1) << 34) - 5);
    if (m->tier == TIER_FULL) {
        unary_sample(m, 2000003, 1);
        mean_case(m, 1000, 1003, ROW_UNIFORM, 1);
        mean_case(m, 7, 100003, ROW_OFFSET, 1);
        scale_case(m, 300, 1021, 1);
    }
}
