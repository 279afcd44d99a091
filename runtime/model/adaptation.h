/* What a session's calls compute with besides the model: overlays made from experts, and the slot
 * that they are taken from. Internal: made by svf/, read by the forward pass. */
#ifndef T2_MODEL_ADAPTATION_H
#define T2_MODEL_ADAPTATION_H

#include "model/overlay.h"

#include <pthread.h>
#include <stdatomic.h>

struct t2_adaptation {
    atomic_long references;
    const t2_model *model;     /* NULL: layers of the caller's own */
    const t2_adapter *adapter; /* which made it; means nothing here */
    struct t2_adaptation *next_retired;
    uint64_t tag;
    int64_t rows;
    int one_row; /* something was rebuilt: rows of a call cannot differ */
    int64_t layer_count;
    const t2_overlay **overlays; /* (layer_count); NULL: the base's own product */
    t2_overlay *storage;         /* (layer_count) */
    void **owned;                /* blocks to free() */
    size_t owned_count, owned_room;
    int64_t middle; /* largest `mid` */
    int64_t plan_count;
    t2_plan_entry *plan;
    size_t bytes;
};

/* A session's announcement of what it is computing with, so that it is not released meanwhile. */
typedef struct t2_hazard {
    _Atomic(struct t2_adaptation *) in_use;
    struct t2_hazard *next;
} t2_hazard;

/* Where sessions take the adaptation of a call from. */
typedef struct t2_slot {
    _Atomic(struct t2_adaptation *) current;
    pthread_mutex_t lock; /* of the two lists */
    t2_hazard *hazards;
    struct t2_adaptation *retired;
} t2_slot;

/* ---- life (adaptation.c); also t2_adaptation_retain() and _release() ------------------------- */

/* Memory that the adaptation frees at its end; NULL: out of memory. */
void *t2_adaptation_alloc(t2_adaptation *adaptation, int64_t count, size_t size);

/* Back to an adaptation that changes nothing. */
void t2_adaptation_clear(t2_adaptation *adaptation);

/* Checks expert_rows (count of them) and writes them as rows of the tables: 0 the base. */
t2_status t2_adaptation_rows_of(const t2_adaptation *adaptation, int64_t count,
                                const int64_t *expert_rows, int64_t *rows, t2_error *err);

/* ---- calls (swap.c) ------------------------------------------------------------------------- */

void t2_slot_init(t2_slot *slot);
void t2_slot_free(t2_slot *slot); /* no session takes from it any more */

/* What the next calls compute with; NULL: the base. */
void t2_slot_swap(t2_slot *slot, t2_adaptation *adaptation);

/* A session's place for announcements; the session's forward pass uses no lock. */
t2_hazard *t2_hazard_create(t2_slot *slot);
void t2_hazard_destroy(t2_hazard *hazard, t2_slot *slot);

/* What a call computes with (NULL: the base): announced until t2_hazard_leave(). */
t2_adaptation *t2_hazard_enter(t2_hazard *hazard, t2_slot *slot);
void t2_hazard_leave(t2_hazard *hazard);

/* Calls of the session take their adaptation from the slot from now on; NULL: the model alone. */
t2_status t2_session_take_from(t2_session *session, t2_slot *slot, t2_error *err);

#endif
