"""What pictures of many jobs show, as values, and their drawing: devices at work and the queue over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fleetcast.view import svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fleetcast.scenario.outcome import Outcome

POINTS = 240


@dataclass(frozen=True)
class FleetInfo:
    """A fleet over time.

    Attributes:
        name: of the plan, "" = there is one alone.
        hours: f8[n + 1], edges of equal stretches of time.
        busy: f8[n], mean devices at work in each.
        devices: in all.
    """

    name: str
    hours: NDArray[np.float64]
    busy: NDArray[np.float64]
    devices: int


def fleet_info(outcome: Outcome, name: str, points: int = POINTS) -> FleetInfo:
    """Returns devices at work over time, of an outcome that has its record."""
    record = outcome.record
    assert record is not None, "the record was asked for"
    start, end = float(record.time.min()), float((record.time + record.duration).max())
    edges = np.linspace(start, end, points + 1)
    when, where = np.unique(np.r_[record.time, record.time + record.duration], return_inverse=True)
    change = np.bincount(where, np.r_[record.count, -record.count].astype(float), len(when))
    held = np.cumsum(change)
    area = np.r_[0.0, np.cumsum(held[:-1] * np.diff(when))]
    busy = np.diff(np.interp(edges, when, area)) / np.diff(edges)
    return FleetInfo(name, (edges - start) / 3600.0, busy, int(outcome.metrics["devices"]))


def draw(infos: Sequence[FleetInfo]) -> str:
    """Returns an SVG with a panel for each fleet: devices at work over hours, below the line of all devices."""
    width, height, left, top = 720, 120, 70, 24
    last = max(float(info.hours[-1]) for info in infos)
    parts = []
    for i, info in enumerate(infos):
        low = top + (i + 1) * (height + 34) - 34
        x = svg.Scale(0.0, last, left, width - 10)
        y = svg.Scale(0.0, float(info.devices), low, low - height)
        steps = [
            f"L{x(float(a)):.1f},{y(float(v)):.1f}L{x(float(b)):.1f},{y(float(v)):.1f}"
            for a, b, v in zip(info.hours, info.hours[1:], info.busy, strict=False)
        ]
        area = f"M{x(float(info.hours[0])):.1f},{low}" + "".join(steps) + f"L{x(float(info.hours[-1])):.1f},{low}Z"
        parts.append(f'<path d="{area}" fill="var(--blue, #4a7ab5)" fill-opacity="0.75"/>')
        parts.append(
            f'<path d="M{left},{y(info.devices):.1f}H{width - 10}" stroke="var(--ink)" stroke-dasharray="3 3"/>'
        )
        parts.append(f'<path d="M{left},{low}H{width - 10}" stroke="var(--ink)" fill="none"/>')
        for tick in y.ticks(3):
            parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:,.0f}</text>')
        if info.name:
            parts.append(f'<text x="{left}" y="{low - height - 8}">{info.name}</text>')
        if i == len(infos) - 1:
            for tick in x.ticks(8):
                parts.append(f'<text x="{x(tick):.1f}" y="{low + 18}" text-anchor="middle">{tick:,.4g} h</text>')
    whole = top + len(infos) * (height + 34)
    said = "devices at work over time"
    return f'<svg viewBox="0 0 {width} {whole}" role="img" aria-label="{said}">{"".join(parts)}</svg>'
