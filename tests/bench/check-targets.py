#!/usr/bin/env python3
"""check-targets.py RESULTS TARGETS MARKDOWN - what `t2bench report --targets` printed is what
follows from the result file and the targets: every verdict is found again here, on its own.
Prints the number of verdicts; exits 1 with the first that differs."""
import json
import math
import re
import sys


def rows_of(results):
    rows = {}
    for entry in results["benchmarks"]:
        if entry.get("aggregate_name") == "median":
            rows[entry["run_name"]] = entry
    return rows


def targets_of(path):
    for line in open(path, encoding="ascii"):
        words = line.partition("#")[0].split()
        if words:
            yield words[0].split(","), words[1], [w.split("=") for w in words[2:]]


def percent(text):
    return float(text[:-1]) / 100


def verdicts(results, rows, ops, shape, keys, isa, threads):
    """(kind, met) of each target of a case that was timed."""
    fma = {(p["isa"], p["threads"]): p["value"] for p in results["context"]["peaks"]
           if p["name"] == "fma"}
    wanted = dict(keys)
    for op in ops:
        row = rows.get(f"{op}/{isa}/{shape}/{threads}")
        one = rows.get(f"{op}/{isa}/{shape}/1")
        if row is None or wanted.get("isa", isa) != isa:
            continue
        for key, value in keys:
            name, _, of = key.partition(".")
            peer = row["peer_results"].get(of or row["best_peer"])
            if name == "x" and peer:
                yield op, key, peer["ratio"] >= float(value)
            elif name == "share" and key == f"share.{isa}" or (
                    key == "share" and f"share.{isa}" not in wanted):
                yield op, "share", row["limit_share"] >= percent(value)
            elif name == "ns":
                ns = row["real_time"] / math.prod(int(x) for x in shape.split("x"))
                yield op, key, ns <= float(value) * 102.4 / fma[isa, threads]
            elif name == "own":
                other = rows.get(f"{of}/{isa}/{shape}/{threads}")
                if other:
                    yield op, key, row["real_time"] / other["real_time"] <= float(value)
            elif name == "gain" and threads > 1:
                gain = one["real_time"] / row["real_time"]
                yield op, key, gain >= percent(value) * fma[isa, threads] / fma[isa, 1]


def slower(rows, isa, threads):
    for row in rows.values():
        one = rows.get(f"{row['op']}/{isa}/{row['shape']}/1")
        if row["isa"] == isa and row["threads"] == threads and row["operands"] == "hot" and one:
            if row["interval"][0] > one["interval"][1] and row["real_time"] > one["real_time"]:
                return True
    return False


def main():
    results = json.load(open(sys.argv[1], encoding="utf-8"))
    rows, targets = rows_of(results), list(targets_of(sys.argv[2]))
    text = open(sys.argv[3], encoding="utf-8").read()
    tables = re.findall(r"\n\*\*(\w+), (\d) threads?\*\*: (\d+) of (\d+) targets met.*?\n\n"
                        r"(\|.*?\|)\n(?!\|)", text, re.S)
    count = 0
    for isa, threads, met, of, table in tables:
        threads, expected = int(threads), []
        for ops, shape, keys in targets:
            if not shape.startswith("@"):
                # All targets of an operation stand together, in a fixed order.
                found = list(verdicts(results, rows, ops, shape, keys, isa, threads))
                order = ["x", "share", "ns", "own", "gain"]
                found.sort(key=lambda v: (ops.index(v[0]), order.index(v[1].split(".")[0])))
                expected += [(op, shape, ok) for op, _, ok in found]
        if threads > 1:
            expected.append(("all", None, not slower(rows, isa, threads)))
        shown = []
        for line in table.splitlines()[2:]:
            cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) != 8:
                sys.exit(f"{len(cells)} cells: {line}")
            op, shape = cells[1].replace("\\", "").split(" ")[:2]
            if cells[6] == "yes" and cells[7]:
                sys.exit(f"a cause for what was met: {line}")
            if cells[6] != "-":
                shown.append((op, None if op == "all" else shape, cells[6] == "yes"))
        for a, b in zip(expected, shown):
            if a != b:
                sys.exit(f"{isa}, {threads}: expected {a}, found {b}")
        if len(expected) != len(shown):
            sys.exit(f"{isa}, {threads}: {len(expected)} targets, {len(shown)} shown")
        if [int(met), int(of)] != [sum(ok for *_, ok in expected), len(expected)]:
            sys.exit(f"{isa}, {threads}: counted {met} of {of}")
        count += len(expected)
    if not tables:
        sys.exit("no table")
    print(count)


main()
