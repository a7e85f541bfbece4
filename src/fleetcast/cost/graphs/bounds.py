"""What no schedule of a graph can beat on unlike workers; messages are left out, so that it holds with them.

The critical path: every task of the longest way on the kind of worker that is quickest at it. The area: all work
divided among all workers at will, in fractions of tasks, a linear programme with one constraint a kind of worker,

    min T : sum_k x_kt = 1 for each task t, sum_t x_kt s_kt <= c_k T for each kind k of c_k workers.

Its dual has one price a kind: T >= sum_t min_k y_k s_kt for all y >= 0 with sum_k c_k y_k = 1, so that any prices give
a bound; cutting planes (Kelley, 1960) find the best. Last, of the tasks after which b seconds still must follow, the
area and then b; and of those before which h must pass, h and then the area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.kernels import dag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.scenario.workload.graphs import TaskGraph

ROUNDS = 100
"""Most cutting planes; each is a bound already."""
AFFORDED = 2_000_000_000
"""Seconds of tasks looked at in all, on all kinds: very large graphs have fewer cutting planes."""


def lower_bound(graph: TaskGraph, platform: Platform) -> float:
    """Returns seconds below which no schedule can end: the largest of the bounds above."""
    quickest = able_seconds(graph, platform).min(axis=0)
    gap = np.zeros(graph.edges)
    tail = np.asarray(dag.upward(graph.order, graph.first, graph.child, quickest, gap))
    head = _heads(graph, quickest)
    share = shares(graph, platform)
    after, before = tail - quickest, head
    return float(max(tail.max(), share.sum(), _staged(share, after), _staged(share, before)))


def critical_path(graph: TaskGraph, platform: Platform) -> float:
    """Returns the seconds of the longest way, every task where it is quickest."""
    quickest = able_seconds(graph, platform).min(axis=0)
    return float(dag.upward(graph.order, graph.first, graph.child, quickest, np.zeros(graph.edges)).max())


def area(graph: TaskGraph, platform: Platform) -> float:
    """Returns the seconds of all work divided at will among all workers."""
    return float(shares(graph, platform).sum())


def able_seconds(graph: TaskGraph, platform: Platform) -> NDArray[np.float64]:
    """Returns f8[K, n]: seconds on each kind, inf where none of its workers has the memory."""
    return np.where(graph.memory[None, :] <= platform.roomiest[:, None], platform.seconds, np.inf)


def shares(graph: TaskGraph, platform: Platform) -> NDArray[np.float64]:
    """Returns f8[n]: what each task adds to the area at the best prices found."""
    seconds = able_seconds(graph, platform)
    count = np.bincount(platform.kind, minlength=len(platform.kinds)).astype(float)
    prices = np.full(len(count), 1.0 / count.sum())
    able = np.isfinite(seconds)
    finite = np.where(able, seconds, 0.0)
    best = _priced(prices, seconds)
    cuts: list[list[float]] = []
    if len(count) == 1:
        return best
    from scipy.optimize import linprog

    for _ in range(max(3, min(ROUNDS, AFFORDED // seconds.size))):
        value = np.where(able, prices[:, None] * finite, np.inf)
        where = value.argmin(axis=0)
        cuts.append(np.bincount(where, seconds[where, np.arange(len(where))], len(count)).tolist())
        # max theta: theta <= cut . y for every cut
        found = linprog(
            np.append(np.zeros(len(count)), -1.0),
            A_ub=np.array([[-c for c in cut] + [1.0] for cut in cuts]), b_ub=np.zeros(len(cuts)),
            A_eq=np.append(count, 0.0)[None, :], b_eq=[1.0], bounds=[(0, None)] * (len(count) + 1), method="highs",
        )  # fmt: skip
        if not found.success:
            break
        prices = np.maximum(found.x[:-1], 0.0)
        prices /= (count * prices).sum()
        share = _priced(prices, seconds)
        if share.sum() > best.sum():
            best = share
        if -found.fun <= best.sum() * (1 + 1e-9):
            break
    return best


def _priced(prices: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    able = np.isfinite(seconds)
    found: NDArray[np.float64] = np.where(able, prices[:, None] * np.where(able, seconds, 0.0), np.inf).min(axis=0)
    return found


def _heads(graph: TaskGraph, quickest: NDArray[np.float64]) -> NDArray[np.float64]:
    """f8[n]: the longest way before each task."""
    begin, edge = graph.by_child
    back = np.asarray(
        dag.upward(graph.order[::-1].copy(), begin, graph.parent_of_edge[edge], quickest, np.zeros(graph.edges))
    )
    return back - quickest


def _staged(share: NDArray[np.float64], rest: NDArray[np.float64]) -> float:
    """The largest of: the area of all tasks with at least so much ``rest``, and that rest."""
    by = np.argsort(-rest, kind="stable")
    return float((np.cumsum(share[by]) + rest[by]).max())
