/* t2k_rms_norm: lengths around the vector widths and blocks, every kind of row, every set of
 * optional operands, sum and result in place on each input that may be. */
#include "matrix.h"
#include "ref_rows.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS ((size_t)ROW_KINDS)
#define EPSILON 1e-5f
enum { RESIDUAL = 1, WEIGHT = 2, SUM = 4, ALL = 7 };

/* One call's operands; what `with` leaves out is NULL. */
struct operands {
    size_t rows, cols;
    int with;
    const float *x; /* (rows, ldx) */
    size_t ldx;
    const float *residual; /* (rows, ldr) */
    size_t ldr;
    const float *weight; /* (cols) */
    float *sum;          /* (rows, lds) */
    size_t lds;
    float *y; /* (rows, ldy) */
    size_t ldy;
};

static t2k_status run(const struct operands *o, t2k_team *team)
{
    const float *residual = o->with & RESIDUAL ? o->residual : NULL;
    const float *weight = o->with & WEIGHT ? o->weight : NULL;
    float *sum = o->with & SUM ? o->sum : NULL;
    const int64_t rows = (int64_t)o->rows, cols = (int64_t)o->cols;
    if (team != NULL) {
        return t2k_rms_norm_team(team, rows, cols, o->x, (int64_t)o->ldx, residual, (int64_t)o->ldr,
                                 weight, EPSILON, sum, (int64_t)o->lds, o->y, (int64_t)o->ldy);
    }
    return t2k_rms_norm(rows, cols, o->x, (int64_t)o->ldx, residual, (int64_t)o->ldr, weight,
                        EPSILON, sum, (int64_t)o->lds, o->y, (int64_t)o->ldy);
}

static void norm(struct matrix *m, const struct operands *o)
{
    t2k_status status = run(o, NULL);
    matrix_check(m, status == T2K_OK, "%zux%zu: %s", o->rows, o->cols, t2k_status_str(status));
}

struct team_call {
    const struct operands *o;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *call = arg;
    call->status[t2k_team_rank(team)] = run(call->o, team);
}

static void against_reference(struct matrix *m, const struct operands *o)
{
    const size_t n = o->cols;
    double *ref = malloc(2 * n * sizeof *ref + 1), *allowed = ref + n;
    float *z = malloc(n * sizeof *z + 1);
    for (size_t i = 0; i < o->rows; i++) {
        ref_rms_norm(n, o->x + i * o->ldx, o->with & RESIDUAL ? o->residual + i * o->ldr : NULL,
                     o->with & WEIGHT ? o->weight : NULL, EPSILON, z, ref, allowed);
        for (size_t j = 0; j < n; j++) {
            double got = (double)o->y[i * o->ldy + j];
            int ok = isnan(ref[j]) ? isnan(got) : fabs(got - ref[j]) <= allowed[j];
            if (!matrix_check(m, ok, "row %zu of %zux%zu with %x at %zu: got %.9g, want %.9g +- %g",
                              i, o->rows, n, (unsigned)o->with, j, got, ref[j], allowed[j])) {
                break;
            }
        }
        matrix_check(m, !(o->with & SUM) || memcmp(z, o->sum + i * o->lds, n * sizeof *z) == 0,
                     "sum of row %zu of %zux%zu", i, o->rows, n);
    }
    free(z);
    free(ref);
}

enum place { Y_ON_X, Y_ON_RESIDUAL, SUM_ON_X, SUM_ON_RESIDUAL, PLACES };

/* One of the outputs in place on one of the inputs. */
static void in_place(struct matrix *m, const struct operands *o, enum place place,
                     const float *want, const float *want_sum)
{
    const size_t rows = o->rows, cols = o->cols, ld = cols + 2, count = rows * cols;
    const int on_residual = place == Y_ON_RESIDUAL || place == SUM_ON_RESIDUAL;
    const int sum = place == SUM_ON_X || place == SUM_ON_RESIDUAL;
    if ((on_residual && !(o->with & RESIDUAL)) || (sum && !(o->with & SUM))) {
        return;
    }
    float *dense = malloc(3 * count * sizeof *dense + 1);
    struct guarded g;
    float *z = guarded_rows(&g, rows, cols, ld);
    for (size_t i = 0; i < rows && cols > 0; i++) {
        const float *from = on_residual ? o->residual + i * o->ldr : o->x + i * o->ldx;
        memcpy(z + i * ld, from, cols * sizeof *z);
    }
    struct operands here = *o;
    *(on_residual ? &here.residual : &here.x) = z;
    *(on_residual ? &here.ldr : &here.ldx) = ld;
    here.y = sum ? dense : z;
    here.ldy = sum ? cols : ld;
    here.sum = sum ? z : dense;
    here.lds = sum ? ld : cols;
    norm(m, &here);
    matrix_check(m, guarded_rows_intact(&g, rows, cols, ld), "%zux%zu in place: stray write", rows,
                 cols);
    pack_rows(dense + count, z, rows, cols, ld);
    matrix_same(m, dense + count, sum ? want_sum : want, count, "%zux%zu with %x in place %d", rows,
                cols, (unsigned)o->with, place);
    if (o->with & SUM) {
        matrix_same(m, dense, sum ? want : want_sum, count, "%zux%zu with %x, other output of %d",
                    rows, cols, (unsigned)o->with, place);
    }
    guarded_free(&g);
    free(dense);
}

static void threads(struct matrix *m, const struct operands *o, const float *want)
{
    const size_t count = o->rows * o->cols;
    float *got = malloc(2 * count * sizeof *got + 1);
    struct operands here = *o;
    here.y = got;
    here.sum = got + count;
    here.ldy = here.lds = o->cols;
    for (int t = 1; t <= 4; t++) {
        t2k_set_num_threads(t);
        memset(got, 0, count * sizeof *got);
        norm(m, &here);
        matrix_same(m, got, want, count, "%zux%zu on %d threads", o->rows, o->cols, t);
        memset(got, 0, count * sizeof *got);
        struct team_call call = {&here, {T2K_OK}};
        t2k_parallel(t, team_body, &call);
        for (int i = 0; i < t; i++) {
            matrix_check(m, call.status[i] == T2K_OK, "status in a team");
        }
        matrix_same(m, got, want, count, "%zux%zu in a team of %d", o->rows, o->cols, t);
    }
    t2k_set_num_threads(0);
    free(got);
}

static void case_of(struct matrix *m, size_t rows, size_t cols, int with, int full_only,
                    int with_threads)
{
    const size_t count = rows * cols, ldy = cols + 1, lds = cols + 4;
    struct operands o = {
        .rows = rows, .cols = cols, .with = with, .ldx = cols + 3, .ldr = cols + 2};
    struct guarded gx, gr, gw, gs, gy;
    float *x = guarded_rows(&gx, rows, cols, o.ldx), *r = guarded_rows(&gr, rows, cols, o.ldr);
    float *w = guarded_floats(&gw, cols), *got = malloc(4 * count * sizeof *got + 1);
    float *got_sum = got + count, *want = got + 2 * count, *want_sum = got + 3 * count;
    o.sum = guarded_rows(&gs, rows, cols, lds);
    o.y = guarded_rows(&gy, rows, cols, ldy);
    o.lds = lds;
    o.ldy = ldy;
    rng_fill(&m->rng, w, cols);
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, x + i * o.ldx);
        rng_fill(&m->rng, r + i * o.ldr, cols);
    }
    guarded_seal(&gx);
    guarded_seal(&gr);
    guarded_seal(&gw);
    o.x = x;
    o.residual = r;
    o.weight = w;
    norm(m, &o);
    matrix_check(m, guarded_rows_intact(&gy, rows, cols, ldy), "%zux%zu: stray write", rows, cols);
    matrix_check(m, guarded_rows_intact(&gs, rows, cols, lds), "%zux%zu: stray sum", rows, cols);
    pack_rows(got, o.y, rows, cols, ldy);
    pack_rows(got_sum, o.sum, rows, cols, lds);
    o.y = want;
    o.sum = want_sum;
    o.ldy = o.lds = cols;
    matrix_use_scalar(m);
    norm(m, &o);
    matrix_use_tested(m);
    matrix_same(m, got, want, count, "%zux%zu with %x", rows, cols, (unsigned)with);
    if (with & SUM) {
        matrix_same(m, got_sum, want_sum, count, "%zux%zu, sum with %x", rows, cols,
                    (unsigned)with);
    }
    for (int place = 0; place < PLACES; place++) {
        in_place(m, &o, (enum place)place, want, want_sum);
    }
    if (with_threads) {
        threads(m, &o, want);
    }
    if (m->isa == 0) {
        against_reference(m, &o);
    }
    matrix_result(m, full_only, want, count);
    free(got);
    guarded_free(&gx);
    guarded_free(&gr);
    guarded_free(&gw);
    guarded_free(&gs);
    guarded_free(&gy);
}

/* Squares beyond float: every element of a row of equal ones is +-1; a row of zeros is NaN. */
static void extremes(struct matrix *m)
{
    static const float value[4] = {FLT_MAX, -0x1p64f, 0x1p-149f, 0.0f};
    for (size_t n = 1; n <= 300; n = n * 2 + 3) {
        float x[4 * 300], y[4 * 300];
        for (size_t i = 0; i < 4 * n; i++) {
            x[i] = value[i / n];
        }
        t2k_rms_norm(4, (int64_t)n, x, (int64_t)n, NULL, 0, NULL, 0.0f, NULL, 0, y, (int64_t)n);
        for (size_t i = 0; i < 4 * n; i++) {
            const float one = i / n == 1 ? -1.0f : 1.0f;
            const int ok = i / n < 3 ? fabsf(y[i] - one) <= 1e-6f : isnan(y[i]);
            matrix_check(m, ok, "row of %zu times %g, eps 0: %g", n, (double)value[i / n],
                         (double)y[i]);
        }
        matrix_result(m, 0, y, 4 * n);
    }
}

/* What large operands get: Y around the caches, wherever its rows begin; the same bits in Y and in
 * the sum, no stray write. */
static void streamed(struct matrix *m, size_t rows, size_t cols, size_t ldy, int with)
{
    const size_t count = rows * cols;
    const t2k_table *table = t2k_table_get();
    float *x = malloc((6 * count + cols) * sizeof *x), *r = x + count, *want = r + count;
    float *got = want + count, *sum = got + count, *want_sum = sum + count, *w = want_sum + count;
    struct guarded g;
    float *y = guarded_rows(&g, rows, cols, ldy);
    memset(sum, 0, 2 * count * sizeof *sum);
    rng_fill(&m->rng, w, cols);
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, x + i * cols);
        rng_fill(&m->rng, r + i * cols, cols);
    }
    const struct operands o = {rows, cols, with, x, cols, r, cols, w, want_sum, cols, want, cols};
    const t2k_norm_params p = {.residual = with & RESIDUAL ? r : NULL,
                               .ldr = cols,
                               .weight = with & WEIGHT ? w : NULL,
                               .eps = EPSILON,
                               .sum = with & SUM ? sum : NULL,
                               .lds = cols,
                               .stream = 1};
    matrix_use_scalar(m);
    matrix_check(m, run(&o, NULL) == T2K_OK, "streamed: reference");
    matrix_use_tested(m);
    table->rms_norm(rows, cols, x, cols, &p, y, ldy);
    pack_rows(got, y, rows, cols, ldy);
    matrix_check(m, guarded_rows_intact(&g, rows, cols, ldy), "streamed: stray write");
    matrix_same(m, got, want, count, "%zux%zu with %x, stride %zu, streamed", rows, cols,
                (unsigned)with, ldy);
    matrix_same(m, sum, want_sum, count, "sum of %zux%zu with %x, streamed", rows, cols,
                (unsigned)with);
    guarded_free(&g);
    free(x);
}

static void refusals(struct matrix *m)
{
    float x[8] = {0}, r[8] = {0}, y[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    const struct {
        int64_t rows, cols, ldx, ldr;
        float eps;
        float *sum;
        int64_t lds;
        float *Y;
        int64_t ldy;
    } bad[] = {
        {-1, 2, 2, 2, 0, NULL, 0, y, 2}, {2, -2, 2, 2, 0, NULL, 0, y, 2},
        {2, 4, 3, 4, 0, NULL, 0, y, 4},  {2, 4, 4, 3, 0, NULL, 0, y, 4},
        {2, 4, 4, 4, 0, NULL, 0, y, 3},  {2, 4, 4, 4, 0, x, 3, y, 4},
        {2, 4, 4, 4, -1, NULL, 0, y, 4}, {2, 4, 4, 4, NAN, NULL, 0, y, 4},
        {2, 4, 4, 4, 0, y, 4, y, 4},     {2, 4, 4, 4, 0, NULL, 0, NULL, 4},
        {2, 3, 3, 3, 0, x, 4, y, 3},     {2, 3, 3, 3, 0, r, 4, y, 3},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        t2k_status status =
            t2k_rms_norm(bad[i].rows, bad[i].cols, x, bad[i].ldx, r, bad[i].ldr, NULL, bad[i].eps,
                         bad[i].sum, bad[i].lds, bad[i].Y, bad[i].ldy);
        matrix_check(m, status == T2K_ERR_ARG && y[0] == 7.0f, "bad arguments %zu: %s", i,
                     t2k_status_str(status));
    }
    matrix_check(m, t2k_rms_norm(0, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0) == T2K_OK,
                 "no rows");
}

void matrix_rmsnorm(struct matrix *m)
{
    refusals(m);
    extremes(m);
    for (size_t i = 0; i < LENGTHS_SMALL; i++) {
        const size_t cols = row_lengths[i];
        for (int with = 0; with <= ALL; with++) {
            if (cols == 10 || cols == 65 || with == 0 || with == ALL || with == (int)(i % 8)) {
                case_of(m, ROWS, cols, with, 0, cols == 129 && with == ALL);
            }
        }
    }
    case_of(m, 150, 10, ALL, 0, 0);
    case_of(m, 2, 4099, RESIDUAL | WEIGHT, 0, 0); /* a row beyond the block */
    case_of(m, ROWS, 1027, WEIGHT, 0, 0);         /* rows one by one */
    case_of(m, ROWS, 1024, ALL, 0, 0);
    for (int with = 0; with <= ALL; with++) {
        for (size_t cols = 3; cols < 1100; cols = cols * 2 + 3) {
            streamed(m, 2 * ROWS + 1, cols, cols + (size_t)with % 3, with);
        }
        streamed(m, ROWS, 512, 512, with);
        streamed(m, 3, 4099, 4100, with);
    }
    if (m->tier == TIER_FULL) {
        for (size_t i = LENGTHS_SMALL; i < LENGTHS; i++) {
            case_of(m, ROWS, row_lengths[i], 0, 1, 1);
            case_of(m, ROWS, row_lengths[i], ALL, 1, 1);
        }
        for (int with = 0; with <= ALL; with++) {
            case_of(m, 40, 300, with, 1, 1);
        }
    }
}
