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

/* What a micro-kernel does with its tile of finished chunk sums, see docs/numerics.md rule 1. */
typedef struct t2k_gemm_out {
    float alpha;
    float beta;            /* used when first and nonzero */
    int first;             /* first chunk of k: v = alpha*c (beta = 0) or fma(alpha, c, beta*C) */
    int last;              /* last chunk: the epilogue follows */
    const float *bias;     /* (nr) of this tile or NULL */
    const float *scale;    /* (nr) or NULL */
    const float *residual; /* (mr, nr), row stride ldr, or NULL */
    size_t ldr;
    int relu;
} t2k_gemm_out;

/* C (mr, nr), row stride ldc, from one chunk of kc <= T2K_CHUNK_K:
 *   A packed: element (i, p) at A[p * a_k + i * a_m]; B packed: element (p, j) at B[p * NR + j].
 * 1 <= mr <= MR rows and 1 <= nr <= NR columns are computed and written. */
typedef void t2k_gemm_ukr_fn(size_t mr, size_t nr, size_t kc, const float *A, size_t a_m,
                             size_t a_k, const float *B, float *C, size_t ldc,
                             const t2k_gemm_out *out);

/* Packs op(B)(0..kc-1, 0..nr-1) into one panel [kc][NR]; columns nr..NR-1 become +0. Element
 * (p, j) is at B[p * b_k + j * b_n], one of the strides being 1. scale (kc) or NULL multiplies
 * row p (rounded once). */
typedef void t2k_gemm_pack_b_fn(size_t kc, size_t nr, const float *B, size_t b_k, size_t b_n,
                                const float *scale, float *panel);

/* Packs op(A)(0..mr-1, 0..kc-1) into one panel [kc][MR]; rows mr..MR-1 become +0. Element (i, p)
 * is at A[i * a_m + p * a_k], one of the strides being 1. scale (kc) or NULL multiplies column p.
 */
typedef void t2k_gemm_pack_a_fn(size_t mr, size_t kc, const float *A, size_t a_m, size_t a_k,
                                const float *scale, float *panel);

typedef const struct t2k_gemm_group {
    size_t mr, nr; /* tile of the micro-kernel */
    size_t mc, nc; /* rows and columns per cache block: multiples of mr and nr */
    t2k_gemm_ukr_fn *ukr;
    t2k_gemm_pack_a_fn *pack_a;
    t2k_gemm_pack_b_fn *pack_b;
} t2k_gemm_group;

/* ---- rows and elements ---------------------------------------------------------------------- */

typedef void t2k_softmax_fn(size_t rows, size_t cols, const float *X, size_t ldx, float *Y,
                            size_t ldy);

typedef struct t2k_norm_params {
    const float *scale;    /* (cols) or NULL */
    const float *residual; /* (rows, cols) or NULL */
    size_t ldr;
    const float *weight; /* (cols) or NULL */
    const float *bias;   /* (cols) or NULL */
    float eps;
} t2k_norm_params;
typedef void t2k_layer_norm_fn(size_t rows, size_t cols, const float *X, size_t ldx,
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

/* ---- attention ------------------------------------------------------------------------------ */

/* Queries first_query .. first_query + queries - 1 of one (item, head) of args; queries <=
 * T2K_ATTENTION_QUERIES. workspace: T2K_ATTENTION_FLOATS floats plus what head_dim needs (see
 * t2k_attention_workspace), aligned to T2K_ALIGN. */
typedef void t2k_attention_fn(const t2k_attention_args *args, size_t item, size_t head,
                              size_t first_query, size_t queries, float *workspace);

typedef double t2k_probe_fma_fn(int64_t iterations);

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
