/* The team of a parallel region: internal part. */
#ifndef T2K_TEAM_H
#define T2K_TEAM_H

#include "core/core.h"

/* Bytes of workspace that every thread of every team has: what the largest driver needs, a
 * product's packed block of A (1 MB) and columns of B (4 MB). Pages that no driver touches are
 * never filled. */
#define T2K_WORKSPACE_BYTES ((size_t)5 << 20)

/* Counters of a team, see t2k_team_add(). */
#define T2K_TEAM_FLAGS 256

/* As t2k_parallel(), with `threads` as given (> 0); workspace = 0: the team has none (for tiny
 * products and elementwise work: no allocation happens). */
t2k_status t2k_parallel_team(int threads, int workspace, t2k_body body, void *arg);

/* This thread's T2K_WORKSPACE_BYTES bytes, aligned to T2K_ALIGN; NULL if the team has none. */
void *t2k_team_workspace(const t2k_team *team);

/* The workspace of another thread of the team, which has one. */
void *t2k_team_workspace_of(const t2k_team *team, int rank);

/* A queue and counters for one collective call of a team of several threads: tickets are 0, 1, 2
 * ... over all threads; each counter starts at 0. Both start anew behind each barrier of the team,
 * so that a call that uses them has to end with one. What a thread wrote before it added is seen by
 * whoever awaited that value. */
size_t t2k_team_ticket(t2k_team *team);
void t2k_team_add(t2k_team *team, size_t flag);
void t2k_team_await(t2k_team *team, size_t flag, size_t value);

/* The part [*first, *last) of `count` items that number `index` of `parts` gets, in steps of
 * `grain`; and the part that belongs to this thread. */
void t2k_share(size_t count, size_t grain, size_t parts, size_t index, size_t *first, size_t *last);
void t2k_team_share(const t2k_team *team, size_t count, size_t grain, size_t *first, size_t *last);

#endif
