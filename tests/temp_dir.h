/* A directory of its own for each test that writes files. */
#ifndef T2_TEMP_DIR_H
#define T2_TEMP_DIR_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char temp_dir[1024];

static inline void temp_dir_make(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(temp_dir, sizeof temp_dir, "%s/t2-test-XXXXXX",
             base != NULL && base[0] != '\0' ? base : "/tmp");
    if (mkdtemp(temp_dir) == NULL) {
        perror(temp_dir);
        abort();
    }
}

/* The path of a file in it; valid until four more calls. */
static inline const char *temp_path(const char *name)
{
    static char paths[4][1400];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", temp_dir, name);
    return path;
}

/* Number of files in it; `act` (may be NULL) is done to each. */
static inline int temp_dir_each(int (*act)(const char *path))
{
    DIR *dir = opendir(temp_dir);
    int n = 0;
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            n++;
            if (act != NULL) {
                act(temp_path(e->d_name));
            }
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return n;
}

static inline void temp_dir_remove(void)
{
    temp_dir_each(remove);
    rmdir(temp_dir);
}

#endif
