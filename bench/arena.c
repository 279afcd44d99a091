/* Arenas: the operands of one problem, several copies of them where they shall be cold, in memory
 * without a file that worker processes open by its path below /proc. */
#define _GNU_SOURCE /* memfd_create, MADV_HUGEPAGE, MADV_POPULATE_WRITE */
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARENA_PAGE = 4096, MOST_COPIES = 1024 };
#define MOST_SCATTERED ((size_t)32 << 20) /* beyond it all caches are passed through anyway */

/* ---- layout ---------------------------------------------------------------------------------- */

static size_t input_bytes(const struct bench_input *input)
{
    size_t element = input->type == BENCH_F32 ? 4 : 8;
    return element * (size_t)input->count;
}

static size_t out_bytes(const struct problem *p)
{
    return (size_t)p->rows * (size_t)p->cols * sizeof(float);
}

static int is_copied(const struct bench_input *input, enum bench_operands operands)
{
    return operands == BENCH_COLD_ALL ||
           (operands == BENCH_COLD_WEIGHTS && input->role == BENCH_WEIGHT);
}

int bench_copies(const struct problem *p, enum bench_operands operands, size_t llc_bytes)
{
    if (operands == BENCH_HOT) {
        return 1;
    }
    size_t bytes = operands == BENCH_COLD_ALL ? out_bytes(p) : 0;
    for (int i = 0; i < p->inputs; i++) {
        bytes += is_copied(&p->input[i], operands) ? input_bytes(&p->input[i]) : 0;
    }
    /* Between two uses of a byte lie the other copies and the rest of its own. */
    size_t most = (size_t)MOST_COPIES * bytes;
    if (bytes == 0 || llc_bytes > most / 2) {
        return 0;
    }
    size_t copies = (2 * llc_bytes + bytes - 1) / bytes;
    return copies > 0 ? (int)copies : 1;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + ARENA_PAGE - 1) / ARENA_PAGE * ARENA_PAGE;
}

void bench_arena_layout(const struct problem *p, enum bench_operands operands, int copies,
                        struct bench_arena *arena)
{
    memset(arena, 0, sizeof *arena);
    arena->fd = -1;
    arena->copies = copies;
    for (int i = 0; i < p->inputs; i++) {
        int copied = copies > 1 && is_copied(&p->input[i], operands);
        size_t bytes = whole_pages(input_bytes(&p->input[i]));
        arena->offset[i] = arena->bytes;
        arena->stride[i] = copied ? bytes : 0;
        arena->bytes += bytes * (copied ? (size_t)copies : 1);
    }
    int copied = copies > 1 && operands == BENCH_COLD_ALL;
    size_t bytes = whole_pages(out_bytes(p));
    arena->out_offset = arena->bytes;
    arena->out_stride = copied ? bytes : 0;
    arena->bytes += bytes * (copied ? (size_t)copies : 1);
}

void bench_arena_operands(const struct problem *p, const struct bench_arena *arena, int copy,
                          const void *in[BENCH_INPUTS], float **out)
{
    for (int i = 0; i < p->inputs; i++) {
        in[i] = arena->base + arena->offset[i] + (size_t)copy * arena->stride[i];
    }
    *out = (float *)(void *)(arena->base + arena->out_offset + (size_t)copy * arena->out_stride);
}

/* ---- content --------------------------------------------------------------------------------- */

static void fill_floats(float *x, int64_t n, float range, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        /* 24 random bits, so that the conversion and the scaling by 2^-23 are exact. */
        x[i] = ((float)(bench_random(&seed) >> 40) * 0x1p-23f - 1.0f) * range;
    }
}

struct filling {
    const struct problem *p;
    const struct bench_arena *arena;
};

/* Copy 0. Its parts are independent, the generator's state being a counter: element i starts from
 * the state `input + i * step`. */
static void fill_part(t2k_team *team, void *arg)
{
    const struct filling *f = arg;
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    for (int i = 0; i < f->p->inputs; i++) {
        const struct bench_input *input = &f->p->input[i];
        int64_t rank = t2k_team_rank(team), size = t2k_team_size(team);
        int64_t chunk = input->count / size + 1;
        int64_t first = rank * chunk < input->count ? rank * chunk : input->count;
        int64_t last = first + chunk < input->count ? first + chunk : input->count;
        unsigned char *data = f->arena->base + f->arena->offset[i];
        uint64_t seed = (uint64_t)i + (uint64_t)first * step;
        if (input->type == BENCH_F32) {
            fill_floats((float *)(void *)data + first, last - first, input->range, seed);
        }
        for (int64_t e = first; e < last && input->type == BENCH_I64; e++) {
            ((int64_t *)(void *)data)[e] =
                (int64_t)(bench_random(&seed) % (uint64_t)(input->below > 0 ? input->below : 1));
        }
    }
}

static void fill(const struct problem *p, const struct bench_arena *arena)
{
    struct filling filling = {p, arena};
    if (t2k_parallel(0, fill_part, &filling) != T2K_OK) {
        t2k_parallel(1, fill_part, &filling);
    }
    for (int i = 0; i < p->inputs; i++) {
        for (int c = 1; c < arena->copies && arena->stride[i] > 0; c++) {
            memcpy(arena->base + arena->offset[i] + (size_t)c * arena->stride[i],
                   arena->base + arena->offset[i], input_bytes(&p->input[i]));
        }
    }
    /* NaN, so that a result that nobody wrote fails, and so that the pages exist. */
    memset(arena->base + arena->out_offset, 0xff, arena->bytes - arena->out_offset);
}

/* ---- memory ---------------------------------------------------------------------------------- */

size_t bench_memory_available(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) {
        return SIZE_MAX;
    }
    int found = 0;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "MemAvailable: %llu", &kib) == 1;
    }
    fclose(file);
    return found ? (size_t)kib * 1024 : SIZE_MAX;
}

static int map_memory(struct bench_arena *arena, int fd, char *error, size_t size)
{
    void *base = mmap(NULL, arena->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        snprintf(error, size, "operands: cannot map %zu MiB: %s", arena->bytes >> 20,
                 strerror(errno));
        return -1;
    }
    (void)madvise(base, arena->bytes, MADV_HUGEPAGE); /* a wish: not every kernel grants it */
    arena->base = base;
    return 0;
}

void bench_arena_populate(const struct bench_arena *arena)
{
#ifdef MADV_POPULATE_WRITE
    if (madvise(arena->base, arena->bytes, MADV_POPULATE_WRITE) == 0) {
        return;
    }
#endif
    /* Linux before 5.14. One read of each page is enough, since all of them are there. */
    for (size_t at = 0; at < arena->bytes; at += ARENA_PAGE) {
        (void)*(volatile unsigned char *)(arena->base + at);
    }
}

int bench_arena_create(const struct problem *p, enum bench_operands operands, int copies,
                       struct bench_arena *arena, char *error, size_t size)
{
    bench_arena_layout(p, operands, copies, arena);
    /* Memory is only taken when it is written, and then its lack would kill the process. */
    size_t available = bench_memory_available();
    if (arena->bytes > available) {
        snprintf(error, size, "operands: %s/%s needs %zu MiB of memory, %zu MiB are available",
                 p->op->name, p->shape, arena->bytes >> 20, available >> 20);
        return -1;
    }
    arena->fd = memfd_create("t2bench", MFD_CLOEXEC);
    if (arena->fd < 0 || ftruncate(arena->fd, (off_t)arena->bytes) != 0) {
        snprintf(error, size, "operands: cannot get %zu MiB of shared memory: %s",
                 arena->bytes >> 20, strerror(errno));
        bench_arena_release(arena);
        return -1;
    }
    if (map_memory(arena, arena->fd, error, size) != 0) {
        bench_arena_release(arena);
        return -1;
    }
    snprintf(arena->path, sizeof arena->path, "/proc/%ld/fd/%d", (long)getpid(), arena->fd);
    fill(p, arena);
    return 0;
}

int bench_arena_map(const struct problem *p, enum bench_operands operands, int copies,
                    const char *path, struct bench_arena *arena, char *error, size_t size)
{
    bench_arena_layout(p, operands, copies, arena);
    snprintf(arena->path, sizeof arena->path, "%s", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        snprintf(error, size, "operands: cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    struct stat info;
    int failed = fstat(fd, &info) != 0;
    if (failed) {
        snprintf(error, size, "operands: %s: %s", path, strerror(errno));
    } else if (info.st_size < 0 || (size_t)info.st_size != arena->bytes) {
        /* Reading past the end of a file would kill the process. */
        snprintf(error, size, "operands: %s has %lld bytes, expected %zu", path,
                 (long long)info.st_size, arena->bytes);
        failed = 1;
    } else {
        failed = map_memory(arena, fd, error, size) != 0;
    }
    close(fd);
    return failed ? -1 : 0;
}

void bench_arena_scatter(struct bench_arena *arena, uint64_t *random)
{
    const size_t count = arena->bytes / ARENA_PAGE;
    unsigned char *copy = arena->bytes <= MOST_SCATTERED ? malloc(arena->bytes) : NULL;
    size_t *order = malloc((count + 1) * sizeof *order);
    if (copy == NULL || order == NULL) {
        goto done;
    }
    memcpy(copy, arena->base, arena->bytes);
    if (fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  (off_t)(count * ARENA_PAGE)) != 0) {
        goto done;
    }
    /* The kernel gives a page where one is written first. */
    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)(bench_random(random) % (i + 1));
        order[i] = order[at];
        order[at] = i;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(arena->base + ARENA_PAGE * order[i], copy + ARENA_PAGE * order[i], ARENA_PAGE);
    }
done:
    free(order);
    free(copy);
}

void bench_arena_release(struct bench_arena *arena)
{
    if (arena->base != NULL) {
        munmap(arena->base, arena->bytes);
    }
    if (arena->fd >= 0) {
        close(arena->fd);
    }
    arena->base = NULL;
    arena->fd = -1;
}
