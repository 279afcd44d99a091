#!/bin/sh
# svd.sh PROGRAM - t2 svd like a user: messages, exit codes, progress, an interrupted run. Runs from
# the repository's root; prints `N passed, N failed, N skipped` and exits 1 when a check failed.
set -u
export LC_ALL=C

t2=$1
chars=runtime/models/t2-chars
suite=svd program=t2
. tests/tools/checks.sh
one_line='1 2 3 4 6'

same_files() { if cmp -s "$1" "$2"; then pass; else fail "$3: $1 and $2 differ"; fi; }

# ---- usage ----------------------------------------------------------------------------------
expect 0 '' "$t2" svd --help
stdout_has 'usage: t2 svd'
f=$dir/f.safetensors
expect 2 '--nonsense' "$t2" svd "$chars" --nonsense
expect 2 'one model' "$t2" svd -o "$f"
expect 2 'one model' "$t2" svd a b -o "$f"
expect 2 '-o FACTORS' "$t2" svd "$chars"
for bad in '--rank 0' '--rank x' '--energy 0' '--energy 1.5' '--store f16' '--jobs 0' '--jobs x'; do
    # shellcheck disable=SC2086
    expect 2 "$bad" "$t2" svd "$chars" -o "$f" $bad
done
expect 2 "nothing matches 'q'" "$t2" svd "$chars" -o "$f" --modules 'mlp,q'
expect 1 "$dir/none" "$t2" svd "$dir/none" -o "$f"
expect 1 'no-folder' "$t2" svd "$chars" -o "$dir/no-folder/f"
expect 3 'README.md' "$t2" svd README.md -o "$f"
absent "$f"

# ---- a model --------------------------------------------------------------------------------
expect 0 't2: 18 matrices|LAPACK|18 of 18: |residual|0:00 left' "$t2" svd "$chars" -o "$f"
stdout_has 'layers.2.attention.in_proj_weight.v'
stdout_has '18 matrices, 0.889 MB, largest residual'
stdout_has 'factors '
absent "$f.parts"
expect 0 '' "$t2" inspect "$f"
stdout_has 'layers.0.feed_forward.2.weight.V'
stdout_has 't2.matrix.layers.0.attention.out_proj.weight'
expect 0 '' "$t2" svd "$chars/model.safetensors" -o "$dir/g.safetensors" --quiet --jobs 2
same_files "$f" "$dir/g.safetensors" 'model folder and file, one job and two'
if [ -s "$dir/err" ]; then fail "--quiet: $(cat "$dir/err")"; else pass; fi
expect 0 '' "$t2" svd "$chars" -o "$dir/bf16.safetensors" --store bf16 --quiet --json --rank 8 \
    --energy 0.9 --modules 'layers.0.*.q'
stdout_has '"name":"layers.0.attention.in_proj_weight.q","m":64,"n":64,"r":8,'
stdout_has '"kept":false,"bytes":2080}]}'

# ---- interrupted ----------------------------------------------------------------------------
m=$dir/model
expect 0 '' "$t2" init "$m" --vocab-size 10 --embed-size 256 --num-layers 6 --heads 4
expect 0 '' "$t2" svd "$m" -o "$dir/whole.safetensors" --quiet
# With Python's help: a shell's background command ignores SIGINT.
start='import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])'
for signal in INT TERM; do
    : > "$dir/progress"
    python3 -c "$start" "$t2" svd "$m" -o "$dir/part.safetensors" --jobs 1 2> "$dir/progress" \
        > /dev/null &
    run=$!
    for i in $(seq 600); do
        grep -q ': 2 of 36' "$dir/progress" && break
        sleep 0.05
    done
    kill -$signal $run
    wait $run
    got=$?
    if [ "$got" = 6 ]; then pass; else fail "SIG$signal: exit code $got: $(cat "$dir/progress")"; fi
    if grep -q 'stopped: [0-9]* of 36 matrices are in .*part.safetensors.parts' "$dir/progress"; then
        pass
    else
        fail "SIG$signal: $(cat "$dir/progress")"
    fi
    absent "$dir/part.safetensors"
done
# Another run meanwhile; and killed: what is finished stands.
"$t2" svd "$m" -o "$dir/part.safetensors" --jobs 1 2> "$dir/progress" > /dev/null &
run=$!
for i in $(seq 600); do
    grep -q ': 8 of 36' "$dir/progress" && break
    sleep 0.05
done
expect 1 'another run is at work' "$t2" svd "$m" -o "$dir/part.safetensors"
kill -KILL $run
wait $run 2> /dev/null
expect 0 '(was finished)' "$t2" svd "$m" -o "$dir/part.safetensors"
same_files "$dir/part.safetensors" "$dir/whole.safetensors" 'interrupted three times and not'
absent "$dir/part.safetensors.parts"

# ---- where LAPACK is missing ----------------------------------------------------------------
mkdir "$dir/libs"
: > "$dir/libs/liblapacke.so.3"
: > "$dir/libs/liblapacke.so"
expect 1 'LAPACK is not usable|apt-get install' env LD_LIBRARY_PATH="$dir/libs" \
    "$t2" svd "$chars" -o "$dir/h.safetensors"
absent "$dir/h.safetensors"
expect 0 '' env LD_LIBRARY_PATH="$dir/libs" "$t2" run "$chars" --prompt 'Rhagga='

# A folder in the place of the file is told before any work.
mkdir "$dir/folder"
expect 1 'folder: is a directory' "$t2" svd "$chars" -o "$dir/folder"
absent "$dir/folder.parts"

finish
