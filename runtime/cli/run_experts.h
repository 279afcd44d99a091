/* Experts of t2 run: from the command line to what a forward pass takes. */
#ifndef T2_CLI_RUN_EXPERTS_H
#define T2_CLI_RUN_EXPERTS_H

#include "expert.h"
#include "options.h"

typedef struct run_experts {
    t2_factors *factors;
    t2_adapter *adapter;
    t2_adaptation *adaptation;
    cli_experts from;
    int64_t *expert_rows; /* (L, N); NULL: the same for all */
    double *alpha;        /* (lines, experts) of a file with mixtures */
    int64_t rows;
} run_experts;

/* Opens what the options name for a call of (L, N) tokens, and puts it in use for the session. -1,
 * or the exit code. Does nothing where no expert file is named. */
int run_experts_open(run_experts *x, const run_options *o, const t2_model *model,
                     t2_session *session, int64_t L, int64_t N);
void run_experts_free(run_experts *x, t2_session *session);

/* The plan as a table, on `out`. */
void run_experts_explain(FILE *out, const run_experts *x);

#endif
