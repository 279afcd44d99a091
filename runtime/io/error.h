/* How functions of libt2 report failures. Internal. */
#ifndef T2_IO_ERROR_H
#define T2_IO_ERROR_H

#include "t2.h"

/* Fills *err (which may be NULL) and returns `status`, so that a caller can return the call.
 * Names that come from outside go through t2_show() first. Control characters that are still in
 * the result become '?'. */
__attribute__((format(printf, 3, 4))) t2_status t2_fail(t2_error *err, t2_status status,
                                                        const char *format, ...);

/* "PATH: ACTION: text of the errno value `code`"; T2_ERR_NOMEM for ENOMEM, else T2_ERR_IO. */
t2_status t2_fail_errno(t2_error *err, int code, const char *path, const char *action);

#endif
