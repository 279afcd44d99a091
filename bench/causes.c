/* Causes of missed targets: reading the file and finding the one for a verdict. */
#include "causes.h"

#include "io/text.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FILE = 1 << 20 };

/* ---- parsing --------------------------------------------------------------------------------- */

/* Cuts the line, whose memory it takes, into exactly six words. */
static int cut_words(char *line, struct cause *cause)
{
    char *rest = NULL, *word = strtok_r(line, " \t\r", &rest);
    for (int i = 0; i < CAUSE_WORDS; i++, word = strtok_r(NULL, " \t\r", &rest)) {
        if (word == NULL) {
            return -1;
        }
        cause->word[i] = word;
    }
    return word == NULL ? 0 : -1;
}

static int add_cause(struct causes *causes, const char *line, size_t length, int number)
{
    struct cause *grown = realloc(causes->cause, (size_t)(causes->count + 1) * sizeof *grown);
    char *copy = strndup(line, length);
    causes->cause = grown != NULL ? grown : causes->cause;
    struct cause cause = {.line = number};
    if (grown == NULL || copy == NULL || cut_words(copy, &cause) != 0) {
        free(copy);
        return -1;
    }
    /* The first word begins where the line does, which is what causes_free() relies on. */
    causes->cause[causes->count++] = cause;
    return 0;
}

/* Appends a line of the text to the last cause. */
static int add_text(struct causes *causes, const char *line, size_t length)
{
    if (causes->count == 0) {
        return -1;
    }
    struct cause *cause = &causes->cause[causes->count - 1];
    size_t used = cause->text != NULL ? strlen(cause->text) + 1 : 0;
    char *grown = realloc(cause->text, used + length + 1);
    if (grown == NULL) {
        return -1;
    }
    if (used > 0) {
        grown[used - 1] = ' ';
    }
    memcpy(grown + used, line, length);
    grown[used + length] = '\0';
    cause->text = grown;
    return 0;
}

static int parse_line(struct causes *causes, const char *line, size_t length, int number)
{
    while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL) {
        length--;
    }
    size_t indent = strspn(line, " \t");
    if (length == 0 || line[0] == '#') {
        return 0;
    }
    return indent > 0 ? add_text(causes, line + indent, length - indent)
                      : add_cause(causes, line, length, number);
}

int causes_parse(const char *text, struct causes *causes, char *error, size_t size)
{
    causes->cause = NULL;
    causes->count = 0;
    int number = 1, bad = 0;
    for (; *text != '\0' && !bad; number++) {
        size_t length = strcspn(text, "\n");
        bad = parse_line(causes, text, length, number) != 0 ? number : 0;
        text += length + (text[length] == '\n');
    }
    for (int i = 0; i < causes->count && !bad; i++) {
        bad = causes->cause[i].text == NULL ? causes->cause[i].line : 0;
    }
    if (bad) {
        snprintf(error, size,
                 "line %d: expected 'ROW OPERATION SHAPE ISA THREADS TARGET' and an indented text "
                 "below",
                 bad);
        causes_free(causes);
        return -1;
    }
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* "a.json" to "a.causes.txt". */
static int path_beside(const char *results_path, char *path, size_t size)
{
    static const char suffix[] = ".json";
    size_t length = strlen(results_path), cut = sizeof suffix - 1;
    if (length > cut && strcmp(results_path + length - cut, suffix) == 0) {
        length -= cut;
    }
    int n = snprintf(path, size, "%.*s.causes.txt", (int)length, results_path);
    return n > 0 && (size_t)n < size ? 0 : -1;
}

int causes_load(const char *results_path, struct causes *causes, char *error, size_t size)
{
    memset(causes, 0, sizeof *causes);
    errno = 0;
    FILE *file = path_beside(results_path, causes->path, sizeof causes->path) == 0
                     ? fopen(causes->path, "re")
                     : NULL;
    if (file == NULL && errno == ENOENT) {
        return 0;
    }
    char *text = file != NULL ? malloc(MOST_FILE + 1) : NULL, why[200] = "it cannot be read";
    int result = -1;
    size_t bytes = text != NULL ? fread(text, 1, MOST_FILE, file) : 0;
    if (text != NULL && !ferror(file) && bytes < MOST_FILE && memchr(text, '\0', bytes) == NULL) {
        text[bytes] = '\0';
        result = causes_parse(text, causes, why, sizeof why);
    }
    if (result != 0) {
        char shown[T2_SHOW];
        snprintf(error, size, "%s: %s", t2_show(shown, causes->path), why);
    }
    free(text);
    if (file != NULL) {
        fclose(file);
    }
    return result;
}

/* ---- use ------------------------------------------------------------------------------------- */

const char *causes_find(struct causes *causes, const char *const word[CAUSE_WORDS])
{
    for (int i = 0; i < causes->count; i++) {
        struct cause *cause = &causes->cause[i];
        int match = 1;
        for (int j = 0; j < CAUSE_WORDS && match; j++) {
            match = fnmatch(cause->word[j], word[j], 0) == 0;
        }
        if (match) {
            cause->used = 1;
            return cause->text;
        }
    }
    return NULL;
}

void causes_free(struct causes *causes)
{
    for (int i = 0; i < causes->count; i++) {
        free(causes->cause[i].word[0]);
        free(causes->cause[i].text);
    }
    free(causes->cause);
    causes->cause = NULL;
    causes->count = 0;
}
