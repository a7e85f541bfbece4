"""A scenario of functions resolved: the trace read, its regions on groups of the fleet, each with its grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleetcast.base.errors import Infeasible, SpecError
from fleetcast.base.show import show
from fleetcast.base.spec import build
from fleetcast.policy import scale
from fleetcast.policy.route import invocations as route
from fleetcast.scenario.fleet.signals import Signal, constant, signal, sun
from fleetcast.scenario.fleet.tree import Group, Tree, resolve
from fleetcast.scenario.kinds.functions import FunctionsScenario
from fleetcast.scenario.workload.functions import Region
from fleetcast.scenario.workload.invocations import Invocations
from fleetcast.sim.functions.places import Node
from fleetcast.sim.functions.supply import Sun

DEFAULT = "fixed"
"""The scale policy of a plan that names none."""
MOST_NODES = 20_000


@dataclass(frozen=True)
class Site:
    """A region: its name, the group whose devices are its nodes, its grid or sun, s that a request from afar takes."""

    name: str
    group: Group
    grid: Signal
    distance: float
    sun: Sun | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """A scenario of functions, resolved.

    Attributes:
        scenario: as it was read.
        tree: the fleet.
        trace: the invocations; its regions are ``sites``.
        sites: where they run.
        notes: what was taken as given.
    """

    scenario: FunctionsScenario
    tree: Tree
    trace: Invocations
    sites: tuple[Site, ...]
    notes: tuple[str, ...]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node of every region."""
        return tuple(
            Node(f"{site.name}/{i}", r, site.group.device.memory, site.group.limit)
            for r, site in enumerate(self.sites) for i in range(site.group.count)
        )  # fmt: skip

    @cached_property
    def nodes_region(self) -> NDArray[np.int32]:
        """i4[N], the region of each node."""
        return np.array([node.region for node in self.nodes], np.int32)

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """f8[regions, regions], s to another region and back."""
        away = np.array([site.distance for site in self.sites])
        found = np.broadcast_to(away, (len(away), len(away))).copy()
        np.fill_diagonal(found, 0.0)
        return found

    def scale(self, choice: Any, path: str = "plan.scale") -> scale.Policy:
        """Returns the scale policy that a table or a name describes.

        Raises:
            SpecError: unknown, or a class that decides nothing.
        """
        found: scale.Policy = build(scale, choice, path, methods=("decide",))
        return found

    def route(self, choice: Any, path: str = "plan.route") -> route.Policy:
        """Returns the route policy that a table or a name describes.

        Raises:
            SpecError: unknown, or a class that picks nothing.
        """
        found: route.Policy = build(route, choice, path, methods=("pick",))
        return found


def setting(scenario: FunctionsScenario, tree: Tree | None = None) -> Setting:
    """Returns the scenario with its trace read and its names looked up.

    Args:
        scenario: as it was read.
        tree: another fleet than the scenario's; None = its own.

    Raises:
        SpecError: no such file, an unknown name, a malformed trace.
        Infeasible: a function's pod fits no node of its region.
    """
    tree = resolve(scenario.fleet, Path(scenario.folder)) if tree is None else tree
    trace = scenario.workload.read(scenario.seed, scenario.folder)
    sites = _sites(scenario, tree)
    if sum(site.group.count for site in sites) > MOST_NODES:
        raise SpecError("fleet", "has too many nodes", value=tree.devices, limit=f"at most {MOST_NODES:,}",
                        hint="Name groups in workload.regions")  # fmt: skip
    trace = _onto(trace, sites)
    _check_memory(trace, sites)
    return Setting(scenario, tree, trace, sites, _notes(scenario, trace, sites, tree))


def _sites(scenario: FunctionsScenario, tree: Tree) -> tuple[Site, ...]:
    said = scenario.workload.regions or tuple(Region(name=group.name, on=group.name) for group in tree.groups)
    if len(said) > len(tree.groups) and not all(region.on for region in said):
        raise SpecError(
            "workload.regions", "are more than the fleet's groups", value=len(said),
            limit=f"{len(tree.groups)} groups: {', '.join(group.name for group in tree.groups[:12])}",
            hint='Say of each on which group it is: on = "..."',
        )  # fmt: skip
    found = []
    for i, region in enumerate(said):
        path = f"workload.regions[{i}]"
        group = tree.group(region.on, f"{path}.on") if region.on else tree.groups[i]
        grid = (
            constant(0.0, "sun and battery")
            if region.solar
            else signal(tree.grid if region.grid is None else region.grid, tree.base, f"{path}.grid")
        )
        found.append(Site(region.name, group, grid, region.distance, _sun(region, group, tree, path)))
    taken: dict[str, str] = {}
    for i, site in enumerate(found):
        if site.group.name in taken:
            raise SpecError(
                f"workload.regions[{i}].on", f"is the group of region {taken[site.group.name]} too",
                value=site.group.name, limit="a group each", hint="Cut the fleet into a group for each region",
            )  # fmt: skip
        taken[site.group.name] = site.name
    return tuple(found)


def _sun(region: Region, group: Group, tree: Tree, path: str) -> Sun | None:
    """What a region's nodes live on that have no grid."""
    if not region.solar:
        return None
    if region.grid is not None:
        raise SpecError(f"{path}.solar", "is said beside a grid", value=region.solar, limit="one of both",
                        hint="Nodes on sun and battery have no grid: leave grid out")  # fmt: skip
    power = group.device.power
    return Sun(
        sun(region.solar, tree.base, f"{path}.solar"), region.panel, region.battery, region.reserve,
        (power.idle + tree.host_power) * tree.pue, (group.limit + tree.host_power) * tree.pue,
    )  # fmt: skip


def _onto(trace: Invocations, sites: tuple[Site, ...]) -> Invocations:
    """Returns the trace on the scenario's regions: by name where all are known, else in turn."""
    names = [site.name for site in sites]
    if set(trace.regions) <= set(names):
        to = np.array([names.index(region) for region in trace.regions])
        region = to[trace.region]
    elif len(trace.regions) > 1:
        region = trace.region % len(sites)
    else:  # a trace without regions: its functions in turn
        region = np.arange(len(trace.names)) % len(sites)
    return replace(trace, region=region.astype(np.int32), regions=tuple(names))


def _check_memory(trace: Invocations, sites: tuple[Site, ...]) -> None:
    room = np.array([site.group.device.memory for site in sites])[trace.region]
    short = np.flatnonzero((trace.memory > room) & (np.diff(trace.first) > 0))
    if len(short):
        f = int(short[np.argmax(trace.memory[short])])
        site = sites[int(trace.region[f])]
        raise Infeasible(
            f"function {trace.names[f]}: memory of a pod on a node of region {site.name} ({site.group.device.id})",
            need=float(trace.memory[f]), have=site.group.device.memory, unit="B",
            hint="Give the region a larger node, or the function less memory",
        )  # fmt: skip


def _notes(
    scenario: FunctionsScenario, trace: Invocations, sites: tuple[Site, ...], tree: Tree
) -> tuple[str, ...]:  # fmt: skip
    found = [f"the trace: {trace.source}"]
    if scenario.workload.start is None and "synthetic" not in trace.source:
        found.append(
            "starts are drawn from the published fit, 3.24 s on average; how it is shared among parts is ours: say "
            "workload.start where you have measured"
        )
    if scenario.plan.routes:
        total = sum(site.group.count * site.group.device.memory for site in sites)
        found.append(f"{sum(site.group.count for site in sites):,} nodes hold pods of {show(total, 'B')} in all")
    else:
        found.append("every region has memory for all pods: say plan.route for nodes that fill up")
    found.append(
        "a pod pays for the share of its node's memory that it holds: idle power and price as long as it lives, the "
        "rest of the node's power while it runs; what no pod holds is charged to nobody"
    )
    return (*found, *tree.echo())
