/* Continuing a sequence token by token. Every step runs the whole sequence under a causal mask:
 * the expert of a layer depends on the mean over all positions, so no step can be reused. */
#include "io/error.h"
#include "model/model.h"

#include <math.h>
#include <sleef.h>
#include <stdlib.h>
#include <string.h>

/* ---- picking a token ----------------------------------------------------------------------- */

/* The first of the largest logits; -1 where one is NaN. */
static int64_t pick_greedy(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i])) {
            return -1;
        }
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* exp((logit - largest) / temperature), in double by a function with the same bits everywhere. */
static double weight_of(float logit, float largest, double temperature)
{
    return Sleef_cinz_expd1_u10purec(((double)logit - (double)largest) / temperature);
}

/* The first token, in rising id, whose cumulative weight exceeds u times the total, else the last
 * one with any weight (rounding can leave the sum short); -1 where the logits give no
 * distribution. */
static int64_t pick_sample(const float *logits, int64_t n, double temperature, double u)
{
    int64_t largest = pick_greedy(logits, n);
    if (largest < 0 || isinf(logits[largest])) {
        return -1;
    }
    double total = 0.0, sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        total += weight_of(logits[i], logits[largest], temperature);
    }
    int64_t last = largest;
    for (int64_t i = 0; i < n; i++) {
        double weight = weight_of(logits[i], logits[largest], temperature);
        sum += weight;
        if (sum > u * total) {
            return i;
        }
        last = weight > 0.0 ? i : last;
    }
    return last;
}

struct drawing {
    const float *logits; /* (n) */
    int64_t n;
    double temperature, u;
    int64_t token;
};

/* In a region of one thread, for its floating-point environment. */
static void draw(t2k_team *team, void *arg)
{
    struct drawing *d = arg;
    (void)team;
    d->token = pick_sample(d->logits, d->n, d->temperature, d->u);
}

/* -1 where the logits give no distribution. */
static int64_t pick(const t2_generate_args *args, const float *logits, int64_t n, int64_t position)
{
    if (args->temperature <= 0.0) {
        return pick_greedy(logits, n);
    }
    t2_random random = t2_random_key(args->seed, "sample", 0);
    const uint32_t counter[4] = {args->step, args->prompt_index, args->sample, (uint32_t)position};
    uint32_t words[4];
    t2k_philox4x32(counter, random.key, words);
    struct drawing drawing = {logits, n, args->temperature, t2_random_uniform(words[0], words[1]),
                              -1};
    return t2k_parallel(1, draw, &drawing) == T2K_OK ? drawing.token : -1;
}

/* ---- the loop ------------------------------------------------------------------------------ */

struct state {
    int64_t *ids; /* (room) prompt and what was made */
    float *logits;
    int64_t length, made;
    t2_stop stop;
};

/* One more token at the end of state->ids. */
static t2_status next_token(t2_session *session, const t2_generate_args *args, struct state *state,
                            int64_t *token, t2_error *err)
{
    const t2_config *config = t2_model_config(t2_session_model(session));
    t2_forward_args forward = {.size = sizeof forward,
                               .ids = state->ids,
                               .length = state->length,
                               .items = 1,
                               .mask = {.kind = T2_MASK_CAUSAL},
                               .expert = args->expert,
                               .threads = args->threads,
                               .first = state->length - 1,
                               .logits = state->logits,
                               .experts = state->made == 0 ? args->experts : NULL,
                               .choice = args->choice};
    t2_status status = t2_forward(session, &forward, err);
    if (status != T2_OK) {
        return status;
    }
    *token = pick(args, state->logits, config->vocab_size, state->length);
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
                          .length = args->prompt_length};
    if (state.ids == NULL || state.logits == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for a sequence of %lld tokens",
                         (long long)room);
    } else {
        memcpy(state.ids, args->prompt, (size_t)args->prompt_length * sizeof(int64_t));
        status = run(session, args, room, &state, err);
    }
    free(state.ids);
    free(state.logits);
    if (args->count != NULL) {
        *args->count = state.made;
    }
    if (args->stop != NULL && status == T2_OK) {
        *args->stop = state.stop;
    }
    return status;
}
