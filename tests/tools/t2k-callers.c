/* t2k-callers: sixteen application threads call the library at once, first of all for the first
 * time in the process. For the thread sanitizer; test_threads.c checks the same and more. */
#include "callers.h"
#include "t2k.h"

#include <pthread.h>
#include <stdio.h>

static void *first_use(void *arg)
{
    const float x[2] = {0.0f, 0.0f};
    float y[2] = {0.0f, 0.0f};
    *(int *)arg = t2k_softmax(1, 2, x, 2, y, 2) != T2K_OK || y[0] != 0.5f || y[1] != 0.5f;
    return NULL;
}

int main(void)
{
    enum { USERS = 8, ROUNDS = 40 };
    pthread_t thread[USERS];
    int bad[USERS] = {0}, failed = 0;
    for (int i = 0; i < USERS; i++) {
        if (pthread_create(&thread[i], NULL, first_use, &bad[i]) != 0) {
            perror("pthread_create");
            return 1;
        }
    }
    for (int i = 0; i < USERS; i++) {
        pthread_join(thread[i], NULL);
        failed += bad[i];
    }
    int prepared = callers_prepare();
    t2k_set_num_threads(1); /* the OpenMP runtime itself is not instrumented */
    int wrong = prepared ? callers_run(ROUNDS) : CALLERS * ROUNDS;
    if (wrong != 0) {
        printf("FAILED callers: %d results differ\n", wrong);
        failed += wrong > 0 ? wrong : 1;
    }
    int checks = USERS + CALLERS * ROUNDS;
    printf("%d passed, %d failed, 0 skipped\n", failed < checks ? checks - failed : 0, failed);
    return failed > 0;
}
