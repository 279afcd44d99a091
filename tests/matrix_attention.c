/* Attention: shapes, layouts and masks against the scalar ISA bit for bit and against double;
 * the same bits for any number of threads and of queries travelling together; special values. */
#include "matrix_attention_case.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void shape_case(struct matrix *m, int full_only, int64_t queries, int64_t keys, int64_t dim,
                       int64_t budget)
{
    struct rng *rng = &m->rng;
    int64_t size[5] = {queries, keys, 1 + (int64_t)rng_below(rng, 5),
                       1 + (int64_t)rng_below(rng, 8), dim};
    int64_t one = queries * (keys + 8) * dim;
    while (size[2] * size[3] > 1 && size[2] * size[3] * one > budget) {
        size[size[2] > size[3] ? 2 : 3]--;
    }
    struct scene s;
    enum layout layout = (enum layout)rng_below(rng, LAYOUTS);
    enum mask_style style = (enum mask_style)rng_below(rng, keys > 0 ? MASK_STYLES : 1);
    scene_open(&s, rng, size, layout, style, 1);
    float *got = scene_record(m, &s, full_only);
    if (m->isa == 0) {
        scene_reference(m, &s, got);
    }
    if (rng_below(rng, 4) == 0) {
        scene_ways(m, &s, got);
    }
    free(got);
    scene_close(m, &s);
}

static const int64_t sizes[] = {1, 2, 3, 5, 9, 10, 15, 16, 17, 63, 64, 65, 100, 130, 257};
static const int64_t dims[] = {1, 3, 8, 11, 16, 32, 33, 64, 128, 256, 1024};

static void small_shapes(struct matrix *m)
{
    const size_t count = 13;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j <= count; j++) { /* the last one is no keys at all */
            int64_t dim = dims[rng_below(&m->rng, sizes[i] * sizes[j] > 2500 ? 6 : 8)];
            shape_case(m, 0, sizes[i], j < count ? sizes[j] : 0, dim, 60000);
        }
    }
}

static void all_shapes(struct matrix *m)
{
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            for (size_t k = 0; k < sizeof dims / sizeof dims[0]; k++) {
                if (sizes[i] * sizes[j] * dims[k] < 5000000) {
                    shape_case(m, 1, sizes[i], sizes[j], dims[k], 300000);
                }
            }
        }
    }
}

/* At the limits of the kernel of short sequences, several heads a call. */
static void short_shapes(struct matrix *m)
{
    static const int64_t queries[] = {4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17};
    static const int64_t keys[] = {4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
    static const int64_t wide[] = {32, 64, 96};
    for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
        for (size_t j = 0; j < sizeof keys / sizeof keys[0]; j++) {
            const int64_t size[5] = {queries[i], keys[j], 1 + (int64_t)rng_below(&m->rng, 2),
                                     1 + (int64_t)rng_below(&m->rng, 6),
                                     wide[rng_below(&m->rng, 8) * 3 / 8]};
            const enum layout layout = (enum layout)rng_below(&m->rng, LAYOUTS);
            struct scene s;
            scene_open(&s, &m->rng, size, layout, (i + j) % 3 == 0 ? MASK_MADE : MASK_OFF, 1);
            float *got = scene_record(m, &s, 0);
            if (m->isa == 0) {
                scene_reference(m, &s, got);
            }
            if (rng_below(&m->rng, 4) == 0) {
                scene_ways(m, &s, got);
            }
            free(got);
            scene_close(m, &s);
        }
    }
}

/* One query, its keys at distances of whole KB and beside them: heads with keys of their own. */
static void decode_shapes(struct matrix *m)
{
    static const int64_t keys[] = {7, 8, 9, 31, 32, 33, 63, 64, 65, 130};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const int64_t sizes_of[][5] = {{1, keys[i], 1, 4, 64},  {1, keys[i], 2, 16, 8},
                                       {1, keys[i], 1, 32, 40}, {1, keys[i], 1, 5, 64},
                                       {1, keys[i], 3, 3, 24},  {1, keys[i], 1, 9, 33}};
        for (size_t j = 0; j < sizeof sizes_of / sizeof sizes_of[0]; j++) {
            struct scene s;
            const enum mask_style style = (enum mask_style)rng_below(&m->rng, MASK_STYLES);
            scene_open(&s, &m->rng, sizes_of[j], SEQUENCE_FIRST, style, 0);
            float *got = scene_record(m, &s, 0);
            if (m->isa == 0) {
                scene_reference(m, &s, got);
            }
            scene_ways(m, &s, got);
            free(got);
            scene_close(m, &s);
        }
    }
}

/* ---- special values ------------------------------------------------------------------------- */

/* One item and head whose keys `at` (both, if > 0) are blocked for even queries only: what k or v
 * holds there must not reach an even query, and the formula decides for the odd ones. */
static void poison_case(struct matrix *m, int additive, float poison, int in_v)
{
    const int64_t size[5] = {11, 70, 1, 1, 19};
    struct scene clean, dirty;
    struct rng copy = m->rng;
    scene_open(&clean, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    scene_open(&dirty, &copy, size, SEQUENCE_FIRST, MASK_OFF, 0);
    struct guarded mask = guarded_new(11 * 70, additive ? sizeof(float) : 1);
    for (int i = 0; i < 11 * 70; i++) {
        int blocked = i / 70 % 2 == 0 && (i % 70 == 5 || i % 70 == 66);
        if (additive) {
            ((float *)mask.data)[i] = blocked ? -INFINITY : 0.25f;
        } else {
            ((uint8_t *)mask.data)[i] = (uint8_t)blocked;
        }
    }
    clean.a.mask = dirty.a.mask = mask.data;
    clean.a.mask_kind = dirty.a.mask_kind = additive ? T2K_MASK_ADD : T2K_MASK_BOOL;
    clean.a.mask_row = dirty.a.mask_row = 70;
    for (int key = 5; key <= 66; key += 61) {
        float *row = (float *)(in_v ? dirty.v.data : dirty.k.data) + key * dirty.a.k_row;
        row[18] = poison;
    }
    float *want = scene_record(m, &clean, 0), *got = scene_record(m, &dirty, 0);
    for (size_t l = 0; l < 11; l++) {
        if (l % 2 == 0) {
            matrix_same(m, got + l * 19, want + l * 19, 19, "poison %g in_v %d query %zu",
                        (double)poison, in_v, l);
        } else if (in_v) {
            matrix_same(m, got + l * 19, want + l * 19, 18, "poison %g beside it, query %zu",
                        (double)poison, l);
            int ok = isnan(poison) ? isnan(got[l * 19 + 18]) : got[l * 19 + 18] == poison;
            matrix_check(m, ok, "poison %g must show in query %zu", (double)poison, l);
        } else if (isnan(poison)) {
            matrix_check(m, isnan(got[l * 19]) && isnan(got[l * 19 + 18]),
                         "a NaN key must show in query %zu", l);
        }
    }
    free(want);
    free(got);
    guarded_free(&mask);
    scene_close(m, &clean);
    scene_close(m, &dirty);
}

/* Rows where every score is absorbed by `add` are uniform: the mean, in the documented order. One
 * channel's mean is too small for a float and negative: the result's zeros are positive. */
static void uniform_case(struct matrix *m, float add)
{
    const int64_t size[5] = {9, 21, 2, 2, 13};
    struct scene s;
    scene_open(&s, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    s.mask = guarded_new(21, sizeof(float));
    for (int64_t key = 0; key < 21; key++) {
        ((float *)s.mask.data)[key] = add;
        ((float *)s.v.data)[key * s.a.v_row] = key == 4 ? -0x1p-149f : 0.0f;
    }
    s.a.mask = s.mask.data;
    s.a.mask_kind = T2K_MASK_ADD;
    float *got = scene_record(m, &s, 0);
    const size_t width = 26, n = scene_floats(&s);
    float *want = scene_new_floats(n);
    for (size_t i = 0; i < n; i++) {
        size_t item = i / width % 2, column = i % width;
        float sum = 0.0f;
        for (size_t key = 0; key < 21; key++) {
            sum += s.a.v[key * (size_t)s.a.v_row + item * (size_t)s.a.v_item + column];
        }
        want[i] = sum * (1.0f / 21.0f) + 0.0f;
    }
    matrix_same(m, got, want, n, "uniform rows under %g", (double)add);
    free(got);
    free(want);
    scene_close(m, &s);
}

/* One key: the result is v itself, zeros positive. So exp(0) and 1 / 1 are exact. */
static void single_key_case(struct matrix *m, int64_t dim)
{
    const int64_t size[5] = {7, 1, 2, 3, dim};
    struct scene s;
    scene_open(&s, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    ((float *)s.v.data)[0] = -0.0f;
    ((float *)s.v.data)[1] = 0x1p-149f;
    ((float *)s.v.data)[2] = -FLT_MAX;
    float *got = scene_record(m, &s, 0);
    float *want = scene_new_floats(scene_floats(&s));
    size_t row = (size_t)(6 * dim);
    for (size_t i = 0; i < 7 * row; i++) {
        want[i] = s.a.v[i % row] + 0.0f;
    }
    matrix_same(m, got, want, 7 * row, "one key, head_dim %d", (int)dim);
    free(got);
    free(want);
    scene_close(m, &s);
}

/* Scores of -Inf by arithmetic: they weigh nothing while another key is left, and a row of nothing
 * else is NaN whatever empty_row says. Queries are positive, so k = -Inf gives s = -Inf. */
static void lowest_scores_case(struct matrix *m)
{
    const int64_t size[5] = {6, 80, 1, 1, 5};
    struct scene s;
    scene_open(&s, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    s.a.empty_row = T2K_EMPTY_ZERO;
    float *q = s.q.data, *k = s.k.data;
    for (int i = 0; i < 30; i++) {
        q[i] = fabsf(q[i]) + 0.5f;
    }
    for (int key = 0; key < 67; key++) {
        k[key * 5] = -INFINITY;
    }
    float *got = scene_record(m, &s, 0);
    t2k_attention_args rest = s.a;
    float alone[30];
    uint8_t mask[80] = {0};
    memset(mask, 1, 67);
    rest.mask_kind = T2K_MASK_BOOL;
    rest.mask = mask;
    rest.out = alone;
    rest.out_row = 5;
    t2k_attention(&rest);
    matrix_same(m, got, alone, 30, "scores of -Inf weigh nothing");
    for (int masked = 0; masked < 2; masked++) {
        size_t numbers = 0;
        for (int key = 0; key < 80; key++) {
            mask[key] = key >= 67;
        }
        rest.keys = masked ? 80 : 67;
        rest.mask_kind = masked ? T2K_MASK_BOOL : T2K_MASK_NONE;
        t2k_attention(&rest);
        for (int i = 0; i < 30; i++) {
            numbers += isnan(alone[i]) ? 0 : 1;
        }
        matrix_check(m, numbers == 0, "only scores of -Inf, masked %d: %zu are numbers", masked,
                     numbers);
    }
    free(got);
    scene_close(m, &s);
}

/* Magnitudes that overflow or underflow, and non-finite operands anywhere: as scalar. */
static void extreme_cases(struct matrix *m)
{
    static const float factors[] = {1e15f, 1e19f, 1e30f, 1e-22f, 1e-40f, FLT_MAX};
    static const float odd[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, 0x1p-149f, -0.0f};
    const int64_t size[5] = {17, 75, 1, 2, 9};
    for (size_t i = 0; i < 60; i++) {
        struct scene s;
        enum mask_style style = (enum mask_style)rng_below(&m->rng, MASK_STYLES);
        scene_open(&s, &m->rng, size, SEQUENCE_FIRST, style, 1);
        struct guarded *part = i % 3 == 0 ? &s.q : i % 3 == 1 ? &s.k : &s.v;
        size_t n = part->bytes / sizeof(float);
        float *x = part->data;
        if (i < 18) {
            for (size_t j = 0; j < n; j++) {
                x[j] *= factors[i / 3];
            }
        } else {
            for (size_t j = 0; j < 1 + i % 4; j++) {
                x[rng_below(&m->rng, n)] = odd[rng_below(&m->rng, 7)];
            }
        }
        float *got = scene_record(m, &s, 0);
        scene_ways(m, &s, got);
        free(got);
        scene_close(m, &s);
    }
}

/* ---- forms of one and the same --------------------------------------------------------------- */

/* What a causal mask blocks may hold anything: the triangle as a matrix, as a mask kind, and with
 * NaN and infinities behind what a query sees, give the same bits. */
static void causal_forms(struct matrix *m, int64_t queries, int64_t keys, int64_t dim)
{
    const int64_t size[5] = {queries, keys, 1, 2, dim};
    struct scene s;
    scene_open(&s, &m->rng, size, SEQUENCE_FIRST, MASK_EDGE, 0);
    float *want = scene_record(m, &s, 0);
    t2k_attention_args made = s.a;
    float *got = scene_new_floats(scene_floats(&s));
    made.mask_kind = T2K_MASK_CAUSAL;
    made.mask = NULL;
    made.mask_row = made.mask_head = made.mask_item = -1; /* not looked at */
    memset(s.out.data, 0xa7, s.out.bytes);
    matrix_check(m, t2k_attention(&made) == T2K_OK, "%s: causal", s.text);
    scene_gather(&s, got);
    matrix_same(m, got, want, scene_floats(&s), "%s: causal without a matrix", s.text);
    /* All queries but the last ones: what they don't see is poison. */
    const int64_t part = (queries + 1) / 2, seen = keys - queries + part;
    if (seen > 0 && seen < keys) {
        const size_t row = (size_t)made.k_row, n = (size_t)keys * row - (row - (size_t)(2 * dim));
        float *k = scene_new_floats(n), *v = scene_new_floats(n);
        memcpy(k, s.a.k, n * sizeof *k);
        memcpy(v, s.a.v, n * sizeof *v);
        for (size_t i = (size_t)seen * row; i < n; i++) {
            k[i] = i % 2 == 0 ? NAN : INFINITY;
            v[i] = i % 3 == 0 ? NAN : -INFINITY;
        }
        made.k = k;
        made.v = v;
        memset(s.out.data, 0xa7, s.out.bytes);
        matrix_check(m, t2k_attention(&made) == T2K_OK, "%s: poisoned", s.text);
        scene_gather(&s, got);
        matrix_same(m, got, want, (size_t)(part * 2 * dim), "%s: poison not seen", s.text);
        free(k);
        free(v);
    }
    free(got);
    free(want);
    scene_close(m, &s);
}

/* Shared heads of keys and values: the bits of copies of them; the structure's first size: the
 * bits of kv_heads = 0. */
static void grouped_forms(struct matrix *m, int64_t queries, int64_t keys, int64_t dim, int group)
{
    const int64_t heads = 2 * group, size[5] = {queries, keys, 2, heads, dim};
    struct scene s;
    scene_open(&s, &m->rng, size, SEQUENCE_FIRST, MASK_RANDOM, 0);
    float *got = scene_record(m, &s, 0);
    size_t n = scene_floats(&s);
    float *other = scene_new_floats(n);
    t2k_attention_args a = s.a;
    a.size = offsetof(t2k_attention_args, kv_heads);
    a.kv_heads = -7; /* behind the structure */
    memset(s.out.data, 0xa7, s.out.bytes);
    matrix_check(m, t2k_attention(&a) == T2K_OK, "%s: first size", s.text);
    scene_gather(&s, other);
    matrix_same(m, other, got, n, "%s: first size", s.text);
    /* Every head of a group gets the first one's keys and values. */
    const size_t rows = (size_t)(keys * 2), width = (size_t)(heads * dim);
    float *k = scene_new_floats(rows * width), *v = scene_new_floats(rows * width);
    for (size_t i = 0; i < rows * width; i++) {
        const size_t head = i % width / (size_t)dim / (size_t)group;
        const size_t from = i / width * (size_t)s.a.k_item + head * (size_t)dim + i % (size_t)dim;
        k[i] = s.a.k[from];
        v[i] = s.a.v[from];
    }
    a = s.a;
    a.kv_heads = 2;
    memset(s.out.data, 0xa7, s.out.bytes);
    matrix_check(m, t2k_attention(&a) == T2K_OK, "%s: grouped", s.text);
    scene_gather(&s, got);
    a = s.a;
    a.k = k;
    a.v = v;
    a.k_item = a.v_item = (int64_t)width;
    a.k_row = a.v_row = (int64_t)(2 * width);
    memset(s.out.data, 0xa7, s.out.bytes);
    matrix_check(m, t2k_attention(&a) == T2K_OK, "%s: copied", s.text);
    scene_gather(&s, other);
    matrix_same(m, got, other, n, "%s: groups of %d", s.text, group);
    free(k);
    free(v);
    free(other);
    free(got);
    scene_close(m, &s);
}

static void forms(struct matrix *m)
{
    static const int64_t causal[][3] = {{10, 10, 32}, {17, 17, 19}, {1, 70, 33},  {5, 4, 8},
                                        {70, 70, 16}, {3, 130, 5},  {66, 150, 7}, {130, 20, 3},
                                        {1, 61, 64},  {1, 200, 24}, {1, 8, 8},    {5, 5, 32},
                                        {8, 16, 64},  {12, 14, 32}, {16, 16, 64}};
    static const int64_t grouped[][4] = {{1, 70, 19, 3}, {1, 5, 64, 8},  {1, 130, 8, 11},
                                         {2, 65, 16, 2}, {9, 12, 32, 4}, {65, 3, 5, 1}};
    for (size_t i = 0; i < sizeof causal / sizeof causal[0]; i++) {
        causal_forms(m, causal[i][0], causal[i][1], causal[i][2]);
    }
    for (size_t i = 0; i < sizeof grouped / sizeof grouped[0]; i++) {
        grouped_forms(m, grouped[i][0], grouped[i][1], grouped[i][2], (int)grouped[i][3]);
    }
}

static void refused(struct matrix *m)
{
    float x[64] = {0}, out[64] = {0};
    t2k_attention_args good = {.size = sizeof good, .queries = 2, .keys = 2, .items = 2};
    good.heads = good.head_dim = 2;
    good.q = good.k = good.v = x;
    good.out = out;
    scene_layout(&good, SEQUENCE_FIRST);
    matrix_check(m, t2k_attention(NULL) == T2K_ERR_ARG, "NULL arguments");
    matrix_check(m, t2k_attention(&good) == T2K_OK, "good arguments");
    memset(out, 0x55, sizeof out);
#define REFUSED(change)                                                      \
    {                                                                        \
        t2k_attention_args a = good;                                         \
        change;                                                              \
        matrix_check(m, t2k_attention(&a) == T2K_ERR_ARG, "takes " #change); \
    }
    REFUSED(a.size = 8)
    REFUSED(a.queries = -1)
    REFUSED(a.keys = -1)
    REFUSED(a.items = -1)
    REFUSED(a.heads = -1)
    REFUSED(a.head_dim = -1)
    REFUSED(a.head_dim = 1025)
    REFUSED(a.q = NULL)
    REFUSED(a.k = NULL)
    REFUSED(a.v = NULL)
    REFUSED(a.out = NULL)
    REFUSED(a.q_row = -1)
    REFUSED(a.k_item = -8)
    REFUSED(a.v_row = INT64_MAX / 4)
    REFUSED(a.q_item = INT64_MAX)
    REFUSED(a.keys = INT64_MAX)
    REFUSED(a.out_item = 3)
    REFUSED(a.out_row = 4)
    REFUSED(a.mask_kind = T2K_MASK_BOOL)
    REFUSED(a.mask_kind = (t2k_mask_kind)4; a.mask = x)
    REFUSED(a.kv_heads = -1)
    REFUSED(a.kv_heads = 3)
    REFUSED(a.size = offsetof(t2k_attention_args, kv_heads) - 1)
    REFUSED(a.mask_kind = T2K_MASK_ADD; a.mask = x; a.mask_head = -1)
    REFUSED(a.mask_kind = T2K_MASK_ADD; a.mask = x; a.mask_row = INT64_MAX / 2)
    REFUSED(a.empty_row = (t2k_empty_row)2)
#undef REFUSED
    size_t changed = 0;
    for (size_t i = 0; i < sizeof out; i++) {
        changed += ((unsigned char *)out)[i] != 0x55;
    }
    matrix_check(m, changed == 0, "refused calls wrote %zu bytes", changed);
    t2k_attention_args none = {.size = sizeof none, .keys = 5, .items = 2, .heads = 2};
    matrix_check(m, t2k_attention(&none) == T2K_OK, "no queries, NULL pointers");
}

void matrix_attention(struct matrix *m)
{
    static const float poisons[] = {INFINITY, -INFINITY, NAN};
    small_shapes(m);
    short_shapes(m);
    decode_shapes(m);
    for (size_t i = 0; i < 12; i++) {
        poison_case(m, i % 2 == 1, poisons[i / 4], i / 2 % 2 == 1);
    }
    uniform_case(m, -1e9f);
    uniform_case(m, -FLT_MAX);
    uniform_case(m, FLT_MAX);
    single_key_case(m, 8);
    single_key_case(m, 37);
    lowest_scores_case(m);
    extreme_cases(m);
    forms(m);
    refused(m);
    if (m->tier == TIER_FULL) {
        all_shapes(m);
    }
}
