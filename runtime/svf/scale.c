/* From an expert's stored vector to scaled singular values. Everything is single roundings in a
 * fixed order (sums in double, from the first component on), so that it has the same bits on every
 * CPU; docs/experts.md has the formulas. */
#include "svf/expert.h"

#include "io/error.h"
#include "io/text.h"
#include "t2k.h"

#include <math.h>
#include <stdlib.h>

const char *t2_squash_str(t2_squash squash)
{
    switch (squash) {
    case T2_SQUASH_SIGMOID:
        return "sigmoid";
    case T2_SQUASH_IDENTITY:
        return "identity";
    case T2_SQUASH_RELU_DELTA:
        return "relu-delta";
    }
    return "unknown";
}

static t2_status fail_value(t2_error *err, const char *what, const char *kind, int64_t i, float x)
{
    char shown[T2_SHOW];
    return t2_fail(err, T2_ERR_NUMERIC, "%s: component %lld of %s is %g, which is not finite",
                   t2_show(shown, what), (long long)i, kind, (double)x);
}

/* All finite, and not all zero (unless nothing else was to be had, the matrix being zero). */
static t2_status check(int64_t r, const float *x, int may_be_zero, const char *kind,
                       const char *what, t2_error *err)
{
    int all_zero = r > 0;
    for (int64_t i = 0; i < r; i++) {
        if (!isfinite(x[i])) {
            return fail_value(err, what, kind, i, x[i]);
        }
        all_zero = all_zero && x[i] == 0.0f;
    }
    if (all_zero && !may_be_zero) {
        char shown[T2_SHOW];
        return t2_fail(err, T2_ERR_NUMERIC, "%s: all %lld %s are zero", t2_show(shown, what),
                       (long long)r, kind);
    }
    return T2_OK;
}

t2_status t2_scales_normalise(int64_t r, const float *S, const float *a, float *z, double *c,
                              const char *what, t2_error *err)
{
    double sum = 0.0, scaled = 0.0, factor = 1.0;
    for (int64_t i = 0; S != NULL && i < r; i++) {
        sum += (double)S[i];
        scaled += (double)S[i] * (double)a[i]; /* exact in double */
    }
    if (S != NULL) {
        if (!(scaled > T2_SCALE_EPSILON * sum)) {
            char shown[T2_SHOW];
            return t2_fail(err, T2_ERR_NUMERIC,
                           "%s: the scaled singular values sum to %g, expected more than %g of "
                           "their sum %g",
                           t2_show(shown, what), scaled, T2_SCALE_EPSILON, sum);
        }
        factor = sum / scaled;
    }
    for (int64_t i = 0; i < r; i++) {
        z[i] = (float)(factor * (double)a[i]);
    }
    *c = factor;
    return check(r, z, 0, "scales", what, err);
}

/* a (r) of a form with a squash that has one. */
static t2_status squash(const t2_expert_form *form, int64_t r, const float *p, float *a)
{
    if (form->squash == T2_SQUASH_IDENTITY) {
        for (int64_t i = 0; i < r; i++) {
            a[i] = p[i];
        }
        return T2_OK;
    }
    for (int64_t i = 0; i < r; i++) {
        a[i] = -p[i];
    }
    if (t2k_exp(r, a, a) != T2K_OK) {
        return T2_ERR_ISA;
    }
    for (int64_t i = 0; i < r; i++) {
        a[i] = form->max_mult / (1.0f + a[i]);
    }
    return T2_OK;
}

static t2_status relu_delta(float strength, int64_t r, const float *S, const float *p,
                            float *scaled, float *z, const char *what, t2_error *err)
{
    int zero = 1;
    for (int64_t i = 0; i < r; i++) {
        zero = zero && S[i] == 0.0f;
        float moved = fmaf(strength, p[i], S[i]);
        scaled[i] = moved > 0.0f ? moved : moved <= 0.0f ? 0.0f : moved; /* NaN stays */
        z[i] = S[i] > 0.0f ? scaled[i] / S[i] : 1.0f;
    }
    t2_status status = check(r, scaled, zero, "scaled singular values", what, err);
    for (int64_t i = 0; status == T2_OK && i < r; i++) {
        status = isfinite(z[i]) ? T2_OK : fail_value(err, what, "scales", i, z[i]);
    }
    return status;
}

static t2_status compute(const t2_expert_form *form, int64_t r, const float *S, const float *p,
                         float *scaled, float *z, float *a, double *c, const char *what,
                         t2_error *err)
{
    t2_status status = T2_OK;
    *c = 1.0;
    if (p == NULL) {
        for (int64_t i = 0; i < r; i++) {
            a[i] = z[i] = 1.0f;
            scaled[i] = S != NULL ? S[i] : 1.0f;
        }
        return T2_OK;
    }
    if (form->squash == T2_SQUASH_RELU_DELTA) {
        status = relu_delta(form->strength, r, S, p, scaled, z, what, err);
        for (int64_t i = 0; i < r; i++) {
            a[i] = z[i];
        }
        return status;
    }
    status = squash(form, r, p, a);
    if (status != T2_OK) {
        return t2_fail(err, status, "%s", t2k_isa_error());
    }
    status = check(r, a, 0, "scales", what, err);
    if (status == T2_OK) {
        status = t2_scales_normalise(r, form->normalise ? S : NULL, a, z, c, what, err);
    }
    for (int64_t i = 0; i < r; i++) {
        scaled[i] = S != NULL ? S[i] * z[i] : z[i];
    }
    for (int64_t i = 0; status == T2_OK && i < r; i++) {
        status = isfinite(scaled[i])
                     ? T2_OK
                     : fail_value(err, what, "scaled singular values", i, scaled[i]);
    }
    return status;
}

t2_status t2_scales(const t2_expert_form *form, int64_t r, const float *S, const float *p,
                    float *scaled, float *z, float *a, double *c, const char *what, t2_error *err)
{
    float *room = malloc((size_t)(r > 0 ? r : 1) * 3 * sizeof room[0]);
    double factor;
    if (room == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for %lld scales", (long long)r);
    }
    t2_status status =
        compute(form, r, S, p, scaled != NULL ? scaled : room, z != NULL ? z : room + r,
                a != NULL ? a : room + 2 * r, c != NULL ? c : &factor, what, err);
    free(room);
    return status;
}
