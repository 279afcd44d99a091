"""The benchmark's worker protocol for contenders in Python (docs/benchmarks.md).

A script names its class of contender and calls main(). The class has

    Contender(threads, options)  loads the library; an ImportError is said in the greeting
    version                      such as "PyTorch 2.5.1"
    session()                    a context manager around all that follows
    bind(problem, copy)          the call that is timed, on one copy of the operands: a function
                                 without arguments that writes the result to problem.out(copy),
                                 or returns it in a new array, as a call of its users would
    store(result, out)           copies such a returned array into the arena

bind() raises Unsupported where the library does not have the operation.
"""
import argparse
import ctypes
import gc
import itertools
import json
import mmap
import os
import signal
import sys
import time
import traceback

LIBC = ctypes.CDLL(None)


class Unsupported(Exception):
    """The text says why there is no such operation."""


class Problem:
    """A request to open a case: sizes, and operands as numpy arrays that lie in the arena."""

    TYPES = {"f32": "float32", "i64": "int64"}

    def __init__(self, request):
        self.op = str(request["op"])
        self.dims = [whole(size, "a size", 1) for size in request["dims"]]
        self.copies = whole(request["copies"], "copies", 1)
        self.model_dir = request.get("model_dir")
        self.bytes = whole(request["bytes"], "bytes", 1)
        self.inputs = [self._operand(i["type"], i["count"], i) for i in request["inputs"]]
        out = request["out"]
        self.rows, self.cols = whole(out["rows"], "rows", 1), whole(out["cols"], "cols", 1)
        self.result = self._operand("f32", self.rows * self.cols, out)
        self.memory = map_arena(str(request["arena"]), self.bytes)
        self.made = {}

    def _operand(self, kind, count, place):
        """(type, count, offset, stride), once it is known to lie in the arena."""
        import numpy

        if kind not in self.TYPES:
            raise ValueError(f"an input of type {kind!r}; expected f32 or i64")
        dtype = numpy.dtype(self.TYPES[kind])
        count = whole(count, "a count", 1)
        offset, stride = whole(place["offset"], "an offset"), whole(place["stride"], "a stride")
        end = offset + (self.copies - 1) * stride + count * dtype.itemsize
        if offset % dtype.itemsize or stride % dtype.itemsize or end > self.bytes:
            raise ValueError(f"an operand of bytes {offset} .. {end} in an arena of {self.bytes}")
        return dtype, count, offset, stride

    def _array(self, operand, copy, shape):
        import numpy

        dtype, count, offset, stride = operand
        flat = numpy.frombuffer(self.memory, dtype, count, offset + copy * stride)
        return flat.reshape(shape)

    def input(self, i, copy, *shape):
        return self._array(self.inputs[i], copy, shape)

    def place(self, i, copy):
        """Where input i of a copy lies: the same for all copies that share it."""
        return self.inputs[i][2] + copy * self.inputs[i][3]

    def once(self, key, make):
        """What make() made when it was first asked for with this key."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def out(self, copy, *shape):
        return self._array(self.result, copy, shape or (self.rows, self.cols))


def whole(value, what, least=0):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{what} is {value!r}; expected a whole number of at least {least}")
    return value


def map_arena(path, size):
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size < size:
            raise ValueError(f"{path} has {os.fstat(fd).st_size} bytes; expected {size}")
        return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)


def populate(memory):
    """Enters all pages into the page table of the process, so that no timed call meets the first
    touch of one; before each timing, since the parent may have moved them meanwhile."""
    MADV_POPULATE_WRITE = 23
    try:
        memory.madvise(MADV_POPULATE_WRITE)
    except OSError:  # Linux before 5.14
        memory[:: mmap.PAGESIZE]


def read_model(folder):
    """config.json, and {name: array} of model.safetensors: a header's length in 8 bytes, the
    header in JSON, then the arrays."""
    import numpy

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    data = numpy.fromfile(os.path.join(folder, "model.safetensors"), "uint8")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    tensors = {}
    for name, tensor in json.loads(data[8:start].tobytes()).items():
        if name == "__metadata__":
            continue
        if tensor["dtype"] != "F32":
            raise ValueError(f"tensor {name}: expected F32, found {tensor['dtype']}")
        begin, end = tensor["data_offsets"]
        array = numpy.frombuffer(data[start + begin : start + end].tobytes(), "<f4")
        tensors[name] = array.reshape(tensor["shape"]).copy()
    return config, tensors


def keep_memory():
    """Freed memory is kept for the next call: a result that a call allocates would else be new
    pages each time, which took ten times as long as a layer norm of 4096x4096 itself. Users who
    mind the time preload an allocator that does this."""
    M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_MAX, 0)
        LIBC.mallopt(M_TRIM_THRESHOLD, -1)


def release_memory():
    """What closed cases leave."""
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(ctypes.c_size_t(0))


class Case:
    """An opened problem: one call for each copy of its operands."""

    def __init__(self, contender, request, slow_percent):
        self.problem = Problem(request)
        self.calls = []
        for copy in range(self.problem.copies):
            call = contender.bind(self.problem, copy)
            self.calls.append(slowed(call, slow_percent) if slow_percent else call)
        self.plain = self.calls[0]
        self.place = 0  # of the copy that is next
        if self.problem.result[3] > 0 and self.plain() is not None:
            self.calls = [keeping(call) for call in self.calls]
            for call in self.calls:  # all of that memory is there before anything is timed
                call()

    def _next(self, count):
        """The next `count` calls, going round over the copies."""
        if len(self.calls) == 1:
            return itertools.repeat(self.plain, count)
        first = self.place
        self.place = (first + count) % len(self.calls)
        return itertools.islice(itertools.cycle(self.calls), first, first + count)

    def time(self, count, warm_seconds):
        populate(self.problem.memory)
        if warm_seconds > 0:
            end = time.perf_counter() + warm_seconds
            while time.perf_counter() < end:
                for call in self._next(1):
                    call()
        calls = self._next(count)
        gc.disable()
        try:
            cpu = time.process_time()
            start = time.perf_counter()
            for call in calls:
                call()
            seconds = time.perf_counter() - start
            return seconds, time.process_time() - cpu
        finally:
            gc.enable()


def keeping(call):
    """A call that holds on to its result until the next one: where results are to be cold, each
    copy needs one of its own. Else the memory of the last one would be used again, from cache."""
    kept = None

    def keep():
        nonlocal kept
        kept = call()

    return keep


def slowed(call, percent):
    """For tests: the call, and then spinning for that share of its time."""

    def slow():
        start = time.perf_counter()
        result = call()
        now = time.perf_counter()
        end = now + (now - start) * percent / 100
        while time.perf_counter() < end:
            pass
        return result

    return slow


def injected(variable, name, op, fields):
    """The fields of NAME:OP[:...] in a variable for tests where these are NAME and OP; or None."""
    parts = os.environ.get(variable, "").split(":")
    if len(parts) == fields and parts[0] == name and parts[1] in (op, "*"):
        return parts
    return None


class Server:
    def __init__(self, name, contender, stream):
        self.name, self.contender, self.stream = name, contender, stream
        self.cases = {}

    def answer(self, **fields):
        self.stream.write(json.dumps(fields) + "\n")
        self.stream.flush()

    def open(self, request):
        number = whole(request["id"], "id")
        if number in self.cases:
            raise ValueError(f"case {number} is open already")
        slow = injected("T2BENCH_SLOW", self.name, request["op"], 3)
        self.cases[number] = Case(self.contender, request, float(slow[2]) if slow else 0)
        return {}

    def case(self, request):
        number = whole(request["id"], "id")
        if number not in self.cases:
            raise ValueError(f"case {number} is not open")
        return self.cases[number]

    def run(self, request):
        case = self.case(request)
        start = time.perf_counter()
        result = case.plain()
        seconds = time.perf_counter() - start
        out = case.problem.out(0)
        if result is not None:
            self.contender.store(result, out)
        if injected("T2BENCH_FAULT", self.name, case.problem.op, 2):
            flat = out.reshape(-1)
            flat[flat.size * 2 // 3] += 1 + abs(flat[flat.size * 2 // 3])
        return {"seconds": seconds}

    def time(self, request):
        calls = whole(request["calls"], "calls", 1)
        seconds, cpu = self.case(request).time(calls, float(request.get("warm_seconds", 0)))
        return {"seconds": seconds, "cpu": cpu}

    def close(self, request):
        self.case(request)
        del self.cases[request["id"]]
        release_memory()  # the arena is unmapped with the last array in it
        return {}

    def serve(self, lines):
        handlers = {"open": self.open, "run": self.run, "time": self.time, "close": self.close}
        for line in lines:
            try:
                request = json.loads(line)
                if not isinstance(request, dict) or request.get("do") not in handlers:
                    raise ValueError(f"no request: {line.strip()[:80]}")
                answer = {"ok": True, **handlers[request["do"]](request)}
            except Unsupported as reason:
                answer = {"ok": False, "unsupported": str(reason)}
            except KeyError as missing:
                answer = {"ok": False, "error": f"the request has no {missing}"}
            except Exception as error:  # the library's own: an error of this case alone
                traceback.print_exc()
                first = (str(error).strip() or "no reason given").splitlines()[0]
                answer = {"ok": False, "error": f"{type(error).__name__}: {first[:300]}"}
            self.answer(**answer)


def main(contender_class):
    parser = argparse.ArgumentParser(description="A worker of t2bench: see docs/benchmarks.md.")
    parser.add_argument("--name", required=True, help="the contender's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch: compiled models only")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: expected at least 1")

    # Ctrl-C is for the parent: it writes what was measured and closes our standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get between the answers.
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    keep_memory()
    server = Server(options.name, None, stream)
    try:
        try:
            server.contender = contender_class(options.threads, options)
        except (ImportError, OSError) as error:
            server.answer(ok=False, error=f"{error} (make peers installs what is missing)")
            return 1
        with server.contender.session():
            # What the library's modules hold is looked through by no collection from here on: each
            # took 40 ms with PyTorch, after every case.
            gc.collect()
            gc.freeze()
            server.answer(ok=True, version=server.contender.version, threads=options.threads)
            server.serve(sys.stdin)
    except BrokenPipeError:
        return 1  # the parent is gone
    return 0
