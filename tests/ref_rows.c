#include "ref_rows.h"

#include "core/fpenv.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define EPS 0x1p-24

void ref_softmax(size_t n, const float *x, double *y, double *allowed)
{
    double max = -INFINITY, sum = 0.0, spread = 0.0;
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        nan |= isnan(x[i]);
        max = x[i] > max ? (double)x[i] : max;
    }
    for (size_t i = 0; i < n; i++) {
        y[i] = nan || isinf(max) ? NAN : exp((double)x[i] - max);
        sum += y[i];
        spread += y[i] > 0.0 ? y[i] * (max - (double)x[i]) : 0.0;
    }
    for (size_t i = 0; i < n; i++) {
        double distance = y[i] > 0.0 ? max - (double)x[i] : 0.0;
        y[i] /= sum;
        allowed[i] = (distance + spread / sum + (double)n / 64 + 14) * EPS * y[i] + 0x1p-148;
    }
}

void ref_layer_norm(size_t n, const float *x, const float *scale, const float *residual,
                    const float *weight, const float *bias, float eps, double *y, double *allowed)
{
    double mean = 0.0, shift = 0.0, variance = 0.0, largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        float z = x[i];
        z = scale != NULL ? z * scale[i] : z;
        z = residual != NULL ? z + residual[i] : z;
        y[i] = (double)z;
        mean += y[i] / (double)n;
    }
    for (size_t i = 0; i < n; i++) {
        shift += (y[i] - mean) / (double)n;
    }
    mean += shift;
    for (size_t i = 0; i < n; i++) {
        variance += (y[i] - mean) * (y[i] - mean) / (double)n;
        largest = fmax(largest, fabs(y[i] - mean));
    }
    double inverse = 1.0 / sqrt(variance + (double)eps);
    /* The mean and its difference from a row of subnormal numbers are whole multiples of 2^-149. */
    for (size_t i = 0; i < n; i++) {
        double w = weight != NULL ? (double)weight[i] : 1.0;
        double b = bias != NULL ? (double)bias[i] : 0.0;
        y[i] = (y[i] - mean) * inverse * w + b;
        allowed[i] = 16 * EPS * (largest * inverse * fabs(w) + fabs(b)) +
                     (0x1p-42 * fabs(mean) + 0x1p-149) * inverse * fabs(w) + 0x1p-149;
    }
}

void ref_rms_norm(size_t n, const float *x, const float *residual, const float *weight, float eps,
                  float *z, double *y, double *allowed)
{
    double square = 0.0;
    for (size_t i = 0; i < n; i++) {
        z[i] = residual != NULL ? x[i] + residual[i] : x[i];
        square += (double)z[i] * (double)z[i] / (double)n;
    }
    const double inverse = 1.0 / sqrt(square + (double)eps);
    for (size_t i = 0; i < n; i++) {
        const double w = weight != NULL ? (double)weight[i] : 1.0;
        /* An infinity is a NaN for its whole row. */
        y[i] = isfinite(square) ? (double)z[i] * inverse * w : (double)NAN;
        allowed[i] = ((double)n / 128 + 8) * EPS * fabs(y[i]) + 0x1p-148;
    }
}

double ref_mean(size_t rows, size_t cols, const float *X, size_t ldx, double *mean_abs)
{
    double sum = 0.0, lost = 0.0, sum_abs = 0.0;
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++) {
            double add = (double)X[i * ldx + j] - lost;
            double next = sum + add;
            lost = isfinite(next) ? (next - sum) - add : 0.0;
            sum = next;
            sum_abs += fabs((double)X[i * ldx + j]);
        }
    }
    *mean_abs = sum_abs / ((double)rows * (double)cols);
    return sum / ((double)rows * (double)cols);
}

const size_t row_lengths[LENGTHS] = {
    0,   1,    2,    3,    4,    5,     7,     8,   9,   10,  11,  15,  16,  17,  31,   32,
    33,  47,   49,   63,   64,   65,    97,    127, 128, 129, 255, 256, 257, 512, 1021, /* full: */
    769, 1000, 1024, 2049, 4099, 10007, 32000,
};

void fill_row(struct rng *rng, enum row_kind kind, size_t n, float *x)
{
    float first = rng_uniform(rng);
    for (size_t i = 0; i < n; i++) {
        float u = rng_uniform(rng);
        uint32_t sign = u < 0 ? 0x80000000u : 0;
        switch (kind) {
        case ROW_WIDE:
            x[i] = 60 * u;
            break;
        case ROW_EQUAL:
            x[i] = 1000 * first;
            break;
        case ROW_ZEROS:
            x[i] = float_of(sign);
            break;
        case ROW_DENORMAL:
            x[i] = i % 4 == 3 ? 0.0f : float_of(sign | (uint32_t)rng_below(rng, 0x7fffff));
            break;
        case ROW_OFFSET:
            x[i] = 577.0f + 0.1f * u;
            break;
        case ROW_BLOCKED:
            x[i] = u < 0 && i + 1 < n ? -INFINITY : u;
            break;
        case ROW_HUGE:
            x[i] = FLT_MAX * u;
            break;
        case ROW_ALL_BLOCKED:
            x[i] = -INFINITY;
            break;
        default:
            x[i] = u;
        }
    }
    if (n > 0 && kind == ROW_NAN) {
        x[n - 1] = NAN;
    }
    if (n > 0 && kind == ROW_INF) {
        x[0] = INFINITY;
    }
}

static size_t extent(size_t rows, size_t cols, size_t ld)
{
    return rows > 0 && cols > 0 ? (rows - 1) * ld + cols : 0;
}

float *guarded_rows(struct guarded *g, size_t rows, size_t cols, size_t ld)
{
    return guarded_floats(g, extent(rows, cols, ld));
}

int guarded_rows_intact(const struct guarded *g, size_t rows, size_t cols, size_t ld)
{
    struct guarded fresh = guarded_new(1, sizeof(float));
    float pattern;
    memcpy(&pattern, fresh.data, sizeof pattern);
    guarded_free(&fresh);
    const float *x = g->data;
    for (size_t i = 0; i + 1 < rows && cols > 0; i++) {
        for (size_t j = cols; j < ld; j++) {
            if (bits_of(x[i * ld + j]) != bits_of(pattern)) {
                return 0;
            }
        }
    }
    return guarded_intact(g);
}

void pack_rows(float *dense, const float *X, size_t rows, size_t cols, size_t ld)
{
    for (size_t i = 0; i < rows && cols > 0; i++) {
        memcpy(dense + i * cols, X + i * ld, cols * sizeof *X);
    }
}

void unpack_rows(const float *dense, float *X, size_t rows, size_t cols, size_t ld)
{
    for (size_t i = 0; i < rows && cols > 0; i++) {
        memcpy(X + i * ld, dense + i * cols, cols * sizeof *X);
    }
}

uint64_t hostile_fpenv(void)
{
    uint64_t before = t2k_fpenv_get();
#if defined(__x86_64__)
    t2k_fpenv_set(T2K_FPENV_DEFAULT | 0x8040u | 0x4000u); /* FTZ, DAZ; upwards */
#else
    t2k_fpenv_set(T2K_FPENV_DEFAULT | 1u << 24 | 1u << 22); /* FZ; upwards */
#endif
    return before;
}

void restore_fpenv(uint64_t value)
{
    t2k_fpenv_set(value);
}
