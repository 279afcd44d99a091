/* The configuration of a model and its file config.json. */
#include "io/error.h"
#include "io/json_file.h"
#include "io/text.h"
#include "model/model.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_LIMIT (1 << 20) /* bytes: a config.json has a few hundred */
#define HEAD_LIMIT 1024        /* channels per head: of t2k_attention() */
#define LARGEST INT32_MAX      /* of any single size: products of two fit an int64_t */

void t2_config_example(t2_config *config)
{
    t2_config example = {.vocab_size = 1000,
                         .embed_size = 256,
                         .num_layers = 4,
                         .heads = 8,
                         .dropout = 0.1,
                         .forward_expansion = 4,
                         .num_experts = 3,
                         .norm_eps = 1e-5};
    *config = example;
}

static t2_status check_range(const char *name, int64_t value, int64_t least, t2_error *err)
{
    if (value < least || value > LARGEST) {
        return t2_fail(err, T2_ERR_ARG, "%s must be %lld .. %lld, not %lld", name, (long long)least,
                       (long long)LARGEST, (long long)value);
    }
    return T2_OK;
}

t2_status t2_block_config_check(const t2_block_config *config, t2_error *err)
{
    t2_status status = check_range("embed_size", config->embed_size, 1, err);
    status = status ? status : check_range("heads", config->heads, 1, err);
    status = status ? status : check_range("forward_expansion", config->forward_expansion, 1, err);
    status = status ? status : check_range("num_experts", config->num_experts, 0, err);
    if (status != T2_OK) {
        return status;
    }
    if (config->embed_size % config->heads != 0) {
        return t2_fail(err, T2_ERR_ARG, "embed_size %lld is not a multiple of heads %lld",
                       (long long)config->embed_size, (long long)config->heads);
    }
    if (config->embed_size / config->heads > HEAD_LIMIT) {
        return t2_fail(err, T2_ERR_ARG, "embed_size / heads must be at most %d, not %lld",
                       HEAD_LIMIT, (long long)(config->embed_size / config->heads));
    }
    if (!(config->dropout >= 0.0 && config->dropout <= 1.0)) {
        return t2_fail(err, T2_ERR_ARG, "dropout must be 0 .. 1, not %g", config->dropout);
    }
    if (!(config->norm_eps >= 0.0 && config->norm_eps <= 1.0)) {
        return t2_fail(err, T2_ERR_ARG, "norm_eps must be 0 .. 1, not %g", config->norm_eps);
    }
    if (config->kind < T2_BLOCK_TRADITIONAL || config->kind > T2_BLOCK_EXPERTS) {
        return t2_fail(err, T2_ERR_ARG, "there is no block kind %d", (int)config->kind);
    }
    return T2_OK;
}

/* V*E + L(4E^2 + 4E + 4E + 2fE^2 + fE + E + nE) + E*V + V, -1 where that times four bytes does
 * not fit. */
static int64_t parameters(const t2_config *config)
{
    int64_t total = 0;
    int64_t E = config->embed_size, f = config->forward_expansion;
    int64_t square = E, vector = 0, layers, ends = config->vocab_size;
    int64_t per_square = 4 + 2 * f, per_vector;
    if (__builtin_add_overflow(9 + f, config->num_experts, &per_vector)) {
        return -1;
    }
    vector = per_vector;
    if (!t2_multiply(&square, E) || !t2_multiply(&square, per_square) || !t2_multiply(&vector, E) ||
        __builtin_add_overflow(square, vector, &layers) ||
        !t2_multiply(&layers, config->num_layers) || !t2_multiply(&ends, 2 * E + 1) ||
        __builtin_add_overflow(layers, ends, &total) || total > INT64_MAX / 16) {
        return -1;
    }
    return total;
}

t2_status t2_config_check(const t2_config *config, t2_error *err)
{
    t2_block_config block = t2_config_block(config);
    t2_status status = check_range("vocab_size", config->vocab_size, 1, err);
    status = status ? status : check_range("num_layers", config->num_layers, 0, err);
    status = status ? status : check_range("max_length", config->max_length, 0, err);
    status = status ? status : t2_block_config_check(&block, err);
    if (status != T2_OK) {
        return status;
    }
    if (config->mask != T2_MODEL_MASK_NONE && config->mask != T2_MODEL_MASK_CAUSAL) {
        return t2_fail(err, T2_ERR_ARG, "there is no mask kind %d", (int)config->mask);
    }
    if (parameters(config) < 0) {
        return t2_fail(err, T2_ERR_ARG, "the sizes overflow: such a model cannot be addressed");
    }
    return T2_OK;
}

int64_t t2_config_parameters(const t2_config *config)
{
    return t2_config_check(config, NULL) == T2_OK ? parameters(config) : -1;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* Every key with a meaning. `fixed`: the only supported value of a string, or "false". */
enum key_type { KEY_INT, KEY_NUMBER, KEY_FIXED, KEY_FALSE, KEY_MASK };

static const struct {
    const char *key;
    enum key_type type;
    int required;
    size_t offset;
    const char *fixed;
} keys[] = {
    /* clang-format off */
    {"model_type",        KEY_FIXED,  1, 0, "transformer2"},
    {"vocab_size",        KEY_INT,    1, offsetof(t2_config, vocab_size), NULL},
    {"embed_size",        KEY_INT,    1, offsetof(t2_config, embed_size), NULL},
    {"num_layers",        KEY_INT,    1, offsetof(t2_config, num_layers), NULL},
    {"heads",             KEY_INT,    1, offsetof(t2_config, heads), NULL},
    {"dropout",           KEY_NUMBER, 1, offsetof(t2_config, dropout), NULL},
    {"forward_expansion", KEY_INT,    1, offsetof(t2_config, forward_expansion), NULL},
    {"num_experts",       KEY_INT,    1, offsetof(t2_config, num_experts), NULL},
    {"mask",              KEY_MASK,   0, 0, NULL},
    {"max_length",        KEY_INT,    0, offsetof(t2_config, max_length), NULL},
    {"norm_eps",          KEY_NUMBER, 0, offsetof(t2_config, norm_eps), NULL},
    {"positions",         KEY_FIXED,  0, 0, "none"},
    {"norm",              KEY_FIXED,  0, 0, "layer"},
    {"norm_placement",    KEY_FIXED,  0, 0, "post"},
    {"activation",        KEY_FIXED,  0, 0, "relu"},
    {"tie_embeddings",    KEY_FALSE,  0, 0, NULL},
    /* clang-format on */
};
#define KEY_COUNT (sizeof keys / sizeof keys[0])

static t2_status read_mask(const t2_json *json, t2_config *config, t2_error *err)
{
    const char *text;
    t2_status status = t2_json_string_or(json, "mask", "none", &text, err);
    if (status != T2_OK) {
        return status;
    }
    if (strcmp(text, "none") != 0 && strcmp(text, "causal") != 0) {
        return t2_json_fail(json, "mask", "\"none\" or \"causal\"", err);
    }
    config->mask = text[0] == 'c' ? T2_MODEL_MASK_CAUSAL : T2_MODEL_MASK_NONE;
    return T2_OK;
}

static t2_status read_fixed(const t2_json *json, size_t k, t2_error *err)
{
    const char *text, *fixed = keys[k].fixed;
    t2_status status = keys[k].required ? t2_json_string(json, keys[k].key, &text, err)
                                        : t2_json_string_or(json, keys[k].key, fixed, &text, err);
    if (status == T2_OK && strcmp(text, fixed) != 0) {
        char expected[80];
        snprintf(expected, sizeof expected, "\"%s\" (nothing else is supported)", fixed);
        return t2_json_fail(json, keys[k].key, expected, err);
    }
    return status;
}

static t2_status read_key(const t2_json *json, size_t k, t2_config *config, t2_error *err)
{
    void *field = (char *)config + keys[k].offset;
    const char *key = keys[k].key;
    int flag;
    t2_status status;
    switch (keys[k].type) {
    case KEY_INT:
        return keys[k].required
                   ? t2_json_int(json, key, 0, LARGEST, field, err)
                   : t2_json_int_or(json, key, 0, LARGEST, *(int64_t *)field, field, err);
    case KEY_NUMBER:
        return keys[k].required
                   ? t2_json_number(json, key, 0.0, 1.0, field, err)
                   : t2_json_number_or(json, key, 0.0, 1.0, *(double *)field, field, err);
    case KEY_MASK:
        return read_mask(json, config, err);
    case KEY_FIXED:
        return read_fixed(json, k, err);
    case KEY_FALSE:
        break;
    }
    status = t2_json_bool_or(json, key, 0, &flag, err);
    if (status == T2_OK && flag) {
        return t2_json_fail(json, key, "false (nothing else is supported)", err);
    }
    return status;
}

/* The keys that are not in the table, separated by ", "; NULL: out of memory. */
static char *unknown_keys(json_t *root)
{
    t2_text text = {0};
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        size_t k = 0;
        while (k < KEY_COUNT && strcmp(keys[k].key, key) != 0) {
            k++;
        }
        if (k == KEY_COUNT) {
            t2_text_str(&text, text.size > 0 ? ", " : "");
            t2_text_escaped(&text, key);
        }
    }
    if (text.failed) {
        t2_text_free(&text);
        return NULL;
    }
    return text.data != NULL ? text.data : calloc(1, 1);
}

t2_status t2_config_read(const char *path, t2_config *config, char **ignored, t2_error *err)
{
    t2_json json;
    t2_status status = t2_json_load(path, CONFIG_LIMIT, &json, err);
    if (status != T2_OK) {
        return status;
    }
    t2_config read = {.norm_eps = 1e-5};
    for (size_t k = 0; k < KEY_COUNT && status == T2_OK; k++) {
        status = read_key(&json, k, &read, err);
    }
    t2_error inner;
    if (status == T2_OK && t2_config_check(&read, &inner) != T2_OK) {
        char file[T2_SHOW];
        status = t2_fail(err, T2_ERR_FORMAT, "%s: %s", t2_show(file, path), inner.message);
    }
    char *unknown = status == T2_OK ? unknown_keys(json.object) : NULL;
    if (status == T2_OK && unknown == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    if (status == T2_OK) {
        *config = read;
        *ignored = unknown;
    }
    t2_json_free(&json);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

static json_t *to_json(const t2_config *config)
{
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:s, s:s, s:s, s:s, s:f, s:s, s:b}", "model_type",
        "transformer2", "vocab_size", (json_int_t)config->vocab_size, "embed_size",
        (json_int_t)config->embed_size, "num_layers", (json_int_t)config->num_layers, "heads",
        (json_int_t)config->heads, "dropout", config->dropout, "forward_expansion",
        (json_int_t)config->forward_expansion, "num_experts", (json_int_t)config->num_experts,
        "mask", config->mask == T2_MODEL_MASK_CAUSAL ? "causal" : "none", "positions", "none",
        "norm", "layer", "norm_placement", "post", "norm_eps", config->norm_eps, "activation",
        "relu", "tie_embeddings", 0);
    if (root != NULL && config->max_length > 0 &&
        json_object_set_new(root, "max_length", json_integer(config->max_length)) != 0) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* Text with as few digits as give both real numbers back. */
static char *shortest_text(const json_t *root)
{
    for (size_t digits = 1; digits <= 17; digits++) {
        char *text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(digits));
        if (text == NULL) {
            return NULL;
        }
        json_t *back = json_loads(text, 0, NULL);
        int same = back != NULL && json_equal(back, root);
        json_decref(back);
        if (same || digits == 17) {
            return text;
        }
        free(text);
    }
    return NULL;
}

t2_status t2_config_write(const char *path, const t2_config *config, t2_error *err)
{
    json_t *root = to_json(config);
    char *text = root != NULL ? shortest_text(root) : NULL;
    json_decref(root);
    t2_text file = {0};
    t2_text_str(&file, text != NULL ? text : "");
    t2_text_str(&file, "\n");
    t2_status status;
    if (text == NULL || file.failed) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    } else {
        status = t2_write_file_atomic(path, file.data, file.size, err);
    }
    free(text);
    t2_text_free(&file);
    return status;
}
