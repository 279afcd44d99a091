/* The parts of the product's driver: gemm_drive.c chooses the way, gemm_blocks.c goes it for packed
 * operands and for A in place, gemm_lines.c for few columns or rows along k, gemm_threads.c shares
 * a product among a team. */
#ifndef T2K_GEMM_PARTS_H
#define T2K_GEMM_PARTS_H

#include "ops/gemm.h"

#define T2K_STACK_FLOATS 3072 /* workspace of products that are not worth an allocation: 12 KB */
#define T2K_PACK_SLACK 16     /* floats that packing A may write behind its panels */
/* A visit to a block of C takes up to two chunks of k: C comes from memory once for both. */
#define T2K_VISIT_K ((size_t)2 * T2K_CHUNK_K)

/* Below this a second thread costs more than it brings, however many are asked for: measured at two
 * threads, 64 cubed (4.7 us on one) takes 5.3 us, a column of 4864 x 40 (12 us) 9 us. */
#define T2K_ALONE_NS 7500.0

/* The workspace of a thread: a block of packed A, then columns of packed B. */
#define T2K_ROOM_A ((size_t)1 << 18) /* floats: 1 MB */
#define T2K_ROOM_B ((size_t)1 << 20) /* floats: 4 MB */

_Static_assert((T2K_ROOM_A + T2K_ROOM_B) * sizeof(float) <= T2K_WORKSPACE_BYTES, "too small");

static inline size_t t2k_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t t2k_round_up(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

/* Steps of k that one visit takes. */
size_t t2k_gemm_depth(const t2k_gemm_job *job);

/* Floats that a row of A takes when it is packed, `depth` steps of k. */
static inline size_t t2k_gemm_row_floats(size_t depth)
{
    return depth / T2K_CHUNK_K * T2K_ROW_STRIDE(T2K_CHUNK_K) + T2K_ROW_STRIDE(depth % T2K_CHUNK_K);
}

/* Columns of B packed at a time, a multiple of nr: whole lines of its rows, few pages. One panel
 * where C has panels too. */
static inline size_t t2k_gemm_pack_cols(const t2k_gemm_job *job)
{
    const size_t nr = job->group->nr;
    return nr < 64 && job->c_panel == 0 ? 64 / nr * nr : nr;
}

/* Rows of a packed block of A, a multiple of mr: the part of L2 that leaves room for B and C. */
size_t t2k_gemm_block_rows(const t2k_gemm_job *job);

/* Columns of B that are kept packed for further blocks of A: n evenly divided, in whole groups. */
size_t t2k_gemm_kept_cols(const t2k_gemm_job *job);

/* One visit: rows x cols of C, `depth` steps of k from p on. A is packed in groups of rows, B in
 * groups of columns. */
typedef struct t2k_gemm_visit {
    const t2k_gemm_job *job;
    size_t p, depth;
    size_t i, rows, j, cols;
    size_t group_rows; /* a multiple of mr; the last group has what is left */
    float *a;
    size_t a_group;    /* floats from one group of A to the next */
    size_t group_cols; /* a multiple of nr */
    float *b;
    size_t b_step; /* floats of b per column of a group, depth where groups are kept, else 0 */
    int ready;     /* b is packed */
    int fused;     /* b is packed by the kernel that multiplies it first */
    int placed;    /* A is read in place, not from a */
} t2k_gemm_visit;

/* Packs the group of rows that starts `first` rows below v->i. */
void t2k_gemm_visit_pack_a(const t2k_gemm_visit *v, size_t first);

/* Packs the group of columns that starts `first` right of v->j. */
void t2k_gemm_visit_pack_b(const t2k_gemm_visit *v, size_t first);

/* Multiplies; packs B group by group where it is not ready. A is packed, or read in place. */
void t2k_gemm_visit_run(const t2k_gemm_visit *v);

/* Floats of a group of packed A with `rows` rows. */
static inline size_t t2k_gemm_group_floats(const t2k_gemm_job *job, size_t rows)
{
    const size_t floats =
        t2k_round_up(rows, job->group->mr) * t2k_gemm_row_floats(t2k_gemm_depth(job));
    return t2k_round_up(floats + T2K_PACK_SLACK, T2K_PACK_SLACK);
}

/* What T2K_ROUTE_BLOCKS and the routes behind it differ in. */
static inline int t2k_gemm_fused(t2k_gemm_route route)
{
    return route == T2K_ROUTE_FUSED || route == T2K_ROUTE_ROWS_FUSED;
}

static inline int t2k_gemm_placed(t2k_gemm_route route)
{
    return route >= T2K_ROUTE_ROWS;
}

/* The whole job (a batch of one) on one thread by such a route. */
void t2k_gemm_blocks(const t2k_gemm_job *job, t2k_gemm_route route, float *workspace);

/* Nonzero where few columns of C come from rows of A, or few rows from those of unpacked B. */
int t2k_gemm_has_lines(const t2k_gemm_job *job);

/* Goes that way, with a batch of one. */
void t2k_gemm_lines(const t2k_gemm_job *job);

/* The way of a job: the one it asks for where that is possible, else by the rule. */
t2k_gemm_route t2k_gemm_choose(const t2k_gemm_job *job);

/* About the nanoseconds of a job on one thread. */
double t2k_gemm_work(const t2k_gemm_job *job);

/* Items [first, last) of a batch on one thread by the chosen way; workspace: `floats`, as many as
 * it needs. */
void t2k_gemm_items(const t2k_gemm_job *job, t2k_gemm_route route, size_t first, size_t last,
                    float *workspace, size_t floats);

/* Item `item` of the batch, rows [i0, i1), columns [j0, j1); j0 is a multiple of nr. */
t2k_gemm_job t2k_gemm_part(const t2k_gemm_job *job, size_t item, size_t i0, size_t i1, size_t j0,
                           size_t j1);

#endif
