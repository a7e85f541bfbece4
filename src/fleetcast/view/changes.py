"""The terminal's picture of what a change makes of a scenario: before and after, by term; several in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.scenario.load import ServingScenario
from fleetcast.search.ranking import label
from fleetcast.view import words, worlds
from fleetcast.view.plans import Column, fitted
from fleetcast.view.tables import bullets, rows_table
from fleetcast.view.training import terms
from fleetcast.view.whatif import Variant, Whatif, pairs, value_of

if TYPE_CHECKING:
    from fleetcast.scenario.load import Scenario
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.view.ranked import Shown

SMALL = 0.005
"""Terms that change by less than this share of the whole are left out of the table."""


def whatif_view(found: Whatif, width: int) -> RenderableType:
    """Returns one change beside the scenario as it is, or a row for each of several."""
    base = found.before
    question = looks(base.scenario).question(base.scenario, base.outcome)
    parts: list[RenderableType] = [Text(question, style="dim"), Text()]
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
    columns = looked_at((before, after))
    for path, _, _, ratio in pairs(after, before, list(columns)):
        head, write = columns[path]
        rows.append((head, said(before, write), said(after, write), _ratio(ratio)))
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
    asked = looked_at(rows)
    columns = [Column("Change", lambda v: v.name, right=False)]
    if any(v.planned for v in rows):
        columns.append(Column("Plan", _plan, drop=len(asked) + 1, right=False))
    for i, (path, (head, write)) in enumerate(asked.items()):
        columns.append(Column(head, _cell(found.before, path, write), drop=i))
    if any(value_of(v, "memory") is not None for v in rows) or kind == "serving":
        columns.append(Column("Fits", lambda v: "yes" if v.fits else "no"))
    filled = fitted(columns, rows, width)
    heads = [column.head for column, _ in filled]
    table = [[cells[i] for _, cells in filled] for i in range(len(rows))]
    right = [i for i, (column, _) in enumerate(filled) if column.right]
    return rows_table(heads, table, right=right)


def _cell(base: Variant, path: str, write: Callable[[Outcome], str]) -> Callable[[Variant], str]:
    def cell(variant: Variant) -> str:
        value, old = value_of(variant, path), value_of(base, path)
        text = said(variant, write)
        return f"{text} ({_ratio(value / old)})" if value is not None and old and variant is not base else text

    return cell


def looks(scenario: Scenario) -> ModuleType:
    """Returns the module that says what people look at first: ``COLUMNS``, and ``question`` (scenario, outcome)."""
    return import_module(worlds.WORLDS[type(scenario)].LOOKS)


def looked_at(variants: Sequence[Variant]) -> Shown:
    """Returns what people look at first, of numbers that some variant has."""
    columns: Shown = looks(variants[0].scenario).COLUMNS
    return {path: column for path, column in columns.items() if any(value_of(v, path) is not None for v in variants)}


def said(variant: Variant, write: Callable[[Outcome], str]) -> str:
    """Returns a metric of a variant for people, "–" where it has none."""
    return words.UNKNOWN if variant.outcome is None else write(variant.outcome)


def _plan(variant: Variant) -> str:
    if variant.outcome is None:
        return words.UNKNOWN
    if not isinstance(variant.scenario, ServingScenario):
        return label(variant.outcome)
    return f"{words.plan_name(variant.outcome.plan)}, {words.policy_name(variant.outcome.plan)}"


def _problem(variant: Variant) -> str:
    if variant.problem:
        return variant.problem
    if variant.outcome is not None and variant.scenario.kind == "training":
        return terms.over(variant.outcome)
    return ""


def _term(kind: str, name: str) -> str:
    if kind == "training":
        return terms.term(name)
    return words.TERMS.get(name, name).capitalize()


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.3g}x"


def _signed(seconds: float) -> str:
    return ("+" if seconds >= 0 else "-") + show(abs(seconds), "s")
