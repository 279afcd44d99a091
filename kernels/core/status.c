/* Status texts and the version. */
#include "t2k.h"

#define T2K_STRINGIFY_(x) #x
#define T2K_STRINGIFY(x) T2K_STRINGIFY_(x)

const char *t2k_status_str(t2k_status status)
{
    switch (status) {
    case T2K_OK:
        return "success";
    case T2K_ERR_ARG:
        return "argument out of range";
    case T2K_ERR_ALIGN:
        return "packed buffer not aligned to 64 bytes";
    case T2K_ERR_NOMEM:
        return "out of memory";
    case T2K_ERR_ISA:
        return "instruction set unknown or not usable here";
    case T2K_ERR_IO:
        return "input/output error";
    }
    return "unknown status";
}

const char *t2k_version(void)
{
    return T2K_STRINGIFY(T2K_VERSION_MAJOR) "." T2K_STRINGIFY(T2K_VERSION_MINOR) "." T2K_STRINGIFY(
        T2K_VERSION_PATCH);
}
