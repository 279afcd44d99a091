/* problem.h - what is timed: operations, problems (an operation with a shape) and their operands.
 *
 * A result is seen as (rows, cols). Operands are generated from a fixed seed, identically
 * everywhere, into an arena: memory that the worker processes map too, so that every contender
 * reads the same pages and its result is verified where it wrote it.
 */
#ifndef T2_BENCH_PROBLEM_H
#define T2_BENCH_PROBLEM_H

#include "core/table.h"

#include <stddef.h>
#include <stdint.h>

enum { BENCH_INPUTS = 6, BENCH_DIMS = 5 };

enum bench_type { BENCH_F32, BENCH_I64 };
enum bench_role { BENCH_ACTIVATION, BENCH_WEIGHT };

/* Where the operands are when a call starts: all in cache where they fit; weights read from memory
 * (other copies were used since); everything from memory. */
enum bench_operands { BENCH_HOT, BENCH_COLD_WEIGHTS, BENCH_COLD_ALL, BENCH_OPERANDS };
extern const char *const bench_operands_name[BENCH_OPERANDS]; /* "hot", "cold-weights", ... */

struct bench_input {
    enum bench_type type;
    enum bench_role role;
    int64_t count; /* elements */
    float range;   /* BENCH_F32: uniform in [-range, range) */
    int64_t below; /* BENCH_I64: uniform in 0 .. below-1 */
};

struct problem;

struct bench_op {
    const char *name;
    const char *dims; /* names of the sizes in a shape, in order, such as "m n k" */
    size_t slot;      /* offset in t2k_table of the kernel that does the work; BENCH_NO_SLOT */
    size_t also;      /* offset of another one, for ISAs that bring only that; 0: there is none */
    t2k_transpose trans_a, trans_b; /* products; 0 elsewhere */
    int packed;                     /* products: B is packed before the timing starts */
    int other_bits;                 /* not of class strict: each ISA has bits of its own */
    /* From p->dim: inputs, rows, cols, flops, bytes, macs. Nonzero where the sizes make no sense
     * or a size in bytes would overflow. */
    int (*describe)(struct problem *p);
    /* `count` rows of the result in double: ref and allowed (count, cols), allowed being by how
     * much each element may differ: by our documented bound (strict) or by that of any sensible
     * order of summation (peers). T2K_ERR_NOMEM is possible. */
    t2k_status (*reference)(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed);
    /* Which rows to check where all would take too long: fills rows (at most `most`) and returns
     * their number. NULL: the first, the last and others at random. */
    int64_t (*sample_rows)(const struct problem *p, int64_t most, int64_t *rows);
    /* A check of the whole result that costs far less than computing it (Freivalds); the row it
     * finds wrong, -1 where all is well, p->rows where memory ran out. NULL: there is none. */
    int64_t (*check_all)(const struct problem *p, const void *const in[], const float *out);
    /* Our own way to do it: state bound to these operands; see contender.h. */
    t2k_status (*t2k_open)(const struct problem *p, const void *const in[], float *out,
                           void **state);
    t2k_status (*t2k_run)(void *state);
    /* Behind t2k_run and never timed: writes the result where that is in a form of our own. NULL:
     * t2k_run did. */
    t2k_status (*t2k_store)(void *state);
    void (*t2k_close)(void *state);
    /* Verification. */
    int whole;        /* nonzero: reference() costs as much for one row as for many */
    int one_bound;    /* nonzero: `allowed` does not depend on `strict` */
    double full_macs; /* all rows are checked up to so many; 0: BENCH_FULL_MACS or _ALONE */
};
/* Up to so many multiply-adds all rows are checked, and where there is no check_all that would see
 * a wrong element in the other rows: some seconds. */
#define BENCH_FULL_MACS 0x1p28
#define BENCH_FULL_MACS_ALONE 0x1p32
#define BENCH_SLOT(name) offsetof(t2k_table, name)
#define BENCH_NO_SLOT SIZE_MAX

/* All operations, NULL-terminated (problem.c). */
extern const struct bench_op *const bench_ops[];
const struct bench_op *bench_op_find(const char *name); /* NULL: unknown */

struct problem {
    const struct bench_op *op;
    char shape[48];  /* "320x768x256" */
    const char *set; /* the shape set it comes from; static or owned by the shape list */
    int64_t dim[BENCH_DIMS];
    int dims;
    struct bench_input input[BENCH_INPUTS];
    int inputs;
    int64_t rows, cols;             /* of the result */
    double flops;                   /* of one call; 0: bytes are what counts */
    double read_bytes, write_bytes; /* every operand read or written once */
    double macs;                    /* multiply-adds (or steps of like cost) of one call */
    const char *model_dir;          /* operation "model": the folder; NULL elsewhere */
};

/* Fills *p from an operation's name and a shape such as "320x768x256"; 0, or -1 with a text. */
int bench_problem(struct problem *p, const char *op, const char *shape, char *error, size_t size);

/* ---- arenas ---------------------------------------------------------------------------------- */

/* Offsets are multiples of 4096. Copy c of input i lies at offset[i] + c * stride[i] (stride 0:
 * there is one copy), the result of copy c at out_offset + c * out_stride. */
struct bench_arena {
    int fd;        /* of a memfd; -1 where a worker mapped it */
    char path[64]; /* "/proc/PID/fd/N" */
    size_t bytes;
    unsigned char *base;
    int copies;
    size_t offset[BENCH_INPUTS], stride[BENCH_INPUTS];
    size_t out_offset, out_stride;
};

/* How many copies make the operands cold: so many that twice the last-level cache lies between two
 * uses of one; 1 for BENCH_HOT; 0 where the problem is too small for it to make sense. */
int bench_copies(const struct problem *p, enum bench_operands operands, size_t llc_bytes);
/* Layout alone (offsets, bytes); the same in the parent and in the workers. */
void bench_arena_layout(const struct problem *p, enum bench_operands operands, int copies,
                        struct bench_arena *arena);
/* Creates and fills it: 0, or -1 with a text. Huge pages are asked for. */
int bench_arena_create(const struct problem *p, enum bench_operands operands, int copies,
                       struct bench_arena *arena, char *error, size_t size);
/* Maps the parent's, for a worker. */
int bench_arena_map(const struct problem *p, enum bench_operands operands, int copies,
                    const char *path, struct bench_arena *arena, char *error, size_t size);
/* Enters all pages into the page table of the process, so that no timed call meets the first touch
 * of one; to be called before each timing, since the creator may have moved them meanwhile. */
void bench_arena_populate(const struct bench_arena *arena);
/* The creator moves its operands to other physical pages, contents kept, while nobody computes:
 * which pages a process got decides about conflicts in caches, and would otherwise hold for all
 * rounds of a run. Large arenas, and where the system refuses, stay as they are. */
void bench_arena_scatter(struct bench_arena *arena, uint64_t *random);
void bench_arena_release(struct bench_arena *arena);
/* Bytes that the kernel thinks it can give, or SIZE_MAX where it does not tell. */
size_t bench_memory_available(void);
/* Pointers of copy c. in (p->inputs). */
void bench_arena_operands(const struct problem *p, const struct bench_arena *arena, int copy,
                          const void *in[BENCH_INPUTS], float **out);

/* ---- verification (verify.c) ----------------------------------------------------------------- */

/* What a problem's results are held against, computed once: all rows up to BENCH_FULL_MACS, else 64
 * sampled rows and op->check_all. */
struct bench_reference;
/* The operands must stay as they are, and where they are, as long as the reference. */
struct bench_reference *bench_reference_create(const struct problem *p, const void *const in[],
                                               char *error, size_t size); /* NULL: failed */
void bench_reference_destroy(struct bench_reference *reference);
/* 0 where `out` holds; else -1 and a text that names row, column, value, reference and bound. */
int bench_verify(const struct bench_reference *reference, int strict, const float *out, char *error,
                 size_t size);
/* "all rows", "64 rows and Freivalds" or "64 rows": how it is verified. */
const char *bench_verified_by(const struct bench_reference *reference);
uint64_t bench_fingerprint(const struct problem *p, const float *out);
/* Results with more elements than these are held against a reference that is computed again each
 * time, block by block; for tests. */
extern int64_t bench_kept_elements;

/* ---- the model of operation "model" (op_model.c) --------------------------------------------- */

/* A folder with the notebook's example model of fixed random weights: the same one, made by the
 * first call, for all problems of the process; problem.model_dir points to it. It is removed when
 * the process exits, or before by bench_model_remove(). NULL: failed. */
const char *bench_model_dir(char *error, size_t size);
void bench_model_remove(void);

/* ---- shape sets (shapes.c) ------------------------------------------------------------------- */

struct bench_shapes {
    struct problem *problem;
    int count;
    int left_out;  /* shapes of a set that were beyond the line's most=SECONDS */
    void *storage; /* names of sets */
};
/* Adds the problems of a built-in set ("seed", "llm", ...): 0, or -1 with a text. */
int bench_shapes_add_set(struct bench_shapes *shapes, const char *set, char *error, size_t size);
/* Adds those of a user's file in the same format; the text names file and line. */
int bench_shapes_add_file(struct bench_shapes *shapes, const char *path, char *error, size_t size);
/* Adds those of one line without its comment, which is overwritten; `set` is where it comes from,
 * and has to outlive the shapes. */
int bench_shapes_add_line(struct bench_shapes *shapes, char *line, const char *set, char *error,
                          size_t size);
void bench_shapes_free(struct bench_shapes *shapes);
/* Name and one-line description of built-in set i; NULL behind the last. */
const char *bench_set_name(int i);
const char *bench_set_text(int i);
/* The whole text of a built-in set; NULL: unknown. */
const char *bench_set_file(const char *set);

/* ---- numbers --------------------------------------------------------------------------------- */

uint64_t bench_random(uint64_t *state); /* SplitMix64 */
double bench_now(void);                 /* seconds, monotonic */

#endif
