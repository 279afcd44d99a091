/* Gradients of attention: shapes, layouts and masks against the scalar ISA bit for bit and against
 * double; the same bits for any number of threads; the order of sums over queries; blocked pairs
 * that hide infinities and NaN; refused arguments. */
#include "matrix_attention_case.h"
#include "ref_attention_backward.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A forward call with what its gradients need. Results: dq (queries, items, heads, head_dim), then
 * dk and dv (keys, items, kv_heads, head_dim), contiguous. */
struct back {
    struct scene s;
    t2k_attention_backward_args a;
    struct guarded dout, outputs[3];
    int64_t kv_heads;
};

static size_t floats_of(const struct back *b, int output)
{
    const t2k_attention_args *f = &b->s.a;
    const int64_t heads = output == 0 ? f->heads : b->kv_heads;
    return (size_t)((output == 0 ? f->queries : f->keys) * f->items * heads * f->head_dim);
}

static size_t floats(const struct back *b)
{
    return floats_of(b, 0) + 2 * floats_of(b, 1);
}

static size_t extent(const struct back *b, int64_t rows, int64_t row, int64_t item, int64_t heads)
{
    const t2k_attention_args *f = &b->s.a;
    const int64_t last = (rows - 1) * row + (f->items - 1) * item + heads * f->head_dim;
    return rows == 0 || f->items == 0 ? 0 : (size_t)last;
}

static void back_open(struct back *b, struct rng *rng, const int64_t size[5], enum layout layout,
                      enum mask_style style, int shared)
{
    memset(b, 0, sizeof *b);
    scene_open(&b->s, rng, size, layout, style, shared);
    t2k_attention_args *f = &b->s.a;
    b->kv_heads = f->kv_heads > 0 ? f->kv_heads : f->heads;
    t2k_attention_backward_args *a = &b->a;
    *a = (t2k_attention_backward_args){.size = sizeof *a, .of = f};
    f->out = NULL;
    a->dout_row = f->out_row;
    a->dout_item = f->out_item;
    a->dq_row = f->q_row;
    a->dk_row = f->k_row;
    a->dv_row = f->v_row;
    a->dq_item = f->q_item;
    a->dk_item = f->k_item;
    a->dv_item = f->v_item;
    const size_t n = extent(b, f->queries, a->dout_row, a->dout_item, f->heads);
    a->dout = guarded_floats(&b->dout, n);
    rng_fill(rng, b->dout.data, n);
    const size_t queries = extent(b, f->queries, a->dq_row, a->dq_item, f->heads);
    const size_t keys = extent(b, f->keys, a->dk_row, a->dk_item, b->kv_heads);
    if (layout == JOINT) {
        const size_t width = (size_t)(f->heads * f->head_dim);
        float *x = guarded_floats(&b->outputs[0], (queries > keys ? queries : keys) + 2 * width);
        a->dq = x;
        a->dk = x + width;
        a->dv = x + 2 * width;
    } else {
        a->dq = guarded_floats(&b->outputs[0], queries);
        a->dk = guarded_floats(&b->outputs[1], keys);
        a->dv = guarded_floats(&b->outputs[2], keys);
    }
}

static void back_close(struct matrix *m, struct back *b)
{
    struct guarded *all[] = {&b->dout, &b->outputs[0], &b->outputs[1], &b->outputs[2]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i]->map != NULL) {
            matrix_check(m, guarded_intact(all[i]), "%s: wrote before gradient %zu", b->s.text, i);
            guarded_free(all[i]);
        }
    }
    scene_close(m, &b->s);
}

/* Copies the results out and puts the pattern in their place. */
static void gather(const struct back *b, float *to)
{
    const t2k_attention_args *f = &b->s.a;
    const t2k_attention_backward_args *a = &b->a;
    float *const from[] = {a->dq, a->dk, a->dv};
    const int64_t row[] = {a->dq_row, a->dk_row, a->dv_row};
    const int64_t item[] = {a->dq_item, a->dk_item, a->dv_item};
    for (int i = 0; i < 3; i++) {
        const size_t width = (size_t)((i == 0 ? f->heads : b->kv_heads) * f->head_dim);
        for (int64_t l = 0; l < (i == 0 ? f->queries : f->keys); l++) {
            for (int64_t n = 0; n < f->items; n++) {
                float *x = from[i] + l * row[i] + n * item[i];
                memcpy(to, x, width * sizeof(float));
                memset(x, 0xa7, width * sizeof(float));
                to += width;
            }
        }
    }
}

static void poison(struct back *b)
{
    for (int i = 0; i < 3; i++) {
        if (b->outputs[i].map != NULL) {
            memset(b->outputs[i].data, 0xa7, b->outputs[i].bytes);
        }
    }
}

/* The gradients; what lies between the rows of the outputs keeps its pattern. */
static float *compute(struct matrix *m, struct back *b)
{
    float *got = scene_new_floats(floats(b));
    poison(b);
    t2k_status status = t2k_attention_backward(&b->a);
    matrix_check(m, status == T2K_OK, "%s: %s", b->s.text, t2k_status_str(status));
    gather(b, got);
    size_t changed = 0;
    for (int i = 0; i < 3; i++) {
        for (size_t j = 0; b->outputs[i].map != NULL && j < b->outputs[i].bytes; j++) {
            changed += ((unsigned char *)b->outputs[i].data)[j] != 0xa7;
        }
    }
    matrix_check(m, changed == 0, "%s: %zu bytes between rows were written", b->s.text, changed);
    return got;
}

/* Computes, records, and compares with the scalar ISA. The caller frees the result. */
static float *record(struct matrix *m, struct back *b, int full_only)
{
    struct guarded *inputs[] = {&b->s.q, &b->s.k, &b->s.v, &b->s.mask, &b->dout};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (inputs[i]->map != NULL) {
            guarded_seal(inputs[i]);
        }
    }
    float *got = compute(m, b);
    matrix_result(m, full_only, got, floats(b));
    if (m->isa != 0) {
        matrix_use_scalar(m);
        float *want = compute(m, b);
        matrix_use_tested(m);
        matrix_same(m, got, want, floats(b), "%s: gradients as scalar", b->s.text);
        free(want);
    }
    return got;
}

static void reference(struct matrix *m, const struct back *b, const float *got)
{
    const size_t n = floats(b), first[] = {0, floats_of(b, 0), floats_of(b, 0) + floats_of(b, 1)};
    double *space = malloc(2 * (n + 1) * sizeof *space), *out[3][2];
    if (space == NULL) {
        abort();
    }
    for (int i = 0; i < 3; i++) {
        out[i][0] = space + first[i];
        out[i][1] = space + n + first[i];
    }
    ref_attention_backward(&b->a, out[0], out[1], out[2]);
    size_t worst = n;
    for (size_t i = 0; i < n && worst == n; i++) {
        const double ref = space[i];
        const int ok = isnan(ref) ? isnan(got[i]) : fabs((double)got[i] - ref) <= space[n + i];
        worst = ok ? n : i;
    }
    matrix_check(m, worst == n, "%s: gradient %zu of %zu: got %a, reference %a, allowed %a",
                 b->s.text, worst, n, worst < n ? (double)got[worst] : 0.0,
                 worst < n ? space[worst] : 0.0, worst < n ? space[n + worst] : 0.0);
    free(space);
}

struct team_call {
    const t2k_attention_backward_args *a;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *call = arg;
    call->status[t2k_team_rank(team)] = t2k_attention_backward_team(team, call->a);
}

/* 1 to 4 threads and the collective form: the bits of `want`. */
static void ways(struct matrix *m, struct back *b, const float *want)
{
    const size_t n = floats(b);
    for (int threads = 1; threads <= 4; threads++) {
        t2k_set_num_threads(threads);
        float *got = compute(m, b);
        matrix_same(m, got, want, n, "%s: gradients on %d threads", b->s.text, threads);
        struct team_call call = {.a = &b->a};
        poison(b);
        t2k_parallel(threads, team_body, &call);
        for (int i = 0; i < threads; i++) {
            matrix_check(m, call.status[i] == T2K_OK, "%s: team member %d", b->s.text, i);
        }
        gather(b, got);
        matrix_same(m, got, want, n, "%s: gradients of a team of %d", b->s.text, threads);
        free(got);
    }
    t2k_set_num_threads(0);
}

/* ---- shapes --------------------------------------------------------------------------------- */

static void one_case(struct matrix *m, int full_only, const int64_t size[5], enum mask_style style)
{
    struct back b;
    const enum layout layout = (enum layout)rng_below(&m->rng, LAYOUTS);
    back_open(&b, &m->rng, size, layout, size[1] > 0 ? style : MASK_OFF, 1);
    float *got = record(m, &b, full_only);
    if (m->isa == 0) {
        reference(m, &b, got);
    }
    if (rng_below(&m->rng, 4) == 0) {
        ways(m, &b, got);
    }
    free(got);
    back_close(m, &b);
}

static void shape_case(struct matrix *m, int full_only, int64_t queries, int64_t keys, int64_t dim,
                       int64_t budget)
{
    int64_t size[5] = {queries, keys, 1 + (int64_t)rng_below(&m->rng, 3),
                       1 + (int64_t)rng_below(&m->rng, 6), dim};
    const int64_t one = (queries + 4) * (keys + 4) * dim;
    while (size[2] * size[3] > 1 && size[2] * size[3] * one > budget) {
        size[size[2] > size[3] ? 2 : 3]--;
    }
    one_case(m, full_only, size, (enum mask_style)rng_below(&m->rng, MASK_STYLES));
}

static const int64_t sizes[] = {1, 2, 3, 5, 8, 10, 14, 16, 17, 63, 64, 65, 130, 257};
static const int64_t dims[] = {1, 3, 8, 16, 32, 33, 64, 128, 1024};

static void shapes(struct matrix *m)
{
    const size_t count = 13;
    for (size_t i = 0; i <= count; i++) { /* the last ones are no queries and no keys at all */
        for (size_t j = 0; j <= count; j++) {
            const int64_t queries = i < count ? sizes[i] : 0, keys = j < count ? sizes[j] : 0;
            const int64_t dim = dims[rng_below(&m->rng, queries * keys > 1000 ? 4 : 8)];
            shape_case(m, 0, queries, keys, dim, 40000);
        }
    }
    for (int style = 0; style < MASK_STYLES; style++) { /* more keys than are kept */
        const int64_t size[5] = {style % 2 == 0 ? 3 : 18, 1030 + 61 * (style % 3), 1, 2, 5};
        one_case(m, 0, size, (enum mask_style)style);
    }
}

static void all_shapes(struct matrix *m)
{
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            for (size_t k = 0; k < sizeof dims / sizeof dims[0]; k++) {
                if (sizes[i] * sizes[j] * dims[k] < 3000000) {
                    shape_case(m, 1, sizes[i], sizes[j], dims[k], 300000);
                }
            }
        }
    }
    const int64_t size[5] = {150, 1400, 1, 1, 40};
    for (int style = 0; style < MASK_STYLES; style++) {
        one_case(m, 1, size, (enum mask_style)style);
    }
}

/* ---- order of sums -------------------------------------------------------------------------- */

/* Blocks of 64 queries, one after another, alone: dq is theirs, dk and dv of all are the sums of
 * theirs in rising order. So are those of the heads of a group, each with keys of its own. */
static void parts_case(struct matrix *m, int64_t queries, int64_t keys, int64_t dim, int group)
{
    const int64_t size[5] = {queries, keys, 1, 2 * group, dim}, heads = 2 * group;
    struct back b;
    back_open(&b, &m->rng, size, SEQUENCE_FIRST, MASK_LOWEST, 0);
    b.kv_heads = b.s.a.kv_heads = 2;
    float *want = record(m, &b, 0), *got = scene_new_floats(floats(&b));
    const t2k_attention_args whole = b.s.a;
    const t2k_attention_backward_args all = b.a;
    t2k_attention_args part = whole;
    t2k_attention_backward_args one = all;
    const size_t kv = (size_t)(keys * dim), n = floats_of(&b, 0), kv_n = floats_of(&b, 1);
    float *dkv = scene_new_floats(2 * kv);
    memset(got, 0, floats(&b) * sizeof *got);
    one.of = &part;
    part.heads = part.kv_heads = 1;
    one.dk = dkv;
    one.dv = dkv + kv;
    one.dk_row = one.dv_row = dim;
    one.dq_row = heads * dim;
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t l = 0; l < queries; l += 64) {
            part.queries = queries - l < 64 ? queries - l : 64;
            part.q = whole.q + l * whole.q_row + head * dim;
            part.k = whole.k + head / group * dim;
            part.v = whole.v + head / group * dim;
            part.mask = (const float *)whole.mask + l * whole.mask_row + head * whole.mask_head;
            one.dout = all.dout + l * all.dout_row + head * dim;
            one.dq = got + (l * heads + head) * dim;
            matrix_check(m, t2k_attention_backward(&one) == T2K_OK, "%s: a part", b.s.text);
            for (size_t i = 0; i < 2 * kv; i++) {
                const size_t row = i % kv / (size_t)dim, c = i % (size_t)dim;
                const size_t at = (2 * row + (size_t)(head / group)) * (size_t)dim + c;
                got[n + i / kv * kv_n + at] += dkv[i];
            }
        }
    }
    matrix_same(m, got, want, floats(&b), "%s: the sum of parts", b.s.text);
    free(dkv);
    free(got);
    free(want);
    back_close(m, &b);
}

/* A first block whose weights vanish in the end gives the bits of a blocked one. The block before
 * the last is kept where that is blocked, else computed again; the maximum rises in the last. */
static void kept_case(struct matrix *m)
{
    const int64_t size[5] = {5, 18 * 64, 1, 1, 6};
    struct back b;
    back_open(&b, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    b.s.mask = guarded_new(18 * 64, sizeof(float));
    float *mask = b.s.mask.data;
    b.s.a.mask = mask;
    b.s.a.mask_kind = T2K_MASK_ADD;
    for (int key = 0; key < 18 * 64; key++) {
        mask[key] = key < 64 ? -INFINITY : (float)(key / 64 % 3 + key / (17 * 64) * 3);
    }
    float *want = compute(m, &b);
    for (int key = 0; key < 64; key++) {
        mask[key] = -200.0f;
    }
    float *got = record(m, &b, 0);
    matrix_same(m, got, want, floats(&b), "%s: blocks computed again", b.s.text);
    free(got);
    free(want);
    back_close(m, &b);
}

/* The triangle as a matrix and as a kind of mask. */
static void causal_case(struct matrix *m, int64_t queries, int64_t keys, int64_t dim)
{
    const int64_t size[5] = {queries, keys, 2, 2, dim};
    struct back b;
    back_open(&b, &m->rng, size, SEQUENCE_FIRST, MASK_EDGE, 1);
    float *want = record(m, &b, 0);
    b.s.a.mask_kind = T2K_MASK_CAUSAL;
    b.s.a.mask = NULL;
    float *got = compute(m, &b);
    matrix_same(m, got, want, floats(&b), "%s: causal without a matrix", b.s.text);
    free(got);
    free(want);
    back_close(m, &b);
}

/* ---- special values ------------------------------------------------------------------------- */

enum { Q, K, V, DOUT, OPERANDS };

static int is_blocked(int query, int key)
{
    return query == 7 ? key >= 30 : query % 2 == 0 && (key == 5 || key == 66);
}

/* A poisoned row of keys must not reach a query for which it is blocked; one of queries not a key
 * that is blocked for it. What sees it becomes NaN, unless only a single channel can. */
static void poison_case(struct matrix *m, enum mask_style style, int operand, float value)
{
    const int64_t size[5] = {11, 70, 1, 1, 19};
    struct back clean, dirty;
    struct rng copy = m->rng;
    back_open(&clean, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    back_open(&dirty, &copy, size, SEQUENCE_FIRST, MASK_OFF, 0);
    const int additive = style == MASK_LOWEST, of_key = operand == K || operand == V;
    struct guarded mask = guarded_new(11 * 70, additive ? sizeof(float) : 1);
    for (int i = 0; i < 11 * 70; i++) {
        if (additive) {
            ((float *)mask.data)[i] = is_blocked(i / 70, i % 70) ? -INFINITY : 0.25f;
        } else {
            ((uint8_t *)mask.data)[i] = (uint8_t)is_blocked(i / 70, i % 70);
        }
    }
    clean.s.a.mask = dirty.s.a.mask = mask.data;
    clean.s.a.mask_kind = dirty.s.a.mask_kind = additive ? T2K_MASK_ADD : T2K_MASK_BOOL;
    clean.s.a.mask_row = dirty.s.a.mask_row = 70;
    float *rows[] = {dirty.s.q.data, dirty.s.k.data, dirty.s.v.data, dirty.dout.data};
    const int64_t strides[] = {dirty.s.a.q_row, dirty.s.a.k_row, dirty.s.a.v_row, dirty.a.dout_row};
    rows[operand][(of_key ? 66 : 7) * strides[operand] + 18] = value;
    float *want = record(m, &clean, 0), *got = record(m, &dirty, 0);
    for (int l = 0; l < 11; l++) {
        const float *here = got + l * 19;
        if (of_key ? is_blocked(l, 66) : l != 7) {
            matrix_same(m, here, want + l * 19, 19, "operand %d, %g hidden from query %d", operand,
                        (double)value, l);
        } else if (isnan(value)) {
            matrix_check(m, isnan(here[0]), "operand %d: query %d must be NaN", operand, l);
        }
    }
    for (int key = 0; key < 70 && !of_key; key++) {
        const size_t dk = (size_t)(11 + key) * 19, dv = dk + 70 * 19;
        if (is_blocked(7, key)) {
            matrix_same(m, got + dk, want + dk, 19, "operand %d: dk %d", operand, key);
            matrix_same(m, got + dv, want + dv, 19, "operand %d: dv %d", operand, key);
        } else if (isnan(value)) {
            matrix_check(m, isnan(got[dk + 18]) && isnan(got[dv + 18]),
                         "operand %d: dk and dv %d must be NaN", operand, key);
        }
    }
    free(want);
    free(got);
    guarded_free(&mask);
    back_close(m, &clean);
    back_close(m, &dirty);
}

/* Magnitudes that overflow or underflow, and non-finite operands anywhere: as scalar. */
static void extreme_cases(struct matrix *m)
{
    static const float factors[] = {1e15f, 1e19f, 1e30f, 1e-22f, 1e-40f, FLT_MAX};
    static const float odd[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, 0x1p-149f, -0.0f};
    const int64_t size[5] = {17, 75, 1, 2, 9};
    for (size_t i = 0; i < 64; i++) {
        struct back b;
        const enum mask_style style = (enum mask_style)rng_below(&m->rng, MASK_STYLES);
        back_open(&b, &m->rng, size, SEQUENCE_FIRST, style, 1);
        struct guarded *parts[] = {&b.s.q, &b.s.k, &b.s.v, &b.dout};
        float *x = parts[i % OPERANDS]->data;
        const size_t n = parts[i % OPERANDS]->bytes / sizeof(float);
        for (size_t j = 0; j < n && i < 24; j++) {
            x[j] *= factors[i / OPERANDS];
        }
        for (size_t j = 0; j < 1 + i % 4 && i >= 24; j++) {
            x[rng_below(&m->rng, n)] = odd[rng_below(&m->rng, 7)];
        }
        float *got = record(m, &b, 0);
        ways(m, &b, got);
        free(got);
        back_close(m, &b);
    }
}

/* Scores of -Inf by arithmetic only: dq is NaN whatever empty_row says, dk and dv get nothing. */
static void lowest_scores_case(struct matrix *m)
{
    const int64_t size[5] = {6, 80, 1, 1, 5};
    struct back b;
    back_open(&b, &m->rng, size, SEQUENCE_FIRST, MASK_OFF, 0);
    b.s.a.empty_row = T2K_EMPTY_ZERO;
    for (int i = 0; i < 30; i++) {
        ((float *)b.s.q.data)[i] = fabsf(((float *)b.s.q.data)[i]) + 0.5f;
    }
    for (int key = 0; key < 80; key++) {
        ((float *)b.s.k.data)[key * 5] = -INFINITY;
    }
    float *got = record(m, &b, 0);
    size_t numbers = 0, zeros = 0;
    for (size_t i = 0; i < floats(&b); i++) {
        numbers += i < 30 && !isnan(got[i]);
        zeros += i >= 30 && bits_of(got[i]) == 0;
    }
    matrix_check(m, numbers == 0, "only scores of -Inf: %zu of dq are numbers", numbers);
    matrix_check(m, zeros == 800, "only scores of -Inf: %zu of 800 are +0", zeros);
    free(got);
    back_close(m, &b);
}

static void refused(struct matrix *m)
{
    float x[64] = {0}, out[3][64];
    t2k_attention_args of = {.size = sizeof of, .queries = 2, .keys = 2, .items = 2};
    of.heads = of.head_dim = 2;
    of.q = of.k = of.v = x;
    scene_layout(&of, SEQUENCE_FIRST);
    const t2k_attention_args good_of = of;
    t2k_attention_backward_args good = {
        .size = sizeof good, .of = &of, .dout = x, .dq = out[0], .dk = out[1], .dv = out[2]};
    good.dout_row = good.dq_row = good.dk_row = good.dv_row = of.q_row;
    good.dout_item = good.dq_item = good.dk_item = good.dv_item = of.q_item;
    matrix_check(m, t2k_attention_backward(NULL) == T2K_ERR_ARG, "NULL arguments");
    matrix_check(m, t2k_attention_backward(&good) == T2K_OK, "good arguments");
    memset(out, 0x55, sizeof out);
#define REFUSED(change)                                                               \
    {                                                                                 \
        t2k_attention_backward_args a = good;                                         \
        of = good_of;                                                                 \
        change;                                                                       \
        matrix_check(m, t2k_attention_backward(&a) == T2K_ERR_ARG, "takes " #change); \
    }
    REFUSED(a.size = 8)
    REFUSED(a.of = NULL)
    REFUSED(a.dout = NULL)
    REFUSED(a.dq = NULL)
    REFUSED(a.dk = NULL)
    REFUSED(a.dv = NULL)
    REFUSED(a.dout_row = -1)
    REFUSED(a.dout_row = INT64_MAX / 4)
    REFUSED(a.dq_item = 3)
    REFUSED(a.dk_row = 4)
    REFUSED(a.dv_row = -1)
    REFUSED(a.dv_item = INT64_MAX)
    REFUSED(of.size = 8)
    REFUSED(of.queries = -1)
    REFUSED(of.head_dim = 1025)
    REFUSED(of.k = NULL)
    REFUSED(of.v_item = -1)
    REFUSED(of.kv_heads = 3)
    REFUSED(of.heads = INT64_MAX)
    REFUSED(of.mask_kind = T2K_MASK_ADD)
    REFUSED(of.empty_row = (t2k_empty_row)2)
#undef REFUSED
    size_t changed = 0;
    for (size_t i = 0; i < sizeof out; i++) {
        changed += ((unsigned char *)out)[i] != 0x55;
    }
    matrix_check(m, changed == 0, "refused calls wrote %zu bytes", changed);
    t2k_attention_args empty = {.size = sizeof empty, .keys = 5, .heads = 2};
    t2k_attention_backward_args none = {.size = sizeof none, .of = &empty};
    matrix_check(m, t2k_attention_backward(&none) == T2K_OK, "no items, NULL pointers");
}

void matrix_attention_backward(struct matrix *m)
{
    static const float values[] = {INFINITY, -INFINITY, NAN};
    shapes(m);
    parts_case(m, 130, 70, 9, 1);
    parts_case(m, 65, 20, 16, 2);
    parts_case(m, 20, 1090, 3, 3);
    kept_case(m);
    causal_case(m, 14, 14, 16);
    causal_case(m, 70, 70, 8);
    causal_case(m, 40, 150, 17);
    for (int i = 0; i < 24; i++) {
        poison_case(m, i % 2 == 0 ? MASK_RANDOM : MASK_LOWEST, i / 2 % OPERANDS, values[i / 8]);
    }
    extreme_cases(m);
    lowest_scores_case(m);
    refused(m);
    if (m->tier == TIER_FULL) {
        all_shapes(m);
    }
}
