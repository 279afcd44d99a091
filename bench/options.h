/* options.h - the options of `t2bench run` and `t2bench list`.
 *
 * --foo-bar VALUE has its default in the environment variable BENCH_FOO_BAR. Those of Google
 * Benchmark's flags that we answer ourselves (--benchmark_filter and others) are other spellings
 * of our own options; the rest goes to the library.
 */
#ifndef T2_BENCH_OPTIONS_H
#define T2_BENCH_OPTIONS_H

#include "client.h"
#include "gbench.h"

#include <regex.h>

enum { BENCH_CHOICES = 32, BENCH_MAX_THREADS = 4096, BENCH_MAX_REPETITIONS = 10000 };

enum bench_profile { BENCH_DEFAULT, BENCH_QUICK, BENCH_FULL, BENCH_TARGETS };

struct bench_options {
    enum bench_profile profile;
    int filtered, filter_negated;
    regex_t filter;
    const char *filter_text; /* NULL: none */
    int isa[BENCH_CHOICES];  /* by rank, rising */
    int isas, isas_given;
    int threads[BENCH_CHOICES]; /* rising */
    int thread_counts, threads_given;
    const char *set[BENCH_CHOICES];
    int sets;
    const char *sizes;                            /* a file of shapes, NULL: none */
    int operands[BENCH_OPERANDS];                 /* nonzero: asked for */
    int operands_given;                           /* else --full chooses by operation */
    int repetitions;                              /* rounds; 0: as many as the precision needs */
    double min_time;                              /* seconds of a round */
    double precision;                             /* width of the 95 % intervals, relative */
    double budget;                                /* seconds for everything */
    const struct bench_peer *peer[BENCH_CHOICES]; /* asked for, present or not */
    int peers, peers_named;
    const char *against;
    const char *json, *csv, *md; /* files, "-": stdout, NULL: none */
    int dry_run, list, host;
    uint64_t seed;
    const char *format; /* --benchmark_format: "json", "console", "csv"; NULL: our table */
    const char *out, *out_format; /* --benchmark_out */
    int argument_count;
    char **arguments; /* as given, for the record */
    char **storage;   /* what the texts above point into */
    int stored;
};

/* Reads environment and arguments (argv[0] is skipped) and gives the library its flags. 0; 2: said
 * on stderr what is wrong; -1: --help was answered. */
int bench_options_parse(struct bench_options *o, int argc, char **argv);
void bench_options_free(struct bench_options *o);

/* Whether the filter lets a case through. */
int bench_options_match(const struct bench_options *o, const char *name);

/* Usable, and not above the cap of T2K_ISA. */
int bench_isa_selectable(int isa);

/* ---- values (options_values.c) --------------------------------------------------------------- */

/* Each takes one item of a list; from is the option or variable, for the message. 0 or 2. */
int bench_add_isa(struct bench_options *o, const char *from, const char *name);
int bench_add_threads(struct bench_options *o, const char *from, const char *text);
int bench_add_set(struct bench_options *o, const char *from, const char *name);
int bench_add_operands(struct bench_options *o, const char *from, const char *name);
int bench_add_peer(struct bench_options *o, const char *from, const char *name);

/* A number in [least, most], behind which one of the units (NULL-terminated) may stand. 0 or 2. */
int bench_number(const char *from, const char *text, const char *const *units,
                 const double *factors, double least, double most, double *value);

/* "t2bench: " and a line on stderr; 2. */
int bench_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
