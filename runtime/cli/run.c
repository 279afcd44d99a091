/* t2 run: a forward pass over token ids, or the continuation of a prompt. */
#include "cli.h"
#include "input.h"
#include "io/file.h"
#include "io/text.h"
#include "run_experts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one run holds; run_free() releases it whatever has been reached. */
struct run {
    run_options options;
    t2_model *model;
    const t2_config *config;
    t2_session *session;
    cli_ids ids;
    cli_mask mask;
    run_experts adapted;
    float *logits;   /* (L, N, V) */
    int *experts;    /* (num_layers) */
    double *seconds; /* (repeat) */
    int threads;
    double check_error;
    t2_error err;
};

static void run_free(struct run *r)
{
    run_experts_free(&r->adapted, r->session);
    t2_session_destroy(r->session);
    cli_mask_free(&r->mask);
    cli_ids_free(&r->ids);
    free(r->logits);
    free(r->experts);
    free(r->seconds);
    t2_model_close(r->model);
}

/* ---- forward pass over ids ------------------------------------------------------------------ */

static int read_inputs(struct run *r)
{
    if (cli_ids_read(r->options.ids, &r->ids, &r->err) != T2_OK) {
        return t2_cli_error(&r->err);
    }
    const char *mask = r->options.mask;
    if (mask == NULL) {
        mask = r->config->mask == T2_MODEL_MASK_CAUSAL ? "causal" : "none";
    }
    if (cli_mask_read(mask, r->ids.L, r->ids.N, r->config->heads, &r->mask, &r->err) != T2_OK) {
        return t2_cli_error(&r->err);
    }
    size_t count, bytes;
    if (__builtin_mul_overflow((size_t)(r->ids.L * r->ids.N), (size_t)r->config->vocab_size,
                               &count) ||
        __builtin_mul_overflow(count, sizeof(float), &bytes)) {
        return t2_cli_fail(T2_EXIT_MEMORY, "%s: logits of (%lld, %lld, %lld) overflow",
                           r->options.ids, (long long)r->ids.L, (long long)r->ids.N,
                           (long long)r->config->vocab_size);
    }
    r->logits = malloc(bytes > 0 ? bytes : 1);
    r->seconds = malloc((size_t)r->options.repeat * sizeof(double));
    if (r->logits == NULL || r->seconds == NULL) {
        return t2_cli_fail(T2_EXIT_MEMORY, "out of memory for logits of %zu bytes", bytes);
    }
    return -1;
}

static int forward(struct run *r)
{
    t2_forward_args args = {.size = sizeof args,
                            .ids = r->ids.ids,
                            .length = r->ids.L,
                            .items = r->ids.N,
                            .mask = r->mask.mask,
                            .expert = r->options.expert,
                            .training = r->options.training,
                            .seed = r->options.seed,
                            .threads = (int)r->options.threads,
                            .logits = r->logits,
                            .experts = r->experts,
                            .expert_rows = r->adapted.expert_rows};
    r->threads = t2_forward_threads(r->config, r->ids.L, r->ids.N, args.threads);
    for (int64_t i = 0; i < r->options.repeat; i++) {
        double start = t2_cli_now();
        if (t2_forward(r->session, &args, &r->err) != T2_OK) {
            return t2_cli_error(&r->err);
        }
        r->seconds[i] = t2_cli_now() - start;
    }
    return -1;
}

/* The shape of the result: as ids, with the vocabulary behind it. */
static int logits_shape(const struct run *r, int64_t shape[3])
{
    int rank = 0;
    shape[rank++] = r->ids.L;
    if (r->ids.rank == 2) {
        shape[rank++] = r->ids.N;
    }
    shape[rank++] = r->config->vocab_size;
    return rank;
}

/* "10, 32, 1000" */
static const char *shape_text(const struct run *r, char text[72])
{
    int64_t shape[3];
    int used = 0, rank = logits_shape(r, shape);
    for (int i = 0; i < rank; i++) {
        used += snprintf(text + used, 72 - (size_t)used, "%s%lld", i > 0 ? ", " : "",
                         (long long)shape[i]);
    }
    return text;
}

static int write_logits(struct run *r)
{
    int64_t shape[3];
    int rank = logits_shape(r, shape);
    t2_tensor tensor = {"logits", T2_F32, rank, shape, r->logits, 0};
    tensor.bytes = (size_t)t2_tensor_elements(&tensor) * sizeof(float);
    if (t2_safetensors_write(r->options.out, &tensor, 1, NULL, 0, &r->err) != T2_OK) {
        return t2_cli_error(&r->err);
    }
    return -1;
}

/* max|got - ref| / max|ref| where both are finite; infinite where NaNs or infinities differ. */
static double relative_error(const float *got, const float *ref32, const double *ref64, size_t n)
{
    double worst = 0.0, largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        double g = (double)got[i], x = ref64 != NULL ? ref64[i] : (double)ref32[i];
        if (isnan(g) && isnan(x)) {
            continue;
        }
        if (!isfinite(g) || !isfinite(x)) {
            if (!(g == x)) {
                return HUGE_VAL;
            }
            continue;
        }
        worst = fmax(worst, fabs(g - x));
        largest = fmax(largest, fabs(x));
    }
    return largest > 0.0 ? worst / largest : worst;
}

static t2_status compare(struct run *r, t2_safetensors *file)
{
    const t2_tensor *t = t2_safetensors_find(file, "logits");
    int64_t shape[3];
    int rank = logits_shape(r, shape);
    int same = t != NULL && t->rank == rank;
    for (int i = 0; same && i < rank; i++) {
        same = t->shape[i] == shape[i];
    }
    if (!same || (t->dtype != T2_F32 && t->dtype != T2_F64)) {
        char text[72], found[96] = "none";
        if (t != NULL) {
            cli_describe_tensor(t, found, sizeof found);
        }
        r->err.status = T2_ERR_FORMAT;
        snprintf(r->err.message, sizeof r->err.message,
                 "%.240s: tensor 'logits': expected F32 or F64 of shape (%s), found %s",
                 r->options.check, shape_text(r, text), found);
        return r->err.status;
    }
    const float *ref32 = NULL;
    const double *ref64 = NULL;
    t2_status status = t->dtype == T2_F32 ? t2_safetensors_f32(file, t, &ref32, &r->err)
                                          : t2_safetensors_f64(file, t, &ref64, &r->err);
    if (status == T2_OK) {
        r->check_error = relative_error(r->logits, ref32, ref64, (size_t)t2_tensor_elements(t));
    }
    return status;
}

static int check_logits(struct run *r)
{
    t2_safetensors *file;
    if (t2_safetensors_open(r->options.check, 0, &file, &r->err) != T2_OK) {
        return t2_cli_error(&r->err);
    }
    t2_status status = compare(r, file);
    t2_safetensors_close(file);
    return status == T2_OK ? -1 : t2_cli_error(&r->err);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_experts(FILE *out, const struct run *r, const char *separator)
{
    if (r->adapted.adaptation != NULL && separator[0] == ' ') {
        fprintf(out, "from files");
        return;
    }
    for (int64_t i = 0; i < r->config->num_layers; i++) {
        fprintf(out, "%s%d", i > 0 ? separator : "", r->experts[i]);
    }
}

static void report_forward(struct run *r)
{
    size_t repeat = (size_t)r->options.repeat;
    qsort(r->seconds, repeat, sizeof r->seconds[0], ascending);
    double median = r->seconds[repeat / 2];
    double rate = t2_forward_flops(r->config, r->ids.L, r->ids.N) / median;
    double peak = repeat > 1 ? t2_cli_measure_peak(r->threads) : 0.0;
    int64_t shape[3];
    int rank = logits_shape(r, shape);
    uint64_t print = t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, rank, shape, r->logits);

    fprintf(stderr, "isa %s, %d thread%s, experts ", t2k_isa_name(), r->threads,
            r->threads == 1 ? "" : "s");
    print_experts(stderr, r, " ");
    fprintf(stderr, "\n%s%.3f ms, %.1f GFLOP/s", repeat > 1 ? "median " : "", 1e3 * median,
            1e-9 * rate);
    if (peak > 0.0) {
        fprintf(stderr, " (%.0f%% of the FMA peak of %.0f GFLOP/s; fastest of %zu: %.3f ms)",
                100.0 * rate / peak, 1e-9 * peak, repeat, 1e3 * r->seconds[0]);
    }
    fprintf(stderr, "\nfingerprint %016llx\n", (unsigned long long)print);
    if (r->options.check != NULL) {
        fprintf(stderr, "check: error %.2e, tolerance %.2e: %s\n", r->check_error, r->options.tol,
                r->check_error <= r->options.tol ? "ok" : "FAILED");
    }
    char text[72];
    if (!r->options.json) {
        printf("Transformer2 Model Output Shape: [%s]\n", shape_text(r, text));
        return;
    }
    printf("{\"isa\":\"%s\",\"threads\":%d,\"shape\":[%s", t2k_isa_name(), r->threads,
           shape_text(r, text));
    printf("],\"experts\":[");
    print_experts(stdout, r, ",");
    printf("],\"repeat\":%zu,\"seconds\":%.9g,\"gflops\":%.6g,\"fingerprint\":\"%016llx\"", repeat,
           median, 1e-9 * rate, (unsigned long long)print);
    if (peak > 0.0) {
        printf(",\"peak_gflops\":%.6g", 1e-9 * peak);
    }
    if (r->options.check != NULL) {
        /* JSON has no infinity: a result that cannot be compared has the error null. */
        printf(",\"check\":{\"error\":");
        isfinite(r->check_error) ? printf("%.9g", r->check_error) : printf("null");
        printf(",\"tolerance\":%.9g,\"ok\":%s}", r->options.tol,
               r->check_error <= r->options.tol ? "true" : "false");
    }
    printf("}\n");
}

/* The reference of --check may be replaced; what else was read may not. */
static int refuse_inputs(const run_options *o)
{
    const char *inputs[] = {o->ids, o->factors, o->per_row};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        if (o->out != NULL && inputs[i] != NULL && t2_same_file(inputs[i], o->out)) {
            return t2_cli_fail(T2_EXIT_USAGE, "run: --out %s is a file that is read", o->out);
        }
    }
    return -1;
}

static int run_ids(struct run *r)
{
    int code = refuse_inputs(&r->options);
    code = code < 0 ? read_inputs(r) : code;
    if (code < 0) {
        code = run_experts_open(&r->adapted, &r->options, r->model, r->session, r->ids.L, r->ids.N);
    }
    if (code < 0) {
        code = forward(r);
    }
    /* The reference first: --out may name the same file, and nothing is written where the check
     * cannot be done. */
    if (code < 0 && r->options.check != NULL) {
        code = check_logits(r);
    }
    if (code < 0 && r->options.out != NULL) {
        code = write_logits(r);
    }
    if (code >= 0) {
        return code;
    }
    report_forward(r);
    return r->options.check == NULL || r->check_error <= r->options.tol ? T2_EXIT_OK
                                                                        : T2_EXIT_CHECK;
}

/* ---- continuation of a prompt --------------------------------------------------------------- */

struct printer {
    const t2_vocab *vocab;
    int quiet; /* --json prints the text at the end */
};

static int print_token(void *arg, int64_t token, int64_t position)
{
    (void)position;
    const struct printer *printer = arg;
    if (!printer->quiet) {
        fputs(t2_cli_token_text(printer->vocab, token), stdout);
        fflush(stdout);
    }
    return 0;
}

static void report_prompt(const struct run *r, const t2_vocab *vocab, const int64_t *tokens,
                          int64_t count, double seconds)
{
    uint64_t print =
        t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, tokens, (size_t)count * sizeof tokens[0]);
    if (!r->options.json) {
        printf("\n");
    }
    fflush(stdout);
    fprintf(stderr, "isa %s, %d thread%s, experts ", t2k_isa_name(), r->threads,
            r->threads == 1 ? "" : "s");
    print_experts(stderr, r, " ");
    fprintf(stderr, "\n%lld tokens in %.3f ms\nfingerprint %016llx\n", (long long)count,
            1e3 * seconds, (unsigned long long)print);
    if (!r->options.json) {
        return;
    }
    printf("{\"isa\":\"%s\",\"threads\":%d,\"prompt\":", t2k_isa_name(), r->threads);
    t2_cli_json_string(stdout, r->options.prompt);
    t2_text text = {0};
    t2_text_str(&text, "");
    for (int64_t i = 0; i < count; i++) {
        t2_text_str(&text, t2_cli_token_text(vocab, tokens[i]));
    }
    printf(",\"text\":");
    t2_cli_json_string(stdout, text.data != NULL ? text.data : "");
    t2_text_free(&text);
    printf(",\"tokens\":[");
    for (int64_t i = 0; i < count; i++) {
        printf("%s%lld", i > 0 ? "," : "", (long long)tokens[i]);
    }
    printf("],\"experts\":[");
    print_experts(stdout, r, ",");
    printf("],\"seconds\":%.9g,\"fingerprint\":\"%016llx\"}\n", seconds, (unsigned long long)print);
}

static int generate(struct run *r, const t2_vocab *vocab, int64_t *ids, int64_t length,
                    int64_t *tokens)
{
    struct printer printer = {vocab, r->options.json};
    int64_t count = 0;
    t2_generate_args args = {.size = sizeof args,
                             .prompt = ids,
                             .prompt_length = length,
                             .max_new = r->options.count,
                             .end = t2_vocab_end(vocab),
                             .temperature = r->options.temp,
                             .seed = r->options.seed,
                             .expert = r->options.expert,
                             .threads = (int)r->options.threads,
                             .on_token = print_token,
                             .on_token_arg = &printer,
                             .tokens = tokens,
                             .count = &count,
                             .experts = r->experts};
    r->threads = t2_forward_threads(r->config, length, 1, args.threads);
    double start = t2_cli_now();
    t2_status status = t2_generate(r->session, &args, &r->err);
    double seconds = t2_cli_now() - start;
    if (status != T2_OK) {
        if (count > 0 && !r->options.json) {
            printf("\n");
        }
        return t2_cli_error(&r->err);
    }
    report_prompt(r, vocab, tokens, count, seconds);
    return T2_EXIT_OK;
}

static int run_prompt(struct run *r)
{
    if (r->config->mask != T2_MODEL_MASK_CAUSAL) {
        return t2_cli_fail(T2_EXIT_MODEL,
                           "%s: --prompt needs a causal model (config.json: \"mask\": \"causal\")",
                           r->options.model);
    }
    t2_vocab *vocab;
    if (t2_vocab_open(r->options.model, r->config->vocab_size, &vocab, &r->err) != T2_OK) {
        return t2_cli_error(&r->err);
    }
    int code = T2_EXIT_MEMORY;
    int64_t length = 0;
    int64_t *ids = NULL, *tokens = NULL;
    if (t2_vocab_encode(vocab, r->options.prompt, NULL, 0, &length, &r->err) != T2_OK) {
        code = t2_cli_error(&r->err);
    } else {
        ids = malloc(((size_t)length + 1) * sizeof(int64_t));
        tokens = malloc((size_t)r->options.count * sizeof(int64_t));
        if (ids == NULL || tokens == NULL) {
            t2_cli_fail(code, "out of memory for %lld tokens", (long long)r->options.count);
        } else if (length > 0 && t2_vocab_encode(vocab, r->options.prompt, ids, length, &length,
                                                 &r->err) != T2_OK) {
            code = t2_cli_error(&r->err);
        } else {
            code = run_experts_open(&r->adapted, &r->options, r->model, r->session,
                                    length + r->options.count, 1);
            code = code < 0 ? generate(r, vocab, ids, length, tokens) : code;
        }
    }
    free(ids);
    free(tokens);
    t2_vocab_close(vocab);
    return code;
}

int t2_cli_run(int argc, char **argv)
{
    struct run r = {.model = NULL};
    int code = run_options_parse(argc, argv, &r.options);
    if (code >= 0) {
        return code;
    }
    if (t2_model_open(r.options.model, 0, &r.model, &r.err) != T2_OK) {
        return t2_cli_error(&r.err);
    }
    r.config = t2_model_config(r.model);
    if (t2_model_ignored_keys(r.model)[0] != '\0') {
        fprintf(stderr, "t2: %s/config.json: ignored keys: %s\n", r.options.model,
                t2_model_ignored_keys(r.model));
    }
    r.experts = malloc(((size_t)r.config->num_layers + 1) * sizeof(int));
    if (r.experts == NULL) {
        code = t2_cli_fail(T2_EXIT_MEMORY, "out of memory");
    } else if (t2_session_create(r.model, 0, &r.session, &r.err) != T2_OK) {
        code = t2_cli_error(&r.err);
    } else {
        code = r.options.prompt != NULL ? run_prompt(&r) : run_ids(&r);
    }
    run_free(&r);
    return code;
}
