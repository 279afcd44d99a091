#!/usr/bin/env python3
"""python-peers.py [NAME...] - the workers in bench/peers/ answer as docs/benchmarks.md says.

Plays the parent: lays out an arena, asks for every operation in several shapes, hot and with
copies of the operands, and holds the results against numpy in double. Then wrong requests,
injected faults and slowness. Names: torch, torch-compiled, onnxruntime (all). Last line:
N passed, N failed, N skipped.
"""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "peers")
CONTENDERS = {
    "torch": ("torch_worker.py", "torch", []),
    "torch-compiled": ("torch_worker.py", "torch", ["--compile"]),
    "onnxruntime": ("onnxruntime_worker.py", "onnxruntime", []),
}
TABLE = 1000  # rows of an embedding
U = 2.0**-24
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(ok, what, found=""):
    counts["passed" if ok else "failed"] += 1
    if not ok:
        print(f"FAIL {what}: {found}")


# ---- references ---------------------------------------------------------------------------------
# Each: (inputs as (role, shape) or (role, shape, numpy type), shape of the result, function from
# the inputs in double to the result and the magnitude that its error is a multiple of).


def product(shape_a, shape_b, shape_out, subscripts, k, scale=None):
    def reference(a, b, *rest):
        if rest:
            a = a * (0.75 * rest[0])
        return (np.einsum(subscripts, a, b),
                4 * (k + 8) * U * np.einsum(subscripts, abs(a), abs(b)))

    inputs = [("activation", shape_a), ("weight", shape_b)]
    return inputs + ([("activation", scale)] if scale else []), shape_out, reference


def attention(l, keys, n, h, d, causal):
    def reference(q, k, v):
        scores = np.einsum("qnhd,knhd->nhqk", q, k) / math.sqrt(d)
        if causal:
            scores = np.where(np.triu(np.ones((l, keys)), 1), -np.inf, scores)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        out = np.einsum("nhqk,knhd->qnhd", p, v)
        return out, 1e-5 * np.einsum("nhqk,knhd->qnhd", p, abs(v)) + 1e-6

    inputs = [("activation", (length, n, h, d)) for length in (l, keys, keys)]
    return inputs, (l, n, h, d), reference


def layer(rows, m, n, one):
    """Row i has expert rows - 1 - i, or all have the only one."""
    r = min(m, n)

    def reference(x, u, v, s):
        s = np.broadcast_to(s, (rows, r))[::-1]
        value = ((x @ v) * s) @ u.T
        return value, 1e-6 * (n + r) * (((abs(x) @ abs(v)) * abs(s)) @ abs(u).T)

    inputs = [("activation", (rows, n)), ("weight", (m, r)), ("weight", (n, r)),
              ("activation", (1 if one else rows, r))]
    return inputs, (rows, m), reference


def relative(function, share=2e-6, extra=1e-6):
    def reference(*inputs):
        value = function(*inputs)
        return value, share * abs(value) + extra

    return reference


def norm(x, weight, bias, eps=1e-5):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm(x, weight, eps=1e-5):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def normal(x):
    """The distribution function of the normal distribution."""
    return np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2)(x)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def describe(op, dims):
    rows = ("activation", tuple(dims))
    cols = ("activation", tuple(dims[-1:]))
    if op in ("sgemm", "sgemm_nt", "sgemm_tn", "sgemm_tt", "sgemm_fast"):
        m, n, k = dims
        a, b = "km" if op in ("sgemm_tn", "sgemm_tt") else "mk", "nk" if op[-1:] == "t" else "kn"
        size = {"m": m, "n": n, "k": k}
        shapes = [tuple(size[c] for c in s) for s in (a, b)]
        return product(*shapes, (m, n), f"{a},{b}->mn", k)
    if op == "sgemm_packed":
        m, n, k = dims
        return product((m, k), (n, k), (m, n), "mk,nk->mn", k)
    if op == "sgemm_batched":
        b, m, n, k = dims
        return product((m, b, k), (n, b, k), (b, m, n), "mbk,nbk->bmn", k)
    if op in ("svd_rebuild", "svd_rebuild_dense", "expert_rebuild"):
        m, n, r = dims
        return product((m, r), (n, r), (m, n), "mr,nr->mn", r, (r,))
    if op.startswith("expert"):
        return layer(*dims, op == "expert")
    if op.startswith("attention"):
        sizes = dims if op == "attention_decode" else (dims[0], *dims)
        return attention(*sizes, op == "attention_causal")
    if op == "embedding":
        ids = ("activation", (dims[0],), "i8")
        table = ("weight", (TABLE, dims[1]))
        return [table, ids], tuple(dims), lambda t, i: (t[i.astype(int)], np.zeros(tuple(dims)))
    shape = (1,) if op == "mean" else tuple(dims)
    return {
        "softmax": ([rows], shape, relative(softmax, 2e-5, 1e-9)),
        "layer_norm": ([rows, cols, cols], shape, relative(norm, 1e-4, 1e-5)),
        "layer_norm_residual": (
            [rows, rows, cols, cols], shape,
            relative(lambda x, r, w, b: norm(x + r, w, b), 1e-4, 1e-5)),
        "rms_norm": ([rows, cols], shape, relative(rms_norm)),
        "rms_norm_residual": (
            [rows, rows, cols], shape, relative(lambda x, r, w: rms_norm(x + r, w))),
        "mean": ([rows], shape, lambda x: (x.mean().reshape(1), 1e-6)),
        "scale_columns": ([rows, cols], shape, relative(lambda x, s: x * s)),
        "exp": ([rows], shape, relative(np.exp)),
        "gelu": ([rows], shape, relative(lambda x: x * normal(x))),
        "gelu_tanh": ([rows], shape, relative(
            lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))),
        "silu": ([rows], shape, relative(lambda x: x / (1 + np.exp(-x)))),
        "relu": ([rows], shape, relative(lambda x: np.maximum(x, 0), 0, 0)),
        "add": ([rows, rows], shape, relative(lambda x, y: x + y)),
        "dropout": ([rows], shape, relative(lambda x: x)),
    }[op]


SHAPES = {
    "sgemm": ["1x1x1", "7x5x3", "64x96x32", "33x1x129"],
    "sgemm_nt": ["7x5x3", "64x96x32"],
    "sgemm_tn": ["7x5x3", "64x96x32"],
    "sgemm_tt": ["7x5x3", "64x96x32"],
    "sgemm_fast": ["7x5x3", "64x96x32"],
    "sgemm_packed": ["1x96x33", "7x5x3", "64x96x32", "2x1x1"],
    "sgemm_batched": ["1x1x1x1", "3x7x5x11", "4x16x32x8"],
    "svd_rebuild": ["7x5x3", "64x96x32", "1x1x1"],
    "svd_rebuild_dense": ["7x5x3", "64x96x32", "1x1x1"],
    "expert": ["1x1x1", "7x5x3", "16x32x24"],
    "expert_rows": ["1x1x1", "7x5x3", "16x32x24"],
    "expert_turns": ["1x1x1", "7x5x3", "16x32x24"],
    "expert_rebuild": ["7x5x3", "64x96x32", "1x1x1"],
    "attention": ["1x1x1x1", "7x3x2x5", "16x4x8x32"],
    "attention_causal": ["1x1x1x1", "7x3x2x5", "16x4x8x32"],
    "attention_decode": ["1x1x1x1x1", "3x7x3x2x5", "1x16x4x8x32"],
    "softmax": ["1x1", "7x13", "64x96"],
    "layer_norm": ["1x3", "7x13", "64x96"],
    "layer_norm_residual": ["1x3", "7x13", "64x96"],
    "rms_norm": ["1x3", "7x13", "64x96"],
    "rms_norm_residual": ["1x3", "7x13", "64x96"],
    "mean": ["1x1", "7x13", "64x96"],
    "embedding": ["1x1", "7x13", "64x96"],
    "scale_columns": ["1x3", "7x13", "64x96"],
    "exp": ["1", "77", "6400"],
    "relu": ["1", "77", "6400"],
    "gelu": ["1", "77", "6400"],
    "gelu_tanh": ["1", "77", "6400"],
    "silu": ["1", "77", "6400"],
    "add": ["1", "77", "6400"],
}


# ---- the notebook's model -----------------------------------------------------------------------

CONFIG = {"model_type": "transformer2", "vocab_size": 50, "embed_size": 32, "num_layers": 3,
          "heads": 4, "dropout": 0.1, "forward_expansion": 2, "num_experts": 3, "norm_eps": 1e-5}


def write_model(folder, causal):
    """The layers choose the experts 1, 2 (by a negative mean) and 0, by their output biases."""
    random = np.random.default_rng(7)
    config = dict(CONFIG, mask="causal" if causal else "none")
    width, wide = config["embed_size"], config["embed_size"] * config["forward_expansion"]
    tensors = {"embedding.weight": (config["vocab_size"], width),
               "fc_out.weight": (config["vocab_size"], width),
               "fc_out.bias": (config["vocab_size"],)}
    for i in range(config["num_layers"]):
        shapes = {"attention.in_proj_weight": (3 * width, width),
                  "attention.in_proj_bias": (3 * width,),
                  "attention.out_proj.weight": (width, width), "attention.out_proj.bias": (width,),
                  "norm1.weight": (width,), "norm1.bias": (width,), "norm2.weight": (width,),
                  "norm2.bias": (width,), "feed_forward.0.weight": (wide, width),
                  "feed_forward.0.bias": (wide,), "feed_forward.2.weight": (width, wide),
                  "feed_forward.2.bias": (width,)}
        shapes.update({f"experts.{e}.scale_vector": (width,) for e in range(3)})
        tensors.update({f"layers.{i}.{name}": shape for name, shape in shapes.items()})
    values, header, offset = {}, {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        x = random.uniform(-0.3, 0.3, shape)
        if "norm" in name and name.endswith("weight") or "scale_vector" in name:
            x += 1.0
        if name.endswith("out_proj.bias"):
            x += (0.5, -0.5, 0.0)[int(name.split(".")[1])] - x.mean()
        values[name] = x.astype("<f4")
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [offset, offset + values[name].nbytes]}
        offset += values[name].nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in values.values():
            file.write(x.tobytes())
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    return config, {name: x.astype(float) for name, x in values.items()}


def model_forward(config, t, ids):
    """Logits, and the expert of each layer."""
    l, n = ids.shape
    width, h = config["embed_size"], config["heads"]
    x, chosen = t["embedding.weight"][ids], []
    for i in range(config["num_layers"]):
        p = {name.split(".", 2)[2]: v for name, v in t.items() if name.startswith(f"layers.{i}.")}
        qkv = x @ p["attention.in_proj_weight"].T + p["attention.in_proj_bias"]
        q, k, v = (part.reshape(l, n, h, width // h) for part in np.split(qkv, 3, -1))
        causal = config["mask"] == "causal"
        y = attention(l, l, n, h, width // h, causal)[2](q, k, v)[0].reshape(l, n, width)
        y = y @ p["attention.out_proj.weight"].T + p["attention.out_proj.bias"]
        chosen.append(int(y.mean() * config["num_experts"]) % config["num_experts"])
        x = norm(y * p[f"experts.{chosen[-1]}.scale_vector"] + x, p["norm1.weight"],
                 p["norm1.bias"])
        f = np.maximum(x @ p["feed_forward.0.weight"].T + p["feed_forward.0.bias"], 0)
        f = f @ p["feed_forward.2.weight"].T + p["feed_forward.2.bias"]
        x = norm(f + x, p["norm2.weight"], p["norm2.bias"])
    return x @ t["fc_out.weight"].T + t["fc_out.bias"], chosen


# ---- arenas and workers -------------------------------------------------------------------------


class Arena:
    """Operands of a case as the parent lays them out; `cold` is the roles that have copies."""

    def __init__(self, op, shape, copies=1, cold=(), model=None):
        self.op, self.copies = op, copies
        dims = [int(size) for size in shape.split("x")]
        if op == "model":
            config, tensors, folder = model
            inputs = [("activation", tuple(dims), "i8")]
            out, self.reference = (*dims, config["vocab_size"]), None
        else:
            folder = None
            inputs, out, self.reference = describe(op, dims)
        random = np.random.default_rng(len(op) + sum(dims))
        entries, offset, self.values = [], 0, []
        for role, size, *kind in inputs:
            kind = np.dtype(kind[0] if kind else "f4")
            of_copies, count = [], math.prod(size)
            for _ in range(copies if role in cold else 1):
                if kind == np.dtype("i8"):
                    x = random.integers(0, TABLE if op == "embedding" else 50, size)
                else:
                    x = random.uniform(-2, 2, size).astype(kind)
                of_copies.append(x)
            stride = -(-x.nbytes // 4096) * 4096
            names = {"f4": "f32", "i8": "i64"}
            entries.append({"type": names[kind.str[1:]], "role": role, "count": count,
                            "offset": offset, "stride": stride if len(of_copies) > 1 else 0})
            self.values.append((offset, stride, of_copies))
            offset += stride * len(of_copies)
        self.out_shape, self.out_offset = out, offset
        size = math.prod(out) * 4
        self.out_stride = -(-size // 4096) * 4096
        self.bytes = offset + self.out_stride * copies
        self.fd = os.memfd_create("python-peers")
        os.ftruncate(self.fd, self.bytes)
        self.memory = np.memmap(f"/proc/self/fd/{self.fd}", "u1", "r+", shape=(self.bytes,))
        for offset, stride, of_copies in self.values:
            for i, x in enumerate(of_copies):
                start = offset + i * stride
                self.memory[start : start + x.nbytes] = np.frombuffer(x.tobytes(), "u1")
        self.before = self.memory[: self.out_offset].copy()
        self.poison()
        cols = out[-1] if op == "model" or len(dims) == 2 else math.prod(out[1:]) or 1
        self.request = {
            "do": "open", "id": 1, "op": op, "shape": shape, "dims": dims, "isa": None,
            "operands": "cold" if copies > 1 else "hot", "copies": copies, "model_dir": folder,
            "arena": f"/proc/{os.getpid()}/fd/{self.fd}", "bytes": self.bytes, "inputs": entries,
            "out": {"offset": self.out_offset, "stride": self.out_stride if copies > 1 else 0,
                    "rows": math.prod(out) // cols, "cols": cols}}

    def poison(self):
        self.memory[self.out_offset :] = 0xFF

    def out(self, copy):
        start = self.out_offset + copy * self.out_stride
        size = math.prod(self.out_shape) * 4
        return self.memory[start : start + size].view("f4").reshape(self.out_shape)

    def expected(self, copy):
        inputs = [x[copy % len(x)].astype(float) for _, _, x in self.values]
        return self.reference(*inputs)

    def inputs_kept(self):
        return np.array_equal(self.memory[: self.out_offset], self.before)

    def close(self):
        del self.memory
        os.close(self.fd)


class Worker:
    def __init__(self, name, threads=1, **environment):
        script, _, options = CONTENDERS[name]
        self.name = name
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(PEERS, script), "--name", name, "--threads",
             str(threads), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, env=dict(os.environ, **environment))
        self.greeting = json.loads(self.process.stdout.readline() or "{}")

    def ask(self, request):
        """The answer to an object, or to a line as it is; {} where the worker is gone."""
        line = request if isinstance(request, str) else json.dumps(request)
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {}
        return json.loads(self.process.stdout.readline() or "{}")

    def end(self):
        """The exit status after the end of input; -1 where it wrote anything else to stdout."""
        self.process.stdin.close()
        rest = self.process.stdout.read()
        status = self.process.wait(60)
        return -1 if rest else status


def within(got, expected):
    reference, allowed = expected
    excess = np.where(np.isnan(got), np.inf, abs(got - reference) - allowed)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    return bool(excess[worst] <= 0), f"element {worst}: {got[worst]}, expected {reference[worst]}"


# ---- tests --------------------------------------------------------------------------------------


def test_case(worker, arena, what):
    opened = worker.ask(arena.request)
    if not opened.get("ok"):
        check(False, what, opened)
        return
    ran = worker.ask({"do": "run", "id": 1})
    ok, text = within(arena.out(0), arena.expected(0))
    check(ok and ran.get("ok") and 0 < ran.get("seconds", 0) < 60, what, f"{text}, {ran}")

    # Timed calls go round over the copies. Where they write in place, each copy must be right.
    arena.poison()
    timed = worker.ask({"do": "time", "id": 1, "calls": arena.copies, "warm_seconds": 0.0})
    ok = timed.get("ok") and 0 < timed.get("seconds", 0) < 60 and timed.get("cpu", -1) >= 0
    for copy in range(arena.copies):
        got = arena.out(copy)
        if np.isnan(got).all() and worker.name == "torch":
            continue  # a call that returns its result
        right, text = within(got, arena.expected(copy))
        ok = ok and right
    check(ok, f"{what}, timed", f"{timed} {text}")
    check(arena.inputs_kept(), f"{what}, inputs", "were written to")
    check(worker.ask({"do": "close", "id": 1}) == {"ok": True}, f"{what}, close")


def test_operations(name, threads, shapes_of):
    worker = Worker(name, threads)
    check(worker.greeting.get("threads") == threads, f"{name}: greeting", worker.greeting)
    for op in SHAPES:
        for shape in shapes_of(op):
            for copies, cold in ((1, ()), (3, ("weight",)), (3, ("weight", "activation"))):
                arena = Arena(op, shape, copies, cold)
                what = f"{name}/{op}/{shape}/{threads}, {copies} copies of {cold}"
                test_case(worker, arena, what)
                arena.close()
    arena = Arena("dropout", "64")
    answer = worker.ask(arena.request)
    check("unsupported" in answer and not answer["ok"], f"{name}: dropout", answer)
    answer = worker.ask(dict(arena.request, op="nonsense"))
    check("unsupported" in answer, f"{name}: an operation that there is not", answer)
    arena.close()
    status = worker.end()
    check(status == 0, f"{name}: end of input", status)


def test_model(name, threads, masks=(False, True)):
    for causal in masks:
        folder = tempfile.mkdtemp()
        try:
            config, tensors = write_model(folder, causal)
            worker = Worker(name, threads)
            for shape in ("7x3", "1x1"):
                arena = Arena("model", shape, model=(config, tensors, folder))
                ids = arena.values[0][2][0]
                logits, chosen = model_forward(config, tensors, ids)
                arena.expected = lambda _: (logits, 1e-4 * abs(logits).max())
                what = f"{name}/model/{shape}/{threads}, mask {config['mask']}"
                check(chosen == [1, 2, 0], f"{what}: experts of this test", chosen)
                opened = worker.ask(arena.request)
                if not causal and opened.get("unsupported"):
                    print(f"SKIP {what}: {opened['unsupported']}")
                    counts["skipped"] += 1
                    return
                answers = [opened, worker.ask({"do": "run", "id": 1})]
                ok, text = within(arena.out(0), arena.expected(0))
                answers += [worker.ask({"do": "time", "id": 1, "calls": 3, "warm_seconds": 0.01}),
                            worker.ask({"do": "close", "id": 1})]
                check(ok and all(a.get("ok") for a in answers), what, f"{text} {answers}")
                arena.close()
            check(worker.end() == 0, f"{name}: end of input after the model")
        finally:
            shutil.rmtree(folder)


def test_compiled_alone(name):
    worker = Worker(name)
    arena = Arena("sgemm", "4x4x4")
    answer = worker.ask(arena.request)
    check("unsupported" in answer, f"{name}: sgemm", answer)
    arena.close()
    check(worker.end() == 0, f"{name}: end of input")


def test_requests(name):
    """Wrong requests are errors, and the worker lives."""
    worker = Worker(name)
    arena = Arena("sgemm", "7x5x3")
    good = arena.request
    worker.process.send_signal(signal.SIGINT)  # Ctrl-C is the parent's
    bad_inputs = [[dict(good["inputs"][0], **change), good["inputs"][1]] for change in (
        {"type": "f16"}, {"count": 22}, {"count": -1}, {"offset": arena.bytes}, {"offset": 2},
        {"stride": 0.5})]
    wrong = ["", "nonsense", "[]", "{}", '{"do": "sing"}', '{"do": "run"}',
             '{"do": "run", "id": 9}',
             '{"do": "time", "id": 9, "calls": 1}', '{"do": "close", "id": 9}',
             {k: v for k, v in good.items() if k != "dims"}, dict(good, arena="/nonexistent"),
             dict(good, bytes=arena.bytes + 4096), dict(good, dims=[7, 5]),
             dict(good, dims=[7, 5, -3]), dict(good, copies=0), dict(good, copies="2"),
             dict(good, out=dict(good["out"], offset=arena.bytes)),
             dict(good, op="model", dims=[1, 1], model_dir="/nonexistent"),
             *[dict(good, inputs=i) for i in bad_inputs]]
    for request in wrong:
        answer = worker.ask(request)
        check(answer.get("ok") is False and answer.get("error"), f"{name}: {str(request)[:60]}",
              answer)
    check(worker.ask(good) == {"ok": True}, f"{name}: a good request after wrong ones")
    for request in (good, {"do": "time", "id": 1, "calls": 0}, {"do": "time", "id": 1}):
        answer = worker.ask(request)
        check(answer.get("ok") is False and answer.get("error"), f"{name}: {str(request)[:60]}",
              answer)
    worker.ask({"do": "run", "id": 1})
    check(*[within(arena.out(0), arena.expected(0))[0], f"{name}: right after wrong requests"])
    check(worker.end() == 0, f"{name}: end of input with an open case")
    arena.close()


def test_faults(name):
    """Exactly the injected element is wrong, in every operation that is named, and no other."""
    for fault, ops in ((f"{name}:*", list(SHAPES)), (f"{name}:sgemm", ["sgemm", "softmax"]),
                       ("other:*", ["sgemm"])):
        worker = Worker(name, T2BENCH_FAULT=fault)
        for op in ops:
            arena = Arena(op, SHAPES[op][1])
            worker.ask(arena.request)
            ran = worker.ask({"do": "run", "id": 1})
            worker.ask({"do": "close", "id": 1})
            got, (reference, allowed) = arena.out(0).reshape(-1), arena.expected(0)
            reference = reference.reshape(-1)
            wrong = fault in (f"{name}:*", f"{name}:{op}")
            if wrong:
                i = got.size * 2 // 3
                reference[i] += 1 + abs(reference[i])
            ok, text = within(got, (reference, np.reshape(allowed, -1) * 2))
            check(ok and ran.get("ok"), f"{name}: fault {fault} in {op}", f"{text} {ran}")
            arena.close()
        check(worker.end() == 0, f"{name}: end of input, fault {fault}")


def test_slow(name):
    """A kernel slowed by 100 % takes twice as long: minima over turns of two workers, of single
    calls that are short enough to run undisturbed now and then on a busy machine."""
    workers = [Worker(name), Worker(name, T2BENCH_SLOW=f"{name}:exp:100")]
    arena = Arena("exp", "64000")
    best = [math.inf, math.inf]
    for worker in workers:
        worker.ask(arena.request)
    for _ in range(100):
        for i, worker in enumerate(workers):
            timed = worker.ask({"do": "time", "id": 1, "calls": 1, "warm_seconds": 0.0002})
            best[i] = min(best[i], timed["seconds"])
    check(1.6 < best[1] / best[0] < 2.5, f"{name}: slowed by 100 %", best)
    for worker in workers:
        worker.end()
    arena.close()


def main():
    for name in sys.argv[1:] or CONTENDERS:
        if name not in CONTENDERS:
            sys.exit(f"usage: python-peers.py [{' '.join(CONTENDERS)}]")
        worker = Worker(name)
        if not worker.greeting.get("ok"):
            print(f"SKIP {name}: {worker.greeting.get('error', 'no greeting')}")
            counts["skipped"] += 1
            continue
        check(worker.end() == 0, f"{name}: {worker.greeting['version']} starts and ends")
        start = time.monotonic()
        if name == "torch-compiled":
            test_compiled_alone(name)
            test_model(name, 1, masks=(False,))
        else:
            test_operations(name, 1, lambda op: SHAPES[op])
            test_operations(name, 2, lambda op: SHAPES[op][-1:])
            test_model(name, 2)
            test_requests(name)
            test_faults(name)
            test_slow(name)
        print(f"{name}: {worker.greeting['version']}, {time.monotonic() - start:.0f} s")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
