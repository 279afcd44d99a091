/* Attention in the layout (L, N, E): shape LxNxHxD is length, batch items, heads, channels of a
 * head. A row of the result is one query position: (N, H, D). */
#include "bench.h"

#include <math.h>
#include <stdlib.h>

enum { Q, K, V };

static int64_t width(const struct problem *p)
{
    return p->heads * p->k;
}

static t2k_status prepare(struct problem *p)
{
    t2k_status status = T2K_OK;
    for (int slot = Q; slot <= V && status == T2K_OK; slot++) {
        status = bench_floats(p, slot, p->m * p->items * width(p), 1.0f);
    }
    return status;
}

static t2k_status prepare_causal(struct problem *p)
{
    p->mask = bench_alloc((size_t)(p->m * p->m), sizeof *p->mask);
    if (p->mask == NULL) {
        return T2K_ERR_NOMEM;
    }
    for (int64_t l = 0; l < p->m; l++) {
        for (int64_t s = 0; s < p->m; s++) {
            p->mask[l * p->m + s] = s > l;
        }
    }
    return prepare(p);
}

static t2k_status attend(struct problem *p, int64_t first, int64_t queries, float *out)
{
    int64_t e = width(p), row = p->items * e;
    t2k_attention_args args = {.size = sizeof args,
                               .queries = queries,
                               .keys = p->m,
                               .items = p->items,
                               .heads = p->heads,
                               .head_dim = p->k,
                               .scale = (float)(1.0 / sqrt((double)p->k)),
                               .q = p->in[Q] + first * row,
                               .k = p->in[K],
                               .v = p->in[V],
                               .out = out,
                               .q_row = row,
                               .q_item = e,
                               .k_row = row,
                               .k_item = e,
                               .v_row = row,
                               .v_item = e,
                               .out_row = row,
                               .out_item = e};
    if (p->mask != NULL) {
        args.mask_kind = T2K_MASK_BOOL;
        args.mask = p->mask + first * p->m;
        args.mask_row = p->m;
    }
    return t2k_attention(&args);
}

static t2k_status run(struct problem *p)
{
    return attend(p, 0, p->m, p->out);
}

static t2k_status run_row(struct problem *p, int64_t row, float *out)
{
    return attend(p, row, 1, out);
}

/* One (item, head) of query `row`: out and bound (head_dim); score is scratch (keys). */
static void reference_head(const struct problem *p, int64_t row, int64_t offset, double *score,
                           double *out, double *bound)
{
    int64_t stride = p->items * width(p), keys = p->mask != NULL ? row + 1 : p->m;
    double scale = (double)(float)(1.0 / sqrt((double)p->k)), max = -INFINITY, most = 0.0;
    for (int64_t s = 0; s < keys; s++) {
        double dot = 0.0, magnitude = 0.0;
        for (int64_t d = 0; d < p->k; d++) {
            double product = (double)p->in[Q][row * stride + offset + d] *
                             (double)p->in[K][s * stride + offset + d];
            dot += product;
            magnitude += fabs(product);
        }
        score[s] = scale * dot;
        max = fmax(max, score[s]);
        most = fmax(most, scale * magnitude);
    }
    double sum = 0.0;
    for (int64_t s = 0; s < keys; s++) {
        score[s] = exp(score[s] - max);
        sum += score[s];
    }
    for (int64_t d = 0; d < p->k; d++) {
        double value = 0.0, magnitude = 0.0;
        for (int64_t s = 0; s < keys; s++) {
            double part = score[s] / sum * (double)p->in[V][s * stride + offset + d];
            value += part;
            magnitude += fabs(part);
        }
        out[d] = value;
        /* A score's error moves its weight by as much, above and below the fraction; then exp and
         * the two sums over the keys, in blocks. */
        double roundings = 2.0 * ((double)p->k + 4.0) * most + 8.0 +
                           2.0 * (T2K_ATTENTION_KEYS + (double)keys / T2K_ATTENTION_KEYS);
        bound[d] = 0x1p-24 * roundings * magnitude;
    }
}

static void reference(const struct problem *p, int64_t row, double *ref, double *allowed)
{
    double *score = bench_alloc((size_t)p->m, sizeof *score);
    for (int64_t offset = 0; offset < p->cols; offset += p->k) {
        if (score == NULL) {
            for (int64_t d = 0; d < p->k; d++) {
                ref[offset + d] = NAN; /* equal to no result: the case fails */
                allowed[offset + d] = 0.0;
            }
            continue;
        }
        reference_head(p, row, offset, score, ref + offset, allowed + offset);
    }
    free(score);
}

static const struct bench_kind attention = {.op = "attention",
                                            .slot = BENCH_SLOT(attention),
                                            .prepare = prepare,
                                            .run = run,
                                            .run_row = run_row,
                                            .reference = reference};
static const struct bench_kind attention_causal = {.op = "attention_causal",
                                                   .slot = BENCH_SLOT(attention),
                                                   .prepare = prepare_causal,
                                                   .run = run,
                                                   .run_row = run_row,
                                                   .reference = reference};

static void add(struct bench_suite *suite, const struct bench_kind *kind, int64_t length,
                int64_t items, int64_t heads, int64_t dim)
{
    struct problem *p = bench_add(suite, kind, "%lldx%lldx%lldx%lld", (long long)length,
                                  (long long)items, (long long)heads, (long long)dim);
    if (p == NULL) {
        return;
    }
    p->m = p->rows = length;
    p->k = dim;
    p->items = items;
    p->heads = heads;
    p->cols = items * heads * dim;
    /* Scores and weighted values, one multiply-add each; a causal row sees (L+1)/2 keys. */
    double pairs = (double)length * (double)length;
    if (kind == &attention_causal) {
        pairs = (double)length * ((double)length + 1.0) / 2.0;
    }
    p->work = 2.0 * pairs * (double)p->cols + 4.0 * pairs * (double)(items * heads);
    p->flops = 4.0 * pairs * (double)p->cols;
    p->bytes = 4.0 * 4.0 * (double)length * (double)p->cols;
}

void bench_add_attention(struct bench_suite *suite)
{
    add(suite, &attention, 10, 32, 8, 32);
    add(suite, &attention, 128, 8, 8, 64);
    add(suite, &attention_causal, 128, 8, 8, 64);
}
