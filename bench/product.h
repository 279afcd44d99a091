/* product.h - products held against double: row by row, and all at once by Freivalds' method. */
#ifndef T2_BENCH_PRODUCT_H
#define T2_BENCH_PRODUCT_H

#include "problem.h"

/* `items` products C = c * A diag(s) B with C (m, n) each, one below the other in the result.
 * Element (i, p) of A lies at a[i * a_m + p * a_k], (p, j) of B at b[p * b_k + j * b_n]; one stride
 * of each pair is 1. Item t begins t * a_item and t * b_item elements further. */
struct bench_product {
    int64_t items, m, n, k;
    const float *a, *b;
    int64_t a_m, a_k, a_item, b_k, b_n, b_item;
    const float *s; /* (k) or NULL: all 1 */
    double c;
};

/* As op->reference. Strict: the bound of t2k_sgemm or, with s, of t2k_svd_rebuild. */
t2k_status bench_product_reference(const struct bench_product *x, int strict, int64_t count,
                                   const int64_t *rows, double *ref, double *allowed);
/* As op->check_all. */
int64_t bench_product_check(const struct bench_product *x, const float *out);

#endif
