/* t2 init: a model folder with PyTorch's default initialisation. */
#include "cli.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: t2 init DIR --vocab-size V [OPTIONS]\n\n"
    "Creates the folder DIR with config.json and model.safetensors: a Transformer^2 model with\n"
    "random weights in PyTorch's default distributions, the same on every machine.\n\n"
    "  --vocab-size V         number of tokens\n"
    "  --embed-size E         channels (256)\n"
    "  --num-layers N         layers (4)\n"
    "  --heads H              attention heads (8); E must be a multiple\n"
    "  --dropout P            in training mode (0.1)\n"
    "  --forward-expansion F  the feed-forward layer is F * E wide (4)\n"
    "  --num-experts K        channel scales per layer (3)\n"
    "  --mask none|causal     the mask the model is meant for (none)\n"
    "  --max-length L         positions it is meant for (no limit)\n"
    "  --seed S               of the random numbers (0)\n"
    "  --force                replace a model that is there already\n"
    "  --help                 this text\n\n"
    "The defaults are the notebook's example.\n";

enum {
    OPT_VOCAB = 256,
    OPT_EMBED,
    OPT_LAYERS,
    OPT_HEADS,
    OPT_DROPOUT,
    OPT_EXPANSION,
    OPT_EXPERTS,
    OPT_MASK,
    OPT_LENGTH,
    OPT_SEED,
    OPT_FORCE
};

static const struct option options[] = {
    {"vocab-size", required_argument, NULL, OPT_VOCAB},
    {"embed-size", required_argument, NULL, OPT_EMBED},
    {"num-layers", required_argument, NULL, OPT_LAYERS},
    {"heads", required_argument, NULL, OPT_HEADS},
    {"dropout", required_argument, NULL, OPT_DROPOUT},
    {"forward-expansion", required_argument, NULL, OPT_EXPANSION},
    {"num-experts", required_argument, NULL, OPT_EXPERTS},
    {"mask", required_argument, NULL, OPT_MASK},
    {"max-length", required_argument, NULL, OPT_LENGTH},
    {"seed", required_argument, NULL, OPT_SEED},
    {"force", no_argument, NULL, OPT_FORCE},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0}};

/* The field of an integer option, NULL for other options. */
static int64_t *field_of(t2_config *config, int option)
{
    switch (option) {
    case OPT_VOCAB:
        return &config->vocab_size;
    case OPT_EMBED:
        return &config->embed_size;
    case OPT_LAYERS:
        return &config->num_layers;
    case OPT_HEADS:
        return &config->heads;
    case OPT_EXPANSION:
        return &config->forward_expansion;
    case OPT_EXPERTS:
        return &config->num_experts;
    case OPT_LENGTH:
        return &config->max_length;
    default:
        return NULL;
    }
}

/* 0 where the value is wrong. */
static int set_option(t2_config *config, uint64_t *seed, int option)
{
    int64_t *field = field_of(config, option);
    if (field != NULL) {
        return t2_cli_int(optarg, 0, INT64_MAX, field);
    }
    if (option == OPT_DROPOUT) {
        return t2_cli_double(optarg, 0.0, 1.0, &config->dropout);
    }
    if (option == OPT_SEED) {
        return t2_cli_uint64(optarg, seed);
    }
    config->mask = strcmp(optarg, "causal") == 0 ? T2_MODEL_MASK_CAUSAL : T2_MODEL_MASK_NONE;
    return strcmp(optarg, "causal") == 0 || strcmp(optarg, "none") == 0;
}

static int exists(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);
    if (path == NULL) {
        return 0;
    }
    snprintf(path, size, "%s/%s", dir, name);
    int found = access(path, F_OK) == 0;
    free(path);
    return found;
}

int t2_cli_init(int argc, char **argv)
{
    t2_config config;
    t2_config_example(&config);
    config.vocab_size = 0;
    uint64_t seed = 0;
    int force = 0, c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return T2_EXIT_OK;
        }
        if (c == '?' || c == ':') {
            return t2_cli_bad_option("init", argv, c);
        }
        if (c == OPT_FORCE) {
            force = 1;
        } else if (!set_option(&config, &seed, c)) {
            return t2_cli_bad_value("init", argv);
        }
    }
    if (argc - optind != 1) {
        return t2_cli_fail(T2_EXIT_USAGE, "init: expected one folder; see 't2 init --help'");
    }
    const char *dir = argv[optind];
    if (config.vocab_size == 0) {
        return t2_cli_fail(T2_EXIT_USAGE, "init: --vocab-size is needed; see 't2 init --help'");
    }
    t2_error err;
    if (t2_config_check(&config, &err) != T2_OK) {
        return t2_cli_fail(T2_EXIT_USAGE, "init: %s", err.message);
    }
    if (!force && (exists(dir, "model.safetensors") || exists(dir, "config.json"))) {
        return t2_cli_fail(T2_EXIT_RUNTIME, "%s holds a model already; --force replaces it", dir);
    }
    if (t2_init_model(dir, &config, seed, &err) != T2_OK) {
        return t2_cli_error(&err);
    }
    fprintf(stderr, "t2: wrote %s: %lld parameters, seed %llu\n", dir,
            (long long)t2_config_parameters(&config), (unsigned long long)seed);
    return T2_EXIT_OK;
}
