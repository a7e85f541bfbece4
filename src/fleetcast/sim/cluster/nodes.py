"""A fleet as nodes by kind of device: what worlds of many jobs know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetcast.policy.share import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleetcast.scenario.fleet.failures import Outages
    from fleetcast.scenario.fleet.tree import Group, Tree


@dataclass(frozen=True)
class Nodes:
    """Nodes of a fleet, those of a kind side by side.

    Attributes:
        kinds: of devices.
        first: where each kind's nodes begin, and their number at the end.
        size: of each node, devices.
        near: of each node, the number of its group of the fleet (its rack).
        names: of the nodes.
        outages: (first node, devices of a node, what fails there), of each group that fails.
    """

    kinds: tuple[DeviceKind, ...]
    first: tuple[int, ...]
    size: tuple[int, ...]
    near: tuple[int, ...]
    names: tuple[str, ...]
    outages: tuple[tuple[int, int, Outages], ...] = ()

    @property
    def total(self) -> int:
        """Devices in all."""
        return sum(self.size)

    def kind(self, node: int) -> int:
        """Returns the kind of a node's devices."""
        return next(k for k in range(len(self.kinds)) if node < self.first[k + 1])


def even(counts: Sequence[int], node: Sequence[int], names: Sequence[str] = ()) -> Nodes:
    """Returns kinds of so many devices, each on nodes of so many, without racks: what tests and benchmarks use."""
    kinds, first, size, near, called = [], [0], list[int](), list[int](), list[str]()
    for k, (count, whole) in enumerate(zip(counts, node, strict=True)):
        name = names[k] if names else f"kind {k}"
        cut = [min(whole, count - i) for i in range(0, count, whole)]
        called += [f"{name}[{i}]" for i in range(len(cut))]
        size += cut
        near += [k] * len(cut)
        first.append(len(size))
        kinds.append(DeviceKind(name, count, whole))
    return Nodes(tuple(kinds), tuple(first), tuple(size), tuple(near), tuple(called))


def nodes(tree: Tree, zones: Collection[str] = ()) -> Nodes:
    """Returns the nodes of a fleet; groups of one kind of device lie side by side, each a rack of its own.

    Args:
        tree: the fleet.
        zones: groups that are a kind of their own whatever their devices, as their electricity is another.
    """
    order = dict.fromkeys(_kind(group, zones) for group in tree.groups)
    kinds, first, size, near, names = [], [0], list[int](), list[int](), list[str]()
    outages = []
    for kind in order:
        groups = [(i, group) for i, group in enumerate(tree.groups) if _kind(group, zones) == kind]
        for i, group in groups:
            if group.outages is not None:
                outages.append((len(size), group.node, group.outages))
            cut = [min(group.node, group.count - at) for at in range(0, group.count, group.node)]
            names += [f"{group.name}[{n}]" if len(cut) > 1 else group.name for n in range(len(cut))]
            size += cut
            near += [i] * len(cut)
        first.append(len(size))
        total = sum(group.count for _, group in groups)
        more = sum(group.count * (group.limit - group.device.power.idle) for _, group in groups) / total
        kinds.append(DeviceKind(kind, total, max(group.node for _, group in groups), more))
    return Nodes(tuple(kinds), tuple(first), tuple(size), tuple(near), tuple(names), tuple(outages))


def _kind(group: Group, zones: Collection[str]) -> str:
    return group.name if group.name in zones else group.device.id
