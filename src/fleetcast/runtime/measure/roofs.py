"""What torch reaches on this machine: streams through memory, and products as the engine multiplies them.

A product is timed with its weights in memory (a ring of matrices, larger together than the last cache, so that each is
gone again before its turn comes back) and with weights that the cache holds (a small ring): for few rows the two differ
by a factor of several, and a model's weights are read once an iteration. How many bytes of weights the cache keeps from
one turn to the next is measured on rings of growing size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import MissingExtra
from fleetcast.runtime.llm.linear import Linear

try:
    import torch
except ImportError:
    raise MissingExtra("torch", "torch") from None

Array = NDArray[np.float64]
Clock = Callable[[], float]

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
"""Tokens at which products are timed."""
SHAPES = ((256, 256), (512, 512), (1024, 1024), (3072, 1024), (1024, 2816))
"""Outputs and inputs of the matrices whose weights come from memory."""
KEPT = (1024, 1024)
"""Of those that the cache holds."""
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Sizes of the rings that show what the last cache keeps, relative to it."""
_MOST = 768 << 20
"""B: of a ring; beyond, not all of its matrices are gone when their turn comes back."""


@dataclass(frozen=True, slots=True)
class Products:
    """Times of one format's products.

    Attributes:
        shapes: (s, 2) outputs and inputs.
        rows: (r,) tokens.
        cold: (s, r) s, weights from memory.
        warm: (r,) s of `KEPT`, weights in the last cache.
        noise: by how much the median reading exceeds the least, as a share; the median of all products.
    """

    shapes: Sequence[tuple[int, int]]
    rows: Sequence[int]
    cold: Array
    warm: Array
    noise: float = 0.0


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
        for turn in range(-1, repeats):  # the round before the first sets things up, and the last overwrites what it wrote
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
    noise = float(np.median(np.median(cold, axis=0) / cold.min(axis=0)) - 1.0)
    return Products(shapes, rows, cold.min(axis=0), warm.min(axis=0), noise)


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
    count = int(min(max(4.0 * cache, 256 << 20), 2 * _MOST) // 4)
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


def gemm_coefficients(
    found: Products, weight: float, bandwidth: float, cached: Mapping[float, float]
) -> tuple[dict[str, Any], float]:
    """Returns the coefficients of `cost.gemm.Gemm` with measured rows, and the standard deviation of log(time) left.

    A fixed time for all products and a time per weight at each number of rows, by least squares on relative errors.

    Args:
        found: the times.
        weight: B of one weight, as `cost.roofline` counts it.
        bandwidth: B/s that passes are relative to.
        cached: s of one row's product by bytes of all weights that take turns.
    """
    elements = np.array([float(n * k) for n, k in found.shapes])
    launch = _launch(found.cold, elements)
    per = ((found.cold - launch) / elements[:, None] * _weights(found.cold, launch)).sum(0)
    per /= _weights(found.cold, launch).sum(0)
    reading = weight / bandwidth
    passes = per / reading
    kept = np.maximum(found.warm - launch, 0.0) / (KEPT[0] * KEPT[1]) / reading
    residual = np.log(found.cold / (launch + elements[:, None] * passes * reading))
    sizes = sorted(cached)
    seconds = np.array([cached[size] for size in sizes])
    fast, slow = seconds.min(), seconds.max()
    held = np.minimum.accumulate(np.clip((slow - seconds) / max(slow - fast, 1e-12), 0.0, 1.0))
    held = np.zeros_like(held) if slow < 1.1 * fast else held  # no cache to speak of, or one that holds all
    return {
        "launch": launch, "depth": 0.0, "compute": 1.0, "memory": 1.0, "sharp": 1,
        "rows": [float(m) for m in found.rows], "passes": passes.tolist(),
        "kept": np.minimum(kept, passes).tolist(), "footprint": sizes, "held": held.tolist(),
    }, float(residual.std())  # fmt: skip


def _weights(seconds: Array, launch: float) -> Array:
    return np.asarray(np.maximum(seconds - launch, 1e-12) / seconds)


def _launch(seconds: Array, elements: Array) -> float:
    """Returns the fixed time that makes times per weight agree best across shapes."""
    best = (np.inf, 0.0)
    for launch in np.linspace(0.0, float(seconds.min()) * 0.9, 91):
        per = (seconds - launch) / elements[:, None]
        best = min(best, (float(np.log(per).std(axis=0).mean()), float(launch)))
    return best[1]
