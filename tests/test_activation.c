/* GELU by erf and by tanh, SiLU: the bounds of t2k.h on a dense sample, the values that matter one
 * by one, and the tail that 1 + erf(x) loses. (tests/exhaustive.c takes every float.) */
#include "check.h"
#include "ref_unary.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum { N = 1 << 18 };
static float x[N], y[N];

static const struct ref_unary *function(const char *name)
{
    for (size_t f = 0; f < REF_UNARIES; f++) {
        if (strcmp(ref_unaries[f].name, name) == 0) {
            return &ref_unaries[f];
        }
    }
    return NULL;
}

static void sample(const struct ref_unary *f, uint32_t first, uint32_t last)
{
    for (size_t i = 0; i < N; i++) {
        x[i] = float_of(first + (uint32_t)((uint64_t)(last - first) * i / (N - 1)));
    }
    cr_assert_eq(f->fn(N, x, y), T2K_OK);
    size_t i = 0;
    while (i + 1 < N && ref_unary_holds(f, x[i], y[i])) {
        i++;
    }
    cr_assert(ref_unary_holds(f, x[i], y[i]), "%s(%a) = %a, exactly %a", f->name, (double)x[i],
              (double)y[i], f->exact((double)x[i]));
}

Test(activation, within_their_bounds)
{
    for (size_t f = 0; f < REF_UNARIES; f++) {
        for (uint32_t negative = 0; negative < 2; negative++) {
            const uint32_t sign = negative << 31;
            sample(&ref_unaries[f], sign, sign + 0x7f800000u);               /* every size */
            sample(&ref_unaries[f], sign + 0x3d000000u, sign + 0x41000000u); /* 2^-5 .. 8 */
            sample(&ref_unaries[f], sign + 0x41000000u, sign + 0x43000000u); /* 8 .. 128 */
        }
    }
}

Test(activation, special_arguments)
{
    const char *const names[] = {"gelu", "gelu_tanh", "silu"};
    const float in[] = {0.0f,      -0.0f, INFINITY,   -INFINITY,   0x1.8p-140f, -0x1.8p-140f,
                        0x1p-149f, NAN,   0x1.8p100f, -0x1.8p100f, -200.0f,     0x1p-126f};
    const float want[] = {0.0f, -0.0f, INFINITY,   -0.0f, 0x1.8p-141f, -0x1.8p-141f,
                          0.0f, NAN,   0x1.8p100f, -0.0f, -0.0f,       0x1p-127f};
    enum { COUNT = sizeof in / sizeof in[0] };
    float out[COUNT];
    for (size_t k = 0; k < 3; k++) {
        cr_assert_eq(function(names[k])->fn(COUNT, in, out), T2K_OK);
        const size_t i = first_difference(out, want, COUNT);
        cr_assert_eq(i, COUNT, "%s(%a) = %a", names[k], (double)in[i], (double)out[i]);
    }
}

/* The polynomials of neighbouring intervals meet: each is within 7.8e-9, beside rounding. */
Test(activation, intervals_meet)
{
    const char *const names[] = {"gelu", "gelu_tanh"};
    for (size_t k = 0; k < 2; k++) {
        for (int n = 0; n < 8; n++) {
            for (float sign = -1.0f; sign <= 1.0f; sign += 2.0f) {
                const float edge = sign * ((float)n + 0.5f);
                const float in[] = {nextafterf(edge, -100.0f), edge, nextafterf(edge, 100.0f)};
                float out[3];
                function(names[k])->fn(3, in, out);
                for (int i = 0; i < 2; i++) {
                    const double unit = 0x1p-23 * fabs((double)out[1]);
                    cr_expect_leq(fabs((double)out[i + 1] - (double)out[i]), 4 * unit + 1.6e-8,
                                  "%s at %a: %a, %a", names[k], (double)in[i], (double)out[i],
                                  (double)out[i + 1]);
                }
            }
        }
    }
}

Test(activation, no_cancellation_in_the_tail)
{
    double ours = 0.0, plain = 0.0;
    for (size_t i = 0; i < N; i++) {
        x[i] = -1.0f - 5.0f * (float)i / N;
    }
    cr_assert_eq(t2k_gelu(N, x, y), T2K_OK);
    for (size_t i = 0; i < N; i++) {
        const double ref = function("gelu")->exact((double)x[i]);
        const float formula = 0.5f * x[i] * (1.0f + erff(0.70710678f * x[i]));
        ours = fmax(ours, fabs((double)y[i] - ref));
        plain = fmax(plain, fabs((double)formula - ref));
    }
    cr_expect_leq(4.0 * ours, plain, "%.3g against %.3g of 1 + erf", ours, plain);
}
