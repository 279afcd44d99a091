/* Which rows of a result file count, and what they say at a glance. */
#include "report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the context ----------------------------------------------------------------------------- */

json_t *report_get(json_t *object, ...)
{
    va_list keys;
    va_start(keys, object);
    const char *key;
    while ((key = va_arg(keys, const char *)) != NULL) {
        object = json_object_get(object, key);
    }
    va_end(keys);
    return object;
}

const char *report_string(json_t *context, const char *part, const char *key)
{
    const char *text = json_string_value(report_get(context, part, key, NULL));
    return text != NULL ? text : "";
}

double report_peak(const struct results *results, const char *name, const char *isa,
                   const char *level, int threads)
{
    size_t i;
    json_t *peak;
    json_array_foreach(json_object_get(results->context, "peaks"), i, peak)
    {
        const char *its_name = json_string_value(json_object_get(peak, "name"));
        const char *its_isa = json_string_value(json_object_get(peak, "isa"));
        const char *its_level = json_string_value(json_object_get(peak, "level"));
        if (its_name != NULL && its_isa != NULL && its_level != NULL &&
            strcmp(its_name, name) == 0 && strcmp(its_isa, isa) == 0 &&
            strcmp(its_level, level) == 0 &&
            json_integer_value(json_object_get(peak, "threads")) == threads) {
            return json_number_value(json_object_get(peak, "value"));
        }
    }
    return 0.0;
}

int report_rank(const struct results *results, const char *isa)
{
    if (strcmp(report_string(report_get(results->context, "machine", NULL), "isa", "active"),
               isa) == 0) {
        return 1000;
    }
    size_t i;
    json_t *entry;
    json_array_foreach(report_get(results->context, "machine", "isa", "list", NULL), i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name != NULL && strcmp(name, isa) == 0) {
            return (int)i;
        }
    }
    return -1;
}

int report_least_threads(const struct results *results)
{
    int least = 0;
    for (int i = 0; i < results->rows; i++) {
        const struct result_row *row = &results->row[i];
        if (row->error == NULL && (least == 0 || row->threads < least)) {
            least = row->threads;
        }
    }
    return least;
}

/* ---- the best rows --------------------------------------------------------------------------- */

struct ranked {
    const struct result_row *row;
    int rank;
};

static int by_case(const struct result_row *x, const struct result_row *y)
{
    int order = strcmp(x->op, y->op);
    order = order != 0 ? order : strcmp(x->shape, y->shape);
    order = order != 0 ? order : strcmp(x->operands, y->operands);
    return order != 0 ? order : (x->threads > y->threads) - (x->threads < y->threads);
}

static int by_case_and_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    int order = by_case(x->row, y->row);
    order = order != 0 ? order : (x->rank < y->rank) - (x->rank > y->rank);
    return order != 0 ? order : (x->row > y->row) - (x->row < y->row);
}

static int by_position(const void *a, const void *b)
{
    const struct result_row *const *x = a, *const *y = b;
    return (*x > *y) - (*x < *y);
}

int report_find_best(struct report_file *file)
{
    const struct results *results = &file->results;
    size_t count = (size_t)results->rows;
    struct ranked *all = calloc(count + 1, sizeof *all);
    file->best = calloc(count + 1, sizeof *file->best);
    file->bests = 0;
    if (all == NULL || file->best == NULL) {
        free(all);
        return -1;
    }
    size_t timed = 0;
    for (size_t i = 0; i < count; i++) {
        const struct result_row *row = &results->row[i];
        if (row->error == NULL) {
            all[timed++] = (struct ranked){row, report_rank(results, row->isa)};
        }
    }
    qsort(all, timed, sizeof *all, by_case_and_rank);
    for (size_t i = 0; i < timed; i++) {
        if (i == 0 || by_case(all[i - 1].row, all[i].row) != 0) {
            file->best[file->bests++] = all[i].row;
        }
    }
    qsort(file->best, (size_t)file->bests, sizeof *file->best, by_position);
    free(all);
    return 0;
}

enum report_verdict report_verdict(const struct result_row *row)
{
    if (row->error != NULL || row->best_peer == NULL || !(row->peer_ratio > 0.0)) {
        return REPORT_NO_PEER;
    }
    double low = row->peer_ratio, high = row->peer_ratio;
    for (int i = 0; i < row->peers; i++) {
        const struct result_peer *peer = &row->peer[i];
        if (peer->error == NULL && strcmp(peer->name, row->best_peer) == 0 &&
            peer->ratio_low > 0.0) {
            low = peer->ratio_low;
            high = peer->ratio_high;
        }
    }
    return low > 1.0 ? REPORT_AHEAD : high < 1.0 ? REPORT_BEHIND : REPORT_LEVEL;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median_limit_share(const struct report_file *file)
{
    double *share = calloc((size_t)file->bests + 1, sizeof *share);
    if (share == NULL) {
        return 0.0;
    }
    size_t n = 0;
    for (int i = 0; i < file->bests; i++) {
        if (file->best[i]->limit != NULL && file->best[i]->limit_share > 0.0) {
            share[n++] = file->best[i]->limit_share;
        }
    }
    qsort(share, n, sizeof *share, by_value);
    double median = n == 0 ? 0.0 : 0.5 * (share[(n - 1) / 2] + share[n / 2]);
    free(share);
    return median;
}

struct report_standing report_standing(const struct report_file *file)
{
    struct report_standing s = {0};
    double logarithms = 0.0;
    for (int i = 0; i < file->bests; i++) {
        enum report_verdict verdict = report_verdict(file->best[i]);
        if (verdict != REPORT_NO_PEER) {
            s.compared++;
            s.ahead += verdict == REPORT_AHEAD;
            s.level += verdict == REPORT_LEVEL;
            s.behind += verdict == REPORT_BEHIND;
            logarithms += log(file->best[i]->peer_ratio);
        }
    }
    s.mean = s.compared > 0 ? exp(logarithms / s.compared) : 0.0;
    s.limit_share = median_limit_share(file);
    for (int i = 0; i < file->results.rows; i++) {
        s.failed += file->results.row[i].error != NULL;
        s.noisy += file->results.row[i].error == NULL && file->results.row[i].noisy;
    }
    return s;
}

/* ---- telling rows ---------------------------------------------------------------------------- */

/* The first shape of the list that a file has, else its row with the most work. */
static const struct telling {
    const char *op, *what;
    const char *shapes; /* space-separated, best first */
    int only;           /* no other shape will do */
} telling[] = {
    {"sgemm_packed", "product, weights packed once", "320x768x256 320x1024x256 320x256x1024", 0},
    {"sgemm", "product, square", "512x512x512 1024x1024x1024 256x256x256", 0},
    {"sgemm_packed", "product, one row", "1x4096x4096 1x768x256", 1},
    {"sgemm_packed", "product, eight rows", "8x4096x4096 8x768x256", 1},
    {"svd_rebuild", "rebuild from singular values", "1024x1024x1024 768x256x256", 0},
    {"attention", "attention", "128x8x8x64 10x32x8x32", 0},
    {"softmax", "softmax", "1024x1024 4096x4096", 0},
    {"layer_norm", "layer norm", "1024x1024 320x256", 0},
    {"exp", "exp", "81920 1048576", 0},
    {"model", "the notebook's model, forward pass", "10x32", 0},
};
const int report_telling_count = (int)(sizeof telling / sizeof *telling);

static const struct result_row *find_hot(const struct report_file *file, const char *op,
                                         const char *shape, size_t length, int threads)
{
    for (int i = 0; i < file->bests; i++) {
        const struct result_row *row = file->best[i];
        if (row->threads == threads && strcmp(row->operands, "hot") == 0 &&
            strcmp(row->op, op) == 0 && strlen(row->shape) == length &&
            memcmp(row->shape, shape, length) == 0) {
            return row;
        }
    }
    return NULL;
}

const struct result_row *report_telling(const struct report_file *file, int i, const char **what)
{
    const struct telling *t = &telling[i];
    int threads = report_least_threads(&file->results);
    *what = t->what;
    for (const char *shape = t->shapes; *shape != '\0';) {
        size_t length = strcspn(shape, " ");
        const struct result_row *row = find_hot(file, t->op, shape, length, threads);
        if (row != NULL) {
            return row;
        }
        shape += length + strspn(shape + length, " ");
    }
    const struct result_row *largest = NULL;
    for (int j = 0; j < file->bests && !t->only; j++) {
        const struct result_row *row = file->best[j];
        if (row->threads == threads && strcmp(row->operands, "hot") == 0 &&
            strcmp(row->op, t->op) == 0 &&
            (largest == NULL || row->median * row->rate > largest->median * largest->rate)) {
            largest = row;
        }
    }
    return largest;
}
