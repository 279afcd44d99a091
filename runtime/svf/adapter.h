/* Models made ready for experts, and experts made ready to compute with. Internal. */
#ifndef T2_SVF_ADAPTER_H
#define T2_SVF_ADAPTER_H

#include "model/adaptation.h"
#include "model/model.h"
#include "svf/expert.h"

#include <pthread.h>

/* A matrix of the factors and where in the model it acts. */
typedef struct t2_site {
    int64_t matrix; /* in the factors */
    int64_t layer;
    int64_t first; /* its first output */
} t2_site;

/* U and V of a layer, packed on first use: V of all its sites side by side. */
typedef struct t2_layer_packs {
    int ready;
    int64_t mid;
    void *v;                   /* (in, mid) */
    void *u[T2_OVERLAY_PARTS]; /* (r, m) of each site */
} t2_layer_packs;

struct t2_adapter {
    const t2_model *model; /* NULL: layers of the caller's own */
    const t2_factors *factors;
    int64_t layer_count;
    const t2_linear **layers; /* (layer_count) */
    char (*names)[T2_NAME_MAX];
    t2_linear *own; /* what `layers` points to where there is no model */
    int64_t site_count;
    t2_site *sites;      /* by layer, then first output */
    int64_t *layer_site; /* (layer_count + 1): sites of layer i are [i], ... [i + 1] - 1 */
    t2_layer_packs *packs;
    pthread_mutex_t lock; /* of packs */
    t2_slot slot;         /* sessions take their adaptation from it */
};

/* Sites of a layer. */
static inline int64_t t2_sites_of(const t2_adapter *adapter, int64_t layer, const t2_site **sites)
{
    *sites = adapter->sites + adapter->layer_site[layer];
    return adapter->layer_site[layer + 1] - adapter->layer_site[layer];
}

/* The shared packs of a layer, made now if they are not there. */
t2_status t2_adapter_packs(const t2_adapter *adapter, int64_t layer, const t2_layer_packs **packs,
                           t2_error *err);

/* ---- building overlays (overlay_build.c) ---------------------------------------------------- */

/* Scaled singular values of one site for all rows of an adaptation. */
typedef struct t2_site_scales {
    int64_t r, rows;
    float *scaled;   /* (rows, r) */
    int64_t changed; /* components that differ from S in some row */
    float *change;   /* (r) largest |S' - S| over the rows */
} t2_site_scales;

/* Makes layer `layer` of the adaptation compute in `way`; scales: of its sites. */
t2_status t2_overlay_build(t2_adaptation *adaptation, int64_t layer, t2_way way,
                           const t2_site_scales *scales, int64_t components, t2_error *err);

/* Adds a CHANNEL scale (rows, out) to a layer. */
t2_status t2_overlay_add_channel(t2_adaptation *adaptation, int64_t layer, const float *scale,
                                 t2_error *err);

/* An adaptation of `rows` experts that changes nothing yet. */
t2_status t2_adaptation_empty(const t2_adapter *adapter, int64_t rows, t2_adaptation **adaptation,
                              t2_error *err);

/* ---- planning (plan.c) ---------------------------------------------------------------------- */

/* The cheapest way by cost[3]; negative costs are not possible. */
t2_way t2_plan_choose(const double cost[3]);

/* Measured nanoseconds of the ways for a layer, in place of the model's; see T2_WAY_AUTO. */
t2_status t2_plan_measure(const t2_adapter *adapter, int64_t layer, const t2_site_scales *scales,
                          int64_t rows, int64_t components, const t2_workload *workload,
                          double cost[3], t2_error *err);

#endif
