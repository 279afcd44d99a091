/* compare.h - two result files held against each other. Internal to t2bench compare. */
#ifndef T2_BENCH_COMPARE_H
#define T2_BENCH_COMPARE_H

#include "io/text.h"
#include "results.h"

#include <regex.h>

/* What --fail-on can name. Bits. */
enum compare_event {
    COMPARE_REGRESSION = 1, /* a slower row, in files that differ in none of the next four */
    COMPARE_MACHINE = 2,
    COMPARE_ISA = 4,
    COMPARE_THREADS = 8,
    COMPARE_COMPILER = 16,
    COMPARE_SLOWER = 32, /* a slower row, whatever the files differ in */
    COMPARE_FINGERPRINT = 64,
    COMPARE_MISSING = 128, /* a row of the baseline that the other file has not, or that failed */
    COMPARE_OTHER_PLACE = COMPARE_MACHINE | COMPARE_ISA | COMPARE_THREADS | COMPARE_COMPILER
};

enum compare_by { COMPARE_BY_NAME_OR_SHAPE, COMPARE_BY_NAME, COMPARE_BY_SHAPE };

struct compare_options {
    double threshold, alpha; /* 0.05 is 5 % */
    unsigned fail_on;        /* enum compare_event */
    const regex_t *filter;   /* NULL: all rows */
    enum compare_by by;
};

enum compare_verdict { COMPARE_ALIKE, COMPARE_IS_SLOWER, COMPARE_IS_FASTER, COMPARE_FAILED };

struct compare_pair {
    const struct result_row *a, *b;
    double ratio, low, high; /* median of b / median of a, and its interval */
    double ratio_min;        /* of the minima */
    double p, p_adjusted;
    enum compare_verdict verdict;
    int other_bits; /* the fingerprints differ */
};

/* The baseline a against b. */
struct compare {
    const struct results *a, *b;
    struct compare_pair *pair; /* in the order of a */
    int pairs;                 /* those that failed included */
    int timed;                 /* without them */
    int only_a, only_b;
    int by_shape; /* the pairs were made without looking at the ISA */
    int slower, faster, failed, other_bits;
    int too_few; /* pairs whose number of rounds can't show a difference, whatever the times */
    int rounds_needed;
    double limit_low, limit_high; /* ratios between which rows scatter that did not change */
    double mean_ratio;            /* geometric */
    unsigned events;              /* enum compare_event */
    t2_text warnings;             /* a line each */
};

/* 0, or -1 where memory ran out. */
int compare_files(const struct results *a, const struct results *b,
                  const struct compare_options *options, struct compare *compare);
void compare_free(struct compare *compare);

/* For people: a table of the rows that changed, or of all, and a line that sums up. */
void compare_table(const struct compare *compare, int all, int markdown, t2_text *out);
/* NULL where memory ran out. */
json_t *compare_json(const struct compare *compare, const struct compare_options *options);
/* A row in a word: "regression", "slower" (between two machines), "faster", "alike", "failed". */
const char *compare_word(const struct compare *compare, const struct compare_pair *pair);

#endif
