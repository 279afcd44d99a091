/* t2bench compare: a baseline against other result files. */
#define _GNU_SOURCE /* getopt_long */
#include "compare.h"
#include "t2.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_SAME, EXIT_FAIL_ON, EXIT_USAGE, EXIT_FOREIGN };

static const char help[] =
    "usage: t2bench compare BASELINE FILE... [options]\n"
    "Holds each FILE against BASELINE, row by row; both are result files of t2bench run.\n"
    "  --threshold 5%     a smaller change is none\n"
    "  --alpha 0.05       how likely chance may find a change in any of the rows\n"
    "  --fail-on LIST     what makes the exit code 1, of: regression (default), slower, machine,\n"
    "                     isa, threads, compiler, fingerprint, missing, none\n"
    "  --filter RE        only rows whose name matches the extended regular expression\n"
    "  --by name|shape    which rows belong together: those of equal names, or of equal "
    "operation,\n"
    "                     shape, threads and operands (of several ISAs the one in use);\n"
    "                     default: by name, or by shape where no names are equal\n"
    "  --all              print all rows, not only those that changed\n"
    "  --md               print Markdown\n"
    "  --json FILE        write everything as JSON; '-' is standard output, without the table\n"
    "\n"
    "A row is slower when all of this holds for its rounds in FILE against those in BASELINE:\n"
    "  - Mann-Whitney's p, after Holm's correction over all rows, is below alpha;\n"
    "  - the 95 % bootstrap interval of the ratio of medians lies above 1;\n"
    "  - the ratio of medians is above 1 + threshold;\n"
    "  - the ratio of minima is above 1 + threshold;\n"
    "  - both ratios are above what rows without a change scatter by: from the median and the\n"
    "    spread of the rows within 5 % (or the threshold), where there are at least 8.\n"
    "Faster: the same with the files exchanged; that never fails. A slower row is a regression\n"
    "unless the files differ in machine, ISA, default number of threads or compiler: each of "
    "these\n"
    "is a warning, and --fail-on slower fails nevertheless. Rows of equal names that computed\n"
    "different bits are listed, and so are rows that failed.\n"
    "\n"
    "exit codes: 0 nothing that --fail-on names, 1 something it names, 2 usage or the output "
    "cannot\n"
    "be written, 3 no row in common, or a file that is no result file of t2bench\n";

static const struct {
    const char *name;
    unsigned events;
} events[] = {{"regression", COMPARE_REGRESSION},
              {"slower", COMPARE_SLOWER},
              {"machine", COMPARE_MACHINE},
              {"isa", COMPARE_ISA},
              {"threads", COMPARE_THREADS},
              {"compiler", COMPARE_COMPILER},
              {"fingerprint", COMPARE_FINGERPRINT},
              {"missing", COMPARE_MISSING},
              {"none", 0}};

struct options {
    struct compare_options rule;
    regex_t filter;
    const char *json;
    int all, markdown, help;
};

__attribute__((format(printf, 2, 3))) static int fail(int code, const char *format, ...)
{
    char line[1024];
    t2_text shown = {0};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    t2_text_escaped(&shown, line);
    fflush(stdout);
    fprintf(stderr, "t2bench: compare: %s\n", shown.failed ? "out of memory" : shown.data);
    t2_text_free(&shown);
    return code;
}

/* ---- options --------------------------------------------------------------------------------- */

/* "5%" or "0.05": 0 on success. */
static int parse_share(const char *text, double most, double *share)
{
    char *end;
    double value = strtod(text, &end);
    if (end != text && *end == '%') {
        value /= 100.0;
        end++;
    }
    *share = value;
    return end == text || *end != '\0' || !(value >= 0.0 && value < most) ? -1 : 0;
}

static int parse_events(const char *list, unsigned *fail_on)
{
    *fail_on = 0;
    for (const char *word = list;; word++) {
        size_t length = strcspn(word, ","), i = 0, count = sizeof events / sizeof *events;
        while (i < count &&
               (strlen(events[i].name) != length || strncmp(events[i].name, word, length) != 0)) {
            i++;
        }
        if (i == count) {
            return fail(EXIT_USAGE,
                        "--fail-on: '%.*s' is none of regression, slower, machine, isa, threads, "
                        "compiler, fingerprint, missing, none",
                        (int)(length < 60 ? length : 60), word);
        }
        *fail_on |= events[i].events;
        word += length;
        if (*word == '\0') {
            return 0;
        }
    }
}

static int parse_filter(const char *pattern, struct options *options)
{
    if (options->rule.filter != NULL) {
        return fail(EXIT_USAGE, "--filter: given twice");
    }
    int code = regcomp(&options->filter, pattern, REG_EXTENDED | REG_NOSUB);
    if (code != 0) {
        char text[200];
        regerror(code, &options->filter, text, sizeof text);
        return fail(EXIT_USAGE, "--filter '%.200s': %s", pattern, text);
    }
    options->rule.filter = &options->filter;
    return 0;
}

static int parse_option(int c, struct options *options)
{
    switch (c) {
    case 't':
        if (parse_share(optarg, 10.0, &options->rule.threshold) != 0 ||
            (strchr(optarg, '%') == NULL && options->rule.threshold >= 1.0)) {
            return fail(EXIT_USAGE, "--threshold '%.60s': expected such as 5%% or 0.05", optarg);
        }
        return 0;
    case 'a':
        if (parse_share(optarg, 1.0, &options->rule.alpha) != 0 || options->rule.alpha <= 0.0) {
            return fail(EXIT_USAGE, "--alpha '%.60s': expected a number between 0 and 1", optarg);
        }
        return 0;
    case 'e':
        return parse_events(optarg, &options->rule.fail_on);
    case 'f':
        return parse_filter(optarg, options);
    case 'b':
        options->rule.by = strcmp(optarg, "name") == 0 ? COMPARE_BY_NAME : COMPARE_BY_SHAPE;
        if (options->rule.by == COMPARE_BY_SHAPE && strcmp(optarg, "shape") != 0) {
            return fail(EXIT_USAGE, "--by '%.60s': expected name or shape", optarg);
        }
        return 0;
    case 'j':
        options->json = optarg;
        return 0;
    default:
        options->all |= c == 'A';
        options->markdown |= c == 'm';
        options->help |= c == 'h';
        return 0;
    }
}

static int parse(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"threshold", required_argument, NULL, 't'},
                                          {"alpha", required_argument, NULL, 'a'},
                                          {"fail-on", required_argument, NULL, 'e'},
                                          {"filter", required_argument, NULL, 'f'},
                                          {"by", required_argument, NULL, 'b'},
                                          {"json", required_argument, NULL, 'j'},
                                          {"all", no_argument, NULL, 'A'},
                                          {"md", no_argument, NULL, 'm'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int c, code = 0;
    optind = 1;
    opterr = 0;
    while (code == 0 && (c = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        if (c == ':' || c == '?') {
            return fail(EXIT_USAGE, "%s '%.100s'; see 't2bench compare --help'",
                        c == ':' ? "no value for" : "unknown or misused option", argv[optind - 1]);
        }
        code = parse_option(c, options);
    }
    if (code == 0 && !options->help && argc - optind < 2) {
        return fail(EXIT_USAGE,
                    "expected a baseline and at least one other result file, found %d "
                    "files; see 't2bench compare --help'",
                    argc - optind);
    }
    return code;
}

/* ---- output ---------------------------------------------------------------------------------- */

static void print_warnings(const struct compare *compare)
{
    char shown[T2_SHOW];
    const char *line = compare->warnings.data;
    t2_show(shown, compare->b->path);
    while (line != NULL && *line != '\0') {
        int length = (int)strcspn(line, "\n");
        fprintf(stderr, "t2bench: compare: warning: %s: %.*s\n", shown, length, line);
        line += length + 1;
    }
}

static int put(const char *text, size_t size)
{
    if (fwrite(text, 1, size, stdout) != size || fflush(stdout) != 0) {
        return fail(EXIT_USAGE, "cannot write to standard output");
    }
    return EXIT_SAME;
}

static int write_json(const char *path, json_t *all)
{
    char *text = json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    t2_error err;
    int code = EXIT_SAME;
    if (text == NULL) {
        code = fail(EXIT_USAGE, "out of memory");
    } else if (strcmp(path, "-") == 0) {
        code = put(text, strlen(text));
        code = code == EXIT_SAME ? put("\n", 1) : code;
    } else if (t2_write_file_atomic(path, text, strlen(text), &err) != T2_OK) {
        code = fail(EXIT_USAGE, "%s", err.message);
    }
    free(text);
    return code;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* One file against the baseline; adds to `list` for --json. */
static int compare_one(const struct results *a, const struct results *b,
                       const struct options *options, int first, json_t *list)
{
    struct compare compare;
    t2_text table = {0};
    int code = EXIT_SAME, failed = compare_files(a, b, &options->rule, &compare) != 0;
    if (!failed && compare.pairs == 0) {
        char in_a[T2_SHOW], in_b[T2_SHOW];
        code = fail(EXIT_FOREIGN, "%s and %s: no row in common%s: of %d and %d rows, %d and %d%s",
                    t2_show(in_a, a->path), t2_show(in_b, b->path),
                    options->rule.by == COMPARE_BY_NAME ? " by name" : "", a->rows, b->rows,
                    compare.only_a, compare.only_b,
                    options->rule.filter != NULL ? " match the filter" : " stand alone");
    } else if (!failed) {
        print_warnings(&compare);
        json_t *entry = compare_json(&compare, &options->rule);
        failed = json_array_append_new(list, entry) != 0;
        if (options->json == NULL || strcmp(options->json, "-") != 0) {
            t2_text_str(&table, first ? "" : "\n");
            compare_table(&compare, options->all, options->markdown, &table);
            failed |= table.failed;
            code = failed ? code : put(table.data, table.size);
        }
        if (code == EXIT_SAME && (compare.events & options->rule.fail_on) != 0) {
            code = EXIT_FAIL_ON;
        }
    }
    t2_text_free(&table);
    compare_free(&compare);
    return failed ? fail(EXIT_USAGE, "out of memory") : code;
}

static int compare_all(const struct results *results, int count, const struct options *options)
{
    json_t *list = json_array(), *all = NULL;
    int code = EXIT_SAME;
    for (int i = 1; i < count && code != EXIT_USAGE; i++) {
        int one = compare_one(&results[0], &results[i], options, i == 1, list);
        /* Worst of all: the output failed, then a file that can't be compared. */
        code = one == EXIT_USAGE || one > code ? one : code;
    }
    if (options->json != NULL && code != EXIT_USAGE) {
        all = json_pack("{s:i, s:O}", "schema", 1, "comparisons", list);
        int written = write_json(options->json, all);
        code = written != EXIT_SAME ? written : code;
    }
    json_decref(all);
    json_decref(list);
    return code;
}

int compare_main(int argc, char **argv)
{
    struct options options = {
        .rule = {.threshold = 0.05, .alpha = 0.05, .fail_on = COMPARE_REGRESSION}};
    int code = parse(argc, argv, &options), loaded = 0, count = argc - optind;
    struct results *results = NULL;
    if (code == EXIT_SAME && options.help) {
        code = put(help, sizeof help - 1);
    } else if (code == EXIT_SAME) {
        results = calloc((size_t)count, sizeof *results);
        code = results == NULL ? fail(EXIT_USAGE, "out of memory") : code;
        while (code == EXIT_SAME && loaded < count) {
            char error[1024];
            if (results_load(argv[optind + loaded], &results[loaded], error, sizeof error) != 0) {
                code = fail(EXIT_FOREIGN, "%s", error);
            } else {
                loaded++;
            }
        }
        code = code == EXIT_SAME ? compare_all(results, loaded, &options) : code;
    }
    for (int i = 0; i < loaded; i++) {
        results_free(&results[i]);
    }
    free(results);
    if (options.rule.filter != NULL) {
        regfree(&options.filter);
    }
    return code;
}
