/* "Same bits": whether rows that compute the same result, on any machine, instruction set and
 * number of threads, have the same fingerprint. */
#include "problem.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mark {
    const struct result_row *row;
    int file;
};

/* Operands are the same for an operation and a shape, whether they are hot or cold. */
static int by_result(const struct mark *x, const struct mark *y)
{
    int order = strcmp(x->row->op, y->row->op);
    return order != 0 ? order : strcmp(x->row->shape, y->row->shape);
}

static int by_result_and_bits(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;
    int order = by_result(x, y);
    order = order != 0 ? order : strcmp(x->row->fingerprint, y->row->fingerprint);
    order = order != 0 ? order : x->file - y->file;
    return order != 0 ? order : (x->row > y->row) - (x->row < y->row);
}

struct tally {
    int results, rows; /* results with at least two rows, and these rows */
    int across;        /* results that at least two files have */
    int differ;        /* results with more than one fingerprint */
    int alone;         /* results with a single row */
    t2_text isas, threads;
    t2_text table; /* of the results that differ */
};

/* Adds a word to a list unless it is there. */
static void add_word(t2_text *list, const char *word)
{
    char padded[RESULT_NAME + 4];
    snprintf(padded, sizeof padded, " %s,", word);
    if (list->data == NULL || strstr(list->data, padded) == NULL) {
        t2_text_str(list, padded);
    }
}

/* A row of the table per fingerprint of a result: who computed it. */
static void list_difference(const struct report *report, const struct mark *mark, int count,
                            t2_text *table)
{
    for (int i = 0; i < count;) {
        int end = i;
        t2_text_str(table, "<tr><td>");
        report_escape(table, mark[i].row->op);
        t2_text_str(table, "</td><td>");
        report_escape(table, mark[i].row->shape);
        t2_text_str(table, "</td><td class=\"mono\">");
        report_escape(table, mark[i].row->fingerprint);
        t2_text_str(table, "</td><td>");
        int file = -1;
        for (; end < count && strcmp(mark[end].row->fingerprint, mark[i].row->fingerprint) == 0;
             end++) {
            if (mark[end].file != file) {
                file = mark[end].file;
                t2_text_str(table, end > i ? "<br>" : "");
                report_escape(table, report->file[file].results.label);
                t2_text_str(table, ":");
            } else {
                t2_text_str(table, ",");
            }
            t2_text_str(table, " ");
            report_escape(table, mark[end].row->isa);
            t2_text_printf(table, "/%d", mark[end].row->threads);
            if (strcmp(mark[end].row->operands, "hot") != 0) {
                t2_text_str(table, "/");
                report_escape(table, mark[end].row->operands);
            }
        }
        t2_text_str(table, "</td></tr>\n");
        i = end;
    }
}

static void count_result(const struct report *report, const struct mark *mark, int count,
                         struct tally *tally)
{
    if (count == 1) {
        tally->alone++;
        return;
    }
    int across = 0, differ = 0;
    for (int i = 0; i < count; i++) {
        char threads[16];
        snprintf(threads, sizeof threads, "%d", mark[i].row->threads);
        add_word(&tally->isas, mark[i].row->isa);
        add_word(&tally->threads, threads);
        across |= mark[i].file != mark[0].file;
        differ |= strcmp(mark[i].row->fingerprint, mark[0].row->fingerprint) != 0;
    }
    tally->results++;
    tally->rows += count;
    tally->across += across;
    tally->differ += differ;
    if (differ) {
        list_difference(report, mark, count, &tally->table);
    }
}

/* A key without the instruction set behind its last '-' names the CPU. */
static int same_cpu(const char *a, const char *b)
{
    const char *a_end = strrchr(a, '-'), *b_end = strrchr(b, '-');
    size_t a_size = a_end != NULL ? (size_t)(a_end - a) : strlen(a);
    size_t b_size = b_end != NULL ? (size_t)(b_end - b) : strlen(b);
    return a_size == b_size && memcmp(a, b, a_size) == 0;
}

static int count_cpus(const struct report *report)
{
    int cpus = 0;
    for (int i = 0; i < report->files; i++) {
        int seen = 0;
        for (int j = 0; j < i && !seen; j++) {
            seen = same_cpu(report->file[i].results.key, report->file[j].results.key);
        }
        cpus += !seen;
    }
    return cpus;
}

/* A list made by add_word() without its last comma. */
static void put_list(t2_text *html, const t2_text *list)
{
    char *words = strndup(list->data != NULL ? list->data : " ,", list->size);
    if (words == NULL) {
        html->failed = 1;
        return;
    }
    words[list->size > 0 ? list->size - 1 : 0] = '\0';
    report_escape(html, words);
    free(words);
}

static void say(const struct report *report, const struct tally *tally, t2_text *html)
{
    if (tally->results == 0) {
        t2_text_str(html, "<p class=\"verdict\">No result was computed twice: there is nothing to "
                          "compare.</p>\n");
        return;
    }
    if (tally->differ == 0) {
        t2_text_str(html, "<p class=\"verdict good\"><b>All bits equal.</b> ");
    } else {
        t2_text_printf(html,
                       "<p class=\"verdict bad\"><b>%d of %d results differ in their bits</b> "
                       "(listed below). ",
                       tally->differ, tally->results);
    }
    int cpus = count_cpus(report);
    t2_text_printf(html,
                   "%d rows compute %d different results (an operation on a shape), on %d "
                   "kind%s of CPU; instruction sets:",
                   tally->rows, tally->results, cpus, cpus == 1 ? "" : "s");
    put_list(html, &tally->isas);
    t2_text_str(html, "; threads:");
    put_list(html, &tally->threads);
    if (report->files > 1) {
        t2_text_printf(html, "; %d of these results stand in more than one file", tally->across);
    }
    t2_text_str(html, ".");
    if (tally->alone > 0) {
        t2_text_printf(html, " Another %d stand in one row only.", tally->alone);
    }
    t2_text_str(html, "</p>\n");
    if (tally->differ > 0) {
        t2_text_str(html, "<div class=\"scroll\"><table><thead><tr><th>operation</th><th>shape</th>"
                          "<th>fingerprint</th><th>computed by (instruction set/threads)</th></tr>"
                          "</thead><tbody>\n");
        t2_text_add(html, tally->table.data, tally->table.size);
        t2_text_str(html, "</tbody></table></div>\n");
    }
}

int report_bits(const struct report *report, t2_text *html)
{
    size_t total = 1;
    for (int i = 0; i < report->files; i++) {
        total += (size_t)report->file[i].results.rows;
    }
    struct mark *mark = calloc(total, sizeof *mark);
    if (mark == NULL) {
        return -1;
    }
    int count = 0;
    for (int i = 0; i < report->files; i++) {
        const struct results *results = &report->file[i].results;
        for (int j = 0; j < results->rows; j++) {
            const struct result_row *row = &results->row[j];
            const struct bench_op *op = bench_op_find(row->op);
            int strict = op == NULL || !op->other_bits;
            if (strict && row->error == NULL && row->fingerprint != NULL &&
                row->fingerprint[0] != '\0') {
                mark[count++] = (struct mark){row, i};
            }
        }
    }
    qsort(mark, (size_t)count, sizeof *mark, by_result_and_bits);
    struct tally tally = {0};
    for (int i = 0; i < count;) {
        int end = i + 1;
        while (end < count && by_result(&mark[i], &mark[end]) == 0) {
            end++;
        }
        count_result(report, mark + i, end - i, &tally);
        i = end;
    }
    say(report, &tally, html);
    int failed = tally.isas.failed || tally.threads.failed || tally.table.failed || html->failed;
    t2_text_free(&tally.isas);
    t2_text_free(&tally.threads);
    t2_text_free(&tally.table);
    free(mark);
    return failed ? -1 : 0;
}
