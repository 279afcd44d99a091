/* Rows of layer norm (NORM_CENTERED 1) and RMS norm (0); layernorm.h and rmsnorm.h have the
 * formulas. Sums in the order of tmpl/reduce.h.
 *
 * Rows go in blocks of up to BLOCK_ROWS that stay in the first cache, phase by phase: with layer
 * norm the mean of the heads; the sums; the output. So the latencies of their reductions overlap,
 * the last steps of the tree are done for eight rows at once (v_sum8), and division and square root
 * for VF_W rows. The output of a block comes after the first phase of the next one, which hides
 * what latency is left, and takes OUT_ROWS rows at a time, which share the loads of weight and
 * bias. z is taken anew from X, scale and residual in each phase: storing it would cost more. Tails
 * are masked.
 *
 * Cycles a vector of the plain layer norm's loops, sums and output, by llvm-mca: AVX2 on Zen 3 1.5
 * and 2.1, on Skylake-X 1.5 and 1.6; AVX-512 on Skylake-X 1.5 and 1.8. Measured on Zen 4, AVX-512:
 * 2.2 and 3.2. Its fused steps and its stores share something: two of the former and one of the
 * latter take 3.2 cycles, a difference and one fused step with a store 2.1. */
#include <math.h>

#include "tmpl/reduce.h"

#define BLOCK_ROWS 8
/* Of a block and an operand: 16 KB of the first cache, but two rows where they are a page apart:
 * with four, X, Y, weight and bias would take ten lines of a set of eight. */
#define BLOCK_FLOATS 4080
/* Of a block in memory: a page. Prefetchers follow few pages at a time. */
#define STREAM_FLOATS 1024
#define STREAM_MIXED_FLOATS 512 /* of each of two operands */
/* Rows of about a page go one by one: two of them, the two before and their results leave the first
 * cache. Those of several pages do that alone, and rather share weight and bias. */
#define ALONE_LEAST 960
#define ALONE_MOST 3072
#define OUT_ROWS 2
#define OUT_VECTORS 4 /* at a time, of a row alone */
#define STAT_VECTORS (VF_W > BLOCK_ROWS ? 1 : BLOCK_ROWS / VF_W)
#define STAT_ROWS (STAT_VECTORS * VF_W)
/* One sum a lane needs half of the registers that two do. */
#define NORM_SWEEP (NORM_CENTERED ? LANE_SWEEP : LANE_VECTORS)

/* What all rows share. */
typedef struct norm_job {
    size_t cols;
    size_t ldx, ldy;
    const t2k_norm_params *p;
    int stream; /* Y goes around the caches */
} norm_job;

/* A block on its way: its rows and their numbers, one row a lane. */
typedef struct norm_block {
    size_t rows;
    const float *x, *r;       /* (rows, ldx) and (rows, ldr) or NULL */
    float *z;                 /* (rows, lds): where z is stored, or NULL */
    float *y;                 /* (rows, ldy) */
    int odd;                  /* some row's i is not a positive number: out_odd_row() */
    vf sum[STAT_VECTORS];     /* of the head, then of d */
    vf squares[STAT_VECTORS]; /* sum of d^2, with RMS norm of z^2 */
    float mean[STAT_ROWS];    /* m0 */
    float shift[STAT_ROWS];   /* -(c * i) */
    float inverse[STAT_ROWS]; /* i */
} norm_block;

/* ---- sums ----------------------------------------------------------------------------------- */

/* `n` (1 .. VF_W) elements. */
ROW_INLINE vf load_some(const float *p, size_t n)
{
    return n == VF_W ? v_load(p) : v_load_n(p, n);
}

/* z of `n` (1 .. VF_W) elements from j on. */
ROW_INLINE vf load_z(size_t j, size_t n, const float *x, const float *scale, const float *residual)
{
    vf z = load_some(x + j, n);
    if (scale != NULL) {
        z = v_mul(z, load_some(scale + j, n));
    }
    if (residual != NULL) {
        z = v_add(z, load_some(residual + j, n));
    }
    return z;
}

/* The same; z is also stored unless that is NULL. */
ROW_INLINE vf take_z(size_t j, size_t n, const float *x, const float *scale, const float *residual,
                     float *z)
{
    const vf a = load_z(j, n, x, scale, residual);
    if (z != NULL && n == VF_W) {
        v_store(z + j, a);
    } else if (z != NULL) {
        v_store_n(z + j, a, n);
    }
    return a;
}

/* A sweep over a row: half of its lane vectors from `first` on, the others half of all lanes
 * further, so that the first step of the tree ends it. A lane begins with its first element instead
 * of +0 + that: this differs at most in the sign of a zero, which mean_square() mends. Scale,
 * residual and z are NULL or not as constants. */
ROW_INLINE void sweep_row(size_t first, size_t n, const float *x, const float *scale,
                          const float *residual, float *z, vf mean, vf sum[LANE_VECTORS / 2],
                          vf squares[LANE_VECTORS / 2])
{
    const vf one = v_set1(1.0f); /* half of s by a * 1 + s, so that all units have as much to do */
    vf s[NORM_SWEEP], q[NORM_SWEEP];
    size_t at[NORM_SWEEP], j = 0;
    UNROLL_LANES
    for (size_t v = 0; v < NORM_SWEEP; v++) {
        at[v] = v < NORM_SWEEP / 2 ? first + v : first + v + LANE_VECTORS / 2 - NORM_SWEEP / 2;
        at[v] *= VF_W;
        s[v] = q[v] = v_zero();
    }
    if (n >= T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < NORM_SWEEP; v++) {
            const vf a = take_z(at[v], VF_W, x, scale, residual, z);
            s[v] = NORM_CENTERED ? v_sub(a, mean) : a;
            q[v] = v_mul(s[v], s[v]);
        }
        j = T2K_LANES;
    }
    for (; j + T2K_LANES <= n; j += T2K_LANES) {
        if (NORM_SWEEP < LANE_VECTORS && first == 0) { /* the lines that the next sweep reads */
            UNROLL_LANES
            for (size_t v = 0; v < LANE_VECTORS; v += LANE_VECTORS / 2) {
                const size_t line = j + (v + NORM_SWEEP / 2) * VF_W;
                __builtin_prefetch(x + line);
                if (residual != NULL) {
                    __builtin_prefetch(residual + line);
                }
            }
        }
        UNROLL_LANES
        for (size_t v = 0; v < NORM_SWEEP; v++) {
            vf a = take_z(j + at[v], VF_W, x, scale, residual, z);
            if (NORM_CENTERED) {
                a = v_sub(a, mean);
                s[v] = v >= NORM_SWEEP / 2 ? v_fma(a, one, s[v]) : v_add(s[v], a);
            }
            q[v] = v_fma(a, a, q[v]);
        }
    }
    if (j < n) {
        UNROLL_LANES
        for (size_t v = 0; v < NORM_SWEEP; v++) {
            if (j + at[v] < n) {
                const size_t left = n - j - at[v], now = left < VF_W ? left : VF_W;
                vf a = take_z(j + at[v], now, x, scale, residual, z);
                if (NORM_CENTERED) { /* lanes past the end: +0 */
                    a = v_select(vm_first(now), v_sub(a, mean), v_zero());
                    s[v] = v_add(s[v], a);
                }
                q[v] = v_fma(a, a, q[v]);
            }
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < NORM_SWEEP / 2; v++) {
        sum[first + v] = v_add(s[v], s[v + NORM_SWEEP / 2]);
        squares[first + v] = v_add(q[v], q[v + NORM_SWEEP / 2]);
    }
}

/* What is left of `rows` rows, one vector each, down to a lane for each; lanes without a row get
 * any sum. Not by way of memory: a load of more than was stored waits for all stores before it. */
ROW_INLINE void sum_lanes(size_t rows, vf *of_row, vf *sums)
{
    if (rows == 1) {
        sums[0] = v_set1(v_sum_lanes(of_row[0]));
    } else {
        for (size_t i = rows; i < BLOCK_ROWS; i++) {
            of_row[i] = v_zero();
        }
        v_sum8(of_row, sums);
    }
}

/* The sums of a block's rows, down to one vector each; scale, r and z are NULL or not as constants.
 */
ROW_INLINE void sum_rows(const norm_job *job, const norm_block *b, const float *x, size_t ldx,
                         const float *scale, const float *r, float *z, vf *sum, vf *squares)
{
    const size_t n = job->cols, ldr = job->p->ldr, lds = job->p->lds;
    for (size_t i = 0; i < b->rows; i++) {
        vf s[LANE_VECTORS / 2], q[LANE_VECTORS / 2];
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS / 2; v += NORM_SWEEP / 2) {
            sweep_row(v, n, x + i * ldx, scale, r != NULL ? r + i * ldr : NULL,
                      z != NULL ? z + i * lds : NULL, v_set1(b->mean[i]), s, q);
        }
        squares[i] = lanes_fold(q, LANE_VECTORS / 2);
        if (NORM_CENTERED) {
            sum[i] = lanes_fold(s, LANE_VECTORS / 2);
        }
    }
}

/* b->sum and b->squares; z is stored where it is wanted, or, `again`, read from there. */
static void block_sums(const norm_job *job, norm_block *b, int again)
{
    const float *x = b->x, *scale = job->p->scale, *r = b->r;
    const size_t ldx = job->ldx;
    vf sum[BLOCK_ROWS], squares[BLOCK_ROWS];
    if (b->z != NULL && again) {
        sum_rows(job, b, b->z, job->p->lds, NULL, NULL, NULL, sum, squares);
    } else if (b->z != NULL && scale == NULL && r != NULL) {
        sum_rows(job, b, x, ldx, NULL, r, b->z, sum, squares);
    } else if (b->z != NULL || (scale != NULL && r == NULL)) {
        sum_rows(job, b, x, ldx, scale, r, b->z, sum, squares);
    } else if (scale != NULL) {
        sum_rows(job, b, x, ldx, scale, r, NULL, sum, squares);
    } else if (r != NULL) {
        sum_rows(job, b, x, ldx, NULL, r, NULL, sum, squares);
    } else {
        sum_rows(job, b, x, ldx, NULL, NULL, NULL, sum, squares);
    }
    if (NORM_CENTERED) {
        sum_lanes(b->rows, sum, b->sum);
    }
    sum_lanes(b->rows, squares, b->squares);
}

#if NORM_CENTERED
/* Sums of the heads, `n` (1 .. T2K_LANES) elements, down to one vector; scale and r are NULL or not
 * and n is T2K_LANES as constants. */
ROW_INLINE void head_rows(const norm_job *job, const norm_block *b, size_t n, const float *scale,
                          const float *r, vf *sum)
{
    for (size_t i = 0; i < b->rows; i++) {
        vf lanes[LANE_VECTORS];
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v++) {
            const size_t at = v * VF_W;
            lanes[v] = v_zero();
            if (at < n) {
                lanes[v] = load_z(at, n - at < VF_W ? n - at : VF_W, b->x + i * job->ldx, scale,
                                  r != NULL ? r + i * job->p->ldr : NULL);
            }
        }
        sum[i] = lanes_fold(lanes, LANE_VECTORS);
    }
}

/* b->mean: of the first T2K_LANES elements, one a lane. */
static void block_heads(const norm_job *job, norm_block *b)
{
    const float *scale = job->p->scale, *r = b->r;
    const size_t n = job->cols < T2K_LANES ? job->cols : T2K_LANES;
    vf sum[BLOCK_ROWS];
    if (n < T2K_LANES) {
        head_rows(job, b, n, scale, r, sum);
    } else if (scale == NULL && r == NULL) {
        head_rows(job, b, T2K_LANES, NULL, NULL, sum);
    } else if (scale == NULL) {
        head_rows(job, b, T2K_LANES, NULL, r, sum);
    } else {
        head_rows(job, b, T2K_LANES, scale, r, sum);
    }
    sum_lanes(b->rows, sum, b->sum);
    for (size_t i = 0; i * VF_W < b->rows; i++) {
        const vf total = v_add(b->sum[i], v_zero()); /* never -0 */
        v_store(b->mean + i * VF_W, v_div(total, v_set1((float)n)));
    }
}
#endif

/* ---- numbers of the rows -------------------------------------------------------------------- */

/* Mean square, with layer norm the variance, of VF_W rows; *c: what m0 is off. */
ROW_INLINE vf mean_square(vf sum, vf squares, vf n, vf *c)
{
    vf square = v_div(squares, n);
    if (NORM_CENTERED) {
        *c = v_div(v_add(sum, v_zero()), n);              /* never -0 */
        square = v_max(v_zero(), v_fnma(*c, *c, square)); /* NaN stays */
    }
    return square;
}

/* Rows whose i is not a positive number. */
ROW_INLINE vm odd_rows(vf inverse)
{
    return vm_or(v_nan(v_sub(inverse, inverse)), v_eq(inverse, v_zero()));
}

#if NORM_CENTERED
/* The heads of some rows may be so far off the mean that c^2 > 2 var: a better m0 for those.
 * Returns whether there are any; the other rows' m0 stays, so their sums come out as before. */
static int block_far_heads(const norm_job *job, norm_block *b)
{
    const vf n = v_set1((float)job->cols);
    int any = 0;
    if (job->cols <= T2K_LANES) {
        return 0; /* m0 is the mean */
    }
    for (size_t i = 0; i * VF_W < b->rows; i++) {
        vf c, var = mean_square(b->sum[i], b->squares[i], n, &c);
        const vf mean = v_load(b->mean + i * VF_W);
        const vm far = v_lt(v_add(var, var), v_mul(c, c));
        v_store(b->mean + i * VF_W, v_select(far, v_add(mean, c), mean));
        any |= vm_any(far);
    }
    return any;
}
#endif

/* b->shift, b->inverse and b->odd. */
static void block_numbers(const norm_job *job, norm_block *b)
{
    const vf n = v_set1((float)job->cols), one = v_set1(1.0f);
    b->odd = 0;
    for (size_t i = 0; i < b->rows; i += VF_W) {
        vf c = v_zero();
        const vf square = mean_square(b->sum[i / VF_W], b->squares[i / VF_W], n, &c);
        const vf inverse = v_div(one, v_sqrt(v_add(square, v_set1(job->p->eps))));
        if (NORM_CENTERED) {
            v_store(b->shift + i, v_fnma(c, inverse, v_zero()));
        }
        v_store(b->inverse + i, inverse);
        const vm odd = odd_rows(inverse);
        for (size_t k = 0; k < VF_W && vm_any(odd); k++) {
            b->odd |= i + k < b->rows && !(b->inverse[i + k] > 0 && b->inverse[i + k] < INFINITY);
        }
    }
}

static void block_begin(const norm_job *job, norm_block *b)
{
#if NORM_CENTERED
    block_heads(job, b);
#else
    block_sums(job, b, 0);
    block_numbers(job, b);
#endif
}

static void block_middle(const norm_job *job, norm_block *b)
{
#if NORM_CENTERED
    block_sums(job, b, 0);
    if (block_far_heads(job, b)) {
        block_sums(job, b, 1);
    }
    block_numbers(job, b);
#else
    (void)job;
    (void)b;
#endif
}

/* ---- output --------------------------------------------------------------------------------- */

/* The numbers of one row, each in every lane. */
typedef struct row_numbers {
    vf mean, shift, inverse;
} row_numbers;

ROW_INLINE row_numbers numbers_of(const norm_block *b, size_t row)
{
    row_numbers r = {v_zero(), v_zero(), v_set1(b->inverse[row])};
    if (NORM_CENTERED) {
        r.mean = v_set1(b->mean[row]);
        r.shift = v_set1(b->shift[row]);
    }
    return r;
}

/* y from z, weight and bias, of which some may be absent. */
ROW_INLINE vf normal(vf z, row_numbers r, int weighted, vf w, int biased, vf b)
{
    const vf t = NORM_CENTERED ? v_fma(v_sub(z, r.mean), r.inverse, r.shift) : v_mul(z, r.inverse);
    if (weighted && biased) {
        return v_fma(t, w, b);
    }
    return weighted ? v_mul(t, w) : biased ? v_add(t, b) : t;
}

/* What the output of some rows is made of; scale, r, weight and bias are NULL or not. */
typedef struct out_from {
    const float *x, *scale, *r, *weight, *bias;
    size_t ldx, ldr;
    size_t ahead; /* rows from this to that of the next block */
} out_from;

/* Output of `count` rows, `n` (1 .. VF_W) elements from j on. */
ROW_INLINE void out_step(size_t count, int stream, size_t j, size_t n, out_from f,
                         const row_numbers *r, float *Y, size_t ldy)
{
    const vf s = f.scale != NULL ? load_some(f.scale + j, n) : v_zero();
    const vf w = f.weight != NULL ? load_some(f.weight + j, n) : v_zero();
    const vf b = f.bias != NULL ? load_some(f.bias + j, n) : v_zero();
    if (stream) { /* the next block, into the second cache */
        __builtin_prefetch(f.x + f.ahead * f.ldx + j, 0, 2);
        if (f.r != NULL) {
            __builtin_prefetch(f.r + f.ahead * f.ldr + j, 0, 2);
        }
    }
    UNROLL_LANES
    for (size_t i = 0; i < count; i++) {
        float *y = Y + i * ldy + j;
        vf z = load_some(f.x + i * f.ldx + j, n);
        z = f.scale != NULL ? v_mul(z, s) : z;
        z = f.r != NULL ? v_add(z, load_some(f.r + i * f.ldr + j, n)) : z;
        const vf a = normal(z, r[i], f.weight != NULL, w, f.bias != NULL, b);
        if (n < VF_W) {
            v_store_n(y, a, n);
        } else if (stream) {
            v_stream(y, a);
        } else {
            v_store(y, a);
        }
    }
}

/* Output of `count` rows from `row` on; count, stream and which of scale, r, weight and bias there
 * are, are constants where that matters. A row is streamed from its first aligned column on. */
ROW_INLINE void out_rows(size_t count, int stream, const norm_job *job, const norm_block *b,
                         size_t row, const float *scale, const float *residual, const float *weight,
                         const float *bias)
{
    const size_t n = job->cols, ldy = job->ldy, ldx = b->z != NULL ? job->p->lds : job->ldx;
    const out_from f = {.x = (b->z != NULL ? b->z : b->x) + row * ldx,
                        .scale = scale,
                        .r = residual != NULL ? residual + row * job->p->ldr : NULL,
                        .weight = weight,
                        .bias = bias,
                        .ldx = ldx,
                        .ldr = job->p->ldr,
                        .ahead = b->rows};
    float *y = b->y + row * ldy;
    row_numbers r[OUT_ROWS];
    UNROLL_LANES
    for (size_t i = 0; i < count; i++) {
        r[i] = numbers_of(b, row + i);
    }
    size_t j = 0;
    if (stream) {
        const size_t past = (uintptr_t)y / sizeof *y % VF_W;
        const size_t head = past == 0 ? 0 : VF_W - past < n ? VF_W - past : n;
        if (head > 0) {
            out_step(count, 0, 0, head, f, r, y, ldy);
            j = head;
        }
    }
    for (; count == 1 && j + OUT_VECTORS * VF_W <= n; j += OUT_VECTORS * VF_W) {
        UNROLL_LANES
        for (size_t v = 0; v < OUT_VECTORS; v++) {
            out_step(count, stream, j + v * VF_W, VF_W, f, r, y, ldy);
        }
    }
    for (; j + VF_W <= n; j += VF_W) {
        out_step(count, stream, j, VF_W, f, r, y, ldy);
    }
    if (j < n) {
        out_step(count, 0, j, n - j, f, r, y, ldy);
    }
}

/* Output of one row, whatever it has. */
static void out_row(const norm_job *job, const norm_block *b, size_t row)
{
    const float *weight = job->p->weight, *bias = NORM_CENTERED ? job->p->bias : NULL;
    const float *scale = b->z == NULL ? job->p->scale : NULL, *r = b->z == NULL ? b->r : NULL;
    if (scale != NULL || r != NULL) {
        out_rows(1, 0, job, b, row, scale, r, weight, bias);
    } else if (weight != NULL && bias != NULL) {
        out_rows(1, 0, job, b, row, NULL, NULL, weight, bias);
    } else if (weight != NULL) {
        out_rows(1, 0, job, b, row, NULL, NULL, weight, NULL);
    } else if (bias != NULL) {
        out_rows(1, 0, job, b, row, NULL, NULL, NULL, bias);
    } else {
        out_rows(1, 0, job, b, row, NULL, NULL, NULL, NULL);
    }
}

/* Output of a row whose squares overflowed or vanished, or which is not finite: the same of z *
 * 2^-96 or z * 2^96, with eps in proportion. NaN where that has no numbers either. */
static void out_odd_row(const norm_job *job, const norm_block *b, size_t row)
{
    const float *x = b->z != NULL ? b->z + row * job->p->lds : b->x + row * job->ldx;
    const float *scale = b->z == NULL ? job->p->scale : NULL;
    const float *r = b->z == NULL && b->r != NULL ? b->r + row * job->p->ldr : NULL;
    const float factor = b->inverse[row] > 0 ? 0x1p96f : 0x1p-96f;
    const t2k_norm_params p = {
        .weight = job->p->weight, .bias = job->p->bias, .eps = job->p->eps * factor * factor};
    norm_block one = {.rows = 1, .y = b->y + row * job->ldy};
    const norm_job scaled = {.cols = job->cols, .ldx = job->ldy, .p = &p, .ldy = job->ldy};
    for (size_t j = 0; j < job->cols; j++) {
        float z = x[j];
        z = scale != NULL ? z * scale[j] : z;
        z = r != NULL ? z + r[j] : z;
        one.y[j] = z * factor;
    }
    one.x = one.y;
    block_begin(&scaled, &one);
    block_middle(&scaled, &one);
    if (one.odd) {
        one.inverse[0] = NAN;
    }
    out_row(&scaled, &one, 0);
}

/* Output of a block that has what layers have. */
ROW_INLINE void out_block(const norm_job *job, const norm_block *b, const float *scale,
                          const float *r, const float *weight, const float *bias)
{
    size_t i = 0;
    for (; job->stream && i < b->rows; i++) {
        out_rows(1, 1, job, b, i, scale, r, weight, bias);
    }
    for (; i + OUT_ROWS <= b->rows; i += OUT_ROWS) {
        out_rows(OUT_ROWS, 0, job, b, i, scale, r, weight, bias);
    }
    for (; i < b->rows; i++) {
        out_rows(1, 0, job, b, i, scale, r, weight, bias);
    }
}

static void block_end(const norm_job *job, const norm_block *b)
{
    const float *weight = job->p->weight, *bias = NORM_CENTERED ? job->p->bias : NULL;
    const float *scale = b->z == NULL ? job->p->scale : NULL, *r = b->z == NULL ? b->r : NULL;
    const int usual = weight != NULL && (bias != NULL || !NORM_CENTERED) && !b->odd;
    if (usual && scale == NULL && r == NULL) {
        out_block(job, b, NULL, NULL, weight, bias);
    } else if (usual && scale == NULL) {
        out_block(job, b, NULL, r, weight, bias);
    } else if (usual && r != NULL) {
        out_block(job, b, scale, r, weight, bias);
    } else {
        for (size_t i = 0; i < b->rows; i++) {
            if (b->inverse[i] > 0 && b->inverse[i] < INFINITY) {
                out_row(job, b, i);
            } else {
                out_odd_row(job, b, i);
            }
        }
    }
}

static __attribute__((noinline)) void norm_rows(size_t rows, size_t cols, const float *X,
                                                size_t ldx, const t2k_norm_params *p, float *Y,
                                                size_t ldy)
{
    const size_t operands = p->residual != NULL || p->sum != NULL ? 2 : 1;
    const size_t width = (cols + VF_W - 1) / VF_W * VF_W;
    const size_t page = operands > 1 ? STREAM_MIXED_FLOATS : STREAM_FLOATS;
    const size_t fit = p->stream ? page / width : BLOCK_FLOATS / operands / width / 2 * 2;
    const int alone = p->stream ? fit <= 1 : cols >= ALONE_LEAST && cols <= ALONE_MOST;
    const size_t most = alone ? 1 : fit < 2 ? 2 : fit < BLOCK_ROWS ? fit : BLOCK_ROWS;
    const norm_job job = {.cols = cols,
                          .ldx = ldx,
                          .p = p,
                          .ldy = ldy,
                          .stream = p->stream && X != Y && p->residual != Y};
    norm_block block[2];
    for (size_t i = 0, turn = 0; i < rows + most; i += most, turn ^= 1) {
        norm_block *now = &block[turn], *last = &block[turn ^ 1];
        if (i < rows) {
            now->rows = rows - i < most ? rows - i : most;
            now->x = X + i * ldx;
            now->r = p->residual != NULL ? p->residual + i * p->ldr : NULL;
            now->z = p->sum != NULL ? p->sum + i * p->lds : NULL;
            now->y = Y + i * ldy;
            block_begin(&job, now);
        }
        if (i > 0 && !p->stream) {
            block_end(&job, last);
        }
        if (i < rows) {
            block_middle(&job, now);
        }
        if (i < rows && p->stream) { /* X is read block by block, as memory likes it */
            block_end(&job, now);
        }
    }
    if (job.stream) {
        v_stream_end();
    }
}
