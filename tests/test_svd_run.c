/* t2_svd_run() and factor files: a whole model, runs that stop and go on, files that are refused.
 */
#include "check.h"
#include "io/file.h"
#include "svd_file.h"
#include "svf/svf.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define CHARS "runtime/models/t2-chars"

TestSuite(svd_run, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

/* ---- shared pieces -------------------------------------------------------------------------- */

/* As temp_path(), but valid for the whole test. */
static const char *kept_path(const char *name)
{
    static char paths[256][1200];
    static unsigned used;
    char *path = paths[used++ % 256];
    snprintf(path, sizeof paths[0], "%s", temp_path(name));
    return path;
}

static t2_svd_args args_for(const char *model, const char *out)
{
    return (t2_svd_args){.size = sizeof(t2_svd_args), .model = model, .out = out, .jobs = 1};
}

static void must_run(const t2_svd_args *args)
{
    t2_error err;
    cr_assert_eq(t2_svd_run(args, &err), T2_OK, "%s", err.message);
}

static t2_factors *must_open(const char *path)
{
    t2_factors *factors;
    t2_error err;
    cr_assert_eq(t2_factors_open(path, T2_FACTORS_VERIFY, &factors, &err), T2_OK, "%s",
                 err.message);
    return factors;
}

static t2_bytes content(const char *path)
{
    t2_bytes bytes;
    t2_error err;
    cr_assert_eq(t2_bytes_open(path, 0, UINT64_MAX, &bytes, &err), T2_OK, "%s", err.message);
    return bytes;
}

static int same_files(const char *a, const char *b)
{
    t2_bytes x = content(a), y = content(b);
    int same = x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
    t2_bytes_release(&x);
    t2_bytes_release(&y);
    return same;
}

static int exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Counts the calls, and stops after some matrices. */
typedef struct watch {
    int stop_at; /* done; 0: never */
    int calls, kept;
    double left; /* of the last call */
    uint64_t needed;
} watch;

static int on_progress(void *arg, const t2_svd_progress *progress)
{
    watch *w = arg;
    if (progress->name == NULL) {
        cr_expect_eq(progress->done, 0);
        cr_expect_lt(progress->left, 0.0);
        w->needed = progress->bytes_needed;
    } else {
        cr_expect_gt(progress->done, 0);
        cr_expect_leq(progress->done, progress->count);
    }
    w->calls++;
    w->kept += progress->kept;
    w->left = progress->left;
    return w->stop_at > 0 && progress->done >= w->stop_at;
}

static t2_status run_watched(t2_svd_args args, watch *w, t2_error *err)
{
    args.on_progress = on_progress;
    args.on_progress_arg = w;
    return t2_svd_run(&args, err);
}

/* ---- a whole model -------------------------------------------------------------------------- */

/* Largest |W - U diag(S) V^T| over the part of the tensor. */
static double worst_of(const t2_factor *f, const float *w)
{
    double worst = 0.0;
    for (int64_t i = 0; i < f->m; i++) {
        for (int64_t j = 0; j < f->n; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < f->r; k++) {
                sum += (double)f->U[i * f->r + k] * (double)f->S[k] * (double)f->V[j * f->r + k];
            }
            worst = fmax(worst, fabs(sum - (double)w[(f->first + i) * f->n + j]));
        }
    }
    return worst;
}

Test(svd_run, whole_model)
{
    const char *out = kept_path("f.safetensors");
    watch w = {0};
    t2_error err;
    t2_safetensors *model;
    cr_assert_eq(run_watched(args_for(CHARS, out), &w, &err), T2_OK, "%s", err.message);
    cr_expect_eq(w.calls, 19);
    cr_expect_eq(w.kept, 0);
    cr_expect_eq(w.left, 0.0);
    cr_expect_not(exists(kept_path("f.safetensors.parts")));
    struct stat st;
    cr_assert_eq(stat(out, &st), 0);
    cr_expect_lt((uint64_t)st.st_size, w.needed);
    cr_expect_gt(2 * (uint64_t)st.st_size, w.needed - w.needed / 10);
    cr_assert_eq(t2_safetensors_open(CHARS "/model.safetensors", 0, &model, &err), T2_OK);
    t2_factors *factors = must_open(out);
    cr_expect_eq(t2_factors_check(factors, model, &err), T2_OK, "%s", err.message);
    cr_expect_eq(t2_factors_count(factors), 18);
    cr_expect_str_eq(t2_factors_path(factors), out);
    cr_expect_not(t2_factors_cut(factors));
    for (int64_t i = 0; i < 18; i++) {
        const t2_factor *f = t2_factors_get(factors, i);
        const float *weights;
        const t2_tensor *tensor = t2_safetensors_find(model, f->tensor);
        cr_assert_eq(t2_safetensors_f32(model, tensor, &weights, &err), T2_OK);
        cr_expect_leq(worst_of(f, weights), 1e-6, "%s", f->name);
        cr_expect_leq(f->residual, 1e-7);
        cr_expect_gt(f->residual, 1e-9);
        cr_expect_eq(t2_factors_find(factors, f->name), i);
    }
    const t2_factor *k =
        t2_factors_get(factors, t2_factors_find(factors, "layers.1.attention.in_proj_weight.k"));
    cr_assert_not_null(k);
    cr_expect_str_eq(k->tensor, "layers.1.attention.in_proj_weight");
    cr_expect_eq(k->first, 64);
    cr_expect_eq(t2_factors_find(factors, "layers.1.attention.in_proj_weight"), -1);
    cr_expect_null(t2_factors_get(factors, 18));
    cr_expect_null(t2_factors_get(factors, -1));
    cr_expect_str_eq(t2_factors_note(factors, "store"), "f32");
    cr_expect_str_eq(t2_factors_note(factors, "lapack"), t2_lapack_library()->lapack);
    cr_expect_null(t2_factors_note(factors, "mixed"));
    cr_expect_null(t2_factors_note(factors, "rank"));
    cr_expect_eq(strlen(t2_factors_hash(factors)), 64u);
    cr_expect_str_neq(t2_factors_hash(factors), t2_factors_base_hash(factors));
    cr_expect_not_null(strstr(t2_svd_library(), t2_lapack_library()->blas));
    t2_factors_close(factors);
    t2_safetensors_close(model);
    t2_factors_close(NULL);
}

Test(svd_run, model_of_the_factors)
{
    const char *model = kept_path("m"), *out = kept_path("f"), *other = kept_path("other");
    svd_make_model(model, 1);
    svd_make_model(other, 2);
    t2_svd_args args = args_for(model, out);
    args.modules = "all";
    must_run(&args);
    t2_factors *factors = must_open(out);
    const char *const paths[] = {model, other, CHARS "/model.safetensors"};
    const char *const words[] = {"", "a of the factors: expected SHA-256 ", "found no such matrix"};
    for (int i = 0; i < 3; i++) {
        t2_safetensors *file;
        t2_error err = {T2_OK, ""};
        cr_assert_eq(t2_safetensors_open(paths[i], 0, &file, &err), T2_OK);
        cr_expect_eq(t2_factors_check(factors, file, &err), i == 0 ? T2_OK : T2_ERR_FORMAT);
        cr_expect_not_null(strstr(err.message, words[i]), "%s", err.message);
        t2_safetensors_close(file);
    }
    t2_factors_close(factors);
}

Test(svd_run, jobs_give_the_same_bytes)
{
    const char *one = kept_path("1"), *four = kept_path("4");
    t2_svd_args args = args_for(CHARS "/model.safetensors", one);
    args.modules = "all";
    must_run(&args);
    args.out = four;
    args.jobs = 4;
    must_run(&args);
    cr_expect(same_files(one, four));
    t2_factors *factors = must_open(one);
    cr_expect_eq(t2_factors_count(factors), 20); /* embedding and fc_out, too */
    t2_factors_close(factors);
}

static int (*blas_threads)(void);

static int expect_one_thread(void *arg, const t2_svd_progress *progress)
{
    (void)arg;
    if (progress->name != NULL) {
        cr_expect_eq(blas_threads(), 1);
    }
    return 0;
}

Test(svd_run, one_blas_thread_per_job)
{
    void *blas =
        t2_lapack_open(NULL) == T2_OK ? dlopen("libopenblas.so.0", RTLD_NOW | RTLD_NOLOAD) : NULL;
    void (*set_threads)(int);
    if (blas == NULL) {
        cr_skip_test("another BLAS");
    }
    *(void **)&blas_threads = dlsym(blas, "openblas_get_num_threads");
    *(void **)&set_threads = dlsym(blas, "openblas_set_num_threads");
    set_threads(3);
    svd_make_model(kept_path("m"), 1);
    t2_svd_args args = args_for(kept_path("m"), kept_path("f"));
    args.modules = "all";
    args.on_progress = expect_one_thread;
    must_run(&args);
    cr_expect_eq(blas_threads(), 3);
}

Test(svd_run, rounding_modes_of_the_caller)
{
    const char *one = kept_path("1"), *two = kept_path("2");
    svd_make_model(kept_path("m"), 1);
    t2_svd_args args = args_for(kept_path("m"), one);
    args.modules = "all";
    must_run(&args);
#if defined(__x86_64__)
    unsigned towards_zero = 0x1f80u | 0x6000u, usual = 0x1f80u;
    __asm__ volatile("ldmxcsr %0" : : "m"(towards_zero) : "memory");
#endif
    args.out = two;
    t2_status status = t2_svd_run(&args, NULL);
#if defined(__x86_64__)
    __asm__ volatile("ldmxcsr %0" : : "m"(usual) : "memory");
#endif
    cr_assert_eq(status, T2_OK);
    cr_expect(same_files(one, two));
}

Test(svd_run, bf16_and_cut)
{
    const char *out = kept_path("f");
    svd_make_model(kept_path("m"), 1);
    t2_svd_args args = args_for(kept_path("m"), out);
    args.modules = "all";
    args.bf16 = 1;
    args.rank = 3;
    args.energy = 0.999;
    must_run(&args);
    t2_factors *factors = must_open(out);
    cr_expect_str_eq(t2_factors_note(factors, "store"), "bf16");
    cr_expect_str_eq(t2_factors_note(factors, "rank"), "3");
    cr_expect_str_eq(t2_factors_note(factors, "energy"), "0.999");
    cr_expect(t2_factors_cut(factors));
    for (int64_t i = 0; i < t2_factors_count(factors); i++) {
        const t2_factor *f = t2_factors_get(factors, i);
        cr_expect_leq(f->r, 3);
        for (int64_t e = 0; e < f->m * f->r; e++) {
            cr_expect_eq(bits_of(f->U[e]) & 0xffffu, 0u);
        }
        double norm = 0.0;
        for (int64_t j = 0; j < f->n; j++) {
            norm += (double)f->V[j * f->r] * (double)f->V[j * f->r];
        }
        cr_expect_leq(fabs(norm - 1.0), 1e-2);
    }
    t2_factors_close(factors);
}

/* ---- runs that stop ------------------------------------------------------------------------- */

Test(svd_run, goes_on_with_the_same_bytes)
{
    const char *whole = kept_path("whole"), *out = kept_path("f");
    t2_svd_args args = args_for(CHARS, whole);
    t2_error err = {T2_OK, ""};
    must_run(&args);
    args.out = out;
    for (int jobs = 1; jobs <= 2; jobs++) {
        args.jobs = jobs;
        watch w = {.stop_at = 5};
        cr_expect_eq(run_watched(args, &w, &err), T2_ERR_STOPPED);
        cr_expect_not_null(strstr(err.message, "of 18 matrices are in"), "%s", err.message);
        cr_expect_not(exists(out));
        w = (watch){.stop_at = 11};
        cr_expect_eq(run_watched(args, &w, &err), T2_ERR_STOPPED);
        cr_expect_geq(w.kept, 5);
        w = (watch){0};
        cr_assert_eq(run_watched(args, &w, &err), T2_OK, "%s", err.message);
        cr_expect(w.kept >= 11 && w.kept < 18, "%d kept", w.kept);
        cr_expect(same_files(whole, out));
        cr_expect_not(exists(kept_path("f.parts")));
        remove(out);
    }
    /* Stopped by the first call: nothing is computed. */
    args.on_progress = NULL;
    watch w = {.stop_at = 1};
    cr_expect_eq(run_watched(args, &w, &err), T2_ERR_STOPPED);
    cr_expect_leq(w.calls, 3);
    must_run(&args);
}

typedef struct second {
    t2_svd_args args;
    t2_status status;
    t2_error err;
} second;

static int start_second(void *arg, const t2_svd_progress *progress)
{
    second *s = arg;
    if (progress->done == 2) {
        s->status = t2_svd_run(&s->args, &s->err);
    }
    return 0;
}

Test(svd_run, one_run_at_a_time)
{
    const char *out = kept_path("f"), *model = kept_path("m");
    svd_make_model(model, 1);
    second s = {.args = args_for(model, out)};
    s.args.modules = "all";
    t2_svd_args args = s.args;
    args.on_progress = start_second;
    args.on_progress_arg = &s;
    must_run(&args);
    cr_expect_eq(s.status, T2_ERR_IO);
    cr_expect_not_null(strstr(s.err.message, "another run is at work"), "%s", s.err.message);
    t2_factors_close(must_open(out));
}

/* ---- parts that do not fit ------------------------------------------------------------------- */

/* The part of the matrix `name`. */
static const char *part_of(const char *name)
{
    char dir[1400];
    snprintf(dir, sizeof dir, "%s", kept_path("f.parts"));
    t2_parts parts = {dir, -1};
    char *path = t2_parts_path(&parts, name);
    t2_text relative = {0};
    t2_text_printf(&relative, "f.parts/%s", strrchr(path, '/') + 1);
    const char *kept = kept_path(relative.data);
    t2_text_free(&relative);
    free(path);
    return kept;
}

static void stop_after_all(const t2_svd_args *args)
{
    watch w = {.stop_at = 4};
    cr_assert_eq(run_watched(*args, &w, NULL), T2_ERR_STOPPED);
}

static void finish_with(const t2_svd_args *args, int kept, const char *expected)
{
    watch w = {0};
    t2_error err;
    cr_assert_eq(run_watched(*args, &w, &err), T2_OK, "%s", err.message);
    cr_expect_eq(w.kept, kept, "%d kept, expected %d", w.kept, kept);
    if (expected != NULL) {
        cr_expect(same_files(args->out, expected));
    }
}

static void spoil(const char *path, long offset, int from_end)
{
    FILE *f = fopen(path, "r+b");
    cr_assert_not_null(f, "%s", path);
    fseek(f, offset, from_end ? SEEK_END : SEEK_SET);
    int c = fgetc(f);
    fseek(f, offset, from_end ? SEEK_END : SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

Test(svd_run, spoiled_parts_are_made_again)
{
    const char *model = kept_path("m"), *whole = kept_path("whole");
    svd_make_model(model, 1);
    t2_svd_args args = args_for(model, whole);
    args.modules = "all";
    must_run(&args);
    args.out = kept_path("f");
    stop_after_all(&args);
    spoil(part_of("a"), -6, 1); /* the lowest bit of a value: only SHA-256 sees it */
    spoil(part_of("b"), 40, 0); /* the header */
    cr_assert_eq(truncate(part_of("c"), 100), 0);
    finish_with(&args, 1, whole);
    /* All are sound, but of other weights, options or another place. */
    stop_after_all(&args);
    args.bf16 = 1;
    finish_with(&args, 0, NULL);
    args.bf16 = 0;
    stop_after_all(&args);
    args.rank = 2;
    finish_with(&args, 0, NULL);
    args.rank = 0;
    stop_after_all(&args);
    args.energy = 1.0;
    finish_with(&args, 0, NULL);
    args.energy = 0.0;
    stop_after_all(&args);
    svd_make_model(model, 2);
    finish_with(&args, 0, NULL);
    svd_make_model(model, 1);
    stop_after_all(&args);
    cr_assert_eq(rename(part_of("a"), part_of("b")), 0);
    finish_with(&args, 2, whole);
    /* What a killed run leaves is removed with the folder. */
    stop_after_all(&args);
    FILE *f = fopen(kept_path("f.parts/.t2-1-2.tmp"), "w");
    cr_assert_not_null(f);
    fclose(f);
    finish_with(&args, 4, whole);
    cr_expect_not(exists(kept_path("f.parts")));
}

/* ---- files with one thing changed -------------------------------------------------------------
 */

static void other_library(svd_edit *e, const void *arg)
{
    (void)arg;
    svd_pair_of(e, "t2.blas")->value = "OtherBLAS 1.2";
}

Test(svd_run, parts_of_another_library_are_noted)
{
    const char *out = kept_path("f"), *part = part_of("a");
    const char *model = kept_path("m"), *whole = kept_path("whole");
    svd_make_model(model, 1);
    t2_svd_args args = args_for(model, whole);
    args.modules = "all";
    must_run(&args);
    args.out = out;
    stop_after_all(&args);
    svd_rewrite(part, part, other_library, NULL);
    finish_with(&args, 4, NULL);
    t2_factors *factors = must_open(out), *plain = must_open(whole);
    const char *mixed = t2_factors_note(factors, "mixed");
    cr_assert_not_null(mixed);
    cr_expect_not_null(strstr(mixed, "OtherBLAS 1.2"), "%s", mixed);
    cr_expect_str_eq(t2_factors_hash(factors), t2_factors_hash(plain));
    t2_factors_close(factors);
    t2_factors_close(plain);
}

/* ---- what cannot be done ----------------------------------------------------------------------
 */

static void run_refused(const t2_svd_args *args, t2_status expected, const char *words)
{
    t2_error err = {T2_OK, ""};
    cr_expect_eq(t2_svd_run(args, &err), expected, "%s: %s", words, err.message);
    cr_expect_not_null(strstr(err.message, words), "%s: no %s", err.message, words);
}

static void with_nan(svd_edit *e, const void *arg)
{
    static float values[25];
    t2_tensor *tensor = svd_tensor_of(e, arg);
    memcpy(values, tensor->data, tensor->bytes);
    values[7] = NAN;
    tensor->data = values;
}

Test(svd_run, refused)
{
    const char *model = kept_path("m"), *out = kept_path("f");
    svd_make_model(model, 1);
    t2_svd_args args = args_for(model, out);
    run_refused(&args, T2_ERR_ARG, "nothing matches 'mlp'");
    args.modules = "a,nonsense";
    run_refused(&args, T2_ERR_ARG, "nothing matches 'nonsense'");
    args.modules = "\xff";
    run_refused(&args, T2_ERR_ARG, "UTF-8");
    args.modules = "all";
    args.rank = -1;
    run_refused(&args, T2_ERR_ARG, "rank");
    args.rank = 0;
    args.energy = 1.5;
    run_refused(&args, T2_ERR_ARG, "1.5");
    args.energy = NAN;
    run_refused(&args, T2_ERR_ARG, "energy");
    args.energy = 0.0;
    args.jobs = -1;
    run_refused(&args, T2_ERR_ARG, "-1");
    args.jobs = 1;
    args.out = model;
    run_refused(&args, T2_ERR_ARG, "the model's own file");
    args.out = NULL;
    run_refused(&args, T2_ERR_ARG, "missing");
    args.out = kept_path("none/f");
    run_refused(&args, T2_ERR_IO, "none/f.parts");
    args.out = out;
    args.model = kept_path("none");
    run_refused(&args, T2_ERR_IO, "none");
    args.model = temp_dir;
    run_refused(&args, T2_ERR_IO, "model.safetensors");
    args.model = "tests/test_svd.c";
    run_refused(&args, T2_ERR_FORMAT, "tests/test_svd.c");
    args.size = 8;
    run_refused(&args, T2_ERR_ARG, "version");
    cr_expect_not(exists(out));
    /* One bad value: named, and the finished matrices stay for a mended model. */
    args = args_for(kept_path("bad"), out);
    args.modules = "all";
    svd_rewrite(model, args.model, with_nan, "c");
    run_refused(&args, T2_ERR_NUMERIC, "bad: tensor c: element [1, 2] is not a finite number");
    cr_expect_not(exists(out));
    args.model = model;
    finish_with(&args, 2, NULL);
}

/* A model with holes: two matrices whose factors are larger than the disk. */
Test(svd_run, full_disk)
{
    struct statvfs disk;
    cr_assert_eq(statvfs(temp_dir, &disk), 0);
    uint64_t there = (uint64_t)disk.f_bavail * disk.f_frsize, rows = 1000;
    while (rows * rows * 16 < there) {
        rows *= 2;
    }
    rows *= 2;
    char header[200];
    memset(header, 0, sizeof header);
    int length = snprintf(header + 8, sizeof header - 8,
                          "{\"w\":{\"dtype\":\"F16\",\"shape\":[%llu,%llu],"
                          "\"data_offsets\":[0,%llu]}}",
                          (unsigned long long)rows, (unsigned long long)rows,
                          (unsigned long long)(2 * rows * rows));
    header[0] = (char)length;
    const char *model = kept_path("huge"), *out = kept_path("f");
    int fd = open(model, O_CREAT | O_WRONLY, 0666);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, header, (size_t)length + 8), length + 8);
    if (ftruncate(fd, (off_t)(2 * rows * rows) + length + 8) != 0) {
        close(fd);
        cr_skip_test("no file of %llu bytes here", (unsigned long long)(2 * rows * rows));
    }
    close(fd);
    t2_svd_args args = args_for(model, out);
    args.modules = "w";
    char words[64];
    snprintf(words, sizeof words, "expected %llu bytes",
             (unsigned long long)(16 * rows * rows + 8 * rows + 2048));
    run_refused(&args, T2_ERR_IO, words);
    remove(kept_path("f.parts/lock"));
    rmdir(kept_path("f.parts"));
}
