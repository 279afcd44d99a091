#!/bin/sh
# run.sh - drives `t2bench run` like a user: what is verified, what is refused, what is written.
#
# Runs from the repository's root with the build folder in B; prints `N passed, N failed,
# N skipped` and exits 1 when a check fails. No timing is asserted.
set -u
export LC_ALL=C
unset T2K_ISA T2K_NUM_THREADS OMP_NUM_THREADS T2BENCH_FAULT T2BENCH_SLOW

bench=$B/t2bench
suite=bench program=t2bench
. tests/tools/checks.sh

check() { # TEXT COMMAND...
    text=$1
    shift
    if "$@" > "$dir/check" 2>&1; then pass; else fail "$text: $(head -c 1000 "$dir/check")"; fi
}
# A JSON document's value by a Python expression over `d`.
json() { python3 -c "import json, sys; d = json.load(open(sys.argv[1])); print($2)" "$1"; }
# Small shapes of every operation; one that is sampled and one with several chunks of k.
cat > "$dir/sizes.txt" <<'TEXT'
# every operation, small
sgemm,sgemm_nt,sgemm_tn,sgemm_tt,sgemm_packed,sgemm_fast,sgemm_bf16 33x65x67
sgemm_packed 1x64x600
sgemm_batched 6x10x11x33
svd_rebuild,svd_rebuild_dense,expert_rebuild 40x50x30
expert,expert_rows,expert_turns 9x40x50
attention,attention_causal 19x2x2x16
attention_decode 2x19x2x2x16
softmax,layer_norm,layer_norm_residual,rms_norm,rms_norm_residual 7x130
mean,embedding,scale_columns 9x33
exp,gelu,gelu_tanh,silu,relu,add,dropout 1000
model 5x2
TEXT
# One round of each case, as short as can be.
run() { "$bench" run --sets none --sizes "$dir/sizes.txt" --threads 1 --repetitions 1 \
    --min-time 1e-5 "$@"; }

# ---- every operation on every instruction set ---------------------------------------------------
ops=$("$bench" list --ops | awk '{print $1}')
isas=$("$bench" list --isas | awk '{print $1}')
for op in $ops; do
    check "no shape for $op in this test" grep -qE "(^|,)$op[, ]" "$dir/sizes.txt"
done
expect 0 '' run --peers none --json "$dir/all.json"
for op in $ops; do
    stdout_has "$op "
done
check "one fingerprint per problem" python3 - "$dir/all.json" <<'TEXT'
import json, sys
prints, isas = {}, {}
for e in json.load(open(sys.argv[1]))['benchmarks']:
    assert not e.get('error_occurred'), e
    prints.setdefault((e['op'], e['shape']), set()).add(e['fingerprint'])
    isas.setdefault((e['op'], e['shape']), set()).add(e['isa'])
assert prints and all(len(p) == 1 for p in prints.values()), prints
assert max(len(i) for i in isas.values()) >= 1, isas
TEXT
for isa in $isas; do
    case $isa in amx) continue ;; esac # it has no kernel of its own yet but the probe
    if "$bench" list --isas | grep -q "^$isa .*active\|^$isa .*usable"; then
        check "rows of $isa" grep -q "\"isa\": *\"$isa\"" "$dir/all.json"
    fi
done

# ---- a wrong result is never timed --------------------------------------------------------------
# wrong CONTENDER OP PEERS: all rows of the contender in OP (a regular expression; `*` in the fault)
# fail with row and column and have no time, while other contenders have.
wrong() {
    expect 1 'row|column' env T2BENCH_FAULT="$1:$2" "$bench" run --sets none \
        --sizes "$dir/sizes.txt" --threads 1 --repetitions 1 --min-time 1e-5 --peers "$3" \
        --json "$dir/wrong.json"
    check "fault in $1:$2" python3 - "$dir/wrong.json" "$1" "$2" <<'TEXT'
import json, sys
who, op = sys.argv[2:]
rows = json.load(open(sys.argv[1]))['benchmarks']
failed = set()
for e in rows:
    meant = op in ('*', e['op'])
    if who == 't2k' or who == 't2k-' + e['isa']:
        assert bool(e.get('error_occurred')) == meant, e
        if meant:
            assert 'column' in e['error_message'] and not e.get('real_time'), e
            failed.add(e['op'])
    elif e.get('run_type') == 'aggregate' and e['aggregate_name'] == 'median':
        peer = e['peer_results'].get(who)
        assert e['real_time'] > 0, e
        if peer is not None and meant:
            assert 'column' in peer['error'] and not peer.get('median'), peer
            assert e['peers'].get(who) is None, e
            failed.add(e['op'])
print(*sorted(failed))
assert failed, rows
TEXT
}
best=$("$bench" list --isas | awk '/ active/ {best = $1} END {print best}')
[ "$best" != amx ] || best=avx512
wrong t2k '*' none
check "a fault in every operation" test "$(wc -w < "$dir/check")" = "$(echo "$ops" | wc -w)"
wrong t2k softmax none
wrong "t2k-$best" sgemm none
for peer in openblas blis mkl mkl-cnr onednn torch torch-compiled onnxruntime; do
    if ! "$bench" list --peers | grep -q "^$peer .*: present$"; then
        skip 3 "$peer is not installed"
        continue
    fi
    expect 0 '' run --peers "$peer" --json "$dir/peer.json"
    offered=$(python3 - "$dir/peer.json" "$peer" <<'TEXT'
import json, sys
ops = {e['op'] for e in json.load(open(sys.argv[1]))['benchmarks'] if e['peers'].get(sys.argv[2])}
print(*sorted(ops))
TEXT
    )
    wrong "$peer" '*' "$peer"
    check "a fault in every operation of $peer: $offered" test "$(cat "$dir/check")" = "$offered"
done

# ---- bad input ----------------------------------------------------------------------------------
expect 2 'no case matches|nosuchcase' "$bench" run --filter nosuchcase
expect 2 'regular expression' "$bench" run --filter '('
expect 2 'nosuch|scalar' "$bench" run --isa nosuch
expect 2 'nosuch|openblas' "$bench" run --peers nosuch
expect 2 'nosuch|seed' "$bench" run --sets nosuch
expect 2 'threads|0' "$bench" run --threads 0
expect 2 'budget|soon' "$bench" run --budget soon
expect 2 'nosuch' "$bench" run --nosuch
expect 2 'nosuch' "$bench" nosuch
expect 2 'nosuch' "$bench" run --benchmark_nosuch
expect 2 'sizes.missing' "$bench" run --sizes "$dir/sizes.missing"
printf 'sgemm 4x4x4\nsgemm 4x4\n' > "$dir/bad.txt"
expect 2 'bad.txt|2' "$bench" run --sets none --sizes "$dir/bad.txt"
printf 'sgemn 4x4x4\n' > "$dir/bad.txt"
expect 2 'bad.txt|1|sgemn|sgemm_packed' "$bench" run --sets none --sizes "$dir/bad.txt"
expect 1 'nosuchfolder' run --filter '^exp' --json "$dir/nosuchfolder/x.json"
expect 2 'BENCH_THREADS|zero' env BENCH_THREADS=zero "$bench" run --list
expect 2 'T2K_ISA|foo' env T2K_ISA=foo "$bench" run --list
T2K_ISA=avx2 "$bench" list > "$dir/capped" 2>&1
check "T2K_ISA=avx2 lists avx512" sh -c "! grep -q /avx512/ '$dir/capped'"
BENCH_FILTER='^softmax/' "$bench" list > "$dir/some"
check "BENCH_FILTER" sh -c "grep -q '^softmax/' '$dir/some' && ! grep -qv '^softmax/' '$dir/some'"
if [ -w /dev/full ]; then
    "$bench" list > /dev/full 2> "$dir/err"
    check "list on a full disk" test $? = 1
fi

# ---- targets ------------------------------------------------------------------------------------
# What the file names by itself is timed whatever the budget is, and sets as far as it goes.
expect 0 '' "$bench" run --targets --peers none --threads 1 \
    --isa "$best" --filter '^(exp|softmax)/.*|^sgemm_packed/[^/]*/1x' --budget 1s --min-time 1e-4 \
    --json "$dir/targets.json"
check "rows with targets" python3 - "$dir/targets.json" <<'TEXT'
import json, sys
d = json.load(open(sys.argv[1]))
timed = {e['run_name'].split('/')[2]: e['repetitions'] for e in d['benchmarks']}
wanted = {'262144', '320x256', '1024x1024', '32x32000', '2560x10', '8192x1024', '1x4096x1024'}
assert wanted <= set(timed), wanted - set(timed)
assert all(timed[shape] >= 5 for shape in wanted), timed
left = [n['name'] for n in d['context']['not_timed']]
assert left and all(n.startswith('sgemm_packed/') for n in left), left
TEXT

# ---- experts ------------------------------------------------------------------------------------
expect 2 'switch|all' "$bench" experts nosuch
expect 2 'dir' "$bench" experts all
expect 2 'dir' "$bench" experts swap --dir "$dir"
expect 2 'experts' "$bench" experts switch --svg "$dir/switch.svg"
expect 0 '' "$bench" experts switch --threads 1 --csv "$dir/switch.csv"
stdout_has '36 matrices of MiniLM switched by rebuild'
check "figures of 36 matrices" python3 - "$dir/switch.csv" <<'TEXT'
import csv, sys
row, = csv.DictReader(open(sys.argv[1]))
flops = 2 * 6 * (4 * 384 ** 3 + 2 * 1536 * 384 ** 2)
assert int(row['matrices']) == 36 and int(row['flops']) == flops, row
assert all(float(row[k]) > 1e-4 for k in ('switch_s', 'packed_s', 'plain_s')), row
TEXT

# ---- Google Benchmark's flags, other forms ------------------------------------------------------
expect 0 '' run --peers none --isa "$best" --filter '^exp/' --benchmark_format=csv
stdout_has 'name,iterations,real_time'
expect 0 '' run --peers none --isa "$best" --filter '^exp/' --csv - --md "$dir/t.md"
check "markdown" grep -q '|.*exp' "$dir/t.md"
expect 0 '' "$bench" run --quick --dry-run
check "a dry run times nothing" test -s "$dir/out"
if python3 -c 'import jsonschema' 2> /dev/null; then
    check "schema" python3 tests/bench/check-schema.py bench/schema.json "$dir/all.json"
    check "schema, with peers" python3 tests/bench/check-schema.py bench/schema.json "$dir/wrong.json"
else
    skip 2 "no python3-jsonschema"
fi
expect 0 '' "$bench" compare "$dir/all.json" "$dir/all.json"
expect 0 '' "$bench" report "$dir/all.json" -o "$dir/report.html"

# ---- interrupted --------------------------------------------------------------------------------
# start FILTER: a run in the background, once it has workers; pid and workers are set.
start() {
    "$bench" run --sets seed --peers none --threads 1 --filter "$1" --json "$dir/cut.json" \
        > "$dir/out" 2> "$dir/err" &
    pid=$!
    workers=
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        workers=$(pgrep -P $pid -f 'worker' | tr '\n' ' ')
        [ -z "$workers" ] || break
        sleep 0.5
    done
    check "a worker was started" test -n "$workers"
    sleep 1
}
gone() { # the workers are
    left=
    for i in 1 2 3 4 5 6 7 8 9 10; do
        left=
        for worker in $workers; do
            [ ! -e "/proc/$worker" ] || left="$left $worker"
        done
        [ -n "$left" ] || break
        sleep 0.3
    done
    check "workers left behind:$left" test -z "$left"
}
start .
kill -INT $pid
wait $pid
check "exit status after Ctrl-C" test $? = 130
check "complete is false" test "$(json "$dir/cut.json" "d['context']['t2bench']['complete']")" = False
gone

# A worker that is killed: its case fails, the run goes on.
start '^(sgemm|exp|relu)/'
# shellcheck disable=SC2086
kill -KILL $workers
wait $pid
check "exit status after a worker was killed" test $? -le 1
check "results after a worker was killed" json "$dir/cut.json" "len(d['benchmarks']) > 0 or 1/0"

# Killed outright: the workers, stopped or not, go with it.
start .
kill -KILL $pid
wait $pid 2> /dev/null
gone

finish
