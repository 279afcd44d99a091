/* Attention of a few queries that share one head of keys and values: one query at a time with a
 * key/value cache, or the heads of one group. Part of tmpl/attention.h.
 *
 * Queries would leave most lanes of the tiles idle, so here the keys are in the lanes: K is
 * transposed VF_W x VF_W at a time in registers, once for all rows, each of which takes one fused
 * multiply-add per column. Every score stays one chain over its channels, every sum and channel of
 * P*V one chain over the keys: the bits are those of the tiles. Blocked keys are left out of the
 * sums, which adds what adding +0 would. */
#ifndef T2K_TMPL_ATTENTION_FEW_H
#define T2K_TMPL_ATTENTION_FEW_H

/* One query of one head. */
struct att_row {
    struct att t; /* its operands, queries = 1; qt (channels) is q' and s (keys of a block) */
    float *o;     /* (channels) */
    vf m, l;      /* running maximum and sum, in every lane */
    int any;      /* a key was not blocked */
};

/* The keys of the block which the row sees, as bits. */
static uint64_t att_few_open(const struct att *t, size_t first, size_t keys)
{
    const uint64_t all = att_low_bits(keys);
    uint64_t blocked = 0;
    switch (t->mask_kind) {
    case T2K_MASK_BOOL:
        return all & ~att_bits(t->mask_bool + first, keys);
    case T2K_MASK_ADD:
        for (size_t key = 0; key < keys; key++) {
            blocked |= (uint64_t)(t->mask_add[first + key] == -INFINITY) << key;
        }
        return all & ~blocked;
    case T2K_MASK_CAUSAL:
        return att_low_bits(att_clamp(t->see - (ptrdiff_t)first, keys));
    default:
        return all;
    }
}

/* s of VF_W keys, or of the `keys` that exist, over `cols` more channels from c on. */
ATT_INLINE void att_few_score_block(struct att_row *rows, size_t count, size_t key, size_t keys,
                                    size_t c, size_t cols, const float *k, size_t k_row)
{
    vf r[VF_W];
    att_load_transposed(k + key * k_row + c, k_row, keys - key, cols, r);
    for (size_t i = 0; i < count; i++) {
        float *s = rows[i].t.s + key;
        const float *q = rows[i].t.qt + c;
        vf acc = c == 0 ? v_zero() : v_load(s);
        T2K_UNROLL
        for (size_t j = 0; j < VF_W; j++) {
            if (j < cols) {
                acc = v_fma(v_set1(q[j]), r[j], acc);
            }
        }
        v_store(s, acc);
    }
}

#ifdef ATT_LINES
#define ATT_LINES_GROUPS 4 /* groups of eight keys in flight */

/* Where eight rows begin: one pointer and odd multiples of the stride, from which the addressing
 * modes make all eight. Left alone, compilers keep a pointer a row, most of them in memory. */
struct att_eight {
    size_t one, three, five, seven; /* bytes */
};

ATT_INLINE struct att_eight att_eight(size_t row)
{
    struct att_eight s = {row * sizeof(float), 3 * row * sizeof(float), 5 * row * sizeof(float),
                          7 * row * sizeof(float)};
    __asm__("" : "+r"(s.one), "+r"(s.three), "+r"(s.five), "+r"(s.seven));
    return s;
}

#define ATT_EIGHT(p, s)                                                                \
    {                                                                                  \
        (p), (p) + (s)->one, (p) + 2 * (s)->one, (p) + (s)->three, (p) + 4 * (s)->one, \
            (p) + (s)->five, (p) + 2 * (s)->three, (p) + (s)->seven                    \
    }

/* Eight more channels of eight keys. */
ATT_INLINE att_lines att_few_step(att_lines acc, const char *k, const struct att_eight *s,
                                  const float *q)
{
    const char *rows[8] = ATT_EIGHT(k, s);
    att_lines r[8];
    T2K_UNROLL
    for (size_t i = 0; i < 8; i++) {
        r[i] = att_lines_load((const float *)(const void *)rows[i]);
    }
    att_lines_transpose(r);
    T2K_UNROLL
    for (size_t i = 0; i < 8; i++) {
        acc = att_lines_fma_at(acc, r[i], q + i);
    }
    return acc;
}

/* s of `groups` times eight keys of one query, channels in eights. Two groups take turns with the
 * halves of a line of cache. Where rows `meet` in few sets of L1, which hold no more than eight of
 * them, a group takes both halves of its lines at once. */
ATT_INLINE void att_few_lines(const struct att *t, const float *k, float *s, const size_t groups,
                              const int meet)
{
    const struct att_eight by_k = att_eight(t->k_row);
    const float *q = t->qt;
    att_lines acc[ATT_LINES_GROUPS];
    T2K_UNROLL
    for (size_t g = 0; g < groups; g++) {
        acc[g] = att_lines_zero();
    }
    for (size_t c = 0; c < t->channels; c += 16) {
        const int whole = c + 8 < t->channels;
        const char *x = (const char *)(k + c);
        __asm__("" : "+r"(x));
        T2K_UNROLL
        for (size_t g = 0; g < groups; g += 2) {
            const int two = g + 1 < groups; /* and no pointer to what does not exist */
            const char *next = two ? x + 8 * by_k.one : NULL;
            acc[g] = att_few_step(acc[g], x, &by_k, q + c);
            if (two && !meet) {
                acc[g + 1] = att_few_step(acc[g + 1], next, &by_k, q + c);
            }
            if (whole) {
                acc[g] = att_few_step(acc[g], x + 32, &by_k, q + c + 8);
            }
            if (two && meet) {
                acc[g + 1] = att_few_step(acc[g + 1], next, &by_k, q + c);
            }
            if (two && whole) {
                acc[g + 1] = att_few_step(acc[g + 1], next + 32, &by_k, q + c + 8);
            }
            if (g + 2 < groups) {
                x = next + 8 * by_k.one;
            }
        }
    }
    T2K_UNROLL
    for (size_t g = 0; g < groups; g++) {
        att_lines_store(s + g * 8, acc[g]);
    }
}

/* s of keys >= 8 keys. Keys that the last group has in excess are keys before them. */
static void att_few_scores_alone(const struct att *t, size_t first, size_t keys)
{
    const float *k = t->k + first * t->k_row;
    const int meet = t->k_row % 256 == 0;
    size_t key = 0;
    for (; key + ATT_LINES_GROUPS * 8 <= keys; key += ATT_LINES_GROUPS * 8) {
        if (meet) {
            att_few_lines(t, k + key * t->k_row, t->s + key, ATT_LINES_GROUPS, 1);
        } else {
            att_few_lines(t, k + key * t->k_row, t->s + key, ATT_LINES_GROUPS, 0);
        }
    }
    for (; key < keys; key += 8) {
        const size_t at = att_least(key, keys - 8);
        att_few_lines(t, k + at * t->k_row, t->s + at, 1, 0);
    }
}
#endif

static void att_few_scores(struct att_row *rows, size_t count, size_t first, size_t keys)
{
    const struct att *t = &rows[0].t;
    const float *k = t->k + first * t->k_row;
    size_t c = 0;
#ifdef ATT_LINES
    if (count == 1 && keys >= 8 && t->channels % 8 == 0) {
        att_few_scores_alone(t, first, keys);
        return;
    }
#endif
    for (; c + VF_W <= t->channels; c += VF_W) {
        for (size_t key = 0; key < keys; key += VF_W) {
            att_few_score_block(rows, count, key, keys, c, VF_W, k, t->k_row);
        }
    }
    if (c < t->channels) {
        for (size_t key = 0; key < keys; key += VF_W) {
            att_few_score_block(rows, count, key, keys, c, t->channels - c, k, t->k_row);
        }
    }
}

/* The mask's part in s; lanes beyond the last key become -Inf. */
static void att_few_mask(const struct att *t, size_t first, size_t keys, uint64_t open)
{
    const vf lowest = v_set1(-INFINITY);
    const size_t tail = keys % VF_W;
    if (t->mask_kind == T2K_MASK_ADD) {
        for (size_t key = 0; key < keys; key += VF_W) {
            vf add = v_load_n(t->mask_add + first + key, att_least(VF_W, keys - key));
            v_store(t->s + key, v_add(v_load(t->s + key), add));
        }
    }
    if (tail != 0) {
        float *s = t->s + keys - tail;
        v_store(s, v_select(vm_first(tail), v_load(s), lowest));
    }
    for (uint64_t bits = ~open & att_low_bits(keys); bits != 0; bits &= bits - 1) {
        t->s[__builtin_ctzll(bits)] = -INFINITY;
    }
}

/* s becomes p = exp(s - m'); returns corr. */
static vf att_few_softmax(struct att_row *row, size_t keys)
{
    float *s = row->t.s;
    vf top = v_set1(-INFINITY);
    for (size_t key = 0; key < keys; key += VF_W) {
        top = v_max(v_load(s + key), top);
    }
    top = v_max(v_set1(v_max_lanes(top)), row->m);
    vf base = v_select(v_eq(top, v_set1(-INFINITY)), v_zero(), top);
    vf corr = v_sub(row->m, base);
    att_exp(&corr, 1);
    size_t key = 0;
    for (; key + ATT_STEP * VF_W <= keys; key += ATT_STEP * VF_W) {
        vf x[ATT_STEP];
        T2K_UNROLL
        for (size_t i = 0; i < ATT_STEP; i++) {
            x[i] = v_sub(v_load(s + key + i * VF_W), base);
        }
        att_exp(x, ATT_STEP);
        T2K_UNROLL
        for (size_t i = 0; i < ATT_STEP; i++) {
            v_store(s + key + i * VF_W, x[i]);
        }
    }
    for (; key < keys; key += VF_W) {
        vf x = v_sub(v_load(s + key), base);
        att_exp(&x, 1);
        v_store(s + key, x);
    }
    row->m = top;
    return corr;
}

/* P*V of `vecs` vectors of channels, of the last of which n exist; returns the sum of p. */
ATT_INLINE vf att_few_values(const struct att_row *row, const float *v, size_t keys, uint64_t open,
                             vf corr, int begun, size_t c, size_t n, const int vecs)
{
    const float *p = row->t.s;
    const size_t v_row = row->t.v_row;
    vf acc[8], sum = v_zero();
    T2K_UNROLL
    for (int j = 0; j < vecs; j++) {
        acc[j] = v_zero();
    }
    const int dense = open == att_low_bits(keys);
    for (size_t key = 0; dense ? key < keys : open != 0; key++) {
        if (!dense) {
            key = (size_t)__builtin_ctzll(open);
            open &= open - 1;
        }
        const vf b = v_set1(p[key]);
        const float *x = v + key * v_row + c;
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            vf y = n == VF_W ? v_load(x + j * VF_W) : v_load_n(x + j * VF_W, n);
            acc[j] = v_fma(b, y, acc[j]);
        }
        sum = v_add(sum, b);
    }
    T2K_UNROLL
    for (int j = 0; j < vecs; j++) {
        float *o = row->o + c + j * VF_W;
        v_store(o, begun ? v_fma(v_load(o), corr, acc[j]) : acc[j]);
    }
    return sum;
}

static void att_few_block(struct att_row *row, size_t first, size_t keys, uint64_t open)
{
    const struct att *t = &row->t;
    const float *v = t->v + first * t->v_row;
    const int begun = row->any;
    att_few_mask(t, first, keys, open);
    const vf corr = att_few_softmax(row, keys);
    vf sum = v_zero();
    size_t c = 0;
    for (; c + 8 * VF_W <= t->channels; c += 8 * VF_W) {
        sum = att_few_values(row, v, keys, open, corr, begun, c, VF_W, 8);
    }
    for (; c + 4 * VF_W <= t->channels; c += 4 * VF_W) {
        sum = att_few_values(row, v, keys, open, corr, begun, c, VF_W, 4);
    }
    for (; c + 2 * VF_W <= t->channels; c += 2 * VF_W) {
        sum = att_few_values(row, v, keys, open, corr, begun, c, VF_W, 2);
    }
    for (; c + VF_W <= t->channels; c += VF_W) {
        sum = att_few_values(row, v, keys, open, corr, begun, c, VF_W, 1);
    }
    if (c < t->channels) {
        sum = att_few_values(row, v, keys, open, corr, begun, c, t->channels - c, 1);
    }
    row->l = v_fma(row->l, corr, sum);
    row->any = 1;
}

static void att_few_open_row(struct att_row *row, float *workspace)
{
    struct att *t = &row->t;
    const size_t padded = (t->channels + 15) / 16 * 16;
    const vf scale = v_set1(t->scale);
    t->qt = workspace;
    row->o = t->qt + padded;
    t->s = row->o + padded;
    row->m = v_set1(-INFINITY);
    row->l = v_zero();
    row->any = 0;
    for (size_t c = 0; c < t->channels; c += VF_W) {
        size_t n = att_least(VF_W, t->channels - c);
        v_store(t->qt + c, v_mul(v_load_n(t->q + c, n), scale));
    }
}

static void att_few_close_row(const struct att_row *row)
{
    const struct att *t = &row->t;
    const vf empty = v_set1(t->empty_row == T2K_EMPTY_ZERO ? 0.0f : NAN);
    const vf inverse = v_div(v_set1(1.0f), row->l);
    for (size_t c = 0; c < t->channels; c += VF_W) {
        vf x = v_add(v_mul(v_load(row->o + c), inverse), v_zero()); /* -0 becomes +0 */
        v_store_n(t->w.out + c, row->any ? x : empty, att_least(VF_W, t->channels - c));
    }
}

/* t->queries queries of `heads` heads from t's on. Heads with keys and values of their own take
 * turns block by block: their rows lie side by side in memory, so that one head's are fetched with
 * the other's. */
static void att_few(const struct att *t, const t2k_attention_args *args, size_t heads)
{
    struct att_row rows[T2K_ATTENTION_FEW];
    const size_t padded = (t->channels + 15) / 16 * 16, count = heads * t->queries;
    const size_t apart = args->kv_heads == args->heads ? t->channels : 0;
    for (size_t i = 0; i < count; i++) {
        const size_t head = i / t->queries, query = i % t->queries;
        struct att *u = &rows[i].t;
        *u = *t;
        u->q += query * t->q_row + head * t->channels;
        u->w.out += query * t->w.out_row + head * t->channels;
        u->see += (ptrdiff_t)query;
        if (t->keys > 0) {
            u->k += head * apart;
            u->v += head * apart;
        }
        size_t at = query * t->mask_row + head * (size_t)args->mask_head;
        if (t->mask_kind == T2K_MASK_BOOL) {
            u->mask_bool += at;
        } else if (t->mask_kind == T2K_MASK_ADD) {
            u->mask_add += at;
        }
        att_few_open_row(&rows[i], t->qt + i * (2 * padded + ATT_KEYS));
    }
    for (size_t first = 0; first < t->keys; first += ATT_KEYS) {
        const size_t keys = att_least(ATT_KEYS, t->keys - first);
        uint64_t open[T2K_ATTENTION_FEW], any = 0;
        for (size_t i = 0; i < count; i++) {
            open[i] = att_few_open(&rows[i].t, first, keys);
            any |= open[i];
        }
        if (any == 0) {
            continue;
        }
        /* Behind the last key that a row sees there is nothing to compute. */
        const size_t here = 64 - (size_t)__builtin_clzll(any);
        const int shared = heads == 1 || apart == 0;
        if (shared) {
            att_few_scores(rows, count, first, here);
        }
        for (size_t i = 0; i < count; i++) {
            if (open[i] != 0) {
                if (!shared) {
                    att_few_scores(&rows[i], 1, first, here);
                }
                att_few_block(&rows[i], first, here, open[i]);
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        att_few_close_row(&rows[i]);
    }
}

#endif
