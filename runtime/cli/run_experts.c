/* Experts of t2 run: one for all rows (--expert), or another one for each row of the batch
 * (--expert-per-row). */
#include "run_experts.h"

#include "input.h"
#include "io/error.h"

#include <stdlib.h>
#include <string.h>

/* ---- a file of experts per row --------------------------------------------------------------- */

/* Index of the expert of that path in the list, added if it is new. */
static t2_status intern(run_experts *x, char ***paths, const char *path, int64_t *index,
                        t2_error *err)
{
    for (*index = 0; *index < x->from.count; (*index)++) {
        if (strcmp((*paths)[*index], path) == 0) {
            return T2_OK;
        }
    }
    char **larger = realloc(*paths, (size_t)(x->from.count + 1) * sizeof larger[0]);
    char *copy = malloc(strlen(path) + 1);
    *paths = larger != NULL ? larger : *paths;
    if (larger == NULL || copy == NULL) {
        free(copy);
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    strcpy(copy, path);
    larger[x->from.count] = copy;
    t2_status status = cli_experts_add_one(&x->from, path, 1.0, err);
    if (status != T2_OK) {
        free(copy);
    }
    return status;
}

/* One line's pairs of expert and weight. */
struct line {
    int64_t count;
    int64_t *experts;
    double *weights;
};

static t2_status parse_line(run_experts *x, char ***paths, char *text, struct line *line,
                            t2_error *err)
{
    size_t words = 1;
    for (const char *p = text; *p != '\0'; p++) {
        words += *p == ',';
    }
    line->experts = calloc(words, sizeof line->experts[0]);
    line->weights = calloc(words, sizeof line->weights[0]);
    if (line->experts == NULL || line->weights == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    if (strcmp(text, "-") == 0) {
        return T2_OK;
    }
    t2_status status = T2_OK;
    for (char *rest = text; rest != NULL && status == T2_OK;) {
        char *word = rest;
        rest = cli_expert_word(word, &line->weights[line->count]);
        status = intern(x, paths, word, &line->experts[line->count], err);
        line->count++;
    }
    return status;
}

/* Rows of the adaptation, one for each line that is not the base's. */
static t2_status place_lines(run_experts *x, const struct line *lines, int64_t L, int64_t N,
                             t2_error *err)
{
    x->alpha = calloc((size_t)(N * x->from.count) + 1, sizeof x->alpha[0]);
    x->expert_rows = malloc(((size_t)(L * N) + 1) * sizeof x->expert_rows[0]);
    if (x->alpha == NULL || x->expert_rows == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    for (int64_t n = 0; n < N; n++) {
        int64_t row = -1;
        if (lines[n].count > 0) {
            row = x->rows++;
            for (int64_t k = 0; k < lines[n].count; k++) {
                x->alpha[row * x->from.count + lines[n].experts[k]] += lines[n].weights[k];
            }
        }
        for (int64_t l = 0; l < L; l++) {
            x->expert_rows[l * N + n] = row;
        }
    }
    return T2_OK;
}

static t2_status read_lines(run_experts *x, const char *path, char *text, int64_t L, int64_t N,
                            t2_error *err)
{
    struct line *lines = calloc((size_t)N + 1, sizeof lines[0]);
    char **paths = NULL;
    int64_t n = 0;
    t2_status status = lines != NULL ? T2_OK : t2_fail(err, T2_ERR_NOMEM, "out of memory");
    for (char *at = text; status == T2_OK && *at != '\0';) {
        char *end = strchr(at, '\n');
        at[strcspn(at, "\r\n")] = '\0';
        if (n == N) {
            status = t2_fail(err, T2_ERR_ARG, "%s: more than %lld lines, one for each sequence",
                             path, (long long)N);
        } else {
            t2_error inner;
            status = parse_line(x, &paths, at, &lines[n++], &inner);
            if (status != T2_OK) {
                status = t2_fail(err, status, "%.160s: line %lld: %.300s", path, (long long)n,
                                 inner.message);
            }
        }
        at = end != NULL ? end + 1 : at + strlen(at);
    }
    if (status == T2_OK && n != N) {
        status = t2_fail(err, T2_ERR_ARG, "%s: %lld lines for %lld sequences", path, (long long)n,
                         (long long)N);
    }
    if (status == T2_OK) {
        status = place_lines(x, lines, L, N, err);
    }
    for (int64_t i = 0; lines != NULL && i < N; i++) {
        free(lines[i].experts);
        free(lines[i].weights);
    }
    for (int64_t k = 0; paths != NULL && k < x->from.count; k++) {
        free(paths[k]);
    }
    free(paths);
    free(lines);
    return status;
}

/* `expert` I32 (L, N): numbers of the experts that --expert names, -1 the base. */
static t2_status read_indices(run_experts *x, const t2_tensor *t, const char *path, int64_t L,
                              int64_t N, t2_error *err)
{
    if (t->dtype != T2_I32 || t->rank != 2 || t->shape[0] != L || t->shape[1] != N) {
        char found[96];
        cli_describe_tensor(t, found, sizeof found);
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: tensor expert: expected I32 of shape (%lld, %lld), found %s", path,
                       (long long)L, (long long)N, found);
    }
    x->rows = x->from.count;
    x->expert_rows = malloc(((size_t)(L * N) + 1) * sizeof x->expert_rows[0]);
    if (x->expert_rows == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    for (int64_t i = 0; i < L * N; i++) {
        int32_t index;
        memcpy(&index, (const char *)t->data + 4 * i, sizeof index);
        x->expert_rows[i] = index;
    }
    /* The weight that --expert gives each of them, and the rule, as for single experts. */
    int64_t K = x->from.count;
    x->alpha = calloc((size_t)(K * K) + 1, sizeof x->alpha[0]);
    if (x->alpha == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    for (int64_t k = 0; k < K; k++) {
        x->alpha[k * K + k] = x->from.alpha[k];
    }
    return T2_OK;
}

/* `alpha` F32 (L, N, K): each token a mixture of the K experts that --expert names. */
static t2_status read_alpha(run_experts *x, t2_safetensors *file, const t2_tensor *t,
                            const char *path, int64_t L, int64_t N, t2_error *err)
{
    if (t->dtype != T2_F32 || t->rank != 3 || t->shape[0] != L || t->shape[1] != N ||
        t->shape[2] != x->from.count) {
        char found[96];
        cli_describe_tensor(t, found, sizeof found);
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: tensor alpha: expected F32 of shape (%lld, %lld, %lld), found %s", path,
                       (long long)L, (long long)N, (long long)x->from.count, found);
    }
    const float *weights;
    t2_status status = t2_safetensors_f32(file, t, &weights, err);
    x->rows = L * N;
    x->alpha = malloc(((size_t)(x->rows * x->from.count) + 1) * sizeof x->alpha[0]);
    x->expert_rows = malloc(((size_t)x->rows + 1) * sizeof x->expert_rows[0]);
    if (x->alpha == NULL || x->expert_rows == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    for (int64_t i = 0; status == T2_OK && i < x->rows * x->from.count; i++) {
        x->alpha[i] = (double)weights[i];
    }
    for (int64_t i = 0; i < x->rows; i++) {
        x->expert_rows[i] = i;
    }
    return status;
}

static t2_status read_per_row(run_experts *x, const char *path, int64_t L, int64_t N, t2_error *err)
{
    char *text;
    size_t size;
    t2_status status = cli_file_read(path, &text, &size, err);
    if (status != T2_OK) {
        return status;
    }
    t2_safetensors *file = NULL;
    if (cli_is_safetensors(text, size)) {
        status = t2_safetensors_open_memory(path, text, size, &file, err);
        const t2_tensor *index = file != NULL ? t2_safetensors_find(file, "expert") : NULL;
        const t2_tensor *alpha = file != NULL ? t2_safetensors_find(file, "alpha") : NULL;
        if (status == T2_OK && (index == NULL) == (alpha == NULL)) {
            status = t2_fail(err, T2_ERR_FORMAT, "%s: expected one of the tensors expert and alpha",
                             path);
        } else if (status == T2_OK && x->from.count == 0) {
            status = t2_fail(err, T2_ERR_ARG, "%s: --expert names the experts it speaks of", path);
        } else if (status == T2_OK) {
            status = index != NULL ? read_indices(x, index, path, L, N, err)
                                   : read_alpha(x, file, alpha, path, L, N, err);
        }
        t2_safetensors_close(file);
    } else if (x->from.count > 0) {
        status =
            t2_fail(err, T2_ERR_ARG, "%s names its experts itself: --expert is not needed", path);
    } else {
        status = read_lines(x, path, text, L, N, err);
    }
    free(text);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static t2_status adapt(run_experts *x, const run_options *o, int64_t L, int64_t N, t2_error *err)
{
    t2_adapt_args args = {.size = sizeof args,
                          .experts = (const t2_expert *const *)x->from.experts,
                          .count = x->from.count,
                          .way = o->way,
                          .rule = o->rule,
                          .components = o->components,
                          .workload = {L * N, 1.0 / (double)o->repeat, x->expert_rows != NULL}};
    if (x->alpha != NULL) {
        args.alpha = x->alpha;
        args.rows = x->rows;
    } else if (x->expert_rows == NULL && cli_experts_mixed(&x->from, o->rule)) {
        args.alpha = x->from.alpha;
        args.rows = 1;
    }
    return t2_adaptation_create(x->adapter, &args, &x->adaptation, err);
}

/* The experts of --expert become one, with weights for each matrix. */
static t2_status mix_by_weights(run_experts *x, const run_options *o, t2_error *err)
{
    t2_expert *mixed;
    t2_status status =
        cli_experts_mix(&x->from, o->weights, x->factors, o->rule, "mixture", &mixed, err);
    if (status == T2_OK) {
        while (x->from.count > 0) {
            t2_expert_release(x->from.experts[--x->from.count]);
        }
        x->from.experts[0] = mixed;
        x->from.alpha[0] = 1.0;
        x->from.count = 1;
    }
    return status;
}

int run_experts_open(run_experts *x, const run_options *o, const t2_model *model,
                     t2_session *session, int64_t L, int64_t N)
{
    t2_error err;
    t2_status status = T2_OK;
    if (o->expert_files == NULL && o->per_row == NULL) {
        return -1;
    }
    if (o->factors != NULL) {
        status = t2_factors_open(o->factors, T2_FACTORS_VERIFY, &x->factors, &err);
    }
    if (status == T2_OK && o->expert_files != NULL) {
        status = cli_experts_add(&x->from, o->expert_files, &err);
    }
    if (status == T2_OK && o->weights != NULL) {
        status = mix_by_weights(x, o, &err);
    }
    if (status == T2_OK && o->per_row != NULL) {
        status = read_per_row(x, o->per_row, L, N, &err);
    }
    if (status == T2_OK && x->from.count == 0) { /* lines that all name the base */
        free(x->expert_rows);
        x->expert_rows = NULL;
        return -1;
    }
    if (status == T2_OK) {
        status = t2_adapter_create(model, x->factors, 0, &x->adapter, &err);
    }
    if (status == T2_OK) {
        status = adapt(x, o, L, N, &err);
    }
    if (status == T2_OK) {
        status = t2_adapter_swap(x->adapter, x->adaptation, &err);
    }
    if (status == T2_OK) {
        status = t2_session_attach(session, x->adapter, &err);
    }
    if (status != T2_OK) {
        return t2_cli_error(&err);
    }
    if (o->explain) {
        run_experts_explain(stderr, x);
    }
    return -1;
}

void run_experts_free(run_experts *x, t2_session *session)
{
    if (session != NULL) {
        t2_session_attach(session, NULL, NULL);
    }
    t2_adaptation_release(x->adaptation);
    t2_adapter_destroy(x->adapter);
    t2_factors_close(x->factors);
    cli_experts_free(&x->from);
    free(x->expert_rows);
    free(x->alpha);
}

static void print_cost(FILE *out, double ns)
{
    if (ns < 0.0) {
        fprintf(out, " %10s", "-");
    } else {
        fprintf(out, " %10.1f", 1e-3 * ns);
    }
}

void run_experts_explain(FILE *out, const run_experts *x)
{
    fprintf(out, "%-44s %6s %6s %6s %8s  %-9s %10s %10s %10s  %s\n", "matrix", "m", "n", "r",
            "changed", "way", "rebuild us", "factored", "delta", "left out");
    for (int64_t i = 0; i < t2_adaptation_plan_count(x->adaptation); i++) {
        const t2_plan_entry *e = t2_adaptation_plan(x->adaptation, i);
        fprintf(out, "%-44s %6lld %6lld %6lld %8lld  %-9s", e->name, (long long)e->m,
                (long long)e->n, (long long)e->r, (long long)e->changed,
                e->way == T2_WAY_PLAN ? "base" : t2_way_str(e->way));
        for (int w = 0; w < 3; w++) {
            print_cost(out, e->cost[w]);
        }
        fprintf(out, "  %.3g\n", e->error_bound);
    }
    fprintf(out, "expected costs of a call in microseconds, a swap's share included\n");
}
