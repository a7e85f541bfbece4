"""A fleet as a tree of switches: its devices as hosts, its links with their rates and latencies, GenModel's parameters.

What nobody measured on the fleet is assumed, and said: a link reaches the share of its line rate that all-reduces reach
on its kind; adding costs what memory takes, since these devices' arithmetic is faster; flows that meet at a port do no
harm on NVLink, InfiniBand and the like; over Ethernet and RoCE each beyond nine costs a tenth of a byte's time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import structs

from fleetcast.base.errors import SpecError
from fleetcast.cost.collectives import Fabric, fabric_for, nested_time
from fleetcast.cost.collectives.genmodel import Parameters
from fleetcast.cost.collectives.topology import Topology
from fleetcast.scenario.fleet.links import Link
from fleetcast.scenario.fleet.tree import Group, Tree

CONGESTED = ("ethernet", "roce", "wan", "wifi", "cellular")
"""Kinds of links on which flows that meet at a port disturb each other."""
LINES = ("wan", "wifi", "cellular")
"""Of these one joins a site, however many devices it has."""
INCAST, HARMLESS = 0.1, 9.0
"""Assumed: time of a byte for each flow beyond the threshold, as a share of its own; the threshold, recalled."""
MOST = 1024
"""Devices: all of them at once are a million transfers."""


@dataclass(frozen=True, eq=False)
class Joined:
    """A fleet's devices as hosts of a topology.

    Attributes:
        topology: hosts in the order of the groups.
        parameters: GenModel's.
        notes: what was assumed.
    """

    topology: Topology
    parameters: Parameters
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Node:
    """A host or switch on its way: the link up, s/B of it, and what is below."""

    per_byte: float
    latency: float
    congested: bool
    below: list[_Node]


def joined(tree: Tree, on: str = "") -> Joined:
    """Returns the topology of a fleet.

    Args:
        tree: resolved.
        on: name of a group; "" = all devices.

    Raises:
        SpecError: one device, more than `MOST`, or a group that the fleet does not have.
    """
    groups = (tree.group(on, "--on"),) if on else tree.groups
    count = sum(group.count for group in groups)
    if not 2 <= count <= MOST:
        limit = f"2 to {MOST:,} devices are planned"
        hint = "Name one group with --on, or write a smaller fleet"
        raise SpecError("fleet.devices", "are too few or too many", value=count, limit=limit, hint=hint)
    slowest = max(1.0 / group.device.bandwidth for group in groups)
    root = _Node(1.0, 0.0, False, [])
    inner: dict[tuple[str, ...], _Node] = {(): root}
    for group in groups:
        for depth in range(1, len(group.path)):
            path = group.path[:depth]
            if path not in inner:
                link = tree.joins[path[:-1]]
                # links are per device, but a line between sites is one for all
                devices = 1 if link.kind in LINES else sum(g.count for g in groups if g.path[:depth] == path)
                inner[path] = _up(link, link.bandwidth * devices, ())
                inner[path[:-1]].below.append(inner[path])
        above = inner[group.path[:-1]]
        for first in range(0, group.count, group.node):
            above.below.append(_node(group, min(group.node, group.count - first)))
    while len(root.below) == 1:
        root = root.below[0]
    topology, fastest = _numbered(root)
    leaf = groups[0]
    alpha = leaf.link.latency if leaf.node > 1 else leaf.network.latency
    congested = [g.network if g.node == 1 else g.link for g in groups]
    notes = [
        f"{g.name}: {g.count} devices, {g.node} a node, {g.link.id} in it"
        + (f", {g.network.id} between" if g.nodes > 1 or len(groups) > 1 else "")
        for g in groups
    ]
    if topology.incast is not None and topology.incast.any():
        names = ", ".join(dict.fromkeys(x.id for x in [*congested, *tree.joins.values()] if x.kind in CONGESTED))
        notes.append(f"assumed: over {names} each flow into a port beyond {HARMLESS:g} costs {INCAST:.0%} more")
    notes.append("assumed: what comes in is added at the devices' memory bandwidth")
    parameters = Parameters(alpha, fastest, 0.0, slowest, INCAST * fastest, HARMLESS)
    return Joined(topology, parameters, tuple(notes))


def fabric(device: str, link: Link) -> Fabric:
    """Returns what is known of collectives over a link between devices of a kind, or measured on the link itself."""
    own = None if link.fitted is None else structs.asdict(link.fitted)
    return fabric_for(device, link.kind, link.bandwidth, link.latency, link.peers, own)


def curve_time(group: Group, size: float) -> float:
    """Returns the seconds that forecasts of plans take for an all-reduce among all devices of a group."""
    inner, outer = (fabric(group.device.id, link) for link in (group.link, group.network))
    return float(nested_time("all_reduce", size, group.count, group.node, inner, outer))


def _node(group: Group, count: int) -> _Node:
    """Returns a node of a group, or its device where a node has one."""
    uplink = _up(group.network, group.network.bandwidth * count, (group.device.id,))
    if group.node == 1:
        return uplink
    device = _up(group.link, group.link.bandwidth, (group.device.id,))
    # a device's own latency is a round's alpha
    host = _Node(device.per_byte, 0.0, device.congested, [])
    return _Node(uplink.per_byte, uplink.latency, uplink.congested, [host] * count)


def _up(link: Link, rate: float, device: tuple[str, ...]) -> _Node:
    """Returns what a link of ``rate`` B/s in all is to whatever hangs on it; half its latency up, half down."""
    per_byte = 1.0 / (fabric(device[0] if device else "", link).affine["all_reduce"].efficiency * rate)
    return _Node(per_byte, link.latency / 2.0, link.kind in CONGESTED, [])


def _numbered(root: _Node) -> tuple[Topology, float]:
    """Returns the topology and the s/B of the fastest host's link."""
    hosts: list[_Node] = []
    switches: list[_Node] = []
    above: list[tuple[bool, int, int]] = []  # (is a host, its index, index of its switch)

    def place(node: _Node) -> tuple[bool, int]:
        if not node.below:
            hosts.append(node)
            return True, len(hosts) - 1
        inside = [place(child) for child in node.below]
        switches.append(node)
        above.extend((is_host, index, len(switches) - 1) for is_host, index in inside)
        return False, len(switches) - 1

    place(root)
    fastest = min(node.per_byte for node in hosts)
    parent = np.full(len(hosts) + len(switches), -1, dtype=np.int64)
    for is_host, index, switch in above:
        parent[index if is_host else len(hosts) + index] = len(hosts) + switch
    nodes = [*hosts, *switches]
    slow = np.array([node.per_byte / fastest for node in nodes])
    slow[-1] = 1.0
    incast = np.array([float(node.congested) for node in nodes])
    return Topology(len(hosts), parent, slow, np.array([node.latency for node in nodes]), incast), fastest
