/* t2k_policy, cross-entropy and log-softmax: rows shared among threads. */
#include "ops/args.h"
#include "ops/team.h"

#define ELEMENT_NS 0.5 /* of a pass with an exponential */
#define ROW_NS 60.0

struct job {
    const t2k_table *table;
    const t2k_policy_args *policy; /* or: */
    size_t rows, cols, ldx, lddy, ldy;
    const float *X, *dY; /* dY: NULL for log-softmax itself */
    float *Y;
};

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->rows, 1, &first, &last);
    if (first == last) {
        return;
    }
    if (job->policy != NULL) {
        job->table->policy(job->policy, first, last);
    } else if (job->dY != NULL) {
        job->table->log_softmax_backward(last - first, job->cols, job->X + first * job->ldx,
                                         job->ldx, job->dY + first * job->lddy, job->lddy,
                                         job->Y + first * job->ldy, job->ldy);
    } else {
        job->table->log_softmax(last - first, job->cols, job->X + first * job->ldx, job->ldx,
                                job->Y + first * job->ldy, job->ldy);
    }
}

static t2k_status run(t2k_team *team, struct job *job)
{
    job->table = t2k_table_get();
    if (job->table == NULL) {
        return T2K_ERR_ISA;
    }
    if (team != NULL) {
        body(team, job);
        t2k_team_barrier(team);
        return T2K_OK;
    }
    const double row = ROW_NS + 4 * ELEMENT_NS * (double)job->cols;
    return t2k_parallel_team(t2k_threads_for_work((double)job->rows * row), 0, body, job);
}

static int bad_labels(const t2k_policy_args *a)
{
    if (a->labels == NULL) {
        return a->log_probs != NULL || a->base_log_probs != NULL || a->weights != NULL;
    }
    for (int64_t i = 0; i < a->rows; i++) {
        if (a->labels[i] >= a->cols) {
            return 1;
        }
    }
    return 0;
}

static int bad_policy(const t2k_policy_args *a)
{
    const size_t element = sizeof *a->logits;
    if (a->size != sizeof *a || a->cols < 1 || (unsigned)a->kl_direction > T2K_KL_BASE_POLICY ||
        t2k_bad_matrix(a->rows, a->cols, a->logits, a->ld_logits, element)) {
        return 1;
    }
    if (a->base != NULL ? t2k_bad_matrix(a->rows, a->cols, a->base, a->ld_base, element)
                        : (a->rows > 0 &&
                           (a->kl != NULL || a->kl_weights != NULL || a->base_log_probs != NULL))) {
        return 1;
    }
    if (a->gradient != NULL &&
        (t2k_bad_matrix(a->rows, a->cols, a->gradient, a->ld_gradient, element) ||
         t2k_bad_in_place(a->rows, a->logits, a->ld_logits, a->gradient, a->ld_gradient) ||
         t2k_bad_in_place(a->rows, a->base, a->ld_base, a->gradient, a->ld_gradient))) {
        return 1;
    }
    return bad_labels(a);
}

t2k_status t2k_policy_team(t2k_team *team, const t2k_policy_args *args)
{
    if (args == NULL || bad_policy(args)) {
        return T2K_ERR_ARG;
    }
    struct job job = {.policy = args, .rows = (size_t)args->rows, .cols = (size_t)args->cols};
    return run(team, &job);
}

t2k_status t2k_policy(const t2k_policy_args *args)
{
    return t2k_policy_team(NULL, args);
}

t2k_status t2k_cross_entropy_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                  int64_t ldx, const int64_t *labels, const float *weights,
                                  float *log_probs, float *dX, int64_t lddx)
{
    if (rows > 0 && labels == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_policy_args args = {.size = sizeof args,
                                  .rows = rows,
                                  .cols = cols,
                                  .logits = X,
                                  .ld_logits = ldx,
                                  .labels = labels,
                                  .weights = labels != NULL ? weights : NULL,
                                  .log_probs = labels != NULL ? log_probs : NULL,
                                  .gradient = dX,
                                  .ld_gradient = lddx};
    return t2k_policy_team(team, &args);
}

t2k_status t2k_cross_entropy(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                             const int64_t *labels, const float *weights, float *log_probs,
                             float *dX, int64_t lddx)
{
    return t2k_cross_entropy_team(NULL, rows, cols, X, ldx, labels, weights, log_probs, dX, lddx);
}

t2k_status t2k_log_softmax_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                int64_t ldx, float *Y, int64_t ldy)
{
    if (t2k_bad_matrix(rows, cols, X, ldx, sizeof *X) ||
        t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) || t2k_bad_in_place(rows, X, ldx, Y, ldy)) {
        return T2K_ERR_ARG;
    }
    struct job job = {.rows = cols > 0 ? (size_t)rows : 0,
                      .cols = (size_t)cols,
                      .ldx = (size_t)ldx,
                      .ldy = (size_t)ldy,
                      .X = X,
                      .Y = Y};
    return run(team, &job);
}

t2k_status t2k_log_softmax(int64_t rows, int64_t cols, const float *X, int64_t ldx, float *Y,
                           int64_t ldy)
{
    return t2k_log_softmax_team(NULL, rows, cols, X, ldx, Y, ldy);
}

t2k_status t2k_log_softmax_backward_team(t2k_team *team, int64_t rows, int64_t cols, const float *Y,
                                         int64_t ldy, const float *dY, int64_t lddy, float *dX,
                                         int64_t lddx)
{
    if (t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) ||
        t2k_bad_matrix(rows, cols, dY, lddy, sizeof *dY) ||
        t2k_bad_matrix(rows, cols, dX, lddx, sizeof *dX) ||
        t2k_bad_in_place(rows, Y, ldy, dX, lddx) || t2k_bad_in_place(rows, dY, lddy, dX, lddx)) {
        return T2K_ERR_ARG;
    }
    struct job job = {.rows = cols > 0 ? (size_t)rows : 0,
                      .cols = (size_t)cols,
                      .ldx = (size_t)ldy,
                      .lddy = (size_t)lddy,
                      .ldy = (size_t)lddx,
                      .X = Y,
                      .dY = dY,
                      .Y = dX};
    return run(team, &job);
}

t2k_status t2k_log_softmax_backward(int64_t rows, int64_t cols, const float *Y, int64_t ldy,
                                    const float *dY, int64_t lddy, float *dX, int64_t lddx)
{
    return t2k_log_softmax_backward_team(NULL, rows, cols, Y, ldy, dY, lddy, dX, lddx);
}
