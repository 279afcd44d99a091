/* UTF-8, escaping, and strings that grow. Internal. */
#ifndef T2_IO_TEXT_H
#define T2_IO_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the first character of s[0 .. n) and *code, 0 where that is not valid UTF-8 (overlong
 * forms, surrogates and values beyond U+10FFFF are not). n >= 1. */
size_t t2_utf8(const char *s, size_t n, uint32_t *code);

/* Nonzero when all n bytes are valid UTF-8. */
int t2_utf8_valid(const char *s, size_t n);

/* Text for a terminal, in a buffer of T2_SHOW bytes: control and direction characters,
 * backslashes and invalid bytes are escaped, and the middle of a long text is left out. Returns
 * the buffer. */
#define T2_SHOW 200
const char *t2_show(char buffer[T2_SHOW], const char *text);

/* A string that grows. A failed allocation sets `failed`, and all later additions do nothing.
 * Starts as all zeros; `data` is NULL as long as nothing was added, and always ends in '\0'. */
typedef struct t2_text {
    char *data;
    size_t size;
    size_t room;
    int failed;
} t2_text;

void t2_text_add(t2_text *text, const char *s, size_t n);
void t2_text_str(t2_text *text, const char *s);
__attribute__((format(printf, 2, 3))) void t2_text_printf(t2_text *text, const char *format, ...);
/* As t2_show(), but whole. */
void t2_text_escaped(t2_text *text, const char *s);
/* s as a JSON string with its quotes; s must be valid UTF-8. */
void t2_text_json(t2_text *text, const char *s);
/* The same for a terminal: what t2_show() escapes is escaped here too, and invalid bytes become
 * U+FFFD. */
void t2_text_json_shown(t2_text *text, const char *s);
void t2_text_free(t2_text *text);

#endif
