/* The way out of the product: what happens to finished chunk sums before they are in C, see
 * t2k_gemm_out in core/table.h. In registers for all but the rare: activations other than relu and
 * scales that differ from row to row. Needs what gemm_ukr.h asks for. */
#ifndef T2K_TMPL_GEMM_OUT_H
#define T2K_TMPL_GEMM_OUT_H

#include "tmpl/activation.h"

#define GEMM_INLINE static inline __attribute__((always_inline))
#define GEMM_ACC 32 /* upper bound of rows * vecs; what a kernel does not use does not exist */

/* The loops over a tile's vectors, unrolled. */
#define GEMM_EACH(rows, vecs)        \
    T2K_UNROLL                       \
    for (int v = 0; v < (vecs); v++) \
        T2K_UNROLL                   \
    for (int i = 0; i < (rows); i++)

GEMM_INLINE vf gemm_relu(vf v)
{
    return v_select(v_lt(v, v_zero()), v_zero(), v);
}

GEMM_INLINE vf gemm_activate(vf v, t2k_activation activation)
{
    switch (activation) {
    case T2K_ACT_NONE:
        break;
    case T2K_ACT_RELU:
        return gemm_relu(v);
    case T2K_ACT_GELU:
        return v_gelu(v);
    case T2K_ACT_GELU_TANH:
        return v_gelu_tanh(v);
    case T2K_ACT_SILU:
        return v_silu(v);
    }
    return v;
}

/* The steps behind the chunk sum c of one vector at row i, column j. */
GEMM_INLINE vf gemm_value(vf c, vf old, const t2k_gemm_out *out)
{
    const vf alpha = v_set1(out->alpha);
    if (!out->first) {
        return v_fma(alpha, c, old);
    }
    return out->beta == 0.0f ? v_mul(alpha, c) : v_fma(alpha, c, v_mul(v_set1(out->beta), old));
}

/* The general way out: chunk sums from t (rows, nr), row stride ldt; NULL: no product at all.
 * Reads whole vectors of t. */
static __attribute__((noinline)) void gemm_finish(const float *t, size_t ldt, size_t rows,
                                                  size_t nr, float *C, size_t ldc,
                                                  const t2k_gemm_out *out)
{
    const int reads_c = !out->first || out->beta != 0.0f;
    const vf zero = v_zero();
    for (size_t j = 0; j < nr; j += VF_W) {
        const size_t n = nr - j < VF_W ? nr - j : VF_W;
        const vf bias = out->bias != NULL ? v_load_n(out->bias + j, n) : zero;
        vf scale =
            out->scale != NULL && out->scale_rows == NULL ? v_load_n(out->scale + j, n) : zero;
        for (size_t i = 0; i < rows; i++) {
            float *c = C + i * ldc + j;
            const vf old = !reads_c ? zero : n == VF_W ? v_load(c) : v_load_n(c, n);
            vf v = reads_c ? v_mul(v_set1(out->beta), old) : zero;
            if (t != NULL) {
                v = gemm_value(v_load(t + i * ldt + j), old, out);
            }
            if (out->bias != NULL) {
                v = v_add(v, bias);
            }
            if (out->scale_rows != NULL) {
                scale = v_load_n(out->scale + (size_t)out->scale_rows[i] * out->lds + j, n);
            }
            if (out->scale != NULL) {
                v = v_mul(v, scale);
            }
            v = gemm_activate(v, out->activation);
            if (out->residual != NULL) {
                v = v_add(v, v_load_n(out->residual + i * out->ldr + j, n));
            }
            if (n == VF_W) {
                v_store(c, v);
            } else {
                v_store_n(c, v, n);
            }
        }
    }
}

/* `out` with room for a tile's sums where kernels need it; in them it would cost each call. */
static const t2k_gemm_out *gemm_with_space(const t2k_gemm_out *out, t2k_gemm_out *own, float *space)
{
    if (out->mode != T2K_GEMM_MEMORY) {
        return out;
    }
    *own = *out;
    own->space = space;
    return own;
}

/* Vector v of vecs at p, of which the last has `lanes` lanes. */
GEMM_INLINE vf gemm_load_part(const float *p, int last, size_t lanes, g_mask mask)
{
    (void)lanes, (void)mask;
#if GEMM_MASKED
    return last ? g_load_mask(p, mask) : v_load(p);
#else
    return last && lanes < VF_W ? v_load_n(p, lanes) : v_load(p);
#endif
}

/* The general way out of a tile that stays in registers. */
GEMM_INLINE void gemm_in_registers(const int rows, const int vecs, vf *acc, size_t lanes,
                                   const float *C, size_t ldc, const t2k_gemm_out *out)
{
    const g_mask mask = g_mask_n(lanes);
#define GEMM_PART(p, stride) \
    gemm_load_part((p) + (size_t)i * (stride) + v * VF_W, v == vecs - 1, lanes, mask)
    const vf alpha = v_set1(out->alpha);
    if (!out->first) {
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = v_fma(alpha, acc[i * vecs + v], GEMM_PART(C, ldc));
        }
    } else if (out->beta != 0.0f) {
        const vf beta = v_set1(out->beta);
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = v_fma(alpha, acc[i * vecs + v], v_mul(beta, GEMM_PART(C, ldc)));
        }
    } else if (out->alpha != 1.0f) {
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = v_mul(alpha, acc[i * vecs + v]);
        }
    }
    if (out->bias != NULL) {
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = v_add(acc[i * vecs + v], GEMM_PART(out->bias, 0));
        }
    }
    if (out->scale != NULL) {
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = v_mul(acc[i * vecs + v], GEMM_PART(out->scale, 0));
        }
    }
    if (out->activation == T2K_ACT_RELU) {
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = gemm_relu(acc[i * vecs + v]);
        }
    }
    if (out->residual != NULL) {
        GEMM_EACH(rows, vecs)
        {
            acc[i * vecs + v] = v_add(acc[i * vecs + v], GEMM_PART(out->residual, out->ldr));
        }
    }
#undef GEMM_PART
}

/* Writes the tile: acc[i * vecs + v] is vector v of row i; nr columns are written. */
GEMM_INLINE void gemm_leave(const int rows, const int vecs, vf *acc, size_t nr, float *C,
                            size_t ldc, const t2k_gemm_out *out)
{
    const size_t lanes = nr - (size_t)(vecs - 1) * VF_W;
    if (out->mode == T2K_GEMM_MEMORY) {
        T2K_UNROLL
        for (int i = 0; i < rows * vecs; i++) {
            v_store(out->space + i * VF_W, acc[i]);
        }
        gemm_finish(out->space, (size_t)vecs * VF_W, (size_t)rows, nr, C, ldc, out);
        return;
    }
    if (out->mode == T2K_GEMM_GENERAL) {
        gemm_in_registers(rows, vecs, acc, lanes, C, ldc, out);
    } else if (out->mode == T2K_GEMM_ADD) {
        const g_mask mask = g_mask_n(lanes);
        GEMM_EACH(rows, vecs)
        {
            const float *c = C + (size_t)i * ldc + v * VF_W;
            acc[i * vecs + v] =
                v_add(acc[i * vecs + v], gemm_load_part(c, v == vecs - 1, lanes, mask));
        }
    }
    if (lanes == VF_W) {
        GEMM_EACH(rows, vecs)
        {
            v_store(C + (size_t)i * ldc + v * VF_W, acc[i * vecs + v]);
        }
        return;
    }
    GEMM_EACH(rows, vecs)
    {
        float *c = C + (size_t)i * ldc + v * VF_W;
        if (v < vecs - 1) {
            v_store(c, acc[i * vecs + v]);
        } else {
            v_store_n(c, acc[i * vecs + v], lanes);
        }
    }
}

#endif
