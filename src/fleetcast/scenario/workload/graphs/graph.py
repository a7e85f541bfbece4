"""Tasks with dependencies: what each must do, and the data that one hands to another.

A `TaskGraph` is columns. Tasks are numbered from 0; edges lie in compressed rows by parent, and again by child. One
edge joins a pair: what a task hands to another in several pieces is added up. Edges of one task with the same
``datum`` carry the same data, which then travel once to a device, however many tasks read them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.kernels import dag

if TYPE_CHECKING:
    from numpy.typing import NDArray

Unit = Literal["FLOP", "s"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task, as code writes it.

    Attributes:
        name: unique in its graph.
        work: FLOP, or seconds on the reference device: the graph's ``unit`` says which.
        kernel: what it runs, e.g. "GEMM"; speeds may differ by it. "" = its own name.
        memory: bytes that its device must have.
        inputs: bytes that it reads from outside the graph.
    """

    name: str
    work: float
    kernel: str = ""
    memory: float = 0.0
    inputs: float = 0.0


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """n tasks and m edges, checked: no cycle, every number finite and at least 0.

    Attributes:
        name: for people.
        names: of tasks, unique.
        kernels: names of what tasks run.
        kernel: i4[n], index into ``kernels``.
        work: f8[n], in ``unit``.
        unit: "FLOP", or "s" on a reference device.
        memory: f8[n], bytes that a task's device must have.
        inputs: f8[n], bytes read from outside.
        first: i8[n + 1]; children of task i are ``child[first[i] : first[i + 1]]``.
        child: i4[m].
        size: f8[m], bytes on the edge.
        datum: i4[m], which data travel; equal numbers only among edges of one parent.
        order: i4[n], tasks, each after its parents.
        source: where it is from; synthetic graphs say so.
        commands: of tasks that ran the program of their kernel's name with arguments: these.
    """

    name: str
    names: Sequence[str]
    kernels: tuple[str, ...]
    kernel: NDArray[np.int32]
    work: NDArray[np.float64]
    unit: Unit
    memory: NDArray[np.float64]
    inputs: NDArray[np.float64]
    first: NDArray[np.int64]
    child: NDArray[np.int32]
    size: NDArray[np.float64]
    datum: NDArray[np.int32]
    order: NDArray[np.int32]
    source: str = ""
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.work)

    @property
    def edges(self) -> int:
        """Number of edges."""
        return len(self.child)

    @property
    def data(self) -> int:
        """Number of data that travel."""
        return int(self.datum.max()) + 1 if len(self.datum) else 0

    @cached_property
    def parent_of_edge(self) -> NDArray[np.int32]:
        """i4[m]: the task an edge leaves."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.first))

    @cached_property
    def by_child(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(i8[n + 1], i4[m]): the edges into task i are ``edge[begin[i] : begin[i + 1]]``, by ascending parent."""
        edge = np.argsort(self.child, kind="stable").astype(np.int32)
        return _starts(self.child, len(self)), edge

    def parents(self, task: int) -> NDArray[np.int32]:
        """Returns the tasks that must end before this one begins."""
        begin, edge = self.by_child
        return self.parent_of_edge[edge[begin[task] : begin[task + 1]]]

    def children(self, task: int) -> NDArray[np.int32]:
        """Returns the tasks that wait for this one."""
        return self.child[self.first[task] : self.first[task + 1]]

    def index(self, name: str) -> int:
        """Returns the number of the task of that name.

        Raises:
            SpecError: there is none.
        """
        found = self._numbers.get(name)
        if found is None:
            raise SpecError("graph", "has no such task", value=name, hint=closest(name, self._numbers))
        return found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @classmethod
    def of(
        cls, tasks: Iterable[Task], edges: Iterable[tuple[Any, ...]] = (), *, name: str = "graph",
        unit: Unit = "FLOP", source: str = "written in code",
    ) -> TaskGraph:  # fmt: skip
        """Returns the graph of tasks and edges written in code.

        Args:
            tasks: in any order; they are numbered as they come.
            edges: (from, to), (from, to, bytes) or (from, to, bytes, datum): names of tasks; edges of one task with
                the same datum, any text, carry the same data.
            name: of the graph.
            unit: of the work.
            source: where it is from.

        Raises:
            SpecError: a name twice or unknown, a cycle, a number that is negative or not finite.
        """
        listed = list(tasks)
        numbers: dict[str, int] = {}
        for i, task in enumerate(listed):
            if numbers.setdefault(task.name, i) != i:
                raise SpecError(
                    f"{name}.tasks[{i}].name", "is a second task of that name", value=task.name,
                    limit="names of their own", hint="Rename one",
                )  # fmt: skip
        ends: list[tuple[int, int]] = []
        sizes: list[float] = []
        data: list[object] = []
        for k, edge in enumerate(edges):
            for end in edge[:2]:
                if end not in numbers:
                    raise SpecError(
                        f"{name}.edges[{k}]", "names a task that is not there", value=end,
                        limit=f"{len(numbers):,} tasks", hint=closest(str(end), numbers) or "Add the task",
                    )  # fmt: skip
            ends.append((numbers[edge[0]], numbers[edge[1]]))
            sizes.append(float(edge[2]) if len(edge) > 2 else 0.0)
            data.append((ends[-1][0], edge[3]) if len(edge) > 3 else ends[-1])
        kernels = {k: i for i, k in enumerate(dict.fromkeys(t.kernel or t.name for t in listed))}
        seen: dict[object, int] = {}
        pairs = np.array(ends, np.int64).reshape(-1, 2)
        return assemble(
            name=name, names=tuple(numbers), kernels=tuple(kernels),
            kernel=[kernels[t.kernel or t.name] for t in listed], work=[t.work for t in listed], unit=unit,
            memory=[t.memory for t in listed], inputs=[t.inputs for t in listed],
            parent=pairs[:, 0], child=pairs[:, 1], size=sizes,
            datum=[seen.setdefault(d, len(seen)) for d in data], source=source,
        )  # fmt: skip


def assemble(
    *, name: str, names: Sequence[str], kernels: tuple[str, ...], kernel: Any, work: Any, unit: Unit, parent: Any,
    child: Any, size: Any, datum: Any = None, memory: Any = None, inputs: Any = None,
    source: str = "", path: str = "", commands: Mapping[str, tuple[str, ...]] | None = None,
) -> TaskGraph:  # fmt: skip
    """Returns the graph of n tasks and of edges in any order, after checking both.

    Args:
        name: of the graph.
        names: of tasks, unique.
        kernels: names of what tasks run.
        kernel: n indices into ``kernels``.
        work: n numbers, in ``unit``.
        unit: "FLOP" or "s".
        parent: m indices of tasks.
        child: m indices of tasks.
        size: m numbers, bytes; those of equal pairs are added up.
        datum: m numbers; None = each edge has data of its own.
        memory: n numbers, bytes; None = nothing.
        inputs: n numbers, bytes; None = nothing.
        source: where it is from.
        path: of the file, for errors; "" = the name.
        commands: as of `TaskGraph`.

    Raises:
        SpecError: no tasks, a cycle, a number that is negative or not finite.
    """
    path = path or name
    n = len(names)
    if n == 0:
        raise SpecError(path, "has no tasks", limit="at least one", hint="Add a task")
    columns = {
        key: np.zeros(n) if v is None else np.asarray(v, np.float64)
        for key, v in (("work", work), ("memory", memory), ("inputs", inputs))
    }
    for key, values in columns.items():
        _refuse(values, lambda i, key=key: f"{path}.{names[i]}.{key}")
    ends = np.asarray(parent, np.int64), np.asarray(child, np.int64)
    sizes = np.asarray(size, np.float64)
    _refuse(sizes, lambda e: f"{path}.{names[int(ends[0][e])]} -> {names[int(ends[1][e])]}.size")
    first, child_, sizes, datum_ = _rows(n, *ends, sizes, datum)
    order = dag.topological(first, child_)
    if len(order) < n:
        found = _cycle(n, first, child_, order)
        shown = " -> ".join(names[i] for i in found[:12]) + (" -> ..." if len(found) > 12 else "")
        count = len(found) - 1
        problem = (
            f"has a cycle of {count:,} tasks: {shown}" if count > 1 else f"has a task that waits for itself: {shown}"
        )
        raise SpecError(
            path, problem, limit="a task cannot wait for itself",
            hint="Remove one of these edges",
        )  # fmt: skip
    return TaskGraph(
        name, names, kernels, np.asarray(kernel, np.int32), columns["work"], unit, columns["memory"],
        columns["inputs"], first, child_, sizes, datum_, order, source,
        commands or {},
    )  # fmt: skip


def _refuse(values: NDArray[np.float64], where: Any) -> None:
    """Refuses numbers that are negative or not finite; ``where`` names the place of the first."""
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        i = int(np.argmax(bad))
        problem = "is negative" if values[i] < 0 else "is not finite"
        raise SpecError(where(i), problem, value=float(values[i]), limit="0 or more", hint="Correct the number")


def _starts(keys: NDArray[Any], n: int) -> NDArray[np.int64]:
    first = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(keys, minlength=n), out=first[1:])
    return first


def _rows(
    n: int, parent: NDArray[np.int64], child: NDArray[np.int64], size: NDArray[np.float64], datum: Any
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.int32]]:
    """Edges by parent and child, those of one pair added up, their data numbered as they come."""
    m = len(parent)
    data = np.arange(m, dtype=np.int64) if datum is None else np.asarray(datum, np.int64)
    key = parent * n + child
    if m and (key[1:] <= key[:-1]).any():
        by = np.argsort(key, kind="stable")
        parent, child, size, data, key = parent[by], child[by], size[by], data[by], key[by]
    fresh = np.ones(m, bool)
    fresh[1:] = key[1:] != key[:-1]
    if not fresh.all():
        at = np.flatnonzero(fresh)
        # pieces of a pair are one edge: its data are its own unless there is one piece
        pieces = np.diff(np.append(at, m))
        size = np.add.reduceat(size, at)
        data = np.where(pieces > 1, m + at, data[at])
        parent, child = parent[at], child[at]
    first = _starts(parent, n)
    if datum is None:
        numbers = np.arange(len(parent), dtype=np.int32)
    else:
        numbers = np.unique(data, return_inverse=True)[1].astype(np.int32)
    return first, child.astype(np.int32), size, numbers


def _cycle(n: int, first: NDArray[np.int64], child: NDArray[np.int32], order: NDArray[np.int32]) -> list[int]:
    """One cycle, its first task again at its end: walks back from a task that no order reached."""
    left = np.ones(n, bool)
    left[order] = False
    parent = np.full(n, -1, np.int64)
    tails = np.repeat(np.arange(n), np.diff(first))
    inside = left[tails] & left[child]
    parent[child[inside]] = tails[inside]
    at, seen = int(np.argmax(left)), dict[int, int]()
    trail: list[int] = []
    while at not in seen:
        seen[at] = len(trail)
        trail.append(at)
        at = int(parent[at])
    return [*trail[seen[at] :], at][::-1]
