"""Waves: which operators run together, on how many devices each, one wave after another.

In a wave every MetaOp in it runs some of its operators on a fixed number of devices; the wave is cut where the first of
them would end, so that all stop at nearly one moment and the devices are dealt anew. Two ways of dealing are here:

- `level_waves`, Spindle's: level by level, the continuous optimum's two whole numbers for each MetaOp, greedy waves.
- `ready_waves`: no levels. Before each wave the optimum is solved again for all that could run, each with the chain
  behind it, so that a long chain is not kept waiting by a wide level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetcast.search.waves.allocate import lengths, relax, two_points
from fleetcast.search.waves.graph import Graph, levels


@dataclass(frozen=True)
class Share:
    """What one MetaOp does in one wave.

    Attributes:
        op: index of the MetaOp.
        devices: that each of its operators runs on.
        first, count: which of its operators.
    """

    op: int
    devices: int
    first: int
    count: int


Wave = tuple[Share, ...]
NEAR = 1e-9


def level_waves(graph: Graph, devices: int) -> list[Wave]:
    """Returns the waves of Spindle's scheduler."""
    level, found = levels(graph), list[Wave]()
    for depth in range(max(level) + 1):
        here = [i for i, at in enumerate(level) if at == depth]
        optimum = relax([graph[i].curve for i in here], [graph[i].count for i in here], devices)
        todo: dict[int, list[list[int]]] = {}
        for i, n in zip(here, optimum.devices, strict=True):
            low, high = two_points(graph[i].curve, graph[i].count, n, optimum.seconds)
            todo[i] = [list(part) for part in (high, low) if part[1]]
        done = dict.fromkeys(here, 0)
        while todo:
            picked = _fit(graph, devices, todo)
            wave = _cut(graph, picked, {i: done[i] for i in picked}, {i: graph[i].count - done[i] for i in picked})
            found.append(wave)
            for share in wave:
                done[share.op] += share.count
                _spend(todo, share)
    return found


def _fit(graph: Graph, devices: int, todo: dict[int, list[list[int]]]) -> dict[int, int]:
    """Returns devices of the MetaOps of a wave: those that need longest first, then idle devices to who needs them."""

    def left(i: int) -> float:
        return sum(graph[i].curve.on(n) * count for n, count in todo[i])

    free, picked = devices, dict[int, int]()
    for i in sorted(todo, key=lambda i: (-left(i), i)):
        fitting = [part for part in todo[i] if part[0] <= free]
        if fitting:
            picked[i] = max(fitting)[0]
            free -= picked[i]
    remaining = {i: sum(count for _, count in todo[i]) for i in picked}
    return _widen(graph, picked, remaining, free)


def _spend(todo: dict[int, list[list[int]]], share: Share) -> None:
    """Takes operators off the parts nearest to the devices that they ran on."""
    parts, count = todo[share.op], share.count
    while count and parts:
        part = min(parts, key=lambda p: abs(p[0] - share.devices))
        taken = min(count, part[1])
        part[1] -= taken
        count -= taken
        if not part[1]:
            parts.remove(part)
    if not parts:
        del todo[share.op]


def ready_waves(graph: Graph, devices: int, behind: Sequence[float] | None = None) -> list[Wave]:
    """Returns waves of whatever could run, the continuous optimum solved again before each.

    Args:
        graph: MetaOps.
        devices: that they share.
        behind: seconds of the longest chain behind each; None = as long as in the bound on any schedule.
    """
    tails = lengths(graph, devices) if behind is None else list(behind)
    left, found = [op.count for op in graph], list[Wave]()
    while any(left):
        ready = [i for i, op in enumerate(graph) if left[i] and not any(left[j] for j in op.after)]
        optimum = relax([graph[i].curve for i in ready], [left[i] for i in ready], devices, [tails[i] for i in ready])
        picked = _round(graph, devices, dict(zip(ready, optimum.devices, strict=True)), left, tails)
        wave = _cut(graph, picked, {i: graph[i].count - left[i] for i in picked}, {i: left[i] for i in picked})
        found.append(wave)
        for share in wave:
            left[share.op] -= share.count
    return found


def _round(
    graph: Graph, devices: int, wanted: dict[int, float], left: Sequence[int], tails: Sequence[float]
) -> dict[int, int]:
    """Returns whole devices near the optimum's: the smaller count of each, then more to whoever ends last."""
    picked, free = dict[int, int](), devices
    for i in sorted(wanted, key=lambda i: (-tails[i] - left[i] * graph[i].curve.time(devices), i)):
        low = graph[i].curve.allowed(min(free, max(int(wanted[i] + NEAR), graph[i].curve.counts[0])))
        if low:
            picked[i] = low
            free -= low
    return _widen(graph, picked, {i: left[i] for i in picked}, free, tails)


def _widen(
    graph: Graph, picked: dict[int, int], left: dict[int, int], free: int, tails: Sequence[float] | None = None
) -> dict[int, int]:
    """Hands idle devices, one step of a curve at a time, to the MetaOp that would end last and can use them."""
    open_ = set(picked)
    while open_ and free:
        last = max(
            open_, key=lambda i: (graph[i].curve.on(picked[i]) * left[i] + (tails[i] if tails is not None else 0.0), -i)
        )
        wider = graph[last].curve.following(picked[last])
        if wider is None or wider - picked[last] > free:
            open_.remove(last)
            continue
        free -= wider - picked[last]
        picked[last] = wider
    return picked


def list_waves(graph: Graph, devices: int, counts: Sequence[int], behind: Sequence[float]) -> list[Wave]:
    """Returns a wave for each MetaOp, whole, on ``counts`` of devices: the longest chain first."""
    waiting, found = set(range(len(graph))), list[Wave]()
    while waiting:
        ready = [i for i in waiting if not waiting.intersection(graph[i].after)]
        i = max(ready, key=lambda i: (behind[i] + graph[i].curve.on(counts[i]) * graph[i].count, -i))
        waiting.remove(i)
        found.append((Share(i, graph[i].curve.allowed(counts[i]), 0, graph[i].count),))
    return found


def _cut(graph: Graph, picked: dict[int, int], first: dict[int, int], left: dict[int, int]) -> Wave:
    """Returns the wave that ends where the first of its MetaOps does, in whole operators."""
    each = {i: graph[i].curve.on(n) for i, n in picked.items()}
    span = min(each[i] * left[i] for i in picked)
    return tuple(Share(i, picked[i], first[i], max(1, min(left[i], round(span / each[i])))) for i in sorted(picked))


def one_by_one(graph: Graph, devices: int) -> list[Wave]:
    """Returns a wave for each MetaOp, on all devices that speed it up: what a trainer of one task at a time does."""
    return [(Share(i, op.curve.allowed(devices), 0, op.count),) for i, op in enumerate(graph)]
