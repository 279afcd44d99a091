# t2: kernels, runtime, benchmark and tests. `make help` lists the targets.
#
# Objects lie below build/<configuration>/, so that builds with other compilers, sanitizers or
# architectures never mix. CC=clang, SAN=asan|ubsan|tsan and ARCH=aarch64 choose a configuration.

# ---- configuration ---------------------------------------------------------------------------

HOST_ARCH := $(shell uname -m)
ARCH ?= $(HOST_ARCH)
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(ARCH),$(HOST_ARCH))
TOOLS :=
SYSROOT_FLAGS :=
else
# Cross build: Debian's compiler, libraries from a folder filled by tests/tools/arm64-sysroot.sh.
SYSROOT ?= $(CURDIR)/build/sysroot-$(ARCH)
CC := $(ARCH)-linux-gnu-gcc
SYSROOT_FLAGS := --sysroot=$(SYSROOT)
endif
CXX := $(if $(findstring clang,$(CC)),clang++,g++)
SAN ?=
CONF := $(ARCH)-$(notdir $(CC))$(if $(SAN),-$(SAN))
B ?= build/$(CONF)

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=

# ---- flags -----------------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Werror
# -ffp-contract=off: docs/numerics.md rule 21. No LTO: it would clone code across ISA folders.
CFLAGS ?= -O2 -g
BASE := -std=c11 -D_POSIX_C_SOURCE=200809L -ffp-contract=off -fno-math-errno -fno-lto \
        -fvisibility=hidden -fPIC -MMD -MP $(SYSROOT_FLAGS)
SANFLAGS_asan := -fsanitize=address -fno-omit-frame-pointer
SANFLAGS_ubsan := -fsanitize=undefined -fno-sanitize-recover=all
SANFLAGS_tsan := -fsanitize=thread
SANFLAGS := $(SANFLAGS_$(SAN))
ALL_CFLAGS = $(BASE) $(WARN) $(CFLAGS) $(SANFLAGS)

# The only per-folder -m flags; kernels/core/isa.def names the same features.
ISAS_x86_64 := scalar avx2 avx512
ISAS_aarch64 := scalar neon
ISAS := $(ISAS_$(ARCH))
FLAGS_scalar :=
FLAGS_avx2 := -mavx2 -mfma
FLAGS_avx512 := -mavx512f -mavx512cd -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
FLAGS_neon :=

OPENMP := -fopenmp
KLIBS := $(OPENMP) -lpthread -lm
TLIBS := -ljansson -lsleef

# ---- files -----------------------------------------------------------------------------------

objs = $(patsubst %.c,$(B)/%.o,$(1))
K_SRC := $(wildcard kernels/core/*.c kernels/ops/*.c $(foreach i,$(ISAS),kernels/$(i)/*.c))
T_SRC := $(wildcard runtime/io/*.c runtime/model/*.c)
CLI_SRC := $(wildcard runtime/cli/*.c)
K_OBJ := $(call objs,$(K_SRC))
T_OBJ := $(call objs,$(T_SRC))
CLI_OBJ := $(call objs,$(CLI_SRC))

SO := 0
LIBT2K := $(B)/libt2k.a
LIBT2 := $(B)/libt2.a
SHARED := $(B)/libt2k.so.$(SO) $(B)/libt2.so.$(SO)

MATRIX_SRC := $(wildcard tests/matrix*.c) tests/check.c tests/ref.c
UNIT_SRC := $(wildcard tests/test_*.c)
UNITS := $(patsubst tests/%.c,$(B)/tests/%,$(UNIT_SRC))
TEST_LIB := $(call objs,tests/check.c tests/ref.c)

# ---- main targets ----------------------------------------------------------------------------

.DEFAULT_GOAL := all
.PHONY: all lib deps deps-run deps-test deps-bench run test clean help FORCE
.DELETE_ON_ERROR:

all: lib $(B)/t2 build/t2

lib: $(LIBT2K) $(LIBT2) $(SHARED)

# What a goal needs on a fresh machine is installed before anything is compiled.
ifneq ($(filter run,$(MAKECMDGOALS)),)
FIRST := deps-run
endif
ifneq ($(filter test test-% ,$(MAKECMDGOALS)),)
FIRST := deps-test
endif
ifneq ($(filter bench,$(MAKECMDGOALS)),)
FIRST := deps-bench
endif
deps: ; @sh tests/tools/deps.sh run test bench
deps-run deps-test deps-bench: ; @sh tests/tools/deps.sh $(@:deps-%=%)

# ---- rules -----------------------------------------------------------------------------------

$(foreach i,$(ISAS),$(eval $(B)/kernels/$(i)/%.o: DIRFLAGS = $(FLAGS_$(i))))
$(B)/kernels/%.o: INC = -Ikernels
$(B)/kernels/ops/%.o: DIRFLAGS = $(OPENMP)
$(B)/runtime/%.o: INC = -Ikernels -Iruntime
$(B)/tests/%.o: INC = -Ikernels -Iruntime -Itests

$(B)/%.o: %.c Makefile | $(FIRST)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(DIRFLAGS) $(INC) -c $< -o $@

$(LIBT2K): $(K_OBJ)
$(LIBT2): $(T_OBJ)
$(LIBT2K) $(LIBT2):
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/libt2k.so.$(SO): $(K_OBJ) kernels/t2k.map
	$(CC) -shared -Wl,-soname,$(@F) -Wl,-z,nodelete -Wl,--version-script=kernels/t2k.map \
	    -Wl,--no-undefined $(SYSROOT_FLAGS) $(SANFLAGS) $(K_OBJ) $(KLIBS) -o $@
	@ln -sf $(@F) $(B)/libt2k.so

$(B)/libt2.so.$(SO): $(T_OBJ) runtime/t2.map $(B)/libt2k.so.$(SO)
	$(CC) -shared -Wl,-soname,$(@F) -Wl,-z,nodelete -Wl,--version-script=runtime/t2.map \
	    -Wl,--no-undefined $(SYSROOT_FLAGS) $(SANFLAGS) $(T_OBJ) -L$(B) -lt2k $(TLIBS) -lm -o $@
	@ln -sf $(@F) $(B)/libt2.so

$(B)/t2: $(CLI_OBJ) $(LIBT2) $(LIBT2K)
	$(CC) $(SYSROOT_FLAGS) $(SANFLAGS) $^ $(TLIBS) $(KLIBS) -o $@

# build/t2 is the program of the configuration built last.
build/t2: $(B)/t2 FORCE
	@ln -sf $(B:build/%=%)/t2 $@

$(B)/t2k-matrix: $(call objs,$(MATRIX_SRC)) $(LIBT2K)
	$(CC) $(SYSROOT_FLAGS) $(SANFLAGS) $^ $(KLIBS) -o $@

$(UNITS): $(B)/tests/%: $(B)/tests/%.o $(TEST_LIB) $(LIBT2) $(LIBT2K)
	$(CC) $(SYSROOT_FLAGS) $(SANFLAGS) $^ -lcriterion $(TLIBS) $(KLIBS) -o $@

-include $(shell find $(B) -name '*.d' 2>/dev/null)

clean:
	rm -rf build
