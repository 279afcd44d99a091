/* References in double precision, written for clarity: one function per operation. */
#ifndef T2_REF_H
#define T2_REF_H

#include "t2k.h"

/* sum (m, n) = op(A) op(B) and sum_abs (m, n) = |op(A)| |op(B)|. */
void ref_sgemm(t2k_transpose trans_a, t2k_transpose trans_b, size_t m, size_t n, size_t k,
               const float *A, size_t lda, const float *B, size_t ldb, double *sum,
               double *sum_abs);

/* The same product in float, literally by rule 1 of docs/numerics.md: the bits that every kernel
 * has to give. residual may be C. epilogue may be NULL. */
void ref_sgemm_strict(t2k_transpose trans_a, t2k_transpose trans_b, size_t m, size_t n, size_t k,
                      float alpha, const float *A, size_t lda, const float *B, size_t ldb,
                      float beta, float *C, size_t ldc, const t2k_epilogue *epilogue);

#endif
