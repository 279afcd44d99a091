#!/bin/sh
# report.sh - drives $B/t2bench report: messages, exit codes, the README's table, and the
# page in headless Chromium (skipped, visibly, where there is none). Runs from the repository's
# root; prints `N passed, N failed, N skipped` and exits 1 when a check fails.
set -u
export LC_ALL=C

t2bench=${B:?B: the folder with t2bench}/t2bench
here=tests/bench
suite=report program=t2bench
. tests/tools/checks.sh
one_line='1 2 3'

# holds FILE WORD...
holds() {
    file=$1
    shift
    for word in "$@"; do
        if grep -qF -- "$word" "$file"; then pass; else fail "$file lacks '$word'"; fi
    done
}
quiet() {
    if [ -s "$dir/err" ]; then fail "unexpected on stderr: $(cat "$dir/err")"; else pass; fi
}
same() { if cmp -s "$1" "$2"; then pass; else fail "$1 and $2 differ"; fi; }
# good COMMAND...: exits 0, else its output is the failure.
good() {
    if said=$("$@" 2>&1); then pass; else fail "'$*': $said"; fi
}
# bad COMMAND...: a check that must find something: else it could not fail.
bad() { if "$@" > /dev/null 2>&1; then fail "'$*' finds nothing wrong"; else pass; fi; }
check() { good python3 $here/check-page.py "$@"; }
make_results() { python3 $here/make-results.py "$@" || fail "make-results.py $*"; }

# ---- result files ---------------------------------------------------------------------------
# a: complete, all peers; b: another machine; c: not complete, failed, noisy and other bits; one:
# a single row of everything; h: hostile texts.
make_results --peers openblas,mkl,mkl-cnr,blis,onednn,torch --threads 1,2 --samples 7 \
    -o "$dir/a.json"
make_results --machine intel-6-143-8-amx --peers --threads 1,2,4 --samples 7 --seed 2 \
    -o "$dir/b.json"
make_results --machine arm-1-2-3-neon --seed 3 --samples 7 --peers openblas,torch \
    --peer-error torch:exp --incomplete --fail softmax --other-bits exp --version 0.9.9 \
    --noise 0.2 -o "$dir/c.json"
make_results --machine amd-25-17-1-scalar --rows 1 --samples 3 -o "$dir/one.json"
make_results --fail mean --peers --peer-error mkl:sgemm --incomplete --samples 7 |
    python3 $here/hostile-results.py > "$dir/h.json"
make_results --schema 2 --rows 1 -o "$dir/newer.json"
echo '{"context": {}, "benchmarks": []}' > "$dir/foreign.json"

# ---- usage and files ------------------------------------------------------------------------
expect 0 '' "$t2bench" report --help
holds "$dir/out" 'usage: t2bench report' '--readme-into' 'exit codes'
expect 2 'no result files' "$t2bench" report -o "$dir/x.html"
expect 2 'none' "$t2bench" report "$dir/a.json"
expect 2 'several' "$t2bench" report "$dir/a.json" -o "$dir/x.html" --readme
expect 2 'several' "$t2bench" report "$dir/a.json" --readme-into "$dir/x.html" --readme
expect 2 '--nonsense' "$t2bench" report "$dir/a.json" --nonsense
expect 2 'value|-o' "$t2bench" report "$dir/a.json" -o
expect 2 'value|--title' "$t2bench" report "$dir/a.json" --title
expect 2 '--title' "$t2bench" report "$dir/a.json" --readme --title x
expect 2 '--title|UTF-8' "$t2bench" report "$dir/a.json" -o "$dir/x.html" \
    --title "$(printf '\377')"
expect 3 "$dir/none.json" "$t2bench" report "$dir/none.json" -o "$dir/x.html"
expect 3 "$dir/foreign.json" "$t2bench" report "$dir/a.json" "$dir/foreign.json" -o "$dir/x.html"
expect 3 "$dir/newer.json|schema" "$t2bench" report "$dir/newer.json" --readme
expect 3 "$dir|" "$t2bench" report "$dir" -o "$dir/x.html"
expect 1 "$dir/no/x.html" "$t2bench" report "$dir/a.json" -o "$dir/no/x.html"
expect 1 '/dev/full' "$t2bench" report "$dir/a.json" -o /dev/full
expect 1 '' sh -c '"$1" report "$2" --readme > /dev/full' - "$t2bench" "$dir/a.json"
absent "$dir/x.html"
echo before > "$dir/kept.html"
expect 3 '' "$t2bench" report "$dir/foreign.json" -o "$dir/kept.html"
if [ "$(cat "$dir/kept.html")" = before ]; then pass; else fail "the old page is gone"; fi

# ---- pages ----------------------------------------------------------------------------------
expect 0 '' "$t2bench" report "$dir/a.json" "$dir/b.json" -o "$dir/two.html" --title 'A & B <1>'
quiet
holds "$dir/two.html" '<h1>A &amp; B &lt;1&gt;</h1>' 'All bits equal.' 'on 2 kinds of CPU' \
    'geometric mean'
expect 0 '' "$t2bench" report "$dir/a.json" -o "$dir/single.html"
quiet
expect 0 'warning|not completed|versions' "$t2bench" report "$dir/a.json" "$dir/c.json" \
    -o "$dir/odd.html"
holds "$dir/odd.html" '<p class="warn">' 'rows are missing' '1 of 33 results differ' \
    'different versions of t2bench' 'rows failed and have no time'
expect 0 '' "$t2bench" report "$dir/one.json" -o "$dir/one.html"
holds "$dir/one.html" 'No peer ran on this machine' 'No result was computed twice'
expect 0 'warning' "$t2bench" report "$dir/h.json" "$dir/b.json" -o "$dir/hostile.html" \
    --title "</title><script>document.title='injected'</script>"
# The same file twice: told apart by their labels.
expect 0 '' "$t2bench" report "$dir/a.json" "$dir/a.json" -o "$dir/twice.html"
for page in two single odd one hostile twice; do
    check html "$dir/$page.html"
done
expect 0 '' "$t2bench" report "$dir/a.json" "$dir/b.json" -o "$dir/again.html" --title 'A & B <1>'
same "$dir/two.html" "$dir/again.html"

# ---- the README -----------------------------------------------------------------------------
expect 0 '' "$t2bench" report --readme "$dir/a.json" "$dir/b.json"
quiet
cp "$dir/out" "$dir/table.md"
holds "$dir/table.md" '| kernel | AMD EPYC 9R14, avx512 | Intel Xeon 8488C, amx |' '|--|--|--|' \
    '| softmax' 'GFLOP/s' '320x768x256'
expect 0 '' "$t2bench" report --readme "$dir/a.json" "$dir/b.json"
same "$dir/table.md" "$dir/out"
printf 'head\n<!-- bench:begin -->\nold\n<!-- bench:end -->\ntail' > "$dir/README.md"
chmod 640 "$dir/README.md"
expect 0 '' "$t2bench" report --readme-into "$dir/README.md" "$dir/a.json" "$dir/b.json"
{
    printf 'head\n<!-- bench:begin -->\n'
    cat "$dir/table.md"
    printf '<!-- bench:end -->\ntail'
} > "$dir/expected.md"
same "$dir/expected.md" "$dir/README.md"
expect 0 '' "$t2bench" report --readme-into "$dir/README.md" "$dir/a.json" "$dir/b.json"
same "$dir/expected.md" "$dir/README.md"
if [ "$(stat -c %a "$dir/README.md")" = 640 ]; then pass; else fail "mode bits changed"; fi
for text in 'no markers' '<!-- bench:begin -->' '<!-- bench:end -->\n<!-- bench:begin -->' \
    '<!-- bench:begin -->\n<!-- bench:begin -->\n<!-- bench:end -->' \
    ' <!-- bench:begin -->\n<!-- bench:end -->'; do
    printf '%b\n' "$text" > "$dir/bad.md"
    cp "$dir/bad.md" "$dir/bad.copy"
    expect 1 'bad.md|bench:begin|bench:end' "$t2bench" report --readme-into "$dir/bad.md" \
        "$dir/a.json"
    same "$dir/bad.md" "$dir/bad.copy"
done
: > "$dir/bad.md"
expect 1 'bad.md' "$t2bench" report --readme-into "$dir/bad.md" "$dir/a.json"
expect 1 'none.md' "$t2bench" report --readme-into "$dir/none.md" "$dir/a.json"
expect 0 'warning' "$t2bench" report --readme "$dir/h.json"
# No row of the table has a cell more or less, whatever the texts hold.
if awk -F '|' '{gsub(/\\\|/, "")} /^\|/ {n[NF]++} END {exit length(n) != 1}' "$dir/out"; then
    pass
else
    fail "the README's table has rows of different lengths: $(cat "$dir/out")"
fi

# ---- the targets ----------------------------------------------------------------------------
targets=bench/shapes/targets.txt
make_results --cases $targets --threads 1,2 --samples 7 --peers openblas,mkl,mkl-cnr,onednn,torch \
    --isas avx2,avx512 --scale relu=2 --scale sgemm=0.72 --scale softmax=0.4 --fail model \
    --peer-error torch:exp -o "$dir/t.json"
expect 0 '' "$t2bench" report --targets "$dir/t.json"
quiet
cp "$dir/out" "$dir/t.md"
good python3 $here/check-targets.py "$dir/t.json" $targets "$dir/t.md"
holds "$dir/t.md" '**avx512, 2 threads**' '**avx2, 1 thread**' ' | yes |' ' | **no** |' \
    '| 11 | model 10x32 | not measured |' 'no time of any peer' 'share of the limit' \
    'ns per element' 'the time of our sgemm\_nt' 'as fast as one thread' 'slower than on one thread' \
    '| 5 | sgemm\_packed, 0 of the ' ', which leaves out the ' 'for a reason that nobody gave'
# Any number of threads has its tables.
make_results --cases $targets --threads 4 --samples 7 --peers torch > "$dir/four.json"
expect 0 '' "$t2bench" report --targets "$dir/four.json"
cp "$dir/out" "$dir/four.md"
holds "$dir/four.md" '**avx512, 4 threads**: '
good test "$(grep -c 'thread.*targets met' "$dir/four.md")" = 2
# The check finds what it is there for.
sed '0,/ | yes |/s// | **no** |/' "$dir/t.md" > "$dir/wrong.md"
bad python3 $here/check-targets.py "$dir/t.json" $targets "$dir/wrong.md"
sed '0,/targets met/s/[0-9]* of/1000 of/' "$dir/t.md" > "$dir/wrong.md"
bad python3 $here/check-targets.py "$dir/t.json" $targets "$dir/wrong.md"
# Why a target was missed: beside what was missed alone, and a note where nothing was.
python3 - "$dir/t.json" "$dir/why.json" <<'TEXT'
import json, sys
d = json.load(open(sys.argv[1]))
d["context"]["machine"]["isa"]["list"].append(
    {"name": "amx", "usable": False, "active": False, "reason": "this CPU has no amx_tile"})
json.dump(d, open(sys.argv[2], "w"))
TEXT
cat > "$dir/why.causes.txt" <<'TEXT'
# row, operation, shape, ISA, threads, target
1 sgemm 512x512x512 avx512 1 x
    The peer | runs at
    96 % of the peak.
1 sgemm_fast * amx * -
    No such machine.
1 nosuchop * * * x
    Nobody missed this.
TEXT
expect 0 'why.causes.txt, line 7|of this kind' "$t2bench" report --targets "$dir/why.json"
if grep -q 'line [25]:' "$dir/err"; then fail "a cause that was used is noted"; else pass; fi
good python3 $here/check-targets.py "$dir/why.json" $targets "$dir/out"
holds "$dir/out" ' | **no** | The peer \| runs at 96 % of the peak. |' '**amx**: not measured' \
    '| 1 | sgemm\_fast 1024x1024x1024 | not measured | - | - | >= 175 % | - | No such machine. |'
if [ "$(grep -c 'The peer' "$dir/out")" = 1 ]; then pass; else fail "the cause of one case"; fi
echo '1 sgemm' > "$dir/why.causes.txt"
expect 1 'why.causes.txt: line 1|ROW OPERATION' "$t2bench" report --targets "$dir/why.json"
# Sets as a whole: those of llm that the usual cases have.
make_results --peers onednn --samples 3 -o "$dir/set.json"
expect 0 '' "$t2bench" report --targets "$dir/set.json"
holds "$dir/out" '| 5 | sgemm\_packed, 3 of the ' 'geometric mean' 'below'
expect 0 '' "$t2bench" report --targets "$dir/h.json"
printf 'head\n<!-- targets:begin -->\nold\n<!-- targets:end -->\ntail\n' > "$dir/page.md"
expect 0 '' "$t2bench" report --targets-into "$dir/page.md" "$dir/t.json"
{
    printf 'head\n<!-- targets:begin -->\n'
    cat "$dir/t.md"
    printf '<!-- targets:end -->\ntail\n'
} > "$dir/expected.md"
same "$dir/expected.md" "$dir/page.md"
expect 1 'targets:begin' "$t2bench" report --targets-into "$dir/README.md" "$dir/t.json"
expect 2 'several' "$t2bench" report --targets --readme "$dir/t.json"

# ---- the rooflines --------------------------------------------------------------------------
expect 0 '' "$t2bench" report --roofline "$dir/roof.svg" "$dir/a.json"
quiet
good python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$dir/roof.svg"
holds "$dir/roof.svg" 'FMA avx512' 'memory: read at' 'prefers-color-scheme:dark' \
    'sgemm_packed/avx512/320x768x256/1: ' 'softmax/avx512/2560x32/1: '
expect 0 '' "$t2bench" report --roofline "$dir/hostile.svg" "$dir/h.json"
good python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$dir/hostile.svg"
expect 2 'one result file' "$t2bench" report --roofline "$dir/x.svg" "$dir/a.json" "$dir/b.json"
absent "$dir/x.svg"

# ---- in a browser ---------------------------------------------------------------------------
browser=
for name in chromium chromium-browser google-chrome; do
    if command -v $name > /dev/null 2>&1; then
        browser=$name
        break
    fi
done

# browse PAGE OPTION...: standard output is Chromium's, console messages end up in $dir/console.
browse() {
    page=$1
    shift
    timeout 120 $browser --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run \
        --force-device-scale-factor=1 --user-data-dir="$dir/profile" --enable-logging=stderr \
        --disable-background-networking --disable-component-update --disable-sync \
        --host-resolver-rules='MAP * ~NOTFOUND' --virtual-time-budget=10000 "$@" \
        "file://$page" 2> "$dir/log"
    grep -a 'CONSOLE' "$dir/log" > "$dir/console"
    [ -s "$dir/console" ] && return 1
    return 0
}
# opens PAGE CHARTS FILE...: no message on the console, no request, the DOM as expected.
opens() {
    page=$dir/$1.html charts=$2
    shift 2
    if browse "$page" --log-net-log="$dir/net.json" --dump-dom > "$dir/dom.html"; then
        pass
    else
        fail "$page: $(cat "$dir/console")"
    fi
    check net "$dir/net.json"
    check dom "$dir/dom.html" "$charts" "$@"
}
# driven PAGE PATTERN: a reader's every action on a copy of the page, without a message.
driven() {
    { sed '/^<\/body>$/,$d' "$dir/$1.html"; echo '<script>'; cat $here/drive-page.js
      echo '</script></body></html>'; } > "$dir/driven.html"
    browse "$dir/driven.html" --dump-dom > "$dir/driven.dom" ||
        fail "$1, driven: $(cat "$dir/console")"
    got=$(sed -n 's/.*<output id="driven">driven: \(.*\)<\/output>.*/\1/p' "$dir/driven.dom")
    # shellcheck disable=SC2254
    case $got in
    $2) pass ;;
    *) fail "$1, driven: '$got', expected '$2'" ;;
    esac
}
# shows PAGE WIDTHxHEIGHT light|dark: a picture of that size that is not blank.
shows() {
    page=$dir/$1.html size=$2 theme=$3
    light=1 # Chromium counts dark as 0
    [ "$theme" = dark ] && light=0
    rm -f "$dir/shot.png"
    browse "$page" --window-size="$(echo "$size" | tr x ,)" --screenshot="$dir/shot.png" \
        --blink-settings=preferredColorScheme=$light > /dev/null ||
        fail "$page, $size, $theme: $(cat "$dir/console")"
    check png "$dir/shot.png" "$size" "$theme"
}

in_browser() {
    # Per machine: peers, roofline, bandwidth, instruction sets, sizes, threads.
    opens two 12 "$dir/a.json" "$dir/b.json"
    opens single 6 "$dir/a.json"
    opens odd 11 "$dir/a.json" "$dir/c.json"
    opens one 1 "$dir/one.json"
    opens hostile 11 "$dir/h.json" "$dir/b.json"
    if grep -q '<title>injected' "$dir/dom.html"; then fail "a text was run"; else pass; fi
    for theme in light dark; do
        browse "$dir/roof.svg" --window-size=1020,470 --screenshot="$dir/shot.png" \
            --blink-settings=preferredColorScheme=$([ $theme = dark ] && echo 0 || echo 1) > /dev/null
        check png "$dir/shot.png" 1020x470 $theme
    done
    driven two '* choices, 1? sorts, 12 tips, 12 charts, 1 empty, *'
    driven odd '* choices, 1? sorts, 11 tips, 11 charts, 1 empty, *'
    driven hostile '* choices, 1? sorts, 11 tips, 11 charts, 1 empty, *'
    shows two 1280x900 light
    shows two 1280x900 dark
    shows two 500x1000 light
    shows odd 1280x900 dark
    browse "$dir/two.html" --no-pdf-header-footer --print-to-pdf="$dir/two.pdf" > /dev/null ||
        fail "printing: $(cat "$dir/console")"
    check printed "$dir/two.pdf"

    # The checks themselves: each finds what it is there for.
    sed 's|^</body>|<script>throw new Error("thrown")</script></body>|' "$dir/one.html" \
        > "$dir/thrown.html"
    bad browse "$dir/thrown.html" --dump-dom
    sed 's|^</body>|<img src="http://127.0.0.1:9/x.png" alt=""></body>|' "$dir/one.html" \
        > "$dir/asks.html"
    bad browse "$dir/asks.html" --dump-dom
    sed '/Content-Security-Policy/d' "$dir/asks.html" > "$dir/free.html"
    browse "$dir/free.html" --log-net-log="$dir/net.json" --dump-dom > /dev/null
    bad python3 $here/check-page.py net "$dir/net.json"
    bad python3 $here/check-page.py html "$dir/asks.html"
    bad python3 $here/check-page.py dom "$dir/dom.html" 10 "$dir/h.json" "$dir/b.json"
    bad python3 $here/check-page.py dom "$dir/dom.html" 11 "$dir/h.json"
    echo '<!DOCTYPE html><title>blank</title><body style="background:#fff">' > "$dir/blank.html"
    browse "$dir/blank.html" --window-size=640,480 --screenshot="$dir/blank.png" > /dev/null
    bad python3 $here/check-page.py png "$dir/blank.png" 640x480 light
    sed 's/\.toFixed(2)/.toFixed(2) + NaN/' "$dir/two.html" > "$dir/nan.html"
    browse "$dir/nan.html" --dump-dom > "$dir/dom.html"
    bad python3 $here/check-page.py dom "$dir/dom.html" 12 "$dir/a.json" "$dir/b.json"
}
if [ -n "$browser" ]; then
    in_browser
else
    echo "SKIPPED report: no Chromium, so that no page was opened (package chromium)"
    skipped=$((skipped + 34))
fi

finish
