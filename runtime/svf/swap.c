/* Which adaptation a call computes with. A session announces the one that it is about to use and
 * looks again whether that is still the current one; whoever replaces the current one releases it
 * only when no announcement names it. So calls take no lock and never wait. */
#include "svf/adapter.h"

#include "io/error.h"

#include <stdlib.h>

t2_adaptation *t2_hazard_enter(t2_hazard *hazard, t2_adapter *adapter)
{
    t2_adaptation *seen = atomic_load(&adapter->current);
    for (;;) {
        atomic_store(&hazard->in_use, seen);
        t2_adaptation *again = atomic_load(&adapter->current);
        if (again == seen) {
            return seen;
        }
        seen = again;
    }
}

void t2_hazard_leave(t2_hazard *hazard)
{
    atomic_store(&hazard->in_use, NULL);
}

static int announced(const t2_adapter *adapter, const t2_adaptation *adaptation)
{
    for (const t2_hazard *h = adapter->hazards; h != NULL; h = h->next) {
        if (atomic_load(&h->in_use) == adaptation) {
            return 1;
        }
    }
    return 0;
}

/* Takes one that nobody computes with off the retired ones, NULL: there is none. One at a time: as
 * soon as the lock is given back, another thread may put the same adaptation in use, and in this
 * list, again. */
static t2_adaptation *take_retired(t2_adapter *adapter)
{
    t2_adaptation **place = &adapter->retired;
    pthread_mutex_lock(&adapter->lock);
    while (*place != NULL && announced(adapter, *place)) {
        place = &(*place)->next_retired;
    }
    t2_adaptation *taken = *place;
    if (taken != NULL) {
        *place = taken->next_retired;
    }
    pthread_mutex_unlock(&adapter->lock);
    return taken;
}

t2_status t2_adapter_swap(t2_adapter *adapter, t2_adaptation *adaptation, t2_error *err)
{
    if (adapter == NULL || (adaptation != NULL && adaptation->adapter != adapter)) {
        return t2_fail(err, T2_ERR_ARG, "no adapter, or an adaptation of another one");
    }
    /* The list of retired ones runs through the adaptations, so each is there once at most: one
     * that comes into use again leaves it first. */
    t2_adaptation_retain(adaptation);
    pthread_mutex_lock(&adapter->lock);
    for (t2_adaptation **place = &adapter->retired; *place != NULL;
         place = &(*place)->next_retired) {
        if (*place == adaptation) {
            *place = adaptation->next_retired;
            t2_adaptation_release(adaptation); /* not the last reference: one was just taken */
            break;
        }
    }
    t2_adaptation *old = atomic_exchange(&adapter->current, adaptation);
    if (old == adaptation) {
        t2_adaptation_release(adaptation);
    } else if (old != NULL) {
        old->next_retired = adapter->retired;
        adapter->retired = old;
    }
    pthread_mutex_unlock(&adapter->lock);
    for (t2_adaptation *done; (done = take_retired(adapter)) != NULL;) {
        t2_adaptation_release(done);
    }
    return T2_OK;
}

t2_hazard *t2_hazard_create(t2_adapter *adapter)
{
    t2_hazard *hazard = calloc(1, sizeof *hazard);
    if (hazard != NULL) {
        pthread_mutex_lock(&adapter->lock);
        hazard->next = adapter->hazards;
        adapter->hazards = hazard;
        pthread_mutex_unlock(&adapter->lock);
    }
    return hazard;
}

void t2_hazard_destroy(t2_hazard *hazard, t2_adapter *adapter)
{
    if (hazard == NULL) {
        return;
    }
    pthread_mutex_lock(&adapter->lock);
    t2_hazard **place = &adapter->hazards;
    while (*place != hazard) {
        place = &(*place)->next;
    }
    *place = hazard->next;
    pthread_mutex_unlock(&adapter->lock);
    free(hazard);
}
