"""GenTree: a plan of an all-reduce on any tree of switches, by GenModel's time (arXiv 2409.04202).

From the hosts up, each switch merges what its children hold, by whichever is fastest: a ring, recursive halving, or
stages of any fan-in, the fan-ins found by dynamic programming over the divisors of the number of children. It may also
merge all hosts below it at once. Where children are of unlike size the sum is shared out by child or by host, and both
are tried: which hosts own what decides what narrow links carry. The way back mirrors the way there.

How this differs from the paper: its plans come from rules for each kind of switch, ours from a search that holds the
flat algorithms too, so that no plan is worse than a ring, recursive halving or co-located parameter servers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetcast.cost.collectives import genmodel, merging
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.merging import Members, Shares
from fleetcast.cost.collectives.steps import Block, Step, gather_time, scatter_time, step_time
from fleetcast.cost.collectives.topology import Topology

PEERS = ("ring", "rhd", "cps")
"""Ring, recursive halving and doubling, co-located parameter servers: on all hosts, blind to switches."""
SMALL = 12
"""Hosts up to which every way of sharing a sum out is kept, so that no plan of the space is missed."""
MOST_KEPT, MOST_CHOICES = 4, 32
"""Beyond: ways kept of a switch, and choices tried among those of its children."""


@dataclass(frozen=True, eq=False)
class Plan:
    """An all-reduce on a topology.

    Attributes:
        topology: of the hosts.
        parameters: GenModel's.
        size: bytes of the buffer.
        cells: what it is cut into.
        block: the steps of its reduce-scatter; the all-gather is the same backwards.
        shares: which host holds what of the sum between the two.
        time: s.
        tried: ways that were priced.
    """

    topology: Topology
    parameters: Parameters
    size: float
    cells: int
    block: Block
    shares: Shares
    time: float
    tried: int = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step there and back, one turn each."""
        return tuple(self.block.all_reduce())

    def table(self) -> dict[str, Any]:
        """Returns time and stages as plain values, innermost switches first, equal ones together."""
        return {
            "ranks": self.topology.hosts, "size": self.size, "time": self.time, "rounds": rounds(self.block),
            "stages": [
                {"where": where, "how": how, "groups": groups} for (where, how), groups in stages(self.block).items()
            ],
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Way:
    """A reduce-scatter among the hosts below a node."""

    there: float
    back: float
    block: Block
    shares: Shares

    @property
    def time(self) -> float:
        """s, there and back."""
        return self.there + self.back


def rounds(block: Block) -> int:
    """Returns how many rounds follow each other, there and back."""
    return 2 * (sum(s.turns for s in block.steps) + max((rounds(b) // 2 for b in block.before), default=0))


def stages(block: Block, depth: int = 0) -> dict[tuple[int, str], int]:
    """Returns (height, how) -> how many switches at that height do so; height 0 has no block before it."""
    found: dict[tuple[int, str], int] = {}
    for below in block.before:
        for key, count in stages(below).items():
            found[key] = found.get(key, 0) + count
    height = 1 + max((key[0] for key in found), default=-1)
    if block.label:
        found[height, block.label] = found.get((height, block.label), 0) + 1
    return found


def cells_of(hosts: int) -> int:
    """Returns into how many cells a buffer is cut, so that the usual parts of it are equal."""
    return math.lcm(27720, hosts) * 1024


def plan(
    topology: Topology, size: float, parameters: Parameters, *, progress: Callable[[int, int], None] | None = None
) -> Plan:
    """Returns the fastest plan found.

    Args:
        topology: at least two hosts.
        size: bytes of the buffer that each host has.
        parameters: GenModel's, those of links being for a host's own.
        progress: called with (switches done, switches).

    Raises:
        SpecError: a size that is not above 0.
    """
    genmodel.check(size, topology.hosts)
    search = _Search(topology, parameters, cells_of(topology.hosts), size)
    ways: dict[int, list[Way]] = {}
    for done, node in enumerate(range(topology.hosts, topology.nodes), 1):
        ways[node] = search.switch(node, ways)
        if progress is not None:
            progress(done, topology.nodes - topology.hosts)
    best = ways[topology.nodes - 1][0]
    return Plan(
        topology, parameters, size, search.cells, best.block, best.shares, parameters.launch + best.time, search.tried
    )  # fmt: skip


def peer(name: str, topology: Topology, size: float, parameters: Parameters) -> Plan:
    """Returns a flat algorithm as a plan: one of `PEERS`, hosts in the order of the tree.

    Recursive halving meets neighbours first or farthest first, whichever is faster there.
    """
    genmodel.check(size, topology.hosts)
    search = _Search(topology, parameters, cells_of(topology.hosts), size)
    ways = [search.way((), steps, held, name) for steps, held in flat(name, search.hosts(topology.nodes - 1))]
    best = min(ways, key=lambda way: way.time)
    return Plan(topology, parameters, size, search.cells, best.block, best.shares, parameters.launch + best.time)


def flat(name: str, members: Members) -> list[tuple[list[Step], Members]]:
    """Returns the forms of an algorithm of `PEERS`."""
    if name == "ring":
        return [merging.by_ring(members)]
    if name == "cps":
        return [merging.by_stages(members, (len(members.index),))]
    return [merging.by_halving(members, near=near) for near in (True, False)]


class _Search:
    """What the search knows throughout."""

    def __init__(self, topology: Topology, p: Parameters, cells: int, size: float) -> None:
        self.topology, self.p, self.cells, self.cell = topology, p, cells, size / cells
        self.small = topology.hosts <= SMALL
        self.tried = 0

    def hosts(self, node: int) -> Members:
        """Returns the hosts below a node, each with its own data."""
        return merging.meet([merging.alone(host, self.cells) for host in self.topology.hosts_below(node)])

    def switch(self, node: int, ways: Mapping[int, list[Way]]) -> list[Way]:
        """Returns ways below a switch, the fastest first: the best of each kind of sharing the sum out."""
        children = self.topology.children(node)
        best: dict[bytes, Way] = {}
        if any(child >= self.topology.hosts for child in children):
            self.keep(best, self.merged((), self.hosts(node), None))
        for below in self.choices(children, ways):
            if len(below) == 1:
                self.keep(best, below)
                continue
            before = tuple(way for way in below if way.block.steps or way.block.before)
            if self.last(node) and best and max(w.time for w in below) >= min(w.time for w in best.values()):
                break
            counts = [way.shares.hosts for way in below]
            for weights in (None, counts) if len(set(counts)) > 1 else (None,):
                self.keep(best, self.merged(before, merging.meet([way.shares for way in below]), weights))
        found = sorted(best.values(), key=lambda way: way.time)
        return found if self.small else found[:MOST_KEPT]

    def choices(self, children: Sequence[int], ways: Mapping[int, list[Way]]) -> list[tuple[Way, ...]]:
        """Returns ways of all children together, the fastest first; in a large tree, children alike do the same."""
        known = {c: ways.get(c) or [Way(0.0, 0.0, Block(()), merging.alone(c, self.cells))] for c in children}
        kinds = [c if self.small else self.kind(c) for c in children]
        distinct = list(dict.fromkeys(kinds))
        counts = [len(known[children[kinds.index(kind)]]) for kind in distinct]
        all_picks = itertools.product(*(range(n) for n in counts))
        picks = all_picks if self.small else itertools.islice(all_picks, MOST_CHOICES)
        found = []
        for pick in picks:
            of = dict(zip(distinct, pick, strict=True))
            found.append(tuple(known[c][of[kind]] for c, kind in zip(children, kinds, strict=True)))
        return sorted(found, key=lambda below: max(way.time for way in below))

    def kind(self, node: int) -> object:
        """Returns what is equal for nodes with equal links and equal trees below them."""
        below = tuple(self.kind(child) for child in self.topology.children(node))
        incast = self.topology.incast
        own = 1.0 if incast is None else float(incast[node])
        return float(self.topology.slow[node]), float(self.topology.latency[node]), own, below

    def last(self, node: int) -> bool:
        """Returns whether a node is the root, where only the fastest way counts."""
        return node == self.topology.nodes - 1

    def keep(self, best: dict[bytes, Way], found: Sequence[Way]) -> None:
        """Keeps each way that is the fastest of its kind: who holds which cells, in a large tree only how many."""
        for way in found:
            s = way.shares
            if self.small:
                key = np.concatenate([s.host, s.start, s.stop]).tobytes()
            else:
                key = np.sort(np.bincount(s.host, s.stop - s.start) * 1000 // self.cells).tobytes()
            if key not in best or way.time < best[key].time:
                best[key] = way

    def merged(self, before: Sequence[Way], members: Members, weights: Sequence[int] | None) -> list[Way]:
        """Returns the ways to merge members: ring, recursive halving, all at once, and the best stages."""
        count = len(members.index)
        ring, held = merging.by_ring(members, weights)
        found = [self.way(before, ring, held, "ring")]
        lists = {(count,), self.fan_ins(members)} | (set() if weights is None else _few(count))
        for fan_ins in sorted(lists):
            made = merging.by_stages(members, fan_ins, weights=weights)
            found.append(self.way(before, *made, "x".join(map(str, fan_ins))))
        if weights is None and count > 2:
            for steps, rest in flat("rhd", members):
                found.append(self.way(before, steps, rest, "halving"))
        return found

    def fan_ins(self, members: Members) -> tuple[int, ...]:
        """Returns the fastest fan-ins for equal shares: the shortest way over the divisors of the members.

        What a stage takes depends on the product of those before it and on its own fan-in, not on their order.
        """
        count = len(members.index)
        divisors = [d for d in range(1, count + 1) if count % d == 0]
        best: dict[int, tuple[float, tuple[int, ...]]] = {1: (0.0, ())}
        for done in divisors[:-1]:
            state = merging.stage(members, done, 1)[1] if done > 1 else members
            for to in divisors:
                if to > done and to % done == 0:
                    step, _ = merging.stage(state, to // done, done)
                    time = best[done][0] + sum(self.price(step))
                    self.tried += 1
                    if to not in best or time < best[to][0]:
                        best[to] = time, (*best[done][1], to // done)
        return best[count][1]

    def price(self, step: Step) -> tuple[float, float]:
        """Returns the seconds of a step there and back."""
        back = step.backwards()
        return (
            step_time(step, self.topology, self.p, self.cell), step_time(back, self.topology, self.p, self.cell)
        )  # fmt: skip

    def way(self, before: Sequence[Way], steps: Sequence[Step], held: Members, label: str) -> Way:
        """Returns steps as a way, priced."""
        self.tried += 1
        prices = [self.price(step) for step in steps]
        there = max((w.there for w in before), default=0.0) + sum(p[0] for p in prices)
        back = max((w.back for w in before), default=0.0) + sum(p[1] for p in prices)
        block = Block(tuple(steps), tuple(w.block for w in before), label)
        return Way(there, back, block, held.shares())


def _few(count: int) -> set[tuple[int, ...]]:
    """Returns all factorisations, where there are few: with unequal shares the order of fan-ins matters."""
    return set(genmodel.factorisations(count)) if count <= 24 else set()


def time_of(plan: Plan) -> float:
    """Returns the seconds of a plan's steps, priced afresh."""
    cell = plan.size / plan.cells
    there = scatter_time(plan.block, plan.topology, plan.parameters, cell)
    return plan.parameters.launch + there + gather_time(plan.block, plan.topology, plan.parameters, cell)
