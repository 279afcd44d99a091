/* client.h - the parent's side of the worker processes, and the table of contenders.
 *
 * Every contender runs in a process of its own (one per number of threads), stopped by SIGSTOP
 * while another one works: thread pools that spin would spoil the next contender's turn. A worker
 * that dies or hangs is an error of its cases, never of the whole run.
 */
#ifndef T2_BENCH_CLIENT_H
#define T2_BENCH_CLIENT_H

#include "problem.h"

/* One line of the table in peers.c. */
struct bench_peer {
    const char *name;    /* "t2k" (first), "openblas", "mkl-cnr", "torch", ... */
    const char *adapter; /* "t2k", "cblas", "onednn" or a script in bench/peers/ and its options */
    const char *libraries; /* names to try in dlopen order, space-separated; of a script: the Python
                            * modules that it needs; NULL: none needed */
    const char *environment; /* "NAME=VALUE NAME=VALUE"; %d stands for the number of threads */
    const char *ops;         /* extended regular expression of the operations worth asking for */
    int slow_start;          /* takes seconds to start: not part of a quick run unless named */
    const char *text;        /* what it is, for --help and list */
};
extern const struct bench_peer bench_peers[]; /* ends with a NULL name */
extern const int bench_peer_count;
const struct bench_peer *bench_peer_find(const char *name); /* NULL: unknown */
/* Whether it can be found here, without starting it: 1, or 0 with the reason ("not installed:
 * libopenblas.so.0; make peers installs it"). */
int bench_peer_present(const struct bench_peer *peer, char *reason, size_t size);

/* The contender that --against names; not in the table. What is named is a library where ".so" is
 * in its name, else another t2bench (or what speaks the protocol). */
const struct bench_peer *bench_peer_against(void);
int bench_against_is_t2bench(const char *against);

struct client;

/* Starts a worker and waits for its greeting. against: for bench_peer_against() what is named, else
 * NULL. NULL on failure, with the reason. */
struct client *client_start(const struct bench_peer *peer, const char *against, int threads,
                            char *error, size_t size);
void client_stop(struct client *client); /* NULL is fine; kills it where it does not end */
const char *client_version(const struct client *client);
int client_alive(const struct client *client);

/* A case of a worker: 0 and *id; 1 not supported, -1 failed; then the reason in error. */
int client_open(struct client *client, const struct problem *p, const char *isa,
                enum bench_operands operands, const struct bench_arena *arena, int *id, char *error,
                size_t size);
/* One call, on copy 0 of the operands; *seconds it took. 0 or -1. */
int client_run(struct client *client, int id, double *seconds, char *error, size_t size);
/* At least `warm_seconds` of untimed calls (0: none), then `calls` timed ones; *seconds wall time
 * and *cpu CPU time of the process for all of them. 0 or -1. */
int client_time(struct client *client, int id, int64_t calls, double warm_seconds, double *seconds,
                double *cpu, char *error, size_t size);
void client_close(struct client *client, int id);
/* Stops the worker that had the last request: for work of this process that must not be disturbed.
 * The next request to any worker resumes that one. */
void client_pause(void);

/* Seconds after which an answer counts as not coming; default 120. */
extern double client_timeout;

#endif
