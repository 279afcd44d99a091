/* RMS norm of rows (arXiv 1910.07467), each step rounded once (docs/numerics.md):
 *   z = x * scale + residual (two roundings; either may be absent)
 *   i = 1 / sqrt(sum z^2 / n + eps), the sum by fused steps;  y = (z * i) * weight
 * n is cols rounded to float. Y may be X or residual, and so may be params->sum. */
#define NORM_CENTERED 0
#include "tmpl/norm_columns.h"

void T2K_FN(rms_norm)(size_t rows, size_t cols, const float *X, size_t ldx,
                      const t2k_norm_params *params, float *Y, size_t ldy)
{
    norm_any(rows, cols, X, ldx, params, Y, ldy);
}

#include "tmpl/norm_stats.h"

void T2K_FN(rms_norm_stats)(size_t rows, size_t cols, const float *X, size_t ldx,
                            const t2k_norm_params *params, float *stats)
{
    norm_stats(rows, cols, X, ldx, params, stats);
}
