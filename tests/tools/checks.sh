# shellcheck shell=sh disable=SC2034
# checks.sh - for the shell tests, which source it: counts, and what a command must do.
#
# The test sets `suite`, its name in messages, and `program`, whose messages begin with "program: ".
# It gets $dir, a folder of its own that is removed at exit, and ends by calling `finish`.
dir=$(mktemp -d "${TMPDIR:-/tmp}/t2-$suite.XXXXXX")
trap 'chmod -R u+rwx "$dir"; rm -rf "$dir"' EXIT
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAILED $suite: $*"; }
skip() { # COUNT REASON
    skipped=$((skipped + $1))
    shift
    echo "SKIPPED $suite: $*"
}
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
    exit
}

# expect CODE WORDS COMMAND...: exit code CODE; stderr holds every |-separated part of WORDS. Where
# CODE is one of $one_line, stderr is one line that begins with "$program: ". Standard input comes
# from $input; output is in $dir/out and $dir/err.
one_line=
expect() {
    code=$1 words=$2
    shift 2
    "$@" > "$dir/out" 2> "$dir/err" < "${input:-/dev/null}"
    got=$?
    if [ "$got" != "$code" ]; then
        fail "'$*': exit code $got, expected $code: $(head -c 1000 "$dir/err")"
        return
    fi
    case " $one_line " in
    *" $code "*)
        lines=$(grep -c . "$dir/err")
        if [ "$lines" != 1 ] || ! grep -q "^$program: " "$dir/err"; then
            fail "'$*': expected one line '$program: ...' on stderr, got $lines:" \
                "$(head -c 1000 "$dir/err")"
            return
        fi
        ;;
    esac
    old=$IFS IFS='|'
    for word in $words; do
        if ! grep -qF -- "$word" "$dir/err"; then
            IFS=$old
            fail "'$*': stderr lacks '$word': $(head -c 1000 "$dir/err")"
            return
        fi
    done
    IFS=$old
    pass
}
stdout_has() {
    if grep -qF -- "$1" "$dir/out"; then
        pass
    else
        fail "stdout lacks '$1': $(head -c 1000 "$dir/out")"
    fi
}
absent() { if [ -e "$1" ]; then fail "$1 was left behind"; else pass; fi; }
