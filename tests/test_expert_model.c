/* Experts in whole models: every way against the checkpoint they merge into, rows with experts of
 * their own, changing experts while other threads compute, and what is refused. */
#include "check.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

TestSuite(expert_model, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

#define MODEL "runtime/models/t2-chars"
enum { L = 7, N = 4, EXPERTS = 3 };

static const t2_expert_form forms[] = {{T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 2.0f, 1.0f, 1},
                                       {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0},
                                       {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 0.5f, 0}};

struct world {
    t2_model *model;
    t2_factors *factors;
    t2_adapter *adapter;
    t2_session *session;
    t2_expert *experts[EXPERTS], *channel;
    int64_t ids[L * N], V;
    t2_error err;
};

static void make_factors(const char *out, const char *modules, int64_t rank)
{
    t2_error err = {T2_OK, ""};
    t2_svd_args args = {.size = sizeof args,
                        .model = MODEL,
                        .out = out,
                        .modules = modules,
                        .rank = rank,
                        .jobs = 1};
    cr_assert_eq(t2_svd_run(&args, &err), T2_OK, "%s", err.message);
}

static struct world *make_world(const char *modules, int64_t rank)
{
    struct world *w = calloc(1, sizeof *w);
    struct rng rng = {check_seed()};
    make_factors(temp_path("f.safetensors"), modules, rank);
    cr_assert_eq(t2_model_open(MODEL, 0, &w->model, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(
        t2_factors_open(temp_path("f.safetensors"), T2_FACTORS_VERIFY, &w->factors, &w->err), T2_OK,
        "%s", w->err.message);
    cr_assert_eq(t2_adapter_create(w->model, w->factors, 0, &w->adapter, &w->err), T2_OK, "%s",
                 w->err.message);
    cr_assert_eq(t2_session_create(w->model, 0, &w->session, &w->err), T2_OK);
    for (int k = 0; k < EXPERTS; k++) {
        cr_assert_eq(t2_expert_new(&forms[k], "x", w->factors, NULL, 0.3, (uint64_t)k,
                                   &w->experts[k], &w->err),
                     T2_OK, "%s", w->err.message);
    }
    static const t2_expert_form channel = {T2_EXPERT_CHANNEL, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
    cr_assert_eq(t2_expert_new(&channel, "c", NULL, w->model, 0.3, 9, &w->channel, &w->err), T2_OK,
                 "%s", w->err.message);
    w->V = t2_model_config(w->model)->vocab_size;
    for (int i = 0; i < L * N; i++) {
        w->ids[i] = (int64_t)rng_below(&rng, (size_t)w->V);
    }
    return w;
}

static void free_world(struct world *w)
{
    t2_session_destroy(w->session);
    t2_adapter_destroy(w->adapter);
    for (int k = 0; k < EXPERTS; k++) {
        t2_expert_release(w->experts[k]);
    }
    t2_expert_release(w->channel);
    t2_factors_close(w->factors);
    t2_model_close(w->model);
    free(w);
}

static t2_adaptation *adapt(struct world *w, t2_expert *const *experts, int64_t count, t2_way way)
{
    t2_adaptation *adaptation = NULL;
    t2_adapt_args args = {.size = sizeof args,
                          .experts = (const t2_expert *const *)experts,
                          .count = count,
                          .way = way};
    cr_assert_eq(t2_adaptation_create(w->adapter, &args, &adaptation, &w->err), T2_OK, "%s",
                 w->err.message);
    return adaptation;
}

/* Logits (L, items, V) of the ids (L, items), to free(). */
static float *forward(struct world *w, const t2_adaptation *adaptation, const int64_t *ids,
                      int64_t items, const int64_t *rows, int threads, uint64_t *tag)
{
    float *logits = calloc((size_t)(L * items * w->V), sizeof *logits);
    t2_forward_args args = {.size = sizeof args,
                            .ids = ids,
                            .length = L,
                            .items = items,
                            .mask = {T2_MASK_CAUSAL, 0, NULL},
                            .expert = T2_EXPERT_AUTO,
                            .threads = threads,
                            .logits = logits,
                            .adaptation = adaptation,
                            .expert_rows = rows,
                            .tag = tag};
    cr_assert_eq(t2_forward(w->session, &args, &w->err), T2_OK, "%s", w->err.message);
    return logits;
}

static double relative(const float *a, const float *b, size_t n)
{
    double worst = 0.0, largest = 0.0;
    for (size_t i = 0; i < n;
         i++) { /* with fmax() gcc 12 for aarch64 ends with an internal error */
        double off = fabs((double)a[i] - (double)b[i]), size = fabs((double)b[i]);
        worst = off > worst ? off : worst;
        largest = size > largest ? size : largest;
    }
    return worst / largest;
}

/* The merged checkpoint in a folder of its own, without experts. */
static float *merged_logits(struct world *w, const t2_expert *expert)
{
    char config[2000], command[4000];
    snprintf(config, sizeof config, "%s", temp_path("merged"));
    mkdir(config, 0700);
    snprintf(command, sizeof command, "cp " MODEL "/config.json %s/", config);
    cr_assert_eq(system(command), 0);
    char path[2100];
    snprintf(path, sizeof path, "%s/model.safetensors", config);
    cr_assert_eq(t2_expert_merge(MODEL, w->factors, expert, path, &w->err), T2_OK, "%s",
                 w->err.message);
    t2_model *model;
    t2_session *session;
    cr_assert_eq(t2_model_open(config, 0, &model, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(t2_session_create(model, 0, &session, &w->err), T2_OK);
    struct world other = *w;
    other.session = session;
    float *logits = forward(&other, NULL, w->ids, N, NULL, 1, NULL);
    t2_session_destroy(session);
    t2_model_close(model);
    remove(path);
    snprintf(path, sizeof path, "%s/config.json", config);
    remove(path);
    remove(config);
    return logits;
}

static void check_ways(const char *modules, int64_t rank)
{
    struct world *w = make_world(modules, rank);
    for (int k = 0; k < EXPERTS; k++) {
        float *want = merged_logits(w, w->experts[k]);
        for (t2_way way = rank > 0 ? T2_WAY_DELTA : T2_WAY_PLAN; way <= T2_WAY_DELTA; way++) {
            t2_adaptation *adaptation = adapt(w, &w->experts[k], 1, way);
            float *got = forward(w, adaptation, w->ids, N, NULL, 1, NULL);
            cr_expect_leq(relative(got, want, (size_t)(L * N * w->V)), 2e-5, "expert %d by %s", k,
                          t2_way_str(way));
            free(got);
            t2_adaptation_release(adaptation);
        }
        free(want);
    }
    free_world(w);
}

Test(expert_model, ways_and_merged)
{
    check_ways("mlp,attention", 0);
    check_ways("*.in_proj_weight", 0);
    check_ways("mlp,attention", 20);
}

Test(expert_model, channel)
{
    struct world *w = make_world("mlp", 0);
    float *want = merged_logits(w, w->channel);
    t2_adaptation *adaptation = adapt(w, &w->channel, 1, T2_WAY_PLAN);
    float *got = forward(w, adaptation, w->ids, N, NULL, 1, NULL);
    cr_expect_leq(relative(got, want, (size_t)(L * N * w->V)), 1e-5);
    free(got);
    free(want);
    t2_adaptation_release(adaptation);
    free_world(w);
}

/* Each sequence with an expert of its own: the bits of each alone, for any number of threads. */
static void check_rows(struct world *w, t2_expert *const *experts, int64_t count, t2_way way)
{
    t2_adaptation *adaptation = adapt(w, experts, count, way);
    int64_t rows[L * N];
    for (int i = 0; i < L * N; i++) {
        rows[i] = (i % N) % (count + 1) - 1;
    }
    float *together = forward(w, adaptation, w->ids, N, rows, 1, NULL);
    for (int threads = 2; threads <= 3; threads++) {
        float *again = forward(w, adaptation, w->ids, N, rows, threads, NULL);
        cr_expect_eq(first_difference(again, together, (size_t)(L * N * w->V)),
                     (size_t)(L * N * w->V), "%d threads", threads);
        free(again);
    }
    for (int n = 0; n < N; n++) {
        int64_t ids[L], own[L];
        for (int l = 0; l < L; l++) {
            ids[l] = w->ids[l * N + n];
            own[l] = rows[l * N + n];
        }
        float *alone = forward(w, adaptation, ids, 1, own, 1, NULL);
        for (int l = 0; l < L; l++) {
            cr_expect_eq(
                first_difference(alone + l * w->V, together + (l * N + n) * w->V, (size_t)w->V),
                (size_t)w->V, "sequence %d, position %d", n, l);
        }
        free(alone);
    }
    free(together);
    t2_adaptation_release(adaptation);
}

Test(expert_model, rows)
{
    struct world *w = make_world("mlp,attention", 0);
    check_rows(w, w->experts, EXPERTS, T2_WAY_FACTORED);
    check_rows(w, w->experts, EXPERTS, T2_WAY_DELTA);
    check_rows(w, &w->channel, 1, T2_WAY_PLAN);
    free_world(w);
}

/* ---- swaps ---------------------------------------------------------------------------------- */

enum { SWAPS = 3000, CALLERS = 2 };

struct caller {
    struct world world;
    const uint64_t *tags; /* of what may be in use: the base, then the adaptations */
    float *const *expected;
    const atomic_int *stop;
    int64_t calls;
    int failed;
};

static void *call_on(void *arg)
{
    struct caller *c = arg;
    size_t n = (size_t)(L * N * c->world.V);
    while (!atomic_load(c->stop) || c->calls == 0) {
        uint64_t tag = 0;
        float *got = forward(&c->world, NULL, c->world.ids, N, NULL, 1, &tag);
        int which = 0;
        while (which <= EXPERTS && c->tags[which] != tag) {
            which++;
        }
        c->failed |= which > EXPERTS || first_difference(got, c->expected[which], n) != n;
        free(got);
        c->calls++;
    }
    return NULL;
}

/* What a call was computed with is one adaptation from its beginning to its end, whatever is
 * swapped meanwhile, and is never released under it. */
Test(expert_model, swaps)
{
    struct world *w = make_world("mlp,attention", 0);
    uint64_t tags[EXPERTS + 1] = {0};
    float *expected[EXPERTS + 1];
    t2_adaptation *all[EXPERTS + 1] = {NULL};
    static const t2_way ways[] = {T2_WAY_REBUILD, T2_WAY_FACTORED, T2_WAY_DELTA};
    cr_assert_eq(t2_session_attach(w->session, w->adapter, &w->err), T2_OK);
    for (int k = 0; k <= EXPERTS; k++) {
        all[k] = k > 0 ? adapt(w, &w->experts[k - 1], 1, ways[k - 1]) : NULL;
        tags[k] = k > 0 ? t2_adaptation_tag(all[k]) : 0;
        cr_assert_eq(t2_adapter_swap(w->adapter, all[k], &w->err), T2_OK);
        expected[k] = forward(w, NULL, w->ids, N, NULL, 1, NULL);
    }
    atomic_int stop = 0;
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){*w, tags, expected, &stop, 0, 0};
        cr_assert_eq(t2_session_create(w->model, 0, &callers[i].world.session, &w->err), T2_OK);
        cr_assert_eq(t2_session_attach(callers[i].world.session, w->adapter, &w->err), T2_OK);
        cr_assert_eq(pthread_create(&threads[i], NULL, call_on, &callers[i]), 0);
    }
    struct rng rng = {check_seed()};
    for (int i = 0; i < SWAPS; i++) {
        t2_adapter_swap(w->adapter, all[rng_below(&rng, EXPERTS + 1)], &w->err);
    }
    for (int k = 0; k <= EXPERTS; k++) { /* the adapter and the callers keep what they need */
        t2_adaptation_release(all[k]);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        cr_expect(!callers[i].failed, "caller %d", i);
        t2_session_destroy(callers[i].world.session);
    }
    for (int k = 0; k <= EXPERTS; k++) {
        free(expected[k]);
    }
    free_world(w);
}

/* ---- memory --------------------------------------------------------------------------------- */

/* A further expert costs its scales and no more. */
Test(expert_model, memory)
{
    struct world *w = make_world("mlp,attention", 0);
    t2_expert *many[100];
    int64_t scales = 0;
    for (int64_t i = 0; i < t2_factors_count(w->factors); i++) {
        scales += t2_factors_get(w->factors, i)->r;
    }
    for (int i = 0; i < 100; i++) {
        many[i] = w->experts[i % EXPERTS];
    }
    t2_adaptation *ten = adapt(w, many, 10, T2_WAY_FACTORED);
    t2_adaptation *hundred = adapt(w, many, 100, T2_WAY_FACTORED);
    cr_expect_leq(t2_adaptation_bytes(hundred) - t2_adaptation_bytes(ten),
                  90 * ((size_t)scales * sizeof(float) + 1024));
    t2_adaptation_release(ten);
    t2_adaptation_release(hundred);
    free_world(w);
}

/* ---- refused -------------------------------------------------------------------------------- */

static void refused(struct world *w, t2_status status, t2_status expected, const char *part)
{
    cr_expect_eq(status, expected, "%s: %s", t2_status_str(status), w->err.message);
    cr_expect_not_null(strstr(w->err.message, part), "'%s' lacks '%s'", w->err.message, part);
}

Test(expert_model, refused)
{
    struct world *w = make_world("mlp", 0);
    t2_adaptation *made = NULL;
    t2_adapt_args args = {.size = sizeof args,
                          .experts = (const t2_expert *const *)w->experts,
                          .count = 2,
                          .way = T2_WAY_REBUILD};
    refused(w, t2_adaptation_create(w->adapter, &args, &made, &w->err), T2_ERR_ARG,
            "several experts");
    t2_expert *mixed[2] = {w->experts[0], w->channel};
    args.experts = (const t2_expert *const *)mixed;
    refused(w, t2_adaptation_create(w->adapter, &args, &made, &w->err), T2_ERR_ARG, "CHANNEL");
    /* An expert of other factors. */
    make_factors(temp_path("other.safetensors"), "attention", 0);
    t2_factors *other;
    t2_expert *stranger;
    cr_assert_eq(t2_factors_open(temp_path("other.safetensors"), 0, &other, &w->err), T2_OK);
    cr_assert_eq(t2_expert_new(&forms[0], "s", other, NULL, 0.1, 1, &stranger, &w->err), T2_OK);
    args.experts = (const t2_expert *const *)&stranger;
    args.count = 1;
    args.way = T2_WAY_PLAN;
    refused(w, t2_adaptation_create(w->adapter, &args, &made, &w->err), T2_ERR_FORMAT,
            "has no matrix");
    refused(w, t2_expert_check(w->experts[0], other, &w->err), T2_ERR_FORMAT, "has no matrix");
    /* Rows that are not there, and rows where one matrix serves all. */
    t2_adaptation *rebuilt = adapt(w, w->experts, 1, T2_WAY_REBUILD);
    int64_t rows[L * N] = {0};
    float *logits = calloc((size_t)(L * N * w->V), sizeof *logits);
    t2_forward_args call = {.size = sizeof call,
                            .ids = w->ids,
                            .length = L,
                            .items = N,
                            .expert = T2_EXPERT_AUTO,
                            .logits = logits,
                            .adaptation = rebuilt,
                            .expert_rows = rows};
    rows[3] = 1;
    refused(w, t2_forward(w->session, &call, &w->err), T2_ERR_ARG, "asks for expert 1");
    rows[3] = -1;
    refused(w, t2_forward(w->session, &call, &w->err), T2_ERR_ARG, "rebuild");
    call.adaptation = NULL;
    refused(w, t2_forward(w->session, &call, &w->err), T2_ERR_ARG, "no adaptation");
    free(logits);
    t2_adaptation_release(rebuilt);
    t2_expert_release(stranger);
    t2_factors_close(other);
    free_world(w);
}
