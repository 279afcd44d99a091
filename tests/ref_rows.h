/* References in double for the row kernels, and rows of test data. */
#ifndef T2_REF_ROWS_H
#define T2_REF_ROWS_H

#include "check.h"
#include "t2k.h"

/* ---- references ----------------------------------------------------------------------------- */

/* y (n) = softmax(x) and, per element, the error that t2k.h allows. */
void ref_softmax(size_t n, const float *x, double *y, double *allowed);

/* One row of layer norm; z is rounded to float as t2k.h defines it, the rest is in double.
 * allowed (n): 16 * 2^-24 (1e-6) of the largest |t| of the row times |weight|, plus as much of
 * |bias|, plus what a mean far off zero adds. */
void ref_layer_norm(size_t n, const float *x, const float *scale, const float *residual,
                    const float *weight, const float *bias, float eps, double *y, double *allowed);

/* One row of RMS norm; z (n) as t2k.h defines it, the rest in double; allowed (n): t2k.h's bound.
 */
void ref_rms_norm(size_t n, const float *x, const float *residual, const float *weight, float eps,
                  float *z, double *y, double *allowed);

/* Mean, summed in rising order with compensation, and the mean of the absolute values. */
double ref_mean(size_t rows, size_t cols, const float *X, size_t ldx, double *mean_abs);

/* ---- test data ------------------------------------------------------------------------------ */

/* Kinds of rows: the last are those whose softmax or norm is NaN. */
enum row_kind {
    ROW_UNIFORM,  /* [-1, 1) */
    ROW_WIDE,     /* [-60, 60): exp underflows for some */
    ROW_EQUAL,    /* one value */
    ROW_ZEROS,    /* +0 and -0 */
    ROW_DENORMAL, /* and zeros */
    ROW_OFFSET,   /* mean 1e4 times the deviation */
    ROW_BLOCKED,  /* half of it -Inf, not the last element */
    ROW_HUGE,     /* up to FLT_MAX */
    ROW_ALL_BLOCKED,
    ROW_NAN, /* one, at the end */
    ROW_INF, /* one +Inf at the beginning */
    ROW_KINDS
};
void fill_row(struct rng *rng, enum row_kind kind, size_t n, float *x);

/* The lengths worth a test; those from LENGTHS_SMALL on are for the full tier. */
#define LENGTHS 38
#define LENGTHS_SMALL 31
extern const size_t row_lengths[LENGTHS];

/* A guarded matrix (rows, cols) with row stride ld; the last row ends at the unmapped page. */
float *guarded_rows(struct guarded *g, size_t rows, size_t cols, size_t ld);
/* Nothing before the matrix or between its rows was written. */
int guarded_rows_intact(const struct guarded *g, size_t rows, size_t cols, size_t ld);
/* dense (rows, cols) = X, and back. */
void pack_rows(float *dense, const float *X, size_t rows, size_t cols, size_t ld);
void unpack_rows(const float *dense, float *X, size_t rows, size_t cols, size_t ld);

/* Turns on flush-to-zero and rounding upwards for this thread; returns what to restore. */
uint64_t hostile_fpenv(void);
void restore_fpenv(uint64_t value);

#endif
