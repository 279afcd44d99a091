/* A short table in markdown, made from result files alone: the same files give the same bytes. */
#include "limits.h"
#include "report.h"

#include <stdio.h>
#include <string.h>

void report_cell(t2_text *out, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == 0x7f) {
            t2_text_str(out, " ");
        } else if (strchr("\\`*_{}[]<>|#!~&$", c) != NULL) {
            t2_text_printf(out, "\\%c", c);
        } else {
            t2_text_add(out, text, 1);
        }
    }
}

static void put_number(t2_text *out, double value)
{
    char text[32];
    t2_text_str(out, report_number(text, value));
}

void report_machine_line(const struct report_file *file, t2_text *out)
{
    const struct results *r = &file->results;
    int threads = report_least_threads(r);
    const char *isa = report_string(report_get(r->context, "machine", NULL), "isa", "active");
    const char *date = json_string_value(json_object_get(r->context, "date"));
    t2_text_str(out, "- **");
    report_cell(out, r->label);
    t2_text_str(out, "**: ");
    double fma = report_peak(r, "fma", isa, "", threads);
    if (fma > 0.0) {
        t2_text_str(out, "FMA ");
        put_number(out, fma);
        t2_text_str(out, " GFLOP/s, ");
    }
    double memory = report_peak(r, "read", "", "memory", threads);
    if (memory > 0.0) {
        t2_text_str(out, "memory read ");
        put_number(out, memory);
        t2_text_str(out, " GB/s (both measured), ");
    }
    report_cell(out, report_string(r->context, "build", "compiler"));
    t2_text_str(out, " ");
    report_cell(out, report_string(r->context, "build", "flags"));
    t2_text_printf(out, ", %.10s%s.", date != NULL ? date : "date unknown",
                   r->complete ? "" : ", run not complete");
    struct report_standing s = report_standing(file);
    if (s.compared > 0) {
        char mean[32];
        t2_text_printf(
            out,
            " All cases: %sx the best peer (geometric mean of %d), ahead in %d, level in "
            "%d, behind in %d.",
            report_ratio(mean, s.mean), s.compared, s.ahead, s.level, s.behind);
    }
    t2_text_str(out, "\n");
}

/* The shape that all files show for an entry; NULL where they differ or none has it. */
static const char *common_shape(const struct report *report, int telling)
{
    const char *shape = NULL, *what;
    for (int i = 0; i < report->files; i++) {
        const struct result_row *r = report_telling(&report->file[i], telling, &what);
        if (r != NULL && shape != NULL && strcmp(r->shape, shape) != 0) {
            return NULL;
        }
        shape = r != NULL ? r->shape : shape;
    }
    return shape;
}

static void put_result(const struct result_row *r, const char *shape, t2_text *out)
{
    char text[32];
    if (shape == NULL) {
        report_cell(out, r->shape);
        t2_text_str(out, ": ");
    }
    t2_text_printf(out, "%s ", report_number(text, r->rate));
    report_cell(out, r->rate_unit);
    if (r->limit != NULL) {
        t2_text_printf(out, ", %.0f %%%s", 100.0 * r->limit_share,
                       r->limit_share > BENCH_MOST_SHARE ? "?" : "");
    }
    if (r->best_peer != NULL && r->peer_ratio > 0.0) {
        t2_text_printf(out, ", %sx ", report_ratio(text, r->peer_ratio));
        report_cell(out, r->best_peer);
    }
    t2_text_str(out, r->noisy ? " (noisy)" : "");
}

static void put_row(const struct report *report, int telling, t2_text *out)
{
    const char *shape = common_shape(report, telling), *what = "";
    t2_text row = {0};
    int found = 0;
    for (int i = 0; i < report->files; i++) {
        const struct result_row *r = report_telling(&report->file[i], telling, &what);
        t2_text_str(&row, " | ");
        if (r == NULL) {
            t2_text_str(&row, "-");
        } else {
            put_result(r, shape, &row);
            found = 1;
        }
    }
    out->failed |= row.failed;
    if (found && !row.failed) {
        t2_text_str(out, "| ");
        report_cell(out, what);
        t2_text_str(out, shape != NULL ? ", " : "");
        report_cell(out, shape != NULL ? shape : "");
        t2_text_str(out, row.data);
        t2_text_str(out, " |\n");
    }
    t2_text_free(&row);
}

static int any_doubtful(const struct report *report)
{
    const char *what;
    for (int i = 0; i < report->files * report_telling_count; i++) {
        const struct result_row *r =
            report_telling(&report->file[i % report->files], i / report->files, &what);
        if (r != NULL && r->limit != NULL && r->limit_share > BENCH_MOST_SHARE) {
            return 1;
        }
    }
    return 0;
}

void report_readme(const struct report *report, t2_text *markdown)
{
    for (int i = 0; i < report->files; i++) {
        report_machine_line(&report->file[i], markdown);
    }
    t2_text_str(markdown, "\n| kernel");
    for (int i = 0; i < report->files; i++) {
        t2_text_str(markdown, " | ");
        report_cell(markdown, report->file[i].results.label);
    }
    t2_text_str(markdown, " |\n|--");
    for (int i = 0; i < report->files; i++) {
        t2_text_str(markdown, "|--");
    }
    t2_text_str(markdown, "|\n");
    for (int i = 0; i < report_telling_count; i++) {
        put_row(report, i, markdown);
    }
    int threads = report_least_threads(&report->file[0].results);
    t2_text_printf(
        markdown,
        "\nEach cell: rate (median, operands in cache where they fit, %d thread%s), share "
        "of what the machine's\nmeasured peaks allow, and t2's speed over that of the "
        "best peer in the same run. `make bench-readme` wrote this.\n",
        threads, threads == 1 ? "" : "s");
    if (any_doubtful(report)) {
        t2_text_str(markdown, "\"?\": a share far above 100 %: its peak was measured too low.\n");
    }
}
