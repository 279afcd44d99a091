/* t2 svd: factors of a model's matrices. */
#include "cli.h"
#include "io/text.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: t2 svd MODEL -o FACTORS [OPTIONS]\n\n"
    "Decomposes matrices of a model, W = U diag(S) V^T, and writes the factors that experts are\n"
    "made for. MODEL is a model folder or a safetensors file. What is finished is kept in the\n"
    "folder FACTORS.parts: after an interruption (exit code 6) the same command goes on there.\n\n"
    "  -o, --out FACTORS  the file to write, safetensors\n"
    "  --modules LIST     mlp, attention, all, and patterns of tensor names with * and ?, "
    "separated\n"
    "                     by commas (mlp,attention)\n"
    "  --rank K           keep the K largest components of each matrix (all)\n"
    "  --energy E         keep as few as hold the share E of the sum of S^2, 0 < E <= 1 (all)\n"
    "  --store f32|bf16   how U and V are stored (f32)\n"
    "  --jobs N           matrices at a time (one for each CPU)\n"
    "  --json             one JSON object on standard output\n"
    "  --quiet            no progress on standard error\n"
    "  --help             this text\n\n"
    "examples:\n"
    "  t2 svd runtime/models/t2-chars -o factors.safetensors\n"
    "  t2 svd model.safetensors -o f.safetensors --modules '*.q_proj.weight,*.v_proj.weight'\n";

enum { OPT_MODULES = 256, OPT_RANK, OPT_ENERGY, OPT_STORE, OPT_JOBS, OPT_JSON, OPT_QUIET };

static const struct option options[] = {{"out", required_argument, NULL, 'o'},
                                        {"modules", required_argument, NULL, OPT_MODULES},
                                        {"rank", required_argument, NULL, OPT_RANK},
                                        {"energy", required_argument, NULL, OPT_ENERGY},
                                        {"store", required_argument, NULL, OPT_STORE},
                                        {"jobs", required_argument, NULL, OPT_JOBS},
                                        {"json", no_argument, NULL, OPT_JSON},
                                        {"quiet", no_argument, NULL, OPT_QUIET},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

/* What the progress told of a matrix; the rest is in the file. */
typedef struct timing {
    char *name;
    double seconds;
    int kept;
} timing;

typedef struct state {
    t2_svd_args args;
    int json, quiet, terminal;
    timing *timings; /* (count) */
    int64_t count;
    double elapsed;
    double in_lapack, in_matrices; /* seconds of the matrices that were not found finished */
    int line;                      /* a progress line stands on the terminal */
} state;

/* ---- options ----------------------------------------------------------------------------------
 */

/* 0 where the value is wrong. */
static int set_option(state *s, int option)
{
    int64_t value;
    switch (option) {
    case 'o':
        s->args.out = optarg;
        return optarg[0] != '\0';
    case OPT_MODULES:
        s->args.modules = optarg;
        return optarg[0] != '\0';
    case OPT_RANK:
        return t2_cli_int(optarg, 1, INT64_MAX, &s->args.rank);
    case OPT_ENERGY:
        return t2_cli_double(optarg, 0.0, 1.0, &s->args.energy) && s->args.energy > 0.0;
    case OPT_STORE:
        s->args.bf16 = strcmp(optarg, "bf16") == 0;
        return s->args.bf16 || strcmp(optarg, "f32") == 0;
    case OPT_JOBS:
        if (!t2_cli_int(optarg, 1, T2_CLI_MAX_THREADS, &value)) {
            return 0;
        }
        s->args.jobs = (int)value;
        return 1;
    case OPT_JSON:
        s->json = 1;
        return 1;
    default:
        s->quiet = 1;
        return 1;
    }
}

/* -1 when the command should go on. */
static int parse(int argc, char **argv, state *s)
{
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":ho:", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return T2_EXIT_OK;
        }
        if (c == '?' || c == ':') {
            return t2_cli_bad_option("svd", argv, c);
        }
        if (!set_option(s, c)) {
            return t2_cli_bad_value("svd", argv);
        }
    }
    if (argc - optind != 1) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "svd: expected one model, found %d arguments; see 't2 svd --help'",
                           argc - optind);
    }
    if (s->args.out == NULL) {
        return t2_cli_fail(T2_EXIT_USAGE, "svd: -o FACTORS is needed; see 't2 svd --help'");
    }
    s->args.model = argv[optind];
    return -1;
}

/* ---- progress ---------------------------------------------------------------------------------
 */

static volatile sig_atomic_t stop_asked;

/* The second signal ends the program at once: SA_RESETHAND. */
static void ask_to_stop(int number)
{
    static const char text[] = "\nt2: stopping when the matrices under way are finished\n";
    (void)number;
    stop_asked = 1;
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
}

/* A signal that is ignored stays so: commands in a script's background get no SIGINT. */
static void catch_signal(int number)
{
    struct sigaction action;
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
        action = (struct sigaction){.sa_handler = ask_to_stop, .sa_flags = (int)SA_RESETHAND};
        sigemptyset(&action.sa_mask);
        sigaction(number, &action, NULL);
    }
}

/* "1:02:03", "2:03" */
static const char *clock_text(double seconds, char text[32])
{
    long long s = (long long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(text, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(text, 32, "%lld:%02lld", s / 60, s % 60);
    }
    return text;
}

static void clear_line(state *s)
{
    if (s->line) {
        fputs("\r\033[K", stderr);
        s->line = 0;
    }
}

static void show(state *s, const t2_svd_progress *p)
{
    char name[T2_SHOW], left[32];
    if (p->name == NULL) {
        fprintf(stderr, "t2: %lld matrices, %.1f MB of disk, %s\n", (long long)p->count,
                (double)p->bytes_needed * 1e-6, t2_svd_library());
        return;
    }
    t2_show(name, p->name);
    if (s->terminal) {
        clear_line(s);
        fprintf(stderr, "%lld of %lld, %s left, %.48s %lld x %lld", (long long)p->done,
                (long long)p->count, p->left < 0.0 ? "?" : clock_text(p->left, left), name,
                (long long)p->m, (long long)p->n);
        fflush(stderr);
        s->line = 1;
        return;
    }
    fprintf(stderr, "t2: %lld of %lld: %s %lld x %lld, residual %.1e, %.2f s%s, %s left\n",
            (long long)p->done, (long long)p->count, name, (long long)p->m, (long long)p->n,
            p->residual, p->seconds, p->kept ? " (was finished)" : "",
            p->left < 0.0 ? "?" : clock_text(p->left, left));
}

static int on_progress(void *arg, const t2_svd_progress *p)
{
    state *s = arg;
    s->elapsed = p->elapsed;
    s->in_lapack += p->lapack_seconds;
    s->in_matrices += p->kept ? 0.0 : p->seconds;
    if (p->name == NULL) {
        s->timings = calloc((size_t)p->count, sizeof s->timings[0]);
    } else if (s->timings != NULL && s->count < p->count) {
        s->timings[s->count++] = (timing){strdup(p->name), p->seconds, p->kept};
    }
    if (!s->quiet) {
        show(s, p);
    }
    return stop_asked;
}

/* ---- the result --------------------------------------------------------------------------------
 */

static const timing *timing_of(const state *s, const char *name)
{
    static const timing none = {NULL, 0.0, 0};
    for (int64_t i = 0; i < s->count; i++) {
        if (s->timings[i].name != NULL && strcmp(s->timings[i].name, name) == 0) {
            return &s->timings[i];
        }
    }
    return &none;
}

static double bytes_of(const t2_factor *f, int bf16)
{
    return ((double)f->m + (double)f->n) * (double)f->r * (bf16 ? 2.0 : 4.0) + 4.0 * (double)f->r;
}

static void print_table(const state *s, const t2_factors *factors)
{
    int widest = 6;
    double bytes = 0.0, worst = 0.0;
    char name[T2_SHOW];
    for (int64_t i = 0; i < t2_factors_count(factors); i++) {
        int width = (int)strlen(t2_show(name, t2_factors_get(factors, i)->name));
        widest = width > widest ? width : widest;
    }
    printf("%-*s %7s %7s %6s %10s %9s %9s %9s %9s\n", widest, "matrix", "m", "n", "r", "sigma 1",
           "residual", "I - U'U", "seconds", "MB");
    for (int64_t i = 0; i < t2_factors_count(factors); i++) {
        const t2_factor *f = t2_factors_get(factors, i);
        const timing *t = timing_of(s, f->name);
        double size = bytes_of(f, s->args.bf16);
        bytes += size;
        worst = f->residual > worst ? f->residual : worst;
        printf("%-*s %7lld %7lld %6lld %10.4g %9.2e %9.2e %8.3f%s %9.3f\n", widest,
               t2_show(name, f->name), (long long)f->m, (long long)f->n, (long long)f->r,
               (double)f->S[0], f->residual, f->orthogonality, t->seconds, t->kept ? "k" : " ",
               size * 1e-6);
    }
    const char *mixed = t2_factors_note(factors, "mixed");
    printf(
        "%lld matrices, %.3f MB, largest residual %.2e, %.2f s\n%s on %s\n"
        "LAPACK %.2f s, the rest of the matrices (reading, rounding, verifying, writing) %.2f s\n",
        (long long)t2_factors_count(factors), bytes * 1e-6, worst, s->elapsed, t2_svd_library(),
        t2_factors_note(factors, "cpu"), s->in_lapack, s->in_matrices - s->in_lapack);
    if (mixed != NULL) {
        printf("matrices that were finished elsewhere: %s\n", t2_show(name, mixed));
    }
    printf("factors %s\nbase    %s\n", t2_factors_hash(factors), t2_factors_base_hash(factors));
}

static void print_json(const state *s, const t2_factors *factors)
{
    printf("{\"out\":");
    t2_cli_json_string(stdout, s->args.out);
    printf(",\"library\":");
    t2_cli_json_string(stdout, t2_svd_library());
    printf(",\"hash\":\"%s\",\"base_hash\":\"%s\",\"seconds\":%.6f,\"lapack_seconds\":%.6f,"
           "\"matrices\":[",
           t2_factors_hash(factors), t2_factors_base_hash(factors), s->elapsed, s->in_lapack);
    for (int64_t i = 0; i < t2_factors_count(factors); i++) {
        const t2_factor *f = t2_factors_get(factors, i);
        const timing *t = timing_of(s, f->name);
        printf("%s{\"name\":", i > 0 ? "," : "");
        t2_cli_json_string(stdout, f->name);
        printf(",\"m\":%lld,\"n\":%lld,\"r\":%lld,\"sigma\":%.9g,\"residual\":%.9g,"
               "\"orthogonality\":%.9g,\"seconds\":%.6f,\"kept\":%s,\"bytes\":%.0f}",
               (long long)f->m, (long long)f->n, (long long)f->r, (double)f->S[0], f->residual,
               f->orthogonality, t->seconds, t->kept ? "true" : "false", bytes_of(f, s->args.bf16));
    }
    printf("]}\n");
}

/* What stands in the file is shown, not what was meant to. */
static int show_result(const state *s)
{
    t2_error err;
    t2_factors *factors;
    if (t2_factors_open(s->args.out, 0, &factors, &err) != T2_OK) {
        return t2_cli_error(&err);
    }
    if (s->json) {
        print_json(s, factors);
    } else {
        print_table(s, factors);
    }
    t2_factors_close(factors);
    return T2_EXIT_OK;
}

int t2_cli_svd(int argc, char **argv)
{
    state s = {.args = {.size = sizeof s.args, .on_progress = on_progress}};
    int code = parse(argc, argv, &s);
    if (code >= 0) {
        return code;
    }
    s.args.on_progress_arg = &s;
    s.terminal = isatty(STDERR_FILENO);
    catch_signal(SIGINT);
    catch_signal(SIGTERM);
    t2_error err;
    t2_status status = t2_svd_run(&s.args, &err);
    clear_line(&s);
    code = status == T2_OK ? show_result(&s) : t2_cli_error(&err);
    for (int64_t i = 0; i < s.count; i++) {
        free(s.timings[i].name);
    }
    free(s.timings);
    return code;
}
