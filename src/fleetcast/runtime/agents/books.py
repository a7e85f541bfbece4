"""A running constellation as order policies see graphs: numbers on the board of `policy.order.tasks`.

So the object that orders tasks in a simulation orders them here, on the real clock. An agent of several slots is as
many workers, which share its memory. The board is written as tasks begin and end, and made anew where the graph or the
agents have changed: what has ended or runs is entered on it, and the policy starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from fleetcast.cost.graphs.channels import Channels, Planned, Row
from fleetcast.cost.graphs.platform import NONE, Platform
from fleetcast.policy.order.tasks import Board, Policy
from fleetcast.policy.order.tasks.view import READY
from fleetcast.runtime.agents.messages import GRACE, Begin
from fleetcast.runtime.agents.orchestrator import Peer
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import ENDED, Status, Task
from fleetcast.scenario.workload.graphs import TaskGraph, assemble

EMULATED = ("sleep", "spin")
USUAL = 1.0
"""s that a task is taken to last of which nobody says anything."""


@dataclass(frozen=True)
class Place:
    """One slot of an agent: a worker."""

    agent: str
    slot: int


class Estimates(Protocol):
    """What is known of tasks and devices before they meet."""

    def seconds(self, task: Task, agent: str) -> float:
        """Returns what a task takes on an agent, s."""

    def given(self, value: Constellation, places: Sequence[Place]) -> tuple[TaskGraph, Platform] | None:
        """Returns graph and platform with data and links, numbered as the tasks and places are.

        None = nothing is known of data, or no longer: others have joined, or tasks were edited. They then travel in no
        time.
        """


class Said:
    """What the tasks themselves say; data travel in no time."""

    def seconds(self, task: Task, agent: str) -> float:
        """Returns what the task says, or `USUAL`."""
        return USUAL if task.seconds is None else task.seconds

    def given(self, value: Constellation, places: Sequence[Place]) -> tuple[TaskGraph, Platform] | None:
        """Returns None."""
        return None


@dataclass
class Attempt:
    """One try of one task.

    Attributes:
        number: never used again.
        task: its task.
        peer: the agent's connection that it was sent by.
        worker: its number on the board.
        begun: s since the run began.
        until: s at which it is expected to end.
        late: s at which it must have ended.
        ended: s; 0 = it runs.
        how: as in `messages.Done`, or "gone": its agent went away.
        seconds: that it ran by its agent's clock.
        wait: of these, for what it reads to arrive.
        progress: number of the last part of its result.
    """

    number: int
    task: str
    peer: Peer
    worker: int
    begun: float
    until: float
    late: float
    ended: float = 0.0
    how: str = ""
    seconds: float = 0.0
    wait: float = 0.0
    progress: int = 0

    def shift(self, now: float) -> None:
        """Lets it begin now."""
        later = now - self.begun
        self.begun, self.until, self.late = now, self.until + later, self.late + later


def message_of(value: Constellation, attempt: Attempt, after: int = 0) -> Begin:
    """Returns what an agent is told of an attempt, with the results of the tasks before that have ended."""
    name, task = attempt.task, value.tasks[attempt.task]
    arguments, inputs = task.arguments, None
    if task.call in EMULATED and "seconds" not in arguments:
        arguments = {**arguments, "seconds": attempt.until - attempt.begun}
    if task.inputs:
        before = [line.before for line in value.net.into[name]]
        inputs = {b: value.results[b] for b in before if b in value.results}
    return Begin(
        attempt=attempt.number, task=name, call=task.call, arguments=arguments, inputs=inputs,
        timeout=task.timeout or 0.0, after=after,
    )  # fmt: skip


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
        self._network: tuple[Platform, Channels] | None = None
        self._node: list[int] = []
        self._planned: Planned | None = None
        self._fresh = True
        self._there: dict[tuple[int, int], float] = {}  # datum, node -> s
        self._next: dict[
            int, int
        ] = {}  # task -> the one after it on its worker, where a plan says so and no data travel

    def seat(self, places: Sequence[Place]) -> None:
        """Numbers workers before their agents are there."""
        for place in places:
            self._of.setdefault(place.agent, []).append(len(self.places))
            self.places.append(place)

    def enter(self, agent: str, slots: int) -> None:
        """Adds an agent's slots to the workers, those that are not there yet."""
        own = self._of.setdefault(agent, [])
        had = len(own)
        own += range(len(self.places), len(self.places) + slots - had)
        self.places += [Place(agent, slot) for slot in range(had, slots)]

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
        graph, platform = self._estimates.given(value, self.places) or self._assembled(value)
        travels = bool(graph.size.any() or graph.inputs.any())
        if not travels or self._network is None or self._network[0] is not platform:
            self._network, self._there = (platform, Channels(platform)) if travels else None, {}
        self._node = platform.node.tolist()
        board = self.board = Board(graph, self._bounded(platform, value))
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
        here = {self._node[i]: i for i, place in enumerate(self.places) if place.slot < alive.get(place.agent, 0)}
        self._there = {key: at for key, at in self._there.items() if key[1] in here}
        for (datum, node), arrival in self._there.items():
            board.arrive(datum, here[node], arrival)
        board.release()
        for name, (worker, until) in running.items():
            board.begin(self.numbers[name], worker, until)
        self.policy.start(board)
        self._follow()
        plan = getattr(self.policy, "schedule", None)
        self._next = {}
        if plan is not None and self._network is None:
            for queue in plan.queues(len(board.workers)):
                self._next.update(pairwise(queue))
        for name in value.ready:
            self.push(name)

    def _follow(self) -> None:
        """Sends data as a policy's plan says, where it has made one; plans made while the graph runs have no part."""
        plan, graph = getattr(self.policy, "schedule", None), self.board.graph
        first, self._fresh = self._fresh, False
        self._planned = None
        if plan is not None and first and self._network is not None:
            sizes = [*graph.size.tolist(), *graph.inputs.tolist()]
            self._planned = Planned(self._network[1], plan.messages, sizes, self._arrived)
            self._planned.made([graph.edges + i for i in range(len(graph))], self.board.now)

    def _arrived(self, edge: int, worker: int, at: float) -> None:
        graph = self.board.graph
        datum = int(graph.datum[edge]) if edge < graph.edges else -1 - (edge - graph.edges)
        self._there[datum, self._node[worker]] = at
        self.board.arrive(datum, worker, at)

    def push(self, name: str) -> None:
        """Lets the policy queue a task that may begin.

        Raises:
            PolicyError: it names a worker that cannot run it.
        """
        number = self.numbers[name]
        if self.board.state(number) == READY:
            worker = self.policy.push(number, self.board)
            self.board.push(number, worker)
            if worker is not None and self._planned is None:
                self.data_at(name, worker)

    @property
    def planned(self) -> bool:
        """Whether a plan says what follows what on each worker."""
        return bool(self._next)

    def planned_after(self, name: str, worker: int) -> str | None:
        """Returns the task that a plan has after another on a worker, if that can run it; None = there is no plan."""
        after = self._next.get(self.numbers[name])
        if after is None or int(self.policy.schedule.worker[after]) != worker:  # type: ignore[attr-defined]
            return None
        return self.names[after] if self.board.runs(after, worker) else None

    def pop(self, worker: int) -> str | None:
        """Returns the task that an idle worker should begin, or None.

        Raises:
            PolicyError: it cannot.
        """
        board = self.board
        number = self.policy.pop(worker, board)
        if number is None or not board.take(number, worker):
            return None
        name = self.names[number]
        return name if self._planned is None or self.data_at(name, worker) < float("inf") else None

    def idle(self) -> list[int]:
        """Returns the workers that live and have nothing to do."""
        return [i for i in self.board.workers if self.board.alive(i) and self.board.running(i) is None]

    def able(self, name: str) -> bool:
        """Returns whether any worker that lives can run a task."""
        number = self.numbers[name]
        return any(self.board.runs(number, worker) for worker in self.board.workers)

    def seconds(self, name: str, worker: int) -> float:
        """Returns what a task should take on a worker once its data are there, s."""
        return self.board.estimate(self.numbers[name], worker)

    def data_at(self, name: str, worker: int) -> float:
        """Returns when what a task reads is at a worker, s; what is not on its way yet is sent.

        Nothing is sent in truth: it is when it would arrive over the fleet's links. Under a plan that sends by itself
        it is inf while the turn of a message has not come.
        """
        ready = self.board.now
        if self._network is None:
            return ready
        for edge, datum, source, size in self._needs(self.numbers[name]):
            if self._node[source] == self._node[worker] or not size:
                continue
            at = self._there.get((datum, self._node[worker]))
            if at is None and self._planned is not None:
                return float("inf")
            if at is None:
                at = self._network[1].send(edge, source, worker, size, self.board.now)
                self._arrived(edge, worker, at)
            ready = max(ready, at)
        return ready

    def _needs(self, number: int) -> list[tuple[int, int, int, float]]:
        """What a task reads: edge, datum, worker where it was made, bytes."""
        graph, home = self.board.graph, self.board.platform.home
        begin, edges = graph.by_child
        found = [
            (int(edge), int(graph.datum[edge]), source, float(graph.size[edge]))
            for edge in edges[begin[number] : begin[number + 1]]
            if (source := self.board.where(int(graph.parent_of_edge[edge]))) is not None
        ]
        if home >= 0:
            found.append((graph.edges + number, -1 - number, home, float(graph.inputs[number])))
        return found

    def attempt(self, task: Task, worker: int, number: int, peer: Peer) -> Attempt:
        """Returns a try of a task that begins now."""
        now, wait, timeout = self.board.now, 0.0, task.timeout or 0.0
        if task.call in EMULATED and "seconds" not in task.arguments:
            wait = self.data_at(task.id, worker) - now
        late = now + timeout + 4 * GRACE if timeout else float("inf")
        return Attempt(number, task.id, peer, worker, now, now + wait + self.seconds(task.id, worker), late, wait=wait)

    @property
    def messages(self) -> list[Row]:
        """What would have been sent, as `cost.graphs.channels` has it."""
        return [] if self._network is None else self._network[1].sent

    def begin(self, name: str, worker: int, until: float) -> None:
        """Notes that a task has begun."""
        self.board.begin(self.numbers[name], worker, until)

    def finish(self, name: str, value: Constellation) -> None:
        """Notes that a task that ran has ended, and queues what may begin now."""
        number, graph = self.numbers[name], self.board.graph
        ready = self.board.finish(number)
        if self._planned is not None:
            self._planned.made(list(range(int(graph.first[number]), int(graph.first[number + 1]))), self.board.now)
        for number in ready:
            if value.status[self.names[number]] is Status.PENDING:
                self.push(self.names[number])

    def again(self, name: str) -> None:
        """Notes that a task that ran must run again."""
        self.board.give_back(self.numbers[name])
        self.push(name)

    def _assembled(self, value: Constellation) -> tuple[TaskGraph, Platform]:
        """Graph and platform of what the tasks say, without data."""
        tasks = list(value.tasks.values())
        calls = {call: i for i, call in enumerate(dict.fromkeys(task.call for task in tasks))}
        graph = assemble(
            name="constellation", names=self.names or ["none"], kernels=tuple(calls) or ("none",),
            kernel=[calls[task.call] for task in tasks] or [0], unit="s",
            work=[USUAL if task.seconds is None else task.seconds for task in tasks] or [0.0],
            parent=[self.numbers[a] for a, _ in value.lines], child=[self.numbers[b] for _, b in value.lines],
            size=[0.0] * len(value.lines),
        )  # fmt: skip
        rows = [[self._estimates.seconds(task, agent) for task in tasks] or [0.0] for agent in self._of]
        of = {agent: i for i, agent in enumerate(self._of)}
        kind = [of[place.agent] for place in self.places]
        names = [f"{p.agent}#{p.slot + 1}" if p.slot else p.agent for p in self.places]
        return graph, _platform(names, list(of), kind, np.array(rows, float).reshape(len(of), len(graph)))

    def _bounded(self, platform: Platform, value: Constellation) -> Platform:
        """The platform, with what no agent of a kind can run; where none can, a worker that is never there."""
        tasks, count = list(value.tasks.values()), len(self.places)
        able = np.array([[self._able(task, agent) for task in tasks] for agent in self._of], bool)
        if tasks and len(self._of) and able.all():
            return platform
        of = {agent: i for i, agent in enumerate(self._of)}
        kind = [of[place.agent] for place in self.places]
        first = [kind.index(i) for i in range(len(of))]
        rows = (
            np.where(able.reshape(len(of), len(tasks)), platform.seconds[platform.kind[first]], np.inf)
            if tasks
            else None
        )
        if rows is None or not np.isfinite(rows).any(0).all():
            if rows is None:
                rows = np.zeros((len(of), 1))
            stuck = ~np.isfinite(rows).any(0)
            rows = np.vstack([rows, np.where(stuck, USUAL, np.inf)])
            names = [*platform.workers[:count], "nobody"]
            return _platform(names, [*of, "nobody"], [*kind, len(of)], rows)
        return replace(platform, kinds=tuple(of), kind=np.array(kind, np.int32), seconds=rows)


def _platform(names: Sequence[str], kinds: Sequence[str], kind: Sequence[int], seconds: Any) -> Platform:
    """A platform between whose workers nothing takes time."""
    count, of = len(kind), np.array(kind, np.int32)
    return Platform(
        workers=tuple(names), kinds=tuple(kinds), kind=of, node=of, seconds=seconds, memory=np.full(count, np.inf),
        latency=np.zeros((count, count)), rate=np.full((count, count), np.inf),
        channels=np.full((count, count, 2), NONE, np.int32), ports=(), home=NONE, idle=np.zeros(count),
        busy=np.zeros(count),
    )  # fmt: skip
