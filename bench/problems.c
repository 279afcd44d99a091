/* The problems of t2bench and their operands, generated from a fixed seed. */
#include "bench.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void *bench_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - T2K_ALIGN) {
        return NULL;
    }
    return aligned_alloc(T2K_ALIGN, (bytes / T2K_ALIGN + 1) * T2K_ALIGN);
}

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

struct problem *bench_add(struct bench_suite *suite, const struct bench_kind *kind,
                          const char *shape, ...)
{
    struct problem *p = calloc(1, sizeof *p);
    struct problem **problems =
        realloc(suite->problems, ((size_t)suite->problem_count + 1) * sizeof *problems);
    if (problems != NULL) {
        suite->problems = problems;
    }
    if (p == NULL || problems == NULL) {
        free(p);
        suite->failed = 1;
        return NULL;
    }
    p->kind = kind;
    p->packed_isa = -1;
    va_list args;
    va_start(args, shape);
    vsnprintf(p->shape, sizeof p->shape, shape, args);
    va_end(args);
    suite->problems[suite->problem_count++] = p;
    return p;
}

t2k_status bench_floats(struct problem *p, int slot, int64_t n, float range)
{
    float *x = bench_alloc((size_t)n, sizeof *x);
    if (x == NULL) {
        return T2K_ERR_NOMEM;
    }
    uint64_t state = (uint64_t)slot;
    for (int64_t i = 0; i < n; i++) {
        /* 24 random bits, so that the conversion and the scaling by 2^-23 are exact. */
        x[i] = ((float)(bench_random(&state) >> 40) * 0x1p-23f - 1.0f) * range;
    }
    p->in[slot] = x;
    return T2K_OK;
}

t2k_status bench_ids(struct problem *p, int64_t n, int64_t below)
{
    p->ids = bench_alloc((size_t)n, sizeof *p->ids);
    if (p->ids == NULL) {
        return T2K_ERR_NOMEM;
    }
    uint64_t state = BENCH_INPUTS;
    for (int64_t i = 0; i < n; i++) {
        p->ids[i] = (int64_t)(bench_random(&state) % (uint64_t)below);
    }
    return T2K_OK;
}

void bench_free(struct bench_suite *suite)
{
    for (int i = 0; i < suite->problem_count; i++) {
        struct problem *p = suite->problems[i];
        for (int slot = 0; slot < BENCH_INPUTS; slot++) {
            free(p->in[slot]);
        }
        free(p->ids);
        free(p->mask);
        free(p->packed);
        free(p->out);
        free(p->sample);
        free(p->expected);
        free(p);
    }
    free(suite->problems);
}
