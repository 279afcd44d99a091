/* Cases of attention: operands in guarded buffers, in some layout and under some mask; what is done
 * with each of them. */
#ifndef T2_MATRIX_ATTENTION_CASE_H
#define T2_MATRIX_ATTENTION_CASE_H

#include "matrix.h"

enum layout { SEQUENCE_FIRST, JOINT, BATCH_FIRST, LAYOUTS };
enum mask_style {
    MASK_OFF,
    MASK_RANDOM,  /* bool, a third blocked */
    MASK_CAUSAL,  /* bool, keys after the query: whole blocks are skipped */
    MASK_HEAVY,   /* bool, nearly all blocked: rows without a key */
    MASK_ALL,     /* bool, everything blocked */
    MASK_EDGE,    /* bool, the last query sees all keys, each one before it one less */
    MASK_MADE,    /* the same, without a matrix */
    MASK_FINITE,  /* additive */
    MASK_LOWEST,  /* additive with -Inf */
    MASK_ADD_ALL, /* additive, everything -Inf */
    MASK_STYLES
};

struct scene {
    t2k_attention_args a;
    struct guarded q, k, v, mask, out;
    size_t out_floats;
    char text[160];
};

/* The strides of a layout, for the sizes that *a has. */
void scene_layout(t2k_attention_args *a, enum layout layout);

/* size: queries, keys, items, heads, head_dim. `shared`: heads of q may share heads of k and v. */
void scene_open(struct scene *s, struct rng *rng, const int64_t size[5], enum layout layout,
                enum mask_style style, int shared);
void scene_close(struct matrix *m, struct scene *s);

float *scene_new_floats(size_t n);

/* The floats of out that belong to the result, (queries, items, heads, head_dim) contiguous. */
size_t scene_floats(const struct scene *s);
void scene_gather(const struct scene *s, float *to);

/* Within the bounds of the reference in double. */
void scene_reference(struct matrix *m, const struct scene *s, const float *got);

/* One query at a time, 1 to 4 threads and the collective form: the bits of `want`. */
void scene_ways(struct matrix *m, struct scene *s, const float *want);

/* Computes, records, and compares with the scalar ISA. The caller frees the result. */
float *scene_record(struct matrix *m, struct scene *s, int full_only);

#endif
