/* What the rounds of a case say: medians, intervals, the share of the limit, the best peer. */
#include "run.h"

#include <math.h>
#include <string.h>

#define NOISY 0.05 /* median absolute deviation over median */
#define SEED 1     /* of the bootstrap: the same rounds give the same intervals */

static int has_times(const struct bench_group *g, const struct bench_row *row)
{
    return g->rounds > 0 && row->verified && row->error[0] == '\0' && !row->unsupported;
}

int bench_compares(const struct bench_group *g, const struct bench_row *row,
                   const struct bench_row *peer)
{
    return !peer->ours && has_times(g, peer) && (peer->isa < 0 || peer->isa == row->isa);
}

double bench_paired_ratio(int n, const double *ours, const double *theirs)
{
    double ratio[BENCH_MAX_REPETITIONS];
    for (int i = 0; i < n; i++) {
        ratio[i] = theirs[i] / ours[i];
    }
    return stats_median(n, ratio);
}

static void find_best_peer(const struct bench_group *g, const struct bench_row *row,
                           struct bench_summary *s)
{
    for (int i = g->own_rows; i < g->rows; i++) {
        const struct bench_row *peer = &g->row[i];
        if (bench_compares(g, row, peer)) {
            double ratio = bench_paired_ratio(g->rounds, row->sample, peer->sample);
            if (s->best_peer == NULL || ratio < s->ratio) {
                s->best_peer = peer;
                s->ratio = ratio;
            }
        }
    }
    if (s->best_peer != NULL) {
        s->ratio_interval =
            stats_ratio_interval_paired(g->rounds, row->sample, s->best_peer->sample, SEED);
    }
}

int bench_summarize(const struct bench_run *run, const struct bench_group *g,
                    const struct bench_row *row, struct bench_summary *s)
{
    const struct problem *p = g->subject->p;
    memset(s, 0, sizeof *s);
    if (!has_times(g, row)) {
        return -1;
    }
    struct stats_interval interval = stats_median_interval(g->rounds, row->sample, SEED);
    double bytes = p->read_bytes + p->write_bytes;
    s->median = stats_median(g->rounds, row->sample);
    s->min = stats_min(g->rounds, row->sample);
    s->low = interval.low;
    s->high = interval.high;
    s->mad_share = stats_mad(g->rounds, row->sample) / s->median;
    s->noisy = s->mad_share > NOISY;
    s->rate = 1e-9 * (p->flops > 0.0 ? p->flops : bytes) / s->median;
    s->rate_unit = p->flops > 0.0 ? "GFLOP/s" : "GB/s";
    s->intensity = p->flops > 0.0 && bytes > 0.0 ? p->flops / bytes : 0.0;
    s->limit_seconds = bench_limit_seconds(&run->peaks, p, g->operands, row->isa_name, g->threads,
                                           s->limit, sizeof s->limit);
    if (!(s->limit_seconds > 0.0)) {
        s->limit[0] = '\0';
    }
    if (row->ours) {
        find_best_peer(g, row, s);
    }
    return 0;
}

int bench_precise(const struct bench_run *run, const struct bench_group *g)
{
    for (int i = 0; i < g->own_rows; i++) {
        struct bench_summary s;
        if (bench_summarize(run, g, &g->row[i], &s) != 0) {
            continue;
        }
        if (s.high - s.low > run->o->precision * s.median ||
            (s.best_peer != NULL &&
             s.ratio_interval.high - s.ratio_interval.low > run->o->precision * s.ratio)) {
            return 0;
        }
    }
    return 1;
}

void bench_summarize_all(struct bench_run *run)
{
    for (int i = 0; i < run->groups; i++) {
        struct bench_group *g = &run->group[i];
        for (int j = 0; j < g->rows; j++) {
            g->row[j].summarized = bench_summarize(run, g, &g->row[j], &g->row[j].summary) == 0;
        }
    }
}
