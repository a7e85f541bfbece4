"""GFLOP/s of products of given shapes on this machine, in numpy: what advice on sizes is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fleetcast.runtime.measure.timing import fastest

Shape = tuple[int, int, int]


def rates(
    shapes: Sequence[Shape], repeats: int = 20, *, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float64]:
    """Returns (n,) GFLOP/s of products of m x k with k x n numbers of 32 bits, the fastest of ``repeats`` rounds.

    All shapes take turns, so that what disturbs the machine for a while disturbs all of them.

    Args:
        shapes: (m, n, k) of each.
        repeats: rounds.
        progress: called with (rounds done, rounds).
    """
    calls = []
    random = np.random.default_rng(0)
    for m, n, k in shapes:
        left, right = (random.random(size, dtype=np.float32) for size in ((m, k), (k, n)))
        calls.append(partial(np.matmul, left, right, out=np.empty((m, n), np.float32)))
    seconds = fastest(calls, repeats, progress=progress)
    return np.array([2.0 * m * n * k for m, n, k in shapes]) / seconds / 1e9
