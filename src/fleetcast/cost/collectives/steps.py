"""The steps of a collective on a tree of switches, and what they take by GenModel's terms.

A buffer is cut into cells. A step is a set of transfers of cells that all go at once; its time is that of the slowest
link plus that of the busiest host. Blocks hold steps, and blocks that run side by side before them. An all-gather is a
reduce-scatter played backwards, so only the latter is written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.topology import Floats, Ints, Topology


@dataclass(frozen=True, eq=False)
class Step:
    """Transfers that go at once.

    Attributes:
        source: (n,) hosts.
        target: (n,) hosts.
        start: (n,) first cell of each, in turn 0.
        stop: (n,) cell after the last.
        turns: how often, one after the other, with the next part of ``cuts`` each time.
        cuts: (n, parts + 1) where the buffer is cut, for a step of several turns.
        part: (n,) which part goes in turn 0; in turn t it is the t-th before, around.
        reduce: the target adds what comes to what it has; otherwise it takes it.
    """

    source: Ints
    target: Ints
    start: Ints
    stop: Ints
    turns: int = 1
    cuts: Ints | None = None
    part: Ints | None = None
    reduce: bool = True

    def turn(self, index: int) -> Step:
        """Returns one turn as a step of its own."""
        if self.cuts is None or self.part is None:
            return self
        part = (self.part - index) % (self.cuts.shape[1] - 1)
        row = np.arange(len(part))
        return replace(self, start=self.cuts[row, part], stop=self.cuts[row, part + 1], turns=1, cuts=None, part=None)

    def each(self) -> Iterator[Step]:
        """Yields the turns; backwards where they give back what was added."""
        order = range(self.turns) if self.reduce else reversed(range(self.turns))
        return (self.turn(i) for i in order)

    def backwards(self) -> Step:
        """Returns the step that gives back what this one added."""
        return replace(self, source=self.target, target=self.source, reduce=False)


@dataclass(frozen=True, eq=False)
class Block:
    """Steps, and what runs side by side before them.

    Attributes:
        steps: one after the other.
        before: blocks on hosts and links that have nothing to do with each other.
        label: what it does, for people, e.g. "4x6" or "ring".
    """

    steps: tuple[Step, ...]
    before: tuple[Block, ...] = ()
    label: str = ""

    def all_steps(self) -> Iterator[Step]:
        """Yields the steps of a reduce-scatter, in an order that keeps its meaning."""
        for block in self.before:
            yield from block.all_steps()
        yield from self.steps

    def all_reduce(self) -> Iterator[Step]:
        """Yields the steps of an all-reduce, turn by turn: there, and the same way back."""
        there = list(self.all_steps())
        for step in there:
            yield from step.each()
        for step in reversed(there):
            yield from step.backwards().each()


@dataclass(frozen=True, slots=True)
class Load:
    """What a turn of a step asks of links and hosts.

    Attributes:
        links: (2 nodes,) cells over each link.
        width: (2 nodes,) line-rate senders that meet at each link, in units of it, and one for the data already there.
        wait: s, the latency of the longest way.
        added: (hosts,) cells added at each.
        moved: (hosts,) cells read or written at each.
    """

    links: Floats
    width: Floats
    wait: float
    added: Floats
    moved: Floats


def load(step: Step, topology: Topology) -> Load:
    """Returns what the first turn of a step asks for."""
    length = (step.stop - step.start).astype(np.float64)
    which, links = topology.crossed(step.source, step.target)
    count = 2 * topology.nodes
    carried = total(links, count, length[which])
    pairs = np.unique(links * topology.hosts + step.source[which])
    ports, senders = pairs // topology.hosts, pairs % topology.hosts
    slow = np.concatenate([topology.slow, topology.slow])
    width = 1.0 + total(ports, count, slow[ports] / topology.slow[senders])
    waits = total(which, len(length), topology.latency[links % topology.nodes])
    received = total(step.target, topology.hosts, length) if step.reduce else np.zeros(topology.hosts)
    moved = received + 2.0 * covered(step, topology.hosts) if step.reduce else received
    return Load(carried, width, float(waits.max(initial=0.0)), received, moved)


def covered(step: Step, hosts: int) -> Floats:
    """Returns (hosts,) how many cells of each host receive anything: each is read once and written once."""
    high = int(step.stop.max(initial=0)) + 1
    start, stop = step.start + step.target * high, step.stop + step.target * high
    order = np.argsort(start, kind="stable")
    start, stop = start[order], stop[order]
    before = np.concatenate([[0], np.maximum.accumulate(stop)[:-1]]) if len(stop) else stop
    return total(step.target[order], hosts, np.maximum(stop - np.maximum(start, before), 0))


def total(index: Ints, count: int, amount: Floats | Ints) -> Floats:
    """Returns (count,) the sum of the amounts that have each index."""
    return np.bincount(index, amount, count).astype(np.float64)


def step_time(step: Step, topology: Topology, p: Parameters, cell: float) -> float:
    """Returns the seconds of a step, all its turns.

    Args:
        step: what goes.
        topology: over what.
        p: GenModel's parameters, ``beta`` and ``epsilon`` those of a link whose ``slow`` is 1.
        cell: bytes of a cell.
    """
    if step.cuts is not None and np.ptp(np.diff(step.cuts, axis=1), axis=1).max() > 1:
        return sum(step_time(step.turn(i), topology, p, cell) for i in range(step.turns))
    asked = load(step, topology)
    slow = np.concatenate([topology.slow, topology.slow])
    epsilon = p.epsilon * (1.0 if topology.incast is None else np.concatenate([topology.incast, topology.incast]))
    per_byte = slow * (p.beta + np.maximum(asked.width - p.threshold, 0.0) * epsilon)
    network = float((asked.links * per_byte).max())
    host = float((asked.added * p.gamma + asked.moved * p.delta).max())
    return step.turns * (p.alpha + asked.wait + cell * (network + host))


def scatter_time(block: Block, topology: Topology, p: Parameters, cell: float) -> float:
    """Returns the seconds of a reduce-scatter, without the launch."""
    before = max((scatter_time(b, topology, p, cell) for b in block.before), default=0.0)
    return before + sum(step_time(s, topology, p, cell) for s in block.steps)


def gather_time(block: Block, topology: Topology, p: Parameters, cell: float) -> float:
    """Returns the seconds of the all-gather that goes the same way back, without the launch."""
    after = max((gather_time(b, topology, p, cell) for b in block.before), default=0.0)
    return after + sum(step_time(s.backwards(), topology, p, cell) for s in block.steps)
