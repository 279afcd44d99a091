#include "matrix_gemm_case.h"

#include "ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float *sealed(struct guarded *g, struct rng *rng, size_t count, int flags)
{
    static const float special[] = {NAN,          INFINITY, -INFINITY, -0.0f,     0x1p-149f,
                                    -0x1.8p-140f, 0x1p127f, -0x1p127f, 0x1p-126f, 0.0f};
    float *x = guarded_floats(g, count);
    rng_fill(rng, x, count);
    for (size_t i = 0; i < count && (flags & CASE_NAN_AB); i++) {
        x[i] = NAN;
    }
    /* Few enough that most sums stay finite. */
    for (size_t i = 0; i < count / 97 + 1 && count > 0 && (flags & CASE_SPECIAL); i++) {
        x[rng_below(rng, count)] = special[rng_below(rng, sizeof special / sizeof special[0])];
    }
    guarded_seal(g);
    return x;
}

static size_t span(size_t rows, size_t cols, size_t ld)
{
    return rows == 0 || cols == 0 ? 0 : (rows - 1) * ld + cols;
}

static t2k_activation activation_of(int flags)
{
    return flags & CASE_RELU        ? T2K_ACT_RELU
           : flags & CASE_GELU      ? T2K_ACT_GELU
           : flags & CASE_GELU_TANH ? T2K_ACT_GELU_TANH
           : flags & CASE_SILU      ? T2K_ACT_SILU
                                    : T2K_ACT_NONE;
}

/* A matrix of scales and, for each row of C, one of its rows. */
static void scale_rows_new(struct matrix *m, const struct gemm_case *c, struct gemm_operands *o)
{
    enum { COUNT = 3 };
    const size_t lds = (c->n > 0 ? c->n : 1) + c->pad;
    o->epilogue.scale = sealed(&o->scale, &m->rng, span(COUNT, c->n, lds), 0);
    o->epilogue.lds = (int64_t)lds;
    o->epilogue.scale_count = COUNT;
    o->scale_rows = guarded_new(c->m * sizeof(int64_t), 1);
    int64_t *rows = (int64_t *)o->scale_rows.data;
    for (size_t i = 0; i < c->m; i++) {
        rows[i] = (int64_t)rng_below(&m->rng, COUNT);
    }
    guarded_seal(&o->scale_rows);
    o->epilogue.scale_rows = rows;
}

void gemm_operands_new(struct matrix *m, const struct gemm_case *c, struct gemm_operands *o)
{
    const int ta = c->trans_a == T2K_TRANS, tb = c->trans_b == T2K_TRANS;
    const size_t a_rows = ta ? c->k : c->m, a_cols = ta ? c->m : c->k;
    const size_t b_rows = tb ? c->n : c->k, b_cols = tb ? c->k : c->n;
    memset(o, 0, sizeof *o);
    o->lda = (a_cols > 0 ? a_cols : 1) + c->pad;
    o->ldb = (b_cols > 0 ? b_cols : 1) + 2 * c->pad;
    o->ldc = (c->n > 0 ? c->n : 1) + 3 * c->pad;
    o->ldr = c->flags & CASE_ALIAS ? o->ldc : o->ldc + c->pad;
    o->A = sealed(&o->a, &m->rng, span(a_rows, a_cols, o->lda), c->flags);
    o->B = sealed(&o->b, &m->rng, span(b_rows, b_cols, o->ldb), c->flags);
    o->c_count = span(c->m, c->n, o->ldc);
    o->before = malloc((o->c_count + 1) * sizeof *o->before);
    for (size_t i = 0; i < o->c_count; i++) {
        o->before[i] = c->flags & CASE_NAN_C ? NAN : rng_uniform(&m->rng);
    }
    o->epilogue.size = sizeof o->epilogue;
    o->epilogue.activation = activation_of(c->flags);
    if (c->flags & CASE_BIAS) {
        o->epilogue.bias = sealed(&o->bias, &m->rng, c->n, 0);
    }
    if (c->flags & CASE_SCALE_ROWS) {
        scale_rows_new(m, c, o);
    } else if (c->flags & CASE_SCALE) {
        o->epilogue.scale = sealed(&o->scale, &m->rng, c->n, 0);
    }
    if (c->flags & CASE_RESIDUAL) {
        o->epilogue.residual = sealed(&o->residual, &m->rng, span(c->m, c->n, o->ldr), 0);
        o->epilogue.ldr = (int64_t)o->ldr;
    }
}

void gemm_operands_free(struct gemm_operands *o)
{
    struct guarded *all[] = {&o->a,     &o->b,          &o->c,       &o->bias,
                             &o->scale, &o->scale_rows, &o->residual};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i]->map != NULL) {
            guarded_free(all[i]);
        }
    }
    free(o->before);
}

const t2k_epilogue *gemm_epilogue(const struct gemm_case *c, struct gemm_operands *o, float *C)
{
    if (c->flags & CASE_ALIAS) {
        o->epilogue.residual = C;
        o->epilogue.ldr = (int64_t)o->ldc;
    }
    return c->flags & CASE_EPILOGUE ? &o->epilogue : NULL;
}

static void check_error(struct matrix *m, const struct gemm_case *c, const struct gemm_operands *o,
                        const float *got)
{
    double *sum = malloc(2 * c->m * c->n * sizeof *sum);
    double *sum_abs = sum + c->m * c->n;
    ref_sgemm(c->trans_a, c->trans_b, c->m, c->n, c->k, o->A, o->lda, o->B, o->ldb, sum, sum_abs);
    const double chain = (double)(c->k < 256 ? c->k : 256) + (double)c->k / 256.0 + 3.0;
    for (size_t i = 0; i < c->m; i++) {
        for (size_t j = 0; j < c->n; j++) {
            const double old = c->beta == 0.0f ? 0.0 : (double)o->before[i * o->ldc + j];
            const double want = (double)c->alpha * sum[i * c->n + j] + (double)c->beta * old;
            const double allowed =
                chain * 0x1p-24 * fabs((double)c->alpha) * sum_abs[i * c->n + j] +
                0x1p-23 * fabs((double)c->beta * old);
            const double error = fabs((double)got[i * o->ldc + j] - want);
            if (!(error <= allowed)) {
                matrix_check(m, 0, "%zux%zux%zu (%zu, %zu): got %a, ref %a, allowed %g", c->m, c->n,
                             c->k, i, j, (double)got[i * o->ldc + j], want, allowed);
                free(sum);
                return;
            }
        }
    }
    matrix_check(m, 1, "within the bound");
    free(sum);
}

static t2k_status call(const struct gemm_case *c, const struct gemm_operands *o, const void *packed,
                       float *C, const t2k_epilogue *e)
{
    const int64_t m = (int64_t)c->m, n = (int64_t)c->n, k = (int64_t)c->k;
    if (packed != NULL) {
        return t2k_sgemm_packed(c->trans_a, m, n, k, c->alpha, o->A, (int64_t)o->lda, packed,
                                c->beta, C, (int64_t)o->ldc, e);
    }
    return t2k_sgemm(c->trans_a, c->trans_b, m, n, k, c->alpha, o->A, (int64_t)o->lda, o->B,
                     (int64_t)o->ldb, c->beta, C, (int64_t)o->ldc, e);
}

/* One way to compute the case into a fresh C. */
static void try_way(struct matrix *m, const struct gemm_case *c, struct gemm_operands *o,
                    const void *packed, int threads, const float *want)
{
    float *C = guarded_floats(&o->c, o->c_count);
    memcpy(C, o->before, o->c_count * sizeof *C);
    t2k_set_num_threads(threads);
    const t2k_status status = call(c, o, packed, C, gemm_epilogue(c, o, C));
    t2k_set_num_threads(0);
    const char *way = packed != NULL ? "packed" : "as given";
    matrix_check(m, status == T2K_OK, "%zux%zux%zu %s: %s", c->m, c->n, c->k, way,
                 t2k_status_str(status));
    matrix_same(m, C, want, o->c_count,
                "%zux%zux%zu ta %d tb %d alpha %g beta %g pad %zu flags %d B %s threads %d", c->m,
                c->n, c->k, c->trans_a == T2K_TRANS, c->trans_b == T2K_TRANS, (double)c->alpha,
                (double)c->beta, c->pad, c->flags, way, threads);
    matrix_check(m, guarded_intact(&o->c), "%zux%zux%zu %s wrote before C", c->m, c->n, c->k, way);
    if (packed == NULL && threads == 1) {
        matrix_result(m, c->full_only, C, o->c_count);
        if (m->isa == 0 && (c->flags & (CASE_EPILOGUE | CASE_SPECIAL)) == 0 && isfinite(c->alpha) &&
            c->alpha != 0.0f && isfinite(c->beta)) {
            check_error(m, c, o, C);
        }
    }
    guarded_free(&o->c);
}

void gemm_case_run(struct matrix *m, const struct gemm_case *c)
{
    struct gemm_operands o;
    gemm_operands_new(m, c, &o);
    float *want = malloc((o.c_count + 1) * sizeof *want);
    memcpy(want, o.before, o.c_count * sizeof *want);
    ref_sgemm_strict(c->trans_a, c->trans_b, c->m, c->n, c->k, c->alpha, o.A, o.lda, o.B, o.ldb,
                     c->beta, want, o.ldc, gemm_epilogue(c, &o, want));
    const size_t bytes = t2k_packed_b_bytes((int64_t)c->k, (int64_t)c->n);
    struct guarded blob = guarded_new((bytes + T2K_ALIGN - 1) / T2K_ALIGN * T2K_ALIGN, 1);
    const t2k_status status =
        t2k_pack_b(c->trans_b, (int64_t)c->k, (int64_t)c->n, o.B, (int64_t)o.ldb, blob.data);
    matrix_check(m, status == T2K_OK && guarded_intact(&blob), "pack_b %zux%zu: %s", c->k, c->n,
                 t2k_status_str(status));
    guarded_seal(&blob);
    try_way(m, c, &o, NULL, 1, want);
    try_way(m, c, &o, blob.data, 1, want);
    if (c->threads > 0) {
        try_way(m, c, &o, NULL, c->threads, want);
        try_way(m, c, &o, blob.data, c->threads, want);
    }
    guarded_free(&blob);
    free(want);
    gemm_operands_free(&o);
}
