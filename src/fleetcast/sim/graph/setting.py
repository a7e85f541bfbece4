"""A graph scenario resolved: the graph read, the fleet looked up, both as one platform."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fleetcast.base.show import show
from fleetcast.base.spec import build
from fleetcast.cost.graphs import bounds
from fleetcast.cost.graphs.fleet import REACHED, rates, workers_of
from fleetcast.cost.graphs.platform import NONE, Platform
from fleetcast.policy.order import tasks
from fleetcast.scenario.fleet.signals import Signal, signal
from fleetcast.scenario.fleet.tree import Tree, resolve
from fleetcast.scenario.kinds.graph import GraphScenario
from fleetcast.scenario.workload.graphs import TaskGraph

DEFAULT = "heft"
"""The order of a plan that names none."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A graph scenario, resolved.

    Attributes:
        scenario: as it was read.
        tree: the fleet.
        graph: the tasks.
        platform: its workers and links.
        notes: what was taken as given.
    """

    scenario: GraphScenario
    tree: Tree
    graph: TaskGraph
    platform: Platform
    notes: tuple[str, ...]

    @cached_property
    def lower_bound(self) -> float:
        """Seconds that no schedule can beat."""
        return bounds.lower_bound(self.graph, self.platform)

    @cached_property
    def critical_path(self) -> float:
        """Seconds of the longest way, every task where it is quickest."""
        return bounds.critical_path(self.graph, self.platform)

    @cached_property
    def grid(self) -> Signal:
        """Carbon intensity over time."""
        return signal(self.tree.grid, self.tree.base)

    def policy(self, order: Any, path: str = "plan.order") -> tasks.Policy:
        """Returns the policy that a table or a name describes.

        Raises:
            SpecError: unknown, or a class that orders no tasks.
        """
        made: tasks.Policy = build(tasks, order, path, methods=("start", "push", "pop"))
        return made


def setting(scenario: GraphScenario, tree: Tree | None = None) -> Setting:
    """Returns the scenario with its graph read and its names looked up.

    Args:
        scenario: as it was read.
        tree: another fleet than the scenario's; None = its own.

    Raises:
        SpecError: no such file, an unknown name, a malformed graph.
        Infeasible: a task fits no device.
        Unsupported: a device does not multiply the workload's number format.
    """
    work = scenario.workload
    tree = resolve(scenario.fleet, Path(scenario.folder)) if tree is None else tree
    graph = work.read(scenario.seed, scenario.folder)
    platform = workers_of(
        graph, tree, dtype=work.dtype, speeds=work.speeds, seconds=work.seconds, parts=scenario.plan.workers,
        home=work.home,
    )  # fmt: skip
    platform.check(graph)
    return Setting(scenario, tree, graph, platform, _notes(scenario, tree, graph, platform))


def _notes(scenario: GraphScenario, tree: Tree, graph: TaskGraph, platform: Platform) -> tuple[str, ...]:
    work = scenario.workload
    found = [f"the graph: {graph.name}, {graph.source}"]
    open_ = [k for k in graph.kernels if k not in work.seconds]
    if graph.unit == "s" and open_:
        said = {d.id for d in (g.device for g in tree.groups)} - set(work.speeds)
        if said:
            found.append(
                f"{', '.join(sorted(said))} takes a task's time of the record: say in workload.speeds how much quicker "
                "a device is"
            )
    elif open_:
        known = rates()
        shares = {k: known.get(k, known[""]) for k in open_}
        told = ", ".join(f"{k} {r.cpu:.0%} and {r.other:.1%}" for k, r in list(shares.items())[:6])
        found.append(
            f"{work.dtype}, of whose dense peak a CPU and any other device reach: {told}; recalled or assumed, so give "
            "workload.seconds where you have measured"
        )
        if any(rate.intensity < float("inf") for rate in shares.values()):
            found.append(f"what memory binds reaches {REACHED:.0%} of its bandwidth; assumed")
    if platform.home == NONE and graph.inputs.any():
        total = show(float(graph.inputs.sum()), "B")
        found.append(f"{total} that tasks read from outside lie everywhere: name a group in workload.home")
    return (*found, *tree.echo())
