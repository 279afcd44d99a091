#!/bin/sh
# ab-test.sh PROGRAM [FILTER [OP [PAIRS]]] - do two runs of the same code compare as alike, and is a
# slower kernel found?
#
# By hand, from any directory: takes minutes and wants a machine that does nothing else. Makes PAIRS
# (10) pairs of real runs of `t2bench run`, in turn, of the cases that match FILTER:
#   A/A  both as they are: how many pairs exit 1, and why
#   A/B  in the second one T2BENCH_SLOW makes OP (relu) slower by PERCENT (8): how many are found
# The A/B pairs take the first files of the A/A pairs as their baselines. Prints the numbers; exits 1
# where more than a tenth of the A/A pairs exit 1 or less than nine tenths of the A/B pairs are found,
# 2 where a run failed. RUN_ARGS (default: --quick --peers none) go to every run, PERCENT to
# T2BENCH_SLOW.
set -u
export LC_ALL=C

t2bench=${1:?usage: ab-test.sh PROGRAM [FILTER [OP [PAIRS]]]}
filter=${2:-.} op=${3:-relu} pairs=${4:-10}
percent=${PERCENT:-8} arguments=${RUN_ARGS:---quick --peers none}
dir=$(mktemp -d "${TMPDIR:-/tmp}/t2-ab.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

run() { # FILE SLOW
    # shellcheck disable=SC2086
    if ! env ${2:+T2BENCH_SLOW="$2"} "$t2bench" run $arguments --filter "$filter" --json "$1" \
            > "$dir/out" 2> "$dir/err"; then
        echo "ab-test: a run failed:" >&2
        cat "$dir/out" "$dir/err" >&2
        exit 2
    fi
}

# compare A B: sets code and prints the rows that changed, for people.
compare() {
    "$t2bench" compare "$1" "$2" > "$dir/out" 2> "$dir/err"
    code=$?
    if [ "$code" -gt 1 ]; then
        cat "$dir/err" >&2
        exit 2
    fi
    sed 's/^/    /' "$dir/err"
    grep -E '^[^ ]+ +regression ' "$dir/out" | sed 's/^/    /'
    sed -n 's/^\([0-9]* rows compared.*\)/    \1/p' "$dir/out"
}

false_alarms=0 found=0 pair=1
while [ "$pair" -le "$pairs" ]; do
    run "$dir/a.json" ''
    run "$dir/same.json" ''
    run "$dir/slow.json" "t2k:$op:$percent"
    echo "pair $pair, A/A:"
    compare "$dir/a.json" "$dir/same.json"
    false_alarms=$((false_alarms + code))
    echo "pair $pair, A/B:"
    compare "$dir/a.json" "$dir/slow.json"
    # Found: one of that operation's own rows is a regression.
    if grep -qE "^$op/[^ ]+ +regression " "$dir/out"; then
        found=$((found + 1))
    fi
    pair=$((pair + 1))
done

echo "A/A: $false_alarms of $pairs pairs exit 1"
echo "A/B: $op slowed by $percent % is found in $found of $pairs pairs"
[ $((10 * false_alarms)) -le "$pairs" ] && [ $((10 * found)) -ge $((9 * pairs)) ]
