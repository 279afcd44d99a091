/* The groups of kernels/amx over tiles in software: with vectors in plain C, and with those of the
 * CPU where it has AVX512_BF16. */
#ifndef T2_AMX_GROUPS_H
#define T2_AMX_GROUPS_H

#include "core/core.h"

struct amx_counts {
    long loads, products;
    int faults, configurations, releases;
};

struct amx_groups {
    const char *name;
    const char *features; /* as in isa.def */
    t2k_gemm_tiles *fast, *bf16;
    struct amx_counts (*counts)(void); /* since it was last called */
};

extern const struct amx_groups amx_model_groups;
/* fast is NULL where they are not compiled. */
extern const struct amx_groups amx_vector_groups;

#endif
