/* Which matrices of a model are decomposed, and their elements in double. */
#include "io/digest.h"
#include "io/error.h"
#include "svf/svf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct module {
    const char *family, *group, *pattern;
    int transposed;
    const char *parts;
} module;

static const module modules_table[] = {
#define T2_MODULE(family, group, pattern, transposed, parts) \
    {family, group, pattern, transposed, parts},
#include "svf/modules.def"
#undef T2_MODULE
};
enum { MODULE_COUNT = sizeof modules_table / sizeof modules_table[0] };

/* ---- names --------------------------------------------------------------------------------- */

int t2_name_matches(const char *pattern, const char *name)
{
    /* After a mismatch the last * takes one character more. */
    const char *star = NULL, *from = NULL;
    while (*name != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star + 1;
            name = ++from;
        } else {
            return 0;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}

/* ---- families ------------------------------------------------------------------------------ */

static int64_t outputs_of(const t2_tensor *tensor, int transposed)
{
    return tensor->shape[transposed ? 1 : 0];
}

static int64_t inputs_of(const t2_tensor *tensor, int transposed)
{
    return tensor->shape[transposed ? 0 : 1];
}

static int fits(const module *row, const t2_tensor *tensor)
{
    if (tensor->rank != 2 || !t2_name_matches(row->pattern, tensor->name)) {
        return 0;
    }
    if (row->parts == NULL) {
        return 1;
    }
    int64_t parts = (int64_t)strlen(row->parts), outputs = outputs_of(tensor, row->transposed);
    return outputs % parts == 0 && outputs / parts == inputs_of(tensor, row->transposed);
}

static int fits_any(const module *row, const t2_safetensors *file)
{
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        if (fits(row, t2_safetensors_tensor(file, i))) {
            return 1;
        }
    }
    return 0;
}

/* NULL where no row of any family fits. */
static const char *family_of(const t2_safetensors *file)
{
    const char *best = NULL;
    int most = 0;
    for (int i = 0; i < MODULE_COUNT;) {
        const char *family = modules_table[i].family;
        int rows = 0;
        for (; i < MODULE_COUNT && strcmp(modules_table[i].family, family) == 0; i++) {
            rows += fits_any(&modules_table[i], file);
        }
        if (rows > most) {
            most = rows;
            best = family;
        }
    }
    return best;
}

static const module *module_of(const char *family, const t2_tensor *tensor)
{
    for (int i = 0; family != NULL && i < MODULE_COUNT; i++) {
        if (strcmp(modules_table[i].family, family) == 0 && fits(&modules_table[i], tensor)) {
            return &modules_table[i];
        }
    }
    return NULL;
}

/* ---- what is asked for ---------------------------------------------------------------------- */

typedef struct item {
    char *text;
    int used; /* it matched something */
} item;

typedef struct selection {
    char *copy;
    item *items;
    int count;
} selection;

static int split_items(const char *modules, selection *wanted)
{
    size_t commas = 0;
    for (const char *p = modules; *p != '\0'; p++) {
        commas += *p == ',';
    }
    wanted->copy = strdup(modules);
    wanted->items = calloc(commas + 1, sizeof wanted->items[0]);
    if (wanted->copy == NULL || wanted->items == NULL) {
        return 0;
    }
    for (char *p = wanted->copy; p != NULL;) {
        char *comma = strchr(p, ',');
        if (comma != NULL) {
            *comma = '\0';
        }
        wanted->items[wanted->count++].text = p;
        p = comma != NULL ? comma + 1 : NULL;
    }
    return 1;
}

static int is_floating(t2_dtype dtype)
{
    switch (dtype) {
    case T2_F4:
    case T2_F6_E2M3:
    case T2_F6_E3M2:
    case T2_F8_E5M2:
    case T2_F8_E4M3:
    case T2_F8_E8M0:
    case T2_F16:
    case T2_BF16:
    case T2_F32:
    case T2_F64:
        return 1;
    default:
        return 0;
    }
}

static int is_wanted(selection *wanted, const module *row, const t2_tensor *tensor,
                     const char *name)
{
    int any = 0;
    for (int i = 0; i < wanted->count; i++) {
        item *one = &wanted->items[i];
        int match;
        if (strcmp(one->text, "mlp") == 0 || strcmp(one->text, "attention") == 0) {
            match = row != NULL && strcmp(row->group, one->text) == 0;
        } else if (strcmp(one->text, "all") == 0) {
            match = is_floating(tensor->dtype) && strstr(tensor->name, "norm") == NULL;
        } else {
            match = t2_name_matches(one->text, tensor->name) || t2_name_matches(one->text, name);
        }
        one->used |= match;
        any |= match;
    }
    return any;
}

int t2_matrix_readable(t2_dtype dtype)
{
    return dtype == T2_F32 || dtype == T2_F16 || dtype == T2_BF16 || dtype == T2_F64;
}

/* ---- choosing ------------------------------------------------------------------------------- */

static t2_status check_matrix(const char *path, const t2_matrix *matrix, t2_error *err)
{
    char shown[T2_SHOW], name[T2_SHOW];
    const t2_tensor *tensor = matrix->tensor;
    if (!t2_matrix_readable(tensor->dtype)) {
        return t2_fail(
            err, T2_ERR_FORMAT, "%s: tensor %s: expected F32, F16, BF16 or F64, found %s",
            t2_show(shown, path), t2_show(name, tensor->name), t2_dtype_name(tensor->dtype));
    }
    if (matrix->m < 1 || matrix->n < 1) {
        return t2_fail(err, T2_ERR_FORMAT, "%s: tensor %s: expected a matrix, found [%lld, %lld]",
                       t2_show(shown, path), t2_show(name, tensor->name),
                       (long long)tensor->shape[0], (long long)tensor->shape[1]);
    }
    return T2_OK;
}

/* The matrix number `part` of a tensor, added to the list where it is wanted. */
static t2_status add_part(const char *path, const t2_tensor *tensor, const module *row, int part,
                          selection *wanted, t2_matrices *chosen, t2_error *err)
{
    char shown[T2_SHOW];
    t2_text name = {0};
    t2_text_str(&name, tensor->name);
    int transposed = row != NULL && row->transposed;
    int64_t outputs = outputs_of(tensor, transposed), parts = 1;
    if (row != NULL && row->parts != NULL) {
        parts = (int64_t)strlen(row->parts);
        t2_text_printf(&name, ".%c", row->parts[part]);
    }
    t2_matrix *list = realloc(chosen->list, (size_t)(chosen->count + 1) * sizeof list[0]);
    if (name.failed || list == NULL) {
        chosen->list = list != NULL ? list : chosen->list;
        t2_text_free(&name);
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory to list its matrices",
                       t2_show(shown, path));
    }
    chosen->list = list;
    if (!is_wanted(wanted, row, tensor, name.data)) {
        t2_text_free(&name);
        return T2_OK;
    }
    t2_matrix *matrix = &list[chosen->count++];
    *matrix = (t2_matrix){name.data,  tensor,          part * (outputs / parts),
                          transposed, outputs / parts, inputs_of(tensor, transposed)};
    return check_matrix(path, matrix, err);
}

static int by_name(const void *a, const void *b)
{
    const t2_matrix *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static t2_status collect(const t2_safetensors *file, selection *wanted, t2_matrices *chosen,
                         t2_error *err)
{
    const char *path = t2_safetensors_path(file), *family = family_of(file);
    char shown[T2_SHOW], name[T2_SHOW];
    t2_status status = T2_OK;
    for (size_t i = 0; i < t2_safetensors_count(file) && status == T2_OK; i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        if (tensor->rank != 2) {
            continue;
        }
        const module *row = module_of(family, tensor);
        int parts = row != NULL && row->parts != NULL ? (int)strlen(row->parts) : 1;
        for (int part = 0; part < parts && status == T2_OK; part++) {
            status = add_part(path, tensor, row, part, wanted, chosen, err);
        }
    }
    for (int i = 0; i < wanted->count && status == T2_OK; i++) {
        const item *one = &wanted->items[i];
        if (!one->used) {
            status = t2_fail(err, T2_ERR_ARG,
                             "%s: nothing matches '%s': expected mlp, attention%s, all, or a "
                             "pattern of names of tensors with two dimensions",
                             t2_show(shown, path), t2_show(name, one->text),
                             family == NULL ? " (of models whose names are known)" : "");
        }
    }
    if (status == T2_OK) {
        qsort(chosen->list, (size_t)chosen->count, sizeof chosen->list[0], by_name);
    }
    for (int64_t i = 1; i < chosen->count && status == T2_OK; i++) {
        if (by_name(&chosen->list[i - 1], &chosen->list[i]) == 0) {
            status = t2_fail(err, T2_ERR_FORMAT, "%s: two matrices are called %s",
                             t2_show(shown, path), t2_show(name, chosen->list[i].name));
        }
    }
    return status;
}

t2_status t2_matrices_choose(const t2_safetensors *file, const char *modules, t2_matrices *chosen,
                             t2_error *err)
{
    selection wanted = {0};
    *chosen = (t2_matrices){0, NULL};
    t2_status status;
    if (!split_items(modules, &wanted)) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    } else {
        status = collect(file, &wanted, chosen, err);
    }
    if (status != T2_OK) {
        t2_matrices_free(chosen);
    }
    free(wanted.copy);
    free(wanted.items);
    return status;
}

void t2_matrices_free(t2_matrices *matrices)
{
    for (int64_t i = 0; i < matrices->count; i++) {
        free(matrices->list[i].name);
    }
    free(matrices->list);
    *matrices = (t2_matrices){0, NULL};
}

/* ---- elements ------------------------------------------------------------------------------- */

static double from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static double from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, fraction = h & 1023u;
    if (exponent == 0) {
        return (sign != 0 ? -1.0 : 1.0) * (double)fraction * 0x1p-24;
    }
    return from_bits(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

/* `count` elements from `data`, which need not be aligned, to out[0], out[step], ...; the index of
 * the first that is not finite, or count. */
static int64_t convert(t2_dtype dtype, const unsigned char *data, int64_t count, double *out,
                       int64_t step)
{
    for (int64_t i = 0; i < count; i++) {
        double x;
        if (dtype == T2_F64) {
            memcpy(&x, data + 8 * i, sizeof x);
        } else if (dtype == T2_F32) {
            uint32_t bits;
            memcpy(&bits, data + 4 * i, sizeof bits);
            x = from_bits(bits);
        } else {
            uint16_t bits;
            memcpy(&bits, data + 2 * i, sizeof bits);
            x = dtype == T2_BF16 ? from_bits((uint32_t)bits << 16) : from_f16(bits);
        }
        if (!isfinite(x)) {
            return i;
        }
        out[i * step] = x;
    }
    return count;
}

/* The matrix as the file holds it: rows of `length` elements, one each `stride` elements. */
typedef struct stored {
    const unsigned char *data;
    size_t element;                            /* bytes */
    int64_t rows, length, stride, row, column; /* ... from that element of the tensor */
} stored;

static stored stored_of(const t2_matrix *matrix)
{
    const t2_tensor *tensor = matrix->tensor;
    const int t = matrix->transposed;
    stored s = {tensor->data,
                (size_t)t2_dtype_bits(tensor->dtype) / 8,
                t ? matrix->n : matrix->m,
                t ? matrix->m : matrix->n,
                tensor->shape[1],
                t ? 0 : matrix->first,
                t ? matrix->first : 0};
    s.data += (size_t)(s.row * s.stride + s.column) * s.element;
    return s;
}

t2_status t2_matrix_read(const char *path, const t2_matrix *matrix, double *w, t2_error *err)
{
    char shown[T2_SHOW], name[T2_SHOW];
    const stored s = stored_of(matrix);
    for (int64_t i = 0; i < s.rows; i++) {
        double *out = matrix->transposed ? w + i : w + i * s.length;
        int64_t good = convert(matrix->tensor->dtype, s.data + (size_t)(i * s.stride) * s.element,
                               s.length, out, matrix->transposed ? s.rows : 1);
        if (good < s.length) {
            return t2_fail(err, T2_ERR_NUMERIC,
                           "%s: tensor %s: element [%lld, %lld] is not a finite number",
                           t2_show(shown, path), t2_show(name, matrix->tensor->name),
                           (long long)(s.row + i), (long long)(s.column + good));
        }
    }
    return T2_OK;
}

void t2_matrix_hash(const t2_matrix *matrix, char hash[T2_HASH_CHARS])
{
    const stored s = stored_of(matrix);
    const int64_t shape[2] = {s.rows, s.length};
    t2_digest digest;
    t2_digest_start(&digest);
    t2_digest_shape(&digest, matrix->tensor->dtype, 2, shape);
    for (int64_t i = 0; i < s.rows; i++) {
        t2_digest_add(&digest, s.data + (size_t)(i * s.stride) * s.element,
                      (size_t)s.length * s.element);
    }
    t2_digest_end(&digest, hash);
}
