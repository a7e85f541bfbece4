"""Times of matrix products over rows, and the coefficients that follow: a fixed time, and a time per weight at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROWS = (1, 2, 3, 4, 6, 8, 9, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
"""Tokens at which products are timed."""
SHAPES = ((512, 512), (1024, 1024), (3072, 1024), (1024, 2816))
"""Outputs and inputs of the matrices whose weights come from memory."""
KEPT = (1024, 1024)
"""Of those that the cache holds."""
FEW = 8
"""Rows up to which the engine's own kernels multiply, and a library beyond."""
TINY = (32, 32)
"""Of the one that shows what a call costs."""


@dataclass(frozen=True, slots=True)
class Products:
    """Times of one format's products.

    Attributes:
        shapes: (s, 2) outputs and inputs.
        rows: (r,) tokens.
        cold: (s, r) s, weights from memory.
        warm: (r,) s of `KEPT`, weights in the last cache.
        tiny: (r,) s of `TINY`, so small that the call is most of it.
        noise: by how much the median reading exceeds the least, as a share; the median of all products.
    """

    shapes: Sequence[tuple[int, int]]
    rows: Sequence[int]
    cold: Array
    warm: Array
    tiny: Array
    noise: float = 0.0


def gemm_coefficients(
    found: Products, weight: float, bandwidth: float, cached: Mapping[float, float]
) -> tuple[dict[str, Any], float]:
    """Returns the coefficients of `cost.gemm.Gemm` with measured rows, and the standard deviation of log(time) left.

    At each number of rows a fixed time, that of a call, and a time per weight: the mean over shapes, each weighing as
    much as weights are of its time.

    Args:
        found: the times.
        weight: B of one weight, as `cost.roofline` counts it.
        bandwidth: B/s that passes are relative to.
        cached: s of one row's product by bytes of all weights that take turns.
    """
    elements = np.array([float(n * k) for n, k in found.shapes])
    small = float(TINY[0] * TINY[1])
    over = np.maximum(found.cold - found.tiny, 0.1 * found.cold)
    per = (over / (elements[:, None] - small) * over / found.cold).sum(0) / (over / found.cold).sum(0)
    calls = np.maximum(found.tiny - small * per, 0.0)
    reading = weight / bandwidth
    passes = per / reading
    kept = np.maximum(found.warm - calls, 0.1 * found.warm) / (KEPT[0] * KEPT[1]) / reading
    residual = np.log(found.cold / (calls + elements[:, None] * passes * reading))
    sizes = sorted(cached)
    seconds = np.array([cached[size] for size in sizes])
    fast, slow = seconds.min(), seconds.max()
    held = np.minimum.accumulate(np.clip((slow - seconds) / max(slow - fast, 1e-12), 0.0, 1.0))
    held = np.zeros_like(held) if slow < 1.1 * fast else held  # no cache to speak of, or one that holds all
    return {
        "launch": float(calls[0]), "depth": 0.0, "compute": 1.0, "memory": 1.0, "sharp": 1,
        "rows": [float(m) for m in found.rows], "calls": calls.tolist(), "passes": passes.tolist(),
        "kept": np.minimum(kept, passes).tolist(), "footprint": sizes, "held": held.tolist(),
    }, float(residual.std())  # fmt: skip
