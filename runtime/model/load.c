/* Opening a model folder: every tensor is checked for name, type and shape before anything is
 * allocated for it, then the weights of the linear layers are packed once. */
#include "io/error.h"
#include "io/text.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- shared pieces ------------------------------------------------------------------------- */

void *t2_alloc(int64_t count, size_t size)
{
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) ||
        bytes > SIZE_MAX / 2 - T2K_ALIGN) {
        return NULL;
    }
    return aligned_alloc(T2K_ALIGN, (bytes / T2K_ALIGN + 1) * T2K_ALIGN);
}

char *t2_path_join(const char *dir, const char *file)
{
    size_t n = strlen(dir), m = strlen(file) + 2;
    char *path = malloc(n + m);
    if (path != NULL) {
        snprintf(path, n + m, "%s%s%s", dir, n > 0 && dir[n - 1] != '/' ? "/" : "", file);
    }
    return path;
}

t2_status t2_fail_kernel(t2_error *err, t2k_status status, const char *what)
{
    switch (status) {
    case T2K_ERR_ISA:
        if (t2k_isa_error()[0] != '\0') {
            return t2_fail(err, T2_ERR_ISA, "%s", t2k_isa_error());
        }
        return t2_fail(err, T2_ERR_ISA, "%s: packed for another instruction set", what);
    case T2K_ERR_NOMEM:
        return t2_fail(err, T2_ERR_NOMEM, "%s: out of memory", what);
    default:
        return t2_fail(err, T2_ERR_ARG, "%s: %s", what, t2k_status_str(status));
    }
}

/* ---- tensors ------------------------------------------------------------------------------- */

/* "F32 [768, 256]" */
static const char *describe(char *text, size_t size, const char *dtype, int rank,
                            const int64_t *shape)
{
    int used = snprintf(text, size, "%s [", dtype);
    for (int i = 0; i < rank && used > 0 && (size_t)used < size; i++) {
        used += snprintf(text + used, size - (size_t)used, "%s%lld", i > 0 ? ", " : "",
                         (long long)shape[i]);
    }
    if (used > 0 && (size_t)used < size) {
        snprintf(text + used, size - (size_t)used, "]");
    }
    return text;
}

/* Finds a tensor and checks its type and shape. */
static t2_status find_tensor(t2_safetensors *file, const t2_spec *spec, const t2_tensor **found,
                             t2_error *err)
{
    char path[T2_SHOW], expected[80], actual[120];
    const t2_tensor *tensor = t2_safetensors_find(file, spec->name);
    if (tensor == NULL) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: tensor %s is missing: expected %s",
                       t2_show(path, t2_safetensors_path(file)), spec->name,
                       describe(expected, sizeof expected, "F32", spec->rank, spec->shape));
    }
    if (tensor->dtype != T2_F32 || tensor->rank != spec->rank ||
        memcmp(tensor->shape, spec->shape, (size_t)spec->rank * sizeof spec->shape[0]) != 0) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: tensor %s: expected %s, found %s",
                       t2_show(path, t2_safetensors_path(file)), spec->name,
                       describe(expected, sizeof expected, "F32", spec->rank, spec->shape),
                       describe(actual, sizeof actual, t2_dtype_name(tensor->dtype), tensor->rank,
                                tensor->shape));
    }
    *found = tensor;
    return T2_OK;
}

t2_status t2_load_tensor(t2_safetensors *file, const t2_spec *spec, const float **data,
                         t2_error *err)
{
    const t2_tensor *tensor;
    t2_status status = find_tensor(file, spec, &tensor, err);
    return status == T2_OK ? t2_safetensors_f32(file, tensor, data, err) : status;
}

/* ---- packed weights ------------------------------------------------------------------------ */

t2_status t2_linear_pack(t2_linear *linear, int64_t in, int64_t out, const float *weight,
                         const float *bias, t2_error *err)
{
    if (t2k_init() != T2K_OK) {
        return t2_fail_kernel(err, T2K_ERR_ISA, "weights");
    }
    size_t bytes = t2k_packed_b_bytes(in, out);
    linear->in = in;
    linear->out = out;
    linear->weight = weight;
    linear->bias = bias;
    linear->packed = bytes > 0 && bytes < INT64_MAX ? t2_alloc((int64_t)bytes, 1) : NULL;
    if (linear->packed == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for a weight matrix (%lld, %lld)",
                       (long long)out, (long long)in);
    }
    t2k_status status = t2k_pack_b(T2K_TRANS, in, out, weight, in, linear->packed);
    return status == T2K_OK ? T2_OK : t2_fail_kernel(err, status, "packing weights");
}

void t2_linear_free(t2_linear *linear)
{
    free(linear->packed);
    linear->packed = NULL;
}

/* ---- model --------------------------------------------------------------------------------- */

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const t2_tensor *const *)a;
    uintptr_t y = (uintptr_t) * (const t2_tensor *const *)b;
    return (x > y) - (x < y);
}

/* Names the first tensor of the file that the model does not have. */
static t2_status fail_extra(t2_safetensors *file, const t2_tensor **seen, size_t count,
                            t2_error *err)
{
    char path[T2_SHOW], name[T2_SHOW];
    qsort(seen, count, sizeof seen[0], by_address);
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        if (bsearch(&tensor, seen, count, sizeof seen[0], by_address) == NULL) {
            return t2_fail(err, T2_ERR_FORMAT,
                           "%s: tensor %s does not belong to this model: expected %zu tensors, "
                           "found %zu",
                           t2_show(path, t2_safetensors_path(file)), t2_show(name, tensor->name),
                           count, t2_safetensors_count(file));
        }
    }
    return t2_fail(err, T2_ERR_FORMAT, "%s: a tensor occurs twice",
                   t2_show(path, t2_safetensors_path(file)));
}

/* The file must hold exactly the tensors of the configuration. Stops at the first missing one, so
 * that sizes in config.json alone never make this long or large. */
static t2_status check_tensors(const t2_config *config, t2_safetensors *file, t2_error *err)
{
    size_t have = t2_safetensors_count(file);
    size_t expected = (size_t)t2_model_tensor_count(config);
    const t2_tensor **seen = malloc((have + 1) * sizeof seen[0]);
    if (seen == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_status status = T2_OK;
    for (size_t i = 0; i < expected && status == T2_OK; i++) {
        t2_spec spec;
        t2_model_spec(config, (int64_t)i, &spec);
        status = find_tensor(file, &spec, &seen[i < have ? i : have], err);
    }
    if (status == T2_OK && expected < have) {
        status = fail_extra(file, seen, expected, err);
    }
    free(seen);
    return status;
}

static t2_status load_weights(t2_model *model, t2_error *err)
{
    const t2_config *config = &model->config;
    t2_block_config block = t2_config_block(config);
    t2_spec spec;
    t2_model_spec(config, 0, &spec);
    t2_status status = t2_load_tensor(model->file, &spec, &model->embedding, err);
    if (status != T2_OK) {
        return status;
    }
    model->blocks = calloc((size_t)config->num_layers + 1, sizeof model->blocks[0]);
    if (model->blocks == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    for (int64_t i = 0; i < config->num_layers && status == T2_OK; i++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "layers.%lld.", (long long)i);
        status = t2_block_load(&model->blocks[i], model->file, prefix, &block, 0, err);
    }
    const float *weight = NULL, *bias = NULL;
    if (status == T2_OK) {
        t2_model_spec(config, t2_model_tensor_count(config) - 2, &spec);
        status = t2_load_tensor(model->file, &spec, &weight, err);
    }
    if (status == T2_OK) {
        t2_model_spec(config, t2_model_tensor_count(config) - 1, &spec);
        status = t2_load_tensor(model->file, &spec, &bias, err);
    }
    if (status == T2_OK) {
        status = t2_linear_pack(&model->fc_out, config->embed_size, config->vocab_size, weight,
                                bias, err);
    }
    t2_model_number_linears(model);
    return status;
}

static t2_status open_parts(const char *dir, unsigned flags, t2_model *model, t2_error *err)
{
    if (t2k_init() != T2K_OK) {
        return t2_fail_kernel(err, T2K_ERR_ISA, "model");
    }
    char *config = t2_path_join(dir, "config.json");
    char *weights = t2_path_join(dir, "model.safetensors");
    t2_status status;
    if (config == NULL || weights == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    } else {
        status = t2_config_read(config, &model->config, &model->ignored, err);
    }
    if (status == T2_OK) {
        status = t2_safetensors_open(weights, flags, &model->file, err);
    }
    if (status == T2_OK) {
        status = check_tensors(&model->config, model->file, err);
    }
    if (status == T2_OK) {
        status = load_weights(model, err);
    }
    free(config);
    free(weights);
    return status;
}

t2_status t2_model_open(const char *dir, unsigned flags, t2_model **model, t2_error *err)
{
    if (dir == NULL || model == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no folder or no place for the model");
    }
    t2_model *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_status status = open_parts(dir, flags, made, err);
    if (status != T2_OK) {
        t2_model_close(made);
        return status;
    }
    *model = made;
    return T2_OK;
}

void t2_model_close(t2_model *model)
{
    if (model == NULL) {
        return;
    }
    for (int64_t i = 0; model->blocks != NULL && i < model->config.num_layers; i++) {
        t2_block_unload(&model->blocks[i]);
    }
    free(model->blocks);
    t2_linear_free(&model->fc_out);
    t2_safetensors_close(model->file);
    free(model->ignored);
    free(model);
}

const t2_config *t2_model_config(const t2_model *model)
{
    return &model->config;
}

const char *t2_model_ignored_keys(const t2_model *model)
{
    return model->ignored;
}
