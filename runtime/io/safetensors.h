/* The parts of an opened safetensors file. Internal: shared by its parser and its access
 * functions. */
#ifndef T2_IO_SAFETENSORS_H
#define T2_IO_SAFETENSORS_H

#include "io/file.h"
#include "t2.h"

#define T2_SAFETENSORS_MAX_HEADER 100000000u /* bytes, as the reference implementation */
#define T2_SAFETENSORS_METADATA "__metadata__"

/* What a header says. Strings and shapes lie in two blocks. */
typedef struct t2_header {
    size_t count;
    t2_tensor *tensors;        /* (count) by position of their data */
    const t2_tensor **by_name; /* (count) */
    size_t pair_count;
    t2_pair *pairs; /* (pair_count) in the order of the file */
    char *strings;
    int64_t *shapes;
} t2_header;

/* Parses and checks a whole file; header->tensors[].data point into it. */
t2_status t2_header_parse(const char *path, const unsigned char *data, size_t size,
                          t2_header *header, t2_error *err);
void t2_header_free(t2_header *header);

/* bytes = prod(shape) * bits / 8 in checked arithmetic from left to right, as the reference
 * implementation computes it. Returns NULL, or what is wrong. */
const char *t2_shape_bytes(t2_dtype dtype, int rank, const int64_t *shape, uint64_t *bytes);

/* t2_safetensors_write(); with `quick` it does not wait for the disk, for files whose content is
 * checked before it is used. */
t2_status t2_safetensors_write_as(const char *path, const t2_tensor *tensors, size_t count,
                                  const t2_pair *metadata, size_t metadata_count, int quick,
                                  t2_error *err);

#endif
