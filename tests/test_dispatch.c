/* The dispatch table: T2K_ISA in every value, the tables and their overlays, the reasons. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "check.h"
#include "ops/team.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define MAX_ISAS 16

/* Detection happens once a process: each value of T2K_ISA is tried in a child of its own, and the
 * tests themselves learn the names from a child too. */
static int with_isa(const char *value, int (*fn)(void *arg), void *arg)
{
    if (value != NULL) {
        setenv("T2K_ISA", value, 1);
    } else {
        unsetenv("T2K_ISA");
    }
    return in_child(fn, arg);
}

static struct names {
    int count;
    struct {
        int usable;
        char name[16];
        char reason[128];
    } isa[MAX_ISAS];
} * names; /* shared with the children */

static int learn(void *arg)
{
    (void)arg;
    names->count = t2k_isa_count();
    for (int i = 0; i < names->count && i < MAX_ISAS; i++) {
        t2k_isa_info info;
        if (t2k_isa_get(i, &info) != T2K_OK) {
            return 1;
        }
        names->isa[i].usable = info.usable;
        snprintf(names->isa[i].name, sizeof names->isa[i].name, "%s", info.name);
        snprintf(names->isa[i].reason, sizeof names->isa[i].reason, "%s", info.reason);
    }
    return 0;
}

static void setup(void)
{
    names = mmap(NULL, sizeof *names, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(names, MAP_FAILED);
    cr_assert_eq(with_isa(NULL, learn, NULL), 0);
    cr_assert(names->count > 0 && names->count <= MAX_ISAS);
}

static int highest_usable(void)
{
    int highest = 0;
    for (int i = 0; i < names->count; i++) {
        highest = names->isa[i].usable ? i : highest;
    }
    return highest;
}

TestSuite(dispatch, .init = setup);

/* ---- the ISA that was asked for ------------------------------------------------------------- */

/* Every slot of the table in use is that of the highest usable ISA up to `cap` that fills it. */
static int overlay_is_right(int cap)
{
    const t2k_table *table = t2k_table_get();
    if (table == NULL) {
        return 0;
    }
#define T2K_SLOT(name, type)                                                \
    {                                                                       \
        type *want = NULL;                                                  \
        for (int i = 0; i <= cap; i++) {                                    \
            const t2k_table *own = t2k_table_own(i);                        \
            if (names->isa[i].usable && own != NULL && own->name != NULL) { \
                want = own->name;                                           \
            }                                                               \
        }                                                                   \
        if (table->name == NULL || table->name != want) {                   \
            fprintf(stderr, "slot %s with cap %d\n", #name, cap);           \
            return 0;                                                       \
        }                                                                   \
    }
#include "core/slots.def"
#undef T2K_SLOT
    return 1;
}

static int computes(void)
{
    const float x[3] = {0.0f, 0.0f, 0.0f};
    float y[3] = {0.0f, 0.0f, 0.0f};
    return t2k_softmax(1, 3, x, 3, y, 3) == T2K_OK && y[0] == 1.0f / 3.0f && y[1] == y[0] &&
           y[2] == y[0];
}

static int forced(void *arg)
{
    int index = *(int *)arg;
    if (t2k_init() != T2K_OK || strcmp(t2k_isa_error(), "") != 0) {
        return 1;
    }
    for (int i = 0; i < names->count; i++) {
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        /* "" is the reason of the active ISA and of no other. */
        if (info.active != (i == index) || info.active != (info.reason[0] == '\0')) {
            return 2;
        }
    }
    if (strcmp(t2k_isa_name(), names->isa[index].name) != 0) {
        return 3;
    }
    return !overlay_is_right(index) ? 4 : !computes() ? 5 : 0;
}

Test(dispatch, every_usable_name_is_obeyed)
{
    for (int i = 0; i < names->count; i++) {
        if (names->isa[i].usable) {
            cr_expect_eq(with_isa(names->isa[i].name, forced, &i), 0, "%s", names->isa[i].name);
        }
    }
}

Test(dispatch, the_highest_by_default)
{
    int highest = highest_usable();
    cr_expect_eq(with_isa(NULL, forced, &highest), 0);
    cr_expect_eq(with_isa("", forced, &highest), 0);
}

Test(dispatch, scalar_is_usable_everywhere)
{
    cr_expect_str_eq(names->isa[0].name, "scalar");
    cr_expect(names->isa[0].usable);
    for (int i = 1; i < names->count; i++) {
        cr_expect(names->isa[i].usable || names->isa[i].reason[0] != '\0', "%s gives no reason",
                  names->isa[i].name);
    }
}

/* ---- names that are not usable -------------------------------------------------------------- */

static int products_refuse(void)
{
    const float a[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    static _Alignas(T2K_ALIGN) float packed[1024];
    float c[4] = {7.0f, 7.0f, 7.0f, 7.0f};
    const float before[4] = {7.0f, 7.0f, 7.0f, 7.0f};
    int refused = t2k_sgemm(T2K_NO_TRANS, T2K_NO_TRANS, 2, 2, 2, 1.0f, a, 2, a, 2, 0.0f, c, 2,
                            NULL) == T2K_ERR_ISA &&
                  t2k_sgemm_batched(T2K_NO_TRANS, T2K_NO_TRANS, 2, 2, 2, 1.0f, a, 2, 0, a, 2, 0,
                                    0.0f, c, 2, 4, 1, NULL) == T2K_ERR_ISA &&
                  t2k_packed_b_bytes(2, 2) == 0 &&
                  t2k_pack_b(T2K_NO_TRANS, 2, 2, a, 2, packed) == T2K_ERR_ISA &&
                  t2k_sgemm_packed(T2K_NO_TRANS, 2, 2, 2, 1.0f, a, 2, packed, 0.0f, c, 2, NULL) ==
                      T2K_ERR_ISA &&
                  t2k_svd_rebuild(T2K_NO_TRANS, 2, 2, 2, 1.0f, a, 2, a, a, 2, c, 2) == T2K_ERR_ISA;
    return refused && memcmp(c, before, sizeof c) == 0;
}

static int others_refuse(void)
{
    const float x[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    const int64_t ids[2] = {1, 0};
    float y[4] = {7.0f, 7.0f, 7.0f, 7.0f};
    const float before[4] = {7.0f, 7.0f, 7.0f, 7.0f};
    t2k_attention_args args = {.size = sizeof args, .queries = 1, .keys = 1, .items = 1};
    args.heads = 1;
    args.head_dim = 4;
    args.scale = 1.0f;
    args.q = args.k = args.v = x;
    args.out = y;
    args.q_row = args.q_item = args.k_row = args.k_item = 4;
    args.v_row = args.v_item = args.out_row = args.out_item = 4;
    int refused =
        t2k_softmax(2, 2, x, 2, y, 2) == T2K_ERR_ISA &&
        t2k_layer_norm(2, 2, x, 2, NULL, NULL, 0, NULL, NULL, 0.1f, y, 2) == T2K_ERR_ISA &&
        t2k_mean(2, 2, x, 2, y) == T2K_ERR_ISA &&
        t2k_embedding(2, 2, 2, x, 2, ids, y, 2) == T2K_ERR_ISA && t2k_exp(4, x, y) == T2K_ERR_ISA &&
        t2k_relu(4, x, y) == T2K_ERR_ISA && t2k_add(4, x, x, y) == T2K_ERR_ISA &&
        t2k_scale_columns(2, 2, x, 2, x, y, 2) == T2K_ERR_ISA &&
        t2k_dropout(4, x, 0.5f, (t2k_dropout_key){1, 2, 3}, 0, y) == T2K_ERR_ISA &&
        t2k_attention(&args) == T2K_ERR_ISA && t2k_probe_fma(10) == 0.0;
    return refused && memcmp(y, before, sizeof y) == 0;
}

static void count_call(t2k_team *team, void *arg)
{
    (void)team;
    ++*(int *)arg;
}

static int refused(void *arg)
{
    const char *value = arg;
    if (t2k_init() != T2K_ERR_ISA || t2k_isa_name() != NULL || t2k_table_get() != NULL) {
        return 1;
    }
    char start[24];
    snprintf(start, sizeof start, "T2K_ISA=%.10s", value);
    if (strncmp(t2k_isa_error(), start, strlen(start)) != 0) {
        return 2;
    }
    for (int i = 0; i < names->count; i++) {
        if (names->isa[i].usable && strstr(t2k_isa_error(), names->isa[i].name) == NULL) {
            return 3;
        }
        t2k_isa_info info;
        t2k_isa_get(i, &info);
        if (info.usable != names->isa[i].usable || info.active || info.reason[0] == '\0' ||
            t2k_use_isa(i) != T2K_ERR_ISA) {
            return 4;
        }
    }
    int calls = 0;
    if (t2k_parallel(1, count_call, &calls) != T2K_ERR_ISA || calls != 0) {
        return 5;
    }
    return !products_refuse() ? 6 : !others_refuse() ? 7 : 0;
}

Test(dispatch, nonsense_is_an_error)
{
    static char nonsense[][16] = {"nonsense", "AVX2", "avx", "avx2 ", " avx2", "avx2,scalar", "0"};
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        cr_expect_eq(with_isa(nonsense[i], refused, nonsense[i]), 0, "T2K_ISA=%s", nonsense[i]);
    }
    char huge[5000];
    memset(huge, 'x', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    cr_expect_eq(with_isa(huge, refused, huge), 0, "a very long name");
}

Test(dispatch, names_of_unusable_isas_are_errors)
{
    int unusable = 0;
    for (int i = 0; i < names->count; i++) {
        if (!names->isa[i].usable) {
            unusable++;
            cr_expect_eq(with_isa(names->isa[i].name, refused, names->isa[i].name), 0, "%s",
                         names->isa[i].name);
        }
    }
    /* No machine is x86-64 and arm64 at once. */
    cr_expect_gt(unusable, 0);
}

/* ---- the tables ----------------------------------------------------------------------------- */

Test(dispatch, every_isa_exports_a_table)
{
    unsetenv("T2K_ISA");
    const t2k_table *scalar = t2k_table_own(0);
    cr_assert_not_null(scalar);
#define T2K_SLOT(name, type) cr_expect(scalar->name != NULL, "scalar lacks %s", #name);
#include "core/slots.def"
#undef T2K_SLOT
    int filled_by_others = 0;
    for (int i = 1; i < names->count; i++) {
        const t2k_table *own = t2k_table_own(i);
        cr_expect(own != NULL || !names->isa[i].usable);
        filled_by_others += own != NULL && own->gemm_strict != NULL;
    }
    cr_expect_gt(filled_by_others, 0);
    cr_expect_null(t2k_table_own(-1));
    cr_expect_null(t2k_table_own(names->count));
}

Test(dispatch, use_isa_switches_the_table)
{
    unsetenv("T2K_ISA");
    for (int i = names->count - 1; i >= 0; i--) {
        if (names->isa[i].usable) {
            cr_assert_eq(t2k_use_isa(i), T2K_OK);
            cr_expect_str_eq(t2k_isa_name(), names->isa[i].name);
            cr_expect(overlay_is_right(i));
            cr_expect(computes());
        } else {
            cr_expect_eq(t2k_use_isa(i), T2K_ERR_ISA);
        }
    }
    cr_expect_eq(t2k_use_isa(-1), T2K_ERR_ARG);
    cr_expect_eq(t2k_use_isa(names->count), T2K_ERR_ARG);
}

/* The drivers rely on these. */
Test(dispatch, product_groups_fit_their_drivers)
{
    for (int i = 0; i < names->count; i++) {
        const t2k_table *own = t2k_table_own(i);
        const t2k_gemm_group *g = own != NULL ? own->gemm_strict : NULL;
        if (g == NULL) {
            continue;
        }
        cr_expect(g->mr > 0 && g->nr > 0 && g->mc > 0);
        cr_expect_eq(g->mc % g->mr, 0, "%s", names->isa[i].name);
        cr_expect_leq(g->mc * T2K_CHUNK_K * sizeof(float), T2K_WORKSPACE_BYTES, "%s",
                      names->isa[i].name);
    }
}

Test(dispatch, isa_get_checks_its_arguments)
{
    t2k_isa_info info;
    cr_expect_eq(t2k_isa_get(-1, &info), T2K_ERR_ARG);
    cr_expect_eq(t2k_isa_get(INT_MAX, &info), T2K_ERR_ARG);
    cr_expect_eq(t2k_isa_get(t2k_isa_count(), &info), T2K_ERR_ARG);
    cr_expect_eq(t2k_isa_get(0, NULL), T2K_ERR_ARG);
}

/* ---- detection ------------------------------------------------------------------------------ */

static int amx_agrees(void *arg)
{
    (void)arg;
    char reason[96] = "", again[96] = "";
    const int granted = t2k_cpu_tiles(reason, sizeof reason);
    if (t2k_cpu_tiles(again, sizeof again) != granted || strcmp(reason, again) != 0 ||
        granted != (reason[0] == '\0')) {
        return 1;
    }
    t2k_isa_info info;
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK; i++) {
        if (strcmp(info.name, "amx") == 0) {
            return info.usable && !granted ? 2 : 0;
        }
    }
    return 3;
}

Test(dispatch, amx_needs_the_permission)
{
    cr_expect_eq(with_isa(NULL, amx_agrees, NULL), 0);
}

#ifdef SYS_arch_prctl
static int refused_by_filter(void *arg)
{
    (void)arg;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof code[0], code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        return 77;
    }
    char reason[96] = "";
    t2k_isa_info info = {0};
    if (t2k_cpu_tiles(reason, sizeof reason) || strstr(reason, strerror(EPERM)) == NULL) {
        return 1;
    }
    for (int i = 0; t2k_isa_get(i, &info) == T2K_OK && strcmp(info.name, "amx") != 0; i++) {
    }
    return info.usable || info.reason[0] == '\0' || t2k_init() != T2K_OK ? 2 : 0;
}

/* Containers may forbid the request: a reason, and the ISAs below. */
Test(dispatch, a_filter_refuses_amx)
{
    const int status = with_isa(NULL, refused_by_filter, NULL);
    if (status == 77) {
        cr_skip_test("no system call filters here");
    }
    cr_expect_eq(status, 0, "%d", status);
}
#endif

Test(dispatch, a_missing_feature_is_named)
{
    char reason[96] = "";
    cr_expect(t2k_cpu_offers("", reason, sizeof reason));
    cr_expect_not(t2k_cpu_offers("warp_drive", reason, sizeof reason));
    cr_expect(strstr(reason, "warp_drive") != NULL, "%s", reason);
    char cut[8];
    cr_expect_not(t2k_cpu_offers("warp_drive", cut, sizeof cut));
    cr_expect_lt(strlen(cut), sizeof cut);
    /* The features of a usable ISA are there; one unknown among them spoils the bundle. */
    unsetenv("T2K_ISA");
    t2k_isa_info info;
    t2k_isa_get(highest_usable(), &info);
    cr_expect(t2k_cpu_offers(info.features, reason, sizeof reason));
    char more[256];
    snprintf(more, sizeof more, "%s  warp_drive", info.features);
    cr_expect_not(t2k_cpu_offers(more, reason, sizeof reason));
}
