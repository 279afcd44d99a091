/* Experts from other programs: safetensors whose vectors are named by position, by the weights, or
 * by short names that a table below translates. */
#include "io/error.h"
#include "io/text.h"
#include "svf/expert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* {} is a number. */
static const struct alias {
    const char *from, *to;
} aliases[] = {
    {"layers.{}.q", "layers.{}.attention.in_proj_weight.q"},
    {"layers.{}.k", "layers.{}.attention.in_proj_weight.k"},
    {"layers.{}.v", "layers.{}.attention.in_proj_weight.v"},
    {"{}.wq", "model.layers.{}.self_attn.q_proj.weight"},
    {"{}.wk", "model.layers.{}.self_attn.k_proj.weight"},
    {"{}.wv", "model.layers.{}.self_attn.v_proj.weight"},
    {"{}.wo", "model.layers.{}.self_attn.o_proj.weight"},
    {"{}.w1", "model.layers.{}.mlp.gate_proj.weight"},
    {"{}.w2", "model.layers.{}.mlp.down_proj.weight"},
    {"{}.w3", "model.layers.{}.mlp.up_proj.weight"},
};

/* Published checkpoints name vectors by their position in a list of modules. */
#define POSITIONAL "learnable_params_module_list.{}"

/* The digits that {} of `pattern` stands for in `name`: their length, 0 where it does not match. */
static size_t match(const char *pattern, const char *name, const char **digits)
{
    size_t head = (size_t)(strstr(pattern, "{}") - pattern);
    if (strncmp(pattern, name, head) != 0) {
        return 0;
    }
    *digits = name + head;
    size_t n = strspn(*digits, "0123456789");
    return strcmp(*digits + n, pattern + head + 2) == 0 ? n : 0;
}

/* The matrix that a vector belongs to, -1 if none; `translated` has room for a name. */
static int64_t find_matrix(const t2_import_args *args, const char *name)
{
    const char *digits;
    char translated[T2_SHOW];
    int64_t index = t2_factors_find(args->factors, name);
    if (index >= 0) {
        return index;
    }
    size_t n = match(POSITIONAL, name, &digits);
    if (n > 0 && n < 10) {
        long position = strtol(digits, NULL, 10);
        return position < args->order_count ? t2_factors_find(args->factors, args->order[position])
                                            : -1;
    }
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        n = match(aliases[i].from, name, &digits);
        if (n > 0 && n < 10) {
            const char *hole = strstr(aliases[i].to, "{}");
            snprintf(translated, sizeof translated, "%.*s%.*s%s", (int)(hole - aliases[i].to),
                     aliases[i].to, (int)n, digits, hole + 2);
            return t2_factors_find(args->factors, translated);
        }
    }
    return -1;
}

static t2_status fail_tensor(const t2_safetensors *file, const t2_tensor *tensor, const char *text,
                             t2_error *err)
{
    char path[T2_SHOW], name[T2_SHOW];
    return t2_fail(err, T2_ERR_FORMAT, "%.160s: tensor %.120s: %s",
                   t2_show(path, t2_safetensors_path(file)), t2_show(name, tensor->name), text);
}

/* Elements as floats, in `room` or where they are. */
static t2_status elements(t2_safetensors *file, const t2_tensor *tensor, float *room,
                          const float **data, t2_error *err)
{
    if (tensor->dtype == T2_F32) {
        return t2_safetensors_f32(file, tensor, data, err);
    }
    if (tensor->dtype != T2_BF16) {
        return fail_tensor(file, tensor, "expected F32 or BF16", err);
    }
    const unsigned char *bytes = tensor->data;
    for (int64_t i = 0; i < t2_tensor_elements(tensor); i++) {
        uint32_t bits = (uint32_t)bytes[2 * i] << 16 | (uint32_t)bytes[2 * i + 1] << 24;
        memcpy(&room[i], &bits, sizeof bits);
    }
    *data = room;
    return T2_OK;
}

struct import {
    t2_safetensors *file;
    t2_expert_vector *vectors;
    int64_t count;
    float *room, *next;
};

static t2_status take(struct import *in, const t2_import_args *args, const t2_tensor *tensor,
                      t2_error *err)
{
    char text[200];
    size_t skip = args->prefix != NULL ? strlen(args->prefix) : 0;
    if (skip > 0 && strncmp(tensor->name, args->prefix, skip) != 0) {
        return T2_OK;
    }
    int64_t index = find_matrix(args, tensor->name + skip);
    if (index < 0) {
        snprintf(text, sizeof text, "no matrix of the factors goes by this name%s",
                 args->order_count == 0
                     ? "; positions (learnable_params_module_list.N) need an order of the matrices"
                     : "");
        return fail_tensor(in->file, tensor, text, err);
    }
    const t2_factor *f = t2_factors_get(args->factors, index);
    if (tensor->rank != 1 || tensor->shape[0] != f->r) {
        snprintf(text, sizeof text, "expected %lld values, the rank of the matrix, found %lld",
                 (long long)f->r, (long long)t2_tensor_elements(tensor));
        return fail_tensor(in->file, tensor, text, err);
    }
    t2_expert_vector *vector = &in->vectors[in->count++];
    vector->name = f->name;
    vector->size = f->r;
    t2_status status = elements(in->file, tensor, in->next, &vector->p, err);
    in->next += f->r;
    return status;
}

static t2_status import_all(struct import *in, const t2_import_args *args, t2_expert **expert,
                            t2_error *err)
{
    int64_t total = 0;
    size_t tensors = t2_safetensors_count(in->file);
    for (int64_t i = 0; i < t2_factors_count(args->factors); i++) {
        total += t2_factors_get(args->factors, i)->r;
    }
    /* No more than one vector fits each matrix, but a file may try. */
    for (size_t i = 0; i < tensors; i++) {
        total += t2_tensor_elements(t2_safetensors_tensor(in->file, i));
    }
    in->vectors = calloc(tensors + 1, sizeof in->vectors[0]);
    in->room = in->next = malloc((size_t)(total + 1) * sizeof in->room[0]);
    if (in->vectors == NULL || in->room == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
    }
    t2_status status = T2_OK;
    for (size_t i = 0; i < tensors && status == T2_OK; i++) {
        status = take(in, args, t2_safetensors_tensor(in->file, i), err);
    }
    if (status == T2_OK && in->count == 0) {
        char path[T2_SHOW];
        status = t2_fail(err, T2_ERR_FORMAT, "%.200s: no tensor begins with '%.120s'",
                         t2_show(path, t2_safetensors_path(in->file)),
                         args->prefix != NULL ? args->prefix : "");
    }
    if (status == T2_OK) {
        t2_expert_args made = {.size = sizeof made,
                               .name = args->name,
                               .form = args->form,
                               .factors_hash = t2_factors_hash(args->factors),
                               .base_hash = t2_factors_base_hash(args->factors),
                               .vectors = in->vectors,
                               .count = in->count};
        status = t2_expert_create(&made, expert, err);
    }
    return status;
}

t2_status t2_expert_import(const char *path, const t2_import_args *args, t2_expert **expert,
                           t2_error *err)
{
    if (path == NULL || args == NULL || args->size != sizeof *args || args->factors == NULL ||
        expert == NULL || (args->order_count > 0 && args->order == NULL)) {
        return t2_fail(err, T2_ERR_ARG, "file, factors or arguments of an import are missing");
    }
    struct import in = {.count = 0};
    t2_status status = t2_safetensors_open(path, T2_SAFETENSORS_NO_MMAP, &in.file, err);
    if (status == T2_OK && t2_safetensors_metadata_find(in.file, "t2.kind") != NULL) {
        char shown[T2_SHOW];
        status = t2_fail(err, T2_ERR_FORMAT,
                         "%.300s: is a file of t2 itself (t2.kind %.40s), not one to import",
                         t2_show(shown, path), t2_safetensors_metadata_find(in.file, "t2.kind"));
    } else if (status == T2_OK) {
        status = import_all(&in, args, expert, err);
    }
    t2_safetensors_close(in.file);
    free(in.vectors);
    free(in.room);
    return status;
}
