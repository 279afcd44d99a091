/* Rollouts: each against full passes and sampling done here, in whatever batch it stands. */
#include "check.h"
#include "model/sample.h"
#include "model_file.h"
#include "t2.h"
#include "t2k.h"
#include "temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>

#define CHARS "runtime/models/t2-chars"
enum { PROMPTS = 9, LONGEST = 16, SAMPLES = 3, NEW = 10, END = 0 };

struct world {
    t2_model *model;
    t2_session *session;
    int64_t V;
    t2_error err;
    int64_t prompt[PROMPTS][LONGEST], length[PROMPTS], row[PROMPTS];
    const t2_adaptation *adaptation;
    double temperature;
    int64_t expert;
    int64_t max_new;
};

/* What came of some prompts. */
struct outcome {
    int64_t tokens[PROMPTS][SAMPLES][NEW], lengths[PROMPTS][SAMPLES];
    double log_probs[PROMPTS][SAMPLES][NEW];
    t2_stop stops[PROMPTS][SAMPLES];
    uint64_t tag;
};

TestSuite(rollout, .init = temp_dir_make, .fini = temp_dir_remove, .timeout = 600);

static void open_world(struct world *w, const char *dir, struct rng *rng)
{
    memset(w, 0, sizeof *w);
    cr_assert_eq(t2_model_open(dir, 0, &w->model, &w->err), T2_OK, "%s", w->err.message);
    cr_assert_eq(t2_session_create(w->model, 0, &w->session, &w->err), T2_OK);
    w->V = t2_model_config(w->model)->vocab_size;
    w->temperature = 1.0;
    w->expert = T2_EXPERT_AUTO;
    w->max_new = NEW;
    for (int i = 0; i < PROMPTS; i++) {
        static const int64_t lengths[PROMPTS] = {6, 16, 6, 1, 12, 6, 15, 1, 7};
        w->length[i] = lengths[i];
        for (int j = 0; j < LONGEST; j++) {
            w->prompt[i][j] = (int64_t)rng_below(rng, (size_t)w->V);
        }
    }
}

static void close_world(struct world *w)
{
    t2_session_destroy(w->session);
    t2_model_close(w->model);
}

/* Prompts which[0] ... which[count - 1], each under its own index in the world. */
static t2_status roll(struct world *w, const int *which, int64_t count, int64_t samples,
                      int threads, struct outcome *o)
{
    int64_t prompts[PROMPTS * LONGEST], lengths[PROMPTS], rows[PROMPTS], at = 0;
    int64_t tokens[PROMPTS * SAMPLES * NEW], made[PROMPTS * SAMPLES];
    double log_probs[PROMPTS * SAMPLES * NEW];
    t2_stop stops[PROMPTS * SAMPLES];
    uint32_t index[PROMPTS];
    for (int64_t i = 0; i < count; i++) {
        lengths[i] = w->length[which[i]];
        rows[i] = w->row[which[i]];
        index[i] = (uint32_t)which[i];
        memcpy(prompts + at, w->prompt[which[i]], (size_t)lengths[i] * sizeof prompts[0]);
        at += lengths[i];
    }
    t2_rollout_args args = {.size = sizeof args,
                            .prompts = prompts,
                            .prompt_lengths = lengths,
                            .count = count,
                            .samples = samples,
                            .max_new = w->max_new,
                            .end = END,
                            .temperature = w->temperature,
                            .seed = 7,
                            .step = 2,
                            .prompt_index = index,
                            .expert = w->expert,
                            .adaptation = w->adaptation,
                            .expert_rows = w->adaptation != NULL ? rows : NULL,
                            .threads = threads,
                            .tokens = tokens,
                            .lengths = made,
                            .log_probs = log_probs,
                            .stops = stops,
                            .tag = &o->tag};
    t2_status status = t2_rollout(w->session, &args, &w->err);
    for (int64_t i = 0; i < count && status == T2_OK; i++) {
        for (int64_t s = 0; s < samples; s++) {
            size_t to = (size_t)which[i], from = (size_t)(i * samples + s);
            size_t new = (size_t)w->max_new;
            memcpy(o->tokens[to][s], tokens + from * new, new * sizeof tokens[0]);
            memcpy(o->log_probs[to][s], log_probs + from * new, new * sizeof log_probs[0]);
            o->lengths[to][s] = made[from];
            o->stops[to][s] = stops[from];
        }
    }
    return status;
}

/* Logits (V) behind the last of `length` ids, by a full pass. */
static void full_pass(struct world *w, const int64_t *ids, int64_t length, int64_t row,
                      float *logits)
{
    int64_t rows[LONGEST + NEW];
    for (int i = 0; i < LONGEST + NEW; i++) {
        rows[i] = row;
    }
    t2_forward_args args = {.size = sizeof args,
                            .ids = ids,
                            .length = length,
                            .items = 1,
                            .mask = {.kind = T2_MASK_CAUSAL},
                            .expert = w->expert,
                            .threads = 1,
                            .first = length - 1,
                            .logits = logits,
                            .adaptation = w->adaptation,
                            .expert_rows = w->adaptation != NULL ? rows : NULL};
    cr_assert_eq(t2_forward(w->session, &args, &w->err), T2_OK, "%s", w->err.message);
}

/* The token that the random number of that position picks, and its log-probability. */
static int64_t pick(const struct world *w, const float *logits, int prompt, int sample,
                    int64_t position, double *log_prob)
{
    const t2_draw draw = {7, 2, (uint32_t)prompt, (uint32_t)sample};
    double u = t2_sample_uniform(&draw, position), total = 0.0, sum = 0.0;
    double by = w->temperature > 0.0 ? w->temperature : 1.0;
    int64_t best = 0, token = -1;
    for (int64_t i = 0; i < w->V; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    for (int64_t i = 0; i < w->V; i++) {
        total += exp(((double)logits[i] - (double)logits[best]) / by);
    }
    for (int64_t i = 0; i < w->V && token < 0; i++) {
        sum += exp(((double)logits[i] - (double)logits[best]) / by) / total;
        token = sum > u ? i : -1;
    }
    token = w->temperature > 0.0 ? token : best;
    *log_prob = ((double)logits[token] - (double)logits[best]) / by - log(total);
    return token;
}

static void check_one(struct world *w, const struct outcome *o, int prompt, int sample)
{
    int64_t ids[LONGEST + NEW], length = w->length[prompt], made = 0;
    int64_t most = t2_model_config(w->model)->max_length;
    float *logits = malloc((size_t)w->V * sizeof *logits);
    t2_stop stop = T2_STOP_COUNT;
    memcpy(ids, w->prompt[prompt], (size_t)length * sizeof ids[0]);
    while (made < w->max_new) {
        if (length == most) {
            stop = T2_STOP_LENGTH;
            break;
        }
        double log_prob;
        full_pass(w, ids, length, w->row[prompt], logits);
        ids[length] = pick(w, logits, prompt, sample, length, &log_prob);
        cr_assert_eq(o->tokens[prompt][sample][made], ids[length], "prompt %d, sample %d, token %d",
                     prompt, sample, (int)made);
        cr_assert_float_eq(o->log_probs[prompt][sample][made], log_prob, 1e-12);
        made++;
        if (ids[length++] == END) {
            stop = T2_STOP_END;
            break;
        }
    }
    free(logits);
    cr_assert_eq(o->lengths[prompt][sample], made);
    cr_assert_eq(o->stops[prompt][sample], stop, "prompt %d, sample %d", prompt, sample);
    for (; made < w->max_new; made++) {
        cr_assert_eq(o->tokens[prompt][sample][made], -1);
        cr_assert_eq(o->log_probs[prompt][sample][made], 0.0);
    }
}

static const int all[PROMPTS] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

/* Every rollout, then the same ones in other batches. */
static void check_all(struct world *w)
{
    static const int others[2][PROMPTS] = {{8, 7, 6, 5, 4, 3, 2, 1, 0}, {5, 3, 1, 8}};
    struct outcome *o = calloc(1, sizeof *o), *again = calloc(1, sizeof *again);
    cr_assert_eq(roll(w, all, PROMPTS, SAMPLES, 1, o), T2_OK, "%s", w->err.message);
    cr_expect_eq(o->tag, w->adaptation != NULL ? t2_adaptation_tag(w->adaptation) : 0);
    for (int i = 0; i < PROMPTS; i++) {
        for (int s = 0; s < SAMPLES; s++) {
            check_one(w, o, i, s);
        }
    }
    for (int threads = 2; threads <= 3; threads++) {
        memset(again, 0, sizeof *again);
        cr_assert_eq(roll(w, all, PROMPTS, SAMPLES, threads, again), T2_OK);
        cr_assert_eq(memcmp(again, o, sizeof *o), 0, "%d threads", threads);
    }
    cr_assert_eq(roll(w, others[0], PROMPTS, SAMPLES, 2, again), T2_OK);
    cr_assert_eq(memcmp(again, o, sizeof *o), 0);
    for (int64_t samples = 1; samples <= 2; samples++) {
        memset(again, 0, sizeof *again);
        cr_assert_eq(roll(w, others[1], 4, samples, 1, again), T2_OK);
        for (int i = 0; i < 4; i++) {
            int p = others[1][i];
            for (int64_t s = 0; s < samples; s++) {
                cr_assert_eq(memcmp(again->tokens[p][s], o->tokens[p][s], sizeof o->tokens[p][s]),
                             0);
                cr_assert_eq(
                    memcmp(again->log_probs[p][s], o->log_probs[p][s], sizeof o->log_probs[p][s]),
                    0);
            }
        }
    }
    free(o);
    free(again);
}

Test(rollout, model)
{
    static const double temperatures[] = {0.0, 0.3, 1.0, 4.0};
    struct rng rng = {check_seed()};
    struct world w;
    open_world(&w, CHARS, &rng);
    for (int i = 0; i < 4; i++) {
        w.temperature = temperatures[i];
        check_all(&w);
    }
    for (w.max_new = 0; w.max_new <= 2; w.max_new++) {
        check_all(&w);
    }
    close_world(&w);
    t2_config config = model_file_config(); /* without a largest length */
    cr_assert_eq(t2_init_model(temp_dir, &config, 3, &w.err), T2_OK);
    open_world(&w, temp_dir, &rng);
    check_all(&w);
    w.expert = 2;
    check_all(&w);
    close_world(&w);
}

/* t2_generate() makes the same tokens. */
Test(rollout, generate)
{
    struct rng rng = {check_seed()};
    struct world w;
    struct outcome *o = calloc(1, sizeof *o);
    open_world(&w, CHARS, &rng);
    cr_assert_eq(roll(&w, all, PROMPTS, SAMPLES, 0, o), T2_OK, "%s", w.err.message);
    for (int i = 0; i < PROMPTS * SAMPLES; i++) {
        int p = i / SAMPLES, s = i % SAMPLES;
        int64_t tokens[NEW], count = 0;
        t2_stop stop = T2_STOP_CALLBACK;
        t2_generate_args args = {.size = sizeof args,
                                 .prompt = w.prompt[p],
                                 .prompt_length = w.length[p],
                                 .max_new = NEW,
                                 .end = END,
                                 .temperature = 1.0,
                                 .seed = 7,
                                 .step = 2,
                                 .prompt_index = (uint32_t)p,
                                 .sample = (uint32_t)s,
                                 .expert = T2_EXPERT_AUTO,
                                 .tokens = tokens,
                                 .count = &count,
                                 .stop = &stop};
        cr_assert_eq(t2_generate(w.session, &args, &w.err), T2_OK, "%s", w.err.message);
        cr_expect_eq(count, o->lengths[p][s]);
        cr_expect_eq(stop, o->stops[p][s]);
        cr_expect_eq(memcmp(tokens, o->tokens[p][s], (size_t)count * sizeof tokens[0]), 0);
    }
    free(o);
    close_world(&w);
}

/* Each prompt under an expert of its own. */
Test(rollout, experts)
{
    static const t2_expert_form form = {T2_EXPERT_SVF, T2_SQUASH_IDENTITY, 1.0f, 1.0f, 0};
    struct rng rng = {check_seed()};
    struct world w;
    t2_factors *factors;
    t2_adapter *adapter;
    t2_expert *experts[3];
    open_world(&w, CHARS, &rng);
    const char *path = temp_path("f.safetensors");
    t2_svd_args svd = {
        .size = sizeof svd, .model = CHARS, .out = path, .modules = "mlp", .jobs = 1};
    cr_assert_eq(t2_svd_run(&svd, &w.err), T2_OK, "%s", w.err.message);
    cr_assert_eq(t2_factors_open(path, 0, &factors, &w.err), T2_OK);
    cr_assert_eq(t2_adapter_create(w.model, factors, 0, &adapter, &w.err), T2_OK);
    for (uint64_t k = 0; k < 3; k++) {
        cr_assert_eq(t2_expert_new(&form, "x", factors, NULL, 0.3, k, &experts[k], &w.err), T2_OK);
    }
    for (t2_way way = T2_WAY_REBUILD; way <= T2_WAY_DELTA; way++) {
        int64_t rows = way == T2_WAY_REBUILD ? 1 : 3;
        t2_adaptation *adaptation = NULL;
        t2_adapt_args args = {.size = sizeof args,
                              .experts = (const t2_expert *const *)experts,
                              .count = rows,
                              .way = way};
        cr_assert_eq(t2_adaptation_create(adapter, &args, &adaptation, &w.err), T2_OK);
        w.adaptation = adaptation;
        for (int i = 0; i < PROMPTS; i++) {
            w.row[i] = rows == 1 ? 0 : i % (rows + 1) - 1;
        }
        check_all(&w);
        t2_adaptation_release(adaptation);
    }
    for (int k = 0; k < 3; k++) {
        t2_expert_release(experts[k]);
    }
    t2_adapter_destroy(adapter);
    t2_factors_close(factors);
    close_world(&w);
}

/* ---- the trained model ----------------------------------------------------------------------- */

/* Greedy answers to all held-out prompts in one batch: right as often as one at a time, and samples
 * with the same fingerprint on every machine. */
Test(rollout, trained_model)
{
    enum { LINES = 757, ANSWER = 9 };
    struct rng rng = {check_seed()};
    struct world w;
    t2_vocab *vocab;
    char line[128];
    static char want[LINES][16];
    static int64_t prompts[LINES * LONGEST], lengths[LINES], made[LINES], tokens[LINES * ANSWER];
    static double log_probs[LINES * ANSWER];
    int64_t count = 0, at = 0, right = 0;
    open_world(&w, CHARS, &rng);
    cr_assert_eq(t2_vocab_open(CHARS, w.V, &vocab, &w.err), T2_OK);
    FILE *file = fopen(CHARS "/heldout.tsv", "r");
    cr_assert_not_null(file);
    for (; fgets(line, sizeof line, file) != NULL; count++) {
        char *text = strchr(line, '\t') + 1, *answer = strchr(text, '\t');
        *answer++ = '\0';
        answer[strcspn(answer, "\n")] = '\0';
        snprintf(want[count], sizeof want[count], "%.15s", answer);
        cr_assert_eq(t2_vocab_encode(vocab, text, prompts + at, LONGEST, &lengths[count], &w.err),
                     T2_OK);
        at += lengths[count];
    }
    fclose(file);
    cr_assert_eq(count, LINES);
    t2_rollout_args args = {.size = sizeof args,
                            .prompts = prompts,
                            .prompt_lengths = lengths,
                            .count = LINES,
                            .samples = 1,
                            .max_new = ANSWER,
                            .end = t2_vocab_end(vocab),
                            .seed = 1,
                            .expert = T2_EXPERT_AUTO,
                            .tokens = tokens,
                            .lengths = made,
                            .log_probs = log_probs};
    cr_assert_eq(t2_rollout(w.session, &args, &w.err), T2_OK, "%s", w.err.message);
    for (int i = 0; i < LINES; i++) {
        char text[16] = "";
        for (int64_t t = 0; t < made[i]; t++) {
            strcat(text, t2_vocab_decode(vocab, tokens[i * ANSWER + t]));
        }
        right += strcmp(text, want[i]) == 0;
    }
    cr_expect_eq(right, 154 + 126 + 185 + 45);
    args.temperature = 1.0;
    cr_assert_eq(t2_rollout(w.session, &args, &w.err), T2_OK, "%s", w.err.message);
    uint64_t print = t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, tokens, sizeof tokens);
    print = t2k_fingerprint_bytes(print, log_probs, sizeof log_probs);
    fprintf(stderr, "isa %s golden rollout fingerprint %016llx\n", t2k_isa_name(),
            (unsigned long long)print);
    t2_vocab_close(vocab);
    close_world(&w);
}

/* ---- stopping, refusals ---------------------------------------------------------------------- */

static int stop_at(void *arg, int64_t made, int64_t active)
{
    int64_t *calls = arg;
    cr_expect_eq(made, ++calls[0]);
    cr_expect(active >= 0 && active <= calls[1]);
    calls[1] = active;
    return made == calls[2];
}

Test(rollout, stopping)
{
    struct rng rng = {check_seed()};
    struct world w;
    open_world(&w, CHARS, &rng);
    int64_t lengths[1] = {6}, tokens[4 * NEW], made[4];
    t2_stop stops[4];
    int64_t calls[3] = {0, 4, 2};
    t2_rollout_args args = {.size = sizeof args,
                            .prompts = w.prompt[0],
                            .prompt_lengths = lengths,
                            .count = 1,
                            .samples = 4,
                            .max_new = NEW,
                            .end = -1,
                            .temperature = 1.0,
                            .expert = T2_EXPERT_AUTO,
                            .on_position = stop_at,
                            .on_position_arg = calls,
                            .tokens = tokens,
                            .lengths = made,
                            .stops = stops};
    cr_expect_eq(t2_rollout(w.session, &args, &w.err), T2_ERR_STOPPED);
    for (int s = 0; s < 4; s++) {
        cr_expect_eq(made[s], 2);
        cr_expect_eq(stops[s], T2_STOP_CALLBACK);
        cr_expect(tokens[s * NEW + 1] >= 0 && tokens[s * NEW + 2] == -1);
    }
    calls[0] = 0;
    calls[1] = 4;
    calls[2] = -1;
    cr_expect_eq(t2_rollout(w.session, &args, &w.err), T2_OK);
    cr_expect_eq(calls[0], NEW);
    cr_expect_eq(calls[1], 0);
    args.count = 0;
    cr_expect_eq(t2_rollout(w.session, &args, &w.err), T2_OK);
    close_world(&w);
}

static void expect_error(struct world *w, t2_status status, const char *part)
{
    struct outcome *o = calloc(1, sizeof *o);
    cr_expect_eq(roll(w, all, PROMPTS, SAMPLES, 1, o), status, "%s", part);
    cr_expect_not_null(strstr(w->err.message, part), "%s", w->err.message);
    free(o);
}

static int change_scale(t2_tensor *tensor)
{
    ((float *)(uintptr_t)tensor->data)[5] = 0.5f;
    return 1;
}

static int poison_bias(t2_tensor *tensor)
{
    ((float *)(uintptr_t)tensor->data)[3] = NAN;
    return 1;
}

Test(rollout, refused)
{
    struct rng rng = {check_seed()};
    struct world w;
    t2_config config = model_file_config();
    config.max_length = LONGEST;
    cr_assert_eq(t2_init_model(temp_dir, &config, 3, &w.err), T2_OK);
    open_world(&w, temp_dir, &rng);
    w.prompt[4][2] = w.V;
    expect_error(&w, T2_ERR_ARG, "id 29 at position 2 of prompt 4 is outside the vocabulary");
    w.prompt[4][2] = 0;
    w.length[5] = 0;
    expect_error(&w, T2_ERR_ARG, "prompt 5 is empty");
    w.length[5] = LONGEST;
    w.temperature = NAN;
    expect_error(&w, T2_ERR_ARG, "temperature");
    w.temperature = 1.0;
    w.max_new = -1;
    expect_error(&w, T2_ERR_ARG, "9 prompts with 3 samples of -1 tokens");
    w.max_new = NEW;
    w.expert = 3;
    expect_error(&w, T2_ERR_ARG, "there is no expert 3");
    close_world(&w);
    model_file_change(temp_dir, "layers.1.experts.2.scale_vector", change_scale);
    open_world(&w, temp_dir, &rng);
    expect_error(&w, T2_ERR_ARG, "layer 1 chooses among experts that differ");
    w.expert = 1;
    check_all(&w);
    close_world(&w);
    model_file_change(temp_dir, "fc_out.bias", poison_bias);
    open_world(&w, temp_dir, &rng);
    w.expert = 1;
    expect_error(&w, T2_ERR_NUMERIC, "prompt 3, sample 0: the logits at position 0 are not finite");
    close_world(&w);
}
