/* The machine's peaks, measured by a process of its own: `t2bench probe`. A program that was
 * started afresh, as a forked child could not use threads. Its stdout is the structure as bytes. */
#define _GNU_SOURCE /* pipe2 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* "a,b,c" of the chosen ISAs' names, of the numbers of threads. */
static void name_isas(const struct bench_options *o, char *text, size_t size)
{
    text[0] = '\0';
    for (int i = 0; i < o->isas; i++) {
        t2k_isa_info info;
        size_t used = strlen(text);
        if (t2k_isa_get(o->isa[i], &info) == T2K_OK) {
            snprintf(text + used, size - used, "%s%s", used > 0 ? "," : "", info.name);
        }
    }
}

static void name_threads(const struct bench_options *o, char *text, size_t size)
{
    text[0] = '\0';
    for (int i = 0; i < o->thread_counts; i++) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%d", used > 0 ? "," : "", o->threads[i]);
    }
}

static int read_all(int fd, void *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, (char *)data + done, size - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

void bench_probe_peaks(struct bench_run *run, double seconds)
{
    char isas[BENCH_CHOICES * 16], threads[BENCH_CHOICES * 8], text[32];
    char program[] = "t2bench", probe[] = "probe";
    name_isas(run->o, isas, sizeof isas);
    name_threads(run->o, threads, sizeof threads);
    snprintf(text, sizeof text, "%g", seconds);
    char *argv[] = {program, probe, text, isas, threads, NULL};
    int ends[2], status = -1;
    memset(&run->peaks, 0, sizeof run->peaks);
    pid_t pid = pipe2(ends, O_CLOEXEC) == 0 ? fork() : -1;
    if (pid == 0) {
        if (dup2(ends[1], STDOUT_FILENO) >= 0) {
            execv("/proc/self/exe", argv);
        }
        _exit(127);
    }
    if (pid > 0) {
        close(ends[1]);
        int failed = read_all(ends[0], &run->peaks, sizeof run->peaks);
        close(ends[0]);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        status = failed != 0 ? -1 : status;
    }
    if (status != 0 && !bench_interrupted()) {
        memset(&run->peaks, 0, sizeof run->peaks);
        fprintf(stderr, "t2bench: the machine's peaks could not be measured; no row has a limit\n");
    }
}

int bench_probe_main(int argc, char **argv)
{
    struct bench_peaks peaks = {.count = 0};
    const char *isa[BENCH_CHOICES + 1] = {NULL};
    int threads[BENCH_CHOICES], isas = 0, counts = 0;
    if (argc != 4) {
        return bench_usage_error("probe SECONDS ISA,... THREADS,...");
    }
    char *rest = NULL;
    for (char *name = strtok_r(argv[2], ",", &rest); name != NULL && isas < BENCH_CHOICES;
         name = strtok_r(NULL, ",", &rest)) {
        isa[isas++] = name;
    }
    for (char *name = strtok_r(argv[3], ",", &rest); name != NULL && counts < BENCH_CHOICES;
         name = strtok_r(NULL, ",", &rest)) {
        threads[counts++] = (int)strtol(name, NULL, 10);
    }
    bench_peaks_measure(isa, counts, threads, strtod(argv[1], NULL), &peaks);
    return fwrite(&peaks, sizeof peaks, 1, stdout) == 1 && fflush(stdout) == 0 ? 0 : 1;
}
