#include "simd/simd_neon.h"

#include "core/table.h"
#include "tmpl/reduce_rows.h"
