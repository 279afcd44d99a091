/* Elementwise operations: the elements, or rows, shared among threads. */
#include "ops/args.h"
#include "ops/team.h"

#define EXP_NS 0.3
#define MEMORY_NS 0.15 /* relu, add, scale */
#define GRAIN 1024     /* elements: whole cache lines of any operand */

struct job {
    t2k_unary_fn *unary; /* one of the three */
    t2k_binary_fn *binary;
    t2k_scale_columns_fn *columns;
    size_t n; /* elements; rows of columns */
    size_t cols, ldx, ldy;
    const float *X, *Z; /* Z: also the scale of columns */
    float *Y;
};

static void body(t2k_team *team, void *arg)
{
    const struct job *job = arg;
    size_t first, last;
    t2k_team_share(team, job->n, job->columns != NULL ? 1 : GRAIN, &first, &last);
    if (first == last) {
        return;
    }
    const size_t n = last - first;
    if (job->unary != NULL) {
        job->unary(n, job->X + first, job->Y + first);
    } else if (job->binary != NULL) {
        job->binary(n, job->X + first, job->Z + first, job->Y + first);
    } else {
        job->columns(n, job->cols, job->X + first * job->ldx, job->ldx, job->Z,
                     job->Y + first * job->ldy, job->ldy);
    }
}

static t2k_status run(struct job *job, double work)
{
    if (job->n == 0) {
        return T2K_OK;
    }
    return t2k_parallel_team(t2k_threads_for_work(work), 0, body, job);
}

/* Each name picks its slot of the table. */
#define UNARY(name, ns_per_element)                                               \
    t2k_status t2k_##name(int64_t n, const float *X, float *Y)                    \
    {                                                                             \
        if (t2k_bad_vector(n, X, sizeof *X) || t2k_bad_vector(n, Y, sizeof *Y)) { \
            return T2K_ERR_ARG;                                                   \
        }                                                                         \
        const t2k_table *table = t2k_table_get();                                 \
        if (table == NULL) {                                                      \
            return T2K_ERR_ISA;                                                   \
        }                                                                         \
        struct job job = {.unary = table->name, .n = (size_t)n, .X = X, .Y = Y};  \
        return run(&job, (ns_per_element) * (double)n);                           \
    }

UNARY(exp, EXP_NS)
UNARY(log, EXP_NS)
UNARY(gelu, EXP_NS)
UNARY(gelu_tanh, EXP_NS)
UNARY(silu, EXP_NS)
UNARY(relu, MEMORY_NS)

#define BINARY(name)                                                                      \
    t2k_status t2k_##name(int64_t n, const float *X, const float *Z, float *Y)            \
    {                                                                                     \
        if (t2k_bad_vector(n, X, sizeof *X) || t2k_bad_vector(n, Z, sizeof *Z) ||         \
            t2k_bad_vector(n, Y, sizeof *Y)) {                                            \
            return T2K_ERR_ARG;                                                           \
        }                                                                                 \
        const t2k_table *table = t2k_table_get();                                         \
        if (table == NULL) {                                                              \
            return T2K_ERR_ISA;                                                           \
        }                                                                                 \
        struct job job = {.binary = table->name, .n = (size_t)n, .X = X, .Z = Z, .Y = Y}; \
        return run(&job, MEMORY_NS * (double)n);                                          \
    }

BINARY(add)
BINARY(mul)

t2k_status t2k_scale_columns(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                             const float *scale, float *Y, int64_t ldy)
{
    if (t2k_bad_matrix(rows, cols, X, ldx, sizeof *X) ||
        t2k_bad_matrix(rows, cols, Y, ldy, sizeof *Y) || t2k_bad_in_place(rows, X, ldx, Y, ldy) ||
        (rows > 0 && t2k_bad_vector(cols, scale, sizeof *scale))) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    struct job job = {
        .columns = table->scale_columns,
        .n = cols > 0 ? (size_t)rows : 0,
        .cols = (size_t)cols,
        .ldx = (size_t)ldx,
        .ldy = (size_t)ldy,
        .X = X,
        .Z = scale,
        .Y = Y,
    };
    return run(&job, (double)rows * (5.0 + MEMORY_NS * (double)cols));
}
