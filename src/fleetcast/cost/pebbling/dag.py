"""The graph that is pebbled: values, what each is computed from, and what it weighs.

Read from and written to HyperDAG files (``.hdag``), the format of OneStopParallel: a line ``nets nodes pins``, a line
``net node`` for each pin, the first of a net being the value itself, and a line ``node work size`` for each node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fleetcast.base.errors import SpecError


@dataclass(frozen=True)
class Dag:
    """Values and their inputs.

    Attributes:
        parents: of each node, the nodes it is computed from.
        work: what computing each costs, s or steps.
        size: what each takes of fast memory, B or pebbles.
        names: for people; empty = their numbers.

    Raises:
        SpecError: a parent that is no node, a cycle, a negative or infinite weight.
    """

    parents: tuple[tuple[int, ...], ...]
    work: tuple[float, ...]
    size: tuple[float, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the graph."""
        n = len(self.parents)
        for what, column in (("work", self.work), ("size", self.size)):
            if len(column) != n:
                raise SpecError(f"dag.{what}", "is not one a node", value=len(column), limit=str(n))
            bad = next((i for i, x in enumerate(column) if not 0 <= x < float("inf")), None)
            if bad is not None:
                raise SpecError(f"dag.{what}[{bad}]", "is no weight", value=column[bad], limit="0 <= x < inf")
        for v, parents in enumerate(self.parents):
            for u in parents:
                if not 0 <= u < n:
                    raise SpecError(f"dag.parents[{v}]", "names no node", value=u, limit=f"0 to {n - 1}")
            if len(set(parents)) < len(parents):
                raise SpecError(f"dag.parents[{v}]", "names a node twice", value=list(parents), hint="Name it once")
        if len(self.order) < n:
            on = sorted(set(range(n)) - set(self.order))
            shown = ", ".join(self.name(v) for v in on[:5])
            raise SpecError("dag.parents", f"has a cycle among {shown}", hint="Remove an edge of it")

    def __len__(self) -> int:
        """Nodes."""
        return len(self.parents)

    def name(self, v: int) -> str:
        """Returns what a node is called."""
        return self.names[v] if self.names else str(v)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each node, the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.parents]
        for v, parents in enumerate(self.parents):
            for u in parents:
                found[u].append(v)
        return tuple(tuple(some) for some in found)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Nodes, each behind its parents, of those ready the lowest number first; fewer where there is a cycle."""
        import heapq

        waiting = [len(some) for some in self.parents]
        ready = [v for v, count in enumerate(waiting) if not count]
        found: list[int] = []
        while ready:
            v = heapq.heappop(ready)
            found.append(v)
            for c in self.children[v]:
                waiting[c] -= 1
                if not waiting[c]:
                    heapq.heappush(ready, c)
        return tuple(found)

    @cached_property
    def sources(self) -> tuple[int, ...]:
        """Nodes that are computed from nothing."""
        return tuple(v for v, some in enumerate(self.parents) if not some)

    @cached_property
    def sinks(self) -> tuple[int, ...]:
        """Nodes that nobody reads."""
        return tuple(v for v, some in enumerate(self.children) if not some)

    @property
    def edges(self) -> int:
        """How many pairs of a value and a reader."""
        return sum(map(len, self.parents))


def unit(parents: Sequence[Iterable[int]], names: Sequence[str] = ()) -> Dag:
    """Returns a graph whose values all take one step and one pebble."""
    made = tuple(tuple(some) for some in parents)
    return Dag(made, (1.0,) * len(made), (1.0,) * len(made), tuple(names))


def read(path: Path) -> Dag:
    """Returns the graph in a HyperDAG file.

    Raises:
        SpecError: it cannot be read, or is no such graph; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), f"cannot be read: {error}", hint="Name a HyperDAG text file") from None
    return parse(text, str(path))


def parse(text: str, path: str = "hdag") -> Dag:
    """Returns the graph of a HyperDAG file's text.

    Raises:
        SpecError: names the line, what stands there and what was expected.
    """
    rows = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "%"]

    def numbers(at: int, least: int) -> list[int]:
        if at >= len(rows):
            raise SpecError(path, "ends early", value=f"{len(rows)} lines", hint="Write nets, nodes, pins, then each")
        line, words = rows[at]
        try:
            found = [int(word) for word in words]
        except ValueError:
            found = []
        if len(found) < least or min(found) < 0:
            raise SpecError(f"{path}:{line}", "is no row", value=" ".join(words), limit=f"{least} whole numbers")
        return found

    nets, nodes, pins = numbers(0, 3)[:3]
    if nodes + pins + 1 > len(rows):
        raise SpecError(path, "has too few lines", value=len(rows), limit=f"{1 + pins + nodes}", hint="Is it cut off?")
    members: list[list[int]] = [[] for _ in range(min(nets, pins))]
    for at in range(1, pins + 1):
        net, node = numbers(at, 2)[:2]
        if net >= len(members) or node >= nodes:
            raise SpecError(f"{path}:{rows[at][0]}", "names no net or node", value=f"{net} {node}",
                            limit=f"below {nets} and {nodes}")  # fmt: skip
        members[net].append(node)
    parents: list[list[int]] = [[] for _ in range(nodes)]
    for value, *readers in filter(None, members):
        for reader in readers:
            parents[reader].append(value)
    work, size = [1.0] * nodes, [1.0] * nodes
    for at in range(pins + 1, pins + nodes + 1):
        node, *weights = numbers(at, 3)
        if node >= nodes:
            raise SpecError(f"{path}:{rows[at][0]}", "names no node", value=node, limit=f"below {nodes}")
        work[node], size[node] = float(weights[0]), float(weights[-1])
    return Dag(tuple(tuple(sorted(some)) for some in parents), tuple(work), tuple(size))


def write(dag: Dag, note: str = "") -> str:
    """Returns a graph as the text of a HyperDAG file; weights are whole numbers there."""
    nets = [(v, readers) for v, readers in enumerate(dag.children) if readers]
    lines = [f"% {line}" for line in note.splitlines()]
    lines.append(f"{len(nets)} {len(dag)} {sum(1 + len(readers) for _, readers in nets)}")
    for i, (v, readers) in enumerate(nets):
        lines += [f"{i} {u}" for u in (v, *readers)]
    lines += [f"{v} {round(dag.work[v])} {round(dag.size[v])}" for v in range(len(dag))]
    return "\n".join(lines) + "\n"
