/* The functions of one argument: references in double and the bounds that t2k.h states. */
#ifndef T2_REF_UNARY_H
#define T2_REF_UNARY_H

#include "t2k.h"

struct ref_unary {
    const char *name;
    size_t slot; /* offset in t2k_table */
    t2k_status (*fn)(int64_t n, const float *X, float *Y);
    double (*exact)(double x);
    double from, ulp, absolute; /* x >= from: within ulp units in the last place, else `absolute` */
};

enum { REF_UNARIES = 6 };
extern const struct ref_unary ref_unaries[REF_UNARIES]; /* exp first */

/* Nonzero where y may stand for f(x): within the bound, a zero with the exact result's sign. */
int ref_unary_holds(const struct ref_unary *f, float x, float y);

#endif
