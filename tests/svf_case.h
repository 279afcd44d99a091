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

/* How stored values are read in the reference cases, and the input they are stored as. */
typedef struct svf_mode {
    const char *name, *parameter;
    t2_expert_form form;
} svf_mode;
#define SVF_MODES 5
extern const svf_mode svf_modes[SVF_MODES]; /* sigmoid, sigmoid2, plain, relu, relu_half */

/* A matrix as a layer with its factors. */
typedef struct svf_layer {
    svf_case matrix;
    const float *x; /* (rows, n) */
    int64_t rows;
    t2_factors *factors;
    t2_adapter *adapter;
} svf_layer;

/* Fills factors and adapter; bias (m) or NULL. The file is written at `path`. */
void svf_layer_open(svf_layer *l, const char *path, const float *bias);
void svf_layer_close(svf_layer *l);

/* t2_adaptation_create(); aborts on failure. */
t2_adaptation *svf_adapt(const svf_layer *l, const t2_expert *const *experts, int64_t count,
                         const double *alpha, int64_t rows, t2_mix_rule rule, t2_way way);

/* y (rows, m) of rows first ... of x, to free(); aborts on failure. */
float *svf_run(const svf_layer *l, const t2_adaptation *adaptation, int64_t first, int64_t rows,
               const int64_t *expert_rows, int threads);

#endif
