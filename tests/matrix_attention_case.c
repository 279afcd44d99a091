/* Operands of the cases of attention, their masks, and the checks every case goes through. */
#include "matrix_attention_case.h"
#include "ref_attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAD 3 /* floats between the rows of BATCH_FIRST and of out */

static size_t extent(const t2k_attention_args *a, int64_t rows, int64_t row, int64_t item,
                     int64_t heads)
{
    if (rows == 0 || a->items == 0) {
        return 0;
    }
    return (size_t)((rows - 1) * row + (a->items - 1) * item + heads * a->head_dim);
}

void scene_layout(t2k_attention_args *a, enum layout layout)
{
    int64_t width = a->heads * a->head_dim, most = a->queries > a->keys ? a->queries : a->keys;
    int64_t item = layout == JOINT ? 3 * width : width, row = item * a->items;
    if (layout == BATCH_FIRST) {
        row = width + PAD;
        item = row * most;
    }
    a->q_row = a->k_row = a->v_row = row;
    a->q_item = a->k_item = a->v_item = item;
    a->out_row = layout == BATCH_FIRST ? row : width * a->items + PAD;
    a->out_item = layout == BATCH_FIRST ? item : width;
}

/* Which of its four axes the mask really has is random: the others have stride 0. */
static void set_mask(struct scene *s, struct rng *rng, enum mask_style style)
{
    t2k_attention_args *a = &s->a;
    if (style == MASK_OFF) {
        return;
    }
    if (style == MASK_MADE) {
        a->mask_kind = T2K_MASK_CAUSAL;
        return;
    }
    int add = style >= MASK_FINITE;
    int64_t count = a->keys;
    a->mask_kind = add ? T2K_MASK_ADD : T2K_MASK_BOOL;
    uint64_t axes = style == MASK_CAUSAL || style == MASK_EDGE ? 1 : rng_below(rng, 8);
    if (axes & 1) {
        a->mask_row = a->keys;
        count *= a->queries;
    }
    if (axes & 2) {
        a->mask_head = count;
        count *= a->heads;
    }
    if (axes & 4) {
        a->mask_item = count;
        count *= a->items;
    }
    s->mask = guarded_new((size_t)count, add ? sizeof(float) : 1);
    for (int64_t i = 0; i < count; i++) {
        size_t r = rng_below(rng, 30);
        int64_t key = i % a->keys, query = i / a->keys;
        int blocked = style == MASK_RANDOM   ? r < 10
                      : style == MASK_CAUSAL ? key > query
                      : style == MASK_EDGE   ? key > query + a->keys - a->queries
                      : style == MASK_HEAVY  ? r < 28
                      : style == MASK_LOWEST ? r < 12
                                             : style == MASK_ALL || style == MASK_ADD_ALL;
        if (add) {
            float x = 4.0f * rng_uniform(rng);
            ((float *)s->mask.data)[i] = blocked ? -INFINITY : x;
        } else {
            ((uint8_t *)s->mask.data)[i] = blocked ? (uint8_t)(1 + rng_below(rng, 255)) : 0;
        }
    }
    a->mask = s->mask.data;
}

void scene_open(struct scene *s, struct rng *rng, const int64_t size[5], enum layout layout,
                enum mask_style style, int shared)
{
    memset(s, 0, sizeof *s);
    t2k_attention_args *a = &s->a;
    *a = (t2k_attention_args){.size = sizeof *a,
                              .queries = size[0],
                              .keys = size[1],
                              .items = size[2],
                              .heads = size[3],
                              .head_dim = size[4]};
    a->scale = 2.0f / (float)(1 + rng_below(rng, 4));
    a->empty_row = rng_below(rng, 2) ? T2K_EMPTY_ZERO : T2K_EMPTY_NAN;
    if (shared && a->heads > 1 && rng_below(rng, 2)) { /* a divisor of heads */
        a->kv_heads = 1 + (int64_t)rng_below(rng, (uint64_t)a->heads);
        while (a->heads % a->kv_heads != 0) {
            a->kv_heads--;
        }
    }
    scene_layout(a, layout);
    const int64_t kv_heads = a->kv_heads > 0 ? a->kv_heads : a->heads;
    size_t queries = extent(a, a->queries, a->q_row, a->q_item, a->heads);
    size_t keys = extent(a, a->keys, a->k_row, a->k_item, kv_heads);
    size_t both = queries > keys ? queries : keys;
    int64_t width = a->heads * a->head_dim;
    if (layout == JOINT) {
        float *x = guarded_floats(&s->q, both + 2 * (size_t)width);
        rng_fill(rng, x, both + 2 * (size_t)width);
        a->q = x;
        a->k = x + width;
        a->v = x + 2 * width;
    } else {
        a->q = guarded_floats(&s->q, queries);
        a->k = guarded_floats(&s->k, keys);
        a->v = guarded_floats(&s->v, keys);
        rng_fill(rng, s->q.data, queries);
        rng_fill(rng, s->k.data, keys);
        rng_fill(rng, s->v.data, keys);
    }
    set_mask(s, rng, style);
    s->out_floats = extent(a, a->queries, a->out_row, a->out_item, a->heads);
    a->out = guarded_floats(&s->out, s->out_floats);
    snprintf(s->text, sizeof s->text,
             "queries %d keys %d items %d heads %d of %d head_dim %d layout %d mask %d empty %d",
             (int)size[0], (int)size[1], (int)size[2], (int)size[3], (int)a->kv_heads, (int)size[4],
             (int)layout, (int)style, (int)a->empty_row);
}

void scene_close(struct matrix *m, struct scene *s)
{
    struct guarded *all[] = {&s->q, &s->k, &s->v, &s->mask, &s->out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i]->map != NULL) {
            matrix_check(m, guarded_intact(all[i]), "%s: wrote before buffer %zu", s->text, i);
            guarded_free(all[i]);
        }
    }
}

float *scene_new_floats(size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    if (x == NULL) {
        abort();
    }
    return x;
}

size_t scene_floats(const struct scene *s)
{
    const t2k_attention_args *a = &s->a;
    return (size_t)(a->queries * a->items * a->heads * a->head_dim);
}

void scene_gather(const struct scene *s, float *to)
{
    const t2k_attention_args *a = &s->a;
    size_t width = (size_t)(a->heads * a->head_dim);
    for (int64_t l = 0; l < a->queries; l++) {
        for (int64_t n = 0; n < a->items; n++) {
            memcpy(to, a->out + l * a->out_row + n * a->out_item, width * sizeof(float));
            to += width;
        }
    }
}

static float *scene_compute(struct matrix *m, struct scene *s)
{
    float *got = scene_new_floats(scene_floats(s));
    memset(s->out.data, 0xa7, s->out.bytes);
    t2k_status status = t2k_attention(&s->a);
    matrix_check(m, status == T2K_OK, "%s: %s", s->text, t2k_status_str(status));
    scene_gather(s, got);
    return got;
}

/* Everything of out that is not the result keeps its pattern. */
static void check_gaps(struct matrix *m, struct scene *s)
{
    const t2k_attention_args *a = &s->a;
    size_t width = (size_t)(a->heads * a->head_dim), changed = 0;
    for (int64_t l = 0; l < a->queries; l++) {
        for (int64_t n = 0; n < a->items; n++) {
            memset(a->out + l * a->out_row + n * a->out_item, 0xa7, width * sizeof(float));
        }
    }
    for (size_t i = 0; i < s->out.bytes; i++) {
        changed += ((unsigned char *)s->out.data)[i] != 0xa7;
    }
    matrix_check(m, changed == 0, "%s: %zu bytes between rows were written", s->text, changed);
}

void scene_reference(struct matrix *m, const struct scene *s, const float *got)
{
    size_t n = scene_floats(s), worst = n;
    double *ref = malloc((n + 1) * sizeof *ref), *bound = malloc((n + 1) * sizeof *bound);
    if (ref == NULL || bound == NULL) {
        abort();
    }
    ref_attention(&s->a, ref, bound);
    for (size_t i = 0; i < n && worst == n; i++) {
        int ok = isnan(ref[i]) ? isnan(got[i]) : fabs((double)got[i] - ref[i]) <= bound[i];
        worst = ok ? n : i;
    }
    matrix_check(m, worst == n, "%s: element %zu: got %a, reference %a, allowed %a", s->text, worst,
                 worst < n ? (double)got[worst] : 0.0, worst < n ? ref[worst] : 0.0,
                 worst < n ? bound[worst] : 0.0);
    free(ref);
    free(bound);
}

struct team_call {
    const t2k_attention_args *a;
    t2k_status status[8];
};

static void team_body(t2k_team *team, void *arg)
{
    struct team_call *call = arg;
    call->status[t2k_team_rank(team)] = t2k_attention_team(team, call->a);
}

void scene_ways(struct matrix *m, struct scene *s, const float *want)
{
    const t2k_attention_args whole = s->a;
    size_t n = scene_floats(s);
    float *got = scene_new_floats(n);
    memset(s->out.data, 0xa7, s->out.bytes);
    for (int64_t l = 0; l < whole.queries; l++) {
        t2k_attention_args one = whole;
        one.queries = 1;
        one.q = whole.q + l * whole.q_row;
        one.out = whole.out + l * whole.out_row;
        if (whole.mask_kind == T2K_MASK_CAUSAL) { /* with the keys that it sees */
            one.keys = whole.keys - whole.queries + l + 1;
            one.keys = one.keys > 0 ? one.keys : 0;
        } else if (whole.mask_kind == T2K_MASK_BOOL) {
            one.mask = (const uint8_t *)whole.mask + l * whole.mask_row;
        } else if (whole.mask_kind == T2K_MASK_ADD) {
            one.mask = (const float *)whole.mask + l * whole.mask_row;
        }
        matrix_check(m, t2k_attention(&one) == T2K_OK, "%s: query %d alone", s->text, (int)l);
    }
    scene_gather(s, got);
    matrix_same(m, got, want, n, "%s: one query at a time", s->text);
    for (int threads = 1; threads <= 4; threads++) {
        free(got);
        t2k_set_num_threads(threads);
        got = scene_compute(m, s);
        matrix_same(m, got, want, n, "%s: %d threads", s->text, threads);
        struct team_call call = {.a = &s->a};
        memset(s->out.data, 0xa7, s->out.bytes);
        t2k_parallel(threads, team_body, &call);
        for (int i = 0; i < threads; i++) {
            matrix_check(m, call.status[i] == T2K_OK, "%s: team member %d", s->text, i);
        }
        scene_gather(s, got);
        matrix_same(m, got, want, n, "%s: team of %d", s->text, threads);
    }
    t2k_set_num_threads(0);
    free(got);
}

float *scene_record(struct matrix *m, struct scene *s, int full_only)
{
    struct guarded *inputs[] = {&s->q, &s->k, &s->v, &s->mask};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (inputs[i]->map != NULL) {
            guarded_seal(inputs[i]);
        }
    }
    size_t n = scene_floats(s);
    float *got = scene_compute(m, s);
    check_gaps(m, s);
    matrix_result(m, full_only, got, n);
    if (m->isa != 0) {
        matrix_use_scalar(m);
        float *want = scene_compute(m, s);
        matrix_use_tested(m);
        matrix_same(m, got, want, n, "%s: as scalar", s->text);
        free(want);
    }
    return got;
}
