"""A schedule: where and when every task runs and every message travels; and a check that reads nothing but the graph.

`heft` makes one: by falling upward rank, each task to the worker that ends it first, gaps included, its messages
holding the channels of the platform. `peft` looks at what can follow as well.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import FleetcastError
from fleetcast.base.record import Record
from fleetcast.cost.graphs.platform import upward_ranks
from fleetcast.kernels import dag
from fleetcast.kernels import heft as loop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.scenario.workload.graphs import TaskGraph

INPUT = "input"
"""What a message from home is called in a record."""


class BrokenSchedule(FleetcastError):
    """A schedule that its graph or its platform does not allow; the message says which task, message or channel."""


@dataclass(frozen=True, eq=False)
class Messages:
    """k messages, in the order decided; channels carry them in that order.

    Attributes:
        edge: i4[k]; of what a task t reads from home, m + t.
        source: i4[k], worker.
        target: i4[k], worker.
        begin: f8[k], s.
        end: f8[k], s.
    """

    edge: NDArray[np.int32]
    source: NDArray[np.int32]
    target: NDArray[np.int32]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of messages."""
        return len(self.edge)

    def bytes(self, graph: TaskGraph) -> NDArray[np.float64]:
        """Returns f8[k]."""
        return np.concatenate((graph.size, graph.inputs))[self.edge]


@dataclass(frozen=True, eq=False)
class Schedule:
    """n tasks on W workers.

    Attributes:
        worker: i4[n].
        start: f8[n], s.
        finish: f8[n], s.
        messages: between workers of different nodes.
        order: i4[n], tasks in the order decided.
    """

    worker: NDArray[np.int32]
    start: NDArray[np.float64]
    finish: NDArray[np.float64]
    messages: Messages
    order: NDArray[np.int32]

    @property
    def makespan(self) -> float:
        """When the last task ends, s."""
        return float(self.finish.max())

    def queues(self, workers: int) -> list[list[int]]:
        """Returns the tasks of each worker in the order of their starts."""
        decided = np.empty(len(self.order), np.int64)
        decided[self.order] = np.arange(len(self.order))
        rows = np.lexsort((decided, self.finish, self.start, self.worker))
        cuts = np.searchsorted(self.worker[rows], np.arange(1, workers))
        return [part.tolist() for part in np.split(rows, cuts)]

    def moved_bytes(self, graph: TaskGraph) -> float:
        """Returns the bytes of all messages."""
        return float(self.messages.bytes(graph).sum())

    def energy(self, platform: Platform) -> float:
        """Returns J of all workers until the last task ends: idle watts throughout, busy ones while a task runs."""
        worked = np.bincount(self.worker, self.finish - self.start, len(platform))
        return float((platform.idle * self.makespan + (platform.busy - platform.idle) * worked).sum())

    def record(self, graph: TaskGraph, platform: Platform) -> Record:
        """Returns the event record: a row a task on its worker, a row a message on its receiving channel.

        ``what`` is the kernel of a task, of a message "data" or "input". ``items`` is the task, of a message the edge.
        """
        sent = self.messages
        rows, n, workers = len(self.start) + len(sent), len(self.start), len(platform)
        links = platform.channels[sent.source, sent.target]
        port = np.where(links[:, 1] >= 0, links[:, 1], links[:, 0])
        resource = np.concatenate((self.worker, np.where(port >= 0, workers + port, workers + len(platform.ports))))
        kernels = len(graph.kernels)
        what = np.concatenate((graph.kernel, np.where(sent.edge < graph.edges, kernels, kernels + 1)))
        start, finish = np.concatenate((self.start, sent.begin)), np.concatenate((self.finish, sent.end))
        by = np.lexsort((np.arange(rows), start))
        return Record(
            start[by], (finish - start)[by], resource[by].astype(np.int32), what[by].astype(np.int32),
            np.ones(rows, np.int64), np.concatenate((np.arange(n), sent.edge))[by].astype(np.int64), np.zeros(rows),
            (*platform.workers, *platform.ports, "links"), (*graph.kernels, "data", INPUT),
        )  # fmt: skip


def decided_order(graph: TaskGraph, rank: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns tasks by falling rank, equal ones in the graph's order; no task before its parents."""
    place = np.empty(len(graph), np.int64)
    place[graph.order] = np.arange(len(graph))
    return np.lexsort((place, -rank)).astype(np.int32)


def heft(graph: TaskGraph, platform: Platform, rank: NDArray[np.float64] | None = None) -> Schedule:
    """Returns HEFT's schedule with messages that hold channels, see `kernels.heft`.

    Args:
        graph: tasks and edges.
        platform: workers and links.
        rank: f8[n] by which tasks are taken, never rising along an edge; None = the upward rank.

    Raises:
        Infeasible: a task fits no worker's memory.
        SpecError: a task runs on no worker.
    """
    platform.check(graph)
    return _placed(graph, platform, decided_order(graph, upward_ranks(graph, platform) if rank is None else rank))


def peft(graph: TaskGraph, platform: Platform) -> Schedule:
    """Returns PEFT's schedule: each task goes where its end and what can follow it at best are the least.

    Of the tasks whose parents are placed, the one with the largest mean optimistic cost comes next (Arabnejad and
    Barbosa, "List scheduling algorithm for heterogeneous systems by an optimistic cost table", IEEE TPDS 25, 2014).
    Arguments and errors as `heft`.
    """
    platform.check(graph)
    latency, pace = platform.usual
    gap = latency + pace * graph.size
    ahead = np.asarray(dag.optimistic(graph.order, graph.first, graph.child, platform.seconds, gap))
    times = np.bincount(platform.kind, minlength=len(platform.kinds))
    rank = (ahead * (times / times.sum())[:, None]).sum(0)
    return _placed(graph, platform, _ready_first(graph, rank), ahead)


def _ready_first(graph: TaskGraph, rank: NDArray[np.float64]) -> NDArray[np.int32]:
    """Returns tasks, of those whose parents came before the one with the highest rank next."""
    left = np.diff(graph.by_child[0]).tolist()
    falling, first, child = (-rank).tolist(), graph.first.tolist(), graph.child.tolist()
    waiting = [(falling[task], task) for task, parents in enumerate(left) if not parents]
    heapq.heapify(waiting)
    found = []
    while waiting:
        task = heapq.heappop(waiting)[1]
        found.append(task)
        for other in child[first[task] : first[task + 1]]:
            left[other] -= 1
            if not left[other]:
                heapq.heappush(waiting, (falling[other], other))
    return np.array(found, np.int32)


def _placed(
    graph: TaskGraph, platform: Platform, order: NDArray[np.int32], ahead: NDArray[np.float64] | None = None
) -> Schedule:
    begin, edge = graph.by_child
    found = loop.heft(
        {
            "begin": begin, "edge": edge, "tail": graph.parent_of_edge, "size": graph.size, "datum": graph.datum,
            "need": graph.memory, "inputs": graph.inputs,
        },
        {
            "kind": platform.kind, "node": platform.node, "seconds": platform.seconds, "memory": platform.memory,
            "latency": platform.latency, "rate": platform.rate, "channels": platform.channels, "home": platform.home,
        },
        order, ahead,
    )  # fmt: skip
    sent = Messages(*(found[key] for key in ("edge", "source", "target", "begin", "end")))
    return Schedule(found["worker"], found["start"], found["finish"], sent, order)


def check(schedule: Schedule, graph: TaskGraph, platform: Platform) -> None:
    """Refuses a schedule that cannot be: reads no algorithm, only what graph and platform allow.

    Raises:
        BrokenSchedule: names what is broken.
    """
    tasks, sent = np.arange(len(graph)), schedule.messages
    tight = 1e-9 * max(schedule.makespan, 1e-300)
    lasts = platform.seconds[platform.kind[schedule.worker], tasks]
    _hold(np.abs(schedule.finish - schedule.start - lasts) <= tight, "a task lasts other than its worker takes")
    _hold(graph.memory <= platform.memory[schedule.worker], "a task has too little memory")
    path = platform.latency[sent.source, sent.target] + sent.bytes(graph) / platform.rate[sent.source, sent.target]
    _hold(np.abs(sent.end - sent.begin - path) <= tight, "a message lasts other than its path takes")
    inside = sent.edge < graph.edges
    tails = graph.parent_of_edge[sent.edge[inside]]
    _hold(sent.begin[inside] >= schedule.finish[tails] - tight, "a message leaves before its data are made")
    _hold(
        platform.node[sent.source[inside]] == platform.node[schedule.worker[tails]], "a message leaves from elsewhere"
    )
    there: dict[tuple[int, int], float] = {}
    for edge, target, end in zip(sent.edge.tolist(), sent.target.tolist(), sent.end.tolist(), strict=True):
        what = int(graph.datum[edge]) if edge < graph.edges else -1 - (edge - graph.edges)
        key = what, int(platform.node[target])
        there[key] = min(end, there.get(key, end))
    places = platform.node[schedule.worker]
    for edge, (parent, child) in enumerate(zip(graph.parent_of_edge.tolist(), graph.child.tolist(), strict=True)):
        ready = schedule.finish[parent]
        if places[parent] != places[child]:
            ready = there.get((int(graph.datum[edge]), int(places[child])), np.inf)
        _hold(np.array([schedule.start[child] >= ready - tight]), f"task {graph.names[child]} starts before its data")
    if platform.home >= 0:
        for task in np.flatnonzero((graph.inputs > 0) & (places != platform.node[platform.home])).tolist():
            ready = there.get((-1 - task, int(places[task])), np.inf)
            _hold(np.array([schedule.start[task] >= ready - tight]), f"task {graph.names[task]} starts before its data")
    _apart(schedule.worker, schedule.start, schedule.finish, tight, "two tasks share a worker")
    for side in (0, 1):
        held = platform.channels[sent.source, sent.target]
        on = held[:, side] >= 0 if side == 0 else (held[:, 1] >= 0) & (held[:, 1] != held[:, 0])
        if side == 0:
            ports, begins, ends = held[on, 0], sent.begin[on], sent.end[on]
        else:
            ports = np.concatenate((ports, held[on, 1]))
            begins, ends = np.concatenate((begins, sent.begin[on])), np.concatenate((ends, sent.end[on]))
    _apart(ports, begins, ends, tight, "two messages share a channel")


def _hold(truth: NDArray[np.bool_], problem: str) -> None:
    if not truth.all():
        raise BrokenSchedule(f"{problem} (number {int(np.argmin(truth))})")


def _apart(
    which: NDArray[np.int32], begin: NDArray[np.float64], end: NDArray[np.float64], tight: float, problem: str
) -> None:
    by = np.lexsort((end, begin, which))
    which, begin, end = which[by], begin[by], end[by]
    _hold((which[1:] != which[:-1]) | (begin[1:] >= end[:-1] - tight), problem)
