/* The safetensors reader: the verdicts of the reference implementation on 190 files, access to
 * tensors, and random damage. */
#include "check.h"
#include "t2.h"
#include "t2k.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORPUS "tests/data/safetensors-corpus/"
#define SHARED_CORPUS "../shared/data/safetensors-corpus/"

/* ---- building files in memory --------------------------------------------------------------- */

struct buffer {
    char *data;
    size_t size, room;
};

static void add(struct buffer *b, const char *text, size_t n)
{
    if (b->size + n > b->room) {
        b->room = (b->size + n) * 2;
        b->data = realloc(b->data, b->room);
        cr_assert_not_null(b->data);
    }
    memcpy(b->data + b->size, text, n);
    b->size += n;
}

static void add_text(struct buffer *b, const char *text)
{
    add(b, text, strlen(text));
}

static void repeat(struct buffer *b, const char *text, size_t times)
{
    for (size_t i = 0; i < times; i++) {
        add_text(b, text);
    }
}

/* Puts the header's length where 8 bytes were left for it, and n zeros of data behind. */
static void finish(struct buffer *b, size_t n)
{
    for (int i = 0; i < 8; i++) {
        b->data[i] = (char)((uint64_t)(b->size - 8) >> (8 * i) & 0xff);
    }
    for (size_t i = 0; i < n; i++) {
        add(b, "", 1);
    }
}

static struct buffer begin(void)
{
    struct buffer b = {NULL, 0, 0};
    add(&b, "\0\0\0\0\0\0\0\0", 8);
    return b;
}

static struct buffer file_of(const char *json, size_t data_bytes)
{
    struct buffer b = begin();
    add_text(&b, json);
    finish(&b, data_bytes);
    return b;
}

/* `format` with the number and, where it takes them, the range of each of n tensors. */
static void add_many(struct buffer *b, int n, const char *name, const char *info, int step)
{
    char text[128];
    add_text(b, "{");
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, name, i > 0 ? "," : "", i);
        add_text(b, text);
        add_text(b, info);
        if (step > 0) {
            snprintf(text, sizeof text, "[%d,%d]}", step * i, step * (i + 1));
            add_text(b, text);
        }
    }
    add_text(b, "}");
}

#define INFO_4 "{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"

/* The corpus' large files follow a pattern each and are made here; 0 for any other name. */
static int generate(const char *name, struct buffer *b)
{
    *b = begin();
    size_t data = 16;
    if (strcmp(name, "atk_2_many_overlapping") == 0) {
        add_many(b, 20000, "%s\"weight_%d\":", INFO_4, 0);
    } else if (strcmp(name, "atk_3_many_overlapping_big") == 0) {
        add_many(b, 2000, "%s\"weight_%d\":",
                 "{\"dtype\":\"F32\",\"shape\":[200,200],\"data_offsets\":[0,160000]}", 0);
        data = 160000;
    } else if (strcmp(name, "spec_10k_tensors_ok") == 0) {
        add_many(b, 10000, "%s\"t%05d\":", "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":", 4);
        data = 40000;
    } else if (strcmp(name, "spec_deep_in_extra_field") == 0) {
        add_text(b, "{\"t\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16],\"x\":");
        repeat(b, "[", 100000);
        repeat(b, "]", 100000);
        add_text(b, "}}");
    } else if (strcmp(name, "spec_deep_nesting_obj") == 0) {
        repeat(b, "{\"a\":", 20000);
    } else if (strcmp(name, "spec_long_digits") == 0) {
        add_text(b, "{\"t\":{\"dtype\":\"F32\",\"shape\":[");
        repeat(b, "1", 100000);
        add_text(b, "],\"data_offsets\":[0,16]}}");
    } else if (strcmp(name, "spec_long_name") == 0) {
        add_text(b, "{\"");
        repeat(b, "n", 1000000);
        add_text(b, "\":" INFO_4 "}");
    } else if (strcmp(name, "spec_rank_100k") == 0) {
        add_text(b, "{\"t\":{\"dtype\":\"F32\",\"shape\":[");
        repeat(b, "1,", 100000);
        add_text(b, "4],\"data_offsets\":[0,16]}}");
    } else {
        free(b->data);
        return 0;
    }
    finish(b, data);
    return 1;
}

static int read_file(const char *path, struct buffer *b)
{
    char piece[4096];
    FILE *f = fopen(path, "rb");
    *b = (struct buffer){NULL, 0, 0};
    if (f == NULL) {
        return 0;
    }
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;) {
        add(b, piece, n);
    }
    fclose(f);
    return 1;
}

/* ---- the corpus ----------------------------------------------------------------------------- */

/* Where the reference accepts a file and other readers do not, this one refuses only these: */
static const char *const refused[] = {
    "spec_dup_escaped",
    "spec_dup_metakey",
    "spec_dup_tensor_diff",
    "spec_dup_tensor_same",
    "spec_nul_in_name",
    "spec_ok_leading_space",
    "spec_tensor_seq_form",
    "spec_zero_times_overflow",
    "up_test_whitespace_leading_padded_header_0",
};

/* What a message says for each error of the reference. */
static const struct {
    const char *reference;
    const char *words[3];
} reasons[] = {
    {"HeaderTooSmall", {"at least 8 bytes"}},
    {"HeaderTooLarge", {"header of at most 100000000 bytes"}},
    {"InvalidHeaderLength", {"reaches beyond the file"}},
    {"InvalidHeader", {"not valid UTF-8"}},
    {"InvalidHeaderDeserialization", {"header", "tensor", "__metadata__"}},
    {"InvalidOffset", {"offsets", "duplicate", "too big integer"}},
    {"TensorInvalidInfo", {"bytes by dtype"}},
    {"ValidationOverflow", {"overflows", "too big integer"}},
    {"MisalignedSlice", {"whole number of bytes"}},
    {"MetadataIncompleteBuffer", {"bytes of data after the header"}},
};

static int explains(const char *message, const char *reference)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        for (int j = 0; j < 3 && strcmp(reasons[i].reference, reference) == 0; j++) {
            if (reasons[i].words[j] != NULL && strstr(message, reasons[i].words[j]) != NULL) {
                return 1;
            }
        }
    }
    return 0;
}

static int expect_ok(const char *name, const char *verdict)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (strcmp(verdict, "EITHER") == 0 && strcmp(name, refused[i]) == 0) {
            return 0;
        }
    }
    return strcmp(verdict, "ERR") != 0;
}

static void judge(const char *name, const char *verdict, const char *detail, t2_status status,
                  t2_safetensors *file, const t2_error *err)
{
    if (!expect_ok(name, verdict)) {
        cr_expect_eq(status, T2_ERR_FORMAT, "%s: status %d, expected a refusal", name, status);
        cr_expect(strcmp(verdict, "ERR") != 0 || explains(err->message, detail),
                  "%s: \"%s\" does not say %s", name, err->message, detail);
        return;
    }
    cr_expect_eq(status, T2_OK, "%s: %s", name, err->message);
    if (status == T2_OK && strcmp(verdict, "OK") == 0) {
        cr_expect_eq(t2_safetensors_count(file), (size_t)atoi(detail), "%s: %zu tensors", name,
                     t2_safetensors_count(file));
    }
    t2_safetensors_close(file);
}

/* One file of the corpus, by each way to open it. */
static void corpus_file(const char *name, const char *verdict, const char *detail)
{
    char path[256];
    struct buffer b, original;
    t2_error err = {T2_OK, ""};
    t2_safetensors *file = NULL;
    if (generate(name, &b)) {
        snprintf(path, sizeof path, SHARED_CORPUS "%s.safetensors", name);
        if (read_file(path, &original)) {
            cr_expect(original.size == b.size && memcmp(original.data, b.data, b.size) == 0,
                      "%s: made differently from the original", name);
            free(original.data);
        }
    } else {
        snprintf(path, sizeof path, CORPUS "%s.safetensors", name);
        cr_assert(read_file(path, &b), "%s is missing", path);
        for (unsigned flags = 0; flags <= T2_SAFETENSORS_NO_MMAP; flags++) {
            t2_status status = t2_safetensors_open(path, flags, &file, &err);
            judge(name, verdict, detail, status, file, &err);
        }
    }
    t2_status status =
        t2_safetensors_open_memory(name, b.size > 0 ? b.data : "", b.size, &file, &err);
    judge(name, verdict, detail, status, file, &err);
    free(b.data);
}

Test(safetensors, corpus, .timeout = 60)
{
    char line[512];
    int files = 0;
    FILE *f = fopen(CORPUS "verdicts.tsv", "r");
    cr_assert_not_null(f, "run from the root of the repository");
    while (fgets(line, sizeof line, f) != NULL) {
        char *name = strtok(line, "\t"), *verdict = strtok(NULL, "\t\n");
        char *detail = strtok(NULL, "\t\n"), *end = strstr(name, ".safetensors");
        cr_assert(verdict != NULL && end != NULL, "bad line for %s", name);
        *end = '\0';
        corpus_file(name, verdict, detail != NULL ? detail : "");
        files++;
    }
    fclose(f);
    cr_assert_eq(files, 190);
}

/* ---- what the corpus does not hold ---------------------------------------------------------- */

static t2_status open_json(const char *json, size_t data_bytes, t2_error *err)
{
    struct buffer b = file_of(json, data_bytes);
    t2_safetensors *file = NULL;
    t2_status status = t2_safetensors_open_memory("m", b.data, b.size, &file, err);
    if (status == T2_OK) {
        t2_safetensors_close(file);
    }
    free(b.data);
    return status;
}

Test(safetensors, messages)
{
    static const struct {
        const char *json;
        const char *message;
    } cases[] = {
        {"{\"w\":{\"dtype\":\"F128\",\"shape\":[2,2],\"data_offsets\":[0,16]}}",
         "m: tensor 'w': unsupported dtype F128"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,16]}}",
         "m: tensor 'w': expected 24 bytes by dtype F32 and shape, found 16"},
        {"{\"a\\u001bb\\n\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[4,16]}}",
         "m: tensor 'a\\u001bb\\n': offsets begin at 4, expected 0 (a hole before it)"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         "m: expected 4 bytes of data after the header, found 16 (trailing bytes)"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]}}",
         "m: expected 32 bytes of data after the header, found 16 (the file is cut off)"},
        {"{\"w\":{\"dtype\":\"F32\",\"shape\":[-0],\"data_offsets\":[0,0]}}",
         "m: header holds -0 where an unsigned integer is expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        t2_error err = {T2_OK, ""};
        cr_expect_eq(open_json(cases[i].json, 16, &err), T2_ERR_FORMAT);
        cr_expect_eq(err.status, T2_ERR_FORMAT);
        cr_expect_str_eq(err.message, cases[i].message);
        cr_expect_eq(open_json(cases[i].json, 16, NULL), T2_ERR_FORMAT);
    }
}

Test(safetensors, nesting_ends_at_127_levels)
{
    for (int levels = 126; levels <= 128; levels++) {
        struct buffer b = {NULL, 0, 0};
        add_text(&b, "{\"t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],\"x\":");
        repeat(&b, "[", (size_t)levels - 2); /* inside two objects already */
        repeat(&b, "]", (size_t)levels - 2);
        add(&b, "}}", 3);
        cr_expect_eq(open_json(b.data, 16, NULL), levels <= 127 ? T2_OK : T2_ERR_FORMAT,
                     "%d levels", levels);
        free(b.data);
    }
}

Test(safetensors, numbers_in_extra_fields_are_free)
{
    cr_expect_eq(open_json("{\"t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],"
                           "\"x\":[-1,-0.5,-0e1,1e3,\"-0 \\\" {\"]}}",
                           16, NULL),
                 T2_OK);
}

Test(safetensors, refuses_what_is_no_file)
{
    t2_safetensors *file = NULL;
    t2_error err;
    cr_expect_eq(t2_safetensors_open("tests/data", 0, &file, &err), T2_ERR_IO);
    cr_expect_str_eq(err.message, "tests/data: is a directory");
    cr_expect_eq(t2_safetensors_open("tests/none", 0, &file, &err), T2_ERR_IO);
    cr_expect_str_eq(err.message, "tests/none: cannot open: No such file or directory");
    cr_expect_eq(t2_safetensors_open("/dev/null", 0, &file, &err), T2_ERR_IO);
    cr_expect_eq(t2_safetensors_open("", 0, &file, NULL), T2_ERR_IO);
    cr_expect_eq(t2_safetensors_open(NULL, 0, &file, NULL), T2_ERR_ARG);
    cr_expect_eq(t2_safetensors_open("x", 2, &file, NULL), T2_ERR_ARG);
    cr_expect_eq(t2_safetensors_open_memory("m", NULL, 1, &file, NULL), T2_ERR_ARG);
    cr_expect_null(file);
    t2_safetensors_close(NULL);
}

/* ---- access --------------------------------------------------------------------------------- */

/* Data of four floats at each of eight distances from alignment. */
Test(safetensors, aligned_access)
{
    static const float expected[4] = {1.0f, -2.5f, 3e-40f, 1e30f};
    for (size_t pad = 0; pad < 8; pad++) {
        struct buffer b = begin();
        add_text(&b, "{\"w\":" INFO_4 ",\"__metadata__\":{\"k\":\"v\",\"j\":\"\"}}");
        repeat(&b, " ", pad);
        finish(&b, 16);
        memcpy(b.data + b.size - 16, expected, 16);
        t2_safetensors *file = NULL;
        t2_error err;
        cr_assert_eq(t2_safetensors_open_memory("m", b.data, b.size, &file, &err), T2_OK);
        const t2_tensor *w = t2_safetensors_find(file, "w");
        cr_assert_not_null(w);
        const float *data = NULL, *again = NULL;
        cr_assert_eq(t2_safetensors_f32(file, w, &data, &err), T2_OK);
        cr_assert_eq(t2_safetensors_f32(file, w, &again, &err), T2_OK);
        cr_expect_eq(data, again);
        cr_expect_eq((uintptr_t)data % sizeof *data, 0);
        cr_expect_eq(data == w->data, (uintptr_t)w->data % sizeof *data == 0);
        cr_expect_eq(memcmp(data, expected, 16), 0);
        const double *doubles;
        cr_expect_eq(t2_safetensors_f64(file, w, &doubles, &err), T2_ERR_FORMAT);
        cr_expect_str_eq(err.message, "m: tensor 'w': expected dtype F64, found F32");
        t2_tensor foreign = *w;
        cr_expect_eq(t2_safetensors_f32(file, &foreign, &data, NULL), T2_ERR_ARG);
        cr_expect_eq(t2_safetensors_metadata_count(file), 2);
        cr_expect_str_eq(t2_safetensors_metadata(file, 0)->key, "k");
        cr_expect_str_eq(t2_safetensors_metadata_find(file, "j"), "");
        cr_expect_null(t2_safetensors_metadata_find(file, "x"));
        cr_expect_null(t2_safetensors_metadata(file, 2));
        cr_expect_null(t2_safetensors_tensor(file, 1));
        cr_expect_null(t2_safetensors_find(file, "v"));
        t2_safetensors_close(file);
        free(b.data);
    }
}

Test(safetensors, fingerprint_is_that_of_the_kernels)
{
    float data[1001];
    struct rng rng = {7};
    rng_fill(&rng, data, 1001);
    data[0] = float_of(0x7fc12345u);
    data[1000] = float_of(0xffc00001u);
    int64_t shape[2] = {7, 143};
    unsigned char moved[sizeof data + 1];
    memcpy(moved + 1, data, sizeof data);
    t2_tensor tensor = {"t", T2_F32, 2, shape, moved + 1, sizeof data};
    cr_expect_eq(t2_tensor_fingerprint(&tensor),
                 t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, data));
    cr_expect_eq(t2_tensor_elements(&tensor), 1001);
    tensor.dtype = T2_U8;
    uint64_t bytes = t2_tensor_fingerprint(&tensor);
    moved[5] ^= 1;
    cr_expect_neq(t2_tensor_fingerprint(&tensor), bytes);
    tensor.dtype = T2_DTYPE_COUNT;
    cr_expect_eq(t2_tensor_fingerprint(&tensor), 0);
}

/* ---- damage --------------------------------------------------------------------------------- */

#define VALID_MIXED                                                         \
    "{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\":\"\\ud83d\\ude00\"}," \
    "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"       \
    "\"z\":{\"dtype\":\"I64\",\"shape\":[0,3],\"data_offsets\":[4,4]},"     \
    "\"b\":{\"dtype\":\"BOOL\",\"shape\":[3,4],\"data_offsets\":[4,16]}}  "
#define VALID_UNSORTED                                                 \
    "{\"s\":{\"shape\":[],\"dtype\":\"F64\",\"data_offsets\":[8,16]}," \
    "\"q\":{\"dtype\":\"F4\",\"shape\":[4,4],\"data_offsets\":[0,8],\"x\":[{},null]}}"

static const char *const valid[] = {"{\"w\":" INFO_4 "}", VALID_MIXED, VALID_UNSORTED};

static const char *const tokens[] = {
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "-0",
    "-1",
    "1e3",
    "1.0",
    "null",
    "true",
    "16",
    "0",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "\"F32\"",
    "\"BF16\"",
    "\xff",
    "\xed\xa0\x80",
    " ",
    "\n",
};

static size_t damage(struct rng *rng, char *file, size_t size, size_t room)
{
    size_t at = 8 + rng_below(rng, size - 8), n;
    switch (rng_below(rng, 6)) {
    case 0: /* any byte, the length included */
        file[rng_below(rng, size)] = (char)rng_below(rng, 256);
        break;
    case 1: /* one bit */
        at = rng_below(rng, size);
        file[at] = (char)(file[at] ^ 1 << rng_below(rng, 8));
        break;
    case 2: /* cut off */
        return rng_below(rng, size + 1);
    case 3: /* take bytes out, the length adapted */
        n = 1 + rng_below(rng, 6);
        n = n < size - at ? n : size - at;
        memmove(file + at, file + at + n, size - at - n);
        file[0] = (char)(file[0] - (char)n);
        return size - n;
    default: { /* put a token in or over, the length adapted */
        const char *token = tokens[rng_below(rng, sizeof tokens / sizeof tokens[0])];
        n = strlen(token);
        if (rng_below(rng, 2) && size + n <= room) {
            memmove(file + at + n, file + at, size - at);
            file[0] = (char)(file[0] + (char)n);
            size += n;
        }
        memcpy(file + at, token, n < size - at ? n : size - at);
    }
    }
    return size;
}

/* Everything that an accepted file offers can be read. */
static void use(t2_safetensors *file, const unsigned char *start, size_t size)
{
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        const t2_tensor *t = t2_safetensors_tensor(file, i);
        const unsigned char *data = t->data;
        cr_assert(data >= start && data + t->bytes <= start + size);
        cr_assert_eq(t2_safetensors_find(file, t->name), t);
        cr_assert((size_t)t2_tensor_elements(t) * (size_t)t2_dtype_bits(t->dtype) == t->bytes * 8);
        t2_tensor_fingerprint(t);
        const float *f;
        cr_assert_eq(t2_safetensors_f32(file, t, &f, NULL),
                     t->dtype == T2_F32 ? T2_OK : T2_ERR_FORMAT);
    }
}

/* The bytes lie flush against an unmapped page, so reading beyond them traps. */
Test(safetensors, survives_damage, .timeout = 120)
{
    enum { ROUNDS = 20000, ROOM = 1024 };
    char file[ROOM];
    struct guarded g = guarded_new(ROOM, 1);
    struct rng rng = {check_seed()};
    int accepted = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct buffer b = file_of(valid[rng_below(&rng, 3)], 16);
        size_t size = b.size;
        memcpy(file, b.data, size);
        free(b.data);
        for (size_t n = 1 + rng_below(&rng, 3); n > 0 && size > 8; n--) {
            size = damage(&rng, file, size, ROOM);
        }
        unsigned char *start = (unsigned char *)g.data + (ROOM - size);
        memcpy(start, file, size);
        t2_error err = {T2_OK, ""};
        t2_safetensors *opened = NULL;
        t2_status status =
            t2_safetensors_open_memory("fuzz", start, size, &opened, round % 2 ? &err : NULL);
        if (status == T2_OK) {
            accepted++;
            use(opened, start, size);
            t2_safetensors_close(opened);
        } else {
            cr_assert_eq(status, T2_ERR_FORMAT);
            cr_assert(round % 2 == 0 || strncmp(err.message, "fuzz: ", 6) == 0, "%s", err.message);
        }
    }
    guarded_free(&g);
    cr_assert(accepted > ROUNDS / 100 && accepted < ROUNDS / 2, "%d accepted", accepted);
}
