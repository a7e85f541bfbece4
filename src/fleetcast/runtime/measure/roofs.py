"""What torch reaches on this machine: streams through memory, and products as the engine multiplies them.

A product is timed with its weights in memory (a ring of matrices, larger together than the last cache, so that each is
gone again before its turn comes back) and with weights that the cache holds (a small ring): for few rows the two differ
by a factor of several, and a model's weights are read once an iteration. How many bytes of weights the cache keeps from
one turn to the next is measured on rings of growing size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.linear import Linear
from fleetcast.runtime.measure.products import KEPT, ROWS, SHAPES, TINY, Products
from fleetcast.runtime.measure.timing import fastest

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Clock = Callable[[], float]

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Sizes of the rings that show what the last cache keeps, relative to it."""
_LEAST, _MOST = 256 << 20, 768 << 20
"""B: of a stream's buffer at least; of a ring at most. Beyond, a ring's first matrices are still there."""


class Ring:
    """Matrices multiplied in turn.

    Args:
        made: returns a matrix of random weights.
        size: B of one matrix.
        total: B that all together reach.
    """

    def __init__(self, made: Callable[[], Linear], size: float, total: float) -> None:
        first = made()
        self.matrices = [first, *(made() for _ in range(max(1, int(-(-min(total, _MOST) // size))) - 1))]
        self.next = 0

    def read(self, x: Any, turns: int, clock: Clock) -> float:
        """Returns s per product of ``turns`` products in a row."""
        here, count = self.next, len(self.matrices)
        chosen = [self.matrices[(here + i) % count] for i in range(turns)]
        self.next = (here + turns) % count
        begin = clock()
        for matrix in chosen:
            matrix(x)
        return (clock() - begin) / turns


def time_products(
    make: Callable[[Any], Linear], weight: float, dtype: Any, cache: float, *, rows: Sequence[int] = ROWS,
    shapes: Sequence[tuple[int, int]] = SHAPES, kept: tuple[int, int] = KEPT, repeats: int = 8,
    clock: Clock = time.perf_counter, progress: Callable[[], None] | None = None,
) -> Products:  # fmt: skip
    """Returns the least times of a format's products over rows.

    Args:
        make: turns an fp32 weight (outputs, inputs) into the engine's matrix of the format.
        weight: B of one weight.
        dtype: of the activations, of torch.
        cache: B of the last cache.
        rows: tokens.
        shapes: outputs and inputs.
        kept: of the matrices that the cache is to hold.
        repeats: rounds over all of it.
        clock: s.
        progress: called after each round.
    """

    def ring(shape: tuple[int, int], total: float) -> Ring:
        return Ring(lambda: make(torch.randn(shape) * shape[1] ** -0.5), weight * shape[0] * shape[1], total)

    cold = np.zeros((repeats, len(shapes), len(rows)))
    warm = np.zeros((repeats, len(rows)))
    with torch.inference_mode():
        rings = [ring(shape, 2.0 * cache) for shape in shapes]
        small = ring(kept, cache / 4.0)
        for turn in range(-1, repeats):  # one round more, which sets things up and is overwritten by the last
            for j, m in enumerate(rows):
                turns = 4 if m < 64 else 1
                for i, (shape, each) in enumerate(zip(shapes, rings, strict=True)):
                    seconds = each.read(torch.randn(m, shape[1]).to(dtype), turns, clock)
                    cold[turn, i, j] = seconds
                x = torch.randn(m, kept[1]).to(dtype)
                small.read(x, len(small.matrices), clock)
                warm[turn, j] = small.read(x, max(turns, len(small.matrices)), clock)
            if progress is not None:
                progress()
        least = make(torch.randn(TINY))
        inputs = [torch.randn(m, TINY[1]).to(dtype) for m in rows]
        tiny = fastest([partial(least, x) for x in inputs], repeats, clock=clock)
    noise = float(np.median(np.median(cold, axis=0) / cold.min(axis=0)) - 1.0)
    return Products(shapes, rows, cold.min(axis=0), warm.min(axis=0), tiny, noise)


def time_cache(
    make: Callable[[Any], Linear], weight: float, dtype: Any, cache: float, *, shape: tuple[int, int] = KEPT,
    repeats: int = 6, clock: Clock = time.perf_counter,
) -> dict[float, float]:  # fmt: skip
    """Returns s of a product of one row by the bytes of all matrices that take turns, see `SHARES`."""
    size, found = weight * shape[0] * shape[1], {}
    with torch.inference_mode():
        x = torch.randn(1, shape[1]).to(dtype)
        largest = Ring(lambda: make(torch.randn(shape) * shape[1] ** -0.5), size, SHARES[-1] * cache)
        for share in SHARES:
            count = min(len(largest.matrices), max(1, round(share * cache / size)))
            if count * size in found:
                continue
            part = Ring(iter(largest.matrices[:count]).__next__, size, count * size)
            part.read(x, count, clock)
            found[count * size] = min(part.read(x, count, clock) for _ in range(repeats))
    return found


def time_streams(
    cache: float, *, repeats: int = 8, clock: Clock = time.perf_counter
) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Returns B/s, the most and the median, of ``read`` (a sum) and ``copy`` (read and written).

    Args:
        cache: B of the last cache; buffers are four times as large.
        repeats: readings.
        clock: s.
    """
    count = int(min(max(4.0 * cache, _LEAST), 2 * _MOST) // 4)
    a, b = torch.zeros(count), torch.zeros(count)
    size = 4.0 * count

    def rates(moved: float, call: Callable[[], Any]) -> tuple[float, float]:
        call()
        seconds = []
        for _ in range(repeats):
            begin = clock()
            call()
            seconds.append(clock() - begin)
        return moved / min(seconds), moved / float(np.median(seconds))

    with torch.inference_mode():
        return {"read": rates(size, a.sum), "copy": rates(2.0 * size, lambda: b.copy_(a))}
