#!/bin/sh
# audit.sh - what no test of behaviour sees: symbols, instructions, flags and layering
#
# Reads the build in $B (default build/<machine>-<CC>; `make all` comes first) and the sources.
# Prints each failed check with what it found, and last "N passed, N failed, N skipped".

set -u
export LC_ALL=C

CC=${CC:-gcc}
arch=$(uname -m)
B=${B:-build/$arch-$CC}
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# check TEXT FILE: passes if FILE, the list of offenders, is empty.
check() {
    if [ ! -s "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED audit: $1"
        head -n 10 "$2" | sed 's/^/    /'
    fi
}
skip() {
    skipped=$((skipped + 1))
    echo "SKIPPED audit: $1"
}
objects() { find "$B/$1" -name '*.o' | sort; }

if [ ! -e "$B/libt2.so.0" ] || [ ! -e "$B/libt2k.so.0" ]; then
    echo "FAILED audit: no libraries in $B"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
list=$work/list

# ---- symbols ----------------------------------------------------------------------------------

# Public names of a header: the function names of its declarations with an API macro.
declared() {
    "$CC" -E -P -x c "$1" | tr '\n' ' ' | tr ';' '\n' | grep visibility |
        sed 's/__attribute__((visibility("default")))//' |
        grep -oE "$2[a-z0-9_]*\(" | tr -d '(' | sort -u
}
for pair in t2k:kernels/t2k.h t2:runtime/t2.h; do
    lib=${pair%%:*} header=${pair#*:}
    nm -D --defined-only "$B/lib$lib.so.0" | awk '$2 != "A" {print $3}' | sed 's/@.*//' |
        sort -u > "$work/exported"
    grep -v "^${lib}_" "$work/exported" > "$list"
    check "lib$lib.so exports only ${lib}_ names" "$list"
    declared "$header" "${lib}_" | comm -3 - "$work/exported" > "$list"
    check "lib$lib.so exports exactly the functions of $header" "$list"
    nm -g --defined-only "$B/lib$lib.a" 2>/dev/null | awk 'NF == 3 {print $3}' |
        grep -v "^${lib}_" > "$list"
    check "lib$lib.a defines only ${lib}_ names" "$list"
    readelf -SW "$B/lib$lib.so.0" | sed 's/^ *\[ *[0-9]*\] *//' |
        awk '$1 ~ /^\.(init|fini)_array$/ && $5 != "000008" {print $1, $5}' > "$list"
    check "lib$lib.so runs nothing of its own when loaded or unloaded" "$list"
    readelf -dW "$B/lib$lib.so.0" > "$work/dynamic"
    { grep -q NODELETE "$work/dynamic" || echo "not marked NODELETE"
      grep -q "SONAME.*\[lib$lib.so.0\]" "$work/dynamic" || echo "no SONAME lib$lib.so.0"
    } > "$list"
    check "lib$lib.so has its SONAME and stays loaded" "$list"
done

# Lines "object symbol" of what the libraries' objects take from elsewhere.
for o in $(objects kernels) $(find "$B/runtime" -name '*.o' ! -path '*/cli/*' | sort); do
    nm -u "$o" | awk -v o="${o#"$B"/}" '{print o, $2}'
done | sed 's/@.*//' > "$work/undefined"

# Rule 16 of docs/numerics.md: libm's own functions change with the CPU's features.
libm=$("$CC" -print-file-name=libm.so.6)
nm -D --defined-only "$libm" | awk '{sub(/@.*/, "", $3); print $3}' | sort -u > "$work/libm"
printf '%s\n' fma fmaf sqrt sqrtf rint rintf nearbyint nearbyintf floor floorf ceil ceilf trunc \
    truncf round roundf lrint lrintf llrint llrintf lround lroundf llround llroundf ldexp ldexpf \
    fmod fmodf | sort > "$work/exact"
comm -23 "$work/libm" "$work/exact" > "$work/inexact"
[ -s "$work/inexact" ] || echo "no symbols found in $libm" >> "$work/undefined"
awk 'NR == FNR {bad[$1] = 1; next} bad[$2]' "$work/inexact" "$work/undefined" > "$list"
check "no libm function whose bits depend on the CPU" "$list"

awk '{s = $2; sub(/^__/, "", s); sub(/_chk$/, "", s)}
     s ~ /^(v?f?d?printf|puts|putchar|putc|fputs|fputc|fwrite_unlocked|perror|psignal)$/ ||
     s ~ /^(exit|_exit|_Exit|quick_exit|abort|err|errx|warn|warnx|stdout|stderr|syslog)$/' \
    "$work/undefined" > "$list"
check "libraries neither print nor exit" "$list"

# What a kernel of an ISA folder may call: copies, exact arithmetic, SLEEF, other t2k functions.
{
    cat "$work/exact"
    printf '%s\n' memcpy memset memmove bcmp __assert_fail _GLOBAL_OFFSET_TABLE_
} > "$work/allowed"
awk 'NR == FNR {ok[$1] = 1; next}
     $1 ~ /^kernels\/(scalar|avx2|avx512|amx|neon)\// && !ok[$2] && $2 !~ /^(t2k_|Sleef_)/' \
    "$work/allowed" "$work/undefined" > "$list"
check "kernels of the ISA folders allocate, lock and start nothing" "$list"

awk '$1 !~ /^kernels\/ops\// && $2 ~ /^(GOMP_|omp_|__kmpc_)/' "$work/undefined" > "$list"
check "OpenMP is called from kernels/ops only" "$list"

# ---- instructions -----------------------------------------------------------------------------

# offenders DIR-PATTERN REGEX: lines "object instruction" of objects whose path matches.
for o in $(objects kernels) $(objects runtime); do
    objdump -d --no-show-raw-insn "$o" | awk -F '\t' -v o="${o#"$B"/}" 'NF > 1 {print o, $2}'
done > "$work/code"
if [ "$arch" = x86_64 ]; then
    grep -vE '^kernels/(avx2|avx512|amx)/' "$work/code" > "$work/plain"
    grep -E '%[yz]mm|%k[0-7]' "$work/plain" > "$list"
    check "no 256- or 512-bit register outside kernels/avx2, avx512 and amx" "$list"
    grep -E '^[^ ]+ v[a-z]' "$work/plain" > "$list"
    check "no AVX-encoded instruction outside kernels/avx2, avx512 and amx" "$list"
    grep -vE '^kernels/amx/' "$work/code" | grep -E '%tmm|tilecfg|tilerelease' > "$list"
    check "no tile instruction outside kernels/amx" "$list"
    grep -E '^kernels/avx2/' "$work/code" | grep -E '%zmm|%k[0-7]|%[xy]mm(1[6-9]|2[0-9]|3[01])' > "$list"
    check "no AVX-512 in kernels/avx2" "$list"
    for isa in avx2:ymm avx512:zmm amx:tmm; do
        grep -qE "^kernels/${isa%:*}/.*%${isa#*:}" "$work/code" && : > "$list" ||
            echo "no %${isa#*:} in any object" > "$list"
        check "kernels/${isa%:*} uses its registers" "$list"
    done
fi
grep -E '^[^ ]+ (v?r(sqrt|cp)(14|28)?[ps][sd]|frsqrte|frecpe|ursqrte|urecpe)\b' "$work/code" > "$list"
check "no approximate reciprocal or square root" "$list"

# ---- gates and flags --------------------------------------------------------------------------

# The features of isa.def against the macros that each folder's flags define beyond the baseline.
if [ "$arch" = x86_64 ]; then
    printf '#define T2K_ISA_ROW(name, arch, list) name arch list\n#include "core/isa.def"\n' |
        "$CC" -E -P -Ikernels - | tr -d '"' > "$work/bundles"
    for cc in gcc clang; do
        if ! command -v $cc >/dev/null; then
            skip "flags of the ISA folders under $cc, which is not here"
            continue
        fi
        flags_of() { sed -n "s/^FLAGS_$1 := *//p" Makefile; }
        macros() { "$cc" -std=c11 "$@" -dM -E -x c /dev/null | awk '{print $2}' | sort -u; }
        macros > "$work/baseline"
        for isa in scalar avx2 avx512 amx; do
            flags=$(flags_of $isa | sed "s/\$(FLAGS_avx512)/$(flags_of avx512)/")
            # __CRC32__ is SSE4.2's instruction; the others name no instruction set. clang 14
            # writes AMXTILE for AMX_TILE.
            # shellcheck disable=SC2086
            macros $flags | comm -13 "$work/baseline" - |
                grep -vE '^(__CRC32__|__FP_FAST_.*|__BIGGEST_.*|__EVEX(256|512)__|__GCC_.*)$' |
                sed 's/^__//; s/__$//; s/^AMX\([A-Z]\)/AMX_\1/' | tr '[:upper:]' '[:lower:]' |
                sort > "$work/got"
            awk -v isa=$isa '$1 == isa {for (i = 3; i <= NF; i++) print $i}' "$work/bundles" |
                sort > "$work/want"
            comm -3 "$work/want" "$work/got" > "$list"
            check "flags of kernels/$isa under $cc are the gate of isa.def" "$list"
        done
    done
fi

# ---- layering and form ------------------------------------------------------------------------

grep -rlE '#pragma omp|<omp\.h>' kernels runtime | grep -v '^kernels/ops/' > "$list"
check "OpenMP in kernels/ops only" "$list"
# Rule 10 of docs/numerics.md; continued lines are joined first.
find kernels runtime -name '*.[ch]' | while read -r f; do
    sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$f" |
        awk -v f="$f" '/[pP]ragma.*omp.*([^a-z_]simd([^a-z_]|$)|reduction *\()/ {print f ": " $0}'
done > "$list"
check "no OpenMP reduction, no omp simd" "$list"
grep -rlE '<[a-z0-9]*intrin\.h>|<arm_(neon|acle)\.h>' kernels runtime |
    grep -vE '^kernels/(simd|avx2|avx512|amx|neon)/' > "$list"
check "intrinsics in kernels/simd and the ISA folders only" "$list"
grep -rnE '#include "' kernels |
    grep -vE '#include "(t2k\.h|(core|ops|simd|tmpl|scalar|avx2|avx512|amx|neon)/)' |
    grep -vE '#include "[a-z0-9_]+\.h"' > "$list"
grep -rnE '#include "(t2\.h|(\.\./)*(runtime|io|model|models|svf|learn|cli)/)' kernels >> "$list"
check "kernels include nothing of the runtime" "$list"
grep -rnE '#include "cli/|"(\.\./)+cli/' runtime | grep -v '^runtime/cli/' > "$list"
check "the runtime's libraries include nothing of the program" "$list"
# io <- model <- svf <- learn: what a folder includes of the runtime stands below it.
grep -rnE '#include "(io|model|svf|learn)/' runtime/io runtime/model runtime/svf runtime/learn | awk -F '[/":]' '
    BEGIN {floor["io"] = 1; floor["model"] = 2; floor["svf"] = 3; floor["learn"] = 4}
    floor[$6] > floor[$2] || !floor[$6] {print}' > "$list"
check "no folder of the runtime includes one above it: io, model, svf, learn" "$list"

find kernels runtime tests bench -name '*.[ch]' -o -name '*.cc' -o -name '*.sh' -o -name '*.def' \
    > "$work/sources"
while read -r f; do
    awk -v f="$f" 'END {if (NR > 600) print f, NR, "lines"}' "$f"
done < "$work/sources" > "$list"
check "no file of more than 600 lines" "$list"
grep -E '\.(c|h|cc)$' "$work/sources" | while read -r f; do
    awk -v f="$f" '/^{/ {start = FNR}
                   /^}/ && start {if (FNR - start - 1 > 80) print f ":" start; start = 0}' "$f"
done > "$list"
check "no function of more than 80 lines" "$list"
xargs grep -nP '[^\x00-\x7f]|\t| $' < "$work/sources" > "$list"
check "ASCII, no tabs or trailing blanks" "$list"
grep -E '\.(c|h|cc)$' "$work/sources" | xargs grep -nE '^.{101}' > "$list"
check "at most 100 columns" "$list"

for h in kernels/t2k.h runtime/t2.h; do
    { "$CC" -std=c11 -pedantic -Wall -Wextra -Werror -fsyntax-only -x c "$h" 2>&1
      if command -v g++ >/dev/null; then
          g++ -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only -x c++ "$h" 2>&1
      fi; } | grep -v 'pragma once' > "$list"
    check "$h is pedantic C11 and C++11" "$list"
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
