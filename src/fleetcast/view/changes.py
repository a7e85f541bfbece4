"""The terminal's picture of what a change makes of a scenario: before and after, by term; several in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.scenario.load import GraphScenario, ServingScenario, StreamScenario, TrainingScenario
from fleetcast.search.ranking import made
from fleetcast.view import words
from fleetcast.view.plans import Column, fitted
from fleetcast.view.tables import bullets, rows_table
from fleetcast.view.training import terms
from fleetcast.view.whatif import Variant, Whatif, headlines, pairs, value_of

if TYPE_CHECKING:
    from fleetcast.scenario.load import Scenario

SMALL = 0.005
"""Terms that change by less than this share of the whole are left out of the table."""


def whatif_view(found: Whatif, width: int) -> RenderableType:
    """Returns one change beside the scenario as it is, or a row for each of several."""
    base = found.before
    parts: list[RenderableType] = [Text(_question(base.scenario), style="dim"), Text()]
    parts += [Text("Each with its best plan" if base.planned else "Each simulated with its plan", style="dim"), Text()]
    if len(found.after) == 1:
        parts += _one(found, found.after[0])
    else:
        parts += [_many(found, width), Text()]
    problems = [f"{v.name}: {problem}" for v in (base, *found.after) if (problem := _problem(v))]
    if problems:
        parts.append(bullets("Falls short", problems))
    return Group(*parts)


def _one(found: Whatif, after: Variant) -> list[RenderableType]:
    before, kind = found.before, found.before.scenario.kind
    heads = ("", "Before", "After", "Ratio")
    rows = [("", "as it is", after.name, "")]
    if before.outcome is not None and after.outcome is not None and before.outcome.plan != after.outcome.plan:
        rows.append(("Plan", _plan(before), _plan(after), ""))
    for path, old, new, ratio in pairs(after, before, headlines(kind, (before, after))):
        rows.append((_name(path), _number(kind, old, path), _number(kind, new, path), _ratio(ratio)))
    parts: list[RenderableType] = [rows_table(heads, rows, right=(1, 2, 3)), Text()]
    moved = found.terms(after)
    if moved:
        whole = sum(term.before for term in moved)
        shown = [t for t in moved if abs(t.after - t.before) >= SMALL * whole]
        if shown:
            lines = [
                (_term(kind, t.term), show(t.before, "s"), show(t.after, "s"), _signed(t.after - t.before),
                 _ratio(t.after / t.before if t.before else None))
                for t in shown
            ]  # fmt: skip
            head = "Time by term, what changes" if kind == "training" else "Busy time by term, what changes"
            parts += [rows_table((head, "Before", "After", "Change", "Ratio"), lines, right=(1, 2, 3, 4)), Text()]
    return parts


def _many(found: Whatif, width: int) -> RenderableType:
    """A row per variant; each value with its ratio to the scenario as it is, where there is room."""
    rows = [found.before, *found.after]
    kind = found.before.scenario.kind
    paths = headlines(kind, rows)
    columns = [Column("Change", lambda v: v.name, right=False)]
    if any(v.planned for v in rows):
        columns.append(Column("Plan", _plan, drop=len(paths) + 1, right=False))
    for i, path in enumerate(paths):
        columns.append(Column(_name(path), _cell(found.before, path), drop=max(0, i)))
    if any(value_of(v, "memory") is not None for v in rows) or kind == "serving":
        columns.append(Column("Fits", lambda v: "yes" if v.fits else "no"))
    filled = fitted(columns, rows, width)
    heads = [column.head for column, _ in filled]
    table = [[cells[i] for _, cells in filled] for i in range(len(rows))]
    right = [i for i, (column, _) in enumerate(filled) if column.right]
    return rows_table(heads, table, right=right)


def _cell(base: Variant, path: str) -> Callable[[Variant], str]:
    def cell(variant: Variant) -> str:
        value, old = value_of(variant, path), value_of(base, path)
        if value is None:
            return words.UNKNOWN
        text = _number(base.scenario.kind, value, path)
        return f"{text} ({_ratio(value / old)})" if old and variant is not base else text

    return cell


def _question(scenario: Scenario) -> str:
    if isinstance(scenario, TrainingScenario):
        return terms.question(scenario, goals=False)
    if isinstance(scenario, ServingScenario):
        return words.question(scenario, goals=False)
    if isinstance(scenario, StreamScenario):
        return f"{scenario.name}: {scenario.about}."
    what = "a graph of tasks" if isinstance(scenario, GraphScenario) else scenario.kind
    return f"{scenario.name}: {what} on {scenario.fleet.devices or 'its groups'}."


def _plan(variant: Variant) -> str:
    if variant.outcome is None:
        return words.UNKNOWN
    if isinstance(variant.scenario, GraphScenario):
        return f"order {variant.outcome.plan['order']['kind']}"
    if isinstance(variant.scenario, StreamScenario):
        return made(variant.outcome.plan)
    if not isinstance(variant.scenario, ServingScenario):
        return str(variant.outcome.plan.get("way") or terms.plan_name(variant.outcome.plan))
    return f"{words.plan_name(variant.outcome.plan)}, {words.policy_name(variant.outcome.plan)}"


def _problem(variant: Variant) -> str:
    if variant.problem:
        return variant.problem
    if variant.outcome is not None and variant.scenario.kind == "training":
        return terms.over(variant.outcome)
    return ""


def _name(path: str) -> str:
    if path.startswith("job."):
        return f"Job's {path[4:]}"
    if path.startswith(("ttft", "tpot", "e2e")):
        return words.short(path)
    return {"iteration_time": "Iteration", "mfu": "MFU", "throughput": "Tokens/s", "steps": "Steps/s"}.get(
        path, path.capitalize().replace("_", " ")
    )


def _term(kind: str, name: str) -> str:
    if kind == "training":
        return terms.term(name)
    return words.TERMS.get(name, name).capitalize()


def _number(kind: str, value: float, path: str) -> str:
    text = terms.number(value, path) if kind == "training" else words.number(value, path)
    return text.removesuffix(" tokens/s").removesuffix(" steps/s")


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.3g}x"


def _signed(seconds: float) -> str:
    return ("+" if seconds >= 0 else "-") + show(abs(seconds), "s")
