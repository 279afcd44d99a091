/* Rules 11, 12 and 13 of docs/numerics.md: attention of one head, key by key. */
#include "matrix_rules.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { QUERIES = 7, KEYS = 150, WIDEST = 32 };

static float q[QUERIES * WIDEST], k[KEYS * WIDEST], v[KEYS * WIDEST];
static float got[QUERIES * WIDEST], want[QUERIES * WIDEST];
static uint8_t blocked[QUERIES * KEYS];
static float added[QUERIES * KEYS];

static int is_blocked(const t2k_attention_args *a, size_t query, size_t key)
{
    const size_t at = query * (size_t)a->mask_row + key;
    return a->mask_kind == T2K_MASK_BOOL  ? ((const uint8_t *)a->mask)[at] != 0
           : a->mask_kind == T2K_MASK_ADD ? ((const float *)a->mask)[at] == -INFINITY
                                          : 0;
}

static float score(const t2k_attention_args *a, size_t query, size_t key)
{
    const size_t channels = (size_t)a->head_dim;
    float s = 0.0f;
    if (is_blocked(a, query, key)) {
        return -INFINITY;
    }
    for (size_t c = 0; c < channels; c++) {
        const float scaled = a->q[query * channels + c] * a->scale;
        s = fmaf(scaled, a->k[key * channels + c], s);
    }
    if (a->mask_kind == T2K_MASK_ADD) {
        s = s + ((const float *)a->mask)[query * (size_t)a->mask_row + key];
    }
    return s;
}

/* exp() of what is not above 0, where everything below 2^-126.5 is +0. */
static float weight(float x)
{
    const float magic = 12583039.0f; /* 1.5 * 2^23 + 127 */
    return fmaf(x, 0x1.715476p+0f, magic) - magic < -126.0f ? 0.0f : rule_exp(x);
}

/* One block of keys of the online softmax; O (channels), *m and *l are its running state. */
static void block_of_keys(const t2k_attention_args *a, size_t query, size_t first, size_t count,
                          float *O, float *m, float *l)
{
    float s[KEYS], sum = 0.0f, top = *m;
    const size_t channels = (size_t)a->head_dim;
    for (size_t key = 0; key < count; key++) {
        s[key] = score(a, query, first + key);
        top = s[key] > top ? s[key] : top;
    }
    const float base = top == -INFINITY ? 0.0f : top;
    const float corr = weight(*m - base);
    for (size_t key = 0; key < count; key++) {
        s[key] = weight(s[key] - base);
        sum = sum + s[key];
    }
    for (size_t c = 0; c < channels; c++) {
        float chain = 0.0f;
        for (size_t key = 0; key < count; key++) {
            if (!is_blocked(a, query, first + key)) {
                chain = fmaf(s[key], a->v[(first + key) * channels + c], chain);
            }
        }
        O[c] = fmaf(O[c], corr, chain);
    }
    *l = fmaf(*l, corr, sum);
    *m = top;
}

/* All queries by the site-by-site list of docs/numerics.md, in blocks of `block` keys. */
static void literal(const t2k_attention_args *a, size_t block, float *out)
{
    const size_t keys = (size_t)a->keys, channels = (size_t)a->head_dim;
    for (size_t query = 0; query < (size_t)a->queries; query++) {
        float O[WIDEST] = {0}, m = -INFINITY, l = 0.0f;
        size_t open = 0;
        for (size_t first = 0; first < keys; first += block) {
            block_of_keys(a, query, first, keys - first < block ? keys - first : block, O, &m, &l);
        }
        for (size_t key = 0; key < keys; key++) {
            open += !is_blocked(a, query, key);
        }
        const float empty = a->empty_row == T2K_EMPTY_ZERO ? 0.0f : NAN;
        for (size_t c = 0; c < channels; c++) {
            out[query * channels + c] = open == 0 ? empty : O[c] * (1.0f / l) + 0.0f;
        }
    }
}

/* Random q, k and v of one head; scores of some units, so that the maximum moves. */
static t2k_attention_args open_head(struct matrix *m, int64_t channels)
{
    t2k_attention_args a = {.size = sizeof a, .queries = QUERIES, .keys = KEYS, .items = 1};
    rng_fill(&m->rng, q, QUERIES * WIDEST);
    rng_fill(&m->rng, k, KEYS * WIDEST);
    rng_fill(&m->rng, v, KEYS * WIDEST);
    a.heads = 1;
    a.head_dim = channels;
    a.scale = 1.7f;
    a.q = q;
    a.k = k;
    a.v = v;
    a.out = got;
    a.q_row = a.k_row = a.v_row = a.out_row = channels;
    return a;
}

static void set_mask(t2k_attention_args *a, t2k_mask_kind kind)
{
    a->mask_kind = kind;
    a->mask = kind == T2K_MASK_BOOL ? (const void *)blocked : (const void *)added;
    a->mask_row = KEYS;
}

static void compare(struct matrix *m, const t2k_attention_args *a, const char *text)
{
    const size_t n = (size_t)(a->queries * a->head_dim);
    memset(got, 0x55, sizeof got);
    matrix_check(m, t2k_attention(a) == T2K_OK, "%s", text);
    literal(a, 64, want);
    matrix_same(m, got, want, n, "%s, %d channels", text, (int)a->head_dim);
    matrix_result(m, 0, got, n);
}

/* ---- rule 11 -------------------------------------------------------------------------------- */

/* Query `l` alone with the keys that it may see gives row l of the whole. */
static void decode(struct matrix *m, const t2k_attention_args *whole)
{
    const size_t channels = (size_t)whole->head_dim;
    float row[WIDEST];
    for (size_t l = 0; l < QUERIES; l++) {
        t2k_attention_args one = *whole;
        one.queries = 1;
        one.q = whole->q + l * channels;
        one.out = row;
        if (whole->mask_kind == T2K_MASK_BOOL) {
            one.mask_kind = T2K_MASK_NONE;
            one.keys = 0;
            while (one.keys < KEYS && !is_blocked(whole, l, (size_t)one.keys)) {
                one.keys++;
            }
        }
        matrix_check(m, t2k_attention(&one) == T2K_OK, "rule 11: query %zu", l);
        matrix_same(m, row, want + l * channels, channels, "rule 11: query %zu with %d keys", l,
                    (int)one.keys);
    }
}

/* A sequence decoded with a cache of keys and values, `step` queries at a time with the keys up to
 * the last of them, gives the bits of the pass over all of it under a causal mask. */
static void cached(struct matrix *m, int64_t step, int64_t channels)
{
    enum { LENGTH = 140, HEADS = 6, SHARED = 2, MOST = LENGTH * HEADS * 24 };
    static float x[3][MOST], all[MOST], parts[MOST];
    for (size_t i = 0; i < 3; i++) {
        rng_fill(&m->rng, x[i], MOST);
    }
    t2k_attention_args a = {.size = sizeof a, .queries = LENGTH, .keys = LENGTH, .items = 1};
    a.heads = HEADS;
    a.kv_heads = SHARED;
    a.head_dim = channels;
    a.scale = 1.3f;
    a.q = x[0];
    a.k = x[1];
    a.v = x[2];
    a.out = all;
    a.q_row = a.out_row = HEADS * channels;
    a.k_row = a.v_row = SHARED * channels;
    a.mask_kind = T2K_MASK_CAUSAL;
    matrix_check(m, t2k_attention(&a) == T2K_OK, "rule 11: all of a sequence");
    matrix_result(m, 0, all, (size_t)(LENGTH * HEADS * channels));
    for (int64_t first = 0; first < LENGTH; first += step) {
        t2k_attention_args part = a;
        part.queries = step < LENGTH - first ? step : LENGTH - first;
        part.keys = first + part.queries;
        part.q = a.q + first * a.q_row;
        part.out = parts + first * a.out_row;
        matrix_check(m, t2k_attention(&part) == T2K_OK, "rule 11: from query %d", (int)first);
    }
    matrix_same(m, parts, all, (size_t)(LENGTH * HEADS * channels),
                "rule 11: %d queries at a time, %d channels", (int)step, (int)channels);
}

/* Weights below 2^-126.5 are +0, also where V would make them show. */
static void smallest(struct matrix *m)
{
    t2k_attention_args a = open_head(m, 19);
    for (size_t at = 0; at < QUERIES * KEYS; at++) {
        added[at] = at % 2 == 0 ? -80.0f - 0.1f * (float)(at % KEYS) : 0.0f;
    }
    for (size_t key = 0; key < KEYS * 19; key++) {
        v[key] = key / 19 % 2 == 0 ? 3e38f * v[key] : 0.0f;
    }
    set_mask(&a, T2K_MASK_ADD);
    compare(m, &a, "rule 11: smallest weights");
}

/* Blocks of 64 keys from key 0, also when decoding; a causal mask skips whole blocks. */
void rule_11(struct matrix *m)
{
    for (int64_t channels = 19; channels <= 32; channels += 13) {
        t2k_attention_args a = open_head(m, channels);
        compare(m, &a, "rule 11: no mask");
        decode(m, &a);
        float other[QUERIES * WIDEST];
        literal(&a, 32, other);
        matrix_check(m, first_difference(other, want, QUERIES * 19) < QUERIES * 19,
                     "rule 11: no order shows in this data");
        for (size_t i = 0; i < QUERIES * KEYS; i++) {
            blocked[i] = i % KEYS > 23 * (i / KEYS);
        }
        set_mask(&a, T2K_MASK_BOOL);
        compare(m, &a, "rule 11: causal");
        decode(m, &a);
        /* Nothing before the second block for some: the old maximum is -Inf there. */
        for (size_t i = 0; i < QUERIES * KEYS; i++) {
            blocked[i] = i % KEYS < 32 * (i / KEYS) || i % 5 == 0;
        }
        blocked[QUERIES * KEYS - 1] = 0; /* the last query has one key */
        /* A channel that underflows to -0, which the result shows as +0. */
        for (size_t key = 0; key < KEYS; key++) {
            v[key * (size_t)channels] = key % 2 == 0 ? -0x1p-149f : -0.0f;
        }
        compare(m, &a, "rule 11: the beginning blocked");
    }
    for (int64_t step = 1; step <= 11; step += step < 5 ? 1 : 6) {
        cached(m, step, 24);
        cached(m, step, 9);
    }
    smallest(m);
}

/* ---- rule 12 -------------------------------------------------------------------------------- */

/* Blocked keys are selected away: what k and v hold there leaves no trace. */
static void poisoned(struct matrix *m, t2k_attention_args *a, float poison)
{
    const size_t channels = (size_t)a->head_dim;
    float clean[QUERIES * WIDEST];
    compare(m, a, "rule 12: finite");
    memcpy(clean, got, sizeof clean);
    for (size_t key = 3; key < KEYS; key += 10) {
        k[key * channels + 1] = poison;
        v[key * channels + channels - 1] = -poison;
    }
    compare(m, a, "rule 12: infinite and NaN");
    matrix_same(m, got, clean, QUERIES * channels, "rule 12: poison %g in a blocked key",
                (double)poison);
}

void rule_12(struct matrix *m)
{
    static const float poisons[] = {INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < 12; i++) {
        t2k_attention_args a = open_head(m, i % 2 == 0 ? 19 : 32);
        for (size_t at = 0; at < QUERIES * KEYS; at++) {
            const size_t query = at / KEYS, key = at % KEYS;
            blocked[at] = key % 10 == 3 || query == 4 || (query == 2 && key < 70);
            added[at] = blocked[at] ? -INFINITY : rng_uniform(&m->rng);
        }
        set_mask(&a, i % 4 < 2 ? T2K_MASK_BOOL : T2K_MASK_ADD);
        a.empty_row = i < 6 ? T2K_EMPTY_NAN : T2K_EMPTY_ZERO;
        poisoned(m, &a, poisons[i % 3]);
        const float empty = got[4 * (size_t)a.head_dim]; /* query 4 has no key left */
        matrix_check(m, i < 6 ? isnan(empty) : bits_of(empty) == 0,
                     "rule 12: a row without a key: %g", (double)empty);
    }
}

/* ---- rule 13 -------------------------------------------------------------------------------- */

/* An additive mask joins the score in natural units: -FLT_MAX stays finite, and a row of nothing
 * else is uniform. */
void rule_13(struct matrix *m)
{
    static const float lowest[] = {-FLT_MAX, -1e9f, -3e38f, FLT_MAX, 0.0f};
    for (size_t i = 0; i < sizeof lowest / sizeof lowest[0]; i++) {
        t2k_attention_args a = open_head(m, 19);
        for (size_t at = 0; at < QUERIES * KEYS; at++) {
            const int all = at / KEYS < 2;
            added[at] = all || at % 3 == 0 ? lowest[i] : 4.0f * rng_uniform(&m->rng);
        }
        set_mask(&a, T2K_MASK_ADD);
        compare(m, &a, "rule 13");
        size_t numbers = 0;
        for (size_t j = 0; j < QUERIES * 19; j++) {
            numbers += isnan(got[j]) ? 0 : 1;
        }
        matrix_check(m, numbers == QUERIES * 19, "rule 13: mask %g gives NaN", (double)lowest[i]);
        if (fabsf(lowest[i]) < 1e9f) {
            continue;
        }
        /* Every score is absorbed: p is 1 everywhere, l the number of keys. */
        for (size_t c = 0; c < 19; c++) {
            float O = 0.0f;
            for (size_t first = 0; first < KEYS; first += 64) {
                float chain = 0.0f;
                for (size_t key = first; key < first + 64 && key < KEYS; key++) {
                    chain = chain + v[key * 19 + c];
                }
                O = O + chain;
            }
            const float mean = O * (1.0f / (float)KEYS) + 0.0f;
            matrix_same(m, &got[19 + c], &mean, 1, "rule 13: uniform under %g", (double)lowest[i]);
        }
    }
}
