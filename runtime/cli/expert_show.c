/* t2 expert: the actions that look at experts. */
#include "expert.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *kind_of(const t2_expert_form *form)
{
    return form->kind == T2_EXPERT_SVF ? "SVF" : "CHANNEL";
}

static const char *squash_of(const t2_expert_form *form)
{
    static const char *const names[] = {"sigmoid", "identity", "relu-delta"};
    return names[form->squash];
}

static int64_t values_of(const t2_expert *expert)
{
    int64_t values = 0;
    for (int64_t i = 0; i < t2_expert_count(expert); i++) {
        values += t2_expert_get(expert, i)->size;
    }
    return values;
}

/* Least, largest and root mean square deviation from 1 of scales. */
struct spread {
    double least, most, deviation;
};

static struct spread spread_of(int64_t n, const float *z)
{
    struct spread s = {HUGE_VAL, -HUGE_VAL, 0.0};
    for (int64_t i = 0; i < n; i++) {
        double x = (double)z[i];
        s.least = x < s.least ? x : s.least;
        s.most = x > s.most ? x : s.most;
        s.deviation += (x - 1.0) * (x - 1.0);
    }
    s.deviation = n > 0 ? sqrt(s.deviation / (double)n) : 0.0;
    return s;
}

/* Scales z of a vector, to free(); *c too. NULL with an error. */
static float *scales_of(const t2_expert *expert, const t2_factors *factors,
                        const t2_expert_vector *vector, double *c, t2_error *err)
{
    float *z = malloc((size_t)(vector->size + 1) * sizeof z[0]);
    if (z == NULL) {
        err->status = T2_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory");
        return NULL;
    }
    if (t2_expert_scales(expert, factors, t2_factors_find(factors, vector->name), NULL, z, NULL, c,
                         err) != T2_OK) {
        free(z);
        return NULL;
    }
    return z;
}

/* ---- show ----------------------------------------------------------------------------------- */

static void show_head(const t2_expert *expert, const char *path, int json)
{
    const t2_expert_form *form = t2_expert_get_form(expert);
    if (json) {
        printf("{\"file\":");
        t2_cli_json_string(stdout, path);
        printf(",\"name\":");
        t2_cli_json_string(stdout, t2_expert_name(expert));
        printf(
            ",\"kind\":\"%s\",\"squash\":\"%s\",\"max_mult\":%.9g,\"strength\":%.9g,"
            "\"normaliser\":%s,\"factors\":\"%s\",\"base\":\"%s\",\"values\":%lld,\"metadata\":{",
            kind_of(form), squash_of(form), (double)form->max_mult, (double)form->strength,
            form->normalise ? "true" : "false", t2_expert_factors_hash(expert),
            t2_expert_base_hash(expert), (long long)values_of(expert));
        for (size_t i = 0; i < t2_expert_metadata_count(expert); i++) {
            printf("%s", i > 0 ? "," : "");
            t2_cli_json_string(stdout, t2_expert_metadata(expert, i)->key);
            printf(":");
            t2_cli_json_string(stdout, t2_expert_metadata(expert, i)->value);
        }
        printf("},\"matrices\":[");
        return;
    }
    printf("%s\n  name        ", path);
    t2_cli_text(stdout, t2_expert_name(expert));
    printf("\n  kind        %s, squash %s", kind_of(form), squash_of(form));
    if (form->squash == T2_SQUASH_SIGMOID) {
        printf(" (max_mult %g)", (double)form->max_mult);
    } else if (form->squash == T2_SQUASH_RELU_DELTA) {
        printf(" (strength %g)", (double)form->strength);
    }
    printf(", normaliser %s\n  values      %lld in %lld matrices\n", form->normalise ? "on" : "off",
           (long long)values_of(expert), (long long)t2_expert_count(expert));
    if (t2_expert_factors_hash(expert)[0] != '\0') {
        printf("  factors     %s\n  base        %s\n", t2_expert_factors_hash(expert),
               t2_expert_base_hash(expert));
    }
    for (size_t i = 0; i < t2_expert_metadata_count(expert); i++) {
        printf("  ");
        t2_cli_text(stdout, t2_expert_metadata(expert, i)->key);
        printf(": ");
        t2_cli_text(stdout, t2_expert_metadata(expert, i)->value);
        printf("\n");
    }
}

static int show_vector(const t2_expert *expert, const t2_factors *factors, int64_t i, int json,
                       t2_error *err)
{
    const t2_expert_vector *vector = t2_expert_get(expert, i);
    struct spread p = spread_of(vector->size, vector->p);
    double c = 1.0;
    if (json) {
        printf("%s{\"name\":", i > 0 ? "," : "");
        t2_cli_json_string(stdout, vector->name);
        printf(",\"size\":%lld,\"least\":%.9g,\"most\":%.9g", (long long)vector->size, p.least,
               p.most);
    } else {
        printf("  ");
        t2_cli_text(stdout, vector->name);
        printf(": %lld values, %.4g to %.4g", (long long)vector->size, p.least, p.most);
    }
    if (factors != NULL) {
        float *z = scales_of(expert, factors, vector, &c, err);
        if (z == NULL) {
            return t2_cli_error(err);
        }
        struct spread s = spread_of(vector->size, z);
        printf(json ? ",\"c\":%.17g,\"z_least\":%.9g,\"z_most\":%.9g,\"rms_z_minus_1\":%.9g"
                    : "; c %.6g, z %.4g to %.4g, rms(z - 1) %.3g",
               c, s.least, s.most, s.deviation);
        free(z);
    }
    printf(json ? "}" : "\n");
    return -1;
}

static int show_file(const expert_options *o, const t2_factors *factors, const char *path)
{
    t2_expert *expert;
    t2_error err;
    if (t2_expert_open(path, &expert, &err) != T2_OK) {
        return t2_cli_error(&err);
    }
    int code = -1;
    if (factors != NULL && t2_expert_check(expert, factors, &err) != T2_OK) {
        code = t2_cli_error(&err);
    } else {
        const t2_factors *mine = t2_expert_get_form(expert)->kind == T2_EXPERT_SVF ? factors : NULL;
        show_head(expert, path, o->json);
        for (int64_t i = 0; i < t2_expert_count(expert) && code < 0; i++) {
            code = show_vector(expert, mine, i, o->json, &err);
        }
        if (o->json) {
            printf("]}\n");
        }
    }
    t2_expert_release(expert);
    return code;
}

int expert_show(const expert_options *o)
{
    t2_factors *factors = NULL;
    t2_error err;
    int code = -1;
    if (o->factors != NULL &&
        t2_factors_open(o->factors, T2_FACTORS_VERIFY, &factors, &err) != T2_OK) {
        return t2_cli_error(&err);
    }
    for (int i = 0; i < o->count && code < 0; i++) {
        code = show_file(o, factors, o->words[i]);
    }
    t2_factors_close(factors);
    return code < 0 ? T2_EXIT_OK : code;
}

/* ---- check ---------------------------------------------------------------------------------- */

int expert_check(const expert_options *o)
{
    t2_factors *factors;
    t2_error err;
    int worst = T2_EXIT_OK;
    if (t2_factors_open(o->factors, T2_FACTORS_VERIFY, &factors, &err) != T2_OK) {
        return t2_cli_error(&err);
    }
    for (int i = 0; i < o->count; i++) {
        t2_expert *expert = NULL;
        t2_status status = t2_expert_open(o->words[i], &expert, &err);
        if (status == T2_OK) {
            status = t2_expert_check(expert, factors, &err);
        }
        for (int64_t j = 0; status == T2_OK && j < t2_factors_count(factors) &&
                            t2_expert_get_form(expert)->kind == T2_EXPERT_SVF;
             j++) {
            status = t2_expert_scales(expert, factors, j, NULL, NULL, NULL, NULL, &err);
        }
        t2_expert_release(expert);
        if (status == T2_OK) {
            printf("%s: ok\n", o->words[i]);
        } else {
            worst = t2_cli_error(&err);
        }
    }
    t2_factors_close(factors);
    return worst;
}

/* ---- list ----------------------------------------------------------------------------------- */

/* Whatever its ending: a file says itself that it is an expert. */
static int is_candidate(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int expert_list(const expert_options *o)
{
    struct dirent **entries;
    const char *dir = o->words[0];
    int count = scandir(dir, &entries, is_candidate, alphasort), shown = 0;
    if (count < 0) {
        return t2_cli_fail(T2_EXIT_RUNTIME, "%s: cannot be read as a folder", dir);
    }
    printf(o->json ? "[" : "");
    for (int i = 0; i < count; i++) {
        size_t size = strlen(dir) + strlen(entries[i]->d_name) + 2;
        char *path = malloc(size);
        t2_expert *expert = NULL;
        t2_error err;
        if (path != NULL) {
            snprintf(path, size, "%s/%s", dir, entries[i]->d_name);
        }
        /* Other files may lie there too. */
        if (path != NULL && t2_expert_open(path, &expert, &err) == T2_OK) {
            const t2_expert_form *form = t2_expert_get_form(expert);
            if (o->json) {
                printf("%s{\"file\":", shown > 0 ? "," : "");
                t2_cli_json_string(stdout, path);
                printf(",\"name\":");
                t2_cli_json_string(stdout, t2_expert_name(expert));
                printf(",\"kind\":\"%s\",\"values\":%lld,\"factors\":\"%s\"}", kind_of(form),
                       (long long)values_of(expert), t2_expert_factors_hash(expert));
            } else {
                t2_cli_text(stdout, entries[i]->d_name);
                printf("  %s, %lld values, factors %.12s, ", kind_of(form),
                       (long long)values_of(expert), t2_expert_factors_hash(expert));
                t2_cli_text(stdout, t2_expert_name(expert));
                printf("\n");
            }
            shown++;
        }
        t2_expert_release(expert);
        free(path);
        free(entries[i]);
    }
    free(entries);
    printf(o->json ? "]\n" : "");
    return T2_EXIT_OK;
}

/* ---- diff ----------------------------------------------------------------------------------- */

/* Root mean square and largest difference of the scales of one matrix. */
static int diff_matrix(const t2_expert *const both[2], const t2_factors *factors, int64_t index,
                       int json, t2_error *err)
{
    const t2_factor *f = t2_factors_get(factors, index);
    float *z[2] = {NULL, NULL};
    int code = -1;
    double sum = 0.0, worst = 0.0, dot = 0.0, norm[2] = {0.0, 0.0};
    for (int i = 0; i < 2 && code < 0; i++) {
        z[i] = malloc((size_t)(f->r + 1) * sizeof z[i][0]);
        if (z[i] == NULL) {
            code = t2_cli_fail(T2_EXIT_MEMORY, "out of memory");
        } else if (t2_expert_scales(both[i], factors, index, NULL, z[i], NULL, NULL, err) !=
                   T2_OK) {
            code = t2_cli_error(err);
        }
    }
    for (int64_t j = 0; j < f->r && code < 0; j++) {
        double a = (double)z[0][j] - 1.0, b = (double)z[1][j] - 1.0, d = a - b;
        sum += d * d;
        worst = fabs(d) > worst ? fabs(d) : worst;
        dot += a * b;
        norm[0] += a * a;
        norm[1] += b * b;
    }
    if (code < 0) {
        double rms = f->r > 0 ? sqrt(sum / (double)f->r) : 0.0;
        double both_norms = sqrt(norm[0]) * sqrt(norm[1]);
        double cosine = both_norms > 0.0 ? dot / both_norms : 0.0;
        if (json) {
            printf("%s{\"name\":", index > 0 ? "," : "");
            t2_cli_json_string(stdout, f->name);
            printf(",\"rms\":%.9g,\"largest\":%.9g,\"cosine\":%.9g}", rms, worst, cosine);
        } else {
            t2_cli_text(stdout, f->name);
            printf(": rms %.4g, largest %.4g, cosine of (z - 1) %.3f\n", rms, worst, cosine);
        }
    }
    free(z[0]);
    free(z[1]);
    return code;
}

int expert_diff(const expert_options *o)
{
    t2_factors *factors = NULL;
    t2_expert *both[2] = {NULL, NULL};
    t2_error err;
    int code = -1;
    if (o->factors == NULL) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "expert diff: --factors is needed; see 't2 expert --help'");
    }
    if (t2_factors_open(o->factors, T2_FACTORS_VERIFY, &factors, &err) != T2_OK) {
        return t2_cli_error(&err);
    }
    for (int i = 0; i < 2 && code < 0; i++) {
        if (t2_expert_open(o->words[i], &both[i], &err) != T2_OK ||
            t2_expert_check(both[i], factors, &err) != T2_OK) {
            code = t2_cli_error(&err);
        } else if (t2_expert_get_form(both[i])->kind != T2_EXPERT_SVF) {
            code = t2_cli_fail(T2_EXIT_USAGE, "%s: expected an SVF expert", o->words[i]);
        }
    }
    if (code < 0 && o->json) {
        printf("[");
    }
    for (int64_t i = 0; i < t2_factors_count(factors) && code < 0; i++) {
        code = diff_matrix((const t2_expert *const *)both, factors, i, o->json, &err);
    }
    if (code < 0 && o->json) {
        printf("]\n");
    }
    t2_expert_release(both[0]);
    t2_expert_release(both[1]);
    t2_factors_close(factors);
    return code < 0 ? T2_EXIT_OK : code;
}
