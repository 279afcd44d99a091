/* t2 inspect: what is in safetensors files, as a table or as JSON. */
#include "cli.h"
#include "io/text.h"

#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#define WIDEST 48 /* columns; longer names and shapes stand out of their column */

struct options {
    int json;
    int quick; /* without fingerprints: the data is not read */
};

struct widths {
    size_t name, shape, bytes;
};

static void print_help(void)
{
    printf("usage: t2 inspect [OPTIONS] FILE...\n\n"
           "Lists the tensors of safetensors files: dtype, shape, bytes and fingerprint (of the\n"
           "values: equal fingerprints mean equal tensors), and the metadata.\n\n"
           "  -j, --json     one JSON object for all files\n"
           "  -q, --quick    no fingerprints: reads the headers only\n"
           "  -h, --help     this text\n\n"
           "A file that cannot be read or is not valid is named on stderr with the reason; the\n"
           "others are still listed, and the exit code is 1 (not readable) or 3 (not valid).\n");
}

/* Characters, not bytes; good enough for padding. */
static size_t columns(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        n += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return n;
}

static void pad(t2_text *line, const char *text, size_t width)
{
    t2_text_str(line, text);
    for (size_t n = columns(text); n < width; n++) {
        t2_text_str(line, " ");
    }
}

static void add_shape(t2_text *text, const t2_tensor *tensor, const char *separator)
{
    t2_text_str(text, "[");
    for (int i = 0; i < tensor->rank; i++) {
        t2_text_printf(text, "%s%" PRId64, i > 0 ? separator : "", tensor->shape[i]);
    }
    t2_text_str(text, "]");
}

/* Makes *cell, which was empty or is used again, the text of a name or a shape. */
static const char *name_cell(t2_text *cell, const char *name)
{
    cell->size = 0;
    t2_text_str(cell, "");
    t2_text_escaped(cell, name);
    return cell->failed ? "" : cell->data;
}

static const char *shape_cell(t2_text *cell, const t2_tensor *tensor)
{
    cell->size = 0;
    add_shape(cell, tensor, ", ");
    return cell->failed ? "" : cell->data;
}

static void widen(size_t *width, size_t need)
{
    need = need < WIDEST ? need : WIDEST;
    *width = need > *width ? need : *width;
}

static struct widths measure(const t2_safetensors *file, t2_text *cell)
{
    struct widths w = {strlen("name"), strlen("shape"), strlen("bytes")};
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        char number[32];
        widen(&w.name, columns(name_cell(cell, tensor->name)));
        widen(&w.shape, strlen(shape_cell(cell, tensor)));
        widen(&w.bytes, (size_t)snprintf(number, sizeof number, "%zu", tensor->bytes));
    }
    return w;
}

static size_t tensor_bytes(const t2_safetensors *file)
{
    size_t sum = 0;
    for (size_t i = 0; i < t2_safetensors_count(file); i++) {
        sum += t2_safetensors_tensor(file, i)->bytes;
    }
    return sum;
}

/* Prints a line and makes it empty; 0 when memory ran out while it was made. */
static int flush_line(t2_text *line)
{
    if (line->failed) {
        return 0;
    }
    fwrite(line->data, 1, line->size, stdout);
    line->size = 0;
    return 1;
}

static int print_table(const t2_safetensors *file, const struct options *options, t2_text *line,
                       t2_text *cell)
{
    size_t count = t2_safetensors_count(file), pairs = t2_safetensors_metadata_count(file);
    struct widths w = measure(file, cell);
    t2_text_printf(line, "%s\n", name_cell(cell, t2_safetensors_path(file)));
    if (count > 0) {
        t2_text_str(line, "  ");
        pad(line, "name", w.name + 2);
        pad(line, "dtype", 9);
        pad(line, "shape", w.shape + 2);
        t2_text_printf(line, "%*s%s\n", (int)w.bytes, "bytes",
                       options->quick ? "" : "  fingerprint");
    }
    for (size_t i = 0; i < count && flush_line(line); i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        t2_text_str(line, "  ");
        pad(line, name_cell(cell, tensor->name), w.name + 2);
        pad(line, t2_dtype_name(tensor->dtype), 9);
        pad(line, shape_cell(cell, tensor), w.shape + 2);
        t2_text_printf(line, "%*zu", (int)w.bytes, tensor->bytes);
        if (!options->quick) {
            t2_text_printf(line, "  %016" PRIx64, t2_tensor_fingerprint(tensor));
        }
        t2_text_str(line, "\n");
    }
    for (size_t i = 0; i < pairs && flush_line(line); i++) {
        const t2_pair *pair = t2_safetensors_metadata(file, i);
        t2_text_printf(line, "  metadata %s", name_cell(cell, pair->key));
        t2_text_printf(line, " = %s\n", name_cell(cell, pair->value));
    }
    t2_text_printf(line, "  total %zu tensor%s, %zu bytes, %zu metadata entr%s\n", count,
                   count == 1 ? "" : "s", tensor_bytes(file), pairs, pairs == 1 ? "y" : "ies");
    return flush_line(line) && !cell->failed;
}

static int print_json(const t2_safetensors *file, const struct options *options, t2_text *line)
{
    size_t count = t2_safetensors_count(file), pairs = t2_safetensors_metadata_count(file);
    t2_text_str(line, ",\"tensors\":[");
    for (size_t i = 0; i < count && flush_line(line); i++) {
        const t2_tensor *tensor = t2_safetensors_tensor(file, i);
        t2_text_str(line, i > 0 ? ",\n{\"name\":" : "\n{\"name\":");
        t2_text_json_shown(line, tensor->name);
        t2_text_printf(line, ",\"dtype\":\"%s\",\"shape\":", t2_dtype_name(tensor->dtype));
        add_shape(line, tensor, ",");
        t2_text_printf(line, ",\"bytes\":%zu", tensor->bytes);
        if (!options->quick) {
            t2_text_printf(line, ",\"fingerprint\":\"%016" PRIx64 "\"",
                           t2_tensor_fingerprint(tensor));
        }
        t2_text_str(line, "}");
    }
    t2_text_str(line, "],\"metadata\":{");
    for (size_t i = 0; i < pairs && flush_line(line); i++) {
        const t2_pair *pair = t2_safetensors_metadata(file, i);
        t2_text_str(line, i > 0 ? "," : "");
        t2_text_json_shown(line, pair->key);
        t2_text_str(line, ":");
        t2_text_json_shown(line, pair->value);
    }
    t2_text_printf(line, "},\"tensor_count\":%zu,\"tensor_bytes\":%zu}", count, tensor_bytes(file));
    return flush_line(line);
}

/* Lists one file; returns its exit code. */
static int inspect(const char *path, const struct options *options, int first, t2_text *line,
                   t2_text *cell)
{
    t2_error err;
    t2_safetensors *file;
    t2_status status = t2_safetensors_open(path, 0, &file, &err);
    if (options->json) {
        t2_text_str(line, first ? "{\"file\":" : ",\n{\"file\":");
        t2_text_json_shown(line, path);
    } else if (status == T2_OK && !first) {
        t2_text_str(line, "\n");
    }
    if (status != T2_OK) {
        if (options->json) {
            t2_text_str(line, ",\"error\":");
            t2_text_json_shown(line, err.message);
            t2_text_str(line, "}");
            flush_line(line);
        }
        return t2_cli_error(&err);
    }
    int ok =
        options->json ? print_json(file, options, line) : print_table(file, options, line, cell);
    t2_safetensors_close(file);
    return ok ? T2_EXIT_OK : t2_cli_fail(T2_EXIT_MEMORY, "inspect: out of memory");
}

int t2_cli_inspect(int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options options = {0, 0};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":jqh", longs, NULL)) != -1) {
        switch (option) {
        case 'j':
            options.json = 1;
            break;
        case 'q':
            options.quick = 1;
            break;
        case 'h':
            print_help();
            return T2_EXIT_OK;
        default:
            return t2_cli_bad_option("inspect", argv, option);
        }
    }
    if (optind >= argc) {
        return t2_cli_fail(T2_EXIT_USAGE, "inspect: no file given; see 't2 inspect --help'");
    }
    int worst = T2_EXIT_OK;
    t2_text line = {0}, cell = {0};
    printf("%s", options.json ? "{\"files\":[" : "");
    for (int i = optind, first = 1; i < argc && worst != T2_EXIT_MEMORY; i++) {
        int code = inspect(argv[i], &options, first, &line, &cell);
        first = first && code != T2_EXIT_OK && !options.json;
        worst = code > worst ? code : worst;
    }
    printf("%s", options.json ? "]}\n" : "");
    t2_text_free(&line);
    t2_text_free(&cell);
    int flushed = t2_cli_finish_stdout();
    return worst != T2_EXIT_OK ? worst : flushed;
}
