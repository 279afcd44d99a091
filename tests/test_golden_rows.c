/* Gradients of single operations and optimiser steps of tests/golden/rows.json: within four times
 * the distance of PyTorch's own float32 from the float64 expectation (floor 1e-6 of the largest
 * value), the same bits for 1 to 4 threads. */
#include "check.h"
#include "golden.h"
#include "t2.h"
#include "t2k.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 4
#define OUTPUTS 5

static golden_manifest manifest;

static void open_manifest(void)
{
    manifest = golden_open("tests/golden/rows.json");
}

static void close_manifest(void)
{
    golden_close(&manifest);
}

TestSuite(golden_rows, .init = open_manifest, .fini = close_manifest, .timeout = 600);

/* One case: what it computes, name by name. */
struct result {
    const golden_case *one;
    t2_safetensors *file;
    struct output {
        const char *name;
        size_t count;
        float *data;
    } out[OUTPUTS];
};

static const float *input(const struct result *r, const char *role)
{
    return golden_f32(r->file, golden_input(r->one, r->file, role));
}

static float *output(struct result *r, const char *name)
{
    const t2_tensor *tensor = golden_expected(r->one, r->file, "f64", name);
    cr_assert_not_null(tensor, "%s %s", r->one->id, name);
    struct output *o = r->out;
    while (o->data != NULL) {
        o++;
    }
    cr_assert_lt(o - r->out, OUTPUTS);
    *o = (struct output){name, (size_t)t2_tensor_elements(tensor), NULL};
    o->data = calloc(o->count + 1, sizeof *o->data);
    cr_assert_not_null(o->data);
    return o->data;
}

static int has_output(const struct result *r, const char *name)
{
    return golden_expected(r->one, r->file, "f64", name) != NULL;
}

static const char *text(const struct result *r, const char *key)
{
    const char *value = json_string_value(json_object_get(r->one->json, key));
    return value != NULL ? value : "";
}

static int64_t *sizes(const struct result *r, const char *role)
{
    const t2_tensor *tensor = golden_input(r->one, r->file, role);
    static int64_t shape[2];
    shape[0] = tensor->rank == 2 ? tensor->shape[0] : 1;
    shape[1] = tensor->shape[tensor->rank - 1];
    return shape;
}

static void free_result(struct result *r)
{
    for (struct output *o = r->out; o < r->out + OUTPUTS; o++) {
        free(o->data);
        o->data = NULL;
    }
}

/* Runs `act` on each case of a kind with 1 to MAX_THREADS threads. */
static void each_case(const char *kind, size_t expected_cases, void (*act)(struct result *r))
{
    double worst = 0.0;
    const char *worst_id = "-", *worst_name = "-";
    uint64_t fingerprint = T2K_FINGERPRINT_SEED;
    size_t count = 0;
    for (size_t i = 0; i < manifest.count; i++) {
        struct result first = {.one = &manifest.cases[i]};
        t2_error err;
        if (strcmp(first.one->kind, kind) != 0) {
            continue;
        }
        cr_assert_eq(t2_safetensors_open(first.one->path, 0, &first.file, &err), T2_OK);
        t2k_set_num_threads(1);
        act(&first);
        for (int threads = 2; threads <= MAX_THREADS; threads++) {
            struct result again = {.one = first.one, .file = first.file};
            t2k_set_num_threads(threads);
            act(&again);
            for (int o = 0; o < OUTPUTS && first.out[o].data != NULL; o++) {
                cr_expect_eq(
                    first_difference(first.out[o].data, again.out[o].data, first.out[o].count),
                    first.out[o].count, "%s %s: %d threads", first.one->id, first.out[o].name,
                    threads);
            }
            free_result(&again);
        }
        for (struct output *o = first.out; o < first.out + OUTPUTS && o->data != NULL; o++) {
            const golden_error e = golden_compare(first.one, first.file, o->name, o->data);
            cr_expect(e.max_abs <= e.allowed, "%s %s[%zu]: got %.9g, want %.17g, allowed +-%.3g",
                      first.one->id, o->name, e.at, e.got, e.want, e.allowed);
            if (e.max_abs > worst * e.allowed) {
                worst = e.max_abs / e.allowed;
                worst_id = first.one->id;
                worst_name = o->name;
            }
            const int64_t shape = (int64_t)o->count;
            fingerprint = t2k_fingerprint_f32(fingerprint, 1, &shape, o->data);
        }
        free_result(&first);
        t2_safetensors_close(first.file);
        count++;
    }
    t2k_set_num_threads(0);
    cr_expect_eq(count, expected_cases, "%zu", count);
    fprintf(stderr, "golden %s: %zu cases on %s, worst %.2f of its bound (%s %s)\n", kind, count,
            t2k_isa_name(), worst, worst_id, worst_name);
    fprintf(stderr, "isa %s golden rows_%s fingerprint %016llx\n", t2k_isa_name(), kind,
            (unsigned long long)fingerprint);
}

/* ---- activations ---------------------------------------------------------------------------- */

static void run_activation(struct result *r)
{
    const char *function = text(r, "function");
    const t2k_activation a = strcmp(function, "relu") == 0        ? T2K_ACT_RELU
                             : strcmp(function, "gelu_erf") == 0  ? T2K_ACT_GELU
                             : strcmp(function, "gelu_tanh") == 0 ? T2K_ACT_GELU_TANH
                                                                  : T2K_ACT_SILU;
    const int64_t n = sizes(r, "x")[1];
    cr_assert_eq(t2k_activation_backward(a, n, input(r, "x"), input(r, "dy"), output(r, "dx")),
                 T2K_OK);
}

Test(golden_rows, activation)
{
    each_case("op_activation", 4, run_activation);
}

/* y = (silu(x Wg^T) * (x Wu^T)) Wd^T. */
static void run_swiglu(struct result *r)
{
    const int64_t t = sizes(r, "x")[0], e = sizes(r, "x")[1], f = sizes(r, "wg")[0];
    const float *x = input(r, "x"), *wg = input(r, "wg"), *wu = input(r, "wu");
    const float *wd = input(r, "wd"), *dy = input(r, "dy");
    const int64_t n = t * f;
    float *g = calloc((size_t)(6 * n), sizeof *g), *u = g + n, *s = u + n, *h = s + n;
    float *dh = h + n, *dg = dh + n, *dx;
    t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, t, f, e, 1, x, e, wg, e, 0, g, f, NULL);
    t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, t, f, e, 1, x, e, wu, e, 0, u, f, NULL);
    t2k_silu(n, g, s);
    t2k_mul(n, s, u, h);
    t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, t, e, f, 1, h, f, wd, f, 0, output(r, "y"), e, NULL);
    t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, t, f, e, 1, dy, e, wd, f, 0, dh, f, NULL);
    t2k_sgemm(T2K_TRANS, T2K_NO_TRANS, e, f, t, 1, dy, e, h, f, 0, output(r, "dwd"), f, NULL);
    t2k_mul(n, dh, u, dg);
    t2k_activation_backward(T2K_ACT_SILU, n, g, dg, dg);
    t2k_mul(n, dh, s, dh);
    t2k_sgemm(T2K_TRANS, T2K_NO_TRANS, f, e, t, 1, dg, f, x, e, 0, output(r, "dwg"), e, NULL);
    t2k_sgemm(T2K_TRANS, T2K_NO_TRANS, f, e, t, 1, dh, f, x, e, 0, output(r, "dwu"), e, NULL);
    dx = output(r, "dx");
    t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, t, e, f, 1, dg, f, wg, e, 0, dx, e, NULL);
    t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, t, e, f, 1, dh, f, wu, e, 1, dx, e, NULL);
    free(g);
}

Test(golden_rows, swiglu)
{
    each_case("op_swiglu", 3, run_swiglu);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void run_cross_entropy(struct result *r, int64_t rows, int64_t cols)
{
    const float *x = input(r, "x");
    const int64_t *labels = golden_i64(r->file, golden_input(r->one, r->file, "labels"));
    float *weights = calloc((size_t)(2 * rows + 1), sizeof *weights), *logp = weights + rows;
    double count = 0.0, total = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        count += labels[i] >= 0;
    }
    const int mean = strcmp(text(r, "reduction"), "mean") == 0;
    for (int64_t i = 0; i < rows; i++) {
        weights[i] = mean && count > 0 ? (float)(1.0 / count) : 1.0f;
    }
    float *loss = output(r, "loss"), *dx = has_output(r, "dx") ? output(r, "dx") : NULL;
    cr_assert_eq(t2k_cross_entropy(rows, cols, x, cols, labels, weights, logp, dx, cols), T2K_OK);
    for (int64_t i = 0; i < rows; i++) {
        total -= (double)logp[i];
    }
    *loss = (float)(mean ? total / count : total);
    free(weights);
}

static void run_softmax(struct result *r)
{
    const int64_t rows = sizes(r, "x")[0], cols = sizes(r, "x")[1];
    const char *op = text(r, "op");
    if (strcmp(op, "cross_entropy") == 0) {
        run_cross_entropy(r, rows, cols);
        return;
    }
    const int log = strcmp(op, "log_softmax") == 0;
    float *y = output(r, "y");
    cr_assert_eq((log ? t2k_log_softmax : t2k_softmax)(rows, cols, input(r, "x"), cols, y, cols),
                 T2K_OK);
    if (has_output(r, "dx")) {
        float *dx = output(r, "dx");
        const float *dy = input(r, "dy");
        cr_assert_eq(log ? t2k_log_softmax_backward(rows, cols, y, cols, dy, cols, dx, cols)
                         : t2k_softmax_backward(rows, cols, y, cols, dy, cols, 1.0f, dx, cols),
                     T2K_OK);
    }
}

Test(golden_rows, softmax)
{
    each_case("op_softmax", 47, run_softmax);
}

static void run_norm(struct result *r)
{
    const int64_t rows = sizes(r, "x")[0], cols = sizes(r, "x")[1];
    const float *x = input(r, "x"), *w = input(r, "w"), *dy = input(r, "dy");
    const float eps = (float)json_number_value(json_object_get(r->one->json, "eps"));
    float *y = output(r, "y"), *dx = output(r, "dx"), *dw = output(r, "dw");
    if (strcmp(text(r, "op"), "rms_norm") == 0) {
        t2k_rms_norm(rows, cols, x, cols, NULL, 0, w, eps, NULL, 0, y, cols);
        cr_assert_eq(
            t2k_rms_norm_backward(rows, cols, x, cols, NULL, 0, w, eps, dy, cols, dx, cols, 0, dw),
            T2K_OK);
        return;
    }
    const float *b = input(r, "b");
    t2k_layer_norm(rows, cols, x, cols, NULL, NULL, 0, w, b, eps, y, cols);
    cr_assert_eq(t2k_layer_norm_backward(rows, cols, x, cols, NULL, NULL, 0, w, eps, dy, cols, dx,
                                         cols, 0, dw, output(r, "db")),
                 T2K_OK);
}

Test(golden_rows, norm)
{
    each_case("op_norm", 48, run_norm);
}

/* ---- optimisers ----------------------------------------------------------------------------- */

static double setting(const struct result *r, const char *key, double otherwise)
{
    const json_t *settings = json_object_get(r->one->json, "settings");
    const json_t *value = json_object_get(settings, key);
    return value != NULL ? json_number_value(value) : otherwise;
}

static void run_clip(struct result *r)
{
    static const char *const names[] = {"g0", "g1", "g2"};
    const double limit = json_number_value(json_object_get(r->one->json, "limit"));
    double total = 0.0;
    int64_t n[3];
    for (int i = 0; i < 3; i++) {
        double sum;
        n[i] = sizes(r, names[i])[1];
        cr_assert_eq(t2k_sum_squares(n[i], input(r, names[i]), &sum), T2K_OK);
        total += sum;
    }
    *output(r, "norm") = (float)sqrt(total);
    const double factor = fmin(1.0, limit / (sqrt(total) + 1e-6));
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(t2k_scale(n[i], input(r, names[i]), (float)factor, output(r, names[i])),
                     T2K_OK);
    }
}

static void run_optimiser(struct result *r)
{
    if (strncmp(r->one->set, "clip", 4) == 0) {
        run_clip(r);
        return;
    }
    const int64_t steps = sizes(r, "g")[0], n = sizes(r, "g")[1];
    const float *g = input(r, "g"), *p = input(r, "p");
    float *out = output(r, "p"), *state = calloc((size_t)(2 * n), sizeof *state);
    const json_t *betas = json_object_get(json_object_get(r->one->json, "settings"), "betas");
    const int decoupled = strcmp(r->one->set, "adamw") == 0;
    t2k_adam adam = {.lr = setting(r, "lr", 1e-3),
                     .beta1 = betas ? json_number_value(json_array_get(betas, 0)) : 0.9,
                     .beta2 = betas ? json_number_value(json_array_get(betas, 1)) : 0.999,
                     .eps = setting(r, "eps", 1e-8),
                     .weight_decay = setting(r, "weight_decay", 0.0),
                     .decoupled = decoupled};
    double power1 = 1.0, power2 = 1.0;
    for (int64_t i = 0; i < steps; i++, g += n) {
        float *to = out + i * n;
        memcpy(to, p, (size_t)n * sizeof *to);
        p = to;
        power1 *= adam.beta1;
        power2 *= adam.beta2;
        adam.correction1 = 1.0 - power1;
        adam.correction2 = 1.0 - power2;
        if (strncmp(r->one->set, "sgd", 3) == 0) {
            const t2k_sgd sgd = {
                .lr = adam.lr, .momentum = setting(r, "momentum", 0.0), .first = i == 0};
            cr_assert_eq(t2k_sgd_step(&sgd, n, g, state, to), T2K_OK);
        } else {
            cr_assert_eq(t2k_adam_step(&adam, n, g, state, state + n, to), T2K_OK);
        }
    }
    free(state);
}

Test(golden_rows, optimiser)
{
    each_case("op_optimiser", 10, run_optimiser);
}

/* Every case of the manifest belongs to one of the tests above. */
Test(golden_rows, no_case_is_left_out)
{
    cr_expect_eq(manifest.count, 4 + 3 + 47 + 48 + 10);
}
