#include "callers.h"

#include "check.h"
#include "t2k.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { WIDEST = 96 * 96 };

static float expected[CALLERS_CASES][WIDEST];
static int expected_count[CALLERS_CASES];

/* One of a dozen calls of different kinds, shapes and transposes; the number of results in out,
 * -1 on failure. */
static int compute(int which, float *out)
{
    static const int64_t sizes[CALLERS_CASES][3] = {
        {96, 96, 96}, {1, 90, 300}, {33, 7, 513}, {64, 64, 64}, {5, 95, 40}, {17, 17, 17},
        {48, 80, 20}, {96, 1, 260}, {30, 31, 32}, {2, 96, 96},  {60, 3, 9},  {13, 64, 257}};
    struct rng rng = {(uint64_t)which + 77};
    int64_t m = sizes[which][0], n = sizes[which][1], k = sizes[which][2];
    size_t a_size = (size_t)(m * k), b_size = (size_t)(k * n);
    float *a = malloc((a_size + b_size) * sizeof *a), *b = a + a_size;
    if (a == NULL) {
        return -1;
    }
    rng_fill(&rng, a, a_size + b_size);
    t2k_transpose ta = which & 1 ? T2K_TRANS : T2K_NO_TRANS;
    t2k_transpose tb = which & 2 ? T2K_TRANS : T2K_NO_TRANS;
    t2k_status status = t2k_sgemm(ta, tb, m, n, k, 1.5f, a, ta == T2K_TRANS ? m : k, b,
                                  tb == T2K_TRANS ? k : n, 0.0f, out, n, NULL);
    if (status == T2K_OK && which % 3 == 0) {
        status = t2k_softmax(m, n, out, n, out, n);
    }
    if (status == T2K_OK && which % 3 == 1) {
        status = t2k_layer_norm(m, n, out, n, NULL, NULL, 0, NULL, NULL, 1e-5f, out, n);
    }
    free(a);
    return status == T2K_OK ? (int)(m * n) : -1;
}

int callers_prepare(void)
{
    t2k_set_num_threads(1);
    int ok = 1;
    for (int i = 0; i < CALLERS_CASES; i++) {
        expected_count[i] = compute(i, expected[i]);
        ok &= expected_count[i] > 0;
    }
    t2k_set_num_threads(0);
    return ok;
}

int callers_differing(int first, int rounds)
{
    float *out = malloc(WIDEST * sizeof *out);
    int wrong = out == NULL;
    for (int r = 0; r < rounds && out != NULL; r++) {
        int i = (first + r * 5) % CALLERS_CASES;
        int n = compute(i, out);
        wrong +=
            n != expected_count[i] || first_difference(out, expected[i], (size_t)n) != (size_t)n;
    }
    free(out);
    return wrong;
}

struct caller {
    pthread_t thread;
    int number, rounds, wrong;
};

static void *call(void *arg)
{
    struct caller *caller = arg;
    caller->wrong = callers_differing(caller->number, caller->rounds);
    return NULL;
}

int callers_run(int rounds)
{
    struct caller callers[CALLERS];
    int started = 0, wrong = 0;
    while (started < CALLERS) {
        callers[started] = (struct caller){.number = started, .rounds = rounds};
        if (pthread_create(&callers[started].thread, NULL, call, &callers[started]) != 0) {
            break;
        }
        started++;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(callers[i].thread, NULL);
        wrong += callers[i].wrong;
    }
    return started == CALLERS ? wrong : -1;
}
