/* The product on a matrix unit (t2k_gemm_tiles). k is cut into the unit's chunks, whose sums stay
 * in tiles and leave as those of class strict do. One thread takes a rectangle of C: per chunk a
 * block of A's panels is packed, and each panel of B, packed just before use or once, meets all of
 * them. Panels begin at multiples of T2K_TILE_LINES of the whole product, so that the number of
 * threads changes no result. */
#include "ops/gemm_class.h"

#define SUMS (T2K_TILE_LINES * T2K_TILE_LINES)
#define A_BYTES ((size_t)1 << 20) /* of packed A: half of the 2 MB of L2 that these CPUs have */
#define SLACK ((size_t)16)        /* floats behind the sums that t2k_gemm_finish_fn may read */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t panels_of(size_t lines)
{
    return (lines + T2K_TILE_LINES - 1) / T2K_TILE_LINES;
}

size_t t2k_tiles_column_bytes(t2k_gemm_tiles *tiles, size_t k)
{
    const size_t whole = k / tiles->chunk_k, rest = k % tiles->chunk_k;
    return whole * T2K_TILE_PANEL(tiles->parts, tiles->chunk_k) +
           (rest > 0 ? T2K_TILE_PANEL(tiles->parts, rest) : 0);
}

void t2k_tiles_pack_columns(const t2k_gemm_job *job, size_t first, size_t last, unsigned char *blob)
{
    t2k_gemm_tiles *tiles = job->tiles;
    for (size_t t = first; t < last; t++) {
        unsigned char *panel = blob + t * t2k_tiles_column_bytes(tiles, job->k);
        const size_t j = t * T2K_TILE_LINES;
        for (size_t p = 0, kc; p < job->k; p += kc) {
            kc = least(job->k - p, tiles->chunk_k);
            tiles->pack_b(least(job->n - j, T2K_TILE_LINES), kc,
                          job->B + p * job->b_k + j * job->b_n, job->b_n, job->b_k, panel);
            panel += T2K_TILE_PANEL(tiles->parts, kc);
        }
    }
}

/* A thread's rectangle of C, in lines, and its workspace. */
typedef struct part {
    const t2k_gemm_job *job;
    t2k_gemm_finish_fn *finish;
    size_t i0, i1, j0, j1;
    float *sums, *space;
    unsigned char *a, *b;
    size_t a_panels, b_panels; /* how many there is room for */
} part;

/* A panel of A times a panel of B, and the way out. */
static void multiply(const part *w, size_t i, size_t j, size_t p, size_t kc, const unsigned char *a,
                     const unsigned char *b)
{
    const t2k_gemm_job *job = w->job;
    const size_t m = least(w->i1 - i, T2K_TILE_LINES), n = least(w->j1 - j, T2K_TILE_LINES);
    const t2k_gemm_out whole = t2k_gemm_leave(job, p, kc);
    float *C = job->C + i * job->ldc + j;
    if (whole.mode == T2K_GEMM_STORE && m % 16 == 0 && n % 16 == 0) {
        job->tiles->product(m, n, kc, a, b, C, job->ldc, w->space);
        return;
    }
    job->tiles->product(m, n, kc, a, b, w->sums, T2K_TILE_LINES, w->space);
    const t2k_gemm_out out = t2k_gemm_out_at(&whole, i, j);
    w->finish(w->sums, T2K_TILE_LINES, m, n, C, job->ldc, &out);
}

/* Columns j0 .. j1 - 1 of one chunk of k, all rows of the part. */
static void chunk(const part *w, size_t p, size_t kc, size_t j0, size_t j1)
{
    const t2k_gemm_job *job = w->job;
    t2k_gemm_tiles *tiles = job->tiles;
    const size_t bytes = T2K_TILE_PANEL(tiles->parts, kc);
    const size_t rows = w->a_panels * T2K_TILE_LINES;
    const int one_block = w->i1 - w->i0 <= rows;
    for (size_t i0 = w->i0; i0 < w->i1; i0 += rows) {
        const size_t i1 = least(w->i1, i0 + rows);
        for (size_t i = i0; i < i1; i += T2K_TILE_LINES) {
            tiles->pack_a(least(i1 - i, T2K_TILE_LINES), kc, job->A + i * job->a_m + p * job->a_k,
                          job->a_m, job->a_k, w->a + (i - i0) / T2K_TILE_LINES * bytes);
        }
        for (size_t j = j0; j < j1; j += T2K_TILE_LINES) {
            const unsigned char *b;
            if (job->tile_panels != NULL) {
                b = job->tile_panels + j / T2K_TILE_LINES * t2k_tiles_column_bytes(tiles, job->k) +
                    t2k_tiles_column_bytes(tiles, p);
            } else {
                unsigned char *to = w->b + (one_block ? 0 : (j - j0) / T2K_TILE_LINES * bytes);
                if (i0 == w->i0) {
                    tiles->pack_b(least(j1 - j, T2K_TILE_LINES), kc,
                                  job->B + p * job->b_k + j * job->b_n, job->b_n, job->b_k, to);
                }
                b = to;
            }
            for (size_t i = i0; i < i1; i += T2K_TILE_LINES) {
                multiply(w, i, j, p, kc, w->a + (i - i0) / T2K_TILE_LINES * bytes, b);
            }
        }
    }
}

static void run_part(part *w, unsigned char *workspace)
{
    const t2k_gemm_job *job = w->job;
    const size_t kc = least(job->k, job->tiles->chunk_k);
    const size_t space = 2 * T2K_TILE_LINES * kc * sizeof(float);
    const size_t bytes = T2K_TILE_PANEL(job->tiles->parts, kc);
    const size_t fixed = (SUMS + SLACK) * sizeof(float) + space;
    const size_t room = (T2K_WORKSPACE_BYTES - fixed) / bytes;
    w->sums = (float *)(void *)workspace;
    w->space = w->sums + SUMS + SLACK;
    w->a = workspace + fixed;
    const size_t rows = panels_of(w->i1 - w->i0);
    w->a_panels = least(rows, A_BYTES / bytes);
    w->b = w->a + w->a_panels * bytes;
    w->b_panels = room - w->a_panels;
    const int one_block = rows <= w->a_panels;
    const size_t step =
        job->tile_panels != NULL || one_block ? w->j1 - w->j0 : w->b_panels * T2K_TILE_LINES;
    for (size_t j = w->j0; j < w->j1; j += step) {
        for (size_t p = 0, k; p < job->k; p += k) {
            k = least(job->k - p, job->tiles->chunk_k);
            chunk(w, p, k, j, least(w->j1, j + step));
        }
    }
}

/* Into how many parts the rows are cut for `size` threads, columns into size / rows: the largest
 * part shall be cheap, at 20 multiply-adds for each number that is packed. */
static size_t row_parts(const t2k_gemm_job *job, size_t size)
{
    size_t best = 1;
    double best_cost = 0.0;
    for (size_t parts = 1; parts <= size; parts++) {
        const double down = (double)((panels_of(job->m) + parts - 1) / parts);
        const size_t across = size / parts;
        const double right = (double)((panels_of(job->n) + across - 1) / across);
        const double cost =
            down * right * T2K_TILE_LINES + 20.0 * (down + (job->tile_panels != NULL ? 0 : right));
        if (parts == 1 || cost < best_cost) {
            best = parts;
            best_cost = cost;
        }
    }
    return best;
}

void t2k_gemm_tiles_team(t2k_team *team, const t2k_gemm_job *job)
{
    const size_t size = (size_t)t2k_team_size(team), rank = (size_t)t2k_team_rank(team);
    const size_t down = row_parts(job, size), across = size / down;
    if (rank < down * across) {
        part w = {.job = job, .finish = t2k_table_get()->gemm_finish};
        t2k_share(job->m, T2K_TILE_LINES, down, rank / across, &w.i0, &w.i1);
        t2k_share(job->n, T2K_TILE_LINES, across, rank % across, &w.j0, &w.j1);
        if (w.i0 < w.i1 && w.j0 < w.j1) {
            job->tiles->open();
            run_part(&w, t2k_team_workspace(team));
            job->tiles->close();
        }
    }
    t2k_team_barrier(team);
}
