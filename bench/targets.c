/* Targets read from the text of a shape set. */
#include "targets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINE = 500 };

/* A name that has to fit, and be there. */
static int take_word(const char *word, char out[TARGET_WORD])
{
    size_t length = strlen(word);
    if (length == 0 || length >= TARGET_WORD) {
        return -1;
    }
    memcpy(out, word, length + 1);
    return 0;
}

/* A positive number; "93%" is 0.93 where `percent`. */
static int take_number(const char *text, int percent, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || strcmp(end, percent ? "%" : "") != 0 || !(value > 0.0 && value < 1e6)) {
        return -1;
    }
    *out = percent ? value / 100.0 : value;
    return 0;
}

static int take_ratio(const char *name, const char *value, int percent,
                      struct target_ratio list[TARGET_RATIOS], int *count)
{
    if (*count == TARGET_RATIOS || (name != NULL && take_word(name, list[*count].name) != 0) ||
        take_number(value, percent, &list[*count].value) != 0) {
        return -1;
    }
    (*count)++;
    return 0;
}

/* `key` is "x" or "x.torch", cut at the dot here. */
static int take_key(struct target *t, char *key, const char *value)
{
    char *dot = strchr(key, '.');
    const char *of = dot != NULL ? dot + 1 : NULL;
    if (dot != NULL) {
        *dot = '\0';
    }
    if (strcmp(key, "x") == 0) {
        return take_ratio(of, value, 0, t->peer, &t->peers);
    }
    if (strcmp(key, "own") == 0 && of != NULL) {
        return take_ratio(of, value, 0, t->own, &t->owns);
    }
    if (strcmp(key, "share") == 0) {
        return of != NULL ? take_ratio(of, value, 1, t->isa_share, &t->isa_shares)
                          : take_number(value, 1, &t->share);
    }
    return of != NULL                 ? -1
           : strcmp(key, "most") == 0 ? 0 /* bench_shapes_add_line() read it */
           : strcmp(key, "row") == 0  ? take_word(value, t->row)
           : strcmp(key, "isa") == 0  ? take_word(value, t->isa)
           : strcmp(key, "gain") == 0 ? take_number(value, 1, &t->gain)
           : strcmp(key, "mean") == 0 ? take_number(value, 0, &t->mean)
           : strcmp(key, "ns") == 0   ? take_number(value, 0, &t->ns)
                                      : -1;
}

/* line: without its comment. Nothing is added where it is blank. */
static int parse_line(struct targets *targets, const char *line, char *error, size_t size)
{
    char copy[MOST_LINE], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", line);
    struct target t = {.row = ""};
    if (bench_shapes_add_line(&t.shapes, copy, "targets", error, size) != 0) {
        bench_shapes_free(&t.shapes);
        return -1;
    }
    if (t.shapes.count == 0) {
        return 0;
    }
    snprintf(copy, sizeof copy, "%s", line);
    int at = 0, bad = 0;
    for (char *word = strtok_r(copy, " \t\r", &rest); word != NULL && !bad; at++) {
        char *equals = strchr(word, '=');
        if (at == 1 && word[0] == '@') {
            bad = take_word(word + 1, t.set) != 0;
        } else if (equals != NULL) {
            char key[MOST_LINE];
            snprintf(key, sizeof key, "%.*s", (int)(equals - word), word);
            bad = take_key(&t, key, equals + 1) != 0;
        }
        if (bad) {
            snprintf(error, size, "a target that cannot be read: %.80s", word);
        }
        word = strtok_r(NULL, " \t\r", &rest);
    }
    if (!bad && t.row[0] == '\0') {
        snprintf(error, size, "row=NAME is missing");
        bad = 1;
    }
    struct target *grown =
        bad ? NULL : realloc(targets->target, (size_t)(targets->count + 1) * sizeof *grown);
    if (grown == NULL) {
        bench_shapes_free(&t.shapes);
        if (!bad) {
            snprintf(error, size, "out of memory");
        }
        return -1;
    }
    targets->target = grown;
    targets->target[targets->count++] = t;
    return 0;
}

int targets_parse(const char *text, struct targets *targets, char *error, size_t size)
{
    memset(targets, 0, sizeof *targets);
    for (int number = 1; *text != '\0'; number++) {
        size_t length = strcspn(text, "\n"), used = strcspn(text, "#\n");
        char line[MOST_LINE], why[400] = "";
        int failed = used >= sizeof line;
        if (!failed) {
            memcpy(line, text, used);
            line[used] = '\0';
            failed = parse_line(targets, line, why, sizeof why) != 0;
        }
        if (failed) {
            snprintf(error, size, "line %d: %s", number, why[0] != '\0' ? why : "too long");
            targets_free(targets);
            return -1;
        }
        text += length + (text[length] == '\n');
    }
    return 0;
}

void targets_free(struct targets *targets)
{
    for (int i = 0; i < targets->count; i++) {
        bench_shapes_free(&targets->target[i].shapes);
    }
    free(targets->target);
    memset(targets, 0, sizeof *targets);
}

double target_share(const struct target *target, const char *isa)
{
    for (int i = 0; i < target->isa_shares; i++) {
        if (strcmp(target->isa_share[i].name, isa) == 0) {
            return target->isa_share[i].value;
        }
    }
    return target->share;
}
