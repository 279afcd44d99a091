/* Adapters: which matrix of the factors acts where in a model, and the packed factors that all
 * experts share. */
#include "svf/adapter.h"

#include "io/error.h"
#include "io/text.h"
#include "svf/svf.h"

#include <stdlib.h>
#include <string.h>

/* ---- sites ---------------------------------------------------------------------------------- */

static int64_t find_layer(const t2_adapter *adapter, const char *tensor)
{
    for (int64_t i = 0; i < adapter->layer_count; i++) {
        if (strcmp(adapter->names[i], tensor) == 0) {
            return i;
        }
    }
    return -1;
}

static t2_status place(const t2_adapter *adapter, int64_t matrix, t2_site *site, t2_error *err)
{
    char path[T2_SHOW], name[T2_SHOW];
    const t2_factor *f = t2_factors_get(adapter->factors, matrix);
    int64_t layer = find_layer(adapter, f->tensor);
    t2_show(path, t2_factors_path(adapter->factors));
    t2_show(name, f->name);
    if (layer < 0) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "%.160s: matrix %.160s belongs to no linear layer of the model", path, name);
    }
    const t2_linear *linear = adapter->layers[layer];
    if (f->transposed || f->n != linear->in || f->first < 0 || f->first > linear->out ||
        f->m > linear->out - f->first) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "%.160s: matrix %.160s (%lld, %lld) from output %lld on does not fit the "
                       "model's layer (%lld, %lld)",
                       path, name, (long long)f->m, (long long)f->n, (long long)f->first,
                       (long long)linear->out, (long long)linear->in);
    }
    *site = (t2_site){matrix, layer, f->first};
    return T2_OK;
}

static int by_place(const void *a, const void *b)
{
    const t2_site *x = a, *y = b;
    return x->layer != y->layer ? (x->layer > y->layer) - (x->layer < y->layer)
                                : (x->first > y->first) - (x->first < y->first);
}

/* No two matrices act on one output, and no layer has more of them than an overlay holds. */
static t2_status check_sites(const t2_adapter *adapter, t2_error *err)
{
    for (int64_t i = 1; i < adapter->site_count; i++) {
        const t2_site *before = &adapter->sites[i - 1], *site = &adapter->sites[i];
        const t2_factor *f = t2_factors_get(adapter->factors, before->matrix);
        char name[T2_SHOW], other[T2_SHOW];
        if (before->layer == site->layer && before->first + f->m > site->first) {
            return t2_fail(err, T2_ERR_FORMAT, "matrices %.160s and %.160s overlap",
                           t2_show(name, f->name),
                           t2_show(other, t2_factors_get(adapter->factors, site->matrix)->name));
        }
    }
    for (int64_t i = 0; i < adapter->layer_count; i++) {
        const t2_site *sites;
        if (t2_sites_of(adapter, i, &sites) > T2_OVERLAY_PARTS) {
            return t2_fail(err, T2_ERR_FORMAT, "%s: more than %d matrices in one layer",
                           adapter->names[i], T2_OVERLAY_PARTS);
        }
    }
    return T2_OK;
}

static t2_status place_all(t2_adapter *adapter, t2_error *err)
{
    int64_t count = adapter->factors != NULL ? t2_factors_count(adapter->factors) : 0;
    adapter->sites = calloc((size_t)count + 1, sizeof adapter->sites[0]);
    adapter->layer_site = calloc((size_t)adapter->layer_count + 1, sizeof adapter->layer_site[0]);
    adapter->packs = calloc((size_t)adapter->layer_count + 1, sizeof adapter->packs[0]);
    if (adapter->sites == NULL || adapter->layer_site == NULL || adapter->packs == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_status status = T2_OK;
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        status = place(adapter, i, &adapter->sites[i], err);
    }
    if (status != T2_OK) {
        return status;
    }
    adapter->site_count = count;
    qsort(adapter->sites, (size_t)count, sizeof adapter->sites[0], by_place);
    for (int64_t i = 0, site = 0; i < adapter->layer_count; i++) {
        adapter->layer_site[i] = site;
        while (site < count && adapter->sites[site].layer == i) {
            site++;
        }
        adapter->layer_site[i + 1] = site;
    }
    return check_sites(adapter, err);
}

/* The weights that the factors were made from, or others? */
static t2_status check_weights(const t2_adapter *adapter, t2_error *err)
{
    if (adapter->factors == NULL) {
        return T2_OK;
    }
    if (adapter->model != NULL) {
        return t2_factors_check(adapter->factors, adapter->model->file, err);
    }
    for (int64_t i = 0; i < adapter->site_count; i++) {
        const t2_site *site = &adapter->sites[i];
        const t2_factor *f = t2_factors_get(adapter->factors, site->matrix);
        const t2_linear *linear = adapter->layers[site->layer];
        const int64_t shape[2] = {linear->out, linear->in};
        const t2_tensor tensor = {adapter->names[site->layer],
                                  T2_F32,
                                  2,
                                  shape,
                                  linear->weight,
                                  (size_t)(linear->out * linear->in) * sizeof(float)};
        const t2_matrix matrix = {adapter->names[site->layer], &tensor, site->first, 0, f->m, f->n};
        char hash[T2_HASH_CHARS], name[T2_SHOW];
        t2_matrix_hash(&matrix, hash);
        if (strcmp(hash, f->weight_hash) != 0) {
            return t2_fail(err, T2_ERR_FORMAT,
                           "%.160s of the factors: expected SHA-256 %s, found %s",
                           t2_show(name, f->name), f->weight_hash, hash);
        }
    }
    return T2_OK;
}

/* ---- making --------------------------------------------------------------------------------- */

static t2_adapter *allocate(int64_t layers, const t2_factors *factors)
{
    t2_adapter *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    pthread_mutex_init(&made->lock, NULL);
    t2_slot_init(&made->slot);
    made->factors = factors;
    made->layers = calloc((size_t)layers + 1, sizeof made->layers[0]);
    made->names = calloc((size_t)layers + 1, sizeof made->names[0]);
    made->layer_count = made->layers != NULL && made->names != NULL ? layers : 0;
    return made;
}

static t2_status finish(t2_adapter *made, unsigned flags, t2_adapter **adapter, t2_error *err)
{
    t2_status status = place_all(made, err);
    if (status == T2_OK && !(flags & T2_ADAPTER_TRUST)) {
        status = check_weights(made, err);
    }
    if (status != T2_OK) {
        t2_adapter_destroy(made);
        return status;
    }
    *adapter = made;
    return T2_OK;
}

t2_status t2_adapter_create(const t2_model *model, const t2_factors *factors, unsigned flags,
                            t2_adapter **adapter, t2_error *err)
{
    if (model == NULL || adapter == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no model or no place for the adapter");
    }
    int64_t count = t2_model_linear_count(model);
    t2_adapter *made = allocate(count, factors);
    if (made == NULL || made->layer_count != count) {
        t2_adapter_destroy(made);
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    made->model = model;
    for (int64_t i = 0; i < count; i++) {
        t2_spec spec;
        t2_model_linear_spec(model, i, &spec);
        made->layers[i] = t2_model_linear(model, i);
        strcpy(made->names[i], spec.name);
    }
    return finish(made, flags, adapter, err);
}

t2_status t2_adapter_create_layers(const t2_layer *layers, int64_t count, const t2_factors *factors,
                                   unsigned flags, t2_adapter **adapter, t2_error *err)
{
    if (layers == NULL || count < 1 || adapter == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no layers or no place for the adapter");
    }
    for (int64_t i = 0; i < count; i++) {
        if (layers[i].tensor == NULL || strlen(layers[i].tensor) >= T2_NAME_MAX ||
            layers[i].in < 1 || layers[i].out < 1 || layers[i].weight == NULL) {
            return t2_fail(err, T2_ERR_ARG, "layer %lld has no name, size or weight", (long long)i);
        }
    }
    t2_adapter *made = allocate(count, factors);
    if (made != NULL) {
        made->own = calloc((size_t)count, sizeof made->own[0]);
    }
    if (made == NULL || made->layer_count != count || made->own == NULL) {
        t2_adapter_destroy(made);
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_status status = T2_OK;
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        status = t2_linear_pack(&made->own[i], layers[i].in, layers[i].out, layers[i].weight,
                                layers[i].bias, err);
        made->own[i].index = i;
        made->layers[i] = &made->own[i];
        strcpy(made->names[i], layers[i].tensor);
    }
    if (status != T2_OK) {
        t2_adapter_destroy(made);
        return status;
    }
    return finish(made, flags, adapter, err);
}

void t2_adapter_destroy(t2_adapter *adapter)
{
    if (adapter == NULL) {
        return;
    }
    t2_slot_free(&adapter->slot);
    for (int64_t i = 0; i < adapter->layer_count; i++) {
        if (adapter->packs != NULL) {
            free(adapter->packs[i].v);
            for (int j = 0; j < T2_OVERLAY_PARTS; j++) {
                free(adapter->packs[i].u[j]);
            }
        }
        if (adapter->own != NULL) {
            t2_linear_free(&adapter->own[i]);
        }
    }
    free(adapter->packs);
    free(adapter->own);
    free(adapter->layers);
    free(adapter->names);
    free(adapter->sites);
    free(adapter->layer_site);
    pthread_mutex_destroy(&adapter->lock);
    free(adapter);
}

/* ---- use --------------------------------------------------------------------------------------
 */

t2_status t2_adapter_swap(t2_adapter *adapter, t2_adaptation *adaptation, t2_error *err)
{
    if (adapter == NULL || (adaptation != NULL && adaptation->adapter != adapter)) {
        return t2_fail(err, T2_ERR_ARG, "no adapter, or an adaptation of another one");
    }
    t2_slot_swap(&adapter->slot, adaptation);
    return T2_OK;
}

t2_status t2_session_attach(t2_session *session, t2_adapter *adapter, t2_error *err)
{
    if (session == NULL || (adapter != NULL && adapter->model != t2_session_model(session))) {
        return t2_fail(err, T2_ERR_ARG, "no session, or an adapter of another model");
    }
    return t2_session_take_from(session, adapter != NULL ? &adapter->slot : NULL, err);
}

/* ---- packed factors ------------------------------------------------------------------------- */

/* B (k, n) of the product packed; *packed is to free(). */
static t2_status pack(t2k_transpose trans, int64_t k, int64_t n, const float *B, int64_t ldb,
                      void **packed, t2_error *err)
{
    size_t bytes = t2k_packed_b_bytes(k, n);
    *packed = bytes > 0 ? t2_alloc((int64_t)bytes, 1) : NULL;
    if (*packed == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for factors (%lld, %lld)", (long long)k,
                       (long long)n);
    }
    t2k_status status = t2k_pack_b(trans, k, n, B, ldb, *packed);
    return status == T2K_OK ? T2_OK : t2_fail_kernel(err, status, "packing factors");
}

/* V of all sites side by side. */
static t2_status pack_v(const t2_adapter *adapter, int64_t layer, t2_layer_packs *packs,
                        t2_error *err)
{
    const t2_site *sites;
    int64_t count = t2_sites_of(adapter, layer, &sites), in = adapter->layers[layer]->in;
    if (count == 1) {
        const t2_factor *f = t2_factors_get(adapter->factors, sites[0].matrix);
        return pack(T2K_NO_TRANS, in, f->r, f->V, f->r, &packs->v, err);
    }
    float *all = t2_alloc(in * packs->mid, sizeof all[0]);
    if (all == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for factors (%lld, %lld)", (long long)in,
                       (long long)packs->mid);
    }
    for (int64_t i = 0, at = 0; i < count; i++) {
        const t2_factor *f = t2_factors_get(adapter->factors, sites[i].matrix);
        for (int64_t row = 0; row < in; row++) {
            memcpy(all + row * packs->mid + at, f->V + row * f->r, (size_t)f->r * sizeof all[0]);
        }
        at += f->r;
    }
    t2_status status = pack(T2K_NO_TRANS, in, packs->mid, all, packs->mid, &packs->v, err);
    free(all);
    return status;
}

static t2_status make_packs(const t2_adapter *adapter, int64_t layer, t2_layer_packs *packs,
                            t2_error *err)
{
    const t2_site *sites;
    int64_t count = t2_sites_of(adapter, layer, &sites);
    t2_status status = T2_OK;
    packs->mid = 0;
    for (int64_t i = 0; i < count; i++) {
        packs->mid += t2_factors_get(adapter->factors, sites[i].matrix)->r;
    }
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        const t2_factor *f = t2_factors_get(adapter->factors, sites[i].matrix);
        free(packs->u[i]); /* of an attempt that failed */
        status = pack(T2K_TRANS, f->r, f->m, f->U, f->r, &packs->u[i], err);
    }
    free(packs->v);
    packs->v = NULL;
    return status == T2_OK ? pack_v(adapter, layer, packs, err) : status;
}

t2_status t2_adapter_packs(const t2_adapter *adapter, int64_t layer, const t2_layer_packs **packs,
                           t2_error *err)
{
    /* What is packed belongs to the adapter, whatever the caller may change of it otherwise. */
    pthread_mutex_t *lock = (pthread_mutex_t *)&adapter->lock;
    t2_layer_packs *mine = &adapter->packs[layer];
    t2_status status = T2_OK;
    pthread_mutex_lock(lock);
    if (!mine->ready) {
        status = make_packs(adapter, layer, mine, err);
        mine->ready = status == T2_OK;
    }
    pthread_mutex_unlock(lock);
    *packs = mine;
    return status;
}
