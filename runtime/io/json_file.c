/* Configuration files in JSON. */
#include "io/json_file.h"
#include "io/error.h"
#include "io/file.h"
#include "io/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

t2_status t2_json_load(const char *path, size_t limit, t2_json *json, t2_error *err)
{
    char name[T2_SHOW], reason[T2_SHOW];
    t2_bytes bytes;
    t2_status status = t2_bytes_open(path, 0, limit, &bytes, err);
    if (status != T2_OK) {
        return status;
    }
    json_error_t error;
    json_t *root = json_loadb(bytes.size > 0 ? (const char *)bytes.data : "", bytes.size,
                              JSON_REJECT_DUPLICATES, &error);
    t2_bytes_release(&bytes);
    char *copy = strdup(path);
    if (copy == NULL || (root == NULL && error.text[0] == '\0')) {
        /* A failed allocation within Jansson leaves no text. */
        status = t2_fail(err, T2_ERR_NOMEM, "%s: no memory to read it", t2_show(name, path));
    } else if (root == NULL) {
        status =
            t2_fail(err, T2_ERR_FORMAT, "%s: line %d, column %d: not JSON: %s", t2_show(name, path),
                    error.line, error.column, t2_show(reason, error.text));
    } else if (!json_is_object(root)) {
        status = t2_fail(err, T2_ERR_FORMAT, "%s: expected a JSON object, found a list",
                         t2_show(name, path));
    }
    if (status != T2_OK) {
        json_decref(root);
        free(copy);
        return status;
    }
    *json = (t2_json){root, copy, root};
    return T2_OK;
}

void t2_json_free(t2_json *json)
{
    if (json->root != NULL) {
        json_decref(json->root);
        free(json->path);
    }
    *json = (t2_json){NULL, NULL, NULL};
}

int t2_json_has(const t2_json *json, const char *key)
{
    const json_t *value = json_object_get(json->object, key);
    return value != NULL && !json_is_null(value);
}

/* How a value is shown as "found". */
static void describe(const json_t *value, char *text, size_t size)
{
    char shown[T2_SHOW];
    switch (value == NULL ? JSON_NULL : json_typeof(value)) {
    case JSON_STRING:
        snprintf(text, size, "\"%s\"", t2_show(shown, json_string_value(value)));
        return;
    case JSON_INTEGER:
        snprintf(text, size, "%lld", (long long)json_integer_value(value));
        return;
    case JSON_REAL:
        snprintf(text, size, "%.17g", json_real_value(value));
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(text, size, "%s", json_is_true(value) ? "true" : "false");
        return;
    case JSON_OBJECT:
    case JSON_ARRAY:
        snprintf(text, size, "%s", json_is_array(value) ? "a list" : "an object");
        return;
    default:
        snprintf(text, size, "%s", value == NULL ? "nothing" : "null");
    }
}

t2_status t2_json_fail(const t2_json *json, const char *key, const char *expected, t2_error *err)
{
    char name[T2_SHOW], found[T2_SHOW + 2];
    describe(json_object_get(json->object, key), found, sizeof found);
    return t2_fail(err, T2_ERR_FORMAT, "%s: key '%s': expected %s, found %s",
                   t2_show(name, json->path), key, expected, found);
}

t2_status t2_json_part(const t2_json *json, const char *key, t2_json *part, t2_error *err)
{
    json_t *value = json_object_get(json->object, key);
    if (!json_is_object(value)) {
        return t2_json_fail(json, key, "an object", err);
    }
    *part = (t2_json){value, json->path, NULL};
    return T2_OK;
}

t2_status t2_json_int(const t2_json *json, const char *key, int64_t min, int64_t max,
                      int64_t *value, t2_error *err)
{
    char expected[96];
    const json_t *found = json_object_get(json->object, key);
    int ok = json_is_integer(found);
    int64_t number = ok ? json_integer_value(found) : 0;
    /* Doubles hold every integer below 2^53 exactly; beyond that 8.0 is not meant. */
    if (json_is_real(found) && json_real_value(found) > -0x1p53 &&
        json_real_value(found) < 0x1p53) {
        number = (int64_t)json_real_value(found);
        ok = (double)number == json_real_value(found);
    }
    if (!ok || number < min || number > max) {
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min,
                 (long long)max);
        return t2_json_fail(json, key, expected, err);
    }
    *value = number;
    return T2_OK;
}

t2_status t2_json_number(const t2_json *json, const char *key, double min, double max,
                         double *value, t2_error *err)
{
    char expected[96];
    const json_t *found = json_object_get(json->object, key);
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= min && number <= max)) {
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
        return t2_json_fail(json, key, expected, err);
    }
    *value = number;
    return T2_OK;
}

t2_status t2_json_string(const t2_json *json, const char *key, const char **value, t2_error *err)
{
    const json_t *found = json_object_get(json->object, key);
    if (!json_is_string(found)) {
        return t2_json_fail(json, key, "a string", err);
    }
    *value = json_string_value(found);
    return T2_OK;
}

t2_status t2_json_bool(const t2_json *json, const char *key, int *value, t2_error *err)
{
    const json_t *found = json_object_get(json->object, key);
    if (!json_is_boolean(found)) {
        return t2_json_fail(json, key, "true or false", err);
    }
    *value = json_is_true(found);
    return T2_OK;
}

t2_status t2_json_int_or(const t2_json *json, const char *key, int64_t min, int64_t max,
                         int64_t fallback, int64_t *value, t2_error *err)
{
    if (t2_json_has(json, key)) {
        return t2_json_int(json, key, min, max, value, err);
    }
    *value = fallback;
    return T2_OK;
}

t2_status t2_json_number_or(const t2_json *json, const char *key, double min, double max,
                            double fallback, double *value, t2_error *err)
{
    if (t2_json_has(json, key)) {
        return t2_json_number(json, key, min, max, value, err);
    }
    *value = fallback;
    return T2_OK;
}

t2_status t2_json_string_or(const t2_json *json, const char *key, const char *fallback,
                            const char **value, t2_error *err)
{
    if (t2_json_has(json, key)) {
        return t2_json_string(json, key, value, err);
    }
    *value = fallback;
    return T2_OK;
}

t2_status t2_json_bool_or(const t2_json *json, const char *key, int fallback, int *value,
                          t2_error *err)
{
    if (t2_json_has(json, key)) {
        return t2_json_bool(json, key, value, err);
    }
    *value = fallback;
    return T2_OK;
}
