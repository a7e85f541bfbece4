"""What `plan` prints of a kind of workload whose policies are played: the policies by rank, why the best is, notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from fleetcast.base.show import show
from fleetcast.base.tables import known, lookup
from fleetcast.scenario.fleet.failures import duration
from fleetcast.search.ranking import label
from fleetcast.view import words
from fleetcast.view.plans import Column, bare, fitted
from fleetcast.view.tables import bullets, rows_table

if TYPE_CHECKING:
    from rich.table import Table

    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Ranking

Shown = Mapping[str, tuple[str, "Callable[[Outcome], str]"]]
"""Metric path -> heading and cell, the most important first."""

GOALS = {"jct": "completion time", "jct_p99": "99th percentile of completion times"}
"""What goals are called in a sentence, where not by their name."""


def cell(path: str, write: Callable[[Any], str]) -> Callable[[Outcome], str]:
    """Returns what shows a metric as ``write`` writes it, "–" where it is not known."""

    def shown(outcome: Outcome) -> str:
        value = known(outcome.metrics, path)
        return words.UNKNOWN if value is None else write(value)

    return shown


def shown(path: str, head: str = "") -> Shown:
    """Returns the column of a metric in its unit."""
    return {path: (head or path.capitalize().replace("_", " "), bare(path))}


def counts(path: str, head: str) -> Shown:
    """Returns the column of a number of things."""
    return {path: (head, cell(path, "{:,.0f}".format))}


def shares(path: str, head: str, places: int = 0) -> Shown:
    """Returns the column of a share."""
    return {path: (head, cell(path, f"{{:.{places}%}}".format))}


def lasts(path: str, head: str) -> Shown:
    """Returns the column of a time as people say long ones."""
    return {path: (head, cell(path, duration))}


def ranked_view(
    question: str, ranking: Ranking, columns: Shown, why: Sequence[str], width: int, *, space: Sequence[str] = ()
) -> RenderableType:  # fmt: skip
    """Returns what a search found.

    Args:
        question: what was asked, in a sentence.
        ranking: what was found.
        columns: the last are left out where the terminal is narrow, but never what is ranked by.
        why: why the best is.
        width: columns of the terminal.
        space: more to say of what was searched.
    """
    best = ranking.best
    assert best is not None, "some policy always ranks first"
    goals = [path for _, path, _ in ranking.goals]
    table = outcomes_table(ranking.plans, columns, width, goals=goals)
    notes = list(dict.fromkeys([*ranking.notes, *best.notes]))
    parts: list[RenderableType] = [
        Text(question, style="dim"), Text(), Text.assemble("Best: ", (label(best), "bold")), Text(), table, Text(),
        bullets("Why", why), bullets("Space searched", [*ranking.space, *space], dim=True),
        bullets("Taken as given", notes, dim=True),
    ]  # fmt: skip
    return Group(*parts)


def outcomes_table(outcomes: Sequence[Outcome], columns: Shown, width: int, *, goals: Sequence[str] = ()) -> Table:
    """Returns a row for each outcome; the last columns are left out where the terminal is narrow, but not ``goals``."""
    found = [Column("Policy", label, right=False)]
    found += [
        Column(head, text, drop=0 if path in goals else i + 1) for i, (path, (head, text)) in enumerate(columns.items())
    ]
    filled = fitted(found, outcomes, width)
    rows = list(zip(*(cells for _, cells in filled), strict=True))
    return rows_table([column.head for column, _ in filled], rows, right=range(1, len(filled)), width=width)


def null_of(ranking: Ranking, is_null: Callable[[Outcome], bool]) -> Outcome | None:
    """Returns the null's outcome, None where it was not played."""
    return next((outcome for outcome in ranking.plans if is_null(outcome)), None)


def why(ranking: Ranking, is_null: Callable[[Outcome], bool], null: str) -> list[str]:
    """Returns why the best is: against the null, and against the next.

    Args:
        ranking: what was found.
        is_null: whether an outcome is the null's.
        null: its name in a sentence.
    """
    best, found = ranking.best, []
    assert best is not None, "some policy always ranks first"
    goal, path, sign = ranking.goals[0]
    value = float(lookup(best.metrics, path))
    beside = null_of(ranking, is_null)
    if beside is best:
        found.append(f"Nothing beats {null} here.")
    elif beside is not None and float(lookup(beside.metrics, path)) > 0:
        ratio = value / float(lookup(beside.metrics, path))
        word = GOALS.get(goal, goal.replace("_", " "))
        found.append(f"{ratio:.3g} x the {word} of {null} ({'less' if sign > 0 else 'more'} is better).")
    if len(ranking.plans) > 1 and ranking.plans[1] is not beside:
        other = ranking.plans[1]
        unit, amount = words.unit_of(path), float(lookup(other.metrics, path))
        found.append(f"The next, {label(other)}, comes to {show(amount, unit) if unit else f'{amount:,.6g}'}.")
    return found or ["It is the only one."]
