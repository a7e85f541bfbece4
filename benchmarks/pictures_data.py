"""Draws where reading data where it lies is worth it, from the cost model and the settings of `data_inputs.toml`."""

from __future__ import annotations

import math

from benchmarks.data import INPUTS
from fleetcast.cost import data as cost
from fleetcast.view import svg

SHARES = ((0.0, "opened only"), (0.1, "10 % read"), (0.2, "20 % read"), (0.3, "30 % read"))
COLUMNS, ROWS = 60, 120


def mounts_region() -> str:
    """Draws the smallest file for which a mount is 4.7 times quicker than a staged copy, over the round trip."""
    given = INPUTS["sweep"]
    x, y = svg.Scale(min(given["rtt"]), max(given["rtt"]), 70, 600, log=True), svg.Scale(1e6, 1e10, 290, 40, log=True)
    body = svg.axes(x, y, "s", "B", "round trip of each path", "size of the file")
    before = (-math.inf, 0.0)
    for kind, (share, name) in enumerate(SHARES):
        points = [(rtt, size) for rtt in _spread(x.low, x.high, COLUMNS) if (size := _smallest(rtt, share)) is not None]
        if not points:
            continue
        body.append(svg.path([(x(rtt), y(size)) for rtt, size in points], f"series s{kind}"))
        right, low = x(points[-1][0]), y(points[-1][1]) + 4
        before = right, min(low, before[1] - 16) if abs(right - before[0]) < 60 and low > before[1] - 16 else low
        body.append(svg.text(before[0] + 8, before[1], name, "said"))
    body.append(svg.text(84, 58, f"above a line: at least {given['gain']:g} times quicker than a staged copy", "tick"))
    return svg.figure(750, 340, body, "where a mount is 4.7 times quicker than a staged copy, by share that is read")


def _spread(low: float, high: float, count: int) -> list[float]:
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]


def _smallest(rtt: float, share: float) -> float | None:
    """The smallest size from which on the gain holds for all larger ones; None where it holds for none."""
    given, found = INPUTS["sweep"], None
    path = cost.Path(given["bandwidth"], rtt, given["window"])
    for size in reversed(_spread(1e6, 1e10, ROWS)):
        slow = cost.staged(size, path, path).seconds()
        if slow < given["gain"] * cost.mounted(size, path, block=INPUTS["read"]["block"], share=share).seconds():
            break
        found = size
    return found
