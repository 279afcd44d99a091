/* Picking a token from logits. Internal. */
#ifndef T2_MODEL_SAMPLE_H
#define T2_MODEL_SAMPLE_H

#include <stdint.h>

/* What names the random numbers of a sequence. */
typedef struct t2_draw {
    uint64_t seed;
    uint32_t step, prompt, sample;
} t2_draw;

/* In [0, 1), for the token at that position. */
double t2_sample_uniform(const t2_draw *draw, int64_t position);

/* A token by softmax(logits (n) / temperature) and u in [0, 1); temperature 0: the lowest id among
 * the largest logits. *log_prob (NULL: not wanted) is its logarithmic probability, at temperature 1
 * where that is 0. weights: room for n. -1 where the logits give no token: a NaN, or, where a
 * distribution is needed, a largest logit that is infinite. Inside a parallel region, for its
 * floating-point environment. */
int64_t t2_sample_token(const float *logits, int64_t n, double temperature, double u,
                        double *weights, double *log_prob);

#endif
