"""What a scenario says under `[fleet]`, and the reading of its shorthand. `tree` resolves it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fleetcast.base.errors import SpecError
from fleetcast.base.show import show
from fleetcast.base.spec import Spec, convert, read_toml
from fleetcast.base.units import Bytes, BytesPerSecond, DollarsPerHour, LinkSpeed, Price, Watts
from fleetcast.scenario.fleet import catalog
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.failures import Failures
from fleetcast.scenario.fleet.links import Link

_TERM = re.compile(r"^(?:([-+]?\d+)\s*[xX×*]\s*)?(\S.*)$")
_NAME = re.compile(r"^[\w .-]*$")
_MOST_COPIES = 10_000
_SLOWEST, _FASTEST = 1e6, 1e13  # of a disk
_LITTLE, _MUCH = 1e6, 1e15  # of a host's memory
_MOST_DEVICES = 10_000_000


class FleetGroup(Spec):
    """One group: either ``devices`` or ``groups``.

    Attributes:
        name: how pools name it with ``on``; default its device.
        count: copies of the group that stand side by side on the link of the group above.
        link: joins what is in it: the devices of a node, or the groups below.
        devices: as in ``[fleet]``, but no fleet's file.
        groups: the groups below this one.
        price: over the fleet's, for the one kind of device in it.
        failures: over the fleet's.
    """

    name: str = ""
    count: int = 1
    link: str = ""
    devices: str = ""
    groups: tuple[FleetGroup, ...] = ()
    price: Price | None = None
    failures: Failures | None = None


class Links(Spec):
    """How fast the fleet's links are, over what the catalogue says of them: what a what-if changes.

    Attributes:
        intra: inside a node: B/s per device, one direction, or a link of the catalogue.
        inter: between nodes and between groups: the same.
    """

    intra: LinkSpeed | None = None
    inter: LinkSpeed | None = None


@dataclass(frozen=True)
class Host:
    """A device's share of its host, None = nobody says: B, B/s of it, B/s that disks write, B that they hold."""

    memory: float | None = None
    bandwidth: float | None = None
    ssd_write: float | None = None
    ssd_memory: float | None = None


NOTHING = Host()


class Fleet(Spec):
    """What a scenario says under ``[fleet]``.

    Attributes:
        devices: how many of what, several kinds joined by ``+``, a kind being a device of the catalogue or a profile
            (``1x profile.toml``); or a fleet's TOML file.
        groups: instead of ``devices``: the tree written out.
        link: over the catalogue's link inside a node; only beside ``devices``. A link of the catalogue, or a file that
            `fleetcast measure collectives` wrote, as are the other links of a fleet.
        network: over its link between nodes; beside ``groups``, the link between these.
        links: over the bandwidth of both, per device and direction: ``links.inter = "100 Gb/s"``.
        price: per device, by device, over the catalogue's: $/h, "spot" or "on-demand" (the catalogue's), or a CSV
            file with columns time_h and price.
        failures: how nodes or devices of every group fail and come back.
        pue: facility power over IT power.
        grid: carbon intensity: a packaged grid, a CSV file, or a constant.
        power_limit: cap on each device's power; lowers its clock where it must.
        budget: what the breaker above all servers allows: the most that a plan's servers may draw at once, unless
            ``plan.power`` caps them; ``capacity --of servers`` asks how many fit under it then.
        spend: the most that a plan's devices may cost an hour.
        host_power: of a server besides its devices, under the budget.
        ssd: what a device's share of the local disks reads, for prefix caches that reach down to them.
        ssd_write: what that share writes; left out = as much.
        ssd_memory: what it holds, B; left out = enough.
        store: what the shared store takes and gives, all hosts together, for checkpoints.
        host_memory: a device's share of its host's memory, to which training may offload.
        host_bandwidth: a device's share of what that memory moves, which an optimizer on the host waits for.
    """

    devices: str = ""
    groups: tuple[FleetGroup, ...] = ()
    link: str = ""
    network: str = ""
    links: Links = Links()
    price: dict[str, Price] = msgspec.field(default_factory=dict)
    failures: Failures | None = None
    pue: float = 1.0
    grid: str | float = "world"
    power_limit: Watts | None = None
    budget: Watts | None = None
    spend: DollarsPerHour | None = None
    host_power: Watts = 0.0
    ssd: BytesPerSecond | None = None
    ssd_write: BytesPerSecond | None = None
    ssd_memory: Bytes | None = None
    host_memory: Bytes | None = None
    host_bandwidth: BytesPerSecond | None = None
    store: BytesPerSecond | None = None

    @property
    def host(self) -> Host:
        """What is said of the host and its disks."""
        return Host(self.host_memory, self.host_bandwidth, self.ssd_write, self.ssd_memory)


def parse_devices(text: str, path: str = "fleet.devices", base: Path | None = None) -> list[tuple[int, Device]]:
    """Returns (count, device) of each term of ``"4x h100-sxm + 2x ./profile.toml"``.

    Args:
        text: the terms; a name that ends in ``.toml`` is a profile that `fleetcast measure` wrote.
        path: where they stand, for errors.
        base: folder that paths of profiles start from; default the working directory.

    Raises:
        SpecError: empty, a count below one, a device that the catalogue does not have, or a file that is no profile.
    """
    terms: list[tuple[int, Device]] = []
    for part in text.split("+"):
        match = _TERM.match(part.strip())
        if match is None:
            raise SpecError(path, "has an empty term", value=text, limit='write e.g. "8x h100-sxm"')
        count = int(match[1] or 1)
        if not 1 <= count <= _MOST_DEVICES:
            limit = f"1 to {_MOST_DEVICES:,} of each"
            raise SpecError(path, "counts too few or too many", value=text, limit=limit)
        name = match[2]
        measured = name.endswith(".toml")
        device = catalog.profile((base or Path()) / name, path) if measured else catalog.device(name, path)
        terms.append((count, device))
    return terms


def rename_profiles(devices: str, rename: Callable[[str], str]) -> str:
    """Returns ``devices`` with the path of every profile in it renamed."""
    parts = []
    for part in devices.split("+"):
        match = _TERM.match(part.strip())
        profile = match is not None and match[2].endswith(".toml")
        parts.append(part.strip()[: match.start(2)] + rename(match[2]) if match and profile else part.strip())
    return " + ".join(parts)


def names_file(devices: str) -> bool:
    """Returns whether ``devices`` names a fleet's file, and not kinds of devices with their counts."""
    match = _TERM.match(devices)
    return devices.endswith(".toml") and "+" not in devices and match is not None and match[1] is None


def read(fleet: Fleet, base: Path, path: str) -> tuple[Fleet, Path]:
    """Returns the fleet that ``fleet.devices``, a TOML file, describes, and the file's folder.

    What ``fleet`` itself says (prices, grid, ...) goes over the file's.

    Raises:
        SpecError: unreadable, or it names a file in turn.
    """
    file = base / fleet.devices
    try:
        table = read_toml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
        raise SpecError(f"{path}.devices", problem, value=str(file), hint="Check the path") from None
    if "device" in table:
        problem, hint = "names a device profile without a count", f'Write e.g. devices = "1x {fleet.devices}"'
        raise SpecError(f"{path}.devices", problem, value=fleet.devices, hint=hint)
    inner = convert(table.get("fleet", table), Fleet, fleet.devices)
    if names_file(inner.devices):
        problem, limit = "names another file", "a fleet's file holds the fleet itself"
        raise SpecError(fleet.devices, problem, value=inner.devices, limit=limit)
    default = Fleet()
    said = {
        name: getattr(fleet, name)
        for name in fleet.__struct_fields__
        if name != "devices" and getattr(fleet, name) != getattr(default, name)
    }
    return msgspec.structs.replace(inner, **said), file.parent


def check(fleet: Fleet, path: str, base: Path | None = None) -> None:
    """Refuses a fleet that contradicts itself; ``base`` is the folder that paths in it start from.

    Raises:
        SpecError: both or neither of devices and groups, an unknown link, a PUE below one, ...
    """
    if bool(fleet.devices) == bool(fleet.groups):
        both = bool(fleet.devices)
        hint = "Move the devices into a group" if both else 'Write e.g. devices = "8x h100-sxm"'
        problem = "has both devices and groups" if both else "names no devices"
        raise SpecError(path, problem, limit="a fleet has either devices or groups", hint=hint)
    if fleet.groups and fleet.link:
        raise SpecError(
            f"{path}.link", "joins nothing beside groups", value=fleet.link,
            limit="it is the link inside a node", hint=f"Write {path}.network, or link in a group",
        )  # fmt: skip
    if not 1.0 <= fleet.pue <= 10.0:
        limit = "1.0 (no overhead) to 10"
        raise SpecError(f"{path}.pue", "is out of range", value=fleet.pue, limit=limit)
    for key, low, high, unit, such in (
        ("ssd", _SLOWEST, _FASTEST, "B/s", "6 GB/s"), ("ssd_write", _SLOWEST, _FASTEST, "B/s", "3 GB/s"),
        ("ssd_memory", _LITTLE, _MUCH, "B", "4 TB"), ("host_memory", _LITTLE, _MUCH, "B", "256 GB"),
        ("store", _SLOWEST, 1e15, "B/s", "100 GB/s"), ("host_bandwidth", _SLOWEST, _FASTEST, "B/s", "200 GB/s"),
    ):  # fmt: skip
        value = getattr(fleet, key)
        if value is not None and not low <= value <= high:
            limit = f"{low:g} to {high:g} {unit}"
            raise SpecError(f"{path}.{key}", "is out of range", value=value, limit=limit, hint=f'Write e.g. "{such}"')
        if value is not None and key in ("ssd_write", "ssd_memory") and fleet.ssd is None:
            raise SpecError(
                f"{path}.{key}", "speaks of disks that nobody reads", value=value, limit="beside fleet.ssd",
                hint='Add e.g. ssd = "6 GB/s"',
            )  # fmt: skip
    for name, key in (
        (fleet.link, "link"), (fleet.network, "network"), (fleet.links.intra, "links.intra"),
        (fleet.links.inter, "links.inter"),
    ):  # fmt: skip
        if isinstance(name, str) and (name or key.startswith("links.")):
            catalog.link(name, f"{path}.{key}", base)
    for named, key, over in ((fleet.link, "link", "intra"), (fleet.network, "network", "inter")):
        if named and isinstance(getattr(fleet.links, over), str):
            raise SpecError(
                f"{path}.links.{over}", f"names a link, as {path}.{key} does", value=getattr(fleet.links, over),
                limit="one of them", hint=f'Or give links.{over} a speed, such as "100 Gb/s"',
            )  # fmt: skip


def at_speed(link: Link, speed: float | str | None, base: Path | None = None) -> Link:
    """Returns a link as ``fleet.links`` changes it: another one, or the same with another bandwidth.

    A link that was measured stays so in shape: its curves scale with its bandwidth.
    """
    if speed is None:
        return link
    if isinstance(speed, str):
        return catalog.link(speed, base=base)
    name = f"{link.id} at {show(speed, 'B/s')}"
    return msgspec.structs.replace(link, id=name, bandwidth=speed, uplink=None)


def check_group(group: FleetGroup, path: str, base: Path | None = None) -> None:
    """Refuses a group that contradicts itself; ``base`` is the folder that paths in it start from.

    Raises:
        SpecError: both or neither of devices and groups, an odd name, no copies, an unknown link.
    """
    if bool(group.devices) == bool(group.groups):
        both = bool(group.devices)
        problem = "has both devices and groups" if both else "has neither devices nor groups"
        hint = "Make it two groups" if both else 'Write e.g. devices = "8x h100-sxm" in it'
        raise SpecError(path, problem, limit="a group has one of the two", hint=hint)
    if not _NAME.match(group.name):
        limit = "letters, digits, blanks and . _ -"
        raise SpecError(f"{path}.name", "is not a name", value=group.name, limit=limit)
    if not 1 <= group.count <= _MOST_COPIES:
        limit = f"1 to {_MOST_COPIES:,} copies"
        raise SpecError(f"{path}.count", "is out of range", value=group.count, limit=limit)
    for key in ("price", "failures"):
        if getattr(group, key) is not None and (group.groups or (key == "price" and "+" in group.devices)):
            raise SpecError(
                f"{path}.{key}", "belongs to a group of devices of one kind", value=getattr(group, key),
                limit="a group with devices, not with groups", hint=f"Write {key} in each group below",
            )  # fmt: skip
    if group.link:
        catalog.link(group.link, f"{path}.link", base)
