/* Independent chains of fused multiply-adds in registers: the machine's peak. Twelve vectors
 * cover 4-5 cycles of latency on two ports. */
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
