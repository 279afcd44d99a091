#!/bin/sh
# run-tests.sh all|isa|emulated|asan|ubsan|tsan - builds what is missing, runs the suites, counts
#
# Called by the Makefile, from the repository's root, with the configuration in the environment
# (MAKE, B, CC, CXX, V). One line a suite; failed ones show their log. The last line is
# "N passed, N failed, N skipped" over all suites and instruction sets; the exit status is 1 when
# a check failed. A suite that dies, or reports no counts, is one failure.
#
#   all       the matrix and the Criterion suites here, the latter also once per T2K_ISA; NEON
#             under qemu; AVX-512 in an emulator where this CPU has none; the audit, the
#             installed tree, the program; the same fingerprint everywhere
#   isa       the suites that compute, once per usable T2K_ISA
#   emulated  the AVX-512 part of `all` in the emulator, whatever this CPU has
#   asan ...  matrix and suites built with that sanitizer

set -u
export LC_ALL=C
unset T2K_ISA T2K_NUM_THREADS OMP_NUM_THREADS
# Waiting threads sleep: suites run side by side here, with more threads than CPUs (measured: the
# golden cases take 0.5 s of CPU time instead of 12 on a machine that is also busy otherwise).
export OMP_WAIT_POLICY=passive

mode=${1:-all}
MAKE=${MAKE:-make} B=${B:-build} CC=${CC:-gcc} CXX=${CXX:-g++} V=${V:-}
arch=$(uname -m)
tools=tests/tools
logs=$B/logs
rm -rf "$logs"
mkdir -p "$logs"
passed=0 failed=0 skipped=0
prints=$logs/fingerprints
: > "$prints"
: > "$prints.golden"

# Suites that do not depend on the instruction set run once, not once per T2K_ISA.
isa_free=" test_dispatch test_threads test_strict test_process test_io test_safetensors
 test_safetensors_write test_config test_cli test_random test_amx test_bench_limits
 test_svd test_svd_run test_factors test_expert_fuzz "

# The emulator does some 30 million instructions a second: there the matrix and these (6 minutes).
emulated_suites=" test_forward test_golden test_golden_rows "

# ---- counting ---------------------------------------------------------------------------------

# Sums up a log: "passed failed skipped reports". Two forms of report are known: the plain line
# and Criterion's synthesis, which leaves out the tests that were skipped.
counts() {
    awk '{gsub(/\033\[[0-9;]*m/, "")}
         /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {p += $1; f += $3; s += $5; n++}
         /Synthesis: Tested: / {
             sub(/.*Synthesis: Tested: /, "")
             split($0, a, /[^0-9]+/); p += a[2]; f += a[1] - a[2]; n++
         }
         /^\[SKIP\]/ {s++}
         END {print p + 0, f + 0, s + 0, n + 0}' "$1"
}

# account NAME REPORTS STATUS LOG SECONDS: adds the log's counts to the sums and prints a line.
account() {
    # shellcheck disable=SC2046
    set -- "$1" "$2" "$3" "$4" "$5" $(counts "$4")
    bad=$7 note=
    if [ "$9" -lt "$2" ]; then
        bad=$((bad + $2 - $9)) note=", $9 of $2 reports"
    elif [ "$3" != 0 ] && [ "$bad" = 0 ]; then
        bad=1 note=", exit status $3"
    fi
    passed=$((passed + $6)) failed=$((failed + bad)) skipped=$((skipped + $8))
    printf '%-34s %6d passed, %d failed, %d skipped (%d s%s)\n' "$1" "$6" "$bad" "$8" "$5" "$note"
    sed -n "s/^isa \([a-z0-9]*\) tier .*fingerprint \([0-9a-f]*\).*/\1 \2 $1/p" "$4" >> "$prints"
    sed -n "s/^isa \([a-z0-9]*\) tier .* full \([0-9a-f]*\)\$/\1 \2/p" "$4" >> "$prints.full"
    sed -n 's/^isa \([a-z0-9]*\) golden \([a-z_]*\) fingerprint \([0-9a-f]*\)$/\2 \3 \1/p' "$4" \
        >> "$prints.golden"
    if [ "$bad" != 0 ]; then
        echo "---- $4:"
        { grep -vE '^\[(RUN|PASS|SKIP)' "$4" || true; } | tail -n 40
        echo "----"
    fi
}

# suite NAME REPORTS COMMAND...: runs a command that prints that many reports.
suite() {
    name=$1 reports=$2
    shift 2
    log=$logs/$(echo "$name" | tr ' /' '__').log
    start=$(date +%s)
    "$@" > "$log" 2>&1 < /dev/null
    account "$name" "$reports" $? "$log" $(($(date +%s) - start))
}

# verdict NAME TEXT: one check; TEXT says what is wrong, nothing if all is well.
verdict() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        printf '%-34s %6d passed, 0 failed, 0 skipped\n' "$1" 1
    else
        failed=$((failed + 1))
        printf '%-34s %6d passed, 1 failed, 0 skipped: %s\n' "$1" 0 "$2"
    fi
}
skip() { # NAME COUNT REASON
    skipped=$((skipped + $2))
    printf '%-34s %6d passed, 0 failed, %d skipped: %s\n' "$1" 0 "$2" "$3"
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
    exit
}

# ---- pieces -----------------------------------------------------------------------------------

# Another configuration, built by a make of its own: the caller's CC must not leak into it.
build() {
    if ! env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES -u MAKELEVEL -u ARCH -u SAN \
            "$MAKE" V="$V" "$@" > "$logs/build.log" 2>&1; then
        cat "$logs/build.log"
        return 1
    fi
}
units() { # FOLDER: names of the Criterion programs there
    for u in tests/test_*.c; do
        u=$(basename "$u" .c)
        [ -x "$1/tests/$u" ] && echo "$u"
    done
}
computing() { # FOLDER: those that depend on the instruction set
    for u in $(units "$1"); do
        case $isa_free:$u in
        *[[:space:]]"$u"[[:space:]]* | *:test_bench*) ;;
        *) echo "$u" ;;
        esac
    done
}
tests_of() { "$B/tests/$1" --list 2>/dev/null | grep -c '^[^:]* [a-z0-9_]*$'; } # how many
usable_isas() { "$B/t2k-matrix" --tier small --suite none | sed -n 's/^isa \([a-z0-9]*\) .*/\1/p'; }

run_units_native() {
    for u in $(units "$B"); do
        suite "$u" 1 "$B/tests/$u" --verbose --color=never
    done
}
run_units_per_isa() {
    for isa in $(usable_isas); do
        for u in $(computing "$B"); do
            suite "$u T2K_ISA=$isa" 1 env T2K_ISA="$isa" "$B/tests/$u" --verbose --color=never
        done
    done
}

run_neon() {
    arm=$B-aarch64 sysroot=${SYSROOT:-$PWD/build/sysroot-aarch64}
    if ! command -v qemu-aarch64-static >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null
    then
        skip "neon" 1 "no arm64 compiler or no qemu-aarch64-static here"
        return
    fi
    if ! build ARCH=aarch64 B="$arm" SYSROOT="$sysroot" "$arm/t2k-matrix" "$arm/t2" \
            test-units; then
        verdict "neon build" "the cross build failed"
        return
    fi
    suite "matrix qemu-aarch64" 1 qemu-aarch64-static -L "$sysroot" "$arm/t2k-matrix" --tier small
    tests=0
    # Decompositions compute nothing by our kernels, but with other libraries there.
    for u in $(computing "$arm") test_svd test_svd_run; do
        tests=$((tests + $(tests_of "$u")))
    done
    if ! why=$(sh $tools/arm64-binfmt.sh 2>&1); then
        skip "Criterion suites on neon" "$tests" "$why"
        return
    fi
    for u in $(computing "$arm") test_svd test_svd_run; do
        suite "$u neon" 1 env QEMU_LD_PREFIX="$sysroot" "$arm/tests/$u" --verbose --color=never
    done
}

# A processor without AVX, FMA and XSAVE: detection, and fmaf() without hardware.
run_old_cpu() {
    if command -v qemu-x86_64-static >/dev/null; then
        suite "matrix qemu Nehalem" 1 qemu-x86_64-static -cpu Nehalem "$B/t2k-matrix" --tier small
    else
        skip "matrix qemu Nehalem" 1 "no qemu-x86_64-static here"
    fi
}

# A model made from a seed, and its logits, must be the same on every machine: no libm function
# that looks at the CPU, no instruction that differs. portable NAME PROGRAM... adds a line.
machines=$logs/machines
portable() {
    name=$1 folder=$logs/model
    shift
    rm -rf "$folder"
    printf '1 2 3 4 5 6 7\n49 0 48 11 12 13 1\n' > "$logs/ids.txt"
    "$@" init "$folder" --vocab-size 50 --embed-size 32 --num-layers 2 --heads 4 --seed 3 \
        > "$logs/portable.log" 2>&1 &&
        "$@" run "$folder" --ids "$logs/ids.txt" >> "$logs/portable.log" 2>&1
    made=$(cksum < "$folder/model.safetensors" | tr ' ' -)
    print=$(sed -n 's/^fingerprint //p' "$logs/portable.log")
    echo "$made ${print:-none} $name" >> "$machines"
}
check_machines() {
    for isa in $(usable_isas); do
        portable "T2K_ISA=$isa" env T2K_ISA="$isa" "$B/t2"
    done
    if [ "$arch" = x86_64 ] && command -v qemu-x86_64-static >/dev/null; then
        portable "qemu Nehalem" qemu-x86_64-static -cpu Nehalem "$B/t2"
    fi
    if [ -x "$B-aarch64/t2" ]; then
        portable "qemu-aarch64" qemu-aarch64-static -L "$sysroot" "$B-aarch64/t2"
    fi
    echo "machine: checksum of a model from a seed, fingerprint of its logits:"
    awk '{m = $1; p = $2; $1 = $2 = ""; printf "    %-16s %s %s\n", substr($0, 3), m, p}' "$machines"
    different=$(awk '{print $1, $2}' "$machines" | sort -u | wc -l)
    bad=$(grep -c ' none ' "$machines")
    [ "$different$bad" != 10 ] || different=
    verdict "the same model and logits" "${different:+$different different ones, $bad without}"
}

# All in one boot; the guest's files are those of this machine at the same paths. The emulator
# uses one CPU: it is started early, beside the other suites, and accounted for at the end.
emulator_log=$logs/avx512_emulated.log
start_emulated() {
    run="$PWD/$B/t2k-matrix --tier small --isa avx512" emulator_reports=1
    set -- -e OMP_WAIT_POLICY=passive -f "$B/t2k-matrix"
    for data in tests/golden tests/data runtime/models; do
        [ ! -d $data ] || set -- "$@" -f $data
    done
    # Loaded by name when a thread ends, so that ldd does not see it.
    libgcc=$(ldd "$B/t2k-matrix" | sed -n 's|.*=> \(.*/\)libc\.so.*|\1libgcc_s.so.1|p')
    [ ! -e "$libgcc" ] || set -- "$@" -f "$libgcc"
    emulator_left=0
    for u in $(computing "$B"); do
        case $emulated_suites in
        *" $u "*) ;;
        *)
            emulator_left=$((emulator_left + $(tests_of "$u")))
            continue
            ;;
        esac
        set -- "$@" -f "$B/tests/$u"
        run="$run; T2K_ISA=avx512 $PWD/$B/tests/$u --verbose --color=never 2>&1"
        emulator_reports=$((emulator_reports + 1))
    done
    emulator_start=$(date +%s)
    bash $tools/run-avx512-emulated.sh -t 1200 -m 1024 "$@" sh -c "$run" \
        > "$emulator_log" 2>&1 < /dev/null &
    emulator=$!
}
finish_emulated() {
    [ -n "${emulator:-}" ] || return
    wait "$emulator"
    account "avx512 emulated" "$emulator_reports" $? "$emulator_log" \
        $(($(date +%s) - emulator_start))
    [ "$emulator_left" = 0 ] ||
        skip "other suites, avx512 emulated" "$emulator_left" "too slow; their kernels ran above"
}

check_fingerprints() {
    echo "instruction set, fingerprint of the small tier:"
    sort -u "$prints" | awk '{w = $3; for (i = 4; i <= NF; i++) w = w " " $i
                              printf "    %-8s %s  (%s)\n", $1, $2, w}'
    different=$(awk '{print $2}' "$prints" | sort -u | wc -l)
    [ "$different" != 1 ] || different=
    verdict "one fingerprint" "${different:+$different different ones}"
    if [ -s "$prints.full" ]; then
        different=$(awk '{print $2}' "$prints.full" | sort -u | wc -l)
        [ "$different" != 1 ] || different=
        verdict "one fingerprint, full tier" "${different:+$different different ones}"
    fi
    [ -s "$prints.golden" ] || return
    for kind in $(cut -d' ' -f1 "$prints.golden" | sort -u); do
        different=$(grep "^$kind " "$prints.golden" | cut -d' ' -f2 | sort -u | wc -l)
        [ "$different" != 1 ] || different=
        verdict "one fingerprint, golden $kind" "${different:+$different different ones}"
    done
}

# On an x86 machine with AVX2 there is no excuse: every instruction set must have run.
check_coverage() {
    ran=$(awk '{print $1}' "$prints" | sort -u | tr '\n' ' ')
    echo "instruction sets that ran: $ran"
    grep -qw avx2 /proc/cpuinfo || return
    missing=
    for isa in scalar avx2 avx512 neon; do
        case " $ran" in *" $isa "*) ;; *) missing="$missing $isa" ;; esac
    done
    verdict "all instruction sets ran" "${missing:+missing:$missing}"
}

run_sanitized() {
    san=$B-$mode
    export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1
    export LSAN_OPTIONS=suppressions=tests/tools/lsan.supp:print_suppressions=0
    export UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
    # Criterion cannot start under TSan, and gcc's OpenMP runtime is not instrumented, so that its
    # barriers look like races: there a plain program has threads of its own call the library.
    callers=$san/tests/tools/t2k-callers
    swaps=$san/tests/tools/t2-swaps
    if [ "$mode" = tsan ]; then
        goals="$callers $swaps"
    else
        goals="$san/t2k-matrix test-units"
    fi
    # shellcheck disable=SC2086
    if ! build SAN="$mode" CC="$CC" B="$san" $goals; then
        verdict "build with $mode" "failed"
        return
    fi
    suite "callers $mode" 1 "$callers"
    suite "swaps of experts $mode" 1 "$swaps" 10000
    [ "$mode" != tsan ] || return
    suite "matrix $mode" 1 "$san/t2k-matrix" --tier small
    for u in $(units "$san"); do
        suite "$u $mode" 1 "$san/tests/$u" --verbose --color=never
    done
}

# ---- what was asked for -----------------------------------------------------------------------

case $mode in
all)
    if [ "$arch" = x86_64 ] && ! usable_isas | grep -qx avx512; then
        start_emulated
    fi
    suite "matrix $arch" 1 "$B/t2k-matrix" --tier full
    run_units_native
    run_units_per_isa
    if [ "$arch" = x86_64 ]; then
        run_neon
        run_old_cpu
    fi
    check_machines
    suite "swaps of experts" 1 "$B/tests/tools/t2-swaps" 2000
    suite "audit" 1 env B="$B" CC="$CC" sh $tools/audit.sh
    suite "installed tree" 1 env B="$B" CC="$CC" CXX="$CXX" MAKE="$MAKE" sh $tools/test-install.sh
    arm_run=
    [ ! -x "$B-aarch64/t2" ] || arm_run="qemu-aarch64-static -L $sysroot $B-aarch64/t2"
    suite "program" 1 env ARM_RUN="$arm_run" \
        sh tests/cli/run.sh "$B/t2" "$B/tests/tools/golden-split"
    suite "program: svd" 1 sh tests/cli/svd.sh "$B/t2"
    suite "program: expert" 1 sh tests/cli/expert.sh "$B/t2"
    # Python modules come from Debian's packages: its Python goes before any other.
    for part in run compare report python-peers; do
        suite "benchmark: $part" 1 env B="$B" PATH="/usr/bin:$PATH" sh tests/bench/$part.sh
    done
    finish_emulated
    check_fingerprints
    check_coverage
    ;;
isa)
    suite "matrix $arch" 1 "$B/t2k-matrix" --tier full
    run_units_per_isa
    check_fingerprints
    ;;
emulated)
    start_emulated
    suite "matrix $arch" 1 "$B/t2k-matrix" --tier small
    finish_emulated
    check_fingerprints
    ;;
asan | ubsan | tsan) run_sanitized ;;
*)
    echo "usage: run-tests.sh all|isa|emulated|asan|ubsan|tsan" >&2
    exit 2
    ;;
esac
finish
