/* Our own kernels as a contender: the operations' t2k_* functions on one instruction set. */
#include "contender.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state {
    const struct bench_op *op;
    int isa;
    void *bound; /* the operation's own */
};

static int load(const char *library, int threads, char *version, size_t version_size, char *error,
                size_t size)
{
    (void)library;
    t2k_status status = t2k_init();
    if (status != T2K_OK) {
        snprintf(error, size, "%s", t2k_isa_error());
        return -1;
    }
    /* By default, as its users have it, an operation takes fewer threads where more would not pay;
     * the parent sets OMP_NUM_THREADS. More than there are CPUs must be asked for. */
    if (t2k_get_num_threads() != threads) {
        status = t2k_set_num_threads(threads);
    }
    if (status != T2K_OK) {
        snprintf(error, size, "%d threads: %s", threads, t2k_status_str(status));
        return -1;
    }
    snprintf(version, version_size, "t2k %s", t2k_version());
    return 0;
}

/* The index of an ISA; NULL means the one that is active. -1: unknown. */
static int find_isa(const char *name)
{
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (name != NULL ? strcmp(info.name, name) == 0 : info.active) {
            return i;
        }
    }
    return -1;
}

/* Packed operands belong to the ISA that packed them. */
static int enter(void *state)
{
    return t2k_use_isa(((struct state *)state)->isa);
}

static int open_case(const struct problem *p, const char *isa, const void *const in[], float *out,
                     void **state, char *error, size_t size)
{
    int index = find_isa(isa);
    t2k_isa_info info;
    if (t2k_isa_get(index, &info) != T2K_OK) {
        snprintf(error, size, "no instruction set %s in this build", isa != NULL ? isa : "active");
        return 1;
    }
    if (t2k_use_isa(index) != T2K_OK) {
        snprintf(error, size, "%s: %s", info.name, info.reason);
        return 1;
    }
    struct state *st = calloc(1, sizeof *st);
    if (st == NULL) {
        snprintf(error, size, "%s", t2k_status_str(T2K_ERR_NOMEM));
        return -1;
    }
    st->op = p->op;
    st->isa = index;
    t2k_status status = p->op->t2k_open(p, in, out, &st->bound);
    if (status != T2K_OK) {
        snprintf(error, size, "%s", t2k_status_str(status));
        free(st);
        return -1;
    }
    *state = st;
    return 0;
}

static int run(void *state)
{
    struct state *st = state;
    return st->op->t2k_run(st->bound);
}

static int store(void *state)
{
    struct state *st = state;
    return st->op->t2k_store != NULL ? st->op->t2k_store(st->bound) : T2K_OK;
}

static void close_case(void *state)
{
    struct state *st = state;
    st->op->t2k_close(st->bound);
    free(st);
}

static const char *explain(int status)
{
    return t2k_status_str((t2k_status)status);
}

const struct contender contender_t2k = {.load = load,
                                        .open = open_case,
                                        .run = run,
                                        .store = store,
                                        .close = close_case,
                                        .enter = enter,
                                        .explain = explain};
