"""What a state of the cluster is worth to the searches: overloaded nodes first, then what was moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.rng import rng
from fleetcast.policy.place.balance.cluster import Cluster, targets

if TYPE_CHECKING:
    from fleetcast.policy.place.balance import View

NODE, SHARE = 1e3, 1e2
"""Points of an overloaded node, and of a node's whole overload; a move of the mean cost has one point."""


class Search:
    """The part of a cluster that a search may change: tasks of overloaded nodes, and where each could go.

    Args:
        view: the reading.
        headroom: share of a node up to which tasks may come.
        choices: nodes that each task may be tried on.

    Attributes:
        tasks: that may move.
        places: of each of them, the nodes that have room at first, a few of the emptiest and a few drawn.
    """

    def __init__(self, view: View, headroom: float, choices: int, name: str) -> None:
        self.cluster = Cluster(view, headroom)
        self.random = rng(view.seed, "balance", name)
        load = np.array(self.cluster.load)
        self.tasks: list[int] = []
        self.places: list[list[int]] = []
        for node in self.cluster.overloaded():
            for task in self.cluster.held[node]:
                found = targets(view, load, task, headroom)
                if len(found) > choices:
                    drawn = self.random.choice(found[: -(choices // 2)], choices - choices // 2, replace=False)
                    found = np.concatenate([found[-(choices // 2) :], drawn])
                if len(found):
                    self.tasks.append(task)
                    self.places.append(found.tolist())
        self.unit = unit(view)

    def points(self, node: int) -> float:
        """Returns the points of a node as it is; 0 where it is stable."""
        over = self.cluster.excess(node)
        return NODE + SHARE * over if over > 0 else 0.0

    def price(self, task: int) -> float:
        """Returns the points of moving a task."""
        return self.cluster.cost[task] / self.unit

    def delta(self, task: int, node: int) -> float:
        """Moves a task and returns by how many points the state became dearer."""
        cluster = self.cluster
        old, home = cluster.where[task], cluster.home[task]
        before = self.points(old) + self.points(node) + (self.price(task) if old != home else 0.0)
        cluster.move(task, node)
        return self.points(old) + self.points(node) + (self.price(task) if node != home else 0.0) - before


def unit(view: View) -> float:
    """Returns what one point of moving costs: the mean over tasks."""
    return float(view.cost.mean()) or 1.0 if len(view.cost) else 1.0
