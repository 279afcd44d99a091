/* FNV-1a fingerprints of tensors (docs/numerics.md, "Fingerprint"). */
#include "t2k.h"

#include <string.h>

#define FNV_PRIME UINT64_C(0x100000001b3)

uint64_t t2k_fingerprint_bytes(uint64_t state, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) {
        state = (state ^ p[i]) * FNV_PRIME;
    }
    return state;
}

static uint64_t add_word(uint64_t state, uint64_t word, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        state = (state ^ (word >> (8 * i) & 0xff)) * FNV_PRIME;
    }
    return state;
}

uint64_t t2k_fingerprint_f32(uint64_t state, int rank, const int64_t *shape, const float *data)
{
    state = t2k_fingerprint_bytes(state, "F32", 3);
    state = add_word(state, (uint64_t)rank, 8);
    size_t count = 1;
    for (int i = 0; i < rank; i++) {
        state = add_word(state, (uint64_t)shape[i], 8);
        count *= (size_t)shape[i];
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &data[i], sizeof bits);
        if ((bits & 0x7fffffffu) > 0x7f800000u) {
            bits = 0x7fc00000u;
        }
        state = add_word(state, bits, 4);
    }
    return state;
}
