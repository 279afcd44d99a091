#!/bin/sh
# python-peers.sh [NAME...] - test the benchmark's workers in Python (python-peers.py)
#
# In the virtual environment that `make peers` fills, $T2BENCH_PEERS or build/peers; where that is
# not there, with the system's Python if it has numpy. A library that is missing is a visible skip.
# Last line: N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/../.." || exit 1

for python in "${T2BENCH_PEERS:-build/peers}/bin/python" /usr/bin/python3; do
    if [ -x "$python" ] && "$python" -c 'import numpy' 2>/dev/null; then
        exec "$python" tests/bench/python-peers.py "$@"
    fi
done
echo "SKIP python-peers: no numpy in ${T2BENCH_PEERS:-build/peers}; make peers installs it"
echo "0 passed, 0 failed, 1 skipped"
