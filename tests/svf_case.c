/* Factor files and layers from arrays, for tests of experts. */
#include "svf_case.h"

#include "svf/svf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void give_up(const char *what, const t2_error *err)
{
    fprintf(stderr, "svf_case: %s: %s\n", what, err->message);
    abort();
}

struct prepared {
    t2_factor_entry entry;
    char weight_hash[T2_HASH_CHARS], factor_hash[T2_HASH_CHARS];
    t2_text record;
};

static void prepare(const svf_case *one, struct prepared *out)
{
    const t2_library library = {.lapack = "none", .blas = "none", .cpu = "none"};
    const int64_t shape[2] = {one->m, one->n};
    const t2_tensor tensor = {one->name, T2_F32, 2,
                              shape,     one->W, (size_t)(one->m * one->n) * sizeof(float)};
    const t2_matrix matrix = {(char *)one->name, &tensor, 0, 0, one->m, one->n};
    const t2_decomposition decomposition = {
        .m = one->m, .n = one->n, .r = one->r, .residual = 1e-7, .orthogonality = 1e-7};
    out->entry = (t2_factor_entry){.name = one->name,
                                   .dtype = T2_F32,
                                   .m = one->m,
                                   .n = one->n,
                                   .r = one->r,
                                   .U = one->U,
                                   .S = one->S,
                                   .V = one->V,
                                   .weight_hash = out->weight_hash,
                                   .factor_hash = out->factor_hash};
    t2_matrix_hash(&matrix, out->weight_hash);
    t2_factor_entry_hash(&out->entry, out->factor_hash);
    t2_record record = {&matrix, &decomposition, &library, out->weight_hash, out->factor_hash};
    t2_record_text(&record, &out->record);
    out->entry.record = out->record.data;
}

t2_factors *svf_case_factors(const char *path, const svf_case *cases, int64_t count)
{
    const t2_library library = {.lapack = "none", .blas = "none", .cpu = "none"};
    const t2_factor_notes notes = {
        .modules = "all", .store = "f32", .rank = "0", .energy = "0", .library = &library};
    struct prepared *prepared = calloc((size_t)count, sizeof *prepared);
    t2_factor_entry *entries = calloc((size_t)count, sizeof *entries);
    t2_factors *factors = NULL;
    t2_error err = {T2_OK, ""};
    for (int64_t i = 0; i < count; i++) {
        prepare(&cases[i], &prepared[i]);
        entries[i] = prepared[i].entry;
    }
    if (t2_factor_file_write(path, entries, count, &notes, 0, &err) != T2_OK ||
        t2_factors_open(path, T2_FACTORS_VERIFY | T2_SAFETENSORS_NO_MMAP, &factors, &err) !=
            T2_OK) {
        give_up(path, &err);
    }
    for (int64_t i = 0; i < count; i++) {
        t2_text_free(&prepared[i].record);
    }
    free(prepared);
    free(entries);
    return factors;
}

t2_expert *svf_case_expert(const t2_factors *factors, t2_expert_form form, const char *name,
                           int64_t size, const float *p)
{
    t2_expert *expert = NULL;
    t2_error err = {T2_OK, ""};
    const t2_expert_vector vector = {name, size, p};
    t2_expert_args args = {.size = sizeof args,
                           .name = "case",
                           .form = form,
                           .factors_hash = t2_factors_hash(factors),
                           .base_hash = t2_factors_base_hash(factors),
                           .vectors = &vector,
                           .count = 1};
    if (t2_expert_create(&args, &expert, &err) != T2_OK) {
        give_up("expert", &err);
    }
    return expert;
}

const svf_mode svf_modes[SVF_MODES] = {
    {"sigmoid", "p", {T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 1.0f, 1.0f, 1}},
    {"sigmoid2", "p", {T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 2.0f, 1.0f, 1}},
    {"plain", "z", {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0}},
    {"relu", "delta", {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 1.0f, 0}},
    {"relu_half", "delta", {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 0.5f, 0}}};

void svf_layer_open(svf_layer *l, const char *path, const float *bias)
{
    t2_error err = {T2_OK, ""};
    const t2_layer layer = {l->matrix.name, l->matrix.n, l->matrix.m, l->matrix.W, bias};
    l->factors = svf_case_factors(path, &l->matrix, 1);
    if (t2_adapter_create_layers(&layer, 1, l->factors, 0, &l->adapter, &err) != T2_OK) {
        give_up("adapter", &err);
    }
}

void svf_layer_close(svf_layer *l)
{
    t2_adapter_destroy(l->adapter);
    t2_factors_close(l->factors);
}

t2_adaptation *svf_adapt(const svf_layer *l, const t2_expert *const *experts, int64_t count,
                         const double *alpha, int64_t rows, t2_mix_rule rule, t2_way way)
{
    t2_adaptation *adaptation = NULL;
    t2_error err = {T2_OK, ""};
    const t2_adapt_args args = {.size = sizeof args,
                                .experts = experts,
                                .count = count,
                                .alpha = alpha,
                                .rows = rows,
                                .rule = rule,
                                .way = way};
    if (t2_adaptation_create(l->adapter, &args, &adaptation, &err) != T2_OK) {
        give_up("adaptation", &err);
    }
    return adaptation;
}

float *svf_run(const svf_layer *l, const t2_adaptation *adaptation, int64_t first, int64_t rows,
               const int64_t *expert_rows, int threads)
{
    t2_error err = {T2_OK, ""};
    float *y = calloc((size_t)(rows * l->matrix.m), sizeof *y);
    if (y == NULL ||
        t2_adaptation_run_layer(adaptation, 0, rows, expert_rows, l->x + first * l->matrix.n, y,
                                threads, &err) != T2_OK) {
        give_up("layer", &err);
    }
    return y;
}
