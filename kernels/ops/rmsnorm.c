/* t2k_rms_norm. */
#include "ops/norm.h"

t2k_status t2k_rms_norm(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                        const float *residual, int64_t ldr, const float *weight, float eps,
                        float *sum, int64_t lds, float *Y, int64_t ldy)
{
    const t2k_norm_params params = {.residual = residual, .weight = weight, .eps = eps, .sum = sum};
    return t2k_norm(NULL, 1, rows, cols, X, ldx, ldr, lds, &params, Y, ldy);
}

t2k_status t2k_rms_norm_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                             int64_t ldx, const float *residual, int64_t ldr, const float *weight,
                             float eps, float *sum, int64_t lds, float *Y, int64_t ldy)
{
    const t2k_norm_params params = {.residual = residual, .weight = weight, .eps = eps, .sum = sum};
    return t2k_norm(team, 1, rows, cols, X, ldx, ldr, lds, &params, Y, ldy);
}
