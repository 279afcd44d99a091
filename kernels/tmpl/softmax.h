/* Softmax of rows: e = exp(x - max), y = e * (1 / sum e). X, Y (rows, cols), may be the same.
 *
 * max ignores NaN and is made +0 where it is a zero; sum in the order of tmpl/reduce.h. A NaN, a
 * maximum of +Inf and one of -Inf all end in a sum that is NaN, which is the only test: such a row
 * becomes the canonical NaN. Otherwise 1 <= sum.
 *
 * exp keeps the multipliers busy, and leaves loads, stores and adders free: a row's loop also
 * takes the maximum of a later row and scales an earlier one, whose reductions and division have
 * then had the time of a row. Rows of up to SMALL_VECTORS vectors go by VF_W, phase by phase: each
 * reduction and the division are one vector's, and a group of exp holds several rows. Tails are
 * masked. */
#include "tmpl/exp.h"
#include "tmpl/reduce.h"

#include <math.h>

#define SMALL_VECTORS 4
#define BLOCK_ROWS (4 * VF_W) /* their phases hide the latencies of each other */
#define BLOCK_SIZE 2048       /* floats of the padded rows of a block */
#define LINE_FLOATS 16
#define MEMORY_FLOATS ((size_t)3 << 20) /* with as many results, 24 MB: beyond the caches */
#define GROUP (EXP_GROUP * VF_W)
#define LONG_FLOATS 8192 /* from here on one row apart is enough, and spares the cache */

/* Where a group of exp is all of the lanes, the sums stay in registers beside it. Elsewhere they
 * are a pass of their own, later: results of exp that are not there yet would fill the queues in
 * front of the multipliers with additions. Rows of up to SUM_FLOATS are summed one row later,
 * longer ones SUM_CHUNK floats behind exp. */
#define SUM_IN_STEP (LANE_VECTORS == EXP_GROUP)
#define BLOCK_FLOATS (SUM_IN_STEP ? 0 : 224) /* up to here all passes are on their own */
#define SUM_FLOATS 2048
#define SUM_CHUNK 512 /* a multiple of T2K_LANES and of GROUP */

/* One row of each of the three passes. */
struct step {
    const float *x; /* y = exp(x - max) */
    float *y;
    float max;
    const float *next; /* a later row: its maximum */
    float *done;       /* an earlier row: times factor */
    float factor;
    vf later, sum; /* results: of next and, where asked for, of y */
};

/* The GROUP elements from j on; with them the lanes, where the sum is taken here. Returns the
 * maxima of the later row. */
ROW_INLINE vf step_group(const struct step *s, size_t j, const int next, const int done, vf most,
                         vf lanes[LANE_VECTORS])
{
    vf d[EXP_GROUP];
    const vf max = v_set1(s->max), factor = v_set1(s->factor);
    T2K_UNROLL
    for (size_t v = 0; v < EXP_GROUP; v++) {
        d[v] = v_sub(max, v_load(s->x + j + v * VF_W));
    }
    if (next) {
        T2K_UNROLL
        for (size_t v = 0; v < EXP_GROUP; v++) {
            most = v_max(v_load(s->next + j + v * VF_W), most);
        }
    }
    if (done) {
        float *z = s->done + j;
        T2K_UNROLL
        for (size_t v = 0; v < EXP_GROUP; v++) {
            v_store(z + v * VF_W, v_mul(v_load(z + v * VF_W), factor));
        }
    }
    v_exp_minus(d, EXP_GROUP);
    T2K_UNROLL
    for (size_t v = 0; v < EXP_GROUP; v++) {
        v_store(s->y + j + v * VF_W, d[v]);
        if (SUM_IN_STEP) {
            lanes[v] = v_add(lanes[v], d[v]);
        }
    }
    return most;
}

/* The first n lanes from p, the others as in `other`; whole vectors and none without a mask. */
ROW_INLINE vf load_part(const float *p, size_t n, vf other)
{
    return n >= VF_W ? v_load(p) : n > 0 ? v_select(vm_first(n), v_load_n(p, n), other) : other;
}

/* The elements from j on, `left` < GROUP. */
ROW_INLINE vf step_tail(struct step *s, size_t j, size_t left, const int next, const int done,
                        vf most, vf lanes[LANE_VECTORS])
{
    const vf max = v_set1(s->max), factor = v_set1(s->factor);
    vf d[EXP_GROUP];
    size_t n[EXP_GROUP];
    T2K_UNROLL
    for (size_t v = 0; v < EXP_GROUP; v++) {
        const size_t at = j + v * VF_W;
        n[v] = left < VF_W ? left : VF_W;
        left -= n[v];
        /* Lanes past the end are as the maximum: they must not underflow, that is slow. */
        d[v] = v_sub(max, load_part(s->x + at, n[v], max));
        if (next) {
            most = v_max(load_part(s->next + at, n[v], most), most);
        }
    }
    if (n[1] == 0) {
        v_exp_minus(d, 1);
    } else if (n[2] == 0) {
        v_exp_minus(d, 2);
    } else {
        v_exp_minus(d, EXP_GROUP);
    }
    T2K_UNROLL
    for (size_t v = 0; v < EXP_GROUP; v++) {
        const size_t at = j + v * VF_W;
        if (n[v] > 0) {
            v_store_n(s->y + at, d[v], n[v]);
            if (SUM_IN_STEP) {
                lanes[v] = v_add(lanes[v], v_select(vm_first(n[v]), d[v], v_zero()));
            }
            if (done) {
                v_store_n(s->done + at, v_mul(v_load_n(s->done + at, n[v]), factor), n[v]);
            }
        }
    }
    return most;
}

/* s->next and s->done as the constants say. */
ROW_INLINE void step_row(struct step *s, size_t cols, const int next, const int done)
{
    const int sum = !SUM_IN_STEP && cols > SUM_FLOATS;
    vf most = v_set1(-INFINITY), lanes[LANE_VECTORS];
    lanes_start(lanes);
    size_t j = 0, summed = 0;
    while (j + GROUP <= cols) {
        const size_t start = j, end = sum && cols - j > SUM_CHUNK ? j + SUM_CHUNK : cols;
        for (; j + GROUP <= end; j += GROUP) {
            most = step_group(s, j, next, done, most, lanes);
        }
        if (sum) {
            lanes_add(lanes, start - summed, s->y + summed);
            summed = start;
        }
    }
    if (j < cols) {
        most = step_tail(s, j, cols - j, next, done, most, lanes);
    }
    if (sum) {
        lanes_add(lanes, cols - summed, s->y + summed);
    }
    s->later = most;
    s->sum = lanes_fold(lanes, LANE_VECTORS);
}

static vf row_max(size_t n, const float *x)
{
    const vf lowest = v_set1(-INFINITY);
    vf m0 = lowest, m1 = lowest;
    for (; n >= 2 * VF_W; n -= 2 * VF_W, x += 2 * VF_W) {
        m0 = v_max(v_load(x), m0);
        m1 = v_max(v_load(x + VF_W), m1);
    }
    for (; n > 0; x += VF_W) {
        size_t now = n < VF_W ? n : VF_W;
        m0 = v_max(load_part(x, now, lowest), m0);
        n -= now;
    }
    return v_max(m0, m1);
}

static vf row_sum(size_t n, const float *x)
{
    vf lanes[LANE_VECTORS];
    lanes_start(lanes);
    lanes_add(lanes, n, x);
    return lanes_fold(lanes, LANE_VECTORS);
}

static void row_nan(size_t n, float *y)
{
    for (size_t j = 0; j < n; j++) {
        y[j] = NAN;
    }
}

static void row_scale(size_t n, float *y, float factor)
{
    const vf f = v_set1(factor);
    for (; n >= 2 * VF_W; n -= 2 * VF_W, y += 2 * VF_W) {
        vf a = v_mul(v_load(y), f), b = v_mul(v_load(y + VF_W), f);
        v_store(y, a);
        v_store(y + VF_W, b);
    }
    for (; n > 0; y += VF_W) {
        size_t now = n < VF_W ? n : VF_W;
        v_store_n(y, v_mul(v_load_n(y, now), f), now);
        n -= now;
    }
}

/* In step i: the sum of row i - 1, exp of row i, the maximum of row i + lag, scaling of row i -
 * lag. */
static void long_rows(size_t rows, size_t cols, const float *X, size_t ldx, float *Y, size_t ldy)
{
    const size_t lag = cols < LONG_FLOATS ? 2 : 1;
    const int sum_later = !SUM_IN_STEP && cols <= SUM_FLOATS;
    float max[4], factor[4]; /* of row i at i % 4 */
    struct step s = {0};
    for (size_t i = 0; i < lag && i < rows; i++) {
        max[i] = v_max_lanes(row_max(cols, X + i * ldx)) + 0.0f;
    }
    for (size_t i = 0; i < rows + lag; i++) {
        const int next = i + lag < rows, done = i >= lag && i - lag < rows;
        if (i > 0 && i <= rows) {
            const vf sum = sum_later ? row_sum(cols, Y + (i - 1) * ldy) : s.sum;
            factor[(i - 1) % 4] = 1.0f / v_sum_lanes(sum);
        }
        s.done = done ? Y + (i - lag) * ldy : NULL;
        s.factor = done ? factor[(i - lag) % 4] : 0.0f;
        if (i < rows) {
            s.x = X + i * ldx;
            s.y = Y + i * ldy;
            s.max = max[i % 4];
            s.next = next ? X + (i + lag) * ldx : NULL;
            if (next) {
                done ? step_row(&s, cols, 1, 1) : step_row(&s, cols, 1, 0);
            } else {
                done ? step_row(&s, cols, 0, 1) : step_row(&s, cols, 0, 0);
            }
            max[(i + lag) % 4] = v_max_lanes(s.later) + 0.0f;
        } else if (done) {
            row_scale(cols, s.done, s.factor);
        }
        if (done && s.factor != s.factor) {
            row_nan(cols, s.done);
        }
    }
}

/* Per row of a block what is left of its maximum or sum; rows that are not there give any number.
 */
struct block {
    vf part[BLOCK_ROWS + EXP_GROUP];
    float stat[BLOCK_ROWS];
    int fetch; /* the row after the block */
};

static void block_maxima(struct block *b, size_t rows)
{
    for (size_t i = 0; i < rows; i += VF_W) {
        v_store(b->stat + i, v_add(v_max_rows(b->part + i), v_zero()));
    }
}

/* 1 / sum of each row; whether a sum is NaN. */
static int block_inverses(struct block *b, size_t rows)
{
    int nan = 0;
    for (size_t i = 0; i < rows; i += VF_W) {
        const vf sum = v_sum_rows(b->part + i);
        v_store(b->stat + i, v_div(v_set1(1.0f), sum));
        nan |= vm_any(v_nan(sum));
    }
    return nan;
}

/* After all rows were scaled: those whose sum is NaN. */
static void block_nans(const struct block *b, size_t rows, size_t cols, float *Y, size_t ldy)
{
    for (size_t i = 0; i < rows; i++) {
        if (b->stat[i] != b->stat[i]) {
            row_nan(cols, Y + i * ldy);
        }
    }
}

/* With x_next and y_next (or NULL), the row to come is fetched meanwhile. */
static void row_exp(size_t n, const float *x, float max, float *y, const float *x_next,
                    const float *y_next)
{
    const vf m = v_set1(max);
    vf d[EXP_GROUP];
    for (size_t j = 0; n >= GROUP; n -= GROUP, x += GROUP, y += GROUP, j += GROUP) {
        if (x_next != NULL) {
            T2K_UNROLL
            for (size_t line = 0; line < GROUP; line += LINE_FLOATS) {
                __builtin_prefetch(x_next + j + line, 0);
                __builtin_prefetch(y_next + j + line, 1);
            }
        }
        T2K_UNROLL
        for (size_t v = 0; v < EXP_GROUP; v++) {
            d[v] = v_sub(m, v_load(x + v * VF_W));
        }
        v_exp_minus(d, EXP_GROUP);
        T2K_UNROLL
        for (size_t v = 0; v < EXP_GROUP; v++) {
            v_store(y + v * VF_W, d[v]);
        }
    }
    if (n > 0) {
        vf none[LANE_VECTORS];
        lanes_start(none);
        step_tail(&(struct step){.x = x, .y = y, .max = max}, 0, n, 0, 0, m, none);
    }
}

/* All of the passes on their own: for rows that are too short for a step to pay, and for operands
 * in memory, where the short loop of the maximum asks for more lines at a time than a step does. A
 * block of one long row fetches the next one. */
static void block_rows(struct block *b, size_t rows, size_t cols, const float *X, size_t ldx,
                       float *Y, size_t ldy)
{
    for (size_t i = 0; i < rows; i++) {
        b->part[i] = row_max(cols, X + i * ldx);
    }
    block_maxima(b, rows);
    for (size_t i = 0; i < rows; i++) {
        const float *x = X + i * ldx;
        float *y = Y + i * ldy;
        row_exp(cols, x, b->stat[i], y, b->fetch ? x + ldx : NULL, b->fetch ? y + ldy : NULL);
    }
    for (size_t i = 0; i < rows; i++) {
        b->part[i] = row_sum(cols, Y + i * ldy);
    }
    const int nan = block_inverses(b, rows);
    for (size_t i = 0; i < rows; i++) {
        row_scale(cols, Y + i * ldy, b->stat[i]);
    }
    if (nan) {
        block_nans(b, rows, cols, Y, ldy);
    }
}

/* Rows of (vectors - 1) * VF_W < cols <= vectors * VF_W elements; vectors is a constant. */
ROW_INLINE void small_block(size_t vectors, struct block *b, size_t rows, size_t cols,
                            const float *X, size_t ldx, float *Y, size_t ldy)
{
    const size_t tail = cols - (vectors - 1) * VF_W, together = EXP_GROUP / vectors;
    const vm in = vm_first(tail);
    float e[BLOCK_SIZE + EXP_GROUP * SMALL_VECTORS * VF_W];
    for (size_t i = 0; i < rows; i++) {
        const float *x = X + i * ldx;
        vf max = v_select(in, v_load_n(x + (vectors - 1) * VF_W, tail), v_set1(-INFINITY));
        max = v_max(max, v_set1(-INFINITY));
        UNROLL_LANES
        for (size_t v = 0; v + 1 < vectors; v++) {
            max = v_max(v_load(x + v * VF_W), max);
        }
        b->part[i] = max;
    }
    block_maxima(b, rows);
    for (size_t i = 0; i < rows; i += together) {
        vf d[EXP_GROUP];
        UNROLL_LANES
        for (size_t k = 0; k < together; k++) {
            /* The last row once more where there is none. */
            const size_t row = i + k < rows ? i + k : rows - 1;
            const float *x = X + row * ldx;
            const vf m = v_set1(b->stat[row]);
            UNROLL_LANES
            for (size_t v = 0; v + 1 < vectors; v++) {
                d[k * vectors + v] = v_sub(m, v_load(x + v * VF_W));
            }
            const vf last = v_load_n(x + (vectors - 1) * VF_W, tail);
            d[k * vectors + vectors - 1] = v_select(in, v_sub(m, last), v_zero());
        }
        v_exp_minus(d, together * vectors);
        UNROLL_LANES
        for (size_t k = 0; k < together; k++) {
            vf *of_row = d + k * vectors;
            of_row[vectors - 1] = v_select(in, of_row[vectors - 1], v_zero());
            UNROLL_LANES
            for (size_t v = 0; v < vectors; v++) {
                v_store(e + ((i + k) * vectors + v) * VF_W, of_row[v]);
            }
            b->part[i + k] = lanes_fold(of_row, vectors);
        }
    }
    const int nan = block_inverses(b, rows);
    for (size_t i = 0; i < rows; i++) {
        const vf f = v_set1(b->stat[i]);
        const float *from = e + i * vectors * VF_W;
        float *y = Y + i * ldy;
        UNROLL_LANES
        for (size_t v = 0; v + 1 < vectors; v++) {
            v_store(y + v * VF_W, v_mul(v_load(from + v * VF_W), f));
        }
        v_store_n(y + (vectors - 1) * VF_W, v_mul(v_load(from + (vectors - 1) * VF_W), f), tail);
    }
    if (nan) {
        block_nans(b, rows, cols, Y, ldy);
    }
}

typedef void block_fn(struct block *b, size_t rows, size_t cols, const float *X, size_t ldx,
                      float *Y, size_t ldy);

#define SMALL_BLOCK(vectors)                                                                     \
    static void small_block_##vectors(struct block *b, size_t rows, size_t cols, const float *X, \
                                      size_t ldx, float *Y, size_t ldy)                          \
    {                                                                                            \
        small_block(vectors, b, rows, cols, X, ldx, Y, ldy);                                     \
    }
SMALL_BLOCK(1)
SMALL_BLOCK(2)
SMALL_BLOCK(3)
SMALL_BLOCK(4)

void T2K_FN(softmax)(size_t rows, size_t cols, const float *X, size_t ldx, float *Y, size_t ldy)
{
    static block_fn *const small[SMALL_VECTORS] = {small_block_1, small_block_2, small_block_3,
                                                   small_block_4};
    if (cols == 0) {
        return;
    }
    const int small_rows = cols <= SMALL_VECTORS * VF_W;
    if (!small_rows && cols > BLOCK_FLOATS && rows * cols < MEMORY_FLOATS) {
        long_rows(rows, cols, X, ldx, Y, ldy);
        return;
    }
    block_fn *block = small_rows ? small[(cols - 1) / VF_W] : block_rows;
    const size_t fit = BLOCK_SIZE / ((cols + VF_W - 1) / VF_W * VF_W);
    const size_t most = fit == 0 ? 1 : fit < BLOCK_ROWS ? fit : BLOCK_ROWS;
    struct block b;
    for (size_t i = 0; i < BLOCK_ROWS; i++) {
        b.part[i] = v_zero();
    }
    for (size_t i = 0; i < rows; i += most) {
        const size_t now = rows - i < most ? rows - i : most;
        b.fetch = fit == 0 && i + 1 < rows;
        block(&b, now, cols, X + i * ldx, ldx, Y + i * ldy, ldy);
    }
}
