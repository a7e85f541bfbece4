"""Figures as inline SVG: each draws what its ``*_info`` in `figures` says and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from fleetcast.base.show import show
from fleetcast.view.figures import Curve, Point, Scatter, Timeline, Whole
from fleetcast.view.svg import (
    Scale,
    axes,
    dot,
    escape,
    figure,
    line,
    path,
    rect,
    scale,
    text,
    tick_text,
)
from fleetcast.view.words import TERMS, show_energy

WIDTH = 960.0
_LEFT, _RIGHT = 76.0, 20.0
_STATES = {
    "best": "best", "frontier": "on the frontier", "met": "meets the SLO", "missed": "misses the SLO",
}  # fmt: skip


def draw_scatter(info: Scatter) -> str:
    """Draws the plane of plans: limits as dashed lines, the frontier joined, the best marked and named."""
    height = 400.0
    xs = [p.x for p in info.points] + ([info.x_limit] if info.x_limit else [])
    ys = [p.y for p in info.points] + ([info.y_limit] if info.y_limit else [])
    x = scale(xs, _LEFT, WIDTH - _RIGHT)
    y = scale(ys, height - 52, 34)
    body = axes(x, y, info.x.unit, info.y.unit, info.x.name, info.y.name)
    if info.y_limit:
        body.append(rect(x.start, y.end, x.end - x.start, y(info.y_limit) - y.end, "beyond"))
        body.append(line(x.start, y(info.y_limit), x.end, y(info.y_limit), "limit"))
        name = f"limit {tick_text(info.y_limit, info.y.unit)}"
        body.append(text(x.end - 4, y(info.y_limit) - 6, name, "limit-name", "end"))
    if info.x_limit:
        body.append(line(x(info.x_limit), y.start, x(info.x_limit), y.end, "limit"))
    edge = sorted((p for p in info.points if p.state in ("frontier", "best")), key=lambda p: p.x)
    if len(edge) > 1:
        body.append(path([(x(p.x), y(p.y)) for p in edge], "frontier-line"))
    for point in info.points:
        radius = {"best": 7.0, "frontier": 5.0}.get(point.state, 3.6)
        tip = (
            f"{point.label}\n{info.x.name}: {tick_text(point.x, info.x.unit)}\n"
            f"{info.y.name}: {tick_text(point.y, info.y.unit)}\n{_STATES[point.state]}"
        )
        body.append(dot(x(point.x), y(point.y), radius, f"plan {point.state}", tip))
    body += _labels([(x(p.x), y(p.y), p) for p in reversed(info.points)], x)
    return figure(WIDTH, height, body, f"{len(info.points)} plans by {info.x.name} and {info.y.name}")


def scatter_key(info: Scatter) -> str:
    """Returns the legend of the plans' states that occur."""
    present = [s for s in _STATES if any(p.state == s for p in info.points)]
    return (
        '<p class="key">'
        + "".join(
            f'<span><svg viewBox="0 0 12 12"><circle cx="6" cy="6" r="5" class="plan {s}"/></svg>{_STATES[s]}</span>'
            for s in present
        )
        + "</p>"
    )


def draw_curve(info: Curve) -> str:
    """Draws a cumulative distribution with its limit and its p50 and p99."""
    width, height = 330.0, 236.0
    shown = [v for v, s in zip(info.value, info.share, strict=True) if s <= 0.999] or list(info.value)
    positive = [v for v in shown if v > 0] or [1e-3]
    x = scale(positive + ([info.limit] if info.limit else []), 44, width - 14)
    y = Scale(0.0, 1.0, height - 26, 34)
    body = axes(x, y, info.x.unit, "%", "", "")
    body.append(text(0, 13, info.x.name, "name"))
    if info.limit:
        body.append(line(x(info.limit), y.start, x(info.limit), y.end, "limit"))
        side = "end" if x(info.limit) > width * 0.72 else "start"
        shift = -5 if side == "end" else 5
        name = f"{info.limit_name} {tick_text(info.limit, info.x.unit)}"
        body.append(text(x(info.limit) + shift, y.start - 8, name, "limit-name", side))
    places = [(x(v), y(s)) for v, s in zip(info.value, info.share, strict=True) if v >= x.low]
    body.append(path([(places[0][0], y(0.0)), *places] if places else [], "curve"))
    for name, value, share in info.marks:
        said = f"{name} {tick_text(value, info.x.unit)}"
        body.append(dot(x(value), y(share), 4, "mark", said))
        left = x(value) > width * 0.62
        body.append(
            text(
                x(value) + (-9 if left else 9),
                y(share) + (16 if share > 0.9 else 4),
                said,
                "said",
                "end" if left else "start",
            )
        )
    return figure(width, height, body, f"distribution of {info.x.name}")


def draw_timeline(info: Timeline) -> str:
    """Draws panels above each other on one clock: mean as a line, the range over resources as a band."""
    each, gap, top = 92.0, 34.0, 26.0
    height = top + len(info.panels) * (each + gap) + 16
    x = Scale(info.edges[0], info.edges[-1], _LEFT, WIDTH - _RIGHT)
    middles = [x((a + b) / 2) for a, b in zip(info.edges, info.edges[1:], strict=False)]
    body: list[str] = []
    for i, panel in enumerate(info.panels):
        floor = top + i * (each + gap) + each
        y = Scale(0.0, panel.top or 1.0, floor, floor - each)
        for tick in y.ticks(3):
            body.append(line(x.start, y(tick), x.end, y(tick), "grid"))
            body.append(text(x.start - 8, y(tick) + 4, tick_text(tick, panel.y.unit), "tick", "end"))
        if panel.low:
            band = [*zip(middles, map(y, panel.high), strict=True)]
            band += reversed([*zip(middles, map(y, panel.low), strict=True)])
            body.append(path(band, f"band s{i}", closed=True))
        else:
            steps = [(m, y(v)) for m, v in zip(middles, panel.mean, strict=True)]
            area = [(steps[0][0], floor), *steps, (steps[-1][0], floor)]
            body.append(path(area, f"band s{i}", closed=True))
        body.append(path(zip(middles, map(y, panel.mean), strict=True), f"series s{i}"))
        body.append(line(x.start, floor, x.end, floor, "axis"))
        body.append(text(x.start, floor - each - 9, panel.y.name, "name"))
    for tick in x.ticks(8):
        body.append(text(x(tick), height - 22, show(tick, "s"), "tick", "middle"))
    return figure(WIDTH, height, body, "arrivals, busy replicas and KV cache over time")


def draw_whole(info: Whole) -> str:
    """Draws a whole as one bar of its parts and lists the parts below it, with their values."""
    body, at = [], 0.0
    for i, part in enumerate(info.parts):
        kind = "part rest" if part.rest else f"part c{i % 8}"
        tip = f"{TERMS.get(part.name, part.name)}: {amount(part.value, info.unit)} ({part.share:.1%})"
        body.append(rect(at + 1, 0, part.share * WIDTH - 2, 30, kind, tip))
        at += part.share * WIDTH
    rows = "".join(
        f'<li><i class="{"rest" if p.rest else f"c{i % 8}"}"></i><span>{escape(TERMS.get(p.name, p.name))}</span>'
        f"<b>{escape(amount(p.value, info.unit))}</b><em>{p.share:.1%}</em></li>"
        for i, p in enumerate(info.parts)
    )
    bar = figure(WIDTH, 30, body, f"{info.name}: {amount(info.total, info.unit)} in all")
    return f'{bar}<ul class="parts">{rows}</ul>'


def amount(value: float, unit: str) -> str:
    """Returns a value with its unit, energy as bills have it."""
    return show_energy(value) if unit == "J" else show(value, unit)


def _labels(places: Sequence[tuple[float, float, Point]], x: Scale) -> list[str]:
    """Names the best and the frontier's plans where there is room, best first."""
    taken: list[tuple[float, float, float, float]] = []
    pieces = []
    for px, py, point in places:
        if point.state not in ("best", "frontier"):
            continue
        short = point.label.partition(",")[0]
        wide = 7.2 * len(short)
        left = px + 14 + wide > x.end
        box = (px - 12 - wide if left else px + 10, py - 16, px - 10 if left else px + 12 + wide, py)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        kind = "plan-name best" if point.state == "best" else "plan-name"
        pieces.append(text(px + (-11 if left else 11), py - 4, short, kind, "end" if left else "start"))
    return pieces
