/* targets.h - targets as the shape set of that name has them: bench/shapes/targets.txt says what
 * the keys mean. */
#ifndef T2_BENCH_TARGETS_H
#define T2_BENCH_TARGETS_H

#include "problem.h"

enum { TARGET_WORD = 24, TARGET_RATIOS = 4 };

struct target_ratio {
    char name[TARGET_WORD]; /* a peer or an operation of ours; "": the best peer */
    double value;
};

/* One line. 0 and "" where there is no such target. */
struct target {
    char row[TARGET_WORD], isa[TARGET_WORD];
    char set[TARGET_WORD];      /* whose shapes these all are */
    struct bench_shapes shapes; /* the cases it is about */
    struct target_ratio peer[TARGET_RATIOS], own[TARGET_RATIOS];
    int peers, owns;
    double mean, ns;
    double share, gain;                           /* 0.93 is 93 % */
    struct target_ratio isa_share[TARGET_RATIOS]; /* by ISA, instead of `share` */
    int isa_shares;
};

struct targets {
    struct target *target;
    int count;
};

/* From a text in the format of a shape set: 0, or -1 with a text that names the line. */
int targets_parse(const char *text, struct targets *targets, char *error, size_t size);
void targets_free(struct targets *targets);
/* The share for an ISA; 0: none. */
double target_share(const struct target *target, const char *isa);

#endif
