/* The operation "model": a forward pass of the notebook's example model, from ids to logits. Its
 * weights lie in a folder that every contender reads; docs/benchmarks.md says what is computed. */
#include "model_reference.h"
#include "ops.h"
#include "t2.h"
#include "t2k.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the model's folder --------------------------------------------------------------------- */

#define SEED 2501
#define MOVE 0.25f /* how far at most an element of a vector is moved */

static struct {
    char path[1024]; /* "": there is none */
    pid_t owner;     /* a forked child must not remove it */
} folder;

static const char *const folder_files[] = {"config.json", "model.safetensors"};

static void file_path(char path[1100], size_t i)
{
    snprintf(path, 1100, "%s/%s", folder.path, folder_files[i]);
}

void bench_model_remove(void)
{
    if (folder.path[0] != '\0' && folder.owner == getpid()) {
        for (size_t i = 0; i < 2; i++) {
            char path[1100];
            file_path(path, i);
            remove(path);
        }
        rmdir(folder.path);
        folder.path[0] = '\0';
    }
}

/* A copy of the vector with every element moved; NULL: out of memory. */
static float *moved(const float *vector, int64_t count, uint64_t *state)
{
    float *copy = malloc((size_t)count * sizeof copy[0]);
    for (int64_t i = 0; copy != NULL && i < count; i++) {
        float random = (float)(int32_t)(bench_random(state) >> 40) * 0x1p-23f - 1.0f; /* [-1, 1) */
        copy[i] = vector[i] + MOVE * random;
    }
    return copy;
}

/* Rewrites the weights: biases, norms and scales of an initial model are 0 or 1 or small, and a
 * contender that forgot one would not be noticed. */
static t2_status move_vectors(const char *path, t2_error *err)
{
    t2_safetensors *file = NULL;
    t2_status status = t2_safetensors_open(path, T2_SAFETENSORS_NO_MMAP, &file, err);
    if (status != T2_OK) {
        return status;
    }
    uint64_t state = SEED;
    size_t count = t2_safetensors_count(file);
    t2_tensor *tensors = calloc(count, sizeof tensors[0]);
    float **copies = calloc(count, sizeof copies[0]);
    int ok = tensors != NULL && copies != NULL;
    for (size_t i = 0; ok && status == T2_OK && i < count; i++) {
        tensors[i] = *t2_safetensors_tensor(file, i);
        const float *data;
        status = t2_safetensors_f32(file, t2_safetensors_tensor(file, i), &data, err);
        if (status == T2_OK && tensors[i].rank == 1) {
            copies[i] = moved(data, tensors[i].shape[0], &state);
            tensors[i].data = copies[i];
            ok = copies[i] != NULL;
        }
    }
    if (!ok) {
        status = T2_ERR_NOMEM;
        snprintf(err->message, sizeof err->message, "out of memory");
    } else if (status == T2_OK) {
        status = t2_safetensors_write(path, tensors, count, NULL, 0, err);
    }
    for (size_t i = 0; copies != NULL && i < count; i++) {
        free(copies[i]);
    }
    free(copies);
    free(tensors);
    t2_safetensors_close(file);
    return status;
}

const char *bench_model_dir(char *error, size_t size)
{
    static int registered;
    if (folder.path[0] != '\0' && folder.owner == getpid()) {
        return folder.path;
    }
    const char *base = getenv("TMPDIR");
    int length = snprintf(folder.path, sizeof folder.path, "%s/t2bench-XXXXXX",
                          base != NULL && base[0] != '\0' ? base : "/tmp");
    if (length < 0 || (size_t)length >= sizeof folder.path) {
        folder.path[0] = '\0';
        snprintf(error, size, "TMPDIR is longer than %zu bytes", sizeof folder.path - 20);
        return NULL;
    }
    if (mkdtemp(folder.path) == NULL) {
        snprintf(error, size, "%s: %s", folder.path, strerror(errno));
        folder.path[0] = '\0';
        return NULL;
    }
    folder.owner = getpid();
    if (!registered) {
        registered = atexit(bench_model_remove) == 0;
    }
    t2_config config;
    t2_error err = {T2_OK, ""};
    char path[1100];
    t2_config_example(&config);
    file_path(path, 1);
    if (t2_init_model(folder.path, &config, SEED, &err) != T2_OK ||
        move_vectors(path, &err) != T2_OK) {
        snprintf(error, size, "the model for the benchmark: %s", err.message);
        bench_model_remove();
        return NULL;
    }
    return folder.path;
}

/* ---- the operation -------------------------------------------------------------------------- */

static int describe(struct problem *p)
{
    int64_t length = p->dim[0], items = p->dim[1], tokens = bench_elements(length, items, 1);
    t2_config config;
    t2_config_example(&config);
    p->inputs = 0;
    if (tokens < 0 || bench_add_ids(p, BENCH_ACTIVATION, tokens, config.vocab_size) != 0 ||
        bench_set_result(p, tokens, config.vocab_size) != 0) {
        return -1;
    }
    /* Of the embedding only the rows that occur are read, of the scales those of one expert. */
    double E = (double)config.embed_size, table = E * (double)config.vocab_size;
    double scales = E * (double)(config.num_layers * (config.num_experts - 1));
    double embedded = fmin(E * (double)tokens, table);
    p->read_bytes += 4.0 * ((double)t2_config_parameters(&config) - table - scales + embedded);
    p->flops = t2_forward_flops(&config, length, items);
    p->macs = p->flops / 2.0;
    return 0;
}

/* Few items, since each costs all of its positions: as many as `most` rows need. Of each the first
 * position, the last one, and one at random from every stretch between them. */
static int64_t sample_rows(const struct problem *p, int64_t most, int64_t *rows)
{
    int64_t length = p->dim[0], items = p->dim[1], count = 0;
    int64_t each = length < most ? length : most;
    int64_t some = most / each < items ? most / each : items;
    uint64_t state = SEED;
    for (int64_t i = 0; i < some; i++) {
        int64_t item = some > 1 ? i * (items - 1) / (some - 1) : items / 2;
        for (int64_t j = 0; j < each; j++) {
            int64_t begin = j * length / each, room = (j + 1) * length / each - begin;
            int64_t position = begin + (int64_t)(bench_random(&state) % (uint64_t)room);
            position = j == 0 ? 0 : j == each - 1 ? length - 1 : position;
            rows[count++] = position * items + item;
        }
    }
    return count;
}

/* By how much a logit may differ, as a share of the largest of its row.
 * The largest errors of the 4096000 logits of 512x8 were 1.1e-6 of that with our strict kernels and
 * 7e-7 with PyTorch; eight times the former leaves room for any order of summation. One weight
 * matrix rounded to bfloat16 makes 4e-4, one forgotten bias or scale 0.04 and more. */
#define ALLOWED_SHARE 8e-6

/* All rows are checked up to so many multiply-adds, 512 positions of 8 items and twice that: the
 * reference makes some 10^10 of them a second and core, and there is no Freivalds for a model. */
#define FULL_MACS 0x1p35

static t2k_status kernel_status(t2_status status)
{
    switch (status) {
    case T2_OK:
        return T2K_OK;
    case T2_ERR_NOMEM:
        return T2K_ERR_NOMEM;
    case T2_ERR_ISA:
        return T2K_ERR_ISA;
    case T2_ERR_IO:
    case T2_ERR_FORMAT:
        return T2K_ERR_IO;
    default:
        return T2K_ERR_ARG;
    }
}

static t2k_status reference(const struct problem *p, const void *const in[], int strict,
                            int64_t count, const int64_t *rows, double *ref, double *allowed)
{
    (void)strict;
    t2_error err;
    if (p->model_dir == NULL) {
        return T2K_ERR_ARG;
    }
    t2_status status = bench_model_reference(p->model_dir, in[0], p->dim[0], p->dim[1], 0, count,
                                             rows, ref, NULL, &err);
    if (status != T2_OK) {
        return kernel_status(status);
    }
    for (int64_t i = 0; i < count; i++) {
        double largest = 0.0;
        for (int64_t j = 0; j < p->cols; j++) {
            largest = fmax(largest, fabs(ref[i * p->cols + j]));
        }
        for (int64_t j = 0; j < p->cols; j++) {
            allowed[i * p->cols + j] = ALLOWED_SHARE * largest;
        }
    }
    return T2K_OK;
}

/* ---- our own -------------------------------------------------------------------------------- */

struct bound {
    t2_model *model;
    t2_session *session;
    t2_forward_args args;
};

static void model_close(void *state)
{
    struct bound *bound = state;
    if (bound != NULL) {
        t2_session_destroy(bound->session);
        t2_model_close(bound->model);
        free(bound);
    }
}

/* The notebook's model in full: the mean of each attention output chooses the expert. */
static t2k_status model_open(const struct problem *p, const void *const in[], float *out,
                             void **state)
{
    struct bound *bound = calloc(1, sizeof *bound);
    if (bound == NULL) {
        return T2K_ERR_NOMEM;
    }
    t2_status status =
        p->model_dir == NULL ? T2_ERR_ARG : t2_model_open(p->model_dir, 0, &bound->model, NULL);
    if (status == T2_OK) {
        status = t2_session_create(bound->model, p->rows, &bound->session, NULL);
    }
    if (status != T2_OK) {
        model_close(bound);
        return kernel_status(status);
    }
    bound->args.size = sizeof bound->args;
    bound->args.ids = in[0];
    bound->args.length = p->dim[0];
    bound->args.items = p->dim[1];
    bound->args.expert = T2_EXPERT_AUTO;
    bound->args.logits = out;
    *state = bound;
    return T2K_OK;
}

static t2k_status model_run(void *state)
{
    struct bound *bound = state;
    return kernel_status(t2_forward(bound->session, &bound->args, NULL));
}

const struct bench_op bench_op_model = {
    .name = "model",
    .dims = "l n",
    .slot = BENCH_NO_SLOT,
    .describe = describe,
    .reference = reference,
    .sample_rows = sample_rows,
    .t2k_open = model_open,
    .t2k_run = model_run,
    .t2k_close = model_close,
    .whole = 1,
    .one_bound = 1,
    .full_macs = FULL_MACS,
};
