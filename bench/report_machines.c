/* The facts of the machines, side by side: a row per fact, a column per result file. */
#include "report.h"

#include <stdio.h>
#include <string.h>

static void put_number(t2_text *html, double value, const char *unit)
{
    char text[32];
    t2_text_printf(html, "%s&nbsp;%s", report_number(text, value), unit);
}

static void put_string(t2_text *html, const struct results *r, const char *part, const char *key)
{
    report_escape(html, report_string(r->context, part, key));
}

/* Bytes in the largest unit that divides them. */
static void put_bytes(t2_text *html, json_int_t bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB"};
    double value = (double)bytes;
    int u = 0;
    for (; value >= 1024.0 && u < 3; u++) {
        value /= 1024.0;
    }
    put_number(html, value, unit[u]);
}

static const char *active_isa(const struct results *r)
{
    return report_string(report_get(r->context, "machine", NULL), "isa", "active");
}

/* ---- facts ----------------------------------------------------------------------------------- */

static void put_cpu(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    put_string(html, r, "machine", "name");
    t2_text_str(html, "<br><span class=\"mono\">");
    report_escape(html, r->key);
    t2_text_str(html, "</span>");
}

static void put_isa(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    t2_text_str(html, "<b>");
    report_escape(html, active_isa(r));
    t2_text_str(html, "</b> in use");
    size_t i;
    json_t *entry;
    const char *separator = "; usable: ";
    json_array_foreach(report_get(r->context, "machine", "isa", "list", NULL), i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name != NULL && json_is_true(json_object_get(entry, "usable"))) {
            t2_text_str(html, separator);
            report_escape(html, name);
            separator = ", ";
        }
    }
}

static void put_cpus(const struct report_file *file, t2_text *html)
{
    json_t *context = file->results.context;
    t2_text_printf(html, "%" JSON_INTEGER_FORMAT " CPUs",
                   json_integer_value(report_get(context, "machine", "cpus", NULL)));
    json_t *smt = report_get(context, "machine", "smt", NULL);
    if (json_is_boolean(smt)) {
        t2_text_str(html, json_is_true(smt) ? ", SMT" : ", no SMT");
    }
    json_t *threads = report_get(context, "threads", "default", NULL);
    if (json_is_integer(threads)) {
        t2_text_printf(html, ", %" JSON_INTEGER_FORMAT " threads by default",
                       json_integer_value(threads));
    }
    const char *hypervisor = report_string(context, "machine", "hypervisor");
    if (hypervisor[0] != '\0') {
        t2_text_str(html, ", hypervisor ");
        report_escape(html, hypervisor);
    }
}

static void put_caches(const struct report_file *file, t2_text *html)
{
    size_t i;
    json_t *cache;
    const char *separator = "";
    json_array_foreach(report_get(file->results.context, "machine", "caches", NULL), i, cache)
    {
        const char *type = json_string_value(json_object_get(cache, "type"));
        if (type != NULL && strcmp(type, "instruction") != 0 && strcmp(type, "Instruction") != 0) {
            t2_text_printf(html, "%sL%" JSON_INTEGER_FORMAT " ", separator,
                           json_integer_value(json_object_get(cache, "level")));
            put_bytes(html, json_integer_value(json_object_get(cache, "bytes")));
            separator = ", ";
        }
    }
    json_t *memory = report_get(file->results.context, "machine", "memory_bytes", NULL);
    if (json_is_integer(memory)) {
        t2_text_printf(html, "%smemory ", separator);
        put_bytes(html, json_integer_value(memory));
    }
}

/* "118 GFLOP/s on 1 thread, 236 GFLOP/s on 2" for one kind of peak. */
static void put_peaks(const struct results *r, const char *name, const char *isa, const char *level,
                      t2_text *html)
{
    size_t i;
    json_t *peak;
    const char *separator = "";
    json_array_foreach(json_object_get(r->context, "peaks"), i, peak)
    {
        int threads = (int)json_integer_value(json_object_get(peak, "threads"));
        const char *its_name = json_string_value(json_object_get(peak, "name"));
        const char *its_isa = json_string_value(json_object_get(peak, "isa"));
        const char *its_level = json_string_value(json_object_get(peak, "level"));
        double value = json_number_value(json_object_get(peak, "value"));
        if (its_name != NULL && its_isa != NULL && its_level != NULL && value > 0.0 &&
            strcmp(its_name, name) == 0 && strcmp(its_isa, isa) == 0 &&
            strcmp(its_level, level) == 0) {
            const char *unit = json_string_value(json_object_get(peak, "unit"));
            char text[32];
            t2_text_printf(html, "%s%s&nbsp;", separator, report_number(text, value));
            report_escape(html, unit != NULL ? unit : "");
            t2_text_printf(html, " (%d thread%s)", threads, threads == 1 ? "" : "s");
            separator = ", ";
        }
    }
}

static void put_fma(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    put_peaks(r, "fma", active_isa(r), "", html);
}

static void put_bf16(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    put_peaks(r, "bf16", active_isa(r), "", html);
}

static void put_reads(const struct report_file *file, t2_text *html)
{
    static const char *const level[] = {"L1", "L2", "L3", "memory"};
    int threads = report_least_threads(&file->results);
    const char *separator = "";
    for (size_t i = 0; i < sizeof level / sizeof *level; i++) {
        double value = report_peak(&file->results, "read", "", level[i], threads);
        if (value > 0.0) {
            t2_text_printf(html, "%s%s ", separator, level[i]);
            put_number(html, value, "GB/s");
            separator = ", ";
        }
    }
    t2_text_printf(html, " (%d thread%s)", threads, threads == 1 ? "" : "s");
}

static void put_build(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    put_string(html, r, "build", "compiler");
    t2_text_str(html, " ");
    put_string(html, r, "build", "flags");
    t2_text_str(html, "<br>t2bench ");
    put_string(html, r, "t2bench", "version");
    const char *git = report_string(r->context, "build", "git");
    if (git[0] != '\0') {
        t2_text_str(html, ", commit ");
        report_escape(html, git);
    }
}

static void put_system(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    t2_text_str(html, "kernel ");
    put_string(html, r, "machine", "kernel");
    t2_text_str(html, ", ");
    put_string(html, r, "machine", "libc");
}

static void put_run(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    const char *date = json_string_value(json_object_get(r->context, "date"));
    report_escape(html, date != NULL ? date : "date unknown");
    t2_text_printf(html, "<br>%d rows, ", r->rows);
    json_t *seconds = report_get(r->context, "t2bench", "seconds", NULL);
    if (json_is_number(seconds)) {
        t2_text_printf(html, "%.0f&nbsp;s, ", json_number_value(seconds));
    }
    t2_text_str(html, r->complete ? "complete" : "<b class=\"warn\">not complete</b>");
    const char *file_name = strrchr(r->path, '/');
    t2_text_str(html, "<br><span class=\"mono\">");
    report_escape(html, file_name != NULL ? file_name + 1 : r->path);
    t2_text_str(html, "</span>");
}

static void put_noise(const struct report_file *file, t2_text *html)
{
    const struct results *r = &file->results;
    struct report_standing s = report_standing(file);
    t2_text_printf(html, "%d of %d rows noisy", s.noisy, r->rows - s.failed);
    json_t *steal = report_get(r->context, "noise", "steal_percent", NULL);
    json_t *low = report_get(r->context, "noise", "ghz_min", NULL);
    json_t *high = report_get(r->context, "noise", "ghz_max", NULL);
    if (json_is_number(steal)) {
        t2_text_printf(html, ", %.1f&nbsp;%% of the time stolen", json_number_value(steal));
    }
    if (json_is_number(low) && json_is_number(high)) {
        t2_text_printf(html, ", clock %.2f to %.2f&nbsp;GHz", json_number_value(low),
                       json_number_value(high));
    }
}

static void put_peers(const struct report_file *file, t2_text *html)
{
    static const char *const status[] = {"ran", "failed", "missing"};
    static const char *const heading[] = {"", "<b class=\"warn\">failed:</b> ", "missing: "};
    json_t *peers = json_object_get(file->results.context, "peers");
    int lines = 0;
    for (int s = 0; s < 3; s++) {
        size_t i;
        json_t *peer;
        const char *before = heading[s];
        /* A peer is listed once per number of threads. */
        t2_text seen = {0};
        json_array_foreach(peers, i, peer)
        {
            const char *its = json_string_value(json_object_get(peer, "status"));
            const char *name = json_string_value(json_object_get(peer, "name"));
            const char *version = json_string_value(json_object_get(peer, "version"));
            if (its == NULL || name == NULL || strcmp(its, status[s]) != 0) {
                continue;
            }
            const char *shown = s == 0 && version != NULL ? version : "";
            t2_text entry = {0};
            t2_text_printf(&entry, "|%s|%s|", name, shown);
            if (entry.failed || (seen.data != NULL && strstr(seen.data, entry.data) != NULL)) {
                t2_text_free(&entry);
                continue;
            }
            t2_text_str(&seen, entry.data);
            t2_text_free(&entry);
            t2_text_str(html, lines > 0 && before == heading[s] ? "<br>" : "");
            t2_text_str(html, before);
            report_escape(html, name);
            if (shown[0] != '\0') {
                t2_text_str(html, " (");
                report_escape(html, shown);
                t2_text_str(html, ")");
            }
            before = ", ";
            lines++;
        }
        t2_text_free(&seen);
    }
    if (lines == 0) {
        t2_text_str(html, "none");
    }
}

static const struct fact {
    const char *name;
    void (*put)(const struct report_file *file, t2_text *html);
} facts[] = {
    {"CPU", put_cpu},
    {"instruction set", put_isa},
    {"cores", put_cpus},
    {"caches", put_caches},
    {"FMA peak, measured", put_fma},
    {"bf16 matrix unit", put_bf16},
    {"reads, measured", put_reads},
    {"run", put_run},
    {"noise", put_noise},
    {"peers", put_peers},
    {"built by", put_build},
    {"system", put_system},
};

int report_machines(const struct report *report, t2_text *html)
{
    t2_text_str(html, "<table class=\"facts\"><thead><tr><th></th>");
    for (int i = 0; i < report->files; i++) {
        t2_text_str(html, "<th>");
        report_escape(html, report->file[i].results.label);
        t2_text_str(html, "</th>");
    }
    t2_text_str(html, "</tr></thead><tbody>\n");
    for (size_t f = 0; f < sizeof facts / sizeof *facts; f++) {
        t2_text row = {0};
        int filled = 0;
        t2_text_printf(&row, "<tr><th>%s</th>", facts[f].name);
        for (int i = 0; i < report->files; i++) {
            t2_text cell = {0};
            facts[f].put(&report->file[i], &cell);
            filled |= cell.size > 0;
            t2_text_printf(&row, "<td>%s</td>", cell.data != NULL ? cell.data : "");
            row.failed |= cell.failed;
            t2_text_free(&cell);
        }
        html->failed |= row.failed;
        if (filled && !row.failed) {
            t2_text_str(html, row.data);
            t2_text_str(html, "</tr>\n");
        }
        t2_text_free(&row);
    }
    t2_text_str(html, "</tbody></table>\n");
    return 0;
}
