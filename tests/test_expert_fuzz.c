/* Damaged expert and factor files: each is refused with a status and a message, or what it gives
 * can be computed with. Parts of an unfinished decomposition: what comes out is as if whole. */
#include "check.h"
#include "io/file.h"
#include "svd_file.h"
#include "t2.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <sys/stat.h>

TestSuite(expert_fuzz, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

enum { ROOM = 1 << 16, EXPERT_ROUNDS = 3000, FACTOR_ROUNDS = 2000, PART_ROUNDS = 200 };

/* ---- damage ---------------------------------------------------------------------------------- */

struct bytes {
    size_t size;
    unsigned char data[ROOM];
};

static void load(const char *path, struct bytes *b)
{
    t2_bytes file;
    cr_assert_eq(t2_bytes_open(path, 0, ROOM, &file, NULL), T2_OK, "%s", path);
    memcpy(b->data, file.data, file.size);
    b->size = file.size;
    t2_bytes_release(&file);
}

static void save(const char *path, const struct bytes *b)
{
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(b->data, 1, b->size, f), b->size);
    fclose(f);
}

static size_t header_end(const struct bytes *b)
{
    uint64_t n;
    memcpy(&n, b->data, sizeof n);
    return n < b->size - 8 ? (size_t)n + 8 : b->size;
}

/* Words of a header that mean something, in place of others of the same length: the header stays
 * JSON, so that what lies behind the parser is reached. */
static int exchange(struct rng *rng, struct bytes *b)
{
    static const char *const words[][2] = {{"F32", "I32"},
                                           {"F32", "F64"},
                                           {"\"4\"", "\"5\""},
                                           {"sigmoid", "SIGMOID"},
                                           {"SVF", "SFV"},
                                           {"expert", "factor"},
                                           {"\"on\"", "\"no\""},
                                           {"[4]", "[5]"},
                                           {"[4]", "[0]"},
                                           {"\"a", "\"b"},
                                           {".U", ".V"},
                                           {".S", ".U"},
                                           {"\\\"m\\\":6", "\\\"m\\\":4"},
                                           {"\\\"r\\\":4", "\\\"r\\\":9"},
                                           {"[6,4]", "[4,6]"},
                                           {"[0,", "[8,"},
                                           {"max_mult", "max_mulu"},
                                           {"\"2\"", "\"0\""},
                                           {"\"2\"", "\"-\""},
                                           {"t2.factors", "t2.factorz"}};
    size_t which = rng_below(rng, sizeof words / sizeof words[0]), n = strlen(words[which][0]);
    size_t end = header_end(b), start = 8 + rng_below(rng, end - 8);
    for (size_t i = 0; i < end - 8; i++) {
        size_t at = 8 + (start - 8 + i) % (end - 8);
        if (at + n <= end && memcmp(b->data + at, words[which][0], n) == 0) {
            memcpy(b->data + at, words[which][1], n);
            return 1;
        }
    }
    return 0;
}

static void damage(struct rng *rng, struct bytes *b, const struct bytes *other)
{
    static const uint32_t floats[] = {0x7fc00000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu,
                                      0x00000001u, 0xff7fffffu, 0x80000000u};
    size_t end = header_end(b), body = b->size - end;
    switch (rng_below(rng, 8)) {
    case 0: /* a bit anywhere */
        b->data[rng_below(rng, b->size)] ^= (unsigned char)(1u << rng_below(rng, 8));
        break;
    case 1: /* a byte of the header */
        b->data[rng_below(rng, end)] = (unsigned char)rng_next(rng);
        break;
    case 2: /* cut off */
        b->size = 9 + rng_below(rng, b->size - 8);
        break;
    case 3: /* the header's length */
        b->data[rng_below(rng, 8)] = (unsigned char)rng_next(rng);
        break;
    case 4: /* a number that is none, or huge */
        if (body >= 4) {
            memcpy(b->data + end + rng_below(rng, body / 4) * 4,
                   &floats[rng_below(rng, sizeof floats / sizeof floats[0])], 4);
        }
        break;
    case 5: /* a piece of another file */
        if (other->size > 64 && b->size > 64) {
            memcpy(b->data + rng_below(rng, b->size - 32),
                   other->data + rng_below(rng, other->size - 32), 1 + rng_below(rng, 32));
        }
        break;
    case 6: /* a digit */
        for (size_t i = 0, at = 8 + rng_below(rng, end - 8); i < end - 8; i++) {
            unsigned char *c = &b->data[8 + (at - 8 + i) % (end - 8)];
            if (*c >= '0' && *c <= '9') {
                *c = (unsigned char)('0' + rng_below(rng, 10));
                break;
            }
        }
        break;
    default:
        exchange(rng, b);
        break;
    }
}

/* ---- what is left of it ---------------------------------------------------------------------- */

static void make_factors(const char *out, const char *modules)
{
    t2_svd_args args = {
        .size = sizeof args, .model = temp_path("m"), .out = out, .modules = modules, .jobs = 1};
    t2_error err;
    cr_assert_eq(t2_svd_run(&args, &err), T2_OK, "%s", err.message);
}

/* The scales of every matrix: all finite, or a status. */
static void use(const t2_expert *expert, const t2_factors *factors)
{
    t2_error err;
    if (t2_expert_get_form(expert)->kind != T2_EXPERT_SVF ||
        t2_expert_check(expert, factors, &err) != T2_OK) {
        return;
    }
    for (int64_t i = 0; i < t2_factors_count(factors); i++) {
        float scaled[64];
        cr_assert_leq(t2_factors_get(factors, i)->r, 64);
        t2_status status = t2_expert_scales(expert, factors, i, scaled, NULL, NULL, NULL, &err);
        cr_assert(status == T2_OK || status == T2_ERR_NUMERIC, "%s", err.message);
        for (int64_t k = 0; status == T2_OK && k < t2_factors_get(factors, i)->r; k++) {
            cr_assert(isfinite(scaled[k]), "scale %lld of matrix %lld", (long long)k, (long long)i);
        }
    }
}

static void check_message(const t2_error *err, const char *path)
{
    cr_assert_eq(err->status, T2_ERR_FORMAT, "%s", err->message);
    cr_assert_not_null(strstr(err->message, path), "'%s' lacks '%s'", err->message, path);
}

Test(expert_fuzz, experts)
{
    static const t2_expert_form forms[] = {{T2_EXPERT_SVF, T2_SQUASH_SIGMOID, 2.0f, 1.0f, 1},
                                           {T2_EXPERT_SVF, T2_SQUASH_RELU_DELTA, 1.0f, 0.5f, 0}};
    static struct bytes good[3], bad;
    char path[1400];
    snprintf(path, sizeof path, "%s/bad", temp_dir);
    svd_make_model(temp_path("m"), 1);
    make_factors(temp_path("f"), "all");
    t2_factors *factors;
    t2_error err;
    cr_assert_eq(t2_factors_open(temp_path("f"), 0, &factors, &err), T2_OK, "%s", err.message);
    for (int k = 0; k < 2; k++) {
        t2_expert *expert;
        cr_assert_eq(t2_expert_new(&forms[k], "x", factors, NULL, 0.3, 1, &expert, &err), T2_OK);
        cr_assert_eq(t2_expert_write(expert, path, &err), T2_OK, "%s", err.message);
        load(path, &good[k]);
        t2_expert_release(expert);
    }
    load(temp_path("f"), &good[2]);
    struct rng rng = {check_seed()};
    int accepted = 0;
    for (int round = 0; round < EXPERT_ROUNDS; round++) {
        bad = good[round % 2];
        for (size_t n = 1 + rng_below(&rng, 3); n > 0 && bad.size > 64; n--) {
            damage(&rng, &bad, &good[1 + rng_below(&rng, 2)]);
        }
        save(path, &bad);
        t2_expert *expert = NULL;
        err = (t2_error){T2_OK, ""};
        if (t2_expert_open(path, &expert, &err) == T2_OK) {
            accepted++;
            use(expert, factors);
        } else {
            cr_assert_null(expert);
            check_message(&err, path);
        }
        t2_expert_release(expert);
    }
    cr_expect(accepted > EXPERT_ROUNDS / 100 && accepted < EXPERT_ROUNDS / 2, "%d accepted",
              accepted);
    t2_factors_close(factors);
}

/* With VERIFY: refused, or the factors of the good file to the bit. */
Test(expert_fuzz, factors)
{
    static struct bytes good, other, bad;
    char path[1400];
    snprintf(path, sizeof path, "%s/bad", temp_dir);
    svd_make_model(temp_path("m"), 1);
    make_factors(temp_path("f"), "all");
    load(temp_path("f"), &good);
    load(temp_path("m"), &other);
    t2_factors *whole;
    t2_error err;
    cr_assert_eq(t2_factors_open(temp_path("f"), 0, &whole, &err), T2_OK, "%s", err.message);
    struct rng rng = {check_seed()};
    int accepted = 0;
    for (int round = 0; round < FACTOR_ROUNDS; round++) {
        bad = good;
        for (size_t n = 1 + rng_below(&rng, 2); n > 0 && bad.size > 64; n--) {
            damage(&rng, &bad, &other);
        }
        save(path, &bad);
        t2_factors *factors = NULL;
        err = (t2_error){T2_OK, ""};
        if (t2_factors_open(path, T2_FACTORS_VERIFY, &factors, &err) != T2_OK) {
            cr_assert_null(factors);
            check_message(&err, path);
            continue;
        }
        accepted++;
        cr_assert_str_eq(t2_factors_hash(factors), t2_factors_hash(whole));
        for (int64_t i = 0; i < t2_factors_count(whole); i++) {
            const t2_factor *f = t2_factors_get(factors, i), *g = t2_factors_get(whole, i);
            cr_assert(f->m == g->m && f->n == g->n && f->r == g->r);
            cr_assert_eq(memcmp(f->U, g->U, (size_t)(f->m * f->r) * sizeof(float)), 0);
            cr_assert_eq(memcmp(f->S, g->S, (size_t)f->r * sizeof(float)), 0);
            cr_assert_eq(memcmp(f->V, g->V, (size_t)(f->n * f->r) * sizeof(float)), 0);
        }
        t2_factors_close(factors);
    }
    cr_expect_lt(accepted, FACTOR_ROUNDS / 2, "%d accepted", accepted);
    t2_factors_close(whole);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static int stop_after_two(void *arg, const t2_svd_progress *progress)
{
    (void)arg;
    return progress->done >= 2;
}

/* A damaged part is computed again: the same factors. Only what no hash covers, such as the
 * residual and the names of libraries in its record, may come out changed. */
Test(expert_fuzz, parts)
{
    static struct bytes good, bad;
    char out[1400], parts[1420], path[2000] = "";
    snprintf(out, sizeof out, "%s/p", temp_dir);
    snprintf(parts, sizeof parts, "%s.parts", out);
    svd_make_model(temp_path("m"), 1);
    make_factors(temp_path("f"), "all");
    load(temp_path("f"), &good);
    struct rng rng = {check_seed()};
    t2_factors *whole;
    t2_error err;
    cr_assert_eq(t2_factors_open(temp_path("f"), 0, &whole, &err), T2_OK, "%s", err.message);
    for (int round = 0; round < PART_ROUNDS; round++) {
        t2_svd_args args = {.size = sizeof args,
                            .model = temp_path("m"),
                            .out = out,
                            .modules = "all",
                            .jobs = 1,
                            .on_progress = stop_after_two};
        cr_assert_eq(t2_svd_run(&args, &err), T2_ERR_STOPPED);
        DIR *dir = opendir(parts);
        cr_assert_not_null(dir);
        for (struct dirent *e; (e = readdir(dir)) != NULL;) {
            struct stat info;
            char each[2000];
            snprintf(each, sizeof each, "%s/%.200s", parts, e->d_name);
            if (stat(each, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 64) {
                snprintf(path, sizeof path, "%s", each);
            }
        }
        closedir(dir);
        cr_assert_neq(path[0], '\0');
        load(path, &bad);
        damage(&rng, &bad, &good);
        save(path, &bad);
        args.on_progress = NULL;
        cr_assert_eq(t2_svd_run(&args, &err), T2_OK, "round %d: %s", round, err.message);
        t2_factors *factors;
        cr_assert_eq(t2_factors_open(out, T2_FACTORS_VERIFY, &factors, &err), T2_OK, "%s",
                     err.message);
        cr_assert_str_eq(t2_factors_hash(factors), t2_factors_hash(whole), "round %d", round);
        cr_assert_str_eq(t2_factors_base_hash(factors), t2_factors_base_hash(whole));
        t2_factors_close(factors);
        remove(out);
    }
    t2_factors_close(whole);
}
