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

/* Nonzero where a tensor of `rows` x `items` rows of `width` elements with these strides has an
 * element beyond the reach of a pointer. All arguments >= 0. */
static inline int t2k_too_far(int64_t rows, int64_t row, int64_t items, int64_t item, int64_t width,
                              int64_t size)
{
    int64_t a, b, bytes;
    if (rows == 0 || items == 0) {
        return 0;
    }
    return __builtin_mul_overflow(rows - 1, row, &a) ||
           __builtin_mul_overflow(items - 1, item, &b) || __builtin_add_overflow(a, b, &a) ||
           __builtin_add_overflow(a, width, &a) || __builtin_mul_overflow(a, size, &bytes) ||
           bytes > PTRDIFF_MAX;
}

/* Nonzero where such rows overlap, or interleave without nesting: the rows of one index must lie
 * inside the stride of the other. No overflow after t2k_too_far(). */
static inline int t2k_rows_overlap(int64_t rows, int64_t row, int64_t items, int64_t item,
                                   int64_t width)
{
    if ((rows > 1 && row < width) || (items > 1 && item < width)) {
        return 1;
    }
    return rows > 1 && items > 1 && row < (items - 1) * item + width &&
           item < (rows - 1) * row + width;
}

#endif
