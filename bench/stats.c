/* Statistics for timings: see stats.h.
 *
 * Intervals: Efron & Tibshirani, An Introduction to the Bootstrap, chapter 13 (percentile), widened
 * for small samples as Hesterberg, What Teachers Should Know About the Bootstrap (2015), 4.3: the
 * plain ones of 15 values hold the true median in 91 % of cases. The U test: Mann & Whitney 1947;
 * its exact distribution is the Gaussian binomial coefficient. A sample that holds a NaN has NaN
 * for every statistic. */
#include "stats.h"
#include "problem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The standard error of a 2.5 % quantile of 1000 resamples is 0.5 %. */
enum { RESAMPLES = 1000 };
/* Samples up to this size need no memory from the heap; larger ones may fail, which gives NaN. */
enum { SMALL = 128 };
/* Up to here the exact distribution of U is computed. */
enum { EXACT = 20 };

struct buffer {
    double small[SMALL];
    double *data;
};

static double *buffer_get(struct buffer *buffer, int n)
{
    buffer->data = n <= SMALL ? buffer->small : malloc((size_t)n * sizeof(double));
    return buffer->data;
}

static void buffer_free(struct buffer *buffer)
{
    if (buffer->data != buffer->small) {
        free(buffer->data);
    }
}

static int any_nan(int n, const double *x)
{
    for (int i = 0; i < n; i++) {
        if (isnan(x[i])) {
            return 1;
        }
    }
    return 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The k-th smallest of x[0 .. n), which is reordered so that x[0 .. k) <= x[k] (Hoare's select). */
static double quickselect(int n, double *x, int k)
{
    int low = 0, high = n - 1;
    while (low < high) {
        double pivot = x[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot) {
                i++;
            }
            while (x[j] > pivot) {
                j--;
            }
            if (i <= j) {
                double t = x[i];
                x[i++] = x[j];
                x[j--] = t;
            }
        }
        if (k <= j) {
            high = j;
        } else if (k >= i) {
            low = i;
        } else {
            break;
        }
    }
    return x[k];
}

/* Reorders x; n >= 1 and no NaN. */
static double median_of(int n, double *x)
{
    double upper = quickselect(n, x, n / 2), lower = upper;
    if (n % 2 == 0) {
        lower = x[0];
        for (int i = 1; i < n / 2; i++) {
            lower = fmax(lower, x[i]);
        }
    }
    return 0.5 * lower + 0.5 * upper;
}

double stats_median(int n, const double *x)
{
    struct buffer buffer;
    double median = NAN, *copy;
    if (n <= 0 || any_nan(n, x) || (copy = buffer_get(&buffer, n)) == NULL) {
        return NAN;
    }
    memcpy(copy, x, (size_t)n * sizeof *x);
    median = median_of(n, copy);
    buffer_free(&buffer);
    return median;
}

double stats_min(int n, const double *x)
{
    if (n <= 0 || any_nan(n, x)) {
        return NAN;
    }
    double least = x[0];
    for (int i = 1; i < n; i++) {
        least = fmin(least, x[i]);
    }
    return least;
}

double stats_mad(int n, const double *x)
{
    struct buffer buffer;
    double median = stats_median(n, x), *deviation;
    if (isnan(median) || (deviation = buffer_get(&buffer, n)) == NULL) {
        return NAN;
    }
    for (int i = 0; i < n; i++) {
        deviation[i] = fabs(x[i] - median);
    }
    double mad = median_of(n, deviation);
    buffer_free(&buffer);
    return mad;
}

/* ---- bootstrap ------------------------------------------------------------------------------- */

/* A sorted sample from which resamples are drawn. Order statistics of a resample are found by
 * counting how often each place was drawn: neither the resample nor a sort of it is needed. */
struct sample {
    int n;
    struct buffer values, counts;
    double *sorted;
    int *count;
};

static void sample_free(struct sample *s)
{
    buffer_free(&s->values);
    buffer_free(&s->counts);
}

/* 0 on success; n >= 1. */
static int sample_make(struct sample *s, int n, const double *x)
{
    s->n = n;
    s->sorted = buffer_get(&s->values, n);
    s->count = (int *)buffer_get(&s->counts, n); /* a double is at least as large */
    if (s->sorted == NULL || s->count == NULL || any_nan(n, x)) {
        sample_free(s);
        return -1;
    }
    memcpy(s->sorted, x, (size_t)n * sizeof *x);
    qsort(s->sorted, (size_t)n, sizeof *s->sorted, ascending);
    return 0;
}

/* Draws n of n. One random number makes two places: the bias of multiplying 32 bits is n / 2^32. */
static void sample_draw(struct sample *s, uint64_t *state)
{
    uint64_t n = (uint64_t)s->n;
    memset(s->count, 0, (size_t)s->n * sizeof *s->count);
    for (int i = 0; i < s->n; i += 2) {
        uint64_t bits = bench_random(state);
        s->count[(bits >> 32) * n >> 32]++;
        if (i + 1 < s->n) {
            s->count[(bits & 0xffffffff) * n >> 32]++;
        }
    }
}

static double drawn_median(struct sample *s, uint64_t *state)
{
    sample_draw(s, state);
    int lower_rank = (s->n - 1) / 2, upper_rank = s->n / 2, i = 0, below = s->count[0];
    while (below <= lower_rank) {
        below += s->count[++i];
    }
    double lower = s->sorted[i];
    while (below <= upper_rank) {
        below += s->count[++i];
    }
    return 0.5 * lower + 0.5 * s->sorted[i];
}

static double drawn_min(struct sample *s, uint64_t *state)
{
    sample_draw(s, state);
    int i = 0;
    while (s->count[i] == 0) {
        i++;
    }
    return s->sorted[i];
}

/* How many resamples lie beyond either end of an interval from n values: the share is that of a
 * normal distribution beyond sqrt(n / (n - 1)) t, t being the quantile of Student's distribution
 * (by its expansion in 1 / (n - 1): Abramowitz & Stegun 26.7.5). */
static int beyond(int n)
{
    const double z = 1.959963984540054, z3 = z * z * z, z5 = z3 * z * z; /* 97.5 % */
    double v = n - 1.0;
    double t = z + (z3 + z) / (4.0 * v) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * v * v);
    return (int)(RESAMPLES * 0.5 * erfc(t * sqrt(0.5 * n / v)));
}

/* From the statistic of each resample; n: values in the sample, at least 3. */
static struct stats_interval cut(double *statistic, int n)
{
    if (any_nan(RESAMPLES, statistic)) {
        return (struct stats_interval){NAN, NAN};
    }
    int low = beyond(n), high = RESAMPLES - 1 - low;
    return (struct stats_interval){quickselect(RESAMPLES, statistic, low),
                                   quickselect(RESAMPLES, statistic, high)};
}

static struct stats_interval range(int n, const double *x)
{
    if (n <= 0 || any_nan(n, x)) {
        return (struct stats_interval){NAN, NAN};
    }
    double high = x[0];
    for (int i = 1; i < n; i++) {
        high = fmax(high, x[i]);
    }
    return (struct stats_interval){stats_min(n, x), high};
}

static struct stats_interval bootstrap(int n, const double *x, uint64_t seed,
                                       double (*statistic)(struct sample *s, uint64_t *state))
{
    struct sample s;
    double drawn[RESAMPLES];
    if (n < 3) {
        return range(n, x);
    }
    if (sample_make(&s, n, x) != 0) {
        return (struct stats_interval){NAN, NAN};
    }
    for (int i = 0; i < RESAMPLES; i++) {
        drawn[i] = statistic(&s, &seed);
    }
    sample_free(&s);
    return cut(drawn, n);
}

struct stats_interval stats_median_interval(int n, const double *x, uint64_t seed)
{
    return bootstrap(n, x, seed, drawn_median);
}

struct stats_interval stats_min_interval(int n, const double *x, uint64_t seed)
{
    return bootstrap(n, x, seed, drawn_min);
}

struct stats_interval stats_ratio_interval_paired(int n, const double *x, const double *y,
                                                  uint64_t seed)
{
    struct buffer buffer;
    double *ratio;
    if (n <= 0 || (ratio = buffer_get(&buffer, n)) == NULL) {
        return (struct stats_interval){NAN, NAN};
    }
    for (int i = 0; i < n; i++) {
        ratio[i] = y[i] / x[i];
    }
    struct stats_interval interval = stats_median_interval(n, ratio, seed);
    buffer_free(&buffer);
    return interval;
}

struct stats_interval stats_ratio_interval(int nx, const double *x, int ny, const double *y,
                                           uint64_t seed)
{
    struct stats_interval none = {NAN, NAN};
    if (nx < 3 || ny < 3) {
        struct stats_interval a = range(nx, x), b = range(ny, y);
        return (struct stats_interval){b.low / a.high, b.high / a.low};
    }
    struct sample a, b;
    double drawn[RESAMPLES];
    if (sample_make(&a, nx, x) != 0) {
        return none;
    }
    if (sample_make(&b, ny, y) != 0) {
        sample_free(&a);
        return none;
    }
    for (int i = 0; i < RESAMPLES; i++) {
        double below = drawn_median(&a, &seed);
        drawn[i] = drawn_median(&b, &seed) / below;
    }
    sample_free(&a);
    sample_free(&b);
    return cut(drawn, nx + ny);
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* P(U >= u) for samples without ties. The number of arrangements with U = i is coefficient i of
 * prod over j = 1 .. nx of (1 - q^(ny + j)) / (1 - q^j); all are integers below 2^53. */
static double exact_tail(int nx, int ny, int u)
{
    double count[EXACT * EXACT + 1] = {1.0};
    int top = nx * ny;
    for (int j = 1; j <= nx; j++) {
        for (int i = top; i >= ny + j; i--) {
            count[i] -= count[i - ny - j];
        }
        for (int i = j; i <= top; i++) {
            count[i] += count[i - j];
        }
    }
    double all = 0.0, tail = 0.0;
    for (int i = 0; i <= top; i++) {
        all += count[i];
        tail += i >= u ? count[i] : 0.0;
    }
    return tail / all;
}

/* Sum of the ranks of x among both samples, tied values sharing their mean rank. Both are sorted.
 * *ties becomes the sum of t^3 - t over groups of t equal values. */
static double rank_sum(int nx, const double *x, int ny, const double *y, double *ties)
{
    double sum = 0.0, rank = 0.0;
    *ties = 0.0;
    for (int i = 0, j = 0; i < nx || j < ny;) {
        double value = j == ny || (i < nx && x[i] <= y[j]) ? x[i] : y[j];
        int from_x = 0, from_y = 0;
        while (i < nx && !(x[i] > value)) {
            i++;
            from_x++;
        }
        while (j < ny && !(y[j] > value)) {
            j++;
            from_y++;
        }
        double t = from_x + from_y;
        sum += from_x * (rank + 0.5 * (t + 1.0));
        rank += t;
        *ties += t * (t * t - 1.0);
    }
    return sum;
}

double stats_mann_whitney(int nx, const double *x, int ny, const double *y)
{
    struct sample a, b;
    if (nx <= 0 || ny <= 0) {
        return 1.0; /* nothing speaks for a difference */
    }
    if (sample_make(&a, nx, x) != 0) {
        return NAN;
    }
    if (sample_make(&b, ny, y) != 0) {
        sample_free(&a);
        return NAN;
    }
    double ties, m = nx, n = ny, all = m + n;
    double u = rank_sum(nx, a.sorted, ny, b.sorted, &ties) - 0.5 * m * (m + 1.0);
    u = fmax(u, m * n - u);
    sample_free(&a);
    sample_free(&b);
    if (!(ties > 0.0) && nx <= EXACT && ny <= EXACT) {
        return fmin(1.0, 2.0 * exact_tail(nx, ny, (int)u));
    }
    double variance = m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if (!(variance > 0.0)) {
        return 1.0; /* all values are equal */
    }
    return fmin(1.0, erfc((u - 0.5 * m * n - 0.5) / sqrt(2.0 * variance)));
}

static int by_value(const void *a, const void *b)
{
    const double *x = *(const double *const *)a, *y = *(const double *const *)b;
    return *x != *y ? (*x > *y) - (*x < *y) : (x > y) - (x < y);
}

void stats_holm(int n, double *p)
{
    double **order = malloc((size_t)(n > 0 ? n : 1) * sizeof *order);
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (order == NULL) {
            p[i] = 1.0; /* without memory nothing is called significant */
        } else if (!isnan(p[i])) {
            order[count++] = p + i;
        }
    }
    if (order != NULL) {
        qsort(order, (size_t)count, sizeof *order, by_value);
    }
    double adjusted = 0.0;
    for (int i = 0; i < count; i++) {
        adjusted = fmax(adjusted, fmin(1.0, *order[i] * (count - i)));
        *order[i] = adjusted;
    }
    free(order);
}
