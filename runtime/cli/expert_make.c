/* t2 expert: the actions that write a file. */
#include "expert.h"
#include "input.h"
#include "io/file.h"

#include <stdlib.h>
#include <string.h>

/* What an action holds; make_free() releases it whatever has been reached. */
struct make {
    t2_factors *factors;
    t2_model *model;
    cli_experts from;
    t2_expert *made;
    char *name;
    t2_error err;
};

static void make_free(struct make *m)
{
    t2_expert_release(m->made);
    cli_experts_free(&m->from);
    t2_factors_close(m->factors);
    t2_model_close(m->model);
    free(m->name);
}

/* "dir/maths.safetensors" is called maths. */
static char *name_of(const expert_options *o)
{
    const char *from = o->name;
    size_t n;
    if (from == NULL) {
        from = strrchr(o->out, '/') != NULL ? strrchr(o->out, '/') + 1 : o->out;
        const char *dot = strrchr(from, '.');
        n = dot != NULL && dot != from ? (size_t)(dot - from) : strlen(from);
    } else {
        n = strlen(from);
    }
    char *name = malloc(n + 1);
    if (name != NULL) {
        memcpy(name, from, n);
        name[n] = '\0';
    }
    return name;
}

/* Opens what the options name: -1, or the exit code. */
static int open_all(const expert_options *o, struct make *m)
{
    m->name = name_of(o);
    if (m->name == NULL) {
        return t2_cli_fail(T2_EXIT_MEMORY, "out of memory");
    }
    if (o->factors != NULL && t2_same_file(o->factors, o->out)) {
        return t2_cli_fail(T2_EXIT_USAGE, "%s: is the factor file", o->out);
    }
    if (o->factors != NULL &&
        t2_factors_open(o->factors, T2_FACTORS_VERIFY, &m->factors, &m->err) != T2_OK) {
        return t2_cli_error(&m->err);
    }
    return -1;
}

static int open_experts(const expert_options *o, struct make *m)
{
    for (int i = 0; i < o->count; i++) {
        if (cli_experts_add(&m->from, o->words[i], &m->err) != T2_OK) {
            return t2_cli_error(&m->err);
        }
    }
    return -1;
}

static int write_made(const expert_options *o, struct make *m)
{
    if (t2_expert_write(m->made, o->out, &m->err) != T2_OK) {
        return t2_cli_error(&m->err);
    }
    int64_t values = 0;
    for (int64_t i = 0; i < t2_expert_count(m->made); i++) {
        values += t2_expert_get(m->made, i)->size;
    }
    fprintf(stderr, "t2: wrote %s: %lld matrices, %lld values\n", o->out,
            (long long)t2_expert_count(m->made), (long long)values);
    return T2_EXIT_OK;
}

/* ---- new ------------------------------------------------------------------------------------ */

/* The form that the options describe; 0 with a message. */
static int read_form(const expert_options *o, t2_expert_form *form)
{
    static const char *const squashes[] = {"sigmoid", "identity", "relu-delta"};
    int channel = o->kind != NULL && strcmp(o->kind, "channel") == 0;
    const char *squash = o->squash != NULL ? o->squash : channel ? "identity" : "sigmoid";
    int which = -1;
    for (int i = 0; i < 3; i++) {
        which = strcmp(squashes[i], squash) == 0 ? i : which;
    }
    int kind_ok = o->kind == NULL || channel || strcmp(o->kind, "svf") == 0;
    int switch_ok = o->normaliser == NULL || strcmp(o->normaliser, "on") == 0 ||
                    strcmp(o->normaliser, "off") == 0;
    if (!kind_ok || which < 0 || !switch_ok) {
        t2_cli_fail(T2_EXIT_USAGE, "expert: '%s' is not a valid value in '%s'",
                    !kind_ok    ? o->kind
                    : which < 0 ? squash
                                : o->normaliser,
                    !kind_ok    ? "--kind"
                    : which < 0 ? "--squash"
                                : "--normaliser");
        return 0;
    }
    form->kind = channel ? T2_EXPERT_CHANNEL : T2_EXPERT_SVF;
    form->squash = (t2_squash)which;
    form->max_mult = (float)o->max_mult;
    form->strength = (float)o->strength;
    form->normalise = o->normaliser != NULL ? strcmp(o->normaliser, "on") == 0
                                            : !channel && which != T2_SQUASH_RELU_DELTA;
    return 1;
}

int expert_new(const expert_options *o)
{
    struct make m = {.factors = NULL};
    t2_expert_form form;
    if (!read_form(o, &form)) {
        return T2_EXIT_USAGE;
    }
    int channel = form.kind == T2_EXPERT_CHANNEL;
    if (channel ? o->model == NULL : o->factors == NULL) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert new: %s is needed; see 't2 expert --help'",
                           channel ? "--model" : "--factors");
    }
    int code = open_all(o, &m);
    if (code < 0 && channel && t2_model_open(o->model, 0, &m.model, &m.err) != T2_OK) {
        code = t2_cli_error(&m.err);
    }
    if (code < 0 && t2_expert_new(&form, m.name, m.factors, m.model, o->random, o->seed, &m.made,
                                  &m.err) != T2_OK) {
        code = t2_cli_error(&m.err);
    }
    code = code < 0 ? write_made(o, &m) : code;
    make_free(&m);
    return code;
}

/* ---- mix, scale ----------------------------------------------------------------------------- */

int expert_mix(const expert_options *o)
{
    struct make m = {.factors = NULL};
    t2_mix_rule rule = T2_MIX_ZEFF;
    if (o->rule != NULL && !cli_mix_rule(o->rule, &rule)) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert mix: '%s' is not a valid value in '--rule'",
                           o->rule);
    }
    int code = open_all(o, &m);
    code = code < 0 ? open_experts(o, &m) : code;
    if (code < 0 &&
        cli_experts_mix(&m.from, o->weights, m.factors, rule, m.name, &m.made, &m.err) != T2_OK) {
        code = t2_cli_error(&m.err);
    }
    code = code < 0 ? write_made(o, &m) : code;
    make_free(&m);
    return code;
}

int expert_scale(const expert_options *o)
{
    struct make m = {.factors = NULL};
    int code = open_all(o, &m);
    code = code < 0 ? open_experts(o, &m) : code;
    if (code < 0 && (m.from.count != 1 || m.from.alpha[0] != 1.0)) {
        code = t2_cli_fail(T2_EXIT_USAGE, "expert scale: one expert without a weight is expected");
    }
    if (code < 0 && t2_expert_scale(m.from.experts[0], m.factors, o->factor, m.name, &m.made,
                                    &m.err) != T2_OK) {
        code = t2_cli_error(&m.err);
    }
    code = code < 0 ? write_made(o, &m) : code;
    make_free(&m);
    return code;
}

/* ---- import --------------------------------------------------------------------------------- */

/* Lines of a text as strings; *text is cut up and must live as long. */
static char **lines_of(char *text, int64_t *count)
{
    int64_t n = 1;
    for (const char *p = text; *p != '\0'; p++) {
        n += *p == '\n';
    }
    char **lines = malloc((size_t)n * sizeof lines[0]);
    *count = 0;
    for (char *line = text; lines != NULL && line != NULL;) {
        char *end = strchr(line, '\n');
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0') {
            lines[(*count)++] = line;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return lines;
}

int expert_import(const expert_options *o)
{
    struct make m = {.factors = NULL};
    t2_import_args args = {.size = sizeof args, .prefix = o->prefix};
    char *text = NULL, **order = NULL;
    size_t size;
    if (!read_form(o, &args.form)) {
        return T2_EXIT_USAGE;
    }
    int code = open_all(o, &m);
    if (code < 0 && o->order != NULL) {
        if (cli_file_read(o->order, &text, &size, &m.err) != T2_OK) {
            code = t2_cli_error(&m.err);
        } else {
            order = lines_of(text, &args.order_count);
            code = order == NULL ? t2_cli_fail(T2_EXIT_MEMORY, "out of memory") : code;
        }
    }
    args.order = (const char *const *)order;
    args.factors = m.factors;
    args.name = m.name;
    if (code < 0 && t2_expert_import(o->words[0], &args, &m.made, &m.err) != T2_OK) {
        code = t2_cli_error(&m.err);
    }
    code = code < 0 ? write_made(o, &m) : code;
    free(order);
    free(text);
    make_free(&m);
    return code;
}

/* ---- merge ---------------------------------------------------------------------------------- */

int expert_merge(const expert_options *o)
{
    struct make m = {.factors = NULL};
    t2_mix_rule rule = T2_MIX_ZEFF;
    if (o->rule != NULL && !cli_mix_rule(o->rule, &rule)) {
        return t2_cli_fail(T2_EXIT_USAGE, "expert merge: '%s' is not a valid value in '--rule'",
                           o->rule);
    }
    int code = open_all(o, &m);
    code = code < 0 ? open_experts(o, &m) : code;
    const t2_expert *expert = code < 0 ? m.from.experts[0] : NULL;
    if (code < 0 && (cli_experts_mixed(&m.from, rule) || o->weights != NULL)) {
        if (cli_experts_mix(&m.from, o->weights, m.factors, rule, m.name, &m.made, &m.err) !=
            T2_OK) {
            code = t2_cli_error(&m.err);
        }
        expert = m.made;
    }
    if (code < 0 && t2_expert_merge(o->model, m.factors, expert, o->out, &m.err) != T2_OK) {
        code = t2_cli_error(&m.err);
    }
    if (code < 0) {
        fprintf(stderr, "t2: wrote %s\n", o->out);
        code = T2_EXIT_OK;
    }
    make_free(&m);
    return code;
}
