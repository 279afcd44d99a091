/* Models, blocks and their memory. Internal interface of runtime/model/. */
#ifndef T2_MODEL_H
#define T2_MODEL_H

#include "model/overlay.h"
#include "t2.h"
#include "t2k.h"

/* ---- names and shapes of tensors (spec.c) -------------------------------------------------- */

/* The tensors that every kind of block has, in the order of the notebook's state_dict. */
enum t2_weight {
    T2_IN_PROJ_WEIGHT, /* (3E, E): query, key and value rows */
    T2_IN_PROJ_BIAS,   /* (3E) */
    T2_OUT_PROJ_WEIGHT,
    T2_OUT_PROJ_BIAS,
    T2_NORM1_WEIGHT,
    T2_NORM1_BIAS,
    T2_NORM2_WEIGHT,
    T2_NORM2_BIAS,
    T2_FF0_WEIGHT, /* (fE, E) */
    T2_FF0_BIAS,
    T2_FF2_WEIGHT, /* (E, fE) */
    T2_FF2_BIAS,
    T2_WEIGHT_COUNT
};

typedef enum t2_fill { T2_FILL_CONST, T2_FILL_UNIFORM, T2_FILL_NORMAL } t2_fill;

#define T2_NAME_MAX 128

typedef struct t2_spec {
    char name[T2_NAME_MAX];
    int rank; /* 1 or 2 */
    int64_t shape[2];
    t2_fill fill; /* how PyTorch initialises it */
    double value; /* the constant, or the bound of the uniform distribution */
} t2_spec;

/* Tensors of a block: T2_WEIGHT_COUNT weights, then the scales. */
int64_t t2_block_scale_count(const t2_block_config *config);
void t2_block_spec(const t2_block_config *config, const char *prefix, int64_t index, t2_spec *spec);

/* Tensors of a model, by index; the sizes must have passed t2_config_check(). */
int64_t t2_model_tensor_count(const t2_config *config);
void t2_model_spec(const t2_config *config, int64_t index, t2_spec *spec);
t2_block_config t2_config_block(const t2_config *config);

int64_t t2_spec_elements(const t2_spec *spec);

/* *total *= factor; 0 where an argument is negative or the result does not fit. */
int t2_multiply(int64_t *total, int64_t factor);

/* ---- configuration (config.c) -------------------------------------------------------------- */

/* Reads a config.json; *ignored becomes a string to free(), the keys that have no meaning. */
t2_status t2_config_read(const char *path, t2_config *config, char **ignored, t2_error *err);
t2_status t2_config_write(const char *path, const t2_config *config, t2_error *err);
t2_status t2_block_config_check(const t2_block_config *config, t2_error *err);

/* ---- loading (load.c) ---------------------------------------------------------------------- */

/* Weights of a linear layer, packed: y (m, n) = x (m, k) * op(weight) + bias. */
typedef struct t2_linear {
    int64_t in, out;     /* k, n */
    void *packed;        /* owned */
    const float *weight; /* (out, in), in the file's mapping */
    const float *bias;   /* (out) */
    int64_t index;       /* in the model, for overlays */
} t2_linear;

t2_status t2_linear_pack(t2_linear *linear, int64_t in, int64_t out, const float *weight,
                         const float *bias, t2_error *err);
void t2_linear_free(t2_linear *linear);

/* The tensor that `spec` describes, or an error that names it, what was expected and found. */
t2_status t2_load_tensor(t2_safetensors *file, const t2_spec *spec, const float **data,
                         t2_error *err);

/* "PATH of FILE in DIR", to free(); NULL: out of memory. */
char *t2_path_join(const char *dir, const char *file);

/* Translates a failure of the kernels. */
t2_status t2_fail_kernel(t2_error *err, t2k_status status, const char *what);

/* malloc() aligned to T2K_ALIGN; count elements of `size` bytes. Released by free(). */
void *t2_alloc(int64_t count, size_t size);

/* ---- block (block.c) ----------------------------------------------------------------------- */

struct t2_block {
    t2_block_config config;
    const float *weights[T2_WEIGHT_COUNT]; /* in the file's mapping */
    const float **scales;                  /* (scale_count) of (E) each; owned */
    t2_linear in_proj;                     /* q, k and v jointly: (E) -> (3E) */
    t2_linear part[3];                     /* each alone, only where other inputs may come */
    t2_linear out_proj, ff0, ff2;
};

/* `parts`: also pack what a call with different query, key and value needs. */
t2_status t2_block_load(t2_block *block, t2_safetensors *file, const char *prefix,
                        const t2_block_config *config, int parts, t2_error *err);
void t2_block_unload(t2_block *block);

/* What one pass through blocks needs in memory, reused between passes. */
typedef struct t2_workspace {
    int64_t qkv_room, rows_room, hidden_room;
    float *qkv;       /* projections; later the attention output */
    float *heads;     /* (rows, E) concatenated heads; later the first norm's output */
    float *hidden;    /* (rows, fE) */
    double *row_sums; /* (rows) */
} t2_workspace;

/* Room for `rows` = L * N query rows and key_rows = S * N; key_rows = rows where all is one
 * tensor. */
t2_status t2_workspace_reserve(t2_workspace *workspace, int64_t embed_size, int64_t expansion,
                               int64_t rows, int64_t key_rows, t2_error *err);
/* Makes *buffer (the address of a pointer) at least count elements of `size` bytes, aligned; the
 * old content is lost. 0: out of memory. */
int t2_grow(void *buffer, int64_t *room, int64_t count, size_t size);
void t2_workspace_free(t2_workspace *workspace);

/* A mask as the attention kernel takes it. */
typedef struct t2_strided_mask {
    t2k_mask_kind kind;
    const void *data;
    int64_t item, head, row;
} t2_strided_mask;

t2_status t2_mask_resolve(const t2_mask *mask, int64_t queries, int64_t keys, int64_t heads,
                          t2_strided_mask *resolved, t2_error *err);

/* One pass through one block by a team. Pointers are shared by the team, results are equal on
 * every thread. out may be the same as query. */
typedef struct t2_block_pass {
    const float *value, *key, *query;
    int64_t queries, keys, items;
    t2_strided_mask mask;
    int64_t expert;                  /* T2_EXPERT_AUTO or in range */
    const t2_overlay_call *overlays; /* NULL: none */
    int want_mean;
    float dropout; /* 0: none */
    t2k_dropout_key dropout_key;
    float *attention; /* (L, N, E); NULL: somewhere in the workspace */
    float *out;
    t2_cache *cache; /* NULL, or where earlier keys and values are, for this layer and item 0 */
    int64_t layer, cache_item;
} t2_block_pass;

typedef struct t2_block_outcome {
    t2k_status status;
    t2_choice choice;
    int64_t chosen;
    float mean; /* NaN where it was not wanted */
} t2_block_outcome;

t2_block_outcome t2_block_run_team(t2k_team *team, const t2_block *block,
                                   const t2_workspace *workspace, const t2_block_pass *pass);

/* y (rows, out) = x (rows, in) * W + bias, activation, + residual (NULL: none); with experts where
 * `overlays` (NULL: none) has something for this layer. */
t2k_status t2_linear_team(t2k_team *team, const t2_linear *linear, const t2_overlay_call *overlays,
                          int64_t rows, const float *x, float *y, int64_t ldy,
                          t2k_activation activation, const float *residual);

/* Fails with the text for a choice; `where` names the place ("layer 3"). */
t2_status t2_fail_choice(t2_error *err, t2_choice choice, float mean, const char *where);

/* ---- threads (work.c) ---------------------------------------------------------------------- */

/* Threads for `flops` of products that read `bytes` of weights and meet `barriers` times. */
int t2_threads_for(double flops, double bytes, double barriers, int asked);
double t2_block_flops(const t2_block_config *config, int64_t queries, int64_t keys, int64_t items);
double t2_block_weight_bytes(const t2_block_config *config);
#define T2_BLOCK_BARRIERS 8.0

/* ---- model (load.c, forward.c) ------------------------------------------------------------- */

struct t2_model {
    t2_config config;
    char *ignored;
    t2_safetensors *file;
    const float *embedding; /* (V, E) */
    t2_block *blocks;       /* (num_layers) */
    t2_linear fc_out;
};

/* The linear layers by their index, and the name of such a weight. */
int64_t t2_model_linear_count(const t2_model *model);
const t2_linear *t2_model_linear(const t2_model *model, int64_t index);
void t2_model_linear_spec(const t2_model *model, int64_t index, t2_spec *spec);
void t2_model_number_linears(t2_model *model); /* once, when it is loaded */

const t2_model *t2_session_model(const t2_session *session);

/* Between the two, which may nest, all calls of the session compute with the adaptation that was in
 * use at the first: what consists of several forward passes is one call for its caller. */
void t2_session_hold(t2_session *session);
void t2_session_let_go(t2_session *session);
int t2_session_adapted(const t2_session *session); /* while it is held: by an adaptation? */

/* ---- random numbers (random.c) ------------------------------------------------------------- */

/* A Philox key for one purpose of a seed: independent of all others in practice. */
typedef struct t2_random {
    uint32_t key[2];
} t2_random;
t2_random t2_random_key(uint64_t seed, const char *purpose, uint64_t number);
uint64_t t2_random_seed(t2_random random); /* the key as one number */

/* Multiples of 2^-53 in [0, 1), from two words of a Philox block. */
double t2_random_uniform(uint32_t high, uint32_t low);

/* A normal number by Box and Muller, sqrt(-2 log u) cos(2 pi v) with u in (0, 1], in double and
 * with functions that give the same bits on every CPU. */
double t2_random_normal(const uint32_t words[4]);

#endif
