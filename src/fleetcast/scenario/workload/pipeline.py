"""A sensor pipeline, filled in and checked: what costs and worlds know of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from fleetcast.base.errors import SpecError, closest
from fleetcast.scenario.workload.scores import Classifier
from fleetcast.scenario.workload.streams import SENSORS, Repair, Stream, StreamNode

DEGREE = 6
"""Factors of a node's complexity at most."""
MOST_NODES = 2_000


@dataclass(frozen=True)
class Link:
    """A `StreamLink` with every value: J/bit, B/s or None, s."""

    energy: float = 0.0
    bandwidth: float | None = None
    delay: float = 0.0


@dataclass(frozen=True)
class Node:
    """A `StreamNode` with every value."""

    name: str
    to: str = ""
    rate: float | None = None
    size: float = 0.0
    compression: float = 0.0
    ratio: float = 1.0
    classifier: Classifier | None = None
    op_energy: float = 0.0
    complexity: tuple[float, ...] = (1.0,)
    speed: float | None = None
    time: float = 0.0
    lanes: int = 1
    buffer: int | None = None
    full: str = "drop"
    dead_time: float = 0.0
    latency: float = 0.0
    merge: str = "assemble"
    link: Link = Link()


@dataclass(frozen=True)
class System:
    """A checked pipeline.

    Attributes:
        nodes: each after all that send to it; the last is the storage.
        inputs: of each node, the places of those that send to it.
        folder: where files of classifiers lie.
        notes: what was read between the lines.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[tuple[int, ...], ...]
    folder: Path = Path()
    notes: tuple[str, ...] = ()

    def place(self, name: str, path: str) -> int:
        """Returns where a node stands.

        Raises:
            SpecError: there is none of that name.
        """
        names = [node.name for node in self.nodes]
        if name not in names:
            raise SpecError(
                path, "is not a node of the stream", value=name, limit=f"nodes: {', '.join(names[:12])}",
                hint=closest(name, names),
            )  # fmt: skip
        return names.index(name)


def resolve(
    stream: Stream, folder: Path = Path(), *, changes: Sequence[tuple[str, StreamNode]] = (), at: str | None = None
) -> System:
    """Returns the pipeline of a workload.

    Args:
        stream: as it was read.
        folder: where relative paths start.
        changes: (path for errors, what changes) of nodes, in this order, over what the workload says.
        at: node that makes the workload's filter; "sensors" = every sensor does, None = none does.

    Raises:
        SpecError: no pipeline, or one that cannot be.
        MissingExtra: a workbook, and openpyxl is absent.
    """
    if not stream.nodes and not stream.system:
        raise SpecError("workload.nodes", "is missing", hint="Add [[workload.nodes]], or system = a workbook (.xlsx)")
    said: dict[str, StreamNode] = {}
    chosen: dict[str, str] = {}
    notes: list[str] = []

    def add(spec: StreamNode, path: str) -> None:
        _check(spec, path)
        said[spec.name] = _over(said[spec.name], spec) if spec.name in said else spec
        if spec.classifier is not None:
            chosen[spec.name] = f"{path}.classifier"

    if stream.system:
        from fleetcast.scenario.workload.sheets import read_system

        specs, notes = read_system(Path(folder) / stream.system, stream.repair)
        for spec in specs:
            add(spec, f"{stream.system}: {spec.name}")
    elif stream.repair != Repair():
        raise SpecError("workload.repair", "mends a workbook, and there is none", hint="Leave it out, or add system")
    for i, spec in enumerate(stream.nodes):
        path = f"workload.nodes[{i}]"
        if not stream.system and spec.name in said:
            raise SpecError(f"{path}.name", "stands twice", value=spec.name, limit="one node of each name")
        if stream.system:
            _known(spec.name, said, f"{path}.name")
        add(spec, path)
    for path, spec in changes:
        _known(spec.name, said, f"{path}.name")
        add(spec, path)
    found = {name: _filled(spec, stream, chosen.get(name, "")) for name, spec in said.items()}
    if at is not None:
        sensors = [node.name for node in found.values() if node.rate is not None]
        for name in sensors if at == SENSORS and at not in found else (at,):
            found[name] = _filtering(stream, found, name)
    return _sorted(found, Path(folder), tuple(notes))


def _over(spec: StreamNode, change: StreamNode) -> StreamNode:
    """Returns a node's spec with what another says over it; of the link as well, key by key."""
    new = {name: v for name in change.__struct_fields__ if (v := getattr(change, name)) is not None}
    if spec.link is not None and change.link is not None:
        link = {name: v for name in change.link.__struct_fields__ if (v := getattr(change.link, name)) is not None}
        new["link"] = msgspec.structs.replace(spec.link, **link)
    return msgspec.structs.replace(spec, **new)


def _check(spec: StreamNode, path: str) -> None:
    """Refuses values that no type refuses."""
    if not spec.name.strip():
        raise SpecError(f"{path}.name", "is empty", limit="a name in quotes")
    if spec.complexity is not None and not 1 <= len(spec.complexity) <= DEGREE:
        raise SpecError(
            f"{path}.complexity", "has a length that it cannot", value=list(spec.complexity),
            limit=f"1 to {DEGREE} factors: of bytes, of their square, ...",
        )  # fmt: skip
    for name in ("speed", "rate"):
        if getattr(spec, name) == 0:
            raise SpecError(f"{path}.{name}", "is out of range", value=0, limit="above 0", hint="Or leave it out")
    if spec.link is not None and spec.link.bandwidth == 0:
        raise SpecError(
            f"{path}.link.bandwidth", "is out of range", value=0, limit="above 0 B/s", hint="Or leave it out"
        )


def _filled(spec: StreamNode, stream: Stream, path: str) -> Node:
    """Returns a node of a whole spec; ``path`` is where its classifier was named."""
    new: dict[str, Any] = {name: v for name in spec.__struct_fields__ if (v := getattr(spec, name)) is not None}
    if spec.classifier is not None:
        new["classifier"] = classifier(spec.classifier, stream, path)
    if spec.link is not None:
        new["link"] = Link(**{n: v for n in spec.link.__struct_fields__ if (v := getattr(spec.link, n)) is not None})
    return Node(**new)


def classifier(said: str | Classifier | None, stream: Stream, path: str) -> Classifier | None:
    """Returns a classifier that a node names or holds.

    Raises:
        SpecError: an unknown name, or one that cannot be.
    """
    if isinstance(said, str):
        if said not in stream.classifiers:
            known = ", ".join(stream.classifiers) or "none"
            raise SpecError(
                path, "is not a classifier of this workload", value=said, limit=f"under workload.classifiers: {known}",
                hint=closest(said, stream.classifiers)
                or f'Add e.g. [workload.classifiers.{said}] with kind = "gaussian" and skill = 3',
            )  # fmt: skip
        said = stream.classifiers[said]
    if said is not None:
        said.check(path)
    return said


def _filtering(stream: Stream, found: Mapping[str, Node], at: str) -> Node:
    """Returns the node that makes the workload's filter."""
    if stream.filter is None:
        raise SpecError("plan.filter", "places a filter that there is not", value=at, hint="Add [workload.filter]")
    _known(at, found, "plan.filter")
    node, made = found[at], stream.filter
    if node.ratio > 1:
        raise SpecError(
            "plan.filter", "is a node that makes a choice of its own", value=at, limit=f"its ratio is {node.ratio:g}",
            hint="Name another node",
        )  # fmt: skip
    if not 1 <= len(made.complexity) <= DEGREE:
        raise SpecError("workload.filter.complexity", "has a length that it cannot", value=list(made.complexity),
                        limit=f"1 to {DEGREE} factors")  # fmt: skip
    longest = max(len(node.complexity), len(made.complexity))
    pairs = (tuple(c[i] if i < len(c) else 0.0 for c in (node.complexity, made.complexity)) for i in range(longest))
    chosen = classifier(made.classifier, stream, "workload.filter.classifier")
    return replace(node, ratio=made.ratio, classifier=chosen, complexity=tuple(a + b for a, b in pairs))


def _known(name: str, found: Mapping[str, object], path: str) -> None:
    if name not in found:
        names = list(found)
        raise SpecError(
            path, "is not a node of the stream", value=name, limit=f"nodes: {', '.join(names[:12])}",
            hint=closest(name, names),
        )  # fmt: skip


def _sorted(found: Mapping[str, Node], folder: Path, notes: tuple[str, ...]) -> System:
    """Returns the nodes in order, having checked that they form a tree from sensors to one storage."""
    if len(found) > MOST_NODES:
        raise SpecError("workload.nodes", "are too many", value=len(found), limit=f"at most {MOST_NODES:,}")
    senders: dict[str, list[str]] = {name: [] for name in found}
    for node in found.values():
        if node.to:
            _known(node.to, found, f"workload.nodes: {node.name}.to")
            senders[node.to].append(node.name)
    roots = [node.name for node in found.values() if not node.to]
    if len(roots) != 1:
        raise SpecError(
            "workload.nodes", "must end in one storage", value=", ".join(roots) or "no node without 'to'",
            limit="exactly one node without 'to'",
            hint="Give the others a 'to'" if roots else "Leave 'to' out of the storage",
        )  # fmt: skip
    order: list[str] = []
    waiting = [roots[0]]
    while waiting:  # the storage first, senders after: turned round below
        order.append(waiting.pop())
        waiting += reversed(senders[order[-1]])
    if len(order) < len(found):
        ring = next(name for name in found if name not in set(order))
        raise SpecError(
            f"workload.nodes: {ring}.to", "leads round in a circle", value=found[ring].to,
            limit=f"every way ends in {roots[0]}",
        )  # fmt: skip
    order.reverse()
    for name in order:
        node = found[name]
        if (node.rate is None) != bool(senders[name]):
            problem = "is a sensor, and others send to it" if node.rate is not None else "gets no samples"
            hint = "Leave its rate out" if node.rate is not None else "Give it a rate, or a node that sends to it"
            raise SpecError(f"workload.nodes: {name}", problem, value=senders[name] or None, hint=hint)
    places = {name: i for i, name in enumerate(order)}
    inputs = tuple(tuple(places[sender] for sender in senders[name]) for name in order)
    _check_waiting([found[name] for name in order], inputs)
    return System(tuple(found[name] for name in order), inputs, folder, notes)


def _check_waiting(nodes: Sequence[Node], inputs: Sequence[tuple[int, ...]]) -> None:
    waits = [node for node in nodes if node.full == "wait" and node.buffer is not None]
    if not waits:
        return
    joined = next((node for node, senders in zip(nodes, inputs, strict=True) if len(senders) > 1), None)
    if joined is not None:
        raise SpecError(
            f"workload.nodes: {waits[0].name}.full", "lets senders wait where ways join", value="wait",
            limit=f"a stream without a join; {joined.name} has several senders", hint='Write full = "drop"',
        )  # fmt: skip
    drops = next((node for node in nodes if node.full == "drop" and (node.buffer is not None or node.dead_time)), None)
    if drops is not None:
        raise SpecError(
            f"workload.nodes: {drops.name}.full", "drops samples where another node lets senders wait", value="drop",
            limit=f'one of them in a stream; {waits[0].name} has full = "wait"',
        )  # fmt: skip
