/* t2bench experts switch: all matrices of MiniLM rebuilt for another expert, as a program does it
 * (t2_adaptation_create), against plain products of the same sizes. */
#include "experts.h"
#include "ops.h"
#include "problem.h"

#include <stdlib.h>

enum { ROUNDS = 15, BLOCKS = 6, OF_A_BLOCK = 6, MATRICES = BLOCKS * OF_A_BLOCK };

/* Query, key, value, output; intermediate, output. */
static const int64_t block[OF_A_BLOCK][2] = {{384, 384}, {384, 384},  {384, 384},
                                             {384, 384}, {1536, 384}, {384, 1536}};

enum { REBUILT, PACKED, PLAIN, KINDS };

struct bench {
    struct expert_layers layers;
    t2_expert *expert[2];
    t2_adaptation *current;
    void *packed_v[MATRICES]; /* V^T */
    float *w[MATRICES];
};

/* The next expert takes the place of the current one, whose memory is given back. */
static int rebuild(struct bench *b, int round)
{
    t2_adaptation *made = experts_adapt(&b->layers, &b->expert[round % 2], 1, T2_WAY_REBUILD, NULL);
    t2_adaptation_release(b->current);
    b->current = made;
    return made != NULL ? 0 : -1;
}

/* W = U V^T of all matrices. */
static int multiply(const struct bench *b, int packed)
{
    t2k_status status = T2K_OK;
    for (int64_t i = 0; i < MATRICES && status == T2K_OK; i++) {
        const t2_factor *f = t2_factors_get(b->layers.factors, i);
        status = packed ? t2k_sgemm_packed(T2K_NO_TRANS, f->m, f->n, f->r, 1.0f, f->U, f->r,
                                           b->packed_v[i], 0.0f, b->w[i], f->n, NULL)
                        : t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, f->m, f->n, f->r, 1.0f, f->U, f->r,
                                    f->V, f->r, 0.0f, b->w[i], f->n, NULL);
    }
    return status == T2K_OK ? 0 : -1;
}

static int open_products(struct bench *b)
{
    int status = 0;
    for (int64_t i = 0; i < MATRICES && status == 0; i++) {
        const t2_factor *f = t2_factors_get(b->layers.factors, i);
        b->packed_v[i] = bench_alloc(t2k_packed_b_bytes(f->r, f->n), 1);
        b->w[i] = bench_alloc((size_t)(f->m * f->n), sizeof(float));
        status = b->packed_v[i] != NULL && b->w[i] != NULL &&
                         t2k_pack_b(T2K_TRANS, f->r, f->n, f->V, f->r, b->packed_v[i]) == T2K_OK
                     ? 0
                     : -1;
    }
    return status;
}

static int measure(struct bench *b, double out[KINDS])
{
    double seconds[KINDS][ROUNDS];
    int status = 0;
    for (int round = -1; round < ROUNDS && status == 0; round++) { /* the first warms up */
        for (int i = 0; i < KINDS && status == 0; i++) {
            const int kind = (i + round + 1) % KINDS, at = round < 0 ? 0 : round;
            double start = bench_now();
            status = kind == REBUILT ? rebuild(b, round + 1) : multiply(b, kind == PACKED);
            seconds[kind][at] = bench_now() - start;
        }
    }
    for (int kind = 0; kind < KINDS && status == 0; kind++) {
        out[kind] = experts_median(seconds[kind], ROUNDS);
    }
    return status;
}

static void put(const struct bench *b, const double time[KINDS], t2_text *csv, t2_text *table)
{
    double flops = 0.0;
    for (int64_t i = 0; i < MATRICES; i++) {
        const t2_factor *f = t2_factors_get(b->layers.factors, i);
        flops += 2.0 * (double)f->m * (double)f->n * (double)f->r;
    }
    printf("%d matrices of MiniLM, %.2f GFLOP: switched in %.2f ms (%.1f GFLOP/s), products packed "
           "%.2f ms (%.3f), plain %.2f ms (%.3f)\n",
           MATRICES, 1e-9 * flops, 1e3 * time[REBUILT], 1e-9 * flops / time[REBUILT],
           1e3 * time[PACKED], time[REBUILT] / time[PACKED], 1e3 * time[PLAIN],
           time[REBUILT] / time[PLAIN]);
    t2_text_printf(csv, "matrices,flops,switch_s,packed_s,plain_s\n%d,%.0f,%.9f,%.9f,%.9f\n",
                   MATRICES, flops, time[REBUILT], time[PACKED], time[PLAIN]);
    experts_target(table, "36 matrices of MiniLM switched by rebuild, over packed products",
                   time[REBUILT] / time[PACKED], EXPERTS_AT_MOST, 1.1);
    experts_target(table, "the same, over plain products", time[REBUILT] / time[PLAIN],
                   EXPERTS_AT_MOST, 1.1);
}

int experts_switch(t2_text *csv, t2_text *svg, t2_text *table)
{
    (void)svg;
    int64_t sizes[MATRICES][2];
    for (int i = 0; i < MATRICES; i++) {
        sizes[i][0] = block[i % OF_A_BLOCK][0];
        sizes[i][1] = block[i % OF_A_BLOCK][1];
    }
    struct bench b = {.current = NULL};
    double time[KINDS];
    int status = expert_layers_create(&b.layers, sizes, MATRICES);
    if (status != 0) {
        return status;
    }
    status = experts_create(&b.layers, 1, 2, b.expert);
    if (status == 0) {
        status = open_products(&b) == 0 ? measure(&b, time) : -1;
        if (status == 0) {
            put(&b, time, csv, table);
        } else {
            fprintf(stderr, "t2bench: experts: switch: out of memory, or a product failed\n");
        }
    }
    t2_adaptation_release(b.current);
    for (int i = 0; i < MATRICES; i++) {
        free(b.packed_v[i]);
        free(b.w[i]);
    }
    experts_release(b.expert, 2);
    expert_layers_destroy(&b.layers);
    return status;
}
