/* exp against SLEEF and the double reference: as accurate as SLEEF's deterministic exp, which is
 * stated to be within one unit in the last place. */
#include "check.h"
#include "t2k.h"

#include <criterion/criterion.h>
#include <math.h>
#include <sleef.h>

enum { N = 1 << 20 };
static float x[N], y[N];

/* Evenly spaced bit patterns of one sign over all sizes whose exp is neither 0 nor infinite. */
static void patterns(uint32_t first, uint32_t last)
{
    for (size_t i = 0; i < N; i++) {
        x[i] = float_of(first + (uint32_t)((uint64_t)(last - first) * i / (N - 1)));
    }
}

static void compare(double *own, double *sleef)
{
    *own = *sleef = 0.0;
    cr_assert_eq(t2k_exp(N, x, y), T2K_OK);
    for (size_t i = 0; i < N; i++) {
        double ref = exp((double)x[i]);
        *own = fmax(*own, ulp_error(y[i], ref));
        *sleef = fmax(*sleef, ulp_error(Sleef_cinz_expf1_u10purec(x[i]), ref));
    }
}

Test(exp, within_one_unit_like_sleef)
{
    double own, sleef;
    patterns(0x00000000u, 0x42b17217u); /* 0 .. 88.72283 */
    compare(&own, &sleef);
    cr_assert_leq(own, 0.9, "exp of positive numbers: %.4f ULP", own);
    cr_assert_leq(sleef, 1.0, "SLEEF: %.4f ULP", sleef);
    patterns(0x80000000u, 0xc2cff1b4u); /* -0 .. -103.972 */
    compare(&own, &sleef);
    cr_assert_leq(own, 0.9, "exp of negative numbers: %.4f ULP", own);
    cr_assert_leq(sleef, 1.0, "SLEEF: %.4f ULP", sleef);
}

Test(exp, close_to_sleef_everywhere)
{
    /* Two results within one unit of the same number are neighbours at most. */
    patterns(0x80000000u, 0xc2cff1b4u);
    cr_assert_eq(t2k_exp(N, x, y), T2K_OK);
    for (size_t i = 0; i < N; i++) {
        int64_t ours = bits_of(y[i]), theirs = bits_of(Sleef_cinz_expf1_u10purec(x[i]));
        cr_assert(ours - theirs <= 1 && theirs - ours <= 1, "exp(%a): %a, SLEEF %a", (double)x[i],
                  (double)y[i], (double)Sleef_cinz_expf1_u10purec(x[i]));
    }
}

Test(exp, limits)
{
    const float in[] = {0x1.62e42ep+6f, 0x1.62e430p+6f,  INFINITY,        NAN,      0.0f,
                        -0.0f,          -0x1.9fe368p+6f, -0x1.9fe36ap+6f, -INFINITY};
    float out[9];
    cr_assert_eq(t2k_exp(9, in, out), T2K_OK);
    cr_assert_eq(bits_of(out[0]), 0x7f7fff84u, "the largest result: %a", (double)out[0]);
    cr_assert_eq(out[1], INFINITY);
    cr_assert_eq(out[2], INFINITY);
    cr_assert(isnan(out[3]));
    cr_assert_eq(out[4], 1.0f);
    cr_assert_eq(out[5], 1.0f);
    cr_assert_eq(bits_of(out[6]), 1u, "the smallest result: %a", (double)out[6]);
    cr_assert_eq(bits_of(out[7]), 0u);
    cr_assert_eq(bits_of(out[8]), 0u);
}
