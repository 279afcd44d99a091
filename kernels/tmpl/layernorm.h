/* Layer norm of rows, each step rounded once (docs/numerics.md):
 *   z = x * scale + residual (two roundings; either may be absent)
 *   m0 = sum of the first 64 z / their number;  d = z - m0;  c = sum d / n
 *   var = sum d^2 / n - c^2 (sum d^2 by fused steps, - c^2 fused), no less than 0
 *   where c^2 > 2 var, and n > 64: m0 + c takes the place of m0, once
 *   i = 1 / sqrt(var + eps);  t = d * i - c * i (fused);  y = t * weight + bias (fused)
 * n is cols rounded to float (exact up to 2^24). Any m0 near the mean serves: the correction c
 * keeps the error near one unit even where the mean is 1e4 deviations (plain two-pass variance:
 * 1e-3). c^2 <= 2 var bounds what var loses by cancellation; a part f of the row is at most sqrt((1
 * - f) / f) deviations off the mean, so that up to 192 columns m0 always serves. So a row is read
 * twice, not three times. Y may be X or residual. */
#define NORM_CENTERED 1
#include "tmpl/norm_columns.h"

void T2K_FN(layer_norm)(size_t rows, size_t cols, const float *X, size_t ldx,
                        const t2k_norm_params *params, float *Y, size_t ldy)
{
    norm_any(rows, cols, X, ldx, params, Y, ldy);
}

#include "tmpl/norm_stats.h"

void T2K_FN(layer_norm_stats)(size_t rows, size_t cols, const float *X, size_t ldx,
                              const t2k_norm_params *params, float *stats)
{
    norm_stats(rows, cols, X, ldx, params, stats);
}
