#include "ref_unary.h"

#include "check.h"
#include "core/table.h"

#include <math.h>

static double exact_exp(double x)
{
    return exp(x);
}

static double exact_log(double x)
{
    return log(x);
}

static double exact_relu(double x)
{
    return x < 0.0 ? 0.0 : x;
}

/* Below 2^-12 the series, whose next term is x^6: most floats are there, and erfc is slow. */
static double exact_gelu(double x)
{
    if (fabs(x) < 0x1p-12) {
        return x * (0.5 + 0.39894228040143267794 * x * (1.0 - x * x / 6.0));
    }
    return x == -INFINITY ? -0.0 : 0.5 * x * erfc(-0.70710678118654752440 * x);
}

static double exact_gelu_tanh(double x)
{
    const double y = 1.5957691216057307118 * (x + 0.044715 * x * x * x);
    return y == -INFINITY ? -0.0 : x / (1.0 + exp(-y));
}

static double exact_silu(double x)
{
    return x == -INFINITY ? -0.0 : x / (1.0 + exp(-x));
}

#define SLOT(name) #name, offsetof(t2k_table, name), t2k_##name, exact_##name

const struct ref_unary ref_unaries[REF_UNARIES] = {
    {SLOT(exp), -HUGE_VAL, 0.9, 0.0}, {SLOT(log), -HUGE_VAL, 0.95, 0.0},
    {SLOT(gelu), -1.0, 1.6, 2e-8},    {SLOT(gelu_tanh), -1.0, 1.65, 2e-8},
    {SLOT(silu), -88.0, 2.4, 3e-37},  {SLOT(relu), -HUGE_VAL, 0.0, 0.0},
};

int ref_unary_holds(const struct ref_unary *f, float x, float y)
{
    const double ref = f->exact((double)x);
    if (y == 0.0f && (signbit(y) != 0) != (signbit(ref) != 0)) {
        return 0;
    }
    return (double)x < f->from ? fabs((double)y - ref) <= f->absolute : ulp_error(y, ref) <= f->ulp;
}
