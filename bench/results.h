/* results.h - result files read back, for compare and report. */
#ifndef T2_BENCH_RESULTS_H
#define T2_BENCH_RESULTS_H

#include <jansson.h>

enum { RESULT_NAME = 128 };

struct result_peer {
    const char *name;
    double median, min, ratio; /* ns, ns, its median / ours (of paired rounds) */
    double ratio_low, ratio_high;
    int noisy;
    const char *error; /* NULL, or why it has no time */
};

struct result_row {
    const char *name; /* run_name: op/isa/shape/threads[/operands] */
    const char *op, *isa, *shape, *set, *operands;
    int threads;
    const char *fingerprint;
    double median, min; /* ns per call */
    double low, high;   /* interval of the median */
    int samples;
    double *sample;        /* (samples) ns, in the order they were taken */
    double rate;           /* in rate_unit */
    const char *rate_unit; /* "GFLOP/s" or "GB/s" */
    double intensity;      /* flops per byte; 0 where flops do not count */
    const char *limit;     /* "fma avx2", ...; NULL: unknown */
    double limit_share;
    const char *best_peer; /* NULL: none */
    double peer_ratio;
    int noisy;
    const char *error; /* NULL, or why it has no time */
    struct result_peer *peer;
    int peers;
};

struct results {
    const char *path;
    json_t *root; /* everything; the strings above belong to it */
    json_t *context;
    const char *key;   /* machine key */
    const char *label; /* for people: CPU name and ISA, made unique among the files */
    int complete;
    struct result_row *row;
    int rows;
    json_t *index; /* run_name -> number of the row */
};

/* 0, or -1 with a text that names the file and what is wrong (unreadable, no JSON, foreign or newer
 * schema). */
int results_load(const char *path, struct results *results, char *error, size_t size);
void results_free(struct results *results);
const struct result_row *results_find(const struct results *results, const char *name);
/* Where labels are equal, adds what tells the files apart (version and commit, else the path). -1
 * where memory ran out. */
int results_label_apart(int count, struct results *const *results);

/* Subcommands: arguments behind the subcommand's name; the exit status. */
int compare_main(int argc, char **argv);
int report_main(int argc, char **argv);

#endif
