/* Whole files as bytes, and files that appear complete or not at all. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "io/file.h"
#include "io/error.h"
#include "io/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE ((size_t)1 << 30) /* Linux moves at most 2^31 - 4096 bytes per call */

/* ---- reading ------------------------------------------------------------------------------ */

static t2_status open_regular(const char *path, int *fd, size_t *size, t2_error *err)
{
    char name[T2_SHOW];
    struct stat st;
    /* O_NONBLOCK: a pipe that nobody writes to must not hang the caller. */
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0) {
        return t2_fail_errno(err, errno, path, "cannot open");
    }
    if (fstat(f, &st) != 0) {
        int code = errno;
        close(f);
        return t2_fail_errno(err, code, path, "cannot read its size");
    }
    if (!S_ISREG(st.st_mode)) {
        close(f);
        return t2_fail(err, T2_ERR_IO, "%s: %s", t2_show(name, path),
                       S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file");
    }
    *fd = f;
    *size = (size_t)st.st_size;
    return T2_OK;
}

static t2_status read_all(int fd, const char *path, unsigned char *data, size_t size, t2_error *err)
{
    char name[T2_SHOW];
    for (size_t done = 0; done < size;) {
        size_t piece = size - done < PIECE ? size - done : PIECE;
        ssize_t n = read(fd, data + done, piece);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return t2_fail_errno(err, errno, path, "cannot read");
        }
        if (n == 0) {
            return t2_fail(err, T2_ERR_IO, "%s: expected %zu bytes, the file ended after %zu",
                           t2_show(name, path), size, done);
        }
        done += (size_t)n;
    }
    return T2_OK;
}

static t2_status load(int fd, const char *path, size_t size, t2_bytes *bytes, t2_error *err)
{
    char name[T2_SHOW];
    unsigned char *data = malloc(size);
    if (data == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory for %zu bytes", t2_show(name, path), size);
    }
    t2_status status = read_all(fd, path, data, size, err);
    if (status != T2_OK) {
        free(data);
        return status;
    }
    *bytes = (t2_bytes){data, size, 0};
    return T2_OK;
}

t2_status t2_bytes_open(const char *path, int map, uint64_t limit, t2_bytes *bytes, t2_error *err)
{
    char name[T2_SHOW];
    int fd = -1;
    size_t size = 0;
    t2_status status = open_regular(path, &fd, &size, err);
    if (status != T2_OK) {
        return status;
    }
    if (size > limit) {
        close(fd);
        return t2_fail(err, T2_ERR_FORMAT, "%s: expected at most %llu bytes, found %zu",
                       t2_show(name, path), (unsigned long long)limit, size);
    }
    if (size == 0) {
        *bytes = (t2_bytes){NULL, 0, 0};
        close(fd);
        return T2_OK;
    }
    if (map) {
        void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data != MAP_FAILED) {
            *bytes = (t2_bytes){data, size, 1};
            close(fd);
            return T2_OK;
        }
    }
    status = load(fd, path, size, bytes, err);
    close(fd);
    return status;
}

void t2_bytes_release(t2_bytes *bytes)
{
    /* The interfaces of munmap and free take a pointer without const. */
    union {
        const unsigned char *in;
        void *out;
    } data = {bytes->data};
    if (bytes->mapped) {
        munmap(data.out, bytes->size);
    } else {
        free(data.out);
    }
    *bytes = (t2_bytes){NULL, 0, 0};
}

/* ---- writing ------------------------------------------------------------------------------ */

/* Length of the directory part of a path with its last slash; 0 for a plain name. */
static size_t directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* Creates a file with a new name in the directory of writer->target. Not mkstemp(): that would
 * ignore the umask, which cannot be asked for safely among threads. */
static t2_status create_temp(t2_writer *writer, const char *path, t2_error *err)
{
    static atomic_uint counter;
    char name[T2_SHOW];
    size_t directory = directory_length(writer->target), room = directory + 64;
    writer->temp = malloc(room);
    if (writer->temp == NULL) {
        return t2_fail(err, T2_ERR_NOMEM, "%s: no memory to write it", t2_show(name, path));
    }
    for (int attempt = 0; attempt < 1000; attempt++) {
        snprintf(writer->temp, room, "%.*s.t2-%ld-%u.tmp", (int)directory, writer->target,
                 (long)getpid(), atomic_fetch_add(&counter, 1));
        writer->fd = open(writer->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0 || errno != EEXIST) {
            break;
        }
    }
    if (writer->fd < 0) {
        int code = errno;
        free(writer->temp);
        writer->temp = NULL;
        return t2_fail_errno(err, code, path, "cannot create a file in its directory");
    }
    return T2_OK;
}

/* An existing target: devices are opened as they are, files are to be replaced. */
static t2_status open_existing(t2_writer *writer, const char *path, const struct stat *st,
                               t2_error *err)
{
    char name[T2_SHOW];
    if (S_ISDIR(st->st_mode)) {
        return t2_fail(err, T2_ERR_IO, "%s: is a directory", t2_show(name, path));
    }
    if (!S_ISREG(st->st_mode)) {
        writer->fd = open(writer->target, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return writer->fd >= 0 ? T2_OK : t2_fail_errno(err, errno, path, "cannot open");
    }
    /* rename() would replace a write-protected file, but whoever protected it meant it. */
    if (faccessat(AT_FDCWD, writer->target, W_OK, AT_EACCESS) != 0) {
        return t2_fail_errno(err, errno, path, "cannot replace");
    }
    t2_status status = create_temp(writer, path, err);
    if (status == T2_OK && fchmod(writer->fd, st->st_mode & 0777) != 0) {
        status = t2_fail_errno(err, errno, path, "cannot set the mode of its new version");
    }
    return status;
}

t2_status t2_writer_open(t2_writer *writer, const char *path, t2_error *err)
{
    char name[T2_SHOW];
    struct stat st;
    *writer = (t2_writer){-1, NULL, NULL, 0};
    int exists = stat(path, &st) == 0;
    if (exists && S_ISREG(st.st_mode)) {
        writer->target = realpath(path, NULL);
    } else {
        writer->target = strdup(path);
    }
    if (writer->target == NULL) {
        return t2_fail_errno(err, errno, path, "cannot resolve");
    }
    t2_status status;
    size_t length = strlen(path);
    struct stat link;
    if (exists) {
        status = open_existing(writer, path, &st, err);
    } else if (length == 0 || path[length - 1] == '/') {
        status = t2_fail(err, T2_ERR_IO, "%s: is not the name of a file", t2_show(name, path));
    } else if (lstat(path, &link) == 0) {
        /* A link to nothing: rename() would replace the link, not create what it means. */
        status = t2_fail(err, T2_ERR_IO, "%s: is a link to a missing file", t2_show(name, path));
    } else {
        status = create_temp(writer, path, err);
    }
    if (status != T2_OK) {
        t2_writer_abort(writer);
    }
    return status;
}

t2_status t2_writer_write(t2_writer *writer, const void *data, size_t size, t2_error *err)
{
    const unsigned char *p = data;
    while (size > 0) {
        ssize_t n = write(writer->fd, p, size < PIECE ? size : PIECE);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return t2_fail_errno(err, n < 0 ? errno : EIO, writer->target, "cannot write");
        }
        p += n;
        size -= (size_t)n;
    }
    return T2_OK;
}

/* Makes the new name of a file survive a crash. Some file systems cannot do it, and the file
 * itself is safe by then, so a failure does not count. */
static void sync_directory(const char *target)
{
    size_t length = directory_length(target);
    char *copy = length > 0 ? strndup(target, length) : strdup(".");
    if (copy == NULL) {
        return;
    }
    int fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(copy);
}

t2_status t2_writer_commit(t2_writer *writer, t2_error *err)
{
    t2_status status = T2_OK;
    if (writer->temp != NULL && !writer->quick && fsync(writer->fd) != 0) {
        status = t2_fail_errno(err, errno, writer->target, "cannot write");
    }
    int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0 && status == T2_OK) {
        status = t2_fail_errno(err, errno, writer->target, "cannot write");
    }
    if (status == T2_OK && writer->temp != NULL) {
        if (rename(writer->temp, writer->target) != 0) {
            status = t2_fail_errno(err, errno, writer->target, "cannot replace");
        } else {
            free(writer->temp);
            writer->temp = NULL;
            if (!writer->quick) {
                sync_directory(writer->target);
            }
        }
    }
    t2_writer_abort(writer);
    return status;
}

void t2_writer_abort(t2_writer *writer)
{
    if (writer->fd >= 0) {
        close(writer->fd);
    }
    if (writer->temp != NULL) {
        unlink(writer->temp);
    }
    free(writer->temp);
    free(writer->target);
    *writer = (t2_writer){-1, NULL, NULL, 0};
}

t2_status t2_write_file_atomic(const char *path, const void *data, size_t size, t2_error *err)
{
    if (path == NULL || (data == NULL && size > 0)) {
        return t2_fail(err, T2_ERR_ARG, "t2_write_file_atomic: path or data is NULL");
    }
    t2_writer writer;
    t2_status status = t2_writer_open(&writer, path, err);
    if (status != T2_OK) {
        return status;
    }
    status = t2_writer_write(&writer, data, size, err);
    if (status != T2_OK) {
        t2_writer_abort(&writer);
        return status;
    }
    return t2_writer_commit(&writer, err);
}

int t2_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
