"""Draws fleets whose links differ, and where the step of a counted job goes: from the packaged examples."""

from __future__ import annotations

from dataclasses import replace

import msgspec

import fleetcast
from benchmarks.unlike_fleets import SHARDS
from fleetcast.cost.breakdown import TERMS
from fleetcast.scenario.load import TrainingScenario
from fleetcast.sim.training.setting import setting
from fleetcast.sim.training.world import simulate
from fleetcast.view import svg
from fleetcast.view.training import terms

Shown = dict[str, list[tuple[float, float]]]
FASTER = (1.0, 1.5, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""Gb/s of a device."""


def clusters_between() -> tuple[list[str], svg.Scale, svg.Scale, Shown]:
    """Returns the speed of the example of two clusters over the link that joins them, by who places."""
    shown: Shown = {}
    for place, name in (("nic_aware", "only pipelines cross"), ("blind", "all on the joining link")):
        scenario = fleetcast.load("training-clusters")
        assert isinstance(scenario, TrainingScenario)
        state = setting(scenario.with_plan(msgspec.structs.replace(scenario.plan, place=place)))
        for speed in FASTER:
            join = msgspec.structs.replace(state.tree.joins[()], bandwidth=speed * 1e9 / 8)
            found = simulate(setting(state.scenario, replace(state.tree, joins={**state.tree.joins, (): join})))
            shown.setdefault(name, []).append((speed * 1e9 / 8, found.metrics["throughput"] / 1e3))
    x, y = svg.Scale(0.1e9, 15e9, 60, 540, log=True), svg.Scale(0.0, 240.0, 262, 30)
    return svg.axes(x, y, "B/s", "", "between the clusters, of each device", "1,000 tokens/s"), x, y, shown


def levels_network() -> tuple[list[str], svg.Scale, svg.Scale, Shown]:
    """Returns an iteration of the example of shares by level over its network, by what is shared."""
    table, shown = fleetcast.load("training-levels").table(), Shown()
    for name in ("ZeRO-3", "ZeRO++", "three levels"):
        for speed in (12.5, 25, 50, 100, 200, 400):
            fleet = table["fleet"] | {"links": {"inter": f"{speed} Gb/s"}}
            found = fleetcast.simulate(table | {"fleet": fleet, "plan": table["plan"] | {"shards": SHARDS[name]}})
            shown.setdefault(name, []).append((speed * 1e9 / 8, found.metrics["iteration_time"]))
    x, y = svg.Scale(1.5e9, 55e9, 60, 590, log=True), svg.Scale(0.0, 80.0, 262, 30)
    return svg.axes(x, y, "B/s", "s", "between nodes, of each die", "an iteration"), x, y, shown


def counted_step() -> str:
    """Draws the step of the example of a counted job by term, on the network as it is and on faster ones."""
    table = fleetcast.load("training-counted").table()
    rows = [
        (f"{name}, {speed} Gb/s", fleetcast.simulate(
            table | {"fleet": table["fleet"] | {"links": {"inter": f"{speed} Gb/s"}}, "plan": {"placement": name}}
        ).metrics["breakdown"])
        for name in ("parameter-server", "all-reduce-cluster") for speed in (25, 50, 100)
    ]  # fmt: skip
    longest = max(sum(row.values()) for _, row in rows)
    x = svg.Scale(0.0, 1.05 * longest, 210, 720)
    body = svg.axes(x, svg.Scale(0.0, 1.0, 40 + 30 * len(rows), 30), "s", "", "a step", "")
    body = [piece for piece in body if 'class="grid"' not in piece and 'text-anchor="end"' not in piece]
    for i, (name, row) in enumerate(rows):
        top, start = 36 + 30 * i, 0.0
        body.append(svg.text(200, top + 14, name, "tick", "end"))
        for j, term in enumerate(TERMS):
            tip = f"{terms.term(term)}: {row[term] * 1e3:.0f} ms"
            body.append(svg.rect(x(start), top, x(start + row[term]) - x(start), 20, f"part c{j}", tip))
            start += row[term]
    for j, term in enumerate(TERMS):
        at, low = 210 + 110 * j, 40 + 30 * len(rows) + 56
        body += [svg.rect(at, low, 12, 12, f"part c{j}"), svg.text(at + 18, low + 10, terms.term(term), "tick")]
    return svg.figure(750, 40 + 30 * len(rows) + 76, body, "a step by term, on three networks and two placements")
