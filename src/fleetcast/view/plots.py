"""Figures as inline SVG: each draws what its ``*_info`` in `figures` says and decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from fleetcast.base.show import show
from fleetcast.view.compare import Term
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
    round_step,
    scale,
    text,
    tick_text,
    tick_texts,
    words,
)
from fleetcast.view.words import TERMS, show_energy

WIDTH = 960.0
_LEFT, _RIGHT = 76.0, 20.0
_STATES = {
    "best": "best", "frontier": "on the frontier", "met": "meets the SLO", "nearest": "nearest miss",
    "missed": "misses the SLO",
}  # fmt: skip


def draw_scatter(info: Scatter) -> str:
    """Draws the plane of plans: limits as dashed lines, the frontier joined, the best marked and named."""
    height = 424.0
    xs = [p.x for p in info.points] + ([info.x_limit] if info.x_limit else [])
    ys = [p.y for p in info.points] + ([info.y_limit] if info.y_limit else [])
    x = scale(xs, _LEFT, WIDTH - _RIGHT)
    y = scale(ys, height - 52, 58, share=0.1)
    said = dict(info.states) or _STATES
    body = [*_key(info), *axes(x, y, info.x.unit, info.y.unit, info.x.name, info.y.name)]
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
        radius = {"best": 7.0, "frontier": 5.0, "nearest": 5.0}.get(point.state, 3.6)
        tip = (
            f"{point.label}\n{info.x.name}: {tick_text(point.x, info.x.unit)}\n"
            f"{info.y.name}: {tick_text(point.y, info.y.unit)}\n{said[point.state]}"
        )
        body.append(dot(x(point.x), y(point.y), radius, f"plan {point.state}", tip))
    places = [(x(p.x), y(p.y), p) for p in reversed(info.points)]
    body += _labels(places, [(x(p.x), y(p.y)) for p in edge], (x.start, y.end, x.end, y.start))
    return figure(WIDTH, height, body, f"{len(info.points)} plans by {info.x.name} and {info.y.name}")


def _key(info: Scatter) -> list[str]:
    """The legend of the plans' states that occur, in a row at the top."""
    pieces, at, said = [], 6.0, dict(info.states) or _STATES
    for state in (s for s in said if any(p.state == s for p in info.points)):
        pieces += [
            dot(at, 10, 5.5 if state == "best" else 4.5, f"plan {state}"),
            text(at + 11, 14, said[state], "tick"),
        ]
        at += 40 + 7 * len(said[state])
    return pieces


def draw_curve(info: Curve) -> str:
    """Draws a cumulative distribution with its limit; p50, p99 and the limit are said above it, where no line runs."""
    width, height = 330.0, 250.0
    shown = [v for v, s in zip(info.value, info.share, strict=True) if s <= 0.999] or list(info.value)
    positive = [v for v in shown if v > 0] or [1e-3]
    x = scale(positive + ([info.limit] if info.limit else []), 44, width - 14)
    y = Scale(0.0, 1.0, height - 26, 48)
    body = axes(x, y, info.x.unit, "%", "", "")
    body.append(text(0, 13, info.x.name, "name"))
    said = [(f"{name} {tick_text(value, info.x.unit)}", "said") for name, value, _ in info.marks]
    if info.limit:
        body.append(line(x(info.limit), y.start, x(info.limit), y.end, "limit"))
        statistic = info.limit_name.rpartition(" ")[2]
        said.append((f"limit {statistic} {tick_text(info.limit, info.x.unit)}", "limit-name"))
    body.append(words(0, 31, said))
    places = [(x(v), y(s)) for v, s in zip(info.value, info.share, strict=True) if v >= x.low]
    body.append(path([(places[0][0], y(0.0)), *places] if places else [], "curve"))
    for name, value, share in info.marks:
        body.append(dot(x(value), y(share), 4, "mark", f"{name} {tick_text(value, info.x.unit)}"))
    return figure(width, height, body, f"distribution of {info.x.name}")


def draw_timeline(info: Timeline) -> str:
    """Draws panels above each other on one clock: mean as a line, the range over resources as a band."""
    each, gap, top = 92.0, 34.0, 26.0
    height = top + len(info.panels) * (each + gap) + 2
    x = Scale(info.edges[0], info.edges[-1], _LEFT, WIDTH - _RIGHT)
    middles = [x((a + b) / 2) for a, b in zip(info.edges, info.edges[1:], strict=False)]
    body: list[str] = []
    for i, panel in enumerate(info.panels):
        floor = top + i * (each + gap) + each
        step = round_step((panel.top or 1.0) / 3)
        ticks = [step * k for k in range(math.ceil((panel.top or 1.0) / step - 1e-9) + 1)]
        y = Scale(0.0, ticks[-1], floor, floor - each)
        for tick, said in zip(ticks, tick_texts(ticks, panel.y.unit), strict=True):
            body.append(line(x.start, y(tick), x.end, y(tick), "grid"))
            body.append(text(x.start - 8, y(tick) + 4, said, "tick", "end"))
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
        body.append(text(0, floor - each - 11, panel.y.name, "name"))
    ticks = x.ticks(8)
    for tick, said in zip(ticks, tick_texts(ticks, "s"), strict=True):
        body.append(text(x(tick), height - 10, said, "tick", "middle"))
    return figure(WIDTH, height, body, "arrivals, busy replicas and KV cache over time")


def draw_whole(info: Whole) -> str:
    """Draws a whole as one bar of its parts and lists the parts below it, with their values."""
    body, at = [], 0.0
    for i, part in enumerate(info.parts):
        kind = "part rest" if part.rest else f"part c{i % 8}"
        tip = f"{TERMS.get(part.name, part.name)}: {amount(part.value, info.unit, info.total)} ({part.share:.1%})"
        body.append(rect(at + 1, 0, part.share * WIDTH - 2, 30, kind, tip))
        at += part.share * WIDTH
    rows = "".join(
        f'<li><i class="{"rest" if p.rest else f"c{i % 8}"}"></i><span>{escape(TERMS.get(p.name, p.name))}</span>'
        f"<b>{escape(amount(p.value, info.unit, info.total))}</b><em>{p.share:.1%}</em></li>"
        for i, p in enumerate(info.parts)
    )
    bar = figure(WIDTH, 30, body, f"{info.name}: {amount(info.total, info.unit, info.total)} in all")
    return f'{bar}<ul class="parts">{rows}</ul>'


def draw_terms(terms: Sequence[Term], names: tuple[str, str]) -> str:
    """Draws two bars per term of busy time, the first outcome's over the second's, and what each is off by."""
    left, each, width = 190.0, 46.0, 720.0
    height = 34 + each * len(terms) + 30
    x = Scale(0.0, max([t.before for t in terms] + [t.after for t in terms]) * 1.02, left, width - 90)
    body = [
        rect(left, 4, 12, 12, "part c0"), text(left + 18, 14, names[0], "tick"),
        rect(left + 110, 4, 12, 12, "part c1"), text(left + 128, 14, names[1], "tick"),
    ]  # fmt: skip
    floor = 30 + each * len(terms)
    for tick, said in zip(x.ticks(6), tick_texts(x.ticks(6), "s"), strict=True):
        body += [line(x(tick), 26, x(tick), floor, "grid"), text(x(tick), floor + 18, said, "tick", "middle")]
    for i, term in enumerate(terms):
        top = 30 + i * each
        name = TERMS.get(term.term, term.term)
        body.append(text(left - 10, top + 25, name, "name", "end"))
        for kind, place, value in ((0, top + 5, term.before), (1, top + 21, term.after)):
            body.append(
                rect(left, place, x(value) - left, 14, f"part c{kind}", f"{name}, {names[kind]}: {show(value, 's')}")
            )
        said = "" if term.error is None else f"{term.error:+.0%}"
        body.append(text(x(max(term.before, term.after)) + 8, top + 25, said, "said"))
    return figure(width, height, body, f"busy time by term, {names[0]} and {names[1]}")


def amount(value: float, unit: str, whole: float) -> str:
    """Returns a part of ``whole`` with its unit, energy as bills have it: in Wh wherever the whole is."""
    if unit == "J":
        small = whole >= 3600 > value
        return three_digits(show(value / 3600, "Wh") if small else show_energy(value))
    return three_digits(show(value, unit))


def three_digits(value: str) -> str:
    """Returns a number with a unit in three digits at least, so that columns read evenly: ``86 ms`` is ``86.0 ms``."""
    figure, space, unit = value.partition(" ")
    digits = len(figure.replace(".", "").lstrip("0"))
    if not space or digits >= 3 or not figure.replace(".", "").isdigit() or not digits:
        return value
    return f"{figure}{'' if '.' in figure else '.'}{'0' * (3 - digits)} {unit}"


Box = tuple[float, float, float, float]


def _labels(places: Sequence[tuple[float, float, Point]], edge: Sequence[tuple[float, float]], paper: Box) -> list[str]:
    """Names the best, the frontier's and the nearest plans, each where it lies over no line, dot or other name.

    Args:
        places: of the plans, in the order in which they are named.
        edge: corners of the frontier's line.
        paper: left, top, right and bottom of the plane.
    """
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py, _ in places]
    named: list[tuple[float, float, str]] = []
    pieces = []
    for px, py, point in places:
        if point.state not in ("best", "frontier", "nearest"):
            continue
        short = point.label.partition(",")[0]
        if any(abs(px - x) + abs(py - y) < (80 if name == short else 12) for x, y, name in named):
            continue  # a dot on another's place, or a batch of the same layout beside it
        wide = 7.2 * len(short)
        # A frontier's own side holds no plan: below left where less is better.
        for right, low in ((False, True), (True, False), (True, True), (False, False)):
            left, base = (px + 11 if right else px - 11 - wide), py + (17 if low else -8)
            box = (left, base - 12, left + wide, base + 3)
            inside = box[0] >= paper[0] and box[1] >= paper[1] and box[2] <= paper[2] and box[3] <= paper[3]
            crossed = any(_crosses(a, b, box) for a, b in pairwise(edge))
            if inside and not crossed and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                named.append((px, py, short))
                kind = "plan-name best" if point.state == "best" else "plan-name"
                pieces.append(text(left if right else left + wide, base, short, kind, "start" if right else "end"))
                break
    return pieces


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _crosses(start: tuple[float, float], end: tuple[float, float], box: Box) -> bool:
    """Whether a straight line touches a box or comes within half a unit of it (Liang and Barsky, 1984)."""
    enters, leaves = 0.0, 1.0
    for i in (0, 1):
        run, near, far = end[i] - start[i], box[i] - 0.5 - start[i], box[i + 2] + 0.5 - start[i]
        if run == 0:
            if near > 0 or far < 0:
                return False
            continue
        first, last = sorted((near / run, far / run))
        enters, leaves = max(enters, first), min(leaves, last)
    return enters <= leaves
