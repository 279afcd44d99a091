/* Attention in the layout (L, N, E): length, batch items, heads times channels. A row of the result
 * is one query position: (N, H, D). "decode" has fewer queries than keys, as a step of generation
 * with a cache of keys and values. */
#include "ops.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { Q, K, V };

static int is_causal(const struct problem *p)
{
    return p->op == &bench_op_attention_causal;
}

/* The sizes of a shape by their meaning. */
struct sizes {
    int64_t queries, keys, items, heads, channels;
};

static struct sizes sizes_of(const struct problem *p)
{
    const int64_t *rest = p->dim + (p->op == &bench_op_attention_decode);
    return (struct sizes){p->dim[0], rest[0], rest[1], rest[2], rest[3]};
}

static int describe(struct problem *p)
{
    const struct sizes z = sizes_of(p);
    int64_t l = z.queries, n = z.items, h = z.heads, cols = bench_elements(n, h, z.channels);
    if (z.channels > T2K_ATTENTION_WIDTH) {
        return -1;
    }
    for (int i = Q; i <= V; i++) {
        int64_t count = bench_elements(i == Q ? l : z.keys, cols, 1);
        if (bench_add_floats(p, BENCH_ACTIVATION, count, 1.0f) != 0) {
            return -1;
        }
    }
    /* Scores and weighted values, one multiply-add each; a causal row sees (l + 1) / 2 keys. The
     * exponentials count for the time of a call, not for its rate. */
    double pairs = (double)l * (is_causal(p) ? ((double)l + 1.0) / 2.0 : (double)z.keys);
    p->flops = 4.0 * pairs * (double)cols;
    p->macs = 2.0 * pairs * (double)cols + 16.0 * pairs * (double)n * (double)h;
    return bench_set_result(p, l, cols);
}

/* ---- reference ------------------------------------------------------------------------------- */

/* The float that a caller passes. */
static float scale_of(const struct problem *p)
{
    return (float)(1.0 / sqrt((double)sizes_of(p).channels));
}

/* x . y and the sum of the terms' absolute values; four sums of each, since one would wait for
 * itself. */
static double dot(int64_t n, const float *x, const float *y, double *magnitude)
{
    double sum[4] = {0.0}, abs[4] = {0.0};
    for (int64_t i = 0; i < n; i++) {
        double product = (double)x[i] * (double)y[i];
        sum[i & 3] += product;
        abs[i & 3] += fabs(product);
    }
    *magnitude = (abs[0] + abs[1]) + (abs[2] + abs[3]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Roundings, in units of u of the sum over keys of |p v|, that an element may have. `most` is the
 * largest |q|.|k| of the row, scaled: a score's error moves its weight by as much, above and below
 * the fraction. Then exp and the two sums over the keys: ours go in blocks, any other order is
 * covered by one chain, and other exps by some more units. */
static double roundings(const struct problem *p, int strict, int64_t keys, double most)
{
    double scores = 2.0 * ((double)sizes_of(p).channels + 4.0) * most;
    double n = (double)keys, blocks = T2K_ATTENTION_KEYS + n / T2K_ATTENTION_KEYS;
    return strict ? scores + 8.0 + 2.0 * blocks : scores + 64.0 + 2.0 * fmax(n, blocks);
}

/* One (item, head) of query `row`, its channels beginning at `offset`: ref and allowed (d), score
 * is scratch (keys). */
static void reference_head(const struct problem *p, const void *const in[], int strict, int64_t row,
                           int64_t offset, double *score, double *ref, double *allowed)
{
    const struct sizes z = sizes_of(p);
    int64_t keys = is_causal(p) ? row + 1 : z.keys, d = z.channels;
    const float *q = (const float *)in[Q] + row * p->cols + offset;
    const float *k = (const float *)in[K] + offset, *v = (const float *)in[V] + offset;
    double scale = (double)scale_of(p), max = -INFINITY, most = 0.0, sum = 0.0;
    for (int64_t s = 0; s < keys; s++) {
        double magnitude;
        score[s] = scale * dot(d, q, k + s * p->cols, &magnitude);
        max = fmax(max, score[s]);
        most = fmax(most, scale * magnitude);
    }
    for (int64_t s = 0; s < keys; s++) {
        score[s] = exp(score[s] - max);
        sum += score[s];
    }
    for (int64_t c = 0; c < d; c++) {
        ref[c] = allowed[c] = 0.0;
    }
    for (int64_t s = 0; s < keys; s++) {
        double weight = score[s] / sum;
        for (int64_t c = 0; c < d; c++) {
            double part = weight * (double)v[s * p->cols + c];
            ref[c] += part;
            allowed[c] += fabs(part);
        }
    }
    double share = roundings(p, strict, keys, most) * BENCH_U;
    for (int64_t c = 0; c < d; c++) {
        allowed[c] *= share;
    }
}

struct work {
    const struct problem *p;
    const void *const *in;
    int strict;
    int64_t count;
    const int64_t *rows;
    double *ref, *allowed;
    atomic_int failed;
};

/* Row by row, since causal rows differ in cost; of a single row, head by head. */
static void reference_part(t2k_team *team, void *arg)
{
    struct work *w = arg;
    const struct problem *p = w->p;
    const struct sizes z = sizes_of(p);
    int64_t d = z.channels, heads = p->cols / d;
    double *score = bench_alloc((size_t)z.keys, sizeof *score);
    if (score == NULL) {
        atomic_store(&w->failed, 1);
        return;
    }
    for (int64_t i = t2k_team_rank(team); i < w->count * heads; i += t2k_team_size(team)) {
        int64_t at = i / heads * p->cols + i % heads * d;
        reference_head(p, w->in, w->strict, w->rows[i / heads], i % heads * d, score, w->ref + at,
                       w->allowed + at);
    }
    free(score);
}

static t2k_status reference(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    struct work work = {p, in, strict, count, rows, ref, allowed, 0};
    t2k_status status = t2k_parallel(0, reference_part, &work);
    return status != T2K_OK ? status : atomic_load(&work.failed) ? T2K_ERR_NOMEM : T2K_OK;
}

/* ---- ours ------------------------------------------------------------------------------------ */

static t2k_status run(void *state)
{
    const struct bench_bound *b = state;
    const struct problem *p = b->p;
    const struct sizes z = sizes_of(p);
    int64_t width = z.heads * z.channels;
    t2k_attention_args args = {.size = sizeof args,
                               .queries = z.queries,
                               .keys = z.keys,
                               .items = z.items,
                               .heads = z.heads,
                               .head_dim = z.channels,
                               .scale = scale_of(p),
                               .q = b->in[Q],
                               .k = b->in[K],
                               .v = b->in[V],
                               .out = b->out,
                               .q_row = p->cols,
                               .q_item = width,
                               .k_row = p->cols,
                               .k_item = width,
                               .v_row = p->cols,
                               .v_item = width,
                               .out_row = p->cols,
                               .out_item = width};
    args.mask_kind = is_causal(p) ? T2K_MASK_CAUSAL : T2K_MASK_NONE;
    return t2k_attention(&args);
}

#define ATTENTION                                                                \
    .slot = BENCH_SLOT(attention), .describe = describe, .reference = reference, \
    .t2k_open = bench_bound_open, .t2k_run = run, .t2k_close = bench_bound_close

const struct bench_op bench_op_attention = {.name = "attention", .dims = "l n h d", ATTENTION};
const struct bench_op bench_op_attention_causal = {
    .name = "attention_causal", .dims = "l n h d", ATTENTION};
const struct bench_op bench_op_attention_decode = {
    .name = "attention_decode", .dims = "q l n h d", ATTENTION};
