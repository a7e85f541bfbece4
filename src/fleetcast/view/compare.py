"""Outcome minus Outcome: forecast error where one was measured, the effect of a change where both were simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleetcast.scenario.outcome import Outcome


@dataclass(frozen=True)
class Difference:
    """One metric of two outcomes.

    Attributes:
        metric: path, e.g. ``ttft.p99``.
        before: value in the first outcome, SI.
        after: value in the second.
        relative: after / before - 1; None where before is 0.
        covered: whether the first one's 80 % interval holds the second's value; None where it has no interval.
    """

    metric: str
    before: float
    after: float
    relative: float | None
    covered: bool | None


def compare(before: Outcome, after: Outcome) -> tuple[Difference, ...]:
    """Returns every metric that both outcomes have, in the order of the first."""
    others = dict(_flat(after.metrics))
    found = []
    for path, value in _flat(before.metrics):
        if path not in others:
            continue
        other = others[path]
        interval = before.intervals.get(path)
        covered = None if interval is None else interval[0] <= other <= interval[1]
        found.append(Difference(path, value, other, other / value - 1 if value else None, covered))
    return tuple(found)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield prefix + key, float(value)
