/* Plain checkpoints with an expert worked in, for use without experts. */
#include "io/error.h"
#include "io/file.h"
#include "io/text.h"
#include "model/model.h"
#include "svf/expert.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The tensors to write; those that change point to copies. */
struct merge {
    t2_safetensors *file;
    const t2_factors *factors;
    const t2_expert *expert;
    t2_tensor *tensors;
    float **copies; /* by tensor; NULL: as it was */
    t2_pair *pairs;
};

/* Index of a tensor of the file, -1 if there is none. */
static int64_t find(const struct merge *merge, const char *name)
{
    for (size_t i = 0; i < t2_safetensors_count(merge->file); i++) {
        if (strcmp(t2_safetensors_tensor(merge->file, i)->name, name) == 0) {
            return (int64_t)i;
        }
    }
    return -1;
}

/* A writable copy of a tensor, made once. */
static t2_status copy_of(struct merge *merge, const char *name, int rank, t2_tensor **tensor,
                         float **data, t2_error *err)
{
    char path[T2_SHOW], shown[T2_SHOW];
    int64_t i = find(merge, name);
    if (i < 0 || merge->tensors[i].dtype != T2_F32 || merge->tensors[i].rank != rank) {
        return t2_fail(err, T2_ERR_FORMAT, "%.200s: tensor %.160s: expected F32 of %d dimensions%s",
                       t2_show(path, t2_safetensors_path(merge->file)), t2_show(shown, name), rank,
                       i < 0 ? ", found none" : "");
    }
    *tensor = &merge->tensors[i];
    if (merge->copies[i] == NULL) {
        merge->copies[i] = t2_alloc((int64_t)(*tensor)->bytes, 1);
        if (merge->copies[i] == NULL) {
            return t2_fail(err, T2_ERR_NOMEM, "out of memory for tensor %s", shown);
        }
        memcpy(merge->copies[i], (*tensor)->data, (*tensor)->bytes);
        (*tensor)->data = merge->copies[i];
    }
    *data = merge->copies[i];
    return T2_OK;
}

/* W' of a matrix into its place; a cut one by its difference. */
static t2_status place(const t2_factor *f, const float *scaled, float *data, int64_t ld,
                       t2_error *err)
{
    t2k_transpose trans = f->transposed ? T2K_TRANS : T2K_NO_TRANS;
    float *W = f->transposed ? data + f->first : data + f->first * ld;
    if (f->r == (f->m < f->n ? f->m : f->n)) {
        t2k_status kernel =
            t2k_svd_rebuild(trans, f->m, f->n, f->r, 1.0f, f->U, f->r, scaled, f->V, f->r, W, ld);
        return kernel == T2K_OK ? T2_OK : t2_fail_kernel(err, kernel, f->name);
    }
    float *changed = t2_alloc(f->m * f->r, sizeof changed[0]);
    if (changed == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for a merge");
    }
    for (int64_t i = 0; i < f->m; i++) {
        for (int64_t j = 0; j < f->r; j++) {
            changed[i * f->r + j] = f->U[i * f->r + j] * (scaled[j] - f->S[j]);
        }
    }
    const float *A = f->transposed ? f->V : changed, *B = f->transposed ? changed : f->V;
    t2k_status kernel =
        t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, f->transposed ? f->n : f->m, f->transposed ? f->m : f->n,
                  f->r, 1.0f, A, f->r, B, f->r, 1.0f, W, ld, NULL);
    free(changed);
    return kernel == T2K_OK ? T2_OK : t2_fail_kernel(err, kernel, f->name);
}

static t2_status merge_matrix(struct merge *merge, int64_t index, t2_error *err)
{
    const t2_factor *f = t2_factors_get(merge->factors, index);
    float *scaled = t2_alloc(f->r, sizeof scaled[0]), *data;
    t2_tensor *tensor;
    if (scaled == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for a merge");
    }
    t2_status status =
        t2_expert_scales(merge->expert, merge->factors, index, scaled, NULL, NULL, NULL, err);
    int changes = 0;
    for (int64_t i = 0; i < f->r && status == T2_OK; i++) {
        changes = changes || scaled[i] != f->S[i];
    }
    if (status == T2_OK && changes) {
        status = copy_of(merge, f->tensor, 2, &tensor, &data, err);
        if (status == T2_OK &&
            (f->transposed ? tensor->shape[0] != f->n || f->first + f->m > tensor->shape[1]
                           : tensor->shape[1] != f->n || f->first + f->m > tensor->shape[0])) {
            char shown[T2_SHOW];
            status = t2_fail(err, T2_ERR_FORMAT,
                             "tensor %.160s is (%lld, %lld): the factors are of another one",
                             t2_show(shown, f->tensor), (long long)tensor->shape[0],
                             (long long)tensor->shape[1]);
        }
        if (status == T2_OK) {
            status = place(f, scaled, data, tensor->shape[1], err);
        }
    }
    free(scaled);
    return status;
}

/* "in_proj_weight" has "in_proj_bias", "x.weight" has "x.bias". */
static char *bias_name(const char *weight)
{
    size_t n = strlen(weight), tail = strlen("weight");
    char *name = malloc(n + 1);
    if (name != NULL && n >= tail && strcmp(weight + n - tail, "weight") == 0) {
        memcpy(name, weight, n - tail);
        strcpy(name + n - tail, "bias");
    } else if (name != NULL) {
        name[0] = '\0';
    }
    return name;
}

/* y = a * (x W^T + b): rows of W and elements of b. */
static t2_status merge_channel(struct merge *merge, const t2_expert_vector *vector, t2_error *err)
{
    t2_tensor *tensor;
    float *data, *a = t2_alloc(vector->size, sizeof a[0]);
    char *bias = bias_name(vector->name);
    t2_status status = T2_OK;
    if (a == NULL || bias == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for a merge");
    }
    if (status == T2_OK) {
        status = t2_scales(&merge->expert->form, vector->size, NULL, vector->p, NULL, a, NULL, NULL,
                           vector->name, err);
    }
    if (status == T2_OK) {
        status = copy_of(merge, vector->name, 2, &tensor, &data, err);
    }
    if (status == T2_OK && tensor->shape[0] != vector->size) {
        char shown[T2_SHOW];
        status = t2_fail(err, T2_ERR_FORMAT, "tensor %.160s: expected %lld rows, found %lld",
                         t2_show(shown, vector->name), (long long)vector->size,
                         (long long)tensor->shape[0]);
    }
    for (int64_t i = 0; status == T2_OK && i < vector->size; i++) {
        for (int64_t j = 0; j < tensor->shape[1]; j++) {
            data[i * tensor->shape[1] + j] *= a[i];
        }
    }
    if (status == T2_OK && find(merge, bias) >= 0) {
        status = copy_of(merge, bias, 1, &tensor, &data, err);
        for (int64_t i = 0; status == T2_OK && i < vector->size && i < tensor->shape[0]; i++) {
            data[i] *= a[i];
        }
    }
    free(a);
    free(bias);
    return status;
}

static t2_status merge_all(struct merge *merge, const char *out, t2_error *err)
{
    size_t count = t2_safetensors_count(merge->file);
    size_t notes = t2_safetensors_metadata_count(merge->file);
    merge->tensors = calloc(count + 1, sizeof merge->tensors[0]);
    merge->copies = calloc(count + 1, sizeof merge->copies[0]);
    merge->pairs = calloc(notes + 1, sizeof merge->pairs[0]);
    if (merge->tensors == NULL || merge->copies == NULL || merge->pairs == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for a merge");
    }
    for (size_t i = 0; i < count; i++) {
        merge->tensors[i] = *t2_safetensors_tensor(merge->file, i);
    }
    for (size_t i = 0; i < notes; i++) {
        merge->pairs[i] = *t2_safetensors_metadata(merge->file, i);
    }
    t2_status status = T2_OK;
    if (merge->expert->form.kind == T2_EXPERT_SVF) {
        status = t2_expert_check(merge->expert, merge->factors, err);
        if (status == T2_OK) {
            status = t2_factors_check(merge->factors, merge->file, err);
        }
        for (int64_t i = 0; i < t2_factors_count(merge->factors) && status == T2_OK; i++) {
            status = merge_matrix(merge, i, err);
        }
    } else {
        for (int64_t i = 0; i < merge->expert->count && status == T2_OK; i++) {
            status = merge_channel(merge, &merge->expert->vectors[i], err);
        }
    }
    if (status == T2_OK) {
        status = t2_safetensors_write(out, merge->tensors, count, merge->pairs, notes, err);
    }
    return status;
}

t2_status t2_expert_merge(const char *model, const t2_factors *factors, const t2_expert *expert,
                          const char *out, t2_error *err)
{
    if (model == NULL || expert == NULL || out == NULL ||
        (expert->form.kind == T2_EXPERT_SVF && factors == NULL)) {
        return t2_fail(err, T2_ERR_ARG, "model, factors, expert or file of a merge are missing");
    }
    struct stat info;
    int folder = stat(model, &info) == 0 && S_ISDIR(info.st_mode);
    char *inside = folder ? t2_path_join(model, "model.safetensors") : NULL;
    struct merge merge = {.factors = factors, .expert = expert};
    t2_status status = T2_OK;
    if (folder && inside == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    } else if (t2_same_file(folder ? inside : model, out)) {
        char shown[T2_SHOW];
        status = t2_fail(err, T2_ERR_ARG, "%.300s: is the model's own file", t2_show(shown, out));
    } else {
        status = t2_safetensors_open(folder ? inside : model, 0, &merge.file, err);
    }
    if (status == T2_OK) {
        status = merge_all(&merge, out, err);
        for (size_t i = 0; merge.copies != NULL && i < t2_safetensors_count(merge.file); i++) {
            free(merge.copies[i]);
        }
        t2_safetensors_close(merge.file);
    }
    free(merge.tensors);
    free(merge.copies);
    free(merge.pairs);
    free(inside);
    return status;
}
