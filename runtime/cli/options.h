/* The options of t2 run. */
#ifndef T2_CLI_OPTIONS_H
#define T2_CLI_OPTIONS_H

#include "t2.h"

typedef struct run_options {
    const char *model;
    const char *prompt; /* one of prompt and ids */
    const char *ids;
    const char *mask; /* NULL: as the model's config.json says */
    const char *check;
    const char *out;
    double tol;
    double temp;
    int64_t expert;           /* T2_EXPERT_AUTO or an index */
    const char *expert_files; /* "A.safetensors:0.5,B": in place of `expert`, or NULL */
    int own_expert;           /* --expert names the model's rule, or an index */
    const char *factors, *per_row, *weights;
    t2_way way;
    t2_mix_rule rule;
    int64_t components; /* of T2_WAY_DELTA; 0: all */
    int64_t threads;    /* 0: default */
    int64_t count;      /* -n, new tokens */
    int64_t repeat;
    uint64_t seed;
    int json;
    int explain;
    int training;
} run_options;

/* -1 when the command should go on, else the exit code (help was printed, or wrong usage). */
int run_options_parse(int argc, char **argv, run_options *options);

/* --expert's value: "auto" or an index; 0 where it is neither. */
int run_options_expert(const char *text, int64_t *expert);

#endif
