/* Configuration files in JSON: loading, and getters that explain what is wrong. Internal.
 *
 * A getter's failure is T2_ERR_FORMAT with the file and the key, such as
 *   "m/config.json: key 'n_heads': expected an integer from 1 to 4096, found \"8\"". */
#ifndef T2_IO_JSON_FILE_H
#define T2_IO_JSON_FILE_H

#include "t2.h"

#include <jansson.h>

typedef struct t2_json {
    json_t *object; /* the members that getters look at */
    char *path;     /* owned by the document, with the root */
    json_t *root;   /* NULL in a part of another document */
} t2_json;

/* Reads a file that holds one JSON object. Larger than `limit` bytes, malformed (then with line
 * and column) or with a key twice is T2_ERR_FORMAT. */
t2_status t2_json_load(const char *path, size_t limit, t2_json *json, t2_error *err);
void t2_json_free(t2_json *json);

/* A member that is an object itself. *part borrows from json and is not to be freed. */
t2_status t2_json_part(const t2_json *json, const char *key, t2_json *part, t2_error *err);

/* Nonzero when the key is there and not null. */
int t2_json_has(const t2_json *json, const char *key);

/* Required members. An integer may be written as 8 or 8.0; a number must be finite by JSON. */
t2_status t2_json_int(const t2_json *json, const char *key, int64_t min, int64_t max,
                      int64_t *value, t2_error *err);
t2_status t2_json_number(const t2_json *json, const char *key, double min, double max,
                         double *value, t2_error *err);
/* *value belongs to the document. */
t2_status t2_json_string(const t2_json *json, const char *key, const char **value, t2_error *err);
t2_status t2_json_bool(const t2_json *json, const char *key, int *value, t2_error *err);

/* The same with a default where the key is missing or null; a wrong type is still an error. */
t2_status t2_json_int_or(const t2_json *json, const char *key, int64_t min, int64_t max,
                         int64_t fallback, int64_t *value, t2_error *err);
t2_status t2_json_number_or(const t2_json *json, const char *key, double min, double max,
                            double fallback, double *value, t2_error *err);
t2_status t2_json_string_or(const t2_json *json, const char *key, const char *fallback,
                            const char **value, t2_error *err);
t2_status t2_json_bool_or(const t2_json *json, const char *key, int fallback, int *value,
                          t2_error *err);

/* For errors about a member that the getters cannot know of; "found" is filled in. */
t2_status t2_json_fail(const t2_json *json, const char *key, const char *expected, t2_error *err);

#endif
