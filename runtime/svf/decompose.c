/* W (m, n) = U diag(S) V^T by LAPACK in double, rounded to what is stored, and verified as stored.
 *
 * LAPACK gets the matrix column by column and upright: W itself where m > n, else W^T, which is W
 * row by row. (dgesdd takes 0.069 s for 1536 x 384 and 0.077 s for 384 x 1536.) Of X = x diag(S)
 * yt, with x (longer, r) and yt (r, shorter), x is U and yt is V^T in the first case; in the
 * second, where W^T = V diag(S) U^T, x is V and yt is U^T. yt column by column is y row by row. */
#include "io/error.h"
#include "model/model.h"
#include "svf/svf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RESIDUAL 1e-5 /* of factors in float, uncut: rounding leaves some 3e-8 */

/* Column by column; at the end x and yt hold the stored factors as doubles, rows of r. */
typedef struct views {
    double *a, *x, *s, *yt, *gram; /* (longer, shorter), (longer, r), (r), (r, shorter), (r, r) */
    t2_scratch *lapack;
} views;

double *t2_scratch_take(t2_scratch *scratch, int64_t count)
{
    if (count > scratch->room) {
        free(scratch->data);
        scratch->data = t2_alloc(count, sizeof(double));
        scratch->room = scratch->data != NULL ? count : 0;
    }
    return scratch->data;
}

void t2_scratch_free(t2_scratch *scratch)
{
    free(scratch->data);
    *scratch = (t2_scratch){NULL, 0};
}

void t2_svd_space_free(t2_svd_space *space)
{
    t2_scratch_free(&space->w);
    t2_scratch_free(&space->factors);
    t2_scratch_free(&space->lapack);
}

/* ---- how many ------------------------------------------------------------------------------ */

static int64_t count_kept(const double *s, int64_t r, const t2_svd_options *options)
{
    int64_t kept = r;
    if (options->energy > 0.0 && s[0] > 0.0) {
        double total = 0.0, sum = 0.0;
        for (int64_t k = r; k-- > 0;) {
            total += (s[k] / s[0]) * (s[k] / s[0]);
        }
        for (kept = 0; kept < r && !(sum >= options->energy * total); kept++) {
            sum += (s[kept] / s[0]) * (s[kept] / s[0]);
        }
    } else if (options->energy > 0.0) {
        kept = 1;
    }
    if (options->rank > 0 && options->rank < kept) {
        kept = options->rank;
    }
    return kept;
}

/* ---- rounding ------------------------------------------------------------------------------ */

/* To nearest, halfway cases to even; x is at most 1. Not by way of the nearest float: two roundings
 * could differ from one. The float in between gets its last bit set where something is left over
 * (rounding to odd), which decides as the rest would. */
static float to_bf16(double x)
{
    float value = (float)x;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((double)value != x) {
        bits -= fabs((double)value) > fabs(x);
        bits |= 1u;
    }
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof value);
    return value;
}

enum { BLOCK = 64 }; /* both sides of a transposition stay in the cache */

/* x (rows, kept) row by row from element (i, k) at from[i * row_step + k * column_step]. */
static void store(const double *from, int64_t row_step, int64_t column_step, int64_t rows,
                  int64_t kept, int bf16, float *x)
{
    for (int64_t i0 = 0; i0 < rows; i0 += BLOCK) {
        int64_t end = i0 + BLOCK < rows ? i0 + BLOCK : rows;
        for (int64_t k0 = 0; k0 < kept; k0 += BLOCK) {
            int64_t last = k0 + BLOCK < kept ? k0 + BLOCK : kept;
            for (int64_t i = i0; i < end && !bf16; i++) {
                for (int64_t k = k0; k < last; k++) {
                    x[i * kept + k] = (float)from[i * row_step + k * column_step];
                }
            }
            for (int64_t i = i0; i < end && bf16; i++) {
                for (int64_t k = k0; k < last; k++) {
                    x[i * kept + k] = to_bf16(from[i * row_step + k * column_step]);
                }
            }
        }
    }
}

static void flip_columns(float *x, int64_t rows, int64_t r, const double *sign)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < r; k++) {
            x[i * r + k] *= (float)sign[k];
        }
    }
}

/* Of each column of U the entry of largest magnitude, the first of equals, becomes positive. The
 * stored values decide, so that the rule holds for what is in the file. `largest` and `sign` have
 * room for r. */
static void fix_signs(t2_decomposition *out, double *largest, double *sign)
{
    for (int64_t k = 0; k < out->r; k++) {
        largest[k] = -1.0;
    }
    for (int64_t i = 0; i < out->m; i++) {
        for (int64_t k = 0; k < out->r; k++) {
            double u = (double)out->U[i * out->r + k];
            if (fabs(u) > largest[k]) {
                largest[k] = fabs(u);
                sign[k] = u < 0.0 ? -1.0 : 1.0;
            }
        }
    }
    flip_columns(out->U, out->m, out->r, sign);
    flip_columns(out->V, out->n, out->r, sign);
}

/* ---- verifying ------------------------------------------------------------------------------ */

static double largest_of(const double *x, int64_t count)
{
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double size = fabs(x[i]);
        largest = size > largest ? size : largest;
    }
    return largest;
}

/* Frobenius norm of x * factor. */
static double norm_of(const double *x, int64_t count, double factor)
{
    double sums[8] = {0.0}; /* independent, so that additions overlap */
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int k = 0; k < 8; k++) {
            double y = x[i + k] * factor;
            sums[k] += y * y;
        }
    }
    for (; i < count; i++) {
        sums[0] += (x[i] * factor) * (x[i] * factor);
    }
    return sqrt((sums[0] + sums[1] + sums[2] + sums[3]) + (sums[4] + sums[5] + sums[6] + sums[7]));
}

/* Largest |x^T x - I| of x (r, rows) column by column. */
static double away_from_identity(const double *x, int64_t rows, int64_t r, double *gram)
{
    double worst = 0.0;
    t2_lapack_gram(r, rows, x, gram);
    for (int64_t k = 0; k < r; k++) {
        for (int64_t j = 0; j <= k; j++) {
            double away = fabs(gram[k * r + j] - (j == k ? 1.0 : 0.0));
            worst = away > worst ? away : worst;
        }
    }
    return worst;
}

static void widen(const float *from, int64_t count, double *to)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = (double)from[i];
    }
}

/* Destroys w. What LAPACK left makes room for the stored factors as doubles, (m, r) and (n, r). */
static void verify(const views *x, double *w, t2_decomposition *out)
{
    const int64_t m = out->m, n = out->n, r = out->r;
    double *u = m > n ? x->x : x->yt, *v = m > n ? x->yt : x->x;
    widen(out->U, m * r, u);
    widen(out->V, n * r, v);
    double of_u = away_from_identity(u, m, r, x->gram), of_v = away_from_identity(v, n, r, x->gram);
    out->orthogonality = of_u > of_v ? of_u : of_v;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t k = 0; k < r; k++) {
            u[i * r + k] *= (double)out->S[k];
        }
    }
    out->residual = 0.0;
    const double largest = largest_of(w, m * n);
    if (largest > 0.0) {
        /* Squares of what is far from 1 would overflow or vanish. */
        const double factor = largest > 0x1p-1000 ? 1.0 / largest : 0x1p1000;
        double whole = norm_of(w, m * n, factor);
        t2_lapack_subtract(n, m, r, v, u, w);
        out->residual = norm_of(w, m * n, factor) / whole;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* w (m, n) row by row to column by column. */
static void transpose(const double *w, int64_t m, int64_t n, double *to)
{
    for (int64_t i0 = 0; i0 < m; i0 += BLOCK) {
        int64_t end = i0 + BLOCK < m ? i0 + BLOCK : m;
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = i0; i < end; i++) {
                to[j * m + i] = w[i * n + j];
            }
        }
    }
}

double t2_svd_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Fills x from w; falls back to the slower routine. */
static t2_status factorise(const char *name, int64_t m, int64_t n, const double *w,
                           t2_routine first, const views *x, t2_decomposition *out, t2_error *err)
{
    char shown[T2_SHOW];
    for (t2_routine routine = first; routine <= T2_DGESVD; routine++) {
        int converged = 0;
        t2_error inner = {T2_OK, ""};
        if (m > n) {
            transpose(w, m, n, x->a);
        } else {
            memcpy(x->a, w, (size_t)(m * n) * sizeof *w);
        }
        const double start = t2_svd_now();
        t2_status status = t2_lapack_svd(routine, m > n ? m : n, m > n ? n : m, x->a, x->x, x->s,
                                         x->yt, x->lapack, &converged, &inner);
        if (status != T2_OK) {
            return t2_fail(err, status, "%s: %s", t2_show(shown, name), inner.message);
        }
        if (converged) {
            out->lapack_seconds = t2_svd_now() - start;
            out->routine = routine;
            return T2_OK;
        }
    }
    return t2_fail(err, T2_ERR_NUMERIC, "%s: neither dgesdd nor dgesvd converges",
                   t2_show(shown, name));
}

static t2_status fill(const char *name, const views *x, double *w, int64_t full,
                      const t2_svd_options *options, t2_decomposition *out, t2_error *err)
{
    char shown[T2_SHOW];
    const int64_t m = out->m, n = out->n, r = out->r;
    out->U = t2_alloc(m * r, sizeof out->U[0]);
    out->S = t2_alloc(r, sizeof out->S[0]);
    out->V = t2_alloc(n * r, sizeof out->V[0]);
    if (out->U == NULL || out->S == NULL || out->V == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory for its factors", t2_show(shown, name));
    }
    for (int64_t k = 0; k < r; k++) {
        out->S[k] = (float)x->s[k];
    }
    if (!isfinite(out->S[0])) {
        return t2_fail(err, T2_ERR_NUMERIC, "%s: its largest singular value %g is beyond float",
                       t2_show(shown, name), x->s[0]);
    }
    if (m > n) {
        store(x->x, 1, m, m, r, options->bf16, out->U);
        store(x->yt, full, 1, n, r, options->bf16, out->V);
    } else {
        store(x->yt, full, 1, m, r, options->bf16, out->U);
        store(x->x, 1, n, n, r, options->bf16, out->V);
    }
    fix_signs(out, x->gram, x->s);
    verify(x, w, out);
    if (!options->bf16 && r == full && !(out->residual <= MAX_RESIDUAL)) {
        return t2_fail(err, T2_ERR_NUMERIC,
                       "%s: expected a residual of at most %g, found %g: the values are too small "
                       "for float, or LAPACK's result is wrong",
                       t2_show(shown, name), MAX_RESIDUAL, out->residual);
    }
    return T2_OK;
}

t2_status t2_decompose(const char *name, int64_t m, int64_t n, double *w,
                       const t2_svd_options *options, t2_routine first, t2_svd_space *space,
                       t2_decomposition *out, t2_error *err)
{
    char shown[T2_SHOW];
    const int64_t full = m < n ? m : n, longer = m < n ? n : m;
    *out = (t2_decomposition){.m = m, .n = n};
    /* a and x are m n long, yt and gram full * full; each begins at a multiple of 8 doubles. */
    int64_t area = longer / 8 + 1, all = 2 * 8;
    double *base = NULL;
    if (t2_multiply(&area, full) && t2_multiply(&all, area)) {
        const int64_t square = (full * full / 8 + 1) * 8, row = (full / 8 + 1) * 8;
        base = t2_scratch_take(&space->factors, all + 2 * square + row);
        if (base != NULL) {
            double *yt = base + all, *gram = yt + square;
            views x = {base, base + all / 2, gram + square, yt, gram, &space->lapack};
            t2_status status = factorise(name, m, n, w, first, &x, out, err);
            if (status == T2_OK) {
                out->r = count_kept(x.s, full, options);
                status = fill(name, &x, w, full, options, out, err);
            }
            if (status != T2_OK) {
                t2_decomposition_free(out);
            }
            return status;
        }
    }
    return t2_fail(err, T2_ERR_NOMEM, "%s: no memory to decompose %lld x %lld",
                   t2_show(shown, name), (long long)m, (long long)n);
}

void t2_decomposition_free(t2_decomposition *decomposition)
{
    free(decomposition->U);
    free(decomposition->S);
    free(decomposition->V);
    decomposition->U = decomposition->S = decomposition->V = NULL;
}
