/* The benchmark's model: its reference in double against the reference cases, its folder, and what
 * docs/benchmarks.md promises of it. */
#include "check.h"
#include "golden.h"
#include "model_reference.h"
#include "problem.h"
#include "t2.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(bench_model, .timeout = 1200);

/* ---- the reference -------------------------------------------------------------------------- */

/* Both are double: they may differ by roundings in another order only. */
static void expect_equal(const golden_case *one, const double *got, const double *want,
                         int64_t count, const char *what)
{
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(want[i]));
    }
    for (int64_t i = 0; i < count; i++) {
        cr_assert(fabs(got[i] - want[i]) <= 1e-13 * largest, "%s %s[%lld]: %.17g, expected %.17g",
                  one->id, what, (long long)i, got[i], want[i]);
    }
}

static void run_case(const golden_case *one, t2_safetensors *file)
{
    t2_error err = {T2_OK, ""};
    t2_config config = golden_config(one);
    const t2_tensor *ids = golden_input(one, file, "ids");
    int64_t items = ids->rank == 2 ? ids->shape[1] : 1, count = ids->shape[0] * items;
    double *logits = malloc((size_t)(count * config.vocab_size) * sizeof logits[0]);
    double *means = malloc((size_t)config.num_layers * sizeof means[0]);
    int64_t *rows = malloc((size_t)count * sizeof rows[0]);
    cr_assert(logits != NULL && means != NULL && rows != NULL);
    /* Backwards, so that the order matters. */
    for (int64_t i = 0; i < count; i++) {
        rows[i] = count - 1 - i;
    }
    cr_assert_eq(golden_write_model(one, file, temp_dir, &err), T2_OK, "%s", err.message);
    t2_status status = bench_model_reference(temp_dir, golden_i64(file, ids), ids->shape[0], items,
                                             T2_EXPERT_AUTO, count, rows, logits, means, &err);
    cr_assert_eq(status, T2_OK, "%s: %s", one->id, err.message);
    const double *want = golden_f64(file, golden_expected(one, file, "f64", "logits"));
    for (int64_t i = 0; i < count; i++) {
        expect_equal(one, logits + i * config.vocab_size, want + rows[i] * config.vocab_size,
                     config.vocab_size, "logits");
    }
    expect_equal(one, means, golden_f64(file, golden_expected(one, file, "f64", "means")),
                 config.num_layers, "means");
    free(logits);
    free(means);
    free(rows);
}

Test(bench_model, reference_is_the_notebooks_model)
{
    golden_manifest manifest = golden_open("tests/golden/manifest.json");
    int cases = 0;
    temp_dir_make();
    for (size_t i = 0; i < manifest.count; i++) {
        const golden_case *one = &manifest.cases[i];
        const json_t *inputs = json_object_get(one->json, "inputs");
        if (strcmp(one->kind, "model") != 0 || strcmp(one->expect, "ok") != 0 ||
            json_is_string(json_object_get(inputs, "mask"))) {
            continue;
        }
        t2_safetensors *file = NULL;
        t2_error err;
        cr_assert_eq(t2_safetensors_open(one->path, 0, &file, &err), T2_OK, "%s", err.message);
        run_case(one, file);
        t2_safetensors_close(file);
        cases++;
    }
    cr_expect_eq(cases, 16);
    temp_dir_remove();
    golden_close(&manifest);
}

/* Some rows, of some items, are those of the whole, to the bit. */
Test(bench_model, reference_of_some_rows)
{
    enum { L = 37, N = 3, V = 1000 };
    static double all[L * N * V], some[3 * V];
    int64_t ids[L * N], every[L * N], rows[3] = {5 * N + 2, 36 * N, 2};
    struct rng rng = {check_seed()};
    char error[600];
    t2_error err = {T2_OK, ""};
    const char *dir = bench_model_dir(error, sizeof error);
    cr_assert_not_null(dir, "%s", error);
    for (int i = 0; i < L * N; i++) {
        ids[i] = (int64_t)rng_below(&rng, V);
        every[i] = i;
    }
    cr_assert_eq(bench_model_reference(dir, ids, L, N, 0, L * N, every, all, NULL, &err), T2_OK,
                 "%s", err.message);
    cr_assert_eq(bench_model_reference(dir, ids, L, N, 0, 3, rows, some, NULL, &err), T2_OK, "%s",
                 err.message);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(memcmp(some + i * V, all + rows[i] * V, V * sizeof some[0]), 0, "row %lld",
                     (long long)rows[i]);
    }
}

Test(bench_model, reference_refuses_what_it_cannot_read)
{
    int64_t id = 1000, row = 0;
    double logits[1000];
    char error[600];
    t2_error err = {T2_OK, ""};
    const char *dir = bench_model_dir(error, sizeof error);
    cr_assert_not_null(dir, "%s", error);
    cr_expect_eq(bench_model_reference(dir, &id, 1, 1, 0, 1, &row, logits, NULL, &err), T2_ERR_ARG);
    cr_expect_not_null(strstr(err.message, "1000"), "%s", err.message);
    cr_expect_eq(bench_model_reference("/nowhere", &id, 1, 1, 0, 1, &row, logits, NULL, &err),
                 T2_ERR_IO);
}

/* ---- the model ------------------------------------------------------------------------------ */

/* Every layer chooses expert 0, far from where it would choose another one. */
Test(bench_model, chooses_expert_0)
{
    enum { L = 16, N = 4, V = 1000 };
    static const int64_t shapes[][2] = {{1, 1}, {1, 4}, {10, 1}, {16, 4}};
    static float rule[L * N * V], fixed[L * N * V];
    struct rng rng = {check_seed()};
    char error[600];
    t2_error err = {T2_OK, ""};
    t2_model *model;
    t2_session *session;
    const char *dir = bench_model_dir(error, sizeof error);
    cr_assert_not_null(dir, "%s", error);
    cr_assert_eq(t2_model_open(dir, 0, &model, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_session_create(model, 0, &session, &err), T2_OK, "%s", err.message);
    for (int i = 0; i < 12; i++) {
        int64_t ids[L * N], length = shapes[i % 4][0], items = shapes[i % 4][1];
        float means[4];
        for (int j = 0; j < L * N; j++) {
            ids[j] = (int64_t)rng_below(&rng, V);
        }
        t2_forward_args args = {.size = sizeof args,
                                .ids = ids,
                                .length = length,
                                .items = items,
                                .expert = T2_EXPERT_AUTO,
                                .logits = rule,
                                .means = means};
        cr_assert_eq(t2_forward(session, &args, &err), T2_OK, "%s", err.message);
        for (int layer = 0; layer < 4; layer++) {
            cr_expect_lt(fabsf(means[layer]), 0.2f, "layer %d: %g", layer, (double)means[layer]);
        }
        args.expert = 0;
        args.means = NULL;
        args.logits = fixed;
        cr_assert_eq(t2_forward(session, &args, &err), T2_OK, "%s", err.message);
        cr_expect_eq(first_difference(rule, fixed, (size_t)(length * items * V)),
                     (size_t)(length * items * V));
    }
    t2_session_destroy(session);
    t2_model_close(model);
}

/* The experts differ, and no vector is what a contender might take for granted. */
Test(bench_model, every_vector_matters)
{
    char error[600], path[1200];
    t2_error err = {T2_OK, ""};
    t2_safetensors *file = NULL;
    const char *dir = bench_model_dir(error, sizeof error);
    cr_assert_not_null(dir, "%s", error);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    cr_assert_eq(t2_safetensors_open(path, 0, &file, &err), T2_OK, "%s", err.message);
    int vectors = 0;
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        const float *x = golden_f32(file, tensor);
        double from_0 = 0.0, from_1 = 0.0;
        for (int64_t j = 0; tensor->rank == 1 && j < tensor->shape[0]; j++) {
            from_0 = fmax(from_0, fabs((double)x[j]));
            from_1 = fmax(from_1, fabs((double)x[j] - 1.0));
        }
        if (tensor->rank == 1) {
            vectors++;
            cr_expect(from_0 > 0.2 && from_1 > 0.2, "%s: %g, %g", tensor->name, from_0, from_1);
        }
    }
    cr_expect_eq(vectors, 4 * (8 + 3) + 1);
    t2_safetensors_close(file);
}

/* ---- the folder ----------------------------------------------------------------------------- */

static int leave(void *arg)
{
    (void)arg;
    exit(0);
}

static int exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

static int folder_of_a_process(void *arg)
{
    char error[600];
    const char *dir = bench_model_dir(error, sizeof error);
    FILE *file = dir != NULL ? fopen(arg, "w") : NULL;
    if (file == NULL || fputs(dir, file) == EOF || fclose(file) != 0) {
        return 2;
    }
    exit(exists(dir) ? 0 : 3); /* without bench_model_remove() */
}

Test(bench_model, folder_is_made_once_and_removed)
{
    char error[600], path[1200], note[1200];
    const char *dir = bench_model_dir(error, sizeof error);
    cr_assert_not_null(dir, "%s", error);
    snprintf(path, sizeof path, "%s", dir);
    cr_expect_eq(bench_model_dir(error, sizeof error), dir);
    cr_expect(exists(path));
    /* A child that exits does not take it along. */
    cr_expect_eq(in_child(leave, NULL), 0);
    cr_expect(exists(path));
    bench_model_remove();
    cr_expect_not(exists(path));
    bench_model_remove();
    /* A process removes its own when it exits. */
    temp_dir_make();
    snprintf(note, sizeof note, "%s", temp_path("note"));
    cr_assert_eq(in_child(folder_of_a_process, note), 0);
    FILE *file = fopen(note, "r");
    cr_assert(file != NULL && fgets(path, sizeof path, file) != NULL);
    fclose(file);
    cr_expect_not(exists(path), "%s", path);
    temp_dir_remove();
}

Test(bench_model, folder_that_cannot_be_made)
{
    char error[600] = "";
    setenv("TMPDIR", "/nowhere/at/all", 1);
    cr_expect_null(bench_model_dir(error, sizeof error));
    cr_expect_not_null(strstr(error, "/nowhere/at/all"), "%s", error);
    unsetenv("TMPDIR");
    cr_expect_not_null(bench_model_dir(error, sizeof error), "%s", error);
    bench_model_remove();
}
