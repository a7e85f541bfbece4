"""Plays an order policy on a platform, event by event: the only events are ends of tasks.

At each instant all tasks that end there are noted, the tasks this makes ready are pushed, then every idle worker pops.
Data of a pushed task travel to its worker at once, parents that ended first first, always from the worker that made
them; a worker that pops a task holds it while the rest arrives. Where a policy has planned everything, data travel as
soon as they are made, in the planned order on every channel. What comes out is a `Schedule`:
`cost.graphs.schedule.check` holds any policy's run to what graph and platform allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.cost.graphs.channels import Channels, Planned
from fleetcast.cost.graphs.schedule import Messages, Schedule
from fleetcast.policy.order.tasks import Board, Policy

if TYPE_CHECKING:
    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.scenario.workload.graphs import TaskGraph

Need = tuple[int, int, int, float, float]
"""What a task reads from elsewhere: edge, datum, source, bytes, s when made."""


def play(graph: TaskGraph, platform: Platform, policy: Policy) -> Schedule:
    """Returns what happens when a policy orders a graph.

    Raises:
        Infeasible: a task fits no worker's memory.
        SpecError: a task runs on no worker.
        PolicyError: an illegal decision, or ready tasks that no idle worker takes.
    """
    platform.check(graph)
    return _World(graph, platform, policy).run()


class _World:
    def __init__(self, graph: TaskGraph, platform: Platform, policy: Policy) -> None:
        self.graph, self.policy = graph, policy
        self.board = Board(graph, platform)
        self.channels = Channels(platform)
        self.node, self.home = platform.node.tolist(), platform.home
        self.size = [*graph.size.tolist(), *graph.inputs.tolist()]
        self.datum = [*graph.datum.tolist(), *range(-1, -1 - len(graph), -1)]
        begin, edge = graph.by_child
        self.into, self.edge, self.tail = begin.tolist(), edge.tolist(), graph.parent_of_edge.tolist()
        self.first = graph.first.tolist()
        self.worker, self.order = [-1] * len(graph), list[int]()
        self.start, self.finish = [0.0] * len(graph), [0.0] * len(graph)
        self.ends: list[tuple[float, int, int]] = []
        self.held: dict[int, int] = {}  # idle worker -> task whose data nobody knows the arrival of
        self.there: dict[tuple[int, int], float] = {}
        self.planned: Planned | None = None

    def run(self) -> Schedule:
        board, policy = self.board, self.policy
        policy.start(board)
        plan: Schedule | None = getattr(policy, "schedule", None)
        if plan is not None:
            self.planned = Planned(self.channels, plan.messages, self.size, self.arrived)
            self.planned.made([self.graph.edges + i for i in range(len(self.graph))], 0.0)
        self.push(board.release())
        while True:
            self.pop()
            if not self.ends:
                break
            self.end()
        if not board.finished:
            left = len(self.graph) - len(self.order)
            said = f"{board.n_ready:,} are ready, every worker is idle"
            raise PolicyError(f"{type(policy).__name__} leaves {left:,} tasks undone: {said}")
        return self.schedule()

    def push(self, tasks: list[int]) -> None:
        for task in tasks:
            worker = self.policy.push(task, self.board)
            self.board.push(task, worker)
            if worker is not None and self.planned is None:
                self.fetch(task, worker)

    def pop(self) -> None:
        for worker in self.board.workers:
            if self.board.running(worker) is not None or not self.board.ready:
                continue
            task = self.policy.pop(worker, self.board)
            if self.board.take(task, worker):
                assert task is not None
                if self.planned is None:
                    self.fetch(task, worker)
                self.begin(task, worker)

    def begin(self, task: int, worker: int) -> None:
        """A worker holds a task; it runs from when its data are there, where that is known."""
        at = self.board.now
        for _, datum, _, _, made in self.needs(task, worker):
            arrival = self.there.get((datum, self.node[worker]))
            if arrival is None:
                self.held[worker] = task
                self.board.begin(task, worker, made)
                return
            at = max(at, arrival)
        self.held.pop(worker, None)
        until = at + self.board.estimate(task, worker)
        self.board.begin(task, worker, until)
        self.worker[task], self.start[task], self.finish[task] = worker, at, until
        heappush(self.ends, (until, len(self.order), task))
        self.order.append(task)

    def end(self) -> None:
        """All tasks that end at the next instant."""
        self.board.now = now = self.ends[0][0]
        ready: list[int] = []
        while self.ends and self.ends[0][0] == now:
            task = heappop(self.ends)[2]
            ready += self.board.finish(task)
            if self.planned is not None:
                self.planned.made(list(range(self.first[task], self.first[task + 1])), now)
        for worker, task in list(self.held.items()):
            self.begin(task, worker)
        self.push(ready)

    def needs(self, task: int, worker: int) -> Iterator[Need]:
        """What a ready task reads from other nodes, what was made first first, inputs of the graph last."""
        node, found = self.node[worker], list[Need]()
        for i in range(self.into[task], self.into[task + 1]):
            edge = self.edge[i]
            parent = self.tail[edge]
            if self.node[self.worker[parent]] != node:
                found.append((edge, self.datum[edge], self.worker[parent], self.size[edge], self.finish[parent]))
        found.sort(key=lambda need: need[4])
        yield from found
        edge = self.graph.edges + task
        if self.home >= 0 and self.size[edge] and self.node[self.home] != node:
            yield edge, self.datum[edge], self.home, self.size[edge], 0.0

    def fetch(self, task: int, worker: int) -> None:
        """Asks for all that a task reads and that is neither at a worker nor on its way."""
        for edge, datum, source, size, made in self.needs(task, worker):
            if (datum, self.node[worker]) not in self.there:
                made = max(made, self.board.now)
                self.arrived(edge, worker, self.channels.send(edge, source, worker, size, made))

    def arrived(self, edge: int, worker: int, at: float) -> None:
        self.there[self.datum[edge], self.node[worker]] = at
        self.board.arrive(self.datum[edge], worker, at)

    def schedule(self) -> Schedule:
        sent = [np.array(column) for column in zip(*self.channels.sent, strict=True)] or [np.empty(0)] * 5
        edge, source, target = (column.astype(np.int32) for column in sent[:3])
        messages = Messages(edge, source, target, sent[3].astype(float), sent[4].astype(float))
        return Schedule(
            np.array(self.worker, np.int32), np.array(self.start), np.array(self.finish), messages,
            np.array(self.order, np.int32),
        )  # fmt: skip
