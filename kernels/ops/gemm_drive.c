/* The blocked matrix product. k is cut into chunks of T2K_CHUNK_K; each chunk's sums go into C
 * before the next chunk starts, so no blocking here can change a bit. One thread takes a rectangle
 * of C by one of these ways:
 *   scale    no product (alpha = 0 or k = 0)
 *   direct   A and B in place: B is read once, or both are small
 *   strips   A in place, B in panels (packed once, or just before use): few rows
 *   blocks   A packed in blocks that stay in L2; B panel by panel just before use, each panel
 *            kept for the further blocks of A where there are any */
#include "ops/gemm.h"

#define PACK_COLS 64       /* columns of B packed at a time: whole lines of its rows, few pages */
#define SMALL_FLOATS 65536 /* a chunk of an operand up to 256 KB is read in place: it fits L2 */
#define BAD_STRIDE 512     /* unless its lines fall on few cache sets: strides of k * 2 KB */
#define STACK_FLOATS 3072  /* workspace of products that are not worth an allocation: 12 KB */
#define SLACK 16           /* floats that packing A may write behind its panels */

_Static_assert(PACK_COLS *T2K_CHUNK_K * sizeof(float) <= T2K_WORKSPACE_BYTES, "too small");

typedef enum route { SCALE, DIRECT, STRIPS, BLOCKS } route;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t round_up(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

/* Nonzero where `lines` rows or columns by kc, `stride` apart, stay in cache as they are. */
static int small(size_t lines, size_t kc, size_t stride)
{
    return lines * kc <= SMALL_FLOATS &&
           (stride % BAD_STRIDE != 0 || lines * kc <= SMALL_FLOATS / 8);
}

static route choose(const t2k_gemm_job *job)
{
    t2k_gemm_group *g = job->group;
    if (job->alpha == 0.0f || job->k == 0) {
        return SCALE;
    }
    const size_t kc = least(job->k, T2K_CHUNK_K);
    const int small_a = small(job->m, kc, job->a_m == 1 ? job->a_k : job->a_m);
    if (job->s_a != NULL || (job->m > g->few && job->n > g->nr && !small_a)) {
        return BLOCKS;
    }
    if (job->panels == NULL && job->b_n == 1 && job->s_b == NULL && job->n % g->direct_step == 0 &&
        (job->m <= g->mr || (job->m <= g->few && job->b_k % BAD_STRIDE != 0) ||
         small(job->n, kc, job->b_k))) {
        return DIRECT;
    }
    return job->m <= g->few || job->n <= g->nr || job->panels == NULL ? STRIPS : BLOCKS;
}

/* How the sums of the chunk of k that starts at p leave, for the job's whole C. */
static t2k_gemm_out leave(const t2k_gemm_job *job, size_t p, size_t kc)
{
    const int first = p == 0, last = p + kc == job->k;
    const int epilogue =
        job->bias != NULL || job->scale != NULL || job->residual != NULL || job->relu;
    t2k_gemm_out out = {
        T2K_GEMM_GENERAL, job->alpha, job->beta, first, last, 0, NULL, NULL, NULL, 0};
    if (last) {
        out.relu = job->relu;
        out.bias = job->bias;
        out.scale = job->scale;
        out.residual = job->residual;
        out.ldr = job->ldr;
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
        kc = least(job->k - p, T2K_CHUNK_K);
        const t2k_gemm_out out = leave(job, p, kc);
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
    const size_t rows = least(job->m, sizeof g->strip_panels - 1);
    size_t step = (g->strip_panels[rows] > 0 ? g->strip_panels[rows] : 1) * nr;
    if (job->panels == NULL) {
        const size_t fit = floats / least(job->k, T2K_CHUNK_K) / nr * nr;
        step = step > PACK_COLS ? step : PACK_COLS;
        step = least(step, fit);
    } else if (job->k <= T2K_CHUNK_K) {
        step = job->n;
    }
    for (size_t j = 0; j < job->n; j += step) {
        const size_t cols = least(job->n - j, step);
        for (size_t p = 0, kc; p < job->k; p += kc) {
            kc = least(job->k - p, T2K_CHUNK_K);
            const float *b = workspace;
            size_t b_panel = nr * kc;
            if (job->panels != NULL) {
                b = job->panels + j / nr * job->b_panel + p * nr;
                b_panel = job->b_panel;
            } else {
                g->pack_b(cols, kc, job->B + p * job->b_k + j * job->b_n, job->b_k, job->b_n,
                          job->s_b != NULL ? job->s_b + p : NULL, workspace, b_panel);
            }
            const t2k_gemm_out whole = leave(job, p, kc);
            const t2k_gemm_out out = t2k_gemm_out_at(&whole, 0, j);
            g->strip(job->m, cols, kc, job->A + p * job->a_k, job->a_m, job->a_k, b, nr, b_panel, 1,
                     job->C + j, job->ldc, &out);
        }
    }
}

/* One chunk of k, columns j0 .. j0 + cols - 1, all blocks of rows. */
static void chunk_of_blocks(const t2k_gemm_job *job, size_t p, size_t kc, size_t j0, size_t cols,
                            float *workspace)
{
    t2k_gemm_group *g = job->group;
    const size_t blocks = (job->m + g->mc - 1) / g->mc;
    const size_t row_step = round_up((job->m + blocks - 1) / blocks, g->mr);
    const t2k_gemm_out whole = leave(job, p, kc);
    float *a = workspace;
    float *kept = workspace + round_up(g->mc * T2K_CHUNK_K + SLACK, SLACK);
    for (size_t i = 0; i < job->m; i += row_step) {
        const size_t rows = least(job->m - i, row_step);
        g->pack_a(rows, kc, job->A + i * job->a_m + p * job->a_k, job->a_m, job->a_k,
                  job->s_a != NULL ? job->s_a + p : NULL, a);
        for (size_t j = 0; j < cols; j += PACK_COLS) {
            const size_t here = least(cols - j, PACK_COLS);
            const float *b;
            size_t b_panel = g->nr * kc;
            if (job->panels != NULL) {
                b = job->panels + (j0 + j) / g->nr * job->b_panel + p * g->nr;
                b_panel = job->b_panel;
            } else {
                float *to = blocks == 1 ? kept : kept + j * kc;
                if (i == 0) {
                    g->pack_b(here, kc, job->B + p * job->b_k + (j0 + j) * job->b_n, job->b_k,
                              job->b_n, job->s_b != NULL ? job->s_b + p : NULL, to, b_panel);
                }
                b = to;
            }
            const t2k_gemm_out out = t2k_gemm_out_at(&whole, i, j0 + j);
            g->block(rows, here, kc, a, b, b_panel, job->C + i * job->ldc + j0 + j, job->ldc, &out);
        }
    }
}

static void blocks(const t2k_gemm_job *job, float *workspace)
{
    t2k_gemm_group *g = job->group;
    const size_t step = job->panels != NULL || job->m <= g->mc ? job->n : g->nc;
    for (size_t j = 0; j < job->n; j += step) {
        for (size_t p = 0, kc; p < job->k; p += kc) {
            kc = least(job->k - p, T2K_CHUNK_K);
            chunk_of_blocks(job, p, kc, j, least(job->n - j, step), workspace);
        }
    }
}

static void by_route(const t2k_gemm_job *job, float *workspace, size_t floats)
{
    if (job->m == 0 || job->n == 0) {
        return;
    }
    switch (choose(job)) {
    case SCALE: {
        const t2k_gemm_out out = leave(job, 0, job->k);
        job->group->scale(job->m, job->n, job->C, job->ldc, &out);
        break;
    }
    case DIRECT:
        direct(job);
        break;
    case STRIPS:
        strips(job, workspace, floats);
        break;
    case BLOCKS:
        blocks(job, workspace);
        break;
    }
}

/* Item `item` of the batch, rows [i0, i1), columns [j0, j1); j0 is a multiple of nr. */
static t2k_gemm_job part_of(const t2k_gemm_job *job, size_t item, size_t i0, size_t i1, size_t j0,
                            size_t j1)
{
    t2k_gemm_job part = *job;
    part.m = i1 - i0;
    part.n = j1 - j0;
    part.C += item * job->stride_c + i0 * job->ldc + j0;
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
    if (job->residual != NULL) {
        part.residual += item * job->stride_residual + i0 * job->ldr + j0;
    }
    return part;
}

/* Into how many parts the rows are cut for `size` threads (the columns: size / rows): the largest
 * rectangle shall be cheap, counting that every thread packs its own operands, at about the time
 * of 16 multiply-adds an element. */
static size_t row_parts(const t2k_gemm_job *job, size_t size)
{
    t2k_gemm_group *g = job->group;
    size_t best = 1;
    double best_cost = 0.0;
    for (size_t parts = 1; parts <= size; parts++) {
        const size_t across = size / parts;
        const size_t rows = round_up((job->m + parts - 1) / parts, g->mr);
        const size_t cols = round_up((job->n + across - 1) / across, g->nr);
        const double r = (double)rows, c = (double)cols;
        const double cost = r * c + 16.0 * (r + (job->panels != NULL ? 0.0 : c));
        if (parts == 1 || cost < best_cost) {
            best = parts;
            best_cost = cost;
        }
    }
    return best;
}

static void stack_part(const t2k_gemm_job *part)
{
    float workspace[STACK_FLOATS] __attribute__((aligned(T2K_ALIGN)));
    by_route(part, workspace, STACK_FLOATS);
}

static void run_part(const t2k_team *team, const t2k_gemm_job *part)
{
    float *workspace = t2k_team_workspace(team);
    if (workspace != NULL) {
        by_route(part, workspace, T2K_WORKSPACE_BYTES / sizeof(float));
    } else {
        stack_part(part);
    }
}

void t2k_gemm_team(t2k_team *team, const t2k_gemm_job *job)
{
    const size_t size = (size_t)t2k_team_size(team), rank = (size_t)t2k_team_rank(team);
    if (size == 1 && job->batch == 1) {
        run_part(team, job);
    } else if (job->batch >= size) {
        size_t first, last;
        t2k_share(job->batch, 1, size, rank, &first, &last);
        for (size_t item = first; item < last; item++) {
            const t2k_gemm_job part = part_of(job, item, 0, job->m, 0, job->n);
            run_part(team, &part);
        }
    } else {
        const size_t down = row_parts(job, size), across = size / down;
        if (rank < down * across) {
            size_t i0, i1, j0, j1;
            t2k_share(job->m, job->group->mr, down, rank / across, &i0, &i1);
            t2k_share(job->n, job->group->nr, across, rank % across, &j0, &j1);
            for (size_t item = 0; item < job->batch; item++) {
                const t2k_gemm_job part = part_of(job, item, i0, i1, j0, j1);
                run_part(team, &part);
            }
        }
    }
    t2k_team_barrier(team);
}

static void body(t2k_team *team, void *arg)
{
    t2k_gemm_team(team, arg);
}

/* Nonzero when one thread gets by with the stack. */
static int fits_stack(const t2k_gemm_job *job)
{
    switch (choose(job)) {
    case SCALE:
    case DIRECT:
        return 1;
    case STRIPS:
        return job->panels != NULL || least(job->k, T2K_CHUNK_K) * job->group->nr <= STACK_FLOATS;
    case BLOCKS:
        break;
    }
    return 0;
}

t2k_status t2k_gemm_run(t2k_gemm_job *job)
{
    if (job->m == 0 || job->n == 0 || job->batch == 0) {
        return T2K_OK;
    }
    /* About a nanosecond per 50 multiply-adds, per 8 elements of C, per 4 of B. */
    const double m = (double)job->m, n = (double)job->n, k = (double)job->k;
    const double work = (m * n * k * 0.02 + m * n * 0.125 + k * n * 0.25) * (double)job->batch;
    const int threads = t2k_threads_for_work(work);
    return t2k_parallel_team(threads, threads > 1 || !fits_stack(job), body, job);
}
