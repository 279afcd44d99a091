#include "svd_file.h"
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    abort();
}

static void must(t2_status status, const t2_error *err)
{
    if (status != T2_OK) {
        give_up(t2_status_str(status), err->message);
    }
}

void svd_make_model(const char *path, uint64_t seed)
{
    static const int64_t shapes[4][2] = {{6, 4}, {4, 6}, {5, 5}, {1, 7}};
    static const char *const names[4] = {"a", "b", "c", "d"};
    struct rng rng = {seed};
    float values[4][25];
    t2_tensor tensors[4];
    t2_error err;
    for (int i = 0; i < 4; i++) {
        size_t count = (size_t)(shapes[i][0] * shapes[i][1]);
        rng_fill(&rng, values[i], count);
        tensors[i] = (t2_tensor){names[i], T2_F32, 2, shapes[i], values[i], 4 * count};
    }
    must(t2_safetensors_write(path, tensors, 4, NULL, 0, &err), &err);
}

void svd_rewrite(const char *from, const char *to, void (*change)(svd_edit *e, const void *arg),
                 const void *arg)
{
    t2_safetensors *file;
    t2_error err;
    must(t2_safetensors_open(from, T2_SAFETENSORS_NO_MMAP, &file, &err), &err);
    svd_edit e = {.count = t2_safetensors_count(file),
                  .pair_count = t2_safetensors_metadata_count(file)};
    e.tensors = calloc(e.count + 1, sizeof e.tensors[0]);
    e.pairs = calloc(e.pair_count + 1, sizeof e.pairs[0]);
    for (size_t i = 0; i < e.count; i++) {
        e.tensors[i] = *t2_safetensors_tensor(file, i);
    }
    for (size_t i = 0; i < e.pair_count; i++) {
        e.pairs[i] = *t2_safetensors_metadata(file, i);
    }
    change(&e, arg);
    must(t2_safetensors_write(to, e.tensors, e.count, e.pairs, e.pair_count, &err), &err);
    free(e.tensors);
    free(e.pairs);
    t2_safetensors_close(file);
}

t2_pair *svd_pair_of(svd_edit *e, const char *key)
{
    for (size_t i = 0; i < e->pair_count; i++) {
        if (strcmp(e->pairs[i].key, key) == 0) {
            return &e->pairs[i];
        }
    }
    give_up(key, "no such pair");
    return NULL;
}

t2_tensor *svd_tensor_of(svd_edit *e, const char *name)
{
    for (size_t i = 0; i < e->count; i++) {
        if (strcmp(e->tensors[i].name, name) == 0) {
            return &e->tensors[i];
        }
    }
    give_up(name, "no such tensor");
    return NULL;
}
