/* Factor files: safetensors with NAME.U (m, r), NAME.S (r), NAME.V (n, r) for each matrix NAME,
 * what is known of it as JSON under the key t2.matrix.NAME, and of the whole under other keys t2.*.
 */
#include "io/digest.h"
#include "io/error.h"
#include "io/safetensors.h"
#include "svf/svf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOTE_COUNT = 12 }; /* pairs that are not of a matrix, at most */

/* ---- hashes --------------------------------------------------------------------------------- */

void t2_factor_entry_hash(const t2_factor_entry *entry, char hash[T2_HASH_CHARS])
{
    const int64_t u[2] = {entry->m, entry->r}, v[2] = {entry->n, entry->r};
    const size_t element = entry->dtype == T2_BF16 ? 2 : 4, r = (size_t)entry->r;
    t2_digest digest;
    t2_digest_start(&digest);
    t2_digest_shape(&digest, entry->dtype, 2, u);
    t2_digest_add(&digest, entry->U, (size_t)entry->m * r * element);
    t2_digest_shape(&digest, T2_F32, 1, &entry->r);
    t2_digest_add(&digest, entry->S, r * sizeof(float));
    t2_digest_shape(&digest, entry->dtype, 2, v);
    t2_digest_add(&digest, entry->V, (size_t)entry->n * r * element);
    t2_digest_end(&digest, hash);
}

void t2_factor_list_hash(const t2_factor_entry *entries, int64_t count, int weights,
                         char hash[T2_HASH_CHARS])
{
    t2_digest digest;
    t2_digest_start(&digest);
    for (int64_t i = 0; i < count; i++) {
        const t2_factor_entry *entry = &entries[i];
        t2_digest_line(&digest, weights ? entry->weight_hash : entry->factor_hash, entry->name);
    }
    t2_digest_end(&digest, hash);
}

/* ---- the record of a matrix ------------------------------------------------------------------ */

static void add_string(t2_text *text, const char *key, const char *value)
{
    t2_text_printf(text, ",\"%s\":", key);
    t2_text_json(text, value);
}

void t2_record_text(const t2_record *record, t2_text *text)
{
    const t2_matrix *matrix = record->matrix;
    const t2_decomposition *d = record->decomposition;
    t2_text_str(text, "{\"tensor\":");
    t2_text_json(text, matrix->tensor->name);
    t2_text_printf(text, ",\"first\":%lld,\"transposed\":%s,\"m\":%lld,\"n\":%lld,\"r\":%lld",
                   (long long)matrix->first, matrix->transposed ? "true" : "false", (long long)d->m,
                   (long long)d->n, (long long)d->r);
    t2_text_printf(text, ",\"residual\":%.9g,\"orthogonality\":%.9g", d->residual,
                   d->orthogonality);
    add_string(text, "routine", d->routine == T2_DGESDD ? "dgesdd" : "dgesvd");
    add_string(text, "weight_hash", record->weight_hash);
    add_string(text, "factor_hash", record->factor_hash);
    add_string(text, "lapack", record->library->lapack);
    add_string(text, "blas", record->library->blas);
    add_string(text, "cpu", record->library->cpu);
    t2_text_str(text, "}");
}

/* ---- writing --------------------------------------------------------------------------------- */

typedef struct contents {
    t2_tensor *tensors; /* (3 count) */
    int64_t *shapes;    /* (5 count) */
    t2_pair *pairs;     /* (count + NOTE_COUNT) */
    size_t pair_count;
    char **names; /* (4 count) owned: of the tensors and keys */
    int64_t name_count;
    char hash[T2_HASH_CHARS], base_hash[T2_HASH_CHARS];
} contents;

static void contents_free(contents *c)
{
    for (int64_t i = 0; i < c->name_count; i++) {
        free(c->names[i]);
    }
    free(c->names);
    free(c->tensors);
    free(c->shapes);
    free(c->pairs);
}

/* "before" + "name" + "after", kept in c; NULL: out of memory. */
static const char *keep_name(contents *c, const char *before, const char *name, const char *after)
{
    t2_text text = {0};
    t2_text_str(&text, before);
    t2_text_str(&text, name);
    t2_text_str(&text, after);
    if (text.failed) {
        t2_text_free(&text);
        return NULL;
    }
    c->names[c->name_count++] = text.data;
    return text.data;
}

static int add_entry(contents *c, int64_t index, const t2_factor_entry *entry)
{
    static const char *const suffix[3] = {".U", ".S", ".V"};
    const size_t element = entry->dtype == T2_BF16 ? 2 : 4, r = (size_t)entry->r;
    int64_t *shape = c->shapes + 5 * index; /* m, r, n, r, r */
    shape[0] = entry->m;
    shape[2] = entry->n;
    shape[1] = shape[3] = shape[4] = entry->r;
    const char *names[3];
    for (int i = 0; i < 3; i++) {
        names[i] = keep_name(c, "", entry->name, suffix[i]);
        if (names[i] == NULL) {
            return 0;
        }
    }
    t2_tensor *tensors = c->tensors + 3 * index;
    tensors[0] =
        (t2_tensor){names[0], entry->dtype, 2, shape, entry->U, (size_t)entry->m * r * element};
    tensors[1] = (t2_tensor){names[1], T2_F32, 1, shape + 4, entry->S, r * sizeof(float)};
    tensors[2] =
        (t2_tensor){names[2], entry->dtype, 2, shape + 2, entry->V, (size_t)entry->n * r * element};
    const char *key = keep_name(c, T2_MATRIX_KEY, entry->name, "");
    c->pairs[c->pair_count++] = (t2_pair){key, entry->record};
    return key != NULL;
}

static void add_note(contents *c, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0') {
        c->pairs[c->pair_count++] = (t2_pair){key, value};
    }
}

static void add_notes(contents *c, const t2_factor_notes *notes)
{
    add_note(c, T2_KEY "kind", T2_FACTORS_KIND);
    add_note(c, T2_KEY "version", T2_FACTORS_VERSION);
    add_note(c, T2_KEY "hash", c->hash);
    add_note(c, T2_KEY "base_hash", c->base_hash);
    add_note(c, T2_KEY "modules", notes->modules);
    add_note(c, T2_KEY "store", notes->store);
    add_note(c, T2_KEY "rank", notes->rank);
    add_note(c, T2_KEY "energy", notes->energy);
    add_note(c, T2_KEY "lapack", notes->library->lapack);
    add_note(c, T2_KEY "blas", notes->library->blas);
    add_note(c, T2_KEY "cpu", notes->library->cpu);
    add_note(c, T2_KEY "mixed", notes->mixed);
}

t2_status t2_factor_file_write(const char *path, const t2_factor_entry *entries, int64_t count,
                               const t2_factor_notes *notes, int quick, t2_error *err)
{
    char shown[T2_SHOW];
    const size_t n = (size_t)count;
    contents c = {.tensors = calloc(3 * n, sizeof c.tensors[0]),
                  .shapes = calloc(5 * n, sizeof c.shapes[0]),
                  .pairs = calloc(n + NOTE_COUNT, sizeof c.pairs[0]),
                  .names = calloc(4 * n, sizeof c.names[0])};
    int good = c.tensors != NULL && c.shapes != NULL && c.pairs != NULL && c.names != NULL;
    for (int64_t i = 0; i < count && good; i++) {
        good = add_entry(&c, i, &entries[i]);
    }
    t2_status status;
    if (!good) {
        status = t2_fail(err, T2_ERR_NOMEM, "%s: no memory to write it", t2_show(shown, path));
    } else {
        t2_factor_list_hash(entries, count, 0, c.hash);
        t2_factor_list_hash(entries, count, 1, c.base_hash);
        add_notes(&c, notes);
        status = t2_safetensors_write_as(path, c.tensors, 3 * n, c.pairs, c.pair_count, quick, err);
    }
    contents_free(&c);
    return status;
}
