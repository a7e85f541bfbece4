"""The graph of a multi-task iteration: operators contracted into MetaOps, and MetaOps in levels.

A *MetaOp* is a chain of like operators: equal layers on equal input, each read by the next alone. Its operators are
scheduled by their number, so a model of hundreds of layers is a graph of a few nodes. A *level* holds MetaOps with
equally long chains before them; none of them waits for another.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from fleetcast.search.waves.curves import Curve


@dataclass(frozen=True)
class MetaOp:
    """A chain of like operators.

    Attributes:
        name: for people.
        count: operators in the chain.
        curve: seconds of one of them, forward and backward.
        after: indices of the MetaOps whose output it reads.
        task: which task it belongs to.
        weights: what it trains; MetaOps that name the same train the same weights.
        size: B of its output, all samples together: what moves if the next one lies elsewhere.
    """

    name: str
    count: int
    curve: Curve
    after: tuple[int, ...] = ()
    task: str = ""
    weights: str = ""
    size: float = 0.0


Graph = tuple[MetaOp, ...]
"""MetaOps, each behind those that it reads."""


def contract(
    kinds: Sequence[Hashable], edges: Iterable[tuple[int, int]]
) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Returns the chains of like operators and the edges between chains.

    Args:
        kinds: of each operator; operators of one kind take the same time on the same devices.
        edges: (operator, operator that reads it).

    Raises:
        ValueError: a cycle.
    """
    pairs = sorted(set(edges))
    into: list[list[int]] = [[] for _ in kinds]
    out: list[list[int]] = [[] for _ in kinds]
    for a, b in pairs:
        out[a].append(b)
        into[b].append(a)
    chains: list[list[int]] = []
    member = [-1] * len(kinds)
    for node in _sorted(into, out):
        only = into[node][0] if len(into[node]) == 1 else -1
        if only >= 0 and len(out[only]) == 1 and kinds[only] == kinds[node]:
            member[node] = member[only]
            chains[member[node]].append(node)
        else:
            member[node] = len(chains)
            chains.append([node])
    between = {(member[a], member[b]) for a, b in pairs if member[a] != member[b]}
    return chains, sorted(between)


def _sorted(into: list[list[int]], out: list[list[int]]) -> list[int]:
    waiting = [len(some) for some in into]
    ready = [i for i, n in enumerate(waiting) if not n]
    order: list[int] = []
    while ready:
        node = ready.pop(0)
        order.append(node)
        for other in out[node]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    if len(order) < len(into):
        raise ValueError("the graph has a cycle")
    return order


def levels(graph: Graph) -> list[int]:
    """Returns the level of each MetaOp: the longest chain of MetaOps before it."""
    found: list[int] = []
    for op in graph:
        found.append(max((found[i] + 1 for i in op.after), default=0))
    return found


def tails(graph: Graph, seconds: Sequence[float]) -> list[float]:
    """Returns, of each MetaOp, the longest chain of seconds behind it, its own not counted."""
    found = [0.0] * len(graph)
    for i in reversed(range(len(graph))):
        for j in graph[i].after:
            found[j] = max(found[j], found[i] + seconds[i])
    return found
