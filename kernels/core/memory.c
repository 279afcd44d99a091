/* Aligned memory for the drivers' workspaces. Kernels never allocate. */
#include "core/core.h"

#include <stdlib.h>

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
