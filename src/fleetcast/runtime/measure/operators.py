"""Operators that run on this machine in numpy, and what each consists of.

An operator is a chain of numpy calls on buffers made beforehand, so that no call waits for memory to be mapped. What it
consists of is counted without running it (`units`): calls, floating-point operations, bytes by the cache level that its
working set falls into, rows, exponentials, gathered lines. `cost.learned` gives each unit its seconds on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]

UNITS: Mapping[str, float] = {
    "call": 0.5e-6,
    "product": 0.5e-6,
    "flop32": 1 / 60e9,
    "flop64": 1 / 30e9,
    "packed": 1 / 15e9,
    "vector": 1 / 30e9,
    "near": 1 / 80e9,
    "middle": 1 / 40e9,
    "far": 1 / 15e9,
    "exp": 0.5e-9,
    "sum": 0.2e-9,
    "row": 30e-9,
    "along": 1 / 40e9,
    "line": 5e-9,
}
"""What operators consist of, and the seconds of one of each on a core of no particular make (round estimates).

call: a numpy call; product: a BLAS call; flop32, flop64: of matrix products, by precision; packed: byte of an operand
that a product copies into its own order; vector: byte of a matrix that meets a vector; near, middle, far: byte moved by
a call whose working set fits into the core's own cache, into the shared one, or into neither; exp: exponential of four
bytes; sum: number added up or compared; row: pass of an inner loop; along: byte moved by a call that repeats one
operand for every row; line: row gathered from a table beyond the core's cache.
"""

_REDUCE = {"sum": np.add.reduce, "max": np.maximum.reduce}


@dataclass(frozen=True, slots=True)
class Caches:
    """Sizes (B): the core's own cache, and the last one, which cores share."""

    own: float
    last: float


@dataclass(frozen=True, slots=True)
class Step:
    """One call: ``writes = do(*reads)``, all names of buffers."""

    do: str
    reads: tuple[str, ...]
    writes: str


@dataclass(frozen=True, slots=True)
class Operator:
    """A chain of calls on buffers of one precision.

    Attributes:
        name: for people, e.g. "product 64x1024x1024 float32".
        family: what it is one of, e.g. "product".
        dtype: "float32" or "float64".
        buffers: shape by name; an index buffer is called "index".
        steps: the calls, in order.
    """

    name: str
    family: str
    dtype: str
    buffers: Mapping[str, Shape]
    steps: tuple[Step, ...]

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return 4 if self.dtype == "float32" else 8

    def bytes(self) -> int:
        """Returns the bytes of all buffers."""
        return self.size * sum(prod(shape) for shape in self.buffers.values())


def ready(operator: Operator, seed: int = 0) -> Callable[[], None]:
    """Returns a function that runs the operator once; its buffers are made and filled here."""
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for name, shape in operator.buffers.items():
        if name == "index":
            made[name] = random.integers(0, operator.buffers["table"][0], shape)
        else:
            made[name] = random.random(shape, dtype=np.float32).astype(operator.dtype)
    calls = [_call(step, made) for step in operator.steps]

    def run() -> None:
        for call in calls:
            call()

    return run


def _call(step: Step, made: Mapping[str, NDArray[Any]]) -> Callable[[], Any]:
    reads, out = [made[name] for name in step.reads], made[step.writes]
    if step.do in _REDUCE:
        return partial(_REDUCE[step.do], reads[0], axis=-1, keepdims=True, out=out)
    if step.do == "take":
        return partial(reads[0].take, reads[1], axis=0, out=out, mode="clip")
    if step.do == "copy":
        return partial(np.copyto, out, reads[0])
    if step.do == "transposed":  # a @ b.T
        return partial(np.matmul, reads[0], np.swapaxes(reads[1], -1, -2), out=out)
    return partial(getattr(np, step.do), *reads, out=out)


def units(operators: Iterable[Operator], caches: Caches) -> NDArray[np.float64]:
    """Returns (n, len(UNITS)): how much of each unit the operators consist of."""
    names = list(UNITS)
    rows = [[found[name] for name in names] for found in (_units(o, caches) for o in operators)]
    return np.array(rows, dtype=np.float64).reshape(-1, len(names))


def _units(operator: Operator, caches: Caches) -> dict[str, float]:
    found = dict.fromkeys(UNITS, 0.0)
    for step in operator.steps:
        for name, amount in _step(operator, step, caches).items():
            found[name] += amount
    return found


def _step(operator: Operator, step: Step, caches: Caches) -> dict[str, float]:
    shapes = [operator.buffers[name] for name in step.reads]
    out = operator.buffers[step.writes]
    size = operator.size
    if step.do in ("matmul", "transposed"):
        return {"call": 1.0} | _product(shapes, out, size, caches, transposed=step.do == "transposed")
    if step.do == "take":
        moved = 2.0 * size * prod(out)
        beyond = _levels(size * prod(shapes[0]), caches)
        return {"call": 1.0, "line": prod(shapes[1]) * (1.0 - beyond["near"])} | _moved(moved, moved, caches)
    reads = {name: prod(operator.buffers[name]) for name in step.reads}
    moved = float(size * (sum(reads.values()) + prod(out)))
    working = size * sum((reads | {step.writes: prod(out)}).values())
    levels = _moved(moved, working, caches)
    rows = float(prod(shapes[0][:-1]))
    if step.do == "exp":  # what lies in a cache arrives while the last numbers are computed
        return {"call": 1.0, "exp": prod(out) * size / 4.0, "far": levels["far"]}
    if step.do in _REDUCE:
        return {"call": 1.0, "row": rows, "sum": float(reads[step.reads[0]]), "far": levels["far"]}
    if any(shape != out for shape in shapes):
        return {"call": 1.0, "row": rows, "along": moved, "far": levels["far"]}
    return {"call": 1.0} | levels


def _product(shapes: list[Shape], out: Shape, size: int, caches: Caches, *, transposed: bool) -> dict[str, float]:
    rows, depth = shapes[0][-2:]
    columns = shapes[1][-2] if transposed else shapes[1][-1]
    batch = prod(out[:-2])
    flops = 2.0 * batch * rows * depth * columns
    weights = size * batch * (rows * depth + depth * columns)
    found = {"product": float(batch)}
    if rows == 1 or columns == 1:  # a matrix times a vector reads the matrix once
        return found | {"vector": float(weights), "far": weights * _levels(weights, caches)["far"]}
    return found | {"flop32" if size == 4 else "flop64": flops, "packed": float(weights)}


def _moved(moved: float, working: float, caches: Caches) -> dict[str, float]:
    return {name: share * moved for name, share in _levels(working, caches).items()}


def _levels(working: float, caches: Caches) -> dict[str, float]:
    """Returns the shares of a working set's bytes that each level serves.

    A core's own cache serves what fits into it and, beyond twice its size, nothing; the last one is shared with
    others, so that half of it is counted on.
    """
    beyond_own, beyond_last = _beyond(working, caches.own), _beyond(working, caches.last / 2.0)
    return {"near": 1.0 - beyond_own, "middle": beyond_own - beyond_own * beyond_last, "far": beyond_own * beyond_last}


def _beyond(working: float, cache: float) -> float:
    """Returns 0 for what fits, 1 for twice as much, in between on the log scale."""
    return float(np.clip(np.log2(max(working, 1.0) / cache), 0.0, 1.0))


def product(m: int, k: int, n: int, dtype: str = "float32", batch: int = 1) -> Operator:
    """Returns ``batch`` products of an m x k with a k x n matrix."""
    lead = (batch,) if batch > 1 else ()
    buffers = {"a": (*lead, m, k), "b": (*lead, k, n), "out": (*lead, m, n)}
    name = f"product {batch}x " * (batch > 1) or "product "
    return Operator(f"{name}{m}x{k}x{n} {dtype}", "product", dtype, buffers, (Step("matmul", ("a", "b"), "out"),))


def elementwise(do: str, count: int, dtype: str = "float32") -> Operator:
    """Returns one call of ``copy``, ``exp``, ``add`` or ``multiply`` on ``count`` numbers."""
    names = ("a", "b") if do in ("add", "multiply") else ("a",)
    buffers = {name: (count,) for name in (*names, "out")}
    return Operator(f"{do} {count} {dtype}", do, dtype, buffers, (Step(do, names, "out"),))


def reduction(do: str, rows: int, columns: int, dtype: str = "float32") -> Operator:
    """Returns ``sum`` or ``max`` over the rows of a matrix."""
    buffers = {"a": (rows, columns), "out": (rows, 1)}
    return Operator(f"{do} {rows}x{columns} {dtype}", do, dtype, buffers, (Step(do, ("a",), "out"),))


def gather(table: int, width: int, count: int, dtype: str = "float32") -> Operator:
    """Returns ``count`` random rows copied out of a table."""
    buffers = {"table": (table, width), "index": (count,), "out": (count, width)}
    name = f"gather {count} of {table}x{width} {dtype}"
    return Operator(name, "gather", dtype, buffers, (Step("take", ("table", "index"), "out"),))


def softmax(rows: int, columns: int, dtype: str = "float32") -> Operator:
    """Returns the softmax over the rows of a matrix, in place."""
    buffers = {"x": (rows, columns), "r": (rows, 1)}
    return Operator(f"softmax {rows}x{columns} {dtype}", "softmax", dtype, buffers, _softmax("x", "r"))


def normalise(rows: int, columns: int, dtype: str = "float32") -> Operator:
    """Returns root-mean-square normalisation with a gain."""
    buffers = {"x": (rows, columns), "y": (rows, columns), "r": (rows, 1), "share": (1,), "gain": (columns,)}
    return Operator(f"normalise {rows}x{columns} {dtype}", "normalise", dtype, buffers, _normalise("x", "y"))


def feed_forward(tokens: int, hidden: int, inner: int, dtype: str = "float32") -> Operator:
    """Returns a gated feed-forward block: two products in, a sigmoid gate, one product out."""
    buffers = {
        "x": (tokens, hidden), "up": (hidden, inner), "gate": (hidden, inner), "down": (inner, hidden),
        "u": (tokens, inner), "g": (tokens, inner), "s": (tokens, inner), "one": (1,), "y": (tokens, hidden),
    }  # fmt: skip
    steps = (
        Step("matmul", ("x", "up"), "u"), Step("matmul", ("x", "gate"), "g"), Step("negative", ("g",), "s"),
        Step("exp", ("s",), "s"), Step("add", ("s", "one"), "s"), Step("divide", ("g", "s"), "g"),
        Step("multiply", ("g", "u"), "g"), Step("matmul", ("g", "down"), "y"),
    )  # fmt: skip
    return Operator(f"feed-forward {tokens}x{hidden}x{inner} {dtype}", "feed-forward", dtype, buffers, steps)


def attention(heads: int, queries: int, keys: int, width: int, dtype: str = "float32") -> Operator:
    """Returns attention of ``queries`` on ``keys``, without a mask."""
    buffers = {
        "q": (heads, queries, width), "k": (heads, keys, width), "v": (heads, keys, width),
        "p": (heads, queries, keys), "r": (heads, queries, 1), "o": (heads, queries, width),
    }  # fmt: skip
    steps = (Step("transposed", ("q", "k"), "p"), *_softmax("p", "r"), Step("matmul", ("p", "v"), "o"))
    return Operator(f"attention {heads}x{queries}x{keys}x{width} {dtype}", "attention", dtype, buffers, steps)


def embedding(table: int, width: int, count: int, dtype: str = "float32") -> Operator:
    """Returns a table look-up followed by normalisation."""
    buffers = {
        "table": (table, width), "index": (count,), "x": (count, width), "y": (count, width), "r": (count, 1),
        "share": (1,), "gain": (width,),
    }  # fmt: skip
    steps = (Step("take", ("table", "index"), "x"), *_normalise("x", "y"))
    return Operator(f"embedding {count} of {table}x{width} {dtype}", "embedding", dtype, buffers, steps)


def _softmax(x: str, row: str) -> tuple[Step, ...]:
    return (
        Step("max", (x,), row), Step("subtract", (x, row), x), Step("exp", (x,), x), Step("sum", (x,), row),
        Step("divide", (x, row), x),
    )  # fmt: skip


def _normalise(x: str, y: str) -> tuple[Step, ...]:
    return (
        Step("multiply", (x, x), y), Step("sum", (y,), "r"), Step("multiply", ("r", "share"), "r"),
        Step("sqrt", ("r",), "r"), Step("divide", (x, "r"), y), Step("multiply", (y, "gain"), y),
    )  # fmt: skip
