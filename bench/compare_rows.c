/* Which rows of two files belong together, and what their times say.
 *
 * The verdict of a row asks five things, none of which is enough alone (docs/decisions.md has the
 * figures):
 *   - Mann-Whitney's p, after Holm's correction over all rows, is below alpha: not chance;
 *   - the bootstrap interval of the ratio of medians excludes 1: the typical round changed;
 *   - the ratio of medians is beyond the threshold: it matters;
 *   - so is the ratio of minima: it is the code, not a neighbour that kept the machine busy;
 *   - both are beyond what the other rows scatter by: two runs of the same code differ by more than
 *     the rounds of either show, since memory lies elsewhere and the machine is in another mood. */
#include "compare.h"
#include "stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pairs ----------------------------------------------------------------------------------- */

static const char *active_isa(const struct results *results)
{
    const json_t *machine = json_object_get(results->context, "machine");
    return json_string_value(json_object_get(json_object_get(machine, "isa"), "active"));
}

/* Nonzero where `row` stands better for its shape than `other` does: the ISA in use, else the
 * faster one. */
static int preferred(const struct result_row *row, const struct result_row *other,
                     const char *active)
{
    int row_active = strcmp(row->isa, active) == 0, other_active = strcmp(other->isa, active) == 0;
    if (row_active != other_active) {
        return row_active;
    }
    return row->error == NULL && (other->error != NULL || row->median < other->median);
}

/* "sgemm/8x8x8/1/hot" -> number of the row that stands for it. NULL where memory ran out. */
static json_t *index_by_shape(const struct results *results)
{
    json_t *index = json_object();
    const char *active = active_isa(results);
    for (int i = 0; i < results->rows && index != NULL; i++) {
        const struct result_row *row = &results->row[i];
        char key[4 * RESULT_NAME];
        snprintf(key, sizeof key, "%s/%s/%d/%s", row->op, row->shape, row->threads, row->operands);
        const json_t *known = json_object_get(index, key);
        if (known != NULL && !preferred(row, &results->row[json_integer_value(known)], active)) {
            continue;
        }
        if (json_object_set_new(index, key, json_integer(i)) != 0) {
            json_decref(index);
            index = NULL;
        }
    }
    return index;
}

static int wanted(const struct result_row *row, const struct compare_options *options)
{
    return options->filter == NULL || regexec(options->filter, row->name, 0, NULL, 0) == 0;
}

static void add_pair(struct compare *c, const struct result_row *a, const struct result_row *b)
{
    c->pair[c->pairs++] = (struct compare_pair){.a = a, .b = b};
}

static void pair_by_name(struct compare *c, const struct compare_options *options)
{
    for (int i = 0; i < c->a->rows; i++) {
        const struct result_row *row = &c->a->row[i], *other = results_find(c->b, row->name);
        if (wanted(row, options)) {
            if (other != NULL) {
                add_pair(c, row, other);
            } else {
                c->only_a++;
            }
        }
    }
    for (int i = 0; i < c->b->rows; i++) {
        const struct result_row *row = &c->b->row[i];
        c->only_b += wanted(row, options) && results_find(c->a, row->name) == NULL;
    }
}

static int pair_by_shape(struct compare *c, const struct compare_options *options)
{
    json_t *of_a = index_by_shape(c->a), *of_b = index_by_shape(c->b), *value;
    const char *key;
    c->by_shape = 1;
    json_object_foreach(of_a, key, value)
    {
        const struct result_row *row = &c->a->row[json_integer_value(value)];
        const json_t *other = json_object_get(of_b, key);
        if (wanted(row, options)) {
            if (other != NULL) {
                add_pair(c, row, &c->b->row[json_integer_value(other)]);
            } else {
                c->only_a++;
            }
        }
    }
    json_object_foreach(of_b, key, value)
    {
        const struct result_row *row = &c->b->row[json_integer_value(value)];
        c->only_b += wanted(row, options) && json_object_get(of_a, key) == NULL;
    }
    int failed = of_a == NULL || of_b == NULL;
    json_decref(of_a);
    json_decref(of_b);
    return failed ? -1 : 0;
}

static int any_name_in_common(const struct compare *c)
{
    for (int i = 0; i < c->a->rows; i++) {
        if (results_find(c->b, c->a->row[i].name) != NULL) {
            return 1;
        }
    }
    return 0;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void measure(struct compare_pair *pair, uint64_t seed)
{
    const struct result_row *a = pair->a, *b = pair->b;
    pair->ratio = stats_median(b->samples, b->sample) / stats_median(a->samples, a->sample);
    pair->ratio_min = stats_min(b->samples, b->sample) / stats_min(a->samples, a->sample);
    struct stats_interval interval =
        stats_ratio_interval(a->samples, a->sample, b->samples, b->sample, seed);
    pair->low = interval.low;
    pair->high = interval.high;
    pair->p = stats_mann_whitney(a->samples, a->sample, b->samples, b->sample);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* z with P(standard normal > z) = tail, for 0 < tail < 1/2: by halving, to 1e-9 or so. */
static double normal_quantile(double tail)
{
    double low = 0.0, high = 40.0;
    for (int i = 0; i < 40; i++) {
        double middle = 0.5 * (low + high);
        if (0.5 * erfc(middle * sqrt(0.5)) > tail) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* How far rows that did not change scatter: fills c->limit_low and c->limit_high, between which one
 * of c->timed such rows comes out once in 1 / alpha comparisons. Rows count that are within 5 % or
 * the threshold; where fewer than 8 are, there is nothing to learn from them. */
static void find_scatter(struct compare *c, const struct compare_options *options, double *logs)
{
    double window = log1p(fmax(options->threshold, 0.05)), square = 0.0;
    int count = 0;
    for (int i = 0; i < c->pairs; i++) {
        if (c->pair[i].verdict != COMPARE_FAILED && fabs(log(c->pair[i].ratio)) <= window) {
            logs[count++] = log(c->pair[i].ratio);
        }
    }
    c->limit_low = c->limit_high = 1.0;
    if (count < 8) {
        return;
    }
    qsort(logs, (size_t)count, sizeof *logs, by_size);
    double middle = 0.5 * (logs[(count - 1) / 2] + logs[count / 2]);
    for (int i = 0; i < count; i++) {
        square += (logs[i] - middle) * (logs[i] - middle);
    }
    double reach = normal_quantile(fmin(0.4, options->alpha / c->timed)) * sqrt(square / count);
    c->limit_low = exp(middle - reach);
    c->limit_high = exp(middle + reach);
}

static enum compare_verdict judge(const struct compare *c, const struct compare_pair *pair,
                                  const struct compare_options *options)
{
    /* Faster is slower with the roles of the files exchanged. */
    double high = fmax(1.0 + options->threshold, c->limit_high);
    double low = fmin(1.0 / (1.0 + options->threshold), c->limit_low);
    if (!(pair->p_adjusted < options->alpha)) {
        return COMPARE_ALIKE;
    }
    if (pair->low > 1.0 && pair->ratio > high && pair->ratio_min > high) {
        return COMPARE_IS_SLOWER;
    }
    if (pair->high < 1.0 && pair->ratio < low && pair->ratio_min < low) {
        return COMPARE_IS_FASTER;
    }
    return COMPARE_ALIKE;
}

/* The smallest p that samples of these sizes can have: 2 / (number of ways to mix them). */
static double least_p(int nx, int ny)
{
    return 2.0 * exp(lgamma(nx + 1.0) + lgamma(ny + 1.0) - lgamma(nx + ny + 1.0));
}

static int test_all(struct compare *c, const struct compare_options *options)
{
    double *p = malloc(2 * ((size_t)c->pairs + 1) * sizeof *p);
    if (p == NULL) {
        return -1;
    }
    double *scratch = p + c->pairs + 1;
    for (int i = 0; i < c->pairs; i++) {
        struct compare_pair *pair = &c->pair[i];
        pair->verdict =
            pair->a->error != NULL || pair->b->error != NULL ? COMPARE_FAILED : COMPARE_ALIKE;
        if (pair->verdict != COMPARE_FAILED) {
            measure(pair, (uint64_t)i + 1);
            p[c->timed++] = pair->p;
        }
    }
    find_scatter(c, options, scratch);
    stats_holm(c->timed, p);
    while (c->rounds_needed < 1000 &&
           !(least_p(c->rounds_needed, c->rounds_needed) * c->timed < options->alpha)) {
        c->rounds_needed++;
    }
    for (int i = 0, k = 0; i < c->pairs; i++) {
        struct compare_pair *pair = &c->pair[i];
        if (pair->verdict != COMPARE_FAILED) {
            pair->p_adjusted = p[k++];
            pair->verdict = judge(c, pair, options);
            c->too_few +=
                !(least_p(pair->a->samples, pair->b->samples) * c->timed < options->alpha);
        }
    }
    free(p);
    return 0;
}

static void count(struct compare *c)
{
    double logs = 0.0;
    int missing = c->only_a;
    for (int i = 0; i < c->pairs; i++) {
        struct compare_pair *pair = &c->pair[i];
        c->slower += pair->verdict == COMPARE_IS_SLOWER;
        c->faster += pair->verdict == COMPARE_IS_FASTER;
        c->failed += pair->verdict == COMPARE_FAILED;
        missing += pair->b->error != NULL && pair->a->error == NULL;
        if (pair->verdict != COMPARE_FAILED) {
            logs += log(pair->ratio);
            pair->other_bits = strcmp(pair->a->fingerprint, pair->b->fingerprint) != 0;
            c->other_bits += pair->other_bits;
        }
    }
    c->mean_ratio = c->timed > 0 ? exp(logs / c->timed) : 1.0;
    c->events |= missing > 0 ? COMPARE_MISSING : 0u;
    c->events |= c->other_bits > 0 ? COMPARE_FINGERPRINT : 0u;
    c->events |= c->slower > 0 ? COMPARE_SLOWER : 0u;
    if (c->slower > 0 && (c->events & COMPARE_OTHER_PLACE) == 0) {
        c->events |= COMPARE_REGRESSION;
    }
}

/* ---- what the files differ in ---------------------------------------------------------------- */

static json_t *member(const struct results *results, const char *part, const char *key)
{
    json_t *object = json_object_get(results->context, part);
    return key != NULL ? json_object_get(object, key) : object;
}

/* A value as text, for a warning. */
static void show(const json_t *value, char shown[T2_SHOW])
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    const char *plain = json_is_string(value) ? json_string_value(value) : text;
    t2_show(shown, plain != NULL ? plain : "unknown");
    free(text);
}

/* A warning where part.key differs; then 1. */
static int differs(struct compare *c, const char *part, const char *key, const char *what)
{
    char in_a[T2_SHOW], in_b[T2_SHOW];
    const json_t *a = member(c->a, part, key), *b = member(c->b, part, key);
    if ((a == NULL && b == NULL) || json_equal(a, b)) {
        return 0;
    }
    show(a, in_a);
    show(b, in_b);
    t2_text_printf(&c->warnings, "another %s: %s, in the baseline %s\n", what, in_b, in_a);
    return 1;
}

/* Keys of machines without the ISA in use, which is looked at by itself. */
static int other_cpu(const struct compare *c)
{
    const char *a = c->a->key, *b = c->b->key;
    const char *end_a = strrchr(a, '-'), *end_b = strrchr(b, '-');
    size_t length_a = end_a != NULL ? (size_t)(end_a - a) : strlen(a);
    size_t length_b = end_b != NULL ? (size_t)(end_b - b) : strlen(b);
    return length_a != length_b || strncmp(a, b, length_a) != 0;
}

static void look_at_contexts(struct compare *c)
{
    if (other_cpu(c)) {
        t2_text_printf(&c->warnings, "another machine: %s, in the baseline %s\n", c->b->key,
                       c->a->key);
        c->events |= COMPARE_MACHINE;
    } else if (differs(c, "machine", "name", "machine") ||
               differs(c, "machine", "cpus", "number of CPUs")) {
        c->events |= COMPARE_MACHINE;
    }
    const char *isa_a = active_isa(c->a), *isa_b = active_isa(c->b);
    if (strcmp(isa_a, isa_b) != 0) {
        t2_text_printf(&c->warnings, "another ISA in use: %s, in the baseline %s\n", isa_b, isa_a);
        c->events |= COMPARE_ISA;
    }
    if (differs(c, "threads", "default", "default number of threads")) {
        c->events |= COMPARE_THREADS;
    }
    if (differs(c, "build", "compiler", "compiler") +
        differs(c, "build", "flags", "set of flags")) {
        c->events |= COMPARE_COMPILER;
    }
    differs(c, "environment", NULL, "environment");
    if (!c->a->complete || !c->b->complete) {
        t2_text_printf(&c->warnings, "%s: the run was interrupted\n",
                       c->a->complete   ? "incomplete"
                       : c->b->complete ? "the baseline is incomplete"
                                        : "both files are incomplete");
    }
}

static void look_at_isas(struct compare *c)
{
    int crossed = 0;
    for (int i = 0; i < c->pairs; i++) {
        crossed += strcmp(c->pair[i].a->isa, c->pair[i].b->isa) != 0;
    }
    if (crossed > 0) {
        t2_text_printf(&c->warnings, "rows are matched by shape: %d of %d pairs have two ISAs\n",
                       crossed, c->pairs);
        c->events |= COMPARE_ISA;
    }
}

static void look_at_rows(struct compare *c)
{
    if (c->failed > 0) {
        t2_text_printf(&c->warnings, "%d rows failed and are not compared\n", c->failed);
    }
    if (c->too_few > 0) {
        t2_text_printf(&c->warnings,
                       "%d of %d rows have too few rounds for a verdict among %d rows; "
                       "%d rounds in each file would do\n",
                       c->too_few, c->timed, c->timed, c->rounds_needed);
    }
    if (c->other_bits > 0) {
        t2_text_printf(&c->warnings, "%d of %d rows computed different bits\n", c->other_bits,
                       c->timed);
    }
}

int compare_files(const struct results *a, const struct results *b,
                  const struct compare_options *options, struct compare *compare)
{
    *compare = (struct compare){.a = a, .b = b, .rounds_needed = 1};
    compare->pair = calloc((size_t)a->rows + 1, sizeof *compare->pair);
    if (compare->pair == NULL) {
        return -1;
    }
    int by_shape = options->by == COMPARE_BY_SHAPE ||
                   (options->by == COMPARE_BY_NAME_OR_SHAPE && !any_name_in_common(compare));
    if (!by_shape) {
        pair_by_name(compare, options);
    } else if (pair_by_shape(compare, options) != 0) {
        return -1;
    }
    look_at_contexts(compare);
    look_at_isas(compare);
    if (test_all(compare, options) != 0) {
        return -1;
    }
    count(compare);
    look_at_rows(compare);
    return compare->warnings.failed ? -1 : 0;
}

void compare_free(struct compare *compare)
{
    free(compare->pair);
    t2_text_free(&compare->warnings);
    *compare = (struct compare){0};
}
