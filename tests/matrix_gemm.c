/* Suite gemm: the matrix product over shapes, transposes, factors, epilogues, special values and
 * threads. Every result is compared with rule 1 bit for bit, see matrix_gemm_case.h. */
#include "matrix_gemm_case.h"

#include "core/fpenv.h"
#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const t2k_transpose transposes[4][2] = {{T2K_NO_TRANS, T2K_NO_TRANS},
                                               {T2K_NO_TRANS, T2K_TRANS},
                                               {T2K_TRANS, T2K_NO_TRANS},
                                               {T2K_TRANS, T2K_TRANS}};

static struct gemm_case plain(size_t m, size_t n, size_t k, int transpose)
{
    struct gemm_case c = {.m = m, .n = n, .k = k, .alpha = 1.0f, .beta = 0.0f};
    c.trans_a = transposes[transpose & 3][0];
    c.trans_b = transposes[transpose & 3][1];
    c.flags = CASE_NAN_C;
    return c;
}

/* Every height and width up to two tiles of every ISA, so that no tail goes unseen. */
static void tails(struct matrix *m)
{
    int turn = 0;
    for (size_t rows = 0; rows <= 26; rows++) {
        for (size_t cols = 0; cols <= 35; cols++, turn++) {
            struct gemm_case c = plain(rows, cols, 1 + (rows + cols) % 4, turn);
            c.pad = rows % 3;
            if (cols % 5 == 0) {
                c.alpha = -0.3f;
                c.beta = 0.75f;
                c.flags = CASE_ALL;
            }
            gemm_case_run(m, &c);
        }
    }
    static const size_t wide[] = {47, 48, 49, 63, 64, 65, 95, 97, 127, 128, 129, 131, 161};
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        for (size_t rows = 1; rows <= 13; rows += rows < 7 ? 1 : 3) {
            struct gemm_case c = plain(rows, wide[i], 5, turn++);
            gemm_case_run(m, &c);
        }
    }
}

/* One column and one row, along rows that are contiguous in k: every number of groups of rows and
 * what is left of them, k around lines of cache and chunks, strides that fall on the same sets. */
static void lines(struct matrix *m)
{
    static const size_t depth[] = {1, 3, 4, 5, 15, 16, 17, 20, 31, 33, 255, 256, 257, 273};
    int turn = 0;
    for (size_t rows = 1; rows <= 67; rows++) {
        for (int t = 0; t < 4; t++, turn++) {
            const size_t k = depth[(size_t)turn % (sizeof depth / sizeof depth[0])];
            struct gemm_case column = plain(rows, 1, k, t), row = plain(1, rows, k, t);
            column.pad = turn % 5 == 0 ? 512 - k : (size_t)turn % 2;
            row.pad = turn % 5 == 0 ? (512 - k) / 2 : (size_t)turn % 2;
            if (turn % 3 == 0) {
                static const int epilogues[] = {0, CASE_ALL, CASE_SCALE_ROWS | CASE_SILU,
                                                CASE_BIAS};
                column.alpha = row.alpha = -0.3f;
                column.beta = row.beta = 0.75f;
                column.flags = row.flags = epilogues[turn / 3 % 4];
            }
            gemm_case_run(m, &column);
            gemm_case_run(m, &row);
        }
    }
}

/* Shapes beyond every block of rows, columns and k. */
static void block_cases(struct matrix *m, const size_t (*shape)[3], size_t count, int full_only)
{
    for (size_t s = 0; s < count; s++) {
        for (int t = 0; t < 4; t++) {
            struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], t);
            c.full_only = full_only;
            c.threads = 2 + t % 3;
            gemm_case_run(m, &c);
        }
        struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], (int)s);
        c.full_only = full_only;
        c.alpha = -0.3f;
        c.beta = 0.75f;
        c.flags = CASE_ALL;
        c.pad = 1;
        c.threads = 3;
        gemm_case_run(m, &c);
    }
}

/* Bands of rows of A, which are made where a chunk of it is beyond 256 KB: from one row more than
 * that on, what is left of the last band, all kinds of columns behind whole panels. */
static void bands(struct matrix *m)
{
    static const size_t cols[] = {17, 24, 33, 40, 48, 49, 65, 81, 97, 129};
    size_t rows = 256;
    for (size_t i = 0; i < 14; i++, rows += 1 + i % 5) {
        struct gemm_case c = plain(rows, cols[i % (sizeof cols / sizeof cols[0])], 256, (int)i % 2);
        c.pad = i % 3;
        if (i % 4 == 0) {
            c.flags = i % 8 == 0 ? CASE_ALL : CASE_BIAS | CASE_SCALE_ROWS | CASE_GELU;
        }
        gemm_case_run(m, &c);
    }
    static const size_t tall[][3] = {{400, 40, 257}, {1000, 33, 67}, {300, 129, 5}};
    block_cases(m, tall, sizeof tall / sizeof tall[0], 0);
}

/* k around vectors, transposing blocks and chunks; the four transposes. */
static void depths(struct matrix *m)
{
    static const size_t depth[] = {0,  1,  2,  3,  4,  5,   7,   8,   9,   15,  16,  17,
                                   31, 33, 63, 65, 67, 255, 256, 257, 511, 512, 513, 600};
    static const size_t shape[][2] = {{1, 7}, {3, 129}, {13, 33}, {6, 16}};
    for (size_t d = 0; d < sizeof depth / sizeof depth[0]; d++) {
        for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
            for (int t = 0; t < 4; t++) {
                struct gemm_case c = plain(shape[s][0], shape[s][1], depth[d], t);
                c.pad = (d + s) % 2;
                gemm_case_run(m, &c);
                c.beta = d % 2 == 0 ? 1.0f : 0.75f;
                c.alpha = d % 3 == 0 ? -0.3f : 1.0f; /* its products round */
                c.flags = 0;
                gemm_case_run(m, &c);
            }
        }
    }
}

static void blocks(struct matrix *m)
{
    static const size_t shape[][3] = {{500, 70, 7},  {490, 1040, 2},  {25, 1030, 9}, {1, 1100, 30},
                                      {9, 300, 260}, {101, 103, 107}, {37, 5, 530},  {131, 65, 67},
                                      {63, 65, 67},  {10, 10, 32},    {320, 33, 40}};
    block_cases(m, shape, sizeof shape / sizeof shape[0], 0);
}

/* Row strides of 2 KB, which the driver does not read in place: packed blocks of A and B, several
 * of rows, of columns, of k. */
static void packed_blocks(struct matrix *m)
{
    enum { STRIDE = 512 };
    static const size_t shape[][3] = {{490, 40, 17}, {130, 40, 270}, {250, 35, 40}, {20, 300, 40}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        for (int t = 0; t < 4; t++) {
            struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], t);
            c.pad = STRIDE - (c.trans_a == T2K_TRANS ? c.m : c.k);
            if (c.m < c.n) {
                c.pad = (STRIDE - (c.trans_b == T2K_TRANS ? c.k : c.n)) / 2;
            }
            c.threads = t == 1 ? 2 : 0;
            gemm_case_run(m, &c);
            if (t == 2) {
                c.alpha = -0.3f;
                c.beta = 0.75f;
                c.flags = CASE_ALL;
                gemm_case_run(m, &c);
            }
        }
    }
    for (int t = 0; t < 4; t += 3) {
        struct gemm_case c = plain(490, 1040, 17, t);
        c.pad = STRIDE - (c.trans_a == T2K_TRANS ? c.m : c.k);
        gemm_case_run(m, &c);
    }
}

/* The full tier's own; last, so that the small tier's numbers are the same in both. */
static void large_blocks(struct matrix *m)
{
    static const size_t shape[][3] = {{490, 1040, 260}, {1000, 200, 530}, {257, 2100, 300},
                                      {1, 4099, 1030},  {12, 3001, 700},  {961, 1031, 65},
                                      {9500, 41, 77}, /* bands that are asked for ahead */
                                      {2047, 1, 1030},  {1, 1029, 2050}};
    if (m->tier == TIER_FULL) {
        block_cases(m, shape, sizeof shape / sizeof shape[0], 1);
    }
}

static void factors_and_epilogues(struct matrix *m)
{
    static const float alphas[] = {1.0f, -0.5f, 0.3f, 0.0f, NAN};
    static const float betas[] = {0.0f, 1.0f, 0.75f, -0.0f, NAN};
    static const int epilogues[] = {0,
                                    CASE_BIAS,
                                    CASE_SCALE,
                                    CASE_RELU,
                                    CASE_RESIDUAL,
                                    CASE_ALIAS,
                                    CASE_ALL,
                                    CASE_BIAS | CASE_RELU | CASE_ALIAS,
                                    CASE_BIAS | CASE_GELU,
                                    CASE_GELU_TANH | CASE_SCALE | CASE_ALIAS,
                                    CASE_SILU | CASE_RESIDUAL,
                                    CASE_SCALE_ROWS,
                                    CASE_SCALE_ROWS | CASE_ALL,
                                    CASE_SCALE_ROWS | CASE_GELU | CASE_ALIAS};
    static const size_t shape[][3] = {{7, 37, 19}, {14, 33, 257}, {1, 130, 20}, {30, 35, 64},
                                      {37, 1, 45}, {1, 21, 258},  {70, 41, 6}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        int turn = 0;
        for (size_t a = 0; a < sizeof alphas / sizeof alphas[0]; a++) {
            for (size_t b = 0; b < sizeof betas / sizeof betas[0]; b++) {
                for (size_t e = 0; e < sizeof epilogues / sizeof epilogues[0]; e++, turn++) {
                    struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], turn);
                    c.alpha = alphas[a];
                    c.beta = betas[b];
                    c.flags = epilogues[e];
                    if ((c.flags & CASE_ALIAS) != 0 && c.k > T2K_CHUNK_K) {
                        continue;
                    }
                    if (c.beta == 0.0f && (c.flags & CASE_ALIAS) == 0) {
                        c.flags |= CASE_NAN_C;
                    }
                    if (c.alpha == 0.0f) {
                        c.flags |= CASE_NAN_AB;
                    }
                    c.pad = (size_t)turn % 2;
                    gemm_case_run(m, &c);
                }
            }
        }
    }
}

static void special_values(struct matrix *m)
{
    static const size_t shape[][3] = {{1, 40, 17},  {5, 33, 257},  {13, 70, 40},
                                      {40, 7, 300}, {25, 129, 31}, {64, 64, 20}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        for (int t = 0; t < 4; t++) {
            struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], t);
            c.flags |= CASE_SPECIAL;
            c.threads = t == 0 ? 2 : 0;
            gemm_case_run(m, &c);
            c.alpha = 0x1p-20f;
            c.beta = 1.0f;
            c.flags = CASE_SPECIAL | CASE_BIAS | CASE_RELU;
            gemm_case_run(m, &c);
        }
    }
}

/* Sums of denormals under a caller's flush-to-zero and round-up: the result must not see it. */
static void caller_environment(struct matrix *m)
{
#if defined(__x86_64__)
    const uint64_t modes[] = {T2K_FPENV_DEFAULT | 0x8040u, T2K_FPENV_DEFAULT | 0x4000u};
#else
    const uint64_t modes[] = {UINT64_C(1) << 24, UINT64_C(1) << 22};
#endif
    enum { N = 40 };
    float A[N * N], B[N * N], want[N * N], got[N * N];
    for (size_t i = 0; i < N * N; i++) {
        A[i] = rng_uniform(&m->rng) * 0x1p-130f;
        B[i] = rng_uniform(&m->rng);
    }
    ref_sgemm_strict(T2K_NO_TRANS, T2K_NO_TRANS, N, N, N, 0.3f, A, N, B, N, 0.0f, want, N, NULL);
    for (size_t i = 0; i < 2 * sizeof modes / sizeof modes[0]; i++) {
        t2k_set_num_threads(1 + (int)(i / 2));
        t2k_fpenv_set(modes[i % 2]);
        const t2k_status status =
            t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, N, N, N, 0.3f, A, N, B, N, 0.0f, got, N, NULL);
        const uint64_t after = t2k_fpenv_get();
        t2k_fpenv_set(T2K_FPENV_DEFAULT);
        t2k_set_num_threads(0);
        matrix_check(m, status == T2K_OK && (after & modes[i % 2]) == modes[i % 2],
                     "the caller's mode is not restored");
        matrix_same(m, got, want, N * N, "caller's mode %zu", i);
    }
    matrix_result(m, 0, got, N * N);
}

/* A row's bits do not depend on how many rows travel with it, nor on B being packed. */
static void rows_alone(struct matrix *m)
{
    enum { ROWS = 20, COLS = 131, DEPTH = 270 };
    float *A = malloc(ROWS * DEPTH * sizeof *A), *B = malloc(DEPTH * COLS * sizeof *B);
    float *C = malloc(ROWS * COLS * sizeof *C), first[COLS];
    void *blob = t2k_alloc(t2k_packed_b_bytes(DEPTH, COLS));
    rng_fill(&m->rng, A, ROWS * DEPTH);
    rng_fill(&m->rng, B, DEPTH * COLS);
    t2k_pack_b(T2K_NO_TRANS, DEPTH, COLS, B, COLS, blob);
    ref_sgemm_strict(T2K_NO_TRANS, T2K_NO_TRANS, 1, COLS, DEPTH, 1.0f, A, DEPTH, B, COLS, 0.0f,
                     first, COLS, NULL);
    for (int64_t rows = 1; rows <= ROWS; rows++) {
        t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, rows, COLS, DEPTH, 1.0f, A, DEPTH, B, COLS, 0.0f, C,
                  COLS, NULL);
        matrix_same(m, C, first, COLS, "row 0 of %d rows", (int)rows);
        t2k_sgemm_packed(T2K_NO_TRANS, rows, COLS, DEPTH, 1.0f, A, DEPTH, blob, 0.0f, C, COLS,
                         NULL);
        matrix_same(m, C, first, COLS, "row 0 of %d rows, packed", (int)rows);
    }
    matrix_result(m, 0, C, ROWS * COLS);
    t2k_release(blob);
    free(A);
    free(B);
    free(C);
}

/* 1 to 4 threads, more threads than tiles, tall, wide and square. */
static void threads(struct matrix *m)
{
    static const size_t shape[][3] = {
        {1, 300, 40}, {200, 3, 20}, {50, 60, 270}, {2, 2, 2}, {7, 90, 33}};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        for (int n = 2; n <= 4; n++) {
            struct gemm_case c = plain(shape[s][0], shape[s][1], shape[s][2], n);
            c.threads = n;
            c.pad = 1;
            gemm_case_run(m, &c);
        }
    }
}

void matrix_gemm(struct matrix *m)
{
    tails(m);
    depths(m);
    lines(m);
    bands(m);
    blocks(m);
    packed_blocks(m);
    factors_and_epilogues(m);
    special_values(m);
    caller_environment(m);
    rows_alone(m);
    threads(m);
    large_blocks(m);
}
