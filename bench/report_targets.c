/* What a run reached of the targets, in markdown: a table for each instruction set and number of
 * threads, made from result files alone. */
#include "causes.h"
#include "limits.h"
#include "report.h"
#include "targets.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The FMA peak in GFLOP/s that a target in nanoseconds is meant for. */
#define NS_PEAK 102.4

/* One table. */
struct sheet {
    const struct results *results;
    const char *isa;
    int threads;
    struct causes *causes;
    t2_text *out;
    int met, missed, absent; /* targets; cases that were not measured */
    int unexplained;         /* of the missed */
};

/* What a line of the table is about, for its cause. */
struct subject {
    const char *row, *op, *shape;
};
static struct subject subject_of(const struct target *t, const struct problem *p)
{
    return (struct subject){t->row, p->op->name, p->shape};
}

#define HEAD                                                               \
    "| row | case | time | of limit | measured | target | met | cause |\n" \
    "|--|--|--|--|--|--|--|--|\n"

static const char *isa_name(const struct results *results, size_t i)
{
    json_t *list = report_get(results->context, "machine", "isa", "list", NULL);
    const char *name = json_string_value(json_object_get(json_array_get(list, i), "name"));
    return name != NULL ? name : "";
}

/* The row of an ISA; where it brings no kernel of its own, of the one that it inherits from. NULL
 * where there is none or it failed. */
static const struct result_row *find_row(const struct results *results, const char *op,
                                         const char *isa, const char *shape, int threads)
{
    const struct result_row *row = NULL;
    json_t *list = report_get(results->context, "machine", "isa", "list", NULL);
    size_t i = json_array_size(list);
    while (i > 0 && strcmp(isa_name(results, i - 1), isa) != 0) {
        i--;
    }
    for (; i > 1 && row == NULL; i--) { /* the scalar ISA stands for none but itself */
        char name[RESULT_NAME];
        snprintf(name, sizeof name, "%s/%s/%s/%d", op, isa_name(results, i - 1), shape, threads);
        row = results_find(results, name);
    }
    return row != NULL && row->error == NULL ? row : NULL;
}

static const struct result_row *find(const struct sheet *s, const char *op, const char *shape)
{
    return find_row(s->results, op, s->isa, shape, s->threads);
}

static const char *time_text(char text[32], double ns)
{
    const char *unit = ns < 1e3 ? "ns" : ns < 1e6 ? "us" : ns < 1e9 ? "ms" : "s";
    double scale = ns < 1e3 ? 1.0 : ns < 1e6 ? 1e-3 : ns < 1e9 ? 1e-6 : 1e-9;
    char number[32];
    snprintf(text, 32, "%s %s", report_number(number, ns * scale), unit);
    return text;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* Row of the table, case, time and share; the measure follows. */
static void start_line(const struct sheet *s, const struct target *t, const struct problem *p,
                       const struct result_row *row)
{
    char text[32];
    t2_text_printf(s->out, "| %s | ", t->row);
    report_cell(s->out, p->op->name);
    t2_text_printf(s->out, " %s | %s%s | ", p->shape, time_text(text, row->median),
                   row->noisy ? " ~" : "");
    if (row->limit != NULL) {
        t2_text_printf(s->out, "%.0f %% ", 100.0 * row->limit_share);
        report_cell(s->out, row->limit);
        t2_text_str(s->out, row->limit_share > BENCH_MOST_SHARE ? "?" : "");
    } else {
        t2_text_str(s->out, "-");
    }
    t2_text_str(s->out, " | ");
}

/* The last cell of a line: key and name are those of the target, such as "x" and "torch". */
static int put_cause(struct sheet *s, struct subject about, const char *key, const char *name)
{
    char threads[16], target[2 * TARGET_WORD];
    snprintf(threads, sizeof threads, "%d", s->threads);
    snprintf(target, sizeof target, "%s%s%s", key, name[0] != '\0' ? "." : "", name);
    const char *const word[CAUSE_WORDS] = {about.row, about.op, about.shape,
                                           s->isa,    threads,  target};
    const char *text = causes_find(s->causes, word);
    t2_text_str(s->out, " ");
    report_cell(s->out, text != NULL ? text : "");
    t2_text_str(s->out, " |\n");
    return text != NULL;
}

/* What was asked for, whether it holds, and why not. */
static __attribute__((format(printf, 6, 7))) void end_line(struct sheet *s, struct subject about,
                                                           const char *key, const char *name,
                                                           int met, const char *format, ...)
{
    char wanted[80];
    va_list args;
    va_start(args, format);
    vsnprintf(wanted, sizeof wanted, format, args);
    va_end(args);
    t2_text_printf(s->out, " | %s | %s |", wanted, met ? "yes" : "**no**");
    s->met += met;
    s->missed += !met;
    if (met) {
        t2_text_str(s->out, " |\n");
    } else {
        s->unexplained += !put_cause(s, about, key, name);
    }
}

/* The interval says whether a few percent mean anything. */
static void put_ratio(const struct sheet *s, const struct result_peer *peer)
{
    char a[32], b[32], c[32];
    t2_text_printf(s->out, "%sx (%s to %s) ", report_ratio(a, peer->ratio),
                   report_ratio(b, peer->ratio_low), report_ratio(c, peer->ratio_high));
    report_cell(s->out, peer->name);
}

static const struct result_peer *find_peer(const struct result_row *row, const char *name)
{
    const char *wanted = name[0] != '\0' ? name : row->best_peer;
    for (int i = 0; i < row->peers && wanted != NULL; i++) {
        if (strcmp(row->peer[i].name, wanted) == 0 && row->peer[i].error == NULL) {
            return &row->peer[i];
        }
    }
    return NULL;
}

static void put_peers(struct sheet *s, const struct target *t, const struct problem *p,
                      const struct result_row *row)
{
    for (int i = 0; i < t->peers; i++) {
        const struct result_peer *peer = find_peer(row, t->peer[i].name);
        start_line(s, t, p, row);
        if (peer != NULL) {
            put_ratio(s, peer);
            end_line(s, subject_of(t, p), "x", t->peer[i].name, peer->ratio >= t->peer[i].value,
                     ">= %gx", t->peer[i].value);
        } else {
            t2_text_str(s->out, "no time of ");
            report_cell(s->out, t->peer[i].name[0] != '\0' ? t->peer[i].name : "any peer");
            t2_text_printf(s->out, " | >= %gx | - |", t->peer[i].value);
            put_cause(s, subject_of(t, p), "x", t->peer[i].name);
            s->absent++;
        }
    }
}

static void put_share(struct sheet *s, const struct target *t, const struct problem *p,
                      const struct result_row *row)
{
    double share = target_share(t, s->isa);
    if (share > 0.0 && row->limit != NULL) {
        start_line(s, t, p, row);
        t2_text_str(s->out, "share of the limit");
        end_line(s, subject_of(t, p), "share", "", row->limit_share >= share, ">= %.0f %%",
                 100.0 * share);
    }
}

static void put_ns(struct sheet *s, const struct target *t, const struct problem *p,
                   const struct result_row *row)
{
    double fma = report_peak(s->results, "fma", s->isa, "", s->threads);
    if (t->ns > 0.0 && fma > 0.0) {
        double ns = row->median / ((double)p->rows * (double)p->cols);
        double most = t->ns * NS_PEAK / fma;
        start_line(s, t, p, row);
        t2_text_printf(s->out, "%.3f ns per element", ns);
        end_line(s, subject_of(t, p), "ns", "", ns <= most, "<= %.3f ns", most);
    }
}

static void put_owns(struct sheet *s, const struct target *t, const struct problem *p,
                     const struct result_row *row)
{
    for (int i = 0; i < t->owns; i++) {
        const struct result_row *other = find(s, t->own[i].name, p->shape);
        start_line(s, t, p, row);
        if (other == NULL) {
            t2_text_str(s->out, "no time of our ");
            report_cell(s->out, t->own[i].name);
            t2_text_printf(s->out, " | <= %gx | - |", t->own[i].value);
            put_cause(s, subject_of(t, p), "own", t->own[i].name);
            s->absent++;
            continue;
        }
        double ratio = row->median / other->median;
        /* The two were not timed in the same rounds: the widest that both intervals allow. */
        t2_text_printf(s->out, "%.3fx (%.3f to %.3f) the time of our ", ratio,
                       row->low / other->high, row->high / other->low);
        report_cell(s->out, t->own[i].name);
        end_line(s, subject_of(t, p), "own", t->own[i].name, ratio <= t->own[i].value, "<= %gx",
                 t->own[i].value);
    }
}

/* Of two threads, beside what the probe gains: a core may be slower where both work. */
static void put_gain(struct sheet *s, const struct target *t, const struct problem *p,
                     const struct result_row *row)
{
    const struct result_row *one = find_row(s->results, p->op->name, s->isa, p->shape, 1);
    double fma = report_peak(s->results, "fma", s->isa, "", s->threads);
    double fma_one = report_peak(s->results, "fma", s->isa, "", 1);
    if (t->gain > 0.0 && s->threads > 1 && one != NULL && fma > 0.0 && fma_one > 0.0) {
        double gain = one->median / row->median, most = fma / fma_one;
        start_line(s, t, p, row);
        t2_text_printf(s->out, "%.2fx as fast as one thread, the probe %.2fx", gain, most);
        end_line(s, subject_of(t, p), "gain", "", gain >= t->gain * most,
                 ">= %.0f %% of the probe's gain", 100.0 * t->gain);
    }
}

/* A case without a time, with what was asked for against peers and the limit. */
static void put_absent(struct sheet *s, const struct target *t, const struct problem *p)
{
    double share = target_share(t, s->isa);
    const char *between = "";
    t2_text_printf(s->out, "| %s | ", t->row);
    report_cell(s->out, p->op->name);
    t2_text_printf(s->out, " %s | not measured | - | - | ", p->shape);
    for (int i = 0; i < t->peers; i++, between = ", ") {
        t2_text_printf(s->out, "%s>= %gx", between, t->peer[i].value);
    }
    if (share > 0.0) {
        t2_text_printf(s->out, "%s>= %.0f %%", between, 100.0 * share);
    } else if (t->peers == 0) {
        t2_text_str(s->out, "-");
    }
    t2_text_str(s->out, " | - |");
    put_cause(s, subject_of(t, p), "-", "");
    s->absent++;
}

static void put_case(struct sheet *s, const struct target *t, const struct problem *p)
{
    const struct result_row *row = find(s, p->op->name, p->shape);
    if (row == NULL) {
        put_absent(s, t, p);
        return;
    }
    int before = s->met + s->missed + s->absent;
    put_peers(s, t, p, row);
    put_share(s, t, p, row);
    put_ns(s, t, p, row);
    put_owns(s, t, p, row);
    put_gain(s, t, p, row);
    if (s->met + s->missed + s->absent == before) { /* for the record */
        const struct result_peer *peer = find_peer(row, "");
        start_line(s, t, p, row);
        if (peer != NULL) {
            put_ratio(s, peer);
        } else {
            t2_text_str(s->out, "-");
        }
        t2_text_str(s->out, " | - | - | |\n");
    }
}

/* ---- a whole set in one line ----------------------------------------------------------------- */

static void put_below(struct sheet *s, const struct target *t)
{
    const double least = t->peers > 0 ? t->peer[0].value : 0.0;
    int below = 0;
    char text[32];
    for (int i = 0; i < t->shapes.count; i++) {
        const struct problem *p = &t->shapes.problem[i];
        const struct result_row *row = find(s, p->op->name, p->shape);
        const struct result_peer *peer = row != NULL ? find_peer(row, "") : NULL;
        if (peer != NULL && peer->ratio < least) {
            t2_text_printf(s->out, "%s%s %s", below++ > 0 ? ", " : ": ", p->shape,
                           report_ratio(text, peer->ratio));
        }
    }
}

static void put_set(struct sheet *s, const struct target *t)
{
    double sum = 0.0, least = t->peers > 0 ? t->peer[0].value : 0.0;
    int count = 0, below = 0;
    for (int i = 0; i < t->shapes.count; i++) {
        const struct problem *p = &t->shapes.problem[i];
        const struct result_row *row = find(s, p->op->name, p->shape);
        const struct result_peer *peer = row != NULL ? find_peer(row, "") : NULL;
        if (peer != NULL) {
            sum += log(peer->ratio);
            below += peer->ratio < least;
            count++;
        }
    }
    char shape[TARGET_WORD + 1];
    snprintf(shape, sizeof shape, "@%s", t->set);
    const struct subject about = {t->row, t->shapes.problem[0].op->name, shape};
    t2_text_printf(s->out, "| %s | ", t->row);
    report_cell(s->out, about.op);
    t2_text_printf(s->out, ", %d of the %d shapes of ", count,
                   t->shapes.count + t->shapes.left_out);
    report_cell(s->out, t->set);
    if (t->shapes.left_out > 0) {
        t2_text_printf(s->out, ", which leaves out the %d largest", t->shapes.left_out);
    }
    t2_text_str(s->out, " | - | - | ");
    if (count == 0) {
        t2_text_printf(s->out, "not measured | >= %gx | - |", t->mean);
        put_cause(s, about, "-", "");
        s->absent++;
        return;
    }
    char text[32];
    double mean = exp(sum / count);
    t2_text_printf(s->out, "geometric mean %sx", report_ratio(text, mean));
    end_line(s, about, "mean", "", mean >= t->mean, ">= %gx", t->mean);
    if (least > 0.0) {
        t2_text_printf(s->out, "| %s | ", t->row);
        report_cell(s->out, t->set);
        t2_text_printf(s->out, " | - | - | %d shape%s below", below, below == 1 ? "" : "s");
        put_below(s, t);
        end_line(s, about, "x", "", below == 0, "none below %gx", least);
    }
}

/* ---- sheets ---------------------------------------------------------------------------------- */

/* Nothing measured may be slower on several threads; what the intervals leave open is not. */
static void put_slower(struct sheet *s)
{
    int slower = 0, compared = 0;
    t2_text list = {0};
    for (int i = 0; i < s->results->rows; i++) {
        const struct result_row *row = &s->results->row[i];
        if (row->threads != s->threads || row->error != NULL || strcmp(row->isa, s->isa) != 0 ||
            strcmp(row->operands, "hot") != 0) {
            continue;
        }
        const struct result_row *one = find_row(s->results, row->op, s->isa, row->shape, 1);
        compared += one != NULL;
        if (one != NULL && row->median > one->median && row->low > one->high) {
            t2_text_printf(&list, "%s", slower++ > 0 ? ", " : ": ");
            report_cell(&list, row->op);
            t2_text_printf(&list, " %s %.2fx", row->shape, row->median / one->median);
        }
    }
    s->out->failed |= list.failed;
    t2_text_printf(s->out, "| 12 | all %d cases | - | - | %d slower than on one thread", compared,
                   slower);
    t2_text_str(s->out, slower > 0 && !list.failed ? list.data : "");
    end_line(s, (struct subject){"12", "all", "-"}, "slower", "", slower == 0, "none");
    t2_text_free(&list);
}

/* Whether an ISA has times on `threads` threads; 0: on any number of them. */
static int has_rows(const struct results *results, const char *isa, int threads)
{
    for (int i = 0; i < results->rows; i++) {
        const struct result_row *row = &results->row[i];
        if ((row->threads == threads || threads == 0) && strcmp(row->isa, isa) == 0 &&
            row->error == NULL) {
            return 1;
        }
    }
    return 0;
}

/* The least number of threads above `threads` that rows were timed on; 0: none. */
static int next_threads(const struct results *results, int threads)
{
    int next = 0;
    for (int i = 0; i < results->rows; i++) {
        const int has = results->row[i].threads;
        next = has > threads && (next == 0 || has < next) ? has : next;
    }
    return next;
}

static void put_sheet(struct sheet *s, const struct targets *targets)
{
    t2_text *out = s->out, body = {0};
    s->out = &body;
    for (int i = 0; i < targets->count; i++) {
        const struct target *t = &targets->target[i];
        if (t->isa[0] != '\0' && strcmp(t->isa, s->isa) != 0) {
            continue;
        }
        for (int j = 0; j < t->shapes.count && t->set[0] == '\0'; j++) {
            put_case(s, t, &t->shapes.problem[j]);
        }
        if (t->set[0] != '\0') {
            put_set(s, t);
        }
    }
    if (s->threads > 1) {
        put_slower(s);
    }
    s->out = out;
    out->failed |= body.failed;
    t2_text_printf(out, "\n**%s, %d thread%s**: %d of %d targets met", s->isa, s->threads,
                   s->threads > 1 ? "s" : "", s->met, s->met + s->missed);
    if (s->absent > 0) {
        t2_text_printf(out, ", %d not measured", s->absent);
    }
    if (s->unexplained > 0) {
        t2_text_printf(out, ", %d missed for a reason that nobody gave", s->unexplained);
    }
    t2_text_str(out, ".\n\n" HEAD);
    if (!body.failed) {
        t2_text_add(out, body.data, body.size);
    }
    t2_text_free(&body);
}

/* Targets of an ISA that this machine does not have. */
static void put_missing(struct sheet *s, const struct targets *targets, const json_t *isa)
{
    const char *reason = json_string_value(json_object_get(isa, "reason"));
    int count = 0;
    for (int i = 0; i < targets->count; i++) {
        const struct target *t = &targets->target[i];
        for (int j = 0; j < t->shapes.count && strcmp(t->isa, s->isa) == 0; j++) {
            if (count++ == 0) {
                t2_text_printf(s->out, "\n**%s**: not measured", s->isa);
                t2_text_str(s->out, reason != NULL && reason[0] != '\0' ? ": " : "");
                report_cell(s->out, reason != NULL ? reason : "");
                t2_text_str(s->out, ".\n\n" HEAD);
            }
            put_absent(s, t, &t->shapes.problem[j]);
        }
    }
}

/* Causes that are not needed any more mislead who edits the file. */
static void note_unused(const struct causes *causes)
{
    for (int i = 0; i < causes->count; i++) {
        if (!causes->cause[i].used) {
            fprintf(stderr, "t2bench: report: note: %s, line %d: nothing missed is of this kind\n",
                    causes->path, causes->cause[i].line);
        }
    }
}

static void put_file(const struct report_file *file, const struct targets *targets,
                     struct causes *causes, t2_text *out)
{
    const struct results *results = &file->results;
    json_t *isas = report_get(results->context, "machine", "isa", "list", NULL);
    report_machine_line(file, out);
    for (int threads = next_threads(results, 0); threads > 0;
         threads = next_threads(results, threads)) {
        for (size_t i = json_array_size(isas); i-- > 0;) {
            const char *isa = isa_name(results, i);
            if (i > 0 && has_rows(results, isa, threads)) {
                struct sheet sheet = {results, isa, threads, causes, out, 0, 0, 0, 0};
                put_sheet(&sheet, targets);
            }
        }
    }
    for (size_t i = json_array_size(isas); i-- > 1;) {
        const char *isa = isa_name(results, i);
        if (!has_rows(results, isa, 0)) {
            struct sheet sheet = {results, isa, 1, causes, out, 0, 0, 0, 0};
            put_missing(&sheet, targets, json_array_get(isas, i));
        }
    }
    note_unused(causes);
}

int report_targets(const struct report *report, t2_text *markdown, char *error, size_t size)
{
    struct targets targets;
    if (targets_parse(bench_set_file("targets"), &targets, error, size) != 0) {
        return -1;
    }
    for (int i = 0; i < report->files; i++) {
        struct causes causes;
        if (causes_load(report->file[i].results.path, &causes, error, size) != 0) {
            targets_free(&targets);
            return -1;
        }
        put_file(&report->file[i], &targets, &causes, markdown);
        causes_free(&causes);
    }
    t2_text_str(markdown, "\nTime: median of the rounds (~: noisy). Measured: the peer's time over "
                          "ours, median of the rounds'\nratios, with its 95 % interval. `make "
                          "bench-performance` wrote this.\n");
    targets_free(&targets);
    return 0;
}
