/* bench.h - what the parts of t2bench share.
 *
 * A kind is an operation with its reference; a problem is a kind with a shape and its operands; a
 * case is a problem on one ISA with one number of threads, and has a row in the results. A result
 * is seen as (rows, cols): a row's bits do not depend on which rows travel with it, so a single
 * row can be computed on its own to check a large result.
 */
#ifndef T2_BENCH_H
#define T2_BENCH_H

#include "core/table.h"
#include "gbench.h"

#include <stddef.h>
#include <stdint.h>

struct problem;

struct bench_kind {
    const char *op;
    size_t slot; /* offset in t2k_table of the kernel that does the work: BENCH_SLOT() */
    /* Allocates and fills the operands; T2K_ERR_NOMEM where that fails. */
    t2k_status (*prepare)(struct problem *p);
    /* The call that is timed: writes p->out (rows, cols). */
    t2k_status (*run)(struct problem *p);
    /* Row `row` of the same result alone. out (cols). */
    t2k_status (*run_row)(struct problem *p, int64_t row, float *out);
    /* The row in double, and by how much each element may differ from it. ref, allowed (cols). */
    void (*reference)(const struct problem *p, int64_t row, double *ref, double *allowed);
    t2k_transpose trans_b; /* products: how B lies in memory; 0 elsewhere */
    int packed;            /* products: B is packed before the timing starts */
};
#define BENCH_SLOT(name) offsetof(t2k_table, name)

enum { BENCH_INPUTS = 6 };

struct problem {
    const struct bench_kind *kind;
    char shape[40];
    int64_t m, n, k;            /* the kind says what they mean */
    int64_t items, heads;       /* attention, batched products */
    int64_t rows, cols;         /* of the result */
    double flops;               /* of one call; 0: bytes are what counts */
    double bytes;               /* every operand read or written once */
    double work;                /* steps (about 3 ns each on the scalar ISA) of one call */
    float *in[BENCH_INPUTS];    /* allocated by prepare */
    int64_t *ids;               /* embedding */
    uint8_t *mask;              /* attention: (queries, keys) or NULL */
    void *packed;               /* B, packed for the ISA packed_isa */
    int packed_isa;             /* -1: not packed */
    float *out;                 /* (rows, cols) */
    int prepared;               /* the operands stand and the expected rows are right */
    int64_t samples;            /* number of rows checked */
    int64_t *sample;            /* (samples) their indices */
    float *expected;            /* (samples, cols) the scalar ISA's */
    uint64_t fingerprint;       /* of the first verified result */
    const char *fingerprint_of; /* that case's name, NULL: none yet */
    char error[200];            /* why no case of this problem can be trusted, or "" */
};

enum { BENCH_ROUNDS = 256 };

struct bench_case {
    struct problem *problem;
    int isa;
    const char *isa_name;
    int threads;
    char name[80]; /* op/isa/shape/threads */
    double peak;   /* measured FMA peak of this ISA and these threads, GFLOP/s; 0: unknown */
    int verified;
    double first;    /* seconds of the verified call */
    int64_t calls;   /* per round; 0: not yet known */
    int64_t rounds;  /* per repetition, at most BENCH_ROUNDS */
    double best;     /* seconds per call in the fastest round, 0: not timed */
    double median;   /* over the rounds of that repetition */
    char error[240]; /* "" or why there is no time */
};

struct bench_suite {
    struct problem **problems;
    int problem_count;
    int failed; /* out of memory while adding */
};

/* ---- problems.c: operands ------------------------------------------------------------------- */

/* Adds a problem with a shape named as by printf; NULL when out of memory (suite->failed). */
struct problem *bench_add(struct bench_suite *suite, const struct bench_kind *kind,
                          const char *shape, ...) __attribute__((format(printf, 3, 4)));
void bench_free(struct bench_suite *suite);

/* p->in[slot] = n floats in [-range, range), the same on every machine. */
t2k_status bench_floats(struct problem *p, int slot, int64_t n, float range);
/* The same for p->ids in 0 .. below-1. */
t2k_status bench_ids(struct problem *p, int64_t n, int64_t below);
void *bench_alloc(size_t count, size_t size); /* aligned to T2K_ALIGN; NULL when out of memory */
uint64_t bench_random(uint64_t *state);       /* SplitMix64 */

/* One per file of kinds. */
void bench_add_gemm(struct bench_suite *suite);
void bench_add_rows(struct bench_suite *suite);
void bench_add_elementwise(struct bench_suite *suite);
void bench_add_attention(struct bench_suite *suite);

/* ---- run.c: verification and timing --------------------------------------------------------- */

/* A registered benchmark's callback; arg is a struct bench_case. */
void bench_run_case(gbench_state *state, void *arg);
extern double bench_seconds; /* how long a case is timed, about */
double bench_now(void);      /* seconds, monotonic */

/* ---- machine.c ------------------------------------------------------------------------------ */

/* Best of some short runs of t2k_probe_fma on `threads` threads at once, in GFLOP/s; 0 when it
 * cannot be measured, as for several threads on a busy machine. Leaves the ISA in use. */
double bench_measure_peak(int isa, int threads);
void bench_cpu_name(char *text, size_t size);
const char *bench_compiler(void);
const char *bench_flags(void);

/* ---- table.c: the results as text ----------------------------------------------------------- */

void bench_print_machine(const struct bench_case *cases, int count);
void bench_print_table(const struct bench_case *cases, int count);

#endif
