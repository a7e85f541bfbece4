"""Ranked plans: what a search found, what it refused and why, and how much of the space it had to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fleetcast.base.show import show
from fleetcast.base.spec import kinds, named
from fleetcast.base.tables import lookup
from fleetcast.policy import scale, share
from fleetcast.policy.order import tasks
from fleetcast.policy.place import gangs, pods
from fleetcast.policy.route import invocations
from fleetcast.scenario.functions_plan import FunctionsPlan, read_functions_plan
from fleetcast.scenario.jobs_plan import JobsPlan, read_jobs_plan
from fleetcast.scenario.kinds.graph import GraphPlan, read_graph_plan
from fleetcast.scenario.outcome import UNITS, Outcome
from fleetcast.scenario.plan import Plan, read_plan
from fleetcast.scenario.pods_plan import PodsPlan, read_pods_plan
from fleetcast.scenario.stream_plan import StreamPlan, read_stream_plan
from fleetcast.scenario.training_plan import TrainingPlan, read_training_plan

Axis = tuple[str, str, int]
"""(goal, metric path, sign): sign 1 = less is better, -1 = more is."""


@dataclass(frozen=True)
class Worth:
    """What one choice buys.

    Attributes:
        choice: e.g. "drafts", "fp8 weights", or a kind of device.
        used: whether the best plan makes it.
        other: the best plan within the SLO that does not (of a choice that the best plan does not make: that does);
            None = there is none.
    """

    choice: str
    used: bool
    other: Outcome | None

    def table(self) -> dict[str, Any]:
        """Returns a row for JSON."""
        other = None if self.other is None else {"plan": self.other.plan, "metrics": self.other.metrics}
        return {"choice": self.choice, "used": self.used, "other": other}


@dataclass(frozen=True)
class Ranking:
    """What a search found.

    Attributes:
        plans: outcomes that meet the SLO, best first: of the whole space those up to the best of the ``top``-th layout.
        frontier: outcomes that meet the SLO and that none of the space beats in every axis, in order of the first.
        misses: where nothing meets the SLO: the plans nearest to it, by their worst value / limit.
        rejected: families of layouts that cannot run: ``{family, constraint, need, have, unit}``.
        missed: layouts that fit but miss the SLO, from `missed.missed`: the limit each exceeds most, and by how much.
        counts: enumerated, memory_feasible, over_budget (of these: more power or money than the fleet allows),
            bounded (cut_short: after a part of the trace), deduplicated, simulated; weighed: simulated for ``worth``.
        goals: what ranks ``plans``.
        axes: what the frontier trades: the goals, or the one goal and its natural rival.
        identical: per plan label and batch, other variants that provably have the same outcome.
        worth: what each choice buys that the search weighed, where that was asked for.
        space: the space in sentences.
        notes: what was decided on the way.
    """

    plans: tuple[Outcome, ...]
    frontier: tuple[Outcome, ...]
    misses: tuple[Outcome, ...]
    rejected: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]
    goals: tuple[Axis, ...]
    axes: tuple[Axis, ...]
    missed: tuple[Mapping[str, Any], ...] = ()
    identical: tuple[tuple[Mapping[str, Any], ...], ...] = ()
    space: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    worth: tuple[Worth, ...] = ()

    @property
    def best(self) -> Outcome | None:
        """The first of ``plans``; None = nothing meets the SLO."""
        return self.plans[0] if self.plans else None

    @property
    def plan(self) -> Plan | TrainingPlan | GraphPlan | StreamPlan | FunctionsPlan | JobsPlan | PodsPlan | None:
        """The best plan, complete; None = there is none, or one of waves, which no file decides."""
        best = self.best
        return read_any(best.plan) if best is not None and "way" not in best.plan else None

    def table(self) -> dict[str, Any]:
        """Returns everything for JSON; ``notes`` are the search's own and those of every plan in it."""
        told = (*self.plans, *self.frontier, *self.misses)
        rows = [_row(outcome) for outcome in self.plans]
        for row, same in zip(rows, self.identical, strict=False):
            if same:
                row["identical"] = list(same)
        return {
            "best": _row(self.best) if self.best is not None else None,
            "frontier": [_row(outcome) for outcome in self.frontier],
            "plans": rows,
            "misses": [_row(outcome) | {"worst": worst_ratio(outcome.slo)} for outcome in self.misses],
            "rejected": [dict(row) for row in self.rejected],
            "missed": [dict(row) for row in self.missed],
            "counts": dict(self.counts),
            "goals": [goal for goal, _, _ in self.goals],
            "axes": [goal for goal, _, _ in self.axes],
            "space": list(self.space),
            "worth": [row.table() for row in self.worth],
            "notes": list(dict.fromkeys((*self.notes, *(note for o in told for note in o.notes)))),
        }

    def lines(self) -> list[str]:
        """Returns the space in sentences, counts included."""
        c = self.counts
        if any("use" in outcome.plan for outcome in self.plans):
            return [*self.space, f"{c['enumerated']:,} plans, all simulated"]
        if any(_trains(outcome.plan) for outcome in (*self.plans, *self.misses)):
            return [*self.space, f"{c['enumerated']:,} plans, {c['memory_feasible']:,} fit, {c['simulated']:,} timed"]
        plans = "plan" if c["enumerated"] == 1 else "plans"
        over = f"{c['over_budget']:,} over the budget, " if c.get("over_budget") else ""
        more = f", {c['weighed']:,} more to weigh the choices" if c.get("weighed") else ""
        part = f" ({c['cut_short']:,} after a part of the trace)" if c["cut_short"] else ""
        return [
            *self.space,
            f"{c['enumerated']:,} {plans} enumerated, {c['memory_feasible']:,} fit in memory; of these {over}"
            f"{c['bounded']:,} bounded away{part}, "
            f"{c['deduplicated']:,} the same as another, {c['simulated']:,} simulated{more}",
        ]

    def __repr__(self) -> str:
        """Returns the best plan and the counts in one line."""
        if self.best is None:
            near = f", nearest {label(self.misses[0])} at {worst_ratio(self.misses[0].slo):.3g}x" if self.misses else ""
            return f"Ranking(no plan meets the SLO{near}; {self.lines()[-1]})"
        values = ", ".join(f"{goal} {_value(self.best, path)}" for goal, path, _ in self.goals)
        return f"Ranking(best {label(self.best)}: {values}; frontier {len(self.frontier)}; {self.lines()[-1]})"

    def _repr_html_(self) -> str:
        """Returns a small table for notebooks."""
        shown = self.plans or self.misses
        head = "".join(f"<th>{goal}</th>" for goal, _, _ in self.axes)
        rows = "".join(
            f"<tr><td>{label(o)}</td>" + "".join(f"<td>{_value(o, path)}</td>" for _, path, _ in self.axes) + "</tr>"
            for o in shown
        )
        caption = "plans within the SLO" if self.plans else "no plan meets the SLO; the nearest"
        return f"<table><caption>{caption}</caption><tr><th>plan</th>{head}</tr>{rows}</table>"


def label(outcome: Outcome) -> str:
    """Returns the short name of an outcome's plan, with its batch policy."""
    if "way" in outcome.plan:
        return str(outcome.plan["way"])
    plan = read_any(outcome.plan)
    if isinstance(plan, FunctionsPlan | PodsPlan):
        return kept(outcome.plan)
    if isinstance(plan, JobsPlan):
        return dealt(outcome.plan)
    if isinstance(plan, StreamPlan):
        return made(outcome.plan)
    if isinstance(plan, GraphPlan):
        return named(tasks, outcome.plan["order"])
    if isinstance(plan, TrainingPlan):
        return plan.label() or str(outcome.plan.get("placement", ""))
    batch = plan.serving[0].batch
    said = " ".join(str(v) for v in batch.values()) if isinstance(batch, dict) else ""
    return f"{plan.label()} {said}".strip()


def made(plan: Mapping[str, Any]) -> str:
    """Returns the short name of a stream's plan: the improvements that it makes and where its filter sits."""
    said = [str(name) for name in plan["use"]]
    if "filter" in plan:
        said.append(f"filter at {plan['filter']}" if plan["filter"] != "nowhere" else "no filter")
    return " + ".join(said) or "as it is"


def kept(plan: Mapping[str, Any]) -> str:
    """Returns the short name of a plan of functions or pods: its policies with what is not usual, and its knob."""
    said = []
    for key, family in (("scale", scale), ("route", invocations), ("place", pods)):
        if key in plan:
            made = kinds(family).get(str(plan[key]["kind"]))
            said.append(named(family, plan[key], shown=getattr(made, "knob", ())[:1]))
    return ", ".join(said)


def dealt(plan: Mapping[str, Any]) -> str:
    """Returns the short name of a plan of jobs: its policies, unless the place policy is the usual one."""
    said = [named(share, plan["share"])]
    placed = named(gangs, plan.get("place", {"kind": "best_fit"}))
    return said[0] if placed == "best_fit" else f"{said[0]}, {placed}"


def read_any(
    table: Mapping[str, Any],
) -> Plan | TrainingPlan | GraphPlan | StreamPlan | FunctionsPlan | JobsPlan | PodsPlan:
    """Returns the complete plan of a table, of any kind of workload: training has micro-batches or a placement."""
    if "use" in table:
        return read_stream_plan(dict(table))
    if "scale" in table:
        return read_functions_plan(table)
    if "share" in table:
        return read_jobs_plan(table)
    if set(table) == {"place"}:
        return read_pods_plan(table)
    if set(table) <= {"order", "workers"}:
        return read_graph_plan(table)
    return read_training_plan(dict(table)) if _trains(table) else read_plan(dict(table))


def _trains(table: Mapping[str, Any]) -> bool:
    return "micro_batch" in table or "placement" in table


def values(outcome: Outcome, axes: Sequence[Axis]) -> tuple[float, ...]:
    """Returns the outcome on each axis, signed so that less is better."""
    return tuple(sign * lookup(outcome.metrics, path) for _, path, sign in axes)


def undominated(points: ArrayLike) -> list[int]:
    """Returns the rows that no other row beats: at most as large everywhere and smaller somewhere. Less is better.

    Args:
        points: f8[n, k]. Equal rows stay together.
    """
    table = np.asarray(points, dtype=np.float64)
    if not len(table):
        return []
    kept: list[int] = []
    for i in np.lexsort(table.T[::-1]):
        ahead = table[kept]
        if not ((ahead <= table[i]).all(axis=1) & (ahead < table[i]).any(axis=1)).any():
            kept.append(int(i))
    return kept


def worst_ratio(slo: Mapping[str, Any]) -> float:
    """Returns the largest value / limit of an outcome's checks; at most 1 = met, 0 = no limits."""
    return max((check["value"] / check["limit"] for check in slo["checks"]), default=0.0)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "plan": outcome.plan, "metrics": outcome.metrics, "slo": outcome.slo,
        "intervals": {k: list(v) for k, v in outcome.intervals.items()},
    }  # fmt: skip


def _value(outcome: Outcome, path: str) -> str:
    return show(lookup(outcome.metrics, path), UNITS.get(path.partition(".")[0], ""))
