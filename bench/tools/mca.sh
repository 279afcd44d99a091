#!/bin/sh
# mca.sh BUILD: what llvm-mca says of the hot loops in BUILD/kernels, as a table in Markdown.
#
# A loop is found in the disassembly: among the paths from a target of a conditional backward branch
# to that branch, exits not taken and no other jump within, the one with the most instructions of a
# kind, and of those the shortest. A cell says how many cycles an iteration takes in a long run and,
# in parentheses, how many its busiest resources are taken: where both agree, these are what binds.
#
# The models know neither misses nor how code is fetched. LLVM before 19 models Neoverse N1 and V1
# as Cortex-A57. In LLVM 19 Ice Lake and Sapphire Rapids have one port for multiply-adds of 512 bits,
# where server parts have two, and on Zen 4 broadcasts from memory take a port that multiplies,
# which measurements contradict.
# Environment: LLVM_MCA (a program), MCA_VERBOSE=1 (the loops themselves, too).
set -eu
build=${1:?usage: mca.sh BUILD}

mca=${LLVM_MCA:-}
for version in 22 19; do
    if [ -z "$mca" ] && command -v "llvm-mca-$version" >/dev/null; then
        mca=llvm-mca-$version
    fi
done
if [ -z "$mca" ]; then
    echo 'mca.sh: no llvm-mca of LLVM 19 or later (apt-get install llvm-19, or set LLVM_MCA)' >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# loop FUNCTIONS KIND WITHOUT <disassembly: the loop with the most instructions of a kind.
loop() {
    awk -v functions="$1" -v kind="$2" -v without="$3" '
    function look(back,   first, k, hits, bad, branch) {
        first = at[target[back]]
        hits = bad = 0
        for (k = first; k <= back && !bad; k++) {
            bad = without != "" && text[k] ~ without || k < back && target[k] != "" && \
                  (plain[k] || at[target[k]] >= first && at[target[k]] <= back)
            hits += text[k] ~ kind
        }
        if (bad || hits == 0 || hits < best || hits == best && back - first >= size) {
            return
        }
        best = hits
        size = back - first
        body = "again:\n"
        for (k = first; k < back; k++) {
            body = body (target[k] != "" ? "" : text[k] "\n")
        }
        branch = text[back]
        sub(/[0-9a-f]+ <.*/, "again", branch)
        body = body branch "\n"
    }
    function leave(   i) {
        for (i = 1; i <= n && name ~ functions; i++) {
            if (target[i] != "" && !plain[i] && target[i] in at && at[target[i]] <= i) {
                look(i)
            }
        }
        n = 0
        split("", at)
    }
    /^[0-9a-f]+ <.*>:$/ { leave(); name = substr($2, 2, length($2) - 3); next }
    /^ +[0-9a-f]+:/ {
        n++
        at[substr($1, 1, length($1) - 1)] = n
        sub(/^ +[0-9a-f]+:[ \t]*/, "")
        target[n] = ""
        plain[n] = $1 ~ /^(b|br|bl|ret|jmp.*|call.*)$/
        if ($1 ~ /^(j|b$|bl$|b\.|cbn?z|tbn?z|call|ret|br$)/) {
            target[n] = match($0, /[0-9a-f]+ </) ? substr($0, RSTART, RLENGTH - 2) : "away"
        }
        sub(/[ \t]*(# |\/\/).*/, "")
        text[n] = $0
    }
    END { leave(); printf "%s", body }'
}

# figures CPU <report of llvm-mca: cycles, limit, the busiest resources.
figures() {
    awk -v rounds="$rounds" '
    /^Total Cycles:/ { cycles = $3 / rounds }
    /^Resources:/ { list = 1; next }
    list && /^\[/ { number = $1; sub(/.* - /, ""); resource[number] = $0; next }
    list && /^$/ { list = 0 }
    /^Resource pressure per iteration:/ { getline; heads = split($0, head, " "); getline
        for (i = 1; i <= heads; i++) { # a resource that is not used is a dash
            load = $i == "-" ? 0 : $i + 0
            if (load > most + 0.15) { most = load; busiest = "" }
            if (load > 0 && load > most - 0.15) {
                if (load > most) { most = load }
                short = resource[head[i]]
                sub(/^(SKX|SKL|ICX|SPR|Zn[0-9]?|N1|V1)(Unit)?/, "", short)
                sub(/^Port0*/, "p", short)
                if (short == "p") { short = "p0" }
                if (index(" " busiest " ", " " short " ") == 0) {
                    busiest = busiest (busiest == "" ? "" : " ") short
                }
            }
        }
    }
    END { printf "%.1f (%.1f: %s)", cycles, most, busiest }'
}

stack='[[]sp|[(]%rsp|[(]%rbp' # brackets: an awk may take \( for ( in -v
count() { # a pair counts as two
    awk -v stack="$stack" -v kind="$1" '$0 !~ stack && $0 ~ kind { n += 1 + ($1 ~ /^(ld|st)p$/) }
                                        END { print n + 0 }' "$work/loop.s"
}

# Cycles of an iteration by each CPU, a row of the table.
rounds=300
row() { # title unit object functions kind without
    "$dump" -d --no-show-raw-insn "$build/kernels/$isa/$3_$isa.o" | loop "$4" "$5" "$6" \
        >"$work/loop.s"
    if [ ! -s "$work/loop.s" ]; then
        echo "mca.sh: $isa: no loop for $1" >&2
        return
    fi
    if [ -n "${MCA_VERBOSE:-}" ]; then
        sed 's/^/    /' "$work/loop.s"
    fi
    case $2 in
    step) per="$(count "$fma") FMA" ;;
    in) per="$(count "$loads") loaded" ;;
    out) per="$(count "$stores") stored" ;;
    esac
    spills=$(grep -cE "$stack" "$work/loop.s" || true)
    line="| $1 | $(($(wc -l <"$work/loop.s") - 1)), $spills | $per |"
    for cpu in $cpus; do
        "$mca" -mtriple="$triple" -mcpu="$cpu" -iterations=$rounds -instruction-info=0 \
            "$work/loop.s" >"$work/report" 2>"$work/errors" || { cat "$work/errors" >&2; exit 1; }
        line="$line $(figures <"$work/report") |"
    done
    echo "$line"
}

table() {
    printf '\n%s: an iteration in cycles, what its busiest resources take\n\n' "$isa"
    printf '| loop | instructions, on the stack | vectors |'
    printf '%s' "$cpus " | sed 's/\([^ ]*\) / \1 |/g'
    printf '\n|--|--|--|'
    printf '%s' "$cpus " | sed 's/[^ ]* /--|/g'
    printf '\n'
    tile=$1
    row 'GEMM, packed' step gemm "^gemm_tile_$tile\$" "$fma" ''
    row 'GEMM, B packed on the way' step gemm "^gemm_fuse_$tile\$" "$fma" ''
    row 'GEMM, in place' step gemm "^gemm_whole_$tile\$" "$fma" ''
    row 'GEMM, one row, panels' step gemm '^gemm_wide_1$' "$fma" ''
    row 'softmax, exponential' out softmax . "$fma" "$divide"
    row 'exp' out elementwise '^t2k_exp_' "$fma" ''
    row 'GELU' out elementwise '^t2k_gelu_[a-z0-9]*$' "$fma" ''
    row 'SiLU' out elementwise '^t2k_silu_' "$fma" ''
    row 'layer norm, sums' in layernorm '^block_sums' "$fma" "$divide|$stores"
    row 'layer norm, output' out layernorm . "$fma|$stores" "$divide|$shuffle"
    row 'attention, scores' step attention 'att_scores|^t2k_attention_' "$fma" "$divide|$shift"
    row 'attention, values' step attention 'att_values|^t2k_attention_' "$fma" "$divide|$shift"
    row 'attention, exponential' out attention . "$fma" ''
}

fma='vfn?m(add|sub)[0-9]+ps|fmla|fmls'
for isa in avx2 avx512 neon; do
    if [ ! -d "$build/kernels/$isa" ]; then
        continue
    fi
    triple=x86_64 dump=objdump divide='vdivps|vsqrtps' shift='vpslld' shuffle='vshufps|vunpck|vperm'
    case $isa in
    avx2)
        cpus='skylake znver3 znver4' stores='vmov[a-z]*ps.*%ymm[0-9]*,.*[(]' loads='[(].*%ymm'
        table 6
        ;;
    avx512)
        cpus='skylake-avx512 icelake-server sapphirerapids znver4'
        stores='vmov[a-z]*ps.*%zmm[0-9]*,.*[(]' loads='[(].*%zmm'
        table 12
        ;;
    neon)
        triple=aarch64 divide='fdiv|fsqrt' shift='shl' shuffle='zip|trn'
        dump=$(command -v aarch64-linux-gnu-objdump || command -v objdump)
        cpus='neoverse-n1 neoverse-v1' stores='^st[rpu]+.*q[0-9]' loads='^ld[rpu]+.*q[0-9]'
        table 8
        ;;
    esac
done
