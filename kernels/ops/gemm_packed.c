/* Weights packed once: a header, then panels [n / nr][k][nr], columns beyond n being +0. The blob
 * belongs to one layout (nr) of panels: an ISA with another one refuses it. */
#include "ops/gemm.h"

#include <string.h>

#define MAGIC UINT64_C(0x62326b7032743031) /* changes when the layout does */

typedef struct header {
    uint64_t magic;
    uint64_t nr;
    uint64_t k;
    uint64_t n;
    uint64_t unused[4]; /* the panels begin at a multiple of T2K_ALIGN */
} header;

_Static_assert(sizeof(header) == T2K_ALIGN, "the panels follow the header");

/* Bytes of the blob; 0 when there is no such blob. */
static size_t blob_bytes(const t2k_table *table, int64_t k, int64_t n)
{
    size_t floats, bytes;
    if (table == NULL || k < 0 || n < 0) {
        return 0;
    }
    const size_t nr = table->gemm_strict->nr;
    const size_t cols = ((size_t)n + nr - 1) / nr * nr;
    if (t2k_mul_overflow(cols, (size_t)k, &floats) ||
        t2k_mul_overflow(floats, sizeof(float), &bytes) || bytes > PTRDIFF_MAX - sizeof(header)) {
        return 0;
    }
    return bytes + sizeof(header);
}

size_t t2k_packed_b_bytes(int64_t k, int64_t n)
{
    return blob_bytes(t2k_table_get(), k, n);
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
    t2k_team_share(team, job->n, nr, &first, &last);
    for (size_t j = first; j < last; j += nr) {
        const size_t cols = last - j < nr ? last - j : nr;
        float *panel = work->panels + j * job->k; /* j is a multiple of nr */
        for (size_t p = 0; p < job->k; p += T2K_CHUNK_K) {
            const size_t kc = job->k - p < T2K_CHUNK_K ? job->k - p : T2K_CHUNK_K;
            job->group->pack_b(cols, kc, job->B + p * job->b_k + j * job->b_n, job->b_k, job->b_n,
                               NULL, panel + p * nr, 0);
        }
    }
}

t2k_status t2k_pack_b(t2k_transpose trans_b, int64_t k, int64_t n, const float *B, int64_t ldb,
                      void *packed)
{
    if (k < 0 || n < 0 || packed == NULL) {
        return T2K_ERR_ARG;
    }
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return T2K_ERR_ISA;
    }
    t2k_gemm_job job = {.group = table->gemm_strict, .n = (size_t)n, .k = (size_t)k};
    const t2k_status status = t2k_gemm_check_b(trans_b, B, ldb, &job);
    if (status != T2K_OK || blob_bytes(table, k, n) == 0) {
        return T2K_ERR_ARG;
    }
    if ((uintptr_t)packed % T2K_ALIGN != 0) {
        return T2K_ERR_ALIGN;
    }
    const header head = {MAGIC, job.group->nr, (uint64_t)k, (uint64_t)n, {0, 0, 0, 0}};
    memcpy(packed, &head, sizeof head);
    if (k == 0 || n == 0) {
        return T2K_OK;
    }
    packing work = {&job, (float *)((unsigned char *)packed + sizeof head)};
    return t2k_parallel_team(t2k_threads_for_work((double)k * (double)n / 2.0), 0, pack_body,
                             &work);
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
    header head;
    memcpy(&head, packed, sizeof head);
    if (head.magic != MAGIC || head.k != job->k || head.n != job->n) {
        return T2K_ERR_ARG;
    }
    if (head.nr != job->group->nr) {
        return T2K_ERR_ISA;
    }
    job->panels = (const float *)((const unsigned char *)packed + sizeof head);
    job->b_panel = job->k * job->group->nr;
    return T2K_OK;
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
