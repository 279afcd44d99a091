/* Attention of short sequences, several heads a call. Part of tmpl/attention.h.
 *
 * Queries are in lanes, as in the tiles, and every chain is theirs. Q and K are first copied to
 * rows of constant distance: each line of cache is read once, whole, since the rows of a head often
 * lie so that few of them fit a set of L1; and no address is computed in the loops. Where one
 * vector holds all queries, the scores stay in registers from the first product to the weights, and
 * four channels of Q at a time are transposed between the multiply-adds of the last four. P passes
 * through memory, where its broadcasts come from. */
#ifndef T2K_TMPL_ATTENTION_SHORT_H
#define T2K_TMPL_ATTENTION_SHORT_H

#define ATT_SHORT_WIDTH 64 /* largest head_dim, and the distance of copied rows */
#define ATT_SHORT T2K_ATTENTION_SHORT
#if ATT_SHORT == VF_W
#define ATT_SHORT_ROWS 12 /* queries of a tile of P*V: 24 sums and two vectors of V */
#else
#define ATT_SHORT_ROWS 6
#endif
_Static_assert(ATT_SHORT % VF_W == 0, "whole vectors of queries");
_Static_assert(ATT_FEW >= 2, "tiles of P*V have at least three queries");

/* The workspace of a call; rows of q without a query are +0. */
struct att_short {
    float q[ATT_SHORT * ATT_SHORT_WIDTH];
    float k[ATT_SHORT * ATT_SHORT_WIDTH];
    float p[ATT_SHORT * ATT_SHORT]; /* (keys, queries) */
    float inverse[ATT_SHORT];       /* 1 / l */
#if ATT_SHORT > VF_W
    float v[ATT_SHORT * ATT_SHORT_WIDTH];
    float qt[ATT_SHORT_WIDTH * ATT_SHORT]; /* (channels, queries) */
#endif
};
_Static_assert(sizeof(struct att_short) <= T2K_ATTENTION_FLOATS(1) * sizeof(float),
               "part of the workspace");

static int att_is_short(const struct att *t)
{
    return t->queries > ATT_FEW && t->queries <= ATT_SHORT && t->keys > 4 && t->keys <= ATT_SHORT &&
           t->channels <= ATT_SHORT_WIDTH && t->channels % 32 == 0 &&
           (t->mask_kind == T2K_MASK_NONE || (t->mask_kind == T2K_MASK_CAUSAL && t->see > 0));
}

static void att_short_open(struct att_short *w, const struct att *t)
{
    memset(w->q + t->queries * ATT_SHORT_WIDTH, 0,
           (ATT_SHORT - t->queries) * ATT_SHORT_WIDTH * sizeof(float));
}

/* Copies rows of keys or values; a lane of the result is NaN where one is not finite. */
ATT_INLINE vf att_short_rows(size_t rows, size_t channels, const float *x, size_t ldx, float *to)
{
    vf zeros = v_zero();
    for (size_t i = 0; i < rows; i++) {
        for (size_t c = 0; c < channels; c += VF_W) {
            const vf y = v_load(x + c);
            v_store(to + i * ATT_SHORT_WIDTH + c, y);
            zeros = v_fma(y, v_zero(), zeros);
        }
        x += ldx;
    }
    return zeros;
}

static void att_short_copy(const struct att *t, struct att_short *w)
{
    const vf scale = v_set1(t->scale);
    const float *q = t->q;
    for (size_t i = 0; i < t->queries; i++) {
        for (size_t c = 0; c < t->channels; c += VF_W) {
            v_store(w->q + i * ATT_SHORT_WIDTH + c, v_mul(v_load(q + c), scale));
        }
        q += t->q_row;
    }
    att_short_rows(t->keys, t->channels, t->k, t->k_row, w->k);
}

#if ATT_SHORT == VF_W
/* s[i], i < keys: the scores of key i. */
ATT_INLINE void att_short_scores(const struct att_short *w, size_t channels, size_t queries,
                                 vf *restrict s, const size_t keys)
{
    T2K_UNROLL
    for (size_t i = 0; i < keys; i++) {
        s[i] = v_zero();
    }
    for (size_t c = 0; c < channels; c += 4) {
        vf r[4];
        if (queries <= 8) {
            att_load_quad(w->q + c, ATT_SHORT_WIDTH, 8, r);
        } else if (queries <= 12) {
            att_load_quad(w->q + c, ATT_SHORT_WIDTH, 12, r);
        } else {
            att_load_quad(w->q + c, ATT_SHORT_WIDTH, 16, r);
        }
        T2K_UNROLL
        for (size_t j = 0; j < 4; j++) {
            T2K_UNROLL
            for (size_t i = 0; i < keys; i++) {
                s[i] = v_fma(v_set1(w->k[i * ATT_SHORT_WIDTH + c + j]), r[j], s[i]);
            }
        }
    }
}

/* Scores of keys that a query does not see become -Inf; query i sees the first see + i keys. */
ATT_INLINE void att_short_mask(ptrdiff_t see, vf *restrict s, const size_t keys)
{
    const vf lane = v_load(att_lanes), lowest = v_set1(-INFINITY);
    const vf seen = v_add(v_set1((float)see), lane);
    T2K_UNROLL
    for (size_t i = 1; i < keys; i++) {
        s[i] = v_select(v_lt(v_set1((float)i), seen), s[i], lowest);
    }
}

/* p of all keys, to w->p, and 1 / l. */
ATT_INLINE void att_short_softmax(struct att_short *w, vf *restrict s, const size_t keys)
{
    const vf lowest = v_set1(-INFINITY);
    vf part[4] = {lowest, lowest, lowest, lowest};
    T2K_UNROLL
    for (size_t i = 0; i < keys; i++) {
        part[i % 4] = v_max(s[i], part[i % 4]);
    }
    const vf top = v_max(v_max(part[0], part[1]), v_max(part[2], part[3]));
    const vf base = v_select(v_eq(top, lowest), v_zero(), top);
    vf sum = v_zero();
    T2K_UNROLL
    for (size_t i = 0; i < keys; i += ATT_STEP) {
        const size_t n = keys - i < ATT_STEP ? keys - i : ATT_STEP;
        T2K_UNROLL
        for (size_t j = i; j < i + n; j++) {
            s[j] = v_sub(s[j], base);
        }
        att_exp(s + i, (int)n);
        T2K_UNROLL
        for (size_t j = i; j < i + n; j++) {
            v_store(w->p + j * VF_W, s[j]);
            sum = v_add(sum, s[j]);
        }
    }
    v_store(w->inverse, v_div(v_set1(1.0f), sum));
}

/* The weights of one head. */
ATT_INLINE void att_short_weights(const struct att *t, struct att_short *w, const size_t keys)
{
    vf s[ATT_SHORT];
    att_short_scores(w, t->channels, t->queries, s, keys);
    if (t->mask_kind == T2K_MASK_CAUSAL) {
        att_short_mask(t->see, s, keys);
    }
    att_short_softmax(w, s, keys);
}

#define ATT_SHORT_WEIGHTS(n)        \
    case n:                         \
        att_short_weights(t, w, n); \
        return;
static void att_short_all_weights(const struct att *t, struct att_short *w)
{
    switch (t->keys) {
        ATT_SHORT_WEIGHTS(5)
        ATT_SHORT_WEIGHTS(6)
        ATT_SHORT_WEIGHTS(7)
        ATT_SHORT_WEIGHTS(8)
        ATT_SHORT_WEIGHTS(9)
        ATT_SHORT_WEIGHTS(10)
        ATT_SHORT_WEIGHTS(11)
        ATT_SHORT_WEIGHTS(12)
        ATT_SHORT_WEIGHTS(13)
        ATT_SHORT_WEIGHTS(14)
        ATT_SHORT_WEIGHTS(15)
        ATT_SHORT_WEIGHTS(16)
    default:
        return;
    }
}

#else

/* Scores of `keys` keys from `key` on. */
ATT_INLINE void att_short_tile(size_t channels, struct att_short *w, size_t key, const int keys,
                               const int vecs)
{
    att_score_tile(channels, w->qt, ATT_SHORT, w->k + key * ATT_SHORT_WIDTH, ATT_SHORT_WIDTH,
                   w->p + key * ATT_SHORT, keys, vecs);
}

ATT_INLINE void att_short_scores(const struct att *t, struct att_short *w, const int vecs)
{
    const struct att_cut cut = att_cut(t->keys, ATT_ROWS);
    for (size_t i = 0, key = 0; key < t->keys; i++) {
        const size_t keys = cut.least + (i < cut.longer);
        switch (keys) {
        case 3:
            att_short_tile(t->channels, w, key, 3, vecs);
            break;
        case 4:
            att_short_tile(t->channels, w, key, 4, vecs);
            break;
        case 5:
            att_short_tile(t->channels, w, key, 5, vecs);
            break;
        default:
            att_short_tile(t->channels, w, key, 6, vecs);
        }
        key += keys;
    }
}

ATT_INLINE void att_short_transpose(size_t channels, struct att_short *w, const size_t vecs)
{
    for (size_t c = 0; c < channels; c += 4) {
        T2K_UNROLL
        for (size_t i = 0; i < vecs; i++) {
            vf r[4];
            att_load_quad(w->q + i * VF_W * ATT_SHORT_WIDTH + c, ATT_SHORT_WIDTH, VF_W, r);
            T2K_UNROLL
            for (size_t j = 0; j < 4; j++) {
                v_store(w->qt + (c + j) * ATT_SHORT + i * VF_W, r[j]);
            }
        }
    }
}

/* p and 1 / l of all keys; two of them times two vectors are four exponentials in lockstep. */
ATT_INLINE void att_short_softmax(const struct att *t, struct att_short *w, const size_t vecs)
{
    const vf lowest = v_set1(-INFINITY);
    const size_t step = ATT_STEP / vecs;
    vf base[2], sum[2], x[ATT_STEP];
    T2K_UNROLL
    for (size_t j = 0; j < vecs; j++) {
        float *s = w->p + j * VF_W;
        const ptrdiff_t first = t->see + (ptrdiff_t)(j * VF_W);
        if (t->mask_kind == T2K_MASK_CAUSAL && first < (ptrdiff_t)t->keys) {
            att_mask_edge(t->keys, first, ATT_SHORT, s);
        }
        const vf top = att_top(t->keys, ATT_SHORT, s, lowest);
        base[j] = v_select(v_eq(top, lowest), v_zero(), top);
        sum[j] = v_zero();
    }
    size_t key = 0;
    for (; key + step <= t->keys; key += step) {
        float *s = w->p + key * ATT_SHORT;
        T2K_UNROLL
        for (size_t i = 0; i < ATT_STEP; i++) {
            x[i] = v_sub(v_load(s + i / vecs * ATT_SHORT + i % vecs * VF_W), base[i % vecs]);
        }
        att_exp(x, ATT_STEP);
        T2K_UNROLL
        for (size_t i = 0; i < ATT_STEP; i++) {
            v_store(s + i / vecs * ATT_SHORT + i % vecs * VF_W, x[i]);
            sum[i % vecs] = v_add(sum[i % vecs], x[i]);
        }
    }
    for (; key < t->keys; key++) {
        float *s = w->p + key * ATT_SHORT;
        T2K_UNROLL
        for (size_t i = 0; i < vecs; i++) {
            x[i] = v_sub(v_load(s + i * VF_W), base[i]);
        }
        att_exp(x, (int)vecs);
        T2K_UNROLL
        for (size_t i = 0; i < vecs; i++) {
            v_store(s + i * VF_W, x[i]);
            sum[i] = v_add(sum[i], x[i]);
        }
    }
    T2K_UNROLL
    for (size_t j = 0; j < vecs; j++) {
        v_store(w->inverse + j * VF_W, v_div(v_set1(1.0f), sum[j]));
    }
}

static void att_short_all_weights(const struct att *t, struct att_short *w)
{
    if (t->queries <= VF_W) {
        att_short_transpose(t->channels, w, 1);
        att_short_scores(t, w, 1);
        att_short_softmax(t, w, 1);
    } else {
        att_short_transpose(t->channels, w, 2);
        att_short_scores(t, w, 2);
        att_short_softmax(t, w, 2);
    }
}

#endif

/* P*V of `queries` queries and two vectors of channels. */
ATT_INLINE void att_short_value_tile(size_t keys, const float *restrict p,
                                     const float *restrict inverse, const float *restrict v,
                                     size_t v_row, float *restrict out, size_t out_row,
                                     const size_t queries)
{
    vf acc[ATT_SHORT_ROWS][2];
    T2K_UNROLL
    for (size_t i = 0; i < queries; i++) {
        acc[i][0] = acc[i][1] = v_zero();
    }
    for (size_t key = 0; key < keys; key++) {
        const vf x = v_load(v), y = v_load(v + VF_W);
        T2K_UNROLL
        for (size_t i = 0; i < queries; i++) {
            acc[i][0] = v_fma(v_set1(p[i]), x, acc[i][0]);
            acc[i][1] = v_fma(v_set1(p[i]), y, acc[i][1]);
        }
        p += ATT_SHORT;
        v += v_row;
    }
    T2K_UNROLL
    for (size_t i = 0; i < queries; i++) {
        const vf by = v_set1(inverse[i]);
        /* -0 becomes +0. */
        v_store(out, v_add(v_mul(acc[i][0], by), v_zero()));
        v_store(out + VF_W, v_add(v_mul(acc[i][1], by), v_zero()));
        out += out_row;
    }
}

#define ATT_SHORT_VALUES(n)                                                                      \
    case n:                                                                                      \
        att_short_value_tile(t->keys, w->p + q, w->inverse + q, v, v_row, out, t->w.out_row, n); \
        return;
static void att_short_values(const struct att *t, const struct att_short *w, size_t q, size_t c,
                             size_t queries)
{
#if ATT_SHORT == VF_W
    const float *v = t->v + c;
    const size_t v_row = t->v_row;
#else
    const float *v = w->v + c;
    const size_t v_row = ATT_SHORT_WIDTH;
#endif
    float *out = t->w.out + q * t->w.out_row + c;
    switch (queries) {
        ATT_SHORT_VALUES(3)
        ATT_SHORT_VALUES(4)
        ATT_SHORT_VALUES(5)
        ATT_SHORT_VALUES(6)
#if ATT_SHORT_ROWS > 6
        ATT_SHORT_VALUES(7)
        ATT_SHORT_VALUES(8)
        ATT_SHORT_VALUES(9)
        ATT_SHORT_VALUES(10)
        ATT_SHORT_VALUES(11)
        ATT_SHORT_VALUES(12)
#endif
    default:
        return;
    }
}

static void att_short_all_values(const struct att *t, const struct att_short *w)
{
    const struct att_cut cut = att_cut(t->queries, ATT_SHORT_ROWS);
    for (size_t i = 0, q = 0; q < t->queries; i++) {
        const size_t rows = cut.least + (i < cut.longer);
        for (size_t c = 0; c < t->channels; c += 2 * VF_W) {
            att_short_values(t, w, q, c, rows);
        }
        q += rows;
    }
}

/* One head. Returns 0 where a blocked key may show an infinity or NaN of V: then nothing is
 * written. */
static int att_short(const struct att *t, struct att_short *w)
{
#if ATT_SHORT > VF_W
    const vf zeros = att_short_rows(t->keys, t->channels, t->v, t->v_row, w->v);
    if (t->mask_kind != T2K_MASK_NONE && vm_any(v_nan(zeros))) {
        return 0;
    }
#else
    if (t->mask_kind != T2K_MASK_NONE && att_has_nonfinite(t->v, t->v_row, t->keys, t->channels)) {
        return 0;
    }
#endif
    att_short_copy(t, w);
    att_short_all_weights(t, w);
    att_short_all_values(t, w);
    return 1;
}

#endif
