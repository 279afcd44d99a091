/* Experts in memory and the arithmetic of their scales. Internal. */
#ifndef T2_SVF_EXPERT_H
#define T2_SVF_EXPERT_H

#include "t2.h"

#include <stdatomic.h>

struct t2_expert {
    atomic_long references;
    t2_expert_form form;
    char factors_hash[T2_HASH_CHARS];
    char base_hash[T2_HASH_CHARS];
    char *name;
    int64_t count;
    t2_expert_vector *vectors; /* (count) by name; names and values lie in `strings`, `values` */
    char *strings;
    float *values;
    size_t pair_count;
    t2_pair *pairs;
    size_t bytes;
};

/* Smallest sum(S a) that is no error, as a share of sum(S). */
#define T2_SCALE_EPSILON 1e-12

/* One vector's scales. S (r) or, for CHANNEL, NULL; p NULL: neutral. Outputs may be NULL;
 * `what` names the matrix in messages. */
t2_status t2_scales(const t2_expert_form *form, int64_t r, const float *S, const float *p,
                    float *scaled, float *z, float *a, double *c, const char *what, t2_error *err);

/* z = c a of given a, with c = sum(S) / sum(S a), or 1 where S is NULL. */
t2_status t2_scales_normalise(int64_t r, const float *S, const float *a, float *z, double *c,
                              const char *what, t2_error *err);

/* One matrix of a mixture: vectors p[k] (NULL: neutral) of experts with forms[k]. S is NULL for
 * CHANNEL. *normalise says how `stored` (r) is to be read: identity with or without c. */
t2_status t2_mix_vector(t2_mix_rule rule, int64_t count, const t2_expert_form *const *forms,
                        const float *const *p, const double *alpha, int64_t r, const float *S,
                        float *stored, const char *what, t2_error *err);

/* Whether the vectors of a mixture by this rule are stored with the normaliser. */
int t2_mix_normalises(t2_mix_rule rule);

const char *t2_squash_str(t2_squash squash);

#endif
