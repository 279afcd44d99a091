/* A matrix times one vector where both are contiguous along k: one column of C from rows of A, or
 * one row of C from rows of the weights. Every element is a chain over k, so the lanes are rows:
 * blocks of G_LINES rows by four steps of k are transposed on their way into registers, some
 * groups of rows at once, since one chain alone waits for its latency.
 * The including gemm_<isa>.c defines, besides what gemm_ukr.h asks for,
 *   g_lines, G_LINES           vector of G_LINES lanes (where halves are faster, not VF_W)
 *   g_lines_zero(), g_lines_load(p), g_lines_store(p, v)
 *   g_lines_fma_at(acc, a, p)  acc + a * *p
 *   g_lines_four(a, stride, r) r[q] = element q of G_LINES rows at a, four elements of each */
#ifndef T2K_TMPL_GEMM_LINES_H
#define T2K_TMPL_GEMM_LINES_H

#define GEMM_GROUPS 4          /* groups of rows at once */
#define GEMM_LINE ((size_t)16) /* steps of k for one group: a line of cache is read at once */
#define GEMM_SAME_SETS 512     /* strides of k * 2 KB: eight rows fill their sets of L1 */
#define GEMM_GROUP_ROWS ((size_t)GEMM_GROUPS * G_LINES)

/* Four steps of k of one group. */
GEMM_INLINE g_lines gemm_four_steps(g_lines acc, const float *a, size_t a_m, const float *x)
{
    g_lines r[4];
    g_lines_four(a, a_m, r);
    T2K_UNROLL
    for (size_t q = 0; q < 4; q++) {
        acc = g_lines_fma_at(acc, r[q], x + q);
    }
    return acc;
}

/* t[g] = sums of the G_LINES rows from A[g] on. groups and step are constants: `step` groups take
 * turns, two being faster where their lines of cache do not fall on the same sets. */
GEMM_INLINE void gemm_groups(const int groups, const int step, size_t kc, const float *const *A,
                             size_t a_m, const float *x, float *const *t)
{
    g_lines acc[GEMM_GROUPS];
    const float *a[GEMM_GROUPS];
    T2K_UNROLL
    for (int g = 0; g < groups; g++) {
        acc[g] = g_lines_zero();
        a[g] = A[g];
    }
    size_t p = 0;
    for (; p + GEMM_LINE <= kc; p += GEMM_LINE) {
        T2K_UNROLL
        for (int g = 0; g < groups; g += step) {
            const int next = step == 2 && g + 1 < groups ? g + 1 : g;
            T2K_UNROLL
            for (size_t q = 0; q < GEMM_LINE; q += 4) {
                acc[g] = gemm_four_steps(acc[g], a[g] + q, a_m, x + q);
                if (next > g) {
                    acc[next] = gemm_four_steps(acc[next], a[next] + q, a_m, x + q);
                }
            }
        }
        T2K_UNROLL
        for (int g = 0; g < groups; g++) {
            a[g] += GEMM_LINE;
        }
        x += GEMM_LINE;
    }
    for (; p + 4 <= kc; p += 4) {
        T2K_UNROLL
        for (int g = 0; g < groups; g++) {
            acc[g] = gemm_four_steps(acc[g], a[g], a_m, x);
            a[g] += 4;
        }
        x += 4;
    }
    for (; p < kc; p++, x++) {
        T2K_UNROLL
        for (int g = 0; g < groups; g++) {
            float line[G_LINES];
            T2K_UNROLL
            for (size_t i = 0; i < G_LINES; i++) {
                line[i] = a[g][i * a_m];
            }
            a[g]++;
            acc[g] = g_lines_fma_at(acc[g], g_lines_load(line), x);
        }
    }
    T2K_UNROLL
    for (int g = 0; g < groups; g++) {
        g_lines_store(t[g], acc[g]);
    }
}

#define GEMM_GROUPS_OF(n, step)                                                        \
    static void gemm_groups_##n##_##step(size_t kc, const float *const *A, size_t a_m, \
                                         const float *x, float *const *t)              \
    {                                                                                  \
        gemm_groups(n, step, kc, A, a_m, x, t);                                        \
    }
GEMM_GROUPS_OF(1, 1)
GEMM_GROUPS_OF(2, 1)
GEMM_GROUPS_OF(3, 1)
GEMM_GROUPS_OF(4, 1)
GEMM_GROUPS_OF(2, 2)
GEMM_GROUPS_OF(3, 2)
GEMM_GROUPS_OF(4, 2)

typedef void gemm_groups_fn(size_t kc, const float *const *A, size_t a_m, const float *x,
                            float *const *t);
static gemm_groups_fn *const gemm_groups_by[2][GEMM_GROUPS] = {
    {gemm_groups_1_1, gemm_groups_2_1, gemm_groups_3_1, gemm_groups_4_1},
    {gemm_groups_1_1, gemm_groups_2_2, gemm_groups_3_2, gemm_groups_4_2},
};

/* The sums of rows i .. i + here - 1 of m >= G_LINES; returns where they begin in t. Rows that the
 * last group has in excess are rows before them. */
static const float *gemm_lines_block(size_t m, size_t i, size_t here, size_t kc, const float *A,
                                     size_t a_m, const float *x, float *t)
{
    const size_t last = m - G_LINES, from = i < last ? i : last;
    const size_t groups = (i + here - from + G_LINES - 1) / G_LINES;
    const float *rows[GEMM_GROUPS];
    float *to[GEMM_GROUPS];
    for (size_t g = 0; g < groups; g++) {
        const size_t at = from + g * G_LINES < last ? from + g * G_LINES : last;
        rows[g] = A + at * a_m;
        to[g] = t + (at - from);
    }
    gemm_groups_by[a_m % GEMM_SAME_SETS != 0][groups - 1](kc, rows, a_m, x, to);
    return t + (i - from);
}

/* Elements of a column of C leave as if they were a row: what differs is gathered first. */
static void gemm_leave_column(const float *t, size_t rows, float *C, size_t ldc,
                              const t2k_gemm_out *out)
{
    float c[GEMM_GROUP_ROWS], bias[GEMM_GROUP_ROWS], scale[GEMM_GROUP_ROWS];
    float residual[GEMM_GROUP_ROWS];
    t2k_gemm_out row = *out;
    row.scale_rows = NULL;
    for (size_t i = 0; i < rows; i++) {
        c[i] = C[i * ldc];
        if (out->bias != NULL) {
            bias[i] = out->bias[0];
            row.bias = bias;
        }
        if (out->scale != NULL) {
            const size_t at = out->scale_rows != NULL ? (size_t)out->scale_rows[i] * out->lds : 0;
            scale[i] = out->scale[at];
            row.scale = scale;
        }
        if (out->residual != NULL) {
            residual[i] = out->residual[i * out->ldr];
            row.residual = residual;
        }
    }
    gemm_finish(t, 0, 1, rows, c, 0, &row);
    for (size_t i = 0; i < rows; i++) {
        C[i * ldc] = c[i];
    }
}

void T2K_FN(gemm_lines)(size_t m, size_t kc, const float *A, size_t a_m, const float *x, size_t x_k,
                        float *C, size_t ldc, int column, const t2k_gemm_out *out)
{
    float t[GEMM_GROUP_ROWS + VF_W] __attribute__((aligned(64))), line[T2K_CHUNK_K];
    for (size_t p = 0; p < kc && x_k != 1; p++) {
        line[p] = x[p * x_k];
    }
    x = x_k == 1 ? x : line;
    const size_t groups = (m + G_LINES - 1) / G_LINES;
    size_t blocks = (groups + GEMM_GROUPS - 1) / GEMM_GROUPS;
    size_t here;
    for (size_t i = 0, g = groups; i < m; i += here, blocks--) {
        const size_t share = (g + blocks - 1) / blocks;
        g -= share;
        here = share * G_LINES < m - i ? share * G_LINES : m - i;
        const float *sums = gemm_lines_block(m, i, here, kc, A, a_m, x, t);
        if (!column) {
            const t2k_gemm_out part = t2k_gemm_out_at(out, 0, i);
            gemm_finish(sums, 0, 1, here, C + i, 0, &part);
        } else if (out->mode == T2K_GEMM_STORE && ldc == 1) {
            memcpy(C + i, sums, here * sizeof *C);
        } else {
            const t2k_gemm_out part = t2k_gemm_out_at(out, i, 0);
            gemm_leave_column(sums, here, C + i * ldc, ldc, &part);
        }
    }
}

#endif
