"""A running constellation as order policies see graphs: numbers on the board of `policy.order.tasks`.

So the object that orders tasks in a simulation orders them here, on the real clock. An agent of several slots is as
many workers, which share its memory. The board is written as tasks begin and end, and made anew where the graph or the
agents have changed: what has ended or runs is entered on it, and the policy starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fleetcast.cost.graphs.platform import NONE, Platform
from fleetcast.policy.order.tasks import Board, Policy
from fleetcast.policy.order.tasks.view import READY
from fleetcast.runtime.agents.orchestrator import Peer
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import ENDED, Status, Task
from fleetcast.scenario.workload.graphs import assemble

USUAL = 1.0
"""s that a task is taken to last of which nobody says anything."""


class Estimates(Protocol):
    """What is known of tasks and devices before they meet."""

    def seconds(self, task: Task, agent: str) -> float:
        """Returns what a task takes on an agent, s."""

    def size(self, before: str, after: str) -> float:
        """Returns the bytes that one task hands to another."""

    def link(self, a: str, b: str) -> tuple[float, float]:
        """Returns latency (s) and rate (B/s) from one agent to another."""


class Said:
    """What the tasks themselves say; data travel in no time."""

    def seconds(self, task: Task, agent: str) -> float:
        """Returns what the task says, or `USUAL`."""
        return USUAL if task.seconds is None else task.seconds

    def size(self, before: str, after: str) -> float:
        """Returns 0."""
        return 0.0

    def link(self, a: str, b: str) -> tuple[float, float]:
        """Returns no time."""
        return 0.0, float("inf")


@dataclass(frozen=True)
class Place:
    """One slot of an agent: a worker."""

    agent: str
    slot: int


@dataclass
class Attempt:
    """One try of one task.

    Attributes:
        number: never used again.
        task: its task.
        peer: the agent's connection that it was sent by.
        worker: its number on the board.
        begun: s since the run began.
        late: s at which it must have ended.
        ended: s; 0 = it runs.
        how: as in `messages.Done`, or "gone": its agent went away.
        seconds: that it ran by its agent's clock.
        progress: number of the last part of its result.
    """

    number: int
    task: str
    peer: Peer
    worker: int
    begun: float
    late: float
    ended: float = 0.0
    how: str = ""
    seconds: float = 0.0
    progress: int = 0


class Books:
    """The board, and the names behind its numbers.

    Args:
        policy: orders the tasks.
        estimates: of them.
        able: whether an agent can run a task.
    """

    def __init__(self, policy: Policy, estimates: Estimates, able: Callable[[Task, str], bool]) -> None:
        self.policy, self._estimates, self._able = policy, estimates, able
        self.places: list[Place] = []
        self._of: dict[str, list[int]] = {}
        self.numbers: dict[str, int] = {}
        self.names: list[str] = []
        self.board: Board

    def enter(self, agent: str, slots: int) -> bool:
        """Adds an agent's slots to the workers; returns whether any was new, so that the board must be made anew."""
        own = self._of.setdefault(agent, [])
        had = len(own)
        own += range(len(self.places), len(self.places) + slots - had)
        self.places += [Place(agent, slot) for slot in range(had, slots)]
        return slots > had

    def workers(self, agent: str) -> list[int]:
        """Returns the numbers of an agent's workers."""
        return self._of.get(agent, [])

    def make(
        self, value: Constellation, alive: Mapping[str, int], running: Mapping[str, tuple[int, float]], now: float
    ) -> None:
        """Makes the board anew, and lets the policy start and queue what is ready.

        Args:
            value: tasks and where they are.
            alive: usable agents, and how many slots each has.
            running: task -> its worker and when it should end, s.
            now: s.
        """
        self.names = list(value.tasks)
        self.numbers = {name: i for i, name in enumerate(self.names)}
        graph = assemble(
            name="constellation", names=self.names or ["none"],
            kernels=tuple(dict.fromkeys(task.call for task in value.tasks.values())) or ("none",),
            kernel=self._kernels(value), work=[self._estimates.seconds(t, "") for t in value.tasks.values()] or [0.0],
            unit="s", parent=[self.numbers[a] for a, _ in value.lines], child=[self.numbers[b] for _, b in value.lines],
            size=[self._estimates.size(a, b) for a, b in value.lines],
        )  # fmt: skip
        board = self.board = Board(graph, self._platform(list(value.tasks.values())))
        board.now = now
        for worker in board.workers:
            place = self.places[worker] if worker < len(self.places) else None
            if place is None or place.slot >= alive.get(place.agent, 0):
                board.lose(worker)
        for name, status in value.status.items():
            if status in ENDED:
                at = self.workers(value.devices[name])[:1] if name in value.devices else []
                board.restore(self.numbers[name], at[0] if at else 0)
        if not self.names:
            board.restore(0, 0)
        board.release()
        for name, (worker, until) in running.items():
            board.begin(self.numbers[name], worker, until)
        self.policy.start(board)
        for name in value.ready:
            self.push(name)

    def push(self, name: str) -> None:
        """Lets the policy queue a task that may begin.

        Raises:
            PolicyError: it names a worker that cannot run it.
        """
        number = self.numbers[name]
        if self.board.state(number) == READY:
            self.board.push(number, self.policy.push(number, self.board))

    def pop(self, worker: int) -> str | None:
        """Returns the task that an idle worker should begin, or None.

        Raises:
            PolicyError: it cannot.
        """
        board = self.board
        number = self.policy.pop(worker, board)
        return self.names[number] if number is not None and board.take(number, worker) else None

    def idle(self) -> list[int]:
        """Returns the workers that live and have nothing to do."""
        return [i for i in self.board.workers if self.board.alive(i) and self.board.running(i) is None]

    def able(self, name: str) -> bool:
        """Returns whether any worker that lives can run a task."""
        number = self.numbers[name]
        return any(self.board.runs(number, worker) for worker in self.board.workers)

    def seconds(self, name: str, worker: int) -> float:
        """Returns what a task should take on a worker, what it reads brought there one after the other included, s."""
        number = self.numbers[name]
        return self.board.fetch(number, worker) + self.board.estimate(number, worker)

    def begin(self, name: str, worker: int, until: float) -> None:
        """Notes that a task has begun, and that what it reads is at the worker from now on."""
        number, board = self.numbers[name], self.board
        begin, edges = board.graph.by_child
        for edge in edges[begin[number] : begin[number + 1]]:
            board.arrive(int(board.graph.datum[edge]), worker, board.now)
        board.begin(number, worker, until)

    def finish(self, name: str, value: Constellation) -> None:
        """Notes that a task that ran has ended, and queues what may begin now."""
        for number in self.board.finish(self.numbers[name]):
            if value.status[self.names[number]] is Status.PENDING:
                self.push(self.names[number])

    def again(self, name: str) -> None:
        """Notes that a task that ran must run again."""
        self.board.give_back(self.numbers[name])
        self.push(name)

    def _kernels(self, value: Constellation) -> Sequence[int]:
        known = {call: i for i, call in enumerate(dict.fromkeys(task.call for task in value.tasks.values()))}
        return [known[task.call] for task in value.tasks.values()] or [0]

    def _platform(self, tasks: Sequence[Task]) -> Platform:
        agents = list(self._of)
        rows = [[self._estimates.seconds(t, a) if self._able(t, a) else np.inf for t in tasks] for a in agents]
        names = [f"{p.agent}#{p.slot + 1}" if p.slot else p.agent for p in self.places]
        kind = [agents.index(place.agent) for place in self.places]
        seconds = np.array(rows, float).reshape(len(agents), len(tasks))
        stuck = ~np.isfinite(seconds).any(0)
        if stuck.any() or not tasks:  # a worker that never is there: policies want one for every task
            names.append("nobody")
            kind.append(len(agents))
            agents.append("nobody")
            seconds = np.vstack([seconds, np.where(stuck, USUAL, np.inf)]) if tasks else np.zeros((len(agents), 1))
        links = np.zeros((len(agents), len(agents), 2))
        for i, a in enumerate(agents):
            for j, b in enumerate(agents):
                known = i != j and "nobody" not in (a, b)
                links[i, j] = self._estimates.link(a, b) if known else (0.0, np.inf)
        of, count = np.array(kind, np.int32), len(kind)
        grid = np.ix_(of, of)
        return Platform(
            workers=tuple(names), kinds=tuple(agents), kind=of, node=of, seconds=seconds,
            memory=np.full(count, np.inf), latency=links[..., 0][grid], rate=links[..., 1][grid],
            channels=np.full((count, count, 2), NONE, np.int32), ports=(), home=NONE, idle=np.zeros(count),
            busy=np.zeros(count),
        )  # fmt: skip
