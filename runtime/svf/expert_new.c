/* New experts: neutral ones, and random ones around them. */
#include "io/error.h"
#include "model/model.h"
#include "svf/expert.h"

#include <math.h>
#include <stdlib.h>

/* What a vector of this form holds where it changes nothing; NAN: that cannot be said. */
static double neutral(const t2_expert_form *form)
{
    switch (form->squash) {
    case T2_SQUASH_RELU_DELTA:
        return 0.0;
    case T2_SQUASH_IDENTITY:
        return 1.0;
    case T2_SQUASH_SIGMOID:
        /* With the normaliser any value that is the same everywhere is neutral, 0 among them. */
        return form->normalise || form->max_mult == 2.0f ? 0.0 : NAN;
    }
    return NAN;
}

static void fill(const t2_expert_form *form, double deviation, uint64_t seed, const char *name,
                 int64_t size, float *p)
{
    t2_random random = t2_random_key(seed, name, 0);
    double start = neutral(form);
    for (int64_t i = 0; i < size; i++) {
        const uint32_t counter[4] = {(uint32_t)i, (uint32_t)((uint64_t)i >> 32), 0, 0};
        uint32_t words[4];
        t2k_philox4x32(counter, random.key, words);
        p[i] = (float)(start + (deviation > 0.0 ? deviation * t2_random_normal(words) : 0.0));
    }
}

t2_status t2_expert_new(const t2_expert_form *form, const char *name, const t2_factors *factors,
                        const t2_model *model, double deviation, uint64_t seed, t2_expert **expert,
                        t2_error *err)
{
    int svf = form != NULL && form->kind == T2_EXPERT_SVF;
    if (form == NULL || expert == NULL || (svf ? factors == NULL : model == NULL) ||
        !(deviation >= 0.0) || !isfinite(deviation)) {
        return t2_fail(err, T2_ERR_ARG,
                       "form, factors (or model), deviation or place of a new expert");
    }
    if (isnan(neutral(form))) {
        return t2_fail(err, T2_ERR_ARG, "a sigmoid without normaliser starts from max_mult 2");
    }
    int64_t count = svf ? t2_factors_count(factors) : t2_model_linear_count(model), total = 0;
    t2_expert_vector *vectors = calloc((size_t)count + 1, sizeof vectors[0]);
    t2_spec *specs = calloc((size_t)count + 1, sizeof specs[0]);
    t2_status status = T2_OK;
    if (vectors == NULL || specs == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
    }
    int64_t used = 0;
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        if (svf) {
            const t2_factor *f = t2_factors_get(factors, i);
            if (f->r == 0 || f->S[0] == 0.0f) { /* nothing to scale, and no sum to keep */
                continue;
            }
            vectors[used].name = f->name;
            vectors[used].size = f->r;
        } else {
            t2_model_linear_spec(model, i, &specs[i]);
            vectors[used].name = specs[i].name;
            vectors[used].size = t2_model_linear(model, i)->out;
        }
        total += vectors[used++].size;
    }
    float *values = status == T2_OK ? t2_alloc(total, sizeof values[0]) : NULL, *next = values;
    if (status == T2_OK && values == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
    }
    for (int64_t i = 0; i < used && status == T2_OK; i++) {
        fill(form, deviation, seed, vectors[i].name, vectors[i].size, next);
        vectors[i].p = next;
        next += vectors[i].size;
    }
    if (status == T2_OK) {
        t2_expert_args args = {.size = sizeof args,
                               .name = name,
                               .form = *form,
                               .factors_hash = svf ? t2_factors_hash(factors) : NULL,
                               .base_hash = svf ? t2_factors_base_hash(factors) : NULL,
                               .vectors = vectors,
                               .count = used};
        status = t2_expert_create(&args, expert, err);
    }
    free(vectors);
    free(specs);
    free(values);
    return status;
}
