/* Products of a linear layer under experts. All rows share the products; what differs from row to
 * row is a scale, gathered in the epilogue of the first product (SVF) or of the last one (CHANNEL),
 * so that a row's bits do not depend on the experts of the others. */
#include "model/overlay.h"

#include "model/model.h"

/* The epilogue of the layer for one part of its outputs. */
static t2k_epilogue finish(const t2_overlay *overlay, const t2_overlay_call *call,
                           const t2_linear *linear, int64_t first, t2k_activation activation,
                           const float *residual)
{
    t2k_epilogue e = {.size = sizeof e,
                      .bias = linear->bias != NULL ? linear->bias + first : NULL,
                      .activation = activation,
                      .residual = residual != NULL ? residual + first : NULL,
                      .ldr = linear->out};
    if (overlay->channel != NULL) {
        e.scale = overlay->channel + first + (call->rows == NULL ? linear->out : 0);
        e.scale_rows = call->rows;
        e.lds = linear->out;
        e.scale_count = overlay->count;
    }
    return e;
}

static t2k_status middle(t2k_team *team, const t2_overlay *overlay, const t2_overlay_call *call,
                         int64_t rows, int64_t in, const float *x)
{
    t2k_epilogue e = {.size = sizeof e,
                      .scale = overlay->scales + (call->rows == NULL ? overlay->mid : 0),
                      .scale_rows = call->rows,
                      .lds = overlay->mid,
                      .scale_count = overlay->count};
    return t2k_sgemm_packed_team(team, T2K_NO_TRANS, rows, overlay->mid, in, 1.0f, x, in,
                                 overlay->packed_v, 0.0f, call->middle, overlay->mid, &e);
}

t2k_status t2_overlay_team(t2k_team *team, const t2_overlay *overlay, const t2_overlay_call *call,
                           const t2_linear *linear, int64_t rows, const float *x, float *y,
                           int64_t ldy, t2k_activation activation, const float *residual)
{
    t2k_status status = T2K_OK;
    int64_t in = linear->in;
    if (overlay->add_base) {
        status = t2k_sgemm_packed_team(team, T2K_NO_TRANS, rows, linear->out, in, 1.0f, x, in,
                                       linear->packed, 0.0f, y, ldy, NULL);
    }
    if (status == T2K_OK && overlay->mid > 0) {
        status = middle(team, overlay, call, rows, in, x);
    }
    for (int i = 0; i < overlay->parts && status == T2K_OK; i++) {
        const t2_overlay_part *part = &overlay->part[i];
        t2k_epilogue e = finish(overlay, call, linear, part->first, activation, residual);
        float beta = overlay->add_base ? 1.0f : 0.0f;
        if (part->packed == NULL) { /* k = 0: nothing but the epilogue over the base's product */
            status = t2k_sgemm_team(team, T2K_NO_TRANS, T2K_NO_TRANS, rows, part->m, 0, 1.0f, x, 1,
                                    x, part->m, beta, y + part->first, ldy, &e);
        } else if (part->r > 0) {
            status = t2k_sgemm_packed_team(team, T2K_NO_TRANS, rows, part->m, part->r, 1.0f,
                                           call->middle + part->mid_first, overlay->mid,
                                           part->packed, beta, y + part->first, ldy, &e);
        } else {
            status = t2k_sgemm_packed_team(team, T2K_NO_TRANS, rows, part->m, in, 1.0f, x, in,
                                           part->packed, 0.0f, y + part->first, ldy, &e);
        }
    }
    return status;
}
