/* Picking a token from logits (docs/numerics.md rule 20): weights, sums and logarithms in double,
 * by functions that give the same bits on every CPU. */
#include "model/sample.h"

#include "model/model.h"

#include <math.h>
#include <sleef.h>

/* The first of the largest logits; -1 where one is NaN. */
static int64_t largest_of(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i])) {
            return -1;
        }
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* weights[i] = exp((logit i - largest) / temperature), and their sum. */
static double weigh(const float *logits, int64_t n, int64_t largest, double temperature,
                    double *weights)
{
    double total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double off = (double)logits[i] - (double)logits[largest];
        weights[i] = Sleef_cinz_expd1_u10purec(off / temperature);
        total += weights[i];
    }
    return total;
}

/* The first token, in rising id, whose cumulative weight exceeds u times the total, else the last
 * one with any weight (rounding can leave the sum short). */
static int64_t first_above(const double *weights, int64_t n, double total, double u)
{
    double sum = 0.0;
    int64_t last = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += weights[i];
        if (sum > u * total) {
            return i;
        }
        last = weights[i] > 0.0 ? i : last;
    }
    return last;
}

int64_t t2_sample_token(const float *logits, int64_t n, double temperature, double u,
                        double *weights, double *log_prob)
{
    int64_t largest = largest_of(logits, n);
    int greedy = temperature <= 0.0;
    if (largest < 0 || (greedy && log_prob == NULL)) {
        return largest;
    }
    if (isinf(logits[largest])) {
        return -1;
    }
    double by = greedy ? 1.0 : temperature;
    double total = weigh(logits, n, largest, by, weights);
    int64_t token = greedy ? largest : first_above(weights, n, total, u);
    if (log_prob != NULL) {
        double off = (double)logits[token] - (double)logits[largest];
        *log_prob = off / by - Sleef_cinz_logd1_u10purec(total);
    }
    return token;
}

double t2_sample_uniform(const t2_draw *draw, int64_t position)
{
    t2_random random = t2_random_key(draw->seed, "sample", 0);
    const uint32_t counter[4] = {draw->step, draw->prompt, draw->sample, (uint32_t)position};
    uint32_t words[4];
    t2k_philox4x32(counter, random.key, words);
    return t2_random_uniform(words[0], words[1]);
}
