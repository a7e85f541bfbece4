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


class Collectives(Spec):
    """What collectives took on a link that was measured; `cost.collectives` reads it.

    Attributes:
        source: what measured them.
        kind: of the link.
        bandwidth: B/s that curves and efficiencies are relative to.
        spread: standard deviation of log(time).
        size: B of the full buffer, growing.
        affine: launch (s), hop (s) and efficiency by operation.
        curves: us at each size by operation and ranks.
    """

    source: str
    kind: str
    bandwidth: float
    spread: float
    size: tuple[float, ...]
    affine: dict[str, dict[str, float]]
    curves: dict[str, dict[str, tuple[float, ...]]]


class Link(Spec):
    """One kind of link.

    ``bandwidth``: B/s per device, one direction. ``latency``: s for one small message. ``peers``: devices that the
    links of one are divided among, each pair having its own; 0 = a switch or bus. ``uplink``: B/s from the device to
    the network where that is less than the way down; None = the same. ``pair``: B/s between the two dies of a module,
    where that is more. ``fitted``: collectives of a link that `fleetcast measure collectives` timed.
    """

    id: str
    name: str
    kind: Kind
    bandwidth: BytesPerSecond
    latency: Seconds
    source: str
    aliases: tuple[str, ...] = ()
    peers: int = 0
    uplink: BytesPerSecond | None = None
    pair: BytesPerSecond | None = None
    fitted: Collectives | None = None


def slowest(links: Iterable[Link]) -> Link:
    """Returns the link that binds a path: least bandwidth, then most latency."""
    return min(links, key=lambda link: (link.bandwidth, -link.latency))


def transfer_time(path: Iterable[Link], size: float, messages: float = 1.0, *, up: bool = False) -> float:
    """Returns seconds for ``size`` bytes in ``messages`` messages over links in a row.

    The slowest link sets the pace; every message meets the latency of each.

    Args:
        path: the links.
        size: bytes in all.
        messages: how many of them wait for each other.
        up: away from the user, where a link may be slower.
    """
    links = tuple(path)
    if not links:
        return 0.0
    rate = min((link.uplink or link.bandwidth) if up else link.bandwidth for link in links)
    return size / rate + messages * sum(link.latency for link in links)
