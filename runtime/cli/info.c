/* t2 info: what this machine offers and what the library makes of it. */
#include "cli.h"
#include "io/cpuinfo.h"

#include <getopt.h>
#include <string.h>

static const char help[] =
    "usage: t2 info [--json]\n\n"
    "Prints every instruction set (ISA) of this build, whether it is used and why not, the number\n"
    "of threads and its reason, what serves the numerics classes fast and bf16, the CPU, version "
    "and\n"
    "compiler.\n\n"
    "  --json   one JSON object on standard output\n"
    "  --help   this text\n";

static void print_text(const char *cpu)
{
    printf("t2 %s, compiled by %s\ncpu      %s\nisa      %s\nthreads  %d (%s)\n", t2k_version(),
           t2_cli_compiler(), cpu, t2k_isa_name(), t2k_get_num_threads(), t2k_threads_reason());
    printf("fast     %s\nbf16     %s\n\n", t2k_numerics_note(T2K_FAST),
           t2k_numerics_note(T2K_BF16));
    for (int i = 0; i < t2k_isa_count(); i++) {
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        printf("%-8s %-7s %s\n", info.name,
               info.active   ? "in use"
               : info.usable ? "usable"
                             : "no",
               info.active ? info.features : info.reason);
    }
}

static void print_json(const char *cpu)
{
    printf("{\"version\":\"%s\",\"compiler\":", t2k_version());
    t2_cli_json_string(stdout, t2_cli_compiler());
    printf(",\"cpu\":");
    t2_cli_json_string(stdout, cpu);
    printf(",\"isa\":\"%s\",\"threads\":%d,\"threads_reason\":", t2k_isa_name(),
           t2k_get_num_threads());
    t2_cli_json_string(stdout, t2k_threads_reason());
    printf(",\"fast\":");
    t2_cli_json_string(stdout, t2k_numerics_note(T2K_FAST));
    printf(",\"bf16\":");
    t2_cli_json_string(stdout, t2k_numerics_note(T2K_BF16));
    printf(",\"isas\":[");
    for (int i = 0; i < t2k_isa_count(); i++) {
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        printf("%s{\"name\":\"%s\",\"usable\":%s,\"active\":%s,\"features\":\"%s\",\"reason\":",
               i > 0 ? "," : "", info.name, info.usable ? "true" : "false",
               info.active ? "true" : "false", info.features);
        t2_cli_json_string(stdout, info.reason);
        printf("}");
    }
    printf("]}\n");
}

int t2_cli_info(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int json = 0, c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case 'j':
            json = 1;
            break;
        case 'h':
            fputs(help, stdout);
            return T2_EXIT_OK;
        default:
            return t2_cli_bad_option("info", argv, c);
        }
    }
    if (optind < argc) {
        return t2_cli_fail(T2_EXIT_USAGE, "info: unexpected argument '%s'", argv[optind]);
    }
    if (t2k_init() != T2K_OK) {
        return t2_cli_fail(T2_EXIT_USAGE, "%s", t2k_isa_error());
    }
    char cpu[256];
    t2_cpu_name(cpu, sizeof cpu);
    if (json) {
        print_json(cpu);
    } else {
        print_text(cpu);
    }
    return T2_EXIT_OK;
}
