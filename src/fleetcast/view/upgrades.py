"""The upgrades that one would ask about first, as changes of a scenario: links twice as fast, newer devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleetcast.scenario.fleet.catalog import devices
from fleetcast.scenario.fleet.tree import resolve
from fleetcast.scenario.load import Scenario

NEWER = ("a100-80g-sxm", "h100-sxm", "h200-sxm", "b200-sxm")
"""Devices that are set in the place of the fleet's, where they have more memory bandwidth."""


def upgrades(scenario: Scenario) -> list[dict[str, Any]]:
    """Returns one change per upgrade: path -> value.

    Links are asked about where the fleet has any; devices where it is one line of one kind.
    """
    if not scenario.fleet.devices and not scenario.fleet.groups:
        return []  # a stream's nodes are no devices
    tree = resolve(scenario.fleet, Path(scenario.folder))
    found: list[dict[str, Any]] = []
    if any(group.nodes > 1 for group in tree.groups) or len(tree.groups) > 1:
        network = max(group.network.bandwidth for group in tree.groups)
        found.append({"fleet.links.inter": _rate(2.0 * network)})
    if any(group.node > 1 for group in tree.groups):
        inside = max(group.link.bandwidth for group in tree.groups)
        found.append({"fleet.links.intra": _rate(2.0 * inside)})
    if len(tree.groups) == 1 and scenario.fleet.devices and not scenario.fleet.devices.endswith(".toml"):
        group, known = tree.groups[0], devices()
        for name in NEWER:
            if known[name].bandwidth > 1.05 * group.device.bandwidth:
                found.append({"fleet.devices": f"{group.count}x {name}"})
    return found


def _rate(bandwidth: float) -> str:
    return f"{bandwidth * 8 / 1e9:g} Gb/s"
