/* The options of `t2bench run` and `t2bench list`: collected as texts from the environment, from
 * Google Benchmark's flags and from the command line (the later one wins; lists given several
 * times there add up), then read. */
#define _GNU_SOURCE /* getopt_long */
#include "options.h"

#include <ctype.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_kind { FLAG, VALUE, LIST };

enum option_name {
    FILTER,
    ISA,
    THREADS,
    SETS,
    SIZES,
    OPERANDS,
    REPETITIONS,
    MIN_TIME,
    PRECISION,
    BUDGET,
    PEERS,
    AGAINST,
    JSON,
    CSV,
    MD,
    SEED,
    VALUES, /* the rest are flags */
    COLD = VALUES,
    QUICK,
    FULL,
    TARGETS,
    DRY_RUN,
    HOST,
    LIST_CASES,
    HELP,
    OPTIONS
};

static const struct {
    const char *name;
    enum option_kind kind;
    const char *theirs; /* the library's spelling behind "--benchmark_", NULL: none */
} known[OPTIONS] = {
    [FILTER] = {"filter", VALUE, "filter"},
    [ISA] = {"isa", LIST, NULL},
    [THREADS] = {"threads", LIST, NULL},
    [SETS] = {"sets", LIST, NULL},
    [SIZES] = {"sizes", VALUE, NULL},
    [OPERANDS] = {"operands", LIST, NULL},
    [REPETITIONS] = {"repetitions", VALUE, "repetitions"},
    [MIN_TIME] = {"min-time", VALUE, "min_time"},
    [PRECISION] = {"precision", VALUE, NULL},
    [BUDGET] = {"budget", VALUE, NULL},
    [PEERS] = {"peers", LIST, NULL},
    [AGAINST] = {"against", VALUE, NULL},
    [JSON] = {"json", VALUE, NULL},
    [CSV] = {"csv", VALUE, NULL},
    [MD] = {"md", VALUE, NULL},
    [SEED] = {"seed", VALUE, NULL},
    [COLD] = {"cold", FLAG, NULL},
    [QUICK] = {"quick", FLAG, NULL},
    [FULL] = {"full", FLAG, NULL},
    [TARGETS] = {"targets", FLAG, NULL},
    [DRY_RUN] = {"dry-run", FLAG, NULL},
    [HOST] = {"host", FLAG, NULL},
    [LIST_CASES] = {"list", FLAG, "list_tests"},
    [HELP] = {"help", FLAG, NULL},
};

static const char help[] =
    "usage: t2bench [run] [options] [--benchmark_*=...]\n"
    "Times every kernel on every usable ISA, and other libraries on the same operands in turn.\n"
    "No result that fails verification is timed. (t2bench --help lists the other subcommands.)\n"
    "What is timed:\n"
    "  --quick | --full     under a minute | everything (default: about ten minutes)\n"
    "  --targets            what targets are set for (t2bench report --targets), 40 minutes\n"
    "  --filter RE          cases op/isa/shape/threads[/operands] that match (extended RE)\n"
    "  --isa LIST           ISAs; default: all usable ones (T2K_ISA caps them)\n"
    "  --threads LIST       default: 1 and, but for --quick, all\n"
    "  --sets LIST          shape sets (t2bench list --sets), or none\n"
    "  --sizes FILE         adds the shapes of a file: lines \"op shape\"\n"
    "  --operands LIST      hot, cold-weights, cold-all; --cold: all three; default hot, and\n"
    "                       with --full cold ones where that makes sense\n"
    "  --peers LIST         other libraries (t2bench list --peers), none or all\n"
    "  --against FILE       a library with cblas_sgemm, or another t2bench, as one more peer\n"
    "How long:\n"
    "  --budget TIME        for everything, such as 90s or 30m; what does not fit is named;\n"
    "                       with --targets only whole sets are ever left out\n"
    "  --precision PCT      width of the 95 % intervals at which a case is done (default 2 %),\n"
    "                       after 3 to 60 rounds\n"
    "  --repetitions N      exactly N rounds of each case instead\n"
    "  --min-time SECONDS   length of a round\n"
    "  --seed N             of the random order of rounds (default 1)\n"
    "Results:\n"
    "  --json FILE          everything; a folder: FILE is named by the machine\n"
    "  --csv FILE, --md FILE    one line per case. \"-\" is stdout, in place of the table\n"
    "  --host               puts the host's name into the JSON\n"
    "  --list               prints the names of the cases and exits\n"
    "  --dry-run            prints cases, contenders and estimated time; times no case\n"
    "Each --foo-bar VALUE has its default in the environment variable BENCH_FOO_BAR. Google\n"
    "Benchmark's flags pass through: --benchmark_format=json|console|csv prints on stdout in\n"
    "place of the table, --benchmark_out=FILE (--benchmark_out_format) writes a file.\n"
    "Exit status: 0 fine, 1 a wrong result or a failure, 2 usage, 130 interrupted.\n";

/* ---- collecting ------------------------------------------------------------------------------ */

struct texts {
    const char *value[OPTIONS]; /* NULL: not given; flags: "" */
    char from[OPTIONS][40];     /* "--isa", "BENCH_ISA", for messages */
    const char *format, *out, *out_format;
    int theirs;   /* flags that go to the library */
    char **their; /* (theirs), NULL-terminated */
};

/* A text that lives as long as the options; NULL when out of memory. */
static char *keep(struct bench_options *o, char *text)
{
    char **more = realloc(o->storage, (size_t)(o->stored + 1) * sizeof *more);
    if (more == NULL || text == NULL) {
        o->storage = more != NULL ? more : o->storage;
        free(text);
        return NULL;
    }
    o->storage = more;
    o->storage[o->stored++] = text;
    return text;
}

static char *joined(const char *a, const char *b)
{
    size_t size = strlen(a) + strlen(b) + 2;
    char *text = malloc(size);
    if (text != NULL) {
        snprintf(text, size, "%s,%s", a, b);
    }
    return text;
}

/* Takes a value; a list that was given in the same place already grows. */
static int take(struct bench_options *o, struct texts *t, int option, const char *from,
                const char *value)
{
    char *text = known[option].kind == LIST && strcmp(t->from[option], from) == 0
                     ? joined(t->value[option], value)
                     : strdup(value);
    t->value[option] = keep(o, text);
    snprintf(t->from[option], sizeof t->from[option], "%s", from);
    if (t->value[option] == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    return 0;
}

static int from_environment(struct bench_options *o, struct texts *t)
{
    int status = 0;
    for (int i = 0; i < VALUES && status == 0; i++) {
        char name[40] = "BENCH_";
        size_t length = strlen(name);
        for (const char *c = known[i].name; *c != '\0'; c++) {
            name[length++] = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
        }
        name[length] = '\0';
        const char *value = getenv(name);
        if (value != NULL && value[0] != '\0') {
            status = take(o, t, i, name, value);
        }
    }
    return status;
}

static int is_true(const char *text)
{
    static const char *const no[] = {"0", "f", "n", "false", "no", "off"};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        if (strcmp(text, no[i]) == 0) {
            return 0;
        }
    }
    return 1;
}

/* One flag of the library: ours to answer, or to be passed on. */
static int take_theirs(struct bench_options *o, struct texts *t, char *argument)
{
    const char *name = argument + strlen("--benchmark_");
    const char *equals = strchr(name, '=');
    size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const char *value = equals != NULL ? equals + 1 : "true";
    for (int i = 0; i < OPTIONS; i++) {
        const char *theirs = known[i].theirs;
        if (theirs == NULL || strlen(theirs) != length || strncmp(name, theirs, length) != 0) {
            continue;
        }
        if (known[i].kind == FLAG && !is_true(value)) {
            return 0;
        }
        char from[40];
        snprintf(from, sizeof from, "--benchmark_%s", theirs);
        return take(o, t, i, from, value);
    }
    const struct {
        const char *name;
        const char **value;
    } files[] = {{"format", &t->format}, {"out", &t->out}, {"out_format", &t->out_format}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strlen(files[i].name) == length && strncmp(name, files[i].name, length) == 0) {
            *files[i].value = value;
            return 0;
        }
    }
    t->their[t->theirs++] = argument;
    return 0;
}

static int from_arguments(struct bench_options *o, struct texts *t, int argc, char **argv)
{
    struct option options[OPTIONS + 1] = {0};
    for (int i = 0; i < OPTIONS; i++) {
        int argument = known[i].kind == FLAG ? no_argument : required_argument;
        options[i] = (struct option){known[i].name, argument, NULL, 256 + i};
    }
    int status = 0, option;
    optind = 0; /* start afresh: main() may have looked */
    while (status == 0 && (option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == ':') {
            return bench_usage_error("%s needs a value", argv[optind - 1]);
        }
        if (option < 256) {
            return bench_usage_error("%s: not understood; see t2bench run --help",
                                     argv[optind > 1 ? optind - 1 : 1]);
        }
        char from[40];
        snprintf(from, sizeof from, "--%s", known[option - 256].name);
        status = take(o, t, option - 256, from, optarg != NULL ? optarg : "");
    }
    if (status == 0 && optind < argc) {
        status = bench_usage_error("unexpected argument %s; see t2bench --help", argv[optind]);
    }
    return status;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Calls add for each item of a list. */
static int each(struct bench_options *o, const char *from, const char *list,
                int (*add)(struct bench_options *o, const char *from, const char *item))
{
    char *copy = keep(o, strdup(list)), *rest = NULL;
    if (copy == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    char *item = strtok_r(copy, ",", &rest);
    int status = item == NULL ? bench_usage_error("%s: an empty list", from) : 0;
    for (; item != NULL && status == 0; item = strtok_r(NULL, ",", &rest)) {
        status = add(o, from, item);
    }
    return status;
}

static int read_numbers(struct bench_options *o, const struct texts *t)
{
    static const char *const seconds[] = {"s", "ms", "m", "h", NULL};
    static const double second_factors[] = {1.0, 1e-3, 60.0, 3600.0};
    static const char *const percent[] = {"%", NULL}, *const none[] = {NULL};
    static const double one[] = {1.0};
    double repetitions = 0.0, seed = 1.0, precision = 2.0;
    const struct {
        int option;
        const char *const *units;
        const double *factors;
        double least, most;
        double *value;
        int whole;
    } wanted[] = {
        {REPETITIONS, none, one, 1.0, BENCH_MAX_REPETITIONS, &repetitions, 1},
        {MIN_TIME, seconds, second_factors, 1e-6, 3600.0, &o->min_time, 0},
        {PRECISION, percent, one, 0.01, 1000.0, &precision, 0},
        {BUDGET, seconds, second_factors, 1.0, 1e6, &o->budget, 0},
        {SEED, none, one, 0.0, 9e15, &seed, 1},
    };
    int status = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && status == 0; i++) {
        int option = wanted[i].option;
        if (t->value[option] == NULL) {
            continue;
        }
        status = bench_number(t->from[option], t->value[option], wanted[i].units, wanted[i].factors,
                              wanted[i].least, wanted[i].most, wanted[i].value);
        if (status == 0 && wanted[i].whole && *wanted[i].value != floor(*wanted[i].value)) {
            status = bench_usage_error("%s takes a whole number, found %s", t->from[option],
                                       t->value[option]);
        }
    }
    o->repetitions = (int)repetitions;
    o->seed = (uint64_t)seed;
    o->precision = precision / 100.0;
    return status;
}

static int read_filter(struct bench_options *o, const struct texts *t)
{
    const char *text = t->value[FILTER];
    if (text == NULL) {
        return 0;
    }
    o->filter_text = text;
    if (strcmp(t->from[FILTER], "--benchmark_filter") == 0) {
        o->filter_negated = text[0] == '-'; /* the library's way to say "all but" */
        text += o->filter_negated;
        text = strcmp(text, "all") == 0 ? "." : text;
    }
    int failed = regcomp(&o->filter, text, REG_EXTENDED | REG_NOSUB);
    if (failed != 0) {
        char reason[100];
        regerror(failed, &o->filter, reason, sizeof reason);
        return bench_usage_error("%s %s: not a regular expression: %s", t->from[FILTER], text,
                                 reason);
    }
    o->filtered = 1;
    return 0;
}

static void default_peers(struct bench_options *o, int all)
{
    for (int i = 1; i < bench_peer_count; i++) {
        int slow = o->profile == BENCH_QUICK && bench_peers[i].slow_start;
        if (&bench_peers[i] != bench_peer_against() && (all || !slow)) {
            o->peer[o->peers++] = &bench_peers[i];
        }
    }
}

static int read_lists(struct bench_options *o, const struct texts *t)
{
    const struct {
        int option;
        int (*add)(struct bench_options *o, const char *from, const char *item);
    } lists[] = {{ISA, bench_add_isa},
                 {THREADS, bench_add_threads},
                 {SETS, bench_add_set},
                 {OPERANDS, bench_add_operands},
                 {PEERS, bench_add_peer}};
    int status = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0] && status == 0; i++) {
        const char *value = t->value[lists[i].option];
        int word =
            (lists[i].option == PEERS || lists[i].option == SETS) && value != NULL &&
            (strcmp(value, "none") == 0 || (lists[i].option == PEERS && strcmp(value, "all") == 0));
        if (value != NULL && !word) {
            status = each(o, t->from[lists[i].option], value, lists[i].add);
        }
    }
    o->isas_given = o->isas > 0;
    o->threads_given = o->thread_counts > 0;
    o->peers_named = o->peers > 0;
    return status;
}

static void set_defaults(struct bench_options *o, const struct texts *t)
{
    static const char *const usual[] = {"seed", "square", "rebuild", "tails"};
    t2k_isa_info info;
    for (int i = 0; !o->isas_given && t2k_isa_get(i, &info) == T2K_OK; i++) {
        /* No target is one of the scalar ISA. */
        if (bench_isa_selectable(i) && (i > 0 || o->profile != BENCH_TARGETS)) {
            o->isa[o->isas++] = i;
        }
    }
    if (!o->threads_given) {
        o->threads[o->thread_counts++] = 1;
        if (o->profile != BENCH_QUICK && t2k_get_num_threads() > 1) {
            o->threads[o->thread_counts++] =
                o->profile == BENCH_TARGETS ? 2 : t2k_get_num_threads();
        }
    }
    for (int i = 0; t->value[SETS] == NULL && bench_set_name(i) != NULL; i++) {
        int is_targets = strcmp(bench_set_name(i), "targets") == 0;
        int wanted =
            o->profile == BENCH_TARGETS ? is_targets : o->profile == BENCH_FULL && !is_targets;
        size_t most = o->profile == BENCH_QUICK ? 1 : o->profile == BENCH_TARGETS ? 0 : 4;
        for (size_t j = 0; j < most; j++) {
            wanted |= strcmp(usual[j], bench_set_name(i)) == 0;
        }
        if (wanted) {
            o->set[o->sets++] = bench_set_name(i);
        }
    }
    if (t->value[PEERS] == NULL) {
        default_peers(o, 0);
    } else if (strcmp(t->value[PEERS], "all") == 0) {
        default_peers(o, 1);
    }
    o->operands[BENCH_HOT] |= !o->operands_given;
}

static int one_of(const char *flag, const char *value, const char *const *valid)
{
    for (int i = 0; valid[i] != NULL; i++) {
        if (strcmp(value, valid[i]) == 0) {
            return 0;
        }
    }
    return bench_usage_error("--benchmark_%s=%s: valid: %s %s %s %s", flag, value, valid[0],
                             valid[1], valid[2], valid[3] != NULL ? valid[3] : "");
}

/* Gives the library its flags, and behind them our own: what it must not do by itself. */
static int initialize_library(struct texts *t)
{
    static const char *const formats[] = {"console", "json", "csv", NULL};
    static const char *const units[] = {"ns", "us", "ms", "s", NULL};
    static char off[][40] = {"--benchmark_out=",           "--benchmark_filter=.",
                             "--benchmark_repetitions=1",  "--benchmark_list_tests=false",
                             "--benchmark_format=console", "--benchmark_out_format=json"};
    int status = t->format != NULL ? one_of("format", t->format, formats) : 0;
    if (status == 0 && t->out_format != NULL) {
        status = one_of("out_format", t->out_format, formats);
    }
    /* The library ends the program on a value of this one that it does not know. */
    static const char time_unit[] = "--benchmark_time_unit=";
    for (int i = 1; i < t->theirs && status == 0; i++) {
        if (strncmp(t->their[i], time_unit, sizeof time_unit - 1) == 0) {
            status = one_of("time_unit", t->their[i] + sizeof time_unit - 1, units);
        }
    }
    if (status != 0) {
        return status;
    }
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        t->their[t->theirs++] = off[i];
    }
    t->their[t->theirs] = NULL;
    if (gbench_initialize(&t->theirs, t->their) != 0) {
        fprintf(stderr, "t2bench: Google Benchmark could not be initialized\n");
        return 1;
    }
    if (t->theirs > 1) {
        return bench_usage_error("%s: unknown to Google Benchmark, or a bad value", t->their[1]);
    }
    return 0;
}

static int read_options(struct bench_options *o, struct texts *t)
{
    static const double budget[] = {[BENCH_DEFAULT] = 600.0,
                                    [BENCH_QUICK] = 45.0,
                                    [BENCH_FULL] = 1800.0,
                                    [BENCH_TARGETS] = 2400.0};
    int profiles =
        (t->value[QUICK] != NULL) + (t->value[FULL] != NULL) + (t->value[TARGETS] != NULL);
    if (profiles > 1) {
        return bench_usage_error("--quick, --full and --targets exclude each other");
    }
    o->profile = t->value[QUICK] != NULL     ? BENCH_QUICK
                 : t->value[FULL] != NULL    ? BENCH_FULL
                 : t->value[TARGETS] != NULL ? BENCH_TARGETS
                                             : BENCH_DEFAULT;
    o->min_time = o->profile == BENCH_QUICK ? 2e-3 : 5e-3;
    o->budget = budget[o->profile];
    int status = read_filter(o, t);
    if (status == 0) {
        status = read_numbers(o, t);
    }
    if (status == 0) {
        status = read_lists(o, t);
    }
    if (status != 0) {
        return status;
    }
    if (t->value[COLD] != NULL) {
        o->operands[BENCH_HOT] = o->operands[BENCH_COLD_WEIGHTS] = 1;
        o->operands[BENCH_COLD_ALL] = o->operands_given = 1;
    }
    set_defaults(o, t);
    o->sizes = t->value[SIZES];
    o->against = t->value[AGAINST];
    o->json = t->value[JSON];
    o->csv = t->value[CSV];
    o->md = t->value[MD];
    o->dry_run = t->value[DRY_RUN] != NULL;
    o->list = t->value[LIST_CASES] != NULL;
    o->host = t->value[HOST] != NULL;
    o->format = t->format;
    o->out = t->out != NULL && t->out[0] != '\0' ? t->out : NULL;
    o->out_format = t->out_format != NULL ? t->out_format : "json";
    return 0;
}

int bench_options_parse(struct bench_options *o, int argc, char **argv)
{
    static char name[] = "t2bench";
    struct texts t = {.theirs = 1};
    memset(o, 0, sizeof *o);
    o->argument_count = argc - 1;
    /* Ours without the library's; theirs with six of our own and an end. */
    o->arguments = calloc((size_t)argc + 1, sizeof *o->arguments);
    char **ours = calloc((size_t)argc + 1, sizeof *ours);
    t.their = calloc((size_t)argc + 10, sizeof *t.their);
    if (o->arguments == NULL || ours == NULL || t.their == NULL) {
        free(ours);
        free(t.their);
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    memcpy(o->arguments, argv + 1, (size_t)(argc - 1) * sizeof *argv);
    t.their[0] = ours[0] = name;
    int count = 1, status = from_environment(o, &t);
    for (int i = 1; i < argc && status == 0; i++) {
        if (strncmp(argv[i], "--benchmark_", 12) == 0) {
            status = take_theirs(o, &t, argv[i]);
        } else {
            ours[count++] = argv[i];
        }
    }
    if (status == 0) {
        status = from_arguments(o, &t, count, ours);
    }
    if (status == 0 && t.value[HELP] != NULL) {
        fputs(help, stdout);
        status = -1;
    }
    if (status == 0) {
        status = read_options(o, &t);
    }
    if (status == 0) {
        status = initialize_library(&t);
    }
    free(ours);
    free(t.their);
    return status;
}

void bench_options_free(struct bench_options *o)
{
    if (o->filtered) {
        regfree(&o->filter);
    }
    for (int i = 0; i < o->stored; i++) {
        free(o->storage[i]);
    }
    free(o->storage);
    free(o->arguments);
}

int bench_options_match(const struct bench_options *o, const char *name)
{
    int match = !o->filtered || regexec(&o->filter, name, 0, NULL, 0) == 0;
    return o->filter_negated ? !match : match;
}
