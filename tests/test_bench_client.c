/* The parent's side of the benchmark's workers, against scripts that misbehave. */
#define _GNU_SOURCE /* getpgid */
#include "client.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char error[1024];

static void set_up(void)
{
    temp_dir_make();
    unsetenv("T2BENCH_FAULT");
    unsetenv("T2BENCH_SLOW");
    alarm(120);
}

TestSuite(client, .init = set_up, .fini = temp_dir_remove);

/* ---- workers that are scripts ---------------------------------------------------------------- */

#define GREET "printf '{\"ok\":true,\"version\":\"%s\",\"threads\":1}\\n' $$\n"
#define SAY(text) "printf '%s\\n' '" text "'\n"
#define FOREVER "while :; do sleep 1; done\n"

/* Starts a shell script as a worker. */
static struct client *start(const char *name, const char *script)
{
    const char *path = temp_path(name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fprintf(file, "#!/bin/sh\n%s", script);
    fclose(file);
    chmod(path, 0755);
    error[0] = '\0';
    return client_start(bench_peer_against(), path, 1, error, sizeof error);
}

/* The scripts' versions are their process ids. */
static pid_t pid_of(const struct client *client)
{
    return (pid_t)atol(client_version(client));
}

/* 'R', 'S', 'T', ... as /proc tells; 0: there is no such process. */
static int state_of(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    const char *end = n > 0 ? strrchr(text, ')') : NULL;
    return end != NULL ? end[2] : 0;
}

static int gone(pid_t pid)
{
    for (int i = 0; i < 500; i++) {
        int state = state_of(pid);
        if (state == 0 || state == 'Z') {
            return 1;
        }
        usleep(10000);
    }
    return 0;
}

static void expect_error(const char *part)
{
    cr_expect_not_null(strstr(error, part), "expected \"%s\" in \"%s\"", part, error);
}

static int run_once(struct client *client)
{
    double seconds;
    error[0] = '\0';
    return client_run(client, 1, &seconds, error, sizeof error);
}

Test(client, greeting_with_an_error)
{
    cr_expect_null(start("w", SAY("{\"ok\":false,\"error\":\"no such library\"}")));
    expect_error("no such library");
}

Test(client, other_number_of_threads)
{
    cr_expect_null(start("w", SAY("{\"ok\":true,\"version\":\"1\",\"threads\":4}") FOREVER));
    expect_error("works on 4 threads, not on 1");
}

Test(client, no_such_program)
{
    cr_expect_null(client_start(bench_peer_against(), "/nowhere/t2bench", 1, error, sizeof error));
    expect_error("/nowhere/t2bench: No such file or directory");
}

Test(client, program_that_ends_at_once)
{
    cr_expect_null(start("w", "echo line one >&2\necho what went wrong >&2\nexit 3\n"));
    expect_error("exited with status 3");
    expect_error("line one | what went wrong");
}

Test(client, greeting_that_is_no_answer)
{
    cr_expect_null(start("w", "echo Welcome to libfoo\n" FOREVER));
    expect_error("found \"Welcome to libfoo\"");
    cr_expect_null(start("w", SAY("[1, 2]") FOREVER));
    expect_error("found \"[1, 2]\"");
    cr_expect_null(start("w", "head -c 3000000 /dev/zero | tr '\\0' x\n" FOREVER));
}

Test(client, greeting_that_does_not_come)
{
    client_timeout = 0.3;
    double begin = bench_now();
    cr_expect_null(start("w", "echo $$ > \"$0.pid\"\n" FOREVER));
    double took = bench_now() - begin;
    expect_error("no answer within 0.3 s");
    cr_expect(took >= 0.3 && took < 30.0, "it took %g s", took);
    FILE *file = fopen(temp_path("w.pid"), "r");
    long pid = 0;
    cr_assert(file != NULL && fscanf(file, "%ld", &pid) == 1);
    fclose(file);
    cr_expect(gone((pid_t)pid), "process %ld still runs", pid);
}

/* A worker that dies is an error of its own cases alone. */
Test(client, crash)
{
    struct client *good =
        start("good", GREET "while read r; do " SAY("{\"ok\":true,\"seconds\":1}") "done\n");
    struct client *bad = start("bad", GREET "read r\necho oops >&2\nkill -SEGV $$\n");
    cr_assert(good != NULL && bad != NULL, "%s", error);
    cr_expect_eq(run_once(bad), -1);
    expect_error("run: killed by SIGSEGV");
    expect_error("oops");
    cr_expect_not(client_alive(bad));
    cr_expect_eq(run_once(bad), -1);
    expect_error("run: killed by SIGSEGV");
    cr_expect_eq(run_once(good), 0, "%s", error);
    cr_expect(client_alive(good));
    client_stop(bad);
    client_stop(good);
}

Test(client, answer_that_does_not_come)
{
    struct client *client = start("w", GREET "read r\n" FOREVER);
    cr_assert_not_null(client, "%s", error);
    pid_t pid = pid_of(client);
    client_timeout = 0.2;
    cr_expect_eq(run_once(client), -1);
    expect_error("run: no answer within 0.2 s");
    cr_expect_not(client_alive(client));
    cr_expect(gone(pid));
    client_stop(client);
}

Test(client, answers_that_are_refusals)
{
    struct client *client = start(
        "w",
        GREET "read r\n" SAY("{\"ok\":false,\"unsupported\":\"no\"}") "read r\n" SAY(
            "{\"ok\":false,\"error\":\"bad luck\"}") "read r\n" SAY("{\"ok\":true,\"seconds\":"
                                                                    "0.5}") "read r\n" SAY("{\""
                                                                                           "ok"
                                                                                           "\":"
                                                                                           "tru"
                                                                                           "e}")
            FOREVER);
    cr_assert_not_null(client, "%s", error);
    struct problem p;
    struct bench_arena arena;
    int id;
    cr_assert_eq(bench_problem(&p, "relu", "64", error, sizeof error), 0, "%s", error);
    bench_arena_layout(&p, BENCH_HOT, 1, &arena);
    snprintf(arena.path, sizeof arena.path, "/proc/self/fd/0");
    cr_expect_eq(client_open(client, &p, NULL, BENCH_HOT, &arena, &id, error, sizeof error), 1);
    cr_expect_str_eq(error, "no");
    cr_expect_eq(run_once(client), -1);
    cr_expect_str_eq(error, "bad luck");
    cr_expect(client_alive(client));
    cr_expect_eq(run_once(client), 0, "%s", error);
    cr_expect_eq(run_once(client), -1);
    expect_error("the answer has no time");
    cr_expect_not(client_alive(client));
    client_stop(client);
}

Test(client, answer_in_pieces)
{
    struct client *client =
        start("w", GREET "read r\nprintf '{\"ok\":true,'\nsleep 0.2\nprintf '\"seconds\":'\n"
                         "sleep 0.2\necho '0.25}'\nread r\n");
    cr_assert_not_null(client, "%s", error);
    double seconds = 0.0;
    cr_expect_eq(client_run(client, 1, &seconds, error, sizeof error), 0, "%s", error);
    cr_expect_eq(seconds, 0.25);
    client_stop(client);
}

/* A child of its own may keep the pipe open when a worker dies. */
Test(client, death_behind_an_open_pipe)
{
    struct client *client = start("w", GREET "sleep 1000 &\nread r\nexit 5\n");
    cr_assert_not_null(client, "%s", error);
    double begin = bench_now();
    cr_expect_eq(run_once(client), -1);
    expect_error("run: exited with status 5");
    cr_expect_lt(bench_now() - begin, 20.0);
    client_stop(client);
}

static const char serving[] = GREET "while read r; do " SAY("{\"ok\":true,\"seconds\":1}") "done\n";

Test(client, only_one_runs)
{
    struct client *client[3];
    const char *names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        client[i] = start(names[i], serving);
        cr_assert_not_null(client[i], "%s", error);
    }
    for (int turn = 0; turn < 12; turn++) {
        int who = turn * 7 % 3;
        cr_assert_eq(run_once(client[who]), 0, "%s", error);
        for (int i = 0; i < 3; i++) {
            int stopped = state_of(pid_of(client[i])) == 'T';
            cr_expect_eq(stopped, i != who, "turn %d of %d: %d is stopped: %d", turn, who, i,
                         stopped);
        }
    }
    client_pause();
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(state_of(pid_of(client[i])), 'T');
    }
    cr_expect_eq(run_once(client[1]), 0, "%s", error);
    pid_t pid[3];
    for (int i = 0; i < 3; i++) {
        pid[i] = pid_of(client[i]);
        client_stop(client[i]);
        cr_expect(gone(pid[i]), "%d still runs", i);
    }
}

/* Its children get the stop too, and die with it. */
Test(client, children_of_a_worker)
{
    struct client *a =
        start("a", "sleep 1000 &\necho $! > \"$0.pid\"\n" GREET "trap '' TERM\nread r\n" FOREVER);
    struct client *b = start("b", serving);
    cr_assert(a != NULL && b != NULL, "%s", error);
    FILE *file = fopen(temp_path("a.pid"), "r");
    long child = 0;
    cr_assert(file != NULL && fscanf(file, "%ld", &child) == 1);
    fclose(file);
    cr_expect_eq(run_once(b), 0, "%s", error);
    cr_expect_eq(state_of((pid_t)child), 'T');
    pid_t pid = pid_of(a);
    client_stop(a);
    cr_expect(gone(pid) && gone((pid_t)child));
    client_stop(b);
}

/* Ctrl-C reaches the foreground group: a worker is in another. */
Test(client, group_of_its_own)
{
    struct client *client = start("w", serving);
    cr_assert_not_null(client, "%s", error);
    cr_expect_eq(getpgid(pid_of(client)), pid_of(client));
    cr_expect_neq(getpgid(0), pid_of(client));
    client_stop(client);
}

static void ignore_signal(int number)
{
    (void)number;
}

Test(client, signals_do_not_cut_a_wait_short)
{
    struct client *client =
        start("w", GREET "read r\nsleep 0.5\n" SAY("{\"ok\":true,\"seconds\":1}") "read r\n");
    cr_assert_not_null(client, "%s", error);
    struct sigaction action = {.sa_handler = ignore_signal};
    sigaction(SIGVTALRM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    pid_t sender = fork();
    if (sender == 0) {
        for (int i = 0; i < 100; i++) {
            kill(getppid(), SIGUSR1);
            usleep(10000);
        }
        _exit(0);
    }
    cr_expect_eq(run_once(client), 0, "%s", error);
    client_stop(client);
    kill(sender, SIGKILL);
    waitpid(sender, NULL, 0);
}

/* Even a stopped worker must not outlive a parent that is killed. */
Test(client, death_of_the_parent)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct client *client = start("w", serving);
        client_pause();
        pid_t pid = client != NULL ? pid_of(client) : 0;
        ssize_t n = write(ends[1], &pid, sizeof pid);
        kill(getpid(), n == sizeof pid ? SIGKILL : SIGABRT);
    }
    pid_t pid = 0;
    cr_assert_eq(read(ends[0], &pid, sizeof pid), (ssize_t)sizeof pid);
    waitpid(parent, NULL, 0);
    cr_assert_gt(pid, 0);
    cr_expect(gone(pid));
}

Test(client, environment)
{
    setenv("OMP_NUM_THREADS", "7", 1);
    setenv("MKL_CBWR", "AVX2", 1);
    setenv("T2BENCH_TEST", "kept", 1);
    struct client *client =
        start("w", "printf '{\"ok\":true,\"version\":\"%s,%s,%s,%s\",\"threads\":1}\\n' "
                   "\"$OMP_NUM_THREADS\" \"$BLIS_NUM_THREADS\" \"$MKL_CBWR\" \"$T2BENCH_TEST\"\n"
                   "read r\n");
    cr_assert_not_null(client, "%s", error);
    cr_expect_str_eq(client_version(client), "1,1,,kept");
    client_stop(client);
}

/* Nothing of ours stays open in a worker but the three standard descriptors. */
Test(client, descriptors)
{
    int leak = open("/dev/null", O_RDONLY); /* without close-on-exec, as other code may leave it */
    cr_assert_geq(leak, 0);
    struct client *client =
        start("w", "printf '{\"ok\":true,\"version\":\"%s\",\"threads\":1}\\n' "
                   "\"$(ls -l /proc/$$/fd | grep -c -e /dev/null -e t2bench-)\"\nread r\n");
    cr_assert_not_null(client, "%s", error);
    cr_expect_str_eq(client_version(client), "1"); /* its stderr */
    client_stop(client);
    close(leak);
}

/* What it writes to stderr is kept in memory, but not without end. */
Test(client, chatter_on_stderr)
{
    struct client *client =
        start("w", GREET "for i in 1 2 3 4; do read r; head -c 3000000 /dev/zero | tr '\\0' y >&2\n"
                         "echo >&2\necho \"call $i\" >&2\n" SAY(
                             "{\"ok\":true,\"seconds\":1}") "done\n"
                                                            "read r\nstat -L -c 'log of %s bytes' "
                                                            "/proc/$$/fd/2 >&2\nkill -9 $$\n");
    cr_assert_not_null(client, "%s", error);
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(run_once(client), 0, "%s", error);
    }
    cr_expect_eq(run_once(client), -1);
    expect_error("killed by SIGKILL");
    expect_error("log of 0 bytes");
    client_stop(client);
}

/* ---- where contenders are found -------------------------------------------------------------- */

static void make_file(const char *name, int mode)
{
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file, "%s", name);
    fclose(file);
    chmod(name, (mode_t)mode);
}

Test(client, peers_that_are_present)
{
    struct bench_peer library = {.name = "x", .adapter = "cblas", .libraries = "libt2none.so.9"};
    struct bench_peer script = {
        .name = "y", .adapter = "torch_worker --compile", .libraries = "t2none t2other"};
    setenv("T2BENCH_PEERS", temp_dir, 1);
    cr_expect_not(bench_peer_present(&library, error, sizeof error));
    cr_expect_str_eq(error, "not installed: libt2none.so.9; make peers installs it");
    cr_expect_not(bench_peer_present(&script, error, sizeof error));
    cr_expect_str_eq(error, "not installed: Python module t2none; make peers installs it");

    char path[2200];
    snprintf(path, sizeof path, "%s/lib", temp_dir);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/lib/libt2none.so.9", temp_dir);
    make_file(path, 0644);
    cr_expect(bench_peer_present(&library, error, sizeof error), "%s", error);
    unlink(path);
    setenv("LD_LIBRARY_PATH", temp_dir, 1);
    make_file(temp_path("libt2none.so.9"), 0644);
    cr_expect(bench_peer_present(&library, error, sizeof error), "%s", error);
    cr_expect(bench_peer_present(&bench_peers[0], error, sizeof error), "%s", error);

    const char *parts[] = {"bin", "lib/python3.99", "lib/python3.99/site-packages",
                           "lib/python3.99/site-packages/t2none"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", temp_dir, parts[i]);
        mkdir(path, 0755);
    }
    snprintf(path, sizeof path, "%s/bin/python", temp_dir);
    make_file(path, 0755);
    cr_expect_not(bench_peer_present(&script, error, sizeof error));
    expect_error("t2other");
    snprintf(path, sizeof path, "rm -r '%s/bin' '%s/lib'", temp_dir, temp_dir);
    cr_expect_eq(system(path), 0);
}

Test(client, table_of_peers)
{
    cr_expect_str_eq(bench_peers[0].name, "t2k");
    cr_expect_null(bench_peers[bench_peer_count].name);
    for (int i = 0; i < bench_peer_count; i++) {
        cr_expect_eq(bench_peer_find(bench_peers[i].name), &bench_peers[i]);
    }
    cr_expect_null(bench_peer_find("against"));
    cr_expect(bench_against_is_t2bench("/opt/my.software/t2bench"));
    cr_expect_not(bench_against_is_t2bench("/opt/t2/libopenblas.so.0"));
    cr_expect_not(bench_against_is_t2bench("libopenblas.so"));
}

/* The scripts are in the program; what Python says reaches the user. */
Test(client, script_without_its_library)
{
    if (access("/usr/bin/python3", X_OK) != 0) {
        cr_skip_test("no /usr/bin/python3");
    }
    FILE *file = fopen(temp_path("numpy.py"), "w");
    fputs("raise ImportError('numpy is not itself')\n", file);
    fclose(file);
    setenv("PYTHONPATH", temp_dir, 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    setenv("T2BENCH_PEERS", "/nowhere", 1);
    struct bench_peer script = {.name = "torch", .adapter = "torch_worker"};
    cr_expect_null(client_start(&script, NULL, 1, error, sizeof error));
    expect_error("numpy is not itself (make peers installs what is missing)");
}
