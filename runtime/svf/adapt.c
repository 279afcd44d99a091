/* Adaptations: experts, or mixtures of them, turned into what the layers of a model compute. */
#include "svf/adapter.h"

#include "io/error.h"
#include "io/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ----------------------------------------------------------------------------------- */

t2_status t2_adaptation_empty(const t2_adapter *adapter, int64_t rows, t2_adaptation **adaptation,
                              t2_error *err)
{
    static _Atomic uint64_t tags;
    t2_adaptation *made = calloc(1, sizeof *made);
    size_t layers = (size_t)adapter->layer_count + 1;
    if (made != NULL) {
        atomic_init(&made->references, 1);
        made->model = adapter->model;
        made->adapter = adapter;
        made->layer_count = adapter->layer_count;
        made->rows = rows;
        made->tag = atomic_fetch_add(&tags, 1) + 1;
        made->overlays = calloc(layers, sizeof made->overlays[0]);
        made->storage = calloc(layers, sizeof made->storage[0]);
        made->plan = calloc((size_t)adapter->site_count + 1, sizeof made->plan[0]);
        made->bytes = sizeof *made + layers * (sizeof made->overlays[0] + sizeof made->storage[0]) +
                      ((size_t)adapter->site_count + 1) * sizeof made->plan[0];
    }
    if (made == NULL || made->overlays == NULL || made->storage == NULL || made->plan == NULL) {
        t2_adaptation_release(made);
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for an adaptation");
    }
    *adaptation = made;
    return T2_OK;
}

int64_t t2_adaptation_rows(const t2_adaptation *adaptation)
{
    return adaptation->rows;
}

uint64_t t2_adaptation_tag(const t2_adaptation *adaptation)
{
    return adaptation->tag;
}

size_t t2_adaptation_bytes(const t2_adaptation *adaptation)
{
    return adaptation->bytes;
}

int64_t t2_adaptation_plan_count(const t2_adaptation *adaptation)
{
    return adaptation->plan_count;
}

const t2_plan_entry *t2_adaptation_plan(const t2_adaptation *adaptation, int64_t index)
{
    return index >= 0 && index < adaptation->plan_count ? &adaptation->plan[index] : NULL;
}

/* ---- scales --------------------------------------------------------------------------------- */

/* Row `row` of a vector `name` (size values): an expert's scales, or a mixture's. z is room. */
static t2_status row_scales(const t2_adapt_args *args, int64_t row, const char *name, int64_t size,
                            const float *S, float *scaled, t2_error *err)
{
    if (args->alpha == NULL) {
        const t2_expert *expert = args->experts[row];
        const t2_expert_vector *vector = t2_expert_find(expert, name);
        return t2_scales(&expert->form, size, S, vector != NULL ? vector->p : NULL, scaled, NULL,
                         NULL, NULL, name, err);
    }
    const double *alpha = args->alpha + row * args->count;
    size_t used = 0;
    for (int64_t k = 0; k < args->count; k++) {
        used += alpha[k] != 0.0;
    }
    const t2_expert_form **forms = malloc((used + 1) * sizeof forms[0]);
    const float **p = malloc((used + 1) * sizeof p[0]);
    double *weights = malloc((used + 1) * sizeof weights[0]);
    float *stored = malloc((size_t)(size > 0 ? size : 1) * sizeof stored[0]);
    t2_status status = T2_OK;
    if (forms == NULL || p == NULL || weights == NULL || stored == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for a mixture");
    }
    /* Only the experts that the row names: what others hold must not touch it. */
    int64_t n = 0;
    int any = used == 0; /* all weights 0: for the rule to say what that is */
    for (int64_t k = 0; k < args->count && status == T2_OK; k++) {
        if (alpha[k] != 0.0) {
            const t2_expert_vector *vector = t2_expert_find(args->experts[k], name);
            forms[n] = &args->experts[k]->form;
            p[n] = vector != NULL ? vector->p : NULL;
            weights[n++] = alpha[k];
            any = any || vector != NULL;
        }
    }
    if (status == T2_OK && any) {
        status = t2_mix_vector(args->rule, n, forms, p, weights, size, S, stored, name, err);
    }
    if (status == T2_OK) {
        t2_expert_form form = {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f,
                               t2_mix_normalises(args->rule)};
        status =
            t2_scales(&form, size, S, any ? stored : NULL, scaled, NULL, NULL, NULL, name, err);
    }
    free(forms);
    free(p);
    free(weights);
    free(stored);
    return status;
}

static void site_scales_free(t2_site_scales *scales, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        free(scales[i].scaled);
        free(scales[i].change);
    }
}

/* Scales of one site for all rows, and how they differ from the base's. */
static t2_status site_scales(const t2_adapt_args *args, const t2_factor *f, int64_t rows,
                             t2_site_scales *scales, t2_error *err)
{
    scales->r = f->r;
    scales->rows = rows;
    scales->scaled = t2_alloc(rows * f->r, sizeof scales->scaled[0]);
    scales->change = calloc((size_t)f->r + 1, sizeof scales->change[0]);
    if (scales->scaled == NULL || scales->change == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for the scales of %lld experts",
                       (long long)rows);
    }
    t2_status status = T2_OK;
    for (int64_t row = 0; row < rows && status == T2_OK; row++) {
        float *scaled = scales->scaled + row * f->r;
        status = row_scales(args, row, f->name, f->r, f->S, scaled, err);
        for (int64_t i = 0; i < f->r && status == T2_OK; i++) {
            float change = fabsf(scaled[i] - f->S[i]);
            scales->change[i] = change > scales->change[i] ? change : scales->change[i];
        }
    }
    for (int64_t i = 0; i < f->r && status == T2_OK; i++) {
        scales->changed += scales->change[i] > 0.0f;
    }
    return status;
}

/* ---- ways ----------------------------------------------------------------------------------- */

/* The largest change that DELTA leaves out: the spectral norm of the difference. */
static double left_out(const t2_site_scales *scales, int64_t used)
{
    double worst = 0.0;
    if (used >= scales->changed) {
        return 0.0;
    }
    /* The used + 1-th largest change. */
    float *sorted = malloc((size_t)scales->r * sizeof sorted[0]);
    if (sorted == NULL) {
        return HUGE_VAL;
    }
    memcpy(sorted, scales->change, (size_t)scales->r * sizeof sorted[0]);
    for (int64_t k = 0; k <= used; k++) {
        int64_t best = k;
        for (int64_t i = k + 1; i < scales->r; i++) {
            best = sorted[i] > sorted[best] ? i : best;
        }
        float x = sorted[best];
        sorted[best] = sorted[k];
        sorted[k] = x;
    }
    worst = (double)sorted[used];
    free(sorted);
    return worst;
}

/* Fills the plan of a layer's sites; the way is the same for all of them. */
static t2_status decide(t2_adaptation *adaptation, const t2_adapt_args *args, int64_t layer,
                        const t2_site_scales *scales, t2_way *way, t2_error *err)
{
    const t2_adapter *adapter = adaptation->adapter;
    const t2_site *sites;
    int64_t count = t2_sites_of(adapter, layer, &sites), changed = 0;
    t2_plan_entry *entries = &adaptation->plan[adaptation->plan_count];
    double total[3] = {0.0, 0.0, 0.0};
    for (int64_t i = 0; i < count; i++) {
        const t2_factor *f = t2_factors_get(adapter->factors, sites[i].matrix);
        t2_plan_entry *e = &entries[i];
        int64_t used = scales[i].changed;
        used = args->components > 0 && args->components < used ? args->components : used;
        *e = (t2_plan_entry){
            f->name, f->m, f->n, f->r, scales[i].changed, used, T2_WAY_PLAN, {0.0, 0.0, 0.0}, 0.0};
        changed += scales[i].changed;
        for (int w = 0; w < 3; w++) {
            e->cost[w] =
                t2_way_cost((t2_way)(T2_WAY_REBUILD + w), f->m, f->n, f->r, used, &args->workload);
        }
        if (f->r < (f->m < f->n ? f->m : f->n)) { /* cut: what is left of W is not in U and V */
            e->cost[0] = e->cost[1] = -1.0;
        }
        if (adaptation->rows > 1) {
            e->cost[0] = -1.0;
        }
        for (int w = 0; w < 3; w++) {
            total[w] = total[w] < 0.0 || e->cost[w] < 0.0 ? -1.0 : total[w] + e->cost[w];
        }
    }
    adaptation->plan_count += count;
    *way = args->way;
    if (changed == 0) {
        *way = T2_WAY_PLAN;
        return T2_OK;
    }
    if (args->way == T2_WAY_AUTO) {
        t2_status status = t2_plan_measure(adapter, layer, scales, adaptation->rows,
                                           args->components, &args->workload, total, err);
        if (status != T2_OK) {
            return status;
        }
        for (int64_t i = 0; i < count; i++) {
            memcpy(entries[i].cost, total, sizeof total);
        }
    }
    if (args->way == T2_WAY_PLAN || args->way == T2_WAY_AUTO) {
        *way = t2_plan_choose(total);
    } else if (total[*way - T2_WAY_REBUILD] < 0.0) {
        return t2_fail(err, T2_ERR_ARG, "%s cannot be applied by %s: %s", adapter->names[layer],
                       t2_way_str(*way),
                       adaptation->rows > 1 && *way == T2_WAY_REBUILD ? "it holds several experts"
                       : args->workload.hetero ? "the rows of a call have several experts"
                                               : "its factors are cut: delta is the only way");
    }
    for (int64_t i = 0; i < count; i++) {
        entries[i].way = *way;
        entries[i].used = *way == T2_WAY_DELTA ? entries[i].used : scales[i].changed;
        entries[i].error_bound = left_out(&scales[i], entries[i].used);
    }
    return T2_OK;
}

static t2_status adapt_layer(t2_adaptation *adaptation, const t2_adapt_args *args, int64_t layer,
                             t2_error *err)
{
    const t2_site *sites;
    int64_t count = t2_sites_of(adaptation->adapter, layer, &sites);
    t2_site_scales scales[T2_OVERLAY_PARTS];
    memset(scales, 0, sizeof scales);
    t2_status status = T2_OK;
    t2_way way = T2_WAY_PLAN;
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        const t2_factor *f = t2_factors_get(adaptation->adapter->factors, sites[i].matrix);
        status = site_scales(args, f, adaptation->rows, &scales[i], err);
    }
    if (status == T2_OK) {
        status = decide(adaptation, args, layer, scales, &way, err);
    }
    if (status == T2_OK && way != T2_WAY_PLAN) {
        status = t2_overlay_build(adaptation, layer, way, scales, args->components, err);
    }
    site_scales_free(scales, count);
    return status;
}

/* ---- CHANNEL -------------------------------------------------------------------------------- */

static t2_status channel_layer(t2_adaptation *adaptation, const t2_adapt_args *args, int64_t layer,
                               t2_error *err)
{
    const char *name = adaptation->adapter->names[layer];
    int64_t out = adaptation->adapter->layers[layer]->out;
    int any = 0;
    for (int64_t k = 0; k < args->count; k++) {
        any = any || t2_expert_find(args->experts[k], name) != NULL;
    }
    if (!any) {
        return T2_OK;
    }
    float *scale = t2_alloc(adaptation->rows * out, sizeof scale[0]);
    if (scale == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for the scales of %lld experts",
                       (long long)adaptation->rows);
    }
    t2_status status = T2_OK;
    for (int64_t row = 0; row < adaptation->rows && status == T2_OK; row++) {
        status = row_scales(args, row, name, out, NULL, scale + row * out, err);
    }
    if (status == T2_OK) {
        status = t2_overlay_add_channel(adaptation, layer, scale, err);
    }
    free(scale);
    return status;
}

/* Every vector of a CHANNEL expert must be of a layer, and fit it. */
static t2_status check_channel(const t2_adapter *adapter, const t2_expert *expert, t2_error *err)
{
    for (int64_t i = 0; i < expert->count; i++) {
        const t2_expert_vector *vector = &expert->vectors[i];
        char name[T2_SHOW], shown[T2_SHOW];
        int64_t layer = 0;
        while (layer < adapter->layer_count && strcmp(adapter->names[layer], vector->name) != 0) {
            layer++;
        }
        if (layer == adapter->layer_count) {
            return t2_fail(err, T2_ERR_FORMAT, "expert '%.60s': the model has no layer %.160s",
                           t2_show(name, expert->name), t2_show(shown, vector->name));
        }
        if (adapter->layers[layer]->out != vector->size) {
            return t2_fail(err, T2_ERR_FORMAT,
                           "expert '%.60s': %.160s: expected %lld values, found %lld",
                           t2_show(name, expert->name), t2_show(shown, vector->name),
                           (long long)adapter->layers[layer]->out, (long long)vector->size);
        }
    }
    return T2_OK;
}

/* ---- making --------------------------------------------------------------------------------- */

static t2_status check_args(const t2_adapter *adapter, const t2_adapt_args *args, t2_error *err)
{
    if (args->size != sizeof *args) {
        return t2_fail(err, T2_ERR_ARG, "t2_adapt_args.size is not that of this version");
    }
    if (args->experts == NULL || args->count < 1 || (args->alpha != NULL && args->rows < 1)) {
        return t2_fail(err, T2_ERR_ARG, "an adaptation needs at least one expert");
    }
    if (args->way < T2_WAY_PLAN || args->way > T2_WAY_AUTO || args->rule < T2_MIX_ZEFF ||
        args->rule > T2_MIX_RAW || args->components < 0 || args->workload.rows < 0 ||
        !(args->workload.swaps >= 0.0) || !isfinite(args->workload.swaps)) {
        return t2_fail(err, T2_ERR_ARG, "way, rule, components or workload of an adaptation");
    }
    for (int64_t i = 0; args->alpha != NULL && i < args->rows * args->count; i++) {
        if (!(fabs(args->alpha[i]) <= T2_MIX_LIMIT)) {
            return t2_fail(err, T2_ERR_ARG, "a weight of a mixture is %g: expected -%g to %g",
                           args->alpha[i], T2_MIX_LIMIT, T2_MIX_LIMIT);
        }
    }
    t2_status status = T2_OK;
    for (int64_t k = 0; k < args->count && status == T2_OK; k++) {
        const t2_expert *expert = args->experts[k];
        if (expert->form.kind != args->experts[0]->form.kind) {
            status = t2_fail(err, T2_ERR_ARG, "SVF and CHANNEL experts in one adaptation");
        } else if (expert->form.kind == T2_EXPERT_CHANNEL) {
            status = check_channel(adapter, expert, err);
        } else if (adapter->factors == NULL) {
            status = t2_fail(err, T2_ERR_ARG, "SVF experts need the factors of the model");
        } else {
            status = t2_expert_check(expert, adapter->factors, err);
        }
    }
    return status;
}

t2_status t2_adaptation_create(const t2_adapter *adapter, const t2_adapt_args *args,
                               t2_adaptation **adaptation, t2_error *err)
{
    if (adapter == NULL || args == NULL || adaptation == NULL) {
        return t2_fail(err, T2_ERR_ARG,
                       "adapter, arguments or the place of the result are missing");
    }
    t2_adaptation *made;
    t2_status status = check_args(adapter, args, err);
    if (status == T2_OK) {
        status = t2_adaptation_empty(adapter, args->alpha != NULL ? args->rows : args->count, &made,
                                     err);
    }
    if (status != T2_OK) {
        return status;
    }
    int svf = args->experts[0]->form.kind == T2_EXPERT_SVF;
    for (int64_t i = 0; i < adapter->layer_count && status == T2_OK; i++) {
        status = svf ? adapt_layer(made, args, i, err) : channel_layer(made, args, i, err);
    }
    if (status != T2_OK) {
        t2_adaptation_release(made);
        return status;
    }
    *adaptation = made;
    return T2_OK;
}

/* ---- one layer ------------------------------------------------------------------------------- */

struct layer_run {
    const t2_adaptation *adaptation;
    t2_overlay_call call;
    const t2_linear *linear;
    int64_t rows;
    const float *x;
    float *y;
    t2k_status status;
};

static void layer_member(t2k_team *team, void *arg)
{
    struct layer_run *run = arg;
    t2k_status status = t2_linear_team(team, run->linear, &run->call, run->rows, run->x, run->y,
                                       run->linear->out, T2K_ACT_NONE, NULL);
    if (t2k_team_rank(team) == 0) {
        run->status = status;
    }
}

t2_status t2_adaptation_run_layer(const t2_adaptation *adaptation, int64_t layer, int64_t rows,
                                  const int64_t *expert_rows, const float *x, float *y, int threads,
                                  t2_error *err)
{
    if (adaptation == NULL || layer < 0 || layer >= adaptation->adapter->layer_count || rows < 0 ||
        threads < 0 || (rows > 0 && (x == NULL || y == NULL))) {
        return t2_fail(err, T2_ERR_ARG, "adaptation, layer, rows, x or y");
    }
    struct layer_run run = {.adaptation = adaptation,
                            .linear = adaptation->adapter->layers[layer],
                            .rows = rows,
                            .x = x,
                            .y = y,
                            .call = {.overlays = adaptation->overlays}};
    int64_t *ids = expert_rows != NULL ? t2_alloc(rows, sizeof ids[0]) : NULL;
    float *middle = t2_alloc(rows * adaptation->middle, sizeof middle[0]);
    t2_status status = T2_OK;
    if (middle == NULL || (expert_rows != NULL && ids == NULL)) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for %lld rows", (long long)rows);
    }
    if (status == T2_OK && expert_rows != NULL) {
        status = t2_adaptation_rows_of(adaptation, rows, expert_rows, ids, err);
    }
    if (status == T2_OK) {
        run.call.rows = ids;
        run.call.middle = middle;
        double flops = 4.0 * (double)rows * (double)run.linear->in * (double)run.linear->out;
        int team = t2_threads_for(flops, 4.0 * (double)run.linear->in * (double)run.linear->out,
                                  4.0, threads);
        t2k_status kernel = t2k_parallel(team, layer_member, &run);
        kernel = kernel != T2K_OK ? kernel : run.status;
        status = kernel == T2K_OK ? T2_OK : t2_fail_kernel(err, kernel, "layer");
    }
    free(ids);
    free(middle);
    return status;
}
