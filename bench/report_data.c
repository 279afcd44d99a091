/* The result files as JSON for the page's script: positional arrays, which keeps thousands of rows
 * small, with the names of the positions in "fields". */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *text(const char *s)
{
    return s != NULL ? json_string(s) : json_null();
}

/* Appends all values; what could not be allocated shows as a NULL that jansson refuses. */
static int append(json_t *array, int count, json_t *const value[])
{
    int failed = 0;
    for (int i = 0; i < count; i++) {
        failed |= json_array_append_new(array, value[i]) != 0;
    }
    return failed ? -1 : 0;
}
#define APPEND(array, ...)                                                   \
    append(array, (int)(sizeof(json_t *[]){__VA_ARGS__} / sizeof(json_t *)), \
           (json_t *[]){__VA_ARGS__})

static const char *const row_fields[] = {
    "name",  "op",     "isa",      "shape", "set",   "threads", "operands", "fp",   "best",
    "error", "median", "min",      "low",   "high",  "samples", "rate",     "unit", "intensity",
    "limit", "share",  "bestPeer", "ratio", "noisy", "verdict", "peers"};
static const char *const peer_fields[] = {"name", "median", "ratio", "low",
                                          "high", "noisy",  "error"};

static json_t *peers_json(const struct result_row *row)
{
    json_t *peers = json_array();
    for (int i = 0; i < row->peers; i++) {
        const struct result_peer *p = &row->peer[i];
        json_t *peer = json_array();
        int failed = p->error != NULL
                         ? APPEND(peer, text(p->name), json_null(), json_null(), json_null(),
                                  json_null(), json_false(), text(p->error))
                         : APPEND(peer, text(p->name), number(p->median), number(p->ratio),
                                  number(p->ratio_low), number(p->ratio_high),
                                  json_boolean(p->noisy), json_null());
        if (failed || json_array_append_new(peers, peer) != 0) {
            json_decref(failed ? peer : NULL);
            json_decref(peers);
            return NULL;
        }
    }
    return peers;
}

static json_t *row_json(const struct result_row *row, int best)
{
    json_t *array = json_array();
    int failed = APPEND(array, text(row->name), text(row->op), text(row->isa), text(row->shape),
                        text(row->set), json_integer(row->threads), text(row->operands),
                        text(row->fingerprint), json_boolean(best), text(row->error));
    if (row->error == NULL) {
        const char *limit = row->limit;
        failed |=
            APPEND(array, number(row->median), number(row->min), number(row->low),
                   number(row->high), json_integer(row->samples), number(row->rate),
                   text(row->rate_unit), number(row->intensity), text(limit),
                   limit != NULL ? number(row->limit_share) : json_null(), text(row->best_peer),
                   row->best_peer != NULL ? number(row->peer_ratio) : json_null(),
                   json_boolean(row->noisy), json_integer(report_verdict(row)), peers_json(row));
    }
    if (failed) {
        json_decref(array);
        return NULL;
    }
    return array;
}

static json_t *rows_json(const struct report_file *file)
{
    json_t *rows = json_array();
    int best = 0;
    for (int i = 0; i < file->results.rows; i++) {
        const struct result_row *row = &file->results.row[i];
        int is_best = best < file->bests && file->best[best] == row;
        best += is_best;
        if (json_array_append_new(rows, row_json(row, is_best)) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

/* Names of the instruction sets from low to high; what runs only elsewhere is left out. */
static json_t *isas_json(const struct results *results)
{
    json_t *isas = json_array(), *entry;
    size_t i;
    json_array_foreach(report_get(results->context, "machine", "isa", "list", NULL), i, entry)
    {
        json_t *name = json_object_get(entry, "name");
        if (json_is_string(name)) {
            json_array_append(isas, name);
        }
    }
    return isas;
}

static json_t *strings_json(const char *const *strings, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(array, json_string(strings[i]));
    }
    return array;
}

static json_t *file_json(const struct report_file *file)
{
    const struct results *r = &file->results;
    json_t *peaks = json_object_get(r->context, "peaks");
    json_t *caches = report_get(r->context, "machine", "caches", NULL);
    return json_pack("{s:s, s:s, s:b, s:s, s:o, s:O, s:O, s:o}", "label", r->label, "key", r->key,
                     "complete", r->complete, "active",
                     report_string(report_get(r->context, "machine", NULL), "isa", "active"),
                     "isas", isas_json(r), "peaks", peaks != NULL ? peaks : json_null(), "caches",
                     caches != NULL ? caches : json_null(), "rows", rows_json(file));
}

int report_data(const struct report *report, t2_text *json)
{
    json_t *files = json_array();
    int failed = 0;
    for (int i = 0; i < report->files; i++) {
        failed |= json_array_append_new(files, file_json(&report->file[i]));
    }
    json_t *root = json_pack(
        "{s:o, s:o, s:o}", "fields",
        strings_json(row_fields, sizeof row_fields / sizeof *row_fields), "peerFields",
        strings_json(peer_fields, sizeof peer_fields / sizeof *peer_fields), "files", files);
    char *dump = root == NULL
                     ? NULL
                     : json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6));
    json_decref(root);
    if (failed || dump == NULL) {
        free(dump);
        return -1;
    }
    /* Outside strings JSON has none of these; inside, they could end the script element. */
    for (const char *p = dump; *p != '\0';) {
        size_t plain = strcspn(p, "<>&");
        t2_text_add(json, p, plain);
        p += plain;
        if (*p != '\0') {
            t2_text_printf(json, "\\u%04x", (unsigned)*p++);
        }
    }
    free(dump);
    return json->failed ? -1 : 0;
}
