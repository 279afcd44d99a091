/* What the subcommands of the t2 program share. Only the program prints and exits. */
#ifndef T2_CLI_H
#define T2_CLI_H

#include "t2.h"
#include "t2k.h"

#include <stdio.h>

enum t2_exit {
    T2_EXIT_OK = 0,
    T2_EXIT_RUNTIME = 1, /* could not read or write, or a value that cannot be computed with */
    T2_EXIT_USAGE = 2,   /* wrong command line, T2K_ISA or input text */
    T2_EXIT_MODEL = 3,   /* a model or data file that is malformed or does not fit */
    T2_EXIT_MEMORY = 4,
    T2_EXIT_CHECK = 5,  /* --check found a difference beyond the tolerance */
    T2_EXIT_STOPPED = 6 /* interrupted; what is finished is kept */
};

/* Subcommands: argv[0] is the subcommand's name; the result is the exit code. */
int t2_cli_run(int argc, char **argv);
int t2_cli_eval(int argc, char **argv);
int t2_cli_info(int argc, char **argv);
int t2_cli_inspect(int argc, char **argv);
int t2_cli_init(int argc, char **argv);
int t2_cli_expert(int argc, char **argv);
int t2_cli_svd(int argc, char **argv);

/* "t2: <text>" on stderr; returns `code`. */
int t2_cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with the error of a failed call; its status decides the code. */
int t2_cli_error(const t2_error *err);

/* After getopt_long() returned '?' or ':': one line that names the option. */
int t2_cli_bad_option(const char *command, char **argv, int result);

/* After an option whose value `optarg` is wrong: one line that names both. */
int t2_cli_bad_value(const char *command, char **argv);

/* Parses all of `text` as an integer within [low, high] or a finite number; 0 on failure. */
int t2_cli_int(const char *text, int64_t low, int64_t high, int64_t *value);
int t2_cli_uint64(const char *text, uint64_t *value);
int t2_cli_double(const char *text, double low, double high, double *value);

/* Prints `text` as a JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. */
void t2_cli_json_string(FILE *out, const char *text);

/* Prints `text` for a terminal: control characters are escaped. */
void t2_cli_text(FILE *out, const char *text);

/* The text of a token; U+FFFD for an id that the vocabulary does not name. */
const char *t2_cli_token_text(const t2_vocab *vocab, int64_t token);

/* Flushes stdout; T2_EXIT_RUNTIME with a message when what was printed could not be written. */
int t2_cli_finish_stdout(void);

#define T2_CLI_MAX_THREADS 4096

/* -1, or T2_EXIT_USAGE with a message where T2K_NUM_THREADS is no number of threads. (T2K_ISA is
 * checked by the libraries.) */
int t2_cli_check_environment(void);

/* The compiler's name and version. */
const char *t2_cli_compiler(void);

/* Monotonic seconds. */
double t2_cli_now(void);

/* Floating-point operations per second of `threads` threads of the active ISA, measured now. */
double t2_cli_measure_peak(int threads);

#endif
