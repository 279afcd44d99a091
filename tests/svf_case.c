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
