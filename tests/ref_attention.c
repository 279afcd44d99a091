#include "ref_attention.h"

#include <math.h>
#include <stdlib.h>

#define BLOCK 64

int ref_attention_masked(const t2k_attention_args *a, int64_t item, int64_t head, int64_t l,
                         int64_t s, double *add)
{
    int64_t at = item * a->mask_item + head * a->mask_head + l * a->mask_row + s;
    *add = 0.0;
    if (a->mask_kind == T2K_MASK_BOOL) {
        return ((const uint8_t *)a->mask)[at] != 0;
    }
    if (a->mask_kind == T2K_MASK_ADD) {
        *add = ((const float *)a->mask)[at];
        return *add == -INFINITY;
    }
    if (a->mask_kind == T2K_MASK_CAUSAL) {
        return s > l + a->keys - a->queries;
    }
    return 0;
}

int ref_attention_weights(const t2k_attention_args *a, int64_t item, int64_t head, int64_t l,
                          double *weight, double *error)
{
    const double u = 0x1p-24;
    const int64_t shared = a->kv_heads > 0 ? head / (a->heads / a->kv_heads) : head;
    const float *q = a->q + l * a->q_row + item * a->q_item + head * a->head_dim;
    double top = -INFINITY, sum = 0.0;
    for (int64_t s = 0; s < a->keys; s++) {
        const float *k = a->k + s * a->k_row + item * a->k_item + shared * a->head_dim;
        double dot = 0.0, size = 0.0, add;
        for (int64_t c = 0; c < a->head_dim; c++) {
            double x = (double)q[c] * (double)a->scale * (double)k[c];
            dot += x;
            size += fabs(x);
        }
        int blocked = ref_attention_masked(a, item, head, l, s, &add);
        weight[s] = blocked ? -INFINITY : dot + add;
        error[s] = ((double)a->head_dim + 3.0) * size + 2.0 * fabs(dot + add);
        top = fmax(top, weight[s]);
    }
    double blocks = (double)((a->keys + BLOCK - 1) / BLOCK);
    for (int64_t s = 0; s < a->keys; s++) {
        double below = weight[s] - top;
        weight[s] = isinf(top) ? 0.0 : exp(below);
        sum += weight[s];
        error[s] =
            weight[s] == 0.0
                ? 0.0
                : u * (error[s] - 2.0 * below + fmin((double)a->keys, BLOCK) + 6.0 * blocks + 8.0);
    }
    for (int64_t s = 0; s < a->keys; s++) {
        weight[s] /= sum > 0.0 ? sum : 1.0;
    }
    return !isinf(top);
}

static void row(const t2k_attention_args *a, int64_t item, int64_t head, int64_t l, double *weight,
                double *error, double *out, double *bound)
{
    const int64_t shared = a->kv_heads > 0 ? head / (a->heads / a->kv_heads) : head;
    const int any = ref_attention_weights(a, item, head, l, weight, error);
    double spread = 0.0;
    for (int64_t s = 0; s < a->keys; s++) {
        spread += weight[s] * error[s];
    }
    for (int64_t c = 0; c < a->head_dim; c++) {
        double value = 0.0, size = 0.0, moved = 0.0, lost = 0.0;
        for (int64_t s = 0; s < a->keys; s++) {
            double v = a->v[s * a->v_row + item * a->v_item + shared * a->head_dim + c];
            value += weight[s] * v;
            size += weight[s] * fabs(v);
            lost += weight[s] < 0x1p-125 && weight[s] > 0.0 ? fabs(v) : 0.0;
            moved += weight[s] * fabs(v) * error[s];
        }
        double empty = a->empty_row == T2K_EMPTY_ZERO ? 0.0 : NAN;
        out[c] = any ? value : empty;
        bound[c] = moved + size * spread + lost * 0x1p-126 + 0x1p-140;
    }
}

void ref_attention(const t2k_attention_args *a, double *out, double *bound)
{
    double *weight = malloc(((size_t)a->keys + 1) * sizeof *weight);
    double *error = malloc(((size_t)a->keys + 1) * sizeof *error);
    if (weight == NULL || error == NULL) {
        abort();
    }
    for (int64_t l = 0; l < a->queries; l++) {
        for (int64_t item = 0; item < a->items; item++) {
            for (int64_t head = 0; head < a->heads; head++) {
                int64_t at = ((l * a->items + item) * a->heads + head) * a->head_dim;
                row(a, item, head, l, weight, error, out + at, bound + at);
            }
        }
    }
    free(weight);
    free(error);
}
