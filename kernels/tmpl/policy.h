/* What training takes from rows of logits x, without a second copy of them (docs/numerics.md):
 *   m = max x + 0, d = m - x, e = exp(-d), S = sum e by the order of tmpl/reduce.h, L = log S;
 *   p = e (1/S), softmax's bits;  -log p = d + L
 * and likewise of the base's row: q, db + Lb. With c = (db + Lb) - (d + L) = log p - log q:
 *   KL(p||q) = sum p c, gradient p (c - KL);  KL(q||p) = -sum q c, gradient p - q;
 *   entropy = sum p (d + L). Terms with p = 0 (q = 0) are left out, which is their limit.
 * The gradient is k g + w (p - [label]); it may be written over x or the base's row. exp is taken
 * anew in each pass instead of being stored. */
#include "tmpl/log.h"
#include "tmpl/reduce.h"

#define POLICY_STEP (EXP_GROUP * VF_W)

/* A row of logits and its numbers, in every lane. */
typedef struct policy_row {
    const float *x;
    vf max, log_sum, inverse;
} policy_row;

/* Elements j .. of a row, `left` of them there (a constant POLICY_STEP or fewer): -log p and p;
 * lanes past the end have p = 0. Only e, not yet divided, where log_sum does not count yet. */
ROW_INLINE void policy_load(const policy_row *row, size_t j, size_t left, vf surprise[EXP_GROUP],
                            vf p[EXP_GROUP])
{
    size_t n[EXP_GROUP];
    T2K_UNROLL
    for (size_t i = 0; i < EXP_GROUP; i++) {
        n[i] = left >= (i + 1) * VF_W ? VF_W : left > i * VF_W ? left - i * VF_W : 0;
        p[i] = v_zero();
        if (n[i] == VF_W) {
            p[i] = v_sub(row->max, v_load(row->x + j + i * VF_W));
        } else if (n[i] > 0) {
            const vf x = v_load_n(row->x + j + i * VF_W, n[i]);
            p[i] = v_select(vm_first(n[i]), v_sub(row->max, x), v_zero());
        }
        surprise[i] = v_add(p[i], row->log_sum);
    }
    v_exp_minus(p, EXP_GROUP);
    T2K_UNROLL
    for (size_t i = 0; i < EXP_GROUP; i++) {
        p[i] = v_mul(p[i], row->inverse);
        if (n[i] < VF_W) {
            p[i] = v_select(vm_first(n[i]), p[i], v_zero());
        }
    }
}

/* What policy_sum() sums. */
enum { POLICY_EXP, POLICY_KL, POLICY_REVERSE_KL, POLICY_ENTROPY };

/* POLICY_STEP elements or what is left of them, into their lanes; `what` is a constant. */
ROW_INLINE void policy_add(const int what, const policy_row *row, const policy_row *base, size_t j,
                           size_t left, vf lanes[EXP_GROUP])
{
    vf s[EXP_GROUP], p[EXP_GROUP], sb[EXP_GROUP], q[EXP_GROUP];
    policy_load(row, j, left, s, p);
    if (what == POLICY_KL || what == POLICY_REVERSE_KL) {
        policy_load(base, j, left, sb, q);
    }
    T2K_UNROLL
    for (size_t i = 0; i < EXP_GROUP; i++) {
        vf weight = p[i], factor = s[i];
        if (what == POLICY_EXP) {
            lanes[i] = v_add(lanes[i], p[i]);
            continue;
        }
        if (what == POLICY_KL) {
            factor = v_sub(sb[i], s[i]);
        } else if (what == POLICY_REVERSE_KL) {
            weight = q[i];
            factor = v_sub(s[i], sb[i]);
        }
        lanes[i] = v_select(v_eq(weight, v_zero()), lanes[i], v_fma(weight, factor, lanes[i]));
    }
}

ROW_INLINE float policy_sum(const int what, size_t cols, const policy_row *row,
                            const policy_row *base)
{
    vf lanes[LANE_VECTORS];
    size_t j = 0;
    lanes_start(lanes);
    for (; j + T2K_LANES <= cols; j += T2K_LANES) {
        UNROLL_LANES
        for (size_t v = 0; v < LANE_VECTORS; v += EXP_GROUP) {
            policy_add(what, row, base, j + v * VF_W, POLICY_STEP, lanes + v);
        }
    }
    UNROLL_LANES
    for (size_t v = 0; v < LANE_VECTORS; v += EXP_GROUP) {
        const size_t at = j + v * VF_W, left = at < cols ? cols - at : 0;
        if (left > 0) {
            policy_add(what, row, base, at, left < POLICY_STEP ? left : POLICY_STEP, lanes + v);
        }
    }
    return lanes_tree(lanes, LANE_VECTORS);
}

#define POLICY_SUM(name, what)                                                      \
    static __attribute__((noinline)) float name(size_t cols, const policy_row *row, \
                                                const policy_row *base)             \
    {                                                                               \
        return policy_sum(what, cols, row, base);                                   \
    }
POLICY_SUM(policy_exps, POLICY_EXP)
POLICY_SUM(policy_kl, POLICY_KL)
POLICY_SUM(policy_reverse_kl, POLICY_REVERSE_KL)
POLICY_SUM(policy_entropy, POLICY_ENTROPY)

/* The largest of a row that is no NaN, +0 for a zero. */
static __attribute__((noinline)) float policy_max(size_t cols, const float *x)
{
    vf most = v_set1(-INFINITY);
    size_t j = 0;
    for (; j + VF_W <= cols; j += VF_W) {
        most = v_max(v_load(x + j), most);
    }
    if (j < cols) {
        most = v_max(v_select(vm_first(cols - j), v_load_n(x + j, cols - j), most), most);
    }
    return v_max_lanes(most) + 0.0f;
}

/* Lane 0. */
ROW_INLINE float policy_first(vf a)
{
    float x;
    v_store_n(&x, a, 1);
    return x;
}

static void policy_begin(policy_row *row, size_t cols, const float *x)
{
    row->x = x;
    row->max = v_set1(policy_max(cols, x));
    row->log_sum = v_zero();
    row->inverse = v_set1(1.0f);
    const vf sum = v_set1(policy_exps(cols, row, NULL));
    row->log_sum = v_log(sum);
    row->inverse = v_div(v_set1(1.0f), sum);
}

/* What the gradient of a row is made of: w, k (0: no KL), KL, in every lane. */
typedef struct policy_slope {
    int kl, reverse;
    vf w, k, mean;
} policy_slope;

/* k g + w (p - target) of POLICY_STEP elements or what is left of them. */
ROW_INLINE void policy_slopes(const policy_slope *f, const policy_row *row, const policy_row *base,
                              size_t j, size_t left, vf target, vf out[EXP_GROUP])
{
    vf s[EXP_GROUP], p[EXP_GROUP], sb[EXP_GROUP], q[EXP_GROUP];
    policy_load(row, j, left, s, p);
    if (f->kl) {
        policy_load(base, j, left, sb, q);
    }
    T2K_UNROLL
    for (size_t i = 0; i < EXP_GROUP; i++) {
        out[i] = v_mul(f->w, v_sub(p[i], target));
        if (f->kl && f->reverse) {
            out[i] = v_fma(f->k, v_sub(p[i], q[i]), out[i]);
        } else if (f->kl) {
            const vf g = v_mul(p[i], v_sub(v_sub(sb[i], s[i]), f->mean));
            out[i] = v_fma(f->k, v_select(v_eq(p[i], v_zero()), v_zero(), g), out[i]);
        }
    }
}

static __attribute__((noinline)) void policy_gradient(const policy_slope *f, size_t cols,
                                                      const policy_row *row, const policy_row *base,
                                                      int64_t label, float *out)
{
    vf g[EXP_GROUP];
    float at_label = 0.0f;
    if (label >= 0) { /* before it is overwritten */
        policy_slopes(f, row, base, (size_t)label, 1, v_set1(1.0f), g);
        at_label = policy_first(g[0]);
    }
    size_t j = 0;
    for (; j + POLICY_STEP <= cols; j += POLICY_STEP) {
        policy_slopes(f, row, base, j, POLICY_STEP, v_zero(), g);
        T2K_UNROLL
        for (size_t i = 0; i < EXP_GROUP; i++) {
            v_store(out + j + i * VF_W, g[i]);
        }
    }
    if (j < cols) {
        policy_slopes(f, row, base, j, cols - j, v_zero(), g);
        for (size_t i = 0; j < cols; i++, j += VF_W) {
            v_store_n(out + j, g[i], cols - j < VF_W ? cols - j : VF_W);
        }
    }
    if (label >= 0) {
        out[label] = at_label;
    }
}

/* log p of one element. */
static float policy_log(const policy_row *row, int64_t j)
{
    const vf d = v_sub(row->max, v_load_n(row->x + j, 1));
    return policy_first(v_sub(v_zero(), v_add(d, row->log_sum)));
}

void T2K_FN(policy)(const t2k_policy_args *a, size_t first, size_t last)
{
    const size_t cols = (size_t)a->cols;
    for (size_t i = first; i < last; i++) {
        const int64_t label = a->labels != NULL && a->labels[i] >= 0 ? a->labels[i] : -1;
        const float w = label < 0 ? 0.0f : a->weights != NULL ? a->weights[i] : 1.0f;
        const float k = a->kl_weights != NULL ? a->kl_weights[i] : 0.0f;
        const int steep = a->gradient != NULL && (w != 0.0f || k != 0.0f);
        const int divergent = a->kl != NULL || (steep && k != 0.0f);
        const int reverse = a->kl_direction == T2K_KL_BASE_POLICY;
        policy_row row, base = {NULL, v_zero(), v_zero(), v_zero()};
        float kl = 0.0f;
        policy_begin(&row, cols, a->logits + i * (size_t)a->ld_logits);
        if (divergent || a->base_log_probs != NULL) {
            policy_begin(&base, cols, a->base + i * (size_t)a->ld_base);
        }
        if (divergent) {
            kl = reverse ? policy_reverse_kl(cols, &row, &base) : policy_kl(cols, &row, &base);
        }
        if (a->kl != NULL) {
            a->kl[i] = kl;
        }
        if (a->entropy != NULL) {
            a->entropy[i] = policy_entropy(cols, &row, NULL);
        }
        if (a->log_probs != NULL) {
            a->log_probs[i] = label >= 0 ? policy_log(&row, label) : 0.0f;
        }
        if (a->base_log_probs != NULL) {
            a->base_log_probs[i] = label >= 0 ? policy_log(&base, label) : 0.0f;
        }
        if (steep) {
            const policy_slope f = {k != 0.0f, reverse, v_set1(w), v_set1(k), v_set1(kl)};
            policy_gradient(&f, cols, &row, &base, label, a->gradient + i * (size_t)a->ld_gradient);
        } else if (a->gradient != NULL) {
            for (size_t j = 0; j < cols; j++) {
                a->gradient[i * (size_t)a->ld_gradient + j] = 0.0f;
            }
        }
    }
}

/* y = log p. */
void T2K_FN(log_softmax)(size_t rows, size_t cols, const float *X, size_t ldx, float *Y, size_t ldy)
{
    for (size_t i = 0; i < rows; i++, X += ldx, Y += ldy) {
        policy_row row;
        policy_begin(&row, cols, X);
        for (size_t j = 0; j < cols; j += VF_W) {
            const size_t n = cols - j < VF_W ? cols - j : VF_W;
            const vf d = v_sub(row.max, v_load_n(X + j, n));
            v_store_n(Y + j, v_sub(v_zero(), v_add(d, row.log_sum)), n);
        }
    }
}

/* dx = dy - exp(y) s (fused), s the sum of dy. */
void T2K_FN(log_softmax_backward)(size_t rows, size_t cols, const float *Y, size_t ldy,
                                  const float *dY, size_t lddy, float *dX, size_t lddx)
{
    for (size_t i = 0; i < rows; i++, Y += ldy, dY += lddy, dX += lddx) {
        vf lanes[LANE_VECTORS];
        lanes_start(lanes);
        lanes_add(lanes, cols, dY);
        const vf sum = v_set1(lanes_tree(lanes, LANE_VECTORS));
        for (size_t j = 0; j < cols; j += VF_W) {
            const size_t n = cols - j < VF_W ? cols - j : VF_W;
            vf p = v_load_n(Y + j, n);
            v_exp_group(&p, 1);
            v_store_n(dX + j, v_fnma(p, sum, v_load_n(dY + j, n)), n);
        }
    }
}
