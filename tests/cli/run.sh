#!/bin/sh
# run.sh PROGRAM SPLIT - drives the t2 program like a user: messages, exit codes, files.
# SPLIT is the golden-split tool. Runs from the repository's root; prints
# `N passed, N failed, N skipped` and exits 1 when a check fails.
set -u
export LC_ALL=C

t2=$1
split=$2
chars=runtime/models/t2-chars
suite=cli program=t2
. tests/tools/checks.sh
one_line='1 2 3 4' # 5: the rows that failed are told one by one

stdout_is() {
    if [ "$(cat "$dir/out")" = "$1" ]; then pass; else fail "stdout '$(cat "$dir/out")', expected '$1'"; fi
}
fingerprint() { sed -n 's/^fingerprint //p' "$dir/err"; }
same() { if [ "$1" = "$2" ] && [ -n "$1" ]; then pass; else fail "$3: '$1' and '$2'"; fi; }

# ---- usage ----------------------------------------------------------------------------------
expect 2 'no command' "$t2"
expect 2 "'nonsense'" "$t2" nonsense
expect 0 '' "$t2" --help
stdout_has 'exit codes'
expect 0 '' "$t2" --version
stdout_has 't2 0.'
for c in run eval init svd inspect info; do
    expect 0 '' "$t2" $c --help
    stdout_has "usage: t2 $c"
    expect 2 '--nonsense' "$t2" $c --nonsense
done
expect 2 'exactly one' "$t2" run "$chars"
expect 2 'exactly one' "$t2" run "$chars" --ids x --prompt y
expect 2 'one model folder' "$t2" run --prompt x
expect 2 'needs a value' "$t2" run "$chars" --prompt
expect 2 "'0'|--threads 0" "$t2" run "$chars" --prompt R --threads 0
expect 2 "'x'|--tol=x" "$t2" run "$chars" --ids - --tol=x
expect 2 'go with --ids' "$t2" run "$chars" --prompt R --check x
expect 2 'go with --prompt' "$t2" run "$chars" --ids - --temp 0
expect 2 'go with --prompt' "$t2" run "$chars" --ids - -n 3
for bad in x 0 -1 4097 '2 '; do
    expect 2 "T2K_NUM_THREADS=$bad" env T2K_NUM_THREADS="$bad" "$t2" info
done

# ---- information ----------------------------------------------------------------------------
expect 0 '' "$t2" info
stdout_has 'scalar'
expect 0 '' "$t2" info --json
stdout_has '"isas":['
stdout_has '"compiler":"'
for isa in foo AVX2 'avx2 '; do
    expect 2 "T2K_ISA=$isa|valid here: scalar" env T2K_ISA="$isa" "$t2" info
    expect 2 "T2K_ISA=$isa|valid here: scalar" env T2K_ISA="$isa" "$t2" run "$chars" --prompt 'R='
done
expect 0 '' env T2K_ISA=scalar "$t2" info
stdout_has 'isa      scalar'
expect 0 '' env T2K_NUM_THREADS=3 "$t2" info
stdout_has 'threads  3 (T2K_NUM_THREADS)'
expect 0 '' env OMP_NUM_THREADS=1 "$t2" info
stdout_has 'threads  1'

# ---- prompts --------------------------------------------------------------------------------
expect 0 'experts|fingerprint' "$t2" run "$chars" --prompt 'Rhagga='
stdout_is 'aggah;'
expect 0 '' "$t2" run "$chars" --prompt 'Rhagga=' -n 2
stdout_is 'ag'
expect 0 '' "$t2" run "$chars" --prompt 'Rhagga=' --json
stdout_has '"text":"aggah;"'
expect 0 '' "$t2" run "$chars" --prompt 'Cabh' --temp 1 --seed 7
first=$(cat "$dir/out")
expect 0 '' "$t2" run "$chars" --prompt 'Cabh' --temp 1 --seed 7
stdout_is "$first"
expect 2 'not in the vocabulary' "$t2" run "$chars" --prompt 'Rx='
expect 2 '' "$t2" run "$chars" --prompt ''
expect 2 '' "$t2" run "$chars" --prompt 'Raaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa='
printf 'R\tRhagga=\taggah;\nS\tRhagga=\taggah;\nS\tRhagga=\taggaa;\n' > "$dir/tasks.tsv"
expect 0 '' "$t2" eval "$chars" --tasks "$dir/tasks.tsv" --show 1
stdout_has 'R           1 of    1 right'
stdout_has 'S           1 of    2 right'
printf 'R\tRhagga=\n' > "$dir/bad.tsv"
expect 2 'line 1' "$t2" eval "$chars" --tasks "$dir/bad.tsv"
expect 1 "$dir/none.tsv" "$t2" eval "$chars" --tasks "$dir/none.tsv"

printf 'R\tRhagga=\taggah;\000\n' > "$dir/nul.tsv"
expect 2 'NUL' "$t2" eval "$chars" --tasks "$dir/nul.tsv"
printf 't\377\tRhagga=\taggah;\n' > "$dir/name.tsv"
expect 0 '' "$t2" eval "$chars" --tasks "$dir/name.tsv" --json
stdout_has '"t\ufffd":'

expect 1 'a?b' "$t2" eval "$chars" --tasks "$dir/a
b"
expect 2 "'09x'" "$t2" run "$chars" --prompt R= --seed 09x
# A vocabulary that does not name every id: its tokens print as U+FFFD.
expect 0 '' "$t2" init "$dir/few" --vocab-size 50 --embed-size 8 --heads 2 --num-layers 1 --mask causal
echo '{"kind":"char","vocab":{"a":0,"b":1},"end":"b"}' > "$dir/few/vocab.json"
expect 0 '' "$t2" run "$dir/few" --prompt aaa -n 5 --temp 100
expect 0 '' "$t2" run "$dir/few" --prompt aaa -n 5 --temp 100 --json
awk 'BEGIN { printf "t\taaa\t"; for (i = 0; i < 1000; i++) printf "a"; print "" }' > "$dir/long.tsv"
expect 0 '' "$t2" eval "$dir/few" --tasks "$dir/long.tsv" --show 1

# ---- a fresh model, ids, masks, outputs -----------------------------------------------------
m=$dir/model
expect 2 'vocab-size' "$t2" init "$m"
expect 2 'embed_size|heads' "$t2" init "$m" --vocab-size 50 --embed-size 30 --heads 4
absent "$m"
expect 0 'parameters' "$t2" init "$m" --vocab-size 50 --embed-size 32 --num-layers 2 --heads 4 --seed 3
expect 1 '--force' "$t2" init "$m" --vocab-size 50
cp "$m/model.safetensors" "$dir/first"
expect 0 '' "$t2" init "$m" --vocab-size 50 --embed-size 32 --num-layers 2 --heads 4 --seed 3 --force
same "$(cksum < "$m/model.safetensors")" "$(cksum < "$dir/first")" 'the same seed, the same model'
printf '1 2 3\n4 5 6\n' > "$dir/ids.txt"
expect 0 'isa |experts 0 0|GFLOP/s|fingerprint' "$t2" run "$m" --ids "$dir/ids.txt" --out "$dir/a.safetensors"
stdout_is 'Transformer2 Model Output Shape: [3, 2, 50]'
whole=$(fingerprint)
input=$dir/ids.txt
expect 0 '' "$t2" run "$m" --ids -
same "$(fingerprint)" "$whole" 'standard input and file'
unset input
for threads in 1 2 3 4; do
    expect 0 "$threads thread" "$t2" run "$m" --ids "$dir/ids.txt" --threads $threads
    same "$(fingerprint)" "$whole" "$threads threads"
done
for isa in $("$t2" info --json | grep -o '"name":"[a-z0-9]*","usable":true' | cut -d'"' -f4); do
    expect 0 "isa $isa" env T2K_ISA="$isa" "$t2" run "$m" --ids "$dir/ids.txt"
    same "$(fingerprint)" "$whole" "T2K_ISA=$isa"
done
expect 0 'error 0.00e+00|ok' "$t2" run "$m" --ids "$dir/ids.txt" --check "$dir/a.safetensors"
expect 5 'FAILED' "$t2" run "$m" --ids "$dir/ids.txt" --mask causal --check "$dir/a.safetensors"
expect 0 '' "$t2" run "$m" --ids "$dir/ids.txt" --expert 1 --json
stdout_has '"experts":[1,1]'
expect 2 'expert' "$t2" run "$m" --ids "$dir/ids.txt" --expert 3
printf '1 2 3\n4 5\n' > "$dir/ragged.txt"
expect 2 'line 2' "$t2" run "$m" --ids "$dir/ragged.txt"
printf '1 two\n' > "$dir/word.txt"
expect 2 "line 1: 'two'" "$t2" run "$m" --ids "$dir/word.txt"
: > "$dir/empty.txt"
expect 2 'no token ids' "$t2" run "$m" --ids "$dir/empty.txt"
printf '1 \f\n2\n' > "$dir/feed.txt"
expect 2 'line 1' "$t2" run "$m" --ids "$dir/feed.txt"
cp "$dir/a.safetensors" "$dir/reference.safetensors"
expect 5 'FAILED' "$t2" run "$m" --ids "$dir/ids.txt" --expert 1 --mask causal \
    --check "$dir/reference.safetensors" --out "$dir/reference.safetensors"
expect 1 'none.safetensors' "$t2" run "$m" --ids "$dir/ids.txt" --check "$dir/none.safetensors" \
    --out "$dir/b.safetensors"
absent "$dir/b.safetensors"
expect 2 'goes with --check' "$t2" run "$m" --ids "$dir/ids.txt" --tol 1
printf '1 50\n' > "$dir/range.txt"
expect 2 '50' "$t2" run "$m" --ids "$dir/range.txt" --out "$dir/b.safetensors"
absent "$dir/b.safetensors"
printf '%s\n' '-1' > "$dir/negative.txt"
expect 2 '-1' "$t2" run "$m" --ids "$dir/negative.txt"
expect 1 "$dir/no.txt" "$t2" run "$m" --ids "$dir/no.txt"
expect 3 'mask' "$t2" run "$m" --ids "$dir/ids.txt" --mask "$dir/a.safetensors"
expect 1 'no-such' "$t2" run "$m" --ids "$dir/ids.txt" --out "$dir/no-such/x.safetensors"
expect 3 'logits' "$t2" run "$m" --ids "$dir/ids.txt" --check "$m/model.safetensors"

# ---- broken models --------------------------------------------------------------------------
expect 1 'no-model' "$t2" run "$dir/no-model" --prompt R
mkdir -p "$dir/cut"
cp "$m/config.json" "$dir/cut/"
head -c 2000 "$m/model.safetensors" > "$dir/cut/model.safetensors"
expect 3 'cut/model.safetensors' "$t2" run "$dir/cut" --ids "$dir/ids.txt"
sed 's/layers\.1\.norm2\.bias/layers.1.norm3.bias/' "$m/model.safetensors" > "$dir/cut/model.safetensors"
expect 3 'norm' "$t2" run "$dir/cut" --ids "$dir/ids.txt"
cp "$m/model.safetensors" "$dir/cut/"
sed 's/"vocab_size": *50/"vocab_size": 51/' "$m/config.json" > "$dir/cut/config.json"
expect 3 'embedding.weight|51|50' "$t2" run "$dir/cut" --ids "$dir/ids.txt"
sed 's/transformer2/transformer3/' "$m/config.json" > "$dir/cut/config.json"
expect 3 'transformer3|transformer2' "$t2" run "$dir/cut" --ids "$dir/ids.txt"
echo '{' > "$dir/cut/config.json"
expect 3 'config.json' "$t2" run "$dir/cut" --ids "$dir/ids.txt"

# ---- unwritable results ---------------------------------------------------------------------
if [ -e /dev/full ]; then
    "$t2" info > /dev/full 2> "$dir/err"
    same "$?" 1 'a full standard output'
    expect 1 '/dev/full' "$t2" run "$m" --ids "$dir/ids.txt" --out /dev/full
else
    skipped=$((skipped + 2))
fi
(ulimit -v 400000; T2K_NUM_THREADS=1 "$t2" init "$dir/huge" --vocab-size 2000000000 --embed-size 256 \
    > /dev/null 2> "$dir/err")
same "$?" 4 'a model beyond the memory'
absent "$dir/huge/model.safetensors"

# Threads that the system refuses are done without; what the memory does not allow is told. Not so
# under LLVM's OpenMP runtime, which needs more memory than can be foreseen and then aborts.
limits='30000 60000 120000 240000'
case $("$t2" --version) in *[Cc]lang*) limits='' skipped=$((skipped + 4)) ;; esac
for memory in $limits; do
    (ulimit -v $memory; exec "$t2" run "$m" --ids "$dir/ids.txt" --threads 64 > "$dir/out" 2> "$dir/err")
    case $? in
    0) same "$(fingerprint)" "$whole" "64 threads in $memory kB" ;;
    4) if grep -q '^t2: .*memory' "$dir/err"; then pass; else fail "$memory kB: $(cat "$dir/err")"; fi ;;
    *) fail "64 threads in $memory kB: $(cat "$dir/err")" ;;
    esac
done

# ---- files ----------------------------------------------------------------------------------
expect 0 '' "$t2" inspect "$m/model.safetensors"
stdout_has 'embedding.weight'
expect 3 "$dir/ids.txt" "$t2" inspect "$dir/ids.txt"
expect 1 "$dir/none" "$t2" inspect "$dir/none"

# ---- every model case of tests/golden through the program ------------------------------------
# Within the tolerance, and one fingerprint for every instruction set and number of threads; with
# ARM_RUN (a command that runs the program built for arm64), there too. A case that has to fail
# fails as the manifest says.
isas=$("$t2" info --json | grep -o '"name":"[a-z0-9]*","usable":true' | cut -d'"' -f4)
run_case() { # COMMAND...: one run of the case at hand, with its fingerprint compared
    expect 0 ': ok' "$@" --ids "$dir/case/ids.safetensors" --mask "$mask" --tol 2e-6 \
        --check "$dir/case/logits.safetensors"
    [ -n "$print" ] || print=$(fingerprint)
    same "$(fingerprint)" "$print" "$id: $*"
}
"$split" tests/golden/manifest.json > "$dir/cases"
tab=$(printf '\t')
while IFS="$tab" read -r id expectation _; do
    rm -rf "$dir/case"
    "$split" tests/golden/manifest.json "$id" "$dir/case" || { fail "split $id"; continue; }
    mask=none print=
    [ ! -e "$dir/case/mask.safetensors" ] || mask=$dir/case/mask.safetensors
    if [ "$expectation" != ok ]; then
        expect 1 "${expectation#error:}" "$t2" run "$dir/case" --mask "$mask" \
            --ids "$dir/case/ids.safetensors" --out "$dir/none.safetensors"
        absent "$dir/none.safetensors"
        continue
    fi
    for isa in $isas; do
        for threads in 1 2 3 4; do
            run_case env T2K_ISA="$isa" "$t2" run "$dir/case" --threads $threads
        done
    done
    if [ -n "${ARM_RUN:-}" ]; then
        # shellcheck disable=SC2086
        run_case $ARM_RUN run "$dir/case"
    fi
done < "$dir/cases"

finish
