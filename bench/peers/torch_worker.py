"""PyTorch as a contender of the benchmark, eager or (--compile) with the model compiled.

Each operation in the form that its users would write where they mind the time: in inference mode,
with out= where PyTorch has it, so that no result is allocated.
"""
import functools
import os
import shutil
import sysconfig

import worker
from worker import Unsupported


class Torch:
    def __init__(self, threads, options):
        global torch
        import numpy  # noqa: F401  without it torch cannot see the arena
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.version = f"PyTorch {torch.__version__}"
        self.compiled = options.compile
        if self.compiled:
            self.version += " compiled"

    def session(self):
        return torch.inference_mode()

    def store(self, result, out):
        torch.from_numpy(out).copy_(result.reshape(out.shape))

    def bind(self, problem, copy):
        if self.compiled and problem.op != "model":
            raise Unsupported("only the model is compiled")
        bind = OPERATIONS.get(problem.op)
        if bind is None:
            raise Unsupported(f"no {problem.op} that could be compared")
        try:
            return bind(self, Operands(problem, copy))
        except AttributeError as missing:  # Debian's PyTorch is from before version 2
            raise Unsupported(f"not in {self.version}: {missing}") from missing


class Operands:
    """The operands of one copy as tensors, without copying them."""

    def __init__(self, problem, copy):
        self.problem, self.copy, self.dims = problem, copy, problem.dims

    def input(self, i, *shape):
        return torch.from_numpy(self.problem.input(i, self.copy, *shape))

    def out(self, *shape):
        return torch.from_numpy(self.problem.out(self.copy, *shape))


# ---- products -----------------------------------------------------------------------------------


def sgemm(trans_a, trans_b):
    def bind(_, x):
        m, n, k = x.dims
        a = x.input(0, k, m).t() if trans_a else x.input(0, m, k)
        b = x.input(1, n, k).t() if trans_b else x.input(1, k, n)
        return functools.partial(torch.mm, a, b, out=x.out(m, n))

    return bind


def sgemm_packed(_, x):
    """Packed by oneDNN, as the freezing of torch.compile packs a linear layer. A single row gains
    nothing from it (measured on Zen 4: 28 us against 17 us for 1x768x256)."""
    m, n, k = x.dims
    a, weight = x.input(0, m, k), x.input(1, n, k)
    if m == 1 or not torch.backends.mkldnn.is_available():
        return functools.partial(torch.mm, a, weight.t(), out=x.out(m, n))
    ops = torch.ops.mkldnn
    packed = x.problem.once(x.problem.place(1, x.copy),
                            lambda: ops._reorder_linear_weight(weight, m))
    return functools.partial(ops._linear_pointwise.default, a, packed, None, "none", [], "")


def sgemm_batched(_, x):
    b, m, n, k = x.dims
    left, right = x.input(0, m, b, k).transpose(0, 1), x.input(1, n, b, k).permute(1, 2, 0)
    return functools.partial(torch.bmm, left, right, out=x.out(b, m, n))


def svd_rebuild(_, x):
    m, n, r = x.dims
    u, v, s, out = x.input(0, m, r), x.input(1, n, r), x.input(2, r), x.out(m, n)
    return lambda: torch.mm(u * (s * 0.75), v.t(), out=out)


def svd_rebuild_dense(_, x):
    """As the published code of Transformer^2 has it."""
    m, n, r = x.dims
    u, v, s, out = x.input(0, m, r), x.input(1, n, r), x.input(2, r), x.out(m, n)
    return lambda: torch.mm(torch.mm(u, torch.diag(s * 0.75)), v.t(), out=out)


# ---- layers under singular value experts --------------------------------------------------------


def layer_operands(x, experts):
    rows, m, n = x.dims
    r = min(m, n)
    return x.input(0, rows, n), x.input(1, m, r), x.input(2, n, r), x.input(3, experts, r)


def expert(_, x):
    """In factored form, which the published code does not have: it rebuilds W, see expert_turns."""
    (rows, m, n), out = x.dims, x.out(x.dims[0], x.dims[1])
    a, u, v, s = layer_operands(x, 1)
    middle = x.problem.once("middle", lambda: torch.empty(rows, min(m, n)))
    return lambda: torch.mm(torch.mm(a, v, out=middle).mul_(s), u.t(), out=out)


def expert_rows(_, x):
    (rows, m, n), out = x.dims, x.out(x.dims[0], x.dims[1])
    a, u, v, s = layer_operands(x, rows)
    middle = x.problem.once("middle", lambda: torch.empty(rows, min(m, n)))
    gathered = x.problem.once("gathered", lambda: torch.empty(rows, min(m, n)))
    order = x.problem.once("order", lambda: torch.arange(rows - 1, -1, -1))

    def call():
        torch.index_select(s, 0, order, out=gathered)
        torch.mm(torch.mm(a, v, out=middle).mul_(gathered), u.t(), out=out)

    return call


def expert_turns(_, x):
    """As the published code of Transformer^2 has it: W in dense form, expert by expert."""
    (rows, m, n), out = x.dims, x.out(x.dims[0], x.dims[1])
    a, u, v, s = layer_operands(x, rows)

    def call():
        for i in range(rows):
            weight = torch.mm(torch.mm(u, torch.diag(s[rows - 1 - i])), v.t())
            torch.mm(a[i : i + 1], weight.t(), out=out[i : i + 1])

    return call


# ---- attention ----------------------------------------------------------------------------------


def attention(_, x):
    """As nn.MultiheadAttention goes from (l, n, h d) to heads and back."""
    queries, keys, n, h, d = x.dims if len(x.dims) == 5 else (x.dims[0], *x.dims)
    q, k, v = (x.input(i, l, n, h, d).permute(1, 2, 0, 3)
               for i, l in enumerate((queries, keys, keys)))
    out = x.out(queries, n, h, d)
    causal = x.problem.op == "attention_causal"
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: out.copy_(attend(q, k, v, is_causal=causal).permute(2, 0, 1, 3))


# ---- rows and elements --------------------------------------------------------------------------


def softmax(_, x):
    return functools.partial(torch.softmax, x.input(0, *x.dims), -1, out=x.out(*x.dims))


def layer_norm(_, x):
    """native_layer_norm.out computes into new memory too, and then copies."""
    rows, cols = x.dims
    return functools.partial(torch.layer_norm, x.input(0, rows, cols), (cols,), x.input(1, cols),
                             x.input(2, cols), 1e-5)


def layer_norm_residual(_, x):
    rows, cols = x.dims
    a, b = x.input(0, rows, cols), x.input(1, rows, cols)
    total = x.problem.once("sum", lambda: torch.empty(rows, cols))
    weight, bias, shape = x.input(2, cols), x.input(3, cols), (cols,)
    return lambda: torch.layer_norm(torch.add(a, b, out=total), shape, weight, bias, 1e-5)


def rms_norm(_, x):
    """By torch.rms_norm, which allocates its result as layer_norm does."""
    rows, cols = x.dims
    return functools.partial(torch.rms_norm, x.input(0, rows, cols), (cols,), x.input(1, cols),
                             1e-5)


def rms_norm_residual(_, x):
    rows, cols = x.dims
    a, b = x.input(0, rows, cols), x.input(1, rows, cols)
    total = x.problem.once("sum", lambda: torch.empty(rows, cols))
    weight, shape, rms_norm = x.input(2, cols), (cols,), torch.rms_norm
    return lambda: rms_norm(torch.add(a, b, out=total), shape, weight, 1e-5)


def mean(_, x):
    return functools.partial(torch.mean, x.input(0, *x.dims))


def embedding(_, x):
    rows, cols = x.dims
    table, ids = x.input(0, x.problem.inputs[0][1] // cols, cols), x.input(1, rows)
    return functools.partial(torch.index_select, table, 0, ids, out=x.out(rows, cols))


def scale_columns(_, x):
    rows, cols = x.dims
    return functools.partial(torch.mul, x.input(0, rows, cols), x.input(1, cols),
                             out=x.out(rows, cols))


def exp(_, x):
    return functools.partial(torch.exp, x.input(0, *x.dims), out=x.out(*x.dims))


def relu(_, x):
    return functools.partial(torch.clamp_min, x.input(0, *x.dims), 0, out=x.out(*x.dims))


def gelu(approximate):
    def bind(_, x):
        return functools.partial(torch.ops.aten.gelu.out, x.input(0, *x.dims),
                                 approximate=approximate, out=x.out(*x.dims))

    return bind


def silu(_, x):
    return functools.partial(torch.ops.aten.silu.out, x.input(0, *x.dims), out=x.out(*x.dims))


def add(_, x):
    return functools.partial(torch.add, x.input(0, *x.dims), x.input(1, *x.dims),
                             out=x.out(*x.dims))


# ---- the notebook's model -----------------------------------------------------------------------


def make_model(config, tensors):
    """The notebook's Transformer2Model. One thing is as those do who mind the time: attention does
    not also return its weights, which the notebook drops."""
    nn = torch.nn
    width = config["embed_size"]

    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale_vector = nn.Parameter(torch.ones(width))

        def forward(self, x):
            return x * self.scale_vector.unsqueeze(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            wide = width * config["forward_expansion"]
            self.attention = nn.MultiheadAttention(width, config["heads"])
            self.norm1 = nn.LayerNorm(width, eps=config.get("norm_eps", 1e-5))
            self.norm2 = nn.LayerNorm(width, eps=config.get("norm_eps", 1e-5))
            self.feed_forward = nn.Sequential(nn.Linear(width, wide), nn.ReLU(),
                                              nn.Linear(wide, width))
            self.dropout = nn.Dropout(config["dropout"])
            self.experts = nn.ModuleList(Expert() for _ in range(config["num_experts"]))

        def select_expert(self, x):
            return self.experts[int(x.mean().item() * len(self.experts)) % len(self.experts)]

        def forward(self, x, mask):
            attended, _ = self.attention(x, x, x, attn_mask=mask, need_weights=False)
            scaled = self.select_expert(attended)(attended)
            x = self.dropout(self.norm1(scaled + x))
            return self.dropout(self.norm2(self.feed_forward(x) + x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(config["vocab_size"], width)
            self.layers = nn.ModuleList(Block() for _ in range(config["num_layers"]))
            self.fc_out = nn.Linear(width, config["vocab_size"])

        def forward(self, ids, mask):
            x = self.embedding(ids)
            for layer in self.layers:
                x = layer(x, mask)
            return self.fc_out(x)

    model = Model()
    model.load_state_dict({name: torch.from_numpy(t) for name, t in tensors.items()})
    return model.eval()


def expert_in_tensors(block):
    """The same choice without .item(), at which a compiled graph would end in every layer."""
    scales = torch.stack([expert.scale_vector for expert in block.experts])

    def select(x):
        index = (x.mean().double() * len(scales)).long() % len(scales)
        scale = scales.index_select(0, index.reshape(1))
        return lambda y: y * scale

    return select


def compiled(model):
    """As a whole, for one shape, its weights frozen: so they are packed."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise Unsupported("torch.compile needs g++")
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if not os.path.exists(header):
        raise Unsupported(f"torch.compile needs {header} (Debian: python3-dev)")
    compiler = torch.compile
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    inductor.compile_threads = 1  # no pool of compilers, which would stay
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 1000  # one each case
    for block in model.layers:
        block.select_expert = expert_in_tensors(block)
    return compiler(model, fullgraph=True, dynamic=False, options={"freezing": True})


def model(contender, x):
    config, tensors = worker.read_model(x.problem.model_dir)
    l, n = x.dims
    ids, mask = x.input(0, l, n), None
    if config.get("mask") == "causal":
        mask = torch.ones(l, l, dtype=torch.bool).triu(1)
    net = make_model(config, tensors)
    if contender.compiled:
        net = compiled(net)
        net(ids, mask)
    return functools.partial(net, ids, mask)


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
    "softmax": softmax,
    "layer_norm": layer_norm,
    "layer_norm_residual": layer_norm_residual,
    "rms_norm": rms_norm,
    "rms_norm_residual": rms_norm_residual,
    "mean": mean,
    "embedding": embedding,
    "scale_columns": scale_columns,
    "exp": exp,
    "relu": relu,
    "gelu": gelu("none"),
    "gelu_tanh": gelu("tanh"),
    "silu": silu,
    "add": add,
    "model": model,
}

if __name__ == "__main__":
    raise SystemExit(worker.main(Torch))
