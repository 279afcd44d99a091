/* Element types of the safetensors format, and what follows from a tensor's dtype and shape. */
#include "t2.h"
#include "t2k.h"

#include <string.h>

static const struct {
    const char *name;
    int bits;
} dtypes[T2_DTYPE_COUNT] = {
    [T2_BOOL] = {"BOOL", 8},       [T2_F4] = {"F4", 4},           [T2_F6_E2M3] = {"F6_E2M3", 6},
    [T2_F6_E3M2] = {"F6_E3M2", 6}, [T2_U8] = {"U8", 8},           [T2_I8] = {"I8", 8},
    [T2_F8_E5M2] = {"F8_E5M2", 8}, [T2_F8_E4M3] = {"F8_E4M3", 8}, [T2_F8_E8M0] = {"F8_E8M0", 8},
    [T2_I16] = {"I16", 16},        [T2_U16] = {"U16", 16},        [T2_F16] = {"F16", 16},
    [T2_BF16] = {"BF16", 16},      [T2_I32] = {"I32", 32},        [T2_U32] = {"U32", 32},
    [T2_F32] = {"F32", 32},        [T2_C64] = {"C64", 64},        [T2_F64] = {"F64", 64},
    [T2_I64] = {"I64", 64},        [T2_U64] = {"U64", 64},
};

const char *t2_dtype_name(t2_dtype dtype)
{
    return (unsigned)dtype < T2_DTYPE_COUNT ? dtypes[dtype].name : NULL;
}

int t2_dtype_bits(t2_dtype dtype)
{
    return (unsigned)dtype < T2_DTYPE_COUNT ? dtypes[dtype].bits : 0;
}

int t2_dtype_from_name(const char *name, t2_dtype *dtype)
{
    for (int i = 0; i < T2_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *dtype = (t2_dtype)i;
            return 1;
        }
    }
    return 0;
}

int64_t t2_tensor_elements(const t2_tensor *tensor)
{
    uint64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) {
        count *= (uint64_t)tensor->shape[i];
    }
    return (int64_t)count;
}

static uint64_t add_word(uint64_t state, uint64_t word)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(word >> (8 * i));
    }
    return t2k_fingerprint_bytes(state, bytes, sizeof bytes);
}

/* Values in pieces, copied to make them aligned, with every NaN as 0x7fc00000. */
static uint64_t add_f32(uint64_t state, const unsigned char *data, size_t bytes)
{
    uint32_t piece[256];
    while (bytes > 0) {
        size_t n = bytes < sizeof piece ? bytes : sizeof piece;
        memcpy(piece, data, n);
        for (size_t i = 0; i < n / sizeof piece[0]; i++) {
            piece[i] = (piece[i] & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : piece[i];
        }
        state = t2k_fingerprint_bytes(state, piece, n);
        data += n;
        bytes -= n;
    }
    return state;
}

uint64_t t2_tensor_fingerprint(const t2_tensor *tensor)
{
    const char *name = t2_dtype_name(tensor->dtype);
    if (name == NULL) {
        return 0;
    }
    uint64_t state = t2k_fingerprint_bytes(T2K_FINGERPRINT_SEED, name, strlen(name));
    state = add_word(state, (uint64_t)tensor->rank);
    for (int i = 0; i < tensor->rank; i++) {
        state = add_word(state, (uint64_t)tensor->shape[i]);
    }
    if (tensor->dtype == T2_F32) {
        return add_f32(state, tensor->data, tensor->bytes);
    }
    return t2k_fingerprint_bytes(state, tensor->data, tensor->bytes);
}
