/* t2 expert: making, looking at and combining experts. */
#include "expert.h"

#include "io/error.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: t2 expert ACTION [OPTIONS] [FILES]\n\n"
    "  new    --factors F -o FILE     an expert that changes nothing, or a random one\n"
    "  show   FILE...                 what a file holds; with --factors F its scales\n"
    "  list   DIR                     the experts in a folder, a line each\n"
    "  mix    --factors F -o FILE A[:w] B[:w]...\n"
    "                                 one expert from several; w is 1 where none is given\n"
    "  scale  --factors F -o FILE --factor X A\n"
    "                                 z = 1 + X (z - 1): less or more of an expert\n"
    "  diff   --factors F A B         how two experts differ, matrix by matrix\n"
    "  import --factors F -o FILE IN  from converted checkpoints of other programs\n"
    "  merge  --model M --factors F -o FILE A[:w]...\n"
    "                                 the model's weights with the expert worked in\n"
    "  check  --factors F FILE...     does an expert belong to these factors?\n\n"
    "  --factors F            factor file of t2 svd\n"
    "  -o, --out FILE         file to write\n"
    "  --name NAME            name in the file (its file name without ending)\n"
    "  --kind svf|channel     what is scaled: singular values, or outputs (svf); channel takes\n"
    "                         --model in place of --factors\n"
    "  --squash sigmoid|identity|relu-delta\n"
    "                         how stored values become scales (sigmoid)\n"
    "  --max-mult X           of sigmoid: a = X / (1 + exp(-p)) (2)\n"
    "  --strength X           of relu-delta: S' = max(0, S + X p) (1)\n"
    "  --normaliser on|off    keep the sum of the singular values (on)\n"
    "  --random SIGMA         normal deviations of that size in place of none\n"
    "  --seed S               of them (0)\n"
    "  --rule zeff|a|delta|raw  how experts mix (zeff); raw is the published behaviour\n"
    "  --compat sakana        the same as --rule raw\n"
    "  --weights FILE         mix, merge: other weights for single matrices, lines PATTERN w1 ... "
    "wK;\n"
    "                         * and ? in PATTERN; the last line that matches counts\n"
    "  --factor X             of scale\n"
    "  --prefix P             import: only names that begin with P, without it\n"
    "  --order FILE           import: matrix names, a line each, for files with positions\n"
    "  --json                 show, list, diff: JSON\n"
    "  --help                 this text\n\n"
    "Formulas and the file format: docs/experts.md\n";

enum {
    OPT_FACTORS = 256,
    OPT_NAME,
    OPT_KIND,
    OPT_SQUASH,
    OPT_MAX_MULT,
    OPT_STRENGTH,
    OPT_NORMALISER,
    OPT_RANDOM,
    OPT_SEED,
    OPT_RULE,
    OPT_COMPAT,
    OPT_WEIGHTS,
    OPT_FACTOR,
    OPT_PREFIX,
    OPT_ORDER,
    OPT_MODEL,
    OPT_JSON
};

static const struct option options[] = {{"factors", required_argument, NULL, OPT_FACTORS},
                                        {"out", required_argument, NULL, 'o'},
                                        {"name", required_argument, NULL, OPT_NAME},
                                        {"kind", required_argument, NULL, OPT_KIND},
                                        {"squash", required_argument, NULL, OPT_SQUASH},
                                        {"max-mult", required_argument, NULL, OPT_MAX_MULT},
                                        {"strength", required_argument, NULL, OPT_STRENGTH},
                                        {"normaliser", required_argument, NULL, OPT_NORMALISER},
                                        {"random", required_argument, NULL, OPT_RANDOM},
                                        {"seed", required_argument, NULL, OPT_SEED},
                                        {"rule", required_argument, NULL, OPT_RULE},
                                        {"compat", required_argument, NULL, OPT_COMPAT},
                                        {"weights", required_argument, NULL, OPT_WEIGHTS},
                                        {"factor", required_argument, NULL, OPT_FACTOR},
                                        {"prefix", required_argument, NULL, OPT_PREFIX},
                                        {"order", required_argument, NULL, OPT_ORDER},
                                        {"model", required_argument, NULL, OPT_MODEL},
                                        {"json", no_argument, NULL, OPT_JSON},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

enum { NEEDS_FACTORS = 1, NEEDS_OUT = 2, NEEDS_MODEL = 4, NEEDS_FACTOR = 8 };

static const struct action {
    const char *name;
    int (*run)(const expert_options *o);
    int needs;
    int least, most; /* arguments that are no options */
} actions[] = {
    {"new", expert_new, NEEDS_OUT, 0, 0},
    {"show", expert_show, 0, 1, 1 << 20},
    {"list", expert_list, 0, 1, 1},
    {"mix", expert_mix, NEEDS_OUT, 1, 1 << 20},
    {"scale", expert_scale, NEEDS_OUT | NEEDS_FACTOR, 1, 1},
    {"diff", expert_diff, 0, 2, 2},
    {"import", expert_import, NEEDS_FACTORS | NEEDS_OUT, 1, 1},
    {"merge", expert_merge, NEEDS_FACTORS | NEEDS_OUT | NEEDS_MODEL, 1, 1 << 20},
    {"check", expert_check, NEEDS_FACTORS, 1, 1 << 20},
};
enum { ACTION_COUNT = sizeof actions / sizeof actions[0] };

/* The string of an option with one, NULL for others. */
static const char **text_of(expert_options *o, int option)
{
    switch (option) {
    case OPT_FACTORS:
        return &o->factors;
    case 'o':
        return &o->out;
    case OPT_NAME:
        return &o->name;
    case OPT_KIND:
        return &o->kind;
    case OPT_SQUASH:
        return &o->squash;
    case OPT_NORMALISER:
        return &o->normaliser;
    case OPT_RULE:
        return &o->rule;
    case OPT_WEIGHTS:
        return &o->weights;
    case OPT_PREFIX:
        return &o->prefix;
    case OPT_ORDER:
        return &o->order;
    case OPT_MODEL:
        return &o->model;
    default:
        return NULL;
    }
}

/* 0 where the value is wrong. */
static int set_option(expert_options *o, int option)
{
    const char **text = text_of(o, option);
    if (text != NULL) {
        *text = optarg;
        return 1;
    }
    switch (option) {
    case OPT_MAX_MULT:
        return t2_cli_double(optarg, 1e-30, 1e30, &o->max_mult);
    case OPT_STRENGTH:
        return t2_cli_double(optarg, -1e30, 1e30, &o->strength);
    case OPT_RANDOM:
        return t2_cli_double(optarg, 0.0, 1e6, &o->random);
    case OPT_SEED:
        return t2_cli_uint64(optarg, &o->seed);
    case OPT_FACTOR:
        o->has_factor = 1;
        return t2_cli_double(optarg, -T2_MIX_LIMIT, T2_MIX_LIMIT, &o->factor);
    case OPT_COMPAT:
        o->rule = "raw";
        return strcmp(optarg, "sakana") == 0;
    default:
        o->json = 1;
        return 1;
    }
}

static int check_needs(const struct action *action, const expert_options *o)
{
    if (o->count < action->least || o->count > action->most) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert %s: %d files; see 't2 expert --help'",
                           action->name, o->count);
    }
    const char *missing = (action->needs & NEEDS_FACTORS) && o->factors == NULL ? "--factors"
                          : (action->needs & NEEDS_OUT) && o->out == NULL       ? "--out"
                          : (action->needs & NEEDS_MODEL) && o->model == NULL   ? "--model"
                          : (action->needs & NEEDS_FACTOR) && !o->has_factor    ? "--factor"
                                                                                : NULL;
    if (o->weights != NULL && action->run != expert_mix && action->run != expert_merge) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert %s: --weights goes with mix and merge",
                           action->name);
    }
    if (missing != NULL) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert %s: %s is needed; see 't2 expert --help'",
                           action->name, missing);
    }
    return -1;
}

int t2_cli_expert(int argc, char **argv)
{
    const struct action *action = NULL;
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return T2_EXIT_OK;
    }
    for (int i = 0; argc >= 2 && i < ACTION_COUNT; i++) {
        action = strcmp(actions[i].name, argv[1]) == 0 ? &actions[i] : action;
    }
    if (action == NULL) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert: unknown action '%s'; see 't2 expert --help'",
                           argc >= 2 ? argv[1] : "");
    }
    expert_options o = {.max_mult = 2.0, .strength = 1.0};
    int c;
    opterr = 0;
    optind = 2;
    while ((c = getopt_long(argc, argv, ":ho:", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return T2_EXIT_OK;
        }
        if (c == '?' || c == ':') {
            return t2_cli_bad_option("expert", argv, c);
        }
        if (!set_option(&o, c)) {
            return t2_cli_bad_value("expert", argv);
        }
    }
    o.count = argc - optind;
    o.words = argv + optind;
    int code = check_needs(action, &o);
    return code >= 0 ? code : action->run(&o);
}

/* ---- shared --------------------------------------------------------------------------------- */

int cli_mix_rule(const char *text, t2_mix_rule *rule)
{
    static const char *const names[] = {"zeff", "a", "delta", "raw"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *rule = (t2_mix_rule)i;
            return 1;
        }
    }
    return 0;
}

int cli_way(const char *text, t2_way *way)
{
    for (int i = T2_WAY_PLAN; i <= T2_WAY_AUTO; i++) {
        if (strcmp(text, t2_way_str((t2_way)i)) == 0) {
            *way = (t2_way)i;
            return 1;
        }
    }
    return 0;
}

/* Also one that is no weight, such as nan or 1e400. */
static int is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return end != text && *end == '\0';
}

t2_status cli_experts_add_one(cli_experts *list, const char *path, double alpha, t2_error *err)
{
    if (path[0] == '\0') {
        return t2_fail(err, T2_ERR_ARG, "an expert without the name of a file");
    }
    size_t n = (size_t)list->count + 1;
    t2_expert **experts = realloc(list->experts, n * sizeof experts[0]);
    list->experts = experts != NULL ? experts : list->experts;
    double *weights = realloc(list->alpha, n * sizeof weights[0]);
    list->alpha = weights != NULL ? weights : list->alpha;
    if (experts == NULL || weights == NULL) {
        err->status = T2_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->status;
    }
    t2_status status = t2_expert_open(path, &list->experts[list->count], err);
    const char *colon = strrchr(path, ':');
    if (status == T2_OK) {
        list->alpha[list->count++] = alpha;
    } else if (status == T2_ERR_IO && colon != NULL && is_number(colon + 1)) {
        status = t2_fail(err, T2_ERR_ARG, "%.300s: expected a weight from %g to %g", path,
                         -T2_MIX_LIMIT, T2_MIX_LIMIT);
    }
    return status;
}

char *cli_expert_word(char *word, double *alpha)
{
    char *comma = strchr(word, ','), *colon;
    *alpha = 1.0;
    if (comma != NULL) {
        *comma = '\0';
    }
    /* A colon that no number follows belongs to the name. */
    colon = strrchr(word, ':');
    if (colon != NULL && t2_cli_double(colon + 1, -T2_MIX_LIMIT, T2_MIX_LIMIT, alpha)) {
        *colon = '\0';
    }
    return comma != NULL ? comma + 1 : NULL;
}

t2_status cli_experts_add(cli_experts *list, const char *word, t2_error *err)
{
    char *copy = malloc(strlen(word) + 1);
    if (copy == NULL) {
        err->status = T2_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->status;
    }
    strcpy(copy, word);
    t2_status status = T2_OK;
    for (char *rest = copy; rest != NULL && status == T2_OK;) {
        char *path = rest;
        double alpha;
        rest = cli_expert_word(path, &alpha);
        status = cli_experts_add_one(list, path, alpha, err);
    }
    free(copy);
    return status;
}

int cli_experts_mixed(const cli_experts *list, t2_mix_rule rule)
{
    return list->count > 1 || list->alpha[0] != 1.0 || rule == T2_MIX_A || rule == T2_MIX_RAW;
}

void cli_experts_free(cli_experts *list)
{
    for (int64_t i = 0; i < list->count; i++) {
        t2_expert_release(list->experts[i]);
    }
    free(list->experts);
    free(list->alpha);
}
