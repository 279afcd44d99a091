/* What takes the place of a linear layer's product while experts are applied. Internal: made by
 * svf/, run by the blocks. */
#ifndef T2_MODEL_OVERLAY_H
#define T2_MODEL_OVERLAY_H

#include "t2.h"
#include "t2k.h"

struct t2_linear;

#define T2_OVERLAY_PARTS 3 /* in_proj is three matrices */

/* Outputs [first, first + m) of a layer, by one matrix. */
typedef struct t2_overlay_part {
    int64_t first, m;
    int64_t mid_first, r; /* its columns of the middle; r = 0 with packed: none is needed */
    const void *packed;   /* r > 0: U^T (r, m); r = 0: W'^T (n, m), or NULL: only the base */
} t2_overlay_part;

/* y = (x W^T where add_base) + ((x V) * scales[row]) U^T, or x W'^T, part by part; then the layer's
 * bias, channel[row] and what the call asks for. */
typedef struct t2_overlay {
    int parts;
    t2_overlay_part part[T2_OVERLAY_PARTS];
    int add_base;
    int64_t mid;          /* columns of the middle: all parts' V side by side; 0: none */
    const void *packed_v; /* (n, mid) */
    const float *scales;  /* (count, mid) */
    const float *channel; /* (count, out); NULL: none */
    int64_t count;
} t2_overlay;

/* The overlays of a call and what they need. */
typedef struct t2_overlay_call {
    const t2_overlay *const *overlays; /* by t2_linear.index; NULL: the base's own product */
    const int64_t *rows; /* (rows of the call) into scales, where 0 is the base; NULL: 1 for all */
    float *middle;       /* (rows, largest mid) */
    int replaces_choice; /* no scale of the model's own is chosen or applied */
} t2_overlay_call;

/* As t2_linear_team() of the layer that `overlay` replaces. */
t2k_status t2_overlay_team(t2k_team *team, const t2_overlay *overlay, const t2_overlay_call *call,
                           const struct t2_linear *linear, int64_t rows, const float *x, float *y,
                           int64_t ldy, t2k_activation activation, const float *residual);

#endif
