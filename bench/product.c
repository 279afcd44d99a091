/* References of matrix products: plain sums in double.
 *
 * A and B are copied to doubles chunk by chunk of k, in blocks that stay in cache, so that the
 * innermost loop reads what it needs in order, whichever way the operands are stored. Each element
 * is one sum in rising p per chunk, the chunks added in rising order, so results depend on nothing
 * but the operands.
 *
 * The bounds need sums over p of |a_p b_p| and (a_p b_p)^2. In place of them stand what they cannot
 * exceed, |a| |b| (Cauchy-Schwarz) and max(a^2) |b|^2 or |a|^2 max(b^2), which cost a pass over
 * rows and columns. For our uniform operands these are 4/3 and 3 times as large, a bound thus at
 * most 1.73 times. */
#include "product.h"

#include "ops.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A tile is 4 rows of 4 columns; a block of A and one of B have 256 KiB each. */
enum { TILE = 4, ROWS = 64, COLS = 64, CHUNK = 512 };

/* As wide as every CPU of these architectures has. */
typedef double v2 __attribute__((vector_size(16)));

/* Of one row of A diag(s) or one column of B. */
struct norm {
    double squares, largest; /* sum of squares, largest square */
};

struct work {
    const struct bench_product *x;
    int strict;
    int64_t count;
    const int64_t *rows;
    double *ref, *allowed;
    struct norm *row; /* (count) */
    int64_t width;    /* columns per block, <= COLS */
    atomic_int failed;
};

struct buffers {
    double a[ROWS * CHUNK]; /* quads of rows: element (p, row) at [quad][p][row] */
    double b[COLS * CHUNK]; /* quads of columns, likewise */
    struct norm col[COLS];
};

static void add_to_norm(struct norm *norm, double x)
{
    norm->squares += x * x;
    norm->largest = fmax(norm->largest, x * x);
}

/* Row r of the whole result: where its operands begin. */
static const float *row_of_a(const struct bench_product *x, int64_t r)
{
    return x->a + r / x->m * x->a_item + r % x->m * x->a_m;
}

static void norms_part(t2k_team *team, void *arg)
{
    struct work *w = arg;
    const struct bench_product *x = w->x;
    int64_t rank = t2k_team_rank(team), size = t2k_team_size(team);
    int64_t first = w->count * rank / size, last = w->count * (rank + 1) / size;
    /* The shorter stride innermost: along p for one row, or along rows for one p. */
    int64_t block = x->a_k == 1 ? 1 : ROWS;
    for (int64_t i = first; i < last; i += block) {
        int64_t count = i + block < last ? block : last - i;
        const float *a[ROWS];
        for (int64_t h = 0; h < count; h++) {
            a[h] = row_of_a(x, w->rows[i + h]);
        }
        for (int64_t p = 0; p < x->k; p++) {
            double s = x->s != NULL ? (double)x->s[p] : 1.0;
            for (int64_t h = 0; h < count; h++) {
                add_to_norm(&w->row[i + h], (double)a[h][p * x->a_k] * s);
            }
        }
    }
}

/* By how much an element may differ. */
static double allowed_error(const struct work *w, const struct norm *a, const struct norm *b)
{
    const struct bench_product *x = w->x;
    double k = (double)x->k, c = fabs(x->c), magnitude = sqrt(a->squares * b->squares);
    if (!w->strict) {
        double squares = fmin(a->largest * b->squares, a->squares * b->largest);
        return c * bench_sum_error(k + 1.0, magnitude, squares);
    }
    double roundings = fmin(k, T2K_CHUNK_K) + k / T2K_CHUNK_K + (x->s != NULL ? 4.0 : 3.0);
    return roundings * BENCH_U * c * magnitude;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Rows r[0 .. count) times s, which is exact in double, p from `from` to `to`; missing rows of the
 * last quad repeat its first one. */
static void pack_rows(const struct bench_product *x, int64_t count, const int64_t *r, int64_t from,
                      int64_t to, double *block)
{
    for (int64_t i = 0; i < count; i += TILE, block += TILE * CHUNK) {
        const float *a[TILE];
        for (int64_t h = 0; h < TILE; h++) {
            a[h] = row_of_a(x, r[i + h < count ? i + h : i]);
        }
        for (int64_t p = from; p < to; p++) {
            double s = x->s != NULL ? (double)x->s[p] : 1.0;
            for (int64_t h = 0; h < TILE; h++) {
                block[(p - from) * TILE + h] = (double)a[h][p * x->a_k] * s;
            }
        }
    }
}

/* Columns j .. j + count - 1 of item `item`, and what they add to their norms; missing columns of
 * the last quad are 0. */
static void pack_columns(const struct bench_product *x, int64_t item, int64_t j, int64_t count,
                         int64_t from, int64_t to, struct buffers *buffers)
{
    const float *b = x->b + item * x->b_item + j * x->b_n;
    /* The shorter stride innermost: along p for one column, or along the columns for one p. */
    int64_t step = x->b_k == 1 ? to - from : 1;
    for (int64_t p = from; p < to; p += step) {
        for (int64_t c = 0; c < count; c++) {
            double *block = buffers->b + c / TILE * TILE * CHUNK + c % TILE;
            for (int64_t q = p; q < p + step; q++) {
                double value = (double)b[q * x->b_k + c * x->b_n];
                block[(q - from) * TILE] = value;
                add_to_norm(&buffers->col[c], value);
            }
        }
    }
    for (int64_t c = count; c % TILE != 0; c++) {
        for (int64_t p = 0; p < to - from; p++) {
            buffers->b[c / TILE * TILE * CHUNK + p * TILE + c % TILE] = 0.0;
        }
    }
}

/* sum (4, 4) = quad of rows a (k, 4) times quad of columns b (k, 4). */
static void tile(int64_t k, const double *a, const double *b, double sum[TILE][TILE])
{
    v2 low0 = {0}, low1 = {0}, low2 = {0}, low3 = {0};
    v2 high0 = {0}, high1 = {0}, high2 = {0}, high3 = {0};
    for (int64_t p = 0; p < k; p++, a += TILE, b += TILE) {
        v2 low = *(const v2 *)(const void *)b, high = *(const v2 *)(const void *)(b + 2);
        low0 += low * a[0];
        high0 += high * a[0];
        low1 += low * a[1];
        high1 += high * a[1];
        low2 += low * a[2];
        high2 += high * a[2];
        low3 += low * a[3];
        high3 += high * a[3];
    }
    const v2 all[TILE * TILE / 2] = {low0, high0, low1, high1, low2, high2, low3, high3};
    memcpy(sum, all, sizeof all);
}

/* Adds a chunk of k to the rows first .. first + count - 1 of the work, columns j .. j + cols - 1.
 */
static void add_block(const struct work *w, int64_t first, int64_t count, int64_t j, int64_t cols,
                      int64_t k, const struct buffers *buffers)
{
    for (int64_t i = 0; i < count; i += TILE) {
        for (int64_t c = 0; c < cols; c += TILE) {
            double sum[TILE][TILE];
            tile(k, buffers->a + i * CHUNK, buffers->b + c * CHUNK, sum);
            for (int64_t h = 0; h < TILE && i + h < count; h++) {
                double *ref = w->ref + (first + i + h) * w->x->n + j + c;
                for (int64_t v = 0; v < TILE && c + v < cols; v++) {
                    ref[v] += sum[h][v];
                }
            }
        }
    }
}

/* ---- a run of rows of one item --------------------------------------------------------------- */

static void columns_of_run(const struct work *w, int64_t first, int64_t last, int64_t j,
                           struct buffers *buffers)
{
    const struct bench_product *x = w->x;
    int64_t cols = x->n - j < w->width ? x->n - j : w->width;
    for (int64_t c = 0; c < cols; c++) {
        buffers->col[c] = (struct norm){0.0, 0.0};
    }
    for (int64_t i = first; i < last; i++) {
        for (int64_t c = j; c < j + cols; c++) {
            w->ref[i * x->n + c] = 0.0;
        }
    }
    for (int64_t from = 0; from < x->k; from += CHUNK) {
        int64_t to = from + CHUNK < x->k ? from + CHUNK : x->k;
        pack_columns(x, w->rows[first] / x->m, j, cols, from, to, buffers);
        for (int64_t i = first; i < last; i += ROWS) {
            int64_t count = last - i < ROWS ? last - i : ROWS;
            pack_rows(x, count, w->rows + i, from, to, buffers->a);
            add_block(w, i, count, j, cols, to - from, buffers);
        }
    }
    for (int64_t i = first; i < last; i++) {
        for (int64_t c = 0; c < cols; c++) {
            w->ref[i * x->n + j + c] *= x->c;
            w->allowed[i * x->n + j + c] = allowed_error(w, &w->row[i], &buffers->col[c]);
        }
    }
}

static void reference_part(t2k_team *team, void *arg)
{
    struct work *w = arg;
    const struct bench_product *x = w->x;
    struct buffers *buffers = bench_alloc(1, sizeof *buffers);
    if (buffers == NULL) {
        atomic_store(&w->failed, 1);
        return;
    }
    /* Many small items are shared out run by run, a large one by its columns. */
    int rank = t2k_team_rank(team), size = t2k_team_size(team), run = 0;
    int by_columns = x->items == 1;
    int64_t start = by_columns ? rank * w->width : 0;
    int64_t step = by_columns ? size * w->width : w->width;
    for (int64_t first = 0, last; first < w->count; first = last, run++) {
        for (last = first + 1; last < w->count; last++) {
            if (w->rows[last] / x->m != w->rows[first] / x->m) {
                break;
            }
        }
        for (int64_t j = start; j < x->n && (by_columns || run % size == rank); j += step) {
            columns_of_run(w, first, last, j, buffers);
        }
    }
    free(buffers);
}

t2k_status bench_product_reference(const struct bench_product *x, int strict, int64_t count,
                                   const int64_t *rows, double *ref, double *allowed)
{
    struct work work = {x, strict, count, rows, ref, allowed, NULL, COLS, 0};
    /* Columns for every thread, where there are enough. */
    while (work.width > TILE && x->n / work.width < t2k_get_num_threads()) {
        work.width /= 2;
    }
    work.row = calloc((size_t)count, sizeof *work.row);
    if (work.row == NULL) {
        return T2K_ERR_NOMEM;
    }
    t2k_status status = t2k_parallel(0, norms_part, &work);
    if (status == T2K_OK) {
        status = t2k_parallel(0, reference_part, &work);
    }
    free(work.row);
    return status == T2K_OK && atomic_load(&work.failed) ? T2K_ERR_NOMEM : status;
}
