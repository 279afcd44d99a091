/* Attention masks: from a file, and in the strides that the kernel takes. */
#include "io/error.h"
#include "io/text.h"
#include "model/model.h"

#include <string.h>

static int has_shape(const t2_tensor *tensor, int rank, int64_t heads, int64_t queries,
                     int64_t keys)
{
    const int64_t shape[3] = {heads, queries, keys};
    return tensor->rank == rank &&
           memcmp(tensor->shape, shape + 3 - rank, (size_t)rank * sizeof shape[0]) == 0;
}

t2_status t2_mask_from_tensor(t2_safetensors *file, const t2_tensor *tensor, int64_t queries,
                              int64_t keys, int64_t items, int64_t heads, t2_mask *mask,
                              t2_error *err)
{
    char path[T2_SHOW], name[T2_SHOW];
    if (file == NULL || tensor == NULL || mask == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no mask tensor");
    }
    t2_show(path, t2_safetensors_path(file));
    t2_show(name, tensor->name);
    if (tensor->dtype != T2_BOOL && tensor->dtype != T2_F32) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: tensor %s: expected a mask of dtype BOOL or F32, found %s", path, name,
                       t2_dtype_name(tensor->dtype));
    }
    int64_t all_heads = items;
    if (!t2_multiply(&all_heads, heads)) {
        return t2_fail(err, T2_ERR_ARG, "mask: items * heads overflow");
    }
    int shared = has_shape(tensor, 2, 0, queries, keys);
    if (!shared && !has_shape(tensor, 3, all_heads, queries, keys)) {
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: tensor %s: expected a mask of shape [%lld, %lld] or [%lld, %lld, "
                       "%lld] (items * heads first), found another one of rank %d",
                       path, name, (long long)queries, (long long)keys, (long long)all_heads,
                       (long long)queries, (long long)keys, tensor->rank);
    }
    t2_mask made = {T2_MASK_BOOL, !shared, tensor->data};
    if (tensor->dtype == T2_F32) {
        const float *data;
        t2_status status = t2_safetensors_f32(file, tensor, &data, err);
        if (status != T2_OK) {
            return status;
        }
        made.kind = T2_MASK_ADD;
        made.data = data;
    }
    *mask = made;
    return T2_OK;
}

t2_status t2_mask_resolve(const t2_mask *mask, int64_t queries, int64_t keys, int64_t heads,
                          t2_strided_mask *resolved, t2_error *err)
{
    t2_strided_mask made = {T2K_MASK_NONE, NULL, 0, 0, 0};
    if (mask->kind == T2_MASK_CAUSAL) {
        if (queries != keys) {
            return t2_fail(err, T2_ERR_ARG, "a causal mask needs as many keys as queries");
        }
        made.kind = T2K_MASK_CAUSAL;
    } else if (mask->kind == T2_MASK_BOOL || mask->kind == T2_MASK_ADD) {
        if (mask->data == NULL && queries > 0 && keys > 0) {
            return t2_fail(err, T2_ERR_ARG, "the mask has no data");
        }
        made.kind = mask->kind == T2_MASK_BOOL ? T2K_MASK_BOOL : T2K_MASK_ADD;
        made.data = mask->data;
        made.row = keys;
        if (mask->per_head) {
            made.head = queries;
            made.item = heads;
            if (!t2_multiply(&made.head, keys) || !t2_multiply(&made.item, made.head)) {
                return t2_fail(err, T2_ERR_ARG, "the sizes of the mask overflow");
            }
        }
    } else if (mask->kind != T2_MASK_NONE) {
        return t2_fail(err, T2_ERR_ARG, "there is no mask kind %d", (int)mask->kind);
    }
    *resolved = made;
    return T2_OK;
}
