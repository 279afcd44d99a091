/* Any library with cblas_sgemm (OpenBLAS, BLIS, MKL, ...), loaded by dlopen and used as its users
 * do: sizes in int, row-major matrices, packed weights and batches where the library has calls for
 * them.
 *
 * W = c U diag(s) V^T has no call in a BLAS: each call scales a copy of U, then multiplies; or, for
 * svd_rebuild_dense, multiplies U by diag(s) as a dense matrix first.
 */
#define _GNU_SOURCE /* dlinfo */
#include "contender.h"
#include "ops.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112, PACKED = 151, B_MATRIX = 162 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *A, int lda, const float *B, int ldb, float beta, float *C,
                      int ldc);
typedef void batch_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *A, int lda, int stride_a, const float *B, int ldb, int stride_b,
                      float beta, float *C, int ldc, int stride_c, int batch);
typedef size_t pack_size_fn(int matrix, int m, int n, int k);
typedef void pack_fn(int order, int matrix, int trans, int m, int n, int k, float alpha,
                     const float *source, int ld, float *packed);
typedef void compute_fn(int order, int trans_a, int trans_b, int m, int n, int k, const float *A,
                        int lda, const float *B, int ldb, float beta, float *C, int ldc);

static struct {
    sgemm_fn *sgemm;
    batch_fn *batch; /* NULL: a loop over sgemm */
    pack_size_fn *pack_size;
    pack_fn *pack;
    compute_fn *compute; /* NULL: weights as they are */
} blas;

static void *symbol(void *handle, const char *name)
{
    return dlsym(handle, name);
}

/* ---- loading --------------------------------------------------------------------------------- */

/* Sets the number of threads and returns what the library then says it is; 0 where it has no call
 * for that: then only the environment tells it. */
static int set_threads(void *handle, int threads)
{
    void (*openblas_set)(int) = (void (*)(int))symbol(handle, "openblas_set_num_threads");
    int (*openblas_get)(void) = (int (*)(void))symbol(handle, "openblas_get_num_threads");
    if (openblas_set != NULL && openblas_get != NULL) {
        openblas_set(threads);
        return openblas_get();
    }
    void (*blis_set)(int64_t) = (void (*)(int64_t))symbol(handle, "bli_thread_set_num_threads");
    int64_t (*blis_get)(void) = (int64_t(*)(void))symbol(handle, "bli_thread_get_num_threads");
    if (blis_set != NULL && blis_get != NULL) {
        blis_set(threads);
        return (int)blis_get();
    }
    void (*mkl_set)(int) = (void (*)(int))symbol(handle, "MKL_Set_Num_Threads");
    int (*mkl_get)(void) = (int (*)(void))symbol(handle, "MKL_Get_Max_Threads");
    if (mkl_set != NULL && mkl_get != NULL) {
        mkl_set(threads);
        return mkl_get();
    }
    return 0;
}

/* "Intel(R) oneAPI Math Kernel Library Version 2026.2-Product Build ..." is too long for a table.
 */
static void describe_mkl(void *handle, char *version, size_t size)
{
    void (*get_text)(char *, int) = (void (*)(char *, int))symbol(handle, "MKL_Get_Version_String");
    int (*get_cbwr)(int) = (int (*)(int))symbol(handle, "MKL_CBWR_Get");
    char text[256] = "", number[32] = "of unknown version";
    get_text(text, sizeof text - 1);
    const char *at = strstr(text, "Version ");
    if (at != NULL) {
        sscanf(at, "Version %31[0-9.]", number);
    }
    enum { BRANCH = 1, COMPATIBLE = 3 };
    int compatible = get_cbwr != NULL && get_cbwr(BRANCH) == COMPATIBLE;
    snprintf(version, size, "MKL %s%s", number, compatible ? " CBWR compatible" : "");
}

static void describe(void *handle, const char *library, char *version, size_t size)
{
    char *(*openblas)(void) = (char *(*)(void))symbol(handle, "openblas_get_config");
    char *(*core)(void) = (char *(*)(void))symbol(handle, "openblas_get_corename");
    const char *(*blis)(void) = (const char *(*)(void))symbol(handle, "bli_info_get_version_str");
    int (*arch)(void) = (int (*)(void))symbol(handle, "bli_arch_query_id");
    const char *(*arch_name)(int) = (const char *(*)(int))symbol(handle, "bli_arch_string");
    char name[32] = "OpenBLAS", number[32] = "";
    if (openblas != NULL) {
        sscanf(openblas(), "%31s %31s", name, number);
        snprintf(version, size, "%s %s %s", name, number, core != NULL ? core() : "");
    } else if (blis != NULL) {
        snprintf(version, size, "BLIS %s %s", blis(),
                 arch != NULL && arch_name != NULL ? arch_name(arch()) : "");
    } else if (symbol(handle, "MKL_Get_Version_String") != NULL) {
        describe_mkl(handle, version, size);
    } else {
        /* The file behind the links tells the version best. */
        struct link_map *map = NULL;
        char *path =
            dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 ? realpath(map->l_name, NULL) : NULL;
        const char *shown = path != NULL ? path : library;
        const char *slash = strrchr(shown, '/');
        snprintf(version, size, "%s", slash != NULL ? slash + 1 : shown);
        free(path);
    }
}

static int load(const char *library, int threads, char *version, size_t version_size, char *error,
                size_t size)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(error, size, "%s", dlerror());
        return -1;
    }
    blas.sgemm = (sgemm_fn *)symbol(handle, "cblas_sgemm");
    if (blas.sgemm == NULL) {
        snprintf(error, size, "%s: no function cblas_sgemm in it", library);
        return -1;
    }
    blas.batch = (batch_fn *)symbol(handle, "cblas_sgemm_batch_strided");
    blas.pack_size = (pack_size_fn *)symbol(handle, "cblas_sgemm_pack_get_size");
    blas.pack = (pack_fn *)symbol(handle, "cblas_sgemm_pack");
    blas.compute = (compute_fn *)symbol(handle, "cblas_sgemm_compute");
    if (blas.pack_size == NULL || blas.pack == NULL) {
        blas.compute = NULL;
    }
    int used = set_threads(handle, threads);
    if (used != 0 && used != threads) {
        snprintf(error, size, "%s: runs on %d threads, not on %d", library, used, threads);
        return -1;
    }
    describe(handle, library, version, version_size);
    return 0;
}

/* ---- cases ----------------------------------------------------------------------------------- */

enum kind { PRODUCT, PACKED_PRODUCT, BATCH, REBUILD, DENSE_REBUILD };

struct state {
    enum kind kind;
    int trans_a, trans_b;
    int m, n, k, lda, ldb, ldc, batch;
    const float *A, *B, *s;
    float *C;
    float *buffer;           /* packed weights; or the scaled U, behind it a dense diag(s) */
    const struct problem *p; /* whose scratch `buffer` is; NULL: it is our own */
};

static void describe_product(struct state *st, const struct problem *p)
{
    st->kind = p->op->packed && blas.compute != NULL ? PACKED_PRODUCT : PRODUCT;
    st->trans_a = p->op->trans_a == T2K_TRANS ? TRANS : NO_TRANS;
    st->trans_b = p->op->trans_b == T2K_TRANS ? TRANS : NO_TRANS;
    st->m = (int)p->dim[0];
    st->n = (int)p->dim[1];
    st->k = (int)p->dim[2];
    st->lda = st->trans_a == TRANS ? st->m : st->k;
    st->ldb = st->trans_b == TRANS ? st->k : st->n;
    st->ldc = st->n;
}

/* A (m, b, k), B (n, b, k), C (b, m, n). */
static void describe_batch(struct state *st, const struct problem *p)
{
    st->kind = BATCH;
    st->trans_a = NO_TRANS;
    st->trans_b = TRANS;
    st->batch = (int)p->dim[0];
    st->m = (int)p->dim[1];
    st->n = (int)p->dim[2];
    st->k = (int)p->dim[3];
    st->lda = st->ldb = st->batch * st->k;
    st->ldc = st->n;
}

/* U (m, r), V (n, r), s (r). */
static void describe_rebuild(struct state *st, const struct problem *p, const void *const in[])
{
    st->kind = p->op == &bench_op_svd_rebuild_dense ? DENSE_REBUILD : REBUILD;
    st->p = p;
    st->trans_a = NO_TRANS;
    st->trans_b = TRANS;
    st->m = (int)p->dim[0];
    st->n = (int)p->dim[1];
    st->k = (int)p->dim[2];
    st->lda = st->ldb = st->k;
    st->ldc = st->n;
    st->s = in[2];
}

/* What is computed once: the packed weights, or the place for a scaled copy. */
static int prepare(struct state *st)
{
    if (st->kind == PACKED_PRODUCT) {
        size_t bytes = blas.pack_size(B_MATRIX, st->m, st->n, st->k);
        st->buffer = bytes > 0 ? bench_alloc(bytes, 1) : NULL;
        if (st->buffer == NULL) {
            return -1;
        }
        blas.pack(ROW_MAJOR, B_MATRIX, st->trans_b, st->m, st->n, st->k, 1.0f, st->B, st->ldb,
                  st->buffer);
    } else if (st->p != NULL) {
        size_t rows = (size_t)st->m + (st->kind == DENSE_REBUILD ? (size_t)st->k : 0);
        st->buffer = bench_scratch_take(st->p, rows * (size_t)st->k * sizeof *st->buffer);
        return st->buffer != NULL ? 0 : -1;
    }
    return 0;
}

static int open_case(const struct problem *p, const char *isa, const void *const in[], float *out,
                     void **state, char *error, size_t size)
{
    (void)isa;
    int batched = strcmp(p->op->name, "sgemm_batched") == 0;
    int rebuild = p->op == &bench_op_svd_rebuild || p->op == &bench_op_svd_rebuild_dense;
    if (!batched && !rebuild && (p->op->trans_a == 0 || p->op == &bench_op_sgemm_bf16)) {
        snprintf(error, size, "a BLAS has no call for it");
        return 1;
    }
    /* Sizes, leading dimensions and strides are of type int. */
    for (int i = 0; i < p->inputs; i++) {
        if (p->input[i].count > INT32_MAX || p->rows > INT32_MAX / p->cols) {
            snprintf(error, size, "too large for a BLAS with 32-bit integers");
            return 1;
        }
    }
    struct state *st = calloc(1, sizeof *st);
    if (st == NULL) {
        snprintf(error, size, "out of memory");
        return -1;
    }
    st->A = in[0];
    st->B = in[1];
    st->C = out;
    if (batched) {
        describe_batch(st, p);
    } else if (rebuild) {
        describe_rebuild(st, p, in);
    } else {
        describe_product(st, p);
    }
    if (prepare(st) != 0) {
        snprintf(error, size, "no memory for its copy of the weights");
        free(st);
        return -1; /* nothing was taken */
    }
    *state = st;
    return 0;
}

static void run_batch(const struct state *st)
{
    if (blas.batch != NULL) {
        blas.batch(ROW_MAJOR, st->trans_a, st->trans_b, st->m, st->n, st->k, 1.0f, st->A, st->lda,
                   st->k, st->B, st->ldb, st->k, 0.0f, st->C, st->ldc, st->m * st->n, st->batch);
        return;
    }
    for (int b = 0; b < st->batch; b++) {
        blas.sgemm(ROW_MAJOR, st->trans_a, st->trans_b, st->m, st->n, st->k, 1.0f,
                   st->A + (ptrdiff_t)b * st->k, st->lda, st->B + (ptrdiff_t)b * st->k, st->ldb,
                   0.0f, st->C + (ptrdiff_t)b * st->m * st->n, st->ldc);
    }
}

static void run_rebuild(const struct state *st)
{
    size_t r = (size_t)st->k;
    for (size_t i = 0; i < (size_t)st->m; i++) {
        const float *restrict from = st->A + i * r;
        float *restrict to = st->buffer + i * r;
        /* Without this, -O2 of gcc 12 leaves the loop scalar. */
#pragma omp simd
        for (size_t j = 0; j < r; j++) {
            to[j] = from[j] * st->s[j];
        }
    }
    blas.sgemm(ROW_MAJOR, st->trans_a, st->trans_b, st->m, st->n, st->k, 0.75f, st->buffer, st->lda,
               st->B, st->ldb, 0.0f, st->C, st->ldc);
}

/* Only the diagonal ever changes. */
static void run_dense_rebuild(const struct state *st)
{
    size_t r = (size_t)st->k;
    float *diagonal = st->buffer + (size_t)st->m * r;
    for (size_t i = 0; i < r; i++) {
        diagonal[i * r + i] = st->s[i];
    }
    blas.sgemm(ROW_MAJOR, NO_TRANS, NO_TRANS, st->m, st->k, st->k, 1.0f, st->A, st->lda, diagonal,
               st->k, 0.0f, st->buffer, st->k);
    blas.sgemm(ROW_MAJOR, st->trans_a, st->trans_b, st->m, st->n, st->k, 0.75f, st->buffer, st->lda,
               st->B, st->ldb, 0.0f, st->C, st->ldc);
}

static int run(void *state)
{
    const struct state *st = state;
    switch (st->kind) {
    case PRODUCT:
        blas.sgemm(ROW_MAJOR, st->trans_a, st->trans_b, st->m, st->n, st->k, 1.0f, st->A, st->lda,
                   st->B, st->ldb, 0.0f, st->C, st->ldc);
        break;
    case PACKED_PRODUCT:
        blas.compute(ROW_MAJOR, st->trans_a, PACKED, st->m, st->n, st->k, st->A, st->lda,
                     st->buffer, st->ldb, 0.0f, st->C, st->ldc);
        break;
    case BATCH:
        run_batch(st);
        break;
    case REBUILD:
        run_rebuild(st);
        break;
    case DENSE_REBUILD:
        run_dense_rebuild(st);
        break;
    }
    return 0;
}

static void close_case(void *state)
{
    struct state *st = state;
    if (st->p != NULL) {
        bench_scratch_give(st->p);
    } else {
        free(st->buffer);
    }
    free(st);
}

const struct contender contender_cblas = {
    .load = load, .open = open_case, .run = run, .close = close_case};
