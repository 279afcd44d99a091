/* The machine's peaks: what a core can compute, read and copy. For the benchmark. */
#include <assert.h>

/* Independent chains of fused multiply-adds in registers. Twelve vectors cover 4-5 cycles of
 * latency on two ports. */
double T2K_FN(probe_fma)(int64_t iterations)
{
    vf acc[12];
    const vf a = v_set1(0.999999f), b = v_set1(1e-7f);
    T2K_UNROLL
    for (int i = 0; i < 12; i++) {
        acc[i] = v_set1((float)i);
    }
    for (int64_t n = 0; n < iterations; n++) {
        T2K_UNROLL
        for (int i = 0; i < 12; i++) {
            acc[i] = v_fma(acc[i], a, b);
        }
    }
    float lanes[VF_W];
    double sum = 0.0;
    for (int i = 0; i < 12; i++) {
        v_store(lanes, acc[i]);
        sum += (double)lanes[0];
    }
    /* The sum is used, or the loop would be dropped; it is finite for every count. */
    return sum < 1e30 ? 2.0 * 12.0 * VF_W * (double)iterations : 0.0;
}

/* X (n) read front to back: eight independent chains of adds hide their latency. One stream is
 * what prefetchers like best (Zen 4: eight streams through memory were a fifth slower). Returns the
 * sum of all lanes: it is used, or the loads would be dropped. */
float T2K_FN(probe_read)(size_t n, const float *X)
{
    vf acc[8];
    T2K_UNROLL
    for (size_t s = 0; s < 8; s++) {
        acc[s] = v_zero();
    }
    size_t i = 0;
    for (; n - i >= 8 * VF_W; i += 8 * VF_W) {
        T2K_UNROLL
        for (size_t s = 0; s < 8; s++) {
            acc[s] = v_add(acc[s], v_load(X + i + s * VF_W));
        }
    }
    for (; n - i >= VF_W; i += VF_W) {
        acc[0] = v_add(acc[0], v_load(X + i));
    }
    acc[0] = v_add(acc[0], v_load_n(X + i, n - i));
    T2K_UNROLL
    for (size_t s = 1; s < 8; s++) {
        acc[0] = v_add(acc[0], acc[s]);
    }
    return v_sum_lanes(acc[0]);
}

/* Y = X (n) by plain stores: a line of Y is read before it is written. */
void T2K_FN(probe_copy)(size_t n, const float *X, float *Y)
{
    size_t i = 0;
    for (; n - i >= 4 * VF_W; i += 4 * VF_W) {
        T2K_UNROLL
        for (size_t s = 0; s < 4; s++) {
            v_store(Y + i + s * VF_W, v_load(X + i + s * VF_W));
        }
    }
    for (; n - i >= VF_W; i += VF_W) {
        v_store(Y + i, v_load(X + i));
    }
    v_store_n(Y + i, v_load_n(X + i, n - i), n - i);
}

/* Y = X (n) around the caches where the ISA can: Y is not read. Y aligned to T2K_ALIGN. */
void T2K_FN(probe_stream)(size_t n, const float *X, float *Y)
{
    assert((uintptr_t)Y % T2K_ALIGN == 0);
    size_t i = 0;
    for (; n - i >= 4 * VF_W; i += 4 * VF_W) {
        T2K_UNROLL
        for (size_t s = 0; s < 4; s++) {
            v_stream(Y + i + s * VF_W, v_load(X + i + s * VF_W));
        }
    }
    v_stream_end();
    for (; n - i >= VF_W; i += VF_W) {
        v_store(Y + i, v_load(X + i));
    }
    v_store_n(Y + i, v_load_n(X + i, n - i), n - i);
}
