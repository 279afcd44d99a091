/* One block by itself: opening it from a file, one forward pass. */
#include "io/error.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

t2_status t2_block_open(t2_safetensors *file, const char *prefix, const t2_block_config *config,
                        t2_block **block, t2_error *err)
{
    if (file == NULL || prefix == NULL || config == NULL || block == NULL) {
        return t2_fail(err, T2_ERR_ARG, "file, prefix, configuration or place is missing");
    }
    if (strlen(prefix) >= T2_NAME_MAX / 2) {
        return t2_fail(err, T2_ERR_ARG, "the prefix is longer than %d bytes", T2_NAME_MAX / 2 - 1);
    }
    t2_status status = t2_block_config_check(config, err);
    if (status != T2_OK) {
        return status;
    }
    t2_block *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    status = t2_block_load(made, file, prefix, config, 1, err);
    if (status != T2_OK) {
        t2_block_close(made);
        return status;
    }
    *block = made;
    return T2_OK;
}

void t2_block_close(t2_block *block)
{
    if (block != NULL) {
        t2_block_unload(block);
        free(block);
    }
}

struct run {
    const t2_block *block;
    const t2_workspace *workspace;
    t2_block_pass pass;
    t2_block_outcome outcome; /* written by thread 0 */
};

static void run_member(t2k_team *team, void *arg)
{
    struct run *run = arg;
    t2_block_outcome outcome = t2_block_run_team(team, run->block, run->workspace, &run->pass);
    if (t2k_team_rank(team) == 0) {
        run->outcome = outcome;
    }
}

static t2_status check_args(const t2_block *block, const t2_block_args *args, t2_error *err)
{
    int64_t elements = args->queries, key_elements = args->keys;
    if (args->size != sizeof *args) {
        return t2_fail(err, T2_ERR_ARG, "t2_block_args.size is not that of this version");
    }
    if (!t2_multiply(&elements, args->items) || !t2_multiply(&key_elements, args->items) ||
        !t2_multiply(&elements, block->config.embed_size) ||
        !t2_multiply(&key_elements, block->config.embed_size)) {
        return t2_fail(err, T2_ERR_ARG, "the sizes are negative or overflow");
    }
    if ((elements > 0 && (args->query == NULL || args->out == NULL)) ||
        (key_elements > 0 && (args->key == NULL || args->value == NULL))) {
        return t2_fail(err, T2_ERR_ARG, "an input or the output is missing");
    }
    if (block->config.kind == T2_BLOCK_EXPERTS && args->expert != T2_EXPERT_AUTO &&
        (args->expert < 0 || args->expert >= block->config.num_experts)) {
        return t2_fail(err, T2_ERR_ARG, "there is no expert %lld: the block has %lld",
                       (long long)args->expert, (long long)block->config.num_experts);
    }
    return T2_OK;
}

static t2_status run_block(const t2_block *block, const t2_block_args *args,
                           t2_workspace *workspace, t2_error *err)
{
    struct run run = {.block = block, .workspace = workspace};
    t2_block_pass *pass = &run.pass;
    t2_status status =
        t2_workspace_reserve(workspace, block->config.embed_size, block->config.forward_expansion,
                             args->queries * args->items, args->keys * args->items, err);
    if (status == T2_OK) {
        status = t2_mask_resolve(&args->mask, args->queries, args->keys, block->config.heads,
                                 &pass->mask, err);
    }
    if (status != T2_OK) {
        return status;
    }
    pass->value = args->value;
    pass->key = args->key;
    pass->query = args->query;
    pass->queries = args->queries;
    pass->keys = args->keys;
    pass->items = args->items;
    pass->expert = args->expert;
    pass->want_mean = args->mean != NULL;
    pass->dropout = args->training ? (float)block->config.dropout : 0.0f;
    pass->dropout_key.seed = t2_random_seed(t2_random_key(args->seed, "dropout", args->step));
    pass->dropout_key.layer = args->layer;
    pass->attention = args->attention;
    pass->out = args->out;
    int threads =
        t2_threads_for(t2_block_flops(&block->config, args->queries, args->keys, args->items),
                       t2_block_weight_bytes(&block->config), T2_BLOCK_BARRIERS, args->threads);
    t2k_status kernel = t2k_parallel(threads, run_member, &run);
    kernel = kernel != T2K_OK ? kernel : run.outcome.status;
    if (kernel != T2K_OK) {
        return t2_fail_kernel(err, kernel, "block");
    }
    if (args->choice != NULL) {
        *args->choice = run.outcome.choice;
    }
    if (run.outcome.choice != T2_CHOICE_OK) {
        return t2_fail_choice(err, run.outcome.choice, run.outcome.mean, "block");
    }
    if (args->chosen != NULL) {
        *args->chosen = (int)run.outcome.chosen;
    }
    if (args->mean != NULL) {
        *args->mean = run.outcome.mean;
    }
    return T2_OK;
}

t2_status t2_block_forward(const t2_block *block, const t2_block_args *args, t2_error *err)
{
    if (block == NULL || args == NULL) {
        return t2_fail(err, T2_ERR_ARG, "block or arguments are missing");
    }
    t2_status status = check_args(block, args, err);
    if (status != T2_OK) {
        return status;
    }
    t2_workspace workspace = {0};
    status = run_block(block, args, &workspace, err);
    t2_workspace_free(&workspace);
    return status;
}
