/* Writing files: the bytes of a safetensors file, and that a file appears whole or not at all. */
#include "t2.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

TestSuite(write, .init = temp_dir_make, .fini = temp_dir_remove);

static size_t content(const char *path, char *data, size_t room)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        return SIZE_MAX;
    }
    size_t n = fread(data, 1, room, f);
    fclose(f);
    return n;
}

static void expect_content(const char *path, const char *expected)
{
    char data[256];
    size_t n = content(path, data, sizeof data);
    cr_expect(n == strlen(expected) && memcmp(data, expected, n) == 0, "%s: %zu bytes", path, n);
}

/* ---- safetensors ---------------------------------------------------------------------------- */

static const int64_t shape_ab[] = {2, 1}, shape_empty[] = {0, 5}, shape_c[] = {3};
static const float data_ab[] = {1.0f, 2.0f};
static const uint8_t data_c[] = {7, 8, 9};
static const double data_d = 4.0;
static const t2_tensor some[] = {
    {"c", T2_U8, 1, shape_c, data_c, 3},
    {"b\n\"\\\x01\xc3\xa9", T2_F32, 2, shape_ab, data_ab, 8},
    {"a", T2_F32, 2, shape_ab, data_ab, 8},
    {"d", T2_F64, 0, NULL, &data_d, 8},
    {"", T2_I64, 2, shape_empty, NULL, 0},
};
enum { SOME = sizeof some / sizeof some[0] };
static const t2_pair pairs[] = {{"z", "1\t2"}, {"format", "t2"}};

Test(write, bytes_of_a_file)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"t2\",\"z\":\"1\\t2\"},"
        "\"\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[0,0]},"
        "\"d\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[8,16]},"
        "\"b\\n\\\"\\\\\\u0001\xc3\xa9\":{\"dtype\":\"F32\",\"shape\":[2,1],"
        "\"data_offsets\":[16,24]},"
        "\"c\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[24,27]}}";
    char data[1024];
    t2_error err;
    const char *path = temp_path("x");
    cr_assert_eq(t2_safetensors_write(path, some, SOME, pairs, 2, &err), T2_OK);
    size_t n = content(path, data, sizeof data), length = (strlen(header) + 7) / 8 * 8;
    cr_assert_eq(n, 8 + length + 27);
    cr_expect_eq((unsigned char)data[0] + 256u * (unsigned char)data[1], length);
    cr_expect_eq(memcmp(data + 2, "\0\0\0\0\0\0", 6), 0);
    cr_expect_eq(memcmp(data + 8, header, strlen(header)), 0);
    for (size_t i = 8 + strlen(header); i < 8 + length; i++) {
        cr_expect_eq(data[i], ' ');
    }
    cr_expect_eq(memcmp(data + 8 + length, &data_d, 8), 0);
    cr_expect_eq(memcmp(data + 8 + length + 24, data_c, 3), 0);
}

Test(write, round_trip)
{
    const char *path = temp_path("x"), *second = temp_path("y");
    t2_safetensors *file = NULL;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_safetensors_write(path, some, SOME, pairs, 2, &err), T2_OK);
    cr_assert_eq(t2_safetensors_open(path, 0, &file, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_safetensors_count(file), SOME);
    t2_tensor copy[SOME];
    for (size_t i = 0; i < SOME; i++) {
        const t2_tensor *t = t2_safetensors_find(file, some[i].name);
        cr_assert_not_null(t);
        cr_expect(t->dtype == some[i].dtype && t->rank == some[i].rank);
        cr_expect_eq(t2_tensor_fingerprint(t), t2_tensor_fingerprint(&some[i]));
        copy[i] = *t2_safetensors_tensor(file, SOME - 1 - i);
    }
    cr_expect_str_eq(t2_safetensors_metadata_find(file, "z"), "1\t2");
    cr_assert_eq(
        t2_safetensors_write(second, copy, SOME, t2_safetensors_metadata(file, 0), 2, &err), T2_OK);
    t2_safetensors_close(file);
    char a[1024], b[1024];
    size_t n = content(path, a, sizeof a);
    cr_expect(n == content(second, b, sizeof b) && memcmp(a, b, n) == 0);
    cr_assert_eq(t2_safetensors_write(path, NULL, 0, NULL, 0, &err), T2_OK);
    cr_assert_eq(t2_safetensors_open(path, 0, &file, &err), T2_OK);
    cr_expect_eq(t2_safetensors_count(file), 0);
    t2_safetensors_close(file);
    cr_expect_eq(temp_dir_each(NULL), 2);
}

Test(write, refuses_bad_tensors)
{
    static const int64_t negative[] = {-1}, huge[] = {INT64_MAX, 4}, odd[] = {3};
    static const struct {
        t2_tensor tensors[2];
        const char *words;
    } cases[] = {
        {{{"n", T2_F32, 1, negative, data_ab, 4}, {"o", T2_U8, 1, shape_c, data_c, 3}}, "negative"},
        {{{"n", T2_F32, 2, huge, data_ab, 4}, {"o", T2_U8, 1, shape_c, data_c, 3}}, "overflows"},
        {{{"n", T2_F4, 1, odd, data_c, 2}, {"o", T2_U8, 1, shape_c, data_c, 3}}, "whole number"},
        {{{"n", T2_F32, 1, shape_c, data_ab, 8}, {"o", T2_U8, 1, shape_c, data_c, 3}},
         "expected 12 bytes by dtype and shape, found 8"},
        {{{"n", T2_U8, 1, shape_c, NULL, 3}, {"o", T2_U8, 1, shape_c, data_c, 3}}, "at NULL"},
        {{{"n", T2_U8, 1, shape_c, data_c, 3}, {"n", T2_I8, 1, shape_c, data_c, 3}}, "twice"},
        {{{"__metadata__", T2_U8, 1, shape_c, data_c, 3}, {"n", T2_I8, 1, shape_c, data_c, 3}},
         "legal name"},
        {{{"\xff", T2_U8, 1, shape_c, data_c, 3}, {"n", T2_I8, 1, shape_c, data_c, 3}},
         "legal name"},
        {{{NULL, T2_U8, 1, shape_c, data_c, 3}, {"n", T2_I8, 1, shape_c, data_c, 3}}, "legal name"},
        {{{"n", T2_DTYPE_COUNT, 1, shape_c, data_c, 3}, {"o", T2_I8, 1, shape_c, data_c, 3}},
         "dtype"},
    };
    static const t2_pair twice[] = {{"k", "1"}, {"k", "2"}}, invalid[] = {{"k", "\x80"}};
    const char *path = temp_path("x");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        t2_error err = {T2_OK, ""};
        cr_expect_eq(t2_safetensors_write(path, cases[i].tensors, 2, NULL, 0, &err), T2_ERR_ARG,
                     "case %zu", i);
        cr_expect(strstr(err.message, cases[i].words) != NULL, "%s", err.message);
    }
    cr_expect_eq(t2_safetensors_write(path, some, SOME, twice, 2, NULL), T2_ERR_ARG);
    cr_expect_eq(t2_safetensors_write(path, some, SOME, invalid, 1, NULL), T2_ERR_ARG);
    cr_expect_eq(t2_safetensors_write(NULL, some, SOME, NULL, 0, NULL), T2_ERR_ARG);
    cr_expect_eq(temp_dir_each(NULL), 0);
}

/* ---- whole or not at all -------------------------------------------------------------------- */

Test(write, replaces_and_keeps_the_mode)
{
    struct stat st;
    const char *path = temp_path("x"), *link = temp_path("link");
    umask(027);
    cr_assert_eq(t2_write_file_atomic(path, "one", 3, NULL), T2_OK);
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0640);
    cr_assert_eq(chmod(path, 0604), 0);
    cr_assert_eq(t2_write_file_atomic(path, "two!", 4, NULL), T2_OK);
    expect_content(path, "two!");
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0604);
    cr_assert_eq(symlink("x", link), 0);
    cr_assert_eq(t2_write_file_atomic(link, "", 0, NULL), T2_OK);
    expect_content(path, "");
    cr_assert_eq(lstat(link, &st), 0);
    cr_expect(S_ISLNK(st.st_mode));
    cr_expect_eq(temp_dir_each(NULL), 2);
}

Test(write, plain_names_lie_in_the_working_directory)
{
    cr_assert_eq(chdir(temp_dir), 0);
    cr_assert_eq(t2_write_file_atomic("x", "one", 3, NULL), T2_OK);
    expect_content(temp_path("x"), "one");
}

/* The limit on a file's size stands for a full disk: the write fails in the middle. */
Test(write, failure_keeps_the_old_file)
{
    static char large[100000];
    const char *path = temp_path("x");
    t2_error err = {T2_OK, ""};
    const int64_t shape[] = {100000};
    const t2_tensor tensor = {"t", T2_U8, 1, shape, large, sizeof large};
    cr_assert_eq(t2_write_file_atomic(path, "old", 3, NULL), T2_OK);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit, old;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 5000;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    t2_status status = t2_safetensors_write(path, &tensor, 1, NULL, 0, &err);
    t2_status fresh = t2_write_file_atomic(temp_path("y"), large, sizeof large, NULL);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    cr_expect_eq(status, T2_ERR_IO);
    cr_expect_eq(fresh, T2_ERR_IO);
    cr_expect(strstr(err.message, "/x: cannot write: ") != NULL, "%s", err.message);
    expect_content(path, "old");
    cr_expect_eq(temp_dir_each(NULL), 1);
}

Test(write, full_device)
{
    t2_error err = {T2_OK, ""};
    const char *link = temp_path("full");
    if (access("/dev/full", W_OK) != 0) {
        cr_skip_test("no /dev/full here");
    }
    cr_expect_eq(t2_safetensors_write("/dev/full", some, SOME, NULL, 0, &err), T2_ERR_IO);
    cr_expect_str_eq(err.message, "/dev/full: cannot write: No space left on device");
    cr_assert_eq(symlink("/dev/full", link), 0);
    cr_expect_eq(t2_write_file_atomic(link, "x", 1, NULL), T2_ERR_IO);
    cr_expect_eq(access("/dev/full", F_OK), 0);
    cr_expect_eq(t2_write_file_atomic("/dev/null", "x", 1, NULL), T2_OK);
    cr_expect_eq(temp_dir_each(NULL), 1);
}

Test(write, impossible_paths)
{
    t2_error err = {T2_OK, ""};
    cr_expect_eq(t2_write_file_atomic(temp_dir, "x", 1, &err), T2_ERR_IO);
    cr_expect(strstr(err.message, ": is a directory") != NULL, "%s", err.message);
    cr_expect_eq(t2_write_file_atomic(temp_path("no/x"), "x", 1, &err), T2_ERR_IO);
    cr_expect(strstr(err.message, "/no/x: cannot create a file in its directory: No such file") !=
                  NULL,
              "%s", err.message);
    cr_expect_eq(t2_write_file_atomic(temp_path("new/"), "x", 1, &err), T2_ERR_IO);
    cr_expect_eq(t2_write_file_atomic("", "x", 1, &err), T2_ERR_IO);
    cr_expect_eq(t2_write_file_atomic(NULL, "x", 1, &err), T2_ERR_ARG);
    cr_expect_eq(t2_write_file_atomic(temp_path("x"), NULL, 1, &err), T2_ERR_ARG);
    cr_expect_eq(temp_dir_each(NULL), 0);
    cr_assert_eq(symlink("nowhere", temp_path("link")), 0);
    cr_expect_eq(t2_write_file_atomic(temp_path("link"), "x", 1, &err), T2_ERR_IO);
    cr_expect(strstr(err.message, "link to a missing file") != NULL, "%s", err.message);
}

/* Permissions don't bind root, which therefore becomes somebody else for the calls. */
Test(write, protected_places)
{
    enum { NOBODY = 65534 };
    t2_error err = {T2_OK, ""};
    int root = geteuid() == 0;
    const char *path = temp_path("x");
    cr_assert_eq(t2_write_file_atomic(path, "old", 3, NULL), T2_OK);
    cr_assert_eq(chmod(temp_dir, root ? 0755 : 0500), 0);
    cr_assert(!root || seteuid(NOBODY) == 0);
    t2_status directory = t2_write_file_atomic(temp_path("y"), "new", 3, &err);
    cr_assert(!root || seteuid(0) == 0);
    cr_assert_eq(chmod(temp_dir, root ? 0777 : 0700), 0);
    cr_assert_eq(chmod(path, 0444), 0);
    cr_assert(!root || seteuid(NOBODY) == 0);
    t2_status protected = t2_write_file_atomic(path, "new", 3, NULL);
    cr_assert(!root || seteuid(0) == 0);
    cr_expect_eq(directory, T2_ERR_IO);
    cr_expect(strstr(err.message, "Permission denied") != NULL, "%s", err.message);
    cr_expect_eq(protected, T2_ERR_IO);
    expect_content(path, "old");
    cr_expect_eq(temp_dir_each(NULL), 1);
}
