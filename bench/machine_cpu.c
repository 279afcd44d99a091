/* The CPU: vendor and numbers, caches, a key for file names. From /proc and /sys: what is not there
 * is unknown. */
#include "machine_cpu.h"

#include "io/cpuinfo.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CPU_DIR "/sys/devices/system/cpu"

int bench_read_line(const char *path, char *line, size_t size)
{
    FILE *f = fopen(path, "re");
    line[0] = '\0';
    if (f == NULL) {
        return 0;
    }
    int ok = fgets(line, (int)size, f) != NULL;
    fclose(f);
    size_t length = strlen(line);
    while (length > 0 && isspace((unsigned char)line[length - 1])) {
        line[--length] = '\0';
    }
    return ok && length > 0;
}

int bench_count_list(const char *list)
{
    int count = 0;
    while (*list != '\0') {
        char *end;
        long first = strtol(list, &end, 10), last = first;
        if (end == list) {
            return 0;
        }
        if (*end == '-') {
            last = strtol(end + 1, &end, 10);
        }
        if (last < first || last - first > 1000000) {
            return 0;
        }
        count += (int)(last - first) + 1;
        list = end + (*end == ',');
        if (*end != ',' && *end != '\0') {
            return 0;
        }
    }
    return count;
}

/* ---- who it is ------------------------------------------------------------------------------- */

/* Linux arch/arm64/include/asm/cputype.h. */
static const struct {
    const char *implementer, *name;
} arm_vendors[] = {{"0x41", "ARM"},       {"0x42", "Broadcom"},  {"0x43", "Cavium"},
                   {"0x46", "Fujitsu"},   {"0x48", "HiSilicon"}, {"0x4e", "NVIDIA"},
                   {"0x50", "APM"},       {"0x51", "Qualcomm"},  {"0x61", "Apple"},
                   {"0x6d", "Microsoft"}, {"0xc0", "Ampere"}};

static long cpuinfo_number(const char *key)
{
    char text[32];
    if (!t2_cpuinfo(key, text, sizeof text)) {
        return -1;
    }
    char *end;
    long value = strtol(text, &end, 0);
    return end != text && value >= 0 ? value : -1;
}

void bench_cpu_read(struct bench_cpu *cpu)
{
    memset(cpu, 0, sizeof *cpu);
    t2_cpu_name(cpu->name, sizeof cpu->name);
    if (t2_cpuinfo("CPU implementer", cpu->vendor, sizeof cpu->vendor)) {
        for (size_t i = 0; i < sizeof arm_vendors / sizeof arm_vendors[0]; i++) {
            if (strcmp(cpu->vendor, arm_vendors[i].implementer) == 0) {
                snprintf(cpu->vendor, sizeof cpu->vendor, "%s", arm_vendors[i].name);
            }
        }
        cpu->arm = 1;
        cpu->family = cpuinfo_number("CPU architecture");
        cpu->model = cpuinfo_number("CPU part");
        const long variant = cpuinfo_number("CPU variant"),
                   revision = cpuinfo_number("CPU revision");
        cpu->stepping = variant >= 0 && revision >= 0 ? variant << 4 | revision : -1;
        return;
    }
    /* An emulator of another architecture may show its host's file. */
    struct utsname machine;
    cpu->family = cpu->model = cpu->stepping = -1;
    if (uname(&machine) != 0 || strcmp(machine.machine, "x86_64") != 0) {
        snprintf(cpu->name, sizeof cpu->name, "unknown");
        return;
    }
    t2_cpuinfo("vendor_id", cpu->vendor, sizeof cpu->vendor);
    cpu->family = cpuinfo_number("cpu family");
    cpu->model = cpuinfo_number("model");
    cpu->stepping = cpuinfo_number("stepping");
}

void bench_cpu_name(char *text, size_t size)
{
    struct bench_cpu cpu;
    bench_cpu_read(&cpu);
    if (cpu.vendor[0] == '\0' || cpu.family < 0 || cpu.model < 0 || cpu.stepping < 0) {
        snprintf(text, size, "%s", cpu.name);
    } else if (cpu.arm) {
        snprintf(text, size, "%s (%s part 0x%lx r%ldp%ld)", cpu.name, cpu.vendor,
                 (unsigned long)cpu.model, cpu.stepping >> 4, cpu.stepping & 15);
    } else { /* virtual machines shorten the name, so the numbers say which CPU it is */
        snprintf(text, size, "%s (%s family %ld model %ld stepping %ld)", cpu.name, cpu.vendor,
                 cpu.family, cpu.model, cpu.stepping);
    }
}

static void short_vendor(const char *vendor, char *text, size_t size)
{
    static const char *const names[][2] = {{"AuthenticAMD", "amd"},
                                           {"GenuineIntel", "intel"},
                                           {"HygonGenuine", "hygon"},
                                           {"CentaurHauls", "centaur"},
                                           {"  Shanghai  ", "zhaoxin"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(vendor, names[i][0]) == 0) {
            snprintf(text, size, "%s", names[i][1]);
            return;
        }
    }
    size_t used = 0;
    for (; *vendor != '\0' && used + 1 < size; vendor++) {
        if (isalnum((unsigned char)*vendor)) {
            text[used++] = (char)tolower((unsigned char)*vendor);
        }
    }
    text[used] = '\0';
    if (used == 0) {
        snprintf(text, size, "unknown");
    }
}

static void number_text(long value, int hexadecimal, char text[24])
{
    if (value < 0) {
        snprintf(text, 24, "x");
    } else {
        snprintf(text, 24, hexadecimal ? "%lx" : "%ld", value);
    }
}

void bench_machine_key(char *key, size_t size)
{
    struct bench_cpu cpu;
    bench_cpu_read(&cpu);
    char vendor[32], family[24], model[24], stepping[24];
    short_vendor(cpu.vendor, vendor, sizeof vendor);
    number_text(cpu.family, 0, family);
    number_text(cpu.model, cpu.arm, model);
    number_text(cpu.stepping, cpu.arm, stepping);
    const char *isa = bench_active_isa();
    snprintf(key, size, "%s-%s-%s-%s-%s", vendor, family, model, stepping,
             isa != NULL ? isa : "none");
}

const char *bench_active_isa(void)
{
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (info.active) {
            return info.name;
        }
    }
    return NULL;
}

/* ---- caches ---------------------------------------------------------------------------------- */

/* "32K", "1M" or "4096" in bytes; 0 where it is none of these. */
static size_t size_of_text(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    return end == text || value > SIZE_MAX >> shift ? 0 : (size_t)value << shift;
}

int bench_cache_list(struct bench_cache_entry *entry, int most)
{
    int count = 0;
    char path[96], text[256];
    for (int i = 0; i < most; i++) {
        struct bench_cache_entry *e = &entry[count];
        memset(e, 0, sizeof *e);
        snprintf(path, sizeof path, CPU_DIR "/cpu0/cache/index%d/level", i);
        if (!bench_read_line(path, text, sizeof text)) {
            break;
        }
        e->level = atoi(text);
        snprintf(path, sizeof path, CPU_DIR "/cpu0/cache/index%d/type", i);
        if (!bench_read_line(path, e->type, sizeof e->type)) {
            continue;
        }
        snprintf(path, sizeof path, CPU_DIR "/cpu0/cache/index%d/size", i);
        e->bytes = bench_read_line(path, text, sizeof text) ? size_of_text(text) : 0;
        snprintf(path, sizeof path, CPU_DIR "/cpu0/cache/index%d/shared_cpu_list", i);
        e->shared_by = bench_read_line(path, text, sizeof text) ? bench_count_list(text) : 0;
        count += e->level > 0 && e->bytes > 0;
    }
    return count;
}

void bench_caches_read(struct bench_caches *caches)
{
    static const int names[BENCH_LEVELS] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE,
                                            _SC_LEVEL3_CACHE_SIZE};
    memset(caches, 0, sizeof *caches);
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    caches->cpus = cpus > 0 ? (int)cpus : 1;
    struct bench_cache_entry entry[16];
    const int count = bench_cache_list(entry, 16);
    for (int i = 0; i < count; i++) {
        const int level = entry[i].level - 1;
        if (level < BENCH_LEVELS && strcmp(entry[i].type, "Instruction") != 0) {
            caches->bytes[level] = entry[i].bytes;
            caches->shared_by[level] = entry[i].shared_by;
        }
    }
    for (int level = 0; level < BENCH_LEVELS; level++) {
        if (count == 0) { /* some systems tell through the C library only */
            const long bytes = sysconf(names[level]);
            caches->bytes[level] = bytes > 0 ? (size_t)bytes : 0;
        }
        if (caches->shared_by[level] <= 0) {
            caches->shared_by[level] = level + 1 < BENCH_LEVELS ? 1 : caches->cpus;
        }
    }
}

size_t bench_cache_bytes(int level)
{
    struct bench_caches caches;
    if (level < 1 || level > BENCH_LEVELS) {
        return 0;
    }
    bench_caches_read(&caches);
    return caches.bytes[level - 1];
}
