"""What the figures of a report show, as values: pure functions from outcomes, drawn by `plots`.

Every figure is two functions: ``*_info`` here decides what is shown and is tested; ``draw_*`` in `plots` puts it on
paper and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fleetcast.base.tables import lookup
from fleetcast.scenario.objective import Slo
from fleetcast.view.words import GOAL_METRIC, METRIC_NAMES, plan_name, policy_name, short, unit_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fleetcast.base.record import Record
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking


@dataclass(frozen=True)
class Quantity:
    """What an axis shows: a name and the unit of its numbers."""

    name: str
    unit: str


@dataclass(frozen=True)
class Point:
    """A plan in the plane. ``state``: "best", "frontier", "met", "missed" (the SLO), or "nearest" of the missed."""

    x: float
    y: float
    label: str
    state: str


@dataclass(frozen=True)
class Scatter:
    """Plans by two metrics, with the limits that an axis has; ``states`` says what states mean, () = of requests."""

    x: Quantity
    y: Quantity
    points: tuple[Point, ...]
    x_limit: float | None
    y_limit: float | None
    states: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Curve:
    """A cumulative distribution: ``share`` of requests at most at ``value``; marks are (name, value, share)."""

    x: Quantity
    value: tuple[float, ...]
    share: tuple[float, ...]
    limit: float | None
    limit_name: str
    marks: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Panel:
    """A quantity over time: the mean over resources, and the least and the most of any one."""

    y: Quantity
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    top: float


@dataclass(frozen=True)
class Timeline:
    """Panels on one clock; ``edges`` are the borders of the bins, s from the start, one more than values."""

    edges: tuple[float, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Part:
    """A part of a whole; ``share`` is of the whole, ``rest`` marks what is not used (idle, free)."""

    name: str
    value: float
    share: float
    rest: bool


@dataclass(frozen=True)
class Whole:
    """A whole and its parts, largest first, what is unused last."""

    name: str
    unit: str
    total: float
    parts: tuple[Part, ...]


RESTS = ("idle", "free")
_BREAKDOWNS = {
    "time": ("Time of the replicas", "s"),
    "energy": ("Energy", "J"),
    "memory": ("Memory of the fullest device", "B"),
}


def frontier_info(ranking: Ranking, slo: Slo) -> Scatter | None:
    """Returns where the plans lie in the plane of the search's first two axes; None where there are none.

    Where no plan meets the SLO there is no frontier: the second axis is the limit that the nearest miss misses most.
    """
    seen = list({id(o): o for o in (*ranking.plans, *ranking.frontier, *ranking.misses)}.values())
    paths = [GOAL_METRIC.get(goal, path) for goal, path, _ in ranking.axes]
    if not seen or not paths:
        return None
    shown = len(paths) > 1 and ranking.best is not None
    x_path, y_path = paths[0], paths[1] if shown else _strained(seen[0], paths[0])
    chosen = {id(o) for o in ranking.frontier}
    points = []
    for outcome in seen:
        state = "met" if outcome.slo.get("met", True) else "missed"
        if ranking.best is None and outcome is ranking.misses[0]:
            state = "nearest"
        if id(outcome) in chosen:
            state = "frontier"
        if outcome is ranking.best:
            state = "best"
        x, y = lookup(outcome.metrics, x_path), lookup(outcome.metrics, y_path)
        if np.isfinite(x) and np.isfinite(y):
            label = f"{plan_name(outcome.plan)}, {policy_name(outcome.plan)}"
            points.append(Point(x, y, label, state))
    order = {"missed": 0, "nearest": 1, "met": 2, "frontier": 3, "best": 4}
    points.sort(key=lambda p: (order[p.state], p.x, p.y))
    limits = slo.limits()
    return Scatter(_quantity(x_path), _quantity(y_path), tuple(points), limits.get(x_path), limits.get(y_path))


def latency_info(outcome: Outcome, slo: Slo, *, knots: int = 200) -> tuple[Curve, ...]:
    """Returns the distributions of time to first token, time per output token and whole time over requests.

    Args:
        outcome: with per-request columns; without them nothing is returned.
        slo: its limits are drawn.
        knots: points of each curve.
    """
    columns = outcome.requests
    if columns is None or not len(columns.arrival):
        return ()
    several = columns.output >= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = (columns.e2e - columns.ttft) / (columns.output - 1)
    found = []
    for metric, values in (("ttft", columns.ttft), ("tpot", tpot[several]), ("e2e", columns.e2e)):
        if not len(values):
            continue
        share = np.unique(np.concatenate([np.linspace(0, 1, knots), [0.5, 0.9, 0.99, 0.995, 0.999]]))
        marks = tuple((f"p{q}", float(np.percentile(values, q)), q / 100) for q in (50, 99))
        limit_path = next((p for p in reversed(slo.limits()) if p.startswith(metric)), "")
        found.append(
            Curve(
                Quantity(METRIC_NAMES[metric], "s"),
                _tuple(np.quantile(values, share)),
                _tuple(share),
                slo.limits().get(limit_path),
                short(limit_path),
                marks,
            )
        )
    return tuple(found)


def timeline_info(outcome: Outcome, *, bins: int = 160) -> Timeline | None:
    """Returns arrivals, busy share and fill of the KV cache over time; None without an event record."""
    record = outcome.record
    if record is None or not len(record):
        return None
    arrival = outcome.requests.arrival if outcome.requests is not None else record.time[:0]
    start = float(min(record.time.min(), arrival.min() if len(arrival) else np.inf))
    end = float(max((record.time + record.duration).max(), arrival.max() if len(arrival) else -np.inf))
    edges = np.linspace(start, end if end > start else start + 1.0, bins + 1)
    panels = []
    if len(arrival):
        counts, _ = np.histogram(arrival, edges)
        rate = counts / np.diff(edges)
        panels.append(Panel(Quantity("Requests arriving", "/s"), _tuple(rate), (), (), float(rate.max())))
    rows = [record.resource == i for i in range(len(record.resources))]
    busy = np.stack([_busy(record, pick, edges) for pick in rows])
    fill = np.stack([_fill(record, pick, edges) for pick in rows])
    for name, values in (("Replicas busy", busy), ("KV cache filled", fill)):
        mean, low, high = values.mean(0), values.min(0), values.max(0)
        # A cache that is hardly used still shows its course.
        top = next((t for t in (0.05, 0.1, 0.2, 0.5) if high.max() <= t), 1.0)
        panels.append(Panel(Quantity(name, "%"), _tuple(mean), _tuple(low), _tuple(high), top))
    return Timeline(_tuple(edges - start), tuple(panels))


def breakdown_info(outcome: Outcome, kind: str, *, smallest: float = 0.004) -> Whole | None:
    """Returns where time, energy or memory went, parts below ``smallest`` of the whole gathered under "other".

    Args:
        outcome: with a breakdown.
        kind: "time", "energy" or "memory".
        smallest: share below which a part is not shown by itself.
    """
    terms = {k: float(v) for k, v in outcome.breakdown.get(kind, {}).items() if v > 0}
    total = sum(terms.values())
    if total <= 0:
        return None
    small = {k: v for k, v in terms.items() if v < smallest * total and k not in RESTS}
    if len(small) > 1:
        terms = {k: v for k, v in terms.items() if k not in small} | {"other": sum(small.values())}
    ordered = sorted(terms.items(), key=lambda kv: (kv[0] in RESTS, kv[0] == "other", -kv[1]))
    parts = tuple(Part(k, v, v / total, k in RESTS) for k, v in ordered)
    name, unit = _BREAKDOWNS[kind]
    if outcome.breakdown[kind].get("overlap", 0) < 0:
        name += ", what runs side by side added up"
    return Whole(name, unit, total, parts)


def traffic_info(outcome: Outcome) -> dict[str, float]:
    """Returns requests, seconds, requests per second and tokens of the traffic that was served."""
    metrics: Mapping[str, Any] = outcome.metrics
    span = float(metrics.get("makespan", 0.0))
    requests = float(metrics.get("requests", 0))
    return {
        "requests": requests,
        "seconds": span,
        "rate": requests / span if span > 0 else 0.0,
        "prompt_tokens": float(metrics.get("prompt_tokens", 0)),
        "output_tokens": float(metrics.get("output_tokens", 0)),
    }


def _strained(outcome: Outcome, other: str) -> str:
    """The limited metric that comes closest to its limit; mean whole time where nothing is limited."""
    checks = [c for c in outcome.slo.get("checks", ()) if c["limit"] > 0 and c["metric"] != other]
    if not checks:
        return "e2e.mean" if other != "e2e.mean" else "tpot.mean"
    return str(max(checks, key=lambda c: c["value"] / c["limit"])["metric"])


def _quantity(path: str) -> Quantity:
    head, _, statistic = path.rpartition(".")
    if head == "per_million_output_tokens":
        return Quantity(f"{METRIC_NAMES[statistic]} per million output tokens", unit_of(path))
    name = METRIC_NAMES.get(head or statistic, head or statistic)
    if statistic == "mean" and head:
        return Quantity(f"mean {name}", unit_of(path))
    return Quantity(f"{name}, {statistic}" if head else name, unit_of(path))


def _busy(record: Record, pick: NDArray[np.bool_], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each bin in which the resource worked: differences of its cumulated busy time."""
    start, length = record.time[pick], record.duration[pick]
    if not len(start):
        return np.zeros(len(edges) - 1)
    done = np.cumsum(length)
    knots = np.column_stack([start, start + length]).ravel()
    worked = np.column_stack([done - length, done]).ravel()
    share = np.diff(np.interp(edges, knots, worked)) / np.diff(edges)
    return np.clip(share, 0.0, 1.0)


def _fill(record: Record, pick: NDArray[np.bool_], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill of the resource's memory at the middle of each bin."""
    if not pick.any():
        return np.zeros(len(edges) - 1)
    ends = record.time[pick] + record.duration[pick]
    return np.interp((edges[1:] + edges[:-1]) / 2, ends, record.level[pick], left=0.0)


def _tuple(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
