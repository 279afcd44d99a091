/* The t2 program: picks the subcommand. */
#include "cli.h"

#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"run", t2_cli_run, "run a model on token ids, or continue a prompt"},
    {"eval", t2_cli_eval, "greedy accuracy of a character model on a list of tasks"},
    {"init", t2_cli_init, "create a model folder with freshly initialised weights"},
    {"svd", t2_cli_svd, "decompose a model's matrices, for experts"},
    {"inspect", t2_cli_inspect, "list the tensors of safetensors files"},
    {"info", t2_cli_info, "instruction sets, threads and versions on this machine"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_help(void)
{
    printf("t2 - Transformer^2 models on hand-written SIMD kernels\n\n"
           "usage: t2 COMMAND [OPTIONS]\n\ncommands:\n");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        printf("  %-9s%s\n", commands[i].name, commands[i].summary);
    }
    printf("\n  t2 COMMAND --help   options of a command\n"
           "  t2 --version        version, compiler, instruction sets\n\n"
           "examples:\n"
           "  t2 run runtime/models/t2-chars --prompt 'Rhagga='\n"
           "  t2 init example --vocab-size 1000 --seed 0\n"
           "  echo '1 2 3' | t2 run example --ids -\n\n"
           "environment: T2K_ISA caps the instruction set, T2K_NUM_THREADS sets the threads.\n"
           "exit codes: 0 ok, 1 runtime error, 2 usage, 3 bad model or file, 4 out of memory,\n"
           "            5 check failed, 6 interrupted: what is finished is kept\n");
}

static void print_version(void)
{
    printf("t2 %s, compiled by %s\ninstruction sets:", t2k_version(), t2_cli_compiler());
    for (int i = 0; i < t2k_isa_count(); i++) {
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        printf(" %s%s", info.name, info.usable ? "" : " (not usable here)");
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "t2: no command given; see 't2 --help'\n");
        return T2_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return t2_cli_finish_stdout();
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        print_version();
        return t2_cli_finish_stdout();
    }
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            int code = t2_cli_check_environment();
            code = code >= 0 ? code : commands[i].run(argc - 1, argv + 1);
            int flushed = t2_cli_finish_stdout();
            return code != T2_EXIT_OK ? code : flushed;
        }
    }
    return t2_cli_fail(T2_EXIT_USAGE, "unknown command '%s'; see 't2 --help'", name);
}
