"""Runs that no rule serves together: few of them, and a check that is not the solver's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.rng import rng
from fleetcast.search.vote.problem import Problem, Promise
from fleetcast.search.vote.runs import Runs, Shape

ATTEMPTS, WIDE = 8, 60
"""Orders in which runs are left out of a witness, of which the shortest is told; none if it has more than WIDE."""


@dataclass(frozen=True)
class Run:
    """A run of a witness: each process's ballot, and the view and shape of each that decides."""

    ballots: tuple[int, ...]
    shapes: tuple[Shape, ...]
    views: tuple[int, ...]


def needed(
    runs: Runs, promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_], chosen: list[tuple[int, int]]
) -> tuple[list[Run], bool]:
    """Returns runs that no rule serves together, and whether none of them can be left out."""
    problem = Problem(promise, allowed, near, np.zeros(runs.views, dtype=np.int64))
    switches: dict[int, Run] = {}
    for p, x in dict.fromkeys(chosen):
        run = Run(tuple(int(b) for b in runs.ballots[x]), runs.patterns[p].shapes, runs.views_in(p, x))
        switch = problem.solver.variable(likely=True)
        switches[switch] = run
        problem.add(run.views, switch)
    least = problem.solver.solve(list(switches))
    for _ in range(3):
        least = problem.solver.solve(least or ())
    assert least is not None, "these runs contradict each other"
    minimal = len(least) <= WIDE
    for attempt in range(ATTEMPTS if minimal else 0):
        draw = rng(attempt, "search", "vote", "witness")
        kept = problem.solver.solve([int(s) for s in draw.permutation(list(switches))]) or []
        if len(kept) > WIDE:
            kept = least
        for switch in list(kept):
            if switch in kept and (less := problem.solver.solve([s for s in kept if s != switch])) is not None:
                kept = less
        if len(kept) < len(least) or attempt == 0:
            least = kept
    return [switches[s] for s in sorted(least)], minimal


def contradict(witness: Sequence[Run], promise: Promise, allowed: NDArray[np.bool_], near: NDArray[np.bool_]) -> bool:
    """Returns whether no choice of rankings for the views of these runs keeps the promise: tried one by one.

    It shares nothing with the solver: views are given rankings in turn, and a run is looked at when its last has one.
    """
    views = list(dict.fromkeys(v for run in witness for v in run.views))
    last = {id(run): max(views.index(v) for v in run.views) for run in witness}
    given: dict[int, int] = {}

    def fine(run: Run) -> bool:
        made = [given[v] for v in run.views]
        if promise.most is not None:
            return len(set(made)) <= promise.most
        return all(near[a, b] for a, b in product(made, made))

    def fits(at: int) -> bool:
        if at == len(views):
            return True
        for r in np.flatnonzero(allowed[views[at]]).tolist():
            given[views[at]] = r
            if all(fine(run) for run in witness if last[id(run)] == at) and fits(at + 1):
                return True
        return False

    return not fits(0)
