"""Node agents that negotiate: no one sees the cluster, each node knows its own tasks and what others answer.

After Sliwko's multi-agent balancer (MASB; the thesis was not at hand, so that the messages and scores here are ours). A
node that is overloaded asks a few nodes drawn at random, and goes through

    ask      source -> candidates   what each of my tasks uses
    offer    candidate -> source    of each that it has room for, within its headroom, a score; nothing is reserved yet
    take     source -> best offers  the cheapest of the tasks offered for that make the source stable are yours
    confirm  candidate -> source    room is still there and now reserved, or not: somebody else was quicker

in rounds: who was refused, or found no offer, asks others in the next. All messages of a round travel at the same time
and are read in the order of a draw. What a node does costs it the same whether the cluster has a thousand nodes or ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fleetcast.base.rng import rng
from fleetcast.policy.place.balance import Moves, View
from fleetcast.policy.place.balance.cluster import HEADROOM, SLACK, holds, leaving


@dataclass(slots=True)
class Agent:
    """A node: what it has, its tasks, what it has promised. Nothing of any other node is in it."""

    capacity: Sequence[float]
    load: list[float]
    tasks: dict[int, tuple[Sequence[float], float]] = field(default_factory=dict)

    @property
    def stable(self) -> bool:
        """Whether no resource is used beyond what there is."""
        return all(used <= have * (1 + SLACK) for used, have in zip(self.load, self.capacity, strict=True))

    def gives(self, tasks: Sequence[int]) -> list[int]:
        """Returns which of the tasks that others would take leave it, see `cluster.leaving`."""
        use, cost = [self.tasks[t][0] for t in tasks], [self.tasks[t][1] for t in tasks]
        return [tasks[i] for i in leaving(self.load, self.capacity, use, cost)]

    def offer(self, use: Sequence[float], headroom: float) -> float | None:
        """Returns its score for a task, the share of its scarcest resource that would be left, or None: no room."""
        if not holds(use, self.load, self.capacity, headroom):
            return None
        return min((have - there - used) / have
                   for used, there, have in zip(use, self.load, self.capacity, strict=True) if used > 0)  # fmt: skip

    def take(self, use: Sequence[float], headroom: float) -> bool:
        """Takes a task if there is still room."""
        if not holds(use, self.load, self.capacity, headroom):
            return False
        for r, used in enumerate(use):
            self.load[r] += used
        return True

    def drop(self, task: int) -> None:
        """Gives a task away."""
        for r, used in enumerate(self.tasks.pop(task)[0]):
            self.load[r] -= used


class Agents:
    """Lets every overloaded node find new places for what it cannot bear.

    Args:
        headroom: share of a node up to which tasks may come to it.
        asked: nodes that a source asks for each task, a round.
        rounds: of asking in one reading.
        fullest: whether the fullest node that offers is taken (it packs) or the emptiest (it evens out).
    """

    kind = "agents"

    def __init__(self, *, headroom: float = HEADROOM, asked: int = 12, rounds: int = 4, fullest: bool = False) -> None:
        self.headroom, self.asked, self.rounds, self.fullest = headroom, asked, rounds, fullest

    def balance(self, view: View) -> Moves:
        """Returns what was agreed on."""
        agents = [Agent(c, u) for c, u in zip(view.capacity.tolist(), view.load().tolist(), strict=True)]
        for task, (node, use, cost) in enumerate(
            zip(view.node.tolist(), view.use.tolist(), view.cost.tolist(), strict=True)
        ):
            agents[node].tasks[task] = use, cost
        return negotiate(agents, self, view.seed)


def negotiate(agents: Sequence[Agent], settings: Agents, seed: int) -> Moves:
    """Returns the moves that agents agree on; ``agents`` hold afterwards what they agreed to hold."""
    random = rng(seed, "balance", "agents")
    sources = [i for i, agent in enumerate(agents) if not agent.stable]
    decided, messages = len(sources), 0
    tasks: list[int] = []
    nodes: list[int] = []
    sign = 1.0 if settings.fullest else -1.0
    for _ in range(settings.rounds):
        if not sources:
            break
        wishes: list[tuple[int, int, int]] = []  # source, task, best offer
        for source in random.permutation(sources).tolist():
            agent = agents[source]
            asked = [n for n in dict.fromkeys(random.integers(0, len(agents), settings.asked).tolist()) if n != source]
            best: dict[int, tuple[float, int]] = {}
            for other in asked:
                answers = 0
                for task, (use, _) in agent.tasks.items():
                    score = agents[other].offer(use, settings.headroom)
                    if score is not None:
                        answers = 1
                        best[task] = min(best.get(task, (2.0, -1)), (sign * score, other))
                messages += 1 + answers
            wishes += [(source, task, best[task][1]) for task in agent.gives(list(best))]
        for source, task, other in wishes:
            messages += 2
            if agents[other].take(agents[source].tasks[task][0], settings.headroom):
                agents[source].drop(task)
                tasks.append(task)
                nodes.append(other)
        sources = [source for source in sources if not agents[source].stable]
    return Moves(np.array(tasks, np.int64), np.array(nodes, np.int64), decided, messages)
