/* gbench.h - Google Benchmark from C: the shim over the library's C++ interface.
 *
 * The library times one round at a time, in an order that is ours: gbench_round() registers one
 * benchmark, runs it once with manual time and keeps the library's record of it under a case.
 * When all rounds are done its own reporters print the cases. Strings are copied. Functions that
 * return int give 0 on success and -1 when the library refused or memory ran out; no C++ exception
 * leaves the shim. Not for use from several threads at once.
 */
#ifndef T2_GBENCH_H
#define T2_GBENCH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads the --benchmark_* flags, removes them from argv and lowers *argc. Flags that would change
 * how a round runs (--benchmark_repetitions, _min_time, _filter, _list_tests, _out) must have been
 * taken out: they are ours to answer. */
int gbench_initialize(int *argc, char **argv);
void gbench_shutdown(void);

/* A named case and the rounds that were run of it. */
typedef struct gbench_case gbench_case;

/* threads: how many threads the timed code uses, for the reports. NULL: out of memory. */
gbench_case *gbench_case_create(const char *name, int threads);
void gbench_case_destroy(gbench_case *c); /* NULL is fine */

/* Makes `calls` calls and says how many seconds all of them took, by the clock and of CPU time;
 * nonzero where that failed, with a text of at most size - 1 characters in error. */
typedef int gbench_call(void *arg, int64_t calls, double *seconds, double *cpu, char *error,
                        size_t size);

/* One round: one run of the library with `calls` iterations, whose time is what call(arg, ...)
 * says. With keep = 0 the record of it is dropped. *seconds: per iteration, as the library counts
 * it. -1: the call failed, with its text in error, or the library did. */
int gbench_round(gbench_case *c, int64_t calls, gbench_call *call, void *arg, int keep,
                 double *seconds, char *error, size_t size);

/* Drops the rounds of a case; its one row is this error. */
int gbench_fail(gbench_case *c, const char *message);

/* Adds a row with a statistic over the case's rounds; seconds per iteration. */
int gbench_aggregate(gbench_case *c, const char *statistic, double real_seconds,
                     double cpu_seconds);

/* Number of rounds kept, and the CPU seconds of one iteration in round i. */
int gbench_rounds(const gbench_case *c);
double gbench_cpu_seconds(const gbench_case *c, int i);

enum gbench_format { GBENCH_JSON, GBENCH_CONSOLE, GBENCH_CSV };

/* What the library's reporter of that format prints for the cases: allocated, to be freed by the
 * caller; NULL on failure. Entries of JSON have the index of their case as "family_index". Times
 * are in nanoseconds in JSON, else in the unit of --benchmark_time_unit. */
char *gbench_format_cases(enum gbench_format format, gbench_case *const *cases, int count);

#ifdef __cplusplus
}
#endif
#endif
