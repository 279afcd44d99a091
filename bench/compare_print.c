/* What compare found, as a table for a terminal, in Markdown, or as JSON. */
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *compare_word(const struct compare *compare, const struct compare_pair *pair)
{
    switch (pair->verdict) {
    case COMPARE_IS_SLOWER:
        return compare->events & COMPARE_OTHER_PLACE ? "slower" : "regression";
    case COMPARE_IS_FASTER:
        return compare->events & COMPARE_OTHER_PLACE ? "faster" : "improvement";
    case COMPARE_FAILED:
        return "failed";
    default:
        return "alike";
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

enum { COLUMNS = 7, CELL = 2 * RESULT_NAME + 8 };
static const char *const heading[COLUMNS] = {"row",   "verdict",       "baseline", "this file",
                                             "ratio", "95 % interval", "of minima"};

static void put_time(char cell[CELL], double ns)
{
    static const char *const unit[] = {"ns", "us", "ms", "s"};
    int i = 0;
    while (ns >= 999.95 && i < 3) {
        ns /= 1000.0;
        i++;
    }
    snprintf(cell, CELL, "%.*f %s", ns < 99.995 ? 2 : 1, ns, unit[i]);
}

static void put_cells(const struct compare *c, const struct compare_pair *pair,
                      char cell[COLUMNS][CELL])
{
    if (strcmp(pair->a->name, pair->b->name) == 0) {
        snprintf(cell[0], CELL, "%s", pair->a->name);
    } else {
        snprintf(cell[0], CELL, "%s -> %s", pair->a->name, pair->b->isa);
    }
    snprintf(cell[1], CELL, "%s", compare_word(c, pair));
    for (int i = 2; i < COLUMNS; i++) {
        snprintf(cell[i], CELL, "-");
    }
    if (pair->a->error == NULL) {
        put_time(cell[2], pair->a->median);
    }
    if (pair->b->error == NULL) {
        put_time(cell[3], pair->b->median);
    }
    if (pair->verdict != COMPARE_FAILED) {
        snprintf(cell[4], CELL, "%.3f", pair->ratio);
        snprintf(cell[5], CELL, "%.3f-%.3f", pair->low, pair->high);
        snprintf(cell[6], CELL, "%.3f%s", pair->ratio_min,
                 pair->a->noisy || pair->b->noisy ? " noisy" : "");
    }
}

/* Names to the left, numbers to the right; the last column is not padded. */
static void put_line(char cell[COLUMNS][CELL], const size_t *width, int markdown, t2_text *out)
{
    for (int i = 0; i < COLUMNS; i++) {
        int left = i < 2 || i == COLUMNS - 1;
        int pad = (int)width[i];
        t2_text_str(out, markdown ? "| " : i > 0 ? "  " : "");
        t2_text_printf(out, "%*s", left ? -pad : pad, cell[i]);
        t2_text_str(out, markdown ? " " : "");
    }
    while (!markdown && !out->failed && out->data[out->size - 1] == ' ') {
        out->data[--out->size] = '\0';
    }
    t2_text_str(out, markdown ? "|\n" : "\n");
}

static void put_heading(const size_t *width, int markdown, t2_text *out)
{
    char cell[COLUMNS][CELL];
    for (int i = 0; i < COLUMNS; i++) {
        snprintf(cell[i], CELL, "%s", heading[i]);
    }
    put_line(cell, width, markdown, out);
    if (markdown) {
        t2_text_str(out, "|--|--|--:|--:|--:|--:|--|\n");
    }
}

static int shown(const struct compare_pair *pair, int all)
{
    return all || pair->verdict != COMPARE_ALIKE;
}

static void put_rows(const struct compare *c, int all, int markdown, t2_text *out)
{
    char cell[COLUMNS][CELL];
    size_t width[COLUMNS] = {0};
    int rows = 0;
    for (int i = 0; i < COLUMNS; i++) {
        width[i] = strlen(heading[i]);
    }
    for (int i = 0; i < c->pairs; i++) {
        if (shown(&c->pair[i], all)) {
            put_cells(c, &c->pair[i], cell);
            for (int k = 0; k < COLUMNS; k++) {
                width[k] = strlen(cell[k]) > width[k] ? strlen(cell[k]) : width[k];
            }
            rows++;
        }
    }
    if (rows == 0) {
        return;
    }
    put_heading(width, markdown, out);
    for (int i = 0; i < c->pairs; i++) {
        if (shown(&c->pair[i], all)) {
            put_cells(c, &c->pair[i], cell);
            put_line(cell, width, markdown, out);
        }
    }
    t2_text_str(out, "\n");
}

/* Why rows have no times, and which ones computed other bits. */
static void put_notes(const struct compare *c, int markdown, t2_text *out)
{
    const char *bullet = markdown ? "- " : "";
    int notes = 0;
    for (int i = 0; i < c->pairs; i++) {
        const struct compare_pair *pair = &c->pair[i];
        const char *error[] = {pair->a->error, pair->b->error};
        for (int k = 0; k < 2; k++) {
            char text[T2_SHOW];
            if (error[k] != NULL) {
                t2_text_printf(out, "%s%s: failed in the %s: %s\n", bullet, pair->a->name,
                               k == 0 ? "baseline" : "other file", t2_show(text, error[k]));
                notes++;
            }
        }
        if (pair->other_bits) {
            t2_text_printf(out, "%s%s: computed different bits: %s, in the baseline %s\n", bullet,
                           pair->b->name, pair->b->fingerprint, pair->a->fingerprint);
            notes++;
        }
    }
    t2_text_str(out, notes > 0 ? "\n" : "");
}

void compare_table(const struct compare *compare, int all, int markdown, t2_text *out)
{
    const struct compare *c = compare;
    char a[T2_SHOW], b[T2_SHOW];
    t2_text_printf(
        out, markdown ? "### %s: %s\n\nBaseline: %s: %s\n\n" : "%s (%s)\nbaseline %s (%s)\n\n",
        t2_show(b, c->b->path), c->b->label, t2_show(a, c->a->path), c->a->label);
    put_rows(c, all, markdown, out);
    put_notes(c, markdown, out);
    static const char *const s[] = {"", "s"};
    int elsewhere = (c->events & COMPARE_OTHER_PLACE) != 0;
    t2_text_printf(out, "%d row%s compared: %d %s%s, %d %s%s, %d alike", c->timed, s[c->timed != 1],
                   c->slower, elsewhere ? "slower" : "regression", s[!elsewhere && c->slower != 1],
                   c->faster, elsewhere ? "faster" : "improvement", s[!elsewhere && c->faster != 1],
                   c->timed - c->slower - c->faster);
    if (c->failed > 0) {
        t2_text_printf(out, ", %d failed", c->failed);
    }
    if (c->only_a > 0) {
        t2_text_printf(out, ", %d missing", c->only_a);
    }
    if (c->only_b > 0) {
        t2_text_printf(out, ", %d new", c->only_b);
    }
    if (c->other_bits > 0) {
        t2_text_printf(out, ", %d with different bits", c->other_bits);
    }
    t2_text_printf(out, "; geometric mean of ratios %.3f\n", c->mean_ratio);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *pair_json(const struct compare *c, const struct compare_pair *pair)
{
    if (pair->verdict == COMPARE_FAILED) {
        return json_pack("{s:s, s:s, s:s, s:s?, s:s?}", "name", pair->b->name, "baseline_name",
                         pair->a->name, "verdict", compare_word(c, pair), "baseline_error",
                         pair->a->error, "error", pair->b->error);
    }
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:[f, f], s:f, s:f, s:f, s:b, s:b}", "name",
                     pair->b->name, "baseline_name", pair->a->name, "verdict",
                     compare_word(c, pair), "baseline_median", pair->a->median, "median",
                     pair->b->median, "ratio", pair->ratio, "ratio_interval", pair->low, pair->high,
                     "ratio_of_minima", pair->ratio_min, "p", pair->p, "p_adjusted",
                     pair->p_adjusted, "noisy", pair->a->noisy || pair->b->noisy, "same_bits",
                     !pair->other_bits);
}

static json_t *warnings_json(const struct compare *c)
{
    json_t *list = json_array();
    const char *line = c->warnings.data;
    while (line != NULL && *line != '\0') {
        size_t length = strcspn(line, "\n");
        if (json_array_append_new(list, json_stringn(line, length)) != 0) {
            json_decref(list);
            return NULL;
        }
        line += length + (line[length] == '\n');
    }
    return list;
}

json_t *compare_json(const struct compare *compare, const struct compare_options *options)
{
    const struct compare *c = compare;
    char a[T2_SHOW], b[T2_SHOW];
    json_t *rows = json_array();
    for (int i = 0; i < c->pairs; i++) {
        if (json_array_append_new(rows, pair_json(c, &c->pair[i])) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return json_pack(
        "{s:s, s:s, s:f, s:f, s:[f, f], s:b, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:o}",
        "baseline", t2_show(a, c->a->path), "file", t2_show(b, c->b->path), "threshold",
        options->threshold, "alpha", options->alpha, "scatter", c->limit_low, c->limit_high,
        "by_shape", c->by_shape, "warnings", warnings_json(c), "compared", c->timed, "slower",
        c->slower, "faster", c->faster, "failed", c->failed, "missing", c->only_a, "new", c->only_b,
        "different_bits", c->other_bits, "mean_ratio", c->mean_ratio, "rows", rows);
}
