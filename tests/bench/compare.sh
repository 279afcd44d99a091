#!/bin/sh
# compare.sh - drives $B/t2bench compare like a user: verdicts, warnings, exit codes, bad files; the
# schema; and Google Benchmark's own compare tool on the same files. Runs from the repository's root,
# needs Python 3; prints `N passed, N failed, N skipped` and exits 1 when a check fails. The files
# are made by make-results.py: nothing is timed here.
set -u
export LC_ALL=C

t2bench=${B:?B: the folder with t2bench}/t2bench
tools=tests/bench
gbench=/usr/share/benchmark/compare.py
suite=compare program=t2bench
. tests/tools/checks.sh
one_line='2 3'

# compares CODE WORDS ARGUMENTS...: t2bench compare; where WORDS is empty, so is stderr.
compares() {
    code=$1 words=$2
    shift 2
    expect "$code" "$words" "$t2bench" compare "$@"
    if [ -z "$words" ] && [ -s "$dir/err" ]; then
        fail "'compare $*': expected nothing on stderr: $(head -c 1000 "$dir/err")"
    fi
}
stdout_lacks() {
    if grep -qF -- "$1" "$dir/out"; then fail "stdout has '$1': $(cat "$dir/out")"; else pass; fi
}
line_like() { # PATTERN: a line of standard output
    if grep -q -- "$1" "$dir/out"; then pass; else fail "no line '$1': $(cat "$dir/out")"; fi
}
json_holds() { # FILE TEXT: Python, with d being the document
    if python3 -c "import json, sys; d = json.load(open(sys.argv[1])); $2" "$1"; then
        pass
    else
        fail "JSON: $2: $(head -c 600 "$1")"
    fi
}
make_file() { # NAME ARGUMENTS...
    name=$1
    shift
    python3 $tools/make-results.py -o "$dir/$name" "$@" || fail "make-results.py $*"
}

# ---- files ----------------------------------------------------------------------------------
a=$dir/a.json
make_file a.json --seed 1
make_file again.json --seed 2 --shift 0.01
make_file slow.json --seed 3 --scale softmax=1.1 --scale relu/avx2=0.8
make_file slow4.json --seed 3 --scale softmax=1.04
make_file slow8.json --seed 3 --scale layer_norm/avx512/320x256=1.08
all_ops=
for op in sgemm sgemm_packed sgemm_nt softmax layer_norm mean exp attention relu add model; do
    all_ops="$all_ops --scale $op=1.1"
done
# shellcheck disable=SC2086
make_file slow-all.json --seed 3 $all_ops
make_file intel.json --machine intel-6-143-8-avx512
make_file bits.json --seed 2 --machine amd-25-17-2-avx512 --other-bits exp
make_file threads.json --seed 2 --default-threads 4 --scale exp=1.2
make_file clang.json --seed 2 --compiler 'clang 14.0.6' --scale exp=1.2
make_file cut.json --seed 2 --incomplete
make_file wrong.json --seed 2 --fail relu
make_file part.json --seed 2 --rows 30
make_file few.json --seed 2 --samples 5
make_file cap.json --machine amd-25-17-1-avx2 --isas avx2
make_file top.json --machine amd-25-17-1-avx512 --isas avx512
make_file peers.json --peers --isas avx2 --rows 8 --samples 4 --fail sgemm_nt

# ---- verdicts -------------------------------------------------------------------------------
compares 0 '' "$a" "$a"
stdout_has '105 rows compared: 0 regressions, 0 improvements, 105 alike; geometric mean'
stdout_has 'ratios 1.000'
compares 0 '' "$a" "$dir/again.json"
stdout_lacks 'regression '
compares 1 '' "$a" "$dir/slow.json"
stdout_has '6 regressions, 1 improvement, 98 alike'
line_like '^softmax/avx2/2560x32/1 .* regression .* 1\.[01]'
line_like '^relu/avx2/327680/1 .* improvement .* 0\.'
stdout_lacks 'sgemm'
compares 0 '' "$dir/slow.json" "$a" --filter '^softmax'
stdout_has '0 regressions, 6 improvements'
compares 0 '' "$a" "$dir/slow4.json"
compares 1 '' "$a" "$dir/slow4.json" --threshold 2%
compares 1 '' "$a" "$dir/slow4.json" --threshold 0.02
compares 1 '' "$a" "$dir/slow8.json"
stdout_has '2 regressions, 0 improvements, 103 alike'
compares 0 '' "$a" "$dir/slow8.json" --threshold 10%
compares 1 '' "$a" "$dir/slow-all.json"
compares 0 '' "$a" "$dir/slow.json" --filter '^relu/'
stdout_has '3 rows compared: 0 regressions, 1 improvement'
compares 0 '' "$a" "$dir/slow.json" --fail-on none
compares 1 '' "$a" "$dir/again.json" "$dir/slow.json"
stdout_has 'again.json'
stdout_has 'slow.json'
compares 0 '' "$a" "$dir/again.json" --all
stdout_has 'sgemm/avx2/320x768x256/1'
compares 1 '' "$a" "$dir/slow.json" --md
stdout_has '| softmax/avx2/2560x32/1 '
stdout_has '|--|--|--:|'

# ---- differences of the files ---------------------------------------------------------------
compares 0 'warning: |intel.json: another machine: intel-6-143-8-avx512, in the baseline amd-25-17' \
    "$a" "$dir/intel.json"
stdout_has ' slower, '
stdout_lacks 'regression'
compares 1 'another machine' "$a" "$dir/intel.json" --fail-on machine
compares 1 'another machine' "$a" "$dir/intel.json" --fail-on regression,slower
compares 0 'another machine' "$a" "$dir/intel.json" --fail-on regression,isa,threads,compiler
compares 0 '3 of 105 rows computed different bits' "$a" "$dir/bits.json"
stdout_has 'exp/avx512/1048576/1: computed different bits'
compares 1 'computed different bits' "$a" "$dir/bits.json" --fail-on fingerprint
compares 0 '' "$a" "$dir/again.json" --fail-on fingerprint,machine,isa,threads,compiler,missing
compares 0 'another default number of threads: 4, in the baseline 8' "$a" "$dir/threads.json"
compares 1 'number of threads' "$a" "$dir/threads.json" --fail-on threads
compares 0 'another compiler: clang 14.0.6' "$a" "$dir/clang.json"
stdout_has '3 slower'
compares 1 'another compiler' "$a" "$dir/clang.json" --fail-on compiler
compares 0 'incomplete' "$a" "$dir/cut.json"
compares 0 '3 rows failed' "$a" "$dir/wrong.json"
stdout_has 'relu/avx2/327680/1: failed in the other file: wrong result'
compares 1 '3 rows failed' "$a" "$dir/wrong.json" --fail-on missing
compares 0 '' "$a" "$dir/part.json"
stdout_has '75 missing'
compares 1 '' "$a" "$dir/part.json" --fail-on missing
compares 0 '' "$dir/part.json" "$a" --fail-on missing
stdout_has '75 new'
compares 0 'too few rounds for a verdict among 105 rows; 8 rounds in each' "$dir/few.json" \
    "$dir/few.json"

# Two ISAs of one machine: by shape where no names are equal.
compares 0 'another ISA in use|matched by shape' "$dir/cap.json" "$dir/top.json"
stdout_has '35 rows compared'
stdout_has 'sgemm/avx2/320x768x256/1 -> avx512'
compares 1 'another ISA in use' "$dir/cap.json" "$dir/top.json" --fail-on isa
compares 3 'cap.json|top.json|no row in common by name' "$dir/cap.json" "$dir/top.json" --by name
compares 0 'another ISA in use' "$dir/cap.json" "$a"
stdout_has '35 rows compared'
stdout_has '70 new'
compares 0 'another ISA in use|matched by shape: 35 of 35' "$dir/cap.json" "$a" --by shape

# ---- output ---------------------------------------------------------------------------------
compares 1 '' "$a" "$dir/slow.json" --json "$dir/out.json"
json_holds "$dir/out.json" 'c, = d["comparisons"]
assert (c["slower"], c["faster"], c["compared"], len(c["rows"])) == (6, 1, 105, 105)
assert sum(r["verdict"] == "regression" for r in c["rows"]) == 6'
compares 0 'another machine' "$a" "$dir/intel.json" --json -
json_holds "$dir/out" 'c, = d["comparisons"]
assert len(c["warnings"]) == 1 and "another machine" in c["warnings"][0]'
compares 2 "$dir/no/x.json" "$a" "$dir/again.json" --json "$dir/no/x.json"
if [ -w /dev/full ]; then
    "$t2bench" compare "$a" "$a" > /dev/full 2> "$dir/err"
    if [ $? = 2 ] && grep -q 'cannot write' "$dir/err"; then
        pass
    else
        fail "/dev/full: $(cat "$dir/err")"
    fi
else
    skip 1 "no /dev/full here"
fi

# ---- usage ----------------------------------------------------------------------------------
compares 0 '' --help
stdout_has 'exit codes: 0'
compares 2 'found 0 files'
compares 2 'found 1 files' "$a"
compares 2 '--nonsense' "$a" "$a" --nonsense
compares 2 '--threshold' "$a" "$a" --threshold
for bad in 5 x -1% '' 5%% nan inf 1e9%; do
    compares 2 "--threshold '$bad'" "$a" "$a" --threshold "$bad"
done
for bad in 0 1 -1 x; do
    compares 2 "--alpha '$bad'" "$a" "$a" --alpha "$bad"
done
compares 2 "'speed' is none of" "$a" "$a" --fail-on regression,speed
compares 2 "'' is none of" "$a" "$a" --fail-on ''
compares 2 "--filter '('" "$a" "$a" --filter '('
compares 2 "--by 'isa'" "$a" "$a" --by isa
compares 3 'no row in common|0 and 0 match the filter' "$a" "$a" --filter zzz

# ---- files that are none --------------------------------------------------------------------
bad_file() { # NAME WORDS: as either file, exit code 3
    compares 3 "$1|$2" "$a" "$dir/$1"
    compares 3 "$1|$2" "$dir/$1" "$a"
}
bad_file none.json 'No such file'
mkdir "$dir/folder.json"
bad_file folder.json 'is a directory'
: > "$dir/empty.json"
bad_file empty.json 'not JSON'
head -c 20000 "$a" > "$dir/short.json"
bad_file short.json 'not JSON'
echo '[1, 2]' > "$dir/list.json"
bad_file list.json 'expected a JSON object'
echo '{}' > "$dir/bare.json"
bad_file bare.json "'context' is missing"
echo '{"context": {"date": "x", "num_cpus": 2}, "benchmarks": []}' > "$dir/plain.json"
bad_file plain.json "'schema' is missing (plain output of Google Benchmark?)"
make_file newer.json --schema 2 --rows 2
bad_file newer.json 'schema 2 is newer than 1'
printf '\377\376\000' > "$dir/bytes.json"
bad_file bytes.json 'not JSON'
sed 's/"time_unit": "ns"/"time_unit": "ms"/' "$a" > "$dir/unit.json"
bad_file unit.json "'time_unit' is not 'ns'"
sed 's/"real_time": [0-9]/"real_time": -1/' "$a" > "$dir/negative.json"
bad_file negative.json "'real_time' is a number; expected"
sed 's/"aggregate_name": "median"/"aggregate_name": "mean"/' "$a" > "$dir/mean.json"
bad_file mean.json "has no aggregates 'median' and 'min'"
sed 's/"run_name": "relu/"run_name": "\\u001b[31m/' "$a" > "$dir/escape.json"
bad_file escape.json "'run_name' is a text; expected"
if [ "$(id -u)" = 0 ]; then
    skip 1 "root reads unreadable files"
else
    cp "$a" "$dir/secret.json" && chmod 0 "$dir/secret.json"
    bad_file secret.json 'Permission denied'
fi

# ---- schema ---------------------------------------------------------------------------------
check="python3 $tools/check-schema.py"
if python3 -c 'import jsonschema' 2> /dev/null; then
    if $check bench/schema.json "$a" "$dir"/intel.json "$dir"/wrong.json "$dir"/peers.json \
        "$dir"/cut.json 2> "$dir/err"; then pass; else fail "schema: $(cat "$dir/err")"; fi
    if $check --mutations bench/schema.json "$dir/peers.json" > "$dir/out" 2> "$dir/err"; then
        pass
    else
        fail "schema: $(cat "$dir/err")"
    fi
    stdout_has ' mutations, 0 not noticed'
    for bad in plain newer unit negative escape short; do
        if $check bench/schema.json "$dir/$bad.json" 2> /dev/null; then
            fail "schema: $bad.json passes"
        else
            pass
        fi
    done
else
    skip 1 "schema: no Python module jsonschema (Debian: python3-jsonschema)"
fi

# ---- Google Benchmark's own tool ------------------------------------------------------------
if [ ! -e "$gbench" ]; then
    skip 1 "no $gbench (Debian: libbenchmark-tools)"
elif ! python3 -c 'import numpy, scipy.stats' 2> /dev/null; then
    skip 1 "$gbench needs the Python module scipy (Debian: python3-scipy)"
elif python3 "$gbench" --no-color benchmarks "$a" "$dir/slow.json" > "$dir/out" 2> "$dir/err"; then
    pass
    stdout_has 'softmax/avx2/2560x32/1_median'
    stdout_has 'softmax/avx2/2560x32/1_pvalue'
    stdout_has 'OVERALL_GEOMEAN'
else
    fail "$gbench: $(cat "$dir/err")"
fi

finish
