/* The serving side of the workers' protocol (docs/benchmarks.md): one contender in C, one request
 * at a time. */
#define _GNU_SOURCE /* getline, F_DUPFD_CLOEXEC */
#include "contender.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LIBRARIES = 8, MAX_THREADS = 65536 };

/* A problem that was opened. */
struct served {
    struct served *next_served;
    json_int_t id;
    struct problem p;
    char *model_dir, *isa; /* NULL: none given */
    struct bench_arena arena;
    void **states;  /* (arena.copies), NULL where not open */
    int copy;       /* whose turn it is */
    double fastest; /* call_slowed: seconds of a call; 0: unknown */
};

struct worker {
    const struct contender *contender;
    const char *name;
    struct served *served;
};

/* ---- answers --------------------------------------------------------------------------------- */

/* Texts of libraries need not be UTF-8, which JSON asks for. */
static json_t *text_json(const char *text)
{
    json_t *json = json_string(text);
    char *plain = json == NULL ? strdup(text) : NULL;
    for (char *c = plain; c != NULL && *c != '\0'; c++) {
        *c = (unsigned char)*c < 0x80 ? *c : '?';
    }
    if (plain != NULL) {
        json = json_string(plain);
        free(plain);
    }
    return json;
}

static json_t *refusal(const char *kind, const char *text)
{
    return json_pack("{s:b, s:o}", "ok", 0, kind, text_json(text));
}

static json_t *failed_call(const struct worker *w, const char *what, int status)
{
    char text[160];
    if (w->contender->explain != NULL) {
        snprintf(text, sizeof text, "%s: %s", what, w->contender->explain(status));
    } else {
        snprintf(text, sizeof text, "%s: status %d", what, status);
    }
    return refusal("error", text);
}

static int send_line(int fd, json_t *answer)
{
    char *text = answer != NULL ? json_dumps(answer, JSON_COMPACT) : NULL;
    json_decref(answer);
    if (text == NULL) {
        return -1;
    }
    size_t size = strlen(text), done = 0;
    text[size++] = '\n'; /* in place of the final '\0' */
    while (done < size) {
        ssize_t n = write(fd, text + done, size - done);
        if (n < 0 && errno != EINTR) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    free(text);
    return done == size ? 0 : -1;
}

/* ---- faults for tests ------------------------------------------------------------------------ */

/* Whether CONTENDER:OP[:...] in `text` means this case; *rest is what follows. */
static int names_case(const struct worker *w, const struct served *s, const char *text,
                      const char **rest)
{
    const char *op = text != NULL ? strchr(text, ':') : NULL;
    if (op == NULL) {
        return 0;
    }
    size_t contender = (size_t)(op++ - text), length = strcspn(op, ":");
    *rest = op + length;
    char full[80];
    int n = snprintf(full, sizeof full, "%s-%s", w->name, s->isa != NULL ? s->isa : "");
    int by_name = strlen(w->name) == contender && memcmp(text, w->name, contender) == 0;
    int by_isa = s->isa != NULL && (size_t)n == contender && memcmp(text, full, contender) == 0;
    int by_op = (length == 1 && op[0] == '*') ||
                (strlen(s->p.op->name) == length && memcmp(op, s->p.op->name, length) == 0);
    return (by_name || by_isa) && by_op;
}

static void inject_fault(const struct worker *w, const struct served *s)
{
    const char *rest;
    if (names_case(w, s, getenv("T2BENCH_FAULT"), &rest)) {
        const void *in[BENCH_INPUTS];
        float *out;
        bench_arena_operands(&s->p, &s->arena, 0, in, &out);
        float *element = &out[s->p.rows * s->p.cols * 2 / 3];
        *element += 1.0f + fabsf(*element);
    }
}

/* By how many percent the calls of this case are to be slowed down; 0: not at all. */
static double slow_percent(const struct worker *w, const struct served *s)
{
    const char *rest;
    if (!names_case(w, s, getenv("T2BENCH_SLOW"), &rest) || rest[0] != ':') {
        return 0.0;
    }
    double percent = strtod(rest + 1, NULL);
    return percent > 0.0 ? percent : 0.0;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void free_served(const struct worker *w, struct served *s)
{
    for (int c = 0; s->states != NULL && c < s->arena.copies; c++) {
        if (s->states[c] != NULL) {
            if (w->contender->enter != NULL) {
                w->contender->enter(s->states[c]);
            }
            w->contender->close(s->states[c]);
        }
    }
    free(s->states);
    if (s->arena.base != NULL) {
        bench_arena_release(&s->arena);
    }
    free(s->model_dir);
    free(s->isa);
    free(s);
}

static struct served *find_served(const struct worker *w, json_int_t id)
{
    struct served *s = w->served;
    while (s != NULL && s->id != id) {
        s = s->next_served;
    }
    return s;
}

/* What an open request says, beside what follows from the operation and its shape. */
struct open_request {
    const char *op, *shape, *operands, *arena;
    json_t *isa, *model_dir;
    int copies;
    json_int_t bytes;
};

/* Fills the problem and maps the operands: 0, or -1 with a text. */
static int map_problem(struct served *s, const struct open_request *r, char *error, size_t size)
{
    if (bench_problem(&s->p, r->op, r->shape, error, size) != 0) {
        return -1;
    }
    if (json_is_string(r->isa)) {
        s->isa = strdup(json_string_value(r->isa));
    }
    if (json_is_string(r->model_dir)) {
        s->model_dir = strdup(json_string_value(r->model_dir));
        s->p.model_dir = s->model_dir;
    }
    int operands = 0;
    while (operands < BENCH_OPERANDS && strcmp(bench_operands_name[operands], r->operands) != 0) {
        operands++;
    }
    if (operands == BENCH_OPERANDS || r->copies < 1) {
        snprintf(error, size,
                 "operands %.40s, %d copies: expected hot, cold-weights or cold-all "
                 "and at least 1",
                 r->operands, r->copies);
        return -1;
    }
    struct bench_arena layout;
    bench_arena_layout(&s->p, (enum bench_operands)operands, r->copies, &layout);
    if ((json_int_t)layout.bytes != r->bytes) {
        snprintf(error, size, "arena: expected %zu bytes, found %lld", layout.bytes,
                 (long long)r->bytes);
        return -1;
    }
    return bench_arena_map(&s->p, (enum bench_operands)operands, r->copies, r->arena, &s->arena,
                           error, size);
}

/* One state per copy: 0, 1 or -1 as contender->open. */
static int open_states(const struct worker *w, struct served *s, char *error, size_t size)
{
    s->states = calloc((size_t)s->arena.copies, sizeof *s->states);
    if (s->states == NULL) {
        snprintf(error, size, "out of memory");
        return -1;
    }
    int status = 0;
    for (int c = 0; c < s->arena.copies && status == 0; c++) {
        const void *in[BENCH_INPUTS];
        float *out;
        bench_arena_operands(&s->p, &s->arena, c, in, &out);
        status = w->contender->open(&s->p, s->isa, in, out, &s->states[c], error, size);
    }
    return status;
}

static json_t *do_open(struct worker *w, json_t *request)
{
    struct open_request r = {0};
    json_int_t id;
    json_error_t wrong;
    if (json_unpack_ex(request, &wrong, 0, "{s:I, s:s, s:s, s:s, s:i, s:s, s:I, s?o, s?o}", "id",
                       &id, "op", &r.op, "shape", &r.shape, "operands", &r.operands, "copies",
                       &r.copies, "arena", &r.arena, "bytes", &r.bytes, "isa", &r.isa, "model_dir",
                       &r.model_dir) != 0) {
        return refusal("error", wrong.text);
    }
    if (find_served(w, id) != NULL) {
        return refusal("error", "this id is open already");
    }
    struct served *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return refusal("error", "out of memory");
    }
    s->id = id;
    char error[512] = "";
    int status = map_problem(s, &r, error, sizeof error);
    if (status == 0) {
        status = open_states(w, s, error, sizeof error);
    }
    if (status != 0) {
        free_served(w, s);
        return refusal(status > 0 ? "unsupported" : "error", error);
    }
    s->next_served = w->served;
    w->served = s;
    return json_pack("{s:b}", "ok", 1);
}

static json_t *do_close(struct worker *w, struct served *s)
{
    struct served **link = &w->served;
    while (*link != s) {
        link = &(*link)->next_served;
    }
    *link = s->next_served;
    free_served(w, s);
    return json_pack("{s:b}", "ok", 1);
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* `calls` calls going round over the copies; what the failed ones returned, or 0. */
static int call(const struct worker *w, struct served *s, int64_t calls)
{
    int (*run)(void *) = w->contender->run;
    void *const *states = s->states;
    int copies = s->arena.copies, copy = s->copy, status = 0;
    for (int64_t i = 0; i < calls; i++) {
        status |= run(states[copy]);
        copy = copy + 1 < copies ? copy + 1 : 0;
    }
    s->copy = copy;
    return status;
}

/* The same, each call (or few calls, where they are so short that reading the clock would count)
 * followed by as much idle spinning as makes it slower by that many percent. Time that other
 * programs took away in between is not to be made longer too: more than half again as much as the
 * fastest calls took does not count. */
static int call_slowed(const struct worker *w, struct served *s, int64_t calls, double percent)
{
    static const double long_enough = 20e-6;
    int status = 0;
    int64_t some = 1, done = 0;
    while (done < calls && status == 0) {
        some = some < calls - done ? some : calls - done;
        double start = bench_now();
        status = call(w, s, some);
        double now = bench_now(), seconds = (now - start) / (double)some;
        if (s->fastest == 0.0 || seconds < s->fastest) {
            s->fastest = seconds;
        }
        double counts = fmin(seconds, 1.5 * s->fastest) * (double)some;
        double end = now + counts * percent / 100.0;
        while (bench_now() < end) {
        }
        done += some;
        some *= now - start < long_enough ? 2 : 1;
    }
    return status;
}

static json_t *do_run(const struct worker *w, struct served *s)
{
    double start = bench_now();
    int status = w->contender->run(s->states[0]);
    double seconds = bench_now() - start;
    if (status == 0 && w->contender->store != NULL) {
        status = w->contender->store(s->states[0]);
    }
    if (status != 0) {
        return failed_call(w, "the call failed", status);
    }
    inject_fault(w, s);
    return json_pack("{s:b, s:f}", "ok", 1, "seconds", seconds);
}

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static json_t *do_time(const struct worker *w, struct served *s, json_t *request)
{
    json_int_t calls;
    double warm = 0.0;
    json_error_t wrong;
    if (json_unpack_ex(request, &wrong, 0, "{s:I, s?F}", "calls", &calls, "warm_seconds", &warm) !=
        0) {
        return refusal("error", wrong.text);
    }
    if (calls < 1) {
        return refusal("error", "calls: expected at least 1");
    }
    bench_arena_populate(&s->arena);
    int status = 0;
    for (double end = bench_now() + warm; warm > 0.0 && status == 0 && bench_now() < end;) {
        status = call(w, s, 1);
    }
    if (status != 0) {
        return failed_call(w, "a warm-up call failed", status);
    }
    double percent = slow_percent(w, s);
    double cpu = cpu_now(), start = bench_now();
    status = percent > 0.0 ? call_slowed(w, s, calls, percent) : call(w, s, calls);
    double seconds = bench_now() - start;
    cpu = cpu_now() - cpu;
    if (status != 0) {
        return failed_call(w, "a timed call failed", status);
    }
    return json_pack("{s:b, s:f, s:f}", "ok", 1, "seconds", seconds, "cpu", cpu);
}

/* ---- the service ----------------------------------------------------------------------------- */

static json_t *answer(struct worker *w, const char *line, size_t size)
{
    json_error_t wrong;
    json_t *request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &wrong);
    if (request == NULL) {
        char text[256];
        snprintf(text, sizeof text, "not a request: %s", wrong.text);
        return refusal("error", text);
    }
    const char *what;
    json_int_t id;
    json_t *reply;
    if (json_unpack_ex(request, &wrong, 0, "{s:s, s:I}", "do", &what, "id", &id) != 0) {
        reply = refusal("error", wrong.text);
    } else if (strcmp(what, "open") == 0) {
        reply = do_open(w, request);
    } else {
        struct served *s = find_served(w, id);
        int status = 0;
        if (s == NULL) {
            reply = refusal("error", "this id is not open");
        } else if (strcmp(what, "close") == 0) {
            reply = do_close(w, s);
        } else if (w->contender->enter != NULL &&
                   (status = w->contender->enter(s->states[0])) != 0) {
            reply = failed_call(w, "the case can't be resumed", status);
        } else if (strcmp(what, "run") == 0) {
            reply = do_run(w, s);
        } else if (strcmp(what, "time") == 0) {
            reply = do_time(w, s, request);
        } else {
            reply = refusal("error", "do: expected open, run, time or close");
        }
    }
    json_decref(request);
    return reply;
}

static const struct contender *find_contender(const char *adapter)
{
    return strcmp(adapter, "t2k") == 0      ? &contender_t2k
           : strcmp(adapter, "cblas") == 0  ? &contender_cblas
           : strcmp(adapter, "onednn") == 0 ? &contender_onednn
                                            : NULL;
}

/* Loads the first library that will do; the greeting. */
static json_t *greet(struct worker *w, const char *adapter, const char *const *libraries,
                     int threads)
{
    char error[1024] = "", version[128] = "";
    size_t used = 0;
    w->contender = find_contender(adapter);
    if (w->contender == NULL) {
        snprintf(error, sizeof error, "adapter %.40s: expected t2k, cblas or onednn", adapter);
        return refusal("error", error);
    }
    for (int i = 0; i == 0 || libraries[i] != NULL; i++) {
        char reason[512] = "";
        if (w->contender->load(libraries[i], threads, version, sizeof version, reason,
                               sizeof reason) == 0) {
            return json_pack("{s:b, s:o, s:i}", "ok", 1, "version", text_json(version), "threads",
                             threads);
        }
        int n = snprintf(error + used, sizeof error - used, "%s%s", i > 0 ? "; " : "", reason);
        used += n > 0 && (size_t)n < sizeof error - used ? (size_t)n : 0;
    }
    w->contender = NULL;
    return refusal("error", error);
}

/* Libraries may write to stdout or read from stdin: they get stderr and nothing. */
static int take_over(int fd, int replacement)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return own >= 0 && replacement >= 0 && dup2(replacement, fd) == fd ? own : -1;
}

int bench_worker(const char *adapter, const char *name, const char *const *libraries, int threads)
{
    struct worker w = {.name = name};
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int in = take_over(STDIN_FILENO, nothing), out = take_over(STDOUT_FILENO, STDERR_FILENO);
    FILE *requests = in >= 0 && out >= 0 ? fdopen(in, "r") : NULL;
    if (requests == NULL) {
        fprintf(stderr, "t2bench worker: stdin, stdout: %s\n", strerror(errno));
        return 1;
    }
    int status = send_line(out, greet(&w, adapter, libraries, threads));
    char *line = NULL;
    size_t room = 0;
    while (w.contender != NULL && status == 0) {
        ssize_t size = getline(&line, &room, requests);
        if (size < 0) {
            break;
        }
        status = send_line(out, answer(&w, line, (size_t)size));
    }
    while (w.served != NULL) {
        do_close(&w, w.served);
    }
    free(line);
    fclose(requests);
    close(out);
    close(nothing);
    return w.contender != NULL && status == 0 ? 0 : 1;
}

int worker_main(int argc, char **argv)
{
    const char *adapter = NULL, *name = NULL, *libraries[MAX_LIBRARIES + 1] = {NULL};
    int count = 0, bad = argc % 2 == 0;
    long threads = 0;
    for (int i = 1; i + 1 < argc && !bad; i += 2) {
        if (strcmp(argv[i], "--adapter") == 0) {
            adapter = argv[i + 1];
        } else if (strcmp(argv[i], "--name") == 0) {
            name = argv[i + 1];
        } else if (strcmp(argv[i], "--library") == 0 && count < MAX_LIBRARIES) {
            libraries[count++] = argv[i + 1];
        } else if (strcmp(argv[i], "--threads") == 0) {
            char *end;
            threads = strtol(argv[i + 1], &end, 10);
            bad = *end != '\0';
        } else {
            bad = 1;
        }
    }
    int needs_library = adapter != NULL && strcmp(adapter, "t2k") != 0;
    if (bad || adapter == NULL || name == NULL || threads < 1 || threads > MAX_THREADS ||
        (needs_library && count == 0)) {
        fprintf(stderr, "usage: t2bench worker --adapter t2k|cblas|onednn --name NAME "
                        "[--library LIBRARY ...] --threads N\n");
        return 2;
    }
    return bench_worker(adapter, name, libraries, (int)threads);
}
