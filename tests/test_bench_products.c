/* The benchmark's references of products against literal sums, and Freivalds' check. */
#include "ops.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void one_thread(void)
{
    t2k_set_num_threads(1);
}

TestSuite(bench_products, .init = one_thread, .timeout = 300);

struct made {
    struct problem p;
    struct bench_arena arena;
    const void *in[BENCH_INPUTS];
    float *out;
};

static void make(struct made *m, const char *op, const char *shape)
{
    char error[500];
    cr_assert_eq(bench_problem(&m->p, op, shape, error, sizeof error), 0, "%s", error);
    cr_assert_eq(bench_arena_create(&m->p, BENCH_HOT, 1, &m->arena, error, sizeof error), 0, "%s",
                 error);
    bench_arena_operands(&m->p, &m->arena, 0, m->in, &m->out);
}

/* ---- references of products ------------------------------------------------------------------ */

static const struct {
    const char *op, *shape;
} products[] = {
    {"sgemm", "1x1x1"},        {"sgemm", "70x131x9"},           {"sgemm", "5x3x1100"},
    {"sgemm_nt", "67x66x515"}, {"sgemm_tn", "66x5x513"},        {"sgemm_tt", "9x70x600"},
    {"sgemm_packed", "3x7x4"}, {"sgemm_batched", "6x5x67x530"}, {"sgemm_batched", "3x70x5x9"},
    {"svd_rebuild", "7x70x5"}, {"svd_rebuild", "65x3x520"},
};
enum { PRODUCTS = sizeof products / sizeof products[0] };

/* Element (row, col) as docs/benchmarks.md defines it: its terms' sum, the sums of their absolute
 * values and squares. */
static void literal(const struct made *m, int64_t row, int64_t col, double sums[3])
{
    const struct problem *p = &m->p;
    const float *a = m->in[0], *b = m->in[1], *s = m->in[2];
    int batched = strcmp(p->op->name, "sgemm_batched") == 0;
    int rebuild = strcmp(p->op->name, "svd_rebuild") == 0;
    int ta = p->op->trans_a == T2K_TRANS, tb = p->op->trans_b == T2K_TRANS || rebuild;
    const int64_t *dim = p->dim + batched;
    int64_t items = batched ? p->dim[0] : 1, item = row / dim[0], i = row % dim[0], k = dim[2];
    memset(sums, 0, 3 * sizeof sums[0]);
    for (int64_t e = 0; e < k; e++) {
        double x, y, scale = rebuild ? 0.75 * (double)s[e] : 1.0;
        if (batched) {
            x = (double)a[(i * items + item) * k + e];
            y = (double)b[(col * items + item) * k + e];
        } else {
            x = (double)(ta ? a[e * dim[0] + i] : a[i * k + e]);
            y = (double)(tb ? b[col * k + e] : b[e * dim[1] + col]);
        }
        double term = x * y * scale;
        sums[0] += term;
        sums[1] += fabs(term);
        sums[2] += term * term;
    }
}

static void check_reference(const struct made *m, int strict, int64_t count, const int64_t *rows)
{
    const struct problem *p = &m->p;
    size_t elements = (size_t)(count * p->cols);
    double *ref = calloc(elements, sizeof *ref), *allowed = calloc(elements, sizeof *allowed);
    cr_assert(ref != NULL && allowed != NULL);
    cr_assert_eq(p->op->reference(p, m->in, strict, count, rows, ref, allowed), T2K_OK);
    double k = (double)p->dim[p->dims - 1];
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < p->cols; j++) {
            double sums[3], at = ref[i * p->cols + j], bound = allowed[i * p->cols + j];
            literal(m, rows[i], j, sums);
            cr_assert(fabs(at - sums[0]) <= 0x1p-40 * sums[1], "%s/%s row %" PRId64 " col %" PRId64,
                      p->op->name, p->shape, rows[i], j);
            /* Not below what is documented or derived; above it by the norms' slack only. */
            double roundings = fmin(k, 256.0) + k / 256.0 + 3.0;
            double exact =
                strict ? roundings * 0x1p-24 * sums[1] : bench_sum_error(k, sums[1], sums[2]);
            cr_assert(bound >= exact * (1.0 - 0x1p-40), "%s/%s: %g below %g", p->op->name, p->shape,
                      bound, exact);
            /* Terms of one product may lie far below their norms' product. */
            cr_assert(k < 100.0 || bound <= 2.5 * exact, "%s/%s: %g above %g", p->op->name,
                      p->shape, bound, exact);
        }
    }
    free(ref);
    free(allowed);
}

Test(bench_products, references_of_products_are_literal_sums)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        t2k_set_num_threads(threads);
        for (size_t i = 0; i < PRODUCTS; i++) {
            struct made m;
            make(&m, products[i].op, products[i].shape);
            int64_t *all = calloc((size_t)m.p.rows, sizeof *all);
            cr_assert_not_null(all);
            for (int64_t r = 0; r < m.p.rows; r++) {
                all[r] = r;
            }
            check_reference(&m, 1, m.p.rows, all);
            check_reference(&m, 0, m.p.rows, all);
            /* Some rows, in any order. */
            const int64_t some[] = {m.p.rows - 1, 0, m.p.rows / 2, m.p.rows / 2, m.p.rows / 3};
            check_reference(&m, 1, 5, some);
            free(all);
            bench_arena_release(&m.arena);
        }
    }
}

/* ---- Freivalds ------------------------------------------------------------------------------- */

/* The result by one chain of float from the last term to the first: an order that is none of ours,
 * without fused multiply-adds. */
static void backwards(const struct made *m)
{
    const struct problem *p = &m->p;
    int batched = strcmp(p->op->name, "sgemm_batched") == 0;
    int rebuild = strcmp(p->op->name, "svd_rebuild") == 0;
    int ta = p->op->trans_a == T2K_TRANS, tb = p->op->trans_b == T2K_TRANS || rebuild;
    const int64_t *dim = p->dim + batched;
    const float *a = m->in[0], *b = m->in[1], *s = m->in[2];
    int64_t items = batched ? p->dim[0] : 1, k = dim[2];
    for (int64_t row = 0; row < p->rows; row++) {
        int64_t item = row / dim[0], i = row % dim[0];
        for (int64_t j = 0; j < p->cols; j++) {
            float sum = 0.0f;
            for (int64_t e = k - 1; e >= 0; e--) {
                int64_t at_a = ta ? e * dim[0] + i : (i * items + item) * k + e;
                int64_t at_b = tb ? (j * items + item) * k + e : e * dim[1] + j;
                float scale = rebuild ? s[e] : 1.0f;
                sum += a[at_a] * scale * b[at_b];
            }
            m->out[row * p->cols + j] = rebuild ? 0.75f * sum : sum;
        }
    }
}

/* Adds `change` to element `at`: the row that is found then. */
static int64_t found_with(const struct made *m, int64_t at, float change)
{
    float right = m->out[at];
    m->out[at] += change;
    int64_t row = m->p.op->check_all(&m->p, m->in, m->out);
    m->out[at] = right;
    return row;
}

static void check_freivalds(const struct made *m)
{
    const struct problem *p = &m->p;
    const char *name = p->op->name;
    int64_t elements = p->rows * p->cols;
    cr_assert_eq(p->op->check_all(p, m->in, m->out), -1, "%s/%s", name, p->shape);
    double squares = 0.0;
    for (int64_t i = 0; i < elements; i++) {
        squares += (double)m->out[i] * (double)m->out[i];
    }
    float typical = (float)sqrt(squares / (double)elements);
    for (int64_t n = 0; n < 40; n++) {
        int64_t at = elements > 40 ? n * (elements - 1) / 39 : n % elements, row = at / p->cols;
        cr_assert_eq(found_with(m, at, typical), row, "%s/%s at %" PRId64, name, p->shape, at);
        cr_assert_eq(found_with(m, at, -0.01f * typical), row, "%s/%s at %" PRId64, name, p->shape,
                     at);
        cr_assert_eq(found_with(m, at, NAN), row, "%s/%s", name, p->shape);
        cr_assert_eq(found_with(m, at, INFINITY), row, "%s/%s", name, p->shape);
    }
    /* Errors of the size that a right result has are none. */
    cr_assert_eq(found_with(m, elements / 2, 0x1p-24f * typical), -1, "%s/%s", name, p->shape);
}

Test(bench_products, freivalds_finds_one_element)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        t2k_set_num_threads(threads);
        for (size_t i = 0; i < PRODUCTS; i++) {
            struct made m;
            void *state;
            make(&m, products[i].op, products[i].shape);
            cr_assert_eq(m.p.op->t2k_open(&m.p, m.in, m.out, &state), T2K_OK);
            cr_assert_eq(m.p.op->t2k_run(state), T2K_OK);
            m.p.op->t2k_close(state);
            check_freivalds(&m);
            backwards(&m);
            check_freivalds(&m);
            bench_arena_release(&m.arena);
        }
    }
}

/* The first of several wrong rows is named, and a row that is wrong twice. */
Test(bench_products, freivalds_names_the_first_row)
{
    struct made m;
    make(&m, "sgemm_batched", "6x5x67x53");
    t2k_set_num_threads(3);
    backwards(&m);
    m.out[23 * 67 + 5] += 1.0f;
    m.out[17 * 67 + 66] += 1.0f;
    cr_expect_eq(m.p.op->check_all(&m.p, m.in, m.out), 17);
    m.out[17 * 67 + 66] -= 1.0f;
    m.out[23 * 67 + 6] -= 1.0f; /* of opposite sign: they cancel where their signs agree */
    cr_expect_eq(m.p.op->check_all(&m.p, m.in, m.out), 23);
    bench_arena_release(&m.arena);
}

/* A long chain in the worst order, over many rows. */
Test(bench_products, freivalds_accepts_one_long_chain)
{
    struct made m;
    make(&m, "sgemm_nt", "2000x1x8192");
    backwards(&m);
    cr_expect_eq(m.p.op->check_all(&m.p, m.in, m.out), -1);
    bench_arena_release(&m.arena);
    make(&m, "sgemm_nt", "3x700x8192");
    backwards(&m);
    cr_expect_eq(m.p.op->check_all(&m.p, m.in, m.out), -1);
    bench_arena_release(&m.arena);
}

/* ---- layers under experts ---------------------------------------------------------------------
 */

static void run_op(const struct problem *p, const void *const in[], float *out)
{
    void *state;
    cr_assert_eq(p->op->t2k_open(p, in, out, &state), T2K_OK);
    cr_assert_eq(p->op->t2k_run(state), T2K_OK);
    p->op->t2k_close(state);
}

/* A row has the same bits alone, with the scales of its expert as the only ones. */
Test(bench_products, rows_of_experts_alone_and_together)
{
    static const char *const ops[] = {"expert_rows", "expert_turns"};
    enum { ROWS = 37, OUT = 45, IN = 70, RANK = 45 };
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        struct made all, one;
        make(&all, ops[i], "37x45x70");
        make(&one, ops[i], "1x45x70");
        run_op(&all.p, all.in, all.out);
        for (int64_t row = 0; row < ROWS; row++) {
            const float *x = all.in[0], *s = all.in[3];
            const void *in[BENCH_INPUTS] = {x + row * IN, all.in[1], all.in[2],
                                            s + (ROWS - 1 - row) * RANK};
            run_op(&one.p, in, one.out);
            cr_expect_eq(memcmp(one.out, all.out + row * OUT, OUT * sizeof(float)), 0,
                         "%s, row %" PRId64, ops[i], row);
        }
        bench_arena_release(&all.arena);
        bench_arena_release(&one.arena);
    }
}

/* One expert for all is the same as the same expert for each. */
Test(bench_products, one_expert_is_many_equal_ones)
{
    enum { ROWS = 37, RANK = 45 };
    struct made one, each;
    make(&one, "expert", "37x45x70");
    make(&each, "expert_rows", "37x45x70");
    float *s = malloc(ROWS * RANK * sizeof *s);
    cr_assert_not_null(s);
    for (int64_t row = 0; row < ROWS; row++) {
        memcpy(s + row * RANK, one.in[3], RANK * sizeof *s);
    }
    const void *in[BENCH_INPUTS] = {one.in[0], one.in[1], one.in[2], s};
    run_op(&one.p, one.in, one.out);
    run_op(&each.p, in, each.out);
    cr_expect_eq(memcmp(one.out, each.out, (size_t)(one.p.rows * one.p.cols) * sizeof(float)), 0);
    free(s);
    bench_arena_release(&one.arena);
    bench_arena_release(&each.arena);
}

/* The packed rebuild is the other one's, unpacked. */
Test(bench_products, packed_rebuild_has_the_bits_of_the_plain_one)
{
    struct made plain, packed;
    void *state;
    make(&plain, "svd_rebuild", "75x130x40");
    make(&packed, "expert_rebuild", "75x130x40");
    run_op(&plain.p, plain.in, plain.out);
    cr_assert_eq(packed.p.op->t2k_open(&packed.p, packed.in, packed.out, &state), T2K_OK);
    cr_assert_eq(packed.p.op->t2k_run(state), T2K_OK);
    cr_assert_eq(packed.p.op->t2k_store(state), T2K_OK);
    packed.p.op->t2k_close(state);
    cr_expect_eq(bench_fingerprint(&plain.p, plain.out), bench_fingerprint(&packed.p, packed.out));
    bench_arena_release(&plain.arena);
    bench_arena_release(&packed.arena);
}
