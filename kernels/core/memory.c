/* Aligned memory for the drivers' workspaces. Kernels never allocate. */
#define _DEFAULT_SOURCE /* madvise */
#include "core/core.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define LARGE_PAGE ((size_t)2 << 20)

void *t2k_alloc(size_t bytes)
{
    size_t rounded;
    if (__builtin_add_overflow(bytes, (size_t)T2K_ALIGN, &rounded)) {
        return NULL;
    }
    return aligned_alloc(T2K_ALIGN, rounded / T2K_ALIGN * T2K_ALIGN);
}

void t2k_release(void *p)
{
    free(p);
}

/* Lies before the bytes that scratch users see. */
struct scratch {
    _Alignas(T2K_ALIGN) size_t bytes;
};

/* The memory of the last region that ended; concurrent regions of several application threads
 * allocate their own. It stays reachable to the end of the process: the library runs nothing of its
 * own when it is unloaded. */
static _Atomic(struct scratch *) kept;

void *t2k_scratch_take(size_t bytes)
{
    struct scratch *scratch = atomic_exchange(&kept, NULL);
    if (scratch != NULL && scratch->bytes >= bytes) {
        return scratch + 1;
    }
    free(scratch);
    size_t rounded;
    if (__builtin_add_overflow(bytes, sizeof *scratch + LARGE_PAGE - 1, &rounded)) {
        return NULL;
    }
    rounded = rounded / LARGE_PAGE * LARGE_PAGE;
    scratch = aligned_alloc(LARGE_PAGE, rounded);
    if (scratch == NULL) {
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    (void)madvise(scratch, rounded, MADV_HUGEPAGE); /* a hint: without it pages are small */
#endif
    scratch->bytes = rounded - sizeof *scratch;
    return scratch + 1;
}

void t2k_scratch_give(void *p)
{
    if (p != NULL) {
        free(atomic_exchange(&kept, (struct scratch *)p - 1));
    }
}
