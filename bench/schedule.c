/* Which group is timed when, and for how long.
 *
 * Problems come in random order, in batches that fit into memory. Within a batch every group that
 * still needs rounds gets one per pass, in random order, so that a slow minute of the machine hits
 * many groups a little instead of one group badly; after every few passes the workers are started
 * again and the operands move to other pages. The budget that is left is shared out before each
 * batch: a few rounds for every group, and what remains in equal numbers of rounds; what a group
 * leaves over because its intervals are narrow already goes to the later ones. Where the budget is
 * too small for all, the most expensive groups of the large sets come last and are left out.
 *
 * A run for targets first times every case that stands in the targets' file by itself, whatever the
 * budget is, and then the sets that the file names, in an order that depends on the seed alone. */
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 24, FIRST_BATCH = 6, FIRST_CHECK = 5 };
enum { FEWEST_ROUNDS = 3, FEWEST_LONG = 1 }; /* LONG: where a call takes VERY_LONG */
enum { TARGET_ROUNDS = 5, TARGET_LONG = 3 }; /* the same where a verdict hangs on the interval */
enum { PASSES = 3 };                         /* between two refreshes of processes and pages */
#define BATCH_ARENAS ((size_t)3 << 30)
#define VERY_LONG 1.0 /* seconds of a call from which on fewer rounds are enough */
#define LATE 1.05     /* of the budget, from which on even a group's few rounds are cut short */
/* Costs beyond the calls, in seconds, measured: switching to a worker and warming up; opening and
 * verifying a contender; filling a byte of operands; a multiply-add of the reference, of which
 * there are no more than so many. */
#define SWITCH_COST 0.8e-3
#define OPEN_COST 2e-3
#define FILL_COST 0.7e-9
#define REFERENCE_COST 0.7e-9
#define REFERENCE_MACS 0x1p28

struct schedule {
    struct bench_run *run;
    struct bench_group **order; /* (count) as they are to be timed */
    int count, next;
    struct bench_group *batch[BATCH];
    int batched;
    /* What setups and rounds were estimated to cost and what they cost, in the batches so far. */
    double setup_planned, setup_took, rounds_planned, rounds_took;
    double next_sample;
    int finished;
};

/* ---- costs ----------------------------------------------------------------------------------- */

static double row_cost(const struct bench_run *run, const struct bench_row *row)
{
    return SWITCH_COST + fmax(row->call, run->o->min_time);
}

static double round_cost(const struct bench_run *run, const struct bench_group *g)
{
    double sum = 0.0;
    for (int i = 0; i < g->rows; i++) {
        sum += g->row[i].error[0] == '\0' ? row_cost(run, &g->row[i]) : 0.0;
    }
    return sum;
}

static size_t arena_bytes(const struct bench_group *g)
{
    struct bench_arena arena;
    bench_arena_layout(g->subject->p, g->operands, g->copies, &arena);
    return arena.bytes;
}

/* With the packed weights of all contenders, and the reference. */
static size_t memory_bytes(const struct bench_group *g)
{
    const struct problem *p = g->subject->p;
    size_t arena = arena_bytes(g);
    size_t packed = p->op->packed ? (size_t)g->rows * arena : 0;
    return arena + packed + 16 * (size_t)p->rows * (size_t)p->cols;
}

static void estimate(const struct bench_run *run, struct bench_group *g)
{
    const struct problem *p = g->subject->p;
    double calls = 0.0;
    for (int i = 0; i < g->rows; i++) {
        struct bench_row *row = &g->row[i];
        /* Peers are taken to be as fast as our best ISA. */
        row->call =
            bench_estimate_call(run, g, row->isa >= 0 ? row->isa : run->o->isa[run->o->isas - 1]);
        calls += bench_setup_calls(run, row);
    }
    g->round_cost = round_cost(run, g);
    g->setup_cost =
        calls + FILL_COST * (double)arena_bytes(g) + REFERENCE_COST * fmin(p->macs, REFERENCE_MACS);
}

static int fewest_rounds(const struct bench_run *run, const struct bench_group *g)
{
    if (run->o->repetitions > 0) {
        return run->o->repetitions;
    }
    double longest = 0.0;
    for (int i = 0; i < g->rows; i++) {
        longest = fmax(longest, g->row[i].error[0] == '\0' ? g->row[i].call : 0.0);
    }
    int targets = run->o->profile == BENCH_TARGETS;
    return longest > VERY_LONG ? (targets ? TARGET_LONG : FEWEST_LONG)
                               : (targets ? TARGET_ROUNDS : FEWEST_ROUNDS);
}

/* Opening the contenders: what it took so far. */
static double opening_cost(const struct bench_run *run, const struct bench_group *g)
{
    double sum = 0.0;
    for (int i = 0; i < g->rows; i++) {
        const struct bench_server *server = g->row[i].server;
        if (server->opened == 0) {
            sum += OPEN_COST;
        } else if (!bench_server_exhausted(run, server)) {
            sum += server->opening / server->opened;
        }
    }
    return sum;
}

double bench_schedule_estimate(struct bench_run *run, int rounds)
{
    double sum = 0.0;
    for (int i = 0; i < run->groups; i++) {
        struct bench_group *g = &run->group[i];
        estimate(run, g);
        int fewest = fewest_rounds(run, g);
        sum += g->setup_cost + opening_cost(run, g) +
               g->round_cost * (rounds > fewest ? rounds : fewest);
    }
    return sum;
}

/* What a group needs at least, by the estimates alone. */
static double least_cost(const struct bench_run *run, const struct bench_group *g)
{
    return g->setup_cost + opening_cost(run, g) + fewest_rounds(run, g) * g->round_cost;
}

static double ratio(double took, double planned)
{
    return planned > 0.0 ? fmin(fmax(took / planned, 0.1), 10.0) : 1.0;
}

/* The same, corrected by what the groups so far took. */
static double expected_cost(const struct schedule *s, const struct bench_group *g)
{
    return ratio(s->setup_took, s->setup_planned) * g->setup_cost + opening_cost(s->run, g) +
           ratio(s->rounds_took, s->rounds_planned) * fewest_rounds(s->run, g) * g->round_cost;
}

/* ---- order ----------------------------------------------------------------------------------- */

static void shuffle(struct bench_run *run, struct bench_group **x, int n)
{
    for (int left = n; left > 1; left--) {
        int at = (int)(bench_random(&run->random) % (uint64_t)left);
        struct bench_group *t = x[at];
        x[at] = x[left - 1];
        x[left - 1] = t;
    }
}

static const struct bench_run *compared; /* qsort() passes nothing on */

/* The notebook's shapes, those with targets and a user's own come before the other built-in sets.
 */
static int comes_first(const struct bench_group *g)
{
    const char *set = g->subject->p->set;
    int i = 0;
    while (bench_set_name(i) != NULL && strcmp(bench_set_name(i), set) != 0) {
        i++;
    }
    return bench_set_name(i) == NULL || strcmp(set, "seed") == 0 || strcmp(set, "targets") == 0;
}

/* Among equals, what costs least. */
static int by_worth(const void *a, const void *b)
{
    const struct bench_group *g = *(struct bench_group *const *)a;
    const struct bench_group *h = *(struct bench_group *const *)b;
    int order = comes_first(h) - comes_first(g);
    if (order != 0) {
        return order;
    }
    double x = least_cost(compared, g), y = least_cost(compared, h);
    return (x > y) - (x < y);
}

/* Sorts by worth and gives how many fit into the budget together. */
static int affordable(struct bench_run *run, struct bench_group **x, int n)
{
    double sum = 0.0, left = run->deadline - bench_now();
    int count = 0;
    compared = run;
    qsort(x, (size_t)n, sizeof(struct bench_group *), by_worth);
    while (count < n && (sum += least_cost(run, x[count])) <= left) {
        count++;
    }
    return count;
}

/* Sorts those that must be timed to the front and gives how many they are. */
static int required_first(const struct bench_run *run, struct bench_group **x, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++) {
        if (bench_group_required(run, x[i])) {
            struct bench_group *g = x[i];
            memmove(x + count + 1, x + count, (size_t)(i - count) * sizeof *x);
            x[count++] = g;
        }
    }
    return count;
}

/* Problems at random, the groups of one problem together, which share operands and reference; then
 * those that the budget hardly allows, the cheapest first, or in a run for targets the sets. */
static int make_order(struct schedule *s)
{
    struct bench_run *run = s->run;
    struct bench_group **all = calloc((size_t)run->groups + 1, sizeof *all);
    s->order = calloc((size_t)run->groups + 1, sizeof(struct bench_group *));
    if (all == NULL || s->order == NULL) {
        free(all);
        fprintf(stderr, "t2bench: out of memory\n");
        return -1;
    }
    for (int i = 0; i < run->groups; i++) {
        all[i] = &run->group[i];
    }
    int targets = run->o->profile == BENCH_TARGETS;
    int count = targets ? required_first(run, all, run->groups) : affordable(run, all, run->groups);
    shuffle(run, all, count);
    if (targets) {
        shuffle(run, all + count, run->groups - count);
    }
    for (int i = 0; i < run->groups; i++) {
        if (all[i] == NULL) {
            continue;
        }
        s->order[s->count++] = all[i];
        int end = i < count ? count : targets ? run->groups : i + 1;
        for (int j = i + 1; j < end; j++) {
            if (all[j] != NULL && all[j]->subject == all[i]->subject) {
                s->order[s->count++] = all[j];
                all[j] = NULL;
            }
        }
    }
    free(all);
    return 0;
}

static void leave_out(struct schedule *s, struct bench_group *g, const char *reason)
{
    g->state = BENCH_NOT_TIMED;
    snprintf(g->reason, sizeof g->reason, "%s", reason);
    s->finished++;
}

/* Takes the next groups that fit into memory and budget. */
static void fill_batch(struct schedule *s)
{
    struct bench_run *run = s->run;
    size_t arenas = 0, memory = 0, available = bench_memory_available();
    double planned = 0.0;
    s->batched = 0;
    int most = s->next == 0 ? FIRST_BATCH : BATCH; /* a few to learn from what things cost */
    for (; s->next < s->count && s->batched < most; s->next++) {
        struct bench_group *g = s->order[s->next];
        size_t arena = arena_bytes(g), needed = memory_bytes(g);
        if (s->batched > 0 && (arenas + arena > BATCH_ARENAS || memory + needed > available / 2)) {
            break;
        }
        if (needed > available / 5 * 4) {
            char reason[160];
            snprintf(reason, sizeof reason, "needs about %.1f GiB of memory, %.1f are available",
                     (double)needed / 0x1p30, (double)available / 0x1p30);
            leave_out(s, g, reason);
            continue;
        }
        double least = expected_cost(s, g);
        if (bench_now() + planned + least > run->deadline && !bench_group_required(run, g)) {
            leave_out(s, g, "out of budget");
            continue;
        }
        planned += least;
        arenas += arena;
        memory += needed;
        s->batch[s->batched++] = g;
    }
}

/* Shares out what is left of the budget, after the groups of this batch are open. */
static void share_out(struct schedule *s)
{
    struct bench_run *run = s->run;
    double scale = ratio(s->rounds_took, s->rounds_planned), least = 0.0, rounds = 0.0;
    for (int i = s->next; i < s->count; i++) {
        least += expected_cost(s, s->order[i]);
        rounds += scale * s->order[i]->round_cost;
    }
    for (int i = 0; i < s->batched; i++) {
        struct bench_group *g = s->batch[i];
        g->measured_cost = round_cost(run, g);
        least += fewest_rounds(run, g) * g->measured_cost;
        rounds += g->measured_cost;
    }
    double extra = fmax(run->deadline - bench_now() - least, 0.0);
    for (int i = 0; i < s->batched && rounds > 0.0; i++) {
        struct bench_group *g = s->batch[i];
        g->share = (fewest_rounds(run, g) + extra / rounds) * g->measured_cost;
    }
}

/* ---- a batch --------------------------------------------------------------------------------- */

static void show_progress(const struct schedule *s, const struct bench_group *g)
{
    const struct bench_run *run = s->run;
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    double left = fmax(run->deadline - bench_now(), 0.0);
    char text[100];
    snprintf(text, sizeof text, "[%3d %%] %s/%s/%d%s%s, at most %d:%02d left",
             100 * s->finished / s->count, g->subject->p->op->name, g->subject->p->shape,
             g->threads, g->operands != BENCH_HOT ? " " : "",
             g->operands != BENCH_HOT ? bench_operands_name[g->operands] : "", (int)left / 60,
             (int)left % 60);
    fprintf(stderr, "\r%-79.79s", text);
}

static int is_finished(const struct bench_run *run, struct bench_group *g)
{
    if (!bench_group_alive(g) || g->rounds >= g->room) {
        return 1;
    }
    double now = bench_now();
    if (g->rounds < fewest_rounds(run, g)) {
        return now > run->start + LATE * run->o->budget && !bench_group_required(run, g);
    }
    if (run->o->repetitions > 0) {
        return 0;
    }
    if (now > run->deadline || g->spent + 0.5 * g->measured_cost > g->share) {
        return 1;
    }
    if (g->rounds >= FIRST_CHECK && g->rounds >= g->next_check) {
        /* Not after each round: resampling takes its time too. */
        g->next_check = g->rounds + 1 + g->rounds / 3;
        return bench_precise(run, g);
    }
    return 0;
}

static double opening_seconds(const struct bench_run *run)
{
    double sum = 0.0;
    for (int i = 0; i < run->servers; i++) {
        sum += run->server[i].opening;
    }
    return sum;
}

static void open_batch(struct schedule *s)
{
    double start = bench_now(), opening = opening_seconds(s->run);
    for (int i = 0; i < s->batched && !bench_interrupted(); i++) {
        if (bench_now() > s->run->deadline && !bench_group_required(s->run, s->batch[i])) {
            continue;
        }
        show_progress(s, s->batch[i]);
        bench_group_open(s->run, s->batch[i]);
        s->setup_planned += s->batch[i]->setup_cost;
    }
    s->setup_took += bench_now() - start - (opening_seconds(s->run) - opening);
}

/* One round of each of the groups, in random order; how many of them need more. */
static int time_pass(struct schedule *s, struct bench_group **active, int count)
{
    struct bench_run *run = s->run;
    int left = 0;
    shuffle(run, active, count);
    for (int i = 0; i < count && !bench_interrupted(); i++) {
        struct bench_group *g = active[i];
        double start = bench_now();
        show_progress(s, g);
        bench_group_round(run, g);
        g->spent += bench_now() - start;
        if (!is_finished(run, g)) {
            active[left++] = g;
        }
        if (bench_now() >= s->next_sample) {
            client_pause();
            bench_noise_sample(&run->noise);
            s->next_sample = bench_now() + 0.25;
        }
    }
    return left;
}

static void time_batch(struct schedule *s)
{
    struct bench_run *run = s->run;
    struct bench_group *active[BATCH];
    int count = 0;
    for (int i = 0; i < s->batched; i++) {
        if (s->batch[i]->state == BENCH_TIMING && !is_finished(run, s->batch[i])) {
            active[count++] = s->batch[i];
        }
    }
    for (int pass = 1; count > 0 && !bench_interrupted(); pass++) {
        count = time_pass(s, active, count);
        if (pass % PASSES == 0 && count > 0) {
            double start = bench_now();
            bench_groups_refresh(run, active, count);
            for (int i = 0; i < count; i++) {
                active[i]->spent += (bench_now() - start) / count;
            }
        }
    }
}

static void close_batch(struct schedule *s)
{
    double start = bench_now();
    for (int i = 0; i < s->batched; i++) {
        struct bench_group *g = s->batch[i];
        int opened = g->state == BENCH_TIMING;
        if (opened) {
            bench_group_close(g);
            s->rounds_planned += g->rounds * g->round_cost;
            s->rounds_took += g->spent;
        }
        if (opened && (g->rounds > 0 || !bench_group_alive(g))) {
            g->state = BENCH_DONE;
            s->finished++;
        } else {
            leave_out(s, g, bench_interrupted() ? "interrupted" : "out of budget");
        }
    }
    for (int i = 0; i < s->batched; i++) {
        bench_subject_release(s->batch[i]->subject);
    }
    s->setup_took += bench_now() - start;
}

void bench_schedule(struct bench_run *run)
{
    struct schedule s = {.run = run};
    bench_schedule_estimate(run, 0);
    if (make_order(&s) == 0) {
        while (s.next < s.count && !bench_interrupted()) {
            fill_batch(&s);
            open_batch(&s);
            share_out(&s);
            time_batch(&s);
            close_batch(&s);
        }
        for (; s.next < s.count; s.next++) {
            leave_out(&s, s.order[s.next], "interrupted");
        }
        if (isatty(STDERR_FILENO)) {
            fprintf(stderr, "\r%79s\r", "");
        }
    }
    free(s.order);
}
