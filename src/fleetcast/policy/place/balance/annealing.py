"""Simulated annealing over the tasks of overloaded nodes (Kirkpatrick, Gelatt and Vecchi, 1983)."""

from __future__ import annotations

import math

from fleetcast.policy.place.balance import Moves, View
from fleetcast.policy.place.balance.cluster import HEADROOM
from fleetcast.policy.place.balance.score import NODE, Search


class Annealing:
    """Random moves, dearer ones kept ever more rarely.

    Args:
        headroom: share of a node up to which tasks may come to it.
        steps: moves tried, a task of an overloaded node.
        choices: nodes that each task may be tried on.
        start: temperature at first, in points of `score`; it falls geometrically to ``end``.
        end: see ``start``.
    """

    kind = "annealing"

    def __init__(
        self,
        *,
        headroom: float = HEADROOM,
        steps: int = 40,
        choices: int = 12,
        start: float = NODE / 4,
        end: float = 0.05,
    ) -> None:
        self.headroom, self.steps, self.choices, self.start, self.end = headroom, steps, choices, start, end

    def balance(self, view: View) -> Moves:
        """Returns the moves to the best state met."""
        search = Search(view, self.headroom, self.choices, self.kind)
        cluster, tasks = search.cluster, search.tasks
        if not tasks:
            return Moves()
        steps = self.steps * len(tasks)
        picks = search.random.integers(0, len(tasks), steps).tolist()
        luck = search.random.random(steps).tolist()
        turns = search.random.random(steps).tolist()
        cooling = (self.end / self.start) ** (1 / steps)
        heat, value, best = self.start, 0.0, 0.0
        kept = list(cluster.where)
        for pick, chance, turn in zip(picks, luck, turns, strict=True):
            task, heat = tasks[pick], heat * cooling
            old, home = cluster.where[task], cluster.home[task]
            places = search.places[pick]
            # as often back home as elsewhere: what is moved must pay for it
            node = home if old != home and turn < 0.5 else places[int(turn * 2 * len(places)) % len(places)]
            if node == old or (node != home and not cluster.fits(task, node)):
                continue
            change = search.delta(task, node)
            if change > 0 and chance >= math.exp(-change / heat):
                cluster.move(task, old)
                continue
            value += change
            if value < best - 1e-9:
                best, kept = value, list(cluster.where)
        for task in tasks:
            if cluster.where[task] != kept[task]:
                cluster.move(task, kept[task])
        return cluster.moves()
