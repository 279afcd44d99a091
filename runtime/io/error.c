/* Statuses and messages. */
#include "io/error.h"
#include "io/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *t2_status_str(t2_status status)
{
    switch (status) {
    case T2_OK:
        return "success";
    case T2_ERR_ARG:
        return "argument out of range";
    case T2_ERR_NOMEM:
        return "out of memory";
    case T2_ERR_IO:
        return "input/output error";
    case T2_ERR_FORMAT:
        return "bad or unsupported file";
    case T2_ERR_ISA:
        return "instruction set unknown or not usable here";
    case T2_ERR_NUMERIC:
        return "value is not finite";
    case T2_ERR_STOPPED:
        return "stopped by a callback";
    }
    return "unknown status";
}

t2_status t2_fail(t2_error *err, t2_status status, const char *format, ...)
{
    if (err == NULL) {
        return status;
    }
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n < 0) {
        snprintf(err->message, sizeof err->message, "%s", t2_status_str(status));
    }
    for (char *p = err->message; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
    err->status = status;
    return status;
}

t2_status t2_fail_errno(t2_error *err, int code, const char *path, const char *action)
{
    char text[128], name[T2_SHOW];
    if (strerror_r(code, text, sizeof text) != 0) {
        snprintf(text, sizeof text, "error %d", code);
    }
    return t2_fail(err, code == ENOMEM ? T2_ERR_NOMEM : T2_ERR_IO, "%s: %s: %s",
                   t2_show(name, path), action, text);
}
