"""Operators do what they are called, and consist of what they are said to."""

from math import prod

import numpy as np
import pytest

from fleetcast.runtime.measure import operators as op
from fleetcast.runtime.measure.operators import UNITS, Caches, Operator, Step, units

CACHES = Caches(own=1 << 20, last=32 << 20)
EXAMPLES = [
    op.product(5, 7, 3), op.product(4, 6, 8, "float64", batch=3), op.product(1, 64, 32), op.elementwise("add", 100),
    op.elementwise("copy", 100, "float64"), op.elementwise("exp", 100), op.reduction("sum", 4, 50),
    op.reduction("max", 4, 50), op.gather(100, 8, 20), op.softmax(4, 50), op.normalise(4, 50),
    op.feed_forward(4, 16, 32), op.attention(2, 8, 12, 16), op.embedding(100, 8, 20),
]  # fmt: skip


def amounts(operator, caches=CACHES):
    return {n: v for n, v in zip(UNITS, units([operator], caches)[0].tolist(), strict=True) if v}


def run(operator, **given):
    """Runs an operator's steps on the arrays given, the others left empty, and returns all its buffers."""
    made = {
        n: np.array(given[n], dtype=operator.dtype) if n in given else np.zeros(shape, operator.dtype)
        for n, shape in operator.buffers.items()
    }  # fmt: skip
    for step in operator.steps:
        op._call(step, made)()
    return made


@pytest.mark.parametrize("operator", EXAMPLES, ids=lambda o: o.name)
def test_every_operator_runs_and_has_a_cost(operator):
    call = op.ready(operator)
    call()
    call()
    found = amounts(operator)
    assert found["call"] == len(operator.steps)
    assert all(value > 0 for value in found.values())


def test_composite_operators_compute_what_they_are_named_for():
    random = np.random.default_rng(0)
    x = random.random((4, 50))
    made = run(op.softmax(4, 50, "float64"), x=x)
    assert made["x"] == pytest.approx(np.exp(x) / np.exp(x).sum(1, keepdims=True))
    gain = random.random(50)
    made = run(op.normalise(4, 50, "float64"), x=x, gain=gain, share=[1 / 50])
    assert made["y"] == pytest.approx(x / np.sqrt((x**2).mean(1, keepdims=True)) * gain)
    q, k, v = random.random((2, 8, 16)), random.random((2, 12, 16)), random.random((2, 12, 16))
    made = run(op.attention(2, 8, 12, 16, "float64"), q=q, k=k, v=v)
    weights = np.exp(q @ k.transpose(0, 2, 1))
    assert made["o"] == pytest.approx(weights / weights.sum(-1, keepdims=True) @ v)
    block = op.feed_forward(4, 6, 10, "float64")
    given = {name: random.random(block.buffers[name]) for name in ("x", "up", "gate", "down")} | {"one": [1.0]}
    made = run(block, **given)
    gate = given["x"] @ given["gate"]
    assert made["y"] == pytest.approx((gate / (1 + np.exp(-gate)) * (given["x"] @ given["up"])) @ given["down"])


def test_units_counted_by_hand():
    assert amounts(op.product(5, 7, 3)) == {
        "call": 1, "product": 1, "flop32": 2 * 5 * 7 * 3, "packed": 4 * (5 * 7 + 7 * 3),
    }  # fmt: skip
    assert amounts(op.product(5, 7, 3, "float64", batch=2))["flop64"] == 2 * 2 * 5 * 7 * 3
    assert amounts(op.product(1, 64, 32)) == {"call": 1, "product": 1, "vector": 4 * (64 + 64 * 32)}
    assert amounts(op.elementwise("add", 100)) == {"call": 1, "near": 12 * 100}
    assert amounts(op.reduction("sum", 4, 50)) == {"call": 1, "row": 4, "sum": 200}
    assert amounts(op.gather(100, 8, 20)) == {"call": 1, "near": 2 * 4 * 8 * 20}
    assert amounts(op.softmax(4, 50)) == {
        "call": 5, "row": 4 * 4, "sum": 2 * 200, "along": 2 * 4 * (2 * 200 + 4), "exp": 200,
    }  # fmt: skip


def test_a_working_set_moves_from_level_to_level():
    def levels(count):
        found = amounts(op.elementwise("copy", count))
        return [found.get(name, 0.0) / (8.0 * count) for name in ("near", "middle", "far")]

    assert levels(1 << 14) == [1, 0, 0]
    assert levels(1 << 20) == [0, 1, 0]
    assert levels(1 << 24) == [0, 0, 1]
    sizes = [levels(2**k) for k in range(8, 26)]
    assert all(sum(found) == pytest.approx(1) for found in sizes)
    assert [found[0] for found in sizes] == sorted((found[0] for found in sizes), reverse=True)
    assert [found[2] for found in sizes] == sorted(found[2] for found in sizes)


def test_a_buffer_read_twice_moves_once():
    once = Operator("square", "x", "float32", {"a": (100,), "b": (100,)}, (Step("multiply", ("a", "a"), "b"),))
    assert amounts(once)["near"] == 4 * 200


def test_bytes_are_those_of_the_buffers():
    operator = op.feed_forward(4, 16, 32, "float64")
    assert operator.bytes() == 8 * sum(prod(shape) for shape in operator.buffers.values())
