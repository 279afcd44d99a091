/* The linear layers of a model, counted through: four of each block, then fc_out. */
#include "model/model.h"

#include <stdio.h>

enum { PER_BLOCK = 4 };

int64_t t2_model_linear_count(const t2_model *model)
{
    return PER_BLOCK * model->config.num_layers + 1;
}

static const t2_linear *of_block(const t2_block *block, int64_t which)
{
    const t2_linear *all[PER_BLOCK] = {&block->in_proj, &block->out_proj, &block->ff0, &block->ff2};
    return all[which];
}

const t2_linear *t2_model_linear(const t2_model *model, int64_t index)
{
    int64_t block = index / PER_BLOCK;
    return block < model->config.num_layers ? of_block(&model->blocks[block], index % PER_BLOCK)
                                            : &model->fc_out;
}

void t2_model_linear_spec(const t2_model *model, int64_t index, t2_spec *spec)
{
    static const enum t2_weight weights[PER_BLOCK] = {T2_IN_PROJ_WEIGHT, T2_OUT_PROJ_WEIGHT,
                                                      T2_FF0_WEIGHT, T2_FF2_WEIGHT};
    int64_t block = index / PER_BLOCK;
    if (block >= model->config.num_layers) {
        t2_model_spec(&model->config, t2_model_tensor_count(&model->config) - 2, spec);
        return;
    }
    char prefix[40];
    t2_block_config config = t2_config_block(&model->config);
    snprintf(prefix, sizeof prefix, "layers.%lld.", (long long)block);
    t2_block_spec(&config, prefix, weights[index % PER_BLOCK], spec);
}

void t2_model_number_linears(t2_model *model)
{
    for (int64_t i = 0; i < model->config.num_layers; i++) {
        t2_block *block = &model->blocks[i];
        block->in_proj.index = PER_BLOCK * i;
        block->out_proj.index = PER_BLOCK * i + 1;
        block->ff0.index = PER_BLOCK * i + 2;
        block->ff2.index = PER_BLOCK * i + 3;
    }
    model->fc_out.index = PER_BLOCK * model->config.num_layers;
}
