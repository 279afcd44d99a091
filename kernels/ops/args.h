/* Argument checks that the drivers share. */
#ifndef T2K_ARGS_H
#define T2K_ARGS_H

#include "core/core.h"

/* Nonzero where (rows, cols) is no size, or where p is no such matrix with row stride ld: NULL
 * though it has elements, ld < cols, or beyond what memory can hold. */
static inline int t2k_bad_matrix(int64_t rows, int64_t cols, const void *p, int64_t ld,
                                 size_t element)
{
    if (rows < 0 || cols < 0 || ld < cols) {
        return 1;
    }
    if (rows == 0 || cols == 0) {
        return 0;
    }
    size_t count, bytes;
    return p == NULL || t2k_mul_overflow((size_t)(rows - 1), (size_t)ld, &count) ||
           count > SIZE_MAX - (size_t)cols ||
           t2k_mul_overflow(count + (size_t)cols, element, &bytes) || bytes > PTRDIFF_MAX;
}

/* The same for n elements in a row. */
static inline int t2k_bad_vector(int64_t n, const void *p, size_t element)
{
    return t2k_bad_matrix(1, n, p, n, element);
}

/* Nonzero where an output Y that starts at X would overwrite rows of X not yet read. */
static inline int t2k_bad_in_place(int64_t rows, const float *X, int64_t ldx, const float *Y,
                                   int64_t ldy)
{
    return X == Y && rows > 1 && ldx != ldy;
}

#endif
