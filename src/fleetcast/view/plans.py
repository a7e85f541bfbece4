"""The table of plans: one row per layout, and a column for whatever tells its rows apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fleetcast.base.tables import lookup
from fleetcast.view import words
from fleetcast.view.choices import TOLD_APART

if TYPE_CHECKING:
    from fleetcast.scenario.outcome import Outcome
    from fleetcast.search.ranking import Axis, Ranking

GAP = 2
"""Columns of the terminal between two columns of a table."""
WRAP = 30
"""Names may take so many columns before they are broken into lines."""
WITH_INTERVALS = 110
"""A terminal this wide shows the 80 % intervals of latencies."""
HEADS = {
    words.GOAL_METRIC["cost"]: "$/M tok", words.GOAL_METRIC["energy"]: "Energy/M",
    words.GOAL_METRIC["carbon"]: "CO2e/M", "throughput": "Tokens/s", "goodput": "Goodput",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column: heading, what stands in it, and which goes first where the terminal is narrow (0 stays always)."""

    head: str
    cell: Callable[[Any], str]
    drop: int = 0
    right: bool = True


@dataclass(frozen=True)
class Layout:
    """The best plan of a layout, how many more of its batch policies are ranked, and by how much they are worse."""

    best: Outcome
    more: int
    worse: float


def layouts(ranking: Ranking) -> list[Layout]:
    """Returns the ranked plans by layout, best first: what differs in batch policies alone is one layout."""
    _, path, _ = ranking.goals[0]
    members: dict[str, list[int]] = {}
    for i, outcome in enumerate(ranking.plans):
        members.setdefault(words.layout_of(outcome.plan), []).append(i)
    found = []
    for group in members.values():
        best, last = ranking.plans[group[0]], ranking.plans[group[-1]]
        same = sum(len(ranking.identical[i]) for i in group if i < len(ranking.identical))
        worse = words.apart(lookup(last.metrics, path), lookup(best.metrics, path))
        found.append(Layout(best, len(group) - 1 + same, worse))
    return found


def spaced(plans: Sequence[Outcome], most: int) -> list[Outcome]:
    """Returns at most ``most`` of the plans, evenly spaced, first and last among them."""
    if len(plans) <= most:
        return list(plans)
    return [plans[round(i * (len(plans) - 1) / (most - 1))] for i in range(most)]


def plans_table(
    plans: Sequence[Outcome], goals: Sequence[Axis], width: int, *, rivals: Sequence[Axis] = (),
    best: Outcome | None = None, more: Mapping[int, int] | None = None,
) -> Table:  # fmt: skip
    """Returns a table of plans that fits ``width``.

    Args:
        plans: a row each.
        goals: what they are ranked by: columns that stay.
        width: columns of the terminal.
        rivals: what else they trade.
        best: the plan to set in bold.
        more: how many further batch policies the row with an id of an outcome stands for.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="dim")
    filled = fitted(_columns(plans, goals, rivals, width, more or {}), plans, width)
    for column, _ in filled:
        table.add_column(column.head, justify="right" if column.right else "left", no_wrap=column.right)
    for i, outcome in enumerate(plans):
        cells = [Text(cells[i]) for _, cells in filled]
        cells[-1].stylize({"met": "green", "missed": "red"}.get(cells[-1].plain, ""))
        chosen = best is not None and outcome.plan == best.plan
        table.add_row(*cells, style="bold" if chosen else "" if outcome.slo.get("met", True) else "dim")
    return table


def fitted(columns: Sequence[Column], rows: Sequence[Any], width: int) -> list[tuple[Column, list[str]]]:
    """Returns the columns with their cells that fit into ``width``, those with the highest ``drop`` left out first.

    Columns of which nothing is known are left out everywhere; names that are too long will be broken into lines.
    """
    filled = [(column, [column.cell(row) for row in rows]) for column in columns]
    filled = [(c, cells) for c, cells in filled if any(cell != words.UNKNOWN for cell in cells)]

    def wide() -> int:
        total = 0
        for column, cells in filled:
            longest = max(map(cell_len, [column.head, *cells]))
            total += (longest if column.right else min(longest, WRAP)) + GAP
        return total

    while wide() > width and any(c.drop for c, _ in filled):
        filled.remove(max(filled, key=lambda pair: pair[0].drop))
    return filled


def bare(path: str) -> Callable[[Outcome], str]:
    """Returns what shows a metric without its interval."""
    return lambda outcome: words.metric(outcome, path).partition(" ±")[0]


def _columns(
    plans: Sequence[Outcome], goals: Sequence[Axis], rivals: Sequence[Axis], width: int, more: Mapping[int, int]
) -> list[Column]:
    names = [Column("Plan", lambda o: words.plan_name(o.plan), right=False)]
    names += [
        Column(head, _told(told), right=False)
        for head, told in TOLD_APART.items()
        if len({told(o.plan) for o in plans}) > 1 or (head == "Batch" and more)
    ]
    if more:
        names.append(Column("More", lambda o: f"+{more[id(o)]}" if more.get(id(o)) else ""))
    numbers = {}
    limited = [str(check["metric"]) for check in plans[0].slo.get("checks", ())] if plans else []
    for path in limited or ["ttft.p99", "tpot.p99"]:
        numbers[path] = Column(words.short(path), _with_interval(path) if width >= WITH_INTERVALS else bare(path), 1)
    others = (
        *((words.GOAL_METRIC.get(goal, path), 0) for goal, path, _ in goals),
        *((words.GOAL_METRIC.get(goal, path), 3) for goal, path, _ in rivals),
        (words.GOAL_METRIC["cost"], 4), ("throughput", 5), (words.GOAL_METRIC["energy"], 6),
        (words.GOAL_METRIC["carbon"], 7), ("ttft.p50", 8),
    )  # fmt: skip
    for path, drop in others:
        if path not in numbers or not drop:
            numbers[path] = Column(HEADS.get(path, words.short(path)), _number(path), drop)
    devices = Column("Devices", lambda o: str(o.metrics.get("devices", words.UNKNOWN)), 2)
    last = [Column("SLO", slo_word, right=False)] if any(slo_word(o) == "missed" for o in plans) else []
    return [*names, devices, *numbers.values(), *last]


def slo_word(outcome: Outcome) -> str:
    """Returns "met", "missed", or "–" where nothing is limited."""
    if not outcome.slo.get("checks"):
        return words.UNKNOWN
    return "met" if outcome.slo["met"] else "missed"


def _told(told: Callable[[Mapping[str, Any]], str]) -> Callable[[Outcome], str]:
    return lambda outcome: told(outcome.plan)


def _with_interval(path: str) -> Callable[[Outcome], str]:
    return lambda outcome: words.metric(outcome, path)


def _number(path: str) -> Callable[[Outcome], str]:
    """A number whose unit stands in the heading, where it does."""
    return lambda outcome: bare(path)(outcome).removesuffix(" tokens/s")
