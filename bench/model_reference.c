/* The notebook's Transformer2Model in double: embedding, blocks, fc_out, written for clarity where
 * that is not too slow. A row of x is one position of one item, items one after the other.
 *
 * Each layer: q, k, v of all rows; then attention and out_proj of all rows; then, the expert being
 * chosen, the norms and the feed-forward layer. A thread owns the same rows throughout and meets
 * the others where it reads what they wrote: k and v, and the mean. All products go through
 * multiply(), whose right-hand side lies in panels of WIDE columns, row after row: weights, the
 * keys of a head (channels x positions) and its values (positions x channels) alike. */
#include "model_reference.h"

#include "io/error.h"
#include "model/model.h"
#include "t2k.h"

#include <math.h>
#include <stdlib.h>

enum {
    WIDE = 8,  /* columns of a panel: with two rows, 8 sums in 16 registers of two doubles */
    BLOCK = 32 /* rows computed together: their activations and one panel fit the second cache */
};

typedef double pair __attribute__((vector_size(16)));

struct linear {
    int64_t in, out;
    double *panels; /* ceil(out / WIDE) of (in, WIDE) */
    const float *bias;
};

struct layer {
    struct linear in_proj, out_proj, ff0, ff2;
};

struct pass {
    const t2_model *model;
    t2_config config;
    int64_t length, items; /* items: those that are computed */
    int64_t wanted;        /* rows of the result */
    int64_t expert;
    struct layer *layers;
    struct linear fc_out;
    int64_t *from;         /* (wanted): the row of x behind each row of the result */
    double *x, *q, *y;     /* (items * length, E): the stream, queries, attention's outputs */
    double *keys, *values; /* per item and head, in panels */
    int64_t keys_size, values_size; /* of one head */
    double *scratch;
    int64_t scratch_size; /* doubles of each thread */
    double *logits, *means;
    t2_choice choice;
};

static double *alloc(int64_t count)
{
    return t2_alloc(count, sizeof(double));
}

static int64_t panels_of(int64_t n)
{
    return (n + WIDE - 1) / WIDE;
}

/* The element (k, j) of a right-hand side of `depth` rows. */
static int64_t panel_at(int64_t depth, int64_t k, int64_t j)
{
    return (j / WIDE * depth + k) * WIDE + j % WIDE;
}

/* y (m, n) = x (m, k) B. */
static void multiply(int64_t m, int64_t n, int64_t k, const double *x, int64_t ldx, const double *B,
                     double *y, int64_t ldy)
{
    for (int64_t j = 0; j < n; j += WIDE) {
        for (int64_t i = 0; i < m; i += 2) {
            const double *even = x + i * ldx, *odd = i + 1 < m ? even + ldx : even;
            const double *b = B + j * k;
            /* By name: as arrays gcc 12 would keep them in memory and take three times as long. */
            pair e0 = {0.0, 0.0}, e1 = e0, e2 = e0, e3 = e0, o0 = e0, o1 = e0, o2 = e0, o3 = e0;
            for (int64_t p = 0; p < k; p++, b += WIDE) {
                const pair *w = (const pair *)(const void *)b;
                pair s = {even[p], even[p]}, t = {odd[p], odd[p]};
                e0 += s * w[0];
                e1 += s * w[1];
                e2 += s * w[2];
                e3 += s * w[3];
                o0 += t * w[0];
                o1 += t * w[1];
                o2 += t * w[2];
                o3 += t * w[3];
            }
            const pair sums[2][WIDE / 2] = {{e0, e1, e2, e3}, {o0, o1, o2, o3}};
            for (int64_t c = 0; c < WIDE && j + c < n; c++) {
                y[i * ldy + j + c] = sums[0][c / 2][c % 2];
                if (i + 1 < m) {
                    y[(i + 1) * ldy + j + c] = sums[1][c / 2][c % 2];
                }
            }
        }
    }
}

/* y (m, out) = x (m, in) weightT + bias. */
static void apply(const struct linear *linear, int64_t m, const double *x, double *y)
{
    int64_t n = linear->out;
    multiply(m, n, linear->in, x, linear->in, linear->panels, y, n);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            y[i * n + j] += (double)linear->bias[j];
        }
    }
}

/* In place on one row. */
static void normalize(int64_t n, double *x, const float *weight, const float *bias, double eps)
{
    double mean = 0.0, square = 0.0;
    for (int64_t j = 0; j < n; j++) {
        mean += x[j];
    }
    mean /= (double)n;
    for (int64_t j = 0; j < n; j++) {
        square += (x[j] - mean) * (x[j] - mean);
    }
    double inverse = 1.0 / sqrt(square / (double)n + eps);
    for (int64_t j = 0; j < n; j++) {
        x[j] = (x[j] - mean) * inverse * (double)weight[j] + (double)bias[j];
    }
}

static void softmax(int64_t n, double *x)
{
    double top = x[0], sum = 0.0;
    for (int64_t j = 1; j < n; j++) {
        top = fmax(top, x[j]);
    }
    for (int64_t j = 0; j < n; j++) {
        x[j] = exp(x[j] - top);
        sum += x[j];
    }
    for (int64_t j = 0; j < n; j++) {
        x[j] /= sum;
    }
}

/* ---- the steps of a layer, for rows [first, last) of one item ------------------------------- */

/* q, times the scale of the scores, k and v. */
static void project(const struct pass *pass, int64_t layer, int64_t first, int64_t last,
                    double *scratch)
{
    int64_t E = pass->config.embed_size, H = pass->config.heads, d = E / H, L = pass->length;
    double scale = 1.0 / sqrt((double)d);
    apply(&pass->layers[layer].in_proj, last - first, pass->x + first * E, scratch);
    for (int64_t r = first; r < last; r++) {
        const double *qkv = scratch + (r - first) * 3 * E;
        int64_t item = r / L, l = r % L;
        for (int64_t c = 0; c < E; c++) {
            int64_t head = item * H + c / d;
            pass->q[r * E + c] = qkv[c] * scale;
            pass->keys[head * pass->keys_size + panel_at(d, c % d, l)] = qkv[E + c];
            pass->values[head * pass->values_size + panel_at(L, l, c % d)] = qkv[2 * E + c];
        }
    }
}

static void attend(const struct pass *pass, int64_t layer, int64_t first, int64_t last,
                   double *scratch)
{
    int64_t E = pass->config.embed_size, H = pass->config.heads, d = E / H, L = pass->length;
    int64_t item = first / L, m = last - first;
    double *heads = scratch, *scores = scratch + BLOCK * E;
    for (int64_t h = 0; h < H; h++) {
        int64_t head = item * H + h;
        multiply(m, L, d, pass->q + first * E + h * d, E, pass->keys + head * pass->keys_size,
                 scores, L);
        for (int64_t i = 0; i < m; i++) {
            softmax(L, scores + i * L);
        }
        multiply(m, d, L, scores, L, pass->values + head * pass->values_size, heads + h * d, E);
    }
    apply(&pass->layers[layer].out_proj, m, heads, pass->y + first * E);
}

static void finish(const struct pass *pass, int64_t layer, int64_t expert, int64_t first,
                   int64_t last, double *scratch)
{
    const t2_block *block = &pass->model->blocks[layer];
    int64_t E = pass->config.embed_size, m = last - first;
    double *x = pass->x + first * E, *hidden = scratch;
    const double *y = pass->y + first * E;
    double *forward = scratch + BLOCK * E * pass->config.forward_expansion;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t c = 0; c < E; c++) {
            x[i * E + c] += y[i * E + c] * (double)block->scales[expert][c];
        }
        normalize(E, x + i * E, block->weights[T2_NORM1_WEIGHT], block->weights[T2_NORM1_BIAS],
                  pass->config.norm_eps);
    }
    apply(&pass->layers[layer].ff0, m, x, hidden);
    for (int64_t i = 0; i < m * pass->layers[layer].ff0.out; i++) {
        hidden[i] = hidden[i] < 0.0 ? 0.0 : hidden[i];
    }
    apply(&pass->layers[layer].ff2, m, hidden, forward);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t c = 0; c < E; c++) {
            x[i * E + c] += forward[i * E + c];
        }
        normalize(E, x + i * E, block->weights[T2_NORM2_WEIGHT], block->weights[T2_NORM2_BIAS],
                  pass->config.norm_eps);
    }
}

/* ---- the team ------------------------------------------------------------------------------- */

static double mean_of(const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += y[i];
    }
    return sum / (double)count;
}

/* The end of the block of rows that starts at `first`: it lies in one item. */
static int64_t block_end(const struct pass *pass, int64_t first, int64_t end)
{
    int64_t item_end = (first / pass->length + 1) * pass->length;
    int64_t last = first + BLOCK < item_end ? first + BLOCK : item_end;
    return last < end ? last : end;
}

static void run_member(t2k_team *team, void *arg)
{
    struct pass *pass = arg;
    int rank = t2k_team_rank(team), size = t2k_team_size(team);
    int64_t E = pass->config.embed_size, rows = pass->items * pass->length, next;
    int64_t begin = rows * rank / size, end = rows * (rank + 1) / size;
    double *scratch = pass->scratch + rank * pass->scratch_size;
    for (int64_t layer = 0; layer < pass->config.num_layers; layer++) {
        int64_t expert = pass->expert;
        for (int64_t r = begin; r < end; r = next) {
            next = block_end(pass, r, end);
            project(pass, layer, r, next, scratch);
        }
        t2k_team_barrier(team);
        for (int64_t r = begin; r < end; r = next) {
            next = block_end(pass, r, end);
            attend(pass, layer, r, next, scratch);
        }
        t2k_team_barrier(team);
        if (expert == T2_EXPERT_AUTO || pass->means != NULL) {
            /* Every thread for itself: the same sum. */
            double mean = mean_of(pass->y, rows * E);
            t2_choice choice = T2_CHOICE_OK;
            if (expert == T2_EXPERT_AUTO) {
                choice = t2_choose_expert((float)mean, pass->config.num_experts, &expert);
            }
            if (rank == 0 && pass->means != NULL) {
                pass->means[layer] = mean;
            }
            if (choice != T2_CHOICE_OK) {
                if (rank == 0) {
                    pass->choice = choice;
                }
                return;
            }
        }
        for (int64_t r = begin; r < end; r = next) {
            next = block_end(pass, r, end);
            finish(pass, layer, expert, r, next, scratch);
        }
    }
    t2k_team_barrier(team);
    int64_t V = pass->config.vocab_size, last = pass->wanted * (rank + 1) / size;
    for (int64_t i = pass->wanted * rank / size; i < last; i += BLOCK) {
        int64_t m = i + BLOCK < last ? BLOCK : last - i;
        for (int64_t j = 0; j < m * E; j++) {
            scratch[j] = pass->x[pass->from[i + j / E] * E + j % E];
        }
        apply(&pass->fc_out, m, scratch, pass->logits + i * V);
    }
}

/* ---- preparation ---------------------------------------------------------------------------- */

/* 0 where there is no memory. */
static int pack(struct linear *linear, int64_t in, int64_t out, const float *weight,
                const float *bias)
{
    linear->in = in;
    linear->out = out;
    linear->bias = bias;
    linear->panels = alloc(panels_of(out) * in * WIDE);
    if (linear->panels == NULL) {
        return 0;
    }
    for (int64_t j = 0; j < panels_of(out) * WIDE; j++) {
        for (int64_t k = 0; k < in; k++) {
            linear->panels[panel_at(in, k, j)] = j < out ? (double)weight[j * in + k] : 0.0;
        }
    }
    return 1;
}

static int pack_layers(struct pass *pass)
{
    int64_t E = pass->config.embed_size, wide = E * pass->config.forward_expansion;
    int ok = 1;
    pass->layers = calloc((size_t)pass->config.num_layers + 1, sizeof pass->layers[0]);
    for (int64_t i = 0; pass->layers != NULL && i < pass->config.num_layers; i++) {
        struct layer *layer = &pass->layers[i];
        const float *const *w = pass->model->blocks[i].weights;
        ok = ok && pack(&layer->in_proj, E, 3 * E, w[T2_IN_PROJ_WEIGHT], w[T2_IN_PROJ_BIAS]) &&
             pack(&layer->out_proj, E, E, w[T2_OUT_PROJ_WEIGHT], w[T2_OUT_PROJ_BIAS]) &&
             pack(&layer->ff0, E, wide, w[T2_FF0_WEIGHT], w[T2_FF0_BIAS]) &&
             pack(&layer->ff2, wide, E, w[T2_FF2_WEIGHT], w[T2_FF2_BIAS]);
    }
    return ok && pass->layers != NULL;
}

static t2_status pack_fc_out(struct pass *pass, t2_error *err)
{
    t2_safetensors *file = pass->model->file;
    const float *weight, *bias;
    t2_status status =
        t2_safetensors_f32(file, t2_safetensors_find(file, "fc_out.weight"), &weight, err);
    if (status == T2_OK) {
        status = t2_safetensors_f32(file, t2_safetensors_find(file, "fc_out.bias"), &bias, err);
    }
    if (status == T2_OK &&
        !pack(&pass->fc_out, pass->config.embed_size, pass->config.vocab_size, weight, bias)) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    return status;
}

static int reserve(struct pass *pass)
{
    int64_t E = pass->config.embed_size, H = pass->config.heads, d = E / H, L = pass->length;
    int64_t rows = pass->items * L, f = pass->config.forward_expansion;
    int64_t wide = E * (f + 1) > E + L ? E * (f + 1) : E + L;
    int threads = t2k_get_num_threads();
    pass->keys_size = panels_of(L) * d * WIDE;
    pass->values_size = panels_of(d) * L * WIDE;
    pass->scratch_size = BLOCK * (wide > 3 * E ? wide : 3 * E);
    pass->x = alloc(rows * E);
    pass->q = alloc(rows * E);
    pass->y = alloc(rows * E);
    pass->keys = alloc(pass->items * H * pass->keys_size);
    pass->values = alloc(pass->items * H * pass->values_size);
    pass->scratch = alloc(threads * pass->scratch_size);
    if (pass->x == NULL || pass->q == NULL || pass->y == NULL || pass->keys == NULL ||
        pass->values == NULL || pass->scratch == NULL) {
        return 0;
    }
    /* What fills the last panels up is multiplied, then dropped. */
    for (int64_t i = 0; i < pass->items * H * pass->keys_size; i++) {
        pass->keys[i] = 0.0;
    }
    for (int64_t i = 0; i < pass->items * H * pass->values_size; i++) {
        pass->values[i] = 0.0;
    }
    return 1;
}

/* Numbers the items that occur in `rows` and fills pass->from and the embedded x of these items.
 * 0 where there is no memory. */
static int embed(struct pass *pass, const int64_t *ids, int64_t items, const int64_t *rows)
{
    int64_t E = pass->config.embed_size, L = pass->length;
    int64_t *number = malloc(((size_t)items + 1) * sizeof number[0]);
    pass->from = malloc(((size_t)pass->wanted + 1) * sizeof pass->from[0]);
    if (number == NULL || pass->from == NULL) {
        free(number);
        return 0;
    }
    for (int64_t n = 0; n < items; n++) {
        number[n] = -1;
    }
    pass->items = 0;
    for (int64_t i = 0; i < pass->wanted; i++) {
        int64_t item = rows[i] % items;
        number[item] = number[item] < 0 ? pass->items++ : number[item];
        pass->from[i] = number[item] * L + rows[i] / items;
    }
    int ok = reserve(pass);
    for (int64_t n = 0; ok && n < items; n++) {
        for (int64_t i = 0; number[n] >= 0 && i < L * E; i++) {
            int64_t id = ids[i / E * items + n];
            pass->x[number[n] * L * E + i] = (double)pass->model->embedding[id * E + i % E];
        }
    }
    free(number);
    return ok;
}

static void release(struct pass *pass)
{
    for (int64_t i = 0; pass->layers != NULL && i < pass->config.num_layers; i++) {
        free(pass->layers[i].in_proj.panels);
        free(pass->layers[i].out_proj.panels);
        free(pass->layers[i].ff0.panels);
        free(pass->layers[i].ff2.panels);
    }
    free(pass->layers);
    free(pass->fc_out.panels);
    free(pass->from);
    free(pass->x);
    free(pass->q);
    free(pass->y);
    free(pass->keys);
    free(pass->values);
    free(pass->scratch);
}

t2_status bench_model_reference(const char *dir, const int64_t *ids, int64_t length, int64_t items,
                                int64_t expert, int64_t count, const int64_t *rows, double *logits,
                                double *means, t2_error *err)
{
    t2_model *model = NULL;
    t2_status status = t2_model_open(dir, 0, &model, err);
    if (status != T2_OK) {
        return status;
    }
    struct pass pass = {.model = model,
                        .config = *t2_model_config(model),
                        .length = length,
                        .wanted = count,
                        .expert = expert,
                        .logits = logits,
                        .means = means,
                        .choice = T2_CHOICE_OK};
    for (int64_t i = 0; status == T2_OK && i < length * items; i++) {
        if (ids[i] < 0 || ids[i] >= pass.config.vocab_size) {
            status = t2_fail(err, T2_ERR_ARG, "id %lld is outside the vocabulary of %lld",
                             (long long)ids[i], (long long)pass.config.vocab_size);
        }
    }
    if (status == T2_OK && (!embed(&pass, ids, items, rows) || !pack_layers(&pass))) {
        status = t2_fail(err, T2_ERR_NOMEM, "out of memory");
    }
    status = status == T2_OK ? pack_fc_out(&pass, err) : status;
    if (status == T2_OK) {
        t2k_status kernel = t2k_parallel(0, run_member, &pass);
        status = kernel != T2K_OK ? t2_fail_kernel(err, kernel, "reference of the model") : T2_OK;
    }
    if (status == T2_OK && pass.choice != T2_CHOICE_OK) {
        status = t2_fail_choice(err, pass.choice, NAN, "reference of the model");
    }
    release(&pass);
    t2_model_close(model);
    return status;
}
