/* Whole files as bytes, and files that appear complete or not at all. Internal. */
#ifndef T2_IO_FILE_H
#define T2_IO_FILE_H

#include "t2.h"

typedef struct t2_bytes {
    const unsigned char *data; /* NULL when size is 0 */
    size_t size;
    int mapped;
} t2_bytes;

/* The content of a regular file: mapped read-only where `map` is set and the file system can do
 * it, else read. Larger than `limit` bytes is T2_ERR_FORMAT. */
t2_status t2_bytes_open(const char *path, int map, uint64_t limit, t2_bytes *bytes, t2_error *err);
void t2_bytes_release(t2_bytes *bytes);

/* A file being written, as t2_write_file_atomic() describes: open, write any number of times,
 * then either commit or abort. After a failed write only abort is left to do; commit aborts by
 * itself when it fails. */
typedef struct t2_writer {
    int fd;
    char *target; /* the file to replace, links resolved; owned */
    char *temp;   /* NULL where the target is a device; owned */
    int quick;    /* set after opening: commit does not wait for the disk */
} t2_writer;

t2_status t2_writer_open(t2_writer *writer, const char *path, t2_error *err);
t2_status t2_writer_write(t2_writer *writer, const void *data, size_t size, t2_error *err);
t2_status t2_writer_commit(t2_writer *writer, t2_error *err);
void t2_writer_abort(t2_writer *writer);

/* Do both paths lead to one file that is there? */
int t2_same_file(const char *a, const char *b);

#endif
