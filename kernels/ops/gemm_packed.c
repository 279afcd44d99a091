/* Weights packed once: a header, then panels [n / nr][k][nr], columns beyond n being +0, or those
 * of a matrix unit (gemm_tiles.c); a single column is k numbers, which are an operand in place. The
 * blob belongs to one class of numerics and one layout of panels: an ISA with another one refuses
 * it. */
#include "ops/gemm_class.h"

#include <string.h>

#define MAGIC UINT64_C(0x62326b7032743032) /* changes when the layout does */

typedef struct header {
    uint64_t magic;
    uint64_t nr;
    uint64_t k;
    uint64_t n;
    uint64_t numerics;  /* t2k_numerics */
    uint64_t unit;      /* a matrix unit's parts and steps of k per chunk; 0: panels of floats */
    uint64_t unused[2]; /* the panels begin at a multiple of T2K_ALIGN */
} header;

_Static_assert(sizeof(header) == T2K_ALIGN, "the panels follow the header");

/* One column has no panels, but for rounded operands, which kernels meet in no other form. */
static int is_column(const t2k_gemm_tiles *tiles, t2k_numerics numerics, int64_t n)
{
    return tiles == NULL && numerics != T2K_BF16 && n == 1;
}

/* Columns of a panel. */
static size_t panel_cols(const t2k_table *table, const t2k_gemm_tiles *tiles, t2k_numerics numerics,
                         int64_t n)
{
    return tiles != NULL                   ? T2K_TILE_LINES
           : is_column(tiles, numerics, n) ? 1
                                           : table->gemm_strict->nr;
}

/* What a blob of this class has in its header here. */
static header header_of(const t2k_table *table, t2k_numerics numerics, int64_t k, int64_t n)
{
    t2k_gemm_tiles *tiles = t2k_gemm_tiles_of(table, numerics);
    header head = {.magic = MAGIC, .k = (uint64_t)k, .n = (uint64_t)n};
    head.nr = panel_cols(table, tiles, numerics, n);
    head.numerics = (uint64_t)numerics;
    if (tiles != NULL) {
        head.unit = (uint64_t)tiles->parts << 32 | tiles->chunk_k;
    }
    return head;
}

/* Bytes of the blob; 0 when there is no such blob. */
static size_t blob_bytes(const t2k_table *table, t2k_numerics numerics, int64_t k, int64_t n)
{
    size_t column, bytes;
    if (table == NULL || t2k_gemm_bad_class(numerics) || k < 0 || n < 0 ||
        k > PTRDIFF_MAX / 1024) { /* a panel's bytes stay far below overflow */
        return 0;
    }
    t2k_gemm_tiles *tiles = t2k_gemm_tiles_of(table, numerics);
    const size_t nr = panel_cols(table, tiles, numerics, n);
    column =
        tiles != NULL ? t2k_tiles_column_bytes(tiles, (size_t)k) : nr * (size_t)k * sizeof(float);
    if (t2k_mul_overflow(((size_t)n + nr - 1) / nr, column, &bytes) ||
        bytes > PTRDIFF_MAX - sizeof(header)) {
        return 0;
    }
    return bytes + sizeof(header);
}

size_t t2k_packed_b_bytes(int64_t k, int64_t n)
{
    return t2k_packed_b_bytes_class(T2K_STRICT, k, n);
}

size_t t2k_packed_b_bytes_class(t2k_numerics numerics, int64_t k, int64_t n)
{
    return blob_bytes(t2k_table_get(), numerics, k, n);
}

typedef struct packing {
    const t2k_gemm_job *job;
    float *panels;
} packing;

static void pack_body(t2k_team *team, void *arg)
{
    const packing *work = arg;
    const t2k_gemm_job *job = work->job;
    const size_t nr = job->group->nr;
    size_t first, last;
    if (job->tiles != NULL) {
        t2k_team_share(team, (job->n + T2K_TILE_LINES - 1) / T2K_TILE_LINES, 1, &first, &last);
        t2k_tiles_pack_columns(job, first, last, (unsigned char *)work->panels);
        return;
    }
    t2k_team_share(team, job->n, nr, &first, &last);
    for (size_t j = first; j < last; j += nr) {
        const size_t cols = last - j < nr ? last - j : nr;
        float *panel = work->panels + j * job->k; /* j is a multiple of nr */
        if (cols < nr) { /* what no product reads has a value all the same */
            memset(panel, 0, nr * job->k * sizeof *panel);
        }
        for (size_t p = 0; p < job->k; p += T2K_CHUNK_K) {
            const size_t kc = job->k - p < T2K_CHUNK_K ? job->k - p : T2K_CHUNK_K;
            job->group->pack_b(cols, kc, job->B + p * job->b_k + j * job->b_n, job->b_k, job->b_n,
                               NULL, panel + p * nr, 0);
        }
    }
}

static t2k_status pack_panels(const t2k_gemm_job *job, float *panels)
{
    if (job->k == 0 || job->n == 0) {
        return T2K_OK;
    }
    packing work = {job, panels};
    return t2k_parallel_team(t2k_threads_for_work((double)job->k * (double)job->n / 2.0), 0,
                             pack_body, &work);
}

t2k_status t2k_pack_b(t2k_transpose trans_b, int64_t k, int64_t n, const float *B, int64_t ldb,
                      void *packed)
{
    return t2k_pack_b_class(T2K_STRICT, trans_b, k, n, B, ldb, packed);
}

t2k_status t2k_pack_b_class(t2k_numerics numerics, t2k_transpose trans_b, int64_t k, int64_t n,
                            const float *B, int64_t ldb, void *packed)
{
    if (t2k_gemm_bad_class(numerics) || k < 0 || n < 0 || packed == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    t2k_gemm_job job = {.group = numerics == T2K_BF16 ? table->gemm_rounded : table->gemm_strict,
                        .tiles = t2k_gemm_tiles_of(table, numerics),
                        .n = (size_t)n,
                        .k = (size_t)k};
    const t2k_status status = t2k_gemm_check_b(trans_b, B, ldb, &job);
    if (status != T2K_OK || blob_bytes(table, numerics, k, n) == 0) {
        return T2K_ERR_ARG;
    }
    if ((uintptr_t)packed % T2K_ALIGN != 0) {
        return T2K_ERR_ALIGN;
    }
    float *panels = t2k_pack_header(table, numerics, k, n, packed);
    if (is_column(job.tiles, numerics, n)) {
        for (size_t p = 0; p < job.k; p++) {
            panels[p] = job.B[p * job.b_k];
        }
        return T2K_OK;
    }
    return pack_panels(&job, panels);
}

float *t2k_pack_header(const t2k_table *table, t2k_numerics numerics, int64_t k, int64_t n,
                       void *packed)
{
    const header head = header_of(table, numerics, k, n);
    memcpy(packed, &head, sizeof head);
    return (float *)(void *)((unsigned char *)packed + sizeof head);
}

/* The blob's class and panels, for a job that is otherwise checked. */
static t2k_status check_blob(const void *packed, t2k_gemm_job *job)
{
    const t2k_table *table = t2k_table_get();
    header head;
    memcpy(&head, packed, sizeof head);
    if (head.magic != MAGIC || head.k != job->k || head.n != job->n || head.numerics > T2K_BF16) {
        return T2K_ERR_ARG;
    }
    const t2k_numerics numerics = (t2k_numerics)head.numerics;
    const header want = header_of(table, numerics, (int64_t)job->k, (int64_t)job->n);
    if (head.nr != want.nr || head.unit != want.unit) {
        return T2K_ERR_ISA;
    }
    const unsigned char *panels = (const unsigned char *)packed + sizeof head;
    job->tiles = t2k_gemm_tiles_of(table, numerics);
    if (job->tiles != NULL) {
        job->tile_panels = panels;
        return T2K_OK;
    }
    job->group = numerics == T2K_BF16 ? table->gemm_rounded : table->gemm_strict;
    if (is_column(NULL, numerics, (int64_t)job->n)) {
        job->B = (const float *)(const void *)panels;
        job->b_k = job->b_n = 1;
        return T2K_OK;
    }
    job->panels = (const float *)(const void *)panels;
    job->b_panel = job->k * job->group->nr;
    return T2K_OK;
}

static t2k_status check_packed(t2k_transpose trans_a, int64_t m, int64_t n, int64_t k, float alpha,
                               const float *A, int64_t lda, const void *packed, float beta,
                               float *C, int64_t ldc, const t2k_epilogue *epilogue,
                               t2k_gemm_job *job)
{
    t2k_status status = t2k_gemm_check(m, n, k, alpha, beta, C, ldc, epilogue, job);
    if (status == T2K_OK) {
        status = t2k_gemm_check_a(trans_a, A, lda, job);
    }
    if (status != T2K_OK) {
        return status;
    }
    if (packed == NULL) {
        return T2K_ERR_ARG;
    }
    if ((uintptr_t)packed % T2K_ALIGN != 0) {
        return T2K_ERR_ALIGN;
    }
    return check_blob(packed, job);
}

t2k_status t2k_sgemm_packed(t2k_transpose trans_a, int64_t m, int64_t n, int64_t k, float alpha,
                            const float *A, int64_t lda, const void *packed, float beta, float *C,
                            int64_t ldc, const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    const t2k_status status =
        check_packed(trans_a, m, n, k, alpha, A, lda, packed, beta, C, ldc, epilogue, &job);
    return status == T2K_OK ? t2k_gemm_run(&job) : status;
}

t2k_status t2k_sgemm_packed_team(t2k_team *team, t2k_transpose trans_a, int64_t m, int64_t n,
                                 int64_t k, float alpha, const float *A, int64_t lda,
                                 const void *packed, float beta, float *C, int64_t ldc,
                                 const t2k_epilogue *epilogue)
{
    t2k_gemm_job job;
    if (team == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_status status =
        check_packed(trans_a, m, n, k, alpha, A, lda, packed, beta, C, ldc, epilogue, &job);
    if (status == T2K_OK) {
        t2k_gemm_team(team, &job);
    }
    return status;
}
