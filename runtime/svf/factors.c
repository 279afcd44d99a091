/* Opened factor files. Nothing in a file is trusted: names, shapes, values and hashes are checked
 * against each other before anyone sees them. */
#include "io/error.h"
#include "io/json_file.h"
#include "model/model.h"
#include "svf/svf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct t2_factors {
    t2_safetensors *file;
    int64_t count;
    t2_factor *list;          /* (count) in the order of their names */
    t2_factor_entry *entries; /* (count) the same as they are stored */
    json_t **records;         /* (count) strings of list and entries belong to them */
    float **widened;          /* (2 count) U and V that are stored in bf16, owned */
    char hash[T2_HASH_CHARS], base_hash[T2_HASH_CHARS];
};

/* ---- messages -------------------------------------------------------------------------------- */

static t2_status wrong_note(const t2_factors *factors, const char *key, const char *expected,
                            t2_error *err)
{
    char shown[T2_SHOW], found[T2_SHOW];
    const char *value = t2_safetensors_metadata_find(factors->file, key);
    return t2_fail(err, T2_ERR_FORMAT, "%s: metadata %s: expected %s, found %s",
                   t2_show(shown, t2_factors_path(factors)), key, expected,
                   value != NULL ? t2_show(found, value) : "nothing");
}

static t2_status wrong_tensor(const t2_factors *factors, const char *name, const char *suffix,
                              const char *expected, const char *found, t2_error *err)
{
    char shown[T2_SHOW], tensor[T2_SHOW];
    return t2_fail(err, T2_ERR_FORMAT, "%s: tensor %s%s: expected %s, found %s",
                   t2_show(shown, t2_factors_path(factors)), t2_show(tensor, name), suffix,
                   expected, found);
}

static t2_status no_memory(const t2_factors *factors, t2_error *err)
{
    char shown[T2_SHOW];
    return t2_fail(err, T2_ERR_NOMEM, "%s: no memory to open it",
                   t2_show(shown, t2_factors_path(factors)));
}

/* ---- the record of a matrix ------------------------------------------------------------------ */

static int is_hash(const char *text)
{
    return strlen(text) == T2_HASH_CHARS - 1 &&
           strspn(text, "0123456789abcdef") == T2_HASH_CHARS - 1;
}

static t2_status get_hash(const t2_json *json, const char *key, char hash[T2_HASH_CHARS],
                          t2_error *err)
{
    const char *text;
    t2_status status = t2_json_string(json, key, &text, err);
    if (status == T2_OK && !is_hash(text)) {
        status = t2_json_fail(json, key, "64 lower-case hexadecimal digits", err);
    }
    if (status == T2_OK) {
        memcpy(hash, text, T2_HASH_CHARS);
    }
    return status;
}

static t2_status read_fields(const t2_json *json, t2_factor *f, t2_error *err)
{
    t2_status status = t2_json_string(json, "tensor", &f->tensor, err);
    if (status == T2_OK) {
        status = t2_json_int(json, "first", 0, INT64_MAX, &f->first, err);
    }
    if (status == T2_OK) {
        status = t2_json_bool(json, "transposed", &f->transposed, err);
    }
    if (status == T2_OK) {
        status = t2_json_int(json, "m", 1, INT64_MAX, &f->m, err);
    }
    if (status == T2_OK) {
        status = t2_json_int(json, "n", 1, INT64_MAX, &f->n, err);
    }
    if (status == T2_OK) {
        status = t2_json_int(json, "r", 1, f->m < f->n ? f->m : f->n, &f->r, err);
    }
    if (status == T2_OK) {
        status = t2_json_number(json, "residual", 0.0, HUGE_VAL, &f->residual, err);
    }
    if (status == T2_OK) {
        status = t2_json_number(json, "orthogonality", 0.0, HUGE_VAL, &f->orthogonality, err);
    }
    if (status == T2_OK) {
        status = get_hash(json, "weight_hash", f->weight_hash, err);
    }
    if (status == T2_OK) {
        status = get_hash(json, "factor_hash", f->factor_hash, err);
    }
    return status;
}

/* Parses the pair number `pair` of the metadata as the matrix number `index`. */
static t2_status read_record(t2_factors *factors, int64_t index, const t2_pair *pair, t2_error *err)
{
    char shown[T2_SHOW], key[T2_SHOW], reason[T2_SHOW];
    t2_factor *f = &factors->list[index];
    json_error_t error;
    f->name = pair->key + strlen(T2_MATRIX_KEY);
    json_t *root = json_loads(pair->value, JSON_REJECT_DUPLICATES, &error);
    factors->records[index] = root;
    if (!json_is_object(root)) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: metadata %s: expected a JSON object, found %s",
                       t2_show(shown, t2_factors_path(factors)), t2_show(key, pair->key),
                       root != NULL ? "something else" : t2_show(reason, error.text));
    }
    t2_text path = {0};
    t2_text_printf(&path, "%s: %s", t2_factors_path(factors), pair->key);
    if (path.failed) {
        t2_text_free(&path);
        return no_memory(factors, err);
    }
    t2_json json = {root, path.data, NULL};
    t2_status status = read_fields(&json, f, err);
    t2_text_free(&path);
    return status;
}

static int by_key(const void *a, const void *b)
{
    const t2_pair *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

/* All records, in the order of the names. */
static t2_status read_records(t2_factors *factors, t2_error *err)
{
    const size_t pairs = t2_safetensors_metadata_count(factors->file);
    const t2_pair **order = calloc(pairs + 1, sizeof order[0]);
    factors->list = calloc(pairs + 1, sizeof factors->list[0]);
    factors->entries = calloc(pairs + 1, sizeof factors->entries[0]);
    factors->records = calloc(pairs + 1, sizeof factors->records[0]);
    factors->widened = calloc(2 * pairs + 1, sizeof factors->widened[0]);
    if (order == NULL || factors->list == NULL || factors->entries == NULL ||
        factors->records == NULL || factors->widened == NULL) {
        free(order);
        return no_memory(factors, err);
    }
    size_t count = 0;
    for (size_t i = 0; i < pairs; i++) {
        const t2_pair *pair = t2_safetensors_metadata(factors->file, i);
        if (strncmp(pair->key, T2_MATRIX_KEY, strlen(T2_MATRIX_KEY)) == 0) {
            order[count++] = pair;
        }
    }
    qsort(order, count, sizeof order[0], by_key);
    t2_status status = T2_OK;
    for (size_t i = 0; i < count && status == T2_OK; i++) {
        factors->count = (int64_t)i + 1;
        status = read_record(factors, (int64_t)i, order[i], err);
        factors->entries[i].record = order[i]->value;
    }
    free(order);
    return status;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* The tensor NAME + suffix of shape (rows, r), of (r) where rows is 0. */
static t2_status find(const t2_factors *factors, const t2_factor *f, const char *suffix,
                      int64_t rows, const t2_tensor **found, t2_error *err)
{
    char expected[96], actual[160];
    t2_text name = {0};
    t2_text_printf(&name, "%s%s", f->name, suffix);
    if (name.failed) {
        t2_text_free(&name);
        return no_memory(factors, err);
    }
    const t2_tensor *t = *found = t2_safetensors_find(factors->file, name.data);
    t2_text_free(&name);
    if (rows > 0) {
        snprintf(expected, sizeof expected, "F32 or BF16 [%lld, %lld]", (long long)rows,
                 (long long)f->r);
    } else {
        snprintf(expected, sizeof expected, "F32 [%lld]", (long long)f->r);
    }
    if (t == NULL) {
        return wrong_tensor(factors, f->name, suffix, expected, "nothing", err);
    }
    int shape = rows > 0 ? t->rank == 2 && t->shape[0] == rows && t->shape[1] == f->r
                         : t->rank == 1 && t->shape[0] == f->r;
    if (!shape || !(t->dtype == T2_F32 || (rows > 0 && t->dtype == T2_BF16))) {
        int used = snprintf(actual, sizeof actual, "%s [", t2_dtype_name(t->dtype));
        for (int i = 0; i < t->rank && (size_t)used < sizeof actual - 24; i++) {
            used += snprintf(actual + used, sizeof actual - (size_t)used, "%s%lld",
                             i > 0 ? ", " : "", (long long)t->shape[i]);
        }
        snprintf(actual + used, sizeof actual - (size_t)used, "]");
        return wrong_tensor(factors, f->name, suffix, expected, actual, err);
    }
    return T2_OK;
}

/* U or V in float, all finite. */
static t2_status get_matrix(t2_factors *factors, const t2_factor *f, const char *suffix,
                            const t2_tensor *tensor, float **widened, const float **data,
                            t2_error *err)
{
    const int64_t count = t2_tensor_elements(tensor);
    if (tensor->dtype == T2_F32) {
        t2_status status = t2_safetensors_f32(factors->file, tensor, data, err);
        if (status != T2_OK) {
            return status;
        }
    } else {
        *widened = t2_alloc(count, sizeof(float));
        if (*widened == NULL) {
            return no_memory(factors, err);
        }
        const unsigned char *bytes = tensor->data;
        for (int64_t i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)bytes[2 * i] << 16 | (uint32_t)bytes[2 * i + 1] << 24;
            memcpy(&(*widened)[i], &bits, sizeof bits);
        }
        *data = *widened;
    }
    /* In blocks without a branch: files are large. */
    for (int64_t begin = 0; begin < count; begin += 4096) {
        int64_t end = begin + 4096 < count ? begin + 4096 : count;
        int bad = 0;
        for (int64_t i = begin; i < end; i++) {
            bad |= !isfinite((*data)[i]);
        }
        for (int64_t i = begin; bad && i < end; i++) {
            if (!isfinite((*data)[i])) {
                char found[80];
                snprintf(found, sizeof found, "%g at [%lld, %lld]", (double)(*data)[i],
                         (long long)(i / f->r), (long long)(i % f->r));
                return wrong_tensor(factors, f->name, suffix, "finite numbers", found, err);
            }
        }
    }
    return T2_OK;
}

static t2_status get_values(t2_factors *factors, t2_factor *f, const t2_tensor *tensor,
                            t2_error *err)
{
    t2_status status = t2_safetensors_f32(factors->file, tensor, &f->S, err);
    for (int64_t k = 0; k < f->r && status == T2_OK; k++) {
        float limit = k > 0 ? f->S[k - 1] : INFINITY;
        if (!(f->S[k] >= 0.0f && f->S[k] <= limit && isfinite(f->S[k]))) {
            char expected[80], found[80];
            snprintf(expected, sizeof expected, "0 to %g", (double)limit);
            snprintf(found, sizeof found, "%g at [%lld]", (double)f->S[k], (long long)k);
            status = wrong_tensor(factors, f->name, ".S", expected, found, err);
        }
    }
    return status;
}

static t2_status check_hash(const t2_factors *factors, int64_t index, t2_error *err)
{
    char hash[T2_HASH_CHARS];
    const t2_factor *f = &factors->list[index];
    t2_factor_entry_hash(&factors->entries[index], hash);
    if (strcmp(hash, f->factor_hash) != 0) {
        char expected[T2_HASH_CHARS + 16];
        snprintf(expected, sizeof expected, "SHA-256 %s", f->factor_hash);
        return wrong_tensor(factors, f->name, ".U, .S, .V", expected, hash, err);
    }
    return T2_OK;
}

static t2_status load(t2_factors *factors, int64_t index, int verify, t2_error *err)
{
    t2_factor *f = &factors->list[index];
    const t2_tensor *u, *s, *v;
    t2_status status = find(factors, f, ".U", f->m, &u, err);
    if (status == T2_OK) {
        status = find(factors, f, ".S", 0, &s, err);
    }
    if (status == T2_OK) {
        status = find(factors, f, ".V", f->n, &v, err);
    }
    if (status == T2_OK && u->dtype != v->dtype) {
        status = wrong_tensor(factors, f->name, ".V", t2_dtype_name(u->dtype),
                              t2_dtype_name(v->dtype), err);
    }
    if (status == T2_OK) {
        status = get_values(factors, f, s, err);
    }
    if (status == T2_OK) {
        status = get_matrix(factors, f, ".U", u, &factors->widened[2 * index], &f->U, err);
    }
    if (status == T2_OK) {
        status = get_matrix(factors, f, ".V", v, &factors->widened[2 * index + 1], &f->V, err);
    }
    if (status == T2_OK) {
        t2_factor_entry *entry = &factors->entries[index];
        *entry = (t2_factor_entry){f->name,  entry->record, f->weight_hash, f->factor_hash,
                                   u->dtype, f->m,          f->n,           f->r,
                                   u->data,  s->data,       v->data};
        status = verify ? check_hash(factors, index, err) : T2_OK;
    }
    return status;
}

/* Names the first tensor that is of no matrix. */
static t2_status check_extra(const t2_factors *factors, t2_error *err)
{
    const size_t count = t2_safetensors_count(factors->file);
    for (size_t i = 0; count != 3 * (size_t)factors->count && i < count; i++) {
        const char *name = t2_safetensors_tensor(factors->file, i)->name;
        const size_t length = strlen(name);
        char *copy = length > 2 ? strndup(name, length - 2) : strdup("");
        if (copy == NULL) {
            return no_memory(factors, err);
        }
        int known = length > 2 && name[length - 2] == '.' && strchr("USV", name[length - 1]) &&
                    t2_factors_find(factors, copy) >= 0;
        free(copy);
        if (!known) {
            return wrong_tensor(factors, name, "", "only U, S and V of the metadata's matrices",
                                "this one", err);
        }
    }
    return T2_OK;
}

/* ---- the whole --------------------------------------------------------------------------------
 */

static t2_status check_list_hash(const t2_factors *factors, const char *key, const char *hash,
                                 t2_error *err)
{
    const char *value = t2_safetensors_metadata_find(factors->file, key);
    return value != NULL && strcmp(value, hash) == 0 ? T2_OK : wrong_note(factors, key, hash, err);
}

static t2_status open_parts(t2_factors *factors, unsigned flags, t2_error *err)
{
    const char *kind = t2_safetensors_metadata_find(factors->file, T2_KEY "kind");
    const char *version = t2_safetensors_metadata_find(factors->file, T2_KEY "version");
    if (kind == NULL || strcmp(kind, T2_FACTORS_KIND) != 0) {
        return wrong_note(factors, T2_KEY "kind", T2_FACTORS_KIND, err);
    }
    if (version == NULL || strcmp(version, T2_FACTORS_VERSION) != 0) {
        return wrong_note(factors, T2_KEY "version", T2_FACTORS_VERSION, err);
    }
    t2_status status = read_records(factors, err);
    if (status == T2_OK && factors->count == 0) {
        status = wrong_note(factors, T2_MATRIX_KEY "*", "at least one matrix", err);
    }
    for (int64_t i = 0; i < factors->count && status == T2_OK; i++) {
        status = load(factors, i, (flags & T2_FACTORS_VERIFY) != 0, err);
    }
    if (status == T2_OK) {
        status = check_extra(factors, err);
    }
    if (status == T2_OK) {
        t2_factor_list_hash(factors->entries, factors->count, 0, factors->hash);
        t2_factor_list_hash(factors->entries, factors->count, 1, factors->base_hash);
        status = check_list_hash(factors, T2_KEY "hash", factors->hash, err);
    }
    if (status == T2_OK) {
        status = check_list_hash(factors, T2_KEY "base_hash", factors->base_hash, err);
    }
    return status;
}

t2_status t2_factors_open(const char *path, unsigned flags, t2_factors **factors, t2_error *err)
{
    char shown[T2_SHOW];
    if (path == NULL || factors == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no path or no place for the factors");
    }
    t2_factors *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory to open it", t2_show(shown, path));
    }
    t2_status status =
        t2_safetensors_open(path, flags & ~(unsigned)T2_FACTORS_VERIFY, &made->file, err);
    if (status == T2_OK) {
        status = open_parts(made, flags, err);
    }
    if (status != T2_OK) {
        t2_factors_close(made);
        return status;
    }
    *factors = made;
    return T2_OK;
}

/* The hash of the model's part that `f` is of; 0 where there is no such part. */
static int hash_of_part(const t2_safetensors *model, const t2_factor *f, char hash[T2_HASH_CHARS])
{
    const t2_tensor *tensor = t2_safetensors_find(model, f->tensor);
    if (tensor == NULL || tensor->rank != 2) {
        return 0;
    }
    const int64_t outputs = tensor->shape[f->transposed ? 1 : 0];
    const int64_t inputs = tensor->shape[f->transposed ? 0 : 1];
    if (inputs != f->n || f->m > outputs || f->first > outputs - f->m ||
        !t2_matrix_readable(tensor->dtype)) {
        return 0;
    }
    const t2_matrix matrix = {NULL, tensor, f->first, f->transposed, f->m, f->n};
    t2_matrix_hash(&matrix, hash);
    return 1;
}

t2_status t2_factors_check(const t2_factors *factors, const t2_safetensors *model, t2_error *err)
{
    char shown[T2_SHOW], name[T2_SHOW], hash[T2_HASH_CHARS];
    for (int64_t i = 0; i < factors->count; i++) {
        const t2_factor *f = &factors->list[i];
        int there = hash_of_part(model, f, hash);
        if (!there || strcmp(hash, f->weight_hash) != 0) {
            return t2_fail(err, T2_ERR_FORMAT,
                           "%s: %s of the factors: expected SHA-256 %s, found %s",
                           t2_show(shown, t2_safetensors_path(model)), t2_show(name, f->name),
                           f->weight_hash, there ? hash : "no such matrix");
        }
    }
    return T2_OK;
}

void t2_factors_close(t2_factors *factors)
{
    if (factors == NULL) {
        return;
    }
    for (int64_t i = 0; i < factors->count; i++) {
        json_decref(factors->records[i]);
        free(factors->widened[2 * i]);
        free(factors->widened[2 * i + 1]);
    }
    free(factors->list);
    free(factors->entries);
    free(factors->records);
    free(factors->widened);
    t2_safetensors_close(factors->file);
    free(factors);
}

const char *t2_factors_path(const t2_factors *factors)
{
    return t2_safetensors_path(factors->file);
}

int64_t t2_factors_count(const t2_factors *factors)
{
    return factors->count;
}

const t2_factor *t2_factors_get(const t2_factors *factors, int64_t index)
{
    return index >= 0 && index < factors->count ? &factors->list[index] : NULL;
}

static int by_name(const void *key, const void *factor)
{
    return strcmp(key, ((const t2_factor *)factor)->name);
}

int64_t t2_factors_find(const t2_factors *factors, const char *name)
{
    const t2_factor *found =
        bsearch(name, factors->list, (size_t)factors->count, sizeof factors->list[0], by_name);
    return found != NULL ? found - factors->list : -1;
}

const char *t2_factors_hash(const t2_factors *factors)
{
    return factors->hash;
}

const char *t2_factors_base_hash(const t2_factors *factors)
{
    return factors->base_hash;
}

int t2_factors_cut(const t2_factors *factors)
{
    for (int64_t i = 0; i < factors->count; i++) {
        const t2_factor *f = &factors->list[i];
        if (f->r < (f->m < f->n ? f->m : f->n)) {
            return 1;
        }
    }
    return 0;
}

const char *t2_factors_note(const t2_factors *factors, const char *key)
{
    char whole[64];
    int length = snprintf(whole, sizeof whole, T2_KEY "%s", key);
    if (length < 0 || (size_t)length >= sizeof whole) {
        return NULL;
    }
    return t2_safetensors_metadata_find(factors->file, whole);
}

const t2_factor_entry *t2_factors_entry(const t2_factors *factors, int64_t index)
{
    return &factors->entries[index];
}
