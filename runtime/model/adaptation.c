/* The life of adaptations: memory that they own, released with the last reference. */
#include "model/adaptation.h"

#include "io/error.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

void *t2_adaptation_alloc(t2_adaptation *adaptation, int64_t count, size_t size)
{
    if (adaptation->owned_count == adaptation->owned_room) {
        size_t room = 2 * adaptation->owned_room + 8;
        void **owned = realloc(adaptation->owned, room * sizeof owned[0]);
        if (owned == NULL) {
            return NULL;
        }
        adaptation->owned = owned;
        adaptation->owned_room = room;
    }
    void *block = t2_alloc(count, size);
    if (block != NULL) {
        adaptation->owned[adaptation->owned_count++] = block;
        adaptation->bytes += (size_t)count * size;
    }
    return block;
}

void t2_adaptation_clear(t2_adaptation *adaptation)
{
    size_t layers = (size_t)adaptation->layer_count;
    for (size_t i = 0; i < adaptation->owned_count; i++) {
        free(adaptation->owned[i]);
    }
    adaptation->owned_count = 0;
    if (adaptation->overlays != NULL && adaptation->storage != NULL) {
        memset(adaptation->overlays, 0, layers * sizeof adaptation->overlays[0]);
        memset(adaptation->storage, 0, layers * sizeof adaptation->storage[0]);
    }
}

t2_adaptation *t2_adaptation_retain(t2_adaptation *adaptation)
{
    if (adaptation != NULL) {
        atomic_fetch_add_explicit(&adaptation->references, 1, memory_order_relaxed);
    }
    return adaptation;
}

void t2_adaptation_release(t2_adaptation *adaptation)
{
    if (adaptation == NULL ||
        atomic_fetch_sub_explicit(&adaptation->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    t2_adaptation_clear(adaptation);
    free(adaptation->owned);
    free(adaptation->overlays);
    free(adaptation->storage);
    free(adaptation->plan);
    free(adaptation);
}

t2_status t2_adaptation_rows_of(const t2_adaptation *adaptation, int64_t count,
                                const int64_t *expert_rows, int64_t *rows, t2_error *err)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t row = expert_rows[i];
        if (row < -1 || row >= adaptation->rows) {
            return t2_fail(
                err, T2_ERR_ARG,
                "row %lld asks for expert %lld: the adaptation holds %lld (0 .. %lld, -1 "
                "is the base)",
                (long long)i, (long long)row, (long long)adaptation->rows,
                (long long)adaptation->rows - 1);
        }
        if (adaptation->one_row && row != 0) {
            return t2_fail(err, T2_ERR_ARG,
                           "row %lld asks for the base: this expert was applied by rebuild, which "
                           "serves all rows alike",
                           (long long)i);
        }
        rows[i] = row + 1;
    }
    return T2_OK;
}
