/* Random numbers of models: Philox4x32-10 (docs/numerics.md rule 20). A stream's key is the first
 * half of the block whose counter is (number, hash of the purpose's name) under the user's seed. */
#include "model/model.h"

#include <math.h>
#include <sleef.h>
#include <string.h>

t2_random t2_random_key(uint64_t seed, const char *purpose, uint64_t number)
{
    uint64_t hash = t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, purpose, strlen(purpose));
    uint32_t counter[4] = {(uint32_t)number, (uint32_t)(number >> 32), (uint32_t)hash,
                           (uint32_t)(hash >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    t2k_philox4x32(counter, key, out);
    t2_random random = {{out[0], out[1]}};
    return random;
}

uint64_t t2_random_seed(t2_random random)
{
    return (uint64_t)random.key[1] << 32 | random.key[0];
}

double t2_random_uniform(uint32_t high, uint32_t low)
{
    uint64_t bits = ((uint64_t)high << 32 | low) >> 11; /* 53 bits: exact as a double */
    return (double)bits * 0x1p-53;
}

#define TWO_PI 6.283185307179586476925

double t2_random_normal(const uint32_t words[4])
{
    double u = t2_random_uniform(words[0], words[1]) + 0x1p-53;
    double v = t2_random_uniform(words[2], words[3]);
    return sqrt(-2.0 * Sleef_cinz_logd1_u10purec(u)) * Sleef_cinz_cosd1_u10purec(TWO_PI * v);
}
