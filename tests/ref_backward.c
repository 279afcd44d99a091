#include "ref_backward.h"

#include "core/constants.h"

#include <math.h>

#define EPS 0x1p-24

static double gelu_slope(double x)
{
    const double phi = 0.39894228040143267794 * exp(-0.5 * x * x);
    return 0.5 * erfc(-0.70710678118654752440 * x) + (phi > 0.0 ? x * phi : 0.0);
}

static double gelu_tanh_slope(double x)
{
    const double c = 1.5957691216057307118, y = c * (x + 0.044715 * x * x * x);
    const double s = 1.0 / (1.0 + exp(-y)), rest = 1.0 / (1.0 + exp(y));
    return s + (s * rest > 0.0 ? x * s * rest * c * (1.0 + 3.0 * 0.044715 * x * x) : 0.0);
}

static double silu_slope(double x)
{
    const double s = 1.0 / (1.0 + exp(-x)), rest = 1.0 / (1.0 + exp(x));
    return s + (s * rest > 0.0 ? x * s * rest : 0.0);
}

double ref_slope(t2k_activation activation, double x, double *allowed)
{
    switch (activation) {
    case T2K_ACT_RELU:
        *allowed = 0.0;
        return x <= 0.0 ? 0.0 : 1.0; /* a NaN counts as active */
    case T2K_ACT_GELU:
        *allowed = 1.5e-7;
        return isnan(x) ? x : gelu_slope(x);
    case T2K_ACT_GELU_TANH:
        *allowed = 1.5e-7;
        return isnan(x) ? x : gelu_tanh_slope(x);
    case T2K_ACT_SILU:
        *allowed = 2.5e-7;
        return isnan(x) ? x : silu_slope(x);
    default:
        *allowed = 0.0;
        return 1.0;
    }
}

void ref_softmax_backward(size_t n, const float *y, const float *dy, float scale, double *dx,
                          double *allowed)
{
    double sum = 0.0, size = 0.0;
    for (size_t j = 0; j < n; j++) {
        sum += (double)y[j] * (double)dy[j];
        size += fabs((double)y[j] * (double)dy[j]);
    }
    for (size_t j = 0; j < n; j++) {
        dx[j] = (double)y[j] * ((double)dy[j] - sum) * (double)scale;
        allowed[j] = (((double)n / 64 + 10) * size + 3 * fabs((double)dy[j])) * EPS *
                         fabs((double)y[j] * (double)scale) +
                     0x1p-148 * (fabs((double)scale) + 1.0);
    }
}

void ref_columns(size_t rows, size_t cols, const float *A, size_t lda, const float *B, size_t ldb,
                 int accumulate, float *sums)
{
    for (size_t j = 0; j < cols; j++) {
        float total = accumulate ? sums[j] : 0.0f;
        for (size_t i = 0; i < rows; i += T2K_CHUNK_ROWS) {
            float chunk = 0.0f;
            for (size_t r = i; r < rows && r < i + T2K_CHUNK_ROWS; r++) {
                const float a = A[r * lda + j];
                chunk = B != NULL ? fmaf(a, B[r * ldb + j], chunk) : chunk + a;
            }
            total = accumulate || i > 0 ? total + chunk : chunk;
        }
        sums[j] = total;
    }
}
