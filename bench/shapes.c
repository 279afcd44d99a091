/* Shape sets: text files of problems, the built-in ones inside the program.
 *
 * A line is `op[,op...] shape`; what follows a '#' is a comment, and the comment of the first line
 * says what the set is. A shape @SET stands for all shapes of the built-in set whose sizes have the
 * operation's names. Behind it name=value may stand: most=SECONDS, of a set only shapes of which a
 * nominal core needs no longer for a call, and targets for `t2bench report --targets`. A problem
 * that is there already is left out. */
#include "embed.h"
#include "ops.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

BENCH_EMBED(bench_shapes_seed, "bench/shapes/seed.txt");
BENCH_EMBED(bench_shapes_llm, "bench/shapes/llm.txt");
BENCH_EMBED(bench_shapes_square, "bench/shapes/square.txt");
BENCH_EMBED(bench_shapes_tails, "bench/shapes/tails.txt");
BENCH_EMBED(bench_shapes_rows, "bench/shapes/rows.txt");
BENCH_EMBED(bench_shapes_onednn, "bench/shapes/onednn.txt");
BENCH_EMBED(bench_shapes_rebuild, "bench/shapes/rebuild.txt");
BENCH_EMBED(bench_shapes_experts, "bench/shapes/experts.txt");
BENCH_EMBED(bench_shapes_targets, "bench/shapes/targets.txt");

static const struct {
    const char *name, *file;
    const unsigned char *text;
} sets[] = {
    {"seed", "bench/shapes/seed.txt", bench_shapes_seed},
    {"llm", "bench/shapes/llm.txt", bench_shapes_llm},
    {"square", "bench/shapes/square.txt", bench_shapes_square},
    {"tails", "bench/shapes/tails.txt", bench_shapes_tails},
    {"rows", "bench/shapes/rows.txt", bench_shapes_rows},
    {"onednn", "bench/shapes/onednn.txt", bench_shapes_onednn},
    {"rebuild", "bench/shapes/rebuild.txt", bench_shapes_rebuild},
    {"experts", "bench/shapes/experts.txt", bench_shapes_experts},
    {"targets", "bench/shapes/targets.txt", bench_shapes_targets},
};
enum { SETS = sizeof sets / sizeof sets[0], MOST_LINE = 500, MOST_FILE = 1 << 20 };

/* The core of most=SECONDS: multiply-adds and bytes a second. The same everywhere, so that the same
 * shapes are timed on every machine. */
#define NOMINAL_MACS 50e9
#define NOMINAL_BYTES 10e9

const char *bench_set_name(int i)
{
    return i >= 0 && i < SETS ? sets[i].name : NULL;
}

const char *bench_set_text(int i)
{
    static char text[SETS][120]; /* the same content whoever writes it */
    if (i < 0 || i >= SETS) {
        return NULL;
    }
    const char *line = (const char *)sets[i].text;
    line += strspn(line, "# ");
    snprintf(text[i], sizeof text[i], "%.*s", (int)strcspn(line, "\n"), line);
    return text[i];
}

const char *bench_set_file(const char *set)
{
    for (int i = 0; i < SETS; i++) {
        if (strcmp(sets[i].name, set) == 0) {
            return (const char *)sets[i].text;
        }
    }
    return NULL;
}

/* ---- storage: names of sets, a list freed with the shapes ------------------------------------ */

struct name {
    struct name *next;
    char text[];
};

/* A copy that lives as long as the shapes; NULL where memory ran out. */
static const char *keep_name(struct bench_shapes *shapes, const char *text)
{
    size_t size = strlen(text) + 1;
    struct name *name = malloc(sizeof *name + size);
    if (name == NULL) {
        return NULL;
    }
    memcpy(name->text, text, size);
    name->next = shapes->storage;
    shapes->storage = name;
    return name->text;
}

void bench_shapes_free(struct bench_shapes *shapes)
{
    for (struct name *name = shapes->storage, *next; name != NULL; name = next) {
        next = name->next;
        free(name);
    }
    free(shapes->problem);
    memset(shapes, 0, sizeof *shapes);
}

/* ---- parsing --------------------------------------------------------------------------------- */

static int is_known(const struct bench_shapes *shapes, const struct problem *p)
{
    for (int i = 0; i < shapes->count; i++) {
        if (shapes->problem[i].op == p->op && strcmp(shapes->problem[i].shape, p->shape) == 0) {
            return 1;
        }
    }
    return 0;
}

static int add_problem(struct bench_shapes *shapes, const struct problem *p, char *error,
                       size_t size)
{
    if (is_known(shapes, p)) {
        return 0;
    }
    size_t count = (size_t)shapes->count;
    if ((count & (count - 1)) == 0) { /* room for a power of two */
        struct problem *grown =
            realloc(shapes->problem, (count > 0 ? 2 * count : 1) * sizeof *grown);
        if (grown == NULL) {
            snprintf(error, size, "out of memory");
            return -1;
        }
        shapes->problem = grown;
    }
    shapes->problem[shapes->count++] = *p;
    return 0;
}

static int add_one(struct bench_shapes *shapes, const char *op, const char *shape, const char *set,
                   char *error, size_t size)
{
    struct problem p;
    if (bench_problem(&p, op, shape, error, size) != 0) {
        return -1;
    }
    p.set = set;
    return add_problem(shapes, &p, error, size);
}

/* Whether another operation before problem i has sizes of the same names and values. */
static int is_repeated(const struct bench_shapes *shapes, int i)
{
    const struct problem *p = shapes->problem;
    int found = 0;
    for (int j = 0; j < i && !found; j++) {
        found = strcmp(p[j].op->dims, p[i].op->dims) == 0 && strcmp(p[j].shape, p[i].shape) == 0;
    }
    return found;
}

static double nominal_seconds(const struct problem *p)
{
    return fmax(p->macs / NOMINAL_MACS, (p->read_bytes + p->write_bytes) / NOMINAL_BYTES);
}

/* All shapes of a set that have the sizes of the operation, and need no more than `most`. */
static int add_from_set(struct bench_shapes *shapes, const char *op, const char *from,
                        const char *set, double most, char *error, size_t size)
{
    const struct bench_op *wanted = bench_op_find(op);
    struct bench_shapes all = {0};
    int status = -1;
    if (wanted == NULL) {
        struct problem p;
        bench_problem(&p, op, "1", error, size); /* says which there are */
    } else if (strcmp(from, set) == 0) {
        snprintf(error, size, "a set cannot be a part of itself");
    } else {
        status = bench_shapes_add_set(&all, from, error, size);
    }
    for (int i = 0; i < all.count && status == 0; i++) {
        const struct problem *p = &all.problem[i];
        if (strcmp(p->op->dims, wanted->dims) != 0 || is_repeated(&all, i)) {
            continue;
        }
        if (nominal_seconds(p) > most) {
            shapes->left_out++;
            continue;
        }
        /* Of its own set: where the budget is short, it comes behind what stands there itself. */
        status = add_one(shapes, op, p->shape, p->set, error, size);
    }
    bench_shapes_free(&all);
    return status;
}

/* A word behind the shape: 0, or -1 where it is none. */
static int take_word(const char *word, double *most)
{
    static const char key[] = "most=";
    if (strncmp(word, key, sizeof key - 1) == 0) {
        char *end;
        *most = strtod(word + sizeof key - 1, &end);
        return *end == '\0' && *most > 0.0 ? 0 : -1;
    }
    return strchr(word, '=') != NULL ? 0 : -1;
}

int bench_shapes_add_line(struct bench_shapes *shapes, char *line, const char *set, char *error,
                          size_t size)
{
    char *rest = NULL, *ops = strtok_r(line, " \t\r", &rest);
    char *shape = ops != NULL ? strtok_r(NULL, " \t\r", &rest) : NULL;
    if (ops == NULL) {
        return 0;
    }
    if (shape == NULL) {
        snprintf(error, size, "expected 'op[,op...] shape', found '%.40s' alone", ops);
        return -1;
    }
    double most = INFINITY;
    for (char *more; (more = strtok_r(NULL, " \t\r", &rest)) != NULL;) {
        if (take_word(more, &most) != 0) {
            snprintf(error, size, "expected 'op[,op...] shape', found '%.40s ... %.40s'", ops,
                     more);
            return -1;
        }
    }
    int status = 0;
    for (char *op = ops; op != NULL && status == 0;) {
        char *comma = strchr(op, ',');
        if (comma != NULL) {
            *comma = '\0';
        }
        status = shape[0] == '@' ? add_from_set(shapes, op, shape + 1, set, most, error, size)
                                 : add_one(shapes, op, shape, set, error, size);
        op = comma != NULL ? comma + 1 : NULL;
    }
    return status;
}

/* text (bytes): a whole file, called `file` in messages. Nothing is added where a line is wrong. */
static int parse_text(struct bench_shapes *shapes, const char *text, size_t bytes, const char *file,
                      const char *set, char *error, size_t size)
{
    int count = shapes->count;
    size_t number = 1;
    for (const char *line = text; line < text + bytes; number++) {
        size_t left = (size_t)(text + bytes - line);
        const char *newline = memchr(line, '\n', left);
        size_t length = newline != NULL ? (size_t)(newline - line) : left;
        const char *comment = memchr(line, '#', length);
        size_t used = comment != NULL ? (size_t)(comment - line) : length;
        char copy[MOST_LINE], why[600] = "";
        int failed = 0;
        if (used >= sizeof copy) {
            snprintf(why, sizeof why, "the line has more than %d characters", MOST_LINE - 1);
            failed = 1;
        } else if (memchr(line, '\0', used) != NULL) {
            snprintf(why, sizeof why, "this is no text: there is a zero byte");
            failed = 1;
        } else {
            memcpy(copy, line, used);
            copy[used] = '\0';
            failed = bench_shapes_add_line(shapes, copy, set, why, sizeof why) != 0;
        }
        if (failed) {
            snprintf(error, size, "%s, line %zu: %s", file, number, why);
            shapes->count = count;
            return -1;
        }
        line += newline != NULL ? length + 1 : length;
    }
    return 0;
}

/* ---- sets and files -------------------------------------------------------------------------- */

int bench_shapes_add_set(struct bench_shapes *shapes, const char *set, char *error, size_t size)
{
    for (int i = 0; i < SETS; i++) {
        if (strcmp(sets[i].name, set) == 0) {
            const char *text = (const char *)sets[i].text;
            return parse_text(shapes, text, strlen(text), sets[i].file, sets[i].name, error, size);
        }
    }
    size_t used = (size_t)snprintf(error, size, "unknown shape set '%.40s': expected", set);
    for (int i = 0; i < SETS && used < size; i++) {
        used +=
            (size_t)snprintf(error + used, size - used, "%s %s", i > 0 ? "," : "", sets[i].name);
    }
    return -1;
}

int bench_shapes_add_file(struct bench_shapes *shapes, const char *path, char *error, size_t size)
{
    const char *base = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(error, size, "%s: %s", path, strerror(errno));
        return -1;
    }
    char *text = malloc(MOST_FILE + 1);
    const char *set = keep_name(shapes, base);
    int result = -1;
    errno = 0;
    size_t bytes = text != NULL ? fread(text, 1, MOST_FILE + 1, file) : 0;
    if (text == NULL || set == NULL) {
        snprintf(error, size, "%s: out of memory", path);
    } else if (ferror(file)) {
        snprintf(error, size, "%s: %s", path, strerror(errno));
    } else if (bytes > MOST_FILE) {
        snprintf(error, size, "%s: larger than %d bytes, this is no list of shapes", path,
                 MOST_FILE);
    } else {
        result = parse_text(shapes, text, bytes, path, set, error, size);
    }
    fclose(file);
    free(text);
    return result;
}
