"""Workflows in WfFormat 1.5 (wfcommons.org), as measured executions are published: JSON, one workflow a file.

Tasks and files stand under ``workflow.specification``, what each task took under ``workflow.execution``. An edge
carries the files that the parent writes and the child reads; one without files still is an edge. Files that no task
writes are read from outside. Times are those of the machines of the record. A task's kernel is the program of its
command, whose arguments are kept for agents that run it.
"""

from __future__ import annotations

import gc
import re

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.scenario.workload.graphs.graph import TaskGraph, assemble


class _Named(msgspec.Struct, gc=False, rename="camel"):
    id: str
    name: str = ""
    parents: list[str] = []
    children: list[str] = []
    input_files: list[str] = []
    output_files: list[str] = []


class _Kept(msgspec.Struct, gc=False, rename="camel"):
    id: str
    size_in_bytes: float = 0.0


class _Specification(msgspec.Struct):
    tasks: list[_Named]
    files: list[_Kept] = []


class _Command(msgspec.Struct, gc=False):
    program: str | None = None
    arguments: list[str] | None = None


class _Ran(msgspec.Struct, gc=False, rename="camel"):
    id: str
    runtime_in_seconds: float
    memory_in_bytes: float | None = None
    command: _Command | None = None


class _Execution(msgspec.Struct):
    tasks: list[_Ran]


class _Workflow(msgspec.Struct):
    specification: _Specification | None = None
    execution: _Execution | None = None


class _File(msgspec.Struct, rename="camel"):
    workflow: _Workflow
    name: str = ""
    schema_version: str = ""


_NUMBER = re.compile(r"[_-]?(ID)?\d+$")


def parse_wfformat(data: bytes, path: str) -> TaskGraph:
    """Returns the graph of a file's bytes; work is in seconds on the machines of the record.

    Raises:
        SpecError: not WfFormat 1.5, a task twice or without a time, an unknown parent, a cycle; names it.
    """
    collects = gc.isenabled()
    gc.disable()  # millions of small objects that are all in use: looking for rubbish takes longer than reading
    try:
        return _graph(msgspec.json.decode(data, type=_File), path)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(
            path, f"is not WfFormat: {error}", limit="JSON of WfFormat 1.5", hint="See wfcommons.org/format"
        ) from None
    finally:
        if collects:
            gc.enable()


def _graph(found: _File, path: str) -> TaskGraph:
    plain, ran = found.workflow.specification, found.workflow.execution
    if plain is None or ran is None:
        lacks = "specification" if plain is None else "execution"
        raise SpecError(
            f"{path}.workflow.{lacks}", "is missing", value=found.schema_version or None, limit="WfFormat 1.5",
            hint="Tasks and files are the specification, what they took is the execution",
        )  # fmt: skip
    number: dict[str, int] = {}
    for i, task in enumerate(plain.tasks):
        if number.setdefault(task.id, i) != i:
            raise SpecError(
                f"{path}.workflow.specification.tasks[{i}].id", "is a second task of that id", value=task.id,
                limit="ids of their own", hint="Rename one",
            )  # fmt: skip
    work, memory, kernel, kernels = _execution(ran, number, plain, path)
    for i, file in enumerate(plain.files):
        if not file.size_in_bytes >= 0:
            raise SpecError(
                f"{path}.workflow.specification.files[{i}].sizeInBytes", "is out of range", value=file.size_in_bytes,
                limit="at least 0", hint=f"Correct the size of {file.id}",
            )  # fmt: skip
    edges = _Edges({file.id: file.size_in_bytes for file in plain.files})
    for task in plain.tasks:
        edges.writes(number[task.id], task.output_files)
    outside = [edges.reads(head, task.input_files) for head, task in enumerate(plain.tasks)]
    for head, task in enumerate(plain.tasks):
        for name in task.parents:
            edges.add(_task(number, name, path, task.id, "parents"), head)
    for tail, task in enumerate(plain.tasks):
        for name in task.children:
            edges.add(tail, _task(number, name, path, task.id, "children"))
    commands = {
        row.id: tuple(row.command.arguments)
        for row in ran.tasks
        if row.command is not None and row.command.arguments and _program(row)
    }
    return assemble(
        name=found.name or path.rpartition("/")[2], names=tuple(number), kernels=kernels, kernel=kernel, work=work,
        unit="s", parent=edges.parent, child=edges.child, size=edges.size, datum=edges.datum, memory=memory,
        inputs=outside, source=f"{path}, WfFormat {found.schema_version or '1.5'}", path=path, commands=commands,
    )  # fmt: skip


class _Edges:
    """Edges as they are told, each once, with the files that its parent writes and its child reads.

    Args:
        sizes: bytes by file.
    """

    def __init__(self, sizes: dict[str, float]) -> None:
        self.parent, self.child, self.size, self.datum = list[int](), list[int](), list[float](), list[int]()
        self._sizes = sizes
        self._writer: dict[str, int] = {}
        self._more: dict[str, list[int]] = {}
        self._read: list[dict[int, list[str]]] = []
        self._told: list[set[int]] = []
        self._data: dict[object, int] = {}

    def writes(self, task: int, files: list[str]) -> None:
        """Notes what a task writes; a file that several write is read from each."""
        for file in files:
            if self._writer.setdefault(file, task) != task:
                self._more.setdefault(file, []).append(task)

    def reads(self, task: int, files: list[str]) -> float:
        """Notes what a task reads, tasks in order; returns the bytes of files that no task writes."""
        found: dict[int, list[str]] = {}
        outside = 0.0
        for file in files if len(files) < 2 else dict.fromkeys(files):
            writer = self._writer.get(file)
            if writer is None:
                outside += self._sizes.get(file, 0.0)
                continue
            for tail in (writer, *self._more.get(file, ())) if self._more else (writer,):
                if tail in found:
                    found[tail].append(file)
                else:
                    found[tail] = [file]
        self._read.append(found)
        self._told.append(set())
        return outside

    def add(self, tail: int, head: int) -> None:
        """Adds an edge, unless it was told before; equal files of one parent are the same data."""
        told = self._told[head]
        if tail in told:
            return
        told.add(tail)
        files = self._read[head].get(tail)
        key: object
        if files is None:
            size, key = 0.0, (tail, head)
        elif len(files) == 1:
            size = self._sizes.get(files[0], 0.0)
            key = files[0] if not self._more else (tail, files[0])
        else:
            size, key = sum(self._sizes.get(file, 0.0) for file in files), (tail, *sorted(files))
        self.parent.append(tail)
        self.child.append(head)
        self.size.append(size)
        self.datum.append(self._data.setdefault(key, len(self._data)))


def _task(number: dict[str, int], name: str, path: str, of: str, key: str) -> int:
    found = number.get(name)
    if found is None:
        raise SpecError(
            f"{path}.{of}.{key}", "names a task that is not there", value=name, limit=f"{len(number):,} tasks",
            hint=closest(name, list(number)[:5000]) or "Add the task or remove the name",
        )  # fmt: skip
    return found


def _execution(
    ran: _Execution, number: dict[str, int], plain: _Specification, path: str
) -> tuple[list[float], list[float], list[int], tuple[str, ...]]:
    """What each task took: seconds, bytes, kernel, and the kernels' names."""
    work, memory = [-1.0] * len(number), [0.0] * len(number)
    kernel, kernels = [0] * len(number), dict[str, int]()
    for i, row in enumerate(ran.tasks):
        at = number.get(row.id)
        if at is None:
            raise SpecError(
                f"{path}.workflow.execution.tasks[{i}].id", "is no task of the specification", value=row.id,
                limit=f"{len(number):,} tasks", hint=closest(row.id, list(number)[:5000]) or "Remove it",
            )  # fmt: skip
        if not row.runtime_in_seconds >= 0:
            raise SpecError(
                f"{path}.{row.id}.runtimeInSeconds", "is negative", value=row.runtime_in_seconds, limit="0 or more",
                hint="Correct the number",
            )  # fmt: skip
        work[at], memory[at] = row.runtime_in_seconds, row.memory_in_bytes or 0.0
        name = _program(row) or _NUMBER.sub("", plain.tasks[at].name or row.id) or "task"
        kernel[at] = kernels.setdefault(name, len(kernels))
    if -1.0 in work:
        name = plain.tasks[work.index(-1.0)].id
        raise SpecError(
            f"{path}.{name}.runtimeInSeconds", "is missing", limit="what each task took",
            hint="Add it to workflow.execution.tasks",
        )  # fmt: skip
    return work, memory, kernel, tuple(kernels) or ("task",)


def _program(row: _Ran) -> str:
    """Returns the name of the program that a task ran, "" where none is told."""
    program = (row.command.program if row.command is not None else None) or ""
    return "" if any(c.isspace() for c in program) else program.rpartition("/")[2]  # with spaces it is a script
