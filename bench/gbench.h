/* gbench.h - Google Benchmark from C: the shim over the library's C++ interface.
 *
 * Order of use: gbench_initialize(), any number of gbench_register() and gbench_add_context(),
 * gbench_run(), gbench_shutdown(). Strings are copied. Functions that return int give 0 on
 * success and -1 when the library refused or ran out of memory; no C++ exception leaves the shim.
 * A --benchmark_* flag with a value that the library cannot use ends the program: that is the
 * library's own behaviour. Not for use from several threads at once.
 */
#ifndef T2_GBENCH_H
#define T2_GBENCH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads the --benchmark_* flags, removes them from argv and lowers *argc. */
int gbench_initialize(int *argc, char **argv);

/* A benchmark in progress, valid during the callback only. */
typedef struct gbench_state gbench_state;

/* Called one or more times per run. It either loops on gbench_keep_running() or
 * gbench_keep_running_batch() until that returns 0, or calls gbench_skip_with_error() first. */
typedef void gbench_fn(gbench_state *state, void *arg);

enum {
    GBENCH_MANUAL_TIME = 1, /* the time is what gbench_set_iteration_time() adds up */
    GBENCH_REAL_TIME = 2,   /* wall time decides how many iterations; default: CPU time */
    GBENCH_PROCESS_CPU = 4  /* cpu_time counts all threads of the process */
};

/* Registers fn(state, arg) under a name of the form a/b/c. flags: GBENCH_*. */
int gbench_register(const char *name, gbench_fn *fn, void *arg, unsigned flags);

/* Adds key and value to the context of the reports; a key may be given once. */
int gbench_add_context(const char *key, const char *value);

/* One line of a report. Pointers are valid during the callback only. */
typedef struct gbench_row {
    const char *name;  /* as registered; an aggregate's has "_mean", "_median", ... behind it */
    const char *error; /* NULL, or the text of gbench_skip_with_error() */
    const char *label; /* "" where none was set */
    int aggregate;     /* nonzero: a statistic over repetitions */
    int64_t repetition;
    int64_t iterations;
    double real_seconds; /* per iteration */
    double cpu_seconds;  /* per iteration */
} gbench_row;
typedef void gbench_report_fn(const gbench_row *row, void *arg);

/* Runs what --benchmark_filter selects and calls report(row, arg) for every finished line; with
 * report = NULL the library prints on stdout in its own --benchmark_format. --benchmark_out is
 * written by the library either way, in JSON with the names as registered. Returns the number of
 * benchmarks selected, -1 on failure. */
int64_t gbench_run(gbench_report_fn *report, void *arg);

void gbench_shutdown(void);

/* ---- inside a callback ---------------------------------------------------------------------- */

/* Nonzero while another iteration is to be run. */
int gbench_keep_running(gbench_state *state);
/* The same for n > 0 iterations at a time, which may be more than the library asked for. */
int gbench_keep_running_batch(gbench_state *state, int64_t n);

/* How many iterations the library asks for in this call, and how many were run: the latter is
 * defined after the loop. */
int64_t gbench_max_iterations(const gbench_state *state);
int64_t gbench_iterations(const gbench_state *state);

void gbench_pause_timing(gbench_state *state);
void gbench_resume_timing(gbench_state *state);

/* Manual time: called once in each round of the loop with the seconds it counts for. */
void gbench_set_iteration_time(gbench_state *state, double seconds);

enum {
    GBENCH_RATE = 1,          /* reported divided by the time */
    GBENCH_PER_ITERATION = 2, /* the value belongs to one iteration: multiplied by their number */
    GBENCH_AVERAGE = 4,       /* reported divided by the number of iterations */
    GBENCH_INVERT = 8         /* reported as its inverse */
};
int gbench_set_counter(gbench_state *state, const char *name, double value, unsigned flags);
int gbench_set_label(gbench_state *state, const char *label);

/* Makes the row an error with this text and no time. The callback returns soon after. */
void gbench_skip_with_error(gbench_state *state, const char *message);

#ifdef __cplusplus
}
#endif
#endif
