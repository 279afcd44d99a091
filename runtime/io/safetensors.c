/* Opened safetensors files and access to what is in them. */
#include "io/safetensors.h"
#include "io/error.h"
#include "io/text.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are used as they lie in the file: little-endian"
#endif

struct t2_safetensors {
    char *path;
    t2_bytes bytes;
    int borrowed; /* bytes belong to the caller */
    t2_header header;
    _Atomic(void *) *copies; /* (count) aligned copies, made when first asked for */
};

/* Takes `file` over: it is released on failure. */
static t2_status finish_open(t2_safetensors *file, t2_safetensors **out, t2_error *err)
{
    char name[T2_SHOW];
    t2_status status =
        t2_header_parse(file->path, file->bytes.data, file->bytes.size, &file->header, err);
    if (status == T2_OK) {
        file->copies = calloc(file->header.count + 1, sizeof *file->copies);
        if (file->copies == NULL) {
            status = t2_fail(err, T2_ERR_NOMEM, "%s: no memory for the list of its tensors",
                             t2_show(name, file->path));
        }
    }
    if (status != T2_OK) {
        t2_safetensors_close(file);
        return status;
    }
    *out = file;
    return T2_OK;
}

static t2_safetensors *new_file(const char *path, t2_error *err)
{
    char name[T2_SHOW];
    t2_safetensors *file = calloc(1, sizeof *file);
    if (file != NULL) {
        file->path = strdup(path);
    }
    if (file == NULL || file->path == NULL) {
        free(file);
        t2_fail(err, T2_ERR_NOMEM, "%s: no memory to open it", t2_show(name, path));
        return NULL;
    }
    return file;
}

t2_status t2_safetensors_open(const char *path, unsigned flags, t2_safetensors **file,
                              t2_error *err)
{
    if (path == NULL || file == NULL || (flags & ~(unsigned)T2_SAFETENSORS_NO_MMAP) != 0) {
        return t2_fail(err, T2_ERR_ARG, "t2_safetensors_open: path or file is NULL, or flags %#x",
                       flags);
    }
    t2_safetensors *f = new_file(path, err);
    if (f == NULL) {
        return T2_ERR_NOMEM;
    }
    t2_status status =
        t2_bytes_open(path, !(flags & T2_SAFETENSORS_NO_MMAP), UINT64_MAX, &f->bytes, err);
    if (status != T2_OK) {
        t2_safetensors_close(f);
        return status;
    }
    return finish_open(f, file, err);
}

t2_status t2_safetensors_open_memory(const char *name, const void *data, size_t size,
                                     t2_safetensors **file, t2_error *err)
{
    if (name == NULL || file == NULL || (data == NULL && size > 0)) {
        return t2_fail(err, T2_ERR_ARG, "t2_safetensors_open_memory: an argument is NULL");
    }
    t2_safetensors *f = new_file(name, err);
    if (f == NULL) {
        return T2_ERR_NOMEM;
    }
    f->borrowed = 1;
    f->bytes = (t2_bytes){data, size, 0};
    return finish_open(f, file, err);
}

void t2_safetensors_close(t2_safetensors *file)
{
    if (file == NULL) {
        return;
    }
    for (size_t i = 0; file->copies != NULL && i < file->header.count; i++) {
        free(atomic_load(&file->copies[i]));
    }
    free(file->copies);
    t2_header_free(&file->header);
    if (!file->borrowed) {
        t2_bytes_release(&file->bytes);
    }
    free(file->path);
    free(file);
}

const char *t2_safetensors_path(const t2_safetensors *file)
{
    return file->path;
}

size_t t2_safetensors_count(const t2_safetensors *file)
{
    return file->header.count;
}

const t2_tensor *t2_safetensors_tensor(const t2_safetensors *file, size_t index)
{
    return index < file->header.count ? &file->header.tensors[index] : NULL;
}

const t2_tensor *t2_safetensors_find(const t2_safetensors *file, const char *name)
{
    size_t low = 0, high = file->header.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const t2_tensor *tensor = file->header.by_name[middle];
        int order = strcmp(name, tensor->name);
        if (order == 0) {
            return tensor;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

size_t t2_safetensors_metadata_count(const t2_safetensors *file)
{
    return file->header.pair_count;
}

const t2_pair *t2_safetensors_metadata(const t2_safetensors *file, size_t index)
{
    return index < file->header.pair_count ? &file->header.pairs[index] : NULL;
}

const char *t2_safetensors_metadata_find(const t2_safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->header.pair_count; i++) {
        if (strcmp(file->header.pairs[i].key, key) == 0) {
            return file->header.pairs[i].value;
        }
    }
    return NULL;
}

/* SIZE_MAX for a tensor of another file; compared as integers, since it may lie anywhere. */
static size_t index_of(const t2_safetensors *file, const t2_tensor *tensor)
{
    uintptr_t first = (uintptr_t)file->header.tensors, at = (uintptr_t)tensor;
    if (at < first || at >= first + file->header.count * sizeof *tensor) {
        return SIZE_MAX;
    }
    return (at - first) / sizeof *tensor;
}

/* The tensor's bytes at a multiple of `align`. Of two threads that copy the same tensor at the
 * same time one wins, and both use its copy. */
static t2_status aligned(t2_safetensors *file, const t2_tensor *tensor, t2_dtype dtype,
                         size_t align, const void **data, t2_error *err)
{
    char path[T2_SHOW], name[T2_SHOW];
    size_t index = file == NULL ? SIZE_MAX : index_of(file, tensor);
    if (index == SIZE_MAX || data == NULL) {
        return t2_fail(err, T2_ERR_ARG, "the tensor does not belong to this safetensors file");
    }
    if (tensor->dtype != dtype) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: tensor '%s': expected dtype %s, found %s",
                       t2_show(path, file->path), t2_show(name, tensor->name), t2_dtype_name(dtype),
                       t2_dtype_name(tensor->dtype));
    }
    if ((uintptr_t)tensor->data % align == 0) {
        *data = tensor->data;
        return T2_OK;
    }
    _Atomic(void *) *slot = &file->copies[index];
    void *copy = atomic_load(slot);
    if (copy == NULL) {
        void *fresh = malloc(tensor->bytes + (tensor->bytes == 0));
        if (fresh == NULL) {
            return t2_fail(err, T2_ERR_NOMEM, "%s: tensor '%s': no memory for %zu bytes",
                           t2_show(path, file->path), t2_show(name, tensor->name), tensor->bytes);
        }
        memcpy(fresh, tensor->data, tensor->bytes);
        if (atomic_compare_exchange_strong(slot, &copy, fresh)) {
            copy = fresh;
        } else {
            free(fresh);
        }
    }
    *data = copy;
    return T2_OK;
}

t2_status t2_safetensors_f32(t2_safetensors *file, const t2_tensor *tensor, const float **data,
                             t2_error *err)
{
    const void *p;
    t2_status status =
        aligned(file, tensor, T2_F32, _Alignof(float), data != NULL ? &p : NULL, err);
    if (status == T2_OK) {
        *data = p;
    }
    return status;
}

t2_status t2_safetensors_f64(t2_safetensors *file, const t2_tensor *tensor, const double **data,
                             t2_error *err)
{
    const void *p;
    t2_status status =
        aligned(file, tensor, T2_F64, _Alignof(double), data != NULL ? &p : NULL, err);
    if (status == T2_OK) {
        *data = p;
    }
    return status;
}

t2_status t2_safetensors_i64(t2_safetensors *file, const t2_tensor *tensor, const int64_t **data,
                             t2_error *err)
{
    const void *p;
    t2_status status =
        aligned(file, tensor, T2_I64, _Alignof(int64_t), data != NULL ? &p : NULL, err);
    if (status == T2_OK) {
        *data = p;
    }
    return status;
}
