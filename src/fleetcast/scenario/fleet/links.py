"""Links between devices, nodes and sites: bandwidth per device, one direction, and latency."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from fleetcast.base.spec import Spec
from fleetcast.base.units import BytesPerSecond, Seconds

Kind = Literal[
    "nvlink", "infinity-fabric", "ici", "pcie", "cpu", "on-chip",
    "infiniband", "roce", "ethernet", "wan", "wifi", "cellular",
]  # fmt: skip


class Link(Spec):
    """One kind of link.

    ``bandwidth``: B/s per device, one direction. ``latency``: s for one small message. ``peers``: devices that the
    links of one are divided among, each pair having its own; 0 = a switch or bus.
    """

    id: str
    name: str
    kind: Kind
    bandwidth: BytesPerSecond
    latency: Seconds
    source: str
    aliases: tuple[str, ...] = ()
    peers: int = 0


def slowest(links: Iterable[Link]) -> Link:
    """Returns the link that binds a path: least bandwidth, then most latency."""
    return min(links, key=lambda link: (link.bandwidth, -link.latency))
