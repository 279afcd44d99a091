/* The folder that keeps a run's finished matrices: a factor file of one matrix each, and a lock. */
#define _DEFAULT_SOURCE /* flock */
#include "io/digest.h"
#include "io/error.h"
#include "model/model.h"
#include "svf/svf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK "lock"
#define PART_CHARS 32 /* digits of a hash that a part is named by */
#define PART_END ".safetensors"

char *t2_parts_path(const t2_parts *parts, const char *name)
{
    /* Not the name itself: it may hold anything and be long. */
    char hash[T2_HASH_CHARS], file[PART_CHARS + sizeof PART_END];
    t2_digest digest;
    t2_digest_start(&digest);
    t2_digest_add(&digest, name, strlen(name));
    t2_digest_end(&digest, hash);
    snprintf(file, sizeof file, "%.*s%s", PART_CHARS, hash, PART_END);
    return t2_path_join(parts->dir, file);
}

/* Opens and locks the file once: 1, 0 where it is gone since, or an error. */
static int try_lock(const char *dir, const char *path, int *fd, t2_error *err)
{
    char shown[T2_SHOW];
    struct stat opened, there;
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        t2_fail_errno(err, errno, dir, "cannot make the folder");
        return -1;
    }
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0 && errno == ENOENT) {
        return 0;
    }
    if (*fd < 0) {
        t2_fail_errno(err, errno, path, "cannot open");
        return -1;
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        int code = errno;
        close(*fd);
        if (code == EWOULDBLOCK) {
            t2_fail(err, T2_ERR_IO, "%s: another run is at work on it", t2_show(shown, dir));
        } else {
            t2_fail_errno(err, code, path, "cannot lock");
        }
        return -1;
    }
    /* The run that had it may have removed it before it let go. */
    if (fstat(*fd, &opened) == 0 && stat(path, &there) == 0 && opened.st_dev == there.st_dev &&
        opened.st_ino == there.st_ino) {
        return 1;
    }
    close(*fd);
    return 0;
}

t2_status t2_parts_open(const char *out, t2_parts *parts, t2_error *err)
{
    t2_text dir = {0};
    t2_text_str(&dir, out);
    t2_text_str(&dir, ".parts");
    char *path = dir.failed ? NULL : t2_path_join(dir.data, LOCK);
    if (path == NULL) {
        t2_text_free(&dir);
        return t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    t2_error inner = {T2_ERR_IO, ""};
    int fd = -1, locked = 0;
    for (int i = 0; i < 100 && locked == 0; i++) {
        locked = try_lock(dir.data, path, &fd, &inner);
    }
    free(path);
    if (locked == 1) {
        *parts = (t2_parts){dir.data, fd};
        return T2_OK;
    }
    t2_status status =
        t2_fail(err, inner.status, "%s",
                locked < 0 ? inner.message : "the lock of the folder keeps changing");
    t2_text_free(&dir);
    return status;
}

static int is_part(const char *name)
{
    return (strspn(name, "0123456789abcdef") == PART_CHARS &&
            strcmp(name + PART_CHARS, PART_END) == 0) ||
           strncmp(name, ".t2-", 4) == 0; /* what a killed run was writing */
}

static void remove_parts(const char *dir)
{
    DIR *folder = opendir(dir);
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;) {
        if (is_part(e->d_name)) {
            unlinkat(dirfd(folder), e->d_name, 0);
        }
    }
    if (folder != NULL) {
        unlinkat(dirfd(folder), LOCK, 0);
        closedir(folder);
    }
    rmdir(dir);
}

void t2_parts_close(t2_parts *parts, int finished)
{
    if (parts->dir == NULL) {
        return;
    }
    if (finished) {
        remove_parts(parts->dir);
    }
    close(parts->lock);
    free(parts->dir);
    *parts = (t2_parts){NULL, -1};
}
