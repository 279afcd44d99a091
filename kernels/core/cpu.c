/* What this CPU and operating system offer: CPUID bits together with the register state that the
 * system saves (XCR0) and, for tiles, the process's permission to use them (arch_prctl), never
 * family or model numbers. References: Intel SDM vol. 1, 13.3 and 14.3, vol. 2 CPUID; AMD APM
 * vol. 3, appendix E; Linux Documentation/arch/x86/xstate.rst. aarch64: AT_HWCAP. */
#define _DEFAULT_SOURCE /* syscall */
#include "core/core.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct feature {
    const char *name;
    int offered;     /* the CPU says so */
    int state_saved; /* the operating system saves the registers it needs */
    int tiles;       /* it needs t2k_cpu_tiles(), too */
};

/* 0 or errno of the request; written once. */
static int tiles_refused;
static pthread_once_t tiles_once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where a feature's bit is: leaf 1 or 7 (subleaf 0, or 1), register, bit; and its XCR0 bits. */
enum { ECX1, EBX7, EDX7, EAX7_1, REGISTERS };
#define XCR0_NONE 0x0u
#define XCR0_YMM 0x6u      /* SSE and AVX state */
#define XCR0_ZMM 0xe6u     /* and opmask, upper halves, upper registers */
#define XCR0_TILE 0x60000u /* XTILECFG, XTILEDATA */

/* Linux arch/x86/include/uapi/asm/prctl.h, and the number of XTILEDATA. */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

static const struct {
    const char *name;
    int reg;
    int bit;
    uint32_t xcr0;
} bits[] = {
    {"sse3", ECX1, 0, XCR0_NONE},      {"ssse3", ECX1, 9, XCR0_NONE},
    {"fma", ECX1, 12, XCR0_YMM},       {"sse4_1", ECX1, 19, XCR0_NONE},
    {"sse4_2", ECX1, 20, XCR0_NONE},   {"popcnt", ECX1, 23, XCR0_NONE},
    {"xsave", ECX1, 26, XCR0_NONE},    {"avx", ECX1, 28, XCR0_YMM},
    {"f16c", ECX1, 29, XCR0_YMM},      {"avx2", EBX7, 5, XCR0_YMM},
    {"avx512f", EBX7, 16, XCR0_ZMM},   {"avx512dq", EBX7, 17, XCR0_ZMM},
    {"avx512cd", EBX7, 28, XCR0_ZMM},  {"avx512bw", EBX7, 30, XCR0_ZMM},
    {"avx512vl", EBX7, 31, XCR0_ZMM},  {"avx512bf16", EAX7_1, 5, XCR0_ZMM},
    {"amx_bf16", EDX7, 22, XCR0_TILE}, {"amx_tile", EDX7, 24, XCR0_TILE},
};

uint64_t t2k_cpu_xcr0(void)
{
    uint32_t eax, ebx, ecx, edx, low = 0, high = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx >> 27 & 1)) { /* OSXSAVE */
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    }
    return (uint64_t)high << 32 | low;
}

static void request_tiles(void)
{
    tiles_refused = 0;
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) {
        tiles_refused = errno != 0 ? errno : EINVAL;
    }
}

static int look_up(const char *name, struct feature *f)
{
    uint32_t eax, ebx, ecx, edx, reg[REGISTERS] = {0, 0, 0, 0};
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
        reg[ECX1] = ecx;
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        reg[EBX7] = ebx;
        reg[EDX7] = edx;
        if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) {
            reg[EAX7_1] = eax;
        }
    }
    const uint64_t xcr0 = t2k_cpu_xcr0();
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        if (strcmp(bits[i].name, name) == 0) {
            f->offered = (int)(reg[bits[i].reg] >> bits[i].bit & 1);
            f->state_saved = (xcr0 & bits[i].xcr0) == bits[i].xcr0;
            f->tiles = bits[i].xcr0 == XCR0_TILE;
            return 1;
        }
    }
    return 0;
}

#elif defined(__aarch64__)

#include <sys/auxv.h>

#define HWCAP_ASIMD_BIT 1 /* linux/arch/arm64 uapi asm/hwcap.h */

uint64_t t2k_cpu_xcr0(void)
{
    return 0;
}

static void request_tiles(void)
{
    tiles_refused = ENOSYS;
}

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

int t2k_cpu_tiles(char *reason, size_t reason_size)
{
    pthread_once(&tiles_once, request_tiles);
    if (tiles_refused != 0) {
        snprintf(reason, reason_size, "the operating system refuses AMX tiles: %s",
                 strerror(tiles_refused));
    }
    return tiles_refused == 0;
}

int t2k_cpu_offers(const char *features, char *reason, size_t reason_size)
{
    while (*features != '\0') {
        char name[24];
        size_t length = strcspn(features, " ");
        snprintf(name, sizeof name, "%.*s", (int)length, features);
        features += length + strspn(features + length, " ");
        struct feature f = {name, 0, 0, 0};
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
        if (f.tiles && !t2k_cpu_tiles(reason, reason_size)) {
            return 0;
        }
    }
    return 1;
}
