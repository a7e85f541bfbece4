"""Overloaded nodes give up what is cheapest to move, each task to the emptiest node with room: central, one pass."""

from __future__ import annotations

import numpy as np

from fleetcast.policy.place.balance import Moves, View
from fleetcast.policy.place.balance.cluster import HEADROOM, Cluster, targets


class Greedy:
    """One pass over overloaded nodes, the worst first.

    Args:
        headroom: share of a node up to which tasks may come to it.
        fullest: whether they go to the fullest node that has room (best fit) instead.
    """

    kind = "greedy"

    def __init__(self, *, headroom: float = HEADROOM, fullest: bool = False) -> None:
        self.headroom, self.fullest = headroom, fullest

    def balance(self, view: View) -> Moves:
        """Returns the moves of one pass."""
        return relieve(view, self.headroom, self.fullest).moves()


def relieve(view: View, headroom: float, fullest: bool = False) -> Cluster:
    """Returns the cluster after one greedy pass."""
    cluster = Cluster(view, headroom)
    load = np.array(cluster.load)
    for node in cluster.overloaded():
        movable = [task for task in cluster.held[node] if len(targets(view, load, task, headroom))]
        for task in cluster.leaving(node, movable):
            found = targets(view, load, task, headroom)  # anew: the one before may have gone to the same
            if len(found):
                goal = int(found[0 if fullest else -1])
                cluster.move(task, goal)
                load[node] -= view.use[task]
                load[goal] += view.use[task]
    return cluster
