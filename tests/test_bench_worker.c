/* The benchmark's worker: requests that are wrong, and faults that are injected on purpose against
 * the verification, for every operation and every contender that is here and needs no Python.
 *
 * This program is its own worker: with `worker` as its first argument it serves requests. */
#define _GNU_SOURCE /* memrchr */
#include "client.h"
#include "client_process.h"
#include "contender.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* glibc passes the arguments to constructors, which run before Criterion's main(). */
__attribute__((constructor)) static void serve(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0) {
        exit(worker_main(argc - 1, argv + 1));
    }
}

static char error[1024];

/* The environment of peers lies where t2bench looks for it: one folder above this one's. */
static void set_up(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (slash != NULL) {
        strcpy(slash, "/../../peers");
        setenv("T2BENCH_PEERS", path, 0);
    }
    unsetenv("T2BENCH_FAULT");
    unsetenv("T2BENCH_SLOW");
    alarm(300);
}

TestSuite(worker, .init = set_up);

/* ---- requests that are wrong ----------------------------------------------------------------- */

static const struct bench_peer own = {.name = "t2k", .adapter = "t2k"};

/* Talks to it without the client's help. */
struct talk {
    struct bench_process process;
};

static void talk_start(struct talk *talk)
{
    struct bench_command command;
    cr_assert_eq(bench_peer_command(&own, NULL, 1, &command, error, sizeof error), 0, "%s", error);
    cr_assert_eq(bench_process_start(&talk->process, &command, error, sizeof error), 0, "%s",
                 error);
    bench_command_free(&command);
}

static const char *talk_once(struct talk *talk, const char *request)
{
    const char *line = NULL;
    if (request != NULL) {
        cr_assert_eq(bench_process_send(&talk->process, request, strlen(request)), 0);
        cr_assert_eq(bench_process_send(&talk->process, "\n", 1), 0);
    }
    cr_assert_eq(bench_process_receive(&talk->process, 60.0, &line), 0, "after %s",
                 request != NULL ? request : "the start");
    return line;
}

Test(worker, wrong_requests)
{
    static const char *const requests[][2] = {
        {"", "not a request"},
        {"hello", "not a request"},
        {"[1]", "Expected object"},
        {"{\"do\":\"run\"}", "id"},
        {"{\"do\":\"run\",\"id\":\"x\"}", "Expected integer"},
        {"{\"do\":\"run\",\"id\":1}", "not open"},
        {"{\"do\":\"time\",\"id\":1,\"calls\":1}", "not open"},
        {"{\"do\":\"close\",\"id\":1}", "not open"},
        {"{\"do\":\"dance\",\"id\":1}", "not open"},
        {"{\"do\":\"open\",\"id\":1}", "op"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"nonsense\",\"shape\":\"8\",\"operands\":\"hot\","
         "\"copies\":1,\"arena\":\"/dev/null\",\"bytes\":1}",
         "nonsense"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"relu\",\"shape\":\"8x8\",\"operands\":\"hot\","
         "\"copies\":1,\"arena\":\"/dev/null\",\"bytes\":1}",
         "8x8"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"relu\",\"shape\":\"8\",\"operands\":\"tepid\","
         "\"copies\":1,\"arena\":\"/dev/null\",\"bytes\":1}",
         "tepid"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"relu\",\"shape\":\"8\",\"operands\":\"hot\","
         "\"copies\":0,\"arena\":\"/dev/null\",\"bytes\":1}",
         "copies"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"relu\",\"shape\":\"8\",\"operands\":\"hot\","
         "\"copies\":1,\"arena\":\"/dev/null\",\"bytes\":1}",
         "expected 8192 bytes, found 1"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"relu\",\"shape\":\"8\",\"operands\":\"hot\","
         "\"copies\":1,\"arena\":\"/dev/null\",\"bytes\":8192}",
         "/dev/null"},
        {"{\"do\":\"open\",\"id\":1,\"op\":\"relu\",\"shape\":\"8\",\"operands\":\"hot\","
         "\"copies\":1,\"arena\":\"/nowhere\",\"bytes\":8192}",
         "/nowhere"},
        {"\xff\xfe", "not a request"}};
    struct talk talk;
    talk_start(&talk);
    cr_expect_not_null(strstr(talk_once(&talk, NULL), "\"ok\":true"));
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        const char *answer = talk_once(&talk, requests[i][0]);
        cr_expect_not_null(strstr(answer, "\"ok\":false"), "%s: %s", requests[i][0], answer);
        cr_expect_not_null(strstr(answer, requests[i][1]), "%s: %s", requests[i][0], answer);
    }
    char how[96];
    bench_process_end(&talk.process, 1, how, sizeof how);
    cr_expect_str_eq(how, "exited with status 0");
    bench_process_free(&talk.process);
}

Test(worker, wrong_arguments)
{
    static char *arguments[][8] = {
        {"worker", NULL},
        {"worker", "--adapter", "t2k", NULL},
        {"worker", "--adapter", "t2k", "--name", "x", "--threads", "0", NULL},
        {"worker", "--adapter", "t2k", "--name", "x", "--threads", "two", NULL},
        {"worker", "--adapter", "t2k", "--name", "x", "--threads", NULL},
        {"worker", "--adapter", "cblas", "--name", "x", "--threads", "1", NULL},
        {"worker", "--frob", "t2k", "--name", "x", "--threads", "1", NULL}};
    cr_assert_not_null(freopen("/dev/null", "w", stderr));
    for (size_t i = 0; i < sizeof arguments / sizeof arguments[0]; i++) {
        int count = 0;
        while (arguments[i][count] != NULL) {
            count++;
        }
        cr_expect_eq(worker_main(count, arguments[i]), 2, "arguments %zu", i);
    }
}

/* ---- cases ----------------------------------------------------------------------------------- */

struct opened {
    struct problem p;
    struct bench_arena arena;
    struct bench_reference *reference;
    const void *in[BENCH_INPUTS];
    float *out;
};

static void open_problem(struct opened *o, const char *op, const char *shape,
                         enum bench_operands operands, int copies)
{
    cr_assert_eq(bench_problem(&o->p, op, shape, error, sizeof error), 0, "%s", error);
    if (strcmp(op, "model") == 0) {
        o->p.model_dir = bench_model_dir(error, sizeof error);
        cr_assert_not_null(o->p.model_dir, "%s", error);
    }
    cr_assert_eq(bench_arena_create(&o->p, operands, copies, &o->arena, error, sizeof error), 0,
                 "%s", error);
    bench_arena_operands(&o->p, &o->arena, 0, o->in, &o->out);
    o->reference = bench_reference_create(&o->p, o->in, error, sizeof error);
    cr_assert_not_null(o->reference, "%s", error);
}

static void close_problem(struct opened *o)
{
    bench_reference_destroy(o->reference);
    bench_arena_release(&o->arena);
}

/* Whether the result of one call holds: 1, 0, or -1 where the contender has no such call. */
static int right(struct client *client, struct opened *o, const char *isa, int strict)
{
    int id;
    double seconds;
    memset(o->out, 0xff, (size_t)(o->p.rows * o->p.cols) * sizeof *o->out);
    int status = client_open(client, &o->p, isa, BENCH_HOT, &o->arena, &id, error, sizeof error);
    if (status > 0) {
        return -1;
    }
    cr_assert_eq(status, 0, "%s %s: %s", o->p.op->name, o->p.shape, error);
    cr_assert_eq(client_run(client, id, &seconds, error, sizeof error), 0, "%s", error);
    status = bench_verify(o->reference, strict, o->out, error, sizeof error) == 0;
    client_close(client, id);
    return status;
}

static const char *const small[][2] = {{"sgemm", "33x17x65"},
                                       {"sgemm_nt", "9x31x40"},
                                       {"sgemm_tn", "31x9x40"},
                                       {"sgemm_tt", "5x70x33"},
                                       {"sgemm_packed", "7x66x130"},
                                       {"sgemm_fast", "7x66x130"},
                                       {"sgemm_bf16", "7x66x130"},
                                       {"sgemm_batched", "3x5x9x16"},
                                       {"svd_rebuild", "20x30x12"},
                                       {"svd_rebuild_dense", "20x30x12"},
                                       {"expert", "5x30x20"},
                                       {"expert_rows", "5x30x20"},
                                       {"expert_turns", "5x30x20"},
                                       {"expert_rebuild", "20x30x12"},
                                       {"attention", "9x2x3x16"},
                                       {"attention_causal", "9x2x3x16"},
                                       {"attention_decode", "2x9x2x3x16"},
                                       {"softmax", "7x33"},
                                       {"layer_norm", "7x33"},
                                       {"layer_norm_residual", "7x33"},
                                       {"rms_norm", "7x33"},
                                       {"rms_norm_residual", "7x33"},
                                       {"mean", "7x33"},
                                       {"embedding", "9x40"},
                                       {"scale_columns", "7x33"},
                                       {"exp", "130"},
                                       {"relu", "130"},
                                       {"gelu", "130"},
                                       {"gelu_tanh", "130"},
                                       {"silu", "130"},
                                       {"add", "130"},
                                       {"dropout", "130"},
                                       {"model", "2x3"}};
enum { SMALL = sizeof small / sizeof small[0] };

static struct client *start_peer(const struct bench_peer *peer)
{
    struct client *client = client_start(peer, NULL, 1, error, sizeof error);
    cr_assert_not_null(client, "%s: %s", peer->name, error);
    return client;
}

/* Every operation of a contender is right, and a fault in it is found. */
static void check_faults(const char *name)
{
    const struct bench_peer *peer = bench_peer_find(name);
    cr_assert_not_null(peer, "%s", name);
    if (!bench_peer_present(peer, error, sizeof error)) {
        cr_skip_test("%s: %s", name, error);
    }
    char fault[64];
    snprintf(fault, sizeof fault, "%s:*", name);
    struct client *good = start_peer(peer);
    setenv("T2BENCH_FAULT", fault, 1);
    struct client *bad = start_peer(peer);
    int ours = strcmp(name, "t2k") == 0, found = 0;
    for (int i = 0; i < SMALL; i++) {
        struct opened o;
        open_problem(&o, small[i][0], small[i][1], BENCH_HOT, 1);
        int result = right(good, &o, NULL, ours);
        cr_expect(result == 1 || (result == -1 && !ours), "%s %s: %s", name, small[i][0], error);
        if (result == 1) {
            int wrong = right(bad, &o, NULL, ours) == 0;
            cr_expect(wrong, "%s %s: the fault was not found", name, small[i][0]);
            found += wrong;
        }
        close_problem(&o);
    }
    cr_expect_gt(found, 0);
    client_stop(good);
    client_stop(bad);
}

static const char *const checked[] = {"t2k",   "openblas",       "blis",
                                      "mkl",   "mkl-cnr",        "onednn",
                                      "torch", "torch-compiled", "onnxruntime"};
enum { CHECKED = sizeof checked / sizeof checked[0] };

Test(worker, faults_of_t2k)
{
    check_faults("t2k");
}
Test(worker, faults_of_openblas)
{
    check_faults("openblas");
}
Test(worker, faults_of_blis)
{
    check_faults("blis");
}
Test(worker, faults_of_mkl)
{
    check_faults("mkl");
}
Test(worker, faults_of_mkl_cnr)
{
    check_faults("mkl-cnr");
}
Test(worker, faults_of_onednn)
{
    check_faults("onednn");
}
Test(worker, faults_of_torch)
{
    check_faults("torch");
}
Test(worker, faults_of_torch_compiled)
{
    check_faults("torch-compiled");
}
Test(worker, faults_of_onnxruntime)
{
    check_faults("onnxruntime");
}

Test(worker, all_operations_and_contenders_are_checked)
{
    for (int i = 0; bench_ops[i] != NULL; i++) {
        int listed = 0;
        for (int j = 0; j < SMALL; j++) {
            listed |= strcmp(bench_ops[i]->name, small[j][0]) == 0;
        }
        cr_expect(listed, "%s has no shape here", bench_ops[i]->name);
    }
    cr_expect_eq(bench_peer_count, CHECKED);
    for (int i = 0; i < CHECKED; i++) {
        cr_expect_not_null(bench_peer_find(checked[i]), "%s", checked[i]);
    }
}

/* A fault may be for one operation, or for one instruction set of ours. */
Test(worker, fault_of_one_isa)
{
    struct opened o;
    open_problem(&o, "sgemm", "33x17x65", BENCH_HOT, 1);
    static const struct {
        const char *fault, *isa;
        int right;
    } cases[] = {{"t2k-scalar:sgemm", "scalar", 0}, {"t2k-scalar:sgemm", NULL, 1},
                 {"t2k:sgemm", "scalar", 0},        {"t2k-scala:sgemm", "scalar", 1},
                 {"t2k-scalar:sgem", "scalar", 1},  {"t2k-scalar:sgemm_nt", "scalar", 1},
                 {"openblas:*", "scalar", 1},       {"t2k-scalar:*", "scalar", 0},
                 {"t2k-scalar", "scalar", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("T2BENCH_FAULT", cases[i].fault, 1);
        struct client *client = start_peer(&own);
        cr_expect_eq(right(client, &o, cases[i].isa, 1), cases[i].right, "%s: %s", cases[i].fault,
                     error);
        client_stop(client);
    }
    close_problem(&o);
}

/* States of several ISAs in one worker: each call runs on its own. */
Test(worker, instruction_sets_in_turn)
{
    struct opened o;
    struct client *client = start_peer(&own);
    double seconds, cpu;
    int ids[16] = {0}, count = 0;
    t2k_isa_info info;
    open_problem(&o, "sgemm_packed", "7x66x130", BENCH_HOT, 1);
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK && count < 16; i++) {
        int status = client_open(client, &o.p, info.name, BENCH_HOT, &o.arena, &ids[count], error,
                                 sizeof error);
        cr_expect_eq(status, info.usable ? 0 : 1, "%s: %s", info.name, error);
        count += status == 0;
    }
    cr_expect_eq(
        client_open(client, &o.p, "mmx", BENCH_HOT, &o.arena, &ids[count], error, sizeof error), 1);
    /* Weights packed by one ISA are refused by another: a call on the wrong one would fail. */
    for (int i = 0; i < 3 * count; i++) {
        memset(o.out, 0xff, (size_t)(o.p.rows * o.p.cols) * sizeof *o.out);
        cr_expect_eq(
            client_time(client, ids[i * 5 % count], 3, 0.0, &seconds, &cpu, error, sizeof error), 0,
            "%s", error);
        cr_expect_eq(bench_verify(o.reference, 1, o.out, error, sizeof error), 0, "%s", error);
    }
    client_stop(client);
    close_problem(&o);
}

/* Timed calls go round over the copies, also from one request to the next. */
Test(worker, copies_in_turn)
{
    struct opened o;
    struct client *client = start_peer(&own);
    enum { COPIES = 5 };
    open_problem(&o, "relu", "64", BENCH_COLD_ALL, COPIES);
    int id;
    double seconds, cpu;
    cr_assert_eq(
        client_open(client, &o.p, NULL, BENCH_COLD_ALL, &o.arena, &id, error, sizeof error), 0,
        "%s", error);
    for (int turn = 0; turn < 12; turn++) {
        float *out[COPIES];
        const void *in[BENCH_INPUTS];
        for (int c = 0; c < COPIES; c++) {
            bench_arena_operands(&o.p, &o.arena, c, in, &out[c]);
            out[c][0] = -1.0f; /* no result of relu */
        }
        cr_assert_eq(client_time(client, id, 2, 0.0, &seconds, &cpu, error, sizeof error), 0, "%s",
                     error);
        for (int c = 0; c < COPIES; c++) {
            int expected = c == 2 * turn % COPIES || c == (2 * turn + 1) % COPIES;
            cr_expect_eq(out[c][0] >= 0.0f, expected, "turn %d, copy %d", turn, c);
        }
    }
    client_stop(client);
    close_problem(&o);
}

/* The fastest of many short turns, taken alternately: some are not interrupted, however busy the
 * machine is. Returns slow / plain. */
static double slowdown(struct client *plain, struct client *slow, struct opened *o, int64_t calls)
{
    struct client *client[2] = {plain, slow};
    double best[2] = {1e9, 1e9}, seconds, cpu;
    int id[2];
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(
            client_open(client[i], &o->p, NULL, BENCH_HOT, &o->arena, &id[i], error, sizeof error),
            0, "%s", error);
    }
    for (int turn = 0; turn < 120; turn++) {
        int i = turn % 2;
        cr_assert_eq(
            client_time(client[i], id[i], calls, 1e-4, &seconds, &cpu, error, sizeof error), 0,
            "%s", error);
        best[i] = seconds < best[i] ? seconds : best[i];
    }
    client_close(plain, id[0]);
    client_close(slow, id[1]);
    return best[1] / best[0];
}

/* Long calls and calls far shorter than it takes to read the clock. */
Test(worker, slowed_calls)
{
    static const struct {
        const char *shape;
        int64_t calls;
    } cases[] = {{"256x256x256", 1}, {"4x4x4", 4000}};
    for (size_t i = 0; i < 2; i++) {
        struct opened o;
        open_problem(&o, "sgemm", cases[i].shape, BENCH_HOT, 1);
        unsetenv("T2BENCH_SLOW");
        struct client *plain = start_peer(&own);
        setenv("T2BENCH_SLOW", "t2k:sgemm:100", 1);
        struct client *slow = start_peer(&own);
        double ratio = 0.0;
        for (int attempt = 0; attempt < 5 && (ratio < 1.85 || ratio > 2.15); attempt++) {
            ratio = slowdown(plain, slow, &o, cases[i].calls);
        }
        cr_expect(ratio >= 1.85 && ratio <= 2.15, "%s: slowed by 100 %%, measured %.1f %%",
                  cases[i].shape, 100.0 * (ratio - 1.0));
        client_stop(plain);
        client_stop(slow);
        close_problem(&o);
    }
}

/* A library that prints must not get between the answers. */
Test(worker, stdout_is_kept_clean)
{
    struct bench_peer peer = {.name = "x", .adapter = "cblas", .libraries = "libc.so.6"};
    cr_expect_null(client_start(&peer, NULL, 1, error, sizeof error));
    cr_expect_not_null(strstr(error, "libc.so.6: no function cblas_sgemm"), "%s", error);
    struct talk talk;
    char link[64], target[256];
    talk_start(&talk);
    talk_once(&talk, NULL);
    for (int fd = 0; fd < 2; fd++) {
        snprintf(link, sizeof link, "/proc/%ld/fd/%d", (long)talk.process.pid, fd);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        cr_expect_not_null(strstr(target, fd == 0 ? "/dev/null" : "t2bench-stderr"), "%d is %s", fd,
                           target);
    }
    bench_process_end(&talk.process, 1, NULL, 0);
    bench_process_free(&talk.process);
}
