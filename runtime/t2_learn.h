/* t2_learn.h - learning and adaptation: the part of t2.h (which includes it) on top of experts. */
#ifndef T2_LEARN_H
#define T2_LEARN_H

#include "t2.h"
#include "t2_experts.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- rollouts ------------------------------------------------------------------------------ */

/* Rollout (i, s) is sample s of prompt i, at index i * samples + s. */
typedef struct t2_rollout_args {
    size_t size;                   /* sizeof(t2_rollout_args) */
    const int64_t *prompts;        /* (sum of prompt_lengths) tokens, one prompt after another */
    const int64_t *prompt_lengths; /* (count) 1 or more each */
    int64_t count;                 /* of prompts */
    int64_t samples;               /* of each prompt, 1 or more */
    int64_t max_new;               /* tokens that are made at most */
    int64_t end;                   /* a rollout ends with this token; -1: none */
    double temperature;            /* 0: greedy, the lowest id among the largest logits */
    uint64_t seed;
    uint32_t step;
    const uint32_t *prompt_index;           /* (count) in the random numbers; NULL: 0, 1, 2 ... */
    int64_t expert;                         /* T2_EXPERT_AUTO or an index */
    const struct t2_adaptation *adaptation; /* as in t2_forward_args */
    const int64_t *expert_rows; /* (count) of the prompts, -1: the base; NULL: 0 for all */
    int threads;                /* as in t2_forward_args */
    /* Called after each position with the number of rollouts that go on; nonzero stops. */
    int (*on_position)(void *arg, int64_t made, int64_t active);
    void *on_position_arg;
    int64_t *tokens;   /* out: (count, samples, max_new) the end token included; then -1 */
    int64_t *lengths;  /* out: (count, samples) how many */
    double *log_probs; /* out: (count, samples, max_new) of each token at the temperature, at 1
                          where that is 0; then 0; or NULL */
    t2_stop *stops;    /* out: (count, samples) why; or NULL */
    uint64_t *tag;     /* out: of the adaptation that was used, 0 for none; or NULL */
} t2_rollout_args;

/* Samples from a causal model, all rollouts in one batch with a cache: a prompt is read once for
 * all of its samples, and what has ended takes no further part. A rollout depends on the model, its
 * expert, seed, step, prompt, its index and the sample's number only: it has the tokens that
 * t2_generate() makes from them, whatever else is in the batch. The whole call computes with the
 * adaptation that it began with. T2_ERR_ARG: as t2_forward() with a cache; T2_ERR_NUMERIC: logits
 * without a distribution; T2_ERR_STOPPED: a callback asked for it. After a failure the outputs hold
 * what was made so far, with the stop T2_STOP_CALLBACK for what had not ended. */
T2_API t2_status t2_rollout(t2_session *session, const t2_rollout_args *args, t2_error *err);

#ifdef __cplusplus
}
#endif
#endif
