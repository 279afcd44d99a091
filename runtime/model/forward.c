/* The forward pass of a whole model, in one parallel region: embedding, the blocks in turn,
 * fc_out. A layer's choice of expert depends on the layers before it, so it is made inside, by
 * every thread alike from the same mean. */
#include "io/error.h"
#include "model/adaptation.h"
#include "model/cache.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

struct t2_session {
    const t2_model *model;
    t2_workspace workspace;
    float *x; /* (tokens, E): the stream between the layers */
    int64_t x_room;
    t2_slot *slot; /* where its adaptation comes from; NULL: the model alone */
    t2_hazard *hazard;
    int held;                  /* how often it is held */
    const t2_adaptation *kept; /* while it is */
    float *middle;             /* what overlays need */
    int64_t *rows;             /* (tokens) rows of the adaptation's tables */
    int64_t middle_room, rows_room;
};

static t2_status reserve(t2_session *session, int64_t tokens, t2_error *err)
{
    const t2_config *config = &session->model->config;
    t2_status status = t2_workspace_reserve(&session->workspace, config->embed_size,
                                            config->forward_expansion, tokens, tokens, err);
    if (status != T2_OK || (session->x != NULL && session->x_room >= tokens)) {
        return status;
    }
    free(session->x);
    session->x_room = 0;
    session->x = t2_alloc(tokens * config->embed_size, sizeof(float)); /* fits: as the heads do */
    if (session->x == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for %lld tokens", (long long)tokens);
    }
    session->x_room = tokens;
    return T2_OK;
}

t2_status t2_session_create(const t2_model *model, int64_t tokens, t2_session **session,
                            t2_error *err)
{
    if (model == NULL || session == NULL || tokens < 0) {
        return t2_fail(err, T2_ERR_ARG, "no model, no place, or a negative number of tokens");
    }
    t2_session *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    made->model = model;
    t2_status status = reserve(made, tokens, err);
    if (status != T2_OK) {
        t2_session_destroy(made);
        return status;
    }
    *session = made;
    return T2_OK;
}

void t2_session_destroy(t2_session *session)
{
    if (session != NULL) {
        t2_workspace_free(&session->workspace);
        t2_session_take_from(session, NULL, NULL);
        free(session->x);
        free(session->middle);
        free(session->rows);
        free(session);
    }
}

t2_status t2_session_take_from(t2_session *session, t2_slot *slot, t2_error *err)
{
    t2_hazard *hazard = slot != NULL ? t2_hazard_create(slot) : NULL;
    if (slot != NULL && hazard == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_hazard_destroy(session->hazard, session->slot);
    session->slot = slot;
    session->hazard = hazard;
    return T2_OK;
}

const t2_model *t2_session_model(const t2_session *session)
{
    return session->model;
}

struct run {
    const t2_session *session;
    const t2_forward_args *args;
    const t2_overlay_call *overlays; /* NULL: the model alone */
    t2_strided_mask mask;
    t2k_dropout_key dropout_key;
    int64_t layer;            /* written by thread 0, as the rest: where it ended */
    t2_block_outcome outcome; /* of that layer */
};

/* All blocks, in place on the session's x. Returns the outcome of the last one that ran. */
static t2_block_outcome run_blocks(t2k_team *team, struct run *run)
{
    const t2_session *session = run->session;
    const t2_model *model = session->model;
    const t2_forward_args *args = run->args;
    t2_block_outcome outcome = {T2K_OK, T2_CHOICE_OK, 0, 0.0f};
    t2_block_pass pass = {.value = session->x,
                          .key = session->x,
                          .query = session->x,
                          .queries = args->length,
                          .keys = args->length,
                          .items = args->items,
                          .mask = run->mask,
                          .expert = args->expert,
                          .overlays = run->overlays,
                          .want_mean = args->means != NULL,
                          .dropout = args->training ? (float)model->config.dropout : 0.0f,
                          .dropout_key = run->dropout_key,
                          .out = session->x,
                          .cache = args->cache,
                          .cache_item = args->cache_item};
    for (int64_t i = 0; i < model->config.num_layers; i++) {
        pass.dropout_key.layer = (uint32_t)i;
        pass.layer = i;
        outcome = t2_block_run_team(team, &model->blocks[i], &session->workspace, &pass);
        int failed = outcome.status != T2K_OK || outcome.choice != T2_CHOICE_OK;
        if (t2k_team_rank(team) == 0) {
            run->layer = i;
            if (args->experts != NULL && !failed) {
                args->experts[i] = (int)outcome.chosen;
            }
            if (args->means != NULL) {
                args->means[i] = outcome.mean;
            }
        }
        if (failed) {
            break;
        }
    }
    return outcome;
}

static void run_member(t2k_team *team, void *arg)
{
    struct run *run = arg;
    const t2_session *session = run->session;
    const t2_model *model = session->model;
    const t2_forward_args *args = run->args;
    int64_t E = model->config.embed_size, V = model->config.vocab_size;
    int64_t rows = args->length * args->items, skipped = args->first * args->items;
    t2_block_outcome outcome = {T2K_OK, T2_CHOICE_OK, 0, 0.0f};
    outcome.status =
        t2k_embedding_team(team, rows, E, V, model->embedding, E, args->ids, session->x, E);
    if (outcome.status == T2K_OK) {
        outcome = run_blocks(team, run);
    }
    if (outcome.status == T2K_OK && outcome.choice == T2_CHOICE_OK) {
        outcome.status =
            t2_linear_team(team, &model->fc_out, run->overlays, rows - skipped,
                           session->x + skipped * E, args->logits, V, T2K_ACT_NONE, NULL);
    }
    if (t2k_team_rank(team) == 0) {
        run->outcome = outcome;
    }
}

/* ---- arguments ----------------------------------------------------------------------------- */

static t2_status check_ids(const t2_config *config, const t2_forward_args *args, t2_error *err)
{
    for (int64_t i = 0; i < args->length * args->items; i++) {
        if (args->ids[i] < 0 || args->ids[i] >= config->vocab_size) {
            return t2_fail(err, T2_ERR_ARG,
                           "id %lld at position %lld of item %lld is outside the vocabulary of "
                           "%lld (0 .. %lld)",
                           (long long)args->ids[i], (long long)(i / args->items),
                           (long long)(i % args->items), (long long)config->vocab_size,
                           (long long)config->vocab_size - 1);
        }
    }
    return T2_OK;
}

static t2_status check_args(const t2_config *config, const t2_forward_args *args, t2_error *err)
{
    if (args->size != sizeof *args) {
        return t2_fail(err, T2_ERR_ARG, "t2_forward_args.size is not that of this version");
    }
    int64_t tokens = args->length, logits;
    int fits = t2_multiply(&tokens, args->items);
    logits = tokens;
    if (!fits || !t2_multiply(&logits, config->vocab_size) ||
        !t2_multiply(&logits, (int64_t)sizeof(float))) {
        return t2_fail(err, T2_ERR_ARG, "the sizes are negative or overflow");
    }
    if (args->threads < 0) {
        return t2_fail(err, T2_ERR_ARG, "%d threads", args->threads);
    }
    if (args->first < 0 || args->first > args->length) {
        return t2_fail(err, T2_ERR_ARG, "first = %lld is not a position of 0 .. %lld",
                       (long long)args->first, (long long)args->length);
    }
    if (tokens > 0 && (args->ids == NULL || (args->logits == NULL && args->first < args->length))) {
        return t2_fail(err, T2_ERR_ARG, "ids or logits are missing");
    }
    if (args->expert != T2_EXPERT_AUTO &&
        (args->expert < 0 || args->expert >= config->num_experts)) {
        return t2_fail(err, T2_ERR_ARG, "there is no expert %lld: the model has %lld",
                       (long long)args->expert, (long long)config->num_experts);
    }
    return check_ids(config, args, err);
}

/* ---- experts -------------------------------------------------------------------------------- */

/* Room for the overlays of a call, and each row's place in their tables. */
static t2_status prepare_overlays(t2_session *session, const t2_adaptation *adaptation,
                                  const t2_forward_args *args, t2_overlay_call *call, t2_error *err)
{
    int64_t tokens = args->length * args->items, middle = tokens;
    if (adaptation->model != session->model) {
        return t2_fail(err, T2_ERR_ARG, "the adaptation is of another model");
    }
    if (!t2_multiply(&middle, adaptation->middle) ||
        !t2_grow(&session->middle, &session->middle_room, middle, sizeof(float)) ||
        !t2_grow(&session->rows, &session->rows_room, tokens, sizeof(int64_t))) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for the experts of %lld tokens",
                       (long long)tokens);
    }
    *call = (t2_overlay_call){
        .overlays = adaptation->overlays, .middle = session->middle, .replaces_choice = 1};
    if (args->expert_rows == NULL) {
        return T2_OK;
    }
    call->rows = session->rows;
    return t2_adaptation_rows_of(adaptation, tokens, args->expert_rows, session->rows, err);
}

/* ---- one call ------------------------------------------------------------------------------- */

static t2_status run_all(t2_session *session, const t2_forward_args *args,
                         const t2_adaptation *adaptation, t2_error *err)
{
    const t2_config *config = &session->model->config;
    struct run run = {.session = session, .args = args};
    t2_overlay_call overlays;
    const t2_cache_key key = {adaptation != NULL ? adaptation->tag : 0, args->expert,
                              args->expert_rows};
    t2_status status = reserve(session, args->length * args->items, err);
    if (status == T2_OK) {
        status =
            t2_mask_resolve(&args->mask, args->length, args->length, config->heads, &run.mask, err);
    }
    if (status == T2_OK && adaptation != NULL) {
        status = prepare_overlays(session, adaptation, args, &overlays, err);
        run.overlays = &overlays;
    } else if (status == T2_OK && args->expert_rows != NULL) {
        status = t2_fail(err, T2_ERR_ARG, "rows have experts, but no adaptation is in use");
    }
    if (status == T2_OK && args->cache != NULL) {
        status = t2_cache_admit(args->cache, session->model, args, &key, err);
    }
    if (status != T2_OK) {
        return status;
    }
    run.dropout_key.seed = t2_random_seed(t2_random_key(args->seed, "dropout", args->step));
    int threads = t2_forward_threads(config, args->length, args->items, args->threads);
    t2k_status kernel = t2k_parallel(threads, run_member, &run);
    kernel = kernel != T2K_OK ? kernel : run.outcome.status;
    if (kernel != T2K_OK) {
        return t2_fail_kernel(err, kernel, "forward pass");
    }
    if (args->choice != NULL) {
        *args->choice = run.outcome.choice;
    }
    if (args->tag != NULL) {
        *args->tag = key.tag;
    }
    if (run.outcome.choice != T2_CHOICE_OK) {
        char where[40];
        snprintf(where, sizeof where, "layer %lld", (long long)run.layer);
        return t2_fail_choice(err, run.outcome.choice, run.outcome.mean, where);
    }
    if (args->cache != NULL) {
        t2_cache_append(args->cache, args, &key);
    }
    return T2_OK;
}

void t2_session_hold(t2_session *session)
{
    if (session->held++ == 0) {
        session->kept =
            session->slot != NULL ? t2_hazard_enter(session->hazard, session->slot) : NULL;
    }
}

void t2_session_let_go(t2_session *session)
{
    if (--session->held == 0 && session->slot != NULL) {
        t2_hazard_leave(session->hazard);
    }
}

int t2_session_adapted(const t2_session *session)
{
    return session->kept != NULL;
}

t2_status t2_forward(t2_session *session, const t2_forward_args *args, t2_error *err)
{
    if (session == NULL || args == NULL) {
        return t2_fail(err, T2_ERR_ARG, "session or arguments are missing");
    }
    t2_status status = check_args(&session->model->config, args, err);
    if (status != T2_OK) {
        return status;
    }
    if (args->adaptation != NULL) {
        return run_all(session, args, args->adaptation, err);
    }
    t2_session_hold(session);
    status = run_all(session, args, session->kept, err);
    t2_session_let_go(session);
    return status;
}

uint64_t t2_logits_fingerprint(const t2_config *config, int64_t length, int64_t items,
                               const float *logits)
{
    const int64_t shape[3] = {length, items, config->vocab_size};
    return t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 3, shape, logits);
}
