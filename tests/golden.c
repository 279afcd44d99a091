#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    abort();
}

static char *join(const char *dir, const char *name)
{
    size_t room = strlen(dir) + strlen(name) + 2;
    char *path = malloc(room);
    if (path == NULL) {
        give_up(name, "out of memory");
    }
    snprintf(path, room, "%s/%s", dir, name);
    return path;
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}

golden_manifest golden_open(const char *manifest_path)
{
    golden_manifest manifest = {0};
    json_error_t where;
    manifest.root = json_load_file(manifest_path, 0, &where);
    if (manifest.root == NULL) {
        give_up(manifest_path, where.text);
    }
    const char *slash = strrchr(manifest_path, '/');
    manifest.dir =
        slash != NULL ? strndup(manifest_path, (size_t)(slash - manifest_path)) : strdup(".");
    const json_t *cases = json_object_get(manifest.root, "cases");
    manifest.count = json_array_size(cases);
    manifest.cases = calloc(manifest.count + 1, sizeof manifest.cases[0]);
    if (manifest.dir == NULL || manifest.cases == NULL) {
        give_up(manifest_path, "out of memory");
    }
    for (size_t i = 0; i < manifest.count; i++) {
        json_t *entry = json_array_get(cases, i);
        golden_case *one = &manifest.cases[i];
        one->json = entry;
        one->id = text(entry, "id");
        one->kind = text(entry, "kind");
        one->set = text(entry, "set");
        one->expect = text(entry, "expect");
        one->path = join(manifest.dir, text(entry, "file"));
    }
    return manifest;
}

void golden_close(golden_manifest *manifest)
{
    for (size_t i = 0; i < manifest->count; i++) {
        free(manifest->cases[i].path);
    }
    free(manifest->cases);
    free(manifest->dir);
    json_decref(manifest->root);
}

static const json_t *setting(const golden_case *one, const char *key)
{
    return json_object_get(json_object_get(one->json, "config"), key);
}

int64_t golden_size(const golden_case *one, const char *key)
{
    return json_integer_value(setting(one, key));
}

double golden_number(const golden_case *one, const char *key)
{
    return json_number_value(setting(one, key));
}

t2_config golden_config(const golden_case *one)
{
    t2_config config;
    t2_config_example(&config);
    config.vocab_size = golden_size(one, "vocab_size");
    config.embed_size = golden_size(one, "embed_size");
    config.num_layers = golden_size(one, "num_layers");
    config.heads = golden_size(one, "heads");
    config.dropout = golden_number(one, "dropout");
    config.forward_expansion = golden_size(one, "forward_expansion");
    config.num_experts = golden_size(one, "num_experts");
    return config;
}

t2_block_config golden_block_config(const golden_case *one)
{
    t2_block_config config = {.embed_size = golden_size(one, "embed_size"),
                              .heads = golden_size(one, "heads"),
                              .forward_expansion = golden_size(one, "forward_expansion"),
                              .num_experts = golden_size(one, "num_experts"),
                              .dropout = golden_number(one, "dropout"),
                              .norm_eps = 1e-5};
    config.kind = strcmp(one->kind, "block_svf") == 0       ? T2_BLOCK_SVF
                  : strcmp(one->kind, "block_experts") == 0 ? T2_BLOCK_EXPERTS
                                                            : T2_BLOCK_TRADITIONAL;
    return config;
}

const t2_tensor *golden_input(const golden_case *one, t2_safetensors *file, const char *role)
{
    const char *name =
        json_string_value(json_object_get(json_object_get(one->json, "inputs"), role));
    if (name == NULL) {
        return NULL;
    }
    const t2_tensor *tensor = t2_safetensors_find(file, name);
    if (tensor == NULL) {
        give_up(name, "not in the file of this case");
    }
    return tensor;
}

const t2_tensor *golden_expected(const golden_case *one, t2_safetensors *file, const char *type,
                                 const char *name)
{
    char full[200];
    snprintf(full, sizeof full, "expected_%s.%s.%s", type, one->set, name);
    return t2_safetensors_find(file, full);
}

const float *golden_f32(t2_safetensors *file, const t2_tensor *tensor)
{
    const float *data = NULL;
    t2_error err;
    if (tensor != NULL && t2_safetensors_f32(file, tensor, &data, &err) != T2_OK) {
        give_up(tensor->name, err.message);
    }
    return data;
}

const double *golden_f64(t2_safetensors *file, const t2_tensor *tensor)
{
    const double *data = NULL;
    t2_error err;
    if (tensor != NULL && t2_safetensors_f64(file, tensor, &data, &err) != T2_OK) {
        give_up(tensor->name, err.message);
    }
    return data;
}

const int64_t *golden_i64(t2_safetensors *file, const t2_tensor *tensor)
{
    const int64_t *data = NULL;
    t2_error err;
    if (tensor != NULL && t2_safetensors_i64(file, tensor, &data, &err) != T2_OK) {
        give_up(tensor->name, err.message);
    }
    return data;
}

/* The tensors of the state_dict: all but inputs and expected results. */
static t2_status write_weights(const char *dir, t2_safetensors *file, t2_error *err)
{
    char *path = join(dir, "model.safetensors");
    size_t count = 0;
    t2_tensor *weights = calloc(t2_safetensors_count(file) + 1, sizeof weights[0]);
    if (weights == NULL) {
        give_up(path, "out of memory");
    }
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        if (strncmp(tensor->name, "input.", 6) != 0 && strncmp(tensor->name, "expected_", 9) != 0) {
            weights[count++] = *tensor;
        }
    }
    t2_status status = t2_safetensors_write(path, weights, count, NULL, 0, err);
    free(weights);
    free(path);
    return status;
}

t2_status golden_write_model(const golden_case *one, t2_safetensors *file, const char *dir,
                             t2_error *err)
{
    t2_config config = golden_config(one);
    /* Makes the folder and config.json; its random weights are replaced. */
    t2_status status = t2_init_model(dir, &config, 0, err);
    return status == T2_OK ? write_weights(dir, file, err) : status;
}

const golden_case *golden_find(const golden_manifest *manifest, const char *id)
{
    for (size_t i = 0; i < manifest->count; i++) {
        if (strcmp(manifest->cases[i].id, id) == 0) {
            return &manifest->cases[i];
        }
    }
    return NULL;
}

golden_error golden_compare(const golden_case *one, t2_safetensors *file, const char *name,
                            const float *got)
{
    golden_error error = {0};
    const json_t *output = json_object_get(json_object_get(one->json, "outputs"), name);
    const t2_tensor *tensor = golden_expected(one, file, "f64", name);
    if (output == NULL || tensor == NULL) {
        give_up(one->id, "an expected result is missing");
    }
    const double *want = golden_f64(file, tensor);
    double largest = 0.0;
    for (size_t i = 0; i < (size_t)t2_tensor_elements(tensor); i++) {
        double x = (double)got[i], y = want[i], distance;
        if (isnan(x) || isnan(y) || isinf(x) || isinf(y)) {
            distance = (isnan(x) && isnan(y)) || x == y ? 0.0 : HUGE_VAL;
        } else {
            distance = fabs(x - y);
            largest = fmax(largest, fabs(y));
        }
        if (distance > error.max_abs) {
            error.max_abs = distance;
            error.at = i;
            error.got = x;
            error.want = y;
        }
    }
    double pytorch = json_number_value(json_object_get(output, "max_abs"));
    error.allowed = fmax(4.0 * pytorch, 1e-6 * largest);
    return error;
}
