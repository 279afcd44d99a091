/* Verification: a result is right where every element lies in the interval that reference and bound
 * allow. An interval is kept as its smallest and its largest float, so that checking the next
 * contender's result takes one pass over it and no arithmetic. */
#include "problem.h"
#include "t2k.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLED_ROWS = 64,
    /* A reference in double is computed in blocks of so many elements, but not of fewer rows. */
    BLOCK_ELEMENTS = 1 << 18,
    BLOCK_ROWS = 64,
    CHECKSUM_STEP = 1 << 20 /* bytes that a thread takes at a time */
};

int64_t bench_kept_elements = 1 << 25; /* 256 MiB of intervals */

/* Both NaN where the result has to be NaN. */
struct interval {
    float low, high;
};

struct bench_reference {
    struct problem p;
    const void *in[BENCH_INPUTS];
    uint64_t operands[BENCH_INPUTS]; /* checksums */
    int all;                         /* all rows are checked element by element */
    int64_t count;                   /* rows that are */
    int64_t *rows;                   /* (count), rising */
    struct interval **kept;          /* [strict]: (count, cols), or NULL: not computed yet */
    char text[40];
};

/* A team costs more than a pass over less than 1 MiB. */
static int threads_for(size_t bytes)
{
    return bytes < 1 << 20 ? 1 : 0;
}

/* ---- operands ------------------------------------------------------------------------------- */

struct checksum {
    const unsigned char *data;
    size_t bytes;
    uint64_t *sums; /* per thread */
};

static uint64_t checksum_bytes(const unsigned char *data, size_t bytes, uint64_t start)
{
    const uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t lane[4] = {start, start + 1, start + 2, start + 3}, word[4], sum = 0;
    for (; bytes >= sizeof word; data += sizeof word, bytes -= sizeof word) {
        memcpy(word, data, sizeof word);
        lane[0] = (lane[0] ^ word[0]) * factor;
        lane[1] = (lane[1] ^ word[1]) * factor;
        lane[2] = (lane[2] ^ word[2]) * factor;
        lane[3] = (lane[3] ^ word[3]) * factor;
    }
    memset(word, 0, sizeof word);
    memcpy(word, data, bytes);
    for (int i = 0; i < 4; i++) {
        lane[i] = (lane[i] ^ word[i]) * factor;
        sum = (sum ^ lane[i] ^ (lane[i] >> 31)) * factor;
    }
    return sum;
}

static void checksum_part(t2k_team *team, void *arg)
{
    const struct checksum *c = arg;
    size_t rank = (size_t)t2k_team_rank(team);
    size_t stride = CHECKSUM_STEP * (size_t)t2k_team_size(team);
    for (size_t at = rank * CHECKSUM_STEP; at < c->bytes; at += stride) {
        size_t rest = c->bytes - at, bytes = rest < CHECKSUM_STEP ? rest : CHECKSUM_STEP;
        c->sums[rank] += checksum_bytes(c->data + at, bytes, at);
    }
}

static t2k_status checksum_operand(const struct bench_reference *r, int i, uint64_t *sum)
{
    const struct bench_input *input = &r->p.input[i];
    size_t element = input->type == BENCH_F32 ? 4 : 8;
    size_t threads = (size_t)t2k_get_num_threads();
    struct checksum c = {.data = r->in[i],
                         .bytes = (size_t)input->count * element,
                         .sums = calloc(threads, sizeof c.sums[0])};
    t2k_status status =
        c.sums == NULL ? T2K_ERR_NOMEM : t2k_parallel(threads_for(c.bytes), checksum_part, &c);
    *sum = 0;
    for (size_t t = 0; status == T2K_OK && t < threads; t++) {
        *sum += c.sums[t];
    }
    free(c.sums);
    return status;
}

/* ---- intervals ------------------------------------------------------------------------------ */

/* The smallest float that is not below x, and the largest that is not above: infinity where x
 * rounds to it. */
static float float_above(double x)
{
    float y = (float)x;
    return (double)y < x && !isinf(y) ? nextafterf(y, INFINITY) : y;
}

static float float_below(double x)
{
    float y = (float)x;
    return (double)y > x && !isinf(y) ? nextafterf(y, -INFINITY) : y;
}

static struct interval interval_of(double ref, double allowed)
{
    struct interval i = {(float)ref, (float)ref};
    if (isfinite(ref)) {
        i.low = float_above(ref - allowed);
        i.high = float_below(ref + allowed);
    }
    return i;
}

static int is_wrong(struct interval i, float x)
{
    return !(x >= i.low && x <= i.high) && !(isnan(i.low) && isnan(x));
}

struct conversion {
    const double *ref, *allowed;
    struct interval *intervals;
    int64_t count;
};

static void share(const t2k_team *team, int64_t count, int64_t *first, int64_t *last)
{
    int64_t rank = t2k_team_rank(team), part = count / t2k_team_size(team) + 1;
    *first = rank * part < count ? rank * part : count;
    *last = *first + part < count ? *first + part : count;
}

static void convert_part(t2k_team *team, void *arg)
{
    const struct conversion *c = arg;
    int64_t first, last;
    share(team, c->count, &first, &last);
    for (int64_t i = first; i < last; i++) {
        c->intervals[i] = interval_of(c->ref[i], c->allowed[i]);
    }
}

/* How many rows, from number `first` on, are computed at once: at least so many that reading the
 * right-hand side of a product once for all of them costs little. */
static int64_t block_rows(const struct bench_reference *r, int64_t first)
{
    int64_t rows = BLOCK_ELEMENTS / r->p.cols, rest = r->count - first;
    rows = rows < BLOCK_ROWS ? BLOCK_ROWS : rows;
    return rest < rows || r->p.op->whole ? rest : rows;
}

/* Room for a block. */
struct block {
    double *ref, *allowed;
    struct interval *intervals;
};

static t2k_status block_alloc(struct block *block, int64_t elements)
{
    size_t n = (size_t)elements;
    block->ref = malloc(n * sizeof block->ref[0]);
    block->allowed = malloc(n * sizeof block->allowed[0]);
    block->intervals = malloc(n * sizeof block->intervals[0]);
    int ok = block->ref != NULL && block->allowed != NULL && block->intervals != NULL;
    return ok ? T2K_OK : T2K_ERR_NOMEM;
}

static void block_free(struct block *block)
{
    free(block->ref);
    free(block->allowed);
    free(block->intervals);
}

/* The intervals of `count` rows, into `intervals` (count, cols). */
static t2k_status compute(const struct bench_reference *r, int strict, int64_t count,
                          const int64_t *rows, const struct block *block,
                          struct interval *intervals)
{
    struct conversion c = {block->ref, block->allowed, intervals, count * r->p.cols};
    t2k_status status =
        r->p.op->reference(&r->p, r->in, strict, count, rows, block->ref, block->allowed);
    if (status == T2K_OK) {
        size_t bytes = (size_t)c.count * sizeof c.ref[0];
        status = t2k_parallel(threads_for(bytes), convert_part, &c);
    }
    return status;
}

/* Fills r->kept[strict] where there are not too many; it stays NULL else. */
static t2k_status keep(const struct bench_reference *r, int strict)
{
    if (r->kept[strict] != NULL || r->count > bench_kept_elements / r->p.cols) {
        return T2K_OK;
    }
    struct block block;
    struct interval *kept = malloc((size_t)(r->count * r->p.cols) * sizeof kept[0]);
    t2k_status status = block_alloc(&block, block_rows(r, 0) * r->p.cols);
    status = kept == NULL ? T2K_ERR_NOMEM : status;
    for (int64_t i = 0, n; status == T2K_OK && i < r->count; i += n) {
        n = block_rows(r, i);
        status = compute(r, strict, n, r->rows + i, &block, kept + i * r->p.cols);
    }
    block_free(&block);
    if (status == T2K_OK) {
        r->kept[strict] = kept;
    } else {
        free(kept);
    }
    return status;
}

/* ---- making a reference --------------------------------------------------------------------- */

static int compare_rows(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The first row, the last one, and one at random from every stretch between them. */
static void random_rows(int64_t total, int64_t count, int64_t *rows)
{
    uint64_t state = 1;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin = total / count * i, end = i + 1 < count ? begin + total / count : total;
        rows[i] = begin + (int64_t)(bench_random(&state) % (uint64_t)(end - begin));
    }
    rows[0] = 0;
    rows[count - 1] = total - 1;
}

/* 0 where there is no memory. */
static int choose_rows(struct bench_reference *r)
{
    const struct bench_op *op = r->p.op;
    double most = op->check_all != NULL ? BENCH_FULL_MACS : BENCH_FULL_MACS_ALONE;
    most = op->full_macs > 0.0 ? op->full_macs : most;
    int sampled = r->p.macs > most && r->p.rows > SAMPLED_ROWS;
    r->all = !sampled;
    r->count = sampled ? SAMPLED_ROWS : r->p.rows;
    r->rows = malloc((size_t)r->count * sizeof r->rows[0]);
    if (r->rows == NULL) {
        return 0;
    }
    if (r->all) {
        for (int64_t i = 0; i < r->count; i++) {
            r->rows[i] = i;
        }
    } else if (op->sample_rows != NULL) {
        r->count = op->sample_rows(&r->p, SAMPLED_ROWS, r->rows);
        qsort(r->rows, (size_t)r->count, sizeof r->rows[0], compare_rows);
    } else {
        random_rows(r->p.rows, r->count, r->rows);
    }
    if (r->all) {
        snprintf(r->text, sizeof r->text, "all rows");
    } else {
        snprintf(r->text, sizeof r->text, "%d rows%s", (int)r->count,
                 op->check_all != NULL ? " and Freivalds" : "");
    }
    return 1;
}

struct bench_reference *bench_reference_create(const struct problem *p, const void *const in[],
                                               char *error, size_t size)
{
    struct bench_reference *r = calloc(1, sizeof *r);
    if (r == NULL) {
        snprintf(error, size, "reference: %s", t2k_status_str(T2K_ERR_NOMEM));
        return NULL;
    }
    r->p = *p;
    memcpy(r->in, in, (size_t)p->inputs * sizeof in[0]);
    r->kept = calloc(2, sizeof r->kept[0]);
    t2k_status status = r->kept == NULL || !choose_rows(r) ? T2K_ERR_NOMEM : T2K_OK;
    for (int i = 0; status == T2K_OK && i < p->inputs; i++) {
        status = checksum_operand(r, i, &r->operands[i]);
    }
    status = status == T2K_OK ? keep(r, 1) : status;
    if (status != T2K_OK) {
        snprintf(error, size, "reference of %s %s: %s", p->op->name, p->shape,
                 t2k_status_str(status));
        bench_reference_destroy(r);
        return NULL;
    }
    return r;
}

void bench_reference_destroy(struct bench_reference *reference)
{
    if (reference != NULL) {
        for (int i = 0; reference->kept != NULL && i < 2; i++) {
            free(reference->kept[i]);
        }
        free(reference->kept);
        free(reference->rows);
        free(reference);
    }
}

const char *bench_verified_by(const struct bench_reference *reference)
{
    return reference->text;
}

/* ---- judging -------------------------------------------------------------------------------- */

struct comparison {
    const struct interval *intervals;
    const int64_t *rows;
    const float *out;
    int64_t count, cols; /* count: elements */
    struct finding {
        int64_t wrong, first; /* how many are wrong; row of the first */
    } * found;                /* per thread */
};

static void compare_part(t2k_team *team, void *arg)
{
    const struct comparison *c = arg;
    struct finding found = {0, -1};
    int64_t first, last;
    share(team, c->count, &first, &last);
    for (int64_t i = first; i < last;) {
        int64_t row = c->rows[i / c->cols], end = (i / c->cols + 1) * c->cols, wrong = 0;
        const float *out = c->out + row * c->cols + i % c->cols;
        end = end < last ? end : last;
        for (int64_t j = i; j < end; j++) {
            wrong += is_wrong(c->intervals[j], out[j - i]);
        }
        found.first = found.wrong == 0 && wrong > 0 ? row : found.first;
        found.wrong += wrong;
        i = end;
    }
    c->found[t2k_team_rank(team)] = found;
}

/* Adds to *found what is wrong in `count` rows. */
static t2k_status compare(const struct bench_reference *r, const struct interval *intervals,
                          int64_t count, const int64_t *rows, const float *out,
                          struct finding *found)
{
    size_t threads = (size_t)t2k_get_num_threads();
    struct comparison c = {.intervals = intervals,
                           .rows = rows,
                           .out = out,
                           .count = count * r->p.cols,
                           .cols = r->p.cols,
                           .found = calloc(threads, sizeof c.found[0])};
    t2k_status status = c.found == NULL ? T2K_ERR_NOMEM
                                        : t2k_parallel(threads_for((size_t)c.count * sizeof(float)),
                                                       compare_part, &c);
    for (size_t t = 0; status == T2K_OK && t < threads; t++) {
        found->first = found->wrong == 0 ? c.found[t].first : found->first;
        found->wrong += c.found[t].wrong;
    }
    free(c.found);
    return status;
}

/* All rows that are checked element by element. */
static t2k_status compare_rows_of(const struct bench_reference *r, int strict, const float *out,
                                  struct finding *found)
{
    t2k_status status = keep(r, strict);
    if (status != T2K_OK || r->kept[strict] != NULL) {
        return status != T2K_OK ? status
                                : compare(r, r->kept[strict], r->count, r->rows, out, found);
    }
    struct block block;
    status = block_alloc(&block, block_rows(r, 0) * r->p.cols);
    for (int64_t i = 0, n; status == T2K_OK && i < r->count; i += n) {
        n = block_rows(r, i);
        status = compute(r, strict, n, r->rows + i, &block, block.intervals);
        if (status == T2K_OK) {
            status = compare(r, block.intervals, n, r->rows + i, out, found);
        }
    }
    block_free(&block);
    return status;
}

/* Names the element of `row` that is farthest off its interval; *wrong elements of the row are. */
static t2k_status name_worst(const struct bench_reference *r, int strict, int64_t row,
                             const float *out, int64_t *wrong, char *text, size_t size)
{
    const float *x = out + row * r->p.cols;
    size_t cols = (size_t)r->p.cols;
    double *ref = malloc(cols * sizeof ref[0]), *allowed = malloc(cols * sizeof allowed[0]);
    double worst = -1.0;
    t2k_status status = T2K_ERR_NOMEM;
    if (ref != NULL && allowed != NULL) {
        status = r->p.op->reference(&r->p, r->in, strict, 1, &row, ref, allowed);
    }
    *wrong = 0;
    for (size_t j = 0; status == T2K_OK && j < cols; j++) {
        if (is_wrong(interval_of(ref[j], allowed[j]), x[j])) {
            double off = fabs((double)x[j] - ref[j]);
            off = isnan(off) ? HUGE_VAL : off;
            ++*wrong;
            if (off > worst) {
                worst = off;
                snprintf(text, size, "row %lld, column %lld: %.9g, expected %.9g +- %.3g",
                         (long long)row, (long long)j, (double)x[j], ref[j], allowed[j]);
            }
        }
    }
    free(ref);
    free(allowed);
    return status;
}

/* The first row from `row` on that holds a NaN or an infinity; -1: none. */
static int64_t find_special(const struct problem *p, int64_t row, const float *out)
{
    for (; row < p->rows; row++) {
        int special = 0;
        for (int64_t j = 0; j < p->cols; j++) {
            special |= !isfinite(out[row * p->cols + j]);
        }
        if (special) {
            return row;
        }
    }
    return -1;
}

/* The rows that were not compared: *wrong is nonzero, and the text made, where they do not hold. */
static t2k_status check_rest(const struct bench_reference *r, int strict, const float *out,
                             int64_t *wrong, char *text, size_t size)
{
    *wrong = 0;
    for (int64_t row = find_special(&r->p, 0, out); row >= 0;
         row = find_special(&r->p, row + 1, out)) {
        t2k_status status = name_worst(r, strict, row, out, wrong, text, size);
        if (status != T2K_OK || *wrong > 0) {
            return status;
        }
    }
    int64_t row = r->p.op->check_all != NULL ? r->p.op->check_all(&r->p, r->in, out) : -1;
    if (row < 0 || row >= r->p.rows) {
        return row < 0 ? T2K_OK : T2K_ERR_NOMEM;
    }
    t2k_status status = name_worst(r, strict, row, out, wrong, text, size);
    if (status == T2K_OK && *wrong == 0) {
        *wrong = 1;
        snprintf(text, size, "row %lld: the sum over it is wrong, though each element is in bounds",
                 (long long)row);
    }
    return status;
}

static int fail(t2k_status status, char *error, size_t size)
{
    snprintf(error, size, "verification: %s", t2k_status_str(status));
    return -1;
}

int bench_verify(const struct bench_reference *reference, int strict, const float *out, char *error,
                 size_t size)
{
    const struct bench_reference *r = reference;
    struct finding found = {0, -1};
    int64_t wrong = 0;
    int bound = strict != 0 || r->p.op->one_bound;
    for (int i = 0; i < r->p.inputs; i++) {
        uint64_t now;
        t2k_status status = checksum_operand(r, i, &now);
        if (status != T2K_OK) {
            return fail(status, error, size);
        }
        if (now != r->operands[i]) {
            snprintf(error, size, "input %d was changed: expected to be read only", i);
            return -1;
        }
    }
    t2k_status status = compare_rows_of(r, bound, out, &found);
    if (status == T2K_OK && found.wrong > 0) {
        /* Only an element at the very edge of its bound may hold when its row is computed alone. */
        snprintf(error, size, "row %lld: an element is out of its bound", (long long)found.first);
        status = name_worst(r, bound, found.first, out, &wrong, error, size);
        size_t used = strlen(error);
        if (status == T2K_OK && found.wrong > 1) {
            snprintf(error + used, size - used, "; %lld of %lld elements are wrong",
                     (long long)found.wrong, (long long)(r->count * r->p.cols));
        }
        return status == T2K_OK ? -1 : fail(status, error, size);
    }
    if (status == T2K_OK && !r->all) {
        status = check_rest(r, bound, out, &wrong, error, size);
    }
    return status != T2K_OK ? fail(status, error, size) : wrong > 0 ? -1 : 0;
}

uint64_t bench_fingerprint(const struct problem *p, const float *out)
{
    const int64_t shape[2] = {p->rows, p->cols};
    return t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, out);
}
