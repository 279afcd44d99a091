/* t2bench experts: options, and layers with random factors that its parts measure on. */
#define _GNU_SOURCE /* getopt_long */
#include "experts.h"

#include "limits.h"
#include "options.h"
#include "problem.h"
#include "svf_case.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- layers ---------------------------------------------------------------------------------- */

int experts_failed(const char *what, const t2_error *err)
{
    fprintf(stderr, "t2bench: experts: %s: %s\n", what, err->message);
    return -1;
}

static float uniform(uint64_t *state)
{
    return (float)(int32_t)(bench_random(state) >> 40) * 0x1p-23f - 1.0f; /* [-1, 1) */
}

/* Factors need not be orthogonal to be timed; W is what they make. */
static float *fill(svf_case *one, int64_t m, int64_t n, float *at, uint64_t *state)
{
    const int64_t r = m < n ? m : n;
    float *U = at, *V = U + m * r, *S = V + n * r, *W = S + r;
    for (float *x = U; x < S; x++) {
        *x = 0.1f * uniform(state);
    }
    for (int64_t i = 0; i < r; i++) {
        S[i] = 2.0f - (float)i / (float)r;
    }
    t2k_svd_rebuild(T2K_NO_TRANS, m, n, r, 1.0f, U, r, S, V, r, W, n);
    one->m = m;
    one->n = n;
    one->r = r;
    one->U = U;
    one->S = S;
    one->V = V;
    one->W = W;
    return W + m * n;
}

static int open_factors(struct expert_layers *layers, const svf_case *cases)
{
    const char *base = getenv("TMPDIR");
    char path[1024];
    snprintf(path, sizeof path, "%s/t2bench-%ld.safetensors",
             base != NULL && base[0] != '\0' ? base : "/tmp", (long)getpid());
    layers->factors = svf_case_factors(path, cases, layers->count);
    remove(path); /* it was read whole */
    t2_error err;
    if (t2_adapter_create_layers(layers->layer, layers->count, layers->factors, T2_ADAPTER_TRUST,
                                 &layers->adapter, &err) != T2_OK) {
        return experts_failed("adapter", &err);
    }
    return 0;
}

int expert_layers_create(struct expert_layers *layers, const int64_t (*sizes)[2], int64_t count)
{
    memset(layers, 0, sizeof *layers);
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) {
        const int64_t m = sizes[i][0], n = sizes[i][1], r = m < n ? m : n;
        total += (m + n + 1) * r + m * n;
        layers->ranks += r;
        layers->widest = m > layers->widest ? m : layers->widest;
        layers->widest = n > layers->widest ? n : layers->widest;
    }
    layers->count = count;
    layers->layer = calloc((size_t)count, sizeof layers->layer[0]);
    layers->name = calloc((size_t)count, sizeof layers->name[0]);
    layers->numbers = malloc((size_t)total * sizeof(float));
    svf_case *cases = calloc((size_t)count, sizeof *cases);
    int status = -1;
    if (layers->layer != NULL && layers->name != NULL && layers->numbers != NULL && cases != NULL) {
        float *at = layers->numbers;
        uint64_t state = 2501;
        for (int64_t i = 0; i < count; i++) {
            snprintf(layers->name[i], sizeof layers->name[i], "layer.%03d.weight", (int)i);
            cases[i].name = layers->name[i];
            at = fill(&cases[i], sizes[i][0], sizes[i][1], at, &state);
            layers->layer[i] =
                (t2_layer){layers->name[i], sizes[i][1], sizes[i][0], cases[i].W, NULL};
        }
        status = open_factors(layers, cases);
    } else {
        fprintf(stderr, "t2bench: experts: out of memory\n");
    }
    free(cases);
    if (status != 0) {
        expert_layers_destroy(layers);
    }
    return status;
}

void expert_layers_destroy(struct expert_layers *layers)
{
    if (layers->adapter != NULL) {
        t2_adapter_destroy(layers->adapter);
    }
    t2_factors_close(layers->factors);
    free(layers->layer);
    free(layers->name);
    free(layers->numbers);
    memset(layers, 0, sizeof *layers);
}

/* ---- experts --------------------------------------------------------------------------------- */

int experts_create(const struct expert_layers *layers, int64_t step, int64_t count,
                   t2_expert **experts)
{
    const t2_expert_form form = {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
    float *values = malloc((size_t)layers->ranks * sizeof *values);
    t2_expert_vector *vectors = calloc((size_t)layers->count, sizeof *vectors);
    uint64_t state = 77;
    int status = values != NULL && vectors != NULL ? 0 : -1;
    memset(experts, 0, (size_t)count * sizeof experts[0]);
    for (int64_t e = 0; e < count && status == 0; e++) {
        float *at = values;
        for (int64_t i = 0; i < layers->count; i++) {
            const t2_factor *f = t2_factors_get(layers->factors, i);
            vectors[i] = (t2_expert_vector){f->name, f->r, at};
            for (int64_t j = 0; j < f->r; j++) {
                *at++ = j % step == 0 ? 1.25f + 0.1f * uniform(&state) : 1.0f;
            }
        }
        const t2_expert_args args = {.size = sizeof args,
                                     .name = "measured",
                                     .form = form,
                                     .factors_hash = t2_factors_hash(layers->factors),
                                     .base_hash = t2_factors_base_hash(layers->factors),
                                     .vectors = vectors,
                                     .count = layers->count};
        t2_error err;
        if (t2_expert_create(&args, &experts[e], &err) != T2_OK) {
            status = experts_failed("expert", &err);
        }
    }
    free(values);
    free(vectors);
    if (status != 0) {
        experts_release(experts, count);
    }
    return status;
}

void experts_release(t2_expert **experts, int64_t count)
{
    for (int64_t e = 0; e < count; e++) {
        t2_expert_release(experts[e]);
        experts[e] = NULL;
    }
}

t2_adaptation *experts_adapt(const struct expert_layers *layers, t2_expert *const *experts,
                             int64_t count, t2_way way, const t2_workload *workload)
{
    t2_adaptation *made;
    t2_error err;
    t2_adapt_args args = {.size = sizeof args,
                          .experts = (const t2_expert *const *)experts,
                          .count = count,
                          .way = way};
    if (workload != NULL) {
        args.workload = *workload;
    }
    if (t2_adaptation_create(layers->adapter, &args, &made, &err) != T2_OK) {
        experts_failed("adaptation", &err);
        return NULL;
    }
    return made;
}

int expert_layers_run(const struct expert_layers *layers, const t2_adaptation *adaptation,
                      int64_t rows, const int64_t *expert_rows, const float *x, float *y)
{
    for (int64_t i = 0; i < layers->count; i++) {
        t2_error err;
        if (t2_adaptation_run_layer(adaptation, i, rows, expert_rows, x, y, 0, &err) != T2_OK) {
            return experts_failed("layer", &err);
        }
    }
    return 0;
}

static int rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double experts_median(double *x, int count)
{
    qsort(x, (size_t)count, sizeof x[0], rising);
    return count % 2 == 1 ? x[count / 2] : 0.5 * (x[count / 2 - 1] + x[count / 2]);
}

/* ---- the subcommand -------------------------------------------------------------------------- */

static const char help[] =
    "usage: t2bench experts switch|rows|plan|swap [--csv FILE] [--svg FILE] [--threads N]\n"
    "       t2bench experts all --dir FOLDER [--threads N]\n"
    "Measures experts as a program uses them, on layers with random factors:\n"
    "  switch     all 36 matrices of MiniLM rebuilt for another expert, against plain products\n"
    "  rows       a stack of the layers of SmolLM2-135M: rows with one expert, with an expert\n"
    "             each, and each expert's rows in turn on rebuilt weights\n"
    "  plan       the way that is chosen by constants and by measuring, against the best one, "
    "over\n"
    "             a grid of shapes, rows and changes of experts\n"
    "  swap       how long a change of experts takes, alone and while a thread computes; memory\n"
    "  all        all of these: NAME.csv, NAME.svg and the table targets.md in a folder\n"
    "  --dir FOLDER that folder, which exists\n"
    "  --csv FILE the figures as comma-separated values\n"
    "  --svg FILE a picture of them (rows, plan)\n"
    "  --threads N  of the kernels; default: all\n"
    "  --help     this text\n"
    "Exit status: 0 fine, 1 a failure, 2 usage.\n";

int experts_write(const char *path, const t2_text *text)
{
    FILE *file = fopen(path, "we");
    int ok = file != NULL && !text->failed && fwrite(text->data, 1, text->size, file) == text->size;
    if (file != NULL) {
        ok = fclose(file) == 0 && ok;
    }
    if (!ok) {
        fprintf(stderr, "t2bench: experts: %s: cannot be written\n", path);
    }
    return ok ? 0 : -1;
}

struct experts_options {
    const char *csv, *svg, *dir;
    int threads, help;
};

static int parse(struct experts_options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"csv", required_argument, NULL, 'c'}, {"dir", required_argument, NULL, 'd'},
        {"svg", required_argument, NULL, 's'}, {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},      {NULL, 0, NULL, 0}};
    int c;
    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        char *end = NULL;
        switch (c) {
        case 'c':
            o->csv = optarg;
            break;
        case 'd':
            o->dir = optarg;
            break;
        case 's':
            o->svg = optarg;
            break;
        case 't':
            o->threads = (int)strtol(optarg, &end, 10);
            if (*end != '\0' || o->threads < 1 || o->threads > 1024) {
                return bench_usage_error("--threads: expected 1 to 1024, found %s", optarg);
            }
            break;
        case 'h':
            o->help = 1;
            break;
        default:
            return bench_usage_error("experts: %s: no such option, or its value is missing",
                                     argv[optind - 1]);
        }
    }
    return 0;
}

void experts_target(t2_text *table, const char *what, double value, enum experts_bound bound,
                    double limit)
{
    const int met = bound == EXPERTS_AT_MOST ? value <= limit : value >= limit;
    t2_text_printf(table, "| %s | %.4g | %s %g | %s |\n", what, value,
                   bound == EXPERTS_AT_MOST ? "<=" : ">=", limit, met ? "yes" : "**no**");
}

struct part {
    const char *name;
    int (*measure)(t2_text *csv, t2_text *svg, t2_text *table);
    int picture;
};
static const struct part parts[] = {{"switch", experts_switch, 0},
                                    {"rows", experts_rows, 1},
                                    {"swap", experts_swap, 0},
                                    {"plan", experts_plan, 1}};
enum { PARTS = sizeof parts / sizeof parts[0] };

static int run_part(const struct part *part, const char *csv_path, const char *svg_path,
                    t2_text *table)
{
    t2_text csv = {0}, svg = {0};
    int status = part->measure(&csv, svg_path != NULL ? &svg : NULL, table);
    if (status == 0 && csv_path != NULL) {
        status = experts_write(csv_path, &csv);
    }
    if (status == 0 && svg_path != NULL) {
        status = experts_write(svg_path, &svg);
    }
    t2_text_free(&csv);
    t2_text_free(&svg);
    return status;
}

/* Every part, with its files and targets.md in a folder. */
static int run_all(const char *folder, t2_text *table)
{
    char csv[1024], svg[1024], path[1024];
    const char *isa = "";
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        isa = info.active ? info.name : isa;
    }
    json_t *machine = bench_machine_json(0);
    const char *name = json_string_value(json_object_get(machine, "name"));
    t2_text_printf(table, "%s, %s, %d thread%s:\n\n", name != NULL ? name : "unknown CPU", isa,
                   t2k_get_num_threads(), t2k_get_num_threads() == 1 ? "" : "s");
    t2_text_str(table, "| what | measured | target | met |\n|--|--|--|--|\n");
    json_decref(machine);
    int status = 0;
    for (int i = 0; i < PARTS && status == 0; i++) {
        snprintf(csv, sizeof csv, "%s/%s.csv", folder, parts[i].name);
        snprintf(svg, sizeof svg, "%s/%s.svg", folder, parts[i].name);
        status = run_part(&parts[i], csv, parts[i].picture ? svg : NULL, table);
    }
    snprintf(path, sizeof path, "%s/targets.md", folder);
    return status == 0 ? experts_write(path, table) : status;
}

int experts_main(int argc, char **argv)
{
    struct experts_options o = {NULL, NULL, NULL, 0, 0};
    int status = parse(&o, argc, argv);
    if (status != 0 || o.help) {
        fputs(o.help ? help : "", stdout);
        return status;
    }
    const int all = optind + 1 == argc && strcmp(argv[optind], "all") == 0;
    int part = 0;
    while (part < PARTS && (optind >= argc || strcmp(argv[optind], parts[part].name) != 0)) {
        part++;
    }
    if ((part == PARTS && !all) || optind + 1 != argc ||
        (o.svg != NULL && (all || !parts[part].picture))) {
        return bench_usage_error(
            "experts: expected one of switch, rows, swap, plan, all; see --help");
    }
    if (all != (o.dir != NULL) || (all && o.csv != NULL)) {
        return bench_usage_error("experts: --dir goes with all, and nothing else does");
    }
    if (t2k_init() != T2K_OK || t2k_set_num_threads(o.threads) != T2K_OK) {
        fprintf(stderr, "t2bench: experts: %s\n", t2k_isa_error());
        return 1;
    }
    t2_text table = {0};
    status = all ? run_all(o.dir, &table) : run_part(&parts[part], o.csv, o.svg, &table);
    if (status == 0 && !table.failed) {
        fwrite(table.data, 1, table.size, stdout);
    }
    t2_text_free(&table);
    return status == 0 ? 0 : 1;
}
