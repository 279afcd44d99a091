/* The rules of docs/numerics.md that concern every function at once: 19 (the floating-point
 * environment), 20 (known random numbers, sampling), 21 (no contraction), rule 5 (rows alone and
 * together) in a whole model, and the fingerprint. */
#include "check.h"
#include "core/core.h"
#include "core/fpenv.h"
#include "t2.h"

#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <sleef.h>
#include <string.h>

#define THREADS 4

/* ---- rule 19: the caller's floating-point environment ---------------------------------------- */

/* Control bits that change results, without the sticky flags. */
#if defined(__x86_64__)
#define CONTROL 0xffc0u
static const uint64_t hostile[] = {
    0x1f80u | 0x8040u,           /* flush to zero, denormals are zero */
    0x1f80u | 0x2000u,           /* round down */
    0x1f80u | 0x4000u,           /* round up */
    0x1f80u | 0x6000u | 0x8040u, /* toward zero, and both flushes */
};
#else
#define CONTROL 0x07c00000u
static const uint64_t hostile[] = {1u << 24, 2u << 22, 1u << 22, 3u << 22 | 1u << 24};
#endif
enum { HOSTILE_COUNT = sizeof hostile / sizeof hostile[0] };

enum { ROWS = 9, COLS = 67, SIZE = ROWS * COLS, KINDS = 15 };

/* Inputs with many denormals and values whose sums round. */
static void make_inputs(float *x, float *z)
{
    struct rng rng = {check_seed()};
    for (int i = 0; i < SIZE; i++) {
        x[i] = rng_uniform(&rng) * (i % 5 == 0 ? 0x1p-130f : 1.0f);
        z[i] = rng_uniform(&rng) * (i % 7 == 0 ? 0x1p-130f : 1.0f);
    }
}

static t2k_status attend(const float *x, const float *z, float *y)
{
    t2k_attention_args args = {.size = sizeof args, .queries = ROWS, .keys = ROWS, .items = 1};
    args.heads = 1;
    args.head_dim = COLS;
    args.scale = 0.1f;
    args.q = x;
    args.k = z;
    args.v = x;
    args.out = y;
    args.q_row = args.k_row = args.v_row = args.out_row = COLS;
    return t2k_attention(&args);
}

static t2k_status packed_product(const float *x, const float *z, float *y)
{
    void *packed = t2k_alloc(t2k_packed_b_bytes(COLS, ROWS));
    t2k_status status = t2k_pack_b(T2K_TRANS, COLS, ROWS, z, COLS, packed);
    if (status == T2K_OK) {
        status = t2k_sgemm_packed(T2K_NO_TRANS, ROWS, ROWS, COLS, 1.0f / 3.0f, x, COLS, packed,
                                  0.0f, y, COLS, NULL);
    }
    t2k_release(packed);
    return status;
}

/* One public function of each kind; y holds SIZE floats. */
static t2k_status call(int kind, const float *x, const float *z, float *y)
{
    static const int64_t ids[ROWS] = {8, 7, 6, 5, 4, 3, 2, 1, 0};
    const float third = 1.0f / 3.0f;
    t2k_epilogue e = {.size = sizeof e, .bias = z, .scale = x, .residual = x, .ldr = COLS};
    memset(y, 0, SIZE * sizeof *y);
    switch (kind) {
    case 0:
        return t2k_sgemm(T2K_NO_TRANS, T2K_TRANS, ROWS, ROWS, COLS, third, x, COLS, z, COLS, 0.0f,
                         y, COLS, &e);
    case 1:
        return t2k_sgemm(T2K_TRANS, T2K_NO_TRANS, ROWS, COLS, 3, 0x1p-100f, x, COLS, z, COLS, 0.0f,
                         y, COLS, NULL);
    case 2:
        return t2k_sgemm_batched(T2K_NO_TRANS, T2K_NO_TRANS, 1, COLS, 1, third, x, 1, 1, z, COLS,
                                 COLS, 0.0f, y, COLS, COLS, ROWS, NULL);
    case 3:
        return packed_product(x, z, y);
    case 4:
        return t2k_svd_rebuild(T2K_NO_TRANS, ROWS, ROWS, ROWS, third, x, COLS, x, z, COLS, y, COLS);
    case 5:
        return t2k_softmax(ROWS, COLS, x, COLS, y, COLS);
    case 6:
        return t2k_layer_norm(ROWS, COLS, x, COLS, x, z, COLS, x, z, 1e-5f, y, COLS);
    case 7:
        return t2k_mean(ROWS, COLS, x, COLS, y);
    case 8:
        return t2k_embedding(ROWS, COLS, ROWS, x, COLS, ids, y, COLS);
    case 9:
        return t2k_exp(SIZE, x, y);
    case 10:
        return t2k_relu(SIZE, x, y);
    case 11:
        return t2k_add(SIZE, x, z, y);
    case 12:
        return t2k_scale_columns(ROWS, COLS, x, COLS, z, y, COLS);
    case 13:
        return t2k_dropout(SIZE, x, 0.3f, (t2k_dropout_key){1, 2, 3}, 4, y);
    default:
        return attend(x, z, y);
    }
}

static float inputs[2][SIZE], want[KINDS][SIZE];

static void compute_wanted(void)
{
    make_inputs(inputs[0], inputs[1]);
    for (int kind = 0; kind < KINDS; kind++) {
        cr_assert_eq(call(kind, inputs[0], inputs[1], want[kind]), T2K_OK, "kind %d", kind);
    }
}

/* Calls everything in an environment that would change results, which must be found as it was
 * afterwards, and counts what differs. */
static int differing_under(uint64_t control, int kind)
{
    static float got[SIZE];
    uint64_t before = t2k_fpenv_get();
    t2k_fpenv_set(control);
    t2k_status status = call(kind, inputs[0], inputs[1], got);
    uint64_t after = t2k_fpenv_get();
    t2k_fpenv_set(before);
    return status != T2K_OK || (after & CONTROL) != (control & CONTROL) ||
           first_difference(got, want[kind], SIZE) != SIZE;
}

static void check_environments(void)
{
    for (int e = 0; e < HOSTILE_COUNT; e++) {
        for (int kind = 0; kind < KINDS; kind++) {
            cr_expect_eq(differing_under(hostile[e], kind), 0, "environment %d, kind %d", e, kind);
        }
    }
}

/* The environments do change plain arithmetic, or the tests below would show nothing. */
Test(strict, the_hostile_environments_are_hostile)
{
    volatile float tiny = 0x1p-130f, third = 3.0f, one = 1.0f;
    float usual = tiny * 0.5f, quotient = one / third, negative = -one / third;
    for (int e = 0; e < HOSTILE_COUNT; e++) {
        uint64_t before = t2k_fpenv_get();
        t2k_fpenv_set(hostile[e]);
        volatile float a = tiny * 0.5f, b = one / third, c = -one / third;
        t2k_fpenv_set(before);
        cr_expect(a != usual || b != quotient || c != negative, "environment %d", e);
    }
}

Test(strict, environment_of_the_calling_thread)
{
    for (int threads = 1; threads <= THREADS; threads += THREADS - 1) {
        t2k_set_num_threads(threads);
        compute_wanted();
        check_environments();
    }
}

/* Threads of the pool that are in another environment than they should be; the caller is not
 * counted. */
static int pool_threads_without(uint64_t control)
{
    int without = 0;
#pragma omp parallel num_threads(THREADS) reduction(+ : without)
    without += omp_get_thread_num() > 0 && (t2k_fpenv_get() & CONTROL) != (control & CONTROL);
    return without;
}

static void set_pool(uint64_t control)
{
#pragma omp parallel num_threads(THREADS)
    t2k_fpenv_set(control);
}

/* Threads of gcc's pool keep what a region of the application has set on them; LLVM's runtime
 * gives them the caller's environment at every region. */
Test(strict, environment_of_the_pool)
{
    t2k_set_num_threads(THREADS);
    compute_wanted();
    for (int e = 0; e < HOSTILE_COUNT; e++) {
        set_pool(hostile[e]);
        t2k_fpenv_set(T2K_FPENV_DEFAULT);
        int before = pool_threads_without(hostile[e]);
        for (int kind = 0; kind < KINDS; kind++) {
            cr_expect_eq(differing_under(hostile[e], kind), 0, "environment %d, kind %d", e, kind);
        }
        int after = pool_threads_without(hostile[e]);
        cr_expect_eq(after, before, "environment %d was lost on %d threads", e, after - before);
        set_pool(T2K_FPENV_DEFAULT);
    }
}

static void note_control(t2k_team *team, void *arg)
{
    ((uint64_t *)arg)[t2k_team_rank(team)] = t2k_fpenv_get() & CONTROL;
}

Test(strict, environment_inside_a_team)
{
    uint64_t seen[THREADS], before = t2k_fpenv_get();
    t2k_fpenv_set(hostile[0]);
    t2k_status status = t2k_parallel(THREADS, note_control, seen);
    uint64_t after = t2k_fpenv_get();
    t2k_fpenv_set(before);
    cr_expect_eq(status, T2K_OK);
    cr_expect_eq(after & CONTROL, hostile[0] & CONTROL);
    for (int i = 0; i < THREADS; i++) {
        cr_expect_eq(seen[i], T2K_FPENV_DEFAULT & CONTROL, "thread %d", i);
    }
}

/* ---- rule 21: separate steps stay separate ----------------------------------------------------
 */

/* v * s rounds to 1 + 2^-11, and one fused step would keep the 2^-24 that was cut off. */
#define V 0x1.001p0f
#define CUT (-0x1.002p0f)

static void check_contraction(const char *isa)
{
    const float one = 1.0f, v = V, residual = CUT;
    float c = 7.0f;
    t2k_epilogue e = {.size = sizeof e, .scale = &v, .residual = &residual, .ldr = 1};
    cr_expect_eq(
        t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, 1, 1, 1, 1.0f, &one, 1, &v, 1, 0.0f, &c, 1, &e),
        T2K_OK);
    cr_expect_eq(bits_of(c), 0u, "%s: scale and residual give %a", isa, (double)c);

    /* Equal elements have variance 0; fused, the first one would be larger than the others. */
    float x[40], r[40], s[40], y[40];
    for (int i = 0; i < 40; i++) {
        x[i] = i == 0 ? V : 0.0f;
        s[i] = i == 0 ? V : 1.0f;
        r[i] = i == 0 ? CUT : 0.0f;
    }
    cr_expect_eq(t2k_layer_norm(1, 40, x, 40, s, r, 40, NULL, NULL, 1e-30f, y, 40), T2K_OK);
    for (int i = 0; i < 40; i++) {
        cr_expect_eq(y[i], 0.0f, "%s: layer norm element %d is %a", isa, i, (double)y[i]);
    }
}

Test(strict, no_contraction)
{
    volatile float v = V;
    cr_assert_eq(v * v + CUT, 0.0f);
    cr_assert_eq(fmaf(v, v, CUT), 0x1p-24f);
    for (int i = 0; i < t2k_isa_count(); i++) {
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        if (info.usable) {
            t2k_use_isa(i);
            check_contraction(info.name);
        }
    }
}

/* ---- rule 20: Philox4x32-10 -------------------------------------------------------------------
 */

/* The known answers that its authors publish (Random123, kat_vectors). */
Test(strict, philox_known_answers)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {UINT32_MAX, UINT32_MAX},
         {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
        {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
         {0xa4093822u, 0x299f31d0u},
         {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t out[4];
        t2k_philox4x32(cases[i].counter, cases[i].key, out);
        cr_expect_arr_eq(out, cases[i].want, sizeof out, "case %zu", i);
    }
}

/* ---- rules 5 and 20 in a model -----------------------------------------------------------------
 */

#define CHARS "runtime/models/t2-chars"
enum { SYMBOLS = 25, LENGTH = 11, ITEMS = 23, MOST = 16 };

static t2_model *model;
static t2_session *session;

static void open_chars(void)
{
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_model_open(CHARS, 0, &model, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_session_create(model, 0, &session, &err), T2_OK, "%s", err.message);
}

static void close_chars(void)
{
    t2_session_destroy(session);
    t2_model_close(model);
}

/* Logits (LENGTH, items, SYMBOLS) of `items` columns of ids (LENGTH, ITEMS) from `first` on. */
static void forward_items(const int64_t *ids, int first, int items, float *logits)
{
    static int64_t part[LENGTH * ITEMS];
    t2_error err = {T2_OK, ""};
    for (int l = 0; l < LENGTH; l++) {
        memcpy(part + l * items, ids + l * ITEMS + first, (size_t)items * sizeof *ids);
    }
    t2_forward_args args = {.size = sizeof args,
                            .ids = part,
                            .length = LENGTH,
                            .items = items,
                            .mask = {.kind = T2_MASK_CAUSAL},
                            .expert = 1,
                            .logits = logits};
    cr_assert_eq(t2_forward(session, &args, &err), T2_OK, "%s", err.message);
}

/* Rule 5: a weight is applied in one way whatever the number of rows, so that a sequence has the
 * bits that it has alone, in batches of any size. */
Test(strict, rows_of_a_model_in_batches_of_any_size, .timeout = 600)
{
    static const int batches[] = {1, 2, 3, 7, 22};
    static float whole[LENGTH * ITEMS * SYMBOLS], some[LENGTH * ITEMS * SYMBOLS];
    int64_t ids[LENGTH * ITEMS];
    struct rng rng = {check_seed()};
    for (int i = 0; i < LENGTH * ITEMS; i++) {
        ids[i] = (int64_t)rng_below(&rng, SYMBOLS);
    }
    for (int isa = 0; isa < t2k_isa_count(); isa++) {
        if (t2k_use_isa(isa) != T2K_OK) {
            continue;
        }
        open_chars();
        forward_items(ids, 0, ITEMS, whole);
        for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++) {
            int wrong = 0;
            for (int first = 0; first < ITEMS; first += batches[b]) {
                const int items = ITEMS - first < batches[b] ? ITEMS - first : batches[b];
                forward_items(ids, first, items, some);
                for (int row = 0; row < LENGTH * items; row++) {
                    const int l = row / items, n = first + row % items;
                    wrong +=
                        first_difference(some + row * SYMBOLS, whole + (l * ITEMS + n) * SYMBOLS,
                                         SYMBOLS) != SYMBOLS;
                }
            }
            cr_expect_eq(wrong, 0, "isa %d, batches of %d: %d rows differ", isa, batches[b], wrong);
        }
        close_chars();
    }
}

/* The token that rule 20 draws after ids (length): one uniform of 53 bits, keyed by seed and
 * purpose, counted by step, prompt, sample and position. */
static int64_t literal_draw(const t2_generate_args *args, const int64_t *ids, int64_t length)
{
    float logits[SYMBOLS], largest = -INFINITY;
    t2_error err = {T2_OK, ""};
    t2_forward_args forward = {.size = sizeof forward,
                               .ids = ids,
                               .length = length,
                               .items = 1,
                               .mask = {.kind = T2_MASK_CAUSAL},
                               .expert = T2_EXPERT_AUTO,
                               .first = length - 1,
                               .logits = logits};
    cr_assert_eq(t2_forward(session, &forward, &err), T2_OK, "%s", err.message);
    const uint64_t purpose = t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, "sample", 6);
    const uint32_t name[4] = {0, 0, (uint32_t)purpose, (uint32_t)(purpose >> 32)};
    const uint32_t seed[2] = {(uint32_t)args->seed, (uint32_t)(args->seed >> 32)};
    const uint32_t place[4] = {args->step, args->prompt_index, args->sample, (uint32_t)length};
    uint32_t key[4], word[4];
    t2k_philox4x32(name, seed, key);
    t2k_philox4x32(place, key, word);
    const uint64_t bits = ((uint64_t)word[0] << 32 | word[1]) >> 11;
    const double uniform = (double)bits / 9007199254740992.0;
    double weight[SYMBOLS], total = 0.0, sum = 0.0;
    for (int i = 0; i < SYMBOLS; i++) {
        largest = logits[i] > largest ? logits[i] : largest;
    }
    for (int i = 0; i < SYMBOLS; i++) {
        const double below = (double)logits[i] - (double)largest;
        weight[i] = Sleef_cinz_expd1_u10purec(below / args->temperature);
        total += weight[i];
    }
    int64_t last = -1;
    for (int i = 0; i < SYMBOLS; i++) {
        sum += weight[i];
        if (sum > uniform * total) {
            return i;
        }
        last = weight[i] > 0.0 ? i : last;
    }
    return last;
}

Test(strict, sampled_tokens_by_the_rule, .timeout = 600)
{
    int64_t ids[MOST] = {24, 7, 10, 2, 11, 1}, tokens[MOST], count = 0, seen = 0;
    open_chars();
    for (uint32_t i = 0; i < 40; i++) {
        t2_error err = {T2_OK, ""};
        t2_generate_args args = {.size = sizeof args,
                                 .prompt = ids,
                                 .prompt_length = 6,
                                 .max_new = MOST - 6,
                                 .end = -1,
                                 .temperature = 1.0 + 0.5 * i,
                                 .seed = UINT64_C(0x100000003) * i,
                                 .step = i % 3,
                                 .prompt_index = i % 5,
                                 .sample = i % 7,
                                 .expert = T2_EXPERT_AUTO,
                                 .tokens = tokens,
                                 .count = &count};
        cr_assert_eq(t2_generate(session, &args, &err), T2_OK, "%s", err.message);
        cr_assert_eq(count, MOST - 6);
        for (int64_t made = 0; made < count; made++) {
            cr_expect_eq(literal_draw(&args, ids, 6 + made), tokens[made], "draw %u, token %d", i,
                         (int)made);
            ids[6 + made] = tokens[made];
            seen |= INT64_C(1) << tokens[made];
        }
    }
    cr_expect_gt(__builtin_popcountll((unsigned long long)seen), 15, "the draws hardly differ");
    close_chars();
}

/* ---- the fingerprint --------------------------------------------------------------------------
 */

Test(strict, fingerprint_of_bytes)
{
    /* The published test vectors of FNV-1a, 64 bits. */
    cr_expect_eq(t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, "", 0), UINT64_C(0xcbf29ce484222325));
    cr_expect_eq(t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, "a", 1), UINT64_C(0xaf63dc4c8601ec8c));
    cr_expect_eq(t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, "foobar", 6),
                 UINT64_C(0x85944171f73967e8));
}

Test(strict, fingerprint_of_a_tensor)
{
    const float data[2] = {1.0f, -0.0f};
    const int64_t shape[2] = {2, 1};
    static const unsigned char bytes[] = {
        'F', '3', '2',  2,    0, 0, 0, 0,    0, 0, 0,                /* dtype, rank */
        2,   0,   0,    0,    0, 0, 0, 0,    1, 0, 0, 0, 0, 0, 0, 0, /* shape */
        0,   0,   0x80, 0x3f, 0, 0, 0, 0x80,                         /* values */
    };
    uint64_t whole = t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, bytes, sizeof bytes);
    cr_expect_eq(t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, data), whole);
    const int64_t other[2] = {1, 2};
    cr_expect_neq(t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, other, data), whole);
    const float plus[2] = {1.0f, 0.0f};
    cr_expect_neq(t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, plus), whole);
    /* Two tensors, one after the other, are one stream. */
    cr_expect_eq(
        t2k_fingerprint_f32(t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, "x", 1), 2, shape, data),
        t2k_fingerprint_bytes(t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, "x", 1), bytes,
                              sizeof bytes));
}

Test(strict, fingerprints_of_nans_agree)
{
    const int64_t shape[1] = {1};
    const uint32_t nans[] = {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu, 0x7fc12345u};
    float x = float_of(nans[0]);
    uint64_t first = t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 1, shape, &x);
    for (size_t i = 1; i < sizeof nans / sizeof nans[0]; i++) {
        memcpy(&x, &nans[i], sizeof x);
        cr_expect_eq(t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 1, shape, &x), first);
    }
    x = float_of(0x7f800000u); /* infinity is no NaN */
    cr_expect_neq(t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 1, shape, &x), first);
}
