/* The cases of a run: operation x ISA with a kernel of its own x shape x threads x operands, in
 * groups with the peers that they meet. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A case of the scalar ISA that would need more than this for one call is left out, unless that
 * ISA was asked for by name: without hardware for fused steps it is 15 times slower still. */
#define SCALAR_SECONDS 0.5
#define SCALAR_SECONDS_QUICK 0.04
/* What is assumed where no peak is known: GFLOP/s, GB/s. */
#define UNKNOWN_FMA 2.0
#define UNKNOWN_BANDWIDTH 2.0
/* Calls are taken to need so many times what the limits allow, and at least so long. */
#define OVER_LIMIT 3.0
#define OVER_LIMIT_PRODUCT 1.3
#define CALL_OVERHEAD 1e-6

/* ---- peers ----------------------------------------------------------------------------------- */

static struct bench_server *server_of(struct bench_run *run, const struct bench_peer *peer,
                                      int threads)
{
    for (int i = 0; i < run->servers; i++) {
        if (run->server[i].peer == peer && run->server[i].threads == threads) {
            return &run->server[i];
        }
    }
    struct bench_server *server = &run->server[run->servers++];
    server->peer = peer;
    server->threads = threads;
    server->against = peer == bench_peer_against() ? run->o->against : NULL;
    return server;
}

/* Which peers are here, and why the others are not. */
static int find_peers(struct bench_run *run)
{
    for (int i = 0; i < run->o->peers; i++) {
        struct bench_peers_missing *missing = &run->missing[run->missings];
        if (bench_peer_present(run->o->peer[i], missing->reason, sizeof missing->reason)) {
            run->peer[run->peers++] = run->o->peer[i];
        } else {
            missing->peer = run->o->peer[i];
            run->missings++;
        }
    }
    if (run->o->against != NULL) {
        if (access(run->o->against, R_OK) != 0 && strchr(run->o->against, '/') != NULL) {
            return bench_usage_error("--against %s: cannot be read", run->o->against);
        }
        run->peer[run->peers++] = bench_peer_against();
        run->against_is_ours = bench_against_is_t2bench(run->o->against);
    }
    return 0;
}

static int peer_matches(const struct bench_run *run, const struct bench_peer *peer, const char *op)
{
    if (peer == bench_peer_against() && run->against_is_ours) {
        return 1;
    }
    regex_t expression;
    if (peer->ops == NULL || regcomp(&expression, peer->ops, REG_EXTENDED | REG_NOSUB) != 0) {
        return 0;
    }
    int match = regexec(&expression, op, 0, NULL, 0) == 0;
    regfree(&expression);
    return match;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static int add_shapes(struct bench_run *run)
{
    char error[BENCH_ERROR];
    for (int i = 0; i < run->o->sets; i++) {
        if (bench_shapes_add_set(&run->shapes, run->o->set[i], error, sizeof error) != 0) {
            fprintf(stderr, "t2bench: %s\n", error);
            return 1;
        }
    }
    if (run->o->sizes != NULL &&
        bench_shapes_add_file(&run->shapes, run->o->sizes, error, sizeof error) != 0) {
        return bench_usage_error("%s", error);
    }
    return 0;
}

static int op_rank(const struct bench_op *op)
{
    int i = 0;
    while (bench_ops[i] != NULL && bench_ops[i] != op) {
        i++;
    }
    return i;
}

static int same_problem(const struct problem *a, const struct problem *b)
{
    return a->op == b->op && strcmp(a->shape, b->shape) == 0;
}

/* One subject per problem, those that several sets share once; by operation, else as given. */
static int make_subjects(struct bench_run *run)
{
    run->subject = calloc((size_t)run->shapes.count + 1, sizeof *run->subject);
    if (run->subject == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    for (int rank = 0; bench_ops[rank] != NULL; rank++) {
        for (int i = 0; i < run->shapes.count; i++) {
            struct problem *p = &run->shapes.problem[i];
            int seen = op_rank(p->op) != rank;
            for (int j = 0; j < run->subjects && !seen; j++) {
                seen = same_problem(run->subject[j].p, p);
            }
            if (!seen) {
                run->subject[run->subjects++].p = p;
            }
        }
    }
    return 0;
}

/* ---- groups ---------------------------------------------------------------------------------- */

/* Nonzero when the ISA brings the kernel itself; an inherited one is another ISA's case. */
static int has_own(int isa, size_t slot)
{
    const t2k_table *table = t2k_table_own(isa);
    void (*kernel)(void) = NULL;
    if (table != NULL && slot == BENCH_NO_SLOT) {
        return 1;
    }
    if (table != NULL) {
        memcpy(&kernel, (const char *)table + slot, sizeof kernel);
    }
    return kernel != NULL;
}

static int is_rowwise(const struct bench_op *op)
{
    return op->slot != BENCH_NO_SLOT && op->slot != BENCH_SLOT(gemm_strict) &&
           op->slot != BENCH_SLOT(attention);
}

/* Whether a problem is timed with these operands. Without --operands: in cache, and in a full run
 * also as models find them, weights that were packed once but left the cache since, and whole
 * activations from memory. */
static int wants_operands(const struct bench_options *o, const struct problem *p,
                          enum bench_operands operands)
{
    if (o->operands_given || operands == BENCH_HOT || o->profile != BENCH_FULL) {
        return o->operands[operands];
    }
    int model_shape = p->set != NULL && (strcmp(p->set, "llm") == 0 || strcmp(p->set, "seed") == 0);
    return operands == BENCH_COLD_WEIGHTS ? p->op->packed && model_shape : is_rowwise(p->op);
}

static void init_row(struct bench_row *row, const struct bench_peer *peer, int isa)
{
    t2k_isa_info info;
    memset(row, 0, sizeof *row);
    row->peer = peer;
    row->isa = isa;
    if (isa >= 0 && t2k_isa_get(isa, &info) == T2K_OK) {
        snprintf(row->isa_name, sizeof row->isa_name, "%s", info.name);
    }
}

/* Appends a case of ours where the options let it through. */
static void add_case(struct bench_run *run, struct bench_group *g, int isa)
{
    const struct problem *p = g->subject->p;
    struct bench_row *row = &g->row[g->rows];
    init_row(row, &bench_peers[0], isa);
    row->ours = 1;
    snprintf(row->name, sizeof row->name, "%s/%s/%s/%d%s%s", p->op->name, row->isa_name, p->shape,
             g->threads, g->operands != BENCH_HOT ? "/" : "",
             g->operands != BENCH_HOT ? bench_operands_name[g->operands] : "");
    row->server = server_of(run, row->peer, g->threads);
    if (bench_options_match(run->o, row->name)) {
        g->own_rows = ++g->rows;
    }
}

static void add_peers(struct bench_run *run, struct bench_group *g)
{
    for (int i = 0; i < run->peers; i++) {
        const struct bench_peer *peer = run->peer[i];
        if (!peer_matches(run, peer, g->subject->p->op->name)) {
            continue;
        }
        /* Another build of ours meets each of our rows on the same ISA. */
        int each = peer == bench_peer_against() && run->against_is_ours;
        for (int j = 0; j < (each ? g->own_rows : 1); j++) {
            struct bench_row *row = &g->row[g->rows];
            init_row(row, peer, each ? g->row[j].isa : -1);
            snprintf(row->name, sizeof row->name, "%s", peer->name);
            row->server = server_of(run, peer, g->threads);
            g->rows++;
        }
    }
}

/* Appends the group where it has cases. 0, or 1 when out of memory. */
static int add_group(struct bench_run *run, struct bench_subject *s, enum bench_operands operands,
                     int threads)
{
    struct bench_group *g = &run->group[run->groups];
    memset(g, 0, sizeof *g);
    g->copies = bench_copies(s->p, operands, run->llc_bytes);
    if (g->copies == 0) {
        return 0;
    }
    g->subject = s;
    g->operands = operands;
    g->threads = threads;
    g->row = calloc((size_t)(2 * run->o->isas + run->peers), sizeof *g->row);
    if (g->row == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    for (int i = 0; i < run->o->isas; i++) {
        int isa = run->o->isa[i];
        /* Many threads of the slowest ISA are rarely worth their time. */
        int extra = isa == 0 && threads > 1 && !run->o->threads_given && !run->o->isas_given;
        int own =
            has_own(isa, s->p->op->slot) || (s->p->op->also != 0 && has_own(isa, s->p->op->also));
        if (own && !extra) {
            add_case(run, g, isa);
        }
    }
    if (g->own_rows == 0) {
        free(g->row);
        return 0;
    }
    add_peers(run, g);
    run->groups++;
    return 0;
}

static int make_groups(struct bench_run *run)
{
    size_t most = (size_t)run->subjects * BENCH_OPERANDS * (size_t)run->o->thread_counts;
    size_t servers = (size_t)(run->peers + 1) * (size_t)run->o->thread_counts;
    run->group = calloc(most + 1, sizeof *run->group);
    run->server = calloc(servers, sizeof *run->server);
    if (run->group == NULL || run->server == NULL) {
        fprintf(stderr, "t2bench: out of memory\n");
        return 1;
    }
    int status = 0;
    for (int i = 0; i < run->subjects; i++) {
        for (int t = 0; t < run->o->thread_counts; t++) {
            for (int k = 0; k < BENCH_OPERANDS && status == 0; k++) {
                enum bench_operands operands = (enum bench_operands)k;
                if (wants_operands(run->o, run->subject[i].p, operands)) {
                    status = add_group(run, &run->subject[i], operands, run->o->threads[t]);
                }
            }
        }
    }
    return status;
}

/* A kernel without a benchmark would go unmeasured unseen. */
static void note_missing(void)
{
    static const struct {
        const char *name;
        size_t slot;
    } slots[] = {
#define T2K_SLOT(name, type) {#name, BENCH_SLOT(name)},
#include "core/slots.def"
#undef T2K_SLOT
    };
    for (size_t s = 0; s < sizeof slots / sizeof slots[0]; s++) {
        /* The measure itself; a step of products. */
        int found =
            strncmp(slots[s].name, "probe_", 6) == 0 || strcmp(slots[s].name, "gemm_finish") == 0;
        for (int i = 0; bench_ops[i] != NULL && !found; i++) {
            found = bench_ops[i]->slot == slots[s].slot ||
                    (bench_ops[i]->also != 0 && bench_ops[i]->also == slots[s].slot);
        }
        if (!found) {
            fprintf(stderr, "t2bench: note: kernel %s has no benchmark\n", slots[s].name);
        }
    }
}

int bench_cases_create(struct bench_run *run)
{
    for (int level = 1; level <= 4; level++) {
        size_t bytes = bench_cache_bytes(level);
        run->llc_bytes = bytes > run->llc_bytes ? bytes : run->llc_bytes;
    }
    note_missing();
    int status = find_peers(run);
    if (status == 0) {
        status = add_shapes(run);
    }
    if (status == 0) {
        status = make_subjects(run);
    }
    if (status == 0) {
        status = make_groups(run);
    }
    if (status == 0 && run->groups == 0) {
        status = run->o->filter_text != NULL
                     ? bench_usage_error("no case matches --filter %s; t2bench list prints all",
                                         run->o->filter_text)
                     : bench_usage_error("these options leave no case");
    }
    return status;
}

void bench_cases_destroy(struct bench_run *run)
{
    for (int i = 0; i < run->groups; i++) {
        struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->rows; j++) {
            gbench_case_destroy(g->row[j].record);
            free(g->row[j].sample);
        }
        free(g->row);
    }
    free(run->group);
    free(run->server);
    free(run->subject);
    bench_shapes_free(&run->shapes);
}

int bench_group_required(const struct bench_run *run, const struct bench_group *g)
{
    return run->o->profile == BENCH_TARGETS && strcmp(g->subject->p->set, "targets") == 0;
}

/* ---- estimates ------------------------------------------------------------------------------- */

double bench_estimate_call(const struct bench_run *run, const struct bench_group *g, int isa)
{
    const struct problem *p = g->subject->p;
    t2k_isa_info info = {.name = ""};
    (void)t2k_isa_get(isa, &info);
    char name[64];
    double limit =
        bench_limit_seconds(&run->peaks, p, g->operands, info.name, g->threads, name, sizeof name);
    double fma = bench_peak_find(&run->peaks, "fma", info.name, "", g->threads);
    if (!(fma > 0.0)) { /* several threads on a busy machine */
        fma = bench_peak_find(&run->peaks, "fma", info.name, "", 1);
    }
    fma = fma > 0.0 ? fma : UNKNOWN_FMA;
    double work = 2e-9 * p->macs / fma;
    double moved = 1e-9 * (p->read_bytes + p->write_bytes) / UNKNOWN_BANDWIDTH;
    double over = p->op->slot == BENCH_SLOT(gemm_strict) ? OVER_LIMIT_PRODUCT : OVER_LIMIT;
    double least = over * (limit > 0.0 ? limit : moved);
    return CALL_OVERHEAD + (least > work ? least : work);
}

static int too_slow(const struct bench_run *run, const struct bench_group *g,
                    const struct bench_row *row)
{
    double fma = bench_peak_find(&run->peaks, "fma", row->isa_name, "", 1);
    double limit = run->o->profile == BENCH_QUICK ? SCALAR_SECONDS_QUICK : SCALAR_SECONDS;
    return row->isa == 0 && 2e-9 * g->subject->p->macs / (fma > 0.0 ? fma : UNKNOWN_FMA) > limit;
}

void bench_cases_drop_slow(struct bench_run *run)
{
    int groups = 0;
    for (int i = 0; i < run->groups && !run->o->isas_given; i++) {
        struct bench_group *g = &run->group[i];
        int kept = 0, own = 0;
        for (int j = 0; j < g->rows; j++) {
            const struct bench_row *row = &g->row[j];
            int slow = row->isa >= 0 && too_slow(run, g, row);
            run->slow_left_out += slow && row->ours;
            if (!slow) {
                own += row->ours;
                g->row[kept++] = *row;
            }
        }
        g->rows = kept;
        g->own_rows = own;
        if (own == 0) {
            free(g->row);
        } else {
            run->group[groups++] = *g;
        }
    }
    run->groups = run->o->isas_given ? run->groups : groups;
}
