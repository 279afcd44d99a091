/* The benchmark's problems: what each operation reads and writes, arenas, shape sets. (References
 * are tested by test_bench_products.c and test_bench_verify.c.) */
#include "check.h"
#include "ops.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char error[1000];

static void one_thread(void)
{
    t2k_set_num_threads(1);
    temp_dir_make();
    error[0] = '\0';
}

TestSuite(bench_problem, .init = one_thread, .fini = temp_dir_remove, .timeout = 300);

static struct problem problem(const char *op, const char *shape)
{
    struct problem p;
    cr_assert_eq(bench_problem(&p, op, shape, error, sizeof error), 0, "%s", error);
    return p;
}

/* ---- what the operations are ----------------------------------------------------------------- */

/* docs/benchmarks.md, "Operations". Inputs: type (f, i, u), W for a weight, number of elements. */
static const struct {
    const char *op, *shape, *inputs;
    int64_t rows, cols;
    double flops, read, write;
} described[] = {
    {"sgemm", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_nt", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_tn", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_tt", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_packed", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_fast", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_bf16", "2x3x5", "f10 fW15", 2, 3, 60, 100, 24},
    {"sgemm_batched", "7x2x3x5", "f70 f105", 14, 3, 420, 700, 168},
    {"svd_rebuild", "2x3x5", "f10 f15 f5", 2, 3, 60, 120, 24},
    {"svd_rebuild_dense", "2x3x5", "f10 f15 f5", 2, 3, 60, 120, 24},
    {"expert", "2x3x5", "f10 fW9 fW15 f3", 2, 3, 96, 148, 24},
    {"expert_rows", "2x3x5", "f10 fW9 fW15 f6", 2, 3, 96, 160, 24},
    {"expert_turns", "2x3x5", "f10 fW9 fW15 f6", 2, 3, 240, 160, 24},
    {"expert_rebuild", "2x3x5", "f10 f15 f5", 2, 3, 60, 120, 24},
    {"attention", "3x2x5x4", "f120 f120 f120", 3, 40, 4 * 9 * 40, 1440, 480},
    {"attention_causal", "3x2x5x4", "f120 f120 f120", 3, 40, 4 * 6 * 40, 1440, 480},
    {"attention_decode", "3x7x2x5x4", "f120 f280 f280", 3, 40, 4 * 21 * 40, 2720, 480},
    {"softmax", "3x7", "f21", 3, 7, 0, 84, 84},
    {"layer_norm", "3x7", "f21 f7 f7", 3, 7, 0, 140, 84},
    {"layer_norm_residual", "3x7", "f21 f21 f7 f7", 3, 7, 0, 224, 84},
    {"rms_norm", "3x7", "f21 f7", 3, 7, 0, 112, 84},
    {"rms_norm_residual", "3x7", "f21 f21 f7", 3, 7, 0, 196, 84},
    {"mean", "3x7", "f21", 1, 1, 0, 84, 4},
    {"embedding", "3x7", "fW7000 i3", 3, 7, 0, 84 + 24, 84},
    {"scale_columns", "3x7", "f21 f7", 3, 7, 0, 112, 84},
    {"exp", "128", "f128", 2, 64, 0, 512, 512},
    {"relu", "65", "f65", 1, 65, 0, 260, 260},
    {"gelu", "128", "f128", 2, 64, 0, 512, 512},
    {"gelu_tanh", "65", "f65", 1, 65, 0, 260, 260},
    {"silu", "65", "f65", 1, 65, 0, 260, 260},
    {"add", "64", "f64 f64", 1, 64, 0, 512, 256},
    {"dropout", "100", "f100", 1, 100, 0, 400, 400},
};

static void show_inputs(const struct problem *p, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < p->inputs; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%c%s%" PRId64, i > 0 ? " " : "",
                                 "fiu"[p->input[i].type],
                                 p -> input[i].role == BENCH_WEIGHT ? "W" : "", p->input[i].count);
    }
}

Test(bench_problem, operations_as_documented)
{
    size_t rows = sizeof described / sizeof described[0];
    for (size_t i = 0; i < rows; i++) {
        struct problem p = problem(described[i].op, described[i].shape);
        char inputs[100];
        show_inputs(&p, inputs, sizeof inputs);
        cr_expect_str_eq(inputs, described[i].inputs, "%s: %s", described[i].op, inputs);
        cr_expect_str_eq(p.shape, described[i].shape);
        cr_expect_eq(p.rows, described[i].rows, "%s", described[i].op);
        cr_expect_eq(p.cols, described[i].cols, "%s", described[i].op);
        cr_expect_eq(p.flops, described[i].flops, "%s: %g", described[i].op, p.flops);
        cr_expect_eq(p.read_bytes, described[i].read, "%s: %g", described[i].op, p.read_bytes);
        cr_expect_eq(p.write_bytes, described[i].write, "%s: %g", described[i].op, p.write_bytes);
        cr_expect_gt(p.macs, 0.0);
    }
    size_t ops = 0;
    while (bench_ops[ops] != NULL) {
        cr_expect_eq(bench_op_find(bench_ops[ops]->name), bench_ops[ops]);
        ops++;
    }
    cr_expect_eq(ops, rows + 1, "an operation is not in the table above, or `model` is missing");
    cr_expect_null(bench_op_find("sgem"));
}

Test(bench_problem, leading_zeros_are_the_same_shape)
{
    struct problem p = problem("softmax", "003x07");
    cr_expect_str_eq(p.shape, "3x7");
}

Test(bench_problem, bad_shapes)
{
    static const struct {
        const char *op, *shape, *says;
    } bad[] = {
        {"sgemm", "", "expected m x n x k"},
        {"sgemm", "2x3", "expected m x n x k"},
        {"sgemm", "2x3x5x7", "expected m x n x k"},
        {"sgemm", "2x3x5x7x9x11", "expected m x n x k"},
        {"sgemm", "2x3x", "expected m x n x k"},
        {"sgemm", "x2x3", "expected m x n x k"},
        {"sgemm", "2x-3x5", "expected m x n x k"},
        {"sgemm", "2x3 x5", "expected m x n x k"},
        {"sgemm", "2X3X5", "expected m x n x k"},
        {"softmax", "0x5", "start at 1"},
        {"exp", "0", "start at 1"},
        {"exp", "99999999999999999999", "expected n"},
        {"exp", "9223372036854775807", "out of range"},
        {"add", "4398046511105", "out of range"},
        {"sgemm", "4294967296x1x4294967296", "out of range"},
        {"sgemm", "4294967296x4294967296x1", "out of range"},
        {"sgemm_batched", "2147483648x2147483648x2147483648x8", "out of range"},
        {"softmax", "3037000500x3037000500", "out of range"},
        {"embedding", "1x9223372036854775807", "out of range"},
        {"attention", "4x4x4x1025", "out of range"},
        {"attention_decode", "4x4x4x4x1025", "out of range"},
        {"attention_decode", "4x4x4x4", "expected q x l x n x h x d"},
        {"softmx", "3x5", "unknown operation 'softmx'"},
        {"", "3x5", "unknown operation ''"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct problem p;
        error[0] = '\0';
        cr_expect_neq(bench_problem(&p, bad[i].op, bad[i].shape, error, sizeof error), 0, "%s %s",
                      bad[i].op, bad[i].shape);
        cr_expect(strstr(error, bad[i].says) != NULL, "%s %s: %s", bad[i].op, bad[i].shape, error);
        cr_expect_null(strchr(error, '\n'));
    }
    /* Every valid name is listed. */
    struct problem p;
    bench_problem(&p, "nothing", "1", error, sizeof error);
    for (size_t i = 0; bench_ops[i] != NULL; i++) {
        cr_expect(strstr(error, bench_ops[i]->name) != NULL, "%s", bench_ops[i]->name);
    }
}

/* ---- operands ---------------------------------------------------------------------------------
 */

struct made {
    struct problem p;
    struct bench_arena arena;
    const void *in[BENCH_INPUTS];
    float *out;
};

static void make(struct made *m, const char *op, const char *shape)
{
    m->p = problem(op, shape);
    cr_assert_eq(bench_arena_create(&m->p, BENCH_HOT, 1, &m->arena, error, sizeof error), 0, "%s",
                 error);
    bench_arena_operands(&m->p, &m->arena, 0, m->in, &m->out);
}

/* As the reference of operation `op`, of one row: 2 items of 3 heads with 5 channels. */
static void check_attention(const char *op, const char *shape, int64_t row, int64_t keys)
{
    struct made m;
    make(&m, op, shape);
    const float *q = m.in[0], *k = m.in[1], *v = m.in[2];
    double ref[30], allowed[30];
    cr_assert_eq(m.p.op->reference(&m.p, m.in, 1, 1, &row, ref, allowed), T2K_OK);
    for (int64_t c = 0; c < 30; c++) {
        double weight[9], sum = 0.0, value = 0.0;
        int64_t head = c / 5 * 5;
        for (int64_t s = 0; s < keys; s++) {
            double dot = 0.0;
            for (int64_t d = head; d < head + 5; d++) {
                dot += (double)q[row * 30 + d] * (double)k[s * 30 + d];
            }
            weight[s] = exp(dot * (double)(float)(1.0 / sqrt(5.0)));
            sum += weight[s];
        }
        for (int64_t s = 0; s < keys; s++) {
            value += weight[s] / sum * (double)v[s * 30 + c];
        }
        cr_assert_float_eq(ref[c], value, 1e-12);
        cr_assert(allowed[c] > 0.0 && allowed[c] < 1e-4);
    }
    bench_arena_release(&m.arena);
}

Test(bench_problem, attention_sees_what_it_may)
{
    check_attention("attention", "9x2x3x5", 6, 9);
    check_attention("attention_causal", "9x2x3x5", 6, 7);
    check_attention("attention_decode", "4x9x2x3x5", 2, 9);
}

/* Values of activations by hand, in both tails. */
Test(bench_problem, activations)
{
    static const struct {
        const char *op;
        double at[4]; /* of -4, -0.5, 0.5, 4 */
    } known[] = {
        {"gelu", {-0.00012668496733247, -0.15426876936299, 0.34573123063701, 3.9998733150327}},
        {"gelu_tanh", {-7.024594819e-05, -0.15428599017, 0.34571400983, 3.999929754}},
        {"silu", {-0.071944839848337, -0.18877033439907, 0.31122966560093, 3.9280551601517}},
    };
    static const float x[4] = {-4.0f, -0.5f, 0.5f, 4.0f};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct problem p = problem(known[i].op, "4");
        const void *in[BENCH_INPUTS] = {x};
        double ref[4], ours[4], any[4];
        int64_t row = 0;
        cr_assert_eq(p.op->reference(&p, in, 1, 1, &row, ref, ours), T2K_OK);
        cr_assert_eq(p.op->reference(&p, in, 0, 1, &row, ref, any), T2K_OK);
        for (int j = 0; j < 4; j++) {
            cr_expect_float_eq(ref[j], known[i].at[j], 1e-9, "%s(%g): %.14g", known[i].op,
                               (double)x[j], ref[j]);
            cr_expect(ours[j] > 0.0 && ours[j] < any[j] && any[j] < 1e-5, "%g %g", ours[j], any[j]);
        }
    }
}

/* ---- arenas ---------------------------------------------------------------------------------- */

Test(bench_problem, numbers_of_copies)
{
    struct problem p = problem("sgemm", "64x256x256"); /* 64 KiB, 256 KiB, result 64 KiB */
    cr_expect_eq(bench_copies(&p, BENCH_HOT, 1 << 20), 1);
    cr_expect_eq(bench_copies(&p, BENCH_COLD_WEIGHTS, 1 << 20), 8);
    cr_expect_eq(bench_copies(&p, BENCH_COLD_WEIGHTS, (1 << 20) + 1), 9);
    cr_expect_eq(bench_copies(&p, BENCH_COLD_ALL, 1 << 20), 6); /* 2 MiB / 384 KiB */
    cr_expect_eq(bench_copies(&p, BENCH_COLD_WEIGHTS, (size_t)128 << 20), 1024);
    cr_expect_eq(bench_copies(&p, BENCH_COLD_WEIGHTS, ((size_t)128 << 20) + 1), 0);
    cr_expect_eq(bench_copies(&p, BENCH_COLD_WEIGHTS, 1), 1); /* larger than any cache */
    p = problem("softmax", "64x256");
    cr_expect_eq(bench_copies(&p, BENCH_COLD_WEIGHTS, 1 << 20), 0); /* there are no weights */
    cr_expect_eq(bench_copies(&p, BENCH_COLD_ALL, 1 << 20), 16);
}

static void check_layout(const struct problem *p, const struct bench_arena *arena,
                         const char *strides)
{
    char text[200];
    size_t used = 0, end = 0;
    for (int i = 0; i < p->inputs; i++) {
        cr_expect_eq(arena->offset[i] % 4096, 0);
        cr_expect_eq(arena->offset[i], end);
        size_t bytes = ((size_t)p->input[i].count * 4 + 4095) / 4096 * 4096;
        end += bytes * (arena->stride[i] > 0 ? (size_t)arena->copies : 1);
        used += (size_t)snprintf(text + used, sizeof text - used, "%zu ", arena->stride[i]);
    }
    snprintf(text + used, sizeof text - used, "%zu", arena->out_stride);
    cr_expect_str_eq(text, strides, "%s", text);
    cr_expect_eq(arena->out_offset, end);
}

Test(bench_problem, layouts)
{
    struct problem p = problem("sgemm", "5x100x100"); /* 2000, 40000, 2000 bytes */
    struct bench_arena arena;
    bench_arena_layout(&p, BENCH_HOT, 1, &arena);
    check_layout(&p, &arena, "0 0 0");
    cr_expect_eq(arena.bytes, 4096 + 40960 + 4096);
    bench_arena_layout(&p, BENCH_COLD_WEIGHTS, 3, &arena);
    check_layout(&p, &arena, "0 40960 0");
    cr_expect_eq(arena.bytes, 4096 + 3 * 40960 + 4096);
    bench_arena_layout(&p, BENCH_COLD_ALL, 3, &arena);
    check_layout(&p, &arena, "4096 40960 4096");
    cr_expect_eq(arena.bytes, 3 * (4096 + 40960 + 4096));
}

static uint64_t hash_of(const void *data, size_t bytes)
{
    return t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, data, bytes);
}

/* Every copy has the same numbers, whoever maps it, however many threads filled it. */
Test(bench_problem, copies_and_mappings_agree)
{
    struct problem p = problem("embedding", "300x40");
    uint64_t first[2] = {0, 0};
    for (int threads = 1; threads <= 3; threads++) {
        t2k_set_num_threads(threads);
        struct bench_arena own, mapped;
        const void *in[BENCH_INPUTS];
        float *out, *seen;
        cr_assert_eq(bench_arena_create(&p, BENCH_COLD_ALL, 3, &own, error, sizeof error), 0);
        cr_assert_eq(bench_arena_map(&p, BENCH_COLD_ALL, 3, own.path, &mapped, error, sizeof error),
                     0, "%s", error);
        for (int copy = 0; copy < 3; copy++) {
            bench_arena_operands(&p, &mapped, copy, in, &seen);
            bench_arena_operands(&p, &own, copy, in, &out);
            uint64_t hash[2] = {hash_of(in[0], 160000), hash_of(in[1], 2400)};
            if (first[0] == 0) {
                memcpy(first, hash, sizeof first);
            }
            cr_expect_eq(hash[0], first[0]);
            cr_expect_eq(hash[1], first[1]);
            cr_expect(isnan(seen[0]) && isnan(seen[11999]), "a result starts as NaN");
            out[7] = (float)copy;
            cr_expect_eq(seen[7], (float)copy, "both see the same memory");
        }
        bench_arena_release(&mapped);
        bench_arena_release(&own);
    }
}

/* Other pages, the same contents, for everybody who mapped them. */
Test(bench_problem, scattered_operands_stay_the_same)
{
    struct problem p = problem("embedding", "300x40");
    struct bench_arena own, mapped;
    cr_assert_eq(bench_arena_create(&p, BENCH_COLD_ALL, 3, &own, error, sizeof error), 0);
    cr_assert_eq(bench_arena_map(&p, BENCH_COLD_ALL, 3, own.path, &mapped, error, sizeof error), 0);
    uint64_t before = hash_of(own.base, own.bytes), random = 1;
    for (int i = 0; i < 3; i++) {
        bench_arena_scatter(&own, &random);
        cr_expect_eq(hash_of(own.base, own.bytes), before);
        cr_expect_eq(hash_of(mapped.base, own.bytes), before);
    }
    mapped.base[5000] ^= 1;
    cr_expect_neq(hash_of(own.base, own.bytes), before, "both see the same memory");
    bench_arena_release(&mapped);
    bench_arena_release(&own);
}

/* The operands are the same everywhere: results of two machines can be compared. */
Test(bench_problem, operands_never_change)
{
    struct made m;
    make(&m, "embedding", "300x40");
    const float *table = m.in[0];
    const int64_t *ids = m.in[1];
    uint64_t state = 0;
    for (int i = 0; i < 40000; i++) {
        float expected = (float)(bench_random(&state) >> 40) * 0x1p-23f - 1.0f;
        cr_assert_eq(table[i], expected, "element %d", i);
    }
    state = 1;
    for (int i = 0; i < 300; i++) {
        cr_assert_eq(ids[i], (int64_t)(bench_random(&state) % 1000));
    }
    cr_expect_eq(hash_of(table, 160000), UINT64_C(0xcbb63b6d37c81e0d));
    bench_arena_release(&m.arena);
    make(&m, "exp", "1000");
    const float *x = m.in[0];
    int beyond = 0;
    for (int i = 0; i < 1000; i++) {
        cr_assert(x[i] >= -80.0f && x[i] < 80.0f);
        beyond += fabsf(x[i]) > 60.0f;
    }
    cr_expect(beyond > 200 && beyond < 300, "%d of 1000 in the outer quarter", beyond);
    bench_arena_release(&m.arena);
}

Test(bench_problem, arenas_that_cannot_be)
{
    struct problem p = problem("exp", "1000"), other = problem("exp", "5000");
    struct bench_arena own, mapped;
    cr_assert_eq(bench_arena_create(&p, BENCH_HOT, 1, &own, error, sizeof error), 0, "%s", error);
    cr_expect_eq(bench_arena_map(&other, BENCH_HOT, 1, own.path, &mapped, error, sizeof error), -1);
    cr_expect(strstr(error, "has 8192 bytes, expected 40960") != NULL, "%s", error);
    bench_arena_release(&mapped);
    cr_expect_eq(
        bench_arena_map(&p, BENCH_HOT, 1, "/proc/self/fd/900", &mapped, error, sizeof error), -1);
    cr_expect(strstr(error, "cannot open /proc/self/fd/900") != NULL, "%s", error);
    bench_arena_release(&mapped);
    bench_arena_release(&own);
    p = problem("exp", "1099511627776");
    cr_expect_eq(bench_arena_create(&p, BENCH_HOT, 1, &own, error, sizeof error), -1);
    cr_expect(strstr(error, "exp/1099511627776 needs 8388608 MiB") != NULL, "%s", error);
    bench_arena_release(&own);
}

/* ---- shape sets ------------------------------------------------------------------------------ */

static int has(const struct bench_shapes *shapes, const char *op, const char *shape)
{
    int count = 0;
    for (int i = 0; i < shapes->count; i++) {
        count += strcmp(shapes->problem[i].op->name, op) == 0 &&
                 strcmp(shapes->problem[i].shape, shape) == 0;
    }
    return count;
}

Test(bench_problem, built_in_sets)
{
    static const struct {
        const char *set, *op, *shape;
    } expected[] = {
        {"seed", "sgemm_packed", "320x768x256"},
        {"seed", "model", "512x8"},
        {"llm", "sgemm_packed", "512x128256x4096"},
        {"llm", "layer_norm", "8x2048"},
        {"square", "sgemm_tt", "2048x2048x2048"},
        {"tails", "sgemm_tn", "63x65x67"},
        {"tails", "softmax", "37x130"},
        {"rows", "softmax", "8x32768"},
        {"onednn", "sgemm", "13x1x262144"},
        {"onednn", "layer_norm", "128x1024"},
        {"rebuild", "svd_rebuild", "4096x4096x4096"},
        {"experts", "expert_rows", "32x192x576"},
        {"targets", "attention_causal", "1024x1x16x64"},
        {"targets", "sgemm_packed", "32x14336x4096"}, /* of llm */
        {"targets", "sgemm_packed", "13x1x262144"},   /* of onednn, where it is an sgemm */
    };
    for (int i = 0; bench_set_name(i) != NULL; i++) {
        struct bench_shapes shapes = {0};
        const char *set = bench_set_name(i);
        cr_expect_eq(bench_shapes_add_set(&shapes, set, error, sizeof error), 0, "%s", error);
        int known = 0;
        for (size_t e = 0; e < sizeof expected / sizeof expected[0]; e++) {
            if (strcmp(expected[e].set, set) == 0) {
                cr_expect_eq(has(&shapes, expected[e].op, expected[e].shape), 1, "%s %s",
                             expected[e].op, expected[e].shape);
                known = 1;
            }
        }
        cr_expect(known, "%s is not among those expected", set);
        /* Too large for a run for targets, by multiply-adds and by bytes. */
        int large = has(&shapes, "sgemm_packed", "128x14336x4096") ||
                    has(&shapes, "sgemm_packed", "1x128256x4096");
        cr_expect_eq(large, strcmp(set, "llm") == 0, "%s", set);
        for (int s = 0; s < shapes.count; s++) {
            const char *from = shapes.problem[s].set; /* @llm, @onednn */
            int of_another = strcmp(set, "targets") == 0 &&
                             (strcmp(from, "llm") == 0 || strcmp(from, "onednn") == 0);
            cr_expect(strcmp(from, set) == 0 || of_another, "%s in %s", from, set);
        }
        /* The same once more adds nothing. */
        int count = shapes.count;
        cr_expect_gt(count, 10);
        cr_expect_eq(bench_shapes_add_set(&shapes, set, error, sizeof error), 0);
        cr_expect_eq(shapes.count, count);
        size_t length = strlen(bench_set_text(i));
        cr_expect(length > 20 && length < 100 && bench_set_text(i)[0] != '#');
        bench_shapes_free(&shapes);
    }
    cr_expect_null(bench_set_name(-1));
    cr_expect_null(bench_set_text(100));
    struct bench_shapes shapes = {0};
    cr_expect_eq(bench_shapes_add_set(&shapes, "sead", error, sizeof error), -1);
    cr_expect(strstr(error, "'sead': expected seed, llm, ") != NULL, "%s", error);
    bench_shapes_free(&shapes);
}

static const char *write_file(const char *name, const char *text, size_t bytes)
{
    const char *path = temp_path(name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
    return path;
}

Test(bench_problem, files_of_shapes)
{
    const char *text = "# mine\n\nsvd_rebuild @rebuild row=3 x=2\n  sgemm,sgemm_nt\t3x5x7 # "
                       "two\r\nsoftmax 4x4\n#x\nsoftmax 04x4\n"
                       "relu 9";
    struct bench_shapes shapes = {0};
    const char *path = write_file("mine.txt", text, strlen(text));
    cr_assert_eq(bench_shapes_add_file(&shapes, path, error, sizeof error), 0, "%s", error);
    cr_expect_eq(shapes.count, 4 + 20);
    cr_expect_eq(has(&shapes, "svd_rebuild", "4096x4096x4096"), 1);
    cr_expect_eq(has(&shapes, "sgemm", "3x5x7"), 1);
    cr_expect_eq(has(&shapes, "sgemm_nt", "3x5x7"), 1);
    cr_expect_eq(has(&shapes, "softmax", "4x4"), 1);
    cr_expect_eq(has(&shapes, "relu", "9"), 1);
    cr_expect_str_eq(shapes.problem[0].set, "rebuild");
    cr_expect_str_eq(shapes.problem[shapes.count - 1].set, "mine.txt");
    path = write_file("empty.txt", "", 0);
    cr_expect_eq(bench_shapes_add_file(&shapes, path, error, sizeof error), 0, "%s", error);
    cr_expect_eq(shapes.count, 4 + 20);
    bench_shapes_free(&shapes);
}

Test(bench_problem, bad_files_of_shapes)
{
    static const struct {
        const char *text;
        size_t bytes; /* 0: that of the text */
        const char *says;
    } bad[] = {
        {"softmax 3x5\n\nsoftmax\n", 0, "line 3: expected 'op[,op...] shape', found 'softmax'"},
        {"softmax 3x5 7\n", 0, "line 1: expected 'op[,op...] shape'"},
        {"# x\nsoftmax,sgemm 3x5\n", 0, "line 2: sgemm: bad shape '3x5': expected m x n x k"},
        {"softmax, 3x5\n", 0, "line 1: unknown operation ''"},
        {"softmax,softmix 3x5\n", 0, "line 1: unknown operation 'softmix': expected one of sgemm,"},
        {"softmax 0x5", 0, "line 1: softmax: bad shape '0x5'"},
        {"relu 3 x=1 y\n", 0, "line 1: expected 'op[,op...] shape', found 'relu ... y'"},
        {"relu 3\nrelu @sead\n", 0, "line 2: unknown shape set 'sead'"},
        {"softmix @llm\n", 0, "line 1: unknown operation 'softmix'"},
        {"relu 3\nsoft\0max 3x5\n", 21, "line 2: this is no text"},
    };
    struct bench_shapes shapes = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t bytes = bad[i].bytes > 0 ? bad[i].bytes : strlen(bad[i].text);
        const char *path = write_file("bad.txt", bad[i].text, bytes);
        cr_expect_eq(bench_shapes_add_file(&shapes, path, error, sizeof error), -1, "%zu", i);
        cr_expect(strstr(error, bad[i].says) != NULL, "%s", error);
        cr_expect_eq(strncmp(error, path, strlen(path)), 0, "%s", error);
        cr_expect_null(strchr(error, '\n'));
        cr_expect_eq(shapes.count, 0, "nothing is added from a bad file");
    }
    char line[2000];
    memset(line, 'a', sizeof line);
    const char *path = write_file("long.txt", line, sizeof line);
    cr_expect_eq(bench_shapes_add_file(&shapes, path, error, sizeof error), -1);
    cr_expect(strstr(error, "line 1: the line has more than") != NULL, "%s", error);
    cr_expect_eq(bench_shapes_add_file(&shapes, temp_path("none"), error, sizeof error), -1);
    cr_expect(strstr(error, "No such file") != NULL, "%s", error);
    cr_expect_eq(bench_shapes_add_file(&shapes, temp_dir, error, sizeof error), -1);
    cr_expect(strstr(error, "Is a directory") != NULL, "%s", error);
    bench_shapes_free(&shapes);
}
