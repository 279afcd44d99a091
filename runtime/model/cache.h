/* Keys and values of earlier positions, from the side of the forward pass. Internal. */
#ifndef T2_MODEL_CACHE_H
#define T2_MODEL_CACHE_H

#include "t2.h"
#include "t2k.h"

/* What the state of some items is computed under. */
typedef struct t2_cache_key {
    uint64_t tag;               /* of the adaptation; 0: none */
    int64_t expert;             /* of the model's own, where there is no adaptation */
    const int64_t *expert_rows; /* (L, N) as in t2_forward_args; NULL: 0 for all */
} t2_cache_key;

/* May a call append args->length positions to its items under `key`? Says why not. */
t2_status t2_cache_admit(const t2_cache *cache, const t2_model *model, const t2_forward_args *args,
                         const t2_cache_key *key, t2_error *err);

/* The call that was admitted is done: its positions belong to the items from now on. */
void t2_cache_append(t2_cache *cache, const t2_forward_args *args, const t2_cache_key *key);

/* Causal attention of new positions, described by `fresh` as if there were no others, to all of
 * their items' positions up to each; keeps the new keys and values of the layer. `first` is the
 * item of the cache that item 0 of `fresh` is. */
t2k_status t2_cache_attention_team(t2k_team *team, t2_cache *cache, int64_t layer, int64_t first,
                                   const t2k_attention_args *fresh);

/* -1 where the automatic choice of an expert cannot change any result, because all scales of each
 * layer are the same; else a layer where it can. */
int64_t t2_cache_choosing_layer(const t2_model *model);

/* Room for positions of each item. */
int64_t t2_cache_positions(const t2_cache *cache);

#endif
