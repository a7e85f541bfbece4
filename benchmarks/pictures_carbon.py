"""Draws where and when jobs run on two grids: devices at work by zone over the carbon of its grid, three policies."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

import fleetcast
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import Edf, Green, Policy
from fleetcast.scenario.load import JobsScenario
from fleetcast.sim.cluster.fast import play
from fleetcast.sim.cluster.run import Run
from fleetcast.sim.cluster.setting import Setting, setting
from fleetcast.view import svg

HOURS = 132
POLICIES: dict[str, Policy] = {
    "at once, earliest deadline first": Edf(), "best start and place": Green(),
    "cheapest hours and places": Green(interrupt=True, step=3600.0),
}  # fmt: skip


@dataclass(frozen=True)
class Zone:
    """A zone under a policy: mean devices at work in each hour, g/kWh in each."""

    name: str
    busy: NDArray[np.float64]
    carbon: NDArray[np.float64]


def zones(state: Setting, run: Run) -> list[Zone]:
    """Returns what happens in each zone, hour by hour."""
    hours = 3600.0 * np.arange(HOURS + 1)
    found = []
    for kind, each in enumerate(state.nodes.kinds):
        mine = run.kind == kind
        inside = np.minimum(run.end[mine, None], hours[None, 1:]) - np.maximum(run.begin[mine, None], hours[None, :-1])
        busy = (np.clip(inside, 0.0, None) * run.devices[mine, None]).sum(axis=0) / 3600.0
        signal = state.grids.true[kind]
        carbon = [signal.mean(a, b) for a, b in pairwise(hours.tolist())]
        found.append(Zone(each.name.partition(" ")[0], busy, np.array(carbon)))
    return found


def clean_hours() -> str:
    """Draws both grids' carbon, and below it a panel for each policy: both zones' devices at work."""
    scenario = fleetcast.load("green-jobs")
    assert isinstance(scenario, JobsScenario)
    state = setting(scenario)
    power = [kind.power for kind in state.nodes.kinds]
    runs = {
        name: play(state.jobs, state.nodes, state.pace, policy, BestFit(), state.rules)
        for name, policy in POLICIES.items()
    }
    x, low = svg.Scale(0.0, float(HOURS), 60, 720), 120
    g = svg.Scale(0.0, 500.0, low, 30)
    parts = [svg.text(60, 20, "carbon of the grids, g/kWh", "said")]
    parts += [svg.text(52, g(tick) + 4, f"{tick:,.0f}", "tick", "end") for tick in g.ticks(3)]
    for k, zone in enumerate(zones(state, runs[next(iter(runs))])):
        points = [(x(hour + 0.5), g(value)) for hour, value in enumerate(zone.carbon.tolist())]
        parts.append(svg.path(points, f"series s{k + 1}").replace("<path ", '<path style="fill:none" ', 1))
        parts += [svg.rect(560 + 80 * k, 10, 12, 12, f"part c{k}"), svg.text(578 + 80 * k, 21, zone.name, "tick")]
    for name, run in runs.items():
        low += 126
        y, wide = svg.Scale(0.0, 16.0, low, low - 90), (x(1.0) - x(0.0)) / 2
        grams = float(state.grids.grams(run, power).sum()) / 1000.0
        parts.append(svg.text(60, low - 98, f"devices at work, {name}: {grams:.0f} kg of work", "said"))
        parts += [svg.text(52, y(tick) + 4, f"{tick:,.0f}", "tick", "end") for tick in y.ticks(3)]
        for k, zone in enumerate(zones(state, run)):
            for hour, value in enumerate(zone.busy.tolist()):
                if value > 0.05:
                    parts.append(svg.rect(x(hour) + k * wide, y(value), wide, low - y(value), f"part c{k}"))
    parts += [svg.text(x(tick), low + 16, f"{tick:g} h", "tick", "middle") for tick in x.ticks(8)]
    return svg.figure(740, low + 24, parts, "carbon of two grids, and devices at work in both zones by policy")
