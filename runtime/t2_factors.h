/* t2_factors.h - singular value experts: the part of t2.h (which includes it) about factors of
 * weight matrices and how they are made. Formulas: docs/experts.md.
 *
 * A weight matrix W (m outputs, n inputs) is kept as W = U diag(S) V^T with U (m, r), S (r),
 * V (n, r). An SVF expert scales the singular values, a CHANNEL expert the outputs of a matrix. */
#ifndef T2_FACTORS_H
#define T2_FACTORS_H

#include "t2.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- factors of a model's matrices -------------------------------------------------------- */

#define T2_HASH_CHARS 65 /* SHA-256 in hexadecimal and '\0' */

/* One matrix of a factor file. Pointers live as long as the t2_factors; arrays are aligned to 4
 * bytes, and all their values are finite. */
typedef struct t2_factor {
    const char *name;     /* such as "layers.0.attention.in_proj_weight.q" */
    const char *tensor;   /* of the model's file: "layers.0.attention.in_proj_weight" */
    int64_t first;        /* the output of that tensor where this matrix begins */
    int transposed;       /* the model's file holds (inputs, outputs), as GPT-2's does */
    int64_t m, n, r;      /* r = min(m, n), fewer where the factors were cut */
    const float *U;       /* (m, r); factors in bf16 are widened */
    const float *S;       /* (r), none negative, falling */
    const float *V;       /* (n, r) */
    double residual;      /* ||W - U diag(S) V^T|| / ||W|| (Frobenius) of the stored factors */
    double orthogonality; /* largest |U^T U - I| or |V^T V - I| of the stored factors */
    char weight_hash[T2_HASH_CHARS]; /* of the model's matrix: type, shape, bytes */
    char factor_hash[T2_HASH_CHARS]; /* of U, S and V: type, shape, bytes of each */
} t2_factor;

/* An opened factor file, as t2_svd_run() writes it. Immutable. */
typedef struct t2_factors t2_factors;

enum {
    /* Also compute the SHA-256 of all factors. Stands beside the flags of t2_safetensors_open(). */
    T2_FACTORS_VERIFY = 2
};

/* Reads all of the file once. T2_ERR_FORMAT names file, tensor or key, expected and found. */
T2_API t2_status t2_factors_open(const char *path, unsigned flags, t2_factors **factors,
                                 t2_error *err);
T2_API void t2_factors_close(t2_factors *factors);
T2_API const char *t2_factors_path(const t2_factors *factors);

/* T2_OK where every matrix is a part of the model's file with the same SHA-256; else T2_ERR_FORMAT
 * with the first that is not, and both hashes. */
T2_API t2_status t2_factors_check(const t2_factors *factors, const t2_safetensors *model,
                                  t2_error *err);

/* Matrices in the order of their names. */
T2_API int64_t t2_factors_count(const t2_factors *factors);
T2_API const t2_factor *t2_factors_get(const t2_factors *factors, int64_t index);
/* Index of the matrix of that name, -1 if there is none. */
T2_API int64_t t2_factors_find(const t2_factors *factors, const char *name);

/* SHA-256 over the lines "HASH  NAME" of all matrices, by their factors and by their weights: what
 * experts belong to. */
T2_API const char *t2_factors_hash(const t2_factors *factors);
T2_API const char *t2_factors_base_hash(const t2_factors *factors);

/* Nonzero where r < min(m, n) for a matrix: then experts are applied as differences only. */
T2_API int t2_factors_cut(const t2_factors *factors);

/* What the file's metadata says under "t2." and the key, NULL if there is nothing: "store" (f32 or
 * bf16), "modules", "rank", "energy" as they were asked for, "lapack", "blas", "cpu", and "mixed":
 * other libraries and CPUs that some matrices are from. */
T2_API const char *t2_factors_note(const t2_factors *factors, const char *key);

/* ---- decomposing -------------------------------------------------------------------------- */

typedef struct t2_svd_progress {
    int64_t done, count; /* matrices */
    const char *name;    /* the matrix that was finished last; NULL: none yet */
    int64_t m, n, r;     /* of it */
    double residual, orthogonality;
    double seconds;        /* its time */
    double lapack_seconds; /* LAPACK's share of it; 0 where it was found finished */
    double elapsed, left;  /* of the whole run; left < 0: not known yet */
    int kept;              /* it was found finished */
    uint64_t bytes_needed; /* on the disk, as estimated; of the first call (done = 0) */
} t2_svd_progress;

typedef struct t2_svd_args {
    size_t size;         /* sizeof(t2_svd_args) */
    const char *model;   /* a model folder or a safetensors file */
    const char *out;     /* the factor file */
    const char *modules; /* "mlp", "attention", "all" and patterns of tensor names with * and ?,
                            separated by commas; NULL: "mlp,attention" */
    int64_t rank;        /* keep that many components at most; 0: all */
    double energy;       /* keep as few as hold this share of the sum of S^2; 0: all */
    int bf16;            /* store U and V in bf16, rounded to nearest even */
    int jobs;            /* matrices at a time, 64 at most; 0: as t2k_get_num_threads() */
    /* Called first with done = 0 and after each matrix, by one thread at a time; nonzero stops the
     * run: what is finished is kept for the next one, T2_ERR_STOPPED. May be NULL. */
    int (*on_progress)(void *arg, const t2_svd_progress *progress);
    void *on_progress_arg;
} t2_svd_args;

/* Thin singular value decompositions in double by LAPACK's dgesdd (dgesvd where that does not
 * converge), stored in float; of each column of U the entry of largest magnitude (the first of
 * equals) is positive. Finished matrices are kept in the folder `out`.parts, so that a run that
 * ended early goes on where it was; the folder is removed at the end. The same bytes on the same
 * CPU, LAPACK and BLAS; what else is computed from a factor file has the same bits everywhere.
 * While it runs, BLAS has one thread in the whole process, where it has a function for that.
 *   T2_ERR_ARG      an item of `modules` matches nothing; `out` is the model's file
 *   T2_ERR_IO       LAPACK is not installed; another run writes `out`; the disk is too small
 *   T2_ERR_FORMAT   a matrix is of a type without conversion, or empty
 *   T2_ERR_NUMERIC  an element is not finite; values outside float's range; LAPACK gives up */
T2_API t2_status t2_svd_run(const t2_svd_args *args, t2_error *err);

/* Which LAPACK and BLAS are in use: "LAPACK 3.9.0, OpenBLAS 0.3.21 (Zen)"; "none" where there is
 * none. Loads them. */
T2_API const char *t2_svd_library(void);

#ifdef __cplusplus
}
#endif
#endif
