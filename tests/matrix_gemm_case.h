/* One product of the kernel matrix, shared by the gemm and svd suites. */
#ifndef T2_MATRIX_GEMM_CASE_H
#define T2_MATRIX_GEMM_CASE_H

#include "matrix.h"

enum {
    CASE_BIAS = 1,
    CASE_SCALE = 2,
    CASE_RELU = 4,
    CASE_RESIDUAL = 8,
    CASE_ALIAS = 16, /* the residual is C itself */
    CASE_ALL = 15,
    CASE_NAN_AB = 32,   /* A and B hold NaN only: nothing of them may be read into C */
    CASE_NAN_C = 64,    /* C holds NaN before */
    CASE_SPECIAL = 128, /* some elements of A and B are NaN, infinite, denormal, huge, -0 */
    CASE_GELU = 256,    /* these in place of relu */
    CASE_GELU_TANH = 512,
    CASE_SILU = 1024,
    CASE_SCALE_ROWS = 2048, /* the scale is a matrix of three rows */
    CASE_EPILOGUE = CASE_ALL | CASE_ALIAS | CASE_GELU | CASE_GELU_TANH | CASE_SILU | CASE_SCALE_ROWS
};

struct gemm_case {
    t2k_transpose trans_a, trans_b;
    size_t m, n, k;
    float alpha, beta;
    size_t pad; /* lda, ldb, ldc, ldr are this much (and a little more) wider than needed */
    int flags;
    int threads; /* besides one thread; 0: do not try */
    int full_only;
};

/* Operands of a case: sealed inputs that end at an unmapped page. */
struct gemm_operands {
    struct guarded a, b, c, bias, scale, scale_rows, residual;
    const float *A, *B;
    float *before; /* C before the call (c_count) */
    size_t lda, ldb, ldc, ldr, c_count;
    t2k_epilogue epilogue;
};
void gemm_operands_new(struct matrix *m, const struct gemm_case *c, struct gemm_operands *o);
void gemm_operands_free(struct gemm_operands *o);
/* The epilogue for a C at this address (the residual may be C), or NULL. */
const t2k_epilogue *gemm_epilogue(const struct gemm_case *c, struct gemm_operands *o, float *C);

/* Computes the case by t2k_sgemm and t2k_sgemm_packed, on one thread and on case->threads; each
 * result must have the bits of rule 1, and where the scalar ISA runs lie within the error bound of
 * t2k.h. Nothing outside C's rows may change. */
void gemm_case_run(struct matrix *m, const struct gemm_case *c);

#endif
