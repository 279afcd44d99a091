/* t2bench experts rows: the layers of a block of SmolLM2-135M for rows that share an expert, that
 * have one each (factored: the products are shared), and for experts in turn (their weights
 * rebuilt, then their rows). A turn is timed once in each round, with another expert each time, and
 * counts as often as there are experts. */
#include "experts.h"
#include "problem.h"

#include <stdlib.h>

enum { MOST_ROWS = 256, ROUNDS = 9, SIZES = 9, SHARED = 32, SHARES = 6 };

/* Query, output, key, value; gate, up, down. */
static const int64_t stack[][2] = {{576, 576},  {576, 576},  {192, 576}, {192, 576},
                                   {1536, 576}, {1536, 576}, {576, 1536}};

enum { ONE, EACH, TURNS, KINDS };

struct heterogeneous {
    struct expert_layers layers;
    t2_expert *expert[MOST_ROWS];
    float *x, *y;
};

/* Seconds of a call with `rows` rows and `count` experts, behind one that brings weights and tables
 * back to where they are in a loop. */
static double factored(const struct heterogeneous *h, const t2_adaptation *adaptation, int64_t rows,
                       int64_t count)
{
    int64_t id[MOST_ROWS];
    for (int64_t i = 0; i < rows; i++) {
        id[i] = (7 * i + 3) % count;
    }
    double start = 0.0;
    int status = 0;
    for (int warm = 1; warm >= 0 && status == 0; warm--) {
        start = bench_now();
        status = expert_layers_run(&h->layers, adaptation, rows, count > 1 ? id : NULL, h->x, h->y);
    }
    return status == 0 ? bench_now() - start : -1.0;
}

/* Seconds of one turn. */
static double turn(const struct heterogeneous *h, t2_expert *const *expert, int64_t rows)
{
    double start = bench_now();
    t2_adaptation *adaptation = experts_adapt(&h->layers, expert, 1, T2_WAY_REBUILD, NULL);
    int status =
        adaptation == NULL ? -1 : expert_layers_run(&h->layers, adaptation, rows, NULL, h->x, h->y);
    double seconds = bench_now() - start;
    t2_adaptation_release(adaptation);
    return status == 0 ? seconds : -1.0;
}

/* Medians of `rows` rows with `count` experts; 0, or -1. */
static int measure(const struct heterogeneous *h, int64_t rows, int64_t count, double out[KINDS])
{
    double seconds[KINDS][ROUNDS];
    t2_adaptation *one = experts_adapt(&h->layers, h->expert, 1, T2_WAY_FACTORED, NULL);
    t2_adaptation *each = experts_adapt(&h->layers, h->expert, count, T2_WAY_FACTORED, NULL);
    int status = one != NULL && each != NULL ? 0 : -1;
    for (int i = -1; i < ROUNDS && status == 0; i++) { /* the first warms up */
        const int at = i < 0 ? 0 : i, first = at % 2 == 0 ? ONE : EACH;
        for (int j = 0; j < 2 && status == 0; j++) {
            const int kind = j == 0 ? first : EACH - first;
            seconds[kind][at] =
                factored(h, kind == ONE ? one : each, rows, kind == ONE ? 1 : count);
            status = seconds[kind][at] < 0.0 ? -1 : 0;
        }
    }
    /* Apart: a turn leaves other things in the caches than the two leave each other. */
    for (int i = 0; i < ROUNDS && status == 0; i++) {
        seconds[TURNS][i] = (double)count * turn(h, &h->expert[i], (rows + count - 1) / count);
        status = seconds[TURNS][i] < 0.0 ? -1 : 0;
    }
    for (int kind = 0; kind < KINDS && status == 0; kind++) {
        out[kind] = experts_median(seconds[kind], ROUNDS);
    }
    t2_adaptation_release(one);
    t2_adaptation_release(each);
    return status;
}

static int measure_all(const struct heterogeneous *h, t2_text *csv, t2_text *svg, t2_text *table)
{
    static const char *const names[] = {"factored, one expert", "factored, an expert a row",
                                        "rebuilt in turn"};
    double x[SIZES], y[KINDS * SIZES], share[SHARES], time[KINDS * SHARES], out[KINDS];
    int status = 0;
    t2_text_str(csv, "rows,experts,one_s,each_s,turns_s,each_over_one,turns_over_each\n");
    printf("%6s %8s %12s %12s %12s %10s %12s\n", "rows", "experts", "one ms", "each ms", "turns ms",
           "each/one", "turns/each");
    for (int i = 0; i < SIZES + SHARES && status == 0; i++) {
        int64_t rows = i < SIZES ? INT64_C(1) << i : SHARED;
        int64_t count = i < SIZES ? rows : INT64_C(1) << (i - SIZES);
        status = measure(h, rows, count, out);
        if (status != 0) {
            break;
        }
        if (i < SIZES && rows == SHARED) {
            experts_target(table, "32 rows with 32 experts, over 32 with one", out[EACH] / out[ONE],
                           EXPERTS_AT_MOST, 1.1);
            experts_target(table, "32 experts rebuilt in turn, over 32 rows with 32 experts",
                           out[TURNS] / out[EACH], EXPERTS_AT_LEAST, 20.0);
        }
        if (i < SIZES) {
            x[i] = (double)rows;
        } else {
            share[i - SIZES] = (double)count;
        }
        for (int kind = 0; kind < KINDS; kind++) {
            *(i < SIZES ? &y[kind * SIZES + i] : &time[kind * SHARES + i - SIZES]) = out[kind];
        }
        t2_text_printf(csv, "%d,%d,%.9f,%.9f,%.9f,%.4f,%.3f\n", (int)rows, (int)count, out[ONE],
                       out[EACH], out[TURNS], out[EACH] / out[ONE], out[TURNS] / out[EACH]);
        printf("%6d %8d %12.3f %12.3f %12.1f %10.3f %12.1f\n", (int)rows, (int)count,
               1e3 * out[ONE], 1e3 * out[EACH], 1e3 * out[TURNS], out[EACH] / out[ONE],
               out[TURNS] / out[EACH]);
    }
    if (status == 0 && svg != NULL) {
        const struct experts_chart charts[] = {
            {"An expert for each row", "rows", names, x, y, KINDS, SIZES},
            {"32 rows", "experts among the 32 rows", names, share, time, KINDS, SHARES}};
        experts_plot_lines(svg, charts, 2);
    }
    return status;
}

int experts_rows(t2_text *csv, t2_text *svg, t2_text *table)
{
    struct heterogeneous *h = calloc(1, sizeof *h);
    int status = h == NULL ? -1
                           : expert_layers_create(&h->layers, stack,
                                                  (int64_t)(sizeof stack / sizeof stack[0]));
    if (status != 0) {
        free(h);
        return -1;
    }
    size_t numbers = (size_t)(MOST_ROWS * h->layers.widest);
    h->x = calloc(numbers, sizeof h->x[0]);
    h->y = calloc(numbers, sizeof h->y[0]);
    status =
        h->x != NULL && h->y != NULL ? experts_create(&h->layers, 1, MOST_ROWS, h->expert) : -1;
    if (status == 0) {
        for (size_t i = 0; i < numbers; i++) {
            h->x[i] = (float)(i % 17) - 8.0f;
        }
        status = measure_all(h, csv, svg, table);
        experts_release(h->expert, MOST_ROWS);
    }
    free(h->x);
    free(h->y);
    expert_layers_destroy(&h->layers);
    free(h);
    return status;
}
