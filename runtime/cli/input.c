/* Token ids and masks from files: text or safetensors. */
#include "input.h"

#include "io/error.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_LIMIT ((size_t)1 << 30) /* bytes of a text file of ids */

/* ---- token ids ------------------------------------------------------------------------------ */

/* All of a stream, NUL-terminated, in *text (to be freed). */
static t2_status read_all(FILE *f, const char *name, char **text, size_t *size, t2_error *err)
{
    size_t capacity = 1 << 16, used = 0;
    char *buffer = malloc(capacity);
    while (buffer != NULL) {
        used += fread(buffer + used, 1, capacity - used - 1, f);
        if (ferror(f)) {
            free(buffer);
            return t2_fail(err, T2_ERR_IO, "%s: %s", name, strerror(errno));
        }
        if (feof(f)) {
            buffer[used] = '\0';
            *text = buffer;
            *size = used;
            return T2_OK;
        }
        if (capacity - used - 1 > 0) {
            continue;
        }
        if (capacity >= TEXT_LIMIT) {
            free(buffer);
            return t2_fail(err, T2_ERR_ARG, "%s: more than %zu bytes of text", name, TEXT_LIMIT);
        }
        capacity *= 2;
        char *larger = realloc(buffer, capacity);
        if (larger == NULL) {
            free(buffer);
        }
        buffer = larger;
    }
    return t2_fail(err, T2_ERR_NOMEM, "%s: out of memory", name);
}

static int is_separator(char c)
{
    return c == ' ' || c == '\t' || c == ',' || c == '\r';
}

/* Parses the line at *at into `out` (NULL: only counts); advances *at behind the line. */
static t2_status parse_line(const char *name, int64_t line, const char **at, int64_t *out,
                            int64_t *count, t2_error *err)
{
    const char *p = *at;
    *count = 0;
    for (;;) {
        while (is_separator(*p)) {
            p++;
        }
        if (*p == '\0' || *p == '\n') {
            break;
        }
        char *end = (char *)(uintptr_t)p;
        errno = 0;
        /* strtoll() would skip further kinds of white space, and with them the end of the line. */
        long long id = *p == '-' || isdigit((unsigned char)*p) ? strtoll(p, &end, 10) : 0;
        if (end == p || errno != 0 || (!is_separator(*end) && *end != '\0' && *end != '\n')) {
            size_t length = strcspn(p, " \t,\r\n");
            return t2_fail(err, T2_ERR_ARG, "%s: line %lld: '%.*s' is not an integer", name,
                           (long long)line, length < 40 ? (int)length : 40, p);
        }
        if (out != NULL) {
            out[*count] = id;
        }
        (*count)++;
        p = end;
    }
    *at = *p == '\n' ? p + 1 : p;
    return T2_OK;
}

/* First pass: N lines of L ids each; empty lines are skipped. */
static t2_status measure(const char *name, const char *text, cli_ids *ids, t2_error *err)
{
    int64_t line = 0, count;
    for (const char *at = text; *at != '\0';) {
        t2_status status = parse_line(name, ++line, &at, NULL, &count, err);
        if (status != T2_OK) {
            return status;
        }
        if (count == 0) {
            continue;
        }
        if (ids->N > 0 && count != ids->L) {
            return t2_fail(
                err, T2_ERR_ARG,
                "%s: line %lld has %lld ids, the lines before have %lld: sequences of one "
                "batch must have one length",
                name, (long long)line, (long long)count, (long long)ids->L);
        }
        ids->L = count;
        ids->N++;
    }
    return ids->N > 0 ? T2_OK : t2_fail(err, T2_ERR_ARG, "%s: no token ids", name);
}

static t2_status ids_from_text(const char *name, const char *text, cli_ids *ids, t2_error *err)
{
    ids->L = ids->N = 0;
    ids->rank = 2;
    t2_status status = measure(name, text, ids, err);
    if (status != T2_OK) {
        return status;
    }
    size_t L = (size_t)ids->L, N = (size_t)ids->N;
    ids->ids = malloc(L * N * sizeof(int64_t));
    int64_t *row = malloc(L * sizeof(int64_t));
    if (ids->ids == NULL || row == NULL) {
        free(row);
        return t2_fail(err, T2_ERR_NOMEM, "%s: out of memory for %zu ids", name, L * N);
    }
    const char *at = text;
    for (size_t n = 0; n < N;) {
        int64_t count;
        parse_line(name, 0, &at, row, &count, err); /* measure() has checked every line */
        for (size_t l = 0; count > 0 && l < L; l++) {
            ids->ids[l * N + n] = row[l];
        }
        n += count > 0;
    }
    free(row);
    return T2_OK;
}

void cli_describe_tensor(const t2_tensor *tensor, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s of shape (", t2_dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->rank && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i > 0 ? ", " : "",
                                 (long long)tensor->shape[i]);
    }
    if (used < size) {
        snprintf(text + used, size - used, ")");
    }
}

static t2_status ids_from_tensor(t2_safetensors *file, cli_ids *ids, t2_error *err)
{
    const char *path = t2_safetensors_path(file);
    const t2_tensor *tensor = t2_safetensors_find(file, "ids");
    if (tensor == NULL) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: no tensor 'ids'", path);
    }
    if (tensor->dtype != T2_I64 || tensor->rank < 1 || tensor->rank > 2) {
        char found[96];
        cli_describe_tensor(tensor, found, sizeof found);
        return t2_fail(err, T2_ERR_FORMAT,
                       "%s: tensor 'ids': expected I64 of shape (L, N) or (L), found %s", path,
                       found);
    }
    const int64_t *data;
    t2_status status = t2_safetensors_i64(file, tensor, &data, err);
    if (status != T2_OK) {
        return status;
    }
    ids->rank = tensor->rank;
    ids->L = tensor->shape[0];
    ids->N = tensor->rank == 2 ? tensor->shape[1] : 1;
    ids->ids = malloc(tensor->bytes > 0 ? tensor->bytes : 1);
    if (ids->ids == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: out of memory for the token ids", path);
    }
    memcpy(ids->ids, data, tensor->bytes);
    return T2_OK;
}

t2_status cli_file_read(const char *path, char **text, size_t *size, t2_error *err)
{
    int is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "rbe");
    if (f == NULL) {
        return t2_fail(err, T2_ERR_IO, "%s: %s", path, strerror(errno));
    }
    t2_status status = read_all(f, is_stdin ? "standard input" : path, text, size, err);
    if (!is_stdin) {
        fclose(f);
    }
    return status;
}

int cli_is_safetensors(const char *text, size_t size)
{
    /* Eight bytes of length, then the header's brace. Text has no NUL. */
    return memchr(text, '\0', size) != NULL;
}

t2_status cli_ids_read(const char *path, cli_ids *ids, t2_error *err)
{
    memset(ids, 0, sizeof *ids);
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    char *text = NULL;
    size_t size = 0;
    t2_status status = cli_file_read(path, &text, &size, err);
    if (status != T2_OK) {
        return status;
    }
    if (cli_is_safetensors(text, size)) {
        t2_safetensors *file;
        status = t2_safetensors_open_memory(name, text, size, &file, err);
        if (status == T2_OK) {
            status = ids_from_tensor(file, ids, err);
            t2_safetensors_close(file);
        }
    } else {
        status = ids_from_text(name, text, ids, err);
    }
    free(text);
    if (status != T2_OK) {
        cli_ids_free(ids);
    }
    return status;
}

void cli_ids_free(cli_ids *ids)
{
    free(ids->ids);
    memset(ids, 0, sizeof *ids);
}

/* ---- masks ---------------------------------------------------------------------------------- */

t2_status cli_mask_read(const char *what, int64_t L, int64_t N, int64_t heads, cli_mask *mask,
                        t2_error *err)
{
    memset(mask, 0, sizeof *mask);
    if (strcmp(what, "none") == 0) {
        return T2_OK;
    }
    if (strcmp(what, "causal") == 0) {
        mask->mask.kind = T2_MASK_CAUSAL;
        return T2_OK;
    }
    t2_status status = t2_safetensors_open(what, 0, &mask->file, err);
    if (status != T2_OK) {
        return status;
    }
    const t2_tensor *tensor = t2_safetensors_find(mask->file, "mask");
    if (tensor == NULL) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: no tensor 'mask'", what);
    }
    return t2_mask_from_tensor(mask->file, tensor, L, L, N, heads, &mask->mask, err);
}

void cli_mask_free(cli_mask *mask)
{
    t2_safetensors_close(mask->file);
    memset(mask, 0, sizeof *mask);
}
