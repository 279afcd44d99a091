/* Character vocabularies: one UTF-8 character is one token. */
#include "io/error.h"
#include "io/json_file.h"
#include "io/text.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#define VOCAB_LIMIT ((size_t)64 << 20) /* bytes of vocab.json: all of Unicode has room */

struct symbol {
    uint32_t code;
    int64_t id;
    char text[5]; /* the character in UTF-8 */
};

struct t2_vocab {
    size_t count;
    struct symbol *by_code; /* (count) rising */
    struct symbol *by_id;   /* (count) rising */
    int64_t end;
};

static int compare_code(const void *a, const void *b)
{
    uint32_t x = ((const struct symbol *)a)->code, y = ((const struct symbol *)b)->code;
    return (x > y) - (x < y);
}

static int compare_id(const void *a, const void *b)
{
    int64_t x = ((const struct symbol *)a)->id, y = ((const struct symbol *)b)->id;
    return (x > y) - (x < y);
}

/* Nonzero when the key is exactly one character. */
static int single_character(const char *key, struct symbol *one)
{
    size_t n = strlen(key);
    if (n == 0 || t2_utf8(key, n, &one->code) != n) {
        return 0;
    }
    memcpy(one->text, key, n + 1); /* at most 4 bytes and the end */
    return 1;
}

static t2_status read_entries(const t2_json *json, int64_t vocab_size, t2_vocab *vocab,
                              t2_error *err)
{
    t2_json part;
    t2_status status = t2_json_part(json, "vocab", &part, err);
    if (status != T2_OK) {
        return status;
    }
    size_t room = json_object_size(part.object) + 1;
    vocab->by_code = calloc(room, sizeof vocab->by_code[0]);
    vocab->by_id = calloc(room, sizeof vocab->by_id[0]);
    if (vocab->by_code == NULL || vocab->by_id == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    const char *key;
    json_t *value;
    json_object_foreach(part.object, key, value)
    {
        struct symbol *one = &vocab->by_code[vocab->count];
        status =
            t2_json_int(&part, key, 0, vocab_size > 0 ? vocab_size - 1 : INT64_MAX, &one->id, err);
        if (status == T2_OK && !single_character(key, one)) {
            status = t2_json_fail(&part, key, "keys of one character each", err);
        }
        if (status != T2_OK) {
            return status;
        }
        vocab->count++;
    }
    memcpy(vocab->by_id, vocab->by_code, vocab->count * sizeof vocab->by_id[0]);
    qsort(vocab->by_code, vocab->count, sizeof vocab->by_code[0], compare_code);
    qsort(vocab->by_id, vocab->count, sizeof vocab->by_id[0], compare_id);
    for (size_t i = 1; i < vocab->count; i++) {
        if (vocab->by_id[i].id == vocab->by_id[i - 1].id) {
            return t2_json_fail(&part, vocab->by_id[i].text, "an id that no other character has",
                                err);
        }
    }
    return T2_OK;
}

static const struct symbol *find_code(const t2_vocab *vocab, uint32_t code)
{
    struct symbol key = {.code = code};
    return bsearch(&key, vocab->by_code, vocab->count, sizeof key, compare_code);
}

static t2_status read_end(const t2_json *json, t2_vocab *vocab, t2_error *err)
{
    const char *text;
    vocab->end = -1;
    t2_status status = t2_json_string_or(json, "end", "", &text, err);
    if (status != T2_OK || !t2_json_has(json, "end")) {
        return status;
    }
    struct symbol key;
    const struct symbol *found = single_character(text, &key) ? find_code(vocab, key.code) : NULL;
    if (found == NULL) {
        return t2_json_fail(json, "end", "a character of the vocabulary", err);
    }
    vocab->end = found->id;
    return T2_OK;
}

static t2_status read_vocab(const t2_json *json, int64_t vocab_size, t2_vocab *vocab, t2_error *err)
{
    const char *kind;
    t2_status status = t2_json_string(json, "kind", &kind, err);
    if (status == T2_OK && strcmp(kind, "char") != 0) {
        status = t2_json_fail(json, "kind", "\"char\" (nothing else is supported)", err);
    }
    if (status == T2_OK) {
        status = read_entries(json, vocab_size, vocab, err);
    }
    return status == T2_OK ? read_end(json, vocab, err) : status;
}

t2_status t2_vocab_open(const char *dir, int64_t vocab_size, t2_vocab **vocab, t2_error *err)
{
    if (dir == NULL || vocab == NULL) {
        return t2_fail(err, T2_ERR_ARG, "no folder or no place for the vocabulary");
    }
    char *path = t2_path_join(dir, "vocab.json");
    t2_vocab *made = calloc(1, sizeof *made);
    t2_json json;
    t2_status status;
    if (path == NULL || made == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    } else {
        status = t2_json_load(path, VOCAB_LIMIT, &json, err);
        if (status == T2_OK) {
            status = read_vocab(&json, vocab_size, made, err);
            t2_json_free(&json);
        }
    }
    free(path);
    if (status != T2_OK) {
        t2_vocab_close(made);
        return status;
    }
    *vocab = made;
    return T2_OK;
}

void t2_vocab_close(t2_vocab *vocab)
{
    if (vocab != NULL) {
        free(vocab->by_code);
        free(vocab->by_id);
        free(vocab);
    }
}

int64_t t2_vocab_end(const t2_vocab *vocab)
{
    return vocab->end;
}

t2_status t2_vocab_encode(const t2_vocab *vocab, const char *text, int64_t *ids, int64_t room,
                          int64_t *count, t2_error *err)
{
    if (vocab == NULL || text == NULL || count == NULL || (ids == NULL && room > 0)) {
        return t2_fail(err, T2_ERR_ARG, "vocabulary, text or place for the ids is missing");
    }
    size_t size = strlen(text);
    int64_t n = 0;
    for (size_t at = 0; at < size; n++) {
        uint32_t code;
        size_t length = t2_utf8(text + at, size - at, &code);
        if (length == 0) {
            return t2_fail(err, T2_ERR_ARG, "the text is not valid UTF-8 at byte %zu", at);
        }
        const struct symbol *found = find_code(vocab, code);
        if (found == NULL) {
            char one[5] = {0}, shown[T2_SHOW];
            memcpy(one, text + at, length);
            return t2_fail(err, T2_ERR_ARG,
                           "'%s' (U+%04X), character %lld of the text, is not in the vocabulary",
                           t2_show(shown, one), (unsigned)code, (long long)n + 1);
        }
        if (n < room) {
            ids[n] = found->id;
        }
        at += length;
    }
    if (room > 0 && n > room) {
        return t2_fail(err, T2_ERR_ARG, "the text has %lld characters: more than %lld",
                       (long long)n, (long long)room);
    }
    *count = n;
    return T2_OK;
}

const char *t2_vocab_decode(const t2_vocab *vocab, int64_t id)
{
    struct symbol key = {.id = id};
    const struct symbol *found = bsearch(&key, vocab->by_id, vocab->count, sizeof key, compare_id);
    return found != NULL ? found->text : NULL;
}
