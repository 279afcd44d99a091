/* How many threads work, and that nothing depends on it: counts, limits, many callers at once,
 * small stacks, a caller's own parallel region. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "callers.h"
#include "check.h"
#include "core/core.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>

static void no_variables(void)
{
    unsetenv("T2K_NUM_THREADS");
    unsetenv("OMP_NUM_THREADS");
    temp_dir_make();
}

TestSuite(threads, .init = no_variables, .fini = temp_dir_remove);

/* ---- how many there are --------------------------------------------------------------------- */

#define MOST 64

struct crowd {
    pthread_t id[MOST];
    int size;
    atomic_int calls;
};

/* The barrier makes sure that all of them are there at once. */
static void note_self(t2k_team *team, void *arg)
{
    struct crowd *crowd = arg;
    crowd->id[t2k_team_rank(team)] = pthread_self();
    atomic_fetch_add(&crowd->calls, 1);
    t2k_team_barrier(team);
    if (t2k_team_rank(team) == 0) {
        crowd->size = t2k_team_size(team);
    }
}

/* Number of distinct threads in a team; -1 when the team contradicts itself. */
static int count_team(int asked)
{
    static struct crowd crowd;
    memset(&crowd, 0, sizeof crowd);
    if (t2k_parallel(asked, note_self, &crowd) != T2K_OK || crowd.size < 1 || crowd.size > MOST ||
        atomic_load(&crowd.calls) != crowd.size) {
        return -1;
    }
    int distinct = 0;
    for (int i = 0; i < crowd.size; i++) {
        int seen = 0;
        for (int j = 0; j < i; j++) {
            seen |= pthread_equal(crowd.id[i], crowd.id[j]) != 0;
        }
        distinct += !seen;
    }
    return distinct == crowd.size ? distinct : -1;
}

static int allowed_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : -1;
}

struct environment {
    const char *own, *omp; /* values of the variables, NULL: unset */
    int count;             /* expected; 0: the default */
    const char *reason;
};

static int default_count(void)
{
    int quota = t2k_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    int cpus = allowed_cpus();
    return quota < cpus ? quota : cpus;
}

static int counts_as_said(void *arg)
{
    const struct environment *e = arg;
    int want = e->count > 0 ? e->count : default_count();
    if (t2k_get_num_threads() != want) {
        fprintf(stderr, "%d threads, expected %d\n", t2k_get_num_threads(), want);
        return 1;
    }
    if (e->reason != NULL && strstr(t2k_threads_reason(), e->reason) == NULL) {
        fprintf(stderr, "reason: %s\n", t2k_threads_reason());
        return 2;
    }
    return count_team(0) == want ? 0 : 3;
}

static void check_environments(const struct environment *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct environment e = cases[i];
        unsetenv("T2K_NUM_THREADS");
        unsetenv("OMP_NUM_THREADS");
        if (e.own != NULL) {
            setenv("T2K_NUM_THREADS", e.own, 1);
        }
        if (e.omp != NULL) {
            setenv("OMP_NUM_THREADS", e.omp, 1);
        }
        cr_expect_eq(in_child(counts_as_said, &e), 0, "T2K_NUM_THREADS=%s OMP_NUM_THREADS=%s",
                     e.own ? e.own : "(unset)", e.omp ? e.omp : "(unset)");
    }
}

Test(threads, own_variable_is_exact)
{
    static const struct environment cases[] = {
        {"1", NULL, 1, "T2K_NUM_THREADS"},
        {"2", NULL, 2, "T2K_NUM_THREADS"},
        {"3", "1", 3, "T2K_NUM_THREADS"},
        {"7", NULL, 7, "T2K_NUM_THREADS"},
        {"16", "2", 16, NULL},
        {" 5 ", NULL, 5, NULL},
    };
    check_environments(cases, sizeof cases / sizeof cases[0]);
}

Test(threads, a_wrong_value_is_ignored_and_told)
{
    static const struct environment cases[] = {
        {"0", NULL, 0, "T2K_NUM_THREADS is no number"},
        {"-2", NULL, 0, "T2K_NUM_THREADS is no number"},
        {"many", NULL, 0, "T2K_NUM_THREADS is no number"},
        {"2x", NULL, 0, "T2K_NUM_THREADS is no number"},
        {"99999999999999999999", NULL, 0, "T2K_NUM_THREADS is no number"},
        {"", NULL, 0, NULL},
    };
    check_environments(cases, sizeof cases / sizeof cases[0]);
}

Test(threads, omp_num_threads_only_lowers)
{
    const struct environment cases[] = {
        {NULL, "1", 1, allowed_cpus() > 1 ? "OMP_NUM_THREADS" : NULL},
        {NULL, "1,4", 1, NULL},
        {NULL, "1 , 4", 1, NULL},
        {NULL, "4000", 0, NULL},
        {NULL, NULL, 0, NULL},
    };
    check_environments(cases, sizeof cases / sizeof cases[0]);
}

static int on_one_cpu(void *arg)
{
    (void)arg;
    cpu_set_t set, one;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        return 1;
    }
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &set)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        return 2;
    }
    if (t2k_get_num_threads() != 1 || count_team(0) != 1) {
        return 3;
    }
    /* Exact numbers are obeyed all the same, and the mask stays what it was. */
    if (count_team(4) != 4 || sched_getaffinity(0, sizeof set, &set) != 0) {
        return 4;
    }
    return CPU_EQUAL(&set, &one) && strstr(t2k_threads_reason(), "affinity") != NULL ? 0 : 5;
}

Test(threads, the_affinity_mask_counts)
{
    cr_expect_eq(in_child(on_one_cpu, NULL), 0);
}

Test(threads, set_num_threads)
{
    int before = t2k_get_num_threads();
    const int numbers[] = {1, 2, 3, 8, 33};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cr_expect_eq(t2k_set_num_threads(numbers[i]), T2K_OK);
        cr_expect_eq(t2k_get_num_threads(), numbers[i]);
        cr_expect_str_eq(t2k_threads_reason(), "t2k_set_num_threads");
        cr_expect_eq(count_team(0), numbers[i]);
        cr_expect_eq(count_team(2), 2);
    }
    cr_expect_eq(t2k_set_num_threads(-1), T2K_ERR_ARG);
    cr_expect_eq(t2k_set_num_threads(INT_MAX), T2K_ERR_ARG);
    cr_expect_eq(t2k_get_num_threads(), 33);
    cr_expect_eq(t2k_set_num_threads(0), T2K_OK);
    cr_expect_eq(t2k_get_num_threads(), before);
    cr_expect_eq(t2k_parallel(-1, note_self, NULL), T2K_ERR_ARG);
    cr_expect_eq(t2k_parallel(1, NULL, NULL), T2K_ERR_ARG);
}

/* Exact stays exact where the application lets OpenMP adjust its teams to the load. */
Test(threads, dynamic_teams_of_the_caller)
{
    omp_set_dynamic(1);
    cr_expect_eq(count_team(6), 6);
    cr_expect(omp_get_dynamic(), "the caller's setting was changed");
}

Test(threads, small_work_stays_on_one)
{
    t2k_set_num_threads(0);
    cr_expect_eq(t2k_threads_for_work(0.0), 1);
    cr_expect_eq(t2k_threads_for_work(1000.0), 1);
    cr_expect_eq(t2k_threads_for_work(1e12), t2k_get_num_threads());
    t2k_set_num_threads(5);
    cr_expect_eq(t2k_threads_for_work(0.0), 5);
}

/* ---- control groups ------------------------------------------------------------------------- */

static void write_file(const char *name, const char *text)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", temp_dir, name);
    for (char *p = path + strlen(temp_dir) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(path, 0700);
        *p = '/';
    }
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f, "%s", path);
    fputs(text, f);
    fclose(f);
}

static int cpus_of(const char *groups)
{
    write_file("groups", groups);
    char root[1100];
    snprintf(root, sizeof root, "%s/fs", temp_dir);
    return t2k_cgroup_cpus(temp_path("groups"), root);
}

static int remove_tree(const char *path)
{
    char command[1500];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    return system(command);
}

Test(threads, quota_of_cgroup_v2)
{
    write_file("fs/a/b/cpu.max", "250000 100000\n");
    write_file("fs/a/cpu.max", "max 100000\n");
    write_file("fs/tight/wide/cpu.max", "800000 100000\n");
    write_file("fs/tight/cpu.max", "100001 100000\n");
    write_file("fs/less/cpu.max", "50000 100000\n");
    write_file("fs/bad/cpu.max", "many\n");
    write_file("fs/empty/cpu.max", "");
    cr_expect_eq(cpus_of("0::/a/b\n"), 3);
    cr_expect_eq(cpus_of("0::/a\n"), INT_MAX);
    cr_expect_eq(cpus_of("0::/tight/wide\n"), 2); /* the parent's limit holds too */
    cr_expect_eq(cpus_of("0::/less\n"), 1);
    cr_expect_eq(cpus_of("0::/bad\n"), INT_MAX);
    cr_expect_eq(cpus_of("0::/empty\n"), INT_MAX);
    cr_expect_eq(cpus_of("0::/\n"), INT_MAX);
    /* In a container the root of the hierarchy is the container's own group. */
    write_file("fs/cpu.max", "400000 100000\n");
    cr_expect_eq(cpus_of("0::/\n"), 4);
    cr_expect_eq(cpus_of("0::/not/visible/here\n"), 4);
    cr_expect_eq(cpus_of("0::/a/b\n"), 3);
    temp_dir_each(remove_tree);
}

Test(threads, quota_of_cgroup_v1)
{
    write_file("fs/cpu/x/cpu.cfs_quota_us", "150000\n");
    write_file("fs/cpu/x/cpu.cfs_period_us", "100000\n");
    write_file("fs/cpu/free/cpu.cfs_quota_us", "-1\n");
    write_file("fs/cpu/free/cpu.cfs_period_us", "100000\n");
    write_file("fs/cpu/broken/cpu.cfs_quota_us", "100000\n");
    cr_expect_eq(cpus_of("4:cpu:/x\n"), 2);
    cr_expect_eq(cpus_of("4:cpu,cpuacct:/x\n"), 2);
    cr_expect_eq(cpus_of("4:cpuacct,cpu:/x\n"), 2);
    cr_expect_eq(cpus_of("4:cpuset:/x\n3:cpuacct:/x\n"), INT_MAX);
    cr_expect_eq(cpus_of("4:cpu:/free\n"), INT_MAX);
    cr_expect_eq(cpus_of("4:cpu:/broken\n"), INT_MAX);
    cr_expect_eq(cpus_of("1:name=systemd:/\n4:cpu:/x\n0::/\n"), 2);
    cr_expect_eq(cpus_of("4:cpu"), INT_MAX);
    cr_expect_eq(cpus_of(""), INT_MAX);
    cr_expect_eq(t2k_cgroup_cpus(temp_path("nothing"), temp_dir), INT_MAX);
    temp_dir_each(remove_tree);
}

/* ---- the same bits whoever computes --------------------------------------------------------- */

Test(threads, any_number_gives_the_same_bits)
{
    cr_assert(callers_prepare());
    for (int n = 1; n <= 16; n += n < 5 ? 1 : 11) { /* 16: more than there are CPUs, usually */
        t2k_set_num_threads(n);
        cr_expect_eq(callers_differing(0, CALLERS_CASES), 0, "%d threads", n);
    }
}

Test(threads, sixteen_callers_at_once)
{
    cr_assert(callers_prepare());
    for (int threads_each = 0; threads_each <= 2; threads_each++) {
        t2k_set_num_threads(threads_each);
        cr_expect_eq(callers_run(60), 0, "%d threads each", threads_each);
    }
}

/* The first use of the library by many threads at once: detection runs once for all of them. */
static void *first_user(void *arg)
{
    float x[40], y[40];
    memset(x, 0, sizeof x);
    *(int *)arg = t2k_softmax(1, 40, x, 40, y, 40) == T2K_OK && y[39] == 1.0f / 40.0f;
    return NULL;
}

Test(threads, first_use_by_many)
{
    enum { USERS = 8 };
    pthread_t thread[USERS];
    int ok[USERS] = {0};
    for (int i = 0; i < USERS; i++) {
        cr_assert_eq(pthread_create(&thread[i], NULL, first_user, &ok[i]), 0);
    }
    for (int i = 0; i < USERS; i++) {
        pthread_join(thread[i], NULL);
        cr_expect(ok[i]);
    }
}

Test(threads, inside_the_callers_own_region)
{
    cr_assert(callers_prepare());
    t2k_set_num_threads(4);
    int wrong = 0;
#pragma omp parallel num_threads(3) reduction(+ : wrong)
    wrong += callers_differing(omp_get_thread_num(), 10);
    cr_expect_eq(wrong, 0);
}

/* 64 KiB is what some language runtimes give their threads. A sanitizer's frames are larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)1 << 20)
#else
#define STACK_BYTES ((size_t)1 << 16)
#endif

static float attention_io[4][8 * 64];

static void *small_stack(void *arg)
{
    float *x = attention_io[0], *y = attention_io[3];
    int64_t ids[8] = {7, 6, 5, 4, 3, 2, 1, 0};
    t2k_attention_args args = {.size = sizeof args, .queries = 8, .keys = 8, .items = 1};
    args.heads = 1;
    args.head_dim = 64;
    args.scale = 0.125f;
    args.q = x;
    args.k = attention_io[1];
    args.v = attention_io[2];
    args.out = y;
    args.q_row = args.k_row = args.v_row = args.out_row = 64;
    int ok = callers_differing(0, 2 * CALLERS_CASES) == 0 && t2k_attention(&args) == T2K_OK &&
             t2k_embedding(8, 64, 8, x, 64, ids, y, 64) == T2K_OK && t2k_exp(512, x, y) == T2K_OK &&
             t2k_relu(512, x, y) == T2K_OK && t2k_add(512, x, x, y) == T2K_OK &&
             t2k_scale_columns(8, 64, x, 64, x, y, 64) == T2K_OK &&
             t2k_dropout(512, x, 0.5f, (t2k_dropout_key){1, 2, 3}, 0, y) == T2K_OK &&
             t2k_svd_rebuild(T2K_TRANS, 8, 8, 8, 1.0f, x, 8, x, x, 8, y, 8) == T2K_OK &&
             t2k_mean(8, 64, x, 64, y) == T2K_OK;
    *(int *)arg = ok;
    return NULL;
}

Test(threads, small_stacks)
{
    cr_assert(callers_prepare());
    struct rng rng = {5};
    rng_fill(&rng, attention_io[0], sizeof attention_io / sizeof(float));
    for (int n = 1; n <= 2; n++) {
        t2k_set_num_threads(n);
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        cr_assert_eq(pthread_attr_setstacksize(&attr, STACK_BYTES), 0);
        pthread_t thread;
        int ok = 0;
        cr_assert_eq(pthread_create(&thread, &attr, small_stack, &ok), 0);
        pthread_join(thread, NULL);
        pthread_attr_destroy(&attr);
        cr_expect(ok, "%d threads", n);
    }
}
