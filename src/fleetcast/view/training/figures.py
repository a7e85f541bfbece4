"""What the figures of training's pages show, and the drawing of a pipeline; the others are drawn by `view.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetcast.base.show import show
from fleetcast.base.tables import lookup
from fleetcast.view.figures import Part, Point, Quantity, Scatter, Whole
from fleetcast.view.svg import Scale, figure, line, rect, text, tick_texts
from fleetcast.view.training import terms

if TYPE_CHECKING:
    from fleetcast.base.record import Record
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

STATES = (("best", "best"), ("frontier", "best within its memory"), ("met", "best of its spread"),
          ("missed", "does not fit"))  # fmt: skip
SPANS = 2_400
"""Spans of a drawn pipeline, the earliest: what a page holds without being slow."""
AXES = {
    "iteration_time": ("iteration", "s"), "cost": ("cost of an iteration", "$"),
    "energy": ("energy of an iteration", "J"), "carbon": ("carbon of an iteration", "gCO2e"),
}  # fmt: skip
_COLOURS = (0, 2, 4, 3, 1)
"""Of the kinds of passes, `sim.training.timeline.WHATS`."""


def frontier_info(ranking: Ranking, frontier: Sequence[Outcome]) -> Scatter | None:
    """Returns where plans lie by memory and the first goal: the ranked, and the best within less memory."""
    path = ranking.goals[0][1]
    best = ranking.best
    told = [(one, "met") for one in ranking.plans] + [(one, "missed") for one in ranking.misses]
    told += [(one, "frontier") for one in frontier]
    points: dict[tuple[float, float], Point] = {}
    for outcome, state in told:
        x, y = float(outcome.metrics["memory"]), float(lookup(outcome.metrics, path))
        mark = "best" if outcome is best else state
        if y == y and points.get((x, y), Point(x, y, "", "")).state != "best":
            points[x, y] = Point(x, y, terms.plan_name(outcome.plan), mark)
    if not points:
        return None
    order = ("missed", "met", "frontier", "best")
    ranked = sorted(points.values(), key=lambda p: (order.index(p.state), p.x, p.y))
    full = float((best or ranking.misses[0]).provenance["memory"])
    name, unit = AXES.get(path, (path, ""))
    return Scatter(
        Quantity("memory of the fullest device", "B"), Quantity(name, unit), tuple(ranked), full, None, STATES
    )


def wholes(outcome: Outcome) -> list[Whole]:
    """Returns the seconds of an iteration by term, the memory of the fullest device with what is free, the energy."""
    found = []
    for kind, name, unit, names in (
        ("time", "An iteration", "s", terms.TIMES), ("memory", "Memory of the fullest device", "B", terms.ROOMS),
        ("energy", "Energy of an iteration", "J", {}),
    ):  # fmt: skip
        values = {terms.term(key, names): float(v) for key, v in outcome.breakdown.get(kind, {}).items() if v > 0}
        total = sum(values.values())
        if not total:
            continue
        parts = sorted(values.items(), key=lambda pair: -pair[1])
        free = float(outcome.provenance.get("memory", 0.0)) - total if kind == "memory" else 0.0
        whole = total + max(0.0, free)
        made = [Part(key, value, value / whole, rest=False) for key, value in parts]
        if free > 0:
            made.append(Part("Free", free, free / whole, rest=True))
        found.append(Whole(name, unit, whole, tuple(made)))
    return found


@dataclass(frozen=True)
class Pipeline:
    """What a drawn pipeline shows.

    Attributes:
        lanes: names of the stages.
        spans: (stage, kind of pass, micro-batch, start, end), s.
        kinds: names of the kinds of passes.
        end: s of the last span shown.
        left_out: spans that are not shown, those after the last.
    """

    lanes: tuple[str, ...]
    spans: tuple[tuple[int, int, int, float, float], ...]
    kinds: tuple[str, ...]
    end: float
    left_out: int


def pipeline_info(log: Record | None, most: int = SPANS) -> Pipeline | None:
    """Returns the earliest spans of a pipeline's record; None where there is none."""
    if log is None or not len(log):
        return None
    rows = sorted(
        zip(log.time, log.time + log.duration, log.resource, log.what, log.items, strict=True),
        key=lambda row: (float(row[0]), int(row[2])),
    )  # fmt: skip
    spans = tuple((int(at), int(kind), int(item), float(a), float(b)) for a, b, at, kind, item in rows[:most])
    return Pipeline(log.resources, spans, log.whats, max(span[4] for span in spans), max(0, len(rows) - most))


def draw_pipeline(info: Pipeline) -> str:
    """Draws a lane per stage, a box per pass in the colour of its kind; what is empty is the bubble."""
    width, left, top = 960.0, 14.0 + 7.0 * max(map(len, info.lanes)), 34.0
    each = max(8.0, min(26.0, 420.0 / len(info.lanes)))
    floor = top + each * len(info.lanes)
    x = Scale(0.0, info.end, left, width - 14)
    body, at = [], 2.0
    for kind in sorted({span[1] for span in info.spans}):
        body += [rect(at, 4, 12, 12, f"part c{_COLOURS[kind]}"), text(at + 18, 14, info.kinds[kind], "tick")]
        at += 44 + 7 * len(info.kinds[kind])
    for i, name in enumerate(info.lanes):
        body.append(text(left - 8, top + each * (i + 0.5) + 4, name, "tick", "end"))
        body.append(rect(left, top + each * i + 1, width - 14 - left, each - 2, "rest"))
    for stage, kind, micro, start, end in info.spans:
        said = "" if kind == 4 else f", micro-batch {micro}"
        tip = f"{info.lanes[stage]}: {info.kinds[kind]}{said}, {show(start, 's')} to {show(end, 's')}"
        body.append(
            rect(x(start), top + each * stage + 1, max(0.3, x(end) - x(start) - 0.4), each - 2,
                 f"part c{_COLOURS[kind]}", tip if len(info.spans) < 1_000 else "")
        )  # fmt: skip
    ticks = x.ticks(8)
    for tick, said in zip(ticks, tick_texts(ticks, "s"), strict=True):
        body += [line(x(tick), floor, x(tick), floor + 4, "axis"), text(x(tick), floor + 18, said, "tick", "middle")]
    return figure(width, floor + 26, body, "which stage works on which micro-batch when")
