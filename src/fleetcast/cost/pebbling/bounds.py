"""What no legal schedule of a game undercuts.

Every value is computed once, every input loaded once, every sink saved once, by somebody; processors share this at best
evenly. Along a path one thing follows another. And where w disjoint paths cross the moment at which a value is first
computed, w values of them are needed again: what fast memory does not hold then was computed before and is fetched or
computed anew (the wavefront of Elango and others, "On characterizing the data movement complexity of computational
DAGs", SPAA 2014; theirs forbids computing twice, ours prices it).

For graphs with a name: Hong and Kung's counts of what a segment of a schedule can do (STOC 1981).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fleetcast.cost.pebbling.game import Game

FRONTS = 24
"""Values at whose first computation the wavefront is asked for; of larger graphs evenly spread ones."""
EDGES = 20_000
"""Above so many edges no wavefront is asked for: the bound stays valid, and is quick."""


@dataclass(frozen=True)
class Bound:
    """A least cost, which bound it is, and all that were asked, by name."""

    value: float
    name: str
    all: dict[str, float]


def lower_bound(of: Game) -> Bound:
    """Returns the largest of the bounds that hold for any graph."""
    found = {"each value once": shared(of), "whole steps": steps(of), "longest path": path(of)}
    if of.dag.edges <= EDGES:
        found["wavefront"] = found["each value once"] + wavefront(of) / of.processors
    least = max(found, key=lambda name: found[name])
    return Bound(float(found[least]), least, found)


def shared(of: Game) -> float:
    """Returns what computing, loading and saving everything once costs, dealt evenly."""
    first, last = _compulsory(of)
    return (_computing(of) + min(of.g) * (first + last)) / of.processors


def steps(of: Game) -> float:
    """Returns the same in whole steps, where weights are one and processors move together; else 0."""
    k, size = of.processors, of.dag.size
    if not size or of.timing != "synchronous" or not of.alike or {*size, *of.work(0)} != {1.0}:
        return 0.0
    first, last = _compulsory(of)
    return math.ceil(_computing(of) / k) + min(of.g) * (math.ceil(first / k) + math.ceil(last / k))


def _computing(of: Game) -> float:
    works = [of.work(p) for p in range(of.processors)]
    return sum(min(row[v] for row in works) for v in range(len(of.dag)) if v not in of.given)


def _compulsory(of: Game) -> tuple[float, float]:
    """Size of the inputs that are read, and of the sinks that are not inputs."""
    size, children = of.dag.size, of.dag.children
    loaded = sum(size[v] for v in of.given if children[v])
    return loaded, sum(size[v] for v in of.dag.sinks if v not in of.given)


def path(of: Game) -> float:
    """Returns the longest path: an input loaded, values computed in turn, a sink saved."""
    g, size = min(of.g), of.dag.size
    tail = [0.0] * len(of.dag)
    works = [min(of.work(p)[v] for p in range(of.processors)) for v in range(len(of.dag))]
    best = 0.0
    for v in of.dag.order:
        before = max((tail[u] for u in of.dag.parents[v]), default=0.0)
        if v in of.given:
            tail[v] = g * size[v]
            continue
        tail[v] = before + works[v]
        if not of.dag.children[v]:
            best = max(best, tail[v] + g * size[v])
    return best


def wavefront(of: Game) -> float:
    """Returns what is fetched or computed anew beyond each value once, for want of fast memory, in all.

    When v is first computed, all before it have been and none behind it. On each of w disjoint paths from the former to
    the latter lies a last value already there, which its successor still reads; all processors hold at most their
    memories of them. Of the rest, an input costs a load again, another value a save and a load, or computing it anew:
    at least as much as the cheapest values of that size.
    """
    have, dag = sum(of.red), of.dag
    if sum(dag.size) <= have:
        return 0.0
    prices: dict[int, float] = {}
    for v in range(len(dag)):
        if dag.children[v] and dag.size[v]:
            fetch = min(of.g) * (1.0 if v in of.given else 2.0)
            anew = min(of.work(p)[v] for p in range(of.processors)) / dag.size[v]
            prices[v] = fetch if v in of.given or not of.again else min(fetch, anew)
    cheapest = sorted(prices, key=lambda v: prices[v])
    made = [v for v in dag.order if v not in of.given and dag.children[v]]
    step = max(1, len(made) // FRONTS)
    most = 0.0
    for v in made[step // 2 :: step]:
        lacking, total = front(of, v) - have, 0.0
        behind = reach(dag.children, v) - {v} if lacking > 0 else set()
        for u in cheapest:
            if lacking <= 0:
                break
            if u not in behind:
                part = min(lacking, dag.size[u])
                total += part * prices[u]
                lacking -= part
        most = max(most, total)
    return most


def front(of: Game, v: int) -> float:
    """Returns the size of the smallest cut between what is computed before v, with it, and what is behind it.

    By Menger's theorem this is the most that disjoint paths carry, each value as much as its size.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_flow

    dag = of.dag
    before, after = reach(dag.parents, v), reach(dag.children, v) - {v}
    # Flows are whole numbers: sizes rounded down carry less, which is a bound as well.
    whole = max(dag.size) <= 2**16 and not any(x % 1 for x in dag.size)
    unit = 1.0 if whole else max(dag.size) / 2**16
    sizes = [int(x / unit) for x in dag.size]
    n, much = len(dag), min(sum(sizes) + 1, 2**31 - 1)
    start, end = 2 * n, 2 * n + 1
    edges: list[tuple[int, int, int]] = []
    for u in range(n):
        if u in after:
            continue
        edges.append((2 * u, 2 * u + 1, sizes[u]))
        edges += [(2 * u + 1, 2 * c, much) for c in dag.children[u] if c not in after]
        if u in before:
            edges.append((start, 2 * u, much))
        if any(c in after for c in dag.children[u]):  # where paths end they may meet: what they hold lies before
            edges.append((2 * u + 1, end, much))
    tails, heads, room = np.asarray(edges, dtype=np.int32).T
    graph = csr_matrix((room, (tails, heads)), shape=(2 * n + 2, 2 * n + 2))
    carried: int = maximum_flow(graph, start, end).flow_value
    return unit * carried


def reach(edges: tuple[tuple[int, ...], ...], v: int) -> set[int]:
    """Returns v and all that edges lead to."""
    found, ahead = {v}, [v]
    while ahead:
        for u in edges[ahead.pop()]:
            if u not in found:
                found.add(u)
                ahead.append(u)
    return found


def matrix_product_io(n: int, red: int) -> float:
    """Returns loads and saves that the product of n x n matrices takes with ``red`` pebbles, recomputing or not.

    Between red loads and saves a schedule has at most 2 red values of each matrix at hand, so at most (2 red)^(3/2)
    products (Loomis and Whitney): Irony, Toledo, Tiskin, "Communication lower bounds for distributed-memory matrix
    multiplication", JPDC 2004. Inputs and results once are a bound as well.
    """
    return max(3.0 * n * n, red * (math.ceil(float(n) ** 3 / math.pow(2.0 * red, 1.5)) - 1.0))


def matrix_product_tight(n: int, red: int) -> float:
    """Returns 2 n^3 / sqrt(red) + n^2, of Kwasniewski and others, "Red-blue pebbling revisited", SC 2019; recalled."""
    return 2.0 * float(n) ** 3 / math.sqrt(red) + n * n


def butterfly_io(points: int, red: int) -> float:
    """Returns loads and saves that a Fourier transform takes with ``red`` pebbles, recomputing or not.

    Between red loads and saves at most 2 red values dominate what is computed: at most 2 red log2(2 red) butterflies'
    values (Hong and Kung, theorem 2.1 and section 4). Inputs and results once are a bound as well.
    """
    made = points * math.log2(points)
    return max(2.0 * points, red * (math.ceil(made / (2.0 * red * math.log2(2.0 * red))) - 1.0))
