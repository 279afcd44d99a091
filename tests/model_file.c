#include "model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "model_file: %s\n", what);
        abort();
    }
}

t2_config model_file_config(void)
{
    t2_config config;
    t2_config_example(&config);
    config.vocab_size = 29;
    config.embed_size = 24;
    config.num_layers = 3;
    config.heads = 4;
    config.forward_expansion = 2;
    return config;
}

void model_file_change(const char *dir, const char *name, int (*change)(t2_tensor *tensor))
{
    char path[1400];
    t2_safetensors *file = NULL;
    t2_error err = {T2_OK, ""};
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    require(t2_safetensors_open(path, T2_SAFETENSORS_NO_MMAP, &file, &err) == T2_OK, err.message);
    size_t count = 0, found = 0;
    t2_tensor *tensors = calloc(t2_safetensors_count(file), sizeof tensors[0]);
    void *copy = NULL;
    require(tensors != NULL, "out of memory");
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        t2_tensor tensor = *t2_safetensors_tensor(file, i);
        if (strcmp(tensor.name, name) == 0) {
            copy = malloc(tensor.bytes + 1);
            require(copy != NULL, "out of memory");
            memcpy(copy, tensor.data, tensor.bytes);
            tensor.data = copy;
            found++;
            if (!change(&tensor)) {
                continue;
            }
        }
        tensors[count++] = tensor;
    }
    require(found == 1, "there is no such tensor to change");
    require(t2_safetensors_write(path, tensors, count, NULL, 0, &err) == T2_OK, err.message);
    t2_safetensors_close(file);
    free(tensors);
    free(copy);
}

void model_file_text(const char *dir, const char *file, const char *text)
{
    char path[1400];
    t2_error err = {T2_OK, ""};
    snprintf(path, sizeof path, "%s/%s", dir, file);
    require(t2_write_file_atomic(path, text, strlen(text), &err) == T2_OK, err.message);
}
