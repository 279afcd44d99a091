#include "simd/simd_avx512.h"

#include "core/table.h"
#include "tmpl/optimiser.h"
