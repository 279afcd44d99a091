#include "simd/simd_scalar.h"

/* One lane, and one column of sums. */
#define ATT_VECS 1
#define ATT_FEW 1
#define ATT_COPY 0

#include "tmpl/attention.h"
