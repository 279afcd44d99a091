/* t2.h - models and files of Transformer^2: the public header of libt2, on top of libt2k.
 *
 * Conventions
 *   A function that can fail returns T2_OK or a negative t2_status and, where `err` is not NULL,
 *   explains a failure there in one line; err is left alone on success.
 *   Outputs are written only on success, except where a function says otherwise.
 *   _open/_create make an object that _close/_destroy release (NULL is allowed there).
 *   Nothing here prints, exits or changes the process. Objects that are only read may be shared
 *   between threads.
 */
#ifndef T2_H
#define T2_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define T2_API __attribute__((visibility("default")))
#else
#define T2_API
#endif

/* ---- errors ------------------------------------------------------------------------------- */

typedef enum t2_status {
    T2_OK = 0,
    T2_ERR_ARG = -1,     /* an argument is out of its documented range */
    T2_ERR_NOMEM = -2,   /* out of memory */
    T2_ERR_IO = -3,      /* the operating system refused to open, read or write */
    T2_ERR_FORMAT = -4,  /* a file was read but is malformed or does not fit the model */
    T2_ERR_ISA = -5,     /* T2K_ISA names no usable instruction set: see t2k_isa_error() */
    T2_ERR_NUMERIC = -6, /* a value that must be finite is not, such as a NaN mean */
    T2_ERR_STOPPED = -7  /* a callback asked for the end */
} t2_status;

/* The message names file, tensor or key, what was expected and what was found. It is one line
 * without control characters, valid UTF-8 where the names in it are. */
typedef struct t2_error {
    t2_status status;
    char message[512];
} t2_error;

/* A short English text for any status; never NULL. */
T2_API const char *t2_status_str(t2_status status);

/* ---- safetensors -------------------------------------------------------------------------- */

/* Element types of the safetensors format, in its order (by size, then as the reference
 * implementation lists them). Headers may hold all of them. */
typedef enum t2_dtype {
    T2_BOOL, /* one byte, 0 or 1 */
    T2_F4,
    T2_F6_E2M3,
    T2_F6_E3M2,
    T2_U8,
    T2_I8,
    T2_F8_E5M2,
    T2_F8_E4M3,
    T2_F8_E8M0,
    T2_I16,
    T2_U16,
    T2_F16,
    T2_BF16,
    T2_I32,
    T2_U32,
    T2_F32,
    T2_C64, /* two F32 */
    T2_F64,
    T2_I64,
    T2_U64,
    T2_DTYPE_COUNT
} t2_dtype;

/* The name as it stands in a file ("F32"); NULL for a value outside the enumeration. */
T2_API const char *t2_dtype_name(t2_dtype dtype);

/* Bits per element: 4 and 6 occur; 0 for a value outside the enumeration. */
T2_API int t2_dtype_bits(t2_dtype dtype);

/* Zero when `name` is unknown; else 1 and *dtype. */
T2_API int t2_dtype_from_name(const char *name, t2_dtype *dtype);

/* A named array, little-endian in C order. */
typedef struct t2_tensor {
    const char *name; /* UTF-8 */
    t2_dtype dtype;
    int rank;             /* 0 is a scalar */
    const int64_t *shape; /* (rank), may be NULL for rank 0 */
    const void *data;     /* of `bytes` bytes; in an opened file perhaps not aligned */
    size_t bytes;
} t2_tensor;

/* Number of elements. The shape must be one that t2_safetensors_open() or _write() accepts. */
T2_API int64_t t2_tensor_elements(const t2_tensor *tensor);

/* The fingerprint of t2k_fingerprint_f32(), for any alignment; of other dtypes over the dtype's
 * name, rank and shape in the same way, then the bytes as they are. */
T2_API uint64_t t2_tensor_fingerprint(const t2_tensor *tensor);

/* An opened safetensors file. It is checked in full as strictly as the reference implementation
 * does: header of at most 100 000 000 bytes, valid JSON and UTF-8; ranges in order without hole
 * or overlap up to the very end of the file; sizes that fit dtype and shape. Stricter than that:
 * the header starts with '{', no name occurs twice, no name holds U+0000, and a tensor is
 * described by an object (not by a list). */
typedef struct t2_safetensors t2_safetensors;

enum {
    /* Read the file into memory instead of mapping it: a mapped file must not be truncated while
     * it is open (reading the lost part would raise SIGBUS). */
    T2_SAFETENSORS_NO_MMAP = 1
};

/* T2_ERR_IO where the file cannot be read, T2_ERR_FORMAT where it is not valid. */
T2_API t2_status t2_safetensors_open(const char *path, unsigned flags, t2_safetensors **file,
                                     t2_error *err);
/* The same on a file in memory, which must outlive the object; `name` stands in messages. */
T2_API t2_status t2_safetensors_open_memory(const char *name, const void *data, size_t size,
                                            t2_safetensors **file, t2_error *err);
/* Releases everything, also the arrays that the functions below handed out. */
T2_API void t2_safetensors_close(t2_safetensors *file);

/* The path (or name) that was opened. */
T2_API const char *t2_safetensors_path(const t2_safetensors *file);

/* Tensors by index, in the order of their data; NULL beyond the last one. */
T2_API size_t t2_safetensors_count(const t2_safetensors *file);
T2_API const t2_tensor *t2_safetensors_tensor(const t2_safetensors *file, size_t index);

/* The tensor of that name, NULL if there is none. */
T2_API const t2_tensor *t2_safetensors_find(const t2_safetensors *file, const char *name);

/* Elements of a tensor of this file, aligned for their type: the file's own bytes where these
 * are aligned, else a copy that the file object owns. A tensor of another dtype is
 * T2_ERR_FORMAT, one that is not of this file T2_ERR_ARG. May be called from many threads. */
T2_API t2_status t2_safetensors_f32(t2_safetensors *file, const t2_tensor *tensor,
                                    const float **data, t2_error *err);
T2_API t2_status t2_safetensors_f64(t2_safetensors *file, const t2_tensor *tensor,
                                    const double **data, t2_error *err);
T2_API t2_status t2_safetensors_i64(t2_safetensors *file, const t2_tensor *tensor,
                                    const int64_t **data, t2_error *err);

/* Free-form pairs of strings in the header ("__metadata__"), in the order of the file. */
typedef struct t2_pair {
    const char *key;
    const char *value;
} t2_pair;
T2_API size_t t2_safetensors_metadata_count(const t2_safetensors *file);
T2_API const t2_pair *t2_safetensors_metadata(const t2_safetensors *file, size_t index);
/* The value of a key, NULL if there is none. */
T2_API const char *t2_safetensors_metadata_find(const t2_safetensors *file, const char *key);

/* Writes a file that t2_safetensors_open() accepts; the same input gives the same bytes. Tensors
 * lie in the order of the reference implementation (dtype descending, then name), metadata is
 * sorted by key, data starts at a multiple of 8. bytes must be what dtype and shape say.
 * Atomic, as t2_write_file_atomic(). */
T2_API t2_status t2_safetensors_write(const char *path, const t2_tensor *tensors, size_t count,
                                      const t2_pair *metadata, size_t metadata_count,
                                      t2_error *err);

/* Replaces a file by a temporary one in the same directory, fsync() and rename(): a reader sees
 * the old content or the new one, and after any failure the old file stands and no temporary one
 * is left. Mode bits of an existing file are kept and symbolic links are followed. Where path is
 * a device or pipe (/dev/stdout), it is simply written to. */
T2_API t2_status t2_write_file_atomic(const char *path, const void *data, size_t size,
                                      t2_error *err);

/* ---- configuration ------------------------------------------------------------------------ */

typedef enum t2_model_mask {
    T2_MODEL_MASK_NONE = 0,  /* every position sees every position: the notebook's model */
    T2_MODEL_MASK_CAUSAL = 1 /* trained with position i seeing 0 .. i only */
} t2_model_mask;

/* What config.json of a model says. Required there: model_type "transformer2", vocab_size,
 * embed_size, num_layers, heads, dropout, forward_expansion, num_experts. Optional: mask "none" |
 * "causal", max_length, norm_eps, and, with the one value that is supported, positions "none",
 * norm "layer", norm_placement "post", activation "relu", tie_embeddings false. */
typedef struct t2_config {
    int64_t vocab_size;        /* V, 1 .. 2^31 - 1 */
    int64_t embed_size;        /* E, a multiple of heads */
    int64_t num_layers;        /* 0 or more */
    int64_t heads;             /* H >= 1 */
    double dropout;            /* p, 0 .. 1; acts in training mode only */
    int64_t forward_expansion; /* f >= 1: the feed-forward layer is f * E wide */
    int64_t num_experts;       /* n >= 0; with 0 every automatic choice is an error */
    t2_model_mask mask;        /* what the caller should use: t2_forward() goes by its arguments */
    double norm_eps;           /* 1e-5 */
    int64_t max_length;        /* positions the model was trained for; 0: no limit is known */
} t2_config;

/* The notebook's example: Transformer2Model(1000, 256, 4, 8, 0.1, 4, 3), no mask. */
T2_API void t2_config_example(t2_config *config);

/* T2_ERR_ARG with a message when a field is out of its range or the sizes overflow. */
T2_API t2_status t2_config_check(const t2_config *config, t2_error *err);

/* Number of parameters; -1 for a configuration that t2_config_check() refuses. */
T2_API int64_t t2_config_parameters(const t2_config *config);

/* ---- model -------------------------------------------------------------------------------- */

/* The notebook's Transformer2Model: embedding, num_layers blocks that choose one of num_experts
 * channel scales each, fc_out. Immutable once opened; any number of sessions, on any number of
 * application threads, may share it. Its weights are packed for the instruction set in use when
 * it was opened. */
typedef struct t2_model t2_model;

/* Opens the folder `dir`: config.json and model.safetensors with the names and shapes of the
 * notebook's state_dict, all F32, none missing and none more. `flags` as for
 * t2_safetensors_open(). T2_ERR_FORMAT names file, tensor or key, expected and found. */
T2_API t2_status t2_model_open(const char *dir, unsigned flags, t2_model **model, t2_error *err);
T2_API void t2_model_close(t2_model *model);

T2_API const t2_config *t2_model_config(const t2_model *model);

/* Keys of config.json that mean nothing to this version, separated by ", "; "" if none. */
T2_API const char *t2_model_ignored_keys(const t2_model *model);

/* Writes `dir`/config.json and `dir`/model.safetensors with random weights in PyTorch's default
 * distributions: embedding N(0,1); in_proj_weight U(+-sqrt(6 / 4E)), its bias and out_proj.bias
 * 0; other linear weights and biases U(+-1/sqrt(inputs)); norms 1 and 0; scales 1. Depends on
 * config and seed only and is the same on every CPU. Makes the folder if it is missing; replaces
 * files that exist. */
T2_API t2_status t2_init_model(const char *dir, const t2_config *config, uint64_t seed,
                               t2_error *err);

/* ---- choosing an expert ------------------------------------------------------------------- */

#define T2_EXPERT_AUTO (-1)

typedef enum t2_choice {
    T2_CHOICE_OK = 0,
    T2_CHOICE_NAN_MEAN = 1,  /* Python: ValueError */
    T2_CHOICE_INF_MEAN = 2,  /* Python: OverflowError */
    T2_CHOICE_NO_EXPERTS = 3 /* Python: ZeroDivisionError */
} t2_choice;

/* The notebook's rule int(mean * n) % n: truncation towards zero, then a remainder that is never
 * negative. *index is written only with T2_CHOICE_OK. n < 0 counts as 0. */
T2_API t2_choice t2_choose_expert(float mean, int64_t n, int64_t *index);

/* "nan_mean", "inf_mean", "no_experts", "ok"; never NULL. */
T2_API const char *t2_choice_str(t2_choice choice);

/* ---- forward pass ------------------------------------------------------------------------- */

typedef enum t2_mask_kind {
    T2_MASK_NONE = 0,
    T2_MASK_CAUSAL = 1, /* made inside: query l sees keys 0 .. l */
    T2_MASK_BOOL = 2,   /* uint8_t: nonzero = blocked */
    T2_MASK_ADD = 3     /* float, added to the scaled scores; -Inf = blocked */
} t2_mask_kind;

/* `data` is (L, S), or with per_head (N * H, L, S) with item n and head h at n * H + h. L queries,
 * S keys (S = L in a model). A query with every key blocked becomes NaN, the notebook's rule. */
typedef struct t2_mask {
    t2_mask_kind kind;
    int per_head;
    const void *data; /* for BOOL and ADD */
} t2_mask;

/* The mask in a tensor of an opened file (BOOL or F32), which must stay open as long as the mask
 * is used. T2_ERR_FORMAT where dtype or shape do not fit. */
T2_API t2_status t2_mask_from_tensor(t2_safetensors *file, const t2_tensor *tensor, int64_t queries,
                                     int64_t keys, int64_t items, int64_t heads, t2_mask *mask,
                                     t2_error *err);

/* Memory for the activations of one forward pass at a time, kept between calls; it grows as
 * needed. `tokens` (length * items) is what it has room for from the start; 0 is fine. */
typedef struct t2_session t2_session;
T2_API t2_status t2_session_create(const t2_model *model, int64_t tokens, t2_session **session,
                                   t2_error *err);
T2_API void t2_session_destroy(t2_session *session); /* the model must still be open */

typedef struct t2_forward_args {
    size_t size;         /* sizeof(t2_forward_args) */
    const int64_t *ids;  /* (L, N), sequence first; (L) is N = 1 */
    int64_t length;      /* L */
    int64_t items;       /* N */
    t2_mask mask;        /* all zero: none */
    int64_t expert;      /* T2_EXPERT_AUTO, or this one in every layer */
    int training;        /* nonzero: dropout acts, as in the notebook, which never calls eval() */
    uint64_t seed, step; /* of the dropout: equal numbers give equal results */
    int threads;         /* exact; 0: as many as pay, up to t2k_get_num_threads() */
    int64_t first;       /* logits are wanted for positions first .. L-1 only; 0: all */
    float *logits;       /* out: (L - first, N, V) */
    int *experts;        /* out: (num_layers) the chosen ones; or NULL */
    float *means;        /* out: (num_layers) mean of each attention output; or NULL */
    t2_choice *choice;   /* out: why no expert could be chosen, also after failure; or NULL */
    /* Experts from files replace the model's own choice, for all layers: `experts` becomes -1. */
    const struct t2_adaptation *adaptation; /* NULL: the one in use in the session's adapter */
    const int64_t *expert_rows; /* (L, N) rows of the adaptation, -1: the base; NULL: 0 for all */
    uint64_t *tag;              /* out: of the adaptation that was used, 0 for none; or NULL */
    /* NULL, or where the sequences' earlier positions are kept: see t2_cache below. */
    struct t2_cache *cache;
    int64_t cache_item; /* item 0 of the call is this one of the cache, the others follow it */
} t2_forward_args;

/* One forward pass in one parallel region. The result has the same bits on every CPU and for any
 * number of threads. With T2_EXPERT_AUTO all rows of a batch share each layer's choice, which
 * depends on all of them (the notebook's rule).
 *   T2_ERR_ARG      an id is outside the vocabulary (position and id are named), a bad argument
 *   T2_ERR_NUMERIC  no expert can be chosen: NaN mean (also where L or N is 0), infinite mean, no
 *                   experts; the layer is named
 * After a failure logits, experts and means may hold a part of the results. */
T2_API t2_status t2_forward(t2_session *session, const t2_forward_args *args, t2_error *err);

/* The number of threads that t2_forward() uses; `threads` as in its arguments. */
T2_API int t2_forward_threads(const t2_config *config, int64_t length, int64_t items, int threads);

/* Floating-point operations of the matrix products of one forward pass. */
T2_API double t2_forward_flops(const t2_config *config, int64_t length, int64_t items);

/* The fingerprint of logits (length, items, V): t2k_fingerprint_f32() of that shape. */
T2_API uint64_t t2_logits_fingerprint(const t2_config *config, int64_t length, int64_t items,
                                      const float *logits);

/* ---- decoding with a cache ---------------------------------------------------------------- */

/* Keys and values of `items` sequences with up to `positions` positions each. t2_forward() with a
 * cache takes new positions (L >= 1) of N neighbouring items, which may have different lengths, and
 * appends them: ids, expert_rows and logits are of the new ones. Their logits have the same bits as
 * those of a full pass with a causal mask, however the positions are split into calls and whatever
 * other items there are. `means` are over the new positions. T2_ERR_ARG, and no change of the
 * cache:
 *   - the mask is not T2_MASK_CAUSAL, there is dropout, or there is no room;
 *   - T2_EXPERT_AUTO without an adaptation where a layer's scales differ: that choice depends on
 *     all positions of all items. Where they are all alike, the choice that is reported is by the
 *     mean over the new positions; it must be possible, as in a full pass;
 *   - items were computed under another adaptation or expert, an item under another row.
 * A cache is for one call at a time; its model must stay open. */
typedef struct t2_cache t2_cache;
T2_API t2_status t2_cache_create(const t2_model *model, int64_t positions, int64_t items,
                                 t2_cache **cache, t2_error *err);
T2_API void t2_cache_destroy(t2_cache *cache);

T2_API void t2_cache_reset(t2_cache *cache); /* all items are empty, for any expert */
/* Makes room for that many positions of each item; what is kept stays. */
T2_API t2_status t2_cache_reserve(t2_cache *cache, int64_t positions, t2_error *err);

T2_API int64_t t2_cache_length(const t2_cache *cache, int64_t item); /* -1: no such item */
T2_API size_t t2_cache_bytes(const t2_cache *cache);                 /* of memory */
/* Of the adaptation that the items were computed under; 0: none. */
T2_API uint64_t t2_cache_tag(const t2_cache *cache);

/* Item i becomes what item from[i] was, i < count; the others become empty. The list must not fall:
 * it leaves items out, or repeats them to continue one sequence in several ways. */
T2_API t2_status t2_cache_select(t2_cache *cache, const int64_t *from, int64_t count,
                                 t2_error *err);

/* ---- one block ---------------------------------------------------------------------------- */

typedef enum t2_block_kind {
    T2_BLOCK_TRADITIONAL = 0, /* TraditionalTransformerBlock: no scale */
    T2_BLOCK_SVF = 1,         /* first Transformer2Block: tensor svf_expert, always applied */
    T2_BLOCK_EXPERTS = 2      /* second one: experts.{j}.scale_vector, one of which is chosen */
} t2_block_kind;

typedef struct t2_block_config {
    t2_block_kind kind;
    int64_t embed_size;
    int64_t heads;
    int64_t forward_expansion;
    int64_t num_experts; /* of T2_BLOCK_EXPERTS */
    double dropout;
    double norm_eps;
} t2_block_config;

typedef struct t2_block t2_block;

/* The block whose tensors are named `prefix` + state_dict name in an opened file, which must stay
 * open as long as the block. Other tensors of the file are left alone. */
T2_API t2_status t2_block_open(t2_safetensors *file, const char *prefix,
                               const t2_block_config *config, t2_block **block, t2_error *err);
T2_API void t2_block_close(t2_block *block);

typedef struct t2_block_args {
    size_t size;                  /* sizeof(t2_block_args) */
    const float *value, *key;     /* (S, N, E); the notebook's order of arguments */
    const float *query;           /* (L, N, E); a tensor (L, E) is N = 1 */
    int64_t queries, keys, items; /* L, S, N */
    t2_mask mask;                 /* (L, S); causal needs S = L */
    int64_t expert;               /* T2_EXPERT_AUTO or an index */
    int training;
    uint64_t seed, step;
    uint32_t layer;    /* names the dropout's random numbers, with seed and step */
    int threads;       /* as in t2_forward_args */
    float *out;        /* out: (L, N, E) */
    float *attention;  /* out: (L, N, E) the attention output before any scale; or NULL */
    int *chosen;       /* out: the expert; or NULL */
    float *mean;       /* out: mean of the attention output; or NULL */
    t2_choice *choice; /* as in t2_forward_args */
} t2_block_args;

/* x = drop(norm1(scale * attention(query, key, value) + query));
 * out = drop(norm2(feed_forward(x) + x)). out must not overlap the inputs. */
T2_API t2_status t2_block_forward(const t2_block *block, const t2_block_args *args, t2_error *err);

/* ---- text --------------------------------------------------------------------------------- */

/* vocab.json of a model folder: {"kind": "char", "vocab": {character: id, ...}, "end":
 * character}; "end" may be missing. */
typedef struct t2_vocab t2_vocab;

/* `vocab_size` > 0: ids must be below it. T2_ERR_IO where the folder has no vocab.json. */
T2_API t2_status t2_vocab_open(const char *dir, int64_t vocab_size, t2_vocab **vocab,
                               t2_error *err);
T2_API void t2_vocab_close(t2_vocab *vocab);

/* The id that ends an answer, -1 if there is none. */
T2_API int64_t t2_vocab_end(const t2_vocab *vocab);

/* Ids of a UTF-8 text, one a character: *count of them, at most `room` written (room = 0 and ids
 * = NULL to count). T2_ERR_ARG names a character that is not in the vocabulary and its position;
 * also where room > 0 does not suffice. */
T2_API t2_status t2_vocab_encode(const t2_vocab *vocab, const char *text, int64_t *ids,
                                 int64_t room, int64_t *count, t2_error *err);

/* The character of an id, UTF-8; NULL for an id without one. */
T2_API const char *t2_vocab_decode(const t2_vocab *vocab, int64_t id);

typedef enum t2_stop {
    T2_STOP_COUNT = 0,   /* max_new tokens were made */
    T2_STOP_END = 1,     /* the end token was made */
    T2_STOP_LENGTH = 2,  /* the model's max_length is reached */
    T2_STOP_CALLBACK = 3 /* on_token asked for it */
} t2_stop;

typedef struct t2_generate_args {
    size_t size;           /* sizeof(t2_generate_args) */
    const int64_t *prompt; /* (prompt_length) */
    int64_t prompt_length; /* 1 or more */
    int64_t max_new;
    int64_t end;        /* stop after this token; -1: none */
    double temperature; /* 0: greedy, the lowest id among the largest logits */
    uint64_t seed;      /* of sampling; the draw at a position depends on seed, step, ... */
    uint32_t step, prompt_index, sample; /* ... these, and the position only */
    int64_t expert;                      /* T2_EXPERT_AUTO or an index */
    int threads;                         /* as in t2_forward_args */
    /* Called with each new token at once; nonzero stops. May be NULL. */
    int (*on_token)(void *arg, int64_t token, int64_t position);
    void *on_token_arg;
    int64_t *tokens;   /* out: (max_new) the new tokens, the end token included; or NULL */
    int64_t *count;    /* out: how many, also after failure; or NULL */
    int *experts;      /* out: (num_layers) chosen in the first step; or NULL */
    t2_stop *stop;     /* out: or NULL */
    t2_choice *choice; /* as in t2_forward_args */
} t2_generate_args;

/* Continues a prompt token by token, with a causal mask. Earlier positions are kept in a cache,
 * but where a layer's automatic choice could change with each token: then each step is a pass over
 * the whole sequence. The whole call computes with the adaptation that it began with.
 * T2_ERR_ARG: prompt empty, longer than max_length, or with an id outside the vocabulary.
 * T2_ERR_NUMERIC: as t2_forward(), or a logit is NaN (in sampling, also +Inf). */
T2_API t2_status t2_generate(t2_session *session, const t2_generate_args *args, t2_error *err);

#ifdef __cplusplus
}
#endif

#include "t2_experts.h"
#include "t2_factors.h"
#include "t2_learn.h"

#endif
