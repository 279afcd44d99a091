#!/bin/sh
# peers.sh [--dry-run] FOLDER [LIBRARY...] - install what the benchmark compares with
#
# Debian's OpenBLAS, BLIS and oneDNN, and from the Python package index into the virtual
# environment FOLDER (newest versions): mkl, onednn, torch, onnxruntime. Without names: all of
# them. It first says what is missing and how large that is, and refuses where the disk is too
# small. What cannot be installed is a line, and the rest still comes. What is there is left alone.
# Never called by run, test or bench; `make peers` calls it. --dry-run only says what would be
# done.
#
# Exit status: 0 something that was asked for is there, 1 nothing is or the disk is too small,
# 2 usage.
set -u
export LC_ALL=C PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# Megabytes to download and on disk, as of 2026-11 on x86-64: what the packages below came to.
# torch from the index comes with CUDA's libraries and does not load without them, even on a
# machine with no GPU; those that it does without (triton and others, 1 GB) are left out.
sizes() {
    cat <<'END'
openblas 7 43
blis 5 24
onednn-debian 7 39
mkl 272 845
onednn 39 164
torch 2490 4275
onnxruntime 56 195
END
}
libraries="openblas blis onednn-debian mkl onednn torch onnxruntime"
spare=500 # MB to leave free; a wheel and what is unpacked from it need room at the same time

usage() {
    echo "usage: peers.sh [--dry-run] FOLDER [LIBRARY...]" >&2
    echo "libraries: $libraries" >&2
    exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
[ $# -ge 1 ] || usage
case $1 in -* | '') usage ;; esac
folder=$1
shift
for name; do
    case " $libraries " in
    *" $name "*) ;;
    *) echo "peers: unknown library: $name" >&2; usage ;;
    esac
done
asked=${*:-$libraries}
python=$folder/bin/python
deps=$(dirname "$0")/../../tests/tools/deps.sh

size_of() { sizes | awk -v name="$1" -v field="$2" '$1 == name {print $field}'; }

gigabytes() { awk -v mb="$1" 'BEGIN {printf "%.1f GB", mb / 1000}'; }

# ---- what is there -------------------------------------------------------------------------

debian_version() {
    dpkg-query -W -f='${db:Status-Status} ${Version}\n' "$1" 2>/dev/null |
        sed -n 's/^installed //p'
}

# Loads a library or imports a module of the virtual environment: that its files are there is not
# enough. Prints its version.
python_version() {
    [ -x "$python" ] || return 0
    "$python" - "$1" 2>/dev/null <<'END'
import ctypes, glob, importlib, importlib.metadata, os, sys

files = {"mkl": ("mkl", "libmkl_rt.so*"), "onednn": ("onednn-cpu-gomp", "libdnnl.so.3")}
name = sys.argv[1]
if name in files:
    package, pattern = files[name]
    ctypes.CDLL(glob.glob(os.path.join(sys.prefix, "lib", pattern))[0])
    print(importlib.metadata.version(package))
else:
    import numpy

    if name == "onnxruntime":
        import onnx
    print(importlib.import_module(name).__version__)
END
}

version_of() {
    case $1 in
    openblas) debian_version libopenblas0-pthread ;;
    blis) debian_version libblis4-pthread ;;
    onednn-debian) debian_version libdnnl2 ;;
    *) python_version "$1" ;;
    esac
}

# Names that make no sense here, with the reason.
not_for_here() {
    case $1:$(uname -m) in
    mkl:x86_64 | onednn:x86_64) return 1 ;;
    mkl:* | onednn:*) echo "made for x86-64 only" ;;
    *) return 1 ;;
    esac
}

# ---- installation --------------------------------------------------------------------------

log= # of the command that runs
temporary=
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The last line that a failed command wrote about itself.
reason() {
    grep -E 'ERROR|[Ee]rror:' "$log" | tail -n 1 | cut -c 1-200 | grep . || tail -n 1 "$log"
}

make_environment() {
    [ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1 && return 0
    # Debian's own Python lacks parts that others have.
    case $(command -v python3 || echo none) in
    none | /usr/bin/python3 | /bin/python3) sh "$deps" venv || return 1 ;;
    esac
    echo "peers: making the virtual environment $folder" >&2
    python3 -m venv "$folder" >"$log" 2>&1
}

# Temporary files beside the result: /tmp is often small. No cache: it would double what is needed.
pip() {
    TMPDIR=$temporary "$python" -m pip install --no-cache-dir --progress-bar off "$@" >"$log" 2>&1
}

# What torch requires, without what a CPU never needs: it loads without these.
torch_requirements() {
    "$python" - <<'END'
import importlib.metadata
from pip._vendor.packaging.requirements import Requirement

UNUSED = {"triton", "cuda-bindings", "nvidia-cusolver", "nvidia-nvtx"}
UNUSED_EXTRAS = {"cusolver", "nvtx"}
for line in importlib.metadata.requires("torch"):
    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        continue
    name = requirement.name.lower().replace("_", "-")
    if name in UNUSED or any(name.startswith(unused + "-cu") for unused in UNUSED):
        continue
    requirement.marker = None
    requirement.extras -= UNUSED_EXTRAS
    print(requirement)
END
}

install_torch() {
    pip --no-deps torch && torch_requirements >"$temporary/torch.txt" &&
        pip numpy -r "$temporary/torch.txt" || return 1
    [ -n "$(python_version torch)" ] && return 0
    echo "peers: torch does not load with a part of what it requires: installing all of it" >&2
    pip torch numpy
}

# Dependencies that only GPUs need are left out: mkl's and oneDNN's are of some hundred megabytes.
# oneDNN: the newest build on the index that runs on a CPU with OpenMP; those named plain onednn
# need a SYCL runtime for the CPU too.
install() {
    case $1 in
    openblas | blis) sh "$deps" "$1" ;;
    onednn-debian) sh "$deps" onednn ;;
    mkl) pip --no-deps mkl intel-openmp ;;
    onednn) pip --no-deps onednn-cpu-gomp ;;
    torch) install_torch ;;
    onnxruntime) pip onnxruntime onnx numpy ;;
    esac
}

# ---- what is to be done --------------------------------------------------------------------

missing='' status=1 download=0 disk=0 of_python=''
for name in $asked; do
    if why=$(not_for_here "$name"); then
        echo "peers: $name: $why"
    elif [ -z "$(version_of "$name")" ]; then
        missing="$missing $name"
        download=$((download + $(size_of "$name" 2)))
        disk=$((disk + $(size_of "$name" 3)))
        case $name in openblas | blis | onednn-debian) ;; *) of_python=1 ;; esac
    fi
done

if [ -n "$missing" ]; then
    parent=$folder
    while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
    free=$(df -Pm "$parent" | awk 'NR == 2 {print $4}')
    # pip holds the files of one library while it unpacks them.
    largest=0
    for name in $missing; do
        size=$(size_of "$name" 2)
        [ "$size" -le "$largest" ] || largest=$size
    done
    need=$((disk + largest + spare))
    echo "peers: to be installed, from Debian (apt) and the Python package index (into $folder):"
    for name in $missing; do
        printf '  %-14s %5d MB to download, %5d MB on disk\n' "$name" "$(size_of "$name" 2)" \
            "$(size_of "$name" 3)"
    done
    echo "peers: in all $(gigabytes "$download") to download and $(gigabytes "$disk") on disk;" \
        "$(gigabytes "$need") needed while installing, $(gigabytes "$free") free"
    if [ "$free" -lt "$need" ]; then
        echo "peers: the disk is too small; without PyTorch:" >&2
        echo "    sh bench/tools/peers.sh $folder openblas blis mkl onednn onnxruntime" >&2
        exit 1
    fi
fi
[ -z "$dry_run" ] || exit 0

if [ -n "$missing" ]; then
    mkdir -p "$folder" && temporary=$(mktemp -d "$folder/tmp.XXXXXX") || exit 1
    log=$temporary/log
    : >"$log"
    if [ -n "$of_python" ] && ! make_environment; then
        why=$(reason)
        echo "peers: no virtual environment${why:+: $why}" >&2
    fi
    for name in $missing; do
        echo "peers: installing $name" >&2
        : >"$log"
        if ! install "$name" || [ -z "$(version_of "$name")" ]; then
            why=$(reason)
            echo "peers: $name could not be installed${why:+: $why}" >&2
            [ "$name" != torch ] ||
                echo "    Debian's will do: apt-get install python3-torch python3-numpy" >&2
        fi
    done
fi

echo "peers: present now"
for name in $asked; do
    not_for_here "$name" >/dev/null && continue
    version=$(version_of "$name")
    printf '  %-14s %s\n' "$name" "${version:-missing}"
    [ -z "$version" ] || status=0
done
exit $status
