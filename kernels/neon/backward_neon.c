#include "simd/simd_neon.h"

#include "core/table.h"
#include "tmpl/activation_backward.h"
#include "tmpl/column_dots.h"
#include "tmpl/norm_backward.h"
#include "tmpl/softmax_backward.h"
