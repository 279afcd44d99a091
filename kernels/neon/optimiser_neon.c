#include "simd/simd_neon.h"

#include "core/table.h"
#include "tmpl/optimiser.h"
