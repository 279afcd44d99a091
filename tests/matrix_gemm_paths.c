/* Suite gemm_paths: every way that the product's driver can go, forced. Each has the bits of rule 1
 * (the scalar ISA also lies within the bound of a reference in double), on any number of threads,
 * at the edges of tiles, blocks and chunks; and a row has the same bits however many travel with
 * it. Blocks are forced to be small, so that small products have several. */
#include "matrix_gemm_case.h"

#include "ops/gemm_parts.h"
#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_COLS 32 /* columns of B kept where that is forced, and visits of two chunks */

static const char *const names[] = {"chosen", "scale", "lines", "direct",    "strips",
                                    "blocks", "fused", "rows",  "rows fused"};
enum { ROUTES = sizeof names / sizeof names[0] };

struct way {
    t2k_gemm_route route;
    const void *packed; /* blob, or NULL */
    size_t mc, nc;
    int threads;
};

static t2k_status job_of(const struct gemm_case *c, struct gemm_operands *o, const struct way *w,
                         float *C, t2k_gemm_job *job)
{
    t2k_status status = t2k_gemm_check((int64_t)c->m, (int64_t)c->n, (int64_t)c->k, c->alpha,
                                       c->beta, C, (int64_t)o->ldc, gemm_epilogue(c, o, C), job);
    if (status == T2K_OK) {
        status = t2k_gemm_check_a(c->trans_a, o->A, (int64_t)o->lda, job);
    }
    if (status == T2K_OK) {
        status = t2k_gemm_check_b(c->trans_b, o->B, (int64_t)o->ldb, job);
    }
    if (w->packed != NULL) {
        const float *panels = (const float *)((const unsigned char *)w->packed + T2K_ALIGN);
        job->B = c->n == 1 ? panels : NULL;
        job->b_k = job->b_n = 1; /* a single column is packed as it is */
        job->panels = c->n == 1 ? NULL : panels;
        job->b_panel = job->k * job->group->nr;
    }
    job->route = w->route;
    job->mc = w->mc;
    job->nc = w->nc;
    return status;
}

/* Which ways there are for the job, told apart from the driver's own opinion. */
static int expected(const t2k_gemm_job *job, t2k_gemm_route route)
{
    const int given = job->panels == NULL, rows_of_b = given && job->b_n == 1;
    switch (route) {
    case T2K_ROUTE_CHOOSE:
    case T2K_ROUTE_STRIPS:
    case T2K_ROUTE_BLOCKS:
    case T2K_ROUTE_ROWS:
        return 1;
    case T2K_ROUTE_DIRECT:
        return rows_of_b && job->n % job->group->direct_step == 0;
    case T2K_ROUTE_FUSED:
    case T2K_ROUTE_ROWS_FUSED:
        return rows_of_b;
    default:
        return 0; /* forced by alpha or by the shape alone */
    }
}

static void in_double(struct matrix *m, const struct gemm_case *c, const struct gemm_operands *o,
                      const float *got)
{
    double *sum = malloc(2 * c->m * c->n * sizeof *sum), *sum_abs = sum + c->m * c->n;
    const double chain = (double)(c->k < 256 ? c->k : 256) + (double)c->k / 256.0 + 3.0;
    size_t bad = 0;
    ref_sgemm(c->trans_a, c->trans_b, c->m, c->n, c->k, o->A, o->lda, o->B, o->ldb, sum, sum_abs);
    for (size_t i = 0; i < c->m * c->n; i++) {
        const double x = (double)got[i / c->n * o->ldc + i % c->n];
        bad += !(fabs(x - sum[i]) <= chain * 0x1p-24 * sum_abs[i]);
    }
    matrix_check(m, bad == 0, "%zux%zux%zu: %zu elements beyond the bound", c->m, c->n, c->k, bad);
    free(sum);
}

static void team_body(t2k_team *team, void *arg)
{
    t2k_gemm_team(team, arg);
}

/* Goes one way; returns 0 where it is none for the case. */
static int go(struct matrix *m, const struct gemm_case *c, struct gemm_operands *o,
              const struct way *w, const float *want)
{
    t2k_gemm_job job;
    float *C = guarded_floats(&o->c, o->c_count);
    memcpy(C, o->before, o->c_count * sizeof *C);
    t2k_status status = job_of(c, o, w, C, &job);
    const int there = status == T2K_OK && expected(&job, w->route);
    if (there) {
        matrix_check(m, w->route == T2K_ROUTE_CHOOSE || t2k_gemm_choose(&job) == w->route,
                     "%zux%zux%zu: the driver refuses %s", c->m, c->n, c->k, names[w->route]);
        t2k_set_num_threads(w->threads);
        /* The driver itself gives a small product one thread. */
        status =
            w->threads > 1 ? t2k_parallel_team(w->threads, 1, team_body, &job) : t2k_gemm_run(&job);
        t2k_set_num_threads(0);
        matrix_same(m, C, want, o->c_count,
                    "%zux%zux%zu ta %d tb %d pad %zu flags %d %s%s mc %zu nc %zu threads %d", c->m,
                    c->n, c->k, c->trans_a == T2K_TRANS, c->trans_b == T2K_TRANS, c->pad, c->flags,
                    names[w->route], w->packed != NULL ? ", packed once" : "", w->mc, w->nc,
                    w->threads);
    }
    matrix_check(m, status == T2K_OK && guarded_intact(&o->c), "%s: %s", names[w->route],
                 t2k_status_str(status));
    guarded_free(&o->c);
    return there;
}

/* All ways of a case: unforced and small blocks, one thread and `threads`. */
static void all_ways(struct matrix *m, const struct gemm_case *c)
{
    struct gemm_operands o;
    gemm_operands_new(m, c, &o);
    float *want = malloc((o.c_count + 1) * sizeof *want);
    memcpy(want, o.before, o.c_count * sizeof *want);
    ref_sgemm_strict(c->trans_a, c->trans_b, c->m, c->n, c->k, c->alpha, o.A, o.lda, o.B, o.ldb,
                     c->beta, want, o.ldc, gemm_epilogue(c, &o, want));
    matrix_result(m, c->full_only, want, o.c_count);
    if (m->isa == 0 && c->alpha == 1.0f && c->beta == 0.0f && (c->flags & CASE_ALL) == 0) {
        in_double(m, c, &o, want);
    }
    const size_t bytes = t2k_packed_b_bytes((int64_t)c->k, (int64_t)c->n);
    struct guarded blob = guarded_new((bytes + T2K_ALIGN - 1) / T2K_ALIGN * T2K_ALIGN, 1);
    const t2k_status status =
        t2k_pack_b(c->trans_b, (int64_t)c->k, (int64_t)c->n, o.B, (int64_t)o.ldb, blob.data);
    matrix_check(m, status == T2K_OK, "pack_b: %s", t2k_status_str(status));
    guarded_seal(&blob);
    const size_t mr = t2k_table_get()->gemm_strict->mr;
    for (int route = 0; route < ROUTES; route++) {
        for (int once = 0; once < 2; once++) {
            struct way w = {.route = (t2k_gemm_route)route, .threads = 1};
            w.packed = once ? blob.data : NULL;
            go(m, c, &o, &w, want);
            w.mc = 2 * mr;
            w.nc = SMALL_COLS;
            go(m, c, &o, &w, want);
            w.threads = c->threads;
            if (c->threads > 1 && go(m, c, &o, &w, want)) {
                w.mc = w.nc = 0;
                go(m, c, &o, &w, want);
            }
        }
    }
    guarded_free(&blob);
    free(want);
    gemm_operands_free(&o);
}

static struct gemm_case plain(size_t rows, size_t cols, size_t depth, int turn)
{
    struct gemm_case c = {.m = rows, .n = cols, .k = depth, .alpha = 1.0f, .flags = CASE_NAN_C};
    c.trans_a = turn & 2 ? T2K_TRANS : T2K_NO_TRANS;
    c.trans_b = turn & 1 ? T2K_TRANS : T2K_NO_TRANS;
    c.pad = (size_t)turn % 3;
    c.threads = turn % 5; /* none, one, 2, 3, 4 */
    return c;
}

/* The tiles of all ISAs and what the driver compares rows with. */
static void rows_at_edges(struct matrix *m)
{
    static const size_t edges[] = {4, 6, 8, 10, 12, 14, 24, 28, 36};
    int turn = 0;
    for (size_t e = 0; e < sizeof edges / sizeof edges[0]; e++) {
        for (size_t rows = edges[e] - 1; rows <= edges[e] + 1; rows++, turn++) {
            struct gemm_case c = plain(rows, 67, 21, turn);
            all_ways(m, &c);
        }
    }
}

static void columns_at_edges(struct matrix *m)
{
    static const size_t edges[] = {8, 16, 32, 48, 64, 128, 144};
    int turn = 0;
    for (size_t e = 0; e < sizeof edges / sizeof edges[0]; e++) {
        for (size_t cols = edges[e] - 1; cols <= edges[e] + 1; cols++, turn++) {
            struct gemm_case c = plain(27, cols, 19, turn);
            all_ways(m, &c);
        }
    }
}

/* Chunks of k, one or two in a visit, with and without what follows the last of them. */
static void chunks_at_edges(struct matrix *m)
{
    static const size_t depths[] = {255, 256, 257, 511, 512, 513, 768, 769};
    for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++) {
        for (int turn = 0; turn < 4; turn++) {
            struct gemm_case c = plain(25, 35, depths[d], turn);
            c.threads = 2 + (int)(d + (size_t)turn) % 3;
            if (turn % 2 == (int)(d % 2)) {
                c.alpha = -0.3f;
                c.beta = 0.75f;
                c.flags = CASE_ALL;
            } else if (d % 2 == 0) { /* an epilogue that leaves by way of memory */
                c.flags = CASE_NAN_C | CASE_BIAS | CASE_SCALE | CASE_SCALE_ROWS | CASE_GELU;
            }
            all_ways(m, &c);
        }
    }
}

/* Few columns and few rows whose other operand lies along k: groups of rows and one more or less,
 * pieces and chunks of k, rows so far apart that L1 has room for one group only. */
static void lines_at_edges(struct matrix *m)
{
    static const size_t lines[] = {7, 8, 9, 16, 17, 31, 32, 33, 40, 41, 67};
    static const size_t depths[] = {1, 3, 4, 5, 63, 64, 65, 257, 512, 513, 1024, 1027, 1540};
    enum { LINES = sizeof lines / sizeof lines[0], DEPTHS = sizeof depths / sizeof depths[0] };
    int turn = 0;
    for (size_t few = 1; few <= T2K_GEMM_LINES + 1; few++) {
        for (size_t d = 0; d < DEPTHS; d++, turn++) {
            const size_t many = lines[(size_t)turn % LINES];
            struct gemm_case c = plain(many, few, depths[d], turn % 2);
            c.pad = 0;
            if (turn % 3 == 0) {
                c.m = few;
                c.n = many;
            }
            all_ways(m, &c);
            c.pad = depths[d] % 512 > 1 ? 2 : 0; /* B's rows, too */
            c.trans_a = turn % 7 == 0 ? T2K_TRANS : T2K_NO_TRANS;
            c.trans_b = T2K_TRANS;
            c.threads = 2 + turn % 3;
            c.alpha = 0.5f;
            c.beta = turn % 4 == 0 ? 1.0f : -0.75f;
            c.flags = turn % 4 == 0 ? 0 : CASE_ALL;
            all_ways(m, &c);
            c.beta = 0.0f;
            c.flags = CASE_NAN_C | CASE_BIAS | CASE_SCALE | CASE_SCALE_ROWS | CASE_GELU;
            all_ways(m, &c);
        }
    }
}

/* k = 1: rows of C at once, or panels of them. */
static void one_step(struct matrix *m)
{
    static const size_t cols[] = {3, 15, 16, 17, 31, 32, 33, 47, 64, 95, 129};
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) {
        for (int turn = 0; turn < 4; turn++) {
            struct gemm_case c = plain(5 + i, cols[i], 1, turn);
            c.threads = 1 + turn;
            if (turn == (int)(i % 4)) {
                c.beta = 0.75f;
                c.flags = i % 2 == 0 ? CASE_ALL : CASE_SCALE | CASE_SCALE_ROWS | CASE_SILU;
            }
            all_ways(m, &c);
        }
    }
}

/* Shapes whose shares among threads are uneven: by rows, by columns, by rectangles. */
static void shares(struct matrix *m)
{
    static const size_t shape[][3] = {{150, 40, 70}, {40, 300, 70}, {97, 131, 300}, {300, 9, 20}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        for (int turn = 0; turn < 4; turn++) {
            struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], turn);
            c.threads = 1 + turn;
            all_ways(m, &c);
        }
    }
    /* Columns enough for visits of two chunks. */
    struct gemm_case c = plain(27, 1030, 520, 0);
    c.threads = 3;
    c.full_only = 1;
    if (m->tier == TIER_FULL) {
        all_ways(m, &c);
        c.trans_b = T2K_TRANS;
        all_ways(m, &c);
    }
}

/* Blocks as the driver makes them, one row less and more: too large for the small tier. */
static void whole_blocks(struct matrix *m)
{
    const t2k_gemm_job any = {.group = t2k_table_get()->gemm_strict, .m = 1, .n = 40, .k = 256};
    const size_t mc = t2k_gemm_block_rows(&any);
    if (m->tier != TIER_FULL) {
        return;
    }
    for (size_t rows = 320 - 1; rows <= 320 + 1; rows++) {
        struct gemm_case c = plain(rows, 40, 256, (int)rows);
        c.full_only = 1;
        all_ways(m, &c);
    }
    /* The numbers of rows differ between ISAs: no part of the fingerprint. */
    for (size_t rows = mc - 1; rows <= mc + 1; rows++) {
        struct gemm_case c = plain(rows, 40, 256, 0);
        struct gemm_operands o;
        gemm_operands_new(m, &c, &o);
        float *want = malloc(o.c_count * sizeof *want);
        memcpy(want, o.before, o.c_count * sizeof *want);
        ref_sgemm_strict(c.trans_a, c.trans_b, c.m, c.n, c.k, 1.0f, o.A, o.lda, o.B, o.ldb, 0.0f,
                         want, o.ldc, NULL);
        for (int route = T2K_ROUTE_DIRECT; route < ROUTES; route++) {
            const struct way w = {.route = (t2k_gemm_route)route, .threads = 1 + route % 2};
            go(m, &c, &o, &w, want);
        }
        free(want);
        gemm_operands_free(&o);
    }
}

/* Products of 1 to 512 rows: row i has the bits that it has among 512, as given and packed. */
static void rows_together(struct matrix *m)
{
    enum { ROWS = 512, COLS = 35, DEPTH = 270 };
    static const int sampled[] = {1, 2, 3, 5, 6, 7, 9, 12, 13, 25, 64, 129, 320, 511};
    float *A = malloc(ROWS * DEPTH * sizeof *A), *B = malloc(DEPTH * COLS * sizeof *B);
    float *all = malloc(ROWS * COLS * sizeof *all), *some = malloc(ROWS * COLS * sizeof *some);
    void *blob = t2k_alloc(t2k_packed_b_bytes(DEPTH, COLS));
    rng_fill(&m->rng, A, ROWS * DEPTH);
    rng_fill(&m->rng, B, DEPTH * COLS);
    t2k_pack_b(T2K_NO_TRANS, DEPTH, COLS, B, COLS, blob);
    ref_sgemm_strict(T2K_NO_TRANS, T2K_NO_TRANS, ROWS, COLS, DEPTH, 1.0f, A, DEPTH, B, COLS, 0.0f,
                     all, COLS, NULL);
    matrix_result(m, 0, all, ROWS * COLS);
    const int full = m->tier == TIER_FULL;
    const int count = full ? ROWS : (int)(sizeof sampled / sizeof sampled[0]);
    for (int t = 0; t < count; t++) {
        const int rows = full ? t + 1 : sampled[t];
        for (int threads = 1; threads <= 4; threads += full ? 1 : 1 + t % 3) {
            t2k_set_num_threads(threads);
            t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, rows, COLS, DEPTH, 1.0f, A, DEPTH, B, COLS, 0.0f,
                      some, COLS, NULL);
            matrix_same(m, some, all, (size_t)rows * COLS, "%d rows, threads %d", rows, threads);
            t2k_sgemm_packed(T2K_NO_TRANS, rows, COLS, DEPTH, 1.0f, A, DEPTH, blob, 0.0f, some,
                             COLS, NULL);
            matrix_same(m, some, all, (size_t)rows * COLS, "%d rows, packed, threads %d", rows,
                        threads);
        }
    }
    t2k_set_num_threads(0);
    t2k_release(blob);
    free(A);
    free(B);
    free(all);
    free(some);
}

/* Consecutive products in one region: each has to find a fresh queue. */
struct chain {
    const float *A;
    float *X, *Y; /* N x N each */
    int64_t n;
};

static void chain_body(t2k_team *team, void *arg)
{
    const struct chain *c = arg;
    for (int i = 0; i < 6; i++) {
        t2k_sgemm_team(team, T2K_NO_TRANS, i % 2 ? T2K_TRANS : T2K_NO_TRANS, c->n, c->n, c->n, 0.1f,
                       i % 2 ? c->Y : c->X, c->n, c->A, c->n, 0.0f, i % 2 ? c->X : c->Y, c->n,
                       NULL);
    }
}

static void one_region(struct matrix *m)
{
    enum { N = 72 };
    static float A[N * N], first[N * N], want[N * N], X[N * N], Y[N * N];
    rng_fill(&m->rng, A, (size_t)N * N);
    rng_fill(&m->rng, first, (size_t)N * N);
    memcpy(X, first, sizeof X);
    for (int i = 0; i < 6; i++) {
        ref_sgemm_strict(T2K_NO_TRANS, i % 2 ? T2K_TRANS : T2K_NO_TRANS, N, N, N, 0.1f,
                         i % 2 ? Y : X, N, A, N, 0.0f, i % 2 ? X : Y, N, NULL);
    }
    memcpy(want, X, sizeof want);
    for (int threads = 1; threads <= 4; threads++) {
        struct chain c = {A, X, Y, N};
        memcpy(X, first, sizeof X);
        const t2k_status status = t2k_parallel(threads, chain_body, &c);
        matrix_check(m, status == T2K_OK, "region: %s", t2k_status_str(status));
        matrix_same(m, X, want, (size_t)N * N, "six products in a region, threads %d", threads);
    }
    matrix_result(m, 0, want, (size_t)N * N);
}

void matrix_gemm_paths(struct matrix *m)
{
    rows_at_edges(m);
    columns_at_edges(m);
    chunks_at_edges(m);
    lines_at_edges(m);
    one_step(m);
    rows_together(m);
    one_region(m);
    shares(m);
    whole_blocks(m);
}
