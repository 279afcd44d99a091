/* How a worker is started: program, arguments, environment.
 *
 * Contenders in C run in this same program. Those in Python get their script as descriptor 3, from
 * memory: an installed t2bench needs no files beside it.
 */
#define _GNU_SOURCE /* memfd_create */
#include "peers.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern char **environ;

/* ---- lists of strings ------------------------------------------------------------------------ */

struct list {
    char **item; /* NULL-terminated */
    size_t count;
    int failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct list *list, const char *format, ...)
{
    va_list values;
    char *text = NULL;
    va_start(values, format);
    int n = vasprintf(&text, format, values);
    va_end(values);
    char **item = n >= 0 ? realloc(list->item, (list->count + 2) * sizeof *item) : NULL;
    if (item == NULL) {
        list->failed = 1;
        if (n >= 0) {
            free(text);
        }
        return;
    }
    list->item = item;
    item[list->count++] = text;
    item[list->count] = NULL;
}

static void free_items(char **item)
{
    for (size_t i = 0; item != NULL && item[i] != NULL; i++) {
        free(item[i]);
    }
    free(item);
}

/* ---- environment ----------------------------------------------------------------------------- */

/* "NAME=..." names the same variable. */
static int same_name(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strcspn(b, "=") == n && memcmp(a, b, n) == 0;
}

/* What would give a worker other threads than it is told, or make "mkl" another contender; and what
 * the table sets for this one. */
static int is_replaced(const char *variable, const struct bench_peer *peer)
{
    static const char *const cleared[] = {"OMP_NUM_THREADS",
                                          "OMP_DYNAMIC",
                                          "T2K_NUM_THREADS",
                                          "OPENBLAS_NUM_THREADS",
                                          "GOTO_NUM_THREADS",
                                          "BLIS_NUM_THREADS",
                                          "BLIS_JC_NT",
                                          "BLIS_PC_NT",
                                          "BLIS_IC_NT",
                                          "BLIS_JR_NT",
                                          "BLIS_IR_NT",
                                          "MKL_NUM_THREADS",
                                          "MKL_DOMAIN_NUM_THREADS",
                                          "MKL_CBWR",
                                          "LD_LIBRARY_PATH"};
    for (size_t i = 0; i < sizeof cleared / sizeof cleared[0]; i++) {
        if (same_name(variable, cleared[i])) {
            return 1;
        }
    }
    char word[PEERS_WORD];
    for (const char *words = peer->environment; bench_next_word(&words, word);) {
        if (same_name(variable, word)) {
            return 1;
        }
    }
    return 0;
}

/* `folder`: where the library's own libraries are, or "". */
static char **make_environment(const struct bench_peer *peer, int threads, const char *folder)
{
    struct list list = {NULL, 0, 0};
    for (char **variable = environ; *variable != NULL; variable++) {
        if (!is_replaced(*variable, peer)) {
            add(&list, "%s", *variable);
        }
    }
    char word[PEERS_WORD];
    for (const char *words = peer->environment; bench_next_word(&words, word);) {
        char *number = strstr(word, "%d");
        if (number != NULL) {
            add(&list, "%.*s%d%s", (int)(number - word), word, threads, number + 2);
        } else {
            add(&list, "%s", word);
        }
    }
    const char *path = getenv("LD_LIBRARY_PATH");
    int both = folder[0] != '\0' && path != NULL && path[0] != '\0';
    if (folder[0] != '\0' || path != NULL) {
        add(&list, "LD_LIBRARY_PATH=%s%s%s", folder, both ? ":" : "", path != NULL ? path : "");
    }
    if (list.failed) {
        free_items(list.item);
        return NULL;
    }
    return list.item;
}

/* ---- scripts --------------------------------------------------------------------------------- */

/* The bundle of all modules, and the call that runs one of them; -1 on failure. */
static int script_file(const char *name)
{
    json_t *sources = json_object(); /* JSON's strings are Python's too */
    const char *bundle = "";
    for (const struct bench_script *s = bench_scripts; s->name != NULL; s++) {
        if (strcmp(s->name, "bundle") == 0) {
            bundle = s->text;
        } else {
            json_object_set_new(sources, s->name, json_string(s->text));
        }
    }
    char *text = json_dumps(sources, JSON_ENSURE_ASCII);
    json_decref(sources);
    int fd = memfd_create("t2bench-script", MFD_CLOEXEC);
    if (fd >= 0 &&
        (text == NULL || dprintf(fd, "%s\n\nrun(\"%s\", %s)\n", bundle, name, text) < 0)) {
        close(fd);
        fd = -1;
    }
    free(text);
    return fd;
}

static int script_command(const struct bench_peer *peer, int threads, struct list *argv,
                          struct bench_command *command, char *error, size_t size)
{
    char python[PEERS_PATH], word[PEERS_WORD];
    if (bench_peers_python(peer->libraries, python, word) != 0) {
        snprintf(error, size, "not installed: Python module %s", word);
        return -1;
    }
    const char *options = peer->adapter;
    bench_next_word(&options, word);
    command->script = script_file(word);
    if (command->script < 0) {
        snprintf(error, size, "no memory for its script");
        return -1;
    }
    add(argv, "%s", python);
    add(argv, "/proc/self/fd/3");
    add(argv, "--name");
    add(argv, "%s", peer->name);
    add(argv, "--threads");
    add(argv, "%d", threads);
    while (bench_next_word(&options, word)) {
        add(argv, "%s", word);
    }
    return 0;
}

/* ---- programs -------------------------------------------------------------------------------- */

/* libdnnl.so.3.5 is oneDNN, any other library is taken for a BLAS. */
static const char *adapter_of(const char *library)
{
    const char *slash = strrchr(library, '/');
    const char *name = slash != NULL ? slash + 1 : library;
    return strncmp(name, "libdnnl.so", 10) == 0 ? "onednn" : "cblas";
}

/* Libraries by the path below the virtual environment where they are there, and then by name; the
 * folder of the first such path. */
static void add_libraries(struct list *argv, const char *names, char folder[PEERS_PATH])
{
    char name[PEERS_WORD], path[PEERS_PATH];
    while (bench_next_word(&names, name)) {
        if (bench_peers_library(name, path) == 0) {
            add(argv, "--library");
            add(argv, "%s", path);
            if (folder[0] == '\0') {
                memcpy(folder, path, sizeof path);
                *strrchr(folder, '/') = '\0';
            }
        }
        add(argv, "--library");
        add(argv, "%s", name);
    }
}

/* Ours, or another build of it: the worker's options are the same. */
static void worker_command(const struct bench_peer *peer, const char *against, int threads,
                           struct list *argv, char folder[PEERS_PATH])
{
    int program = against != NULL && bench_against_is_t2bench(against);
    int library = against != NULL && !program;
    add(argv, "%s", program ? against : "t2bench");
    add(argv, "worker");
    add(argv, "--adapter");
    add(argv, "%s", program ? "t2k" : library ? adapter_of(against) : peer->adapter);
    add(argv, "--name");
    add(argv, "%s", peer->name);
    add(argv, "--threads");
    add(argv, "%d", threads);
    if (library) {
        add(argv, "--library");
        add(argv, "%s", against);
    } else if (!program) {
        add_libraries(argv, peer->libraries, folder);
    }
}

int bench_peer_command(const struct bench_peer *peer, const char *against, int threads,
                       struct bench_command *command, char *error, size_t size)
{
    struct list argv = {NULL, 0, 0};
    char folder[PEERS_PATH] = "";
    int script = bench_peer_is_script(peer), status = 0;
    *command = (struct bench_command){.script = -1};
    if (peer == bench_peer_against() && against == NULL) {
        snprintf(error, size, "--against names nothing");
        return -1;
    }
    if (script) {
        status = script_command(peer, threads, &argv, command, error, size);
    } else {
        worker_command(peer, against, threads, &argv, folder);
    }
    command->argv = argv.item;
    command->environment = make_environment(peer, threads, folder);
    if (status == 0 && (argv.failed || command->environment == NULL)) {
        snprintf(error, size, "out of memory");
        status = -1;
    }
    if (status == 0) {
        int own = !script && (against == NULL || !bench_against_is_t2bench(against));
        command->program = own ? "/proc/self/exe" : command->argv[0];
    }
    return status;
}

void bench_command_free(struct bench_command *command)
{
    free_items(command->argv);
    free_items(command->environment);
    if (command->script >= 0) {
        close(command->script);
    }
    *command = (struct bench_command){.script = -1};
}
