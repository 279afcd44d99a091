/* The benchmark's limits: the roofline on peaks made up here, the machine's description against
 * its documentation, probes and noise for plausibility. */
#define _GNU_SOURCE /* gethostname, setenv */
#include "core/core.h"
#include "io/cpuinfo.h"
#include "limits.h"
#include "machine_cpu.h"

#include <ctype.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the roofline --------------------------------------------------------------------------- */

#define KIB 1024.0
#define MIB (1024.0 * KIB)

static const struct bench_caches caches = {
    .bytes = {32 << 10, 1 << 20, 32 << 20}, .shared_by = {1, 1, 4}, .cpus = 4};

static void add(struct bench_peaks *peaks, const char *name, const char *isa, const char *level,
                int threads, double value)
{
    struct bench_peak *p = &peaks->peak[peaks->count++];
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->isa, sizeof p->isa, "%s", isa);
    snprintf(p->level, sizeof p->level, "%s", level);
    p->threads = threads;
    p->value = value;
}

/* GFLOP/s and GB/s of one thread; two have twice as much in their own caches. */
static struct bench_peaks made_up(void)
{
    struct bench_peaks peaks = {.count = 0};
    for (int threads = 1; threads <= 2; threads++) {
        add(&peaks, "fma", "avx2", "", threads, 100.0 * threads);
        add(&peaks, "fma", "avx512", "", threads, 150.0 * threads);
        add(&peaks, "read", "", "L1", threads, 200.0 * threads);
        add(&peaks, "copy", "", "L1", threads, 160.0 * threads);
        add(&peaks, "read", "", "L2", threads, 100.0 * threads);
        add(&peaks, "copy", "", "L2", threads, 80.0 * threads);
        add(&peaks, "read", "", "L3", threads, 50.0 * threads);
        add(&peaks, "copy", "", "L3", threads, 40.0 * threads);
        add(&peaks, "read", "", "memory", threads, 20.0);
        add(&peaks, "copy", "", "memory", threads, 16.0);
    }
    return peaks;
}

static void expect(const char *label, const struct problem *p, enum bench_operands operands,
                   const char *isa, int threads, double seconds, const char *name)
{
    const struct bench_peaks peaks = made_up();
    char got[24] = "unset";
    const double limit =
        bench_limit_with(&caches, &peaks, p, operands, isa, threads, got, sizeof got);
    cr_expect(fabs(limit - seconds) <= 1e-12 * seconds, "%s: %g s, expected %g s", label, limit,
              seconds);
    cr_expect_str_eq(got, name, "%s: %s, expected %s", label, got, name);
}

static struct problem bytes_only(double read_bytes, double write_bytes)
{
    return (struct problem){.read_bytes = read_bytes, .write_bytes = write_bytes};
}

Test(bench_limits, flops_or_bytes)
{
    struct problem p = bytes_only(3e6, 1e6);
    p.flops = 1e9;
    expect("product", &p, BENCH_HOT, "avx2", 1, 1e-2, "fma avx2");
    expect("product", &p, BENCH_HOT, "avx512", 1, 1e9 / 150e9, "fma avx512");
    expect("product, 2 threads", &p, BENCH_HOT, "avx2", 2, 5e-3, "fma avx2");
    p.flops = 1e6; /* 10 us; its reads from L3 60 us */
    expect("thin product", &p, BENCH_HOT, "avx2", 1, 3e6 / 50e9, "read L3");
}

Test(bench_limits, reads_and_writes)
{
    struct problem p = bytes_only(16000.0, 4.0);
    expect("mean", &p, BENCH_HOT, "avx2", 1, 16000.0 / 200e9, "read L1");
    p = bytes_only(2e5, 2e5);
    expect("copy", &p, BENCH_HOT, "avx2", 1, 4e5 / 80e9, "copy L2");
    /* Two arrays in, one out: caches load and store at once, memory does not. */
    p = bytes_only(8e6, 4e6);
    expect("add", &p, BENCH_HOT, "avx2", 1, 8e6 / 40e9, "copy L3");
    p = bytes_only(8e7, 4e7);
    expect("add", &p, BENCH_HOT, "avx2", 1, 12e7 / 16e9, "copy memory");
    p = bytes_only(7.6e7, 2.4e7);
    expect("less than a quarter", &p, BENCH_HOT, "avx2", 1, 1e8 / 20e9, "read memory");
    p = bytes_only(7.5e7, 2.5e7);
    expect("a quarter", &p, BENCH_HOT, "avx2", 1, 1e8 / 16e9, "copy memory");
}

Test(bench_limits, the_level_that_holds)
{
    static const struct {
        double bytes;
        int threads;
        const char *name;
        double rate;
    } cases[] = {
        {32 * KIB, 1, "read L1", 200e9},        {32 * KIB + 1, 1, "read L2", 100e9},
        {1 * MIB, 1, "read L2", 100e9},         {1 * MIB + 1, 1, "read L3", 50e9},
        {32 * MIB, 1, "read L3", 50e9},         {32 * MIB + 1, 1, "read memory", 20e9},
        {64 * KIB, 2, "read L1", 400e9},        {64 * KIB + 1, 2, "read L2", 200e9},
        {2 * MIB, 2, "read L2", 200e9},         {2 * MIB + 1, 2, "read L3", 100e9},
        {32 * MIB, 2, "read L3", 100e9}, /* one L3 for all four CPUs */
        {32 * MIB + 1, 2, "read memory", 20e9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct problem p = bytes_only(cases[i].bytes, 0.0);
        char label[32];
        snprintf(label, sizeof label, "%.0f bytes", cases[i].bytes);
        expect(label, &p, BENCH_HOT, "avx2", cases[i].threads, cases[i].bytes / cases[i].rate,
               cases[i].name);
    }
}

Test(bench_limits, cold_operands)
{
    /* One row times a matrix of 1024 x 1024: 4 KiB of activations, 4 MiB of weights. */
    struct problem p = bytes_only(4 * MIB + 4 * KIB, 4 * KIB);
    p.flops = 2.0 * 1024 * 1024;
    p.inputs = 2;
    p.input[0] = (struct bench_input){BENCH_F32, BENCH_ACTIVATION, 1024, 1.0f, 0};
    p.input[1] = (struct bench_input){BENCH_F32, BENCH_WEIGHT, 1024 * 1024, 1.0f, 0};
    expect("hot", &p, BENCH_HOT, "avx2", 1, p.read_bytes / 50e9, "read L3");
    expect("cold weights", &p, BENCH_COLD_WEIGHTS, "avx2", 1, 4 * MIB / 20e9, "read memory");
    expect("cold", &p, BENCH_COLD_ALL, "avx2", 1, (4 * MIB + 8 * KIB) / 20e9, "read memory");
    /* Few weights, many activations: what is hot may still be the limit. */
    p = bytes_only(16 * MIB + 4 * KIB, 0.0);
    p.inputs = 1;
    p.input[0] = (struct bench_input){BENCH_F32, BENCH_WEIGHT, 1024, 1.0f, 0};
    expect("small weights", &p, BENCH_COLD_WEIGHTS, "avx2", 1, 16 * MIB / 50e9, "read L3");
    /* Of an embedding table only the rows asked for are read. */
    p = bytes_only(1000.0, 1000.0);
    p.inputs = 1;
    p.input[0] = (struct bench_input){BENCH_I64, BENCH_WEIGHT, 1 << 20, 1.0f, 0};
    expect("table", &p, BENCH_COLD_WEIGHTS, "avx2", 1, 1000.0 / 20e9, "read memory");
}

Test(bench_limits, unknown_peaks)
{
    struct bench_peaks peaks = {.count = 0};
    struct problem p = bytes_only(1e6, 1e6);
    p.flops = 1e9;
    char name[24] = "unset";
    cr_expect_eq(bench_limit_with(&caches, &peaks, &p, BENCH_HOT, "avx2", 1, name, sizeof name),
                 0.0);
    cr_expect_str_eq(name, "");
    add(&peaks, "copy", "", "L3", 1, 40.0);
    add(&peaks, "fma", "avx2", "", 1, 0.0); /* not measured */
    cr_expect_eq(bench_limit_with(&caches, &peaks, &p, BENCH_HOT, "avx2", 1, name, sizeof name),
                 2e6 / 40e9);
    cr_expect_str_eq(name, "copy L3");
    /* Of other numbers of threads nothing is known. */
    cr_expect_eq(bench_limit_with(&caches, &peaks, &p, BENCH_HOT, "avx2", 2, name, sizeof name),
                 0.0);
    cr_expect_eq(bench_peak_find(&peaks, "copy", "", "L2", 1), 0.0);
    cr_expect_eq(bench_peak_find(&peaks, "copy", "", "L3", 1), 40.0);
}

Test(bench_limits, this_machine)
{
    const struct bench_peaks peaks = made_up();
    struct problem p = bytes_only(1024.0, 0.0);
    char name[24];
    /* In the smallest cache that is known here. */
    const double limit = bench_limit_seconds(&peaks, &p, BENCH_HOT, "avx2", 1, name, sizeof name);
    const char *level = bench_cache_bytes(1) > 0   ? "L1"
                        : bench_cache_bytes(2) > 0 ? "L2"
                        : bench_cache_bytes(3) > 0 ? "L3"
                                                   : "memory";
    cr_expect_str_eq(name + strlen("read "), level);
    cr_expect_gt(limit, 0.0);
    cr_expect_eq(bench_cache_bytes(0), 0);
    cr_expect_eq(bench_cache_bytes(4), 0);
}

Test(bench_limits, peaks_as_json)
{
    struct bench_peaks peaks = made_up();
    add(&peaks, "region", "", "", 2, 1e-6);
    json_t *list = bench_peaks_json(&peaks);
    cr_assert_eq(json_array_size(list), (size_t)peaks.count);
    for (int i = 0; i < peaks.count; i++) {
        json_t *one = json_array_get(list, (size_t)i);
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *unit = strcmp(name, "fma") == 0      ? "GFLOP/s"
                           : strcmp(name, "region") == 0 ? "seconds"
                                                         : "GB/s";
        cr_expect_str_eq(name, peaks.peak[i].name);
        cr_expect_str_eq(json_string_value(json_object_get(one, "isa")), peaks.peak[i].isa);
        cr_expect_str_eq(json_string_value(json_object_get(one, "level")), peaks.peak[i].level);
        cr_expect_eq(json_integer_value(json_object_get(one, "threads")), peaks.peak[i].threads);
        cr_expect_eq(json_real_value(json_object_get(one, "value")), peaks.peak[i].value);
        cr_expect_str_eq(json_string_value(json_object_get(one, "unit")), unit);
    }
    json_decref(list);
}

/* ---- the probes ----------------------------------------------------------------------------- */

Test(bench_limits, measured_peaks_are_plausible, .timeout = 120)
{
    const char *const isas[] = {"scalar", "nonsense", NULL};
    const int threads[] = {1, 2};
    static struct bench_peaks peaks;
    bench_peaks_measure(isas, 2, threads, 0.3, &peaks);
    int levels = 1; /* memory */
    for (int level = 1; level <= BENCH_LEVELS; level++) {
        levels += bench_cache_bytes(level) > 0;
    }
    cr_assert_eq(peaks.count, 2 * (1 + 2 * levels + 1), "%d peaks", peaks.count);
    for (int i = 0; i < peaks.count; i++) {
        const struct bench_peak *p = &peaks.peak[i];
        cr_expect(isfinite(p->value) && p->value >= 0.0);
        if (p->threads == 1) { /* on several threads, a busy machine leaves peaks unknown */
            cr_expect_gt(p->value, 0.0, "%s %s%s", p->name, p->isa, p->level);
        }
    }
    cr_expect_lt(bench_peak_find(&peaks, "region", "", "", 1), 1e-2);
    cr_expect_lt(bench_peak_find(&peaks, "fma", "scalar", "", 1), 1e4);
    cr_expect_lt(bench_peak_find(&peaks, "read", "", "memory", 1), 1e5);
}

/* ---- the machine ---------------------------------------------------------------------------- */

static char *documentation(void)
{
    FILE *f = fopen("docs/benchmarks.md", "re");
    cr_assert_not_null(f, "docs/benchmarks.md: tests run in the top folder");
    char *text = calloc(1, 1 << 20);
    cr_assert(text != NULL && fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

/* The key somewhere in the value, at any depth. */
static int holds_key(json_t *value, const char *key)
{
    if (json_is_array(value)) {
        return json_array_size(value) > 0 && holds_key(json_array_get(value, 0), key);
    }
    const char *name;
    json_t *member;
    json_object_foreach(value, name, member)
    {
        if (strcmp(name, key) == 0 || holds_key(member, key)) {
            return 1;
        }
    }
    return 0;
}

/* Every `word` of the list item that starts with "- `block`" is a key of json, but for `host` and
 * the words of the items behind it; and each of json's own is named there. */
static void check_against_documentation(json_t *json, const char *block, const char *end)
{
    char *text = documentation(), mark[64];
    snprintf(mark, sizeof mark, "`%s` {", block);
    char *start = strstr(text, mark);
    cr_assert_not_null(start, "%s is not documented", block);
    start += strlen(mark);
    char *stop = strstr(start, end);
    cr_assert_not_null(stop, "no %s behind %s", end, block);
    *stop = '\0';
    int words = 0;
    for (char *p = strchr(start, '`'); p != NULL; p = strchr(p, '`')) {
        char word[64];
        char *close = strchr(++p, '`');
        cr_assert(close != NULL && close - p < (long)sizeof word);
        snprintf(word, sizeof word, "%.*s", (int)(close - p), p);
        p = close + 1;
        if (islower((unsigned char)word[0]) && strcmp(word, "host") != 0) {
            const int unknown_caches = json_array_size(json_object_get(json, "caches")) == 0 &&
                                       strstr(" level type bytes shared_by ", word) != NULL;
            cr_expect(holds_key(json, word) || unknown_caches, "%s lacks %s", block, word);
            words++;
        }
    }
    cr_expect_gt(words, 2);
    const char *name;
    json_t *member;
    json_object_foreach(json, name, member)
    {
        snprintf(mark, sizeof mark, "`%s`", name);
        cr_expect(strstr(start, mark) != NULL, "%s.%s is not documented", block, name);
    }
    free(text);
}

Test(bench_limits, the_machine_as_documented)
{
    json_t *machine = bench_machine_json(0);
    check_against_documentation(machine, "machine", "- `build`");
    cr_expect_gt(json_integer_value(json_object_get(machine, "cpus")), 0);
    cr_expect_gt(json_integer_value(json_object_get(machine, "page_bytes")), 0);
    cr_expect_null(json_object_get(machine, "host"));

    char key[96];
    bench_machine_key(key, sizeof key);
    cr_expect_str_eq(json_string_value(json_object_get(machine, "key")), key);
    const char *isa = strrchr(key, '-');
    cr_assert_not_null(isa);
    json_t *isas = json_object_get(machine, "isa");
    cr_expect_str_eq(isa + 1, json_string_value(json_object_get(isas, "active")));
    json_t *list = json_object_get(isas, "list");
    cr_assert_eq(json_array_size(list), (size_t)t2k_isa_count());
    for (int i = 0; i < t2k_isa_count(); i++) {
        json_t *one = json_array_get(list, (size_t)i);
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        cr_expect_str_eq(json_string_value(json_object_get(one, "name")), info.name);
        cr_expect_eq(json_is_true(json_object_get(one, "usable")), info.usable);
        cr_expect_eq(json_is_null(json_object_get(one, "reason")), info.active);
    }
    for (const char *c = key; *c != '\0'; c++) {
        cr_expect(islower((unsigned char)*c) || isdigit((unsigned char)*c) || strchr("-._", *c),
                  "%s", key);
    }
    json_decref(machine);
}

Test(bench_limits, the_host_only_when_asked)
{
    char host[256] = "";
    cr_assert_eq(gethostname(host, sizeof host - 1), 0);
    json_t *machine = bench_machine_json(1);
    cr_expect_str_eq(json_string_value(json_object_get(machine, "host")), host);
    json_decref(machine);
}

Test(bench_limits, build_and_environment)
{
    json_t *build = bench_build_json();
    check_against_documentation(build, "build", ", `environment`");
    cr_expect(json_is_string(json_object_get(build, "compiler")));
    json_decref(build);
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("T2K_SOMETHING", "", 1);
    setenv("LD_LIBRARY_PATH", "/somewhere", 1);
    setenv("GLIBC_TUNABLES_NOT", "x", 1);
    json_t *environment = bench_environment_json();
    cr_expect_str_eq(json_string_value(json_object_get(environment, "OMP_NUM_THREADS")), "1");
    cr_expect_str_eq(json_string_value(json_object_get(environment, "T2K_SOMETHING")), "");
    cr_expect_null(json_object_get(environment, "LD_LIBRARY_PATH"));
    cr_expect_null(json_object_get(environment, "GLIBC_TUNABLES_NOT"));
    json_decref(environment);
}

Test(bench_limits, lists_of_cpus)
{
    cr_expect_eq(bench_count_list("0"), 1);
    cr_expect_eq(bench_count_list("0-3,8,10-11"), 7);
    cr_expect_eq(bench_count_list(""), 0);
    cr_expect_eq(bench_count_list("x"), 0);
    cr_expect_eq(bench_count_list("3-1"), 0);
    cr_expect_eq(bench_count_list("1-2x"), 0);
}

Test(bench_limits, cpuinfo)
{
    char value[16] = "before", cut[3], whole[256];
    cr_expect_eq(t2_cpuinfo("no such key", value, sizeof value), 0);
    cr_expect_str_eq(value, "");
    cr_expect_eq(t2_cpuinfo("processo", value, sizeof value), 0, "half a key");
    cr_expect_eq(t2_cpuinfo("processor", value, sizeof value), 1);
    cr_expect_str_eq(value, "0");
    t2_cpu_name(whole, sizeof whole);
    t2_cpu_name(cut, sizeof cut);
    cr_expect_gt(strlen(whole), 0);
    cr_expect_eq(strncmp(whole, cut, sizeof cut - 1), 0);
}

/* ---- noise ---------------------------------------------------------------------------------- */

Test(bench_limits, noise_as_documented)
{
    struct bench_noise noise;
    bench_noise_start(&noise);
    for (int i = 0; i < 5; i++) {
        bench_noise_sample(&noise);
    }
    json_t *json = bench_noise_json(&noise);
    check_against_documentation(json, "noise", "\n- ");
    json_t *steal = json_object_get(json, "steal_percent");
    cr_expect(json_is_null(steal) ||
              (json_number_value(steal) >= 0.0 && json_number_value(steal) <= 100.0));
    if (noise.samples > 0) {
        cr_expect_eq(noise.samples, 6);
        cr_expect_leq(noise.ghz_min, noise.ghz_max);
        cr_expect(noise.ghz_min > 0.01 && noise.ghz_max < 10.0, "%g to %g GHz", noise.ghz_min,
                  noise.ghz_max);
    }
    json_decref(json);
}

Test(bench_limits, drift_is_relative)
{
    const struct bench_noise known = {
        .start_total = -1.0, .ghz_min = 3.0, .ghz_max = 4.0, .samples = 2};
    json_t *json = bench_noise_json(&known);
    cr_expect_eq(json_real_value(json_object_get(json, "drift")), 0.25);
    cr_expect(json_is_null(json_object_get(json, "steal_percent")));
    json_decref(json);
    const struct bench_noise unknown = {.samples = 0};
    json = bench_noise_json(&unknown);
    cr_expect(json_is_null(json_object_get(json, "drift")));
    cr_expect(json_is_null(json_object_get(json, "ghz_min")));
    json_decref(json);
}
