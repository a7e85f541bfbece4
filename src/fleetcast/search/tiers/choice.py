"""The best cascade of a familial model: which exits on which tiers, sent how, passed on below which confidence.

Every metric of a cascade is linear in how many queries reach each answer, and no answer costs less than nothing. So
within one chain of exits and one way over the tiers (its *shape*)

- thresholds that let more queries through to every answer than others of enough quality are out,
- splits that take at least as much of everything as another are out,

and what is left is evaluated, all of it. The result is that of evaluating every cascade (`tests/search/test_tiers.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from fleetcast.cost.cascade import Judge
from fleetcast.search.ranking import undominated
from fleetcast.search.tiers.family import Part
from fleetcast.search.tiers.legs import METRICS, Book, Leg, first_legs, next_legs

Floats = NDArray[np.float64]
GRID = np.round(np.arange(0.02, 0.99, 0.02), 2)
"""Thresholds that are tried."""
TIES = ("e2e", "energy")
"""What decides between cascades of equal goals."""


@dataclass(frozen=True)
class Problem:
    """What is asked.

    Attributes:
        book: costs of parts and links.
        tiers: how many places there are.
        exits: trunk layers of each exit, shallow to deep.
        judge: how confident and right they are.
        splits: layers at which the trunk may be cut.
        thresholds: that are tried.
        goals: names of `METRICS`, most important first; less is better.
        limits: upper limits by metric; "error" is the share of wrong answers.
        longest: most answers of a cascade.
    """

    book: Book
    tiers: int
    exits: tuple[int, ...]
    judge: Judge
    goals: tuple[str, ...]
    splits: tuple[int, ...] = ()
    thresholds: Floats = field(default_factory=lambda: GRID)
    limits: Mapping[str, float] = field(default_factory=dict)
    longest: int = 1


@dataclass(frozen=True)
class Cascade:
    """One way to answer, evaluated.

    Attributes:
        legs: its answers.
        thresholds: one less than legs.
        values: by `METRICS`, and "quality" and "error".
        reach: share of queries that reach each answer.
    """

    legs: tuple[Leg, ...]
    thresholds: tuple[float, ...]
    values: Mapping[str, float]
    reach: tuple[float, ...]

    @property
    def shape(self) -> tuple[tuple[int, str, int], ...]:
        """Tiers and hand-offs, without depths."""
        return tuple(leg.shape for leg in self.legs)

    def key(self, goals: Sequence[str]) -> tuple[float, ...]:
        """Returns what orders cascades."""
        return tuple(self.values[name] for name in (*goals, *TIES))


@dataclass
class Found:
    """The best cascade of each shape, best first, and how many there were."""

    best: list[Cascade]
    counts: dict[str, int]


def choose(problem: Problem, *, limits: Mapping[str, float] | None = None) -> Found:
    """Returns the best cascade of every shape that meets the limits, best first.

    Args:
        problem: what is asked.
        limits: instead of the problem's.
    """
    within = problem.limits if limits is None else limits
    counts = dict.fromkeys(("enumerated", "memory_feasible", "bounded", "simulated"), 0)
    kept: dict[tuple[object, ...], Cascade] = {}
    for length in range(1, min(problem.longest, len(problem.exits)) + 1):
        for chain in combinations(range(len(problem.exits)), length):
            table, quality, reach, rows = enough(problem, chain, within)
            for legs, size, fits in ways(problem, [problem.exits[i] for i in chain]):
                counts["enumerated"] += size * len(table)
                counts["memory_feasible"] += fits * len(table)
                counts["bounded"] += fits * len(table) - len(legs) * len(rows)
                counts["simulated"] += len(legs) * len(rows)
                for cascade in _best(problem.goals, legs, table[rows], quality[rows], reach[rows], within):
                    known = kept.get(cascade.shape)
                    if known is None or cascade.key(problem.goals) < known.key(problem.goals):
                        kept[cascade.shape] = cascade
    return Found(sorted(kept.values(), key=lambda c: c.key(problem.goals)), counts)


def enough(
    problem: Problem, chain: Sequence[int], limits: Mapping[str, float]
) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
    """Returns thresholds [m, k - 1] of a chain of k exits, quality [m], reach [m, k], and which rows are worth a try.

    Those have enough quality, and no other that has lets fewer queries through to every answer.
    """
    grid = list(product(problem.thresholds, repeat=len(chain) - 1))
    table = np.array(grid).reshape(len(grid), len(chain) - 1)
    quality, reach = problem.judge.cascade(chain, table)
    rows = np.flatnonzero(1.0 - quality <= limits.get("error", 1.0))
    return table, quality, reach, rows[undominated(reach[rows])] if len(rows) else rows


def ways(problem: Problem, exits: Sequence[int]) -> Iterator[tuple[list[tuple[Leg, ...]], int, int]]:
    """Yields per shape: the ways that fit, splits that another beats left out; how many there were; how many fit.

    Only the first answer is split at a free layer; what follows holds nothing on its lower tier and nothing that
    depends on the split on its upper one, so splits are compared before anything follows.
    """
    book, n = problem.book, problem.tiers
    free = sum(1 for s in problem.splits if s < exits[0])
    shapes: dict[tuple[int, str, int], list[Leg]] = {}
    for leg in first_legs(book, n, exits[0], problem.splits):
        shapes.setdefault(leg.shape, []).append(leg)
    first = [(t, "text", t) for t in range(n)]
    if free:
        first += [(high, h, low) for low in range(n) for high in range(low + 1, n) for h in ("hidden", "cache")]
    for shape in first:
        size = 1 if shape[1] == "text" else free
        fit = [leg for leg in shapes.get(shape, []) if _fits(book, (leg,))]
        best = [fit[i] for i in undominated([leg.takes for leg in fit])] if fit else []
        yield from _further(problem, exits, [(leg,) for leg in best], size, len(fit))


def _further(
    problem: Problem, exits: Sequence[int], heads: list[tuple[Leg, ...]], size: int, fits: int
) -> Iterator[tuple[list[tuple[Leg, ...]], int, int]]:
    """Goes on from answers of one shape to the remaining exits; ``heads`` differ in the first split alone."""
    done = len(heads[0]) if heads else 0
    if not heads or done == len(exits):
        yield heads, size, fits
        return
    grown: dict[tuple[int, str, int], list[tuple[Leg, ...]]] = {}
    for head in heads:
        for leg in next_legs(problem.book, problem.tiers, head[-1], exits[done]):
            grown.setdefault(leg.shape, []).append((*head, leg))
    for several in grown.values():
        fit = [legs for legs in several if _fits(problem.book, legs)]
        yield from _further(problem, exits, fit, size, fits if fit else 0)


def holdings(legs: Sequence[Leg]) -> dict[int, frozenset[Part]]:
    """Returns the parts that each tier holds for a cascade."""
    holds: dict[int, frozenset[Part]] = {}
    for leg in legs:
        for tier, parts in leg.holds.items():
            holds[tier] = holds.get(tier, frozenset()) | parts
    return holds


def _fits(book: Book, legs: Sequence[Leg]) -> bool:
    return all(book.lacks(tier, parts) is None for tier, parts in holdings(legs).items())


def evaluate(legs: Sequence[Leg], thresholds: Sequence[float], quality: float, reach: Sequence[float]) -> Cascade:
    """Returns a cascade with its values: means over all queries.

    An answer that may be passed on is shown once it is judged, so its first token counts when its last is out.
    """
    takes = np.array([leg.takes for leg in legs])
    takes[:-1, METRICS.index("ttft")] = takes[:-1, METRICS.index("e2e")]
    values = dict(zip(METRICS, (np.asarray(reach) @ takes).tolist(), strict=True))
    values |= {"quality": float(quality), "error": 1.0 - float(quality)}
    return Cascade(tuple(legs), tuple(map(float, thresholds)), values, tuple(map(float, reach)))


def _best(
    goals: Sequence[str], several: Sequence[tuple[Leg, ...]], table: Floats, quality: Floats, reach: Floats,
    limits: Mapping[str, float],
) -> Iterator[Cascade]:  # fmt: skip
    """Yields the best of one shape's ways under any of the thresholds."""
    if not len(table):
        return
    for legs in several:
        takes = np.array([leg.takes for leg in legs])
        takes[:-1, METRICS.index("ttft")] = takes[:-1, METRICS.index("e2e")]
        values = reach @ takes
        met = np.ones(len(values), dtype=bool)
        for name, limit in limits.items():
            if name in METRICS:
                met &= values[:, METRICS.index(name)] <= limit
        rows = np.flatnonzero(met)
        if len(rows):
            order = [values[rows, METRICS.index(name)] for name in (*goals, *TIES)]
            i = rows[np.lexsort(order[::-1])[0]]
            yield evaluate(legs, table[i], quality[i], reach[i])
