/* Statuses and messages, escaping of text, configuration files. */
#include "io/error.h"
#include "io/json_file.h"
#include "io/text.h"
#include "t2.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <errno.h>

TestSuite(io, .init = temp_dir_make, .fini = temp_dir_remove);

/* ---- messages ------------------------------------------------------------------------------- */

Test(io, every_status_has_a_text)
{
    for (int status = T2_OK; status >= T2_ERR_STOPPED; status--) {
        cr_expect_str_neq(t2_status_str((t2_status)status), "unknown status");
    }
    cr_expect_str_eq(t2_status_str((t2_status)-99), "unknown status");
}

Test(io, fail)
{
    t2_error err = {T2_OK, ""};
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    cr_expect_eq(t2_fail(&err, T2_ERR_NUMERIC, "a%db\n%s", 1, "\x1b["), T2_ERR_NUMERIC);
    cr_expect_eq(err.status, T2_ERR_NUMERIC);
    cr_expect_str_eq(err.message, "a1b??[");
    cr_expect_eq(t2_fail(NULL, T2_ERR_ARG, "%s", "x"), T2_ERR_ARG);
    t2_fail(&err, T2_ERR_ARG, "%s", text);
    cr_expect_eq(strlen(err.message), sizeof err.message - 1);
    cr_expect_eq(t2_fail_errno(&err, ENOMEM, "f", "cannot open"), T2_ERR_NOMEM);
    cr_expect_eq(t2_fail_errno(&err, ENOSPC, "f", "cannot write"), T2_ERR_IO);
    cr_expect_str_eq(err.message, "f: cannot write: No space left on device");
}

/* ---- text ----------------------------------------------------------------------------------- */

Test(io, utf8)
{
    static const struct {
        const char *text;
        size_t n, length;
        uint32_t code;
    } cases[] = {
        {"a", 1, 1, 'a'},
        {"\0", 1, 1, 0},
        {"\xc2\x80", 2, 2, 0x80},
        {"\xdf\xbf", 2, 2, 0x7ff},
        {"\xe0\xa0\x80", 3, 3, 0x800},
        {"\xed\x9f\xbf", 3, 3, 0xd7ff},
        {"\xee\x80\x80", 3, 3, 0xe000},
        {"\xf0\x90\x80\x80", 4, 4, 0x10000},
        {"\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff},
        {"\x80", 1, 0, 0},
        {"\xc1\xbf", 2, 0, 0},         /* overlong */
        {"\xe0\x9f\xbf", 3, 0, 0},     /* overlong */
        {"\xed\xa0\x80", 3, 0, 0},     /* surrogate */
        {"\xf0\x8f\xbf\xbf", 4, 0, 0}, /* overlong */
        {"\xf4\x90\x80\x80", 4, 0, 0}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", 4, 0, 0},
        {"\xc2", 1, 0, 0}, /* cut off */
        {"\xe0\xa0", 2, 0, 0},
        {"\xc2\x41", 2, 0, 0},
        {"\xe1\x80\xc0", 3, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t code = 0;
        cr_expect_eq(t2_utf8(cases[i].text, cases[i].n, &code), cases[i].length, "case %zu", i);
        cr_expect_eq(code, cases[i].code, "case %zu: %x", i, code);
        cr_expect_eq(t2_utf8_valid(cases[i].text, cases[i].n), cases[i].length > 0);
    }
}

Test(io, show)
{
    char buffer[T2_SHOW], text[3001];
    cr_expect_str_eq(t2_show(buffer, ""), "");
    cr_expect_str_eq(t2_show(buffer, "a\xc3\xa9/b"), "a\xc3\xa9/b");
    cr_expect_str_eq(t2_show(buffer, "\x1b[1m\n\t\\\x7f\xc2\x9b\xff\xe2\x80\xae"),
                     "\\u001b[1m\\n\\t\\\\\\u007f\\u009b\\xff\\u202e");
    for (size_t n = 150; n <= 3000; n += n < 250 ? 1 : 91) {
        /* Two-byte characters between an optional 'A' and a 'Z': cuts may fall inside them. */
        size_t pairs = (n - 1) / 2, at = (n - 1) % 2;
        text[0] = 'A';
        for (size_t i = 0; i < pairs; i++, at += 2) {
            memcpy(text + at, "\xc3\xa9", 2);
        }
        text[at++] = 'Z';
        text[at] = '\0';
        cr_assert_eq(at, n);
        t2_show(buffer, text);
        size_t length = strlen(buffer);
        cr_assert(length < T2_SHOW);
        cr_expect(t2_utf8_valid(buffer, length));
        cr_expect_null(strchr(buffer, '\\'));
        cr_expect_eq(buffer[length - 1], 'Z');
        cr_expect_eq(strstr(buffer, "...") == NULL, n < T2_SHOW);
    }
    memset(text, '\x01', 3000);
    text[3000] = '\0';
    t2_show(buffer, text);
    cr_expect_str_eq(buffer + strlen(buffer) - 6, "\\u0001");
}

Test(io, growing_text)
{
    t2_text text = {0};
    for (int i = 0; i < 1000; i++) {
        t2_text_printf(&text, "%d,", i);
    }
    cr_assert(!text.failed);
    cr_expect_eq(text.size, 10 * 2 + 90 * 3 + 900 * 4);
    cr_expect_str_eq(text.data + text.size - 8, "998,999,");
    text.size = 0;
    t2_text_json(&text, "a\"\\/\b\f\n\r\t\x02\x7f\xc3\xa9");
    cr_expect_str_eq(text.data, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0002\x7f\xc3\xa9\"");
    text.size = 0;
    t2_text_json_shown(&text, "a\"\n\x02\x7f\xc3\xa9\xc2\x9b\xff\xe2\x80\xae");
    cr_expect_str_eq(text.data, "\"a\\\"\\n\\u0002\\u007f\xc3\xa9\\u009b\\ufffd\\u202e\"");
    text.size = 0;
    t2_text_escaped(&text, "a\x02\xff");
    cr_expect_str_eq(text.data, "a\\u0002\\xff");
    t2_text_free(&text);
    cr_expect_null(text.data);
    text.failed = 1;
    t2_text_str(&text, "x");
    cr_expect_null(text.data);
}

/* ---- configuration files -------------------------------------------------------------------- */

static t2_status load(const char *text, t2_json *json, t2_error *err)
{
    const char *path = temp_path("config.json");
    cr_assert_eq(t2_write_file_atomic(path, text, strlen(text), NULL), T2_OK);
    cr_assert_eq(chdir(temp_dir), 0);
    return t2_json_load("config.json", 200, json, err);
}

Test(io, json_getters)
{
    t2_json json, part;
    t2_error err = {T2_OK, ""};
    int64_t integer = 0;
    double number = 0.0;
    const char *string = NULL;
    int flag = 0;
    cr_assert_eq(load("{\"i\":8,\"f\":4.0,\"g\":0.1,\"s\":\"x\",\"b\":true,\"n\":null,"
                      "\"p\":{\"q\":-3},\"l\":[1]}",
                      &json, &err),
                 T2_OK, "%s", err.message);
    cr_expect_eq(t2_json_int(&json, "i", 1, 8, &integer, &err), T2_OK);
    cr_expect_eq(integer, 8);
    cr_expect_eq(t2_json_int(&json, "f", 1, 8, &integer, &err), T2_OK);
    cr_expect_eq(integer, 4);
    cr_expect_eq(t2_json_number(&json, "g", 0.0, 1.0, &number, &err), T2_OK);
    cr_expect_eq(number, 0.1);
    cr_expect_eq(t2_json_number(&json, "i", 0.0, 9.0, &number, &err), T2_OK);
    cr_expect_eq(number, 8.0);
    cr_expect_eq(t2_json_string(&json, "s", &string, &err), T2_OK);
    cr_expect_str_eq(string, "x");
    cr_expect_eq(t2_json_bool(&json, "b", &flag, &err), T2_OK);
    cr_expect_eq(flag, 1);
    cr_expect(t2_json_has(&json, "i") && !t2_json_has(&json, "n") && !t2_json_has(&json, "x"));
    cr_assert_eq(t2_json_part(&json, "p", &part, &err), T2_OK);
    cr_expect_eq(t2_json_int(&part, "q", -5, 0, &integer, &err), T2_OK);
    cr_expect_eq(integer, -3);
    cr_expect_eq(t2_json_int_or(&json, "n", 0, 9, 5, &integer, &err), T2_OK);
    cr_expect_eq(integer, 5);
    cr_expect_eq(t2_json_number_or(&json, "x", 0.0, 1.0, 0.5, &number, &err), T2_OK);
    cr_expect_eq(number, 0.5);
    cr_expect_eq(t2_json_string_or(&json, "x", "d", &string, &err), T2_OK);
    cr_expect_str_eq(string, "d");
    cr_expect_eq(t2_json_bool_or(&json, "x", 1, &flag, &err), T2_OK);
    cr_expect_eq(flag, 1);
    t2_json_free(&json);
}

Test(io, json_getters_explain)
{
    t2_json json, part;
    t2_error err = {T2_OK, ""};
    int64_t integer = 77;
    double number;
    const char *string;
    int flag;
    cr_assert_eq(load("{\"i\":9,\"g\":0.5,\"s\":\"a\\nb\",\"l\":[1],\"t\":false}", &json, &err),
                 T2_OK);
    cr_expect_eq(t2_json_int(&json, "i", 1, 8, &integer, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message, "config.json: key 'i': expected an integer from 1 to 8, found 9");
    cr_expect_eq(t2_json_int(&json, "s", 1, 8, &integer, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message, "config.json: key 's': expected an integer from 1 to 8, "
                                  "found \"a\\nb\"");
    cr_expect_eq(t2_json_int(&json, "g", 0, 8, &integer, &err), T2_ERR_FORMAT);
    cr_expect_eq(t2_json_int_or(&json, "l", 1, 8, 5, &integer, &err), T2_ERR_FORMAT);
    cr_expect_eq(integer, 77);
    cr_expect_eq(t2_json_int(&json, "x", 1, 8, &integer, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message,
                     "config.json: key 'x': expected an integer from 1 to 8, found nothing");
    cr_expect_eq(t2_json_number(&json, "g", 0.0, 0.4, &number, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message,
                     "config.json: key 'g': expected a number from 0 to 0.4, found 0.5");
    cr_expect_eq(t2_json_string(&json, "t", &string, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message, "config.json: key 't': expected a string, found false");
    cr_expect_eq(t2_json_bool(&json, "i", &flag, &err), T2_ERR_FORMAT);
    cr_expect_eq(t2_json_part(&json, "l", &part, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message, "config.json: key 'l': expected an object, found a list");
    t2_json_free(&json);
}

Test(io, json_files)
{
    static const struct {
        const char *text;
        const char *words;
    } cases[] = {
        {"", "line 1, column 0: not JSON: "},
        {"{\n\"a\": 1,\n}", "config.json: line 3, column 1: not JSON: "},
        {"{\"a\":1,\"a\":2}", "duplicate object key"},
        {"[1]", "config.json: expected a JSON object, found a list"},
        {"{\"a\":1} x", "not JSON: end of file expected"},
        {"{\"a\":\"\xff\"}", "not JSON: unable to decode byte 0xff"},
    };
    t2_json json;
    t2_error err = {T2_OK, ""};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_eq(load(cases[i].text, &json, &err), T2_ERR_FORMAT, "case %zu", i);
        cr_expect(strstr(err.message, cases[i].words) != NULL, "%s", err.message);
        cr_expect_eq(load(cases[i].text, &json, NULL), T2_ERR_FORMAT);
    }
    char large[300];
    memset(large, ' ', sizeof large);
    memcpy(large, "{}", 2);
    large[200] = '\0';
    cr_expect_eq(load(large, &json, &err), T2_OK);
    t2_json_free(&json);
    large[200] = ' ';
    large[201] = '\0';
    cr_expect_eq(load(large, &json, &err), T2_ERR_FORMAT);
    cr_expect_str_eq(err.message, "config.json: expected at most 200 bytes, found 201");
    cr_expect_eq(t2_json_load("missing.json", 100, &json, &err), T2_ERR_IO);
}
