/* Operations by name, and problems made from a name and a shape. */
#include "ops.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *const bench_operands_name[BENCH_OPERANDS] = {"hot", "cold-weights", "cold-all"};

const struct bench_op *const bench_ops[] = {&bench_op_sgemm,
                                            &bench_op_sgemm_nt,
                                            &bench_op_sgemm_tn,
                                            &bench_op_sgemm_tt,
                                            &bench_op_sgemm_packed,
                                            &bench_op_sgemm_fast,
                                            &bench_op_sgemm_bf16,
                                            &bench_op_sgemm_batched,
                                            &bench_op_svd_rebuild,
                                            &bench_op_svd_rebuild_dense,
                                            &bench_op_expert,
                                            &bench_op_expert_rows,
                                            &bench_op_expert_turns,
                                            &bench_op_expert_rebuild,
                                            &bench_op_attention,
                                            &bench_op_attention_causal,
                                            &bench_op_attention_decode,
                                            &bench_op_softmax,
                                            &bench_op_layer_norm,
                                            &bench_op_layer_norm_residual,
                                            &bench_op_rms_norm,
                                            &bench_op_rms_norm_residual,
                                            &bench_op_mean,
                                            &bench_op_embedding,
                                            &bench_op_scale_columns,
                                            &bench_op_exp,
                                            &bench_op_relu,
                                            &bench_op_gelu,
                                            &bench_op_gelu_tanh,
                                            &bench_op_silu,
                                            &bench_op_add,
                                            &bench_op_dropout,
                                            &bench_op_model,
                                            NULL};

const struct bench_op *bench_op_find(const char *name)
{
    for (size_t i = 0; bench_ops[i] != NULL; i++) {
        if (strcmp(bench_ops[i]->name, name) == 0) {
            return bench_ops[i];
        }
    }
    return NULL;
}

/* ---- what the operations share --------------------------------------------------------------- */

/* No operand may exceed 16 TiB, so that sums of sizes in bytes and products with the number of
 * copies can't overflow. */
#define MOST_BYTES (INT64_C(1) << 44)

void *bench_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - T2K_ALIGN) {
        return NULL;
    }
    return aligned_alloc(T2K_ALIGN, (bytes / T2K_ALIGN + 1) * T2K_ALIGN);
}

struct scratch {
    struct scratch *next;
    const struct problem *p;
    float *data;
    int users;
};
static struct scratch *scratches; /* of a worker, which has one thread of its own */

static struct scratch **find_scratch(const struct problem *p)
{
    struct scratch **link = &scratches;
    while (*link != NULL && (*link)->p != p) {
        link = &(*link)->next;
    }
    return link;
}

float *bench_scratch_take(const struct problem *p, size_t bytes)
{
    struct scratch *s = *find_scratch(p);
    if (s == NULL) {
        s = calloc(1, sizeof *s);
        float *data = bench_alloc(bytes, 1);
        if (s == NULL || data == NULL) {
            free(s);
            free(data);
            return NULL;
        }
        memset(data, 0, bytes);
        *s = (struct scratch){.next = scratches, .p = p, .data = data};
        scratches = s;
    }
    s->users++;
    return s->data;
}

void bench_scratch_give(const struct problem *p)
{
    struct scratch **link = find_scratch(p), *s = *link;
    if (s != NULL && --s->users == 0) {
        *link = s->next;
        free(s->data);
        free(s);
    }
}

int64_t bench_elements(int64_t a, int64_t b, int64_t c)
{
    int64_t product;
    if (a < 1 || b < 1 || c < 1 || __builtin_mul_overflow(a, b, &product) ||
        __builtin_mul_overflow(product, c, &product) || product > MOST_BYTES) {
        return -1;
    }
    return product;
}

static int64_t type_bytes(enum bench_type type)
{
    return type == BENCH_F32 ? 4 : type == BENCH_I64 ? 8 : 1;
}

static int add_input(struct problem *p, const struct bench_input *input)
{
    if (p->inputs == BENCH_INPUTS || input->count < 1 ||
        input->count > MOST_BYTES / type_bytes(input->type)) {
        return -1;
    }
    p->input[p->inputs++] = *input;
    return 0;
}

int bench_add_floats(struct problem *p, enum bench_role role, int64_t count, float range)
{
    return add_input(
        p, &(struct bench_input){.type = BENCH_F32, .role = role, .count = count, .range = range});
}

int bench_add_ids(struct problem *p, enum bench_role role, int64_t count, int64_t below)
{
    return add_input(
        p, &(struct bench_input){.type = BENCH_I64, .role = role, .count = count, .below = below});
}

int bench_set_result(struct problem *p, int64_t rows, int64_t cols)
{
    int64_t count = bench_elements(rows, cols, 1);
    if (count < 1 || count > MOST_BYTES / 4) {
        return -1;
    }
    p->rows = rows;
    p->cols = cols;
    p->write_bytes = 4.0 * (double)count;
    p->read_bytes = 0.0;
    for (int i = 0; i < p->inputs; i++) {
        p->read_bytes += (double)type_bytes(p->input[i].type) * (double)p->input[i].count;
    }
    return 0;
}

t2k_status bench_bound_open(const struct problem *p, const void *const in[], float *out,
                            void **state)
{
    struct bench_bound *bound = calloc(1, sizeof *bound);
    if (bound == NULL) {
        return T2K_ERR_NOMEM;
    }
    bound->p = p;
    memcpy(bound->in, in, (size_t)p->inputs * sizeof *in);
    bound->out = out;
    *state = bound;
    return T2K_OK;
}

void bench_bound_close(void *state)
{
    struct bench_bound *bound = state;
    if (bound != NULL) {
        free(bound->packed);
        free(bound);
    }
}

struct row_work {
    bench_row_fn *fn;
    const struct problem *p;
    const void *const *in;
    int strict;
    int64_t count;
    const int64_t *rows;
    double *ref, *allowed;
};

static void rows_part(t2k_team *team, void *arg)
{
    const struct row_work *w = arg;
    for (int64_t i = t2k_team_rank(team); i < w->count; i += t2k_team_size(team)) {
        w->fn(w->p, w->in, w->strict, w->rows[i], w->ref + i * w->p->cols,
              w->allowed + i * w->p->cols);
    }
}

t2k_status bench_reference_by_rows(bench_row_fn *fn, const struct problem *p,
                                   const void *const in[], int strict, int64_t count,
                                   const int64_t *rows, double *ref, double *allowed)
{
    struct row_work work = {fn, p, in, strict, count, rows, ref, allowed};
    return t2k_parallel(0, rows_part, &work);
}

/* ---- problems -------------------------------------------------------------------------------- */

static int count_words(const char *text)
{
    int words = 0;
    for (; *text != '\0'; text++) {
        words += *text != ' ' && (text[1] == ' ' || text[1] == '\0');
    }
    return words;
}

/* Numbers of decimal digits joined by 'x': how many there are, or -1. */
static int parse_shape(const char *text, int64_t dim[BENCH_DIMS])
{
    for (int count = 0; count < BENCH_DIMS; text++) {
        int64_t value = 0;
        if (!isdigit((unsigned char)*text)) {
            return -1;
        }
        for (; isdigit((unsigned char)*text); text++) {
            if (__builtin_mul_overflow(value, 10, &value) ||
                __builtin_add_overflow(value, *text - '0', &value)) {
                return -1;
            }
        }
        dim[count++] = value;
        if (*text == '\0') {
            return count;
        }
        if (*text != 'x') {
            return -1;
        }
    }
    return -1;
}

/* The shape as it is shown: no leading zeros. Nonzero where there is no room for it. */
static int print_shape(struct problem *p)
{
    size_t used = 0;
    for (int i = 0; i < p->dims; i++) {
        int n = snprintf(p->shape + used, sizeof p->shape - used, "%s%" PRId64, i > 0 ? "x" : "",
                         p->dim[i]);
        if (n < 0 || (size_t)n >= sizeof p->shape - used) {
            return -1;
        }
        used += (size_t)n;
    }
    return 0;
}

static void list_ops(char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; bench_ops[i] != NULL && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", bench_ops[i]->name);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* "m x n x k" of "m n k". */
static void show_dims(const struct bench_op *op, char *text, size_t size)
{
    size_t used = 0;
    for (const char *s = op->dims; *s != '\0' && used + 4 < size; s++) {
        if (*s == ' ') {
            memcpy(text + used, " x ", 3);
            used += 3;
        } else {
            text[used++] = *s;
        }
    }
    text[used] = '\0';
}

int bench_problem(struct problem *p, const char *op, const char *shape, char *error, size_t size)
{
    memset(p, 0, sizeof *p);
    p->op = bench_op_find(op);
    if (p->op == NULL) {
        char names[600];
        list_ops(names, sizeof names);
        snprintf(error, size, "unknown operation '%.40s': expected one of %s", op, names);
        return -1;
    }
    char dims[64];
    show_dims(p->op, dims, sizeof dims);
    p->dims = parse_shape(shape, p->dim);
    if (p->dims != count_words(p->op->dims)) {
        snprintf(error, size, "%s: bad shape '%.60s': expected %s, whole numbers joined by x", op,
                 shape, dims);
        return -1;
    }
    for (int i = 0; i < p->dims; i++) {
        if (p->dim[i] < 1) {
            snprintf(error, size, "%s: bad shape '%.60s': the sizes (%s) start at 1", op, shape,
                     dims);
            return -1;
        }
    }
    if (print_shape(p) != 0 || p->op->describe(p) != 0) {
        snprintf(error, size, "%s: the shape '%.60s' (%s) is out of range", op, shape, dims);
        return -1;
    }
    return 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
