/* use_t2 FILE: a program against the installed t2: writes a safetensors file, reads it again and
 * gets the error for a file that is none. */
#include <t2.h>
#include <t2k.h>

#include <stdio.h>
#include <string.h>

static int fail(const char *what, const t2_error *err)
{
    fprintf(stderr, "%s: %s: %s\n", what, t2_status_str(err->status), err->message);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: use_t2 FILE\n");
        return 2;
    }
    t2_error err = {T2_OK, ""};
    const float values[6] = {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
    const int64_t shape[2] = {2, 3};
    t2_tensor tensor = {"w", T2_F32, 2, shape, values, sizeof values};
    if (t2_safetensors_write(argv[1], &tensor, 1, NULL, 0, &err) != T2_OK) {
        return fail("write", &err);
    }
    t2_safetensors *file;
    if (t2_safetensors_open(argv[1], 0, &file, &err) != T2_OK) {
        return fail("open", &err);
    }
    const t2_tensor *w = t2_safetensors_find(file, "w");
    const float *data = NULL;
    if (w == NULL || t2_safetensors_f32(file, w, &data, &err) != T2_OK) {
        return fail("find", &err);
    }
    if (memcmp(data, values, sizeof values) != 0 ||
        t2_tensor_fingerprint(w) != t2k_fingerprint_f32(T2K_FINGERPRINT_SEED, 2, shape, values)) {
        fprintf(stderr, "the values changed on their way\n");
        return 1;
    }
    t2_safetensors_close(file);
    if (t2_safetensors_open(argv[0], 0, &file, &err) != T2_ERR_FORMAT || err.message[0] == '\0') {
        fprintf(stderr, "a program was opened as a model\n");
        return 1;
    }
    printf("t2: %s\n", err.message);
    return 0;
}
