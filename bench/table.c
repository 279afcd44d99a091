/* The results as text: a table per operation for people, CSV, Markdown. */
#include "run.h"

#include "io/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From here on a run says that the machine was not steady. */
#define STEAL_PERCENT 1.0
#define DRIFT 0.05

static const char *format_time(char *text, size_t size, double seconds)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1.0, "s "}, {1e-3, "ms"}, {1e-6, "us"}, {1e-9, "ns"}};
    size_t u = 0;
    while (u < 3 && seconds < units[u].unit) {
        u++;
    }
    double value = seconds / units[u].unit;
    snprintf(text, size, "%.*f %s", value < 10.0 ? 3 : value < 100.0 ? 2 : 1, value, units[u].name);
    return text;
}

/* "1.08x openblas". */
static const char *format_peer(char *text, size_t size, const struct bench_summary *s)
{
    text[0] = '\0';
    if (s->best_peer != NULL) {
        snprintf(text, size, s->ratio < 0.1 ? "%.1gx %s" : "%.2fx %s", s->ratio,
                 s->best_peer->name);
    }
    return text;
}

static int decimals(double x)
{
    return x < 10.0 ? 2 : x < 1000.0 ? 1 : 0;
}

/* ---- above the table ------------------------------------------------------------------------- */

static void print_isas(void)
{
    t2k_isa_info info;
    printf("ISAs:");
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (info.usable) {
            printf(" %s%s", info.name, info.active ? " (active)" : "");
        }
    }
    printf("; default threads: %d (%s)\n", t2k_get_num_threads(), t2k_threads_reason());
}

static void print_peaks(const struct bench_run *run)
{
    static const char *const levels[] = {"L1", "L2", "L3", "memory"};
    for (int t = 0; t < run->o->thread_counts && run->peaks.count > 0; t++) {
        int threads = run->o->threads[t];
        const char *separator = " ";
        printf("Peaks on %d thread%s: FMA", threads, threads > 1 ? "s" : "");
        for (int i = 0; i < run->o->isas; i++) {
            t2k_isa_info info;
            if (t2k_isa_get(run->o->isa[i], &info) == T2K_OK) {
                double peak = bench_peak_find(&run->peaks, "fma", info.name, "", threads);
                char text[32] = "unknown (busy)";
                if (peak > 0.0) {
                    snprintf(text, sizeof text, "%.*f", decimals(peak), peak);
                }
                printf("%s%s %s", separator, info.name, text);
                separator = ", ";
            }
        }
        printf(" GFLOP/s; read");
        separator = " ";
        for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
            double peak = bench_peak_find(&run->peaks, "read", "", levels[i], threads);
            if (peak > 0.0) {
                printf("%s%s %.*f", separator, levels[i], decimals(peak), peak);
                separator = ", ";
            }
        }
        printf(" GB/s\n");
    }
}

static void print_machine(const struct bench_run *run)
{
    char cpu[256];
    bench_cpu_name(cpu, sizeof cpu);
    printf("t2bench %s on %s\n", t2k_version(), cpu);
    print_isas();
    print_peaks(run);
    for (int i = 0; i < run->servers; i++) {
        const struct bench_server *server = &run->server[i];
        if (server->peer == &bench_peers[0]) {
            continue;
        }
        const char *plural = server->threads > 1 ? "s" : "";
        if (server->error[0] != '\0') {
            printf("%s on %d thread%s: FAILED: %s\n", server->peer->name, server->threads, plural,
                   server->error);
        } else if (server->generation > 0) {
            printf("%s on %d thread%s: %s", server->peer->name, server->threads, plural,
                   server->version);
            if (server->left_out > 0) {
                printf(" (left out of %d group%s: out of budget)", server->left_out,
                       server->left_out > 1 ? "s" : "");
            }
            printf("\n");
        }
    }
    for (int i = 0; i < run->missings; i++) {
        printf("%s: %s\n", run->missing[i].peer->name, run->missing[i].reason);
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

/* "97 % fma avx2"; "?" where the share says more of the peak than of the case. */
static const char *format_limit(char *text, size_t size, const struct bench_summary *s)
{
    text[0] = '\0';
    if (s->limit_seconds > 0.0) {
        double share = s->limit_seconds / s->median;
        snprintf(text, size, "%3.0f %%%s %s", 100.0 * share, share > BENCH_MOST_SHARE ? "?" : "",
                 s->limit);
    }
    return text;
}

/* "320x768x256", and where its operands were if that was not the cache. */
static void row_label(const struct bench_group *g, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s", g->subject->p->shape, g->operands != BENCH_HOT ? " " : "",
             g->operands != BENCH_HOT ? bench_operands_name[g->operands] : "");
}

/* Of the first column in the block of operation `op`. */
static int label_width(const struct bench_run *run, const struct bench_op *op)
{
    int width = 21;
    for (int i = 0; i < run->groups; i++) {
        char label[80];
        if (run->group[i].subject->p->op == op) {
            row_label(&run->group[i], label, sizeof label);
            width = (int)strlen(label) > width ? (int)strlen(label) : width;
        }
    }
    return width;
}

static void print_row(const struct bench_group *g, const struct bench_row *row, int width)
{
    char label[80], time[24], limit[48], peer[BENCH_NAME + 16];
    row_label(g, label, sizeof label);
    printf("%-*s %-7s %3d ", width, label, row->isa_name, g->threads);
    if (!row->summarized) {
        printf("FAILED: %s\n", row->error);
        return;
    }
    const struct bench_summary *s = &row->summary;
    format_limit(limit, sizeof limit, s);
    format_peer(peer, sizeof peer, s);
    printf("%10s%c %8.*f  %-18s %-18s %016" PRIx64 "\n", format_time(time, sizeof time, s->median),
           s->noisy ? '~' : ' ', decimals(s->rate), s->rate, limit, peer, row->fingerprint);
}

/* A peer that failed a problem is said below our rows of it. */
static void print_peer_errors(const struct bench_group *g, int width)
{
    for (int i = g->own_rows; i < g->rows; i++) {
        const struct bench_row *row = &g->row[i];
        if (row->error[0] != '\0' && !row->unsupported && !bench_never_started(row)) {
            char label[80];
            row_label(g, label, sizeof label);
            printf("%-*s %-7s %3d FAILED: %s: %s\n", width, label, "", g->threads, row->name,
                   row->error);
        }
    }
}

static void print_blocks(const struct bench_run *run)
{
    const struct bench_op *op = NULL;
    int width = 0;
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->own_rows; j++) {
            if (!g->row[j].summarized && g->row[j].error[0] == '\0') {
                continue;
            }
            if (g->subject->p->op != op) {
                op = g->subject->p->op;
                width = label_width(run, op);
                printf("\n%-*s %-7s %3s %10s  %8s  %-18s %-18s %s\n", width, op->name, "isa", "thr",
                       "median", g->subject->p->flops > 0.0 ? "GFLOP/s" : "GB/s", "of limit",
                       "best peer", "fingerprint");
            }
            print_row(g, &g->row[j], width);
        }
        print_peer_errors(g, width);
    }
}

/* ---- below the table ------------------------------------------------------------------------- */

static void find_marks(const struct bench_run *run, int *noisy, int *doubtful)
{
    *noisy = *doubtful = 0;
    for (int i = 0; i < run->groups; i++) {
        for (int j = 0; j < run->group[i].own_rows; j++) {
            const struct bench_summary *s = &run->group[i].row[j].summary;
            if (run->group[i].row[j].summarized) {
                *noisy |= s->noisy;
                *doubtful |= s->limit_seconds > BENCH_MOST_SHARE * s->median;
            }
        }
    }
}

/* How many groups were not timed, by reason. */
static void print_not_timed(const struct bench_run *run)
{
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        int count = 0, first = 1;
        for (int j = 0; j < run->groups && g->state == BENCH_NOT_TIMED; j++) {
            const struct bench_group *other = &run->group[j];
            if (other->state == BENCH_NOT_TIMED && strcmp(other->reason, g->reason) == 0) {
                first &= j >= i;
                count += other->own_rows;
            }
        }
        if (count > 0 && first) {
            printf("not timed: %s: %d case%s, such as %s\n", g->reason, count, count > 1 ? "s" : "",
                   g->row[0].name);
        }
    }
    if (run->slow_left_out > 0) {
        printf("not timed: too slow on the scalar ISA: %d case%s (--isa scalar runs them)\n",
               run->slow_left_out, run->slow_left_out > 1 ? "s" : "");
    }
}

static void print_noise(const struct bench_run *run)
{
    json_t *noise = bench_noise_json(&run->noise);
    double steal = json_number_value(json_object_get(noise, "steal_percent"));
    double low = json_number_value(json_object_get(noise, "ghz_min"));
    double high = json_number_value(json_object_get(noise, "ghz_max"));
    if (steal > STEAL_PERCENT) {
        printf("noise: %.1f %% of the CPU time was stolen by the hypervisor\n", steal);
    }
    if (low > 0.0 && high > (1.0 + DRIFT) * low) {
        printf("noise: the clock went from %.2f to %.2f GHz during the run\n", low, high);
    }
    json_decref(noise);
}

void bench_table_print(const struct bench_run *run)
{
    int noisy, doubtful;
    find_marks(run, &noisy, &doubtful);
    print_machine(run);
    print_blocks(run);
    printf("\n");
    print_not_timed(run);
    print_noise(run);
    printf(
        "median: of the rounds, every result verified before; best peer: its time / ours, above 1 "
        "ours is faster\n");
    if (noisy) {
        printf("~: noisy, half of the rounds were off the median by more than 5 %%\n");
    }
    if (doubtful) {
        printf("?: far above the limit, whose peak was measured too low: on a busy machine?\n");
    }
    if (!run->complete) {
        printf("INCOMPLETE: interrupted after %.0f s\n", run->seconds);
    }
}

/* ---- CSV and Markdown ------------------------------------------------------------------------ */

/* A field in quotes, those inside it doubled. */
static void add_quoted(t2_text *text, const char *s)
{
    t2_text_str(text, "\"");
    for (; *s != '\0'; s++) {
        t2_text_add(text, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
    }
    t2_text_str(text, "\"");
}

static void add_peers(t2_text *text, const struct bench_group *g, const struct bench_row *row)
{
    const char *separator = "";
    for (int i = g->own_rows; i < g->rows; i++) {
        if (bench_compares(g, row, &g->row[i])) {
            t2_text_printf(text, "%s%s=%.7g", separator, g->row[i].name,
                           1e9 * g->row[i].summary.median);
            separator = ";";
        }
    }
}

static void add_csv_row(t2_text *text, const struct bench_group *g, const struct bench_row *row)
{
    const struct problem *p = g->subject->p;
    const struct bench_summary *s = &row->summary;
    t2_text_printf(text, "%s,%s,%s,%s,%s,%d,%s,", row->name, p->op->name, row->isa_name, p->shape,
                   p->set != NULL ? p->set : "file", g->threads, bench_operands_name[g->operands]);
    if (!row->summarized) {
        t2_text_str(text, ",,,,,,,,,,,,,,,");
        add_quoted(text, row->error);
    } else {
        t2_text_printf(text, "%d,%.7g,%.7g,%.7g,%.7g,%.4g,%d,%.7g,%s,%s,", g->rounds,
                       1e9 * s->median, 1e9 * s->min, 1e9 * s->low, 1e9 * s->high, s->mad_share,
                       s->noisy, s->rate, s->rate_unit, s->limit);
        if (s->limit_seconds > 0.0) {
            t2_text_printf(text, "%.4g", s->limit_seconds / s->median);
        }
        t2_text_str(text, ",");
        if (s->best_peer != NULL) {
            t2_text_printf(text, "%s,%.4g,", s->best_peer->name, s->ratio);
        } else {
            t2_text_str(text, ",,");
        }
        add_peers(text, g, row);
        t2_text_printf(text, ",%016" PRIx64 ",", row->fingerprint);
    }
    t2_text_str(text, "\n");
}

static void add_markdown_row(t2_text *text, const struct bench_group *g,
                             const struct bench_row *row)
{
    const struct bench_summary *s = &row->summary;
    char median[24], min[24], limit[48], peer[BENCH_NAME + 16];
    if (!row->summarized) {
        t2_text_printf(text, "| %s | FAILED: ", row->name);
        for (const char *c = row->error; *c != '\0'; c++) {
            t2_text_add(text, *c == '|' ? "/" : c, 1);
        }
        t2_text_str(text, " | | | | | |\n");
        return;
    }
    t2_text_printf(text, "| %s | %s%s | %s | %.*f %s | ", row->name,
                   format_time(median, sizeof median, s->median), s->noisy ? " ~" : "",
                   format_time(min, sizeof min, s->min), decimals(s->rate), s->rate, s->rate_unit);
    const char *share = format_limit(limit, sizeof limit, s);
    share += strspn(share, " ");
    t2_text_printf(text, "%s | %s | %016" PRIx64 " |\n", share, format_peer(peer, sizeof peer, s),
                   row->fingerprint);
    (void)g;
}

static char *add_rows(const struct bench_run *run, t2_text *text,
                      void (*add)(t2_text *text, const struct bench_group *g,
                                  const struct bench_row *row))
{
    for (int i = 0; i < run->groups; i++) {
        const struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->own_rows; j++) {
            if (g->row[j].summarized || g->row[j].error[0] != '\0') {
                add(text, g, &g->row[j]);
            }
        }
    }
    if (text->failed) {
        t2_text_free(text);
        return NULL;
    }
    return text->data;
}

char *bench_table_csv(const struct bench_run *run)
{
    t2_text text = {0};
    t2_text_str(&text, "name,op,isa,shape,set,threads,operands,rounds,median_ns,min_ns,low_ns,"
                       "high_ns,mad_share,noisy,rate,rate_unit,limit,limit_share,best_peer,"
                       "peer_ratio,peers_ns,fingerprint,error\n");
    return add_rows(run, &text, add_csv_row);
}

char *bench_table_markdown(const struct bench_run *run)
{
    t2_text text = {0};
    t2_text_str(&text, "| case | median | min | rate | of limit | best peer | fingerprint |\n"
                       "|--|--|--|--|--|--|--|\n");
    return add_rows(run, &text, add_markdown_row);
}
