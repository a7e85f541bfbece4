"""What an order policy sees of a running graph, and the board on which whoever runs it writes.

`View` is the reading half, `Board` the whole: a world on a logical clock and a runtime on the real one each own a
board, tell it what happens and hand it to the policy as a view. So one policy object works in both, and legal decisions
are checked in one place. Times are seconds of that clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import PolicyError
from fleetcast.cost.graphs.platform import upward_ranks
from fleetcast.kernels.dag import column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleetcast.cost.graphs.platform import Platform
    from fleetcast.scenario.workload.graphs import TaskGraph

WAITING, READY, RUNNING, DONE = range(4)
"""States of a task: parents are unfinished; it may begin; a worker has it; it is finished."""


class View:
    """A graph on its workers at one moment, for reading.

    Attributes:
        graph: tasks, work, edges.
        platform: workers, seconds, links.
        now: s.
        common: ready tasks of the common queue, longest waiting first (the keys of a dict).
        ready: all tasks that are ready, queued anywhere, longest waiting first (the keys of a dict).
    """

    def __init__(self, graph: TaskGraph, platform: Platform) -> None:
        self.graph, self.platform = graph, platform
        self.now = 0.0
        self.common: dict[int, None] = {}
        self.ready: dict[int, None] = {}
        self._queues: list[dict[int, None]] = [{} for _ in platform.workers]
        self._queued = [0.0] * len(platform)
        self._until = [0.0] * len(platform)
        self._alive = [True] * len(platform)
        self._running: list[int | None] = [None] * len(platform)
        self._state = bytearray(len(graph))
        self._where: dict[int, int] = {}  # task -> worker of its queue, or that ran it
        self._copies: dict[int, dict[int, float]] = {}  # datum -> node -> s at which it is there
        self._node = platform.node.tolist()
        self._seconds = [column("d", row) for row in platform.seconds]
        self._rows = [self._seconds[k] for k in platform.kind]
        begin, edge = graph.by_child
        self._begin, self._edge = column("q", begin), column("i", edge)
        self._first, self._child = column("q", graph.first), column("i", graph.child)
        self._tail = column("i", graph.parent_of_edge)
        self._size, self._datum = column("d", graph.size), column("i", graph.datum)
        self._latency, self._rate = platform.latency.tolist(), platform.rate.tolist()
        self._memory, self._need = platform.memory.tolist(), column("d", graph.memory)
        self._inputs = column("d", graph.inputs)
        self._missing = [self._begin[i + 1] - self._begin[i] for i in range(len(graph))]

    @property
    def workers(self) -> range:
        """The workers' numbers."""
        return range(len(self.platform.workers))

    @property
    def n_ready(self) -> int:
        """How many tasks are ready and have not begun."""
        return len(self.ready)

    @cached_property
    def rank(self) -> Sequence[float]:
        """Upward rank of each task, s: the longest mean way from its begin to the end of the graph."""
        ranks: Sequence[float] = column("d", upward_ranks(self.graph, self.platform))
        return ranks

    def alive(self, worker: int) -> bool:
        """Returns whether a worker can be given tasks."""
        return self._alive[worker]

    def runs(self, task: int, worker: int) -> bool:
        """Returns whether a worker can run a task at all: it knows how, has the memory and is alive."""
        return (
            self._alive[worker]
            and self._rows[worker][task] < math.inf
            and self._need[task] <= self._memory[worker]
        )  # fmt: skip

    def estimate(self, task: int, worker: int) -> float:
        """Returns the seconds that a task takes on a worker, its data being there; inf where it cannot run."""
        return self._rows[worker][task] if self.runs(task, worker) else math.inf

    def fetch(self, task: int, worker: int) -> float:
        """Returns the seconds of bringing what a task reads to a worker, one after the other, links being free.

        Data that are there cost nothing, data on their way what is left. Parents that have not ended count nothing.
        """
        total, node = 0.0, self._node[worker]
        for i in range(self._begin[task], self._begin[task + 1]):
            edge = self._edge[i]
            source = self._where.get(self._tail[edge], worker)
            if self._node[source] == node or self._state[self._tail[edge]] != DONE:
                continue
            there = self._copies.get(self._datum[edge], _NOWHERE).get(node)
            if there is None:
                total += self._latency[source][worker] + self._size[edge] / self._rate[source][worker]
            elif there > self.now:
                total += there - self.now
        return total + self._fetch_outside(task, worker)

    def _fetch_outside(self, task: int, worker: int) -> float:
        home, size = self.platform.home, self._inputs[task]
        if home < 0 or self._node[home] == self._node[worker] or not size:
            return 0.0
        seconds: float = self._latency[home][worker] + size / self._rate[home][worker]
        return seconds

    def missing_bytes(self, task: int, worker: int) -> float:
        """Returns the bytes of what a task reads that are not at a worker."""
        total, node = 0.0, self._node[worker]
        for i in range(self._begin[task], self._begin[task + 1]):
            edge = self._edge[i]
            if self._node[self._where.get(self._tail[edge], worker)] != node and (
                node not in self._copies.get(self._datum[edge], _NOWHERE)
            ):
                total += self._size[edge]
        return total

    def queue(self, worker: int) -> Mapping[int, None]:
        """Returns the ready tasks pushed to a worker, in that order (the keys)."""
        return self._queues[worker]

    def running(self, worker: int) -> int | None:
        """Returns the task a worker has begun, or None."""
        return self._running[worker]

    def free_at(self, worker: int) -> float:
        """Returns when a worker is expected to have done all it was given: what it runs, then its queue."""
        return max(self.now, self._until[worker]) + self._queued[worker]

    def soonest(self, task: int, alpha: float = 1.0, beta: float = 1.0) -> int | None:
        """Returns the worker that is expected to end a task first, the first of several; None where none can run it.

        Args:
            task: one whose parents have ended.
            alpha: weight of the end of the worker's queue and the task's own seconds.
            beta: weight of the seconds of bringing its data.
        """
        best, least = None, math.inf
        for worker in self.workers:
            seconds = self.estimate(task, worker)
            if seconds == math.inf:
                continue
            end = alpha * (self.free_at(worker) + seconds)
            if end < least and (end := end + beta * self.fetch(task, worker)) < least:
                best, least = worker, end
        return best

    def where(self, task: int) -> int | None:
        """Returns the worker in whose queue a task is, that runs it or ran it; None = none yet."""
        return self._where.get(task)

    def state(self, task: int) -> int:
        """Returns WAITING, READY, RUNNING or DONE."""
        return self._state[task]

    def missing(self, task: int) -> int:
        """Returns how many parents of a task have not ended."""
        count: int = self._missing[task]
        return count

    def children(self, task: int) -> Sequence[int]:
        """Returns the tasks that wait for a task."""
        found: Sequence[int] = self._child[self._first[task] : self._first[task + 1]]
        return found

    def parents(self, task: int) -> list[int]:
        """Returns the tasks that a task waits for."""
        return [self._tail[self._edge[i]] for i in range(self._begin[task], self._begin[task + 1])]


class Board(View):
    """A view, and how whoever runs the graph keeps it true.

    ``release`` and ``push`` as tasks become ready, ``begin`` and ``finish`` as they run, ``arrive`` as data travel,
    ``give_back`` and ``lose`` where something fails.
    """

    def release(self) -> list[int]:
        """Returns the tasks that are ready at the very start, in their order; call once, or after `restore`."""
        return self._free(
            i for i in range(len(self.graph)) if not self._missing[i] and self._state[i] == WAITING
        )  # fmt: skip

    def _free(self, tasks: Iterable[int]) -> list[int]:
        found = list(tasks)
        for task in found:
            self._state[task] = READY
            self.ready[task] = None
        return found

    def push(self, task: int, worker: int | None) -> None:
        """Puts a ready task into a worker's queue or, None, the common one.

        Raises:
            PolicyError: no such worker, or it cannot run the task.
        """
        if worker is None:
            self.common[task] = None
            return
        if not isinstance(worker, int | np.integer) or not 0 <= worker < len(self._queues):
            raise PolicyError(f"push of task {self._name(task)} names worker {worker!r}, of {len(self._queues)}")
        if not self.runs(task, worker):
            raise PolicyError(
                f"push of task {self._name(task)} names {self.platform.workers[worker]}, which cannot run it"
            )
        self._queues[worker][task] = None
        self._queued[worker] += self._rows[worker][task]
        self._where[task] = worker

    def take(self, task: int | None, worker: int) -> bool:
        """Returns whether a popped task can begin: False for None.

        Raises:
            PolicyError: it is not ready, or the worker cannot run it.
        """
        if task is None:
            return False
        if not isinstance(task, int | np.integer) or not 0 <= task < len(self._state) or self._state[task] != READY:
            raise PolicyError(f"pop by {self.platform.workers[worker]} takes {self._name(task)}, which is not ready")
        if not self.runs(task, worker):
            raise PolicyError(f"pop by {self.platform.workers[worker]} takes {self._name(task)}, which it cannot run")
        return True

    def begin(self, task: int, worker: int, until: float) -> None:
        """Notes that a worker has a task; ``until`` is when it is expected to end, s."""
        self._unqueue(task)
        self.ready.pop(task, None)
        self._state[task], self._where[task] = RUNNING, worker
        self._running[worker], self._until[worker] = task, until

    def finish(self, task: int) -> list[int]:
        """Notes that a task has ended at ``now``; returns the tasks that this makes ready, in their order."""
        worker = self._where[task]
        self._state[task] = DONE
        self._running[worker], self._until[worker] = None, self.now
        ready = []
        for child in self._child[self._first[task] : self._first[task + 1]]:
            self._missing[child] -= 1
            if not self._missing[child] and self._state[child] == WAITING:
                ready.append(child)
        return self._free(ready)

    def arrive(self, datum: int, worker: int, at: float) -> None:
        """Notes that data are, or will be, at a worker at ``at`` s."""
        self._copies.setdefault(datum, {})[self._node[worker]] = at

    def give_back(self, task: int) -> None:
        """Notes that a task that was queued or running did not end; it is ready and must be pushed again."""
        worker = self._where.pop(task, None)
        self._unqueue(task, worker)
        if worker is not None and self._running[worker] == task:
            self._running[worker], self._until[worker] = None, self.now
        self._state[task] = READY
        self.ready[task] = None

    def lose(self, worker: int) -> list[int]:
        """Notes that a worker is gone; returns the tasks it had, queued or running, to be pushed again."""
        self._alive[worker] = False
        running = self._running[worker]
        held = ([running] if running is not None else []) + list(self._queues[worker])
        for task in held:
            self.give_back(task)
        node = self._node[worker]
        if not any(alive and self._node[w] == node for w, alive in enumerate(self._alive)):
            for places in self._copies.values():
                places.pop(node, None)
        return held

    def join(self, worker: int) -> None:
        """Notes that a worker that was gone is back, empty."""
        self._alive[worker] = True

    def restore(self, task: int, worker: int) -> None:
        """Notes, before anything has begun, that a task ended earlier on a worker: its children wait for it no more."""
        self._state[task], self._where[task] = DONE, worker
        for child in self._child[self._first[task] : self._first[task + 1]]:
            self._missing[child] -= 1

    @property
    def finished(self) -> bool:
        """Whether every task has ended."""
        return self._state.count(DONE) == len(self._state)

    def _unqueue(self, task: int, worker: int | None = None) -> None:
        if task in self.common:
            del self.common[task]
            return
        worker = self._where.get(task) if worker is None else worker
        if worker is not None and task in self._queues[worker]:
            del self._queues[worker][task]
            # an empty queue has no rounding left
            self._queued[worker] = self._queued[worker] - self._rows[worker][task] if self._queues[worker] else 0.0

    def _name(self, task: object) -> str:
        return self.graph.names[task] if isinstance(task, int) and 0 <= task < len(self.graph) else repr(task)


_NOWHERE: dict[int, float] = {}
