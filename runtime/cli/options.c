/* The options of t2 run. */
#include "options.h"

#include "cli.h"
#include "expert.h"

#include <getopt.h>
#include <string.h>

#define DEFAULT_COUNT 64       /* new tokens; the help says both */
#define DEFAULT_TOLERANCE 1e-5 /* of --check */

static const char help[] =
    "usage: t2 run MODEL (--prompt TEXT | --ids FILE|-) [OPTIONS]\n\n"
    "Runs the model in the folder MODEL: a forward pass over token ids, or, for a causal\n"
    "character model, the continuation of a prompt. Results go to standard output, the rest\n"
    "(ISA, threads, experts, time, fingerprint) to standard error.\n\n"
    "  --ids FILE|-      one sequence of integers a line, or safetensors with the I64 tensor\n"
    "                    ids (L, N) or (L)\n"
    "  --mask WHAT       none, causal, or safetensors with the tensor mask, BOOL (true = blocked)\n"
    "                    or F32 (added), (L, L) or (N * heads, L, L); default: the model's own\n"
    "  --out FILE        write safetensors with the F32 tensor logits, (L, N, V); (L, V) where\n"
    "                    ids is (L)\n"
    "  --check FILE      compare with the tensor logits (F32 or F64) of FILE; exit code 5 where\n"
    "                    max|difference| / max|reference| > tolerance\n"
    "  --tol X           that tolerance (1e-5)\n"
    "  --repeat R        time R passes (1); the median and the share of the peak are printed\n"
    "  --training        dropout acts, as in the notebook; --seed names its random numbers\n"
    "  --prompt TEXT     continue TEXT until the end symbol\n"
    "  -n COUNT          at most COUNT new characters (64)\n"
    "  --temp T          0: greedy; else sample at temperature T (0)\n"
    "  --seed S          of sampling and dropout (0)\n"
    "  --expert auto|I|FILE[:w][,FILE[:w]...]\n"
    "                    choose experts by the model's rule, take the model's expert I "
    "everywhere,\n"
    "                    or the expert of a file, or a mixture of several (auto)\n"
    "  --weights FILE    other weights for single matrices: lines PATTERN w1 ... wK for the K\n"
    "                    experts of --expert; * and ? in PATTERN; the last line that matches "
    "counts\n"
    "  --factors F       factor file of t2 svd, for SVF experts\n"
    "  --expert-per-row FILE\n"
    "                    a line for each sequence: FILE[:w][,...] or - for the base; or "
    "safetensors\n"
    "                    with expert I32 (L, N), -1 the base, or alpha F32 (L, N, K), of the K\n"
    "                    experts that --expert names\n"
    "  --apply WAY       plan, rebuild, factored, delta, or auto: as measured here (plan)\n"
    "  --rule zeff|a|delta|raw  how experts mix (zeff); --compat sakana is raw\n"
    "  --components K    by delta: the K largest changes of each matrix only\n"
    "  --explain         the plan and its expected costs\n"
    "  --threads N       exactly N threads\n"
    "  --json            one JSON object on standard output\n"
    "  --help            this text\n\n"
    "examples:\n"
    "  t2 run runtime/models/t2-chars --prompt 'Rhagga='\n"
    "  t2 run MODEL --ids ids.txt --out logits.safetensors\n"
    "  t2 run MODEL --ids ids.safetensors --check logits.safetensors --tol 1e-6\n";

enum {
    OPT_PROMPT = 256,
    OPT_IDS,
    OPT_MASK,
    OPT_EXPERT,
    OPT_THREADS,
    OPT_CHECK,
    OPT_TOL,
    OPT_OUT,
    OPT_JSON,
    OPT_TEMP,
    OPT_SEED,
    OPT_REPEAT,
    OPT_TRAINING,
    OPT_FACTORS,
    OPT_PER_ROW,
    OPT_WEIGHTS,
    OPT_APPLY,
    OPT_RULE,
    OPT_COMPAT,
    OPT_COMPONENTS,
    OPT_EXPLAIN
};

static const struct option long_options[] = {
    {"prompt", required_argument, NULL, OPT_PROMPT},
    {"ids", required_argument, NULL, OPT_IDS},
    {"mask", required_argument, NULL, OPT_MASK},
    {"expert", required_argument, NULL, OPT_EXPERT},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"check", required_argument, NULL, OPT_CHECK},
    {"tol", required_argument, NULL, OPT_TOL},
    {"out", required_argument, NULL, OPT_OUT},
    {"json", no_argument, NULL, OPT_JSON},
    {"temp", required_argument, NULL, OPT_TEMP},
    {"seed", required_argument, NULL, OPT_SEED},
    {"repeat", required_argument, NULL, OPT_REPEAT},
    {"training", no_argument, NULL, OPT_TRAINING},
    {"factors", required_argument, NULL, OPT_FACTORS},
    {"expert-per-row", required_argument, NULL, OPT_PER_ROW},
    {"weights", required_argument, NULL, OPT_WEIGHTS},
    {"apply", required_argument, NULL, OPT_APPLY},
    {"rule", required_argument, NULL, OPT_RULE},
    {"compat", required_argument, NULL, OPT_COMPAT},
    {"components", required_argument, NULL, OPT_COMPONENTS},
    {"explain", no_argument, NULL, OPT_EXPLAIN},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

int run_options_expert(const char *text, int64_t *expert)
{
    if (strcmp(text, "auto") == 0) {
        *expert = T2_EXPERT_AUTO;
        return 1;
    }
    return t2_cli_int(text, 0, INT32_MAX, expert);
}

/* 0 where the value is wrong. */
static int set_option(run_options *o, int option)
{
    switch (option) {
    case OPT_PROMPT:
        o->prompt = optarg;
        return 1;
    case OPT_IDS:
        o->ids = optarg;
        return 1;
    case OPT_MASK:
        o->mask = optarg;
        return 1;
    case OPT_CHECK:
        o->check = optarg;
        return 1;
    case OPT_OUT:
        o->out = optarg;
        return 1;
    case OPT_EXPERT:
        o->expert_files = run_options_expert(optarg, &o->expert) ? NULL : optarg;
        o->own_expert = o->expert_files == NULL;
        return optarg[0] != '\0' && optarg[0] != '-';
    case OPT_FACTORS:
        o->factors = optarg;
        return 1;
    case OPT_WEIGHTS:
        o->weights = optarg;
        return 1;
    case OPT_PER_ROW:
        o->per_row = optarg;
        return 1;
    case OPT_APPLY:
        return cli_way(optarg, &o->way);
    case OPT_RULE:
        return cli_mix_rule(optarg, &o->rule);
    case OPT_COMPAT:
        o->rule = T2_MIX_RAW;
        return strcmp(optarg, "sakana") == 0;
    case OPT_COMPONENTS:
        return t2_cli_int(optarg, 1, INT32_MAX, &o->components);
    case OPT_EXPLAIN:
        o->explain = 1;
        return 1;
    case OPT_THREADS:
        return t2_cli_int(optarg, 1, T2_CLI_MAX_THREADS, &o->threads);
    case OPT_TOL:
        return t2_cli_double(optarg, 0.0, 1e30, &o->tol);
    case OPT_TEMP:
        return t2_cli_double(optarg, 0.0, 1e30, &o->temp);
    case OPT_SEED:
        return t2_cli_uint64(optarg, &o->seed);
    case OPT_REPEAT:
        return t2_cli_int(optarg, 1, 1000000, &o->repeat);
    case OPT_JSON:
        o->json = 1;
        return 1;
    case OPT_TRAINING:
        o->training = 1;
        return 1;
    default:
        return t2_cli_int(optarg, 1, 1 << 24, &o->count);
    }
}

/* Options that belong to the other way of running are mistakes, not to be ignored. */
static int check_combination(const run_options *o)
{
    if ((o->prompt != NULL) == (o->ids != NULL)) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "run: exactly one of --prompt and --ids is needed; see 't2 run --help'");
    }
    if (o->prompt != NULL &&
        (o->check != NULL || o->out != NULL || o->mask != NULL || o->repeat > 1 || o->training)) {
        return t2_cli_fail(T2_EXIT_USAGE, "run: --check, --out, --mask, --repeat and --training "
                                          "go with --ids, not with --prompt");
    }
    if (o->prompt != NULL && o->per_row != NULL) {
        return t2_cli_fail(T2_EXIT_USAGE, "run: --expert-per-row goes with --ids: a prompt is one "
                                          "sequence");
    }
    if (o->per_row != NULL && o->own_expert) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           o->expert == T2_EXPERT_AUTO
                               ? "run: --expert auto does not go with --expert-per-row: the "
                                 "model's rule chooses one expert from the mean over all rows, so "
                                 "that each row would depend on the others"
                               : "run: --expert I does not go with --expert-per-row: it is the "
                                 "model's own expert for all rows");
    }
    if (o->expert_files == NULL && o->per_row == NULL &&
        (o->factors != NULL || o->explain || o->components != 0 || o->way != T2_WAY_PLAN)) {
        return t2_cli_fail(T2_EXIT_USAGE, "run: --factors, --apply, --components and --explain go "
                                          "with expert files");
    }
    if (o->weights != NULL && (o->expert_files == NULL || o->per_row != NULL)) {
        return t2_cli_fail(T2_EXIT_USAGE, "run: --weights goes with expert files in --expert, and "
                                          "not with --expert-per-row");
    }
    if (o->check == NULL && o->tol >= 0.0) {
        return t2_cli_fail(T2_EXIT_USAGE, "run: --tol goes with --check");
    }
    if (o->ids != NULL && (o->count != 0 || o->temp >= 0.0)) {
        return t2_cli_fail(T2_EXIT_USAGE, "run: -n and --temp go with --prompt, not with --ids");
    }
    return -1;
}

int run_options_parse(int argc, char **argv, run_options *o)
{
    *o = (run_options){.tol = -1.0, .expert = T2_EXPERT_AUTO, .temp = -1.0, .repeat = 1};
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":hn:", long_options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return T2_EXIT_OK;
        }
        if (c == '?' || c == ':') {
            return t2_cli_bad_option("run", argv, c);
        }
        if (!set_option(o, c)) {
            return t2_cli_bad_value("run", argv);
        }
    }
    if (argc - optind != 1) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "run: expected one model folder, found %d arguments; "
                           "see 't2 run --help'",
                           argc - optind);
    }
    o->model = argv[optind];
    int code = check_combination(o);
    o->count = o->count > 0 ? o->count : DEFAULT_COUNT;
    o->temp = o->temp >= 0.0 ? o->temp : 0.0;
    o->tol = o->tol >= 0.0 ? o->tol : DEFAULT_TOLERANCE;
    return code;
}
