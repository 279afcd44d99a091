/* Factor files and layers from arrays, for tests of experts. */
#ifndef T2_SVF_CASE_H
#define T2_SVF_CASE_H

#include "t2.h"

/* One matrix: W (m, n), U (m, r), S (r), V (n, r). */
typedef struct svf_case {
    const char *name;
    int64_t m, n, r;
    const float *W, *U, *S, *V;
} svf_case;

/* Writes a factor file of these matrices and opens it. Aborts on failure. */
t2_factors *svf_case_factors(const char *path, const svf_case *cases, int64_t count);

/* An expert with one vector for each name; aborts on failure. */
t2_expert *svf_case_expert(const t2_factors *factors, t2_expert_form form, const char *name,
                           int64_t size, const float *p);

#endif
