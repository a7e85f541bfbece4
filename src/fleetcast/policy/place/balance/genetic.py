"""A genetic algorithm over the tasks of overloaded nodes, its first generation seeded with the greedy pass.

A genome says of each task whether it stays or to which of its possible nodes it goes; a generation's loads are added up
at once (Holland, 1975; the seeding is Sliwko and Getov's, "A meta-heuristic load balancer for cloud computing systems",
COMPSAC 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fleetcast.policy.place.balance import Moves, View
from fleetcast.policy.place.balance.cluster import HEADROOM, SLACK, Cluster
from fleetcast.policy.place.balance.greedy import relieve
from fleetcast.policy.place.balance.score import NODE, SHARE, Search, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Genetic:
    """Crosses and changes sets of moves.

    Args:
        headroom: share of a node up to which tasks may come to it.
        population: genomes of a generation, even.
        generations: how many.
        choices: nodes that each task may be tried on.
        seeded: whether the first generation holds the greedy pass.
    """

    kind = "genetic"

    def __init__(
        self, *, headroom: float = HEADROOM, population: int = 32, generations: int = 60, choices: int = 12,
        seeded: bool = True,
    ) -> None:  # fmt: skip
        self.headroom, self.population, self.generations = headroom, population, generations
        self.choices, self.seeded = choices, seeded

    def balance(self, view: View) -> Moves:
        """Returns the moves of the best genome met."""
        search = Search(view, self.headroom, self.choices, self.kind)
        if not search.tasks:
            return Moves()
        random, tasks = search.random, np.array(search.tasks)
        places = np.empty((len(tasks), self.choices + 1), np.int64)
        for i, found in enumerate(search.places):  # as often home as all others together
            places[i] = np.resize(np.array(found), self.choices + 1)
        home = view.node[tasks]
        genomes = np.where(
            random.random((self.population, len(tasks))) < 0.85,
            home, places[np.arange(len(tasks)), random.integers(0, self.choices + 1, (self.population, len(tasks)))],
        )  # fmt: skip
        if self.seeded:
            genomes[0] = np.array(relieve(view, self.headroom).where)[tasks]
        genomes[-1] = home
        weigh = _Weigh(view, tasks, self.headroom)
        points = weigh(genomes)
        for _ in range(self.generations):
            rivals = random.integers(0, self.population, (4, self.population))
            first = np.where(points[rivals[0]] <= points[rivals[1]], rivals[0], rivals[1])
            second = np.where(points[rivals[2]] <= points[rivals[3]], rivals[2], rivals[3])
            # tasks of one node are inherited together: together they make it stable
            from_first = random.random((self.population, len(view.capacity))) < 0.5
            children = np.where(from_first[:, home], genomes[first], genomes[second])
            changed = random.random(children.shape) < 1.5 / len(tasks)
            drawn = places[np.arange(len(tasks)), random.integers(0, self.choices + 1, children.shape)]
            children = np.where(changed, np.where(random.random(children.shape) < 0.5, home, drawn), children)
            ours = weigh(children)
            both, worth = np.concatenate([genomes, children]), np.concatenate([points, ours])
            best = np.argsort(worth, kind="stable")[: self.population]
            genomes, points = both[best], worth[best]
        return _possible(search.cluster, tasks, genomes[0]).moves()


def _possible(cluster: Cluster, tasks: NDArray[np.int64], genome: NDArray[np.int64]) -> Cluster:
    """Makes those moves of a genome for which there is room, in two passes: some wait until others have left."""
    for _ in range(2):
        for task, node in zip(tasks.tolist(), genome.tolist(), strict=True):
            if cluster.where[task] != node and cluster.fits(task, node):
                cluster.move(task, node)
    return cluster


class _Weigh:
    """Points of genomes; a node that tasks came to counts as overloaded past its headroom."""

    def __init__(self, view: View, tasks: NDArray[np.int64], headroom: float) -> None:
        self.view, self.use, self.home = view, view.use[tasks], view.node[tasks]
        self.cost = view.cost[tasks] / unit(view)
        rest = view.load()
        for r in range(rest.shape[1]):
            rest[:, r] -= np.bincount(self.home, self.use[:, r], minlength=len(rest))
        self.rest = rest
        self.limit = np.where(view.capacity > 16, headroom, 1.0) * view.capacity

    def __call__(self, genomes: NDArray[np.int64]) -> NDArray[np.float64]:
        many, nodes = len(genomes), len(self.rest)
        flat = (genomes + nodes * np.arange(many)[:, None]).ravel()
        came = np.bincount(flat, np.tile(1.0, flat.size) * (genomes != self.home).ravel(), minlength=many * nodes)
        over = np.zeros(many * nodes)
        for r, column in enumerate(self.use.T):
            load = np.bincount(flat, np.tile(column, many), minlength=many * nodes) + np.tile(self.rest[:, r], many)
            have = np.where(came > 0, np.tile(self.limit[:, r], many), np.tile(self.view.capacity[:, r], many))
            over += np.where(load > have * (1 + SLACK) + 1e-12, load / np.maximum(have, 1e-12) - 1, 0.0)
        state = over.reshape(many, nodes)
        moved = ((genomes != self.home) * self.cost).sum(1)
        points: NDArray[np.float64] = NODE * (state > 0).sum(1) + SHARE * state.sum(1) + moved
        return points
