/* The product's classes fast and bf16, shared by gemm_class.c, gemm_tiles.c and gemm_packed.c. */
#ifndef T2K_GEMM_CLASS_H
#define T2K_GEMM_CLASS_H

#include "ops/gemm.h"

/* Nonzero where there is no such class. */
int t2k_gemm_bad_class(t2k_numerics numerics);

/* The unit that serves a class; NULL where vectors do. */
t2k_gemm_tiles *t2k_gemm_tiles_of(const t2k_table *table, t2k_numerics numerics);

/* Sets the job (checked, of class strict) to a class, by the unit or by vectors. */
void t2k_gemm_set_class(t2k_numerics numerics, t2k_gemm_job *job);

/* Collective: computes the job by dot products or tiles, if that is its way; else returns 0. */
int t2k_gemm_class_team(t2k_team *team, const t2k_gemm_job *job);

/* Bytes of a panel of op(B) with all its k, as it lies in a blob. */
size_t t2k_tiles_column_bytes(t2k_gemm_tiles *tiles, size_t k);

/* Packs the columns of the panels [first, last) of op(B); panel t at blob + t * column bytes. */
void t2k_tiles_pack_columns(const t2k_gemm_job *job, size_t first, size_t last,
                            unsigned char *blob);

/* Collective: by tiles, with B as given or in job->tile_panels. */
void t2k_gemm_tiles_team(t2k_team *team, const t2k_gemm_job *job);

#endif
