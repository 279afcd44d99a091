#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATTERN 0xa7 /* as floats: a finite value that no result equals */

uint64_t rng_next(struct rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

size_t rng_below(struct rng *rng, size_t n)
{
    return (size_t)(rng_next(rng) % n);
}

float rng_uniform(struct rng *rng)
{
    return (float)((int32_t)(rng_next(rng) >> 40) - (1 << 23)) * 0x1p-23f;
}

void rng_fill(struct rng *rng, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = rng_uniform(rng);
    }
}

uint64_t check_seed(void)
{
    const char *text = getenv("T2K_SEED");
    return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 0) : 20250125u;
}

struct guarded guarded_new(size_t count, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct guarded g = {NULL, count * size, NULL, 0};
    size_t inner = (g.bytes + page - 1) / page * page + page;
    g.map_bytes = inner + 2 * page;
    void *map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect((char *)map + page, inner, PROT_READ | PROT_WRITE) != 0) {
        fprintf(stderr, "guarded_new: no memory for %zu bytes\n", g.bytes);
        abort();
    }
    g.map = map;
    memset(g.map + page, PATTERN, inner);
    g.data = g.map + page + inner - g.bytes;
    return g;
}

float *guarded_floats(struct guarded *g, size_t count)
{
    *g = guarded_new(count, sizeof(float));
    return g->data;
}

int guarded_intact(const struct guarded *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *end = g->data;
    for (const unsigned char *p = g->map + page; p < end; p++) {
        if (*p != PATTERN) {
            return 0;
        }
    }
    return 1;
}

void guarded_seal(struct guarded *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (mprotect(g->map + page, g->map_bytes - 2 * page, PROT_READ) != 0) {
        abort();
    }
}

void guarded_free(struct guarded *g)
{
    munmap(g->map, g->map_bytes);
    memset(g, 0, sizeof *g);
}

uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int is_nan_bits(uint32_t bits)
{
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

size_t first_difference(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t x = bits_of(a[i]), y = bits_of(b[i]);
        if (x != y && !(is_nan_bits(x) && is_nan_bits(y))) {
            return i;
        }
    }
    return n;
}

double ulp_error(float x, double ref)
{
    if (isnan(x) || isnan(ref)) {
        return isnan(x) && isnan(ref) ? 0.0 : HUGE_VAL;
    }
    if (isinf(x) || fabs(ref) >= 0x1.ffffffp127) { /* ref rounds to infinity */
        return isinf(x) && fabs(ref) >= 0x1.ffffffp127 && (x > 0) == (ref > 0) ? 0.0 : HUGE_VAL;
    }
    int exponent;
    frexp(ref, &exponent);
    int unit = exponent - 24 < -149 ? -149 : exponent - 24;
    return fabs((double)x - ref) / ldexp(1.0, unit);
}

int in_child(int (*fn)(void *arg), void *arg)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(fn(arg));
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
