/* The blocked matrix product. k is cut into chunks of T2K_CHUNK_K; each chunk's sums go into C
 * before the next chunk starts, so no blocking here can change a bit. One thread takes a rectangle
 * of C by one of these ways:
 *   scale    no product (alpha = 0 or k = 0)
 *   lines    few columns or few rows of C, their matrix contiguous along k (gemm_lines.c)
 *   direct   A and B in place: B is read once, or both are small
 *   strips   A in place, B in panels (packed once, or just before use): few rows or columns
 *   blocks   A packed in blocks that stay in L2, B just before use (gemm_blocks.c)
 *   rows     as blocks, A in place
 *   fused, rows fused   as these, B packed by the kernel that multiplies it first
 * The rule: tiles read rows of A in place as fast as packed ones, unless their stride puts all
 * lines of a tile on few sets of L1, so A is packed only then, where it lies across, and where it
 * is to be scaled; packing B costs about 16 multiply-adds an element along k, 8 across. So B is
 * packed where more than mr rows use it, its chunk does not fit L2 as it lies or it lies along k;
 * and where B's rows are contiguous its packing is hidden behind mr multiply-adds a store. Sizes
 * come from what the group's kernels reach and from the size of L2; a test may ask for another way
 * (t2k_gemm_job.route). */
#include "core/fpenv.h"
#include "ops/gemm_class.h"
#include "ops/gemm_parts.h"

#include <string.h>

#define SMALL_FLOATS 65536 /* a chunk of an operand up to 256 KB is read in place: it fits L2 */
#define BAD_STRIDE 512     /* unless its lines fall on few cache sets: strides of k * 2 KB */
#define WORST_STRIDE 1024  /* all lines of a step of k on one set of L1 */
#define L1_WAYS 8          /* where a stride puts all lines of a column on one set */
#define NARROW_COLS 128    /* columns for which packing A costs more than it brings */

/* Nonzero where `lines` rows or columns by kc, `stride` apart, stay in cache as they are. */
static int small(size_t lines, size_t kc, size_t stride)
{
    return lines * kc <= SMALL_FLOATS &&
           (stride % BAD_STRIDE != 0 || lines * kc <= SMALL_FLOATS / 8);
}

/* B as it is, read by the kernels in place. */
static int direct_possible(const t2k_gemm_job *job)
{
    return job->panels == NULL && job->b_n == 1 && job->s_b == NULL &&
           job->n % job->group->direct_step == 0;
}

/* Nonzero where so few columns follow that packing A would not pay: its rows are read in place
 * while a chunk of B stays in cache. */
static int narrow(const t2k_gemm_job *job, size_t kc)
{
    return job->n <= NARROW_COLS && job->n * kc <= SMALL_FLOATS / 2 && job->a_k == 1 &&
           job->a_m % BAD_STRIDE != 0;
}

/* B in panels, by the first kernel where its rows are contiguous; A in place where that is no loss:
 * on strides that put a tile's rows on one set of L1, only if they fit it and few columns follow.
 */
static t2k_gemm_route packed(const t2k_gemm_job *job)
{
    t2k_gemm_group *g = job->group;
    const int fused = g->fuse != NULL && job->panels == NULL && job->b_n == 1 && job->s_b == NULL &&
                      job->n >= g->nr && job->m > g->mr;
    const int spread = job->a_m % WORST_STRIDE != 0 || (g->mr < L1_WAYS && job->n <= NARROW_COLS);
    if (!g->packs && job->s_a == NULL && job->a_k == 1 && spread) {
        return fused ? T2K_ROUTE_ROWS_FUSED : T2K_ROUTE_ROWS;
    }
    return fused ? T2K_ROUTE_FUSED : T2K_ROUTE_BLOCKS;
}

static t2k_gemm_route choose(const t2k_gemm_job *job)
{
    t2k_gemm_group *g = job->group;
    if (job->alpha == 0.0f || job->k == 0) {
        return T2K_ROUTE_SCALE;
    }
    if (job->c_panel > 0) { /* the others write more than one panel at a time */
        return packed(job);
    }
    const size_t kc = t2k_least(job->k, T2K_CHUNK_K);
    const int small_a = small(job->m, kc, job->a_m == 1 ? job->a_k : job->a_m);
    if (t2k_gemm_has_lines(job)) {
        return T2K_ROUTE_LINES;
    }
    if (job->k == 1 && !g->packs && job->s_a == NULL) { /* nothing is read twice from afar */
        return direct_possible(job) ? T2K_ROUTE_DIRECT : T2K_ROUTE_STRIPS;
    }
    if (g->packs || job->s_a != NULL ||
        (job->m > g->few && job->n > g->nr && !small_a && !narrow(job, kc))) {
        return packed(job);
    }
    if (direct_possible(job) &&
        (job->m <= g->mr || (job->m <= g->few && job->b_k % BAD_STRIDE != 0) ||
         small(job->n, kc, job->b_k))) {
        return T2K_ROUTE_DIRECT;
    }
    if (job->m <= g->few || job->n <= g->nr) {
        return T2K_ROUTE_STRIPS;
    }
    return packed(job);
}

/* Nonzero where a forced way computes this job. */
static int possible(const t2k_gemm_job *job, t2k_gemm_route route)
{
    t2k_gemm_group *g = job->group;
    const int product = job->alpha != 0.0f && job->k > 0;
    switch (route) {
    case T2K_ROUTE_SCALE:
        return !product;
    case T2K_ROUTE_LINES:
        return product && !g->packs && t2k_gemm_has_lines(job);
    case T2K_ROUTE_DIRECT:
        return product && !g->packs && job->s_a == NULL && direct_possible(job);
    case T2K_ROUTE_STRIPS:
        return product && !g->packs && job->s_a == NULL;
    case T2K_ROUTE_BLOCKS:
        return product;
    case T2K_ROUTE_ROWS:
        return product && !g->packs && job->s_a == NULL;
    case T2K_ROUTE_ROWS_FUSED:
        if (job->s_a != NULL) {
            return 0;
        } /* fall through */
    case T2K_ROUTE_FUSED:
        return product && g->fuse != NULL && job->panels == NULL && job->b_n == 1 &&
               job->s_b == NULL;
    default:
        return 0;
    }
}

t2k_gemm_route t2k_gemm_choose(const t2k_gemm_job *job)
{
    return job->route != T2K_ROUTE_CHOOSE && possible(job, job->route) ? job->route : choose(job);
}

/* How the sums of the chunk of k that starts at p leave, for the job's whole C. */
t2k_gemm_out t2k_gemm_leave(const t2k_gemm_job *job, size_t p, size_t kc)
{
    const int first = p == 0, last = p + kc == job->k;
    const int epilogue = job->bias != NULL || job->scale != NULL || job->residual != NULL ||
                         job->activation != T2K_ACT_NONE;
    t2k_gemm_out out = {.alpha = job->alpha, .beta = job->beta, .first = first};
    if (last) {
        out.activation = job->activation;
        out.bias = job->bias;
        out.scale = job->scale;
        out.scale_rows = job->scale_rows;
        out.lds = job->lds;
        out.residual = job->residual;
        out.ldr = job->ldr;
        if (out.scale_rows != NULL || out.activation > T2K_ACT_RELU) {
            out.mode = T2K_GEMM_MEMORY;
        }
    }
    if (job->alpha == 1.0f && !(last && epilogue)) {
        if (!first || job->beta == 1.0f) {
            out.mode = T2K_GEMM_ADD;
        } else if (job->beta == 0.0f) {
            out.mode = T2K_GEMM_STORE;
        }
    }
    return out;
}

static void direct(const t2k_gemm_job *job)
{
    for (size_t p = 0, kc; p < job->k; p += kc) {
        kc = t2k_least(job->k - p, T2K_CHUNK_K);
        const t2k_gemm_out out = t2k_gemm_leave(job, p, kc);
        job->group->strip(job->m, job->n, kc, job->A + p * job->a_k, job->a_m, job->a_k,
                          job->B + p * job->b_k, job->b_k, job->group->nr, 0, job->C, job->ldc,
                          &out);
    }
}

static void strips(const t2k_gemm_job *job, float *workspace, size_t floats)
{
    t2k_gemm_group *g = job->group;
    const size_t nr = g->nr;
    /* As many panels as the kernels walk at once: with all chunks of k they are read in order. */
    const size_t rows = t2k_least(job->m, sizeof g->strip_panels - 1);
    size_t step = (g->strip_panels[rows] > 0 ? g->strip_panels[rows] : 1) * nr;
    if (job->panels == NULL) {
        const size_t pack_cols = t2k_gemm_pack_cols(job);
        const size_t fit = floats / t2k_least(job->k, T2K_CHUNK_K) / nr * nr;
        step = step > pack_cols ? step : pack_cols;
        step = t2k_least(step, fit); /* > 0: the workspace holds a panel, see fits_stack() */
    } else if (job->k <= T2K_CHUNK_K) {
        step = job->n;
    }
    for (size_t j = 0; j < job->n; j += step) {
        const size_t cols = t2k_least(job->n - j, step);
        for (size_t p = 0, kc; p < job->k; p += kc) {
            kc = t2k_least(job->k - p, T2K_CHUNK_K);
            const float *b = workspace;
            size_t b_panel = nr * kc;
            if (job->panels != NULL) {
                b = job->panels + j / nr * job->b_panel + p * nr;
                b_panel = job->b_panel;
            } else {
                g->pack_b(cols, kc, job->B + p * job->b_k + j * job->b_n, job->b_k, job->b_n,
                          job->s_b != NULL ? job->s_b + p : NULL, workspace, b_panel);
            }
            const t2k_gemm_out whole = t2k_gemm_leave(job, p, kc);
            const t2k_gemm_out out = t2k_gemm_out_at(&whole, 0, j);
            g->strip(job->m, cols, kc, job->A + p * job->a_k, job->a_m, job->a_k, b, nr, b_panel, 1,
                     job->C + j, job->ldc, &out);
        }
    }
}

/* A batch of one. */
static void serial(const t2k_gemm_job *job, t2k_gemm_route route, float *workspace, size_t floats)
{
    switch (route) {
    case T2K_ROUTE_SCALE: {
        const t2k_gemm_out out = t2k_gemm_leave(job, 0, job->k);
        job->group->scale(job->m, job->n, job->C, job->ldc, &out);
        break;
    }
    case T2K_ROUTE_LINES:
        t2k_gemm_lines(job);
        break;
    case T2K_ROUTE_DIRECT:
        direct(job);
        break;
    case T2K_ROUTE_STRIPS:
        strips(job, workspace, floats);
        break;
    case T2K_ROUTE_CHOOSE:
    case T2K_ROUTE_BLOCKS:
    case T2K_ROUTE_FUSED:
    case T2K_ROUTE_ROWS:
    case T2K_ROUTE_ROWS_FUSED:
        t2k_gemm_blocks(job, route, workspace);
        break;
    }
}

t2k_gemm_job t2k_gemm_part(const t2k_gemm_job *job, size_t item, size_t i0, size_t i1, size_t j0,
                           size_t j1)
{
    t2k_gemm_job part = *job;
    part.m = i1 - i0;
    part.n = j1 - j0;
    part.C = t2k_gemm_c_at(job, i0, j0) + item * job->stride_c;
    if (job->k > 0 && job->alpha != 0.0f) {
        part.A += item * job->stride_a + i0 * job->a_m;
        if (job->panels != NULL) {
            part.panels += j0 / job->group->nr * job->b_panel;
        } else {
            part.B += item * job->stride_b + j0 * job->b_n;
        }
    }
    part.bias = job->bias != NULL ? job->bias + j0 : NULL;
    part.scale = job->scale != NULL ? job->scale + j0 : NULL;
    part.scale_rows = job->scale_rows != NULL ? job->scale_rows + i0 : NULL;
    if (job->residual != NULL) {
        part.residual += item * job->stride_residual + i0 * job->ldr + j0;
    }
    return part;
}

/* Copies rows of `count` floats; by whole lines, since a call for each row is dear. */
static void copy_rows(size_t rows, size_t count, const float *from, size_t stride, float *to)
{
    enum { LINE = 16 };
    for (size_t i = 0; i < rows; i++, from += stride, to += count) {
        size_t p = 0;
        for (; p + LINE <= count; p += LINE) {
            memcpy(to + p, from + p, LINE * sizeof *to);
        }
        for (; p < count; p++) {
            to[p] = from[p];
        }
    }
}

/* Items of one chunk of k, B in place or in one panel: what is the same for all is set up once. */
static void small_items(const t2k_gemm_job *job, int in_place, size_t first, size_t last,
                        float *workspace, size_t floats)
{
    t2k_gemm_group *g = job->group;
    const size_t b_k = in_place ? job->b_k : g->nr, panel_floats = in_place ? 0 : g->nr * job->k;
    float *panel = workspace, *rows = workspace + panel_floats;
    /* More rows than a set of L1 has ways would be read from L2 at each step of k. */
    const int copy = job->a_k == 1 && job->a_m % BAD_STRIDE == 0 && job->m > L1_WAYS / 2 &&
                     panel_floats + job->m * job->k <= floats;
    t2k_gemm_out out = t2k_gemm_leave(job, 0, job->k);
    for (size_t item = first; item < last; item++) {
        const float *a = job->A + item * job->stride_a, *b = job->B + item * job->stride_b;
        if (copy) {
            copy_rows(job->m, job->k, a, job->a_m, rows);
            a = rows;
        }
        if (!in_place) {
            g->pack_b(job->n, job->k, b, job->b_k, job->b_n, job->s_b, panel, g->nr * job->k);
            b = panel;
        }
        if (job->residual != NULL) {
            out.residual = job->residual + item * job->stride_residual;
        }
        g->strip(job->m, job->n, job->k, a, copy ? job->k : job->a_m, job->a_k, b, b_k, g->nr,
                 !in_place, job->C + item * job->stride_c, job->ldc, &out);
    }
}

void t2k_gemm_items(const t2k_gemm_job *job, t2k_gemm_route route, size_t first, size_t last,
                    float *workspace, size_t floats)
{
    if (job->k <= T2K_CHUNK_K &&
        (route == T2K_ROUTE_DIRECT ||
         (route == T2K_ROUTE_STRIPS && job->panels == NULL && job->n <= job->group->nr))) {
        small_items(job, route == T2K_ROUTE_DIRECT, first, last, workspace, floats);
        return;
    }
    if (last - first == 1 && job->batch == 1) {
        serial(job, route, workspace, floats);
        return;
    }
    for (size_t item = first; item < last; item++) {
        const t2k_gemm_job part = t2k_gemm_part(job, item, 0, job->m, 0, job->n);
        serial(&part, route, workspace, floats);
    }
}

/* Nonzero when one thread gets by with the stack. */
static int fits_stack(const t2k_gemm_job *job, t2k_gemm_route route)
{
    switch (route) {
    case T2K_ROUTE_SCALE:
    case T2K_ROUTE_LINES:
    case T2K_ROUTE_DIRECT:
        return 1;
    case T2K_ROUTE_STRIPS:
        return job->panels != NULL ||
               t2k_least(job->k, T2K_CHUNK_K) * job->group->nr <= T2K_STACK_FLOATS;
    default:
        return 0;
    }
}

static void team_body(t2k_team *team, void *arg)
{
    t2k_gemm_team(team, arg);
}

/* One thread, nothing packed that does not fit the stack: no allocation, no team. */
static void run_alone(const t2k_gemm_job *job, t2k_gemm_route route)
{
    float workspace[T2K_STACK_FLOATS] __attribute__((aligned(T2K_ALIGN)));
    const t2k_fpenv fpenv = t2k_fpenv_enter();
    t2k_gemm_items(job, route, 0, job->batch, workspace, T2K_STACK_FLOATS);
    t2k_fpenv_leave(fpenv);
}

double t2k_gemm_work(const t2k_gemm_job *job)
{
    /* About a nanosecond per 50 multiply-adds, per 20 elements of A, 8 of C, 4 of B. */
    const double m = (double)job->m, n = (double)job->n, k = (double)job->k;
    const double work =
        (m * n * k * 0.02 + m * k * 0.05 + m * n * 0.125 + k * n * 0.25) * (double)job->batch;
    return job->tiles != NULL ? work / 4.0 : work;
}

t2k_status t2k_gemm_run(t2k_gemm_job *job)
{
    if (job->m == 0 || job->n == 0 || job->batch == 0) {
        return T2K_OK;
    }
    const double work = t2k_gemm_work(job);
    const int threads = work < T2K_ALONE_NS ? 1 : t2k_threads_for_work(work);
    if (job->tiles != NULL) {
        return t2k_parallel_team(threads, 1, team_body, job);
    }
    if (threads > 1 || job->dots != NULL) {
        return t2k_parallel_team(threads, threads > 1, team_body, job);
    }
    const t2k_gemm_route route = t2k_gemm_choose(job);
    if (!fits_stack(job, route)) {
        return t2k_parallel_team(1, 1, team_body, job);
    }
    run_alone(job, route);
    return T2K_OK;
}
