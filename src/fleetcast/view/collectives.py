"""`fleetcast collective`: what an all-reduce takes on a fleet, by algorithm, and the plan that GenTree finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetcast.view import terminal, verbs
from fleetcast.view.terminal import DEFAULTS, Common, File

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleetcast.search.collectives import Plan

FLOWS = 128
"""Devices up to which plans also run flow by flow over shared links."""
NAMES = {"ring": "ring", "rhd": "halving and doubling", "cps": "co-located servers"}


def collective(file: File, /, *, size: str = "1 GiB", on: str = "", common: Common = DEFAULTS) -> int:
    """Find the fastest all-reduce on a scenario's fleet, beside ring, halving and doubling, and servers.

    Parameters
    ----------
    size:
        Of the buffer on each device.
    on:
        A group of the fleet; default all devices.
    """
    from fleetcast.base.errors import SpecError
    from fleetcast.base.units import parse
    from fleetcast.scenario.fleet.tree import resolve
    from fleetcast.search.collectives.fleets import curve_time, joined

    length = parse(size, "B", "--size")
    if length <= 0:
        raise SpecError("--size", "cannot be", value=size, limit="bytes above 0", hint='Write e.g. --size "64 MiB"')
    scenario = verbs.load(terminal.load(file, common), seed=common.seed)
    tree = resolve(scenario.fleet, Path(scenario.folder))
    found = joined(tree, on)
    with terminal.progress("planning switches", common) as step:
        rows = priced(found.topology, found.parameters, length, step)
    table = {
        "size": length, "ranks": found.topology.hosts, "algorithms": [_row(*row) for row in rows],
        "plan": rows[0][1].table(), "notes": list(found.notes),
    }  # fmt: skip
    if on or len(tree.groups) == 1:
        group = tree.group(on, "--on") if on else tree.groups[0]
        table["forecast"] = curve_time(group, length)
    terminal.answer(common, table, lambda _: _view(table))
    return 0


def priced(topology: Any, parameters: Any, size: float, progress: Any = None) -> list[tuple[str, Plan, float, float]]:
    """Returns (name, plan, s by alpha and beta alone, s flow by flow or nan), GenTree's plan first."""
    from fleetcast.search.collectives import PEERS, peer, plan
    from fleetcast.search.collectives.gentree import time_of
    from fleetcast.sim.network.world import all_reduce

    plans = {"GenTree": plan(topology, size, parameters, progress=progress)}
    plans |= {NAMES[name]: peer(name, topology, size, parameters) for name in PEERS}
    plain = replace(parameters, gamma=0.0, delta=0.0, epsilon=0.0)
    rows = []
    for name, found in plans.items():
        flows = float("nan")
        if topology.hosts <= FLOWS:
            flows = all_reduce(found.block, topology, size / found.cells, parameters).time
        rows.append((name, found, time_of(replace(found, parameters=plain)), flows))
    return rows


def _row(name: str, plan: Plan, plain: float, flows: float) -> dict[str, Any]:
    from fleetcast.search.collectives.gentree import rounds

    return {
        "name": name, "time": plan.time, "alpha_beta": plain, "flows": flows if flows == flows else None,
        "rounds": rounds(plan.block),
    }  # fmt: skip


def _view(table: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from fleetcast.base.show import show
    from fleetcast.view.tables import rows_table

    best = table["algorithms"][0]["time"]
    ranks = table["ranks"]
    moved = 2.0 * (ranks - 1) / ranks * table["size"]
    rows = [
        (
            row["name"], show(row["time"], "s"), f"{row['time'] / best:.2f}x", show(moved / row["time"], "B/s"),
            str(row["rounds"]), show(row["alpha_beta"], "s"), show(row["flows"], "s") if row["flows"] else "-",
        )
        for row in table["algorithms"]
    ]  # fmt: skip
    heads = ("All-reduce", "Time", "Beside", "Bus", "Rounds", "Alpha-beta", "Flows")
    blocks: list[RenderableType] = [
        Text(f"{show(table['size'], 'B')} on each of {ranks} devices", style="bold"), Text(),
        rows_table(heads, rows, right=range(1, len(heads))), Text(),
        Text("Plan", style="bold"),
    ]  # fmt: skip
    for stage in table["plan"]["stages"]:
        groups = f"{stage['groups']} switches, each: " if stage["groups"] > 1 else ""
        blocks.append(Text(f"  • {groups}{told(stage['how'])}"))
    blocks += [Text("  • then the same way back"), Text(), Text("Taken as given", style="bold")]
    if "forecast" in table:
        said = "what forecasts of serving and training take, from measured curves"
        blocks.append(Text(f"  • {show(table['forecast'], 's')}: {said}"))
    blocks += [Text(f"  • {note}") for note in table["notes"]]
    return Group(*blocks)


def told(how: str) -> str:
    """Returns what a stage does, in words.

    Example:
        >>> told("4x6"), told("8"), told("ring")
        ('stages of fan-in 4, 6', 'all at once, fan-in 8', 'ring')
    """
    if "x" in how:
        return f"stages of fan-in {how.replace('x', ', ')}"
    return f"all at once, fan-in {how}" if how.isdigit() else how
