/* What the tests share: seeded numbers, guarded buffers, comparisons. Plain C, no Criterion. */
#ifndef T2_CHECK_H
#define T2_CHECK_H

#include <stddef.h>
#include <stdint.h>

/* ---- seeded numbers ------------------------------------------------------------------------- */

/* The same sequence everywhere (SplitMix64; floats by exact arithmetic only). */
struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *rng);
size_t rng_below(struct rng *rng, size_t n);        /* 0 .. n-1 */
float rng_uniform(struct rng *rng);                 /* [-1, 1), multiples of 2^-23 */
void rng_fill(struct rng *rng, float *x, size_t n); /* rng_uniform */
/* The seed of this run: T2K_SEED or the fixed default. */
uint64_t check_seed(void);

/* ---- guarded buffers ------------------------------------------------------------------------ */

/* A buffer whose end lies flush against an unmapped page; the bytes before it, back to another
 * unmapped page, hold a pattern. Its alignment is that of count * size, so odd counts misalign. */
struct guarded {
    void *data;
    size_t bytes;
    unsigned char *map;
    size_t map_bytes;
};
struct guarded guarded_new(size_t count,
                           size_t size); /* filled with the pattern; aborts if NOMEM */
float *guarded_floats(struct guarded *g, size_t count); /* guarded_new() and its data */
int guarded_intact(const struct guarded *g);            /* nothing before the buffer was written */
void guarded_seal(struct guarded *g);                   /* read-only from now on: writing traps */
void guarded_free(struct guarded *g);

/* ---- comparisons ---------------------------------------------------------------------------- */

uint32_t bits_of(float x);
float float_of(uint32_t bits);
/* Equal bits, all NaNs alike. Returns n where all are equal, else the first index that differs. */
size_t first_difference(const float *a, const float *b, size_t n);
/* Distance of x from the double `ref` in units in the last place of float at ref. 0 where both are
 * NaN or the same infinity, HUGE_VAL where only one is. */
double ulp_error(float x, double ref);

/* Runs fn(arg) in a forked child; its exit status, or 128 + signal. */
int in_child(int (*fn)(void *arg), void *arg);

#endif
