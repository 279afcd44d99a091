/* Worker processes: fork and exec, pipes, signals, time limits. */
#define _GNU_SOURCE /* memfd_create, pipe2, close_range, sigabbrev_np */
#include "client_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST_FD = 10,        /* ours lie above those that a worker gets */
    LINE_LIMIT = 1 << 20, /* bytes; no answer is that long */
    LOG_LIMIT = 1 << 20,  /* of stderr, between two requests */
    TAIL = 4096,          /* bytes of stderr that are looked at */
    LAST_WORDS = 3,       /* lines */
    GRACE_MS = 3000       /* to end after the end of the input: Python unloads much */
};

/* ---- starting -------------------------------------------------------------------------------- */

/* Everything that a start opens; -1: not open. */
struct ends {
    int request[2]; /* ours, the worker's */
    int answer[2];  /* ours, the worker's */
    int log;
    int status[2]; /* ours, and where the child says why exec failed */
};

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

static void close_ends(struct ends *e)
{
    for (int i = 0; i < 2; i++) {
        close_fd(&e->request[i]);
        close_fd(&e->answer[i]);
        close_fd(&e->status[i]);
    }
    close_fd(&e->log);
}

/* Moves a descriptor above those that the child overwrites. */
static int raise_fd(int *fd)
{
    int high = *fd >= 0 ? fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_FD) : -1;
    close_fd(fd);
    *fd = high;
    return high >= 0 ? 0 : -1;
}

static int open_ends(struct ends *e)
{
    *e = (struct ends){{-1, -1}, {-1, -1}, -1, {-1, -1}};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, e->request) != 0 ||
        pipe2(e->answer, O_CLOEXEC) != 0 || pipe2(e->status, O_CLOEXEC) != 0) {
        return -1;
    }
    e->log = memfd_create("t2bench-stderr", MFD_CLOEXEC);
    int bad = raise_fd(&e->log);
    for (int i = 0; i < 2; i++) {
        bad |= raise_fd(&e->request[i]) | raise_fd(&e->answer[i]) | raise_fd(&e->status[i]);
    }
    return bad == 0 && fcntl(e->log, F_SETFL, O_APPEND) == 0 ? 0 : -1;
}

/* Between fork and exec: calls that are safe after a fork of a process with threads. */
__attribute__((noreturn)) static void become(const struct bench_command *command,
                                             const struct ends *e, int script, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(127);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    int bad = dup2(e->request[1], STDIN_FILENO) < 0 || dup2(e->answer[1], STDOUT_FILENO) < 0 ||
              dup2(e->log, STDERR_FILENO) < 0 || (script >= 0 && dup2(script, 3) < 0);
    /* Where the kernel is too old, our own descriptors still close, as each was opened for. */
    close_range(script >= 0 ? 4 : 3, ~0U, CLOSE_RANGE_CLOEXEC);
    if (!bad) {
        execve(command->program, command->argv, command->environment);
    }
    int code = errno;
    ssize_t n = write(e->status[1], &code, sizeof code);
    _exit(n == sizeof code ? 127 : 126);
}

int bench_process_start(struct bench_process *process, const struct bench_command *command,
                        char *error, size_t size)
{
    *process = (struct bench_process){.requests = -1, .answers = -1, .log = -1};
    struct ends e;
    int script = command->script >= 0 ? fcntl(command->script, F_DUPFD_CLOEXEC, FIRST_FD) : -1;
    pid_t parent = getpid(), pid = -1;
    if (open_ends(&e) == 0 && (script >= 0 || command->script < 0)) {
        pid = fork();
    }
    if (pid == 0) {
        become(command, &e, script, parent);
    }
    int code = errno;
    close_fd(&script);
    if (pid < 0) {
        close_ends(&e);
        snprintf(error, size, "can't start a process: %s", strerror(code));
        return -1;
    }
    setpgid(pid, pid); /* the child does it too; whoever comes first */
    close_fd(&e.request[1]);
    close_fd(&e.answer[1]);
    close_fd(&e.status[1]);
    *process = (struct bench_process){
        .pid = pid, .requests = e.request[0], .answers = e.answer[0], .log = e.log};
    ssize_t n;
    do {
        n = read(e.status[0], &code, sizeof code);
    } while (n < 0 && errno == EINTR);
    close_fd(&e.status[0]);
    if (n != 0) {
        bench_process_end(process, 0, NULL, 0);
        bench_process_free(process);
        snprintf(error, size, "can't start %s: %s", command->program,
                 n == sizeof code ? strerror(code) : "unknown reason");
        return -1;
    }
    return 0;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void describe_end(const siginfo_t *info, char *how, size_t size)
{
    if (info->si_code == CLD_EXITED) {
        snprintf(how, size, "exited with status %d", info->si_status);
    } else {
        const char *name = sigabbrev_np(info->si_status);
        snprintf(how, size, "killed by SIG%s (%s)", name != NULL ? name : "?",
                 strsignal(info->si_status));
    }
}

/* Whether it ended within so many milliseconds; it stays a zombie, so that its group is its own. */
static int ended_within(pid_t pid, int ms, siginfo_t *info)
{
    double end = bench_now() + 1e-3 * ms;
    for (;;) {
        memset(info, 0, sizeof *info);
        if (waitid(P_PID, (id_t)pid, info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno != EINTR) {
            return 1; /* not our child any more */
        }
        if (info->si_pid != 0) {
            return 1;
        }
        if (bench_now() >= end) {
            return 0;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

void bench_process_end(struct bench_process *process, int politely, char *how, size_t size)
{
    if (process->pid <= 0) {
        return;
    }
    siginfo_t info;
    close_fd(&process->requests);
    bench_process_resume(process);
    if (!ended_within(process->pid, politely ? GRACE_MS : 0, &info)) {
        kill(-process->pid, SIGKILL);
        kill(process->pid, SIGKILL);
        while (waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
        }
    }
    kill(-process->pid, SIGKILL); /* what it may have started itself */
    if (how != NULL) {
        describe_end(&info, how, size);
    }
    while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    process->pid = 0;
}

void bench_process_free(struct bench_process *process)
{
    close_fd(&process->requests);
    close_fd(&process->answers);
    close_fd(&process->log);
    free(process->buffer);
    *process = (struct bench_process){.requests = -1, .answers = -1, .log = -1};
}

void bench_process_pause(struct bench_process *process)
{
    siginfo_t info;
    if (process->pid <= 0) {
        return;
    }
    kill(-process->pid, SIGSTOP);
    while (waitid(P_PID, (id_t)process->pid, &info, WSTOPPED | WEXITED | WNOWAIT) != 0 &&
           errno == EINTR) {
    }
}

void bench_process_resume(struct bench_process *process)
{
    if (process->pid > 0) {
        kill(-process->pid, SIGCONT);
    }
}

/* ---- talking --------------------------------------------------------------------------------- */

int bench_process_send(struct bench_process *process, const char *text, size_t size)
{
    struct stat log;
    if (fstat(process->log, &log) == 0 && log.st_size > LOG_LIMIT &&
        ftruncate(process->log, 0) != 0) {
        return -1;
    }
    for (size_t done = 0; done < size;) {
        ssize_t n = send(process->requests, text + done, size - done, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Reads what has come: its size, 0 at the end, -1 where there is no room. */
static ssize_t read_more(struct bench_process *process)
{
    if (process->used + 1 >= process->room) {
        size_t room = process->room > 0 ? 2 * process->room : 1024;
        char *buffer = room <= LINE_LIMIT ? realloc(process->buffer, room) : NULL;
        if (buffer == NULL) {
            return -1;
        }
        process->buffer = buffer;
        process->room = room;
    }
    ssize_t n;
    do {
        n = read(process->answers, process->buffer + process->used,
                 process->room - process->used - 1);
    } while (n < 0 && errno == EINTR);
    process->used += n > 0 ? (size_t)n : 0;
    return n;
}

/* A complete line at the start of the buffer, as a string; NULL: none. */
static const char *complete_line(struct bench_process *process)
{
    char *end = process->used > 0 ? memchr(process->buffer, '\n', process->used) : NULL;
    if (end == NULL) {
        return NULL;
    }
    *end = '\0';
    process->taken = (size_t)(end - process->buffer) + 1;
    return process->buffer;
}

int bench_process_receive(struct bench_process *process, double timeout, const char **line)
{
    if (process->taken > 0) {
        process->used -= process->taken;
        memmove(process->buffer, process->buffer + process->taken, process->used);
        process->taken = 0;
    }
    double end = bench_now() + timeout;
    while ((*line = complete_line(process)) == NULL) {
        double left = end - bench_now();
        if (left <= 0.0) {
            return -1;
        }
        /* Looks at the process now and then: a child of its own may keep the pipe open. */
        struct pollfd ready = {.fd = process->answers, .events = POLLIN};
        int n = poll(&ready, 1, left < 0.5 ? (int)(1e3 * left) + 1 : 500);
        siginfo_t info;
        if (n > 0 ? read_more(process) <= 0 : ended_within(process->pid, 0, &info)) {
            return -2;
        }
    }
    return 0;
}

void bench_process_last_words(const struct bench_process *process, char *text, size_t size)
{
    char tail[TAIL];
    struct stat log;
    text[0] = '\0';
    if (process->log < 0 || fstat(process->log, &log) != 0 || log.st_size == 0) {
        return;
    }
    off_t from = log.st_size > TAIL ? log.st_size - TAIL : 0;
    ssize_t n = pread(process->log, tail, sizeof tail, from);
    size_t end = n > 0 ? (size_t)n : 0;
    while (end > 0 && (tail[end - 1] == '\n' || tail[end - 1] == ' ')) {
        end--;
    }
    size_t start = end, used = 0;
    for (int lines = 0; start > 0; start--) {
        lines += tail[start - 1] == '\n';
        if (lines == LAST_WORDS || end - start + 4 * LAST_WORDS >= size) {
            break;
        }
    }
    for (size_t i = start; i < end && used + 4 < size; i++) {
        unsigned char c = (unsigned char)tail[i];
        if (c == '\n') {
            used += (size_t)snprintf(text + used, size - used, " | ");
        } else {
            text[used++] = c >= 0x20 && c < 0x7f ? (char)c : '?';
        }
    }
    text[used] = '\0';
}
