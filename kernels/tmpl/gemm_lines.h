/* A matrix times a few vectors where both are contiguous along k: columns of C from rows of A, or
 * rows of C from rows of the weights. Every element is a chain over k, so the lanes are rows:
 * blocks of G_LINES rows by four steps of k are transposed on their way into registers. One chain
 * alone would wait for its latency, so some groups of rows are under way at once, or, where rows
 * lie so that few of them share L1, some chunks of k of one group. The including gemm_<isa>.c
 * defines, besides what gemm_ukr.h asks for,
 *   GEMM_TOGETHER               groups that share the broadcasts of the vector: registers for four
 *                               vectors of each
 *   g_lines_four(a, stride, r)  r[q] = element q of G_LINES rows at a, four elements of each; has a
 *                               default for up to four lanes
 * and, where a g_lines of G_LINES lanes that is no vf is faster, that and the functions below. */
#ifndef T2K_TMPL_GEMM_LINES_H
#define T2K_TMPL_GEMM_LINES_H

#ifndef G_LINES
typedef vf g_lines;
#define G_LINES VF_W

static inline g_lines g_lines_zero(void)
{
    return v_zero();
}

static inline g_lines g_lines_load(const float *p)
{
    return v_load(p);
}

static inline void g_lines_store(float *p, g_lines v)
{
    v_store(p, v);
}

static inline __attribute__((always_inline)) g_lines g_lines_set1(const float *p)
{
    return v_set1(*p);
}

static inline __attribute__((always_inline)) g_lines g_lines_fma(g_lines acc, g_lines a, g_lines b)
{
    return g_fma(acc, b, a); /* b's lanes are equal */
}
#endif

#if VF_W <= 4
static inline __attribute__((always_inline)) void g_lines_four(const float *a, size_t stride,
                                                               g_lines r[4])
{
#if VF_W == 1
    (void)stride; /* one row */
    for (size_t q = 0; q < 4; q++) {
        r[q] = a[q];
    }
#else
    T2K_UNROLL
    for (size_t i = 0; i < 4; i++) {
        r[i] = v_load(a + i * stride);
    }
    g_transpose4(r);
#endif
}
#endif

#define GEMM_GROUPS 4 /* groups of rows, or chunks of k, at once */
#define GEMM_GROUP_ROWS ((size_t)GEMM_GROUPS * G_LINES)
#define GEMM_PIECE ((size_t)64) /* steps of k that are asked for ahead: 8 KB of all groups */
/* Rows 2 KB or a multiple apart fall on two sets of lines of L1 or on one: of eight ways. */
#define GEMM_TWO_SETS 512
#define GEMM_ONE_SET 1024

/* What comes next in memory, asked for in its order, by 256 bytes: these kernels read too many rows
 * at once for a hardware prefetcher. */
GEMM_INLINE uintptr_t gemm_lines_ahead(const int groups, uintptr_t line, size_t step)
{
    T2K_UNROLL
    for (size_t i = 0; i < ((size_t)groups * G_LINES + 8) / 16; i++) {
        T2K_UNROLL
        for (size_t l = 0; l < 4; l++) {
            __builtin_prefetch((const void *)(line + l * GEMM_LINE_FLOATS * sizeof(float)));
        }
        line += step;
    }
    return line;
}

/* Four steps of k of `share` groups times `cols` vectors. */
GEMM_INLINE void gemm_four_steps(const int share, const int cols, g_lines *acc,
                                 const float *const *a, size_t a_m, const float *x, size_t x_c)
{
    g_lines r[GEMM_TOGETHER][4];
    T2K_UNROLL
    for (int s = 0; s < share; s++) {
        g_lines_four(a[s], a_m, r[s]);
    }
    T2K_UNROLL
    for (size_t q = 0; q < 4; q++) {
        T2K_UNROLL
        for (int c = 0; c < cols; c++) {
            const g_lines b = g_lines_set1(x + (size_t)c * x_c + q);
            T2K_UNROLL
            for (int s = 0; s < share; s++) {
                acc[s * cols + c] = g_lines_fma(acc[s * cols + c], r[s][q], b);
            }
        }
    }
}

/* t[c * t_c + i] = sum of row i of A times vector c, for `groups` groups of G_LINES rows, of which
 * the last starts at row `last`; next: what follows this chunk. groups, cols are constants. */
GEMM_INLINE void gemm_groups(const int groups, const int cols, size_t kc, const float *A,
                             size_t a_m, size_t last, const float *x, size_t x_c, uintptr_t next,
                             float *t, size_t t_c)
{
    g_lines acc[GEMM_GROUPS * T2K_GEMM_LINES];
    const float *a[GEMM_GROUPS];
    T2K_UNROLL
    for (int g = 0; g < groups; g++) {
        T2K_UNROLL
        for (int c = 0; c < cols; c++) {
            acc[g * cols + c] = g_lines_zero();
        }
        a[g] = A + (g < groups - 1 ? (size_t)g * G_LINES : last) * a_m;
    }
    /* Short rows follow each other without much between them. */
    const size_t step = (a_m <= GEMM_PIECE ? GEMM_PIECE : a_m) * sizeof(float);
    size_t p = 0;
    for (size_t end; p + 4 <= kc;) {
        end = kc - p > GEMM_PIECE ? p + GEMM_PIECE : kc;
        uintptr_t line = end < kc ? (uintptr_t)(A + end) : next;
        for (; p + 4 <= end; p += 4, x += 4) {
            line = gemm_lines_ahead(groups, line, step);
            T2K_UNROLL
            for (int g = 0; g < groups; g += GEMM_TOGETHER) {
                const int share = groups - g < GEMM_TOGETHER ? groups - g : GEMM_TOGETHER;
                gemm_four_steps(share, cols, acc + g * cols, a + g, a_m, x, x_c);
            }
            T2K_UNROLL
            for (int g = 0; g < groups; g++) {
                a[g] += 4;
            }
        }
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
            const g_lines r = g_lines_load(line);
            T2K_UNROLL
            for (int c = 0; c < cols; c++) {
                acc[g * cols + c] =
                    g_lines_fma(acc[g * cols + c], r, g_lines_set1(x + (size_t)c * x_c));
            }
        }
    }
    T2K_UNROLL
    for (int g = 0; g < groups; g++) {
        T2K_UNROLL
        for (int c = 0; c < cols; c++) {
            float *to = t + (size_t)c * t_c + (g < groups - 1 ? (size_t)g * G_LINES : last);
            g_lines_store(to, acc[g * cols + c]);
        }
    }
}

typedef void gemm_groups_fn(size_t kc, const float *A, size_t a_m, size_t last, const float *x,
                            size_t x_c, uintptr_t next, float *t, size_t t_c);
#define GEMM_GROUPS_OF(n, cols)                                                                \
    static void gemm_groups_##n##_##cols(size_t kc, const float *A, size_t a_m, size_t last,   \
                                         const float *x, size_t x_c, uintptr_t next, float *t, \
                                         size_t t_c)                                           \
    {                                                                                          \
        gemm_groups(n, cols, kc, A, a_m, last, x, x_c, next, t, t_c);                          \
    }
GEMM_GROUPS_OF(1, 1)
GEMM_GROUPS_OF(2, 1)
GEMM_GROUPS_OF(3, 1)
GEMM_GROUPS_OF(4, 1)
GEMM_GROUPS_OF(1, 2)
GEMM_GROUPS_OF(2, 2)
GEMM_GROUPS_OF(1, 3)
GEMM_GROUPS_OF(2, 3)
GEMM_GROUPS_OF(1, 4)
GEMM_GROUPS_OF(2, 4)

/* By vectors and groups. */
static gemm_groups_fn *const gemm_groups_by[T2K_GEMM_LINES][GEMM_GROUPS] = {
    {gemm_groups_1_1, gemm_groups_2_1, gemm_groups_3_1, gemm_groups_4_1},
    {gemm_groups_1_2, gemm_groups_2_2},
    {gemm_groups_1_3, gemm_groups_2_3},
    {gemm_groups_1_4, gemm_groups_2_4},
};

/* t[c * t_c + i] = sum of row i of one group over chunk c, for `chunks` whole chunks: their lines
 * lie in other sets of L1. chunks is a constant. */
GEMM_INLINE void gemm_chunks(const int chunks, const float *A, size_t a_m, const float *x, float *t,
                             size_t t_c)
{
    g_lines acc[GEMM_GROUPS];
    T2K_UNROLL
    for (int c = 0; c < chunks; c++) {
        acc[c] = g_lines_zero();
    }
    for (size_t p = 0; p < T2K_CHUNK_K; p += 4) {
        T2K_UNROLL
        for (int c = 0; c < chunks; c++) {
            const float *a = A + p + (size_t)c * T2K_CHUNK_K;
            gemm_four_steps(1, 1, acc + c, &a, a_m, x + (size_t)c * T2K_CHUNK_K + p, 0);
        }
    }
    T2K_UNROLL
    for (int c = 0; c < chunks; c++) {
        g_lines_store(t + (size_t)c * t_c, acc[c]);
    }
}

/* Elements of a column of C leave as if they were a row: what differs is gathered first. */
static void gemm_leave_column(const float *t, size_t rows, float *C, size_t ldc,
                              const t2k_gemm_out *out)
{
    float c[GEMM_GROUP_ROWS], bias[GEMM_GROUP_ROWS], scale[GEMM_GROUP_ROWS];
    float residual[GEMM_GROUP_ROWS];
    const int reads_c = !out->first || out->beta != 0.0f;
    t2k_gemm_out row = *out;
    row.scale_rows = NULL;
    for (size_t i = 0; i < rows; i++) {
        if (reads_c) {
            c[i] = C[i * ldc];
        }
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

/* Sums of `rows` lines from i on times cols vectors, t_c floats apart, to C. */
static void gemm_leave_lines(const float *t, size_t t_c, size_t i, size_t rows, size_t cols,
                             float *C, size_t ldc, int column, const t2k_gemm_out *out)
{
    if (column && out->mode == T2K_GEMM_STORE) {
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < cols; c++) {
                C[(i + r) * ldc + c] = t[c * t_c + r];
            }
        }
        return;
    }
    const int bare = out->bias == NULL && out->scale == NULL && out->residual == NULL;
    for (size_t c = 0; c < cols; c++) {
        if (!column) {
            const t2k_gemm_out part = t2k_gemm_out_at(out, c, i);
            gemm_finish(t + c * t_c, 0, 1, rows, C + c * ldc + i, 0, &part);
        } else if (ldc == 1 && bare) {
            gemm_finish(t, 0, 1, rows, C + i, 0, out);
        } else {
            const t2k_gemm_out part = t2k_gemm_out_at(out, i, c);
            gemm_leave_column(t + c * t_c, rows, C + i * ldc + c, ldc, &part);
        }
    }
}

/* Chunk by chunk of k, groups of rows at once. */
static void gemm_lines_rows(size_t m, size_t cols, size_t k, const float *A, size_t a_m,
                            const float *x, size_t x_c, float *C, size_t ldc, int column,
                            const t2k_gemm_out *outs)
{
    float t[T2K_GEMM_LINES * GEMM_GROUP_ROWS + VF_W] __attribute__((aligned(64)));
    const int in_row = !column || (ldc == 1 && cols == 1);
    const size_t sets = a_m % GEMM_ONE_SET == 0 ? 1 : a_m % GEMM_TWO_SETS == 0 ? 2 : GEMM_GROUPS;
    const size_t most = cols > 1 && sets > 2 ? 2 : sets;
    const size_t end = m - G_LINES; /* the last group: what it has in excess is rows before it */
    size_t left = (m + G_LINES - 1) / G_LINES, blocks = (left + most - 1) / most;
    for (size_t i = 0, rows; i < m; i += rows, blocks--) {
        const size_t groups = (left + blocks - 1) / blocks; /* evenly: one alone is slow */
        const size_t from = i < end ? i : end, next = from + groups * G_LINES;
        left -= groups;
        const size_t last = next <= m ? (groups - 1) * G_LINES : end - from;
        rows = next < m ? next - i : m - i;
        for (size_t p = 0, kc; p < k; p += kc, outs++) {
            kc = k - p < T2K_CHUNK_K ? k - p : T2K_CHUNK_K;
            const uintptr_t ahead = (uintptr_t)(A + from * a_m + p) +
                                    (p + kc < k ? kc : groups * G_LINES * a_m - p) * sizeof(float);
            /* Not over rows before i, which may be further. */
            const int stored = in_row && outs->mode == T2K_GEMM_STORE && from == i;
            float *to = stored ? C + from : t;
            gemm_groups_by[cols - 1][groups - 1](kc, A + from * a_m + p, a_m, last, x + p, x_c,
                                                 ahead, to, stored ? ldc : GEMM_GROUP_ROWS);
            if (!stored) {
                gemm_leave_lines(t + (i - from), GEMM_GROUP_ROWS, i, rows, cols, C, ldc, column,
                                 outs);
            }
        }
        outs -= (k + T2K_CHUNK_K - 1) / T2K_CHUNK_K;
    }
}

/* Group by group of rows, `chunks` > 1 whole chunks of k at once. */
static void gemm_lines_chunks(size_t m, int chunks, const float *A, size_t a_m, const float *x,
                              float *C, size_t ldc, int column, const t2k_gemm_out *outs)
{
    float t[GEMM_GROUPS * G_LINES + VF_W] __attribute__((aligned(64)));
    for (size_t i = 0; i < m; i += G_LINES) {
        const size_t from = i + G_LINES <= m ? i : m - G_LINES;
        const float *a = A + from * a_m;
        if (chunks == 2) {
            gemm_chunks(2, a, a_m, x, t, G_LINES);
        } else if (chunks == 3) {
            gemm_chunks(3, a, a_m, x, t, G_LINES);
        } else {
            gemm_chunks(GEMM_GROUPS, a, a_m, x, t, G_LINES);
        }
        const size_t rows = from + G_LINES - i;
        for (int c = 0; c < chunks; c++) {
            gemm_leave_lines(t + (size_t)c * G_LINES + (i - from), 0, i, rows, 1, C, ldc, column,
                             outs + c);
        }
    }
}

void T2K_FN(gemm_lines)(size_t m, size_t cols, size_t k, const float *A, size_t a_m, const float *x,
                        size_t x_k, size_t x_c, float *C, size_t ldc, int column,
                        const t2k_gemm_out *outs)
{
    float own[T2K_GEMM_LINES_K];
    if (x_k != 1) {
        for (size_t c = 0; c < cols; c++) {
            for (size_t p = 0; p < k; p++) {
                own[c * k + p] = x[p * x_k + c * x_c];
            }
        }
        x = own;
        x_c = k;
    }
    const size_t chunks = k / T2K_CHUNK_K, whole = chunks * T2K_CHUNK_K;
    if (cols > 1 || chunks < 2 || a_m % GEMM_TWO_SETS != 0) {
        gemm_lines_rows(m, cols, k, A, a_m, x, x_c, C, ldc, column, outs);
        return;
    }
    gemm_lines_chunks(m, (int)chunks, A, a_m, x, C, ldc, column, outs);
    if (whole < k) {
        gemm_lines_rows(m, 1, k - whole, A + whole, a_m, x + whole, x_c, C, ldc, column,
                        outs + chunks);
    }
}

#endif
