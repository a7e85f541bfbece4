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


LOOKS = {
    "fixed, 10 to 600 s": ("series s0", ""), "histogram": ("series s0", "5 4"), "timers foreseen": ("series s1", ""),
    "priced": ("series s2", ""), "clairvoyant keep-alive": ("limit", ""),
}  # fmt: skip
"""The class of each line, and its dashes where they are not the class's."""


def cold_starts() -> str:
    """Draws cold starts an hour and region against pods that live at a time, for each policy, of seed 10."""
    shown = curves()
    x, y = svg.Scale(20.0, 380.0, 60, 720, log=True), svg.Scale(0.0, 5500.0, 262, 30)
    body = svg.axes(x, y, "", "", "pods that live at a time, mean of a region", "cold starts an hour")
    for row, (name, (kind, dashes)) in enumerate(LOOKS.items()):
        points = [(x(a), y(b)) for a, b in shown[name] if x.low <= a <= x.high and b <= y.high]
        at = 44.0 + 18 * row
        for line in (svg.path(points, kind), svg.line(500, at, 530, at, kind)):
            opening = line.split(" ")[0]
            body.append(line.replace(opening, f'{opening} style="fill:none;stroke-dasharray:{dashes or "none"}"', 1)
                        if kind != "limit" else line.replace(opening, f'{opening} style="fill:none"', 1))  # fmt: skip
        body.append(svg.text(538, at + 4, name, "said"))
        if kind != "limit":
            body += [svg.dot(a, b, 3, f"mark {kind.split()[-1]}") for a, b in points]
    return svg.figure(750, 310, body, "cold starts against pods, by policy")


def curves() -> Shown:
    """Returns (pods that live at a time, cold starts an hour), both means of a region, for each policy."""
    trace = Synthetic(steady=1.0).invocations(10)
    hours = trace.span / 3600.0 * len(trace.regions)
    shown: Shown = {}
    for name, (make, values) in POLICIES.items():
        for value in values:
            pods = play(trace, make(value))
            shown.setdefault(name, []).append((pods.seconds.sum() / hours / 3600.0, pods.cold / hours))
    seconds, cold = bound(trace).curve(2000)
    points = [(s / hours / 3600.0, c / hours) for s, c in zip(seconds.tolist(), cold.tolist(), strict=True)]
    rising: list[
        tuple[float, float]
    ] = []  # gaps that cost less than the starts that they save come first: the curve turns
    for point in reversed(points):
        if not rising or point[0] < rising[-1][0]:
            rising.append(point)
    shown["clairvoyant keep-alive"] = rising[::-1]
    return shown
