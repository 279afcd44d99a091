/* The matrix product's driver, shared by gemm.c, gemm_packed.c and svd.c. */
#ifndef T2K_GEMM_H
#define T2K_GEMM_H

#include "ops/team.h"

/* The ways of a product, see gemm_drive.c. */
typedef enum t2k_gemm_route {
    T2K_ROUTE_CHOOSE,
    T2K_ROUTE_SCALE,
    T2K_ROUTE_LINES,
    T2K_ROUTE_DIRECT,
    T2K_ROUTE_STRIPS,
    T2K_ROUTE_BLOCKS, /* this and the rest: in blocks, see gemm_blocks.c */
    T2K_ROUTE_FUSED,
    T2K_ROUTE_ROWS,
    T2K_ROUTE_ROWS_FUSED
} t2k_gemm_route;

/* A checked product (or `batch` of them): what every thread of a team needs to do its part. */
typedef struct t2k_gemm_job {
    t2k_gemm_group *group;
    size_t m, n, k;
    const float *A; /* op(A) (m, k): element (i, p) at A[i * a_m + p * a_k] */
    size_t a_m, a_k;
    const float *B; /* op(B) (k, n): element (p, j) at B[p * b_k + j * b_n]; NULL when packed */
    size_t b_k, b_n;
    const float *panels; /* op(B) packed once: panels [k][nr], b_panel apart; or NULL */
    size_t b_panel;
    const float *s_a, *s_b; /* (k) factors for op(A)'s columns, op(B)'s rows, or NULL */
    float alpha, beta;
    float *C; /* (m, n) */
    size_t ldc;
    size_t c_panel; /* C in panels [n / nr][m][nr] that lie so far apart, ldc = nr; 0: by rows */
    const float *bias, *scale; /* (n) or NULL */
    const int64_t *scale_rows; /* (m) or NULL: scale is a matrix, see t2k_gemm_out */
    size_t lds;
    const float *residual; /* (m, n) or NULL */
    size_t ldr;
    t2k_activation activation;
    size_t batch, stride_a, stride_b, stride_c, stride_residual;
    /* For tests; 0: by the driver's rule. A way that cannot be gone gives way to the rule. */
    t2k_gemm_route route;
    size_t mc, nc; /* rows of a packed block of A, columns of B kept */
    /* Class fast or bf16, see gemm_class.c; a batch of one. */
    t2k_gemm_tiles *tiles;            /* by a matrix unit, or NULL */
    const unsigned char *tile_panels; /* op(B) packed once for it, or NULL */
    t2k_gemm_dots_fn *dots;           /* by dot products, or NULL */
} t2k_gemm_job;

/* Nonzero when rows x cols with row stride ld is no matrix: ld too small, too large for memory, or
 * NULL though not empty. rows, cols >= 0. */
int t2k_gemm_bad_matrix(const float *X, int64_t rows, int64_t cols, int64_t ld);

/* Checks what all products share and fills those fields; A and B follow with the two below. */
t2k_status t2k_gemm_check(int64_t m, int64_t n, int64_t k, float alpha, float beta, float *C,
                          int64_t ldc, const t2k_epilogue *epilogue, t2k_gemm_job *job);
t2k_status t2k_gemm_check_a(t2k_transpose trans, const float *A, int64_t lda, t2k_gemm_job *job);
t2k_status t2k_gemm_check_b(t2k_transpose trans, const float *B, int64_t ldb, t2k_gemm_job *job);

/* How the sums of the kc steps of k from p on leave, for the job's whole C. */
t2k_gemm_out t2k_gemm_leave(const t2k_gemm_job *job, size_t p, size_t kc);

/* Element (i, j) of C; j is a multiple of nr. */
static inline float *t2k_gemm_c_at(const t2k_gemm_job *job, size_t i, size_t j)
{
    return job->C + i * job->ldc + (job->c_panel > 0 ? j / job->group->nr * job->c_panel : j);
}

/* Writes the header of a blob (k, n) of class `numerics`, aligned, with room for
 * t2k_packed_b_bytes_class(); returns where its panels begin. */
float *t2k_pack_header(const t2k_table *table, t2k_numerics numerics, int64_t k, int64_t n,
                       void *packed);

/* Collective: the job's whole output is written when it returns. */
void t2k_gemm_team(t2k_team *team, const t2k_gemm_job *job);

/* The job on as many threads as its size is worth. */
t2k_status t2k_gemm_run(t2k_gemm_job *job);

#endif
