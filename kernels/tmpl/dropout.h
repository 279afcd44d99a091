/* Inverted dropout. Element number e (64 bits, first + i, wrapping) uses word e mod 4 of the
 * Philox4x32-10 block with
 *   key     (seed mod 2^32, seed / 2^32)
 *   counter (b mod 2^32, b / 2^32, layer, site), b = e / 4.
 * It is kept, and multiplied, when its word >= threshold; else it becomes +0, whatever it was.
 * Integer code of one lane: every ISA inherits it. In place allowed. */
#include "tmpl/dropout_philox.h"

void T2K_FN(dropout)(size_t n, const float *X, uint32_t threshold, float multiplier,
                     t2k_dropout_key key, uint64_t first, float *Y)
{
    const uint32_t seed[2] = {(uint32_t)key.seed, (uint32_t)(key.seed >> 32)};
    for (size_t i = 0; i < n;) {
        const uint64_t element = first + i;
        const uint64_t block = element / 4;
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), key.layer, key.site};
        uint32_t word[4];
        philox4x32_10(counter, seed, word);
        for (size_t w = element % 4; w < 4 && i < n; w++, i++) {
            Y[i] = word[w] >= threshold ? X[i] * multiplier : 0.0f;
        }
    }
}
