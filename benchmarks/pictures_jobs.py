"""Draws a fleet with many jobs over time: devices at work and devices waited for, from the packaged example."""

from __future__ import annotations

import numpy as np

import fleetcast
from fleetcast.policy.place.gangs import BestFit
from fleetcast.policy.share import Fifo, Las, Srtf
from fleetcast.scenario.load import JobsScenario
from fleetcast.sim.cluster.fast import play
from fleetcast.sim.cluster.setting import setting
from fleetcast.view import svg

POINTS = 200


def jobs_queue() -> str:
    """Draws both curves under three policies."""
    scenario = fleetcast.load("jobs")
    assert isinstance(scenario, JobsScenario)
    state = setting(scenario)
    policies: tuple[Fifo | Srtf | Las, ...] = (Fifo(), Srtf(), Las())
    runs = [play(state.jobs, state.nodes, state.pace, policy, BestFit(), state.rules) for policy in policies]
    end = max(float(run.finish.max()) for run in runs)
    edges = np.linspace(0.0, end, POINTS + 1)
    parts, x, each = list[str](), svg.Scale(0.0, end / 3600.0, 60, 720), 120
    shown = [(_means(*run.busy(), edges), _means(*run.queue(state.jobs), edges)) for run in runs]
    most = max(float(queue.max()) for _, queue in shown)
    for i, (policy, run, (busy, queue)) in enumerate(zip(policies, runs, shown, strict=True)):
        low = 30 + (i + 1) * (each + 36) - 36
        y = svg.Scale(0.0, max(most, state.nodes.total), low, low - each)
        mean = float((run.finish - state.jobs.arrival).mean()) / 3600.0
        parts.append(svg.text(60, low - each - 8, f"{policy.kind}: {mean:.2f} h a job", "said"))
        for values, kind in ((busy, "part c0"), (queue, "part c1")):
            wide = (x(edges[1] / 3600.0) - x(0.0)) * (1.0 if kind == "part c0" else 0.4)
            for at, value in zip(edges[:-1].tolist(), values.tolist(), strict=True):
                if value > 0.05:
                    parts.append(svg.rect(x(at / 3600.0), y(value), wide, low - y(value), kind))
        parts += [svg.text(52, y(tick) + 4, f"{tick:,.0f}", "tick", "end") for tick in y.ticks(3)]
    bottom = 30 + 3 * (each + 36) - 36
    parts += [svg.text(x(tick), bottom + 16, f"{tick:g} h", "tick", "middle") for tick in x.ticks(8)]
    for at, said, kind in ((60, "devices at work", "part c0"), (240, "devices that waiting jobs ask for", "part c1")):
        parts += [svg.rect(at, bottom + 30, 12, 12, kind), svg.text(at + 18, bottom + 41, said, "tick")]
    return svg.figure(740, bottom + 50, parts, "devices at work and waited for over time under three share policies")


def _means(times: np.ndarray, heights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Returns the means of a step function over stretches of time."""
    area = np.r_[0.0, np.cumsum(heights[:-1] * np.diff(times))]
    found: np.ndarray = np.diff(np.interp(edges, times, area)) / np.diff(edges)
    return found
