/* Masks of attention: which keys of a block are blocked for which query, as bits, and how they show
 * in the scores. Part of tmpl/attention.h. */
#ifndef T2K_TMPL_ATTENTION_MASKS_H
#define T2K_TMPL_ATTENTION_MASKS_H

/* What a tile of queries has to do with a block of keys. */
enum att_class {
    ATT_NONE, /* blocked for every query: skipped */
    ATT_FREE, /* nothing is blocked */
    ATT_EDGE, /* query i sees the first see + i keys */
    ATT_MIXED /* anything else */
};

struct att_block {
    size_t first, keys;
    enum att_class class;
    ptrdiff_t see; /* of ATT_EDGE */
    float *bits;   /* (2, T2K_ATTENTION_QUERIES) of boolean masks: blocked keys 0..31 and 32..63 */
};

static int att_blocked(const struct att *t, size_t query, size_t key)
{
    switch (t->mask_kind) {
    case T2K_MASK_BOOL:
        return t->mask_bool[query * t->mask_row + key] != 0;
    case T2K_MASK_ADD:
        return t->mask_add[query * t->mask_row + key] == -INFINITY;
    case T2K_MASK_CAUSAL:
        return (ptrdiff_t)key >= t->see + (ptrdiff_t)query;
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

/* ---- bits ----------------------------------------------------------------------------------- */

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
#ifdef ATT_BITS_64
    if (n == 64) {
        return ATT_BITS_64(x);
    }
#endif
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

/* The lowest n bits, 0 <= n <= 64. */
static uint64_t att_low_bits(size_t n)
{
    return n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

static uint64_t att_blocked_bits(const struct att_block *b, size_t query)
{
    uint32_t low, high;
    memcpy(&low, b->bits + query, sizeof low);
    memcpy(&high, b->bits + T2K_ATTENTION_QUERIES + query, sizeof high);
    return (uint64_t)high << 32 | low;
}

/* Whether query i of a boolean mask sees the first see + i keys of the block, for one see: the
 * triangle, whose scores need not all be computed. */
static int att_is_edge(size_t queries, struct att_block *b)
{
    const uint64_t all = att_low_bits(b->keys);
    ptrdiff_t see = 0;
    size_t q = 0;
    /* The first query that sees a key and not all of them tells, or else the first to see all. */
    for (; q < queries; q++) {
        const uint64_t open = ~att_blocked_bits(b, q) & all;
        if (open != 0) {
            see = (open == UINT64_MAX ? 64 : __builtin_ctzll(~open)) - (ptrdiff_t)q;
            break;
        }
    }
    if (q == 0 && see == (ptrdiff_t)b->keys) {
        return 0; /* then some query is blocked that comes after one that is not */
    }
    for (q = 0; q < queries; q++) {
        const size_t count = att_clamp(see + (ptrdiff_t)q, b->keys);
        if ((~att_blocked_bits(b, q) & all) != att_low_bits(count)) {
            return 0;
        }
    }
    b->see = see;
    b->keys = att_clamp(see + (ptrdiff_t)queries - 1, b->keys); /* what the last query sees */
    return 1;
}

static void att_classify_bool(const struct att *t, struct att_block *b)
{
    const uint8_t *row = t->mask_bool + b->first;
    const size_t rows = t->mask_row == 0 ? 1 : t->queries;
    const uint64_t whole = att_low_bits(b->keys);
    uint64_t bits = 0, any = 0, all = whole;
    for (size_t q = 0; q < t->qs; q++) {
        if (q < rows) {
            bits = att_bits(row + q * t->mask_row, b->keys);
            any |= bits;
            all &= bits;
        }
        uint32_t low = (uint32_t)bits, high = (uint32_t)(bits >> 32);
        memcpy(b->bits + q, &low, sizeof low);
        memcpy(b->bits + T2K_ATTENTION_QUERIES + q, &high, sizeof high);
    }
    b->class = any == 0                                 ? ATT_FREE
               : all == whole                           ? ATT_NONE
               : rows > 1 && att_is_edge(t->queries, b) ? ATT_EDGE
                                                        : ATT_MIXED;
}

static void att_classify_add(const struct att *t, struct att_block *b)
{
    const size_t rows = t->mask_row == 0 ? 1 : t->queries;
    b->class = ATT_NONE;
    for (size_t q = 0; q < rows && b->class == ATT_NONE; q++) {
        if (!att_row_blocked(t, q, b->first, b->first + b->keys)) {
            b->class = ATT_MIXED;
        }
    }
}

/* Moves b to the next block that is not blocked for every query; its `first` is at the end, or
 * beyond it, when there is none. */
static void att_next_block(const struct att *t, struct att_block *b)
{
    for (; b->first < t->keys; b->first += ATT_KEYS) {
        b->keys = att_least(ATT_KEYS, t->keys - b->first);
        b->class = ATT_FREE;
        if (t->mask_kind == T2K_MASK_CAUSAL) {
            b->see = t->see - (ptrdiff_t)b->first;
            size_t most = att_clamp(b->see + (ptrdiff_t)t->queries - 1, b->keys);
            if (most == 0) { /* nor is there anything for this tile behind it */
                b->first = t->keys;
                return;
            }
            b->class = b->see < (ptrdiff_t)b->keys ? ATT_EDGE : ATT_FREE;
            b->keys = most;
        } else if (t->mask_kind == T2K_MASK_BOOL) {
            att_classify_bool(t, b);
        } else if (t->mask_kind == T2K_MASK_ADD) {
            att_classify_add(t, b);
        }
        if (b->class != ATT_NONE) {
            return;
        }
    }
}

/* ---- in the scores -------------------------------------------------------------------------- */

/* Scores of keys whose bit is set become -Inf. */
static void att_mask_bool(const struct att *t, const struct att_block *b)
{
    const vf lowest = v_set1(-INFINITY);
    for (size_t j = 0; j < t->qs; j += VF_W) {
        vi bit = vi_of_bits(v_load(b->bits + j));
        for (size_t key = 0; key < b->keys; key++) {
            float *s = t->s + key * t->qs + j;
            if (key == 32) {
                bit = vi_of_bits(v_load(b->bits + T2K_ATTENTION_QUERIES + j));
            }
            /* All ones, which as a float is a NaN, where the lowest bit is set. */
            vm blocked = v_nan(v_of_bits(vi_sra(vi_shl(bit, 31), 31)));
            v_store(s, v_select(blocked, lowest, v_load(s)));
            bit = vi_sra(bit, 1);
        }
    }
}

/* s = s + mask, and -Inf where the mask is -Inf. Returns whether it is anywhere. */
static int att_mask_add(const struct att *t, const struct att_block *b)
{
    const vf lowest = v_set1(-INFINITY);
    int any = 0;
    for (size_t q = 0; q < t->queries; q += VF_W) {
        for (size_t key = 0; key < b->keys; key += VF_W) {
            size_t n = att_least(VF_W, b->keys - key);
            float *s = t->s + key * t->qs + q;
            vf r[VF_W];
            att_load_transposed(t->mask_add + q * t->mask_row + b->first + key, t->mask_row,
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

#endif
