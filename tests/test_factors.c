/* Factor files with one thing wrong: refused, with file, place, what was expected and found. */
#include "check.h"
#include "io/file.h"
#include "svd_file.h"
#include "t2.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>

TestSuite(factors, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

typedef struct change {
    const char *what;   /* key or tensor */
    const char *find;   /* in the value of a key; NULL: replace all of it */
    const char *put;    /* NULL: drop it */
    const char *expect; /* in the message */
} change;

static void change_pair(svd_edit *e, const void *arg)
{
    static char value[4096];
    const change *c = arg;
    t2_pair *pair = svd_pair_of(e, c->what);
    if (c->put == NULL) {
        *pair = e->pairs[--e->pair_count];
        return;
    }
    const char *at = c->find != NULL ? strstr(pair->value, c->find) : pair->value;
    cr_assert_not_null(at, "%s has no %s", pair->value, c->find);
    snprintf(value, sizeof value, "%.*s%s%s", (int)(at - pair->value), pair->value, c->put,
             c->find != NULL ? at + strlen(c->find) : "");
    pair->value = value;
}

static void refused(const char *path, unsigned flags, const char *expect)
{
    t2_factors *factors = NULL;
    t2_error err = {T2_OK, ""};
    cr_expect_eq(t2_factors_open(path, flags, &factors, &err), T2_ERR_FORMAT, "%s", expect);
    cr_expect_not_null(strstr(err.message, expect), "'%s': no '%s'", err.message, expect);
    cr_expect_not_null(strstr(err.message, path), "'%s': no '%s'", err.message, path);
    cr_expect_null(factors);
    t2_factors_close(factors);
}

static void make_factors(const char *out)
{
    char model[1400];
    snprintf(model, sizeof model, "%s/m", temp_dir);
    svd_make_model(model, 1);
    t2_svd_args args = {.size = sizeof args, .model = model, .out = out, .modules = "all"};
    t2_error err;
    cr_assert_eq(t2_svd_run(&args, &err), T2_OK, "%s", err.message);
}

Test(factors, wrong_metadata)
{
    static const change changes[] = {
        {"t2.kind", NULL, "expert", "t2.kind: expected factors, found expert"},
        {"t2.kind", NULL, NULL, "t2.kind: expected factors, found nothing"},
        {"t2.version", NULL, "2", "t2.version: expected 1, found 2"},
        {"t2.hash", NULL, "0", "t2.hash: expected "},
        {"t2.hash", NULL, NULL, "t2.hash: expected "},
        {"t2.base_hash", NULL, "0", "t2.base_hash: expected "},
        {"t2.matrix.a", NULL, NULL, "tensor a."},
        {"t2.matrix.a", NULL, "{", "t2.matrix.a: expected a JSON object"},
        {"t2.matrix.a", NULL, "[]", "t2.matrix.a: expected a JSON object, found something else"},
        {"t2.matrix.a", "\"m\"", "\"n\"", "t2.matrix.a: expected a JSON object"}, /* twice */
        {"t2.matrix.a", "\"m\":6", "\"m\":7", "tensor a.U: expected F32 or BF16 [7, 4]"},
        {"t2.matrix.a", "\"m\":6", "\"m\":0", "t2.matrix.a: key 'm': expected"},
        {"t2.matrix.a", "\"m\":6,", "", "t2.matrix.a: key 'm'"},
        {"t2.matrix.a", "\"n\":4", "\"n\":-4", "key 'n'"},
        {"t2.matrix.a", "\"r\":4", "\"r\":5", "key 'r': expected an integer from 1 to 4, found 5"},
        {"t2.matrix.a", "\"r\":4", "\"r\":3", "tensor a.U: expected F32 or BF16 [6, 3]"},
        {"t2.matrix.a", "\"r\":4", "\"r\":0", "key 'r'"},
        {"t2.matrix.a", "\"first\":0", "\"first\":-1", "key 'first'"},
        {"t2.matrix.a", "\"first\":0", "\"first\":\"0\"", "key 'first'"},
        {"t2.matrix.a", "false", "0", "key 'transposed'"},
        {"t2.matrix.a", "\"tensor\":\"a\"", "\"tensor\":1", "key 'tensor'"},
        {"t2.matrix.a", "\"residual\":", "\"residual\":-", "key 'residual'"},
        {"t2.matrix.a", "\"orthogonality\":", "\"ortho\":", "key 'orthogonality'"},
        {"t2.matrix.a", "\"factor_hash\":\"", "\"factor_hash\":\"x", "key 'factor_hash'"},
        {"t2.matrix.a", "\"weight_hash\":\"", "\"weight_hash\":\"A", "key 'weight_hash'"},
        {"t2.matrix.a", "\"factor_hash\"", "\"other\"", "key 'factor_hash'"},
    };
    char good[1400], bad[1400];
    snprintf(good, sizeof good, "%s/good", temp_dir);
    snprintf(bad, sizeof bad, "%s/bad", temp_dir);
    make_factors(good);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        svd_rewrite(good, bad, change_pair, &changes[i]);
        refused(bad, 0, changes[i].expect);
    }
}

typedef struct poke {
    const char *tensor;
    int64_t index;
    float value;
    unsigned flags;
    const char *expect;
} poke;

static float poked[64];

static void change_value(svd_edit *e, const void *arg)
{
    const poke *p = arg;
    t2_tensor *tensor = svd_tensor_of(e, p->tensor);
    cr_assert_leq(tensor->bytes, sizeof poked);
    memcpy(poked, tensor->data, tensor->bytes);
    poked[p->index] = p->value;
    tensor->data = poked;
}

static void drop_tensor(svd_edit *e, const void *arg)
{
    *svd_tensor_of(e, arg) = e->tensors[--e->count];
}

static void rename_tensor(svd_edit *e, const void *arg)
{
    svd_tensor_of(e, arg)->name = "a.X";
}

static void add_tensor(svd_edit *e, const void *arg)
{
    (void)arg;
    e->tensors[e->count] = e->tensors[0];
    e->tensors[e->count++].name = "stray";
}

static void turn_tensor(svd_edit *e, const void *arg)
{
    static const int64_t shape[2] = {4, 6};
    svd_tensor_of(e, arg)->shape = shape;
}

static void retype_tensor(svd_edit *e, const void *arg)
{
    svd_tensor_of(e, arg)->dtype = T2_I32;
}

static void halve_tensor(svd_edit *e, const void *arg)
{
    t2_tensor *tensor = svd_tensor_of(e, arg);
    tensor->dtype = T2_BF16;
    tensor->bytes /= 2;
}

Test(factors, wrong_tensors)
{
    static const poke pokes[] = {
        {"a.U", 5, NAN, 0, "tensor a.U: expected finite numbers, found"},
        {"a.V", 15, INFINITY, 0, "tensor a.V: expected finite numbers, found inf at [3, 3]"},
        {"a.S", 3, -1.0f, 0, "tensor a.S: expected 0 to"},
        {"a.S", 1, 100.0f, 0, "found 100 at [1]"},
        {"a.S", 0, INFINITY, 0, "tensor a.S: expected 0 to inf, found inf"},
        {"a.S", 0, NAN, 0, "tensor a.S"},
        {"a.U", 5, 0.25f, T2_FACTORS_VERIFY, "tensor a.U, .S, .V: expected SHA-256"},
        {"a.S", 3, 0.0f, T2_FACTORS_VERIFY, "tensor a.U, .S, .V: expected SHA-256"},
    };
    static const struct {
        void (*act)(svd_edit *e, const void *arg);
        const char *tensor, *expect;
    } acts[] = {
        {drop_tensor, "a.U", "tensor a.U: expected F32 or BF16 [6, 4], found nothing"},
        {drop_tensor, "a.S", "tensor a.S: expected F32 [4], found nothing"},
        {drop_tensor, "a.V", "tensor a.V: expected F32 or BF16 [4, 4], found nothing"},
        {rename_tensor, "a.U", "tensor a.U: expected"},
        {add_tensor, NULL, "tensor stray: expected only"},
        {turn_tensor, "a.U", "found F32 [4, 6]"},
        {retype_tensor, "a.U", "found I32 [6, 4]"},
        {retype_tensor, "a.S", "tensor a.S: expected F32 [4], found I32 [4]"},
        {halve_tensor, "a.V", "tensor a.V: expected F32, found BF16"},
        {halve_tensor, "a.S", "found BF16 [4]"},
    };
    char good[1400], bad[1400];
    snprintf(good, sizeof good, "%s/good", temp_dir);
    snprintf(bad, sizeof bad, "%s/bad", temp_dir);
    make_factors(good);
    for (size_t i = 0; i < sizeof pokes / sizeof pokes[0]; i++) {
        svd_rewrite(good, bad, change_value, &pokes[i]);
        refused(bad, pokes[i].flags, pokes[i].expect);
    }
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        svd_rewrite(good, bad, acts[i].act, acts[i].tensor);
        refused(bad, 0, acts[i].expect);
    }
    refused("runtime/models/t2-chars/model.safetensors", 0,
            "t2.kind: expected factors, found nothing");
}

/* Every bit of the header turned over: an error, or a file in which only a note differs. */
Test(factors, any_header)
{
    const char *good = temp_path("good"), *bad = temp_path("bad");
    make_factors(good);
    t2_bytes bytes;
    cr_assert_eq(t2_bytes_open(good, 0, UINT64_MAX, &bytes, NULL), T2_OK);
    unsigned char *copy = malloc(bytes.size);
    memcpy(copy, bytes.data, bytes.size);
    uint64_t header;
    memcpy(&header, copy, sizeof header);
    int refusals = 0;
    struct rng rng = {7};
    for (int i = 0; i < 4000; i++) {
        size_t at = rng_below(&rng, (size_t)header + 8);
        unsigned char bit = (unsigned char)(1u << rng_below(&rng, 8));
        copy[at] ^= bit;
        FILE *f = fopen(bad, "wb");
        cr_assert_not_null(f);
        cr_assert_eq(fwrite(copy, 1, bytes.size, f), bytes.size);
        fclose(f);
        copy[at] ^= bit;
        t2_factors *factors = NULL;
        t2_error err;
        if (t2_factors_open(bad, T2_FACTORS_VERIFY, &factors, &err) == T2_OK) {
            cr_expect_eq(t2_factors_count(factors), 4);
        } else {
            refusals++;
            cr_expect_eq(err.status, T2_ERR_FORMAT, "%s", err.message);
        }
        t2_factors_close(factors);
    }
    cr_expect_gt(refusals, 2000);
    free(copy);
    t2_bytes_release(&bytes);
}
