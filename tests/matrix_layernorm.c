/* t2k_layer_norm: lengths around the vector widths and blocks, every kind of row, every set of
 * optional operands, in place on each input that may be. */
#include "matrix.h"
#include "ref_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS ((size_t)ROW_KINDS)
#define EPSILON 1e-5f
enum { SCALE = 1, RESIDUAL = 2, WEIGHT = 4, BIAS = 8, ALL = 15 };

/* One call's operands; what `with` leaves out is NULL. */
struct operands {
    size_t rows, cols;
    int with;
    const float *x; /* (rows, ldx) */
    size_t ldx;
    const float *residual; /* (rows, ldr) */
    size_t ldr;
    const float *scale, *weight, *bias; /* (cols) */
};

static t2k_status run(const struct operands *o, t2k_team *team, float *Y, size_t ldy)
{
    const float *scale = o->with & SCALE ? o->scale : NULL;
    const float *residual = o->with & RESIDUAL ? o->residual : NULL;
    const float *weight = o->with & WEIGHT ? o->weight : NULL;
    const float *bias = o->with & BIAS ? o->bias : NULL;
    const int64_t rows = (int64_t)o->rows, cols = (int64_t)o->cols;
    if (team != NULL) {
        return t2k_layer_norm_team(team, rows, cols, o->x, (int64_t)o->ldx, scale, residual,
                                   (int64_t)o->ldr, weight, bias, EPSILON, Y, (int64_t)ldy);
    }
    return t2k_layer_norm(rows, cols, o->x, (int64_t)o->ldx, scale, residual, (int64_t)o->ldr,
                          weight, bias, EPSILON, Y, (int64_t)ldy);
}

static void norm(struct matrix *m, const struct operands *o, float *Y, size_t ldy)
{
    t2k_status status = run(o, NULL, Y, ldy);
    matrix_check(m, status == T2K_OK, "%zux%zu: %s", o->rows, o->cols, t2k_status_str(status));
}

struct team_call {
    const struct operands *o;
    float *Y;
    size_t ldy;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *call = arg;
    call->status[t2k_team_rank(team)] = run(call->o, team, call->Y, call->ldy);
}

static void against_reference(struct matrix *m, const struct operands *o, const float *y)
{
    const size_t n = o->cols;
    double *ref = malloc(2 * n * sizeof *ref + 1), *allowed = ref + n;
    for (size_t i = 0; i < o->rows; i++) {
        ref_layer_norm(n, o->x + i * o->ldx, o->with & SCALE ? o->scale : NULL,
                       o->with & RESIDUAL ? o->residual + i * o->ldr : NULL,
                       o->with & WEIGHT ? o->weight : NULL, o->with & BIAS ? o->bias : NULL,
                       EPSILON, ref, allowed);
        for (size_t j = 0; j < n; j++) {
            double got = (double)y[i * n + j];
            int ok = isnan(ref[j]) ? isnan(got) : fabs(got - ref[j]) <= allowed[j];
            if (!matrix_check(m, ok, "row %zu of %zux%zu with %x at %zu: got %.9g, want %.9g +- %g",
                              i, o->rows, n, (unsigned)o->with, j, got, ref[j], allowed[j])) {
                break;
            }
        }
    }
    free(ref);
}

/* In place on X, and on the residual. */
static void in_place(struct matrix *m, const struct operands *o, const float *want)
{
    const size_t rows = o->rows, cols = o->cols, ld = cols + 2;
    float *got = malloc(rows * cols * sizeof *got + 1);
    for (int on_residual = 0; on_residual <= ((o->with & RESIDUAL) != 0); on_residual++) {
        struct guarded g;
        float *z = guarded_rows(&g, rows, cols, ld);
        for (size_t i = 0; i < rows && cols > 0; i++) {
            const float *from = on_residual ? o->residual + i * o->ldr : o->x + i * o->ldx;
            memcpy(z + i * ld, from, cols * sizeof *z);
        }
        struct operands here = *o;
        if (on_residual) {
            here.residual = z;
            here.ldr = ld;
        } else {
            here.x = z;
            here.ldx = ld;
        }
        norm(m, &here, z, ld);
        matrix_check(m, guarded_rows_intact(&g, rows, cols, ld), "%zux%zu in place: stray write",
                     rows, cols);
        pack_rows(got, z, rows, cols, ld);
        matrix_same(m, got, want, rows * cols, "%zux%zu with %x in place on %s", rows, cols,
                    (unsigned)o->with, on_residual ? "residual" : "X");
        guarded_free(&g);
    }
    free(got);
}

static void threads(struct matrix *m, const struct operands *o, const float *want)
{
    const size_t count = o->rows * o->cols;
    float *got = malloc(count * sizeof *got + 1);
    for (int t = 1; t <= 4; t++) {
        t2k_set_num_threads(t);
        memset(got, 0, count * sizeof *got);
        norm(m, o, got, o->cols);
        matrix_same(m, got, want, count, "%zux%zu on %d threads", o->rows, o->cols, t);
        memset(got, 0, count * sizeof *got);
        struct team_call call = {o, got, o->cols, {T2K_OK}};
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
    const size_t count = rows * cols, ldy = cols + 1;
    struct operands o = {rows, cols, with, NULL, cols + 3, NULL, cols + 2, NULL, NULL, NULL};
    struct guarded gx, gr, gv[3], gy;
    float *x = guarded_rows(&gx, rows, cols, o.ldx);
    float *r = guarded_rows(&gr, rows, cols, o.ldr);
    float *v[3], *y = guarded_rows(&gy, rows, cols, ldy);
    for (int k = 0; k < 3; k++) {
        v[k] = guarded_floats(&gv[k], cols);
        rng_fill(&m->rng, v[k], cols);
        guarded_seal(&gv[k]);
    }
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, x + i * o.ldx);
        rng_fill(&m->rng, r + i * o.ldr, cols);
    }
    guarded_seal(&gx);
    guarded_seal(&gr);
    o.x = x;
    o.residual = r;
    o.scale = v[0];
    o.weight = v[1];
    o.bias = v[2];
    float *want = malloc(2 * count * sizeof *want + 1), *got = want + count;
    norm(m, &o, y, ldy);
    matrix_check(m, guarded_rows_intact(&gy, rows, cols, ldy), "%zux%zu: stray write", rows, cols);
    pack_rows(got, y, rows, cols, ldy);
    matrix_use_scalar(m);
    norm(m, &o, want, cols);
    matrix_use_tested(m);
    matrix_same(m, got, want, count, "%zux%zu with %x", rows, cols, (unsigned)with);
    in_place(m, &o, want);
    if (with_threads) {
        threads(m, &o, want);
    }
    if (m->isa == 0) {
        against_reference(m, &o, want);
    }
    matrix_result(m, full_only, want, count);
    free(want);
    guarded_free(&gx);
    guarded_free(&gr);
    guarded_free(&gy);
    for (int k = 0; k < 3; k++) {
        guarded_free(&gv[k]);
    }
}

/* What large operands get: Y around the caches, wherever its rows begin; the same bits, no stray
 * write, and in place plain stores. */
static void streamed(struct matrix *m, size_t rows, size_t cols, size_t ldy, int with)
{
    const size_t count = rows * cols;
    const t2k_table *table = t2k_table_get();
    float *x = malloc((5 * count + 3 * cols) * sizeof *x), *r = x + count, *want = r + count;
    float *got = want + count, *here = got + count, *v = here + count;
    struct guarded g;
    float *y = guarded_rows(&g, rows, cols, ldy);
    rng_fill(&m->rng, v, 3 * cols);
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, x + i * cols);
        rng_fill(&m->rng, r + i * cols, cols);
    }
    t2k_norm_params p = {.scale = with & SCALE ? v : NULL,
                         .residual = with & RESIDUAL ? r : NULL,
                         .ldr = cols,
                         .weight = with & WEIGHT ? v + cols : NULL,
                         .bias = with & BIAS ? v + 2 * cols : NULL,
                         .eps = EPSILON};
    const struct operands o = {rows, cols, with, x, cols, r, cols, v, v + cols, v + 2 * cols};
    matrix_use_scalar(m);
    norm(m, &o, want, cols);
    matrix_use_tested(m);
    p.stream = 1;
    table->layer_norm(rows, cols, x, cols, &p, y, ldy);
    pack_rows(got, y, rows, cols, ldy);
    matrix_check(m, guarded_rows_intact(&g, rows, cols, ldy), "streamed: stray write");
    matrix_same(m, got, want, count, "%zux%zu with %x, stride %zu, streamed", rows, cols,
                (unsigned)with, ldy);
    memcpy(here, x, count * sizeof *x);
    table->layer_norm(rows, cols, here, cols, &p, here, cols);
    matrix_same(m, here, want, count, "%zux%zu with %x, in place, large", rows, cols,
                (unsigned)with);
    guarded_free(&g);
    free(x);
}

/* Equal rows give the bias; eps is what keeps them finite. */
static void constant_rows(struct matrix *m)
{
    float x[3 * 100], y[3 * 100], bias[100];
    const float value[3] = {0.0f, 1e6f, -0.1f};
    for (size_t i = 0; i < 300; i++) {
        x[i] = value[i / 100];
        bias[i % 100] = 1.0f + (float)(i % 100);
    }
    t2k_layer_norm(3, 100, x, 100, NULL, NULL, 0, NULL, bias, EPSILON, y, 100);
    for (size_t i = 0; i < 300; i++) {
        double off = fabs((double)y[i] - (double)bias[i % 100]);
        matrix_check(m, off <= 2e-5, "equal row %zu: %g off the bias", i / 100, off);
    }
    t2k_layer_norm(1, 100, x, 100, NULL, NULL, 0, NULL, bias, 0.0f, y, 100);
    matrix_check(m, isnan(y[0]) && isnan(y[99]), "0/0 of an equal row with eps 0");
}

static void hostile_environment(struct matrix *m)
{
    float x[2 * 70], want[2 * 70], got[2 * 70];
    fill_row(&m->rng, ROW_OFFSET, 70, x);
    fill_row(&m->rng, ROW_UNIFORM, 70, x + 70);
    t2k_layer_norm(2, 70, x, 70, x, NULL, 0, x, x, EPSILON, want, 70);
    uint64_t before = hostile_fpenv();
    t2k_layer_norm(2, 70, x, 70, x, NULL, 0, x, x, EPSILON, got, 70);
    restore_fpenv(before);
    matrix_same(m, got, want, 2 * 70, "with flush-to-zero and upward rounding set");
}

static void refusals(struct matrix *m)
{
    float x[8] = {0}, y[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    const struct {
        int64_t rows, cols, ldx;
        const float *X, *residual;
        int64_t ldr;
        float eps, *Y;
        int64_t ldy;
    } bad[] = {
        {-1, 2, 2, x, NULL, 0, 0, y, 2},   {2, -2, 2, x, NULL, 0, 0, y, 2},
        {2, 4, 3, x, NULL, 0, 0, y, 4},    {2, 4, 4, x, NULL, 0, 0, y, 3},
        {2, 4, 4, x, x, 3, 0, y, 4},       {2, 4, 4, x, NULL, 0, -1e-9f, y, 4},
        {2, 4, 4, x, NULL, 0, NAN, y, 4},  {2, 4, 4, NULL, NULL, 0, 0, y, 4},
        {2, 4, 4, x, NULL, 0, 0, NULL, 4}, {2, 3, 3, x, y, 4, 0, y, 3},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        t2k_status status =
            t2k_layer_norm(bad[i].rows, bad[i].cols, bad[i].X, bad[i].ldx, NULL, bad[i].residual,
                           bad[i].ldr, NULL, NULL, bad[i].eps, bad[i].Y, bad[i].ldy);
        matrix_check(m, status == T2K_ERR_ARG && y[0] == 7.0f, "bad arguments %zu: %s", i,
                     t2k_status_str(status));
    }
    matrix_check(m, t2k_layer_norm(0, 0, NULL, 0, NULL, NULL, 0, NULL, NULL, 0, NULL, 0) == T2K_OK,
                 "no rows");
}

void matrix_layernorm(struct matrix *m)
{
    refusals(m);
    constant_rows(m);
    hostile_environment(m);
    for (size_t i = 0; i < LENGTHS_SMALL; i++) {
        const size_t cols = row_lengths[i];
        for (int with = 0; with <= ALL; with++) {
            if (cols == 10 || cols == 65 || with == 0 || with == ALL || with == (int)(i % 16)) {
                case_of(m, ROWS, cols, with, 0, cols == 129 && with == ALL);
            }
        }
    }
    case_of(m, 150, 10, WEIGHT | BIAS, 0, 0);
    case_of(m, 150, 7, ALL, 0, 0);
    case_of(m, 150, 30, ALL, 0, 0);
    case_of(m, 2, 4099, RESIDUAL | WEIGHT, 0, 0); /* a row beyond the block */
    case_of(m, ROWS, 1027, WEIGHT | BIAS, 0, 0);  /* rows one by one */
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
