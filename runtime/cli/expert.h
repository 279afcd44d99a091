/* What the parts of t2 expert, and t2 run with experts, share. */
#ifndef T2_CLI_EXPERT_H
#define T2_CLI_EXPERT_H

#include "cli.h"

/* Options of all actions; which of them an action takes is in its table entry. */
typedef struct expert_options {
    const char *factors, *out, *name, *model, *prefix, *order, *kind, *squash, *normaliser, *rule,
        *weights;
    double max_mult, strength, factor, random;
    uint64_t seed;
    int json, has_factor;
    int count; /* arguments that are no options */
    char **words;
} expert_options;

/* Actions; each returns the exit code. */
int expert_new(const expert_options *o);
int expert_show(const expert_options *o);
int expert_list(const expert_options *o);
int expert_check(const expert_options *o);
int expert_diff(const expert_options *o);
int expert_mix(const expert_options *o);
int expert_scale(const expert_options *o);
int expert_import(const expert_options *o);
int expert_merge(const expert_options *o);

/* Experts with weights from words such as "a.safetensors:0.5" (weight 1 where none is given). */
typedef struct cli_experts {
    int64_t count;
    t2_expert **experts;
    double *alpha;
} cli_experts;
/* Adds the experts of one word, which may name several, separated by commas. */
t2_status cli_experts_add(cli_experts *list, const char *word, t2_error *err);
t2_status cli_experts_add_one(cli_experts *list, const char *path, double alpha, t2_error *err);
/* Cuts the word at its first comma and the weight off it (1 where there is none); returns what
 * follows the comma, NULL at the end. */
char *cli_expert_word(char *word, double *alpha);
void cli_experts_free(cli_experts *list);
/* Is there anything to mix? Not for one expert of weight 1, but under rules that normalise anew or
 * leave out the squash. */
int cli_experts_mixed(const cli_experts *list, t2_mix_rule rule);

/* One expert from all of the list, with their weights; for matrices that a line of the file
 * `weights` (or NULL) names, with the weights there. */
t2_status cli_experts_mix(const cli_experts *from, const char *weights, const t2_factors *factors,
                          t2_mix_rule rule, const char *name, t2_expert **mixed, t2_error *err);

/* 0 for an unknown name. */
int cli_mix_rule(const char *text, t2_mix_rule *rule);
int cli_way(const char *text, t2_way *way);

#endif
