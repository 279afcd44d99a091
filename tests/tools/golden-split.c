/* Splits a model case of a golden manifest into the files that the program takes:
 *   golden-split MANIFEST            lists the ids of the model cases, their expectation, a mask
 *   golden-split MANIFEST ID DIR     writes DIR/config.json, model.safetensors, ids.safetensors
 *                                    and, where the case has them, mask and logits.safetensors */
#include "golden.h"

#include <stdio.h>
#include <string.h>

static int failed(const t2_error *err)
{
    fprintf(stderr, "golden-split: %s\n", err->message);
    return 1;
}

static int list_cases(const golden_manifest *manifest)
{
    for (size_t i = 0; i < manifest->count; i++) {
        const golden_case *one = &manifest->cases[i];
        if (strcmp(one->kind, "model") == 0) {
            printf("%s\t%s\t%s\n", one->id, one->expect,
                   json_string_value(json_object_get(one->json, "mask_kind")));
        }
    }
    return fflush(stdout) != 0;
}

/* One tensor under another name in a file of its own. */
static t2_status write_one(const char *dir, const char *name, const t2_tensor *tensor,
                           t2_error *err)
{
    char path[4096];
    if (tensor == NULL) {
        return T2_OK;
    }
    snprintf(path, sizeof path, "%s/%s.safetensors", dir, name);
    t2_tensor renamed = *tensor;
    renamed.name = name;
    return t2_safetensors_write(path, &renamed, 1, NULL, 0, err);
}

static int split(const golden_case *one, const char *dir)
{
    t2_safetensors *file = NULL;
    t2_error err;
    t2_status status = t2_safetensors_open(one->path, 0, &file, &err);
    if (status == T2_OK) {
        status = golden_write_model(one, file, dir, &err);
    }
    if (status == T2_OK) {
        status = write_one(dir, "ids", golden_input(one, file, "ids"), &err);
    }
    if (status == T2_OK) {
        status = write_one(dir, "mask", golden_input(one, file, "mask"), &err);
    }
    if (status == T2_OK) {
        status = write_one(dir, "logits", golden_expected(one, file, "f64", "logits"), &err);
    }
    t2_safetensors_close(file);
    return status == T2_OK ? 0 : failed(&err);
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: golden-split MANIFEST [CASE_ID DIR]\n");
        return 2;
    }
    golden_manifest manifest = golden_open(argv[1]);
    int result = 1;
    if (argc == 2) {
        result = list_cases(&manifest);
    } else {
        const golden_case *one = golden_find(&manifest, argv[2]);
        if (one != NULL && strcmp(one->kind, "model") == 0) {
            result = split(one, argv[3]);
        } else {
            fprintf(stderr, "golden-split: there is no model case %s\n", argv[2]);
        }
    }
    golden_close(&manifest);
    return result;
}
