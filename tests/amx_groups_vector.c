/* kernels/amx/gemm_amx.c over tiles in software, but with the vectors of the CPU: packing as it
 * runs beside the unit. Compiled with the flags of kernels/amx but for the tiles. */
#if defined(__AVX512BF16__)

#include "simd/simd_bf16.h"

#include "amx_model.h"

#define t2k_gemm_fast_amx amx_fast_on_vectors
#define t2k_gemm_bf16_amx amx_bf16_on_vectors
#define t2k_tiles_open_amx amx_open_on_vectors
#define t2k_tiles_close_amx amx_close_on_vectors
#include "amx/gemm_amx.c"

#include "amx_counts.h"

const struct amx_groups amx_vector_groups = {
    "vectors",
    "sse3 ssse3 sse4_1 sse4_2 popcnt xsave avx avx2 fma f16c avx512f avx512cd avx512bw avx512dq "
    "avx512vl avx512bf16",
    &amx_fast_on_vectors,
    &amx_bf16_on_vectors,
    take_counts,
};

#else

#include "amx_groups.h"

const struct amx_groups amx_vector_groups = {"vectors", "", NULL, NULL, NULL};

#endif
