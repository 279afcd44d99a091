/* amx_model_vectors.h - the vectors that kernels/amx uses, in plain C, with the names of
 * simd/simd_avx512.h and simd/simd_bf16.h, so that its files run on every CPU. */
#ifndef T2K_SIMD_BF16_H
#define T2K_SIMD_BF16_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd/unroll.h"

typedef struct vf {
    float x[16];
} vf;
typedef struct vp {
    uint16_t x[32];
} vp;
typedef struct vr {
    uint32_t least, most;
} vr;

static inline vf v_load_n(const float *p, size_t n)
{
    vf v = {{0}};
    memcpy(v.x, p, n * sizeof *p);
    return v;
}

static inline vf v_load(const float *p)
{
    return v_load_n(p, 16);
}

static inline void v_store(float *p, vf v)
{
    memcpy(p, v.x, sizeof v.x);
}

static inline vf v_zero(void)
{
    return (vf){{0}};
}

static inline vf v_set1(float x)
{
    vf v;
    for (int i = 0; i < 16; i++) {
        v.x[i] = x;
    }
    return v;
}

static inline vf v_add(vf a, vf b)
{
    for (int i = 0; i < 16; i++) {
        a.x[i] += b.x[i];
    }
    return a;
}

static inline vf v_sub(vf a, vf b)
{
    for (int i = 0; i < 16; i++) {
        a.x[i] -= b.x[i];
    }
    return a;
}

static inline vf v_fma(vf a, vf b, vf c)
{
    for (int i = 0; i < 16; i++) {
        c.x[i] = fmaf(a.x[i], b.x[i], c.x[i]);
    }
    return c;
}

static inline uint32_t model_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float model_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* VCVTNE2PS2BF16 of one number. */
static inline uint16_t model_round(float x)
{
    const uint32_t bits = model_bits(x);
    if (x != x) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    if ((bits & 0x7f800000u) == 0) {
        return (uint16_t)(bits >> 16 & 0x8000u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline vp vp_round(vf a, vf b)
{
    vp v;
    for (int i = 0; i < 16; i++) {
        v.x[i] = model_round(a.x[i]);
        v.x[16 + i] = model_round(b.x[i]);
    }
    return v;
}

/* Numbers first, first + step, ... */
static inline vf model_pick(vp v, int first, int step)
{
    vf f;
    for (int i = 0; i < 16; i++) {
        f.x[i] = model_float((uint32_t)v.x[first + i * step] << 16);
    }
    return f;
}

static inline vf vp_low(vp v)
{
    return model_pick(v, 0, 1);
}

static inline vf vp_high(vp v)
{
    return model_pick(v, 16, 1);
}

static inline vf vp_first(vp v)
{
    return model_pick(v, 0, 2);
}

static inline vf vp_second(vp v)
{
    return model_pick(v, 1, 2);
}

static inline vp vp_zip(vp v)
{
    vp z;
    for (int i = 0; i < 16; i++) {
        z.x[2 * i] = v.x[i];
        z.x[2 * i + 1] = v.x[16 + i];
    }
    return z;
}

static inline vp vp_load(const void *p)
{
    vp v;
    memcpy(v.x, p, sizeof v.x);
    return v;
}

static inline void vp_store(void *p, vp v)
{
    memcpy(p, v.x, sizeof v.x);
}

static inline void vp_transpose(vp r[16])
{
    vp t[16];
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 16; j++) {
            t[j].x[2 * i] = r[i].x[2 * j];
            t[j].x[2 * i + 1] = r[i].x[2 * j + 1];
        }
    }
    memcpy(r, t, sizeof t);
}

static inline vr vr_none(void)
{
    return (vr){UINT32_MAX, 0};
}

static inline vr vr_add(vr r, vf v)
{
    for (int i = 0; i < 16; i++) {
        const uint32_t bits = model_bits(v.x[i]) & 0x7fffffffu;
        r.least = bits - 1u < r.least ? bits - 1u : r.least;
        r.most = bits > r.most ? bits : r.most;
    }
    return r;
}

static inline uint32_t vr_least(vr r)
{
    return r.least;
}

static inline uint32_t vr_most(vr r)
{
    return r.most;
}

#endif
