/* Packing, written once over simd/: panels [k][width] of an operand's rows (A) or columns (B), so
 * that the micro-kernels read one stream.
 *   along k    the source is contiguous in k: of B blocks of four lines, or where the panel is wide
 *              enough of VF_W lines (g_transpose), are transposed, and the next lines asked for;
 *              rows of A are copied, since the kernels need no vectors across them;
 *   across     the source is contiguous across the panel: lines are copied.
 * Along k, s (kc) multiplies element k of every line, rounded once: diag(s) costs no pass.
 * The including gemm_<isa>.c defines, for VF_W > 1,
 *   g_transpose4(r)         transposes the 4x4 blocks within each 128 bits of r[0..3]
 *   GEMM_TRANSPOSE, g_transpose(r)   transposes r[0..VF_W-1], where NR is a multiple of VF_W
 *   g_store4(p, v, part)    stores the 128 bits `part` (a constant) of v */
#ifndef T2K_TMPL_GEMM_PACK_H
#define T2K_TMPL_GEMM_PACK_H

/* Lines l = 0..lines-1 at src + l * stride, contiguous in k, to panel[p * width + l]. Lines up to
 * the next multiple of four become +0. */
#if VF_W == 1
GEMM_INLINE void gemm_pack_along(const size_t width, size_t lines, size_t kc, const float *src,
                                 size_t stride, const float *s, float *panel)
{
    for (size_t p = 0; p < kc; p++) {
        for (size_t l = 0; l < width; l++) {
            const float x = l < lines ? src[l * stride + p] : 0.0f;
            panel[p * width + l] = s != NULL && l < lines ? x * s[p] : x;
        }
    }
}
#else
/* Up to VF_W steps of k (n of them) of four lines to as many columns of the panel. */
GEMM_INLINE void gemm_pack_four(const size_t width, size_t n, const float *src, size_t stride,
                                size_t lines, const float *s, float *panel)
{
    vf r[4];
    T2K_UNROLL
    for (size_t l = 0; l < 4; l++) {
        if (l >= lines) {
            r[l] = v_zero();
        } else {
            r[l] = n == VF_W ? v_load(src + l * stride) : v_load_n(src + l * stride, n);
            if (s != NULL) {
                r[l] = v_mul(r[l], n == VF_W ? v_load(s) : v_load_n(s, n));
            }
        }
    }
    g_transpose4(r);
    T2K_UNROLL
    for (size_t part = 0; part < VF_W / 4; part++) {
        T2K_UNROLL
        for (size_t q = 0; q < 4; q++) {
            float *to = panel + (4 * part + q) * width;
            if (4 * part + q < n) {
                g_store4(to, r[q], part);
            }
        }
    }
}

/* Asks for the line of `count` rows, `stride` apart, that are packed next: each row is a stream of
 * its own and too short for a hardware prefetcher. Behind the operand it is harmless. */
GEMM_INLINE void gemm_ask(const float *rows, const size_t count, size_t stride)
{
    T2K_UNROLL
    for (size_t l = 0; l < count; l++) {
        __builtin_prefetch((const char *)((uintptr_t)rows + l * stride * sizeof(float)));
    }
}

#ifdef GEMM_TRANSPOSE
/* VF_W steps of k of VF_W lines, by one transpose in registers. */
GEMM_INLINE void gemm_pack_square(const size_t width, const float *src, size_t stride,
                                  const float *s, float *panel)
{
    vf r[VF_W];
    T2K_UNROLL
    for (size_t l = 0; l < VF_W; l++) {
        r[l] = v_load(src + l * stride);
    }
    if (s != NULL) {
        const vf factor = v_load(s);
        T2K_UNROLL
        for (size_t l = 0; l < VF_W; l++) {
            r[l] = v_mul(r[l], factor);
        }
    }
    g_transpose(r);
    T2K_UNROLL
    for (size_t l = 0; l < VF_W; l++) {
        v_store(panel + l * width, r[l]);
    }
}
#endif

GEMM_INLINE void gemm_pack_along(const size_t width, size_t lines, size_t kc, const float *src,
                                 size_t stride, const float *s, float *panel)
{
    size_t g = 0;
#ifdef GEMM_TRANSPOSE
    for (; g + VF_W <= width && g + VF_W <= lines; g += VF_W) {
        const float *from = src + g * stride;
        size_t p = 0;
        for (; p + VF_W <= kc; p += VF_W) {
            if (p % 16 == 0) {
                gemm_ask(from + VF_W * stride + p, VF_W, stride);
            }
            gemm_pack_square(width, from + p, stride, s != NULL ? s + p : NULL,
                             panel + g + p * width);
        }
        for (size_t q = 0; q < VF_W && p < kc; q += 4) {
            gemm_pack_four(width, kc - p, from + q * stride + p, stride, 4,
                           s != NULL ? s + p : NULL, panel + g + q + p * width);
        }
    }
#endif
    for (; g < width && g < lines; g += 4) {
        const size_t here = lines - g < 4 ? lines - g : 4;
        const float *from = src + g * stride;
        float *to = panel + g;
        size_t p = 0;
        for (; p + VF_W <= kc && here == 4; p += VF_W) {
            const float *sp = s != NULL ? s + p : NULL;
            if (p % 16 == 0) {
                gemm_ask(from + 4 * stride + p, 4, stride);
            }
            gemm_pack_four(width, VF_W, from + p, stride, 4, sp, to + p * width);
        }
        for (; p < kc; p += VF_W) {
            const size_t n = kc - p < VF_W ? kc - p : VF_W;
            const float *sp = s != NULL ? s + p : NULL;
            gemm_pack_four(width, n, from + p, stride, here, sp, to + p * width);
        }
    }
}
#endif

/* Lines of `lines` contiguous elements at src + p * stride to panel[p * width + 0..lines-1]; of
 * them `readable` may be read (more than `lines` where the operand goes on). Stores whole vectors:
 * what lands behind the line is overwritten by the next one or lies in the slack. */
GEMM_INLINE void gemm_pack_across(const size_t width, size_t lines, size_t readable, size_t kc,
                                  const float *src, size_t stride, float *panel)
{
    const size_t vecs = (width + VF_W - 1) / VF_W;
    for (size_t p = 0; p < kc; p++) {
        T2K_UNROLL
        for (size_t v = 0; v < vecs; v++) {
            const size_t at = v * VF_W;
            vf x = v_zero();
            if (at + VF_W <= readable) {
                x = v_load(src + p * stride + at);
            } else if (at < lines) {
                x = v_load_n(src + p * stride + at, lines - at < VF_W ? lines - at : VF_W);
            }
            v_store(panel + p * width + at, x);
        }
    }
}

/* Rows are copied, T2K_ROW_STRIDE(kc) apart; the rows that follow are asked for. */
GEMM_INLINE void gemm_copy_rows(size_t m, size_t kc, const float *A, size_t a_m, const float *s,
                                float *to)
{
    const size_t ahead = 4, stride = T2K_ROW_STRIDE(kc);
    for (size_t i = 0; i < m; i++, A += a_m, to += stride) {
        size_t p = 0;
        for (; p + 16 <= kc; p += 16) {
            __builtin_prefetch((const char *)((uintptr_t)(A + p) + ahead * a_m * sizeof *A));
            T2K_UNROLL
            for (size_t v = 0; v < 16; v += VF_W) {
                const vf x = v_load(A + p + v);
                v_store(to + p + v, s != NULL ? v_mul(x, v_load(s + p + v)) : x);
            }
        }
        for (; p < kc; p += VF_W) {
            const size_t n = kc - p < VF_W ? kc - p : VF_W;
            const vf x = v_load_n(A + p, n);
            v_store(to + p, s != NULL ? v_mul(x, v_load_n(s + p, n)) : x);
        }
    }
}

void T2K_FN(gemm_pack_a)(size_t m, size_t kc, const float *A, size_t a_m, size_t a_k,
                         const float *s, float *to)
{
    if (a_k == 1) {
        gemm_copy_rows(m, kc, A, a_m, s, to);
        return;
    }
    size_t rows;
    for (size_t i = 0; i < m; i += rows, to += GEMM_MR * kc) {
        rows = gemm_height(m - i, GEMM_MR);
        gemm_pack_across(GEMM_MR, rows, m - i, kc, A + i, a_k, to);
    }
}

/* All panels of a line before the next line: a wide row stride costs a page each. The lines ahead
 * are asked for, as no hardware prefetcher follows such a stride. */
GEMM_INLINE void gemm_pack_lines(size_t panels, size_t kc, const float *src, size_t stride,
                                 float *to, size_t b_panel)
{
    const size_t ahead = 8;
    for (size_t p = 0; p < kc; p++) {
        const float *line = src + p * stride;
        const float *next = p + ahead < kc ? line + ahead * stride : line;
        for (size_t t = 0; t < panels; t++) {
            float *panel = to + t * b_panel + p * GEMM_NR;
            __builtin_prefetch(next + t * GEMM_NR);
            T2K_UNROLL
            for (size_t v = 0; v < GEMM_NV; v++) {
                v_store(panel + v * VF_W, v_load(line + t * GEMM_NR + v * VF_W));
            }
            if (GEMM_NR > 16) {
                __builtin_prefetch(next + t * GEMM_NR + 16);
            }
        }
    }
}

void T2K_FN(gemm_pack_b)(size_t n, size_t kc, const float *B, size_t b_k, size_t b_n,
                         const float *s, float *panels, size_t b_panel)
{
    size_t j = 0;
    if (b_k != 1) {
        gemm_pack_lines(n / GEMM_NR, kc, B, b_k, panels, b_panel);
        j = n / GEMM_NR * GEMM_NR;
        panels += n / GEMM_NR * b_panel;
    }
    for (; j < n; j += GEMM_NR, panels += b_panel) {
        const size_t cols = n - j < GEMM_NR ? n - j : GEMM_NR;
        if (b_k == 1) {
            gemm_pack_along(GEMM_NR, cols, kc, B + j * b_n, b_n, s, panels);
        } else {
            gemm_pack_across(GEMM_NR, cols, cols, kc, B + j, b_k, panels);
        }
    }
}

#endif
