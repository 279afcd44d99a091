/* New models with random weights in PyTorch's default distributions. Element i of a tensor comes
 * from one Philox block: key of (seed, tensor name), counter i. */
#include "io/error.h"
#include "io/text.h"
#include "model/model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static void fill(const t2_spec *spec, uint64_t seed, float *data)
{
    t2_random random = t2_random_key(seed, spec->name, 0);
    int64_t count = t2_spec_elements(spec);
    for (int64_t i = 0; i < count; i++) {
        if (spec->fill == T2_FILL_CONST) {
            data[i] = (float)spec->value;
            continue;
        }
        const uint32_t counter[4] = {(uint32_t)i, (uint32_t)((uint64_t)i >> 32), 0, 0};
        uint32_t words[4];
        t2k_philox4x32(counter, random.key, words);
        if (spec->fill == T2_FILL_NORMAL) {
            data[i] = (float)t2_random_normal(words);
        } else {
            data[i] = (float)((2.0 * t2_random_uniform(words[0], words[1]) - 1.0) * spec->value);
        }
    }
}

/* One tensor of the list; its name and shape live in `spec`. */
static t2_status make_tensor(const t2_spec *spec, uint64_t seed, t2_tensor *tensor, t2_error *err)
{
    int64_t count = t2_spec_elements(spec);
    float *data = t2_alloc(count, sizeof(float));
    if (data == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for tensor %s", spec->name);
    }
    fill(spec, seed, data);
    t2_tensor made = {.name = spec->name,
                      .dtype = T2_F32,
                      .rank = spec->rank,
                      .shape = spec->shape,
                      .data = data,
                      .bytes = (size_t)count * sizeof(float)};
    *tensor = made;
    return T2_OK;
}

struct making {
    const t2_config *config;
    uint64_t seed;
    size_t count;
    t2_spec *specs;     /* (count) */
    t2_tensor *tensors; /* (count) */
    t2_error *err;
    t2_status status;
};

/* In a region of one thread, for its floating-point environment: the caller's rounding mode must
 * not reach the weights. */
static void make_tensors(t2k_team *team, void *arg)
{
    struct making *m = arg;
    (void)team;
    for (size_t i = 0; i < m->count && m->status == T2_OK; i++) {
        t2_model_spec(m->config, (int64_t)i, &m->specs[i]);
        m->status = make_tensor(&m->specs[i], m->seed, &m->tensors[i], m->err);
    }
}

static t2_status write_weights(const char *path, const t2_config *config, uint64_t seed,
                               t2_error *err)
{
    size_t count = (size_t)t2_model_tensor_count(config);
    t2_spec *specs = calloc(count, sizeof specs[0]);
    t2_tensor *tensors = calloc(count, sizeof tensors[0]);
    t2_status status = T2_OK;
    if (specs == NULL || tensors == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    if (status == T2_OK) {
        struct making making = {config, seed, count, specs, tensors, err, T2_OK};
        t2k_status kernel = t2k_parallel(1, make_tensors, &making);
        status = kernel == T2K_OK ? making.status : t2_fail_kernel(err, kernel, "initialisation");
    }
    if (status == T2_OK) {
        status = t2_safetensors_write(path, tensors, count, NULL, 0, err);
    }
    for (size_t i = 0; tensors != NULL && i < count; i++) {
        free((void *)(uintptr_t)tensors[i].data);
    }
    free(tensors);
    free(specs);
    return status;
}

t2_status t2_init_model(const char *dir, const t2_config *config, uint64_t seed, t2_error *err)
{
    if (dir == NULL || config == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no folder or no configuration");
    }
    t2_status status = t2_config_check(config, err);
    if (status != T2_OK) {
        return status;
    }
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        return t2_fail_errno(err, errno, dir, "making the folder");
    }
    char *config_path = t2_path_join(dir, "config.json");
    char *weights_path = t2_path_join(dir, "model.safetensors");
    if (config_path == NULL || weights_path == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    } else {
        status = write_weights(weights_path, config, seed, err);
    }
    if (status == T2_OK) {
        status = t2_config_write(config_path, config, err);
    }
    free(config_path);
    free(weights_path);
    return status;
}
