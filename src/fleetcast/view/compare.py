"""Outcome minus Outcome: forecast error where one was measured, the effect of a change where both were simulated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleetcast.base.errors import SpecError
from fleetcast.base.files import read_text
from fleetcast.scenario.outcome import Outcome
from fleetcast.view.words import TERMS, short


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

    @property
    def error(self) -> float | None:
        """How far ``before``, as a forecast, is off ``after``, as what was measured: before / after - 1."""
        return self.before / self.after - 1 if self.after else None

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return asdict(self) | {"error": self.error}


@dataclass(frozen=True)
class Term:
    """Where two outcomes spend their busy time, one term of it.

    Attributes:
        term: e.g. "gemm".
        before: s in the first outcome.
        after: s in the second.
        share: (before - after) / all busy time of the second: what this term adds to the error of the whole.
    """

    term: str
    before: float
    after: float
    share: float

    @property
    def error(self) -> float | None:
        """How far ``before`` is off ``after``: before / after - 1."""
        return self.before / self.after - 1 if self.after else None

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        return asdict(self) | {"error": self.error}


def by_term(before: Outcome, after: Outcome) -> tuple[Term, ...]:
    """Returns the busy time of two outcomes term by term, largest share first; () where either does not say."""
    ours, theirs = (_busy_terms(outcome) for outcome in (before, after))
    whole = sum(theirs.values())
    if not ours or not theirs or not whole:
        return ()
    names = dict.fromkeys([*ours, *theirs])
    pairs = [(name, ours.get(name, 0.0), theirs.get(name, 0.0)) for name in names]
    found = [Term(name, a, b, (a - b) / whole) for name, a, b in pairs]
    return tuple(sorted((term for term in found if term.before or term.after), key=lambda term: -abs(term.share)))


def _busy_terms(outcome: Outcome) -> dict[str, float]:
    times = outcome.breakdown.get("time", {})
    return {name: float(s) for name, s in times.items() if name not in ("idle", "down") and s}


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


def remarks(before: Outcome, after: Outcome, found: Sequence[Difference]) -> list[str]:
    """Returns in sentences what the differences mean: how many intervals hold, what dominates, what is not alike."""
    told = []
    judged = [d for d in found if d.covered is not None]
    if judged:
        inside = sum(bool(d.covered) for d in judged)
        told.append(f"{inside} of {len(judged)} values lie within the forecast's 80 % intervals.")
    times = {name: seconds for name, seconds in _busy_terms(before).items() if seconds > 0}
    if terms := by_term(before, after):
        first, whole = terms[0], sum(term.share for term in terms)
        name = TERMS.get(first.term, first.term)
        told.append(f"Busy time is off by {whole:+.1%} in all; most by {name}, {first.share:+.1%}: look there first.")
    elif times:
        name, most = max(times.items(), key=lambda item: item[1])
        share = most / sum(times.values())
        told.append(f"Of the forecast's busy time {share:.0%} is {TERMS.get(name, name)}: look there first.")
    ours, theirs = (o.provenance.get("requests") for o in (before, after))
    if ours and theirs and ours != theirs:
        told.append("The two had different requests: what differs is not the forecast's error alone.")
    if after.provenance.get("interrupted"):
        told.append("The second was stopped before its end: its counts are of a part of the requests.")
    if failed := after.metrics.get("failed"):
        told.append(f"{int(failed):,} requests of the second failed and are in none of its latencies.")
    return told


def read_outcome(path: str | Path) -> Outcome:
    """Returns the outcome of an outcome.json, as ``simulate`` and ``run`` write it with --out or --json.

    Raises:
        SpecError: not a file, not JSON, or JSON of something else.
    """
    what = 'an outcome.json of "fleetcast simulate" or "fleetcast run"'
    try:
        table = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise SpecError(str(path), f"is not JSON: {error}", limit=what, hint="Write one: --out FOLDER") from None
    if isinstance(table, dict) and "frontier" in table:
        hint = 'Simulate its plan: "fleetcast simulate FOLDER/plan.toml --out FOLDER"'
        raise SpecError(str(path), "holds a ranking of plans, not one outcome", limit=what, hint=hint)
    parts: Mapping[str, Any] = table if isinstance(table, dict) else {}
    tables = [parts.get(name, {}) for name in ("metrics", "intervals", "slo", "plan", "breakdown", "provenance")]
    metrics, intervals, slo, plan, breakdown, provenance = tables
    rows = intervals.values() if isinstance(intervals, dict) else ()
    good = (
        parts.get("source") in ("simulated", "measured")
        and all(isinstance(part, dict) for part in (*tables, *(breakdown.values() if breakdown else ())))
        and metrics
        and all(isinstance(row, list) and len(row) == 2 for row in rows)
    )
    if not good:
        raise SpecError(str(path), "is no outcome", limit=what, hint="Write one: --out FOLDER")
    known = {k: (v[0], v[1]) for k, v in intervals.items() if all(isinstance(x, int | float) for x in v)}
    return Outcome(
        source=parts["source"], metrics=metrics, intervals=known, slo=slo, plan=plan, breakdown=breakdown,
        notes=tuple(map(str, parts.get("notes") or ())), provenance=provenance,
    )  # fmt: skip


def heading(metric: str) -> str:
    """Returns a metric's name for people."""
    name = short(metric).replace("_", " ")
    return name if "." in metric else name.capitalize()


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield prefix + key, float(value)
