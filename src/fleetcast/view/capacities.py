"""`fleetcast capacity`: the highest load a fleet holds, the devices a load needs, what a budget carries."""

from __future__ import annotations

from typing import Any, Literal

from fleetcast.scenario.load import ServingScenario
from fleetcast.view import sizing, terminal
from fleetcast.view.terminal import DEFAULTS, Common, File


def capacity(
    file: File,
    /,
    *,
    of: Literal["rate", "devices", "servers", "pools"] = "rate",
    kinds: str = "",
    most: int = 256,
    common: Common = DEFAULTS,
) -> int:
    """Find the highest load the fleet holds, the devices a load needs, or what a budget carries.

    Parameters
    ----------
    of:
        What to look for: within the SLO "rate" (of a closed loop, or of tiers: users) or "devices"; "servers" under
        fleet.budget, by power policy; "pools" that hold most at equal power (fleet.budget) and cost (fleet.spend).
    kinds:
        With --of devices: which kinds of device, e.g. h100-sxm,l40s; default those of the fleet.
    most:
        With --of devices: the largest fleet tried.
    """
    scenario = terminal.serving(file, common, "capacity")
    if of == "servers":
        return _servers(scenario, common)
    if of == "pools":
        return _pools(scenario, common)
    if of == "devices":
        names = [name.strip() for name in kinds.split(",") if name.strip()]
        with terminal.progress("trying fleets", common):
            needs = sizing.devices_needed(scenario, names, most=most)
        table = {"needs": [need.table() for need in needs]}
        terminal.answer(common, table, lambda width: terminal.tables().needs_view(scenario, needs, width))
        return 0 if any(need.devices is not None for need in needs) else 1
    arrivals = scenario.workload.arrivals
    closed = scenario.workload.exits is not None or (arrivals is not None and arrivals.kind == "closed")
    with terminal.progress("trying loads", common):
        held = sizing.max_users(scenario) if closed else sizing.max_rate(scenario)
    terminal.answer(common, held.table(), lambda width: terminal.tables().held_view(scenario, held, width))
    return 0 if held.outcome is not None else 1


def _servers(scenario: ServingScenario, common: Common) -> int:
    with terminal.progress("trying rows of servers", common) as step:
        room = sizing.servers_under(scenario, progress=step)

    def view(width: int) -> Any:
        from fleetcast.view.power import room_view

        return room_view(scenario, room, width)

    terminal.answer(common, room.table(), view)
    return 0 if any(held.servers for held in room.held) else 1


def _pools(scenario: ServingScenario, common: Common) -> int:
    with terminal.progress("racing pools", common) as step:
        found = sizing.best_pools(scenario, progress=step)

    def view(width: int) -> Any:
        from fleetcast.view.pools import sizing_view

        return sizing_view(scenario, found, width)

    terminal.answer(common, found.table(), view)
    return 0 if any(row.best is not None for row in found.rows) else 1
