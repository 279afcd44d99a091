/* t2k-matrix [--tier small|full] [--isa NAME]... [--suite NAME]... [--verbose]: runs the kernel
 * matrix and prints, per ISA, the counts and the fingerprint per tier. Exit status 1 when a check
 * fails, 2 for wrong usage, 77 when no ISA that was asked for is usable. */
#include "matrix.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FAILURES_SHOWN 20

static const struct {
    const char *name;
    void (*run)(struct matrix *m);
} suites[] = {
#define T2K_SUITE(name) {#name, matrix_##name},
#include "suites.def"
#undef T2K_SUITE
};
enum { SUITE_COUNT = sizeof suites / sizeof suites[0] };

static int report(struct matrix *m, int ok, const char *format, va_list args)
{
    if (ok) {
        m->passed++;
        return 1;
    }
    if (m->failed++ < FAILURES_SHOWN) {
        printf("FAILED %s/%s (T2K_SEED=%llu): ", m->suite, m->isa_name,
               (unsigned long long)check_seed());
        vprintf(format, args);
        printf("\n");
    }
    return 0;
}

int matrix_check(struct matrix *m, int ok, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(m, ok, format, args);
    va_end(args);
    return ok;
}

int matrix_same(struct matrix *m, const float *got, const float *want, size_t n, const char *format,
                ...)
{
    size_t at = first_difference(got, want, n);
    va_list args;
    va_start(args, format);
    int ok = report(m, at == n, format, args);
    va_end(args);
    if (!ok && m->failed <= FAILURES_SHOWN) {
        printf("    first difference at %zu of %zu: got %a (%08x), want %a (%08x)\n", at, n,
               (double)got[at], bits_of(got[at]), (double)want[at], bits_of(want[at]));
    }
    return ok;
}

void matrix_result(struct matrix *m, int full_only, const float *x, size_t n)
{
    int64_t shape = (int64_t)n;
    uint64_t *state = full_only ? &m->full_fingerprint : &m->fingerprint;
    *state = t2k_fingerprint_f32(*state, 1, &shape, x);
    if (m->verbose) {
        printf("  %s/%s %zu values: %016llx\n", m->suite, m->isa_name, n,
               (unsigned long long)t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 1, &shape, x));
    }
}

static void use(int isa)
{
    if (t2k_use_isa(isa) != T2K_OK) {
        printf("FAILED: cannot use isa %d: %s\n", isa, t2k_isa_error());
    }
}

void matrix_use_scalar(struct matrix *m)
{
    (void)m;
    use(0);
}

void matrix_use_tested(struct matrix *m)
{
    use(m->isa);
}

static int listed(const char *name, int argc, char **argv, const char *option)
{
    int any = 0;
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], option) == 0) {
            any = 1;
            if (strcmp(argv[i + 1], name) == 0) {
                return 1;
            }
        }
    }
    return !any;
}

static int usage(const char *problem)
{
    fprintf(stderr,
            "t2k-matrix: %s\nusage: t2k-matrix [--tier small|full] [--isa NAME]... "
            "[--suite NAME]... [--verbose]\n",
            problem);
    return 2;
}

static void run_isa(struct matrix *m, int argc, char **argv)
{
    m->fingerprint = m->full_fingerprint = T2K_FINGERPRINT_SEED;
    for (int s = 0; s < SUITE_COUNT; s++) {
        if (!listed(suites[s].name, argc, argv, "--suite")) {
            continue;
        }
        m->suite = suites[s].name;
        m->rng.state = check_seed() + (uint64_t)s;
        long before = m->failed;
        matrix_use_tested(m);
        suites[s].run(m);
        if (m->verbose || m->failed > before) {
            printf("%s/%s: %ld failed\n", m->suite, m->isa_name, m->failed - before);
        }
    }
}

int main(int argc, char **argv)
{
    struct matrix total = {0};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            total.verbose = 1;
        } else if (i + 1 < argc && strcmp(argv[i], "--tier") == 0) {
            i++;
            if (strcmp(argv[i], "small") != 0 && strcmp(argv[i], "full") != 0) {
                return usage("--tier takes small or full");
            }
            total.tier = argv[i][0] == 's' ? TIER_SMALL : TIER_FULL;
        } else if (i + 1 < argc &&
                   (strcmp(argv[i], "--isa") == 0 || strcmp(argv[i], "--suite") == 0)) {
            i++;
        } else {
            return usage("unknown argument");
        }
    }
    if (t2k_init() != T2K_OK) {
        fprintf(stderr, "t2k-matrix: %s\n", t2k_isa_error());
        return 2;
    }
    int ran = 0;
    for (int isa = 0; isa < t2k_isa_count(); isa++) {
        t2k_isa_info info;
        t2k_isa_get(isa, &info);
        if (!info.usable || !listed(info.name, argc, argv, "--isa")) {
            continue;
        }
        struct matrix m = total;
        m.isa = isa;
        m.isa_name = info.name;
        m.passed = m.failed = m.skipped = 0;
        run_isa(&m, argc, argv);
        printf("isa %s tier %s: %ld passed, %ld failed, %ld skipped, fingerprint %016llx",
               info.name, m.tier == TIER_SMALL ? "small" : "full", m.passed, m.failed, m.skipped,
               (unsigned long long)m.fingerprint);
        if (m.tier == TIER_FULL) {
            printf(" full %016llx", (unsigned long long)m.full_fingerprint);
        }
        printf("\n");
        fflush(stdout);
        total.passed += m.passed;
        total.failed += m.failed;
        total.skipped += m.skipped;
        ran++;
    }
    printf("%ld passed, %ld failed, %ld skipped\n", total.passed, total.failed, total.skipped);
    return total.failed > 0 ? 1 : ran > 0 ? 0 : 77;
}
