/* panel.h - a part of a picture with logarithmic axes from a low to a high corner. */
#ifndef T2_BENCH_PANEL_H
#define T2_BENCH_PANEL_H

#include "io/text.h"

#include <math.h>

struct panel {
    t2_text *svg;
    double left, right, top, bottom; /* in the picture */
    double x_low, x_high, y_low, y_high;
};

static inline double panel_x(const struct panel *p, double x)
{
    return p->left + (p->right - p->left) * log(x / p->x_low) / log(p->x_high / p->x_low);
}

static inline double panel_y(const struct panel *p, double y)
{
    return p->bottom - (p->bottom - p->top) * log(y / p->y_low) / log(p->y_high / p->y_low);
}

#endif
