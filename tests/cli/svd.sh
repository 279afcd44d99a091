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
stdout_has 'LAPACK 0.'
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

# ---- names of other models -------------------------------------------------------------------
# names_model FILE NAME=OUTPUTSxINPUTS...: a safetensors file of small matrices.
names_model() {
    python3 - "$@" <<'END'
import json, random, struct, sys
header, data = {}, b""
random.seed(1)
for item in sys.argv[2:]:
    name, shape = item.split("=")
    m, n = map(int, shape.split("x"))
    values = struct.pack(f"<{m * n}f", *(random.gauss(0, 1) for _ in range(m * n)))
    offsets = [len(data), len(data) + len(values)]
    header[name] = {"dtype": "F32", "shape": [m, n], "data_offsets": offsets}
    data += values
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open(sys.argv[1], "wb").write(struct.pack("<Q", len(text)) + text + data)
END
}
bert='encoder.layer.0'
names_model "$dir/bert" embeddings.word_embeddings.weight=20x6 pooler.dense.weight=6x6 \
    $bert.attention.self.query.weight=6x6 $bert.attention.self.key.weight=6x6 \
    $bert.attention.self.value.weight=6x6 $bert.attention.output.dense.weight=6x6 \
    $bert.intermediate.dense.weight=12x6 $bert.output.dense.weight=6x12
expect 0 't2: 6 matrices' "$t2" svd "$dir/bert" -o "$dir/n"
expect 0 't2: 2 matrices' "$t2" svd "$dir/bert" -o "$dir/n" --modules mlp
stdout_has "$bert.output.dense.weight "
expect 0 't2: 4 matrices' "$t2" svd "$dir/bert" -o "$dir/n" --modules attention
expect 0 't2: 8 matrices' "$t2" svd "$dir/bert" -o "$dir/n" --modules all
llama='model.layers.0'
names_model "$dir/llama" model.embed_tokens.weight=20x6 \
    $llama.self_attn.q_proj.weight=6x6 $llama.self_attn.k_proj.weight=2x6 \
    $llama.self_attn.v_proj.weight=2x6 $llama.self_attn.o_proj.weight=6x6 \
    $llama.mlp.gate_proj.weight=16x6 $llama.mlp.up_proj.weight=16x6 $llama.mlp.down_proj.weight=6x16
expect 0 't2: 7 matrices' "$t2" svd "$dir/llama" -o "$dir/n"
expect 0 't2: 3 matrices' "$t2" svd "$dir/llama" -o "$dir/n" --modules mlp
names_model "$dir/gpt2" wte.weight=20x6 h.0.attn.c_attn.weight=6x18 h.0.attn.c_proj.weight=6x6 \
    h.0.mlp.c_fc.weight=6x24 h.0.mlp.c_proj.weight=24x6
expect 0 't2: 6 matrices|h.0.mlp.c_fc.weight 24 x 6' "$t2" svd "$dir/gpt2" -o "$dir/n"

minilm=build/models/minilm
if [ -e $minilm/model.safetensors ]; then
    expect 0 't2: 36 matrices' "$t2" svd $minilm -o "$dir/minilm"
    stdout_has '36 matrices, 63.756 MB, largest residual 4.'
    expect 0 '' "$t2" svd $minilm/model.safetensors -o "$dir/minilm2" --quiet --jobs 1
    same_files "$dir/minilm" "$dir/minilm2" 'MiniLM, folder and file'
    expect 0 '' "$t2" expert new --factors "$dir/minilm" --random 0.3 -o "$dir/e"
    expect 0 '' "$t2" expert merge --model $minilm --factors "$dir/minilm" -o "$dir/merged" "$dir/e"
else
    skip 7 'MiniLM is not there: make models'
fi

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
