/* Weights of a mixture for each matrix, from text: lines "PATTERN w1 ... wK". */
#include "expert.h"
#include "input.h"
#include "io/error.h"
#include "io/text.h"
#include "svf/svf.h"

#include <stdlib.h>
#include <string.h>

/* Writes the weights of one line for all matrices that its pattern matches. */
static t2_status read_line(const char *where, char *line, const t2_factors *factors,
                           int64_t experts, double *alpha, t2_error *err)
{
    static const char blanks[] = " \t\r";
    char *rest = NULL, *pattern = strtok_r(line, blanks, &rest), shown[T2_SHOW];
    if (pattern == NULL || pattern[0] == '#') {
        return T2_OK;
    }
    int64_t matrices = t2_factors_count(factors), found = 0, matched = 0;
    double *weights = calloc((size_t)experts, sizeof weights[0]);
    if (weights == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for weights");
    }
    t2_status status = T2_OK;
    for (char *word; status == T2_OK && (word = strtok_r(NULL, blanks, &rest)) != NULL; found++) {
        if (found < experts && !t2_cli_double(word, -T2_MIX_LIMIT, T2_MIX_LIMIT, &weights[found])) {
            status = t2_fail(err, T2_ERR_ARG, "%s: expected a weight from -%g to %g, found '%.80s'",
                             where, T2_MIX_LIMIT, T2_MIX_LIMIT, t2_show(shown, word));
        }
    }
    if (status == T2_OK && found != experts) {
        status = t2_fail(err, T2_ERR_ARG,
                         "%s: expected %lld weights, one for each expert, found "
                         "%lld",
                         where, (long long)experts, (long long)found);
    }
    for (int64_t i = 0; status == T2_OK && i < matrices; i++) {
        if (t2_name_matches(pattern, t2_factors_get(factors, i)->name)) {
            matched++;
            for (int64_t k = 0; k < experts; k++) {
                alpha[k * matrices + i] = weights[k];
            }
        }
    }
    if (status == T2_OK && matched == 0) {
        status = t2_fail(err, T2_ERR_ARG, "%s: '%.120s' matches no matrix of the factors", where,
                         t2_show(shown, pattern));
    }
    free(weights);
    return status;
}

static t2_status read_lines(const char *path, char *text, const t2_factors *factors,
                            int64_t experts, double *alpha, t2_error *err)
{
    t2_status status = T2_OK;
    long long number = 1;
    for (char *line = text; line != NULL && status == T2_OK; number++) {
        char where[T2_SHOW + 40], shown[T2_SHOW];
        char *end = strchr(line, '\n');
        if (end != NULL) {
            *end = '\0';
        }
        snprintf(where, sizeof where, "%s: line %lld", t2_show(shown, path), number);
        status = read_line(where, line, factors, experts, alpha, err);
        line = end != NULL ? end + 1 : NULL;
    }
    return status;
}

t2_status cli_experts_mix(const cli_experts *from, const char *weights, const t2_factors *factors,
                          t2_mix_rule rule, const char *name, t2_expert **mixed, t2_error *err)
{
    const t2_expert *const *experts = (const t2_expert *const *)from->experts;
    if (weights == NULL) {
        return t2_expert_mix(factors, rule, experts, from->count, from->alpha, 0, name, mixed, err);
    }
    if (factors == NULL) {
        return t2_fail(err, T2_ERR_ARG, "--weights needs --factors: it names their matrices");
    }
    char *text = NULL;
    size_t size = 0, matrices = (size_t)t2_factors_count(factors);
    double *alpha = calloc((size_t)from->count * matrices + 1, sizeof alpha[0]);
    t2_status status = alpha != NULL ? cli_file_read(weights, &text, &size, err)
                                     : t2_fail(err, T2_ERR_NOMEM, "out of memory for weights");
    if (status == T2_OK && cli_is_safetensors(text, size)) {
        status = t2_fail(err, T2_ERR_ARG, "%s: expected lines of text, found a NUL", weights);
    }
    for (size_t i = 0; status == T2_OK && i < (size_t)from->count * matrices; i++) {
        alpha[i] = from->alpha[i / matrices];
    }
    if (status == T2_OK) {
        status = read_lines(weights, text, factors, from->count, alpha, err);
    }
    if (status == T2_OK) {
        status = t2_expert_mix(factors, rule, experts, from->count, alpha, 1, name, mixed, err);
    }
    free(alpha);
    free(text);
    return status;
}
