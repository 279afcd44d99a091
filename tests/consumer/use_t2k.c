/* A program against the installed t2k: a product with a known result, and the errors. */
#include <t2k.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    /* Small integers: every order of summation gives the same exact result. */
    enum { M = 7, N = 19, K = 300 };
    static float A[M * K], B[K * N], C[M * N];
    for (int i = 0; i < M * K; i++) {
        A[i] = (float)(i % 11 - 5);
    }
    for (int i = 0; i < K * N; i++) {
        B[i] = (float)(i % 7 - 3);
    }
    t2k_status status =
        t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, M, N, K, 1.0f, A, K, B, N, 0.0f, C, N, NULL);
    if (status != T2K_OK) {
        fprintf(stderr, "t2k_sgemm: %s\n", t2k_status_str(status));
        return 1;
    }
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            long sum = 0;
            for (int p = 0; p < K; p++) {
                sum += (long)A[i * K + p] * (long)B[p * N + j];
            }
            if (C[i * N + j] != (float)sum) {
                fprintf(stderr, "C[%d,%d] = %g, expected %ld\n", i, j, (double)C[i * N + j], sum);
                return 1;
            }
        }
    }
    if (t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, M, N, K, 1.0f, A, K - 1, B, N, 0.0f, C, N, NULL) !=
        T2K_ERR_ARG) {
        fprintf(stderr, "a leading dimension below k was accepted\n");
        return 1;
    }
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", T2K_VERSION_MAJOR, T2K_VERSION_MINOR,
             T2K_VERSION_PATCH);
    if (strcmp(version, t2k_version()) != 0) {
        fprintf(stderr, "header %s, library %s\n", version, t2k_version());
        return 1;
    }
    printf("t2k %s on %s\n", t2k_version(), t2k_isa_name());
    return 0;
}
