"""The picture of functions: cold starts against pod-seconds, policy by policy, beside the clairvoyant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleetcast.policy.scale import Fixed, Histogram, Priced, Timers
from fleetcast.scenario.workload.invocations.generators import Synthetic
from fleetcast.sim.functions.bound import bound
from fleetcast.sim.functions.world import play
from fleetcast.view import svg

Shown = dict[str, list[tuple[float, float]]]
KEEPS = (10, 20, 30, 60, 120, 300, 600)
POLICIES: dict[str, tuple[Callable[[float], Any], tuple[float, ...]]] = {
    "fixed, 10 to 600 s": (lambda keep: Fixed(keep=keep), KEEPS),
    "histogram": (lambda range_: Histogram(range=range_), (30, 60, 120, 240, 600, 1200, 2400)),
    "timers foreseen": (lambda keep: Timers(keep=keep), KEEPS),
    "priced": (lambda worth: Priced(worth=worth), (25, 50, 100, 200, 400, 800, 1600)),
}


def cold_starts() -> tuple[list[str], svg.Scale, svg.Scale, Shown]:
    """Returns cold starts an hour and region against pods that live at a time, for each policy, of seed 10."""
    trace = Synthetic(steady=1.0).invocations(10)
    hours = trace.span / 3600.0 * len(trace.regions)
    shown: Shown = {}
    for name, (make, values) in POLICIES.items():
        for value in values:
            pods = play(trace, make(value))
            shown.setdefault(name, []).append((pods.seconds.sum() / hours / 3600.0, pods.cold / hours))
    seconds, cold = bound(trace).curve(60)
    most = max(point[0] for point in shown["priced"])
    points = [(s / hours / 3600.0, c / hours) for s, c in zip(seconds.tolist(), cold.tolist(), strict=True)]
    shown["clairvoyant keep-alive"] = [p for p in points if 20 <= p[0] <= most and p[1] < 6000]
    x, y = svg.Scale(20.0, 380.0, 60, 560, log=True), svg.Scale(0.0, 5500.0, 262, 30)
    return svg.axes(x, y, "", "", "pods that live at a time, mean of a region", "cold starts an hour"), x, y, shown
