/* Freivalds' method: C = c A diag(s) B holds where C x = c A (s (B x)) for random x, which costs
 * as much as reading the operands (R. Freivalds, IFIP Congress 1977). Four vectors of random signs
 * at once, everything in double.
 *
 * The limit. Let e_j be the errors of row i of a right result. They were made without knowledge of
 * x, so their sum with random signs has the root mean square E = sqrt(sum e_j^2). An element is a
 * sum of k terms of our random operands, of mean 0: partial sum p is about sqrt(p / k) S_j with
 * S_j^2 = sum over p of (c a_ip s_p b_pj)^2, and its rounding an independent error of root mean
 * square at most 0.58 u times that, u = 2^-24. Over one chain of k, the worst order of summation,
 * that makes e_j = 0.41 u sqrt(k) S_j; rounding the products, a scaled A and the result adds at
 * most 3 u S_j. Hence E <= 0.41 u (sqrt(k) + 8) S with S^2 = sum over j of S_j^2, which is sum over
 * p of (c a_ip s_p)^2 beta_p, beta_p = sum over j of b_pj^2: no more work than a product with one
 * vector. The limit of 12 u (sqrt(k) + 3) S is 29 E for large k and 12 E or more for any: a right
 * result never reaches it. A single wrong element of typical size S / sqrt(n) shows when it is off
 * by more than 12 u sqrt(k n) of itself: by 2 % for k = 16384 and n = 32000. Errors in several
 * elements of a row cancel in all four vectors with a probability of at most 1/16. */
#include "ops.h"
#include "product.h"

#include <stdlib.h>

enum { CHUNK = 1024 }; /* elements of y that stay in cache */

/* As wide as every CPU of these architectures has. */
typedef double v2 __attribute__((vector_size(16)));
/* An element of each of the four vectors. */
typedef struct four {
    v2 low, high;
} four;

/* M (rows, cols), one of the strides being 1. */
struct view {
    const float *data;
    int64_t rows, cols, row, col;
};

/* y_i = sum_j M_ij x_j for four vectors x (cols); q_i = sum_j M_ij^2 w_j, w NULL: all 1. */
struct apply {
    struct view m;
    const four *x;
    const double *w;
    four *y;   /* (rows) */
    double *q; /* (rows) or NULL */
};

/* Four rows, each with its elements one behind the other: y[r] += m[r] x. */
static void apply_four_rows(int64_t cols, const float *const m[4], const four *x, four y[4])
{
    four y0 = y[0], y1 = y[1], y2 = y[2], y3 = y[3];
    for (int64_t j = 0; j < cols; j++) {
        double m0 = (double)m[0][j], m1 = (double)m[1][j];
        double m2 = (double)m[2][j], m3 = (double)m[3][j];
        y0.low += x[j].low * m0;
        y0.high += x[j].high * m0;
        y1.low += x[j].low * m1;
        y1.high += x[j].high * m1;
        y2.low += x[j].low * m2;
        y2.high += x[j].high * m2;
        y3.low += x[j].low * m3;
        y3.high += x[j].high * m3;
    }
    y[0] = y0;
    y[1] = y1;
    y[2] = y2;
    y[3] = y3;
}

/* Rows first .. last - 1 with their elements one behind the other, four at a time so that x is read
 * less often. */
static void apply_rows(const struct apply *a, int64_t first, int64_t last)
{
    for (int64_t i = first; i < last; i += 4) {
        const float *m[4];
        four y[4] = {{{0}, {0}}};
        double q[4] = {0.0};
        for (int64_t r = 0; r < 4; r++) {
            m[r] = a->m.data + (i + r < last ? i + r : last - 1) * a->m.row;
        }
        apply_four_rows(a->m.cols, m, a->x, y);
        for (int64_t j = 0; j < a->m.cols && a->q != NULL; j++) {
            double w = a->w != NULL ? a->w[j] : 1.0;
            for (int r = 0; r < 4; r++) {
                q[r] += (double)m[r][j] * (double)m[r][j] * w;
            }
        }
        for (int64_t r = 0; r < 4 && i + r < last; r++) {
            a->y[i + r] = y[r];
            if (a->q != NULL) {
                a->q[i + r] = q[r];
            }
        }
    }
}

/* Columns one behind the other: y grows column by column, in pieces that stay in cache. */
static void apply_columns(const struct apply *a, int64_t first, int64_t last)
{
    for (int64_t from = first; from < last; from += CHUNK) {
        int64_t to = from + CHUNK < last ? from + CHUNK : last;
        for (int64_t i = from; i < to; i++) {
            a->y[i] = (four){{0}, {0}};
            if (a->q != NULL) {
                a->q[i] = 0.0;
            }
        }
        for (int64_t j = 0; j < a->m.cols; j++) {
            const float *m = a->m.data + j * a->m.col;
            four x = a->x[j];
            for (int64_t i = from; i < to; i++) {
                a->y[i].low += x.low * (double)m[i];
                a->y[i].high += x.high * (double)m[i];
            }
            double w = a->w != NULL ? a->w[j] : 1.0;
            for (int64_t i = from; i < to && a->q != NULL; i++) {
                a->q[i] += (double)m[i] * (double)m[i] * w;
            }
        }
    }
}

/* Where one thread works alone or a team together: rows are shared out, and all wait for all. */
struct lane {
    t2k_team *team; /* NULL: alone */
    int64_t rank, size;
    four *bx;       /* (k): s (B x) */
    four *abx, *cx; /* (m) */
    double *beta;   /* (k) */
    double *square; /* (m): S^2 without c */
};

static void wait_for_all(const struct lane *lane)
{
    if (lane->team != NULL) {
        t2k_team_barrier(lane->team);
    }
}

static void apply(const struct lane *lane, const struct apply *a)
{
    int64_t first = a->m.rows * lane->rank / lane->size;
    int64_t last = a->m.rows * (lane->rank + 1) / lane->size;
    if (a->m.col == 1) {
        apply_rows(a, first, last);
    } else {
        apply_columns(a, first, last);
    }
    wait_for_all(lane);
}

struct check {
    const struct bench_product *x;
    const float *out;
    four *signs;     /* (n) */
    int64_t lanes;   /* teams of one, for many items, or a single team */
    four *vectors;   /* per lane */
    double *scalars; /* per lane */
    int64_t *wrong;  /* per lane: its first wrong row or -1 */
};

/* The first row of an item that does not hold, or -1. */
static int64_t first_wrong(const struct bench_product *x, const struct lane *lane)
{
    double factor = 12.0 * BENCH_U * (sqrt((double)x->k) + 3.0) * fabs(x->c);
    for (int64_t i = 0; i < x->m; i++) {
        double limit = factor * sqrt(lane->square[i]);
        const four off = {lane->cx[i].low - lane->abx[i].low * x->c,
                          lane->cx[i].high - lane->abx[i].high * x->c};
        /* Written so that a NaN fails. */
        if (!(fabs(off.low[0]) <= limit && fabs(off.low[1]) <= limit &&
              fabs(off.high[0]) <= limit && fabs(off.high[1]) <= limit)) {
            return i;
        }
    }
    return -1;
}

static int64_t check_item(const struct check *c, const struct lane *lane, int64_t t)
{
    const struct bench_product *x = c->x;
    struct view a = {x->a + t * x->a_item, x->m, x->k, x->a_m, x->a_k};
    struct view b = {x->b + t * x->b_item, x->k, x->n, x->b_k, x->b_n};
    struct view out = {c->out + t * x->m * x->n, x->m, x->n, x->n, 1};
    apply(lane, &(struct apply){b, c->signs, NULL, lane->bx, lane->beta});
    if (x->s != NULL && lane->rank == 0) {
        for (int64_t p = 0; p < x->k; p++) {
            double s = (double)x->s[p];
            lane->bx[p].low *= s;
            lane->bx[p].high *= s;
            lane->beta[p] *= s * s;
        }
    }
    wait_for_all(lane);
    apply(lane, &(struct apply){a, lane->bx, lane->beta, lane->abx, lane->square});
    apply(lane, &(struct apply){out, c->signs, NULL, lane->cx, NULL});
    int64_t row = lane->rank == 0 ? first_wrong(x, lane) : -1;
    return row >= 0 ? t * x->m + row : -1;
}

static void check_part(t2k_team *team, void *arg)
{
    const struct check *c = arg;
    int64_t m = c->x->m, k = c->x->k, rank = t2k_team_rank(team), size = t2k_team_size(team);
    int64_t number = c->lanes > 1 ? rank : 0, step = c->lanes > 1 ? size : 1;
    struct lane lane = {.team = c->lanes > 1 ? NULL : team,
                        .rank = c->lanes > 1 ? 0 : rank,
                        .size = c->lanes > 1 ? 1 : size,
                        .bx = c->vectors + number * (k + 2 * m),
                        .beta = c->scalars + number * (k + m)};
    lane.abx = lane.bx + k;
    lane.cx = lane.abx + m;
    lane.square = lane.beta + k;
    int64_t wrong = -1;
    for (int64_t t = number; t < c->x->items; t += step) {
        int64_t row = check_item(c, &lane, t);
        wrong = wrong < 0 ? row : wrong;
        wait_for_all(&lane);
    }
    if (lane.rank == 0) {
        c->wrong[number] = wrong;
    }
}

static double sign(uint64_t bit)
{
    return (bit & 1) != 0 ? 1.0 : -1.0;
}

static void draw_signs(four *x, int64_t n)
{
    uint64_t state = UINT64_C(0x46726569);
    for (int64_t j = 0; j < n; j++) {
        uint64_t bits = bench_random(&state);
        x[j] = (four){{sign(bits), sign(bits >> 16)}, {sign(bits >> 32), sign(bits >> 48)}};
    }
}

int64_t bench_product_check(const struct bench_product *x, const float *out)
{
    size_t m = (size_t)x->m, k = (size_t)x->k;
    size_t lanes = x->items > 1 ? (size_t)t2k_get_num_threads() : 1;
    struct check c = {.x = x,
                      .out = out,
                      .lanes = (int64_t)lanes,
                      .signs = bench_alloc((size_t)x->n, sizeof *c.signs),
                      .vectors = bench_alloc(lanes * (k + 2 * m), sizeof *c.vectors),
                      .scalars = bench_alloc(lanes * (k + m), sizeof *c.scalars),
                      .wrong = bench_alloc(lanes, sizeof *c.wrong)};
    int ready = c.signs != NULL && c.vectors != NULL && c.scalars != NULL && c.wrong != NULL;
    int64_t first = -1;
    if (ready) {
        draw_signs(c.signs, x->n);
        for (size_t i = 0; i < lanes; i++) {
            c.wrong[i] = -1;
        }
        ready = t2k_parallel(0, check_part, &c) == T2K_OK;
        for (size_t i = 0; i < lanes; i++) {
            first = c.wrong[i] >= 0 && (first < 0 || c.wrong[i] < first) ? c.wrong[i] : first;
        }
    }
    free(c.signs);
    free(c.vectors);
    free(c.scalars);
    free(c.wrong);
    return ready ? first : x->items * x->m;
}
