/* Decoding with a cache: the same bits as full passes, however positions are split into calls and
 * whatever items come along; what is refused; and generation on top of it. */
#include "check.h"
#include "model_file.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>

#define CHARS "runtime/models/t2-chars"
enum { ITEMS = 5, MOST = 150 };

struct world {
    t2_model *model;
    t2_session *session;
    t2_cache *cache;
    int64_t V;
    t2_error err;
    int64_t ids[ITEMS][MOST]; /* of each item */
    int64_t rows[ITEMS];      /* its expert */
    int64_t expert;
    const t2_adaptation *adaptation;
    float *full[ITEMS]; /* (MOST, V) by a full pass of the item alone */
};

TestSuite(cache, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

static void open_world(struct world *w, const char *dir, int64_t room, struct rng *rng)
{
    memset(w, 0, sizeof *w);
    cr_assert_eq(t2_model_open(dir, 0, &w->model, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(t2_session_create(w->model, 0, &w->session, &w->err), T2_OK);
    cr_assert_eq(t2_cache_create(w->model, room, ITEMS, &w->cache, &w->err), T2_OK);
    w->V = t2_model_config(w->model)->vocab_size;
    w->expert = T2_EXPERT_AUTO;
    for (int n = 0; n < ITEMS; n++) {
        w->full[n] = malloc((size_t)(MOST * w->V) * sizeof(float));
        for (int l = 0; l < MOST; l++) {
            w->ids[n][l] = (int64_t)rng_below(rng, (size_t)w->V);
        }
    }
}

static void close_world(struct world *w)
{
    t2_cache_destroy(w->cache);
    t2_session_destroy(w->session);
    t2_model_close(w->model);
    for (int n = 0; n < ITEMS; n++) {
        free(w->full[n]);
    }
}

/* Each item alone, all positions at once. */
static void compute_full(struct world *w, int64_t length)
{
    for (int n = 0; n < ITEMS; n++) {
        int64_t rows[MOST];
        for (int l = 0; l < MOST; l++) {
            rows[l] = w->rows[n];
        }
        t2_forward_args args = {.size = sizeof args,
                                .ids = w->ids[n],
                                .length = length,
                                .items = 1,
                                .mask = {.kind = T2_MASK_CAUSAL},
                                .expert = w->expert,
                                .threads = 1,
                                .logits = w->full[n],
                                .adaptation = w->adaptation,
                                .expert_rows = w->adaptation != NULL ? rows : NULL};
        cr_assert_eq(t2_forward(w->session, &args, &w->err), T2_OK, "%s", w->err.message);
    }
}

/* `length` more positions of items first ... first + items - 1; item i of the cache continues
 * sequence which[i]. Logits of the positions from `from` on are compared. */
static t2_status step(struct world *w, const int *which, int64_t first, int64_t items,
                      int64_t length, int64_t from, int threads)
{
    int64_t ids[MOST * ITEMS], rows[MOST * ITEMS], before[ITEMS] = {0};
    for (int64_t n = 0; n < items; n++) {
        before[n] = t2_cache_length(w->cache, first + n);
        int64_t at = before[n] >= 0 ? before[n] : 0; /* where there is no such item */
        for (int64_t t = 0; t < length; t++) {
            ids[t * items + n] = w->ids[which[first + n]][(at + t) % MOST];
            rows[t * items + n] = w->rows[which[first + n]];
        }
    }
    float *logits = malloc((size_t)(length * items * w->V) * sizeof(float));
    t2_forward_args args = {.size = sizeof args,
                            .ids = ids,
                            .length = length,
                            .items = items,
                            .mask = {.kind = T2_MASK_CAUSAL},
                            .expert = w->expert,
                            .threads = threads,
                            .first = from,
                            .logits = logits,
                            .adaptation = w->adaptation,
                            .expert_rows = w->adaptation != NULL ? rows : NULL,
                            .cache = w->cache,
                            .cache_item = first};
    t2_status status = t2_forward(w->session, &args, &w->err);
    for (int64_t n = 0; n < items; n++) {
        int64_t now = t2_cache_length(w->cache, first + n);
        cr_assert_eq(now, before[n] + (status == T2_OK ? length : 0));
        for (int64_t t = from; t < length && status == T2_OK; t++) {
            const float *got = logits + ((t - from) * items + n) * w->V;
            const float *want = w->full[which[first + n]] + (before[n] + t) * w->V;
            cr_assert_eq(first_difference(got, want, (size_t)w->V), (size_t)w->V,
                         "item %d, position %d of a step of %d after %d, %d threads", (int)n,
                         (int)t, (int)length, (int)before[n], threads);
        }
    }
    free(logits);
    return status;
}

static int64_t longest(const struct world *w, int64_t first, int64_t items)
{
    int64_t most = 0;
    for (int64_t n = first; n < first + items; n++) {
        int64_t length = t2_cache_length(w->cache, n);
        most = length > most ? length : most;
    }
    return most;
}

/* Random steps until every item is full; items are of different lengths on the way, and are left
 * out or repeated. */
static void fuzz(struct world *w, struct rng *rng, int64_t room)
{
    int which[ITEMS] = {0, 1, 2, 3, 4};
    t2_cache_reset(w->cache);
    compute_full(w, room);
    for (int turn = 0; turn < 1000; turn++) {
        int64_t first = (int64_t)rng_below(rng, ITEMS);
        int64_t items = 1 + (int64_t)rng_below(rng, (size_t)(ITEMS - first));
        if (turn % 3 == 2) {
            first = 0;
            items = ITEMS;
        }
        int64_t left = room - longest(w, first, items);
        int64_t length = 1 + (int64_t)rng_below(rng, rng_below(rng, 2) ? 3 : (size_t)room / 2);
        length = length < left ? length : left;
        if (length > 0) {
            int64_t from = (int64_t)rng_below(rng, (size_t)length + 1);
            cr_assert_eq(step(w, which, first, items, length, from, 1 + turn % 3), T2_OK, "%s",
                         w->err.message);
        } else if (longest(w, 0, ITEMS) == room && rng_below(rng, 4) == 0) {
            break;
        }
        if (rng_below(rng, 3) == 0) { /* a list that does not fall */
            int64_t from[ITEMS], count = 1 + (int64_t)rng_below(rng, ITEMS);
            int chosen[ITEMS] = {0};
            for (int64_t i = 0, at = 0; i < count; i++) {
                at += (int64_t)rng_below(rng, 2 + (size_t)(i == 0));
                from[i] = at = at < ITEMS ? at : ITEMS - 1;
                chosen[i] = which[at];
            }
            cr_assert_eq(t2_cache_select(w->cache, from, count, &w->err), T2_OK);
            for (int64_t i = count; i < ITEMS; i++) {
                cr_assert_eq(t2_cache_length(w->cache, i), 0);
                chosen[i] = (int)rng_below(rng, ITEMS);
            }
            memcpy(which, chosen, sizeof which);
        }
    }
}

/* A random model in the test's folder: heads of 6 channels, several blocks of keys. */
static void random_model(int64_t embed, int64_t heads)
{
    t2_config config = model_file_config();
    t2_error err = {T2_OK, ""};
    config.embed_size = embed;
    config.heads = heads;
    config.mask = T2_MODEL_MASK_CAUSAL;
    cr_assert_eq(t2_init_model(temp_dir, &config, 3, &err), T2_OK, "%s", err.message);
}

Test(cache, splits)
{
    struct rng rng = {check_seed()};
    struct world w;
    open_world(&w, CHARS, 16, &rng);
    for (int i = 0; i < 6; i++) {
        fuzz(&w, &rng, 16);
    }
    close_world(&w);
    static const int64_t sizes[][2] = {{24, 4}, {64, 2}, {33, 1}};
    for (int i = 0; i < 3; i++) {
        random_model(sizes[i][0], sizes[i][1]);
        open_world(&w, temp_dir, MOST, &rng);
        fuzz(&w, &rng, MOST);
        close_world(&w);
    }
}

/* A small cache grows under what it holds. */
Test(cache, reserve)
{
    struct rng rng = {check_seed()};
    struct world w;
    int which[ITEMS] = {4, 3, 2, 1, 0};
    random_model(24, 4);
    open_world(&w, temp_dir, 1, &rng);
    compute_full(&w, 40);
    for (int64_t length = 1; length <= 40; length++) {
        cr_assert_eq(t2_cache_reserve(w.cache, length, &w.err), T2_OK);
        cr_assert_eq(step(&w, which, 0, ITEMS, 1, 0, 2), T2_OK, "%s", w.err.message);
    }
    /* 3 layers of keys and values. */
    size_t data = 3 * 2 * ITEMS * 40 * 24 * sizeof(float);
    cr_expect(t2_cache_bytes(w.cache) >= data && t2_cache_bytes(w.cache) < data + 1000);
    close_world(&w);
}

/* ---- experts --------------------------------------------------------------------------------- */

enum { EXPERTS = 3 };

struct experts {
    t2_factors *factors;
    t2_adapter *adapter;
    t2_expert *svf[EXPERTS], *channel;
};

static void open_experts(struct experts *x, struct world *w)
{
    static const t2_expert_form svf = {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
    static const t2_expert_form channel = {T2_EXPERT_CHANNEL, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
    const char *path = temp_path("f.safetensors");
    t2_svd_args args = {
        .size = sizeof args, .model = CHARS, .out = path, .modules = "mlp,attention", .jobs = 1};
    cr_assert_eq(t2_svd_run(&args, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(t2_factors_open(path, 0, &x->factors, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(t2_adapter_create(w->model, x->factors, 0, &x->adapter, &w->err), T2_OK, "%s",
                 w->err.message);
    for (uint64_t k = 0; k < EXPERTS; k++) {
        cr_assert_eq(t2_expert_new(&svf, "x", x->factors, NULL, 0.3, k, &x->svf[k], &w->err), T2_OK,
                     "%s", w->err.message);
    }
    cr_assert_eq(t2_expert_new(&channel, "c", NULL, w->model, 0.3, 9, &x->channel, &w->err), T2_OK);
}

static void close_experts(struct experts *x)
{
    t2_adapter_destroy(x->adapter);
    for (int k = 0; k < EXPERTS; k++) {
        t2_expert_release(x->svf[k]);
    }
    t2_expert_release(x->channel);
    t2_factors_close(x->factors);
}

static t2_adaptation *adapt(const struct experts *x, t2_expert *const *list, int64_t count,
                            t2_way way)
{
    t2_adaptation *made = NULL;
    t2_error err = {T2_OK, ""};
    t2_adapt_args args = {
        .size = sizeof args, .experts = (const t2_expert *const *)list, .count = count, .way = way};
    cr_assert_eq(t2_adaptation_create(x->adapter, &args, &made, &err), T2_OK, "%s", err.message);
    return made;
}

Test(cache, experts)
{
    struct rng rng = {check_seed()};
    struct world w;
    struct experts x;
    open_world(&w, CHARS, 16, &rng);
    open_experts(&x, &w);
    for (t2_way way = T2_WAY_REBUILD; way <= T2_WAY_DELTA; way++) {
        t2_adaptation *one = adapt(&x, &x.svf[0], 1, way);
        w.adaptation = one;
        memset(w.rows, 0, sizeof w.rows);
        fuzz(&w, &rng, 16);
        cr_expect_eq(t2_cache_tag(w.cache), t2_adaptation_tag(one));
        t2_adaptation_release(one);
        if (way != T2_WAY_REBUILD) {
            t2_adaptation *all = adapt(&x, x.svf, EXPERTS, way);
            w.adaptation = all;
            for (int n = 0; n < ITEMS; n++) {
                w.rows[n] = n % (EXPERTS + 1) - 1;
            }
            fuzz(&w, &rng, 16);
            t2_adaptation_release(all);
        }
    }
    t2_adaptation *channel = adapt(&x, &x.channel, 1, T2_WAY_PLAN);
    w.adaptation = channel;
    for (int n = 0; n < ITEMS; n++) {
        w.rows[n] = n % 2 - 1;
    }
    fuzz(&w, &rng, 16);
    t2_adaptation_release(channel);
    close_experts(&x);
    close_world(&w);
}

static void expect_refused(struct world *w, const int *which, int64_t first, int64_t items,
                           int64_t length, const char *part)
{
    cr_expect_eq(step(w, which, first, items, length, 0, 1), T2_ERR_ARG, "%s", part);
    cr_expect_not_null(strstr(w->err.message, part), "%s", w->err.message);
}

/* State of one expert is not continued under another one. */
Test(cache, tagged)
{
    struct rng rng = {check_seed()};
    struct world w;
    struct experts x;
    const int which[ITEMS] = {0, 1, 2, 3, 4}, swapped[ITEMS] = {1, 0, 2, 3, 4};
    open_world(&w, CHARS, 16, &rng);
    open_experts(&x, &w);
    t2_adaptation *all = adapt(&x, x.svf, EXPERTS, T2_WAY_FACTORED);
    t2_adaptation *same = adapt(&x, x.svf, EXPERTS, T2_WAY_FACTORED);
    compute_full(&w, 16);
    cr_assert_eq(step(&w, which, 0, 2, 3, 0, 1), T2_OK);
    w.adaptation = all;
    expect_refused(&w, which, 0, 2, 3, "another expert");
    expect_refused(&w, which, 2, 2, 3, "another expert"); /* not beside them either */
    w.adaptation = NULL;
    w.expert = 1;
    expect_refused(&w, which, 0, 2, 3, "another expert");
    w.expert = T2_EXPERT_AUTO;
    cr_assert_eq(step(&w, which, 0, 2, 3, 0, 1), T2_OK);
    t2_cache_reset(w.cache);
    w.adaptation = all;
    for (int n = 0; n < ITEMS; n++) {
        w.rows[n] = n % EXPERTS;
    }
    compute_full(&w, 16);
    cr_assert_eq(step(&w, which, 0, 2, 3, 0, 1), T2_OK);
    expect_refused(&w, swapped, 0, 2, 3, "row 0 of the adaptation, this call has row 1");
    w.adaptation = same;
    expect_refused(&w, which, 0, 2, 3, "another expert");
    w.adaptation = NULL;
    expect_refused(&w, which, 0, 2, 3, "another expert");
    w.adaptation = all;
    cr_assert_eq(step(&w, which, 0, 2, 3, 0, 1), T2_OK, "%s", w.err.message);
    t2_adaptation_release(all);
    t2_adaptation_release(same);
    close_experts(&x);
    close_world(&w);
}

/* ---- the model's own choice ------------------------------------------------------------------ */

static int change_scale(t2_tensor *tensor)
{
    float *scale = (float *)(uintptr_t)tensor->data;
    scale[5] = 0.5f;
    return 1;
}

Test(cache, automatic_choice)
{
    struct rng rng = {check_seed()};
    struct world w;
    const int which[ITEMS] = {0, 1, 2, 3, 4};
    random_model(24, 4);
    model_file_change(temp_dir, "layers.1.experts.2.scale_vector", change_scale);
    open_world(&w, temp_dir, MOST, &rng);
    expect_refused(&w, which, 0, 2, 3, "layer 1 chooses among experts that differ");
    for (w.expert = 0; w.expert < 3; w.expert++) {
        fuzz(&w, &rng, MOST);
    }
    close_world(&w);
    /* All alike, but not 1: the choice changes nothing. */
    model_file_change(temp_dir, "layers.1.experts.0.scale_vector", change_scale);
    model_file_change(temp_dir, "layers.1.experts.1.scale_vector", change_scale);
    open_world(&w, temp_dir, MOST, &rng);
    fuzz(&w, &rng, MOST);
    close_world(&w);
}

Test(cache, refused)
{
    struct rng rng = {check_seed()};
    struct world w, other;
    const int which[ITEMS + 1] = {0, 1, 2, 3, 4, 0}; /* one more than there are */
    random_model(24, 4);
    open_world(&w, temp_dir, 8, &rng);
    open_world(&other, CHARS, 8, &rng);
    compute_full(&w, 8);
    cr_assert_eq(step(&w, which, 1, 1, 3, 0, 1), T2_OK);
    expect_refused(&w, which, 0, 2, 6, "item 1 of the cache holds 3 of 8 positions");
    expect_refused(&w, which, 4, 2, 1, "the cache has 5 items");
    expect_refused(&w, which, 0, 0, 1, "the cache has 5 items");
    expect_refused(&w, which, 0, 1, 0, "one position must be new");
    t2_cache *mine = w.cache;
    w.cache = other.cache;
    expect_refused(&w, which, 0, 1, 1, "another model");
    w.cache = mine;
    float logits[29];
    t2_forward_args args = {.size = sizeof args,
                            .ids = w.ids[0],
                            .length = 1,
                            .items = 1,
                            .expert = T2_EXPERT_AUTO,
                            .logits = logits,
                            .cache = w.cache};
    cr_expect_eq(t2_forward(w.session, &args, &w.err), T2_ERR_ARG);
    args.mask.kind = T2_MASK_CAUSAL;
    args.training = 1;
    cr_expect_eq(t2_forward(w.session, &args, &w.err), T2_ERR_ARG);
    args.training = 0;
    cr_expect_eq(t2_forward(w.session, &args, &w.err), T2_OK);
    static const int64_t falls[] = {1, 0}, beyond[] = {5}, below[] = {-1};
    cr_expect_eq(t2_cache_select(w.cache, falls, 2, &w.err), T2_ERR_ARG);
    cr_expect_eq(t2_cache_select(w.cache, beyond, 1, &w.err), T2_ERR_ARG);
    cr_expect_eq(t2_cache_select(w.cache, below, 1, &w.err), T2_ERR_ARG);
    cr_expect_eq(t2_cache_length(w.cache, 1), 3);
    cr_expect_eq(t2_cache_length(w.cache, 5), -1);
    t2_cache *cache = NULL;
    cr_expect_eq(t2_cache_create(w.model, INT64_MAX / 8, 8, &cache, &w.err), T2_ERR_NOMEM);
    cr_expect_eq(t2_cache_create(w.model, 0, 8, &cache, &w.err), T2_ERR_ARG);
    close_world(&w);
    close_world(&other);
}

/* ---- the trained model ----------------------------------------------------------------------- */

/* One symbol a call over all held-out lines; the fingerprint is the same on every machine. */
Test(cache, trained_model)
{
    struct rng rng = {check_seed()};
    struct world w;
    const int which[ITEMS] = {0, 1, 2, 3, 4};
    t2_vocab *vocab;
    char line[128];
    uint64_t print = T2K_FINGERPRINT_SEED;
    open_world(&w, CHARS, 16, &rng);
    cr_assert_eq(t2_vocab_open(CHARS, w.V, &vocab, &w.err), T2_OK);
    FILE *file = fopen(CHARS "/heldout.tsv", "r");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        int64_t count = 0;
        char *text = strchr(line, '\t') + 1, *end = strchr(text, '\t');
        *end = '\0';
        cr_assert_eq(t2_vocab_encode(vocab, text, w.ids[0], 16, &count, &w.err), T2_OK);
        compute_full(&w, count);
        t2_cache_reset(w.cache);
        for (int64_t i = 0; i < count; i++) {
            cr_assert_eq(step(&w, which, 0, 1, 1, 0, 1), T2_OK);
        }
        const int64_t shape[2] = {count, w.V};
        print = t2k_fingerprint_f32(print, 2, shape, w.full[0]);
    }
    fclose(file);
    t2_vocab_close(vocab);
    close_world(&w);
    fprintf(stderr, "isa %s golden cache fingerprint %016llx\n", t2k_isa_name(),
            (unsigned long long)print);
}

/* ---- generation ------------------------------------------------------------------------------ */

struct swap {
    t2_adapter *adapter;
    t2_adaptation *next;
};

static int swap_at(void *arg, int64_t token, int64_t position)
{
    const struct swap *swap = arg;
    (void)token;
    (void)position;
    t2_adapter_swap(swap->adapter, swap->next, NULL);
    return 0;
}

/* Tokens by t2_generate() against the largest logits of full passes over all so far. */
static void check_generate(struct world *w, int64_t prompt, int64_t count, const struct swap *swap)
{
    int64_t tokens[MOST], made = 0, ids[2 * MOST];
    t2_generate_args args = {.size = sizeof args,
                             .prompt = w->ids[0],
                             .prompt_length = prompt,
                             .max_new = count,
                             .end = -1,
                             .expert = w->expert,
                             .on_token = swap != NULL ? swap_at : NULL,
                             .on_token_arg = (void *)(uintptr_t)swap,
                             .tokens = tokens,
                             .count = &made};
    cr_assert_eq(t2_generate(w->session, &args, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(made, count);
    memcpy(ids, w->ids[0], (size_t)prompt * sizeof ids[0]);
    float *logits = malloc((size_t)w->V * sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        t2_forward_args forward = {.size = sizeof forward,
                                   .ids = ids,
                                   .length = prompt + i,
                                   .items = 1,
                                   .mask = {.kind = T2_MASK_CAUSAL},
                                   .expert = w->expert,
                                   .threads = 1,
                                   .first = prompt + i - 1,
                                   .logits = logits,
                                   .adaptation = w->adaptation};
        cr_assert_eq(t2_forward(w->session, &forward, &w->err), T2_OK);
        int64_t best = 0;
        for (int64_t j = 1; j < w->V; j++) {
            best = logits[j] > logits[best] ? j : best;
        }
        cr_assert_eq(tokens[i], best, "token %d", (int)i);
        ids[prompt + i] = best;
    }
    free(logits);
}

Test(cache, generation)
{
    struct rng rng = {check_seed()};
    struct world w;
    random_model(24, 4);
    open_world(&w, temp_dir, 1, &rng);
    check_generate(&w, 5, MOST - 1, NULL);
    close_world(&w);
    model_file_change(temp_dir, "layers.2.experts.1.scale_vector", change_scale);
    open_world(&w, temp_dir, 1, &rng);
    check_generate(&w, 5, 20, NULL); /* by full passes */
    w.expert = 1;
    check_generate(&w, 5, MOST - 1, NULL);
    close_world(&w);
}

/* A continuation keeps the adaptation that it began with. */
Test(cache, generation_and_swaps)
{
    struct rng rng = {check_seed()};
    struct world w;
    struct experts x;
    open_world(&w, CHARS, 1, &rng);
    open_experts(&x, &w);
    t2_adaptation *a = adapt(&x, &x.svf[0], 1, T2_WAY_REBUILD);
    t2_adaptation *b = adapt(&x, &x.svf[1], 1, T2_WAY_REBUILD);
    cr_assert_eq(t2_session_attach(w.session, x.adapter, &w.err), T2_OK);
    for (int i = 0; i < 3; i++) {
        t2_adaptation *now = i == 1 ? b : a;
        struct swap swap = {x.adapter, i == 2 ? NULL : (i == 1 ? a : b)};
        cr_assert_eq(t2_adapter_swap(x.adapter, now, &w.err), T2_OK);
        w.adaptation = now;
        check_generate(&w, 4, 12, &swap);
    }
    t2_adaptation_release(a);
    t2_adaptation_release(b);
    t2_session_destroy(w.session);
    w.session = NULL;
    close_experts(&x);
    close_world(&w);
}
