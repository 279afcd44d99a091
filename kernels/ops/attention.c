/* Attention: checks the arguments and gives each thread its share of (item, head, tile of queries).
 * Tiles are independent: a query's bits depend on its own row of q and mask and on k and v. */
#include "ops/args.h"
#include "ops/team.h"

_Static_assert(T2K_ATTENTION_FLOATS(T2K_ATTENTION_WIDTH) * sizeof(float) <= T2K_WORKSPACE_BYTES,
               "a tile's workspace is part of a thread's");

static int bad_mask(const t2k_attention_args *a)
{
    if (a->mask_kind == T2K_MASK_NONE) {
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

/* T2K_OK, with *tiles the number of tiles of all heads: 0 when there is nothing to compute. */
static t2k_status check(const t2k_attention_args *a, size_t *tiles)
{
    const int64_t size = sizeof(float);
    if (a == NULL || a->size != sizeof *a || a->queries < 0 || a->keys < 0 || a->items < 0 ||
        a->heads < 0 || a->head_dim < 0 || a->head_dim > T2K_ATTENTION_WIDTH || a->q_row < 0 ||
        a->q_item < 0 || a->k_row < 0 || a->k_item < 0 || a->v_row < 0 || a->v_item < 0 ||
        a->out_row < 0 || a->out_item < 0 ||
        (a->empty_row != T2K_EMPTY_NAN && a->empty_row != T2K_EMPTY_ZERO)) {
        return T2K_ERR_ARG;
    }
    *tiles = 0;
    if (a->queries == 0 || a->items == 0 || a->heads == 0 || a->head_dim == 0) {
        return T2K_OK;
    }
    int64_t width;
    if (bad_mask(a) || a->q == NULL || a->out == NULL ||
        (a->keys > 0 && (a->k == NULL || a->v == NULL)) ||
        __builtin_mul_overflow(a->heads, a->head_dim, &width) ||
        t2k_too_far(a->queries, a->q_row, a->items, a->q_item, width, size) ||
        t2k_too_far(a->keys, a->k_row, a->items, a->k_item, width, size) ||
        t2k_too_far(a->keys, a->v_row, a->items, a->v_item, width, size) ||
        t2k_too_far(a->queries, a->out_row, a->items, a->out_item, width, size) ||
        t2k_rows_overlap(a->queries, a->out_row, a->items, a->out_item, width)) {
        return T2K_ERR_ARG;
    }
    /* No overflow: out has at least as many elements. */
    size_t per_head = ((size_t)a->queries - 1) / T2K_ATTENTION_QUERIES + 1;
    *tiles = (size_t)a->items * (size_t)a->heads * per_head;
    return T2K_OK;
}

static void share(const t2k_team *team, const t2k_table *table, const t2k_attention_args *args,
                  size_t tiles)
{
    const size_t most = T2K_ATTENTION_QUERIES, queries = (size_t)args->queries;
    const size_t heads = (size_t)args->heads, per_head = (queries - 1) / most + 1;
    float *workspace = t2k_team_workspace(team);
    size_t tile, last;
    t2k_team_share(team, tiles, 1, &tile, &last);
    for (; tile < last; tile++) {
        size_t first = tile % per_head * most, n = queries - first < most ? queries - first : most;
        size_t column = tile / per_head;
        table->attention(args, column / heads, column % heads, first, n, workspace);
    }
}

t2k_status t2k_attention_team(t2k_team *team, const t2k_attention_args *args)
{
    size_t tiles;
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    t2k_status status = check(args, &tiles);
    if (status != T2K_OK || tiles == 0) {
        return status;
    }
    if (t2k_team_workspace(team) == NULL) {
        return T2K_ERR_NOMEM;
    }
    share(team, table, args, tiles);
    t2k_team_barrier(team);
    return T2K_OK;
}

struct job {
    const t2k_attention_args *args;
    const t2k_table *table;
    size_t tiles;
};

static void run(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    share(team, job->table, job->args, job->tiles);
}

t2k_status t2k_attention(const t2k_attention_args *args)
{
    struct job job = {args, t2k_table_get(), 0};
    if (job.table == NULL) {
        return T2K_ERR_ISA;
    }
    t2k_status status = check(args, &job.tiles);
    if (status != T2K_OK || job.tiles == 0) {
        return status;
    }
    /* Per pair of query and key: 2 fused multiply-adds a channel, an exponential, the packing. */
    double pairs = (double)args->items * (double)args->heads * (double)args->queries *
                   ((double)args->keys + 1.0);
    int threads = t2k_threads_for_work(pairs * (0.05 * (double)args->head_dim + 1.0));
    if ((size_t)threads > job.tiles) {
        threads = (int)job.tiles;
    }
    return t2k_parallel_team(threads, 1, run, &job);
}
