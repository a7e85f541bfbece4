"""Nodes and what lies on them while moves are tried: loads by node, kept up to date move by move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.place.balance import Moves, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLACK = 1e-9
"""Share of a resource by which a sum of floats may pass it."""
HEADROOM = 0.95
"""Share of a node's divisible resources that it may use after a task came: what drifts needs room."""
EXACT = 12
"""Tasks on a node up to which pairs that could leave are all looked at."""


class Cluster:
    """A cluster on which moves are tried.

    Args:
        view: the reading.
        headroom: share of a node up to which tasks may come to it.

    Attributes:
        where: of each task, its node now.
        held: of each node, its tasks.
    """

    def __init__(self, view: View, headroom: float = HEADROOM) -> None:
        self.view, self.headroom = view, headroom
        self.capacity: list[list[float]] = view.capacity.tolist()
        self.load: list[list[float]] = view.load().tolist()
        self.use: list[list[float]] = view.use.tolist()
        self.cost: list[float] = view.cost.tolist()
        self.where: list[int] = view.node.tolist()
        self.held: list[list[int]] = [[] for _ in self.capacity]
        for task, node in enumerate(self.where):
            self.held[node].append(task)
        self.home = tuple(self.where)

    def excess(self, node: int) -> float:
        """Returns by which share of a resource a node is overloaded, the sum over resources; 0 = it is stable."""
        total = 0.0
        for used, have in zip(self.load[node], self.capacity[node], strict=True):
            if used > have * (1 + SLACK):
                total += used / have - 1 if have else used
        return total

    def overloaded(self) -> list[int]:
        """Returns the nodes that are not stable, the worst first."""
        found = [(-over, node) for node in range(len(self.held)) if (over := self.excess(node)) > 0]
        return [node for _, node in sorted(found)]

    def fits(self, task: int, node: int) -> bool:
        """Returns whether a task may come to a node: within the headroom, or all of a resource that is not divided."""
        return holds(self.use[task], self.load[node], self.capacity[node], self.headroom)

    def move(self, task: int, node: int) -> None:
        """Puts a task on a node, whatever that makes of it."""
        old = self.where[task]
        self.held[old].remove(task)
        self.held[node].append(task)
        self.where[task] = node
        for r, used in enumerate(self.use[task]):
            self.load[old][r] -= used
            self.load[node][r] += used

    def leaving(self, node: int, tasks: Sequence[int]) -> list[int]:
        """Returns which of ``tasks`` leave an overloaded node, see `leaving`."""
        chosen = leaving(
            self.load[node], self.capacity[node], [self.use[t] for t in tasks], [self.cost[t] for t in tasks]
        )
        return [tasks[i] for i in chosen]

    def moves(self) -> Moves:
        """Returns the moves from home to where tasks are now, those first that only leave overloaded nodes."""
        changed = [task for task, node in enumerate(self.where) if node != self.home[task]]
        return Moves(np.array(changed, np.int64), np.array([self.where[task] for task in changed], np.int64))


def holds(use: Sequence[float], load: Sequence[float], capacity: Sequence[float], headroom: float) -> bool:
    """Returns whether a node has room for what a task uses; what it does not use is not asked for."""
    for used, there, have in zip(use, load, capacity, strict=True):
        # whole devices (few, and they do not drift) may be given to the last one
        if used > 0 and there + used > have * (headroom if have > 16 else 1.0) * (1 + SLACK):
            return False
    return True


def leaving(
    load: Sequence[float], capacity: Sequence[float], use: Sequence[Sequence[float]], cost: Sequence[float]
) -> list[int]:
    """Returns which of the tasks that could leave an overloaded node do, so that it is stable and what moves is cheap.

    One task or a pair, the cheapest that suffices, is found by looking at all of them; where none does, tasks leave by
    their cost over the overload that they take along. None where all together are not enough: moves would be wasted.
    """
    over = [max(0.0, used - have) for used, have in zip(load, capacity, strict=True)]

    def enough(gone: Sequence[int]) -> bool:
        return all(
            sum(use[i][r] for i in gone) >= excess - SLACK * capacity[r] for r, excess in enumerate(over) if excess > 0
        )

    ones = [i for i in range(len(use)) if enough((i,))]
    best: tuple[int, ...] = (min(ones, key=lambda i: (cost[i], i)),) if ones else ()
    if len(use) <= EXACT:
        price = cost[best[0]] if best else float("inf")
        for pair in combinations(range(len(use)), 2):
            if cost[pair[0]] + cost[pair[1]] < price and enough(pair):
                best, price = pair, cost[pair[0]] + cost[pair[1]]
    if best:
        return list(best)

    def worth(i: int) -> float:
        relief = sum(min(use[i][r], excess) / excess for r, excess in enumerate(over) if excess > 0)
        return cost[i] / relief if relief else float("inf")

    gone: list[int] = []
    for i in sorted(range(len(use)), key=lambda i: (worth(i), i)):
        gone.append(i)
        if enough(gone):
            return gone
    return []


def targets(view: View, load: NDArray[np.float64], task: int, headroom: float) -> NDArray[np.int64]:
    """Returns the nodes that have room for a task, the fullest first (best fit by the first resource)."""
    use = view.use[task]
    limit = np.where(view.capacity > 16, headroom, 1.0) * view.capacity * (1 + SLACK)
    room = ((load + use <= limit) | (use == 0)).all(axis=1)
    room[view.node[task]] = False
    found = np.flatnonzero(room)
    left = (view.capacity[found, 0] - load[found, 0] - use[0]) / view.capacity[found, 0].clip(1e-12)
    return found[np.argsort(left, kind="stable")]
