"""Workflows in WfFormat 1.5 (wfcommons.org), as measured executions are published: JSON, one workflow a file.

Tasks and files stand under ``workflow.specification``, what each task took under ``workflow.execution``. An edge
carries the files that the parent writes and the child reads; one without files still is an edge. Files that no task
writes are read from outside. Times are those of the machines of the record.
"""

from __future__ import annotations

import re

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.scenario.workload.graphs.graph import TaskGraph, assemble


class _Named(msgspec.Struct, rename="camel"):
    id: str
    name: str = ""
    parents: list[str] = []
    children: list[str] = []
    input_files: list[str] = []
    output_files: list[str] = []


class _Kept(msgspec.Struct, rename="camel"):
    id: str
    size_in_bytes: float = 0.0


class _Specification(msgspec.Struct):
    tasks: list[_Named]
    files: list[_Kept] = []


class _Command(msgspec.Struct):
    program: str | None = None


class _Ran(msgspec.Struct, rename="camel"):
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
    try:
        found = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(
            path, f"is not WfFormat: {error}", limit="JSON of WfFormat 1.5", hint="See wfcommons.org/format"
        ) from None
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
    sizes = {file.id: file.size_in_bytes for file in plain.files}
    written = [frozenset(task.output_files) for task in plain.tasks]
    anyone: set[str] = set().union(*written)
    parent, child, size, datum = list[int](), list[int](), list[float](), list[int]()
    data_of: dict[tuple[int, frozenset[str]], int] = {}
    for head, task in enumerate(plain.tasks):
        reads = frozenset(task.input_files)
        for name in dict.fromkeys(task.parents):
            tail = _task(number, name, path, task.id, "parents")
            files = reads & written[tail]
            parent.append(tail)
            child.append(head)
            size.append(sum(sizes.get(file, 0.0) for file in files))
            datum.append(data_of.setdefault((tail, files or frozenset((task.id,))), len(data_of)))
    told = set(zip(parent, child, strict=True))
    for tail, task in enumerate(plain.tasks):
        for name in dict.fromkeys(task.children):
            head = _task(number, name, path, task.id, "children")
            if (tail, head) not in told:
                files = written[tail] & frozenset(plain.tasks[head].input_files)
                parent.append(tail)
                child.append(head)
                size.append(sum(sizes.get(file, 0.0) for file in files))
                datum.append(data_of.setdefault((tail, frozenset((*files, "", name))), len(data_of)))
    outside = [sum(sizes.get(f, 0.0) for f in dict.fromkeys(t.input_files) if f not in anyone) for t in plain.tasks]
    return assemble(
        name=found.name or path.rpartition("/")[2], names=tuple(number), kernels=kernels, kernel=kernel, work=work,
        unit="s", parent=parent, child=child, size=size, datum=datum, memory=memory, inputs=outside,
        source=f"{path}, WfFormat {found.schema_version or '1.5'}", path=path,
    )  # fmt: skip


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
        program = (row.command.program if row.command is not None else None) or ""
        if any(c.isspace() for c in program):  # a script, not its name
            program = ""
        name = program.rpartition("/")[2] or _NUMBER.sub("", plain.tasks[at].name or row.id) or "task"
        kernel[at] = kernels.setdefault(name, len(kernels))
    if -1.0 in work:
        name = plain.tasks[work.index(-1.0)].id
        raise SpecError(
            f"{path}.{name}.runtimeInSeconds", "is missing", limit="what each task took",
            hint="Add it to workflow.execution.tasks",
        )  # fmt: skip
    return work, memory, kernel, tuple(kernels) or ("task",)
