/* Gradients of norms; optimiser steps, scaling and the sum of squares. */
#include "matrix.h"
#include "ref_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EPS 0x1p-24
#define EPSILON 1e-5f

/* ---- norms ---------------------------------------------------------------------------------- */

enum { SCALE = 1, RESIDUAL = 2, WEIGHT = 4, ACCUMULATE = 8 };

struct operands {
    size_t rows, cols, ldx, ldr, lddy, lddx;
    int rms, with;
    const float *x, *r, *scale, *weight, *dy, *start;
};

/* dX goes to `dx`, then come dweight and dbias (RMS norm: not written). */
static t2k_status run(t2k_team *team, const struct operands *o, float *dx, size_t lddx,
                      float *columns)
{
    const int64_t rows = (int64_t)o->rows, cols = (int64_t)o->cols, ldx = (int64_t)o->ldx;
    const int64_t ldr = (int64_t)o->ldr, lddy = (int64_t)o->lddy, ldd = (int64_t)lddx;
    const float *r = o->with & RESIDUAL ? o->r : NULL, *w = o->with & WEIGHT ? o->weight : NULL;
    const float *scale = o->with & SCALE ? o->scale : NULL;
    const int accumulate = (o->with & ACCUMULATE) != 0;
    float *dw = columns, *db = columns != NULL ? columns + o->cols : NULL;
    if (o->rms) {
        return team != NULL
                   ? t2k_rms_norm_backward_team(team, rows, cols, o->x, ldx, r, ldr, w, EPSILON,
                                                o->dy, lddy, dx, ldd, accumulate, dw)
                   : t2k_rms_norm_backward(rows, cols, o->x, ldx, r, ldr, w, EPSILON, o->dy, lddy,
                                           dx, ldd, accumulate, dw);
    }
    return team != NULL
               ? t2k_layer_norm_backward_team(team, rows, cols, o->x, ldx, scale, r, ldr, w,
                                              EPSILON, o->dy, lddy, dx, ldd, accumulate, dw, db)
               : t2k_layer_norm_backward(rows, cols, o->x, ldx, scale, r, ldr, w, EPSILON, o->dy,
                                         lddy, dx, ldd, accumulate, dw, db);
}

/* Element j of row i as the norm takes it. */
static double z_of(const struct operands *o, size_t i, size_t j)
{
    float z = o->x[i * o->ldx + j];
    z = !o->rms && (o->with & SCALE) ? z * o->scale[j] : z;
    return (double)(o->with & RESIDUAL ? z + o->r[i * o->ldr + j] : z);
}

/* t (cols) of a row, its 1 / sqrt(var + eps) and, in *lost, the error of t in units of EPS. */
static double ref_t(const struct operands *o, size_t i, double *t, double *lost)
{
    double mean = 0.0, square = 0.0, largest = 0.0;
    for (size_t j = 0; j < o->cols; j++) {
        t[j] = z_of(o, i, j);
        mean += o->rms ? 0.0 : t[j] / (double)o->cols;
    }
    for (size_t j = 0; j < o->cols; j++) {
        t[j] -= mean;
        square += t[j] * t[j] / (double)o->cols;
    }
    const double inverse = 1.0 / sqrt(square + (double)EPSILON);
    for (size_t j = 0; j < o->cols; j++) {
        t[j] *= inverse;
        largest = fmax(largest, fabs(t[j]));
    }
    *lost = (16 + (double)o->cols / 64) * largest + 0x1p-18 * fabs(mean) * inverse;
    return inverse;
}

static void judge_norm(struct matrix *m, const struct operands *o, const float *dx,
                       const float *columns)
{
    const size_t n = o->cols;
    double *t = calloc(4 * n + 1, sizeof *t), *dw = t + n, *room = dw + n, *g = room + n;
    for (size_t j = 0; j < n; j++) {
        dw[j] = o->with & ACCUMULATE ? (double)o->start[j] : 0.0;
        room[j] = fabs(dw[j]) * 2;
    }
    for (size_t i = 0; i < o->rows; i++) {
        double lost, a = 0.0, b = 0.0, size_a = 0.0, size_b = 0.0, top = 0.0;
        const double inverse = ref_t(o, i, t, &lost);
        for (size_t j = 0; j < n; j++) {
            const double dy = (double)o->dy[i * o->lddy + j];
            g[j] = o->with & WEIGHT ? (double)((float)dy * o->weight[j]) : dy;
            a += o->rms ? 0.0 : g[j] / (double)n;
            b += g[j] * t[j] / (double)n;
            size_a += fabs(g[j]) / (double)n;
            size_b += fabs(g[j]) * (fabs(t[j]) + lost) / (double)n;
            top = fmax(top, fabs(t[j]));
            dw[j] += dy * t[j];
            room[j] += fabs(dy) * (fabs(t[j]) * ((double)fmin((double)o->rows, 260)) + lost);
        }
        for (size_t j = 0; j < n; j++) {
            const double want = inverse * (g[j] - a - t[j] * b);
            const double allowed = EPS * inverse * ((double)n / 64 + 32) *
                                       (fabs(g[j]) + size_a + (top + lost / 16) * size_b) +
                                   0x1p-120;
            const double got = (double)dx[i * n + j];
            matrix_check(m, isfinite(want) ? fabs(got - want) <= allowed : isnan(got),
                         "norm %d of %zux%zu with %d at %zu, %zu: %.9g, want %.17g, allowed %g",
                         o->rms, o->rows, n, o->with, i, j, got, want, allowed);
        }
    }
    for (size_t j = 0; j < n; j++) {
        const double got = (double)columns[j];
        matrix_check(m,
                     isfinite(dw[j]) ? fabs(got - dw[j]) <= EPS * room[j] + 0x1p-120 : isnan(got),
                     "dweight of norm %d of %zux%zu with %d at %zu: %.9g, want %.17g", o->rms,
                     o->rows, n, o->with, j, got, dw[j]);
    }
    free(t);
}

struct team_call {
    const struct operands *o;
    float *dx, *columns;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *c = arg;
    c->status[t2k_team_rank(team)] = run(team, c->o, c->dx, c->o->cols, c->columns);
}

static void norm_threads(struct matrix *m, const struct operands *o, const float *want)
{
    const size_t count = o->rows * o->cols, all = count + 2 * o->cols;
    float *got = malloc(all * sizeof *got + 1);
    for (int t = 1; t <= 8; t++) {
        t2k_set_num_threads((t + 1) / 2);
        memcpy(got + count, o->start, 2 * o->cols * sizeof *got);
        struct team_call call = {o, got, got + count, {T2K_OK}};
        if (t % 2 == 0) {
            t2k_parallel((t + 1) / 2, team_body, &call);
        } else {
            call.status[0] = run(NULL, o, got, o->cols, got + count);
        }
        matrix_check(m, call.status[0] == T2K_OK, "norm %d", o->rms);
        matrix_same(m, got, want, all, "norm %d of %zux%zu, way %d", o->rms, o->rows, o->cols, t);
    }
    /* Over dY, which the columns need before; and frozen weights. */
    pack_rows(got, o->dy, o->rows, o->cols, o->lddy);
    struct operands in_place = *o;
    in_place.dy = got;
    in_place.lddy = o->cols;
    memcpy(got + count, o->start, 2 * o->cols * sizeof *got);
    run(NULL, &in_place, got, o->cols, got + count);
    matrix_same(m, got, want, all, "norm %d of %zux%zu on dY", o->rms, o->rows, o->cols);
    run(NULL, o, got, o->cols, NULL);
    matrix_same(m, got, want, count, "norm %d of %zux%zu, frozen", o->rms, o->rows, o->cols);
    t2k_set_num_threads(0);
    free(got);
}

static void norm_case(struct matrix *m, size_t rows, size_t cols, int full_only, int strange)
{
    struct guarded gx, gdy, gdx, gc;
    const size_t count = rows * cols, all = count + 2 * cols;
    struct operands o = {.rows = rows,
                         .cols = cols,
                         .ldx = cols + 1,
                         .ldr = cols + 2,
                         .lddy = cols + 3,
                         .lddx = cols + 4};
    float *x = guarded_rows(&gx, rows, cols, o.ldx), *dy = guarded_rows(&gdy, rows, cols, o.lddy);
    float *dx = guarded_rows(&gdx, rows, cols, o.lddx), *columns = guarded_floats(&gc, 2 * cols);
    float *want = malloc((all + rows * o.ldr + 4 * cols) * sizeof *want + 1);
    float *r = want + all, *scale = r + rows * o.ldr, *weight = scale + cols,
          *start = weight + cols;
    rng_fill(&m->rng, r, rows * o.ldr + 4 * cols);
    for (size_t i = 0; i < rows; i++) {
        const enum row_kind kind = (enum row_kind)(i % ROW_KINDS);
        fill_row(&m->rng, kind <= ROW_OFFSET || strange ? kind : ROW_UNIFORM, cols, x + i * o.ldx);
        rng_fill(&m->rng, dy + i * o.lddy, cols);
    }
    guarded_seal(&gx);
    guarded_seal(&gdy);
    o.x = x;
    o.r = r;
    o.scale = scale;
    o.weight = weight;
    o.dy = dy;
    o.start = start;
    for (int way = 0; way < 8; way++) {
        static const int with[4] = {0, WEIGHT, ACCUMULATE | SCALE | RESIDUAL | WEIGHT, RESIDUAL};
        o.rms = way & 1;
        o.with = with[way >> 1];
        memcpy(columns, start, 2 * cols * sizeof *columns);
        t2k_status status = run(NULL, &o, dx, o.lddx, columns);
        matrix_check(m,
                     status == T2K_OK && guarded_rows_intact(&gdx, rows, cols, o.lddx) &&
                         guarded_intact(&gc),
                     "norm %d of %zux%zu: %s", o.rms, rows, cols, t2k_status_str(status));
        matrix_use_scalar(m);
        memcpy(want + count, start, 2 * cols * sizeof *want);
        run(NULL, &o, want, cols, want + count);
        matrix_use_tested(m);
        for (size_t i = 0; i < rows; i++) {
            matrix_same(m, dx + i * o.lddx, want + i * cols, cols,
                        "norm %d of %zux%zu with %d, %zu", o.rms, rows, cols, o.with, i);
        }
        matrix_same(m, columns, want + count, 2 * cols, "columns of norm %d of %zux%zu with %d",
                    o.rms, rows, cols, o.with);
        if (strange || cols == 20 || rows > 1000) {
            norm_threads(m, &o, want);
        }
        if (m->isa == 0 && !strange) {
            judge_norm(m, &o, want, want + count);
        }
        matrix_result(m, full_only, want, all);
    }
    free(want);
    guarded_free(&gx);
    guarded_free(&gdy);
    guarded_free(&gdx);
    guarded_free(&gc);
}

/* ---- optimisers ----------------------------------------------------------------------------- */

/* One step of each kind by t2k.h's formulas, with the roundings of docs/numerics.md. */
static void ref_adam(const t2k_adam *a, size_t n, const float *G, float *M, float *V, float *P)
{
    const float rest1 = (float)(1.0 - a->beta1), rest2 = (float)(1.0 - a->beta2);
    const float step = (float)(a->lr / a->correction1), root2 = (float)sqrt(a->correction2);
    for (size_t i = 0; i < n; i++) {
        float g = G[i], p = P[i];
        if (a->decoupled) {
            p = p * (float)(1.0 - a->lr * a->weight_decay);
        } else if (a->weight_decay != 0.0) {
            g = fmaf((float)a->weight_decay, p, g);
        }
        const float d = g - M[i];
        M[i] = rest1 < 0.5f ? fmaf(rest1, d, M[i]) : fmaf(-d, 1.0f - rest1, g);
        V[i] = fmaf(rest2 * g, g, V[i] * (float)a->beta2);
        P[i] = p - step * M[i] / (sqrtf(V[i]) / root2 + (float)a->eps);
    }
}

static void ref_sgd(const t2k_sgd *s, size_t n, const float *G, float *M, float *P)
{
    const float momentum = (float)s->momentum;
    for (size_t i = 0; i < n; i++) {
        float g = s->weight_decay != 0.0 ? fmaf((float)s->weight_decay, P[i], G[i]) : G[i];
        if (s->momentum != 0.0) {
            M[i] = s->first ? g : fmaf((float)(1.0 - s->dampening), g, M[i] * momentum);
            g = s->nesterov ? fmaf(momentum, M[i], g) : M[i];
        }
        P[i] = fmaf(-(float)s->lr, g, P[i]);
    }
}

static void step_case(struct matrix *m, size_t n, int full_only)
{
    static const t2k_adam adams[] = {{1e-3, 0.9, 0.999, 1e-8, 0.0, 0.1, 0.001, 0},
                                     {2e-3, 0.9, 0.99, 1e-6, 0.1, 0.19, 0.02, 0},
                                     {1e-3, 0.4, 0.999, 1e-8, 0.1, 0.6, 0.001, 1}};
    static const t2k_sgd sgds[] = {
        {1e-2, 0.0, 0.0, 0.0, 0, 0}, {1e-2, 0.9, 0.1, 0.1, 1, 0}, {1e-2, 0.9, 0.0, 0.0, 0, 1}};
    struct guarded gg, gm, gv, gp;
    float *g = guarded_floats(&gg, n), *mm = guarded_floats(&gm, n), *v = guarded_floats(&gv, n);
    float *p = guarded_floats(&gp, n), *start = malloc(6 * n * sizeof *start + 1);
    float *want = start + 3 * n;
    fill_row(&m->rng, ROW_WIDE, n, g);
    rng_fill(&m->rng, start, 3 * n);
    for (size_t i = 0; i < n; i++) {
        start[n + i] = fabsf(start[n + i]);
        g[i] = i % 17 == 5 ? NAN : i % 17 == 9 ? 0x1p-149f : g[i];
    }
    guarded_seal(&gg);
    for (int which = 0; which < 6; which++) {
        for (int threads = 1; threads <= (n > 2000 ? 4 : 1); threads++) {
            t2k_status status;
            t2k_set_num_threads(threads);
            memcpy(mm, start, n * sizeof *mm);
            memcpy(v, start + n, n * sizeof *v);
            memcpy(p, start + 2 * n, n * sizeof *p);
            memcpy(want, start, 3 * n * sizeof *want);
            if (which < 3) {
                ref_adam(&adams[which], n, g, want, want + n, want + 2 * n);
                status = t2k_adam_step(&adams[which], (int64_t)n, g, mm, v, p);
            } else {
                ref_sgd(&sgds[which - 3], n, g, want, want + 2 * n);
                status = t2k_sgd_step(&sgds[which - 3], (int64_t)n, g, mm, p);
            }
            matrix_check(m,
                         status == T2K_OK && guarded_intact(&gm) && guarded_intact(&gv) &&
                             guarded_intact(&gp),
                         "step %d of %zu: %s", which, n, t2k_status_str(status));
            matrix_same(m, mm, want, n, "first moments of step %d of %zu", which, n);
            matrix_same(m, v, want + n, n, "second moments of step %d of %zu", which, n);
            matrix_same(m, p, want + 2 * n, n, "step %d of %zu", which, n);
        }
        matrix_result(m, full_only, want, 3 * n);
    }
    t2k_set_num_threads(0);
    free(start);
    guarded_free(&gg);
    guarded_free(&gm);
    guarded_free(&gv);
    guarded_free(&gp);
}

struct squares_call {
    size_t n;
    const float *x;
    double each[8];
};

static void squares_body(t2k_team *team, void *arg)
{
    struct squares_call *c = arg;
    t2k_sum_squares_team(team, (int64_t)c->n, c->x, &c->each[t2k_team_rank(team)]);
}

static void squares_case(struct matrix *m, size_t n, int full_only)
{
    struct guarded g;
    float *x = guarded_floats(&g, n), *y = malloc(n * sizeof *y + 1), bits[2];
    double want = -1.0, got, exact = 0.0, lost = 0.0;
    fill_row(&m->rng, ROW_WIDE, n, x);
    guarded_seal(&g);
    matrix_use_scalar(m);
    t2k_sum_squares((int64_t)n, x, &want);
    matrix_use_tested(m);
    for (size_t i = 0; i < n; i++) {
        const double add = (double)x[i] * (double)x[i] - lost, next = exact + add;
        lost = (next - exact) - add;
        exact = next;
    }
    matrix_check(m, fabs(want - exact) <= 0x1p-44 * exact, "squares of %zu: %.17g", n, want);
    for (int t = 1; t <= 4; t++) {
        struct squares_call call = {n, x, {0}};
        t2k_set_num_threads(t);
        matrix_check(m, t2k_sum_squares((int64_t)n, x, &got) == T2K_OK && got == want,
                     "squares of %zu on %d threads: %.17g, want %.17g", n, t, got, want);
        t2k_parallel(t, squares_body, &call);
        matrix_check(m, call.each[t - 1] == want, "squares of %zu in a team of %d", n, t);
        t2k_scale((int64_t)n, x, -0.3f, y);
        size_t other = 0;
        for (size_t i = 0; i < n; i++) {
            other += y[i] != x[i] * -0.3f;
        }
        matrix_check(m, other == 0, "%zu scaled on %d threads", n, t);
    }
    t2k_set_num_threads(0);
    memcpy(bits, &want, sizeof bits);
    matrix_result(m, full_only, bits, 2);
    free(y);
    guarded_free(&g);
}

static void refusals(struct matrix *m)
{
    float x[8] = {0}, y[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    double sum = 7.0;
    const t2k_adam adam = {1e-3, 0.9, 0.999, 1e-8, 0.0, 0.1, 0.001, 0};
    const t2k_adam at_step_0 = {1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0, 0};
    const t2k_sgd sgd = {.lr = 1.0, .momentum = 0.9};
    const t2k_status got[] = {
        t2k_adam_step(NULL, 8, x, y, y, y),
        t2k_adam_step(&at_step_0, 8, x, y, y, y),
        t2k_adam_step(&adam, -1, x, y, y, y),
        t2k_adam_step(&adam, 8, NULL, y, y, y),
        t2k_adam_step(&adam, 8, x, NULL, y, y),
        t2k_sgd_step(NULL, 8, x, y, y),
        t2k_sgd_step(&sgd, 8, x, NULL, y),
        t2k_sgd_step(&sgd, 8, x, y, NULL),
        t2k_scale(8, x, 1.0f, NULL),
        t2k_sum_squares(8, NULL, &sum),
        t2k_sum_squares(8, x, NULL),
        t2k_layer_norm_backward(2, 4, x, 3, NULL, NULL, 0, NULL, 0, x, 4, y, 4, 0, NULL, NULL),
        t2k_layer_norm_backward(2, 4, x, 4, NULL, x, 3, NULL, 0, x, 4, y, 4, 0, NULL, NULL),
        t2k_layer_norm_backward(2, 4, x, 4, NULL, NULL, 0, NULL, 0, NULL, 4, y, 4, 0, NULL, NULL),
        t2k_layer_norm_backward(2, 4, x, 4, NULL, NULL, 0, NULL, -1, x, 4, y, 4, 0, NULL, NULL),
        t2k_layer_norm_backward(2, 4, x, 4, NULL, NULL, 0, NULL, NAN, x, 4, y, 4, 0, NULL, NULL),
        t2k_layer_norm_backward(2, 4, x, 4, NULL, NULL, 0, NULL, 0, x, 4, y, 4, 2, NULL, NULL),
        t2k_rms_norm_backward(2, 3, y, 4, NULL, 0, NULL, 0, x, 3, y, 3, 0, NULL),
        t2k_rms_norm_backward(2, 3, x, 3, NULL, 0, NULL, 0, y, 4, y, 3, 0, NULL),
    };
    for (size_t i = 0; i < sizeof got / sizeof got[0]; i++) {
        matrix_check(m, got[i] == T2K_ERR_ARG && y[0] == 7.0f && sum == 7.0,
                     "bad arguments %zu: %s", i, t2k_status_str(got[i]));
    }
    matrix_check(m, t2k_sum_squares(0, NULL, &sum) == T2K_OK && sum == 0.0, "no elements");
    matrix_check(m,
                 t2k_rms_norm_backward(0, 8, NULL, 8, NULL, 0, NULL, 0, NULL, 8, NULL, 8, 0, y) ==
                         T2K_OK &&
                     y[0] == 0.0f && y[7] == 0.0f,
                 "no rows");
}

void matrix_train(struct matrix *m)
{
    refusals(m);
    for (size_t i = 1; i < LENGTHS_SMALL; i++) {
        norm_case(m, i % 4 == 0 ? (size_t)ROW_KINDS : 7, row_lengths[i], 0, i % 4 == 0);
        step_case(m, row_lengths[i], 0);
        squares_case(m, row_lengths[i], 0);
    }
    norm_case(m, 260, 20, 0, 0);
    norm_case(m, 600, 33, 0, 0);
    step_case(m, 5003, 0);
    squares_case(m, 4096, 0);
    squares_case(m, 3 * 4096 + 77, 0);
    if (m->tier == TIER_FULL) {
        norm_case(m, 1030, 300, 1, 0);
        norm_case(m, 9, 4099, 1, 0);
        squares_case(m, 1000003, 1);
        step_case(m, 100003, 1);
    }
}
