/* The machine's peaks, measured: multiply-adds, bandwidths, an empty parallel region.
 *
 * All measures take turns, a short run at a time, and of each the best run counts: a disturbance
 * only makes a run slower. A run counts only where its threads ran the whole time, by their own
 * clocks and CPU times, and several of them all at once; on a machine too busy for that the peak
 * stays 0, unknown. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */
#include "limits.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define MIB ((size_t)1 << 20)
#define RUN_SECONDS 1e-3 /* longer than threads need to start, shorter than a time slice */
#define MEET_SECONDS 2e-4
#define TRIES 6 /* of a run */
#define CALIBRATION_RUNS 3
#define LEAST_ROUNDS 3
#define LEAST_SECONDS 0.3
#define MOST_MEMORY (512 * MIB) /* unless the caches are larger still */
#define WINDOW (32 * MIB)       /* of memory read in a run: 1 ms at 32 GB/s */
#define REGIONS 20              /* groups of REGION_CALLS, the fastest counts */
#define REGION_CALLS 10
#define L3_RUNS 5 /* in a row */

enum { MEMORY = BENCH_LEVELS }; /* behind the caches */
static const char *const level_names[BENCH_LEVELS + 1] = {"L1", "L2", "L3", "memory"};

/* Memory for the probes of one number of threads, slice by slice first touched by its thread. */
struct pool {
    int threads;
    unsigned char *base; /* NULL: could not be had */
    size_t bytes, slice;
    size_t portion[BENCH_LEVELS + 1]; /* of a slice, by level; 0: not to be measured */
    size_t next; /* memory: where the next run starts, so that none finds what another left */
};

enum kind { FLOPS, READ, COPY, REGION };

struct item {
    enum kind kind;
    struct bench_peak *peak; /* several ways to copy share one */
    struct pool *pool;
    t2k_probe_fma_fn *flops;
    t2k_probe_read_fn *read;
    t2k_unary_fn *copy;
    int level;
    int64_t passes; /* in a run */
};

/* What a thread did in a run, each in cache lines of its own. */
struct lane {
    _Alignas(64) double start, end, cpu; /* seconds */
    double work;                         /* flops or bytes */
};

struct run {
    const struct item *item;
    struct lane *lane;
    int size; /* of the team that came */
    float sink;
    atomic_int ready, late;
};

struct probing {
    struct bench_peaks *peaks;
    struct pool *pool;
    int pools;
    struct item *item;
    int items, room;
    struct lane *lane; /* (most threads) */
};

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- one run --------------------------------------------------------------------------------- */

/* Passes over this thread's part of the buffer; bytes read and written, or flops. */
static double work(const struct item *item, int rank, int64_t passes, float *sink)
{
    if (item->kind == FLOPS) {
        return item->flops(passes);
    }
    const struct pool *pool = item->pool;
    const size_t portion = pool->portion[item->level];
    unsigned char *from = pool->base + (size_t)rank * pool->slice;
    from += item->level == MEMORY ? pool->next : 0;
    if (item->kind == READ) {
        float sum = 0.0f;
        for (int64_t i = 0; i < passes; i++) {
            sum += item->read(portion / sizeof(float), (const float *)(const void *)from);
        }
        *sink = sum;
        return (double)passes * (double)portion;
    }
    /* 2 KiB apart beyond a multiple of the page: loads whose last 12 bits are those of a recent
     * store wait for it. */
    const size_t half = portion / 2, bytes = half - 2048;
    for (int64_t i = 0; i < passes; i++) {
        item->copy(bytes / sizeof(float), (const float *)(const void *)from,
                   (float *)(void *)(from + half + 2048));
    }
    return (double)passes * 2.0 * (double)bytes;
}

static void copy_by_libc(size_t n, const float *X, float *Y)
{
    memcpy(Y, X, n * sizeof *Y);
}

/* All threads start at once, or soon give up: a barrier lets one go while another has lost its CPU.
 * The CPU time at the start. */
static double meet(struct run *run, t2k_team *team)
{
    t2k_team_barrier(team);
    const double cpu = thread_seconds(), start = bench_now();
    atomic_fetch_add(&run->ready, 1);
    while (atomic_load(&run->ready) < t2k_team_size(team) && !atomic_load(&run->late)) {
        if (bench_now() - start > MEET_SECONDS) {
            atomic_store(&run->late, 1);
        }
    }
    return cpu;
}

static void run_body(t2k_team *team, void *arg)
{
    struct run *run = arg;
    const int rank = t2k_team_rank(team);
    struct lane *lane = &run->lane[rank];
    float sum = 0.0f;
    if (run->item->kind != FLOPS && run->item->level != MEMORY) {
        work(run->item, rank, 1, &sum); /* into the cache */
    }
    const double cpu = meet(run, team);
    lane->start = bench_now();
    lane->work = atomic_load(&run->late) ? 0.0 : work(run->item, rank, run->item->passes, &sum);
    lane->end = bench_now();
    lane->cpu = thread_seconds() - cpu;
    if (rank == 0) {
        run->size = t2k_team_size(team);
        run->sink = sum;
    }
}

/* Seconds of a run and *rate in its unit (1e9 a second); 0 where it says nothing. */
static double run_once(const struct item *item, struct lane *lane, int threads, double *rate)
{
    struct run run = {.item = item, .lane = lane};
    *rate = 0.0;
    if (t2k_parallel(threads, run_body, &run) != T2K_OK || run.size != threads) {
        return 0.0;
    }
    double first = lane[0].start, last = lane[0].end, begun = first, over = last, all = 0.0;
    int disturbed = 0;
    for (int i = 0; i < threads; i++) {
        first = lane[i].start < first ? lane[i].start : first;
        begun = lane[i].start > begun ? lane[i].start : begun;
        over = lane[i].end < over ? lane[i].end : over;
        last = lane[i].end > last ? lane[i].end : last;
        disturbed += lane[i].cpu < 0.95 * (lane[i].end - lane[i].start);
        all += lane[i].work;
    }
    const double seconds = last - first;
    if (!atomic_load(&run.late) && disturbed == 0 && over - begun >= 0.8 * seconds) {
        *rate = seconds > 0.0 ? 1e-9 * all / seconds : 0.0;
    }
    return seconds;
}

static void nothing(t2k_team *team, void *arg)
{
    (void)team;
    (void)arg;
}

static double region_seconds(int threads)
{
    if (t2k_parallel(threads, nothing, NULL) != T2K_OK) {
        return 0.0;
    }
    double best = 0.0, used = 0.0;
    for (int group = 0; group < REGIONS && used < 2.0 * RUN_SECONDS; group++) {
        const double start = bench_now();
        double seconds = 0.0;
        int count = 0;
        while (count < REGION_CALLS && seconds < RUN_SECONDS) {
            t2k_parallel(threads, nothing, NULL);
            seconds = bench_now() - start;
            count++;
        }
        best = best > 0.0 && best < seconds / count ? best : seconds / count;
        used += seconds;
    }
    return best;
}

static void measure_item(struct probing *probing, struct item *item)
{
    struct bench_peak *peak = item->peak;
    if (item->kind == REGION) {
        const double seconds = region_seconds(peak->threads);
        if (seconds > 0.0 && (peak->value == 0.0 || seconds < peak->value)) {
            peak->value = seconds;
        }
        return;
    }
    /* A large cache needs some passes until it holds the buffer in place of what others left. */
    const int runs = item->kind != FLOPS && item->level == MEMORY - 1 ? L3_RUNS : 1;
    for (int i = 0; i < runs; i++) {
        double rate = 0.0;
        for (int n = 0; n < TRIES && !(rate > 0.0); n++) {
            run_once(item, probing->lane, peak->threads, &rate);
        }
        peak->value = rate > peak->value ? rate : peak->value;
    }
    if (item->kind != FLOPS && item->level == MEMORY) {
        struct pool *pool = item->pool;
        pool->next += pool->portion[MEMORY];
        pool->next = pool->next + pool->portion[MEMORY] > pool->slice ? 0 : pool->next;
    }
}

/* CPU seconds of a run on one thread, the least of several: by the clock, a run that lost its CPU
 * would seem long enough; 0 where there was none. */
static double calibration_seconds(struct probing *probing, const struct item *item)
{
    double least = 0.0;
    for (int i = 0; i < CALIBRATION_RUNS; i++) {
        double rate;
        if (!(run_once(item, probing->lane, 1, &rate) > 0.0)) {
            return 0.0;
        }
        const double cpu = probing->lane[0].cpu;
        least = i == 0 || cpu < least ? cpu : least;
    }
    return least;
}

/* How many passes make a run: found on one thread, where nothing waits. */
static void calibrate(struct probing *probing, struct item *item)
{
    item->passes = item->kind == FLOPS ? 1000 : 1;
    if (item->kind == REGION || (item->kind != FLOPS && item->level == MEMORY)) {
        return;
    }
    double seconds;
    while ((seconds = calibration_seconds(probing, item)) > 0.0 && seconds < 0.5 * RUN_SECONDS &&
           item->passes < INT64_C(1) << 40) {
        item->passes *= 2;
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Bytes that may be taken without harm; 0: unknown. */
static size_t available_memory(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;
    while (f != NULL && kib == 0 && fgets(line, sizeof line, f) != NULL) {
        sscanf(line, "MemAvailable: %llu kB", &kib);
    }
    if (f != NULL) {
        fclose(f);
    }
    return (size_t)kib << 10;
}

static void touch(t2k_team *team, void *arg)
{
    struct pool *pool = arg;
    if (t2k_team_size(team) == pool->threads) {
        /* Written, or all pages were one; 0x3f3f3f3f is 0.75, about. */
        memset(pool->base + (size_t)t2k_team_rank(team) * pool->slice, 0x3f, pool->slice);
    }
}

/* Half of what the level gives a thread when `threads` of them share out its caches. */
static size_t half_share(const struct bench_caches *caches, int level, int threads)
{
    const int instances = (caches->cpus + caches->shared_by[level] - 1) / caches->shared_by[level];
    const int sharers = (threads + instances - 1) / instances;
    return caches->bytes[level] / 2 / (size_t)sharers;
}

static void plan_portions(struct pool *pool, const struct bench_caches *caches, size_t llc)
{
    size_t below = 0; /* largest cache so far, of one thread */
    for (int level = 0; level < BENCH_LEVELS; level++) {
        size_t half = half_share(caches, level, pool->threads);
        if (2 * half < below) { /* a thread's share of L3 is smaller than its L2: it adds to it */
            half = below;
        }
        /* Where the buffer would lie in the level above as well, there is nothing to measure. */
        half = half > below || below == 0 ? half : half + below / 2;
        half = half < pool->slice ? half : pool->slice;
        pool->portion[level] = caches->bytes[level] > 0 && half >= 8192 ? half / 4096 * 4096 : 0;
        below = caches->bytes[level] > 0 ? 2 * half_share(caches, level, pool->threads) : below;
    }
    const size_t window = WINDOW * (size_t)(pool->threads < 8 ? pool->threads : 8);
    const size_t windows = pool->bytes / window > 0 ? pool->bytes / window : 1;
    pool->portion[MEMORY] = pool->bytes >= 2 * llc ? pool->slice / windows / 4096 * 4096 : 0;
}

static void pool_create(struct pool *pool, const struct bench_caches *caches, int threads,
                        size_t most)
{
    size_t llc = 0;
    for (int level = 0; level < BENCH_LEVELS; level++) {
        const size_t all = 2 * half_share(caches, level, threads) * (size_t)threads;
        llc = all > llc ? all : llc;
    }
    size_t bytes = llc > 0 ? 8 * llc : 256 * MIB;
    const size_t cap = 2 * llc > MOST_MEMORY ? 2 * llc : MOST_MEMORY;
    bytes = bytes < 64 * MIB ? 64 * MIB : bytes;
    bytes = bytes < cap ? bytes : cap;
    bytes = (most > 0 && bytes > most ? most : bytes) / (2 * MIB) * (2 * MIB);
    pool->threads = threads;
    pool->slice = bytes / (size_t)threads / 4096 * 4096;
    pool->bytes = pool->slice * (size_t)threads;
    if (pool->bytes == 0) {
        return;
    }
    /* Aligned for huge pages, as the arenas are: pages of 4 KiB would measure their tables. */
    unsigned char *map = mmap(NULL, pool->bytes + 2 * MIB, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return;
    }
    const size_t before = (2 * MIB - (uintptr_t)map % (2 * MIB)) % (2 * MIB);
    if (before > 0) {
        munmap(map, before);
    }
    if (before < 2 * MIB) {
        munmap(map + before + pool->bytes, 2 * MIB - before);
    }
    pool->base = map + before;
    madvise(pool->base, pool->bytes, MADV_HUGEPAGE);
    t2k_parallel(threads, touch, pool);
    plan_portions(pool, caches, llc);
}

/* ---- what is measured ------------------------------------------------------------------------ */

static struct bench_peak *add_peak(struct bench_peaks *peaks, const char *name, const char *isa,
                                   const char *level, int threads)
{
    if (peaks->count == BENCH_PEAKS) {
        return NULL;
    }
    struct bench_peak *peak = &peaks->peak[peaks->count++];
    memset(peak, 0, sizeof *peak);
    snprintf(peak->name, sizeof peak->name, "%s", name);
    snprintf(peak->isa, sizeof peak->isa, "%s", isa);
    snprintf(peak->level, sizeof peak->level, "%s", level);
    peak->threads = threads;
    return peak;
}

static void add_item(struct probing *probing, struct item item)
{
    if (item.peak != NULL && probing->items < probing->room) {
        probing->item[probing->items++] = item;
    }
}

static void add_flops(struct probing *probing, struct pool *pool, const char *const *isas)
{
    t2k_isa_info info;
    for (int isa = 0; t2k_isa_get(isa, &info) == T2K_OK; isa++) {
        const t2k_table *own = t2k_table_own(isa);
        int listed = 0;
        for (int i = 0; isas[i] != NULL; i++) {
            listed |= strcmp(isas[i], info.name) == 0;
        }
        if (!listed || !info.usable) {
            continue;
        }
        struct item item = {.kind = FLOPS, .pool = pool};
        if (own->probe_fma != NULL) {
            item.flops = own->probe_fma;
            item.peak = add_peak(probing->peaks, "fma", info.name, "", pool->threads);
            add_item(probing, item);
        }
        if (own->probe_bf16 != NULL && isa > 0) { /* scalar's is a plain loop */
            item.flops = own->probe_bf16;
            item.peak = add_peak(probing->peaks, "bf16", info.name, "", pool->threads);
            add_item(probing, item);
        }
    }
}

/* With the widest vectors that may be used: what the machine can do, whatever the ISAs asked for.
 */
static void add_bandwidths(struct probing *probing, struct pool *pool,
                           const struct bench_caches *caches)
{
    const t2k_table *table = t2k_table_own(0);
    t2k_isa_info info = {0};
    for (int isa = 0; !info.active && t2k_isa_get(isa, &info) == T2K_OK; isa++) {
        const t2k_table *own = info.usable ? t2k_table_own(isa) : NULL;
        table = own != NULL && own->probe_read != NULL ? own : table;
    }
    for (int level = 0; level <= MEMORY; level++) {
        if (level < MEMORY && caches->bytes[level] == 0) {
            continue;
        }
        const char *name = level_names[level];
        struct bench_peak *read = add_peak(probing->peaks, "read", "", name, pool->threads);
        struct bench_peak *copy = add_peak(probing->peaks, "copy", "", name, pool->threads);
        if (pool->base == NULL || pool->portion[level] == 0) {
            continue;
        }
        struct item item = {.kind = READ, .peak = read, .pool = pool, .level = level};
        item.read = table->probe_read;
        add_item(probing, item);
        item.kind = COPY;
        item.peak = copy;
        item.copy = table->probe_copy;
        add_item(probing, item);
        if (level == MEMORY) {
            item.copy = table->probe_stream;
            add_item(probing, item);
            item.copy = copy_by_libc;
            add_item(probing, item);
        }
    }
}

/* Several threads that are slower than one, by more than what sharing a core costs, were never
 * given the machine. What they share (L3, memory) gives them at least what it gives one. */
static void drop_implausible(struct bench_peaks *peaks)
{
    for (int i = 0; i < peaks->count; i++) {
        struct bench_peak *p = &peaks->peak[i];
        const double one = bench_peak_find(peaks, p->name, p->isa, p->level, 1);
        if (strcmp(p->name, "region") == 0 || p->value >= one) {
            continue;
        }
        if (strcmp(p->level, "L3") == 0 || strcmp(p->level, "memory") == 0) {
            p->value = p->value > 0.0 ? one : 0.0;
        } else if (p->value < 0.9 * one) {
            p->value = 0.0;
        }
    }
}

/* On a busy machine: once more so long for what is still unknown, where there are CPUs for it. */
static void insist(struct probing *probing, int cpus, double seconds)
{
    const double stop = bench_now() + seconds;
    int unknown = 1;
    while (unknown > 0 && bench_now() < stop) {
        unknown = 0;
        for (int i = 0; i < probing->items && bench_now() < stop; i++) {
            struct item *item = &probing->item[i];
            if (item->peak->value == 0.0 && item->peak->threads <= cpus) {
                measure_item(probing, item);
                unknown += item->peak->value == 0.0;
            }
        }
    }
}

static void probing_free(struct probing *probing)
{
    for (int i = 0; i < probing->pools; i++) {
        if (probing->pool[i].base != NULL) {
            munmap(probing->pool[i].base, probing->pool[i].bytes);
        }
    }
    free(probing->pool);
    free(probing->item);
    free(probing->lane);
}

void bench_peaks_measure(const char *const *isas, int thread_counts, const int *threads,
                         double seconds, struct bench_peaks *peaks)
{
    const double start = bench_now();
    struct bench_caches caches;
    bench_caches_read(&caches);
    const size_t room = (size_t)thread_counts * 64;
    int most_threads = 1;
    for (int t = 0; t < thread_counts; t++) {
        most_threads = threads[t] > most_threads ? threads[t] : most_threads;
    }
    peaks->count = 0;
    struct probing probing = {.peaks = peaks, .room = (int)room};
    probing.pool = calloc((size_t)thread_counts + 1, sizeof *probing.pool);
    probing.item = calloc(room + 1, sizeof *probing.item);
    probing.lane = aligned_alloc(64, (size_t)most_threads * sizeof *probing.lane);
    if (probing.pool == NULL || probing.item == NULL || probing.lane == NULL ||
        t2k_init() != T2K_OK) {
        probing_free(&probing);
        return;
    }
    for (int t = 0; t < thread_counts; t++) {
        struct pool *pool = &probing.pool[probing.pools++];
        pool_create(pool, &caches, threads[t],
                    available_memory() / 8 / (size_t)(thread_counts - t));
        add_flops(&probing, pool, isas);
        add_bandwidths(&probing, pool, &caches);
        add_item(&probing, (struct item){.kind = REGION,
                                         .peak = add_peak(peaks, "region", "", "", threads[t]),
                                         .pool = pool});
    }
    for (int i = 0; i < probing.items; i++) {
        calibrate(&probing, &probing.item[i]);
    }
    const double budget = seconds > LEAST_SECONDS ? seconds : LEAST_SECONDS;
    for (int round = 0; round < LEAST_ROUNDS || bench_now() < start + budget; round++) {
        for (int i = 0; i < probing.items; i++) {
            measure_item(&probing, &probing.item[i]);
        }
    }
    insist(&probing, caches.cpus, budget);
    drop_implausible(peaks);
    probing_free(&probing);
}
