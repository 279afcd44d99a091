/* What layer norm and RMS norm share: checks, the choice of streaming, rows shared among threads.
 */
#ifndef T2K_NORM_H
#define T2K_NORM_H

#include "core/core.h"

/* Runs layer norm, or RMS norm where `rms`, of X (rows, cols) with `params`, whose field `stream`
 * does not matter; lds and ldr are checked where there is a sum or residual. Inside `team` unless
 * that is NULL. */
t2k_status t2k_norm(t2k_team *team, int rms, int64_t rows, int64_t cols, const float *X,
                    int64_t ldx, int64_t ldr, int64_t lds, const t2k_norm_params *params, float *Y,
                    int64_t ldy);

#endif
