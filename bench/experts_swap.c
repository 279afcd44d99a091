/* t2bench experts swap: how long exchanging the adaptation in use takes, alone and while another
 * thread is inside forward passes, and the memory of experts. */
#include "experts.h"
#include "ops.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SWAPS = 100000, LENGTH = 10, ITEMS = 4, MANY = 1000, CLASSES = 1000 };
#define PAUSE 20e-6 /* so that swaps meet all parts of many forward passes */

/* A thread that runs one forward pass after the other. */
struct caller {
    t2_session *session;
    atomic_int stop;
    int64_t calls;
    t2_status status;
    int64_t ids[LENGTH * ITEMS];
    float logits[LENGTH * ITEMS * CLASSES];
};

static void *call_on(void *arg)
{
    struct caller *c = arg;
    const t2_forward_args args = {.size = sizeof args,
                                  .ids = c->ids,
                                  .length = LENGTH,
                                  .items = ITEMS,
                                  .expert = 0,
                                  .threads = 1,
                                  .logits = c->logits};
    while (!atomic_load(&c->stop) && c->status == T2_OK) {
        c->status = t2_forward(c->session, &args, NULL);
        c->calls++;
    }
    return NULL;
}

/* SWAPS changes between two adaptations, `pause` seconds apart. */
static int swap_on(t2_adapter *adapter, t2_adaptation *const *two, const char *name,
                   const struct caller *caller, double pause, t2_text *csv, t2_text *table)
{
    double *seconds = malloc(SWAPS * sizeof *seconds);
    int status = seconds != NULL ? 0 : -1;
    t2_error err;
    for (int i = 0; i < SWAPS && status == 0; i++) {
        double start = bench_now();
        if (t2_adapter_swap(adapter, two[i % 2], &err) != T2_OK) {
            status = experts_failed("swap", &err);
        }
        double now = bench_now();
        seconds[i] = now - start;
        while (now < start + pause) {
            now = bench_now();
        }
    }
    if (status == 0) {
        double median = experts_median(seconds, SWAPS); /* sorts them */
        double most = seconds[(int)(0.99 * SWAPS)];
        printf("swap, %-24s median %7.0f ns, 99 %% %7.0f ns, 99.9 %% %7.0f ns, longest %9.0f ns\n",
               name, 1e9 * median, 1e9 * most, 1e9 * seconds[(int)(0.999 * SWAPS)],
               1e9 * seconds[SWAPS - 1]);
        t2_text_printf(csv, "%s,%.0f,%.0f,%.0f\n", name, 1e9 * median, 1e9 * most,
                       1e9 * seconds[SWAPS - 1]);
        char what[80];
        snprintf(what, sizeof what, "swap, %s: microseconds (median)", name);
        experts_target(table, what, 1e6 * median, EXPERTS_AT_MOST, 5.0);
    }
    if (caller != NULL && status == 0) {
        printf("  %d forward passes of %d x %d meanwhile\n", (int)caller->calls, LENGTH, ITEMS);
    }
    free(seconds);
    return status;
}

static int swap_in_calls(t2_adapter *adapter, t2_adaptation *const *two, t2_session *session,
                         t2_text *csv, t2_text *table)
{
    struct caller *caller = calloc(1, sizeof *caller);
    pthread_t thread;
    if (caller == NULL) {
        return -1;
    }
    caller->session = session;
    int status = pthread_create(&thread, NULL, call_on, caller) == 0 ? 0 : -1;
    if (status == 0) {
        status = swap_on(adapter, two, "a thread computes", caller, PAUSE, csv, table);
        atomic_store(&caller->stop, 1);
        pthread_join(thread, NULL);
        status = caller->status == T2_OK ? status : -1;
    }
    free(caller);
    return status;
}

/* The notebook's model, whose experts scale outputs. */
static int measure_swaps(t2_text *csv, t2_text *table)
{
    char text[256];
    const char *folder = bench_model_dir(text, sizeof text);
    const t2_expert_form form = {T2_EXPERT_CHANNEL, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
    t2_model *model = NULL;
    t2_session *session = NULL;
    t2_adapter *adapter = NULL;
    t2_expert *expert[2] = {NULL, NULL};
    t2_adaptation *two[2] = {NULL, NULL};
    t2_error err = {T2_OK, ""};
    t2_status status = folder != NULL ? t2_model_open(folder, 0, &model, &err) : T2_ERR_IO;
    if (status == T2_OK) {
        status = t2_session_create(model, LENGTH * ITEMS, &session, &err);
    }
    if (status == T2_OK) {
        status = t2_adapter_create(model, NULL, 0, &adapter, &err);
    }
    for (int i = 0; i < 2 && status == T2_OK; i++) {
        status = t2_expert_new(&form, "measured", NULL, model, 0.1, (uint64_t)i, &expert[i], &err);
        const t2_adapt_args args = {.size = sizeof args,
                                    .experts = (const t2_expert *const *)&expert[i],
                                    .count = 1,
                                    .way = T2_WAY_PLAN};
        if (status == T2_OK) {
            status = t2_adaptation_create(adapter, &args, &two[i], &err);
        }
    }
    if (status == T2_OK) {
        status = t2_session_attach(session, adapter, &err);
    }
    int result = status == T2_OK ? 0 : experts_failed("swap", &err);
    if (result == 0) {
        result = swap_on(adapter, two, "alone", NULL, 0.0, csv, table);
    }
    if (result == 0) {
        result = swap_in_calls(adapter, two, session, csv, table);
    }
    for (int i = 0; i < 2; i++) {
        t2_adaptation_release(two[i]);
        t2_expert_release(expert[i]);
    }
    if (session != NULL) {
        t2_session_attach(session, NULL, NULL);
        t2_session_destroy(session);
    }
    if (adapter != NULL) {
        t2_adapter_swap(adapter, NULL, NULL);
        t2_adapter_destroy(adapter);
    }
    t2_model_close(model);
    return result;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Of an expert, and of a further one in an adaptation; both beside 4 bytes for each component. */
static int measure_memory(t2_text *csv, t2_text *table)
{
    static const int64_t sizes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
    struct expert_layers layers;
    t2_expert **expert = calloc(MANY, sizeof *expert);
    if (expert == NULL || expert_layers_create(&layers, sizes, 4) != 0) {
        free(expert);
        return -1;
    }
    const size_t before = mallinfo2().uordblks;
    int status = experts_create(&layers, 1, MANY, expert);
    if (status == 0) {
        const double heap = (double)(mallinfo2().uordblks - before) / MANY;
        t2_adaptation *few = experts_adapt(&layers, expert, 1, T2_WAY_FACTORED, NULL);
        t2_adaptation *many = experts_adapt(&layers, expert, MANY, T2_WAY_FACTORED, NULL);
        if (few != NULL && many != NULL) {
            const double values = 4.0 * (double)layers.ranks;
            const double one = (double)t2_expert_bytes(expert[0]);
            const double more =
                (double)(t2_adaptation_bytes(many) - t2_adaptation_bytes(few)) / (MANY - 1.0);
            printf("memory, %d components: %.0f bytes of values; an expert takes %.0f more, in an "
                   "adaptation of %d %.0f more; the heap grew by %.0f more for each\n",
                   (int)layers.ranks, values, one - values, MANY, more - values, heap - values);
            experts_target(table, "an expert's bytes of heap beside its values (1000 made)",
                           heap - values, EXPERTS_AT_MOST, 1024.0);
            t2_text_printf(csv,
                           "values,%.0f\nexpert_more,%.0f\nadaptation_more,%.0f\nheap_more,%.0f\n",
                           values, one - values, more - values, heap - values);
        } else {
            status = -1;
        }
        t2_adaptation_release(few);
        t2_adaptation_release(many);
        experts_release(expert, MANY);
    }
    free(expert);
    expert_layers_destroy(&layers);
    return status;
}

int experts_swap(t2_text *csv, t2_text *svg, t2_text *table)
{
    (void)svg;
    int status = measure_swaps(csv, table);
    bench_model_remove();
    return status == 0 ? measure_memory(csv, table) : status;
}
