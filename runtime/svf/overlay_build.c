/* From scaled singular values to what a layer computes, in each of the three ways. */
#include "svf/adapter.h"

#include "io/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory --------------------------------------------------------------------------------- */

static t2_status no_memory(const t2_adaptation *adaptation, int64_t layer, t2_error *err)
{
    return t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert's %s",
                   adaptation->adapter->names[layer]);
}

/* Packs op(B) (k, n) for the adaptation. */
static t2_status pack(t2_adaptation *adaptation, int64_t layer, t2k_transpose trans, int64_t k,
                      int64_t n, const float *B, int64_t ldb, const void **packed, t2_error *err)
{
    size_t bytes = t2k_packed_b_bytes(k, n);
    void *made = bytes > 0 ? t2_adaptation_alloc(adaptation, (int64_t)bytes, 1) : NULL;
    if (made == NULL) {
        return no_memory(adaptation, layer, err);
    }
    t2k_status status = t2k_pack_b(trans, k, n, B, ldb, made);
    *packed = made;
    return status == T2K_OK ? T2_OK : t2_fail_kernel(err, status, "packing an expert");
}

/* ---- rebuild -------------------------------------------------------------------------------- */

/* W' = U diag(S') V^T of one site, packed. */
static t2_status rebuild(t2_adaptation *adaptation, int64_t layer, const t2_factor *f,
                         const float *scaled, const void **packed, t2_error *err)
{
    size_t bytes = t2k_packed_b_bytes(f->n, f->m);
    void *made = bytes > 0 ? t2_adaptation_alloc(adaptation, (int64_t)bytes, 1) : NULL;
    if (made == NULL) {
        return no_memory(adaptation, layer, err);
    }
    t2k_status status =
        t2k_svd_rebuild_packed(f->m, f->n, f->r, 1.0f, f->U, f->r, scaled, f->V, f->r, made);
    *packed = made;
    return status == T2K_OK ? T2_OK : t2_fail_kernel(err, status, "rebuilding a matrix");
}

/* ---- delta ---------------------------------------------------------------------------------- */

static int falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Which components of a site change, at most `limit` of the largest changes, in rising order. */
static int64_t pick(const t2_site_scales *scales, int64_t limit, int64_t *chosen)
{
    int64_t count = 0;
    for (int64_t i = 0; i < scales->r; i++) {
        if (scales->change[i] > 0.0f) {
            chosen[count++] = i;
        }
    }
    if (limit <= 0 || count <= limit) {
        return count;
    }
    /* The limit-th largest change; of equal ones those that come first are kept. */
    float *sorted = malloc((size_t)count * sizeof sorted[0]);
    if (sorted == NULL) {
        return -1;
    }
    for (int64_t i = 0; i < count; i++) {
        sorted[i] = scales->change[chosen[i]];
    }
    qsort(sorted, (size_t)count, sizeof sorted[0], falling);
    float least = sorted[limit - 1];
    int64_t equal = 0, kept = 0;
    for (int64_t i = 0; i < limit; i++) {
        equal += sorted[i] == least;
    }
    for (int64_t i = 0; i < count; i++) {
        float change = scales->change[chosen[i]];
        if (change > least || (change == least && equal-- > 0)) {
            chosen[kept++] = chosen[i];
        }
    }
    free(sorted);
    return kept;
}

/* Columns `chosen` of X (rows, r) into columns `at` ... of out (rows, ldo). */
static void gather(int64_t rows, const float *X, int64_t r, const int64_t *chosen, int64_t count,
                   float *out, int64_t ldo)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < count; j++) {
            out[i * ldo + j] = X[i * r + chosen[j]];
        }
    }
}

struct selection {
    int64_t *chosen[T2_OVERLAY_PARTS];
    int64_t count[T2_OVERLAY_PARTS];
    int64_t mid;
    int whole; /* all components of all sites */
};

static t2_status select_components(const t2_site_scales *scales, int64_t sites, int64_t limit,
                                   struct selection *selection, t2_error *err)
{
    selection->whole = 1;
    for (int64_t i = 0; i < sites; i++) {
        selection->chosen[i] = malloc(((size_t)scales[i].r + 1) * sizeof(int64_t));
        selection->count[i] =
            selection->chosen[i] != NULL ? pick(&scales[i], limit, selection->chosen[i]) : -1;
        if (selection->count[i] < 0) {
            return t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
        }
        selection->mid += selection->count[i];
        selection->whole = selection->whole && selection->count[i] == scales[i].r;
    }
    return T2_OK;
}

/* V_k and U_k of the selected components. */
static t2_status pack_selection(t2_adaptation *adaptation, int64_t layer,
                                const struct selection *selection, t2_overlay *overlay,
                                t2_error *err)
{
    const t2_adapter *adapter = adaptation->adapter;
    const t2_site *sites;
    int64_t count = t2_sites_of(adapter, layer, &sites), in = adapter->layers[layer]->in;
    int64_t tallest = in;
    for (int64_t i = 0; i < count; i++) {
        int64_t m = t2_factors_get(adapter->factors, sites[i].matrix)->m;
        tallest = m > tallest ? m : tallest;
    }
    float *room = t2_alloc(tallest * selection->mid, sizeof room[0]);
    if (room == NULL) {
        return no_memory(adaptation, layer, err);
    }
    t2_status status = T2_OK;
    for (int64_t i = 0, at = 0; i < count; i++) {
        const t2_factor *f = t2_factors_get(adapter->factors, sites[i].matrix);
        gather(in, f->V, f->r, selection->chosen[i], selection->count[i], room + at,
               selection->mid);
        at += selection->count[i];
    }
    status = pack(adaptation, layer, T2K_NO_TRANS, in, selection->mid, room, selection->mid,
                  &overlay->packed_v, err);
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        const t2_factor *f = t2_factors_get(adapter->factors, sites[i].matrix);
        int64_t k = selection->count[i];
        if (k > 0) {
            gather(f->m, f->U, f->r, selection->chosen[i], k, room, k);
            status =
                pack(adaptation, layer, T2K_TRANS, k, f->m, room, k, &overlay->part[i].packed, err);
        }
    }
    free(room);
    return status;
}

/* ---- tables of scales ----------------------------------------------------------------------- */

/* Row 0 is the base: S, or 0 for differences; rows 1 ... are the experts'. */
static t2_status fill_scales(t2_adaptation *adaptation, int64_t layer, const t2_site_scales *scales,
                             int64_t sites, int differences, const struct selection *selection,
                             t2_overlay *overlay, t2_error *err)
{
    const t2_site *site;
    t2_sites_of(adaptation->adapter, layer, &site);
    float *table =
        t2_adaptation_alloc(adaptation, (adaptation->rows + 1) * overlay->mid, sizeof table[0]);
    if (table == NULL) {
        return no_memory(adaptation, layer, err);
    }
    for (int64_t i = 0, at = 0; i < sites; i++) {
        const float *S = t2_factors_get(adaptation->adapter->factors, site[i].matrix)->S;
        int64_t k = selection->count[i];
        for (int64_t j = 0; j < k; j++) {
            int64_t from = selection->chosen[i][j];
            table[at + j] = differences ? 0.0f : S[from];
            for (int64_t row = 0; row < adaptation->rows; row++) {
                float scaled = scales[i].scaled[row * scales[i].r + from];
                table[(row + 1) * overlay->mid + at + j] = differences ? scaled - S[from] : scaled;
            }
        }
        at += k;
    }
    overlay->scales = table;
    overlay->count = adaptation->rows + 1;
    return T2_OK;
}

/* ---- layers --------------------------------------------------------------------------------- */

/* Outputs that no site covers, or that stay as they are, between and behind the parts. */
static t2_status cover(t2_adaptation *adaptation, int64_t layer, int64_t first, int64_t end,
                       t2_overlay *overlay, t2_error *err)
{
    const t2_linear *linear = adaptation->adapter->layers[layer];
    if (first == end) {
        return T2_OK;
    }
    if (overlay->parts == T2_OVERLAY_PARTS) {
        return t2_fail(err, T2_ERR_ARG, "%s: its matrices leave gaps that are not supported",
                       adaptation->adapter->names[layer]);
    }
    t2_overlay_part *part = &overlay->part[overlay->parts++];
    *part = (t2_overlay_part){.first = first, .m = end - first};
    if (overlay->add_base) {
        return T2_OK;
    }
    return pack(adaptation, layer, T2K_TRANS, linear->in, end - first,
                linear->weight + first * linear->in, linear->in, &part->packed, err);
}

/* What is not in a site is the base's. */
static t2_status cover_gaps(t2_adaptation *adaptation, int64_t layer, int64_t sites,
                            t2_overlay *overlay, t2_error *err)
{
    int64_t end = 0, out = adaptation->adapter->layers[layer]->out;
    t2_status status = T2_OK;
    for (int64_t i = 0; i < sites && status == T2_OK; i++) {
        status = cover(adaptation, layer, end, overlay->part[i].first, overlay, err);
        end = overlay->part[i].first + overlay->part[i].m;
    }
    return status == T2_OK ? cover(adaptation, layer, end, out, overlay, err) : status;
}

static t2_status build_rebuild(t2_adaptation *adaptation, int64_t layer,
                               const t2_site_scales *scales, int64_t sites, t2_overlay *overlay,
                               t2_error *err)
{
    const t2_adapter *adapter = adaptation->adapter;
    const t2_linear *linear = adapter->layers[layer];
    const t2_site *site;
    t2_sites_of(adapter, layer, &site);
    t2_status status = T2_OK;
    for (int64_t i = 0; i < sites && status == T2_OK; i++) {
        const t2_factor *f = t2_factors_get(adapter->factors, site[i].matrix);
        if (scales[i].changed > 0) {
            status = rebuild(adaptation, layer, f, scales[i].scaled, &overlay->part[i].packed, err);
        } else {
            status = pack(adaptation, layer, T2K_TRANS, linear->in, f->m,
                          linear->weight + site[i].first * linear->in, linear->in,
                          &overlay->part[i].packed, err);
        }
    }
    adaptation->one_row = 1;
    return status;
}

static t2_status build_thin(t2_adaptation *adaptation, int64_t layer, t2_way way,
                            const t2_site_scales *scales, int64_t sites, int64_t components,
                            t2_overlay *overlay, t2_error *err)
{
    struct selection selection = {.mid = 0};
    int delta = way == T2_WAY_DELTA;
    t2_status status = T2_OK;
    if (delta) {
        status = select_components(scales, sites, components, &selection, err);
    } else {
        selection.whole = 1;
        for (int64_t i = 0; i < sites; i++) {
            selection.chosen[i] = malloc(((size_t)scales[i].r + 1) * sizeof(int64_t));
            if (selection.chosen[i] == NULL) {
                status = t2_fail(err, T2_ERR_NOMEM, "out of memory for an expert");
                break;
            }
            for (int64_t j = 0; j < scales[i].r; j++) {
                selection.chosen[i][j] = j;
            }
            selection.count[i] = scales[i].r;
            selection.mid += scales[i].r;
        }
    }
    overlay->mid = selection.mid;
    overlay->add_base = delta;
    for (int64_t i = 0, at = 0; i < sites; i++) {
        overlay->part[i].mid_first = at;
        overlay->part[i].r = selection.count[i];
        at += selection.count[i];
    }
    if (status == T2_OK && selection.whole) {
        const t2_layer_packs *packs;
        status = t2_adapter_packs(adaptation->adapter, layer, &packs, err);
        overlay->packed_v = packs->v;
        for (int64_t i = 0; i < sites; i++) {
            overlay->part[i].packed = packs->u[i];
        }
    } else if (status == T2_OK) {
        status = pack_selection(adaptation, layer, &selection, overlay, err);
    }
    if (status == T2_OK) {
        status = fill_scales(adaptation, layer, scales, sites, delta, &selection, overlay, err);
    }
    for (int64_t i = 0; i < sites; i++) {
        free(selection.chosen[i]);
    }
    return status;
}

t2_status t2_overlay_build(t2_adaptation *adaptation, int64_t layer, t2_way way,
                           const t2_site_scales *scales, int64_t components, t2_error *err)
{
    const t2_site *site;
    int64_t sites = t2_sites_of(adaptation->adapter, layer, &site);
    t2_overlay *overlay = &adaptation->storage[layer];
    overlay->parts = (int)sites;
    for (int64_t i = 0; i < sites; i++) {
        const t2_factor *f = t2_factors_get(adaptation->adapter->factors, site[i].matrix);
        overlay->part[i] = (t2_overlay_part){.first = site[i].first, .m = f->m};
    }
    t2_status status =
        way == T2_WAY_REBUILD
            ? build_rebuild(adaptation, layer, scales, sites, overlay, err)
            : build_thin(adaptation, layer, way, scales, sites, components, overlay, err);
    if (status == T2_OK) {
        status = cover_gaps(adaptation, layer, sites, overlay, err);
    }
    if (status == T2_OK) {
        adaptation->overlays[layer] = overlay;
        adaptation->middle = overlay->mid > adaptation->middle ? overlay->mid : adaptation->middle;
    }
    return status;
}

t2_status t2_overlay_add_channel(t2_adaptation *adaptation, int64_t layer, const float *scale,
                                 t2_error *err)
{
    const t2_linear *linear = adaptation->adapter->layers[layer];
    t2_overlay *overlay = &adaptation->storage[layer];
    float *table =
        t2_adaptation_alloc(adaptation, (adaptation->rows + 1) * linear->out, sizeof table[0]);
    if (table == NULL) {
        return no_memory(adaptation, layer, err);
    }
    for (int64_t j = 0; j < linear->out; j++) {
        table[j] = 1.0f;
    }
    memcpy(table + linear->out, scale, (size_t)(adaptation->rows * linear->out) * sizeof table[0]);
    if (adaptation->overlays[layer] == NULL) {
        overlay->parts = 1;
        overlay->part[0] =
            (t2_overlay_part){.first = 0, .m = linear->out, .packed = linear->packed};
        adaptation->overlays[layer] = overlay;
    }
    overlay->channel = table;
    overlay->count = adaptation->rows + 1;
    return T2_OK;
}
