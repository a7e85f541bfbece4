"""A fleet under a graph: its devices become workers, their peaks seconds, the tree's links channels.

A device is one worker, or several equal parts that share its memory. Seconds come from a table of the scenario, else of
work in FLOP from the device's peak and the share of it that a kernel reaches (`rates.toml`), else from the record's
times and how much quicker than the record's machine the scenario says that a device is.

Every device has a port out and a port in of each link that it is on. What shares a medium (wifi, cellular) has one
channel together. The host's end of a PCIe link, or of another link inside a node, is as wide as all of them: only the
port of the other device counts. A message of devices on several links holds the first and the last of them; the
slowest sets its pace.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.base.errors import SpecError, closest
from fleetcast.cost.graphs.platform import NONE, Platform
from fleetcast.scenario.fleet.links import Link

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.scenario.fleet.devices import Device
    from fleetcast.scenario.fleet.tree import Group, Tree
    from fleetcast.scenario.workload.graphs import TaskGraph

SHARED = ("wifi", "cellular")
"""Links whose users send one at a time."""
REACHED = 0.7
"""Share of a memory's bandwidth that a kernel bound by it reaches; assumed."""
MOST_WORKERS = 1024
"""Most workers of a fleet under a graph."""


@dataclass(frozen=True)
class Rate:
    """Of a kernel: shares of the dense peak by kind of device, and FLOP a byte where memory may bind it."""

    cpu: float
    other: float
    intensity: float = float("inf")


@cache
def rates() -> Mapping[str, Rate]:
    """Returns what is known of each kernel; "" = of all others."""
    text = resources.files(__package__).joinpath("rates.toml").read_text(encoding="utf-8")
    return {
        row["kernel"]: Rate(row["cpu"], row["other"], row.get("intensity", float("inf")))
        for row in tomllib.loads(text)["rate"]
    }


@dataclass(frozen=True)
class Place:
    """A device of the fleet: its group, its number there, and the worker that its first part is."""

    group: Group
    at: int
    name: str


def devices(tree: Tree) -> list[Place]:
    """Returns the devices of a fleet by name, "node" or "node[3]"."""
    found = []
    for group in tree.groups:
        for i in range(group.count):
            found.append(Place(group, i, group.name if group.count == 1 else f"{group.name}[{i}]"))
    return found


def workers_of(
    graph: TaskGraph, tree: Tree, *, dtype: str = "fp32", speeds: Mapping[str, float] | None = None,
    seconds: Mapping[str, Mapping[str, float]] | None = None, parts: Mapping[str, int] | None = None, home: str = "",
) -> Platform:  # fmt: skip
    """Returns the platform that a fleet is under a graph.

    Args:
        graph: tasks and edges.
        tree: the fleet.
        dtype: number format that work in FLOP is counted in.
        speeds: device or group -> how much quicker it is than the peak (of seconds: than the record's machine) says.
        seconds: kernel -> device or group -> s on one worker, for every task of that kernel.
        parts: device or group -> into how many workers each device is cut.
        home: group in whose memory what is read from outside lies; "" = everywhere.

    Raises:
        SpecError: a name that neither a device nor a group nor a kernel has, or too many workers.
        Unsupported: a device does not multiply that format.
    """
    places = devices(tree)
    _check_names(graph, tree, speeds or {}, "workload.speeds")
    _check_names(graph, tree, parts or {}, "plan.workers")
    for kernel, row in (seconds or {}).items():
        if kernel not in graph.kernels:
            raise SpecError(
                f"workload.seconds.{kernel}", "is no kernel of the graph", value=kernel,
                limit=f"one of {', '.join(graph.kernels[:12])}", hint=closest(kernel, graph.kernels),
            )  # fmt: skip
        _check_names(graph, tree, row, f"workload.seconds.{kernel}")
    cut = [int(_said(parts or {}, place.group, 1)) for place in places]
    if sum(cut) > MOST_WORKERS:
        raise SpecError(
            "fleet", "has too many workers for a graph", value=sum(cut), limit=f"at most {MOST_WORKERS:,}",
            hint="Name the part of the fleet that runs it",
        )  # fmt: skip
    kinds: dict[tuple[str, bytes], int] = {}
    rows: list[NDArray[np.float64]] = []
    kind: list[int] = []
    of_group: dict[str, int] = {}
    for place, count in zip(places, cut, strict=True):
        group = place.group
        if group.name not in of_group:
            takes = _row(graph, group, count, dtype, speeds or {}, seconds or {})
            of_group[group.name] = kinds.setdefault((group.device.id, takes.tobytes()), len(rows))
            rows += [takes] * (len(kinds) - len(rows))
        kind += [of_group[group.name]] * count
    names = [f"{p.name}.{j}" if count > 1 else p.name for p, count in zip(places, cut, strict=True)
             for j in range(count)]  # fmt: skip
    node = np.repeat(np.arange(len(places), dtype=np.int32), cut)
    latency, rate, channels, ports = _links(tree, places)
    at = np.ix_(node, node)
    return Platform(
        tuple(names), tuple(device for device, _ in kinds), np.array(kind, np.int32), node, np.stack(rows),
        np.array([p.group.device.memory for p in places], float)[node], latency[at], rate[at], channels[at], ports,
        _home(tree, places, cut, home),
        np.repeat([p.group.device.power.idle / c for p, c in zip(places, cut, strict=True)], cut),
        np.repeat([p.group.limit / c for p, c in zip(places, cut, strict=True)], cut),
    )  # fmt: skip


def _said(table: Mapping[str, float], group: Group, default: float) -> float:
    """What a table says of a group: by its name, the end of it, or its device."""
    for name in (group.name, group.name.rpartition("/")[2], group.device.id):
        if name in table:
            return table[name]
    return default


def _check_names(graph: TaskGraph, tree: Tree, table: Mapping[str, float], path: str) -> None:
    known = {name for g in tree.groups for name in (g.name, g.name.rpartition("/")[2], g.device.id)}
    for name in table:
        if name not in known:
            raise SpecError(
                f"{path}.{name}", "is neither a device nor a group of the fleet", value=name,
                limit=f"one of {', '.join(sorted(known)[:12])}", hint=closest(name, known),
            )  # fmt: skip


def _row(
    graph: TaskGraph, group: Group, parts: int, dtype: str, speeds: Mapping[str, float],
    seconds: Mapping[str, Mapping[str, float]],
) -> NDArray[np.float64]:  # fmt: skip
    """f8[n]: seconds of every task on one of a device's equal parts."""
    device, speed = group.device, _said(speeds, group, 1.0)
    if graph.unit == "s":
        takes = graph.work / speed * parts
    else:
        takes = graph.work / (_pace(graph, device, dtype)[graph.kernel] * speed) * parts
    for kernel, table in seconds.items():
        fixed = _said(table, group, -1.0)
        # a kernel that has a table runs only on what the table names
        takes[graph.kernel == graph.kernels.index(kernel)] = fixed if fixed >= 0 else np.inf
    return takes


def _pace(graph: TaskGraph, device: Device, dtype: str) -> NDArray[np.float64]:
    """FLOP/s that a device reaches in each kernel of a graph."""
    if dtype not in device.peak:
        raise SpecError(
            "workload.dtype", f"is no format that {device.id} multiplies", value=dtype,
            limit=f"one of {', '.join(device.peak)}", hint=closest(dtype, device.peak) or "Take one of them",
        )  # fmt: skip
    known, peak = rates(), device.rate(dtype)
    found = []
    for kernel in graph.kernels:
        rate = known.get(kernel, known[""])
        flops = peak * (rate.cpu if device.kind == "cpu" else rate.other)
        found.append(min(flops, rate.intensity * device.bandwidth * REACHED))
    return np.array(found)


def _home(tree: Tree, places: list[Place], cut: list[int], home: str) -> int:
    if not home:
        return NONE
    named = [i for i, p in enumerate(places) if home in (p.group.name, p.group.name.rpartition("/")[2], p.name)]
    if not named:
        raise SpecError(
            "workload.home", "is not a group of the fleet", value=home,
            limit=f"one of {', '.join(g.name for g in tree.groups[:12])}",
            hint=closest(home, [g.name for g in tree.groups]),
        )  # fmt: skip
    return sum(cut[: named[0]])


def _links(
    tree: Tree, places: list[Place]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int32], tuple[str, ...]]:
    """Latency, rate and channels between any two devices, and the channels' names."""
    count = len(places)
    latency, rate = np.zeros((count, count)), np.full((count, count), np.inf)
    channels = np.full((count, count, 2), NONE, np.int32)
    ports: dict[str, int] = {}

    def port(link: Link, end: Place, way: str, other: Place) -> int:
        if link.kind in SHARED:
            return ports.setdefault(f"{link.id}, shared", len(ports))
        if end.group.device.kind == "cpu" and other.group.device.kind != "cpu" and link.kind in _INSIDE:
            return NONE
        return ports.setdefault(f"{end.name} {link.id} {way}", len(ports))

    for a, sender in enumerate(places):
        for b, receiver in enumerate(places):
            if a == b:
                continue
            path = _path(tree, sender, receiver)
            up = tree.groups.index(sender.group) < tree.groups.index(receiver.group)
            latency[a, b] = sum(link.latency for link in path)
            rate[a, b] = min((link.uplink or link.bandwidth) if up else link.bandwidth for link in path)
            channels[a, b] = port(path[0], sender, "out", receiver), port(path[-1], receiver, "in", sender)
    return latency, rate, channels, tuple(ports)


_INSIDE = ("pcie", "nvlink", "infinity-fabric", "on-chip", "cpu")


def _path(tree: Tree, a: Place, b: Place) -> tuple[Link, ...]:
    """The links between two devices: a node's, the network of its nodes, or those between their groups."""
    if a.group.name == b.group.name:
        group = a.group
        return (group.link if a.at // group.node == b.at // group.node else group.network,)
    return tree.path(a.group, b.group)
