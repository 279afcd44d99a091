/* Every case of tests/golden/manifest.json: results within four times the distance of PyTorch's
 * own float32 from the float64 expectation (floor 1e-6 of the largest value), choices of experts
 * and kinds of error exactly, the same bits for 1 to 4 threads. */
#include "check.h"
#include "golden.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 4

static golden_manifest manifest;

static void open_manifest(void)
{
    manifest = golden_open("tests/golden/manifest.json");
}

static void close_manifest(void)
{
    golden_close(&manifest);
}

TestSuite(golden, .init = open_manifest, .fini = close_manifest, .timeout = 1200);

/* ---- judging -------------------------------------------------------------------------------- */

/* The largest share of its bound that any result of a kind used, and the fingerprint of all its
 * results, which must be the same on every instruction set (the runner compares). */
struct worst {
    double ratio;
    const char *id, *output;
    uint64_t fingerprint;
};

/* `times` the bound of golden_compare(). */
static void judge_times(double times, const golden_case *one, t2_safetensors *file,
                        const char *output, const float *got, struct worst *worst)
{
    golden_error error = golden_compare(one, file, output, got);
    error.allowed *= times;
    cr_expect(error.max_abs <= error.allowed, "%s %s[%zu]: got %.9g, want %.17g, allowed +-%.3g",
              one->id, output, error.at, error.got, error.want, error.allowed);
    const t2_tensor *expected = golden_expected(one, file, "f64", output);
    worst->fingerprint =
        t2k_fingerprint_f32(worst->fingerprint, expected->rank, expected->shape, got);
    double ratio = error.max_abs > 0.0 ? error.max_abs / error.allowed : 0.0;
    if (worst->id == NULL || ratio > worst->ratio) {
        worst->ratio = ratio;
        worst->id = one->id;
        worst->output = output;
    }
}

static void judge(const golden_case *one, t2_safetensors *file, const char *output,
                  const float *got, struct worst *worst)
{
    judge_times(1.0, one, file, output, got, worst);
}

/* The NaN rows must be those that the manifest lists, over all channels. */
static void judge_nan_rows(const golden_case *one, const float *out, int64_t rows, int64_t items,
                           int64_t cols)
{
    const json_t *listed = json_object_get(one->json, "nan_rows");
    for (int64_t row = 0; row < rows; row++) {
        int expected = 0;
        for (size_t i = 0; i < json_array_size(listed); i++) {
            const json_t *pair = json_array_get(listed, i);
            expected |= json_integer_value(json_array_get(pair, 0)) == row / items &&
                        json_integer_value(json_array_get(pair, 1)) == row % items;
        }
        for (int64_t j = 0; j < cols; j++) {
            cr_expect_eq(isnan(out[row * cols + j]) != 0, expected, "%s: row %lld", one->id,
                         (long long)row);
        }
    }
}

/* expect is "ok", "nan_rows" or "error:KIND". */
static int judge_status(const golden_case *one, t2_status status, t2_choice choice,
                        const char *message)
{
    if (strncmp(one->expect, "error:", 6) == 0) {
        cr_expect_eq(status, T2_ERR_NUMERIC, "%s: %s", one->id, t2_status_str(status));
        cr_expect_str_eq(t2_choice_str(choice), one->expect + 6, "%s", one->id);
        cr_expect_not_null(strstr(message, one->expect + 6), "%s: %s", one->id, message);
        return 0;
    }
    cr_expect_eq(status, T2_OK, "%s: %s", one->id, message);
    return status == T2_OK;
}

/* Runs `act` on each case of a kind and prints the worst. */
static void each_case(const char *kind, size_t expected_cases,
                      void (*act)(const golden_case *one, t2_safetensors *file,
                                  struct worst *worst))
{
    struct worst worst = {.fingerprint = T2K_FINGERPRINT_SEED};
    size_t count = 0;
    for (size_t i = 0; i < manifest.count; i++) {
        const golden_case *one = &manifest.cases[i];
        if (strcmp(one->kind, kind) != 0) {
            continue;
        }
        t2_safetensors *file = NULL;
        t2_error err;
        t2_status status = t2_safetensors_open(one->path, 0, &file, &err);
        cr_assert_eq(status, T2_OK, "%s", err.message);
        act(one, file, &worst);
        t2_safetensors_close(file);
        count++;
    }
    cr_expect_eq(count, expected_cases);
    fprintf(stderr, "golden %s: %zu cases on %s, worst %.2f of its bound (%s %s)\n", kind, count,
            t2k_isa_name(), worst.ratio, worst.id != NULL ? worst.id : "-",
            worst.output != NULL ? worst.output : "-");
    fprintf(stderr, "isa %s golden %s fingerprint %016llx\n", t2k_isa_name(), kind,
            (unsigned long long)worst.fingerprint);
}

static float *new_floats(size_t count)
{
    float *floats = malloc((count + 1) * sizeof(float));
    cr_assert_not_null(floats);
    for (size_t i = 0; i < count; i++) {
        floats[i] = -7777.0f;
    }
    return floats;
}

static t2_mask mask_of(const golden_case *one, t2_safetensors *file, int64_t queries, int64_t keys,
                       int64_t items, int64_t heads)
{
    t2_mask mask = {T2_MASK_NONE, 0, NULL};
    t2_error err;
    const t2_tensor *tensor = golden_input(one, file, "mask");
    if (tensor != NULL) {
        t2_status status =
            t2_mask_from_tensor(file, tensor, queries, keys, items, heads, &mask, &err);
        cr_assert_eq(status, T2_OK, "%s: %s", one->id, err.message);
    }
    return mask;
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* Any number of threads gives the bits of one; `reference` is that result. */
static void repeat_block(const t2_block *block, const t2_block_args *given, const char *id,
                         size_t elements)
{
    t2_block_args args = *given;
    args.out = new_floats(elements);
    args.attention = NULL;
    for (args.threads = 2; args.threads <= MAX_THREADS; args.threads++) {
        t2_error err;
        t2_status status = t2_block_forward(block, &args, &err);
        cr_expect_eq(status, T2_OK, "%s: %s", id, err.message);
        cr_expect_eq(first_difference(args.out, given->out, elements), elements,
                     "%s: %d threads give other bits", id, args.threads);
    }
    free(args.out);
}

static void run_block(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    t2_block_config config = golden_block_config(one);
    t2_block *block = NULL;
    t2_error err = {T2_OK, ""};
    t2_status status = t2_block_open(file, "", &config, &block, &err);
    cr_assert_eq(status, T2_OK, "%s: %s", one->id, err.message);
    const t2_tensor *query = golden_input(one, file, "query");
    const t2_tensor *key = golden_input(one, file, "key");
    int64_t items = query->rank == 3 ? query->shape[1] : 1;
    size_t elements = (size_t)t2_tensor_elements(query);
    int chosen = -1;
    float mean = 0.0f;
    t2_choice choice = T2_CHOICE_OK;
    t2_block_args args = {.size = sizeof args,
                          .value = golden_f32(file, golden_input(one, file, "value")),
                          .key = golden_f32(file, key),
                          .query = golden_f32(file, query),
                          .queries = query->shape[0],
                          .keys = key->shape[0],
                          .items = items,
                          .expert = T2_EXPERT_AUTO,
                          .threads = 1,
                          .out = new_floats(elements),
                          .attention = new_floats(elements),
                          .chosen = &chosen,
                          .mean = &mean,
                          .choice = &choice};
    args.mask = mask_of(one, file, args.queries, args.keys, items, config.heads);
    status = t2_block_forward(block, &args, &err);
    if (judge_status(one, status, choice, err.message)) {
        judge(one, file, "out", args.out, worst);
        judge(one, file, "attn", args.attention, worst);
        judge_nan_rows(one, args.out, args.queries * items, items, config.embed_size);
        if (config.kind == T2_BLOCK_EXPERTS) {
            const json_t *experts = json_object_get(one->json, "experts");
            cr_expect_eq(chosen, json_integer_value(json_array_get(experts, 0)), "%s", one->id);
            const json_t *means = json_object_get(one->json, "means");
            cr_expect_float_eq((double)mean, json_number_value(json_array_get(means, 0)), 1e-6,
                               "%s", one->id);
        }
        repeat_block(block, &args, one->id, elements);
    }
    free(args.out);
    free(args.attention);
    t2_block_close(block);
}

Test(golden, block_traditional)
{
    each_case("block_traditional", 57, run_block);
}

Test(golden, block_svf)
{
    each_case("block_svf", 57, run_block);
}

Test(golden, block_experts)
{
    each_case("block_experts", 19, run_block);
}

/* ---- models --------------------------------------------------------------------------------- */

/* Cases of one file follow each other: the model is opened once for all of them. */
static struct {
    const char *path;
    t2_model *model;
    t2_session *session;
} opened;

static void close_model(void)
{
    if (opened.path != NULL) {
        t2_session_destroy(opened.session);
        t2_model_close(opened.model);
        temp_dir_remove();
        opened.path = NULL;
    }
}

static void open_model(const golden_case *one, t2_safetensors *file)
{
    t2_error err;
    if (opened.path != NULL && strcmp(opened.path, one->path) == 0) {
        return;
    }
    close_model();
    temp_dir_make();
    opened.path = one->path;
    cr_assert_eq(golden_write_model(one, file, temp_dir, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_model_open(temp_dir, 0, &opened.model, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_session_create(opened.model, 0, &opened.session, &err), T2_OK);
}

static void judge_experts(const golden_case *one, const int *experts)
{
    const json_t *expected = json_object_get(one->json, "experts");
    for (size_t i = 0; i < json_array_size(expected); i++) {
        cr_expect_eq(experts[i], json_integer_value(json_array_get(expected, i)),
                     "%s: layer %zu chose %d", one->id, i, experts[i]);
    }
}

static void run_model(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    open_model(one, file);
    const t2_config *config = t2_model_config(opened.model);
    const t2_tensor *ids = golden_input(one, file, "ids");
    int64_t items = ids->rank == 2 ? ids->shape[1] : 1;
    size_t elements = (size_t)(ids->shape[0] * items * config->vocab_size);
    int experts[16];
    float means[16];
    t2_choice choice = T2_CHOICE_OK;
    t2_error err = {T2_OK, ""};
    cr_assert_leq(config->num_layers, 16);
    t2_forward_args args = {.size = sizeof args,
                            .ids = golden_i64(file, ids),
                            .length = ids->shape[0],
                            .items = items,
                            .expert = T2_EXPERT_AUTO,
                            .threads = 1,
                            .logits = new_floats(elements),
                            .experts = experts,
                            .means = means,
                            .choice = &choice};
    args.mask = mask_of(one, file, args.length, args.length, items, config->heads);
    t2_status status = t2_forward(opened.session, &args, &err);
    if (judge_status(one, status, choice, err.message)) {
        judge(one, file, "logits", args.logits, worst);
        judge(one, file, "means", means, worst);
        judge_experts(one, experts);
        float *first = args.logits;
        args.logits = new_floats(elements);
        for (args.threads = 2; args.threads <= MAX_THREADS; args.threads++) {
            status = t2_forward(opened.session, &args, &err);
            cr_expect_eq(status, T2_OK, "%s: %s", one->id, err.message);
            cr_expect_eq(first_difference(args.logits, first, elements), elements,
                         "%s: %d threads give other bits", one->id, args.threads);
        }
        free(first);
    }
    free(args.logits);
}

Test(golden, model)
{
    each_case("model", 52, run_model);
    close_model();
}

/* Two rows that choose experts 1 and 0 alone choose a third one together, and each gets results
 * that it would not have had without the other: the notebook's rule, on purpose. */
Test(golden, rows_change_each_others_expert)
{
    static const char *const ids[] = {"model_experts_n3/row_plain", "model_experts_n3/row_special",
                                      "model_experts_n3/rows_both"};
    int first_layer[3];
    float logits[3][9 * 2 * 53];
    for (int i = 0; i < 3; i++) {
        const golden_case *one = golden_find(&manifest, ids[i]);
        t2_safetensors *file;
        t2_error err;
        cr_assert_not_null(one);
        cr_assert_eq(t2_safetensors_open(one->path, 0, &file, &err), T2_OK);
        open_model(one, file);
        const t2_tensor *tensor = golden_input(one, file, "ids");
        int experts[5];
        t2_forward_args args = {.size = sizeof args,
                                .ids = golden_i64(file, tensor),
                                .length = tensor->shape[0],
                                .items = tensor->shape[1],
                                .expert = T2_EXPERT_AUTO,
                                .logits = logits[i],
                                .experts = experts};
        cr_assert_eq(t2_forward(opened.session, &args, &err), T2_OK, "%s", err.message);
        first_layer[i] = experts[0];
        t2_safetensors_close(file);
    }
    cr_expect_eq(first_layer[0], 1);
    cr_expect_eq(first_layer[1], 0);
    cr_expect_eq(first_layer[2], 2);
    /* Time 0, item 0 lies first in both layouts. */
    cr_expect_neq(first_difference(logits[0], logits[2], 53), 53);
    close_model();
}

/* ---- choosing an expert --------------------------------------------------------------------- */

Test(golden, select_expert)
{
    json_t *root = json_load_file("tests/golden/select_expert.json", 0, NULL);
    const json_t *rows = json_object_get(root, "rows"), *row;
    cr_assert_eq(json_array_size(rows), 962);
    size_t i;
    json_array_foreach(rows, i, row)
    {
        const char *text = json_string_value(json_object_get(row, "bits"));
        float mean = float_of((uint32_t)strtoul(text, NULL, 16));
        int64_t n = json_integer_value(json_object_get(row, "n")), index = -1;
        const json_t *expect = json_object_get(row, "expect");
        t2_choice choice = t2_choose_expert(mean, n, &index);
        if (json_is_string(expect)) {
            cr_expect_str_eq(t2_choice_str(choice), json_string_value(expect) + strlen("error:"),
                             "mean %s, n %lld", text, (long long)n);
            cr_expect_eq(index, -1);
        } else {
            cr_expect_eq(choice, T2_CHOICE_OK);
            cr_expect_eq(index, json_integer_value(expect), "mean %s, n %lld: %lld", text,
                         (long long)n, (long long)index);
        }
    }
    json_decref(root);
}

/* ---- single operations ---------------------------------------------------------------------- */

/* Runs an operation with 1 to MAX_THREADS threads; the bits must be equal. */
struct operation {
    const golden_case *one;
    t2_safetensors *file;
    t2k_status (*run)(const struct operation *op, float *y);
    const char *output;
    int64_t rows, cols;
    const float *x;
    const float *s; /* rebuilding: new singular values */
    float c;
};

static void run_operation(const struct operation *op, struct worst *worst)
{
    size_t elements = (size_t)(op->rows * op->cols);
    float *first = new_floats(elements), *again = new_floats(elements);
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        cr_assert_eq(t2k_set_num_threads(threads), T2K_OK);
        cr_assert_eq(op->run(op, threads == 1 ? first : again), T2K_OK, "%s", op->one->id);
        cr_expect(threads == 1 || first_difference(first, again, elements) == elements,
                  "%s: %d threads give other bits", op->one->id, threads);
    }
    judge(op->one, op->file, op->output, first, worst);
    free(first);
    free(again);
}

static t2k_status softmax(const struct operation *op, float *y)
{
    return t2k_softmax(op->rows, op->cols, op->x, op->cols, y, op->cols);
}

static t2k_status layer_norm(const struct operation *op, float *y)
{
    const float *w = golden_f32(op->file, golden_input(op->one, op->file, "w"));
    const float *b = golden_f32(op->file, golden_input(op->one, op->file, "b"));
    float eps = (float)json_number_value(json_object_get(op->one->json, "eps"));
    return t2k_layer_norm(op->rows, op->cols, op->x, op->cols, NULL, NULL, op->cols, w, b, eps, y,
                          op->cols);
}

static t2k_status activation(const struct operation *op, float *y)
{
    const char *function = json_string_value(json_object_get(op->one->json, "function"));
    return strcmp(function, "exp") == 0 ? t2k_exp(op->cols, op->x, y)
                                        : t2k_relu(op->cols, op->x, y);
}

static struct operation on_x(const golden_case *one, t2_safetensors *file)
{
    const t2_tensor *x = golden_input(one, file, "x");
    struct operation op = {.one = one,
                           .file = file,
                           .output = "y",
                           .rows = x->rank == 2 ? x->shape[0] : 1,
                           .cols = x->shape[x->rank - 1],
                           .x = golden_f32(file, x)};
    return op;
}

static void run_softmax(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    struct operation op = on_x(one, file);
    op.run = softmax;
    run_operation(&op, worst);
}

static void run_norm(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    struct operation op = on_x(one, file);
    op.run = layer_norm;
    run_operation(&op, worst);
}

static void run_activation(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    struct operation op = on_x(one, file);
    op.run = activation;
    run_operation(&op, worst);
}

/* Causal attention, (T, heads, d) and (S, kv_heads, d), and its gradients. Scores of several
 * hundred are rounded by up to 2^-16 a step, in our order of sums and in PyTorch's: of the four
 * large sets dq is nearer to float64 than PyTorch's in two, level in one, and 5.9 times as far in
 * the fourth. */
static void run_gqa(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    static const char *const names[] = {"y", "dq", "dk", "dv"};
    const t2_tensor *q = golden_input(one, file, "q"), *k = golden_input(one, file, "k");
    t2k_attention_args of = {.size = sizeof of,
                             .queries = q->shape[0],
                             .keys = k->shape[0],
                             .items = 1,
                             .heads = q->shape[1],
                             .head_dim = q->shape[2],
                             .mask_kind = T2K_MASK_CAUSAL,
                             .kv_heads = k->shape[1]};
    of.scale = 1.0f / sqrtf((float)of.head_dim);
    of.q = golden_f32(file, q);
    of.k = golden_f32(file, k);
    of.v = golden_f32(file, golden_input(one, file, "v"));
    of.q_row = of.out_row = of.heads * of.head_dim;
    of.k_row = of.v_row = of.kv_heads * of.head_dim;
    const size_t n[] = {(size_t)(of.queries * of.q_row), (size_t)(of.keys * of.k_row)};
    float *got[] = {new_floats(n[0]), new_floats(n[0]), new_floats(n[1]), new_floats(n[1])};
    uint64_t one_thread = 0;
    of.out = got[0];
    t2k_attention_backward_args args = {
        .size = sizeof args, .of = &of, .dq = got[1], .dk = got[2], .dv = got[3]};
    args.dout = golden_f32(file, golden_input(one, file, "dy"));
    args.dout_row = args.dq_row = of.q_row;
    args.dk_row = args.dv_row = of.k_row;
    for (int threads = 1; threads <= MAX_THREADS; threads++) {
        uint64_t bits = T2K_FINGERPRINT_SEED;
        cr_assert_eq(t2k_set_num_threads(threads), T2K_OK);
        cr_assert_eq(t2k_attention(&of), T2K_OK, "%s", one->id);
        cr_assert_eq(t2k_attention_backward(&args), T2K_OK, "%s", one->id);
        for (int i = 0; i < 4; i++) {
            bits = t2k_fingerprint_bytes(bits, got[i], n[i / 2] * sizeof(float));
        }
        one_thread = threads == 1 ? bits : one_thread;
        cr_expect_eq(bits, one_thread, "%s: other bits on %d threads", one->id, threads);
    }
    for (int i = 0; i < 4; i++) {
        judge_times(strstr(one->set, "large") != NULL ? 2.0 : 1.0, one, file, names[i], got[i],
                    worst);
        free(got[i]);
    }
}

Test(golden, op_gqa)
{
    each_case("op_gqa", 8, run_gqa);
}

Test(golden, op_softmax)
{
    each_case("op_softmax", 13, run_softmax);
}

Test(golden, op_norm)
{
    each_case("op_norm", 16, run_norm);
}

Test(golden, op_activation)
{
    each_case("op_activation", 6, run_activation);
}

/* ---- rebuilding a matrix from its singular values ------------------------------------------- */

static t2k_status rebuild(const struct operation *op, float *y)
{
    const t2_tensor *V = golden_input(op->one, op->file, "V");
    int64_t r = V->shape[1];
    return t2k_svd_rebuild(T2K_NO_TRANS, op->rows, op->cols, r, op->c, op->x, r, op->s,
                           golden_f32(op->file, V), r, y, op->cols);
}

static const float *expected_f32(const struct operation *op, const char *mode, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", mode, name);
    const float *data = golden_f32(op->file, golden_expected(op->one, op->file, "f32", full));
    cr_assert_not_null(data, "%s %s", op->one->id, full);
    return data;
}

static void run_svf(const golden_case *one, t2_safetensors *file, struct worst *worst)
{
    if (strcmp(one->expect, "ok") != 0) { /* scales that test_experts.c sees refused */
        return;
    }
    static const char *const modes[] = {"sigmoid", "sigmoid2", "plain", "relu", "relu_half"};
    static const char *const outputs[] = {"sigmoid.Wp", "sigmoid2.Wp", "plain.Wp", "relu.Wp",
                                          "relu_half.Wp"};
    const t2_tensor *W = golden_input(one, file, "W"), *S = golden_input(one, file, "S");
    struct operation op = {.one = one,
                           .file = file,
                           .run = rebuild,
                           .rows = W->shape[0],
                           .cols = W->shape[1],
                           .x = golden_f32(file, golden_input(one, file, "U"))};
    size_t r = (size_t)t2_tensor_elements(S);
    const float *sigma = golden_f32(file, S);
    for (size_t mode = 0; mode < 5; mode++) {
        float *s = new_floats(r);
        op.output = outputs[mode];
        op.c = mode < 2 ? expected_f32(&op, modes[mode], "c")[0] : 1.0f;
        const float *factor = mode < 2    ? expected_f32(&op, modes[mode], "a")
                              : mode == 2 ? golden_f32(file, golden_input(one, file, "z"))
                                          : expected_f32(&op, modes[mode], "Sp");
        for (size_t i = 0; i < r; i++) {
            s[i] = mode < 3 ? sigma[i] * factor[i] : factor[i];
        }
        op.s = s;
        run_operation(&op, worst);
        free(s);
    }
}

Test(golden, svf)
{
    each_case("svf", 11, run_svf);
}

/* Every case of the manifest belongs to one of the tests above. */
Test(golden, no_case_is_left_out)
{
    cr_expect_eq(manifest.count, 57 + 57 + 19 + 52 + 1 + 8 + 13 + 16 + 6 + 11 + 2);
}
