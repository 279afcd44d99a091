/* t2_experts.h - experts and how they are applied: the part of t2.h (which includes it) on top of
 * factors. Formulas, file format and the cost of each way: docs/experts.md. */
#ifndef T2_EXPERTS_H
#define T2_EXPERTS_H

#include "t2.h"
#include "t2_factors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- experts ------------------------------------------------------------------------------ */

typedef enum t2_expert_kind {
    T2_EXPERT_SVF = 0,    /* scales singular values: W' = U diag(S') V^T */
    T2_EXPERT_CHANNEL = 1 /* scales outputs: y = a * (x W^T + b) */
} t2_expert_kind;

/* From a stored vector p to scales a. */
typedef enum t2_squash {
    T2_SQUASH_SIGMOID = 0,   /* a = max_mult / (1 + exp(-p)) */
    T2_SQUASH_IDENTITY = 1,  /* a = p */
    T2_SQUASH_RELU_DELTA = 2 /* S' = max(0, S + strength * p), without a */
} t2_squash;

/* What a stored vector means. With `normalise` S' = c a S with c = sum(S) / sum(S a), so that the
 * sum of the singular values stays; else c = 1. relu-delta has no normaliser, nor has CHANNEL. */
typedef struct t2_expert_form {
    t2_expert_kind kind;
    t2_squash squash;
    float max_mult; /* > 0 */
    float strength;
    int normalise;
} t2_expert_form;

/* A vector of an expert: of the matrix `name` of a factor file (r values), or of the weight `name`
 * of a model (m values, CHANNEL). */
typedef struct t2_expert_vector {
    const char *name;
    int64_t size;
    const float *p;
} t2_expert_vector;

/* An expert in memory: immutable, counted by references, free to share between threads. */
typedef struct t2_expert t2_expert;

/* Reads an expert file (safetensors): T2_ERR_FORMAT names file, tensor or key, expected, found. */
T2_API t2_status t2_expert_open(const char *path, t2_expert **expert, t2_error *err);

/* Copies everything. Vectors are put in the order of their names, none twice; values finite.
 * `factors_hash` and `base_hash` may be NULL for CHANNEL; metadata keys beginning with "t2." are
 * refused. */
typedef struct t2_expert_args {
    size_t size; /* sizeof(t2_expert_args) */
    const char *name;
    t2_expert_form form;
    const char *factors_hash, *base_hash;
    const t2_expert_vector *vectors;
    int64_t count;
    const t2_pair *metadata; /* a record of training, or what else */
    size_t metadata_count;
} t2_expert_args;
T2_API t2_status t2_expert_create(const t2_expert_args *args, t2_expert **expert, t2_error *err);

/* An expert for all matrices of the factors (SVF), or all linear layers of the model (CHANNEL),
 * that changes nothing; deviation > 0: with normal numbers of that size added to what it stores.
 * The same on every CPU. */
T2_API t2_status t2_expert_new(const t2_expert_form *form, const char *name,
                               const t2_factors *factors, const t2_model *model, double deviation,
                               uint64_t seed, t2_expert **expert, t2_error *err);

/* Atomic; the same expert gives the same bytes. */
T2_API t2_status t2_expert_write(const t2_expert *expert, const char *path, t2_error *err);

T2_API t2_expert *t2_expert_retain(t2_expert *expert);
T2_API void t2_expert_release(t2_expert *expert); /* NULL is allowed */

T2_API const char *t2_expert_name(const t2_expert *expert);
T2_API const t2_expert_form *t2_expert_get_form(const t2_expert *expert);
T2_API const char *t2_expert_factors_hash(const t2_expert *expert); /* "" where unknown */
T2_API const char *t2_expert_base_hash(const t2_expert *expert);
T2_API int64_t t2_expert_count(const t2_expert *expert);
T2_API const t2_expert_vector *t2_expert_get(const t2_expert *expert, int64_t index);
/* NULL if the expert leaves that matrix as it is. */
T2_API const t2_expert_vector *t2_expert_find(const t2_expert *expert, const char *name);
T2_API size_t t2_expert_metadata_count(const t2_expert *expert);
T2_API const t2_pair *t2_expert_metadata(const t2_expert *expert, size_t index);
T2_API size_t t2_expert_bytes(const t2_expert *expert); /* of memory */

/* T2_ERR_FORMAT where an SVF expert does not belong to these factors: the hash, a name or a rank
 * differs; both values are named. */
T2_API t2_status t2_expert_check(const t2_expert *expert, const t2_factors *factors, t2_error *err);

/* What an SVF expert makes of matrix `index` of the factors (an absent vector: a = z = 1):
 * scaled (r) the new singular values S', z (r) = S' / S as factors c * a, a (r), *c. Each may be
 * NULL. Sums in double, in rising order. T2_ERR_NUMERIC: sum(S a) <= 1e-12 sum(S), a value is not
 * finite, or all are zero. relu-delta has z = S'/S (1 where S = 0) and a = z, c = 1. */
T2_API t2_status t2_expert_scales(const t2_expert *expert, const t2_factors *factors, int64_t index,
                                  float *scaled, float *z, float *a, double *c, t2_error *err);

/* ---- mixtures ----------------------------------------------------------------------------- */

/* How experts k with weights alpha become one, matrix by matrix. z_k = c_k a_k. */
typedef enum t2_mix_rule {
    T2_MIX_ZEFF = 0,  /* z = sum alpha_k z_k */
    T2_MIX_A = 1,     /* a = sum alpha_k a_k, then z = c a */
    T2_MIX_DELTA = 2, /* z = max(0, 1 + sum alpha_k (z_k - 1)); where that cut a component off,
                         z * sum(S) / sum(S z) */
    T2_MIX_RAW = 3    /* a = sum alpha_k p_k, then z = c a: as published, for comparison */
} t2_mix_rule;

/* Largest weight of a mixture by magnitude. */
#define T2_MIX_LIMIT 1000.0

/* Mixes SVF experts of the same factors into one that stores z (squash identity): with normaliser
 * by rules A and RAW, without by the others. alpha: (count), or with per_matrix (count, matrices of
 * the factors; SVF only); finite, |alpha| <= T2_MIX_LIMIT, zero and negative too. CHANNEL experts
 * mix by ZEFF and without factors. An expert without a vector for a matrix has z = a = 1 there
 * (RAW: an error). T2_ERR_NUMERIC as t2_expert_scales(). */
T2_API t2_status t2_expert_mix(const t2_factors *factors, t2_mix_rule rule,
                               const t2_expert *const *experts, int64_t count, const double *alpha,
                               int per_matrix, const char *name, t2_expert **mixed, t2_error *err);

/* z = 1 + factor * (z - 1): less or more of an expert. */
T2_API t2_status t2_expert_scale(const t2_expert *expert, const t2_factors *factors, double factor,
                                 const char *name, t2_expert **scaled, t2_error *err);

/* ---- to and from other programs ----------------------------------------------------------- */

typedef struct t2_import_args {
    size_t size; /* sizeof(t2_import_args) */
    const t2_factors *factors;
    const char *name;         /* of the expert */
    const char *prefix;       /* only tensors that begin with it; it is left off. NULL: all */
    const char *const *order; /* names of matrices by position, for "..._module_list.7" */
    int64_t order_count;
    t2_expert_form form; /* what the values mean; as published: sigmoid, max_mult 1, normaliser */
} t2_import_args;

/* An SVF expert from a safetensors file of F32 or BF16 vectors, named by the matrices of the
 * factors, by position, or by the short names that docs/experts.md lists. */
T2_API t2_status t2_expert_import(const char *path, const t2_import_args *args, t2_expert **expert,
                                  t2_error *err);

/* Writes the model's safetensors file again, with the weights that the expert changes replaced by
 * W' (CHANNEL: rows and biases multiplied): all others keep their bytes. `model` is a folder or a
 * file; atomic. T2_ERR_FORMAT where the factors were made from other weights. */
T2_API t2_status t2_expert_merge(const char *model, const t2_factors *factors,
                                 const t2_expert *expert, const char *out, t2_error *err);

/* ---- applying ----------------------------------------------------------------------------- */

/* Three ways to compute with W' = U diag(S') V^T, equal to rounding. */
typedef enum t2_way {
    T2_WAY_PLAN = 0,     /* by the cost model of docs/experts.md: the same on every machine */
    T2_WAY_REBUILD = 1,  /* y = x W'^T, with W' computed once: one expert for all rows */
    T2_WAY_FACTORED = 2, /* y = ((x V) * S') U^T: every row may have its own expert */
    T2_WAY_DELTA = 3,    /* y = x W^T + ((x V_k) * (S'_k - S_k)) U_k^T: exact for base rows */
    T2_WAY_AUTO = 4      /* by what was measured on this machine: other machines, other bits */
} t2_way;

T2_API const char *t2_way_str(t2_way way); /* "rebuild"; never NULL */

/* Work that a plan expects. */
typedef struct t2_workload {
    int64_t rows; /* rows (tokens) of a call; 0: 32 */
    double swaps; /* experts that are put in place for each call; 0: once and never again */
    int hetero;   /* rows of one call have several experts */
} t2_workload;

/* Expected nanoseconds of a call with a matrix (m, n, r) and k changed components, with its part of
 * the swaps; by the constants of docs/experts.md. */
T2_API double t2_way_cost(t2_way way, int64_t m, int64_t n, int64_t r, int64_t k,
                          const t2_workload *workload);

/* A model with its factors, ready for experts: U and V are packed once for all of them, where first
 * needed. Model and factors must stay open as long; factors may be NULL where only CHANNEL experts
 * are applied. T2_ERR_FORMAT where a matrix of the factors does not belong to the model. */
typedef struct t2_adapter t2_adapter;
enum { T2_ADAPTER_TRUST = 1 /* do not compare the SHA-256 of the model's weights */ };
T2_API t2_status t2_adapter_create(const t2_model *model, const t2_factors *factors, unsigned flags,
                                   t2_adapter **adapter, t2_error *err);

/* The same for linear layers of the caller's own, y (rows, out) = x (rows, in) W^T + bias. */
typedef struct t2_layer {
    const char *tensor; /* the weight's name, as in the factor file */
    int64_t in, out;
    const float *weight; /* (out, in) */
    const float *bias;   /* (out) or NULL */
} t2_layer;
T2_API t2_status t2_adapter_create_layers(const t2_layer *layers, int64_t count,
                                          const t2_factors *factors, unsigned flags,
                                          t2_adapter **adapter, t2_error *err);

/* All adaptations must be released and all sessions detached or gone. */
T2_API void t2_adapter_destroy(t2_adapter *adapter);

/* One or more experts in a form to compute with; immutable, counted by references. */
typedef struct t2_adaptation t2_adaptation;

typedef struct t2_adapt_args {
    size_t size; /* sizeof(t2_adapt_args) */
    const t2_expert *const *experts;
    int64_t count;       /* K */
    const double *alpha; /* (rows, K): each row a mixture of the experts; NULL: each expert a row */
    int64_t rows;        /* of alpha */
    t2_mix_rule rule;    /* for alpha */
    t2_way way;
    t2_workload workload; /* for T2_WAY_PLAN and T2_WAY_AUTO */
    int64_t components;   /* T2_WAY_DELTA: at most that many largest changes; 0: all */
} t2_adapt_args;
T2_API t2_status t2_adaptation_create(const t2_adapter *adapter, const t2_adapt_args *args,
                                      t2_adaptation **adaptation, t2_error *err);
T2_API t2_adaptation *t2_adaptation_retain(t2_adaptation *adaptation);
T2_API void t2_adaptation_release(t2_adaptation *adaptation);

T2_API int64_t t2_adaptation_rows(const t2_adaptation *adaptation);
T2_API uint64_t t2_adaptation_tag(const t2_adaptation *adaptation); /* its own; never 0 */
T2_API size_t t2_adaptation_bytes(const t2_adaptation *adaptation); /* of memory, its own */

/* What was decided for a matrix, and why. */
typedef struct t2_plan_entry {
    const char *name;
    int64_t m, n, r;
    int64_t changed;    /* components that differ from the base in some row of the adaptation */
    int64_t used;       /* of them in use: fewer only where `components` says so */
    t2_way way;         /* T2_WAY_PLAN where nothing changes: the base's own product */
    double cost[3];     /* expected ns of rebuild, factored, delta; < 0: not possible */
    double error_bound; /* spectral norm of what DELTA left out, at most */
} t2_plan_entry;
T2_API int64_t t2_adaptation_plan_count(const t2_adaptation *adaptation);
T2_API const t2_plan_entry *t2_adaptation_plan(const t2_adaptation *adaptation, int64_t index);

/* y (rows, out) = layer `layer` of the adapter, under the adaptation's row expert_rows[i] for each
 * row of x (-1: the base; NULL: row 0 for all). y must not overlap x. threads as in
 * t2_forward_args. T2_ERR_ARG: a row that the adaptation does not have, or several in one that was
 * made by REBUILD. */
T2_API t2_status t2_adaptation_run_layer(const t2_adaptation *adaptation, int64_t layer,
                                         int64_t rows, const int64_t *expert_rows, const float *x,
                                         float *y, int threads, t2_error *err);

/* Puts an adaptation in use for all sessions of the adapter (NULL: the base), from their next call
 * on; calls that are running finish with what they began with. Any thread, at any time; a pointer
 * swap: what is no longer in use is released later, by another swap or by the adapter's end. */
T2_API t2_status t2_adapter_swap(t2_adapter *adapter, t2_adaptation *adaptation, t2_error *err);

/* Sessions take their adaptation from here; NULL: the model alone. Not while a call is running. */
T2_API t2_status t2_session_attach(t2_session *session, t2_adapter *adapter, t2_error *err);

#ifdef __cplusplus
}
#endif
#endif
