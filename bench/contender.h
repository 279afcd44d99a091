/* contender.h - a library that computes the operations, inside a worker process of its own.
 *
 * `t2bench worker ...` loads one contender and serves requests on stdin and stdout (the
 * protocol: docs/benchmarks.md). Contenders in C fill this table; those in Python
 * (bench/peers/) speak the same protocol.
 */
#ifndef T2_BENCH_CONTENDER_H
#define T2_BENCH_CONTENDER_H

#include "problem.h"

struct contender {
    /* Loads the library (a name or path for dlopen; NULL: our own) and sets its threads. Fills
     * `version` such as "OpenBLAS 0.3.21 Zen". 0, or -1 with the reason in error. */
    int (*load)(const char *library, int threads, char *version, size_t version_size, char *error,
                size_t size);
    /* Prepares one problem on these operands, packing weights where op->packed: what its users do
     * once. isa: only for our own. Returns 0 and *state; 1: not supported, the reason in error;
     * -1: failed. */
    int (*open)(const struct problem *p, const char *isa, const void *const in[], float *out,
                void **state, char *error, size_t size);
    /* The call that is timed. 0, or nonzero on failure. */
    int (*run)(void *state);
    /* After the call of a `run` request, never timed: writes a result that `run` left elsewhere.
     * NULL: nothing. 0, or nonzero on failure. */
    int (*store)(void *state);
    void (*close)(void *state);
    /* Done before the calls of a request, never timed: what a state needs that others of the same
     * worker undo. NULL: nothing. 0, or nonzero on failure. */
    int (*enter)(void *state);
    /* The text of a failure of run or enter; NULL: there are only numbers. */
    const char *(*explain)(int status);
};

extern const struct contender contender_t2k;   /* contender_t2k.c */
extern const struct contender contender_cblas; /* contender_cblas.c: any library with cblas_sgemm */
extern const struct contender contender_onednn; /* contender_onednn.c: versions 2 and 3 */

/* Serves requests until stdin ends; the exit status. adapter: "t2k", "cblas", "onednn".
 * name: the contender's, for messages and injected faults. libraries: names or paths to try in
 * order, NULL-terminated. */
int bench_worker(const char *adapter, const char *name, const char *const *libraries, int threads);

/* `t2bench worker --adapter ADAPTER --name NAME [--library LIBRARY ...] --threads N`; argv[0] is
 * skipped. The exit status. */
int worker_main(int argc, char **argv);

#endif
