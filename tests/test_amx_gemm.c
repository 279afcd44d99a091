/* The product on the matrix unit: over tiles in software everywhere (amx_groups.h), and on the unit
 * itself where the CPU has one. */
#include "amx_groups.h"
#include "check.h"
#include "ops/gemm_class.h"
#include "ref.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INTEGERS, UNIFORM, WIDE };

struct product {
    int fast; /* class; else bf16 */
    t2k_transpose trans_a, trans_b;
    size_t m, n, k, pad;
    float alpha, beta;
    int epilogue, packed, threads;
};

struct operands {
    struct guarded a, b, c;
    float *A, *B, *before;
    size_t lda, ldb, ldc, count;
    float *bias, *scale, *residual;
    t2k_epilogue epilogue;
};

/* ---- groups --------------------------------------------------------------------------------- */

enum { GROUPS = 3 };

/* Group i, or nonzero where it cannot run here. The last one is the hardware. */
static int group(int i, struct amx_groups *g)
{
    char reason[96];
    if (i == 0) {
        *g = amx_model_groups;
        return 0;
    }
    if (i == 1) {
        *g = amx_vector_groups;
        return g->fast == NULL || !t2k_cpu_offers(g->features, reason, sizeof reason);
    }
    for (int isa = 0; isa < t2k_isa_count(); isa++) {
        t2k_isa_info info;
        t2k_isa_get(isa, &info);
        if (strcmp(info.name, "amx") == 0 && info.usable) {
            const t2k_table *own = t2k_table_own(isa);
            *g = (struct amx_groups){"hardware", "", own->gemm_fast, own->gemm_bf16, NULL};
            return 0;
        }
    }
    return 1;
}

static void no_faults(const struct amx_groups *g)
{
    if (g->counts != NULL) {
        const struct amx_counts counts = g->counts();
        cr_assert_eq(counts.faults, 0, "%s: %d faults", g->name, counts.faults);
        cr_assert_eq(counts.configurations, counts.releases);
    }
}

/* ---- products ------------------------------------------------------------------------------- */

static float number(struct rng *rng, int kind)
{
    if (kind == INTEGERS) {
        return (float)((int)rng_below(rng, 17) - 8);
    }
    const float x = rng_uniform(rng);
    return kind == UNIFORM ? x : ldexpf(x, (int)rng_below(rng, 61) - 30);
}

static float *numbers(struct guarded *g, struct rng *rng, int kind, size_t rows, size_t ld,
                      size_t cols)
{
    const size_t count = rows == 0 || cols == 0 ? 0 : (rows - 1) * ld + cols;
    float *x = guarded_floats(g, count);
    for (size_t i = 0; i < count; i++) {
        x[i] = number(rng, kind);
    }
    return x;
}

static struct operands make(const struct product *p, struct rng *rng, int kind)
{
    struct operands o = {0};
    const int ta = p->trans_a == T2K_TRANS, tb = p->trans_b == T2K_TRANS;
    const size_t a_cols = ta ? p->m : p->k, b_cols = tb ? p->k : p->n;
    o.lda = a_cols + p->pad;
    o.ldb = b_cols + 2 * p->pad;
    o.ldc = p->n + 3 * p->pad;
    o.A = numbers(&o.a, rng, kind, ta ? p->k : p->m, o.lda, a_cols);
    o.B = numbers(&o.b, rng, kind, tb ? p->n : p->k, o.ldb, b_cols);
    o.count = (p->m - 1) * o.ldc + p->n;
    o.before = malloc(3 * o.count * sizeof *o.before + 2 * p->n * sizeof *o.before);
    o.residual = o.before + o.count;
    o.bias = o.residual + o.count;
    o.scale = o.bias + p->n;
    for (size_t i = 0; i < 2 * o.count + 2 * p->n; i++) {
        o.before[i] = number(rng, INTEGERS);
    }
    o.epilogue = (t2k_epilogue){.size = sizeof o.epilogue,
                                .bias = o.bias,
                                .scale = o.scale,
                                .activation = T2K_ACT_RELU,
                                .residual = o.residual,
                                .ldr = (int64_t)o.ldc};
    return o;
}

static void discard(struct operands *o)
{
    guarded_free(&o->a);
    guarded_free(&o->b);
    guarded_free(&o->c);
    free(o->before);
}

/* C by the driver, tiles as given, into o->c. */
static float *compute(const struct amx_groups *g, const struct product *p, struct operands *o)
{
    t2k_gemm_job job;
    float *C = guarded_floats(&o->c, o->count);
    memcpy(C, o->before, o->count * sizeof *C);
    cr_assert_eq(t2k_gemm_check((int64_t)p->m, (int64_t)p->n, (int64_t)p->k, p->alpha, p->beta, C,
                                (int64_t)o->ldc, p->epilogue ? &o->epilogue : NULL, &job),
                 T2K_OK);
    cr_assert_eq(t2k_gemm_check_a(p->trans_a, o->A, (int64_t)o->lda, &job), T2K_OK);
    cr_assert_eq(t2k_gemm_check_b(p->trans_b, o->B, (int64_t)o->ldb, &job), T2K_OK);
    job.tiles = p->fast ? g->fast : g->bf16;
    unsigned char *blob = NULL;
    if (p->packed) {
        const size_t panels = (p->n + T2K_TILE_LINES - 1) / T2K_TILE_LINES;
        blob = t2k_alloc(panels * t2k_tiles_column_bytes(job.tiles, p->k));
        t2k_tiles_pack_columns(&job, 0, panels, blob);
        job.tile_panels = blob;
        job.B = NULL;
    }
    t2k_set_num_threads(p->threads > 0 ? p->threads : 1);
    cr_assert_eq(t2k_gemm_run(&job), T2K_OK);
    t2k_set_num_threads(0);
    cr_assert(guarded_intact(&o->c), "wrote before C");
    t2k_release(blob);
    return C;
}

static void exact(const struct amx_groups *g, const struct product *p, struct rng *rng)
{
    struct operands o = make(p, rng, INTEGERS);
    float *want = malloc(o.count * sizeof *want);
    memcpy(want, o.before, o.count * sizeof *want);
    ref_sgemm_strict(p->trans_a, p->trans_b, p->m, p->n, p->k, p->alpha, o.A, o.lda, o.B, o.ldb,
                     p->beta, want, o.ldc, p->epilogue ? &o.epilogue : NULL);
    const float *got = compute(g, p, &o);
    const size_t at = first_difference(got, want, o.count);
    cr_assert_eq(at, o.count,
                 "%s %s %zux%zux%zu ta %d tb %d packed %d threads %d: %a at %zu, not %a", g->name,
                 p->fast ? "fast" : "bf16", p->m, p->n, p->k, p->trans_a == T2K_TRANS,
                 p->trans_b == T2K_TRANS, p->packed, p->threads, (double)got[at % o.count], at,
                 (double)want[at % o.count]);
    free(want);
    discard(&o);
}

/* Integers: every sum is exact, so that the result is class strict's whatever the order. */
Test(amx_gemm, every_tail_transpose_and_epilogue)
{
    struct rng rng = {check_seed()};
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        if (group(i, &g) != 0) {
            continue;
        }
        for (size_t size = 1; size <= 70; size++) {
            for (int turn = 0; turn < 6; turn++) {
                struct product p = {.fast = turn % 2, .alpha = 1.0f, .threads = 1};
                const int t = (int)size + turn;
                p.trans_a = t % 2 ? T2K_TRANS : T2K_NO_TRANS;
                p.trans_b = t / 2 % 2 ? T2K_TRANS : T2K_NO_TRANS;
                p.m = turn / 2 == 0 ? size : 1 + rng_below(&rng, 40);
                p.n = turn / 2 == 1 ? size : 1 + rng_below(&rng, 40);
                p.k = turn / 2 == 2 ? size : 1 + rng_below(&rng, 40);
                p.pad = size % 3;
                p.packed = (int)(size / 4) % 2;
                if (size % 5 == 0) {
                    p.alpha = -0.3f;
                    p.beta = 0.75f;
                    p.epilogue = 1;
                }
                exact(&g, &p, &rng);
            }
        }
        no_faults(&g);
    }
}

/* Several chunks of k, blocks of A and B, threads; alpha = 0.5 keeps the sums exact. */
Test(amx_gemm, chunks_blocks_and_threads)
{
    static const size_t shape[][3] = {{33, 40, 1030}, {40, 33, 600}, {65, 97, 257}, {100, 64, 32}};
    struct rng rng = {check_seed()};
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        if (group(i, &g) != 0) {
            continue;
        }
        for (int turn = 0; turn < 16; turn++) {
            const size_t *s = shape[turn / 4];
            struct product p = {
                turn % 2, T2K_NO_TRANS, T2K_TRANS, s[0],          s[1],         s[2],
                1,        0.5f,         1.0f,      turn % 4 == 3, turn / 2 % 2, 1 + turn % 3};
            exact(&g, &p, &rng);
        }
        if (i > 0) { /* more rows and columns than a thread's workspace holds */
            struct product p = {1, T2K_TRANS, T2K_NO_TRANS, 1000, 700, 257, 0, 1.0f, 0.0f, 0, 0, 1};
            exact(&g, &p, &rng);
            p.fast = 0;
            p.m = 800;
            p.k = 1050;
            exact(&g, &p, &rng);
        }
        no_faults(&g);
    }
}

/* ---- errors --------------------------------------------------------------------------------- */

static float to_bf16(float x)
{
    const uint32_t bits = bits_of(x);
    return x != x ? x : float_of((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

static void within_bound(const struct amx_groups *g, const struct product *p, struct operands *o)
{
    const float *C = compute(g, p, o);
    double *sum = malloc(2 * p->m * p->n * sizeof *sum), *sum_abs = sum + p->m * p->n;
    for (size_t i = 0; i < o->a.bytes / sizeof(float) && !p->fast; i++) {
        o->A[i] = to_bf16(o->A[i]);
    }
    for (size_t i = 0; i < o->b.bytes / sizeof(float) && !p->fast; i++) {
        o->B[i] = to_bf16(o->B[i]);
    }
    ref_sgemm(p->trans_a, p->trans_b, p->m, p->n, p->k, o->A, o->lda, o->B, o->ldb, sum, sum_abs);
    const double chain = (double)(p->k < 256 ? p->k : 256) + (double)p->k / 256.0 + 8.0;
    for (size_t i = 0; i < p->m * p->n; i++) {
        const double got = C[i / p->n * o->ldc + i % p->n];
        const double allowed = chain * 0x1p-24 * sum_abs[i] + 0x1p-149 * (double)p->k;
        if (isfinite(sum[i]) && fabs(sum[i]) < 0x1.fffffep127) {
            cr_assert(fabs(got - sum[i]) <= allowed,
                      "%s %zux%zux%zu at %zu: %a, ref %a, allowed %g", g->name, p->m, p->n, p->k, i,
                      got, sum[i], allowed);
        } else {
            cr_assert(isnan(sum[i]) ? isnan(got) : !isfinite(got), "%s at %zu: %a, ref %a", g->name,
                      i, got, sum[i]);
        }
    }
    free(sum);
}

Test(amx_gemm, errors_stay_within_the_bound)
{
    static const size_t depth[] = {1, 31, 64, 255, 300, 1100};
    struct rng rng = {check_seed()};
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        for (size_t d = 0; group(i, &g) == 0 && d < sizeof depth / sizeof depth[0]; d++) {
            for (int turn = 0; turn < 4; turn++) {
                struct product p = {turn % 2, T2K_NO_TRANS, T2K_NO_TRANS, 19, 35, depth[d],
                                    0,        1.0f,         0.0f,         0,  0,  1};
                struct operands o = make(&p, &rng, turn / 2 ? WIDE : UNIFORM);
                within_bound(&g, &p, &o);
                discard(&o);
            }
        }
        if (group(i, &g) == 0) {
            no_faults(&g);
        }
    }
}

/* Numbers that do not split, or whose products are too large or too small for the unit. */
Test(amx_gemm, what_does_not_split_takes_the_other_path)
{
    static const float special[] = {NAN,       INFINITY,     -INFINITY,
                                    0x1p-149f, -0x1.8p-140f, 0x1p-104f,
                                    0x1p-126f, 0x1.ffp127f,  -0x1.fffffep127f};
    struct rng rng = {check_seed()};
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        for (size_t s = 0; group(i, &g) == 0 && s < sizeof special / sizeof special[0]; s++) {
            for (int where = 1; where <= 3; where++) {
                struct product p = {1, T2K_NO_TRANS, T2K_NO_TRANS, 40, 50,         70,
                                    1, 1.0f,         0.0f,         0,  (int)s % 2, 1};
                struct operands o = make(&p, &rng, UNIFORM);
                if (where & 1) {
                    o.A[3 * o.lda + 65] = special[s];
                }
                if (where & 2) {
                    o.B[65 * o.ldb + 40] = special[s];
                }
                within_bound(&g, &p, &o);
                discard(&o);
            }
        }
        /* Each operand splits, their products leave the range; or stay just within it. */
        static const int scales[][2] = {{-60, -60}, {-50, -50}, {-48, -47}, {63, 62},
                                        {63, 56},   {60, 55},   {-103, 60}, {-100, 3}};
        for (size_t s = 0; group(i, &g) == 0 && s < sizeof scales / sizeof scales[0]; s++) {
            struct product p = {1, T2K_NO_TRANS, T2K_TRANS, 33, 17, 40, 0, 1.0f, 0.0f, 0, 0, 1};
            struct operands o = make(&p, &rng, UNIFORM);
            for (size_t e = 0; e < o.a.bytes / sizeof(float); e++) {
                o.A[e] = ldexpf(o.A[e], scales[s][0]);
            }
            for (size_t e = 0; e < o.b.bytes / sizeof(float); e++) {
                o.B[e] = ldexpf(o.B[e], scales[s][1]);
            }
            within_bound(&g, &p, &o);
            discard(&o);
        }
        if (group(i, &g) == 0) {
            no_faults(&g);
        }
    }
}

/* Both round up to 2^64, whose product is infinite; their own is not. */
Test(amx_gemm, a_product_of_parts_must_not_overflow)
{
    struct rng rng = {check_seed()};
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        if (group(i, &g) == 0) {
            struct product p = {1, T2K_NO_TRANS, T2K_NO_TRANS, 1, 1, 1, 0, 1.0f, 0.0f, 0, 0, 1};
            struct operands o = make(&p, &rng, UNIFORM);
            o.A[0] = o.B[0] = 0x1.ff8p63f;
            within_bound(&g, &p, &o);
            discard(&o);
        }
    }
}

/* k is odd and no multiple of a tile: a phantom 0 * Inf behind it would make a NaN. */
Test(amx_gemm, no_phantom_products)
{
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        for (int turn = 0; group(i, &g) == 0 && turn < 4; turn++) {
            struct rng rng = {check_seed()};
            struct product p = {turn % 2,
                                T2K_NO_TRANS,
                                turn / 2 ? T2K_TRANS : T2K_NO_TRANS,
                                17,
                                33,
                                37,
                                0,
                                1.0f,
                                0.0f,
                                0,
                                0,
                                1};
            struct operands o = make(&p, &rng, INTEGERS);
            for (size_t e = 0; e < p.m * p.k; e++) {
                o.A[e] = INFINITY;
            }
            for (size_t e = 0; e < p.n * p.k; e++) {
                o.B[e] = 1.0f;
            }
            const float *C = compute(&g, &p, &o);
            for (size_t e = 0; e < p.m * p.n; e++) {
                cr_assert(isinf(C[e]), "%s: %a at %zu", g.name, (double)C[e], e);
            }
            discard(&o);
        }
    }
}

/* ---- packing -------------------------------------------------------------------------------- */

static float part_of(const unsigned char *panel, int by_line, size_t line, size_t p, size_t part)
{
    const unsigned char *tile = panel + T2K_ALIGN + ((p / 32 * 3 + part) * 2 + line / 16) * 1024;
    const size_t l = line % 16, pair = p % 32 / 2, odd = p % 2;
    const unsigned char *at = tile + (by_line ? l * 64 + pair * 4 : pair * 64 + l * 4) + odd * 2;
    return float_of((uint32_t)at[0] << 16 | (uint32_t)at[1] << 24);
}

/* Each exponent that the unit can take, with significands at the edges of the parts. */
Test(amx_gemm, the_split_is_exact)
{
    static const uint32_t edge[] = {0,        1,        0x7f,     0x80,     0x7fff,   0x8000,
                                    0x8001,   0xffff,   0x7f8000, 0x7fffff, 0x7fff80, 0x007f80,
                                    0x008080, 0x017fff, 0x018000, 0x3fffff};
    enum { LINES = 32, DEPTH = 64 };
    struct rng rng = {check_seed()};
    struct amx_groups g;
    float *X = malloc(LINES * DEPTH * sizeof *X);
    unsigned char *panel = t2k_alloc(T2K_TILE_PANEL(3, DEPTH));
    for (int i = 0; i < GROUPS; i++) {
        for (int exponent = -103; group(i, &g) == 0 && exponent <= 127; exponent++) {
            for (size_t e = 0; e < LINES * DEPTH; e++) {
                uint32_t s = e < 16 ? edge[e] : (uint32_t)rng_next(&rng) & 0x7fffffu;
                s = exponent == 127 && s >= 0x7f8000u ? 0x7f7fffu : s; /* hi would be infinite */
                X[e] = float_of((uint32_t)(exponent + 127) << 23 | s | (e % 3 == 0 ? 1u << 31 : 0));
            }
            for (int turn = 0; turn < 4; turn++) {
                const int by_line = turn % 2, along = turn / 2;
                t2k_tiles_pack_fn *pack = by_line ? g.fast->pack_a : g.fast->pack_b;
                pack(LINES, DEPTH, X, along ? DEPTH : 1, along ? 1 : LINES, panel);
                for (size_t e = 0; e < LINES * DEPTH; e++) {
                    const size_t line = along ? e / DEPTH : e % LINES;
                    const size_t p = along ? e % DEPTH : e / LINES;
                    const double hi = part_of(panel, by_line, line, p, 0);
                    const double mid = part_of(panel, by_line, line, p, 1);
                    const double lo = part_of(panel, by_line, line, p, 2);
                    cr_assert(hi + mid + lo == (double)X[e] && fabs(mid) <= 0x1p-8 * fabs(hi) &&
                                  fabs(lo) <= 0x1p-8 * fabs(mid),
                              "%s: %a is not %a + %a + %a", g.name, (double)X[e], hi, mid, lo);
                }
            }
        }
    }
    t2k_release(panel);
    free(X);
}

/* ---- the tiles ------------------------------------------------------------------------------ */

Test(amx_gemm, loads_and_state_of_the_tiles)
{
    struct rng rng = {check_seed()};
    for (int i = 0; i < 2; i++) {
        struct amx_groups g;
        if (group(i, &g) != 0) {
            continue;
        }
        g.counts();
        struct product p = {1, T2K_NO_TRANS, T2K_NO_TRANS, 32, 32, 64, 0, 1.0f, 0.0f, 0, 0, 1};
        exact(&g, &p, &rng);
        struct amx_counts counts = g.counts();
        cr_expect_eq(counts.loads, 2 * 14, "%ld loads", counts.loads);
        cr_expect_eq(counts.products, 2 * 24, "%ld products", counts.products);
        p.fast = 0;
        exact(&g, &p, &rng);
        counts = g.counts();
        cr_expect(counts.loads == 2 * 4 && counts.products == 2 * 4);
        for (int threads = 1; threads <= 3; threads++) {
            /* Large enough not to run alone. */
            p = (struct product){1, T2K_NO_TRANS, T2K_TRANS, 192, 192, 40,
                                 0, 1.0f,         0.0f,      0,   0,   threads};
            exact(&g, &p, &rng);
            counts = g.counts();
            cr_expect(counts.configurations == threads && counts.releases == threads &&
                          counts.faults == 0,
                      "%d threads: %d configured, %d released", threads, counts.configurations,
                      counts.releases);
        }
    }
}

/* A result does not depend on the number of threads, nor on B being packed. */
Test(amx_gemm, the_same_bits_for_any_number_of_threads)
{
    struct amx_groups g;
    for (int i = 0; i < GROUPS; i++) {
        for (int turn = 0; group(i, &g) == 0 && turn < 4; turn++) {
            struct rng rng = {check_seed()};
            struct product p = {turn % 2, T2K_NO_TRANS, T2K_NO_TRANS, 70, 75, 280,
                                0,        1.0f,         0.0f,         0,  0,  1};
            struct operands o = make(&p, &rng, WIDE);
            if (turn / 2) {
                o.A[40 * o.lda + 3] = 0x1p-120f; /* one panel that does not split */
            }
            float *first = malloc(o.count * sizeof *first);
            memcpy(first, compute(&g, &p, &o), o.count * sizeof *first);
            for (p.threads = 1; p.threads <= 3; p.threads++) {
                for (p.packed = 0; p.packed < 2; p.packed++) {
                    guarded_free(&o.c);
                    const float *C = compute(&g, &p, &o);
                    cr_assert_eq(first_difference(C, first, o.count), o.count,
                                 "%s: %d threads, packed %d", g.name, p.threads, p.packed);
                }
            }
            free(first);
            discard(&o);
        }
    }
}
