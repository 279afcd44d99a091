/* How many threads: T2K_NUM_THREADS and t2k_set_num_threads() are exact; else the smallest of
 * OMP_NUM_THREADS, the affinity mask and the cgroup quota. No OpenMP here. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#include "core/core.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A thread is worth its fork and join from about this much work (measured 2-8 us per region). */
#define WORK_PER_THREAD 20000.0 /* ns */
#define MAX_THREADS 4096        /* beyond this a number is taken for a mistake */

static struct {
    int count;
    int exact;
    const char *reason;
} initial; /* written once */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int asked; /* by t2k_set_num_threads(), 0: not */
static atomic_int forked_child;

static int positive_int(const char *text)
{
    if (text == NULL) {
        return 0;
    }
    char *end;
    long value = strtol(text, &end, 10);
    end += strspn(end, " \t");
    if (end == text || value < 1 || value > MAX_THREADS || (*end != '\0' && *end != ',')) {
        return 0;
    }
    return (int)value;
}

static int affinity_count(void)
{
    /* The kernel refuses a mask smaller than its own: grow it. */
    for (int cpus = 1024; cpus <= 1 << 18; cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (set == NULL) {
            break;
        }
        size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        CPU_ZERO_S(bytes, set);
        int failed = sched_getaffinity(0, bytes, set);
        int count = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (!failed && count > 0) {
            return count;
        }
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

/* CPUs of quota/period, rounded up; INT_MAX without a limit. */
static int quota_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) {
        return INT_MAX;
    }
    long long cpus = (quota + period - 1) / period;
    return cpus < INT_MAX ? (int)cpus : INT_MAX;
}

static int read_line(const char *path, char *line, size_t size)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return 0;
    }
    int ok = fgets(line, (int)size, f) != NULL;
    fclose(f);
    return ok;
}

static int quota_v2(const char *dir)
{
    char path[4400], line[128];
    long long quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    if (read_line(path, line, sizeof line) && sscanf(line, "%lld %lld", &quota, &period) == 2) {
        return quota_cpus(quota, period); /* "max PERIOD" does not scan: no limit */
    }
    return INT_MAX;
}

static int quota_v1(const char *dir)
{
    char path[4400], quota[64], period[64];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_line(path, quota, sizeof quota)) {
        return INT_MAX;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (!read_line(path, period, sizeof period)) {
        return INT_MAX;
    }
    return quota_cpus(atoll(quota), atoll(period));
}

/* The tightest quota from the process's group up to the root of the hierarchy. */
static int tightest(const char *root, char *group, int (*quota)(const char *dir))
{
    char dir[4352];
    int least = INT_MAX;
    for (;;) {
        snprintf(dir, sizeof dir, "%s%s", root, group);
        int here = quota(dir);
        least = here < least ? here : least;
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return least;
        }
        *slash = '\0';
    }
}

/* Nonzero where the comma-separated list of cgroup v1 controllers holds "cpu". */
static int lists_cpu(const char *controllers)
{
    while (*controllers != '\0') {
        size_t length = strcspn(controllers, ",");
        if (length == 3 && strncmp(controllers, "cpu", 3) == 0) {
            return 1;
        }
        controllers += length + (controllers[length] == ',');
    }
    return 0;
}

int t2k_cgroup_cpus(const char *groups, const char *root)
{
    FILE *f = fopen(groups, "re");
    if (f == NULL) {
        return INT_MAX;
    }
    char root_v1[128];
    snprintf(root_v1, sizeof root_v1, "%s/cpu", root);
    int least = INT_MAX;
    char line[4096];
    while (fgets(line, sizeof line, f) != NULL) { /* ID:CONTROLLERS:GROUP */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        int here = INT_MAX;
        if (controllers[0] == '\0') {
            here = tightest(root, group, quota_v2);
        } else if (lists_cpu(controllers)) {
            here = tightest(root_v1, group, quota_v1);
        }
        least = here < least ? here : least;
    }
    fclose(f);
    return least;
}

static void in_child(void)
{
    atomic_store(&forked_child, 1);
}

static void detect(void)
{
    pthread_atfork(NULL, NULL, in_child);
    const char *text = getenv("T2K_NUM_THREADS");
    int own = positive_int(text);
    if (own > 0) {
        initial.count = own;
        initial.exact = 1;
        initial.reason = "T2K_NUM_THREADS";
        return;
    }
    initial.count = affinity_count();
    initial.reason = "CPUs of the affinity mask";
    int quota = t2k_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    if (quota < initial.count) {
        initial.count = quota;
        initial.reason = "cgroup CPU quota";
    }
    int omp = positive_int(getenv("OMP_NUM_THREADS"));
    if (omp > 0 && omp < initial.count) {
        initial.count = omp;
        initial.reason = "OMP_NUM_THREADS";
    }
    if (text != NULL && text[0] != '\0') {
        initial.reason = "default; T2K_NUM_THREADS is no number from 1 to 4096";
    }
}

int t2k_is_forked_child(void)
{
    pthread_once(&once, detect);
    return atomic_load(&forked_child);
}

int t2k_get_num_threads(void)
{
    if (t2k_is_forked_child()) {
        return 1;
    }
    int n = atomic_load(&asked);
    return n > 0 ? n : initial.count;
}

int t2k_threads_exact(void)
{
    return !t2k_is_forked_child() && (atomic_load(&asked) > 0 || initial.exact);
}

const char *t2k_threads_reason(void)
{
    if (t2k_is_forked_child()) {
        return "forked child";
    }
    return atomic_load(&asked) > 0 ? "t2k_set_num_threads" : initial.reason;
}

t2k_status t2k_set_num_threads(int n)
{
    if (n < 0 || n > MAX_THREADS) {
        return T2K_ERR_ARG;
    }
    atomic_store(&asked, n);
    return T2K_OK;
}

int t2k_threads_for_work(double work)
{
    int n = t2k_get_num_threads();
    if (n <= 1 || atomic_load(&asked) > 0 || initial.exact) {
        return n;
    }
    double worth = work / WORK_PER_THREAD;
    return worth < 1.0 ? 1 : worth < (double)n ? (int)worth : n;
}
