/* Which way an expert is applied. The model counts multiply-adds, bytes of weights and the work of
 * a swap; its constants are part of the contract (docs/experts.md), so that a plan, and with it the
 * bits of a result, is the same on every machine. */
#include "svf/adapter.h"

#include "io/error.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

/* A core of a server of today, in round numbers; docs/experts.md says from what they come. */
#define FLOPS_PER_NS 100.0
#define BYTES_PER_NS 40.0 /* reading packed weights */
#define PACK_PER_NS 4.0   /* bytes gathered and packed */
#define CALL_NS 300.0     /* of one product */
#define DEFAULT_ROWS 32

const char *t2_way_str(t2_way way)
{
    static const char *const names[] = {"plan", "rebuild", "factored", "delta", "auto"};
    return way >= T2_WAY_PLAN && way <= T2_WAY_AUTO ? names[way] : "unknown";
}

/* A product (rows, k) x packed (k, n). */
static double product(double rows, double k, double n)
{
    double compute = 2.0 * rows * k * n / FLOPS_PER_NS, memory = 4.0 * k * n / BYTES_PER_NS;
    return CALL_NS + (compute > memory ? compute : memory);
}

double t2_way_cost(t2_way way, int64_t m, int64_t n, int64_t r, int64_t k,
                   const t2_workload *workload)
{
    double rows = (double)(workload->rows > 0 ? workload->rows : DEFAULT_ROWS);
    double M = (double)m, N = (double)n, R = (double)r, K = (double)k;
    switch (way) {
    case T2_WAY_REBUILD:
        if (workload->hetero) {
            return -1.0;
        }
        return workload->swaps * product(M, R, N) + product(rows, N, M);
    case T2_WAY_FACTORED:
        return product(rows, N, R) + product(rows, R, M);
    case T2_WAY_DELTA: {
        double packing = k < r ? 4.0 * K * (M + N) / PACK_PER_NS : 0.0;
        return workload->swaps * packing + product(rows, N, M) +
               (k > 0 ? product(rows, N, K) + product(rows, K, M) : 0.0);
    }
    default:
        return -1.0;
    }
}

t2_way t2_plan_choose(const double cost[3])
{
    t2_way best = T2_WAY_PLAN;
    for (int i = 0; i < 3; i++) {
        if (cost[i] >= 0.0 && (best == T2_WAY_PLAN || cost[i] < cost[best - T2_WAY_REBUILD])) {
            best = (t2_way)(T2_WAY_REBUILD + i);
        }
    }
    return best;
}

/* ---- measuring ------------------------------------------------------------------------------ */

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

enum { ROUNDS = 5 };

/* One way, built and run on zeros: *swap for putting it in place, *call for one call. */
static t2_status measure(const t2_adapter *adapter, int64_t layer, t2_way way,
                         const t2_site_scales *scales, int64_t rows, int64_t components,
                         const float *x, float *y, int64_t call_rows, double *swap, double *call,
                         t2_error *err)
{
    t2_adaptation *trial;
    t2_status status = t2_adaptation_empty(adapter, rows, &trial, err);
    *swap = *call = HUGE_VAL;
    if (status != T2_OK) {
        return status;
    }
    for (int i = 0; i < 2 && status == T2_OK; i++) { /* the first packs what all share */
        t2_adaptation_clear(trial);
        double start = now_ns();
        status = t2_overlay_build(trial, layer, way, scales, components, err);
        *swap = now_ns() - start;
    }
    for (int i = 0; i < ROUNDS && status == T2_OK; i++) {
        double start = now_ns();
        status = t2_adaptation_run_layer(trial, layer, call_rows, NULL, x, y, 0, err);
        double took = now_ns() - start;
        *call = took < *call ? took : *call;
    }
    t2_adaptation_release(trial);
    return status;
}

t2_status t2_plan_measure(const t2_adapter *adapter, int64_t layer, const t2_site_scales *scales,
                          int64_t rows, int64_t components, const t2_workload *workload,
                          double cost[3], t2_error *err)
{
    const t2_linear *linear = adapter->layers[layer];
    int64_t call_rows = workload->rows > 0 ? workload->rows : DEFAULT_ROWS;
    float *x = t2_alloc(call_rows * linear->in, sizeof x[0]);
    float *y = t2_alloc(call_rows * linear->out, sizeof y[0]);
    t2_status status = T2_OK;
    if (x == NULL || y == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory for measuring");
    }
    for (int64_t i = 0; status == T2_OK && i < call_rows * linear->in; i++) {
        x[i] = 0.0f;
    }
    for (int i = 0; i < 3 && status == T2_OK; i++) {
        double swap, call;
        if (cost[i] < 0.0) {
            continue;
        }
        status = measure(adapter, layer, (t2_way)(T2_WAY_REBUILD + i), scales, rows, components, x,
                         y, call_rows, &swap, &call, err);
        cost[i] = (workload->swaps > 0.0 ? workload->swaps * swap : 0.0) + call;
    }
    free(x);
    free(y);
    return status;
}
