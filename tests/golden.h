/* Reference cases: tests/golden/manifest.json and the tensors that it names. */
#ifndef T2_GOLDEN_H
#define T2_GOLDEN_H

#include "t2.h"

#include <jansson.h>

typedef struct golden_case {
    const char *id, *kind, *set, *expect;
    json_t *json; /* the whole entry */
    char *path;   /* of its file */
} golden_case;

typedef struct golden_manifest {
    json_t *root;
    char *dir;
    size_t count;
    golden_case *cases;
} golden_manifest;

/* Aborts with a message where the manifest cannot be read: no test makes sense then. */
golden_manifest golden_open(const char *manifest_path);
void golden_close(golden_manifest *manifest);

/* An integer of the case's "config" object; 0 where it has none. */
int64_t golden_size(const golden_case *one, const char *key);
double golden_number(const golden_case *one, const char *key);
t2_config golden_config(const golden_case *one);
t2_block_config golden_block_config(const golden_case *one);

/* The tensor behind a role of the case's inputs, NULL where it is not given; and an expected
 * result, "f32" or "f64". */
const t2_tensor *golden_input(const golden_case *one, t2_safetensors *file, const char *role);
const t2_tensor *golden_expected(const golden_case *one, t2_safetensors *file, const char *type,
                                 const char *name);

/* A tensor's elements, aligned; aborts where the dtype is another one. NULL for NULL. */
const float *golden_f32(t2_safetensors *file, const t2_tensor *tensor);
const double *golden_f64(t2_safetensors *file, const t2_tensor *tensor);
const int64_t *golden_i64(t2_safetensors *file, const t2_tensor *tensor);

/* Makes the folder `dir` a model of the case's weights: config.json and model.safetensors, without
 * inputs and expected results. */
t2_status golden_write_model(const golden_case *one, t2_safetensors *file, const char *dir,
                             t2_error *err);

/* The case of that id, NULL if there is none. */
const golden_case *golden_find(const golden_manifest *manifest, const char *id);

/* How far a result lies from its expectation. */
typedef struct golden_error {
    double max_abs;   /* over the finite elements; HUGE_VAL where NaN or infinities differ */
    double allowed;   /* max(4 * max_abs of the manifest, 1e-6 * max |f64|) */
    size_t at;        /* the worst element */
    double got, want; /* there */
} golden_error;
golden_error golden_compare(const golden_case *one, t2_safetensors *file, const char *name,
                            const float *got);

#endif
