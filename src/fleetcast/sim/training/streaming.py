"""One iteration of a streamed model as events on six resources: the oracle of `cost.training.streams`.

Each layer has a task on each resource. A resource takes the ready task of the lowest number; a task is ready when what
it waits for is done: weights before a pass, a pass before the next layer's, gradients and states before Adam. Buffers
are two layers on the device and `BUFFERS` of states in the host's memory.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from fleetcast.cost.training.streams import BUFFERS, RESOURCES, STATES, Stream, loads

AHEAD = 2
"""Layers whose weights are on the device at once, and whose results have not left it."""


@dataclass
class _Task:
    resource: str
    seconds: float
    waits: int = 0
    then: list[int] = field(default_factory=list)
    end: float = 0.0


@dataclass(frozen=True)
class Streamed:
    """An iteration: its s, s that each resource worked, and when the last pass back ended."""

    time: float
    busy: dict[str, float]
    passes: float


def run(s: Stream, swap: float) -> Streamed:
    """Returns what happens, task by task, at one swap share."""
    tasks: list[_Task] = []
    found = loads(s, swap)

    def add(resource: str, seconds: float, *after: int) -> int:
        tasks.append(_Task(resource, float(seconds)))
        for other in after:
            if other >= 0:
                tasks[other].then.append(len(tasks) - 1)
                tasks[-1].waits += 1
        return len(tasks) - 1

    ahead = {name: float(column[0]) for name, column in found.forward.items()}
    back = {name: float(column[0]) for name, column in found.backward.items()}
    outside = {name: float(column[0]) for name, column in found.outside.items()}
    passes: list[int] = []
    gone: list[int] = []
    written: list[int] = []
    for _ in range(s.layers):
        read = add("read", ahead["read"], _at(passes, -AHEAD - 1))
        up = add("up", ahead["up"], read, _at(passes, -AHEAD))
        passes.append(add("device", ahead["device"], up, _at(passes, -1), _at(gone, -AHEAD)))
        down = add("down", ahead["down"], passes[-1])
        gone.append(down)
        written.append(add("write", ahead["write"], down) if ahead["write"] else -1)
    states = s.params * STATES / s.system.ssd if s.system.ssd and s.overlapped else 0.0
    updates: list[int] = []
    sent: list[int] = []
    for i in range(s.layers + 1):
        part = outside if i == 0 else back  # the head comes first, and its table is updated as a layer is
        own = states * (s.table / s.params if i == 0 else 1.0)
        read = add("read", max(part["read"] - own, 0.0), _at(passes, -AHEAD - 1), written[s.layers - i] if i else -1)
        up = add("up", part["up"], read, _at(passes, -AHEAD))
        passes.append(add("device", part["device"], up, _at(passes, -1), _at(sent, -AHEAD)))
        sent.append(add("down", part["down"], passes[-1]))
        if s.overlapped:
            fetched = add("read", own, _at(updates, -BUFFERS))
            updates.append(add("host", part["host"], sent[-1], fetched))
            add("write", part["write"], updates[-1])
    last = passes[-1]
    end = _play(tasks)
    late = float(found.update[0])  # one tile after another, nothing beside it
    busy = {name: sum(task.seconds for task in tasks if task.resource == name) for name in RESOURCES}
    return Streamed(end + late, busy, tasks[last].end)


def _at(of: list[int], index: int) -> int:
    return of[index] if len(of) >= -index else -1


def _play(tasks: list[_Task]) -> float:
    """Runs every task; returns when the last one ends."""
    ready: dict[str, list[int]] = {name: [] for name in RESOURCES}
    for number, task in enumerate(tasks):
        if not task.waits:
            heapq.heappush(ready[task.resource], number)
    running: list[tuple[float, int]] = []
    idle, now = set(RESOURCES), 0.0
    while True:
        for name in sorted(idle):
            if ready[name]:
                number = heapq.heappop(ready[name])
                heapq.heappush(running, (now + tasks[number].seconds, number))
                idle.discard(name)
        if not running:
            return now
        now, number = heapq.heappop(running)
        tasks[number].end = now
        idle.add(tasks[number].resource)
        for other in tasks[number].then:
            tasks[other].waits -= 1
            if not tasks[other].waits:
                heapq.heappush(ready[tasks[other].resource], other)
