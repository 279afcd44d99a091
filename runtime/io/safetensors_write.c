/* Writer of safetensors files. */
#include "io/error.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_dtype_and_name(const void *a, const void *b)
{
    const t2_tensor *const *x = a, *const *y = b;
    if ((*x)->dtype != (*y)->dtype) {
        return (*x)->dtype > (*y)->dtype ? -1 : 1;
    }
    return strcmp((*x)->name, (*y)->name);
}

static int by_name(const void *a, const void *b)
{
    const t2_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b)
{
    const t2_pair *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

static t2_status bad_input(t2_error *err, const char *path, const char *what, const char *name,
                           const char *reason)
{
    char shown_path[T2_SHOW], shown[T2_SHOW];
    return t2_fail(err, T2_ERR_ARG, "%s: %s '%s': %s", t2_show(shown_path, path), what,
                   name != NULL ? t2_show(shown, name) : "", reason);
}

static t2_status check_tensor(const char *path, const t2_tensor *t, t2_error *err)
{
    char reason[96];
    uint64_t bytes;
    if (t->name == NULL || !t2_utf8_valid(t->name, strlen(t->name)) ||
        strcmp(t->name, T2_SAFETENSORS_METADATA) == 0) {
        return bad_input(err, path, "tensor", t->name, "is not a legal name");
    }
    if (t2_dtype_name(t->dtype) == NULL || t->rank < 0 || (t->rank > 0 && t->shape == NULL)) {
        return bad_input(err, path, "tensor", t->name, "has no valid dtype, rank or shape");
    }
    const char *problem = t2_shape_bytes(t->dtype, t->rank, t->shape, &bytes);
    if (problem != NULL) {
        return bad_input(err, path, "tensor", t->name, problem);
    }
    if (t->bytes != bytes || (bytes > 0 && t->data == NULL)) {
        snprintf(reason, sizeof reason, "expected %llu bytes by dtype and shape, found %zu%s",
                 (unsigned long long)bytes, t->bytes, t->data == NULL ? " at NULL" : "");
        return bad_input(err, path, "tensor", t->name, reason);
    }
    return T2_OK;
}

/* Sorts pointers to the tensors into `order`, and refuses what must not be written. */
static t2_status sort_tensors(const char *path, const t2_tensor *tensors, size_t count,
                              const t2_tensor **order, t2_error *err)
{
    for (size_t i = 0; i < count; i++) {
        t2_status status = check_tensor(path, &tensors[i], err);
        if (status != T2_OK) {
            return status;
        }
        order[i] = &tensors[i];
    }
    qsort(order, count, sizeof *order, by_name);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(order[i - 1]->name, order[i]->name) == 0) {
            return bad_input(err, path, "tensor", order[i]->name, "occurs twice");
        }
    }
    qsort(order, count, sizeof *order, by_dtype_and_name);
    return T2_OK;
}

static t2_status sort_pairs(const char *path, const t2_pair *pairs, size_t count,
                            const t2_pair **order, t2_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const t2_pair *p = &pairs[i];
        if (p->key == NULL || p->value == NULL || !t2_utf8_valid(p->key, strlen(p->key)) ||
            !t2_utf8_valid(p->value, strlen(p->value))) {
            return bad_input(err, path, "metadata", p->key, "key or value is not UTF-8 text");
        }
        order[i] = p;
    }
    qsort(order, count, sizeof *order, by_key);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(order[i - 1]->key, order[i]->key) == 0) {
            return bad_input(err, path, "metadata", order[i]->key, "occurs twice");
        }
    }
    return T2_OK;
}

static void add_tensor(t2_text *text, const t2_tensor *t, uint64_t *offset)
{
    t2_text_json(text, t->name);
    t2_text_printf(text, ":{\"dtype\":\"%s\",\"shape\":[", t2_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        t2_text_printf(text, "%s%lld", i > 0 ? "," : "", (long long)t->shape[i]);
    }
    t2_text_printf(text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*offset,
                   (unsigned long long)(*offset + t->bytes));
    *offset += t->bytes;
}

/* Length and JSON, padded with spaces so that the data starts at a multiple of 8. */
static void make_header(t2_text *text, const t2_tensor **tensors, size_t count,
                        const t2_pair **pairs, size_t pair_count)
{
    uint64_t offset = 0;
    t2_text_add(text, "\0\0\0\0\0\0\0\0", 8);
    t2_text_add(text, "{", 1);
    for (size_t i = 0; i < pair_count; i++) {
        t2_text_str(text, i > 0 ? "," : "\"" T2_SAFETENSORS_METADATA "\":{");
        t2_text_json(text, pairs[i]->key);
        t2_text_add(text, ":", 1);
        t2_text_json(text, pairs[i]->value);
    }
    t2_text_str(text, pair_count == 0 ? "" : count > 0 ? "}," : "}");
    for (size_t i = 0; i < count; i++) {
        t2_text_str(text, i > 0 ? "," : "");
        add_tensor(text, tensors[i], &offset);
    }
    t2_text_add(text, "}", 1);
    while (text->size % 8 != 0 && !text->failed) {
        t2_text_add(text, " ", 1);
    }
    if (!text->failed) {
        for (int i = 0; i < 8; i++) {
            text->data[i] = (char)((uint64_t)(text->size - 8) >> (8 * i) & 0xff);
        }
    }
}

static t2_status write_file(const char *path, const t2_text *header, const t2_tensor **tensors,
                            size_t count, int quick, t2_error *err)
{
    t2_writer writer;
    t2_status status = t2_writer_open(&writer, path, err);
    if (status != T2_OK) {
        return status;
    }
    writer.quick = quick;
    status = t2_writer_write(&writer, header->data, header->size, err);
    for (size_t i = 0; i < count && status == T2_OK; i++) {
        status = t2_writer_write(&writer, tensors[i]->data, tensors[i]->bytes, err);
    }
    if (status != T2_OK) {
        t2_writer_abort(&writer);
        return status;
    }
    return t2_writer_commit(&writer, err);
}

t2_status t2_safetensors_write(const char *path, const t2_tensor *tensors, size_t count,
                               const t2_pair *metadata, size_t metadata_count, t2_error *err)
{
    return t2_safetensors_write_as(path, tensors, count, metadata, metadata_count, 0, err);
}

t2_status t2_safetensors_write_as(const char *path, const t2_tensor *tensors, size_t count,
                                  const t2_pair *metadata, size_t metadata_count, int quick,
                                  t2_error *err)
{
    char name[T2_SHOW];
    if (path == NULL || (tensors == NULL && count > 0) ||
        (metadata == NULL && metadata_count > 0)) {
        return t2_fail(err, T2_ERR_ARG, "t2_safetensors_write: an argument is NULL");
    }
    t2_text header = {0};
    const t2_tensor **order = calloc(count + 1, sizeof *order);
    const t2_pair **pairs = calloc(metadata_count + 1, sizeof *pairs);
    t2_status status = T2_ERR_NOMEM;
    if (order == NULL || pairs == NULL) {
        header.failed = 1;
    } else {
        status = sort_tensors(path, tensors, count, order, err);
        if (status == T2_OK) {
            status = sort_pairs(path, metadata, metadata_count, pairs, err);
        }
        if (status == T2_OK) {
            make_header(&header, order, count, pairs, metadata_count);
        }
    }
    if (header.failed) {
        status = t2_fail(err, T2_ERR_NOMEM, "%s: no memory for its header", t2_show(name, path));
    } else if (status == T2_OK && header.size - 8 > T2_SAFETENSORS_MAX_HEADER) {
        status = t2_fail(err, T2_ERR_ARG, "%s: expected a header of at most %u bytes, found %zu",
                         t2_show(name, path), T2_SAFETENSORS_MAX_HEADER, header.size - 8);
    } else if (status == T2_OK) {
        status = write_file(path, &header, order, count, quick, err);
    }
    t2_text_free(&header);
    free(order);
    free(pairs);
    return status;
}
