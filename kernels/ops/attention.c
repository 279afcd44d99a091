/* Attention: checks the arguments and gives each thread its share of (item, head, tile of queries).
 * Tiles are independent: a query's bits depend on its own row of q and mask and on k and v. */
#include "ops/attention.h"
#include "ops/args.h"
#include "ops/team.h"

#include <stddef.h>
#include <string.h>

_Static_assert(T2K_ATTENTION_FLOATS(T2K_ATTENTION_WIDTH) * sizeof(float) <= T2K_WORKSPACE_BYTES,
               "a tile's workspace is part of a thread's");

static int bad_mask(const t2k_attention_args *a)
{
    if (a->mask_kind == T2K_MASK_NONE || a->mask_kind == T2K_MASK_CAUSAL) {
        return 0;
    }
    if (a->mask_kind != T2K_MASK_BOOL && a->mask_kind != T2K_MASK_ADD) {
        return 1;
    }
    if (a->mask_item < 0 || a->mask_head < 0 || a->mask_row < 0 ||
        (a->mask == NULL && a->keys > 0)) {
        return 1;
    }
    int64_t size = a->mask_kind == T2K_MASK_BOOL ? 1 : (int64_t)sizeof(float), heads;
    return __builtin_mul_overflow(a->heads - 1, a->mask_head, &heads) ||
           __builtin_add_overflow(heads, a->keys, &heads) ||
           t2k_too_far(a->queries, a->mask_row, a->items, a->mask_item, heads, size);
}

/* The work of a call: args of full size, cut into units that threads take. */
struct job {
    const t2k_table *table;
    t2k_attention_args args;
    size_t heads; /* of one kernel call: more than 1 in decoding and in short sequences */
    size_t span;  /* heads that calls divide among them: a group's, or all */
    size_t calls; /* kernel calls for the heads of an item */
    size_t tiles; /* of the queries of a head */
    size_t units; /* in all; 0 when there is nothing to compute */
};

int t2k_attention_complete(const t2k_attention_args *args, t2k_attention_args *a)
{
    const size_t first = offsetof(t2k_attention_args, kv_heads);
    if (args == NULL || (args->size != sizeof *a && args->size != first)) {
        return 0;
    }
    memset(a, 0, sizeof *a);
    memcpy(a, args, args->size);
    if (a->kv_heads == 0) {
        a->kv_heads = a->heads;
    }
    return 1;
}

/* Fewer heads a call where there would be fewer calls than threads. */
static void divide(struct job *job, size_t threads)
{
    const t2k_attention_args *a = &job->args;
    const size_t heads = (size_t)a->heads;
    job->heads = job->span = 1;
    const int small = a->queries <= T2K_ATTENTION_SHORT && a->keys <= T2K_ATTENTION_SHORT;
    if (a->queries == 1 && a->kv_heads < a->heads) { /* they read the same keys and values */
        job->span = heads / (size_t)a->kv_heads;
        job->heads = job->span < T2K_ATTENTION_FEW ? job->span : T2K_ATTENTION_FEW;
    } else if (a->queries == 1 || small) {
        job->span = heads;
        job->heads = heads < T2K_ATTENTION_HEADS ? heads : T2K_ATTENTION_HEADS;
        while (job->heads > 1 && (size_t)a->items * (heads / job->heads) < threads) {
            job->heads /= 2;
        }
    }
    job->calls = heads / job->span * ((job->span + job->heads - 1) / job->heads);
    job->tiles = ((size_t)a->queries - 1) / T2K_ATTENTION_QUERIES + 1;
    /* No overflow: out has at least as many elements. */
    job->units = (size_t)a->items * job->calls * job->tiles;
}

int t2k_attention_bad_sizes(const t2k_attention_args *a)
{
    return a->queries < 0 || a->keys < 0 || a->items < 0 || a->heads < 0 || a->kv_heads < 0 ||
           a->head_dim < 0 || a->head_dim > T2K_ATTENTION_WIDTH || a->q_row < 0 || a->q_item < 0 ||
           a->k_row < 0 || a->k_item < 0 || a->v_row < 0 || a->v_item < 0 ||
           (a->kv_heads > 0 && a->heads % a->kv_heads != 0) ||
           (a->empty_row != T2K_EMPTY_NAN && a->empty_row != T2K_EMPTY_ZERO);
}

int t2k_attention_bad_inputs(const t2k_attention_args *a)
{
    const int64_t size = sizeof(float);
    int64_t width, kv_width;
    return bad_mask(a) || (a->queries > 0 && a->q == NULL) ||
           (a->keys > 0 && (a->k == NULL || a->v == NULL)) ||
           __builtin_mul_overflow(a->heads, a->head_dim, &width) ||
           __builtin_mul_overflow(a->kv_heads, a->head_dim, &kv_width) ||
           t2k_too_far(a->queries, a->q_row, a->items, a->q_item, width, size) ||
           t2k_too_far(a->keys, a->k_row, a->items, a->k_item, kv_width, size) ||
           t2k_too_far(a->keys, a->v_row, a->items, a->v_item, kv_width, size);
}

int t2k_attention_bad_output(const float *x, int64_t rows, int64_t row, int64_t items, int64_t item,
                             int64_t width)
{
    return row < 0 || item < 0 || (rows > 0 && x == NULL) ||
           t2k_too_far(rows, row, items, item, width, sizeof(float)) ||
           t2k_rows_overlap(rows, row, items, item, width);
}

/* T2K_OK, with what there is to do in *job. */
static t2k_status check(const t2k_attention_args *args, struct job *job)
{
    const t2k_attention_args *a = &job->args;
    job->units = 0;
    if (!t2k_attention_complete(args, &job->args) || t2k_attention_bad_sizes(a) || a->out_row < 0 ||
        a->out_item < 0) {
        return T2K_ERR_ARG;
    }
    if (a->queries == 0 || a->items == 0 || a->heads == 0 || a->head_dim == 0) {
        return T2K_OK;
    }
    if (t2k_attention_bad_inputs(a) ||
        t2k_attention_bad_output(a->out, a->queries, a->out_row, a->items, a->out_item,
                                 a->heads * a->head_dim)) {
        return T2K_ERR_ARG;
    }
    divide(job, 1);
    return T2K_OK;
}

static void compute(const struct job *job, size_t unit, float *workspace)
{
    const t2k_attention_args *a = &job->args;
    const size_t most = T2K_ATTENTION_QUERIES, queries = (size_t)a->queries;
    const size_t per_span = (job->span + job->heads - 1) / job->heads;
    const size_t tile = unit % job->tiles, call = unit / job->tiles;
    const size_t of_item = call % job->calls, item = call / job->calls;
    const size_t first = tile * most, n = queries - first < most ? queries - first : most;
    const size_t begin = of_item % per_span * job->heads;
    const size_t heads = job->span - begin < job->heads ? job->span - begin : job->heads;
    job->table->attention(a, item, of_item / per_span * job->span + begin, heads, first, n,
                          workspace);
}

/* Under a mask the tiles of a head differ in cost: threads take them one by one. */
static void share(t2k_team *team, const struct job *job)
{
    float *workspace = t2k_team_workspace(team);
    size_t unit, last;
    if (t2k_team_size(team) > 1 && job->args.mask_kind != T2K_MASK_NONE && job->tiles > 1) {
        while ((unit = t2k_team_ticket(team)) < job->units) {
            compute(job, unit, workspace);
        }
        return;
    }
    t2k_team_share(team, job->units, 1, &unit, &last);
    for (; unit < last; unit++) {
        compute(job, unit, workspace);
    }
}

t2k_status t2k_attention_team(t2k_team *team, const t2k_attention_args *args)
{
    struct job job = {.table = t2k_table_get()};
    if (job.table == NULL) {
        return T2K_ERR_ISA;
    }
    t2k_status status = check(args, &job);
    if (status != T2K_OK || job.units == 0) {
        return status;
    }
    if (t2k_team_workspace(team) == NULL) {
        return T2K_ERR_NOMEM;
    }
    divide(&job, (size_t)t2k_team_size(team));
    share(team, &job);
    t2k_team_barrier(team);
    return T2K_OK;
}

static void run(t2k_team *team, void *arg)
{
    share(team, arg);
}

t2k_status t2k_attention(const t2k_attention_args *args)
{
    struct job job = {.table = t2k_table_get()};
    if (job.table == NULL) {
        return T2K_ERR_ISA;
    }
    t2k_status status = check(args, &job);
    if (status != T2K_OK || job.units == 0) {
        return status;
    }
    /* Per pair of query and key: 2 fused multiply-adds a channel, an exponential, the packing. */
    const t2k_attention_args *a = &job.args;
    double pairs =
        (double)a->items * (double)a->heads * (double)a->queries * ((double)a->keys + 1.0);
    int threads = t2k_threads_for_work(pairs * (0.05 * (double)a->head_dim + 1.0));
    divide(&job, (size_t)threads);
    if ((size_t)threads > job.units) {
        threads = (int)job.units;
    }
    return t2k_parallel_team(threads, 1, run, &job);
}
