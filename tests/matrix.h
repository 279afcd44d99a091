/* The kernel matrix: every kernel x every usable ISA x shapes. A plain program, so that it runs
 * natively, under qemu-user and in an emulator alike.
 *
 * A suite is a function matrix_<name>(m), listed in suites.def. It is called once per ISA, with
 * that ISA in use. It computes its cases, records each result with matrix_result() (which goes
 * into the fingerprint that must be the same on every ISA and machine), compares with the scalar
 * ISA bit for bit, and where m->isa is scalar (index 0) with references in double. */
#ifndef T2_MATRIX_H
#define T2_MATRIX_H

#include "check.h"
#include "core/core.h"

enum matrix_tier {
    TIER_SMALL, /* runs everywhere, also emulated: at most some 1e8 multiply-adds a suite */
    TIER_FULL   /* adds larger shapes, more threads: natively only */
};

struct matrix {
    int isa; /* index, see t2k_isa_get() */
    const char *isa_name;
    const char *suite;
    enum matrix_tier tier;
    struct rng rng;            /* seeded alike for every ISA at the start of a suite */
    uint64_t fingerprint;      /* over the results of the small tier's cases */
    uint64_t full_fingerprint; /* over those that only the full tier has */
    long passed, failed, skipped;
    int verbose;
};

/* Counts a check; prints the formatted text and the seed when it fails. Returns ok. */
int matrix_check(struct matrix *m, int ok, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Records a result for the fingerprint. `full_only` for cases that the small tier leaves out. */
void matrix_result(struct matrix *m, int full_only, const float *x, size_t n);

/* Switches the table in use to the scalar ISA and back to the one under test. */
void matrix_use_scalar(struct matrix *m);
void matrix_use_tested(struct matrix *m);

/* got and want (n) have the same bits (NaNs alike); the text names the case. */
int matrix_same(struct matrix *m, const float *got, const float *want, size_t n, const char *format,
                ...) __attribute__((format(printf, 5, 6)));

#define T2K_SUITE(name) void matrix_##name(struct matrix *m);
#include "suites.def"
#undef T2K_SUITE

#endif
