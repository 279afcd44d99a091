/* The gradients of attention for one head of keys and values and the heads of queries that share
 * it. Part of tmpl/attention.h, whose names and formulas it takes up:
 *
 *   dp = sum over channels (fma) of v dout;  P = p w(m_b - m) (1 / l), m_b being the maximum when
 *   block b was done;  delta = (sum over keys of p dp) (1 / l), blocks combined as l is
 *   ds = P (dp - delta);  dv = sum P dout;  dk = sum ds q';  dq = scale sum ds k
 *
 * Where p is +0 the pair of query and key is left out of every sum, whatever the operands hold.
 * Softmax is not saved by the forward pass: scores and dp of a tile of queries are computed once
 * more, block by block, and kept for the first ATT_KEPT blocks, so that only longer sequences
 * compute them twice. dk and dv are summed where the caller wants them, one tile of queries after
 * another: a block sum each, the same for queries as T2K_ATTENTION_KEYS is for keys. The algorithm
 * without a matrix of all weights is that of Dao et al., arXiv 2205.14135, section B.4. */
#ifndef T2K_TMPL_ATTENTION_BACKWARD_H
#define T2K_TMPL_ATTENTION_BACKWARD_H

#define ATT_KEPT T2K_ATTENTION_KEPT

/* A block of keys under a tile of queries. */
struct att_pair {
    struct att_block block;
    ptrdiff_t see; /* keys that the first query sees; a block's number of keys or more: all */
    float *p, *dp; /* (keys, qs): weights relative to m, then P; v dout, then ds */
    float *m;      /* (qs) the maximum when this block was done */
};

struct att_back {
    struct att s;    /* scores: the tile of the forward pass; its output is dq */
    struct att g;    /* dp, the scores of dout and v */
    float *q, *dout; /* (queries, ld) q' and dout, padded with +0 to whole vectors */
    float *k;        /* (keys of a block, ld) likewise */
    float *sum;      /* (queries, ld) of dq */
    size_t ld;
    float *delta, *top, *total, *spare; /* (qs) delta, the last m and l; l computed again */
    const float *keys;                  /* K, row stride k_row */
    size_t k_row;
    float scale;
    int finite, finite_keys;             /* q' and dout, and the block of K, are */
    struct att_pair pairs[ATT_KEPT + 1]; /* the last one is for blocks that are not kept */
    float *dk, *dv;                      /* (keys, channels), row strides dk_row, dv_row */
    size_t dk_row, dv_row;
};

/* ---- products ------------------------------------------------------------------------------- */

/* C = (from + A B) scale + 0 for `cols` columns, where element (i, p) of A lies at
 * a[i * a_m + p * a_k] and row p of B at b + p * ldb, whole vectors of it. */
struct att_product {
    size_t depth;
    const float *a;
    size_t a_m, a_k;
    const float *b;
    size_t ldb;
    const float *from; /* NULL: 0 */
    size_t ld_from;
    float scale;
    float *c;
    size_t ldc, cols;
    ptrdiff_t skip, reach; /* A is 0 where p < i - skip or p >= reach + i: causal masks */
};

ATT_INLINE void att_product_leave(const struct att_product *w, vf x, size_t i, size_t c, size_t n)
{
    if (w->from != NULL) {
        const float *from = w->from + i * w->ld_from + c;
        x = v_add(n >= VF_W ? v_load(from) : v_load_n(from, n), x);
    }
    x = v_add(v_mul(x, v_set1(w->scale)), v_zero()); /* -0 becomes +0 */
    float *to = w->c + i * w->ldc + c;
    if (n >= VF_W) {
        v_store(to, x);
    } else {
        v_store_n(to, x, n);
    }
}

ATT_INLINE void att_product_tile(const struct att_product *w, size_t i, size_t c, size_t a_m,
                                 const int rows, const int vecs)
{
    const size_t a_k = w->a_k, ldb = w->ldb;
    const size_t begin = att_clamp((ptrdiff_t)i - w->skip, w->depth);
    const size_t end = att_clamp(w->reach + (ptrdiff_t)i + rows - 1, w->depth);
    const float *restrict a = w->a + i * a_m + begin * a_k, *restrict b = w->b + begin * ldb + c;
    vf acc[ATT_ROWS][ATT_VECS];
    T2K_UNROLL
    for (int r = 0; r < rows; r++) {
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            acc[r][j] = v_zero();
        }
    }
    for (size_t p = begin; p < end; p++) {
        vf x[ATT_VECS];
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            x[j] = v_load(b + (size_t)j * VF_W);
        }
        T2K_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf y = v_set1(a[(size_t)r * a_m]);
            T2K_UNROLL
            for (int j = 0; j < vecs; j++) {
                acc[r][j] = v_fma(y, x[j], acc[r][j]);
            }
        }
        a += a_k;
        b += ldb;
    }
    T2K_UNROLL
    for (int r = 0; r < rows; r++) {
        T2K_UNROLL
        for (int j = 0; j < vecs; j++) {
            const size_t at = c + (size_t)j * VF_W;
            att_product_leave(w, acc[r][j], i + (size_t)r, at, w->cols - at);
        }
    }
}

/* With A along rows (a_m = 1) the distances of a broadcast are constants. */
#define ATT_PRODUCT_TILE(n) att_product_tile(w, i, c, w->a_m, n, vecs)
#define ATT_PRODUCT_TILE_1(n) att_product_tile(w, i, c, 1, n, vecs)
ATT_INLINE void att_product_rows(const struct att_product *w, size_t i, size_t c, size_t rows,
                                 const int vecs)
{
    if (w->a_m == 1) {
        ATT_BY_ROWS(rows, ATT_PRODUCT_TILE_1);
    } else {
        ATT_BY_ROWS(rows, ATT_PRODUCT_TILE);
    }
}

#define ATT_PRODUCT(vecs)                                                                        \
    static void att_product_##vecs(const struct att_product *w, size_t i, size_t c, size_t rows) \
    {                                                                                            \
        att_product_rows(w, i, c, rows, vecs);                                                   \
    }
ATT_PRODUCT(1)
#if ATT_VECS >= 2
ATT_PRODUCT(2)
#endif
#if ATT_VECS >= 4
ATT_PRODUCT(3)
ATT_PRODUCT(4)
#endif

static void att_product(const struct att_product *w, size_t rows)
{
    const struct att_cut cut = att_cut(rows, ATT_ROWS);
    for (size_t c = 0; c < w->cols; c += ATT_VECS * VF_W) {
        const size_t cols = att_least(ATT_VECS * VF_W, w->cols - c);
        for (size_t t = 0, i = 0; i < rows; t++) {
            const size_t n = cut.least + (t < cut.longer);
            ATT_BY_VECS((cols + VF_W - 1) / VF_W, att_product, w, i, c, n);
            i += n;
        }
    }
}

/* The same where an operand is not finite: pairs whose weight, which lies as A does, is 0 are left
 * out. */
static void att_product_selected(const struct att_product *w, const float *weights, size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t c = 0; c < w->cols; c += VF_W) {
            vf x = v_zero();
            for (size_t p = 0; p < w->depth; p++) {
                const size_t at = i * w->a_m + p * w->a_k;
                if (weights[at] != 0.0f) {
                    x = v_fma(v_set1(w->a[at]), v_load(w->b + p * w->ldb + c), x);
                }
            }
            att_product_leave(w, x, i, c, w->cols - c);
        }
    }
}

static void att_multiply(const struct att_product *w, const float *weights, size_t rows, int finite)
{
    if (finite) {
        att_product(w, rows);
    } else {
        att_product_selected(w, weights, rows);
    }
}

/* ---- weights -------------------------------------------------------------------------------- */

/* How many keys of a block one of the vector of queries from j on sees. */
ATT_INLINE size_t att_seen(const struct att_pair *pair, size_t j)
{
    return att_clamp(pair->see + (ptrdiff_t)j + VF_W - 1, pair->block.keys);
}

/* p and dp of a block, and l and delta so far; m, l and corr as in the forward pass. */
static void att_back_scores(struct att_back *w, struct att_pair *pair, int begun)
{
    const struct att_block *b = &pair->block;
    struct att_panel panel = {.to = NULL};
    struct att *t = &w->s;
    t->s = pair->p;
    pair->see = att_block_see(b);
    att_block_scores(t, b, &panel);
    att_softmax(b->keys, pair->see, t->qs, begun, t->s, t->m, t->l, t->corr);
    memcpy(pair->m, t->m, t->qs * sizeof(float));
    att_scores(b->keys, pair->see, t->channels, w->g.qt, t->qs, w->g.k + b->first * w->g.k_row,
               w->g.k_row, pair->dp, &panel);
}

static void att_back_delta(struct att_back *w, const struct att_pair *pair, int begun)
{
    const size_t qs = w->s.qs;
    for (size_t j = 0; j < qs; j += VF_W) {
        const size_t keys = att_seen(pair, j);
        vf sum = v_zero();
        for (size_t key = 0; key < keys; key++) {
            const vf p = v_load(pair->p + key * qs + j);
            const vf next = v_fma(p, v_load(pair->dp + key * qs + j), sum);
            sum = v_select(v_eq(p, v_zero()), sum, next);
        }
        if (begun) {
            sum = v_fma(v_load(w->delta + j), v_load(w->s.corr + j), sum);
        }
        v_store(w->delta + j, sum);
    }
}

/* p and dp become P and ds, when l and delta are complete; +0 for keys that no query sees. `only`:
 * there is no other block. */
static void att_back_weights(const struct att_back *w, const struct att_pair *pair, int only)
{
    const size_t qs = w->s.qs;
    const vf zero = v_zero();
    for (size_t j = 0; j < qs; j += VF_W) {
        const size_t keys = att_seen(pair, j);
        vf factor = v_load(w->s.inverse + j);
        if (!only) { /* else w(0), which is 1 */
            vf shrink = v_sub(v_load(pair->m + j), v_load(w->top + j));
            att_exp(&shrink, 1);
            factor = v_mul(shrink, factor);
        }
        const vf delta = v_load(w->delta + j);
        float *p = pair->p + j, *ds = pair->dp + j;
        for (size_t key = 0; key < keys; key++, p += qs, ds += qs) {
            vf x = v_load(p);
            x = v_select(v_eq(x, zero), zero, v_mul(x, factor));
            const vf y = v_mul(x, v_sub(v_load(ds), delta));
            v_store(p, x);
            v_store(ds, v_select(v_eq(x, zero), zero, y));
        }
        for (size_t key = keys; key < pair->block.keys; key++, p += qs, ds += qs) {
            v_store(p, zero);
            v_store(ds, zero);
        }
    }
}

/* ---- a tile of queries ---------------------------------------------------------------------- */

/* x (rows, channels) times scale, padded with +0 to whole vectors; whether it is finite. */
static int att_back_copy(size_t rows, size_t channels, const float *x, size_t ldx, float scale,
                         float *to, size_t ld)
{
    const vf by = v_set1(scale);
    vf zeros[2] = {v_zero(), v_zero()};
    for (size_t i = 0; i < rows; i++) {
        size_t c = 0;
        for (; c < channels; c += VF_W) {
            const float *from = x + i * ldx + c;
            const size_t n = channels - c;
            const vf y = v_mul(n >= VF_W ? v_load(from) : v_load_n(from, n), by);
            v_store(to + i * ld + c, y);
            zeros[i % 2] = v_fma(y, v_zero(), zeros[i % 2]);
        }
    }
    return !vm_any(v_nan(v_add(zeros[0], zeros[1])));
}

/* Copies a block of K. */
static void att_back_keys(struct att_back *w, const struct att_block *b)
{
    w->finite_keys = att_back_copy(b->keys, w->s.channels, w->keys + b->first * w->k_row, w->k_row,
                                   1.0f, w->k, w->ld);
}

/* What a block, when P and ds are known, adds to dq, dk and dv. `fresh`: dk and dv hold nothing
 * yet. */
static void att_back_products(const struct att_back *w, const struct att_pair *pair, int first,
                              int last, int fresh)
{
    const struct att *t = &w->s;
    const struct att_block *b = &pair->block;
    struct att_product product = {.depth = t->queries,
                                  .a = pair->p,
                                  .a_m = t->qs,
                                  .a_k = 1,
                                  .b = w->dout,
                                  .ldb = w->ld,
                                  .scale = 1.0f,
                                  .cols = t->channels,
                                  .skip = pair->see - 1,
                                  .reach = (ptrdiff_t)t->queries};
    product.c = w->dv + b->first * w->dv_row;
    product.ldc = product.ld_from = w->dv_row;
    product.from = fresh ? NULL : product.c;
    att_multiply(&product, pair->p, b->keys, w->finite);
    product.a = pair->dp;
    product.b = w->q;
    product.c = w->dk + b->first * w->dk_row;
    product.ldc = product.ld_from = w->dk_row;
    product.from = fresh ? NULL : product.c;
    att_multiply(&product, pair->p, b->keys, w->finite);
    product.depth = b->keys;
    product.a_m = 1;
    product.a_k = t->qs;
    product.skip = (ptrdiff_t)t->queries;
    product.reach = pair->see;
    product.b = w->k;
    product.from = first ? NULL : w->sum;
    product.ld_from = w->ld;
    product.scale = last ? w->scale : 1.0f;
    product.c = last ? t->w.out : w->sum;
    product.ldc = last ? t->w.out_row : w->ld;
    att_multiply(&product, pair->p, t->queries, w->finite_keys);
}

/* Asks for rows of a block. Their distance is often some KB, which no hardware foresees. */
static void att_back_ahead(size_t first, size_t keys, size_t channels, const float *x, size_t ldx)
{
    for (size_t i = first; i < first + ATT_KEYS && i < keys; i++) {
        for (size_t c = 0; c < channels; c += 16) {
            __builtin_prefetch(x + i * ldx + c, 0, 2);
        }
    }
}

/* A row whose weights are all 0 is NaN, or as empty_row says where all its keys are blocked. */
static void att_back_empty(const struct att *t)
{
    for (size_t q = 0; q < t->queries; q++) {
        if (t->l[q] == 0.0f) {
            for (size_t c = 0; c < t->channels; c++) {
                t->w.out[q * t->w.out_row + c] = NAN;
            }
        }
    }
    att_empty_rows(t, 1);
}

/* The first pass over the blocks: statistics, and p and dp of the first ATT_KEPT blocks. Returns
 * how many there are. */
static size_t att_back_first(struct att_back *w, struct att_block *block)
{
    size_t count = 0;
    while (block->first < w->s.keys) {
        struct att_pair *pair = &w->pairs[att_least(count, ATT_KEPT)];
        pair->block = *block;
        att_back_ahead(block->first + ATT_KEYS, w->s.keys, w->s.channels, w->keys, w->k_row);
        att_back_ahead(block->first + ATT_KEYS, w->s.keys, w->s.channels, w->g.k, w->g.k_row);
        att_back_scores(w, pair, count > 0);
        att_back_delta(w, pair, count > 0);
        count++;
        block->first += ATT_KEYS;
        att_next_block(&w->s, block);
    }
    return count;
}

/* The second pass: gradients. What was not kept is computed once more, from the maximum that the
 * block before left. */
static void att_back_second(struct att_back *w, size_t count, int fresh)
{
    struct att *t = &w->s;
    struct att_pair *again = &w->pairs[ATT_KEPT];
    for (size_t i = 0; i < count; i++) {
        struct att_pair *pair = &w->pairs[att_least(i, ATT_KEPT)];
        if (i >= ATT_KEPT) {
            const struct att_pair *before = &w->pairs[att_least(i - 1, ATT_KEPT)];
            struct att_block next = before->block;
            /* An edge of the mask cuts a block short; the next one begins where it would end. */
            next.first += ATT_KEYS;
            next.bits = t->bits[0];
            att_next_block(t, &next);
            memmove(t->m, before->m, t->qs * sizeof(float));
            again->block = next;
            att_back_scores(w, again, 1);
        }
        if (i + 1 < count && i + 1 < ATT_KEPT) {
            const size_t next = w->pairs[i + 1].block.first;
            att_back_ahead(next, t->keys, t->channels, w->keys, w->k_row);
            att_back_ahead(next, t->keys, t->channels, w->dk, w->dk_row);
            att_back_ahead(next, t->keys, t->channels, w->dv, w->dv_row);
        }
        att_back_weights(w, pair, count == 1);
        if (t->keys > ATT_KEYS) {
            att_back_keys(w, &pair->block);
        }
        att_back_products(w, pair, i == 0, i + 1 == count, fresh);
    }
}

/* x (rows, cols) = +0. */
static void att_back_clear(size_t rows, size_t cols, float *x, size_t ldx)
{
    for (size_t i = 0; i < rows; i++) {
        memset(x + i * ldx, 0, cols * sizeof *x);
    }
}

/* Copies the rows of the operands, which often lie so that few of them fit a set of L1, before they
 * are read more than once: q' and dout always, K where it is a single block. */
static void att_back_open(struct att_back *w, const struct att_block *block)
{
    struct att *t = &w->s, *g = &w->g;
    w->scale = t->scale;
    w->keys = t->k;
    w->k_row = t->k_row;
    w->finite = att_back_copy(t->queries, t->channels, t->q, t->q_row, t->scale, w->q, w->ld);
    w->finite &= att_back_copy(g->queries, g->channels, g->q, g->q_row, 1.0f, w->dout, w->ld);
    t->q = w->q;
    g->q = w->dout;
    t->q_row = g->q_row = w->ld;
    t->scale = 1.0f;
    att_pack_queries(t);
    att_pack_queries(g);
    if (t->keys <= ATT_KEYS) {
        att_back_keys(w, block);
        t->k = w->k;
        t->k_row = w->ld;
    }
}

/* `fresh`: dk and dv hold nothing yet; under a mask only where keys are a single block. */
static void att_back_tile(struct att_back *w, int fresh)
{
    struct att *t = &w->s;
    struct att_block block = {.first = 0, .bits = t->bits[0]};
    att_next_block(t, &block);
    const int computed = block.first < t->keys;
    if (fresh && !(computed && (t->keys > ATT_KEYS || block.keys == t->keys))) {
        att_back_clear(t->keys, t->channels, w->dk, w->dk_row);
        att_back_clear(t->keys, t->channels, w->dv, w->dv_row);
        fresh = 0;
    }
    if (!computed) {
        att_empty_rows(t, 0);
        return;
    }
    att_back_open(w, &block);
    const size_t count = att_back_first(w, &block);
    for (size_t j = 0; j < t->qs; j += VF_W) {
        const vf inverse = v_div(v_set1(1.0f), v_load(t->l + j));
        v_store(t->inverse + j, inverse);
        v_store(w->delta + j, v_mul(v_load(w->delta + j), inverse));
        v_store(w->top + j, v_load(t->m + j));
    }
    t->l = w->spare;
    att_back_second(w, count, fresh);
    t->l = w->total;
    att_back_empty(t);
}

/* ---- a head of keys and values -------------------------------------------------------------- */

/* The next n floats of the workspace. The gap keeps arrays of whole KB from sharing their sets. */
static float *att_back_take(float **workspace, size_t n)
{
    float *taken = *workspace;
    *workspace += (n + 15) / 16 * 16 + 16;
    return taken;
}

/* The parts of the workspace: at most T2K_ATTENTION_BACKWARD_FLOATS(channels). */
static void att_back_carve(struct att_back *w, float *workspace)
{
    struct att *t = &w->s;
    const size_t keys = att_least(ATT_KEYS, t->keys);
    const size_t blocks = (t->keys + ATT_KEYS - 1) / ATT_KEYS;
    t->qs = w->g.qs = (t->queries + VF_W - 1) / VF_W * VF_W;
    w->ld = (t->channels + 15) / 16 * 16;
    float **rows[] = {&t->m, &t->l, &t->corr, &t->inverse, &w->delta, &w->top, &w->spare};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i] = att_back_take(&workspace, t->qs);
    }
    w->total = t->l;
    t->bits[0] =
        t->mask_kind == T2K_MASK_BOOL ? att_back_take(&workspace, 2 * T2K_ATTENTION_QUERIES) : NULL;
    t->qt = att_back_take(&workspace, t->channels * t->qs);
    w->g.qt = att_back_take(&workspace, t->channels * t->qs);
    w->q = att_back_take(&workspace, t->queries * w->ld);
    w->dout = att_back_take(&workspace, t->queries * w->ld);
    w->k = att_back_take(&workspace, keys * w->ld);
    w->sum = att_back_take(&workspace, t->queries * w->ld);
    for (size_t i = 0; i <= ATT_KEPT && i < blocks; i++) {
        w->pairs[i].p = att_back_take(&workspace, keys * t->qs);
        w->pairs[i].dp = att_back_take(&workspace, keys * t->qs);
        w->pairs[i].m = att_back_take(&workspace, t->qs);
    }
}

void T2K_FN(attention_backward)(const t2k_attention_gradients *args, size_t item, size_t kv_head,
                                float *workspace)
{
    const t2k_attention_args *a = &args->scores;
    const size_t group = (size_t)(a->heads / a->kv_heads), queries = (size_t)a->queries;
    const size_t channels = (size_t)a->head_dim, keys = (size_t)a->keys;
    struct att_back w;
    int fresh = a->mask_kind == T2K_MASK_NONE || keys <= ATT_KEYS;
    w.dk_row = (size_t)args->dk_row;
    w.dv_row = (size_t)args->dv_row;
    w.dk = w.dv = NULL;
    if (keys > 0) {
        w.dk = args->dk + item * (size_t)args->dk_item + kv_head * channels;
        w.dv = args->dv + item * (size_t)args->dv_item + kv_head * channels;
        if (!fresh || queries == 0) {
            att_back_clear(keys, channels, w.dk, w.dk_row);
            att_back_clear(keys, channels, w.dv, w.dv_row);
        }
    }
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (size_t first = 0; first < queries; first += T2K_ATTENTION_QUERIES) {
            att_open(&w.s, a, item, head, first);
            att_open(&w.g, &args->values, item, head, first);
            w.s.queries = w.g.queries = att_least(T2K_ATTENTION_QUERIES, queries - first);
            att_back_carve(&w, workspace);
            att_back_tile(&w, fresh);
            fresh = 0;
        }
    }
}

#endif
