#!/bin/sh
# deps.sh SET... - see to it that the Debian packages of the sets run, test and bench are there; a
# set openblas, blis, onednn or venv is one of the libraries that the benchmark compares with, or
# what Python needs for those of its package index (bench/tools/peers.sh)
#
# Silent where nothing is missing. Else installs by apt-get as root (or by sudo without a
# password), saying so on stderr; where that is not allowed, prints the one line to type and
# exits 1. On a system without dpkg it says what is needed and looks for the headers instead.
# CC=clang adds what that compiler needs.

set -u
export LC_ALL=C

usage() { echo "usage: deps.sh run|test|bench ..." >&2; exit 2; }

has_avx512() {
    for f in f cd bw dq vl; do
        grep -qw "avx512$f" /proc/cpuinfo 2>/dev/null || return 1
    done
}

want="gcc make libc6-dev libsleef-dev libjansson-dev nettle-dev liblapacke-dev"
# The BLAS behind LAPACKE.
want="$want libopenblas0-pthread"
case ${CC:-gcc} in *clang*) want="$want clang libomp-14-dev" ;; esac
[ $# -gt 0 ] || usage
for set in "$@"; do
    case $set in
    run) ;;
    test)
        want="$want libcriterion-dev pkg-config g++ binutils libbenchmark-dev"
        want="$want libbenchmark-tools python3 python3-jsonschema python3-scipy chromium"
        if [ "$(uname -m)" = x86_64 ]; then
            want="$want gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
            has_avx512 || want="$want bochs bochs-term bochsbios vgabios cpio lz4"
        fi
        ;;
    bench) want="$want g++ libbenchmark-dev" ;;
    openblas) want="$want libopenblas0-pthread" ;;
    blis) want="$want libblis4-pthread" ;;
    onednn) want="$want libdnnl2" ;;
    venv) want="$want g++ python3 python3-venv python3-dev" ;;
    *) usage ;;
    esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    # Another distribution: packages have other names there, so look for what they hold.
    missing=
    for program in "${CC:-gcc}" make; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    for header in sleef.h jansson.h nettle/sha2.h lapacke.h; do
        echo "#include <$header>" | "${CC:-gcc}" -E - >/dev/null 2>&1 || missing="$missing $header"
    done
    [ -n "$missing" ] || exit 0
    echo "deps: not found:$missing" >&2
    echo "deps: this is no Debian; please install the equivalents of: $want" >&2
    exit 1
fi

# Package names without those that are installed.
# shellcheck disable=SC2086
missing=$(
    {
        dpkg-query -W -f='${Status} ${Package}\n' $want 2>/dev/null |
            sed -n 's/^install ok installed //p'
        echo --
        printf '%s\n' $want
    } | awk '$0 == "--" {wanted = 1; next} !wanted {there[$0] = 1; next}
             !there[$0]++ {printf "%s%s", sep, $0; sep = " "}'
)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    echo "deps: packages are missing; please run" >&2
    echo "    sudo apt-get install --no-install-recommends $missing" >&2
    exit 1
fi

echo "deps: installing $missing" >&2
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
if ! { $sudo apt-get update -q &&
       $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
           --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "deps: apt-get failed; needed: $missing" >&2
    exit 1
fi
