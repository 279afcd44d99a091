/* t2bench peaks: the machine's peaks on their own, as a table or as JSON. */
#define _GNU_SOURCE /* getopt_long */
#include "limits.h"
#include "options.h"
#include "t2.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: t2bench peaks [--isa LIST] [--threads LIST] [--seconds S] [--json FILE|-]\n"
    "Measures what this machine can do: fused multiply-adds of each ISA, the bf16 matrix unit "
    "where\n"
    "there is one, bandwidths of the caches and of memory (bytes read and written), and the time "
    "of\n"
    "an empty parallel region. A peak that could not be measured, as on several threads of a busy\n"
    "machine, is \"unknown\" (0 in JSON).\n"
    "  --isa LIST      only these ISAs; default: all that are usable\n"
    "  --threads LIST  numbers of threads; default: 1 and all\n"
    "  --seconds S     how long to measure, about; default 2\n"
    "  --json FILE     machine, build and peaks as JSON, - for standard output instead of the "
    "table\n"
    "  --help          this text\n";

struct peaks_options {
    struct bench_options lists;
    double seconds;
    const char *json;
    int help;
};

static int add_list(struct bench_options *o, const char *from, char *list,
                    int (*add)(struct bench_options *o, const char *from, const char *item))
{
    char *rest = NULL, *item = strtok_r(list, ",", &rest);
    int status = item != NULL ? 0 : bench_usage_error("%s: an empty list", from);
    for (; item != NULL && status == 0; item = strtok_r(NULL, ",", &rest)) {
        status = add(o, from, item);
    }
    return status;
}

static int parse(struct peaks_options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"isa", required_argument, NULL, 'i'},     {"threads", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 's'}, {"json", required_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    static const char *const units[] = {"s", NULL};
    static const double factors[] = {1.0};
    int c, status = 0;
    opterr = 0;
    optind = 1;
    while (status == 0 && (c = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        switch (c) {
        case 'i':
            status = add_list(&o->lists, "--isa", optarg, bench_add_isa);
            break;
        case 't':
            status = add_list(&o->lists, "--threads", optarg, bench_add_threads);
            break;
        case 's':
            status = bench_number("--seconds", optarg, units, factors, 0.3, 3600.0, &o->seconds);
            break;
        case 'j':
            o->json = optarg;
            break;
        case 'h':
            o->help = 1;
            return 0;
        default:
            return bench_usage_error("peaks: %s %s; see t2bench peaks --help",
                                     c == ':' ? "a value is missing behind" : "unknown option",
                                     argv[optind - 1]);
        }
    }
    if (status == 0 && optind < argc) {
        return bench_usage_error("peaks: unexpected argument %s; see t2bench peaks --help",
                                 argv[optind]);
    }
    return status;
}

/* 1 with a line on stderr where it could not be written. */
static int write_json(const char *path, const struct bench_peaks *peaks,
                      const struct bench_noise *noise)
{
    json_t *root = json_object();
    json_object_set_new(root, "schema", json_integer(1));
    json_object_set_new(root, "machine", bench_machine_json(0));
    json_object_set_new(root, "build", bench_build_json());
    json_object_set_new(root, "environment", bench_environment_json());
    json_object_set_new(root, "peaks", bench_peaks_json(peaks));
    json_object_set_new(root, "noise", bench_noise_json(noise));
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    size_t size = text != NULL ? strlen(text) : 0;
    if (text != NULL) {
        text[size++] = '\n'; /* in place of the end */
    }
    int failed = text == NULL;
    t2_error error = {0};
    if (text == NULL) {
        fprintf(stderr, "t2bench: peaks: out of memory\n");
    } else if (strcmp(path, "-") == 0) {
        failed = fwrite(text, 1, size, stdout) != size;
    } else if (t2_write_file_atomic(path, text, size, &error) != T2_OK) {
        fprintf(stderr, "t2bench: %s\n", error.message);
        failed = 1;
    }
    free(text);
    return failed;
}

int peaks_main(int argc, char **argv)
{
    struct peaks_options o = {.seconds = 2.0};
    if (t2k_init() != T2K_OK) {
        return bench_usage_error("%s", t2k_isa_error());
    }
    int status = parse(&o, argc, argv);
    if (status != 0) {
        return status;
    }
    if (o.help) {
        fputs(help, stdout);
        return 0;
    }
    const char *isas[BENCH_CHOICES + 1] = {NULL};
    t2k_isa_info info;
    for (int i = 0, n = 0; t2k_isa_get(i, &info) == T2K_OK && n < BENCH_CHOICES; i++) {
        int chosen = o.lists.isas == 0 && bench_isa_selectable(i);
        for (int j = 0; j < o.lists.isas; j++) {
            chosen |= o.lists.isa[j] == i;
        }
        if (chosen) {
            isas[n++] = info.name;
        }
    }
    if (o.lists.thread_counts == 0) {
        o.lists.threads[0] = 1;
        o.lists.threads[1] = t2k_get_num_threads();
        o.lists.thread_counts = o.lists.threads[1] > 1 ? 2 : 1;
    }
    static struct bench_peaks peaks;
    struct bench_noise noise;
    bench_noise_start(&noise);
    bench_peaks_measure(isas, o.lists.thread_counts, o.lists.threads, o.seconds, &peaks);
    bench_noise_sample(&noise);
    if (peaks.count == 0) {
        fprintf(stderr, "t2bench: peaks: out of memory\n");
        return 1;
    }
    if (o.json != NULL) {
        status = write_json(o.json, &peaks, &noise);
    }
    if (o.json == NULL || strcmp(o.json, "-") != 0) {
        char cpu[256];
        bench_cpu_name(cpu, sizeof cpu);
        printf("%s\n", cpu);
        bench_peaks_print(&peaks);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "t2bench: peaks: cannot write to standard output\n");
        return 1;
    }
    return status;
}
