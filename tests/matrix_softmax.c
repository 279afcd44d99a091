/* t2k_softmax: every length around the vector widths and blocks, every kind of row. */
#include "matrix.h"
#include "ref_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS ((size_t)ROW_KINDS)

static void softmax(struct matrix *m, size_t rows, size_t cols, const float *X, size_t ldx,
                    float *Y, size_t ldy)
{
    t2k_status status = t2k_softmax((int64_t)rows, (int64_t)cols, X, (int64_t)ldx, Y, (int64_t)ldy);
    matrix_check(m, status == T2K_OK, "%zux%zu: %s", rows, cols, t2k_status_str(status));
}

/* y (rows, cols) against double; rows that must be NaN hold the canonical one. */
static void against_reference(struct matrix *m, size_t rows, size_t cols, const float *x,
                              const float *y)
{
    double *ref = malloc(2 * cols * sizeof *ref + 1), *allowed = ref + cols;
    for (size_t i = 0; i < rows; i++) {
        ref_softmax(cols, x + i * cols, ref, allowed);
        size_t worst = 0;
        double excess = -1.0;
        for (size_t j = 0; j < cols; j++) {
            float got = y[i * cols + j];
            double e = isnan(ref[j]) ? (bits_of(got) == 0x7fc00000u ? 0.0 : HUGE_VAL)
                                     : fabs((double)got - ref[j]) / allowed[j];
            if (!(e <= excess)) {
                excess = isnan(e) ? HUGE_VAL : e;
                worst = j;
            }
        }
        matrix_check(m, excess <= 1.0, "row %zu of %zux%zu at %zu: got %.9g, want %.9g, allowed %g",
                     i, rows, cols, worst, cols > 0 ? (double)y[i * cols + worst] : 0.0,
                     cols > 0 ? ref[worst] : 0.0, cols > 0 ? allowed[worst] : 0.0);
    }
    free(ref);
}

/* matrix_same() takes all NaNs for equal; a row without a result holds the canonical one. */
static void canonical_nans(struct matrix *m, size_t rows, size_t cols, const float *y)
{
    size_t other = 0;
    for (size_t i = 0; i < rows * cols; i++) {
        other += isnan(y[i]) && bits_of(y[i]) != 0x7fc00000u;
    }
    matrix_check(m, other == 0, "%zux%zu: %zu NaNs are not 7fc00000", rows, cols, other);
}

static void case_of(struct matrix *m, size_t rows, size_t cols, int full_only, int threads)
{
    const size_t ldx = cols + 3, ldy = cols + 1, count = rows * cols;
    struct guarded gx, gy, gz;
    float *x = guarded_rows(&gx, rows, cols, ldx);
    float *y = guarded_rows(&gy, rows, cols, ldy);
    float *z = guarded_rows(&gz, rows, cols, ldy); /* in place */
    float *dense = malloc(3 * count * sizeof *dense + 1);
    float *want = dense + count, *got = want + count;
    for (size_t i = 0; i < rows; i++) {
        fill_row(&m->rng, (enum row_kind)(i % ROW_KINDS), cols, dense + i * cols);
    }
    unpack_rows(dense, x, rows, cols, ldx);
    unpack_rows(dense, z, rows, cols, ldy);
    guarded_seal(&gx);
    softmax(m, rows, cols, x, ldx, y, ldy);
    softmax(m, rows, cols, z, ldy, z, ldy);
    matrix_check(m, guarded_rows_intact(&gy, rows, cols, ldy), "%zux%zu: stray write", rows, cols);
    matrix_check(m, guarded_rows_intact(&gz, rows, cols, ldy), "%zux%zu: stray write in place",
                 rows, cols);
    pack_rows(got, y, rows, cols, ldy);
    matrix_use_scalar(m);
    softmax(m, rows, cols, dense, cols, want, cols);
    matrix_use_tested(m);
    matrix_same(m, got, want, count, "%zux%zu", rows, cols);
    canonical_nans(m, rows, cols, got);
    pack_rows(got, z, rows, cols, ldy);
    matrix_same(m, got, want, count, "%zux%zu in place", rows, cols);
    for (int t = 1; t <= threads; t++) {
        t2k_set_num_threads(t);
        memset(got, 0, count * sizeof *got);
        softmax(m, rows, cols, x, ldx, got, cols);
        matrix_same(m, got, want, count, "%zux%zu on %d threads", rows, cols, t);
    }
    t2k_set_num_threads(0);
    if (m->isa == 0) {
        against_reference(m, rows, cols, dense, want);
    }
    matrix_result(m, full_only, want, count);
    free(dense);
    guarded_free(&gx);
    guarded_free(&gy);
    guarded_free(&gz);
}

static void hostile_environment(struct matrix *m)
{
    float x[3 * 65], want[3 * 65], got[3 * 65];
    fill_row(&m->rng, ROW_WIDE, 65, x);
    fill_row(&m->rng, ROW_UNIFORM, 65, x + 65);
    fill_row(&m->rng, ROW_DENORMAL, 65, x + 130);
    x[64] = 0.0f;
    x[63] = -100.0f; /* its result is denormal */
    softmax(m, 3, 65, x, 65, want, 65);
    uint64_t before = hostile_fpenv();
    softmax(m, 3, 65, x, 65, got, 65);
    restore_fpenv(before);
    matrix_same(m, got, want, 3 * 65, "with flush-to-zero and upward rounding set");
}

static void refusals(struct matrix *m)
{
    float x[8] = {0}, y[8] = {7, 7, 7, 7, 7, 7, 7, 7};
    const struct {
        int64_t rows, cols, ldx, ldy;
        const float *X;
        float *Y;
    } bad[] = {
        {-1, 2, 2, 2, x, y},   {2, -1, 2, 2, x, y},
        {2, 4, 3, 4, x, y},    {2, 4, 4, 3, x, y},
        {2, 4, 4, 4, NULL, y}, {2, 4, 4, 4, x, NULL},
        {2, 3, 3, 4, y, y},    {INT64_MAX, 2, INT64_MAX, 2, x, y},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        t2k_status status =
            t2k_softmax(bad[i].rows, bad[i].cols, bad[i].X, bad[i].ldx, bad[i].Y, bad[i].ldy);
        matrix_check(m, status == T2K_ERR_ARG && y[0] == 7.0f, "bad arguments %zu: %s", i,
                     t2k_status_str(status));
    }
    matrix_check(m, t2k_softmax(0, 0, NULL, 0, NULL, 0) == T2K_OK, "no rows");
    matrix_check(m, t2k_softmax(3, 0, NULL, 0, NULL, 0) == T2K_OK, "no columns");
}

void matrix_softmax(struct matrix *m)
{
    refusals(m);
    hostile_environment(m);
    for (size_t i = 0; i < LENGTHS_SMALL; i++) {
        case_of(m, ROWS, row_lengths[i], 0, row_lengths[i] == 129 ? 4 : 0);
    }
    case_of(m, 1, 5, 0, 2);
    case_of(m, 50, 10, 0, 4);
    case_of(m, 2, 2053, 0, 0); /* a long row in chunks */
    /* More rows than a block holds; rows enough for each pass of a step beside the others. */
    case_of(m, 150, 31, 1, 0);
    case_of(m, 140, 100, 1, 0);
    case_of(m, 23, 300, 1, 0);
    case_of(m, 7, 2113, 1, 0);
    if (m->tier == TIER_FULL) {
        for (size_t i = LENGTHS_SMALL; i < LENGTHS; i++) {
            case_of(m, ROWS, row_lengths[i], 1, 4);
        }
        case_of(m, 2000, 33, 1, 4);
        case_of(m, 4, 9001, 1, 0);
        /* What counts as lying in memory. */
        case_of(m, 4800, 701, 1, 0);
        case_of(m, 1500, 2101, 1, 0);
    }
}
