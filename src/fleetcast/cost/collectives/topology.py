"""A tree of switches with hosts as its leaves: which links a transfer crosses, and what they carry.

Every node but the root has one link up, with two directions that do not disturb each other. Links are counted upwards
first: link v leads from node v to its switch, link nodes + v back. A host is whatever takes part in a collective: a
server, or one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import SpecError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Topology:
    """Hosts, then switches, each with its link up.

    Attributes:
        hosts: how many; nodes 0 to hosts - 1.
        parent: (nodes,) the switch above each node, -1 at the root, which comes last.
        slow: (nodes,) s/B of each link over that of the reference, the fastest host's: 2 has half its rate.
        latency: (nodes,) s that each link adds to a message.
        incast: (nodes,) how much of GenModel's epsilon each link has, 0 where flows that meet do no harm; None = all.
    """

    hosts: int
    parent: Ints
    slow: Floats
    latency: Floats
    incast: Floats | None = None

    def __post_init__(self) -> None:
        """Refuses what is no tree.

        Raises:
            SpecError: names what is wrong.
        """
        above = self.parent[:-1]
        after = (above > np.arange(len(above))) & (above >= self.hosts) & (above < self.nodes)
        if self.hosts < 2:
            raise SpecError("topology", "has too few hosts", value=self.hosts, limit="at least 2 take part")
        if self.parent[-1] != -1 or not np.all(after):
            limit = "hosts first, every switch after what is below it, the root last"
            raise SpecError("topology", "is no tree of switches", value=self.parent.tolist()[:12], limit=limit)
        if not np.all(self.slow > 0) or not np.all(self.latency >= 0):
            raise SpecError("topology", "has a link without rate or with negative latency", limit="rates above 0")

    @property
    def nodes(self) -> int:
        """Hosts and switches."""
        return len(self.parent)

    @cached_property
    def ancestors(self) -> Ints:
        """(depth, hosts) the node at each depth below the root on a host's way up, -1 below the host itself."""
        ways = []
        for host in range(self.hosts):
            way = [host]
            while self.parent[way[-1]] >= 0:
                way.append(int(self.parent[way[-1]]))
            ways.append(way[-2::-1])
        deep = max(map(len, ways))
        return np.array([way + [-1] * (deep - len(way)) for way in ways], dtype=np.int64).T

    @cached_property
    def _below(self) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in range(self.nodes)]
        for node, above in enumerate(self.parent[:-1].tolist()):
            found[above].append(node)
        return tuple(map(tuple, found))

    def children(self, node: int) -> tuple[int, ...]:
        """Returns the nodes right below one."""
        return self._below[node]

    def hosts_below(self, node: int) -> tuple[int, ...]:
        """Returns the hosts below a switch, or the host itself."""
        if node < self.hosts:
            return (node,)
        return tuple(host for child in self.children(node) for host in self.hosts_below(child))

    def crossed(self, source: Ints, target: Ints) -> tuple[Ints, Ints]:
        """Returns (transfer, link) of every link that transfers between hosts cross."""
        transfers, links = [], []
        for above in self.ancestors:
            a, b = above[source], above[target]
            for node, offset in ((a, 0), (b, self.nodes)):
                which = np.nonzero((a != b) & (node >= 0))[0]
                transfers.append(which)
                links.append(node[which] + offset)
        return np.concatenate(transfers), np.concatenate(links)


def single(hosts: int) -> Topology:
    """Returns hosts on one switch."""
    return tree([1.0] * hosts)


def tree(shape: Sequence[object], *, up: float = 1.0, latency: float = 0.0) -> Topology:
    """Returns the topology of nested lists.

    Args:
        shape: a number is a host, its link's rate relative to the reference; a list is a switch of what it holds.
        up: rate of the links of switches, relative to the reference.
        latency: s that the link of a switch adds.

    Raises:
        SpecError: fewer than two hosts, an empty switch, or something that is neither.

    Example:
        >>> tree([[1.0, 1.0], [1.0, 1.0]], up=2.0).parent.tolist()
        [4, 4, 5, 5, 6, 6, -1]
    """
    rates: list[float] = []
    switches: list[tuple[list[tuple[bool, int]], float, float]] = []

    def place(part: object, rate: float, wait: float) -> tuple[bool, int]:
        if isinstance(part, int | float) and not isinstance(part, bool):
            rates.append(float(part))
            return True, len(rates) - 1
        if isinstance(part, Branch):
            return place(list(part.below), part.up, part.latency)
        if not isinstance(part, list | tuple) or not part:
            raise SpecError(
                "topology", "has a part that is neither host nor switch", value=part,
                limit="a number is a host, a list that holds some is a switch",
            )  # fmt: skip
        inside = [place(item, up, latency) for item in part]
        switches.append((inside, rate, wait))
        return False, len(switches) - 1

    place(list(shape), 1.0, 0.0)
    hosts, parent = len(rates), [-1] * (len(rates) + len(switches))
    for i, (inside, _, _) in enumerate(switches):
        for is_host, index in inside:
            parent[index if is_host else hosts + index] = hosts + i
    rate = np.array(rates + [rate for _, rate, _ in switches])
    if not np.all(rate > 0):
        raise SpecError("topology", "has a link without rate", value=float(rate.min()), limit="rates above 0")
    waits = np.array([0.0] * hosts + [wait for _, _, wait in switches])
    return Topology(hosts, np.array(parent, dtype=np.int64), 1.0 / rate, waits)


@dataclass(frozen=True, slots=True)
class Branch:
    """A switch whose link up is unlike the others'.

    Attributes:
        below: what it holds, as in `tree`.
        up: rate of its link, relative to the reference.
        latency: s that the link adds.
    """

    below: tuple[object, ...]
    up: float
    latency: float = 0.0
