/* SHA-256 over arrays and text. Internal. */
#ifndef T2_IO_DIGEST_H
#define T2_IO_DIGEST_H

#include "t2.h"

#include <nettle/sha2.h>

typedef struct t2_digest {
    struct sha256_ctx state;
} t2_digest;

void t2_digest_start(t2_digest *digest);
void t2_digest_add(t2_digest *digest, const void *data, size_t bytes);

/* The line that stands before the bytes of an array: "F32 [768, 256]\n". */
void t2_digest_shape(t2_digest *digest, t2_dtype dtype, int rank, const int64_t *shape);

/* A line as sha256sum prints it: the hash, two blanks, the name. */
void t2_digest_line(t2_digest *digest, const char *hash, const char *name);

/* 64 lower-case hexadecimal digits. */
void t2_digest_end(t2_digest *digest, char hash[T2_HASH_CHARS]);

#endif
