"""Is a list of moves legal, what does it cost, and how far from the least possible can it be?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleetcast.base.show import show
from fleetcast.cost.pebbling.bounds import Bound, lower_bound
from fleetcast.cost.pebbling.game import COMPUTE, DELETE, KINDS, LOAD, SAVE, Game, Move

ROUNDING = 1e-9
"""Share of a memory that sums of sizes may differ by before they count as too large."""


@dataclass(frozen=True)
class Proof:
    """What is known of a schedule: the same for every plan that moves data between two memories.

    Attributes:
        legal: every move is allowed, and all sinks end in slow memory.
        cost: of the schedule; of an illegal one, of the moves before the first that is not allowed.
        lower_bound: what no legal schedule of this game undercuts.
        bound: which bound that is.
        gap: cost over lower bound, less one; 0 where both are 0.
        at: index of the first illegal move, the number of moves where only the end is wrong; None where legal.
        reason: why it is illegal, or "".
        moves: how many.
        loads, saves, computes: how many of each kind.
        again: computes of values that had been computed before.
        moved: size of what was loaded and saved.
        peak: the fullest each fast memory was.
        red: what each of them holds.
        unit: of cost and lower bound; with "s", sizes are bytes.
        about: what is proven, for people.
    """

    legal: bool
    cost: float
    lower_bound: float
    bound: str
    gap: float
    at: int | None
    reason: str
    moves: int
    loads: int
    saves: int
    computes: int
    again: int
    moved: float
    peak: tuple[float, ...]
    red: tuple[float, ...]
    unit: str = ""
    about: str = ""

    def table(self) -> dict[str, Any]:
        """Returns it ready for JSON; a gap over a bound of 0 is null."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**found, "gap": self.gap if math.isfinite(self.gap) else None, "peak": [*self.peak], "red": [*self.red]}

    def lines(self) -> list[str]:
        """Returns it in sentences."""
        counts = f"{self.loads:,} loads, {self.saves:,} saves, {self.computes:,} computes"
        counts += f", {self.again:,} of them again" if self.again else ""
        if not self.legal:
            return [f"illegal at move {self.at}: {self.reason}", f"{self.moves:,} moves: {counts}"]
        size = "B" if self.unit == "s" else ""
        at = max(range(len(self.red)), key=lambda p: self.peak[p] / self.red[p] if self.red[p] else 0.0)
        gap = f"{self.gap:.1%}" if math.isfinite(self.gap) else "unknown"
        return [
            f"legal: {self.moves:,} moves, {counts}",
            f"cost {show(self.cost, self.unit)}, no schedule below {show(self.lower_bound, self.unit)} ({self.bound}): "
            f"gap {gap}",
            f"memory: {show(self.peak[at], size)} of {show(self.red[at], size)} where it is fullest",
        ]  # fmt: skip


def prove(of: Game, moves: Sequence[Move], bound: Bound | None = None) -> Proof:
    """Returns what is known of a schedule.

    Args:
        of: the game.
        moves: in the order they are made; moves of one kind next to each other run at once on different processors.
        bound: found before; None = find it.
    """
    n, k = len(of.dag), of.processors
    parents, size = of.dag.parents, of.dag.size
    red = [bytearray(n) for _ in range(k)]
    blue, made = bytearray(n), bytearray(n)
    for v in of.given:
        blue[v] = 1
    used, peak = [0.0] * k, [0.0] * k
    room = [r * (1.0 + ROUNDING) for r in of.red]
    works = [of.work(p) for p in range(k)]
    io = [[g * s for s in size] for g in of.g]
    given, once = of.given, not of.again
    counts, again, moved = [0, 0, 0, 0], 0, 0.0
    total, busy, phase, superstep = 0.0, [0.0] * k, DELETE, 0
    clock, born = [0.0] * k, [0.0] * n
    reason, at = "", None
    for kind, p, v in moves:
        if not (0 <= p < k and 0 <= v < n and 0 <= kind <= DELETE):
            reason = _unknown(of, kind, p, v)
            break
        here = red[p]
        if kind == DELETE:
            if not here[v]:
                reason = f"DELETE {of.dag.name(v)} on {of.player(p)}, which does not hold it"
                break
            here[v] = 0
            used[p] -= size[v]
            counts[DELETE] += 1
            continue
        if kind == COMPUTE:
            if here[v] or v in given or (once and made[v]):
                reason = _uncomputable(of, p, v, bool(here[v]))
                break
            for u in parents[v]:
                if not here[u]:
                    name, lacks = of.dag.name(v), of.dag.name(u)
                    reason = f"COMPUTE {name} on {of.player(p)}, which does not hold its input {lacks}"
                    break
            if reason:
                break
            cost = works[p][v]
            if made[v]:
                again += 1
            made[v] = 1
        else:
            cost = io[p][v]
            if kind == LOAD:
                if here[v] or not blue[v]:
                    why = "which holds it" if here[v] else "but slow memory does not hold it"
                    reason = f"LOAD {of.dag.name(v)} on {of.player(p)}, {why}"
                    break
                if clock[p] < born[v]:
                    clock[p] = born[v]
            elif not here[v] or blue[v]:
                why = "which does not hold it" if not here[v] else "but slow memory holds it"
                reason = f"SAVE {of.dag.name(v)} on {of.player(p)}, {why}"
                break
            moved += size[v]
        if kind != SAVE:
            fill = used[p] + size[v]
            if fill > room[p]:
                reason = (
                    f"{KINDS[kind]} {of.dag.name(v)} on {of.player(p)} needs {show(fill, of.measure)} of memory, "
                    f"which has {show(of.red[p], of.measure)}"
                )
                break
            used[p] = fill
            if fill > peak[p]:
                peak[p] = fill
            here[v] = 1
        if kind != phase:
            total += max(busy)
            busy = [0.0] * k
            if phase == DELETE or kind == COMPUTE or (kind == SAVE and phase == LOAD):
                superstep += 1
            phase = kind
        busy[p] += cost
        clock[p] += cost
        if kind == SAVE:
            blue[v] = 1
            born[v] = clock[p]
        counts[kind] += 1
    if reason:
        at = sum(counts)  # every move before it was counted
    elif missing := [v for v in of.dag.sinks if not blue[v]]:
        at, reason = len(moves), f"the schedule ends, and slow memory does not hold {of.dag.name(missing[0])}"
    cost = total + max(busy) + superstep * of.latency if of.timing == "synchronous" else max(clock)
    least = lower_bound(of) if bound is None else bound

    gap = cost / least.value - 1.0 if least.value > 0 else 0.0 if cost == 0 else math.inf
    return Proof(
        legal=at is None, cost=float(cost), lower_bound=least.value, bound=least.name, gap=gap, at=at, reason=reason,
        moves=len(moves), loads=counts[LOAD], saves=counts[SAVE], computes=counts[COMPUTE], again=again, moved=moved,
        peak=tuple(peak), red=of.red, unit=of.unit, about=of.about,
    )  # fmt: skip


def cost(of: Game, moves: Sequence[Move]) -> float:
    """Returns a legal schedule's cost, without checking it: for searches that build legal ones."""
    works, size, k = [of.work(p) for p in range(of.processors)], of.dag.size, of.processors
    if of.timing == "asynchronous":
        clock, born = [0.0] * k, [0.0] * len(of.dag)
        for kind, p, v in moves:
            if kind == COMPUTE:
                clock[p] += works[p][v]
            elif kind == LOAD:
                clock[p] = max(clock[p], born[v]) + of.g[p] * size[v]
            elif kind == SAVE:
                clock[p] += of.g[p] * size[v]
                born[v] = clock[p]
        return max(clock)
    total, busy, phase, superstep = 0.0, [0.0] * k, DELETE, 0
    for kind, p, v in moves:
        if kind == DELETE:
            continue
        if kind != phase:
            total += max(busy)
            busy = [0.0] * k
            if phase == DELETE or kind == COMPUTE or (kind == SAVE and phase == LOAD):
                superstep += 1
            phase = kind
        busy[p] += works[p][v] if kind == COMPUTE else of.g[p] * size[v]
    return total + max(busy) + superstep * of.latency


def _unknown(of: Game, kind: int, p: int, v: int) -> str:
    if not 0 <= kind <= DELETE:
        return f"{kind} is no move; moves are {', '.join(KINDS)}"
    if not 0 <= p < of.processors:
        return f"{KINDS[kind]} on processor {p}; there are {of.processors}"
    return f"{KINDS[kind]} node {v}; there are {len(of.dag)}"


def _uncomputable(of: Game, p: int, v: int, held: bool) -> str:
    if held:
        why = "which holds it"
    elif v in of.given:
        why = "but inputs are loaded, not computed"
    else:
        why = "but it has been computed, and only once is allowed"
    return f"COMPUTE {of.dag.name(v)} on {of.player(p)}, {why}"
