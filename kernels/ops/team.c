/* Parallel regions: all OpenMP of the library is in ops/, and nearly all of it here. */
#include "ops/team.h"

#include "core/fpenv.h"

#include <omp.h>

struct t2k_team {
    int rank;
    int size;
    unsigned char *workspace; /* this thread's */
};

static void run_member(int rank, int size, unsigned char *workspace, t2k_body body, void *arg)
{
    t2k_team team = {rank, size, NULL};
    if (workspace != NULL) {
        team.workspace = workspace + (size_t)rank * T2K_WORKSPACE_BYTES;
    }
    /* Writing the register costs as much as a tiny product: only where a mode differs. */
    const uint64_t modes = ~(uint64_t)T2K_FPENV_FLAGS;
    const uint64_t fpenv = t2k_fpenv_get();
    const int differs = (fpenv & modes) != T2K_FPENV_DEFAULT;
    if (differs) {
        t2k_fpenv_set(T2K_FPENV_DEFAULT);
    }
    body(&team, arg);
    if (differs) {
        t2k_fpenv_set(fpenv);
    }
}

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
        memory = t2k_alloc(bytes);
        if (memory == NULL) {
            return T2K_ERR_NOMEM;
        }
    }
    if (threads <= 1) {
        run_member(0, 1, memory, body, arg);
    } else {
        /* Where the caller lets OpenMP adjust its teams, it could give fewer than were asked. */
        int dynamic = omp_get_dynamic();
        if (dynamic) {
            omp_set_dynamic(0);
        }
#pragma omp parallel num_threads(threads)
        run_member(omp_get_thread_num(), omp_get_num_threads(), memory, body, arg);
        if (dynamic) {
            omp_set_dynamic(dynamic);
        }
    }
    t2k_release(memory);
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

void t2k_team_barrier(t2k_team *team)
{
    if (team->size > 1) {
#pragma omp barrier
    }
}

void *t2k_team_workspace(const t2k_team *team)
{
    return team->workspace;
}

void t2k_team_share(const t2k_team *team, size_t count, size_t grain, size_t *first, size_t *last)
{
    size_t units = (count + grain - 1) / grain;
    size_t size = (size_t)team->size, rank = (size_t)team->rank;
    size_t a = (units / size * rank + (units % size < rank ? units % size : rank)) * grain;
    size_t b = a + (units / size + (rank < units % size)) * grain;
    *first = a < count ? a : count;
    *last = b < count ? b : count;
}
