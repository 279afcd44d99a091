/* One transformer block, configured as the notebook's three classes:
 *   y = attention(query, key, value) * Wo + bo
 *   x = drop(norm1(scale * y + query)); out = drop(norm2(relu(x W0 + b0) W2 + b2 + x))
 * post-norm; scale is absent, fixed, or chosen by the mean of y. Tensors are (position, item,
 * channel), E channels; each team function ends with its whole output written. */
#include "io/error.h"
#include "model/cache.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

/* ---- weights ------------------------------------------------------------------------------- */

static t2_status load_scales(t2_block *block, t2_safetensors *file, const char *prefix,
                             t2_error *err)
{
    int64_t count = t2_block_scale_count(&block->config);
    t2_spec spec;
    const float *data;
    t2_status status = T2_OK;
    /* Before the table is allocated, so that a missing tensor stops a huge number of experts. */
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        t2_block_spec(&block->config, prefix, T2_WEIGHT_COUNT + i, &spec);
        status = t2_load_tensor(file, &spec, &data, err);
    }
    if (status != T2_OK) {
        return status;
    }
    block->scales = calloc((size_t)count + 1, sizeof block->scales[0]);
    if (block->scales == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        t2_block_spec(&block->config, prefix, T2_WEIGHT_COUNT + i, &spec);
        status = t2_load_tensor(file, &spec, &block->scales[i], err);
    }
    return status;
}

static t2_status pack_all(t2_block *block, int parts, t2_error *err)
{
    const float *const *w = block->weights;
    int64_t E = block->config.embed_size, wide = E * block->config.forward_expansion;
    t2_status status =
        t2_linear_pack(&block->in_proj, E, 3 * E, w[T2_IN_PROJ_WEIGHT], w[T2_IN_PROJ_BIAS], err);
    for (int i = 0; i < 3 && parts && status == T2_OK; i++) {
        status = t2_linear_pack(&block->part[i], E, E, w[T2_IN_PROJ_WEIGHT] + i * E * E,
                                w[T2_IN_PROJ_BIAS] + i * E, err);
    }
    if (status == T2_OK) {
        status =
            t2_linear_pack(&block->out_proj, E, E, w[T2_OUT_PROJ_WEIGHT], w[T2_OUT_PROJ_BIAS], err);
    }
    if (status == T2_OK) {
        status = t2_linear_pack(&block->ff0, E, wide, w[T2_FF0_WEIGHT], w[T2_FF0_BIAS], err);
    }
    if (status == T2_OK) {
        status = t2_linear_pack(&block->ff2, wide, E, w[T2_FF2_WEIGHT], w[T2_FF2_BIAS], err);
    }
    return status;
}

t2_status t2_block_load(t2_block *block, t2_safetensors *file, const char *prefix,
                        const t2_block_config *config, int parts, t2_error *err)
{
    block->config = *config;
    t2_status status = T2_OK;
    for (int64_t i = 0; i < T2_WEIGHT_COUNT && status == T2_OK; i++) {
        t2_spec spec;
        t2_block_spec(config, prefix, i, &spec);
        status = t2_load_tensor(file, &spec, &block->weights[i], err);
    }
    if (status == T2_OK) {
        status = load_scales(block, file, prefix, err);
    }
    return status == T2_OK ? pack_all(block, parts, err) : status;
}

void t2_block_unload(t2_block *block)
{
    free(block->scales);
    block->scales = NULL;
    t2_linear_free(&block->in_proj);
    for (int i = 0; i < 3; i++) {
        t2_linear_free(&block->part[i]);
    }
    t2_linear_free(&block->out_proj);
    t2_linear_free(&block->ff0);
    t2_linear_free(&block->ff2);
}

/* ---- one pass ------------------------------------------------------------------------------ */

t2k_status t2_linear_team(t2k_team *team, const t2_linear *linear, const t2_overlay_call *overlays,
                          int64_t rows, const float *x, float *y, int64_t ldy,
                          t2k_activation activation, const float *residual)
{
    const t2_overlay *overlay = overlays != NULL ? overlays->overlays[linear->index] : NULL;
    if (overlay != NULL) {
        return t2_overlay_team(team, overlay, overlays, linear, rows, x, y, ldy, activation,
                               residual);
    }
    t2k_epilogue epilogue = {.size = sizeof epilogue,
                             .bias = linear->bias,
                             .activation = activation,
                             .residual = residual,
                             .ldr = linear->out};
    return t2k_sgemm_packed_team(team, T2K_NO_TRANS, rows, linear->out, linear->in, 1.0f, x,
                                 linear->in, linear->packed, 0.0f, y, ldy, &epilogue);
}

/* Query, key and value projections into the workspace, and the strides for attention. One input
 * for all three takes one product with the joint weights; a column's bits do not depend on its
 * neighbours, so three products give the same. */
static t2k_status project(t2k_team *team, const t2_block *block, const t2_workspace *workspace,
                          const t2_block_pass *pass, t2k_attention_args *args)
{
    int64_t E = block->config.embed_size, N = pass->items;
    int64_t rows = pass->queries * N, key_rows = pass->keys * N;
    if (pass->query == pass->key && pass->query == pass->value && rows == key_rows) {
        args->q = workspace->qkv;
        args->k = workspace->qkv + E;
        args->v = workspace->qkv + 2 * E;
        args->q_item = args->k_item = args->v_item = 3 * E;
        args->q_row = args->k_row = args->v_row = 3 * E * N;
        return t2_linear_team(team, &block->in_proj, pass->overlays, rows, pass->query,
                              workspace->qkv, 3 * E, T2K_ACT_NONE, NULL);
    }
    float *q = workspace->qkv, *k = q + rows * E, *v = k + key_rows * E;
    args->q = q;
    args->k = k;
    args->v = v;
    args->q_item = args->k_item = args->v_item = E;
    args->q_row = args->k_row = args->v_row = E * N;
    t2k_status status =
        t2_linear_team(team, &block->part[0], NULL, rows, pass->query, q, E, T2K_ACT_NONE, NULL);
    if (status == T2K_OK) {
        status = t2_linear_team(team, &block->part[1], NULL, key_rows, pass->key, k, E,
                                T2K_ACT_NONE, NULL);
    }
    if (status == T2K_OK) {
        status = t2_linear_team(team, &block->part[2], NULL, key_rows, pass->value, v, E,
                                T2K_ACT_NONE, NULL);
    }
    return status;
}

/* y (L, N, E) = multi-head attention with its output projection, without any scale. */
static t2k_status attend(t2k_team *team, const t2_block *block, const t2_workspace *workspace,
                         const t2_block_pass *pass, float *y)
{
    int64_t E = block->config.embed_size, head_dim = E / block->config.heads;
    t2k_attention_args args = {.size = sizeof args,
                               .queries = pass->queries,
                               .keys = pass->keys,
                               .items = pass->items,
                               .heads = block->config.heads,
                               .head_dim = head_dim,
                               .scale = (float)sqrt(1.0 / (double)head_dim),
                               .out = workspace->heads,
                               .out_row = E * pass->items,
                               .out_item = E,
                               .mask_kind = pass->mask.kind,
                               .empty_row = T2K_EMPTY_NAN,
                               .mask = pass->mask.data,
                               .mask_item = pass->mask.item,
                               .mask_head = pass->mask.head,
                               .mask_row = pass->mask.row};
    t2k_status status = project(team, block, workspace, pass, &args);
    if (status == T2K_OK) {
        status = pass->cache != NULL ? t2_cache_attention_team(team, pass->cache, pass->layer,
                                                               pass->cache_item, &args)
                                     : t2k_attention_team(team, &args);
    }
    if (status == T2K_OK) {
        status = t2_linear_team(team, &block->out_proj, pass->overlays, pass->queries * pass->items,
                                workspace->heads, y, E, T2K_ACT_NONE, NULL);
    }
    return status;
}

/* x = drop(norm(scale * x + residual)), into out; site tells the block's two norms apart. */
static t2k_status norm(t2k_team *team, const t2_block *block, const t2_block_pass *pass,
                       uint32_t site, const float *x, const float *scale, const float *residual,
                       float *out)
{
    int64_t E = block->config.embed_size, rows = pass->queries * pass->items;
    enum t2_weight weight = site == 0 ? T2_NORM1_WEIGHT : T2_NORM2_WEIGHT;
    t2k_status status =
        t2k_layer_norm_team(team, rows, E, x, E, scale, residual, E, block->weights[weight],
                            block->weights[weight + 1], (float)block->config.norm_eps, out, E);
    if (status == T2K_OK && pass->dropout > 0.0f) {
        t2k_dropout_key key = pass->dropout_key;
        key.site = site;
        status = t2k_dropout_team(team, rows * E, out, pass->dropout, key, 0, out);
    }
    return status;
}

/* The scale of this pass, NULL: none. The mean is taken over the whole attention output before
 * any scale, so every row of the batch has its part in the choice. */
static const float *choose(t2k_team *team, const t2_block *block, const t2_workspace *workspace,
                           const t2_block_pass *pass, const float *y, t2_block_outcome *outcome)
{
    int64_t E = block->config.embed_size;
    int is_replaced = pass->overlays != NULL && pass->overlays->replaces_choice;
    int is_choice = block->config.kind == T2_BLOCK_EXPERTS && !is_replaced;
    int is_auto = is_choice && pass->expert == T2_EXPERT_AUTO;
    if (is_auto || pass->want_mean) {
        outcome->status = t2k_mean_team(team, pass->queries * pass->items, E, y, E,
                                        workspace->row_sums, &outcome->mean);
        if (outcome->status != T2K_OK) {
            return NULL;
        }
    }
    if (is_auto) {
        outcome->choice =
            t2_choose_expert(outcome->mean, block->config.num_experts, &outcome->chosen);
        if (outcome->choice != T2_CHOICE_OK) {
            return NULL;
        }
    } else if (is_choice) {
        outcome->chosen = pass->expert;
    } else if (is_replaced) {
        outcome->chosen = -1;
    }
    return is_replaced || block->config.kind == T2_BLOCK_TRADITIONAL
               ? NULL
               : block->scales[outcome->chosen];
}

t2_block_outcome t2_block_run_team(t2k_team *team, const t2_block *block,
                                   const t2_workspace *workspace, const t2_block_pass *pass)
{
    int64_t E = block->config.embed_size, rows = pass->queries * pass->items;
    t2_block_outcome outcome = {T2K_OK, T2_CHOICE_OK, 0, NAN};
    /* Projections are dead once the heads are computed, the heads once they are projected. */
    float *y = pass->attention != NULL ? pass->attention : workspace->qkv;
    float *x = workspace->heads;
    outcome.status = attend(team, block, workspace, pass, y);
    if (outcome.status != T2K_OK) {
        return outcome;
    }
    const float *scale = choose(team, block, workspace, pass, y, &outcome);
    if (outcome.status != T2K_OK || outcome.choice != T2_CHOICE_OK) {
        return outcome;
    }
    outcome.status = norm(team, block, pass, 0, y, scale, pass->query, x);
    if (outcome.status == T2K_OK) {
        outcome.status = t2_linear_team(team, &block->ff0, pass->overlays, rows, x,
                                        workspace->hidden, block->ff0.out, T2K_ACT_RELU, NULL);
    }
    if (outcome.status == T2K_OK) {
        outcome.status = t2_linear_team(team, &block->ff2, pass->overlays, rows, workspace->hidden,
                                        pass->out, E, T2K_ACT_NONE, x);
    }
    if (outcome.status == T2K_OK) {
        outcome.status = norm(team, block, pass, 1, pass->out, NULL, NULL, pass->out);
    }
    return outcome;
}
