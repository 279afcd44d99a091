#include "ref_attention_backward.h"
#include "ref_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
#define ULP 0x1p-24

/* One query: its weights, and ds, each with the error it may have. */
struct query {
    const float *q, *dout, *k, *v; /* of the item and head; k and v of key 0 */
    double *weight, *weight_error, *ds, *ds_error;
    int any;
};

/* The relative rounding of a sum of n products in blocks. */
static double rounding(int64_t n)
{
    const double count = (double)n;
    return (fmin(count, BLOCK) + ceil(count / BLOCK) + 4.0) * ULP;
}

static void query_gradients(const t2k_attention_args *a, const struct query *w)
{
    const int64_t keys = a->keys;
    double spread = 0.0, delta = 0.0, size = 0.0, moved = 0.0;
    for (int64_t s = 0; s < keys; s++) {
        spread += w->weight[s] * w->weight_error[s];
    }
    for (int64_t s = 0; s < keys; s++) {
        double dp = 0.0, magnitude = 0.0;
        for (int64_t c = 0; c < a->head_dim; c++) {
            const double x = (double)w->dout[c] * (double)w->v[s * a->v_row + c];
            dp += x;
            magnitude += fabs(x);
        }
        w->ds[s] = dp;
        w->ds_error[s] = ((double)a->head_dim + 1.0) * ULP * magnitude;
        const double p = w->weight[s], lost = p > 0.0 && p < 0x1p-125 ? 0x1p-124 : 0.0;
        w->weight_error[s] = p * (w->weight_error[s] + spread + 3.0 * ULP) + lost;
        delta += p * dp;
        size += p * fabs(dp);
        moved += w->weight_error[s] * fabs(dp) + p * w->ds_error[s];
    }
    moved += (rounding(keys) + 6.0 * ULP * (double)((keys + BLOCK - 1) / BLOCK)) * size;
    for (int64_t s = 0; s < keys; s++) {
        const double dp = w->ds[s], p = w->weight[s];
        w->ds[s] = p * (dp - delta);
        w->ds_error[s] = p == 0.0 ? 0.0
                                  : w->weight_error[s] * fabs(dp - delta) +
                                        p * (w->ds_error[s] + moved) +
                                        3.0 * ULP * p * (fabs(dp) + fabs(delta)) + 0x1p-140;
    }
}

/* Adds f x to a sum, of which `error` is the error of f. */
static void add(double *sum[2], int64_t at, double f, double error, double x, double relative)
{
    sum[0][at] += f * x;
    sum[1][at] += error * fabs(x) + relative * fabs(f * x) + 0x1p-140;
}

static void add_query(const t2k_attention_args *a, const struct query *w, int64_t at_q,
                      int64_t at_kv, int64_t kv_step, double *dq[2], double *dk[2], double *dv[2])
{
    const double scale = (double)a->scale;
    const double group = a->kv_heads > 0 ? (double)a->heads / (double)a->kv_heads : 1.0;
    const double by_key = rounding(a->keys) + ULP, by_query = rounding(a->queries) * group;
    const double empty = a->empty_row == T2K_EMPTY_ZERO ? 0.0 : NAN;
    for (int64_t c = 0; c < a->head_dim; c++) {
        dq[0][at_q + c] = w->any ? 0.0 : empty;
        for (int64_t s = 0; s < a->keys && w->any; s++) {
            const int64_t at = at_kv + s * kv_step + c;
            const double k = (double)w->k[s * a->k_row + c] * scale, q = (double)w->q[c] * scale;
            if (w->weight[s] > 0.0) {
                add(dq, at_q + c, w->ds[s], w->ds_error[s], k, by_key);
                add(dk, at, w->ds[s], w->ds_error[s], q, by_query);
                add(dv, at, w->weight[s], w->weight_error[s], (double)w->dout[c], by_query);
            }
        }
    }
}

void ref_attention_backward(const t2k_attention_backward_args *args, double *dq[2], double *dk[2],
                            double *dv[2])
{
    const t2k_attention_args *a = args->of;
    const int64_t kv_heads = a->kv_heads > 0 ? a->kv_heads : a->heads;
    const int64_t group = a->heads > 0 ? a->heads / kv_heads : 1, d = a->head_dim;
    const size_t n = (size_t)(a->queries * a->items * a->heads * d);
    const size_t kv_n = (size_t)(a->keys * a->items * kv_heads * d), keys = (size_t)a->keys + 1;
    double *space = malloc(4 * keys * sizeof *space);
    if (space == NULL) {
        abort();
    }
    for (int i = 0; i < 2; i++) {
        memset(dq[i], 0, n * sizeof(double));
        memset(dk[i], 0, kv_n * sizeof(double));
        memset(dv[i], 0, kv_n * sizeof(double));
    }
    struct query w = {.weight = space,
                      .weight_error = space + keys,
                      .ds = space + 2 * keys,
                      .ds_error = space + 3 * keys};
    for (int64_t at = 0; at < a->queries * a->items * a->heads; at++) {
        const int64_t head = at % a->heads, item = at / a->heads % a->items;
        const int64_t l = at / a->heads / a->items, shared = head / group * d;
        w.any = ref_attention_weights(a, item, head, l, w.weight, w.weight_error);
        w.q = a->q + l * a->q_row + item * a->q_item + head * d;
        w.dout = args->dout + l * args->dout_row + item * args->dout_item + head * d;
        if (a->keys > 0) {
            w.k = a->k + item * a->k_item + shared;
            w.v = a->v + item * a->v_item + shared;
        }
        query_gradients(a, &w);
        add_query(a, &w, at * d, item * kv_heads * d + shared, a->items * kv_heads * d, dq, dk, dv);
    }
    free(space);
}
