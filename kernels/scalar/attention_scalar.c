#include "simd/simd_scalar.h"

/* One lane: a 1 x 1 transpose, and one column of sums. */
#define ATT_VECS 1
static inline __attribute__((always_inline)) void att_transpose(vf *r)
{
    (void)r;
}

#include "tmpl/attention.h"
