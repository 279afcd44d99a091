/* Suite svd: W = c U diag(s) V^T against rule 1 applied to a scaled copy of U, both orientations;
 * for the scalar ISA also against double. Packed once: against the same matrix, packed. */
#include "matrix.h"

#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rebuild {
    size_t m, n, r, pad;
    float c;
    int threads;
    int special; /* NaN, infinite, zero and denormal singular values */
    int full_only;
};

static void check_error(struct matrix *m, const struct rebuild *x, const float *U, const float *s,
                        const float *V, const float *W)
{
    const double chain = (double)(x->r < 256 ? x->r : 256) + (double)x->r / 256.0 + 4.0;
    const size_t ldu = x->r + x->pad, ldv = x->r + 2 * x->pad, ldw = x->n + x->pad;
    for (size_t i = 0; i < x->m; i++) {
        for (size_t j = 0; j < x->n; j++) {
            double sum = 0.0, sum_abs = 0.0;
            for (size_t p = 0; p < x->r; p++) {
                const double t = (double)U[i * ldu + p] * (double)s[p] * (double)V[j * ldv + p];
                sum += t;
                sum_abs += fabs(t);
            }
            const double error = fabs((double)W[i * ldw + j] - (double)x->c * sum);
            if (!(error <= chain * 0x1p-24 * fabs((double)x->c) * sum_abs)) {
                matrix_check(m, 0, "rebuild %zux%zux%zu (%zu, %zu): got %a, ref %a", x->m, x->n,
                             x->r, i, j, (double)W[i * ldw + j], (double)x->c * sum);
                return;
            }
        }
    }
    matrix_check(m, 1, "within the bound");
}

/* Random U, V and s, which nothing may write from here on. */
static void fill(struct matrix *m, const struct rebuild *x, struct guarded *U, struct guarded *s,
                 struct guarded *V)
{
    static const float special[] = {NAN, INFINITY, 0.0f, -0.0f, 0x1p-140f, -0x1p126f};
    float *values = s->data;
    rng_fill(&m->rng, U->data, U->bytes / sizeof(float));
    rng_fill(&m->rng, V->data, V->bytes / sizeof(float));
    rng_fill(&m->rng, values, x->r);
    for (size_t p = 0; p < x->r && x->special; p += 7) {
        values[p] = special[p / 7 % (sizeof special / sizeof special[0])];
    }
    guarded_seal(U);
    guarded_seal(V);
    guarded_seal(s);
}

static void run(struct matrix *m, const struct rebuild *x)
{
    const size_t ldu = x->r + x->pad, ldv = x->r + 2 * x->pad;
    const size_t ldw = x->n + x->pad, ldt = x->m + x->pad;
    struct guarded gu, gs, gv, gw, gt;
    const size_t u_count = (x->m - 1) * ldu + x->r, v_count = (x->n - 1) * ldv + x->r;
    const size_t w_count = (x->m - 1) * ldw + x->n, t_count = (x->n - 1) * ldt + x->m;
    float *U = guarded_floats(&gu, u_count), *V = guarded_floats(&gv, v_count);
    float *s = guarded_floats(&gs, x->r), *W = guarded_floats(&gw, w_count);
    float *T = guarded_floats(&gt, t_count);
    fill(m, x, &gu, &gs, &gv);
    float *want = malloc((w_count + t_count) * sizeof *want), *want_t = want + w_count;
    float *scaled = malloc(u_count * sizeof *scaled);
    memcpy(want, W, w_count * sizeof *W);
    memcpy(want_t, T, t_count * sizeof *T);
    for (size_t i = 0; i < x->m; i++) {
        for (size_t p = 0; p < x->r; p++) {
            scaled[i * ldu + p] = U[i * ldu + p] * s[p];
        }
    }
    ref_sgemm_strict(T2K_NO_TRANS, T2K_TRANS, x->m, x->n, x->r, x->c, scaled, ldu, V, ldv, 0.0f,
                     want, ldw, NULL);
    for (size_t i = 0; i < x->m; i++) {
        for (size_t j = 0; j < x->n; j++) {
            want_t[j * ldt + i] = want[i * ldw + j];
        }
    }
    t2k_set_num_threads(x->threads);
    const int64_t rows = (int64_t)x->m, cols = (int64_t)x->n, r = (int64_t)x->r;
    t2k_status status = t2k_svd_rebuild(T2K_NO_TRANS, rows, cols, r, x->c, U, (int64_t)ldu, s, V,
                                        (int64_t)ldv, W, (int64_t)ldw);
    matrix_check(m, status == T2K_OK && guarded_intact(&gw), "rebuild: %s", t2k_status_str(status));
    status = t2k_svd_rebuild(T2K_TRANS, rows, cols, r, x->c, U, (int64_t)ldu, s, V, (int64_t)ldv, T,
                             (int64_t)ldt);
    matrix_check(m, status == T2K_OK && guarded_intact(&gt), "transposed: %s",
                 t2k_status_str(status));
    t2k_set_num_threads(0);
    matrix_same(m, W, want, w_count, "rebuild %zux%zux%zu c %g threads %d special %d", x->m, x->n,
                x->r, (double)x->c, x->threads, x->special);
    matrix_same(m, T, want_t, t_count, "transposed %zux%zux%zu c %g threads %d special %d", x->m,
                x->n, x->r, (double)x->c, x->threads, x->special);
    matrix_result(m, x->full_only, W, w_count);
    if (m->isa == 0 && !x->special) {
        check_error(m, x, U, s, V, W);
    }
    free(want);
    free(scaled);
    struct guarded *all[] = {&gu, &gs, &gv, &gw, &gt};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        guarded_free(all[i]);
    }
}

/* ---- packed once ---------------------------------------------------------------------------- */

/* Room for a blob (n, m) of some bytes, ending at a page that cannot be touched but for the part of
 * a line that alignment leaves, whose pattern must stay. */
static struct guarded blob_new(size_t bytes)
{
    return guarded_new((bytes + T2K_ALIGN - 1) / T2K_ALIGN * T2K_ALIGN, 1);
}

/* As rebuilding and packing has it: the header's bytes, the same bits of all panels. */
static void run_packed(struct matrix *m, const struct rebuild *x)
{
    const size_t ldu = x->r + x->pad + 1, ldv = x->r + 2 * x->pad + (x->r == 0);
    const int64_t rows = (int64_t)x->m, cols = (int64_t)x->n, r = (int64_t)x->r;
    const size_t u_count = (x->m - 1) * ldu + x->r, v_count = (x->n - 1) * ldv + x->r;
    const size_t bytes = t2k_packed_b_bytes(cols, rows), floats = (bytes - T2K_ALIGN) / 4;
    struct guarded gu, gs, gv, got = blob_new(bytes), want = blob_new(bytes);
    float *U = guarded_floats(&gu, u_count), *V = guarded_floats(&gv, v_count);
    float *s = guarded_floats(&gs, x->r), *W = malloc(x->m * x->n * sizeof *W);
    fill(m, x, &gu, &gs, &gv);
    t2k_set_num_threads(1);
    t2k_status status = t2k_svd_rebuild(T2K_NO_TRANS, rows, cols, r, x->c, U, (int64_t)ldu, s, V,
                                        (int64_t)ldv, W, cols);
    if (status == T2K_OK) {
        status = t2k_pack_b(T2K_TRANS, cols, rows, W, cols, want.data);
    }
    t2k_set_num_threads(x->threads);
    if (status == T2K_OK) {
        status = t2k_svd_rebuild_packed(rows, cols, r, x->c, U, (int64_t)ldu, s, V, (int64_t)ldv,
                                        got.data);
    }
    t2k_set_num_threads(0);
    const unsigned char *a = got.data, *b = want.data;
    matrix_check(m,
                 status == T2K_OK && guarded_intact(&got) && memcmp(a, b, T2K_ALIGN) == 0 &&
                     memcmp(a + bytes, b + bytes, got.bytes - bytes) == 0,
                 "packed rebuild %zux%zux%zu: %s", x->m, x->n, x->r, t2k_status_str(status));
    /* Not in the fingerprint: panels differ in layout from one instruction set to another. */
    const float *panels = (const float *)(const void *)(a + T2K_ALIGN);
    matrix_check(
        m, first_difference(panels, (const float *)(const void *)(b + T2K_ALIGN), floats) == floats,
        "packed rebuild %zux%zux%zu c %g threads %d special %d", x->m, x->n, x->r, (double)x->c,
        x->threads, x->special);
    free(W);
    struct guarded *all[] = {&gu, &gs, &gv, &got, &want};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        guarded_free(all[i]);
    }
}

/* Every height and width of tiles, the edges of strips and chunks, all numbers of threads. */
static void packed(struct matrix *m)
{
    static const size_t widths[] = {1, 2, 9, 33}, ranks[] = {0, 1, 5, 33, 257};
    static const size_t heights[] = {95,  96,  97,  127, 128, 129, 143, 144, 145, 191, 192,  193,
                                     239, 240, 241, 255, 256, 257, 287, 288, 289, 383, 384,  385,
                                     479, 480, 481, 511, 512, 513, 575, 576, 577, 767, 1024, 1031};
    static const struct rebuild large[] = {{600, 130, 90, 1, 1.0f, 2, 0, 0},
                                           {300, 257, 258, 0, 0.5f, 3, 1, 0},
                                           {257, 600, 40, 1, 1.0f, 4, 0, 0},
                                           {1300, 300, 300, 0, 1.0f, 2, 0, 1},
                                           {700, 600, 513, 1, 1.0f, 3, 0, 1}};
    size_t turn = 0;
    for (size_t rows = 1; rows <= 70; rows++) {
        for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++, turn++) {
            const struct rebuild x = {rows, widths[w],           ranks[turn % 5], turn % 3,
                                      1.0f, 1 + (int)(turn % 4), turn % 11 == 0,  0};
            run_packed(m, &x);
        }
    }
    for (size_t h = 0; h < sizeof heights / sizeof heights[0]; h++, turn++) {
        const struct rebuild x = {
            heights[h], 1 + turn % 19, 1 + turn % 13, turn % 3, -0.5f, 1 + (int)(turn % 4), 0, 0};
        run_packed(m, &x);
    }
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        /* The full tier draws what the small one draws: what follows stays the same. */
        const struct rng drawn = m->rng;
        if (!large[i].full_only || m->tier == TIER_FULL) {
            run_packed(m, &large[i]);
        }
        m->rng = large[i].full_only ? drawn : m->rng;
    }
}

/* c = 0, and matrices without rows or columns. */
static void packed_nothing(struct matrix *m)
{
    static const int64_t sizes[][2] = {{0, 3}, {3, 0}, {0, 0}, {1, 0}, {0, 1}};
    struct guarded got = blob_new(4096), want = blob_new(4096);
    float x[16], zero[16] = {0};
    for (size_t i = 0; i < 16; i++) {
        x[i] = NAN;
    }
    matrix_check(m,
                 t2k_svd_rebuild_packed(3, 4, 2, 0.0f, x, 2, x, x, 2, got.data) == T2K_OK &&
                     t2k_pack_b(T2K_TRANS, 4, 3, zero, 4, want.data) == T2K_OK &&
                     memcmp(got.data, want.data, t2k_packed_b_bytes(4, 3)) == 0,
                 "packed, c = 0");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const int64_t rows = sizes[i][0], cols = sizes[i][1];
        matrix_check(
            m,
            t2k_svd_rebuild_packed(rows, cols, 2, 1.0f, x, 2, x, x, 2, got.data) == T2K_OK &&
                t2k_pack_b(T2K_TRANS, cols, rows, zero, cols > 0 ? cols : 1, want.data) == T2K_OK &&
                memcmp(got.data, want.data, t2k_packed_b_bytes(cols, rows)) == 0,
            "packed, %d x %d", (int)rows, (int)cols);
    }
    guarded_free(&got);
    guarded_free(&want);
}

static void packed_refusals(struct matrix *m)
{
    float U[6] = {0}, s[3] = {0}, V[6] = {0};
    struct guarded blob = blob_new(4096);
    unsigned char *P = blob.data;
    const struct {
        t2k_status status, want;
        const char *what;
    } all[] = {
        {t2k_svd_rebuild_packed(-2, 2, 3, 1, U, 3, s, V, 3, P), T2K_ERR_ARG, "m < 0"},
        {t2k_svd_rebuild_packed(2, -2, 3, 1, U, 3, s, V, 3, P), T2K_ERR_ARG, "n < 0"},
        {t2k_svd_rebuild_packed(2, 2, -3, 1, U, 3, s, V, 3, P), T2K_ERR_ARG, "r < 0"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, U, 2, s, V, 3, P), T2K_ERR_ARG, "ldu"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, U, 3, s, V, 2, P), T2K_ERR_ARG, "ldv"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, NULL, 3, s, V, 3, P), T2K_ERR_ARG, "U = NULL"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, U, 3, NULL, V, 3, P), T2K_ERR_ARG, "s = NULL"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, U, 3, s, NULL, 3, P), T2K_ERR_ARG, "V = NULL"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, U, 3, s, V, 3, NULL), T2K_ERR_ARG, "packed = NULL"},
        {t2k_svd_rebuild_packed(2, 2, 3, 1, U, 3, s, V, 3, P + 4), T2K_ERR_ALIGN, "alignment"},
        {t2k_svd_rebuild_packed(INT64_MAX, INT64_MAX, 0, 1, U, 3, s, V, 3, P), T2K_ERR_ARG,
         "beyond memory"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        matrix_check(m, all[i].status == all[i].want, "packed: %s is not refused", all[i].what);
    }
    guarded_free(&blob);
}

/* ---- the suite ------------------------------------------------------------------------------ */

/* c = 0 and r = 0 read nothing and give +0. */
static void nothing(struct matrix *m)
{
    float U[6], s[3], V[6], W[4], zero[4] = {0};
    for (int i = 0; i < 6; i++) {
        U[i] = V[i] = s[i / 2] = NAN;
    }
    memset(W, 0xff, sizeof W);
    matrix_check(m, t2k_svd_rebuild(T2K_TRANS, 2, 2, 3, 0.0f, U, 3, s, V, 3, W, 2) == T2K_OK,
                 "c = 0");
    matrix_same(m, W, zero, 4, "c = 0");
    memset(W, 0xff, sizeof W);
    matrix_check(
        m, t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 0, 1.0f, NULL, 1, NULL, NULL, 1, W, 2) == T2K_OK,
        "r = 0");
    matrix_same(m, W, zero, 4, "r = 0");
}

static void refusals(struct matrix *m)
{
    float U[6] = {0}, s[3] = {0}, V[6] = {0}, W[4] = {0};
    const struct {
        t2k_status status;
        const char *what;
    } all[] = {
        {t2k_svd_rebuild((t2k_transpose)0, 2, 2, 3, 1, U, 3, s, V, 3, W, 2), "trans_w"},
        {t2k_svd_rebuild(T2K_NO_TRANS, -2, 2, 3, 1, U, 3, s, V, 3, W, 2), "m < 0"},
        {t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, -3, 1, U, 3, s, V, 3, W, 2), "r < 0"},
        {t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 3, 1, U, 2, s, V, 3, W, 2), "ldu"},
        {t2k_svd_rebuild(T2K_TRANS, 2, 2, 3, 1, U, 3, s, V, 2, W, 2), "ldv"},
        {t2k_svd_rebuild(T2K_TRANS, 2, 1, 3, 1, U, 3, s, V, 3, W, 1), "ldw, transposed"},
        {t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 3, 1, NULL, 3, s, V, 3, W, 2), "U = NULL"},
        {t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 3, 1, U, 3, NULL, V, 3, W, 2), "s = NULL"},
        {t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 3, 1, U, 3, s, NULL, 3, W, 2), "V = NULL"},
        {t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 3, 1, U, 3, s, V, 3, NULL, 2), "W = NULL"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        matrix_check(m, all[i].status == T2K_ERR_ARG, "%s is not refused", all[i].what);
    }
}

void matrix_svd(struct matrix *m)
{
    static const struct rebuild all[] = {
        {1, 1, 1, 0, 1.0f, 1, 0, 0},       {5, 7, 3, 1, 0.5f, 1, 0, 0},
        {13, 33, 17, 0, 1.0f, 1, 0, 0},    {16, 32, 64, 1, -2.0f, 2, 0, 0},
        {2, 130, 40, 0, 1.0f, 1, 0, 0},    {130, 2, 40, 0, 1.0f, 1, 0, 0},
        {40, 50, 257, 1, 0.3f, 1, 0, 0},   {31, 29, 513, 0, 1.0f, 3, 0, 0},
        {20, 35, 70, 1, 1.0f, 1, 1, 0},    {9, 70, 300, 0, 1.5f, 4, 1, 0},
        {500, 40, 20, 0, 1.0f, 2, 0, 0},   {96, 96, 96, 0, 1.0f, 1, 0, 0},
        {256, 256, 256, 0, 1.0f, 1, 0, 1}, {768, 256, 256, 0, 1.0f, 2, 0, 1},
    };
    /* A is packed whatever its size: every height and width of the kernels for packed operands. */
    for (size_t rows = 1; rows <= 26; rows++) {
        for (size_t cols = 1; cols <= 35; cols += cols % 8 == 2 ? 5 : 1) {
            const struct rebuild x = {rows, cols, 1 + (rows + cols) % 3, 1, 1.0f, 1, 0, 0};
            run(m, &x);
        }
    }
    nothing(m);
    refusals(m);
    packed(m);
    packed_nothing(m);
    packed_refusals(m);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!all[i].full_only || m->tier == TIER_FULL) {
            run(m, &all[i]);
        }
    }
}
