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
 * would multiply l and O by exactly 1 and add 0. So are the parts of a block under a causal mask
 * that no query of a vector sees, and the boolean form of that mask is recognised. Few queries go
 * another way, with keys in the lanes (attention_few.h). */
#include "core/table.h"

#include <math.h>
#include <string.h>

#include "tmpl/exp.h"

#include "tmpl/attention_tiles.h"

#define ATT_KEYS T2K_ATTENTION_KEYS
_Static_assert(T2K_ATTENTION_KEYS == 64, "a block's blocked keys are the bits of a uint64_t");
_Static_assert(T2K_ATTENTION_QUERIES % VF_W == 0, "whole vectors of queries");
_Static_assert(ATT_KEYS <= T2K_ATTENTION_QUERIES, "the parts of the workspace");

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
    ptrdiff_t see; /* causal: keys that the first query sees, may be negative */
    t2k_empty_row empty_row;
    float *qt;             /* (channels, qs): q' */
    float *s;              /* (keys of a block, qs): scores, then p */
    float *panel;          /* (keys of a block, padded channels): V */
    float *m, *l;          /* (qs) running maximum and sum */
    float *corr, *inverse; /* (qs) exp(m - m') and 1 / l */
    float *bits[2];        /* (2, qs) blocked keys of this block and of the next */
    struct att_out w;
};

ATT_INLINE size_t att_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- packing -------------------------------------------------------------------------------- */

#if VF_W > 1
/* The last one to three columns of some rows, padded with +0 to four. */
static void att_copy_columns(const float *x, size_t ldx, size_t rows, size_t cols, float *to)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < 4; j++) {
            to[4 * i + j] = j < cols ? x[i * ldx + j] : 0.0f;
        }
    }
}
#endif

/* The block of x (rows, row stride ldx) at x, transposed: r[j] holds VF_W rows of column j. Where
 * fewer rows exist, the other lanes are computed with and not stored. Of the columns `cols` exist,
 * the others are +0. */
ATT_INLINE void att_load_transposed(const float *x, size_t ldx, size_t rows, size_t cols, vf *r)
{
#if VF_W == 1
    (void)ldx, (void)rows, (void)cols;
    r[0] = v_load(x);
#else
    rows = att_least(rows, VF_W);
    T2K_UNROLL
    for (size_t j = 0; j < VF_W; j += 4) {
        if (j + 4 <= cols) {
            att_load_quad(x + j, ldx, rows, r + j);
        } else if (j < cols) {
            float rest[4 * VF_W] = {0};
            att_copy_columns(x + j, ldx, rows, cols - j, rest);
            att_load_quad(rest, 4, rows, r + j);
        } else {
            r[j] = r[j + 1] = r[j + 2] = r[j + 3] = v_zero();
        }
    }
#endif
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

#include "tmpl/attention_masks.h"

#include "tmpl/attention_few.h"

/* ---- P*V ------------------------------------------------------------------------------------ */

static int att_has_nonfinite(const float *v, size_t v_row, size_t keys, size_t channels)
{
    vf zeros[2] = {v_zero(), v_zero()}; /* 0 * Inf and 0 * NaN stay NaN in the sum */
    for (size_t key = 0; key < keys; key++) {
        size_t c = 0;
        for (; c + 2 * VF_W <= channels; c += 2 * VF_W) {
            zeros[0] = v_fma(v_load(v + key * v_row + c), v_zero(), zeros[0]);
            zeros[1] = v_fma(v_load(v + key * v_row + c + VF_W), v_zero(), zeros[1]);
        }
        for (; c < channels; c += VF_W) {
            vf x = v_load_n(v + key * v_row + c, att_least(VF_W, channels - c));
            zeros[0] = v_fma(x, v_zero(), zeros[0]);
        }
    }
    return vm_any(v_nan(v_add(zeros[0], zeros[1])));
}

#ifdef ATT_HAS_SHORT
#include "tmpl/attention_short.h"
#endif

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

static void att_block_values(const struct att *t, const struct att_block *b, ptrdiff_t see,
                             const struct att_panel *panel)
{
    const float *v = panel->to != NULL ? panel->to : panel->v;
    const size_t ldv = panel->to != NULL ? panel->ld : panel->v_row;
    for (size_t c = 0; c < t->channels; c += ATT_VECS * VF_W) {
        size_t cols = att_least(ATT_VECS * VF_W, t->channels - c);
        att_values(b->keys, see, t->s, t->qs, v + c, ldv, &t->w, t->queries, c, cols);
    }
}

/* ---- a tile of queries ---------------------------------------------------------------------- */

/* How many keys of the block the first query sees, or all or more. */
static ptrdiff_t att_block_see(const struct att_block *b)
{
    return b->class == ATT_EDGE ? b->see : (ptrdiff_t)b->keys;
}

/* Scores with what the mask does to them; nonzero where a key is blocked other than by `see`. */
static int att_block_scores(const struct att *t, const struct att_block *b,
                            const struct att_panel *panel)
{
    att_scores(b->keys, att_block_see(b), t->channels, t->qt, t->qs, t->k + b->first * t->k_row,
               t->k_row, t->s, panel);
    if (b->class == ATT_MIXED && t->mask_kind == T2K_MASK_BOOL) {
        att_mask_bool(t, b);
        return 1;
    }
    return t->mask_kind == T2K_MASK_ADD && att_mask_add(t, b);
}

static void att_compute_block(struct att *t, const struct att_block *b)
{
    const ptrdiff_t see = att_block_see(b);
    struct att_panel panel = {t->v + b->first * t->v_row, t->v_row, t->channels, NULL, t->w.ldo};
    /* Strides of 1 KB and its multiples meet in few sets. For few queries, which read V once or
     * twice, copying would not pay. */
    const int meet = ATT_COPY && t->queries > ATT_ROWS && t->v_row % 256 == 0;
    if (meet || t->channels % VF_W != 0) {
        panel.to = t->panel;
    }
    const int blocked = att_block_scores(t, b, &panel);
    att_softmax(b->keys, see, t->qs, !t->w.first, t->s, t->m, t->l, t->corr);
    if (t->w.last) {
        for (size_t j = 0; j < t->qs; j += VF_W) {
            v_store(t->inverse + j, v_div(v_set1(1.0f), v_load(t->l + j)));
        }
    }
    if (blocked && att_has_nonfinite(t->v + b->first * t->v_row, t->v_row, b->keys, t->channels)) {
        att_values_selected(t, b->first, b->keys);
    } else {
        att_block_values(t, b, see, &panel);
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
    t->m = t->panel + padded * ATT_KEYS;
    t->l = t->m + T2K_ATTENTION_QUERIES;
    t->corr = t->l + T2K_ATTENTION_QUERIES;
    t->inverse = t->corr + T2K_ATTENTION_QUERIES;
    t->bits[0] = t->inverse + T2K_ATTENTION_QUERIES;
    t->bits[1] = t->bits[0] + 2 * T2K_ATTENTION_QUERIES;
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
    if (args->kv_heads != args->heads) {
        column = head / (size_t)(args->heads / args->kv_heads) * t->channels;
    }
    t->k = args->k + item * (size_t)args->k_item + column;
    t->v = args->v + item * (size_t)args->v_item + column;
    t->mask_kind = args->mask_kind;
    t->see = (ptrdiff_t)first_query + 1 + (ptrdiff_t)args->keys - (ptrdiff_t)args->queries;
    size_t at =
        item * (size_t)args->mask_item + head * (size_t)args->mask_head + first_query * t->mask_row;
    if (t->mask_kind == T2K_MASK_BOOL) {
        t->mask_bool = (const uint8_t *)args->mask + at;
    } else if (t->mask_kind == T2K_MASK_ADD) {
        t->mask_add = (const float *)args->mask + at;
    }
}

static void att_tile(struct att *t)
{
    struct att_block block, next;
    int turn = 0;
    t->qs = (t->queries + VF_W - 1) / VF_W * VF_W;
    block.first = 0;
    block.bits = t->bits[0];
    att_next_block(t, &block);
    int computed = block.first < t->keys;
    if (computed) {
        att_pack_queries(t);
    }
    t->w.first = 1;
    while (block.first < t->keys) {
        turn = !turn;
        next.first = block.first + ATT_KEYS;
        next.bits = t->bits[turn];
        att_next_block(t, &next);
        t->w.last = next.first >= t->keys;
        att_compute_block(t, &block);
        t->w.first = 0;
        block = next;
    }
    if (!computed || t->mask_kind != T2K_MASK_NONE) {
        att_empty_rows(t, computed);
    }
}

#ifdef ATT_HAS_SHORT
/* The heads of a short sequence one after another; those of a group share keys and values. */
static void att_short_heads(struct att *t, const t2k_attention_args *args, size_t head,
                            size_t heads, float *workspace)
{
    const size_t group = (size_t)args->heads / (size_t)args->kv_heads;
    size_t of_group = group == 1 ? 0 : head % group;
    struct att_short *w = (struct att_short *)(void *)workspace;
    att_short_open(w, t);
    for (size_t i = 0; i < heads; i++) {
        if (!att_short(t, w)) {
            att_carve(t, workspace);
            att_tile(t);
            att_short_open(w, t);
        }
        t->q += t->channels;
        t->w.out += t->channels;
        if (++of_group == group) {
            t->k += t->channels;
            t->v += t->channels;
            of_group = 0;
        }
    }
}
#endif

void T2K_FN(attention)(const t2k_attention_args *args, size_t item, size_t head, size_t heads,
                       size_t first_query, size_t queries, float *workspace)
{
    struct att t;
    att_open(&t, args, item, head, first_query);
    t.queries = queries;
#ifdef ATT_HAS_SHORT
    if (att_is_short(&t)) {
        att_short_heads(&t, args, head, heads, workspace);
        return;
    }
#endif
    att_carve(&t, workspace);
    if (queries == 1) {
        att_few(&t, args, heads);
        return;
    }
    for (size_t i = 0;; i++) {
        if (queries <= ATT_FEW) {
            att_few(&t, args, 1);
        } else {
            att_tile(&t);
        }
        if (i + 1 == heads) {
            return;
        }
        att_open(&t, args, item, head + i + 1, first_query);
    }
}

#include "tmpl/attention_backward.h"
