/* Attention of one tile of queries of one head: online softmax over blocks of T2K_ATTENTION_KEYS
 * keys counted from key 0, no matrix of all scores in memory. Transformer^2 uses it as PyTorch's
 * nn.MultiheadAttention does; the online form is Milakov and Gimelshein, arXiv 1805.02867.
 *
 *   q' = q * scale;  s = sum over channels (fma) of k q';  s = s + mask;  blocked: s = -Inf
 *   per block: m' = max(m, s), p = exp(s - m'), corr = exp(m - m'),
 *              l = fma(l, corr, sum p), O = fma(O, corr, sum p v)
 *   out = O * (1 / l) + 0
 *
 * A block in which every key is blocked for every query of the tile is skipped: computing it
 * would multiply l and O by exactly 1 and add 0. */
#include "core/table.h"
#include "tmpl/exp.h"

#include <math.h>
#include <string.h>

#include "tmpl/attention_tiles.h"

#define ATT_KEYS T2K_ATTENTION_KEYS
_Static_assert(T2K_ATTENTION_KEYS == 64, "a block's blocked keys are the bits of a uint64_t");
_Static_assert(T2K_ATTENTION_QUERIES % VF_W == 0, "whole vectors of queries");
_Static_assert(ATT_VECS *VF_W <= T2K_ATTENTION_QUERIES, "the panel's part of the workspace");

struct att {
    size_t keys, queries, channels;
    size_t qs; /* queries rounded up to whole vectors */
    float scale;
    const float *q, *k, *v; /* of this item and head; q of the first query */
    size_t q_row, k_row, v_row;
    t2k_mask_kind mask_kind;
    const uint8_t *mask_bool; /* (queries, keys), row stride mask_row */
    const float *mask_add;
    size_t mask_row;
    t2k_empty_row empty_row;
    float *qt;             /* (channels, qs): q' */
    float *s;              /* (keys of a block, qs): scores, then p */
    float *panel;          /* V of a block, by groups of ATT_VECS vectors */
    float *m, *l;          /* (qs) running maximum and sum */
    float *low, *high;     /* (qs) the bits of blocked keys 0..31 and 32..63 of the block */
    float *corr, *inverse; /* (qs) exp(m - m') and 1 / l */
    struct att_out w;
};

static size_t att_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- packing -------------------------------------------------------------------------------- */

/* The block of x (rows, row stride ldx) at x, transposed: r[j] holds VF_W rows of column j. Where
 * fewer rows exist, the last one stands for the others: their lanes are computed and not stored,
 * and no branch is needed. Of the columns `cols` exist, the others are +0. */
ATT_INLINE void att_load_transposed(const float *x, size_t ldx, size_t rows, size_t cols, vf *r)
{
    if (cols >= VF_W) {
        T2K_UNROLL
        for (size_t i = 0; i < VF_W; i++) {
            r[i] = v_load(x + (i < rows ? i : rows - 1) * ldx);
        }
    } else {
        T2K_UNROLL
        for (size_t i = 0; i < VF_W; i++) {
            r[i] = v_load_n(x + (i < rows ? i : rows - 1) * ldx, cols);
        }
    }
    att_transpose(r);
}

ATT_INLINE void att_pack_block(const struct att *t, size_t q, size_t c, size_t cols)
{
    const vf scale = v_set1(t->scale);
    float *to = t->qt + c * t->qs + q;
    vf r[VF_W];
    att_load_transposed(t->q + q * t->q_row + c, t->q_row, t->queries - q, cols, r);
    T2K_UNROLL
    for (size_t j = 0; j < VF_W; j++) {
        if (j < cols) {
            v_store(to + j * t->qs, v_mul(r[j], scale));
        }
    }
}

static void att_pack_queries(const struct att *t)
{
    for (size_t q = 0; q < t->queries; q += VF_W) {
        size_t c = 0;
        for (; c + VF_W <= t->channels; c += VF_W) {
            att_pack_block(t, q, c, VF_W);
        }
        if (c < t->channels) {
            att_pack_block(t, q, c, t->channels - c);
        }
    }
}

/* Copies `cols` channels of a block's V, padded with +0 to whole vectors: rows lie next to each
 * other then, whatever the distance of the caller's. */
static void att_pack_values(const float *v, size_t v_row, size_t keys, size_t cols, float *panel)
{
    for (size_t key = 0; key < keys; key++) {
        size_t c = 0;
        for (; c + VF_W <= cols; c += VF_W) {
            v_store(panel, v_load(v + key * v_row + c));
            panel += VF_W;
        }
        if (c < cols) {
            v_store(panel, v_load_n(v + key * v_row + c, cols - c));
            panel += VF_W;
        }
    }
}

/* ---- masks ---------------------------------------------------------------------------------- */

static int att_blocked(const struct att *t, size_t query, size_t key)
{
    switch (t->mask_kind) {
    case T2K_MASK_BOOL:
        return t->mask_bool[query * t->mask_row + key] != 0;
    case T2K_MASK_ADD:
        return t->mask_add[query * t->mask_row + key] == -INFINITY;
    default:
        return 0;
    }
}

static int att_row_blocked(const struct att *t, size_t query, size_t key, size_t last)
{
    while (key < last && att_blocked(t, query, key)) {
        key++;
    }
    return key == last;
}

/* The first block from `key` on that has a key which is not blocked for every query. */
static size_t att_next_block(const struct att *t, size_t key)
{
    size_t rows = t->mask_row == 0 ? 1 : t->queries;
    for (; t->mask_kind != T2K_MASK_NONE && key < t->keys; key += ATT_KEYS) {
        size_t last = att_least(key + ATT_KEYS, t->keys), q = 0;
        while (q < rows && att_row_blocked(t, q, key, last)) {
            q++;
        }
        if (q < rows) {
            break;
        }
    }
    return key;
}

/* Bit j is set where byte j of w is not 0. */
static uint64_t att_byte_bits(uint64_t w)
{
    const uint64_t low7 = UINT64_C(0x7f7f7f7f7f7f7f7f);
    w = (((w & low7) + low7) | w) >> 7 & UINT64_C(0x0101010101010101);
    /* The product moves bit 8j to bit 56 + j without a carry between them. */
    return w * UINT64_C(0x0102040810204080) >> 56;
}

/* Bit i is set where x[i] is not 0, for i < n <= 64. */
static uint64_t att_bits(const uint8_t *x, size_t n)
{
    uint64_t bits = 0, w;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&w, x + i, 8);
        bits |= w != 0 ? att_byte_bits(w) << i : 0;
    }
    if (i < n && n >= 8) {
        memcpy(&w, x + n - 8, 8);
        bits |= att_byte_bits(w) << (n - 8);
        i = n;
    }
    for (; i < n; i++) {
        bits |= (uint64_t)(x[i] != 0) << i;
    }
    return bits;
}

/* Scores of keys whose bit is set become -Inf. Returns whether there are any. */
static int att_mask_bool(const struct att *t, size_t first, size_t keys)
{
    const vf lowest = v_set1(-INFINITY);
    const uint8_t *row = t->mask_bool + first;
    uint64_t bits = 0, all = 0;
    for (size_t q = 0; q < t->qs; q++) {
        if (q < t->queries && (q == 0 || t->mask_row != 0)) {
            bits = att_bits(row + q * t->mask_row, keys);
        }
        uint32_t low = (uint32_t)bits, high = (uint32_t)(bits >> 32);
        memcpy(t->low + q, &low, sizeof low);
        memcpy(t->high + q, &high, sizeof high);
        all |= bits;
    }
    if (all == 0) {
        return 0;
    }
    for (size_t j = 0; j < t->qs; j += VF_W) {
        vi bit = vi_of_bits(v_load(t->low + j));
        for (size_t key = 0; key < keys; key++) {
            float *s = t->s + key * t->qs + j;
            if (key == 32) {
                bit = vi_of_bits(v_load(t->high + j));
            }
            /* All ones, which as a float is a NaN, where the lowest bit is set. */
            vm blocked = v_nan(v_of_bits(vi_sra(vi_shl(bit, 31), 31)));
            v_store(s, v_select(blocked, lowest, v_load(s)));
            bit = vi_sra(bit, 1);
        }
    }
    return 1;
}

/* s = s + mask, and -Inf where the mask is -Inf. Returns whether it is anywhere. */
static int att_mask_add(const struct att *t, size_t first, size_t keys)
{
    const vf lowest = v_set1(-INFINITY);
    int any = 0;
    for (size_t q = 0; q < t->queries; q += VF_W) {
        for (size_t key = 0; key < keys; key += VF_W) {
            size_t n = att_least(VF_W, keys - key);
            float *s = t->s + key * t->qs + q;
            vf r[VF_W];
            att_load_transposed(t->mask_add + q * t->mask_row + first + key, t->mask_row,
                                t->queries - q, n, r);
            vm blocked = v_lt(lowest, lowest);
            T2K_UNROLL
            for (size_t j = 0; j < VF_W; j++) {
                if (j < n) {
                    vm here = v_eq(r[j], lowest);
                    vf x = v_add(v_load(s + j * t->qs), r[j]);
                    v_store(s + j * t->qs, v_select(here, lowest, x));
                    blocked = vm_or(blocked, here);
                }
            }
            any |= vm_any(blocked);
        }
    }
    return any;
}

/* ---- P*V ------------------------------------------------------------------------------------ */

static int att_has_nonfinite(const float *v, size_t v_row, size_t keys, size_t channels)
{
    vf zeros = v_zero();
    for (size_t key = 0; key < keys; key++) {
        size_t c = 0;
        for (; c + VF_W <= channels; c += VF_W) {
            zeros = v_fma(v_load(v + key * v_row + c), v_zero(), zeros);
        }
        if (c < channels) {
            zeros = v_fma(v_load_n(v + key * v_row + c, channels - c), v_zero(), zeros);
        }
    }
    return vm_any(v_nan(zeros)); /* 0 * Inf and 0 * NaN stay NaN in the sum */
}

/* P*V where a blocked key may hold Inf or NaN in V: blocked keys are left out instead of being
 * multiplied by 0. For finite V both ways differ in the sign of zeros only, which the result does
 * not keep. */
static void att_values_selected(const struct att *t, size_t first, size_t keys)
{
    for (size_t q = 0; q < t->queries; q++) {
        for (size_t c = 0; c < t->channels; c += VF_W) {
            size_t n = att_least(VF_W, t->channels - c);
            vf x = v_zero();
            for (size_t key = 0; key < keys; key++) {
                if (!att_blocked(t, q, first + key)) {
                    vf v = v_load_n(t->v + (first + key) * t->v_row + c, n);
                    x = v_fma(v_set1(t->s[key * t->qs + q]), v, x);
                }
            }
            att_finish(&t->w, x, q, c, n);
        }
    }
}

static void att_block_values(const struct att *t, size_t first, size_t keys)
{
    const float *v = t->v + first * t->v_row;
    /* Few queries read V once: copying it would not pay. Vectors must not reach beyond it. */
    int direct = t->queries <= ATT_ROWS && t->channels % VF_W == 0;
    for (size_t c = 0; c < t->channels; c += ATT_VECS * VF_W) {
        size_t cols = att_least(ATT_VECS * VF_W, t->channels - c);
        if (direct) {
            att_values(keys, t->s, t->qs, v + c, t->v_row, &t->w, t->queries, c, cols);
        } else {
            size_t ldv = (cols + VF_W - 1) / VF_W * VF_W;
            att_pack_values(v + c, t->v_row, keys, cols, t->panel);
            att_values(keys, t->s, t->qs, t->panel, ldv, &t->w, t->queries, c, cols);
        }
    }
}

/* ---- a tile of queries ---------------------------------------------------------------------- */

static void att_block(struct att *t, size_t first, size_t keys)
{
    att_scores(keys, t->channels, t->qt, t->qs, t->k + first * t->k_row, t->k_row, t->s);
    int blocked = t->mask_kind == T2K_MASK_BOOL  ? att_mask_bool(t, first, keys)
                  : t->mask_kind == T2K_MASK_ADD ? att_mask_add(t, first, keys)
                                                 : 0;
    att_softmax(keys, t->qs, t->s, t->m, t->l, t->corr);
    if (t->w.last) {
        for (size_t j = 0; j < t->qs; j += VF_W) {
            v_store(t->inverse + j, v_div(v_set1(1.0f), v_load(t->l + j)));
        }
    }
    if (blocked && att_has_nonfinite(t->v + first * t->v_row, t->v_row, keys, t->channels)) {
        att_values_selected(t, first, keys);
    } else {
        att_block_values(t, first, keys);
    }
}

/* A row whose keys are all blocked has l = 0 and is NaN by now, if any block was computed. */
static void att_empty_rows(const struct att *t, int computed)
{
    const float fill = t->empty_row == T2K_EMPTY_ZERO ? 0.0f : NAN;
    for (size_t q = 0; q < t->queries; q++) {
        if (!computed || (t->l[q] == 0.0f && att_row_blocked(t, q, 0, t->keys))) {
            for (size_t c = 0; c < t->channels; c++) {
                t->w.out[q * t->w.out_row + c] = fill;
            }
        }
    }
}

/* The parts of the workspace; their sum is T2K_ATTENTION_FLOATS(channels). */
static void att_carve(struct att *t, float *workspace)
{
    size_t padded = (t->channels + 15) / 16 * 16;
    t->qt = workspace;
    t->w.o = t->qt + padded * T2K_ATTENTION_QUERIES;
    t->w.ldo = padded;
    t->s = t->w.o + padded * T2K_ATTENTION_QUERIES;
    t->panel = t->s + ATT_KEYS * T2K_ATTENTION_QUERIES;
    t->m = t->panel + ATT_KEYS * ATT_VECS * VF_W;
    t->l = t->m + T2K_ATTENTION_QUERIES;
    t->low = t->l + T2K_ATTENTION_QUERIES;
    t->high = t->low + T2K_ATTENTION_QUERIES;
    t->corr = t->high + T2K_ATTENTION_QUERIES;
    t->inverse = t->corr + T2K_ATTENTION_QUERIES;
    t->w.corr = t->corr;
    t->w.inverse = t->inverse;
}

/* The operands; queries and the workspace follow. Not an initializer: it would clear the whole
 * structure first, which shows in heads of a few keys. */
static void att_open(struct att *t, const t2k_attention_args *args, size_t item, size_t head,
                     size_t first_query)
{
    t->keys = (size_t)args->keys;
    t->channels = (size_t)args->head_dim;
    t->scale = args->scale;
    t->q_row = (size_t)args->q_row;
    t->k_row = (size_t)args->k_row;
    t->v_row = (size_t)args->v_row;
    t->w.out_row = (size_t)args->out_row;
    size_t column = head * t->channels;
    t->q = args->q + first_query * t->q_row + item * (size_t)args->q_item + column;
    t->w.out = args->out + first_query * t->w.out_row + item * (size_t)args->out_item + column;
    t->empty_row = args->empty_row;
    t->k = t->v = t->mask_add = NULL;
    t->mask_bool = NULL;
    t->mask_kind = T2K_MASK_NONE;
    t->mask_row = (size_t)args->mask_row;
    if (t->keys == 0) { /* k, v and mask may be NULL */
        return;
    }
    t->k = args->k + item * (size_t)args->k_item + column;
    t->v = args->v + item * (size_t)args->v_item + column;
    t->mask_kind = args->mask_kind;
    size_t at =
        item * (size_t)args->mask_item + head * (size_t)args->mask_head + first_query * t->mask_row;
    if (t->mask_kind == T2K_MASK_BOOL) {
        t->mask_bool = (const uint8_t *)args->mask + at;
    } else if (t->mask_kind == T2K_MASK_ADD) {
        t->mask_add = (const float *)args->mask + at;
    }
}

void T2K_FN(attention)(const t2k_attention_args *args, size_t item, size_t head, size_t first_query,
                       size_t queries, float *workspace)
{
    struct att t;
    att_open(&t, args, item, head, first_query);
    t.queries = queries;
    t.qs = (queries + VF_W - 1) / VF_W * VF_W;
    att_carve(&t, workspace);
    size_t block = att_next_block(&t, 0);
    int computed = block < t.keys;
    if (computed) {
        att_pack_queries(&t);
        for (size_t j = 0; j < t.qs; j += VF_W) {
            v_store(t.m + j, v_set1(-INFINITY));
            v_store(t.l + j, v_zero());
        }
    }
    t.w.first = 1;
    while (block < t.keys) {
        size_t keys = att_least(ATT_KEYS, t.keys - block);
        size_t next = att_next_block(&t, block + keys);
        t.w.last = next >= t.keys;
        att_block(&t, block, keys);
        t.w.first = 0;
        block = next;
    }
    if (!computed || t.mask_kind != T2K_MASK_NONE) {
        att_empty_rows(&t, computed);
    }
}
