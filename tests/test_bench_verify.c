/* The benchmark's verification: right results of every operation pass, wrong ones are found and
 * named, whether all rows are checked or only some. */
#include "check.h"
#include "problem.h"
#include "t2k.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Most tests check thousands of small results, where a team only costs time. */
static void one_thread(void)
{
    t2k_set_num_threads(1);
}

TestSuite(bench_verify, .init = one_thread, .timeout = 1200);

#define SAMPLED 64
#define MOST 0x1p60 /* multiply-adds: as if the problem were so large that rows are sampled */

/* Shapes by the names of their sizes: a small one, and one of more than SAMPLED rows (a product's
 * with more rows than one tile, a model's with more items than one). */
static const struct {
    const char *dims, *small, *many_rows;
} shapes[] = {
    {"m n k", "7x9x33", "131x37x65"},
    {"b m n k", "3x5x7x9", "5x40x9x17"},
    {"m n r", "7x9x33", "131x37x65"},
    {"l n h d", "5x2x3x4", "70x2x2x8"},
    {"rows cols", "5x37", "140x19"},
    {"n", "77", "8960"},
    {"l n", "3x2", "40x3"},
    {"q l n h d", "2x5x2x3x4", "70x75x2x2x8"},
    {"rows m n", "5x9x33", "131x37x65"},
};

struct tried {
    struct problem p;
    struct bench_arena arena;
    const void *in[BENCH_INPUTS];
    float *out;
    struct bench_reference *reference;
    char error[512];
};

static const char *shape_of(const struct bench_op *op, int many_rows)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].dims, op->dims) == 0) {
            return many_rows ? shapes[i].many_rows : shapes[i].small;
        }
    }
    cr_assert_fail("%s: no shape for the sizes \"%s\"", op->name, op->dims);
    return NULL;
}

/* Operands, our own result and the reference. macs > 0 replaces those of the problem. */
static void make(struct tried *t, const struct bench_op *op, const char *shape, double macs)
{
    void *state;
    memset(t, 0, sizeof *t);
    cr_assert_eq(bench_problem(&t->p, op->name, shape, t->error, sizeof t->error), 0, "%s",
                 t->error);
    t->p.macs = macs > 0.0 ? macs : t->p.macs;
    if (strcmp(op->name, "model") == 0) {
        t->p.model_dir = bench_model_dir(t->error, sizeof t->error);
        cr_assert_not_null(t->p.model_dir, "%s", t->error);
    }
    cr_assert_eq(bench_arena_create(&t->p, BENCH_HOT, 1, &t->arena, t->error, sizeof t->error), 0,
                 "%s", t->error);
    bench_arena_operands(&t->p, &t->arena, 0, t->in, &t->out);
    cr_assert_eq(op->t2k_open(&t->p, t->in, t->out, &state), T2K_OK, "%s %s", op->name, shape);
    cr_assert_eq(op->t2k_run(state), T2K_OK, "%s %s", op->name, shape);
    cr_assert(op->t2k_store == NULL || op->t2k_store(state) == T2K_OK, "%s %s", op->name, shape);
    op->t2k_close(state);
    t->reference = bench_reference_create(&t->p, t->in, t->error, sizeof t->error);
    cr_assert_not_null(t->reference, "%s", t->error);
}

static void drop(struct tried *t)
{
    bench_reference_destroy(t->reference);
    bench_arena_release(&t->arena);
}

static int verify(struct tried *t, int strict)
{
    t->error[0] = '\0';
    return bench_verify(t->reference, strict, t->out, t->error, sizeof t->error);
}

static void expect_right(struct tried *t, int strict)
{
    cr_expect_eq(verify(t, strict), 0, "%s %s, strict %d: %s", t->p.op->name, t->p.shape, strict,
                 t->error);
}

/* The text has to name row and column. */
static void expect_wrong(struct tried *t, int strict, int64_t row, int64_t col, const char *what)
{
    char place[80];
    snprintf(place, sizeof place, "row %lld, column %lld: ", (long long)row, (long long)col);
    cr_expect_eq(verify(t, strict), -1, "%s %s: %s at %s was not found", t->p.op->name, t->p.shape,
                 what, place);
    cr_expect_eq(strncmp(t->error, place, strlen(place)), 0, "%s %s: %s at %sis called '%s'",
                 t->p.op->name, t->p.shape, what, place, t->error);
}

/* ---- right results -------------------------------------------------------------------------- */

Test(bench_verify, right_results_pass)
{
    t2k_set_num_threads(3);
    for (int i = 0; bench_ops[i] != NULL; i++) {
        for (int many = 0; many < 2; many++) {
            for (int sampled = 0; sampled < 2; sampled++) {
                struct tried t;
                make(&t, bench_ops[i], shape_of(bench_ops[i], many), sampled ? MOST : 0.0);
                expect_right(&t, 1);
                expect_right(&t, 0);
                expect_right(&t, 1);
                drop(&t);
            }
        }
    }
}

Test(bench_verify, how_is_said)
{
    static const struct {
        const char *op, *shape;
        double macs;
        const char *how;
    } cases[] = {
        {"sgemm", "131x37x65", 0.0, "all rows"},
        {"sgemm", "131x37x65", BENCH_FULL_MACS, "all rows"},
        {"sgemm", "131x37x65", BENCH_FULL_MACS + 1.0, "64 rows and Freivalds"},
        {"sgemm", "64x37x65", MOST, "all rows"},
        {"softmax", "140x19", BENCH_FULL_MACS_ALONE, "all rows"},
        {"softmax", "140x19", MOST, "64 rows"},
        {"model", "40x3", MOST, "40 rows"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tried t;
        make(&t, bench_op_find(cases[i].op), cases[i].shape, cases[i].macs);
        cr_expect_str_eq(bench_verified_by(t.reference), cases[i].how, "%s %s: %s", cases[i].op,
                         cases[i].shape, bench_verified_by(t.reference));
        drop(&t);
    }
}

/* ---- one wrong element ---------------------------------------------------------------------- */

/* The float farthest from x's reference that is allowed, on one side of it. */
static float farthest(double limit, float towards)
{
    float x = (float)limit;
    while (towards > 0.0f ? (double)x > limit : (double)x < limit) {
        x = nextafterf(x, -towards);
    }
    while (towards > 0.0f ? (double)nextafterf(x, towards) <= limit
                          : (double)nextafterf(x, towards) >= limit) {
        x = nextafterf(x, towards);
    }
    return x;
}

static void try_element(struct tried *t, int strict, int64_t row, int64_t col, double ref,
                        double allowed)
{
    static const float sides[2] = {-INFINITY, INFINITY};
    static const float specials[3] = {NAN, INFINITY, -INFINITY};
    float *element = &t->out[row * t->p.cols + col], right = *element;
    for (int i = 0; i < 2; i++) {
        *element = farthest(i == 0 ? ref - allowed : ref + allowed, sides[i]);
        expect_right(t, strict);
        *element = nextafterf(*element, sides[i]);
        expect_wrong(t, strict, row, col, "the first float out of bounds");
    }
    for (int i = 0; i < 3; i++) {
        *element = specials[i];
        expect_wrong(t, strict, row, col, "a NaN or an infinity");
    }
    *element = right;
}

static void try_elements(struct tried *t, int strict)
{
    const struct problem *p = &t->p;
    int64_t count = p->rows * p->cols, places = p->op->whole ? 2 : 40;
    double *ref = malloc((size_t)p->cols * sizeof ref[0]);
    double *allowed = malloc((size_t)p->cols * sizeof allowed[0]);
    cr_assert(ref != NULL && allowed != NULL);
    for (int64_t i = 0; i < places && i < count; i++) {
        int64_t at = count <= places ? i : i * (count - 1) / (places - 1), row = at / p->cols;
        cr_assert_eq(p->op->reference(p, t->in, strict, 1, &row, ref, allowed), T2K_OK);
        try_element(t, strict, row, at % p->cols, ref[at % p->cols], allowed[at % p->cols]);
    }
    free(ref);
    free(allowed);
}

/* To the last float on both sides of both bounds. */
Test(bench_verify, one_element_of_all_rows)
{
    for (int i = 0; bench_ops[i] != NULL; i++) {
        struct tried t;
        make(&t, bench_ops[i], shape_of(bench_ops[i], 0), 0.0);
        try_elements(&t, 1);
        try_elements(&t, 0);
        expect_right(&t, 1);
        drop(&t);
    }
}

/* The same where there are too many elements to keep. */
Test(bench_verify, without_room_to_keep)
{
    bench_kept_elements = 10;
    t2k_set_num_threads(3);
    for (int i = 0; bench_ops[i] != NULL; i++) {
        struct tried t;
        make(&t, bench_ops[i], shape_of(bench_ops[i], 1), 0.0);
        expect_right(&t, 1);
        expect_right(&t, 0);
        int64_t at = t.p.rows * t.p.cols * 2 / 3;
        t.out[at] += 1.0f + fabsf(t.out[at]);
        expect_wrong(&t, 1, at / t.p.cols, at % t.p.cols, "an element off by more than 1");
        expect_wrong(&t, 0, at / t.p.cols, at % t.p.cols, "an element off by more than 1");
        drop(&t);
    }
}

/* A row that was not written still holds what the arena started with, or zeros. */
Test(bench_verify, missing_rows)
{
    t2k_set_num_threads(3);
    for (int i = 0; bench_ops[i] != NULL; i++) {
        struct tried t;
        make(&t, bench_ops[i], shape_of(bench_ops[i], 1), 0.0);
        int64_t cols = t.p.cols, row = t.p.rows / 2;
        char place[40], total[80];
        snprintf(place, sizeof place, "row %lld, column ", (long long)row);
        snprintf(total, sizeof total, "; %lld of %lld elements are wrong", (long long)cols,
                 (long long)(t.p.rows * cols));
        for (int zero = 0; zero < 2; zero++) {
            memset(t.out + row * cols, zero ? 0 : 0xff, (size_t)cols * sizeof(float));
            cr_expect_eq(verify(&t, 1), -1, "%s: a missing row was not found", t.p.op->name);
            cr_expect_eq(strncmp(t.error, place, strlen(place)), 0, "%s: %s", t.p.op->name,
                         t.error);
            cr_expect(zero || cols == 1 || strstr(t.error, total) != NULL, "%s: %s", t.p.op->name,
                      t.error);
        }
        drop(&t);
    }
}

static void try_large(const char *op, const char *shape)
{
    struct tried t;
    make(&t, bench_op_find(op), shape, 0.0);
    int64_t count = t.p.rows * t.p.cols;
    const int64_t places[] = {count - 1, count / 3 * 2, count / 3, count / 3 - 1, 0};
    expect_right(&t, 1);
    expect_right(&t, 0);
    for (int64_t j = 0; j < 5; j++) {
        char total[80];
        /* The farthest off of its row is named, and these come ever earlier and farther. */
        t.out[places[j]] += (float)(j + 1);
        expect_wrong(&t, 1, places[j] / t.p.cols, places[j] % t.p.cols, "a wrong element");
        snprintf(total, sizeof total, "; %lld of %lld elements are wrong", (long long)j + 1,
                 (long long)count);
        cr_expect(j == 0 || strstr(t.error, total) != NULL, "%s", t.error);
    }
    drop(&t);
}

/* Results so large that a team shares them, also within rows, and that they are computed in several
 * blocks: the first wrong row is named, and all wrong elements are counted. */
Test(bench_verify, large_results)
{
    t2k_set_num_threads(3);
    for (int kept = 0; kept < 2; kept++) {
        bench_kept_elements = kept ? 1 << 25 : 10;
        try_large("relu", "400064");
        try_large("relu", "400063");
        try_large("softmax", "3x150000");
        try_large("add", "1048576");
    }
}

Test(bench_verify, the_worst_of_a_row_is_named)
{
    struct tried t;
    make(&t, bench_op_find("softmax"), "5x37", 0.0);
    float *row = t.out + 2 * t.p.cols;
    row[3] += 1.0f;
    row[30] -= 5.0f;
    row[31] += 3.0f;
    expect_wrong(&t, 1, 2, 30, "the worst of three elements");
    row[33] = NAN;
    expect_wrong(&t, 1, 2, 33, "a NaN among wrong elements");
    cr_expect_not_null(strstr(t.error, "; 4 of 185 elements are wrong"), "%s", t.error);
    drop(&t);
}

/* ---- rows that are not compared ------------------------------------------------------------- */

/* One element of each row in turn: NaN is found everywhere; another value is in a product, and else
 * in the sampled rows, the first and the last among them. */
static void try_rows(struct tried *t)
{
    const struct problem *p = &t->p;
    int64_t found = 0;
    for (int64_t row = 0; row < p->rows; row += p->op->whole ? 7 : 1) {
        int64_t col = row % p->cols;
        float *element = &t->out[row * p->cols + col], right = *element;
        *element = NAN;
        expect_wrong(t, 1, row, col, "a NaN");
        *element = right + 1.0f + fabsf(right);
        int ends = p->op->sample_rows == NULL && (row == 0 || row == p->rows - 1);
        if (p->op->check_all != NULL || ends) {
            expect_wrong(t, row % 8 != 0, row, col, "an element off by more than 1");
        }
        found += p->op->check_all == NULL && verify(t, 1) != 0;
        *element = right;
    }
    if (p->op->check_all == NULL && !p->op->whole) {
        cr_expect_eq(found, SAMPLED, "%s: in %lld rows", p->op->name, (long long)found);
    }
    expect_right(t, 1);
}

Test(bench_verify, one_element_where_rows_are_sampled)
{
    for (int i = 0; bench_ops[i] != NULL; i++) {
        struct tried t;
        make(&t, bench_ops[i], shape_of(bench_ops[i], 1), MOST);
        if (t.p.rows > SAMPLED) {
            try_rows(&t);
        } else {
            cr_expect_eq(t.p.rows, 1, "%s: the shape for sampling has too few rows", t.p.op->name);
        }
        drop(&t);
    }
}

/* The rows that an operation chooses itself. */
Test(bench_verify, one_element_of_the_chosen_rows)
{
    int64_t rows[SAMPLED];
    for (int i = 0; bench_ops[i] != NULL; i++) {
        if (bench_ops[i]->sample_rows == NULL) {
            continue;
        }
        struct tried t;
        make(&t, bench_ops[i], shape_of(bench_ops[i], 1), MOST);
        int64_t count = t.p.op->sample_rows(&t.p, SAMPLED, rows);
        cr_assert(count > 0 && count <= SAMPLED, "%s", t.p.op->name);
        for (int64_t j = 0; j < count; j += t.p.op->whole ? 9 : 1) {
            int64_t col = j * 31 % t.p.cols;
            float *element = &t.out[rows[j] * t.p.cols + col], right = *element;
            *element = right + 0.01f + 0.01f * fabsf(right);
            expect_wrong(&t, 1, rows[j], col, "an element off by 1 %");
            *element = right;
        }
        drop(&t);
    }
}

/* ---- operands and fingerprints -------------------------------------------------------------- */

/* One bit of one operand, at the start, in the middle and at the end. */
Test(bench_verify, changed_operands)
{
    for (int i = 0; bench_ops[i] != NULL; i++) {
        struct tried t;
        make(&t, bench_ops[i], shape_of(bench_ops[i], 0), 0.0);
        for (int j = 0; j < t.p.inputs; j++) {
            size_t element = t.p.input[j].type == BENCH_F32   ? 4
                             : t.p.input[j].type == BENCH_I64 ? 8
                                                              : 1;
            size_t bytes = (size_t)t.p.input[j].count * element;
            size_t places[3] = {0, bytes / 2, bytes - 1};
            char expected[40];
            snprintf(expected, sizeof expected, "input %d was changed", j);
            for (int k = 0; k < 3; k++) {
                unsigned char *byte = t.arena.base + t.arena.offset[j] + places[k];
                *byte ^= 0x10;
                cr_expect_eq(verify(&t, 1), -1, "%s input %d byte %zu", t.p.op->name, j, places[k]);
                cr_expect_eq(strncmp(t.error, expected, strlen(expected)), 0, "%s", t.error);
                *byte ^= 0x10;
            }
        }
        expect_right(&t, 1);
        drop(&t);
    }
}

Test(bench_verify, fingerprints)
{
    struct tried t;
    make(&t, bench_op_find("sgemm"), "7x9x33", 0.0);
    const int64_t shape[2] = {7, 9};
    uint64_t right = bench_fingerprint(&t.p, t.out);
    cr_expect_eq(right, t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, t.out));
    t.out[62] = nextafterf(t.out[62], INFINITY);
    cr_expect_neq(bench_fingerprint(&t.p, t.out), right);
    drop(&t);
}
