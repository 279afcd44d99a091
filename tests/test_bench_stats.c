/* Statistics of the benchmark: against values of SciPy and statsmodels, and by simulation. */
#include "stats.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 1001 };

static void near(double got, double expected, const char *what)
{
    cr_expect(fabs(got - expected) <= 1e-12 * fabs(expected) + 1e-300, "%s: %.17g, expected %.17g",
              what, got, expected);
}

/* Uniform in (0, 1), by SplitMix64. */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

/* Times as a shared machine gives them: a floor, noise above it, and a long tail. Its median is
 * found by inverting P(x <= 1 + d) = 1 - 0.9 exp(-d / 0.01) - 0.1 exp(-d / 0.1) at 1/2. */
#define TIMES_MEDIAN 1.0079207130549444
static double some_time(uint64_t *state)
{
    double scale = uniform(state) < 0.9 ? 0.01 : 0.1;
    return 1.0 - scale * log(uniform(state));
}

/* ---- order statistics ----------------------------------------------------------------------- */

Test(bench_stats, median_min_mad)
{
    static const struct {
        int n;
        double x[6], median, min, mad; /* mad: scipy.stats.median_abs_deviation */
    } cases[] = {
        {1, {3.5}, 3.5, 3.5, 0.0},
        {2, {3.0, 1.0}, 2.0, 1.0, 1.0},
        {3, {9.0, 1.0, 2.0}, 2.0, 1.0, 1.0},
        {4, {4.0, 3.0, 2.0, 1.0}, 2.5, 1.0, 1.0},
        {5, {100.0, 1.0, 2.0, 4.0, 3.0}, 3.0, 1.0, 1.0},
        {6, {7.0, 7.0, 7.0, 7.0, 7.0, 7.0}, 7.0, 7.0, 0.0},
        {6, {1.0, INFINITY, 2.0, INFINITY, 3.0, 4.0}, 3.5, 1.0, 2.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        near(stats_median(cases[i].n, cases[i].x), cases[i].median, "median");
        near(stats_min(cases[i].n, cases[i].x), cases[i].min, "min");
        near(stats_mad(cases[i].n, cases[i].x), cases[i].mad, "mad");
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All sizes, samples with few and many ties, sorted and reversed: quickselect against a sort. */
Test(bench_stats, median_is_the_middle_of_the_sorted_sample)
{
    uint64_t state = 5;
    double x[LARGE], sorted[LARGE];
    for (int n = 1; n <= LARGE; n = n < 60 ? n + 1 : n + 157) {
        for (int kind = 0; kind < 4; kind++) {
            for (int i = 0; i < n; i++) {
                double u = uniform(&state);
                x[i] = kind == 0 ? u : kind == 1 ? floor(4.0 * u) : kind == 2 ? i : -i;
            }
            memcpy(sorted, x, sizeof x);
            qsort(sorted, (size_t)n, sizeof *sorted, ascending);
            near(stats_median(n, x), 0.5 * (sorted[(n - 1) / 2] + sorted[n / 2]), "median");
            near(stats_min(n, x), sorted[0], "min");
        }
    }
}

Test(bench_stats, samples_are_not_changed)
{
    const double x[] = {3.0, 1.0, 2.0, 5.0}, y[] = {4.0, 9.0, 7.0, 8.0};
    double a[4], b[4];
    memcpy(a, x, sizeof a);
    memcpy(b, y, sizeof b);
    stats_median(4, a);
    stats_mad(4, a);
    stats_median_interval(4, a, 1);
    stats_ratio_interval_paired(4, a, b, 1);
    stats_ratio_interval(4, a, 4, b, 1);
    stats_mann_whitney(4, a, 4, b);
    cr_expect(memcmp(a, x, sizeof a) == 0 && memcmp(b, y, sizeof b) == 0);
}

/* ---- edges ----------------------------------------------------------------------------------- */

static void is_nan(struct stats_interval interval, const char *what)
{
    cr_expect(isnan(interval.low) && isnan(interval.high), "%s: [%g, %g], expected NaN", what,
              interval.low, interval.high);
}

static void is_range(struct stats_interval interval, double low, double high, const char *what)
{
    cr_expect(interval.low == low && interval.high == high, "%s: [%.17g, %.17g], not [%g, %g]",
              what, interval.low, interval.high, low, high);
}

Test(bench_stats, nothing_gives_nan)
{
    cr_expect(isnan(stats_median(0, NULL)) && isnan(stats_min(0, NULL)) &&
              isnan(stats_mad(0, NULL)));
    is_nan(stats_median_interval(0, NULL, 1), "median");
    is_nan(stats_min_interval(0, NULL, 1), "min");
    is_nan(stats_ratio_interval_paired(0, NULL, NULL, 1), "paired");
    is_nan(stats_ratio_interval(0, NULL, 0, NULL, 1), "ratio");
    const double x[] = {1.0, 2.0};
    cr_expect_eq(stats_mann_whitney(0, NULL, 2, x), 1.0);
    cr_expect_eq(stats_mann_whitney(2, x, 0, NULL), 1.0);
    stats_holm(0, NULL);
}

Test(bench_stats, a_nan_is_passed_on)
{
    double x[200], y[200];
    for (int i = 0; i < 200; i++) {
        x[i] = y[i] = 1.0 + i;
    }
    for (int n = 1; n <= 200; n += n < 4 ? 1 : 98) {
        x[n - 1] = NAN;
        cr_expect(isnan(stats_median(n, x)) && isnan(stats_min(n, x)) && isnan(stats_mad(n, x)));
        is_nan(stats_median_interval(n, x, 1), "median");
        is_nan(stats_min_interval(n, x, 1), "min");
        is_nan(stats_ratio_interval_paired(n, y, x, 1), "paired");
        is_nan(stats_ratio_interval(n, x, n, y, 1), "ratio");
        is_nan(stats_ratio_interval(n, y, n, x, 1), "ratio");
        cr_expect(isnan(stats_mann_whitney(n, x, n, y)) && isnan(stats_mann_whitney(n, y, n, x)));
        x[n - 1] = n;
    }
}

Test(bench_stats, small_samples_give_their_range)
{
    const double x[] = {2.0, 4.0}, y[] = {8.0, 6.0}, z[] = {1.0, 10.0, 5.0};
    is_range(stats_median_interval(1, x, 1), 2.0, 2.0, "n = 1");
    is_range(stats_median_interval(2, x, 1), 2.0, 4.0, "n = 2");
    is_range(stats_min_interval(2, y, 1), 6.0, 8.0, "min, n = 2");
    is_range(stats_ratio_interval_paired(2, x, y, 1), 1.5, 4.0, "paired");
    is_range(stats_ratio_interval(2, x, 2, y, 1), 1.5, 4.0, "ratio");
    is_range(stats_ratio_interval(2, x, 3, z, 1), 0.25, 5.0, "2 and 3");
}

Test(bench_stats, equal_values_give_a_point)
{
    double x[150], y[150];
    for (int i = 0; i < 150; i++) {
        x[i] = 4.0;
        y[i] = 6.0;
    }
    for (int n = 1; n <= 150; n += 7) {
        is_range(stats_median_interval(n, x, 3), 4.0, 4.0, "median");
        is_range(stats_min_interval(n, x, 3), 4.0, 4.0, "min");
        is_range(stats_ratio_interval_paired(n, x, y, 3), 1.5, 1.5, "paired");
        is_range(stats_ratio_interval(n, x, n + n % 3, y, 3), 1.5, 1.5, "ratio");
        cr_expect_eq(stats_mann_whitney(n, x, n, x), 1.0);
    }
}

/* ---- intervals ------------------------------------------------------------------------------- */

Test(bench_stats, intervals_are_deterministic)
{
    uint64_t state = 9;
    double x[40];
    for (int i = 0; i < 40; i++) {
        x[i] = some_time(&state);
    }
    struct stats_interval a = stats_median_interval(40, x, 17),
                          b = stats_median_interval(40, x, 17);
    is_range(b, a.low, a.high, "the same seed");
    cr_expect(a.low < stats_median(40, x) && stats_median(40, x) < a.high);
    /* Order does not matter, scale multiplies. */
    double y[40];
    for (int i = 0; i < 40; i++) {
        y[i] = 2.0 * x[39 - i];
    }
    is_range(stats_median_interval(40, y, 17), 2.0 * a.low, 2.0 * a.high, "reversed");
}

/* The bootstrap's distribution of the median of 15 values is known: it lies at or below the k-th of
 * them where at least 8 of 15 draws do, each with probability k / 15. That is 0.4, 2.6 and 8.8 %
 * for k = 3, 4, 5, and the ends are cut at 1.3 %: the 4th and 12th value. */
Test(bench_stats, interval_of_fifteen)
{
    double x[15];
    for (int i = 0; i < 15; i++) {
        x[i] = (i * 7) % 15 + 1;
    }
    for (uint64_t seed = 1; seed <= 10; seed++) {
        is_range(stats_median_interval(15, x, seed), 4.0, 12.0, "n = 15");
    }
}

/* How often 95 % intervals of `n` times hold the true value, in percent. */
enum kind { MEDIAN, PAIRED, RATIO, KINDS };
static double coverage(enum kind kind, int n)
{
    enum { RUNS = 1500, MOST = 60 };
    uint64_t state = 100 + (uint64_t)n;
    int held = 0;
    for (int run = 0; run < RUNS; run++) {
        double x[MOST], y[MOST], truth = kind == MEDIAN ? TIMES_MEDIAN : 1.25;
        for (int i = 0; i < n; i++) {
            x[i] = some_time(&state);
            y[i] = 1.25 * some_time(&state);
        }
        struct stats_interval interval = kind == MEDIAN ? stats_median_interval(n, x, (uint64_t)run)
                                         : kind == PAIRED
                                             ? stats_ratio_interval_paired(n, x, y, (uint64_t)run)
                                             : stats_ratio_interval(n, x, n, y, (uint64_t)run);
        held += interval.low <= truth && truth <= interval.high;
    }
    return 100.0 * held / RUNS;
}

Test(bench_stats, intervals_hold_the_truth)
{
    static const char *const name[KINDS] = {"median", "paired ratio", "ratio of medians"};
    static const int sizes[] = {8, 15, 30, 60};
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            double percent = coverage((enum kind)kind, sizes[i]);
            cr_log_info("%s of %d: %.1f %%", name[kind], sizes[i], percent);
            cr_expect(percent > 92.0 && percent < 99.0, "%s of %d: in %.1f %% of the runs",
                      name[kind], sizes[i], percent);
        }
    }
}

/* The interval of the minimum begins at the minimum and ends within the first few values. */
Test(bench_stats, min_interval)
{
    double x[30];
    for (int i = 0; i < 30; i++) {
        x[i] = 1.0 + (i * 11) % 30;
    }
    struct stats_interval interval = stats_min_interval(30, x, 4);
    /* P(min of a resample > k) = (1 - k / 30)^30: 4.2 % for k = 3, 1.4 % for 4. */
    is_range(interval, 1.0, 4.0, "min of 30");
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* p of scipy.stats.mannwhitneyu, SciPy 1.17.1, two-sided; method "exact" where a sample has at most
 * 20 values and there are no ties, else "asymptotic" with continuity correction. */
Test(bench_stats, mann_whitney)
{
    static const struct {
        int nx, ny;
        double x[7], y[7], p;
    } cases[] = {
        {5, 4, {19, 22, 16, 29, 24}, {20, 11, 17, 12}, 0.1111111111111111},
        {3, 3, {1, 2, 3}, {4, 5, 6}, 0.1},
        {1, 1, {1.1}, {2.2}, 1.0},
        {5, 7, {1, 4, 6, 7, 9.5}, {2, 3, 5, 8, 10, 11, 12}, 0.4318181818181819},
        {5, 6, {1, 2, 2, 3, 5}, {2, 3, 4, 4, 6, 7}, 0.13862587987892763},
        {3, 3, {1, 1, 1}, {1, 1, 2}, 0.5049850750938458},
        {3, 3, {3, 3, 3}, {3, 3, 3}, 1.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        near(stats_mann_whitney(cases[i].nx, cases[i].x, cases[i].ny, cases[i].y), cases[i].p, "p");
        near(stats_mann_whitney(cases[i].ny, cases[i].y, cases[i].nx, cases[i].x), cases[i].p,
             "p, exchanged");
    }
}

Test(bench_stats, mann_whitney_of_larger_samples)
{
    double x[22], y[22];
    for (int i = 0; i < 20; i++) {
        x[i] = i;
        y[i] = i + 10.5;
    }
    near(stats_mann_whitney(20, x, 20, y), 6.91365976465362e-06, "20 and 20, exact");
    for (int i = 0; i < 20; i++) {
        x[i] = 0.5 + i * i * 0.3;
        y[i] = (i + 1) * 4.1;
    }
    near(stats_mann_whitney(20, x, 7, y), 0.36977129151042193, "20 and 7, exact");
    for (int i = 0; i < 22; i++) {
        x[i] = (i * 7) % 23 + 0.25;
        y[i] = (i * 5) % 23 + 3.5;
    }
    near(stats_mann_whitney(21, x, 22, y), 0.14157886335524383, "21 and 22, approximate");
}

/* Under the null hypothesis p is uniform, or larger. */
Test(bench_stats, mann_whitney_rejects_as_often_as_it_says)
{
    uint64_t state = 77;
    for (int n = 5; n <= 25; n += 5) {
        int rejected = 0;
        for (int run = 0; run < 4000; run++) {
            double x[25], y[25];
            for (int i = 0; i < n; i++) {
                x[i] = some_time(&state);
                y[i] = some_time(&state);
            }
            rejected += stats_mann_whitney(n, x, n, y) <= 0.05;
        }
        double percent = rejected / 40.0;
        cr_expect(percent > 2.5 && percent < 6.1, "n = %d: %.2f %%", n, percent);
    }
}

/* statsmodels.stats.multitest.multipletests(method='holm'). */
Test(bench_stats, holm)
{
    double p[] = {0.01, 0.04, 0.03, 0.005, 0.5};
    const double p_adjusted[] = {0.04, 0.09, 0.09, 0.025, 0.5};
    double q[] = {0.02, 0.02, 0.9, 0.6, NAN, 0.001, 0.3};
    const double q_adjusted[] = {0.1, 0.1, 1.0, 1.0, NAN, 0.006, 0.9};
    stats_holm(5, p);
    stats_holm(7, q);
    for (int i = 0; i < 5; i++) {
        near(p[i], p_adjusted[i], "p");
    }
    for (int i = 0; i < 7; i++) {
        if (isnan(q_adjusted[i])) {
            cr_expect(isnan(q[i]));
        } else {
            near(q[i], q_adjusted[i], "q");
        }
    }
}
