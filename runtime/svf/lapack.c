/* LAPACK and BLAS, loaded when a decomposition is asked for.
 *
 * Not linked: OpenBLAS starts its threads when it is loaded, needs more address space than many a
 * model, and its 15 000 symbols would come before those of another BLAS in the caller's process.
 * Loaded locally, it is in nobody's way, and a program that only runs models does not need it. */
#define _GNU_SOURCE /* RTLD_DEFAULT, dladdr */
#include "io/cpuinfo.h"
#include "io/error.h"
#include "svf/svf.h"

#include <dlfcn.h>
#include <lapacke.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef __typeof__(LAPACKE_dgesdd_work) dgesdd_function;
typedef __typeof__(LAPACKE_dgesvd_work) dgesvd_function;
/* Fortran passes the lengths of character arguments at the end. */
typedef void dgemm_function(const char *transa, const char *transb, const int *m, const int *n,
                            const int *k, const double *alpha, const double *a, const int *lda,
                            const double *b, const int *ldb, const double *beta, double *c,
                            const int *ldc, size_t, size_t);
typedef void dsyrk_function(const char *uplo, const char *trans, const int *n, const int *k,
                            const double *alpha, const double *a, const int *lda,
                            const double *beta, double *c, const int *ldc, size_t, size_t);

static struct {
    pthread_once_t once;
    void *handle;
    char problem[256]; /* "" where all was found */
    t2_library library;
    char text[400];
    dgesdd_function *dgesdd;
    dgesvd_function *dgesvd;
    dgemm_function *dgemm;
    dsyrk_function *dsyrk;
    /* Number of threads, by the first of the known libraries that has such functions. */
    void (*set_threads)(int);
    int (*get_threads)(void);
    pthread_mutex_t lock;
    int users;   /* between t2_lapack_begin() and _end() */
    int threads; /* before the first of them */
} lib = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- loading ------------------------------------------------------------------------------- */

/* Symbols that the process has already come first, as they do for LAPACKE's own calls. ISO C has no
 * conversion from a data pointer to a function pointer: the bytes are copied. */
static int find(const char *name, void *function)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    if (symbol == NULL) {
        symbol = dlsym(lib.handle, name);
    }
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static void need(const char *name, void *function)
{
    if (!find(name, function) && lib.problem[0] == '\0') {
        snprintf(lib.problem, sizeof lib.problem, "%s is in none of the libraries", name);
    }
}

static void find_threads(void)
{
    static const struct {
        const char *set, *get;
    } known[] = {
        {"openblas_set_num_threads", "openblas_get_num_threads"},
        {"MKL_Set_Num_Threads", "MKL_Get_Max_Threads"},
        {"bli_thread_set_num_threads", "bli_thread_get_num_threads"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (find(known[i].set, &lib.set_threads) && find(known[i].get, &lib.get_threads)) {
            return;
        }
    }
    lib.set_threads = NULL;
}

/* The file that the function comes from, links followed: "libblas.so.3.11.0". */
static void file_of(const char *symbol, char *text, size_t size)
{
    Dl_info info;
    void *address;
    const char *name = "unknown";
    if (find(symbol, &address) && dladdr(address, &info) != 0 && info.dli_fname != NULL) {
        name = info.dli_fname;
    }
    char *whole = realpath(name, NULL);
    name = whole != NULL ? whole : name;
    const char *slash = strrchr(name, '/');
    snprintf(text, size, "%s", slash != NULL ? slash + 1 : name);
    free(whole);
}

static void identify_blas(char *text, size_t size)
{
    const char *(*string)(void);
    const char *(*core)(void);
    void (*mkl)(char *, int);
    char name[128] = "", kind[64] = "";
    if (find("openblas_get_config", &string)) {
        /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." */
        const char *config = string();
        const char *blank = strchr(config, ' ');
        blank = blank != NULL ? strchr(blank + 1, ' ') : NULL;
        snprintf(name, sizeof name, "%.*s",
                 blank != NULL ? (int)(blank - config) : (int)strlen(config), config);
        if (find("openblas_get_corename", &core)) {
            snprintf(kind, sizeof kind, " (%s)", core());
        }
    } else if (find("MKL_Get_Version_String", &mkl)) {
        mkl(name, (int)sizeof name - 1);
        name[strcspn(name, "\n")] = '\0';
    } else if (find("bli_info_get_version_str", &string)) {
        snprintf(name, sizeof name, "BLIS %s", string());
    } else {
        file_of("dgemm_", name, sizeof name);
    }
    snprintf(text, size, "%s%s%s", name, kind,
             lib.set_threads == NULL ? ", its own number of threads" : "");
}

static void load(void)
{
    static const char *const names[] = {"liblapacke.so.3", "liblapacke.so"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && lib.handle == NULL; i++) {
        lib.handle = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (lib.handle == NULL && i == 0) {
            const char *why = dlerror();
            snprintf(lib.problem, sizeof lib.problem, "%s", why != NULL ? why : "cannot be loaded");
        }
    }
    if (lib.handle == NULL) {
        snprintf(lib.text, sizeof lib.text, "none");
        return;
    }
    lib.problem[0] = '\0';
    __typeof__(LAPACKE_ilaver) *version;
    need("LAPACKE_dgesdd_work", &lib.dgesdd);
    need("LAPACKE_dgesvd_work", &lib.dgesvd);
    need("LAPACKE_ilaver", &version);
    need("dgemm_", &lib.dgemm);
    need("dsyrk_", &lib.dsyrk);
    find_threads();
    if (version != NULL) {
        lapack_int major = 0, minor = 0, patch = 0;
        version(&major, &minor, &patch);
        snprintf(lib.library.lapack, sizeof lib.library.lapack, "LAPACK %d.%d.%d", (int)major,
                 (int)minor, (int)patch);
    }
    identify_blas(lib.library.blas, sizeof lib.library.blas);
    t2_cpu_name(lib.library.cpu, sizeof lib.library.cpu);
    snprintf(lib.text, sizeof lib.text, "%s, %s", lib.library.lapack, lib.library.blas);
}

t2_status t2_lapack_open(t2_error *err)
{
    pthread_once(&lib.once, load);
    if (lib.problem[0] != '\0') {
        return t2_fail(err, T2_ERR_IO,
                       "LAPACK is not usable: %s (Debian: apt-get install "
                       "liblapacke libopenblas0-pthread)",
                       lib.problem);
    }
    return T2_OK;
}

const t2_library *t2_lapack_library(void)
{
    return &lib.library;
}

const char *t2_svd_library(void)
{
    pthread_once(&lib.once, load);
    return lib.text;
}

/* ---- threads ------------------------------------------------------------------------------- */

void t2_lapack_begin(void)
{
    pthread_mutex_lock(&lib.lock);
    if (lib.users++ == 0 && lib.set_threads != NULL) {
        lib.threads = lib.get_threads();
        lib.set_threads(1);
    }
    pthread_mutex_unlock(&lib.lock);
}

void t2_lapack_end(void)
{
    pthread_mutex_lock(&lib.lock);
    if (--lib.users == 0 && lib.set_threads != NULL && lib.threads > 1) {
        lib.set_threads(lib.threads);
    }
    pthread_mutex_unlock(&lib.lock);
}

/* ---- computing ----------------------------------------------------------------------------- */

/* One call with `work` of `size` elements, or with size -1 the question how many it needs. */
static lapack_int call(t2_routine routine, lapack_int rows, lapack_int columns, double *a,
                       double *u, double *s, double *vt, double *work, lapack_int size,
                       lapack_int *iwork)
{
    lapack_int r = rows < columns ? rows : columns;
    if (routine == T2_DGESDD) {
        return lib.dgesdd(LAPACK_COL_MAJOR, 'S', rows, columns, a, rows, s, u, rows, vt, r, work,
                          size, iwork);
    }
    return lib.dgesvd(LAPACK_COL_MAJOR, 'S', 'S', rows, columns, a, rows, s, u, rows, vt, r, work,
                      size);
}

t2_status t2_lapack_svd(t2_routine routine, int64_t rows, int64_t columns, double *a, double *u,
                        double *s, double *vt, t2_scratch *space, int *converged, t2_error *err)
{
    int64_t r = rows < columns ? rows : columns;
    const lapack_int m = (lapack_int)rows, n = (lapack_int)columns;
    double needed = 0.0;
    lapack_int info = INT32_MIN;
    if (rows <= INT32_MAX && columns <= INT32_MAX && r <= INT32_MAX / 8) {
        info = call(routine, m, n, a, u, s, vt, &needed, -1, NULL);
    }
    if (info != 0 || !(needed >= 1.0 && needed < (double)INT32_MAX)) {
        return t2_fail(err, T2_ERR_ARG, "%lld x %lld is more than this LAPACK can decompose",
                       (long long)rows, (long long)columns);
    }
    double *work = t2_scratch_take(space, (int64_t)needed);
    lapack_int *iwork = malloc(8 * (size_t)r * sizeof *iwork);
    t2_status status = T2_OK;
    if (work == NULL || iwork == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "no memory for LAPACK's %.0f MB", needed * 8e-6);
    } else {
        info = call(routine, m, n, a, u, s, vt, work, (lapack_int)needed, iwork);
        *converged = info == 0;
        if (info < 0) {
            status = t2_fail(err, T2_ERR_ARG, "LAPACK refused argument %d", -(int)info);
        }
    }
    free(iwork);
    return status;
}

void t2_lapack_subtract(int64_t n, int64_t m, int64_t r, const double *at, const double *b,
                        double *c)
{
    const int rows = (int)n, columns = (int)m, inner = (int)r;
    const double minus = -1.0, one = 1.0;
    lib.dgemm("T", "N", &rows, &columns, &inner, &minus, at, &inner, b, &inner, &one, c, &rows, 1,
              1);
}

void t2_lapack_gram(int64_t r, int64_t n, const double *a, double *g)
{
    const int order = (int)r, inner = (int)n;
    const double one = 1.0, zero = 0.0;
    lib.dsyrk("U", "N", &order, &inner, &one, a, &order, &zero, g, &order, 1, 1);
}
