"""Functions played under a scale policy: what each request waited for, and what each pod lived through.

The policy is asked at arrivals, as often as its decisions say; its answers become columns, which the loop
(`kernel.walk`) reads. Arrivals are the trace's: a request that had to wait does not put off those that follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleetcast.base.errors import PolicyError
from fleetcast.policy.scale import FOREVER, NEVER, Decision, Policy, View
from fleetcast.scenario.workload.invocations import COMPONENTS, Invocations
from fleetcast.sim.functions import kernel

Array = NDArray[np.float64]
NONE = np.empty(0)


@dataclass(frozen=True)
class Rules:
    """Decisions as columns: those of function f are rows first[f] to first[f + 1], each from its arrival ``at`` on."""

    first: NDArray[np.int64]
    at: NDArray[np.int64]
    keep: Array
    begin: Array
    end: Array
    follow: Array


@dataclass(frozen=True, eq=False)
class Pods:
    """What became of a trace's requests and of the pods that served them.

    Attributes:
        trace: the invocations.
        wait: f8[n], s from arrival until a pod was there.
        state: i1[n], how the request met its pod: `kernel.WARM`, `COLD`, `STARTING` or `DELAYED`.
        idle: f8[F], s that pods were warm without work.
        function: i4[p], of each pod.
        start: f8[p], s at which it began to start.
        row: i8[p], which of the trace's starts it took.
        last: f8[p], s at which its last request ended, or at which it was ready where none came.
        death: f8[p], s at which it ended.
    """

    trace: Invocations
    wait: Array
    state: NDArray[np.int8]
    idle: Array
    function: NDArray[np.int32]
    start: Array
    row: NDArray[np.int64]
    last: Array
    death: Array

    @property
    def cold(self) -> int:
        """Requests that waited for a pod to start."""
        return int(((self.state == kernel.COLD) | (self.state == kernel.STARTING)).sum())

    @cached_property
    def seconds(self) -> Array:
        """f8[F], pod-seconds by function: starting, running and idle."""
        found: Array = np.bincount(self.function, self.death - self.start, len(self.trace.names)).astype(np.float64)
        return found

    @cached_property
    def starting(self) -> Array:
        """f8[F], s that pods took to start, by function."""
        found: Array = np.bincount(self.function, self.trace.total[self.row], len(self.trace.names)).astype(np.float64)
        return found

    @property
    def running(self) -> Array:
        """f8[F], s that pods ran, by function."""
        sums = np.concatenate([[0.0], np.cumsum(self.trace.duration)])
        found: Array = sums[self.trace.first[1:]] - sums[self.trace.first[:-1]]
        return found

    @property
    def latency(self) -> Array:
        """f8[n], s from a request's arrival to its end."""
        found: Array = self.wait + self.trace.duration
        return found

    @property
    def utility(self) -> Array:
        """f8[p], a pod's life from being ready to the end of its last request, over the time it took to start."""
        took = self.trace.total[self.row]
        ratio: Array = np.divide(self.last - self.start - took, took, out=np.full(len(took), np.inf), where=took > 0)
        return ratio

    def components(self, region: int | None = None) -> dict[str, float]:
        """Returns s of all starts by component, of one region or of all."""
        chosen = self.row if region is None else self.row[self.trace.region[self.function] == region]
        count = np.bincount(chosen, minlength=len(self.trace.starts)) if len(chosen) else np.zeros(0)
        sums = count @ self.trace.starts if len(chosen) else np.zeros(len(COMPONENTS))
        return dict(zip(COMPONENTS, np.asarray(sums).tolist(), strict=True))

    def peak(self) -> int:
        """Returns the most pods that there are at once."""
        if not len(self.start):
            return 0
        times = np.concatenate([self.start, self.death])
        change = np.repeat([1, -1], len(self.start))
        return int(np.cumsum(change[np.lexsort((change, times))]).max())


def play(trace: Invocations, policy: Policy, *, patience: ArrayLike = 0.0) -> Pods:
    """Returns what becomes of a trace under a policy.

    Args:
        trace: the invocations.
        policy: what is kept warm.
        patience: s that an asynchronous request may wait for a busy pod before one is started for it: one for all
            functions, or f8[F]. Of functions for whose answer somebody waits it is 0 whatever is said.

    Raises:
        PolicyError: a decision that cannot be; names the function.
    """
    return run(trace, rules(trace, policy), patience=patience)


def run(trace: Invocations, decided: Rules, *, patience: ArrayLike = 0.0) -> Pods:
    """Returns the same of decisions that are columns already."""
    n, count = len(trace), len(trace.names)
    waits = np.where(trace.asynchronous, np.asarray(patience, np.float64), 0.0)
    hook, hook_time = _hooks(trace, decided)
    # every request, every window and every call of a caller starts one pod at most
    windows = n if bool(np.isfinite(decided.begin).any()) else 0
    room = max(1, n + windows + len(hook_time))
    wait, state, idle = np.empty(n), np.empty(n, np.int8), np.zeros(count)
    function, start, row = np.empty(room, np.int32), np.empty(room), np.empty(room, np.int64)
    last, death = np.empty(room), np.empty(room)
    c = kernel.column
    pods = kernel.walk(
        c("q", trace.first), c("d", trace.time), c("d", trace.duration), c("q", trace.row), c("d", trace.total),
        c("d", waits), trace.span, c("q", decided.first), c("q", decided.at), c("d", decided.keep),
        c("d", decided.begin), c("d", decided.end), c("d", decided.follow), c("q", hook), c("d", hook_time),
        c("d", wait), c("b", state), c("d", idle), c("i", function), c("d", start), c("q", row), c("d", last),
        c("d", death), c("d", np.empty(room)), c("q", np.empty(room, np.int64)), c("q", np.empty(room, np.int64)),
        c("d", np.empty(room)), c("b", np.empty(room, np.int8)),
    )  # fmt: skip
    lived = (function[:pods].copy(), start[:pods].copy(), row[:pods].copy(), last[:pods].copy(), death[:pods].copy())
    return Pods(trace, wait, state, idle, *lived)


def _hooks(trace: Invocations, decided: Rules) -> tuple[NDArray[np.int64], Array]:
    """The callers' arrivals of every function whose decisions follow them."""
    follows = np.zeros(len(trace.names), bool)
    follows[np.repeat(np.arange(len(trace.names)), np.diff(decided.first))[decided.follow > 0]] = True
    size = np.where(follows & (trace.caller >= 0), np.diff(trace.first)[trace.caller], 0)
    times = [trace.arrivals(int(trace.caller[f])) for f in np.flatnonzero(size)]
    return np.concatenate([[0], np.cumsum(size)]).astype(np.int64), np.concatenate([NONE, *times])


def lags(trace: Invocations, function: int) -> Array:
    """Returns s of each arrival of a function since the last one of its caller; infinite where there is none."""
    arrivals, caller = trace.arrivals(function), int(trace.caller[function])
    if caller < 0:
        return np.full(len(arrivals), np.inf)
    calls = np.concatenate([[-np.inf], trace.arrivals(caller)])
    since: Array = arrivals - calls[np.searchsorted(calls, arrivals, side="right") - 1]
    return since


def rules(trace: Invocations, policy: Policy) -> Rules:
    """Returns what a policy decides at the arrivals at which it is asked, as columns.

    Raises:
        PolicyError: a decision that cannot be; names the function.
    """
    first, at, decided = [0], [], []
    means = mean_starts(trace)
    for f, name in enumerate(trace.names):
        arrivals = trace.arrivals(f)
        if len(arrivals):
            gaps, since = np.diff(arrivals), lags(trace, f)
            caller = int(trace.caller[f])
            calls = np.searchsorted(trace.arrivals(caller), arrivals, side="right") if caller >= 0 else None
            seen = 0
            while seen < len(arrivals):
                view = View(
                    name, trace.triggers[trace.trigger[f]], bool(trace.asynchronous[f]), float(trace.memory[f]),
                    float(means[f]), gaps[:seen], since[: seen + 1], 0 if calls is None else int(calls[seen]),
                )  # fmt: skip
                decision = checked(policy.decide(view), name)
                at.append(seen)
                decided.append(decision)
                seen += min(decision.stands, FOREVER)
        else:
            at.append(0)
            decided.append(Decision(0.0))
        first.append(len(at))
    return Rules(
        np.array(first, np.int64), np.array(at, np.int64), np.array([d.keep for d in decided]),
        np.array([d.begin for d in decided]), np.array([d.end for d in decided]), np.array([d.follow for d in decided]),
    )  # fmt: skip


def mean_starts(trace: Invocations) -> Array:
    """f8[F], s of a start, on average over those of the function."""
    found: Array = np.add.reduceat(trace.total, trace.row[:-1]) / np.diff(trace.row) if len(trace.names) else NONE
    return found


def checked(decision: Decision, name: str) -> Decision:
    """Returns a decision that can be.

    Raises:
        PolicyError: it cannot; names the function.
    """
    good = (
        decision.keep >= 0 and decision.follow >= 0 and decision.begin >= 0 and decision.stands >= 1
        and (decision.begin == NEVER or decision.end >= decision.begin)
    )  # fmt: skip
    if not good:
        raise PolicyError(
            f"function {name}: {decision} cannot be: keep, begin and follow are 0 or more, end is not before begin, "
            "and a decision stands for 1 arrival or more"
        )
    return decision
