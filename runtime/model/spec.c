/* Names, shapes and initial distributions of a model's tensors, by index: what a file must hold,
 * and what a new one gets. Names are those of the notebook's state_dict. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>

/* A size: embed_size times `times`, or times forward_expansion where it is WIDE. */
enum { WIDE = -1 };

static const struct {
    const char *name;
    int rank;
    int rows, cols; /* in units of E */
    t2_fill fill;
    int inputs; /* uniform: bound 1/sqrt(inputs * E); the joint projection has its own */
    double value;
} block_tensors[T2_WEIGHT_COUNT] = {
    /* clang-format off */
    [T2_IN_PROJ_WEIGHT]  = {"attention.in_proj_weight",  2, 3,    1,    T2_FILL_UNIFORM, 0,    0.0},
    [T2_IN_PROJ_BIAS]    = {"attention.in_proj_bias",    1, 3,    0,    T2_FILL_CONST,   0,    0.0},
    [T2_OUT_PROJ_WEIGHT] = {"attention.out_proj.weight", 2, 1,    1,    T2_FILL_UNIFORM, 1,    0.0},
    [T2_OUT_PROJ_BIAS]   = {"attention.out_proj.bias",   1, 1,    0,    T2_FILL_CONST,   0,    0.0},
    [T2_NORM1_WEIGHT]    = {"norm1.weight",              1, 1,    0,    T2_FILL_CONST,   0,    1.0},
    [T2_NORM1_BIAS]      = {"norm1.bias",                1, 1,    0,    T2_FILL_CONST,   0,    0.0},
    [T2_NORM2_WEIGHT]    = {"norm2.weight",              1, 1,    0,    T2_FILL_CONST,   0,    1.0},
    [T2_NORM2_BIAS]      = {"norm2.bias",                1, 1,    0,    T2_FILL_CONST,   0,    0.0},
    [T2_FF0_WEIGHT]      = {"feed_forward.0.weight",     2, WIDE, 1,    T2_FILL_UNIFORM, 1,    0.0},
    [T2_FF0_BIAS]        = {"feed_forward.0.bias",       1, WIDE, 0,    T2_FILL_UNIFORM, 1,    0.0},
    [T2_FF2_WEIGHT]      = {"feed_forward.2.weight",     2, 1,    WIDE, T2_FILL_UNIFORM, WIDE, 0.0},
    [T2_FF2_BIAS]        = {"feed_forward.2.bias",       1, 1,    0,    T2_FILL_UNIFORM, WIDE, 0.0},
    /* clang-format on */
};

int t2_multiply(int64_t *total, int64_t factor)
{
    return *total >= 0 && factor >= 0 && !__builtin_mul_overflow(*total, factor, total);
}

int64_t t2_spec_elements(const t2_spec *spec)
{
    return spec->rank == 1 ? spec->shape[0] : spec->shape[0] * spec->shape[1];
}

int64_t t2_block_scale_count(const t2_block_config *config)
{
    switch (config->kind) {
    case T2_BLOCK_SVF:
        return 1;
    case T2_BLOCK_EXPERTS:
        return config->num_experts;
    case T2_BLOCK_TRADITIONAL:
        break;
    }
    return 0;
}

static int64_t size_of(const t2_block_config *config, int times)
{
    return config->embed_size * (times == WIDE ? config->forward_expansion : times);
}

void t2_block_spec(const t2_block_config *config, const char *prefix, int64_t index, t2_spec *spec)
{
    spec->shape[1] = 1;
    if (index >= T2_WEIGHT_COUNT) {
        if (config->kind == T2_BLOCK_SVF) {
            snprintf(spec->name, sizeof spec->name, "%ssvf_expert", prefix);
        } else {
            snprintf(spec->name, sizeof spec->name, "%sexperts.%lld.scale_vector", prefix,
                     (long long)(index - T2_WEIGHT_COUNT));
        }
        spec->rank = 1;
        spec->shape[0] = config->embed_size;
        spec->fill = T2_FILL_CONST;
        spec->value = 1.0;
        return;
    }
    snprintf(spec->name, sizeof spec->name, "%s%s", prefix, block_tensors[index].name);
    spec->rank = block_tensors[index].rank;
    spec->shape[0] = size_of(config, block_tensors[index].rows);
    if (spec->rank == 2) {
        spec->shape[1] = size_of(config, block_tensors[index].cols);
    }
    spec->fill = block_tensors[index].fill;
    spec->value = block_tensors[index].value;
    if (index == T2_IN_PROJ_WEIGHT) {
        /* Xavier on the joint (3E, E) matrix: sqrt(6 / (3E + E)). */
        spec->value = sqrt(6.0 / (4.0 * (double)config->embed_size));
    } else if (spec->fill == T2_FILL_UNIFORM) {
        spec->value = 1.0 / sqrt((double)size_of(config, block_tensors[index].inputs));
    }
}

t2_block_config t2_config_block(const t2_config *config)
{
    t2_block_config block = {.kind = T2_BLOCK_EXPERTS,
                             .embed_size = config->embed_size,
                             .heads = config->heads,
                             .forward_expansion = config->forward_expansion,
                             .num_experts = config->num_experts,
                             .dropout = config->dropout,
                             .norm_eps = config->norm_eps};
    return block;
}

int64_t t2_model_tensor_count(const t2_config *config)
{
    return 3 + config->num_layers * (T2_WEIGHT_COUNT + config->num_experts);
}

void t2_model_spec(const t2_config *config, int64_t index, t2_spec *spec)
{
    int64_t per_block = T2_WEIGHT_COUNT + config->num_experts;
    int64_t in_blocks = config->num_layers * per_block;
    if (index > 0 && index <= in_blocks) {
        char prefix[40];
        t2_block_config block = t2_config_block(config);
        snprintf(prefix, sizeof prefix, "layers.%lld.", (long long)((index - 1) / per_block));
        t2_block_spec(&block, prefix, (index - 1) % per_block, spec);
        return;
    }
    int weight = index != in_blocks + 2; /* of the embedding or of fc_out */
    const char *name = index == 0 ? "embedding.weight" : weight ? "fc_out.weight" : "fc_out.bias";
    snprintf(spec->name, sizeof spec->name, "%s", name);
    spec->rank = weight ? 2 : 1;
    spec->shape[0] = config->vocab_size;
    spec->shape[1] = weight ? config->embed_size : 1;
    spec->fill = index == 0 ? T2_FILL_NORMAL : T2_FILL_UNIFORM;
    spec->value = 1.0 / sqrt((double)config->embed_size);
}
