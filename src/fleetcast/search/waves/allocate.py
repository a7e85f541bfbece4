"""How many devices each MetaOp gets: the continuous optimum by bisection, then two whole numbers for each.

MetaOps that wait for nothing are *malleable*: they may share the devices in any proportion. The least time C in which
all of them end is where the devices that each needs to end by C sum to what there is. Chopping that into whole devices
takes two numbers: some of a MetaOp's operators on the next smaller count, the others on the next larger one, so that
together they take C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from fleetcast.search.waves.curves import Curve
from fleetcast.search.waves.graph import Graph, levels, tails


@dataclass(frozen=True)
class Relaxed:
    """The continuous optimum: seconds until all end, and the devices of each, fractions too."""

    seconds: float
    devices: tuple[float, ...]


def relax(
    curves: Sequence[Curve], counts: Sequence[float], devices: int, tails: Sequence[float] | None = None
) -> Relaxed:
    """Returns the least time in which MetaOps that wait for nothing all end, and what each gets.

    Args:
        curves: of one operator of each.
        counts: operators of each, above 0.
        devices: that they share.
        tails: seconds that follow each; None = nothing does. The longest end is minimised.
    """
    behind = [0.0] * len(curves) if tails is None else list(tails)
    work = list(zip(curves, counts, behind, strict=True))

    def need(end: float) -> float:
        return sum(c.need((end - t) / n) if end > t else np.inf for c, n, t in work)

    # Each needs its own least time, and one after the other on all devices is always possible.
    low = max(c.time(devices) * n + t for c, n, t in work)
    high = sum(c.time(devices) * n for c, n, _ in work) + max(behind)
    while need(high) > devices:  # only where more devices speed a MetaOp up by more than their share
        high *= 1.5
    if need(low) <= devices:
        high = low
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if need(middle) <= devices:
            high = middle
        else:
            low = middle
    return Relaxed(high, tuple(min(c.need((high - t) / n), float(devices)) for c, n, t in work))


def two_points(curve: Curve, count: int, devices: float, seconds: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns ((smaller devices, operators), (larger devices, operators)) that take about ``seconds`` in all.

    The operators sum to ``count``. Below the first count of the curve the smaller is that count: a share of a device is
    a device for a share of the time.
    """
    low = curve.allowed(int(devices)) or curve.counts[0]
    high = curve.following(low)
    if devices <= low or high is None:
        return (low, count), (high or low, 0)
    slow, fast = curve.on(low), curve.on(high)
    many = (seconds - count * fast) / (slow - fast)
    share = min(max(round(many), 0), count)
    return (low, share), (high, count - share)


def level_bound(graph: Graph, devices: int) -> float:
    """Returns seconds that no schedule beats which ends one level before it starts the next."""
    return sum(optimum.seconds for _, optimum in _by_level(graph, devices))


def level_shares(graph: Graph, devices: int) -> list[float]:
    """Returns the devices of each MetaOp, fractions too, where each level ends before the next starts."""
    found = [0.0] * len(graph)
    for members, optimum in _by_level(graph, devices):
        for i, n in zip(members, optimum.devices, strict=True):
            found[i] = n
    return found


def _by_level(graph: Graph, devices: int) -> list[tuple[list[int], Relaxed]]:
    """Returns the MetaOps of each level and their optimum."""
    level = levels(graph)
    members = [[i for i, at in enumerate(level) if at == depth] for depth in range(max(level) + 1)]
    return [(m, relax([graph[i].curve for i in m], [graph[i].count for i in m], devices)) for m in members]


def any_bound(graph: Graph, devices: int) -> tuple[float, list[float]]:
    """Returns (seconds that no schedule beats, seconds of each MetaOp in that relaxation).

    A linear programme: each MetaOp's operators are dealt to counts of devices; every chain of MetaOps must end in time,
    and all work together must fit into devices x time.
    """
    choices = [
        [(n, t * op.count) for n, t in zip(op.curve.counts, op.curve.seconds, strict=True) if n <= devices]
        for op in graph
    ]
    width = sum(map(len, choices))
    ops = len(graph)
    size = width + ops + 1  # shares of each count, start of each MetaOp, the end
    first = np.cumsum([0, *map(len, choices)])
    rows = []
    even = np.zeros((ops, size))
    work = np.zeros(size)
    for i, op in enumerate(graph):
        own = slice(first[i], first[i + 1])
        even[i, own] = 1.0
        work[own] = [n * t for n, t in choices[i]]
        last = np.zeros(size)
        last[own] = [t for _, t in choices[i]]
        last[width + i] = 1.0
        end = last.copy()
        end[-1] = -1.0
        rows.append(end)
        for j in op.after:
            row = np.zeros(size)
            row[first[j] : first[j + 1]] = [t for _, t in choices[j]]
            row[width + j] += 1.0
            row[width + i] -= 1.0
            rows.append(row)
    work[-1] = -float(devices)
    rows.append(work)
    cost = np.zeros(size)
    cost[-1] = 1.0
    found = linprog(cost, A_ub=np.array(rows), b_ub=np.zeros(len(rows)), A_eq=even, b_eq=np.ones(ops), bounds=(0, None))
    if not found.success:
        raise ArithmeticError(found.message)
    seconds = [float(found.x[first[i] : first[i + 1]] @ np.array([t for _, t in choices[i]])) for i in range(ops)]
    return float(found.fun), seconds


def lengths(graph: Graph, devices: int) -> list[float]:
    """Returns the longest chain behind each MetaOp, each MetaOp as long as in `any_bound`'s relaxation."""
    return tails(graph, any_bound(graph, devices)[1])
