/* Decompositions: reference cases, special matrices, cutting, bf16; which matrices of a model are
 * taken and how their elements are read. */
#include "check.h"
#include "golden.h"
#include "svf/svf.h"
#include "t2.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(svd, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

/* ---- decompositions ------------------------------------------------------------------------- */

static const t2_svd_options whole = {0, 0.0, 0};

static t2_status decompose(const double *w, int64_t m, int64_t n, const t2_svd_options *options,
                           t2_routine first, t2_decomposition *d, t2_error *err)
{
    double *copy = malloc((size_t)(m * n) * sizeof *copy);
    cr_assert_not_null(copy);
    memcpy(copy, w, (size_t)(m * n) * sizeof *copy);
    cr_assert_eq(t2_lapack_open(err), T2_OK, "%s", err->message);
    t2_lapack_begin();
    t2_svd_space space = {0};
    t2_status status = t2_decompose("w", m, n, copy, options, first, &space, d, err);
    t2_svd_space_free(&space);
    t2_lapack_end();
    free(copy);
    return status;
}

/* ||w - U diag(S) V^T|| / ||w||, plainly. */
static double residual_of(const double *w, const t2_decomposition *d)
{
    double difference = 0.0, all = 0.0;
    for (int64_t i = 0; i < d->m; i++) {
        for (int64_t j = 0; j < d->n; j++) {
            double sum = 0.0, x = w[i * d->n + j];
            for (int64_t k = 0; k < d->r; k++) {
                sum += (double)d->U[i * d->r + k] * (double)d->S[k] * (double)d->V[j * d->r + k];
            }
            difference += (x - sum) * (x - sum);
            all += x * x;
        }
    }
    return all > 0.0 ? sqrt(difference / all) : sqrt(difference);
}

static double away_from_identity(const float *x, int64_t rows, int64_t r)
{
    double worst = 0.0;
    for (int64_t a = 0; a < r; a++) {
        for (int64_t b = 0; b < r; b++) {
            double sum = a == b ? -1.0 : 0.0;
            for (int64_t i = 0; i < rows; i++) {
                sum += (double)x[i * r + a] * (double)x[i * r + b];
            }
            worst = fmax(worst, fabs(sum));
        }
    }
    return worst;
}

/* What holds for every decomposition. */
static void check(const char *what, const double *w, const t2_decomposition *d, double tolerance)
{
    double residual = residual_of(w, d);
    double orthogonality =
        fmax(away_from_identity(d->U, d->m, d->r), away_from_identity(d->V, d->n, d->r));
    cr_expect_leq(residual, tolerance, "%s: residual %g", what, residual);
    cr_expect_leq(fabs(residual - d->residual), 1e-3 * residual + 1e-14, "%s: %g, told %g", what,
                  residual, d->residual);
    cr_expect_leq(orthogonality, fmax(tolerance, 1e-6), "%s: %g", what, orthogonality);
    cr_expect_leq(fabs(orthogonality - d->orthogonality), 1e-12, "%s: %g, told %g", what,
                  orthogonality, d->orthogonality);
    for (int64_t k = 0; k < d->r; k++) {
        float largest = 0.0f;
        for (int64_t i = 0; i < d->m; i++) {
            float u = d->U[i * d->r + k];
            largest = fabsf(u) > fabsf(largest) ? u : largest;
        }
        cr_expect_gt(largest, 0.0f, "%s: column %d of U", what, (int)k);
        cr_expect(d->S[k] >= 0.0f && (k == 0 || d->S[k] <= d->S[k - 1]), "%s: S[%d]", what, (int)k);
    }
}

Test(svd, golden)
{
    golden_manifest manifest = golden_open("tests/golden/manifest.json");
    int cases = 0;
    for (size_t c = 0; c < manifest.count; c++) {
        const golden_case *one = &manifest.cases[c];
        if (strcmp(one->kind, "svf") != 0) {
            continue;
        }
        t2_safetensors *file;
        t2_error err;
        cr_assert_eq(t2_safetensors_open(one->path, 0, &file, &err), T2_OK, "%s", err.message);
        const t2_tensor *tensor = golden_input(one, file, "W");
        const float *values = golden_f32(file, tensor);
        const double *s64 = golden_f64(file, golden_input(one, file, "S64"));
        int64_t count = t2_tensor_elements(tensor), m = tensor->shape[0], n = tensor->shape[1];
        double *w = calloc((size_t)count, sizeof *w);
        for (int64_t i = 0; i < count; i++) {
            w[i] = (double)values[i];
        }
        for (t2_routine routine = T2_DGESDD; routine <= T2_DGESVD; routine++) {
            t2_decomposition d;
            cr_assert_eq(decompose(w, m, n, &whole, routine, &d, &err), T2_OK, "%s", err.message);
            cr_expect_eq(d.routine, routine);
            cr_expect_eq(d.r, m < n ? m : n);
            check(one->id, w, &d, 2e-7);
            for (int64_t k = 0; s64 != NULL && k < d.r; k++) {
                cr_expect_leq(fabs((double)d.S[k] - s64[k]), 6e-8 * s64[k] + 1e-13 * s64[0],
                              "%s: S[%d] = %.9g, expected %.17g", one->id, (int)k, (double)d.S[k],
                              s64[k]);
            }
            t2_decomposition_free(&d);
        }
        cases += s64 != NULL;
        free(w);
        t2_safetensors_close(file);
    }
    cr_expect_geq(cases, 9);
    golden_close(&manifest);
}

/* Fills w (m, n) with U(-1, 1). */
static void fill(double *w, int64_t count, uint64_t seed)
{
    struct rng rng = {seed};
    for (int64_t i = 0; i < count; i++) {
        w[i] = (double)rng_uniform(&rng);
    }
}

Test(svd, special_matrices)
{
    enum { M = 21, N = 13 };
    static const struct {
        const char *what;
        int64_t m, n;
        double scale;
    } shapes[] = {{"one element", 1, 1, -3.0}, {"row", 1, N, 1.0},      {"column", M, 1, 1.0},
                  {"zero", M, N, 0.0},         {"huge", M, N, 1e36},    {"tiny", M, N, 1e-30},
                  {"wide", N, M, 1.0},         {"zero row", 1, N, 0.0}, {"very wide", 2, 130, 1.0}};
    double w[2 * M * N];
    t2_decomposition d;
    t2_error err;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        fill(w, shapes[i].m * shapes[i].n, i + 1);
        for (int64_t k = 0; k < shapes[i].m * shapes[i].n; k++) {
            w[k] *= shapes[i].scale;
        }
        cr_assert_eq(decompose(w, shapes[i].m, shapes[i].n, &whole, T2_DGESDD, &d, &err), T2_OK,
                     "%s: %s", shapes[i].what, err.message);
        check(shapes[i].what, w, &d, 2e-7);
        t2_decomposition_free(&d);
    }
    /* Equal singular values: any rotation is right. Then values over 14 orders. */
    for (int64_t i = 0; i < N * N; i++) {
        w[i] = i % (N + 1) == 0 ? -2.0 : 0.0;
    }
    cr_assert_eq(decompose(w, N, N, &whole, T2_DGESDD, &d, &err), T2_OK, "%s", err.message);
    check("repeated", w, &d, 2e-7);
    cr_expect_eq(d.S[0], 2.0f);
    cr_expect_eq(d.S[N - 1], 2.0f);
    t2_decomposition_free(&d);
    for (int64_t i = 0; i < N * N; i++) {
        w[i] = 1.0 / (double)(i / N + i % N + 1);
    }
    cr_assert_eq(decompose(w, N, N, &whole, T2_DGESDD, &d, &err), T2_OK, "%s", err.message);
    check("Hilbert", w, &d, 2e-7);
    t2_decomposition_free(&d);
}

Test(svd, beyond_float)
{
    double w[12];
    t2_decomposition d;
    t2_error err = {T2_OK, ""};
    fill(w, 12, 1);
    for (int i = 0; i < 12; i++) {
        w[i] *= 1e60;
    }
    cr_expect_eq(decompose(w, 3, 4, &whole, T2_DGESDD, &d, &err), T2_ERR_NUMERIC);
    cr_expect_not_null(strstr(err.message, "beyond float"), "%s", err.message);
    for (int i = 0; i < 12; i++) {
        w[i] *= 1e-120;
    }
    cr_expect_eq(decompose(w, 3, 4, &whole, T2_DGESDD, &d, &err), T2_ERR_NUMERIC);
    cr_expect_not_null(strstr(err.message, "found 1:"), "%s", err.message);
}

Test(svd, cut)
{
    enum { M = 30, N = 20 };
    double w[M * N], total = 0.0;
    t2_decomposition all, d;
    t2_error err;
    fill(w, M * N, 5);
    cr_assert_eq(decompose(w, M, N, &whole, T2_DGESDD, &all, &err), T2_OK, "%s", err.message);
    for (int k = 0; k < N; k++) {
        total += (double)all.S[k] * (double)all.S[k];
    }
    const double energies[] = {0.0, 1e-9, 0.5, 0.9, 0.999, 1.0};
    for (size_t e = 0; e < sizeof energies / sizeof energies[0]; e++) {
        for (int64_t rank = 0; rank <= N + 1; rank += 7) {
            int64_t expected = N;
            double sum = 0.0;
            if (energies[e] > 0.0 && energies[e] < 1.0) {
                for (expected = 0; sum < energies[e] * total; expected++) {
                    sum += (double)all.S[expected] * (double)all.S[expected];
                }
            }
            expected = rank > 0 && rank < expected ? rank : expected;
            t2_svd_options options = {rank, energies[e], 0};
            cr_assert_eq(decompose(w, M, N, &options, T2_DGESDD, &d, &err), T2_OK);
            cr_expect_eq(d.r, expected, "energy %g, rank %d: %d, expected %d", energies[e],
                         (int)rank, (int)d.r, (int)expected);
            check("cut", w, &d, 1.0);
            /* Cutting changes no value that is kept. */
            for (int64_t k = 0; k < d.r; k++) {
                cr_expect_eq(d.S[k], all.S[k]);
                for (int64_t i = 0; i < M; i++) {
                    cr_expect_eq(d.U[i * d.r + k], all.U[i * all.r + k]);
                }
                for (int64_t j = 0; j < N; j++) {
                    cr_expect_eq(d.V[j * d.r + k], all.V[j * all.r + k]);
                }
            }
            t2_decomposition_free(&d);
        }
    }
    memset(w, 0, sizeof w);
    t2_svd_options options = {0, 0.9, 0};
    cr_assert_eq(decompose(w, M, N, &options, T2_DGESDD, &d, &err), T2_OK);
    cr_expect_eq(d.r, 1);
    t2_decomposition_free(&d);
    t2_decomposition_free(&all);
}

Test(svd, bf16)
{
    enum { M = 40, N = 30 };
    double w[M * N];
    t2_decomposition near, d;
    t2_error err;
    fill(w, M * N, 6);
    t2_svd_options options = {0, 0.0, 1};
    cr_assert_eq(decompose(w, M, N, &whole, T2_DGESDD, &near, &err), T2_OK);
    cr_assert_eq(decompose(w, M, N, &options, T2_DGESDD, &d, &err), T2_OK);
    cr_expect_gt(d.residual, 1e-4);
    check("bf16", w, &d, 1e-2);
    for (int i = 0; i < M * N; i++) {
        cr_expect_eq(bits_of(d.U[i]) & 0xffffu, 0u);
        cr_expect_leq(fabsf(fabsf(d.U[i]) - fabsf(near.U[i])),
                      0x1p-8f * fabsf(near.U[i]) * 1.0001f);
    }
    for (int k = 0; k < N; k++) {
        cr_expect_eq(d.S[k], near.S[k]);
    }
    t2_decomposition_free(&near);
    t2_decomposition_free(&d);
}

/* One rounding from double to bf16, halfway cases to even: by way of float some would differ. */
static float nearest_bf16(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += (UINT64_C(1) << 44) - 1 + (bits >> 45 & 1);
    bits &= ~((UINT64_C(1) << 45) - 1);
    memcpy(&x, &bits, sizeof x);
    return (float)x;
}

Test(svd, bf16_is_rounded_once)
{
    enum { N = 400 };
    static double w[N * N], a[N * N], v[N * N], ut[N * N], s[N];
    t2_decomposition d;
    t2_error err;
    t2_scratch space = {0};
    int converged, differ = 0;
    fill(w, N * N, 8);
    t2_svd_options options = {0, 0.0, 1};
    cr_assert_eq(decompose(w, N, N, &options, T2_DGESDD, &d, &err), T2_OK);
    memcpy(a, w, sizeof a);
    t2_lapack_begin();
    cr_assert_eq(t2_lapack_svd(T2_DGESDD, N, N, a, v, s, ut, &space, &converged, &err), T2_OK);
    t2_lapack_end();
    for (int i = 0; i < N * N; i++) {
        double u = ut[i];
        cr_expect_eq(fabsf(d.U[i]), nearest_bf16(fabs(u)), "%a: %a", u, (double)d.U[i]);
        differ += nearest_bf16((double)(float)u) != nearest_bf16(u);
    }
    cr_expect_gt(differ, 0, "no value of this matrix tells one rounding from two");
    t2_scratch_free(&space);
    t2_decomposition_free(&d);
}

Test(svd, first_of_equal_entries_is_positive)
{
    const double w[2] = {-3.0, 3.0};
    t2_decomposition d;
    t2_error err;
    for (t2_routine routine = T2_DGESDD; routine <= T2_DGESVD; routine++) {
        cr_assert_eq(decompose(w, 2, 1, &whole, routine, &d, &err), T2_OK);
        cr_expect_eq(d.U[0], -d.U[1]);
        cr_expect_gt(d.U[0], 0.0f);
        cr_expect_eq(d.V[0], -1.0f);
        t2_decomposition_free(&d);
    }
}

/* ---- names ---------------------------------------------------------------------------------- */

Test(svd, patterns)
{
    static const struct {
        const char *pattern, *name;
        int matches;
    } cases[] = {{"", "", 1},           {"", "a", 0},        {"*", "", 1},      {"a", "a", 1},
                 {"a?c", "abc", 1},     {"a?c", "ac", 0},    {"*.q", "x.q", 1}, {"*.q", "x.qq", 0},
                 {"a*b*c", "aXbYc", 1}, {"a*b*c", "acb", 0}, {"*ab", "aab", 1}, {"[a]", "a", 0},
                 {"**", "ab", 1},       {"a*", "a", 1},      {"*a*a*", "aa", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_eq(t2_name_matches(cases[i].pattern, cases[i].name), cases[i].matches, "%s %s",
                     cases[i].pattern, cases[i].name);
    }
}

typedef struct made {
    const char *name;
    t2_dtype dtype;
    int64_t rows, columns; /* columns 0: a vector */
} made;

/* A file of zeros with these tensors. */
static t2_safetensors *make_file(const made *list)
{
    static const unsigned char zeros[8 * 4096];
    t2_tensor tensors[24];
    int64_t shapes[24][2];
    size_t count = 0;
    t2_safetensors *file;
    t2_error err;
    for (; list[count].name != NULL; count++) {
        const made *one = &list[count];
        int64_t elements = one->rows * (one->columns > 0 ? one->columns : 1);
        shapes[count][0] = one->rows;
        shapes[count][1] = one->columns;
        tensors[count] = (t2_tensor){
            one->name,     one->dtype, one->columns > 0 ? 2 : 1,
            shapes[count], zeros,      (size_t)elements * (size_t)t2_dtype_bits(one->dtype) / 8};
    }
    cr_assert_eq(t2_safetensors_write(temp_path("m.safetensors"), tensors, count, NULL, 0, &err),
                 T2_OK, "%s", err.message);
    cr_assert_eq(t2_safetensors_open(temp_path("m.safetensors"), 0, &file, &err), T2_OK);
    return file;
}

/* The matrices as "name first transposed m n;". */
static void expect_chosen(const made *list, const char *modules, const char *expected)
{
    char text[2000] = "";
    t2_safetensors *file = make_file(list);
    t2_matrices chosen;
    t2_error err;
    t2_status status = t2_matrices_choose(file, modules, &chosen, &err);
    cr_assert_eq(status, T2_OK, "%s: %s", modules, err.message);
    for (int64_t i = 0; i < chosen.count; i++) {
        const t2_matrix *x = &chosen.list[i];
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s %d %d %d %d;", x->name, (int)x->first,
                 x->transposed, (int)x->m, (int)x->n);
    }
    cr_expect_str_eq(text, expected);
    t2_matrices_free(&chosen);
    t2_safetensors_close(file);
}

static void expect_refused(const made *list, const char *modules, t2_status expected,
                           const char *words)
{
    t2_safetensors *file = make_file(list);
    t2_matrices chosen;
    t2_error err = {T2_OK, ""};
    cr_expect_eq(t2_matrices_choose(file, modules, &chosen, &err), expected, "%s", err.message);
    cr_expect_not_null(strstr(err.message, words), "%s: no %s", err.message, words);
    cr_expect_eq(chosen.count, 0);
    t2_safetensors_close(file);
}

Test(svd, families)
{
    static const made transformer2[] = {{"embedding.weight", T2_F32, 5, 4},
                                        {"layers.0.attention.in_proj_weight", T2_F32, 12, 4},
                                        {"layers.0.attention.in_proj_bias", T2_F32, 12, 0},
                                        {"layers.0.attention.out_proj.weight", T2_F32, 4, 4},
                                        {"layers.0.feed_forward.0.weight", T2_F32, 8, 4},
                                        {"layers.0.feed_forward.2.weight", T2_F32, 4, 8},
                                        {"layers.0.norm1.weight", T2_F32, 4, 0},
                                        {NULL, T2_F32, 0, 0}};
    expect_chosen(transformer2, "attention",
                  "layers.0.attention.in_proj_weight.k 4 0 4 4;"
                  "layers.0.attention.in_proj_weight.q 0 0 4 4;"
                  "layers.0.attention.in_proj_weight.v 8 0 4 4;"
                  "layers.0.attention.out_proj.weight 0 0 4 4;");
    expect_chosen(transformer2, "mlp",
                  "layers.0.feed_forward.0.weight 0 0 8 4;layers.0.feed_forward.2.weight 0 0 4 8;");
    expect_chosen(transformer2, "emb*,*.q",
                  "embedding.weight 0 0 5 4;layers.0.attention.in_proj_weight.q 0 0 4 4;");
    static const made encoder[] = {{"encoder.layers.0.self_attn.in_proj_weight", T2_F32, 6, 2},
                                   {"encoder.layers.0.self_attn.out_proj.weight", T2_F32, 2, 2},
                                   {"encoder.layers.0.linear1.weight", T2_F32, 3, 2},
                                   {"encoder.layers.0.linear2.weight", T2_F32, 2, 3},
                                   {NULL, T2_F32, 0, 0}};
    expect_chosen(encoder, "mlp,*.v",
                  "encoder.layers.0.linear1.weight 0 0 3 2;encoder.layers.0.linear2.weight 0 0 2 3;"
                  "encoder.layers.0.self_attn.in_proj_weight.v 4 0 2 2;");
    static const made bert[] = {{"embeddings.word_embeddings.weight", T2_F32, 7, 4},
                                {"encoder.layer.0.attention.output.dense.weight", T2_BF16, 4, 4},
                                {"encoder.layer.0.attention.self.key.weight", T2_BF16, 4, 4},
                                {"encoder.layer.0.attention.self.query.weight", T2_BF16, 4, 4},
                                {"encoder.layer.0.attention.self.value.weight", T2_BF16, 4, 4},
                                {"encoder.layer.0.intermediate.dense.weight", T2_F16, 8, 4},
                                {"encoder.layer.0.output.dense.weight", T2_F64, 4, 8},
                                {NULL, T2_F32, 0, 0}};
    expect_chosen(bert, "mlp",
                  "encoder.layer.0.intermediate.dense.weight 0 0 8 4;"
                  "encoder.layer.0.output.dense.weight 0 0 4 8;");
    expect_chosen(bert, "attention",
                  "encoder.layer.0.attention.output.dense.weight 0 0 4 4;"
                  "encoder.layer.0.attention.self.key.weight 0 0 4 4;"
                  "encoder.layer.0.attention.self.query.weight 0 0 4 4;"
                  "encoder.layer.0.attention.self.value.weight 0 0 4 4;");
    static const made llama[] = {{"model.layers.0.mlp.down_proj.weight", T2_F32, 4, 6},
                                 {"model.layers.0.mlp.gate_proj.weight", T2_F32, 6, 4},
                                 {"model.layers.0.mlp.up_proj.weight", T2_F32, 6, 4},
                                 {"model.layers.0.self_attn.k_proj.weight", T2_F32, 2, 4},
                                 {"model.layers.0.self_attn.o_proj.weight", T2_F32, 4, 4},
                                 {"model.layers.0.self_attn.q_proj.weight", T2_F32, 4, 4},
                                 {"model.layers.0.self_attn.v_proj.weight", T2_F32, 2, 4},
                                 {NULL, T2_F32, 0, 0}};
    expect_chosen(llama, "mlp",
                  "model.layers.0.mlp.down_proj.weight 0 0 4 6;"
                  "model.layers.0.mlp.gate_proj.weight 0 0 6 4;"
                  "model.layers.0.mlp.up_proj.weight 0 0 6 4;");
    expect_chosen(llama, "attention",
                  "model.layers.0.self_attn.k_proj.weight 0 0 2 4;"
                  "model.layers.0.self_attn.o_proj.weight 0 0 4 4;"
                  "model.layers.0.self_attn.q_proj.weight 0 0 4 4;"
                  "model.layers.0.self_attn.v_proj.weight 0 0 2 4;");
}

Test(svd, transposed_families)
{
    /* The same names, two orders of storage: the shape of c_attn tells. */
    static const made gpt2[] = {{"h.0.attn.c_attn.weight", T2_F32, 4, 12},
                                {"h.0.attn.c_proj.weight", T2_F32, 4, 4},
                                {"h.0.mlp.c_fc.weight", T2_F32, 4, 16},
                                {"h.0.mlp.c_proj.weight", T2_F32, 16, 4},
                                {NULL, T2_F32, 0, 0}};
    expect_chosen(gpt2, "mlp,attention",
                  "h.0.attn.c_attn.weight.k 4 1 4 4;h.0.attn.c_attn.weight.q 0 1 4 4;"
                  "h.0.attn.c_attn.weight.v 8 1 4 4;h.0.attn.c_proj.weight 0 1 4 4;"
                  "h.0.mlp.c_fc.weight 0 1 16 4;h.0.mlp.c_proj.weight 0 1 4 16;");
    /* Six channels: a third of them is a whole number, too. */
    static const made mingpt[] = {{"transformer.h.0.attn.c_attn.weight", T2_F32, 18, 6},
                                  {"transformer.h.0.attn.c_proj.weight", T2_F32, 6, 6},
                                  {"transformer.h.0.mlp.c_fc.weight", T2_F32, 24, 6},
                                  {"transformer.h.0.mlp.c_proj.weight", T2_F32, 6, 24},
                                  {NULL, T2_F32, 0, 0}};
    expect_chosen(mingpt, "mlp,*.k",
                  "transformer.h.0.attn.c_attn.weight.k 6 0 6 6;"
                  "transformer.h.0.mlp.c_fc.weight 0 0 24 6;"
                  "transformer.h.0.mlp.c_proj.weight 0 0 6 24;");
}

Test(svd, all_and_refusals)
{
    static const made odd[] = {{"a.weight", T2_F32, 3, 2},          {"a.bias", T2_F32, 3, 0},
                               {"final_norm.weight", T2_F32, 2, 2}, {"positions", T2_I64, 2, 2},
                               {"quantised", T2_F8_E4M3, 2, 2},     {NULL, T2_F32, 0, 0}};
    expect_refused(odd, "all", T2_ERR_FORMAT, "tensor quantised: expected F32, F16, BF16 or F64");
    expect_refused(odd, "pos*", T2_ERR_FORMAT, "found I64");
    expect_chosen(odd, "*norm*,a.*", "a.weight 0 0 3 2;final_norm.weight 0 0 2 2;");
    expect_refused(odd, "mlp", T2_ERR_ARG, "nothing matches 'mlp'");
    expect_refused(odd, "a.weight,b*", T2_ERR_ARG, "nothing matches 'b*'");
    expect_refused(odd, "a.bias", T2_ERR_ARG, "nothing matches 'a.bias'");
    expect_refused(odd, "a.weight,", T2_ERR_ARG, "nothing matches ''");
    static const made plain[] = {{"a.weight", T2_F32, 3, 2},
                                 {"b_norm", T2_F32, 2, 2},
                                 {"ids", T2_I64, 2, 2},
                                 {"layers.0.attention.in_proj_weight", T2_F16, 6, 2},
                                 {NULL, T2_F32, 0, 0}};
    expect_chosen(plain, "all",
                  "a.weight 0 0 3 2;layers.0.attention.in_proj_weight.k 2 0 2 2;"
                  "layers.0.attention.in_proj_weight.q 0 0 2 2;"
                  "layers.0.attention.in_proj_weight.v 4 0 2 2;");
    static const made clash[] = {{"layers.0.attention.in_proj_weight", T2_F32, 6, 2},
                                 {"layers.0.attention.in_proj_weight.q", T2_F32, 2, 2},
                                 {NULL, T2_F32, 0, 0}};
    expect_refused(clash, "all", T2_ERR_FORMAT, "two matrices are called");
    static const made empty[] = {{"a", T2_F32, 0, 3}, {NULL, T2_F32, 0, 0}};
    expect_refused(empty, "a", T2_ERR_FORMAT, "expected a matrix, found [0, 3]");
}

/* ---- elements ------------------------------------------------------------------------------- */

Test(svd, elements)
{
    const uint16_t f16[6] = {0x3c00, 0xc500, 0x0001, 0x8000, 0x7bff, 0x83ff};
    const uint16_t bf16[6] = {0x3f80, 0xc0a0, 0x0001, 0x8000, 0x7f7f, 0x3dcd};
    const double f64[6] = {1.0, -5.0, 1e-300, 0.1, 1e300, 3.0};
    const float f32[6] = {1.0f, -5.0f, 1e-40f, 0.1f, 3e38f, 7.0f};
    const double expected[4][6] = {{1.0, -5.0, 0x1p-24, -0.0, 65504.0, -1023.0 * 0x1p-24},
                                   {1.0, -5.0, 0x1p-133, -0.0, 0x1.fep127, 0x1.9ap-4},
                                   {1.0, -5.0, 1e-300, 0.1, 1e300, 3.0},
                                   {1.0, -5.0, (double)1e-40f, (double)0.1f, (double)3e38f, 7.0}};
    const struct {
        t2_dtype dtype;
        const void *data;
        size_t bytes;
    } types[4] = {{T2_F16, f16, sizeof f16},
                  {T2_BF16, bf16, sizeof bf16},
                  {T2_F64, f64, sizeof f64},
                  {T2_F32, f32, sizeof f32}};
    const int64_t shape[2] = {3, 2};
    for (int t = 0; t < 4; t++) {
        /* One byte off: files need not align. */
        unsigned char moved[64];
        double w[6];
        memcpy(moved + 1, types[t].data, types[t].bytes);
        t2_tensor tensor = {"x", types[t].dtype, 2, shape, moved + 1, types[t].bytes};
        t2_matrix plain = {NULL, &tensor, 0, 0, 3, 2};
        cr_expect_eq(t2_matrix_read("f", &plain, w, NULL), T2_OK);
        cr_expect_eq(memcmp(w, expected[t], sizeof w), 0, "%s", t2_dtype_name(types[t].dtype));
        /* The second output of an (inputs, outputs) tensor. */
        t2_matrix part = {NULL, &tensor, 1, 1, 1, 3};
        cr_expect_eq(t2_matrix_read("f", &part, w, NULL), T2_OK);
        for (int i = 0; i < 3; i++) {
            cr_expect_eq(memcmp(&w[i], &expected[t][2 * i + 1], sizeof w[i]), 0);
        }
        t2_matrix rows = {NULL, &tensor, 1, 0, 2, 2};
        cr_expect_eq(t2_matrix_read("f", &rows, w, NULL), T2_OK);
        cr_expect_eq(memcmp(w, expected[t] + 2, 4 * sizeof w[0]), 0);
    }
}

Test(svd, not_finite)
{
    float values[6] = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, INFINITY};
    const int64_t shape[2] = {3, 2};
    t2_tensor tensor = {"some.weight", T2_F32, 2, shape, values, sizeof values};
    t2_matrix part = {NULL, &tensor, 1, 1, 1, 3};
    double w[6];
    t2_error err = {T2_OK, ""};
    cr_expect_eq(t2_matrix_read("f.st", &part, w, &err), T2_ERR_NUMERIC);
    cr_expect_str_eq(err.message,
                     "f.st: tensor some.weight: element [2, 1] is not a finite number");
    values[5] = 0.0f;
    values[2] = NAN;
    t2_matrix plain = {NULL, &tensor, 1, 0, 2, 2};
    cr_expect_eq(t2_matrix_read("f.st", &plain, w, &err), T2_ERR_NUMERIC);
    cr_expect_not_null(strstr(err.message, "element [1, 0]"), "%s", err.message);
}

Test(svd, weight_hash)
{
    /* printf 'F32 [2, 2]\n' and the bytes of 2, 3, 5, 6 | sha256sum */
    const float values[6] = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
    const float block[4] = {2.0f, 3.0f, 5.0f, 6.0f};
    const int64_t shape[2] = {2, 3}, small[2] = {2, 2};
    t2_tensor tensor = {"x", T2_F32, 2, shape, values, sizeof values};
    t2_tensor alone = {"y", T2_F32, 2, small, block, sizeof block};
    t2_matrix part = {NULL, &tensor, 1, 1, 2, 2}, own = {NULL, &alone, 0, 0, 2, 2};
    char hash[T2_HASH_CHARS];
    t2_matrix_hash(&part, hash);
    cr_expect_str_eq(hash, "1ec639df0430efca2644f91350fac4644190683345be08581003d608e1dd11a5");
    t2_matrix_hash(&own, hash);
    cr_expect_str_eq(hash, "1ec639df0430efca2644f91350fac4644190683345be08581003d608e1dd11a5");
}
