/* W (m, n) = U diag(S) V^T by LAPACK in double, rounded to what is stored, and verified as stored.
 *
 * W row by row is W^T column by column, and W^T = V diag(S) U^T: LAPACK's u (n, r) is V, and its
 * vt (r, m), column by column, is U (m, r) row by row. */
#include "io/error.h"
#include "model/model.h"
#include "svf/svf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RESIDUAL 1e-5 /* of factors in float, uncut: rounding leaves some 3e-8 */

typedef struct scratch {
    double *a, *v, *s, *ut, *gram; /* (n, m), (n, r), (r), (r, m), (r, r), column by column */
} scratch;

static void scratch_free(scratch *x)
{
    free(x->a);
    free(x->v);
    free(x->s);
    free(x->ut);
    free(x->gram);
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

/* To nearest, halfway cases to even; x is at most 1. */
static float to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Straight to bf16 where that is what is stored: two roundings could differ from one. */
static float round_to(double x, int bf16)
{
    float near = (float)x;
    if (!bf16 || (double)near == x) {
        return bf16 ? to_bf16(near) : near;
    }
    /* The last bit says that something is left over (rounding to odd). */
    uint32_t bits;
    float toward = near;
    memcpy(&bits, &near, sizeof bits);
    if (fabs((double)near) > fabs(x)) {
        bits -= 1;
    }
    bits |= 1u;
    memcpy(&toward, &bits, sizeof toward);
    return to_bf16(toward);
}

/* x (rows, kept) row by row from element (i, k) at from[i * row_step + k * column_step]. */
static void store(const double *from, int64_t row_step, int64_t column_step, int64_t rows,
                  int64_t kept, int bf16, float *x)
{
    enum { BLOCK = 64 }; /* both sides of a transposition stay in the cache */
    for (int64_t i0 = 0; i0 < rows; i0 += BLOCK) {
        int64_t end = i0 + BLOCK < rows ? i0 + BLOCK : rows;
        for (int64_t k0 = 0; k0 < kept; k0 += BLOCK) {
            int64_t last = k0 + BLOCK < kept ? k0 + BLOCK : kept;
            for (int64_t i = i0; i < end; i++) {
                for (int64_t k = k0; k < last; k++) {
                    x[i * kept + k] = round_to(from[i * row_step + k * column_step], bf16);
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
        largest = fmax(largest, fabs(x[i]));
    }
    return largest;
}

/* Frobenius norm of x / scale. */
static double norm_of(const double *x, int64_t count, double scale)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (x[i] / scale) * (x[i] / scale);
    }
    return sqrt(sum);
}

/* Largest |x^T x - I| of x (r, rows) column by column. */
static double away_from_identity(const double *x, int64_t rows, int64_t r, double *gram)
{
    double worst = 0.0;
    t2_lapack_gram(r, rows, x, gram);
    for (int64_t k = 0; k < r; k++) {
        for (int64_t j = 0; j <= k; j++) {
            worst = fmax(worst, fabs(gram[k * r + j] - (j == k ? 1.0 : 0.0)));
        }
    }
    return worst;
}

/* Destroys w. What LAPACK left in x makes room for the stored factors as doubles. */
static void verify(const scratch *x, double *w, t2_decomposition *out)
{
    const int64_t m = out->m, n = out->n, r = out->r;
    for (int64_t i = 0; i < m * r; i++) {
        x->ut[i] = (double)out->U[i];
    }
    for (int64_t i = 0; i < n * r; i++) {
        x->v[i] = (double)out->V[i];
    }
    out->orthogonality =
        fmax(away_from_identity(x->ut, m, r, x->gram), away_from_identity(x->v, n, r, x->gram));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t k = 0; k < r; k++) {
            x->ut[i * r + k] *= (double)out->S[k];
        }
    }
    double scale = largest_of(w, m * n);
    out->residual = 0.0;
    if (scale > 0.0) {
        double whole = norm_of(w, m * n, scale);
        t2_lapack_subtract(n, m, r, x->v, x->ut, w);
        out->residual = norm_of(w, m * n, scale) / whole;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* Fills x from w; falls back to the slower routine. */
static t2_status factorise(const char *name, int64_t m, int64_t n, const double *w,
                           t2_routine first, const scratch *x, t2_decomposition *out, t2_error *err)
{
    char shown[T2_SHOW];
    for (t2_routine routine = first; routine <= T2_DGESVD; routine++) {
        int converged = 0;
        t2_error inner = {T2_OK, ""};
        memcpy(x->a, w, (size_t)(m * n) * sizeof *w);
        t2_status status =
            t2_lapack_svd(routine, n, m, x->a, x->v, x->s, x->ut, &converged, &inner);
        if (status != T2_OK) {
            return t2_fail(err, status, "%s: %s", t2_show(shown, name), inner.message);
        }
        if (converged) {
            out->routine = routine;
            return T2_OK;
        }
    }
    return t2_fail(err, T2_ERR_NUMERIC, "%s: neither dgesdd nor dgesvd converges",
                   t2_show(shown, name));
}

static t2_status fill(const char *name, const scratch *x, double *w, int64_t full,
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
    store(x->ut, full, 1, m, r, options->bf16, out->U);
    store(x->v, 1, n, n, r, options->bf16, out->V);
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
                       const t2_svd_options *options, t2_routine first, t2_decomposition *out,
                       t2_error *err)
{
    char shown[T2_SHOW];
    const int64_t full = m < n ? m : n;
    *out = (t2_decomposition){.m = m, .n = n};
    int64_t size = m, square = full;
    if (!t2_multiply(&size, n) || !t2_multiply(&square, full)) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory", t2_show(shown, name));
    }
    scratch x = {t2_alloc(size, sizeof(double)), t2_alloc(n * full, sizeof(double)),
                 t2_alloc(full, sizeof(double)), t2_alloc(full * m, sizeof(double)),
                 t2_alloc(square, sizeof(double))};
    t2_status status;
    if (x.a == NULL || x.v == NULL || x.s == NULL || x.ut == NULL || x.gram == NULL) {
        status = t2_fail(err, T2_ERR_NOMEM, "%s: no memory to decompose %lld x %lld",
                         t2_show(shown, name), (long long)m, (long long)n);
    } else {
        status = factorise(name, m, n, w, first, &x, out, err);
    }
    if (status == T2_OK) {
        out->r = count_kept(x.s, full, options);
        status = fill(name, &x, w, full, options, out, err);
    }
    scratch_free(&x);
    if (status != T2_OK) {
        t2_decomposition_free(out);
    }
    return status;
}

void t2_decomposition_free(t2_decomposition *decomposition)
{
    free(decomposition->U);
    free(decomposition->S);
    free(decomposition->V);
    decomposition->U = decomposition->S = decomposition->V = NULL;
}
