/* Gradients of activations and softmax, sums of columns. */
#include "matrix.h"
#include "ref_backward.h"
#include "ref_rows.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- activations ---------------------------------------------------------------------------- */

static const float specials[] = {
    0.0f,      -0.0f,      NAN,   -NAN,   INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, FLT_MIN, -FLT_MIN,
    0x1p-149f, -0x1p-149f, 1.0f,  -1.0f,  13.0f,    -13.0f,    13.1f,   -13.1f,   7.0f,    -7.0f,
    6.5f,      -6.5f,      88.0f, -88.0f, 88.1f,    -88.1f,    -88.73f, -104.0f,  0.5f,    -0.5f};
enum { SPECIALS = sizeof specials / sizeof specials[0] };

static void judge_slope(struct matrix *m, t2k_activation a, float x, float dy, float got)
{
    double error, slope = ref_slope(a, (double)x, &error), want = slope * (double)dy;
    if (a == T2K_ACT_RELU) { /* a selection: an infinity or NaN that is not taken is gone */
        want = slope > 0.0 ? (double)dy : slope;
        error = 0.0;
    }
    const double allowed =
        (error > 0.0 ? error * fabs((double)dy) + 0x1p-24 * fabs(want) : 0.0) + 0x1p-149;
    /* An infinite gradient takes the sign of a slope that may have vanished. */
    const int ok =
        (isinf(dy) && a >= T2K_ACT_GELU) ||
        (isnan(want) ? isnan(got) : (double)got == want || fabs((double)got - want) <= allowed);
    matrix_check(m, ok, "activation %d at %a: %a of %a, exactly %a", (int)a, (double)x, (double)got,
                 (double)dy, want);
}

static void activation_case(struct matrix *m, t2k_activation a, size_t n, const float *values,
                            const float *grads, int full_only)
{
    struct guarded gx, gdy, gdx;
    float *x = guarded_floats(&gx, n), *dy = guarded_floats(&gdy, n);
    float *dx = guarded_floats(&gdx, n);
    float *want = malloc(2 * n * sizeof *want + 1), *got = want + n;
    memcpy(x, values, n * sizeof *x);
    memcpy(dy, grads, n * sizeof *dy);
    guarded_seal(&gx);
    guarded_seal(&gdy);
    t2k_status status = t2k_activation_backward(a, (int64_t)n, x, dy, dx);
    matrix_check(m, status == T2K_OK && guarded_intact(&gdx), "activation %d of %zu: %s", (int)a, n,
                 t2k_status_str(status));
    matrix_use_scalar(m);
    t2k_activation_backward(a, (int64_t)n, x, dy, want);
    matrix_use_tested(m);
    matrix_same(m, dx, want, n, "activation %d of %zu", (int)a, n);
    memcpy(got, values, n * sizeof *got);
    t2k_activation_backward(a, (int64_t)n, got, dy, got);
    matrix_same(m, got, want, n, "activation %d of %zu on X", (int)a, n);
    memcpy(got, grads, n * sizeof *got);
    t2k_activation_backward(a, (int64_t)n, x, got, got);
    matrix_same(m, got, want, n, "activation %d of %zu on dY", (int)a, n);
    for (int t = 2; t <= 3 && n > 2000; t++) {
        t2k_set_num_threads(t);
        t2k_activation_backward(a, (int64_t)n, x, dy, got);
        matrix_same(m, got, want, n, "activation %d of %zu on %d threads", (int)a, n, t);
    }
    t2k_set_num_threads(0);
    for (size_t i = 0; m->isa == 0 && i < n; i++) {
        judge_slope(m, a, x[i], dy[i], want[i]);
    }
    matrix_result(m, full_only, want, n);
    free(want);
    guarded_free(&gx);
    guarded_free(&gdy);
    guarded_free(&gdx);
}

static void activation_sample(struct matrix *m, size_t n, int full_only)
{
    float *x = malloc(2 * n * sizeof *x + 1), *dy = x + n;
    for (int a = T2K_ACT_NONE; a <= T2K_ACT_SILU; a++) {
        for (size_t i = 0; i < n; i++) {
            x[i] = i % 4 == 0   ? 96.0f * rng_uniform(&m->rng)
                   : i % 4 == 1 ? float_of((uint32_t)rng_next(&m->rng))
                                : 8.0f * rng_uniform(&m->rng);
            dy[i] = i % 7 == 0 ? 1e30f * rng_uniform(&m->rng) : rng_uniform(&m->rng);
        }
        activation_case(m, (t2k_activation)a, n, x, dy, full_only);
    }
    free(x);
}

static void activation_specials(struct matrix *m)
{
    float dy[SPECIALS];
    for (int a = T2K_ACT_NONE; a <= T2K_ACT_SILU; a++) {
        for (int i = 0; i < SPECIALS; i++) {
            dy[i] = 1.0f;
        }
        activation_case(m, (t2k_activation)a, SPECIALS, specials, dy, 0);
        for (int i = 0; i < SPECIALS; i++) {
            dy[i] = specials[(i * 7 + 3) % SPECIALS];
        }
        activation_case(m, (t2k_activation)a, SPECIALS, specials, dy, 0);
    }
}

/* ---- a collective call, and what every case of rows ends with -------------------------------- */

struct team_call {
    t2k_status (*run)(t2k_team *team, const void *operands, float *out);
    const void *operands;
    float *out;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *call = arg;
    call->status[t2k_team_rank(team)] = call->run(team, call->operands, call->out);
}

/* `run` by itself and inside a team, on 1 to 4 threads, gives `want` (n); got starts as `start`. */
static void any_threads(struct matrix *m,
                        t2k_status (*run)(t2k_team *team, const void *operands, float *out),
                        const void *operands, const float *start, const float *want, size_t n,
                        const char *what)
{
    float *got = malloc(n * sizeof *got + 1);
    for (int t = 1; t <= 4; t++) {
        struct team_call call = {run, operands, got, {T2K_OK}};
        t2k_set_num_threads(t);
        memcpy(got, start, n * sizeof *got);
        matrix_check(m, run(NULL, operands, got) == T2K_OK, "%s", what);
        matrix_same(m, got, want, n, "%s on %d threads", what, t);
        memcpy(got, start, n * sizeof *got);
        t2k_parallel(t, team_body, &call);
        matrix_check(m, call.status[t - 1] == T2K_OK, "%s in a team", what);
        matrix_same(m, got, want, n, "%s in a team of %d", what, t);
    }
    t2k_set_num_threads(0);
    free(got);
}

/* ---- softmax -------------------------------------------------------------------------------- */

struct softmax_operands {
    size_t rows, cols;
    const float *y, *dy; /* dense */
    float scale;
};

static t2k_status run_softmax(t2k_team *team, const void *operands, float *dx)
{
    const struct softmax_operands *o = operands;
    const int64_t rows = (int64_t)o->rows, cols = (int64_t)o->cols;
    return team != NULL
               ? t2k_softmax_backward_team(team, rows, cols, o->y, cols, o->dy, cols, o->scale, dx,
                                           cols)
               : t2k_softmax_backward(rows, cols, o->y, cols, o->dy, cols, o->scale, dx, cols);
}

static void softmax_reference(struct matrix *m, const struct softmax_operands *o, const float *got)
{
    double *want = malloc(2 * o->cols * sizeof *want + 1), *allowed = want + o->cols;
    for (size_t i = 0; i < o->rows; i++) {
        const size_t at = i * o->cols;
        ref_softmax_backward(o->cols, o->y + at, o->dy + at, o->scale, want, allowed);
        for (size_t j = 0; j < o->cols; j++) {
            const int ok = isfinite(want[j]) ? fabs((double)got[at + j] - want[j]) <= allowed[j]
                                             : !isfinite(got[at + j]);
            matrix_check(m, ok, "softmax_backward %zux%zu at %zu, %zu: %.9g, want %.17g", o->rows,
                         o->cols, i, j, (double)got[at + j], want[j]);
        }
    }
    free(want);
}

static void softmax_case(struct matrix *m, size_t rows, size_t cols, int full_only, int threads)
{
    const size_t ldy = cols + 1, lddy = cols + 3, lddx = cols + 2, count = rows * cols;
    const int64_t r = (int64_t)rows, c = (int64_t)cols;
    struct guarded gy, gdy, gdx;
    float *y = guarded_rows(&gy, rows, cols, ldy), *dy = guarded_rows(&gdy, rows, cols, lddy);
    float *dx = guarded_rows(&gdx, rows, cols, lddx);
    float *dense = malloc(4 * count * sizeof *dense + 1), *grads = dense + count;
    float *want = grads + count, *got = want + count;
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, dense + i * cols);
        fill_row(&m->rng, i % 3 == 0 ? ROW_NAN : ROW_UNIFORM, cols, grads + i * cols);
        if (i % 3 == 0 && i % 2 == 0 && cols > 0) {
            grads[i * cols + cols - 1] = 0.5f;
        }
    }
    t2k_softmax(r, c, dense, c, dense, c);
    unpack_rows(dense, y, rows, cols, ldy);
    unpack_rows(grads, dy, rows, cols, lddy);
    guarded_seal(&gy);
    guarded_seal(&gdy);
    const struct softmax_operands o = {rows, cols, dense, grads, 0.3f};
    t2k_status status =
        t2k_softmax_backward(r, c, y, (int64_t)ldy, dy, (int64_t)lddy, 0.3f, dx, (int64_t)lddx);
    matrix_check(m, status == T2K_OK && guarded_rows_intact(&gdx, rows, cols, lddx),
                 "softmax_backward %zux%zu: %s", rows, cols, t2k_status_str(status));
    matrix_use_scalar(m);
    run_softmax(NULL, &o, want);
    matrix_use_tested(m);
    pack_rows(got, dx, rows, cols, lddx);
    matrix_same(m, got, want, count, "softmax_backward %zux%zu", rows, cols);
    memcpy(got, grads, count * sizeof *got);
    t2k_softmax_backward(r, c, dense, c, got, c, 0.3f, got, c);
    matrix_same(m, got, want, count, "softmax_backward %zux%zu on dY", rows, cols);
    memcpy(got, dense, count * sizeof *got);
    t2k_softmax_backward(r, c, got, c, grads, c, 0.3f, got, c);
    matrix_same(m, got, want, count, "softmax_backward %zux%zu on Y", rows, cols);
    if (threads) {
        any_threads(m, run_softmax, &o, grads, want, count, "softmax_backward");
    }
    if (m->isa == 0) {
        softmax_reference(m, &o, want);
    }
    matrix_result(m, full_only, want, count);
    free(dense);
    guarded_free(&gy);
    guarded_free(&gdy);
    guarded_free(&gdx);
}

/* ---- sums of columns ------------------------------------------------------------------------ */

struct column_operands {
    size_t rows, cols, lda, ldb;
    const float *a, *b;
    int accumulate;
};

static t2k_status run_columns(t2k_team *team, const void *operands, float *sums)
{
    const struct column_operands *o = operands;
    const int64_t rows = (int64_t)o->rows, cols = (int64_t)o->cols, lda = (int64_t)o->lda;
    const int64_t ldb = (int64_t)o->ldb;
    if (team != NULL) {
        return o->b != NULL
                   ? t2k_column_dots_team(team, rows, cols, o->a, lda, o->b, ldb, o->accumulate,
                                          sums)
                   : t2k_column_sums_team(team, rows, cols, o->a, lda, o->accumulate, sums);
    }
    return o->b != NULL ? t2k_column_dots(rows, cols, o->a, lda, o->b, ldb, o->accumulate, sums)
                        : t2k_column_sums(rows, cols, o->a, lda, o->accumulate, sums);
}

/* Batches of 256 rows that accumulate give the bits of all rows at once. */
static void in_batches(struct matrix *m, const struct column_operands *o, const float *start,
                       const float *want)
{
    float *got = malloc(o->cols * sizeof *got + 1);
    struct column_operands part = *o;
    memcpy(got, start, o->cols * sizeof *got);
    for (size_t i = 0; i < o->rows; i += part.rows) {
        part.rows = o->rows - i < T2K_CHUNK_ROWS ? o->rows - i : T2K_CHUNK_ROWS;
        part.a = o->a + i * o->lda;
        part.b = o->b != NULL ? o->b + i * o->ldb : NULL;
        part.accumulate = i > 0 || o->accumulate;
        run_columns(NULL, &part, got);
    }
    matrix_same(m, got, want, o->rows > 0 ? o->cols : 0, "columns of %zux%zu in batches", o->rows,
                o->cols);
    free(got);
}

static void column_case(struct matrix *m, size_t rows, size_t cols, int full_only)
{
    struct guarded ga, gb, gs;
    struct column_operands o = {.rows = rows, .cols = cols, .lda = cols + 1, .ldb = cols + 4};
    float *a = guarded_rows(&ga, rows, cols, o.lda), *b = guarded_rows(&gb, rows, cols, o.ldb);
    float *sums = guarded_floats(&gs, cols);
    float *start = malloc(2 * cols * sizeof *start + 1), *want = start + cols;
    for (size_t i = 0; i < rows; i++) {
        const enum row_kind kind = i == rows / 2 && cols % 2 == 1 ? ROW_NAN : ROW_UNIFORM;
        fill_row(&m->rng, kind, cols, a + i * o.lda);
        fill_row(&m->rng, i % 5 == 4 ? ROW_DENORMAL : ROW_WIDE, cols, b + i * o.ldb);
    }
    rng_fill(&m->rng, start, cols);
    guarded_seal(&ga);
    guarded_seal(&gb);
    o.a = a;
    for (int which = 0; which < 4; which++) {
        o.b = which & 1 ? b : NULL;
        o.accumulate = which >> 1;
        memcpy(want, start, cols * sizeof *want);
        ref_columns(rows, cols, a, o.lda, o.b, o.ldb, o.accumulate, want);
        for (size_t j = 0; j < cols; j++) { /* without accumulation sums is not read */
            sums[j] = o.accumulate ? start[j] : NAN;
        }
        matrix_check(m, run_columns(NULL, &o, sums) == T2K_OK && guarded_intact(&gs),
                     "columns of %zux%zu", rows, cols);
        matrix_same(m, sums, want, cols, "columns of %zux%zu way %d", rows, cols, which);
        any_threads(m, run_columns, &o, start, want, cols, "columns");
        in_batches(m, &o, start, want);
        matrix_result(m, full_only, want, cols);
    }
    free(start);
    guarded_free(&ga);
    guarded_free(&gb);
    guarded_free(&gs);
}

/* ---- bad arguments and environment ---------------------------------------------------------- */

static void refusals(struct matrix *m)
{
    float x[8] = {0}, y[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    const t2k_status got[] = {
        t2k_activation_backward((t2k_activation)5, 4, x, x, y),
        t2k_activation_backward((t2k_activation)-1, 4, x, x, y),
        t2k_activation_backward(T2K_ACT_GELU, -1, x, x, y),
        t2k_activation_backward(T2K_ACT_GELU, 4, NULL, x, y),
        t2k_activation_backward(T2K_ACT_GELU, 4, x, NULL, y),
        t2k_activation_backward(T2K_ACT_GELU, 4, x, x, NULL),
        t2k_mul(4, x, NULL, y),
        t2k_softmax_backward(2, 4, x, 3, x, 4, 1.0f, y, 4),
        t2k_softmax_backward(2, 4, x, 4, NULL, 4, 1.0f, y, 4),
        t2k_softmax_backward(2, 3, y, 4, x, 3, 1.0f, y, 3),
        t2k_softmax_backward(2, 3, x, 3, y, 4, 1.0f, y, 3),
        t2k_softmax_backward(-1, 3, x, 3, x, 3, 1.0f, y, 3),
        t2k_column_sums(2, 4, NULL, 4, 0, y),
        t2k_column_sums(2, 4, x, 4, 2, y),
        t2k_column_sums(2, 4, x, 4, 0, NULL),
        t2k_column_sums(0, 4, NULL, 4, 0, NULL),
        t2k_column_dots(2, 4, x, 4, NULL, 4, 0, y),
        t2k_column_dots(2, 4, x, 4, x, 3, 0, y),
    };
    for (size_t i = 0; i < sizeof got / sizeof got[0]; i++) {
        matrix_check(m, got[i] == T2K_ERR_ARG && y[0] == 7.0f, "bad arguments %zu: %s", i,
                     t2k_status_str(got[i]));
    }
    matrix_check(m, t2k_softmax_backward(3, 0, NULL, 0, NULL, 0, 1.0f, NULL, 0) == T2K_OK, "empty");
    matrix_check(m, t2k_activation_backward(T2K_ACT_SILU, 0, NULL, NULL, NULL) == T2K_OK, "empty");
    matrix_check(m, t2k_column_sums(3, 0, NULL, 0, 0, NULL) == T2K_OK, "no columns");
}

static void hostile_environment(struct matrix *m)
{
    enum { N = 67 };
    float x[N], want[4 * N], got[4 * N];
    fill_row(&m->rng, ROW_WIDE, N, x);
    for (int pass = 0; pass < 2; pass++) {
        float *to = pass == 0 ? want : got;
        const uint64_t before = pass == 0 ? 0 : hostile_fpenv();
        t2k_activation_backward(T2K_ACT_GELU, N, x, x, to);
        t2k_activation_backward(T2K_ACT_SILU, N, x, x, to + N);
        t2k_softmax_backward(1, N, x, N, x, N, 0.7f, to + 2 * N, N);
        t2k_column_dots(1, N, x, N, x, N, 0, to + 3 * N);
        if (pass == 1) {
            restore_fpenv(before);
        }
    }
    matrix_same(m, got, want, sizeof want / sizeof want[0],
                "with flush-to-zero and upward rounding set");
}

void matrix_backward(struct matrix *m)
{
    static const size_t heights[] = {0, 1, 2, 255, 256, 257, 600};
    refusals(m);
    hostile_environment(m);
    activation_specials(m);
    for (size_t i = 0; i < LENGTHS_SMALL; i++) {
        activation_sample(m, row_lengths[i], 0);
        softmax_case(m, (size_t)ROW_KINDS, row_lengths[i], 0, row_lengths[i] == 129);
    }
    softmax_case(m, 50, 10, 0, 1);
    activation_sample(m, 5003, 0);
    for (size_t i = 0; i < sizeof heights / sizeof heights[0]; i++) {
        for (size_t j = 0; j < LENGTHS_SMALL; j += 3) {
            column_case(m, heights[i], row_lengths[j], 0);
        }
    }
    column_case(m, 513, 130, 0);
    if (m->tier == TIER_FULL) {
        activation_sample(m, 200003, 1);
        for (size_t i = LENGTHS_SMALL; i < LENGTHS; i++) {
            softmax_case(m, (size_t)ROW_KINDS, row_lengths[i], 1, 1);
        }
        column_case(m, 3000, 517, 1);
    }
}
