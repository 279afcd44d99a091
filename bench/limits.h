/* limits.h - what this machine can do, measured by short probes, and what that allows a problem.
 */
#ifndef T2_BENCH_LIMITS_H
#define T2_BENCH_LIMITS_H

#include "problem.h"

#include <jansson.h>

/* FMA peak of each ISA, bf16 matrix-unit peak where there is one, read and copy bandwidth of each
 * level of the memory hierarchy, an empty parallel region; each per number of threads. */
struct bench_peak {
    char name[24]; /* "fma", "bf16", "read", "copy", "region" */
    char isa[16];  /* "fma", "bf16": whose; else "" */
    char level[8]; /* "read", "copy": "L1", "L2", "L3", "memory"; else "" */
    int threads;
    double value; /* GFLOP/s, GB/s (read + written bytes), seconds; 0: could not be measured */
};
enum { BENCH_PEAKS = 512 };
struct bench_peaks {
    struct bench_peak peak[BENCH_PEAKS];
    int count;
};
/* Measures those of the usable ISAs (names in isas, NULL-terminated) for each number of threads.
 * Takes about `seconds` (at least 0.3), twice that where a busy machine leaves peaks unknown. Runs
 * in the calling process, which must be no forked child: those have one thread. */
void bench_peaks_measure(const char *const *isas, int thread_counts, const int *threads,
                         double seconds, struct bench_peaks *peaks);
double bench_peak_find(const struct bench_peaks *peaks, const char *name, const char *isa,
                       const char *level, int threads); /* 0: not there */
json_t *bench_peaks_json(const struct bench_peaks *peaks);
void bench_peaks_print(const struct bench_peaks *peaks); /* a table, on stdout */

/* `t2bench peaks [--isa LIST] [--threads LIST] [--seconds S] [--json FILE|-]`: arguments behind the
 * subcommand's name; the exit status. */
int peaks_main(int argc, char **argv);

/* The least time this machine's peaks allow one call of p, by the roofline model: the larger of
 * flops / FMA peak and bytes / bandwidth of the level that holds the operands. *name says which:
 * "fma avx2", "read L2", "copy memory" (fits `size` >= 24 bytes). 0 where no peak is known. */
double bench_limit_seconds(const struct bench_peaks *peaks, const struct problem *p,
                           enum bench_operands operands, const char *isa, int threads, char *name,
                           size_t size);

/* A case that seems to take less than 1 / this of its least time: the peak was measured too low. */
#define BENCH_MOST_SHARE 1.1

/* ---- the machine (machine.c) ----------------------------------------------------------------- */

json_t *bench_machine_json(int with_host);      /* "machine" of the context; "host" if asked */
json_t *bench_build_json(void);                 /* "build": compiler, flags, git commit */
json_t *bench_environment_json(void);           /* variables that matter and are set */
void bench_machine_key(char *key, size_t size); /* "amd-25-17-1-avx512": with the ISA in use */
void bench_cpu_name(char *text, size_t size);
size_t bench_cache_bytes(int level); /* data or unified; 0: unknown */

/* Data and unified caches: of each level one, which shared_by CPUs share. */
enum { BENCH_LEVELS = 3 };
struct bench_caches {
    size_t bytes[BENCH_LEVELS]; /* 0: unknown or none */
    int shared_by[BENCH_LEVELS];
    int cpus;
};
void bench_caches_read(struct bench_caches *caches);
/* bench_limit_seconds() on a machine with these caches. */
double bench_limit_with(const struct bench_caches *caches, const struct bench_peaks *peaks,
                        const struct problem *p, enum bench_operands operands, const char *isa,
                        int threads, char *name, size_t size);

/* Time stolen by the hypervisor and the clock's frequency, between start and end. */
struct bench_noise {
    double start_steal, start_total;
    double ghz_min, ghz_max; /* over the samples; 0: unknown */
    int samples;
};
void bench_noise_start(struct bench_noise *noise);
void bench_noise_sample(struct bench_noise *noise);        /* now and then: a short probe, < 1 ms */
json_t *bench_noise_json(const struct bench_noise *noise); /* steal_percent, ghz_min, ghz_max */

#endif
