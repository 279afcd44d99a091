#!/usr/bin/env python3
"""Writes a synthetic result file of t2bench: every key a real one has, times that look like a
machine's, noise like a shared machine's. The same arguments give the same bytes.

A machine's true speeds depend on --machine alone; --seed gives the noise, so two seeds are two
runs of one binary on one machine. Used by the tests of `compare` and `report`.
"""
import argparse
import hashlib
import json
import math
import random
import statistics
import sys

# Per instruction set: GFLOP/s of one core, and how large a share of a bandwidth one core draws.
FMA = {"scalar": (0.85, 0.02), "avx2": (118.0, 0.9), "avx512": (164.0, 1.0), "amx": (164.0, 1.0),
       "neon": (44.0, 0.9), "sve2": (88.0, 1.0)}
BANDWIDTH = {"L1": 210.0, "L2": 95.0, "L3": 38.0, "memory": 14.5}  # GB/s of one core
CACHES = [("Data", 1, 32 << 10, 1), ("Instruction", 1, 32 << 10, 1), ("Unified", 2, 1 << 20, 1),
          ("Unified", 3, 32 << 20, 8)]
VENDORS = {"amd": ("AuthenticAMD", "AMD EPYC 9R14"), "intel": ("GenuineIntel", "Intel Xeon 8488C"),
           "arm": ("ARM", "Neoverse-V2")}
LADDERS = {"avx2": ["scalar", "avx2"], "avx512": ["scalar", "avx2", "avx512"],
           "amx": ["scalar", "avx2", "avx512", "amx"], "scalar": ["scalar"],
           "neon": ["scalar", "neon"], "sve2": ["scalar", "neon", "sve2"]}
# Operation, shape, set, operands.
CASES = [
    ("sgemm", "320x768x256", "seed", "hot"), ("sgemm", "320x256x256", "seed", "hot"),
    ("sgemm", "320x1024x256", "seed", "hot"), ("sgemm", "320x256x1024", "seed", "hot"),
    ("sgemm_packed", "320x768x256", "seed", "hot"), ("sgemm_packed", "1x768x256", "seed", "hot"),
    ("sgemm_nt", "10x10x32", "seed", "hot"), ("sgemm_batched", "8x40x40x32", "seed", "hot"),
    ("svd_rebuild", "768x256x256", "seed", "hot"), ("attention", "32x10x8x32", "seed", "hot"),
    ("attention_causal", "512x1x16x64", "llm", "hot"), ("softmax", "2560x32", "seed", "hot"),
    ("softmax", "4096x4096", "onednn", "hot"), ("layer_norm", "320x256", "seed", "hot"),
    ("layer_norm", "512x4096", "llm", "hot"), ("layer_norm_residual", "320x256", "seed", "hot"),
    ("mean", "320x256", "seed", "hot"), ("embedding", "320x256", "seed", "hot"),
    ("scale_columns", "768x256", "seed", "hot"), ("exp", "1048576", "seed", "hot"),
    ("relu", "327680", "seed", "hot"), ("add", "81920", "seed", "hot"),
    ("dropout", "81920", "seed", "hot"), ("model", "10x32", "seed", "hot"),
    ("sgemm", "64x64x64", "square", "hot"), ("sgemm", "128x128x128", "square", "hot"),
    ("sgemm", "256x256x256", "square", "hot"), ("sgemm", "512x512x512", "square", "hot"),
    ("sgemm", "1024x1024x1024", "square", "hot"), ("sgemm", "63x65x67", "tails", "hot"),
    ("sgemm_packed", "1x4096x4096", "llm", "hot"),
    ("sgemm_packed", "1x4096x4096", "llm", "cold-weights"),
    ("sgemm_packed", "8x4096x4096", "llm", "hot"),
    ("sgemm_packed", "128x4096x4096", "llm", "hot"),
    ("layer_norm", "320x256", "seed", "cold-all"),
]
_PRODUCT, _TORCH = ("sgemm",), ("sgemm", "softmax", "layer_norm", "exp", "attention", "model")
# Version, speed beside ours, operations.
PEERS = {
    "openblas": ("OpenBLAS 0.3.21", 0.97, _PRODUCT), "mkl": ("MKL 2025.2", 1.04, _PRODUCT),
    "mkl-cnr": ("MKL 2025.2, COMPATIBLE", 0.4, _PRODUCT), "blis": ("BLIS 0.9.0", 0.92, _PRODUCT),
    "onednn": ("oneDNN 3.9.1", 0.9, ("sgemm", "softmax", "layer_norm")),
    "torch": ("torch 2.9.0", 0.7, _TORCH),
}


def unit(*key):
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2.0**56


def work(op, shape):
    """Flops (0 where bytes count) and bytes of one call."""
    d = [int(x) for x in shape.split("x")]
    if op == "model":
        tokens = d[0] * d[1]
        return 2.0 * tokens * 3.4e6, 4.0 * (3.4e6 + 4096.0 * tokens)
    if op.startswith("attention"):
        queries, length, batch, heads, width = d if len(d) == 5 else (d[0], *d)
        size = 8.0 * (queries + length) * batch * heads * width
        return 4.0 * batch * heads * queries * length * width, size
    if op == "sgemm_batched":
        b, m, n, k = d
        return 2.0 * b * m * n * k, 4.0 * b * (m * k + n * k + m * n)
    if op.startswith(("sgemm", "svd_rebuild")):
        m, n, k = d
        return 2.0 * m * n * k, 4.0 * (m * k + n * k + m * n)
    elements = math.prod(d)
    arrays = 3.0 if op in ("add", "layer_norm_residual") else 1.0 if op == "mean" else 2.0
    return 0.0, 4.0 * arrays * elements


def level_of(size, operands):
    if operands != "hot":
        return "memory"
    for level, limit in (("L1", 24 << 10), ("L2", 800 << 10), ("L3", 24 << 20)):
        if size <= limit:
            return level
    return "memory"


def machine_factor(machine):
    return 0.85 + 0.5 * unit("speed", "-".join(machine.split("-")[:4]))


def limit_of(args, op, shape, operands, isa, threads):
    """Seconds, name of the limit and intensity, as the roofline model gives them."""
    flops, size = work(op, shape)
    level = level_of(size, operands)
    factor = machine_factor(args.machine)
    spread = threads if level != "memory" else 1.0 + 0.4 * (threads - 1)
    by_bytes = size / (1e9 * factor * BANDWIDTH[level] * spread)
    by_flops = flops / (1e9 * factor * FMA[isa][0] * threads)
    name = f"fma {isa}" if by_flops > by_bytes else f"{'read' if flops else 'copy'} {level}"
    return max(by_flops, by_bytes), name, flops / size if flops else 0.0


def true_seconds(args, op, shape, operands, isa, threads):
    limit, _, _ = limit_of(args, op, shape, operands, isa, threads)
    flops, size = work(op, shape)
    overhead = (40e-9 if threads == 1 else 3e-6) * (1.0 + unit("overhead", op))
    share = 0.55 + 0.4 * unit("share", op, shape, isa)
    if flops == 0.0:
        share *= FMA[isa][1]
    seconds = limit / share + overhead
    for pattern, factor in args.scale:
        if pattern in (op, f"{op}/{isa}", f"{op}/{isa}/{shape}"):
            seconds *= factor
    return seconds


def noisy_times(rng, seconds, args, count):
    """ns of each round: mostly a narrow bulk, now and then a round that something disturbed."""
    shift = 1.0 + rng.gauss(0.0, args.shift)
    times = []
    for _ in range(count):
        noise = abs(rng.gauss(0.0, 1.0)) * args.noise
        if rng.random() < 0.06:
            noise += args.noise * rng.expovariate(1.0) * 8.0
        times.append(1e9 * seconds * shift * (1.0 + noise))
    return times


def interval(rng, values):
    """95 % bootstrap interval of the median."""
    n = len(values)
    medians = sorted(statistics.median(rng.choices(values, k=n)) for _ in range(80))
    return [medians[2], medians[77]]


def peer_samples(rng, args, op, shape, times):
    """{name: (times or None, error)}: a peer is as fast as its factor says, more or less."""
    found = {}
    for name in args.peers:
        _, factor, ops = PEERS[name]
        if not any(op == o or op.startswith(o + "_") for o in ops) or op == "sgemm_batched":
            continue
        if args.peer_error == f"{name}:{op}":
            found[name] = (None, "result differs from the reference at row 3, column 5")
            continue
        speed = factor * (0.7 + 0.6 * unit("peer", name, op, shape))
        base = statistics.median(times) / speed
        found[name] = ([base * (1.0 + args.noise * abs(rng.gauss(0.0, 1.0))) for _ in times], None)
    return found


def peer_block(rng, samples, times):
    results = {}
    for name, (peer, error) in samples.items():
        if peer is None:
            results[name] = {"median": None, "min": None, "ratio": None, "ratio_interval": None,
                             "noisy": False, "error": error}
            continue
        ratios = [p / t for p, t in zip(peer, times)]
        results[name] = {"median": statistics.median(peer), "min": min(peer),
                         "ratio": statistics.median(ratios),
                         "ratio_interval": interval(rng, ratios), "noisy": False, "error": None}
    return results


def failed_row(common, message):
    return [dict(common, name=common["run_name"], run_type="iteration", repetitions=1,
                 repetition_index=0, error_occurred=True, error_message=message, iterations=0,
                 real_time=0.0, cpu_time=0.0, time_unit="ns", fingerprint=None, verified=None,
                 limit=None, limit_share=None, best_peer=None, peer_ratio=None, peers={})]


def row(args, rng, index, case, isa, threads):
    op, shape, shape_set, operands = case
    name = f"{op}/{isa}/{shape}/{threads}" + ("" if operands == "hot" else f"/{operands}")
    common = {"family_index": index, "per_family_instance_index": 0, "run_name": name,
              "threads": threads, "op": op, "isa": isa, "shape": shape, "set": shape_set,
              "operands": operands}
    if op in args.fail:
        return failed_row(common, "wrong result: row 7, column 11: 1.25, expected 0.25 +- 1e-06")
    seconds = true_seconds(args, op, shape, operands, isa, threads)
    times = noisy_times(rng, seconds, args, args.samples)
    # The bits depend on the operation alone, unless a machine is told to compute others.
    salt = args.machine if op in args.other_bits else ""
    fingerprint = f"{int(unit('bits', op, shape, salt) * 2.0**56):016x}"
    limit, limit_name, intensity = limit_of(args, op, shape, operands, isa, threads)
    peers = peer_samples(rng, args, op, shape, times)
    results = peer_block(rng, peers, times)
    ran = [n for n in results if results[n]["error"] is None]
    best = min(ran, key=lambda n: results[n]["median"]) if ran else None
    median, least = statistics.median(times), min(times)
    mad = statistics.median(abs(t - median) for t in times)
    flops, size = work(op, shape)
    iterations = max(1, int(2e-3 / seconds))
    common.update(fingerprint=fingerprint, verified="all rows" if flops < 5e8 else
                  "64 rows and Freivalds", limit=limit_name, limit_share=1e9 * limit / median,
                  best_peer=best, peer_ratio=results[best]["ratio"] if best else None)
    out = []
    for i, t in enumerate(times):
        out.append(dict(common, name=name, run_type="iteration", repetitions=len(times),
                        repetition_index=i, iterations=iterations, real_time=t,
                        cpu_time=t * threads, time_unit="ns",
                        peers={n: p[i] for n, (p, _) in peers.items() if p}))
    for kind, value in (("median", median), ("min", least)):
        entry = dict(common, name=f"{name}_{kind}", run_type="aggregate", repetitions=len(times),
                     aggregate_name=kind, aggregate_unit="time", iterations=len(times),
                     real_time=value, cpu_time=value * threads, time_unit="ns",
                     peers={n: results[n][kind] for n in ran})
        if kind == "median":
            entry.update(interval=interval(rng, times), mad_share=mad / median,
                         noisy=mad > 0.05 * median, rate=(flops or size) / median,
                         rate_unit="GFLOP/s" if flops else "GB/s", intensity=intensity,
                         peer_results=results)
        out.append(entry)
    return out


def peaks(args):
    factor, out = machine_factor(args.machine), []
    for threads in args.threads:
        for isa in args.isas:
            out.append({"name": "fma", "isa": isa, "level": "", "threads": threads,
                        "value": factor * FMA[isa][0] * threads, "unit": "GFLOP/s"})
            if isa == "amx":
                out.append({"name": "bf16", "isa": isa, "level": "", "threads": threads,
                            "value": factor * 1900.0 * threads, "unit": "GFLOP/s"})
        for name in ("read", "copy"):
            for level, value in BANDWIDTH.items():
                spread = threads if level != "memory" else 1.0 + 0.4 * (threads - 1)
                out.append({"name": name, "isa": "", "level": level, "threads": threads,
                            "value": factor * value * spread, "unit": "GB/s"})
        out.append({"name": "region", "isa": "", "level": "", "threads": threads,
                    "value": 4e-8 if threads == 1 else 1.5e-6, "unit": "seconds"})
    return out


def context(args):
    vendor, family, model, stepping, active = args.machine.split("-")
    vendor_id, name = VENDORS.get(vendor, (vendor, vendor))
    ladder = args.ladder
    return {
        "date": "2026-11-23T12:00:00+00:00", "host_name": "", "executable": "t2bench",
        "num_cpus": 8, "mhz_per_cpu": 2600, "cpu_scaling_enabled": False,
        "caches": [{"type": t, "level": n, "size": b, "num_sharing": s} for t, n, b, s in CACHES],
        "load_avg": [0.5, 0.4, 0.3], "library_build_type": "release", "schema": args.schema,
        "t2bench": {"version": args.version, "complete": not args.incomplete,
                    "arguments": ["run", "--quick"], "seed": 1, "seconds": 41.5},
        "machine": {
            "key": args.machine, "vendor": vendor_id, "family": int(family, 0),
            "model": int(model, 0), "stepping": int(stepping, 0), "name": name, "cpus": 8,
            "features": ["sse2", "fma", "avx2"] + (["avx512f"] if "avx512" in ladder else []),
            "isa": {"active": active,
                    "list": [{"name": i, "usable": True, "active": i == active,
                              "reason": "active" if i == active else f"{active} ranks higher"}
                             for i in ladder]},
            "xcr0": "0x2e7", "amx_permission": "amx" in ladder or None, "microcode": "0xa101148",
            "hypervisor": "kvm", "governor": None, "boost": None, "smt": False, "thp": "madvise",
            "cpuset": "0-7", "cgroup_quota": None, "numa_nodes": 1,
            "caches": [{"level": n, "type": t.lower(), "bytes": b, "shared_by": s}
                       for t, n, b, s in CACHES],
            "page_bytes": 4096, "memory_bytes": 32 << 30, "kernel": "6.1.0", "libc": "glibc 2.36"},
        "build": {"compiler": args.compiler, "flags": "-O2 -g", "git": "0123456789ab"},
        "environment": {}, "threads": {"default": args.default_threads,
                                       "reason": "CPUs of the affinity mask"},
        "peaks": peaks(args),
        "noise": {"steal_percent": 0.4, "ghz_min": 3.55, "ghz_max": 3.7, "drift": 0.042},
        "peers": [{"name": n, "version": PEERS[n][0] if n in args.peers else None,
                   "threads": args.threads[0], "status": "ran" if n in args.peers else "missing",
                   "note": None if n in args.peers else "not installed"} for n in PEERS],
        "not_timed": [{"name": "sgemm/scalar/4096x4096x4096/1", "reason": "out of budget"}],
        "too_slow": 3,
    }


def cases_of(path):
    """Those of a file of shapes, without whole sets."""
    found = {}
    for line in open(path, encoding="ascii"):
        words = line.partition("#")[0].split()
        if words and not words[1].startswith("@"):
            for op in words[0].split(","):
                found[op, words[1], "targets", "hot"] = None
    return list(found)


def benchmarks(args):
    rng = random.Random(args.seed)
    cases = cases_of(args.cases) if args.cases else list(CASES)
    size = 72
    while args.rows and len(cases) * len(args.isas) * len(args.threads) < args.rows:
        cases.append(("sgemm", f"{size}x{size}x{size}", "square", "hot"))
        size += 24
    out, index = [], 0
    for case in cases:
        for isa in args.isas:
            for threads in args.threads:
                if args.rows and index == args.rows:
                    return out
                out += row(args, rng, index, case, isa, threads)
                index += 1
    return out


def names(text):
    return [x for x in text.split(",") if x]


def scale(text):
    pattern, _, factor = text.partition("=")
    return pattern, float(factor)


def parse():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--machine", default="amd-25-17-1-avx512",
                   help="vendor-family-model-stepping-isa")
    p.add_argument("--isas", type=names, help="those with rows; default: all of the machine")
    p.add_argument("--threads", type=lambda t: [int(x) for x in names(t)], default=[1])
    p.add_argument("--default-threads", type=int, default=8)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--noise", type=float, default=0.01, help="within a run")
    p.add_argument("--shift", type=float, default=0.0, help="between runs, standard deviation")
    p.add_argument("--samples", type=int, default=15)
    p.add_argument("--scale", type=scale, action="append", default=[],
                   metavar="OP[/ISA[/SHAPE]]=F",
                   help="times of these rows are multiplied by F; repeatable")
    p.add_argument("--peers", nargs="?", type=names, default=[],
                   const=["openblas", "mkl", "onednn"],
                   help=f"of {','.join(PEERS)}; without a list: three of them")
    p.add_argument("--peer-error", default="", metavar="PEER:OP")
    p.add_argument("--fail", action="append", default=[], metavar="OP", help="a wrong result")
    p.add_argument("--other-bits", action="append", default=[], metavar="OP",
                   help="fingerprints that belong to this machine alone")
    p.add_argument("--incomplete", action="store_true")
    p.add_argument("--cases", help="the shapes of a file in place of the usual ones")
    p.add_argument("--rows", type=int, default=0)
    p.add_argument("--schema", type=int, default=1)
    p.add_argument("--version", default="0.2.0")
    p.add_argument("--compiler", default="gcc 12.2.0")
    p.add_argument("-o", "--out", help="file; default: standard output")
    args = p.parse_args()
    active = args.machine.split("-")
    if len(active) != 5 or active[4] not in LADDERS:
        p.error(f"--machine {args.machine}: expected vendor-family-model-stepping-isa")
    args.ladder = LADDERS[active[4]]
    args.isas = args.isas or args.ladder
    for isa in args.isas:
        if isa not in FMA:
            p.error(f"--isas: '{isa}' is none of {', '.join(FMA)}")
    for peer in args.peers:
        if peer not in PEERS:
            p.error(f"--peers: '{peer}' is none of {', '.join(PEERS)}")
    return args


def main():
    args = parse()
    text = json.dumps({"context": context(args), "benchmarks": benchmarks(args)}, indent=1) + "\n"
    if args.out:
        with open(args.out, "w", encoding="ascii") as f:
            f.write(text)
    else:
        sys.stdout.write(text)


main()
