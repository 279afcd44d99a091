/* Mixtures of experts, matrix by matrix, in double and in the order of the experts. */
#include "io/error.h"
#include "io/text.h"
#include "svf/expert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int t2_mix_normalises(t2_mix_rule rule)
{
    return rule == T2_MIX_A || rule == T2_MIX_RAW;
}

/* What a rule sums of expert k: z - 1, z, a or p. */
static t2_status part(t2_mix_rule rule, const t2_expert_form *form, const float *p, int64_t r,
                      const float *S, float *out, const char *what, t2_error *err)
{
    if (rule == T2_MIX_RAW) {
        if (p == NULL) {
            char shown[T2_SHOW];
            return t2_fail(err, T2_ERR_ARG, "%s: an expert has no raw values to mix for it",
                           t2_show(shown, what));
        }
        memcpy(out, p, (size_t)r * sizeof out[0]);
        return T2_OK;
    }
    int wants_a = rule == T2_MIX_A;
    return t2_scales(form, r, S, p, NULL, wants_a ? NULL : out, wants_a ? out : NULL, NULL, what,
                     err);
}

/* z = max(0, z); where that cut anything off, the sum of the singular values is restored. */
static t2_status clamp(int64_t r, const float *S, double *z, const char *what, t2_error *err)
{
    double sum = 0.0, scaled = 0.0;
    int cut = 0;
    for (int64_t i = 0; i < r; i++) {
        cut = cut || z[i] < 0.0;
        z[i] = z[i] < 0.0 ? 0.0 : z[i];
        sum += S != NULL ? (double)S[i] : 1.0;
        scaled += (S != NULL ? (double)S[i] : 1.0) * z[i];
    }
    if (!cut) {
        return T2_OK;
    }
    if (!(scaled > T2_SCALE_EPSILON * sum)) {
        char shown[T2_SHOW];
        return t2_fail(err, T2_ERR_NUMERIC, "%s: the mixture leaves nothing of the singular values",
                       t2_show(shown, what));
    }
    for (int64_t i = 0; i < r; i++) {
        z[i] = sum / scaled * z[i];
    }
    return T2_OK;
}

t2_status t2_mix_vector(t2_mix_rule rule, int64_t count, const t2_expert_form *const *forms,
                        const float *const *p, const double *alpha, int64_t r, const float *S,
                        float *stored, const char *what, t2_error *err)
{
    size_t room = (size_t)(r > 0 ? r : 1);
    double *sum = calloc(room, sizeof sum[0]);
    float *one = malloc(room * sizeof one[0]);
    t2_status status = T2_OK;
    if (sum == NULL || one == NULL) {
        status =
            t2_fail(err, T2_ERR_NOMEM, "out of memory for a mixture of %lld scales", (long long)r);
    }
    double offset = rule == T2_MIX_DELTA ? 1.0 : 0.0;
    for (int64_t k = 0; k < count && status == T2_OK; k++) {
        status = part(rule, forms[k], p[k], r, S, one, what, err);
        for (int64_t i = 0; i < r && status == T2_OK; i++) {
            sum[i] += alpha[k] * ((double)one[i] - offset);
        }
    }
    for (int64_t i = 0; i < r && status == T2_OK; i++) {
        sum[i] += offset;
    }
    if (status == T2_OK && rule == T2_MIX_DELTA) {
        status = clamp(r, S, sum, what, err);
    }
    for (int64_t i = 0; i < r && status == T2_OK; i++) {
        stored[i] = (float)sum[i];
    }
    if (status == T2_OK) {
        /* The same checks as for any expert, made where the mixture is. */
        t2_expert_form form = {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f,
                               t2_mix_normalises(rule)};
        status = t2_scales(&form, r, S, stored, NULL, NULL, NULL, NULL, what, err);
    }
    free(sum);
    free(one);
    return status;
}

/* ---- whole experts -------------------------------------------------------------------------- */

/* Distinct names of the vectors of all experts. */
struct names {
    const t2_expert_vector **entries; /* one with that name each */
    int64_t count;
};

static int by_name(const void *a, const void *b)
{
    const t2_expert_vector *x = *(const t2_expert_vector *const *)a;
    const t2_expert_vector *y = *(const t2_expert_vector *const *)b;
    return strcmp(x->name, y->name);
}

static t2_status collect(const t2_expert *const *experts, int64_t count, struct names *names,
                         t2_error *err)
{
    int64_t total = 0;
    for (int64_t k = 0; k < count; k++) {
        total += experts[k]->count;
    }
    names->entries = malloc((size_t)(total > 0 ? total : 1) * sizeof names->entries[0]);
    if (names->entries == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    int64_t n = 0, distinct = 0;
    for (int64_t k = 0; k < count; k++) {
        for (int64_t i = 0; i < experts[k]->count; i++) {
            names->entries[n++] = &experts[k]->vectors[i];
        }
    }
    qsort(names->entries, (size_t)n, sizeof names->entries[0], by_name);
    for (int64_t i = 0; i < n; i++) {
        if (distinct > 0 &&
            strcmp(names->entries[distinct - 1]->name, names->entries[i]->name) == 0) {
            if (names->entries[distinct - 1]->size != names->entries[i]->size) {
                char shown[T2_SHOW];
                return t2_fail(err, T2_ERR_FORMAT, "%s: the experts hold %lld and %lld values",
                               t2_show(shown, names->entries[i]->name),
                               (long long)names->entries[distinct - 1]->size,
                               (long long)names->entries[i]->size);
            }
            continue;
        }
        names->entries[distinct++] = names->entries[i];
    }
    names->count = distinct;
    return T2_OK;
}

static t2_status check_alpha(const double *alpha, int64_t n, t2_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs(alpha[i]) <= T2_MIX_LIMIT)) {
            return t2_fail(err, T2_ERR_ARG, "weight %lld of the mixture is %g: expected -%g to %g",
                           (long long)i, alpha[i], T2_MIX_LIMIT, T2_MIX_LIMIT);
        }
    }
    return T2_OK;
}

static t2_status check_mixture(const t2_factors *factors, t2_mix_rule rule,
                               const t2_expert *const *experts, int64_t count, t2_error *err)
{
    for (int64_t k = 0; k < count; k++) {
        if (experts[k]->form.kind != experts[0]->form.kind) {
            return t2_fail(err, T2_ERR_ARG, "an SVF and a CHANNEL expert cannot be mixed");
        }
        if (experts[k]->form.kind == T2_EXPERT_CHANNEL) {
            if (rule != T2_MIX_ZEFF) {
                return t2_fail(err, T2_ERR_ARG, "CHANNEL experts mix by the rule zeff only");
            }
            continue;
        }
        if (factors == NULL) {
            return t2_fail(err, T2_ERR_ARG, "SVF experts are mixed with their factors at hand");
        }
        t2_status status = t2_expert_check(experts[k], factors, err);
        if (status != T2_OK) {
            return status;
        }
    }
    return T2_OK;
}

struct mixture {
    const t2_factors *factors;
    t2_mix_rule rule;
    const t2_expert *const *experts;
    int64_t count;
    const double *alpha;
    int per_matrix;
    int64_t columns; /* of alpha: matrices of the factors */
};

/* Everything of the mixture that belongs to one name. */
static t2_status mix_one(const struct mixture *mix, const t2_expert_vector *entry, float *stored,
                         t2_error *err)
{
    size_t n = (size_t)mix->count;
    const t2_expert_form **forms = malloc(n * sizeof forms[0]);
    const float **p = malloc(n * sizeof p[0]);
    double *alpha = malloc(n * sizeof alpha[0]);
    t2_status status = T2_OK;
    if (forms == NULL || p == NULL || alpha == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    int svf = mix->experts[0]->form.kind == T2_EXPERT_SVF;
    int64_t index = svf ? t2_factors_find(mix->factors, entry->name) : 0;
    for (int64_t k = 0; k < mix->count && status == T2_OK; k++) {
        const t2_expert_vector *vector = t2_expert_find(mix->experts[k], entry->name);
        forms[k] = &mix->experts[k]->form;
        p[k] = vector != NULL ? vector->p : NULL;
        alpha[k] = mix->alpha[mix->per_matrix ? k * mix->columns + index : k];
    }
    if (status == T2_OK) {
        const float *S = svf ? t2_factors_get(mix->factors, index)->S : NULL;
        status = t2_mix_vector(mix->rule, mix->count, forms, p, alpha, entry->size, S, stored,
                               entry->name, err);
    }
    free(forms);
    free(p);
    free(alpha);
    return status;
}

static t2_status make(const struct mixture *mix, const struct names *names, const char *name,
                      t2_expert **mixed, t2_error *err)
{
    int64_t total = 0;
    for (int64_t i = 0; i < names->count; i++) {
        total += names->entries[i]->size;
    }
    float *values = malloc((size_t)(total > 0 ? total : 1) * sizeof values[0]);
    t2_expert_vector *vectors = calloc((size_t)names->count + 1, sizeof vectors[0]);
    t2_status status = T2_OK;
    if (values == NULL || vectors == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for a mixture");
    }
    float *next = values;
    for (int64_t i = 0; i < names->count && status == T2_OK; i++) {
        vectors[i] = (t2_expert_vector){names->entries[i]->name, names->entries[i]->size, next};
        status = mix_one(mix, names->entries[i], next, err);
        next += names->entries[i]->size;
    }
    if (status == T2_OK) {
        t2_expert_args args = {.size = sizeof args,
                               .name = name,
                               .form = {mix->experts[0]->form.kind, T2_SQUASH_IDENTITY, 1.0f, 1.0f,
                                        t2_mix_normalises(mix->rule)},
                               .factors_hash = mix->experts[0]->factors_hash,
                               .base_hash = mix->experts[0]->base_hash,
                               .vectors = vectors,
                               .count = names->count};
        status = t2_expert_create(&args, mixed, err);
    }
    free(values);
    free(vectors);
    return status;
}

t2_status t2_expert_mix(const t2_factors *factors, t2_mix_rule rule,
                        const t2_expert *const *experts, int64_t count, const double *alpha,
                        int per_matrix, const char *name, t2_expert **mixed, t2_error *err)
{
    if (experts == NULL || count < 1 || alpha == NULL || mixed == NULL) {
        return t2_fail(err, T2_ERR_ARG, "experts, weights or the place of the mixture are missing");
    }
    if (rule < T2_MIX_ZEFF || rule > T2_MIX_RAW) {
        return t2_fail(err, T2_ERR_ARG, "rule %d of a mixture is unknown", (int)rule);
    }
    t2_status status = check_mixture(factors, rule, experts, count, err);
    if (status == T2_OK && per_matrix && experts[0]->form.kind != T2_EXPERT_SVF) {
        return t2_fail(err, T2_ERR_ARG, "weights for each matrix are for SVF experts");
    }
    int64_t columns = per_matrix ? t2_factors_count(factors) : 1;
    if (status == T2_OK) {
        status = check_alpha(alpha, count * columns, err);
    }
    struct names names = {NULL, 0};
    if (status == T2_OK) {
        status = collect(experts, count, &names, err);
    }
    if (status == T2_OK) {
        struct mixture mix = {factors, rule, experts, count, alpha, per_matrix, columns};
        status = make(&mix, &names, name, mixed, err);
    }
    free(names.entries);
    return status;
}

t2_status t2_expert_scale(const t2_expert *expert, const t2_factors *factors, double factor,
                          const char *name, t2_expert **scaled, t2_error *err)
{
    if (expert == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no expert to scale");
    }
    /* 1 + factor (z - 1) = factor z + (1 - factor) 1: a mixture with an expert that changes
     * nothing. CHANNEL scales are no sums to keep, so ZEFF serves both kinds. */
    t2_expert_args args = {.size = sizeof args,
                           .name = "base",
                           .form = {expert->form.kind, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0},
                           .factors_hash = expert->factors_hash,
                           .base_hash = expert->base_hash};
    t2_expert *base;
    t2_status status = t2_expert_create(&args, &base, err);
    if (status == T2_OK) {
        const t2_expert *both[2] = {expert, base};
        const double alpha[2] = {factor, 1.0 - factor};
        status = t2_expert_mix(factors, T2_MIX_ZEFF, both, 2, alpha, 0, name, scaled, err);
        t2_expert_release(base);
    }
    return status;
}
