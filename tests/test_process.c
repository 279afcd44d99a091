/* The library in the life of a process: fork at any time, loading and unloading, exit while it is
 * busy. A hang is turned into a failure by alarm(). */
#define _GNU_SOURCE /* sched_getaffinity */
#include "check.h"
#include "t2k.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATIENCE 60 /* seconds */

enum { N = 192 };
static float a[N * N], b[N * N], first[N * N], again[N * N];

/* Large enough that it is shared between threads by default. */
static int product(float *c)
{
    return t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, N, N, N, 1.0f, a, N, b, N, 0.0f, c, N, NULL) ==
           T2K_OK;
}

static void fill(void)
{
    struct rng rng = {check_seed()};
    rng_fill(&rng, a, N * N);
    rng_fill(&rng, b, N * N);
    unsetenv("T2K_NUM_THREADS");
    unsetenv("OMP_NUM_THREADS");
}

TestSuite(process, .init = fill);

/* ---- fork ----------------------------------------------------------------------------------- */

static int same_again(void)
{
    memset(again, 0, sizeof again);
    return product(again) && first_difference(first, again, N * N) == N * N;
}

static int grandchild(void *arg)
{
    (void)arg;
    alarm(PATIENCE);
    return same_again() ? 0 : 1;
}

static int child(void *arg)
{
    alarm(PATIENCE);
    if (t2k_get_num_threads() != 1 || strcmp(t2k_threads_reason(), "forked child") != 0) {
        return 1;
    }
    if (!same_again()) {
        return 2;
    }
    /* Asking for more does not help: the OpenMP runtime's threads are not in this process. */
    t2k_set_num_threads(4);
    if (t2k_get_num_threads() != 1 || !same_again()) {
        return 3;
    }
    return arg != NULL ? in_child(grandchild, NULL) : 0;
}

Test(process, fork_after_use, .timeout = 4 * PATIENCE)
{
    const int threads[] = {1, 2, 5, 0};
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
        t2k_set_num_threads(threads[i]);
        cr_assert(product(first));
        cr_expect_eq(in_child(child, &i), 0, "%d threads", threads[i]);
        cr_expect(same_again(), "the parent after fork, %d threads", threads[i]);
    }
}

static int first_use(void *arg)
{
    (void)arg;
    alarm(PATIENCE);
    setenv("T2K_NUM_THREADS", "3", 1);
    return product(first) && t2k_get_num_threads() == 3 ? 0 : 1;
}

/* A child forked before the first use is a process like any other. */
Test(process, fork_before_use, .timeout = 2 * PATIENCE)
{
    cr_expect_eq(in_child(first_use, NULL), 0);
    cr_expect(product(first));
}

static void *fork_while_others_compute(void *arg)
{
    int *bad = arg;
    for (int i = 0; i < 5; i++) {
        *bad += in_child(child, NULL) != 0;
    }
    return NULL;
}

static volatile int stop;

static void *keep_busy(void *arg)
{
    float *c = malloc(sizeof first);
    while (!stop) {
        *(int *)arg |= !product(c);
    }
    free(c);
    return NULL;
}

Test(process, fork_from_another_thread, .timeout = 8 * PATIENCE)
{
    t2k_set_num_threads(2);
    cr_assert(product(first));
    pthread_t forker, worker;
    int bad = 0, failed = 0;
    cr_assert_eq(pthread_create(&worker, NULL, keep_busy, &failed), 0);
    cr_assert_eq(pthread_create(&forker, NULL, fork_while_others_compute, &bad), 0);
    pthread_join(forker, NULL);
    stop = 1;
    pthread_join(worker, NULL);
    cr_expect_eq(bad, 0);
    cr_expect_eq(failed, 0);
}

/* ---- exit ----------------------------------------------------------------------------------- */

static int leave_while_busy(void *arg)
{
    alarm(PATIENCE);
    t2k_set_num_threads(2);
    pthread_t worker;
    if (pthread_create(&worker, NULL, keep_busy, arg) != 0) {
        return 1;
    }
    usleep(30000);
    exit(0); /* with destructors and the OpenMP runtime's own end, while a product runs */
}

Test(process, exit_while_busy, .timeout = 4 * PATIENCE)
{
#if defined(__clang__)
    /* kmp_runtime.cpp: root->r.r_in_parallel >= 0 */
    cr_skip_test("LLVM's OpenMP runtime fails when a process exits during a parallel region");
#endif
    int failed = 0;
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(in_child(leave_while_busy, &failed), 0);
    }
}

/* ---- loading -------------------------------------------------------------------------------- */

/* The shared library lies beside the folder of the test programs. */
static void library_path(char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - 32);
    path[n > 0 ? n : 0] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(path, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
    }
    strcat(path, "/libt2k.so.0");
}

static int count_threads(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        n += e->d_name[0] != '.';
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return n;
}

struct surroundings {
    int threads;
    cpu_set_t cpus;
    struct rlimit stack;
    char *environment[4];
};

static struct surroundings look_around(void)
{
    struct surroundings s;
    memset(&s, 0, sizeof s);
    s.threads = count_threads();
    sched_getaffinity(0, sizeof s.cpus, &s.cpus);
    getrlimit(RLIMIT_STACK, &s.stack);
    s.environment[0] = getenv("OMP_NUM_THREADS");
    s.environment[1] = getenv("OMP_PROC_BIND");
    s.environment[2] = getenv("T2K_ISA");
    s.environment[3] = getenv("T2K_NUM_THREADS");
    return s;
}

typedef int get_threads_fn(void);
typedef t2k_status softmax_fn(int64_t, int64_t, const float *, int64_t, float *, int64_t);

static int load_and_unload(void *arg)
{
    const char *path = arg;
    alarm(PATIENCE);
    struct surroundings before = look_around();
    for (int i = 0; i < 50; i++) {
        void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (lib == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        if (i == 0) {
            struct surroundings loaded = look_around();
            if (memcmp(&before, &loaded, sizeof before) != 0) {
                return 2; /* loading must have no effect */
            }
        }
        get_threads_fn *get_threads = NULL;
        softmax_fn *softmax = NULL;
        *(void **)&get_threads = dlsym(lib, "t2k_get_num_threads");
        *(void **)&softmax = dlsym(lib, "t2k_softmax");
        if (get_threads == NULL || softmax == NULL || get_threads() < 1 ||
            softmax(N, N, a, N, again, N) != T2K_OK) {
            return 3;
        }
        dlclose(lib);
    }
    /* It stays loaded, or the end of its threads and handlers would be in unmapped memory. */
    return dlopen(path, RTLD_NOW | RTLD_NOLOAD) != NULL ? 0 : 4;
}

Test(process, load_and_unload, .timeout = 2 * PATIENCE)
{
    char path[4096];
    library_path(path, sizeof path);
    cr_expect_eq(in_child(load_and_unload, path), 0, "%s", path);
}
