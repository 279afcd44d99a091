/* Experts in memory: made from copies, checked once, counted by references. */
#include "svf/expert.h"

#include "io/error.h"
#include "io/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- making --------------------------------------------------------------------------------- */

static t2_status check_form(const t2_expert_form *form, t2_error *err)
{
    if (form->kind != T2_EXPERT_SVF && form->kind != T2_EXPERT_CHANNEL) {
        return t2_fail(err, T2_ERR_ARG, "kind %d of an expert is unknown", (int)form->kind);
    }
    if (form->squash < T2_SQUASH_SIGMOID || form->squash > T2_SQUASH_RELU_DELTA) {
        return t2_fail(err, T2_ERR_ARG, "squash %d of an expert is unknown", (int)form->squash);
    }
    if (form->kind == T2_EXPERT_CHANNEL &&
        (form->squash == T2_SQUASH_RELU_DELTA || form->normalise)) {
        return t2_fail(err, T2_ERR_ARG, "a CHANNEL expert has no normaliser and no relu-delta");
    }
    if (form->squash == T2_SQUASH_RELU_DELTA && form->normalise) {
        return t2_fail(err, T2_ERR_ARG, "relu-delta has no normaliser");
    }
    if (!(form->max_mult > 0.0f) || !isfinite(form->max_mult) || !isfinite(form->strength)) {
        return t2_fail(err, T2_ERR_ARG,
                       "max_mult %g must be positive and finite, strength %g finite",
                       (double)form->max_mult, (double)form->strength);
    }
    return T2_OK;
}

static t2_status check_vector(const t2_expert_vector *vector, t2_error *err)
{
    char shown[T2_SHOW];
    if (vector->name == NULL || vector->size < 0 || (vector->size > 0 && vector->p == NULL)) {
        return t2_fail(err, T2_ERR_ARG, "a vector of an expert has no name or no values");
    }
    for (int64_t i = 0; i < vector->size; i++) {
        if (!isfinite(vector->p[i])) {
            return t2_fail(err, T2_ERR_NUMERIC, "%s: value %lld is %g, expected a finite one",
                           t2_show(shown, vector->name), (long long)i, (double)vector->p[i]);
        }
    }
    return T2_OK;
}

static int is_hash(const char *text)
{
    return text[0] == '\0' || (strlen(text) == T2_HASH_CHARS - 1 &&
                               strspn(text, "0123456789abcdef") == T2_HASH_CHARS - 1);
}

static t2_status check_args(const t2_expert_args *args, t2_error *err)
{
    if (args->size != sizeof *args) {
        return t2_fail(err, T2_ERR_ARG, "t2_expert_args.size is not that of this version");
    }
    if (args->count < 0 || (args->count > 0 && args->vectors == NULL) ||
        (args->metadata_count > 0 && args->metadata == NULL)) {
        return t2_fail(err, T2_ERR_ARG, "vectors or metadata of an expert are missing");
    }
    t2_status status = check_form(&args->form, err);
    for (int64_t i = 0; i < args->count && status == T2_OK; i++) {
        status = check_vector(&args->vectors[i], err);
    }
    if (status == T2_OK && ((args->factors_hash != NULL && !is_hash(args->factors_hash)) ||
                            (args->base_hash != NULL && !is_hash(args->base_hash)))) {
        status = t2_fail(err, T2_ERR_ARG, "a hash is not 64 hexadecimal digits");
    }
    if (status == T2_OK && args->form.kind == T2_EXPERT_SVF &&
        (args->factors_hash == NULL || args->factors_hash[0] == '\0')) {
        status = t2_fail(err, T2_ERR_ARG, "an SVF expert needs the hash of its factors");
    }
    for (size_t i = 0; i < args->metadata_count && status == T2_OK; i++) {
        if (strncmp(args->metadata[i].key, "t2.", 3) == 0) {
            char shown[T2_SHOW];
            status = t2_fail(err, T2_ERR_ARG, "metadata key %s: names beginning with t2. are taken",
                             t2_show(shown, args->metadata[i].key));
        }
    }
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const t2_expert_vector *)a)->name, ((const t2_expert_vector *)b)->name);
}

/* Copies a string into the block at *next. */
static const char *keep(char **next, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = memcpy(*next, text, n);
    *next += n;
    return copy;
}

static int allocate(t2_expert *made, const t2_expert_args *args, const char *name)
{
    size_t chars = strlen(name) + 1, values = 0;
    for (int64_t i = 0; i < args->count; i++) {
        chars += strlen(args->vectors[i].name) + 1;
        values += (size_t)args->vectors[i].size;
    }
    for (size_t i = 0; i < args->metadata_count; i++) {
        chars += strlen(args->metadata[i].key) + strlen(args->metadata[i].value) + 2;
    }
    made->vectors = malloc(((size_t)args->count + 1) * sizeof made->vectors[0]);
    made->pairs = malloc((args->metadata_count + 1) * sizeof made->pairs[0]);
    made->strings = malloc(chars);
    made->values = malloc((values + 1) * sizeof made->values[0]);
    made->bytes = sizeof *made + ((size_t)args->count + 1) * sizeof made->vectors[0] +
                  (args->metadata_count + 1) * sizeof made->pairs[0] + chars +
                  (values + 1) * sizeof made->values[0];
    return made->vectors != NULL && made->pairs != NULL && made->strings != NULL &&
           made->values != NULL;
}

static void fill(t2_expert *made, const t2_expert_args *args, const char *name)
{
    char *next = made->strings;
    float *values = made->values;
    made->name = next;
    keep(&next, name);
    made->count = args->count;
    for (int64_t i = 0; i < args->count; i++) {
        const t2_expert_vector *from = &args->vectors[i];
        if (from->size > 0) {
            memcpy(values, from->p, (size_t)from->size * sizeof values[0]);
        }
        made->vectors[i] = (t2_expert_vector){keep(&next, from->name), from->size, values};
        values += from->size;
    }
    made->pair_count = args->metadata_count;
    for (size_t i = 0; i < args->metadata_count; i++) {
        made->pairs[i].key = keep(&next, args->metadata[i].key);
        made->pairs[i].value = keep(&next, args->metadata[i].value);
    }
    qsort(made->vectors, (size_t)made->count, sizeof made->vectors[0], by_name);
}

t2_status t2_expert_create(const t2_expert_args *args, t2_expert **expert, t2_error *err)
{
    if (args == NULL || expert == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no description or no place for the expert");
    }
    t2_status status = check_args(args, err);
    if (status != T2_OK) {
        return status;
    }
    const char *name = args->name != NULL ? args->name : "";
    t2_expert *made = calloc(1, sizeof *made);
    if (made == NULL || !allocate(made, args, name)) {
        t2_expert_release(made);
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
    }
    atomic_init(&made->references, 1);
    made->form = args->form;
    strcpy(made->factors_hash, args->factors_hash != NULL ? args->factors_hash : "");
    strcpy(made->base_hash, args->base_hash != NULL ? args->base_hash : "");
    fill(made, args, name);
    for (int64_t i = 1; i < made->count; i++) {
        if (strcmp(made->vectors[i - 1].name, made->vectors[i].name) == 0) {
            char shown[T2_SHOW];
            status = t2_fail(err, T2_ERR_ARG, "%s occurs twice in an expert",
                             t2_show(shown, made->vectors[i].name));
            t2_expert_release(made);
            return status;
        }
    }
    *expert = made;
    return T2_OK;
}

t2_expert *t2_expert_retain(t2_expert *expert)
{
    if (expert != NULL) {
        atomic_fetch_add_explicit(&expert->references, 1, memory_order_relaxed);
    }
    return expert;
}

void t2_expert_release(t2_expert *expert)
{
    /* A half-made expert has no reference yet. */
    if (expert == NULL ||
        atomic_fetch_sub_explicit(&expert->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    free(expert->vectors);
    free(expert->pairs);
    free(expert->strings);
    free(expert->values);
    free(expert);
}

/* ---- looking -------------------------------------------------------------------------------- */

const char *t2_expert_name(const t2_expert *expert)
{
    return expert->name;
}

const t2_expert_form *t2_expert_get_form(const t2_expert *expert)
{
    return &expert->form;
}

const char *t2_expert_factors_hash(const t2_expert *expert)
{
    return expert->factors_hash;
}

const char *t2_expert_base_hash(const t2_expert *expert)
{
    return expert->base_hash;
}

int64_t t2_expert_count(const t2_expert *expert)
{
    return expert->count;
}

const t2_expert_vector *t2_expert_get(const t2_expert *expert, int64_t index)
{
    return index >= 0 && index < expert->count ? &expert->vectors[index] : NULL;
}

const t2_expert_vector *t2_expert_find(const t2_expert *expert, const char *name)
{
    t2_expert_vector wanted = {name, 0, NULL};
    return bsearch(&wanted, expert->vectors, (size_t)expert->count, sizeof wanted, by_name);
}

size_t t2_expert_metadata_count(const t2_expert *expert)
{
    return expert->pair_count;
}

const t2_pair *t2_expert_metadata(const t2_expert *expert, size_t index)
{
    return index < expert->pair_count ? &expert->pairs[index] : NULL;
}

size_t t2_expert_bytes(const t2_expert *expert)
{
    return expert->bytes;
}

/* ---- with factors --------------------------------------------------------------------------- */

t2_status t2_expert_check(const t2_expert *expert, const t2_factors *factors, t2_error *err)
{
    char name[T2_SHOW], path[T2_SHOW], vector_name[T2_SHOW];
    t2_show(name, expert->name);
    t2_show(path, t2_factors_path(factors));
    if (expert->form.kind != T2_EXPERT_SVF) {
        return T2_OK;
    }
    for (int64_t i = 0; i < expert->count; i++) {
        const t2_expert_vector *vector = &expert->vectors[i];
        int64_t index = t2_factors_find(factors, vector->name);
        if (index < 0) {
            return t2_fail(err, T2_ERR_FORMAT, "expert '%.60s': %.120s has no matrix %.120s", name,
                           path, t2_show(vector_name, vector->name));
        }
        if (t2_factors_get(factors, index)->r != vector->size) {
            return t2_fail(err, T2_ERR_FORMAT,
                           "expert '%.60s': %.120s: expected %lld values, the rank in %.120s, "
                           "found %lld",
                           name, t2_show(vector_name, vector->name),
                           (long long)t2_factors_get(factors, index)->r, path,
                           (long long)vector->size);
        }
    }
    const char *hash = t2_factors_hash(factors), *base = t2_factors_base_hash(factors);
    if (strcmp(expert->base_hash, base) != 0 && expert->base_hash[0] != '\0') {
        return t2_fail(err, T2_ERR_FORMAT,
                       "expert '%.60s' was made for other weights: %s, those of %.120s are %s",
                       name, expert->base_hash, path, base);
    }
    if (strcmp(expert->factors_hash, hash) != 0) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "expert '%.60s' was made for other factors: %s, those of %.120s are %s",
                       name, expert->factors_hash, path, hash);
    }
    return T2_OK;
}

t2_status t2_expert_scales(const t2_expert *expert, const t2_factors *factors, int64_t index,
                           float *scaled, float *z, float *a, double *c, t2_error *err)
{
    const t2_factor *factor = t2_factors_get(factors, index);
    if (factor == NULL || expert->form.kind != T2_EXPERT_SVF) {
        return t2_fail(err, T2_ERR_ARG, "there is no matrix %lld, or the expert is no SVF expert",
                       (long long)index);
    }
    const t2_expert_vector *vector = t2_expert_find(expert, factor->name);
    if (vector != NULL && vector->size != factor->r) {
        return t2_expert_check(expert, factors, err);
    }
    return t2_scales(&expert->form, factor->r, factor->S, vector != NULL ? vector->p : NULL, scaled,
                     z, a, c, factor->name, err);
}
