"""Pods are ended at once and warmed again when most of a function's requests come, as a histogram of its gaps says.

Shahrad and others, "Serverless in the Wild", USENIX ATC 2020, their hybrid histogram policy: the head (5th percentile,
less a tenth) is when a pod is warmed, the tail (99th, plus a tenth) until when it stays; where gaps scatter too evenly
(the counts of bins vary by less than twice their mean) or lie out of bounds, pods stay for the histogram's range.
Here gaps run from arrival to arrival, and what the paper leaves to a time series model, functions that are mostly out
of bounds, keeps its pods for the range too.
"""

from __future__ import annotations

import numpy as np

from fleetcast.policy.scale import Decision, View
from fleetcast.policy.scale.epochs import known

BINS = 240


class Histogram:
    """The hybrid histogram policy.

    Args:
        range: s that the histogram covers, in 240 bins; the paper's is 4 hours in bins of a minute.
        head: share of gaps that may come before a pod is warm.
        tail: share of gaps after which it may end.
        margin: share by which both are widened.
        varies: least deviation of the bins' counts over their mean at which the histogram is believed.
    """

    kind = "histogram"
    knob = ("range", 1.0, 1e5)

    def __init__(
        self, *, range: float = 14400.0, head: float = 0.05, tail: float = 0.99, margin: float = 0.1,
        varies: float = 2.0,
    ) -> None:  # fmt: skip
        if not 0 < range <= 1e7:
            raise ValueError("range is out of range: above 0, at most 1e7 s")
        if not 0 <= head < tail <= 1 or not 0 <= margin < 1 or varies < 0:
            raise ValueError("head is below tail, both are shares; margin is below 1, varies 0 or more")
        self.range, self.head, self.tail, self.margin, self.varies = range, head, tail, margin, varies

    def decide(self, view: View) -> Decision:
        """Returns the window in which most gaps end, or the whole range."""
        gaps, _, stands = known(view)
        inside = gaps[gaps < self.range]
        if len(gaps) < 2 or 2 * len(inside) <= len(gaps):
            return Decision(self.range, stands=stands)
        width = self.range / BINS
        counts = np.bincount((inside / width).astype(np.int64), minlength=BINS)
        if counts.std() < self.varies * counts.mean():
            return Decision(self.range, stands=stands)
        sums = np.cumsum(counts) / len(inside)
        head = int(np.searchsorted(sums, self.head, side="left"))
        tail = min(int(np.searchsorted(sums, self.tail, side="left")), BINS - 1)
        end = (tail + 1) * width * (1.0 + self.margin)
        if head == 0:
            return Decision(end, stands=stands)
        begin = head * width * (1.0 - self.margin)
        return Decision(0.0, begin, max(begin, end), stands=stands)
