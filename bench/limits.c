/* What the measured peaks allow a problem: the roofline model (Williams, Waterman, Patterson,
 * CACM 52(4), 2009); and the peaks as text and JSON. */
#include "limits.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

double bench_peak_find(const struct bench_peaks *peaks, const char *name, const char *isa,
                       const char *level, int threads)
{
    for (int i = 0; i < peaks->count; i++) {
        const struct bench_peak *p = &peaks->peak[i];
        if (p->threads == threads && strcmp(p->name, name) == 0 && strcmp(p->isa, isa) == 0 &&
            strcmp(p->level, level) == 0) {
            return p->value;
        }
    }
    return 0.0;
}

static const char *unit_of(const struct bench_peak *p)
{
    return p->isa[0] != '\0' ? "GFLOP/s" : p->level[0] != '\0' ? "GB/s" : "seconds";
}

json_t *bench_peaks_json(const struct bench_peaks *peaks)
{
    json_t *list = json_array();
    for (int i = 0; i < peaks->count; i++) {
        const struct bench_peak *p = &peaks->peak[i];
        json_t *one = json_object();
        json_object_set_new(one, "name", json_string(p->name));
        json_object_set_new(one, "isa", json_string(p->isa));
        json_object_set_new(one, "level", json_string(p->level));
        json_object_set_new(one, "threads", json_integer(p->threads));
        json_object_set_new(one, "value", json_real(p->value));
        json_object_set_new(one, "unit", json_string(unit_of(p)));
        json_array_append_new(list, one);
    }
    return list;
}

/* ---- the table ------------------------------------------------------------------------------- */

static int same_row(const struct bench_peak *a, const struct bench_peak *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->isa, b->isa) == 0 &&
           strcmp(a->level, b->level) == 0;
}

/* The i-th number of threads, in the order of the peaks; 0 behind the last. */
static int threads_of_column(const struct bench_peaks *peaks, int column)
{
    for (int i = 0; i < peaks->count; i++) {
        int seen = 0;
        for (int j = 0; j < i; j++) {
            seen |= peaks->peak[j].threads == peaks->peak[i].threads;
        }
        if (!seen && column-- == 0) {
            return peaks->peak[i].threads;
        }
    }
    return 0;
}

void bench_peaks_print(const struct bench_peaks *peaks)
{
    int threads;
    printf("%-18s %-8s", "peak", "unit");
    for (int c = 0; (threads = threads_of_column(peaks, c)) > 0; c++) {
        char text[24];
        snprintf(text, sizeof text, "%d thread%s", threads, threads > 1 ? "s" : "");
        printf(" %12s", text);
    }
    printf("\n");
    for (int i = 0; i < peaks->count; i++) {
        const struct bench_peak *p = &peaks->peak[i];
        int seen = 0;
        for (int j = 0; j < i; j++) {
            seen |= same_row(&peaks->peak[j], p);
        }
        if (seen) {
            continue;
        }
        const int region = strcmp(p->name, "region") == 0;
        char text[64];
        snprintf(text, sizeof text, "%s %s%s", region ? "empty region" : p->name, p->isa, p->level);
        printf("%-18s %-8s", text, region ? "us" : unit_of(p));
        for (int c = 0; (threads = threads_of_column(peaks, c)) > 0; c++) {
            const double value = bench_peak_find(peaks, p->name, p->isa, p->level, threads);
            if (value > 0.0) {
                printf(" %12.2f", region ? 1e6 * value : value);
            } else {
                printf(" %12s", "unknown");
            }
        }
        printf("\n");
    }
}

/* ---- the roofline ---------------------------------------------------------------------------- */

/* The smallest level that holds so many bytes; the caches of several threads add up. They count
 * whole, though bandwidths are measured on half of each: a limit must not be lower than what can
 * be. */
static const char *level_that_holds(const struct bench_caches *caches, double bytes, int threads)
{
    static const char *const names[BENCH_LEVELS] = {"L1", "L2", "L3"};
    for (int level = 0; level < BENCH_LEVELS; level++) {
        const int shared_by = caches->shared_by[level] > 0 ? caches->shared_by[level] : 1;
        const int all = (caches->cpus + shared_by - 1) / shared_by;
        const int used = threads < all ? threads : all > 0 ? all : 1;
        if (caches->bytes[level] > 0 && bytes <= (double)caches->bytes[level] * used) {
            return names[level];
        }
    }
    return "memory";
}

/* Keeps the larger of the limits. */
static void consider(double seconds, const char *what, const char *of, double *limit, char *name,
                     size_t size)
{
    if (seconds > *limit) {
        *limit = seconds;
        snprintf(name, size, "%s %s", what, of);
    }
}

/* The time to move bytes between a level and the cores. Memory is one bus for both directions:
 * "copy", or "read" where less than a quarter is written. Caches have paths of their own for loads
 * and stores: all reads at "read", all writes at half of "copy" (whose other half was read). */
static void consider_bytes(const struct bench_peaks *peaks, const char *level, int threads,
                           double read_bytes, double write_bytes, double *limit, char *name,
                           size_t size)
{
    const double read = 1e9 * bench_peak_find(peaks, "read", "", level, threads);
    const double copy = 1e9 * bench_peak_find(peaks, "copy", "", level, threads);
    const double all = read_bytes + write_bytes;
    if (strcmp(level, "memory") == 0) {
        const int is_read = write_bytes < all / 4.0;
        const double rate = is_read ? read : copy;
        if (rate > 0.0) {
            consider(all / rate, is_read ? "read" : "copy", level, limit, name, size);
        }
        return;
    }
    if (copy > 0.0) {
        consider(2.0 * write_bytes / copy, "copy", level, limit, name, size);
    }
    if (read > 0.0) {
        consider(read_bytes / read, "read", level, limit, name, size);
    }
}

static double weight_bytes(const struct problem *p)
{
    static const double size[] = {[BENCH_F32] = 4.0, [BENCH_I64] = 8.0};
    double bytes = 0.0;
    for (int i = 0; i < p->inputs; i++) {
        if (p->input[i].role == BENCH_WEIGHT) {
            bytes += (double)p->input[i].count * size[p->input[i].type];
        }
    }
    return bytes < p->read_bytes ? bytes : p->read_bytes; /* of a table a part may be read */
}

double bench_limit_with(const struct bench_caches *caches, const struct bench_peaks *peaks,
                        const struct problem *p, enum bench_operands operands, const char *isa,
                        int threads, char *name, size_t size)
{
    double limit = 0.0;
    if (size > 0) {
        name[0] = '\0';
    }
    const double fma = 1e9 * bench_peak_find(peaks, "fma", isa, "", threads);
    if (fma > 0.0) {
        consider(p->flops / fma, "fma", isa, &limit, name, size);
    }
    double cold_read = 0.0, cold_write = 0.0;
    if (operands == BENCH_COLD_ALL) {
        cold_read = p->read_bytes;
        cold_write = p->write_bytes;
    } else if (operands == BENCH_COLD_WEIGHTS) {
        cold_read = weight_bytes(p);
    }
    /* Both flow at once where some operands are cold: the slower stream counts. */
    const double hot_read = p->read_bytes - cold_read, hot_write = p->write_bytes - cold_write;
    const char *level = level_that_holds(caches, hot_read + hot_write, threads);
    consider_bytes(peaks, "memory", threads, cold_read, cold_write, &limit, name, size);
    consider_bytes(peaks, level, threads, hot_read, hot_write, &limit, name, size);
    return limit;
}

static struct bench_caches own_caches;
static pthread_once_t caches_once = PTHREAD_ONCE_INIT;

static void read_caches(void)
{
    bench_caches_read(&own_caches);
}

double bench_limit_seconds(const struct bench_peaks *peaks, const struct problem *p,
                           enum bench_operands operands, const char *isa, int threads, char *name,
                           size_t size)
{
    pthread_once(&caches_once, read_caches);
    return bench_limit_with(&own_caches, peaks, p, operands, isa, threads, name, size);
}
