/* The dispatch table: built once from the tables of all usable ISAs, overlaid in rank order. */
#include "core/core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The address of an ISA's table, the one symbol of its folder that is named outside; NULL for the
 * folders of another architecture. */
#define TABLE_any(name) &t2k_table_##name
#if defined(__x86_64__)
#define TABLE_x86_64(name) &t2k_table_##name
#define TABLE_aarch64(name) NULL
#else
#define TABLE_x86_64(name) NULL
#define TABLE_aarch64(name) &t2k_table_##name
#endif

#define T2K_ISA_ROW(name, arch, features) extern const t2k_table t2k_table_##name;
#include "core/isa.def"
#undef T2K_ISA_ROW

#define REASON_SIZE 96

static const struct {
    const char *name;
    const char *features;
    const char *arch;
    const t2k_table *table; /* NULL: not compiled for this architecture */
} isas[] = {
#define T2K_ISA_ROW(name, arch, features) {#name, features, #arch, TABLE_##arch(name)},
#include "core/isa.def"
#undef T2K_ISA_ROW
};
enum { ISA_COUNT = sizeof isas / sizeof isas[0] };

/* Written once under pthread_once, read-only afterwards. */
static struct {
    int usable[ISA_COUNT];
    char reason[ISA_COUNT][REASON_SIZE];
    int active; /* index, -1 when T2K_ISA is invalid */
    char error[320];
    t2k_table table[ISA_COUNT]; /* as capped at each usable ISA */
} state;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int current; /* state.active, or what t2k_use_isa() set */

static void overlay(int cap, t2k_table *table)
{
    memset(table, 0, sizeof *table);
    for (int i = 0; i <= cap; i++) {
        if (!state.usable[i]) {
            continue;
        }
#define T2K_SLOT(name, type)               \
    if (isas[i].table->name != NULL) {     \
        table->name = isas[i].table->name; \
    }
#include "core/slots.def"
#undef T2K_SLOT
    }
}

static void list_usable(char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < ISA_COUNT && used < size; i++) {
        if (state.usable[i]) {
            int n = snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", isas[i].name);
            used += n > 0 ? (size_t)n : 0;
        }
    }
}

static int index_of(const char *name)
{
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(isas[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The index asked for by T2K_ISA, or -1 with state.error set. */
static int apply_cap(const char *cap, int best)
{
    if (cap == NULL || cap[0] == '\0') {
        return best;
    }
    char valid[96];
    list_usable(valid, sizeof valid);
    int i = index_of(cap);
    if (i < 0) {
        snprintf(state.error, sizeof state.error, "T2K_ISA=%.40s: unknown ISA; valid here: %s", cap,
                 valid);
        return -1;
    }
    if (!state.usable[i]) {
        snprintf(state.error, sizeof state.error,
                 "T2K_ISA=%.40s: not usable here (%.90s); valid here: %s", cap, state.reason[i],
                 valid);
        return -1;
    }
    return i;
}

static void build(void)
{
    int best = 0;
    for (int i = 0; i < ISA_COUNT; i++) {
        if (isas[i].table == NULL) {
            snprintf(state.reason[i], REASON_SIZE, "for %s, this is another architecture",
                     isas[i].arch);
        } else if (t2k_cpu_offers(isas[i].features, state.reason[i], REASON_SIZE)) {
            state.usable[i] = 1;
            best = i;
        }
    }
    state.active = apply_cap(getenv("T2K_ISA"), best);
    atomic_store(&current, state.active);
    for (int i = 0; i < ISA_COUNT && state.active < 0; i++) {
        if (state.usable[i]) {
            snprintf(state.reason[i], REASON_SIZE, "usable; T2K_ISA names no usable ISA");
        }
    }
    if (state.active < 0) {
        return;
    }
    for (int i = 0; i < ISA_COUNT; i++) {
        if (state.usable[i]) {
            overlay(i, &state.table[i]);
        }
        if (state.usable[i] && i < state.active) {
            snprintf(state.reason[i], REASON_SIZE, "usable; %s ranks higher",
                     isas[state.active].name);
        } else if (state.usable[i] && i > state.active) {
            snprintf(state.reason[i], REASON_SIZE, "usable; capped by T2K_ISA=%s",
                     isas[state.active].name);
        }
    }
}

static void ensure(void)
{
    pthread_once(&once, build);
}

const t2k_table *t2k_table_get(void)
{
    ensure();
    int index = atomic_load_explicit(&current, memory_order_relaxed);
    return index < 0 ? NULL : &state.table[index];
}

t2k_status t2k_init(void)
{
    return t2k_table_get() == NULL ? T2K_ERR_ISA : T2K_OK;
}

const char *t2k_isa_error(void)
{
    ensure();
    return state.error;
}

const char *t2k_isa_name(void)
{
    ensure();
    int index = atomic_load(&current);
    return index < 0 ? NULL : isas[index].name;
}

int t2k_isa_count(void)
{
    return ISA_COUNT;
}

t2k_status t2k_isa_get(int index, t2k_isa_info *info)
{
    if (index < 0 || index >= ISA_COUNT || info == NULL) {
        return T2K_ERR_ARG;
    }
    ensure();
    info->name = isas[index].name;
    info->features = isas[index].features;
    info->usable = state.usable[index];
    info->active = index == state.active;
    info->reason = state.reason[index];
    return T2K_OK;
}

t2k_status t2k_use_isa(int index)
{
    if (index < 0 || index >= ISA_COUNT) {
        return T2K_ERR_ARG;
    }
    ensure();
    if (state.active < 0 || !state.usable[index]) {
        return T2K_ERR_ISA;
    }
    atomic_store(&current, index);
    return T2K_OK;
}

const t2k_table *t2k_table_own(int index)
{
    return index >= 0 && index < ISA_COUNT ? isas[index].table : NULL;
}
