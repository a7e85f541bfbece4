"""A constellation: tasks and lines that may be edited while they run, kept true by three invariants.

After UFO3 (Zhang et al., "UFO3: Weaving the Digital Agent Galaxy", 2025):

    I1  a task is at most on one device at a time
    I2  lines never close a circle
    I3  only tasks that have not begun, and lines into such tasks, may be edited

A `Constellation` is a value: whatever happens to it gives another one. Edits come in batches that are applied as a
whole or refused as a whole. Who edits while tasks run works on a value of some moments ago: `synchronised` puts the two
together.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.spec import to_builtins
from fleetcast.scenario.workload.edits import (
    ENDED,
    OPEN,
    AddLine,
    AddTask,
    Edit,
    InvariantError,
    Line,
    State,
    Status,
    Task,
    change,
)

MOST_TASKS, MOST_LINES = 100_000, 1_000_000
SKIPPED = "a line's condition did not hold"
"""Why a task is cancelled that was not wanted, as against one that could not run."""


@dataclass(frozen=True)
class _Net:
    """Tasks and lines, and who is beside whom; shared by all values between two edits."""

    tasks: Mapping[str, Task]
    lines: Mapping[tuple[str, str], Line]

    @cached_property
    def into(self) -> Mapping[str, Sequence[Line]]:
        return self._by(1)

    @cached_property
    def out(self) -> Mapping[str, Sequence[Line]]:
        return self._by(0)

    def _by(self, end: int) -> dict[str, list[Line]]:
        found: dict[str, list[Line]] = {name: [] for name in self.tasks}
        for ends, line in self.lines.items():
            found[ends[end]].append(line)
        return found


@dataclass(frozen=True)
class Constellation:
    """Tasks, lines, and where each task is.

    Attributes:
        net: what edits change.
        status: of each task.
        devices: task -> agent that runs it or ran it last.
        results: of completed tasks.
        reasons: why tasks failed or were cancelled.
        left: tasks that have not ended.
        version: batches of edits so far.
    """

    net: _Net
    status: Mapping[str, Status]
    devices: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    left: int = 0
    version: int = 0

    @classmethod
    def of(cls, tasks: Iterable[Task], lines: Iterable[Line] = ()) -> Constellation:
        """Returns a new constellation.

        Raises:
            SpecError: an id twice or unknown, a line twice or without a sense.
            InvariantError: I2, the lines close a circle.
        """
        edits: list[Edit] = [*(AddTask(task=task) for task in tasks), *(AddLine(line=line) for line in lines)]
        return replace(cls(_Net({}, {}), {}).apply(edits, "constellation"), version=0)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by their ids, in the order they were added."""
        return self.net.tasks

    @property
    def lines(self) -> Mapping[tuple[str, str], Line]:
        """The lines by (before, after)."""
        return self.net.lines

    @property
    def ready(self) -> list[str]:
        """Tasks that may begin: higher priority first, then as they were added."""
        found = [name for name, status in self.status.items() if status is Status.PENDING]
        return sorted(found, key=lambda name: -self.tasks[name].priority)

    @property
    def state(self) -> State:
        """Where the whole is. A task that was not wanted counts as completed."""
        count = Counter(self.status.values())
        if not count:
            return State.CREATED
        if self.left:
            begun = count[Status.RUNNING] or self.left < len(self.status)
            return State.EXECUTING if begun else State.READY
        skipped = sum(reason == SKIPPED for reason in self.reasons.values())
        if count[Status.COMPLETED] + skipped == len(self.status):
            return State.COMPLETED
        return State.PARTIALLY_FAILED if count[Status.COMPLETED] else State.FAILED

    def begin(self, task: str, device: str) -> Constellation:
        """Returns the constellation with a task on a device.

        Raises:
            InvariantError: I1, it is on a device already, or not pending.
        """
        status = self.status.get(task)
        if status is not Status.PENDING:
            on = f"runs on {self.devices[task]}" if status is Status.RUNNING else f"is {status or 'not there'}"
            raise InvariantError("I1", task, f"cannot begin: it {on}", value=device)
        return replace(self, status={**self.status, task: Status.RUNNING}, devices={**self.devices, task: device})

    def again(self, task: str) -> Constellation:
        """Returns the constellation with a running task back among those that may begin.

        Raises:
            InvariantError: I1, it does not run.
        """
        self._running(task)
        return replace(self, status={**self.status, task: Status.PENDING})

    def end(self, task: str, status: Status, result: Any = None, reason: str = "") -> Constellation:
        """Returns the constellation with a task ended, and with those that this lets begin.

        What can never begin now is still waiting: an edit may save it, `settled` cancels it.

        Args:
            task: a running one; one that never ran may be failed or cancelled, not completed.
            status: completed, failed or cancelled.
            result: of a completed one.
            reason: why not, of another.

        Raises:
            InvariantError: I1, it does not run.
        """
        if status not in ENDED or status is Status.COMPLETED or self.status.get(task) not in OPEN:
            self._running(task)
        now = {**self.status, task: status}
        results = {**self.results, task: result} if status is Status.COMPLETED else self.results
        reasons = self.reasons if status is Status.COMPLETED else {**self.reasons, task: reason}
        _open(self.net, (line.after for line in self.net.out[task]), now, results)
        return replace(self, status=now, results=results, reasons=reasons, left=self.left - 1)

    def settled(self, since: Iterable[str] | None = None) -> Constellation:
        """Returns the constellation with every task cancelled that can never begin.

        Args:
            since: tasks that ended since it was last settled; None = look at all.
        """
        status: Any = self.status
        reasons: Any = self.reasons
        left = self.left
        ended = deque(since if since is not None else [n for n, s in status.items() if s in ENDED])
        while ended:
            name = ended.popleft()
            for line in self.net.out.get(name, ()):
                if status[line.after] is not Status.WAITING or _meets(line, status, self.results) is not False:
                    continue
                if left == self.left:
                    status, reasons = dict(status), dict(reasons)
                wanted = status[name] is Status.COMPLETED or reasons.get(name) == SKIPPED
                status[line.after], left = Status.CANCELLED, left - 1
                reasons[line.after] = SKIPPED if wanted else f"{name} {status[name]}"
                ended.append(line.after)
                _open(self.net, (n.after for n in self.net.out[line.after]), status, self.results)
        return self if left == self.left else replace(self, status=status, reasons=reasons, left=left)

    def apply(self, edits: Sequence[Edit], path: str = "edits") -> Constellation:
        """Returns the constellation after a batch of edits, in their order.

        Args:
            edits: all are applied, or none.
            path: for errors.

        Raises:
            InvariantError: I2, or I3: what one edits has begun.
            SpecError: an id twice or unknown, a line twice or without a sense, too many of them.
        """
        if not edits:
            return self
        tasks, lines, status = dict(self.tasks), dict(self.lines), dict(self.status)
        closing = False
        for i, edit in enumerate(edits):
            closing |= change(edit, f"{path}[{i}]", tasks, lines, status)
        for limit, found, what in ((MOST_TASKS, tasks, "tasks"), (MOST_LINES, lines, "lines")):
            if len(found) > limit:
                raise SpecError(path, f"make too many {what}", value=len(found), limit=f"{limit:,}")
        net = _Net(tasks, lines)
        if closing and (circle := _circle(net)):
            raise InvariantError(
                "I2", path, f"close a circle: {' -> '.join(circle[:12])}", hint="Remove one of these lines"
            )
        left = sum(s not in ENDED for s in status.values())
        reopened: dict[str, Status] = {n: Status.WAITING if s is Status.PENDING else s for n, s in status.items()}
        _open(net, tasks, reopened, self.results)
        return replace(self, net=net, status=reopened, left=left, version=self.version + 1)

    def synchronised(self, running: Constellation) -> Constellation:
        """Returns this constellation's tasks and lines with what has become of them meanwhile.

        What has begun or ended since stays so: the more advanced status wins.

        Args:
            running: the same before it was edited, with tasks that went on since.

        Raises:
            InvariantError: I3, what was edited has begun since.
        """
        for name, now in running.status.items():
            if now in OPEN:
                continue
            same = self.tasks.get(name) == running.tasks[name]
            if not same or set(self.net.into[name]) != set(running.net.into[name]):
                raise InvariantError("I3", name, f"is {now} since it was edited", hint="Edit what is there now")
        kept = [n for n in self.tasks if n in running.status]
        status = dict.fromkeys(self.tasks, Status.WAITING) | {
            n: s for n in kept if (s := running.status[n]) is not Status.PENDING
        }
        _open(self.net, status, status, running.results)
        left = sum(s not in ENDED for s in status.values())
        return replace(running, net=self.net, status=status, left=left, version=self.version)

    def levels(self) -> dict[str, int]:
        """Returns how many tasks come before each on its longest chain."""
        found: dict[str, int] = {}
        for name in _order(self.net):
            found[name] = max((found[line.before] + 1 for line in self.net.into[name]), default=0)
        return found

    @property
    def width(self) -> int:
        """The most tasks on one level."""
        return max(Counter(self.levels().values()).values(), default=0)

    def critical_path(self, seconds: Mapping[str, float] | None = None) -> float:
        """Returns the length of the longest chain: tasks, or with ``seconds`` of each, s."""
        ends: dict[str, float] = {}
        for name in _order(self.net):
            own = 1.0 if seconds is None else seconds[name]
            ends[name] = own + max((ends[line.before] for line in self.net.into[name]), default=0.0)
        return max(ends.values(), default=0.0)

    def parallelism(self, seconds: Mapping[str, float] | None = None) -> float:
        """Returns the work of all tasks over the longest chain, counted as `critical_path` counts."""
        work = float(len(self.tasks)) if seconds is None else sum(seconds[name] for name in self.tasks)
        return work / path if (path := self.critical_path(seconds)) else 0.0

    def table(self) -> dict[str, Any]:
        """Returns what a planner or a file is told."""
        return {
            "state": self.state.value,
            "tasks": [
                to_builtins(task) | {"status": self.status[name].value}
                | ({"device": self.devices[name]} if name in self.devices else {})
                | ({"result": self.results[name]} if name in self.results else {})
                | ({"reason": self.reasons[name]} if name in self.reasons else {})
                for name, task in self.tasks.items()
            ],
            "lines": [to_builtins(line) for line in self.lines.values()],
        }  # fmt: skip

    def _running(self, task: str) -> None:
        if (status := self.status.get(task)) is not Status.RUNNING:
            raise InvariantError("I1", task, f"does not run: it is {status or 'not there'}")


def _meets(line: Line, status: Mapping[str, Status], results: Mapping[str, Any]) -> bool | None:
    """Whether a line lets its task begin; None = not known yet, False = it never will."""
    found = status[line.before]
    if found not in ENDED:
        return None
    if line.kind == "completion_only":
        return True
    if found is not Status.COMPLETED:
        return False
    result = results.get(line.before)
    if line.kind == "success_only":
        return result is not None
    return line.when is None or line.when.holds(result)


def _open(net: _Net, tasks: Iterable[str], status: dict[str, Status], results: Mapping[str, Any]) -> None:
    """Lets those tasks begin that wait for nothing any more."""
    for name in tasks:
        if status[name] is Status.WAITING and all(_meets(line, status, results) for line in net.into[name]):
            status[name] = Status.PENDING


def _order(net: _Net) -> list[str]:
    """The tasks, each after those before it; those on or behind a circle are missing."""
    missing = {name: len(into) for name, into in net.into.items()}
    found = [name for name, count in missing.items() if not count]
    for name in found:
        for line in net.out[name]:
            missing[line.after] -= 1
            if not missing[line.after]:
                found.append(line.after)
    return found


def _circle(net: _Net) -> list[str]:
    """A circle of lines, its first task again at its end; [] where there is none."""
    reached = set(_order(net))
    if len(reached) == len(net.tasks):
        return []
    name = next(n for n in net.tasks if n not in reached)
    trail: dict[str, None] = {}
    while name not in trail:
        trail[name] = None
        name = next(line.before for line in net.into[name] if line.before not in reached)
    walk = list(trail)
    return [*walk[walk.index(name) :], name][::-1]
