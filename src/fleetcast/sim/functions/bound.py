"""The fewest cold starts that keeping pods warm can have at given pod-seconds, for one who knows every arrival.

Requests take the pod that became free last: of all ways to match them this leaves the shortest gaps (where two pods are
free and two requests come, the other way has the two middle gaps instead of the shortest and the longest). To keep a
pod over a gap saves one cold start, whatever the gap: a knapsack of unit values, which the shortest gaps fill.

A gap weighs what it is in a world whose starts take no time, less the start that it saves, less the start of the
request before, which may have put the gap's begin off. So the weights are at most what a policy pays, and what comes
out is a bound; where starts take no time it is reached. Who warms pods ahead is not bound by it: with every arrival
known that would take no cold start at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleetcast.scenario.workload.invocations import Invocations
from fleetcast.sim.functions import kernel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """Cold starts against pod-seconds of the clairvoyant.

    Attributes:
        least: s that pods live at least, when none is kept: every request starts one.
        weights: f8[k], s that keeping a pod over a gap adds, ascending.
        requests: number of them.
    """

    least: float
    weights: Array
    requests: int

    def cold(self, seconds: float) -> int:
        """Returns the fewest cold starts at so many pod-seconds."""
        spent = self.least + np.cumsum(self.weights)
        # what is gained for nothing comes first: the curve is read where it is lowest
        reach = np.minimum.accumulate(spent[::-1])[::-1] if len(spent) else spent
        return self.requests - int(np.searchsorted(reach, seconds * (1 + 1e-12), side="right"))

    def curve(self, points: int = 200) -> tuple[Array, Array]:
        """Returns pod-seconds and cold starts, both f8[points]."""
        at = np.unique(np.linspace(0, len(self.weights), points).astype(np.int64))
        spent = np.concatenate([[self.least], self.least + np.cumsum(self.weights)])
        return spent[at], (self.requests - at).astype(np.float64)


def bound(trace: Invocations) -> Bound:
    """Returns the clairvoyant's bound of a trace."""
    n, c = len(trace), kernel.column
    gap, before = np.empty(n), np.empty(n, np.int64)
    room = max(1, n)
    kernel.match(
        c("q", trace.first), c("d", trace.time), c("d", trace.duration), c("d", gap), c("q", before),
        c("d", np.empty(room)), c("q", np.empty(room, np.int64)), c("q", np.empty(room, np.int64)),
    )  # fmt: skip
    function = trace.function
    rows = np.diff(trace.row)[function]
    start = trace.total[trace.row[function] + (np.arange(n) - trace.first[function]) % np.maximum(rows, 1)]
    kept = before >= 0
    saved = start[kept] + np.where(kept, start[np.maximum(before, 0)], 0.0)[kept]
    return Bound(float(trace.duration.sum() + start.sum()), np.sort(gap[kept] - saved), n)
