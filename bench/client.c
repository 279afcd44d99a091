/* The parent's side of the workers' protocol (docs/benchmarks.md). */
#include "client.h"
#include "client_process.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double client_timeout = 120.0;

struct client {
    struct bench_process process;
    char *version;
    int opened;      /* ids given so far */
    char death[640]; /* why it does not work any more; "" while it does */
};

/* The one that may run; all others are stopped. */
static struct client *current;

/* ---- turns and ends -------------------------------------------------------------------------- */

void client_pause(void)
{
    if (current != NULL) {
        bench_process_pause(&current->process);
    }
    current = NULL;
}

static void take_turn(struct client *client)
{
    if (current != client) {
        client_pause();
        bench_process_resume(&client->process);
        current = client;
    }
}

/* Ends a worker that failed; -1. `what` says how it did; NULL: it ended or closed its output. */
static int bury(struct client *client, const char *doing, const char *what, char *error,
                size_t size)
{
    char how[96], words[320];
    bench_process_end(&client->process, what == NULL, how, sizeof how);
    bench_process_last_words(&client->process, words, sizeof words);
    bench_process_free(&client->process);
    snprintf(client->death, sizeof client->death, "%s: %s%s%s", doing, what != NULL ? what : how,
             words[0] != '\0' ? "; its last words: " : "", words);
    if (current == client) {
        current = NULL;
    }
    snprintf(error, size, "%s", client->death);
    return -1;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* The next answer: 0 where it is "ok"; 1 where something is not supported, -1 where it failed, then
 * with the reason. *answer is NULL but for 0. */
static int receive(struct client *client, const char *doing, json_t **answer, char *error,
                   size_t size)
{
    const char *line;
    char what[160];
    *answer = NULL;
    int status = bench_process_receive(&client->process, client_timeout, &line);
    if (status == -1) {
        snprintf(what, sizeof what, "no answer within %g s", client_timeout);
        return bury(client, doing, what, error, size);
    }
    if (status != 0) {
        return bury(client, doing, NULL, error, size);
    }
    json_t *json = json_loads(line, 0, NULL), *ok = json_object_get(json, "ok");
    const char *unsupported = json_string_value(json_object_get(json, "unsupported"));
    const char *failed = json_string_value(json_object_get(json, "error"));
    if (json_is_true(ok)) {
        *answer = json;
        return 0;
    }
    if (json_is_false(ok) && (unsupported != NULL || failed != NULL)) {
        snprintf(error, size, "%s", unsupported != NULL ? unsupported : failed);
        json_decref(json);
        return unsupported != NULL ? 1 : -1;
    }
    json_decref(json);
    snprintf(what, sizeof what, "expected an answer of the protocol, found \"%.60s\"", line);
    return bury(client, doing, what, error, size);
}

/* Sends a request, whose reference it takes, and waits for the answer as receive() does. */
static int request(struct client *client, json_t *message, json_t **answer, char *error,
                   size_t size)
{
    *answer = NULL;
    if (client->death[0] != '\0') {
        snprintf(error, size, "%s", client->death);
        json_decref(message);
        return -1;
    }
    char doing[32];
    snprintf(doing, sizeof doing, "%s", json_string_value(json_object_get(message, "do")));
    char *text = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    if (text == NULL) {
        snprintf(error, size, "%s: the request can't be written as JSON", doing);
        return -1;
    }
    size_t length = strlen(text);
    text[length++] = '\n'; /* in place of the final '\0' */
    take_turn(client);
    int status = bench_process_send(&client->process, text, length);
    free(text);
    return status == 0 ? receive(client, doing, answer, error, size)
                       : bury(client, doing, NULL, error, size);
}

/* Takes numbers out of an answer, whose reference it takes: 0, or -1 with a text. */
static int read_times(struct client *client, const char *doing, json_t *answer, double *seconds,
                      double *cpu, char *error, size_t size)
{
    const json_t *s = json_object_get(answer, "seconds"), *c = json_object_get(answer, "cpu");
    *seconds = json_number_value(s);
    *cpu = json_number_value(c);
    int bad = !json_is_number(s) || *seconds < 0.0 || (c != NULL && !json_is_number(c));
    json_decref(answer);
    return bad ? bury(client, doing, "the answer has no time", error, size) : 0;
}

/* ---- starting and stopping ------------------------------------------------------------------- */

struct client *client_start(const struct bench_peer *peer, const char *against, int threads,
                            char *error, size_t size)
{
    struct bench_command command;
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL) {
        snprintf(error, size, "out of memory");
        return NULL;
    }
    int status = bench_peer_command(peer, against, threads, &command, error, size);
    if (status == 0) {
        client_pause();
        status = bench_process_start(&client->process, &command, error, size);
    }
    bench_command_free(&command);
    if (status != 0) {
        free(client);
        return NULL;
    }
    current = client;
    json_t *greeting;
    if (receive(client, "start", &greeting, error, size) != 0) {
        client_stop(client);
        return NULL;
    }
    const char *version = json_string_value(json_object_get(greeting, "version"));
    json_int_t used = json_integer_value(json_object_get(greeting, "threads"));
    client->version = strdup(version != NULL ? version : "of unknown version");
    json_decref(greeting);
    if (used != threads || client->version == NULL) {
        snprintf(error, size, "it works on %lld threads, not on %d", (long long)used, threads);
        client_stop(client);
        return NULL;
    }
    return client;
}

void client_stop(struct client *client)
{
    if (client == NULL) {
        return;
    }
    if (client->death[0] == '\0') {
        bench_process_end(&client->process, 1, NULL, 0);
        bench_process_free(&client->process);
    }
    if (current == client) {
        current = NULL;
    }
    free(client->version);
    free(client);
}

const char *client_version(const struct client *client)
{
    return client->version;
}

int client_alive(const struct client *client)
{
    return client->death[0] == '\0';
}

/* ---- cases ----------------------------------------------------------------------------------- */

static json_t *inputs_json(const struct problem *p, const struct bench_arena *arena)
{
    static const char *const types[] = {[BENCH_F32] = "f32", [BENCH_I64] = "i64"};
    json_t *inputs = json_array();
    for (int i = 0; i < p->inputs; i++) {
        const struct bench_input *input = &p->input[i];
        json_array_append_new(
            inputs, json_pack("{s:s, s:s, s:I, s:I, s:I}", "type", types[input->type], "role",
                              input->role == BENCH_WEIGHT ? "weight" : "activation", "count",
                              (json_int_t)input->count, "offset", (json_int_t)arena->offset[i],
                              "stride", (json_int_t)arena->stride[i]));
    }
    return inputs;
}

int client_open(struct client *client, const struct problem *p, const char *isa,
                enum bench_operands operands, const struct bench_arena *arena, int *id, char *error,
                size_t size)
{
    *id = ++client->opened;
    json_t *dims = json_array(), *answer;
    for (int i = 0; i < p->dims; i++) {
        json_array_append_new(dims, json_integer(p->dim[i]));
    }
    json_t *out = json_pack("{s:I, s:I, s:I, s:I}", "offset", (json_int_t)arena->out_offset,
                            "stride", (json_int_t)arena->out_stride, "rows", (json_int_t)p->rows,
                            "cols", (json_int_t)p->cols);
    json_t *message =
        json_pack("{s:s, s:i, s:s, s:s, s:o, s:s?, s:s, s:i, s:s?, s:s, s:I, s:o, s:o}", "do",
                  "open", "id", *id, "op", p->op->name, "shape", p->shape, "dims", dims, "isa", isa,
                  "operands", bench_operands_name[operands], "copies", arena->copies, "model_dir",
                  p->model_dir, "arena", arena->path, "bytes", (json_int_t)arena->bytes, "inputs",
                  inputs_json(p, arena), "out", out);
    int status = request(client, message, &answer, error, size);
    json_decref(answer);
    return status;
}

int client_run(struct client *client, int id, double *seconds, char *error, size_t size)
{
    json_t *answer;
    double cpu;
    int status =
        request(client, json_pack("{s:s, s:i}", "do", "run", "id", id), &answer, error, size);
    return status == 0 ? read_times(client, "run", answer, seconds, &cpu, error, size) : -1;
}

int client_time(struct client *client, int id, int64_t calls, double warm_seconds, double *seconds,
                double *cpu, char *error, size_t size)
{
    json_t *answer;
    json_t *message = json_pack("{s:s, s:i, s:I, s:f}", "do", "time", "id", id, "calls",
                                (json_int_t)calls, "warm_seconds", warm_seconds);
    int status = request(client, message, &answer, error, size);
    return status == 0 ? read_times(client, "time", answer, seconds, cpu, error, size) : -1;
}

void client_close(struct client *client, int id)
{
    json_t *answer;
    char unused[64];
    request(client, json_pack("{s:s, s:i}", "do", "close", "id", id), &answer, unused,
            sizeof unused);
    json_decref(answer);
}
