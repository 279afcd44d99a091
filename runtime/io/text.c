/* UTF-8, escaping, and strings that grow. */
#include "io/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The Unicode Standard, table 3-7: the second byte's range depends on the first byte. */
size_t t2_utf8(const char *s, size_t n, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char first = p[0], low = 0x80, high = 0xbf;
    if (first < 0x80) {
        *code = first;
        return 1;
    }
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || n < length) {
        return 0;
    }
    low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : low;
    high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : high;
    if (p[1] < low || p[1] > high) {
        return 0;
    }
    uint32_t value = first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (p[i] & 0x3f);
    }
    *code = value;
    return length;
}

int t2_utf8_valid(const char *s, size_t n)
{
    uint32_t code;
    for (size_t i = 0; i < n;) {
        size_t length = t2_utf8(s + i, n - i, &code);
        if (length == 0) {
            return 0;
        }
        i += length;
    }
    return 1;
}

/* C0 and C1 controls, line separators, and the marks that reorder text around them. */
static int unprintable(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x200b && code <= 0x200f) ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
           code == 0xfeff;
}

#define ESCAPED 8 /* the longest form is \uXXXX */

/* The first character of s[0 .. n) as it is shown, its length in *length; returns how many bytes
 * of s that took. */
static size_t escape(const char *s, size_t n, char out[ESCAPED], size_t *length)
{
    uint32_t code;
    size_t taken = t2_utf8(s, n, &code);
    int written;
    if (taken == 0) {
        taken = 1;
        written = snprintf(out, ESCAPED, "\\x%02x", (unsigned)(unsigned char)s[0]);
    } else if (code == '\\' || code == '\n' || code == '\t') {
        written = snprintf(out, ESCAPED, "\\%c", code == '\n' ? 'n' : code == '\t' ? 't' : '\\');
    } else if (unprintable(code)) {
        written = snprintf(out, ESCAPED, "\\u%04x", (unsigned)code & 0xffffu);
    } else {
        memcpy(out, s, taken);
        written = (int)taken;
    }
    *length = (size_t)written;
    return taken;
}

/* Appends what fits into buffer[0 .. limit). Returns the new length; *at is where it stopped. */
static size_t show_part(char *buffer, size_t used, size_t limit, const char *s, size_t n,
                        size_t *at)
{
    while (*at < n) {
        char one[ESCAPED];
        size_t length, taken = escape(s + *at, n - *at, one, &length);
        if (used + length > limit) {
            break;
        }
        memcpy(buffer + used, one, length);
        used += length;
        *at += taken;
    }
    return used;
}

const char *t2_show(char buffer[T2_SHOW], const char *text)
{
    enum { HEAD = 110, TAIL = 80 }; /* HEAD + "..." + TAIL + '\0' fit */
    size_t n = strlen(text), at = 0;
    size_t used = show_part(buffer, 0, T2_SHOW - 1, text, n, &at);
    if (at < n) {
        at = 0;
        used = show_part(buffer, 0, HEAD, text, n, &at);
        memcpy(buffer + used, "...", 3);
        used += 3;
        /* The longest tail that fits: each byte shows as at most six, so start early enough. */
        char tail[TAIL];
        size_t start = n > TAIL ? n - TAIL : 0, length, end;
        for (;; start++) {
            while (start < n && ((unsigned char)text[start] & 0xc0) == 0x80) {
                start++;
            }
            end = start;
            length = show_part(tail, 0, TAIL, text, n, &end);
            if (end == n) {
                break;
            }
        }
        memcpy(buffer + used, tail, length);
        used += length;
    }
    buffer[used] = '\0';
    return buffer;
}

/* Makes room for n more bytes and the final '\0'. */
static int reserve(t2_text *text, size_t n)
{
    size_t need;
    if (text->failed || __builtin_add_overflow(text->size, n, &need) ||
        __builtin_add_overflow(need, (size_t)1, &need)) {
        text->failed = 1;
        return 0;
    }
    if (need > text->room) {
        size_t room = need > text->room * 2 ? need : text->room * 2;
        room = room < 256 ? 256 : room;
        char *data = realloc(text->data, room);
        if (data == NULL) {
            text->failed = 1;
            return 0;
        }
        text->data = data;
        text->room = room;
    }
    return 1;
}

void t2_text_add(t2_text *text, const char *s, size_t n)
{
    if (reserve(text, n)) {
        memcpy(text->data + text->size, s, n);
        text->size += n;
        text->data[text->size] = '\0';
    }
}

void t2_text_str(t2_text *text, const char *s)
{
    t2_text_add(text, s, strlen(s));
}

void t2_text_printf(t2_text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        text->failed = 1;
        return;
    }
    if (reserve(text, (size_t)n)) {
        va_start(args, format);
        vsnprintf(text->data + text->size, (size_t)n + 1, format, args);
        va_end(args);
        text->size += (size_t)n;
    }
}

void t2_text_escaped(t2_text *text, const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        char one[ESCAPED];
        size_t length;
        i += escape(s + i, n - i, one, &length);
        t2_text_add(text, one, length);
    }
}

/* One character of a JSON string, `taken` bytes long. */
static void add_json(t2_text *text, const char *s, size_t taken)
{
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *found = strchr(special, *s);
    if (found != NULL) {
        char pair[2] = {'\\', letter[found - special]};
        t2_text_add(text, pair, 2);
    } else if ((unsigned char)*s < 0x20) {
        t2_text_printf(text, "\\u%04x", (unsigned)*s);
    } else {
        t2_text_add(text, s, taken);
    }
}

void t2_text_json(t2_text *text, const char *s)
{
    t2_text_add(text, "\"", 1);
    for (; *s != '\0'; s++) {
        add_json(text, s, 1);
    }
    t2_text_add(text, "\"", 1);
}

void t2_text_json_shown(t2_text *text, const char *s)
{
    uint32_t code;
    t2_text_add(text, "\"", 1);
    for (size_t n = strlen(s), taken; n > 0; n -= taken, s += taken) {
        taken = t2_utf8(s, n, &code);
        if (taken == 0) {
            taken = 1;
            t2_text_str(text, "\\ufffd");
        } else if (code >= 0x20 && unprintable(code)) {
            t2_text_printf(text, "\\u%04x", (unsigned)code);
        } else {
            add_json(text, s, taken);
        }
    }
    t2_text_add(text, "\"", 1);
}

void t2_text_free(t2_text *text)
{
    free(text->data);
    *text = (t2_text){0};
}
