/* From the weights of a model to factor files. Internal interface of runtime/svf/ for decomposing;
 * what the rest of the runtime needs is t2_factors_*() in t2_factors.h. */
#ifndef T2_SVF_H
#define T2_SVF_H

#include "io/text.h"
#include "t2.h"

/* ---- the matrices of a model (matrices.c) -------------------------------------------------- */

typedef struct t2_matrix {
    char *name; /* the tensor's, and ".q" and so on for a part of it; owned */
    const t2_tensor *tensor;
    int64_t first;  /* the output of the tensor where the matrix begins */
    int transposed; /* the tensor is (inputs, outputs) */
    int64_t m, n;   /* outputs and inputs, both positive */
} t2_matrix;

typedef struct t2_matrices {
    int64_t count;
    t2_matrix *list; /* (count) in the order of their names */
} t2_matrices;

/* Nonzero where `pattern`, with * and ?, matches all of `name`. */
int t2_name_matches(const char *pattern, const char *name);

/* Those that `modules` asks for, as in t2_svd_args. */
t2_status t2_matrices_choose(const t2_safetensors *file, const char *modules, t2_matrices *chosen,
                             t2_error *err);
void t2_matrices_free(t2_matrices *matrices);

/* Nonzero for the types that t2_matrix_read() converts. */
int t2_matrix_readable(t2_dtype dtype);

/* The elements as w (m, n). T2_ERR_NUMERIC names the first that is not finite. `path` is of the
 * model's file. */
t2_status t2_matrix_read(const char *path, const t2_matrix *matrix, double *w, t2_error *err);

/* SHA-256 of the matrix as the file holds it: type, shape and bytes. */
void t2_matrix_hash(const t2_matrix *matrix, char hash[T2_HASH_CHARS]);

/* ---- memory (decompose.c) ------------------------------------------------------------------ */

/* Memory that a thread uses for one matrix after the other: fresh pages cost as much as a tenth of
 * a small decomposition. Starts as all zeros. */
typedef struct t2_scratch {
    double *data; /* aligned as t2_alloc() does */
    int64_t room;
} t2_scratch;

/* Room for `count` doubles, or NULL; what was in it is lost where it has to grow. */
double *t2_scratch_take(t2_scratch *scratch, int64_t count);
void t2_scratch_free(t2_scratch *scratch);

/* For a matrix: its elements, what LAPACK makes of it, LAPACK's own. */
typedef struct t2_svd_space {
    t2_scratch w, factors, lapack;
} t2_svd_space;
void t2_svd_space_free(t2_svd_space *space);

/* ---- LAPACK and BLAS (lapack.c) ------------------------------------------------------------ */

typedef enum t2_routine { T2_DGESDD, T2_DGESVD } t2_routine;

typedef struct t2_library {
    char lapack[64], blas[192], cpu[128];
} t2_library;

/* Loads LAPACKE when first called. T2_ERR_IO says why it is not usable. */
t2_status t2_lapack_open(t2_error *err);
/* Which libraries, and on what CPU; after t2_lapack_open(). */
const t2_library *t2_lapack_library(void);

/* Between the two, BLAS computes on the calling thread. Calls may nest and overlap. */
void t2_lapack_begin(void);
void t2_lapack_end(void);

/* Thin singular value decomposition of a (rows, columns), column by column, which is destroyed:
 * u (rows, r), s (r), vt (r, columns), r = min(rows, columns). *converged is 0 where the routine
 * gave up. */
t2_status t2_lapack_svd(t2_routine routine, int64_t rows, int64_t columns, double *a, double *u,
                        double *s, double *vt, t2_scratch *space, int *converged, t2_error *err);

/* c (n, m) -= at^T b with at (r, n), b (r, m), column by column. */
void t2_lapack_subtract(int64_t n, int64_t m, int64_t r, const double *at, const double *b,
                        double *c);
/* The upper triangle of g (r, r) = a a^T, a (r, n), column by column. */
void t2_lapack_gram(int64_t r, int64_t n, const double *a, double *g);

/* ---- one decomposition (decompose.c) ------------------------------------------------------- */

typedef struct t2_decomposition {
    int64_t m, n, r;
    float *U; /* (m, r) the values that are stored; of bf16, widened */
    float *S; /* (r) */
    float *V; /* (n, r) */
    double residual, orthogonality;
    double lapack_seconds; /* of the routine that converged */
    t2_routine routine;
} t2_decomposition;

typedef struct t2_svd_options {
    int64_t rank;  /* 0: all */
    double energy; /* 0: all */
    int bf16;
} t2_svd_options;

/* Seconds of a clock that only runs forward. */
double t2_svd_now(void);

/* Of w (m, n), which is destroyed. `name` stands in messages. `first` is the routine to begin
 * with. */
t2_status t2_decompose(const char *name, int64_t m, int64_t n, double *w,
                       const t2_svd_options *options, t2_routine first, t2_svd_space *space,
                       t2_decomposition *out, t2_error *err);
void t2_decomposition_free(t2_decomposition *decomposition);

/* ---- factor files (factor_file.c) ---------------------------------------------------------- */

#define T2_FACTORS_KIND "factors"
#define T2_FACTORS_VERSION "1"
#define T2_KEY "t2."               /* keys of the metadata begin with it */
#define T2_MATRIX_KEY "t2.matrix." /* ... and of a matrix with this, its name follows */

/* How a run was asked for and on what: the part of the metadata that is not of a matrix. */
typedef struct t2_factor_notes {
    const char *modules;
    char store[8], rank[24], energy[32];
    const t2_library *library;
    const char *mixed; /* other libraries that matrices are from, NULL: none */
} t2_factor_notes;

/* A matrix as it goes into a file. */
typedef struct t2_factor_entry {
    const char *name;
    const char *record; /* JSON: what is known of the matrix */
    const char *weight_hash, *factor_hash;
    t2_dtype dtype; /* of U and V */
    int64_t m, n, r;
    const void *U, *S, *V;
} t2_factor_entry;

/* SHA-256 over type, shape and bytes of U, S and V as they are stored. */
void t2_factor_entry_hash(const t2_factor_entry *entry, char hash[T2_HASH_CHARS]);

/* `quick` as in t2_safetensors_write_as(). */
t2_status t2_factor_file_write(const char *path, const t2_factor_entry *entries, int64_t count,
                               const t2_factor_notes *notes, int quick, t2_error *err);

/* SHA-256 over the lines "HASH  NAME" of all matrices, by their factors or by their weights. */
void t2_factor_list_hash(const t2_factor_entry *entries, int64_t count, int weights,
                         char hash[T2_HASH_CHARS]);

/* What is known of a matrix as JSON, such as in t2_factor_entry. */
typedef struct t2_record {
    const t2_matrix *matrix;
    const t2_decomposition *decomposition;
    const t2_library *library;
    const char *weight_hash, *factor_hash;
} t2_record;
void t2_record_text(const t2_record *record, t2_text *text);

/* A matrix of an opened file as it is stored. */
const t2_factor_entry *t2_factors_entry(const t2_factors *factors, int64_t index);

/* ---- finished matrices of a run (parts.c) -------------------------------------------------- */

typedef struct t2_parts {
    char *dir;
    int lock; /* file descriptor */
} t2_parts;

/* Makes and locks the folder of a run that writes `out`. T2_ERR_IO where another run has it. */
t2_status t2_parts_open(const char *out, t2_parts *parts, t2_error *err);
/* Removes the folder where `finished` is set; it stays where other things are in it. */
void t2_parts_close(t2_parts *parts, int finished);

/* The file of a matrix, to free(); NULL: out of memory. */
char *t2_parts_path(const t2_parts *parts, const char *name);

#endif
