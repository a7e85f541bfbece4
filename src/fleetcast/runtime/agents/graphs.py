"""A task graph of a scenario as a constellation, its fleet as agents, and what they did as a schedule.

A device of the fleet is an agent, the equal parts that it is cut into are its slots. A task runs the call of its
kernel's name where agents have such a call; otherwise it is emulated: an agent sleeps for as long as the scenario says
that the task takes there, and before that until what it reads would have arrived over the fleet's links.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from fleetcast.cost.graphs.platform import Platform
from fleetcast.cost.graphs.schedule import Messages, Schedule
from fleetcast.runtime.agents.books import Place
from fleetcast.runtime.agents.run import Run
from fleetcast.scenario.workload.constellation import Constellation
from fleetcast.scenario.workload.edits import Line, Task
from fleetcast.scenario.workload.graphs import TaskGraph


class Planned:
    """What a scenario says of a graph on a fleet, as a run asks it (`books.Estimates`).

    Args:
        graph: the tasks.
        platform: the fleet's workers.
    """

    def __init__(self, graph: TaskGraph, platform: Platform) -> None:
        self.graph, self.platform = graph, platform
        self.names = [_id(name, i) for i, name in enumerate(graph.names)]
        self._numbers = {name: i for i, name in enumerate(self.names)}
        node = platform.node.tolist()
        slot: dict[int, int] = {}
        self.places = []
        for worker, name in enumerate(platform.workers):
            parts = node.count(node[worker])
            agent = name.rpartition(".")[0] if parts > 1 else name
            self.places.append(Place(agent, slot.setdefault(node[worker], 0)))
            slot[node[worker]] += 1
        self._worker = {place.agent: i for i, place in reversed(list(enumerate(self.places)))}
        self._net: Any = None

    @property
    def agents(self) -> dict[str, int]:
        """The agents' names, and how many slots each has."""
        return {place.agent: sum(p.agent == place.agent for p in self.places) for place in self.places}

    def constellation(
        self, calls: Collection[str] = (), emulated: str = "sleep", programs: Collection[str] = ()
    ) -> Constellation:
        """Returns the graph as a constellation.

        Args:
            calls: names that agents have; tasks of a kernel of that name run it.
            emulated: what the others do: "sleep" or "spin".
            programs: calls that take the words which the graph's file has after a task's program.
        """
        kernels = [k if k in calls else emulated for k in self.graph.kernels]
        mean = self.platform.mean.tolist()
        tasks = [
            Task(id=name, description=str(self.graph.names[i]), call=kernels[k], inputs=kernels[k] != emulated,
                 seconds=mean[i], arguments=self._words(i) if kernels[k] in programs else {})
            for i, (name, k) in enumerate(zip(self.names, self.graph.kernel.tolist(), strict=True))
        ]  # fmt: skip
        ends = zip(self.graph.parent_of_edge.tolist(), self.graph.child.tolist(), strict=True)
        lines = [Line(before=self.names[a], after=self.names[b]) for a, b in ends]
        value = Constellation.of(tasks, lines)
        self._net = value.net
        return value

    def _words(self, number: int) -> dict[str, Any]:
        return {"words": list(self.graph.commands.get(str(self.graph.names[number]), ()))}

    def seconds(self, task: Task, agent: str) -> float:
        """Returns what the scenario says, of an agent that it does not know the mean of those it does."""
        number, worker = self._numbers.get(task.id), self._worker.get(agent)
        if number is None or worker is None:
            return 1.0 if task.seconds is None else task.seconds
        return float(self.platform.seconds[self.platform.kind[worker], number])

    def given(self, value: Constellation, places: Sequence[Place]) -> tuple[TaskGraph, Platform] | None:
        """Returns graph and platform while no task was edited and no stranger has joined."""
        return (self.graph, self.platform) if value.net is self._net and list(places) == self.places else None


def schedule_of(run: Run, planned: Planned) -> Schedule:
    """Returns what ran where and when; a task that never ran well takes no time at the end."""
    count = len(planned.graph)
    numbers = {name: i for i, name in enumerate(planned.names)}
    end = max((a.ended for a in run.attempts), default=0.0)
    worker, start, finish = np.zeros(count, np.int32), np.full(count, end), np.full(count, end)
    order = []
    for attempt in run.attempts:
        if attempt.how == "ok" and attempt.task in numbers and attempt.worker < len(planned.platform):
            i = numbers[attempt.task]
            worker[i], start[i], finish[i] = attempt.worker, attempt.begun + attempt.wait, attempt.ended
            order.append(i)
    order += sorted(set(range(count)) - set(order))
    sent = [np.array(column) for column in zip(*run.books.messages, strict=True)] or [np.empty(0)] * 5
    edge, source, target = (column.astype(np.int32) for column in sent[:3])
    messages = Messages(edge, source, target, sent[3].astype(float), sent[4].astype(float))
    return Schedule(worker, start, finish, messages, np.array(order, np.int32))


def _id(name: str, number: int) -> str:
    """A task's name as an id: what ids do not hold is replaced, what would be too long is numbered."""
    kept = "".join(c if c.isalnum() or c in "_ .:/@#[]()+-" else "_" for c in name.replace("\n", " "))
    return kept if kept == name and 0 < len(kept) <= 200 else f"{kept[:180]}#{number}"
