/* /proc/cpuinfo: lines "key<blanks>: value", one group per processor. */
#include "io/cpuinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value where the line is one of `key`, else NULL. */
static char *value_of(char *line, const char *key)
{
    const size_t length = strlen(key);
    if (strncmp(line, key, length) != 0) {
        return NULL;
    }
    char *colon = line + length + strspn(line + length, " \t");
    if (*colon != ':') {
        return NULL;
    }
    line[strcspn(line, "\n")] = '\0';
    return colon + 1 + strspn(colon + 1, " \t");
}

int t2_cpuinfo(const char *key, char *value, size_t size)
{
    snprintf(value, size, "%s", "");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (f == NULL) {
        return 0;
    }
    char *line = NULL;
    const char *found = NULL;
    size_t room = 0;
    while (found == NULL && getline(&line, &room, f) >= 0) {
        found = value_of(line, key);
    }
    if (found != NULL) {
        snprintf(value, size, "%s", found);
    }
    free(line);
    fclose(f);
    return found != NULL;
}

void t2_cpu_name(char *name, size_t size)
{
    char implementer[32], part[32];
    if (t2_cpuinfo("model name", name, size) && name[0] != '\0') {
        return;
    }
    if (t2_cpuinfo("CPU implementer", implementer, sizeof implementer) &&
        t2_cpuinfo("CPU part", part, sizeof part)) {
        snprintf(name, size, "implementer %s part %s", implementer, part);
        return;
    }
    snprintf(name, size, "unknown");
}
