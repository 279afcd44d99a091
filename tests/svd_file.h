/* Small models to decompose, and safetensors files with one thing changed. */
#ifndef T2_SVD_FILE_H
#define T2_SVD_FILE_H

#include "t2.h"

/* Writes four matrices a (6, 4), b (4, 6), c (5, 5), d (1, 7) of U(-1, 1). Aborts on failure, as
 * the others here do. */
void svd_make_model(const char *path, uint64_t seed);

typedef struct svd_edit {
    t2_tensor *tensors; /* with room for one more */
    size_t count;
    t2_pair *pairs;
    size_t pair_count;
} svd_edit;

/* Writes the file `from` as `to` with its tensors and pairs passed through `change`. */
void svd_rewrite(const char *from, const char *to, void (*change)(svd_edit *e, const void *arg),
                 const void *arg);

t2_pair *svd_pair_of(svd_edit *e, const char *key);
t2_tensor *svd_tensor_of(svd_edit *e, const char *name);

#endif
