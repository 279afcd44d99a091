/* Rollouts: many continuations of many prompts, sampled in one batch.
 *
 * Prompts are put in the order of their lengths, those of one length are read together, and then
 * each takes as many items of the cache as it has samples. From there on all items advance by a
 * token at a time; those that have ended leave the cache. Results do not depend on that order: a
 * row's logits have the same bits in any batch, and random numbers are named by prompt and
 * sample. */
#include "t2_learn.h"

#include "io/error.h"
#include "model/model.h"
#include "model/sample.h"

#include <math.h>
#include <stdlib.h>

/* A rollout under way. */
struct row {
    int64_t prompt, sample;
};

struct place {
    int64_t length, prompt;
};

struct rollout {
    t2_session *session;
    const t2_rollout_args *args;
    const t2_config *config;
    int64_t V;
    int64_t *starts;     /* (count) where a prompt begins in args->prompts */
    struct place *order; /* (count) prompts by length */
    struct row *rows;    /* (count * samples) by item of the cache */
    int64_t active;      /* how many go on */
    int64_t *ids;        /* of the next call */
    int64_t *experts;    /* rows of the adaptation, of the next call */
    int64_t *from;       /* (count * samples) items for t2_cache_select(), and places in: */
    float *logits;       /* (count * samples, V); at first one row for each prompt */
    double *weights;     /* (threads, V) */
    int threads;         /* of sampling at most */
    int64_t made;        /* tokens of each active row */
    t2_cache *cache;
};

/* ---- arguments ------------------------------------------------------------------------------ */

static t2_status check_prompts(const t2_config *config, const t2_rollout_args *args, t2_error *err)
{
    const int64_t *token = args->prompts;
    for (int64_t i = 0; i < args->count; i++) {
        if (args->prompt_lengths[i] < 1) {
            return t2_fail(err, T2_ERR_ARG, "prompt %lld is empty: there is nothing to continue",
                           (long long)i);
        }
        if (config->max_length > 0 && args->prompt_lengths[i] > config->max_length) {
            return t2_fail(
                err, T2_ERR_ARG, "prompt %lld has %lld tokens, the model has positions for %lld",
                (long long)i, (long long)args->prompt_lengths[i], (long long)config->max_length);
        }
        for (int64_t t = 0; t < args->prompt_lengths[i]; t++, token++) {
            if (*token < 0 || *token >= config->vocab_size) {
                return t2_fail(err, T2_ERR_ARG,
                               "id %lld at position %lld of prompt %lld is outside the vocabulary "
                               "of %lld",
                               (long long)*token, (long long)t, (long long)i,
                               (long long)config->vocab_size);
            }
        }
    }
    return T2_OK;
}

static t2_status check_args(const t2_config *config, const t2_rollout_args *args, t2_error *err)
{
    if (args->size != sizeof *args) {
        return t2_fail(err, T2_ERR_ARG, "t2_rollout_args.size is not that of this version");
    }
    int64_t rows = args->count, tokens;
    int fits = t2_multiply(&rows, args->samples);
    tokens = rows;
    if (!fits || !t2_multiply(&tokens, args->max_new) ||
        !t2_multiply(&tokens, (int64_t)sizeof(double)) || args->samples < 1 ||
        args->samples > UINT32_MAX || args->count > UINT32_MAX || args->threads < 0) {
        return t2_fail(err, T2_ERR_ARG,
                       "%lld prompts with %lld samples of %lld tokens by %d threads: negative, no "
                       "samples, or too many",
                       (long long)args->count, (long long)args->samples, (long long)args->max_new,
                       args->threads);
    }
    if (!(args->temperature >= 0.0) || isinf(args->temperature)) {
        return t2_fail(err, T2_ERR_ARG, "the temperature must be 0 or more");
    }
    if (args->count > 0 && (args->prompts == NULL || args->prompt_lengths == NULL ||
                            args->tokens == NULL || args->lengths == NULL)) {
        return t2_fail(err, T2_ERR_ARG, "prompts, tokens or lengths are missing");
    }
    return check_prompts(config, args, err);
}

/* ---- memory --------------------------------------------------------------------------------- */

static int by_length(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->length != y->length ? (x->length > y->length) - (x->length < y->length)
                                  : (x->prompt > y->prompt) - (x->prompt < y->prompt);
}

/* Tokens of a rollout of that prompt at most, the prompt's among them. */
static int64_t end_of(const struct rollout *r, int64_t prompt)
{
    int64_t length = r->args->prompt_lengths[prompt], most = r->config->max_length;
    return most > 0 && r->args->max_new > most - length ? most : length + r->args->max_new;
}

static t2_status take_memory(struct rollout *r, t2_error *err)
{
    const t2_rollout_args *args = r->args;
    int64_t count = args->count, rows = count * args->samples, positions = 1, tokens = rows;
    int64_t logits = rows;
    for (int64_t i = 0; i < count; i++) {
        int64_t end = end_of(r, i);
        positions = end > positions ? end : positions;
        tokens = args->prompt_lengths[i] > INT64_MAX - tokens ? INT64_MAX
                                                              : tokens + args->prompt_lengths[i];
    }
    r->starts = t2_alloc(count, sizeof r->starts[0]);
    r->order = t2_alloc(count, sizeof r->order[0]);
    r->rows = t2_alloc(rows, sizeof r->rows[0]);
    r->ids = t2_alloc(tokens, sizeof r->ids[0]);
    r->experts = t2_alloc(tokens, sizeof r->experts[0]);
    r->from = t2_alloc(rows, sizeof r->from[0]);
    r->logits = t2_multiply(&logits, r->V) ? t2_alloc(logits, sizeof r->logits[0]) : NULL;
    r->weights = t2_alloc(r->threads * r->V, sizeof r->weights[0]);
    if (r->starts == NULL || r->order == NULL || r->rows == NULL || r->ids == NULL ||
        r->experts == NULL || r->from == NULL || r->logits == NULL || r->weights == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for %lld rollouts", (long long)rows);
    }
    return t2_cache_create(t2_session_model(r->session), positions, rows, &r->cache, err);
}

static void release(struct rollout *r)
{
    t2_cache_destroy(r->cache);
    free(r->starts);
    free(r->order);
    free(r->rows);
    free(r->ids);
    free(r->experts);
    free(r->from);
    free(r->logits);
    free(r->weights);
}

/* ---- steps ---------------------------------------------------------------------------------- */

/* One call: `length` new positions of `items` items from `first` on. */
static t2_status advance(struct rollout *r, int64_t first, int64_t items, int64_t length,
                         t2_error *err)
{
    const t2_rollout_args *args = r->args;
    t2_forward_args forward = {.size = sizeof forward,
                               .ids = r->ids,
                               .length = length,
                               .items = items,
                               .mask = {.kind = T2_MASK_CAUSAL},
                               .expert = args->expert,
                               .threads = args->threads,
                               .first = length - 1,
                               .logits = r->logits + first * r->V,
                               .adaptation = args->adaptation,
                               .expert_rows = args->expert_rows != NULL ? r->experts : NULL,
                               .tag = args->tag,
                               .cache = r->cache,
                               .cache_item = first};
    return t2_forward(r->session, &forward, err);
}

static int64_t expert_of(const struct rollout *r, int64_t prompt)
{
    return r->args->expert_rows != NULL ? r->args->expert_rows[prompt] : 0;
}

/* Reads all prompts, those of one length in one call. */
static t2_status read_prompts(struct rollout *r, t2_error *err)
{
    const t2_rollout_args *args = r->args;
    t2_status status = T2_OK;
    for (int64_t first = 0, end; first < args->count && status == T2_OK; first = end) {
        int64_t length = r->order[first].length;
        for (end = first; end < args->count && r->order[end].length == length; end++) {
        }
        int64_t items = end - first;
        for (int64_t n = 0; n < items; n++) {
            int64_t prompt = r->order[first + n].prompt;
            for (int64_t t = 0; t < length; t++) {
                r->ids[t * items + n] = args->prompts[r->starts[prompt] + t];
                r->experts[t * items + n] = expert_of(r, prompt);
            }
        }
        status = advance(r, first, items, length, err);
    }
    return status;
}

static void stop_row(const struct rollout *r, const struct row *row, t2_stop stop)
{
    if (r->args->stops != NULL) {
        r->args->stops[row->prompt * r->args->samples + row->sample] = stop;
    }
}

/* All rows that can take a token, with nothing made yet; r->from is the item of their prompt. */
static void start_rows(struct rollout *r)
{
    const t2_rollout_args *args = r->args;
    for (int64_t i = 0, at = 0; i < args->count; i++) {
        r->starts[i] = at;
        at += args->prompt_lengths[i];
        r->order[i] = (struct place){args->prompt_lengths[i], i};
    }
    qsort(r->order, (size_t)args->count, sizeof r->order[0], by_length);
    for (int64_t i = 0; i < args->count * args->samples; i++) {
        int64_t item = i / args->samples;
        const struct row row = {r->order[item].prompt, i % args->samples};
        int full = end_of(r, row.prompt) == r->order[item].length;
        stop_row(r, &row,
                 !full                ? T2_STOP_CALLBACK
                 : args->max_new == 0 ? T2_STOP_COUNT
                                      : T2_STOP_LENGTH);
        args->lengths[i] = 0;
        if (!full) {
            r->rows[r->active] = row;
            r->from[r->active++] = item;
        }
    }
    for (int64_t i = 0; i < args->count * args->samples * args->max_new; i++) {
        args->tokens[i] = -1;
        if (args->log_probs != NULL) {
            args->log_probs[i] = 0.0;
        }
    }
}

/* ---- sampling ------------------------------------------------------------------------------- */

/* An exponential a token takes some 20 ns. */
static int sampling_threads(const struct rollout *r, int64_t rows)
{
    return t2_threads_for(1600.0 * (double)rows * (double)r->V, 0.0, 1.0, r->args->threads);
}

/* A thread's share of the active rows; the logits of row i are at r->from[i]. */
static void sample_member(t2k_team *team, void *arg)
{
    struct rollout *r = arg;
    const t2_rollout_args *args = r->args;
    int64_t size = t2k_team_size(team), rank = t2k_team_rank(team);
    double *weights = r->weights + rank * r->V;
    for (int64_t i = r->active * rank / size; i < r->active * (rank + 1) / size; i++) {
        const struct row *row = &r->rows[i];
        int64_t rollout = row->prompt * args->samples + row->sample;
        int64_t at = rollout * args->max_new + r->made;
        uint32_t index =
            args->prompt_index != NULL ? args->prompt_index[row->prompt] : (uint32_t)row->prompt;
        const t2_draw draw = {args->seed, args->step, index, (uint32_t)row->sample};
        double log_prob = 0.0;
        double u = t2_sample_uniform(&draw, args->prompt_lengths[row->prompt] + r->made);
        args->tokens[at] = t2_sample_token(r->logits + r->from[i] * r->V, r->V, args->temperature,
                                           u, weights, &log_prob);
        if (args->log_probs != NULL) {
            args->log_probs[at] = log_prob;
        }
    }
}

static t2_status fail_row(const struct rollout *r, int64_t row, t2_error *err)
{
    return t2_fail(err, T2_ERR_NUMERIC,
                   "prompt %lld, sample %lld: the logits at position %lld are not finite: no token "
                   "can be chosen",
                   (long long)r->rows[row].prompt, (long long)r->rows[row].sample,
                   (long long)(r->args->prompt_lengths[r->rows[row].prompt] + r->made - 1));
}

/* A token for each active row. Those that go on are moved together, with their token in r->ids and
 * their former place in r->from. */
static t2_status sample(struct rollout *r, t2_error *err)
{
    const t2_rollout_args *args = r->args;
    int threads = sampling_threads(r, r->active);
    t2k_status kernel = t2k_parallel(threads < r->threads ? threads : r->threads, sample_member, r);
    if (kernel != T2K_OK) {
        return t2_fail_kernel(err, kernel, "sampling");
    }
    int64_t left = 0;
    for (int64_t i = 0; i < r->active; i++) {
        struct row row = r->rows[i];
        int64_t rollout = row.prompt * args->samples + row.sample;
        int64_t *token = &args->tokens[rollout * args->max_new + r->made];
        if (*token < 0) {
            return fail_row(r, i, err);
        }
        int64_t length = args->prompt_lengths[row.prompt] + r->made + 1;
        int ended = *token == args->end;
        args->lengths[rollout] = r->made + 1;
        if (ended || length == end_of(r, row.prompt)) {
            stop_row(r, &row,
                     ended                          ? T2_STOP_END
                     : r->made + 1 == args->max_new ? T2_STOP_COUNT
                                                    : T2_STOP_LENGTH);
        } else {
            r->rows[left] = row;
            r->ids[left] = *token;
            r->experts[left] = expert_of(r, row.prompt);
            r->from[left++] = i;
        }
    }
    r->active = left;
    return T2_OK;
}

/* The active rows' items of the cache, moved together, and a token more in each. */
static t2_status next_position(struct rollout *r, int moved, t2_error *err)
{
    t2_status status = T2_OK;
    if (moved) {
        status = t2_cache_select(r->cache, r->from, r->active, err);
    }
    for (int64_t i = 0; i < r->active; i++) {
        r->from[i] = i;
    }
    return status == T2_OK ? advance(r, 0, r->active, 1, err) : status;
}

static t2_status run(struct rollout *r, t2_error *err)
{
    const t2_rollout_args *args = r->args;
    t2_status status = read_prompts(r, err);
    if (status == T2_OK) {
        status = t2_cache_select(r->cache, r->from, r->active, err);
    }
    while (status == T2_OK) {
        int64_t before = r->active;
        status = sample(r, err);
        r->made++;
        if (status != T2_OK) {
            break;
        }
        if (args->on_position != NULL &&
            args->on_position(args->on_position_arg, r->made, r->active) != 0 && r->active > 0) {
            return t2_fail(err, T2_ERR_STOPPED, "the rollouts were stopped after %lld tokens",
                           (long long)r->made);
        }
        if (r->active == 0) {
            break;
        }
        status = next_position(r, r->active < before, err);
    }
    return status;
}

t2_status t2_rollout(t2_session *session, const t2_rollout_args *args, t2_error *err)
{
    if (session == NULL || args == NULL) {
        return t2_fail(err, T2_ERR_ARG, "session or arguments are missing");
    }
    const t2_config *config = t2_model_config(t2_session_model(session));
    t2_status status = check_args(config, args, err);
    if (status != T2_OK) {
        return status;
    }
    struct rollout r = {
        .session = session, .args = args, .config = config, .V = config->vocab_size};
    r.threads = sampling_threads(&r, args->count * args->samples);
    if (args->tag != NULL) {
        *args->tag = 0;
    }
    status = args->count > 0 ? take_memory(&r, err) : T2_OK;
    if (status == T2_OK && args->count > 0) {
        start_rows(&r);
        if (r.active > 0) {
            t2_session_hold(session);
            status = run(&r, err);
            t2_session_let_go(session);
        }
    }
    release(&r);
    return status;
}
