"""The plan of a multi-task iteration: every way of dealing is laid out in time and place, and the shortest is kept.

Spindle (Wang and others, ASPLOS 2025) deals level by level. Where graphs are deep and narrow, levels leave devices
idle, so MetaOps are also dealt as they become ready, and whole, in the order of the chains behind them; that last way
is then improved by changing the devices of a few MetaOps at a time. The paper has the first way only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fleetcast.search.waves.allocate import any_bound, level_bound, level_shares
from fleetcast.search.waves.baselines import sequential
from fleetcast.search.waves.graph import Graph, MetaOp, tails
from fleetcast.search.waves.place import Timetable, Wires, place
from fleetcast.search.waves.schedule import level_waves, list_waves, ready_waves

TRIES = 500
"""Changes that are tried on the devices of whole MetaOps."""
PIECES = (1, 2)
"""Into how many parts MetaOps are cut where each part runs whole."""


@dataclass(frozen=True)
class Planned:
    """A plan.

    Attributes:
        table: its shares in time and place.
        way: which way of dealing made it: "levels", "ready", "ready, no chains", "in a row", "whole/PIECES".
        ways: seconds of every way that was tried.
        level_bound: s that no schedule beats which ends a level before the next.
        bound: s that no schedule beats.
    """

    table: Timetable
    way: str
    ways: dict[str, float]
    level_bound: float
    bound: float


def best(graph: Graph, devices: int, wires: Wires, after: Callable[[Timetable], float] | None = None) -> Planned:
    """Returns the shortest plan found.

    Args:
        graph: MetaOps.
        devices: that they share.
        wires: how they are joined.
        after: s that follow a timetable and depend on it, as the copies' adding up does; None = nothing does.
    """
    bound, seconds = any_bound(graph, devices)
    behind = tails(graph, seconds)
    tables = {
        "levels": place(graph, level_waves(graph, devices), devices, wires),
        "ready": place(graph, ready_waves(graph, devices, behind), devices, wires),
        "ready, no chains": place(graph, ready_waves(graph, devices, [0.0] * len(graph)), devices, wires),
        "in a row": sequential(graph, devices, wires),
    }
    for pieces in PIECES:
        tables[f"whole/{pieces}"] = whole(graph, devices, wires, pieces)
    total = {name: table.seconds + (after(table) if after else 0.0) for name, table in tables.items()}
    way = min(total, key=total.__getitem__)
    ways = {name: table.seconds for name, table in tables.items()}
    return Planned(tables[way], way, ways, level_bound(graph, devices), bound)


def whole(graph: Graph, devices: int, wires: Wires, pieces: int = 1) -> Timetable:
    """Returns a timetable in which MetaOps run in at most ``pieces`` parts, each whole, its devices improved by steps.

    The first guess is what the bound on any schedule gives each MetaOp, the second the level's optimum.
    """
    parts, owner = split(graph, pieces)
    seconds = any_bound(parts, devices)[1]
    fluid = [op.curve.need(max(s / op.count, op.curve.on(devices))) for op, s in zip(parts, seconds, strict=True)]

    def whole_counts(shares: Sequence[float]) -> list[int]:
        return [
            op.curve.allowed(min(devices, max(op.curve.counts[0], round(n))))
            for op, n in zip(parts, shares, strict=True)
        ]

    def laid(counts: Sequence[int], hurry: Sequence[float] | None = None) -> Timetable:
        times = [op.curve.on(n) * op.count for op, n in zip(parts, counts, strict=True)]
        behind = tails(parts, times)
        if hurry is not None:
            behind = [b * h + t * (h - 1.0) for b, h, t in zip(behind, hurry, times, strict=True)]
        return place(parts, list_waves(parts, devices, counts, behind), devices, wires)

    guesses = [whole_counts(shares) for shares in (fluid, level_shares(parts, devices))]
    table = min((climb(parts, devices, counts, laid) for counts in guesses), key=lambda found: found.seconds)
    slots = tuple(replace(slot, op=owner[slot.op][0], first=owner[slot.op][1]) for slot in table.slots)
    return replace(table, slots=slots)


def split(graph: Graph, pieces: int) -> tuple[Graph, list[tuple[int, int]]]:
    """Returns the graph of MetaOps cut into at most ``pieces`` parts each, and of each (MetaOp, first operator)."""
    parts: list[MetaOp] = []
    owner: list[tuple[int, int]] = []
    last: list[int] = []
    for i, op in enumerate(graph):
        edges = [op.count * k // pieces for k in range(pieces + 1)]
        after = tuple(last[j] for j in op.after)
        for first, end in pairwise(edges):
            if end > first:
                parts.append(replace(op, count=end - first, after=after))
                owner.append((i, first))
                after = (len(parts) - 1,)
        last.append(len(parts) - 1)
    return tuple(parts), owner


Laid = Callable[[Sequence[int], "Sequence[float] | None"], Timetable]
"""A timetable from the devices of each MetaOp and, where given, how much more than its chain each hurries."""


def climb(graph: Graph, devices: int, counts: Sequence[int], laid: Laid) -> Timetable:
    """Returns the best timetable from ``counts`` on: at most ``TRIES`` times some MetaOps get other devices."""
    now, table, rng = list(counts), laid(counts, None), np.random.default_rng(0)
    hurry: list[float] | None = None
    allowed = [[n for n in op.curve.counts if n <= devices] for op in graph]
    left = TRIES

    def better(other: list[int], order: list[float] | None) -> bool:
        nonlocal now, table, hurry, left
        if left <= 0:
            return False
        left -= 1
        tried = laid(other, order)
        if tried.seconds >= table.seconds * (1 - 1e-9):
            return False
        now, table, hurry = other, tried, order
        return True

    at = calm = 0
    while calm < len(graph) and left > 0:  # one after the other: the next count up and down, half and twice as many
        i, at, calm = at % len(graph), at + 1, calm + 1
        here = allowed[i].index(now[i])
        steps = {allowed[i][max(here - 1, 0)], allowed[i][min(here + 1, len(allowed[i]) - 1)]}
        steps |= {graph[i].curve.allowed(n) for n in (min(devices, 2 * now[i]), max(allowed[i][0], now[i] // 2))}
        for n in sorted(steps - {now[i]}):
            calm = 0 if better([*now[:i], n, *now[i + 1 :]], hurry) else calm
    while left > 0:  # then some at random: what one MetaOp gives, others may take; or another order
        other, order = list(now), hurry
        some = int(rng.choice((2, 3, 5)))
        for i in rng.integers(len(graph), size=some).tolist():
            step = int(rng.choice((-4, -2, -1, 0, 1, 2, 4)))
            other[i] = allowed[i][min(max(allowed[i].index(now[i]) + step, 0), len(allowed[i]) - 1)]
        if rng.random() < 0.1:  # all of them anew, near what they have
            other = [choice[min(int(len(choice) * rng.random() ** 1.5), len(choice) - 1)] for choice in allowed]
        if rng.random() < 0.3:
            order = np.exp(rng.normal(0.0, 1.0, len(graph))).tolist()
        better(other, order)
    return table
