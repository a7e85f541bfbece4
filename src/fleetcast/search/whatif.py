"""Which upgrade would pay: one resource of a training fleet twice as fast, all else as it is.

Wang and others, "Characterizing Deep Learning Training Workloads on Alibaba-PAI" (IISWC 2019), ask it of every job: a
resource pays where the step's time is. Networks are keys of a scenario file; what a device multiplies, how fast its
memory is and how much it has are not, so that the fleet itself is changed. Links to the host go up a generation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from fleetcast.base.errors import Infeasible
from fleetcast.scenario.fleet.devices import Device
from fleetcast.scenario.fleet.tree import Tree, resolve
from fleetcast.scenario.load import TrainingScenario
from fleetcast.scenario.outcome import Outcome
from fleetcast.search.training import placements, planner
from fleetcast.sim.training import world
from fleetcast.sim.training.setting import setting

TWICE = 2.0
HOST = {"pcie-3": "pcie-4", "pcie-4": "pcie-5"}
"""The next generation of a link to the host."""


def _peak(device: Device) -> Device:
    return msgspec.structs.replace(device, peak={name: TWICE * rate for name, rate in device.peak.items()})


def _bandwidth(device: Device) -> Device:
    return msgspec.structs.replace(device, bandwidth=TWICE * device.bandwidth)


def _memory(device: Device) -> Device:
    return msgspec.structs.replace(device, memory=int(TWICE * device.memory))


def _host(device: Device) -> Device:
    return msgspec.structs.replace(device, host_link=HOST.get(device.host_link, device.host_link))


DEVICES: dict[str, Callable[[Device], Device]] = {
    "device.peak": _peak, "device.bandwidth": _bandwidth, "device.memory": _memory, "device.host_link": _host,
}  # fmt: skip
"""What of a device is changed, by name."""


def changed(tree: Tree, what: str) -> Tree | None:
    """Returns the fleet with that of every device changed; None where there is nothing to change.

    Args:
        tree: the fleet.
        what: a key of `DEVICES`.
    """
    groups = tuple(replace(group, device=DEVICES[what](group.device)) for group in tree.groups)
    return None if groups == tree.groups else replace(tree, groups=groups)


def upgrades(scenario: TrainingScenario, *, search: bool) -> list[tuple[str, str, Outcome | None]]:
    """Returns (what, how much, outcome) of each change of a device; no outcome where no plan fits.

    Args:
        scenario: as it was read.
        search: whether its plan is searched anew; else it is simulated as it is.
    """
    own = resolve(scenario.fleet, Path(scenario.folder))
    found: list[tuple[str, str, Outcome | None]] = []
    for what in DEVICES:
        if scenario.workload.features is not None and what == "device.memory":
            continue  # counts say nothing of it
        tree = changed(own, what)
        if tree is not None:
            much = tree.groups[0].device.host_link if what == "device.host_link" else "x2"
            found.append((what, much, _outcome(scenario, tree, search)))
    return found


def _outcome(scenario: TrainingScenario, tree: Tree, search: bool) -> Outcome | None:
    if scenario.workload.features is not None:
        return placements.search(scenario, top=1, tree=tree).best
    state = setting(scenario, tree)
    try:
        return planner.search(state, top=1).best if search else world.simulate(state)
    except Infeasible:
        return None
