"""The fleet as a tree: site > cluster > rack > node > device.

`resolve` looks up the names of a `Fleet`, splits what exceeds a node into nodes, and returns the
`Tree` that planners read: leaf groups of equal devices, and the link between any two of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleetcast.base.errors import SpecError, closest
from fleetcast.base.show import show
from fleetcast.scenario.fleet import catalog, failures, signals, spec
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.links import Link, slowest
from fleetcast.scenario.fleet.signals import Signal
from fleetcast.scenario.fleet.spec import Fleet, FleetGroup, parse_devices

__all__ = ["Fleet", "FleetGroup", "Group", "Tree", "parse_devices", "resolve"]


@dataclass(frozen=True)
class Group:
    """Equal devices on equal links: a leaf of the tree.

    Attributes:
        name: its path, joined by "/"; unique in the tree.
        count: how many devices.
        node: how many of them share ``link``; several nodes are joined by ``network``.
        path: names from below the root to this group.
        prices: $/h per device over time, or None where unknown.
        limit: power cap of a device (W).
        outages: when its nodes or devices are down, or None: they never are.
    """

    name: str
    device: Device
    count: int
    node: int
    link: Link
    network: Link
    path: tuple[str, ...]
    prices: Signal | None
    limit: float
    outages: failures.Outages | None = None

    @property
    def price(self) -> float | None:
        """$/h per device, the mean where it changes, or None where unknown."""
        return self.prices.average if self.prices is not None else None

    @property
    def nodes(self) -> int:
        """How many nodes; the last may be smaller."""
        return -(-self.count // self.node)


@dataclass(frozen=True)
class Tree:
    """A resolved fleet.

    Attributes:
        groups: the leaves, in the order written.
        joins: the link between the children of each inner group, by its path; () is the root.
        pue: facility power over IT power.
        grid: what `signals.signal` reads, relative to ``base``.
        notes: what `echo` says.
        budget: W that the breaker above all servers allows, None = nobody says.
        spend: $/h that a plan's devices may cost, None = nobody says.
        host_power: W of a server besides its devices.
        ssd: B/s that a device's share of the local disks reads, None = nobody says.
        host: what is said of a device's share of its host; store: B/s of the shared store, None = nobody says.
    """

    groups: tuple[Group, ...]
    joins: Mapping[tuple[str, ...], Link]
    pue: float
    grid: str | float
    notes: tuple[str, ...]
    base: Path | None = field(default=None, compare=False)
    budget: float | None = None
    spend: float | None = None
    host_power: float = 0.0
    ssd: float | None = None
    host: spec.Host = spec.NOTHING
    store: float | None = None

    @property
    def devices(self) -> int:
        """Devices in all."""
        return sum(group.count for group in self.groups)

    @property
    def price(self) -> float | None:
        """$/h of the whole fleet, or None where a price is unknown."""
        known = [g.price * g.count for g in self.groups if g.price is not None]
        return sum(known) if len(known) == len(self.groups) else None

    @property
    def power(self) -> tuple[float, float]:
        """Idle and highest power of all devices (W), without the facility's share."""
        idle = sum(g.count * g.device.power.idle for g in self.groups)
        return idle, sum(g.count * g.limit for g in self.groups)

    def group(self, name: str, path: str = "group") -> Group:
        """Returns the leaf group called ``name``.

        Raises:
            SpecError: no such group.
        """
        names = [group.name for group in self.groups]
        if name not in names:
            below = [leaf for leaf in names if _within(leaf, name)]
            if below:
                raise SpecError(
                    path, "holds several groups, and a pool runs on one", value=name,
                    limit=f"groups: {', '.join(below[:12])}",
                    hint="Write one [[plan.pools]] for each, or leave it out: a search tries every group",
                )  # fmt: skip
            raise SpecError(
                path, "is not a group of the fleet", value=name,
                limit=f"groups: {', '.join(names[:12])}", hint=closest(name, names),
            )  # fmt: skip
        return self.groups[names.index(name)]

    def link_between(self, a: Group | str, b: Group | str) -> Link:
        """Returns the link that binds traffic between two groups, or between the nodes of one.

        A group of a single node answers with the link inside the node.
        """
        a = self.group(a) if isinstance(a, str) else a
        b = self.group(b) if isinstance(b, str) else b
        if a.name == b.name:
            return a.network if a.nodes > 1 else a.link
        return slowest(self.path(a, b))

    def path(self, a: Group, b: Group) -> tuple[Link, ...]:
        """Returns the links that traffic between two groups crosses, each once; none within a group."""
        if a.name == b.name:
            return ()
        shared = 0
        while a.path[shared] == b.path[shared]:
            shared += 1
        crossed = dict.fromkeys(end.path[:depth] for end in (a, b) for depth in range(shared, len(end.path)))
        return tuple(self.joins[path] for path in crossed)

    def echo(self) -> list[str]:
        """Returns what was read between the lines: node splits, default links, prices, grid."""
        return list(self.notes)


def resolve(fleet: Fleet, base: Path | None = None, path: str = "fleet") -> Tree:
    """Returns the tree that ``fleet`` describes, every name looked up and every default noted.

    Args:
        fleet: the spec.
        base: folder that relative paths in it start from; default the working directory.
        path: where the spec stands, for errors.

    Raises:
        SpecError: contradictory or unknown; names path, value, limit and next step.
    """
    if spec.names_file(fleet.devices):
        fleet, base = spec.read(fleet, base or Path(), path)
    spec.check(fleet, path, base)
    walk = _Walk(base)
    if fleet.devices:
        walk.terms(parse_devices(fleet.devices, f"{path}.devices", base), fleet.link, fleet.network, ())
    else:
        walk.children(fleet.groups, fleet.network, (), path)
    prices = _prices(fleet, walk.leaves, base, path, walk.notes)
    groups = tuple(_finish(leaf, fleet, prices, base, walk.notes, path) for leaf in walk.leaves)
    _check_limits(fleet, groups, path)
    if fleet.budget is not None:
        said = "the servers of a plan stay below it at their highest power, unless plan.power caps them"
        walk.notes.append(f"budget {show(fleet.budget, 'W')} of the breaker: {said}")
    if fleet.pue == 1.0:
        walk.notes.append("pue 1.0: energy and carbon of the devices alone, no cooling")
    if fleet.grid == "world":
        walk.notes.append("grid world: the world's yearly mean carbon intensity")
    notes = tuple(dict.fromkeys(walk.notes))
    joins = {path: spec.at_speed(link, fleet.links.inter, base) for path, link in walk.joins.items()}
    stated = (fleet.budget, fleet.spend, fleet.host_power, fleet.ssd, fleet.host, fleet.store)
    return Tree(groups, joins, fleet.pue, fleet.grid, notes, base, *stated)


_NOTHING = FleetGroup()


@dataclass(frozen=True)
class _Leaf:
    """A leaf on its way: ids of links may be "", the catalogue's to give; ``said`` is its group, at ``where``."""

    device: Device
    count: int
    node: int
    link: str
    network: str
    path: tuple[str, ...]
    said: FleetGroup = _NOTHING
    where: str = ""


class _Walk:
    """Collects the leaves, and the link that joins the children of each inner group."""

    def __init__(self, base: Path | None) -> None:
        self.base = base
        self.leaves: list[_Leaf] = []
        self.joins: dict[tuple[str, ...], Link] = {}
        self.joined: list[Link] = []
        self.notes: list[str] = []

    def children(self, groups: tuple[FleetGroup, ...], link: str, path: tuple[str, ...], where: str) -> None:
        """Adds the groups below ``path``, which ``link`` joins."""
        first, taken = (len(self.leaves), len(self.joined)), set[str]()
        for i, group in enumerate(groups):
            self.group(group, link, path, f"{where}.groups[{i}]", taken)
        self.join(link, path, first)

    def terms(
        self, terms: list[tuple[int, Device]], link: str, network: str, path: tuple[str, ...],
        said: FleetGroup = _NOTHING, where: str = "",
    ) -> None:  # fmt: skip
        """Adds the kinds of devices of one line below ``path``, which ``network`` joins."""
        first, taken = (len(self.leaves), len(self.joined)), set[str]()
        for count, device in terms:
            name = self.unique(device.id, taken)
            node = min(count, device.node)
            self.leaves.append(_Leaf(device, count, node, link, network, (*path, name), said, where))
        self.join(network, path, first)

    def join(self, link: str, path: tuple[str, ...], first: tuple[int, int]) -> None:
        """Notes the link between the children of ``path``: by default their slowest network."""
        leaves, joined = self.leaves[first[0] :], self.joined[first[1] :]
        if link:
            self.joins[path] = catalog.link(link, base=self.base)
            if len(leaves) == 1 and leaves[0].count <= leaves[0].node:
                self.notes.append(f"{self.joins[path].id} joins nothing: {'/'.join(leaves[0].path)} is one node")
        else:
            below = [catalog.link(leaf.network or leaf.device.network, base=self.base) for leaf in leaves]
            self.joins[path] = slowest(below + joined)
            if len(leaves) > 1:
                among, say = "/".join(path) or "the fleet", _say(self.joins[path])
                self.notes.append(f"between the groups of {among}: {say}, the slowest of theirs")
        self.joined.append(self.joins[path])

    def group(self, group: FleetGroup, join: str, path: tuple[str, ...], where: str, taken: set[str]) -> None:
        """Adds one group, ``group.count`` times; ``join`` is the link of the group above."""
        spec.check_group(group, where, self.base)
        terms = parse_devices(group.devices, f"{where}.devices", self.base) if group.devices else []
        if group.name in taken:
            raise SpecError(
                f"{where}.name", "is a second group of that name", value=group.name,
                limit="groups side by side have names of their own", hint="Rename it, or write count = 2 in one group",
            )  # fmt: skip
        name = self.unique(group.name or (terms[0][1].id if len(terms) == 1 else "group"), taken)
        copies = [name] if group.count == 1 else [f"{name}[{i}]" for i in range(group.count)]
        if len(terms) == 1:
            count, device = terms[0]
            node = min(count, device.node)
            if group.count > 1 and count % node == 0:  # all nodes alike: one leaf holds them
                total = count * group.count
                self.leaves.append(_Leaf(device, total, node, group.link, join, (*path, name), group, where))
                return
            for copy in copies:
                self.leaves.append(_Leaf(device, count, node, group.link, "", (*path, copy), group, where))
        for copy in copies if len(terms) != 1 else ():
            if terms:
                self.terms(terms, "", group.link, (*path, copy), group, where)
            else:
                self.children(group.groups, group.link, (*path, copy), where)

    def unique(self, name: str, taken: set[str]) -> str:
        """Returns a name that is not ``taken`` yet for a group without one, and takes it."""
        found, n = name, 2
        while found in taken:
            found, n = f"{name}-{n}", n + 1
        if found != name:
            self.notes.append(f"a further group of {name} is called {found}")
        taken.add(found)
        return found


def _prices(
    fleet: Fleet, leaves: list[_Leaf], base: Path | None, path: str, notes: list[str]
) -> dict[str, Signal | None]:
    devices = {leaf.device.id: leaf.device for leaf in leaves}
    prices: dict[str, Signal | None] = {}
    measured = {device.id: device for device in devices.values() if device.fitted is not None}
    for name, price in fleet.price.items():
        where = f"{path}.price.{name}"
        device = measured.get(name) or catalog.device(name, where)
        if device.id not in devices:
            limit = f"it has {', '.join(devices)}"
            raise SpecError(where, "prices a device that the fleet does not have", value=price, limit=limit)
        if device.id in prices:
            limit = f"one price for {device.id}"
            raise SpecError(where, "is a second price", value=price, limit=limit)
        prices[device.id] = signals.price(price, device, base, where)
        _note_price(device.id, price, prices[device.id], notes)
    asked = {leaf.device.id for leaf in leaves if leaf.said.price is None}
    for device in (d for d in devices.values() if d.id not in prices):
        if device.price is None:
            prices[device.id], say = None, f"none known; give {path}.price to have costs"
        else:
            prices[device.id] = signals.constant(device.price, f"{device.price_source}, {device.price_date}")
            say = f"{show(device.price, '$/h')}, {device.price_source}, {device.price_date}"
        if device.id in asked:
            notes.append(f"price of {device.id}: {say}")
    return prices


def _note_price(what: str, asked: str | float, price: Signal | None, notes: list[str]) -> None:
    """Notes a price that was looked up or that changes; one that the scenario states says itself."""
    if price is None or not isinstance(asked, str):
        return
    if len(price.values) == 1:
        notes.append(f"price of {what}: {show(price.values[0], '$/h')}, {price.source}")
        return
    low, high = show(min(price.values), "$/h"), show(max(price.values), "$/h")
    notes.append(
        f"price of {what}: {low} to {high}, {show(price.average, '$/h')} on average over the "
        f"{failures.duration(price.span)} of {price.name}, which then begins again"
    )


def _finish(
    leaf: _Leaf, fleet: Fleet, prices: Mapping[str, Signal | None], base: Path | None, notes: list[str], path: str
) -> Group:
    device, name = leaf.device, "/".join(leaf.path)
    idle, top = device.power.idle, device.power.max
    limit = top if fleet.power_limit is None else min(fleet.power_limit, top)
    if limit <= idle:
        raise SpecError(
            f"{path}.power_limit", f"leaves {device.id} no power to work", value=fleet.power_limit,
            limit=f"above its idle {show(idle, 'W')}, up to {show(top, 'W')}",
        )  # fmt: skip
    if fleet.power_limit is not None and fleet.power_limit > top:
        notes.append(
            f"power_limit {show(fleet.power_limit, 'W')} changes nothing for {device.id}: its own is {show(top, 'W')}"
        )
    if leaf.link and leaf.node == 1:
        notes.append(f"link {leaf.link} joins nothing in {name}: its nodes have one device")
    link = spec.at_speed(catalog.link(leaf.link or device.link, base=base), fleet.links.intra, base)
    network = spec.at_speed(catalog.link(leaf.network or device.network, base=base), fleet.links.inter, base)
    price = prices[device.id]
    if leaf.said.price is not None:
        price = signals.price(leaf.said.price, device, base, f"{leaf.where}.price")
        _note_price(name, leaf.said.price, price, notes)
    asked, where = leaf.said.failures, f"{leaf.where}.failures"
    if asked is None:
        asked, where = fleet.failures, f"{path}.failures"
    outages = failures.outages(asked, name, leaf.count, leaf.node, base, where) if asked is not None else None
    if outages is not None:
        notes.append(failures.echo(outages))
    group = Group(name, device, leaf.count, leaf.node, link, network, leaf.path, price, limit, outages)
    if group.nodes > 1:
        default = "" if leaf.network else "default "
        notes.append(
            f"{name}: {leaf.count} x {device.id} are {group.nodes} nodes of {leaf.node}"
            f" ({_say(link)}) on {default}{_say(network)}"
        )
    return group


def _check_limits(fleet: Fleet, groups: tuple[Group, ...], path: str) -> None:
    """Refuses limits within which not one device can be had."""
    least = min(g.device.power.idle for g in groups) + fleet.host_power
    if fleet.budget is not None and fleet.budget < least:
        raise SpecError(
            f"{path}.budget", "is below the idle power of one server with one device", value=show(fleet.budget, "W"),
            limit=f"from {show(least, 'W')}, what it draws when nothing runs", hint="Raise the budget",
        )  # fmt: skip
    if fleet.spend is None:
        return
    free = next((g.device.id for g in groups if g.price is None), None)
    if free is not None:
        raise SpecError(
            f"{path}.spend", "needs prices", value=show(fleet.spend, "$/h"), limit=f"{free} has none",
            hint=f'Add {path}.price = {{ "{free}" = "1.00 $/h" }}, or leave it out',
        )  # fmt: skip
    cheapest = min(groups, key=lambda g: g.price or 0.0)
    if fleet.spend < (cheapest.price or 0.0):
        raise SpecError(
            f"{path}.spend", "is below the price of every device", value=show(fleet.spend, "$/h"),
            limit=f"from {show(cheapest.price or 0.0, '$/h')}, one {cheapest.device.id}", hint="Raise it",
        )  # fmt: skip


def _within(leaf: str, name: str) -> bool:
    """Whether a leaf is or stands below what ``name`` calls, copies by their number or all of them without it."""
    return any(f"{path}/".startswith(f"{name}/") for path in (leaf, re.sub(r"\[\d+\]", "", leaf)))


def _say(link: Link) -> str:
    return f"{link.id}, {show(link.bandwidth, 'B/s')}"
