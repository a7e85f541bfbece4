"""The fastest of several interleaved runs: what a call takes when nothing disturbs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

LEAST = 2e-4
"""s: shorter calls are repeated within one reading until it takes as long."""


def fastest(
    calls: Sequence[Callable[[], object]], repeats: int = 20, *,
    clock: Callable[[], float] = time.perf_counter, progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """Returns (n,) s per call: the least of ``repeats`` readings.

    Every round reads each call once, so that a disturbance of some seconds spoils one reading of many calls and not
    many of one. An untimed run goes before each reading: caches hold what the call itself would leave there.

    Args:
        calls: what to time.
        repeats: readings of each, at least 1.
        clock: s, monotonic.
        progress: called with (rounds done, rounds).
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    loops = []
    for call in calls:
        call()  # the first call of all sets things up
        begin = clock()
        call()
        loops.append(max(1, int(LEAST / max(clock() - begin, 1e-9))))
    best = np.full(len(calls), np.inf)
    for turn in range(repeats):
        for i, call in enumerate(calls):
            call()
            begin = clock()
            for _ in range(loops[i]):
                call()
            best[i] = min(best[i], (clock() - begin) / loops[i])
        if progress is not None:
            progress(turn + 1, repeats)
    return best
