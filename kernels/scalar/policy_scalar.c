#include "simd/simd_scalar.h"

#include "core/table.h"
#include "tmpl/policy.h"
