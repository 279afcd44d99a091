/* Model folders for tests: made by t2_init_model(), with single tensors changed. */
#ifndef T2_MODEL_FILE_H
#define T2_MODEL_FILE_H

#include "t2.h"

/* A small configuration: V 29, E 24, 3 layers, H 4, f 2, n 3. */
t2_config model_file_config(void);

/* Rewrites dir/model.safetensors with `tensor->name` equal to `name` passed through `change`,
 * which may alter the description (also to another name) or return 0 to drop the tensor. Its data
 * is a private copy of `bytes` bytes, writable through the cast. Aborts on any failure. */
void model_file_change(const char *dir, const char *name, int (*change)(t2_tensor *tensor));

/* Writes a text file in dir. */
void model_file_text(const char *dir, const char *file, const char *text);

#endif
