#!/usr/bin/env python3
"""check-schema.py [--mutations] SCHEMA FILE... - holds result files against bench/schema.json.

Beyond the schema: the entries of a row agree with each other, its rounds are numbered without a
gap, and every row that was timed has both aggregates. With --mutations the first file is damaged
in every way the schema speaks of (each required key removed, each value of a wrong type, each
closed object with a key more), and each damage must be noticed. Exits 1 where something is wrong,
3 where Python has no jsonschema.
"""
import copy
import json
import sys

try:
    import jsonschema
except ImportError:
    print("check-schema: no module jsonschema (Debian: python3-jsonschema)", file=sys.stderr)
    sys.exit(3)

SHARED = ("op", "isa", "shape", "set", "operands", "threads", "fingerprint", "family_index")


def row_errors(document):
    """What a schema cannot say."""
    rows = {}
    for entry in document["benchmarks"]:
        rows.setdefault(entry["run_name"], []).append(entry)
    for name, entries in rows.items():
        first = entries[0]
        for entry in entries[1:]:
            for key in SHARED:
                if entry.get(key) != first.get(key):
                    yield f"{name}: {key} is {first.get(key)!r} and {entry.get(key)!r}"
        place = "" if first["operands"] == "hot" else "/" + first["operands"]
        expected = f"{first['op']}/{first['isa']}/{first['shape']}/{first['threads']}{place}"
        if name != expected:
            yield f"{name}: op, isa, shape, threads and operands make {expected}"
        if first.get("error_occurred"):
            if len(entries) != 1:
                yield f"{name}: a failed row has {len(entries)} entries, expected 1"
            continue
        rounds = [e["repetition_index"] for e in entries if e["run_type"] == "iteration"]
        if sorted(rounds) != list(range(len(rounds))) or not rounds:
            yield f"{name}: repetition_index {rounds}, expected 0, 1, .."
        kinds = sorted(e["aggregate_name"] for e in entries if e["run_type"] == "aggregate")
        if kinds != ["median", "min"]:
            yield f"{name}: aggregates {kinds}, expected one median and one min"


def errors(validator, document):
    found = [f"{'/'.join(map(str, e.absolute_path)) or 'top'}: {e.message[:300]}"
             for e in validator.iter_errors(document)]
    return found or list(row_errors(document))


def at(document, path):
    for step in path:
        document = document[step]
    return document


def mutations(document):
    """(description, damaged copy): document is small, so that there are a few hundred."""
    context, entries = document["context"], document["benchmarks"]
    median = next(i for i, e in enumerate(entries) if e.get("aggregate_name") == "median")
    failed = [["benchmarks", i] for i, e in enumerate(entries) if e.get("error_occurred")][:1]
    results = entries[median]["peer_results"]
    closed = [[], ["context", "t2bench"], ["context", "machine"], ["context", "machine", "isa"],
              ["context", "machine", "isa", "list", 0], ["context", "machine", "caches", 0],
              ["context", "build"], ["context", "threads"], ["context", "peaks", 0],
              ["context", "noise"], ["context", "peers", 0], ["context", "not_timed", 0]]
    closed += [["benchmarks", median, "peer_results", name] for name in list(results)[:1]]
    open_ones = [["context"], ["benchmarks", 0], ["benchmarks", median]]
    for path in closed + open_ones:
        keys = list(at(document, path))
        for key in keys:
            for what in ("removed", "of a wrong type"):
                damaged = copy.deepcopy(document)
                holder = at(damaged, path)
                if what == "removed":
                    del holder[key]
                else:
                    holder[key] = [[]]
                yield f"{'/'.join(map(str, path + [key]))} {what}", damaged
        if path in closed:
            damaged = copy.deepcopy(document)
            at(damaged, path)["surplus"] = 1
            yield f"{'/'.join(map(str, path)) or 'top'} with a key more", damaged
    values = [(["context", "schema"], 2), (["context", "host_name"], None),
              (["benchmarks", 0, "real_time"], 0), (["benchmarks", 0, "fingerprint"], "12"),
              (["benchmarks", 0, "fingerprint"], "0123456789ABCDEF"),
              (["benchmarks", 0, "operands"], "warm"), (["benchmarks", 0, "time_unit"], "s"),
              (["benchmarks", 0, "isa"], "scalar2"), (["benchmarks", 0, "repetition_index"], 7),
              (["benchmarks", 0, "run_name"], "sgemm"), (["benchmarks", 0, "threads"], 0),
              (["benchmarks", median, "interval"], [1.0]),
              (["benchmarks", median, "rate_unit"], "MB/s"),
              (["context", "environment", "OMP_NUM_THREADS"], 3)]
    values += [(path + ["error_message"], "") for path in failed]
    for path, value in values:
        damaged = copy.deepcopy(document)
        at(damaged, path[:-1])[path[-1]] = value
        yield f"{'/'.join(map(str, path))} = {value!r}", damaged


def main(arguments):
    mutate = arguments[:1] == ["--mutations"]
    if mutate:
        del arguments[0]
    if len(arguments) < 2:
        print("usage: check-schema.py [--mutations] SCHEMA FILE...", file=sys.stderr)
        return 2
    with open(arguments[0], encoding="utf-8") as f:
        schema = json.load(f)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    bad = 0
    for path in arguments[1:]:
        try:
            with open(path, encoding="utf-8") as f:
                document = json.load(f)
        except (OSError, ValueError) as e:
            found = [str(e)]
        else:
            found = errors(validator, document)
        for text in found[:10]:
            print(f"{path}: {text}", file=sys.stderr)
        bad += bool(found)
    if mutate and not bad:
        with open(arguments[1], encoding="utf-8") as f:
            document = json.load(f)
        count = 0
        for what, damaged in mutations(document):
            count += 1
            if not errors(validator, damaged):
                print(f"not noticed: {what}", file=sys.stderr)
                bad += 1
        print(f"{count} mutations, {bad} not noticed")
    return 1 if bad else 0


sys.exit(main(sys.argv[1:]))
