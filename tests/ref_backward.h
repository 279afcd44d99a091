/* References in double for the gradients of rows and elements. */
#ifndef T2_REF_BACKWARD_H
#define T2_REF_BACKWARD_H

#include "t2k.h"

/* f'(x) and, in *allowed, the error of it that t2k.h states. */
double ref_slope(t2k_activation activation, double x, double *allowed);

/* One row of t2k_softmax_backward and what t2k.h allows per element. */
void ref_softmax_backward(size_t n, const float *y, const float *dy, float scale, double *dx,
                          double *allowed);

/* sums[j] (+)= sum over rows of A[i,j] B[i,j] (A[i,j] where B is NULL), in float by rule 8. */
void ref_columns(size_t rows, size_t cols, const float *A, size_t lda, const float *B, size_t ldb,
                 int accumulate, float *sums);

#endif
