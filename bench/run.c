/* `t2bench run` and `t2bench list`: from the options to the results. */
#include "run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The probes of the machine take this share of the budget, within these limits in seconds. */
#define PROBE_SHARE 0.05
#define PROBE_LEAST 0.3
#define PROBE_MOST 5.0
/* What a dry run assumes: the rounds that a case usually gets where time is plenty. */
#define USUAL_ROUNDS 20

/* ---- interrupts ------------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

int bench_interrupted(void)
{
    return interrupted;
}

/* The first one ends the run after the current round, the second one at once. */
static void catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* ---- without timing -------------------------------------------------------------------------- */

static void print_names(const struct bench_run *run)
{
    for (int i = 0; i < run->groups; i++) {
        for (int j = 0; j < run->group[i].own_rows; j++) {
            puts(run->group[i].row[j].name);
        }
    }
}

static void print_seconds(const char *what, double seconds)
{
    if (seconds < 120.0) {
        printf("%s %.0f s", what, seconds);
    } else {
        printf("%s %.0f min", what, seconds / 60.0);
    }
}

/* Cases, contenders and time; nothing but the machine's peaks is measured. */
static void print_plan(struct bench_run *run)
{
    int cases = 0;
    double least = bench_schedule_estimate(run, 0);
    double usual = bench_schedule_estimate(run, run->o->repetitions > 0 ? 0 : USUAL_ROUNDS);
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->own_rows; j++) {
            printf("%s", g->row[j].name);
            const char *separator = "  against ";
            for (int k = g->own_rows; k < g->rows; k++) {
                if (g->row[k].isa < 0 || g->row[k].isa == g->row[j].isa) {
                    printf("%s%s", separator, g->row[k].name);
                    separator = ", ";
                }
            }
            printf("\n");
            cases++;
        }
    }
    for (int i = 0; i < run->missings; i++) {
        printf("%s: %s\n", run->missing[i].peer->name, run->missing[i].reason);
    }
    printf("%d case%s in %d group%s:", cases, cases == 1 ? "" : "s", run->groups,
           run->groups == 1 ? "" : "s");
    print_seconds(" at least about", least);
    print_seconds(", usually about", usual);
    print_seconds("; the budget is", run->o->budget);
    printf("\n");
}

/* ---- a run ----------------------------------------------------------------------------------- */

int bench_never_started(const struct bench_row *row)
{
    return !row->ours && row->server->generation == 0;
}

/* Rows that failed, ours and the peers'; said on stderr, since a table may not be printed. A peer
 * that could not be started gave no wrong result: that is said once and is no failure. */
static int count_failures(const struct bench_run *run, int *timed)
{
    int failures = 0;
    *timed = 0;
    for (int i = 0; i < run->servers; i++) {
        const struct bench_server *server = &run->server[i];
        if (server->peer != &bench_peers[0] && server->generation == 0 &&
            server->error[0] != '\0') {
            fprintf(stderr, "t2bench: %s on %d thread%s: %s\n", server->peer->name, server->threads,
                    server->threads > 1 ? "s" : "", server->error);
        }
    }
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->rows; j++) {
            const struct bench_row *row = &g->row[j];
            *timed += row->ours && row->summarized;
            if (row->error[0] == '\0' || row->unsupported || bench_never_started(row)) {
                continue;
            }
            failures++;
            fprintf(stderr, "t2bench: %s%s%s: %s\n", row->ours ? "" : g->row[0].name,
                    row->ours ? "" : ": ", row->name, row->error);
        }
    }
    return failures;
}

static int measure(struct bench_run *run)
{
    if (bench_output_check(run) != 0) {
        return 1;
    }
    catch_interrupts();
    run->start = bench_now();
    run->deadline = run->start + run->o->budget;
    bench_noise_start(&run->noise);
    double probe = PROBE_SHARE * run->o->budget;
    bench_probe_peaks(run, probe < PROBE_LEAST  ? PROBE_LEAST
                           : probe > PROBE_MOST ? PROBE_MOST
                                                : probe);
    bench_cases_drop_slow(run);
    if (run->groups == 0) {
        return bench_usage_error(
            "all cases are too slow on the scalar ISA; --isa scalar runs them");
    }
    bench_servers_start(run);
    bench_schedule(run);
    bench_servers_stop(run);
    run->complete = !bench_interrupted();
    run->seconds = bench_now() - run->start;
    bench_summarize_all(run);
    int timed, failures = count_failures(run, &timed);
    int status = bench_output(run);
    if (failures > 0) {
        fprintf(stderr, "t2bench: %d case%s failed\n", failures, failures > 1 ? "s" : "");
        status = 1;
    }
    if (!run->complete) {
        fprintf(stderr, "t2bench: interrupted; %d case%s had been timed\n", timed,
                timed == 1 ? "" : "s");
        return 130;
    }
    if (timed == 0 && failures == 0) {
        fprintf(stderr, "t2bench: nothing could be timed within the budget\n");
        status = 1;
    }
    return status;
}

static int serve(struct bench_run *run, int list)
{
    int status = bench_cases_create(run);
    if (status != 0) {
        return status;
    }
    if (list || run->o->list) {
        print_names(run);
    } else if (run->o->dry_run) {
        bench_probe_peaks(run, PROBE_LEAST);
        bench_cases_drop_slow(run);
        print_plan(run);
    } else {
        status = measure(run);
    }
    return status;
}

int bench_run_main(int argc, char **argv, int list)
{
    struct bench_options options;
    if (t2k_init() != T2K_OK) {
        return bench_usage_error("%s", t2k_isa_error());
    }
    int status = bench_options_parse(&options, argc, argv);
    struct bench_run *run = calloc(1, sizeof *run);
    if (run == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        status = 1;
    }
    if (status == 0) {
        run->o = &options;
        run->random = options.seed;
        status = serve(run, list);
        bench_cases_destroy(run);
        gbench_shutdown();
    }
    free(run);
    bench_options_free(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "t2bench: cannot write to stdout\n");
        status = status <= 0 ? 1 : status;
    }
    return status < 0 ? 0 : status;
}
