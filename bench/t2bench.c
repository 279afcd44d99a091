/* t2bench: times every kernel of the dispatch table on every usable ISA, after verifying it.
 *
 * Exit status: 0 all results right, 1 a wrong result or a failure, 2 wrong usage. Results go to
 * stdout, everything else to stderr. */
#define _GNU_SOURCE /* getopt_long */
#include "bench.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A case of the scalar ISA that would need more than this for one call is left out, unless that
 * ISA was asked for by name: without hardware for fused steps it is 15 times slower still. */
#define SCALAR_SECONDS 0.5
#define SCALAR_SECONDS_QUICK 0.04
/* Timing of a case, about. */
#define SECONDS 0.06
#define SECONDS_QUICK 0.02

enum { MAX_CHOICES = 32, MAX_THREADS = 4096 };

struct options {
    const char *filter;
    int isa[MAX_CHOICES], isas;
    int threads[MAX_CHOICES], thread_counts;
    int list, quick;
    int threads_given;
    double seconds; /* 0: by `quick` */
    int own_format; /* --benchmark_format given: the library prints instead of the table */
};

static const char help[] =
    "usage: t2bench [options] [--benchmark_*=...]\n"
    "Times every kernel on every usable ISA, after verifying its result.\n"
    "  --isa NAME      only this ISA (repeatable, or a list with commas)\n"
    "  --filter RE     only cases op/isa/shape/threads that match the extended regular expression\n"
    "  --threads N     with N threads (repeatable, or a list with commas);\n"
    "                  default: 1 and, but for the scalar ISA, all\n"
    "  --quick         one thread and short timings: about ten seconds\n"
    "  --list          print the names of the cases and exit\n"
    "  --help          this text\n"
    "Google Benchmark's flags pass through, such as\n"
    "  --benchmark_out=FILE             a report in JSON\n"
    "  --benchmark_repetitions=N        repeat each case and add statistics to the report\n"
    "  --benchmark_min_time=SECONDS     how long each case is timed\n"
    "  --benchmark_format=console|json  its own output on stdout instead of the table\n";

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "t2bench: %s%s%s; see t2bench --help\n", what, value != NULL ? ": " : "",
            value != NULL ? value : "");
    return 2;
}

/* ---- options --------------------------------------------------------------------------------- */

/* Usable, and not above the cap of T2K_ISA. */
static int selectable(int isa)
{
    t2k_isa_info info;
    int active = 0;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        active = info.active ? i : active;
    }
    return t2k_isa_get(isa, &info) == T2K_OK && info.usable && isa <= active;
}

static int add_isa(struct options *o, const char *name)
{
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (strcmp(info.name, name) != 0) {
            continue;
        }
        if (!selectable(i)) {
            fprintf(stderr, "t2bench: --isa %s: %s\n", name, info.reason);
            return 2;
        }
        if (o->isas == MAX_CHOICES) {
            return usage_error("too many --isa", NULL);
        }
        o->isa[o->isas++] = i;
        return 0;
    }
    fprintf(stderr, "t2bench: --isa %s: unknown; valid here:", name);
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (selectable(i)) {
            fprintf(stderr, " %s", info.name);
        }
    }
    fprintf(stderr, "\n");
    return 2;
}

static int add_threads(struct options *o, const char *text)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 1 || n > MAX_THREADS) {
        return usage_error("--threads takes a number from 1 to 4096", text);
    }
    if (o->thread_counts == MAX_CHOICES) {
        return usage_error("too many --threads", NULL);
    }
    o->threads[o->thread_counts++] = (int)n;
    return 0;
}

static int add_list(struct options *o, char *list, int (*add)(struct options *o, const char *item))
{
    char *rest = NULL;
    char *item = strtok_r(list, ",", &rest);
    int status = item == NULL ? usage_error("an empty list", NULL) : 0;
    for (; item != NULL && status == 0; item = strtok_r(NULL, ",", &rest)) {
        status = add(o, item);
    }
    return status;
}

/* How long we time a case is ours to decide; the library's own loop takes what it gets. */
static int take_min_time(struct options *o, const char *text)
{
    char *end;
    o->seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(o->seconds > 0.0 && o->seconds <= 3600.0)) {
        return usage_error("--benchmark_min_time takes seconds, above 0 and at most 3600", text);
    }
    return 0;
}

/* Moves the library's flags from argv to *theirs, behind a name and a minimal time of its own. */
static int split_arguments(struct options *o, int *argc, char **argv, int *their_count,
                           char **theirs)
{
    static char no_time[] = "--benchmark_min_time=0";
    static const char min_time[] = "--benchmark_min_time=";
    int kept = 1;
    *their_count = 0;
    theirs[(*their_count)++] = argv[0];
    theirs[(*their_count)++] = no_time;
    for (int i = 1; i < *argc; i++) {
        if (strncmp(argv[i], min_time, sizeof min_time - 1) == 0) {
            if (take_min_time(o, argv[i] + sizeof min_time - 1) != 0) {
                return 2;
            }
        } else if (strncmp(argv[i], "--benchmark_", 12) == 0) {
            o->own_format |= strncmp(argv[i], "--benchmark_format", 18) == 0;
            theirs[(*their_count)++] = argv[i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    theirs[*their_count] = NULL;
    *argc = kept;
    return 0;
}

static int parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {{"isa", required_argument, NULL, 'i'},
                                          {"filter", required_argument, NULL, 'f'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"list", no_argument, NULL, 'l'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int option, status = 0;
    while (status == 0 && (option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'i':
            status = add_list(o, optarg, add_isa);
            break;
        case 'f':
            o->filter = optarg;
            break;
        case 't':
            status = add_list(o, optarg, add_threads);
            break;
        case 'q':
            o->quick = 1;
            break;
        case 'l':
            o->list = 1;
            break;
        case 'h':
            fputs(help, stdout);
            exit(0);
        default:
            status = 2; /* getopt_long said what is wrong */
        }
    }
    if (status == 0 && optind < argc) {
        status = usage_error("unexpected argument", argv[optind]);
    }
    return status;
}

static void set_defaults(struct options *o)
{
    o->threads_given = o->thread_counts > 0;
    if (!o->threads_given) {
        o->threads[o->thread_counts++] = 1;
        if (!o->quick && t2k_get_num_threads() > 1) {
            o->threads[o->thread_counts++] = t2k_get_num_threads();
        }
    }
    bench_seconds = o->seconds > 0.0 ? o->seconds : o->quick ? SECONDS_QUICK : SECONDS;
}

/* ---- cases ----------------------------------------------------------------------------------- */

/* Nonzero when the ISA brings the kernel itself; an inherited one is another ISA's case. */
static int has_own(int isa, size_t slot)
{
    const t2k_table *table = t2k_table_own(isa);
    void (*kernel)(void) = NULL;
    if (table != NULL) {
        memcpy(&kernel, (const char *)table + slot, sizeof kernel);
    }
    return kernel != NULL;
}

static int is_chosen(const struct options *o, int isa, int threads)
{
    for (int i = 0; i < o->isas; i++) {
        if (o->isa[i] == isa) {
            return 1;
        }
    }
    int extra = isa == 0 && threads > 1 && !o->threads_given;
    return o->isas == 0 && selectable(isa) && !extra;
}

/* Nonzero when the case passes the filter. */
static int add_case(struct bench_case *c, struct problem *p, int isa, int threads, regex_t *filter)
{
    t2k_isa_info info;
    if (t2k_isa_get(isa, &info) != T2K_OK) {
        return 0;
    }
    memset(c, 0, sizeof *c);
    c->problem = p;
    c->isa = isa;
    c->isa_name = info.name;
    c->threads = threads;
    snprintf(c->name, sizeof c->name, "%s/%s/%s/%d", p->kind->op, info.name, p->shape, threads);
    return filter == NULL || regexec(filter, c->name, 0, NULL, 0) == 0;
}

/* All cases that the options choose; *cases is allocated. Their number, -1 when out of memory. */
static int make_cases(const struct options *o, const struct bench_suite *suite, regex_t *filter,
                      struct bench_case **cases)
{
    size_t most = (size_t)suite->problem_count * (size_t)t2k_isa_count() * MAX_CHOICES;
    struct bench_case *all = calloc(most, sizeof *all);
    if (all == NULL) {
        return -1;
    }
    int count = 0;
    for (int i = 0; i < suite->problem_count; i++) {
        struct problem *p = suite->problems[i];
        for (int t = 0; t < o->thread_counts; t++) {
            for (int isa = 0; isa < t2k_isa_count(); isa++) {
                if (has_own(isa, p->kind->slot) && is_chosen(o, isa, o->threads[t])) {
                    count += add_case(&all[count], p, isa, o->threads[t], filter);
                }
            }
        }
    }
    *cases = all;
    return count;
}

/* A kernel without a benchmark would go unmeasured unseen. */
static void note_missing(const struct bench_suite *suite)
{
    static const struct {
        const char *name;
        size_t slot;
    } slots[] = {
#define T2K_SLOT(name, type) {#name, BENCH_SLOT(name)},
#include "core/slots.def"
#undef T2K_SLOT
    };
    for (size_t s = 0; s < sizeof slots / sizeof slots[0]; s++) {
        int found = slots[s].slot == BENCH_SLOT(probe_fma); /* it is the measure itself */
        for (int i = 0; i < suite->problem_count && !found; i++) {
            found = suite->problems[i]->kind->slot == slots[s].slot;
        }
        if (!found) {
            fprintf(stderr, "t2bench: note: kernel %s has no benchmark\n", slots[s].name);
        }
    }
}

/* Takes out what would be too slow on the scalar ISA; the number of cases that stay. */
static int drop_slow(const struct options *o, struct bench_case *cases, int count)
{
    double rate = 1e9 * bench_measure_peak(0, 1) / 2.0; /* multiply-adds a second */
    double limit = rate * (o->quick ? SCALAR_SECONDS_QUICK : SCALAR_SECONDS);
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (cases[i].isa != 0 || cases[i].problem->work <= limit) {
            cases[kept++] = cases[i];
        }
    }
    if (kept < count) {
        fprintf(stderr, "t2bench: %d slow cases left out; --isa scalar runs them\n", count - kept);
    }
    return kept;
}

/* ---- running --------------------------------------------------------------------------------- */

static void measure_peaks(struct bench_case *cases, int count)
{
    for (int i = 0; i < count; i++) {
        int j = 0;
        while (j < i && (cases[j].isa != cases[i].isa || cases[j].threads != cases[i].threads)) {
            j++;
        }
        cases[i].peak = j < i ? cases[j].peak : bench_measure_peak(cases[i].isa, cases[i].threads);
    }
}

static int add_context(const struct bench_case *cases, int count, int threads,
                       const char *threads_reason)
{
    char text[256], key[64];
    bench_cpu_name(text, sizeof text);
    int status = gbench_add_context("cpu", text);
    status |= gbench_add_context("t2k_version", t2k_version());
    status |= gbench_add_context("compiler", bench_compiler());
    status |= gbench_add_context("compiler_flags", bench_flags());
    status |= gbench_add_context("operands", "hot");
    snprintf(text, sizeof text, "%d (%s)", threads, threads_reason);
    status |= gbench_add_context("default_threads", text);
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        snprintf(key, sizeof key, "isa_%s", info.name);
        snprintf(text, sizeof text, "%s", info.active ? "active" : info.reason);
        status |= gbench_add_context(key, text);
    }
    for (int i = 0; i < count; i++) {
        int seen = 0;
        for (int j = 0; j < i && !seen; j++) {
            seen = cases[j].isa == cases[i].isa && cases[j].threads == cases[i].threads;
        }
        if (!seen) {
            snprintf(key, sizeof key, "fma_peak_gflops/%s/%d", cases[i].isa_name, cases[i].threads);
            snprintf(text, sizeof text, "%.1f", cases[i].peak);
            status |= gbench_add_context(key, text);
        }
    }
    return status;
}

struct progress {
    int done, count;
};

static void show_progress(const gbench_row *row, void *arg)
{
    struct progress *progress = arg;
    if (row->aggregate || row->repetition > 0) {
        return;
    }
    progress->done++;
    if (row->error != NULL) {
        fprintf(stderr, "t2bench: %s: %s\n", row->name, row->error);
    } else if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r[%d/%d] %-60.60s", progress->done, progress->count, row->name);
        if (progress->done == progress->count) {
            fprintf(stderr, "\r%72s\r", "");
        }
    }
}

/* Registers and runs the cases and prints what came out; the exit status. */
static int run(const struct options *o, struct bench_case *cases, int count, int their_count,
               char **theirs)
{
    int threads = t2k_get_num_threads();
    const char *reason = t2k_threads_reason();
    if (o->isas == 0) {
        count = drop_slow(o, cases, count);
    }
    if (count == 0) {
        return usage_error("nothing left to run", NULL);
    }
    measure_peaks(cases, count);
    int status = gbench_initialize(&their_count, theirs);
    if (status == 0 && their_count > 1) {
        return usage_error("unknown flag", theirs[1]);
    }
    status |= add_context(cases, count, threads, reason);
    for (int i = 0; i < count; i++) {
        status |= gbench_register(cases[i].name, bench_run_case, &cases[i],
                                  GBENCH_MANUAL_TIME | GBENCH_PROCESS_CPU);
    }
    if (status != 0) {
        fprintf(stderr, "t2bench: Google Benchmark refuses a case\n");
        return 1;
    }
    struct progress progress = {0, count};
    int64_t ran = gbench_run(o->own_format ? NULL : show_progress, &progress);
    gbench_shutdown();
    if (ran <= 0) {
        fprintf(stderr, "t2bench: nothing ran\n");
        return 2;
    }
    int wrong = 0, timed = 0;
    for (int i = 0; i < count; i++) {
        wrong += cases[i].error[0] != '\0';
        timed += cases[i].best > 0.0;
    }
    if (!o->own_format && wrong + timed > 0) {
        bench_print_machine(cases, count);
        printf("default threads: %d (%s)\n", threads, reason);
        bench_print_table(cases, count);
    }
    if (wrong > 0) {
        fprintf(stderr, "t2bench: %d of %d cases failed\n", wrong, count);
    }
    return wrong > 0;
}

static int list_or_run(const struct options *o, const struct bench_suite *suite, regex_t *filter,
                       int their_count, char **theirs)
{
    struct bench_case *cases = NULL;
    int count = make_cases(o, suite, filter, &cases);
    int status;
    if (count < 0) {
        fprintf(stderr, "t2bench: out of memory\n");
        status = 1;
    } else if (count == 0) {
        status = usage_error("no case matches", o->filter);
    } else if (o->list) {
        for (int i = 0; i < count; i++) {
            puts(cases[i].name);
        }
        status = 0;
    } else {
        status = run(o, cases, count, their_count, theirs);
    }
    free(cases);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "t2bench: cannot write to stdout\n");
        status = status == 0 ? 1 : status;
    }
    return status;
}

/* After the options: what they choose. */
static int serve(struct options *o, int their_count, char **theirs)
{
    regex_t filter;
    if (o->filter != NULL && regcomp(&filter, o->filter, REG_EXTENDED | REG_NOSUB) != 0) {
        return usage_error("--filter is no regular expression", o->filter);
    }
    set_defaults(o);
    struct bench_suite suite = {0};
    bench_add_gemm(&suite);
    bench_add_attention(&suite);
    bench_add_rows(&suite);
    bench_add_elementwise(&suite);
    note_missing(&suite);
    int status = 1;
    if (suite.failed) {
        fprintf(stderr, "t2bench: out of memory\n");
    } else {
        status = list_or_run(o, &suite, o->filter != NULL ? &filter : NULL, their_count, theirs);
    }
    bench_free(&suite);
    if (o->filter != NULL) {
        regfree(&filter);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (t2k_init() != T2K_OK) {
        fprintf(stderr, "t2bench: %s\n", t2k_isa_error());
        return 2;
    }
    /* All arguments, one of our own and the final NULL. */
    char **theirs = calloc((size_t)argc + 2, sizeof *theirs);
    if (theirs == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    struct options o = {0};
    int their_count;
    int status = split_arguments(&o, &argc, argv, &their_count, theirs);
    if (status == 0) {
        status = parse(&o, argc, argv);
    }
    if (status == 0) {
        status = serve(&o, their_count, theirs);
    }
    free(theirs);
    return status;
}
