/* Model folders: what they must hold, what is said where they do not, and new ones. */
#include "check.h"
#include "model_file.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>

TestSuite(model, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

static void make_small(void)
{
    t2_config config = model_file_config();
    t2_error err;
    cr_assert_eq(t2_init_model(temp_dir, &config, 7, &err), T2_OK, "%s", err.message);
}

/* Opening must fail with this status and a message that holds all the parts. */
static void refused(t2_status expected, const char *part1, const char *part2, const char *part3)
{
    t2_model *model = NULL;
    t2_error err = {T2_OK, ""};
    t2_status status = t2_model_open(temp_dir, 0, &model, &err);
    cr_expect_eq(status, expected, "%s: %s", t2_status_str(status), err.message);
    cr_expect_null(model);
    cr_expect_not_null(strstr(err.message, part1), "%s: no %s", err.message, part1);
    cr_expect_not_null(strstr(err.message, part2), "%s: no %s", err.message, part2);
    cr_expect_not_null(strstr(err.message, part3), "%s: no %s", err.message, part3);
    t2_model_close(model);
}

/* ---- tensors -------------------------------------------------------------------------------- */

static int drop(t2_tensor *tensor)
{
    (void)tensor;
    return 0;
}

static int rename_it(t2_tensor *tensor)
{
    tensor->name = "layers.1.norm3.weight";
    return 1;
}

static int reshape(t2_tensor *tensor)
{
    static const int64_t shape[3] = {2, 12, 24};
    tensor->rank = 3;
    tensor->shape = shape;
    return 1;
}

static int transpose(t2_tensor *tensor)
{
    static const int64_t shape[2] = {24, 48};
    tensor->shape = shape;
    return 1;
}

static int retype(t2_tensor *tensor)
{
    tensor->dtype = T2_I32;
    return 1;
}

Test(model, missing_tensor)
{
    make_small();
    model_file_change(temp_dir, "layers.2.attention.in_proj_weight", drop);
    refused(T2_ERR_FORMAT, "model.safetensors", "layers.2.attention.in_proj_weight is missing",
            "expected F32 [72, 24]");
}

Test(model, missing_expert)
{
    make_small();
    model_file_change(temp_dir, "layers.0.experts.2.scale_vector", drop);
    refused(T2_ERR_FORMAT, "model.safetensors", "layers.0.experts.2.scale_vector is missing",
            "expected F32 [24]");
}

Test(model, renamed_tensor)
{
    make_small();
    model_file_change(temp_dir, "layers.1.norm2.weight", rename_it);
    refused(T2_ERR_FORMAT, "model.safetensors", "layers.1.norm2.weight is missing", "F32 [24]");
}

Test(model, extra_tensor)
{
    make_small();
    t2_config config = model_file_config();
    t2_error err;
    char *path = strdup(temp_path("config.json"));
    config.num_experts = 2; /* the file has three */
    char *weights = strdup(temp_path("model.safetensors")), *kept = strdup(temp_path("kept"));
    cr_assert_eq(rename(weights, kept), 0);
    cr_assert_eq(t2_init_model(temp_dir, &config, 7, &err), T2_OK);
    cr_assert_eq(rename(kept, weights), 0);
    refused(T2_ERR_FORMAT, "model.safetensors", "experts.2.scale_vector does not belong",
            "expected 45 tensors, found 48");
    free(path);
    free(weights);
    free(kept);
}

Test(model, misshaped_tensor)
{
    make_small();
    model_file_change(temp_dir, "layers.0.attention.out_proj.weight", reshape);
    refused(T2_ERR_FORMAT, "layers.0.attention.out_proj.weight", "expected F32 [24, 24]",
            "found F32 [2, 12, 24]");
    make_small();
    model_file_change(temp_dir, "layers.0.feed_forward.0.weight", transpose);
    refused(T2_ERR_FORMAT, "layers.0.feed_forward.0.weight", "expected F32 [48, 24]",
            "found F32 [24, 48]");
}

Test(model, mistyped_tensor)
{
    make_small();
    model_file_change(temp_dir, "fc_out.bias", retype);
    refused(T2_ERR_FORMAT, "tensor fc_out.bias", "expected F32 [29]", "found I32 [29]");
}

Test(model, truncated_file)
{
    make_small();
    cr_assert_eq(truncate(temp_path("model.safetensors"), 5000), 0);
    refused(T2_ERR_FORMAT, "model.safetensors", "", "");
    cr_assert_eq(remove(temp_path("model.safetensors")), 0);
    refused(T2_ERR_IO, "model.safetensors", "No such file", "");
}

/* ---- configuration -------------------------------------------------------------------------- */

#define TYPE "{\"model_type\": \"transformer2\", "
#define SIZES "\"vocab_size\": 29, \"embed_size\": 24, \"num_layers\": 3, \"dropout\": 0.1, "
#define HEADS "\"heads\": 4, "
#define REST "\"forward_expansion\": 2, \"num_experts\": 3"
#define WIDE "\"forward_expansion\": 2000000000, \"num_experts\": 3}"
#define TWO_BILLION "2000000000, "

Test(model, configurations)
{
    static const struct {
        const char *text; /* "" stands for a configuration that opens */
        const char *parts[2];
    } cases[] = {
        {"[]", {"config.json", "object"}},
        {TYPE, {"config.json", ""}},
        {"{" SIZES HEADS REST "}", {"model_type", ""}},
        {"{\"model_type\": \"bert\", " SIZES HEADS REST "}", {"model_type", "\"transformer2\""}},
        {TYPE SIZES REST "}", {"heads", ""}},
        {TYPE SIZES "\"heads\": \"4\", " REST "}", {"heads", "found \"4\""}},
        {TYPE SIZES "\"heads\": 5, " REST "}", {"24 is not a multiple of heads 5", "config.json"}},
        {TYPE SIZES "\"heads\": 0, " REST "}", {"heads", "config.json"}},
        {TYPE SIZES HEADS "\"forward_expansion\": 2, \"num_experts\": -1}", {"num_experts", "-1"}},
        {TYPE SIZES HEADS REST ", \"norm\": \"rms\"}", {"norm", "\"layer\""}},
        {TYPE SIZES HEADS REST ", \"mask\": \"diagonal\"}", {"mask", "\"causal\""}},
        {TYPE SIZES HEADS REST ", \"tie_embeddings\": true}", {"tie_embeddings", "false"}},
        {TYPE SIZES HEADS WIDE, {"feed_forward.0.weight", "F32 [48000000000, 24]"}},
        {TYPE "\"vocab_size\": " TWO_BILLION "\"embed_size\": " TWO_BILLION
              "\"num_layers\": " TWO_BILLION "\"dropout\": 0.1, \"heads\": 2000000, " WIDE,
         {"overflow", "config.json"}},
        {TYPE "\"vocab_size\": 29, \"embed_size\": 24, \"num_layers\": 1000000000, "
              "\"dropout\": 0.1, " HEADS REST "}",
         {"layers.3.attention.in_proj_weight is missing", "model.safetensors"}},
        {TYPE SIZES HEADS "\"forward_expansion\": 2, \"num_experts\": 2147483647}",
         {"layers.0.experts.3.scale_vector is missing", "model.safetensors"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_small();
        model_file_text(temp_dir, "config.json", cases[i].text);
        refused(T2_ERR_FORMAT, cases[i].parts[0], cases[i].parts[1], "");
    }
}

Test(model, optional_and_unknown_keys)
{
    make_small();
    model_file_text(temp_dir, "config.json",
                    TYPE SIZES HEADS REST
                    ", \"max_length\": 9, "
                    "\"mask\": \"causal\", \"norm_eps\": 0.25, \"colour\": 1, \"note\": null}");
    t2_model *model = NULL;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_model_open(temp_dir, 0, &model, &err), T2_OK, "%s", err.message);
    cr_expect_str_eq(t2_model_ignored_keys(model), "colour, note");
    cr_expect_eq(t2_model_config(model)->mask, T2_MODEL_MASK_CAUSAL);
    cr_expect_eq(t2_model_config(model)->max_length, 9);
    cr_expect_eq(t2_model_config(model)->norm_eps, 0.25);
    t2_model_close(model);
}

static int make_small_there(void *arg)
{
    (void)arg;
    make_small();
    return 0;
}

Test(model, isa_errors_are_told)
{
    /* In a child, so that the instruction set of this process is chosen below. */
    cr_assert_eq(in_child(make_small_there, NULL), 0);
    setenv("T2K_ISA", "nonsense", 1);
    refused(T2_ERR_ISA, "nonsense", "scalar", "");
}

Test(model, parameter_counts)
{
    t2_config config;
    t2_config_example(&config);
    cr_expect_eq(t2_config_parameters(&config), 3675112);
    config.heads = 7;
    cr_expect_eq(t2_config_parameters(&config), -1);
}

/* ---- new models ----------------------------------------------------------------------------- */

/* Mean, deviation and largest magnitude of a tensor. */
static void statistics(t2_safetensors *file, const char *name, double out[3])
{
    const t2_tensor *tensor = t2_safetensors_find(file, name);
    const float *data;
    cr_assert_not_null(tensor, "%s", name);
    cr_assert_eq(t2_safetensors_f32(file, tensor, &data, NULL), T2_OK);
    int64_t n = t2_tensor_elements(tensor);
    double sum = 0.0, square = 0.0, largest = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)data[i];
        square += (double)data[i] * (double)data[i];
        largest = fmax(largest, fabs((double)data[i]));
    }
    out[0] = sum / (double)n;
    out[1] = sqrt(square / (double)n - out[0] * out[0]);
    out[2] = largest;
}

Test(model, initial_distributions)
{
    t2_config config;
    t2_error err = {T2_OK, ""};
    t2_safetensors *file = NULL;
    double got[3];
    t2_config_example(&config);
    config.num_layers = 1;
    cr_assert_eq(t2_init_model(temp_dir, &config, 3, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_safetensors_open(temp_path("model.safetensors"), 0, &file, &err), T2_OK);
    static const struct {
        const char *name;
        double bound; /* of a uniform distribution; 0: constant */
        double value;
    } tensors[] = {
        {"layers.0.attention.in_proj_weight", 0.076546554461974, 0}, /* sqrt(6 / 1024) */
        {"layers.0.attention.in_proj_bias", 0, 0},
        {"layers.0.attention.out_proj.weight", 0.0625, 0},
        {"layers.0.attention.out_proj.bias", 0, 0},
        {"layers.0.norm1.weight", 0, 1},
        {"layers.0.norm2.bias", 0, 0},
        {"layers.0.feed_forward.0.weight", 0.0625, 0},
        {"layers.0.feed_forward.0.bias", 0.0625, 0},
        {"layers.0.feed_forward.2.weight", 0.03125, 0},
        {"layers.0.feed_forward.2.bias", 0.03125, 0},
        {"layers.0.experts.2.scale_vector", 0, 1},
        {"fc_out.weight", 0.0625, 0},
        {"fc_out.bias", 0.0625, 0},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        double bound = tensors[i].bound;
        statistics(file, tensors[i].name, got);
        /* The smallest tensor has 256 elements: mean within 4 sigma, deviation within 15 %. */
        cr_expect_leq(fabs(got[0] - tensors[i].value), 0.15 * bound, "%s", tensors[i].name);
        cr_expect_leq(fabs(got[1] - bound / sqrt(3.0)), 0.15 * bound, "%s", tensors[i].name);
        cr_expect_leq(got[2], bound > 0 ? bound : tensors[i].value, "%s", tensors[i].name);
        cr_expect_geq(got[2], bound > 0 ? 0.9 * bound : tensors[i].value, "%s", tensors[i].name);
    }
    statistics(file, "embedding.weight", got); /* 256 000 normal numbers */
    cr_expect_leq(fabs(got[0]), 0.008);
    cr_expect_leq(fabs(got[1] - 1.0), 0.006);
    cr_expect_geq(got[2], 4.0);
    cr_expect_leq(got[2], 6.5);
    t2_safetensors_close(file);
}

static uint64_t model_fingerprint(uint64_t seed)
{
    t2_config config = model_file_config();
    t2_error err = {T2_OK, ""};
    t2_safetensors *file = NULL;
    uint64_t state = T2K_FINGERPRINT_SEED;
    cr_assert_eq(t2_init_model(temp_dir, &config, seed, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_safetensors_open(temp_path("model.safetensors"), 0, &file, &err), T2_OK);
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        uint64_t one = t2_tensor_fingerprint(t2_safetensors_tensor(file, i));
        state = t2k_fingerprint_bytes(state, &one, sizeof one);
    }
    t2_safetensors_close(file);
    return state;
}

/* The value is part of the contract: a seed gives the same model on every CPU. */
Test(model, a_seed_gives_one_model_everywhere)
{
    uint64_t first = model_fingerprint(42);
    cr_expect_eq(first, UINT64_C(0x60a22306fceccd3b), "fingerprint 0x%016llx",
                 (unsigned long long)first);
    cr_expect_eq(model_fingerprint(42), first);
    fesetround(FE_UPWARD);
    cr_expect_eq(model_fingerprint(42), first, "the caller's rounding mode reached the weights");
    fesetround(FE_TONEAREST);
    cr_expect_neq(model_fingerprint(43), first);
}

Test(model, init_refuses)
{
    t2_config config = model_file_config();
    t2_error err = {T2_OK, ""};
    config.heads = 5;
    cr_expect_eq(t2_init_model(temp_path("new"), &config, 1, &err), T2_ERR_ARG);
    cr_expect_eq(access(temp_path("new"), F_OK), -1);
    config.heads = 4;
    cr_expect_eq(t2_init_model("/proc/none/new", &config, 1, &err), T2_ERR_IO);
    cr_expect_not_null(strstr(err.message, "/proc/none/new"), "%s", err.message);
}

Test(model, configuration_survives_writing)
{
    t2_config config = model_file_config();
    t2_error err = {T2_OK, ""};
    config.dropout = 1.0 / 3.0;
    config.norm_eps = 3e-6;
    config.max_length = 77;
    config.mask = T2_MODEL_MASK_CAUSAL;
    cr_assert_eq(t2_init_model(temp_dir, &config, 1, &err), T2_OK, "%s", err.message);
    t2_model *model = NULL;
    cr_assert_eq(t2_model_open(temp_dir, 0, &model, &err), T2_OK, "%s", err.message);
    const t2_config *back = t2_model_config(model);
    cr_expect_eq(back->dropout, config.dropout);
    cr_expect_eq(back->norm_eps, config.norm_eps);
    cr_expect_eq(back->max_length, 77);
    cr_expect_eq(back->mask, T2_MODEL_MASK_CAUSAL);
    cr_expect_eq(back->vocab_size, 29);
    cr_expect_eq(back->forward_expansion, 2);
    cr_expect_str_eq(t2_model_ignored_keys(model), "");
    t2_model_close(model);
}
