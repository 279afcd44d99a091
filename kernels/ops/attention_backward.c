/* Gradients of attention: checks the arguments and gives each thread its share of (item, head of
 * keys and values). What is summed over queries lies within one of them, so that the number of
 * threads cannot show. */
#include "ops/args.h"
#include "ops/attention.h"
#include "ops/team.h"

#include <string.h>

_Static_assert(T2K_ATTENTION_BACKWARD_FLOATS(T2K_ATTENTION_WIDTH) * sizeof(float) <=
                   T2K_WORKSPACE_BYTES,
               "part of a thread's workspace");

struct job {
    const t2k_table *table;
    t2k_attention_gradients args;
    size_t units; /* (item, head of keys and values) in all; 0 when there is nothing to compute */
};

static int bad_args(const t2k_attention_backward_args *args, const t2k_attention_args *a)
{
    const int64_t width = a->heads * a->head_dim, kv_width = a->kv_heads * a->head_dim;
    return args->dout_row < 0 || args->dout_item < 0 || (a->queries > 0 && args->dout == NULL) ||
           t2k_too_far(a->queries, args->dout_row, a->items, args->dout_item, width,
                       sizeof(float)) ||
           t2k_attention_bad_output(args->dq, a->queries, args->dq_row, a->items, args->dq_item,
                                    width) ||
           t2k_attention_bad_output(args->dk, a->keys, args->dk_row, a->items, args->dk_item,
                                    kv_width) ||
           t2k_attention_bad_output(args->dv, a->keys, args->dv_row, a->items, args->dv_item,
                                    kv_width);
}

/* T2K_OK, with what there is to do in *job. */
static t2k_status check(const t2k_attention_backward_args *args, struct job *job)
{
    t2k_attention_args *scores = &job->args.scores, *values = &job->args.values;
    job->units = 0;
    if (args == NULL || args->size != sizeof *args || !t2k_attention_complete(args->of, scores) ||
        t2k_attention_bad_sizes(scores)) {
        return T2K_ERR_ARG;
    }
    if ((scores->queries == 0 && scores->keys == 0) || scores->items == 0 || scores->heads == 0 ||
        scores->head_dim == 0) {
        return T2K_OK;
    }
    if (t2k_attention_bad_inputs(scores) || bad_args(args, scores)) {
        return T2K_ERR_ARG;
    }
    scores->out = args->dq;
    scores->out_row = args->dq_row;
    scores->out_item = args->dq_item;
    *values = *scores;
    values->q = args->dout;
    values->q_row = args->dout_row;
    values->q_item = args->dout_item;
    values->k = scores->v;
    values->k_row = scores->v_row;
    values->k_item = scores->v_item;
    values->scale = 1.0f;
    values->mask_kind = T2K_MASK_NONE;
    job->args.dk = args->dk;
    job->args.dv = args->dv;
    job->args.dk_row = args->dk_row;
    job->args.dk_item = args->dk_item;
    job->args.dv_row = args->dv_row;
    job->args.dv_item = args->dv_item;
    job->units = (size_t)scores->items * (size_t)scores->kv_heads;
    return T2K_OK;
}

static void share(t2k_team *team, const struct job *job)
{
    const size_t heads = (size_t)job->args.scores.kv_heads;
    float *workspace = t2k_team_workspace(team);
    size_t unit, last;
    t2k_team_share(team, job->units, 1, &unit, &last);
    for (; unit < last; unit++) {
        job->table->attention_backward(&job->args, unit / heads, unit % heads, workspace);
    }
}

static t2k_status prepare(const t2k_attention_backward_args *args, struct job *job)
{
    job->table = t2k_table_get();
    return job->table == NULL ? T2K_ERR_ISA : check(args, job);
}

t2k_status t2k_attention_backward_team(t2k_team *team, const t2k_attention_backward_args *args)
{
    struct job job;
    t2k_status status = prepare(args, &job);
    if (status != T2K_OK || job.units == 0) {
        return status;
    }
    if (t2k_team_workspace(team) == NULL) {
        return T2K_ERR_NOMEM;
    }
    share(team, &job);
    t2k_team_barrier(team);
    return T2K_OK;
}

static void run(t2k_team *team, void *arg)
{
    share(team, arg);
}

t2k_status t2k_attention_backward(const t2k_attention_backward_args *args)
{
    struct job job;
    t2k_status status = prepare(args, &job);
    if (status != T2K_OK || job.units == 0) {
        return status;
    }
    /* As in the forward pass, with five products in place of two. */
    const t2k_attention_args *a = &job.args.scores;
    const double pairs =
        (double)a->items * (double)a->heads * ((double)a->queries + 1.0) * ((double)a->keys + 1.0);
    int threads = t2k_threads_for_work(pairs * (0.125 * (double)a->head_dim + 1.5));
    if ((size_t)threads > job.units) {
        threads = (int)job.units;
    }
    return t2k_parallel_team(threads, 1, run, &job);
}
