/* Parser of safetensors headers: 8 bytes of length n (little-endian), n bytes of JSON, data.
 *
 * Jansson reads the JSON. Where it is laxer than the reference implementation (Rust: serde_json
 * and the crate's own checks), scan() and the getters below are the strict ones: -0 is no
 * integer, nesting ends at 127 levels, nothing but spaces, tabs and line ends may surround the
 * object. Integers beyond 2^63 - 1, which Jansson refuses, could not be valid sizes or offsets
 * anyway. Everything is linear in the header's size but for two sorts. */
#include "io/safetensors.h"
#include "io/error.h"
#include "io/text.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 127

/* One tensor while its header is being read. */
typedef struct entry {
    t2_tensor tensor;
    uint64_t begin, end;
} entry;

/* Where parsed strings and shapes go: blocks that were measured first. */
typedef struct sink {
    const char *path; /* as shown in messages */
    t2_header *header;
    entry *entries;
    char *string;
    int64_t *shape;
    size_t string_bytes, dims;
    t2_error *err;
} sink;

const char *t2_shape_bytes(t2_dtype dtype, int rank, const int64_t *shape, uint64_t *bytes)
{
    uint64_t elements = 1, bits;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0) {
            return "a dimension is negative";
        }
        if (__builtin_mul_overflow(elements, (uint64_t)shape[i], &elements)) {
            return "the shape's product overflows";
        }
    }
    if (__builtin_mul_overflow(elements, (uint64_t)t2_dtype_bits(dtype), &bits)) {
        return "the shape's size overflows";
    }
    if (bits % 8 != 0) {
        return "the shape is not a whole number of bytes";
    }
    *bytes = bits / 8;
    return NULL;
}

/* ---- what Jansson lets through ------------------------------------------------------------- */

static const char *scan(const char *text, size_t n)
{
    int in_string = 0, depth = 0;
    if (!t2_utf8_valid(text, n)) {
        return "header is not valid UTF-8";
    }
    if (n == 0 || text[0] != '{') {
        return "header is not JSON: it must start with '{'";
    }
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) {
                return "header is not JSON: nested too deeply";
            }
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == '-' && i + 2 < n && text[i + 1] == '0' && text[i + 2] != '.' &&
                   (text[i + 2] | 0x20) != 'e') {
            return "header holds -0 where an unsigned integer is expected";
        }
    }
    return NULL;
}

static t2_status parse_json(const char *path, const char *text, size_t n, json_t **root,
                            t2_error *err)
{
    char name[T2_SHOW], reason[T2_SHOW];
    const char *problem = scan(text, n);
    if (problem != NULL) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: %s", t2_show(name, path), problem);
    }
    json_error_t error;
    *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (*root != NULL) {
        return T2_OK;
    }
    if (error.text[0] == '\0') { /* a failed allocation leaves no text */
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory for its header", t2_show(name, path));
    }
    return t2_fail(err, T2_ERR_FORMAT, "%s: header is not JSON: %s (at byte %d)",
                   t2_show(name, path), t2_show(reason, error.text), error.position);
}

/* ---- entries ------------------------------------------------------------------------------- */

static t2_status bad_tensor(const sink *s, const char *name, const char *reason)
{
    char shown[T2_SHOW];
    return t2_fail(s->err, T2_ERR_FORMAT, "%s: tensor '%s': %s", s->path, t2_show(shown, name),
                   reason);
}

static const char *keep(sink *s, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = s->string;
    memcpy(copy, text, n);
    s->string += n;
    return copy;
}

/* A non-negative integer that was written as one. */
static int get_size(const json_t *value, int64_t *size)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return 0;
    }
    *size = json_integer_value(value);
    return 1;
}

static t2_status parse_tensor(sink *s, const char *name, const json_t *info, entry *e)
{
    char shown[T2_SHOW], value[T2_SHOW];
    if (!json_is_object(info)) {
        return bad_tensor(s, name, "expected an object with dtype, shape and data_offsets");
    }
    const json_t *dtype = json_object_get(info, "dtype");
    const json_t *shape = json_object_get(info, "shape");
    const json_t *offsets = json_object_get(info, "data_offsets");
    if (!json_is_string(dtype)) {
        return bad_tensor(s, name, "dtype is missing or not a string");
    }
    if (!t2_dtype_from_name(json_string_value(dtype), &e->tensor.dtype)) {
        return t2_fail(s->err, T2_ERR_FORMAT, "%s: tensor '%s': unsupported dtype %s", s->path,
                       t2_show(shown, name), t2_show(value, json_string_value(dtype)));
    }
    if (!json_is_array(shape) || json_array_size(shape) > INT_MAX) {
        return bad_tensor(s, name, "shape is missing or not a list of sizes");
    }
    e->tensor.rank = (int)json_array_size(shape);
    e->tensor.shape = s->shape;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        if (!get_size(json_array_get(shape, i), s->shape++)) {
            return bad_tensor(s, name, "shape holds something else than non-negative integers");
        }
    }
    int64_t begin, end;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end)) {
        return bad_tensor(s, name, "data_offsets are missing or not two non-negative integers");
    }
    e->begin = (uint64_t)begin;
    e->end = (uint64_t)end;
    if (end < begin) {
        return t2_fail(s->err, T2_ERR_FORMAT,
                       "%s: tensor '%s': offsets [%lld,%lld] end before they begin", s->path,
                       t2_show(shown, name), (long long)begin, (long long)end);
    }
    e->tensor.name = keep(s, name);
    return T2_OK;
}

static t2_status parse_pairs(sink *s, json_t *metadata)
{
    const char *key;
    json_t *value;
    t2_pair *pair = s->header->pairs;
    json_object_foreach(metadata, key, value)
    {
        char shown[T2_SHOW];
        if (!json_is_string(value)) {
            return t2_fail(s->err, T2_ERR_FORMAT,
                           "%s: " T2_SAFETENSORS_METADATA " '%s' is not a string", s->path,
                           t2_show(shown, key));
        }
        pair->key = keep(s, key);
        pair->value = keep(s, json_string_value(value));
        pair++;
    }
    return T2_OK;
}

/* Counts what is in the header and allocates the blocks for it. Types are checked later: what is
 * of a wrong type counts as empty here. */
static t2_status make_room(sink *s, json_t *root)
{
    const char *key;
    json_t *value;
    t2_header *h = s->header;
    json_t *metadata = json_object_get(root, T2_SAFETENSORS_METADATA);
    h->count = json_object_size(root) - (metadata != NULL);
    h->pair_count = json_object_size(metadata);
    json_object_foreach(root, key, value)
    {
        s->string_bytes += strlen(key) + 1;
        s->dims += json_array_size(json_object_get(value, "shape"));
    }
    json_object_foreach(metadata, key, value)
    {
        s->string_bytes += strlen(key) + 1 + json_string_length(value) + 1;
    }
    /* At least one element each: malloc(0) may give NULL. */
    h->tensors = calloc(h->count + 1, sizeof *h->tensors);
    h->by_name = calloc(h->count + 1, sizeof *h->by_name);
    h->pairs = calloc(h->pair_count + 1, sizeof *h->pairs);
    h->strings = malloc(s->string_bytes + 1);
    h->shapes = calloc(s->dims + 1, sizeof *h->shapes);
    s->entries = calloc(h->count + 1, sizeof *s->entries);
    if (h->tensors == NULL || h->by_name == NULL || h->pairs == NULL || h->strings == NULL ||
        h->shapes == NULL || s->entries == NULL) {
        return t2_fail(s->err, T2_ERR_NOMEM, "%s: no memory for the list of its %zu tensors",
                       s->path, h->count);
    }
    s->string = h->strings;
    s->shape = h->shapes;
    return T2_OK;
}

static t2_status parse_entries(sink *s, json_t *root)
{
    const char *key;
    json_t *value;
    t2_status status = make_room(s, root);
    size_t i = 0;
    json_object_foreach(root, key, value)
    {
        if (status != T2_OK) {
            return status;
        }
        if (strcmp(key, T2_SAFETENSORS_METADATA) != 0) {
            status = parse_tensor(s, key, value, &s->entries[i++]);
        } else if (json_is_object(value)) {
            status = parse_pairs(s, value);
        } else if (!json_is_null(value)) {
            status = t2_fail(s->err, T2_ERR_FORMAT,
                             "%s: " T2_SAFETENSORS_METADATA " is not an object", s->path);
        }
    }
    return status;
}

/* ---- the data they describe ---------------------------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->end != y->end) {
        return x->end < y->end ? -1 : 1;
    }
    return strcmp(x->tensor.name, y->tensor.name);
}

static int by_name(const void *a, const void *b)
{
    const t2_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Ranges follow each other from 0 to the end of the data, and each has its shape's size. */
static t2_status check_ranges(sink *s, const unsigned char *data, size_t size)
{
    char name[T2_SHOW];
    t2_header *h = s->header;
    uint64_t at = 0, bytes;
    qsort(s->entries, h->count, sizeof *s->entries, by_offset);
    for (size_t i = 0; i < h->count; i++) {
        entry *e = &s->entries[i];
        t2_show(name, e->tensor.name);
        if (e->begin != at) {
            return t2_fail(s->err, T2_ERR_FORMAT,
                           "%s: tensor '%s': offsets begin at %llu, expected %llu (%s)", s->path,
                           name, (unsigned long long)e->begin, (unsigned long long)at,
                           e->begin < at ? "tensors overlap" : "a hole before it");
        }
        const char *problem =
            t2_shape_bytes(e->tensor.dtype, e->tensor.rank, e->tensor.shape, &bytes);
        if (problem != NULL) {
            return bad_tensor(s, e->tensor.name, problem);
        }
        if (e->end - e->begin != bytes) {
            return t2_fail(s->err, T2_ERR_FORMAT,
                           "%s: tensor '%s': expected %llu bytes by dtype %s and shape, found %llu",
                           s->path, name, (unsigned long long)bytes, t2_dtype_name(e->tensor.dtype),
                           (unsigned long long)(e->end - e->begin));
        }
        at = e->end;
    }
    if (at != size) {
        return t2_fail(s->err, T2_ERR_FORMAT,
                       "%s: expected %llu bytes of data after the header, found %zu (%s)", s->path,
                       (unsigned long long)at, size,
                       size < at ? "the file is cut off" : "trailing bytes");
    }
    for (size_t i = 0; i < h->count; i++) {
        const entry *e = &s->entries[i];
        h->tensors[i] = e->tensor;
        h->tensors[i].data = data + e->begin;
        h->tensors[i].bytes = (size_t)(e->end - e->begin);
        h->by_name[i] = &h->tensors[i];
    }
    qsort(h->by_name, h->count, sizeof *h->by_name, by_name);
    return T2_OK;
}

static t2_status header_length(const char *path, const unsigned char *data, size_t size,
                               size_t *length, t2_error *err)
{
    char name[T2_SHOW];
    uint64_t n = 0;
    if (size < 8) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: expected at least 8 bytes, found %zu",
                       t2_show(name, path), size);
    }
    for (int i = 7; i >= 0; i--) {
        n = n << 8 | data[i];
    }
    if (n > T2_SAFETENSORS_MAX_HEADER) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: expected a header of at most %u bytes, found a length of %llu",
                       t2_show(name, path), T2_SAFETENSORS_MAX_HEADER, (unsigned long long)n);
    }
    if (n > size - 8) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: the header of %llu bytes reaches beyond the file of %zu bytes",
                       t2_show(name, path), (unsigned long long)n, size);
    }
    *length = (size_t)n;
    return T2_OK;
}

t2_status t2_header_parse(const char *path, const unsigned char *data, size_t size,
                          t2_header *header, t2_error *err)
{
    char name[T2_SHOW];
    size_t length = 0;
    json_t *root = NULL;
    *header = (t2_header){0};
    t2_status status = header_length(path, data, size, &length, err);
    if (status == T2_OK) {
        status = parse_json(path, (const char *)data + 8, length, &root, err);
    }
    if (status != T2_OK) {
        return status;
    }
    sink s = {.path = t2_show(name, path), .header = header, .err = err};
    status = parse_entries(&s, root);
    json_decref(root);
    if (status == T2_OK) {
        status = check_ranges(&s, data + 8 + length, size - 8 - length);
    }
    free(s.entries);
    if (status != T2_OK) {
        t2_header_free(header);
    }
    return status;
}

void t2_header_free(t2_header *header)
{
    free(header->tensors);
    free(header->by_name);
    free(header->pairs);
    free(header->strings);
    free(header->shapes);
    *header = (t2_header){0};
}
