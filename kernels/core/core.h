/* Internal interface of kernels/core/: memory, threads, the floating-point environment. */
#ifndef T2K_CORE_H
#define T2K_CORE_H

#include "core/table.h"

/* Allocates bytes aligned to T2K_ALIGN; NULL on failure (bytes = 0 gives a valid pointer). */
void *t2k_alloc(size_t bytes);
void t2k_release(void *p);

/* Memory for the workspaces of one parallel region, aligned to T2K_ALIGN; NULL on failure. What
 * t2k_scratch_give() returns is kept for the next region: fresh pages would cost more than a
 * product of a few hundred rows and columns. Large pages are asked for. */
void *t2k_scratch_take(size_t bytes);
void t2k_scratch_give(void *p);

/* *out = a * b or a + b; nonzero on overflow. */
static inline int t2k_mul_overflow(size_t a, size_t b, size_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

/* Nonzero where this CPU and operating system offer all features of the space-separated list;
 * else 0 with a reason in `reason`. */
int t2k_cpu_offers(const char *features, char *reason, size_t reason_size);

/* The states that the operating system saves (x86: XCR0); 0 where there is no such thing. */
uint64_t t2k_cpu_xcr0(void);

/* Asks, once a process, for the permission to use AMX tiles. 0 with a reason where it is refused.
 * t2k_cpu_offers() asks when CPU and XCR0 have them. */
int t2k_cpu_tiles(char *reason, size_t reason_size);

/* Threads for an operation of `work` elementary steps (about a nanosecond each): exact where the
 * user asked for a number, else the default, at most one per 20 us of work. 1 in a forked
 * child. */
int t2k_threads_for_work(double work);

/* The tightest CPU quota, rounded up to whole CPUs, of the control groups (v1 and v2) that the file
 * `groups` (as /proc/self/cgroup) names, below the mount point `root`; INT_MAX without one. */
int t2k_cgroup_cpus(const char *groups, const char *root);

/* Nonzero in a child forked after the library was first used. */
int t2k_is_forked_child(void);

#endif
