#!/bin/sh
# test-install.sh - installs into a scratch folder, moves it, and builds and runs programs there
#
# The configuration (MAKE, B, CC, CXX) is in the environment; the libraries in $B are built.
# Prints each failed check, and last "N passed, N failed, N skipped".

set -u
export LC_ALL=C

MAKE=${MAKE:-make} B=${B:-build} CC=${CC:-gcc} CXX=${CXX:-g++}
passed=0 failed=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# try TEXT COMMAND...
try() {
    text=$1
    shift
    if "$@" > "$work/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED installed tree: $text"
        sed 's/^/    /' "$work/log"
    fi
}
run_make() {
    env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES -u MAKELEVEL \
        "$MAKE" CC="$CC" B="$B" PREFIX=/opt/t2 "$@"
}
listing() { (cd "$1" && find . ! -type d | sort); }

for libdir in lib lib/x86_64-linux-gnu; do
    stage=$work/stage
    try "install, LIBDIR=$libdir" run_make DESTDIR="$stage" LIBDIR="/opt/t2/$libdir" install
    version=$(sed -n 's/^Version: //p' "$stage/opt/t2/$libdir/pkgconfig/t2k.pc")
    {
        for f in bin/t2 include/t2.h include/t2_experts.h include/t2_factors.h include/t2_learn.h include/t2k.h; do echo "./$f"; done
        for l in t2 t2k; do
            for f in "lib$l.a" "lib$l.so" "lib$l.so.${version%%.*}" "lib$l.so.$version" \
                     "pkgconfig/$l.pc"; do
                echo "./$libdir/$f"
            done
        done
        [ ! -e docs/t2.1 ] || echo ./share/man/man1/t2.1
    } | sort > "$work/want"
    listing "$stage/opt/t2" > "$work/have"
    try "files of LIBDIR=$libdir" diff "$work/want" "$work/have"

    # The tree is moved: nothing in it may hold the path it was installed to.
    tree=$work/moved
    mv "$stage/opt/t2" "$tree"
    export PKG_CONFIG_PATH="$tree/$libdir/pkgconfig"
    try "pkg-config" pkg-config --exists --print-errors "t2 = $version" "t2k >= $version"

    # $1 name, $2 source, $3 package, further: arguments of the program
    consumer() {
        out=$work/$1 source=$2 package=$3
        shift 3
        case $source in
        *.cc) compiler="$CXX -std=c++11" ;;
        *) compiler="$CC -std=c11" ;;
        esac
        # shellcheck disable=SC2046,SC2086
        try "$source, shared" $compiler -Wall -Wextra -Werror "$source" -o "$out" \
            $(pkg-config --cflags --libs "$package")
        try "run $source, shared" env LD_LIBRARY_PATH="$tree/$libdir" "$out" "$@"
        # The archives, found because the shared libraries are out of sight.
        mkdir "$work/hidden"
        mv "$tree/$libdir"/*.so* "$work/hidden"
        # shellcheck disable=SC2046,SC2086
        try "$source, static" $compiler -Wall -Wextra -Werror "$source" -o "$out" \
            $(pkg-config --static --cflags --libs "$package")
        try "run $source, static" "$out" "$@"
        mv "$work/hidden"/* "$tree/$libdir"
        rmdir "$work/hidden"
    }
    consumer use_t2k tests/consumer/use_t2k.c t2k
    consumer use_t2k_cc tests/consumer/use_t2k.cc t2k
    consumer use_t2 tests/consumer/use_t2.c t2 "$work/x.safetensors"
    try "the installed program" "$tree/bin/t2" --version

    mv "$tree" "$stage/opt/t2"
    try "uninstall" run_make DESTDIR="$stage" LIBDIR="/opt/t2/$libdir" uninstall
    listing "$stage" > "$work/have"
    try "nothing left behind" diff /dev/null "$work/have"
    rm -rf "$stage"
done

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
