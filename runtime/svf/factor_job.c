/* t2_svd_run(): decomposes the matrices of a model by several threads, keeps each that is finished,
 * and puts them together in one factor file. */
#include "core/fpenv.h"
#include "io/error.h"
#include "io/file.h"
#include "model/model.h"
#include "svf/svf.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAX_JOBS 64        /* OpenBLAS as Debian builds it serves no more callers at a time */
#define RECORD_BYTES 1024u /* of a matrix in the header of a file, about */

typedef struct svd_part {
    char *path;
    t2_factor_entry entry; /* hashes and record belong to it; U, S, V come at the end */
    char weight_hash[T2_HASH_CHARS], factor_hash[T2_HASH_CHARS];
    t2_text record;
    t2_safetensors *file; /* while the factor file is written */
} svd_part;

typedef struct svd_run {
    const t2_svd_args *args;
    t2_svd_options options;
    t2_safetensors *model;
    t2_matrices matrices;
    svd_part *parts_list; /* (count) */
    t2_parts parts;
    t2_factor_notes notes;
    t2_text mixed; /* identities other than this one, separated by "; " */

    pthread_mutex_t lock; /* of all that follows */
    int64_t next;
    int64_t done;
    double start, work_left, work_done; /* work_done: not counting what was found finished */
    int stop;
    t2_status status;
    t2_error err;
} svd_run;

/* Proportional to the operations of a decomposition. */
static double work_of(const t2_matrix *matrix)
{
    double m = (double)matrix->m, n = (double)matrix->n;
    return m * n * (m < n ? m : n);
}

/* ---- one matrix -------------------------------------------------------------------------------
 */

static int same_note(const t2_factors *found, const char *key, const char *value)
{
    const char *note = t2_factors_note(found, key);
    return strcmp(note != NULL ? note : "", value) == 0;
}

/* Remembers that a matrix comes from other libraries or another CPU. */
static void note_library(svd_run *run, const t2_factors *found)
{
    const char *lapack = t2_factors_note(found, "lapack"), *blas = t2_factors_note(found, "blas"),
               *cpu = t2_factors_note(found, "cpu");
    const t2_library *own = run->notes.library;
    if (lapack == NULL || blas == NULL || cpu == NULL ||
        (strcmp(lapack, own->lapack) == 0 && strcmp(blas, own->blas) == 0 &&
         strcmp(cpu, own->cpu) == 0)) {
        return;
    }
    t2_text text = {0};
    t2_text_printf(&text, "%s, %s on %s", lapack, blas, cpu);
    pthread_mutex_lock(&run->lock);
    if (!text.failed && (run->mixed.data == NULL || strstr(run->mixed.data, text.data) == NULL)) {
        t2_text_str(&run->mixed, run->mixed.data != NULL ? "; " : "");
        t2_text_str(&run->mixed, text.data);
    }
    pthread_mutex_unlock(&run->lock);
    t2_text_free(&text);
}

/* 1 where an earlier run has finished the matrix and the file is sound; fills *progress. */
static int take_finished(svd_run *run, const t2_matrix *matrix, svd_part *part,
                         t2_svd_progress *progress)
{
    t2_factors *found;
    if (t2_factors_open(part->path, T2_FACTORS_VERIFY, &found, NULL) != T2_OK) {
        return 0;
    }
    const t2_factor *f = t2_factors_get(found, 0);
    int good = t2_factors_count(found) == 1 && strcmp(f->name, matrix->name) == 0 &&
               strcmp(f->tensor, matrix->tensor->name) == 0 && f->first == matrix->first &&
               f->transposed == matrix->transposed && f->m == matrix->m && f->n == matrix->n &&
               strcmp(f->weight_hash, part->weight_hash) == 0 &&
               same_note(found, "store", run->notes.store) &&
               same_note(found, "rank", run->notes.rank) &&
               same_note(found, "energy", run->notes.energy);
    if (good) {
        part->entry = *t2_factors_entry(found, 0);
        memcpy(part->factor_hash, f->factor_hash, sizeof part->factor_hash);
        t2_text_str(&part->record, part->entry.record);
        progress->r = f->r;
        progress->residual = f->residual;
        progress->orthogonality = f->orthogonality;
        progress->kept = 1;
        note_library(run, found);
    }
    t2_factors_close(found);
    return good;
}

/* The upper halves of floats that are bf16, in their place. */
static void *narrow(float *x, int64_t count)
{
    uint16_t *out = (uint16_t *)(void *)x;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        memcpy(&out[i], &half, sizeof half);
    }
    return out;
}

static t2_status write_part(svd_run *run, const t2_matrix *matrix, svd_part *part,
                            const t2_decomposition *d, t2_error *err)
{
    t2_factor_entry *entry = &part->entry;
    const int bf16 = run->options.bf16;
    *entry = (t2_factor_entry){.name = matrix->name,
                               .dtype = bf16 ? T2_BF16 : T2_F32,
                               .m = d->m,
                               .n = d->n,
                               .r = d->r,
                               .U = bf16 ? narrow(d->U, d->m * d->r) : d->U,
                               .S = d->S,
                               .V = bf16 ? narrow(d->V, d->n * d->r) : d->V};
    t2_factor_entry_hash(entry, part->factor_hash);
    t2_record record = {matrix, d, run->notes.library, part->weight_hash, part->factor_hash};
    t2_record_text(&record, &part->record);
    if (part->record.failed) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    entry->record = part->record.data;
    entry->weight_hash = part->weight_hash;
    entry->factor_hash = part->factor_hash;
    return t2_factor_file_write(part->path, entry, 1, &run->notes, 1, err);
}

static t2_status do_matrix(svd_run *run, const t2_matrix *matrix, svd_part *part,
                           t2_svd_space *space, t2_svd_progress *progress, t2_error *err)
{
    char shown[T2_SHOW];
    t2_matrix_hash(matrix, part->weight_hash);
    if (take_finished(run, matrix, part, progress)) {
        return T2_OK;
    }
    int64_t elements = matrix->m;
    double *w = t2_multiply(&elements, matrix->n) ? t2_scratch_take(&space->w, elements) : NULL;
    if (w == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory for its elements in double",
                       t2_show(shown, matrix->name));
    }
    t2_decomposition d = {0};
    t2_status status = t2_matrix_read(t2_safetensors_path(run->model), matrix, w, err);
    if (status == T2_OK) {
        status = t2_decompose(matrix->name, matrix->m, matrix->n, w, &run->options, T2_DGESDD,
                              space, &d, err);
    }
    if (status == T2_OK) {
        progress->r = d.r;
        progress->residual = d.residual;
        progress->orthogonality = d.orthogonality;
        progress->lapack_seconds = d.lapack_seconds;
        status = write_part(run, matrix, part, &d, err);
    }
    t2_decomposition_free(&d);
    return status;
}

/* ---- threads ----------------------------------------------------------------------------------
 */

/* Under the lock. */
static void report(svd_run *run, t2_svd_progress *progress)
{
    progress->done = run->done;
    progress->count = run->matrices.count;
    progress->elapsed = t2_svd_now() - run->start;
    progress->left = run->work_left <= 0.0  ? 0.0
                     : run->work_done > 0.0 ? progress->elapsed * run->work_left / run->work_done
                                            : -1.0;
    if (run->args->on_progress != NULL &&
        run->args->on_progress(run->args->on_progress_arg, progress) != 0) {
        run->stop = 1;
    }
}

static void finish(svd_run *run, const t2_matrix *matrix, t2_svd_progress *progress)
{
    run->done++;
    run->work_left = run->done < run->matrices.count ? run->work_left - work_of(matrix) : 0.0;
    if (!progress->kept) {
        run->work_done += work_of(matrix);
    }
    report(run, progress);
}

static void *job(void *arg)
{
    svd_run *run = arg;
    t2_svd_space space = {0};
    const t2k_fpenv fpenv = t2k_fpenv_enter();
    pthread_mutex_lock(&run->lock);
    while (!run->stop && run->status == T2_OK && run->next < run->matrices.count) {
        int64_t index = run->next++;
        pthread_mutex_unlock(&run->lock);
        const t2_matrix *matrix = &run->matrices.list[index];
        t2_svd_progress progress = {.name = matrix->name, .m = matrix->m, .n = matrix->n};
        t2_error err = {T2_OK, ""};
        double start = t2_svd_now();
        t2_status status = do_matrix(run, matrix, &run->parts_list[index], &space, &progress, &err);
        progress.seconds = t2_svd_now() - start;
        pthread_mutex_lock(&run->lock);
        if (status == T2_OK) {
            finish(run, matrix, &progress);
        } else if (run->status == T2_OK) {
            run->status = status;
            run->err = err;
        }
    }
    pthread_mutex_unlock(&run->lock);
    t2k_fpenv_leave(fpenv);
    t2_svd_space_free(&space);
    return NULL;
}

/* Threads that the system refuses are done without. */
static void do_all(svd_run *run)
{
    pthread_t threads[MAX_JOBS];
    int64_t jobs = run->args->jobs > 0 ? run->args->jobs : t2k_get_num_threads();
    jobs = jobs < run->matrices.count ? jobs : run->matrices.count;
    jobs = jobs < MAX_JOBS ? jobs : MAX_JOBS;
    int started = 0;
    t2_lapack_begin();
    while (started + 1 < jobs && pthread_create(&threads[started], NULL, job, run) == 0) {
        started++;
    }
    job(run);
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    t2_lapack_end();
}

/* ---- before and after --------------------------------------------------------------------------
 */

/* Bytes of the factors of a matrix; with an energy, the most there can be. */
static uint64_t bytes_of(const svd_run *run, const t2_matrix *matrix)
{
    int64_t r = matrix->m < matrix->n ? matrix->m : matrix->n;
    if (run->options.rank > 0 && run->options.rank < r) {
        r = run->options.rank;
    }
    uint64_t element = run->options.bf16 ? 2 : 4;
    return ((uint64_t)matrix->m + (uint64_t)matrix->n) * (uint64_t)r * element + 4 * (uint64_t)r +
           RECORD_BYTES;
}

/* The factor file and the parts that are still to be written stand on the disk at the same time. */
static t2_status check_disk(const svd_run *run, uint64_t *needed, t2_error *err)
{
    char shown[T2_SHOW];
    *needed = 0;
    for (int64_t i = 0; i < run->matrices.count; i++) {
        uint64_t bytes = bytes_of(run, &run->matrices.list[i]);
        *needed += access(run->parts_list[i].path, F_OK) == 0 ? bytes : 2 * bytes;
    }
    struct statvfs disk;
    if (statvfs(run->parts.dir, &disk) != 0) {
        return T2_OK; /* writing will show */
    }
    uint64_t there = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (*needed > there && run->options.energy <= 0.0) {
        return t2_fail(
            err, T2_ERR_IO,
            "%s: expected %llu bytes on the disk for the factors (half of them until the "
            "end of the run), found %llu",
            t2_show(shown, run->args->out), (unsigned long long)*needed, (unsigned long long)there);
    }
    return T2_OK;
}

/* All parts as one file, straight from their mappings. */
static t2_status put_together(svd_run *run, t2_error *err)
{
    char shown[T2_SHOW];
    const int64_t count = run->matrices.count;
    t2_factor_entry *entries = calloc((size_t)count, sizeof entries[0]);
    if (entries == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_status status = T2_OK;
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        svd_part *part = &run->parts_list[i];
        status = t2_safetensors_open(part->path, 0, &part->file, err);
        if (status != T2_OK) {
            break;
        }
        entries[i] = part->entry;
        t2_factor_entry *entry = &entries[i];
        entry->name = run->matrices.list[i].name;
        entry->record = part->record.data;
        entry->weight_hash = part->weight_hash;
        entry->factor_hash = part->factor_hash;
        const void **const data[3] = {&entry->U, &entry->S, &entry->V};
        static const char *const suffix[3] = {".U", ".S", ".V"};
        for (size_t k = 0; k < 3; k++) {
            t2_text name = {0};
            t2_text_printf(&name, "%s%s", entry->name, suffix[k]);
            const t2_tensor *tensor =
                name.failed ? NULL : t2_safetensors_find(part->file, name.data);
            t2_text_free(&name);
            if (tensor == NULL) {
                status = t2_fail(err, T2_ERR_IO, "%s: was changed during the run",
                                 t2_show(shown, part->path));
                break;
            }
            *data[k] = tensor->data;
        }
    }
    if (status == T2_OK) {
        run->notes.mixed = run->mixed.data;
        status = t2_factor_file_write(run->args->out, entries, count, &run->notes, 0, err);
    }
    free(entries);
    return status;
}

/* The file of a model folder, or the path as it is. */
static t2_status open_model(const char *path, t2_safetensors **file, t2_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return t2_safetensors_open(path, 0, file, err);
    }
    char *whole = t2_path_join(path, "model.safetensors");
    t2_status status = whole != NULL ? t2_safetensors_open(whole, 0, file, err)
                                     : t2_fail(err, T2_ERR_NOMEM, "out of memory");
    free(whole);
    return status;
}

static t2_status prepare(svd_run *run, t2_error *err)
{
    char shown[T2_SHOW];
    const t2_svd_args *args = run->args;
    t2_status status = t2_lapack_open(err);
    if (status == T2_OK) {
        run->notes.library = t2_lapack_library();
        status = open_model(args->model, &run->model, err);
    }
    struct stat out;
    if (status == T2_OK && t2_same_file(t2_safetensors_path(run->model), args->out)) {
        status = t2_fail(err, T2_ERR_ARG, "%s: is the model's own file", t2_show(shown, args->out));
    } else if (status == T2_OK && stat(args->out, &out) == 0 && S_ISDIR(out.st_mode)) {
        /* Said now, not when hours of work are to be written. */
        status = t2_fail(err, T2_ERR_IO, "%s: is a directory", t2_show(shown, args->out));
    }
    if (status == T2_OK) {
        status = t2_matrices_choose(run->model, run->notes.modules, &run->matrices, err);
    }
    if (status == T2_OK) {
        status = t2_parts_open(args->out, &run->parts, err);
    }
    if (status != T2_OK) {
        return status;
    }
    run->parts_list = calloc((size_t)run->matrices.count, sizeof run->parts_list[0]);
    for (int64_t i = 0; i < run->matrices.count; i++) {
        run->work_left += work_of(&run->matrices.list[i]);
        if (run->parts_list != NULL) {
            run->parts_list[i].path = t2_parts_path(&run->parts, run->matrices.list[i].name);
        }
        if (run->parts_list == NULL || run->parts_list[i].path == NULL) {
            return t2_fail(err, T2_ERR_NOMEM, "out of memory");
        }
    }
    return T2_OK;
}

static t2_status execute(svd_run *run, t2_error *err)
{
    char shown[T2_SHOW];
    t2_svd_progress first = {0};
    t2_status status = prepare(run, err);
    if (status == T2_OK) {
        status = check_disk(run, &first.bytes_needed, err);
    }
    if (status != T2_OK) {
        return status;
    }
    run->start = t2_svd_now();
    report(run, &first);
    if (!run->stop) {
        do_all(run);
    }
    if (run->status != T2_OK) {
        return t2_fail(err, run->status, "%s", run->err.message);
    }
    if (run->stop) {
        return t2_fail(err, T2_ERR_STOPPED,
                       "stopped: %lld of %lld matrices are in %s, where the same run goes on",
                       (long long)run->done, (long long)run->matrices.count,
                       t2_show(shown, run->parts.dir));
    }
    return put_together(run, err);
}

static t2_status check_args(const t2_svd_args *args, t2_error *err)
{
    if (args == NULL || args->size != sizeof *args || args->model == NULL || args->out == NULL) {
        return t2_fail(err, T2_ERR_ARG, "t2_svd_run: an argument is missing or of another version");
    }
    if (args->rank < 0 || args->jobs < 0 || !(args->energy >= 0.0 && args->energy <= 1.0)) {
        return t2_fail(
            err, T2_ERR_ARG,
            "t2_svd_run: expected a rank and jobs of 0 or more and an energy from 0 to 1, "
            "found %lld, %d and %g",
            (long long)args->rank, args->jobs, args->energy);
    }
    if (args->modules != NULL && !t2_utf8_valid(args->modules, strlen(args->modules))) {
        return t2_fail(err, T2_ERR_ARG, "t2_svd_run: modules are not UTF-8 text");
    }
    return T2_OK;
}

t2_status t2_svd_run(const t2_svd_args *args, t2_error *err)
{
    t2_status status = check_args(args, err);
    if (status != T2_OK) {
        return status;
    }
    svd_run run = {.args = args,
                   .options = {args->rank, args->energy, args->bf16},
                   .parts = {NULL, -1},
                   .lock = PTHREAD_MUTEX_INITIALIZER};
    run.notes.modules = args->modules != NULL ? args->modules : "mlp,attention";
    snprintf(run.notes.store, sizeof run.notes.store, "%s", args->bf16 ? "bf16" : "f32");
    if (args->rank > 0) {
        snprintf(run.notes.rank, sizeof run.notes.rank, "%lld", (long long)args->rank);
    }
    if (args->energy > 0.0) {
        snprintf(run.notes.energy, sizeof run.notes.energy, "%.17g", args->energy);
    }
    status = execute(&run, err);
    for (int64_t i = 0; run.parts_list != NULL && i < run.matrices.count; i++) {
        t2_safetensors_close(run.parts_list[i].file);
        t2_text_free(&run.parts_list[i].record);
        free(run.parts_list[i].path);
    }
    free(run.parts_list);
    t2_parts_close(&run.parts, status == T2_OK);
    t2_matrices_free(&run.matrices);
    t2_safetensors_close(run.model);
    t2_text_free(&run.mixed);
    pthread_mutex_destroy(&run.lock);
    return status;
}
