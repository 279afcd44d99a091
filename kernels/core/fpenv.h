/* The floating-point control register of this thread: rule 19 of docs/numerics.md. */
#ifndef T2K_FPENV_H
#define T2K_FPENV_H

#include <stdint.h>

#if defined(__x86_64__)
#define T2K_FPENV_DEFAULT 0x1f80u /* all exceptions masked, nearest, no FTZ, no DAZ */
#define T2K_FPENV_FLAGS 0x3fu     /* exceptions seen: no mode, any result is the same */
static inline uint64_t t2k_fpenv_get(void)
{
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    return mxcsr;
}
static inline void t2k_fpenv_set(uint64_t value)
{
    uint32_t mxcsr = (uint32_t)value;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
}
#elif defined(__aarch64__)
#define T2K_FPENV_DEFAULT 0u /* nearest, no FZ, no default NaN */
#define T2K_FPENV_FLAGS 0u   /* they have a register of their own */
static inline uint64_t t2k_fpenv_get(void)
{
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    return fpcr;
}
static inline void t2k_fpenv_set(uint64_t value)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(value) : "memory");
}
#else
#error "no floating-point control for this architecture: add it here"
#endif

/* What to restore: writing the register costs as much as a tiny product, so that it happens only
 * where a mode differs. */
typedef struct t2k_fpenv {
    uint64_t saved;
    int differs;
} t2k_fpenv;

static inline t2k_fpenv t2k_fpenv_enter(void)
{
    const uint64_t modes = ~(uint64_t)T2K_FPENV_FLAGS, saved = t2k_fpenv_get();
    const t2k_fpenv fpenv = {saved, (saved & modes) != T2K_FPENV_DEFAULT};
    if (fpenv.differs) {
        t2k_fpenv_set(T2K_FPENV_DEFAULT);
    }
    return fpenv;
}

static inline void t2k_fpenv_leave(t2k_fpenv fpenv)
{
    if (fpenv.differs) {
        t2k_fpenv_set(fpenv.saved);
    }
}

#endif
