/* t2 eval: greedy accuracy of a character model on a list of prompts and answers. */
#include "cli.h"
#include "input.h"
#include "options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TASKS 64
#define TASK_NAME 32
#define MAX_TOKENS 1024 /* of a prompt or an answer */

static const char help[] =
    "usage: t2 eval MODEL --tasks FILE [OPTIONS]\n\n"
    "Answers every prompt of FILE greedily and counts the answers that match to the last\n"
    "character. FILE has one line an item: task, prompt and answer, separated by tabs; an answer\n"
    "includes the end symbol. A task's name is its first field.\n\n"
    "  --tasks FILE      the list\n"
    "  --show K          print the first K items of each task (0)\n"
    "  --expert auto|I   as in t2 run (auto)\n"
    "  --threads N       exactly N threads\n"
    "  --json            one JSON object on standard output\n"
    "  --help            this text\n";

struct task {
    char name[TASK_NAME];
    long items, right;
};

struct eval {
    const char *model_dir, *list;
    t2_model *model;
    t2_session *session;
    t2_vocab *vocab;
    int *experts;
    int64_t expert, threads, show;
    int json;
    struct task tasks[MAX_TASKS];
    int task_count;
    t2_error err;
};

static struct task *task_named(struct eval *e, const char *name)
{
    for (int i = 0; i < e->task_count; i++) {
        if (strcmp(e->tasks[i].name, name) == 0) {
            return &e->tasks[i];
        }
    }
    if (e->task_count == MAX_TASKS || strlen(name) >= TASK_NAME) {
        return NULL;
    }
    struct task *task = &e->tasks[e->task_count++];
    memset(task, 0, sizeof *task);
    snprintf(task->name, sizeof task->name, "%s", name);
    return task;
}

static void show_item(const struct eval *e, const struct task *task, const char *prompt,
                      const int64_t *tokens, int64_t count, const char *answer, int right)
{
    printf("%-8s %-12s ", task->name, prompt);
    for (int64_t i = 0; i < count; i++) {
        fputs(t2_cli_token_text(e->vocab, tokens[i]), stdout);
    }
    printf("  %s", right ? "right" : "wrong, expected ");
    printf("%s  experts", right ? "" : answer);
    int64_t layers = t2_model_config(e->model)->num_layers;
    for (int64_t i = 0; i < layers; i++) {
        printf(" %d", e->experts[i]);
    }
    printf("\n");
}

/* -1, or the exit code of a failure. */
static int answer_item(struct eval *e, struct task *task, const char *prompt, const char *answer)
{
    int64_t ids[MAX_TOKENS], want[MAX_TOKENS], got[MAX_TOKENS], length, expected, count = 0;
    if (t2_vocab_encode(e->vocab, prompt, ids, MAX_TOKENS, &length, &e->err) != T2_OK ||
        t2_vocab_encode(e->vocab, answer, want, MAX_TOKENS, &expected, &e->err) != T2_OK) {
        return t2_cli_error(&e->err);
    }
    t2_generate_args args = {.size = sizeof args,
                             .prompt = ids,
                             .prompt_length = length,
                             .max_new = expected,
                             .end = t2_vocab_end(e->vocab),
                             .expert = e->expert,
                             .threads = (int)e->threads,
                             .tokens = got,
                             .count = &count,
                             .experts = e->experts};
    if (t2_generate(e->session, &args, &e->err) != T2_OK) {
        return t2_cli_error(&e->err);
    }
    int right = count == expected && memcmp(got, want, (size_t)count * sizeof got[0]) == 0;
    if (task->items < e->show && !e->json) {
        show_item(e, task, prompt, got, count, answer, right);
    }
    task->items++;
    task->right += right;
    return -1;
}

/* One line of the list: task, prompt, answer. -1, or the exit code of a failure. */
static int answer_line(struct eval *e, char *line, long number)
{
    line[strcspn(line, "\r")] = '\0';
    if (line[0] == '\0') {
        return -1;
    }
    char *prompt = strchr(line, '\t');
    char *answer = prompt != NULL ? strchr(prompt + 1, '\t') : NULL;
    if (answer == NULL || answer[1] == '\0' || answer == prompt + 1) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "%s: line %ld: expected task, prompt and answer with tabs between",
                           e->list, number);
    }
    *prompt++ = '\0';
    *answer++ = '\0';
    struct task *task = task_named(e, line);
    if (task == NULL) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "%s: line %ld: more than %d tasks, or a name of more than %d bytes",
                           e->list, number, MAX_TASKS, TASK_NAME - 1);
    }
    return answer_item(e, task, prompt, answer);
}

static int answer_list(struct eval *e)
{
    char *text = NULL;
    size_t size = 0;
    if (cli_file_read(e->list, &text, &size, &e->err) != T2_OK) {
        return t2_cli_error(&e->err);
    }
    int code = -1;
    if (memchr(text, '\0', size) != NULL) {
        code = t2_cli_fail(T2_EXIT_USAGE, "%s: holds a NUL, so it is no text", e->list);
    }
    long number = 1;
    for (char *line = text; code < 0 && *line != '\0'; number++) {
        size_t length = strcspn(line, "\n");
        char *next = line + length + (line[length] == '\n');
        line[length] = '\0';
        code = answer_line(e, line, number);
        line = next;
    }
    free(text);
    return code;
}

static void report(const struct eval *e, double seconds)
{
    long items = 0, right = 0;
    if (e->json) {
        printf("{\"isa\":\"%s\",\"tasks\":{", t2k_isa_name());
    }
    for (int i = 0; i < e->task_count; i++) {
        const struct task *t = &e->tasks[i];
        if (e->json) {
            printf("%s", i > 0 ? "," : "");
            t2_cli_json_string(stdout, t->name);
            printf(":{\"items\":%ld,\"right\":%ld}", t->items, t->right);
        } else {
            printf("%-8s %4ld of %4ld right: accuracy %.2f\n", t->name, t->right, t->items,
                   (double)t->right / (double)t->items);
        }
        items += t->items;
        right += t->right;
    }
    if (e->json) {
        printf("},\"items\":%ld,\"right\":%ld,\"seconds\":%.6g}\n", items, right, seconds);
    }
    fflush(stdout);
    fprintf(stderr, "isa %s: %ld prompts in %.2f s\n", t2k_isa_name(), items, seconds);
}

/* -1 when the command should go on, else the exit code. */
static int parse(int argc, char **argv, struct eval *e)
{
    enum { OPT_TASKS = 256, OPT_SHOW, OPT_EXPERT, OPT_THREADS, OPT_JSON };
    static const struct option options[] = {
        {"tasks", required_argument, NULL, OPT_TASKS},
        {"show", required_argument, NULL, OPT_SHOW},
        {"expert", required_argument, NULL, OPT_EXPERT},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        int ok = 1;
        switch (c) {
        case OPT_TASKS:
            e->list = optarg;
            break;
        case OPT_SHOW:
            ok = t2_cli_int(optarg, 0, INT32_MAX, &e->show);
            break;
        case OPT_EXPERT:
            ok = run_options_expert(optarg, &e->expert);
            break;
        case OPT_THREADS:
            ok = t2_cli_int(optarg, 1, T2_CLI_MAX_THREADS, &e->threads);
            break;
        case OPT_JSON:
            e->json = 1;
            break;
        case 'h':
            fputs(help, stdout);
            return T2_EXIT_OK;
        default:
            return t2_cli_bad_option("eval", argv, c);
        }
        if (!ok) {
            return t2_cli_bad_value("eval", argv);
        }
    }
    if (argc - optind != 1 || e->list == NULL) {
        return t2_cli_fail(T2_EXIT_USAGE,
                           "eval: expected one model folder and --tasks; see 't2 eval --help'");
    }
    e->model_dir = argv[optind];
    return -1;
}

static int open_model(struct eval *e)
{
    if (t2_model_open(e->model_dir, 0, &e->model, &e->err) != T2_OK) {
        return t2_cli_error(&e->err);
    }
    const t2_config *config = t2_model_config(e->model);
    if (config->mask != T2_MODEL_MASK_CAUSAL) {
        return t2_cli_fail(T2_EXIT_MODEL, "%s: t2 eval needs a causal model", e->model_dir);
    }
    e->experts = malloc(((size_t)config->num_layers + 1) * sizeof(int));
    if (e->experts == NULL) {
        return t2_cli_fail(T2_EXIT_MEMORY, "out of memory");
    }
    if (t2_vocab_open(e->model_dir, config->vocab_size, &e->vocab, &e->err) != T2_OK ||
        t2_session_create(e->model, 0, &e->session, &e->err) != T2_OK) {
        return t2_cli_error(&e->err);
    }
    return -1;
}

int t2_cli_eval(int argc, char **argv)
{
    struct eval e = {.expert = T2_EXPERT_AUTO};
    int code = parse(argc, argv, &e);
    if (code < 0) {
        code = open_model(&e);
        double start = t2_cli_now();
        if (code < 0) {
            code = answer_list(&e);
        }
        if (code < 0) {
            report(&e, t2_cli_now() - start);
            code = T2_EXIT_OK;
        }
    }
    t2_session_destroy(e.session);
    t2_vocab_close(e.vocab);
    t2_model_close(e.model);
    free(e.experts);
    return code;
}
