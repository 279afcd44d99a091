/* The values of the options: names from lists of valid ones, and numbers with units. */
#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int bench_usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("t2bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    return 2;
}

int bench_isa_selectable(int isa)
{
    t2k_isa_info info;
    int active = 0;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        active = info.active ? i : active;
    }
    return t2k_isa_get(isa, &info) == T2K_OK && info.usable && isa <= active;
}

/* Keeps values (count) in rising order and each once. */
static int insert(int *values, int *count, int value)
{
    int at = 0;
    while (at < *count && values[at] < value) {
        at++;
    }
    if (at < *count && values[at] == value) {
        return 0;
    }
    if (*count == BENCH_CHOICES) {
        return bench_usage_error("a list of more than %d", BENCH_CHOICES);
    }
    memmove(values + at + 1, values + at, (size_t)(*count - at) * sizeof *values);
    values[at] = value;
    (*count)++;
    return 0;
}

int bench_add_isa(struct bench_options *o, const char *from, const char *name)
{
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (strcmp(info.name, name) == 0) {
            return bench_isa_selectable(i)
                       ? insert(o->isa, &o->isas, i)
                       : bench_usage_error("%s %s: %s", from, name, info.reason);
        }
    }
    char valid[200] = "";
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (bench_isa_selectable(i)) {
            size_t used = strlen(valid);
            snprintf(valid + used, sizeof valid - used, " %s", info.name);
        }
    }
    return bench_usage_error("%s %s: unknown; valid here:%s", from, name, valid);
}

int bench_add_threads(struct bench_options *o, const char *from, const char *text)
{
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 1 || n > BENCH_MAX_THREADS) {
        return bench_usage_error("%s takes numbers from 1 to %d, found %s", from, BENCH_MAX_THREADS,
                                 text);
    }
    return insert(o->threads, &o->thread_counts, (int)n);
}

int bench_add_set(struct bench_options *o, const char *from, const char *name)
{
    char valid[200] = "";
    for (int i = 0; bench_set_name(i) != NULL; i++) {
        if (strcmp(bench_set_name(i), name) == 0) {
            for (int j = 0; j < o->sets; j++) {
                if (o->set[j] == bench_set_name(i)) {
                    return 0;
                }
            }
            o->set[o->sets++] = bench_set_name(i);
            return 0;
        }
        size_t used = strlen(valid);
        snprintf(valid + used, sizeof valid - used, " %s", bench_set_name(i));
    }
    return bench_usage_error("%s %s: unknown; valid:%s none", from, name, valid);
}

int bench_add_operands(struct bench_options *o, const char *from, const char *name)
{
    for (int i = 0; i < BENCH_OPERANDS; i++) {
        if (strcmp(bench_operands_name[i], name) == 0) {
            o->operands[i] = 1;
            o->operands_given = 1;
            return 0;
        }
    }
    return bench_usage_error("%s %s: unknown; valid: %s %s %s", from, name, bench_operands_name[0],
                             bench_operands_name[1], bench_operands_name[2]);
}

int bench_add_peer(struct bench_options *o, const char *from, const char *name)
{
    const struct bench_peer *peer = bench_peer_find(name);
    if (peer == NULL || peer == &bench_peers[0] || peer == bench_peer_against()) {
        char valid[400] = "";
        for (int i = 1; i < bench_peer_count; i++) {
            size_t used = strlen(valid);
            if (&bench_peers[i] != bench_peer_against()) {
                snprintf(valid + used, sizeof valid - used, " %s", bench_peers[i].name);
            }
        }
        return bench_usage_error("%s %s: unknown; valid:%s none all", from, name, valid);
    }
    for (int i = 0; i < o->peers; i++) {
        if (o->peer[i] == peer) {
            return 0;
        }
    }
    o->peer[o->peers++] = peer;
    return 0;
}

/* A number in [least, most], behind which one of the units may stand. */
int bench_number(const char *from, const char *text, const char *const *units,
                 const double *factors, double least, double most, double *value)
{
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    int bad = end == text || errno != 0;
    while (*end == ' ') {
        end++;
    }
    if (*end != '\0') {
        int i = 0;
        while (units[i] != NULL && strcmp(end, units[i]) != 0) {
            i++;
        }
        bad |= units[i] == NULL;
        x *= bad ? 1.0 : factors[i];
    }
    if (bad || !(x >= least && x <= most)) {
        char valid[40] = "";
        for (int i = 0; units[i] != NULL; i++) {
            size_t used = strlen(valid);
            snprintf(valid + used, sizeof valid - used, "%s%s", i == 0 ? " in " : ", ", units[i]);
        }
        return bench_usage_error("%s takes a number from %g to %g%s; found %s", from, least, most,
                                 valid, text);
    }
    *value = x;
    return 0;
}
