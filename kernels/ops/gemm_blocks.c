/* Products from packed operands. A is packed in blocks that stay in L2, or its rows are read in
 * place; B is packed panel by panel just before use, each panel kept for the further blocks of A
 * where there are any, by a pass of its own or, where its rows are contiguous, by the first kernel
 * that multiplies it. */
#include "ops/gemm_parts.h"

#include <stdatomic.h>
#include <unistd.h>

#define L2_SHARE 5 / 8  /* of L2 for A: 320 rows by 256 of k in 512 KB */
#define MOST_ROWS 1024  /* of a block, whatever k is */
#define LARGE_COLS 1024 /* of C, 4 KB a row */

/* 0 where the system does not tell. */
static size_t l2_bytes(void)
{
    static _Atomic long known = -1;
    long bytes = atomic_load_explicit(&known, memory_order_relaxed);
    if (bytes < 0) {
        bytes = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
        bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
        bytes = bytes > 0 ? bytes : 0;
#endif
        atomic_store_explicit(&known, bytes, memory_order_relaxed);
    }
    return (size_t)bytes;
}

/* Rows of a block with `depth` steps of k. */
static size_t block_rows(const t2k_gemm_job *job, size_t depth)
{
    const size_t mr = job->group->mr;
    if (job->mc > 0) {
        return t2k_round_up(job->mc, mr);
    }
    size_t rows = l2_bytes() * L2_SHARE / (depth * sizeof(float));
    if (rows == 0) {
        rows = job->group->mc * T2K_CHUNK_K / depth;
    }
    rows = t2k_least(rows, (T2K_ROOM_A - T2K_PACK_SLACK) / t2k_gemm_row_floats(depth)) / mr * mr;
    rows = t2k_least(rows, MOST_ROWS / mr * mr);
    return rows > mr ? rows : mr;
}

size_t t2k_gemm_depth(const t2k_gemm_job *job)
{
    /* A second chunk spares memory one of two visits to C, where C is large. */
    const size_t chunk = t2k_least(job->k, T2K_CHUNK_K);
    const size_t cols = job->nc > 0 ? job->nc : LARGE_COLS;
    const int large = job->n >= cols && job->m > block_rows(job, chunk);
    return large ? t2k_least(job->k, T2K_VISIT_K) : chunk;
}

size_t t2k_gemm_block_rows(const t2k_gemm_job *job)
{
    return block_rows(job, t2k_gemm_depth(job));
}

size_t t2k_gemm_kept_cols(const t2k_gemm_job *job)
{
    size_t most = T2K_ROOM_B / t2k_gemm_depth(job);
    if (job->nc > 0) {
        most = t2k_least(most, job->nc);
    }
    const size_t group = t2k_gemm_pack_cols(job);
    most = most > group ? most / group * group : group;
    const size_t blocks = (job->n + most - 1) / most;
    return t2k_round_up((job->n + blocks - 1) / blocks, group);
}

/* Where the second chunk of a group of A lies. */
static size_t a_chunk(const t2k_gemm_visit *v)
{
    return t2k_round_up(t2k_least(v->group_rows, v->rows), v->job->group->mr) *
           T2K_ROW_STRIDE(T2K_CHUNK_K);
}

void t2k_gemm_visit_pack_a(const t2k_gemm_visit *v, size_t first)
{
    const t2k_gemm_job *job = v->job;
    if (v->placed) {
        return;
    }
    const size_t rows = t2k_least(v->rows - first, v->group_rows);
    float *a = v->a + first / v->group_rows * v->a_group;
    for (size_t q = 0; q < v->depth; q += T2K_CHUNK_K) {
        const size_t p = v->p + q, kc = t2k_least(v->depth - q, T2K_CHUNK_K);
        job->group->pack_a(rows, kc, job->A + (v->i + first) * job->a_m + p * job->a_k, job->a_m,
                           job->a_k, job->s_a != NULL ? job->s_a + p : NULL,
                           a + q / T2K_CHUNK_K * a_chunk(v));
    }
}

/* One chunk of a group of columns. */
static void pack_b(const t2k_gemm_visit *v, size_t j, size_t cols, size_t q, size_t kc, float *to)
{
    const t2k_gemm_job *job = v->job;
    const size_t p = v->p + q;
    job->group->pack_b(cols, kc, job->B + p * job->b_k + (v->j + j) * job->b_n, job->b_k, job->b_n,
                       job->s_b != NULL ? job->s_b + p : NULL, to, job->group->nr * kc);
}

void t2k_gemm_visit_pack_b(const t2k_gemm_visit *v, size_t first)
{
    const size_t cols = t2k_least(v->cols - first, v->group_cols);
    float *to = v->b + first * v->b_step;
    for (size_t q = 0; q < v->depth; q += T2K_CHUNK_K) {
        const size_t kc = t2k_least(v->depth - q, T2K_CHUNK_K);
        pack_b(v, first, cols, q, kc, to + q * t2k_round_up(cols, v->job->group->nr));
    }
}

/* One chunk of k: all groups of rows by `cols` columns from j on, whose panels are b; to: where the
 * first kernel packs them, or NULL. */
static void multiply(const t2k_gemm_visit *v, size_t j, size_t cols, size_t q, size_t kc,
                     const float *b, size_t b_panel, float *to)
{
    const t2k_gemm_job *job = v->job;
    t2k_gemm_group *g = job->group;
    const t2k_gemm_out whole = t2k_gemm_leave(job, v->p + q, kc);
    const float *a = v->a + q / T2K_CHUNK_K * a_chunk(v);
    for (size_t i = 0; i < v->rows; i += v->group_rows, a += v->a_group) {
        const size_t rows = t2k_least(v->rows - i, v->group_rows);
        const t2k_gemm_out out = t2k_gemm_out_at(&whole, v->i + i, v->j + j);
        float *C = t2k_gemm_c_at(job, v->i + i, v->j + j);
        const float *A = a;
        size_t a_m = 0, a_k = 0;
        if (v->placed) {
            A = job->A + (v->i + i) * job->a_m + (v->p + q) * job->a_k;
            a_m = job->a_m;
            a_k = job->a_k;
        } else if (job->a_k == 1) {
            a_m = T2K_ROW_STRIDE(kc);
            a_k = 1;
        }
        if (to != NULL && i == 0) {
            const float *from = job->B + (v->p + q) * job->b_k + v->j + j;
            const float *next = j + 2 * g->nr <= v->cols ? from + g->nr : NULL;
            g->fuse(rows, kc, A, a_m, a_k, from, job->b_k, next, to, C, job->ldc, &out);
        } else {
            g->block(rows, cols, kc, A, a_m, a_k, b, b_panel, C, job->ldc, &out);
        }
    }
}

void t2k_gemm_visit_run(const t2k_gemm_visit *v)
{
    const t2k_gemm_job *job = v->job;
    const size_t nr = job->group->nr;
    const int fused = !v->ready && job->panels == NULL && v->group_cols == nr && v->fused;
    for (size_t j = 0, cols; j < v->cols; j += cols) {
        cols = t2k_least(v->cols - j, v->group_cols);
        const int fuse = fused && cols == nr;
        for (size_t q = 0; q < v->depth; q += T2K_CHUNK_K) {
            const size_t kc = t2k_least(v->depth - q, T2K_CHUNK_K);
            if (job->panels != NULL) {
                const float *b = job->panels + (v->j + j) / nr * job->b_panel + (v->p + q) * nr;
                multiply(v, j, cols, q, kc, b, job->b_panel, NULL);
                continue;
            }
            float *b = v->b + j * v->b_step + q * t2k_round_up(cols, nr);
            if (!fuse && !v->ready) {
                pack_b(v, j, cols, q, kc, b);
            }
            multiply(v, j, cols, q, kc, b, nr * kc, fuse ? b : NULL);
        }
    }
}

void t2k_gemm_blocks(const t2k_gemm_job *job, t2k_gemm_route route, float *workspace)
{
    const int fused = t2k_gemm_fused(route);
    const size_t most = t2k_gemm_block_rows(job), blocks = (job->m + most - 1) / most;
    const size_t row_step = t2k_round_up((job->m + blocks - 1) / blocks, job->group->mr);
    const size_t depth = t2k_gemm_depth(job);
    const int keep = blocks > 1 && job->panels == NULL;
    const size_t col_step = keep ? t2k_gemm_kept_cols(job) : job->n;
    t2k_gemm_visit v = {.job = job,
                        .group_rows = row_step,
                        .group_cols = fused ? job->group->nr : t2k_gemm_pack_cols(job),
                        .fused = fused,
                        .placed = t2k_gemm_placed(route),
                        .a = workspace,
                        .b = workspace + T2K_ROOM_A,
                        .b_step = keep ? depth : 0};
    for (v.j = 0; v.j < job->n; v.j += col_step) {
        v.cols = t2k_least(job->n - v.j, col_step);
        for (v.p = 0; v.p < job->k; v.p += depth) {
            v.depth = t2k_least(job->k - v.p, depth);
            for (v.i = 0; v.i < job->m; v.i += row_step) {
                v.rows = t2k_least(job->m - v.i, row_step);
                v.ready = v.i > 0;
                t2k_gemm_visit_pack_a(&v, 0);
                t2k_gemm_visit_run(&v);
            }
        }
    }
}
