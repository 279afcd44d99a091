/* What a figure was measured on: CPU, operating system, compiler, environment. Nothing here fails;
 * what cannot be read is null. */
#define _DEFAULT_SOURCE /* gethostname */
#include "core/core.h"
#include "io/cpuinfo.h"
#include "machine_cpu.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

extern char **environ;

/* An unset member is an object's null, also when memory runs out. */
static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value != NULL ? value : json_null());
}

/* NULL where the text is empty; bytes that are no UTF-8 become '?'. */
static json_t *text_or_null(const char *text)
{
    if (text[0] == '\0') {
        return NULL;
    }
    json_t *value = json_string(text);
    char copy[512];
    if (value == NULL && snprintf(copy, sizeof copy, "%s", text) >= 0) {
        for (char *c = copy; *c != '\0'; c++) {
            *c = (unsigned char)*c < 0x80 ? *c : '?';
        }
        value = json_string(copy);
    }
    return value;
}

static json_t *file_text(const char *path)
{
    char line[256];
    return bench_read_line(path, line, sizeof line) ? text_or_null(line) : NULL;
}

static json_t *number_or_null(long value)
{
    return value >= 0 ? json_integer(value) : NULL;
}

/* A file that holds 0 or 1. */
static json_t *file_switch(const char *path, int inverted)
{
    char line[32];
    if (!bench_read_line(path, line, sizeof line) || (line[0] != '0' && line[0] != '1')) {
        return NULL;
    }
    return json_boolean((line[0] == '1') != inverted);
}

/* ---- the machine ----------------------------------------------------------------------------- */

static json_t *features(void)
{
    json_t *list = json_array();
    enum { SIZE = 16384 };
    char *text = malloc(SIZE), *rest;
    if (text != NULL && (t2_cpuinfo("flags", text, SIZE) || t2_cpuinfo("Features", text, SIZE))) {
        for (char *f = strtok_r(text, " ", &rest); f != NULL; f = strtok_r(NULL, " ", &rest)) {
            json_array_append_new(list, json_string(f));
        }
    }
    free(text);
    return list;
}

static int has_feature(const json_t *list, const char *name)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
    {
        if (strcmp(json_string_value(value), name) == 0) {
            return 1;
        }
    }
    return 0;
}

static json_t *isas(void)
{
    json_t *isa = json_object(), *list = json_array();
    const char *active = bench_active_isa();
    t2k_isa_info info;
    set(isa, "active", json_string(active != NULL ? active : "none"));
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        json_t *one = json_object();
        set(one, "name", json_string(info.name));
        set(one, "usable", json_boolean(info.usable));
        set(one, "active", json_boolean(info.active));
        set(one, "reason", text_or_null(info.reason));
        json_array_append_new(list, one);
    }
    set(isa, "list", list);
    return isa;
}

/* false on bare metal; under a hypervisor what the firmware calls it, or true. Only x86 tells. */
static json_t *hypervisor(const json_t *feature_list)
{
    if (t2k_cpu_xcr0() == 0) {
        return NULL;
    }
    if (!has_feature(feature_list, "hypervisor")) {
        return json_false();
    }
    json_t *name = file_text("/sys/hypervisor/type");
    name = name != NULL ? name : file_text("/sys/class/dmi/id/sys_vendor");
    return name != NULL ? name : json_true();
}

/* The word in brackets of "always [madvise] never". */
static json_t *huge_pages(void)
{
    char line[128];
    if (!bench_read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line)) {
        return NULL;
    }
    char *start = strchr(line, '['), *end = strchr(line, ']');
    if (start == NULL || end == NULL || end < start) {
        return NULL;
    }
    *end = '\0';
    return text_or_null(start + 1);
}

/* The CPUs that this process may use. */
static json_t *cpuset(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[4096];
    json_t *value = NULL;
    while (f != NULL && value == NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "Cpus_allowed_list:", 18) == 0) {
            line[strcspn(line, "\n")] = '\0';
            value = text_or_null(line + 18 + strspn(line + 18, " \t"));
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return value;
}

static json_t *caches(void)
{
    struct bench_cache_entry entry[16];
    const int count = bench_cache_list(entry, 16);
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        json_t *one = json_object();
        set(one, "level", json_integer(entry[i].level));
        set(one, "type", json_string(entry[i].type));
        set(one, "bytes", json_integer((json_int_t)entry[i].bytes));
        set(one, "shared_by", entry[i].shared_by > 0 ? json_integer(entry[i].shared_by) : NULL);
        json_array_append_new(list, one);
    }
    return list;
}

static void add_cpu(json_t *machine)
{
    char text[128];
    struct bench_cpu cpu;
    bench_cpu_read(&cpu);
    bench_machine_key(text, sizeof text);
    set(machine, "key", json_string(text));
    set(machine, "vendor", text_or_null(cpu.vendor));
    set(machine, "family", number_or_null(cpu.family));
    set(machine, "model", number_or_null(cpu.model));
    set(machine, "stepping", number_or_null(cpu.stepping));
    set(machine, "name", strcmp(cpu.name, "unknown") != 0 ? text_or_null(cpu.name) : NULL);
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    set(machine, "cpus", json_integer(cpus > 0 ? cpus : 1));
    json_t *list = features();
    set(machine, "features", list);
    set(machine, "isa", isas());
    char reason[96];
    const uint64_t xcr0 = t2k_cpu_xcr0();
    snprintf(text, sizeof text, "0x%llx", (unsigned long long)xcr0);
    set(machine, "xcr0", xcr0 != 0 ? json_string(text) : NULL);
    set(machine, "amx_permission",
        xcr0 != 0 ? json_boolean(t2k_cpu_tiles(reason, sizeof reason)) : NULL);
    t2_cpuinfo("microcode", text, sizeof text);
    set(machine, "microcode", text_or_null(text));
    set(machine, "hypervisor", hypervisor(list));
}

static void add_system(json_t *machine)
{
    set(machine, "governor", file_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
    json_t *boost = file_switch("/sys/devices/system/cpu/cpufreq/boost", 0);
    set(machine, "boost",
        boost != NULL ? boost : file_switch("/sys/devices/system/cpu/intel_pstate/no_turbo", 1));
    set(machine, "smt", file_switch("/sys/devices/system/cpu/smt/active", 0));
    set(machine, "thp", huge_pages());
    set(machine, "cpuset", cpuset());
    const int quota = t2k_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    set(machine, "cgroup_quota", quota != INT_MAX ? json_integer(quota) : NULL);
    char text[256];
    const int nodes = bench_read_line("/sys/devices/system/node/online", text, sizeof text)
                          ? bench_count_list(text)
                          : 0;
    set(machine, "numa_nodes", nodes > 0 ? json_integer(nodes) : NULL);
    set(machine, "caches", caches());
    const long page = sysconf(_SC_PAGESIZE), pages = sysconf(_SC_PHYS_PAGES);
    set(machine, "page_bytes", json_integer(page > 0 ? page : 4096));
    set(machine, "memory_bytes",
        page > 0 && pages > 0 ? json_integer((json_int_t)page * pages) : NULL);
    struct utsname name;
    set(machine, "kernel", uname(&name) == 0 ? text_or_null(name.release) : NULL);
    text[0] = '\0';
    confstr(_CS_GNU_LIBC_VERSION, text, sizeof text);
    set(machine, "libc", text_or_null(text));
}

json_t *bench_machine_json(int with_host)
{
    json_t *machine = json_object();
    add_cpu(machine);
    add_system(machine);
    char host[256] = "";
    if (with_host && gethostname(host, sizeof host - 1) == 0) {
        set(machine, "host", text_or_null(host));
    }
    return machine;
}

/* ---- build and environment ------------------------------------------------------------------- */

#ifndef T2BENCH_FLAGS
#define T2BENCH_FLAGS ""
#endif
#ifndef T2BENCH_GIT
#define T2BENCH_GIT "unknown"
#endif

json_t *bench_build_json(void)
{
#if defined(__clang__)
    static const char compiler[] = __VERSION__; /* begins with its name */
#else
    static const char compiler[] = "gcc " __VERSION__;
#endif
    json_t *build = json_object();
    set(build, "compiler", text_or_null(compiler));
    set(build, "flags", text_or_null(T2BENCH_FLAGS));
    set(build, "git", text_or_null(T2BENCH_GIT));
    return build;
}

json_t *bench_environment_json(void)
{
    /* What changes threads, kernels or memory of us or of a peer; no variables with folders. */
    static const char *const prefixes[] = {
        "T2K_",      "T2BENCH_", "OMP_",    "GOMP_",       "KMP_",         "MKL_",
        "OPENBLAS_", "GOTO_",    "BLIS_",   "DNNL_",       "ONEDNN_",      "TORCH_NUM",
        "ATEN_CPU",  "ORT_",     "MALLOC_", "LD_PRELOAD=", "LD_BIND_NOW=", "GLIBC_TUNABLES="};
    json_t *environment = json_object();
    for (char **e = environ; *e != NULL; e++) {
        const char *equals = strchr(*e, '=');
        for (size_t i = 0; equals != NULL && i < sizeof prefixes / sizeof prefixes[0]; i++) {
            char name[128];
            if (strncmp(*e, prefixes[i], strlen(prefixes[i])) == 0 &&
                (size_t)(equals - *e) < sizeof name) {
                snprintf(name, sizeof name, "%.*s", (int)(equals - *e), *e);
                json_t *value = text_or_null(equals + 1);
                json_object_set_new(environment, name, value != NULL ? value : json_string(""));
            }
        }
    }
    return environment;
}
