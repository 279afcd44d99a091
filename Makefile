# t2: kernels, runtime, benchmark and tests. `make help` lists the targets.
#
# Objects lie below build/<configuration>/, so that builds with other compilers, sanitizers or
# architectures never mix. CC=clang, SAN=asan|ubsan|tsan and ARCH=aarch64 choose a configuration.

# ---- configuration ---------------------------------------------------------------------------

HOST_ARCH := $(shell uname -m)
ARCH ?= $(HOST_ARCH)
ifeq ($(ARCH),$(HOST_ARCH))
ifeq ($(origin CC),default)
CC := gcc
endif
SYSROOT_FLAGS :=
else
# Cross build: Debian's compiler, libraries from a folder filled by tests/tools/arm64-sysroot.sh.
SYSROOT ?= $(CURDIR)/build/sysroot-$(ARCH)
CC := $(ARCH)-linux-gnu-gcc
AR := $(ARCH)-linux-gnu-ar
SYSROOT_FLAGS := --sysroot=$(SYSROOT)
endif
CXX := $(if $(findstring clang,$(CC)),clang++,g++)
SAN ?=
CONF := $(ARCH)-$(notdir $(CC))$(if $(SAN),-$(SAN))
B ?= build/$(CONF)

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=

# Commands are shown with V=1; else one short line each.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

# As many jobs as CPUs, unless the caller says -j N.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

# ---- flags -----------------------------------------------------------------------------------

WARN_BOTH := -Wall -Wextra -Wshadow -Wconversion -Werror
WARN := $(WARN_BOTH) -Wstrict-prototypes
# -ffp-contract=off: docs/numerics.md rule 21. No LTO: it would clone code across ISA folders.
CFLAGS ?= -O2 -g
BASE_BOTH := -ffp-contract=off -fno-math-errno -fno-lto -fvisibility=hidden -fPIC -MMD -MP \
             $(SYSROOT_FLAGS)
BASE := -std=c11 -D_POSIX_C_SOURCE=200809L $(BASE_BOTH)
SANFLAGS_asan := -fsanitize=address -fno-omit-frame-pointer
SANFLAGS_ubsan := -fsanitize=undefined -fno-sanitize-recover=all
SANFLAGS_tsan := -fsanitize=thread
SANFLAGS := $(SANFLAGS_$(SAN))
ALL_CFLAGS = $(BASE) $(WARN) $(CFLAGS) $(SANFLAGS)
ALL_CXXFLAGS = -std=c++17 $(BASE_BOTH) $(WARN_BOTH) $(CFLAGS) $(SANFLAGS)

# The only per-folder -m flags; kernels/core/isa.def names the same features.
ISAS_x86_64 := scalar avx2 avx512 amx
ISAS_aarch64 := scalar neon
ISAS := $(ISAS_$(ARCH))
FLAGS_scalar :=
FLAGS_avx2 := -mavx2 -mfma
FLAGS_avx512 := -mavx512f -mavx512cd -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
FLAGS_amx := $(FLAGS_avx512) -mavx512bf16 -mamx-tile -mamx-bf16
FLAGS_neon :=
# gcc 12 moves loads ahead of products until sums no longer fit the registers; the CPUs reorder.
ORDER_neon := $(if $(findstring clang,$(CC)),,-fno-schedule-insns)

# Callers may have small stacks. Sanitizers widen frames, and clang has no such option.
STACK := $(if $(SAN)$(findstring clang,$(CC)),,-Wstack-usage=16384)

OPENMP := -fopenmp
KLIBS := $(OPENMP) -lpthread -lm
TLIBS := -ljansson -lsleef -lnettle -ldl
# clang does not link its sanitizer runtimes into shared libraries.
comma := ,
NO_UNDEFINED := $(if $(SAN),,-Wl$(comma)--no-undefined)

# ---- files -----------------------------------------------------------------------------------

objs = $(patsubst %.c,$(B)/%.o,$(1))
K_SRC := $(wildcard kernels/core/*.c kernels/ops/*.c $(foreach i,$(ISAS),kernels/$(i)/*.c))
T_SRC := $(filter-out runtime/cli/%,$(wildcard runtime/*/*.c))
CLI_SRC := $(wildcard runtime/cli/*.c)
K_OBJ := $(call objs,$(K_SRC))
T_OBJ := $(call objs,$(T_SRC))
CLI_OBJ := $(call objs,$(CLI_SRC))

VERSION := $(shell awk '/define T2K_VERSION_(MAJOR|MINOR|PATCH)/ {v = v d $$3; d = "."} \
                        END {print v}' kernels/t2k.h)
SO := $(firstword $(subst ., ,$(VERSION)))
LIBT2K := $(B)/libt2k.a
LIBT2 := $(B)/libt2.a
SHARED := $(B)/libt2k.so.$(SO) $(B)/libt2.so.$(SO)

MATRIX_SRC := $(wildcard tests/matrix*.c)
# The benchmark's parts are tested where it is built: natively.
UNIT_SRC := $(filter-out $(if $(filter-out $(HOST_ARCH),$(ARCH)),tests/test_bench%),$(wildcard tests/test_*.c))
UNITS := $(patsubst tests/%.c,$(B)/tests/%,$(UNIT_SRC))
# Programs that tests use, one source file each.
TOOL_SRC := $(wildcard tests/tools/*.c)
TOOLS := $(patsubst %.c,$(B)/%,$(TOOL_SRC))
# What the tests share: an archive, so that each program takes only what it calls.
TEST_LIB := $(B)/tests/libtest.a
EXHAUSTIVE := $(B)/tests/exhaustive
TEST_LIB_SRC := $(filter-out $(MATRIX_SRC) tests/test_%.c tests/exhaustive.c,$(wildcard tests/*.c))

# The benchmark without its main(): an archive, so that tests of its parts take what they call.
BENCH_LIB := $(B)/bench/libbench.a
BENCH_LIB_SRC := $(filter-out bench/t2bench.c,$(wildcard bench/*.c))
BENCH_LIB_OBJ := $(call objs,$(BENCH_LIB_SRC)) $(patsubst %.cc,$(B)/%.o,$(wildcard bench/*.cc))
BENCH_PROGRAM := $(B)/t2bench $(if $(SAN),,build/t2bench)
BENCH_UNITS := $(filter $(B)/tests/test_bench%,$(UNITS))

# ---- main targets ----------------------------------------------------------------------------

.DEFAULT_GOAL := all
.PHONY: all lib run test test-isa test-emulated test-exhaustive test-asan test-ubsan test-tsan test-units \
        test-programs bench bench-full bench-targets bench-readme bench-performance bench-experts mca peers models audit install uninstall format format-check deps deps-run deps-test deps-bench \
        clean help FORCE
.DELETE_ON_ERROR:

all: lib $(B)/t2 $(if $(SAN),,build/t2)

lib: $(LIBT2K) $(LIBT2) $(SHARED)

help:
	@echo 'make run            build and show the program at work on the trained model'
	@echo 'make test           all tests on all instruction sets; last line: N passed, N failed, ...'
	@echo 'make bench          time the kernels, under a minute (BENCH_ARGS=... goes to the benchmark)'
	@echo 'make bench-full     everything, half an hour: a JSON file and a page below build/bench'
	@echo 'make bench-targets  what targets are set for, 40 minutes: a JSON file and a table'
	@echo 'make bench-experts  the targets of experts: tables, figures and pictures below build/bench/experts'
	@echo 'make bench-readme   the table in README.md again, from bench/results/targets'
	@echo 'make bench-performance  docs/targets.md and the picture of docs/performance.md, from bench/results/targets'
	@echo 'make mca            what llvm-mca (LLVM 19) says of the hot loops, a table; ARCH=aarch64: NEON'
	@echo 'make peers          install the libraries that the benchmark compares with (some GB)'
	@echo 'make models         fetch MiniLM (91 MB) and SmolLM2 (538 MB) into build/models; MODELS=minilm'
	@echo 'make all | lib      the program and the libraries, below $(B) | libraries only'
	@echo 'make test-isa       the suites that compute, once per instruction set of this CPU'
	@echo 'make test-exhaustive  all 2^32 arguments of exp, log, gelu, silu, relu: minutes'
	@echo 'make test-emulated  the AVX-512 tests in an emulator'
	@echo 'make test-asan | test-ubsan | test-tsan    under a sanitizer'
	@echo 'make audit          symbols, instructions, flags and layering of what was built'
	@echo 'make install | uninstall    PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) DESTDIR=$(DESTDIR)'
	@echo 'make format | format-check  clang-format over all sources'
	@echo 'make deps           install what run, test and bench need (Debian packages)'
	@echo 'make clean          remove build/'
	@echo 'Variables: CC=gcc|clang  SAN=asan|ubsan|tsan  ARCH=aarch64  CFLAGS  B=build folder  V=1'

# What a goal needs on a fresh machine is installed before anything is compiled.
ifneq ($(filter run,$(MAKECMDGOALS)),)
FIRST += deps-run
endif
ifneq ($(filter test test-isa test-emulated test-asan test-ubsan test-tsan,$(MAKECMDGOALS)),)
FIRST += deps-test
endif
ifneq ($(filter bench bench-full bench-targets bench-readme bench-performance bench-experts,$(MAKECMDGOALS)),)
FIRST += deps-bench
endif
ifneq ($(ARCH),$(HOST_ARCH))
# LAPACK and BLAS are chosen by Debian's alternatives, which nobody sets in this folder.
SYSROOT_READY := $(SYSROOT)/usr/lib/$(ARCH)-linux-gnu/libblas.so.3
FIRST += $(SYSROOT_READY)
$(SYSROOT_READY):
	$(Q)sh tests/tools/arm64-sysroot.sh $(SYSROOT) libc6 libgomp1 libsleef-dev \
	    libcriterion-dev libjansson-dev nettle-dev liblapacke-dev libopenblas0-pthread
	$(Q)ln -sf openblas-pthread/liblapack.so.3 openblas-pthread/libblas.so.3 $(@D)
	$(Q)ln -sf openblas-pthread/libopenblas.so.0 $(@D)
endif
deps: ; @CC='$(CC)' sh tests/tools/deps.sh run test bench
deps-run deps-test deps-bench: ; @CC='$(CC)' sh tests/tools/deps.sh $(@:deps-%=%)

run: all
	@sh tests/tools/run-demo.sh $(B)/t2 $(B)/demo

test-units: $(UNITS) $(TOOLS)
test-programs: all $(B)/t2k-matrix $(BENCH_PROGRAM) test-units

# The runner builds the other configurations by itself: NEON, sanitizers.
RUN_TESTS = +@MAKE='$(MAKE)' B='$(B)' CC='$(CC)' CXX='$(CXX)' V='$(V)' SAN='$(SAN)' \
            SYSROOT='$(SYSROOT)' sh tests/tools/run-tests.sh
test: test-programs
	$(RUN_TESTS) all
test-isa: test-programs
	$(RUN_TESTS) isa
test-emulated: test-programs
	$(RUN_TESTS) emulated
test-asan test-ubsan test-tsan: | deps-test
	$(RUN_TESTS) $(@:test-%=%)

# Every float through the one-argument kernels: minutes.
test-exhaustive: $(EXHAUSTIVE)
	@$(EXHAUSTIVE)

audit: all
	@B='$(B)' CC='$(CC)' sh tests/tools/audit.sh

# One machine's results and the page about them.
BENCH_DIR ?= build/bench

bench: $(BENCH_PROGRAM)
	@$(B)/t2bench run --quick $(BENCH_ARGS)
bench-full: $(BENCH_PROGRAM)
	@mkdir -p $(BENCH_DIR)
	@$(B)/t2bench run --full --json $(BENCH_DIR) $(BENCH_ARGS)
	@$(B)/t2bench report $(BENCH_DIR)/*.json -o $(BENCH_DIR)/report.html
bench-targets: $(BENCH_PROGRAM)
	@mkdir -p $(BENCH_DIR)/targets
	@$(B)/t2bench run --targets --json $(BENCH_DIR)/targets $(BENCH_ARGS)
	@$(B)/t2bench report --targets $(BENCH_DIR)/targets/*.json > $(BENCH_DIR)/targets.md
	@echo '$(BENCH_DIR)/targets.md has the table'
# Kernels beside PyTorch and each other, then what programs call, on one thread.
EXPERT_CASES := ^(svd_rebuild|svd_rebuild_dense|expert_rebuild|sgemm_nt)/.*/(384x384x384|1536x384x384|576x576x576|192x576x192|1536x576x576|4096x4096x4096)/|^(expert|expert_rows|expert_turns)/
bench-experts: $(BENCH_PROGRAM)
	@mkdir -p $(BENCH_DIR)/experts
	@$(B)/t2bench run --targets --filter '$(EXPERT_CASES)' --peers torch --threads 1 --repetitions 7 \
	    --json $(BENCH_DIR)/experts/kernels.json --md $(BENCH_DIR)/experts/kernels.md $(BENCH_ARGS)
	@$(B)/t2bench report --targets $(BENCH_DIR)/experts/kernels.json | \
	    sed -n '/^| row /,+1p; /^| 1[34] /p; /^\*\*/s/: .*/:/p' > $(BENCH_DIR)/experts/kernel-targets.md
	@$(B)/t2bench experts all --dir $(BENCH_DIR)/experts --threads 1
bench-performance: $(BENCH_PROGRAM)
	@$(B)/t2bench report --targets-into docs/targets.md bench/results/targets/*.json
	@$(B)/t2bench report --roofline docs/roofline.svg $(firstword $(sort $(wildcard bench/results/targets/*.json)))
bench-readme: $(BENCH_PROGRAM)
	@$(B)/t2bench report --readme-into README.md $(wildcard bench/results/targets/*.json)
# What llvm-mca says of the loops; ARCH=aarch64 for NEON.
mca: $(LIBT2K)
	@sh bench/tools/mca.sh $(B)
peers:
	@sh bench/tools/peers.sh build/peers
# Not part of the repository; tests that need one are skipped where it is missing.
models:
	@python3 tests/tools/get-models.py --shared ../shared/models build/models $(MODELS)

# ---- rules -----------------------------------------------------------------------------------

$(foreach i,$(ISAS),$(eval $(B)/kernels/$(i)/%.o: DIRFLAGS = $(STACK) $(FLAGS_$(i)) $(ORDER_$(i))))
$(B)/kernels/%.o: INC = -Ikernels
$(B)/kernels/core/%.o: DIRFLAGS = $(STACK)
$(B)/kernels/ops/%.o: DIRFLAGS = $(STACK) $(OPENMP)
$(B)/runtime/%.o: INC = -Ikernels -Iruntime
$(B)/tests/%.o: INC = -Ikernels -Iruntime -Itests
$(B)/tests/test_bench%.o: INC = -Ikernels -Iruntime -Itests -iquote bench
$(B)/tests/test_threads.o $(B)/tests/test_strict.o: DIRFLAGS = $(OPENMP)
# Vectors as in kernels/amx, tiles in software.
$(B)/tests/amx_groups_vector.o: DIRFLAGS = $(if $(filter x86_64,$(ARCH)),$(FLAGS_avx512) -mavx512bf16)
$(B)/bench/%.o: INC = -Ikernels -Iruntime -Itests -iquote bench
$(B)/bench/%.o: DIRFLAGS = $(OPENMP)
$(B)/bench/machine.o: DIRFLAGS = $(OPENMP) -DT2BENCH_FLAGS='"$(strip $(CFLAGS) $(SANFLAGS))"' \
    -DT2BENCH_GIT='"$(GIT_NOW)"'

# Text that is built into the benchmark by bench/embed.h.
$(B)/bench/shapes.o: $(wildcard bench/shapes/*.txt)
$(B)/bench/peers.o $(B)/bench/client.o: $(wildcard bench/peers/*.py)
$(patsubst %.c,$(B)/%.o,$(wildcard bench/report*.c)): $(wildcard bench/report/*)

# Rewritten when another commit is built.
GIT_NOW := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
GIT_FILE := $(B)/commit
$(GIT_FILE): FORCE
	@mkdir -p $(@D)
	@echo '$(GIT_NOW)' | cmp -s - $@ || echo '$(GIT_NOW)' > $@
$(B)/bench/machine.o: $(GIT_FILE)

# Rewritten when the flags change, and then everything is compiled again.
FLAGS_FILE := $(B)/flags
FLAGS_NOW = $(CC) $(ALL_CFLAGS) $(ALL_CXXFLAGS) $(foreach i,$(ISAS),$(FLAGS_$(i)) $(ORDER_$(i))) $(STACK)
$(FLAGS_FILE): FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS_NOW)' | cmp -s - $@ || echo '$(FLAGS_NOW)' > $@

$(B)/%.o: %.c Makefile $(FLAGS_FILE) | $(FIRST)
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(DIRFLAGS) $(INC) -c $< -o $@

$(B)/%.o: %.cc Makefile $(FLAGS_FILE) | $(FIRST)
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(ALL_CXXFLAGS) $(DIRFLAGS) $(INC) -c $< -o $@

$(LIBT2K): $(K_OBJ)
$(LIBT2): $(T_OBJ)
$(TEST_LIB): $(call objs,$(TEST_LIB_SRC))
$(BENCH_LIB): $(BENCH_LIB_OBJ)
$(LIBT2K) $(LIBT2) $(TEST_LIB) $(BENCH_LIB):
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

LINK = $(CC) $(SYSROOT_FLAGS) $(SANFLAGS) $(LDFLAGS)

$(B)/libt2k.so.$(SO): $(K_OBJ) kernels/t2k.map
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(@F) -Wl,-z,nodelete $(NO_UNDEFINED) \
	    -Wl,--version-script=kernels/t2k.map $(K_OBJ) $(KLIBS) -o $@
	@ln -sf $(@F) $(B)/libt2k.so

$(B)/libt2.so.$(SO): $(T_OBJ) runtime/t2.map $(B)/libt2k.so.$(SO)
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(@F) -Wl,-z,nodelete $(NO_UNDEFINED) \
	    -Wl,--version-script=runtime/t2.map -Wl,-rpath,'$$ORIGIN' $(T_OBJ) -L$(B) -lt2k $(TLIBS) -lm -o $@
	@ln -sf $(@F) $(B)/libt2.so

$(B)/t2: $(CLI_OBJ) $(LIBT2) $(LIBT2K)
	$(call say,LD,$@)
	$(Q)$(LINK) $^ $(TLIBS) $(KLIBS) -o $@

# build/t2 and build/t2bench are the programs of the configuration built last, but for sanitizers.
build/t2 build/t2bench: build/%: $(B)/% FORCE
	@ln -sf '$(abspath $(B))/$*' $@

$(B)/t2k-matrix: $(call objs,$(MATRIX_SRC)) $(TEST_LIB) $(LIBT2K)
	$(call say,LD,$@)
	$(Q)$(LINK) $^ $(KLIBS) -o $@

$(EXHAUSTIVE): $(EXHAUSTIVE).o $(TEST_LIB) $(LIBT2K)
	$(call say,LD,$@)
	$(Q)$(LINK) $^ $(KLIBS) -o $@

$(BENCH_UNITS): $(B)/tests/%: $(B)/tests/%.o $(BENCH_LIB)
$(UNITS): $(B)/tests/%: $(B)/tests/%.o $(TEST_LIB) $(LIBT2) $(LIBT2K)
	$(call say,LD,$@)
	$(Q)$(LINK) $(filter %.o,$^) $(filter %/libbench.a,$^) \
	    $(filter-out %/libbench.a,$(filter %.a,$^)) -lcriterion $(TLIBS) $(KLIBS) -ldl -o $@

# This one loads the shared library by hand.
$(B)/tests/test_process: | $(B)/libt2k.so.$(SO)

$(TOOLS): %: %.o $(TEST_LIB) $(LIBT2) $(LIBT2K)
	$(call say,LD,$@)
	$(Q)$(LINK) $^ $(TLIBS) $(KLIBS) -o $@

$(B)/t2bench: $(B)/bench/t2bench.o $(BENCH_LIB) $(TEST_LIB) $(LIBT2) $(LIBT2K)
	$(call say,LD,$@)
	$(Q)$(CXX) $(SANFLAGS) $(LDFLAGS) $^ -lbenchmark $(TLIBS) $(KLIBS) -ldl -o $@

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- installation ----------------------------------------------------------------------------

BINDIR := $(PREFIX)/bin
INCDIR := $(PREFIX)/include
MANDIR := $(PREFIX)/share/man/man1
INSTALLED := $(BINDIR)/t2 $(INCDIR)/t2k.h $(INCDIR)/t2.h $(INCDIR)/t2_experts.h $(INCDIR)/t2_factors.h $(INCDIR)/t2_learn.h $(MANDIR)/t2.1 \
             $(foreach l,t2k t2,$(LIBDIR)/lib$(l).so.$(VERSION) $(LIBDIR)/lib$(l).so.$(SO) \
             $(LIBDIR)/lib$(l).so $(LIBDIR)/lib$(l).a $(LIBDIR)/pkgconfig/$(l).pc)
# The .pc files find everything from their own place, so that the tree may be moved.
pc_path = $(shell realpath -m --relative-to='$(LIBDIR)/pkgconfig' '$(1)')
PC_SED = -e 's|@PREFIX@|$${pcfiledir}/$(call pc_path,$(PREFIX))|' \
         -e 's|@LIBDIR@|$${pcfiledir}/$(call pc_path,$(LIBDIR))|' -e 's|@VERSION@|$(VERSION)|'

install: all
	@install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(INCDIR)' '$(DESTDIR)$(LIBDIR)/pkgconfig'
	@install -m 755 $(B)/t2 '$(DESTDIR)$(BINDIR)/t2'
	@install -m 644 kernels/t2k.h runtime/t2.h runtime/t2_experts.h runtime/t2_factors.h runtime/t2_learn.h '$(DESTDIR)$(INCDIR)/'
	@for l in t2k t2; do \
	    install -m 755 $(B)/lib$$l.so.$(SO) '$(DESTDIR)$(LIBDIR)'/lib$$l.so.$(VERSION) && \
	    ln -sf lib$$l.so.$(VERSION) '$(DESTDIR)$(LIBDIR)'/lib$$l.so.$(SO) && \
	    ln -sf lib$$l.so.$(SO) '$(DESTDIR)$(LIBDIR)'/lib$$l.so && \
	    install -m 644 $(B)/lib$$l.a '$(DESTDIR)$(LIBDIR)/' || exit 1; \
	done
	@sed $(PC_SED) kernels/t2k.pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig/t2k.pc'
	@sed $(PC_SED) runtime/t2.pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig/t2.pc'
	@if [ -e docs/t2.1 ]; then install -d '$(DESTDIR)$(MANDIR)' && \
	    install -m 644 docs/t2.1 '$(DESTDIR)$(MANDIR)/t2.1'; fi
	@echo 'installed below $(DESTDIR)$(PREFIX)'

uninstall:
	@rm -f $(patsubst %,'$(DESTDIR)%',$(INSTALLED))
	@echo 'removed from $(DESTDIR)$(PREFIX)'

# ---- upkeep ----------------------------------------------------------------------------------

FORMAT_SRC = $(shell find kernels runtime tests bench -name '*.[ch]' -o -name '*.cc')
format:
	@clang-format -i --style=file $(FORMAT_SRC)

format-check:
	@clang-format --dry-run -Werror --style=file $(FORMAT_SRC)

clean:
	rm -rf build
