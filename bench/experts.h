/* experts.h - `t2bench experts`: what experts cost as a program uses them, through libt2: batches
 * whose rows have experts of their own, the way that the planner chooses, changes of experts. */
#ifndef T2_BENCH_EXPERTS_H
#define T2_BENCH_EXPERTS_H

#include "io/text.h"
#include "t2.h"

#include <stdio.h>

/* `t2bench experts ...`; argv[0] is skipped. The exit status. */
int experts_main(int argc, char **argv);

/* Linear layers with random factors. */
struct expert_layers {
    int64_t count;
    t2_layer *layer;
    char (*name)[32];
    float *numbers; /* what the layers and factors point to */
    t2_factors *factors;
    t2_adapter *adapter;
    int64_t widest; /* inputs or outputs */
    int64_t ranks;  /* sum of min(m, n) */
};

/* sizes: outputs and inputs of each. 0, or -1 after a message. */
int expert_layers_create(struct expert_layers *layers, const int64_t (*sizes)[2], int64_t count);
void expert_layers_destroy(struct expert_layers *layers);

/* Experts that change every step-th component of each matrix. 0, or -1 after a message. */
int experts_create(const struct expert_layers *layers, int64_t step, int64_t count,
                   t2_expert **experts);
void experts_release(t2_expert **experts, int64_t count);

/* An adaptation of all `count` experts; NULL after a message. */
t2_adaptation *experts_adapt(const struct expert_layers *layers, t2_expert *const *experts,
                             int64_t count, t2_way way, const t2_workload *workload);

/* All layers on the same x, one after the other. y: room for rows * widest. 0, or -1 after a
 * message. */
int expert_layers_run(const struct expert_layers *layers, const t2_adaptation *adaptation,
                      int64_t rows, const int64_t *expert_rows, const float *x, float *y);

/* Prints what failed; -1. */
int experts_failed(const char *what, const t2_error *err);
double experts_median(double *x, int count); /* sorts x */

/* Writes a text to a file; 0, or -1 after a message. */
int experts_write(const char *path, const t2_text *text);

/* Adds a line of the table of targets: what was measured, and whether it is within the limit. */
enum experts_bound { EXPERTS_AT_MOST, EXPERTS_AT_LEAST };
void experts_target(t2_text *table, const char *what, double value, enum experts_bound bound,
                    double limit);

/* The parts: 0, or -1 after a message. svg may be NULL; table: of targets. */
int experts_switch(t2_text *csv, t2_text *svg, t2_text *table);
int experts_rows(t2_text *csv, t2_text *svg, t2_text *table);
int experts_plan(t2_text *csv, t2_text *svg, t2_text *table);
int experts_swap(t2_text *csv, t2_text *svg, t2_text *table);

/* ---- pictures (experts_plot.c) --------------------------------------------------------------- */

/* Milliseconds over a number, both logarithmic, of `lines` lines with `points` points each. */
struct experts_chart {
    const char *title, *x_label;
    const char *const *names;
    const double *x; /* (points) */
    const double *y; /* (lines, points) in seconds */
    int lines, points;
};
void experts_plot_lines(t2_text *svg, const struct experts_chart *charts, int count);

/* A cell of the planner's grid: the shape's row, the column, and the ways. */
struct experts_mark {
    int row, column;
    t2_way best, chosen;
    double over; /* cost of what was chosen over the best */
};
void experts_plot_grid(t2_text *svg, const char *const *rows, int row_count,
                       const char *const *columns, int column_count,
                       const struct experts_mark *plan, const struct experts_mark *measured,
                       int marks);

#endif
