/* Experts against the reference results: scales, the three ways to apply them, batches whose rows
 * have different experts or mixtures, and what is refused. */
#include "check.h"
#include "golden.h"
#include "svf_case.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(experts, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

/* ---- reference cases ------------------------------------------------------------------------ */

static const t2_expert_form sigmoid1 = {T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 1.0f, 1.0f, 1};
static const t2_expert_form sigmoid2 = {T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 2.0f, 1.0f, 1};
static const t2_expert_form plain = {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
static const t2_expert_form relu1 = {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 1.0f, 0};
static const t2_expert_form relu_half = {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 0.5f, 0};

static const struct mode {
    const char *name, *parameter;
    const t2_expert_form *form;
} modes[] = {{"sigmoid", "p", &sigmoid1},
             {"sigmoid2", "p", &sigmoid2},
             {"plain", "z", &plain},
             {"relu", "delta", &relu1},
             {"relu_half", "delta", &relu_half}};
enum { MODES = sizeof modes / sizeof modes[0] };

/* A case's matrix with its factors, as a layer without bias. */
struct fixture {
    const golden_case *one;
    t2_safetensors *file;
    svf_case matrix;
    const float *x;
    int64_t rows;
    t2_factors *factors;
    t2_adapter *adapter;
};

static int64_t size_of(const golden_case *one, const char *key)
{
    return json_integer_value(json_object_get(one->json, key));
}

static struct fixture open_case(const golden_case *one, int with_adapter)
{
    struct fixture f = {.one = one};
    t2_error err;
    cr_assert_eq(t2_safetensors_open(one->path, 0, &f.file, &err), T2_OK, "%s", err.message);
    f.matrix = (svf_case){"layer.weight",
                          size_of(one, "m"),
                          size_of(one, "n"),
                          size_of(one, "r"),
                          golden_f32(f.file, golden_input(one, f.file, "W")),
                          golden_f32(f.file, golden_input(one, f.file, "U")),
                          golden_f32(f.file, golden_input(one, f.file, "S")),
                          golden_f32(f.file, golden_input(one, f.file, "V"))};
    f.factors = svf_case_factors(temp_path("factors.safetensors"), &f.matrix, 1);
    if (with_adapter) {
        const t2_tensor *x = golden_input(one, f.file, "x");
        f.x = golden_f32(f.file, x);
        f.rows = x->shape[0];
        t2_layer layer = {"layer.weight", f.matrix.n, f.matrix.m, f.matrix.W, NULL};
        cr_assert_eq(t2_adapter_create_layers(&layer, 1, f.factors, 0, &f.adapter, &err), T2_OK,
                     "%s", err.message);
    }
    return f;
}

static void close_case(struct fixture *f)
{
    t2_adapter_destroy(f->adapter);
    t2_factors_close(f->factors);
    t2_safetensors_close(f->file);
}

static void near_golden(const struct fixture *f, const char *name, const float *got,
                        const char *way)
{
    golden_error error = golden_compare(f->one, f->file, name, got);
    cr_expect_leq(error.max_abs, error.allowed, "%s %s by %s: [%zu] = %.9g, expected %.9g",
                  f->one->id, name, way, error.at, error.got, error.want);
}

static t2_adaptation *adapt(const struct fixture *f, const t2_expert *const *experts, int64_t count,
                            const double *alpha, int64_t rows, t2_mix_rule rule, t2_way way)
{
    t2_adaptation *adaptation = NULL;
    t2_error err = {T2_OK, ""};
    t2_adapt_args args = {.size = sizeof args,
                          .experts = experts,
                          .count = count,
                          .alpha = alpha,
                          .rows = rows,
                          .rule = rule,
                          .way = way};
    cr_assert_eq(t2_adaptation_create(f->adapter, &args, &adaptation, &err), T2_OK, "%s: %s",
                 f->one->id, err.message);
    return adaptation;
}

static float *run_layer(const struct fixture *f, const t2_adaptation *adaptation, int64_t first,
                        int64_t rows, const int64_t *expert_rows, int threads)
{
    t2_error err = {T2_OK, ""};
    float *y = calloc((size_t)(rows * f->matrix.m), sizeof *y);
    cr_assert_eq(t2_adaptation_run_layer(adaptation, 0, rows, expert_rows,
                                         f->x + first * f->matrix.n, y, threads, &err),
                 T2_OK, "%s: %s", f->one->id, err.message);
    return y;
}

static t2_expert *expert_of(const struct fixture *f, const struct mode *mode)
{
    const float *p = golden_f32(f->file, golden_input(f->one, f->file, mode->parameter));
    return svf_case_expert(f->factors, *mode->form, "layer.weight", f->matrix.r, p);
}

static void check_scales(const struct fixture *f, const struct mode *mode, const t2_expert *expert)
{
    char name[64];
    float *values = calloc((size_t)f->matrix.r * 3, sizeof *values);
    float *scaled = values, *z = values + f->matrix.r, *a = z + f->matrix.r;
    double c;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_expert_scales(expert, f->factors, 0, scaled, z, a, &c, &err), T2_OK, "%s",
                 err.message);
    if (mode->form->squash == T2_SQUASH_SIGMOID) {
        float single = (float)c;
        snprintf(name, sizeof name, "%s.a", mode->name);
        near_golden(f, name, a, "scales");
        snprintf(name, sizeof name, "%s.c", mode->name);
        near_golden(f, name, &single, "scales");
    }
    int relu = mode->form->squash == T2_SQUASH_RELU_DELTA;
    snprintf(name, sizeof name, "%s.%s", mode->name, relu ? "Sp" : "zeff");
    near_golden(f, name, relu ? scaled : z, "scales");
    free(values);
}

/* Every way of every form on every matrix, as the reference computes it. */
Test(experts, golden)
{
    golden_manifest manifest = golden_open("tests/golden/manifest.json");
    int cases = 0;
    for (size_t c = 0; c < manifest.count; c++) {
        const golden_case *one = &manifest.cases[c];
        if (strcmp(one->kind, "svf") != 0 || strcmp(one->expect, "ok") != 0) {
            continue;
        }
        struct fixture f = open_case(one, 1);
        for (int i = 0; i < MODES; i++) {
            t2_expert *expert = expert_of(&f, &modes[i]);
            check_scales(&f, &modes[i], expert);
            for (t2_way way = T2_WAY_REBUILD; way <= T2_WAY_DELTA; way++) {
                char name[64];
                t2_adaptation *adaptation =
                    adapt(&f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
                float *y = run_layer(&f, adaptation, 0, f.rows, NULL, 1);
                snprintf(name, sizeof name, "%s.%s", modes[i].name,
                         way == T2_WAY_REBUILD ? "y_rebuild" : "y_factored");
                near_golden(&f, name, y, t2_way_str(way));
                free(y);
                t2_adaptation_release(adaptation);
            }
            t2_expert_release(expert);
        }
        close_case(&f);
        cases++;
    }
    cr_expect_geq(cases, 9);
    golden_close(&manifest);
}

/* Scales that leave nothing of the matrix are refused, not turned into NaN. */
Test(experts, golden_refused)
{
    golden_manifest manifest = golden_open("tests/golden/manifest.json");
    int cases = 0;
    for (size_t c = 0; c < manifest.count; c++) {
        const golden_case *one = &manifest.cases[c];
        if (strcmp(one->kind, "svf") != 0 || strcmp(one->expect, "error:normaliser") != 0) {
            continue;
        }
        struct fixture f = open_case(one, 0);
        t2_expert *expert = expert_of(&f, &modes[0]);
        float *z = calloc((size_t)f.matrix.r, sizeof *z);
        t2_error err = {T2_OK, ""};
        t2_status status = t2_expert_scales(expert, f.factors, 0, NULL, z, NULL, NULL, &err);
        cr_expect_eq(status, T2_ERR_NUMERIC, "%s: %s", one->id, t2_status_str(status));
        cr_expect_not_null(strstr(err.message, "layer.weight"), "%s", err.message);
        free(z);
        t2_expert_release(expert);
        close_case(&f);
        cases++;
    }
    cr_expect_eq(cases, 2);
    golden_close(&manifest);
}

/* ---- batches -------------------------------------------------------------------------------- */

enum { EXPERTS = 5 };

static void open_experts(const struct fixture *f, t2_expert *experts[EXPERTS])
{
    const float *p = golden_f32(f->file, golden_input(f->one, f->file, "p"));
    for (int k = 0; k < EXPERTS; k++) {
        experts[k] =
            svf_case_expert(f->factors, sigmoid1, "layer.weight", f->matrix.r, p + k * f->matrix.r);
    }
}

/* A row's bits do not depend on the rows beside it, nor on the number of threads. */
static void check_alone(const struct fixture *f, const t2_adaptation *adaptation,
                        const int64_t *index, const float *together)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        float *y = run_layer(f, adaptation, 0, f->rows, index, threads);
        cr_expect_eq(first_difference(y, together, (size_t)(f->rows * f->matrix.m)),
                     (size_t)(f->rows * f->matrix.m), "%d threads", threads);
        free(y);
    }
    for (int64_t i = 0; i < f->rows; i++) {
        float *y = run_layer(f, adaptation, i, 1, &index[i], 1);
        cr_expect_eq(first_difference(y, together + i * f->matrix.m, (size_t)f->matrix.m),
                     (size_t)f->matrix.m, "row %d alone", (int)i);
        free(y);
    }
}

static void check_index(const struct fixture *f, t2_expert *const experts[EXPERTS], t2_way way)
{
    const int64_t *index = golden_i64(f->file, golden_input(f->one, f->file, "index"));
    t2_adaptation *adaptation =
        adapt(f, (const t2_expert *const *)experts, EXPERTS, NULL, 0, T2_MIX_ZEFF, way);
    float *y = run_layer(f, adaptation, 0, f->rows, index, 1);
    near_golden(f, "index.y", y, t2_way_str(way));
    check_alone(f, adaptation, index, y);
    free(y);
    t2_adaptation_release(adaptation);
}

static void check_mixture(const struct fixture *f, t2_expert *const experts[EXPERTS],
                          t2_mix_rule rule, const char *name, t2_way way)
{
    const float *weights = golden_f32(f->file, golden_input(f->one, f->file, "alpha"));
    double *alpha = calloc((size_t)(f->rows * EXPERTS), sizeof *alpha);
    int64_t *rows = calloc((size_t)f->rows, sizeof *rows);
    for (int64_t i = 0; i < f->rows * EXPERTS; i++) {
        alpha[i] = (double)weights[i];
    }
    for (int64_t i = 0; i < f->rows; i++) {
        rows[i] = i;
    }
    t2_adaptation *adaptation =
        adapt(f, (const t2_expert *const *)experts, EXPERTS, alpha, f->rows, rule, way);
    float *y = run_layer(f, adaptation, 0, f->rows, rows, 1);
    near_golden(f, name, y, t2_way_str(way));
    check_alone(f, adaptation, rows, y);
    /* The mixture as an expert of its own has the same bits. */
    t2_expert *mixed = NULL;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_expert_mix(f->factors, rule, (const t2_expert *const *)experts, EXPERTS,
                               alpha + 3 * EXPERTS, 0, "mixed", &mixed, &err),
                 T2_OK, "%s", err.message);
    t2_adaptation *alone = adapt(f, (const t2_expert *const *)&mixed, 1, NULL, 0, T2_MIX_ZEFF, way);
    float *row = run_layer(f, alone, 3, 1, NULL, 1);
    cr_expect_eq(first_difference(row, y + 3 * f->matrix.m, (size_t)f->matrix.m),
                 (size_t)f->matrix.m, "%s as an expert", name);
    free(row);
    t2_adaptation_release(alone);
    t2_expert_release(mixed);
    free(y);
    t2_adaptation_release(adaptation);
    free(rows);
    free(alpha);
}

Test(experts, golden_batches)
{
    golden_manifest manifest = golden_open("tests/golden/manifest.json");
    int cases = 0;
    for (size_t c = 0; c < manifest.count; c++) {
        if (strcmp(manifest.cases[c].kind, "svf_batch") != 0) {
            continue;
        }
        struct fixture f = open_case(&manifest.cases[c], 1);
        t2_expert *experts[EXPERTS];
        open_experts(&f, experts);
        for (t2_way way = T2_WAY_FACTORED; way <= T2_WAY_DELTA; way++) {
            check_index(&f, experts, way);
            check_mixture(&f, experts, T2_MIX_ZEFF, "mix_zeff.y", way);
            check_mixture(&f, experts, T2_MIX_A, "mix_a.y", way);
            check_mixture(&f, experts, T2_MIX_RAW, "mix_raw.y", way);
        }
        for (int k = 0; k < EXPERTS; k++) {
            t2_expert_release(experts[k]);
        }
        close_case(&f);
        cases++;
    }
    cr_expect_eq(cases, 2);
    golden_close(&manifest);
}

/* ---- laws ----------------------------------------------------------------------------------- */

/* A matrix with a thin factorisation that is exact enough: columns of plane rotations. */
enum { M = 37, N = 23, R = 23, ROWS = 19 };

struct laws {
    float W[M * N], U[M * R], S[R], V[N * R], x[ROWS * N], bias[M];
    struct fixture f;
    golden_case none;
};

/* Orthonormal columns (rows, R) by Gram and Schmidt in double. */
static void orthonormal(struct rng *rng, int rows, float *out)
{
    double *q = calloc((size_t)(rows * R), sizeof *q);
    for (int k = 0; k < R; k++) {
        for (int i = 0; i < rows; i++) {
            q[i * R + k] = (double)rng_uniform(rng);
        }
        for (int pass = 0; pass < 2; pass++) {
            for (int j = 0; j < k; j++) {
                double dot = 0.0;
                for (int i = 0; i < rows; i++) {
                    dot += q[i * R + j] * q[i * R + k];
                }
                for (int i = 0; i < rows; i++) {
                    q[i * R + k] -= dot * q[i * R + j];
                }
            }
        }
        double norm = 0.0;
        for (int i = 0; i < rows; i++) {
            norm += q[i * R + k] * q[i * R + k];
        }
        for (int i = 0; i < rows; i++) {
            q[i * R + k] /= sqrt(norm);
            out[i * R + k] = (float)q[i * R + k];
        }
    }
    free(q);
}

static struct laws *make_laws(void)
{
    struct laws *l = calloc(1, sizeof *l);
    struct rng rng = {check_seed()};
    t2_error err;
    orthonormal(&rng, M, l->U);
    orthonormal(&rng, N, l->V);
    for (int k = 0; k < R; k++) {
        l->S[k] = 4.0f / (float)(k + 1);
    }
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 0.0;
            for (int k = 0; k < R; k++) {
                sum += (double)l->U[i * R + k] * (double)l->S[k] * (double)l->V[j * R + k];
            }
            l->W[i * N + j] = (float)sum;
        }
    }
    rng_fill(&rng, l->x, ROWS * N);
    rng_fill(&rng, l->bias, M);
    l->none.id = "laws";
    l->f = (struct fixture){.one = &l->none, .x = l->x, .rows = ROWS};
    l->f.matrix = (svf_case){"layer.weight", M, N, R, l->W, l->U, l->S, l->V};
    l->f.factors = svf_case_factors(temp_path("factors.safetensors"), &l->f.matrix, 1);
    t2_layer layer = {"layer.weight", N, M, l->W, l->bias};
    cr_assert_eq(t2_adapter_create_layers(&layer, 1, l->f.factors, 0, &l->f.adapter, &err), T2_OK,
                 "%s", err.message);
    return l;
}

static void free_laws(struct laws *l)
{
    close_case(&l->f);
    free(l);
}

static float *base_of(const struct laws *l)
{
    t2k_epilogue e = {.size = sizeof e, .bias = l->bias};
    float *y = calloc(ROWS * M, sizeof *y);
    cr_assert_eq(
        t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, ROWS, M, N, 1.0f, l->x, N, l->W, N, 0.0f, y, M, &e),
        T2K_OK);
    return y;
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst;
}

static t2_expert *random_expert(const struct laws *l, t2_expert_form form, uint64_t seed)
{
    struct rng rng = {seed};
    float p[R];
    rng_fill(&rng, p, R);
    return svf_case_expert(l->f.factors, form, "layer.weight", R, p);
}

/* An expert that changes nothing is the base: bit for bit where its plan says so. */
Test(experts, neutral)
{
    struct laws *l = make_laws();
    float *base = base_of(l);
    for (int i = 0; i < MODES; i++) {
        t2_expert *expert = NULL;
        t2_error err = {T2_OK, ""};
        cr_assert_eq(
            t2_expert_new(modes[i].form, "neutral", l->f.factors, NULL, 0.0, 0, &expert, &err),
            T2_OK, "%s", err.message);
        for (t2_way way = T2_WAY_PLAN; way <= T2_WAY_AUTO; way++) {
            t2_adaptation *adaptation =
                adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
            float *y = run_layer(&l->f, adaptation, 0, ROWS, NULL, 1);
            cr_expect_eq(first_difference(y, base, ROWS * M), (size_t)ROWS * M, "%s by %s",
                         modes[i].name, t2_way_str(way));
            cr_expect_eq(t2_adaptation_plan(adaptation, 0)->changed, 0);
            free(y);
            t2_adaptation_release(adaptation);
        }
        t2_expert_release(expert);
    }
    free(base);
    free_laws(l);
}

/* Base rows beside others: exact by delta, to rounding by factors. */
Test(experts, base_rows)
{
    struct laws *l = make_laws();
    float *base = base_of(l);
    t2_expert *expert = random_expert(l, sigmoid2, 3);
    int64_t rows[ROWS];
    for (int i = 0; i < ROWS; i++) {
        rows[i] = i % 3 == 0 ? -1 : 0;
    }
    for (t2_way way = T2_WAY_FACTORED; way <= T2_WAY_DELTA; way++) {
        t2_adaptation *adaptation =
            adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
        float *y = run_layer(&l->f, adaptation, 0, ROWS, rows, 2);
        for (int i = 0; i < ROWS; i += 3) {
            if (way == T2_WAY_DELTA) {
                cr_expect_eq(first_difference(y + i * M, base + i * M, M), (size_t)M, "row %d", i);
            }
            cr_expect_leq(largest_difference(y + i * M, base + i * M, M), 1e-5);
        }
        cr_expect_gt(largest_difference(y + M, base + M, M), 1e-3);
        free(y);
        t2_adaptation_release(adaptation);
    }
    t2_expert_release(expert);
    free(base);
    free_laws(l);
}

/* The three ways agree to rounding for every form. */
Test(experts, ways_agree)
{
    struct laws *l = make_laws();
    for (int i = 0; i < MODES; i++) {
        t2_expert *expert = random_expert(l, *modes[i].form, (uint64_t)i + 11);
        float *y[4];
        for (t2_way way = T2_WAY_REBUILD; way <= T2_WAY_AUTO; way++) {
            t2_adaptation *adaptation =
                adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
            y[way - T2_WAY_REBUILD] = run_layer(&l->f, adaptation, 0, ROWS, NULL, 1);
            t2_adaptation_release(adaptation);
        }
        for (int j = 1; j < 4; j++) {
            cr_expect_leq(largest_difference(y[0], y[j], ROWS * M), 2e-5, "%s, way %d",
                          modes[i].name, j);
        }
        for (int j = 0; j < 4; j++) {
            free(y[j]);
        }
        t2_expert_release(expert);
    }
    free_laws(l);
}

/* c makes scales relative: twice as large ones are the same expert. */
Test(experts, scale_invariance)
{
    struct laws *l = make_laws();
    float z1[R], z2[R];
    t2_error err;
    t2_expert *one = random_expert(l, sigmoid1, 5), *two = random_expert(l, sigmoid2, 5);
    cr_assert_eq(t2_expert_scales(one, l->f.factors, 0, NULL, z1, NULL, NULL, &err), T2_OK);
    cr_assert_eq(t2_expert_scales(two, l->f.factors, 0, NULL, z2, NULL, NULL, &err), T2_OK);
    cr_expect_leq(largest_difference(z1, z2, R), 3e-7);
    double sum = 0.0, scaled = 0.0;
    for (int i = 0; i < R; i++) {
        sum += (double)l->S[i];
        scaled += (double)l->S[i] * (double)z1[i];
    }
    cr_expect_float_eq(scaled, sum, 1e-6 * sum);
    t2_expert_release(one);
    t2_expert_release(two);
    free_laws(l);
}

/* Fewer components: the difference stays below the stated bound times |x|. */
Test(experts, components)
{
    struct laws *l = make_laws();
    t2_expert *expert = random_expert(l, sigmoid2, 9);
    t2_adaptation *whole =
        adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, T2_WAY_DELTA);
    float *want = run_layer(&l->f, whole, 0, ROWS, NULL, 1);
    cr_expect_eq(t2_adaptation_plan(whole, 0)->error_bound, 0.0);
    double before = HUGE_VAL;
    for (int64_t k = 1; k <= R; k += 4) {
        t2_adapt_args args = {.size = sizeof args,
                              .experts = (const t2_expert *const *)&expert,
                              .count = 1,
                              .way = T2_WAY_DELTA,
                              .components = k};
        t2_adaptation *few = NULL;
        t2_error err;
        cr_assert_eq(t2_adaptation_create(l->f.adapter, &args, &few, &err), T2_OK, "%s",
                     err.message);
        const t2_plan_entry *plan = t2_adaptation_plan(few, 0);
        cr_expect_eq(plan->used, k);
        cr_expect_leq(plan->error_bound, before);
        before = plan->error_bound;
        float *y = run_layer(&l->f, few, 0, ROWS, NULL, 1);
        for (int i = 0; i < ROWS; i++) {
            double norm = 0.0, off = 0.0;
            for (int j = 0; j < N; j++) {
                norm += (double)l->x[i * N + j] * (double)l->x[i * N + j];
            }
            for (int j = 0; j < M; j++) {
                double d = (double)y[i * M + j] - (double)want[i * M + j];
                off += d * d;
            }
            cr_expect_leq(sqrt(off), plan->error_bound * sqrt(norm) + 1e-5, "%d components",
                          (int)k);
        }
        free(y);
        t2_adaptation_release(few);
    }
    free(want);
    t2_adaptation_release(whole);
    t2_expert_release(expert);
    free_laws(l);
}

/* Mixtures are linear in z, and by the delta rule in z - 1. */
Test(experts, mixtures)
{
    struct laws *l = make_laws();
    t2_expert *both[2] = {random_expert(l, sigmoid2, 21), random_expert(l, sigmoid2, 22)};
    static const double weights[][2] = {{1, 0}, {0, 1}, {0.5, 0.5}, {2, -1}, {-0.25, 1.5}, {1, 1}};
    float z[2][R], got[R];
    t2_error err = {T2_OK, ""};
    for (int k = 0; k < 2; k++) {
        cr_assert_eq(t2_expert_scales(both[k], l->f.factors, 0, NULL, z[k], NULL, NULL, &err),
                     T2_OK);
    }
    for (size_t w = 0; w < sizeof weights / sizeof weights[0]; w++) {
        for (t2_mix_rule rule = T2_MIX_ZEFF; rule <= T2_MIX_DELTA; rule += 2) {
            t2_expert *mixed = NULL;
            cr_assert_eq(t2_expert_mix(l->f.factors, rule, (const t2_expert *const *)both, 2,
                                       weights[w], 0, "m", &mixed, &err),
                         T2_OK, "%s", err.message);
            cr_assert_eq(t2_expert_scales(mixed, l->f.factors, 0, NULL, got, NULL, NULL, &err),
                         T2_OK);
            int negative = 0;
            double worst = 0.0;
            for (int i = 0; i < R; i++) {
                double offset = rule == T2_MIX_DELTA ? 1.0 : 0.0;
                double want = offset + weights[w][0] * ((double)z[0][i] - offset) +
                              weights[w][1] * ((double)z[1][i] - offset);
                negative = negative || want < 0.0;
                worst = fmax(worst, fabs(want - (double)got[i]));
            }
            if (rule == T2_MIX_ZEFF || !negative) {
                cr_expect_leq(worst, 1e-6, "weights %zu rule %d", w, (int)rule);
            } else {
                double sum = 0.0, scaled = 0.0;
                for (int i = 0; i < R; i++) {
                    cr_expect_geq(got[i], 0.0f);
                    sum += (double)l->S[i];
                    scaled += (double)l->S[i] * (double)got[i];
                }
                cr_expect_float_eq(scaled, sum, 1e-5 * sum);
            }
            t2_expert_release(mixed);
        }
    }
    static const double bad[][2] = {{NAN, 1}, {HUGE_VAL, 1}, {1001, 0}, {0, 0}};
    for (size_t w = 0; w < 4; w++) {
        t2_expert *mixed = NULL;
        t2_status status = t2_expert_mix(l->f.factors, T2_MIX_ZEFF, (const t2_expert *const *)both,
                                         2, bad[w], 0, "m", &mixed, &err);
        cr_expect_eq(status, w < 3 ? T2_ERR_ARG : T2_ERR_NUMERIC, "weights %zu: %s", w,
                     t2_status_str(status));
        cr_expect_null(mixed);
    }
    t2_expert_release(both[0]);
    t2_expert_release(both[1]);
    free_laws(l);
}
