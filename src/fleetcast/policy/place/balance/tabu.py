"""Tabu search over the tasks of overloaded nodes (Glover, 1989)."""

from __future__ import annotations

from fleetcast.policy.place.balance import Moves, View
from fleetcast.policy.place.balance.cluster import HEADROOM
from fleetcast.policy.place.balance.score import Search


class Tabu:
    """The best of a few moves, even a dearer one; a task that moved rests for a while.

    Args:
        headroom: share of a node up to which tasks may come to it.
        steps: moves made, a task of an overloaded node.
        sample: moves looked at for each one made.
        choices: nodes that each task may be tried on.
        tenure: moves for which a task rests, unless the state would become the best ever met.
    """

    kind = "tabu"

    def __init__(
        self, *, headroom: float = HEADROOM, steps: int = 3, sample: int = 12, choices: int = 12, tenure: int = 20
    ) -> None:
        self.headroom, self.steps, self.sample = headroom, steps, sample
        self.choices, self.tenure = choices, tenure

    def balance(self, view: View) -> Moves:
        """Returns the moves to the best state met."""
        search = Search(view, self.headroom, self.choices, self.kind)
        cluster, tasks = search.cluster, search.tasks
        if not tasks:
            return Moves()
        rests: dict[int, int] = {}
        value, best, kept = 0.0, 0.0, list(cluster.where)
        for step in range(self.steps * len(tasks)):
            found: tuple[float, int, int] | None = None
            for pick in search.random.integers(0, len(tasks), self.sample).tolist():
                task = tasks[pick]
                old, home, places = cluster.where[task], cluster.home[task], search.places[pick]
                node = home if old != home else places[int(search.random.integers(0, len(places)))]
                if node != home and not cluster.fits(task, node):
                    continue
                change = search.delta(task, node)
                cluster.move(task, old)
                if (rests.get(task, -1) < step or value + change < best) and (found is None or change < found[0]):
                    found = change, task, node
            if found is None:
                continue
            value += search.delta(found[1], found[2])
            rests[found[1]] = step + self.tenure
            if value < best - 1e-9:
                best, kept = value, list(cluster.where)
        for task in tasks:
            if cluster.where[task] != kept[task]:
                cluster.move(task, kept[task])
        return cluster.moves()
