#include "simd/simd_scalar.h"

#include "core/table.h"
#include "tmpl/probe.h"

/* Products of bf16 numbers, summed in float: what a machine without a unit for them does. */
double t2k_probe_bf16_scalar(int64_t iterations)
{
    uint16_t a[8], b[8];
    float acc[8];
    for (int i = 0; i < 8; i++) {
        a[i] = (uint16_t)(0x3f80 + i); /* 1 + i/128 */
        b[i] = 0x3400;                 /* 2^-23 */
        acc[i] = 1.0f;
    }
    for (int64_t n = 0; n < iterations; n++) {
        for (int i = 0; i < 8; i++) {
            const float x = v_of_bits((vi)((uint32_t)a[i] << 16));
            acc[i] += x * v_of_bits((vi)((uint32_t)b[i] << 16));
        }
    }
    double sum = 0.0;
    for (int i = 0; i < 8; i++) {
        sum += (double)acc[i];
    }
    return sum < 1e30 ? 2.0 * 8.0 * (double)iterations : 0.0;
}
