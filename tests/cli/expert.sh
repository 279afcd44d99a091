#!/bin/sh
# expert.sh PROGRAM - t2 expert and t2 run with experts, like a user. Runs from the repository's
# root; prints `N passed, N failed, N skipped` and exits 1 when a check failed.
set -u
export LC_ALL=C

t2=$1
chars=runtime/models/t2-chars
suite=expert program=t2
. tests/tools/checks.sh
one_line='1 2 3 4'

fingerprint() { sed -n 's/^fingerprint //p' "$dir/err"; }
same() { if [ "$1" = "$2" ] && [ -n "$1" ]; then pass; else fail "$3: '$1' and '$2'"; fi; }
differ() { if [ "$1" != "$2" ] && [ -n "$1" ]; then pass; else fail "$3: both '$1'"; fi; }

f=$dir/f.safetensors
expect 0 '' "$t2" svd "$chars" -o "$f" --quiet

# ---- usage ----------------------------------------------------------------------------------
expect 0 '' "$t2" expert --help
stdout_has 'usage: t2 expert'
expect 2 "unknown action ''" "$t2" expert
expect 2 "'nonsense'" "$t2" expert nonsense
expect 2 '--nonsense' "$t2" expert new --nonsense
expect 2 '--out is needed' "$t2" expert new --factors "$f"
expect 2 '--factors is needed' "$t2" expert new -o "$dir/x"
expect 2 '--model is needed' "$t2" expert new --kind channel -o "$dir/x"
expect 2 '--factor is needed' "$t2" expert scale --factors "$f" -o "$dir/x" y
expect 2 "'tanh'|--squash" "$t2" expert new --factors "$f" -o "$dir/x" --squash tanh
expect 2 "'best'|--rule" "$t2" expert mix --factors "$f" -o "$dir/x" --rule best y
expect 2 '--random' "$t2" expert new --factors "$f" -o "$dir/x" --random -1
expect 1 'no-such-file' "$t2" expert show no-such-file
expect 3 'README.md' "$t2" expert show README.md
expect 3 't2.kind|expected expert|factors' "$t2" expert show "$f"
absent "$dir/x"

# ---- files ----------------------------------------------------------------------------------
for e in a b c; do
    expect 0 '18 matrices, 1152 values' "$t2" expert new --factors "$f" --random 0.4 \
        --seed "$(printf %d "'$e")" -o "$dir/$e.safetensors"
done
expect 0 '' "$t2" expert new --factors "$f" -o "$dir/neutral.safetensors"
expect 0 '' "$t2" expert new --factors "$f" -o "$dir/relu.safetensors" --squash relu-delta \
    --strength 0.5 --random 0.1 --name 'a name'
expect 0 '' "$t2" expert show --factors "$f" "$dir/relu.safetensors"
stdout_has 'a name'
stdout_has 'relu-delta (strength 0.5), normaliser off'
stdout_has 'rms(z - 1)'
expect 0 '' "$t2" expert show --json --factors "$f" "$dir/a.safetensors"
python3 -c 'import json, sys; d = json.load(sys.stdin); sys.exit(len(d["matrices"]) != 18)' \
    <"$dir/out" && pass || fail 'show --json is not JSON of 18 matrices'
expect 0 '' "$t2" expert list "$dir"
stdout_has 'neutral'
expect 0 '' "$t2" expert check --factors "$f" "$dir/a.safetensors" "$dir/neutral.safetensors"
stdout_has 'neutral.safetensors: ok'
expect 0 '' "$t2" expert diff --factors "$f" "$dir/a.safetensors" "$dir/a.safetensors"
stdout_has 'rms 0, largest 0, cosine of (z - 1) 1.000'

# The same command gives the same bytes.
expect 0 '' "$t2" expert new --factors "$f" --random 0.4 --seed 97 --name a -o "$dir/again"
cmp -s "$dir/again" "$dir/a.safetensors" && pass || fail 'an expert made again differs'

# ---- mixing, scaling ------------------------------------------------------------------------
for rule in zeff a delta; do
    expect 0 '' "$t2" expert mix --rule $rule --factors "$f" -o "$dir/mix.$rule" \
        "$dir/a.safetensors:0.5" "$dir/b.safetensors:0.25,$dir/c.safetensors:0.25"
done
# Raw values whose sum is not positive cannot keep that of the singular values.
expect 0 '' "$t2" expert new --factors "$f" --squash identity --random 0.1 -o "$dir/id.safetensors"
expect 1 'the scaled singular values sum to' "$t2" expert mix --rule raw --factors "$f" -o "$dir/x" \
    "$dir/a.safetensors:-1" "$dir/id.safetensors:-1"
for way in '--rule raw' '--compat sakana'; do
    # shellcheck disable=SC2086
    expect 0 '' "$t2" expert mix $way --name mix --factors "$f" -o "$dir/mix.${way#* }" \
        "$dir/id.safetensors:0.5" "$dir/id.safetensors:0.25"
done
cmp -s "$dir/mix.raw" "$dir/mix.sakana" && pass || fail 'raw and sakana differ'
expect 1 'all 64 scales are zero' "$t2" expert mix --factors "$f" -o "$dir/x" "$dir/a.safetensors:0"
expect 0 '' "$t2" expert scale --factor 0 --factors "$f" -o "$dir/zero" "$dir/a.safetensors"
expect 0 '' "$t2" expert diff --factors "$f" "$dir/zero" "$dir/neutral.safetensors"
stdout_has 'rms 0, largest 0'

# Weights for each matrix: as a mixture of all where they are all the same, and by the last line.
printf '# one\n\n* 9 9\r\n*  0.5\t0.25\n' >"$dir/w.all"
mix() { "$t2" expert mix --name m --factors "$f" "$@"; }
expect 0 '' mix -o "$dir/w1" "$dir/a.safetensors:0.5" "$dir/b.safetensors:0.25"
expect 0 '' mix -o "$dir/w2" --weights "$dir/w.all" "$dir/a.safetensors" "$dir/b.safetensors"
cmp -s "$dir/w1" "$dir/w2" && pass || fail 'weights for each matrix differ from those for all'
printf '*attention* 1 0\n*.feed_forward.? * 1\n' >"$dir/w.bad"
expect 2 "w.bad: line 2|found '*'" mix -o "$dir/x" --weights "$dir/w.bad" \
    "$dir/a.safetensors" "$dir/b.safetensors"
printf '*attention* 1\n' >"$dir/w.bad"
expect 2 'w.bad: line 1: expected 2 weights|found 1' mix -o "$dir/x" --weights "$dir/w.bad" \
    "$dir/a.safetensors" "$dir/b.safetensors"
printf 'nothing* 1 2\n' >"$dir/w.bad"
expect 2 "line 1: 'nothing*' matches no matrix" mix -o "$dir/x" --weights "$dir/w.bad" \
    "$dir/a.safetensors" "$dir/b.safetensors"
for bad in nan inf 1e308 1001; do
    printf '* %s 1\n' $bad >"$dir/w.bad"
    expect 2 "expected a weight from -1000 to 1000, found '$bad'" mix -o "$dir/x" \
        --weights "$dir/w.bad" "$dir/a.safetensors" "$dir/b.safetensors"
done
expect 1 'no-such-file' mix -o "$dir/x" --weights no-such-file "$dir/a.safetensors"
expect 2 'goes with mix and merge' "$t2" expert scale --factors "$f" --factor 1 -o "$dir/x" \
    --weights "$dir/w.all" "$dir/a.safetensors"
absent "$dir/x"

# ---- import ---------------------------------------------------------------------------------
python3 - "$f" "$dir" <<'END'
import json, struct, sys
path, out = sys.argv[1:]
data = open(path, "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + n])
names = sorted(k[:-2] for k in header if k.endswith(".S"))
def write(file, tensors):
    head, blob = {}, b""
    for name, values in tensors:
        raw = struct.pack("<%df" % len(values), *values)
        head[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    open(file, "wb").write(struct.pack("<Q", len(text)) + text + blob)
ranks = {k: header[k + ".S"]["shape"][0] for k in names}
write(out + "/positions", [("learnable_params_module_list.%d" % i, [0.1] * ranks[k]) for i, k in enumerate(names)])
write(out + "/names", [("X." + k, [0.1] * ranks[k]) for k in names])
write(out + "/short", [("layers.0.q", [0.1] * 63)])
open(out + "/order", "w").write("\n".join(names) + "\n")
END
expect 0 '18 matrices' "$t2" expert import --factors "$f" --order "$dir/order" --name i \
    -o "$dir/i1" "$dir/positions"
expect 0 '18 matrices' "$t2" expert import --factors "$f" --prefix X. --name i -o "$dir/i2" "$dir/names"
cmp -s "$dir/i1" "$dir/i2" && pass || fail 'positions and names differ'
expect 3 'positions (learnable|need an order' "$t2" expert import --factors "$f" -o "$dir/x" "$dir/positions"
expect 3 'expected 64 values|found 63' "$t2" expert import --factors "$f" -o "$dir/x" "$dir/short"
expect 3 "begins with 'Y.'" "$t2" expert import --factors "$f" --prefix Y. -o "$dir/x" "$dir/names"

# ---- running --------------------------------------------------------------------------------
printf '1 2 3 4 5\n6 7 8 9 10\n1 2 3 4 5\n' >"$dir/ids"
run() { expect 0 '' "$t2" run "$chars" --ids "$dir/ids" "$@"; }
run
base=$(fingerprint)
run --factors "$f" --expert "$dir/neutral.safetensors"
same "$(fingerprint)" "$base" 'a neutral expert'
run --factors "$f" --expert "$dir/a.safetensors" --out "$dir/l.a"
differ "$(fingerprint)" "$base" 'an expert'
for way in rebuild factored delta auto; do
    expect 0 'check: error' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" \
        --expert "$dir/a.safetensors" --apply $way --check "$dir/l.a" --tol 1e-5
done
expect 0 'expected costs|layers.0.feed_forward.2.weight' "$t2" run "$chars" --ids "$dir/ids" \
    --factors "$f" --expert "$dir/a.safetensors" --explain
# The merged checkpoint, loaded plainly.
mkdir "$dir/merged"
cp "$chars/config.json" "$chars/vocab.json" "$dir/merged/"
expect 0 '' "$t2" expert merge --model "$chars" --factors "$f" -o "$dir/merged/model.safetensors" \
    "$dir/a.safetensors"
expect 0 'check: error' "$t2" run "$dir/merged" --ids "$dir/ids" --check "$dir/l.a" --tol 1e-5
expect 3 'of the factors: expected SHA-256' "$t2" run "$dir/merged" --ids "$dir/ids" --factors "$f" \
    --expert "$dir/a.safetensors"

# Weights for each matrix: what the mixed file gives.
printf '*attention* 1 0\n*feed_forward.?.weight -0.25 1\n' >"$dir/w.each"
expect 0 '' mix -o "$dir/w3" --weights "$dir/w.each" "$dir/a.safetensors" "$dir/b.safetensors"
run --factors "$f" --expert "$dir/w3"
mixed=$(fingerprint)
run --factors "$f" --expert "$dir/a.safetensors,$dir/b.safetensors" --weights "$dir/w.each"
same "$(fingerprint)" "$mixed" 'weights for each matrix'
run --factors "$f" --expert "$dir/a.safetensors,$dir/b.safetensors"
differ "$(fingerprint)" "$mixed" 'weights for each matrix'
expect 2 'not with --expert-per-row' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" \
    --weights "$dir/w.each" --expert-per-row "$dir/ids"

# Rows with experts of their own: each as if alone.
printf '%s\n-\n%s:0.5,%s:0.5\n' "$dir/a.safetensors" "$dir/a.safetensors" "$dir/b.safetensors" >"$dir/rows"
run --factors "$f" --expert-per-row "$dir/rows" --apply delta
together=$(fingerprint)
run --factors "$f" --expert-per-row "$dir/rows" --apply delta --threads 2
same "$(fingerprint)" "$together" 'two threads'
printf -- '-\n-\n-\n-\n' >"$dir/four"
expect 2 'more than 3 lines' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" \
    --expert-per-row "$dir/four"
printf '%s\n' "$dir/a.safetensors" >"$dir/one"
expect 2 '1 lines for 3 sequences' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" \
    --expert-per-row "$dir/one"
printf -- '-\n\n-\n' >"$dir/empty"
expect 2 'empty: line 2: an expert without the name of a file' "$t2" run "$chars" \
    --ids "$dir/ids" --factors "$f" --expert-per-row "$dir/empty"
printf -- '-\n-\nno-such-file:2\n' >"$dir/missing"
expect 1 'missing: line 3: no-such-file' "$t2" run "$chars" \
    --ids "$dir/ids" --factors "$f" --expert-per-row "$dir/missing"
expect 2 'an expert without the name of a file' mix -o "$dir/x" "$dir/a.safetensors,"
expect 2 'rebuild' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" --expert-per-row "$dir/rows" \
    --apply rebuild
expect 2 'auto|each row would depend on the others' "$t2" run "$chars" --ids "$dir/ids" \
    --factors "$f" --expert-per-row "$dir/rows" --expert auto
expect 2 'for all rows' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" \
    --expert-per-row "$dir/rows" --expert 1
expect 2 'go with expert files' "$t2" run "$chars" --ids "$dir/ids" --factors "$f"
expect 2 'need the factors' "$t2" run "$chars" --ids "$dir/ids" --expert "$dir/a.safetensors"
expect 0 '' "$t2" run "$chars" --prompt 'Rhagga=' --factors "$f" --expert "$dir/neutral.safetensors"
stdout_has 'aggah;'

# Experts of channels need no factors.
expect 0 '' "$t2" expert new --kind channel --model "$chars" --random 0.2 -o "$dir/ch.safetensors"
run --expert "$dir/ch.safetensors" --out "$dir/l.ch"
expect 0 '' "$t2" expert merge --model "$chars" --factors "$f" -o "$dir/merged/model.safetensors" \
    "$dir/ch.safetensors"
expect 0 'check: error' "$t2" run "$dir/merged" --ids "$dir/ids" --check "$dir/l.ch" --tol 1e-5

# One expert alone obeys a rule that normalises anew, by whatever way it is named.
run --factors "$f" --expert "$dir/relu.safetensors" --out "$dir/l.alone"
alone=$(fingerprint)
run --factors "$f" --expert "$dir/relu.safetensors" --rule a --apply factored --out "$dir/l.alone"
by_a=$(fingerprint)
differ "$by_a" "$alone" 'rule a of one expert'
while read -r _; do echo "$dir/relu.safetensors"; done <"$dir/ids" >"$dir/each"
expect 0 '' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" --expert-per-row "$dir/each" --rule a \
    --apply factored
same "$(fingerprint)" "$by_a" 'rule a of one expert on each row'
sed 's/$/\r/' "$dir/each" >"$dir/crlf"
expect 0 '' "$t2" run "$chars" --ids "$dir/ids" --factors "$f" --expert-per-row "$dir/crlf" --rule a \
    --apply factored
same "$(fingerprint)" "$by_a" 'lines that end as on Windows'

# What is read is not overwritten; what is no weight is not a file's name.
cp -R "$chars" "$dir/own"
cp "$f" "$dir/kept"
expect 2 'is the factor file' "$t2" expert new --factors "$f" -o "$dir/../${dir##*/}/f.safetensors"
expect 2 'own file' "$t2" expert merge --model "$dir/own" --factors "$f" \
    -o "$dir/own/model.safetensors" "$dir/a.safetensors"
expect 2 'is a file that is read' "$t2" run "$chars" --ids "$dir/ids" --out "$dir/ids"
cmp -s "$f" "$dir/kept" && cmp -s "$chars/model.safetensors" "$dir/own/model.safetensors" && pass ||
    fail 'an input was overwritten'
expect 3 'a file of t2 itself' "$t2" expert import --factors "$f" -o "$dir/x" "$dir/a.safetensors"
expect 2 'without a weight' "$t2" expert scale --factor 2 --factors "$f" -o "$dir/x" \
    "$dir/a.safetensors:0.5"
for weight in 1001 nan 1e400; do
    expect 2 'expected a weight from -1000 to 1000' "$t2" expert mix --factors "$f" -o "$dir/x" \
        "$dir/a.safetensors:$weight"
done
mkdir "$dir/zoo"
cp "$dir/a.safetensors" "$dir/zoo/a.expert"
cp README.md "$dir/zoo"
expect 0 '' "$t2" expert list "$dir/zoo"
stdout_has 'a.expert'

# Another model's factors are refused with both hashes.
expect 0 '' "$t2" svd "$chars" -o "$dir/mlp.safetensors" --modules mlp --quiet
expect 3 'has no matrix' "$t2" run "$chars" --ids "$dir/ids" --factors "$dir/mlp.safetensors" \
    --expert "$dir/a.safetensors"

finish
