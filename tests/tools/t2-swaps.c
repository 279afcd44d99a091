/* t2-swaps [COUNT]: experts are changed COUNT times (10000) at random while other threads compute.
 * Every result must have the bits of the one adaptation that its call says it used. Calls, swaps,
 * new and released adaptations, sessions that come and go and factors that are packed on first use
 * all meet. Plain C with threads of its own, for the thread sanitizer; the factors are random
 * numbers: nothing here needs LAPACK. */
#include "check.h"
#include "model_file.h"
#include "svf_case.h"
#include "t2k.h"
#include "temp_dir.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum {
    L = 3,
    N = 2,
    CALLERS = 3,
    EXPERTS = 4,
    CASES = 16,     /* 0 is the base */
    KEPT = 5,       /* adaptations that the swapping thread holds on to */
    TAGS = 1 << 20, /* more than there ever are */
    ROUND = 8,      /* swaps between which a call ends somewhere */
    MATRICES = 64
};

static t2_model *model;
static t2_factors *factors;
static t2_adapter *adapter;
static t2_expert *experts[EXPERTS];
static int64_t ids[L * N], logits_count;
static float *expected[CASES];
/* The case of a tag, written before the adaptation is put in use, with no lock or atomic: only a
 * swap that publishes what came before it makes reading this right. */
static unsigned char case_of[TAGS];
static atomic_int stop, calls, checks, wrong;

static void must(t2_status status, const t2_error *err)
{
    if (status != T2_OK) {
        fprintf(stderr, "t2-swaps: %s\n", err->message);
        abort();
    }
}

/* ---- what is computed ------------------------------------------------------------------------ */

static const struct {
    t2_way way;
    int count, first; /* experts of the adaptation */
    int mixed;
    int64_t components;
} cases[CASES] = {
    {T2_WAY_PLAN, 0, 0, 0, 0},     {T2_WAY_REBUILD, 1, 0, 0, 0},  {T2_WAY_REBUILD, 1, 1, 0, 0},
    {T2_WAY_FACTORED, 1, 0, 0, 0}, {T2_WAY_FACTORED, 1, 2, 0, 0}, {T2_WAY_DELTA, 1, 1, 0, 0},
    {T2_WAY_DELTA, 1, 3, 0, 3},    {T2_WAY_PLAN, 1, 2, 0, 0},     {T2_WAY_REBUILD, 2, 0, 1, 0},
    {T2_WAY_FACTORED, 3, 1, 1, 0}, {T2_WAY_DELTA, 4, 0, 1, 0},    {T2_WAY_FACTORED, 3, 1, 0, 0},
    {T2_WAY_DELTA, 3, 0, 0, 0},    {T2_WAY_PLAN, 2, 2, 1, 0},     {T2_WAY_DELTA, 2, 1, 0, 2},
    {T2_WAY_FACTORED, 2, 2, 1, 0}};

static t2_adaptation *make_case(t2_adapter *of, int which)
{
    static const double alpha[EXPERTS] = {0.5, 0.75, -0.25, 0.3};
    t2_error err;
    t2_adaptation *made = NULL;
    t2_adapt_args args = {.size = sizeof args,
                          .experts = (const t2_expert *const *)experts + cases[which].first,
                          .count = cases[which].count,
                          .alpha = cases[which].mixed ? alpha : NULL,
                          .rows = 1,
                          .rule = T2_MIX_DELTA,
                          .way = cases[which].way,
                          .components = cases[which].components};
    must(t2_adaptation_create(of, &args, &made, &err), &err);
    uint64_t tag = t2_adaptation_tag(made);
    if (tag >= TAGS) {
        fprintf(stderr, "t2-swaps: more than %d adaptations\n", TAGS);
        abort();
    }
    case_of[tag] = (unsigned char)which;
    return made;
}

static t2_session *make_session(t2_adapter *of)
{
    t2_error err;
    t2_session *session;
    must(t2_session_create(model, 0, &session, &err), &err);
    must(t2_session_attach(session, of, &err), &err);
    return session;
}

/* The tag of what was used: `own`, or (NULL) what is in use. */
static uint64_t forward(t2_session *session, const t2_adaptation *own, float *logits)
{
    t2_error err;
    uint64_t tag = 0;
    t2_forward_args args = {.size = sizeof args,
                            .ids = ids,
                            .length = L,
                            .items = N,
                            .mask = {T2_MASK_CAUSAL, 0, NULL},
                            .expert = 0,
                            .threads = 1,
                            .logits = logits,
                            .adaptation = own,
                            .tag = &tag};
    must(t2_forward(session, &args, &err), &err);
    return tag;
}

static void check_logits(uint64_t tag, const float *got)
{
    size_t n = (size_t)logits_count;
    int which = tag < TAGS ? case_of[tag] : 0;
    atomic_fetch_add(&checks, 1);
    if (tag >= TAGS || first_difference(got, expected[which], n) != n) {
        atomic_fetch_add(&wrong, 1);
        fprintf(stderr, "FAILED swaps: tag %llu, case %d\n", (unsigned long long)tag, which);
    }
}

/* ---- the world ------------------------------------------------------------------------------- */

/* All matrices of the model's layers, with any U, S and V. */
static void make_factors(const char *path)
{
    svf_case matrices[MATRICES];
    t2_safetensors *file;
    t2_error err;
    struct rng rng = {check_seed()};
    int64_t count = 0;
    must(t2_safetensors_open(path, 0, &file, &err), &err);
    for (size_t i = 0; i < t2_safetensors_count(file) && count < MATRICES; i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        if (tensor->rank != 2 || strncmp(tensor->name, "layers.", 7) != 0) {
            continue;
        }
        svf_case *one = &matrices[count++];
        *one = (svf_case){.name = tensor->name, .m = tensor->shape[0], .n = tensor->shape[1]};
        must(t2_safetensors_f32(file, tensor, &one->W, &err), &err);
        one->r = one->m < one->n ? one->m : one->n;
        float *values = malloc((size_t)((one->m + one->n + 1) * one->r) * sizeof *values);
        if (values == NULL) {
            abort();
        }
        rng_fill(&rng, values, (size_t)((one->m + one->n) * one->r));
        float *S = values + (one->m + one->n) * one->r;
        for (int64_t j = 0; j < one->r; j++) {
            S[j] = 1.0f / (float)(j + 1);
        }
        one->U = values;
        one->V = values + one->m * one->r;
        one->S = S;
    }
    factors = svf_case_factors(temp_path("factors"), matrices, count);
    for (int64_t i = 0; i < count; i++) {
        free((float *)(uintptr_t)matrices[i].U);
    }
    t2_safetensors_close(file);
}

static void make_world(void)
{
    static const t2_expert_form forms[EXPERTS] = {
        {T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 2.0f, 1.0f, 1},
        {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0},
        {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 0.5f, 0},
        {T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 1.0f, 1.0f, 1}};
    t2_error err;
    t2_config config = model_file_config();
    must(t2_init_model(temp_dir, &config, 3, &err), &err);
    make_factors(temp_path("model.safetensors"));
    must(t2_model_open(temp_dir, T2_SAFETENSORS_NO_MMAP, &model, &err), &err);
    temp_dir_remove();
    for (int k = 0; k < EXPERTS; k++) {
        must(t2_expert_new(&forms[k], "x", factors, NULL, 0.3, (uint64_t)k, &experts[k], &err),
             &err);
    }
    struct rng rng = {check_seed() + 1};
    logits_count = L * N * config.vocab_size;
    for (int i = 0; i < L * N; i++) {
        ids[i] = (int64_t)rng_below(&rng, (size_t)config.vocab_size);
    }
    /* By an adapter of its own: the one that is swapped in packs its factors while in use. */
    t2_adapter *quiet;
    must(t2_adapter_create(model, factors, 0, &quiet, &err), &err);
    t2_session *session = make_session(quiet);
    for (int c = 0; c < CASES; c++) {
        expected[c] = calloc((size_t)logits_count, sizeof expected[c][0]);
        t2_adaptation *made = c > 0 ? make_case(quiet, c) : NULL;
        forward(session, made, expected[c]);
        t2_adaptation_release(made);
        for (int before = 0; before < c; before++) {
            if (first_difference(expected[before], expected[c], (size_t)logits_count) ==
                (size_t)logits_count) {
                fprintf(stderr, "t2-swaps: cases %d and %d do not differ\n", before, c);
                abort();
            }
        }
    }
    t2_session_destroy(session);
    t2_adapter_destroy(quiet);
    must(t2_adapter_create(model, factors, 0, &adapter, &err), &err);
}

static void free_world(void)
{
    t2_adapter_destroy(adapter);
    for (int k = 0; k < EXPERTS; k++) {
        t2_expert_release(experts[k]);
    }
    for (int c = 0; c < CASES; c++) {
        free(expected[c]);
    }
    t2_factors_close(factors);
    t2_model_close(model);
}

/* ---- threads --------------------------------------------------------------------------------- */

/* Calls with what is in use, at times with an adaptation of its own, or with a new session. */
static void *call_on(void *arg)
{
    struct rng rng = {*(const uint64_t *)arg};
    t2_session *session = make_session(adapter);
    float *logits = calloc((size_t)logits_count, sizeof *logits);
    int first = 1;
    while (!atomic_load(&stop) || first) {
        size_t what = rng_below(&rng, 32);
        t2_adaptation *own =
            what == 0 ? make_case(adapter, 1 + (int)rng_below(&rng, CASES - 1)) : NULL;
        check_logits(forward(session, own, logits), logits);
        t2_adaptation_release(own);
        if (what == 1) {
            t2_session_destroy(session);
            session = make_session(adapter);
        }
        atomic_fetch_add(&calls, 1);
        first = 0;
    }
    free(logits);
    t2_session_destroy(session);
    return NULL;
}

struct swapper {
    int count;
    int seen[CASES];
    uint64_t seed;
};

/* One swap: to the base, to an adaptation that stays, or to a new one whose last reference is then
 * the adapter's. */
static void swap_once(struct rng *rng, t2_adaptation **kept, int *seen)
{
    t2_error err;
    size_t what = rng_below(rng, 16), slot = rng_below(rng, KEPT);
    if (what == 0 || (what < 12 && kept[slot] == NULL)) {
        must(t2_adapter_swap(adapter, NULL, &err), &err);
        seen[0]++;
        return;
    }
    if (what < 12) {
        must(t2_adapter_swap(adapter, kept[slot], &err), &err);
        seen[case_of[t2_adaptation_tag(kept[slot])]]++;
        return;
    }
    int which = 1 + (int)rng_below(rng, CASES - 1);
    t2_adaptation *made = make_case(adapter, which);
    must(t2_adapter_swap(adapter, made, &err), &err);
    seen[which]++;
    if (what == 15) {
        t2_adaptation_release(kept[slot]);
        kept[slot] = made;
    } else {
        t2_adaptation_release(made);
    }
}

static void *swap_on(void *arg)
{
    struct swapper *s = arg;
    struct rng rng = {s->seed};
    t2_adaptation *kept[KEPT] = {NULL};
    for (int i = 0; i < s->count; i++) {
        int before = atomic_load(&calls);
        swap_once(&rng, kept, s->seen);
        while (i % ROUND == 0 && atomic_load(&calls) == before) {
            sched_yield();
        }
    }
    for (int k = 0; k < KEPT; k++) {
        t2_adaptation_release(kept[k]);
    }
    return NULL;
}

static void start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
    if (pthread_create(thread, NULL, run, arg) != 0) {
        perror("pthread_create");
        abort();
    }
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 10000, swaps = 0;
    pthread_t threads[CALLERS], swapping[2];
    uint64_t seeds[CALLERS];
    /* Two threads swap: one most of the time, another now and then. */
    struct swapper swappers[2] = {{.count = count - count / 8, .seed = check_seed() + 100},
                                  {.count = count / 8, .seed = check_seed() + 200}};
    temp_dir_make();
    t2k_set_num_threads(1); /* the OpenMP runtime itself is not instrumented */
    make_world();
    for (int i = 0; i < CALLERS; i++) {
        seeds[i] = check_seed() + (uint64_t)i;
        start(&threads[i], call_on, &seeds[i]);
    }
    for (int i = 0; i < 2; i++) {
        start(&swapping[i], swap_on, &swappers[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(swapping[i], NULL);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    free_world();
    for (int c = 0; c < CASES; c++) {
        int seen = swappers[0].seen[c] + swappers[1].seen[c];
        swaps += seen;
        if (seen == 0) {
            printf("FAILED swaps: never to case %d\n", c);
            atomic_fetch_add(&wrong, 1);
        }
    }
    int failed = atomic_load(&wrong) + (swaps != count), all = atomic_load(&checks) + 1;
    printf("%d swaps, %d calls\n%d passed, %d failed, 0 skipped\n", swaps, atomic_load(&calls),
           failed < all ? all - failed : 0, failed);
    return failed > 0;
}
