/* machine_cpu.h - what machine.c asks about the CPU. */
#ifndef T2_BENCH_MACHINE_CPU_H
#define T2_BENCH_MACHINE_CPU_H

#include "limits.h"

struct bench_cpu {
    char name[128];  /* "unknown" */
    char vendor[32]; /* "AuthenticAMD", "ARM"; "": unknown */
    int arm;         /* family, model and stepping are architecture, part, variant and revision */
    long family, model, stepping; /* -1: unknown */
};
void bench_cpu_read(struct bench_cpu *cpu);

const char *bench_active_isa(void); /* NULL where T2K_ISA is invalid */

struct bench_cache_entry {
    int level;
    char type[16]; /* "Data", "Instruction", "Unified" */
    size_t bytes;
    int shared_by; /* CPUs; 0: unknown */
};
/* The caches of the first CPU; their number. */
int bench_cache_list(struct bench_cache_entry *entry, int most);

/* The first line of a file without its end: 1, or 0 where there is none or it is empty. */
int bench_read_line(const char *path, char *line, size_t size);
/* How many numbers the kernel's list "0-3,8" holds; 0 where it is malformed. */
int bench_count_list(const char *list);

#endif
