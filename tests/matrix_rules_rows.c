/* Rules 7, 9, 14 and 15 of docs/numerics.md: sums along a row, the mean, maxima, exp. */
#include "matrix_rules.h"

#include "ref_rows.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { ROWS = 19, LONGEST = 2100 };
static float x[ROWS * LONGEST], residual[ROWS * LONGEST], y[ROWS * LONGEST], want[ROWS * LONGEST];

/* Numbers of many sizes with all their bits, so that every addition rounds. */
static void fill_full(struct rng *rng, size_t n, float *to)
{
    for (size_t i = 0; i < n; i++) {
        const float u = rng_uniform(rng);
        to[i] = u * u * u * 2.7f;
    }
}

/* ---- rule 7 --------------------------------------------------------------------------------- */

static float tree(float lane[64])
{
    for (int width = 32; width >= 1; width /= 2) {
        for (int j = 0; j < width; j++) {
            lane[j] = lane[j] + lane[j + width];
        }
    }
    return lane[0];
}

static float sum_of(size_t n, const float *v)
{
    float lane[64] = {0};
    for (size_t i = 0; i < n; i++) {
        lane[i % 64] = lane[i % 64] + v[i];
    }
    return tree(lane);
}

static void softmax_row(size_t n, const float *v, float *out)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        max = v[i] > max ? v[i] : max;
    }
    max = max + 0.0f;
    for (size_t i = 0; i < n; i++) {
        out[i] = rule_exp(v[i] - max);
    }
    const float sum = sum_of(n, out), inverse = 1.0f / sum;
    for (size_t i = 0; i < n; i++) {
        out[i] = isnan(sum) ? NAN : out[i] * inverse;
    }
}

/* What a norm may be given; each pointer may be NULL. */
struct norm {
    const float *scale, *residual, *weight, *bias;
    float eps;
};

static void norm_row(size_t n, const float *v, const struct norm *p, float *out)
{
    float z[LONGEST] = {0}, d[LONGEST] = {0}, square[64] = {0};
    const float count = (float)n;
    for (size_t i = 0; i < n; i++) {
        z[i] = p->scale != NULL ? v[i] * p->scale[i] : v[i];
        z[i] = p->residual != NULL ? z[i] + p->residual[i] : z[i];
    }
    const size_t head = n < 64 ? n : 64;
    float mean = sum_of(head, z) / (float)head, shift = 0.0f, variance = 0.0f;
    for (int again = 0; again < 2; again++) {
        memset(square, 0, sizeof square);
        for (size_t i = 0; i < n; i++) {
            d[i] = z[i] - mean;
            square[i % 64] = fmaf(d[i], d[i], square[i % 64]);
        }
        shift = sum_of(n, d) / count;
        variance = fmaf(-shift, shift, tree(square) / count);
        variance = 0.0f > variance ? 0.0f : variance;
        if (again == 1 || n <= 64 || !(shift * shift > variance + variance)) {
            break;
        }
        mean = mean + shift;
    }
    const float spread = variance + p->eps, root = sqrtf(spread), inverse = 1.0f / root;
    for (size_t i = 0; i < n; i++) {
        const float t = fmaf(z[i] - mean, inverse, fmaf(-shift, inverse, 0.0f));
        if (p->weight != NULL && p->bias != NULL) {
            out[i] = fmaf(t, p->weight[i], p->bias[i]);
        } else {
            out[i] = p->weight != NULL ? t * p->weight[i] : p->bias != NULL ? t + p->bias[i] : t;
        }
    }
}

static void softmax_case(struct matrix *m, size_t n)
{
    for (int r = 0; r < ROWS; r++) {
        fill_row(&m->rng, (enum row_kind)(r % ROW_KINDS), n, x + (size_t)r * n);
        softmax_row(n, x + (size_t)r * n, want + (size_t)r * n);
    }
    const int64_t cols = (int64_t)n;
    matrix_check(m, t2k_softmax(ROWS, cols, x, cols, y, cols) == T2K_OK, "rule 7");
    matrix_same(m, y, want, ROWS * n, "rule 7: softmax of %zu", n);
    matrix_result(m, 0, y, ROWS * n);
}

/* Every combination of what a norm may be given, in turn. */
static void norm_case(struct matrix *m, size_t n, unsigned given)
{
    static float scale[LONGEST], weight[LONGEST], bias[LONGEST];
    rng_fill(&m->rng, scale, n);
    rng_fill(&m->rng, weight, n);
    rng_fill(&m->rng, bias, n);
    rng_fill(&m->rng, residual, ROWS * n);
    struct norm p = {.eps = 1e-5f};
    p.scale = given & 1 ? scale : NULL;
    p.weight = given & 4 ? weight : NULL;
    p.bias = given & 8 ? bias : NULL;
    for (size_t r = 0; r < ROWS; r++) {
        if (r % 2 == 0) {
            fill_full(&m->rng, n, x + r * n);
        } else {
            fill_row(&m->rng, ROW_OFFSET, n, x + r * n);
        }
        p.residual = given & 2 ? residual + r * n : NULL;
        norm_row(n, x + r * n, &p, want + r * n);
    }
    const int64_t cols = (int64_t)n;
    const float *added = given & 2 ? residual : NULL;
    matrix_check(m,
                 t2k_layer_norm(ROWS, cols, x, cols, p.scale, added, cols, p.weight, p.bias, p.eps,
                                y, cols) == T2K_OK,
                 "rule 7");
    matrix_same(m, y, want, ROWS * n, "rule 7: layer norm of %zu, given %u", n, given);
    matrix_result(m, 0, y, ROWS * n);
}

/* The first 64 elements are far off the mean: a second m0. */
static void far_head_case(struct matrix *m, size_t n)
{
    struct norm p = {.eps = 1e-5f};
    for (size_t r = 0; r < ROWS; r++) {
        fill_full(&m->rng, n, x + r * n);
        for (size_t i = 0; i < 64 && i < n; i++) {
            x[r * n + i] += 10.0f * (float)r;
        }
        norm_row(n, x + r * n, &p, want + r * n);
    }
    const int64_t cols = (int64_t)n;
    matrix_check(
        m, t2k_layer_norm(ROWS, cols, x, cols, NULL, NULL, 0, NULL, NULL, p.eps, y, cols) == T2K_OK,
        "rule 7");
    matrix_same(m, y, want, ROWS * n, "rule 7: layer norm of %zu with a far head", n);
    matrix_result(m, 0, y, ROWS * n);
}

static void rms_case(struct matrix *m, size_t n, unsigned given)
{
    static float weight[LONGEST], sum[ROWS * LONGEST], z[ROWS * LONGEST];
    rng_fill(&m->rng, weight, n);
    rng_fill(&m->rng, residual, ROWS * n);
    for (size_t r = 0; r < ROWS; r++) {
        float square[64] = {0};
        fill_full(&m->rng, n, x + r * n);
        for (size_t i = r * n; i < (r + 1) * n; i++) {
            z[i] = given & 1 ? x[i] + residual[i] : x[i];
            square[(i - r * n) % 64] = fmaf(z[i], z[i], square[(i - r * n) % 64]);
        }
        const float spread = tree(square) / (float)n + 1e-5f, root = sqrtf(spread);
        const float inverse = 1.0f / root;
        for (size_t i = 0; i < n; i++) {
            const float t = z[r * n + i] * inverse;
            want[r * n + i] = given & 2 ? t * weight[i] : t;
        }
    }
    const int64_t cols = (int64_t)n;
    matrix_check(m,
                 t2k_rms_norm(ROWS, cols, x, cols, given & 1 ? residual : NULL, cols,
                              given & 2 ? weight : NULL, 1e-5f, sum, cols, y, cols) == T2K_OK,
                 "rule 7");
    matrix_same(m, y, want, ROWS * n, "rule 7: RMS norm of %zu, given %u", n, given);
    matrix_same(m, sum, z, ROWS * n, "rule 7: RMS norm's sum of %zu, given %u", n, given);
    matrix_result(m, 0, y, ROWS * n);
}

/* Neither a serial sum nor 32 lanes have these bits. */
static void check_lanes_show(struct matrix *m)
{
    int serial_shows = 0, lanes_show = 0;
    for (int sample = 0; sample < 10; sample++) {
        float serial = 0.0f, half[64] = {0};
        fill_full(&m->rng, 1000, x);
        for (size_t i = 0; i < 1000; i++) {
            serial += x[i];
            half[i % 32] += x[i];
        }
        const float sum = sum_of(1000, x);
        serial_shows += sum != serial;
        lanes_show += sum != tree(half);
    }
    matrix_check(m, serial_shows > 0 && lanes_show > 0, "rule 7: no order shows in this data");
}

/* 64 lanes from +0, element i in lane i mod 64, then a tree. */
void rule_7(struct matrix *m)
{
    static const size_t lengths[] = {1, 5, 16, 63, 64, 65, 100, 130, 257, 2100};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        softmax_case(m, lengths[i]);
        norm_case(m, lengths[i], (unsigned)(15 - i));
        norm_case(m, lengths[i], (unsigned)(5 + i));
        rms_case(m, lengths[i], (unsigned)i);
    }
    for (size_t n = 300; n <= 2100; n += 600) {
        far_head_case(m, n);
    }
    check_lanes_show(m);
}

/* ---- rule 9 --------------------------------------------------------------------------------- */

/* Rows in 64 lanes of double and the tree, added in rising order; one division, then float. The
 * second half of the tensor cancels the first, so that what is left is the order's rounding. */
void rule_9(struct matrix *m)
{
    static const size_t lengths[] = {1, 7, 63, 64, 65, 130, 300};
    static const float scales[] = {1.1f, 1e8f, 1e15f};
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
        const size_t n = lengths[k], count = 14 * n;
        double total = 0.0, serial = 0.0;
        for (size_t i = 0; i < count / 2; i++) {
            x[i] = rng_uniform(&m->rng) * scales[i % 3];
            x[count - 1 - i] = -x[i];
        }
        for (size_t r = 0; r < 14; r++) {
            double lane[64] = {0};
            for (size_t i = 0; i < n; i++) {
                lane[i % 64] += (double)x[r * n + i];
                serial += (double)x[r * n + i];
            }
            for (int width = 32; width >= 1; width /= 2) {
                for (int j = 0; j < width; j++) {
                    lane[j] += lane[j + width];
                }
            }
            total += lane[0];
        }
        const float mean = (float)(total / (14.0 * (double)n));
        float got = -1.0f;
        t2k_status status = t2k_mean(14, (int64_t)n, x, (int64_t)n, &got);
        matrix_check(m, status == T2K_OK, "rule 9");
        matrix_same(m, &got, &mean, 1, "rule 9: mean of 14 rows of %zu", n);
        matrix_result(m, 0, &got, 1);
        matrix_check(m, n < 63 || total != serial, "rule 9: no order shows in this data");
    }
}

/* ---- rule 14 -------------------------------------------------------------------------------- */

static void relu_of(struct matrix *m, size_t n, const float *in)
{
    const float one = 1.0f;
    float epilogue[80];
    t2k_epilogue relu = {.size = sizeof relu, .activation = T2K_ACT_RELU};
    int wrong = 0;
    t2k_relu((int64_t)n, in, y);
    /* 0 * 1 + in, then relu: the product of k = 0 keeps in as it is. */
    memcpy(epilogue, in, n * sizeof *in);
    t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, 1, (int64_t)n, 0, 1.0f, &one, 1, &one, (int64_t)n, 1.0f,
              epilogue, (int64_t)n, &relu);
    for (size_t i = 0; i < n; i++) {
        const uint32_t expected = bits_of(in[i] < 0 ? 0.0f : in[i]);
        wrong += bits_of(y[i]) != expected && !(isnan(in[i]) && isnan(y[i]));
        wrong += bits_of(epilogue[i]) != expected && !(isnan(in[i]) && isnan(epilogue[i]));
    }
    matrix_check(m, wrong == 0, "rule 14: relu of %zu: %d wrong", n, wrong);
}

/* Which operand a maximum takes: relu keeps -0 and NaN; a row with a NaN anywhere, or without a
 * finite maximum, is the canonical NaN; exp's clamp lets NaN pass; zeros of either sign are one
 * maximum. */
void rule_14(struct matrix *m)
{
    static const float values[] = {-0.0f,     NAN,        -1.0f, 0x1p-149f, -0x1p-149f, INFINITY,
                                   -INFINITY, -0x1p-126f, 0.0f,  2.0f,      -FLT_MAX};
    float in[80];
    for (size_t n = 1; n <= 80; n++) {
        for (size_t i = 0; i < n; i++) {
            in[i] = values[(i + n) % (sizeof values / sizeof values[0])];
        }
        relu_of(m, n, in);
    }
    static const size_t lengths[] = {1, 3, 16, 37, 70};
    for (size_t k = 0; k < 5; k++) {
        const size_t n = lengths[k];
        int wrong = 0;
        for (size_t at = 0; at < n; at++) {
            fill_row(&m->rng, ROW_UNIFORM, n, in);
            in[at] = at % 2 == 0 ? NAN : INFINITY;
            t2k_softmax(1, (int64_t)n, in, (int64_t)n, y, (int64_t)n);
            for (size_t i = 0; i < n; i++) {
                wrong += bits_of(y[i]) != 0x7fc00000u;
            }
            fill_row(&m->rng, ROW_ZEROS, n, in);
            t2k_softmax(1, (int64_t)n, in, (int64_t)n, y, (int64_t)n);
            for (size_t i = 0; i < n; i++) {
                wrong += y[i] != 1.0f * (1.0f / (float)n);
            }
            in[at] = NAN;
            t2k_exp((int64_t)n, in, y);
            wrong += !isnan(y[at]);
        }
        matrix_check(m, wrong == 0, "rule 14: maxima of rows of %zu: %d wrong", n, wrong);
    }
}

/* ---- rule 15 -------------------------------------------------------------------------------- */

float rule_exp(float v)
{
    static const float c[7] = {0x1.6a5150p-10f,
                               0x1.12397ep-7f,
                               0x1.5558acp-5f,
                               0x1.555492p-3f,
                               0x1.fffffcp-2f,
                               1.0f,
                               1.0f};
    if (isnan(v)) {
        return v;
    }
    v = 89.0f < v ? 89.0f : v;
    v = -176.0f > v ? -176.0f : v;
    const float magic = 12582912.0f, t = fmaf(v, 0x1.715476p+0f, magic), n = t - magic;
    float r = fmaf(-n, 0x1.62e430p-1f, v);
    r = fmaf(-n, -0x1.05c610p-29f, r);
    float p = c[0];
    for (int i = 1; i < 7; i++) {
        p = fmaf(p, r, c[i]);
    }
    const int half = (int)floorf(n / 2.0f), rest = (int)n - half;
    p = p * ldexpf(1.0f, half);
    return p * ldexpf(1.0f, rest);
}

static void exp_case(struct matrix *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        want[i] = rule_exp(x[i]);
    }
    matrix_check(m, t2k_exp((int64_t)n, x, y) == T2K_OK, "rule 15");
    matrix_same(m, y, want, n, "rule 15: exp of %zu", n);
    matrix_result(m, 0, y, n);
}

/* exp, step by step, over its whole range, at its limits and far outside: no value reaches an
 * integer without the clamp. */
void rule_15(struct matrix *m)
{
    static const float limits[] = {
        0.0f,        -0.0f,        88.72283f,  88.722839f, 88.72284f, 89.0f,     89.5f,
        -87.33654f,  -87.33655f,   -103.9720f, -103.9721f, -104.0f,   -175.5f,   -176.0f,
        -176.5f,     1e9f,         -1e9f,      3e9f,       -3e9f,     1e30f,     -1e30f,
        FLT_MAX,     -FLT_MAX,     INFINITY,   -INFINITY,  NAN,       0x1p-149f, -0x1p-149f,
        0.34657359f, -0.34657359f, 0.3465736f, 1.0397208f};
    enum { LIMITS = sizeof limits / sizeof limits[0], SAMPLE = 12000, N = LIMITS + 2 * SAMPLE };
    memcpy(x, limits, sizeof limits);
    for (size_t i = 0; i < SAMPLE; i++) {
        x[LIMITS + i] = -110.0f + (float)i * (202.0f / SAMPLE);
        x[LIMITS + SAMPLE + i] = float_of((uint32_t)(i * (UINT32_MAX / SAMPLE)));
    }
    exp_case(m, N);
    /* Each of the steps changes the last bit for one argument in some thousands. */
    for (int batch = 0; batch < 12; batch++) {
        for (size_t i = 0; i < SAMPLE; i++) {
            x[i] = 88.0f * rng_uniform(&m->rng);
        }
        exp_case(m, SAMPLE);
    }
}
