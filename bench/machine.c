/* What a figure was measured on: CPU, compiler, and the peak of fused multiply-adds. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define PROBE_SECONDS 2e-3 /* per run: longer than a timer tick, shorter than a time slice */
#define PROBE_RUNS 100     /* at most; on a busy machine few find all threads running at once */
#define PROBE_BUDGET 0.25  /* seconds for them */

/* ---- FMA peak -------------------------------------------------------------------------------- */

struct probe {
    int64_t iterations;
    double *start, *end; /* (threads) */
    int size;            /* of the team that came */
    double flops;        /* of one thread */
};

/* Each thread takes its own times: the one that looks at the clock for all may be held up. */
static void probe_body(t2k_team *team, void *arg)
{
    struct probe *probe = arg;
    int rank = t2k_team_rank(team);
    t2k_team_barrier(team);
    probe->start[rank] = bench_now();
    double flops = t2k_probe_fma(probe->iterations);
    probe->end[rank] = bench_now();
    if (rank == 0) {
        probe->flops = flops;
        probe->size = t2k_team_size(team);
    }
}

/* From the first start to the last end of a run on `threads` threads; 0 on failure. */
static double probe_seconds(struct probe *probe, int threads)
{
    if (t2k_parallel(threads, probe_body, probe) != T2K_OK || !(probe->flops > 0.0)) {
        return 0.0;
    }
    double start = probe->start[0], end = probe->end[0];
    for (int i = 1; i < probe->size; i++) {
        start = probe->start[i] < start ? probe->start[i] : start;
        end = probe->end[i] > end ? probe->end[i] : end;
    }
    return end - start;
}

static double measure(struct probe *probe, int threads)
{
    double seconds;
    probe->iterations = 1000;
    do { /* how many iterations make a run: on one thread, where nothing waits */
        probe->iterations *= 2;
        seconds = probe_seconds(probe, 1);
    } while (seconds > 0.0 && seconds < PROBE_SECONDS);
    double single = 0.0;
    for (int run = 0; run < 5 && seconds > 0.0; run++) {
        seconds = probe_seconds(probe, 1);
        single = seconds > 0.0 ? fmax(single, 1e-9 * probe->flops / seconds) : 0.0;
    }
    double best = 0.0, stop = bench_now() + PROBE_BUDGET;
    for (int run = 0; run < PROBE_RUNS && seconds > 0.0 && bench_now() < stop; run++) {
        seconds = probe_seconds(probe, threads);
        double rate = seconds > 0.0 ? 1e-9 * probe->flops * probe->size / seconds : 0.0;
        best = fmax(best, rate);
    }
    /* Slower than one thread: the threads never ran at once, so this says nothing. */
    return threads > 1 && best < single ? 0.0 : best;
}

double bench_measure_peak(int isa, int threads)
{
    struct probe probe = {.start = bench_alloc((size_t)threads, sizeof(double)),
                          .end = bench_alloc((size_t)threads, sizeof(double))};
    double peak = 0.0;
    if (probe.start != NULL && probe.end != NULL && t2k_use_isa(isa) == T2K_OK) {
        peak = measure(&probe, threads);
    }
    free(probe.start);
    free(probe.end);
    return peak;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* The value of a line "key : value" of /proc/cpuinfo; 0 where there is none. */
static int cpuinfo(const char *key, char *value, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (f == NULL) {
        return 0;
    }
    char line[512];
    int found = 0;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        size_t length = strlen(key);
        char *colon = strchr(line, ':');
        if (colon == NULL || strncmp(line, key, length) != 0 ||
            strspn(line + length, " \t") != (size_t)(colon - line) - length) {
            continue;
        }
        char *text = colon + 1 + strspn(colon + 1, " \t");
        text[strcspn(text, "\n")] = '\0';
        snprintf(value, size, "%s", text);
        found = 1;
    }
    fclose(f);
    return found;
}

void bench_cpu_name(char *text, size_t size)
{
    char name[128], vendor[64], family[16], model[16], stepping[16];
    if (cpuinfo("model name", name, sizeof name) && cpuinfo("vendor_id", vendor, sizeof vendor) &&
        cpuinfo("cpu family", family, sizeof family) && cpuinfo("model", model, sizeof model) &&
        cpuinfo("stepping", stepping, sizeof stepping)) {
        /* Virtual machines shorten the name, so the numbers say which CPU it is. */
        snprintf(text, size, "%s (%s family %s model %s stepping %s)", name, vendor, family, model,
                 stepping);
        return;
    }
    if (cpuinfo("CPU implementer", vendor, sizeof vendor) &&
        cpuinfo("CPU part", model, sizeof model)) {
        snprintf(text, size, "implementer %s part %s", vendor, model);
        return;
    }
    struct utsname machine;
    snprintf(text, size, "%s", uname(&machine) == 0 ? machine.machine : "unknown");
}

const char *bench_compiler(void)
{
#if defined(__clang__)
    return __VERSION__; /* begins with its name */
#else
    return "gcc " __VERSION__;
#endif
}

const char *bench_flags(void)
{
#ifdef T2BENCH_FLAGS
    return T2BENCH_FLAGS;
#else
    return "not recorded";
#endif
}
