/* A key/value cache: what attention needs of the positions that a causal model has already seen.
 *
 * Keys and values of a layer are (items, positions, E) each, so that an item's keys lie together
 * however many items there are. Attention of new positions over them has the bits of the full pass,
 * since its blocks of keys count from key 0 (docs/numerics.md, attention). */
#include "model/cache.h"

#include "io/error.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

struct t2_cache {
    const t2_model *model;
    int64_t positions, items;
    int64_t width;    /* E */
    int64_t choosing; /* see t2_cache_choosing_layer() */
    float *data[2];   /* keys, values: (layers, items, positions, E) */
    int64_t *length;  /* (items) */
    int64_t *row;     /* (items) the row of the adaptation that computed it */
    uint64_t tag;     /* of all items that are not empty */
    int64_t expert;
};

/* ---- memory -------------------------------------------------------------------------------- */

/* Bytes of the keys, and likewise of the values; -1: more than there can be. */
static int64_t bytes_of(const t2_model *model, int64_t positions, int64_t items)
{
    int64_t bytes = (int64_t)sizeof(float);
    int fits = t2_multiply(&bytes, model->config.num_layers) &&
               t2_multiply(&bytes, model->config.embed_size) && t2_multiply(&bytes, positions) &&
               t2_multiply(&bytes, items) && bytes <= INT64_MAX / 4;
    return fits ? bytes : -1;
}

static t2_status take_data(const t2_model *model, int64_t positions, int64_t items, float *data[2],
                           t2_error *err)
{
    int64_t bytes = bytes_of(model, positions, items);
    data[0] = bytes >= 0 ? t2_alloc(bytes, 1) : NULL;
    data[1] = bytes >= 0 ? t2_alloc(bytes, 1) : NULL;
    if (data[0] == NULL || data[1] == NULL) {
        free(data[0]);
        free(data[1]);
        data[0] = data[1] = NULL;
        return t2_fail(err, T2_ERR_NOMEM,
                       "out of memory for a cache of %lld positions of %lld items",
                       (long long)positions, (long long)items);
    }
    return T2_OK;
}

int64_t t2_cache_choosing_layer(const t2_model *model)
{
    size_t bytes = (size_t)model->config.embed_size * sizeof(float);
    for (int64_t i = 0; i < model->config.num_layers; i++) {
        const t2_block *block = &model->blocks[i];
        for (int64_t j = 1; j < block->config.num_experts; j++) {
            if (memcmp(block->scales[0], block->scales[j], bytes) != 0) {
                return i;
            }
        }
    }
    return -1;
}

t2_status t2_cache_create(const t2_model *model, int64_t positions, int64_t items, t2_cache **cache,
                          t2_error *err)
{
    if (model == NULL || cache == NULL || positions < 1 || items < 1) {
        return t2_fail(err, T2_ERR_ARG, "no model, no place, or no positions or items");
    }
    t2_cache *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    made->model = model;
    made->positions = positions;
    made->items = items;
    made->width = model->config.embed_size;
    made->choosing = t2_cache_choosing_layer(model);
    t2_status status = take_data(model, positions, items, made->data, err);
    if (status == T2_OK) {
        made->length = calloc((size_t)items, sizeof made->length[0]);
        made->row = calloc((size_t)items, sizeof made->row[0]);
        if (made->length == NULL || made->row == NULL) {
            status = t2_fail(err, T2_ERR_NOMEM, "out of memory for a cache of %lld items",
                             (long long)items);
        }
    }
    if (status != T2_OK) {
        t2_cache_destroy(made);
        return status;
    }
    *cache = made;
    return T2_OK;
}

void t2_cache_destroy(t2_cache *cache)
{
    if (cache != NULL) {
        free(cache->data[0]);
        free(cache->data[1]);
        free(cache->length);
        free(cache->row);
        free(cache);
    }
}

static float *place(const t2_cache *cache, int which, int64_t layer, int64_t item)
{
    return cache->data[which] + (layer * cache->items + item) * cache->positions * cache->width;
}

t2_status t2_cache_reserve(t2_cache *cache, int64_t positions, t2_error *err)
{
    if (cache == NULL || positions < 0) {
        return t2_fail(err, T2_ERR_ARG, "no cache, or a negative number of positions");
    }
    if (positions <= cache->positions) {
        return T2_OK;
    }
    t2_cache larger = *cache;
    larger.positions = positions;
    t2_status status = take_data(cache->model, positions, cache->items, larger.data, err);
    if (status != T2_OK) {
        return status;
    }
    for (int64_t layer = 0; layer < cache->model->config.num_layers; layer++) {
        for (int64_t item = 0; item < cache->items; item++) {
            size_t bytes = (size_t)(cache->length[item] * cache->width) * sizeof(float);
            memcpy(place(&larger, 0, layer, item), place(cache, 0, layer, item), bytes);
            memcpy(place(&larger, 1, layer, item), place(cache, 1, layer, item), bytes);
        }
    }
    free(cache->data[0]);
    free(cache->data[1]);
    *cache = larger;
    return T2_OK;
}

/* ---- items --------------------------------------------------------------------------------- */

void t2_cache_reset(t2_cache *cache)
{
    memset(cache->length, 0, (size_t)cache->items * sizeof cache->length[0]);
    cache->tag = 0;
}

int64_t t2_cache_length(const t2_cache *cache, int64_t item)
{
    return item >= 0 && item < cache->items ? cache->length[item] : -1;
}

int64_t t2_cache_positions(const t2_cache *cache)
{
    return cache->positions;
}

uint64_t t2_cache_tag(const t2_cache *cache)
{
    return cache->tag;
}

size_t t2_cache_bytes(const t2_cache *cache)
{
    return 2 * (size_t)bytes_of(cache->model, cache->positions, cache->items) +
           2 * (size_t)cache->items * sizeof(int64_t) + sizeof *cache;
}

static void copy_item(t2_cache *cache, int64_t to, int64_t from)
{
    size_t bytes = (size_t)(cache->length[from] * cache->width) * sizeof(float);
    for (int64_t layer = 0; layer < cache->model->config.num_layers; layer++) {
        memcpy(place(cache, 0, layer, to), place(cache, 0, layer, from), bytes);
        memcpy(place(cache, 1, layer, to), place(cache, 1, layer, from), bytes);
    }
    cache->length[to] = cache->length[from];
    cache->row[to] = cache->row[from];
}

t2_status t2_cache_select(t2_cache *cache, const int64_t *from, int64_t count, t2_error *err)
{
    if (cache == NULL || count < 0 || count > cache->items || (from == NULL && count > 0)) {
        return t2_fail(err, T2_ERR_ARG, "no cache, no list, or not 0 .. its number of items");
    }
    for (int64_t i = 0; i < count; i++) {
        if (from[i] < (i > 0 ? from[i - 1] : 0) || from[i] >= cache->items) {
            return t2_fail(err, T2_ERR_ARG,
                           "item %lld of the list is %lld: not of the cache, or below the one "
                           "before it",
                           (long long)i, (long long)from[i]);
        }
    }
    /* The list rises, so what moves down overwrites no source but of what was moved before, and
     * then what moves up, taken from the end, does not either. */
    for (int64_t i = 0; i < count; i++) {
        if (from[i] > i) {
            copy_item(cache, i, from[i]);
        }
    }
    for (int64_t i = count - 1; i >= 0; i--) {
        if (from[i] < i) {
            copy_item(cache, i, from[i]);
        }
    }
    for (int64_t i = count; i < cache->items; i++) {
        cache->length[i] = 0;
    }
    return T2_OK;
}

/* ---- one call ------------------------------------------------------------------------------ */

static int64_t row_of(const t2_cache_key *key, int64_t index)
{
    return key->tag != 0 && key->expert_rows != NULL ? key->expert_rows[index] : 0;
}

/* State and call by the same weights? */
static t2_status check_key(const t2_cache *cache, const t2_cache_key *key, t2_error *err)
{
    int used = 0;
    for (int64_t i = 0; i < cache->items && !used; i++) {
        used = cache->length[i] > 0;
    }
    if (!used) {
        return T2_OK;
    }
    if (cache->tag != key->tag) {
        return t2_fail(err, T2_ERR_ARG,
                       "the cache holds state computed under another expert: adaptation %llu, this "
                       "call has %llu (0: the base); reset the cache",
                       (unsigned long long)cache->tag, (unsigned long long)key->tag);
    }
    if (key->tag == 0 && cache->expert != key->expert) {
        return t2_fail(err, T2_ERR_ARG,
                       "the cache holds state computed under another expert: %lld of the model, "
                       "this call has %lld (-1: automatic); reset the cache",
                       (long long)cache->expert, (long long)key->expert);
    }
    return T2_OK;
}

static t2_status check_items(const t2_cache *cache, const t2_forward_args *args,
                             const t2_cache_key *key, t2_error *err)
{
    int64_t first = args->cache_item;
    if (args->length < 1 || args->items < 1 || first < 0 || first > cache->items - args->items) {
        return t2_fail(err, T2_ERR_ARG,
                       "%lld positions of %lld items from item %lld on: the cache has %lld items, "
                       "and one position must be new",
                       (long long)args->length, (long long)args->items, (long long)first,
                       (long long)cache->items);
    }
    for (int64_t n = 0; n < args->items; n++) {
        int64_t length = cache->length[first + n];
        if (args->length > cache->positions - length) {
            return t2_fail(err, T2_ERR_ARG,
                           "item %lld of the cache holds %lld of %lld positions: no room for %lld",
                           (long long)(first + n), (long long)length, (long long)cache->positions,
                           (long long)args->length);
        }
        int64_t row = length > 0 ? cache->row[first + n] : row_of(key, n);
        for (int64_t t = 0; t < args->length; t++) {
            if (row_of(key, t * args->items + n) != row) {
                return t2_fail(err, T2_ERR_ARG,
                               "item %lld of the cache is computed under row %lld of the "
                               "adaptation, this call has row %lld: state of several experts "
                               "cannot be mixed",
                               (long long)(first + n), (long long)row,
                               (long long)row_of(key, t * args->items + n));
            }
        }
    }
    return T2_OK;
}

t2_status t2_cache_admit(const t2_cache *cache, const t2_model *model, const t2_forward_args *args,
                         const t2_cache_key *key, t2_error *err)
{
    if (cache->model != model) {
        return t2_fail(err, T2_ERR_ARG, "the cache is of another model");
    }
    if (args->mask.kind != T2_MASK_CAUSAL || args->training) {
        return t2_fail(err, T2_ERR_ARG, "a cache needs a causal mask, and no dropout");
    }
    if (key->tag == 0 && key->expert == T2_EXPERT_AUTO && cache->choosing >= 0) {
        return t2_fail(err, T2_ERR_ARG,
                       "layer %lld chooses among experts that differ, by the mean over all "
                       "positions and items: with a cache an expert has to be named",
                       (long long)cache->choosing);
    }
    t2_status status = check_key(cache, key, err);
    return status == T2_OK ? check_items(cache, args, key, err) : status;
}

void t2_cache_append(t2_cache *cache, const t2_forward_args *args, const t2_cache_key *key)
{
    cache->tag = key->tag;
    cache->expert = key->expert;
    for (int64_t n = 0; n < args->items; n++) {
        cache->row[args->cache_item + n] = row_of(key, n);
        cache->length[args->cache_item + n] += args->length;
    }
}

/* This thread's share of the new keys and values, behind those of their items. */
static void keep(t2k_team *team, t2_cache *cache, int64_t layer, int64_t first,
                 const t2k_attention_args *fresh)
{
    int64_t rows = fresh->queries * fresh->items;
    int64_t size = t2k_team_size(team), rank = t2k_team_rank(team);
    size_t bytes = (size_t)cache->width * sizeof(float);
    for (int64_t i = rows * rank / size; i < rows * (rank + 1) / size; i++) {
        int64_t t = i / fresh->items, n = i % fresh->items, item = first + n;
        int64_t to = (cache->length[item] + t) * cache->width;
        memcpy(place(cache, 0, layer, item) + to, fresh->k + t * fresh->k_row + n * fresh->k_item,
               bytes);
        memcpy(place(cache, 1, layer, item) + to, fresh->v + t * fresh->v_row + n * fresh->v_item,
               bytes);
    }
    t2k_team_barrier(team);
}

t2k_status t2_cache_attention_team(t2k_team *team, t2_cache *cache, int64_t layer, int64_t first,
                                   const t2k_attention_args *fresh)
{
    keep(team, cache, layer, first, fresh);
    t2k_attention_args args = *fresh;
    args.mask_kind = T2K_MASK_CAUSAL;
    args.k_row = args.v_row = cache->width;
    args.k_item = args.v_item = cache->positions * cache->width;
    t2k_status status = T2K_OK;
    /* Neighbours of equal length in one call. */
    for (int64_t n = 0, end; n < fresh->items && status == T2K_OK; n = end) {
        int64_t length = cache->length[first + n];
        for (end = n + 1; end < fresh->items && cache->length[first + end] == length; end++) {
        }
        args.items = end - n;
        args.keys = length + fresh->queries;
        args.q = fresh->q + n * fresh->q_item;
        args.out = fresh->out + n * fresh->out_item;
        args.k = place(cache, 0, layer, first + n);
        args.v = place(cache, 1, layer, first + n);
        status = t2k_attention_team(team, &args);
    }
    return status;
}
