/* The results as text: the machine, then a row per case. */
#include "bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* From this ratio of median to best on, a row is marked as noisy. */
#define NOISY 1.25

static int same_peak(const struct bench_case *a, const struct bench_case *b)
{
    return a->isa == b->isa && a->threads == b->threads;
}

static void print_peaks(const struct bench_case *cases, int count)
{
    printf("FMA peak, GFLOP/s:");
    const char *separator = " ";
    for (int i = 0; i < count; i++) {
        int seen = 0;
        for (int j = 0; j < i && !seen; j++) {
            seen = same_peak(&cases[i], &cases[j]);
        }
        if (!seen) {
            char peak[32] = "unknown (busy)";
            if (cases[i].peak > 0.0) {
                snprintf(peak, sizeof peak, "%.1f", cases[i].peak);
            }
            printf("%s%s/%d %s", separator, cases[i].isa_name, cases[i].threads, peak);
            separator = ", ";
        }
    }
    printf(" (ISA/threads, measured)\n");
}

void bench_print_machine(const struct bench_case *cases, int count)
{
    char cpu[256];
    bench_cpu_name(cpu, sizeof cpu);
    printf("t2bench %s on %s\n", t2k_version(), cpu);
    printf("compiler: %s, %s\n", bench_compiler(), bench_flags());
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        printf("ISA %s: %s\n", info.name, info.active ? "active" : info.reason);
    }
    print_peaks(cases, count);
}

static const char *format_time(char *text, size_t size, double seconds)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1.0, "s "}, {1e-3, "ms"}, {1e-6, "us"}, {1e-9, "ns"}};
    size_t u = 0;
    while (u < 3 && seconds < units[u].unit) {
        u++;
    }
    double value = seconds / units[u].unit;
    snprintf(text, size, "%.*f %s", value < 10.0 ? 3 : value < 100.0 ? 2 : 1, value, units[u].name);
    return text;
}

static void print_row(const struct bench_case *c)
{
    const struct problem *p = c->problem;
    char name[72], time[24], share[16] = "";
    snprintf(name, sizeof name, "%s/%s", p->kind->op, p->shape);
    printf("%-31s %-7s %4d ", name, c->isa_name, c->threads);
    if (c->error[0] != '\0') {
        printf("FAILED: %s\n", c->error);
        return;
    }
    double rate = 1e-9 * (p->flops > 0.0 ? p->flops : p->bytes) / c->best;
    if (p->flops > 0.0 && c->peak > 0.0) {
        snprintf(share, sizeof share, "%.0f %%", 100.0 * rate / c->peak);
    }
    printf("%9s%c %8.*f %-7s %6s  %016" PRIx64 "\n", format_time(time, sizeof time, c->best),
           c->median > NOISY * c->best ? '~' : ' ', rate < 100.0 ? 2 : 1, rate,
           p->flops > 0.0 ? "GFLOP/s" : "GB/s", share, p->fingerprint);
}

void bench_print_table(const struct bench_case *cases, int count)
{
    printf("\n%-31s %-7s %4s %9s  %8s %-7s %6s  %s\n", "case", "isa", "thr", "time", "rate", "unit",
           "FMA pk", "fingerprint");
    int noisy = 0;
    for (int i = 0; i < count; i++) {
        const struct bench_case *c = &cases[i];
        if (c->best > 0.0 || c->error[0] != '\0') {
            if (i > 0 && c->problem->kind != cases[i - 1].problem->kind) {
                printf("\n");
            }
            print_row(c);
            noisy |= c->error[0] == '\0' && c->median > NOISY * c->best;
        }
    }
    printf("\ntime: fastest round, operands in cache where they fit; each result verified first\n");
    if (noisy) {
        printf("~: the median round took over %.2f times as long (a busy machine)\n", NOISY);
    }
}
