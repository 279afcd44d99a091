/* Experts against the reference results: scales, the three ways to apply them, batches whose rows
 * have different experts or mixtures, and scales that are refused. */
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

/* A case's matrix with its factors, as a layer without bias. */
struct fixture {
    const golden_case *one;
    t2_safetensors *file;
    svf_layer l;
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
    f.l.matrix = (svf_case){"layer.weight",
                            size_of(one, "m"),
                            size_of(one, "n"),
                            size_of(one, "r"),
                            golden_f32(f.file, golden_input(one, f.file, "W")),
                            golden_f32(f.file, golden_input(one, f.file, "U")),
                            golden_f32(f.file, golden_input(one, f.file, "S")),
                            golden_f32(f.file, golden_input(one, f.file, "V"))};
    if (with_adapter) {
        const t2_tensor *x = golden_input(one, f.file, "x");
        f.l.x = golden_f32(f.file, x);
        f.l.rows = x->shape[0];
        svf_layer_open(&f.l, temp_path("factors.safetensors"), NULL);
    } else {
        f.l.factors = svf_case_factors(temp_path("factors.safetensors"), &f.l.matrix, 1);
    }
    return f;
}

static void close_case(struct fixture *f)
{
    svf_layer_close(&f->l);
    t2_safetensors_close(f->file);
}

static void near_golden(const struct fixture *f, const char *name, const float *got,
                        const char *way)
{
    golden_error error = golden_compare(f->one, f->file, name, got);
    cr_expect_leq(error.max_abs, error.allowed, "%s %s by %s: [%zu] = %.9g, expected %.9g",
                  f->one->id, name, way, error.at, error.got, error.want);
}

/* All results of a test, one after another: run-tests.sh wants the same on every ISA. */
static uint64_t results = T2K_FINGERPRINT_SEED;

static void record(const float *values, int64_t count)
{
    results = t2k_fingerprint_f32(results, 1, &count, values);
}

static void print_results(const char *kind)
{
    fprintf(stderr, "isa %s golden %s fingerprint %016llx\n", t2k_isa_name(), kind,
            (unsigned long long)results);
}

static t2_expert *expert_of(const struct fixture *f, const svf_mode *mode)
{
    const float *p = golden_f32(f->file, golden_input(f->one, f->file, mode->parameter));
    return svf_case_expert(f->l.factors, mode->form, "layer.weight", f->l.matrix.r, p);
}

static void check_scales(const struct fixture *f, const svf_mode *mode, const t2_expert *expert)
{
    char name[64];
    float *values = calloc((size_t)f->l.matrix.r * 3, sizeof *values);
    float *scaled = values, *z = values + f->l.matrix.r, *a = z + f->l.matrix.r;
    double c;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_expert_scales(expert, f->l.factors, 0, scaled, z, a, &c, &err), T2_OK, "%s",
                 err.message);
    if (mode->form.squash == T2_SQUASH_SIGMOID) {
        float single = (float)c;
        snprintf(name, sizeof name, "%s.a", mode->name);
        near_golden(f, name, a, "scales");
        snprintf(name, sizeof name, "%s.c", mode->name);
        near_golden(f, name, &single, "scales");
    }
    int relu = mode->form.squash == T2_SQUASH_RELU_DELTA;
    snprintf(name, sizeof name, "%s.%s", mode->name, relu ? "Sp" : "zeff");
    near_golden(f, name, relu ? scaled : z, "scales");
    record(values, 3 * f->l.matrix.r);
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
        for (int i = 0; i < SVF_MODES; i++) {
            t2_expert *expert = expert_of(&f, &svf_modes[i]);
            check_scales(&f, &svf_modes[i], expert);
            for (t2_way way = T2_WAY_REBUILD; way <= T2_WAY_DELTA; way++) {
                char name[64];
                t2_adaptation *adaptation = svf_adapt(&f.l, (const t2_expert *const *)&expert, 1,
                                                      NULL, 0, T2_MIX_ZEFF, way);
                float *y = svf_run(&f.l, adaptation, 0, f.l.rows, NULL, 1);
                record(y, f.l.rows * f.l.matrix.m);
                snprintf(name, sizeof name, "%s.%s", svf_modes[i].name,
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
    print_results("svf_ways");
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
        t2_expert *expert = expert_of(&f, &svf_modes[0]);
        float *z = calloc((size_t)f.l.matrix.r, sizeof *z);
        t2_error err = {T2_OK, ""};
        t2_status status = t2_expert_scales(expert, f.l.factors, 0, NULL, z, NULL, NULL, &err);
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
        experts[k] = svf_case_expert(f->l.factors, svf_modes[0].form, "layer.weight", f->l.matrix.r,
                                     p + k * f->l.matrix.r);
    }
}

/* A row's bits do not depend on the rows beside it, nor on the number of threads. */
static void check_alone(const struct fixture *f, const t2_adaptation *adaptation,
                        const int64_t *index, const float *together)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        float *y = svf_run(&f->l, adaptation, 0, f->l.rows, index, threads);
        cr_expect_eq(first_difference(y, together, (size_t)(f->l.rows * f->l.matrix.m)),
                     (size_t)(f->l.rows * f->l.matrix.m), "%d threads", threads);
        free(y);
    }
    for (int64_t i = 0; i < f->l.rows; i++) {
        float *y = svf_run(&f->l, adaptation, i, 1, &index[i], 1);
        cr_expect_eq(first_difference(y, together + i * f->l.matrix.m, (size_t)f->l.matrix.m),
                     (size_t)f->l.matrix.m, "row %d alone", (int)i);
        free(y);
    }
}

static void check_index(const struct fixture *f, t2_expert *const experts[EXPERTS], t2_way way)
{
    const int64_t *index = golden_i64(f->file, golden_input(f->one, f->file, "index"));
    t2_adaptation *adaptation =
        svf_adapt(&f->l, (const t2_expert *const *)experts, EXPERTS, NULL, 0, T2_MIX_ZEFF, way);
    float *y = svf_run(&f->l, adaptation, 0, f->l.rows, index, 1);
    near_golden(f, "index.y", y, t2_way_str(way));
    record(y, f->l.rows * f->l.matrix.m);
    check_alone(f, adaptation, index, y);
    free(y);
    t2_adaptation_release(adaptation);
}

static void check_mixture(const struct fixture *f, t2_expert *const experts[EXPERTS],
                          t2_mix_rule rule, const char *name, t2_way way)
{
    const float *weights = golden_f32(f->file, golden_input(f->one, f->file, "alpha"));
    double *alpha = calloc((size_t)(f->l.rows * EXPERTS), sizeof *alpha);
    int64_t *rows = calloc((size_t)f->l.rows, sizeof *rows);
    for (int64_t i = 0; i < f->l.rows * EXPERTS; i++) {
        alpha[i] = (double)weights[i];
    }
    for (int64_t i = 0; i < f->l.rows; i++) {
        rows[i] = i;
    }
    t2_adaptation *adaptation =
        svf_adapt(&f->l, (const t2_expert *const *)experts, EXPERTS, alpha, f->l.rows, rule, way);
    float *y = svf_run(&f->l, adaptation, 0, f->l.rows, rows, 1);
    near_golden(f, name, y, t2_way_str(way));
    record(y, f->l.rows * f->l.matrix.m);
    check_alone(f, adaptation, rows, y);
    /* The mixture as an expert of its own has the same bits. */
    t2_expert *mixed = NULL;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_expert_mix(f->l.factors, rule, (const t2_expert *const *)experts, EXPERTS,
                               alpha + 3 * EXPERTS, 0, "mixed", &mixed, &err),
                 T2_OK, "%s", err.message);
    t2_adaptation *alone =
        svf_adapt(&f->l, (const t2_expert *const *)&mixed, 1, NULL, 0, T2_MIX_ZEFF, way);
    float *row = svf_run(&f->l, alone, 3, 1, NULL, 1);
    cr_expect_eq(first_difference(row, y + 3 * f->l.matrix.m, (size_t)f->l.matrix.m),
                 (size_t)f->l.matrix.m, "%s as an expert", name);
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
    print_results("svf_batches");
    golden_close(&manifest);
}
