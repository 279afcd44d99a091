/* Which adaptation a call computes with. A session announces the one that it is about to use and
 * looks again whether that is still the current one; whoever replaces the current one releases it
 * only when no announcement names it. So calls take no lock and never wait. */
#include "model/adaptation.h"

#include <stdlib.h>

void t2_slot_init(t2_slot *slot)
{
    atomic_init(&slot->current, NULL);
    pthread_mutex_init(&slot->lock, NULL);
    slot->hazards = NULL;
    slot->retired = NULL;
}

void t2_slot_free(t2_slot *slot)
{
    t2_slot_swap(slot, NULL);
    pthread_mutex_destroy(&slot->lock);
}

t2_adaptation *t2_hazard_enter(t2_hazard *hazard, t2_slot *slot)
{
    t2_adaptation *seen = atomic_load(&slot->current);
    for (;;) {
        atomic_store(&hazard->in_use, seen);
        t2_adaptation *again = atomic_load(&slot->current);
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

static int announced(const t2_slot *slot, const t2_adaptation *adaptation)
{
    for (const t2_hazard *h = slot->hazards; h != NULL; h = h->next) {
        if (atomic_load(&h->in_use) == adaptation) {
            return 1;
        }
    }
    return 0;
}

/* Takes one that nobody computes with off the retired ones, NULL: there is none. One at a time: as
 * soon as the lock is given back, another thread may put the same adaptation in use, and in this
 * list, again. */
static t2_adaptation *take_retired(t2_slot *slot)
{
    t2_adaptation **place = &slot->retired;
    pthread_mutex_lock(&slot->lock);
    while (*place != NULL && announced(slot, *place)) {
        place = &(*place)->next_retired;
    }
    t2_adaptation *taken = *place;
    if (taken != NULL) {
        *place = taken->next_retired;
    }
    pthread_mutex_unlock(&slot->lock);
    return taken;
}

void t2_slot_swap(t2_slot *slot, t2_adaptation *adaptation)
{
    /* The list of retired ones runs through the adaptations, so each is there once at most: one
     * that comes into use again leaves it first. */
    t2_adaptation_retain(adaptation);
    pthread_mutex_lock(&slot->lock);
    for (t2_adaptation **place = &slot->retired; *place != NULL; place = &(*place)->next_retired) {
        if (*place == adaptation) {
            *place = adaptation->next_retired;
            t2_adaptation_release(adaptation); /* not the last reference: one was just taken */
            break;
        }
    }
    t2_adaptation *old = atomic_exchange(&slot->current, adaptation);
    if (old == adaptation) {
        t2_adaptation_release(adaptation);
    } else if (old != NULL) {
        old->next_retired = slot->retired;
        slot->retired = old;
    }
    pthread_mutex_unlock(&slot->lock);
    for (t2_adaptation *done; (done = take_retired(slot)) != NULL;) {
        t2_adaptation_release(done);
    }
}

t2_hazard *t2_hazard_create(t2_slot *slot)
{
    t2_hazard *hazard = calloc(1, sizeof *hazard);
    if (hazard != NULL) {
        pthread_mutex_lock(&slot->lock);
        hazard->next = slot->hazards;
        slot->hazards = hazard;
        pthread_mutex_unlock(&slot->lock);
    }
    return hazard;
}

void t2_hazard_destroy(t2_hazard *hazard, t2_slot *slot)
{
    if (hazard == NULL) {
        return;
    }
    pthread_mutex_lock(&slot->lock);
    t2_hazard **place = &slot->hazards;
    while (*place != hazard) {
        place = &(*place)->next;
    }
    *place = hazard->next;
    pthread_mutex_unlock(&slot->lock);
    free(hazard);
}
