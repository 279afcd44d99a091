/* What the operating system says about the CPU. Internal, for the programs. */
#ifndef T2_IO_CPUINFO_H
#define T2_IO_CPUINFO_H

#include <stddef.h>

/* The first value of `key` in /proc/cpuinfo, cut to size: 1, or 0 with "" where there is none. */
int t2_cpuinfo(const char *key, char *value, size_t size);

/* The CPU's name, such as "AMD EPYC 9R14"; on arm64 "implementer 0x41 part 0xd0c"; "unknown". */
void t2_cpu_name(char *name, size_t size);

#endif
