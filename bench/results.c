/* Result files read back: see results.h; the format: docs/benchmarks.md, "The file".
 *
 * Nothing in a file is trusted: what is read has the type and range that bench/schema.json asks
 * for, and names are made of plain characters, so that they may be printed as they are. */
#include "results.h"
#include "io/json_file.h"
#include "io/text.h"
#include "t2.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a file: a full run with all peers takes some 50 MB. */
#define MOST_BYTES ((size_t)1 << 30)
enum { SCHEMA = 1, MOST_THREADS = 4096 };

/* Where an entry or a part of it is read: what is wrong there is written once. */
struct reader {
    const char *path;
    char *error;
    size_t size;
    int failed;
    const char *where; /* the row, or "context" */
};

__attribute__((format(printf, 2, 3))) static void fail(struct reader *r, const char *format, ...)
{
    char shown[T2_SHOW], text[256];
    if (r->failed) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(r->error, r->size, "%s: not a result file of t2bench: %s", t2_show(shown, r->path),
             text);
    r->failed = 1;
}

static void fail_memory(struct reader *r)
{
    char shown[T2_SHOW];
    if (!r->failed) {
        snprintf(r->error, r->size, "%s: no memory to read it", t2_show(shown, r->path));
        r->failed = 1;
    }
}

static void expected(struct reader *r, const json_t *value, const char *key, const char *what)
{
    static const char *const types[] = {"an object",       "a list",   "a text",
                                        "an integer",      "a number", "a value (true)",
                                        "a value (false)", "null"};
    fail(r, "%s: '%s' %s%s; expected %s", r->where, key, value == NULL ? "is missing" : "is ",
         value == NULL ? "" : types[json_typeof(value)], what);
}

/* ---- members --------------------------------------------------------------------------------- */

static json_t *get_object(struct reader *r, const json_t *from, const char *key)
{
    json_t *value = json_object_get(from, key);
    if (!json_is_object(value)) {
        expected(r, value, key, "an object");
        return NULL;
    }
    return value;
}

/* A word of letters, digits and - _ . : + / between 1 and RESULT_NAME - 1 long. */
static const char *get_word(struct reader *r, const json_t *from, const char *key)
{
    const json_t *value = json_object_get(from, key);
    const char *text = json_string_value(value);
    size_t length = text != NULL ? strlen(text) : 0;
    if (length == 0 || length >= RESULT_NAME || length != json_string_length(value) ||
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+/") !=
            length) {
        expected(r, value, key, "a name of letters, digits and -_.:+/");
        return "";
    }
    return text;
}

static const char *get_text(struct reader *r, const json_t *from, const char *key)
{
    const json_t *value = json_object_get(from, key);
    if (!json_is_string(value)) {
        expected(r, value, key, "a text");
        return "";
    }
    return json_string_value(value);
}

static const char *get_text_or_null(struct reader *r, const json_t *from, const char *key)
{
    const json_t *value = json_object_get(from, key);
    return value == NULL || json_is_null(value) ? NULL : get_text(r, from, key);
}

/* Beyond these a number is no time and no rate; ratios of two within them are finite. */
static int in_range(double number)
{
    return number >= 1e-30 && number <= 1e30;
}

/* A number from 0, or where `positive`, above 0. */
static double get_number(struct reader *r, const json_t *from, const char *key, int positive)
{
    const json_t *value = json_object_get(from, key);
    double number = json_is_number(value) ? json_number_value(value) : -1.0;
    if (!in_range(number) && (positive || number != 0.0)) {
        expected(r, value, key, positive ? "one from 1e-30 to 1e30" : "0, or one up to 1e30");
        return 1.0;
    }
    return number;
}

static double get_number_or_null(struct reader *r, const json_t *from, const char *key)
{
    const json_t *value = json_object_get(from, key);
    return value == NULL || json_is_null(value) ? 0.0 : get_number(r, from, key, 0);
}

static int get_bool(struct reader *r, const json_t *from, const char *key)
{
    const json_t *value = json_object_get(from, key);
    if (!json_is_boolean(value)) {
        expected(r, value, key, "true or false");
        return 0;
    }
    return json_is_true(value);
}

static void get_interval(struct reader *r, const json_t *from, const char *key, double *low,
                         double *high)
{
    const json_t *value = json_object_get(from, key);
    const json_t *first = json_array_get(value, 0), *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_number(first) || !json_is_number(second) ||
        !in_range(json_number_value(first)) || !in_range(json_number_value(second)) ||
        json_number_value(second) < json_number_value(first)) {
        expected(r, value, key, "[low, high] within 1e-30 to 1e30");
        return;
    }
    *low = json_number_value(first);
    *high = json_number_value(second);
}

/* ---- entries --------------------------------------------------------------------------------- */

static void read_names(struct reader *r, struct result_row *row, const json_t *entry)
{
    row->op = get_word(r, entry, "op");
    row->isa = get_word(r, entry, "isa");
    row->shape = get_word(r, entry, "shape");
    row->set = get_word(r, entry, "set");
    row->operands = get_word(r, entry, "operands");
    double threads = get_number(r, entry, "threads", 1);
    if (threads != floor(threads) || threads > MOST_THREADS) {
        expected(r, json_object_get(entry, "threads"), "threads", "an integer from 1 to 4096");
        threads = 1.0;
    }
    row->threads = (int)threads;
}

static void add_sample(struct reader *r, struct result_row *row, const json_t *entry)
{
    /* Room is doubled whenever it is used up, at powers of two. */
    if ((row->samples & (row->samples - 1)) == 0) {
        size_t room = row->samples > 0 ? 2 * (size_t)row->samples : 1;
        double *grown = realloc(row->sample, room * sizeof *grown);
        if (grown == NULL) {
            fail_memory(r);
            return;
        }
        row->sample = grown;
    }
    row->sample[row->samples++] = get_number(r, entry, "real_time", 1);
}

static void read_peer(struct reader *r, struct result_peer *peer, const char *name,
                      const json_t *value)
{
    peer->name = name;
    if (!json_is_object(value)) {
        expected(r, value, name, "an object");
        return;
    }
    peer->error = get_text_or_null(r, value, "error");
    peer->noisy = get_bool(r, value, "noisy");
    if (peer->error == NULL) {
        peer->median = get_number(r, value, "median", 1);
        peer->min = get_number(r, value, "min", 1);
        peer->ratio = get_number(r, value, "ratio", 1);
        get_interval(r, value, "ratio_interval", &peer->ratio_low, &peer->ratio_high);
    }
}

static void read_peers(struct reader *r, struct result_row *row, const json_t *entry)
{
    json_t *peers = get_object(r, entry, "peer_results"), *value;
    const char *name;
    size_t count = json_object_size(peers);
    if (count == 0 || row->peer != NULL) {
        return;
    }
    row->peer = calloc(count, sizeof *row->peer);
    if (row->peer == NULL) {
        fail_memory(r);
        return;
    }
    json_object_foreach(peers, name, value)
    {
        read_peer(r, &row->peer[row->peers++], name, value);
    }
}

static void read_median(struct reader *r, struct result_row *row, const json_t *entry)
{
    if (row->median > 0.0) {
        fail(r, "%s: the aggregate 'median' is there twice", r->where);
        return;
    }
    row->median = get_number(r, entry, "real_time", 1);
    get_interval(r, entry, "interval", &row->low, &row->high);
    row->noisy = get_bool(r, entry, "noisy");
    row->rate = get_number(r, entry, "rate", 0);
    row->rate_unit = get_text(r, entry, "rate_unit");
    if (strcmp(row->rate_unit, "GFLOP/s") != 0 && strcmp(row->rate_unit, "GB/s") != 0) {
        expected(r, json_object_get(entry, "rate_unit"), "rate_unit", "GFLOP/s or GB/s");
    }
    row->intensity = get_number(r, entry, "intensity", 0);
    row->fingerprint = get_word(r, entry, "fingerprint");
    row->limit = get_text_or_null(r, entry, "limit");
    row->limit_share = get_number_or_null(r, entry, "limit_share");
    row->best_peer = get_text_or_null(r, entry, "best_peer");
    row->peer_ratio = get_number_or_null(r, entry, "peer_ratio");
    read_peers(r, row, entry);
}

static void read_entry(struct reader *r, struct result_row *row, const json_t *entry)
{
    if (json_is_true(json_object_get(entry, "error_occurred"))) {
        row->error = get_text(r, entry, "error_message");
        return;
    }
    const char *unit = get_text(r, entry, "time_unit"), *type = get_text(r, entry, "run_type");
    if (strcmp(unit, "ns") != 0) {
        fail(r, "%s: 'time_unit' is not 'ns'", r->where);
    } else if (strcmp(type, "iteration") == 0) {
        add_sample(r, row, entry);
    } else if (strcmp(type, "aggregate") != 0) {
        fail(r, "%s: 'run_type' is neither 'iteration' nor 'aggregate'", r->where);
    } else {
        const char *name = get_text(r, entry, "aggregate_name");
        if (strcmp(name, "median") == 0) {
            read_median(r, row, entry);
        } else if (strcmp(name, "min") == 0) {
            row->min = get_number(r, entry, "real_time", 1);
        }
    }
}

/* The row of that name, a new one where there was none; NULL on failure. */
static struct result_row *row_of(struct reader *r, struct results *results, const char *name)
{
    json_t *known = json_object_get(results->index, name);
    if (known != NULL) {
        return &results->row[json_integer_value(known)];
    }
    if ((results->rows & (results->rows - 1)) == 0) {
        size_t room = results->rows > 0 ? 2 * (size_t)results->rows : 1;
        struct result_row *grown = realloc(results->row, room * sizeof *grown);
        if (grown == NULL) {
            fail_memory(r);
            return NULL;
        }
        results->row = grown;
    }
    if (json_object_set_new(results->index, name, json_integer(results->rows)) != 0) {
        fail_memory(r);
        return NULL;
    }
    struct result_row *row = &results->row[results->rows++];
    *row = (struct result_row){.name = name};
    return row;
}

static void read_rows(struct reader *r, struct results *results, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++) {
        const json_t *entry = json_array_get(list, i);
        char place[40];
        snprintf(place, sizeof place, "benchmarks[%zu]", i);
        r->where = place;
        if (!json_is_object(entry)) {
            fail(r, "%s is not an object", place);
            return;
        }
        const char *name = get_word(r, entry, "run_name");
        int rows = results->rows;
        struct result_row *row = r->failed ? NULL : row_of(r, results, name);
        if (row == NULL) {
            return;
        }
        r->where = name;
        if (results->rows > rows) {
            read_names(r, row, entry);
        }
        read_entry(r, row, entry);
    }
    for (int i = 0; i < results->rows && !r->failed; i++) {
        const struct result_row *row = &results->row[i];
        r->where = row->name;
        if (row->error == NULL && (row->samples == 0 || !(row->median > 0.0 && row->min > 0.0))) {
            fail(r, "%s: has no %s", row->name,
                 row->samples == 0 ? "rounds" : "aggregates 'median' and 'min'");
        }
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

static void read_context(struct reader *r, struct results *results)
{
    json_t *context = get_object(r, results->root, "context"), *machine, *isa;
    const json_t *schema = json_object_get(context, "schema");
    char label[T2_SHOW + RESULT_NAME];
    if (context == NULL) {
        return;
    }
    r->where = "context";
    if (schema == NULL) {
        fail(r, "context: 'schema' is missing (plain output of Google Benchmark?)");
    } else if (!json_is_integer(schema) || json_integer_value(schema) < 1) {
        expected(r, schema, "schema", "a version, at least 1");
    } else if (json_integer_value(schema) > SCHEMA) {
        char shown[T2_SHOW];
        snprintf(r->error, r->size, "%s: schema %lld is newer than %d, the last one known here",
                 t2_show(shown, r->path), (long long)json_integer_value(schema), SCHEMA);
        r->failed = 1;
    }
    results->context = context;
    results->complete = get_bool(r, get_object(r, context, "t2bench"), "complete");
    get_text(r, get_object(r, context, "build"), "compiler");
    get_number(r, get_object(r, context, "threads"), "default", 1);
    machine = get_object(r, context, "machine");
    results->key = get_word(r, machine, "key");
    isa = get_object(r, machine, "isa");
    const char *active = get_word(r, isa, "active");
    const char *name = get_text_or_null(r, machine, "name");
    char shown[T2_SHOW];
    snprintf(label, sizeof label, "%s, %s", t2_show(shown, name != NULL ? name : results->key),
             active);
    json_t *text = r->failed ? NULL : json_string(label);
    if (!r->failed && json_object_set_new(results->index, "", text) != 0) {
        fail_memory(r); /* the empty name, which no row has, holds the label */
    }
    results->label = json_string_value(text);
}

int results_load(const char *path, struct results *results, char *error, size_t size)
{
    struct reader reader = {.path = path, .error = error, .size = size, .where = "the file"};
    t2_json json;
    t2_error err;
    *results = (struct results){.path = path};
    if (t2_json_load(path, MOST_BYTES, &json, &err) != T2_OK) {
        snprintf(error, size, "%s", err.message);
        return -1;
    }
    results->root = json_incref(json.root);
    t2_json_free(&json);
    results->index = json_object();
    if (results->index == NULL) {
        fail_memory(&reader);
    } else {
        read_context(&reader, results);
    }
    if (!reader.failed) {
        const json_t *list = json_object_get(results->root, "benchmarks");
        reader.where = "the file";
        if (!json_is_array(list)) {
            expected(&reader, list, "benchmarks", "a list");
        } else {
            read_rows(&reader, results, list);
        }
    }
    if (reader.failed) {
        results_free(results);
        return -1;
    }
    return 0;
}

void results_free(struct results *results)
{
    for (int i = 0; i < results->rows; i++) {
        free(results->row[i].sample);
        free(results->row[i].peer);
    }
    free(results->row);
    json_decref(results->index);
    json_decref(results->root);
    *results = (struct results){.path = results->path};
}

const struct result_row *results_find(const struct results *results, const char *name)
{
    const json_t *number = json_object_get(results->index, name);
    return json_is_integer(number) ? &results->row[json_integer_value(number)] : NULL;
}

/* ---- labels ---------------------------------------------------------------------------------- */

static int relabel(struct results *results, const char *addition)
{
    char shown[T2_SHOW];
    t2_text text = {0};
    t2_text_printf(&text, "%s (%s)", results->label, t2_show(shown, addition));
    json_t *label = text.failed ? NULL : json_string(text.data);
    t2_text_free(&text);
    /* The old label goes with this, so it is not looked at any more. */
    if (label == NULL || json_object_set_new(results->index, "", label) != 0) {
        return -1;
    }
    results->label = json_string_value(label);
    return 0;
}

/* Marks those whose label another one has too; their number. */
static int equal_labels(int count, struct results *const *results, char *equal)
{
    int sum = 0;
    for (int i = 0; i < count; i++) {
        equal[i] = 0;
        for (int j = 0; j < count && !equal[i]; j++) {
            equal[i] = j != i && strcmp(results[i]->label, results[j]->label) == 0;
        }
        sum += equal[i];
    }
    return sum;
}

int results_label_apart(int count, struct results *const *results)
{
    char *equal = malloc(count > 0 ? (size_t)count : 1);
    int failed = equal == NULL ? -1 : 0;
    for (int step = 0; step < 2 && failed == 0 && equal_labels(count, results, equal) > 0; step++) {
        for (int i = 0; i < count && failed == 0; i++) {
            char text[T2_SHOW];
            const json_t *program = json_object_get(results[i]->context, "t2bench");
            const json_t *build = json_object_get(results[i]->context, "build");
            const char *version = json_string_value(json_object_get(program, "version"));
            const char *git = json_string_value(json_object_get(build, "git"));
            snprintf(text, sizeof text, "%.40s%s%.40s", version != NULL ? version : "",
                     version != NULL && git != NULL ? " " : "", git != NULL ? git : "");
            if (equal[i]) {
                failed = relabel(results[i], step == 0 ? text : results[i]->path);
            }
        }
    }
    free(equal);
    return failed;
}
