"""What a constellation is made of, as files and messages say it: tasks, lines between them, and edits of both.

The nouns are UFO3's (Zhang et al., "UFO3: Weaving the Digital Agent Galaxy", 2025): a task there is a TaskStar, a line
a TaskStarLine. A condition is not code here but a comparison, so that a planner far away may write one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.spec import Spec

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[\w .:/@#\[\]()+-]+$")]
Words = Annotated[str, msgspec.Meta(max_length=4000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]
Kind = Literal["unconditional", "success_only", "completion_only", "conditional"]
Operator = Literal["==", "!=", "<", "<=", ">", ">="]


class Condition(Spec):
    """A comparison with a part of a task's result.

    Attributes:
        part: keys into the result, joined by points; "" = the result itself.
        is_: how it compares, e.g. ">="; written ``is``.
        value: with what.
    """

    part: Words = ""
    is_: Operator = msgspec.field(default="==", name="is")
    value: str | int | float | bool | None = None

    def holds(self, result: object) -> bool:
        """Returns whether a result meets it; a part that is absent, or that does not compare, does not."""
        for key in self.part.split(".") if self.part else ():
            if isinstance(result, dict) and key in result:
                result = result[key]
            elif isinstance(result, list) and key.isdigit() and int(key) < len(result):
                result = result[int(key)]
            else:
                return False
        value = self.value
        if self.is_ in ("==", "!="):
            same = result == value and isinstance(result, bool) == isinstance(value, bool)
            return same == (self.is_ == "==")
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (result, value))
        if not numbers and not (isinstance(result, str) and isinstance(value, str)):
            return False
        low: Any
        high: Any
        low, high = (result, value) if self.is_[0] == "<" else (value, result)
        return bool(low <= high if self.is_.endswith("=") else low < high)


class Task(Spec):
    """One task.

    Attributes:
        id: unique in its constellation.
        description: for people and planners.
        call: name in an agent's allow-list; "sleep" and "spin" are everyone's.
        arguments: of the call.
        inputs: whether it is given the results of the tasks before it.
        device: name of the agent that must run it, or of a kind that agents say they are; "" = any.
        priority: higher goes first.
        timeout: s that one attempt may take; None = the run's.
        retries: attempts after a failed one.
        seconds: what it is expected to take; None = nobody knows.
    """

    id: Id
    description: Words = ""
    call: Id = "sleep"
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    inputs: bool = False
    device: Annotated[str, msgspec.Meta(max_length=200)] = ""
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    timeout: Seconds | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    seconds: Seconds | None = None


class Line(Spec):
    """A dependency: ``after`` waits for ``before`` to end.

    Attributes:
        before: task.
        after: task.
        kind: "unconditional": it must complete; "success_only": and its result must not be null; "conditional": and
            the result must meet ``when``; "completion_only": it must end, well or not.
        when: of a conditional line.
    """

    before: Id
    after: Id
    kind: Kind = "unconditional"
    when: Condition | None = None


class AddTask(Spec, tag_field="edit", tag="add_task"):
    """Adds a task."""

    task: Task


class RemoveTask(Spec, tag_field="edit", tag="remove_task"):
    """Removes a task and every line from and to it."""

    id: Id


class ChangeTask(Spec, tag_field="edit", tag="change_task"):
    """Changes what is said of a task; what is left out stays."""

    id: Id
    description: Words | None = None
    call: Id | None = None
    arguments: dict[str, Any] | None = None
    inputs: bool | None = None
    device: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] | None = None
    timeout: Seconds | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    seconds: Seconds | None = None


class AddLine(Spec, tag_field="edit", tag="add_line"):
    """Adds a line."""

    line: Line


class RemoveLine(Spec, tag_field="edit", tag="remove_line"):
    """Removes the line between two tasks."""

    before: Id
    after: Id


class ChangeLine(Spec, tag_field="edit", tag="change_line"):
    """Changes the kind of the line between two tasks."""

    line: Line


Edit = AddTask | RemoveTask | ChangeTask | AddLine | RemoveLine | ChangeLine


class Status(enum.StrEnum):
    """Where a task is. Waiting: for tasks before it; pending: may begin."""

    WAITING = "waiting"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class State(enum.StrEnum):
    """Where a constellation is."""

    CREATED = "created"
    READY = "ready"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    PARTIALLY_FAILED = "partially_failed"


OPEN = frozenset({Status.WAITING, Status.PENDING})
ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class InvariantError(SpecError):
    """An edit or a step that would break an invariant; nothing was changed. ``invariant`` is "I1", "I2" or "I3"."""

    def __init__(self, invariant: str, path: str, problem: str, *, value: object = None, hint: str = "") -> None:
        self.invariant = invariant
        super().__init__(path, problem, value=value, limit=f"{invariant}: {_RULES[invariant]}", hint=hint)


_RULES = {
    "I1": "a task is on one device at a time",
    "I2": "lines never close a circle",
    "I3": "only tasks that have not begun, and lines into them, are edited",
}


def change(
    edit: Edit, path: str, tasks: dict[str, Task], lines: dict[tuple[str, str], Line], status: dict[str, Status]
) -> bool:
    """Makes one edit; returns whether it could close a circle."""
    if isinstance(edit, AddTask):
        name = edit.task.id
        if name in tasks:
            raise SpecError(f"{path}.task.id", "is a second task of that id", value=name, hint="Choose another id")
        tasks[name], status[name] = edit.task, Status.WAITING
        return False
    if isinstance(edit, RemoveTask | ChangeTask):
        _known(edit.id, f"{path}.id", tasks)
        _editable(edit.id, f"{path}.id", status)
    if isinstance(edit, RemoveTask):
        ends = [pair for pair in lines if edit.id in pair]
        for pair in ends:
            if pair[0] == edit.id:
                _editable(pair[1], f"{path}.id", status)
            del lines[pair]
        del tasks[edit.id], status[edit.id]
        return False
    if isinstance(edit, ChangeTask):
        said = {k: v for k in edit.__struct_fields__ if k != "id" and (v := getattr(edit, k)) is not None}
        tasks[edit.id] = msgspec.structs.replace(tasks[edit.id], **said)
        return False
    line = edit if isinstance(edit, RemoveLine) else edit.line
    pair = (line.before, line.after)
    for key in ("before", "after"):
        _known(getattr(line, key), f"{path}.{key}", tasks)
    _editable(line.after, f"{path}.after", status)
    if isinstance(edit, AddLine) == (pair in lines):
        problem = "is there already" if pair in lines else "is not there"
        hint = "Change it instead" if pair in lines else "Add it first"
        raise SpecError(path, f"the line from {pair[0]} to {pair[1]} {problem}", hint=hint)
    if isinstance(edit, RemoveLine):
        del lines[pair]
        return False
    if (edit.line.kind == "conditional") != (edit.line.when is not None):
        hint = 'Write when = { part = "score", is = ">=", value = 1 }, or another kind'
        raise SpecError(f"{path}.when", "goes with kind 'conditional' and no other", value=edit.line.kind, hint=hint)
    lines[pair] = edit.line
    return isinstance(edit, AddLine)


def _known(name: str, path: str, tasks: Mapping[str, Task]) -> None:
    if name not in tasks:
        hint = closest(name, tasks) if len(tasks) < 10_000 else ""
        raise SpecError(path, "is no task", value=name, limit=f"{len(tasks):,} tasks", hint=hint)


def _editable(name: str, path: str, status: Mapping[str, Status]) -> None:
    if status[name] not in OPEN:
        raise InvariantError("I3", path, f"is {status[name]}", value=name, hint="Add another task instead")
