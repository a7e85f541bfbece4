"""Lower bounds on what a plan can reach, so that a search need not simulate what cannot win.

Everything rests on one idea: if ``t[i]`` is at least what request i will take, then every percentile, mean and maximum
of ``t`` is at least that of the truth, because those are monotone in each value. A `Floor` holds such times; `pace`
gives what an idle replica needs, `Floor.backlog` what queueing adds when work exceeds speed, `seen` what a simulation
of the trace's first part has already shown. Each docstring says why its bound holds; `tests/search` holds the pruned
search equal to the exhaustive one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fleetcast.scenario.outcome import Outcome
from fleetcast.scenario.workload.requests import Requests
from fleetcast.search.pace import SLACK, Floats, Pace, Traffic

CLEAR = 1.0 + 1e-9
"""A bound must exceed a limit by more than rounding."""


def rank(q: float, n: int) -> int:
    """Returns the index of the lower of the two sorted values that numpy's percentile ``q`` of n lies between."""
    return max(0, math.floor(q / 100.0 * (n - 1) - 1e-9))


@dataclass(frozen=True, eq=False)
class Floor:
    """Times that each request takes at least, under one plan.

    Attributes:
        traffic: the requests.
        ttft: s, at least.
        gap: s from first to last token, at least.
        speed: tokens/s that all replicas together process at most.
        arrival: s; of a closed loop as far as known, else 0, which only lowers what rests on it.
        last: s, a time that the last finish is known to exceed.
        quality: share of right answers, at most.
    """

    traffic: Traffic
    ttft: Floats
    gap: Floats
    speed: float
    arrival: Floats
    last: float = 0.0
    quality: float = 1.0

    @property
    def open(self) -> bool:
        """Whether requests arrive by the clock."""
        return not self.traffic.requests.concurrency

    def exceeds(self, path: str, limit: float) -> bool:
        """Whether ``metrics[path]`` certainly lies above ``limit``, s: what `metric` says, by counting.

        A percentile lies above the limit when the lower of the two values it lies between does, that is when at least
        n - rank values do.
        """
        name, _, statistic = path.partition(".")
        limit *= CLEAR
        if not statistic.startswith("p"):
            return self.metric(path) > limit
        q = float(statistic[1:])
        if name == "tpot":
            late = np.count_nonzero(self.gap > limit * self.traffic.steps)
            return self.traffic.many > 0 and bool(late >= self.traffic.many - rank(q, self.traffic.many))
        times = self.ttft if name == "ttft" else self.ttft + self.gap
        late = np.count_nonzero(times > limit)
        return bool(late >= len(times) - rank(q, len(times))) or self.backlog(name, q) > limit

    def metric(self, path: str) -> float:
        """Returns a value that ``metrics[path]`` is not below; path e.g. ``ttft.p99``, s, or ``error``."""
        name, _, statistic = path.partition(".")
        if name == "error":
            return 1.0 - self.quality
        if name == "tpot":
            return self._tpot(statistic)
        times = self.ttft if name == "ttft" else self.ttft + self.gap
        if statistic == "mean":
            return float(times.mean())
        return max(float(np.percentile(times, float(statistic[1:]))), self.backlog(name, float(statistic[1:])))

    def _tpot(self, statistic: str) -> float:
        if statistic == "mean":
            return float(self.gap.sum() / self.traffic.requests.output.sum())
        many = self.traffic.steps > 0
        if not many.any():
            return 0.0
        each = self.gap[many] / self.traffic.steps[many]
        return float(each.mean() if statistic == "mean_per_request" else np.percentile(each, float(statistic[1:])))

    @cached_property
    def span(self) -> float:
        """First arrival to last finish, s, at least.

        The last finish is not before any request's arrival plus its own least time; and all tokens of the requests
        from the k-th on are processed after the k-th arrives, at no more than ``speed``.
        """
        start, sums = float(self.arrival[0]), self.traffic.sums["e2e"]
        ends = max(float((self.arrival + self.ttft + self.gap).max()), self.last)
        if self.open:
            left = sums[-1] - sums + self.traffic.tokens["e2e"]
            return max(ends - start, float((self.traffic.elapsed + left / self.speed).max()) * SLACK)
        return max(ends - start, float(sums[-1]) / self.speed * SLACK)

    def backlog(self, name: str, q: float) -> float:
        """Least value L of percentile q of ``ttft`` or ``e2e`` that work conservation allows, s; 0 in a closed loop.

        If the percentile is L, all requests but the e slowest take at most L. Of those that arrive up to a_k the
        tokens, at least the sum so far less the e largest of all, are then processed between a_0 and a_k + L, by
        replicas that process at most ``speed`` tokens a second. So L >= (sum_k - largest_e) / speed - (a_k - a_0).
        """
        if not self.open:
            return 0.0
        n = len(self.ttft)
        largest = self.traffic.largest(name, n - 1 - rank(q, n))
        done = (self.traffic.sums[name] - largest) / self.speed - self.traffic.elapsed
        return float(done.max()) * SLACK

    def within(self, limits: dict[str, float]) -> int:
        """Returns how many requests can at most meet every limit taken per request (s, by metric)."""
        met = np.ones(len(self.ttft), dtype=bool)
        for metric, limit in limits.items():
            if metric == "tpot":
                met &= self.gap <= limit * np.maximum(self.traffic.steps, 1.0)
            else:
                met &= (self.ttft if metric == "ttft" else self.ttft + self.gap) <= limit
        return int(met.sum())


def floor_of(parts: Sequence[tuple[int, Pace, str]], traffic: Traffic) -> Floor:
    """Returns the Floor of a plan: each request may go to any pool of its phase, and the replicas' speeds add up.

    Args:
        parts: (replicas, pace, role) per pool; "prefill" keeps its decode pace out, "decode" its prefill pace.
        traffic: the requests.
    """
    speed = sum(replicas / p.token for replicas, p, _ in parts)
    ttft = np.minimum.reduce([p.ttft for _, p, role in parts if role != "decode"])
    gap = np.minimum.reduce([p.gap for _, p, role in parts if role != "prefill"])
    return Floor(traffic, ttft, gap, speed, traffic.requests.arrival)


def seen(floor: Floor, part: Outcome, horizon: float, api: Floats) -> Floor:
    """Returns ``floor`` raised by what a simulation of the first requests alone has shown.

    A world is causal: until the first request that was left out arrives, at ``horizon``, both runs are the same. So a
    token that came out before the horizon comes out then in the full run too; one that had not come out is later than
    the horizon, whatever follows.

    Args:
        floor: of the same plan on all requests.
        part: the plan's outcome on the first k requests.
        horizon: s, when request k arrives, from `horizon_of`.
        api: s of each of the k that lie outside the replicas, under this outcome.
    """
    served = part.requests
    assert served is not None
    k = len(served.arrival)
    ttft, gap, arrival = floor.ttft.copy(), floor.gap.copy(), floor.arrival
    first = served.arrival + served.ttft - api
    span = served.e2e - served.ttft
    begun, done = first < horizon, first + span < horizon
    ttft[:k] = np.where(begun, served.ttft * SLACK, np.maximum(ttft[:k], horizon - served.arrival))
    gap[:k] = np.where(begun & done, span * SLACK, np.where(begun, np.maximum(gap[:k], horizon - first), gap[:k]))
    if not floor.open:
        arrival = arrival.copy()
        arrival[:k] = served.arrival
    return Floor(floor.traffic, ttft, gap, floor.speed, arrival, horizon, floor.quality)


def horizon_of(requests: Requests, part: Outcome, k: int, api: Floats) -> float:
    """Returns when request k, the first left out, would have entered a run: by the clock, or when a user is free.

    In a closed loop request k is sent when ``k - users + 1`` requests have finished; up to then both runs are the same.

    Args:
        requests: all of them.
        part: outcome of the first k.
        k: how many were run.
        api: s of each of the k that lie outside the replicas, under this outcome.
    """
    if not requests.concurrency:
        return float(requests.arrival[k])
    served = part.requests
    assert served is not None
    if k < requests.concurrency:
        return 0.0
    return float(np.sort(served.arrival + served.e2e - api)[k - requests.concurrency])


def demand(outcome: Outcome, prompt: NDArray[np.int64], block: int) -> int:
    """Returns the most KV blocks that the requests present in one replica could claim at any time.

    A request is present from arrival to finish and claims at most the blocks of prompt and output. If that stays
    below a lane's capacity less its watermark, memory never delays or evicts anything, so that plans which differ only
    in capacity have the same outcome.

    Args:
        outcome: of these requests, or of the first of them.
        prompt: tokens.
        block: tokens of a block; the smallest where pools differ.
    """
    served = outcome.requests
    assert served is not None
    blocks = -(-(prompt[: len(served.arrival)] + served.output) // block)
    # one timeline per replica, laid end to end: arrivals stand first, so that equal times count as overlapping
    finish, replica = served.arrival + served.e2e, served.resource
    order = np.lexsort((np.concatenate([served.arrival, finish]), np.concatenate([replica, replica])))
    return int(np.cumsum(np.concatenate([blocks, -blocks])[order]).max())
