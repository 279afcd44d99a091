/* oneDNN by its C API, versions 3 and 2, opened at run time.
 *
 * As its users do: primitives are created once and reused, weights of sgemm_packed are reordered
 * once into the layout that the library asks for, and a call executes the primitives and waits for
 * the stream. The prototypes, numbers of enumerators and argument indices are those of the public
 * headers dnnl.h and dnnl_types.h of 2.6 and 3.2 to 3.13. What differs between the versions is in
 * struct api: descriptors of memory are structs of the caller's in version 2 and handles in version
 * 3, but a pointer either way. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "contender.h"
#include "ops.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_NDIMS = 12,
    F32 = 3,
    CPU_ENGINE = 1,
    IN_ORDER = 1,
    TAG_ANY = 1,
    QUERY_WEIGHTS = 131,
    INFERENCE = 96,
    SOFTMAX_ACCURATE = 0x30000,
    BINARY_ADD = 0x1fff0,
    BINARY_MUL = 0x1fff1,
    INVALID_ARGUMENTS = 2, /* dnnl_status_t */
    UNIMPLEMENTED = 3,
    OMP_RUNTIME = 2
};
enum { ARG_SRC = 1, ARG_SRC_1 = 2, ARG_DST = 17, ARG_WEIGHTS = 33, ARG_SCALE = 51, ARG_SHIFT = 52 };

/* Bytes of version 2's structs: 696 for a memory descriptor, at most 3496 for an operation's. */
enum { MD_BYTES = 1024, DESC_BYTES = 8192 };

typedef int64_t dims_t[MAX_NDIMS];
typedef struct {
    int major, minor, patch;
    const char *hash;
    unsigned cpu_runtime, gpu_runtime;
} version_t;
typedef struct {
    int arg;
    void *memory;
} exec_arg;

/* Functions that both versions have, with one calling convention. */
#define COMMON(X)                                                            \
    X(const version_t *, version, (void))                                    \
    X(int, engine_create, (void **, int, size_t))                            \
    X(int, stream_create, (void **, void *, unsigned))                       \
    X(int, stream_wait, (void *))                                            \
    X(int, memory_create, (void **, const void *, void *, void *))           \
    X(int, memory_destroy, (void *))                                         \
    X(size_t, memory_desc_get_size, (const void *))                          \
    X(const void *, primitive_desc_query_md, (const void *, int, int))       \
    X(int, reorder_primitive_desc_create,                                    \
      (void **, const void *, void *, const void *, void *, const void *))   \
    X(int, primitive_desc_destroy, (void *))                                 \
    X(int, primitive_create, (void **, const void *))                        \
    X(int, primitive_execute, (const void *, void *, int, const exec_arg *)) \
    X(int, primitive_destroy, (void *))
#define VERSION_3(X)                                                                               \
    X(int, memory_desc_create_with_strides, (void **, int, const int64_t *, int, const int64_t *)) \
    X(int, memory_desc_create_with_tag, (void **, int, const int64_t *, int, int))                 \
    X(int, memory_desc_destroy, (void *))                                                          \
    X(int, matmul_primitive_desc_create,                                                           \
      (void **, void *, const void *, const void *, const void *, const void *, const void *))     \
    X(int, softmax_forward_primitive_desc_create,                                                  \
      (void **, void *, int, int, const void *, const void *, int, const void *))                  \
    X(int, layer_normalization_forward_primitive_desc_create,                                      \
      (void **, void *, int, const void *, const void *, const void *, float, unsigned,            \
       const void *))                                                                              \
    X(int, eltwise_forward_primitive_desc_create,                                                  \
      (void **, void *, int, int, const void *, const void *, float, float, const void *))         \
    X(int, binary_primitive_desc_create,                                                           \
      (void **, void *, int, const void *, const void *, const void *, const void *))
#define VERSION_2(X)                                                                           \
    X(int, memory_desc_init_by_strides, (void *, int, const int64_t *, int, const int64_t *))  \
    X(int, memory_desc_init_by_tag, (void *, int, const int64_t *, int, int))                  \
    X(int, primitive_desc_create, (void **, const void *, const void *, void *, const void *)) \
    X(int, matmul_desc_init, (void *, const void *, const void *, const void *, const void *)) \
    X(int, softmax_forward_desc_init, (void *, int, const void *, int))                        \
    X(int, layer_normalization_forward_desc_init,                                              \
      (void *, int, const void *, const void *, float, unsigned))                              \
    X(int, eltwise_forward_desc_init, (void *, int, int, const void *, float, float))          \
    X(int, binary_desc_init, (void *, int, const void *, const void *, const void *))

#define MEMBER(result, name, arguments) result(*name) arguments;
static struct {
    COMMON(MEMBER) VERSION_3(MEMBER) VERSION_2(MEMBER) int major;
    int relu, exp, gelu, gelu_tanh, swish; /* enumerators that the versions number differently */
    unsigned scale, shift, rms;            /* flags of layer normalisation; rms 0: unknown */
    void *engine, *stream;
} api;

/* ---- loading --------------------------------------------------------------------------------- */

static int find(void *handle, const char *name, void *pointer, char *error, size_t size)
{
    char symbol[80];
    snprintf(symbol, sizeof symbol, "dnnl_%s", name);
    void *address = dlsym(handle, symbol);
    if (address == NULL) {
        snprintf(error, size, "the library has no function %s", symbol);
        return -1;
    }
    memcpy(pointer, &address, sizeof address);
    return 0;
}

/* Runtimes other than OpenMP take as many threads as there are CPUs to run on. */
static void limit_cpus(int threads)
{
    cpu_set_t all, some;
    CPU_ZERO(&some);
    if (sched_getaffinity(0, sizeof all, &all) == 0) {
        for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&some) < threads; cpu++) {
            if (CPU_ISSET(cpu, &all)) {
                CPU_SET(cpu, &some);
            }
        }
        sched_setaffinity(0, sizeof some, &some);
    }
}

static int find_all(void *handle, char *error, size_t size)
{
#define FIND(result, name, arguments)                       \
    if (find(handle, #name, &api.name, error, size) != 0) { \
        return -1;                                          \
    }
    COMMON(FIND)
    api.major = api.version()->major;
    if (api.major == 3) {
        VERSION_3(FIND)
        api.relu = 0x20;
        api.exp = 0x2a;
        api.gelu_tanh = 0x2b;
        api.swish = 0x2c;
        api.gelu = 0x31;
        api.scale = 2;
        api.shift = 4;
        /* Seen in the headers of 3.13; an older version that lacks the flag refuses it. */
        api.rms = 0x20;
    } else if (api.major == 2) {
        VERSION_2(FIND)
        api.relu = 0x1f;
        api.exp = 0xbf;
        api.gelu_tanh = 0xcf;
        api.swish = 0xdf;
        api.gelu = 0x30;
        api.scale = 8;
        api.shift = 16;
    } else {
        snprintf(error, size, "version %d is neither 2 nor 3", api.major);
        return -1;
    }
    return 0;
}

static int load(const char *library, int threads, char *version, size_t version_size, char *error,
                size_t size)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(error, size, "%s", dlerror());
        return -1;
    }
    if (find_all(handle, error, size) != 0) {
        return -1;
    }
    const version_t *v = api.version();
    const char *runtime = v->cpu_runtime == OMP_RUNTIME ? "OpenMP" : "other threads";
    if (v->cpu_runtime != OMP_RUNTIME) {
        limit_cpus(threads);
    }
    snprintf(version, version_size, "oneDNN %d.%d.%d, %s", v->major, v->minor, v->patch, runtime);
    int status = api.engine_create(&api.engine, CPU_ENGINE, 0);
    if (status == 0) {
        status = api.stream_create(&api.stream, api.engine, IN_ORDER);
    }
    if (status != 0) {
        snprintf(error, size, "no CPU engine: status %d", status);
        return -1;
    }
    return 0;
}

/* ---- building blocks: each keeps the first status that is not 0 ------------------------------ */

enum { STEPS = 2, ARGS = 4, MEMORIES = 8, MDS = 8 };

struct state {
    int steps;
    struct {
        void *primitive;
        int count;
        exec_arg arg[ARGS];
    } step[STEPS];
    void *memory[MEMORIES], *md[MDS];
    int memories, mds;
    float *packed;           /* weights in the library's layout; NULL: not needed */
    const struct problem *p; /* whose scratch is taken; NULL: none is */
    /* svd_rebuild: what the singular values s (r), scaled in each call, are written to. */
    float *scale;
    const float *s;
    int64_t r, scale_step;
    int status;
};

static const float rebuild_c = 0.75f, norm_epsilon = 1e-5f;

static void keep(struct state *st, int status)
{
    st->status = st->status != 0 ? st->status : status;
}

/* A float32 tensor with these strides; NULL strides: whatever layout suits the library. */
static void *describe(struct state *st, int ndims, const int64_t *dims, const int64_t *strides)
{
    void *md = NULL;
    if (api.major == 3) {
        keep(st, strides != NULL
                     ? api.memory_desc_create_with_strides(&md, ndims, dims, F32, strides)
                     : api.memory_desc_create_with_tag(&md, ndims, dims, F32, TAG_ANY));
    } else {
        md = calloc(1, MD_BYTES);
        if (md == NULL) {
            keep(st, 1);
            return NULL;
        }
        keep(st, strides != NULL ? api.memory_desc_init_by_strides(md, ndims, dims, F32, strides)
                                 : api.memory_desc_init_by_tag(md, ndims, dims, F32, TAG_ANY));
    }
    return st->md[st->mds++] = md;
}

static void *matrix(struct state *st, int64_t rows, int64_t cols, int64_t row, int64_t col)
{
    return describe(st, 2, (dims_t){rows, cols}, (dims_t){row, col});
}

static void *memory(struct state *st, const void *md, const void *data)
{
    void *result = NULL;
    void *handle;
    memcpy(&handle, &data, sizeof handle); /* the library takes inputs as plain pointers too */
    if (st->status == 0) {
        keep(st, api.memory_create(&result, md, api.engine, handle));
    }
    return st->memory[st->memories++] = result;
}

static float *scratch(struct state *st, const struct problem *p, int64_t count)
{
    float *data = bench_scratch_take(p, (size_t)count * sizeof *data);
    st->p = data != NULL ? p : NULL;
    keep(st, data == NULL);
    return data;
}

/* The primitive of a descriptor, which is destroyed, with its arguments. */
static void add_step(struct state *st, void *pd, int count, const exec_arg *args)
{
    if (st->status != 0) {
        return;
    }
    keep(st, api.primitive_create(&st->step[st->steps].primitive, pd));
    api.primitive_desc_destroy(pd);
    st->step[st->steps].count = count;
    memcpy(st->step[st->steps].arg, args, (size_t)count * sizeof *args);
    st->steps += st->status == 0;
}

/* ---- descriptors of primitives --------------------------------------------------------------- */

static void *matmul(struct state *st, const void *a, const void *b, const void *c)
{
    void *pd = NULL;
    if (st->status == 0 && api.major == 3) {
        keep(st, api.matmul_primitive_desc_create(&pd, api.engine, a, b, NULL, c, NULL));
    } else if (st->status == 0) {
        _Alignas(64) char desc[DESC_BYTES];
        keep(st, api.matmul_desc_init(desc, a, b, NULL, c));
        if (st->status == 0) {
            keep(st, api.primitive_desc_create(&pd, desc, NULL, api.engine, NULL));
        }
    }
    return pd;
}

static void *binary(struct state *st, int alg, const void *a, const void *b, const void *c)
{
    void *pd = NULL;
    if (st->status == 0 && api.major == 3) {
        keep(st, api.binary_primitive_desc_create(&pd, api.engine, alg, a, b, c, NULL));
    } else if (st->status == 0) {
        _Alignas(64) char desc[DESC_BYTES];
        keep(st, api.binary_desc_init(desc, alg, a, b, c));
        if (st->status == 0) {
            keep(st, api.primitive_desc_create(&pd, desc, NULL, api.engine, NULL));
        }
    }
    return pd;
}

static void *softmax(struct state *st, const void *md)
{
    void *pd = NULL;
    if (st->status == 0 && api.major == 3) {
        keep(st, api.softmax_forward_primitive_desc_create(&pd, api.engine, INFERENCE,
                                                           SOFTMAX_ACCURATE, md, md, 1, NULL));
    } else if (st->status == 0) {
        _Alignas(64) char desc[DESC_BYTES];
        keep(st, api.softmax_forward_desc_init(desc, INFERENCE, md, 1));
        if (st->status == 0) {
            keep(st, api.primitive_desc_create(&pd, desc, NULL, api.engine, NULL));
        }
    }
    return pd;
}

/* x alpha-times in the sigmoid of swish; the others take no parameter. */
static void *eltwise(struct state *st, int alg, const void *md)
{
    void *pd = NULL;
    const float alpha = alg == api.swish ? 1.0f : 0.0f;
    if (st->status == 0 && api.major == 3) {
        keep(st, api.eltwise_forward_primitive_desc_create(&pd, api.engine, INFERENCE, alg, md, md,
                                                           alpha, 0.0f, NULL));
    } else if (st->status == 0) {
        _Alignas(64) char desc[DESC_BYTES];
        keep(st, api.eltwise_forward_desc_init(desc, INFERENCE, alg, md, alpha, 0.0f));
        if (st->status == 0) {
            keep(st, api.primitive_desc_create(&pd, desc, NULL, api.engine, NULL));
        }
    }
    return pd;
}

static void *layer_norm(struct state *st, const void *md, int64_t rows, int is_rms)
{
    void *pd = NULL;
    const void *stat = describe(st, 1, (dims_t){rows}, (dims_t){1});
    unsigned flags = api.scale | (is_rms ? api.rms : api.shift);
    keep(st, is_rms && api.rms == 0 ? UNIMPLEMENTED : 0);
    if (st->status == 0 && api.major == 3) {
        keep(st, api.layer_normalization_forward_primitive_desc_create(
                     &pd, api.engine, INFERENCE, md, md, stat, norm_epsilon, flags, NULL));
        if (is_rms && st->status == INVALID_ARGUMENTS) {
            st->status = UNIMPLEMENTED;
        }
    } else if (st->status == 0) {
        _Alignas(64) char desc[DESC_BYTES];
        keep(st, api.layer_normalization_forward_desc_init(desc, INFERENCE, md, stat, norm_epsilon,
                                                           flags));
        if (st->status == 0) {
            keep(st, api.primitive_desc_create(&pd, desc, NULL, api.engine, NULL));
        }
    }
    return pd;
}

/* ---- operations ------------------------------------------------------------------------------ */

/* The weights b (layout b_md) in the layout that the product asks for; *b is replaced. */
static void reorder(struct state *st, const void *pd, const void *b_md, void **b)
{
    if (st->status != 0) {
        return;
    }
    const void *wanted = api.primitive_desc_query_md(pd, QUERY_WEIGHTS, 0);
    st->packed = bench_alloc(api.memory_desc_get_size(wanted), 1);
    keep(st, st->packed == NULL);
    void *to = memory(st, wanted, st->packed), *reorder_pd = NULL, *primitive = NULL;
    if (st->status == 0) {
        keep(st, api.reorder_primitive_desc_create(&reorder_pd, b_md, api.engine, wanted,
                                                   api.engine, NULL));
    }
    if (st->status == 0) {
        keep(st, api.primitive_create(&primitive, reorder_pd));
        api.primitive_desc_destroy(reorder_pd);
    }
    if (st->status == 0) {
        const exec_arg args[] = {{ARG_SRC, *b}, {ARG_DST, to}};
        keep(st, api.primitive_execute(primitive, api.stream, 2, args));
        keep(st, api.stream_wait(api.stream));
        api.primitive_destroy(primitive);
    }
    *b = to;
}

static void open_product(struct state *st, const struct problem *p, const void *const in[],
                         float *out)
{
    int64_t m = p->dim[0], n = p->dim[1], k = p->dim[2];
    int ta = p->op->trans_a == T2K_TRANS, tb = p->op->trans_b == T2K_TRANS;
    void *a_md = ta ? matrix(st, m, k, 1, m) : matrix(st, m, k, k, 1);
    void *b_md = tb ? matrix(st, k, n, 1, k) : matrix(st, k, n, n, 1);
    void *c_md = matrix(st, m, n, n, 1);
    void *any = p->op->packed ? describe(st, 2, (dims_t){k, n}, NULL) : b_md;
    void *pd = matmul(st, a_md, any, c_md), *b = memory(st, b_md, in[1]);
    if (p->op->packed) {
        reorder(st, pd, b_md, &b);
    }
    add_step(st, pd, 3,
             (exec_arg[]){{ARG_SRC, memory(st, a_md, in[0])},
                          {ARG_WEIGHTS, b},
                          {ARG_DST, memory(st, c_md, out)}});
}

static void open_batched(struct state *st, const struct problem *p, const void *const in[],
                         float *out)
{
    int64_t b = p->dim[0], m = p->dim[1], n = p->dim[2], k = p->dim[3];
    void *a_md = describe(st, 3, (dims_t){b, m, k}, (dims_t){k, b * k, 1});
    void *b_md = describe(st, 3, (dims_t){b, k, n}, (dims_t){k, 1, b * k});
    void *c_md = describe(st, 3, (dims_t){b, m, n}, (dims_t){m * n, n, 1});
    add_step(st, matmul(st, a_md, b_md, c_md), 3,
             (exec_arg[]){{ARG_SRC, memory(st, a_md, in[0])},
                          {ARG_WEIGHTS, memory(st, b_md, in[1])},
                          {ARG_DST, memory(st, c_md, out)}});
}

/* U * (c s) by broadcasting or, dense, by a product with a matrix of which only the diagonal ever
 * changes; then the product with V^T. */
static void open_rebuild(struct state *st, const struct problem *p, const void *const in[],
                         float *out)
{
    int64_t m = p->dim[0], n = p->dim[1], r = p->dim[2];
    int dense = p->op == &bench_op_svd_rebuild_dense;
    float *product = scratch(st, p, (m + (dense ? r : 1)) * r);
    if (product == NULL) {
        return;
    }
    st->scale = product + m * r;
    st->scale_step = dense ? r + 1 : 1;
    st->s = in[2];
    st->r = r;
    void *u_md = matrix(st, m, r, r, 1), *s_md = matrix(st, dense ? r : 1, r, r, 1);
    void *v_md = matrix(st, r, n, 1, r), *w_md = matrix(st, m, n, n, 1);
    void *scaled = memory(st, u_md, product);
    void *first = dense ? matmul(st, u_md, s_md, u_md) : binary(st, BINARY_MUL, u_md, s_md, u_md);
    add_step(st, first, 3,
             (exec_arg[]){{ARG_SRC, memory(st, u_md, in[0])},
                          {dense ? ARG_WEIGHTS : ARG_SRC_1, memory(st, s_md, st->scale)},
                          {ARG_DST, scaled}});
    add_step(st, matmul(st, u_md, v_md, w_md), 3,
             (exec_arg[]){{ARG_SRC, scaled},
                          {ARG_WEIGHTS, memory(st, v_md, in[1])},
                          {ARG_DST, memory(st, w_md, out)}});
}

/* Layer or RMS normalisation; with a residual, a sum goes before it. */
static void open_norm(struct state *st, const struct problem *p, const void *const in[], float *out)
{
    int is_rms = p->op == &bench_op_rms_norm || p->op == &bench_op_rms_norm_residual;
    int residual = p->op == &bench_op_layer_norm_residual || p->op == &bench_op_rms_norm_residual;
    int64_t rows = p->rows, cols = p->cols;
    void *md = matrix(st, rows, cols, cols, 1), *one = describe(st, 1, (dims_t){cols}, (dims_t){1});
    void *x = memory(st, md, in[0]);
    if (residual) {
        void *sum = memory(st, md, scratch(st, p, rows * cols));
        add_step(st, binary(st, BINARY_ADD, md, md, md), 3,
                 (exec_arg[]){{ARG_SRC, x}, {ARG_SRC_1, memory(st, md, in[1])}, {ARG_DST, sum}});
        x = sum;
    }
    add_step(st, layer_norm(st, md, rows, is_rms), is_rms ? 3 : 4,
             (exec_arg[]){{ARG_SRC, x},
                          {ARG_DST, memory(st, md, out)},
                          {ARG_SCALE, memory(st, one, in[1 + residual])},
                          {ARG_SHIFT, is_rms ? NULL : memory(st, one, in[2 + residual])}});
}

static void open_softmax(struct state *st, const struct problem *p, const void *const in[],
                         float *out)
{
    void *md = matrix(st, p->rows, p->cols, p->cols, 1);
    add_step(st, softmax(st, md), 2,
             (exec_arg[]){{ARG_SRC, memory(st, md, in[0])}, {ARG_DST, memory(st, md, out)}});
}

static void open_eltwise(struct state *st, const struct problem *p, const void *const in[],
                         float *out)
{
    const struct bench_op *op = p->op;
    int alg = op == &bench_op_exp         ? api.exp
              : op == &bench_op_gelu      ? api.gelu
              : op == &bench_op_gelu_tanh ? api.gelu_tanh
              : op == &bench_op_silu      ? api.swish
                                          : api.relu;
    void *md = describe(st, 1, (dims_t){p->rows * p->cols}, (dims_t){1});
    add_step(st, eltwise(st, alg, md), 2,
             (exec_arg[]){{ARG_SRC, memory(st, md, in[0])}, {ARG_DST, memory(st, md, out)}});
}

static void open_binary(struct state *st, const struct problem *p, const void *const in[],
                        float *out)
{
    int add = strcmp(p->op->name, "add") == 0;
    void *md = matrix(st, p->rows, p->cols, p->cols, 1);
    void *other = add ? md : matrix(st, 1, p->cols, p->cols, 1);
    add_step(st, binary(st, add ? BINARY_ADD : BINARY_MUL, md, other, md), 3,
             (exec_arg[]){{ARG_SRC, memory(st, md, in[0])},
                          {ARG_SRC_1, memory(st, other, in[1])},
                          {ARG_DST, memory(st, md, out)}});
}

/* Names of operations between blanks. */
static const struct {
    const char *ops;
    void (*open)(struct state *st, const struct problem *p, const void *const in[], float *out);
} operations[] = {{" sgemm sgemm_nt sgemm_tn sgemm_tt sgemm_packed sgemm_fast ", open_product},
                  {" sgemm_batched ", open_batched},
                  {" svd_rebuild svd_rebuild_dense ", open_rebuild},
                  {" softmax ", open_softmax},
                  {" layer_norm layer_norm_residual rms_norm rms_norm_residual ", open_norm},
                  {" exp relu gelu gelu_tanh silu ", open_eltwise},
                  {" add scale_columns ", open_binary}};

/* ---- the contender --------------------------------------------------------------------------- */

static void close_state(void *state)
{
    struct state *st = state;
    for (int i = 0; i < st->steps; i++) {
        api.primitive_destroy(st->step[i].primitive);
    }
    for (int i = 0; i < st->memories; i++) {
        if (st->memory[i] != NULL) {
            api.memory_destroy(st->memory[i]);
        }
    }
    for (int i = 0; i < st->mds; i++) {
        if (api.major == 3 && st->md[i] != NULL) {
            api.memory_desc_destroy(st->md[i]);
        } else if (api.major == 2) {
            free(st->md[i]);
        }
    }
    if (st->p != NULL) {
        bench_scratch_give(st->p);
    }
    free(st->packed);
    free(st);
}

static int run(void *state)
{
    struct state *st = state;
    int status = 0;
    for (int64_t i = 0; i < st->r; i++) {
        st->scale[i * st->scale_step] = rebuild_c * st->s[i];
    }
    for (int i = 0; i < st->steps; i++) {
        status |= api.primitive_execute(st->step[i].primitive, api.stream, st->step[i].count,
                                        st->step[i].arg);
    }
    return status | api.stream_wait(api.stream);
}

static int open_case(const struct problem *p, const char *isa, const void *const in[], float *out,
                     void **state, char *error, size_t size)
{
    (void)isa;
    size_t i = 0, count = sizeof operations / sizeof operations[0];
    char name[64];
    snprintf(name, sizeof name, " %s ", p->op->name);
    while (i < count && strstr(operations[i].ops, name) == NULL) {
        i++;
    }
    if (i == count) {
        snprintf(error, size, "not offered by oneDNN as one call");
        return 1;
    }
    struct state *st = calloc(1, sizeof *st);
    if (st == NULL) {
        snprintf(error, size, "out of memory");
        return -1;
    }
    operations[i].open(st, p, in, out);
    if (st->status != 0) {
        int status = st->status;
        snprintf(error, size, "oneDNN refuses it: status %d", status);
        close_state(st);
        return status == UNIMPLEMENTED ? 1 : -1;
    }
    *state = st;
    return 0;
}

const struct contender contender_onednn = {
    .load = load, .open = open_case, .run = run, .close = close_state};
