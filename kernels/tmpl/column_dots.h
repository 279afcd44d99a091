/* Column sums and dot products (docs/numerics.md, rule 8): rows in chunks of T2K_CHUNK_ROWS, a
 * chunk's sum one chain from +0 over rising rows, by additions or, of products, by fused steps;
 * then chunk after chunk is added to what the column has.
 *
 * COLUMN_VECTORS chains side by side hide the latency of an addition (4 cycles, two ports on Zen
 * 4: eight); the group's columns of a row are contiguous. Tails are masked. */
#include "tmpl/reduce.h"

#define COLUMN_VECTORS 8

/* One group of `count` vectors of columns, the last of `n` (1 .. VF_W) lanes; count, whether there
 * is a B and n = VF_W are constants. */
ROW_INLINE void column_group(const size_t count, size_t n, size_t rows, const float *A, size_t lda,
                             const float *B, size_t ldb, int accumulate, float *sums)
{
    for (size_t i = 0; i < rows; i += T2K_CHUNK_ROWS) {
        const size_t left = rows - i, now = left < T2K_CHUNK_ROWS ? left : T2K_CHUNK_ROWS;
        vf sum[COLUMN_VECTORS];
        UNROLL_LANES
        for (size_t v = 0; v < count; v++) {
            sum[v] = v_zero();
        }
        for (size_t r = 0; r < now; r++) {
            UNROLL_LANES
            for (size_t v = 0; v < count; v++) {
                const float *a = A + v * VF_W, *b = B != NULL ? B + v * VF_W : NULL;
                const vf x = n == VF_W ? v_load(a) : v_load_n(a, n);
                sum[v] = b == NULL ? v_add(sum[v], x)
                                   : v_fma(x, n == VF_W ? v_load(b) : v_load_n(b, n), sum[v]);
            }
            A += lda;
            B = B != NULL ? B + ldb : NULL;
        }
        UNROLL_LANES
        for (size_t v = 0; v < count; v++) {
            float *to = sums + v * VF_W;
            if (accumulate || i > 0) {
                sum[v] = v_add(n == VF_W ? v_load(to) : v_load_n(to, n), sum[v]);
            }
            if (n == VF_W) {
                v_store(to, sum[v]);
            } else {
                v_store_n(to, sum[v], n);
            }
        }
    }
}

ROW_INLINE void column_groups(size_t rows, size_t cols, const float *A, size_t lda, const float *B,
                              size_t ldb, int accumulate, float *sums)
{
    size_t j = 0;
    for (; j + COLUMN_VECTORS * VF_W <= cols; j += COLUMN_VECTORS * VF_W) {
        column_group(COLUMN_VECTORS, VF_W, rows, A + j, lda, B != NULL ? B + j : NULL, ldb,
                     accumulate, sums + j);
    }
    for (; j + VF_W <= cols; j += VF_W) {
        column_group(1, VF_W, rows, A + j, lda, B != NULL ? B + j : NULL, ldb, accumulate,
                     sums + j);
    }
    if (j < cols) {
        column_group(1, cols - j, rows, A + j, lda, B != NULL ? B + j : NULL, ldb, accumulate,
                     sums + j);
    }
}

void T2K_FN(column_dots)(size_t rows, size_t cols, const float *A, size_t lda, const float *B,
                         size_t ldb, int accumulate, float *sums)
{
    if (rows == 0 && !accumulate) {
        for (size_t j = 0; j < cols; j++) {
            sums[j] = 0.0f;
        }
    } else if (B != NULL) {
        column_groups(rows, cols, A, lda, B, ldb, accumulate, sums);
    } else {
        column_groups(rows, cols, A, lda, NULL, 0, accumulate, sums);
    }
}
