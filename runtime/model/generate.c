/* Continuing a sequence token by token, under a causal mask. Where a layer's expert depends on the
 * mean over all positions no step can be reused: every step runs the whole sequence. Else keys and
 * values are kept, and a step runs the last token. */
#include "io/error.h"
#include "model/cache.h"
#include "model/model.h"
#include "model/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- picking a token ----------------------------------------------------------------------- */

struct drawing {
    const float *logits; /* (n) */
    double *weights;     /* (n) */
    int64_t n;
    double temperature, u;
    int64_t token;
};

/* In a region of one thread, for its floating-point environment. */
static void draw(t2k_team *team, void *arg)
{
    struct drawing *d = arg;
    (void)team;
    d->token = t2_sample_token(d->logits, d->n, d->temperature, d->u, d->weights, NULL);
}

/* -1 where the logits give no token. */
static int64_t pick(const t2_generate_args *args, const float *logits, double *weights, int64_t n,
                    int64_t position)
{
    const t2_draw name = {args->seed, args->step, args->prompt_index, args->sample};
    struct drawing drawing = {.logits = logits,
                              .weights = weights,
                              .n = n,
                              .temperature = args->temperature,
                              .token = -1};
    drawing.u = args->temperature > 0.0 ? t2_sample_uniform(&name, position) : 0.0;
    return t2k_parallel(1, draw, &drawing) == T2K_OK ? drawing.token : -1;
}

/* ---- the loop ------------------------------------------------------------------------------ */

struct state {
    int64_t *ids; /* (room) prompt and what was made */
    float *logits;
    double *weights;
    t2_cache *cache; /* NULL: every step is a pass over all */
    int64_t length, made;
    t2_stop stop;
};

/* A cache at first has room for the prompt and this many tokens, and doubles when it is full. */
#define FIRST_ROOM 64

/* The layers choose for themselves, and differently: no cache. The adaptation in use replaces that
 * choice, but there may be none, and then a cache would be refused. */
static t2_status make_cache(t2_session *session, const t2_generate_args *args, int64_t room,
                            t2_cache **cache, t2_error *err)
{
    const t2_model *model = t2_session_model(session);
    if (args->expert == T2_EXPERT_AUTO && !t2_session_adapted(session) &&
        t2_cache_choosing_layer(model) >= 0) {
        return T2_OK;
    }
    int64_t most = args->prompt_length + FIRST_ROOM;
    return t2_cache_create(model, most < room ? most : room, 1, cache, err);
}

/* One more token at the end of state->ids. */
static t2_status next_token(t2_session *session, const t2_generate_args *args, struct state *state,
                            int64_t *token, t2_error *err)
{
    const t2_config *config = t2_model_config(t2_session_model(session));
    int64_t known = state->cache != NULL ? t2_cache_length(state->cache, 0) : 0;
    t2_forward_args forward = {.size = sizeof forward,
                               .ids = state->ids + known,
                               .length = state->length - known,
                               .items = 1,
                               .mask = {.kind = T2_MASK_CAUSAL},
                               .expert = args->expert,
                               .threads = args->threads,
                               .first = state->length - known - 1,
                               .logits = state->logits,
                               .experts = state->made == 0 ? args->experts : NULL,
                               .choice = args->choice,
                               .cache = state->cache};
    t2_status status = T2_OK;
    if (state->cache != NULL && state->length > t2_cache_positions(state->cache)) {
        status = t2_cache_reserve(state->cache, 2 * state->length, err);
    }
    if (status == T2_OK) {
        status = t2_forward(session, &forward, err);
    }
    if (status != T2_OK) {
        return status;
    }
    *token = pick(args, state->logits, state->weights, config->vocab_size, state->length);
    if (*token < 0) {
        return t2_fail(err, T2_ERR_NUMERIC,
                       "the logits at position %lld are not finite: no token can be chosen",
                       (long long)state->length - 1);
    }
    return T2_OK;
}

static t2_status run(t2_session *session, const t2_generate_args *args, int64_t room,
                     struct state *state, t2_error *err)
{
    state->stop = T2_STOP_COUNT;
    while (state->made < args->max_new) {
        if (state->length == room) {
            state->stop = T2_STOP_LENGTH;
            break;
        }
        int64_t token;
        t2_status status = next_token(session, args, state, &token, err);
        if (status != T2_OK) {
            return status;
        }
        if (args->tokens != NULL) {
            args->tokens[state->made] = token;
        }
        state->ids[state->length] = token;
        state->length++;
        state->made++;
        if (args->on_token != NULL &&
            args->on_token(args->on_token_arg, token, state->length - 1) != 0) {
            state->stop = T2_STOP_CALLBACK;
            break;
        }
        if (token == args->end) {
            state->stop = T2_STOP_END;
            break;
        }
    }
    return T2_OK;
}

static t2_status check_args(const t2_config *config, const t2_generate_args *args, t2_error *err)
{
    if (args->size != sizeof *args) {
        return t2_fail(err, T2_ERR_ARG, "t2_generate_args.size is not that of this version");
    }
    if (args->prompt == NULL || args->prompt_length < 1) {
        return t2_fail(err, T2_ERR_ARG, "the prompt is empty: there is nothing to continue");
    }
    if (config->max_length > 0 && args->prompt_length > config->max_length) {
        return t2_fail(err, T2_ERR_ARG,
                       "the prompt has %lld tokens, the model has positions for %lld",
                       (long long)args->prompt_length, (long long)config->max_length);
    }
    if (args->max_new < 0 || !(args->temperature >= 0.0) || isinf(args->temperature)) {
        return t2_fail(err, T2_ERR_ARG, "max_new and temperature must be 0 or more");
    }
    return T2_OK;
}

t2_status t2_generate(t2_session *session, const t2_generate_args *args, t2_error *err)
{
    if (session == NULL || args == NULL) {
        return t2_fail(err, T2_ERR_ARG, "session or arguments are missing");
    }
    const t2_config *config = t2_model_config(t2_session_model(session));
    t2_status status = check_args(config, args, err);
    if (status != T2_OK) {
        return status;
    }
    int64_t room;
    if (__builtin_add_overflow(args->prompt_length, args->max_new, &room)) {
        room = INT64_MAX;
    }
    if (config->max_length > 0 && room > config->max_length) {
        room = config->max_length;
    }
    struct state state = {.ids = t2_alloc(room, sizeof(int64_t)),
                          .logits = t2_alloc(config->vocab_size, sizeof(float)),
                          .weights = t2_alloc(config->vocab_size, sizeof(double)),
                          .length = args->prompt_length};
    if (state.ids == NULL || state.logits == NULL || state.weights == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for a sequence of %lld tokens",
                         (long long)room);
    } else {
        memcpy(state.ids, args->prompt, (size_t)args->prompt_length * sizeof(int64_t));
        t2_session_hold(session);
        status = make_cache(session, args, room, &state.cache, err);
        if (status == T2_OK) {
            status = run(session, args, room, &state, err);
        }
        t2_session_let_go(session);
    }
    t2_cache_destroy(state.cache);
    free(state.ids);
    free(state.logits);
    free(state.weights);
    if (args->count != NULL) {
        *args->count = state.made;
    }
    if (args->stop != NULL && status == T2_OK) {
        *args->stop = state.stop;
    }
    return status;
}
