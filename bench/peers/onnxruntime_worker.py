"""ONNX Runtime as a contender of the benchmark.

Each operation is a graph of standard operators, and of ONNX Runtime's own where the standard has
none, with fixed sizes, all optimisations enabled, its
inputs and its result bound to the arena. Weights that are packed before the timing, and those of
the model, are initialisers, which ONNX Runtime packs when the session is made.
"""
import contextlib
import functools
import math

import worker
from worker import Unsupported

OPSET = 17  # the first with LayerNormalization, the newest operator that is used
IR_VERSION = 8
OWN = "com.microsoft"  # domain of the operators that only ONNX Runtime has


class OnnxRuntime:
    def __init__(self, threads, _):
        global np, onnx, ort
        import numpy as np
        import onnx
        import onnx.helper
        import onnxruntime as ort

        ort.set_default_logger_severity(3)  # errors; warnings are about how graphs are optimised
        self.threads = threads
        self.version = f"ONNX Runtime {ort.__version__}"

    def session(self):
        return contextlib.nullcontext()

    def bind(self, problem, copy):
        build = OPERATIONS.get(problem.op)
        if build is None:
            raise Unsupported(f"no {problem.op} that could be compared")
        # One session serves all copies, unless it holds the weights of one.
        key = problem.place(1, copy) if problem.op == "sgemm_packed" else "session"
        graph, session = problem.once(key, lambda: self.load(build, problem, copy))
        binding = session.io_binding()
        for name, i, dims in graph.inputs:
            x = problem.input(i, copy, *dims)
            binding.bind_input(name, "cpu", 0, x.dtype.type, dims, x.ctypes.data)
        out = problem.out(copy)
        binding.bind_output(graph.result, "cpu", 0, np.float32, graph.shape, out.ctypes.data)
        return functools.partial(session.run_with_iobinding, binding)

    def load(self, build, problem, copy):
        graph = Graph(problem, copy)
        graph.result, graph.shape = build(graph)
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        names, values = list(graph.weights), list(graph.weights.values())
        options.add_external_initializers(names, values)
        return graph, ort.InferenceSession(graph.serialize(), options, ["CPUExecutionProvider"])


class Graph:
    """A graph that is being built; values go by their names."""

    def __init__(self, problem, copy):
        self.problem, self.copy, self.dims = problem, copy, problem.dims
        self.nodes, self.inputs, self.tensors, self.weights = [], [], [], {}

    def input(self, i, *dims):
        self.inputs.append((f"in{i}", i, dims))
        return f"in{i}"

    def constant(self, array):
        """Part of the graph."""
        name = f"constant{len(self.tensors)}"
        self.tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, array):
        """An initialiser beside the graph, which must not grow beyond 2 GiB."""
        name = f"weight{len(self.weights)}"
        tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", "0"), ("length", str(array.nbytes))):
            tensor.external_data.add(key=key, value=value)
        self.tensors.append(tensor)
        self.weights[name] = ort.OrtValue.ortvalue_from_numpy(array)
        return name

    def node(self, operator, *inputs, **attributes):
        name = f"value{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def split(self, x, parts, axis):
        names = [f"{x}_{i}" for i in range(parts)]
        self.nodes.append(onnx.helper.make_node("Split", [x], names, axis=axis))
        return names

    def reshape(self, x, *shape):
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64)))

    def transpose(self, x, *axes):
        return self.node("Transpose", x, perm=axes)

    def serialize(self):
        def value(name, dtype, shape):
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return onnx.helper.make_tensor_value_info(name, kind, shape)

        inputs = [value(name, self.problem.inputs[i][0], dims) for name, i, dims in self.inputs]
        output = value(self.result, np.float32, self.shape)
        graph = onnx.helper.make_graph(self.nodes, "t2bench", inputs, [output], self.tensors)
        opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(OWN, 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return model.SerializeToString()


# ---- products -----------------------------------------------------------------------------------


def sgemm(trans_a, trans_b):
    def build(g):
        m, n, k = g.dims
        a = g.input(0, k, m) if trans_a else g.input(0, m, k)
        b = g.input(1, n, k) if trans_b else g.input(1, k, n)
        if not trans_a and not trans_b:
            return g.node("MatMul", a, b), (m, n)
        return g.node("Gemm", a, b, transA=int(trans_a), transB=int(trans_b)), (m, n)

    return build


def sgemm_packed(g):
    m, n, k = g.dims
    weight = g.weight(g.problem.input(1, g.copy, n, k))
    return g.node("Gemm", g.input(0, m, k), weight, transB=1), (m, n)


def sgemm_batched(g):
    b, m, n, k = g.dims
    left = g.transpose(g.input(0, m, b, k), 1, 0, 2)
    right = g.transpose(g.input(1, n, b, k), 1, 2, 0)
    return g.node("MatMul", left, right), (b, m, n)


def svd_rebuild(g):
    m, n, r = g.dims
    scale = g.node("Mul", g.input(2, r), g.constant(np.float32(0.75)))
    scaled = g.node("Mul", g.input(0, m, r), scale)
    return g.node("Gemm", scaled, g.input(1, n, r), transB=1), (m, n)


def svd_rebuild_dense(g):
    m, n, r = g.dims
    scale = g.node("Mul", g.input(2, r), g.constant(np.float32(0.75)))
    diagonal = g.node("Mul", g.constant(np.eye(r, dtype="f4")), scale)
    scaled = g.node("MatMul", g.input(0, m, r), diagonal)
    return g.node("Gemm", scaled, g.input(1, n, r), transB=1), (m, n)


# ---- layers under singular value experts --------------------------------------------------------


def layer_operands(g, experts):
    rows, m, n = g.dims
    r = min(m, n)
    return g.input(0, rows, n), g.input(1, m, r), g.input(2, n, r), g.input(3, experts, r)


def expert(g):
    """In factored form, which the published code does not have: it rebuilds W, see expert_turns."""
    x, u, v, s = layer_operands(g, 1)
    middle = g.node("Mul", g.node("MatMul", x, v), s)
    return g.node("Gemm", middle, u, transB=1), g.dims[:2]


def expert_rows(g):
    rows = g.dims[0]
    x, u, v, s = layer_operands(g, rows)
    gathered = g.node("Gather", s, g.constant(np.arange(rows - 1, -1, -1)))
    middle = g.node("Mul", g.node("MatMul", x, v), gathered)
    return g.node("Gemm", middle, u, transB=1), g.dims[:2]


def expert_turns(g):
    """As the published code of Transformer^2 has it: W in dense form, expert by expert."""
    rows, m, n = g.dims
    x, u, v, s = layer_operands(g, rows)
    unit = g.constant(np.eye(min(m, n), dtype="f4"))
    results = []
    for i in range(rows):
        scale = g.node("Gather", s, g.constant(np.array([rows - 1 - i])))
        scaled = g.node("MatMul", u, g.node("Mul", unit, scale))
        weight = g.node("Gemm", scaled, v, transB=1)
        row = g.node("Gather", x, g.constant(np.array([i])))
        results.append(g.node("Gemm", row, weight, transB=1))
    return g.node("Concat", *results, axis=0), (rows, m)


# ---- attention ----------------------------------------------------------------------------------


def attend(g, q, k, v, d, blocked):
    """softmax(q k' / sqrt(d)) v; q, k, v (l, n, h, d) as nn.MultiheadAttention lays them out, the
    result too. blocked: (l, l), nonzero where a query must not see a key."""
    scaled = g.node("Mul", q, g.constant(np.float32(1 / math.sqrt(d))))
    scores = g.node("MatMul", g.transpose(scaled, 1, 2, 0, 3), g.transpose(k, 1, 2, 3, 0))
    if blocked is not None:
        scores = g.node("Add", scores, g.constant(np.where(blocked, -np.inf, 0).astype("f4")))
    shares = g.node("Softmax", scores, axis=-1)
    return g.transpose(g.node("MatMul", shares, g.transpose(v, 1, 2, 0, 3)), 2, 0, 1, 3)


def attention(g):
    queries, keys, n, h, d = g.dims if len(g.dims) == 5 else (g.dims[0], *g.dims)
    q, k, v = (g.input(i, l, n, h, d) for i, l in enumerate((queries, keys, keys)))
    causal = g.problem.op == "attention_causal"
    blocked = np.triu(np.ones((queries, keys)), 1) if causal else None
    return attend(g, q, k, v, d, blocked), (queries, n, h, d)


# ---- rows and elements --------------------------------------------------------------------------


def by_rows(operator, **attributes):
    """Of all inputs: (rows, cols), or (cols) where that is what an input has."""

    def build(g):
        rows, cols = g.problem.rows, g.problem.cols
        dims = [(cols,) if x[1] != rows * cols else (rows, cols) for x in g.problem.inputs]
        inputs = [g.input(i, *d) for i, d in enumerate(dims)]
        return g.node(operator, *inputs, **attributes), (rows, cols)

    return build


def layer_norm(g):
    rows, cols = g.dims
    x, *rest = [g.input(i, rows, cols) for i in range(len(g.problem.inputs) - 2)]
    for residual in rest:
        x = g.node("Add", x, residual)
    first = 1 + len(rest)
    weight, bias = g.input(first, cols), g.input(first + 1, cols)
    return g.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=1e-5), (rows, cols)


def rms_norm(g):
    """By the operators that ONNX Runtime itself makes of the standard's."""
    rows, cols = g.dims
    inputs = [g.input(i, rows, cols) for i in range(len(g.problem.inputs) - 1)]
    weight = g.input(len(inputs), cols)
    if len(inputs) == 1:
        return g.node("SimplifiedLayerNormalization", *inputs, weight, axis=-1,
                      epsilon=1e-5), (rows, cols)
    return g.node("SkipSimplifiedLayerNormalization", *inputs, weight, domain=OWN,
                  epsilon=1e-5), (rows, cols)


def mean(g):
    return g.node("ReduceMean", g.input(0, *g.dims), keepdims=0), ()


def embedding(g):
    rows, cols = g.dims
    table = g.input(0, g.problem.inputs[0][1] // cols, cols)
    return g.node("Gather", table, g.input(1, rows), axis=0), (rows, cols)


# ---- the notebook's model -----------------------------------------------------------------------


def block(g, x, config, weights, l, n, blocked):
    """One Transformer2Block on x (l n, width)."""
    width, heads, experts = config["embed_size"], config["heads"], config["num_experts"]

    def linear(x, name, suffix="."):
        weight, bias = g.weight(weights[name + suffix + "weight"]), weights[name + suffix + "bias"]
        return g.node("Gemm", x, weight, g.constant(bias), transB=1)

    def norm(x, name):
        parts = [g.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        epsilon = config.get("norm_eps", 1e-5)
        return g.node("LayerNormalization", x, *parts, axis=-1, epsilon=epsilon)

    size = l, n, heads, width // heads
    qkv = g.split(linear(x, "attention.in_proj", "_"), 3, 1)
    q, k, v = (g.reshape(part, *size) for part in qkv)
    attended = attend(g, q, k, v, width // heads, blocked)
    attended = linear(g.reshape(attended, l * n, width), "attention.out_proj")

    # int(mean * experts) % experts in Python's double, which truncates; the remainder's sign is
    # that of the divisor in both.
    average = g.node("ReduceMean", attended, keepdims=0)
    average = g.node("Cast", average, to=onnx.TensorProto.DOUBLE)
    share = g.node("Mul", average, g.constant(np.float64(experts)))
    index = g.node("Cast", share, to=onnx.TensorProto.INT64)
    index = g.node("Mod", index, g.constant(np.int64(experts)))
    scales = [weights[f"experts.{i}.scale_vector"] for i in range(experts)]
    scale = g.node("Gather", g.constant(np.stack(scales)), index, axis=0)

    x = norm(g.node("Add", g.node("Mul", attended, scale), x), "norm1")
    hidden = g.node("Relu", linear(x, "feed_forward.0"))
    return norm(g.node("Add", linear(hidden, "feed_forward.2"), x), "norm2")


def model(g):
    config, tensors = worker.read_model(g.problem.model_dir)
    l, n = g.dims
    width, words = config["embed_size"], config["vocab_size"]
    blocked = np.triu(np.ones((l, l)), 1) if config.get("mask") == "causal" else None
    ids = g.reshape(g.input(0, l, n), l * n)
    x = g.node("Gather", g.weight(tensors["embedding.weight"]), ids, axis=0)
    for layer in range(config["num_layers"]):
        prefix = f"layers.{layer}."
        own = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        x = block(g, x, config, own, l, n, blocked)
    weight, bias = g.weight(tensors["fc_out.weight"]), g.constant(tensors["fc_out.bias"])
    return g.node("Gemm", x, weight, bias, transB=1), (l * n, words)


OPERATIONS = {
    "sgemm": sgemm(False, False),
    "sgemm_nt": sgemm(False, True),
    "sgemm_tn": sgemm(True, False),
    "sgemm_tt": sgemm(True, True),
    "sgemm_packed": sgemm_packed,
    "sgemm_fast": sgemm(False, True),
    "sgemm_batched": sgemm_batched,
    "svd_rebuild": svd_rebuild,
    "svd_rebuild_dense": svd_rebuild_dense,
    "expert": expert,
    "expert_rows": expert_rows,
    "expert_turns": expert_turns,
    "expert_rebuild": svd_rebuild_dense,
    "attention": attention,
    "attention_causal": attention,
    "attention_decode": attention,
    "softmax": by_rows("Softmax", axis=-1),
    "layer_norm": layer_norm,
    "layer_norm_residual": layer_norm,
    "rms_norm": rms_norm,
    "rms_norm_residual": rms_norm,
    "mean": mean,
    "embedding": embedding,
    "scale_columns": by_rows("Mul"),
    "exp": by_rows("Exp"),
    "relu": by_rows("Relu"),
    "gelu": by_rows("Gelu", domain=OWN),
    "gelu_tanh": by_rows("FastGelu", domain=OWN),
    "silu": by_rows("QuickGelu", domain=OWN, alpha=1.0),
    "add": by_rows("Add"),
    "model": model,
}

if __name__ == "__main__":
    raise SystemExit(worker.main(OnnxRuntime))
