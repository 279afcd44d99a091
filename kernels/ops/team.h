/* The team of a parallel region: internal part. */
#ifndef T2K_TEAM_H
#define T2K_TEAM_H

#include "core/core.h"

/* Bytes of workspace that every thread of every team has: what the largest driver needs, a
 * product's packed blocks of A (up to 480 rows) and B (up to 1024 columns) by 256 of k. An
 * attention tile needs less. Pages that no driver touches are never filled. */
#define T2K_WORKSPACE_BYTES ((size_t)3 << 19)

/* As t2k_parallel(), with `threads` as given (> 0); workspace = 0: the team has none (for tiny
 * products and elementwise work: no allocation happens). */
t2k_status t2k_parallel_team(int threads, int workspace, t2k_body body, void *arg);

/* This thread's T2K_WORKSPACE_BYTES bytes, aligned to T2K_ALIGN; NULL if the team has none. */
void *t2k_team_workspace(const t2k_team *team);

/* The part [*first, *last) of `count` items that number `index` of `parts` gets, in steps of
 * `grain`; and the part that belongs to this thread. */
void t2k_share(size_t count, size_t grain, size_t parts, size_t index, size_t *first, size_t *last);
void t2k_team_share(const t2k_team *team, size_t count, size_t grain, size_t *first, size_t *last);

#endif
