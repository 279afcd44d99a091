/* Text in and out, and continuing it: the trained model that the project carries. */
#include "check.h"
#include "model_file.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>

#define CHARS "runtime/models/t2-chars"
#define LENGTH 16 /* max_length of that model */
#define SYMBOLS 25

static t2_model *model;
static t2_session *session;
static t2_vocab *vocab;

static void open_chars(const char *dir)
{
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_model_open(dir, 0, &model, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_session_create(model, LENGTH, &session, &err), T2_OK, "%s", err.message);
    cr_assert_eq(t2_vocab_open(CHARS, SYMBOLS, &vocab, &err), T2_OK, "%s", err.message);
}

static void start(void)
{
    temp_dir_make();
    open_chars(CHARS);
}

static void finish(void)
{
    t2_vocab_close(vocab);
    t2_session_destroy(session);
    t2_model_close(model);
    temp_dir_remove();
}

TestSuite(generate, .init = start, .fini = finish, .timeout = 600);

/* The continuation of a prompt as text, in `answer`; the rest of the arguments is in *args. */
static t2_status continue_text(t2_generate_args *args, const char *prompt, char answer[64])
{
    static int64_t ids[LENGTH + 8], tokens[64];
    int64_t count = 0;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_vocab_encode(vocab, prompt, ids, LENGTH + 8, &args->prompt_length, &err), T2_OK,
                 "%s", err.message);
    args->size = sizeof *args;
    args->prompt = ids;
    args->tokens = tokens;
    args->count = &count;
    args->expert = T2_EXPERT_AUTO;
    t2_status status = t2_generate(session, args, &err);
    answer[0] = '\0';
    for (int64_t i = 0; i < count; i++) {
        strcat(answer, t2_vocab_decode(vocab, tokens[i]));
    }
    return status;
}

/* ---- vocabulary ----------------------------------------------------------------------------- */

Test(generate, encoding)
{
    static const int64_t expected[] = {24, 7, 10, 2, 11, 1};
    int64_t ids[16], count = 0;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_vocab_encode(vocab, "A47+8=", ids, 16, &count, &err), T2_OK);
    cr_assert_eq(count, 6);
    for (int i = 0; i < 6; i++) {
        cr_expect_eq(ids[i], expected[i]);
    }
    cr_expect_eq(t2_vocab_encode(vocab, "A47+8=", NULL, 0, &count, &err), T2_OK);
    cr_expect_eq(count, 6);
    cr_expect_eq(t2_vocab_encode(vocab, "A47+8=", ids, 5, &count, &err), T2_ERR_ARG);
    cr_expect_eq(t2_vocab_encode(vocab, "", ids, 16, &count, &err), T2_OK);
    cr_expect_eq(count, 0);
    cr_expect_eq(t2_vocab_encode(vocab, "R\xc3\xa4=", ids, 16, &count, &err), T2_ERR_ARG);
    cr_expect_not_null(strstr(err.message, "'\xc3\xa4' (U+00E4), character 2 of the text"), "%s",
                       err.message);
    cr_expect_eq(t2_vocab_encode(vocab, "R\xc3", ids, 16, &count, &err), T2_ERR_ARG);
    cr_expect_not_null(strstr(err.message, "byte 1"), "%s", err.message);
    cr_expect_eq(t2_vocab_end(vocab), 0);
    cr_expect_str_eq(t2_vocab_decode(vocab, 24), "A");
    cr_expect_null(t2_vocab_decode(vocab, 25));
    cr_expect_null(t2_vocab_decode(vocab, -1));
}

Test(generate, vocabularies)
{
    static const struct {
        const char *text;
        t2_status status;
        const char *part;
    } cases[] = {
        {"{\"kind\": \"char\", \"vocab\": {\"\\u20ac\": 1, \"b\": 7}}", T2_OK, ""},
        {"{\"kind\": \"bpe\", \"vocab\": {\"a\": 1}}", T2_ERR_FORMAT, "kind"},
        {"{\"kind\": \"char\"}", T2_ERR_FORMAT, "vocab"},
        {"{\"kind\": \"char\", \"vocab\": {\"ab\": 1}}", T2_ERR_FORMAT, "one character"},
        {"{\"kind\": \"char\", \"vocab\": {\"\": 1}}", T2_ERR_FORMAT, "one character"},
        {"{\"kind\": \"char\", \"vocab\": {\"a\": 1, \"b\": 1}}", T2_ERR_FORMAT, "no other"},
        {"{\"kind\": \"char\", \"vocab\": {\"a\": 8}}", T2_ERR_FORMAT, "'a'"},
        {"{\"kind\": \"char\", \"vocab\": {\"a\": -1}}", T2_ERR_FORMAT, "'a'"},
        {"{\"kind\": \"char\", \"vocab\": {\"a\": \"1\"}}", T2_ERR_FORMAT, "'a'"},
        {"{\"kind\": \"char\", \"vocab\": {\"a\": 1}, \"end\": \"b\"}", T2_ERR_FORMAT, "end"},
        {"{\"kind\": \"char\", \"vocab\": {\"a\": 1}, \"end\": \"aa\"}", T2_ERR_FORMAT, "end"},
    };
    t2_error err = {T2_OK, ""};
    t2_vocab *made = NULL;
    cr_expect_eq(t2_vocab_open(temp_dir, 8, &made, &err), T2_ERR_IO);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model_file_text(temp_dir, "vocab.json", cases[i].text);
        t2_status status = t2_vocab_open(temp_dir, 8, &made, &err);
        cr_expect_eq(status, cases[i].status, "%s: %s", cases[i].text, err.message);
        if (status == T2_OK) {
            int64_t id = 0, count = 0;
            cr_expect_eq(t2_vocab_encode(made, "\xe2\x82\xac", &id, 1, &count, &err), T2_OK);
            cr_expect_eq(id, 1);
            cr_expect_eq(t2_vocab_end(made), -1);
            t2_vocab_close(made);
        } else {
            cr_expect_not_null(strstr(err.message, cases[i].part), "%s: %s", cases[i].text,
                               err.message);
        }
    }
}

/* ---- greedy --------------------------------------------------------------------------------- */

/* The reference implementation's logits at the "=" sign, and what it continues with (PyTorch,
 * greedy; two of the four answers are wrong, as the model is half-trained). */
Test(generate, reference_logits_and_answers)
{
    static const char *const answers[] = {"aggah;", "1248;", "fbhcdf;", "075;"};
    json_t *root = json_load_file(CHARS "/golden.json", 0, NULL);
    const json_t *row;
    size_t i;
    cr_assert_eq(json_array_size(root), 4);
    json_array_foreach(root, i, row)
    {
        const char *prompt = json_string_value(json_object_get(row, "prompt"));
        const json_t *expected = json_object_get(row, "logits_at_equals_sign");
        float logits[SYMBOLS];
        int64_t ids[LENGTH], count = 0;
        t2_error err = {T2_OK, ""};
        cr_assert_eq(t2_vocab_encode(vocab, prompt, ids, LENGTH, &count, &err), T2_OK);
        t2_forward_args args = {.size = sizeof args,
                                .ids = ids,
                                .length = count,
                                .items = 1,
                                .mask = {.kind = T2_MASK_CAUSAL},
                                .expert = T2_EXPERT_AUTO,
                                .first = count - 1,
                                .logits = logits};
        cr_assert_eq(t2_forward(session, &args, &err), T2_OK, "%s", err.message);
        for (size_t j = 0; j < SYMBOLS; j++) {
            cr_expect_float_eq((double)logits[j], json_number_value(json_array_get(expected, j)),
                               2e-5, "%s, symbol %zu", prompt, j);
        }
        t2_stop stop = T2_STOP_COUNT;
        int experts[3] = {-1, -1, -1};
        char answer[64];
        t2_generate_args generate = {.max_new = 9, .end = 0, .stop = &stop, .experts = experts};
        cr_assert_eq(continue_text(&generate, prompt, answer), T2_OK);
        cr_expect_str_eq(answer, answers[i], "%s", prompt);
        cr_expect_eq(stop, T2_STOP_END);
        for (int layer = 0; layer < 3; layer++) {
            cr_expect(experts[layer] >= 0 && experts[layer] < 3);
        }
    }
    json_decref(root);
}

/* Held-out prompts of each task. PyTorch is right on just as many of this list; on 2000 prompts of
 * each task it is right on 78, 64, 93 and 29 %. */
Test(generate, held_out_accuracy)
{
    static const struct {
        char task;
        int prompts, right;
    } tasks[] = {{'R', 200, 154}, {'S', 200, 126}, {'C', 200, 185}, {'A', 157, 45}};
    int seen[4] = {0}, right[4] = {0};
    char line[128], answer[64];
    FILE *file = fopen(CHARS "/heldout.tsv", "r");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *prompt = strchr(line, '\t') + 1, *expected = strchr(prompt, '\t');
        *expected++ = '\0';
        int task = 0;
        while (tasks[task].task != line[0]) {
            task++;
            cr_assert_lt(task, 4, "%s", line);
        }
        t2_generate_args args = {.max_new = 9};
        cr_assert_eq(continue_text(&args, prompt, answer), T2_OK, "%s", prompt);
        seen[task]++;
        right[task] += strcmp(answer, expected) == 0;
    }
    fclose(file);
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(seen[i], tasks[i].prompts);
        cr_expect_eq(right[i], tasks[i].right, "%c: %d", tasks[i].task, right[i]);
    }
}

/* ---- stopping ------------------------------------------------------------------------------- */

static int stop_at(void *arg, int64_t token, int64_t position)
{
    int64_t *limit = arg;
    cr_expect(token >= 0 && token < SYMBOLS);
    cr_expect_eq(position, 7 + limit[1]);
    limit[1]++;
    return limit[1] == limit[0];
}

Test(generate, stopping)
{
    char answer[64];
    t2_stop stop = T2_STOP_END;
    t2_generate_args args = {.max_new = 3, .end = -1, .stop = &stop};
    cr_assert_eq(continue_text(&args, "Rhagga=", answer), T2_OK);
    cr_expect_str_eq(answer, "agg");
    cr_expect_eq(stop, T2_STOP_COUNT);
    args.max_new = 0;
    cr_assert_eq(continue_text(&args, "Rhagga=", answer), T2_OK);
    cr_expect_str_eq(answer, "");
    cr_expect_eq(stop, T2_STOP_COUNT);
    args.max_new = 60;
    cr_assert_eq(continue_text(&args, "Rhagga=", answer), T2_OK);
    cr_expect_eq(strlen(answer), LENGTH - 7);
    cr_expect_eq(stop, T2_STOP_LENGTH);
    int64_t limit[2] = {2, 0};
    args.on_token = stop_at;
    args.on_token_arg = limit;
    cr_assert_eq(continue_text(&args, "Rhagga=", answer), T2_OK);
    cr_expect_str_eq(answer, "ag");
    cr_expect_eq(stop, T2_STOP_CALLBACK);
    args.on_token = NULL;
    cr_assert_eq(continue_text(&args, "R1234567890=gaa=", answer), T2_OK);
    cr_expect_str_eq(answer, "");
    cr_expect_eq(stop, T2_STOP_LENGTH);
    cr_expect_eq(continue_text(&args, "R1234567890=gaa=;", answer), T2_ERR_ARG);
    cr_expect_eq(continue_text(&args, "", answer), T2_ERR_ARG);
    args.max_new = -1;
    cr_expect_eq(continue_text(&args, "R", answer), T2_ERR_ARG);
    args.max_new = INT64_MAX;
    args.temperature = NAN;
    cr_expect_eq(continue_text(&args, "R", answer), T2_ERR_ARG);
}

/* ---- sampling ------------------------------------------------------------------------------- */

/* The first token over many samples has the softmax's frequencies at the given temperature. */
Test(generate, samples_follow_the_distribution)
{
    enum { SAMPLES = 3000 };
    static const double temperatures[] = {0.5, 1.0, 3.0};
    float logits[SYMBOLS];
    int64_t ids[8], count = 0;
    t2_error err = {T2_OK, ""};
    cr_assert_eq(t2_vocab_encode(vocab, "A47+8=", ids, 8, &count, &err), T2_OK);
    t2_forward_args forward = {.size = sizeof forward,
                               .ids = ids,
                               .length = count,
                               .items = 1,
                               .mask = {.kind = T2_MASK_CAUSAL},
                               .expert = T2_EXPERT_AUTO,
                               .first = count - 1,
                               .logits = logits};
    cr_assert_eq(t2_forward(session, &forward, &err), T2_OK);
    for (int t = 0; t < 3; t++) {
        int seen[SYMBOLS] = {0};
        double total = 0.0;
        for (uint32_t sample = 0; sample < SAMPLES; sample++) {
            int64_t token = -1;
            t2_generate_args args = {.size = sizeof args,
                                     .prompt = ids,
                                     .prompt_length = count,
                                     .max_new = 1,
                                     .end = -1,
                                     .temperature = temperatures[t],
                                     .seed = 17,
                                     .sample = sample,
                                     .expert = T2_EXPERT_AUTO,
                                     .threads = 1,
                                     .tokens = &token};
            cr_assert_eq(t2_generate(session, &args, &err), T2_OK, "%s", err.message);
            cr_assert(token >= 0 && token < SYMBOLS);
            seen[token]++;
        }
        for (int i = 0; i < SYMBOLS; i++) {
            total += exp((double)logits[i] / temperatures[t]);
        }
        for (int i = 0; i < SYMBOLS; i++) {
            double p = exp((double)logits[i] / temperatures[t]) / total;
            double sigma = sqrt(p * (1.0 - p) * SAMPLES);
            cr_expect_leq(fabs(seen[i] - p * SAMPLES), 4.5 * sigma + 1.0,
                          "symbol %d at temperature %g: %d of %g", i, temperatures[t], seen[i],
                          p * SAMPLES);
        }
    }
}

/* A draw is named by seed, step, prompt and sample; threads have no part in it. */
Test(generate, sampling_is_seeded)
{
    char first[64], again[64];
    t2_generate_args args = {.max_new = 9, .end = -1, .temperature = 5.0, .seed = 1, .threads = 1};
    cr_assert_eq(continue_text(&args, "Cabhcde=", first), T2_OK);
    cr_expect_eq(strlen(first), 8);
    for (args.threads = 2; args.threads <= 4; args.threads++) {
        cr_assert_eq(continue_text(&args, "Cabhcde=", again), T2_OK);
        cr_expect_str_eq(again, first);
    }
    t2_generate_args others[4] = {args, args, args, args};
    others[0].seed = 2;
    others[1].step = 1;
    others[2].prompt_index = 1;
    others[3].sample = 1;
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(continue_text(&others[i], "Cabhcde=", again), T2_OK);
        cr_expect_str_neq(again, first, "%d", i);
    }
}

/* ---- logits that are not finite ------------------------------------------------------------- */

static float poison;

static int set_bias(t2_tensor *tensor)
{
    ((float *)(uintptr_t)tensor->data)[3] = poison;
    return 1;
}

/* The trained model with one value in the bias of its logits. */
static void poisoned(float value)
{
    t2_config config = *t2_model_config(model);
    t2_error err = {T2_OK, ""};
    t2_session_destroy(session);
    t2_model_close(model);
    t2_vocab_close(vocab);
    cr_assert_eq(t2_init_model(temp_dir, &config, 4, &err), T2_OK);
    poison = value;
    model_file_change(temp_dir, "fc_out.bias", set_bias);
    open_chars(temp_dir);
}

Test(generate, logits_that_are_not_finite)
{
    char answer[64];
    t2_generate_args greedy = {.max_new = 2, .end = -1};
    t2_generate_args sampled = {.max_new = 2, .end = -1, .temperature = 1.0};
    poisoned(NAN);
    cr_expect_eq(continue_text(&greedy, "R", answer), T2_ERR_NUMERIC);
    cr_expect_eq(continue_text(&sampled, "R", answer), T2_ERR_NUMERIC);
    poisoned(INFINITY);
    cr_expect_eq(continue_text(&greedy, "R", answer), T2_OK);
    cr_expect_str_eq(answer, "00");
    cr_expect_eq(continue_text(&sampled, "R", answer), T2_ERR_NUMERIC);
    poisoned(-INFINITY);
    for (uint32_t sample = 0; sample < 300; sample++) {
        sampled.sample = sample;
        sampled.temperature = 50.0;
        cr_expect_eq(continue_text(&sampled, "R", answer), T2_OK);
        cr_expect_null(strchr(answer, '0'), "a token of probability 0 was drawn");
    }
}
