/* Expert files: safetensors with a vector of floats per matrix and, as metadata, how to read them
 * and what they belong to (docs/experts.md has the list of keys). */
#include "io/error.h"
#include "io/text.h"
#include "svf/expert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION "1"

/* ---- reading -------------------------------------------------------------------------------- */

static t2_status fail_key(const t2_safetensors *file, const char *key, const char *expected,
                          t2_error *err)
{
    char path[T2_SHOW], found[T2_SHOW];
    const char *value = t2_safetensors_metadata_find(file, key);
    return t2_fail(err, T2_ERR_FORMAT, "%.200s: metadata %s: expected %s, found %.80s",
                   t2_show(path, t2_safetensors_path(file)), key, expected,
                   value != NULL ? t2_show(found, value) : "nothing");
}

/* Index of a key's value among `names` (ended by NULL), -1 with an error. */
static int choose(const t2_safetensors *file, const char *key, const char *const *names,
                  const char *expected, t2_error *err)
{
    const char *value = t2_safetensors_metadata_find(file, key);
    for (int i = 0; value != NULL && names[i] != NULL; i++) {
        if (strcmp(names[i], value) == 0) {
            return i;
        }
    }
    fail_key(file, key, expected, err);
    return -1;
}

static t2_status number(const t2_safetensors *file, const char *key, float *value, t2_error *err)
{
    const char *text = t2_safetensors_metadata_find(file, key);
    char *end;
    if (text == NULL) {
        *value = 1.0f;
        return T2_OK;
    }
    *value = strtof(text, &end);
    if (*text == '\0' || *end != '\0' || strspn(text, "0123456789+-.eE") != strlen(text) ||
        !isfinite(*value)) {
        return fail_key(file, key, "a finite number", err);
    }
    return T2_OK;
}

static t2_status read_form(const t2_safetensors *file, t2_expert_form *form, t2_error *err)
{
    static const char *const kinds[] = {"SVF", "CHANNEL", NULL};
    static const char *const squashes[] = {"sigmoid", "identity", "relu-delta", NULL};
    static const char *const switches[] = {"off", "on", NULL};
    const char *version = t2_safetensors_metadata_find(file, "t2.version");
    const char *type = t2_safetensors_metadata_find(file, "t2.kind");
    if (type == NULL || strcmp(type, "expert") != 0) {
        return fail_key(file, "t2.kind", "expert", err);
    }
    if (version == NULL || strcmp(version, VERSION) != 0) {
        return fail_key(file, "t2.version", VERSION, err);
    }
    int kind = choose(file, "t2.expert", kinds, "SVF or CHANNEL", err);
    int squash =
        kind < 0 ? -1 : choose(file, "t2.squash", squashes, "sigmoid, identity or relu-delta", err);
    int normalise = squash < 0 ? -1 : choose(file, "t2.normaliser", switches, "on or off", err);
    if (normalise < 0) {
        return T2_ERR_FORMAT;
    }
    form->kind = (t2_expert_kind)kind;
    form->squash = (t2_squash)squash;
    form->normalise = normalise;
    t2_status status = number(file, "t2.max_mult", &form->max_mult, err);
    return status == T2_OK ? number(file, "t2.strength", &form->strength, err) : status;
}

static t2_status read_vectors(t2_safetensors *file, t2_expert_vector *vectors, t2_error *err)
{
    t2_status status = T2_OK;
    for (size_t i = 0; i < t2_safetensors_count(file) && status == T2_OK; i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        if (tensor->dtype != T2_F32 || tensor->rank != 1) {
            char path[T2_SHOW], name[T2_SHOW];
            return t2_fail(err, T2_ERR_FORMAT,
                           "%.200s: tensor %.120s: expected F32 of one dimension, found %s of %d",
                           t2_show(path, t2_safetensors_path(file)), t2_show(name, tensor->name),
                           t2_dtype_name(tensor->dtype), tensor->rank);
        }
        vectors[i].name = tensor->name;
        vectors[i].size = tensor->shape[0];
        status = t2_safetensors_f32(file, tensor, &vectors[i].p, err);
    }
    return status;
}

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static t2_status read_expert(t2_safetensors *file, t2_expert_vector *vectors, t2_pair *pairs,
                             t2_expert **expert, t2_error *err)
{
    t2_expert_args args = {.size = sizeof args, .vectors = vectors, .metadata = pairs};
    t2_error inner = {T2_OK, ""};
    char path[T2_SHOW];
    t2_status status = read_form(file, &args.form, err);
    if (status == T2_OK) {
        status = read_vectors(file, vectors, err);
    }
    if (status != T2_OK) {
        return status;
    }
    args.count = (int64_t)t2_safetensors_count(file);
    args.name = or_empty(t2_safetensors_metadata_find(file, "t2.name"));
    args.factors_hash = or_empty(t2_safetensors_metadata_find(file, "t2.factors"));
    args.base_hash = or_empty(t2_safetensors_metadata_find(file, "t2.base"));
    for (size_t i = 0; i < t2_safetensors_metadata_count(file); i++) {
        const t2_pair *pair = t2_safetensors_metadata(file, i);
        if (strncmp(pair->key, "t2.", 3) != 0) {
            pairs[args.metadata_count++] = *pair;
        }
    }
    status = t2_expert_create(&args, expert, &inner);
    if (status == T2_ERR_ARG || status == T2_ERR_NUMERIC) {
        return t2_fail(err, T2_ERR_FORMAT, "%.200s: %s", t2_show(path, t2_safetensors_path(file)),
                       inner.message);
    }
    return status == T2_OK ? T2_OK : t2_fail(err, status, "%s", inner.message);
}

t2_status t2_expert_open(const char *path, t2_expert **expert, t2_error *err)
{
    if (path == NULL || expert == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no file or no place for the expert");
    }
    t2_safetensors *file;
    t2_status status = t2_safetensors_open(path, T2_SAFETENSORS_NO_MMAP, &file, err);
    if (status != T2_OK) {
        return status;
    }
    t2_expert_vector *vectors = calloc(t2_safetensors_count(file) + 1, sizeof vectors[0]);
    t2_pair *pairs = calloc(t2_safetensors_metadata_count(file) + 1, sizeof pairs[0]);
    if (vectors == NULL || pairs == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
    } else {
        status = read_expert(file, vectors, pairs, expert, err);
    }
    free(vectors);
    free(pairs);
    t2_safetensors_close(file);
    return status;
}

/* ---- writing -------------------------------------------------------------------------------- */

enum { OWN_PAIRS = 10 };

/* A float so that it reads back as itself. */
static const char *float_text(char text[32], float x)
{
    snprintf(text, 32, "%.9g", (double)x);
    return text;
}

static size_t own_pairs(const t2_expert *expert, t2_pair *pairs, char numbers[2][32])
{
    const t2_expert_form *form = &expert->form;
    size_t n = 0;
    pairs[n++] = (t2_pair){"t2.kind", "expert"};
    pairs[n++] = (t2_pair){"t2.version", VERSION};
    pairs[n++] = (t2_pair){"t2.name", expert->name};
    pairs[n++] = (t2_pair){"t2.expert", form->kind == T2_EXPERT_SVF ? "SVF" : "CHANNEL"};
    pairs[n++] = (t2_pair){"t2.squash", t2_squash_str(form->squash)};
    pairs[n++] = (t2_pair){"t2.normaliser", form->normalise ? "on" : "off"};
    if (form->squash == T2_SQUASH_SIGMOID) {
        pairs[n++] = (t2_pair){"t2.max_mult", float_text(numbers[0], form->max_mult)};
    }
    if (form->squash == T2_SQUASH_RELU_DELTA) {
        pairs[n++] = (t2_pair){"t2.strength", float_text(numbers[1], form->strength)};
    }
    if (expert->factors_hash[0] != '\0') {
        pairs[n++] = (t2_pair){"t2.factors", expert->factors_hash};
    }
    if (expert->base_hash[0] != '\0') {
        pairs[n++] = (t2_pair){"t2.base", expert->base_hash};
    }
    return n;
}

t2_status t2_expert_write(const t2_expert *expert, const char *path, t2_error *err)
{
    if (expert == NULL || path == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no expert or no file to write");
    }
    t2_tensor *tensors = calloc((size_t)expert->count + 1, sizeof tensors[0]);
    t2_pair *pairs = calloc(OWN_PAIRS + expert->pair_count, sizeof pairs[0]);
    char numbers[2][32];
    t2_status status = T2_OK;
    if (tensors == NULL || pairs == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
    } else {
        size_t n = own_pairs(expert, pairs, numbers);
        if (expert->pair_count > 0) {
            memcpy(pairs + n, expert->pairs, expert->pair_count * sizeof pairs[0]);
        }
        for (int64_t i = 0; i < expert->count; i++) {
            const t2_expert_vector *vector = &expert->vectors[i];
            tensors[i] =
                (t2_tensor){vector->name,  T2_F32,    1,
                            &vector->size, vector->p, (size_t)vector->size * sizeof vector->p[0]};
        }
        status = t2_safetensors_write(path, tensors, (size_t)expert->count, pairs,
                                      n + expert->pair_count, err);
    }
    free(tensors);
    free(pairs);
    return status;
}
