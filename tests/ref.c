#include "ref.h"

#include <math.h>

void ref_sgemm(t2k_transpose trans_a, t2k_transpose trans_b, size_t m, size_t n, size_t k,
               const float *A, size_t lda, const float *B, size_t ldb, double *sum, double *sum_abs)
{
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double s = 0.0, a = 0.0;
            for (size_t p = 0; p < k; p++) {
                double x = trans_a == T2K_TRANS ? A[p * lda + i] : A[i * lda + p];
                double y = trans_b == T2K_TRANS ? B[j * ldb + p] : B[p * ldb + j];
                s += x * y;
                a += fabs(x * y);
            }
            sum[i * n + j] = s;
            sum_abs[i * n + j] = a;
        }
    }
}
