/* What the subcommands share: messages, numbers from text, time. */
#include "cli.h"

#include "io/text.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int t2_cli_fail(int code, const char *format, ...)
{
    /* One line whatever the names in it hold: file names may have newlines and escapes. */
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
    fprintf(stderr, "t2: %s\n", line);
    return code;
}

int t2_cli_error(const t2_error *err)
{
    int code = T2_EXIT_RUNTIME;
    switch (err->status) {
    case T2_ERR_ARG:
    case T2_ERR_ISA:
        code = T2_EXIT_USAGE;
        break;
    case T2_ERR_FORMAT:
        code = T2_EXIT_MODEL;
        break;
    case T2_ERR_NOMEM:
        code = T2_EXIT_MEMORY;
        break;
    case T2_ERR_STOPPED:
        code = T2_EXIT_STOPPED;
        break;
    case T2_OK:
    case T2_ERR_IO:
    case T2_ERR_NUMERIC:
        break;
    }
    return t2_cli_fail(code, "%s", err->message);
}

int t2_cli_bad_option(const char *command, char **argv, int result)
{
    const char *word = argv[optind - 1];
    if (result == ':') {
        return t2_cli_fail(T2_EXIT_USAGE, "%s: option %s needs a value; see 't2 %s --help'",
                           command, word, command);
    }
    if (optopt != 0 && strncmp(word, "--", 2) != 0) {
        return t2_cli_fail(T2_EXIT_USAGE, "%s: unknown option -%c; see 't2 %s --help'", command,
                           optopt, command);
    }
    return t2_cli_fail(T2_EXIT_USAGE, "%s: unknown or misused option %s; see 't2 %s --help'",
                       command, word, command);
}

int t2_cli_bad_value(const char *command, char **argv)
{
    /* "--tol x" is two words, "--tol=x" and "-n5" are one. */
    const char *word = argv[optind - 1];
    return t2_cli_fail(T2_EXIT_USAGE, "%s: '%s' is not a valid value in '%s%s%s'", command, optarg,
                       word == optarg ? argv[optind - 2] : word, word == optarg ? " " : "",
                       word == optarg ? optarg : "");
}

int t2_cli_int(const char *text, int64_t low, int64_t high, int64_t *value)
{
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    if (!(isdigit((unsigned char)text[0]) || text[0] == '-') || *end != '\0' || errno != 0 ||
        end == text || x < low || x > high) {
        return 0;
    }
    *value = x;
    return 1;
}

int t2_cli_uint64(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long x = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0) {
        return 0;
    }
    *value = x;
    return 1;
}

int t2_cli_double(const char *text, double low, double high, double *value)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    if (end == text || isspace((unsigned char)text[0]) || *end != '\0' || !isfinite(x) || x < low ||
        x > high) {
        return 0;
    }
    *value = x;
    return 1;
}

void t2_cli_json_string(FILE *out, const char *text)
{
    t2_text json = {0};
    t2_text_json_shown(&json, text);
    fputs(json.failed ? "null" : json.data, out);
    t2_text_free(&json);
}

const char *t2_cli_token_text(const t2_vocab *vocab, int64_t token)
{
    const char *text = t2_vocab_decode(vocab, token);
    return text != NULL ? text : "\xef\xbf\xbd";
}

int t2_cli_finish_stdout(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return t2_cli_fail(T2_EXIT_RUNTIME, "standard output could not be written: %s",
                           strerror(errno));
    }
    return T2_EXIT_OK;
}

double t2_cli_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct peak {
    int64_t iterations;
    double flops, seconds; /* of thread 0, by its own clock: other work on the CPU is left out */
};

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void probe(t2k_team *team, void *arg)
{
    struct peak *peak = arg;
    double start = thread_seconds();
    double flops = t2k_probe_fma(peak->iterations);
    if (t2k_team_rank(team) == 0) {
        peak->flops = flops;
        peak->seconds = thread_seconds() - start;
    }
}

double t2_cli_measure_peak(int threads)
{
    struct peak peak = {1000, 0.0, 0.0};
    double best = 0.0;
    /* All threads run at once, so that a clock or a core that they share counts. */
    for (int round = 0; round < 8;) {
        if (t2k_parallel(threads, probe, &peak) != T2K_OK) {
            return 0.0;
        }
        if (peak.seconds < 0.002) {
            peak.iterations *= 2;
            continue;
        }
        double rate = peak.flops * threads / peak.seconds;
        best = rate > best ? rate : best;
        round++;
    }
    return best;
}

const char *t2_cli_compiler(void)
{
#if defined(__clang__)
    return __VERSION__; /* begins with its name */
#else
    return "gcc " __VERSION__;
#endif
}

int t2_cli_check_environment(void)
{
    const char *text = getenv("T2K_NUM_THREADS");
    int64_t threads;
    if (text != NULL && text[0] != '\0' && !t2_cli_int(text, 1, T2_CLI_MAX_THREADS, &threads)) {
        return t2_cli_fail(T2_EXIT_USAGE, "T2K_NUM_THREADS=%.40s: expected a number from 1 to %d",
                           text, T2_CLI_MAX_THREADS);
    }
    return -1;
}
