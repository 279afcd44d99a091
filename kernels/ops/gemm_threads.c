/* A product among the threads of a team. Parts are taken from a queue, so that a thread whose CPU
 * is busy otherwise takes fewer; each element of C is computed whole, chunk by chunk in rising k,
 * whoever takes it, so that no bit depends on it.
 *   parts    items of a batch or rectangles of C that need nothing of each other
 *   stages   both operands are packed, one of them once for all: each visit of C (a block of
 *            columns, two chunks of k) is a stage; its tickets are first groups of the shared
 *            operand to be packed, then units of C. A ticket waits for the groups of its stage and
 *            for its unit's stage before: only for earlier tickets, so that there is no deadlock,
 *            and no barrier but the last. Two stages have room; a stage is packed while the one
 *            before it is computed.
 *            rows     units are rows, B is shared
 *            columns  units are columns, A (which fits L2) is shared, B packed just before use;
 *                     where A is read in place, a stage has nothing to share */
#include "ops/gemm_class.h"
#include "ops/gemm_parts.h"

#define UNITS_PER_THREAD 4    /* of a stage: the last ones to finish wait for a fraction */
#define PART_NS 5000.0        /* a part is worth a ticket and its own start from here on */
#define FLAG_SHARED 0         /* and 1: groups packed, by parity of the stage */
#define FLAG_DONE 2           /* and 3: units computed */
#define FLAG_UNIT ((size_t)4) /* and on: stages done, by unit */
#define MOST_UNITS (T2K_TEAM_FLAGS - FLAG_UNIT)

typedef struct stages {
    const t2k_gemm_job *job;
    int by_rows, fused, placed;
    size_t units, unit;   /* how many, rows or columns each */
    size_t groups, group; /* of the shared operand: how many, columns or rows each */
    size_t col_step;      /* columns of a stage */
    size_t depth, deep;   /* steps of k of a stage; stages along k */
    size_t count;
} stages;

/* Items [first, last) of a batch, or of the batch of one that a part is. */
static void run_part(const t2k_team *team, const t2k_gemm_job *part, t2k_gemm_route route,
                     size_t first, size_t last)
{
    float *workspace = t2k_team_workspace(team);
    if (workspace != NULL) {
        t2k_gemm_items(part, route, first, last, workspace, T2K_WORKSPACE_BYTES / sizeof(float));
    } else {
        float small[T2K_STACK_FLOATS] __attribute__((aligned(T2K_ALIGN)));
        t2k_gemm_items(part, route, first, last, small, T2K_STACK_FLOATS);
    }
}

/* ---- stages --------------------------------------------------------------------------------- */

/* The stage's buffer for the shared operand: the room for B of one of the first two threads. */
static float *shared_room(const t2k_team *team, size_t stage)
{
    return (float *)t2k_team_workspace_of(team, (int)(stage % 2)) + T2K_ROOM_A;
}

/* What all tickets of a stage have in common. */
static t2k_gemm_visit visit_of(const t2k_team *team, const stages *s, size_t stage)
{
    const t2k_gemm_job *job = s->job;
    float *own = t2k_team_workspace(team), *shared = shared_room(team, stage);
    t2k_gemm_visit v = {.job = job, .rows = job->m, .placed = s->placed};
    v.p = stage % s->deep * s->depth;
    v.depth = t2k_least(job->k - v.p, s->depth);
    v.j = stage / s->deep * s->col_step;
    v.cols = t2k_least(job->n - v.j, s->col_step);
    v.group_cols = t2k_gemm_pack_cols(job);
    if (s->by_rows) {
        v.group_rows = s->unit;
        v.a = own;
        v.b = shared;
        v.b_step = s->depth;
        v.ready = 1;
    } else {
        v.group_rows = s->group;
        v.a = shared;
        v.a_group = t2k_gemm_group_floats(job, s->group);
        v.b = own;
        v.fused = s->fused;
        v.group_cols = s->fused ? job->group->nr : v.group_cols;
    }
    return v;
}

static void share_group(const t2k_team *team, const stages *s, size_t stage, size_t group)
{
    const t2k_gemm_visit v = visit_of(team, s, stage);
    const size_t first = group * s->group;
    if (!s->by_rows) {
        t2k_gemm_visit_pack_a(&v, first);
    } else if (first < v.cols) {
        t2k_gemm_visit_pack_b(&v, first);
    }
}

static void compute_unit(const t2k_team *team, const stages *s, size_t stage, size_t unit)
{
    t2k_gemm_visit v = visit_of(team, s, stage);
    const size_t first = unit * s->unit;
    if (s->by_rows) {
        v.i = first;
        v.rows = t2k_least(s->job->m - first, s->unit);
        t2k_gemm_visit_pack_a(&v, 0);
    } else {
        v.j = first;
        v.cols = t2k_least(s->job->n - first, s->unit);
    }
    t2k_gemm_visit_run(&v);
}

static void run_stages(t2k_team *team, const stages *s)
{
    const size_t tickets = s->groups + s->units;
    for (;;) {
        const size_t ticket = t2k_team_ticket(team);
        const size_t stage = ticket / tickets, number = ticket % tickets;
        const size_t parity = stage % 2, before = stage / 2; /* stages of this parity before it */
        if (stage >= s->count) {
            return;
        }
        if (number < s->groups) {
            t2k_team_await(team, FLAG_DONE + parity, before * s->units);
            share_group(team, s, stage, number);
            t2k_team_add(team, FLAG_SHARED + parity);
        } else {
            const size_t unit = number - s->groups;
            t2k_team_await(team, FLAG_SHARED + parity, (before + 1) * s->groups);
            t2k_team_await(team, FLAG_UNIT + unit, stage);
            compute_unit(team, s, stage, unit);
            t2k_team_add(team, FLAG_UNIT + unit);
            t2k_team_add(team, FLAG_DONE + parity);
        }
    }
}

/* `total` rows or columns in about `wanted` units of whole `grain`, of `most` each where
 * the limits on their number and the rounding let them. */
static size_t unit_size(size_t total, size_t wanted, size_t grain, size_t most)
{
    size_t count = (total + most - 1) / most;
    count = count > wanted ? count : wanted;
    count = count < MOST_UNITS ? count : MOST_UNITS;
    return t2k_round_up((total + count - 1) / count, grain);
}

static size_t pieces(size_t total, size_t size)
{
    return (total + size - 1) / size;
}

/* Nonzero where the job can go by stages; then *s says how. */
static int plan_stages(const t2k_gemm_job *job, t2k_gemm_route route, size_t size, stages *s)
{
    const size_t mr = job->group->mr, nr = job->group->nr, most = t2k_gemm_block_rows(job);
    const size_t wanted = size * UNITS_PER_THREAD;
    *s = (stages){.job = job,
                  .fused = t2k_gemm_fused(route),
                  .placed = t2k_gemm_placed(route),
                  .depth = t2k_gemm_depth(job)};
    s->deep = pieces(job->k, s->depth);
    s->by_rows = job->m > most || (job->n < 2 * size * nr && job->m >= 2 * size * mr);
    if (s->by_rows) {
        /* Not below two tiles: the panels of B come from L3 for each unit. */
        s->unit = unit_size(job->m, wanted, job->m > wanted * 2 * mr ? 2 * mr : mr, most);
        if (s->unit > most) { /* rounded beyond the room for A, or too many rows */
            return 0;
        }
        s->units = pieces(job->m, s->unit);
        s->col_step = job->panels != NULL ? job->n : t2k_gemm_kept_cols(job);
        s->group = t2k_gemm_pack_cols(job);
        s->groups = job->panels != NULL ? 0 : pieces(s->col_step, s->group);
    } else {
        s->unit = unit_size(job->n, wanted, nr, job->n);
        s->units = pieces(job->n, s->unit);
        s->col_step = job->n;
        s->group = unit_size(job->m, size, mr, job->m);
        s->groups = s->placed ? 0 : pieces(job->m, s->group);
        if (s->groups * t2k_gemm_group_floats(job, s->group) > T2K_ROOM_B) {
            return 0;
        }
    }
    s->count = s->deep * pieces(job->n, s->col_step);
    return s->units > 1 && s->units <= MOST_UNITS;
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* Into how many parts the rows are cut for `count` parts (the columns: count / rows): the largest
 * rectangle shall be cheap, counting that every part packs its own operands, at about the time of
 * 16 multiply-adds an element, or reads packed panels from memory, at about 8. */
static size_t row_parts(const t2k_gemm_job *job, size_t count)
{
    t2k_gemm_group *g = job->group;
    size_t best = 1;
    double best_cost = 0.0;
    for (size_t parts = 1; parts <= count; parts++) {
        const size_t across = count / parts;
        const size_t rows = t2k_round_up((job->m + parts - 1) / parts, g->mr);
        const size_t cols = t2k_round_up((job->n + across - 1) / across, g->nr);
        const double r = (double)rows, c = (double)cols;
        const double cost = r * c + 16.0 * r + (job->panels != NULL ? 8.0 : 16.0) * c;
        if (parts == 1 || cost < best_cost) {
            best = parts;
            best_cost = cost;
        }
    }
    return best;
}

/* How many parts are worth it: some for each thread where there is work enough. */
static size_t part_count(double work, size_t size)
{
    const double worth = work / PART_NS;
    const size_t most = size * UNITS_PER_THREAD;
    return worth <= (double)size ? size : worth < (double)most ? (size_t)worth : most;
}

static void run_rectangles(t2k_team *team, const t2k_gemm_job *job)
{
    const size_t count = part_count(t2k_gemm_work(job), (size_t)t2k_team_size(team));
    const size_t down = row_parts(job, count), across = count / down;
    for (size_t t; (t = t2k_team_ticket(team)) < down * across * job->batch;) {
        const size_t item = t / (down * across), r = t % (down * across);
        size_t i0, i1, j0, j1;
        t2k_share(job->m, job->group->mr, down, r / across, &i0, &i1);
        t2k_share(job->n, job->group->nr, across, r % across, &j0, &j1);
        if (i0 == i1 || j0 == j1) { /* fewer tiles than parts */
            continue;
        }
        t2k_gemm_job part = t2k_gemm_part(job, item, i0, i1, j0, j1);
        part.batch = 1;
        run_part(team, &part, t2k_gemm_choose(&part), 0, 1);
    }
}

static void run_items(t2k_team *team, const t2k_gemm_job *job, t2k_gemm_route route)
{
    const size_t size = (size_t)t2k_team_size(team);
    const size_t count = t2k_least(job->batch, part_count(t2k_gemm_work(job), size));
    for (size_t t; (t = t2k_team_ticket(team)) < count;) {
        size_t first, last;
        t2k_share(job->batch, 1, count, t, &first, &last);
        run_part(team, job, route, first, last);
    }
}

void t2k_gemm_team(t2k_team *team, const t2k_gemm_job *job)
{
    if (t2k_gemm_class_team(team, job)) {
        return;
    }
    const size_t size = (size_t)t2k_team_size(team);
    if (job->m == 0 || job->n == 0 || job->batch == 0) {
        t2k_team_barrier(team);
        return;
    }
    const t2k_gemm_route route = t2k_gemm_choose(job);
    stages s;
    if (size == 1) {
        run_part(team, job, route, 0, job->batch);
    } else if (job->batch >= size) {
        run_items(team, job, route);
    } else if (job->batch == 1 && route >= T2K_ROUTE_BLOCKS && t2k_team_workspace(team) != NULL &&
               plan_stages(job, route, size, &s)) {
        run_stages(team, &s);
    } else {
        run_rectangles(team, job);
    }
    t2k_team_barrier(team);
}
