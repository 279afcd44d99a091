/* The page: a template (report/page.html) filled with a card and the facts of each machine, the
 * statement on bits, the data and the script that draws from it. */
#include "limits.h"
#include "report.h"

#include "embed.h"

#include <stdio.h>
#include <string.h>

BENCH_EMBED(report_template, "bench/report/page.html");
BENCH_EMBED(report_style, "bench/report/report.css");
BENCH_EMBED(report_script_base, "bench/report/base.js");
BENCH_EMBED(report_script_charts, "bench/report/charts.js");
BENCH_EMBED(report_script_sections, "bench/report/sections.js");
BENCH_EMBED(report_script_table, "bench/report/table.js");

/* ---- cards ----------------------------------------------------------------------------------- */

static void put_number(t2_text *html, double value)
{
    char text[32];
    t2_text_str(html, report_number(text, value));
}

/* The machine and the run in a line; all of it stands in the table of facts. */
static void put_facts(const struct report_file *file, const struct report_standing *s,
                      t2_text *html)
{
    const struct results *r = &file->results;
    const char *date = json_string_value(json_object_get(r->context, "date"));
    const char *isa = report_string(report_get(r->context, "machine", NULL), "isa", "active");
    int threads = report_least_threads(r);
    double fma = report_peak(r, "fma", isa, "", threads);
    double memory = report_peak(r, "read", "", "memory", threads);
    t2_text_printf(html, "<p class=\"soft\">%" JSON_INTEGER_FORMAT " CPUs; ",
                   json_integer_value(report_get(r->context, "machine", "cpus", NULL)));
    if (fma > 0.0 && memory > 0.0) {
        t2_text_printf(html, "measured on %d thread%s: FMA ", threads, threads == 1 ? "" : "s");
        put_number(html, fma);
        t2_text_str(html, "&nbsp;GFLOP/s, memory ");
        put_number(html, memory);
        t2_text_str(html, "&nbsp;GB/s; ");
    }
    report_escape(html, report_string(r->context, "build", "compiler"));
    t2_text_str(html, ", ");
    t2_text day = {0};
    t2_text_add(&day, date != NULL ? date : "", date != NULL ? strcspn(date, "T") : 0);
    report_escape(html, day.data != NULL ? day.data : "");
    html->failed |= day.failed;
    t2_text_free(&day);
    t2_text_printf(html, ", %d rows, %s, %d noisy.</p>\n", r->rows,
                   r->complete ? "complete" : "<b class=\"warn\">not complete</b>", s->noisy);
}

static double percent(int part, int whole)
{
    return whole > 0 ? 100.0 * part / whole : 0.0;
}

/* The sentence that says how the machine's best rows stand. */
static void put_standing(const struct report_file *file, const struct report_standing *s,
                         t2_text *html)
{
    if (s->compared == 0) {
        t2_text_str(html, "<p class=\"claim\">No peer ran on this machine: there is nothing to "
                          "compare t2 with.</p>\n");
    } else {
        t2_text_str(html, "<p class=\"claim\">");
        char mean[32];
        t2_text_str(html, s->mean >= 1.0 ? "t2 is <b>" : "t2 reaches <b>");
        t2_text_str(html, report_ratio(mean, s->mean));
        t2_text_printf(html,
                       "&times;</b> %s the best peer of each case (geometric mean of %d "
                       "cases).</p>\n",
                       s->mean >= 1.0 ? "as fast as" : "the speed of", s->compared);
        double ahead = percent(s->ahead, s->compared), level = percent(s->level, s->compared);
        t2_text_printf(html,
                       "<div class=\"share\" aria-hidden=\"true\"><span class=\"ahead\" "
                       "style=\"width:%.2f%%\"></span><span class=\"level\" "
                       "style=\"width:%.2f%%\"></span><span class=\"behind\" "
                       "style=\"width:%.2f%%\"></span></div>\n",
                       ahead, level, percent(s->behind, s->compared));
        t2_text_printf(html,
                       "<p>Ahead in <b>%d</b> cases (%.0f&nbsp;%%), level in %d, behind in "
                       "<b>%d</b>.",
                       s->ahead, ahead, s->level, s->behind);
        t2_text_str(html, "</p>\n");
    }
    if (s->limit_share > 0.0 && s->limit_share <= BENCH_MOST_SHARE) {
        t2_text_printf(html,
                       "<p>Half of the cases reach %.0f&nbsp;%% or more of what this machine's "
                       "measured peaks allow them.</p>\n",
                       100.0 * s->limit_share);
    }
    if (s->failed > 0) {
        t2_text_printf(html,
                       "<p class=\"warn\">%d of %d rows failed and have no time; the table names "
                       "the reasons.</p>\n",
                       s->failed, file->results.rows);
    }
}

static void put_ratio(const struct result_row *row, t2_text *html)
{
    static const char *const class_of[] = {"", "lost", "", "won"};
    char text[32];
    t2_text_printf(html, "<span class=\"%s\">%s&times;</span> ", class_of[report_verdict(row)],
                   report_ratio(text, row->peer_ratio));
    report_escape(html, row->best_peer);
}

static void put_behind(const struct report_file *file, int count, t2_text *html)
{
    t2_text_printf(html, "<details><summary>The %d cases that are behind</summary>\n", count);
    t2_text_str(html, "<table><thead><tr><th>case</th><th class=\"num\">t2's speed / best "
                      "peer's</th></tr></thead><tbody>\n");
    for (int i = 0; i < file->bests; i++) {
        if (report_verdict(file->best[i]) == REPORT_BEHIND) {
            t2_text_str(html, "<tr><td>");
            report_escape(html, file->best[i]->name);
            t2_text_str(html, "</td><td class=\"num\">");
            put_ratio(file->best[i], html);
            t2_text_str(html, file->best[i]->noisy ? " <span class=\"noisy\">~</span>" : "");
            t2_text_str(html, "</td></tr>\n");
        }
    }
    t2_text_str(html, "</tbody></table></details>\n");
}

static void put_telling(const struct report_file *file, t2_text *html)
{
    t2_text_printf(html,
                   "<table class=\"telling\"><thead><tr><th>kernel, %d thread%s, best ISA</th>"
                   "<th>rate</th><th>of its limit</th><th>t2&nbsp;/ best peer</th></tr></thead>"
                   "<tbody>\n",
                   report_least_threads(&file->results),
                   report_least_threads(&file->results) == 1 ? "" : "s");
    for (int i = 0; i < report_telling_count; i++) {
        const char *what;
        const struct result_row *row = report_telling(file, i, &what);
        if (row == NULL) {
            continue;
        }
        t2_text_str(html, "<tr><td>");
        report_escape(html, what);
        t2_text_str(html, " <span class=\"shape\">");
        report_escape(html, row->shape);
        t2_text_str(html, "</span></td><td class=\"num\">");
        put_number(html, row->rate);
        t2_text_str(html, "&nbsp;");
        report_escape(html, row->rate_unit);
        t2_text_str(html, row->noisy ? " <span class=\"noisy\">~</span>" : "");
        t2_text_str(html, "</td><td class=\"num\">");
        if (row->limit != NULL) {
            double share = 100.0 * row->limit_share;
            t2_text_printf(html,
                           "<span class=\"bar\"><span style=\"width:%.1f%%\"></span></span> "
                           "%.0f&nbsp;%%%s",
                           share > 100.0 ? 100.0 : share, share,
                           row->limit_share > BENCH_MOST_SHARE ? "?" : "");
        }
        t2_text_str(html, "</td><td class=\"num\">");
        if (row->best_peer != NULL && row->peer_ratio > 0.0) {
            put_ratio(row, html);
        }
        t2_text_str(html, "</td></tr>\n");
    }
    t2_text_str(html, "</tbody></table>\n");
}

int report_cards(const struct report *report, t2_text *html)
{
    for (int i = 0; i < report->files; i++) {
        const struct report_file *file = &report->file[i];
        struct report_standing s = report_standing(file);
        t2_text_str(html, "<article class=\"card\">\n<h3>");
        report_escape(html, file->results.label);
        t2_text_str(html, "</h3>\n");
        put_facts(file, &s, html);
        put_standing(file, &s, html);
        put_telling(file, html);
        if (s.behind > 0) {
            put_behind(file, s.behind, html);
        }
        t2_text_str(html, "</article>\n");
    }
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void put_warning(const char *text, void *arg)
{
    t2_text *html = arg;
    t2_text_str(html, "<p class=\"warn\">");
    report_escape(html, text);
    t2_text_str(html, "</p>\n");
}

static int put_title(const struct report *report, t2_text *html)
{
    report_escape(html, report->title);
    return 0;
}

static int put_warnings(const struct report *report, t2_text *html)
{
    report_warnings(report, put_warning, html);
    return 0;
}

/* What a name between {{ and }} of the template stands for: text as it is, or what a function
 * makes of the files. */
static const struct part {
    const char *name;
    int (*put)(const struct report *report, t2_text *html);
    const unsigned char *text, *end;
} parts[] = {
    {"title", put_title, NULL, NULL},
    {"warnings", put_warnings, NULL, NULL},
    {"cards", report_cards, NULL, NULL},
    {"machines", report_machines, NULL, NULL},
    {"bits", report_bits, NULL, NULL},
    {"data", report_data, NULL, NULL},
    {"style", NULL, report_style, report_style_end},
    {"base", NULL, report_script_base, report_script_base_end},
    {"charts", NULL, report_script_charts, report_script_charts_end},
    {"sections", NULL, report_script_sections, report_script_sections_end},
    {"table", NULL, report_script_table, report_script_table_end},
};

static int fill(const struct report *report, const char *name, size_t length, t2_text *html)
{
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const struct part *part = &parts[i];
        if (strlen(part->name) == length && memcmp(part->name, name, length) == 0) {
            if (part->put != NULL) {
                return part->put(report, html);
            }
            t2_text_add(html, (const char *)part->text, (size_t)(part->end - part->text));
            return 0;
        }
    }
    return 0;
}

int report_page(const struct report *report, t2_text *html)
{
    const char *template = (const char *)report_template;
    const char *end = (const char *)report_template_end;
    while (template <end) {
        const char *open = template;
        while (open < end && !(end - open >= 2 && open[0] == '{' && open[1] == '{')) {
            open++;
        }
        t2_text_add(html, template, (size_t)(open - template));
        if (open == end) {
            break;
        }
        const char *name = open + 2, *close = name;
        while (end - close >= 2 && !(close[0] == '}' && close[1] == '}')) {
            close++;
        }
        if (fill(report, name, (size_t)(close - name), html) != 0) {
            return -1;
        }
        template = close + 2;
    }
    return html->failed ? -1 : 0;
}
