/* report.h - what the parts of `t2bench report` share. */
#ifndef T2_BENCH_REPORT_H
#define T2_BENCH_REPORT_H

#include "io/text.h"
#include "results.h"

/* The rows of a file that stand for t2 there: for each case (operation, shape, threads, operands)
 * the one of the instruction set in use, else of the highest that has a time. */
struct report_file {
    struct results results;
    const struct result_row **best; /* (bests) in the file's order */
    int bests;
};

struct report {
    struct report_file *file;
    int files;
    const char *title;
};

/* Position of an instruction set in the file's list, lowest first; the one in use ranks above
 * all. -1: not in the list. */
int report_rank(const struct results *results, const char *isa);
/* 0, or -1 where memory ran out. */
int report_find_best(struct report_file *file);

/* What the 95 % interval of a row's ratio to its best peer says. */
enum report_verdict { REPORT_NO_PEER, REPORT_BEHIND, REPORT_LEVEL, REPORT_AHEAD };
enum report_verdict report_verdict(const struct result_row *row);

/* The best rows of a file at a glance. */
struct report_standing {
    int compared, ahead, level, behind; /* rows with a peer, by verdict */
    double mean;                        /* geometric, of the ratios to the best peer */
    double limit_share;                 /* median; 0: none known */
    int failed, noisy;                  /* of all rows */
};
struct report_standing report_standing(const struct report_file *file);

/* Rows that tell a reader most: entry i of a fixed list, for a file with few threads; NULL where
 * the file has no such row. *what says what it is. 0 <= i < report_telling_count. */
extern const int report_telling_count;
const struct result_row *report_telling(const struct report_file *file, int i, const char **what);

/* A member of a member of ... the context: report_get(context, "machine", "name"). NULL where one
 * is missing. The last argument is NULL. */
json_t *report_get(json_t *object, ...) __attribute__((sentinel));
/* Its text; "" where it is no string. */
const char *report_string(json_t *context, const char *part, const char *key);
/* Value of a measured peak, 0 where there is none. */
double report_peak(const struct results *results, const char *name, const char *isa,
                   const char *level, int threads);
/* The smallest number of threads among the rows with a time; 0 without rows. */
int report_least_threads(const struct results *results);

/* "ran in part" and the like: what a reader must know before comparing these files. Calls
 * say(text, arg) for each. */
void report_warnings(const struct report *report, void (*say)(const char *text, void *arg),
                     void *arg);

/* Three significant digits: "0.85", "17.7", "1230". */
const char *report_number(char text[32], double value);

/* Two decimals below ten, as ratios are read: "0.98", "1.31", "12.3"; "0.018" below 0.1. */
const char *report_ratio(char text[32], double ratio);

/* Text of HTML: what would be markup or is a control character is escaped. */
void report_escape(t2_text *html, const char *text);

/* Parts of the page, and the whole: 0, or -1 where memory ran out (or html->failed). */
int report_cards(const struct report *report, t2_text *html);    /* a card per machine */
int report_machines(const struct report *report, t2_text *html); /* all facts, side by side */
int report_bits(const struct report *report, t2_text *html);     /* who computed other bits */
int report_data(const struct report *report, t2_text *json);     /* for the script */
int report_page(const struct report *report, t2_text *html);

/* Text within a cell of a markdown table, where a bar would end the cell and markup might start. */
void report_cell(t2_text *markdown, const char *text);
/* A line about the machine of a file and how t2 stands there. */
void report_machine_line(const struct report_file *file, t2_text *markdown);
/* The table for the README. */
void report_readme(const struct report *report, t2_text *markdown);
/* What was reached of the targets: 0, or -1 with a text. */
int report_targets(const struct report *report, t2_text *markdown, char *error, size_t size);
/* A picture of one file's rows below the roofs of its machine; -1 where it has none with a time. */
int report_roofline(const struct report_file *file, t2_text *svg);

#endif
