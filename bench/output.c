/* The JSON document, and all that is written: files, and stdout in formats other than the table.
 *
 * Google Benchmark's own JSON reporter prints the records of our cases; here the text is read back
 * and completed with what the library does not know (docs/benchmarks.md, "The file"). One element
 * per line, so that files can be compared and kept. */
#include "run.h"

#include "io/file.h"
#include "io/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DIGITS 7 /* of numbers: timings are not better than 1e-5 */

/* ---- cases ----------------------------------------------------------------------------------- */

/* A case that has rows in the reports. */
struct reported {
    const struct bench_group *g;
    const struct bench_row *row;
};

static int is_reported(const struct bench_row *row)
{
    return row->ours && row->record != NULL && (row->summarized || row->error[0] != '\0');
}

/* Gives the library's records their statistics, or their error. */
static int complete_record(const struct bench_row *row)
{
    if (!row->summarized) {
        return gbench_fail(row->record, row->error);
    }
    int n = gbench_rounds(row->record);
    double *cpu = calloc((size_t)n, sizeof *cpu);
    if (cpu == NULL) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        cpu[i] = gbench_cpu_seconds(row->record, i);
    }
    int status = gbench_aggregate(row->record, "median", row->summary.median, stats_median(n, cpu));
    status |= gbench_aggregate(row->record, "min", row->summary.min, stats_min(n, cpu));
    free(cpu);
    return status;
}

/* All reported cases, in the order of the table; *records has those of the library. */
static int collect(const struct bench_run *run, struct reported **cases, gbench_case ***records)
{
    int most = 1, count = 0;
    for (int i = 0; i < run->groups; i++) {
        most += run->group[i].own_rows;
    }
    *cases = calloc((size_t)most, sizeof **cases);
    *records = calloc((size_t)most, sizeof(gbench_case *));
    if (*cases == NULL || *records == NULL) {
        return -1;
    }
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->own_rows; j++) {
            if (is_reported(&g->row[j])) {
                (*cases)[count] = (struct reported){g, &g->row[j]};
                (*records)[count++] = g->row[j].record;
                if (complete_record(&g->row[j]) != 0) {
                    return -1;
                }
            }
        }
    }
    return count;
}

/* ---- elements -------------------------------------------------------------------------------- */

static json_t *text_or_null(const char *text)
{
    return text != NULL && text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *number_or_null(double x)
{
    return isfinite(x) && x > 0.0 ? json_real(x) : json_null();
}

static json_t *pair(double low, double high)
{
    return json_pack("[f, f]", low, high);
}

/* The peer's time of the element: of that round, or its own statistic; seconds. */
static double peer_seconds(const struct bench_row *peer, const char *statistic, int round)
{
    if (statistic == NULL) {
        return peer->sample[round];
    }
    return strcmp(statistic, "min") == 0 ? peer->summary.min : peer->summary.median;
}

static json_t *peer_results(const struct bench_group *g, const struct bench_row *row)
{
    json_t *results = json_object();
    for (int i = g->own_rows; i < g->rows; i++) {
        const struct bench_row *peer = &g->row[i];
        json_t *result = NULL;
        if (bench_compares(g, row, peer)) {
            const struct bench_summary *s = &peer->summary;
            double ratio = bench_paired_ratio(g->rounds, row->sample, peer->sample);
            struct stats_interval interval =
                stats_ratio_interval_paired(g->rounds, row->sample, peer->sample, 1);
            result = json_pack("{s:f, s:f, s:f, s:o, s:b, s:n}", "median", 1e9 * s->median, "min",
                               1e9 * s->min, "ratio", ratio, "ratio_interval",
                               pair(interval.low, interval.high), "noisy", s->noisy, "error");
        } else if (!peer->unsupported && peer->error[0] != '\0' &&
                   (peer->isa < 0 || peer->isa == row->isa)) {
            result = json_pack("{s:n, s:n, s:n, s:n, s:b, s:s}", "median", "min", "ratio",
                               "ratio_interval", "noisy", 0, "error", peer->error);
        }
        if (result != NULL) {
            json_object_set_new(results, peer->name, result);
        }
    }
    return results;
}

static void add_times(json_t *element, const struct reported *c, const char *statistic)
{
    const struct bench_summary *s = &c->row->summary;
    double own = 1e-9 * json_number_value(json_object_get(element, "real_time"));
    int round = (int)json_integer_value(json_object_get(element, "repetition_index"));
    json_t *peers = json_object();
    for (int i = c->g->own_rows; i < c->g->rows; i++) {
        const struct bench_row *peer = &c->g->row[i];
        if (bench_compares(c->g, c->row, peer)) {
            json_object_set_new(peers, peer->name,
                                json_real(1e9 * peer_seconds(peer, statistic, round)));
        }
    }
    double ratio = 0.0;
    if (s->best_peer != NULL) {
        ratio = statistic != NULL && strcmp(statistic, "median") == 0
                    ? s->ratio
                    : peer_seconds(s->best_peer, statistic, round) / own;
    }
    char fingerprint[20];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, c->row->fingerprint);
    json_object_set_new(element, "fingerprint", json_string(fingerprint));
    json_object_set_new(element, "verified", json_string(c->g->verified_by));
    json_object_set_new(element, "limit", text_or_null(s->limit));
    json_object_set_new(element, "limit_share", number_or_null(s->limit_seconds / own));
    json_object_set_new(element, "best_peer",
                        text_or_null(s->best_peer != NULL ? s->best_peer->name : NULL));
    json_object_set_new(element, "peer_ratio", number_or_null(ratio));
    json_object_set_new(element, "peers", peers);
}

static void add_statistics(json_t *element, const struct reported *c)
{
    const struct bench_summary *s = &c->row->summary;
    json_object_set_new(element, "interval", pair(1e9 * s->low, 1e9 * s->high));
    json_object_set_new(element, "mad_share", json_real(s->mad_share));
    json_object_set_new(element, "noisy", json_boolean(s->noisy));
    json_object_set_new(element, "rate", json_real(s->rate));
    json_object_set_new(element, "rate_unit", json_string(s->rate_unit));
    json_object_set_new(element, "intensity", json_real(s->intensity));
    json_object_set_new(element, "peer_results", peer_results(c->g, c->row));
}

static void complete_element(json_t *element, const struct reported *c)
{
    const struct problem *p = c->g->subject->p;
    const char *statistic = json_string_value(json_object_get(element, "aggregate_name"));
    json_object_set_new(element, "op", json_string(p->op->name));
    json_object_set_new(element, "isa", json_string(c->row->isa_name));
    json_object_set_new(element, "shape", json_string(p->shape));
    json_object_set_new(element, "set", json_string(p->set != NULL ? p->set : "file"));
    json_object_set_new(element, "operands", json_string(bench_operands_name[c->g->operands]));
    if (c->row->summarized) {
        add_times(element, c, statistic);
        if (statistic != NULL && strcmp(statistic, "median") == 0) {
            add_statistics(element, c);
        }
    }
}

/* ---- context --------------------------------------------------------------------------------- */

static json_t *arguments_json(const struct bench_options *o)
{
    json_t *arguments = json_array();
    for (int i = 0; i < o->argument_count; i++) {
        char shown[T2_SHOW]; /* JSON takes valid UTF-8 only */
        json_array_append_new(arguments, json_string(t2_show(shown, o->arguments[i])));
    }
    return arguments;
}

static json_t *server_note(const struct bench_server *server)
{
    char note[80] = "";
    if (server->left_out > 0) {
        snprintf(note, sizeof note, "left out of %d group%s: out of budget", server->left_out,
                 server->left_out > 1 ? "s" : "");
    }
    return text_or_null(server->error[0] != '\0' ? server->error : note);
}

static json_t *peers_json(const struct bench_run *run)
{
    json_t *peers = json_array();
    for (int i = 0; i < run->servers; i++) {
        const struct bench_server *server = &run->server[i];
        if (server->peer == &bench_peers[0] || (server->generation == 0 && !server->error[0])) {
            continue;
        }
        json_array_append_new(
            peers,
            json_pack("{s:s, s:o, s:i, s:s, s:o}", "name", server->peer->name, "version",
                      text_or_null(server->version), "threads", server->threads, "status",
                      server->error[0] != '\0' ? "failed" : "ran", "note", server_note(server)));
    }
    for (int i = 0; i < run->missings; i++) {
        json_array_append_new(peers,
                              json_pack("{s:s, s:n, s:n, s:s, s:s}", "name",
                                        run->missing[i].peer->name, "version", "threads", "status",
                                        "missing", "note", run->missing[i].reason));
    }
    return peers;
}

static json_t *not_timed_json(const struct bench_run *run)
{
    json_t *left_out = json_array();
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        for (int j = 0; g->state == BENCH_NOT_TIMED && j < g->own_rows; j++) {
            if (g->row[j].error[0] == '\0') {
                json_array_append_new(
                    left_out, json_pack("{s:s, s:s}", "name", g->row[j].name, "reason", g->reason));
            }
        }
    }
    return left_out;
}

static void complete_context(json_t *context, const struct bench_run *run)
{
    if (!run->o->host) {
        json_object_set_new(context, "host_name", json_string(""));
    }
    json_object_set_new(context, "executable", json_string("t2bench"));
    json_object_set_new(context, "schema", json_integer(1));
    json_object_set_new(context, "t2bench",
                        json_pack("{s:s, s:b, s:o, s:I, s:f}", "version", t2k_version(), "complete",
                                  run->complete, "arguments", arguments_json(run->o), "seed",
                                  (json_int_t)run->o->seed, "seconds", run->seconds));
    json_object_set_new(context, "machine", bench_machine_json(run->o->host));
    json_object_set_new(context, "build", bench_build_json());
    json_object_set_new(context, "environment", bench_environment_json());
    json_object_set_new(
        context, "threads",
        json_pack("{s:i, s:s}", "default", t2k_get_num_threads(), "reason", t2k_threads_reason()));
    json_object_set_new(context, "peaks", bench_peaks_json(&run->peaks));
    json_object_set_new(context, "noise", bench_noise_json(&run->noise));
    json_object_set_new(context, "peers", peers_json(run));
    json_object_set_new(context, "not_timed", not_timed_json(run));
    json_object_set_new(context, "too_slow", json_integer(run->slow_left_out));
}

/* ---- the document ---------------------------------------------------------------------------- */

static void add_value(t2_text *text, const json_t *value)
{
    char *line = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS));
    if (line == NULL) {
        text->failed = 1;
        return;
    }
    t2_text_str(text, line);
    free(line);
}

/* One line per key of the context and per element; allocated. */
static char *print_document(const json_t *context, const json_t *elements)
{
    t2_text text = {0};
    const char *key, *separator = "\n";
    json_t *value;
    t2_text_str(&text, "{\"context\": {");
    json_object_foreach((json_t *)(uintptr_t)context, key, value)
    {
        t2_text_str(&text, separator);
        t2_text_json(&text, key);
        t2_text_str(&text, ": ");
        add_value(&text, value);
        separator = ",\n";
    }
    t2_text_str(&text, "\n},\n\"benchmarks\": [");
    separator = "\n";
    for (size_t i = 0; i < json_array_size(elements); i++) {
        t2_text_str(&text, separator);
        add_value(&text, json_array_get(elements, i));
        separator = ",\n";
    }
    t2_text_str(&text, "\n]}\n");
    if (text.failed) {
        t2_text_free(&text);
        return NULL;
    }
    return text.data;
}

/* The whole document as text; NULL on failure. */
static char *make_document(const struct bench_run *run, const struct reported *cases,
                           gbench_case *const *records, int count)
{
    char *library = gbench_format_cases(GBENCH_JSON, records, count), *text = NULL;
    json_error_t error;
    json_t *root = library != NULL ? json_loads(library, 0, &error) : NULL;
    json_t *context = json_object_get(root, "context");
    json_t *elements = json_object_get(root, "benchmarks");
    int sound = json_is_object(context) && json_is_array(elements);
    for (size_t i = 0; sound && i < json_array_size(elements); i++) {
        json_t *element = json_array_get(elements, i);
        json_int_t index = json_integer_value(json_object_get(element, "family_index"));
        sound = index >= 0 && index < count;
        if (sound) {
            complete_element(element, &cases[index]);
        }
    }
    if (sound) {
        complete_context(context, run);
        text = print_document(context, elements);
    }
    json_decref(root);
    free(library);
    return text;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int is_stdout(const char *path)
{
    return path != NULL && strcmp(path, "-") == 0;
}

/* The temporary file of an atomic write, made and removed again: says early what would fail. */
static int try_path(const char *path)
{
    t2_writer writer;
    t2_error error;
    if (path == NULL || path[0] == '\0' || is_stdout(path)) {
        return 0;
    }
    if (t2_writer_open(&writer, path, &error) != T2_OK) {
        fprintf(stderr, "t2bench: %s\n", error.message);
        return 1;
    }
    t2_writer_abort(&writer);
    return 0;
}

int bench_output_check(struct bench_run *run)
{
    struct stat info;
    const char *json = run->o->json;
    run->json_path[0] = '\0';
    if (json != NULL) {
        int length = snprintf(run->json_path, sizeof run->json_path, "%s", json);
        if (stat(json, &info) == 0 && S_ISDIR(info.st_mode)) {
            char key[128];
            bench_machine_key(key, sizeof key);
            length = snprintf(run->json_path, sizeof run->json_path, "%s/%s.json", json, key);
        }
        if (length < 0 || (size_t)length >= sizeof run->json_path) {
            return bench_usage_error("--json: a path of more than %zu characters",
                                     sizeof run->json_path - 1);
        }
    }
    return try_path(run->json_path) | try_path(run->o->csv) | try_path(run->o->md) |
           try_path(run->o->out);
}

/* Writes the text, which is freed, to the path ("-" is stdout). */
static int write_text(const char *path, char *text)
{
    t2_error error;
    int status = 0;
    if (text == NULL) {
        fprintf(stderr, "t2bench: %s: out of memory\n", path);
        return 1;
    }
    if (is_stdout(path)) {
        fputs(text, stdout);
    } else if (t2_write_file_atomic(path, text, strlen(text), &error) != T2_OK) {
        fprintf(stderr, "t2bench: %s\n", error.message);
        status = 1;
    }
    free(text);
    return status;
}

/* The text of one of the library's formats; JSON is completed. */
static char *in_format(const struct bench_run *run, const char *format,
                       const struct reported *cases, gbench_case *const *records, int count)
{
    if (strcmp(format, "json") == 0) {
        return make_document(run, cases, records, count);
    }
    return gbench_format_cases(strcmp(format, "csv") == 0 ? GBENCH_CSV : GBENCH_CONSOLE, records,
                               count);
}

int bench_output(struct bench_run *run)
{
    struct reported *cases = NULL;
    gbench_case **records = NULL;
    const struct bench_options *o = run->o;
    int status = 0, count = collect(run, &cases, &records);
    if (count < 0) {
        fprintf(stderr, "t2bench: out of memory\n");
        status = 1;
    } else {
        if (o->format != NULL) {
            status |= write_text("-", in_format(run, o->format, cases, records, count));
        } else if (!is_stdout(run->json_path) && !is_stdout(o->csv) && !is_stdout(o->md)) {
            bench_table_print(run);
        }
        if (run->json_path[0] != '\0') {
            status |= write_text(run->json_path, make_document(run, cases, records, count));
        }
        if (o->csv != NULL) {
            status |= write_text(o->csv, bench_table_csv(run));
        }
        if (o->md != NULL) {
            status |= write_text(o->md, bench_table_markdown(run));
        }
        if (o->out != NULL) {
            status |= write_text(o->out, in_format(run, o->out_format, cases, records, count));
        }
    }
    free(cases);
    free(records);
    return status;
}
