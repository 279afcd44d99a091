/* One group at a time: its operands and reference, its contenders opened and verified, rounds in
 * which each is timed once, and the results held against the first ones at the end.
 *
 * Whatever goes wrong with a contender - it cannot start, dies, hangs, gives a wrong result - is
 * the error of its rows. A worker that died is started once more, for the cases that it did not
 * die of. */
#include "run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Untimed calls after each switch: caches, branch predictors and thread pools have seen others. */
#define WARM_SECONDS 0.3e-3
#define LONG_CALL 0.05 /* seconds from which on a call warms up by itself */
/* From here on the first call says well enough how long one takes. */
#define TRUSTED_CALL 0.5
/* Seconds without an answer beyond which a worker hangs, and twenty times what is expected. */
#define TIMEOUT 120.0
/* Of the budget, what one worker may need to open its cases: some compile each one for long. */
#define OPENING_SHARE 0.15
#define MOST_CALLS 1000000000
#define MOST_ROUNDS 60

/* ---- workers --------------------------------------------------------------------------------- */

/* The running client of a process; NULL and the reason where there is none. */
static struct client *client_of(struct bench_server *server, char *error, size_t size)
{
    if (server->error[0] == '\0' && server->client == NULL) {
        server->client = client_start(server->peer, server->against, server->threads, server->error,
                                      sizeof server->error);
        if (server->client != NULL) {
            server->error[0] = '\0';
            server->generation++;
            snprintf(server->version, sizeof server->version, "%s", client_version(server->client));
        } else if (server->error[0] == '\0') {
            snprintf(server->error, sizeof server->error, "cannot be started");
        }
    }
    if (server->client == NULL) {
        snprintf(error, size, "%s", server->error);
    }
    return server->client;
}

/* After a failure: a worker that died is cleared away, to be started again by the next call. */
static void look_after(struct bench_server *server, const char *error)
{
    if (server->client == NULL || client_alive(server->client)) {
        return;
    }
    client_stop(server->client);
    server->client = NULL;
    if (++server->deaths > 1) {
        snprintf(server->error, sizeof server->error, "the worker ended twice; at last: %.300s",
                 error);
    }
}

static int holds(const struct bench_row *row)
{
    return row->error[0] == '\0' && !row->unsupported;
}

static int is_open(const struct bench_row *row)
{
    return row->open && row->server->client != NULL && row->generation == row->server->generation;
}

static int fail(struct bench_row *row, const char *text)
{
    snprintf(row->error, sizeof row->error, "%s", text[0] != '\0' ? text : "failed");
    look_after(row->server, row->error);
    return -1;
}

static int open_row(struct bench_group *g, struct bench_row *row)
{
    char error[BENCH_ERROR] = "";
    struct client *client = client_of(row->server, error, sizeof error);
    if (client == NULL) {
        return fail(row, error);
    }
    int status =
        client_open(client, g->subject->p, row->isa >= 0 ? row->isa_name : NULL, g->operands,
                    &g->subject->arena[g->operands], &row->id, error, sizeof error);
    row->unsupported = status == 1 && !row->ours;
    if (row->unsupported) {
        snprintf(row->error, sizeof row->error, "%s", error);
        return -1;
    }
    if (status != 0) {
        return fail(row, error);
    }
    row->open = 1;
    row->generation = row->server->generation;
    return 0;
}

/* ---- verification ---------------------------------------------------------------------------- */

/* Where the results of calls on copy 0 lie. */
static float *result_of(const struct bench_group *g)
{
    const void *in[BENCH_INPUTS];
    float *out;
    bench_arena_operands(g->subject->p, &g->subject->arena[g->operands], 0, in, &out);
    return out;
}

static void fill_with_nan(const struct problem *p, float *out)
{
    memset(out, 0xff, (size_t)(p->rows * p->cols) * sizeof *out);
}

/* One call into a result full of NaN. */
static int run_once(struct bench_group *g, struct bench_row *row)
{
    char error[BENCH_ERROR] = "";
    double seconds = 0.0;
    fill_with_nan(g->subject->p, result_of(g));
    client_timeout = TIMEOUT + 20.0 * row->call;
    if (client_run(row->server->client, row->id, &seconds, error, sizeof error) != 0) {
        return fail(row, error);
    }
    row->call = row->verified ? row->call : seconds;
    return 0;
}

/* Our own rows: all ISAs, numbers of threads and places of operands give the same bits. */
static int check_fingerprint(struct bench_subject *s, struct bench_row *row, uint64_t fingerprint)
{
    if (s->fingerprint_of[0] == '\0') {
        s->fingerprint = fingerprint;
        snprintf(s->fingerprint_of, sizeof s->fingerprint_of, "%s", row->name);
    }
    if (fingerprint == s->fingerprint || s->p->op->other_bits) {
        return 0;
    }
    snprintf(row->error, sizeof row->error,
             "%s: fingerprint %016" PRIx64 " differs from %016" PRIx64 " of %s", row->isa_name,
             fingerprint, s->fingerprint, s->fingerprint_of);
    return -1;
}

/* Opens the row where it is not, calls it once and verifies the result. */
static int verify_row(struct bench_group *g, struct bench_row *row)
{
    char error[BENCH_ERROR] = "";
    if (!is_open(row) && open_row(g, row) != 0) {
        return -1;
    }
    if (run_once(g, row) != 0) {
        return -1;
    }
    float *out = result_of(g);
    if (bench_verify(g->subject->reference, row->ours, out, error, sizeof error) != 0) {
        return fail(row, error);
    }
    row->fingerprint = bench_fingerprint(g->subject->p, out);
    if (row->ours && check_fingerprint(g->subject, row, row->fingerprint) != 0) {
        return -1;
    }
    row->verified = 1;
    return 0;
}

/* After the rounds: the same bits again from our own rows, a right result from the others. */
static void verify_again(struct bench_group *g, struct bench_row *row)
{
    uint64_t first = row->fingerprint;
    if (verify_row(g, row) == 0 && (!row->ours || row->fingerprint == first)) {
        return;
    }
    char text[BENCH_ERROR];
    snprintf(text, sizeof text, "the result changed while it was timed: %.300s",
             row->error[0] != '\0' ? row->error : "other bits");
    snprintf(row->error, sizeof row->error, "%s", text);
}

/* A long call is too dear to be made once more, and hashing its result costs little beside it. */
static int checked_by_round(const struct bench_group *g, const struct bench_row *row)
{
    /* What t2k_store unpacks is not in place behind a round. */
    return g->subject->p->op->t2k_store == NULL && row->ours && g->operands == BENCH_HOT &&
           row->call > LONG_CALL;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static int prepare_subject(struct bench_group *g, char *error, size_t size)
{
    struct bench_subject *s = g->subject;
    client_pause();
    if (s->p->op->slot == BENCH_NO_SLOT && s->p->model_dir == NULL) {
        s->p->model_dir = bench_model_dir(error, size);
        if (s->p->model_dir == NULL) {
            return -1;
        }
    }
    if (!s->has_arena[g->operands]) {
        if (bench_arena_create(s->p, g->operands, g->copies, &s->arena[g->operands], error, size) !=
            0) {
            return -1;
        }
        s->has_arena[g->operands] = 1;
    }
    if (s->reference == NULL) {
        const void *in[BENCH_INPUTS];
        float *unused;
        bench_arena_operands(s->p, &s->arena[g->operands], 0, in, &unused);
        s->reference = bench_reference_create(s->p, in, error, size);
    }
    return s->reference != NULL ? 0 : -1;
}

void bench_subject_release(struct bench_subject *s)
{
    bench_reference_destroy(s->reference);
    s->reference = NULL;
    for (int i = 0; i < BENCH_OPERANDS; i++) {
        if (s->has_arena[i]) {
            bench_arena_release(&s->arena[i]);
            s->has_arena[i] = 0;
        }
    }
}

/* Seconds of one of `calls` calls: the better of two goes, as one may have been disturbed. */
static int time_calls(struct bench_row *row, int64_t calls)
{
    char error[BENCH_ERROR] = "";
    double best = INFINITY, seconds, cpu;
    for (int i = 0; i < 2; i++) {
        if (client_time(row->server->client, row->id, calls, 0.0, &seconds, &cpu, error,
                        sizeof error) != 0) {
            return fail(row, error);
        }
        best = fmin(best, seconds);
    }
    row->call = fmax(best / (double)calls, 1e-10);
    return 0;
}

/* How many calls make a round of at least the wanted length. The first call found cold caches, so
 * short ones are looked at again. */
static void plan_calls(const struct bench_run *run, struct bench_row *row)
{
    double wanted = run->o->min_time;
    int64_t calls = 1;
    while (row->call < TRUSTED_CALL && calls < MOST_CALLS) {
        if (time_calls(row, calls) != 0) {
            return;
        }
        if (row->call * (double)calls >= 0.5 * wanted) {
            break;
        }
        /* Not too far at once: what was timed may be mostly overhead. */
        calls = (int64_t)fmin(10.0 * (double)calls, ceil(wanted / row->call));
    }
    row->calls = (int64_t)fmin(fmax(1.0, ceil(wanted / row->call)), MOST_CALLS);
}

static int allocate(const struct bench_run *run, struct bench_group *g, struct bench_row *row)
{
    g->room = run->o->repetitions > 0 ? run->o->repetitions : MOST_ROUNDS;
    row->sample = calloc((size_t)g->room, sizeof *row->sample);
    row->record = gbench_case_create(row->name, g->threads);
    if (row->sample == NULL || row->record == NULL) {
        return fail(row, t2k_status_str(T2K_ERR_NOMEM));
    }
    return 0;
}

int bench_server_exhausted(const struct bench_run *run, const struct bench_server *server)
{
    return server->opening > OPENING_SHARE * run->o->budget;
}

static void open_and_plan(const struct bench_run *run, struct bench_group *g, struct bench_row *row)
{
    double start = bench_now();
    int status = verify_row(g, row);
    row->server->opened++;
    row->server->opening += fmax(bench_now() - start - row->call, 0.0);
    if (status == 0) {
        plan_calls(run, row);
    }
}

int bench_group_alive(const struct bench_group *g)
{
    int alive = 0;
    for (int i = 0; i < g->own_rows; i++) {
        alive |= holds(&g->row[i]);
    }
    return alive;
}

void bench_group_open(struct bench_run *run, struct bench_group *g)
{
    char error[BENCH_ERROR] = "";
    int failed = prepare_subject(g, error, sizeof error) != 0;
    if (!failed) {
        snprintf(g->verified_by, sizeof g->verified_by, "%s",
                 bench_verified_by(g->subject->reference));
    }
    for (int i = 0; i < g->rows && !bench_interrupted(); i++) {
        struct bench_row *row = &g->row[i];
        if (i == g->own_rows && !bench_group_alive(g)) {
            break; /* nothing to compare peers with */
        }
        if (allocate(run, g, row) != 0) {
            continue;
        }
        if (failed) {
            fail(row, error);
        } else if (!row->ours && !bench_group_required(run, g) &&
                   (bench_now() > run->deadline || bench_server_exhausted(run, row->server))) {
            row->unsupported = 1;
            row->server->left_out++;
        } else {
            open_and_plan(run, g, row);
        }
    }
    g->state = BENCH_TIMING;
}

double bench_setup_calls(const struct bench_run *run, const struct bench_row *row)
{
    double planning =
        row->call < TRUSTED_CALL ? 2.0 * fmax(row->call, 1.2 * run->o->min_time) : 0.0;
    return row->call + planning + (row->call <= LONG_CALL ? row->call : 0.0);
}

void bench_group_close(struct bench_group *g)
{
    for (int i = 0; i < g->rows; i++) {
        struct bench_row *row = &g->row[i];
        int due = row->ours ? !checked_by_round(g, row) : row->call <= LONG_CALL;
        if (holds(row) && row->verified && g->rounds > 0 && due) {
            verify_again(g, row);
        }
        if (is_open(row)) {
            client_close(row->server->client, row->id);
        }
        row->open = 0;
    }
}

int bench_server_used(const struct bench_run *run, const struct bench_server *server)
{
    for (int i = 0; i < run->groups; i++) {
        for (int j = 0; j < run->group[i].rows; j++) {
            if (run->group[i].row[j].server == server) {
                return 1;
            }
        }
    }
    return 0;
}

void bench_servers_start(struct bench_run *run)
{
    char error[BENCH_ERROR];
    double half = run->start + 0.5 * run->o->budget;
    for (int slow = 0; slow < 2; slow++) {
        for (int i = 0; i < run->servers && !bench_interrupted(); i++) {
            struct bench_server *server = &run->server[i];
            if ((server->peer->slow_start != 0) != slow || !bench_server_used(run, server)) {
                continue;
            }
            if (bench_now() > half && run->o->profile != BENCH_TARGETS) {
                snprintf(server->error, sizeof server->error, "not started: out of budget");
            } else {
                (void)client_of(server, error, sizeof error);
            }
        }
    }
}

void bench_servers_stop(struct bench_run *run)
{
    for (int i = 0; i < run->servers; i++) {
        client_stop(run->server[i].client);
        run->server[i].client = NULL;
    }
}

/* ---- rounds ---------------------------------------------------------------------------------- */

struct turn {
    struct bench_row *row;
    double warm;
};

/* What Google Benchmark calls: the worker measures. */
static int take_turn(void *arg, int64_t calls, double *seconds, double *cpu, char *error,
                     size_t size)
{
    const struct turn *turn = arg;
    return client_time(turn->row->server->client, turn->row->id, calls, turn->warm, seconds, cpu,
                       error, size);
}

static void time_row(struct bench_group *g, struct bench_row *row)
{
    /* Its worker was started again meanwhile. */
    if (!is_open(row) && verify_row(g, row) != 0) {
        return;
    }
    struct turn turn = {row, 0.0};
    if (row->call <= LONG_CALL) {
        turn.warm = g->operands == BENCH_HOT ? WARM_SECONDS : 1e-9; /* cold: one call */
    }
    float *out = result_of(g);
    if (checked_by_round(g, row)) {
        fill_with_nan(g->subject->p, out);
    }
    char error[BENCH_ERROR] = "";
    double seconds = 0.0;
    client_timeout = TIMEOUT + 20.0 * fmax(row->call, row->call * (double)row->calls);
    if (gbench_round(row->record, row->calls, take_turn, &turn, row->ours, &seconds, error,
                     sizeof error) != 0) {
        fail(row, error);
        return;
    }
    row->sample[g->rounds] = seconds;
    if (checked_by_round(g, row) && bench_fingerprint(g->subject->p, out) != row->fingerprint) {
        fail(row, "the result changed while it was timed: other bits");
    }
}

void bench_group_round(struct bench_run *run, struct bench_group *g)
{
    int order[4 * BENCH_CHOICES], count = 0;
    for (int i = 0; i < g->rows; i++) {
        if (holds(&g->row[i]) && g->row[i].verified) {
            order[count++] = i;
        }
    }
    for (int left = count; left > 0; left--) {
        int at = (int)(bench_random(&run->random) % (uint64_t)left), next = order[at];
        order[at] = order[left - 1];
        time_row(g, &g->row[next]);
    }
    g->rounds++;
}

/* Where a process lies in memory, and on which pages, moves times by some percent between runs and
 * not at all within one: measured, 16 of 56 pairs of equal runs of 60 rows differed "significantly"
 * before, none of 56 with both refreshed. */
void bench_groups_refresh(struct bench_run *run, struct bench_group *const *group, int groups)
{
    for (int i = 0; i < groups; i++) {
        struct bench_group *g = group[i];
        for (int j = 0; j < g->rows; j++) {
            struct bench_server *server = g->row[j].server;
            if (server->client != NULL && !server->peer->slow_start) {
                client_stop(server->client);
                server->client = NULL;
            }
        }
        int first = 1; /* groups of one problem share its arenas */
        for (int j = 0; j < i && first; j++) {
            first = group[j]->subject != g->subject || group[j]->operands != g->operands;
        }
        if (first) {
            bench_arena_scatter(&g->subject->arena[g->operands], &run->random);
        }
    }
}
