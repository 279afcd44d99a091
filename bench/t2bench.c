/* t2bench: times every kernel of the dispatch table on every usable ISA and other libraries beside
 * it, and compares and presents what came out.
 *
 * Exit status: 0 fine, 1 a wrong result, a failure or a regression, 2 wrong usage, 3 files that
 * cannot be compared, 130 interrupted. Results go to stdout, everything else to stderr. */
#include "contender.h"
#include "experts.h"
#include "limits.h"
#include "results.h"
#include "run.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: t2bench [SUBCOMMAND] [options]\n"
    "  run        times kernels and peers (without a subcommand: this); t2bench run --help\n"
    "  list       names of the cases that run would time with the same options; with --sets,\n"
    "             --ops, --peers or --isas alone: those, and what they are\n"
    "  compare    result files: what became slower or faster; t2bench compare --help\n"
    "  report     result files as one page; t2bench report --help\n"
    "  peaks      what this machine can do, measured; t2bench peaks --help\n"
    "  experts    what singular value experts cost in a program; t2bench experts --help\n"
    "  --help, --version\n"
    "Examples: t2bench --quick --filter '^sgemm/'\n"
    "          t2bench --json old.json; ...; t2bench --json new.json\n"
    "          t2bench compare old.json new.json; t2bench report old.json new.json -o page.html\n"
    "Exit status: 0 fine, 1 a wrong result, a failure or a regression, 2 usage,\n"
    "3 files that cannot be compared, 130 interrupted.\n";

/* ---- list ------------------------------------------------------------------------------------ */

static void list_sets(void)
{
    for (int i = 0; bench_set_name(i) != NULL; i++) {
        printf("%-20s %s\n", bench_set_name(i), bench_set_text(i));
    }
}

static void list_ops(void)
{
    for (int i = 0; bench_ops[i] != NULL; i++) {
        printf("%-20s shape: %s\n", bench_ops[i]->name, bench_ops[i]->dims);
    }
}

static void list_peers(void)
{
    for (int i = 1; i < bench_peer_count; i++) {
        char reason[200] = "";
        if (&bench_peers[i] == bench_peer_against()) {
            continue;
        }
        int present = bench_peer_present(&bench_peers[i], reason, sizeof reason);
        printf("%-20s %s: %s\n", bench_peers[i].name, bench_peers[i].text,
               present ? "present" : reason);
    }
}

static void list_isas(void)
{
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        printf("%-20s %s\n", info.name, info.active ? "active" : info.reason);
    }
}

static const char list_help[] =
    "usage: t2bench list [options of run]\n"
    "       t2bench list --sets | --ops | --peers | --isas\n"
    "Prints the names of the cases that run would time with the same options (t2bench run "
    "--help);\n"
    "or the shape sets, the operations and their shapes, the other libraries and whether they are\n"
    "there, the ISAs.\n"
    "Exit status: 0 fine, 1 a failure, 2 usage.\n";

static int list(int argc, char **argv)
{
    static const struct {
        const char *option;
        void (*print)(void);
    } lists[] = {
        {"--sets", list_sets}, {"--ops", list_ops}, {"--peers", list_peers}, {"--isas", list_isas}};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(list_help, stdout);
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < sizeof lists / sizeof lists[0]; i++) {
        if (strcmp(argv[1], lists[i].option) != 0) {
            continue;
        }
        if (t2k_init() != T2K_OK) {
            return bench_usage_error("%s", t2k_isa_error());
        }
        lists[i].print();
        if (fflush(stdout) != 0) {
            fprintf(stderr, "t2bench: cannot write to stdout\n");
            return 1;
        }
        return 0;
    }
    return bench_run_main(argc, argv, 1);
}

/* ---- subcommands ----------------------------------------------------------------------------- */

static int run(int argc, char **argv)
{
    return bench_run_main(argc, argv, 0);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*serve)(int argc, char **argv); /* argv[0] is the name */
    } subcommands[] = {{"run", run},
                       {"list", list},
                       {"compare", compare_main},
                       {"report", report_main},
                       {"peaks", peaks_main},
                       {"experts", experts_main},
                       {"worker", worker_main},
                       {"probe", bench_probe_main}};
    if (argc < 2 || argv[1][0] == '-') {
        if (argc == 2 && strcmp(argv[1], "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }
        if (argc == 2 && strcmp(argv[1], "--version") == 0) {
            printf("t2bench %s\n", t2k_version());
            return 0;
        }
        return run(argc, argv);
    }
    for (size_t i = 0; i < sizeof subcommands / sizeof subcommands[0]; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            return subcommands[i].serve(argc - 1, argv + 1);
        }
    }
    return bench_usage_error("%s: no such subcommand; valid: run list compare report peaks experts",
                             argv[1]);
}
