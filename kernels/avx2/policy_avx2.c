#include "simd/simd_avx2.h"

#include "core/table.h"
#include "tmpl/policy.h"
