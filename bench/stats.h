/* stats.h - statistics for timings: robust, without assumptions on their distribution. */
#ifndef T2_BENCH_STATS_H
#define T2_BENCH_STATS_H

#include <stdint.h>

double stats_median(int n, const double *x); /* NaN for n = 0 */
double stats_min(int n, const double *x);
/* Median absolute deviation from the median (not scaled). */
double stats_mad(int n, const double *x);

struct stats_interval {
    double low, high;
};
/* 95 % percentile bootstrap intervals, deterministic for a given seed: of the median of x, and of
 * the median of the paired ratios y[i] / x[i]; and of median(y) / median(x) of two independent
 * samples. n < 3: the range. */
struct stats_interval stats_median_interval(int n, const double *x, uint64_t seed);
struct stats_interval stats_min_interval(int n, const double *x, uint64_t seed);
struct stats_interval stats_ratio_interval_paired(int n, const double *x, const double *y,
                                                  uint64_t seed);
struct stats_interval stats_ratio_interval(int nx, const double *x, int ny, const double *y,
                                           uint64_t seed);
/* Two-sided p of Mann-Whitney's U test: exact for small samples without ties, else by the normal
 * approximation with correction for ties and continuity. */
double stats_mann_whitney(int nx, const double *x, int ny, const double *y);
/* Holm's step-down correction in place: p[i] becomes the adjusted p. */
void stats_holm(int n, double *p);

#endif
