/* Parallel regions: all OpenMP of the library is in ops/, and nearly all of it here. */
#include "ops/team.h"

#include "core/fpenv.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Looks at the other threads' progress before the CPU is given to somebody else: 25 us on Zen 4.
 * libgomp's own barrier spins for milliseconds; on a machine whose CPUs are busy otherwise, a
 * forward pass with its dozens of barriers then took several times as long as on one thread. */
#define SPINS 1000

struct meeting {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint generation; /* counts the barriers that are over */
    _Alignas(64) atomic_size_t ticket;
    atomic_int flagged; /* some of `flags` is not zero */
    _Alignas(64) atomic_size_t flags[T2K_TEAM_FLAGS];
};

struct t2k_team {
    int rank;
    int size;
    unsigned char *workspace; /* this thread's */
    struct meeting *meeting;  /* the team's */
};

/* While no other thread uses the meeting. */
static void reset(struct meeting *meeting)
{
    atomic_store_explicit(&meeting->ticket, 0, memory_order_relaxed);
    if (atomic_load_explicit(&meeting->flagged, memory_order_relaxed)) {
        atomic_store_explicit(&meeting->flagged, 0, memory_order_relaxed);
        for (size_t i = 0; i < T2K_TEAM_FLAGS; i++) {
            atomic_store_explicit(&meeting->flags[i], 0, memory_order_relaxed);
        }
    }
}

static void run_member(int rank, int size, struct meeting *meeting, unsigned char *workspace,
                       t2k_body body, void *arg)
{
    t2k_team team = {rank, size, NULL, meeting};
    if (workspace != NULL) {
        team.workspace = workspace + (size_t)rank * T2K_WORKSPACE_BYTES;
    }
    const t2k_fpenv fpenv = t2k_fpenv_enter();
    body(&team, arg);
    t2k_fpenv_leave(fpenv);
}

/* ---- threads that can be had ---------------------------------------------------------------- */

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    int open;
};

static void *wait_at_gate(void *arg)
{
    struct gate *gate = arg;
    pthread_mutex_lock(&gate->mutex);
    while (!gate->open) {
        pthread_cond_wait(&gate->opened, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
    return NULL;
}

/* How many threads, up to `wanted` with the caller, can be had. Twice as many are made for a
 * moment: the OpenMP runtime's own need more than their stacks. */
static int try_threads(int wanted)
{
    struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    const int most = 2 * (wanted - 1);
    pthread_t *made = malloc((size_t)most * sizeof *made);
    int count = 0;
    while (made != NULL && count < most &&
           pthread_create(&made[count], NULL, wait_at_gate, &gate) == 0) {
        count++;
    }
    pthread_mutex_lock(&gate.mutex);
    gate.open = 1;
    pthread_cond_broadcast(&gate.opened);
    pthread_mutex_unlock(&gate.mutex);
    for (int i = 0; i < count; i++) {
        pthread_join(made[i], NULL);
    }
    free(made);
    return count / 2 + 1;
}

/* OpenMP runtimes end the process when they cannot create a thread (a limit on memory or
 * processes). So before the pool grows for this application thread, plain threads are tried; fewer
 * than asked for is then what the team gets. */
static int obtainable(int wanted)
{
    static _Thread_local int proven = 1;
    if (wanted > proven) {
        proven = try_threads(wanted);
    }
    return wanted < proven ? wanted : proven;
}

/* ---- regions -------------------------------------------------------------------------------- */

t2k_status t2k_parallel_team(int threads, int workspace, t2k_body body, void *arg)
{
    if (threads > 1 && (t2k_is_forked_child() || omp_in_parallel())) {
        threads = 1;
    }
    unsigned char *memory = NULL;
    if (workspace) {
        size_t bytes;
        if (t2k_mul_overflow((size_t)threads, T2K_WORKSPACE_BYTES, &bytes)) {
            return T2K_ERR_NOMEM;
        }
        memory = t2k_scratch_take(bytes);
        if (memory == NULL) {
            return T2K_ERR_NOMEM;
        }
    }
    if (threads > 1) { /* after the workspace has taken its memory */
        threads = obtainable(threads);
    }
    if (threads <= 1) {
        run_member(0, 1, NULL, memory, body, arg);
    } else {
        struct meeting meeting;
        atomic_init(&meeting.arrived, 0);
        atomic_init(&meeting.generation, 0);
        atomic_init(&meeting.flagged, 1);
        reset(&meeting);
        /* Where the caller lets OpenMP adjust its teams, it could give fewer than were asked. */
        int dynamic = omp_get_dynamic();
        if (dynamic) {
            omp_set_dynamic(0);
        }
#pragma omp parallel num_threads(threads)
        run_member(omp_get_thread_num(), omp_get_num_threads(), &meeting, memory, body, arg);
        if (dynamic) {
            omp_set_dynamic(dynamic);
        }
    }
    t2k_scratch_give(memory);
    return T2K_OK;
}

t2k_status t2k_parallel(int threads, t2k_body body, void *arg)
{
    if (threads < 0 || body == NULL) {
        return T2K_ERR_ARG;
    }
    if (t2k_init() != T2K_OK) {
        return T2K_ERR_ISA;
    }
    return t2k_parallel_team(threads > 0 ? threads : t2k_get_num_threads(), 1, body, arg);
}

int t2k_team_rank(const t2k_team *team)
{
    return team->rank;
}

int t2k_team_size(const t2k_team *team)
{
    return team->size;
}

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int wait_a_little(int spins)
{
    if (spins < SPINS) {
        pause_cpu();
        return spins + 1;
    }
    sched_yield();
    return spins;
}

void t2k_team_barrier(t2k_team *team)
{
    if (team->size == 1) {
        return;
    }
    struct meeting *meeting = team->meeting;
    const unsigned now = atomic_load_explicit(&meeting->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&meeting->arrived, 1, memory_order_acq_rel) + 1 == team->size) {
        atomic_store_explicit(&meeting->arrived, 0, memory_order_relaxed);
        reset(meeting);
        atomic_store_explicit(&meeting->generation, now + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&meeting->generation, memory_order_acquire) == now;) {
        spins = wait_a_little(spins);
    }
}

size_t t2k_team_ticket(t2k_team *team)
{
    return atomic_fetch_add_explicit(&team->meeting->ticket, 1, memory_order_relaxed);
}

void t2k_team_add(t2k_team *team, size_t flag)
{
    atomic_store_explicit(&team->meeting->flagged, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&team->meeting->flags[flag], 1, memory_order_release);
}

void t2k_team_await(t2k_team *team, size_t flag, size_t value)
{
    const atomic_size_t *at = &team->meeting->flags[flag];
    for (int spins = 0; atomic_load_explicit(at, memory_order_acquire) < value;) {
        spins = wait_a_little(spins);
    }
}

void *t2k_team_workspace(const t2k_team *team)
{
    return team->workspace;
}

void *t2k_team_workspace_of(const t2k_team *team, int rank)
{
    return team->workspace + (ptrdiff_t)(rank - team->rank) * (ptrdiff_t)T2K_WORKSPACE_BYTES;
}

void t2k_share(size_t count, size_t grain, size_t parts, size_t index, size_t *first, size_t *last)
{
    const size_t units = (count + grain - 1) / grain, each = units / parts, rest = units % parts;
    const size_t a = (each * index + (index < rest ? index : rest)) * grain;
    const size_t b = a + (each + (index < rest)) * grain;
    *first = a < count ? a : count;
    *last = b < count ? b : count;
}

void t2k_team_share(const t2k_team *team, size_t count, size_t grain, size_t *first, size_t *last)
{
    t2k_share(count, grain, (size_t)team->size, (size_t)team->rank, first, last);
}
