/* Memory for the activations of a pass, kept and grown between passes. */
#include "io/error.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

int t2_grow(void *buffer, int64_t *room, int64_t count, size_t size)
{
    void *block; /* any pointer to an object has its representation */
    memcpy(&block, buffer, sizeof block);
    if (block != NULL && *room >= count) {
        return 1;
    }
    free(block);
    block = t2_alloc(count, size);
    memcpy(buffer, &block, sizeof block);
    *room = block != NULL ? count : 0;
    return block != NULL;
}

t2_status t2_workspace_reserve(t2_workspace *workspace, int64_t embed_size, int64_t expansion,
                               int64_t rows, int64_t key_rows, t2_error *err)
{
    int64_t qkv, heads = rows, hidden;
    int fits = rows >= 0 && key_rows >= 0 && !__builtin_mul_overflow(key_rows, 2, &qkv) &&
               !__builtin_add_overflow(qkv, rows, &qkv) && t2_multiply(&qkv, embed_size) &&
               t2_multiply(&heads, embed_size);
    hidden = heads;
    fits = fits && t2_multiply(&hidden, expansion);
    fits = fits && t2_grow(&workspace->qkv, &workspace->qkv_room, qkv, sizeof(float)) &&
           t2_grow(&workspace->hidden, &workspace->hidden_room, hidden, sizeof(float));
    if (fits && (workspace->heads == NULL || workspace->rows_room < heads)) {
        free(workspace->heads);
        free(workspace->row_sums);
        workspace->heads = t2_alloc(heads, sizeof(float));
        workspace->row_sums = t2_alloc(rows, sizeof(double));
        fits = workspace->heads != NULL && workspace->row_sums != NULL;
        workspace->rows_room = fits ? heads : -1;
    }
    if (!fits) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory for the activations of %lld tokens",
                       (long long)rows);
    }
    return T2_OK;
}

void t2_workspace_free(t2_workspace *workspace)
{
    free(workspace->qkv);
    free(workspace->heads);
    free(workspace->hidden);
    free(workspace->row_sums);
}
