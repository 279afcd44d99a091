/* t2k.h - SIMD kernels for Transformer^2: the public header of libt2k.
 *
 * Every function gives the same bits on every instruction set (scalar, AVX2, AVX-512, NEON), for
 * any number of threads, any alignment and any leading dimension: docs/numerics.md says how.
 *
 * Conventions
 *   Matrices are row-major; every leading dimension and stride counts elements, not bytes.
 *   Pointers need the alignment of their element type only; 64 bytes is faster.
 *   Outputs must not overlap inputs unless a function says that it works in place.
 *   Sizes are int64_t; zero sizes are legal (and then the pointers may be NULL).
 *   NaN and infinities come out where the formula puts them; a NaN's payload is not defined.
 *   Functions are safe to call from many threads at once. Nothing here prints or exits.
 *   A function returns T2K_OK or a negative t2k_status, and writes no output when its arguments
 *   are refused.
 */
#ifndef T2K_H
#define T2K_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define T2K_API __attribute__((visibility("default")))
#else
#define T2K_API
#endif

#define T2K_VERSION_MAJOR 0
#define T2K_VERSION_MINOR 1
#define T2K_VERSION_PATCH 0
#define T2K_VERSION_NUM (T2K_VERSION_MAJOR * 10000 + T2K_VERSION_MINOR * 100 + T2K_VERSION_PATCH)

/* ---- status ------------------------------------------------------------------------------- */

typedef enum t2k_status {
    T2K_OK = 0,
    T2K_ERR_ARG = -1,   /* an argument is out of its documented range */
    T2K_ERR_ALIGN = -2, /* a packed buffer is not aligned to T2K_ALIGN bytes */
    T2K_ERR_NOMEM = -3, /* workspace could not be allocated */
    T2K_ERR_ISA = -4,   /* T2K_ISA names no usable instruction set: see t2k_isa_error() */
    T2K_ERR_IO = -5     /* reserved for the runtime */
} t2k_status;

/* A short English text for any status; never NULL. */
T2K_API const char *t2k_status_str(t2k_status status);

/* "MAJOR.MINOR.PATCH" of the library that is running. */
T2K_API const char *t2k_version(void);

/* Alignment in bytes of packed buffers. */
#define T2K_ALIGN 64

/* ---- dispatch ----------------------------------------------------------------------------- */

/* Detection runs once, at the first use of anything here. The environment variable T2K_ISA caps
 * the choice: with T2K_ISA=avx2 no kernel of a higher ISA is used. */

typedef struct t2k_isa_info {
    const char *name;     /* "scalar", "avx2", "avx512", "amx", "neon" */
    const char *features; /* the CPU features that make up the bundle, space-separated */
    int usable;           /* this CPU and operating system can run it */
    int active;           /* it is the highest ISA in the dispatch table */
    const char *reason; /* why it is not usable, or why it is usable but not active; "" if active */
} t2k_isa_info;

/* T2K_OK when the dispatch table stands; T2K_ERR_ISA when T2K_ISA names an unknown or unusable
 * ISA. Every computing function reports the same error by itself. */
T2K_API t2k_status t2k_init(void);

/* The text behind T2K_ERR_ISA: what was asked for and which names are valid; "" without error. */
T2K_API const char *t2k_isa_error(void);

/* Name of the active ISA, NULL if t2k_init() fails. */
T2K_API const char *t2k_isa_name(void);

/* Number of ISAs known to this build, in rising rank. */
T2K_API int t2k_isa_count(void);

/* Fills *info for index 0 .. t2k_isa_count() - 1; T2K_ERR_ARG for any other index. */
T2K_API t2k_status t2k_isa_get(int index, t2k_isa_info *info);

/* ---- threads ------------------------------------------------------------------------------ */

/* Default: min(OMP_NUM_THREADS if set, CPUs of the affinity mask, cgroup CPU quota rounded up);
 * an operation uses fewer where its work would not pay for them. T2K_NUM_THREADS or
 * t2k_set_num_threads(n > 0) is exact instead, even beyond the number of CPUs, but for products of
 * a few microseconds, which another thread would only slow down; n = 0 returns to the default.
 * Where the system refuses threads (limits on memory or processes), a team is smaller.
 * In a forked child everything runs on one thread. */
T2K_API int t2k_get_num_threads(void);
T2K_API t2k_status t2k_set_num_threads(int n);

/* Nonzero where that number was asked for, so that every operation but a tiny product uses all. */
T2K_API int t2k_threads_exact(void);

/* Why t2k_get_num_threads() is what it is, such as "cgroup quota"; never NULL. */
T2K_API const char *t2k_threads_reason(void);

/* A team of threads inside t2k_parallel(). Functions ending in _team are collective: every
 * thread of the team calls them with the same arguments, and each returns on every thread only
 * when its whole output is written. */
typedef struct t2k_team t2k_team;
typedef void (*t2k_body)(t2k_team *team, void *arg);

/* Runs body(team, arg) on `threads` threads (0: as t2k_get_num_threads()) with the default
 * floating-point environment, which is restored afterwards on each of them. Returns when all are
 * done. Inside another parallel region it runs on one thread. */
T2K_API t2k_status t2k_parallel(int threads, t2k_body body, void *arg);

T2K_API int t2k_team_rank(const t2k_team *team); /* 0 .. size - 1 */
T2K_API int t2k_team_size(const t2k_team *team);
T2K_API void t2k_team_barrier(t2k_team *team);

/* ---- matrix product ----------------------------------------------------------------------- */

typedef enum t2k_transpose { T2K_NO_TRANS = 111, T2K_TRANS = 112 } t2k_transpose; /* as CBLAS */

typedef enum t2k_activation {
    T2K_ACT_NONE = 0,
    T2K_ACT_RELU = 1,
    T2K_ACT_GELU = 2,      /* as t2k_gelu */
    T2K_ACT_GELU_TANH = 3, /* as t2k_gelu_tanh */
    T2K_ACT_SILU = 4       /* as t2k_silu */
} t2k_activation;

/* What happens to each element v of the product on its way out, in this order, each step
 * rounded once (activations: as their functions do) and skipped where its field is NULL or 0:
 *   v + bias[j];  v * scale[j];  activation (relu: v < 0 ? +0 : v);  v + residual[i*ldr + j].
 * With scale_rows the scale differs from row to row, as where each sample has its own experts:
 *   v * scale[scale_rows[i]*lds + j];  an id outside 0 .. scale_count - 1 is T2K_ERR_ARG, and then
 * nothing is written. All products of a batch have the same ids.
 * `size` is sizeof(t2k_epilogue), so that later fields can be added; the struct that ended before
 * scale_rows is accepted too. residual may be C itself, with ldr = ldc, where k <= 256 (any beta);
 * for larger k, C holds the running sums: T2K_ERR_ARG. */
typedef struct t2k_epilogue {
    size_t size;
    const float *bias;  /* (n) or NULL */
    const float *scale; /* (n) or NULL; with scale_rows: (scale_count, n) */
    t2k_activation activation;
    const float *residual;     /* (m, n) or NULL */
    int64_t ldr;               /* row stride of residual, >= max(1, n) */
    int64_t stride_residual;   /* between the residuals of a batch; 0: the same one */
    const int64_t *scale_rows; /* (m) rows of the scale matrix, or NULL: one scale for all */
    int64_t lds;               /* row stride of that matrix, >= max(1, n) */
    int64_t scale_count;       /* its rows */
} t2k_epilogue;

/* C = alpha * op(A) * op(B) + beta * C, then the epilogue (NULL: none).
 *   op(A) (m, k): A is (m, k), lda >= max(1, k); transposed (k, m), lda >= max(1, m)
 *   op(B) (k, n): B is (k, n), ldb >= max(1, n); transposed (n, k), ldb >= max(1, k)
 *   C (m, n), ldc >= max(1, n)
 * beta = 0 never reads C (NaN there is harmless); alpha = 0 or k = 0 never reads A or B and gives
 * beta * C. Order of operations: docs/numerics.md, rule 1.
 * Error: |got - ref| <= (min(k, 256) + k/256 + 3) * 2^-24 * sum |alpha a b| (+ 2^-23 |beta c|),
 * per element, before the epilogue; products and sums below 2^-126 add up to 2^-149 each. */
T2K_API t2k_status t2k_sgemm(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m, int64_t n,
                             int64_t k, float alpha, const float *A, int64_t lda, const float *B,
                             int64_t ldb, float beta, float *C, int64_t ldc,
                             const t2k_epilogue *epilogue);
T2K_API t2k_status t2k_sgemm_team(t2k_team *team, t2k_transpose trans_a, t2k_transpose trans_b,
                                  int64_t m, int64_t n, int64_t k, float alpha, const float *A,
                                  int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                                  int64_t ldc, const t2k_epilogue *epilogue);

/* `batch` products whose operands lie stride_a, stride_b, stride_c elements apart. stride_a or
 * stride_b may be 0 (one operand for all). Outputs that overlap, or whose rows interleave without
 * one index lying inside the other's stride, are T2K_ERR_ARG. */
T2K_API t2k_status t2k_sgemm_batched(t2k_transpose trans_a, t2k_transpose trans_b, int64_t m,
                                     int64_t n, int64_t k, float alpha, const float *A, int64_t lda,
                                     int64_t stride_a, const float *B, int64_t ldb,
                                     int64_t stride_b, float beta, float *C, int64_t ldc,
                                     int64_t stride_c, int64_t batch, const t2k_epilogue *epilogue);

/* Classes of numerics. All functions but those below are of class strict.
 *   strict  the same bits everywhere, as said above
 *   fast    the accuracy of f32 in whatever order is fastest here: the matrix unit, with operands
 *           split into three bf16 parts, or vectors; another ISA gives other bits. Error:
 *           |got - ref| <= (min(k, 256) + k/256 + 8) * 2^-24 * sum |alpha a b| (+ 2^-23 |beta c|);
 *           products and sums below 2^-126 add up to 2^-149 each
 *   bf16    op(A) and op(B) rounded to bf16 (to nearest even), sums in f32, error against the
 *           product of the rounded operands as strict. Without a matrix unit the bits of class
 *           strict for rounded operands; with one, operands, products and sums below 2^-126 may
 *           count as zero
 * In none of them do the bits depend on the number of threads. NaN and infinities come out where
 * those of class strict do, but for infinities of sums that overflow on the way. */
typedef enum t2k_numerics { T2K_STRICT = 0, T2K_FAST = 1, T2K_BF16 = 2 } t2k_numerics;

/* What serves a class here, such as "amx" or "as strict, of rounded operands"; NULL for an unknown
 * class or without an ISA. */
T2K_API const char *t2k_numerics_note(t2k_numerics numerics);

/* t2k_sgemm and t2k_sgemm_team in a chosen class. */
T2K_API t2k_status t2k_sgemm_class(t2k_numerics numerics, t2k_transpose trans_a,
                                   t2k_transpose trans_b, int64_t m, int64_t n, int64_t k,
                                   float alpha, const float *A, int64_t lda, const float *B,
                                   int64_t ldb, float beta, float *C, int64_t ldc,
                                   const t2k_epilogue *epilogue);
T2K_API t2k_status t2k_sgemm_class_team(t2k_team *team, t2k_numerics numerics,
                                        t2k_transpose trans_a, t2k_transpose trans_b, int64_t m,
                                        int64_t n, int64_t k, float alpha, const float *A,
                                        int64_t lda, const float *B, int64_t ldb, float beta,
                                        float *C, int64_t ldc, const t2k_epilogue *epilogue);

/* Weights packed once. The blob belongs to the ISA that was active when it was packed (another
 * one refuses it: T2K_ERR_ISA) and must be aligned to T2K_ALIGN. */
T2K_API size_t t2k_packed_b_bytes(int64_t k, int64_t n); /* 0: sizes out of range, or no ISA */
T2K_API t2k_status t2k_pack_b(t2k_transpose trans_b, int64_t k, int64_t n, const float *B,
                              int64_t ldb, void *packed);
/* The same for a class: t2k_sgemm_packed computes in the class of its blob. A blob of class fast
 * that is packed for a matrix unit holds 6 bytes a weight, of class bf16 2. */
T2K_API size_t t2k_packed_b_bytes_class(t2k_numerics numerics, int64_t k, int64_t n);
T2K_API t2k_status t2k_pack_b_class(t2k_numerics numerics, t2k_transpose trans_b, int64_t k,
                                    int64_t n, const float *B, int64_t ldb, void *packed);
/* t2k_sgemm with op(B) = (k, n) as packed; the same bits as t2k_sgemm on the unpacked B. */
T2K_API t2k_status t2k_sgemm_packed(t2k_transpose trans_a, int64_t m, int64_t n, int64_t k,
                                    float alpha, const float *A, int64_t lda, const void *packed,
                                    float beta, float *C, int64_t ldc,
                                    const t2k_epilogue *epilogue);
T2K_API t2k_status t2k_sgemm_packed_team(t2k_team *team, t2k_transpose trans_a, int64_t m,
                                         int64_t n, int64_t k, float alpha, const float *A,
                                         int64_t lda, const void *packed, float beta, float *C,
                                         int64_t ldc, const t2k_epilogue *epilogue);

/* W = c * U * diag(s) * V^T: a weight matrix from its singular value decomposition, with other
 * singular values. U (m, r), s (r), V (n, r) (not transposed), W (m, n); with trans_w = T2K_TRANS
 * the transposed matrix (n, m) is written. s[i] multiplies column i of U while that is packed
 * (one rounding), in either orientation; no scaled copy of U is stored. Transformer^2, arXiv
 * 2501.06252, section 3.1. Error: as t2k_sgemm with k = r, plus 2^-24 * sum |c u s v|. */
T2K_API t2k_status t2k_svd_rebuild(t2k_transpose trans_w, int64_t m, int64_t n, int64_t r, float c,
                                   const float *U, int64_t ldu, const float *s, const float *V,
                                   int64_t ldv, float *W, int64_t ldw);

/* W^T (n, m) of the same W, as t2k_pack_b(T2K_TRANS, n, m, W, ...) packs it, so that
 * t2k_sgemm_packed gives X W^T: the same bits as rebuilding and packing, without W in memory: the
 * product writes the packed form. packed: t2k_packed_b_bytes(n, m), aligned to T2K_ALIGN. */
T2K_API t2k_status t2k_svd_rebuild_packed(int64_t m, int64_t n, int64_t r, float c, const float *U,
                                          int64_t ldu, const float *s, const float *V, int64_t ldv,
                                          void *packed);

/* ---- rows --------------------------------------------------------------------------------- */

/* Y[i,:] = exp(X[i,:] - max_i) / sum. X, Y (rows, cols); in place with Y = X and ldy = ldx.
 * A row with NaN or +Inf, or of -Inf only, becomes NaN. Error <= (d + D + cols/64 + 14) * 2^-24 * Y
 * + 2^-148 with d = max - x (its rounding dominates) and D the mean of d weighted by Y. */
T2K_API t2k_status t2k_softmax(int64_t rows, int64_t cols, const float *X, int64_t ldx, float *Y,
                               int64_t ldy);

/* z = X[i,:] * scale + residual[i,:] (each optional, each rounded), then
 * Y[i,:] = (z - mean) / sqrt(var + eps) * weight + bias, var biased (divisor cols).
 * X, residual, Y (rows, cols); scale, weight, bias (cols) or NULL. In place on X or residual.
 * eps >= 0. A row with a NaN or infinite z becomes NaN, and so may one of equal elements with
 * eps = 0; one whose sums overflow is computed from z * 2^-96 (PyTorch: bias). Error <= 2^-20 *
 * (|weight| * largest |(z - mean) / sqrt(var + eps)| of the row + |bias|), even where the mean is
 * 1e5 deviations; deviations below 2^-126 have the precision of denormals. */
T2K_API t2k_status t2k_layer_norm(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                  const float *scale, const float *residual, int64_t ldr,
                                  const float *weight, const float *bias, float eps, float *Y,
                                  int64_t ldy);
T2K_API t2k_status t2k_layer_norm_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                       int64_t ldx, const float *scale, const float *residual,
                                       int64_t ldr, const float *weight, const float *bias,
                                       float eps, float *Y, int64_t ldy);

/* z = X[i,:] + residual[i,:] (optional, rounded), which is also written to sum[i,:] unless sum is
 * NULL: the residual stream of pre-norm models; then Y[i,:] = z / sqrt(mean(z^2) + eps) * weight.
 * arXiv 1910.07467. X, residual, sum, Y (rows, cols); weight (cols) or NULL. sum or Y, not both,
 * may be X, and likewise residual, with the same stride. eps >= 0. A row with a NaN or infinite z
 * becomes NaN, and so does one of zeros with eps = 0; one whose squares overflow is computed from z
 * * 2^-96, and one whose squares vanish with eps = 0 from z * 2^96 (PyTorch: zeros, and
 * infinities). Error <= (cols/128 + 8) * 2^-24 * |Y| + 2^-148, except that squares below 2^-126
 * have the precision of denormals. */
T2K_API t2k_status t2k_rms_norm(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                const float *residual, int64_t ldr, const float *weight, float eps,
                                float *sum, int64_t lds, float *Y, int64_t ldy);
T2K_API t2k_status t2k_rms_norm_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                     int64_t ldx, const float *residual, int64_t ldr,
                                     const float *weight, float eps, float *sum, int64_t lds,
                                     float *Y, int64_t ldy);

/* Gradients of both norms, with t = (z - mean) / sqrt(var + eps), t = z / sqrt(mean(z^2) + eps),
 * found again from the operands of the norm, and g = dY[i,:] * weight:
 *   dX[i,:] = (g - mean(g) - t mean(g t)) / sqrt(var + eps), RMS norm without mean(g),
 *   the gradient by z: of X where there is no scale, and of the residual;
 *   dweight[j] = sum_i dY[i,j] t[i,j], dbias[j] = sum_i dY[i,j]; accumulate and the order of these
 *   sums are as in t2k_column_sums.
 * X, residual, dY, dX (rows, cols); the others (cols). dX, dweight, dbias that are NULL cost
 * nothing. dX may be X, residual or dY, with the same stride. A row that is not finite, or whose
 * squares overflow, or vanish with eps = 0, has NaN in dX and makes dweight NaN. Error of dX, in
 * units of 2^-24 / sqrt(var + eps): cols/64 + 32 times (|g| + mean|g| + |t| mean|g t|), with t at
 * its largest of the row. */
T2K_API t2k_status t2k_layer_norm_backward(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                           const float *scale, const float *residual, int64_t ldr,
                                           const float *weight, float eps, const float *dY,
                                           int64_t lddy, float *dX, int64_t lddx, int accumulate,
                                           float *dweight, float *dbias);
T2K_API t2k_status t2k_layer_norm_backward_team(t2k_team *team, int64_t rows, int64_t cols,
                                                const float *X, int64_t ldx, const float *scale,
                                                const float *residual, int64_t ldr,
                                                const float *weight, float eps, const float *dY,
                                                int64_t lddy, float *dX, int64_t lddx,
                                                int accumulate, float *dweight, float *dbias);
T2K_API t2k_status t2k_rms_norm_backward(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                         const float *residual, int64_t ldr, const float *weight,
                                         float eps, const float *dY, int64_t lddy, float *dX,
                                         int64_t lddx, int accumulate, float *dweight);
T2K_API t2k_status t2k_rms_norm_backward_team(t2k_team *team, int64_t rows, int64_t cols,
                                              const float *X, int64_t ldx, const float *residual,
                                              int64_t ldr, const float *weight, float eps,
                                              const float *dY, int64_t lddy, float *dX,
                                              int64_t lddx, int accumulate, float *dweight);

/* Mean of all elements of X (rows, cols), summed in double in a fixed order and rounded once to
 * float. NaN for an empty X. */
T2K_API t2k_status t2k_mean(int64_t rows, int64_t cols, const float *X, int64_t ldx, float *mean);
/* The same inside a team; row_sums is scratch of `rows` doubles shared by the team. Every thread
 * gets the result. */
T2K_API t2k_status t2k_mean_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                 int64_t ldx, double *row_sums, float *mean);

/* Y[i,:] = table[ids[i],:]. table (vocab, cols), ids (rows), Y (rows, cols). An id outside
 * 0 .. vocab-1 is T2K_ERR_ARG and nothing is written. */
T2K_API t2k_status t2k_embedding(int64_t rows, int64_t cols, int64_t vocab, const float *table,
                                 int64_t ldt, const int64_t *ids, float *Y, int64_t ldy);
T2K_API t2k_status t2k_embedding_team(t2k_team *team, int64_t rows, int64_t cols, int64_t vocab,
                                      const float *table, int64_t ldt, const int64_t *ids, float *Y,
                                      int64_t ldy);

/* Gradient of softmax by rows, in attention times the factor of the scores:
 *   dX[i,:] = (Y[i,:] * (dY[i,:] - sum_j Y[i,j] dY[i,j])) * scale
 * Y: what t2k_softmax gave. All (rows, cols); dX may be Y or dY, with the same stride. A NaN or
 * infinity in dY reaches its whole row. Error <= ((cols/64 + 10) * sum |Y dY| + 3 |dY|) * 2^-24 *
 * |Y scale| + 2^-148 * (|scale| + 1). */
T2K_API t2k_status t2k_softmax_backward(int64_t rows, int64_t cols, const float *Y, int64_t ldy,
                                        const float *dY, int64_t lddy, float scale, float *dX,
                                        int64_t lddx);
T2K_API t2k_status t2k_softmax_backward_team(t2k_team *team, int64_t rows, int64_t cols,
                                             const float *Y, int64_t ldy, const float *dY,
                                             int64_t lddy, float scale, float *dX, int64_t lddx);

/* Y[i,:] = X[i,:] - log sum exp X[i,:], and its gradient dX[i,:] = dY[i,:] - exp(Y[i,:]) * sum dY.
 * All (rows, cols); Y may be X, dX may be Y or dY, with the same stride. Rows that softmax makes
 * NaN are NaN. Error of Y <= (2 |Y| + cols/64 + 16) * 2^-24. */
T2K_API t2k_status t2k_log_softmax(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                   float *Y, int64_t ldy);
T2K_API t2k_status t2k_log_softmax_team(t2k_team *team, int64_t rows, int64_t cols, const float *X,
                                        int64_t ldx, float *Y, int64_t ldy);
T2K_API t2k_status t2k_log_softmax_backward(int64_t rows, int64_t cols, const float *Y, int64_t ldy,
                                            const float *dY, int64_t lddy, float *dX, int64_t lddx);
T2K_API t2k_status t2k_log_softmax_backward_team(t2k_team *team, int64_t rows, int64_t cols,
                                                 const float *Y, int64_t ldy, const float *dY,
                                                 int64_t lddy, float *dX, int64_t lddx);

/* Direction of a Kullback-Leibler divergence: KL(policy || base) or KL(base || policy). */
typedef enum t2k_kl { T2K_KL_POLICY_BASE = 0, T2K_KL_BASE_POLICY = 1 } t2k_kl;

/* What training takes from rows of logits; p = softmax(logits[i,:]), q = softmax(base[i,:]):
 *   log_probs[i] = log p[label], base_log_probs[i] = log q[label], 0 for an ignored row;
 *   kl[i] = sum p log(p/q), or sum q log(q/p); entropy[i] = -sum p log p;
 *   gradient[i,:] = that of weights[i] * -log p[label] + kl_weights[i] * KL by the policy's logits:
 *     weights[i] * (p - [label]) + kl_weights[i] * (p (log(p/q) - KL), or p - q).
 * A label below 0 (PyTorch: -100) is ignored: its weight counts as 0. A row whose two weights are 0
 * has a gradient of zeros, even where its logits are NaN. Mean or sum, baselines and lengths are
 * the caller's weights. Outputs that are NULL cost nothing; kl, kl_weights and base_log_probs need
 * a base, log_probs, base_log_probs and weights need labels. gradient may be logits or base, with
 * the same stride. A term with p = 0 (or q = 0) is 0; p > 0 where q = 0 gives an infinite KL. A row
 * that softmax makes NaN is NaN. cols >= 1; a label >= cols is T2K_ERR_ARG.
 * p and q are those of float: 0 below 2^-149. Error with s(p) = (2 |log p| + cols/64 + 16) * 2^-24:
 * log_probs s(p); gradient without KL |weight| (p s(p), and 2^-23 at the label). */
typedef struct t2k_policy_args {
    size_t size; /* sizeof(t2k_policy_args) */
    int64_t rows, cols;
    const float *logits; /* (rows, cols) */
    int64_t ld_logits;
    const float *base; /* (rows, cols) or NULL */
    int64_t ld_base;
    const int64_t *labels;   /* (rows) or NULL */
    const float *weights;    /* (rows) or NULL: 1 */
    const float *kl_weights; /* (rows) or NULL: 0 */
    t2k_kl kl_direction;
    float *log_probs, *base_log_probs, *kl, *entropy; /* (rows) each, or NULL */
    float *gradient;                                  /* (rows, cols) or NULL */
    int64_t ld_gradient;
} t2k_policy_args;
T2K_API t2k_status t2k_policy(const t2k_policy_args *args);
T2K_API t2k_status t2k_policy_team(t2k_team *team, const t2k_policy_args *args);

/* The part of it that is cross-entropy: log_probs (rows) or NULL, of which the loss is the negative
 * weighted sum, and dX (rows, cols) or NULL, which may be X. */
T2K_API t2k_status t2k_cross_entropy(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                     const int64_t *labels, const float *weights, float *log_probs,
                                     float *dX, int64_t lddx);
T2K_API t2k_status t2k_cross_entropy_team(t2k_team *team, int64_t rows, int64_t cols,
                                          const float *X, int64_t ldx, const int64_t *labels,
                                          const float *weights, float *log_probs, float *dX,
                                          int64_t lddx);

/* Sums over the rows of A (rows, cols), the gradient of a bias, and of the products A[i,j] *
 * B[i,j], that of a singular value: sums[j] = sum_i, or sums[j] + sum_i with accumulate (0 or 1;
 * with 0 sums is not read). Rows go in chunks of 256, each one chain: calls of 256 rows that
 * accumulate give the bits of one call (docs/numerics.md, rule 8). sums (cols) must overlap neither
 * A nor B. Error <= (min(rows, 256) + rows/256 + 2) * 2^-24 * sum |A B|, and 2^-149 per product. */
T2K_API t2k_status t2k_column_sums(int64_t rows, int64_t cols, const float *A, int64_t lda,
                                   int accumulate, float *sums);
T2K_API t2k_status t2k_column_sums_team(t2k_team *team, int64_t rows, int64_t cols, const float *A,
                                        int64_t lda, int accumulate, float *sums);
T2K_API t2k_status t2k_column_dots(int64_t rows, int64_t cols, const float *A, int64_t lda,
                                   const float *B, int64_t ldb, int accumulate, float *sums);
T2K_API t2k_status t2k_column_dots_team(t2k_team *team, int64_t rows, int64_t cols, const float *A,
                                        int64_t lda, const float *B, int64_t ldb, int accumulate,
                                        float *sums);

/* ---- elementwise -------------------------------------------------------------------------- */

/* All work in place (Y = X). */
T2K_API t2k_status t2k_exp(int64_t n, const float *X, float *Y);  /* <= 1 ULP, denormals kept */
T2K_API t2k_status t2k_log(int64_t n, const float *X, float *Y);  /* < 1 ULP; -0: -Inf */
T2K_API t2k_status t2k_relu(int64_t n, const float *X, float *Y); /* x < 0 ? +0 : x; NaN stays */
T2K_API t2k_status t2k_add(int64_t n, const float *X, const float *Z, float *Y); /* X + Z */
T2K_API t2k_status t2k_mul(int64_t n, const float *X, const float *Z, float *Y); /* X * Z */

/* Activations: GELU, x Phi(x) = x/2 (1 + erf(x / sqrt 2)) and with tanh instead,
 * x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel, arXiv 1606.08415); SiLU,
 * x / (1 + exp(-x)). Errors over all floats: GELU 1.6 ULP by erf and 1.65 by tanh where x >= -1,
 * 2e-8 below (1 + erf in float: 8e-8); SiLU 2.4 ULP where x >= -88, 3e-37 below. NaN and +Inf
 * stay, -Inf gives -0, the limit (not NaN as -Inf * 0 would); zeros keep their sign, denormals are
 * halved and rounded; GELU is -0 below -6.5, SiLU below -88.73. */
T2K_API t2k_status t2k_gelu(int64_t n, const float *X, float *Y);
T2K_API t2k_status t2k_gelu_tanh(int64_t n, const float *X, float *Y);
T2K_API t2k_status t2k_silu(int64_t n, const float *X, float *Y);

/* dX = dY * f'(X), f being the activation (T2K_ACT_NONE: dX = dY); dX may be X or dY. relu: dY
 * where not X <= 0, else +0 (as PyTorch: 0 at 0, dY at a NaN). The others: a NaN stays, f' is 1 at
 * +Inf and within 1e-36 of 0 at -Inf. Error <= 1.5e-7 |dY| (GELU, both), 2.5e-7 |dY| (SiLU), and
 * half a unit of dX. A gated unit y = silu(g) * u has du = t2k_mul(dy, silu(g)) and as dg this of
 * t2k_mul(dy, u). */
T2K_API t2k_status t2k_activation_backward(t2k_activation activation, int64_t n, const float *X,
                                           const float *dY, float *dX);
T2K_API t2k_status t2k_activation_backward_team(t2k_team *team, t2k_activation activation,
                                                int64_t n, const float *X, const float *dY,
                                                float *dX);

/* Y[i,j] = X[i,j] * scale[j]. */
T2K_API t2k_status t2k_scale_columns(int64_t rows, int64_t cols, const float *X, int64_t ldx,
                                     const float *scale, float *Y, int64_t ldy);

/* Inverted dropout: element i (counted from `first`) is kept with probability 1 - p and then
 * multiplied by 1/(1-p), else +0. Whether it is kept depends on (seed, layer, site, i) only:
 * Philox4x32-10, docs/numerics.md rule 20. 0 <= p < 1 (p = 1 gives zeros). */
typedef struct t2k_dropout_key {
    uint64_t seed;
    uint32_t layer;
    uint32_t site;
} t2k_dropout_key;
T2K_API t2k_status t2k_dropout(int64_t n, const float *X, float p, t2k_dropout_key key,
                               uint64_t first, float *Y);
T2K_API t2k_status t2k_dropout_team(t2k_team *team, int64_t n, const float *X, float p,
                                    t2k_dropout_key key, uint64_t first, float *Y);

/* ---- optimisers --------------------------------------------------------------------------- */

/* One step of Adam (Kingma and Ba, arXiv 1412.6980) or, decoupled, AdamW (arXiv 1711.05101), as
 * PyTorch computes it: g = G + weight_decay * P, or P *= 1 - lr * weight_decay;
 * M += (1 - beta1) (g - M); V = beta2 V + (1 - beta2) g^2;
 * P -= lr / correction1 * M / (sqrt(V) / sqrt(correction2) + eps).
 * correction1 = 1 - beta1^t, correction2 = 1 - beta2^t > 0, the powers as the caller keeps them.
 * G, M, V, P (n); the state starts as zeros. NaN and infinities go where the formula puts them. */
typedef struct t2k_adam {
    double lr, beta1, beta2, eps, weight_decay;
    double correction1, correction2;
    int decoupled;
} t2k_adam;
T2K_API t2k_status t2k_adam_step(const t2k_adam *adam, int64_t n, const float *G, float *M,
                                 float *V, float *P);
T2K_API t2k_status t2k_adam_step_team(t2k_team *team, const t2k_adam *adam, int64_t n,
                                      const float *G, float *M, float *V, float *P);

/* One step of SGD as PyTorch computes it: g = G + weight_decay * P; with momentum
 * M = g at the first step, else momentum * M + (1 - dampening) g, and g = M, nesterov
 * g + momentum * M; P -= lr * g. M (n) is not touched, and may be NULL, without momentum. */
typedef struct t2k_sgd {
    double lr, momentum, dampening, weight_decay;
    int nesterov, first;
} t2k_sgd;
T2K_API t2k_status t2k_sgd_step(const t2k_sgd *sgd, int64_t n, const float *G, float *M, float *P);
T2K_API t2k_status t2k_sgd_step_team(t2k_team *team, const t2k_sgd *sgd, int64_t n, const float *G,
                                     float *M, float *P);

/* Y = X * factor, in place with Y = X; and the sum of the squares of X in double in a fixed order:
 * with them, gradients are clipped to a global norm. Error of the sum <= 2^-44 of it. */
T2K_API t2k_status t2k_scale(int64_t n, const float *X, float factor, float *Y);
T2K_API t2k_status t2k_scale_team(t2k_team *team, int64_t n, const float *X, float factor,
                                  float *Y);
T2K_API t2k_status t2k_sum_squares(int64_t n, const float *X, double *sum);
T2K_API t2k_status t2k_sum_squares_team(t2k_team *team, int64_t n, const float *X, double *sum);

/* ---- random numbers ----------------------------------------------------------------------- */

/* One block of Philox4x32-10 (Salmon et al., SC 2011): four random words of counter and key. */
T2K_API void t2k_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* ---- attention ---------------------------------------------------------------------------- */

typedef enum t2k_mask_kind {
    T2K_MASK_NONE = 0,
    T2K_MASK_BOOL = 1,  /* uint8_t: nonzero = blocked */
    T2K_MASK_ADD = 2,   /* float, added to the scaled scores; -Inf = blocked */
    T2K_MASK_CAUSAL = 3 /* made inside: key s > l + keys - queries is blocked for query l */
} t2k_mask_kind;

typedef enum t2k_empty_row {
    T2K_EMPTY_NAN = 0, /* a query with every key blocked gives NaN (the notebook's rule) */
    T2K_EMPTY_ZERO = 1 /* ... gives zeros */
} t2k_empty_row;

/* Scaled dot-product attention of every (batch item, head):
 *   out[l] = sum_s softmax_s(scale * q[l].k[s] + mask[l,s]) v[s]
 * Element (position, item, head, channel) of q lies at
 *   q[position * q_row + item * q_item + head * head_dim + channel],
 * and likewise for k, v and out, so that sequence-first (L, N, E) tensors and the parts of a
 * joint (L, N, 3E) projection need no copy. The mask's element (item, head, l, s) lies at
 *   mask[item * mask_item + head * mask_head + l * mask_row + s] (strides may be 0).
 * A blocked key contributes nothing, not even a NaN of its v. keys = 0 counts as all blocked.
 * T2K_MASK_CAUSAL reads no mask: the last query sees all keys, each one before it one key less.
 * With as many keys as queries that is the usual triangle; with more, the queries are the last of a
 * longer sequence whose keys and values were kept. Queries given in parts, each with the keys up to
 * its last one, give the bits of one call with all of them. Where kv_heads is not 0, k and v have
 * that many heads only, and head h of q uses head h / (heads / kv_heads) of theirs; heads must be a
 * multiple of it. size may also be that of the structure up to mask_row, as it was first; kv_heads
 * is 0 then. Strides >= 0; the rows of out must not overlap; head_dim <= 1024. */
typedef struct t2k_attention_args {
    size_t size; /* sizeof(t2k_attention_args) */
    int64_t queries, keys, items, heads, head_dim;
    float scale;
    const float *q, *k, *v;
    float *out;
    int64_t q_row, q_item, k_row, k_item, v_row, v_item, out_row, out_item;
    t2k_mask_kind mask_kind;
    t2k_empty_row empty_row;
    const void *mask;
    int64_t mask_item, mask_head, mask_row;
    int64_t kv_heads; /* 0: heads */
} t2k_attention_args;
T2K_API t2k_status t2k_attention(const t2k_attention_args *args);
T2K_API t2k_status t2k_attention_team(t2k_team *team, const t2k_attention_args *args);

/* Gradients of attention: with P the weights of the forward pass, out = P V, and dout given,
 *   dv = P^T dout,  dS = P o (dout V^T - row sums of P o (dout V^T)),
 *   dq = scale dS K,  dk = scale dS^T Q;
 * dk and dv are summed over the heads of q that share a head of k and v. `of` is the forward call;
 * its out is not read and may be NULL: nothing but q, k, v and the mask has to be kept. dout and dq
 * lie as q does there, dk and dv as k and v do, each with strides of its own, so that they may be
 * parts of one joint (L, N, 3E) tensor. No output may overlap an input or another output.
 * A blocked pair of query and key contributes nothing to any of them, not even a NaN of q, k, v or
 * dout, nor does one whose weight is 0 in float. A query without a weight contributes nothing to dk
 * and dv; its dq is zeros where every key is blocked and empty_row is T2K_EMPTY_ZERO, else NaN.
 * Order of operations and of the sums over queries: docs/numerics.md, "attention, gradients".
 * Arithmetic: 5 products of queries x keys x head_dim; 7 for keys beyond 1024. Threads share
 * (item, head of k and v). Error: relative error e of a weight as in t2k_attention; then each
 * product and sum adds its own rounding, see tests/ref_attention_backward.h. */
typedef struct t2k_attention_backward_args {
    size_t size; /* sizeof(t2k_attention_backward_args) */
    const t2k_attention_args *of;
    const float *dout;
    float *dq, *dk, *dv;
    int64_t dout_row, dout_item, dq_row, dq_item, dk_row, dk_item, dv_row, dv_item;
} t2k_attention_backward_args;
T2K_API t2k_status t2k_attention_backward(const t2k_attention_backward_args *args);
T2K_API t2k_status t2k_attention_backward_team(t2k_team *team,
                                               const t2k_attention_backward_args *args);

/* ---- fingerprints and probes -------------------------------------------------------------- */

/* FNV-1a (64 bits) over a tensor: its dtype's name, rank and shape (as 8-byte little-endian
 * integers), then its values, little-endian in C order, every NaN as 0x7fc00000. */
#define T2K_FINGERPRINT_SEED UINT64_C(0xcbf29ce484222325)
T2K_API uint64_t t2k_fingerprint_bytes(uint64_t state, const void *data, size_t bytes);
T2K_API uint64_t t2k_fingerprint_f32(uint64_t state, int rank, const int64_t *shape,
                                     const float *data);

/* Runs `iterations` rounds of independent fused multiply-adds of the active ISA's vectors on the
 * calling thread and returns how many floating-point operations that were (0 on error): time it
 * to measure the peak. */
T2K_API double t2k_probe_fma(int64_t iterations);

#ifdef __cplusplus
}
#endif
#endif
