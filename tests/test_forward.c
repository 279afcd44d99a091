/* The forward pass beyond the reference cases: symmetries, independence of rows, dropout, errors.
 */
#include "check.h"
#include "model_file.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>

#define V 29
#define L 9
#define N 4
#define COUNT ((size_t)L * N * V)

static t2_model *model;
static t2_session *session;
static int64_t ids[L * N];

static void open_with(const t2_config *config)
{
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_init_model(temp_dir, config, 11, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_model_open(temp_dir, 0, &model, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_session_create(model, 0, &session, &err), T2_OK, "%s", err.message);
}

static void start(void)
{
    struct rng rng = {check_seed()};
    temp_dir_make();
    for (int i = 0; i < L * N; i++) {
        ids[i] = (int64_t)rng_below(&rng, V);
    }
}

static void finish(void)
{
    t2_session_destroy(session);
    t2_model_close(model);
    temp_dir_remove();
}

TestSuite(forward, .init = start, .fini = finish, .timeout = 600);

static void open_small(void)
{
    t2_config config = model_file_config();
    config.dropout = 0.25;
    open_with(&config);
}

static t2_forward_args plain_args(float *logits)
{
    t2_forward_args args = {.size = sizeof args,
                            .ids = ids,
                            .length = L,
                            .items = N,
                            .expert = T2_EXPERT_AUTO,
                            .logits = logits};
    return args;
}

static void run(const t2_forward_args *args)
{
    t2_error err = {T2_OK, ""};
    t2_status status = t2_forward(session, args, &err);
    cr_assert_eq(status, T2_OK, "%s: %s", t2_status_str(status), err.message);
}

/* The call must fail so, with a message that holds `part`. */
static void refused(const t2_forward_args *args, t2_status expected, const char *part)
{
    t2_error err = {T2_OK, ""};
    t2_status status = t2_forward(session, args, &err);
    cr_expect_eq(status, expected, "%s: %s", t2_status_str(status), err.message);
    cr_expect_not_null(strstr(err.message, part), "\"%s\" lacks \"%s\"", err.message, part);
}

/* ---- symmetries ----------------------------------------------------------------------------- */

/* Without mask and positions the order of time means nothing: permuted ids give permuted logits
 * (up to the order of the sums over keys). */
Test(forward, permuting_time_permutes_logits)
{
    static float first[COUNT], second[COUNT];
    int64_t permuted[L * N];
    open_small();
    for (int l = 0; l < L; l++) {
        memcpy(permuted + l * N, ids + (l * 4 + 2) % L * N, N * sizeof ids[0]);
    }
    t2_forward_args args = plain_args(first);
    run(&args);
    args = plain_args(second);
    args.ids = permuted;
    run(&args);
    int moved = 0;
    for (int l = 0; l < L; l++) {
        const float *from = first + (l * 4 + 2) % L * N * V, *to = second + l * N * V;
        moved += (l * 4 + 2) % L != l;
        for (int i = 0; i < N * V; i++) {
            cr_expect_float_eq(to[i], from[i], 1e-5, "time %d", l);
        }
    }
    cr_expect_geq(moved, L - 2);
}

/* With a fixed expert a row's bits do not depend on the rows beside it. */
Test(forward, rows_do_not_see_each_other)
{
    static float together[COUNT], alone[(size_t)L * V];
    int64_t one[L];
    open_small();
    t2_forward_args args = plain_args(together);
    args.expert = 1;
    run(&args);
    for (int n = 0; n < N; n++) {
        for (int l = 0; l < L; l++) {
            one[l] = ids[l * N + n];
        }
        args = plain_args(alone);
        args.ids = one;
        args.items = 1;
        args.expert = 1;
        run(&args);
        for (int l = 0; l < L; l++) {
            cr_expect_eq(first_difference(alone + l * V, together + (l * N + n) * V, V), V,
                         "item %d, time %d", n, l);
        }
    }
}

Test(forward, masks_of_all_kinds_agree)
{
    static float causal[COUNT], other[COUNT], none[COUNT];
    static uint8_t blocked[L * L], per_head[N * 4 * L * L];
    static float added[L * L];
    open_small();
    for (int i = 0; i < L * L; i++) {
        blocked[i] = i % L > i / L ? 255 : 0;
        added[i] = blocked[i] ? -INFINITY : 0.0f;
    }
    for (int i = 0; i < N * 4; i++) {
        memcpy(per_head + i * L * L, blocked, sizeof blocked);
    }
    t2_forward_args args = plain_args(none);
    run(&args);
    args = plain_args(causal);
    args.mask.kind = T2_MASK_CAUSAL;
    run(&args);
    cr_expect_lt(first_difference(causal, none, COUNT), COUNT);
    const t2_mask masks[] = {
        {T2_MASK_BOOL, 0, blocked}, {T2_MASK_ADD, 0, added}, {T2_MASK_BOOL, 1, per_head}};
    for (int i = 0; i < 3; i++) {
        args = plain_args(other);
        args.mask = masks[i];
        run(&args);
        cr_expect_eq(first_difference(other, causal, COUNT), COUNT, "mask %d", i);
    }
    /* Under a causal mask a prefix alone gives what it gives within the whole, with any expert. */
    args = plain_args(other);
    args.length = 5;
    args.expert = 0;
    args.mask.kind = T2_MASK_CAUSAL;
    run(&args);
    args = plain_args(causal);
    args.expert = 0;
    args.mask.kind = T2_MASK_CAUSAL;
    run(&args);
    cr_expect_eq(first_difference(other, causal, 5 * N * V), 5 * N * V);
}

Test(forward, first_leaves_out_the_beginning)
{
    static float all[COUNT], tail[COUNT];
    open_small();
    t2_forward_args args = plain_args(all);
    run(&args);
    args = plain_args(tail);
    args.first = L - 2;
    run(&args);
    cr_expect_eq(first_difference(tail, all + (L - 2) * N * V, 2 * N * V), 2 * N * V);
    args.first = L;
    args.logits = NULL;
    run(&args);
}

/* A session that served other shapes gives the same bits as a new one. */
Test(forward, sessions_are_reused)
{
    static float first[COUNT], again[COUNT], small[V];
    open_small();
    t2_forward_args args = plain_args(small);
    args.length = 1;
    args.items = 1;
    run(&args);
    args = plain_args(first);
    run(&args);
    args = plain_args(small);
    args.length = 1;
    args.items = 1;
    run(&args);
    args = plain_args(again);
    run(&args);
    cr_expect_eq(first_difference(first, again, COUNT), COUNT);
}

static void *serve(void *arg)
{
    t2_session *own = NULL;
    static __thread float logits[COUNT];
    t2_forward_args args = plain_args(logits);
    args.threads = 2;
    int *same = arg;
    float *expected = malloc(sizeof logits);
    *same = expected != NULL && t2_session_create(model, L * N, &own, NULL) == T2_OK;
    for (int i = 0; i < 10 && *same; i++) {
        *same = t2_forward(own, &args, NULL) == T2_OK;
        if (i == 0) {
            memcpy(expected, logits, sizeof logits);
        }
        *same = *same && first_difference(expected, logits, COUNT) == COUNT;
    }
    t2_session_destroy(own);
    free(expected);
    return NULL;
}

Test(forward, one_model_serves_many_threads)
{
    pthread_t threads[3];
    int same[3] = {0};
    open_small();
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, serve, &same[i]), 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        cr_expect(same[i], "thread %d", i);
    }
}

/* ---- experts -------------------------------------------------------------------------------- */

static int triple(t2_tensor *tensor)
{
    float *data = (float *)(uintptr_t)tensor->data;
    for (size_t i = 0; i < tensor->bytes / sizeof(float); i++) {
        data[i] *= 3.0f;
    }
    return 1;
}

Test(forward, a_fixed_expert_is_used)
{
    static float automatic[COUNT], fixed[COUNT], other[COUNT];
    int experts[3] = {9, 9, 9};
    float means[3];
    t2_config config = model_file_config();
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_init_model(temp_dir, &config, 11, &err), T2_OK);
    model_file_change(temp_dir, "layers.1.experts.2.scale_vector", triple);
    cr_assert_eq(t2_model_open(temp_dir, 0, &model, &err), T2_OK);
    cr_assert_eq(t2_session_create(model, 0, &session, &err), T2_OK);
    t2_forward_args args = plain_args(automatic);
    args.experts = experts;
    args.means = means;
    run(&args);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(experts[i], 0, "a new model always takes expert 0");
        cr_expect_lt(fabsf(means[i]), 0.33f);
    }
    args = plain_args(fixed);
    args.expert = 0;
    run(&args);
    cr_expect_eq(first_difference(fixed, automatic, COUNT), COUNT);
    args = plain_args(other);
    args.expert = 2;
    args.experts = experts;
    run(&args);
    cr_expect_lt(first_difference(other, automatic, COUNT), COUNT);
    cr_expect_eq(experts[0] + experts[1] + experts[2], 6);
    args.expert = 3;
    refused(&args, T2_ERR_ARG, "there is no expert 3");
    args.expert = -2;
    refused(&args, T2_ERR_ARG, "there is no expert -2");
}

Test(forward, no_experts)
{
    static float logits[COUNT];
    t2_config config = model_file_config();
    config.num_experts = 0;
    open_with(&config);
    t2_choice choice = T2_CHOICE_OK;
    t2_forward_args args = plain_args(logits);
    args.choice = &choice;
    refused(&args, T2_ERR_NUMERIC, "layer 0: no expert can be chosen: the model has no experts");
    cr_expect_eq(choice, T2_CHOICE_NO_EXPERTS);
}

static int make_infinite(t2_tensor *tensor)
{
    ((float *)(uintptr_t)tensor->data)[5] = INFINITY;
    return 1;
}

Test(forward, means_that_are_not_finite)
{
    static float logits[COUNT];
    t2_config config = model_file_config();
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_init_model(temp_dir, &config, 11, &err), T2_OK);
    model_file_change(temp_dir, "layers.2.attention.out_proj.bias", make_infinite);
    cr_assert_eq(t2_model_open(temp_dir, 0, &model, &err), T2_OK);
    cr_assert_eq(t2_session_create(model, 0, &session, &err), T2_OK);
    t2_choice choice = T2_CHOICE_OK;
    for (int threads = 1; threads <= 4; threads++) {
        t2_forward_args args = plain_args(logits);
        args.choice = &choice;
        args.threads = threads;
        refused(&args, T2_ERR_NUMERIC, "layer 2: no expert can be chosen");
        cr_expect_eq(choice, T2_CHOICE_INF_MEAN);
    }
    uint8_t blocked[L * L] = {0};
    memset(blocked + 3 * L, 1, L);
    t2_forward_args args = plain_args(logits);
    args.choice = &choice;
    args.mask.kind = T2_MASK_BOOL;
    args.mask.data = blocked;
    refused(&args, T2_ERR_NUMERIC, "layer 0: no expert can be chosen");
    cr_expect_eq(choice, T2_CHOICE_NAN_MEAN);
    /* With a fixed expert nothing needs the mean: the blocked row is NaN, and in the next layer
     * every row that sees it. */
    args.expert = 0;
    run(&args);
    cr_expect(isnan(logits[0]));
}

Test(forward, empty_inputs)
{
    static float logits[COUNT];
    open_small();
    for (int threads = 1; threads <= 2; threads++) {
        t2_choice choice = T2_CHOICE_OK;
        t2_forward_args args = plain_args(logits);
        args.threads = threads;
        args.choice = &choice;
        args.length = 0;
        refused(&args, T2_ERR_NUMERIC, "nan_mean");
        cr_expect_eq(choice, T2_CHOICE_NAN_MEAN);
        args.length = L;
        args.items = 0;
        refused(&args, T2_ERR_NUMERIC, "nan_mean");
        args.expert = 0;
        run(&args);
    }
}

Test(forward, a_model_without_layers)
{
    static float logits[COUNT];
    t2_config config = model_file_config();
    config.num_layers = 0;
    open_with(&config);
    t2_forward_args args = plain_args(logits);
    run(&args);
    /* Equal ids give equal logits: nothing mixes positions. */
    for (int i = 1; i < L * N; i++) {
        cr_expect_eq(ids[i] == ids[0], first_difference(logits, logits + i * V, V) == V);
    }
}

/* ---- arguments ------------------------------------------------------------------------------ */

Test(forward, bad_arguments)
{
    static float logits[COUNT];
    open_small();
    t2_forward_args args = plain_args(logits);
    ids[2 * N + 3] = V;
    refused(&args, T2_ERR_ARG, "id 29 at position 2 of item 3 is outside the vocabulary of 29");
    ids[2 * N + 3] = -1;
    refused(&args, T2_ERR_ARG, "id -1 at position 2 of item 3");
    ids[2 * N + 3] = 0;
    args.length = -1;
    refused(&args, T2_ERR_ARG, "sizes");
    args.length = INT64_MAX / 2;
    refused(&args, T2_ERR_ARG, "sizes");
    args = plain_args(logits);
    args.size = 8;
    refused(&args, T2_ERR_ARG, "size");
    args = plain_args(NULL);
    refused(&args, T2_ERR_ARG, "missing");
    args = plain_args(logits);
    args.first = L + 1;
    refused(&args, T2_ERR_ARG, "first");
    args = plain_args(logits);
    args.mask.kind = T2_MASK_BOOL;
    refused(&args, T2_ERR_ARG, "mask");
    cr_expect_eq(t2_forward(session, NULL, NULL), T2_ERR_ARG);
    cr_expect_eq(t2_forward(NULL, &args, NULL), T2_ERR_ARG);
}

Test(forward, threads_and_flops)
{
    t2_config config;
    t2_config_example(&config);
    /* A layer has (4 + 2f) E^2 = 12 E^2 weights in products, and attention over 10 keys. */
    cr_expect_eq(t2_forward_flops(&config, 10, 32),
                 320.0 * (4.0 * (24.0 * 65536.0 + 4.0 * 10.0 * 256.0) + 2.0 * 256000.0));
    cr_expect_eq(t2_forward_threads(&config, 10, 32, 3), 3);
    t2k_set_num_threads(5);
    cr_expect_eq(t2_forward_threads(&config, 1, 1, 0), 5);
    t2k_set_num_threads(0);
    config = model_file_config();
    if (!t2k_threads_exact()) {
        cr_expect_eq(t2_forward_threads(&config, 1, 1, 0), 1);
    }
}

/* ---- dropout -------------------------------------------------------------------------------- */

Test(forward, dropout_is_seeded)
{
    static float first[COUNT], other[COUNT], off[COUNT];
    open_small();
    t2_forward_args args = plain_args(off);
    run(&args);
    args.seed = 5; /* without training it means nothing */
    args.logits = other;
    run(&args);
    cr_expect_eq(first_difference(other, off, COUNT), COUNT);
    args.training = 1;
    args.threads = 1;
    args.logits = first;
    run(&args);
    cr_expect_lt(first_difference(first, off, COUNT), COUNT);
    args.logits = other;
    for (args.threads = 2; args.threads <= 4; args.threads++) {
        run(&args);
        cr_expect_eq(first_difference(first, other, COUNT), COUNT, "%d threads", args.threads);
    }
    args.threads = 0;
    args.seed = 6;
    run(&args);
    cr_expect_lt(first_difference(first, other, COUNT), COUNT);
    args.seed = 5;
    args.step = 1;
    run(&args);
    cr_expect_lt(first_difference(first, other, COUNT), COUNT);
}

/* p = 1 leaves nothing of the stream: what remains is the last bias. */
Test(forward, full_dropout)
{
    static float logits[COUNT];
    t2_config config = model_file_config();
    t2_safetensors *file = NULL;
    const float *bias;
    config.dropout = 1.0;
    open_with(&config);
    cr_assert_eq(t2_safetensors_open(temp_path("model.safetensors"), 0, &file, NULL), T2_OK);
    cr_assert_eq(t2_safetensors_f32(file, t2_safetensors_find(file, "fc_out.bias"), &bias, NULL),
                 T2_OK);
    t2_forward_args args = plain_args(logits);
    args.training = 1;
    run(&args);
    for (int i = 0; i < L * N; i++) {
        cr_expect_eq(first_difference(logits + i * V, bias, V), V);
    }
    t2_safetensors_close(file);
}

static int set_zero(t2_tensor *tensor)
{
    memset((void *)(uintptr_t)tensor->data, 0, tensor->bytes);
    return 1;
}

static int set_one(t2_tensor *tensor)
{
    for (size_t i = 0; i < tensor->bytes / sizeof(float); i++) {
        ((float *)(uintptr_t)tensor->data)[i] = 1.0f;
    }
    return 1;
}

/* A block whose last norm gives ones shows its dropout bare: 0 or 1/(1-p), in the right shares,
 * differently for each layer and step. */
Test(forward, dropout_statistics)
{
    enum { ROWS = 500, E = 24 };
    static float in[ROWS * E], out[3][ROWS * E];
    struct rng rng = {check_seed()};
    t2_config config = model_file_config();
    t2_block *block = NULL;
    t2_safetensors *file = NULL;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_init_model(temp_dir, &config, 11, &err), T2_OK);
    model_file_change(temp_dir, "layers.0.norm2.weight", set_zero);
    model_file_change(temp_dir, "layers.0.norm2.bias", set_one);
    cr_assert_eq(t2_safetensors_open(temp_path("model.safetensors"), 0, &file, &err), T2_OK);
    t2_block_config block_config = {.kind = T2_BLOCK_TRADITIONAL,
                                    .embed_size = E,
                                    .heads = 4,
                                    .forward_expansion = 2,
                                    .dropout = 0.3,
                                    .norm_eps = 1e-5};
    cr_assert_eq(t2_block_open(file, "layers.0.", &block_config, &block, &err), T2_OK, "%s",
                 err.message);
    rng_fill(&rng, in, ROWS * E);
    for (int i = 0; i < 3; i++) {
        t2_block_args args = {.size = sizeof args,
                              .value = in,
                              .key = in,
                              .query = in,
                              .queries = 50,
                              .keys = 50,
                              .items = ROWS / 50,
                              .training = 1,
                              .seed = 9,
                              .step = i == 1,
                              .layer = i == 2,
                              .out = out[i]};
        cr_assert_eq(t2_block_forward(block, &args, &err), T2_OK, "%s", err.message);
        int kept = 0;
        for (int j = 0; j < ROWS * E; j++) {
            kept += out[i][j] != 0.0f;
            cr_expect(out[i][j] == 0.0f || fabsf(out[i][j] - 1.0f / 0.7f) < 1e-6f);
        }
        /* 12000 draws of 0.7: sigma is 50. */
        cr_expect_leq(abs(kept - 8400), 250, "%d kept", kept);
    }
    cr_expect_lt(first_difference(out[0], out[1], ROWS * E), ROWS * E);
    cr_expect_lt(first_difference(out[0], out[2], ROWS * E), ROWS * E);
    t2_block_close(block);
    t2_safetensors_close(file);
}

/* ---- one block ------------------------------------------------------------------------------ */

/* Query, key and value in three tensors of equal content give the bits of one tensor: the joint
 * projection and the three parts are the same products. */
Test(forward, joint_and_separate_projections_agree)
{
    enum { E = 24, ROWS = 60 };
    static float x[3][ROWS * E], out[2][ROWS * E];
    struct rng rng = {check_seed()};
    t2_config config = model_file_config();
    t2_block *block = NULL;
    t2_safetensors *file = NULL;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_init_model(temp_dir, &config, 11, &err), T2_OK);
    cr_assert_eq(t2_safetensors_open(temp_path("model.safetensors"), 0, &file, &err), T2_OK);
    t2_block_config block_config = {.kind = T2_BLOCK_EXPERTS,
                                    .embed_size = E,
                                    .heads = 4,
                                    .forward_expansion = 2,
                                    .num_experts = 3,
                                    .norm_eps = 1e-5};
    cr_assert_eq(t2_block_open(file, "layers.1.", &block_config, &block, &err), T2_OK, "%s",
                 err.message);
    rng_fill(&rng, x[0], ROWS * E);
    memcpy(x[1], x[0], sizeof x[0]);
    memcpy(x[2], x[0], sizeof x[0]);
    for (int i = 0; i < 2; i++) {
        t2_block_args args = {.size = sizeof args,
                              .value = i == 0 ? x[0] : x[2],
                              .key = i == 0 ? x[0] : x[1],
                              .query = x[0],
                              .queries = 12,
                              .keys = 12,
                              .items = 5,
                              .mask = {.kind = T2_MASK_CAUSAL},
                              .expert = T2_EXPERT_AUTO,
                              .out = out[i]};
        cr_assert_eq(t2_block_forward(block, &args, &err), T2_OK, "%s", err.message);
        args.expert = 3;
        cr_expect_eq(t2_block_forward(block, &args, &err), T2_ERR_ARG);
        args.expert = 0;
        args.keys = 11;
        cr_expect_eq(t2_block_forward(block, &args, &err), T2_ERR_ARG, "causal needs S = L");
    }
    cr_expect_eq(first_difference(out[0], out[1], ROWS * E), ROWS * E);
    t2_block_close(block);
    block = NULL;
    cr_expect_eq(t2_block_open(file, "layers.7.", &block_config, &block, &err), T2_ERR_FORMAT);
    cr_expect_not_null(strstr(err.message, "layers.7.attention.in_proj_weight is missing"), "%s",
                       err.message);
    t2_safetensors_close(file);
}
