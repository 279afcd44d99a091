/* model_reference.h - logits of the notebook's model in double precision. */
#ifndef T2_BENCH_MODEL_REFERENCE_H
#define T2_BENCH_MODEL_REFERENCE_H

#include "t2.h"

/* `count` rows of the logits (length, items, V) of the model in the folder `dir`, without a mask
 * and without dropout, into logits (count, V); row l * items + n is position l of item n, and ids
 * are (length, items). Only the items that those rows belong to are computed. expert: this one in
 * every layer, or T2_EXPERT_AUTO for the notebook's rule over these items. means (num_layers) or
 * NULL: the mean of each layer's attention output over these items. Uses the threads of
 * t2k_get_num_threads(); the result does not depend on how many they are. */
t2_status bench_model_reference(const char *dir, const int64_t *ids, int64_t length, int64_t items,
                                int64_t expert, int64_t count, const int64_t *rows, double *logits,
                                double *means, t2_error *err);

#endif
