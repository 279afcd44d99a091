#include "ref.h"

#include "core/table.h"

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

/* Element (i, j) of the product, all chunks, without the epilogue. */
static float strict_element(t2k_transpose trans_a, t2k_transpose trans_b, size_t i, size_t j,
                            size_t k, float alpha, const float *A, size_t lda, const float *B,
                            size_t ldb, float beta, float c)
{
    float v = beta == 0.0f ? 0.0f : beta * c;
    if (alpha == 0.0f) {
        return v;
    }
    for (size_t first = 0; first < k; first += T2K_CHUNK_K) {
        size_t last = first + T2K_CHUNK_K < k ? first + T2K_CHUNK_K : k;
        float sum = 0.0f;
        for (size_t p = first; p < last; p++) {
            float x = trans_a == T2K_TRANS ? A[p * lda + i] : A[i * lda + p];
            float y = trans_b == T2K_TRANS ? B[j * ldb + p] : B[p * ldb + j];
            sum = fmaf(x, y, sum);
        }
        v = first == 0 && beta == 0.0f ? alpha * sum : fmaf(alpha, sum, v);
    }
    return v;
}

/* The other activations have suites of their own: here the scalar kernels are the reference. */
static float strict_activation(float v, t2k_activation activation)
{
    const t2k_table *scalar = t2k_table_own(0);
    switch (activation) {
    case T2K_ACT_NONE:
        break;
    case T2K_ACT_RELU:
        return v < 0.0f ? 0.0f : v;
    case T2K_ACT_GELU:
        scalar->gelu(1, &v, &v);
        break;
    case T2K_ACT_GELU_TANH:
        scalar->gelu_tanh(1, &v, &v);
        break;
    case T2K_ACT_SILU:
        scalar->silu(1, &v, &v);
        break;
    }
    return v;
}

void ref_sgemm_strict(t2k_transpose trans_a, t2k_transpose trans_b, size_t m, size_t n, size_t k,
                      float alpha, const float *A, size_t lda, const float *B, size_t ldb,
                      float beta, float *C, size_t ldc, const t2k_epilogue *e)
{
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            float *c = &C[i * ldc + j];
            float v = strict_element(trans_a, trans_b, i, j, k, alpha, A, lda, B, ldb, beta, *c);
            if (e != NULL && e->bias != NULL) {
                v += e->bias[j];
            }
            if (e != NULL && e->scale_rows != NULL) {
                v *= e->scale[e->scale_rows[i] * e->lds + (int64_t)j];
            } else if (e != NULL && e->scale != NULL) {
                v *= e->scale[j];
            }
            if (e != NULL) {
                v = strict_activation(v, e->activation);
            }
            if (e != NULL && e->residual != NULL) {
                v += e->residual[i * (size_t)e->ldr + j];
            }
            *c = v;
        }
    }
}
