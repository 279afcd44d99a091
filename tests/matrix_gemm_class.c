/* Suite gemm_class: the product's classes fast and bf16 by the public functions, and packed blobs
 * of a class. Nothing goes into the fingerprint: these classes may differ from ISA to ISA. */
#include "matrix_gemm_case.h"

#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float to_bf16(float x)
{
    const uint32_t bits = bits_of(x);
    return x != x ? x : float_of((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

static float *rounded(const struct guarded *g)
{
    const size_t count = g->bytes / sizeof(float);
    const float *from = g->data;
    float *x = malloc((count + 1) * sizeof *x);
    for (size_t i = 0; i < count; i++) {
        x[i] = to_bf16(from[i]);
    }
    return x;
}

static int by_unit(t2k_numerics numerics)
{
    const t2k_table *table = t2k_table_get();
    return (numerics == T2K_FAST ? table->gemm_fast : table->gemm_bf16)->parts > 0;
}

/* Every element within the bound of t2k.h, before the epilogue; NaN and infinities where the
 * reference in double has them. */
static void check_bound(struct matrix *m, const struct gemm_case *c, const struct gemm_operands *o,
                        const float *A, const float *B, const float *got, const char *way)
{
    double *sum = malloc((2 * c->m * c->n + 1) * sizeof *sum), *sum_abs = sum + c->m * c->n;
    ref_sgemm(c->trans_a, c->trans_b, c->m, c->n, c->k, A, o->lda, B, o->ldb, sum, sum_abs);
    const double chain = (double)(c->k < 256 ? c->k : 256) + (double)c->k / 256.0 + 8.0;
    size_t bad = c->m * c->n;
    for (size_t i = 0; i < c->m * c->n; i++) {
        const size_t at = i / c->n * o->ldc + i % c->n;
        const double old = c->beta == 0.0f ? 0.0 : (double)c->beta * (double)o->before[at];
        const double want = (double)c->alpha * sum[i] + old, x = got[at];
        const double allowed = chain * 0x1p-24 * fabs((double)c->alpha) * sum_abs[i] +
                               0x1p-23 * fabs(old) + 0x1p-149 * (double)(c->k + 2);
        const int ok = isnan(want) ? isnan(x) : isinf(want) ? x == want : fabs(x - want) <= allowed;
        bad = ok || bad < i ? bad : i;
    }
    matrix_check(m, bad == c->m * c->n, "%s %zux%zux%zu ta %d tb %d: element %zu is %a, ref %a",
                 way, c->m, c->n, c->k, c->trans_a == T2K_TRANS, c->trans_b == T2K_TRANS, bad,
                 bad < c->m * c->n ? (double)got[bad / c->n * o->ldc + bad % c->n] : 0.0,
                 bad < c->m * c->n ? (double)c->alpha * sum[bad] : 0.0);
    free(sum);
}

static t2k_status call(t2k_numerics numerics, const struct gemm_case *c,
                       const struct gemm_operands *o, const void *blob, float *C,
                       const t2k_epilogue *e)
{
    const int64_t m = (int64_t)c->m, n = (int64_t)c->n, k = (int64_t)c->k;
    const int64_t lda = (int64_t)o->lda, ldb = (int64_t)o->ldb, ldc = (int64_t)o->ldc;
    if (blob != NULL) {
        return t2k_sgemm_packed(c->trans_a, m, n, k, c->alpha, o->A, lda, blob, c->beta, C, ldc, e);
    }
    return t2k_sgemm_class(numerics, c->trans_a, c->trans_b, m, n, k, c->alpha, o->A, lda, o->B,
                           ldb, c->beta, C, ldc, e);
}

/* want: the exact bits, or NULL: within the bound of the product of A and B. */
static float *one_way(struct matrix *m, t2k_numerics numerics, const struct gemm_case *c,
                      struct gemm_operands *o, const void *blob, int threads, const float *want,
                      const float *A, const float *B)
{
    const char *way = numerics == T2K_FAST ? blob != NULL ? "fast packed" : "fast"
                      : blob != NULL       ? "bf16 packed"
                                           : "bf16";
    float *C = guarded_floats(&o->c, o->c_count);
    float *copy = malloc((o->c_count + 1) * sizeof *copy);
    memcpy(C, o->before, o->c_count * sizeof *C);
    t2k_set_num_threads(threads);
    const t2k_status status = call(numerics, c, o, blob, C, gemm_epilogue(c, o, C));
    t2k_set_num_threads(0);
    matrix_check(m, status == T2K_OK && guarded_intact(&o->c), "%s: %s", way,
                 t2k_status_str(status));
    if (want != NULL) {
        matrix_same(m, C, want, o->c_count, "%s %zux%zux%zu ta %d tb %d flags %d threads %d", way,
                    c->m, c->n, c->k, c->trans_a == T2K_TRANS, c->trans_b == T2K_TRANS, c->flags,
                    threads);
    } else {
        check_bound(m, c, o, A, B, C, way);
    }
    memcpy(copy, C, o->c_count * sizeof *copy);
    guarded_free(&o->c);
    return copy;
}

/* As given and packed, on one thread and on three: all within the bound, or of exactly the bits of
 * class strict for rounded operands. */
static void class_case(struct matrix *m, t2k_numerics numerics, const struct gemm_case *c)
{
    struct gemm_operands o;
    gemm_operands_new(m, c, &o);
    float *A = numerics == T2K_BF16 ? rounded(&o.a) : NULL;
    float *B = numerics == T2K_BF16 ? rounded(&o.b) : NULL;
    const float *a = A != NULL ? A : o.A, *b = B != NULL ? B : o.B;
    float *want = NULL;
    if (numerics == T2K_BF16 && !by_unit(numerics)) {
        want = malloc((o.c_count + 1) * sizeof *want);
        memcpy(want, o.before, o.c_count * sizeof *want);
        ref_sgemm_strict(c->trans_a, c->trans_b, c->m, c->n, c->k, c->alpha, a, o.lda, b, o.ldb,
                         c->beta, want, o.ldc, gemm_epilogue(c, &o, want));
    }
    const size_t bytes = t2k_packed_b_bytes_class(numerics, (int64_t)c->k, (int64_t)c->n);
    struct guarded blob = guarded_new((bytes + T2K_ALIGN - 1) / T2K_ALIGN * T2K_ALIGN, 1);
    const t2k_status status = t2k_pack_b_class(numerics, c->trans_b, (int64_t)c->k, (int64_t)c->n,
                                               o.B, (int64_t)o.ldb, blob.data);
    matrix_check(m, status == T2K_OK && guarded_intact(&blob), "pack_b_class: %s",
                 t2k_status_str(status));
    guarded_seal(&blob);
    for (int packed = 0; packed < 2; packed++) {
        const void *as = packed ? blob.data : NULL;
        float *one = one_way(m, numerics, c, &o, as, 1, want, a, b);
        float *three = one_way(m, numerics, c, &o, as, 3, want, a, b);
        matrix_same(m, three, one, o.c_count, "class %d, three threads", (int)numerics);
        free(one);
        free(three);
    }
    guarded_free(&blob);
    free(A);
    free(B);
    free(want);
    gemm_operands_free(&o);
}

static struct gemm_case case_of(size_t rows, size_t cols, size_t k, int turn)
{
    struct gemm_case c = {.m = rows, .n = cols, .k = k, .alpha = 1.0f, .flags = CASE_NAN_C};
    c.trans_a = turn % 2 ? T2K_TRANS : T2K_NO_TRANS;
    c.trans_b = turn / 2 % 2 ? T2K_TRANS : T2K_NO_TRANS;
    c.pad = (size_t)turn % 3;
    if (turn % 5 == 4) {
        c.alpha = -0.3f;
        c.beta = 0.75f;
        c.flags = 0;
    }
    return c;
}

/* Few rows times B along k, one column, and what lies around; depths around the vectors. */
static void shapes(struct matrix *m, t2k_numerics numerics)
{
    static const size_t depth[] = {1, 3, 4, 7, 8, 15, 16, 17, 33, 64, 255, 257, 600};
    int turn = 0;
    for (size_t d = 0; d < sizeof depth / sizeof depth[0]; d++) {
        for (size_t rows = 1; rows <= 9; rows++, turn++) {
            struct gemm_case c = case_of(rows, 1 + (size_t)turn * 7 % 43, depth[d], turn);
            class_case(m, numerics, &c);
            c = case_of(rows, 37, depth[d], 2); /* B transposed: dot products */
            class_case(m, numerics, &c);
            c = case_of(9 * rows, 1, depth[d], (int)rows % 4);
            c.pad = rows % 2; /* B (k, 1) contiguous where it is 0 */
            class_case(m, numerics, &c);
        }
    }
    static const size_t large[][3] = {{65, 70, 67}, {130, 40, 270}, {3, 300, 1100}, {1, 130, 4500}};
    for (size_t s = 0; s < sizeof large / sizeof large[0]; s++) {
        for (int t = 0; t < 4; t++) {
            const struct gemm_case c = case_of(large[s][0], large[s][1], large[s][2], t);
            class_case(m, numerics, &c);
        }
    }
}

/* An epilogue is bias, scale, relu and residual on whatever the product is without one. */
static void epilogues(struct matrix *m, t2k_numerics numerics)
{
    static const size_t shape[][3] = {{2, 35, 40}, {35, 1, 40}, {40, 35, 64}, {20, 33, 300}};
    for (int i = 0; i < 8; i++) {
        const size_t *s = shape[i / 2];
        struct gemm_case c = case_of(s[0], s[1], s[2], 2);
        c.flags = CASE_ALL;
        struct gemm_operands o;
        gemm_operands_new(m, &c, &o);
        float *got = malloc(2 * o.c_count * sizeof *got), *want = got + o.c_count;
        memcpy(got, o.before, o.c_count * sizeof *got);
        memcpy(want, o.before, o.c_count * sizeof *want);
        void *blob = NULL;
        if (i % 2) {
            blob = t2k_alloc(t2k_packed_b_bytes_class(numerics, (int64_t)c.k, (int64_t)c.n));
            t2k_pack_b_class(numerics, c.trans_b, (int64_t)c.k, (int64_t)c.n, o.B, (int64_t)o.ldb,
                             blob);
        }
        matrix_check(m,
                     call(numerics, &c, &o, blob, got, gemm_epilogue(&c, &o, got)) == T2K_OK &&
                         call(numerics, &c, &o, blob, want, NULL) == T2K_OK,
                     "with and without");
        for (size_t e = 0; e < c.m * c.n; e++) {
            const size_t row = e / c.n, col = e % c.n;
            float v = (want[row * o.ldc + col] + o.epilogue.bias[col]) * o.epilogue.scale[col];
            v = v < 0.0f ? 0.0f : v;
            want[row * o.ldc + col] = v + o.epilogue.residual[row * o.ldr + col];
        }
        matrix_same(m, got, want, o.c_count, "epilogue of class %d, shape %d", (int)numerics, i);
        t2k_release(blob);
        free(got);
        gemm_operands_free(&o);
    }
}

/* NaN, infinities, denormals; nothing so large that a sum overflows on the way. */
static void special_values(struct matrix *m, t2k_numerics numerics)
{
    static const float special[] = {NAN, INFINITY, -INFINITY, 0x1p-149f, -0x1.8p-140f, 0x1p-126f};
    for (int turn = 0; turn < 24; turn++) {
        struct gemm_case c = case_of(turn < 12 ? 2 : 40, turn % 3 == 0 ? 1 : 40, 60, 2);
        struct gemm_operands o;
        gemm_operands_new(m, &c, &o);
        struct guarded sealed = o.a;
        float *A = guarded_floats(&o.a, sealed.bytes / sizeof *A);
        memcpy(A, sealed.data, sealed.bytes);
        A[c.k - 1] = special[turn % 6];
        o.A = A;
        float *a = numerics == T2K_BF16 ? rounded(&o.a) : NULL;
        float *b = numerics == T2K_BF16 ? rounded(&o.b) : NULL;
        free(one_way(m, numerics, &c, &o, NULL, 1, NULL, a != NULL ? a : o.A, b != NULL ? b : o.B));
        free(a);
        free(b);
        guarded_free(&sealed);
        gemm_operands_free(&o);
    }
}

static void refused(struct matrix *m, t2k_status got, t2k_status want, const char *what)
{
    matrix_check(m, got == want, "%s: %s, expected %s", what, t2k_status_str(got),
                 t2k_status_str(want));
}

static void refusals(struct matrix *m)
{
    const t2k_numerics none = (t2k_numerics)3;
    const t2k_transpose no = T2K_NO_TRANS;
    float A[12] = {0}, B[12] = {0}, C[12] = {0};
    void *blob = t2k_alloc(t2k_packed_b_bytes_class(T2K_BF16, 4, 3));
    unsigned char *bytes = blob;
    refused(m, t2k_sgemm_class(none, no, no, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, NULL), T2K_ERR_ARG,
            "unknown class");
    refused(m, t2k_sgemm_class(T2K_FAST, no, no, 3, 3, 4, 1, A, 3, B, 3, 0, C, 3, NULL),
            T2K_ERR_ARG, "lda");
    refused(m, t2k_sgemm_class_team(NULL, T2K_FAST, no, no, 3, 3, 4, 1, A, 4, B, 3, 0, C, 3, NULL),
            T2K_ERR_ARG, "no team");
    refused(m, t2k_pack_b_class(none, no, 4, 3, B, 3, blob), T2K_ERR_ARG, "pack, unknown class");
    refused(m, t2k_pack_b_class(T2K_BF16, no, 4, 3, B, 3, bytes + 4), T2K_ERR_ALIGN, "misaligned");
    refused(m, t2k_pack_b_class(T2K_BF16, no, 4, 3, B, 3, blob), T2K_OK, "pack");
    matrix_check(m,
                 t2k_packed_b_bytes_class(none, 4, 3) == 0 &&
                     t2k_packed_b_bytes_class(T2K_FAST, INT64_MAX / 8, 9) == 0 &&
                     t2k_packed_b_bytes_class(T2K_BF16, 4, INT64_MAX) == 0,
                 "sizes out of range");
    matrix_check(m,
                 t2k_numerics_note(none) == NULL && t2k_numerics_note(T2K_STRICT) != NULL &&
                     t2k_numerics_note(T2K_FAST) != NULL && t2k_numerics_note(T2K_BF16) != NULL,
                 "notes");
    bytes[32] = 7; /* the class */
    refused(m, t2k_sgemm_packed(no, 3, 3, 4, 1, A, 4, blob, 0, C, 3, NULL), T2K_ERR_ARG,
            "blob of no class");
    bytes[32] = T2K_BF16;
    bytes[40] ^= 1; /* the unit */
    refused(m, t2k_sgemm_packed(no, 3, 3, 4, 1, A, 4, blob, 0, C, 3, NULL), T2K_ERR_ISA,
            "blob of another unit");
    t2k_release(blob);
}

void matrix_gemm_class(struct matrix *m)
{
    for (int numerics = T2K_FAST; numerics <= T2K_BF16; numerics++) {
        shapes(m, (t2k_numerics)numerics);
        epilogues(m, (t2k_numerics)numerics);
        special_values(m, (t2k_numerics)numerics);
    }
    refusals(m);
}
