/* Token ids and masks from files. */
#ifndef T2_CLI_INPUT_H
#define T2_CLI_INPUT_H

#include "t2.h"
#include "t2k.h"

/* All of a file ("-": standard input), with a NUL behind it, in *text (to be freed). */
t2_status cli_file_read(const char *path, char **text, size_t *size, t2_error *err);

/* Is what was read such a file, not text? */
int cli_is_safetensors(const char *text, size_t size);

/* Token ids (L, N), sequence first. */
typedef struct cli_ids {
    int64_t *ids;
    int64_t L, N;
    int rank; /* 1 for a tensor (L): the result has no batch dimension, as the notebook's */
} cli_ids;

/* Reads `path` ("-": standard input): text with one sequence of integers a line, or a safetensors
 * file with the I64 tensor `ids`, (L, N) or (L). */
t2_status cli_ids_read(const char *path, cli_ids *ids, t2_error *err);
void cli_ids_free(cli_ids *ids);

/* "F32 of shape (3, 4)" */
void cli_describe_tensor(const t2_tensor *tensor, char *text, size_t size);

/* A mask from the command line. */
typedef struct cli_mask {
    t2_mask mask;
    t2_safetensors *file; /* that mask.data lies in, or NULL */
} cli_mask;

/* `what` is "none", "causal" or the path of a safetensors file with the tensor `mask`, BOOL or
 * F32, (L, L) or (N * heads, L, L). */
t2_status cli_mask_read(const char *what, int64_t L, int64_t N, int64_t heads, cli_mask *mask,
                        t2_error *err);
void cli_mask_free(cli_mask *mask);

#endif
