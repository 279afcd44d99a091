/* The dispatch table: one struct of kernel pointers per ISA, overlaid in rank order.
 *
 * A kernel cannot fail: its preconditions are checked by the public functions in ops/. Kernels
 * allocate nothing, lock nothing, start no threads and touch nothing outside their operands.
 * Sizes are size_t, strides count elements. */
#ifndef T2K_TABLE_H
#define T2K_TABLE_H

#include "core/constants.h"
#include "t2k.h"

/* ---- product: the group of one numerics class ----------------------------------------------- */

/* What happens to finished chunk sums c, see docs/numerics.md rule 1. */
typedef enum t2k_gemm_mode {
    T2K_GEMM_GENERAL, /* by the fields below, in registers: activation none or relu, one scale */
    T2K_GEMM_MEMORY,  /* by the fields below, whatever they are, by way of `space` */
    T2K_GEMM_STORE,   /* C = c: first chunk, alpha = 1, beta = 0, no epilogue to follow */
    T2K_GEMM_ADD      /* C = c + C: a later chunk, alpha = 1, no epilogue to follow */
} t2k_gemm_mode;

typedef struct t2k_gemm_out {
    t2k_gemm_mode mode; /* STORE and ADD are shortcuts with the bits of the general way */
    float alpha;
    float beta; /* used when first and nonzero */
    int first;  /* first chunk of k: v = alpha*c (beta = 0) or fma(alpha, c, beta*C) */
    t2k_activation activation; /* this and the rest: empty but for the last chunk of k */
    const float *bias;         /* (n) from this block's first column on, or NULL */
    const float *scale;        /* (n) or NULL; with scale_rows a matrix of such rows, lds apart */
    const int64_t *scale_rows; /* (m) or NULL: which of them multiplies row i */
    size_t lds;
    const float *residual; /* (m, n), row stride ldr, or NULL */
    size_t ldr;
    float *space; /* for a tile's sums, inside a group */
} t2k_gemm_out;

/* *out for the part of its block that starts at row i, column j. */
static inline t2k_gemm_out t2k_gemm_out_at(const t2k_gemm_out *out, size_t i, size_t j)
{
    t2k_gemm_out part = *out;
    part.bias = out->bias != NULL ? out->bias + j : NULL;
    part.scale = out->scale != NULL ? out->scale + j : NULL;
    part.scale_rows = out->scale_rows != NULL ? out->scale_rows + i : NULL;
    part.residual = out->residual != NULL ? out->residual + i * out->ldr + j : NULL;
    return part;
}

/* Packed operands, one chunk of kc <= T2K_CHUNK_K at a time:
 *   A along k (a_k = 1): rows, T2K_ROW_STRIDE(kc) floats apart.
 *   A across: ceil(m / mr) panels of mr * kc floats, element (row r of the panel, p) at
 *      [p * mr + r]; which rows a panel holds is the group's own affair (the last two share what
 *      is left).
 *   B: panel t holds columns t * nr .. t * nr + nr - 1, element (p, column c) at [p * nr + c];
 *      panels lie b_panel floats apart; columns beyond n may hold anything. */

/* A row of 1 KB and a line, so that rows fall on different sets of the caches. */
#define T2K_ROW_STRIDE(kc) (((size_t)(kc) + 15) / 16 * 16 + 16)

/* Packs op(A)(0..m-1, 0..kc-1), element (i, p) at A[i * a_m + p * a_k], one stride being 1.
 * s (kc) or NULL, only with a_k = 1, multiplies column p, rounded once. Writes up to 16 floats
 * behind the panels. */
typedef void t2k_gemm_pack_a_fn(size_t m, size_t kc, const float *A, size_t a_m, size_t a_k,
                                const float *s, float *panels);

/* Packs op(B)(0..kc-1, 0..n-1), element (p, j) at B[p * b_k + j * b_n], one stride being 1.
 * s (kc) or NULL, only with b_k = 1, multiplies row p, rounded once. Columns of the last panel
 * that are not there may be left as they were. */
typedef void t2k_gemm_pack_b_fn(size_t n, size_t kc, const float *B, size_t b_k, size_t b_n,
                                const float *s, float *panels, size_t b_panel);

/* C (m, n) from A and packed B. A is packed in panels (a_m = 0) or in rows, element (i, p) at
 * A[i * a_m + p * a_k]. */
typedef void t2k_gemm_block_fn(size_t m, size_t n, size_t kc, const float *A, size_t a_m,
                               size_t a_k, const float *B, size_t b_panel, float *C, size_t ldc,
                               const t2k_gemm_out *out);

/* C (m, nr) from A as before and one panel's columns of B in place, rows b_k apart, whose panel is
 * packed on the way; asks for `next`, kc such rows elsewhere (or NULL). */
typedef void t2k_gemm_fuse_fn(size_t m, size_t kc, const float *A, size_t a_m, size_t a_k,
                              const float *B, size_t b_k, const float *next, float *panel, float *C,
                              size_t ldc, const t2k_gemm_out *out);

/* C (m, n) from A in place, element (i, p) at A[i * a_m + p * a_k], and B either packed
 * (padded = 1, b_k = nr) or in place (padded = 0, row-major with row stride b_k, b_panel = nr, n a
 * multiple of the group's direct_step). Made for few rows and for small products. */
typedef void t2k_gemm_strip_fn(size_t m, size_t n, size_t kc, const float *A, size_t a_m,
                               size_t a_k, const float *B, size_t b_k, size_t b_panel, int padded,
                               float *C, size_t ldc, const t2k_gemm_out *out);

/* C (m, n) = beta * C (+0 where beta = 0), then the epilogue: a product of nothing. */
typedef void t2k_gemm_scale_fn(size_t m, size_t n, float *C, size_t ldc, const t2k_gemm_out *out);

/* Rows of A times cols <= T2K_GEMM_LINES vectors: columns (column = 1, C[i * ldc + c]) or rows
 * (C[c * ldc + i]) of C from the sums of A[i * a_m + p] * x[p * x_k + c * x_c]; m at least the
 * group's line_rows, cols * k at most T2K_GEMM_LINES_K unless x_k = 1; outs: one per chunk of k. */
#define T2K_GEMM_LINES 4
#define T2K_GEMM_LINES_K (4 * T2K_CHUNK_K)
typedef void t2k_gemm_lines_fn(size_t m, size_t cols, size_t k, const float *A, size_t a_m,
                               const float *x, size_t x_k, size_t x_c, float *C, size_t ldc,
                               int column, const t2k_gemm_out *outs);

typedef const struct t2k_gemm_group {
    size_t mr, nr;                 /* tile of the micro-kernel */
    size_t mc;                     /* rows per packed block of A (stays in L2): a multiple of mr */
    size_t few;                    /* up to this many rows A is read in place */
    unsigned char strip_panels[8]; /* panels that `strip` walks at once, by rows; 0: one */
    size_t direct_step;            /* n has to be a multiple of this for B in place */
    t2k_gemm_pack_a_fn *pack_a;
    t2k_gemm_pack_b_fn *pack_b;
    t2k_gemm_block_fn *block;
    t2k_gemm_fuse_fn *fuse; /* NULL where `packs` */
    t2k_gemm_strip_fn *strip;
    t2k_gemm_scale_fn *scale;
    t2k_gemm_lines_fn *lines;
    size_t line_rows; /* 0: the group has no `lines` */
    int packs;        /* operands may only be read by pack_a and pack_b, which change them */
} t2k_gemm_group;

/* ---- product: classes fast and bf16 --------------------------------------------------------- */

/* Writes C (m, n) from chunk sums t, row stride ldt, as `out` says; reads whole vectors of t, so up
 * to 15 floats behind its last row. */
typedef void t2k_gemm_finish_fn(const float *t, size_t ldt, size_t m, size_t n, float *C,
                                size_t ldc, const t2k_gemm_out *out);

/* t (m, n) = A B^T, both contiguous along k: A (m, k), B (n, k), row strides a_m, b_n, ldt. */
typedef void t2k_gemm_dots_fn(size_t m, size_t n, size_t k, const float *A, size_t a_m,
                              const float *B, size_t b_n, float *t, size_t ldt);

/* A matrix unit. Operands are packed by panels of up to T2K_TILE_LINES rows of op(A) or columns of
 * op(B) and kc steps of k, T2K_TILE_PANEL(parts, kc) bytes each, aligned to T2K_ALIGN. */
#define T2K_TILE_LINES ((size_t)32)
#define T2K_TILE_STEP ((size_t)32) /* of k in one tile */
#define T2K_TILE_PANEL(parts, kc)                                                     \
    (T2K_ALIGN + ((size_t)(kc) + T2K_TILE_STEP - 1) / T2K_TILE_STEP * T2K_TILE_STEP * \
                     T2K_TILE_LINES * sizeof(uint16_t) * (size_t)(parts))

typedef void t2k_tiles_state_fn(void);

/* One panel: line l's element p at X[l * line + p * step], one stride being 1. */
typedef void t2k_tiles_pack_fn(size_t lines, size_t kc, const float *X, size_t line, size_t step,
                               unsigned char *panel);

/* Chunk sums of m lines of A's panel by n of B's, m, n <= T2K_TILE_LINES, to t; 16 x 16 blocks are
 * written whole. space: 2 * T2K_TILE_LINES * kc floats, aligned. */
typedef void t2k_tiles_product_fn(size_t m, size_t n, size_t kc, const unsigned char *A,
                                  const unsigned char *B, float *t, size_t ldt, float *space);

typedef const struct t2k_gemm_tiles {
    const char *note; /* what serves the class, see t2k_numerics_note() */
    size_t parts;     /* bf16 numbers per operand; 0: no matrix unit, and nothing else is set */
    size_t chunk_k;   /* k per chunk */
    size_t few_rows;  /* up to this many rows of unpacked operands vectors are faster */
    t2k_tiles_state_fn *open, *close; /* around products, on each thread */
    t2k_tiles_pack_fn *pack_a, *pack_b;
    t2k_tiles_product_fn *product;
} t2k_gemm_tiles;

/* ---- rows and elements ---------------------------------------------------------------------- */

typedef void t2k_softmax_fn(size_t rows, size_t cols, const float *X, size_t ldx, float *Y,
                            size_t ldy);

typedef struct t2k_norm_params {
    const float *scale;    /* (cols) or NULL */
    const float *residual; /* (rows, cols) or NULL */
    size_t ldr;
    const float *weight; /* (cols) or NULL */
    const float *bias;   /* (cols) or NULL; RMS norm has none */
    float eps;
    float *sum; /* (rows, cols) or NULL: z is stored there too; may be X or residual */
    size_t lds;
    int stream; /* the operands are in memory: Y, where it is another, goes around the caches */
} t2k_norm_params;
typedef void t2k_layer_norm_fn(size_t rows, size_t cols, const float *X, size_t ldx,
                               const t2k_norm_params *params, float *Y, size_t ldy);
typedef void t2k_rms_norm_fn(size_t rows, size_t cols, const float *X, size_t ldx,
                             const t2k_norm_params *params, float *Y, size_t ldy);

/* sums[i] = sum of row i in double, 64 lanes and the fixed tree. */
typedef void t2k_row_sums_fn(size_t rows, size_t cols, const float *X, size_t ldx, double *sums);

typedef void t2k_gather_rows_fn(size_t rows, size_t cols, const float *table, size_t ldt,
                                const int64_t *ids, float *Y, size_t ldy);
typedef void t2k_scale_columns_fn(size_t rows, size_t cols, const float *X, size_t ldx,
                                  const float *scale, float *Y, size_t ldy);
typedef void t2k_unary_fn(size_t n, const float *X, float *Y);
typedef void t2k_binary_fn(size_t n, const float *X, const float *Z, float *Y);

/* Element first + i is kept when its 32 random bits are >= threshold. */
typedef void t2k_dropout_fn(size_t n, const float *X, uint32_t threshold, float multiplier,
                            t2k_dropout_key key, uint64_t first, float *Y);

/* dX = dY f'(X), f the activation (none: 1); dX may be X or dY. */
typedef void t2k_activation_backward_fn(t2k_activation activation, size_t n, const float *X,
                                        const float *dY, float *dX);

/* dX = (Y * (dY - sum of Y dY)) * scale by rows; dX may be Y or dY. */
typedef void t2k_softmax_backward_fn(size_t rows, size_t cols, const float *Y, size_t ldy,
                                     const float *dY, size_t lddy, float scale, float *dX,
                                     size_t lddx);

/* sums[j] (+)= sum over rows of A[i,j] * B[i,j], of A[i,j] where B is NULL (rule 8). */
typedef void t2k_column_dots_fn(size_t rows, size_t cols, const float *A, size_t lda,
                                const float *B, size_t ldb, int accumulate, float *sums);

/* Rows first .. last - 1 of args, which is of full size and has at least one column. */
typedef void t2k_policy_fn(const t2k_policy_args *args, size_t first, size_t last);

/* dX = dY - exp(Y) * sum of dY by rows; dX may be Y or dY. */
typedef void t2k_log_softmax_backward_fn(size_t rows, size_t cols, const float *Y, size_t ldy,
                                         const float *dY, size_t lddy, float *dX, size_t lddx);

/* stats: three numbers a row, mean, shift and inverse; of params scale, residual and eps. */
typedef void t2k_norm_stats_fn(size_t rows, size_t cols, const float *X, size_t ldx,
                               const t2k_norm_params *params, float *stats);
/* From them, and params->weight; dX may be X, dY or the residual. centered: layer norm. */
typedef void t2k_norm_backward_fn(size_t rows, size_t cols, const float *X, size_t ldx,
                                  const t2k_norm_params *params, const float *stats, int centered,
                                  const float *dY, size_t lddy, float *dX, size_t lddx);
/* dweight (cols) (+)= sum over rows of dY t (rule 8). */
typedef void t2k_norm_columns_fn(size_t rows, size_t cols, const float *X, size_t ldx,
                                 const t2k_norm_params *params, const float *stats, const float *dY,
                                 size_t lddy, int accumulate, float *dweight);

typedef struct t2k_adam_factors {
    float rest1, beta2, rest2; /* 1 - beta1, beta2, 1 - beta2 */
    float root2, eps, step;    /* sqrt(correction2), eps, lr / correction1 */
    float decay, shrink;       /* g + decay p; p * shrink */
} t2k_adam_factors;
typedef void t2k_adam_fn(size_t n, const t2k_adam_factors *factors, const float *G, float *M,
                         float *V, float *P);

typedef struct t2k_sgd_factors {
    float lr, momentum, rest, decay; /* rest: 1 - dampening */
    int nesterov, first;
} t2k_sgd_factors;
/* B: NULL without momentum. */
typedef void t2k_sgd_fn(size_t n, const t2k_sgd_factors *factors, const float *G, float *B,
                        float *P);

typedef void t2k_scale_fn(size_t n, const float *X, float factor, float *Y);

/* ---- attention ------------------------------------------------------------------------------ */

/* Floats of an attention tile's workspace: Q packed, the running O and V of a block, then the
 * scores and eight rows of per-query numbers. */
#define T2K_ATTENTION_FLOATS(head_dim) \
    ((3 * (((size_t)(head_dim) + 15) / 16 * 16) + T2K_ATTENTION_KEYS + 8) * T2K_ATTENTION_QUERIES)

/* Queries first_query .. first_query + queries - 1 of `heads` heads of one item of args, from
 * `head` on; args is of full size and its kv_heads not 0. 1 <= queries <= T2K_ATTENTION_QUERIES;
 * where queries = 1 the heads, at most T2K_ATTENTION_FEW, share one head of k and v or, kv_heads
 * being heads, none. workspace: T2K_ATTENTION_FLOATS(head_dim), aligned to T2K_ALIGN. */
typedef void t2k_attention_fn(const t2k_attention_args *args, size_t item, size_t head,
                              size_t heads, size_t first_query, size_t queries, float *workspace);

/* What the kernel of the gradients is given: the forward call with dq for its output, the same with
 * (dout, v) for (q, k), scale 1 and no mask, and where dk and dv go. */
typedef struct t2k_attention_gradients {
    t2k_attention_args scores, values;
    float *dk, *dv;
    int64_t dk_row, dk_item, dv_row, dv_item;
} t2k_attention_gradients;

/* Floats of workspace: for a tile of queries their rows and columns, those of dout, a block of K
 * and dq; the weights of T2K_ATTENTION_KEPT blocks of keys and one more; rows of per-query numbers.
 * Gaps of 16 floats are between them. */
#define T2K_ATTENTION_BACKWARD_FLOATS(head_dim)                                                \
    ((6 * (((size_t)(head_dim) + 15) / 16 * 16) + 9) * T2K_ATTENTION_QUERIES +                 \
     (T2K_ATTENTION_KEPT + 1) * (2 * T2K_ATTENTION_KEYS + 1) * (size_t)T2K_ATTENTION_QUERIES + \
     16 * (16 + 3 * (T2K_ATTENTION_KEPT + 1)))

/* All queries of the heads that share head kv_head of keys and values, in one item. workspace:
 * T2K_ATTENTION_BACKWARD_FLOATS(head_dim), aligned to T2K_ALIGN. */
typedef void t2k_attention_backward_fn(const t2k_attention_gradients *args, size_t item,
                                       size_t kv_head, float *workspace);

/* ---- probes: what a core can do, for the benchmark (tmpl/probe.h) ---------------------------- */

/* Independent multiply-adds in registers; returns how many floating-point operations. */
typedef double t2k_probe_fma_fn(int64_t iterations);
typedef float t2k_probe_read_fn(size_t n, const float *X);

/* ---- the table ------------------------------------------------------------------------------ */

typedef struct t2k_table {
#define T2K_SLOT(name, type) type *name;
#include "core/slots.def"
#undef T2K_SLOT
} t2k_table;

/* The table in use; NULL when T2K_ISA is invalid (then t2k_init() tells). Published once. */
const t2k_table *t2k_table_get(void);

/* For tests and benchmarks, while no other thread computes: from now on the table is the one that
 * T2K_ISA = the name of isa `index` would give; T2K_ERR_ISA when that ISA is not usable here. */
t2k_status t2k_use_isa(int index);

/* The table as isa `index` exports it, empty slots NULL; NULL where it is not compiled. */
const t2k_table *t2k_table_own(int index);

#endif
