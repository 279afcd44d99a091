/* What this CPU and operating system offer: CPUID bits together with the register state that the
 * system saves (XCR0), never family or model numbers. References: Intel SDM vol. 1, 13.3 and
 * 14.3; AMD APM vol. 3, appendix E. aarch64: AT_HWCAP. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

struct feature {
    const char *name;
    int offered;     /* the CPU says so */
    int state_saved; /* the operating system saves the registers it needs */
};

#if defined(__x86_64__)

#include <cpuid.h>

/* Where a feature's bit is: leaf 1 or 7 (subleaf 0), register, bit; and its XCR0 bits. */
enum { ECX1, EBX7, REGISTERS };
#define XCR0_NONE 0x0u
#define XCR0_YMM 0x6u  /* SSE and AVX state */
#define XCR0_ZMM 0xe6u /* and opmask, upper halves, upper registers */

static const struct {
    const char *name;
    int reg;
    int bit;
    uint32_t xcr0;
} bits[] = {
    {"sse3", ECX1, 0, XCR0_NONE},     {"ssse3", ECX1, 9, XCR0_NONE},
    {"fma", ECX1, 12, XCR0_YMM},      {"sse4_1", ECX1, 19, XCR0_NONE},
    {"sse4_2", ECX1, 20, XCR0_NONE},  {"popcnt", ECX1, 23, XCR0_NONE},
    {"xsave", ECX1, 26, XCR0_NONE},   {"avx", ECX1, 28, XCR0_YMM},
    {"f16c", ECX1, 29, XCR0_YMM},     {"avx2", EBX7, 5, XCR0_YMM},
    {"avx512f", EBX7, 16, XCR0_ZMM},  {"avx512dq", EBX7, 17, XCR0_ZMM},
    {"avx512cd", EBX7, 28, XCR0_ZMM}, {"avx512bw", EBX7, 30, XCR0_ZMM},
    {"avx512vl", EBX7, 31, XCR0_ZMM},
};

static int look_up(const char *name, struct feature *f)
{
    uint32_t eax, ebx, ecx, edx, reg[REGISTERS] = {0, 0}, xcr0 = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
        reg[ECX1] = ecx;
        if (ecx >> 27 & 1) { /* OSXSAVE: xgetbv may be used */
            uint32_t high;
            __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
        }
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        reg[EBX7] = ebx;
    }
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        if (strcmp(bits[i].name, name) == 0) {
            f->offered = (int)(reg[bits[i].reg] >> bits[i].bit & 1);
            f->state_saved = (xcr0 & bits[i].xcr0) == bits[i].xcr0;
            return 1;
        }
    }
    return 0;
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

#define HWCAP_ASIMD_BIT 1 /* linux/arch/arm64 uapi asm/hwcap.h */

static int look_up(const char *name, struct feature *f)
{
    if (strcmp(name, "asimd") != 0) {
        return 0;
    }
    f->offered = (int)(getauxval(AT_HWCAP) >> HWCAP_ASIMD_BIT & 1);
    f->state_saved = 1;
    return 1;
}

#else
#error "no CPU detection for this architecture: add it here"
#endif

int t2k_cpu_offers(const char *features, char *reason, size_t reason_size)
{
    while (*features != '\0') {
        char name[24];
        size_t length = strcspn(features, " ");
        snprintf(name, sizeof name, "%.*s", (int)length, features);
        features += length + strspn(features + length, " ");
        struct feature f = {name, 0, 0};
        if (!look_up(name, &f)) {
            snprintf(reason, reason_size, "unknown feature %s", name);
            return 0;
        }
        if (!f.offered) {
            snprintf(reason, reason_size, "this CPU has no %s", name);
            return 0;
        }
        if (!f.state_saved) {
            snprintf(reason, reason_size, "the operating system does not save the registers of %s",
                     name);
            return 0;
        }
    }
    return 1;
}
