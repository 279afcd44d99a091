/* t2k_policy, cross-entropy and log-softmax with its gradient. */
#include "matrix.h"
#include "ref_rows.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EPS 0x1p-24

/* All operands of a case; the outputs lie one behind the other in `out`. */
struct operands {
    size_t rows, cols, ldx, ldb, ldd;
    const float *x, *base;
    const int64_t *labels;
    const float *weights, *kl_weights;
    t2k_kl direction;
    int in_place; /* 1: gradient over logits, 2: over the base */
};

static size_t out_count(const struct operands *o)
{
    return o->rows * (4 + o->cols);
}

static t2k_status run(t2k_team *team, const struct operands *o, float *out)
{
    float *gradient = out + 4 * o->rows;
    const float *x = o->x, *base = o->base;
    size_t ldx = o->ldx, ldb = o->ldb;
    if (o->in_place == 1) {
        if (team == NULL || t2k_team_rank(team) == 0) {
            pack_rows(gradient, x, o->rows, o->cols, ldx);
        }
        x = gradient;
        ldx = o->cols;
    } else if (o->in_place == 2) {
        if (team == NULL || t2k_team_rank(team) == 0) {
            pack_rows(gradient, base, o->rows, o->cols, ldb);
        }
        base = gradient;
        ldb = o->cols;
    }
    if (team != NULL) {
        t2k_team_barrier(team);
    }
    const t2k_policy_args args = {.size = sizeof args,
                                  .rows = (int64_t)o->rows,
                                  .cols = (int64_t)o->cols,
                                  .logits = x,
                                  .ld_logits = (int64_t)ldx,
                                  .base = base,
                                  .ld_base = (int64_t)ldb,
                                  .labels = o->labels,
                                  .weights = o->weights,
                                  .kl_weights = o->kl_weights,
                                  .kl_direction = o->direction,
                                  .log_probs = out,
                                  .base_log_probs = out + o->rows,
                                  .kl = out + 2 * o->rows,
                                  .entropy = out + 3 * o->rows,
                                  .gradient = gradient,
                                  .ld_gradient = (int64_t)o->cols};
    return team != NULL ? t2k_policy_team(team, &args) : t2k_policy(&args);
}

/* ---- reference ------------------------------------------------------------------------------ */

/* log p (n) of a row in double; *slack: what float may lose of it, in units of EPS. NaN rows as
 * t2k.h says. */
static void ref_log_softmax(size_t n, const float *x, double *log_p, double *slack)
{
    double max = -INFINITY, sum = 0.0;
    int nan = 0;
    for (size_t j = 0; j < n; j++) {
        nan |= isnan(x[j]) || x[j] == INFINITY;
        max = x[j] > max ? (double)x[j] : max;
    }
    for (size_t j = 0; j < n; j++) {
        sum += exp((double)x[j] - max);
    }
    for (size_t j = 0; j < n; j++) {
        log_p[j] = nan || isinf(max) ? NAN : (double)x[j] - max - log(sum);
    }
    *slack = (double)n / 64 + 16;
}

static void near(struct matrix *m, const char *what, size_t row, size_t at, float got, double want,
                 double allowed)
{
    const int ok = isnan(want) ? isnan(got)
                   : fabs(want) > (double)FLT_MAX
                       ? (double)got == (want > 0.0 ? HUGE_VAL : -HUGE_VAL)
                       : fabs((double)got - want) <= allowed;
    matrix_check(m, ok, "%s of row %zu at %zu: %.9g, want %.17g, allowed %g", what, row, at,
                 (double)got, want, allowed);
}

/* What float may lose of p (log p - log q) is what it loses of both logarithms, of p, and of the
 * sum; d is their distance from the maxima. */
static void judge_row(struct matrix *m, const struct operands *o, size_t i, const float *out)
{
    const size_t n = o->cols;
    double *lp = malloc(2 * n * sizeof *lp), *lq = lp + n, slack, slack_q;
    double kl = 0.0, entropy = 0.0, lost_kl = 0.0, lost_entropy = 0.0;
    const float *x = o->x + i * o->ldx, *gradient = out + 4 * o->rows + i * n;
    const int64_t label = o->labels[i];
    const double w = label < 0 ? 0.0 : (double)o->weights[i], k = (double)o->kl_weights[i];
    ref_log_softmax(n, x, lp, &slack);
    ref_log_softmax(n, o->base + i * o->ldb, lq, &slack_q);
    const double both = slack + slack_q;
    for (size_t j = 0; j < n; j++) {
        const double p = exp(lp[j]), q = exp(lq[j]);
        const double of = o->direction == T2K_KL_POLICY_BASE ? p : q, c = lp[j] - lq[j];
        if (!(of < 0x1p-149)) { /* else it is 0 in float */
            kl += o->direction == T2K_KL_POLICY_BASE ? p * c : -q * c;
            lost_kl += of * EPS * (both + 2 * fabs(lp[j]) + 2 * fabs(lq[j])) * (2 + fabs(c));
        }
        if (p != 0.0) {
            entropy -= p * lp[j];
            lost_entropy += p * EPS * (slack - 2 * lp[j]) * (2 - lp[j]);
        }
    }
    near(m, "KL", i, 0, out[2 * o->rows + i], kl, lost_kl + 0x1p-120);
    near(m, "entropy", i, 0, out[3 * o->rows + i], entropy, lost_entropy + 0x1p-120);
    near(m, "log p", i, 0, out[i], label < 0 ? 0.0 : lp[label],
         label < 0 ? 0.0 : EPS * (slack - 2 * lp[label]));
    near(m, "log q", i, 0, out[o->rows + i], label < 0 ? 0.0 : lq[label],
         label < 0 ? 0.0 : EPS * (slack_q - 2 * lq[label]));
    for (size_t j = 0; j < n; j++) {
        const double p = exp(lp[j]), q = exp(lq[j]), c = lp[j] - lq[j];
        const double hit = (int64_t)j == label ? 1.0 : 0.0;
        double g = o->direction != T2K_KL_POLICY_BASE ? p - q
                   : !(p < 0x1p-149)                  ? p * (c - kl)
                                                      : 0.0;
        double lost = fabs(w) * EPS * ((p > 0.0 ? p * (slack - 2 * lp[j]) : 0.0) + 2 * hit);
        if (k != 0.0) {
            const double far = p > 0.0 ? fabs(lp[j]) : 0.0, far_q = q > 0.0 ? fabs(lq[j]) : 0.0;
            lost += fabs(k) * EPS * (p + q) * (both + 2 * far + 2 * far_q) *
                    (4 + fabs(g / (p + 1e-300)));
            lost += fabs(k) * (p * lost_kl + EPS * (p * fabs(kl)));
        }
        const double want = w == 0.0 && k == 0.0 ? 0.0 : w * (p - hit) + (k != 0.0 ? k * g : 0.0);
        near(m, "gradient", i, j, gradient[j], want, isfinite(lost) ? lost + 0x1p-118 : HUGE_VAL);
    }
    free(lp);
}

/* ---- cases ---------------------------------------------------------------------------------- */

struct team_call {
    const struct operands *o;
    float *out;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *call = arg;
    call->status[t2k_team_rank(team)] = run(team, call->o, call->out);
}

static void any_threads(struct matrix *m, const struct operands *o, const float *want)
{
    float *got = malloc(out_count(o) * sizeof *got + 1);
    for (int t = 1; t <= 4; t++) {
        struct team_call call = {o, got, {T2K_OK}};
        t2k_set_num_threads(t);
        matrix_check(m, run(NULL, o, got) == T2K_OK, "%zux%zu", o->rows, o->cols);
        matrix_same(m, got, want, out_count(o), "%zux%zu on %d threads", o->rows, o->cols, t);
        t2k_parallel(t, team_body, &call);
        matrix_check(m, call.status[t - 1] == T2K_OK, "%zux%zu", o->rows, o->cols);
        matrix_same(m, got, want, out_count(o), "%zux%zu in a team of %d", o->rows, o->cols, t);
    }
    t2k_set_num_threads(0);
    free(got);
}

/* The parts of it that have functions of their own give the same bits. */
static void alone(struct matrix *m, const struct operands *o)
{
    const int64_t r = (int64_t)o->rows, c = (int64_t)o->cols;
    const size_t n = o->rows * (o->cols + 1);
    float *got = malloc(2 * n * sizeof *got), *want = got + n;
    struct operands plain = *o;
    float *all = malloc(out_count(o) * sizeof *all);
    float *zeros = calloc(o->rows, sizeof *zeros);
    plain.kl_weights = zeros;
    plain.in_place = 0;
    run(NULL, &plain, all);
    memcpy(want, all, o->rows * sizeof *want);
    memcpy(want + o->rows, all + 4 * o->rows, o->rows * o->cols * sizeof *want);
    t2k_cross_entropy(r, c, o->x, (int64_t)o->ldx, o->labels, o->weights, got, got + o->rows, c);
    matrix_same(m, got, want, n, "cross-entropy of %zux%zu", o->rows, o->cols);
    t2k_log_softmax(r, c, o->x, (int64_t)o->ldx, got, c);
    for (size_t i = 0; i < o->rows; i++) {
        const int64_t label = o->labels[i];
        if (label >= 0) {
            matrix_same(m, got + i * o->cols + (size_t)label, want + i, 1, "log-softmax of %zux%zu",
                        o->rows, o->cols);
        }
    }
    free(zeros);
    free(all);
    free(got);
}

static void policy_case(struct matrix *m, size_t rows, size_t cols, int full_only, int threads)
{
    struct guarded gx, gb, go;
    struct operands o = {.rows = rows, .cols = cols, .ldx = cols + 1, .ldb = cols + 3};
    float *x = guarded_rows(&gx, rows, cols, o.ldx), *base = guarded_rows(&gb, rows, cols, o.ldb);
    float *out = guarded_floats(&go, out_count(&o));
    float *want = malloc(out_count(&o) * sizeof *want + 1);
    float *weights = malloc(2 * rows * sizeof *weights + 1), *kl_weights = weights + rows;
    int64_t *labels = malloc(rows * sizeof *labels + 1);
    for (size_t i = 0; i < rows; i++) {
        const enum row_kind kind = (enum row_kind)(i % ROW_KINDS);
        fill_row(&m->rng, kind == ROW_HUGE ? ROW_WIDE : kind, cols, x + i * o.ldx);
        fill_row(&m->rng, i % 3 == 0 ? ROW_WIDE : ROW_UNIFORM, cols, base + i * o.ldb);
        labels[i] = i % 7 == 3 ? -100 : (int64_t)rng_below(&m->rng, cols);
        weights[i] = rng_uniform(&m->rng);
        kl_weights[i] = i % 4 == 2 || i % 7 == 3 ? 0.0f : rng_uniform(&m->rng);
    }
    guarded_seal(&gx);
    guarded_seal(&gb);
    o.x = x;
    o.base = base;
    o.labels = labels;
    o.weights = weights;
    o.kl_weights = kl_weights;
    for (int way = 0; way < 6; way++) {
        o.direction = way % 2 == 0 ? T2K_KL_POLICY_BASE : T2K_KL_BASE_POLICY;
        o.in_place = way / 2;
        t2k_status status = run(NULL, &o, out);
        matrix_check(m, status == T2K_OK && guarded_intact(&go), "%zux%zu: %s", rows, cols,
                     t2k_status_str(status));
        matrix_use_scalar(m);
        run(NULL, &o, want);
        matrix_use_tested(m);
        matrix_same(m, out, want, out_count(&o), "%zux%zu way %d", rows, cols, way);
        for (size_t i = 0; i < rows && m->isa == 0; i++) {
            judge_row(m, &o, i, want);
        }
        if (threads) {
            any_threads(m, &o, want);
        }
        matrix_result(m, full_only, want, out_count(&o));
    }
    alone(m, &o);
    free(labels);
    free(weights);
    free(want);
    guarded_free(&gx);
    guarded_free(&gb);
    guarded_free(&go);
}

static void log_softmax_case(struct matrix *m, size_t cols, int full_only)
{
    const size_t rows = (size_t)ROW_KINDS, ld = cols + 2, count = rows * cols;
    const int64_t r = (int64_t)rows, c = (int64_t)cols, l = (int64_t)ld;
    struct guarded gx, gy, gd;
    float *x = guarded_rows(&gx, rows, cols, ld), *y = guarded_rows(&gy, rows, cols, ld);
    float *dx = guarded_rows(&gd, rows, cols, ld);
    float *want = malloc(3 * count * sizeof *want + 1), *got = want + count, *dy = got + count;
    double *ref = malloc(cols * sizeof *ref + 1), slack;
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)i, cols, x + i * ld);
    }
    rng_fill(&m->rng, dy, count);
    guarded_seal(&gx);
    t2k_status status = t2k_log_softmax(r, c, x, l, y, l);
    matrix_check(m, status == T2K_OK && guarded_rows_intact(&gy, rows, cols, ld), "log-softmax");
    matrix_use_scalar(m);
    t2k_log_softmax(r, c, x, l, want, c);
    matrix_use_tested(m);
    pack_rows(got, y, rows, cols, ld);
    matrix_same(m, got, want, count, "log-softmax of %zu", cols);
    matrix_result(m, full_only, want, count);
    for (size_t i = 0; i < rows && m->isa == 0; i++) {
        ref_log_softmax(cols, x + i * ld, ref, &slack);
        for (size_t j = 0; j < cols; j++) {
            near(m, "log-softmax", i, j, want[i * cols + j], ref[j], EPS * (slack - 2 * ref[j]));
        }
    }
    status = t2k_log_softmax_backward(r, c, y, l, dy, c, dx, l);
    matrix_check(m, status == T2K_OK && guarded_rows_intact(&gd, rows, cols, ld), "its gradient");
    matrix_use_scalar(m);
    t2k_log_softmax_backward(r, c, y, l, dy, c, want, c);
    matrix_use_tested(m);
    pack_rows(got, dx, rows, cols, ld);
    matrix_same(m, got, want, count, "gradient of log-softmax of %zu", cols);
    matrix_result(m, full_only, want, count);
    for (size_t i = 0; i < rows && m->isa == 0; i++) {
        double sum = 0.0, size = 0.0;
        for (size_t j = 0; j < cols; j++) {
            sum += (double)dy[i * cols + j];
            size += fabs((double)dy[i * cols + j]);
        }
        for (size_t j = 0; j < cols; j++) {
            const double p = exp((double)y[i * ld + j]), exact = (double)dy[i * cols + j] - p * sum;
            near(m, "gradient of log-softmax", i, j, want[i * cols + j], exact,
                 EPS * (p * size * ((double)cols / 64 + 10) + fabs(exact)) + 0x1p-149);
        }
    }
    t2k_log_softmax_backward(r, c, y, l, dy, c, dy, c);
    matrix_same(m, dy, want, count, "gradient of log-softmax of %zu on dY", cols);
    free(ref);
    free(want);
    guarded_free(&gx);
    guarded_free(&gy);
    guarded_free(&gd);
}

static void refusals(struct matrix *m)
{
    float x[8] = {0}, y[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    const int64_t good[2] = {0, 3}, bad_label[2] = {0, 4}, ignored[2] = {-1, INT64_MIN};
    t2k_policy_args bad[11];
    for (size_t i = 0; i < 11; i++) {
        bad[i] = (t2k_policy_args){.size = sizeof bad[i],
                                   .rows = 2,
                                   .cols = 4,
                                   .logits = x,
                                   .ld_logits = 4,
                                   .labels = good,
                                   .gradient = y,
                                   .ld_gradient = 4};
    }
    matrix_check(m, t2k_policy(&bad[0]) == T2K_OK && y[0] != 7.0f, "good arguments");
    y[0] = 7.0f;
    bad[0].size = 8;
    bad[1].cols = 0;
    bad[2].rows = -1;
    bad[3].logits = NULL;
    bad[4].ld_logits = 3;
    bad[5].labels = bad_label;
    bad[6].labels = NULL;
    bad[6].log_probs = y;
    bad[7].kl = y;
    bad[8].kl_weights = x;
    bad[9].ld_gradient = 3;
    bad[10].kl_direction = (t2k_kl)2;
    for (size_t i = 0; i < 11; i++) {
        matrix_check(m, t2k_policy(&bad[i]) == T2K_ERR_ARG && y[0] == 7.0f, "bad arguments %zu", i);
    }
    matrix_check(m, t2k_policy(NULL) == T2K_ERR_ARG, "no arguments");
    matrix_check(m, t2k_cross_entropy(2, 4, x, 4, NULL, NULL, NULL, y, 4) == T2K_ERR_ARG, "labels");
    matrix_check(m, t2k_cross_entropy(0, 4, NULL, 4, NULL, NULL, NULL, NULL, 4) == T2K_OK, "empty");
    matrix_check(m, t2k_log_softmax(2, 4, x, 3, y, 4) == T2K_ERR_ARG, "stride");
    matrix_check(m, t2k_log_softmax_backward(2, 4, x, 4, x, 4, NULL, 4) == T2K_ERR_ARG, "no dX");
    x[1] = NAN;
    matrix_check(m,
                 t2k_cross_entropy(2, 4, x, 4, ignored, NULL, x + 6, y, 4) == T2K_OK &&
                     y[1] == 0.0f && y[7] == 0.0f && x[6] == 0.0f,
                 "ignored labels");
}

void matrix_policy(struct matrix *m)
{
    refusals(m);
    for (size_t i = 1; i < LENGTHS_SMALL; i++) {
        policy_case(m, (size_t)ROW_KINDS, row_lengths[i], 0, row_lengths[i] == 65);
        log_softmax_case(m, row_lengths[i], 0);
    }
    policy_case(m, 37, 10, 0, 1);
    if (m->tier == TIER_FULL) {
        for (size_t i = LENGTHS_SMALL; i < LENGTHS; i++) {
            policy_case(m, (size_t)ROW_KINDS, row_lengths[i], 1, 1);
            log_softmax_case(m, row_lengths[i], 1);
        }
    }
}
