"""Every plan of a small tree, priced one transfer at a time: what the search is held to.

Nothing here is shared with the search but the steps themselves: choices are multiplied out instead of made switch by
switch, and loads are counted in dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives import genmodel, merging
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.merging import Members, Shares
from fleetcast.cost.collectives.steps import Block, Step
from fleetcast.cost.collectives.topology import Topology
from fleetcast.search.collectives.gentree import cells_of

MOST = 12


def best(topology: Topology, size: float, p: Parameters) -> tuple[float, Block, int]:
    """Returns the least time of any plan, the plan, and how many there are.

    Raises:
        SpecError: more than `MOST` hosts.
    """
    if topology.hosts > MOST:
        raise SpecError("topology", "is too large to try every plan", value=topology.hosts, limit=f"{MOST} hosts")
    cell = size / cells_of(topology.hosts)
    found = [(p.launch + _time(block, topology, p, cell), i, block) for i, block in enumerate(every(topology))]
    time, _, block = min(found)
    return time, block, len(found)


def every(topology: Topology) -> Iterator[Block]:
    """Yields every plan of a topology."""
    cells = cells_of(topology.hosts)
    for block, _ in _below(topology, topology.nodes - 1, cells):
        yield block


def _below(topology: Topology, node: int, cells: int) -> list[tuple[Block, Shares]]:
    if node < topology.hosts:
        return [(Block(()), merging.alone(node, cells))]
    children = topology.children(node)
    found = []
    for below in product(*(_below(topology, child, cells) for child in children)):
        before = tuple(block for block, _ in below if block.steps or block.before)
        shares = [share for _, share in below]
        found += [(Block(tuple(s), before, "tree"), h.shares()) for s, h in _merges(shares)]
    if any(child >= topology.hosts for child in children):
        hosts = [merging.alone(host, cells) for host in topology.hosts_below(node)]
        found += [(Block(tuple(s), (), "flat"), h.shares()) for s, h in _merges(hosts)]
    return found


def _merges(shares: list[Shares]) -> Iterator[tuple[list[Step], Members]]:
    members = merging.meet(shares)
    count = len(shares)
    if count == 1:
        yield [], members
        return
    counts = [share.hosts for share in shares]
    for weights in [None, counts] if len(set(counts)) > 1 else [None]:
        yield merging.by_ring(members, weights)
        for fan_ins in genmodel.factorisations(count):
            yield merging.by_stages(members, fan_ins, weights=weights)
    for near in (True, False):
        yield merging.by_halving(members, near=near)


def _time(block: Block, topology: Topology, p: Parameters, cell: float) -> float:
    """Returns the seconds there and back, launch left out."""
    return sum(_one_way(block, topology, p, cell, back) for back in (False, True))


def _one_way(block: Block, topology: Topology, p: Parameters, cell: float, back: bool) -> float:
    side = max((_one_way(b, topology, p, cell, back) for b in block.before), default=0.0)
    turns = [turn for step in block.steps for turn in (step.backwards() if back else step).each()]
    return side + sum(turn_time(turn, topology, p, cell) for turn in turns)


def turn_time(step: Step, topology: Topology, p: Parameters, cell: float) -> float:
    """Returns the seconds of one turn, counted transfer by transfer."""
    carried: dict[tuple[int, bool], int] = {}
    senders: dict[tuple[int, bool], set[int]] = {}
    written: dict[int, set[tuple[int, int]]] = {}
    received: dict[int, int] = {}
    wait = 0.0
    rows = (step.source, step.target, step.start, step.stop)
    for source, target, start, stop in zip(*(x.tolist() for x in rows), strict=True):
        links = _way(topology, source, target)
        wait = max(wait, sum(float(topology.latency[node]) for node, _ in links))
        for link in links:
            carried[link] = carried.get(link, 0) + stop - start
            senders.setdefault(link, set()).add(source)
        received[target] = received.get(target, 0) + stop - start
        written.setdefault(target, set()).add((start, stop))
    network = 0.0
    for link, cells in carried.items():
        slow = float(topology.slow[link[0]])
        width = 1.0 + sum(slow / float(topology.slow[host]) for host in senders[link])
        epsilon = p.epsilon * (1.0 if topology.incast is None else float(topology.incast[link[0]]))
        network = max(network, cells * slow * (p.beta + max(width - p.threshold, 0.0) * epsilon))
    host = 0.0
    if step.reduce:
        for target, cells in received.items():
            moved = cells + 2 * _union(written[target])
            host = max(host, cells * p.gamma + moved * p.delta)
    return p.alpha + wait + cell * (network + host)


def _way(topology: Topology, source: int, target: int) -> list[tuple[int, bool]]:
    """Returns (node, upwards) of the links between two hosts."""
    up, down = [source], [target]
    for way in (up, down):
        while topology.parent[way[-1]] >= 0:
            way.append(int(topology.parent[way[-1]]))
    shared = set(up) & set(down)
    return [(node, True) for node in up if node not in shared] + [(node, False) for node in down if node not in shared]


def _union(ranges: set[tuple[int, int]]) -> int:
    total, reached = 0, -1
    for start, stop in sorted(ranges):
        total += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return total
