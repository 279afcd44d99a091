/* The table of contenders, and where their libraries and Python modules are found: below the folder
 * of the virtual environment that `make peers` fills, then where the system has them. */
#define _GNU_SOURCE /* realpath, memrchr */
#include "client.h"
#include "embed.h"
#include "peers.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Every variable that one of these libraries takes the number of threads from. */
#define THREADS "OMP_NUM_THREADS=%d OPENBLAS_NUM_THREADS=%d BLIS_NUM_THREADS=%d MKL_NUM_THREADS=%d"
#define MKL_LIBRARIES "libmkl_rt.so.3 libmkl_rt.so.2 libmkl_rt.so"
#define MKL_VARIABLES THREADS " MKL_INTERFACE_LAYER=LP64"
#define BLAS_OPS "^(sgemm(_nt|_tn|_tt|_packed|_fast|_batched)?|svd_rebuild(_dense)?)$"

const struct bench_peer bench_peers[] = {
    {.name = "t2k",
     .adapter = "t2k",
     .environment = "OMP_NUM_THREADS=%d",
     .ops = ".",
     .text = "our own kernels"},
    {.name = "openblas",
     .adapter = "cblas",
     .libraries = "libopenblas.so.0",
     .environment = THREADS,
     .ops = BLAS_OPS,
     .text = "OpenBLAS"},
    {.name = "blis",
     .adapter = "cblas",
     .libraries = "libblis.so.4 libblis.so.5 libblis.so.3",
     .environment = THREADS,
     .ops = BLAS_OPS,
     .text = "BLIS"},
    {.name = "mkl",
     .adapter = "cblas",
     .libraries = MKL_LIBRARIES,
     .environment = MKL_VARIABLES,
     .ops = BLAS_OPS,
     .text = "Intel MKL as it comes"},
    {.name = "mkl-cnr",
     .adapter = "cblas",
     .libraries = MKL_LIBRARIES,
     .environment = MKL_VARIABLES " MKL_CBWR=COMPATIBLE",
     .ops = BLAS_OPS,
     .text = "Intel MKL in its mode of reproducible bits on every x86 CPU"},
    {.name = "onednn",
     .adapter = "onednn",
     .libraries = "libdnnl.so.3 libdnnl.so.2",
     .environment = THREADS,
     .ops = "^(sgemm(_nt|_tn|_tt|_packed|_fast|_batched)?|svd_rebuild(_dense)?|softmax"
            "|(layer|rms)_norm(_residual)?|exp|relu|gelu(_tanh)?|silu|add|scale_columns)$",
     .text = "oneDNN"},
    {.name = "torch",
     .adapter = "torch_worker",
     .libraries = "torch numpy",
     .environment = THREADS,
     .ops = ".",
     .slow_start = 1,
     .text = "PyTorch, eager"},
    {.name = "torch-compiled",
     .adapter = "torch_worker --compile",
     .libraries = "torch numpy",
     .environment = THREADS,
     .ops = "^model$",
     .slow_start = 1,
     .text = "PyTorch, the model compiled by torch.compile"},
    {.name = "onnxruntime",
     .adapter = "onnxruntime_worker",
     .libraries = "onnxruntime onnx numpy",
     .environment = THREADS,
     .ops = ".",
     .slow_start = 1,
     .text = "ONNX Runtime"},
    {.name = NULL}};
const int bench_peer_count = sizeof bench_peers / sizeof bench_peers[0] - 1;

static const struct bench_peer against_peer = {
    .name = "against",
    .adapter = "cblas",
    .environment = THREADS,
    .ops = BLAS_OPS,
    .text = "the library or the other t2bench that --against names"};

BENCH_EMBED(peer_bundle_py, "bench/peers/bundle.py");
BENCH_EMBED(peer_worker_py, "bench/peers/worker.py");
BENCH_EMBED(peer_torch_worker_py, "bench/peers/torch_worker.py");
BENCH_EMBED(peer_onnxruntime_worker_py, "bench/peers/onnxruntime_worker.py");

const struct bench_script bench_scripts[] = {
    {"bundle", (const char *)peer_bundle_py},
    {"worker", (const char *)peer_worker_py},
    {"torch_worker", (const char *)peer_torch_worker_py},
    {"onnxruntime_worker", (const char *)peer_onnxruntime_worker_py},
    {NULL, NULL}};

const struct bench_peer *bench_peer_find(const char *name)
{
    for (int i = 0; i < bench_peer_count; i++) {
        if (strcmp(bench_peers[i].name, name) == 0) {
            return &bench_peers[i];
        }
    }
    return NULL;
}

const struct bench_peer *bench_peer_against(void)
{
    return &against_peer;
}

int bench_against_is_t2bench(const char *against)
{
    const char *slash = strrchr(against, '/');
    return strstr(slash != NULL ? slash : against, ".so") == NULL;
}

int bench_peer_is_script(const struct bench_peer *peer)
{
    size_t length = strcspn(peer->adapter, " ");
    for (int i = 0; bench_scripts[i].name != NULL; i++) {
        if (strlen(bench_scripts[i].name) == length &&
            memcmp(bench_scripts[i].name, peer->adapter, length) == 0) {
            return 1;
        }
    }
    return 0;
}

int bench_next_word(const char **list, char word[PEERS_WORD])
{
    int length = 0;
    if (*list == NULL || sscanf(*list, " %127s%n", word, &length) != 1) {
        return 0;
    }
    *list += length;
    return 1;
}

/* ---- the virtual environment ----------------------------------------------------------------- */

int bench_peers_folder(char path[PEERS_PATH])
{
    char start[PEERS_PATH];
    const char *given = getenv("T2BENCH_PEERS");
    if (given == NULL || given[0] == '\0') {
        static const char beside[] = "/../peers";
        ssize_t n = readlink("/proc/self/exe", start, sizeof start - sizeof beside);
        char *slash = n > 0 ? memrchr(start, '/', (size_t)n) : NULL;
        if (slash == NULL) {
            return -1;
        }
        memcpy(slash, beside, sizeof beside);
        given = start;
    }
    char *real = realpath(given, NULL);
    int n = real != NULL ? snprintf(path, PEERS_PATH, "%s", real) : -1;
    free(real);
    return n >= 0 && n < PEERS_PATH ? 0 : -1;
}

/* The first file that a pattern matches. */
static int find_pattern(const char *folder, const char *inside, const char *name,
                        char path[PEERS_PATH])
{
    char pattern[2 * PEERS_PATH];
    glob_t found;
    int n = snprintf(pattern, sizeof pattern, "%s%s%s", folder, inside, name);
    if (n < 0 || (size_t)n >= sizeof pattern || glob(pattern, 0, NULL, &found) != 0) {
        return -1;
    }
    n = snprintf(path, PEERS_PATH, "%s", found.gl_pathv[0]);
    globfree(&found);
    return n >= 0 && n < PEERS_PATH ? 0 : -1;
}

int bench_peers_library(const char *name, char path[PEERS_PATH])
{
    static const char *const inside[] = {"/lib/", "/lib/python3*/site-packages/",
                                         "/lib/python3*/site-packages/*/",
                                         "/lib/python3*/site-packages/*/lib/"};
    char folder[PEERS_PATH];
    if (bench_peers_folder(folder) != 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        if (find_pattern(folder, inside[i], name, path) == 0) {
            return 0;
        }
    }
    return -1;
}

/* Whether there are all modules in one folder of them; else one that is missing. */
static int has_modules(const char *folder, const char *inside, const char *modules,
                       char missing[PEERS_WORD])
{
    char path[PEERS_PATH];
    while (bench_next_word(&modules, missing)) {
        if (find_pattern(folder, inside, missing, path) != 0) {
            return 0;
        }
    }
    return 1;
}

int bench_peers_python(const char *modules, char path[PEERS_PATH], char missing[PEERS_WORD])
{
    static const char *const inside[] = {"/lib/python3*/site-packages/",
                                         "/lib/python3/dist-packages/",
                                         "/local/lib/python3*/dist-packages/"};
    static const char system_python[] = "/usr/bin/python3";
    char folder[PEERS_PATH], unused[PEERS_WORD];
    const char *first = modules;
    missing[0] = '\0';
    bench_next_word(&first, missing);
    if (bench_peers_folder(folder) == 0) {
        int n = snprintf(path, PEERS_PATH, "%s/bin/python", folder);
        if (n > 0 && n < PEERS_PATH && access(path, X_OK) == 0 &&
            has_modules(folder, inside[0], modules, missing)) {
            return 0;
        }
    }
    memcpy(path, system_python, sizeof system_python);
    for (size_t i = 0; access(path, X_OK) == 0 && i < sizeof inside / sizeof inside[0]; i++) {
        if (has_modules("/usr", inside[i], modules, unused)) {
            return 0;
        }
    }
    return -1;
}

/* ---- what the system has --------------------------------------------------------------------- */

static int in_folders(const char *folders, const char *name)
{
    char path[PEERS_PATH];
    for (const char *at = folders; at != NULL && *at != '\0';) {
        size_t length = strcspn(at, ":\n");
        int n = snprintf(path, sizeof path, "%.*s/%s", (int)length, at, name);
        if (length > 0 && n > 0 && (size_t)n < sizeof path && access(path, R_OK) == 0) {
            return 1;
        }
        at += length + (at[length] != '\0');
    }
    return 0;
}

/* Folders that the dynamic linker's configuration names, one a line. */
static int in_configuration(const char *pattern, const char *name, int depth)
{
    glob_t found;
    int here = 0;
    if (depth > 4 || glob(pattern, 0, NULL, &found) != 0) {
        return 0;
    }
    for (size_t i = 0; i < found.gl_pathc && !here; i++) {
        char line[PEERS_PATH], inner[PEERS_PATH];
        FILE *file = fopen(found.gl_pathv[i], "re");
        while (file != NULL && !here && fgets(line, sizeof line, file) != NULL) {
            line[strcspn(line, "\n#")] = '\0';
            here = sscanf(line, "include %4095s", inner) == 1
                       ? in_configuration(inner, name, depth + 1)
                       : in_folders(line, name);
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    globfree(&found);
    return here;
}

/* Looked up, not loaded: a library may start threads as soon as it is loaded. */
static int in_system(const char *name)
{
    return in_folders(getenv("LD_LIBRARY_PATH"), name) ||
           in_configuration("/etc/ld.so.conf", name, 0) ||
           in_folders("/lib64:/usr/lib64:/lib:/usr/lib", name);
}

int bench_peer_present(const struct bench_peer *peer, char *reason, size_t size)
{
    char path[PEERS_PATH], name[PEERS_WORD];
    if (bench_peer_is_script(peer)) {
        int missing = bench_peers_python(peer->libraries, path, name);
        if (missing) {
            snprintf(reason, size, "not installed: Python module %s; make peers installs it", name);
        }
        return !missing;
    }
    for (const char *names = peer->libraries; bench_next_word(&names, name);) {
        if (bench_peers_library(name, path) == 0 || in_system(name)) {
            return 1;
        }
    }
    const char *names = peer->libraries;
    if (bench_next_word(&names, name)) {
        snprintf(reason, size, "not installed: %s; make peers installs it", name);
        return 0;
    }
    return 1;
}
