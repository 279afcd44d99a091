/* What holds for experts whatever their numbers: neutral ones, base rows, the three ways, scale
 * invariance, fewer components, mixtures. */
#include "check.h"
#include "svf_case.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(expert_laws, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

/* A matrix with a thin factorisation that is exact enough: columns of plane rotations. */
enum { M = 37, N = 23, R = 23, ROWS = 19 };

struct laws {
    float W[M * N], U[M * R], S[R], V[N * R], x[ROWS * N], bias[M];
    svf_layer f;
};

/* Orthonormal columns (rows, R) by Gram and Schmidt in double. */
static void orthonormal(struct rng *rng, int rows, float *out)
{
    double *q = calloc((size_t)(rows * R), sizeof *q);
    for (int k = 0; k < R; k++) {
        for (int i = 0; i < rows; i++) {
            q[i * R + k] = (double)rng_uniform(rng);
        }
        for (int pass = 0; pass < 2; pass++) {
            for (int j = 0; j < k; j++) {
                double dot = 0.0;
                for (int i = 0; i < rows; i++) {
                    dot += q[i * R + j] * q[i * R + k];
                }
                for (int i = 0; i < rows; i++) {
                    q[i * R + k] -= dot * q[i * R + j];
                }
            }
        }
        double norm = 0.0;
        for (int i = 0; i < rows; i++) {
            norm += q[i * R + k] * q[i * R + k];
        }
        for (int i = 0; i < rows; i++) {
            q[i * R + k] /= sqrt(norm);
            out[i * R + k] = (float)q[i * R + k];
        }
    }
    free(q);
}

static struct laws *make_laws(void)
{
    struct laws *l = calloc(1, sizeof *l);
    struct rng rng = {check_seed()};
    orthonormal(&rng, M, l->U);
    orthonormal(&rng, N, l->V);
    for (int k = 0; k < R; k++) {
        l->S[k] = 4.0f / (float)(k + 1);
    }
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 0.0;
            for (int k = 0; k < R; k++) {
                sum += (double)l->U[i * R + k] * (double)l->S[k] * (double)l->V[j * R + k];
            }
            l->W[i * N + j] = (float)sum;
        }
    }
    rng_fill(&rng, l->x, ROWS * N);
    rng_fill(&rng, l->bias, M);
    l->f.x = l->x;
    l->f.rows = ROWS;
    l->f.matrix = (svf_case){"layer.weight", M, N, R, l->W, l->U, l->S, l->V};
    svf_layer_open(&l->f, temp_path("factors.safetensors"), l->bias);
    return l;
}

static void free_laws(struct laws *l)
{
    svf_layer_close(&l->f);
    free(l);
}

static float *base_of(const struct laws *l)
{
    t2k_epilogue e = {.size = sizeof e, .bias = l->bias};
    float *y = calloc(ROWS * M, sizeof *y);
    cr_assert_eq(
        t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, ROWS, M, N, 1.0f, l->x, N, l->W, N, 0.0f, y, M, &e),
        T2K_OK);
    return y;
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst;
}

static t2_expert *random_expert(const struct laws *l, t2_expert_form form, uint64_t seed)
{
    struct rng rng = {seed};
    float p[R];
    rng_fill(&rng, p, R);
    return svf_case_expert(l->f.factors, form, "layer.weight", R, p);
}

/* An expert that changes nothing is the base: bit for bit where its plan says so. */
Test(expert_laws, neutral)
{
    struct laws *l = make_laws();
    float *base = base_of(l);
    for (int i = 0; i < SVF_MODES; i++) {
        t2_expert *expert = NULL;
        t2_error err = {T2_OK, ""};
        cr_assert_eq(
            t2_expert_new(&svf_modes[i].form, "neutral", l->f.factors, NULL, 0.0, 0, &expert, &err),
            T2_OK, "%s", err.message);
        for (t2_way way = T2_WAY_PLAN; way <= T2_WAY_AUTO; way++) {
            t2_adaptation *adaptation =
                svf_adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
            float *y = svf_run(&l->f, adaptation, 0, ROWS, NULL, 1);
            cr_expect_eq(first_difference(y, base, ROWS * M), (size_t)ROWS * M, "%s by %s",
                         svf_modes[i].name, t2_way_str(way));
            cr_expect_eq(t2_adaptation_plan(adaptation, 0)->changed, 0);
            free(y);
            t2_adaptation_release(adaptation);
        }
        t2_expert_release(expert);
    }
    free(base);
    free_laws(l);
}

/* Base rows beside others: exact by delta, to rounding by factors. */
Test(expert_laws, base_rows)
{
    struct laws *l = make_laws();
    float *base = base_of(l);
    t2_expert *expert = random_expert(l, svf_modes[1].form, 3);
    int64_t rows[ROWS];
    for (int i = 0; i < ROWS; i++) {
        rows[i] = i % 3 == 0 ? -1 : 0;
    }
    for (t2_way way = T2_WAY_FACTORED; way <= T2_WAY_DELTA; way++) {
        t2_adaptation *adaptation =
            svf_adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
        float *y = svf_run(&l->f, adaptation, 0, ROWS, rows, 2);
        for (int i = 0; i < ROWS; i += 3) {
            if (way == T2_WAY_DELTA) {
                cr_expect_eq(first_difference(y + i * M, base + i * M, M), (size_t)M, "row %d", i);
            }
            cr_expect_leq(largest_difference(y + i * M, base + i * M, M), 1e-5);
        }
        cr_expect_gt(largest_difference(y + M, base + M, M), 1e-3);
        free(y);
        t2_adaptation_release(adaptation);
    }
    t2_expert_release(expert);
    free(base);
    free_laws(l);
}

/* The three ways agree to rounding for every form. */
Test(expert_laws, ways_agree)
{
    struct laws *l = make_laws();
    for (int i = 0; i < SVF_MODES; i++) {
        t2_expert *expert = random_expert(l, svf_modes[i].form, (uint64_t)i + 11);
        float *y[4];
        for (t2_way way = T2_WAY_REBUILD; way <= T2_WAY_AUTO; way++) {
            t2_adaptation *adaptation =
                svf_adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, way);
            y[way - T2_WAY_REBUILD] = svf_run(&l->f, adaptation, 0, ROWS, NULL, 1);
            t2_adaptation_release(adaptation);
        }
        for (int j = 1; j < 4; j++) {
            cr_expect_leq(largest_difference(y[0], y[j], ROWS * M), 2e-5, "%s, way %d",
                          svf_modes[i].name, j);
        }
        for (int j = 0; j < 4; j++) {
            free(y[j]);
        }
        t2_expert_release(expert);
    }
    free_laws(l);
}

/* c makes scales relative: twice as large ones are the same expert. */
Test(expert_laws, scale_invariance)
{
    struct laws *l = make_laws();
    float z1[R], z2[R];
    t2_error err;
    t2_expert *one = random_expert(l, svf_modes[0].form, 5),
              *two = random_expert(l, svf_modes[1].form, 5);
    cr_assert_eq(t2_expert_scales(one, l->f.factors, 0, NULL, z1, NULL, NULL, &err), T2_OK);
    cr_assert_eq(t2_expert_scales(two, l->f.factors, 0, NULL, z2, NULL, NULL, &err), T2_OK);
    cr_expect_leq(largest_difference(z1, z2, R), 3e-7);
    double sum = 0.0, scaled = 0.0;
    for (int i = 0; i < R; i++) {
        sum += (double)l->S[i];
        scaled += (double)l->S[i] * (double)z1[i];
    }
    cr_expect_float_eq(scaled, sum, 1e-6 * sum);
    t2_expert_release(one);
    t2_expert_release(two);
    free_laws(l);
}

/* Fewer components: the difference stays below the stated bound times |x|. */
Test(expert_laws, components)
{
    struct laws *l = make_laws();
    t2_expert *expert = random_expert(l, svf_modes[1].form, 9);
    t2_adaptation *whole =
        svf_adapt(&l->f, (const t2_expert *const *)&expert, 1, NULL, 0, T2_MIX_ZEFF, T2_WAY_DELTA);
    float *want = svf_run(&l->f, whole, 0, ROWS, NULL, 1);
    cr_expect_eq(t2_adaptation_plan(whole, 0)->error_bound, 0.0);
    double before = HUGE_VAL;
    for (int64_t k = 1; k <= R; k += 4) {
        t2_adapt_args args = {.size = sizeof args,
                              .experts = (const t2_expert *const *)&expert,
                              .count = 1,
                              .way = T2_WAY_DELTA,
                              .components = k};
        t2_adaptation *few = NULL;
        t2_error err;
        cr_assert_eq(t2_adaptation_create(l->f.adapter, &args, &few, &err), T2_OK, "%s",
                     err.message);
        const t2_plan_entry *plan = t2_adaptation_plan(few, 0);
        cr_expect_eq(plan->used, k);
        cr_expect_leq(plan->error_bound, before);
        before = plan->error_bound;
        float *y = svf_run(&l->f, few, 0, ROWS, NULL, 1);
        for (int i = 0; i < ROWS; i++) {
            double norm = 0.0, off = 0.0;
            for (int j = 0; j < N; j++) {
                norm += (double)l->x[i * N + j] * (double)l->x[i * N + j];
            }
            for (int j = 0; j < M; j++) {
                double d = (double)y[i * M + j] - (double)want[i * M + j];
                off += d * d;
            }
            cr_expect_leq(sqrt(off), plan->error_bound * sqrt(norm) + 1e-5, "%d components",
                          (int)k);
        }
        free(y);
        t2_adaptation_release(few);
    }
    free(want);
    t2_adaptation_release(whole);
    t2_expert_release(expert);
    free_laws(l);
}

/* Mixtures are linear in z, and by the delta rule in z - 1. */
Test(expert_laws, mixtures)
{
    struct laws *l = make_laws();
    t2_expert *both[2] = {random_expert(l, svf_modes[1].form, 21),
                          random_expert(l, svf_modes[1].form, 22)};
    static const double weights[][2] = {{1, 0}, {0, 1}, {0.5, 0.5}, {2, -1}, {-0.25, 1.5}, {1, 1}};
    float z[2][R], got[R];
    t2_error err = {T2_OK, ""};
    for (int k = 0; k < 2; k++) {
        cr_assert_eq(t2_expert_scales(both[k], l->f.factors, 0, NULL, z[k], NULL, NULL, &err),
                     T2_OK);
    }
    for (size_t w = 0; w < sizeof weights / sizeof weights[0]; w++) {
        for (t2_mix_rule rule = T2_MIX_ZEFF; rule <= T2_MIX_DELTA; rule += 2) {
            t2_expert *mixed = NULL;
            cr_assert_eq(t2_expert_mix(l->f.factors, rule, (const t2_expert *const *)both, 2,
                                       weights[w], 0, "m", &mixed, &err),
                         T2_OK, "%s", err.message);
            cr_assert_eq(t2_expert_scales(mixed, l->f.factors, 0, NULL, got, NULL, NULL, &err),
                         T2_OK);
            int negative = 0;
            double worst = 0.0;
            for (int i = 0; i < R; i++) {
                double offset = rule == T2_MIX_DELTA ? 1.0 : 0.0;
                double want = offset + weights[w][0] * ((double)z[0][i] - offset) +
                              weights[w][1] * ((double)z[1][i] - offset);
                negative = negative || want < 0.0;
                worst = fmax(worst, fabs(want - (double)got[i]));
            }
            if (rule == T2_MIX_ZEFF || !negative) {
                cr_expect_leq(worst, 1e-6, "weights %zu rule %d", w, (int)rule);
            } else {
                double sum = 0.0, scaled = 0.0;
                for (int i = 0; i < R; i++) {
                    cr_expect_geq(got[i], 0.0f);
                    sum += (double)l->S[i];
                    scaled += (double)l->S[i] * (double)got[i];
                }
                cr_expect_float_eq(scaled, sum, 1e-5 * sum);
            }
            t2_expert_release(mixed);
        }
    }
    static const double bad[][2] = {{NAN, 1}, {HUGE_VAL, 1}, {1001, 0}, {0, 0}};
    for (size_t w = 0; w < 4; w++) {
        t2_expert *mixed = NULL;
        t2_status status = t2_expert_mix(l->f.factors, T2_MIX_ZEFF, (const t2_expert *const *)both,
                                         2, bad[w], 0, "m", &mixed, &err);
        cr_expect_eq(status, w < 3 ? T2_ERR_ARG : T2_ERR_NUMERIC, "weights %zu: %s", w,
                     t2_status_str(status));
        cr_expect_null(mixed);
    }
    t2_expert_release(both[0]);
    t2_expert_release(both[1]);
    free_laws(l);
}
