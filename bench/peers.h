/* peers.h - what the table of contenders needs from the file system, and the commands that start
 * them. Internal to the client.
 */
#ifndef T2_BENCH_PEERS_H
#define T2_BENCH_PEERS_H

#include "client.h"

enum { PEERS_PATH = 4096, PEERS_WORD = 128 };

/* A Python module that is built into the program; "bundle" runs the others. */
struct bench_script {
    const char *name, *text;
};
extern const struct bench_script bench_scripts[]; /* ends with a NULL name */

/* Whether the adapter is one of them. */
int bench_peer_is_script(const struct bench_peer *peer);

/* Takes the next word of a list off *list: 1, or 0 where there is none. NULL is an empty list. */
int bench_next_word(const char **list, char word[PEERS_WORD]);

/* The folder of the virtual environment: $T2BENCH_PEERS, else peers/ beside that of the program's
 * configuration. 0, or -1 where there is none. */
int bench_peers_folder(char path[PEERS_PATH]);
/* A library below that folder: 0, or -1. */
int bench_peers_library(const char *name, char path[PEERS_PATH]);
/* A Python that has all these modules: 0; or -1 with the name of one that is missing. */
int bench_peers_python(const char *modules, char path[PEERS_PATH], char missing[PEERS_WORD]);

/* What to start. */
struct bench_command {
    const char *program;
    char **argv, **environment; /* NULL-terminated */
    int script;                 /* of a file that becomes descriptor 3 of the process; -1: none */
};
/* The command of a worker (peers_command.c): 0, or -1 with the reason. bench_command_free is fine
 * after both. */
int bench_peer_command(const struct bench_peer *peer, const char *against, int threads,
                       struct bench_command *command, char *error, size_t size);
void bench_command_free(struct bench_command *command);

#endif
