/* The register tiles of attention: scores, softmax and P*V of one block of keys.
 *
 * Scores are computed transposed, queries in lanes: S[key][query] sums k[key][c] * q'[c][query]
 * with one broadcast of k, so that only Q is transposed (once per tile of queries) and the softmax
 * runs down the keys without a horizontal step. P*V has channels in lanes and broadcasts P, so
 * that the output needs no transposing. No lane ever meets another one: the width of the vectors
 * cannot show in the bits. Order of operations: docs/numerics.md, "Attention".
 *
 * Under a causal mask `see` is how many keys of the block query 0 of the tile sees; query i sees
 * i more. It may be negative or beyond the block. What no query of a vector sees is not computed.
 *
 * An ISA file defines before including tmpl/attention.h:
 *   ATT_VECS              vectors per row of a register tile; ATT_ROWS of them are in flight, so
 *                         that ATT_ROWS * ATT_VECS sums, ATT_VECS operands and a broadcast fit
 *   ATT_FEW               up to this many queries go one by one, at most T2K_ATTENTION_FEW
 *   ATT_COPY              whether copying a V whose rows meet in few sets of L1 pays: not where a
 *                         whole row of it is read at once
 *   att_load_quad(x, ldx, rows, r)
 *                         four columns of VF_W rows: r[j] lane i is x[i * ldx + j], for i < rows;
 *                         the other lanes hold anything finite or a copy. Not with VF_W < 4 */
#ifndef T2K_TMPL_ATTENTION_TILES_H
#define T2K_TMPL_ATTENTION_TILES_H

#define ATT_INLINE static inline __attribute__((always_inline))
#define ATT_ROWS 6

/* Where the rows of P*V go: the running O between blocks, the caller's output after the last. */
struct att_out {
    float *o; /* (queries, ldo) */
    size_t ldo;
    const float *corr;    /* (queries) */
    const float *inverse; /* (queries) 1 / l */
    float *out;           /* (queries, head_dim), row stride out_row */
    size_t out_row;
    int first, last; /* block */
};

/* n cut into the fewest parts of at most `most`, all nearly equal: 10 rows as 5 + 5, since 6 + 4
 * would leave registers idle in the second part. The first `longer` parts have one more. */
struct att_cut {
    size_t least, longer;
};

ATT_INLINE struct att_cut att_cut(size_t n, size_t most)
{
    struct att_cut cut = {n, 0};
    if (n > most) {
        unsigned parts = (unsigned)((n + most - 1) / most);
        cut.least = (unsigned)n / parts;
        cut.longer = (unsigned)n % parts;
    }
    return cut;
}

ATT_INLINE size_t att_clamp(ptrdiff_t x, size_t most)
{
    return x < 0 ? 0 : (size_t)x < most ? (size_t)x : most;
}

/* A block of V, which is copied while the scores are computed where its rows lie so that they meet
 * in too few sets of L1, or where vectors would reach beyond them: loads that miss hide behind the
 * multiply-adds. */
struct att_panel {
    const float *v; /* (keys, channels), row stride v_row */
    size_t v_row, channels;
    float *to; /* (keys, ld), channels padded with +0 to whole vectors; NULL: not copied */
    size_t ld;
};

ATT_INLINE void att_copy_rows(const struct att_panel *p, size_t key, size_t rows)
{
    for (size_t last = key + rows; key < last; key++) {
        const float *v = p->v + key * p->v_row;
        float *to = p->to + key * p->ld;
        size_t c = 0;
        for (; c + VF_W <= p->channels; c += VF_W) {
            v_store(to + c, v_load(v + c));
        }
        if (c < p->channels) {
            v_store(to + c, v_load_n(v + c, p->channels - c));
        }
    }
}

/* ---- scores --------------------------------------------------------------------------------- */

ATT_INLINE void att_score_tile(size_t channels, const float *restrict qt, size_t qs,
                               const float *restrict k, size_t k_row, float *restrict s,
                               const int keys, const int vecs)
{
    vf acc[ATT_ROWS][ATT_VECS];
    T2K_UNROLL
    for (int i = 0; i < keys; i++) {
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            acc[i][j] = v_zero();
        }
    }
    for (size_t c = 0; c < channels; c++) {
        vf q[ATT_VECS];
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            q[j] = v_load(qt + c * qs + (size_t)j * VF_W);
        }
        T2K_UNROLL
        for (int i = 0; i < keys; i++) {
            vf b = v_set1(k[(size_t)i * k_row + c]);
            T2K_UNROLL
            for (int j = 0; j < vecs; j++) {
                acc[i][j] = v_fma(b, q[j], acc[i][j]);
            }
        }
    }
    T2K_UNROLL
    for (int i = 0; i < keys; i++) {
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            v_store(s + (size_t)i * qs + (size_t)j * VF_W, acc[i][j]);
        }
    }
}

/* ---- P*V ------------------------------------------------------------------------------------ */

/* The sum x over the block's keys, for query q and VF_W channels from c, of which n exist. */
ATT_INLINE void att_finish(const struct att_out *w, vf x, size_t q, size_t c, size_t n)
{
    float *o = w->o + q * w->ldo + c;
    if (!w->first) {
        x = v_fma(v_load(o), v_set1(w->corr[q]), x);
    }
    if (!w->last) {
        v_store(o, x);
        return;
    }
    x = v_add(v_mul(x, v_set1(w->inverse[q])), v_zero()); /* -0 becomes +0 */
    if (n >= VF_W) {
        v_store(w->out + q * w->out_row + c, x);
    } else {
        v_store_n(w->out + q * w->out_row + c, x, n);
    }
}

/* Adds key `key` to the sums of the rows from `from` on. */
ATT_INLINE void att_value_step(vf (*acc)[ATT_VECS], const float *restrict p,
                               const float *restrict v, const int from, const int queries,
                               const int vecs)
{
    vf x[ATT_VECS];
    T2K_UNROLL
    for (int j = 0; j < vecs; j++) {
        x[j] = v_load(v + (size_t)j * VF_W);
    }
    T2K_UNROLL
    for (int i = from; i < queries; i++) {
        vf b = v_set1(p[i]);
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            acc[i][j] = v_fma(b, x[j], acc[i][j]);
        }
    }
}

/* queries x vecs vectors of P*V: p (keys, qs) and v (keys, ldv) begin at query q and channel c;
 * `cols` channels exist from c on. Row i takes the first see + i keys, so that nothing of a blocked
 * key is read into it. */
ATT_INLINE void att_value_tile(size_t keys, ptrdiff_t see, const float *restrict p, size_t qs,
                               const float *restrict v, size_t ldv, const struct att_out *w,
                               size_t q, size_t c, size_t cols, const int queries, const int vecs)
{
    vf acc[ATT_ROWS][ATT_VECS];
    T2K_UNROLL
    for (int i = 0; i < queries; i++) {
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            acc[i][j] = v_zero();
        }
    }
    size_t all = att_clamp(see, keys);
    for (size_t key = 0; key < all; key++) {
        att_value_step(acc, p + key * qs, v + key * ldv, 0, queries, vecs);
    }
    if (all < keys) {
        T2K_UNROLL
        for (int i = 1; i < queries; i++) {
            ptrdiff_t key = see + i - 1;
            if (key >= 0 && (size_t)key < keys) {
                att_value_step(acc, p + (size_t)key * qs, v + (size_t)key * ldv, i, queries, vecs);
            }
        }
    }
    T2K_UNROLL
    for (int i = 0; i < queries; i++) {
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            size_t done = (size_t)j * VF_W;
            att_finish(w, acc[i][j], q + (size_t)i, c + done, cols - done);
        }
    }
}

/* ---- every size of tile --------------------------------------------------------------------- */

/* The tiles for every number of rows, which is a constant to the compiler in each. */
#define ATT_BY_ROWS(rows, TILE) \
    switch (rows) {             \
    case 1:                     \
        TILE(1);                \
        return;                 \
    case 2:                     \
        TILE(2);                \
        return;                 \
    case 3:                     \
        TILE(3);                \
        return;                 \
    case 4:                     \
        TILE(4);                \
        return;                 \
    case 5:                     \
        TILE(5);                \
        return;                 \
    default:                    \
        TILE(6);                \
    }

#define ATT_SCORE_TILE(n) att_score_tile(channels, qt, qs, k, k_row, s, n, vecs)
ATT_INLINE void att_scores_rows(size_t keys, size_t channels, const float *qt, size_t qs,
                                const float *k, size_t k_row, float *s, const int vecs)
{
    ATT_BY_ROWS(keys, ATT_SCORE_TILE);
}

#define ATT_VALUE_TILE(n) att_value_tile(keys, see, p, qs, v, ldv, w, q, c, cols, n, vecs)
ATT_INLINE void att_values_rows(size_t keys, ptrdiff_t see, const float *p, size_t qs,
                                const float *v, size_t ldv, const struct att_out *w, size_t q,
                                size_t c, size_t cols, size_t queries, const int vecs)
{
    ATT_BY_ROWS(queries, ATT_VALUE_TILE);
}

/* And those for a given number of vectors. */
#define ATT_TILES(vecs)                                                                          \
    static void att_scores_##vecs(size_t keys, size_t channels, const float *qt, size_t qs,      \
                                  const float *k, size_t k_row, float *s)                        \
    {                                                                                            \
        att_scores_rows(keys, channels, qt, qs, k, k_row, s, vecs);                              \
    }                                                                                            \
    static void att_values_##vecs(size_t keys, ptrdiff_t see, const float *p, size_t qs,         \
                                  const float *v, size_t ldv, const struct att_out *w, size_t q, \
                                  size_t c, size_t cols, size_t queries)                         \
    {                                                                                            \
        att_values_rows(keys, see, p, qs, v, ldv, w, q, c, cols, queries, vecs);                 \
    }

ATT_TILES(1)
#if ATT_VECS >= 2
ATT_TILES(2)
#endif
#if ATT_VECS >= 4
ATT_TILES(3)
ATT_TILES(4)
#endif

#if ATT_VECS >= 4
#define ATT_BY_VECS(n, name, ...)       \
    ((n) == 1   ? name##_1(__VA_ARGS__) \
     : (n) == 2 ? name##_2(__VA_ARGS__) \
     : (n) == 3 ? name##_3(__VA_ARGS__) \
                : name##_4(__VA_ARGS__))
#elif ATT_VECS == 2
#define ATT_BY_VECS(n, name, ...) ((n) == 1 ? name##_1(__VA_ARGS__) : name##_2(__VA_ARGS__))
#else
#define ATT_BY_VECS(n, name, ...) ((void)(n), name##_1(__VA_ARGS__))
#endif

/* s (keys, qs) = k (keys, channels) times qt (channels, qs); qs is a multiple of VF_W. The keys
 * are the outer loop: six rows of k stay in L1 even where their distance makes them share a set.
 * The last query sees all `keys`. */
static void att_scores(size_t keys, ptrdiff_t see, size_t channels, const float *qt, size_t qs,
                       const float *k, size_t k_row, float *s, const struct att_panel *panel)
{
    const size_t vecs = qs / VF_W;
    const struct att_cut by_key = att_cut(keys, ATT_ROWS);
    for (size_t t = 0, key = 0; key < keys; t++) {
        size_t rows = by_key.least + (t < by_key.longer);
        if (panel->to != NULL) {
            att_copy_rows(panel, key, rows);
        }
        /* The first vector with a query that sees the first of these keys. */
        ptrdiff_t beyond = (ptrdiff_t)key - see + 1;
        size_t j = beyond > 0 ? (size_t)beyond / VF_W : 0;
        const struct att_cut by_vec = att_cut(vecs - j, ATT_VECS);
        for (size_t u = 0; j < vecs; u++) {
            size_t n = by_vec.least + (u < by_vec.longer);
            ATT_BY_VECS(n, att_scores, rows, channels, qt + j * VF_W, qs, k + key * k_row, k_row,
                        s + key * qs + j * VF_W);
            j += n;
        }
        key += rows;
    }
}

/* P*V for `cols` channels from c on, at most ATT_VECS vectors of them: v (keys, ldv). */
static void att_values(size_t keys, ptrdiff_t see, const float *p, size_t qs, const float *v,
                       size_t ldv, const struct att_out *w, size_t queries, size_t c, size_t cols)
{
    const size_t vecs = (cols + VF_W - 1) / VF_W;
    const struct att_cut cut = att_cut(queries, ATT_ROWS);
    for (size_t t = 0, q = 0; q < queries; t++) {
        size_t rows = cut.least + (t < cut.longer);
        ATT_BY_VECS(vecs, att_values, keys, see + (ptrdiff_t)q, p + q, qs, v, ldv, w, q, c, cols,
                    rows);
        q += rows;
    }
}

/* ---- softmax -------------------------------------------------------------------------------- */

#define ATT_STEP 4 /* exponentials in lockstep */

/* x[i] = exp(x[i]) for x[i] <= 0 or NaN: the operations of v_exp(), but what would be less than
 * 2^-126.5 is +0, so that one factor does for 2^n and no step is denormal. */
ATT_INLINE void att_exp(vf *x, const int n)
{
    /* 1.5 * 2^23 + 127: adding it rounds to an integer and leaves n + 127 in the low bits, the
     * exponent field of 2^n. At -88 n is -127 and the factor 0. */
    const vf magic = v_set1(0x1.8000fep+23f);
    static const float c[] = {EXP_C6, EXP_C5, EXP_C4, EXP_C3, EXP_C2, 1.0f, 1.0f};
    vf t[ATT_STEP], p[ATT_STEP];
    T2K_UNROLL
    for (int i = 0; i < n; i++) {
        x[i] = v_max(v_set1(-88.0f), x[i]); /* a NaN passes as the second operand */
        t[i] = v_fma(x[i], v_set1(EXP_LOG2_E), magic);
    }
    T2K_UNROLL
    for (int i = 0; i < n; i++) {
        vf whole = v_sub(t[i], magic);
        x[i] = v_fnma(whole, v_set1(EXP_LN2_HIGH), x[i]);
        x[i] = v_fnma(whole, v_set1(EXP_LN2_LOW), x[i]);
        p[i] = v_set1(c[0]);
    }
    T2K_UNROLL
    for (int k = 1; k < 7; k++) {
        T2K_UNROLL
        for (int i = 0; i < n; i++) {
            p[i] = v_fma(p[i], x[i], v_set1(c[k]));
        }
    }
    T2K_UNROLL
    for (int i = 0; i < n; i++) {
        x[i] = v_mul(p[i], v_of_bits(vi_shl(vi_of_bits(t[i]), 23)));
    }
}

/* The largest of top and the keys' scores in one vector of queries. Four maxima in turn: the order
 * shows in the sign of a zero only, which exp does not see; a NaN is passed over. */
ATT_INLINE vf att_top(size_t keys, size_t qs, const float *s, vf top)
{
    vf part[4] = {top, top, top, top};
    size_t key = 0;
    for (; key + 4 <= keys; key += 4) {
        T2K_UNROLL
        for (int i = 0; i < 4; i++) {
            part[i] = v_max(v_load(s + (key + (size_t)i) * qs), part[i]);
        }
    }
    for (; key < keys; key++) {
        part[0] = v_max(v_load(s + key * qs), part[0]);
    }
    return v_max(v_max(part[0], part[1]), v_max(part[2], part[3]));
}

/* s of n keys becomes p = exp(s - base); returns sum plus p, key by key. */
ATT_INLINE vf att_weights_step(size_t qs, float *restrict s, vf base, vf sum, const int n)
{
    vf x[ATT_STEP];
    T2K_UNROLL
    for (int i = 0; i < n; i++) {
        x[i] = v_sub(v_load(s + (size_t)i * qs), base);
    }
    att_exp(x, n);
    T2K_UNROLL
    for (int i = 0; i < n; i++) {
        v_store(s + (size_t)i * qs, x[i]);
        sum = v_add(sum, x[i]);
    }
    return sum;
}

/* The same of all keys; returns the sum. */
ATT_INLINE vf att_weights(size_t keys, size_t qs, float *restrict s, vf base)
{
    vf sum = v_zero();
    size_t key = 0;
    for (; key + ATT_STEP <= keys; key += ATT_STEP) {
        sum = att_weights_step(qs, s + key * qs, base, sum, ATT_STEP);
    }
    switch (keys - key) {
    case 1:
        return att_weights_step(qs, s + key * qs, base, sum, 1);
    case 2:
        return att_weights_step(qs, s + key * qs, base, sum, 2);
    case 3:
        return att_weights_step(qs, s + key * qs, base, sum, 3);
    default:
        return sum;
    }
}

static const float att_lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Scores of the keys first .. last - 1 of one vector of queries that query i does not see, because
 * it sees first + i keys, become -Inf. */
static void att_mask_edge(size_t last, ptrdiff_t first, size_t qs, float *s)
{
    const vf lane = v_load(att_lanes), lowest = v_set1(-INFINITY);
    for (size_t key = att_clamp(first, last); key < last; key++) {
        vm blocked = v_lt(lane, v_set1((float)((ptrdiff_t)key - first + 1)));
        v_store(s + key * qs, v_select(blocked, lowest, v_load(s + key * qs)));
    }
}

/* One step of the online softmax: s (keys, qs) becomes p = exp(s - m), blocked scores being -Inf.
 * m, l, corr (qs), which count where a block went before. While every score so far is -Inf, 0
 * stands for the maximum, so that p and corr are +0 and not NaN; a NaN score leaves the maximum
 * alone and shows in p. */
static void att_softmax(size_t keys, ptrdiff_t see, size_t qs, int begun, float *restrict s,
                        float *restrict m, float *restrict l, float *restrict corr)
{
    const vf lowest = v_set1(-INFINITY);
    for (size_t j = 0; j < qs; j += VF_W) {
        const ptrdiff_t first = see + (ptrdiff_t)j; /* keys that the first lane sees */
        const size_t here = att_clamp(first + VF_W - 1, keys);
        if (first < (ptrdiff_t)here) {
            att_mask_edge(here, first, qs, s + j);
        }
        vf before = begun ? v_load(m + j) : lowest, top = att_top(here, qs, s + j, before);
        v_store(m + j, top);
        vf base = v_select(v_eq(top, lowest), v_zero(), top);
        vf sum = att_weights(here, qs, s + j, base);
        if (begun) { /* in the first block corr would be +0 */
            vf shrink = v_sub(before, base);
            att_exp(&shrink, 1);
            v_store(corr + j, shrink);
            sum = v_fma(v_load(l + j), shrink, sum);
        }
        v_store(l + j, sum);
    }
}

#endif
