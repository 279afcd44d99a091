/* Norms of short rows, VF_W rows at a time, one row a lane: the rows are transposed in blocks of
 * four columns, the last of which may overlap the one before, or one by one where there are fewer,
 * so that everything but that is vertical. The tree of the sums is that of tmpl/reduce.h without
 * the lanes that are +0. */
#include "tmpl/norm.h"

#if VF_W > 1
#define COLUMNS_GROUPS 4
#define COLUMNS_MOST 32

/* Where the block of four columns that begins at j does. */
ROW_INLINE size_t columns_at(size_t j, size_t cols)
{
    return j + 4 <= cols ? j : cols - 4;
}

/* The sum of `count` columns, those past the last one being +0; count is a constant. */
ROW_INLINE vf columns_tree(size_t count, vf c[COLUMNS_MOST])
{
    T2K_UNROLL
    for (size_t width = COLUMNS_MOST / 2; width > 0; width /= 2) {
        T2K_UNROLL
        for (size_t v = 0; v < width; v++) {
            if (v + width < count) {
                c[v] = v_add(c[v], c[v + width]);
            }
        }
    }
    return v_add(c[0], v_zero()); /* never -0 */
}

/* z of VF_W rows, column by column. */
ROW_INLINE void columns_load(size_t cols, const float *x, size_t ldx, const float *scale,
                             const float *r, size_t ldr, float *z)
{
    for (size_t i = 0; cols < 4 && i < VF_W; i++) {
        for (size_t j = 0; j < cols; j++) {
            float a = x[i * ldx + j];
            a = scale != NULL ? a * scale[j] : a;
            z[j * VF_W + i] = r != NULL ? a + r[i * ldr + j] : a;
        }
    }
    for (size_t j = 0; cols >= 4 && j < cols; j += 4) {
        const size_t at = columns_at(j, cols);
        vf a[4], b[4];
        v_load_rows4(x + at, ldx, a);
        if (scale != NULL) {
            const vf s = v_set_columns4(scale + at);
            T2K_UNROLL
            for (size_t k = 0; k < 4; k++) {
                a[k] = v_mul(a[k], s);
            }
        }
        if (r != NULL) {
            v_load_rows4(r + at, ldr, b);
            T2K_UNROLL
            for (size_t k = 0; k < 4; k++) {
                a[k] = v_add(a[k], b[k]);
            }
        }
        v_transpose4(a);
        T2K_UNROLL
        for (size_t k = 0; k < 4; k++) {
            v_store(z + (at + k) * VF_W, a[k]);
        }
    }
}

ROW_INLINE void columns_store(size_t cols, const float *z, float *y, size_t ldy)
{
    for (size_t i = 0; cols < 4 && i < VF_W; i++) {
        for (size_t j = 0; j < cols; j++) {
            y[i * ldy + j] = z[j * VF_W + i];
        }
    }
    for (size_t j = 0; cols >= 4 && j < cols; j += 4) {
        const size_t at = columns_at(j, cols);
        vf a[4];
        T2K_UNROLL
        for (size_t k = 0; k < 4; k++) {
            a[k] = v_load(z + (at + k) * VF_W);
        }
        v_transpose4(a);
        v_store_rows4(y + at, ldy, a);
    }
}

/* What a group of VF_W rows is known by; c is what m0 is off. */
typedef struct columns_group {
    float z[COLUMNS_MOST * VF_W]; /* column by column */
    vf mean;
    row_numbers numbers;
} columns_group;

#if NORM_CENTERED
/* m0; the columns from cols to count, a constant, become m0 too, so that d is +0 there (unless the
 * row is odd anyway). */
ROW_INLINE void columns_mean(size_t count, size_t cols, columns_group *g)
{
    vf s[COLUMNS_MOST];
    for (size_t k = cols; k < count; k++) {
        v_store(g->z + k * VF_W, v_zero());
    }
    T2K_UNROLL
    for (size_t k = 0; k < count; k++) {
        s[k] = v_load(g->z + k * VF_W);
    }
    g->mean = v_div(columns_tree(count, s), v_set1((float)cols));
    for (size_t k = cols; k < count; k++) {
        v_store(g->z + k * VF_W, g->mean);
    }
}
#else
ROW_INLINE void columns_mean(size_t count, size_t cols, columns_group *g)
{
    for (size_t k = cols; k < count; k++) {
        v_store(g->z + k * VF_W, v_zero());
    }
    g->mean = v_zero();
}
#endif

ROW_INLINE void columns_numbers(size_t count, size_t cols, float eps, columns_group *g)
{
    vf sum = v_zero(), c = v_zero(), s[COLUMNS_MOST], q[COLUMNS_MOST];
    T2K_UNROLL
    for (size_t k = 0; k < count; k++) {
        s[k] = v_load(g->z + k * VF_W);
        s[k] = NORM_CENTERED ? v_sub(s[k], g->mean) : s[k];
        q[k] = v_mul(s[k], s[k]);
    }
    if (NORM_CENTERED) {
        sum = columns_tree(count, s);
    }
    const vf square = mean_square(sum, columns_tree(count, q), v_set1((float)cols), &c);
    g->numbers.mean = g->mean;
    g->numbers.inverse = v_div(v_set1(1.0f), v_sqrt(v_add(square, v_set1(eps))));
    g->numbers.shift = v_fnma(c, g->numbers.inverse, v_zero());
}

/* z becomes y. */
ROW_INLINE void columns_normal(size_t cols, row_numbers r, const float *weight, const float *bias,
                               float *z)
{
    for (size_t k = 0; k < cols; k++) {
        const vf w = v_set1(weight != NULL ? weight[k] : 0.0f);
        const vf b = v_set1(bias != NULL ? bias[k] : 0.0f);
        v_store(z + k * VF_W, normal(v_load(z + k * VF_W), r, weight != NULL, w, bias != NULL, b));
    }
}

/* As many rows as go in groups, from the first on, until one is odd; returns how many. Several
 * groups go together, phase by phase: a group alone would wait for its divisions. */
ROW_INLINE size_t columns_rows(size_t count, size_t rows, size_t cols, const float *X, size_t ldx,
                               const t2k_norm_params *p, float *Y, size_t ldy)
{
    const float *bias = NORM_CENTERED ? p->bias : NULL, *r = p->residual;
    columns_group group[COLUMNS_GROUPS];
    size_t i = 0;
    while (i + VF_W <= rows) {
        const size_t left = (rows - i) / VF_W, now = left < COLUMNS_GROUPS ? left : COLUMNS_GROUPS;
        vm odd = vm_first(0);
        for (size_t g = 0; g < now; g++) {
            const size_t at = i + g * VF_W;
            columns_load(cols, X + at * ldx, ldx, p->scale, r != NULL ? r + at * p->ldr : NULL,
                         p->ldr, group[g].z);
            columns_mean(count, cols, &group[g]);
        }
        for (size_t g = 0; g < now; g++) {
            columns_numbers(count, cols, p->eps, &group[g]);
            odd = vm_or(odd, odd_rows(group[g].numbers.inverse));
        }
        if (vm_any(odd)) {
            break;
        }
        for (size_t g = 0; g < now; g++) {
            const size_t at = i + g * VF_W;
            if (p->sum != NULL) {
                columns_store(cols, group[g].z, p->sum + at * p->lds, p->lds);
            }
            columns_normal(cols, group[g].numbers, p->weight, bias, group[g].z);
            columns_store(cols, group[g].z, Y + at * ldy, ldy);
        }
        i += now * VF_W;
    }
    return i;
}

/* Functions of their own, so that their frames are not added up. */
#define COLUMNS_ROWS(count)                                                           \
    static __attribute__((noinline))                                                  \
    size_t columns_rows_##count(size_t rows, size_t cols, const float *X, size_t ldx, \
                                const t2k_norm_params *p, float *Y, size_t ldy)       \
    {                                                                                 \
        return columns_rows(count, rows, cols, X, ldx, p, Y, ldy);                    \
    }
COLUMNS_ROWS(8)
COLUMNS_ROWS(12)
COLUMNS_ROWS(16)
COLUMNS_ROWS(24)
COLUMNS_ROWS(32)
#endif

static void norm_any(size_t rows, size_t cols, const float *X, size_t ldx,
                     const t2k_norm_params *params, float *Y, size_t ldy)
{
    t2k_norm_params p = *params;
#if VF_W > 1
    while (rows > 0 && cols > 0 && cols <= COLUMNS_MOST) {
        const size_t done = cols <= 8    ? columns_rows_8(rows, cols, X, ldx, &p, Y, ldy)
                            : cols <= 12 ? columns_rows_12(rows, cols, X, ldx, &p, Y, ldy)
                            : cols <= 16 ? columns_rows_16(rows, cols, X, ldx, &p, Y, ldy)
                            : cols <= 24 ? columns_rows_24(rows, cols, X, ldx, &p, Y, ldy)
                                         : columns_rows_32(rows, cols, X, ldx, &p, Y, ldy);
        /* What is left of the rows, or a group with an odd one. */
        const size_t most = COLUMNS_GROUPS * VF_W, left = rows - done;
        const size_t odd = left < most ? left : most;
        p.residual = p.residual != NULL ? p.residual + done * p.ldr : NULL;
        p.sum = p.sum != NULL ? p.sum + done * p.lds : NULL;
        norm_rows(odd, cols, X + done * ldx, ldx, &p, Y + done * ldy, ldy);
        p.residual = p.residual != NULL ? p.residual + odd * p.ldr : NULL;
        p.sum = p.sum != NULL ? p.sum + odd * p.lds : NULL;
        X += (done + odd) * ldx;
        Y += (done + odd) * ldy;
        rows -= done + odd;
    }
#endif
    if (rows > 0 && cols > 0) {
        norm_rows(rows, cols, X, ldx, &p, Y, ldy);
    }
}
