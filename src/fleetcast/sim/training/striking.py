"""The failures that strike a long job, in order of time: exponential or Weibull per machine."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import NamedTuple

from fleetcast.base.rng import rng


class Failure(NamedTuple):
    """A failure: when (s), of which machine, and how long that is away (s)."""

    time: float
    machine: int
    repair: float


def failures(
    machines: int, mtbf: float, *, repair: float = 0.0, shape: float = 1.0, seed: int = 0
) -> Iterator[Failure]:
    """Yields the failures of ``machines`` in order, without end.

    Args:
        machines: nodes; each fails on its own, and is as new after each failure.
        mtbf: s, mean time between failures of one.
        repair: s that a failed one is away.
        shape: of the Weibull distribution of the times between; 1 = exponential, below = early failures.
        seed: of the random stream.
    """
    draw = rng(seed, "long run", "failures")
    if mtbf == math.inf:
        return
    if shape == 1.0:
        # Exponential times of many are one exponential time with all their rates: the same process, drawn at once.
        time = 0.0
        while True:
            for gap, who in zip(draw.exponential(mtbf / machines, 64), draw.integers(0, machines, 64), strict=True):
                time += float(gap)
                yield Failure(time, int(who), repair)
    scale = mtbf / math.gamma(1.0 + 1.0 / shape)
    coming = [(float(t), m) for m, t in enumerate(scale * draw.weibull(shape, machines))]
    heapq.heapify(coming)
    while True:
        time, who = coming[0]
        yield Failure(time, who, repair)
        heapq.heapreplace(coming, (time + scale * float(draw.weibull(shape)), who))
