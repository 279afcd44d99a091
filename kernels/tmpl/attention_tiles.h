/* The register tiles of attention: scores, softmax and P*V of one block of keys.
 *
 * Scores are computed transposed, queries in lanes: S[key][query] sums k[key][c] * q'[c][query]
 * with one broadcast of k, so that only Q is transposed (once per tile of queries) and the softmax
 * runs down the keys without a horizontal step. P*V has channels in lanes and broadcasts P, so
 * that the output needs no transposing. No lane ever meets another one: the width of the vectors
 * cannot show in the bits. Order of operations: docs/numerics.md, "Attention".
 *
 * An ISA file defines before including tmpl/attention.h:
 *   ATT_VECS              vectors per row of a register tile; ATT_ROWS of them are in flight, so
 *                         that ATT_ROWS * ATT_VECS sums, ATT_VECS operands and a broadcast fit
 *   att_transpose(vf *r)  transposes the VF_W x VF_W matrix r in place */
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

/* The size of part t when n is cut into the fewest parts of at most `most`, all nearly equal: 10
 * rows as 5 + 5, since 6 + 4 would leave registers idle in the second part. */
ATT_INLINE size_t att_part(size_t n, size_t most, size_t t)
{
    size_t parts = (n + most - 1) / most;
    return n / parts + (t < n % parts);
}

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

/* queries x vecs vectors of P*V: p (keys, qs) and v (keys, ldv) begin at query q and channel c;
 * `cols` channels exist from c on. */
ATT_INLINE void att_value_tile(size_t keys, const float *restrict p, size_t qs,
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
    for (size_t key = 0; key < keys; key++) {
        vf x[ATT_VECS];
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            x[j] = v_load(v + key * ldv + (size_t)j * VF_W);
        }
        T2K_UNROLL
        for (int i = 0; i < queries; i++) {
            vf b = v_set1(p[key * qs + (size_t)i]);
            T2K_UNROLL
            for (int j = 0; j < vecs; j++) {
                acc[i][j] = v_fma(b, x[j], acc[i][j]);
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

/* The tiles of a given number of vectors, for every number of rows: constants to the compiler. */
#define ATT_TILES(vecs)                                                                     \
    static void att_scores_##vecs(size_t keys, size_t channels, const float *qt, size_t qs, \
                                  const float *k, size_t k_row, float *s)                   \
    {                                                                                       \
        switch (keys) {                                                                     \
        case 1:                                                                             \
            att_score_tile(channels, qt, qs, k, k_row, s, 1, vecs);                         \
            return;                                                                         \
        case 2:                                                                             \
            att_score_tile(channels, qt, qs, k, k_row, s, 2, vecs);                         \
            return;                                                                         \
        case 3:                                                                             \
            att_score_tile(channels, qt, qs, k, k_row, s, 3, vecs);                         \
            return;                                                                         \
        case 4:                                                                             \
            att_score_tile(channels, qt, qs, k, k_row, s, 4, vecs);                         \
            return;                                                                         \
        case 5:                                                                             \
            att_score_tile(channels, qt, qs, k, k_row, s, 5, vecs);                         \
            return;                                                                         \
        default:                                                                            \
            att_score_tile(channels, qt, qs, k, k_row, s, 6, vecs);                         \
        }                                                                                   \
    }                                                                                       \
    static void att_values_##vecs(size_t keys, const float *p, size_t qs, const float *v,   \
                                  size_t ldv, const struct att_out *w, size_t q, size_t c,  \
                                  size_t cols, size_t queries)                              \
    {                                                                                       \
        switch (queries) {                                                                  \
        case 1:                                                                             \
            att_value_tile(keys, p, qs, v, ldv, w, q, c, cols, 1, vecs);                    \
            return;                                                                         \
        case 2:                                                                             \
            att_value_tile(keys, p, qs, v, ldv, w, q, c, cols, 2, vecs);                    \
            return;                                                                         \
        case 3:                                                                             \
            att_value_tile(keys, p, qs, v, ldv, w, q, c, cols, 3, vecs);                    \
            return;                                                                         \
        case 4:                                                                             \
            att_value_tile(keys, p, qs, v, ldv, w, q, c, cols, 4, vecs);                    \
            return;                                                                         \
        case 5:                                                                             \
            att_value_tile(keys, p, qs, v, ldv, w, q, c, cols, 5, vecs);                    \
            return;                                                                         \
        default:                                                                            \
            att_value_tile(keys, p, qs, v, ldv, w, q, c, cols, 6, vecs);                    \
        }                                                                                   \
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
 * are the outer loop: six rows of k stay in L1 even where their distance makes them share a set. */
static void att_scores(size_t keys, size_t channels, const float *qt, size_t qs, const float *k,
                       size_t k_row, float *s)
{
    size_t vecs = qs / VF_W;
    for (size_t t = 0, key = 0; key < keys; t++) {
        size_t rows = att_part(keys, ATT_ROWS, t);
        for (size_t u = 0, j = 0; j < vecs; u++) {
            size_t n = att_part(vecs, ATT_VECS, u);
            ATT_BY_VECS(n, att_scores, rows, channels, qt + j * VF_W, qs, k + key * k_row, k_row,
                        s + key * qs + j * VF_W);
            j += n;
        }
        key += rows;
    }
}

/* P*V for `cols` channels from c on, at most ATT_VECS vectors of them: v (keys, ldv). */
static void att_values(size_t keys, const float *p, size_t qs, const float *v, size_t ldv,
                       const struct att_out *w, size_t queries, size_t c, size_t cols)
{
    size_t vecs = (cols + VF_W - 1) / VF_W;
    for (size_t t = 0, q = 0; q < queries; t++) {
        size_t rows = att_part(queries, ATT_ROWS, t);
        ATT_BY_VECS(vecs, att_values, keys, p + q, qs, v, ldv, w, q, c, cols, rows);
        q += rows;
    }
}

/* One step of the online softmax: s (keys, qs) becomes p = exp(s - m), blocked scores being -Inf.
 * m, l, corr (qs). While every score so far is -Inf, 0 stands for the maximum, so that p and corr
 * are +0 and not NaN; a NaN score leaves the maximum alone and shows in p. */
static void att_softmax(size_t keys, size_t qs, float *restrict s, float *restrict m,
                        float *restrict l, float *restrict corr)
{
    const vf lowest = v_set1(-INFINITY);
    for (size_t j = 0; j < qs; j += VF_W) {
        vf before = v_load(m + j), top = before;
        for (size_t key = 0; key < keys; key++) {
            top = v_max(v_load(s + key * qs + j), top);
        }
        v_store(m + j, top);
        vf base = v_select(v_eq(top, lowest), v_zero(), top);
        vf shrink = v_exp(v_sub(before, base));
        vf sum = v_zero();
        for (size_t key = 0; key < keys; key++) {
            vf p = v_exp(v_sub(v_load(s + key * qs + j), base));
            v_store(s + key * qs + j, p);
            sum = v_add(sum, p);
        }
        v_store(corr + j, shrink);
        v_store(l + j, v_fma(v_load(l + j), shrink, sum));
    }
}

#endif
