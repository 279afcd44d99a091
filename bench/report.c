/* `t2bench report`: one page, or the README's table, from any number of result files. */
#include "report.h"

#include "io/file.h"
#include "t2.h"

#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_FOREIGN = 3 };

static const char usage[] =
    "usage: t2bench report FILE... -o PAGE.html [--title TEXT]\n"
    "       t2bench report FILE... --readme | --readme-into README.md\n"
    "       t2bench report FILE... --targets | --targets-into PAGE.md\n"
    "       t2bench report FILE --roofline PICTURE.svg\n"
    "\n"
    "Makes one page from result files of t2bench: machines side by side, peers, rooflines,\n"
    "instruction sets, size curves, threads, and a table to sort and filter. The page needs\n"
    "nothing but itself.\n"
    "\n"
    "  -o, --out FILE           where the page goes (complete or not at all)\n"
    "  --title TEXT             its heading; default: t2 benchmarks\n"
    "  --readme                 print a short table in markdown instead\n"
    "  --readme-into FILE       put that table between the lines <!-- bench:begin --> and\n"
    "                           <!-- bench:end --> of FILE\n"
    "  --targets                print what was reached of the targets, in markdown: of files\n"
    "                           that t2bench run --targets wrote\n"
    "  --targets-into FILE      put that between <!-- targets:begin --> and <!-- targets:end -->\n"
    "  --roofline FILE          draw the rows of one file below the roofs of its machine\n"
    "  --help\n"
    "\n"
    "exit codes: 0 fine, 1 cannot write, 2 usage, 3 a file that is no result file of t2bench\n";

static __attribute__((format(printf, 2, 3))) int fail(int code, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
    fflush(stdout);
    fprintf(stderr, "t2bench: report: %s\n", line);
    return code;
}

static int fail_memory(void)
{
    return fail(EXIT_FAILED, "out of memory");
}

/* ---- what several parts need ----------------------------------------------------------------- */

const char *report_number(char text[32], double value)
{
    if (!isfinite(value)) {
        snprintf(text, 32, "-");
        return text;
    }
    double size = fabs(value);
    int decimals = size >= 99.95 || size == 0.0 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3;
    snprintf(text, 32, "%.*f", decimals, value);
    return text;
}

const char *report_ratio(char text[32], double ratio)
{
    if (ratio > 0.0 && ratio < 9.995) {
        snprintf(text, 32, ratio < 0.0995 ? "%.2g" : "%.2f", ratio);
        return text;
    }
    return report_number(text, ratio);
}

void report_escape(t2_text *html, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        switch (c) {
        case '&':
            t2_text_str(html, "&amp;");
            break;
        case '<':
            t2_text_str(html, "&lt;");
            break;
        case '>':
            t2_text_str(html, "&gt;");
            break;
        case '"':
            t2_text_str(html, "&quot;");
            break;
        case '\'':
            t2_text_str(html, "&#39;");
            break;
        default:
            if (c < 0x20 || c == 0x7f) {
                t2_text_str(html, "\xef\xbf\xbd");
            } else {
                t2_text_add(html, text, 1);
            }
        }
    }
}

/* One warning where the files differ in a text of their contexts. */
static void warn_different(const struct report *report, const char *part, const char *key,
                           const char *what, void (*say)(const char *, void *), void *arg)
{
    t2_text text = {0};
    int differ = 0;
    t2_text_printf(&text, "the files come from different %s:", what);
    for (int i = 0; i < report->files; i++) {
        const struct results *results = &report->file[i].results;
        const char *value = report_string(results->context, part, key);
        const char *first = report_string(report->file[0].results.context, part, key);
        differ |= strcmp(value, first) != 0;
        t2_text_printf(&text, "%s %s (%s)", i > 0 ? "," : "", value[0] != '\0' ? value : "unknown",
                       results->label);
    }
    if (differ && !text.failed) {
        say(text.data, arg);
    }
    t2_text_free(&text);
}

void report_warnings(const struct report *report, void (*say)(const char *text, void *arg),
                     void *arg)
{
    for (int i = 0; i < report->files; i++) {
        const struct results *results = &report->file[i].results;
        if (!results->complete) {
            t2_text text = {0};
            t2_text_printf(&text, "%s: the run was not completed, rows are missing",
                           results->label);
            if (!text.failed) {
                say(text.data, arg);
            }
            t2_text_free(&text);
        }
    }
    warn_different(report, "t2bench", "version", "versions of t2bench", say, arg);
    warn_different(report, "build", "git", "commits", say, arg);
    warn_different(report, "build", "compiler", "compilers", say, arg);
}

/* ---- the README ------------------------------------------------------------------------------ */

/* The only line that reads `marker`, as an offset into the text; -1: there is none or a second. */
static ptrdiff_t find_marker(const char *text, size_t size, const char *marker)
{
    size_t length = strlen(marker);
    ptrdiff_t found = -1;
    for (size_t start = 0; start < size;) {
        const char *newline = memchr(text + start, '\n', size - start);
        size_t end = newline != NULL ? (size_t)(newline - text) : size;
        size_t trimmed = end > start && text[end - 1] == '\r' ? end - 1 : end;
        if (trimmed - start == length && memcmp(text + start, marker, length) == 0) {
            if (found >= 0) {
                return -1;
            }
            found = (ptrdiff_t)start;
        }
        start = end + 1;
    }
    return found;
}

/* Between the lines <!-- WHAT:begin --> and <!-- WHAT:end --> of a file. */
static int put_into(const char *path, const char *what, const t2_text *table)
{
    char first[40], last[40];
    snprintf(first, sizeof first, "<!-- %s:begin -->", what);
    snprintf(last, sizeof last, "<!-- %s:end -->", what);
    t2_error err;
    t2_bytes bytes;
    if (t2_bytes_open(path, 0, 64u << 20, &bytes, &err) != T2_OK) {
        return fail(EXIT_FAILED, "%s", err.message);
    }
    const char *text = (const char *)bytes.data;
    ptrdiff_t begin = find_marker(text, bytes.size, first);
    ptrdiff_t end = find_marker(text, bytes.size, last);
    int code = EXIT_FAILED;
    if (begin < 0 || end < begin) {
        code = fail(EXIT_FAILED, "%s: expected one line '%s' and one line '%s' behind it", path,
                    first, last);
    } else {
        t2_text all = {0};
        t2_text_add(&all, text, (size_t)begin);
        t2_text_printf(&all, "%s\n", first);
        t2_text_add(&all, table->data, table->size);
        t2_text_add(&all, text + end, bytes.size - (size_t)end);
        if (all.failed) {
            code = fail_memory();
        } else if (t2_write_file_atomic(path, all.data, all.size, &err) != T2_OK) {
            code = fail(EXIT_FAILED, "%s", err.message);
        } else {
            code = EXIT_FINE;
        }
        t2_text_free(&all);
    }
    t2_bytes_release(&bytes);
    return code;
}

/* ---- the command ----------------------------------------------------------------------------- */

struct options {
    const char *out, *title, *readme_into, *targets_into, *roofline;
    int readme, targets, help;
};

static int parse(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"out", required_argument, NULL, 'o'},
                                          {"title", required_argument, NULL, 't'},
                                          {"readme", no_argument, NULL, 'r'},
                                          {"readme-into", required_argument, NULL, 'i'},
                                          {"targets", no_argument, NULL, 'T'},
                                          {"targets-into", required_argument, NULL, 'I'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"roofline", required_argument, NULL, 'R'},
                                          {NULL, 0, NULL, 0}};
    opterr = 0;
    optind = 1;
    int c;
    while ((c = getopt_long(argc, argv, ":o:", known, NULL)) != -1) {
        switch (c) {
        case 'o':
            options->out = optarg;
            break;
        case 't':
            options->title = optarg;
            break;
        case 'r':
            options->readme = 1;
            break;
        case 'i':
            options->readme_into = optarg;
            break;
        case 'T':
            options->targets = 1;
            break;
        case 'I':
            options->targets_into = optarg;
            break;
        case 'R':
            options->roofline = optarg;
            break;
        case 'h':
            options->help = 1;
            break;
        default:
            return fail(EXIT_USAGE, "%s %s; see 't2bench report --help'",
                        c == ':' ? "a value is missing behind" : "unknown or misused option",
                        argv[optind - 1]);
        }
    }
    if (options->help) {
        return EXIT_FINE;
    }
    int outputs = (options->out != NULL) + options->readme + (options->readme_into != NULL) +
                  options->targets + (options->targets_into != NULL) + (options->roofline != NULL);
    if (optind == argc) {
        return fail(EXIT_USAGE, "no result files; see 't2bench report --help'");
    }
    if (outputs != 1) {
        return fail(EXIT_USAGE,
                    "expected one of -o FILE, --readme, --readme-into FILE, --targets, "
                    "--targets-into FILE and --roofline FILE, found %s",
                    outputs == 0 ? "none" : "several");
    }
    if (options->roofline != NULL && argc - optind != 1) {
        return fail(EXIT_USAGE, "--roofline goes with one result file");
    }
    if (options->title != NULL && options->out == NULL) {
        return fail(EXIT_USAGE, "--title goes with -o FILE");
    }
    if (options->title != NULL && !t2_utf8_valid(options->title, strlen(options->title))) {
        return fail(EXIT_USAGE, "--title: expected UTF-8");
    }
    return EXIT_FINE;
}

static void print_warning(const char *text, void *arg)
{
    (void)arg;
    t2_text shown = {0};
    t2_text_escaped(&shown, text);
    if (!shown.failed) {
        fprintf(stderr, "t2bench: report: warning: %s\n", shown.data);
    }
    t2_text_free(&shown);
}

/* A file as a whole; the exit code. */
static int write_file(const char *path, const t2_text *text)
{
    t2_error err;
    return t2_write_file_atomic(path, text->data, text->size, &err) == T2_OK
               ? EXIT_FINE
               : fail(EXIT_FAILED, "%s", err.message);
}

static int write_markdown(const struct report *report, const struct options *options, t2_text *text)
{
    char error[1024] = "";
    const char *into = options->readme_into;
    if (options->targets || options->targets_into != NULL) {
        into = options->targets_into;
        if (report_targets(report, text, error, sizeof error) != 0) {
            return fail(EXIT_FAILED, "targets: %s", error);
        }
    } else {
        report_readme(report, text);
    }
    if (text->failed) {
        return fail_memory();
    }
    if (into != NULL) {
        return put_into(into, into == options->targets_into ? "targets" : "bench", text);
    }
    return fwrite(text->data, 1, text->size, stdout) == text->size && fflush(stdout) == 0
               ? EXIT_FINE
               : fail(EXIT_FAILED, "cannot write to standard output");
}

static int write_outputs(const struct report *report, const struct options *options)
{
    t2_text text = {0};
    int code;
    if (options->out != NULL) {
        code = report_page(report, &text) != 0 ? fail_memory() : write_file(options->out, &text);
    } else if (options->roofline != NULL) {
        code = report_roofline(&report->file[0], &text) != 0
                   ? fail(EXIT_FAILED, "--roofline: no row with a time, a rate and a peak")
               : text.failed ? fail_memory()
                             : write_file(options->roofline, &text);
    } else {
        code = write_markdown(report, options, &text);
    }
    t2_text_free(&text);
    return code;
}

/* Loads the files and finds their best rows; the exit code. */
static int load(struct report *report, int count, char *const *path)
{
    struct results **results = calloc((size_t)count, sizeof *results);
    int code = results != NULL ? EXIT_FINE : fail_memory();
    for (int i = 0; i < count && code == EXIT_FINE; i++) {
        char error[1024];
        struct report_file *file = &report->file[i];
        results[i] = &file->results;
        if (results_load(path[i], &file->results, error, sizeof error) != 0) {
            code = fail(EXIT_FOREIGN, "%s", error);
        } else {
            report->files++;
            code = report_find_best(file) == 0 ? EXIT_FINE : fail_memory();
        }
    }
    if (code == EXIT_FINE && results_label_apart(count, results) != 0) {
        code = fail_memory();
    }
    free(results);
    return code;
}

int report_main(int argc, char **argv)
{
    struct options options = {0};
    int code = parse(argc, argv, &options);
    if (code != EXIT_FINE) {
        return code;
    }
    if (options.help) {
        fputs(usage, stdout);
        return fflush(stdout) == 0 ? EXIT_FINE : EXIT_FAILED;
    }
    struct report report = {.title = options.title != NULL ? options.title : "t2 benchmarks"};
    report.file = calloc((size_t)(argc - optind), sizeof *report.file);
    if (report.file == NULL) {
        return fail_memory();
    }
    code = load(&report, argc - optind, argv + optind);
    if (code == EXIT_FINE) {
        report_warnings(&report, print_warning, NULL);
        code = write_outputs(&report, &options);
    }
    for (int i = 0; i < report.files; i++) {
        free(report.file[i].best);
        results_free(&report.file[i].results);
    }
    free(report.file);
    return code;
}
