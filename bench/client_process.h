/* client_process.h - processes that answer lines with lines: starting, stopping, talking to them.
 */
#ifndef T2_BENCH_CLIENT_PROCESS_H
#define T2_BENCH_CLIENT_PROCESS_H

#include "peers.h"

#include <sys/types.h>

struct bench_process {
    pid_t pid;    /* 0: none, or it was ended */
    int requests; /* a socket: writing to a dead process must not raise SIGPIPE */
    int answers;
    int log; /* its stderr, a file in memory */
    char *buffer;
    size_t used, room, taken;
};

/* Starts it as the leader of a process group of its own: signals of the terminal don't reach it,
 * and it dies with this process. 0, or -1 with the reason. */
int bench_process_start(struct bench_process *process, const struct bench_command *command,
                        char *error, size_t size);
/* Ends it and its children: by the end of its input where `politely`, else by SIGKILL. `how` (NULL:
 * not wanted) tells how it ended, such as "exited with status 1" or "killed by SIGSEGV
 * (Segmentation fault)". Its last words can still be read. */
void bench_process_end(struct bench_process *process, int politely, char *how, size_t size);
/* Releases what is left of a process that was ended. */
void bench_process_free(struct bench_process *process);

/* Stops all its threads and children; returns when they stand. */
void bench_process_pause(struct bench_process *process);
void bench_process_resume(struct bench_process *process);

/* 0, or -1 where it doesn't read any more. */
int bench_process_send(struct bench_process *process, const char *text, size_t size);
/* The next line, without its end, until the next call: 0; or -1 where there is none in `timeout`
 * seconds; or -2 where it closed its output or ended. */
int bench_process_receive(struct bench_process *process, double timeout, const char **line);
/* The last lines that it wrote to stderr, on one line; "" where there are none. */
void bench_process_last_words(const struct bench_process *process, char *text, size_t size);

#endif
