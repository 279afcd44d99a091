/* t2bench experts plan: all three ways timed over a grid of shapes, changed components, rows and
 * changes of experts, and what the planner chooses there by its constants (plan) and by measuring
 * when an adaptation is made (auto). The shapes are others than those that the constants were set
 * by. */
#include "experts.h"
#include "problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WAYS = 3, ROUNDS = 5, MOST_CALLS = 200, NAME = 32 };
#define LONG_ENOUGH 200e-6 /* seconds of calls that are timed together */
#define NEAR 1.1           /* a good choice costs at most so many times the best */

/* Outputs and inputs. */
static const int64_t shapes[][2] = {{300, 300}, {700, 300},  {300, 700},  {96, 640}, {640, 96},
                                    {850, 850}, {1300, 450}, {450, 1300}, {64, 1100}};
/* Every component changes, or every eighth one. */
static const int64_t steps[] = {1, 8};
static const int64_t rows[] = {1, 6, 40, 150, 300};
static const double swaps[] = {0.0, 0.002, 0.03, 0.3, 3.0};
enum {
    SHAPES = sizeof shapes / sizeof shapes[0],
    STEPS = sizeof steps / sizeof steps[0],
    ROWS = sizeof rows / sizeof rows[0],
    SWAPS = sizeof swaps / sizeof swaps[0],
    LINES = SHAPES * STEPS,
    COLUMNS = ROWS * SWAPS,
    CELLS = LINES * COLUMNS,
    MOST_ROWS = 300,
};

struct grid {
    struct expert_layers layers; /* one */
    t2_expert *expert;
    float *x, *y;
    int count;
    struct experts_mark plan[CELLS], measured[CELLS];
    double cost[CELLS][WAYS];
};

/* Seconds of a way: to put it in place, and of a call. */
struct timed {
    double swap[ROUNDS], call[ROUNDS];
};

static int time_way(const struct grid *g, t2_way way, int64_t count, struct timed *t, int round)
{
    double start = bench_now();
    t2_adaptation *adaptation = experts_adapt(&g->layers, &g->expert, 1, way, NULL);
    t->swap[round] = bench_now() - start;
    int status = adaptation == NULL ? -1 : 0, calls = 1;
    for (int warm = 1; warm >= 0 && status == 0; warm--) {
        start = bench_now();
        for (int i = 0; i < calls && status == 0; i++) {
            status = expert_layers_run(&g->layers, adaptation, count, NULL, g->x, g->y);
        }
        t->call[round] = (bench_now() - start) / calls;
        calls = (int)fmin(MOST_CALLS, 1.0 + LONG_ENOUGH / fmax(t->call[round], 1e-7));
    }
    t2_adaptation_release(adaptation);
    return status;
}

/* The way that a plan of this kind chooses; T2_WAY_PLAN after a message. */
static t2_way chosen(const struct grid *g, t2_way kind, const t2_workload *workload)
{
    t2_adaptation *adaptation = experts_adapt(&g->layers, &g->expert, 1, kind, workload);
    t2_way way = adaptation == NULL ? T2_WAY_PLAN : t2_adaptation_plan(adaptation, 0)->way;
    t2_adaptation_release(adaptation);
    return way;
}

static int add_cell(struct grid *g, int line, int row, int swap, const double put[WAYS],
                    const double call[WAYS])
{
    const t2_workload workload = {.rows = rows[row], .swaps = swaps[swap]};
    double *cost = g->cost[g->count];
    int best = 0;
    for (int w = 0; w < WAYS; w++) {
        cost[w] = swaps[swap] * put[w] + call[w];
        best = cost[w] < cost[best] ? w : best;
    }
    struct experts_mark *of[] = {&g->plan[g->count], &g->measured[g->count]};
    static const t2_way kinds[] = {T2_WAY_PLAN, T2_WAY_AUTO};
    for (int i = 0; i < 2; i++) {
        t2_way way = chosen(g, kinds[i], &workload);
        if (way == T2_WAY_PLAN) {
            return -1;
        }
        *of[i] = (struct experts_mark){.row = line,
                                       .column = row * SWAPS + swap,
                                       .best = (t2_way)(T2_WAY_REBUILD + best),
                                       .chosen = way,
                                       .over = cost[way - T2_WAY_REBUILD] / cost[best]};
    }
    g->count++;
    return 0;
}

static int measure_line(struct grid *g, int line)
{
    for (int row = 0; row < ROWS; row++) {
        struct timed timed[WAYS];
        double put[WAYS], call[WAYS];
        int status = 0;
        for (int round = -1; round < ROUNDS && status == 0; round++) { /* the first packs */
            for (int w = 0; w < WAYS && status == 0; w++) {
                status = time_way(g, (t2_way)(T2_WAY_REBUILD + w), rows[row], &timed[w],
                                  round < 0 ? 0 : round);
            }
        }
        for (int w = 0; w < WAYS && status == 0; w++) {
            put[w] = experts_median(timed[w].swap, ROUNDS);
            call[w] = experts_median(timed[w].call, ROUNDS);
        }
        for (int swap = 0; swap < SWAPS && status == 0; swap++) {
            status = add_cell(g, line, row, swap, put, call);
        }
        if (status != 0) {
            return -1;
        }
    }
    return 0;
}

static int measure_all(struct grid *g)
{
    int status = 0;
    for (int line = 0; line < LINES && status == 0; line++) {
        status = expert_layers_create(&g->layers, &shapes[line / STEPS], 1);
        if (status == 0) {
            status = experts_create(&g->layers, steps[line % STEPS], 1, &g->expert);
            status = status == 0 ? measure_line(g, line) : status;
            experts_release(&g->expert, 1);
            expert_layers_destroy(&g->layers);
        }
    }
    return status;
}

/* ---- results --------------------------------------------------------------------------------- */

static void put_cells(const struct grid *g, t2_text *csv)
{
    t2_text_str(csv, "m,n,changed_step,rows,swaps,rebuild_s,factored_s,delta_s,best,plan,plan_over,"
                     "auto,auto_over\n");
    for (int i = 0; i < g->count; i++) {
        const struct experts_mark *plan = &g->plan[i], *measured = &g->measured[i];
        const int64_t *shape = shapes[plan->row / STEPS];
        t2_text_printf(csv, "%d,%d,%d,%d,%g,%.9f,%.9f,%.9f,%s,%s,%.3f,%s,%.3f\n", (int)shape[0],
                       (int)shape[1], (int)steps[plan->row % STEPS],
                       (int)rows[plan->column / SWAPS], swaps[plan->column % SWAPS], g->cost[i][0],
                       g->cost[i][1], g->cost[i][2], t2_way_str(plan->best),
                       t2_way_str(plan->chosen), plan->over, t2_way_str(measured->chosen),
                       measured->over);
    }
}

static void put_summary(const char *name, const struct experts_mark *marks, int count,
                        t2_text *table)
{
    double over[CELLS];
    int near = 0;
    for (int i = 0; i < count; i++) {
        over[i] = marks[i].over;
        near += over[i] <= NEAR;
    }
    double median = experts_median(over, count);
    printf("%-6s %9.1f %% %10.3f %10.3f %10.3f\n", name, 100.0 * near / count, median,
           over[(int)(0.95 * (count - 1))], over[count - 1]);
    char what[80];
    snprintf(what, sizeof what, "%s: %% of %d cells within 10 %% of the best way", name, count);
    experts_target(table, what, 100.0 * near / count, EXPERTS_AT_LEAST, 95.0);
}

static void put_picture(const struct grid *g, t2_text *svg)
{
    static char line[LINES][NAME], column[COLUMNS][NAME];
    const char *lines[LINES], *columns[COLUMNS];
    for (int i = 0; i < LINES; i++) {
        snprintf(line[i], NAME, "%d x %d%s", (int)shapes[i / STEPS][0], (int)shapes[i / STEPS][1],
                 steps[i % STEPS] > 1 ? ", r / 8" : "");
        lines[i] = line[i];
    }
    for (int i = 0; i < COLUMNS; i++) {
        snprintf(column[i], NAME, "%d, %g", (int)rows[i / SWAPS], swaps[i % SWAPS]);
        columns[i] = column[i];
    }
    experts_plot_grid(svg, lines, LINES, columns, COLUMNS, g->plan, g->measured, g->count);
}

int experts_plan(t2_text *csv, t2_text *svg, t2_text *table)
{
    struct grid *g = calloc(1, sizeof *g);
    const size_t numbers = MOST_ROWS * 2000;
    int status = -1;
    if (g != NULL) {
        g->x = calloc(numbers, sizeof g->x[0]);
        g->y = calloc(numbers, sizeof g->y[0]);
    }
    if (g != NULL && g->x != NULL && g->y != NULL) {
        for (size_t i = 0; i < numbers; i++) {
            g->x[i] = (float)(i % 17) - 8.0f;
        }
        status = measure_all(g);
    }
    if (status == 0) {
        put_cells(g, csv);
        printf("%d cells; cost of the choice over that of the best of three ways\n", g->count);
        printf("%-6s %11s %10s %10s %10s\n", "", "within 10 %", "median", "95 %", "worst");
        put_summary("plan", g->plan, g->count, table);
        put_summary("auto", g->measured, g->count, table);
        if (svg != NULL) {
            put_picture(g, svg);
        }
    }
    if (g != NULL) {
        free(g->x);
        free(g->y);
    }
    free(g);
    return status;
}
