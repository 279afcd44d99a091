/* SHA-256 by libnettle. */
#include "io/digest.h"

#include <stdio.h>
#include <string.h>

void t2_digest_start(t2_digest *digest)
{
    sha256_init(&digest->state);
}

void t2_digest_add(t2_digest *digest, const void *data, size_t bytes)
{
    if (bytes > 0) {
        sha256_update(&digest->state, bytes, data);
    }
}

static void add_text(t2_digest *digest, const char *text)
{
    t2_digest_add(digest, text, strlen(text));
}

void t2_digest_shape(t2_digest *digest, t2_dtype dtype, int rank, const int64_t *shape)
{
    char number[32];
    add_text(digest, t2_dtype_name(dtype));
    add_text(digest, " [");
    for (int i = 0; i < rank; i++) {
        snprintf(number, sizeof number, "%s%lld", i > 0 ? ", " : "", (long long)shape[i]);
        add_text(digest, number);
    }
    add_text(digest, "]\n");
}

void t2_digest_line(t2_digest *digest, const char *hash, const char *name)
{
    add_text(digest, hash);
    add_text(digest, "  ");
    add_text(digest, name);
    add_text(digest, "\n");
}

void t2_digest_end(t2_digest *digest, char hash[T2_HASH_CHARS])
{
    uint8_t bytes[SHA256_DIGEST_SIZE];
    sha256_digest(&digest->state, sizeof bytes, bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        snprintf(hash + 2 * i, 3, "%02x", bytes[i]);
    }
}
