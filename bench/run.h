/* run.h - a run: its cases, their contenders, the rounds, and what came of them.
 *
 * A group is a problem with a number of threads and a place of its operands; its rows are the
 * contenders: our own kernels per ISA (a row of those is a case) and the peers. A group's rows are
 * timed in turn, so that whatever disturbs the machine meets all of them.
 */
#ifndef T2_BENCH_RUN_H
#define T2_BENCH_RUN_H

#include "client.h"
#include "gbench.h"
#include "limits.h"
#include "options.h"
#include "problem.h"
#include "stats.h"

struct bench_row;

enum { BENCH_NAME = 128, BENCH_ERROR = 400 };

/* The worker process of a contender with a number of threads. */
struct bench_server {
    const struct bench_peer *peer;
    const char *against; /* what client_start() takes */
    int threads;
    struct client *client; /* NULL: not started yet, or ended */
    int generation;        /* raised by every start: cases of an older one are lost */
    int deaths;
    /* Cases so far, the seconds that each took beyond a call, together (some compile), and groups
     * that it was left out of as too slow or too late. */
    int opened, left_out;
    double opening;
    char version[128];
    char error[BENCH_ERROR]; /* why it can't be used any more; "" else */
};

/* A problem and what its groups share. Reference and arenas stand only within a batch. */
struct bench_subject {
    struct problem *p;
    uint64_t fingerprint;
    char fingerprint_of[BENCH_NAME]; /* the case it was first taken from, "" for none */
    struct bench_reference *reference;
    struct bench_arena arena[BENCH_OPERANDS];
    int has_arena[BENCH_OPERANDS];
};

/* What the rounds of a row say; times in seconds per call. */
struct bench_summary {
    double median, min, low, high, mad_share;
    int noisy;
    double rate; /* from the median */
    const char *rate_unit;
    double intensity;
    char limit[32];                    /* "": unknown */
    double limit_seconds;              /* 0: unknown */
    const struct bench_row *best_peer; /* NULL: none */
    double ratio;                      /* its time / ours, of paired rounds */
    struct stats_interval ratio_interval;
};
struct bench_row {
    const struct bench_peer *peer; /* &bench_peers[0]: our own */
    int ours;
    int isa; /* ours, and another build of ours as a peer; else -1 */
    char isa_name[16];
    char name[BENCH_NAME]; /* op/isa/shape/threads[/operands], or the peer's name */
    struct bench_server *server;
    int id, generation; /* of the open case */
    int open;
    int unsupported; /* a peer that cannot do this */
    int verified;
    int finished;            /* its last result was held against the first */
    char error[BENCH_ERROR]; /* why it has no time, or "" */
    uint64_t fingerprint;
    double call;    /* seconds of one, about: an estimate until it was measured */
    int64_t calls;  /* per round */
    double *sample; /* (group->rounds) seconds per call */
    gbench_case *record;
    int summarized; /* at the end of the run, where it has times */
    struct bench_summary summary;
};

enum bench_group_state { BENCH_WAITING, BENCH_TIMING, BENCH_DONE, BENCH_NOT_TIMED };

struct bench_group {
    struct bench_subject *subject;
    enum bench_operands operands;
    int copies, threads;
    struct bench_row *row; /* ours first, by rank */
    int rows, own_rows;
    enum bench_group_state state;
    char reason[160]; /* BENCH_NOT_TIMED: why */
    char verified_by[48];
    double round_cost, setup_cost; /* seconds, as estimated before */
    double measured_cost;          /* of a round, once the calls were seen */
    double share, spent;           /* seconds for rounds */
    int rounds, room;              /* taken; allocated in row->sample */
    int next_check;
};

struct bench_run {
    const struct bench_options *o;
    struct bench_shapes shapes;
    struct bench_subject *subject;
    int subjects;
    struct bench_group *group; /* in the order of the tables */
    int groups;
    struct bench_server *server; /* one per contender and number of threads */
    int servers;
    const struct bench_peer *peer[BENCH_CHOICES + 1]; /* present, to be timed */
    int peers;
    struct bench_peers_missing {
        const struct bench_peer *peer;
        char reason[200];
    } missing[BENCH_CHOICES];
    int missings;
    int against_is_ours; /* --against names a t2bench */
    struct bench_peaks peaks;
    struct bench_noise noise;
    size_t llc_bytes;
    double start, deadline, seconds;
    uint64_t random;
    int slow_left_out;
    char json_path[4096]; /* where --json goes, "" for nowhere */
    int complete;
};

/* Nonzero once an interrupt was asked for. */
int bench_interrupted(void);

/* ---- cases.c --------------------------------------------------------------------------------- */

/* Fills shapes, subjects, peers and groups from the options. 0; 1 or 2, said on stderr. */
int bench_cases_create(struct bench_run *run);
void bench_cases_destroy(struct bench_run *run);
/* Takes out the cases of the scalar ISA that would be too slow by the measured peaks; none where
 * that ISA was asked for. */
void bench_cases_drop_slow(struct bench_run *run);
/* Whether it has to be timed whatever the budget is: a case that stands in the targets' file by
 * itself, in a run for targets. */
int bench_group_required(const struct bench_run *run, const struct bench_group *g);
/* Seconds that a call of the row takes, by the measured peaks, about. */
double bench_estimate_call(const struct bench_run *run, const struct bench_group *g, int isa);

/* ---- probe.c --------------------------------------------------------------------------------- */

/* The peaks of the chosen ISAs and numbers of threads, measured by a process of its own: probes
 * start thread pools, and one that crashes must not end the run. */
void bench_probe_peaks(struct bench_run *run, double seconds);
/* That process: `t2bench probe SECONDS ISA,... THREADS,...`; the exit status. */
int bench_probe_main(int argc, char **argv);

/* ---- contest.c: one row at a time ------------------------------------------------------------ */

/* Operands and reference of a group; every row opened, run once and verified; calls planned. */
void bench_group_open(struct bench_run *run, struct bench_group *g);
/* One round of all rows that hold, in random order. */
void bench_group_round(struct bench_run *run, struct bench_group *g);
/* Seconds of the calls outside rounds that a row needs, if one takes row->call. */
double bench_setup_calls(const struct bench_run *run, const struct bench_row *row);
/* Between rounds: other memory for the operands of these groups and new worker processes for the
 * contenders that start quickly; the cases are opened and verified again by their next round. */
void bench_groups_refresh(struct bench_run *run, struct bench_group *const *group, int groups);
/* The results once more, and everything released. */
void bench_group_close(struct bench_group *g);
void bench_subject_release(struct bench_subject *s);
/* Nonzero while a row of ours has no error. */
int bench_group_alive(const struct bench_group *g);
/* Starts the workers of all groups: all in a run for targets, else as far as half of the budget
 * allows; and ends them. */
void bench_servers_start(struct bench_run *run);
void bench_servers_stop(struct bench_run *run);
/* Whether opening its cases has taken its share of the budget, so that it opens no more. */
int bench_server_exhausted(const struct bench_run *run, const struct bench_server *server);
/* Whether some row is theirs. */
int bench_server_used(const struct bench_run *run, const struct bench_server *server);

/* ---- schedule.c ------------------------------------------------------------------------------ */

/* Costs of all groups from the estimates; their sum in seconds with `rounds` rounds each. */
double bench_schedule_estimate(struct bench_run *run, int rounds);
/* Times what the budget allows, batch by batch. */
void bench_schedule(struct bench_run *run);

/* ---- summary.c ------------------------------------------------------------------------------- */

/* Nonzero where there is nothing to say: no time. */
int bench_summarize(const struct bench_run *run, const struct bench_group *g,
                    const struct bench_row *row, struct bench_summary *s);
/* Nonzero for a peer that this row of ours is compared with, and that has times. */
int bench_compares(const struct bench_group *g, const struct bench_row *row,
                   const struct bench_row *peer);
/* Median of theirs / ours, round by round. */
double bench_paired_ratio(int n, const double *ours, const double *theirs);
/* Fills row->summary of all rows. */
void bench_summarize_all(struct bench_run *run);
/* Nonzero when all intervals of the group are as narrow as asked for. */
int bench_precise(const struct bench_run *run, const struct bench_group *g);

/* ---- output.c, table.c ----------------------------------------------------------------------- */

/* Where --json points, a folder completed by the machine's key; 0, or 1 said on stderr where it
 * cannot be written. All the files asked for are tried. */
int bench_output_check(struct bench_run *run);
/* Writes the files and prints on stdout; 0, or 1 said on stderr. */
int bench_output(struct bench_run *run);
void bench_table_print(const struct bench_run *run);
/* One line per case; allocated text, NULL when out of memory. */
char *bench_table_csv(const struct bench_run *run);
char *bench_table_markdown(const struct bench_run *run);

/* ---- run.c ----------------------------------------------------------------------------------- */

/* A peer's row whose worker could not be started at all. */
int bench_never_started(const struct bench_row *row);
/* `t2bench run` and `t2bench list`: the exit status. argv[0] is skipped. */
int bench_run_main(int argc, char **argv, int list);

#endif
